/* SPDX-License-Identifier: MIT */
/*
 * sched: which job goes to which place, and when.
 *
 * A place runs jobs one after another (a local worker) and holds a few more
 * that wait for it: its window. The window is measured in time, not in jobs:
 * as many as a place is likely to finish while word of it travels, so that
 * no-op jobs flow hundreds at a time and long ones are not queued behind each
 * other. When a place falls idle and the queue is empty it is given what waits
 * at another.
 *
 * A job of several slots takes as many places: it starts when that many are
 * idle, runs at one of them, and the others, its team, are kept empty until it
 * has left. While it is first in the queue nothing behind it is placed, so that
 * small jobs cannot starve it. While its place is closed (it waits for jobs of
 * its own) the team goes to others.
 *
 * Pure: no clock, no I/O, no Lua. How a place is reached is behind its ops, so
 * the same code runs over simulated places.
 */
#ifndef PP_SCHED_H
#define PP_SCHED_H

#include "job.h"

typedef struct pp_place pp_place;
typedef struct pp_sched pp_sched;

typedef struct pp_place_ops {
  /* Hand it a job. 0, or PP_EAGAIN if it takes none at present (it calls
   * pp_sched_room later). */
  int (*send)(pp_place *p, pp_job *j);
  /* Take back a job it was sent: true if it had not begun and now never
   * will. */
  bool (*recall)(pp_place *p, pp_job *j);
  /* The rest is for those who own the jobs, not for the schedule.
   * Take in what the place has produced. */
  void (*drain)(pp_place *p);
  /* When a job it was sent was begun there, ns; 0: some time ago; -1: not
   * yet. */
  int64_t (*begun)(pp_place *p, const pp_job *j);
  /* Number of the worker that has begun it, or 0. NULL: there is none to tell.
   */
  uint32_t (*worker)(pp_place *p, const pp_job *j);
  /* Like recall, but its bytes may still be on the way; the job is in no list
   * then. */
  bool (*withdraw)(pp_place *p, pp_job *j);
  /* Take a begun job from the place, which is to leave it, for this kind of
   * failure. The job is in no list then. */
  void (*stop)(pp_place *p, pp_job *j, int kind);
} pp_place_ops;

struct pp_place {
  const pp_place_ops *ops;
  pp_sched *sched;
  pp_place *prev, *next; /* in the idle or the busy ring, or in a team */
  pp_jobs jobs;          /* sent and not ended, in order */
  int64_t load;          /* ns they are expected to take; unknown counts 0 */
  uint32_t most;         /* jobs it may hold; 0: no limit */
  uint32_t span;         /* places the job it is at takes; 0: this one */
  uint32_t nteam;        /* of those, how many are in its team */
  pp_place *team;        /* ring */
  pp_place *holder;      /* in whose team it is; NULL: none */
  bool open;             /* may be given jobs */
  bool wide;             /* takes all jobs there are, at once */
  bool full;             /* said PP_EAGAIN */
};

/* Where the jobs of one priority end in the queue. */
typedef struct pp_level {
  double priority;
  size_t n;
  pp_job *last; /* while n > 0 */
} pp_level;

struct pp_sched {
  pp_jobs queue;    /* by priority, then as they came; change it by put, take */
  pp_jobs held;     /* queued, of a later era: not to be placed yet */
  uint32_t era;     /* jobs of this one and those before it may be placed */
  pp_level *levels; /* owned; highest first */
  size_t nlevels, cap_levels;
  pp_place *idle, *busy; /* rings of open places */
  size_t fat;            /* places that hold two jobs or more */
  size_t nidle, nopen;   /* of places; teams are open, but not idle */
  size_t nspans;         /* places whose job takes more than one */
  uint32_t want;         /* places there are to be; 0: as many as are open */
  double lowest;         /* no job waiting at a place has less */
  bool saturated;        /* no busy place would take another job */
  bool flat;             /* its one place is wide */
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
/* How many places there are to be: a job of more slots takes them all, one of
 * fewer waits for those that are missing. */
void pp_sched_want(pp_sched *s, uint32_t want);
/* A closed place is gone, its jobs with it: its team has no more to wait for.
 */
void pp_sched_gone(pp_place *p);
/* Queue without placing; take the first (NULL: none), held ones last, or any
 * queued job out. */
void pp_sched_put(pp_sched *s, pp_job *j, bool front);
pp_job *pp_sched_first(pp_sched *s);
void pp_sched_remove(pp_sched *s, pp_job *j);
void pp_sched_clear(pp_sched *s); /* of an empty one: frees */
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

#endif
