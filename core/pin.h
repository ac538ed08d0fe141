/* SPDX-License-Identifier: MIT */
/*
 * pin: a large string of the script's that is sent from where it is.
 *
 * What goes to another machine passes a ring in any case: to encode a large
 * string for it would be a copy for nothing. A job whose arguments end with one
 * has it pinned (a job's tail, job.h): the string is kept from being collected,
 * by a table in the registry, until whoever needs it has let go, which any
 * thread may do that holds the engine's lock. Those strings are in a list of
 * the engine's, for the script's thread to see to when it calls next.
 *
 * A Lua state that closes frees its strings, pinned or not, perhaps while some
 * are on their way: it leaves its large blocks as they are then, which end with
 * the process.
 */
#ifndef PP_PIN_H
#define PP_PIN_H

#include <lua.h>

#include "engine.h"

/* A place for a pin, of the script's state; 0: there can be none. Raises
 * without memory. */
int pp_pin_place(lua_State *L);
/* It is not used. */
void pp_pin_leave(lua_State *L, int place);
/* Pin the string at idx there: one reference. NULL without memory: then the
 * place is gone. Neither allocates for Lua nor raises. */
pp_cargo *pp_pin_string(pp_engine *e, lua_State *L, int place, int idx);

/* Let strings be collected that nobody needs any more. The same holds. */
void pp_unpin(pp_engine *e, lua_State *L);
static inline void pp_unpin_due(pp_engine *e, lua_State *L) {
  if (PP_UNLIKELY(atomic_load_explicit(&e->unpinned, memory_order_relaxed) !=
                  NULL))
    pp_unpin(e, L);
}

#endif
