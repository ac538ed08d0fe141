/* SPDX-License-Identifier: MIT */
/*
 * levels: the order of a queue: by priority, higher ones first, then as they
 * came. The queue is one list; each priority in it has a level, which knows its
 * first and its last job. Levels are a treap, so to put a job in or take it out
 * costs the logarithm of how many priorities there are, never of how many jobs;
 * the level used last is looked at first. A queue of one priority, however
 * long, allocates nothing.
 */
#ifndef PP_LEVELS_H
#define PP_LEVELS_H

#include "job.h"

typedef struct pp_level {
  double priority;
  size_t n; /* > 0 while it is in the treap */
  pp_job *first, *last;
  struct pp_level *left, *right; /* higher, lower ones */
  uint32_t weight;               /* no child has more */
} pp_level;

/* Zeroed is empty. */
typedef struct pp_levels {
  pp_level *root, *recent;
  pp_level one; /* the first level there is needs no memory */
  bool one_used;
  uint32_t seed;
} pp_levels;

/* Put a job into its list, before (front) or behind those of its priority.
 * Without memory for a level it is given the nearest priority there is: order
 * suffers, no job does. */
void pp_levels_put(pp_levels *v, pp_jobs *list, pp_job *j, bool front);
/* Take one out that was put. */
void pp_levels_remove(pp_levels *v, pp_jobs *list, pp_job *j);

#endif
