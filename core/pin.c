/* SPDX-License-Identifier: MIT */
#include "pin.h"

#include <lauxlib.h>
#include <stdlib.h>

#include "state.h"

struct pp_pin {
  pp_cargo cargo; /* first */
  pp_pin *next;   /* in the list of those to go */
  int place;
};

/* In the registry at its address: the table of pinned strings, by place. */
static const char pinned[1];

/* The state is closing: this comes before any string of its is freed. */
static int on_close(lua_State *L) {
  pp_state_leave(L);
  return 0;
}

/* Push that table. False where it would not be told of the state's end: none
 * can be made by a finalizer, which may be among the last. */
static bool push_table(lua_State *L) {
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, pinned) == LUA_TTABLE)
    return true;
  lua_pop(L, 1);
  if (lua_gc(L, LUA_GCISRUNNING) != 1)
    return false;
  lua_newtable(L);
  lua_createtable(L, 0, 1);
  lua_pushcfunction(L, on_close);
  lua_setfield(L, -2, "__gc");
  lua_setmetatable(L, -2);
  lua_pushvalue(L, -1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, pinned);
  return true;
}

int pp_pin_place(lua_State *L) {
  int place;

  luaL_checkstack(L, 10, NULL);
  if (!push_table(L))
    return 0;
  lua_pushboolean(L, 0);
  place = luaL_ref(L, -2);
  lua_pop(L, 1);
  return place;
}

void pp_pin_leave(lua_State *L, int place) {
  lua_rawgetp(L, LUA_REGISTRYINDEX, pinned);
  luaL_unref(L, -1, place);
  lua_pop(L, 1);
}

/* The last has let go. The lock held, on any thread. */
static void gone(pp_cargo *c) {
  pp_pin *p = (pp_pin *)(void *)c;
  pp_engine *e = c->ud;

  p->next = atomic_load_explicit(&e->unpinned, memory_order_relaxed);
  atomic_store_explicit(&e->unpinned, p, memory_order_relaxed);
}

pp_cargo *pp_pin_string(pp_engine *e, lua_State *L, int place, int idx) {
  pp_pin *p = calloc(1, sizeof *p);

  if (p == NULL) {
    pp_pin_leave(L, place);
    return NULL;
  }
  idx = lua_absindex(L, idx);
  lua_rawgetp(L, LUA_REGISTRYINDEX, pinned);
  lua_pushvalue(L, idx);
  lua_rawseti(L, -2, place);
  lua_pop(L, 1);
  p->place = place;
  p->cargo.refs = 1;
  p->cargo.p = (const unsigned char *)lua_tolstring(L, idx, &p->cargo.len);
  p->cargo.gone = gone;
  p->cargo.ud = e;
  return &p->cargo;
}

void pp_unpin(pp_engine *e, lua_State *L) {
  pp_pin *p, *next;

  if (!lua_checkstack(L, 10))
    return; /* another time */
  pp_engine_enter(e);
  p = atomic_exchange(&e->unpinned, NULL);
  pp_engine_leave(e);
  for (; p != NULL; p = next) {
    next = p->next;
    pp_pin_leave(L, p->place);
    free(p);
  }
}
