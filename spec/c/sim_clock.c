/* SPDX-License-Identifier: MIT */
/* A wheel of moments: setting an event and finding the next cost the same
 * however many there are. What is further off than one turn stays where it is
 * until the wheel has come round often enough. */
#include <string.h>

#include "sim.h"

#define TURN (1 << 18)

int64_t sim_now;

static sim_event *wheel[TURN];
static uint64_t some[TURN / 64]; /* a bit for each moment that has events */
static size_t set;

void sim_clock_reset(void) {
  memset(wheel, 0, sizeof wheel);
  memset(some, 0, sizeof some);
  set = 0;
  sim_now = 0;
}

void sim_set(sim_event *e, int64_t at) {
  size_t i;

  e->at = at < sim_now ? sim_now : at;
  i = (size_t)e->at % TURN;
  e->next = wheel[i];
  wheel[i] = e;
  some[i / 64] |= (uint64_t)1 << i % 64;
  set++;
}

/* The first moment from sim_now on, in one turn, that has events. */
static int64_t next_moment(void) {
  size_t i = (size_t)sim_now % TURN, w = i / 64;
  uint64_t bits = some[w] & ~(uint64_t)0 << i % 64;

  for (size_t n = 0; bits == 0; n++) {
    if (n > TURN / 64)
      return -1;
    w = (w + 1) % (TURN / 64);
    bits = some[w];
  }
  i = w * 64 + (size_t)__builtin_ctzll(bits);
  return sim_now + (int64_t)((i - (size_t)sim_now % TURN) % TURN);
}

bool sim_step(void) {
  bool ran = false;

  while (set > 0 && !ran) {
    size_t i;
    sim_event *e, *order = NULL, *next;

    sim_now = next_moment();
    i = (size_t)sim_now % TURN;
    e = wheel[i];
    wheel[i] = NULL;
    some[i / 64] &= ~((uint64_t)1 << i % 64);
    for (; e != NULL; e = next) { /* as they were set */
      next = e->next;
      e->next = order;
      order = e;
    }
    for (e = order; e != NULL; e = next) {
      next = e->next;
      set--;
      if (e->at == sim_now) {
        ran = true;
        e->run(e);
      } else {
        sim_set(e, e->at);
      }
    }
    if (wheel[i] != NULL && !ran)
      sim_now++; /* those are for a later turn */
  }
  return ran;
}
