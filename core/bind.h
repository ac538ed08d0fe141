/* SPDX-License-Identifier: MIT */
/*
 * bind: the globals and patches that came with functions, read and put in
 * force. For pp_codec_bind and pp_codec_unbind see codec.h. These raise.
 */
#ifndef PP_BIND_H
#define PP_BIND_H

#include "marshal.h"

/* Read the section of bindings into a new table of bindings on top. 0, or an
 * error with a message pushed. */
int pp_get_bindings(pp_dec *d);

/* In the table of bindings on top: tables of the arguments that are, by their
 * id, tables the function has become those. */
void pp_unify_globals(pp_dec *d);

/* Push what the id stands for among the captures of the function that is
 * being executed; whether there is one. */
bool pp_push_captured(pp_dec *d, lua_Integer id);

bool pp_bind_captured(pp_codec *c, lua_State *L, lua_Integer id);

/* The execution that has begun knows the tables of the table id -> table on
 * top too; pops it. */
void pp_bind_keep(pp_codec *c, lua_State *L);

/* Its metatable is what has that id, which is not known yet. */
void pp_bind_late(pp_codec *c, lua_State *L, int table, lua_Integer id);

/* Do what the table at index `bindings` says in the globals of now. `over`:
 * also where the job has such a global. */
void pp_bind_install(pp_codec *c, lua_State *L, int bindings, bool over);

#endif
