/* SPDX-License-Identifier: MIT */
/* Chunks that are cut short while they run: what is given away is not begun. */
#include <pthread.h>
#include <sched.h>

#include "check.h"
#include "shm.h"

#define ROUNDS 1500u

static pp_lane lane;
static bool light;
static _Atomic uint32_t go, done, items, begun;

static uint32_t next_random(uint32_t *x) {
  *x ^= *x << 13;
  *x ^= *x >> 17;
  *x ^= *x << 5;
  return *x;
}

/* A worker: items are nothing but a word. */
static void *work(void *ud) {
  uint32_t seq = 0, n, i, x = 99;

  (void)ud;
  for (;;) {
    while (atomic_load(&go) == seq)
      sched_yield();
    seq = atomic_load(&go);
    n = atomic_load(&items);
    if (n == 0)
      return NULL;
    atomic_store(&lane.claim[seq % PP_WINDOW], seq << 2 | PP_CLAIM_TAKEN);
    for (i = next_random(&x) % 64; i > 0; i--) /* opening it takes a while */
      atomic_signal_fence(memory_order_seq_cst);
    for (i = 0; i < n; i++) {
      if (!pp_lane_item(&lane.item, &lane.cut, light, seq, i))
        break;
      atomic_store_explicit(&begun, i + 1, memory_order_relaxed);
      for (uint32_t k = next_random(&x) % 200; k > 0; k--)
        atomic_signal_fence(memory_order_seq_cst);
    }
    atomic_store(&done, seq);
  }
}

static void begun_items_stay(bool by_kernel) {
  uint32_t x = 12345, cuts = 0, shorter = 0;
  pthread_t worker;

  memset(&lane, 0, sizeof lane);
  atomic_store(&go, 0);
  atomic_store(&done, 0);
  light = by_kernel && pp_lane_light(&lane);
  if (pthread_create(&worker, NULL, work, NULL) != 0) {
    CHECK(!"a thread");
    return;
  }
  for (uint32_t seq = 1; seq <= ROUNDS; seq++) {
    uint32_t n = 2 + next_random(&x) % 400, kept = 0, again, all;

    atomic_store(&items, n);
    atomic_store(&begun, 0);
    atomic_store(&go, seq);
    for (uint32_t i = next_random(&x) % 2000; i > 0; i--)
      atomic_signal_fence(memory_order_seq_cst);
    while (kept == 0 && atomic_load(&done) != seq)
      kept = pp_lane_cut(&lane, seq, n);
    again = pp_lane_cut(&lane, seq, n);
    while (atomic_load(&done) != seq)
      sched_yield();
    all = atomic_load(&begun);
    CHECK(kept == 0 || again == 0); /* it would be more than was left to it */
    kept = kept > 0 ? kept : again;
    CHECK(kept <= n);
    CHECK(all >= 1 && all <= (kept > 0 ? kept : n));
    cuts += kept > 0;
    shorter += all < n;
    if (failures > 20)
      break;
  }
  atomic_store(&items, 0);
  atomic_fetch_add(&go, 1);
  pthread_join(worker, NULL);
  CHECK(cuts > 0);
  printf("%s: %u of %u cut, %u shorter\n", light ? "light" : "fenced", cuts,
         ROUNDS, shorter);
}

static void only_what_runs_is_cut(void) {
  memset(&lane, 0, sizeof lane);
  CHECK(pp_lane_cut(&lane, 1, 10) == 0); /* not begun */
  atomic_store(&lane.claim[1], 1 << 2 | PP_CLAIM_SENT);
  CHECK(pp_lane_cut(&lane, 1, 10) == 0);
  atomic_store(&lane.claim[1], 1 << 2 | PP_CLAIM_TAKEN);
  CHECK(pp_lane_cut(&lane, 1, 1) == 0);  /* nothing to cut */
  CHECK(pp_lane_cut(&lane, 1, 10) == 5); /* it is being opened */
  CHECK(pp_lane_item(&lane.item, &lane.cut, false, 1, 4));
  CHECK(!pp_lane_item(&lane.item, &lane.cut, false, 1, 5));
  CHECK(pp_lane_cut(&lane, 1, 10) == 0); /* once */
  atomic_store(&lane.claim[2], 2 << 2 | PP_CLAIM_TAKEN);
  CHECK(pp_lane_item(&lane.item, &lane.cut, false, 2, 9));
  CHECK(pp_lane_cut(&lane, 2, 10) == 0); /* at its last */
  CHECK(pp_lane_cut(&lane, 1, 10) == 0); /* over */
  atomic_store(&lane.claim[3], 3 << 2 | PP_CLAIM_TAKEN);
  CHECK(pp_lane_item(&lane.item, &lane.cut, false, 3, UINT32_MAX));
  CHECK(pp_lane_cut(&lane, 3, 10) == 0); /* nonsense */
}

int main(void) {
  only_what_runs_is_cut();
  begun_items_stay(true);
  begun_items_stay(false);
  return failures > 0;
}
