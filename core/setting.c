/* SPDX-License-Identifier: MIT */
/* Settings in force in a worker: where modules are looked for, and the loaders
 * of the script's package.preload. */
#include <lauxlib.h>
#include <lualib.h>
#include <string.h>

#include "runner_impl.h"

/* Registry: the paths before the first setting; of the one in force name ->
 * loader, and name -> why there is none. */
#define FIRST "pp.paths.first"
#define LOADERS "pp.loaders"
#define REASONS "pp.loaders.reasons"

/* The last of package.searchers: has no module, but says why the script's
 * loader is not here. */
static int search(lua_State *L) {
  luaL_checkstring(L, 1);
  lua_getfield(L, LUA_REGISTRYINDEX, REASONS);
  lua_pushvalue(L, 1);
  lua_rawget(L, -2);
  if (lua_type(L, -1) != LUA_TSTRING)
    return 0;
  lua_pushfstring(L, "the script's loader in package.preload cannot travel: %s",
                  lua_tostring(L, -1));
  return 1;
}

static int bytes_of(pp_rd *rd, const unsigned char **p, uint64_t *n) {
  return pp_rd_varint(rd, n) != 0 || *n > pp_rd_left(rd) ||
         pp_rd_bytes(rd, *n, p) != 0;
}

/* Put the loaders into the tables at index preload and loaders, reasons into
 * that at index reasons. */
static void get_loaders(lua_State *L, pp_runner *r, pp_rd *rd, int preload,
                        int loaders, int reasons) {
  const unsigned char *name, *p;
  unsigned char kind;
  uint64_t len, n;

  while (pp_rd_left(rd) > 0) {
    if (bytes_of(rd, &name, &len) || pp_rd_byte(rd, &kind) != 0 ||
        bytes_of(rd, &p, &n))
      luaL_error(L, "malformed setting");
    lua_pushlstring(L, (const char *)name, len);
    if (kind == 'c') {
      if (luaL_loadbufferx(L, (const char *)p, n, "=preload", "b") != LUA_OK)
        lua_error(L);
      lua_rawgeti(L, LUA_REGISTRYINDEX, r->base);
      if (lua_setupvalue(L, -2, 1) == NULL)
        lua_pop(L, 1);
      lua_pushvalue(L, -2);
      lua_pushvalue(L, -2);
      lua_rawset(L, preload);
      lua_rawset(L, loaders);
    } else {
      lua_pushlstring(L, (const char *)p, n);
      lua_rawset(L, reasons);
    }
  }
}

/* Take the loaders of the last setting back. */
static void take_back(lua_State *L, int preload) {
  if (lua_getfield(L, LUA_REGISTRYINDEX, LOADERS) == LUA_TTABLE) {
    lua_pushnil(L);
    while (lua_next(L, -2) != 0) {
      lua_pushvalue(L, -2);
      lua_rawget(L, preload);
      if (lua_rawequal(L, -1, -2)) {
        lua_pushvalue(L, -3);
        lua_pushnil(L);
        lua_rawset(L, preload);
      }
      lua_pop(L, 2);
    }
  }
  lua_pop(L, 1);
}

/* 1 runner, 2 the blob or NULL: back to the beginning. */
static int put_in_force(lua_State *L) {
  pp_runner *r = lua_touserdata(L, 1);
  const pp_held *h = lua_touserdata(L, 2);
  pp_rd rd = {0};
  int package = 3, preload = 4, first = 5, loaders = 6, reasons = 7;

  lua_settop(L, 2);
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  lua_getfield(L, -1, LUA_LOADLIBNAME);
  lua_remove(L, -2);
  luaL_checktype(L, package, LUA_TTABLE);
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
  if (luaL_getsubtable(L, LUA_REGISTRYINDEX, FIRST) == 0) {
    lua_getfield(L, package, "path");
    lua_setfield(L, first, "path");
    lua_getfield(L, package, "cpath");
    lua_setfield(L, first, "cpath");
    if (lua_getfield(L, package, "searchers") == LUA_TTABLE) {
      lua_pushcfunction(L, search);
      lua_rawseti(L, -2, (lua_Integer)lua_rawlen(L, -2) + 1);
    }
    lua_pop(L, 1);
  }
  take_back(L, preload);
  lua_newtable(L);
  lua_pushvalue(L, loaders);
  lua_setfield(L, LUA_REGISTRYINDEX, LOADERS);
  lua_newtable(L);
  lua_pushvalue(L, reasons);
  lua_setfield(L, LUA_REGISTRYINDEX, REASONS);
  if (h == NULL) {
    lua_getfield(L, first, "path");
    lua_getfield(L, first, "cpath");
  } else {
    rd = pp_rd_of(h->bytes, h->len);
    for (int i = 0; i < 2; i++) {
      const unsigned char *p, *end = memchr(h->bytes + h->len - pp_rd_left(&rd),
                                            0, pp_rd_left(&rd));
      size_t n;

      if (end == NULL)
        return luaL_error(L, "malformed setting");
      n = (size_t)(end - (h->bytes + h->len - pp_rd_left(&rd)));
      if (pp_rd_bytes(&rd, n + 1, &p) != 0)
        return luaL_error(L, "malformed setting");
      lua_pushlstring(L, (const char *)p, n);
    }
  }
  lua_setfield(L, package, "cpath");
  lua_pushvalue(L, -1);
  lua_rawseti(L, LUA_REGISTRYINDEX, r->path);
  lua_setfield(L, package, "path");
  get_loaders(L, r, &rd, preload, loaders, reasons);
  return 0;
}

void pp_runner_set(pp_runner *r, uint32_t setting) {
  pp_held *h = setting > 0 ? pp_held_at(r, setting - 1) : NULL;
  lua_State *L = r->L;

  if (setting == r->setting || (setting > 0 && h == NULL))
    return;
  lua_pushcfunction(L, put_in_force);
  lua_pushlightuserdata(L, r);
  lua_pushlightuserdata(L, h);
  if (lua_pcall(L, 2, 0, 0) == LUA_OK)
    r->setting = setting;
  else
    lua_pop(L, 1);
}
