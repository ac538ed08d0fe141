/* SPDX-License-Identifier: MIT */
/* Parcels of functions, and the cache that knows when one is still right. */
#include "closure.h"

/* A function that captures nothing mutable, and what must still hold for its
 * parcel to be the right one. User value 1: a table of the values; at EXTRA a
 * copy of the globals that came with it. */
typedef struct pp_plan {
  pp_owner own;
  unsigned flags;
  uint32_t n;
  pp_check checks[];
} pp_plan;

#define EXTRA 0

/* --- functions ---------------------------------------------------------- */

typedef struct job {
  pp_enc e;
  pp_deps deps;
  pp_parcel *out;
  int extra;
} job;

/* Push the function's upvalues by name, all but the globals. */
static void push_upvalues(pp_enc *e, int fn) {
  lua_State *L = e->L;
  const char *name;
  int i;

  lua_newtable(L);
  for (i = 1; (name = lua_getupvalue(L, fn, i)) != NULL; i++) {
    if (lua_iscfunction(L, fn) || lua_rawequal(L, -1, e->ix + IX_GLOBALS))
      lua_pop(L, 1);
    else
      lua_setfield(L, -2, name);
  }
}

static int captures_protected(lua_State *L) {
  job *j = lua_touserdata(L, 1);
  pp_enc *e = &j->e;

  pp_encode_begin(e, L, 0, true);
  pp_encode_said(e);
  if (e->rc < 0)
    return 1;
  lua_createtable(L, 0, 3);
  lua_pushinteger(L, (lua_Integer)(e->out->len + e->codelen));
  lua_setfield(L, -2, "bytes");
  push_upvalues(e, 2);
  lua_setfield(L, -2, "upvalues");
  lua_pushvalue(L, e->ix + IX_FOUND);
  lua_setfield(L, -2, "globals");
  return 1;
}

/* Copy the table at index `from` to that at `to`: [EXTRA]. */
static void keep_extra(lua_State *L, int from, int to) {
  lua_newtable(L);
  lua_pushnil(L);
  while (lua_next(L, from)) {
    lua_pushvalue(L, -2);
    lua_insert(L, -2);
    lua_rawset(L, -4);
  }
  lua_rawseti(L, to, EXTRA);
}

/* Make the plan of the function at index 2. */
static pp_plan *make_plan(pp_enc *e, unsigned flags) {
  lua_State *L = e->L;
  pp_plan *p = (pp_plan *)pp_owner_new(e->c, L, sizeof *p + e->s.checks.len, 1);

  p->flags = flags;
  p->n = (uint32_t)(e->s.checks.len / sizeof(pp_check));
  if (p->n > 0)
    memcpy(p->checks, e->s.checks.data, e->s.checks.len);
  if (p->n == 1 && p->checks[0].kind == CHECK_FUNC)
    p->n = 0; /* which function it is goes without saying */
  if (!lua_isnil(L, e->ix + IX_EXTRA))
    keep_extra(L, e->ix + IX_EXTRA, e->ix + IX_CHECKS);
  lua_pushvalue(L, e->ix + IX_CHECKS);
  if (e->valued) { /* nor does it keep what it refers to alive */
    pp_ref(e->c, L, REF_CODES);
    lua_getmetatable(L, -1); /* weak values */
    lua_setmetatable(L, -3);
    lua_pop(L, 1);
    pp_owner_move(&p->own, &e->c->valued);
  }
  lua_setiuservalue(L, -2, 1);
  pp_ref(e->c, L, lua_isnil(L, e->ix + IX_EXTRA) ? REF_PLANS : REF_EXTRAS);
  lua_pushvalue(L, 2);
  lua_pushvalue(L, -3);
  lua_rawset(L, -3);
  return p;
}

static int function_protected(lua_State *L) {
  job *j = lua_touserdata(L, 1);
  pp_enc *e = &j->e;
  pp_codec *c = e->c;
  pp_plan *plan = NULL;
  pp_blob *blob;
  pp_hash hash;
  unsigned flags;
  size_t len;

  pp_encode_begin(e, L, j->extra, false);
  pp_encode_said(e);
  if (e->rc < 0)
    return 1;
  flags =
      (e->mutable ? PP_PARCEL_MUTABLE : 0u) | (e->binds ? PP_PARCEL_BINDS : 0u);
  len = e->out->len;
  if (e->planning && !e->mutable)
    plan = make_plan(e, flags);
  /* The name of a parcel covers the code it refers to. */
  if (pp_buf_put(e->out, e->s.hashes.data, e->s.hashes.len) < 0)
    goto fail;
  hash = pp_hash_of(e->out->data, e->out->len, 'f');
  blob = c->hooks.intern(c->hooks.ud, 'f', hash, e->out->data, len, j->deps.v,
                         j->deps.n);
  if (blob == NULL)
    goto fail;
  lua_pushvalue(L, e->ix + IX_KEPT);
  if (plan != NULL) {
    plan->own.blob = blob;
    blob = c->hooks.retain(c->hooks.ud, blob);
  }
  j->out->blob = blob;
  j->out->flags = flags;
  return 1;
fail:
  e->rc = PP_ENOMEM;
  lua_pushstring(L, PP_NO_MEMORY);
  return 1;
}

/* Are the two values on top the same, to the bit? */
static bool same(lua_State *L) {
  if (lua_type(L, -1) == LUA_TNUMBER && lua_type(L, -2) == LUA_TNUMBER) {
    lua_Number a, b;

    if (lua_isinteger(L, -1) || lua_isinteger(L, -2))
      return lua_isinteger(L, -1) && lua_isinteger(L, -2) &&
             lua_tointegerx(L, -1, NULL) == lua_tointegerx(L, -2, NULL);
    a = lua_tonumberx(L, -1, NULL), b = lua_tonumberx(L, -2, NULL);
    return memcmp(&a, &b, sizeof a) == 0;
  }
  return lua_rawequal(L, -1, -2);
}

/* Does all still hold? Leaves things on the stack. */
static bool plan_holds(lua_State *L, const pp_plan *p, int values) {
  int globals = values + 1, fn = values + 2;
  uint32_t i;

  pp_push_globals(L);
  lua_pushnil(L);
  for (i = 0; i < p->n; i++) {
    const pp_check *k = &p->checks[i];

    switch (k->kind) {
    case CHECK_FUNC:
      lua_rawgeti(L, values, k->slot);
      lua_replace(L, fn);
      continue;
    case CHECK_UPVALUE:
      if (lua_getupvalue(L, fn, k->up) == NULL)
        return false;
      lua_rawgeti(L, values, k->slot);
      break;
    case CHECK_GLOBAL:
      lua_rawgeti(L, values, k->slot);
      lua_rawget(L, globals);
      lua_rawgeti(L, values, k->slot + 1);
      break;
    default:
      lua_rawgeti(L, values, k->slot);
      lua_rawgeti(L, values, k->slot + 1);
      lua_rawget(L, -2);
      lua_rawgeti(L, values, k->slot + 2);
      lua_remove(L, -3);
      break;
    }
    if (!same(L))
      return false;
    lua_pop(L, 2);
  }
  return true;
}

/* May a plan be made of a function with these globals? Functions and plain
 * values are what they were or are others. */
static bool plain_extra(lua_State *L, int extra) {
  bool plain = true;

  lua_pushnil(L);
  while (plain && lua_next(L, extra)) {
    int t = lua_type(L, -1);

    plain = t == LUA_TFUNCTION || t == LUA_TSTRING || t == LUA_TNUMBER ||
            t == LUA_TBOOLEAN;
    lua_pop(L, plain ? 1 : 2);
  }
  return plain;
}

/* Does the table at `extra` hold what that at `kept` does? */
static bool same_extra(lua_State *L, int extra, int kept) {
  size_t n = 0, was = 0;

  lua_pushnil(L);
  while (lua_next(L, extra)) {
    lua_pushvalue(L, -2);
    lua_rawget(L, kept);
    if (!same(L)) {
      lua_pop(L, 3);
      return false;
    }
    lua_pop(L, 2);
    n++;
  }
  lua_pushnil(L);
  while (lua_next(L, kept)) {
    lua_pop(L, 1);
    was++;
  }
  return n == was;
}

/* The parcel of the function at fn, with the globals at extra (0: none), if its
 * plan holds; borrowed. */
static bool cached(pp_codec *c, lua_State *L, int fn, int extra,
                   pp_parcel *out) {
  int top = lua_gettop(L);
  pp_plan *p;
  bool holds = false;

  pp_ref(c, L, extra == 0 ? REF_PLANS : REF_EXTRAS);
  lua_pushvalue(L, fn);
  lua_rawget(L, -2);
  p = lua_touserdata(L, -1);
  if (p != NULL && p->own.blob != NULL) {
    holds = extra == 0 && p->n == 0;
    if (!holds) {
      lua_getiuservalue(L, -1, 1);
      holds = extra == 0 || (lua_rawgeti(L, top + 3, EXTRA) == LUA_TTABLE &&
                             same_extra(L, extra, top + 4));
      lua_settop(L, top + 3);
      holds = holds && plan_holds(L, p, top + 3);
    }
    out->blob = p->own.blob;
    out->flags = p->flags;
  }
  lua_settop(L, top);
  return holds;
}

bool pp_codec_cached(pp_codec *c, lua_State *L, int idx, int extra,
                     pp_parcel *out) {
  idx = lua_absindex(L, idx);
  if (extra != 0)
    extra = lua_absindex(L, extra);
  return lua_checkstack(L, 20) && lua_isfunction(L, idx) &&
         cached(c, L, idx, extra, out);
}

static int with_function(pp_codec *c, lua_State *L, int idx, int extra,
                         pp_parcel *out) {
  job j;
  int rc, status;

  memset(&j, 0, sizeof j);
  j.out = out;
  j.e.c = c;
  j.e.first = 2, j.e.n = 1;
  j.e.deps = &j.deps;
  j.e.pass = ++c->pass;
  j.e.planning = out != NULL && !lua_iscfunction(L, idx) &&
                 (extra == 0 || plain_extra(L, extra));
  j.e.s = pp_scratch_take(c);
  j.e.out = &j.e.s.out;
  lua_pushcfunction(L, out != NULL ? function_protected : captures_protected);
  lua_pushlightuserdata(L, &j);
  lua_pushvalue(L, idx);
  if (extra != 0) {
    j.extra = 3;
    lua_pushvalue(L, extra);
  }
  status = lua_pcall(L, extra != 0 ? 3 : 2, 1, 0);
  rc = pp_outcome(L, status, j.e.rc);
  pp_scratch_give(c, &j.e.s);
  pp_deps_clear(c, &j.deps);
  return rc;
}

static int not_function(lua_State *L) {
  lua_pushliteral(L, "cannot send function: not a function");
  return 1;
}

static int refuse_value(lua_State *L) {
  int status;

  lua_pushcfunction(L, not_function);
  status = lua_pcall(L, 0, 1, 0);
  return pp_outcome(L, status, PP_EUNSENDABLE);
}

int pp_codec_function(pp_codec *c, lua_State *L, int idx, int extra,
                      pp_parcel *out) {
  int rc;

  idx = lua_absindex(L, idx);
  rc = pp_slots(L, 20);
  if (rc < 0)
    return rc;
  if (!lua_isfunction(L, idx))
    return refuse_value(L);
  if (extra != 0)
    extra = lua_absindex(L, extra);
  if (cached(c, L, idx, extra, out)) {
    c->hooks.retain(c->hooks.ud, out->blob);
    lua_pushnil(L);
    return 0;
  }
  return with_function(c, L, idx, extra, out);
}

int pp_codec_captures(pp_codec *c, lua_State *L, int idx) {
  int rc;

  idx = lua_absindex(L, idx);
  rc = pp_slots(L, 20);
  if (rc < 0)
    return rc;
  if (!lua_isfunction(L, idx))
    return refuse_value(L);
  return with_function(c, L, idx, 0, NULL);
}
