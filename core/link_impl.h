/* SPDX-License-Identifier: MIT */
/* link_impl: what link.c (life, results) and link_send.c share. */
#ifndef PP_LINK_IMPL_H
#define PP_LINK_IMPL_H

#include "far.h"
#include "link.h"

extern const pp_place_ops pp_link_ops, pp_link_far_ops;

static inline pp_link *pp_link_of(pp_place *p) { return (pp_link *)(void *)p; }

static inline _Atomic uint32_t *pp_link_claim(const pp_link *l, uint32_t seq) {
  return &l->map.lane->claim[seq % PP_WINDOW];
}

/* What the clock of its host is ahead of ours, ns. */
static inline uint64_t pp_link_skew(const pp_link *l) {
  return l->far != NULL ? (uint64_t)l->far->owner->skew : 0;
}

/* Is this told by saying where it is? Then it is returned: not to another
 * machine, or what only this process has. */
static inline pp_cargo *pp_link_afar(const pp_link *l, pp_cargo *c) {
  return l->far == NULL && pp_cargo_shared(c) ? c : NULL;
}

/* There is something new in its ring `in`. */
static inline void pp_link_wake(pp_link *l) {
  if (l->far != NULL)
    pp_far_wake(l);
  else
    pp_lane_wake(l->map.lane, PP_WANTS_INPUT);
}

/*
 * The same for one of a stream of jobs that take less time than it does to wake
 * a worker: it finds them by itself if it is awake, and else is woken for many
 * of them (pp_link_rouse), when the script does anything but submit, or some
 * microseconds later.
 */
static inline void pp_link_lull(pp_link *l) {
  pp_engine *e = l->engine;

  if (l->lulled)
    return;
  if (e->lulled == NULL)
    e->lulled_since = e->submitted;
  l->lulled = true;
  l->next_lulled = e->lulled;
  e->lulled = l;
}

/* The stop of its place: a begun job is taken from the worker, which is told to
 * leave it and killed if it has not within a second. Of a remote worker it may
 * be one that is not known to have been begun: then that second begins with
 * pp_link_begun, if it has. */
#define PP_LINK_GRACE_NS ((int64_t)1000000000)
void pp_link_stop(pp_place *p, pp_job *j, int kind);
/* Its worker is known to have begun the job of this number. */
void pp_link_begun(pp_link *l, uint32_t seq);
/* The job of this sequence number at it, NULL: none. */
pp_job *pp_link_job(pp_link *l, uint32_t seq);
/* A frame of its worker's that is no result; false if it makes no sense. */
bool pp_link_heard(pp_link *l, int type, const unsigned char *p, size_t len,
                   int64_t now);
/* Let its worker's own blobs go. */
void pp_link_disown(pp_link *l);
/* Add a piece to what waits to be sent; NULL without memory. */
pp_piece *pp_link_piece(pp_link *l, const void *p, size_t len);
/* Push waiting pieces into the ring as far as there is room: true when none is
 * left. */
bool pp_link_push(pp_link *l);
/* Send bytes of our own, copied, after all that waits. */
int pp_link_post(pp_link *l, const void *p, size_t len);
/* Answer a WANT, by the package.path of the job that runs; false if it makes no
 * sense. */
bool pp_link_want(pp_link *l, const unsigned char *p, size_t len);
/* Has its worker begun this job? */
bool pp_link_taken(const pp_link *l, const pp_job *j);
/* Keep cargo (its reference passes) until what was sent so far is handled, if
 * its worker was told where it is. */
void pp_link_hang(pp_link *l, pp_cargo *c);
/* Nothing will be sent any more: let go what waits. */
void pp_link_unsend(pp_link *l);

#endif
