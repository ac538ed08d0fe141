/* SPDX-License-Identifier: MIT */
/* What a job at work asks of its worker: jobs of its own, and input. */
#include <sys/resource.h>

#include "command.h"
#include "worker_impl.h"

/* --- for the jobs that jobs submit ---------------------------------------- */

static void nest_send(void *ud, const void *p, size_t len) {
  pp_worker_send(ud, p, len);
}

static void nest_sent(void *ud) { pp_worker_ring(ud); }

static int nest_take(void *ud, int64_t deadline) {
  worker *w = ud;
  bool was = w->may_run;
  int r;

  w->may_run = deadline != 0;
  r = w->may_run && w->first != NULL && pp_worker_unstash(w)
          ? 1
          : pp_worker_take(w, deadline);
  w->may_run = was;
  return r;
}

/* Jobs that run in the midst of others take C stack: it may grow as far as the
 * kernel leaves room for it. */
#define STACK_ROOM ((size_t)96 << 20)

size_t pp_worker_stack(void) {
  struct rlimit lim;

  if (getrlimit(RLIMIT_STACK, &lim) < 0)
    return (size_t)1 << 20;
  return lim.rlim_cur < STACK_ROOM ? (size_t)lim.rlim_cur : STACK_ROOM;
}

static bool nest_deep(void *ud) {
  worker *w = ud;
  size_t used = w->stack - (uintptr_t)&ud;
  struct rlimit lim;

  if (used <= w->stack_room / 2)
    return false;
  if (w->stack_room < STACK_ROOM && getrlimit(RLIMIT_STACK, &lim) == 0 &&
      lim.rlim_max > lim.rlim_cur) {
    lim.rlim_cur = lim.rlim_max < STACK_ROOM ? lim.rlim_max : STACK_ROOM;
    setrlimit(RLIMIT_STACK, &lim);
    w->stack_room = pp_worker_stack();
  }
  return used > w->stack_room / 2;
}

static void nest_written(void *ud, uint64_t bytes[2]) {
  worker *w = ud;

  pp_worker_written(w);
  for (int s = 0; s < 2; s++)
    bytes[s] = w->written[s];
}

const pp_nest_ops pp_worker_nest_ops = {
    .send = nest_send,
    .sent = nest_sent,
    .take = nest_take,
    .deep = nest_deep,
    .written = nest_written,
};

/* --- what commands read ----------------------------------------------------
 */

static void feed_ask(void *ud, uint64_t had) {
  worker *w = ud;
  unsigned char f[PP_FRAME_HEAD + PP_FEED_SIZE] = {0};

  w->fed.len = 0;
  w->fed_had = had;
  w->fed_come = w->fed_ended = false;
  pp_frame_head(f, PP_F_FEED, PP_FEED_SIZE);
  pp_put32(f + PP_FRAME_HEAD + PP_FEED_SEQ, pp_nest_at(w->nest)->seq);
  pp_put64(f + PP_FRAME_HEAD + PP_FEED_HAD, had);
  pp_worker_send(w, f, sizeof f);
  pp_worker_ring(w);
}

static int feed_take(void *ud, pp_buf *into) {
  worker *w = ud;
  pp_buf was = *into;

  while (!w->fed_come && nest_take(w, 0) > 0) {
  }
  if (!w->fed_come)
    return 0;
  *into = w->fed;
  w->fed = was;
  w->fed_come = false;
  return w->fed_ended ? PP_ECLOSED : 1;
}

static void feed_sleep(void *ud, int64_t deadline) {
  worker *w = ud;

  w->feeding = true;
  pp_worker_wait(w, PP_WANTS_INPUT, pp_ring_used(&w->map.lane->in), deadline);
  w->feeding = false;
  w->bereft = 0;
}

static void on_child(int sig) {
  worker *w = &pp_the_worker;

  (void)sig;
  w->bereft = 1;
  atomic_store(&w->map.lane->asleep, PP_BUSY); /* do not fall asleep now */
}

const pp_command_feed pp_worker_feed_ops = {.ask = feed_ask,
                                            .take = feed_take,
                                            .sleep = feed_sleep,
                                            .child = on_child,
                                            .ud = &pp_the_worker};
