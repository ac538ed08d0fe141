/* SPDX-License-Identifier: MIT */
/*
 * Where a worker's require looks: what is built in, then the Lua modules of the
 * submitting side, whose source is asked for, then what is installed here.
 */
#include <lauxlib.h>
#include <lualib.h>
#include <string.h>

#include "runner_impl.h"

static pp_runner *runner_of(lua_State *L) {
  return lua_touserdata(L, lua_upvalueindex(1));
}

/* Skip a byte order mark and a first line that begins with #, as the loader of
 * files does; the line's end stays. */
static void skip_comment(const char **p, size_t *len) {
  const char *end;

  if (*len >= 3 && memcmp(*p, "\xEF\xBB\xBF", 3) == 0)
    *p += 3, *len -= 3;
  if (*len == 0 || **p != '#')
    return;
  end = memchr(*p, '\n', *len);
  *len -= end != NULL ? (size_t)(end - *p) : *len;
  *p = end != NULL ? end : *p;
}

/* Push the lines in that text, each behind a tab but the first, and saying
 * where that was. */
static void push_tried(lua_State *L, const char *p, size_t len,
                       const char *where) {
  const char *end = p + len;
  luaL_Buffer b;

  luaL_buffinit(L, &b);
  while (p < end) {
    const char *stop = memchr(p, '\n', (size_t)(end - p));

    stop = stop != NULL ? stop : end;
    luaL_addlstring(&b, p, (size_t)(stop - p));
    luaL_addstring(&b, where);
    p = stop + 1;
    while (p < end && *p == '\t')
      p++;
    if (p < end)
      luaL_addlstring(&b, "\n\t", 2);
  }
  luaL_pushresult(&b);
}

/* package.searchers: a module of the submitting side. */
static int ask(lua_State *L) {
  pp_runner *r = runner_of(L);
  size_t name_len, len, chunk_len;
  const char *name = luaL_checklstring(L, 1, &name_len), *source;
  const unsigned char *p;
  int status;

  if (r->want == NULL || !r->now.active || name_len == 0 ||
      name_len > PP_WANT_NAME_MAX)
    return 0;
  r->answer.len = 0;
  status = r->want(r->want_ud, name, name_len, &r->answer);
  p = r->answer.data;
  len = r->answer.len;
  if (status != 0 || len < PP_MOD_HEAD ||
      (chunk_len = pp_get32(p + PP_MOD_NAME)) > len - PP_MOD_HEAD)
    return luaL_error(L, "module '%s' could not be asked for: %s", name,
                      pp_strerror(status != 0 ? status : PP_EBAD));
  source = (const char *)p + PP_MOD_HEAD + chunk_len;
  len -= PP_MOD_HEAD + chunk_len;
  lua_pushlstring(L, (const char *)p + PP_MOD_HEAD, chunk_len); /* 2: chunk */
  switch (pp_get32(p + PP_MOD_STATUS)) {
  case PP_MOD_FOUND:
    skip_comment(&source, &len);
    status = luaL_loadbufferx(L, source, len, lua_tostring(L, 2), NULL);
    if (status != LUA_OK)
      return luaL_error(L, "error loading module '%s' from file '%s':\n\t%s",
                        name, lua_tostring(L, 2) + 1, lua_tostring(L, -1));
    lua_pushstring(L, lua_tostring(L, 2) + 1);
    break;
  case PP_MOD_NONE:
    push_tried(L, source, len, " (submitting side)");
    return 1;
  default:
    lua_pushlstring(L, source, len);
    return luaL_error(L, "error loading module '%s':\n\t%s", name,
                      lua_tostring(L, -1));
  }
  if (r->answer.cap > 1 << 20)
    pp_buf_clear(&r->answer);
  return 2;
}

/* Call the searcher this one stands for; what it has tried was here. */
static int search_here(lua_State *L) {
  int n;
  size_t len;
  const char *tried;

  lua_settop(L, 1);
  lua_pushvalue(L, lua_upvalueindex(2));
  lua_insert(L, 1);
  lua_call(L, 1, LUA_MULTRET);
  n = lua_gettop(L);
  if (n == 0 || lua_type(L, 1) != LUA_TSTRING)
    return n;
  tried = lua_tolstring(L, 1, &len);
  push_tried(L, tried, len, " (worker)");
  return 1;
}

/* The same for Lua modules: where the submitting side has looked there is no
 * use in looking again, but the job may have set a package.path of its own. */
static int search_lua(lua_State *L) {
  pp_runner *r = runner_of(L);
  bool same;

  if (r->want == NULL || !r->now.active)
    return search_here(L);
  lua_getfield(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  lua_getfield(L, -1, LUA_LOADLIBNAME);
  lua_getfield(L, -1, "path");
  lua_rawgeti(L, LUA_REGISTRYINDEX, r->path);
  same = lua_rawequal(L, -1, -2);
  lua_settop(L, 1);
  return same ? 0 : search_here(L);
}

static void wrap(lua_State *L, pp_runner *r, int at, lua_CFunction f) {
  lua_pushlightuserdata(L, r);
  lua_rawgeti(L, -2, at);
  lua_pushcclosure(L, f, 2);
  lua_rawseti(L, -2, at);
}

void pp_runner_searchers(pp_runner *r, lua_State *L) {
  lua_Integer n;

  lua_getglobal(L, LUA_LOADLIBNAME);
  lua_getfield(L, -1, "path");
  r->path = luaL_ref(L, LUA_REGISTRYINDEX);
  lua_getfield(L, -1, "searchers");
  /* preload, this program's own, Lua files, C libraries, parts of those */
  n = (lua_Integer)lua_rawlen(L, -1);
  wrap(L, r, 3, search_lua);
  for (int i = 4; i <= n; i++)
    wrap(L, r, i, search_here);
  for (lua_Integer i = n; i >= 3; i--) {
    lua_rawgeti(L, -1, i);
    lua_rawseti(L, -2, i + 1);
  }
  lua_pushlightuserdata(L, r);
  lua_pushcclosure(L, ask, 1);
  lua_rawseti(L, -2, 3);
  lua_pop(L, 2);
}

void pp_runner_wants(pp_runner *r, pp_runner_want *want, void *ud) {
  r->want = want;
  r->want_ud = ud;
}
