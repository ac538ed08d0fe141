/* SPDX-License-Identifier: MIT */
#include "serial.h"

#include <errno.h>
#include <fcntl.h>
#include <lauxlib.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "capture.h"
#include "interrupt.h"
#include "kin.h"
#include "serial_impl.h"
#include "state.h"
#include "worker.h"

/* Between asking a job to stop and what does not ask. */
#define GRACE_NS ((int64_t)1000000000)
/* What ran for less is not worth a look at these. */
#define CLOCKED_NS 50000
#define MEASURED_NS 1000000

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
void pp_serial_on_forced(lua_State *L, lua_Debug *ar) {
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
    pp_state_poke(z->L, pp_serial_on_forced);
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

/* --- running a job -------------------------------------------------------- */

/* The server whose first job has waited longest; first of all one that has a
 * call of everywhere to be made. */
static pp_server *next_server(const pp_engine *e) {
  pp_server *first = NULL;
  const pp_job *j;

  for (pp_server *s = e->servers; s != NULL; s = s->next)
    if (pp_everywhere_due(s))
      return s;
    else if (pp_server_here(s) && (j = pp_sched_head(&s->sched)) != NULL &&
             (first == NULL ||
              j->submitted < pp_sched_head(&first->sched)->submitted))
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

static void say_late(const pp_job *j, char *out, size_t size) {
  snprintf(out, size, "the %s ran longer than its timeout of %g s",
           j->flags & PP_JOB_CALL ? "call" : "job", (double)j->timeout / 1e9);
}

/* The job has not ended by itself. */
static void end_stopped(pp_serial *z, pp_job *j) {
  pp_server *s = z->server;
  char msg[80];

  j->started = z->began;
  j->ended = pp_now_ns();
  j->run = j->ended - j->started - z->waited;
  j->flags |= PP_JOB_RAN;
  j->attempts++;
  s->local->stats.njobs++;
  s->local->stats.time += j->run;
  if (z->stop == PP_KIND_TIMEOUT + 1) {
    say_late(j, msg, sizeof msg);
    pp_server_fail(s, j, PP_KIND_TIMEOUT, msg);
  } else {
    pp_server_fail(s, j, PP_KIND_CANCELLED, "the job was interrupted");
  }
}

static void say_exited(const pp_serial *z, char *out, size_t size) {
  snprintf(out, size, "worker 0 called os.exit with status %d", z->status);
}

static void end_exited(pp_serial *z, pp_job *j) {
  char how[80];

  say_exited(z, how, sizeof how);
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
  pp_job_set_maxrss(j, z->maxrss);
  j->failing = pp_get32(h + PP_RES_STATUS) & 1;
  j->flags |= PP_JOB_RAN;
  j->attempts++;
  j->received += bytes;
  s->local->stats.received += bytes;
  s->local->stats.failed += PP_RES_ITEMS_FAILED(pp_get32(h + PP_RES_STATUS));
  z->from->meter.failed += PP_RES_ITEMS_FAILED(pp_get32(h + PP_RES_STATUS));
  s->local->stats.time += j->run;
  s->local->stats.cpu += j->cpu;
  if (s->local->stats.maxrss < z->maxrss)
    s->local->stats.maxrss = z->maxrss;
  if (j->fn != NULL)
    j->fn->run_ns = j->fn->run_ns < 0
                        ? j->run
                        : j->fn->run_ns + (j->run - j->fn->run_ns) / 8;
  if (pp_job_store(j, h + PP_RES_HEAD, len) != 0) {
    s->local->stats.njobs++;
    pp_server_fail(s, j, PP_KIND_LOST, "not enough memory to keep its result");
    return;
  }
  if (j->failing && j->result_len > 0 && j->result[0] == PP_KIND_ERROR &&
      pp_server_again(s, j))
    return;
  s->local->stats.njobs += j->items > 0 ? j->items : 1;
  pp_server_ended(s, j, j->failing);
}

/* A call of everywhere is over; the caller's reference passes. */
static void end_call(pp_serial *z, pp_job *run, const char *trouble) {
  pp_server *s = pp_serial_root(z)->server;
  const unsigned char *h = z->out.data;
  size_t len = z->out.len - PP_RES_HEAD;
  bool failing;
  char msg[80];

  if (z->outer != NULL) /* numbers mean others to what it runs from now on */
    pp_serial_forget_blobs(z, z->engine);
  if (trouble != NULL) {
    pp_everywhere_failed_here(s, z->server, run, PP_KIND_LOST, trouble);
  } else if (z->exited) {
    say_exited(z, msg, sizeof msg);
    pp_everywhere_lost_here(s, z->server, run, msg);
  } else if (z->stop == PP_KIND_TIMEOUT + 1) {
    say_late(run, msg, sizeof msg);
    pp_everywhere_failed_here(s, z->server, run, PP_KIND_TIMEOUT, msg);
  } else if (z->stop != 0) { /* whoever waits hears of it */
    z->engine->calls--;
    z->stale = true;
    pp_job_unref(run, &z->engine->blobs);
  } else {
    failing = pp_get32(h + PP_RES_STATUS) & 1;
    if (pp_job_store(run, h + PP_RES_HEAD, len) != 0)
      pp_everywhere_failed_here(s, z->server, run, PP_KIND_LOST,
                                "not enough memory to keep its result");
    else if (pp_everywhere_ran_here(s, z->server, run, failing))
      z->told = (uint32_t)run->id + 1;
    else
      z->stale = true;
  }
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
  int64_t run, cpu_began = cpu_now();
  int r;

  z->out.len = 0;
  z->next_id = 0;
  e->at = z->own;
  S.at = z;
  if (j->timeout > 0)
    arm(j->timeout, GRACE_NS);
  if (pp_interrupt_pending()) /* before anybody could have told this job */
    pp_serial_interrupt();
  r = pp_runner_job(
      z->runner, z->in.data + PP_FRAME_HEAD, z->in.len - PP_FRAME_HEAD,
      pp_job_args(j) != NULL ? pp_job_args(j)->p : NULL,
      pp_job_args(j) != NULL ? pp_job_args(j)->len : 0, &z->out, nothing, NULL);
  pp_serial_end_kids(z);
  run = pp_now_ns() - z->began;
  if (z->outer == NULL) /* others may have been started by that one */
    pp_capture_reap(e, run);
  fflush(stdout), fflush(stderr);
  if (j->timeout > 0 || z->stop != 0)
    arm(0, 0);
  S.at = z->outer;
  *cpu = run < CLOCKED_NS ? run : cpu_now() - cpu_began;
  measure(z, run);
  z->done += !(j->flags & PP_JOB_CALL);
  if (z->forced || z->exited || r != 0 ||
      (z->server->restart > 0 && z->done >= z->server->restart)) {
    pp_serial_close_state(z); /* as a worker is replaced */
  } else {
    pp_runner_unstop(z->runner);
    pp_state_unpoke(z->L);
  }
  return r;
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

/* What a worker would be sent, but for what only goes for workers. */
static int put_frame(pp_serial *z, const pp_job *j) {
  size_t head = pp_job_head_len(j);
  int r;

  z->in.len = 0;
  r = pp_buf_reserve(&z->in, pp_job_frame_len(j));
  if (r != 0)
    return r;
  pp_job_head(j, z->in.data);
  pp_put64(z->in.data + PP_FRAME_HEAD + PP_JOB_MEMORY, 0);
  z->in.len = head;
  r = pp_buf_put(&z->in, j->body, j->body_len);
  if (r == 0 && pp_job_tail(j) != NULL)
    r = pp_buf_put(&z->in, pp_job_tail(j)->p, pp_job_tail(j)->len);
  return r;
}

/* Run j, which z holds now, to its end, whatever that is. The reference of a
 * call passes. */
static void run_job(pp_serial *z, pp_job *j) {
  pp_engine *e = z->engine;
  pp_server *s = z->server;
  int64_t cpu = 0;
  int r = 0;
  bool open, room, call = j->flags & PP_JOB_CALL;
  const char *trouble;

  z->stop = z->forced = z->exited = 0;
  z->waited = z->waited_cpu = 0;
  z->stack = (uintptr_t)&cpu;
  z->began = pp_now_ns();
  room = has_room(z);
  e->in_job = true;
  e->at = NULL;
  if (z->stale) {
    pp_serial_close_state(z);
    pp_engine_enter(e);
    pp_serial_forget_blobs(z, z->from);
    pp_engine_leave(e);
  }
  open = room && pp_serial_open_state(z);
  pp_engine_enter(e);
  if (open)
    r = pp_serial_give_blobs(z, j);
  pp_capture_job(e, s);
  j->seq = 1;
  if (open && r == 0)
    r = put_frame(z, j);
  pp_kin_anew(j);
  j->sent += pp_job_bytes(j);
  s->local->stats.sent += pp_job_bytes(j);
  pp_engine_leave(e);
  if (open && r == 0)
    r = execute(z, j, &cpu);
  e->in_job = z->outer != NULL;
  e->at = z->outer != NULL ? z->outer->own : NULL;
  pp_engine_enter(e);
  if (z->L == NULL)
    pp_serial_forget_blobs(z, call ? e : z->from);
  if (z->place.jobs.head != j) { /* somebody has ended it meanwhile */
    pp_capture_settle(e, NULL);
    goto done;
  }
  if (z->in.cap > 1 << 20)
    pp_buf_clear(&z->in);
  pp_capture_settle(e, j);
  pp_jobs_remove(&z->place.jobs, j);
  j->state = PP_JOB_ENDING;
  trouble = !room ? "too many jobs wait for one another in this process"
            : !open || r != 0 ? "not enough memory to run it here"
                              : NULL;
  if (call) {
    end_call(z, j, trouble);
  } else if (trouble != NULL) {
    s->local->stats.njobs++;
    pp_server_fail(s, j, PP_KIND_LOST, trouble);
  } else if (z->exited) {
    end_exited(z, j);
  } else if (z->stop != 0) {
    end_stopped(z, j);
  } else {
    end_with_result(z, j, cpu);
  }
  if (j->state == PP_JOB_QUEUED) /* again, perhaps elsewhere */
    j->flags &= (uint16_t)~PP_JOB_HERE;
  if (z->outer != NULL) {
    z->outer->waited += pp_now_ns() - z->began;
    z->outer->waited_cpu += cpu + z->waited_cpu;
  }
done:
  if (z->out.cap > 1 << 20)
    pp_buf_clear(&z->out);
  pp_engine_leave(e);
}

const pp_blob *pp_serial_setting(const pp_engine *e) {
  const pp_job *j = e->serial->place.jobs.head;

  return j != NULL ? j->setting : NULL;
}

/* What is to run next, in no list: a call of everywhere that z has not made, or
 * the first job. NULL: nothing. */
static pp_job *next_here(pp_server *s, pp_serial *z) {
  pp_server *root;
  pp_call *c;
  pp_job *run;

  if (z == NULL)
    return s != NULL ? pp_sched_first(&s->sched) : NULL;
  root = pp_serial_root(z)->server;
  if (z->L != NULL && z->undone != root->calls.undone)
    z->stale = true;
  if (z->L == NULL || z->stale) {
    z->told = 0;
    z->undone = root->calls.undone;
  }
  c = pp_everywhere_here(root, &z->told);
  if (c == NULL)
    return pp_sched_first(&s->sched);
  if (z->outer != NULL && z->done > 0) { /* it holds blobs of other numbers */
    z->stale = true;
    z->told = 0;
    c = pp_everywhere_here(root, &z->told);
  }
  run = pp_everywhere_job(root, c, 0);
  if (run == NULL) {
    pp_server_fail_all(s, PP_KIND_LOST, "not enough memory to run it here");
    return NULL;
  }
  z->engine->calls++;
  return run;
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
  z = s != NULL ? pp_serial_for(s, &ops) : NULL;
  errno = ENOMEM;
  j = next_here(s, z);
  if (j == NULL) {
    pp_engine_leave(e);
    return;
  }
  if (z == NULL || pp_capture_begin(e) != 0) {
    char why[120];

    snprintf(why, sizeof why, "cannot run it in this process: %s",
             strerror(errno));
    if (j->flags & PP_JOB_CALL)
      pp_everywhere_failed_here(pp_serial_root(z)->server, s, j, PP_KIND_LOST,
                                why);
    else
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
  pp_job_unref(j, j->flags & PP_JOB_CALL ? &e->blobs : &from->blobs);
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
