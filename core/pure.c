/* SPDX-License-Identifier: MIT */
#include "pure.h"

#include <string.h>

#include "bytecode.h"
#include "codec_impl.h"

/* --- what may be used --------------------------------------------------- */

static const char *const base_functions[] = {
    "assert", "error",        "getmetatable", "ipairs",   "next",   "pairs",
    "pcall",  "print",        "rawequal",     "rawget",   "rawlen", "rawset",
    "select", "setmetatable", "tonumber",     "tostring", "type",   "xpcall",
};
/* Tables that may be used in any way. */
static const char *const tables[] = {
    "string", "table", "math", "utf8", "coroutine",
};
/* Functions in tables that may not. */
static const char *const fields[][2] = {
    {"os", "time"},     {"os", "clock"},  {"os", "date"},
    {"os", "difftime"}, {"os", "getenv"}, {"io", "write"},
};
#define COUNT(a) (sizeof(a) / sizeof *(a))

/* allowed[the value on top] = true; pops it. */
static void allow(lua_State *L, int allowed) {
  lua_pushboolean(L, 1);
  lua_rawset(L, allowed);
}

/* Note the table on top as one that must stay as it is: {table, copy, size of
 * it, ...}; pops it. */
static void note(lua_State *L, int whole, int allowed) {
  int t = lua_gettop(L);
  lua_Integer n = 0, at = (lua_Integer)lua_rawlen(L, whole);

  lua_newtable(L);
  lua_pushnil(L);
  while (lua_next(L, t)) {
    if (lua_isfunction(L, -1)) {
      lua_pushvalue(L, -1);
      allow(L, allowed);
    }
    lua_pushvalue(L, -2);
    lua_insert(L, -2);
    lua_rawset(L, t + 1);
    n++;
  }
  lua_pushinteger(L, n);
  lua_rawseti(L, whole, at + 3);
  lua_rawseti(L, whole, at + 2);
  lua_rawseti(L, whole, at + 1);
}

void pp_pure_prepare(lua_State *L, pp_runner *r) {
  int top = lua_gettop(L), allowed = top + 1, whole = top + 2;

  lua_newtable(L);
  lua_newtable(L);
  for (size_t i = 0; i < COUNT(base_functions); i++) {
    lua_getglobal(L, base_functions[i]);
    allow(L, allowed);
  }
  for (size_t i = 0; i < COUNT(tables); i++) {
    lua_getglobal(L, tables[i]);
    lua_pushvalue(L, -1);
    allow(L, allowed);
    note(L, whole, allowed);
  }
  for (size_t i = 0; i < COUNT(fields); i++) {
    lua_getglobal(L, fields[i][0]);
    lua_getfield(L, -1, fields[i][1]);
    allow(L, allowed);
    lua_pop(L, 1);
  }
  lua_pushliteral(L, "");
  lua_getmetatable(L, -1);
  note(L, whole, allowed);
  lua_settop(L, whole);
  r->whole = luaL_ref(L, LUA_REGISTRYINDEX);
  r->allowed = luaL_ref(L, LUA_REGISTRYINDEX);
  lua_settop(L, top);
}

/* --- looking at a function ---------------------------------------------- */

enum { OTHER, GLOBALS, TABLE };

typedef struct look {
  pp_runner *r;
  lua_State *L;
  int allowed, seen, todo, needs, own, base, stores; /* stack indices */
  lua_Integer ntodo, nneeds, nstores;
  bool escapes; /* a standard table, not just a field of it, is used */
  bool random;
  const unsigned char *kinds; /* of the upvalues of the function at work */
  int fn;
} look;

static bool is_allowed(look *k, int idx) {
  bool is;

  lua_pushvalue(k->L, idx);
  is = lua_rawget(k->L, k->allowed) == LUA_TBOOLEAN;
  lua_pop(k->L, 1);
  return is;
}

/* Is the function on top math.random? */
static bool is_random(look *k) {
  lua_State *L = k->L;
  int top = lua_gettop(L);
  bool is;

  lua_pushliteral(L, "math");
  if (lua_rawget(L, k->base) == LUA_TTABLE) {
    lua_pushliteral(L, "random");
    lua_rawget(L, -2);
  }
  is = lua_rawequal(L, top, -1);
  lua_settop(L, top);
  return is;
}

/* May the value on top be used? */
static bool may_use(look *k) {
  lua_State *L = k->L;

  switch (lua_type(L, -1)) {
  case LUA_TNIL:
  case LUA_TBOOLEAN:
  case LUA_TNUMBER:
  case LUA_TSTRING:
    return true;
  case LUA_TTABLE:
    return is_allowed(k, -1);
  case LUA_TFUNCTION:
    if (lua_iscfunction(L, -1)) {
      if (is_random(k))
        k->random = true;
      return is_allowed(k, -1);
    }
    lua_pushvalue(L, -1);
    if (lua_rawget(L, k->seen) == LUA_TNIL) {
      lua_pushvalue(L, -2);
      lua_pushboolean(L, 1);
      lua_rawset(L, k->seen);
      lua_pushvalue(L, -2);
      lua_rawseti(L, k->todo, ++k->ntodo);
    }
    lua_pop(L, 1);
    return true;
  default:
    return false;
  }
}

/* table[name] must be the value on top. */
static void need(look *k, int table, pp_bc_str name) {
  lua_State *L = k->L;

  lua_pushvalue(L, table);
  lua_rawseti(L, k->needs, k->nneeds + 1);
  lua_pushlstring(L, name.p, name.n);
  lua_rawseti(L, k->needs, k->nneeds + 2);
  lua_pushvalue(L, -1);
  lua_rawseti(L, k->needs, k->nneeds + 3);
  k->nneeds += 3;
}

static bool named(pp_bc_str s, const char *text) {
  return s.n == strlen(text) && memcmp(s.p, text, s.n) == 0;
}

/* The table on top, one of the allowed ones, is used: all of it, or just that
 * field. */
static void use_table(look *k, pp_bc_str field) {
  lua_State *L = k->L;
  bool is_math;

  if (field.p == NULL)
    k->escapes = true;
  lua_pushliteral(L, "math");
  lua_rawget(L, k->base);
  is_math = lua_rawequal(L, -1, -2);
  lua_pop(L, 1);
  if (is_math && (field.p == NULL || named(field, "random")))
    k->random = true;
}

/* Push the value of the function's own global of that name; whether it has
 * one. */
static bool push_own(look *k, pp_bc_str name) {
  lua_State *L = k->L;

  if (!lua_istable(L, k->own))
    return false;
  for (lua_Integer i = 1; lua_rawgeti(L, k->own, i) != LUA_TNIL; i += 2) {
    size_t n;
    const char *s = lua_tolstring(L, -1, &n);

    lua_pop(L, 1);
    if (n == name.n && memcmp(s, name.p, n) == 0) {
      lua_rawgeti(L, k->own, i + 1);
      return true;
    }
  }
  lua_pop(L, 1);
  return false;
}

/* A global is read, perhaps just a field of it. */
static bool use_global(look *k, pp_bc_str name, pp_bc_str field) {
  lua_State *L = k->L;
  int top = lua_gettop(L);
  bool ok;

  if (push_own(k, name)) {
    ok = may_use(k);
  } else {
    lua_pushlstring(L, name.p, name.n);
    lua_rawget(L, k->base);
    if (lua_isfunction(L, -1) && !lua_iscfunction(L, -1))
      return false;
    need(k, k->base, name);
    ok = may_use(k);
    if (!ok && field.p != NULL && lua_istable(L, -1)) {
      lua_pushlstring(L, field.p, field.n);
      lua_rawget(L, -2);
      if (lua_iscfunction(L, -1) && is_allowed(k, -1)) {
        need(k, top + 1, field);
        lua_settop(L, top);
        return true;
      }
    }
  }
  if (ok && lua_istable(L, -1))
    use_table(k, field);
  if (ok && named(name, "getmetatable"))
    k->escapes = true; /* that of strings */
  lua_settop(L, top);
  return ok;
}

/* A global is assigned; not "_G", which is bound to be there. */
static bool store(look *k, pp_bc_str name) {
  lua_State *L = k->L;
  int top = lua_gettop(L);

  if (named(name, "_G"))
    return false;
  lua_pushlstring(L, name.p, name.n);
  lua_pushvalue(L, -1);
  if (lua_rawget(L, k->seen) == LUA_TNIL) {
    lua_pushvalue(L, top + 1);
    lua_pushboolean(L, 1);
    lua_rawset(L, k->seen);
    lua_pushvalue(L, top + 1);
    lua_rawseti(L, k->stores, k->nstores + 1);
    if (push_own(k, name))
      lua_rawseti(L, k->stores, k->nstores + 2);
    k->nstores += 2;
  }
  lua_settop(L, top);
  return true;
}

/* 1 if this is not to be. */
static int use(void *ud, const pp_bc_use *u) {
  static const pp_bc_str none = {NULL, 0};
  look *k = ud;
  lua_State *L = k->L;
  int kind;

  if (u->kind == PP_BC_FIELD || u->kind == PP_BC_SELF)
    return 0;
  kind = k->kinds[u->up];
  if (u->kind == PP_BC_ASSIGN)
    return 1;
  if (kind == GLOBALS && u->kind == PP_BC_STORE)
    return !store(k, u->name);
  if (kind == GLOBALS)
    return u->kind == PP_BC_ESCAPE ||
           !use_global(k, u->name, u->kind == PP_BC_PAIR ? u->field : none);
  if (kind == TABLE) {
    lua_getupvalue(L, k->fn, (int)u->up + 1);
    use_table(k, u->kind == PP_BC_ESCAPE || u->kind == PP_BC_STORE ? none
                                                                   : u->name);
    lua_pop(L, 1);
  }
  return 0;
}

static int write_dump(lua_State *L, const void *p, size_t n, void *ud) {
  (void)L;
  return pp_buf_put(ud, p, n);
}

/* The Lua function on top. */
static bool look_at(look *k) {
  lua_State *L = k->L;
  pp_runner *r = k->r;
  unsigned char kinds[256] = {0};
  const void *shared;

  k->fn = lua_gettop(L);
  pp_ref(r->codec, L, REF_ANCHOR);
  shared = lua_upvalueid(L, -1, 1);
  lua_pop(L, 1);
  for (int i = 0; i < 255; i++) {
    if (lua_getupvalue(L, k->fn, i + 1) == NULL)
      break;
    if (lua_upvalueid(L, k->fn, i + 1) == shared)
      kinds[i] = GLOBALS;
    else if (!may_use(k))
      return false;
    else if (lua_istable(L, -1))
      kinds[i] = TABLE;
    lua_settop(L, k->fn);
  }
  k->kinds = kinds;
  r->look[0].len = 0;
  if (lua_dump(L, write_dump, &r->look[0], 1) != 0)
    return false;
  return pp_bc_uses(r->look[0].data, r->look[0].len, &r->look[1], use, k) == 0;
}

/* What the function brings along. */
static bool look_at_bindings(look *k, int bindings) {
  lua_State *L = k->L;
  int top = lua_gettop(L);

  if (lua_rawgeti(L, bindings, BIND_FIXES) == LUA_TTABLE ||
      lua_rawgeti(L, bindings, BIND_KEPT) == LUA_TTABLE)
    return false;
  if (lua_rawgeti(L, bindings, BIND_PATCHES) == LUA_TTABLE)
    for (lua_Integer i = 1; lua_rawgeti(L, top + 3, i) != LUA_TNIL; i += 3) {
      if (lua_rawequal(L, -1, k->base))
        return false;
      lua_rawgeti(L, top + 3, i + 2);
      if (!lua_islightuserdata(L, -1) && !may_use(k))
        return false;
      lua_settop(L, top + 3);
    }
  lua_settop(L, top);
  return true;
}

static bool has_patches(lua_State *L, int bindings) {
  bool has;

  if (!lua_istable(L, bindings))
    return false;
  has = lua_rawgeti(L, bindings, BIND_PATCHES) == LUA_TTABLE &&
        lua_rawlen(L, -1) > 0;
  lua_pop(L, 1);
  return has;
}

static bool look_at_all(look *k, int fn, int bindings) {
  lua_State *L = k->L;

  if (lua_istable(L, bindings) && !look_at_bindings(k, bindings))
    return false;
  lua_pushvalue(L, fn);
  if (!may_use(k))
    return false;
  for (lua_Integer i = 1; i <= k->ntodo; i++) {
    lua_rawgeti(L, k->todo, i);
    if (!look_at(k))
      return false;
    lua_pop(L, 1);
  }
  return !(k->escapes && has_patches(L, bindings));
}

int pp_pure_look(lua_State *L, pp_runner *r, int fn, int bindings) {
  int top = lua_gettop(L);
  look k = {.r = r, .L = L};
  bool is;

  luaL_checkstack(L, 30, NULL);
  fn = lua_absindex(L, fn);
  bindings = lua_absindex(L, bindings);
  lua_newtable(L);
  k.needs = top + 1;
  if (r->looking) /* a finalizer waits for jobs, while one is looked at */
    return PP_PURE_UNKNOWN;
  lua_rawgeti(L, LUA_REGISTRYINDEX, r->allowed);
  k.allowed = top + 2;
  lua_newtable(L);
  k.seen = top + 3;
  lua_newtable(L);
  k.todo = top + 4;
  if (lua_istable(L, bindings))
    lua_rawgeti(L, bindings, BIND_GLOBALS);
  else
    lua_pushnil(L);
  k.own = top + 5;
  lua_rawgeti(L, LUA_REGISTRYINDEX, r->base);
  k.base = top + 6;
  lua_newtable(L);
  k.stores = top + 7;
  r->looking = true; /* should memory run out, this was the last one */
  is = look_at_all(&k, fn, bindings);
  r->looking = false;
  if (k.nstores > 0) {
    lua_settop(L, k.stores);
    lua_pushinteger(L, k.nstores);
    lua_rawseti(L, k.stores, 0);
    lua_setfield(L, k.needs, "stores");
  }
  lua_settop(L, k.needs);
  return !is ? PP_PURE_NOT
             : PP_PURE | (k.random ? PP_PURE_RANDOM : 0) |
                   (k.nstores > 0 ? PP_PURE_STORES : 0) |
                   (k.escapes || has_patches(L, bindings) ? PP_PURE_LOOSE : 0);
}

/* --- as it was? --------------------------------------------------------- */

/* The table at t is what its copy, at t + 1, says, and that is n entries. */
static bool unchanged(lua_State *L, int t, lua_Integer n) {
  int top = lua_gettop(L);
  bool same;

  if (lua_getmetatable(L, t)) {
    lua_pop(L, 1);
    return false;
  }
  lua_pushnil(L);
  while (lua_next(L, t)) {
    lua_pushvalue(L, -2);
    lua_rawget(L, t + 1);
    same = lua_rawequal(L, -1, -2);
    lua_pop(L, 2);
    if (!same || n-- == 0) {
      lua_settop(L, top);
      return false;
    }
  }
  return n == 0;
}

/* Has a job given a metatable to all values of the kind on top? Pops it. */
static bool has_meta(lua_State *L) {
  int top = lua_gettop(L) - 1;
  bool has = lua_getmetatable(L, -1);

  lua_settop(L, top);
  return has;
}

static int nothing(lua_State *L) {
  (void)L;
  return 0;
}

bool pp_pure_holds(lua_State *L, pp_runner *r, int needs) {
  int top = lua_gettop(L), whole = top + 1;
  bool same = true;

  luaL_checkstack(L, 20, NULL);
  needs = lua_absindex(L, needs);
  lua_pushnil(L);
  same = !has_meta(L);
  lua_pushboolean(L, 1);
  same = same && !has_meta(L);
  lua_pushinteger(L, 1);
  same = same && !has_meta(L);
  lua_pushcfunction(L, nothing);
  same = same && !has_meta(L);
  lua_pushthread(L);
  same = same && !has_meta(L);
  lua_rawgeti(L, LUA_REGISTRYINDEX, r->base);
  same = same && !has_meta(L);
  lua_settop(L, top);
  lua_rawgeti(L, LUA_REGISTRYINDEX, r->whole);
  for (lua_Integer i = 1; same && lua_rawgeti(L, whole, i) == LUA_TTABLE;
       i += 3) {
    lua_rawgeti(L, whole, i + 1);
    lua_rawgeti(L, whole, i + 2);
    same = unchanged(L, whole + 1, lua_tointeger(L, -1));
    lua_settop(L, whole);
  }
  lua_settop(L, top);
  for (lua_Integer i = 1; same && lua_rawgeti(L, needs, i) == LUA_TTABLE;
       i += 3) {
    lua_rawgeti(L, needs, i + 1);
    lua_rawget(L, -2);
    lua_rawgeti(L, needs, i + 2);
    same = lua_rawequal(L, -1, -2);
    lua_settop(L, top);
  }
  lua_settop(L, top);
  return same;
}

void pp_pure_warm(lua_State *L, pp_runner *r, int needs, int env) {
  int top = lua_gettop(L);

  luaL_checkstack(L, 8, NULL);
  needs = lua_absindex(L, needs);
  env = lua_absindex(L, env);
  lua_rawgeti(L, LUA_REGISTRYINDEX, r->base);
  for (lua_Integer i = 1; lua_rawgeti(L, needs, i) == LUA_TTABLE; i += 3) {
    if (lua_rawequal(L, -1, top + 1)) {
      lua_rawgeti(L, needs, i + 1);
      lua_rawgeti(L, needs, i + 2);
      lua_rawset(L, env);
    }
    lua_settop(L, top + 1);
  }
  lua_settop(L, top);
}

/* --- what it assigns ---------------------------------------------------- */

void pp_pure_stores(lua_State *L, int needs) {
  needs = lua_absindex(L, needs);
  lua_pushliteral(L, "stores");
  lua_rawget(L, needs);
}

void pp_pure_restore(lua_State *L, pp_runner *r, int stores, int env) {
  lua_Integer n;

  lua_rawgeti(L, stores, 0);
  n = lua_tointegerx(L, -1, NULL);
  lua_pop(L, 1);
  for (lua_Integer i = 1; i < n; i += 2) {
    lua_rawgeti(L, stores, i);
    lua_rawgeti(L, stores, i + 1);
    lua_rawset(L, env);
  }
  lua_rawgeti(L, LUA_REGISTRYINDEX, r->env_meta); /* it may hide others now */
  lua_setmetatable(L, env);
}
