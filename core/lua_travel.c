/* SPDX-License-Identifier: MIT */
/* What goes along with a job beside its function and arguments: depfuncs,
 * globals, modules. */
#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>

#include "lua_submission.h"

int pp_arg_error(lua_State *L, const submission *b, int at, const char *msg) {
  luaL_where(L, b->level);
  lua_pushfstring(L, "bad argument #%d to '%s' (%s)",
                  b->by_name ? b->number : at - 1, b->method, msg);
  lua_concat(L, 2);
  return lua_error(L);
}

/* The name under which the function at `f` is known: upvalue of func, local
 * of the caller, global. Pushes it; false if there is none. */
static bool name_of(lua_State *L, int f) {
  lua_Debug ar;
  const char *name;

  for (int i = 1; (name = lua_getupvalue(L, AT_FUNC, i)) != NULL; i++) {
    bool same = lua_rawequal(L, -1, f);

    lua_pop(L, 1);
    if (same && *name != '\0') {
      lua_pushstring(L, name);
      return true;
    }
  }
  lua_pushglobaltable(L);
  lua_pushnil(L);
  while (lua_next(L, -2) != 0) {
    bool same = lua_rawequal(L, -1, f) && lua_type(L, -2) == LUA_TSTRING;

    lua_pop(L, 1);
    if (same) {
      lua_remove(L, -2);
      return true;
    }
  }
  lua_pop(L, 1);
  if (lua_getstack(L, 1, &ar))
    for (int i = 1; (name = lua_getlocal(L, &ar, i)) != NULL; i++) {
      bool same = lua_rawequal(L, -1, f);

      lua_pop(L, 1);
      if (same && *name != '(') {
        lua_pushstring(L, name);
        return true;
      }
    }
  return false;
}

static void need_extra(lua_State *L, submission *b) {
  if (!pp_has(b, AT_EXTRA)) {
    b->has |= 1u << AT_EXTRA;
    lua_newtable(L);
    lua_replace(L, AT_EXTRA);
  }
}

static int bad_in(lua_State *L, const submission *b, int at, const char *what) {
  return pp_arg_error(L, b, at,
                      lua_pushfstring(L, "%s %s", b->names[at], what));
}

void pp_add_deps(lua_State *L, submission *b) {
  if (!pp_has(b, AT_DEPS))
    return;
  lua_pushnil(L);
  while (lua_next(L, AT_DEPS) != 0) {
    int k = lua_gettop(L) - 1, v = k + 1;

    if (!lua_isfunction(L, v))
      bad_in(L, b, AT_DEPS,
             lua_pushfstring(L, "must hold functions, got %s",
                             luaL_typename(L, v)));
    if (lua_type(L, k) == LUA_TSTRING) {
      lua_pushvalue(L, k);
    } else if (!name_of(L, v)) {
      lua_Debug ar;

      lua_pushvalue(L, v);
      lua_getinfo(L, ">S", &ar);
      bad_in(L, b, AT_DEPS,
             lua_pushfstring(L,
                             "holds a function without a name (%s:%d); "
                             "give a map from name to function",
                             ar.short_src, ar.linedefined));
    }
    need_extra(L, b);
    lua_pushvalue(L, v);
    lua_rawset(L, AT_EXTRA);
    lua_settop(L, k);
  }
}

void pp_add_globals(lua_State *L, submission *b) {
  if (!pp_has(b, AT_GLOBALS))
    return;
  need_extra(L, b);
  lua_pushnil(L);
  while (lua_next(L, AT_GLOBALS) != 0) {
    int k = lua_gettop(L) - 1;

    if (lua_type(L, k) == LUA_TSTRING) { /* name -> value */
      lua_pushvalue(L, k);
      lua_pushvalue(L, k + 1);
      lua_rawset(L, AT_EXTRA);
    } else if (lua_type(L, k + 1) == LUA_TSTRING) { /* a name */
      lua_pushglobaltable(L);
      lua_pushvalue(L, k + 1);
      if (lua_rawget(L, -2) == LUA_TNIL)
        bad_in(L, b, AT_GLOBALS,
               lua_pushfstring(L, "names '%s', which is not a global",
                               lua_tostring(L, k + 1)));
      lua_pushvalue(L, k + 1);
      lua_insert(L, -2);
      lua_rawset(L, AT_EXTRA);
    } else {
      bad_in(L, b, AT_GLOBALS,
             "must be a list of names or a map from name to "
             "value");
    }
    lua_settop(L, k);
  }
}

size_t pp_add_modules(lua_State *L, const submission *b) {
  pp_buf *out = &b->e->scratch;
  size_t was = out->len, len;
  int n;

  if (!pp_has(b, AT_MODULES))
    return 0;
  n = (int)lua_rawlen(L, AT_MODULES);
  for (int i = 1; i <= n; i++) {
    const char *m;

    if (lua_rawgeti(L, AT_MODULES, i) != LUA_TSTRING)
      bad_in(L, b, AT_MODULES,
             lua_pushfstring(L, "must be a list of strings, got %s",
                             luaL_typename(L, -1)));
    m = lua_tolstring(L, -1, &len);
    if (pp_buf_varint(out, len) != 0 || pp_buf_put(out, m, len) != 0)
      luaL_error(L, "not enough memory");
    lua_pop(L, 1);
  }
  return out->len - was;
}
