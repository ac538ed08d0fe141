/* SPDX-License-Identifier: MIT */
#include "serial.h"

#include <errno.h>
#include <fcntl.h>
#include <lauxlib.h>
#include <lualib.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "capture.h"
#include "engine.h"
#include "interrupt.h"
#include "kin.h"
#include "lua_pp.h"
#include "runner.h"
#include "state.h"
#include "worker.h"
#include "zygote.h"

/* Between asking a job to stop and what does not ask. */
#define GRACE_NS ((int64_t)1000000000)
/* What ran for less is not worth a look at these. */
#define CLOCKED_NS 50000
#define MEASURED_NS 1000000

struct pp_serial {
  pp_place place;    /* first; never in the schedule: it holds what runs */
  pp_engine *engine; /* the driver's */
  pp_engine *from;   /* whose jobs it runs: that, or the outer one's own */
  pp_engine *own;    /* of what its jobs submit; made with L */
  pp_serial *outer, *inner; /* jobs within jobs; inner: NULL until there are */
  pp_server *server;
  lua_State *L; /* NULL: to be made */
  pp_runner *runner;
  FILE *empty;   /* its io.stdin */
  uint32_t lane; /* by which blobs know it; no real one */
  uint64_t *has; /* bits: blobs it holds, by number */
  size_t has_words;
  uint32_t *drops; /* numbers of blobs to forget before the next job */
  size_t ndrops, cap_drops;
  uint32_t done; /* jobs this state has run */
  uint64_t maxrss;
  int64_t began;
  uintptr_t stack;            /* where the C stack was */
  int64_t waited, waited_cpu; /* ns, for jobs of its own */
  pp_server *kids;            /* what its job has submitted to; NULL: nothing */
  int handle;                 /* registry reference to the handle of that */
  uint64_t next_id;           /* of jobs of the next such */
  pp_buf frame, out;
  int status;                   /* given to os.exit */
  volatile sig_atomic_t stop;   /* kind of failure + 1: it is to stop */
  volatile sig_atomic_t forced; /* it is not asked any more */
  volatile sig_atomic_t exited; /* it called os.exit */
};

/* What signal handlers need: the one that runs a job, and what wakes it. */
static struct {
  pp_serial *volatile at; /* the innermost */
  pthread_t thread;
  timer_t timer;
  bool ready;
} S;

static inline pp_serial *serial_of(pp_place *p) {
  return (pp_serial *)(void *)p;
}

/* --- stopping ------------------------------------------------------------- */

static void arm(int64_t ns, int64_t again) {
  struct itimerspec t = {
      .it_value = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000},
      .it_interval = {.tv_sec = again / 1000000000,
                      .tv_nsec = again % 1000000000}};

  if (S.ready)
    timer_settime(S.timer, 0, &t, NULL);
}

/* No more asking: an error at every instruction, until it has left. */
static void on_forced(lua_State *L, lua_Debug *ar) {
  const pp_serial *z = S.at;

  (void)ar;
  if (z != NULL && (z->forced || z->exited))
    luaL_error(L, "the job is over");
  pp_state_unpoke(L);
}

static void ask(pp_serial *z, int kind) {
  z->stop = kind + 1;
  pp_runner_stop(z->runner, kind == PP_KIND_TIMEOUT
                                ? "the job ran longer than its timeout"
                                : "interrupted!");
}

static void on_signal(int sig, siginfo_t *si, void *context) {
  pp_serial *z;

  (void)si, (void)context;
  if (!pthread_equal(pthread_self(), S.thread)) {
    pthread_kill(S.thread, sig);
    return;
  }
  z = S.at;
  if (z == NULL)
    return;
  if (z->stop == 0) {
    ask(z, PP_KIND_TIMEOUT);
  } else {
    z->forced = 1;
    pp_state_poke(z->L, on_forced);
    pp_capture_kill(z->engine);
  }
}

void pp_serial_interrupt(void) {
  pp_serial *z = S.at;

  if (z == NULL || pp_interrupt_pending() == 0)
    return;
  if (z->stop == 0)
    arm(GRACE_NS, GRACE_NS);
  for (; z != NULL; z = z->outer)
    if (z->stop == 0)
      ask(z, PP_KIND_CANCELLED);
}

static void prepare_signals(void) {
  struct sigaction sa = {.sa_flags = SA_SIGINFO};
  struct sigevent ev = {.sigev_notify = SIGEV_SIGNAL,
                        .sigev_signo = PP_SIG_STOP};

  if (S.ready)
    return;
  S.thread = pthread_self();
  sa.sa_sigaction = on_signal;
  sigaction(PP_SIG_STOP, &sa, NULL);
  S.ready = timer_create(CLOCK_MONOTONIC, &ev, &S.timer) == 0;
}

/* --- the place ------------------------------------------------------------ */

static int place_send(pp_place *p, pp_job *j) {
  (void)p, (void)j;
  return PP_EAGAIN;
}

static bool place_recall(pp_place *p, pp_job *j) {
  (void)p, (void)j;
  return false;
}

static void place_drain(pp_place *p) { (void)p; }

static int64_t place_begun(pp_place *p, const pp_job *j) {
  (void)j;
  return serial_of(p)->began;
}

/* Somebody else has ended the job that runs. */
static void place_stop(pp_place *p, pp_job *j, int kind) {
  pp_serial *z = serial_of(p);

  pp_jobs_remove(&p->jobs, j);
  if (z->stop == 0)
    z->stop = kind + 1;
  pthread_kill(S.thread, PP_SIG_STOP);
}

static const pp_place_ops ops = {
    .send = place_send,
    .recall = place_recall,
    .drain = place_drain,
    .begun = place_begun,
    .withdraw = place_recall,
    .stop = place_stop,
};

/* --- the state ------------------------------------------------------------ */

/* os.exit in a job ends its interpreter, not this process. */
static int job_exit(lua_State *L) {
  pp_serial *z = lua_touserdata(L, lua_upvalueindex(1));

  z->status = lua_isboolean(L, 1) ? !lua_toboolean(L, 1)
                                  : (int)luaL_optinteger(L, 1, 0) & 0xff;
  z->exited = 1;
  pp_state_poke(L, on_forced);
  return luaL_error(L, "exit");
}

static int prepare(lua_State *L) {
  pp_serial *z = lua_touserdata(L, 1);
  luaL_Stream *in;

  if (pp_zygote_library(L) != 0)
    return lua_error(L);
  lua_getglobal(L, "os");
  lua_pushlightuserdata(L, z);
  lua_pushcclosure(L, job_exit, 1);
  lua_setfield(L, -2, "exit");
  lua_getglobal(L, "io");
  lua_getfield(L, -1, "stdin");
  in = luaL_checkudata(L, -1, LUA_FILEHANDLE);
  in->f = z->empty; /* the script's has read ahead */
  lua_gc(L, LUA_GCGEN, 0, 0);
  return 0;
}

/* --- what its jobs submit ------------------------------------------------- */

static pp_blob *hook_intern(void *ud, int kind, pp_hash hash, const void *bytes,
                            size_t len, pp_blob *const *deps, size_t ndeps) {
  pp_engine *e = ud;

  return pp_blobs_intern(&e->blobs, kind, hash, bytes, len, deps, ndeps);
}

static pp_blob *hook_retain(void *ud, pp_blob *b) {
  (void)ud;
  return pp_blob_ref(b);
}

static void hook_release(void *ud, pp_blob *b) {
  pp_engine *e = ud;

  pp_blob_unref(&e->blobs, b);
}

static const unsigned char *hook_code(void *ud, pp_hash hash, size_t *len) {
  const pp_engine *e = ud;
  const pp_blob *b = pp_blobs_find(&e->blobs, PP_BLOB_CODE, hash);

  if (b == NULL)
    return NULL;
  *len = b->len;
  return b->bytes;
}

static void drop(pp_serial *z, uint32_t id);

static void on_dropped(void *ud, uint32_t lane, uint32_t id) {
  const pp_serial *z = ud;

  (void)lane;
  if (z->inner != NULL)
    drop(z->inner, id);
}

static bool open_own(pp_serial *z) {
  static const pp_options none = {.jobs = -1};
  pp_codec_hooks hooks = {.intern = hook_intern,
                          .retain = hook_retain,
                          .release = hook_release,
                          .code = hook_code};
  pp_engine *e = calloc(1, sizeof *e);

  if (e == NULL)
    return false;
  hooks.ud = e;
  e->options = &none;
  e->serial = z;
  e->bell = e->shm = e->ctl = e->cwd = -1;
  e->out[0] = stdout;
  e->out[1] = stderr;
  e->pid = z->engine->pid;
  e->blobs.dropped = on_dropped;
  e->blobs.ud = z;
  pthread_mutex_init(&e->lock, NULL);
  z->own = e;
  z->handle = LUA_NOREF;
  e->codec = pp_codec_new(z->L, PP_CODEC_SUBMITTER, &hooks);
  return e->codec != NULL;
}

static void free_serial(pp_serial *z);

/* After its Lua state. */
static void close_own(pp_serial *z) {
  pp_engine *e = z->own;

  if (z->inner != NULL)
    free_serial(z->inner);
  z->inner = NULL;
  if (e == NULL)
    return;
  z->own = NULL;
  pp_codec_free(e->codec);
  e->blobs.dropped = NULL;
  pp_blobs_clear(&e->blobs);
  pp_buf_clear(&e->scratch);
  pp_buf_clear(&e->past);
  pthread_mutex_destroy(&e->lock);
  free(e);
}

/* What they were counts where the job does. */
static void count_kids(pp_serial *z) {
  pp_stats *to = &z->server->stats;
  const pp_stats *t = &z->kids->stats;

  to->njobs += t->njobs;
  to->failed += t->failed;
  to->retried += t->retried;
  to->lost += t->lost;
  to->sent += t->sent;
  to->received += t->received;
  to->time += t->time;
  to->cpu += t->cpu;
  if (to->maxrss < t->maxrss)
    to->maxrss = t->maxrss;
  z->next_id = z->kids->next_id;
  z->kids = NULL;
}

/* The job is over: so is what it has submitted. */
static void end_kids(pp_serial *z) {
  pp_server *s = z->kids;

  if (z->handle == LUA_NOREF)
    return;
  if (s != NULL) {
    pp_job *j;

    if (!s->closed) {
      pp_engine_unseen(z->own, s);
      while ((j = s->ended.head) != NULL)
        pp_server_seen(s, j);
      pp_server_destroy(s);
    }
    count_kids(z);
  }
  pp_unanchor(z->L, z->own);
  luaL_unref(z->L, LUA_REGISTRYINDEX, z->handle);
  z->handle = LUA_NOREF;
}

int pp_serial_push_server(lua_State *L) {
  pp_serial *z = pp_check_engine(L)->serial;
  const pp_running *now = pp_runner_running(z->runner);
  pp_server_options o = {.retries = z->server->retries,
                         .restart = z->server->restart,
                         .output = z->server->output,
                         .timeout = z->server->timeout,
                         .memory = z->server->memory,
                         .seeded = now->seeded,
                         .seed = now->seed};
  pp_userver *u;

  if (z->kids != NULL && !z->kids->closed) {
    lua_rawgeti(L, LUA_REGISTRYINDEX, z->handle);
    return 1;
  }
  if (z->kids != NULL)
    count_kids(z);
  u = pp_push_server(L);
  u->s = pp_server_new(z->own, &o);
  if (u->s == NULL)
    return luaL_error(L, "not enough memory");
  u->s->next_id = z->next_id;
  z->kids = u->s;
  pp_note_server(L, -1);
  lua_pushvalue(L, -1);
  if (z->handle == LUA_NOREF)
    z->handle = luaL_ref(L, LUA_REGISTRYINDEX);
  else
    lua_rawseti(L, LUA_REGISTRYINDEX, z->handle);
  return 1;
}

int pp_serial_wait(pp_engine *e, bool (*until)(void *ud), void *ud,
                   int64_t deadline) {
  const pp_serial *z = e->serial;

  for (;;) {
    int64_t left = deadline < 0 ? INT64_MAX : deadline - pp_now_ns();

    if (e->callbacks > 0 && !e->in_callback)
      return PP_EAGAIN;
    if (until(ud))
      return 1;
    if (pp_runner_stopping(z->runner) != NULL)
      return PP_EAGAIN;
    if (left <= 0)
      return 0;
    if (e->may_run && pp_serial_due(e))
      return PP_EAGAIN;
    poll(NULL, 0,
         left > 60000000000 ? 60000 : (int)((left + 999999) / 1000000));
  }
}

void pp_serial_check(pp_engine *e, lua_State *L) {
  pp_runner *r = e->serial->runner;
  const char *why = pp_runner_stopping(r);

  if (why == NULL)
    return;
  pp_runner_stopped(r, L);
  luaL_error(L, "%s", why);
}

/* --- opening and closing -------------------------------------------------- */

/* The caller has made sure that finalizers find no engine but z's own. */
static void close_state(pp_serial *z) {
  lua_State *L = z->L;
  pp_engine *at = z->engine->at;

  z->L = NULL;
  z->engine->at = z->own;
  if (L != NULL)
    lua_close(L);
  z->engine->at = at;
  close_own(z);
  pp_runner_free(z->runner);
  z->runner = NULL;
  if (z->empty != NULL)
    fclose(z->empty);
  z->empty = NULL;
  z->done = 0;
}

static bool open_state(pp_serial *z) {
  if (z->L != NULL)
    return true;
  z->empty = fopen("/dev/null", "re");
  z->L = z->empty != NULL ? pp_state_new(z->engine->options->noenv) : NULL;
  if (z->L == NULL)
    goto fail;
  lua_pushcfunction(z->L, prepare);
  lua_pushlightuserdata(z->L, z);
  if (lua_pcall(z->L, 1, 0, 0) != LUA_OK ||
      (z->runner = pp_runner_new(z->L)) == NULL || !open_own(z))
    goto fail;
  lua_settop(z->L, 0);
  pp_runner_name(z->runner, 0, "local");
  pp_runner_reseed(z->runner);
  return true;
fail:
  close_state(z);
  return false;
}

/* Nothing is known of what it holds any more. The lock held. */
static void forget_blobs(pp_serial *z) {
  for (size_t w = 0; w < z->has_words; w++)
    for (uint64_t bits = z->has[w]; bits != 0; bits &= bits - 1)
      pp_engine_blob_lost(z->from,
                          (uint32_t)(w * 64) + (uint32_t)__builtin_ctzll(bits),
                          z->lane);
  if (z->has_words > 0)
    memset(z->has, 0, z->has_words * sizeof *z->has);
  z->ndrops = 0;
}

static void free_serial(pp_serial *z) {
  close_state(z);
  free(z->has);
  free(z->drops);
  pp_buf_clear(&z->frame);
  pp_buf_clear(&z->out);
  free(z);
}

/* What runs the jobs of s: its own, or what is within the job it belongs to. */
static pp_serial *serial_for(pp_server *s) {
  pp_serial *outer = s->engine->serial;
  pp_serial **at = outer != NULL ? &outer->inner : &s->serial, *z = *at;

  if (z != NULL) {
    z->server = s;
    return z;
  }
  z = calloc(1, sizeof *z);
  if (z == NULL)
    return NULL;
  z->place.ops = &ops;
  z->from = s->engine;
  z->engine = outer != NULL ? outer->engine : s->engine;
  z->server = s;
  z->outer = outer;
  z->handle = LUA_NOREF;
  z->lane = PP_LANES_MAX + z->engine->nserials++;
  *at = z;
  return z;
}

void pp_serial_close(pp_server *s) {
  pp_serial *z = s->serial;
  pp_engine *e = s->engine;

  if (z == NULL)
    return;
  pp_engine_enter(e);
  forget_blobs(z);
  s->serial = NULL;
  pp_engine_leave(e);
  e->in_job = true; /* finalizers of jobs are no part of the script */
  free_serial(z);
  e->in_job = false;
}

/* --- blobs ---------------------------------------------------------------- */

static bool holds(const pp_serial *z, uint32_t id) {
  return id / 64 < z->has_words && (z->has[id / 64] >> id % 64 & 1);
}

static void drop(pp_serial *z, uint32_t id) {
  if (!holds(z, id))
    return;
  z->has[id / 64] &= ~((uint64_t)1 << id % 64);
  if (z->ndrops == z->cap_drops) {
    size_t cap = z->cap_drops ? z->cap_drops * 2 : 16;
    uint32_t *v = realloc(z->drops, cap * sizeof *v);

    if (v == NULL)
      return; /* it stays until its number is used again */
    z->drops = v;
    z->cap_drops = cap;
  }
  z->drops[z->ndrops++] = id;
}

void pp_serial_drop(pp_engine *e, uint32_t lane, uint32_t id) {
  pp_serial *z = NULL;

  for (const pp_server *s = e->servers; s != NULL && z == NULL; s = s->next)
    if (s->serial != NULL && s->serial->lane == lane)
      z = s->serial;
  for (const pp_server *s = e->closed; s != NULL && z == NULL; s = s->next)
    if (s->serial != NULL && s->serial->lane == lane)
      z = s->serial;
  if (z != NULL)
    drop(z, id);
}

static int give_blob(pp_serial *z, pp_blob *b) {
  unsigned char head[PP_BLOB_HEAD] = {0}, id[4];
  int r = 0;

  if (b == NULL || holds(z, b->id))
    return 0;
  for (uint32_t i = 0; i < b->ndeps && r == 0; i++)
    r = give_blob(z, b->deps[i]);
  if (r != 0)
    return r;
  if (b->id / 64 >= z->has_words) {
    size_t words = b->id / 64 + 8;
    uint64_t *v = realloc(z->has, words * sizeof *v);

    if (v == NULL)
      return PP_ENOMEM;
    memset(v + z->has_words, 0, (words - z->has_words) * sizeof *v);
    z->has = v;
    z->has_words = words;
  }
  pp_put32(head + PP_BLOB_ID, b->id);
  pp_put32(head + PP_BLOB_KIND, (uint32_t)b->kind);
  pp_put64(head + PP_BLOB_HASH, b->hash.lo);
  pp_put64(head + PP_BLOB_HASH + 8, b->hash.hi);
  pp_put32(head + PP_BLOB_NDEPS, b->ndeps);
  z->frame.len = 0;
  r = pp_buf_put(&z->frame, head, sizeof head);
  for (uint32_t i = 0; i < b->ndeps && r == 0; i++) {
    pp_put32(id, b->deps[i]->id);
    r = pp_buf_put(&z->frame, id, 4);
  }
  if (r == 0)
    r = pp_buf_put(&z->frame, b->bytes, b->len);
  if (r == 0)
    r = pp_runner_blob(z->runner, z->frame.data, z->frame.len);
  if (r == 0)
    r = pp_blob_held(b, z->lane);
  if (r == 0)
    z->has[b->id / 64] |= (uint64_t)1 << b->id % 64;
  if (z->frame.cap > 1 << 20)
    pp_buf_clear(&z->frame);
  return r;
}

/* Everything the job refers to, and nothing any more that is gone. */
static int give_blobs(pp_serial *z, const pp_job *j) {
  unsigned char id[4];
  int r;

  for (size_t i = 0; i < z->ndrops; i++) {
    pp_put32(id, z->drops[i]);
    pp_runner_drop(z->runner, id, 4);
  }
  z->ndrops = 0;
  r = give_blob(z, j->fn);
  if (r == 0)
    r = give_blob(z, j->setting);
  for (uint32_t i = 0; i < j->ndeps && r == 0; i++)
    r = give_blob(z, j->deps[i]);
  return r;
}

/* --- running a job -------------------------------------------------------- */

/* The server whose first job has waited longest. */
static pp_server *next_server(const pp_engine *e) {
  pp_server *first = NULL;

  for (pp_server *s = e->servers; s != NULL; s = s->next)
    if (s->ncpus == 0 && s->sched.queue.head != NULL &&
        (first == NULL ||
         s->sched.queue.head->submitted < first->sched.queue.head->submitted))
      first = s;
  return first;
}

bool pp_serial_due(const pp_engine *e) {
  return e->nest == NULL && !e->in_job && next_server(e) != NULL;
}

static int64_t cpu_now(void) {
  struct timespec t;

  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void nothing(void *ud) { (void)ud; }

/* The job has not ended by itself. */
static void end_stopped(pp_serial *z, pp_job *j) {
  pp_server *s = z->server;
  char msg[80];

  j->started = z->began;
  j->ended = pp_now_ns();
  j->run = j->ended - j->started - z->waited;
  j->attempts++;
  s->stats.njobs++;
  s->stats.time += j->run;
  if (z->stop == PP_KIND_TIMEOUT + 1) {
    snprintf(msg, sizeof msg, "the job ran longer than its timeout of %g s",
             (double)j->timeout / 1e9);
    pp_server_fail(s, j, PP_KIND_TIMEOUT, msg);
  } else {
    pp_server_fail(s, j, PP_KIND_CANCELLED, "the job was interrupted");
  }
}

static void end_exited(pp_serial *z, pp_job *j) {
  char how[80];

  snprintf(how, sizeof how, "worker 0 called os.exit with status %d",
           z->status);
  j->attempts++;
  j->started = z->began;
  j->run = pp_now_ns() - z->began;
  pp_server_lost(z->server, j, how);
}

/* As link.c takes down a worker's result. */
static void end_with_result(pp_serial *z, pp_job *j, int64_t cpu) {
  pp_server *s = z->server;
  const unsigned char *h = z->out.data;
  size_t len = z->out.len - PP_RES_HEAD;
  uint64_t bytes = PP_FRAME_HEAD + z->out.len;

  j->started = (int64_t)pp_get64(h + PP_RES_START);
  j->run = (int64_t)pp_get64(h + PP_RES_RUN) - z->waited;
  if (j->run < 0)
    j->run = 0;
  cpu -= z->waited_cpu;
  j->ended = pp_now_ns();
  j->cpu = cpu < 0 ? 0 : cpu < j->run ? cpu : j->run;
  j->maxrss = z->maxrss;
  j->failing = pp_get32(h + PP_RES_STATUS) & 1;
  j->attempts++;
  j->received += bytes;
  s->stats.received += bytes;
  s->stats.failed += pp_get32(h + PP_RES_STATUS) >> 1;
  z->from->meter.failed += pp_get32(h + PP_RES_STATUS) >> 1;
  s->stats.time += j->run;
  s->stats.cpu += j->cpu;
  if (s->stats.maxrss < j->maxrss)
    s->stats.maxrss = j->maxrss;
  if (j->fn != NULL)
    j->fn->run_ns = j->fn->run_ns < 0
                        ? j->run
                        : j->fn->run_ns + (j->run - j->fn->run_ns) / 8;
  if (pp_job_store(j, h + PP_RES_HEAD, len) != 0) {
    s->stats.njobs++;
    pp_server_fail(s, j, PP_KIND_LOST, "not enough memory to keep its result");
    return;
  }
  if (j->failing && j->result_len > 0 && j->result[0] == PP_KIND_ERROR &&
      pp_server_again(s, j))
    return;
  s->stats.njobs += j->items > 0 ? j->items : 1;
  pp_server_ended(s, j, j->failing);
}

static void measure(pp_serial *z, int64_t run) {
  struct rusage ru;

  if (run < MEASURED_NS && z->maxrss != 0)
    return;
  getrusage(RUSAGE_SELF, &ru);
  z->maxrss = (uint64_t)ru.ru_maxrss * 1024;
}

/* Between taking the job from the queue and its end; the lock free. Returns as
 * pp_runner_job. */
static int execute(pp_serial *z, pp_job *j, int64_t *cpu) {
  pp_engine *e = z->engine;
  unsigned char *memory = j->frame + PP_FRAME_HEAD + PP_JOB_MEMORY;
  uint64_t most = pp_get64(memory);
  int64_t run, cpu_began = cpu_now();
  int r;

  z->out.len = 0;
  z->next_id = 0;
  pp_put64(memory, 0); /* it is for workers */
  e->at = z->own;
  S.at = z;
  if (j->timeout > 0)
    arm(j->timeout, GRACE_NS);
  if (pp_interrupt_pending()) /* before anybody could have told this job */
    pp_serial_interrupt();
  r = pp_runner_job(z->runner, j->frame + PP_FRAME_HEAD,
                    j->frame_len - PP_FRAME_HEAD, &z->out, nothing, NULL);
  end_kids(z);
  run = pp_now_ns() - z->began;
  if (z->outer == NULL) /* others may have been started by that one */
    pp_capture_reap(e, run);
  fflush(stdout), fflush(stderr);
  if (j->timeout > 0 || z->stop != 0)
    arm(0, 0);
  S.at = z->outer;
  *cpu = run < CLOCKED_NS ? run : cpu_now() - cpu_began;
  measure(z, run);
  pp_put64(memory, most);
  z->done++;
  if (z->forced || z->exited || r != 0 ||
      (z->server->restart > 0 && z->done >= z->server->restart)) {
    close_state(z); /* as a worker is replaced */
  } else {
    pp_runner_unstop(z->runner);
    pp_state_unpoke(z->L);
  }
  return r;
}

/* Modules are found as the outer job finds them. */
static int copy_paths(lua_State *L) {
  lua_State *from = lua_touserdata(L, 1);
  static const char *const names[] = {"path", "cpath"};

  luaL_checkstack(from, 5, NULL);
  lua_getfield(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  lua_getfield(L, -1, "package");
  for (int i = 0; i < 2; i++) {
    const char *s = NULL;
    int top = lua_gettop(from);

    luaL_getsubtable(from, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
    lua_pushliteral(from, "package");
    if (lua_rawget(from, -2) == LUA_TTABLE) {
      lua_pushstring(from, names[i]);
      lua_rawget(from, -2);
      s = lua_tostring(from, -1);
    }
    if (s != NULL) {
      lua_pushstring(L, s);
      lua_setfield(L, -2, names[i]);
    }
    lua_settop(from, top);
  }
  return 0;
}

/* May one more job run within those that run? Each takes C stack. */
static bool has_room(const pp_serial *z) {
  static const size_t enough = (size_t)1 << 20;
  const pp_serial *first = z;
  struct rlimit lim;
  size_t used;

  while (first->outer != NULL)
    first = first->outer;
  used = first->stack - (uintptr_t)&lim;
  return first == z || getrlimit(RLIMIT_STACK, &lim) < 0 ||
         lim.rlim_cur == RLIM_INFINITY || used + enough < lim.rlim_cur;
}

/* Run j, which z holds now, to its end, whatever that is. */
static void run_job(pp_serial *z, pp_job *j) {
  pp_engine *e = z->engine;
  pp_server *s = z->server;
  int64_t cpu = 0;
  int r = 0;
  bool open, room;

  z->stop = z->forced = z->exited = 0;
  z->waited = z->waited_cpu = 0;
  z->stack = (uintptr_t)&cpu;
  z->began = pp_now_ns();
  room = has_room(z);
  e->in_job = true;
  e->at = NULL;
  open = room && open_state(z);
  if (open && z->outer != NULL) {
    lua_pushcfunction(z->L, copy_paths);
    lua_pushlightuserdata(z->L, pp_state_running(z->outer->L));
    if (lua_pcall(z->L, 1, 0, 0) != LUA_OK)
      lua_settop(z->L, 0);
  }
  pp_engine_enter(e);
  if (open)
    r = give_blobs(z, j);
  pp_capture_job(e, s);
  pp_job_address(j, 1);
  pp_kin_anew(j);
  j->sent += j->frame_len;
  s->stats.sent += j->frame_len;
  pp_engine_leave(e);
  if (open && r == 0)
    r = execute(z, j, &cpu);
  e->in_job = z->outer != NULL;
  e->at = z->outer != NULL ? z->outer->own : NULL;
  pp_engine_enter(e);
  if (z->L == NULL)
    forget_blobs(z);
  if (z->place.jobs.head != j) { /* somebody has ended it meanwhile */
    pp_capture_settle(e, NULL);
    goto done;
  }
  pp_capture_settle(e, j);
  pp_jobs_remove(&z->place.jobs, j);
  j->state = PP_JOB_ENDING;
  if (!open || r != 0) {
    s->stats.njobs++;
    pp_server_fail(s, j, PP_KIND_LOST,
                   room ? "not enough memory to run it here"
                        : "too many jobs wait for one another in this process");
  } else if (z->exited) {
    end_exited(z, j);
  } else if (z->stop != 0) {
    end_stopped(z, j);
  } else {
    end_with_result(z, j, cpu);
  }
  if (j->state == PP_JOB_QUEUED) /* again, perhaps elsewhere */
    j->flags &= (uint8_t)~PP_JOB_HERE;
  if (z->outer != NULL) {
    z->outer->waited += pp_now_ns() - z->began;
    z->outer->waited_cpu += cpu + z->waited_cpu;
  }
done:
  if (z->out.cap > 1 << 20)
    pp_buf_clear(&z->out);
  pp_engine_leave(e);
}

void pp_serial_run(pp_engine *from) {
  pp_engine *e = from->serial != NULL ? from->serial->engine : from;
  pp_serial *outer = from->serial, *z;
  struct itimerspec left = {0};
  pp_buf kept[2] = {0};
  pp_server *s;
  pp_job *j;
  int cwd = -1;

  if (outer != NULL) {
    cwd = open(".", O_PATH | O_CLOEXEC);
    if (S.ready) { /* its time stands still */
      timer_gettime(S.timer, &left);
      arm(0, 0);
    }
    fflush(stdout), fflush(stderr);
  }
  pp_engine_enter(e);
  s = next_server(from);
  if (s == NULL) {
    pp_engine_leave(e);
    return;
  }
  z = serial_for(s);
  j = pp_sched_first(&s->sched);
  errno = ENOMEM;
  if (z == NULL || pp_capture_begin(e) != 0) {
    char why[120];

    snprintf(why, sizeof why, "cannot run it in this process: %s",
             strerror(errno));
    pp_server_fail(s, j, PP_KIND_LOST, why);
    pp_engine_leave(e);
    return;
  }
  prepare_signals();
  if (outer != NULL)
    pp_capture_aside(e, outer->place.jobs.head, kept);
  pp_job_ref(j);
  pp_jobs_push(&z->place.jobs, j);
  j->state = PP_JOB_SENT;
  j->place = &z->place;
  j->flags |= PP_JOB_HERE;
  j->worker = 0;
  pp_engine_leave(e);
  run_job(z, j);
  pp_engine_enter(e);
  pp_job_unref(j, &from->blobs);
  if (outer != NULL) {
    pp_capture_job(e, outer->server);
    pp_capture_back(e, kept);
    if (cwd >= 0) {
      (void)!fchdir(cwd);
      close(cwd);
    }
  }
  pp_engine_leave(e);
  if (outer != NULL && outer->stop != 0)
    arm(GRACE_NS, GRACE_NS);
  else if (outer != NULL && S.ready)
    timer_settime(S.timer, 0, &left, NULL);
}
