/* SPDX-License-Identifier: MIT */
#include <lauxlib.h>

#include "items.h"

static int malformed(lua_State *L) { return luaL_error(L, "malformed chunk"); }

/* Four numbers: the first of all, the step, how many come before, how many
 * there are. */
static void open_range(lua_State *L, pp_items *m) {
  int top = lua_gettop(L), is_int[2];

  if (pp_plain_open(&m->in, m->c->args, m->c->args_len) <= 0 || m->in.left != 4)
    malformed(L);
  for (int i = 0; i < 4; i++)
    if (pp_plain_next(&m->in, L) <= 0 || lua_type(L, -1) != LUA_TNUMBER)
      malformed(L);
  m->ints[0] = lua_isinteger(L, top + 1);
  m->ints[1] = lua_isinteger(L, top + 2);
  m->first.i = lua_tointeger(L, top + 1);
  m->first.d = lua_tonumber(L, top + 1);
  m->step.i = lua_tointeger(L, top + 2);
  m->step.d = lua_tonumber(L, top + 2);
  m->before = lua_tointegerx(L, top + 3, &is_int[0]);
  m->n = (uint64_t)lua_tointegerx(L, top + 4, &is_int[1]);
  if (!is_int[0] || !is_int[1] || m->before < 0 || m->n > INT32_MAX)
    malformed(L);
  lua_settop(L, top);
}

/* How many there are. */
static void open_each(lua_State *L, pp_items *m) {
  pp_rd rd = m->packed;
  const unsigned char *p;
  uint64_t len;

  for (m->n = 0; pp_rd_left(&rd) > 0; m->n++)
    if (pp_rd_varint(&rd, &len) != 0 || len > pp_rd_left(&rd) ||
        pp_rd_bytes(&rd, (size_t)len, &p) != 0)
      malformed(L);
}

void pp_items_open(lua_State *L, pp_items *m, pp_call *c) {
  int rc;

  m->c = c;
  m->at = 0;
  if (c->flags & PP_JOBF_RANGE) {
    m->kind = PP_ITEMS_RANGE;
    open_range(L, m);
  } else if (c->flags & PP_JOBF_EACH) {
    m->kind = PP_ITEMS_EACH;
    m->packed = pp_rd_of(c->args, c->args_len);
    open_each(L, m);
  } else {
    rc = pp_plain_open(&m->in, c->args, c->args_len);
    if (rc < 0)
      malformed(L);
    m->kind = rc > 0 ? PP_ITEMS_PLAIN : PP_ITEMS_STACKED;
    m->n = m->in.left;
  }
}

/* Push what stands for the value at i: itself, or what is in it. */
static int spread(lua_State *L, const pp_call *c, int i) {
  lua_Integer n;

  if (!(c->flags & PP_JOBF_SPREAD) || !lua_istable(L, i)) {
    lua_pushvalue(L, i);
    return 1;
  }
  lua_pushliteral(L, "n");
  lua_rawget(L, i);
  n = lua_isinteger(L, -1) ? lua_tointeger(L, -1)
                           : (lua_Integer)lua_rawlen(L, i);
  lua_pop(L, 1);
  if (n < 0 || n > 200000)
    luaL_error(L, "too many arguments in an item");
  luaL_checkstack(L, (int)n + 30, "too many arguments");
  for (lua_Integer k = 1; k <= n; k++)
    lua_rawgeti(L, i, k);
  return (int)n;
}

static int next_packed(lua_State *L, pp_items *m) {
  const unsigned char *p;
  uint64_t len;
  int at, n;

  if (pp_rd_varint(&m->packed, &len) != 0 || len > pp_rd_left(&m->packed) ||
      pp_rd_bytes(&m->packed, (size_t)len, &p) != 0)
    return malformed(L);
  if (pp_execute_args(L, m->c, p, (size_t)len) != 1)
    return lua_error(L);
  at = lua_gettop(L);
  n = spread(L, m->c, at);
  lua_remove(L, at);
  return n;
}

int pp_items_next(lua_State *L, pp_items *m) {
  switch (m->kind) {
  case PP_ITEMS_EACH:
    m->at++;
    return next_packed(L, m);
  case PP_ITEMS_STACKED:
    if (pp_codec_settle(m->c->r->codec, L) != 0)
      return lua_error(L);
    return spread(L, m->c, m->base + (int)m->at++);
  default:
    pp_items_plain(L, m);
    return 1;
  }
}
