/* SPDX-License-Identifier: MIT */
#include "crew.h"

#include "kin.h"

/* A spare worker ends after so long. */
#define SPARE_NS ((int64_t)2000000000)
/* After a worker could not be started none is asked for so long by jobs that
 * wait: they serve. */
#define RETRY_NS ((int64_t)1000000000)

static void set_serving(pp_link *l, bool on) {
  if (l->serving == on)
    return;
  l->serving = on;
  if (on)
    l->node->serving++;
  else
    l->node->serving--;
}

static void set_extra(pp_link *l, bool on) {
  if (l->extra == on)
    return;
  l->extra = on;
  if (on)
    l->node->extra++;
  else
    l->node->extra--;
}

static void set_held(pp_link *l, bool on) {
  if (l->held == on)
    return;
  l->held = on;
  if (on)
    l->node->held++;
  else
    l->node->held--;
}

static uint32_t *counter(pp_node *n, enum pp_duty duty) {
  return duty == PP_DUTY_OPEN   ? &n->open
         : duty == PP_DUTY_AWAY ? &n->away
                                : &n->spare;
}

static void set_duty(pp_link *l, enum pp_duty duty) {
  if (l->duty != PP_DUTY_NONE)
    --*counter(l->node, l->duty);
  if (duty != PP_DUTY_NONE)
    ++*counter(l->node, duty);
  l->duty = duty;
  if (duty != PP_DUTY_AWAY)
    set_extra(l, false);
  if (duty != PP_DUTY_OPEN)
    set_serving(l, false);
  if (duty == PP_DUTY_SPARE)
    l->node->spare_since = pp_now_ns();
}

void pp_crew_join(pp_link *l) {
  set_duty(l, PP_DUTY_OPEN);
  pp_everywhere_next(l);
}

void pp_crew_leave(pp_link *l) {
  const pp_job *j = l->place.jobs.tail;

  set_duty(l, PP_DUTY_NONE);
  set_held(l, !l->dead && j != NULL && pp_job_kin(j) != NULL &&
                  pp_job_kin(j)->since > 0);
  pp_sched_close(&l->server->sched, &l->place);
}

/* Give what the innermost job of l waits for, if nobody has begun it, to l. One
 * that does not wait may have been given to it for that: then it has enough to
 * do, until that ends or is taken from it. */
static void serve(pp_link *l) {
  pp_job *j = l->place.jobs.tail, *below;

  if (j == NULL || (j->flags & PP_JOB_GHOST) || pp_job_kin(j) == NULL ||
      pp_job_kin(j)->since == 0)
    return;
  below = pp_kin_queued(j);
  if (below == NULL || !pp_sched_may(&l->place, below))
    return;
  l->lending = true;
  pp_sched_lend(&l->place, below);
  l->lending = false;
}

void pp_crew_serve(pp_node *n) {
  for (uint32_t i = 0; i < n->cap && n->serving > 0; i++)
    if (n->workers[i] != NULL && n->workers[i]->serving)
      serve(n->workers[i]);
}

void pp_crew_stay(pp_node *n) {
  for (uint32_t i = 0; i < n->cap && n->open < n->ncpus; i++) {
    pp_link *l = n->workers[i];
    const pp_job *j = l != NULL ? l->place.jobs.tail : NULL;

    if (j == NULL || l->duty != PP_DUTY_AWAY || l->extra ||
        (j->flags & PP_JOB_GHOST) || pp_kin_queued(j) == NULL)
      continue;
    set_duty(l, PP_DUTY_OPEN);
    set_serving(l, true);
    serve(l);
  }
}

/* Could others be started, as far as is known? */
static bool refused(const pp_node *n, int64_t now) {
  return n->refusals > 0 && n->spare == 0 && now < n->respawn_at + RETRY_NS;
}

/* Workers whose jobs have gone on get the places of idle ones. */
static void trade(pp_node *n) {
  uint32_t k = 0;

  for (uint32_t i = 0; i < n->cap && n->extra > 0; i++) {
    pp_link *l = n->workers[i], *idle = NULL;

    if (l == NULL || !l->extra)
      continue;
    while (k < n->cap && ((idle = n->workers[k]) == NULL || !idle->place.open ||
                          idle->place.jobs.n > 0 || idle->place.holder != NULL))
      k++;
    if (k == n->cap)
      return;
    pp_sched_close(&n->server->sched, &idle->place);
    set_duty(idle, PP_DUTY_SPARE);
    set_duty(l, PP_DUTY_OPEN);
    pp_everywhere_next(l);
  }
}

void pp_crew_waits(pp_link *l, pp_job *j, bool deep, int64_t now) {
  pp_node *n = l->node;

  if (pp_job_kin(j) == NULL || pp_job_kin(j)->since > 0)
    return;
  if (pp_job_kin(j)->begun == 0)
    pp_job_kin(j)->begun = atomic_load(&l->map.lane->begun);
  pp_job_kin(j)->since = now;
  /* What it has been sent and not begun would wait behind this job. */
  pp_link_detach(l);
  pp_sched_close(&n->server->sched, &l->place);
  if (l->place.jobs.tail != j)
    pp_sched_spread(&l->place);
  if (l->duty == PP_DUTY_AWAY) {
    set_extra(l, false);
    return;
  }
  if (l->duty == PP_DUTY_NONE) { /* it retires */
    set_held(l, true);
    pp_node_tend(n, now);
    return;
  }
  if (deep || (n->away < PP_AWAY_MAX(n->ncpus) && l->place.jobs.n == 1 &&
               !refused(n, now))) {
    set_duty(l, PP_DUTY_AWAY);
    pp_node_tend(n, now);
  } else {
    set_duty(l, PP_DUTY_OPEN);
    set_serving(l, true);
    serve(l);
  }
}

void pp_crew_goes_on(pp_link *l, pp_job *j, int64_t now) {
  if (pp_job_kin(j) == NULL || pp_job_kin(j)->since == 0)
    return;
  pp_job_kin(j)->waited += now - pp_job_kin(j)->since;
  pp_job_kin(j)->since = 0;
  set_held(l, false);
  if (l->duty == PP_DUTY_AWAY) {
    set_extra(l, true);
    trade(l->node);
  } else if (l->duty == PP_DUTY_OPEN) {
    set_serving(l, false);
    if (l->place.jobs.tail != j) /* what it has been lent and not begun */
      pp_sched_spread(&l->place);
    if (l->place.jobs.n == 1)
      pp_everywhere_next(l);
  }
}

void pp_crew_ends(pp_link *l) {
  pp_node *n = l->node;

  if (n->extra == 0 || l->duty != PP_DUTY_OPEN || !l->place.open)
    return;
  /* Hand the place over to one whose job has gone on. */
  for (uint32_t i = 0; i < n->cap; i++) {
    pp_link *x = n->workers[i];

    if (x != NULL && x->extra) {
      pp_sched_close(&n->server->sched, &l->place);
      set_duty(l, PP_DUTY_SPARE);
      set_duty(x, PP_DUTY_OPEN);
      pp_everywhere_next(x);
      return;
    }
  }
}

void pp_crew_ended(pp_link *l) {
  pp_node *n = l->node;
  const pp_job *j = l->place.jobs.tail;

  if (j == NULL) {
    set_held(l, false);
    if (l->duty == PP_DUTY_AWAY) {
      set_duty(l, PP_DUTY_SPARE);
      if (pp_crew_missing(n))
        pp_node_tend(n, pp_now_ns());
    } else if (l->duty == PP_DUTY_OPEN && !l->place.open) {
      set_serving(l, false);
      pp_everywhere_next(l);
    }
  } else if (pp_job_kin(j) != NULL &&
             pp_job_kin(j)->since > 0) { /* the one below waits */
    set_extra(l, false);
    if (l->duty == PP_DUTY_NONE)
      set_held(l, true);
    if (l->duty == PP_DUTY_OPEN && !l->place.open) {
      set_serving(l, true);
      serve(l);
    }
  }
}

bool pp_crew_missing(const pp_node *n) {
  uint32_t barred = n->barred; /* places that stay empty */

  if (n->server->closed || n->open + barred >= n->ncpus)
    return false;
  if (n->away + n->held > 0 && !pp_domain_due(&n->domain) &&
      n->open + n->away + n->held + barred >= n->ncpus)
    return false; /* there is nothing to do */
  return n->spare > 0 || n->alive + barred < n->ncpus + n->away + n->held;
}

bool pp_crew_call(pp_node *n) {
  for (uint32_t i = 0; i < n->cap && n->spare > 0; i++) {
    pp_link *l = n->workers[i];

    if (l != NULL && l->duty == PP_DUTY_SPARE) {
      set_duty(l, PP_DUTY_OPEN);
      pp_everywhere_next(l);
      return true;
    }
  }
  return false;
}

int64_t pp_crew_tidy(pp_node *n, int64_t now) {
  if (n->spare == 0)
    return -1;
  if (n->server->kids > 0 || now - n->spare_since < SPARE_NS)
    return (n->server->kids > 0 ? now : n->spare_since) + SPARE_NS;
  for (uint32_t i = 0; i < n->cap; i++)
    if (n->workers[i] != NULL && n->workers[i]->duty == PP_DUTY_SPARE)
      pp_link_retire(n->workers[i]);
  return -1;
}
