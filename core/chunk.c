/* SPDX-License-Identifier: MIT */
/* A chunk: a function called once for each of many items, each time in globals
 * of its own; what becomes of results that cannot travel, and of errors. */
#include <lauxlib.h>
#include <string.h>

#include "execute_impl.h"

/* Is the value at idx the error of a job? */
static bool is_job_error(lua_State *L, int idx) {
  bool is;

  if (!lua_istable(L, idx) || !lua_getmetatable(L, idx))
    return false;
  luaL_getmetatable(L, "pp.error");
  is = lua_rawequal(L, -1, -2);
  lua_pop(L, 2);
  return is;
}

/* An error value at the top becomes the error of an item. */
static void item_error(lua_State *L, pp_call *c, int kind) {
  int err = lua_gettop(L);
  pp_buf trial = {0};

  lua_createtable(L, 0, 6);
  pp_execute_message(L, err);
  lua_setfield(L, err + 1, "message");
  lua_settop(L, err + 1);
  lua_pushvalue(L, err);
  if (pp_codec_pack(c->r->codec, L, lua_gettop(L), 1, "error value", &trial,
                    NULL) == 0)
    lua_pop(L, 1);
  else
    pp_execute_message(L, err);
  pp_buf_clear(&trial);
  lua_setfield(L, err + 1, "value");
  lua_settop(L, err + 1);
  lua_pushstring(L, pp_kind_name(kind));
  lua_setfield(L, err + 1, "kind");
  lua_rawgeti(L, LUA_REGISTRYINDEX, c->r->traceback);
  if (lua_type(L, -1) == LUA_TSTRING)
    lua_setfield(L, err + 1, "traceback");
  lua_settop(L, err + 1);
  lua_pushstring(L, c->r->now.node);
  lua_setfield(L, err + 1, "node");
  lua_pushinteger(L, c->r->now.worker);
  lua_setfield(L, err + 1, "worker");
  lua_pushinteger(L, (lua_Integer)c->r->now.id);
  lua_setfield(L, err + 1, "job");
  luaL_setmetatable(L, "pp.error");
  if (is_job_error(L, err)) {
    lua_pushvalue(L, err);
    lua_setfield(L, err + 1, "cause");
  }
  lua_replace(L, err);
}

static bool sendable(lua_State *L, pp_call *c, int first, int n,
                     pp_buf *trial) {
  trial->len = 0;
  if (pp_codec_pack(c->r->codec, L, first, n, "result", trial, NULL) != 0)
    return false; /* why is at the top */
  lua_pop(L, 1);
  return true;
}

/* Results that cannot travel become errors in their places. */
static void weed_out(lua_State *L, pp_call *c, int first, int n) {
  pp_buf trial = {0};

  pp_execute_untraced(L, c);
  for (int i = first; i < first + n; i++)
    if (!sendable(L, c, i, 1, &trial)) {
      item_error(L, c, PP_KIND_UNSENDABLE);
      c->failed_items++;
      lua_replace(L, i);
    }
  pp_buf_clear(&trial);
}

/* The same for groups of a number and as many results; the first that cannot
 * travel is the last unless errors are kept. Groups move down as one shrinks.
 */
static void weed_groups(lua_State *L, pp_call *c, int first) {
  int from = first, to = first, end = lua_gettop(L);
  pp_buf trial = {0};

  pp_execute_untraced(L, c);
  while (from <= end) {
    int n = (int)lua_tointeger(L, from);
    int k = n < 0 ? 2 : n + 1; /* slots of the group */
    bool ok = sendable(L, c, from, k, &trial);

    if (ok) {
      for (int i = 0; i < k; i++)
        lua_copy(L, from + i, to + i);
      to += k;
    } else {
      item_error(L, c, PP_KIND_UNSENDABLE);
      c->failed_items++;
      if (n < 1) { /* cannot be: a number alone can travel */
        lua_pop(L, 1);
        break;
      }
      lua_copy(L, -1, to + 1);
      lua_pop(L, 1);
      lua_pushinteger(L, -1);
      lua_replace(L, to);
      to += 2;
      if (!(c->flags & PP_JOBF_KEEP))
        break;
    }
    from += k;
  }
  lua_settop(L, to - 1);
  pp_buf_clear(&trial);
}

/* The arguments of the item at index i: pushes them; how many. */
static int push_item(lua_State *L, const pp_call *c, int i) {
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

/* Push the arguments of the next item; how many. Items are either on the
 * stack, from 2 on, or packed one by one. */
static int next_item(lua_State *L, pp_call *c, int i, pp_rd *packed) {
  const unsigned char *p;
  uint64_t len;
  int at, n;

  if (!(c->flags & PP_JOBF_EACH)) {
    if (pp_codec_settle(c->r->codec, L) != 0)
      return lua_error(L);
    return push_item(L, c, i);
  }
  if (pp_rd_varint(packed, &len) != 0 || len > pp_rd_left(packed) ||
      pp_rd_bytes(packed, len, &p) != 0)
    return luaL_error(L, "malformed chunk");
  if (pp_execute_args(L, c, p, len) != 1)
    return lua_error(L);
  at = lua_gettop(L);
  n = push_item(L, c, at);
  lua_remove(L, at);
  return n;
}

/* A chunk: the function once for each item, each time in globals of its own.
 * Results gather on the stack: the first of each, or all behind their number.
 */
int pp_chunk_run(lua_State *L) {
  pp_call *c = lua_touserdata(L, 1);
  pp_runner *r = c->r;
  bool all = c->flags & PP_JOBF_ALL, each = c->flags & PP_JOBF_EACH;
  pp_rd packed = pp_rd_of(c->args, c->args_len);
  int n = 0, first, count;

  lua_settop(L, 0);
  luaL_checkstack(L, 30, "job");
  lua_rawgeti(L, LUA_REGISTRYINDEX, r->handler);
  if (!each) {
    n = pp_codec_unpack(r->codec, L, c->args, c->args_len, NULL, 0);
    if (n < 0)
      return lua_error(L);
    if (c->modules_len == 0) { /* else its bytes are needed to the end */
      c->taken(c->ud);
      c->taken = NULL;
    }
  }
  first = 2 + n;
  c->started = pp_now_ns();
  for (int i = 2; each ? pp_rd_left(&packed) > 0 : i < 2 + n; i++) {
    int top = lua_gettop(L), status;

    luaL_checkstack(L, 30, "too many results");
    if (all)
      lua_pushnil(L); /* their number */
    if (c->flags & PP_JOBF_SEEDED)
      pp_execute_seed(L, c, c->index + (uint64_t)i - 2, true);
    pp_execute_begin(L, c);
    status = pp_execute_user(L, c, next_item(L, c, i, &packed),
                             all ? LUA_MULTRET : 1, 1);
    if (status != LUA_OK) {
      if (r->stop != NULL || !(c->flags & (PP_JOBF_KEEP | PP_JOBF_ALL)))
        return lua_error(L);
      item_error(L, c, c->kind);
      c->failed_items++;
    }
    pp_execute_end(L, c);
    if (!all)
      continue;
    lua_pushinteger(L, status == LUA_OK ? lua_gettop(L) - top - 1 : -1);
    lua_replace(L, top + 1);
    if (status != LUA_OK && !(c->flags & PP_JOBF_KEEP))
      break;
  }
  c->run = pp_now_ns() - c->started;
  count = lua_gettop(L) - first + 1;
  if (pp_codec_pack(r->codec, L, first, count, "result", c->out, NULL) != 0) {
    if (!(c->flags & (PP_JOBF_KEEP | PP_JOBF_ALL))) {
      c->kind = PP_KIND_UNSENDABLE;
      pp_execute_untraced(L, c);
      return lua_error(L);
    }
    lua_pop(L, 1);
    if (all)
      weed_groups(L, c, first);
    else
      weed_out(L, c, first, count);
    count = lua_gettop(L) - first + 1;
    if (pp_codec_pack(r->codec, L, first, count, "result", c->out, NULL) != 0)
      return lua_error(L);
  }
  lua_pushboolean(L, 0);
  return 1;
}
