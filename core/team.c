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
  while (lacks(p) && p->domain->spare != NULL)
    join(p, p->domain->spare);
}

/* One of that domain in that ring whose team lacks a place; NULL: there is
 * none. */
static pp_place *lacking(pp_place *ring, const pp_domain *d) {
  pp_place *p = ring;

  if (p != NULL)
    do {
      if (p->domain == d && lacks(p))
        return p;
    } while ((p = p->next) != ring);
  return NULL;
}

bool pp_team_enlist(pp_place *member) {
  pp_sched *s = member->sched;
  pp_place *p = s->nspans > 0 ? lacking(s->packed, member->domain) : NULL;

  if (p == NULL && s->nspans > 0)
    p = lacking(s->roomy, member->domain);
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

/* Take a queued job to p; false if it does not want it. */
static bool enter(pp_sched *s, pp_place *p, pp_job *j) {
  int r;

  pp_sched_remove(s, j);
  r = pp_place_enter(p, j);
  if (r != 0) {
    p->full = true;
    pp_sched_put(s, j, true);
  }
  pp_place_settle(p, false);
  return r == 0;
}

bool pp_team_place_at(pp_sched *s, pp_domain *d, pp_job *j, uint32_t need) {
  while (d->nspare >= need && need > 0) {
    pp_place *p = d->spare;

    if (p->full || !pp_place_takes(p, j))
      return false; /* for the others are, too */
    if (!enter(s, p, j))
      continue; /* it is spare no more */
    if (need > 1) {
      p->span = need;
      s->nspans++;
      pp_team_complete(p);
    }
    return true;
  }
  return false;
}

/* A node that is one place, has so many workers, and has them free. */
static pp_place *roomy_node(const pp_sched *s, size_t need) {
  pp_place *p = s->far;

  if (p != NULL)
    do {
      if (p->width >= need && p->domain == NULL &&
          pp_place_takes(p, s->queue.head))
        return p;
    } while ((p = p->next) != s->far);
  return NULL;
}

bool pp_team_place(pp_sched *s) {
  pp_job *j = s->queue.head;
  uint32_t need = pp_sched_need(s, j);
  pp_place *p;

  if (need == 0)
    return false;
  for (pp_domain *d = s->domains; d != NULL; d = d->next)
    if (d->nspare >= need) {
      const pp_job *first = d->waiting > 0 ? pp_domain_first(d) : NULL;

      if ((first == NULL || pp_sched_before(j, first)) &&
          pp_team_place_at(s, d, j, need))
        return true;
    }
  while ((p = roomy_node(s, need)) != NULL)
    if (enter(s, p, j))
      return true;
  return false;
}
