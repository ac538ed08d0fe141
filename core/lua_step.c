/* SPDX-License-Identifier: MIT */
/* The iterator of imap: it hands out what a chunk has given, step by step, and
 * asks pp/iterate.lua for the next. */
#include <lauxlib.h>
#include <string.h>

#include "lua_pp.h"

/* Steps from one look at what has arrived to the next: it takes longer than a
 * step. Meanwhile the standby thread sees to what arrives while the script is
 * busy for longer than that. */
#define LOOK_EVERY 8

/* What is there to be handed out: values[pos], one for each index. User value 1
 * is the table of values. */
typedef struct steps {
  lua_Integer index, pos, left;
  unsigned count;
} steps;

/* core.steps() -> an empty one */
static int new_steps(lua_State *L) {
  steps *s = lua_newuserdatauv(L, sizeof *s, 1);

  memset(s, 0, sizeof *s);
  luaL_setmetatable(L, "pp.steps");
  return 1;
}

/* core.feed(steps, values, first, n, index): the next n steps give index + 1
 * and values[first], and so on. */
static int feed(lua_State *L) {
  steps *s = luaL_checkudata(L, 1, "pp.steps");

  s->pos = luaL_checkinteger(L, 3);
  s->left = luaL_checkinteger(L, 4);
  s->index = luaL_checkinteger(L, 5);
  lua_settop(L, 2);
  lua_setiuservalue(L, 1, 1);
  return 0;
}

static int push_next(lua_State *L, steps *s, int idx) {
  lua_pushinteger(L, ++s->index);
  lua_getiuservalue(L, idx, 1);
  lua_rawgeti(L, -1, s->pos++);
  lua_replace(L, -2);
  s->left--;
  return 2;
}

/* core.fed(steps) -> the next index and value, or nothing */
static int fed(lua_State *L) {
  steps *s = luaL_checkudata(L, 1, "pp.steps");

  return s->left > 0 ? push_next(L, s, 1) : 0;
}

static int stepped(lua_State *L, int status, lua_KContext base) {
  (void)status;
  return lua_gettop(L) - (int)base;
}

/* Is there nothing to do but to hand out the next? */
static bool is_plain(steps *s, const pp_userver *server) {
  pp_engine *e = pp_engine_here();

  if (s->left == 0 || e == NULL || server->s == NULL || server->s->closed)
    return false;
  if (++s->count % LOOK_EVERY == 0) {
    pp_engine_enter(e);
    pp_engine_look(e, pp_now_ns());
    pp_engine_leave(e);
  }
  return atomic_load_explicit(&e->callbacks, memory_order_relaxed) == 0;
}

/* Upvalues: steps, server, function to call with the next where it is not that
 * simple. */
static int step(lua_State *L) {
  steps *s = lua_touserdata(L, lua_upvalueindex(1));
  int base = lua_gettop(L);

  if (PP_LIKELY(is_plain(s, lua_touserdata(L, lua_upvalueindex(2)))))
    return push_next(L, s, lua_upvalueindex(1));
  lua_pushvalue(L, lua_upvalueindex(3));
  lua_pushvalue(L, lua_upvalueindex(4));
  lua_callk(L, 1, LUA_MULTRET, base, stepped);
  return stepped(L, LUA_OK, base);
}

/* core.stepper(steps, server, f, state) -> an iterator function: it returns
 * what f(state) does where there is nothing to be handed out, or something else
 * to be done first. */
static int stepper(lua_State *L) {
  luaL_checkudata(L, 1, "pp.steps");
  luaL_checkudata(L, 2, PP_SERVER_META);
  luaL_checktype(L, 3, LUA_TFUNCTION);
  lua_settop(L, 4);
  lua_pushcclosure(L, step, 4);
  return 1;
}

static const luaL_Reg funcs[] = {
    {"steps", new_steps}, {"feed", feed}, {"fed", fed},
    {"stepper", stepper}, {NULL, NULL},
};

void pp_open_step(lua_State *L) {
  luaL_newmetatable(L, "pp.steps");
  lua_pop(L, 1);
  luaL_setfuncs(L, funcs, 0);
}
