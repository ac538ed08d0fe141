/* SPDX-License-Identifier: MIT */
#include "sched.h"

#include <stdlib.h>
#include <string.h>

/* A place is given this much work ahead: enough to cover a sleeping driver and
 * a busy script, little enough to lose nothing by. */
#define AHEAD_NS 400000
/* One job waits behind another only if it is likely to wait no longer. */
#define BEHIND_NS 20000000
#define AHEAD_JOBS 512u

static int64_t cost(const pp_job *j) {
  return j->fn != NULL && j->fn->run_ns > 0 ? j->fn->run_ns : 0;
}

/* How long the job a place is at is likely to take; -1 unknown. */
static int64_t first(const pp_place *p) {
  const pp_job *j = p->jobs.head;

  return j->fn != NULL ? j->fn->run_ns : -1;
}

static bool takes(const pp_place *p, const pp_job *j) {
  int64_t t = j->fn != NULL ? j->fn->run_ns : -1;

  if (!p->open || p->full || (p->most > 0 && p->jobs.n >= p->most))
    return false;
  if (p->wide)
    return true;
  if (j->slots > 1 || p->span > 0 || p->holder != NULL)
    return false;
  if (p->jobs.n == 0)
    return true;
  if (t < 0 || first(p) < 0 || first(p) > BEHIND_NS)
    return false; /* who knows how long it would wait */
  if (p->jobs.n == 1)
    return t <= BEHIND_NS;
  return p->jobs.n < AHEAD_JOBS && p->load + t <= AHEAD_NS;
}

/* --- the queue ------------------------------------------------------------ */

/* The place of a priority among the levels, made if need be. Without memory
 * the nearest one there is: order suffers, no job does. */
static size_t level_of(pp_sched *s, double priority) {
  size_t i = 0;

  while (i < s->nlevels && s->levels[i].priority > priority)
    i++;
  if (i < s->nlevels && s->levels[i].priority == priority)
    return i;
  if (s->nlevels == s->cap_levels) {
    size_t cap = s->cap_levels ? s->cap_levels * 2 : 4;
    pp_level *v = realloc(s->levels, cap * sizeof *v);

    if (v == NULL)
      return s->nlevels > 0 ? (i < s->nlevels ? i : i - 1) : SIZE_MAX;
    s->levels = v;
    s->cap_levels = cap;
  }
  memmove(s->levels + i + 1, s->levels + i,
          (s->nlevels - i) * sizeof *s->levels);
  s->levels[i] = (pp_level){priority, 0, NULL};
  s->nlevels++;
  return i;
}

/* The last job before level i; NULL: there is none. */
static pp_job *before_level(const pp_sched *s, size_t i) {
  while (i > 0)
    if (s->levels[--i].n > 0)
      return s->levels[i].last;
  return NULL;
}

void pp_sched_put(pp_sched *s, pp_job *j, bool front) {
  size_t i;
  pp_level *l;

  if (PP_UNLIKELY(j->era > s->era)) {
    pp_jobs_push(&s->held, j);
    return;
  }
  i = level_of(s, j->priority);
  if (i == SIZE_MAX) {
    pp_jobs_push(&s->queue, j);
    return;
  }
  l = &s->levels[i];
  pp_jobs_after(&s->queue, front || l->n == 0 ? before_level(s, i) : l->last,
                j);
  if (!front || l->n == 0)
    l->last = j;
  l->n++;
}

void pp_sched_remove(pp_sched *s, pp_job *j) {
  if (PP_UNLIKELY(j->era > s->era)) {
    pp_jobs_remove(&s->held, j);
    return;
  }
  for (size_t i = 0; i < s->nlevels; i++) {
    pp_level *l = &s->levels[i];

    if (l->priority != j->priority)
      continue;
    if (l->last == j)
      l->last = j->prev;
    if (--l->n == 0 && s->nlevels > 1) {
      s->nlevels--;
      memmove(l, l + 1, (s->nlevels - i) * sizeof *l);
    }
    break;
  }
  pp_jobs_remove(&s->queue, j);
}

pp_job *pp_sched_first(pp_sched *s) {
  pp_job *j = s->queue.head;

  if (j == NULL)
    j = s->held.head;
  if (j != NULL)
    pp_sched_remove(s, j);
  return j;
}

void pp_sched_clear(pp_sched *s) {
  free(s->levels);
  s->levels = NULL;
  s->nlevels = s->cap_levels = 0;
}

/* --- places --------------------------------------------------------------- */

static void ring_add(pp_place **ring, pp_place *p) {
  if (*ring == NULL) {
    p->prev = p->next = p;
    *ring = p;
  } else {
    p->next = *ring;
    p->prev = (*ring)->prev;
    p->prev->next = p;
    p->next->prev = p;
  }
}

static void ring_remove(pp_place **ring, pp_place *p) {
  if (*ring == p)
    *ring = p->next == p ? NULL : p->next;
  p->prev->next = p->next;
  p->next->prev = p->prev;
  p->prev = p->next = NULL;
}

static void idle_add(pp_sched *s, pp_place *p) {
  ring_add(&s->idle, p);
  s->nidle++;
}

static void idle_remove(pp_sched *s, pp_place *p) {
  ring_remove(&s->idle, p);
  s->nidle--;
}

/* --- teams ---------------------------------------------------------------- */

static void join(pp_place *p, pp_place *member) {
  ring_add(&p->team, member);
  member->holder = p;
  p->nteam++;
}

static void part(pp_place *member) {
  pp_place *p = member->holder;

  ring_remove(&p->team, member);
  member->holder = NULL;
  p->nteam--;
}

static bool lacks(const pp_place *p) { return p->nteam + 1 < p->span; }

static void complete(pp_sched *s, pp_place *p) {
  while (lacks(p) && s->idle != NULL) {
    pp_place *member = s->idle;

    idle_remove(s, member);
    join(p, member);
  }
}

/* Join a team that lacks one. */
static bool enlist(pp_sched *s, pp_place *member) {
  pp_place *p = s->busy;

  if (s->nspans == 0 || p == NULL)
    return false;
  do {
    if (lacks(p)) {
      join(p, member);
      return true;
    }
    p = p->next;
  } while (p != s->busy);
  return false;
}

static void dissolve(pp_sched *s, pp_place *p) {
  while (p->team != NULL) {
    pp_place *member = p->team;

    part(member);
    idle_add(s, member);
  }
  p->span = 0;
  s->nspans--;
}

static void leave(pp_sched *s, pp_place *p, pp_job *j) {
  pp_jobs_remove(&p->jobs, j);
  p->load -= cost(j);
  if (p->load < 0 || p->jobs.n == 0)
    p->load = 0;
  if (p->jobs.n == 1)
    s->fat--;
  if (p->jobs.n == 0)
    p->full = false; /* nothing in its window: it may well take one now */
  if (p->jobs.n == 0 && p->span > 0)
    dissolve(s, p);
  if (p->open && p->jobs.n == 0) {
    ring_remove(&s->busy, p);
    idle_add(s, p);
  }
}

/* Give j, in no list, to p. */
static bool give(pp_sched *s, pp_place *p, pp_job *j) {
  if (p->ops->send(p, j) != 0) {
    p->full = true;
    return false;
  }
  if (p->jobs.n == 0) {
    idle_remove(s, p);
    ring_add(&s->busy, p);
  } else if (p->jobs.n == 1) {
    s->fat++;
  }
  if (s->fat == 0 || j->priority < s->lowest)
    s->lowest = j->priority;
  pp_jobs_push(&p->jobs, j);
  p->load += cost(j);
  j->place = p;
  j->state = PP_JOB_SENT;
  return true;
}

int pp_sched_give(pp_place *p, pp_job *j) {
  int r = p->ops->send(p, j);

  if (r != 0)
    return r;
  if (p->jobs.n == 1)
    p->sched->fat++;
  pp_jobs_push(&p->jobs, j);
  p->load += cost(j);
  j->place = p;
  j->state = PP_JOB_SENT;
  return 0;
}

bool pp_sched_lend(pp_place *p, pp_job *j) {
  pp_sched *s = p->sched;

  pp_sched_remove(s, j);
  if (pp_sched_give(p, j) == 0)
    return true;
  pp_sched_put(s, j, true);
  return false;
}

static void fill(pp_sched *s, pp_place *p) {
  while (s->queue.head != NULL && takes(p, s->queue.head)) {
    pp_job *j = pp_sched_first(s);

    if (!give(s, p, j)) {
      pp_sched_put(s, j, true);
      break;
    }
  }
}

/* p is idle and the queue is empty: give it what waits elsewhere, the later
 * half of it, in order. */
static void steal(pp_sched *s, pp_place *p) {
  pp_place *v = s->busy, *end = v;
  pp_jobs got = {0};
  pp_job *j;
  size_t want;

  if (s->fat == 0 || v == NULL || !p->open || p->full || p->most > 0)
    return;
  while (v->jobs.n < 2)
    if ((v = v->next) == end)
      return;
  s->busy = v->next; /* the next thief looks further on */
  for (want = v->jobs.n / 2; want > 0; want--) {
    j = v->jobs.tail;
    if (!v->ops->recall(v, j))
      break;
    leave(s, v, j);
    j->state = PP_JOB_QUEUED;
    j->place = NULL;
    pp_jobs_front(&got, j);
  }
  while ((j = got.head) != NULL && !p->full) {
    pp_jobs_remove(&got, j);
    if (!give(s, p, j))
      pp_jobs_front(&got, j);
  }
  while ((j = got.tail) != NULL) {
    pp_jobs_remove(&got, j);
    pp_sched_put(s, j, true);
  }
}

/* Has the first in the queue to wait for several places? */
static bool spans(const pp_sched *s) {
  return s->queue.head != NULL && s->queue.head->slots > 1 && !s->flat;
}

/* The first in the queue takes several places: give it those, or false. */
static bool place_spanning(pp_sched *s) {
  pp_job *j = s->queue.head;
  size_t most = s->want > 0 ? s->want : s->nopen;
  size_t need = j->slots < most ? j->slots : most, tries = s->nidle;

  if (need == 0 || s->nidle < need)
    return false;
  pp_sched_first(s);
  for (pp_place *p = s->idle; tries > 0; tries--, p = p->next) {
    if (p->full || !give(s, p, j))
      continue;
    if (need > 1) {
      p->span = (uint32_t)need;
      s->nspans++;
      complete(s, p);
    }
    return true;
  }
  pp_sched_put(s, j, true);
  return false;
}

static void place_queue(pp_sched *s) {
  pp_place *p, *end;

  while (s->queue.head != NULL && s->idle != NULL) {
    pp_job *j = s->queue.head;

    if (spans(s)) {
      if (!place_spanning(s))
        return;
      continue;
    }
    p = s->idle;
    for (end = p; !takes(p, j);)
      if ((p = p->next) == end)
        goto busy;
    pp_sched_first(s);
    if (!give(s, p, j))
      pp_sched_put(s, j, true);
  }
busy:
  if (s->queue.head == NULL || s->saturated || s->busy == NULL || spans(s))
    return;
  end = s->busy;
  do {
    p = s->busy;
    s->busy = p->next;
    fill(s, p);
    if (s->queue.head == NULL || spans(s))
      return;
  } while (s->busy != end);
  s->saturated = true;
}

/* Places have come free that nobody has asked for more. */
static void feed(pp_sched *s) {
  place_queue(s);
  for (size_t n = s->nidle;
       n > 0 && s->fat > 0 && s->idle != NULL && s->queue.head == NULL; n--) {
    pp_place *p = s->idle;

    s->idle = p->next;
    steal(s, p);
  }
}

void pp_sched_want(pp_sched *s, uint32_t want) {
  s->want = want;
  if (spans(s))
    place_queue(s);
}

void pp_sched_gone(pp_place *p) {
  if (p->span > 0) {
    dissolve(p->sched, p);
    feed(p->sched);
  }
}

void pp_sched_open(pp_sched *s, pp_place *p) {
  p->sched = s;
  p->open = true;
  p->full = false;
  s->saturated = false;
  s->nopen++;
  s->flat = p->wide;
  if (p->jobs.n > 0)
    ring_add(&s->busy, p);
  else if (enlist(s, p))
    return;
  else
    idle_add(s, p);
  if (p->span > 0)
    complete(s, p);
  fill(s, p);
  if (p->jobs.n == 0)
    steal(s, p);
  if (spans(s))
    place_queue(s);
}

void pp_sched_close(pp_sched *s, pp_place *p) {
  pp_job *j, *prev;

  if (!p->open)
    return;
  while (p->team != NULL) { /* until it takes jobs again */
    pp_place *member = p->team;

    part(member);
    idle_add(s, member);
  }
  if (p->holder != NULL)
    part(p);
  else if (p->jobs.n == 0)
    idle_remove(s, p);
  else
    ring_remove(&s->busy, p);
  p->open = false;
  s->nopen--;
  for (j = p->jobs.tail; j != NULL; j = prev) {
    prev = j->prev;
    if (!p->ops->recall(p, j))
      continue;
    leave(s, p, j);
    j->state = PP_JOB_QUEUED;
    j->place = NULL;
    pp_sched_put(s, j, true);
  }
  place_queue(s);
}

/* Jobs that wait at places behind others give way to one of this priority. */
static void overtake(pp_sched *s, double priority) {
  pp_place *p = s->busy;

  if (p == NULL)
    return;
  do {
    while (p->jobs.tail != p->jobs.head && p->jobs.tail->priority < priority) {
      pp_job *j = p->jobs.tail;

      if (!p->ops->recall(p, j))
        break;
      leave(s, p, j);
      j->state = PP_JOB_QUEUED;
      j->place = NULL;
      pp_sched_put(s, j, true);
      s->saturated = false;
    }
    p = p->next;
  } while (p != s->busy);
}

void pp_sched_place(pp_sched *s) {
  const pp_job *j = s->queue.head;

  if (j == NULL)
    return;
  if (s->fat > 0 && j->priority > s->lowest)
    overtake(s, j->priority);
  if (s->idle != NULL || !s->saturated)
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
  if (s->idle != NULL || !s->saturated)
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
    bool in_the_way = j == s->queue.head && spans(s);

    pp_sched_remove(s, j);
    if (in_the_way)
      place_queue(s);
    return true;
  }
  if (j->state == PP_JOB_SENT && j->place->ops->recall(j->place, j)) {
    pp_place *p = j->place;
    bool spanned = p->span > 0;

    leave(s, p, j);
    fill(s, p);
    if (spanned)
      feed(s);
    return true;
  }
  return false;
}

void pp_sched_ended(pp_place *p, pp_job *j) {
  pp_sched *s = p->sched;
  bool spanned = p->span > 0;

  s->saturated = false;
  leave(s, p, j);
  if (p->open) {
    p->full = false; /* its window has moved on; if not, it says so again */
    fill(s, p);
    if (p->jobs.n == 0)
      steal(s, p);
  }
  if (spanned || spans(s))
    feed(s);
}

void pp_sched_spread(pp_place *p) {
  pp_sched *s = p->sched;
  pp_job *j, *prev;

  for (j = p->jobs.tail; j != NULL && j != p->jobs.head; j = prev) {
    prev = j->prev;
    if (!p->ops->recall(p, j))
      continue;
    leave(s, p, j);
    j->state = PP_JOB_QUEUED;
    j->place = NULL;
    pp_sched_put(s, j, true);
  }
  if (s->queue.head != NULL)
    place_queue(s);
}

void pp_sched_room(pp_place *p) {
  p->full = false;
  p->sched->saturated = false;
  if (p->open)
    fill(p->sched, p);
  if (spans(p->sched))
    place_queue(p->sched);
}
