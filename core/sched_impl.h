/* SPDX-License-Identifier: MIT */
/* sched_impl: what place.c (states, windows), team.c (slots) and sched.c
 * share. */
#ifndef PP_SCHED_IMPL_H
#define PP_SCHED_IMPL_H

#include "sched.h"

/* --- place.c -------------------------------------------------------------- */

void pp_ring_add(pp_place **ring, pp_place *p);
void pp_ring_remove(pp_place **ring, pp_place *p);
/* Have p, which is in the ring, change places with its first. */
void pp_ring_lead(pp_place **ring, pp_place *p);
/* Put it into the ring it belongs to; anew: even if it refused a job before.
 * Call after each change of what follows. */
void pp_place_settle(pp_place *p, bool anew);
/* It refused a job for which it should have had room, or has none. */
void pp_place_pack(pp_place *p);
/* Take it out of its ring: it is closed, or joins a team. */
void pp_place_unlist(pp_place *p);
/* Would it take j? */
bool pp_place_takes(const pp_place *p, const pp_job *j);
/* Send it j, in no list: 0, or what send said. */
int pp_place_enter(pp_place *p, pp_job *j);
/* j leaves it. */
void pp_place_leave(pp_place *p, pp_job *j);
/* Jobs there that wait for a worker and may be asked for. */
static inline uint32_t pp_place_waiting(const pp_place *p) {
  uint32_t busy = (p->width > 0 ? p->width : 1) + p->asked;

  return p->taken > busy ? p->taken - busy : 0;
}

/* --- class.c -------------------------------------------------------------- */

/* SPARE ones are idle; KEPT ones would be, but are packed. */
enum { PP_DRING_NONE, PP_DRING_SPARE, PP_DRING_KEPT, PP_DRING_MORE };

/* j's class, or NULL. */
static inline pp_class *pp_class_of(const pp_sched *s, const pp_job *j) {
  if (PP_UNLIKELY(j->more != NULL && j->more->on != NULL) && !s->flat)
    return j->more->on;
  return PP_UNLIKELY(j->slots > 1) ? s->wide : NULL;
}
/* Does a come before b, by priority and age? */
static inline bool pp_sched_before(const pp_job *a, const pp_job *b) {
  return a->priority > b->priority ||
         (a->priority == b->priority && a->submitted < b->submitted);
}
/* Put a place into the ring of its domain that it belongs to. */
void pp_domain_settle(pp_place *p);
/* A class may have something for it. */
void pp_domain_look(pp_domain *d);
void pp_domain_unlook(pp_domain *d);
/* The first job of its classes; NULL: none is queued that it could take. */
pp_job *pp_domain_first(const pp_domain *d);
/* So many places jobs of several slots may ask of it. */
uint32_t pp_domain_size(const pp_domain *d);
/* How many places a job takes: all of the largest domain it may run at, if none
 * is large enough; 0: that is not known yet. */
uint32_t pp_sched_need(const pp_sched *s, const pp_job *j);
/* Its idle places are kept for j; they are not. */
void pp_domain_hold(pp_domain *d, const pp_job *j);
void pp_domain_unhold(pp_domain *d);
void pp_class_put(pp_class *c, pp_job *j, bool front);
void pp_class_take(pp_class *c, pp_job *j);

/* --- team.c --------------------------------------------------------------- */

/* Has the first in the queue to wait for several places? */
static inline bool pp_sched_spans(const pp_sched *s) {
  return s->queue.head != NULL && s->queue.head->slots > 1 && !s->flat;
}
/* Give it those; false if they are not there. */
bool pp_team_place(pp_sched *s);
/* The same for a job at the head of its queue, at this domain. */
bool pp_team_place_at(pp_sched *s, pp_domain *d, pp_job *j, uint32_t need);
/* Join a team that lacks a place; false if none does. */
bool pp_team_enlist(pp_place *member);
/* Let a team have idle places it lacks. */
void pp_team_complete(pp_place *p);
/* Its members are for others. */
void pp_team_release(pp_place *p);
/* The same, and the job that had it is gone. */
void pp_team_dissolve(pp_place *p);
/* Leave the team one is in. */
void pp_team_part(pp_place *member);

#endif
