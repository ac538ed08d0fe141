/* SPDX-License-Identifier: MIT */
/* Where a job's modules are looked for: package.path and package.cpath as they
 * are at submit, and what the script has put into package.preload. */
#include <lauxlib.h>
#include <lualib.h>
#include <string.h>

#include "hash.h"
#include "lua_pp.h"
#include "serial.h"

/* Registry: the paths of the last setting, and a copy of package.preload then,
 * so that no address in it is used again. */
#define LAST_PATH "pp.path"
#define LAST_CPATH "pp.cpath"
#define LAST_PRELOAD "pp.preload"

/* Push package.path and package.cpath; false and nothing if they are none. */
static bool push_paths(lua_State *L) {
  int top = lua_gettop(L);

  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  lua_getfield(L, -1, LUA_LOADLIBNAME);
  if (lua_istable(L, -1)) {
    lua_getfield(L, top + 2, "path");
    lua_getfield(L, top + 2, "cpath");
    if (lua_type(L, -1) == LUA_TSTRING && lua_type(L, -2) == LUA_TSTRING) {
      lua_replace(L, top + 2);
      lua_replace(L, top + 1);
      return true;
    }
  }
  lua_settop(L, top);
  return false;
}

static int to_buf(lua_State *L, const void *p, size_t n, void *ud) {
  (void)L;
  return pp_buf_put(ud, p, n);
}

/* Why the loader at the top cannot travel: pushes that; or nothing, NULL. It
 * can if it is Lua code that holds the globals at most. */
static const char *why_not(lua_State *L) {
  int f = lua_gettop(L);
  const char *name;
  bool plain;

  if (!lua_isfunction(L, f))
    return lua_pushfstring(L, "it is a %s", luaL_typename(L, f));
  if (lua_iscfunction(L, f))
    return lua_pushliteral(L, "it is a C function");
  for (int i = 1; (name = lua_getupvalue(L, f, i)) != NULL; i++) {
    lua_pushglobaltable(L);
    plain = i == 1 && lua_rawequal(L, -1, -2);
    lua_settop(L, f);
    if (!plain)
      return lua_pushfstring(L, "it has the upvalue '%s'", name);
  }
  return NULL;
}

static int put_bytes(pp_buf *out, const void *p, size_t n) {
  return pp_buf_varint(out, n) != 0 || pp_buf_put(out, p, n) != 0;
}

/* Append what is in the table on top. */
static int put_loaders(lua_State *L, pp_buf *out) {
  int t = lua_gettop(L), r = 0;
  pp_buf code = {0};

  lua_pushnil(L);
  while (r == 0 && lua_next(L, t) != 0) {
    const char *why, *name;
    size_t n;

    if (lua_type(L, t + 1) == LUA_TSTRING) {
      name = lua_tolstring(L, t + 1, &n);
      r = put_bytes(out, name, n);
      why = why_not(L);
      code.len = 0;
      if (why != NULL)
        r |= pp_buf_byte(out, 'r') | put_bytes(out, why, strlen(why));
      else
        r |= lua_dump(L, to_buf, &code, 0) | pp_buf_byte(out, 'c') |
             put_bytes(out, code.data, code.len);
    }
    lua_settop(L, t + 1);
  }
  lua_settop(L, t);
  pp_buf_clear(&code);
  return r;
}

/* A number that is another when the table on top holds something else. */
static uint64_t sum_of(lua_State *L) {
  uint64_t sum = 1;

  lua_pushnil(L);
  while (lua_next(L, -2) != 0) {
    sum =
        (sum ^ (uintptr_t)lua_topointer(L, -1)) * UINT64_C(0x9e3779b97f4a7c15);
    sum = (sum ^ (uintptr_t)lua_topointer(L, -2)) + (sum >> 29);
    lua_pop(L, 1);
  }
  return sum;
}

/* Keep what the setting was made of: paths from top + 1 on, then preload. */
static void keep(lua_State *L, int top) {
  lua_pushvalue(L, top + 1);
  lua_setfield(L, LUA_REGISTRYINDEX, LAST_PATH);
  lua_pushvalue(L, top + 2);
  lua_setfield(L, LUA_REGISTRYINDEX, LAST_CPATH);
  lua_newtable(L);
  lua_pushnil(L);
  while (lua_next(L, top + 3) != 0) {
    lua_pushvalue(L, -2);
    lua_insert(L, -2);
    lua_rawset(L, -4);
  }
  lua_setfield(L, LUA_REGISTRYINDEX, LAST_PRELOAD);
}

/* In a job of this process, whose engine this is: its jobs have what it has. */
static pp_blob *inherited(pp_engine *e) {
  const pp_blob *b = pp_serial_setting(e);
  pp_blob *was = e->setting;

  e->setting = b == NULL ? NULL
                         : pp_blobs_intern(&e->blobs, PP_BLOB_SETTING, b->hash,
                                           b->bytes, b->len, NULL, 0);
  pp_blob_unref(&e->blobs, was);
  return e->setting;
}

/* What the last setting was made of, and where to look whether it still holds:
 * references of the script's registry. */
static struct {
  const char *seen[2]; /* strings of the registry's copies */
  uint64_t sum;        /* of package.preload */
  pp_blob *blob;
  int package, path, cpath, preload; /* 0: none as yet */
} last;

/* Is it as it was? Neither runs Lua nor allocates. */
static bool unchanged(lua_State *L) {
  int top = lua_gettop(L);
  bool same = false;

  if (last.package == 0)
    return false;
  lua_rawgeti(L, LUA_REGISTRYINDEX, last.package);
  lua_rawgeti(L, LUA_REGISTRYINDEX, last.path);
  if (lua_rawget(L, top + 1) == LUA_TSTRING &&
      lua_tostring(L, -1) == last.seen[0]) {
    lua_rawgeti(L, LUA_REGISTRYINDEX, last.cpath);
    same = lua_rawget(L, top + 1) == LUA_TSTRING &&
           lua_tostring(L, -1) == last.seen[1];
  }
  if (same) {
    lua_rawgeti(L, LUA_REGISTRYINDEX, last.preload);
    same = sum_of(L) == last.sum;
  }
  lua_settop(L, top);
  return same;
}

/* Note where to look next time. */
static void look_here(lua_State *L) {
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  lua_getfield(L, -1, LUA_LOADLIBNAME);
  last.package = luaL_ref(L, LUA_REGISTRYINDEX);
  lua_pop(L, 1);
  lua_pushliteral(L, "path");
  last.path = luaL_ref(L, LUA_REGISTRYINDEX);
  lua_pushliteral(L, "cpath");
  last.cpath = luaL_ref(L, LUA_REGISTRYINDEX);
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
  last.preload = luaL_ref(L, LUA_REGISTRYINDEX);
}

pp_blob *pp_setting(lua_State *L, pp_engine *e) {
  int top = lua_gettop(L);
  const char *path, *cpath;
  pp_blob *was = last.blob;
  pp_buf b = {0};
  size_t n, cn;
  uint64_t sum;

  if (e->nest != NULL) /* the driver gives it that of the job at work */
    return NULL;
  if (e->serial != NULL)
    return inherited(e);
  luaL_checkstack(L, 20, NULL);
  if (PP_LIKELY(unchanged(L)))
    return last.blob;
  if (!push_paths(L))
    return NULL;
  path = lua_tolstring(L, top + 1, &n);
  cpath = lua_tolstring(L, top + 2, &cn);
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
  sum = sum_of(L);
  if (last.package == 0)
    look_here(L);
  keep(L, top);
  lua_pushnil(L);
  if (strcmp(path, e->path) == 0 && strcmp(cpath, e->cpath) == 0 &&
      lua_next(L, top + 3) == 0) {
    last.blob = NULL;
  } else {
    lua_settop(L, top + 3);
    if (pp_buf_put(&b, path, n + 1) != 0 || pp_buf_put(&b, cpath, cn + 1) ||
        put_loaders(L, &b) != 0) {
      pp_buf_clear(&b);
      luaL_error(L, "not enough memory");
    }
    pp_engine_enter(e);
    last.blob =
        pp_blobs_intern(&e->blobs, PP_BLOB_SETTING,
                        pp_hash_of(b.data, b.len, 0), b.data, b.len, NULL, 0);
    pp_engine_leave(e);
    pp_buf_clear(&b);
  }
  pp_engine_enter(e);
  pp_blob_unref(&e->blobs, was);
  pp_engine_leave(e);
  last.seen[0] = path;
  last.seen[1] = cpath;
  last.sum = sum;
  lua_settop(L, top);
  return last.blob;
}
