/* SPDX-License-Identifier: MIT */
/***
Taking jobs as they finish.
@module pp.taking
*/
/* What iterating over a server's jobs is made of; pp/iterate.lua does it. */
#include <lauxlib.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "choice.h"
#include "far.h"
#include "lua_pp.h"
#include "plain.h"

/* Append the n items from `first` of the table at 3, packed one by one. */
static int pack_each(lua_State *L, pp_engine *e, lua_Integer first, int n,
                     pp_deps *deps, int kept) {
  pp_buf one = {0};
  int r = 0;

  for (int i = 0; i < n && r == 0; i++) {
    one.len = 0;
    lua_geti(L, 3, first + i);
    r = pp_codec_pack(e->codec, L, lua_gettop(L), 1, "item", &one, deps);
    if (r != 0) { /* say which */
      const char *m = lua_tostring(L, -1);

      lua_pushfstring(L, "%d:%s", i, m != NULL ? m : "");
      break;
    }
    if (!lua_isnil(L, -1))
      lua_rawseti(L, kept, (lua_Integer)lua_rawlen(L, kept) + 1);
    r = pp_buf_varint(&e->scratch, one.len);
    if (r == 0)
      r = pp_buf_put(&e->scratch, one.data, one.len);
    lua_settop(L, kept);
  }
  pp_buf_clear(&one);
  return r;
}

/* What its parcel says of a chunk of n items. */
static int fill_in(pp_server *s, pp_job *j, const pp_uparcel *u, uint32_t n,
                   uint64_t index) {
  pp_more *more = pp_job_more(j);

  if (more == NULL ||
      (u->name != NULL && (more->name = strdup(u->name)) == NULL))
    return PP_ENOMEM;
  j->items = n;
  j->flags |= PP_JOB_SEEN; /* nobody else is to take it */
  j->retries = u->retries;
  j->timeout = u->timeout;
  j->priority = u->priority;
  j->slots = u->slots;
  more->error_retries = u->error_retries;
  more->memory = u->memory;
  more->index = index;
  return u->on == NULL ? 0 : pp_choice_set(s, j, u->on, u->on_len);
}

/* Append what stands for the n numbers from `first` of the range at 3. */
static int pack_range(lua_State *L, pp_engine *e, lua_Integer first, int n) {
  int top = lua_gettop(L), r;

  lua_pushliteral(L, "first");
  lua_rawget(L, 3);
  lua_pushliteral(L, "step");
  lua_rawget(L, 3);
  lua_pushinteger(L, first - 1);
  lua_pushinteger(L, n);
  r = pp_codec_pack(e->codec, L, top + 1, 4, "item", &e->scratch, NULL);
  if (r == 0)
    lua_settop(L, top);
  return r;
}

/* core.chunk(server, parcel, items, first, n, flags, group, index of the first
 * item in the whole) -> a job that calls the parcel's function for items[first
 * .. first + n - 1], and the bytes of these; flags has letters: s spread, k
 * keep errors, a all results, r items is a pp.range. Or nil and a refusal:
 * "K:message", K the number of the item, from 0. */
static int chunk(lua_State *L) {
  pp_server *s = pp_check_server(L, 1);
  pp_engine *e = pp_check_engine(L);
  pp_uparcel *u = luaL_checkudata(L, 2, PP_PARCEL_META);
  lua_Integer first = luaL_checkinteger(L, 4);
  int n = (int)luaL_checkinteger(L, 5), base, r = 0;
  uint32_t flags = PP_JOBF_CHUNK;
  size_t group_len = 7;
  const char *how = luaL_checkstring(L, 6);
  const char *group = luaL_optlstring(L, 7, "default", &group_len);
  uint64_t index;
  pp_packed packed = {0};
  pp_ujob *handle;
  pp_job *j;
  int64_t now;
  lua_Integer bytes;

  if (strchr(how, 's') != NULL)
    flags |= PP_JOBF_SPREAD;
  if (strchr(how, 'k') != NULL)
    flags |= PP_JOBF_KEEP;
  if (strchr(how, 'a') != NULL)
    flags |= PP_JOBF_ALL;
  index = (uint64_t)luaL_optinteger(L, 8, 1);
  lua_settop(L, 7);
  base = lua_gettop(L) + 1;
  lua_createtable(L, 0, 0); /* the kept lists of items */
  e->scratch.len = 0;
  if (pp_buf_put(&e->scratch, u->modules.data, u->modules.len) != 0)
    return luaL_error(L, "not enough memory");
  if (strchr(how, 'r') != NULL) {
    flags |= PP_JOBF_RANGE;
    r = pack_range(L, e, first, n);
  } else {
    r = pp_plain_pack_list(L, 3, first, n, &e->scratch);
    if (r == 0) {
      flags |= PP_JOBF_EACH;
      r = pack_each(L, e, first, n, &packed.deps, base);
    } else if (r > 0) {
      r = 0;
    }
  }
  if (r != 0) {
    pp_deps_clear(e->codec, &packed.deps);
    lua_pushnil(L);
    lua_insert(L, -2);
    return 2;
  }
  lua_settop(L, base);
  lua_getiuservalue(L, 2, 1);
  lua_rawseti(L, base, (lua_Integer)lua_rawlen(L, base) + 1);
  handle = pp_new_handle(L, 1);
  lua_pushvalue(L, base);
  pp_job_hold(L, -2, PP_HOLD_KEPT);
  bytes = (lua_Integer)e->scratch.len;
  packed.setting = pp_setting(L, e);
  packed.parcel = u->parcel;
  packed.borrowed = true; /* by the parcel at 2 */
  packed.flags = flags;
  packed.mods = u->modules.len;
  now = pp_now_ns();
  pp_engine_enter(e);
  j = pp_compose(s, &packed);
  if (j != NULL && fill_in(s, j, u, (uint32_t)n, index) != 0) {
    pp_job_unref(j, &e->blobs);
    j = NULL;
  }
  if (j == NULL) {
    pp_engine_leave(e);
    return luaL_error(L, "not enough memory");
  }
  handle->j = j;
  pp_engine_look(e, now);
  j->group = pp_groups_get(&s->groups, group, group_len);
  if (!u->has_id)
    u->id = s->next_id++;
  u->has_id = true;
  j->id = u->id; /* how many there are depends on the time they take */
  pp_server_add(s, pp_job_ref(j), now);
  pp_engine_leave(e);
  if (!s->anchored)
    pp_anchor(L, s, 1);
  lua_pushinteger(L, bytes);
  return 2;
}

/* The n results of the job at 1 have been read: how many, and their bytes,
 * which are needed no more. */
static int collected(lua_State *L, pp_engine *e, pp_job *j, int n) {
  lua_pushinteger(L, n);
  lua_pushinteger(L, (lua_Integer)j->result_len);
  if (pp_job_promise(j) == NULL) { /* else others may be given them */
    lua_pushnil(L);
    pp_job_hold(L, 1, PP_HOLD_KEPT);
    pp_engine_enter(e);
    pp_job_clear_result(j);
    pp_job_done_with(j, &e->blobs);
    pp_engine_leave(e);
  }
  return 2;
}

/* core.collect(job, into, first, most): put the results of a job that is over
 * into a table, from first on (of more than `most` only so many), and forget
 * them: how many, and their bytes; or nil, its error. */
static int collect(lua_State *L) {
  pp_ujob *u = luaL_checkudata(L, 1, PP_JOB_META);
  pp_engine *e = pp_check_engine(L);
  lua_Integer first = luaL_checkinteger(L, 3);
  lua_Integer most = luaL_optinteger(L, 4, INT_MAX);
  pp_job *j = u->j;
  pp_plain_in in;
  int n;

  lua_settop(L, 3);
  pp_engine_enter(e);
  if (j->server != NULL)
    pp_server_seen(j->server, j);
  pp_engine_leave(e);
  if (j->state == PP_JOB_DONE && j->result != NULL &&
      !pp_cargo_shared(pp_job_load(j)) &&
      pp_plain_open(&in, j->result, j->result_len) > 0 &&
      in.left <= (uint64_t)most) {
    n = (int)in.left;
    if (pp_plain_set(&in, L, 2, first - 1) > 0) {
      return collected(L, e, j, n);
    } /* else it is not that plain */
  }
  n = -1;
  if (j->state == PP_JOB_DONE && j->result != NULL)
    n = pp_unpack_result(L, e, j);
  if (n < 0) {
    lua_settop(L, 3);
    n = pp_push_results(L, 1); /* makes an error of it */
  }
  if (n < 0) {
    lua_pushnil(L);
    lua_insert(L, -2);
    return 2;
  }
  if (n > most) { /* its worker talks nonsense */
    lua_pop(L, n - (int)most);
    n = (int)most;
  }
  for (int i = n; i >= 1; i--) {
    lua_rawseti(L, 2, first + i - 1);
  }
  return collected(L, e, j, n);
}

static int parcel_gc(lua_State *L) {
  pp_uparcel *u = lua_touserdata(L, 1);
  pp_engine *e = pp_engine_here();

  if (u->parcel.blob != NULL && e != NULL) {
    pp_engine_enter(e);
    pp_blob_unref(&e->blobs, u->parcel.blob);
    pp_engine_leave(e);
  }
  u->parcel.blob = NULL;
  pp_buf_clear(&u->modules);
  free(u->on);
  u->on = NULL;
  free(u->name);
  u->name = NULL;
  return 0;
}

/* --- the next to end ------------------------------------------------------ */

typedef struct popping {
  pp_server *s;
} popping;

static bool some_ended(void *ud) {
  const popping *w = ud;

  return w->s->ended.n > 0 || w->s->pending == 0;
}

/***
Take the next finished job that nobody has taken or asked; wait for one.
A waiting call. Who takes a job (completed and drain do, too) is to look how it
ended: its failure is not reported at the end any more.
@function Server:pop
@number[opt] timeout seconds; none waits as long as a job is unfinished, 0 only
  looks
@treturn ?Job its handle; nil when nothing is pending or the time is up
*/
static int server_pop(lua_State *L) {
  popping w = {pp_check_server(L, 1)};
  pp_engine *e = pp_check_engine(L);
  int64_t deadline = pp_opt_deadline(L, 2);
  pp_job *j;

  pp_wait_call(L, some_ended, &w, deadline);
  pp_engine_enter(e);
  j = w.s->ended.head;
  if (j != NULL) {
    pp_job_ref(j);
    pp_server_seen(w.s, j);
  }
  pp_engine_leave(e);
  if (j == NULL) {
    lua_pushnil(L);
    return 1;
  }
  pp_push_handle(L, j, 1);
  return 1;
}

/* core.ended(server, seen, timeout): wait until more jobs than `seen` have
 * ended, of this server and others: how many it is now, or nil in the end. */
typedef struct counting {
  const pp_engine *e;
  uint64_t seen;
} counting;

static bool more_ended(void *ud) {
  const counting *w = ud;

  return w->e->ends > w->seen;
}

static int ended(lua_State *L) {
  pp_server *s = pp_check_server(L, 1);
  pp_engine *e = s->engine;
  counting w = {e, (uint64_t)luaL_checkinteger(L, 2)};
  int64_t deadline = pp_opt_deadline(L, 3);
  bool some = pp_wait_call(L, more_ended, &w, deadline);

  pp_engine_enter(e);
  w.seen = e->ends;
  pp_engine_leave(e);
  if (some)
    lua_pushinteger(L, (lua_Integer)w.seen);
  else
    lua_pushnil(L);
  return 1;
}

/* core.over(job) -> is it over, without a look at what has arrived */
static int over(lua_State *L) {
  pp_ujob *u = luaL_checkudata(L, 1, PP_JOB_META);
  pp_engine *e = pp_check_engine(L);
  bool is;

  pp_engine_enter(e);
  is = pp_job_over(u->j);
  pp_engine_leave(e);
  lua_pushboolean(L, is);
  return 1;
}

/* core.cut(job, n, least): have a chunk of n items cut short that has run for
 * as many seconds at least: how many of them stay with it, the others being the
 * caller's to submit again; nil: that is not known yet, or it has not begun;
 * false: where it is it cannot be. */
static int cut(lua_State *L) {
  pp_ujob *u = luaL_checkudata(L, 1, PP_JOB_META);
  lua_Integer n = luaL_checkinteger(L, 2);
  lua_Number least = luaL_checknumber(L, 3);
  pp_engine *e = pp_check_engine(L);
  pp_job *j = u->j;
  uint32_t kept = 0;
  bool can;

  pp_engine_enter(e);
  if (!(least >= 0 && least < 1e6))
    least = 0;
  if (n > 1 && (n == j->items || (j->more != NULL && j->more->most > 0)))
    kept = pp_server_cut_chunk(j, (int64_t)(least * 1e9));
  can = j->state != PP_JOB_SENT || j->place->ops->cut != NULL;
  pp_engine_leave(e);
  if (!can)
    lua_pushboolean(L, 0);
  else if (kept == 0)
    lua_pushnil(L);
  else
    lua_pushinteger(L, kept);
  return 1;
}

/* core.workers(server): how many there are on all nodes, at least 1; and how
 * long the longest way to one and back is, in seconds. */
static int workers(lua_State *L) {
  pp_server *s = pp_check_server(L, 1);
  pp_engine *e = pp_check_engine(L);
  lua_Integer n = 0;
  int64_t way = 0;

  pp_engine_enter(e);
  for (const pp_node *node = s->local; node != NULL; node = node->next)
    if (node->ncpus > node->barred && (node == s->local || node->open > 0)) {
      n += node->ncpus - node->barred;
      if (node->far != NULL && node->far->rtt > way)
        way = node->far->rtt;
    }
  pp_engine_leave(e);
  lua_pushinteger(L, n > 0 ? n : 1);
  lua_pushnumber(L, (lua_Number)way / 1e9);
  return 2;
}

/* core.take(job): it counts as taken. */
static int take(lua_State *L) {
  pp_ujob *u = luaL_checkudata(L, 1, PP_JOB_META);
  pp_engine *e = pp_check_engine(L);

  pp_engine_enter(e);
  if (u->j->server != NULL)
    pp_server_seen(u->j->server, u->j);
  pp_engine_leave(e);
  return 0;
}

/* core.callbacks(): run those that are due, if none is running. */
static int callbacks(lua_State *L) {
  pp_engine *e = pp_check_engine(L);
  bool due;

  pp_engine_enter(e);
  pp_engine_look(e, pp_now_ns());
  due = e->callbacks > 0 && !e->in_callback;
  pp_engine_leave(e);
  if (due)
    pp_run_callbacks(L, e);
  return 0;
}

/* core.is_job(v) */
static int is_job(lua_State *L) {
  lua_pushboolean(L, luaL_testudata(L, 1, PP_JOB_META) != NULL);
  return 1;
}

/* core.list(n): an empty table with room for n values. */
static int list(lua_State *L) {
  lua_Integer n = luaL_checkinteger(L, 1);

  lua_createtable(L, n > 1 << 26 ? 1 << 26 : (int)n, 1);
  return 1;
}

static const luaL_Reg funcs[] = {
    {"call_back", pp_call_back},
    {"list", list},
    {"callbacks", callbacks},
    {"is_job", is_job},
    {"collect", collect},
    {"chunk", chunk},
    {"parcel", pp_parcel_new},
    {"ended", ended},
    {"over", over},
    {"take", take},
    {"cut", cut},
    {"workers", workers},
    {NULL, NULL},
};

void pp_open_chunk(lua_State *L) {
  luaL_newmetatable(L, PP_PARCEL_META);
  lua_pushcfunction(L, parcel_gc);
  lua_setfield(L, -2, "__gc");
  lua_pop(L, 1);
  luaL_setfuncs(L, funcs, 0);
  lua_getfield(L, -1, "server_methods");
  lua_pushcfunction(L, server_pop);
  lua_setfield(L, -2, "pop");
  lua_pop(L, 1);
}
