/* SPDX-License-Identifier: MIT */
#include "sched_impl.h"

/* So many places to steal from are tried for one that has fallen idle. */
#define THEFTS 4
/* So many jobs are passed by that it may not run. */
#define PASSED 16

/* --- the queue ------------------------------------------------------------ */

void pp_sched_put(pp_sched *s, pp_job *j, bool front) {
  pp_class *c;

  if (PP_UNLIKELY(j->era > s->era))
    pp_jobs_push(&s->held, j);
  else if ((c = pp_class_of(s, j)) != NULL)
    pp_class_put(c, j, front);
  else
    pp_levels_put(&s->levels, &s->queue, j, front);
}

void pp_sched_remove(pp_sched *s, pp_job *j) {
  pp_class *c;

  if (PP_UNLIKELY(j->era > s->era)) {
    pp_jobs_remove(&s->held, j);
  } else if ((c = pp_class_of(s, j)) != NULL) {
    pp_class_take(c, j);
  } else {
    /* What a wide one has kept back. */
    s->look_all = s->look_all || (j->slots > 1 && s->due != NULL);
    pp_levels_remove(&s->levels, &s->queue, j);
  }
}

pp_job *pp_sched_first(pp_sched *s) {
  pp_job *j = s->due == NULL ? s->queue.head : pp_sched_head(s);

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

/* Give p, which is in no team, this first job of a class of its domain; or p
 * takes no more for the time being. */
static void place_at(pp_sched *s, pp_place *p, pp_job *j) {
  s->steps++;
  if (j->slots > 1) {
    if (pp_team_place_at(s, p->domain, j, pp_sched_need(s, j)))
      return;
    pp_domain_hold(p->domain, j);
    pp_place_pack(p);
  } else if (!pp_place_takes(p, j)) {
    pp_place_pack(p);
  } else {
    pp_sched_remove(s, j);
    if (!give(s, p, j))
      pp_sched_put(s, j, true);
  }
}

/* Place jobs of the classes of d. The general queue has been placed as far as
 * can be: if it is not empty, its first job waits for several places, or all
 * places but those held are packed. */
static void look_at(pp_sched *s, pp_domain *d) {
  while (d->waiting > 0) {
    pp_place *p = d->spare;
    pp_job *j = pp_domain_first(d), *head = s->queue.head;

    if (p == NULL || p->ring != PP_RING_IDLE)
      p = d->more;
    if (p == NULL || j == NULL)
      return;
    if (head != NULL && pp_sched_before(head, j)) {
      if (head->slots < 2)
        return;
      if (pp_sched_need(s, head) <= pp_domain_size(d))
        return; /* it may be waiting for this one */
    }
    place_at(s, p, j);
  }
}

/*
 * The idle place that is next, if there is any: the last to have worked, whose
 * memory and caches are warm. Of those behind links it is that of the node
 * whose turn it is: the place whose turn it would be gives it up for the other.
 */
static pp_place *next_idle(pp_sched *s) {
  pp_place *p = s->far;

  if (s->idle != NULL || p == NULL)
    return s->idle;
  if (p->domain != NULL)
    pp_ring_lead(&s->far, p->domain->spare); /* there is one: p */
  return s->far;
}

/* Place what can be of the general queue. Afterwards it is empty, or its first
 * job has to wait for several places, or every place is packed. */
static void place_general(pp_sched *s) {
  pp_job *j, *k;

  while ((j = s->queue.head) != NULL) {
    pp_place *p = next_idle(s);

    s->steps++;
    if (pp_sched_spans(s)) {
      if (!pp_team_place(s))
        return;
      continue;
    }
    if (p == NULL && (p = s->roomy) == NULL)
      return;
    if (PP_UNLIKELY(p->domain != NULL && p->domain->waiting > 0) &&
        (k = pp_domain_first(p->domain)) != NULL && !pp_sched_before(j, k)) {
      place_at(s, p, k);
      continue;
    }
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

static void place_queue(pp_sched *s) {
  place_general(s);
  while (PP_UNLIKELY(s->look != NULL || s->look_all)) {
    pp_domain *d = s->look;

    if (s->look_all) {
      s->look_all = false;
      for (d = s->domains; d != NULL; d = d->next)
        if (d->waiting > 0)
          pp_domain_look(d);
      continue;
    }
    pp_domain_unlook(d);
    look_at(s, d);
    if (s->queue.head != NULL)
      place_general(s);
  }
}

/* --- stealing ------------------------------------------------------------- */

/* Ask v, behind a link, for half of what waits there and p may run; it comes
 * later. */
static void ask(pp_sched *s, const pp_place *p, pp_place *v, size_t want) {
  pp_job *j, *prev;
  size_t passed = 0;

  for (j = v->jobs.tail; j != NULL && want > 0; j = prev) {
    prev = j->prev;
    s->steps++;
    if (j->flags & PP_JOB_ASKED)
      continue;
    if (!pp_sched_may(p, j)) {
      if (++passed == PASSED)
        break;
      continue;
    }
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
    size_t want = (pp_place_waiting(v) + 1) / 2, passed = 0;

    for (pp_job *prev = v->jobs.tail; want > 0 && prev != NULL;) {
      j = prev;
      prev = j->prev;
      if (!pp_sched_may(p, j)) {
        if (++passed == PASSED)
          break;
        continue;
      }
      if (!recall(v, j))
        break;
      want--;
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
    ask(s, p, v, (pp_place_waiting(v) + 1) / 2);
  }
}

/* The queue is empty and some place may be idle that has not stolen yet. */
static void relieve(pp_sched *s) {
  pp_place *p = next_idle(s);

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

/* Nothing is kept for jobs of several slots, until they are looked at anew. */
static void release(pp_sched *s) {
  for (pp_class *c = s->due; c != NULL; c = c->due_next)
    c->target = NULL;
  for (pp_domain *d = s->domains; d != NULL && s->nheld > 0; d = d->next)
    pp_domain_unhold(d);
}

/* --- places come and go --------------------------------------------------- */

void pp_domain_want(pp_domain *d, uint32_t want, bool hazy) {
  pp_sched *s = d->sched;

  if (s == NULL || (d->want == want && d->hazy == hazy))
    return;
  d->want = want;
  d->hazy = hazy;
  release(s);
  s->look_all = s->look_all || s->due != NULL;
  if (pp_sched_spans(s) || s->look_all)
    place_queue(s);
}

static void own_domain(pp_sched *s) {
  if (s->own.sched == NULL)
    (void)pp_domain_add(s, &s->own); /* of no class */
}

void pp_sched_want(pp_sched *s, uint32_t want) {
  own_domain(s);
  pp_domain_want(&s->own, want, false);
}

void pp_sched_gone(pp_place *p) {
  if (p->span > 0) {
    pp_team_dissolve(p);
    feed(p->sched);
  }
}

void pp_sched_open(pp_sched *s, pp_place *p) {
  p->sched = s;
  if (p->domain == NULL && p->delay == 0) {
    own_domain(s);
    p->domain = &s->own;
  }
  p->open = true;
  p->full = false;
  s->nopen++;
  if (p->domain != NULL)
    p->domain->nopen++;
  s->flat = p->wide;
  if (p->jobs.n == 0) {
    p->load = 0;
    p->bytes = 0;
    p->taken = 0;
    if (p->domain != NULL && pp_team_enlist(p))
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
  if (p->domain != NULL)
    p->domain->nopen--;
  for (j = p->jobs.tail; j != NULL; j = prev) {
    prev = j->prev;
    take_back(s, p, j);
  }
  place_queue(s);
}

/* --- jobs come and go ----------------------------------------------------- */

/* Jobs that wait at places behind others give way to this one. */
static void overtake(pp_sched *s, const pp_job *first) {
  double priority = first->priority;

  for (size_t n = s->fat; n > 0 && s->fats != NULL; n--) {
    pp_place *p = s->fats;

    s->steps++;
    s->fats = p->fat_next;
    if (!pp_sched_may(p, first))
      continue;
    while (p->jobs.tail != p->jobs.head && p->jobs.tail->priority < priority) {
      pp_job *j = p->jobs.tail;

      if (!recall(p, j))
        break;
      requeue(s, j);
    }
  }
  if (pp_class_of(s, first) == NULL)
    s->lowest = priority; /* what is left waits behind such, or has begun */
}

/* j was queued: what is less urgent makes way. */
static void make_way(pp_sched *s, const pp_job *j) {
  if (s->fat > 0 && j->priority > s->lowest)
    overtake(s, j);
  if (PP_UNLIKELY(s->nheld > 0) && j->priority > s->held_least)
    release(s);
}

/* After that. */
static void place_some(pp_sched *s) {
  if (s->idle != NULL || s->far != NULL || s->roomy != NULL)
    place_queue(s);
}

void pp_sched_place(pp_sched *s) {
  const pp_job *j = s->queue.head;

  if (j != NULL)
    make_way(s, j);
  for (const pp_class *c = s->due; c != NULL; c = c->due_next)
    make_way(s, c->queue.head);
  place_some(s);
}

void pp_sched_add(pp_sched *s, pp_job *j, bool front) {
  j->state = PP_JOB_QUEUED;
  j->place = NULL;
  pp_sched_put(s, j, front);
  if (PP_UNLIKELY(j->era > s->era))
    return; /* it is held */
  make_way(s, j);
  place_some(s);
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
    bool in_the_way = j->slots > 1 && !s->flat; /* maybe */

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
  if (s->queue.head != NULL || s->look != NULL)
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
