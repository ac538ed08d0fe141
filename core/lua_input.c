/* SPDX-License-Identifier: MIT */
/* Input for the shell: lines that come while jobs go on. */
#include <errno.h>
#include <lauxlib.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "hash.h"
#include "interrupt.h"
#include "lua_pp.h"

#define READ_MAX ((lua_Integer)1 << 20)

/* What watches a descriptor, kept to the end. Registry: pp.watched[fd]. */
typedef struct watch {
  uv_poll_t poll; /* first */
  bool ready;
} watch;

static void on_ready(uv_poll_t *h, int status, int events) {
  watch *w = h->data;

  (void)status, (void)events;
  w->ready = true;
  uv_poll_stop(h);
}

/* Begin to watch fd; NULL where that can be read at any time. */
static watch *watch_fd(lua_State *L, pp_engine *e, int fd) {
  watch *w;

  luaL_getsubtable(L, LUA_REGISTRYINDEX, "pp.watched");
  lua_rawgeti(L, -1, fd);
  w = lua_touserdata(L, -1);
  lua_pop(L, 1);
  pp_engine_enter(e);
  if (w == NULL && (w = calloc(1, sizeof *w)) != NULL) {
    if (uv_poll_init(&e->loop, &w->poll, fd) != 0) {
      free(w); /* a plain file */
      w = NULL;
    } else {
      w->poll.data = w;
    }
  }
  if (w != NULL) {
    w->ready = false;
    uv_poll_start(&w->poll, UV_READABLE, on_ready);
  }
  pp_engine_leave(e);
  if (w != NULL) {
    lua_pushlightuserdata(L, w);
    lua_rawseti(L, -2, fd);
  }
  lua_pop(L, 1);
  return w;
}

typedef struct awaited {
  const pp_engine *e;
  watch *w;
  uint64_t seen;
} awaited;

static bool some(void *ud) {
  const awaited *a = ud;

  return (a->w != NULL && a->w->ready) || a->e->ends != a->seen;
}

/*
 * core.await(fd, seen, timeout): wait until fd can be read, or more jobs than
 * `seen` have ended, of all servers, or the time is up. -> how many it is now,
 * and whether fd can be read. A waiting call. fd nil: only the jobs.
 */
static int await(lua_State *L) {
  pp_engine *e = pp_check_engine(L);
  struct pollfd p = {(int)luaL_optinteger(L, 1, -1), POLLIN, 0};
  awaited a = {e, NULL, (uint64_t)luaL_optinteger(L, 2, 0)};
  int64_t deadline = pp_opt_deadline(L, 3);
  bool ready = p.fd >= 0 && poll(&p, 1, 0) > 0;

  if (ready) {
    pp_engine_enter(e);
    pp_engine_look(e, pp_now_ns());
    pp_engine_leave(e);
  } else {
    if (p.fd >= 0 && e->loop_open)
      a.w = watch_fd(L, e, p.fd);
    pp_wait_call(L, some, &a, deadline);
    ready = a.w != NULL && a.w->ready;
    if (a.w != NULL && !ready) {
      pp_engine_enter(e);
      uv_poll_stop(&a.w->poll);
      pp_engine_leave(e);
    }
  }
  pp_engine_enter(e);
  a.seen = e->ends;
  pp_engine_leave(e);
  lua_pushinteger(L, (lua_Integer)a.seen);
  lua_pushboolean(L, ready);
  return 2;
}

/* core.read(fd, n): up to n bytes, once -> a string, empty at the end, or nil
 * and why not. */
static int read_some(lua_State *L) {
  int fd = (int)luaL_checkinteger(L, 1);
  lua_Integer n = luaL_checkinteger(L, 2);
  luaL_Buffer b;
  ssize_t got;
  char *p;

  p = luaL_buffinitsize(L, &b, (size_t)(n < READ_MAX ? n : READ_MAX));
  do
    got = read(fd, p, (size_t)(n < READ_MAX ? n : READ_MAX));
  while (got < 0 && errno == EINTR && pp_interrupt_pending() == 0);
  if (got < 0) {
    if (errno == EINTR)
      pp_interrupt_check(L);
    lua_pushnil(L);
    lua_pushstring(L, strerror(errno));
    return 2;
  }
  luaL_pushresultsize(&b, (size_t)got);
  return 1;
}

/* core.kind(fd): "file", "pipe" (socket), "terminal", "none" (closed, or any
 * other device). */
static int kind(lua_State *L) {
  int fd = (int)luaL_checkinteger(L, 1);
  struct stat st;

  if (fstat(fd, &st) < 0)
    lua_pushliteral(L, "none");
  else if (S_ISREG(st.st_mode))
    lua_pushliteral(L, "file");
  else if (S_ISFIFO(st.st_mode) || S_ISSOCK(st.st_mode))
    lua_pushliteral(L, "pipe");
  else
    lua_pushstring(L, isatty(fd) ? "terminal" : "none");
  return 1;
}

/* core.wall(): seconds since the epoch. */
static int wall(lua_State *L) {
  struct timespec t;

  clock_gettime(CLOCK_REALTIME, &t);
  lua_pushnumber(L, (lua_Number)t.tv_sec + (lua_Number)t.tv_nsec / 1e9);
  return 1;
}

/* core.hash(s): a number for a string. */
static int hash(lua_State *L) {
  size_t len;
  const char *s = luaL_checklstring(L, 1, &len);

  lua_pushinteger(L, (lua_Integer)pp_hash_of(s, len, 0).lo);
  return 1;
}

void pp_open_input(lua_State *L) {
  static const luaL_Reg funcs[] = {
      {"await", await}, {"read", read_some}, {"kind", kind},
      {"wall", wall},   {"hash", hash},      {NULL, NULL},
  };

  luaL_setfuncs(L, funcs, 0);
}
