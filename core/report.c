/* SPDX-License-Identifier: MIT */
#include "report.h"

#include <errno.h>
#include <lauxlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "build_id.h"
#include "proc.h"
#include "state.h"
#include "tally.h"

/* --- the tally as tables -------------------------------------------------- */

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

/* Push what is told of the attempt. Times count from the first queued. */
static void push_job(lua_State *L, const pp_tally *y, const pp_tjob *k) {
  static const char *const outcomes[] = {"done", "failed", "again",
                                         "unfinished"};

  lua_createtable(L, 0, 14);
  set_int(L, "id", k->id);
  if (k->name != NULL)
    set_string(L, "name", k->name);
  set_string(L, "func", k->label != NULL ? k->label->name : "job");
  set_string(L, "place", k->label != NULL ? k->label->place : "");
  set_int(L, "node", k->at->node->index + 1);
  set_int(L, "worker", k->at->number);
  set_seconds(L, "begun", k->begun - y->first);
  set_seconds(L, "ended", k->ended - y->first);
  set_seconds(L, "queued", k->queued);
  set_seconds(L, "run", k->run);
  set_int(L, "items", k->items);
  set_int(L, "attempt", k->attempt);
  set_string(L, "outcome", outcomes[k->outcome]);
  if (k->outcome != PP_TRACE_DONE && k->outcome != PP_TRACE_UNFINISHED)
    set_string(L, "kind", pp_kind_name(k->kind));
}

static void push_jobs(lua_State *L, const pp_tally *y, const pp_tjob *v,
                      uint32_t n) {
  lua_createtable(L, (int)n, 0);
  for (uint32_t i = 0; i < n; i++) {
    push_job(L, y, &v[i]);
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
}

static void push_worker(lua_State *L, const pp_tally *y, const pp_tworker *w,
                        uint32_t nbins) {
  lua_createtable(L, 0, 6);
  set_int(L, "number", w->number);
  set_int(L, "njobs", w->njobs);
  set_seconds(L, "busy", w->busy);
  lua_createtable(L, (int)nbins, 0); /* shares */
  for (uint32_t i = 0; i < nbins && w->bins != NULL; i++) {
    lua_pushnumber(L, (lua_Number)w->bins->busy[i] / (lua_Number)y->width);
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
  lua_setfield(L, -2, "bins");
  lua_newtable(L);
  for (uint32_t i = 0; i < nbins && w->bins != NULL; i++)
    if (w->bins->trouble[i / 64] >> i % 64 & 1) {
      lua_pushboolean(L, 1);
      lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
  lua_setfield(L, -2, "trouble");
}

static void push_node(lua_State *L, const pp_tally *y, const pp_tnode *n,
                      uint32_t nbins) {
  pp_node state = {.state = n->state};
  const pp_stats *t = &n->stats;
  char name[300];

  lua_createtable(L, 0, 14);
  pp_trace_name(y->trace, n, name, sizeof name);
  set_string(L, "name", name);
  set_int(L, "ncpus", n->ncpus);
  set_int(L, "njobs", t->njobs);
  set_int(L, "failed", t->failed);
  set_int(L, "retried", t->retried);
  set_int(L, "lost", t->lost);
  set_seconds(L, "time", t->time);
  set_seconds(L, "cpu", t->cpu);
  set_int(L, "sent", t->sent);
  set_int(L, "received", t->received);
  set_int(L, "maxrss", t->maxrss);
  set_string(L, "state", pp_node_state_name(&state));
  if (n->reason != NULL)
    set_string(L, "reason", n->reason);
  lua_pushboolean(L, n->name == PP_NAME_LOCAL);
  lua_setfield(L, -2, "here");
  lua_newtable(L);
  for (uint32_t i = 0, k = 0; i < n->n; i++)
    if (n->v[i] != NULL) {
      push_worker(L, y, n->v[i], nbins);
      lua_rawseti(L, -2, (lua_Integer)++k);
    }
  lua_setfield(L, -2, "workers");
}

static void push_causes(lua_State *L, const pp_tally *y) {
  lua_createtable(L, (int)y->ncauses, 0);
  for (uint32_t i = 0; i < y->ncauses; i++) {
    const pp_cause *c = &y->causes[i];

    lua_createtable(L, 0, 4);
    set_string(L, "kind", c->kind >= 0 ? pp_kind_name(c->kind) : "various");
    set_string(L, "why", c->why);
    set_int(L, "failed", c->failed);
    set_int(L, "again", c->again);
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
}

static void push_command(lua_State *L, const pp_options *o) {
  lua_createtable(L, o->argc, 0);
  for (int i = 0; i < o->argc; i++) {
    lua_pushstring(L, o->argv[i]);
    lua_rawseti(L, -2, i + 1);
  }
}

static void push_tally(lua_State *L, const pp_tally *y) {
  static const char *const idles[] = {"script", "start", "driver", "way",
                                      "cost",   "tail",  "never"};
  const pp_trace *t = y->trace;
  int64_t now = pp_now_ns();
  uint32_t nbins = 0;
  char host[256] = "";

  if (y->last > 0) {
    int64_t k = (y->last - y->origin) / y->width + 1;

    nbins = k < PP_BINS ? (uint32_t)k : PP_BINS;
  }
  lua_createtable(L, 0, 32);
  push_command(L, t->engine->options);
  lua_setfield(L, -2, "command");
  gethostname(host, sizeof host - 1);
  set_string(L, "host", host);
  set_string(L, "version", PP_VERSION);
  set_int(L, "ended_at", (uint64_t)time(NULL));
  set_seconds(L, "elapsed", now - t->began);
  set_seconds(L, "wall", y->last > y->first ? y->last - y->first : 0);
  set_seconds(L, "lead", y->first > 0 ? y->first - y->origin : 0);
  set_seconds(L, "bin", y->width);
  set_int(L, "cpus", (uint64_t)pp_proc_cpus());
  set_int(L, "nbins", nbins);
  set_int(L, "attempts", y->attempts);
  set_int(L, "jobs", y->jobs);
  set_int(L, "failed", y->failed);
  set_int(L, "again", y->again);
  set_int(L, "unfinished", y->unfinished);
  set_int(L, "never", y->never);
  set_seconds(L, "run", y->run);
  set_seconds(L, "cpu", y->cpu);
  set_seconds(L, "sending", y->sending);
  set_seconds(L, "returning", y->returning);
  set_seconds(L, "far_way", y->far_way);
  lua_createtable(L, 0, PP_IDLES);
  for (int i = 0; i < PP_IDLES; i++)
    set_seconds(L, idles[i], y->idle[i]);
  lua_setfield(L, -2, "idle");
  lua_newtable(L);
  for (uint32_t i = 0, k = 0; i < PP_TALLY_SIZES; i++)
    if (y->sizes[i] > 0) {
      lua_createtable(L, 0, 3);
      set_int(L, "n", y->sizes[i]);
      lua_pushnumber(L, i > 0 ? pp_tally_size(i) / 1e9 : 0);
      lua_setfield(L, -2, "from");
      lua_pushnumber(L, pp_tally_size(i + 1) / 1e9);
      lua_setfield(L, -2, "to");
      lua_rawseti(L, -2, (lua_Integer)++k);
    }
  lua_setfield(L, -2, "sizes");
  lua_createtable(L, (int)nbins, 0);
  for (uint32_t i = 0; i < nbins; i++) {
    lua_pushinteger(L, y->waiting[i]);
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
  lua_setfield(L, -2, "waiting");
  if (y->all != NULL) {
    push_jobs(L, y, y->all, y->nall);
    lua_setfield(L, -2, "all");
  }
  push_jobs(L, y, y->slowest, y->nslowest);
  lua_setfield(L, -2, "slowest");
  if (y->end.at != NULL) {
    push_job(L, y, &y->end);
    lua_setfield(L, -2, "last");
  }
  push_causes(L, y);
  lua_setfield(L, -2, "causes");
  lua_createtable(L, (int)t->nnodes, 0);
  for (uint32_t i = 0; i < t->nnodes; i++) {
    push_node(L, y, t->nodes[i], nbins);
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
  lua_setfield(L, -2, "nodes");
  lua_pushlstring(L, (const char *)y->tables.data, y->tables.len);
  lua_setfield(L, -2, "tables");
}

/* tally -> the page */
static int make(lua_State *L) {
  const pp_tally *y = lua_touserdata(L, 1);

  luaL_checkstack(L, 30, "report");
  lua_getglobal(L, "require");
  lua_pushliteral(L, "pp.shell.report");
  lua_call(L, 1, 1);
  lua_getfield(L, -1, "page");
  push_tally(L, y);
  lua_call(L, 1, 1);
  return 1;
}

/* --- the file ------------------------------------------------------------- */

bool pp_report_same(int a, int b) {
  struct stat x, y;

  return fstat(a, &x) == 0 && fstat(b, &y) == 0 && S_ISREG(x.st_mode) &&
         x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

static int write_all(int fd, const char *p, size_t n) {
  struct stat st;

  if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) &&
      (lseek(fd, 0, SEEK_SET) < 0 || ftruncate(fd, 0) != 0))
    return errno;
  while (n > 0) {
    ssize_t k = write(fd, p, n);

    if (k < 0 && errno == EINTR)
      continue;
    if (k < 0)
      return errno;
    p += k;
    n -= (size_t)k;
  }
  return 0;
}

bool pp_report_write(pp_trace *t) {
  lua_State *L = pp_state_new(true);
  const char *why = "not enough memory", *page;
  size_t n;
  int error;
  bool ok = false;

  pp_tally_settle(t->tally);
  if (L != NULL) {
    lua_pushcfunction(L, make);
    lua_pushlightuserdata(L, t->tally);
    if (lua_pcall(L, 1, 1, 0) != LUA_OK) {
      why = lua_tostring(L, -1);
    } else {
      page = lua_tolstring(L, -1, &n);
      error = page != NULL ? write_all(t->tally->fd, page, n) : EIO;
      ok = error == 0;
      why = strerror(error);
    }
  }
  if (!ok)
    pp_log(PP_LOG_ERROR, "cannot write the report '%s': %s", t->tally->path,
           why);
  pp_state_close(L);
  return ok;
}
