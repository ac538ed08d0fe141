/* SPDX-License-Identifier: MIT */
/*
 * names: which values travel by name, and how a name is found again.
 *
 * A name is one string: a module, or a module and a field with a zero byte
 * between. Pristine names are fixed when the codec is made; names of loaded
 * modules follow package.loaded. All functions here may raise, run no
 * metamethod, and leave the stack as it was but for what they push.
 */
#ifndef PP_NAMES_H
#define PP_NAMES_H

#include "codec_impl.h"

/* Take the snapshot of a pristine state. */
void pp_names_init(pp_codec *c, lua_State *L);

/* Push the table object -> name of package.loaded as it is now. */
void pp_names_modules(pp_codec *c, lua_State *L);

/* Push the name of a loaded module's field that is the value at idx, or
 * nothing. Whether it pushed. */
bool pp_names_field(pp_codec *c, lua_State *L, int idx);

/* The same for a global, or a field of a global table: the name has an empty
 * module in the first case. */
bool pp_names_global(pp_codec *c, lua_State *L, int idx);

/* Push the pristine value of that name; false and nothing when none. */
bool pp_names_pristine(pp_codec *c, lua_State *L, const char *name, size_t n);

/* Push the loaded module of that name. A worker requires it, in its base
 * globals. On failure pushes a message and returns false. */
bool pp_names_module(pp_codec *c, lua_State *L, const char *name, size_t n);

/* Push the value of a name that pp_names_global gave; nil when none. */
void pp_names_global_get(lua_State *L, const char *name, size_t n);

/* Push what the table on top has raw under the field part of the name, or the
 * table itself when it has none, in place of the table. */
void pp_names_step(lua_State *L, const char *name, size_t n);

#endif
