/* SPDX-License-Identifier: MIT */
/*
 * The standby thread: moves bytes while the script is busy elsewhere.
 *
 * It looks once a millisecond, while jobs are under way, whether the script
 * has entered a call of pp since the last look. If it has not, it takes the
 * lock and runs the loop until the script wants it back. When there have been
 * no jobs under way for LINGER_MS, and while the script is in a call that takes
 * its time, it is parked and costs nothing. Not sooner: whoever makes one call
 * after the other would have to wake it in each.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>

#include "engine.h"

/* A call of the script's that lasts LONG_MS takes its time. */
enum { LONG_MS = 3, LINGER_MS = 20 };

static bool standby_stops(pp_engine *e, void *ud) {
  (void)ud;
  return atomic_load(&e->main_wants) || !pp_engine_works(e) ||
         e->standby_quit || atomic_load(&e->late);
}

/* Let a millisecond pass, unless it is called. */
static void pass(pp_engine *e) {
  struct timespec until;

  clock_gettime(CLOCK_MONOTONIC, &until);
  until.tv_nsec += 1000000;
  if (until.tv_nsec >= 1000000000) {
    until.tv_nsec -= 1000000000;
    until.tv_sec++;
  }
  (void)sem_clockwait(&e->park, CLOCK_MONOTONIC, &until);
}

/* Wait, without the lock, until there is something to do: jobs, or memory that
 * was kept for them to be let go. */
static void park(pp_engine *e) {
  int64_t next = pp_engine_cool(e, pp_now_ns());
  struct timespec until;
  int r;

  e->standby_parked = true;
  e->standby_cools = next >= 0;
  clock_gettime(CLOCK_REALTIME, &until);
  until.tv_sec += 1;
  pthread_mutex_unlock(&e->lock);
  while ((r = next < 0 ? sem_wait(&e->park) : sem_timedwait(&e->park, &until)) <
             0 &&
         errno == EINTR) {
  }
  pthread_mutex_lock(&e->lock);
  e->standby_parked = e->standby_cools = false;
}

/*
 * Without the lock: let a millisecond pass, and take it. True if the script has
 * entered no call meanwhile. While it is in one call after the other it is not
 * waited for in a queue, or each that ends would have to wake this thread; only
 * in one that takes its time.
 */
static bool idles(pp_engine *e) {
  uint64_t seen = atomic_load(&e->epoch), now;
  int same = 0;

  for (;;) {
    pass(e);
    if (pthread_mutex_trylock(&e->lock) == 0)
      return atomic_load(&e->epoch) == seen;
    now = atomic_load(&e->epoch);
    same = now == seen ? same + 1 : 0;
    seen = now;
    if (same == LONG_MS) {
      pthread_mutex_lock(&e->lock);
      return false;
    }
  }
}

static void *standby_main(void *arg) {
  pp_engine *e = arg;
  int left = LINGER_MS;
  bool idle;

  pthread_mutex_lock(&e->lock);
  while (!e->standby_quit) {
    if (atomic_load(&e->late))
      pp_engine_end_late(e);
    if (pp_engine_works(e)) {
      left = LINGER_MS;
    } else if (left-- == 0) {
      park(e);
      left = LINGER_MS;
      continue;
    }
    pthread_mutex_unlock(&e->lock);
    idle = idles(e);
    if (idle && pp_engine_works(e))
      pp_engine_pump(e, standby_stops, NULL, -1);
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
  sem_init(&e->park, 0, 0);
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
