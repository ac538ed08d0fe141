/* SPDX-License-Identifier: MIT */
/* How a worker waits for the driver and how it is heard: worker_impl.h. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "rest.h"
#include "state.h"
#include "worker_impl.h"

/* While the driver dozes, results wait for company this long. */
#define BATCH_NS 50000
#define BATCH 64u
/* A worker that rests keeps memory for the next large payload or job so long,
 * and less of its own than this for ever. */
#define COOL_NS 1000000000
#define GROWN ((size_t)4 << 20)

/* --- the driver's attention ----------------------------------------------- */

void pp_worker_ring(worker *w) {
  uint64_t bit = (uint64_t)1 << (w->lane % 64), one = 1;
  _Atomic uint64_t *ready = &w->hub->ready[w->lane / 64];

  w->pending = 0;
  if (!(atomic_load_explicit(ready, memory_order_relaxed) & bit))
    atomic_fetch_or(ready, bit);
  atomic_thread_fence(memory_order_seq_cst);
  if (atomic_load_explicit(&w->hub->asleep, memory_order_relaxed) != PP_AWAKE &&
      atomic_exchange(&w->hub->asleep, PP_AWAKE) != PP_AWAKE)
    (void)!write(w->bell, &one, sizeof one);
}

void pp_worker_ready(worker *w, int64_t now, bool more) {
  uint64_t bit = (uint64_t)1 << (w->lane % 64);
  uint32_t asleep;

  if (w->pending++ == 0)
    w->pending_since = now;
  atomic_thread_fence(memory_order_seq_cst);
  asleep = atomic_load_explicit(&w->hub->asleep, memory_order_relaxed);
  if (asleep == PP_AWAKE) {
    if (!(atomic_load_explicit(&w->hub->ready[w->lane / 64],
                               memory_order_relaxed) &
          bit))
      pp_worker_ring(w);
  } else if (!more || asleep == PP_SLEEPING || w->pending >= BATCH ||
             now - w->pending_since >= BATCH_NS) {
    pp_worker_ring(w);
  }
}

/* Is there something that pp_worker_wait should not sleep on? */
static bool came(const worker *w, uint32_t what, size_t was) {
  const pp_lane *l = w->map.lane;

  return what == PP_WANTS_INPUT ? pp_ring_used(&l->in) != was ||
                                      pp_runner_stopping(w->runner) != NULL ||
                                      (w->feeding && w->bereft)
                                : pp_ring_room(&l->out) != was;
}

/*
 * Look for input a little longer: true if some came. Not in the way of those
 * who have work: the driver, workers at a job (this one counts among those
 * until the driver has seen its result), other spinners. spins tells the driver
 * what is to be taken from the count if this process dies meanwhile; either way
 * a wrong count only makes somebody sleep, or spin once more.
 */
static bool spin(worker *w, size_t was, int64_t deadline) {
  pp_hub *h = w->hub;
  pp_lane *l = w->map.lane;
  uint32_t cpus = atomic_load_explicit(&h->cpus, memory_order_relaxed), busy;
  int64_t end;
  bool won;

  busy = atomic_load_explicit(&h->busy, memory_order_relaxed);
  if (busy == 0)
    busy = 1;
  if (busy >= cpus || !pp_spin_worth(&w->spin))
    return false;
  atomic_store_explicit(&l->spins, 1, memory_order_relaxed);
  won = false;
  if (atomic_fetch_add_explicit(&h->spinners, 1, memory_order_relaxed) <
      (int32_t)(cpus - busy)) {
    end = pp_now_ns() + PP_SPIN_NS;
    if (deadline >= 0 && deadline < end)
      end = deadline;
    do {
      for (int i = 0; i < PP_SPIN_LOOKS && !won; i++) {
        pp_spin_pause();
        won = came(w, PP_WANTS_INPUT, was);
      }
    } while (!won && pp_now_ns() < end);
    if (won)
      pp_spin_won(&w->spin);
    else
      pp_spin_lost(&w->spin);
  }
  atomic_fetch_sub_explicit(&h->spinners, 1, memory_order_relaxed);
  atomic_store_explicit(&l->spins, 0, memory_order_relaxed);
  return won;
}

bool pp_worker_idle(const worker *w) { return pp_nest_at(w->nest) == NULL; }

/* Has it much more memory of its own than when that was last given back? */
static bool has_grown(const worker *w) {
  size_t most = w->lean + (w->lean / 2 > GROWN ? w->lean / 2 : GROWN);

  return pp_worker_idle(w) && pp_rest_private() > most;
}

static bool is_warm(const worker *w) {
  return pp_blocks_any(w->blocks) || w->windows.n > 0;
}

/* Let go what was kept for the next large payload, and what large jobs have
 * left; what the hold keeps is the driver's to decide. */
static void cool_down(worker *w) {
  if (has_grown(w)) {
    pp_buf_clear(&w->in);
    pp_buf_clear(&w->out);
    pp_state_slim(pp_runner_state(w->runner));
    w->lean = pp_rest_private();
  }
  pp_blocks_trim(w->blocks);
  pp_windows_trim(&w->windows);
}

/* Wait for input as pp_worker_wait does, for long. */
static void take_rest(worker *w, size_t was, int64_t deadline) {
  size_t room =
      pp_worker_idle(w) ? w->stack_room : 0; /* else the job may use it */
  int64_t cool = is_warm(w) || has_grown(w) ? pp_now_ns() + COOL_NS : -1;
  pp_lane *l = w->map.lane;

  atomic_store(&l->rest, PP_RESTED);
  for (;;) {
    int64_t until =
        cool < 0 || (deadline >= 0 && deadline < cool) ? deadline : cool;

    atomic_store(&l->asleep, PP_WANTS_INPUT);
    atomic_thread_fence(memory_order_seq_cst);
    if (came(w, PP_WANTS_INPUT, was))
      return;
    pp_rest(l, PP_WANTS_INPUT, until, w->stack, room);
    if (until < 0 || pp_now_ns() < until)
      continue;
    if (until == deadline)
      return;
    atomic_store(&l->asleep, PP_BUSY);
    cool = -1;
    cool_down(w);
  }
}

/* Have the zygote see whether this sleep is a long one: a timer of one's own
 * for each costs as much as the sleep. */
static void ask_for_rest(worker *w) {
  _Atomic uint32_t *watch = &w->hub->watch;

  if (atomic_load_explicit(watch, memory_order_relaxed) == 0 &&
      atomic_exchange(watch, 1) == 0)
    (void)kill(w->zygote, PP_SIG_WATCH);
}

/* Sleep until there may be input or room, or the deadline (ns, -1 never). */
void pp_worker_wait(worker *w, uint32_t what, size_t was, int64_t deadline) {
  pp_lane *l = w->map.lane;
  uint32_t rest;

  if (w->pending > 0)
    pp_worker_ring(w);
  if (what == PP_WANTS_INPUT && spin(w, was, deadline))
    return;
  atomic_store(&l->asleep, what);
  atomic_thread_fence(memory_order_seq_cst);
  if (!came(w, what, was)) {
    rest = atomic_load_explicit(&l->rest, memory_order_relaxed);
    if (PP_LIKELY(rest != PP_TO_REST)) {
      if (rest != PP_RESTED)
        ask_for_rest(w);
      pp_lane_sleep(l, what, deadline);
      rest = atomic_load_explicit(&l->rest, memory_order_relaxed);
    }
    if (PP_UNLIKELY(rest == PP_TO_REST) && what == PP_WANTS_INPUT)
      take_rest(w, was, deadline);
  }
  atomic_store(&l->asleep, PP_BUSY);
}

/* --- rings ---------------------------------------------------------------- */

void pp_worker_consume(worker *w, size_t n) {
  pp_ring_consume(&w->map.lane->in, n);
  atomic_thread_fence(memory_order_seq_cst);
  if (atomic_load_explicit(&w->map.lane->tx_blocked, memory_order_relaxed) &&
      atomic_exchange(&w->map.lane->tx_blocked, 0))
    pp_worker_ring(w);
}

void pp_worker_send(worker *w, const unsigned char *p, size_t n) {
  pp_ring *r = &w->map.lane->out;

  while (n > 0) {
    size_t room = pp_ring_room(r), k = n < room ? n : room;

    if (k == 0 || (k < n && k < 4096)) {
      pp_worker_ring(w);
      pp_worker_wait(w, PP_WANTS_ROOM, room, -1);
      continue;
    }
    memcpy(pp_ring_end(r, w->map.out), p, k);
    pp_ring_publish(r, k);
    if (k < n)
      pp_worker_ring(w);
    p += k;
    n -= k;
  }
}
