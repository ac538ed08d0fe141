/* SPDX-License-Identifier: MIT */
/* server:everywhere. */
#include <lauxlib.h>
#include <string.h>

#include "depend.h"
#include "link.h"
#include "lua_submission.h"
#include "nest.h"

#define WAITER_META "pp.everywhere"

/* Whoever waits for a call, until it has the results. If that was left by an
 * error, perhaps of a callback when the call was just over, the call is taken
 * back: what raises has not happened. */
typedef struct waiter {
  pp_server *s;
  pp_call *call; /* NULL: done with */
  pp_job *model; /* what is to be called, until there is a call */
} waiter;

static int waiter_close(lua_State *L) {
  waiter *w = luaL_checkudata(L, 1, WAITER_META);
  pp_engine *e = pp_engine_get();

  if (w->call != NULL && e != NULL && !e->ended) {
    pp_engine_enter(e);
    pp_everywhere_undo(w->s, w->call);
    pp_engine_leave(e);
  }
  w->call = NULL;
  if (w->model != NULL && e != NULL) {
    pp_engine_enter(e);
    pp_job_unref(w->model, &e->blobs);
    pp_engine_leave(e);
  }
  w->model = NULL;
  return 0;
}

/* Until when the call waits for hosts to connect, ns; 0: not at all, -1: as
 * long as there is no worker anywhere and one to be expected. */
static int64_t gathers(const pp_server *s, int64_t now) {
  int64_t until = 0;
  bool some = false, coming = false;

  for (const pp_node *n = s->local; n != NULL; n = n->next) {
    some = some || n->ncpus > 0;
    coming = coming || n->expected;
    if (n->due > now && n->due > until)
      until = n->due;
  }
  return !some && coming ? -1 : until;
}

static bool is_given(void *ud) {
  const waiter *w = ud;

  return w->s->closed || (gathers(w->s, pp_now_ns()) == 0 &&
                          !pp_depend_waits(w->s->engine, w->model));
}

/* What the call is given by other jobs is to be there, and the hosts that are
 * about to be. Raises the error of a job that has failed. */
static void await_given(lua_State *L, waiter *w) {
  pp_engine *e = w->s->engine;
  pp_job *j = w->model;
  int64_t until;
  int r;

  for (;;) {
    pp_engine_enter(e);
    until = gathers(w->s, pp_now_ns());
    if (until == 0 && pp_depend_waits(e, j))
      until = -1;
    pp_engine_leave(e);
    if (until == 0 || w->s->closed)
      break;
    pp_wait_call(L, is_given, w, until);
  }
  if (w->s->closed)
    luaL_error(L, "attempt to use a closed server");
  pp_engine_enter(e);
  r = pp_depend_begin(w->s, j);
  if (r != PP_DEPEND_READY)
    pp_depend_root(j)->flags |= PP_JOB_TOLD;
  pp_engine_leave(e);
  if (r == PP_DEPEND_READY)
    return;
  w->model = NULL;
  j->state = PP_JOB_FAILED;
  pp_push_job(L, j, AT_SELF, 0);
  pp_push_results(L, lua_gettop(L));
  lua_error(L);
}

static bool is_over(void *ud) {
  const waiter *w = ud;

  return w->call->state >= PP_CALL_OVER;
}

/* Push the handle of the call's run at a seat, that of a node's worker, not
 * shared with what its server keeps; false if there is none. */
static bool push_run(lua_State *L, waiter *w, uint32_t seat, const pp_node *n,
                     uint32_t number) {
  pp_engine *e = pp_check_engine(L);
  pp_job *run, *copy = NULL;
  int r = 0;

  pp_engine_enter(e);
  run = pp_everywhere_run(w->s, w->call, seat);
  if (run != NULL) {
    copy = pp_job_new(0);
    r = copy != NULL ? pp_job_store(copy, run->result, run->result_len)
                     : PP_ENOMEM;
  }
  if (copy != NULL) {
    copy->flags = PP_JOB_CALL | (seat == PP_HERE ? PP_JOB_HERE : 0);
    copy->server = w->s;
    copy->state = run->state;
    copy->node = n->name;
    copy->worker = number;
    if (pp_job_collected(run) != NULL && pp_job_more(copy) != NULL) {
      copy->more->output = run->more->output;
      run->more->output = NULL;
    }
  }
  pp_engine_leave(e);
  if (copy != NULL)
    pp_push_job(L, copy, AT_SELF, 0);
  if (r != 0)
    luaL_error(L, "not enough memory");
  return run != NULL;
}

static void set_text(lua_State *L, const char *name, const pp_buf *b) {
  lua_pushlstring(L, b != NULL ? (const char *)b->data : "",
                  b != NULL ? b->len : 0);
  lua_setfield(L, -2, name);
}

/* Push the entry of a worker: {node =, worker =, ok =, n =, results} or
 * {..., ok = false, error =, n = 1, error}. */
static void push_entry(lua_State *L, const pp_server *s) {
  int handle = lua_gettop(L), n = pp_push_results(L, handle), count;
  const pp_ujob *u = lua_touserdata(L, handle);

  count = n < 0 ? 1 : n;
  luaL_checkstack(L, 10, "too many results");
  lua_createtable(L, count, 5);
  lua_insert(L, handle + 1);
  for (int i = count; i >= 1; i--)
    lua_rawseti(L, handle + 1, i);
  lua_pushstring(L, pp_engine_name(s->engine, u->j->node));
  lua_setfield(L, -2, "node");
  lua_pushinteger(L, u->j->worker);
  lua_setfield(L, -2, "worker");
  lua_pushboolean(L, n >= 0);
  lua_setfield(L, -2, "ok");
  lua_pushinteger(L, count);
  lua_setfield(L, -2, "n");
  if (n < 0) {
    lua_rawgeti(L, -1, 1);
    lua_setfield(L, -2, "error");
  }
  if (s->output == PP_OUTPUT_JOB) {
    const pp_buf *b = pp_job_collected(u->j);

    set_text(L, "output", b != NULL ? &b[0] : NULL);
    set_text(L, "errors", b != NULL ? &b[1] : NULL);
  }
  lua_remove(L, handle);
}

/***
Call a function once in every worker, in its base globals, and wait: what it
assigns to globals every later job of that worker sees. Jobs submitted before
run before it. The call is remembered: workers that start later make it, too,
before their first job. A worker in which it fails is not used any more; when
none is left, jobs fail with kind "connect". A server of no workers makes it in
this process, as worker 0. A host that is just being connected to is waited for,
up to 5 seconds from when that began, and as long as there is no worker yet one
is; the workers of one that comes later make the call as they start. Callbacks
run meanwhile; if one raises an error, or on Ctrl-C, the call is taken back.
@function Server:everywhere
@func func travels as the function of a job does; globals that come along stay;
  it cannot submit jobs
@param ... its arguments
@treturn table a list with an entry for each worker: `node`, `worker`, `ok`; if
  ok its `n` results at 1 to n, else the job error as `error` and at 1 (n is 1);
  with output = "job" also `output` and `errors`
@raise on bad arguments, what cannot be sent, a closed server, and in a job
*/
int pp_server_everywhere(lua_State *L) {
  submission b;
  pp_packed packed;
  pp_job *model;
  waiter *w;
  int list, at = 0;

  pp_submission_begin(L, &b);
  b.method = "everywhere";
  if (pp_nest_has(b.s) || b.s->engine->serial != NULL)
    return luaL_error(L, "everywhere cannot be called in a job");
  pp_submission_spread(L, &b);
  w = lua_newuserdatauv(L, sizeof *w, 0);
  w->s = b.s;
  w->call = NULL;
  w->model = NULL;
  luaL_setmetatable(L, WAITER_META);
  lua_toclose(L, -1);
  pp_submission_pack(L, &b, &packed);
  pp_engine_enter(b.e);
  model = pp_submission_job(&b, &packed);
  if (model != NULL)
    model->wire |= PP_JOBF_BASE;
  pp_engine_leave(b.e);
  if (model == NULL)
    return luaL_error(L, "not enough memory");
  w->model = model;
  await_given(L, w);
  w->model = NULL;
  pp_engine_enter(b.e);
  pp_engine_look(b.e, pp_now_ns());
  w->call = pp_everywhere_call(b.s, model);
  pp_engine_leave(b.e);
  if (w->call == NULL)
    return luaL_error(L, "not enough memory");
  pp_wait_call(L, is_over, w, -1);
  /* The kept list on the stack serves the results. */
  lua_createtable(L, (int)pp_server_ncpus(b.s), 0);
  list = lua_gettop(L);
  if (push_run(L, w, PP_HERE, b.s->local, 0)) {
    push_entry(L, b.s);
    lua_rawseti(L, list, ++at);
  }
  for (const pp_node *n = b.s->local; n != NULL; n = n->next)
    for (uint32_t i = 0; i < n->cap; i++)
      if (push_run(L, w, n->seats[i], n, i + 1)) {
        push_entry(L, b.s);
        lua_rawseti(L, list, ++at);
      }
  pp_engine_enter(b.e);
  pp_everywhere_release(b.s, w->call);
  pp_engine_leave(b.e);
  w->call = NULL;
  return 1;
}

void pp_open_everywhere(lua_State *L) {
  static const luaL_Reg meta[] = {
      {"__close", waiter_close},
      {"__gc", waiter_close},
      {NULL, NULL},
  };

  luaL_newmetatable(L, WAITER_META);
  luaL_setfuncs(L, meta, 0);
  lua_pop(L, 1);
}
