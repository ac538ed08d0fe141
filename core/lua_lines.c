/* SPDX-License-Identifier: MIT */
/* What --map and its like need in the driver: input cut into blocks of whole
 * lines, and results written as they lie. core.lines has these functions. */
#include <errno.h>
#include <fcntl.h>
#include <lauxlib.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bytecode.h"
#include "interrupt.h"
#include "lines_impl.h"
#include "lua_pp.h"
#include "marshal.h"

#define READER_META "pp.lines.reader"
enum { READ_LEAST = 65536, PIPE_MOST = 1 << 20 };

/* A uv_poll_t of an epoll instance: to poll a descriptor itself would make it
 * non-blocking, for all that share it. */
typedef struct watch {
  uv_poll_t poll; /* first */
  int epoll;
  bool readable;
} watch;

typedef struct reader {
  int fd; /* -1: closed */
  bool owned, seekable, eof;
  pp_buf buf;        /* what was read and is not given out: from `first` on */
  size_t first;      /* in buf */
  size_t looked;     /* in buf: there is no newline from first up to here */
  uint64_t consumed; /* position in the file of `first` */
  watch *watch;      /* owned by the loop; NULL: none yet */
} reader;

/* --- names ---------------------------------------------------------------- */

typedef struct naming {
  lua_State *L;
  int table;
} naming;

static int used(void *ud, const pp_bc_use *use) {
  const naming *n = ud;

  if (use->kind == PP_BC_NAME || use->kind == PP_BC_PAIR ||
      use->kind == PP_BC_STORE) {
    lua_pushlstring(n->L, use->name.p, use->name.n);
    lua_pushboolean(n->L, 1);
    lua_rawset(n->L, n->table);
  }
  return 0;
}

static int dump(lua_State *L, const void *p, size_t n, void *ud) {
  (void)L;
  return pp_buf_put(ud, p, n);
}

typedef struct bytes {
  pp_buf code, scratch;
} bytes;

static int bytes_gc(lua_State *L) {
  bytes *b = lua_touserdata(L, 1);

  pp_buf_clear(&b->code);
  pp_buf_clear(&b->scratch);
  return 0;
}

static void set_gc(lua_State *L, lua_CFunction gc) {
  lua_createtable(L, 0, 1);
  lua_pushcfunction(L, gc);
  lua_setfield(L, -2, "__gc");
  lua_setmetatable(L, -2);
}

/* core.lines.names(f) -> the set of globals that a main function uses. */
static int names(lua_State *L) {
  bytes *b;
  naming n = {L, 3};
  int r;

  luaL_checktype(L, 1, LUA_TFUNCTION);
  lua_settop(L, 1);
  b = lua_newuserdatauv(L, sizeof *b, 0);
  memset(b, 0, sizeof *b);
  set_gc(L, bytes_gc);
  lua_newtable(L);
  lua_pushvalue(L, 1);
  r = lua_dump(L, dump, &b->code, 1);
  lua_pop(L, 1);
  if (r == 0)
    r = pp_bc_uses(b->code.data, b->code.len, &b->scratch, used, &n);
  if (r != 0)
    return luaL_error(L, "cannot read the function's code: %s", pp_strerror(r));
  return 1;
}

/* --- reading -------------------------------------------------------------- */

static reader *check_reader(lua_State *L) {
  reader *r = luaL_checkudata(L, 1, READER_META);

  if (r->fd < 0)
    luaL_error(L, "attempt to use a closed reader");
  return r;
}

static int fail(lua_State *L, int error) {
  lua_pushnil(L);
  lua_pushstring(L, strerror(error));
  return 2;
}

/* core.lines.open(path; nil: stdin) -> reader, bytes of a plain file or nil;
 * or nil, why not. */
static int open_reader(lua_State *L) {
  const char *path = luaL_optstring(L, 1, NULL);
  reader *r = lua_newuserdatauv(L, sizeof *r, 0);
  struct stat st;
  off_t at = 0;

  memset(r, 0, sizeof *r);
  r->fd = -1;
  luaL_setmetatable(L, READER_META);
  if (path == NULL) {
    r->fd = STDIN_FILENO;
  } else {
    do
      r->fd = open(path, O_RDONLY | O_CLOEXEC);
    while (r->fd < 0 && errno == EINTR &&
           (pp_interrupt_check(L), true)); /* a FIFO nobody writes to */
    if (r->fd < 0)
      return fail(L, errno);
    r->owned = true;
  }
  if (fstat(r->fd, &st) != 0)
    return fail(L, errno);
  if (S_ISDIR(st.st_mode))
    return fail(L, EISDIR);
#ifdef F_SETPIPE_SZ
  if (S_ISFIFO(st.st_mode)) /* so that a block does not take many turns */
    (void)fcntl(r->fd, F_SETPIPE_SZ, PIPE_MOST);
#endif
  r->seekable = S_ISREG(st.st_mode) && (at = lseek(r->fd, 0, SEEK_CUR)) >= 0;
  if (r->seekable && st.st_size == 0)
    r->seekable = false; /* as files in /proc seem */
  if (!r->seekable)
    return 1;
  r->consumed = (uint64_t)at;
  lua_pushinteger(L, (lua_Integer)st.st_size);
  return 2;
}

/* core.lines.size(path) -> bytes of a plain file; or nil if it is none, or
 * cannot be read. */
static int size_of(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  struct stat st;

  if (stat(path, &st) != 0 || !S_ISREG(st.st_mode))
    lua_pushnil(L);
  else
    lua_pushinteger(L, (lua_Integer)st.st_size);
  return 1;
}

/* reader:size() -> bytes of the plain file by now */
static int reader_size(lua_State *L) {
  struct stat st;

  if (fstat(check_reader(L)->fd, &st) != 0)
    st.st_size = 0;
  lua_pushinteger(L, (lua_Integer)st.st_size);
  return 1;
}

/* reader:path() -> by what name workers of this machine can open that very
 * file; nil: they cannot */
static int reader_path(lua_State *L) {
  reader *r = check_reader(L);
  struct stat is, was;
  char path[64];
  int fd;

  /* Another mount of /proc may have another process of that number. */
  snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)getpid(), r->fd);
  fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd >= 0 && fstat(fd, &is) == 0 && fstat(r->fd, &was) == 0 &&
      is.st_dev == was.st_dev && is.st_ino == was.st_ino)
    lua_pushstring(L, path);
  else
    lua_pushnil(L);
  if (fd >= 0)
    close(fd);
  return 1;
}

static bool ready(int fd) {
  struct pollfd p = {fd, POLLIN, 0};

  return poll(&p, 1, 0) > 0;
}

/* Read some more: how much, 0 at the end, PP_ENOMEM or PP_ESYS. */
static int64_t read_some(lua_State *L, reader *r, size_t want) {
  ssize_t n;

  if (r->first > 0) {
    memmove(r->buf.data, r->buf.data + r->first, r->buf.len - r->first);
    r->buf.len -= r->first;
    r->looked -= r->first;
    r->first = 0;
  }
  if (pp_buf_reserve(&r->buf, want) != 0)
    return PP_ENOMEM;
  for (;;) {
    if (r->seekable)
      n = pread(r->fd, r->buf.data + r->buf.len, want,
                (off_t)(r->consumed + r->buf.len));
    else
      n = read(r->fd, r->buf.data + r->buf.len, want);
    if (n >= 0)
      break;
    if (errno == EAGAIN) { /* somebody made it non-blocking */
      struct pollfd p = {r->fd, POLLIN, 0};

      poll(&p, 1, -1);
    } else if (errno != EINTR) {
      return PP_ESYS;
    }
    pp_interrupt_check(L);
  }
  r->buf.len += (size_t)n;
  r->eof = n == 0;
  return n;
}

/* Bytes to be given out next: whole lines, about `want` bytes, at least one
 * line; 0: there is none yet. partly: of what is there. */
static size_t cut(reader *r, size_t want, bool partly) {
  const unsigned char *p = r->buf.data + r->first, *nl;
  size_t have = r->buf.len - r->first, skip = r->looked - r->first;

  if (have >= want && want > skip) {
    nl = memrchr(p + skip, '\n', want - skip);
    if (nl != NULL)
      return (size_t)(nl - p) + 1;
    skip = want;
  } else if (have < want) {
    if (r->eof)
      return have;
    nl = partly && have > skip ? memrchr(p + skip, '\n', have - skip) : NULL;
    return nl != NULL ? (size_t)(nl - p) + 1 : 0;
  }
  nl = have > skip ? memchr(p + skip, '\n', have - skip) : NULL;
  if (nl != NULL)
    return (size_t)(nl - p) + 1;
  r->looked = r->buf.len;
  return r->eof ? have : 0;
}

/*
 * reader:read(want, max, how) -> text: whole lines, about `want` bytes but at
 * least one line, and how many lines; or nil and a word: "end"; "wait", there
 * is none yet; "long", a line is longer than max; or nil, "error" and why.
 * Where no more is to be had at once: how "full": wait until it is; "some":
 * what there is will do; "block": the same, and it sits until there is some.
 */
static int reader_read(lua_State *L) {
  reader *r = check_reader(L);
  size_t want = (size_t)luaL_checkinteger(L, 2), n;
  size_t max = (size_t)luaL_checkinteger(L, 3);
  const char *how = luaL_checkstring(L, 4);
  bool full = how[0] == 'f', block = how[0] == 'b', partly = false;

  while ((n = cut(r, want, partly)) == 0) {
    size_t have = r->buf.len - r->first;
    int64_t got;

    if (r->eof) {
      lua_pushnil(L);
      lua_pushliteral(L, "end");
      return 2;
    }
    if (have > want && r->looked - r->first > max)
      break;
    if (!r->seekable && !(partly && block) && !ready(r->fd)) {
      if (full || partly) {
        lua_pushnil(L);
        lua_pushliteral(L, "wait");
        return 2;
      }
      partly = true;
      continue;
    }
    got = read_some(L, r,
                    have < want && want - have > READ_LEAST ? want - have
                                                            : READ_LEAST);
    if (got == PP_ENOMEM)
      return luaL_error(L, "not enough memory");
    if (got < 0) {
      lua_pushnil(L);
      lua_pushliteral(L, "error");
      lua_pushstring(L, strerror(errno));
      return 3;
    }
    partly = false;
  }
  if (n == 0) {
    lua_pushnil(L);
    lua_pushliteral(L, "long");
    return 2;
  }
  lua_pushlstring(L, (const char *)r->buf.data + r->first, n);
  r->first += n;
  r->consumed += n;
  if (r->looked < r->first)
    r->looked = r->first;
  if (r->first == r->buf.len && r->buf.cap > 4 * want + 4 * READ_LEAST) {
    pp_buf_clear(&r->buf); /* a long line needed so much */
    r->first = r->looked = 0;
  }
  {
    size_t len;
    const char *p = lua_tolstring(L, -1, &len);

    lua_pushinteger(L, (lua_Integer)(pp_lines_newlines(p, len) +
                                     (p[len - 1] != '\n' ? 1 : 0)));
  }
  return 2;
}

/* reader:tell() -> position in the plain file behind what was given out */
static int reader_tell(lua_State *L) {
  lua_pushinteger(L, (lua_Integer)check_reader(L)->consumed);
  return 1;
}

/* reader:skip(at): go on from there. */
static int reader_skip(lua_State *L) {
  reader *r = check_reader(L);

  r->consumed = (uint64_t)luaL_checkinteger(L, 2);
  pp_buf_clear(&r->buf);
  r->first = r->looked = 0;
  r->eof = false;
  return 0;
}

/* reader:count(at, len) -> how many lines begin in that block of the file; or
 * nil and why it cannot be read */
static int reader_count(lua_State *L) {
  reader *r = check_reader(L);
  uint64_t at = (uint64_t)luaL_checkinteger(L, 2);
  uint64_t len = (uint64_t)luaL_checkinteger(L, 3);
  uint64_t end = at + len > 0 ? at + len - 1 : 0;
  size_t n = at == 0 && len > 0 ? 1 : 0;

  pp_buf_clear(&r->buf);
  r->first = r->looked = 0;
  for (at = at > 0 ? at - 1 : 0; at < end;) {
    size_t want = end - at < READ_LEAST ? (size_t)(end - at) : READ_LEAST;
    ssize_t k;

    if (pp_buf_reserve(&r->buf, want) != 0)
      return luaL_error(L, "not enough memory");
    k = pread(r->fd, r->buf.data, want, (off_t)at);
    if (k < 0 && errno != EINTR)
      return fail(L, errno);
    if (k == 0)
      break;
    if (k > 0) {
      n += pp_lines_newlines((const char *)r->buf.data, (size_t)k);
      at += (uint64_t)k;
    }
  }
  lua_pushinteger(L, (lua_Integer)n);
  return 1;
}

/* reader:lines(at, len, max) -> the lines that begin in that block, as text; or
 * nil and why they cannot be read */
static int reader_lines(lua_State *L) {
  reader *r = check_reader(L);
  uint64_t at = (uint64_t)luaL_checkinteger(L, 2);
  uint64_t len = (uint64_t)luaL_checkinteger(L, 3);
  pp_lines in;
  int e = pp_lines_read(r->fd, at, len, (size_t)luaL_checkinteger(L, 4),
                        &r->buf, &in);
  const char *last;

  if (e == PP_ENOMEM)
    return luaL_error(L, "not enough memory");
  if (e != 0)
    return fail(L, errno);
  last = in.end;
  if (last > in.p && last[-1] != '\n') {
    const char *nl = memchr(last, '\n', (size_t)(in.all - last));

    last = nl != NULL ? nl + 1 : in.all;
  }
  lua_pushlstring(L, in.p, (size_t)(last - in.p));
  pp_buf_clear(&r->buf);
  r->first = r->looked = 0;
  return 1;
}

static void close_watch(uv_handle_t *h) {
  watch *w = (watch *)h;

  close(w->epoll);
  free(w);
}

static int reader_close(lua_State *L) {
  reader *r = luaL_checkudata(L, 1, READER_META);
  pp_engine *e = pp_engine_here();

  pp_buf_clear(&r->buf);
  if (r->watch != NULL && e != NULL) {
    pp_engine_enter(e);
    if (e->loop_open)
      uv_close((uv_handle_t *)&r->watch->poll, close_watch);
    pp_engine_leave(e);
  }
  r->watch = NULL;
  if (r->fd >= 0 && r->seekable && !r->owned)
    (void)!lseek(r->fd, (off_t)r->consumed, SEEK_SET); /* for the next */
  if (r->owned && r->fd >= 0)
    close(r->fd);
  r->fd = -1;
  return 0;
}

/* --- waiting -------------------------------------------------------------- */

static void on_readable(uv_poll_t *h, int status, int events) {
  (void)status, (void)events;
  ((watch *)h)->readable = true;
  uv_poll_stop(h);
}

/* NULL: it cannot be watched, and is as good as readable. The lock held. */
static watch *new_watch(pp_engine *e, int fd) {
  struct epoll_event ev = {.events = EPOLLIN};
  watch *w = calloc(1, sizeof *w);

  if (w == NULL)
    return NULL;
  w->epoll = epoll_create1(EPOLL_CLOEXEC);
  if (w->epoll < 0 || epoll_ctl(w->epoll, EPOLL_CTL_ADD, fd, &ev) != 0 ||
      uv_poll_init(&e->loop, &w->poll, w->epoll) != 0) {
    if (w->epoll >= 0)
      close(w->epoll);
    free(w);
    return NULL;
  }
  return w;
}

typedef struct waiting {
  const watch *w; /* or NULL */
  const pp_job *j;
} waiting;

static bool some(void *ud) {
  const waiting *v = ud;

  return (v->w != NULL && v->w->readable) || pp_job_over(v->j);
}

/* core.lines.wait(job, reader, seconds): wait until the job is over, the reader
 * (if there is one) has more to read, or the time is up. */
static int wait_any(lua_State *L) {
  pp_ujob *u = luaL_checkudata(L, 1, PP_JOB_META);
  reader *r = lua_isnoneornil(L, 2) ? NULL : luaL_checkudata(L, 2, READER_META);
  pp_engine *e = pp_check_engine(L);
  int64_t deadline = pp_opt_deadline(L, 3);
  waiting v = {NULL, u->j};

  if (r != NULL && e->loop_open) {
    pp_engine_enter(e);
    if (r->watch == NULL)
      r->watch = new_watch(e, r->fd);
    v.w = r->watch;
    if (r->watch != NULL) {
      r->watch->readable = false;
      uv_poll_start(&r->watch->poll, UV_READABLE, on_readable);
    }
    pp_engine_leave(e);
    if (v.w == NULL)
      return 0;
  }
  pp_wait_call(L, some, &v, deadline);
  if (v.w != NULL) {
    pp_engine_enter(e);
    uv_poll_stop(&r->watch->poll);
    pp_engine_leave(e);
  }
  return 0;
}

/* --- writing -------------------------------------------------------------- */

/* 0, or the errno. May raise, or end the process, by a signal. */
static int write_all(lua_State *L, const char *p, size_t n) {
  while (n > 0) {
    ssize_t k = write(STDOUT_FILENO, p, n);
    int e = errno;

    if (k >= 0) {
      p += k;
      n -= (size_t)k;
      continue;
    }
    pp_interrupt_check(L);
    if (e == EAGAIN) {
      struct pollfd out = {STDOUT_FILENO, POLLOUT, 0};

      poll(&out, 1, -1);
      pp_interrupt_check(L);
    } else if (e != EINTR) {
      return e;
    }
  }
  return 0;
}

/* core.lines.write(text) -> true, or nil and why it could not be written, to
 * stdout. */
static int write_text(lua_State *L) {
  size_t n;
  const char *p = luaL_checklstring(L, 1, &n);
  pp_engine *e = pp_check_engine(L);
  int error;

  pp_meter_hide(&e->meter);
  fflush(stdout);
  error = write_all(L, p, n);
  pp_meter_wrote(&e->meter, 0, n == 0 || p[n - 1] == '\n');
  pp_meter_unhide(&e->meter);
  if (error != 0)
    return fail(L, error);
  lua_pushboolean(L, 1);
  return 1;
}

/* core.lines.put(job): write the text that a job gave, from where its worker
 * has put it -> true, its other result, the bytes of the text; or nil and why
 * it cannot be written; or nothing, if it gave something else. */
static int put_result(lua_State *L) {
  pp_ujob *u = luaL_checkudata(L, 1, PP_JOB_META);
  pp_engine *e = pp_check_engine(L);
  pp_job *j = u->j;
  pp_text text;
  int error;

  lua_settop(L, 1);
  if (j->state != PP_JOB_DONE || j->result == NULL ||
      !pp_plain_text(L, j->result, j->result_len, &text))
    return 0;
  pp_meter_hide(&e->meter);
  error = write_all(L, text.s, text.len);
  pp_meter_unhide(&e->meter);
  pp_engine_enter(e);
  if (j->server != NULL)
    pp_server_seen(j->server, j);
  pp_job_clear_result(j);
  pp_job_done_with(j, &e->blobs);
  pp_engine_leave(e);
  if (error != 0)
    return fail(L, error);
  lua_pushboolean(L, 1);
  lua_insert(L, -2);
  lua_pushinteger(L, (lua_Integer)text.len);
  return 3;
}

static const luaL_Reg methods[] = {
    {"size", reader_size},   {"path", reader_path},   {"read", reader_read},
    {"tell", reader_tell},   {"skip", reader_skip},   {"count", reader_count},
    {"lines", reader_lines}, {"close", reader_close}, {NULL, NULL},
};

static const luaL_Reg funcs[] = {
    {"names", names},   {"open", open_reader}, {"size", size_of},
    {"wait", wait_any}, {"write", write_text}, {"put", put_result},
    {NULL, NULL},
};

void pp_open_lines(lua_State *L) {
  luaL_newmetatable(L, READER_META);
  lua_pushcfunction(L, reader_close);
  lua_setfield(L, -2, "__gc");
  luaL_newlib(L, methods);
  lua_setfield(L, -2, "__index");
  lua_pop(L, 1);
  luaL_newlib(L, funcs);
  lua_setfield(L, -2, "lines");
}
