/* SPDX-License-Identifier: MIT */
#include "sched_impl.h"

/* So many places to steal from are tried for one that has fallen idle. */
#define THEFTS 4

/* --- the queue ------------------------------------------------------------ */

void pp_sched_put(pp_sched *s, pp_job *j, bool front) {
  if (PP_UNLIKELY(j->era > s->era))
    pp_jobs_push(&s->held, j);
  else
    pp_levels_put(&s->levels, &s->queue, j, front);
}

void pp_sched_remove(pp_sched *s, pp_job *j) {
  if (PP_UNLIKELY(j->era > s->era))
    pp_jobs_remove(&s->held, j);
  else
    pp_levels_remove(&s->levels, &s->queue, j);
}

pp_job *pp_sched_first(pp_sched *s) {
  pp_job *j = s->queue.head;

  if (j == NULL)
    j = s->held.head;
  if (j != NULL)
    pp_sched_remove(s, j);
  return j;
}

/* A job that was at a place is queued again, as the first of its priority. */
static void requeue(pp_sched *s, pp_job *j) {
  j->state = PP_JOB_QUEUED;
  j->place = NULL;
  pp_sched_put(s, j, true);
}

/* Take j back from p if it has not begun: it is in no list then. */
static bool recall(pp_place *p, pp_job *j) {
  p->sched->steps++;
  if (!p->ops->recall(p, j))
    return false;
  pp_place_leave(p, j);
  return true;
}

/* What p has been sent and nobody has begun is wanted back: now, or by an
 * answer. */
static void take_back(pp_sched *s, pp_place *p, pp_job *j) {
  if (recall(p, j)) {
    requeue(s, j);
  } else if (p->ops->ask == NULL) {
    return;
  } else if (p->ops->begun != NULL && p->ops->begun(p, j) >= 0) {
    if (j->flags & PP_JOB_ASKED) {
      j->flags &= (uint16_t)~PP_JOB_ASKED;
      p->asked--;
      s->asked--;
    }
  } else if (!(j->flags & PP_JOB_ASKED)) {
    j->flags |= PP_JOB_ASKED;
    p->asked++;
    s->asked++;
    p->ops->ask(p, j);
  }
}

/* --- giving --------------------------------------------------------------- */

/* Give j, in no list, to p. */
static bool give(pp_sched *s, pp_place *p, pp_job *j) {
  bool only = s->fat == 0;
  int r = pp_place_enter(p, j);

  if (r != 0)
    p->full = true;
  pp_place_settle(p, false);
  if (only || j->priority < s->lowest)
    s->lowest = j->priority;
  return r == 0;
}

int pp_sched_give(pp_place *p, pp_job *j) {
  int r = pp_place_enter(p, j);

  if (r == 0)
    pp_place_settle(p, false);
  return r;
}

bool pp_sched_lend(pp_place *p, pp_job *j) {
  pp_sched *s = p->sched;

  pp_sched_remove(s, j);
  if (pp_sched_give(p, j) == 0)
    return true;
  pp_sched_put(s, j, true);
  return false;
}

/* Place what can be. Afterwards the queue is empty, or its first job has to
 * wait for several places, or every place is packed. */
static void place_queue(pp_sched *s) {
  pp_job *j;

  while ((j = s->queue.head) != NULL) {
    pp_place *p = s->idle != NULL ? s->idle : s->far;

    s->steps++;
    if (pp_sched_spans(s)) {
      if (!pp_team_place(s))
        return;
      continue;
    }
    if (p == NULL && (p = s->roomy) == NULL)
      return;
    if (!pp_place_takes(p, j)) {
      pp_place_pack(p);
      continue;
    }
    if (p == s->far)
      s->far = p->next; /* nodes in turn */
    pp_sched_remove(s, j);
    if (!give(s, p, j))
      pp_sched_put(s, j, true);
  }
}

/* --- stealing ------------------------------------------------------------- */

/* Ask v, behind a link, for half of what waits there; it comes later. */
static void ask(pp_sched *s, pp_place *v, size_t want) {
  pp_job *j, *prev;

  for (j = v->jobs.tail; j != NULL && want > 0; j = prev) {
    prev = j->prev;
    s->steps++;
    if (j->flags & PP_JOB_ASKED)
      continue;
    j->flags |= PP_JOB_ASKED;
    v->asked++;
    s->asked++;
    v->ops->ask(v, j);
    want--;
  }
  pp_place_settle(v, false);
}

/* p has a free worker and the queue is empty: give it what waits elsewhere, the
 * later half of it, in order. */
static void steal(pp_sched *s, pp_place *p) {
  pp_jobs got = {0};
  pp_place *v;
  pp_job *j;

  if (p->ring != PP_RING_IDLE || p->most > 0)
    return;
  for (int tries = 0; tries < THEFTS && s->fats != NULL && got.n == 0;
       tries++) {
    s->steps++;
    v = s->fats;
    s->fats = v->fat_next; /* the next thief looks further on */
    for (size_t want = (pp_place_waiting(v) + 1) / 2; want > 0; want--) {
      j = v->jobs.tail;
      if (!recall(v, j))
        break;
      j->state = PP_JOB_QUEUED;
      j->place = NULL;
      pp_jobs_front(&got, j);
    }
  }
  while ((j = got.head) != NULL && !p->full) {
    pp_jobs_remove(&got, j);
    if (!give(s, p, j))
      pp_jobs_front(&got, j);
  }
  while ((j = got.tail) != NULL) {
    pp_jobs_remove(&got, j);
    requeue(s, j);
  }
  if (s->asked < s->nfree && (v = s->far_fats) != NULL) {
    s->steps++;
    s->far_fats = v->fat_next;
    ask(s, v, (pp_place_waiting(v) + 1) / 2);
  }
}

/* The queue is empty and some place may be idle that has not stolen yet. */
static void relieve(pp_sched *s) {
  pp_place *p = s->idle != NULL ? s->idle : s->far;

  if (s->fat > 0 && p != NULL && s->queue.head == NULL)
    steal(s, p);
}

/* Places have come free that nobody has asked for more. */
static void feed(pp_sched *s) {
  place_queue(s);
  for (size_t n = s->nidle;
       n > 0 && s->fat > 0 && s->idle != NULL && s->queue.head == NULL; n--) {
    pp_place *p = s->idle;

    s->steps++;
    s->idle = p->next;
    steal(s, p);
  }
}

void pp_sched_answered(pp_place *p, pp_job *j, bool back) {
  pp_sched *s = p->sched;

  if (back) {
    pp_place_leave(p, j);
    requeue(s, j);
    place_queue(s);
  } else if (j->flags & PP_JOB_ASKED) {
    j->flags &= (uint16_t)~PP_JOB_ASKED;
    p->asked--;
    s->asked--;
    pp_place_settle(p, false);
  }
  relieve(s);
}

/* --- places come and go --------------------------------------------------- */

void pp_sched_want(pp_sched *s, uint32_t want) {
  s->want = want;
  if (pp_sched_spans(s))
    place_queue(s);
}

void pp_sched_gone(pp_place *p) {
  if (p->span > 0) {
    pp_team_dissolve(p);
    feed(p->sched);
  }
}

void pp_sched_open(pp_sched *s, pp_place *p) {
  p->sched = s;
  p->open = true;
  p->full = false;
  s->nopen++;
  s->flat = p->wide;
  if (p->jobs.n == 0) {
    p->load = 0;
    p->bytes = 0;
    p->taken = 0;
    if (p->delay == 0 && pp_team_enlist(p))
      return;
  }
  pp_place_settle(p, true);
  if (p->span > 0)
    pp_team_complete(p);
  place_queue(s);
  steal(s, p);
}

void pp_sched_close(pp_sched *s, pp_place *p) {
  pp_job *j, *prev;

  if (!p->open)
    return;
  pp_team_release(p); /* until it takes jobs again */
  if (p->holder != NULL)
    pp_team_part(p);
  p->open = false;
  pp_place_unlist(p);
  s->nopen--;
  for (j = p->jobs.tail; j != NULL; j = prev) {
    prev = j->prev;
    take_back(s, p, j);
  }
  place_queue(s);
}

/* --- jobs come and go ----------------------------------------------------- */

/* Jobs that wait at places behind others give way to one of this priority. */
static void overtake(pp_sched *s, double priority) {
  for (size_t n = s->fat; n > 0 && s->fats != NULL; n--) {
    pp_place *p = s->fats;

    s->steps++;
    s->fats = p->fat_next;
    while (p->jobs.tail != p->jobs.head && p->jobs.tail->priority < priority) {
      pp_job *j = p->jobs.tail;

      if (!recall(p, j))
        break;
      requeue(s, j);
    }
  }
  s->lowest = priority; /* what is left waits behind such, or has begun */
}

void pp_sched_place(pp_sched *s) {
  const pp_job *j = s->queue.head;

  if (j == NULL)
    return;
  if (s->fat > 0 && j->priority > s->lowest)
    overtake(s, j->priority);
  if (s->idle != NULL || s->far != NULL || s->roomy != NULL)
    place_queue(s);
}

void pp_sched_add(pp_sched *s, pp_job *j, bool front) {
  j->state = PP_JOB_QUEUED;
  j->place = NULL;
  pp_sched_put(s, j, front);
  if (PP_UNLIKELY(j->era > s->era))
    return; /* it is held */
  if (s->fat > 0 && j->priority > s->lowest)
    overtake(s, j->priority);
  if (s->idle != NULL || s->far != NULL || s->roomy != NULL)
    place_queue(s);
}

void pp_sched_era(pp_sched *s, uint32_t era) {
  pp_jobs all = s->held;
  pp_job *j;

  s->era = era;
  s->held = (pp_jobs){0};
  while ((j = pp_jobs_pop(&all)) != NULL)
    pp_sched_add(s, j, false); /* some are held again */
}

bool pp_sched_take(pp_sched *s, pp_job *j) {
  if (j->state == PP_JOB_QUEUED) {
    bool in_the_way = j == s->queue.head && pp_sched_spans(s);

    pp_sched_remove(s, j);
    if (in_the_way)
      place_queue(s);
    return true;
  }
  if (j->state == PP_JOB_SENT) {
    pp_place *p = j->place;
    bool spanned = p->span > 0;

    if (!recall(p, j))
      return false;
    place_queue(s);
    if (spanned)
      feed(s);
    return true;
  }
  return false;
}

void pp_sched_ended(pp_place *p, pp_job *j) {
  pp_sched *s = p->sched;
  bool spanned = p->span > 0;

  p->full = false; /* its window has moved on; if not, it says so again */
  pp_place_leave(p, j);
  if (s->queue.head != NULL)
    place_queue(s);
  if (s->queue.head == NULL && s->fat > 0) {
    if (p->ring == PP_RING_IDLE)
      steal(s, p);
    else
      relieve(s);
  }
  if (spanned || pp_sched_spans(s))
    feed(s);
}

void pp_sched_spread(pp_place *p) {
  pp_sched *s = p->sched;
  pp_job *j, *prev;

  for (j = p->jobs.tail; j != NULL && j != p->jobs.head; j = prev) {
    prev = j->prev;
    take_back(s, p, j);
  }
  place_queue(s);
}

void pp_sched_room(pp_place *p) {
  pp_sched *s = p->sched;

  p->full = false;
  pp_place_settle(p, true);
  place_queue(s);
  relieve(s);
}
