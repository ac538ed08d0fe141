/* SPDX-License-Identifier: MIT */
#include "worker.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "command.h"
#include "message.h"
#include "proc.h"
#include "state.h"
#include "worker_impl.h"

#define SIG_ORPHAN (SIGRTMIN + 3)

/* A job that needs more is not looked at closely: lone_string. */
#define LONE_DEPS 64u

worker pp_the_worker;

/* --- frames --------------------------------------------------------------- */

/* Is a job it is at to be stopped? Async-signal-safe. */
static bool to_stop(const worker *w) {
  uint64_t stop = atomic_load(&w->map.lane->stop) >> 8;
  const pp_nested *at = pp_nest_at(w->nest);

  while (stop != 0 && at != NULL && at->seq != stop)
    at = at->outer;
  return stop != 0 && at != NULL;
}

static void taken(void *ud) {
  worker *w = ud;

  if (w->frame > 0)
    pp_worker_consume(w, w->frame);
  w->frame = 0;
  pp_buf_clear(&w->big);
  if (w->lent > 0) {
    unsigned char *p = pp_state_unlend(pp_runner_state(w->runner));

    if (p != NULL)
      pp_block_free(w->blocks, p, w->lent);
    w->lent = 0;
  }
}

static _Noreturn void give_up(const char *why) {
  dprintf(2, "ppsh: worker: %s\n", why);
  _exit(70);
}

/* Open a window on what the reference at the end of a payload speaks of. */
static pp_window look(worker *w, const unsigned char *p, size_t len) {
  pp_window v;

  if (pp_window_open(&w->windows, pp_get64(p + len - PP_REF_SIZE + PP_REF_AT),
                     (size_t)pp_get64(p + len - PP_REF_SIZE + PP_REF_LEN),
                     &v) != 0)
    give_up("not enough memory for a frame");
  return v;
}

/* The driver may have let go the memory of what is kept for the next result. */
static void check_trimmed(worker *w) {
  uint32_t n =
      atomic_load_explicit(&w->map.lane->trimmed, memory_order_relaxed);

  if (PP_LIKELY(n == w->trimmed))
    return;
  w->trimmed = n;
  pp_hold_forget(&w->hold);
  pp_windows_trim(&w->windows);
}

/* Send a result: what is far too large for the ring by saying where it is. */
static void send_result(worker *w, pp_buf *out) {
  const size_t head = PP_FRAME_HEAD + PP_RES_HEAD;
  unsigned char f[PP_FRAME_HEAD + PP_RES_HEAD + PP_REF_SIZE];
  size_t body = out->len - head, rest;
  const unsigned char *tail;
  pp_slot s;

  rest = pp_runner_tail(w->runner, &tail);
  if (rest > 0) {
    pp_frame_head(out->data, PP_F_RESULT, out->len - PP_FRAME_HEAD + rest);
    pp_worker_send(w, out->data, out->len);
    pp_worker_send(w, tail, rest);
    w->moved += rest;
    pp_runner_untail(w->runner);
    return;
  }
  if (!out->afar || w->hold.end == 0 || out->len < PP_CARGO_LEAST) {
    w->moved += out->afar ? body : 0;
    pp_frame_head(out->data, PP_F_RESULT, out->len - PP_FRAME_HEAD);
    pp_worker_send(w, out->data, out->len);
    return;
  }
  s = pp_hold_take(&w->hold, out);
  memcpy(f, s.p, head);
  pp_frame_head(f, PP_F_RESULT | PP_F_AFAR, PP_RES_HEAD + PP_REF_SIZE);
  pp_put_ref(f + head, s.at + head, body, s.cap);
  pp_hold_sent(&w->hold, s);
  w->moved += body;
  pp_worker_send(w, f, sizeof f);
}

/* Run a job, unless it was taken back. In the midst of another if that waits.
 * afar: the rest of it is cargo, which is ours once it is claimed. */
static void job(worker *w, const unsigned char *p, size_t len, bool afar) {
  uint32_t seq, sent, got;
  pp_window rest = {0};
  pp_buf out, in;
  pp_nested at;
  int r;

  if (len < PP_JOB_HEAD + (afar ? PP_REF_SIZE : 0))
    give_up("malformed job");
  check_trimmed(w);
  seq = pp_get32(p + PP_JOB_SEQ);
  sent = seq << 2 | PP_CLAIM_SENT;
  got = sent;
  pp_nest_begin(w->nest, &at, seq);
  atomic_store(&w->map.lane->begun, pp_now_ns());
  if (!atomic_compare_exchange_strong(&w->map.lane->claim[seq % PP_WINDOW],
                                      &got, seq << 2 | PP_CLAIM_TAKEN)) {
    pp_nest_end(w->nest, &at);
    return; /* recalled */
  }
  if (at.outer == NULL)
    atomic_store(&w->map.lane->outer, seq);
  if (PP_UNLIKELY(atomic_load(&w->map.lane->watched) != 0)) {
    atomic_store(&w->map.lane->watched, 0);
    pp_worker_ring(w);
  }
  in = w->in;
  memset(&w->in, 0, sizeof w->in);
  in.len = 0;
  if (w->frame > 0) { /* off the ring: it may read on before it is done with */
    if (pp_buf_put(&in, p, len) != 0)
      give_up("not enough memory");
    p = in.data;
    taken(w);
  }
  if (afar) {
    rest = look(w, p, len);
    w->moved += rest.len;
  } else if (w->rest != NULL) {
    rest.p = w->rest;
    rest.len = w->nrest;
    w->rest = NULL;
  }
  out = w->out;
  memset(&w->out, 0, sizeof w->out);
  out.len = 0;
  out.home = w->hold.end > 0 ? &w->hold.home : &w->heap.home;
  if (pp_buf_reserve(&out, PP_FRAME_HEAD + 256) != 0)
    give_up("not enough memory");
  out.len = PP_FRAME_HEAD;
  r = (at.outer == NULL ? pp_runner_job : pp_runner_inner)(
      w->runner, p, len, rest.p, rest.len, &out, taken, w);
  if (afar)
    pp_window_close(&w->windows, &rest);
  if (in.cap <= 1 << 20) {
    pp_buf_clear(&w->in);
    w->in = in;
  } else {
    pp_buf_clear(&in);
  }
  if (r != 0)
    give_up(pp_strerror(r));
  pp_nest_end(w->nest, &at);
  if (!to_stop(w)) /* a stop may be meant for an outer one */
    pp_runner_unstop(w->runner);
  pp_worker_settle(w, out.data + PP_FRAME_HEAD, &at);
  send_result(w, &out);
  if (out.afar || out.cap > 1 << 20)
    pp_buf_clear(&out);
  pp_buf_clear(&w->out);
  w->out = out;
}

static void stash(worker *w, const unsigned char *p, size_t len, bool afar) {
  stashed *s;
  uint32_t seq;

  if (len < PP_JOB_HEAD)
    give_up("malformed job");
  seq = pp_get32(p + PP_JOB_SEQ);
  if (atomic_load(&w->map.lane->claim[seq % PP_WINDOW]) !=
      (seq << 2 | PP_CLAIM_SENT))
    return; /* taken back already */
  s = malloc(sizeof *s + len);
  if (s == NULL)
    give_up("not enough memory for a job");
  s->next = NULL;
  s->afar = afar;
  s->len = len;
  memcpy(s->bytes, p, len);
  if (w->last != NULL)
    w->last->next = s;
  else
    w->first = s;
  w->last = s;
}

bool pp_worker_unstash(worker *w) {
  stashed **p = &w->first, *s, *prev = NULL;

  if (pp_nest_at(w->nest) != NULL)
    while (*p != NULL &&
           !(pp_get32((*p)->bytes + PP_JOB_FLAGS) & PP_JOBF_NOW)) {
      prev = *p;
      p = &prev->next;
    }
  s = *p;
  if (s == NULL)
    return false;
  *p = s->next;
  if (w->last == s)
    w->last = prev;
  job(w, s->bytes, s->len, s->afar);
  free(s);
  pp_worker_ready(w, pp_now_ns(), w->first != NULL);
  return true;
}

static void leave(worker *w) {
  fflush(stdout), fflush(stderr);
  pp_worker_end_children();
  (void)w;
  _exit(0);
}

static void next_job(worker *w, const unsigned char *p, size_t len, bool afar) {
  bool now = len >= PP_JOB_HEAD &&
             (pp_get32(p + PP_JOB_FLAGS) & PP_JOBF_NOW) != 0 && w->may_run;

  if (pp_nest_at(w->nest) != NULL && !now) {
    stash(w, p, len, afar);
    return;
  }
  job(w, p, len, afar);
  pp_worker_ready(w, pp_now_ns(), pp_ring_used(&w->map.lane->in) > w->frame);
}

/* More for the command of the job at work; else it comes too late. */
static void take_fed(worker *w, const unsigned char *p, size_t len) {
  const pp_nested *at = pp_nest_at(w->nest);

  if (len < PP_FED_HEAD)
    give_up("malformed input");
  if (at == NULL || pp_get32(p + PP_FED_SEQ) != at->seq ||
      pp_get64(p + PP_FED_HAD) != w->fed_had)
    return;
  if (pp_buf_put(&w->fed, p + PP_FED_HEAD, len - PP_FED_HEAD) != 0)
    give_up("not enough memory for input");
  w->fed_come = true;
  w->fed_ended = pp_get32(p + PP_FED_END) != 0;
}

static void frame(worker *w, int type, const unsigned char *p, size_t len) {
  bool afar = (type & PP_F_AFAR) != 0;
  pp_window rest = {0};
  int r = 0;

  if (afar && len < PP_REF_SIZE)
    give_up("malformed frame");
  if (afar && type != (PP_F_JOB | PP_F_AFAR)) {
    rest = look(w, p, len);
    len -= PP_REF_SIZE;
  }
  switch (type & ~PP_F_AFAR) {
  case PP_F_JOB:
    next_job(w, p, len, afar);
    break;
  case PP_F_BLOB:
    r = pp_runner_blob(w->runner, p, len, afar ? &rest : NULL, &w->windows);
    break;
  case PP_F_RELEASE:
    if (len != PP_RELEASE_SIZE)
      give_up("malformed release");
    pp_hold_released(&w->hold, pp_get64(p),
                     (size_t)pp_get64(p + PP_RELEASE_CAP), p[PP_RELEASE_COLD]);
    break;
  case PP_F_DROP:
    r = pp_runner_drop(w->runner, p, len);
    break;
  case PP_F_QUIT:
    w->quit = true;
    break;
  case PP_F_FED:
    take_fed(w, p, len);
    break;
  case PP_F_CONFIG:
  case PP_F_CHILD:
  case PP_F_SAID:
    pp_nest_heard(w->nest, type & ~PP_F_AFAR, p, len, afar ? &rest : NULL);
    pp_window_close(&w->windows, &rest);
    break;
  default:
    give_up("unknown frame");
  }
  if (r != 0)
    give_up(pp_strerror(r));
}

/* Take the next len bytes of input, waiting for them. */
static void read_bytes(worker *w, unsigned char *p, size_t len) {
  pp_ring *in = &w->map.lane->in;

  while (len > 0) {
    size_t n = pp_ring_used(in);

    if (n == 0) {
      pp_worker_wait(w, PP_WANTS_INPUT, 0, -1);
      continue;
    }
    if (n > len)
      n = len;
    memcpy(p, pp_ring_start(in, w->map.in), n);
    pp_worker_consume(w, n);
    p += n;
    len -= n;
  }
}

/* Read the rest of a large job: its arguments may be a string by itself, and
 * come to where that is to have its bytes. False: they cannot be. */
static bool lone_string(worker *w, unsigned char *head, size_t len) {
  lua_State *L = pp_runner_state(w->runner);
  size_t ndeps = pp_get32(head + PP_JOB_NDEPS), at = pp_state_string_at(L), n;
  unsigned char *block, *p;

  if (at == 0 || ndeps > LONE_DEPS || pp_get32(head + PP_JOB_EXTRA) > 0 ||
      pp_get32(head + PP_JOB_FLAGS) & (PP_JOBF_CHUNK | PP_JOBF_INLINE))
    return false;
  len -= PP_JOB_HEAD + 4 * ndeps;
  n = pp_message_lone(len);
  if (!pp_block_large(n) || len - n > at)
    return false;
  w->lent = pp_state_string_size(L, n);
  block = pp_block_new(w->blocks, w->lent);
  if (block == NULL)
    give_up("not enough memory for a frame");
  p = block + at - (len - n);
  w->moved += len;
  read_bytes(w, head + PP_JOB_HEAD, 4 * ndeps);
  read_bytes(w, p, len);
  w->rest = p;
  w->nrest = len;
  w->frame = 0;
  pp_state_lend(L, block, n);
  frame(w, PP_F_JOB, head, PP_JOB_HEAD + 4 * ndeps);
  w->rest = NULL; /* it may have been taken back */
  taken(w);
  return true;
}

/* A frame that is not whole in the ring: collect it. */
static void big_frame(worker *w, int type, size_t len) {
  pp_buf b = {.home = &w->heap.home};
  unsigned char head[PP_JOB_HEAD + 4 * LONE_DEPS];
  size_t had = 0;

  pp_worker_consume(w, PP_FRAME_HEAD);
  if (type == PP_F_JOB && pp_block_large(len) && pp_nest_at(w->nest) == NULL) {
    had = PP_JOB_HEAD;
    read_bytes(w, head, had);
    if (lone_string(w, head, len))
      return;
  }
  if (pp_buf_reserve(&b, len) != 0)
    give_up("not enough memory for a frame");
  w->moved += b.afar ? len : 0;
  memcpy(b.data, head, had);
  read_bytes(w, b.data + had, len - had);
  w->frame = 0;
  w->big = b;
  frame(w, type, b.data, len);
  pp_buf_clear(&w->big);
}

/* Read frames into memory until one of this type has come: its payload is
 * appended to out. Those before it wait until the job is over. */
static int read_until(worker *w, int type, pp_buf *out) {
  for (;;) {
    unsigned char h[PP_FRAME_HEAD];
    size_t len;
    early *f;

    read_bytes(w, h, sizeof h);
    len = (size_t)(pp_get64(h) >> 8);
    if (h[0] == type) {
      if (pp_buf_reserve(out, len) != 0)
        give_up("not enough memory for a module");
      read_bytes(w, out->data + out->len, len);
      out->len += len;
      return 0;
    }
    f = malloc(sizeof *f + len);
    if (f == NULL)
      give_up("not enough memory for a frame");
    f->next = NULL;
    f->type = h[0];
    f->len = len;
    read_bytes(w, f->bytes, len);
    *w->early_end = f;
    w->early_end = &f->next;
  }
}

/* The job it is at requires a module this worker has not. */
static int want(void *ud, const char *name, size_t len, pp_buf *out) {
  worker *w = ud;
  unsigned char f[PP_FRAME_HEAD + PP_WANT_HEAD + PP_WANT_NAME_MAX];

  pp_frame_head(f, PP_F_WANT, PP_WANT_HEAD + len);
  pp_put32(f + PP_FRAME_HEAD + PP_WANT_SEQ, pp_nest_at(w->nest)->seq);
  memcpy(f + PP_FRAME_HEAD + PP_WANT_HEAD, name, len);
  pp_worker_send(w, f, PP_FRAME_HEAD + PP_WANT_HEAD + len);
  pp_worker_ring(w);
  return read_until(w, PP_F_MODULE, out);
}

static void next_early(worker *w) {
  early *f = w->early;

  w->early = f->next;
  if (f->next == NULL)
    w->early_end = &w->early;
  w->frame = 0;
  frame(w, f->type, f->bytes, f->len);
  free(f);
}

/* All that was read is done with, and so is the cargo it spoke of. */
static void handled(worker *w) {
  pp_lane *l = w->map.lane;

  if (PP_UNLIKELY(atomic_load_explicit(&l->rest, memory_order_relaxed) !=
                  PP_FRESH))
    atomic_store(&l->rest, PP_FRESH);
  if (PP_LIKELY(w->early == NULL))
    atomic_store_explicit(
        &l->handled, atomic_load_explicit(&l->in.head, memory_order_relaxed),
        memory_order_release);
}

/* Wait for input beyond `used` bytes. */
static void await(worker *w, size_t used, int64_t deadline) {
  if (w->moved > 0 && pp_worker_idle(w)) {
    /* It is garbage by now: the next may have its memory. */
    pp_state_expect(pp_runner_state(w->runner), w->moved);
    w->moved = 0;
  }
  pp_worker_wait(w, PP_WANTS_INPUT, used, deadline);
}

int pp_worker_take(worker *w, int64_t deadline) {
  pp_ring *in = &w->map.lane->in;

  for (;;) {
    size_t used = pp_ring_used(in), len;
    const unsigned char *p = pp_ring_start(in, w->map.in);
    uint64_t head;
    int type;

    if (PP_UNLIKELY(w->early != NULL)) {
      next_early(w);
      handled(w);
      return 1;
    }
    if (used < PP_FRAME_HEAD) {
      if (deadline == 0 || (deadline > 0 && pp_now_ns() >= deadline))
        return 0;
      if (pp_runner_stopping(w->runner) != NULL)
        return PP_EAGAIN;
      await(w, used, deadline);
      continue;
    }
    head = pp_get64(p);
    type = (int)(head & 0xff);
    len = (size_t)(head >> 8);
    if (len > used - PP_FRAME_HEAD) {
      big_frame(w, type, len);
    } else {
      w->frame = PP_FRAME_HEAD + len;
      frame(w, type, p + PP_FRAME_HEAD, len);
      taken(w);
    }
    handled(w);
    return 1;
  }
}

static _Noreturn void loop(worker *w) {
  for (;;) {
    if (PP_UNLIKELY(w->first != NULL)) {
      pp_worker_unstash(w);
      continue;
    }
    if (PP_UNLIKELY(w->quit))
      leave(w);
    pp_worker_take(w, -1);
  }
}

/* --- start ---------------------------------------------------------------- */

/* The zygote is gone: so is everything in this process group, and whatever
 * left it, which comes to this process as its parents die. */
static void on_orphan(int sig) {
  (void)sig;
  for (int i = 0; i < 200 && pp_proc_kill_children(pp_worker_spares, NULL) > 0;
       i++)
    while (waitpid(-1, NULL, WNOHANG) > 0) {
    }
  kill(0, SIGKILL);
  _exit(1);
}

static const char *node_name = "local";

void pp_worker_node(const char *name) { node_name = name; }

/* The driver wants a job stopped: is it the one that runs? */
static void on_stop(int sig) {
  worker *w = &pp_the_worker;
  uint64_t stop = atomic_load(&w->map.lane->stop);

  (void)sig;
  if (!to_stop(w))
    return;
  pp_runner_stop(w->runner, (stop & 0xff) == PP_KIND_TIMEOUT
                                ? "the job ran longer than its timeout"
                                : "the job was cancelled");
  atomic_store(&w->map.lane->asleep, PP_BUSY); /* do not fall asleep now */
}

pp_runner *pp_worker_prepare(lua_State *L) {
  pp_runner *r = pp_runner_new(L);

  setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
  pp_the_worker.nest = r != NULL ? pp_nest_new(L) : NULL;
  return pp_the_worker.nest != NULL ? r : NULL;
}

_Noreturn void pp_worker_main(const pp_worker_start *s) {
  struct sigaction sa = {.sa_handler = on_orphan},
                   stop = {.sa_handler = on_stop};
  worker *w = &pp_the_worker;
  sigset_t none;
  int shm;

  setpgid(0, 0);
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  signal(SIGPIPE, SIG_DFL);
  sigaction(SIG_ORPHAN, &sa, NULL);
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
  prctl(PR_SET_PDEATHSIG, SIG_ORPHAN);
  if (getppid() != s->zygote)
    _exit(1);
  pp_proc_name("pp-worker");
  w->pipe[0] = fcntl(s->out, F_DUPFD_CLOEXEC, 10);
  w->pipe[1] = fcntl(s->err, F_DUPFD_CLOEXEC, 10);
  if (dup2(s->out, 1) < 0 || dup2(s->err, 2) < 0 || w->pipe[0] < 0 ||
      w->pipe[1] < 0)
    _exit(71);
  close(s->out);
  close(s->err);
  if (pp_lane_map(s->shm, s->lane, &w->map) != 0)
    give_up("cannot map its lane");
  shm = fcntl(s->shm, F_DUPFD_CLOEXEC, 10);
  if (shm < 0)
    _exit(71);
  close(s->shm);
  pp_hold_open(&w->hold, shm,
               w->map.lane->berth > 0 ? PP_BERTH_AT(w->map.lane->berth) : 0,
               PP_BERTH_AT(w->map.lane->berth + 1));
  w->hold.told = true;
  w->windows.fd = shm;
  w->blocks = pp_state_blocks(s->L);
  w->heap = pp_block_home_of(w->blocks);
  atomic_store(&w->blocks->most, PP_BLOCKS_KEPT);
  pp_worker_written(w);
  w->runner = s->runner;
  if (w->hold.end == 0)
    pp_runner_tails(w->runner);
  pp_nest_start(w->nest, w->runner, &pp_worker_nest_ops, w, &w->hold);
  w->stack = (uintptr_t)&none;
  w->stack_room = pp_worker_stack();
  w->hub = s->hub;
  w->bell = s->bell;
  w->zygote = s->zygote;
  w->lane = s->lane;
  w->number = s->number;
  w->early_end = &w->early;
  w->spin.pass = 1; /* a new one has yet to be given something */
  pp_runner_wants(s->runner, want, w);
  pp_runner_feeds(s->runner, &pp_worker_feed_ops);
  pp_runner_cuts(s->runner, w->map.lane);
  pp_runner_name(s->runner, s->number, node_name);
  pp_runner_reseed(s->runner);
  sigaction(PP_SIG_STOP, &stop, NULL);
  loop(w);
}
