/* SPDX-License-Identifier: MIT */
/* Input for the shell: lines that come while jobs go on. */
#include <errno.h>
#include <lauxlib.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "feed.h"
#include "hash.h"
#include "interrupt.h"
#include "lua_pp.h"

#define READ_MAX ((lua_Integer)1 << 20)

/* What watches a descriptor, kept to the end. Registry: pp.watched[fd]. What is
 * polled is an epoll instance: to poll the descriptor itself would make it
 * non-blocking, for all that share it. */
typedef struct watch {
  uv_poll_t poll; /* first */
  int epoll;
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
    struct epoll_event ev = {.events = EPOLLIN};

    w->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (w->epoll < 0 || epoll_ctl(w->epoll, EPOLL_CTL_ADD, fd, &ev) != 0 ||
        uv_poll_init(&e->loop, &w->poll, w->epoll) != 0) {
      if (w->epoll >= 0)
        close(w->epoll);
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
  size_t low;
} awaited;

static bool some(void *ud) {
  const awaited *a = ud;

  return (a->w != NULL && a->w->ready) || a->e->ends != a->seen ||
         (a->e->feed != NULL && pp_feed_kept(a->e->feed) < a->low);
}

/*
 * core.await(fd, seen, timeout, low): wait until fd can be read, or more jobs
 * than `seen` have ended, of all servers, or less than `low` bytes are kept by
 * the feed, or the time is up. -> how many have ended now, and whether fd can
 * be read. A waiting call. fd nil: only the others.
 */
static int await(lua_State *L) {
  pp_engine *e = pp_check_engine(L);
  struct pollfd p = {(int)luaL_optinteger(L, 1, -1), POLLIN, 0};
  awaited a = {e, NULL, (uint64_t)luaL_optinteger(L, 2, 0),
               (size_t)luaL_optinteger(L, 4, 0)};
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

/* --- feeds ---------------------------------------------------------------- */

#define FEED_META "pp.feed"

typedef struct ufeed {
  pp_feed *f; /* NULL: closed */
} ufeed;

static pp_feed *check_feed(lua_State *L) {
  ufeed *u = luaL_checkudata(L, 1, FEED_META);

  if (u->f == NULL)
    luaL_error(L, "attempt to use a closed feed");
  return u->f;
}

/* core.feeder(): what commands with the option fed read. */
static int new_feed(lua_State *L) {
  pp_engine *e = pp_check_engine(L);
  ufeed *u = lua_newuserdatauv(L, sizeof *u, 0);

  u->f = NULL;
  luaL_setmetatable(L, FEED_META);
  pp_engine_enter(e);
  u->f = pp_feed_new(e);
  pp_engine_leave(e);
  return u->f != NULL ? 1 : luaL_error(L, "not enough memory");
}

static int feed_gc(lua_State *L) {
  ufeed *u = luaL_checkudata(L, 1, FEED_META);
  pp_engine *e = pp_engine_here();

  if (u->f == NULL || e == NULL || e->ended)
    return 0; /* nobody is left to be fed */
  pp_engine_enter(e);
  pp_feed_free(u->f);
  u->f = NULL;
  pp_engine_leave(e);
  return 0;
}

/* feed:add(job), feed:drop(job) */
static int feed_add(lua_State *L) {
  pp_feed *f = check_feed(L);
  pp_ujob *u = luaL_checkudata(L, 2, PP_JOB_META);
  pp_engine *e = pp_check_engine(L);
  int r;

  pp_engine_enter(e);
  r = pp_feed_add(f, u->j);
  pp_engine_leave(e);
  return r == 0 ? 0 : luaL_error(L, "cannot feed a job: %s", pp_strerror(r));
}

static int feed_drop(lua_State *L) {
  pp_feed *f = check_feed(L);
  pp_ujob *u = luaL_checkudata(L, 2, PP_JOB_META);
  pp_engine *e = pp_check_engine(L);

  pp_engine_enter(e);
  pp_feed_drop(f, u->j);
  pp_engine_leave(e);
  return 0;
}

/* feed:hold(boolean): are there jobs yet to be added? */
static int feed_hold(lua_State *L) {
  pp_feed *f = check_feed(L);
  pp_engine *e = pp_check_engine(L);

  pp_engine_enter(e);
  pp_feed_hold(f, lua_toboolean(L, 2));
  pp_engine_leave(e);
  return 0;
}

/* feed:put(s): "" is the end. -> bytes that are kept */
static int feed_put(lua_State *L) {
  pp_feed *f = check_feed(L);
  pp_engine *e = pp_check_engine(L);
  size_t len, kept;
  const char *s = luaL_checklstring(L, 2, &len);
  int r;

  pp_engine_enter(e);
  r = pp_feed_put(f, s, len);
  kept = pp_feed_kept(f);
  pp_engine_leave(e);
  if (r != 0)
    return luaL_error(L, "not enough memory");
  lua_pushinteger(L, (lua_Integer)kept);
  return 1;
}

/* feed:kept() -> bytes */
static int feed_kept(lua_State *L) {
  pp_feed *f = check_feed(L);
  pp_engine *e = pp_check_engine(L);
  size_t kept;

  pp_engine_enter(e);
  kept = pp_feed_kept(f);
  pp_engine_leave(e);
  lua_pushinteger(L, (lua_Integer)kept);
  return 1;
}

void pp_open_input(lua_State *L) {
  static const luaL_Reg methods[] = {
      {"add", feed_add}, {"drop", feed_drop}, {"hold", feed_hold},
      {"put", feed_put}, {"kept", feed_kept}, {NULL, NULL},
  };

  static const luaL_Reg funcs[] = {
      {"await", await}, {"read", read_some},  {"kind", kind}, {"wall", wall},
      {"hash", hash},   {"feeder", new_feed}, {NULL, NULL},
  };

  luaL_newmetatable(L, FEED_META);
  lua_pushcfunction(L, feed_gc);
  lua_setfield(L, -2, "__gc");
  luaL_newlib(L, methods);
  lua_setfield(L, -2, "__index");
  lua_pop(L, 1);
  luaL_setfuncs(L, funcs, 0);
}
