/* SPDX-License-Identifier: MIT */
/***
Jobs and their errors.
@module pp.jobs
*/
#include <lauxlib.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "capture.h"
#include "interrupt.h"
#include "kin.h"
#include "link.h"
#include "lua_pp.h"
#include "nest.h"
#include "pin.h"
#include "serial.h"
#include "state.h"

/* Where the registry has the metatable of jobs: an integer is found in half the
 * time that a pointer takes. */
static const char job_key = 0;
#define JOB_KEY ((lua_Integer)(intptr_t)&job_key)

/* luaL_checkudata for a job, without a look at strings. */
static pp_ujob *check_handle(lua_State *L, int idx) {
  pp_ujob *u = lua_touserdata(L, idx);

  if (PP_LIKELY(u != NULL && lua_getmetatable(L, idx))) {
    bool is;

    lua_rawgeti(L, LUA_REGISTRYINDEX, JOB_KEY);
    is = lua_rawequal(L, -1, -2);
    lua_pop(L, 2);
    if (PP_LIKELY(is))
      return u;
  }
  return luaL_checkudata(L, idx, PP_JOB_META);
}

static pp_ujob *check_job(lua_State *L, int idx) {
  pp_ujob *u = check_handle(L, idx);

  if (u->j == NULL) /* a finalizer came across it */
    luaL_error(L, "attempt to use a collected job");
  return u;
}

/* --- waiting -------------------------------------------------------------- */

int64_t pp_opt_deadline(lua_State *L, int idx) {
  lua_Number s;

  if (lua_isnoneornil(L, idx))
    return -1;
  s = luaL_checknumber(L, idx);
  luaL_argcheck(L, s >= 0, idx, "seconds must not be negative");
  if (s > 1e9)
    return -1;
  return pp_now_ns() + (int64_t)(s * 1e9);
}

bool pp_wait_call(lua_State *L, bool (*until)(void *ud), void *ud,
                  int64_t deadline) {
  pp_engine *e = pp_check_engine(L);
  int r;

  if (e->ended) {
    if (!until(ud))
      luaL_error(L, "ppsh is ending: there is nothing to wait for");
    return true;
  }
  if (!e->at_prompt)
    pp_meter_unhide(&e->meter);
  for (;;) {
    bool due, run;

    pp_engine_enter(e);
    e->may_run = true;
    r = pp_engine_wait(e, until, ud, deadline);
    e->may_run = false;
    due = e->callbacks > 0 && !e->in_callback;
    run = r < 0 && !due && pp_interrupt_pending() == 0 && pp_serial_due(e);
    if (!run)
      pp_capture_end(e);
    pp_engine_leave(e);
    if (e->serial == NULL)
      pp_interrupt_check(L);
    else
      pp_serial_check(e, L);
    if (e->nest != NULL)
      pp_nest_check(e, L);
    if (run) {
      pp_serial_run(e);
    } else if (due) {
      pp_run_callbacks(L, e);
    } else if (r >= 0) {
      pp_unanchor(L, e);
      pp_unpin_due(e, L);
      return r > 0;
    }
  }
}

static bool job_over(void *ud) { return pp_job_over(ud); }

/* --- asking ----------------------------------------------------------------
 */

/* Wait for the job at 1 and note that somebody asked. */
static void await(lua_State *L, pp_ujob *u) {
  pp_engine *e = pp_check_engine(L);
  pp_job *j = u->j;

  pp_engine_enter(e);
  if (!pp_job_over(j) || e->callbacks > 0) {
    pp_engine_leave(e);
    pp_wait_call(L, job_over, j, -1);
    pp_engine_enter(e);
  }
  if (j->server != NULL)
    pp_server_seen(j->server, j);
  pp_engine_leave(e);
}

/***
Wait for the job and return what its function returned.
All results, embedded and trailing nils too; again and again the very same
values, or the same error object. A waiting call.
@function Job:__call
@return the results
@raise the job's error, whose fields are below
*/
static int job_call(lua_State *L) {
  pp_ujob *u = check_job(L, 1);
  int n;

  lua_settop(L, 1);
  await(L, u);
  n = pp_push_results(L, 1);
  if (n < 0)
    return lua_error(L);
  return n;
}

/***
Wait for the job, as pcall(job) does.
@function Job:pcall
@treturn boolean whether the job succeeded
@return its results, or its error
*/
static int job_pcall(lua_State *L) {
  pp_ujob *u = check_job(L, 1);
  int n;

  lua_settop(L, 1);
  await(L, u);
  n = pp_push_results(L, 1);
  lua_pushboolean(L, n >= 0);
  lua_replace(L, 1);
  return n < 0 ? 2 : n + 1;
}

/***
Wait until the job has ended; never raises the job's error. A waiting call.
@function Job:wait
@number[opt] timeout seconds; none waits for ever, 0 only looks
@treturn boolean true if it has ended, false if the time ran out first
*/
static int job_wait(lua_State *L) {
  pp_ujob *u = check_job(L, 1);
  int64_t deadline = pp_opt_deadline(L, 2);

  lua_pushboolean(L, pp_wait_call(L, job_over, u->j, deadline));
  return 1;
}

/***
End the job with an error of kind "cancelled"; never waits.
What arrives from it later is dropped. If it is running, an error is raised
once in its running coroutine; its `<close>` variables have one second in all,
then its processes are killed and the worker is replaced.
@function Job:cancel
@treturn boolean true if that ended it, false if it had ended already
*/
static int job_cancel(lua_State *L) {
  pp_ujob *u = check_job(L, 1);
  pp_engine *e = pp_check_engine(L);
  bool ended = false;

  pp_engine_enter(e);
  pp_engine_look(e, pp_now_ns());
  if (u->j->server != NULL && !u->j->server->closed)
    ended = pp_server_stop(u->j->server, u->j, PP_KIND_CANCELLED,
                           "the job was cancelled");
  pp_engine_leave(e);
  lua_pushboolean(L, ended);
  return 1;
}

/* --- fields --------------------------------------------------------------- */

static void set_seconds(lua_State *L, const char *name, int64_t ns) {
  lua_pushnumber(L, (lua_Number)(ns > 0 ? ns : 0) / 1e9);
  lua_setfield(L, -2, name);
}

static void push_time(lua_State *L, const pp_job *j) {
  int64_t end = j->ended ? j->ended : pp_now_ns();

  lua_createtable(L, 0, 4);
  set_seconds(L, "queued", (j->started ? j->started : end) - j->submitted);
  set_seconds(L, "run", j->run);
  set_seconds(L, "cpu", j->cpu);
  set_seconds(L, "total", end - j->submitted);
}

/* A copy of the job as it would be if it ended now. */
static void at_present(pp_job *now, pp_job *j) {
  int64_t begun = -1, t;
  uint32_t worker = 0;

  if (j->state == PP_JOB_SENT) {
    begun = j->place->ops->begun(j->place, j);
    if (begun >= 0 && j->state == PP_JOB_SENT && j->place->ops->worker != NULL)
      worker = j->place->ops->worker(j->place, j);
  }
  *now = *j;
  if (now->state != PP_JOB_SENT || begun < 0)
    return;
  t = pp_now_ns();
  now->attempts++;
  if (worker > 0)
    now->worker = worker;
  if (begun > 0) {
    now->started = begun > j->submitted ? begun : j->submitted;
    now->run = t - now->started - pp_kin_waited(j, t);
  }
}

static const char *status_of(const pp_job *j) {
  switch (j->state) {
  case PP_JOB_DONE:
    return "done";
  case PP_JOB_FAILED:
    return "failed";
  case PP_JOB_QUEUED:
    return "queued";
  default:
    return pp_job_begun(j) ? "running" : "queued";
  }
}

static void push_size(lua_State *L, uint64_t n) {
  lua_pushinteger(L, (lua_Integer)n);
}

/* What it wrote, where that is collected; else nil. */
static void push_output(lua_State *L, const pp_job *j, int which) {
  const pp_buf *b = pp_job_collected(j);

  if (b != NULL)
    lua_pushlstring(L, (const char *)b[which].data, b[which].len);
  else if (pp_job_over(j) && j->server != NULL &&
           j->server->output == PP_OUTPUT_JOB)
    lua_pushliteral(L, "");
  else
    lua_pushnil(L);
}

/***
Fields of a job. They cannot be set; reading looks at what has arrived.
@table Job.fields
@tfield boolean finished whether it has ended
@tfield string status "queued", "running" (a worker has begun it), "done" or
  "failed"
@tfield integer id counts from 0 for each server; a whole map or imap takes one
@tfield string group "default" unless submit said otherwise
@tfield ?string name what submit said
@tfield ?string node where it was begun last: "local"; nil until it was
@tfield ?integer worker which worker of that node, from 1; 0: the script's own
  process (ncpus = 0)
@tfield integer attempts how often it was begun
@tfield table time seconds, in `queued`, `run`, `cpu` and `total`: until it was
  begun, in its function less what it waited there for jobs it had submitted, of
  CPU time, and from submit to its end; of a job that has not ended, up to now,
  but for `cpu`, which is 0 until then
@tfield table bytes `sent` to workers for it and `received` from them
@tfield ?integer maxrss bytes: the most memory its worker process had taken by
  its end; with `restart = 1` its own
@tfield ?string output what it wrote to standard output, where the server was
  made with `output = "job"`
@tfield ?string errors the same of standard error
*/
static int job_field(lua_State *L) {
  pp_ujob *u = check_job(L, 1);
  const char *k;
  pp_engine *e = pp_check_engine(L);
  pp_job now;
  bool placed;

  lua_settop(L, 2);
  lua_pushvalue(L, 2);
  if (lua_rawget(L, lua_upvalueindex(1)) != LUA_TNIL)
    return 1;
  k = lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : "";
  pp_engine_enter(e);
  if (!pp_job_over(u->j))
    pp_engine_look(e, pp_now_ns());
  if (strcmp(k, "status") == 0) {
    k = status_of(u->j);
    pp_engine_leave(e);
    lua_pushstring(L, k);
    return 1;
  }
  if (strcmp(k, "node") == 0 || strcmp(k, "worker") == 0 ||
      strcmp(k, "attempts") == 0 || strcmp(k, "time") == 0)
    at_present(&now, u->j);
  else
    now = *u->j;
  placed = now.worker > 0 || now.flags & PP_JOB_HERE;
  pp_engine_leave(e);
  if (strcmp(k, "finished") == 0)
    lua_pushboolean(L, pp_job_over(&now));
  else if (strcmp(k, "id") == 0)
    push_size(L, now.id);
  else if (strcmp(k, "group") == 0 && now.group != NULL && now.server != NULL)
    lua_pushlstring(L, now.group->name, now.group->len);
  else if (strcmp(k, "name") == 0 && now.more != NULL && now.more->name != NULL)
    lua_pushstring(L, now.more->name);
  else if (strcmp(k, "node") == 0 && placed)
    lua_pushstring(L, pp_engine_name(e, now.node));
  else if (strcmp(k, "worker") == 0 && placed)
    lua_pushinteger(L, now.worker);
  else if (strcmp(k, "attempts") == 0)
    lua_pushinteger(L, now.attempts);
  else if (strcmp(k, "time") == 0)
    push_time(L, &now);
  else if (strcmp(k, "bytes") == 0) {
    lua_createtable(L, 0, 2);
    push_size(L, now.sent);
    lua_setfield(L, -2, "sent");
    push_size(L, now.received);
    lua_setfield(L, -2, "received");
  } else if (strcmp(k, "output") == 0)
    push_output(L, &now, 0);
  else if (strcmp(k, "errors") == 0)
    push_output(L, &now, 1);
  else if (strcmp(k, "maxrss") == 0 && now.maxrss > 0)
    push_size(L, pp_job_maxrss(&now));
  else
    lua_pushnil(L);
  return 1;
}

static int job_tostring(lua_State *L) {
  pp_ujob *u = check_job(L, 1);
  pp_engine *e = pp_check_engine(L);
  const char *status;

  pp_engine_enter(e);
  status = status_of(u->j);
  pp_engine_leave(e);
  lua_pushfstring(L, "job %I (%s)", (lua_Integer)u->j->id, status);
  return 1;
}

/* Upvalue: the metatable. It is called for each handle there is. */
static int job_gc(lua_State *L) {
  pp_ujob *u = lua_touserdata(L, 1);
  pp_engine *e = pp_engine_here();

  if (PP_UNLIKELY(u == NULL || !lua_getmetatable(L, 1) ||
                  !lua_rawequal(L, -1, lua_upvalueindex(1))))
    u = luaL_checkudata(L, 1, PP_JOB_META);

  if (u->j != NULL && e != NULL) {
    pp_engine_enter(e);
    e->streaming = true; /* nothing that anybody could see */
    pp_job_unref(u->j, &e->blobs);
    pp_engine_leave(e);
  }
  u->j = NULL;
  return 0;
}

static int job_newindex(lua_State *L) {
  return luaL_error(L, "a job's fields cannot be set (%s)",
                    luaL_tolstring(L, 2, NULL));
}

int pp_job_held(lua_State *L, int idx, int which) {
  int t = lua_getiuservalue(L, idx, 1);

  if (t == LUA_TTABLE) {
    t = lua_rawgeti(L, -1, which);
    lua_remove(L, -2);
  } else if (which != PP_HOLD_SERVER) {
    lua_pop(L, 1);
    lua_pushnil(L);
    t = LUA_TNIL;
  }
  return t;
}

void pp_job_hold(lua_State *L, int idx, int which) {
  idx = lua_absindex(L, idx);
  if (lua_getiuservalue(L, idx, 1) != LUA_TTABLE) {
    if (lua_isnil(L, -2)) { /* as it is */
      lua_pop(L, 2);
      return;
    }
    lua_createtable(L, PP_HOLD_KEPT, 0);
    lua_insert(L, -2);
    lua_rawseti(L, -2, PP_HOLD_SERVER);
    lua_pushvalue(L, -1);
    lua_setiuservalue(L, idx, 1);
  }
  lua_insert(L, -2);
  lua_rawseti(L, -2, which);
  lua_pop(L, 1);
}

pp_ujob *pp_new_handle(lua_State *L, int server) {
  pp_ujob *u;

  server = lua_absindex(L, server);
  u = lua_newuserdatauv(L, sizeof *u, 1);
  u->j = NULL;
  lua_rawgeti(L, LUA_REGISTRYINDEX, JOB_KEY);
  lua_setmetatable(L, -2);
  lua_pushvalue(L, server);
  lua_setiuservalue(L, -2, 1);
  return u;
}

void pp_push_job(lua_State *L, pp_job *j, int server, int kept) {
  if (kept != 0)
    kept = lua_absindex(L, kept);
  pp_new_handle(L, server)->j = j;
  if (kept != 0 && !lua_isnil(L, kept)) {
    lua_pushvalue(L, kept);
    pp_job_hold(L, -2, PP_HOLD_KEPT);
  }
}

void pp_keep_handle(lua_State *L, int server) {
  pp_ujob *u = lua_touserdata(L, -1);

  lua_getiuservalue(L, server, PP_UV_HANDLES);
  lua_pushvalue(L, -2);
  lua_rawseti(L, -2, (lua_Integer)u->j->id + 1);
  lua_pop(L, 1);
}

void pp_push_handle(lua_State *L, pp_job *j, int server) {
  pp_engine *e = pp_check_engine(L);

  server = lua_absindex(L, server);
  lua_getiuservalue(L, server, PP_UV_HANDLES);
  if (lua_rawgeti(L, -1, (lua_Integer)j->id + 1) == LUA_TUSERDATA) {
    pp_engine_enter(e);
    pp_job_unref(j, &e->blobs);
    pp_engine_leave(e);
  } else {
    lua_pop(L, 1);
    pp_push_job(L, j, server, 0);
    pp_keep_handle(L, server);
  }
  lua_remove(L, -2);
}

static const luaL_Reg meta[] = {
    {"__call", job_call},
    {"__tostring", job_tostring},
    {"__newindex", job_newindex},
    {NULL, NULL},
};

static const luaL_Reg methods[] = {
    {"wait", job_wait},
    {"pcall", job_pcall},
    {"cancel", job_cancel},
    {NULL, NULL},
};

void pp_open_job(lua_State *L) {
  luaL_newmetatable(L, PP_JOB_META);
  lua_pushvalue(L, -1);
  lua_rawseti(L, LUA_REGISTRYINDEX, JOB_KEY);
  luaL_setfuncs(L, meta, 0);
  lua_pushvalue(L, -1);
  lua_pushcclosure(L, job_gc, 1);
  lua_setfield(L, -2, "__gc");
  luaL_newlib(L, methods);
  lua_pushcclosure(L, job_field, 1);
  lua_setfield(L, -2, "__index");
  lua_pushliteral(L, "pp.Job");
  lua_setfield(L, -2, "__metatable");
  lua_pop(L, 1);
}
