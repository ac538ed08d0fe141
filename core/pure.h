/* SPDX-License-Identifier: MIT */
/*
 * pure: functions whose executions leave nothing behind that a later one in
 * the same globals could see, but for globals that are known by name. A chunk
 * calls such a function for all its items in one table of globals, in which
 * these are put back each time; others need a table for each item.
 *
 * It is decided once, by the bytecode: neither the function nor any that it
 * can call assigns upvalues, or uses its globals otherwise than to read and
 * assign some by name; and what it reads is its own (other such functions,
 * strings, numbers, booleans), nothing at all, or of those parts of the
 * standard library that reach no globals: no _G, load, require, debug, nor
 * anything else that is not listed in pure.c. What a job changes for good in
 * its process (fields of `string`, say) is no globals and seen by later
 * executions in any case; but such changes made before may make a listed name
 * stand for something else, so that is looked at again before each chunk.
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
  PP_PURE,            /* with or without */
  PP_PURE_RANDOM = 4, /* it may use random numbers */
  PP_PURE_STORES = 8, /* it assigns globals */
  PP_PURE_LOOSE = 16  /* it may change parts of the standard library, or
                         brings along what does */
};

/* Look at the function and the bindings at these stack indices, as
 * pp_codec_open gave them: one of the above, and pushes what must hold when it
 * is to be treated so. Raises without memory. */
int pp_pure_look(lua_State *L, pp_runner *r, int fn, int bindings);

/* Does what is at that index hold now, when nothing is bound? Raises without
 * memory. */
bool pp_pure_holds(lua_State *L, pp_runner *r, int needs);

/* Put the standard names that a function with these needs reads into the
 * globals at env, which are then found there at once, as in a plain script.
 * Not for one that assigns globals. Raises without memory. */
void pp_pure_warm(lua_State *L, pp_runner *r, int needs, int env);

/* Push the list of the globals that a function with these needs assigns: {name,
 * value or nil, ...}; nil for none. */
void pp_pure_stores(lua_State *L, int needs);
/* Put them back as they were, in the globals at env. Raises without memory. */
void pp_pure_restore(lua_State *L, pp_runner *r, int stores, int env);

#endif
