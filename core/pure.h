/* SPDX-License-Identifier: MIT */
/*
 * pure: functions whose executions leave nothing behind that a later one in
 * the same globals could see. A chunk calls such a function for all its items
 * in one fresh table of globals, where others need one for each item.
 *
 * It is decided once, by the bytecode: neither the function nor any that it
 * can call assigns globals or upvalues, or uses its globals otherwise than to
 * read some by name, and these are the function's own (other such functions,
 * strings, numbers, booleans) or of those parts of the standard library that
 * reach no globals: no _G, load, require, debug, nor anything else that is not
 * listed in pure.c. What a job changes for good in its process (fields of
 * `string`, say) is no globals and seen by later executions in any case; but
 * such changes made before may make a listed name stand for something else, so
 * that is looked at again before each chunk.
 *
 * Items must be plain: an object may bring any code.
 */
#ifndef PP_PURE_H
#define PP_PURE_H

#include "runner_impl.h"

/* Take stock of the pristine state. Raises. */
void pp_pure_prepare(lua_State *L, pp_runner *r);

enum {
  PP_PURE_UNKNOWN,
  PP_PURE_NOT,
  PP_PURE,
  PP_PURE_RANDOM /* it may use random numbers */
};

/* Look at the function and the bindings at these stack indices, as
 * pp_codec_open gave them: one of the above, and pushes what must hold when it
 * is to be treated so. Raises without memory. */
int pp_pure_look(lua_State *L, pp_runner *r, int fn, int bindings);

/* Does what is at that index hold now, when nothing is bound? Raises without
 * memory. */
bool pp_pure_holds(lua_State *L, pp_runner *r, int needs);

#endif
