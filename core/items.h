/* SPDX-License-Identifier: MIT */
/* items: the items of a chunk, one after another, as its arguments give them.
 */
#ifndef PP_ITEMS_H
#define PP_ITEMS_H

#include "execute_impl.h"
#include "plain.h"

enum {
  PP_ITEMS_PLAIN,  /* read from the arguments as they are needed */
  PP_ITEMS_RANGE,  /* there are none but in the mind */
  PP_ITEMS_EACH,   /* packed one by one, each behind its length */
  PP_ITEMS_STACKED /* one graph: on the stack, from `base` on */
};

typedef struct pp_items {
  pp_call *c;
  int kind, base;
  uint64_t n, at; /* how many, how many have been given */
  pp_plain_in in;
  pp_rd packed;
  bool ints[2]; /* are these of a range integers: */
  struct {
    lua_Integer i;
    lua_Number d;
  } first, step;
  lua_Integer before; /* how many of the range come before these */
} pp_items;

/* The items of c's arguments, whose bytes are borrowed. Raises for a malformed
 * chunk. Those that are to be stacked are to be pushed by the caller. */
void pp_items_open(lua_State *L, pp_items *m, pp_call *c);

/* Push the arguments of the next item, of which there is one; how many. Raises.
 */
int pp_items_next(lua_State *L, pp_items *m);

/* Push the next of a range. */
static inline void pp_items_range(lua_State *L, pp_items *m) {
  lua_Unsigned k = (lua_Unsigned)m->before + m->at++;

  if (m->ints[0] && m->ints[1]) /* around at the ends, as Lua does */
    lua_pushinteger(L, (lua_Integer)((lua_Unsigned)m->first.i +
                                     k * (lua_Unsigned)m->step.i));
  else if (m->ints[1])
    lua_pushnumber(
        L, m->first.d + (lua_Number)(lua_Integer)(k * (lua_Unsigned)m->step.i));
  else
    lua_pushnumber(L, m->first.d + (lua_Number)(lua_Integer)k * m->step.d);
}

/* The same where they are plain or a range, and spread or not does not matter:
 * push the one value. */
static inline void pp_items_plain(lua_State *L, pp_items *m) {
  if (m->kind == PP_ITEMS_RANGE) {
    pp_items_range(L, m);
  } else {
    if (pp_plain_next(&m->in, L) <= 0)
      luaL_error(L, "malformed chunk");
    m->at++;
  }
}

#endif
