/* SPDX-License-Identifier: MIT */
/* modules = {...} of a job: require each, and make it a global of the job. */
#include <lauxlib.h>
#include <string.h>

#include "execute_impl.h"

/* One that is found on the way to a name is ours to put things into: made here
 * for that (a key of the table at `made`), or the loaded module of the name
 * before the dot; but no global that all jobs of the worker have. The table is
 * at the top. */
static bool is_ours(lua_State *L, pp_call *c, int made, const char *name,
                    size_t len) {
  int t = lua_gettop(L);
  bool ours;

  lua_pushvalue(L, t);
  ours = lua_rawget(L, made) != LUA_TNIL;
  if (!ours) {
    lua_getfield(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
    lua_pushlstring(L, name, len);
    lua_rawget(L, -2);
    lua_rawgeti(L, LUA_REGISTRYINDEX, c->r->base);
    lua_pushlstring(L, name, len);
    lua_rawget(L, -2);
    ours = lua_rawequal(L, t + 3, t) && !lua_rawequal(L, -1, t);
  }
  lua_settop(L, t);
  return ours;
}

/* What `a` or `a.b` is to be on the way to `a.b.c`, where there is nothing: the
 * module of that name, if it was required too, else a new table. */
static void push_way(lua_State *L, int env, int made, const char *name,
                     size_t len) {
  lua_pushlstring(L, name, len);
  if (lua_rawget(L, env) != LUA_TNIL)
    return;
  lua_pop(L, 1);
  lua_newtable(L);
  lua_pushvalue(L, -1);
  lua_pushboolean(L, 1);
  lua_rawset(L, made);
}

/* Make the module that is the global `a.b.c` reachable as such. What stands in
 * the way stays. */
static void hang(lua_State *L, pp_call *c, int env, int made, const char *name,
                 size_t len) {
  const char *at = name, *end = name + len, *dot;
  int t = lua_gettop(L) + 1;

  lua_pushvalue(L, env);
  for (; (dot = memchr(at, '.', (size_t)(end - at))) != NULL; at = dot + 1) {
    size_t n = (size_t)(dot - name);

    lua_pushlstring(L, at, (size_t)(dot - at));
    lua_pushvalue(L, -1);
    if ((at == name ? lua_gettable(L, t) : lua_rawget(L, t)) == LUA_TNIL) {
      lua_pop(L, 1);
      push_way(L, env, made, name, n);
      lua_pushvalue(L, t + 1);
      lua_pushvalue(L, t + 2);
      lua_rawset(L, t);
    }
    if (!lua_istable(L, -1) || !is_ours(L, c, made, name, n)) {
      lua_settop(L, t - 1);
      return;
    }
    lua_replace(L, t);
    lua_settop(L, t);
  }
  lua_pushlstring(L, at, (size_t)(end - at));
  lua_pushvalue(L, -1);
  if (lua_rawget(L, t) == LUA_TNIL) {
    lua_pop(L, 1);
    lua_pushlstring(L, name, len);
    lua_rawget(L, env);
    lua_rawset(L, t);
  }
  lua_settop(L, t - 1);
}

/* The next name of the list; NULL at its end. */
static const char *next_name(lua_State *L, pp_rd *rd, size_t *len) {
  const unsigned char *name = NULL;
  uint64_t n;

  if (pp_rd_left(rd) == 0)
    return NULL;
  if (pp_rd_varint(rd, &n) != 0 || n > pp_rd_left(rd) ||
      pp_rd_bytes(rd, n, &name) != 0)
    luaL_error(L, "malformed job");
  *len = n;
  return (const char *)name;
}

void pp_execute_require(lua_State *L, pp_call *c, int env) {
  pp_rd rd = pp_rd_of(c->modules, c->modules_len);
  bool dotted = false;
  const char *name;
  size_t n;

  luaL_checkstack(L, 10, NULL);
  while ((name = next_name(L, &rd, &n)) != NULL) {
    lua_rawgeti(L, LUA_REGISTRYINDEX, c->r->base);
    lua_getfield(L, -1, "require");
    lua_pushlstring(L, name, n);
    lua_call(L, 1, 1);
    lua_pushlstring(L, name, n);
    lua_insert(L, -2);
    lua_rawset(L, env);
    lua_pop(L, 1);
    dotted = dotted || memchr(name, '.', n) != NULL;
  }
  if (!dotted)
    return;
  lua_newtable(L);
  rd = pp_rd_of(c->modules, c->modules_len);
  while ((name = next_name(L, &rd, &n)) != NULL)
    if (memchr(name, '.', n) != NULL)
      hang(L, c, env, lua_gettop(L), name, n);
  lua_pop(L, 1);
}
