/* SPDX-License-Identifier: MIT */
/*
 * spin: look a little longer before going to sleep.
 *
 * A process that sleeps is woken by a system call on one side and, where its
 * CPU sleeps too, by an interrupt on the other: five to fifty microseconds,
 * twice for a job. Who expects something soon therefore looks for it a little
 * longer, for about as long as waking takes, and only
 *
 *   - while fewer processes have work than there are CPUs to do it,
 *   - if that has been of use lately: each look in vain makes it pass over more
 *     of those to come, up to PP_SPIN_PASS_MAX of them,
 *   - if the system does not take the CPU away from it for others: then it
 *     lets that be for a while.
 *
 * Nothing spins without end: who has nothing to do is asleep after PP_SPIN_NS.
 */
#ifndef PP_SPIN_H
#define PP_SPIN_H

#include <stdbool.h>
#include <stdint.h>

#define PP_SPIN_NS 50000
#define PP_SPIN_PASS_MAX 255u
/* Looks between two readings of the clock. */
#define PP_SPIN_LOOKS 16

/* One thread's experience with it; zeroed is a beginner. */
typedef struct pp_spin {
  uint32_t pass;   /* so many times it is not worth a try */
  uint32_t passes; /* how many it was the last time */
  uint32_t wins;
  uint32_t barred_ms;  /* for how long it let that be the last time */
  int64_t since;       /* when preemptions were last counted; 0: never */
  int64_t preemptions; /* by then */
  int64_t barred;      /* until when it lets that be; 0: no */
} pp_spin;

/* Is it worth a try, as far as experience goes? */
bool pp_spin_barred(pp_spin *s);
static inline bool pp_spin_worth(pp_spin *s) {
  if (s->pass > 0) {
    s->pass--;
    return false;
  }
  return s->barred == 0 || !pp_spin_barred(s);
}

/* It was of use, or not. */
void pp_spin_won_often(pp_spin *s);
static inline void pp_spin_won(pp_spin *s) {
  s->passes = 0;
  if (++s->wins % 64 == 0)
    pp_spin_won_often(s);
}
static inline void pp_spin_lost(pp_spin *s) {
  s->passes = s->passes * 2 + 1;
  if (s->passes > PP_SPIN_PASS_MAX)
    s->passes = PP_SPIN_PASS_MAX;
  s->pass = s->passes;
}

static inline void pp_spin_pause(void) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

#endif
