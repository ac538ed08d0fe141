/* SPDX-License-Identifier: MIT */
#include "top.h"

#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>

#include "kin.h"
#include "label.h"
#include "link.h"
#include "state.h"
#include "trace.h"

typedef struct top {
  lua_State *L;
  pp_labels labels;
} top;

static void set_int(lua_State *L, const char *k, uint64_t v) {
  lua_pushinteger(L, (lua_Integer)v);
  lua_setfield(L, -2, k);
}

static void set_seconds(lua_State *L, const char *k, int64_t ns) {
  lua_pushnumber(L, (lua_Number)ns / 1e9);
  lua_setfield(L, -2, k);
}

static void set_string(lua_State *L, const char *k, const char *v) {
  lua_pushstring(L, v);
  lua_setfield(L, -2, k);
}

/* --- what there is -------------------------------------------------------- */

static void push_job(lua_State *L, top *t, const pp_job *j, int64_t begun,
                     int64_t now) {
  const pp_label *label = pp_label_of(&t->labels, j);

  lua_createtable(L, 0, 6);
  set_int(L, "id", j->id);
  if (j->more != NULL && j->more->name != NULL)
    set_string(L, "name", j->more->name);
  set_string(L, "func", label != NULL ? label->name : "job");
  set_string(L, "place", label != NULL ? label->place : "");
  set_int(L, "items", j->items);
  set_seconds(L, "since", begun > 0 && begun < now ? now - begun : 0);
}

/* The innermost job its worker is at; NULL: none that is known. */
static pp_job *job_at(pp_link *l) {
  pp_job *at = NULL;

  for (pp_job *j = l->place.jobs.head; j != NULL && pp_job_begun(j);
       j = j->next)
    if ((j->flags & PP_JOB_GHOST) == 0)
      at = j;
  return at;
}

static void push_worker(lua_State *L, top *t, pp_link *l, int64_t now) {
  pp_job *j = job_at(l);
  const char *state = "idle";

  if (l->ghosts > 0)
    state = "stopping";
  else if (l->retiring)
    state = "leaving";
  else if (j != NULL)
    state =
        pp_job_kin(j) != NULL && pp_job_kin(j)->since > 0 ? "waits in" : "busy";
  else if (l->place.jobs.n > 0)
    state = "given a job";
  else if (l->far == NULL && l->pid == 0)
    state = "starting";
  lua_createtable(L, 0, 8);
  set_int(L, "number", l->number);
  set_int(L, "pid", (uint64_t)l->pid);
  set_int(L, "njobs", l->njobs);
  set_seconds(L, "cpu", l->cpu);
  set_int(L, "memory", l->maxrss);
  set_string(L, "state", state);
  if (j != NULL && j->fn != NULL) {
    push_job(L, t, j, l->place.ops->begun(&l->place, j), now);
    lua_setfield(L, -2, "job");
  }
}

static void push_node(lua_State *L, top *t, const pp_node *n, int64_t now) {
  const pp_engine *e = n->server->engine;
  int k = 0;

  lua_createtable(L, 0, 8);
  if (n->server->number == 0)
    lua_pushstring(L, pp_engine_name(e, n->name));
  else
    lua_pushfstring(L, "%s (%d)", pp_engine_name(e, n->name),
                    (int)n->server->number + 1);
  lua_setfield(L, -2, "name");
  set_int(L, "ncpus", n->ncpus);
  set_int(L, "njobs", n->stats.njobs);
  set_int(L, "failed", n->stats.failed);
  set_string(L, "state", pp_node_state_name(n));
  if (n->reason != NULL)
    set_string(L, "reason", n->reason);
  lua_pushboolean(L, n->name == PP_NAME_LOCAL);
  lua_setfield(L, -2, "here");
  lua_createtable(L, (int)n->alive, 0);
  for (uint32_t i = 0; i < n->cap; i++)
    if (n->workers[i] != NULL) {
      push_worker(L, t, n->workers[i], now);
      lua_rawseti(L, -2, ++k);
    }
  lua_setfield(L, -2, "workers");
}

/* Nodes in the order servers came; those without workers that never had any
 * are not shown. */
static void push_nodes(lua_State *L, top *t, const pp_server *s, int64_t now) {
  if (s == NULL)
    return;
  push_nodes(L, t, s->next, now);
  if (s->untraced)
    return;
  for (const pp_node *n = s->local; n != NULL; n = n->next) {
    if (n->ncpus == 0 && n->cap == 0 && n->stats.njobs == 0 &&
        n->name == PP_NAME_LOCAL && s->local->next != NULL)
      continue;
    push_node(L, t, n, now);
    lua_rawseti(L, -2, (lua_Integer)lua_rawlen(L, -2) + 1);
  }
}

static void push_all(lua_State *L, top *t, pp_engine *e, int64_t now) {
  const pp_meter *m = &e->meter;
  uint64_t queued, running;

  pp_trace_count(e, &queued, &running);
  lua_createtable(L, 0, 8);
  set_seconds(L, "now", now);
  set_seconds(L, "elapsed", m->began > 0 ? now - m->began : 0);
  set_int(L, "done", m->ended > m->failed ? m->ended - m->failed : 0);
  set_int(L, "failed", m->failed);
  if (m->endless == 0)
    set_int(L, "total", m->total + m->expected);
  set_int(L, "queued", queued);
  set_int(L, "running", running);
  lua_newtable(L);
  push_nodes(L, t, e->servers, now);
  lua_setfield(L, -2, "nodes");
}

/* --- the table ------------------------------------------------------------ */

typedef struct request {
  pp_engine *e;
  top *t;
  int64_t now;
  int width, height, n;
  pp_buf *out;
  uint16_t *widths;
} request;

static int lay_out(lua_State *L) {
  request *q = lua_touserdata(L, 1);
  const char *no_color = getenv("NO_COLOR");

  luaL_checkstack(L, 30, "top");
  lua_getglobal(L, "require");
  lua_pushliteral(L, "pp.shell.top");
  lua_call(L, 1, 1);
  lua_getfield(L, -1, "compose");
  push_all(L, q->t, q->e, q->now);
  lua_pushinteger(L, q->width);
  lua_pushinteger(L, q->height);
  lua_pushboolean(L, no_color == NULL || *no_color == '\0');
  lua_call(L, 4, 2);
  q->n = (int)lua_rawlen(L, -2);
  if (q->n > q->height)
    q->n = q->height;
  for (int i = 1; i <= q->n; i++) {
    size_t n;
    const char *p;

    lua_rawgeti(L, -2, i);
    lua_rawgeti(L, -2, i);
    q->widths[i - 1] = (uint16_t)lua_tointeger(L, -1);
    p = lua_tolstring(L, -2, &n);
    if (p == NULL || pp_buf_put(q->out, p, n) != 0 ||
        pp_buf_byte(q->out, '\n') != 0)
      return luaL_error(L, "no line");
    lua_pop(L, 2);
  }
  return 0;
}

int pp_top_lines(pp_engine *e, int64_t now, int width, int height, pp_buf *out,
                 uint16_t *widths) {
  request q = {e, e->top, now, width, height, 0, out, widths};
  int status;

  if (q.t == NULL) {
    q.t = calloc(1, sizeof *q.t);
    if (q.t == NULL)
      return PP_ENOMEM;
    q.t->L = pp_state_new(true);
    if (q.t->L == NULL) {
      free(q.t);
      return PP_ENOMEM;
    }
    e->top = q.t;
  }
  lua_settop(q.t->L, 0);
  lua_pushcfunction(q.t->L, lay_out);
  lua_pushlightuserdata(q.t->L, &q);
  status = lua_pcall(q.t->L, 1, 0, 0);
  if (status != LUA_OK) {
    pp_log(PP_LOG_DEBUG, "cannot draw the table: %s", lua_tostring(q.t->L, -1));
    return PP_EBAD;
  }
  return q.n;
}
