/* SPDX-License-Identifier: MIT */
/* Jobs of several slots, and the places they keep empty. */
#include "sched_impl.h"

static void join(pp_place *p, pp_place *member) {
  pp_place_unlist(member);
  pp_ring_add(&p->team, member);
  member->holder = p;
  p->nteam++;
}

void pp_team_part(pp_place *member) {
  pp_place *p = member->holder;

  pp_ring_remove(&p->team, member);
  member->holder = NULL;
  p->nteam--;
}

static bool lacks(const pp_place *p) { return p->nteam + 1 < p->span; }

void pp_team_complete(pp_place *p) {
  while (lacks(p) && p->sched->idle != NULL)
    join(p, p->sched->idle);
}

/* One in that ring whose team lacks a place; NULL: there is none. */
static pp_place *lacking(pp_place *ring) {
  pp_place *p = ring;

  if (p != NULL)
    do {
      if (lacks(p))
        return p;
    } while ((p = p->next) != ring);
  return NULL;
}

bool pp_team_enlist(pp_place *member) {
  pp_sched *s = member->sched;
  pp_place *p = s->nspans > 0 ? lacking(s->packed) : NULL;

  if (p == NULL && s->nspans > 0)
    p = lacking(s->roomy);
  if (p == NULL)
    return false;
  join(p, member);
  return true;
}

void pp_team_release(pp_place *p) {
  while (p->team != NULL) {
    pp_place *member = p->team;

    pp_team_part(member);
    pp_place_settle(member, true);
  }
}

void pp_team_dissolve(pp_place *p) {
  pp_team_release(p);
  p->span = 0;
  p->sched->nspans--;
}

/* Take the first job of the queue to p; false if it does not want it. */
static bool enter(pp_sched *s, pp_place *p) {
  pp_job *j = s->queue.head;
  int r;

  pp_levels_remove(&s->levels, &s->queue, j);
  r = pp_place_enter(p, j);
  if (r != 0) {
    p->full = true;
    pp_levels_put(&s->levels, &s->queue, j, true);
  }
  pp_place_settle(p, false);
  return r == 0;
}

/* A node that has so many workers, and has them free. */
static pp_place *roomy_node(const pp_sched *s, size_t need) {
  pp_place *p = s->far;

  if (p != NULL)
    do {
      if (p->width >= need && pp_place_takes(p, s->queue.head))
        return p;
    } while ((p = p->next) != s->far);
  return NULL;
}

bool pp_team_place(pp_sched *s) {
  const pp_job *j = s->queue.head;
  size_t most = s->want > 0 ? s->want : s->nopen;
  size_t need = j->slots < most ? j->slots : most;
  pp_place *p;

  if (need == 0)
    return false;
  while (s->nidle >= need) {
    p = s->idle;
    if (!enter(s, p))
      continue; /* it is idle no more */
    if (need > 1) {
      p->span = (uint32_t)need;
      s->nspans++;
      pp_team_complete(p);
    }
    return true;
  }
  while ((p = roomy_node(s, need)) != NULL)
    if (enter(s, p))
      return true;
  return false;
}
