/* SPDX-License-Identifier: MIT */
#include "deadlines.h"

#include <stdlib.h>

int pp_deadlines_add(pp_deadlines *d, int64_t when, pp_job *j) {
  size_t i;

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
  pp_deadline first = d->v[0], last = d->v[--d->n];
  size_t i = 0, k;

  while ((k = 2 * i + 1) < d->n) {
    if (k + 1 < d->n && d->v[k + 1].when < d->v[k].when)
      k++;
    if (d->v[k].when >= last.when)
      break;
    d->v[i] = d->v[k];
    i = k;
  }
  d->v[i] = last;
  return first;
}

void pp_deadlines_clear(pp_deadlines *d, pp_blobs *blobs) {
  for (size_t i = 0; i < d->n; i++)
    pp_job_unref(d->v[i].job, blobs);
  free(d->v);
  d->v = NULL;
  d->n = d->cap = 0;
}
