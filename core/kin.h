/* SPDX-License-Identifier: MIT */
/*
 * kin: which job submitted which, the driver's side of jobs that submit jobs.
 *
 * A job that has submitted others, and each of those, has a pp_kin. A parent
 * lists its unfinished children; a child knows its parent and the key by which
 * the parent's worker knows it. When a parent's attempt is over its children
 * are cancelled and have no parent any more.
 */
#ifndef PP_KIN_H
#define PP_KIN_H

#include "job.h"

typedef struct pp_kin {
  pp_job *parent;       /* it outlives the tie; NULL: none */
  pp_job *first, *last; /* its unfinished children, as they came */
  pp_job *prev, *next;  /* among the parent's */
  uint32_t key;         /* what the parent's worker calls it */
  uint32_t nchildren;
  int64_t begun;  /* when this attempt was begun, ns; 0: not noted */
  int64_t since;  /* waits for children since then, ns; 0: does not wait */
  int64_t waited; /* ns, in this attempt, before that */
} pp_kin;

/* The kin of a job, made if need be; NULL without memory. */
pp_kin *pp_kin_of(pp_job *j);
/* child, which has none, becomes a child of parent. PP_ENOMEM. */
int pp_kin_adopt(pp_job *parent, pp_job *child, uint32_t key);
/* The child has ended, or its parent has: the tie is gone. */
void pp_kin_leave(pp_job *child);
/* A new attempt begins. */
void pp_kin_anew(pp_job *j);

static inline pp_job *pp_kin_parent(const pp_job *j) {
  return pp_job_kin(j) != NULL ? pp_job_kin(j)->parent : NULL;
}
static inline pp_job *pp_kin_child(const pp_job *j) {
  return pp_job_kin(j) != NULL ? pp_job_kin(j)->first : NULL;
}
/* The unfinished child, child of a child, and so on, furthest down on the way
 * of first children; j itself if it has none. */
pp_job *pp_kin_leaf(pp_job *j);
/* The first job below j, in the order of submission, that is queued; NULL if
 * there is none. */
pp_job *pp_kin_queued(const pp_job *j);
/* How long j has waited for children in this attempt, ns. */
static inline int64_t pp_kin_waited(const pp_job *j, int64_t now) {
  if (pp_job_kin(j) == NULL)
    return 0;
  return pp_job_kin(j)->waited +
         (pp_job_kin(j)->since > 0 ? now - pp_job_kin(j)->since : 0);
}

#endif
