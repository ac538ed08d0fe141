/* SPDX-License-Identifier: MIT */
/* What is to be done when a job has ended: worker_impl.h. */
#include <sched.h>
#include <stdio.h>
#include <stdio_ext.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

#include "message.h"
#include "proc.h"
#include "worker_impl.h"

/* A job that ran for less cannot have started a process or waited for one, so
 * what costs a system call to find out is not asked. */
#define BRIEF_NS 10000
/* Nor can one that ran for less have written past stdio. */
#define SILENT_NS 1500
/* Shorter ones used as much CPU as they took. */
#define CLOCKED_NS 50000
#define MEASURED_NS 1000000

bool pp_worker_spares(void *ud, pid_t pid) {
  (void)ud, (void)pid;
  return false;
}

void pp_worker_end_children(void) {
  siginfo_t info;

  while (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0) {
    while (waitpid(-1, NULL, WNOHANG) > 0) {
    }
    if (pp_proc_kill_children(pp_worker_spares, NULL) == 0 &&
        waitpid(-1, NULL, WNOHANG) < 0)
      break;
    sched_yield();
  }
}

/* How many bytes have been written to a stream's pipe since the start: what
 * the driver has read and what is still in it, looked at as one. */
static uint64_t position(worker *w, int s) {
  pp_lane *l = w->map.lane;
  uint64_t seq, done;
  int unread;

  for (;;) {
    seq = atomic_load(&l->read_seq);
    if (seq % 2 == 0) {
      done = atomic_load(&l->read_bytes[s]);
      if (ioctl(w->pipe[s], FIONREAD, &unread) < 0)
        return w->written[s];
      if (atomic_load(&l->read_seq) == seq)
        return done + (uint64_t)unread;
    }
    sched_yield();
  }
}

/*
 * Whether stdio has written to a stream since the last look. The C library
 * keeps the column of the last write: put one there that no write leaves
 * behind.
 */
#ifdef __GLIBC__
#define NO_COLUMN 54321
static bool has_written(FILE *f) {
  if (__fpending(f) == 0 && f->_cur_column == NO_COLUMN)
    return false;
  fflush(f);
  f->_cur_column = NO_COLUMN;
  return true;
}
#else
static bool has_written(FILE *f) {
  fflush(f);
  return true;
}
#endif

void pp_worker_written(worker *w) {
  has_written(stdout), has_written(stderr);
  for (int s = 0; s < 2; s++)
    w->written[s] = position(w, s);
}

static int64_t cpu_now(void) {
  struct timespec t;

  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

void pp_worker_settle(worker *w, unsigned char *res, const pp_nested *at) {
  int64_t run = (int64_t)pp_get64(res + PP_RES_RUN), cpu = run;
  bool wrote = has_written(stdout);

  wrote = has_written(stderr) || wrote;
  if (run >= BRIEF_NS && at->outer == NULL)
    pp_worker_end_children();
  if (run >= SILENT_NS || wrote)
    for (int s = 0; s < 2; s++)
      w->written[s] = position(w, s);
  if (run >= CLOCKED_NS) {
    int64_t now = cpu_now();

    cpu = now - w->cpu_mark;
    w->cpu_mark = now;
    if (cpu > run)
      cpu = run; /* what came before it was short and not accounted for */
  }
  if (run >= MEASURED_NS || w->maxrss == 0) {
    struct rusage ru;

    getrusage(RUSAGE_SELF, &ru);
    w->maxrss = (uint64_t)ru.ru_maxrss * 1024;
  }
  if (at->waited > 0) { /* for other jobs: it did not run then */
    run = run > at->waited ? run - at->waited : 0;
    if (cpu > run)
      cpu = run;
    pp_put64(res + PP_RES_RUN, (uint64_t)run);
  }
  pp_put64(res + PP_RES_CPU, (uint64_t)cpu);
  pp_put64(res + PP_RES_RSS, w->maxrss);
  pp_put64(res + PP_RES_STDOUT, w->written[0]);
  pp_put64(res + PP_RES_STDERR, w->written[1]);
}
