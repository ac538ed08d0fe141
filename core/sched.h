/* SPDX-License-Identifier: MIT */
/*
 * sched: which job goes to which place, and when.
 *
 * A place runs jobs: a local worker one after another, a node behind a link as
 * many at a time as it has workers (width). It holds a few more that wait
 * there: its window. The window is measured in time, not in jobs: as many as
 * its workers are likely to finish while word of it travels there and back
 * (delay) and the driver sleeps, so that no-op jobs flow hundreds at a time and
 * long ones are not queued behind each other. Beyond one job a worker it is
 * measured in bytes, too. When a place falls idle and the queue is empty it is
 * given what waits at another.
 *
 * Every open place is in one of three rings:
 *
 *     idle    a worker is free there: jobs go here first (two rings: near
 *             places before those behind a link), to the last that worked, of
 *             those behind links to that of the node whose turn it is
 *     roomy   all work; it may take jobs behind those
 *     packed  it did not take the last job it was offered; nobody offers it
 *             another before a job has left it or it says that it has room
 *
 * and, as long as more jobs are there than workers, in the ring of those to
 * steal from. A job that is added or ends moves one place from ring to ring,
 * and a place is packed once for each job that leaves it: the cost of a job
 * does not depend on how many places there are, nor on how many jobs are
 * queued (but for the logarithm of the number of their priorities; levels.h).
 * A job of higher priority than some that wait at places takes these back
 * first where that can be done at once, which costs as many steps as they are.
 *
 * A job of several slots takes as many workers of one node. Where each of these
 * is a place, it starts when that many are idle, runs at one of them, and the
 * others, its team, are kept empty until it has left. While it is first in the
 * queue nothing behind it is placed, so that small jobs cannot starve it. While
 * its place is closed (it waits for jobs of its own) the team goes to others.
 * The places of a node are its domain.
 *
 * A job that may run on some nodes only is of a class, which has a queue of its
 * own. A place takes the first by priority, then by age, of the jobs it may
 * run: of the general queue and of its domain's classes. A job of several slots
 * that is first in its class keeps the idle places of one node that is large
 * enough, and no others, from what comes after it; jobs of several slots that
 * may run anywhere are a class, too (wide), where there are several domains.
 *
 * Pure: no clock, no I/O, no Lua. How a place is reached is behind its ops, so
 * the same code runs over simulated places (spec/c/sim_*.c).
 */
#ifndef PP_SCHED_H
#define PP_SCHED_H

#include "levels.h"

typedef struct pp_place pp_place;
typedef struct pp_sched pp_sched;
typedef struct pp_class pp_class;
typedef struct pp_domain pp_domain;

typedef struct pp_place_ops {
  /* Hand it a job. 0, or PP_EAGAIN if it takes none at present (it calls
   * pp_sched_room later). */
  int (*send)(pp_place *p, pp_job *j);
  /* Take back a job it was sent: true if it had not begun and now never
   * will. */
  bool (*recall)(pp_place *p, pp_job *j);
  /* For places that cannot tell at once: ask whether it can be taken back. They
   * call pp_sched_answered later, or the job ends. NULL: recall does. */
  void (*ask)(pp_place *p, pp_job *j);
  /* The rest is for those who own the jobs, not for the schedule.
   * Take in what the place has produced. */
  void (*drain)(pp_place *p);
  /* When a job it was sent was begun there, ns; 0: some time ago; -1: not
   * yet. */
  int64_t (*begun)(pp_place *p, const pp_job *j);
  /* Number of the worker that has begun it, or 0. NULL: there is none to tell.
   */
  uint32_t (*worker)(pp_place *p, pp_job *j);
  /* Like recall, but its bytes may still be on the way; the job is in no list
   * then. */
  bool (*withdraw)(pp_place *p, pp_job *j);
  /* Take a begun job from the place, which is to leave it, for this kind of
   * failure. The job is in no list then. */
  void (*stop)(pp_place *p, pp_job *j, int kind);
  /* A chunk of so many items is to begin no more of them: how many stay there
   * (pp_lane_cut); 0: it has not begun, or that cannot be told, or not yet.
   * NULL: there is no such thing. */
  uint32_t (*cut)(pp_place *p, pp_job *j, uint32_t n);
} pp_place_ops;

enum pp_ring_name { PP_RING_NONE, PP_RING_IDLE, PP_RING_ROOMY, PP_RING_PACKED };

/* The places of one node. Zeroed, but for what is asked for at pp_domain_add.
 */
struct pp_domain {
  pp_sched *sched;
  pp_domain *next;                  /* of the schedule's */
  pp_domain *look_prev, *look_next; /* of those to be looked at */
  pp_place *spare; /* ring: places with a worker that has nothing to do, those
                      in the idle ring first */
  pp_place *more;  /* ring: its roomy ones */
  size_t nspare;   /* of these ... */
  pp_class **classes; /* that it is in */
  uint32_t nclasses, cap;
  uint32_t waiting; /* of these, how many have jobs queued */
  uint32_t want;    /* places there are to be; 0: as many as are open */
  uint32_t nopen;
  bool hazy; /* want is not known yet */
  bool look; /* in the list of those to be looked at */
  bool held; /* idle places are kept for a job of several slots */
};

/* Jobs for some domains only. */
struct pp_class {
  bool (*has)(const pp_class *c, const pp_domain *d);
  pp_sched *sched;
  pp_class *prev, *next;         /* of the schedule's */
  pp_class *due_prev, *due_next; /* of those that have jobs queued */
  pp_jobs queue;
  pp_levels levels;
  pp_domain **domains;
  uint32_t ndomains, cap;
  pp_domain *target; /* where its first job, of several slots, waits; NULL: not
                        chosen yet */
};

struct pp_place {
  const pp_place_ops *ops;
  pp_sched *sched;
  pp_domain *domain; /* NULL when it is opened: the schedule's own if it is
                        near, else none */
  pp_place *dprev, *dnext; /* in a ring of its domain */
  uint8_t dring;
  pp_place *prev, *next;         /* in the ring of its state, or in a team */
  pp_place *fat_prev, *fat_next; /* in the ring of those to steal from */
  pp_jobs jobs;                  /* sent and not ended, in order */
  int64_t load;   /* ns they are expected to take; unknown counts 0 */
  int64_t delay;  /* ns there and back; 0: it is near */
  size_t bytes;   /* of their frames */
  uint32_t width; /* workers it has; 0: one */
  uint32_t taken; /* workers its jobs would take, those that wait included */
  uint32_t free;  /* workers it adds to sched.nfree */
  uint32_t asked; /* jobs it was asked to give back and has not answered for */
  uint32_t most;  /* jobs it may hold; 0: no limit */
  uint32_t span;  /* places the job it is at takes; 0: this one */
  uint32_t nteam; /* of those, how many are in its team */
  pp_place *team; /* ring */
  pp_place *holder; /* in whose team it is; NULL: none */
  uint8_t ring;
  bool fat;  /* more jobs than workers are there */
  bool open; /* may be given jobs */
  bool wide; /* takes all jobs there are, at once */
  bool full; /* said PP_EAGAIN */
};

struct pp_sched {
  pp_jobs queue;           /* by priority, then as they came; use put, take */
  pp_domain own;           /* of places that have no other; in no class */
  pp_domain *domains;      /* all, but for its own while that was not used */
  pp_domain *look;         /* ring of those a class may have something for */
  pp_class *classes, *due; /* all; those that have jobs queued */
  pp_class *wide; /* of jobs of several slots that are of no class; NULL: these
                     stand in the general queue */
  size_t nheld;   /* domains that are held */
  double held_least; /* no job that holds one has less */
  bool stranded;     /* a class got jobs and none of its places is open: whoever
                        owns     them sees whether there will be one */
  bool look_all;
  pp_jobs held;     /* queued, of a later era: not to be placed yet */
  uint32_t era;     /* jobs of this one and those before it may be placed */
  pp_levels levels; /* of queue */
  pp_place *idle;   /* rings, by what they are: near ones */
  pp_place *far;    /* idle ones behind a link */
  pp_place *roomy, *packed;
  pp_place *fats, *far_fats; /* to steal from; of those that are asked */
  size_t fat;                /* how many places are in these */
  size_t nidle, nopen; /* of places; teams are open, but not idle; far ones do
                          not count as idle here */
  size_t nfree;        /* workers of idle places, far ones too */
  size_t asked;        /* sum over places */
  size_t nspans;       /* places whose job takes more than one */
  double lowest;       /* no job waiting at a place has less */
  bool flat;           /* its one place is wide */
  uint64_t steps; /* how often a place was looked at, or a job there, for those
                     who measure */
};

/* Open a place for jobs and give it some. It must be zeroed but for ops. */
void pp_sched_open(pp_sched *s, pp_place *p);
/* Give it no more; recall what has not begun and place it elsewhere. Jobs that
 * have begun stay in p->jobs. */
void pp_sched_close(pp_sched *s, pp_place *p);
/* Let the jobs of a later era come. */
void pp_sched_era(pp_sched *s, uint32_t era);
/* Hand a place, open but busy or closed, a job in no list. 0, or what send
 * said. */
int pp_sched_give(pp_place *p, pp_job *j);
/* How many places there are to be in its own domain: a job of more slots takes
 * them all, one of fewer waits for those that are missing. */
void pp_sched_want(pp_sched *s, uint32_t want);
/* The same for any domain; or that is not known yet (hazy). */
void pp_domain_want(pp_domain *d, uint32_t want, bool hazy);
/* A domain comes, or (no place of it is left) goes. PP_ENOMEM: it is not there.
 */
int pp_domain_add(pp_sched *s, pp_domain *d);
void pp_domain_remove(pp_domain *d);
/* A class comes (only `has` set), or goes: it has no job. PP_ENOMEM. */
int pp_class_add(pp_sched *s, pp_class *c);
void pp_class_remove(pp_class *c);
/* May j run at p, as far as classes go? */
bool pp_sched_may(const pp_place *p, const pp_job *j);
/* Is anything queued that a place of this domain may take? */
static inline bool pp_domain_due(const pp_domain *d) {
  return d->waiting > 0 || d->sched->queue.head != NULL;
}
/* The job that is first of all that are queued; NULL: none is. */
pp_job *pp_sched_head(const pp_sched *s);
/* A closed place is gone, its jobs with it: its team has no more to wait for.
 */
void pp_sched_gone(pp_place *p);
/* Queue without placing; take the first (NULL: none), held ones last, or any
 * queued job out. A job's class is more->on; a schedule whose place is wide
 * knows none. */
void pp_sched_put(pp_sched *s, pp_job *j, bool front);
pp_job *pp_sched_first(pp_sched *s);
void pp_sched_remove(pp_sched *s, pp_job *j);
/* Has somebody begun this job? */
static inline bool pp_job_begun(const pp_job *j) {
  if (j->state != PP_JOB_SENT)
    return j->state == PP_JOB_ENDING;
  return j->place->ops->begun(j->place, j) >= 0;
}
/* Give a queued job to this place, open or not; false if it takes none. */
bool pp_sched_lend(pp_place *p, pp_job *j);
/* Queue a job (at the front: it was here before) and place what can be; one of
 * a later era is held. */
void pp_sched_add(pp_sched *s, pp_job *j, bool front);
/* After put: place what can be. */
void pp_sched_place(pp_sched *s);
/* Take a queued or recallable job out: true if it will never run. */
bool pp_sched_take(pp_sched *s, pp_job *j);
/* A job of p has ended, or was lost: it leaves the place, which gets more. */
void pp_sched_ended(pp_place *p, pp_job *j);
/* What waits at p may have to wait long: give it to idle places. */
void pp_sched_spread(pp_place *p);
/* After PP_EAGAIN: p takes jobs again. */
void pp_sched_room(pp_place *p);
/* After ask: it had not begun and never will (back), or it has. */
void pp_sched_answered(pp_place *p, pp_job *j, bool back);

#endif
