/* SPDX-License-Identifier: MIT */
/***
Servers: waiting, asking, ending.
@module pp.server
*/
#include <errno.h>
#include <lauxlib.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "blocks.h"
#include "interrupt.h"
#include "link.h"
#include "lua_pp.h"
#include "nest.h"
#include "pin.h"
#include "proc.h"
#include "serial.h"

pp_engine *pp_check_engine(lua_State *L) {
  pp_engine *e = pp_engine_here();

  if (e == NULL)
    luaL_error(L, "servers and jobs belong to the process that made them");
  else
    pp_unpin_due(e, L);
  return e;
}

const char pp_server_tag = 0;

/* luaL_checkudata for a server, without a look at strings. */
static pp_userver *check_handle(lua_State *L, int idx) {
  pp_userver *u = lua_touserdata(L, idx);

  if (PP_LIKELY(u != NULL && lua_rawlen(L, idx) == sizeof *u &&
                u->tag == &pp_server_tag))
    return u;
  return luaL_checkudata(L, idx, PP_SERVER_META);
}

/* The handle at idx; for the running server, that of the job at work takes its
 * place there. */
static pp_userver *to_server(lua_State *L, int idx) {
  pp_userver *u = check_handle(L, idx);

  if (PP_UNLIKELY(u->running)) {
    idx = lua_absindex(L, idx);
    luaL_checkstack(L, 10, NULL);
    pp_nest_push_server(L);
    u = lua_touserdata(L, -1);
    lua_replace(L, idx);
  }
  return u;
}

pp_server *pp_check_server(lua_State *L, int idx) {
  pp_userver *u = to_server(L, idx);

  pp_check_engine(L);
  if (u->s == NULL || u->s->closed)
    luaL_error(L, "attempt to use a closed server");
  return u->s;
}

/* --- making one ----------------------------------------------------------- */

static lua_Integer option(lua_State *L, const char *name, lua_Integer d) {
  lua_getfield(L, 1, name);
  d = luaL_optinteger(L, -1, d);
  lua_pop(L, 1);
  return d;
}

pp_userver *pp_push_server(lua_State *L) {
  pp_userver *u = lua_newuserdatauv(L, sizeof *u, 2);

  u->tag = &pp_server_tag;
  u->s = NULL;
  u->running = false;
  luaL_setmetatable(L, PP_SERVER_META);
  lua_newtable(L);
  lua_setiuservalue(L, -2, PP_UV_HELD);
  lua_newtable(L);
  luaL_getsubtable(L, LUA_REGISTRYINDEX, PP_HANDLES);
  lua_getmetatable(L, -1); /* weak values */
  lua_setmetatable(L, -3);
  lua_pop(L, 1);
  lua_setiuservalue(L, -2, PP_UV_HANDLES);
  return u;
}

void pp_note_server(lua_State *L, int idx) {
  const pp_userver *u = lua_touserdata(L, idx);

  idx = lua_absindex(L, idx);
  luaL_getsubtable(L, LUA_REGISTRYINDEX, PP_HANDLES);
  lua_pushvalue(L, idx);
  lua_rawsetp(L, -2, u->s);
  lua_pop(L, 1);
}

typedef struct closing {
  const pp_engine *e;
  size_t was;
} closing;

static bool fewer_closing(void *ud) {
  const closing *c = ud;

  return c->e->closing < c->was;
}

/* core.server{ncpus =, retries =, restart =, output =, timeout =, memory =},
 * all checked -> server, or nil, message */
static int server_new(lua_State *L) {
  static const char *const modes[] = {"line", "prefix", "job",
                                      "none", "host",   NULL};
  pp_engine *e = pp_engine_here();
  pp_server_options o = {0};
  pp_userver *u;
  pp_server *s = NULL;
  int why;

  if (e == NULL || e->ended || e->nest != NULL || e->serial != NULL) {
    lua_pushnil(L);
    lua_pushstring(L, e == NULL   ? "servers belong to the process of the "
                                    "script and to jobs"
                      : !e->ended ? "only a job has a server here"
                                  : "ppsh is ending");
    return 2;
  }
  o.ncpus = (uint32_t)option(L, "ncpus", 1);
  o.retries = (uint32_t)option(L, "retries", 2);
  o.restart = (uint32_t)option(L, "restart", 0);
  o.memory = (uint64_t)option(L, "memory", 0);
  o.seeded = lua_getfield(L, 1, "seed") != LUA_TNIL;
  o.seed = (uint64_t)luaL_optinteger(L, -1, 0);
  lua_pop(L, 1);
  lua_getfield(L, 1, "timeout");
  o.timeout = (int64_t)(luaL_optnumber(L, -1, 0) * 1e9);
  lua_getfield(L, 1, "output");
  o.output = (enum pp_output)luaL_checkoption(L, -1, "line", modes);
  if (strcmp(lua_isnil(L, -1) ? "" : lua_tostring(L, -1), "host") == 0) {
    o.output = PP_OUTPUT_PREFIX;
    o.by_host = true;
  }
  lua_pop(L, 2);
  u = pp_push_server(L);
  e->custom = pp_send_userdata;
  pp_engine_enter(e);
  errno = 0;
  if (e->blocks != NULL)
    atomic_store(&e->blocks->most, PP_BLOCKS_KEPT);
  if (pp_engine_open_loop(e) == 0 && pp_engine_standby(e) == 0) {
    pp_engine_look(e, pp_now_ns());
    s = pp_server_new(e, &o);
    if (s == NULL && errno == EMFILE) {
      /* Workers that are ending still hold descriptors: wait for some. */
      const size_t was = e->closing;

      pp_engine_wait(e, fewer_closing, &(closing){e, was},
                     pp_now_ns() + 1000000000);
      errno = 0;
      s = pp_server_new(e, &o);
    }
  }
  why = errno;
  pp_engine_leave(e);
  if (s == NULL) {
    lua_pushnil(L);
    lua_pushfstring(L, "cannot start workers: %s",
                    why ? pp_shm_error(why) : "not enough memory");
    return 2;
  }
  u->s = s;
  pp_note_server(L, -1);
  return 1;
}

/* A server with unfinished jobs stays, whoever forgets it: an anchored one is
 * in a table of the registry. */
#define ANCHORED "pp.anchored"

void pp_anchor(lua_State *L, pp_server *s, int idx) {
  pp_engine *e = s->engine;

  idx = lua_absindex(L, idx);
  pp_engine_enter(e);
  s->anchored = true;
  if (s->pending == 0 && !s->idle) { /* its job has ended in between */
    s->idle = true;
    s->next_idle = e->idle;
    e->idle = s;
  }
  pp_engine_leave(e);
  luaL_getsubtable(L, LUA_REGISTRYINDEX, ANCHORED);
  lua_pushvalue(L, idx);
  lua_rawsetp(L, -2, s);
  lua_pop(L, 1);
}

/* Take one out of the engine's list that has neither unfinished jobs nor
 * callbacks due. */
static pp_server *next_idle(pp_engine *e) {
  pp_server **p = &e->idle, *s;

  while ((s = *p) != NULL) {
    if (s->callbacks.n > 0) {
      p = &s->next_idle;
      continue;
    }
    *p = s->next_idle;
    s->idle = false;
    if (s->anchored && s->pending == 0) {
      s->anchored = false;
      return s;
    }
  }
  return NULL;
}

void pp_unanchor(lua_State *L, pp_engine *e) {
  for (;;) {
    pp_server *s;

    pp_engine_enter(e);
    s = next_idle(e);
    pp_engine_leave(e);
    if (s == NULL)
      return;
    luaL_getsubtable(L, LUA_REGISTRYINDEX, ANCHORED);
    lua_pushnil(L);
    lua_rawsetp(L, -2, s);
    lua_pop(L, 1);
  }
}

static int server_gc(lua_State *L) {
  pp_userver *u = luaL_checkudata(L, 1, PP_SERVER_META);
  pp_engine *e = pp_engine_here();

  if (u->s != NULL && e != NULL) {
    pp_serial_close(u->s);
    pp_engine_enter(e);
    pp_server_free(u->s);
    pp_engine_leave(e);
  }
  u->s = NULL;
  return 0;
}

/***
End the server's workers.
Unfinished jobs fail with kind "destroyed"; later submits raise an error. The
same happens when a `<close>` variable goes out of scope, at exit, and when the
server is collected, which no unfinished job lets happen. To be called twice is
no mistake.
@function Server:destroy
*/
static int server_destroy(lua_State *L) {
  pp_userver *u = to_server(L, 1);
  pp_engine *e = pp_engine_here();

  if (u->s != NULL && e != NULL && !e->ended) {
    pp_serial_close(u->s);
    pp_engine_enter(e);
    pp_server_destroy(u->s);
    pp_engine_leave(e);
    pp_unanchor(L, e);
  }
  return 0;
}

static int server_tostring(lua_State *L) {
  const pp_userver *u = luaL_checkudata(L, 1, PP_SERVER_META);

  if (u->running)
    lua_pushliteral(L, "pp.Server (running)");
  else if (u->s == NULL || u->s->closed)
    lua_pushliteral(L, "pp.Server (closed)");
  else
    lua_pushfstring(L, "pp.Server (%d workers)", (int)pp_server_ncpus(u->s));
  return 1;
}

bool pp_push_server_of(lua_State *L, const pp_server *s) {
  luaL_getsubtable(L, LUA_REGISTRYINDEX, PP_HANDLES);
  lua_rawgetp(L, -1, s);
  lua_remove(L, -2);
  return lua_isuserdata(L, -1);
}

/* --- the other methods ---------------------------------------------------- */

typedef struct idle {
  pp_server *s;
  const char *group;
  size_t len;
} idle;

static bool all_ended(void *ud) {
  const idle *w = ud;
  const pp_group *g;

  if (w->group == NULL)
    return w->s->pending == 0;
  g = pp_groups_find(&w->s->groups, w->group, w->len);
  return g == NULL || g->pending == 0;
}

/***
Wait until all jobs have ended, or all jobs of a group.
A waiting call: callbacks run. A number as only argument is a timeout.
@function Server:wait
@string[opt] group the group; without it, all jobs
@number[opt] timeout seconds; none waits for ever, 0 only looks
@treturn boolean true if they have ended, false if the time ran out first
@raise what a callback raises
*/
static int server_wait(lua_State *L) {
  idle w = {pp_check_server(L, 1), NULL, 0};
  int at = 2;

  if (lua_type(L, 2) == LUA_TSTRING)
    w.group = lua_tolstring(L, at++, &w.len);
  else if (lua_isnil(L, 2) && lua_gettop(L) > 2)
    at++;
  lua_pushboolean(L, pp_wait_call(L, all_ended, &w, pp_opt_deadline(L, at)));
  return 1;
}

/***
Cancel the jobs that have not started.
@function Server:cancel_all
@treturn integer how many that were
*/
static int server_cancel_all(lua_State *L) {
  pp_server *s = pp_check_server(L, 1);
  pp_engine *e = pp_check_engine(L);
  size_t n;

  pp_engine_enter(e);
  n = pp_server_cancel_all(s);
  pp_engine_leave(e);
  lua_pushinteger(L, (lua_Integer)n);
  return 1;
}

/***
Count the unfinished jobs: queued and running. Looks at what has arrived.
@function Server:pending
@treturn integer
*/
static int server_pending(lua_State *L) {
  pp_server *s = pp_check_server(L, 1);
  pp_engine *e = pp_check_engine(L);
  size_t n;

  pp_engine_enter(e);
  pp_engine_look(e, pp_now_ns());
  n = s->pending;
  pp_engine_leave(e);
  lua_pushinteger(L, (lua_Integer)n);
  return 1;
}

/***
Tell the number of local workers.
@function Server:get_ncpus
@treturn integer
*/
static int server_get_ncpus(lua_State *L) {
  lua_pushinteger(L, pp_check_server(L, 1)->local->ncpus);
  return 1;
}

/* core.closed(server) */
static int server_closed(lua_State *L) {
  pp_userver *u = to_server(L, 1);

  lua_pushboolean(L, u->s == NULL || u->s->closed);
  return 1;
}

/* core.resize(server, n) */
static int server_resize(lua_State *L) {
  pp_server *s = pp_check_server(L, 1);
  pp_engine *e = pp_check_engine(L);
  lua_Integer n = luaL_checkinteger(L, 2);

  if (e->nest != NULL)
    return luaL_error(L, "how many workers there are is not for a job to "
                         "change");
  pp_engine_enter(e);
  pp_server_resize(s, (uint32_t)n);
  pp_engine_leave(e);
  return 0;
}

/***
Tell which nodes there are, and how many workers each has.
@function Server:get_active_nodes
@treturn table name -> workers; "local" is always there
*/
static int server_active(lua_State *L) {
  pp_server *s = pp_check_server(L, 1);

  lua_createtable(L, 0, 1);
  for (const pp_node *n = s->local; n != NULL; n = n->next) {
    if (n != s->local && n->open == 0)
      continue;
    lua_pushinteger(L, n->ncpus > n->barred ? n->ncpus - n->barred : 0);
    lua_setfield(L, -2, pp_node_name(n));
  }
  return 1;
}

static void set_int(lua_State *L, const char *k, uint64_t v) {
  lua_pushinteger(L, (lua_Integer)v);
  lua_setfield(L, -2, k);
}

/***
Tell what has been done so far. Works on a closed server too.
@function Server:get_stats
@treturn table name of a node -> `Server.stats`
*/
/***
Statistics of a node, as get_stats returns them.
@table Server.stats
@tfield integer ncpus workers
@tfield integer njobs jobs that ended there; an item of a map counts as one
@tfield number time seconds they ran, in all
@tfield integer failed jobs that failed, also those that could not be run
@tfield integer retried attempts after the first
@tfield integer lost workers that died
@tfield number cpu seconds of CPU time they took
@tfield integer maxrss peak memory of a worker process, bytes
@tfield integer sent bytes that went to the workers
@tfield integer received bytes that came from them
@tfield string state "connected", "failed" when it cannot be used, "closed" with
  the server; of a host also "connecting", "lost" (it was connected, and is
tried again) and "removed"
@tfield ?string reason why a node, or some worker of it, cannot be used; nil if
it can
*/
typedef struct told {
  pp_node node; /* a copy of it */
  const char *state;
  char why[600];
} told;

static void tell(told *t, const pp_server *s, const pp_node *n) {
  bool here = n == s->local && pp_server_here(s);
  bool barred = here ? s->calls.here.failed != NULL
                     : n->barred > 0 && n->barred >= n->ncpus;

  t->node = *n;
  t->state = s->closed ? "closed" : pp_node_state_name(n);
  t->why[0] = '\0';
  if (n->reason != NULL && *n->reason != '\0')
    snprintf(t->why, sizeof t->why, "%s", n->reason);
  else if (barred || n->barred > 0)
    pp_everywhere_why_not(n, barred, t->why, sizeof t->why);
  if (barred && !s->closed && n->state == PP_NODE_UP)
    t->state = "failed";
}

static void push_stats(lua_State *L, const told *what) {
  const pp_node *n = &what->node;
  const pp_stats *t = &n->stats;

  lua_createtable(L, 0, 13);
  set_int(L, "ncpus", n->ncpus);
  set_int(L, "njobs", t->njobs);
  lua_pushnumber(L, (lua_Number)t->time / 1e9);
  lua_setfield(L, -2, "time");
  set_int(L, "failed", t->failed);
  set_int(L, "retried", t->retried);
  set_int(L, "lost", t->lost);
  lua_pushnumber(L, (lua_Number)t->cpu / 1e9);
  lua_setfield(L, -2, "cpu");
  set_int(L, "maxrss", t->maxrss);
  set_int(L, "sent", t->sent);
  set_int(L, "received", t->received);
  lua_pushstring(L, what->state);
  lua_setfield(L, -2, "state");
  if (what->why[0] != '\0') {
    lua_pushstring(L, what->why);
    lua_setfield(L, -2, "reason");
  }
}

static int server_stats(lua_State *L) {
  pp_userver *u = to_server(L, 1);
  pp_engine *e = pp_check_engine(L);
  told *copies;
  uint32_t n = 0, k = 0;

  if (u->s == NULL)
    return luaL_error(L, "attempt to use a closed server");
  pp_engine_enter(e);
  pp_engine_look(e, pp_now_ns());
  for (const pp_node *at = u->s->local; at != NULL; at = at->next)
    n++;
  pp_engine_leave(e);
  copies = lua_newuserdatauv(L, n * sizeof *copies, 0);
  pp_engine_enter(e);
  for (const pp_node *at = u->s->local; at != NULL && k < n; at = at->next)
    tell(&copies[k++], u->s, at);
  pp_engine_leave(e);
  lua_createtable(L, 0, (int)k);
  for (uint32_t i = 0; i < k; i++) {
    push_stats(L, &copies[i]);
    lua_setfield(L, -2, pp_engine_name(e, copies[i].node.name));
  }
  return 1;
}

/* core.table(server) -> the statistics table as a string */
static int server_table(lua_State *L) {
  pp_userver *u = to_server(L, 1);
  pp_engine *e = pp_check_engine(L);
  pp_buf b = {0};
  luaL_Buffer lb;
  int r;

  if (u->s == NULL)
    return luaL_error(L, "attempt to use a closed server");
  luaL_buffinit(L, &lb);
  pp_engine_enter(e);
  pp_engine_look(e, pp_now_ns());
  r = pp_server_table(u->s, &b);
  pp_engine_leave(e);
  if (r != 0)
    return luaL_error(L, "not enough memory");
  lua_pushlstring(L, (const char *)b.data, b.len);
  pp_buf_clear(&b);
  return 1;
}

static bool never(void *ud) {
  (void)ud;
  return false;
}

/* pp.sleep(seconds): a waiting call. */
static int pp_sleep(lua_State *L) {
  int64_t deadline;
  pp_engine *e = pp_engine_here();

  luaL_checknumber(L, 1);
  deadline = pp_opt_deadline(L, 1);
  if (e != NULL && e->nest != NULL) {
    pp_wait_call(L, never, pp_nest_idle, deadline); /* it keeps its place */
    return 0;
  }
  if (e != NULL && e->serial != NULL) {
    pp_wait_call(L, never, NULL, deadline);
    return 0;
  }
  if (e == NULL || !e->loop_open) {
    while (deadline < 0 || pp_now_ns() < deadline) {
      int64_t left = deadline < 0 ? INT64_MAX : deadline - pp_now_ns();

      poll(NULL, 0,
           left > 60000000000 ? 60000 : (int)((left + 999999) / 1000000));
      if (e != NULL)
        pp_interrupt_check(L);
    }
    return 0;
  }
  pp_wait_call(L, never, NULL, deadline);
  return 0;
}

static const luaL_Reg meta[] = {
    {"__gc", server_gc},
    {"__close", server_destroy},
    {"__tostring", server_tostring},
    {NULL, NULL},
};

static const luaL_Reg methods[] = {
    {"submit", pp_server_submit},
    {"spawn", pp_server_spawn},
    {"everywhere", pp_server_everywhere},
    {"wait", server_wait},
    {"cancel_all", server_cancel_all},
    {"pending", server_pending},
    {"get_ncpus", server_get_ncpus},
    {"get_active_nodes", server_active},
    {"get_stats", server_stats},
    {"destroy", server_destroy},
    {NULL, NULL},
};

static const luaL_Reg funcs[] = {
    {"server", server_new},
    {"resize", server_resize},
    {"closed", server_closed},
    {"table", server_table},
    {"sleep", pp_sleep},
    {"nested", pp_nest_push_server},
    {NULL, NULL},
};

void pp_open_server(lua_State *L) {
  luaL_newmetatable(L, PP_SERVER_META);
  luaL_setfuncs(L, meta, 0);
  luaL_newlib(L, methods);
  lua_pushvalue(L, -1);
  lua_setfield(L, -4, "server_methods");
  lua_setfield(L, -2, "__index");
  lua_pop(L, 1);
  luaL_getsubtable(L, LUA_REGISTRYINDEX, PP_HANDLES);
  lua_createtable(L, 0, 1);
  lua_pushliteral(L, "v");
  lua_setfield(L, -2, "__mode");
  lua_setmetatable(L, -2);
  lua_pop(L, 1);
  pp_push_server(L)->running = true;
  lua_setfield(L, LUA_REGISTRYINDEX, PP_RUNNING_SERVER);
  luaL_setfuncs(L, funcs, 0);
}
