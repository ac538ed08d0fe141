/* SPDX-License-Identifier: MIT */
/*
 * deadlines: which jobs at work may have to be stopped, and when: a binary
 * heap by time. An entry is not removed when its job ends; it is found to be
 * out of date when its time comes, or when there are twice as many as there
 * were up to date at the last such search: so there are never many more than
 * jobs at work, and an entry costs the logarithm of that.
 */
#ifndef PP_DEADLINES_H
#define PP_DEADLINES_H

#include "job.h"

typedef struct pp_deadline {
  int64_t when;           /* ns */
  pp_job *job;            /* reference */
  uint32_t seq, attempts; /* of the attempt it is about */
} pp_deadline;

typedef struct pp_deadlines {
  pp_deadline *v;
  size_t n, cap;
  size_t sweep; /* search when there are so many */
} pp_deadlines;

/* Watch this attempt of a job that is at a place (takes a reference).
 * PP_ENOMEM. */
int pp_deadlines_add(pp_deadlines *d, int64_t when, pp_job *j, pp_blobs *blobs);
/* When the first is due; -1 if there is none. */
static inline int64_t pp_deadlines_next(const pp_deadlines *d) {
  return d->n > 0 ? d->v[0].when : -1;
}
/* Take the first out; its reference passes. */
pp_deadline pp_deadlines_pop(pp_deadlines *d);
void pp_deadlines_clear(pp_deadlines *d, pp_blobs *blobs);

#endif
