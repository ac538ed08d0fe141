/* SPDX-License-Identifier: MIT */
/* The globals of a job: a fresh table over the worker's base globals. */
#include <lauxlib.h>

#include "runner_impl.h"

static pp_runner *runner_of(lua_State *L) {
  return lua_touserdata(L, lua_upvalueindex(1));
}

/* In the metatable of a job's globals where that is the job's own: the set of
 * the names of base globals that they do not show. */
static char hidden_key;

/* Push that set, or nil. */
static void push_hidden(lua_State *L, int env) {
  if (!lua_getmetatable(L, env)) {
    lua_pushnil(L);
    return;
  }
  lua_rawgetp(L, -1, &hidden_key);
  lua_remove(L, -2);
}

/* next over a job's globals, then over those of the base it does not hide. */
static int env_next(lua_State *L) {
  bool in_env = true;

  lua_settop(L, 2);
  if (!lua_isnil(L, 2)) {
    lua_pushvalue(L, 2);
    in_env = lua_rawget(L, 1) != LUA_TNIL;
    lua_pop(L, 1);
  }
  if (in_env) {
    if (lua_next(L, 1) != 0)
      return 2;
    lua_pushnil(L);
  }
  lua_rawgeti(L, LUA_REGISTRYINDEX, runner_of(L)->base);
  push_hidden(L, 1);
  lua_rotate(L, 2, 2); /* env, base, hidden, key */
  while (lua_next(L, 2) != 0) {
    lua_pushvalue(L, -2);
    if (lua_rawget(L, 1) == LUA_TNIL) {
      lua_pop(L, 1);
      if (lua_isnil(L, 3))
        return 2;
      lua_pushvalue(L, -2);
      if (lua_rawget(L, 3) == LUA_TNIL) {
        lua_pop(L, 1);
        return 2;
      }
    }
    lua_pop(L, 2);
  }
  lua_pushnil(L);
  return 1;
}

/* Reading a global that is not the job's own, where some are hidden. Upvalues:
 * base, hidden. */
static int env_index(lua_State *L) {
  lua_settop(L, 2);
  lua_pushvalue(L, 2);
  if (lua_rawget(L, lua_upvalueindex(2)) != LUA_TNIL) {
    lua_pushnil(L);
  } else {
    lua_pushvalue(L, 2);
    lua_gettable(L, lua_upvalueindex(1));
  }
  return 1;
}

/*
 * Give a job's globals, at index env, all base globals and a metatable of their
 * own. The one they have is that of all jobs of the worker.
 */
static void detach(lua_State *L, pp_runner *r, int env) {
  int hidden = lua_gettop(L) + 1, meta = hidden + 1, base = hidden + 2;

  luaL_checkstack(L, 8, NULL);
  lua_newtable(L);
  lua_newtable(L);
  lua_rawgeti(L, LUA_REGISTRYINDEX, r->env_meta);
  lua_pushnil(L);
  while (lua_next(L, meta + 1) != 0) {
    lua_pushvalue(L, -2);
    lua_insert(L, -2);
    lua_rawset(L, meta);
  }
  lua_settop(L, meta);
  lua_rawgeti(L, LUA_REGISTRYINDEX, r->base);
  lua_pushvalue(L, base);
  lua_pushvalue(L, hidden);
  lua_pushcclosure(L, env_index, 2);
  lua_setfield(L, meta, "__index");
  lua_pushvalue(L, hidden);
  lua_rawsetp(L, meta, &hidden_key);
  lua_pushnil(L);
  while (lua_next(L, base) != 0) {
    lua_pushvalue(L, base + 1);
    lua_pushboolean(L, 1);
    lua_rawset(L, hidden);
    lua_pushvalue(L, base + 1);
    if (lua_rawget(L, env) == LUA_TNIL) {
      lua_pushvalue(L, base + 1);
      lua_pushvalue(L, base + 2);
      lua_rawset(L, env);
    }
    lua_settop(L, base + 1);
  }
  lua_pushvalue(L, meta);
  lua_setmetatable(L, env);
  lua_settop(L, hidden - 1);
}

/* A new global, or nil for one of the base. */
static int env_newindex(lua_State *L) {
  pp_runner *r = runner_of(L);

  lua_settop(L, 3);
  if (!lua_isnil(L, 3)) {
    lua_rawset(L, 1);
    return 0;
  }
  lua_rawgeti(L, LUA_REGISTRYINDEX, r->base);
  lua_pushvalue(L, 2);
  if (lua_rawget(L, 4) == LUA_TNIL)
    return 0;
  push_hidden(L, 1);
  if (lua_isnil(L, 6)) {
    detach(L, r, 1);
    lua_pushvalue(L, 2);
    lua_pushnil(L);
    lua_rawset(L, 1);
  } else { /* the base did not have it when they were detached */
    lua_pushvalue(L, 2);
    lua_pushboolean(L, 1);
    lua_rawset(L, 6);
  }
  return 0;
}

/* Is it the one of all jobs of the worker that is the value on top? */
static bool is_shared(lua_State *L, const pp_runner *r) {
  return PP_UNLIKELY(lua_topointer(L, -1) == r->env_meta_at);
}

/* Where a job asks for the metatable of its globals, or sets another, it is to
 * be the job's own: and then its globals cannot be found by it any more. */
static int get_metatable(lua_State *L, bool bare) {
  luaL_checkany(L, 1);
  if (!lua_getmetatable(L, 1)) {
    lua_pushnil(L);
    return 1;
  }
  if (is_shared(L, runner_of(L))) {
    detach(L, runner_of(L), 1);
    lua_getmetatable(L, 1);
  }
  if (!bare)
    luaL_getmetafield(L, 1, "__metatable");
  return 1;
}

static int set_metatable(lua_State *L, bool bare) {
  int type = lua_type(L, 2);

  if (!bare)
    luaL_checktype(L, 1, LUA_TTABLE);
  luaL_argexpected(L, type == LUA_TNIL || type == LUA_TTABLE, 2,
                   "nil or table");
  lua_settop(L, 2);
  if (lua_getmetatable(L, 1)) {
    if (is_shared(L, runner_of(L)))
      detach(L, runner_of(L), 1);
    else if (!bare && luaL_getmetafield(L, 1, "__metatable") != LUA_TNIL)
      return luaL_error(L, "cannot change a protected metatable");
    lua_settop(L, 2);
  }
  lua_setmetatable(L, 1);
  return 1;
}

/* The same in debug: protected or not, of values of any type. */
static int getmeta(lua_State *L) { return get_metatable(L, false); }

static int getmeta_bare(lua_State *L) { return get_metatable(L, true); }

static int setmeta(lua_State *L) { return set_metatable(L, false); }

static int setmeta_bare(lua_State *L) { return set_metatable(L, true); }

static int env_pairs(lua_State *L) {
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_pushvalue(L, 1);
  lua_pushnil(L);
  return 3;
}

static void put(lua_State *L, pp_runner *r, const char *name, lua_CFunction f) {
  lua_pushlightuserdata(L, r);
  lua_pushcclosure(L, f, 1);
  lua_setfield(L, -2, name);
}

void pp_globals_prepare(lua_State *L, pp_runner *r) {
  lua_newtable(L);
  lua_pushglobaltable(L);
  lua_setfield(L, -2, "__index");
  lua_pushlightuserdata(L, r);
  lua_pushcclosure(L, env_next, 1);
  lua_pushcclosure(L, env_pairs, 1);
  lua_setfield(L, -2, "__pairs");
  put(L, r, "__newindex", env_newindex);
  r->env_meta_at = lua_topointer(L, -1);
  r->env_meta = luaL_ref(L, LUA_REGISTRYINDEX);
  lua_pushglobaltable(L);
  put(L, r, "getmetatable", getmeta);
  put(L, r, "setmetatable", setmeta);
  lua_getfield(L, -1, "debug");
  put(L, r, "getmetatable", getmeta_bare);
  put(L, r, "setmetatable", setmeta_bare);
  lua_pop(L, 2);
}
