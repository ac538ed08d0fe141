/* SPDX-License-Identifier: MIT */
#include "deadlines.h"

#include <stdlib.h>

#define SWEEP_LEAST 64

static bool out_of_date(const pp_deadline *d) {
  const pp_job *j = d->job;

  return j->state != PP_JOB_SENT || j->seq != d->seq ||
         j->attempts != d->attempts;
}

/* v[i] is free and all below it is in order: put x there, or further down. */
static void sink(pp_deadlines *d, size_t i, pp_deadline x) {
  size_t k;

  while ((k = 2 * i + 1) < d->n) {
    if (k + 1 < d->n && d->v[k + 1].when < d->v[k].when)
      k++;
    if (d->v[k].when >= x.when)
      break;
    d->v[i] = d->v[k];
    i = k;
  }
  d->v[i] = x;
}

static void sweep(pp_deadlines *d, pp_blobs *blobs) {
  size_t n = 0;

  for (size_t i = 0; i < d->n; i++)
    if (out_of_date(&d->v[i]))
      pp_job_unref(d->v[i].job, blobs);
    else
      d->v[n++] = d->v[i];
  d->n = n;
  for (size_t i = n / 2; i-- > 0;)
    sink(d, i, d->v[i]);
  d->sweep = 2 * n > SWEEP_LEAST ? 2 * n : SWEEP_LEAST;
}

int pp_deadlines_add(pp_deadlines *d, int64_t when, pp_job *j,
                     pp_blobs *blobs) {
  size_t i;

  if (d->n >= d->sweep)
    sweep(d, blobs);
  if (d->n == d->cap) {
    size_t cap = d->cap ? d->cap * 2 : 16;
    pp_deadline *v = realloc(d->v, cap * sizeof *v);

    if (v == NULL)
      return PP_ENOMEM;
    d->v = v;
    d->cap = cap;
  }
  for (i = d->n++; i > 0 && d->v[(i - 1) / 2].when > when; i = (i - 1) / 2)
    d->v[i] = d->v[(i - 1) / 2];
  d->v[i] = (pp_deadline){when, pp_job_ref(j), j->seq, j->attempts};
  return 0;
}

pp_deadline pp_deadlines_pop(pp_deadlines *d) {
  pp_deadline first = d->v[0];

  d->n--;
  sink(d, 0, d->v[d->n]);
  return first;
}

void pp_deadlines_clear(pp_deadlines *d, pp_blobs *blobs) {
  for (size_t i = 0; i < d->n; i++)
    pp_job_unref(d->v[i].job, blobs);
  free(d->v);
  d->v = NULL;
  d->n = d->cap = d->sweep = 0;
}
