/* SPDX-License-Identifier: MIT */
#include "engine.h"

#include <errno.h>
#include <fcntl.h>
#include <lauxlib.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "interrupt.h"
#include "link.h"
#include "zygote.h"

#define MS ((int64_t)1000000)
/* How long the script may be elsewhere before the standby thread steps in. */
#define AWAY_NS MS

static pp_engine *the_engine;
static int log_level = PP_LOG_WARN;
static volatile int wake_fd = -1; /* for signal handlers */

pp_engine *pp_engine_get(void) { return the_engine; }

void pp_log(int level, const char *format, ...) {
  static const char *const names[] = {"error", "warning", "info", "debug"};
  char line[1024];
  va_list ap;

  if (level > log_level)
    return;
  va_start(ap, format);
  vsnprintf(line, sizeof line, format, ap);
  va_end(ap);
  fflush(stdout);
  fprintf(stderr, "ppsh: %s: %s\n", names[level], line);
}

void pp_engine_wake(void) {
  uint64_t one = 1;
  int fd = wake_fd, e = errno;

  if (fd >= 0)
    (void)!write(fd, &one, sizeof one);
  errno = e;
}

/* --- lanes ---------------------------------------------------------------- */

int pp_engine_lane(pp_engine *e, pp_link *link) {
  uint32_t lane;

  if (e->nfree > 0) {
    lane = e->free_lanes[--e->nfree];
  } else if (e->nlinks < PP_LANES_MAX) {
    pp_link **v = realloc(e->links, (e->nlinks + 1) * sizeof *v);
    uint32_t *f;

    if (v == NULL)
      return -1;
    e->links = v;
    f = realloc(e->free_lanes, (e->nlinks + 1) * sizeof *f);
    if (f == NULL)
      return -1;
    e->free_lanes = f;
    lane = e->nlinks++;
  } else {
    errno = EAGAIN;
    return -1;
  }
  e->links[lane] = link;
  return (int)lane;
}

void pp_engine_lane_free(pp_engine *e, uint32_t lane) {
  e->links[lane] = NULL;
  pp_lane_reset(e->shm, lane);
  e->free_lanes[e->nfree++] = lane;
}

static void on_dropped(void *ud, uint32_t lane, uint32_t id) {
  pp_engine *e = ud;

  if (e->links[lane] != NULL)
    pp_link_drop(e->links[lane], id);
}

void pp_engine_blob_lost(pp_engine *e, uint32_t id, uint32_t lane) {
  pp_blob *b = pp_blobs_by_id(&e->blobs, id);

  if (b != NULL)
    pp_blob_lost(b, lane);
}

/* --- what has arrived ----------------------------------------------------- */

static bool any_ready(const pp_engine *e) {
  for (uint32_t w = 0; w <= e->nlinks / 64; w++)
    if (atomic_load_explicit(&e->hub->ready[w], memory_order_relaxed) != 0)
      return true;
  return false;
}

static void drain_lane(pp_engine *e, uint32_t lane) {
  pp_link *l = lane < e->nlinks ? e->links[lane] : NULL;

  if (l != NULL && !l->dead && l->server != NULL && !l->server->closed)
    pp_link_drain(l);
}

static void drain_ready(pp_engine *e) {
  for (uint32_t w = 0; w <= e->nlinks / 64; w++) {
    uint64_t bits;

    if (atomic_load_explicit(&e->hub->ready[w], memory_order_relaxed) == 0)
      continue;
    bits = atomic_exchange(&e->hub->ready[w], 0);
    for (; bits != 0; bits &= bits - 1)
      drain_lane(e, w * 64 + (uint32_t)__builtin_ctzll(bits));
  }
}

/* Every lane, bell or not: output that may be passed on, results that wait
 * for company. */
static bool drain_all(pp_engine *e) {
  bool more = false;

  for (uint32_t i = 0; i < e->nlinks; i++) {
    drain_lane(e, i);
    if (e->links[i] != NULL && !e->links[i]->dead &&
        e->links[i]->server != NULL)
      more |= pp_link_unsettled(e->links[i]);
  }
  return more;
}

static void flush_output(pp_engine *e) {
  if (e->dirty[0])
    fflush(stdout);
  if (e->dirty[1])
    fflush(stderr);
  e->dirty[0] = e->dirty[1] = false;
}

static void on_bell(uv_poll_t *h, int status, int events) {
  pp_engine *e = h->data;
  uint64_t n;

  (void)status, (void)events;
  (void)!read(e->bell, &n, sizeof n);
}

static void zygote_died(pp_engine *e) {
  e->zygote_gone = true;
  uv_poll_stop(&e->on_ctl);
  if (e->ended)
    return;
  pp_log(PP_LOG_ERROR, "the process that workers are forked from was killed");
  for (uint32_t i = 0; i < e->nlinks; i++)
    if (e->links[i] != NULL)
      pp_link_died(e->links[i], 9, 0, 0);
}

static void on_ctl(uv_poll_t *h, int status, int events) {
  pp_engine *e = h->data;
  pp_zrep rep;
  ssize_t n;

  (void)status, (void)events;
  while ((n = recv(e->ctl, &rep, sizeof rep, MSG_DONTWAIT)) ==
         (ssize_t)sizeof rep) {
    pp_link *l = rep.lane < e->nlinks ? e->links[rep.lane] : NULL;

    if (l == NULL)
      continue;
    if (rep.op == PP_Z_SPAWNED) {
      l->pid = rep.pid;
      if (l->server != NULL)
        l->server->refusals = 0, l->server->stuck_since = 0;
    } else if (rep.op == PP_Z_EXITED) {
      pp_link_died(l, rep.status, 0, rep.maxrss);
    } else if (rep.op == PP_Z_FAILED) {
      pp_link_died(l, -1, rep.status, 0);
    }
  }
  if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
    zygote_died(e);
}

static void on_tick(uv_timer_t *t) {
  pp_engine *e = t->data;

  e->timed_out = true;
}

/* When servers have something to do by themselves; -1 never. */
static int64_t tend(pp_engine *e, int64_t now) {
  int64_t next = -1;

  for (pp_server *s = e->servers; s != NULL; s = s->next) {
    bool missing = s->alive < s->ncpus;

    if (!missing)
      continue;
    if (now >= s->respawn_at)
      pp_server_tend(s, now);
    if (s->alive < s->ncpus) {
      int64_t at = s->respawn_at > now ? s->respawn_at : now + 100 * MS;

      if (next < 0 || at < next)
        next = at;
    }
  }
  return next;
}

/* One turn of the loop, asleep until something happens or `until`. */
static void turn(pp_engine *e, int64_t now, int64_t until, bool doze) {
  uint32_t mode = doze ? PP_DOZING : PP_SLEEPING;
  int64_t ms = -1;

  if (until >= 0)
    ms = until <= now ? 0 : (until - now + MS - 1) / MS;
  if (doze && (ms < 0 || ms > 1))
    ms = 1;
  atomic_store(&e->hub->asleep, mode);
  atomic_thread_fence(memory_order_seq_cst);
  if (any_ready(e) || atomic_load(&e->main_wants))
    ms = 0;
  e->timed_out = false;
  if (ms == 0) {
    uv_run(&e->loop, UV_RUN_NOWAIT);
  } else {
    if (ms > 0) {
      uv_update_time(&e->loop);
      uv_timer_start(&e->tick, on_tick, (uint64_t)ms, 0);
    }
    uv_run(&e->loop, UV_RUN_ONCE);
    if (ms > 0)
      uv_timer_stop(&e->tick);
  }
  atomic_store(&e->hub->asleep, PP_AWAKE);
}

static bool batches(const pp_engine *e) {
  for (const pp_server *s = e->servers; s != NULL; s = s->next)
    if (s->sched.fat > 0)
      return true;
  return false;
}

/* The loop, for whoever holds the lock. `stop` is asked after each look. */
static void pump(pp_engine *e, bool (*stop)(pp_engine *e, void *ud), void *ud,
                 int64_t deadline) {
  bool doze = true, unsettled = false;

  for (;;) {
    int64_t now, next, until = deadline;

    drain_ready(e);
    if (unsettled)
      unsettled = drain_all(e);
    flush_output(e);
    if (stop(e, ud))
      return;
    now = pp_now_ns();
    if (deadline >= 0 && now >= deadline)
      return;
    next = tend(e, now);
    if (next >= 0 && (until < 0 || next < until))
      until = next;
    doze = doze && batches(e);
    turn(e, now, unsettled ? now : until, doze);
    if (doze && e->timed_out) {
      drain_all(e); /* results that waited for company */
      doze = false;
    } else {
      doze = true;
    }
    /* Output may have come without a result. */
    for (uint32_t i = 0; i < e->nlinks && !unsettled; i++)
      unsettled = e->links[i] != NULL && !e->links[i]->dead &&
                  pp_link_unsettled(e->links[i]);
  }
}

typedef struct waiting {
  bool (*until)(void *ud);
  void *ud;
  int result;
} waiting;

static bool main_stops(pp_engine *e, void *ud) {
  waiting *w = ud;

  if (e->callbacks > 0 && !e->in_callback)
    w->result = PP_EAGAIN;
  else if (w->until(w->ud))
    w->result = 1;
  else if (pp_interrupt_pending())
    w->result = PP_EAGAIN;
  return w->result != 0;
}

int pp_engine_wait(pp_engine *e, bool (*until)(void *ud), void *ud,
                   int64_t deadline) {
  waiting w = {until, ud, 0};

  pump(e, main_stops, &w, deadline);
  return w.result;
}

void pp_engine_look(pp_engine *e, int64_t now) {
  if (any_ready(e) && now - e->drained > 20000) {
    e->drained = now;
    drain_ready(e);
  }
  if (now - e->looked > MS) {
    e->looked = now;
    uv_run(&e->loop, UV_RUN_NOWAIT);
    drain_all(e);
    tend(e, now);
    flush_output(e);
  }
}

/* --- the lock and the standby thread -------------------------------------- */

void pp_engine_enter(pp_engine *e) {
  if (e->depth++ > 0)
    return;
  if (PP_UNLIKELY(pthread_mutex_trylock(&e->lock) != 0)) {
    atomic_store(&e->main_wants, 1);
    pp_engine_wake();
    pthread_mutex_lock(&e->lock);
    atomic_store(&e->main_wants, 0);
  }
  atomic_store_explicit(
      &e->epoch, atomic_load_explicit(&e->epoch, memory_order_relaxed) + 1,
      memory_order_relaxed);
}

void pp_engine_leave(pp_engine *e) {
  bool call;

  if (--e->depth > 0)
    return;
  call = e->standby_parked && e->pending > 0;
  if (PP_UNLIKELY(call)) {
    e->standby_parked = false;
    pthread_cond_signal(&e->parked_cond);
  }
  pthread_mutex_unlock(&e->lock);
}

static bool standby_stops(pp_engine *e, void *ud) {
  (void)ud;
  return atomic_load(&e->main_wants) || e->pending == 0 || e->standby_quit;
}

static void *standby_main(void *arg) {
  pp_engine *e = arg;
  uint64_t seen;
  bool inside;

  pthread_mutex_lock(&e->lock);
  while (!e->standby_quit) {
    if (e->pending == 0) {
      e->standby_parked = true;
      while (e->standby_parked && !e->standby_quit)
        pthread_cond_wait(&e->parked_cond, &e->lock);
      continue;
    }
    seen = atomic_load(&e->epoch);
    pthread_mutex_unlock(&e->lock);
    poll(NULL, 0, 1);
    inside = pthread_mutex_trylock(&e->lock) != 0;
    if (inside) {
      /* The script is in a call. Wait until it leaves one: it signals. */
      pthread_mutex_lock(&e->lock);
      continue;
    }
    if (atomic_load(&e->epoch) == seen && e->pending > 0)
      pump(e, standby_stops, NULL, -1);
    if (atomic_load(&e->main_wants)) {
      /* Let it in: an unfair lock might not. */
      pthread_mutex_unlock(&e->lock);
      while (atomic_load(&e->main_wants))
        poll(NULL, 0, 0);
      pthread_mutex_lock(&e->lock);
    }
  }
  pthread_mutex_unlock(&e->lock);
  return NULL;
}

int pp_engine_standby(pp_engine *e) {
  sigset_t all, was;
  int r;

  if (e->standby_runs)
    return 0;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &was);
  r = pthread_create(&e->standby, NULL, standby_main, e);
  pthread_sigmask(SIG_SETMASK, &was, NULL);
  if (r != 0) {
    errno = r;
    return PP_ESYS;
  }
  e->standby_runs = true;
  return 0;
}

/* --- start and end -------------------------------------------------------- */

/* A child the script forked by itself has no part in this. */
static void forked_child(void) {
  pp_engine *e = the_engine;

  if (e != NULL) {
    close(e->ctl);
    wake_fd = -1;
    the_engine = NULL;
  }
}

/* --- blobs, for the codec ------------------------------------------------- */

static pp_blob *hook_intern(void *ud, int kind, pp_hash hash, const void *bytes,
                            size_t len, pp_blob *const *deps, size_t ndeps) {
  pp_engine *e = ud;
  pp_blob *b;

  pp_engine_enter(e);
  b = pp_blobs_intern(&e->blobs, kind, hash, bytes, len, deps, ndeps);
  pp_engine_leave(e);
  return b;
}

static pp_blob *hook_retain(void *ud, pp_blob *b) {
  pp_engine *e = ud;

  pp_engine_enter(e);
  pp_blob_ref(b);
  pp_engine_leave(e);
  return b;
}

static void hook_release(void *ud, pp_blob *b) {
  pp_engine *e = ud;

  pp_engine_enter(e);
  pp_blob_unref(&e->blobs, b);
  pp_engine_leave(e);
}

static const unsigned char *hook_code(void *ud, pp_hash hash, size_t *len) {
  pp_engine *e = ud;
  const pp_blob *b;

  pp_engine_enter(e);
  b = pp_blobs_find(&e->blobs, PP_BLOB_CODE, hash);
  pp_engine_leave(e);
  if (b == NULL)
    return NULL;
  *len = b->len;
  return b->bytes;
}

static int load_library(lua_State *L) {
  lua_getglobal(L, "require");
  lua_pushliteral(L, "pp");
  lua_call(L, 1, 0);
  return 0;
}

int pp_engine_start(lua_State *L, const pp_options *o) {
  pp_engine *e = calloc(1, sizeof *e);
  pp_codec_hooks hooks = {.intern = hook_intern,
                          .retain = hook_retain,
                          .release = hook_release,
                          .code = hook_code};

  if (e == NULL) {
    fprintf(stderr, "ppsh: not enough memory\n");
    return PP_ENOMEM;
  }
  log_level = (int)o->log_level;
  e->options = o;
  e->pid = getpid();
  e->bell = e->shm = e->ctl = -1;
  pthread_mutex_init(&e->lock, NULL);
  pthread_cond_init(&e->parked_cond, NULL);
  e->blobs.dropped = on_dropped;
  e->blobs.ud = e;
  if (o->nhosts > 0 || o->trace != NULL || o->progress != PP_PROGRESS_NO) {
    fprintf(stderr, "ppsh: %s is not supported by this version\n",
            o->nhosts > 0      ? "-H"
            : o->trace != NULL ? "--trace"
                               : "--progress");
    free(e);
    return PP_EBAD;
  }
  lua_pushcfunction(L, load_library);
  if (lua_pcall(L, 0, 0, 0) != LUA_OK) {
    fprintf(stderr, "ppsh: cannot load its library: %s\n", lua_tostring(L, -1));
    free(e);
    return PP_EBAD;
  }
  if (pp_shm_open(&e->shm, &e->hub) != 0 ||
      (e->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) < 0 ||
      (e->zygote = pp_zygote_fork(L, e->shm, e->hub, e->bell, &e->ctl)) < 0) {
    fprintf(stderr, "ppsh: cannot start: %s\n", strerror(errno));
    free(e);
    return PP_ESYS;
  }
  hooks.ud = e;
  e->codec = pp_codec_new(L, PP_CODEC_SUBMITTER, &hooks);
  if (e->codec == NULL) {
    fprintf(stderr, "ppsh: not enough memory\n");
    return PP_ENOMEM;
  }
  the_engine = e;
  wake_fd = e->bell;
  pthread_atfork(NULL, NULL, forked_child);
  return 0;
}

/* Descriptors an event loop needs for itself, and some. */
#define LOOP_FDS 8

int pp_engine_open_loop(pp_engine *e) {
  int fds[LOOP_FDS], n, r;

  if (e->loop_open)
    return 0;
  /* The library aborts where it cannot have the descriptors it wants. */
  for (n = 0; n < LOOP_FDS; n++)
    if ((fds[n] = fcntl(e->bell, F_DUPFD_CLOEXEC, 0)) < 0)
      break;
  r = errno;
  for (int i = 0; i < n; i++)
    close(fds[i]);
  if (n < LOOP_FDS) {
    errno = r;
    return PP_ESYS;
  }
  r = uv_loop_init(&e->loop);
  if (r != 0) {
    errno = -r;
    return PP_ESYS;
  }
  e->loop_open = true;
  uv_timer_init(&e->loop, &e->tick);
  uv_poll_init(&e->loop, &e->on_bell, e->bell);
  uv_poll_init(&e->loop, &e->on_ctl, e->ctl);
  e->tick.data = e->on_bell.data = e->on_ctl.data = e;
  uv_poll_start(&e->on_bell, UV_READABLE, on_bell);
  uv_poll_start(&e->on_ctl, UV_READABLE, on_ctl);
  return 0;
}

static void report_unseen(pp_job *j) {
  pp_error_view v;

  if (pp_error_parse(j->result, j->result_len, &v) != 0)
    return;
  fprintf(stderr, "ppsh: job %llu failed and nobody asked: %.*s%s%.*s\n",
          (unsigned long long)j->id, (int)v.msg_len, v.msg,
          v.tb_len > 0 ? "\n" : "", (int)v.tb_len, v.tb);
}

int pp_engine_end(int status) {
  pp_engine *e = the_engine;
  size_t dropped = 0, unseen = 0;

  if (e == NULL || e->ended || e->pid != getpid())
    return status;
  e->ended = true;
  pp_engine_enter(e);
  if (e->standby_runs) {
    e->standby_quit = true;
    pthread_cond_signal(&e->parked_cond);
    pthread_mutex_unlock(&e->lock);
    pthread_join(e->standby, NULL);
    pthread_mutex_lock(&e->lock);
  }
  if (e->loop_open) {
    uv_run(&e->loop, UV_RUN_NOWAIT);
    drain_all(e);
    drain_all(e);
    for (uint32_t i = 0; i < e->nlinks; i++)
      if (e->links[i] != NULL)
        pp_link_last_words(e->links[i]);
  }
  flush_output(e);
  for (pp_server *s = e->servers; s != NULL; s = s->next) {
    dropped += s->pending;
    for (pp_job *j = s->ended.head; j != NULL; j = j->next)
      if (j->state == PP_JOB_FAILED) {
        fflush(stdout);
        report_unseen(j);
        unseen++;
      }
  }
  if (dropped > 0)
    pp_log(PP_LOG_WARN, "%zu unfinished job%s dropped", dropped,
           dropped == 1 ? "" : "s");
  if (e->options->stats)
    for (pp_server *s = e->servers; s != NULL; s = s->next) {
      pp_buf b = {0};

      if (pp_server_table(s, &b) == 0) {
        fflush(stdout);
        fwrite(b.data, 1, b.len, stderr);
      }
      pp_buf_clear(&b);
    }
  wake_fd = -1;
  close(e->ctl);
  while (waitpid(e->zygote, NULL, 0) < 0 && errno == EINTR) {
  }
  return status == 0 && unseen > 0 ? 1 : status;
}
