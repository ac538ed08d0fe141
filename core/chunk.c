/* SPDX-License-Identifier: MIT */
/*
 * A chunk: a function called once for each of many items, each time in globals
 * of its own; what becomes of results that cannot travel, and of errors.
 *
 * Results go straight to where they are sent from as long as they are plain
 * (and, where all of an item's are wanted, one each); else they gather on the
 * stack, to be packed together. Pure functions (pure.h) share their globals
 * and are called in a loop without more, until one of them fails.
 */
#include <lauxlib.h>
#include <string.h>

#include "items.h"
#include "pure.h"
#include "shm.h"
#include "state.h"

typedef struct chunk {
  pp_call *c;
  pp_items items;
  bool all;    /* of all results of each item, behind their number */
  bool pure;   /* one table of globals will do */
  bool stores; /* but some are to be put back in it */
  bool seeds;  /* each item has random numbers of its own */
  bool direct; /* results so far are in out */
  bool light;  /* pp_lane_item */
  uint32_t seq;
  bool taken;    /* the stacked items are on the stack */
  int status;    /* of the item that ended the loop */
  uint64_t done; /* results in out, the mark not counted */
  pp_plain_out out;
} chunk;

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

/* Is another item to be begun? If it was cut short it ends before that. */
static inline bool more(chunk *k) {
  pp_lane *lane = k->c->r->lane;

  if (k->items.at >= k->items.n)
    return false;
  if (lane == NULL ||
      pp_lane_item(&lane->item, &lane->cut, k->light, k->seq, k->items.at))
    return true;
  k->items.n = k->items.at;
  k->c->begun_items = (uint32_t)k->items.n;
  return false;
}

/* --- the loop for pure functions ---------------------------------------- */

/* Where the loops have what belongs to a pure function: itself, the globals it
 * assigns (or nil), the table of globals. */
enum { AT_FUNCTION = 2, AT_STORES, AT_GLOBALS };

/* chunk and these -> nothing when all is done, or the results of an item that
 * are not to be had so easily. */
static int run_pure(lua_State *L) {
  chunk *k = lua_touserdata(L, 1);
  pp_runner *r = k->c->r;
  int results = k->all ? LUA_MULTRET : 1, rc;

  luaL_checkstack(L, 30, "job");
  lua_settop(L, AT_GLOBALS);
  while (more(k)) {
    if (PP_UNLIKELY(r->stop != NULL)) {
      lua_pushstring(L, r->stop);
      return lua_error(L);
    }
    if (k->seeds)
      pp_execute_seed(L, k->c, k->c->index + k->items.at, true);
    if (k->stores)
      pp_pure_restore(L, r, AT_STORES, AT_GLOBALS);
    lua_pushvalue(L, AT_FUNCTION);
    pp_items_plain(L, &k->items);
    lua_call(L, 1, results);
    if (PP_UNLIKELY(results != 1 && lua_gettop(L) != AT_GLOBALS + 1))
      return lua_gettop(L) - AT_GLOBALS;
    rc = pp_plain_put(&k->out, L);
    if (PP_UNLIKELY(rc <= 0)) {
      if (rc < 0)
        return luaL_error(L, "not enough memory");
      return 1;
    }
    k->done++;
    lua_settop(L, AT_GLOBALS);
  }
  return 0;
}

/* --- the loop for all others -------------------------------------------- */

/* Results come to the stack from now on, and those there are go there, below
 * the n of the item at work. */
static void leave_direct(lua_State *L, chunk *k, int n) {
  pp_buf *out = k->c->out;
  int top = lua_gettop(L), count;
  pp_plain_in in;

  if (pp_plain_end(&k->out) < 0)
    luaL_error(L, "not enough memory");
  luaL_checkstack(L, (int)k->done * 2 + 30, "too many results");
  in.r = pp_rd_of(out->data + k->out.body, out->len - k->out.body);
  in.run.n = 0;
  in.left = k->done + k->all;
  for (uint64_t i = 0; i < k->done + k->all; i++) {
    if (k->all && i > 0)
      lua_pushinteger(L, 1);
    if (pp_plain_next(&in, L) <= 0)
      luaL_error(L, "malformed results");
    if (k->all && i == 0)
      lua_pop(L, 1); /* the mark */
  }
  count = lua_gettop(L) - top;
  if (n > 0)
    lua_rotate(L, top - n + 1, count);
  out->len = k->out.start;
  k->direct = false;
}

/* The results of an item, or its error if k->status says so, are all above
 * `top`. Whether to go on. */
static bool take_results(lua_State *L, chunk *k, int top) {
  pp_call *c = k->c;
  int n = lua_gettop(L) - top, rc;

  if (k->status != LUA_OK) {
    item_error(L, c, c->kind);
    c->failed_items++;
  } else if (k->direct && n == 1) {
    rc = pp_plain_put(&k->out, L);
    if (rc < 0)
      luaL_error(L, "not enough memory");
    if (rc > 0) {
      k->done++;
      lua_settop(L, top);
      return true;
    }
  }
  if (k->direct)
    leave_direct(L, k, n);
  if (k->all) {
    lua_pushinteger(L, k->status == LUA_OK ? n : -1);
    lua_insert(L, -1 - n);
  }
  return !k->all || k->status == LUA_OK || c->flags & PP_JOBF_KEEP;
}

/* chunk[, and what run_pure had, what it has returned] -> nothing. Items that
 * are left are called one by one. */
static int run_items(lua_State *L) {
  chunk *k = lua_touserdata(L, 1);
  pp_call *c = k->c;
  pp_runner *r = c->r;
  int given = lua_gettop(L) - (k->pure ? AT_GLOBALS : 1), first, count;
  bool on = true;

  luaL_checkstack(L, 30, "job");
  lua_rawgeti(L, LUA_REGISTRYINDEX, r->handler);
  lua_replace(L, 1);
  if (k->items.kind == PP_ITEMS_STACKED) {
    int n = pp_codec_unpack(r->codec, L, c->args, c->args_len, NULL, 0);

    if (n < 0)
      return lua_error(L);
    k->items.base = 2;
    if (c->modules_len == 0) { /* else its bytes are needed to the end */
      c->taken(c->ud);
      c->taken = NULL;
    }
  }
  first = lua_gettop(L) + 1 - given;
  if (k->done < k->items.at)
    on = take_results(L, k, first - 1);
  while (on && more(k)) {
    int top = lua_gettop(L);

    luaL_checkstack(L, 30, "too many results");
    if (k->seeds)
      pp_execute_seed(L, c, c->index + k->items.at, true);
    if (k->stores)
      pp_pure_restore(L, r, AT_STORES, AT_GLOBALS);
    if (k->pure)
      lua_pushvalue(L, AT_FUNCTION);
    else
      pp_execute_renew(L, c);
    k->status = pp_execute_user(L, c, pp_items_next(L, &k->items),
                                k->all ? LUA_MULTRET : 1, 1);
    if (k->status != LUA_OK &&
        (r->stop != NULL || !(c->flags & (PP_JOBF_KEEP | PP_JOBF_ALL))))
      return lua_error(L);
    on = take_results(L, k, top);
  }
  c->run = pp_now_ns() - c->started;
  pp_execute_end(L, c);
  if (k->direct)
    return 0;
  count = lua_gettop(L) - first + 1;
  if (pp_codec_pack(r->codec, L, first, count, "result", c->out, NULL) != 0) {
    if (!(c->flags & (PP_JOBF_KEEP | PP_JOBF_ALL))) {
      c->kind = PP_KIND_UNSENDABLE;
      pp_execute_untraced(L, c);
      return lua_error(L);
    }
    lua_pop(L, 1);
    if (k->all)
      weed_groups(L, c, first);
    else
      weed_out(L, c, first, count);
    count = lua_gettop(L) - first + 1;
    if (pp_codec_pack(r->codec, L, first, count, "result", c->out, NULL) != 0)
      return lua_error(L);
  }
  return 0;
}

/* --- all of it ---------------------------------------------------------- */

/* chunk -> message handler[, and for a pure function what the loops have of it]
 */
static int begin(lua_State *L) {
  chunk *k = lua_touserdata(L, 1);
  pp_call *c = k->c;
  int pure = PP_PURE_NOT, needs = lua_gettop(L) + 1;
  uint32_t most;

  luaL_checkstack(L, 30, "job");
  pp_items_open(L, &k->items, c);
  if (c->r->lane != NULL && !c->r->armed && k->items.n > 1) {
    c->r->light = pp_lane_light(c->r->lane);
    c->r->armed = true;
  }
  k->light = c->r->light;
  k->seq = pp_get32(c->p + PP_JOB_SEQ);
  most = pp_get32(c->p + PP_JOB_MOST);
  if (k->items.n > PP_CHUNK_MAX)
    return luaL_error(L, "malformed chunk");
  if (most > 0 && most < k->items.n) {
    k->items.n = most;
    c->begun_items = most;
  }
  if (k->items.n >= 16 && k->items.kind <= PP_ITEMS_RANGE)
    pure = pp_execute_pure(L, c);
  k->pure = pure & PP_PURE;
  c->tame = k->pure && !(pure & PP_PURE_LOOSE);
  if (!c->tame)
    c->r->era++;
  k->stores = pure & PP_PURE_STORES;
  k->seeds = c->flags & PP_JOBF_SEEDED && (!k->pure || pure & PP_PURE_RANDOM);
  if (pp_plain_begin(&k->out, c->out, k->items.n + k->all) < 0 ||
      (k->all && pp_runs_integer(&k->out.runs, PP_ONE_EACH) < 0))
    return luaL_error(L, "not enough memory");
  lua_rawgeti(L, LUA_REGISTRYINDEX, c->r->handler);
  if (!k->pure)
    return 1;
  pp_execute_begin(L, c);
  pp_pure_stores(L, needs);
  lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_GLOBALS);
  if (!k->stores)
    pp_pure_warm(L, c->r, needs, -1);
  return AT_GLOBALS;
}

/* Leave the error on top alone there. */
static int failed(lua_State *L, int base, int status) {
  lua_insert(L, base + 1);
  lua_settop(L, base + 1);
  return status;
}

int pp_chunk_run(lua_State *L, pp_call *c) {
  chunk k = {.c = c, .direct = true, .all = c->flags & PP_JOBF_ALL};
  pp_runner *r = c->r;
  int base = lua_gettop(L), status;

  lua_pushcfunction(L, begin);
  lua_pushlightuserdata(L, &k);
  status = lua_pcall(L, 1, LUA_MULTRET, 0);
  if (status != LUA_OK)
    return status;
  c->started = pp_now_ns();
  if (k.pure) {
    lua_pushcfunction(L, run_pure);
    lua_pushlightuserdata(L, &k);
    for (int i = AT_FUNCTION; i <= AT_GLOBALS; i++)
      lua_pushvalue(L, base + i);
    status = pp_execute_user(L, c, AT_GLOBALS, LUA_MULTRET, base + 1);
    if (status != LUA_OK &&
        (r->stop != NULL || !(c->flags & (PP_JOBF_KEEP | PP_JOBF_ALL))))
      return failed(L, base, status);
    if (status == LUA_OK && k.done == k.items.n)
      goto done;
    k.status = status;
  }
  lua_pushcfunction(L, run_items);
  lua_replace(L, base + 1);
  lua_pushlightuserdata(L, &k);
  lua_insert(L, base + 2);
  status = lua_pcall(L, lua_gettop(L) - base - 1, 0, 0);
  if (status != LUA_OK)
    return failed(L, base, status);
done:
  if (c->run == 0)
    c->run = pp_now_ns() - c->started;
  lua_settop(L, base);
  if (!k.direct || (pp_plain_end(&k.out) == 0 &&
                    pp_plain_count(&k.out, k.done + k.all) == 0))
    return LUA_OK;
  lua_pushstring(L, "not enough memory"); /* Lua has this string ready */
  return LUA_ERRMEM;
}
