/* SPDX-License-Identifier: MIT */
/*
 * The standby thread: moves bytes while the script is busy elsewhere.
 *
 * It looks once a millisecond, while jobs are under way, whether the script
 * has entered a call of pp since the last look. If it has not, it takes the
 * lock and runs the loop until the script wants it back. Without jobs under
 * way, and while the script waits inside a call, it is parked and costs
 * nothing.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>

#include "engine.h"

static bool standby_stops(pp_engine *e, void *ud) {
  (void)ud;
  return atomic_load(&e->main_wants) || !pp_engine_works(e) ||
         e->standby_quit || atomic_load(&e->late);
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

static void *standby_main(void *arg) {
  pp_engine *e = arg;
  uint64_t seen;

  pthread_mutex_lock(&e->lock);
  while (!e->standby_quit) {
    if (atomic_load(&e->late))
      pp_engine_end_late(e);
    if (!pp_engine_works(e)) {
      park(e);
      continue;
    }
    seen = atomic_load(&e->epoch);
    pthread_mutex_unlock(&e->lock);
    poll(NULL, 0, 1);
    if (pthread_mutex_trylock(&e->lock) != 0) {
      /* The script is in a call: wait until it leaves one. */
      pthread_mutex_lock(&e->lock);
      continue;
    }
    if (atomic_load(&e->epoch) == seen && pp_engine_works(e))
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
