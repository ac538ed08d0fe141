/* SPDX-License-Identifier: MIT */
/*
 * The table `f`: it is empty, and its metatable finds in the line what is asked
 * for. Who assigns to it gets a table with all fields in it.
 */
#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>

#include "lines_impl.h"

enum { UD = 1, FIELDS }; /* upvalues */

const char pp_fields_find = 0;

static pp_fields *fields_of(lua_State *L) {
  return lua_touserdata(L, lua_upvalueindex(FIELDS));
}

static bool blank(char c) { return c == ' ' || c == '\t'; }

static void found(lua_State *L, pp_fields *f, size_t at, size_t len) {
  if (f->n == f->cap) {
    size_t cap = f->cap > 0 ? 2 * f->cap : 16;
    struct pp_span *v = realloc(f->spans, cap * sizeof *v);

    if (v == NULL)
      luaL_error(L, "not enough memory");
    f->spans = v;
    f->cap = cap;
  }
  f->spans[f->n].at = at;
  f->spans[f->n++].len = len;
}

static void split_blanks(lua_State *L, pp_fields *f) {
  const char *p = f->line + f->next, *end = f->line + f->len, *q;

  while (p < end && blank(*p))
    p++;
  if (p == end) {
    f->all = true;
    return;
  }
  for (q = p; q < end && !blank(*q);)
    q++;
  found(L, f, (size_t)(p - f->line), (size_t)(q - p));
  f->next = (size_t)(q - f->line);
}

/* The field up to `to`, and behind the separator the next; to == len: there is
 * none. */
static void cut(lua_State *L, pp_fields *f, size_t to, size_t next) {
  found(L, f, f->next, to - f->next);
  f->next = next;
  f->all = to == f->len;
}

static void split_char(lua_State *L, pp_fields *f) {
  const char *p = memchr(f->line + f->next, f->sep, f->len - f->next);
  size_t to = p != NULL ? (size_t)(p - f->line) : f->len;

  cut(L, f, to, to + 1);
}

static void split_pattern(lua_State *L, pp_fields *f) {
  size_t to = f->len, next = f->len, from = f->next;
  bool some = false;
  int top = lua_gettop(L);

  while (!some && from <= f->len) {
    lua_rawgetp(L, LUA_REGISTRYINDEX, &pp_fields_find);
    lua_getiuservalue(L, lua_upvalueindex(UD), 1);
    lua_getiuservalue(L, lua_upvalueindex(UD), 2);
    lua_pushinteger(L, (lua_Integer)from + 1);
    lua_call(L, 3, 2);
    if (lua_isnil(L, -2))
      break;
    to = (size_t)lua_tointeger(L, -2) - 1;
    next = (size_t)lua_tointeger(L, -1);
    some = next > to; /* an empty match separates nothing */
    from = to + 1;
    lua_settop(L, top);
  }
  lua_settop(L, top);
  cut(L, f, some ? to : f->len, next);
}

/* Find the first n of them; whether there are so many. */
static bool split(lua_State *L, pp_fields *f, size_t n) {
  if (f->len == 0)
    f->all = true; /* an empty line has none */
  while (f->n < n && !f->all) {
    if (f->how == PP_SPLIT_BLANKS)
      split_blanks(L, f);
    else if (f->how == PP_SPLIT_CHAR)
      split_char(L, f);
    else
      split_pattern(L, f);
  }
  return f->n >= n;
}

static void push_field(lua_State *L, const pp_fields *f, size_t i) {
  lua_pushlstring(L, f->line + f->spans[i].at, f->spans[i].len);
}

static int field(lua_State *L) {
  pp_fields *f = fields_of(L);
  int is;
  lua_Integer k = lua_tointegerx(L, 2, &is);

  if (!is || lua_type(L, 2) != LUA_TNUMBER || k < 0 || f->line == NULL)
    lua_pushnil(L);
  else if (k == 0)
    lua_pushlstring(L, f->line, f->len);
  else if (split(L, f, (size_t)k))
    push_field(L, f, (size_t)k - 1);
  else
    lua_pushnil(L);
  return 1;
}

static int count(lua_State *L) {
  pp_fields *f = fields_of(L);

  if (f->line != NULL)
    split(L, f, SIZE_MAX);
  lua_pushinteger(L, (lua_Integer)f->n);
  return 1;
}

/* The table at 1 has them all from now on. */
static void give(lua_State *L) {
  pp_fields *f = fields_of(L);

  if (f->line != NULL)
    split(L, f, SIZE_MAX);
  for (size_t i = 0; i < f->n; i++) {
    push_field(L, f, i);
    lua_rawseti(L, 1, (lua_Integer)i + 1);
  }
  f->given = true;
  lua_pushnil(L);
  lua_setmetatable(L, 1);
}

static int assign(lua_State *L) {
  give(L);
  lua_settop(L, 3);
  lua_rawset(L, 1);
  return 0;
}

static int next(lua_State *L) {
  lua_settop(L, 2);
  if (lua_next(L, 1) != 0)
    return 2;
  lua_pushnil(L);
  return 1;
}

static int all_pairs(lua_State *L) {
  give(L);
  lua_settop(L, 1);
  lua_pushcfunction(L, next);
  lua_insert(L, 1);
  return 2;
}

void pp_fields_meta(lua_State *L, int ud, pp_fields *f) {
  static const luaL_Reg meta[] = {
      {"__index", field},     {"__len", count}, {"__newindex", assign},
      {"__pairs", all_pairs}, {NULL, NULL},
  };

  ud = lua_absindex(L, ud);
  luaL_newlibtable(L, meta);
  lua_pushvalue(L, ud);
  lua_pushlightuserdata(L, f);
  luaL_setfuncs(L, meta, 2);
}

void pp_fields_clear(pp_fields *f) {
  free(f->spans);
  memset(f, 0, sizeof *f);
  f->all = true;
}
