/* SPDX-License-Identifier: MIT */
/* Nodes as the schedule knows them, and jobs that are for some of them only. */
#include <stdlib.h>

#include "sched_impl.h"

/* --- the places of a domain ----------------------------------------------- */

static void ring_remove(pp_place **ring, pp_place *p) {
  if (*ring == p)
    *ring = p->dnext == p ? NULL : p->dnext;
  p->dprev->dnext = p->dnext;
  p->dnext->dprev = p->dprev;
  p->dprev = p->dnext = NULL;
}

static void ring_add(pp_place **ring, pp_place *p, bool front) {
  if (*ring == NULL) {
    p->dprev = p->dnext = *ring = p;
    return;
  }
  p->dnext = *ring;
  p->dprev = (*ring)->dprev;
  p->dprev->dnext = p;
  p->dnext->dprev = p;
  if (front)
    *ring = p;
}

void pp_domain_settle(pp_place *p) {
  pp_domain *d = p->domain;
  uint32_t width = p->width > 0 ? p->width : 1;
  bool spare = p->ring != PP_RING_NONE && p->taken < width;
  uint8_t ring = spare && p->ring == PP_RING_PACKED ? PP_DRING_KEPT
                 : spare                            ? PP_DRING_SPARE
                 : p->ring == PP_RING_ROOMY         ? PP_DRING_MORE
                                                    : PP_DRING_NONE;

  if (p->dring != ring) {
    if (p->dring == PP_DRING_MORE) {
      ring_remove(&d->more, p);
    } else if (p->dring != PP_DRING_NONE) {
      ring_remove(&d->spare, p);
      d->nspare--;
    }
    if (ring == PP_DRING_MORE) {
      ring_add(&d->more, p, false);
    } else if (ring != PP_DRING_NONE) {
      ring_add(&d->spare, p, ring == PP_DRING_SPARE);
      d->nspare++;
    }
    p->dring = ring;
  }
  if (PP_UNLIKELY(d->waiting > 0) &&
      (p->ring == PP_RING_IDLE || p->ring == PP_RING_ROOMY))
    pp_domain_look(d);
}

/* --- domains -------------------------------------------------------------- */

void pp_domain_look(pp_domain *d) {
  pp_sched *s = d->sched;

  if (d->look)
    return;
  d->look = true;
  if (s->look == NULL) {
    d->look_prev = d->look_next = s->look = d;
    return;
  }
  d->look_next = s->look;
  d->look_prev = s->look->look_prev;
  d->look_prev->look_next = d;
  d->look_next->look_prev = d;
}

void pp_domain_unlook(pp_domain *d) {
  pp_sched *s = d->sched;

  if (!d->look)
    return;
  d->look = false;
  if (s->look == d)
    s->look = d->look_next == d ? NULL : d->look_next;
  d->look_prev->look_next = d->look_next;
  d->look_next->look_prev = d->look_prev;
  d->look_prev = d->look_next = NULL;
}

void pp_domain_hold(pp_domain *d, const pp_job *j) {
  pp_sched *s = d->sched;

  if (s->nheld == 0 || j->priority < s->held_least)
    s->held_least = j->priority;
  s->nheld += !d->held;
  d->held = true;
}

void pp_domain_unhold(pp_domain *d) {
  pp_place *p, *before;

  if (!d->held)
    return;
  d->held = false;
  d->sched->nheld--;
  p = d->spare != NULL ? d->spare->dprev : NULL;
  for (size_t n = d->nspare; n > 0 && p->dring == PP_DRING_KEPT; n--) {
    before = p->dprev;
    pp_place_settle(p, true); /* it goes to the front */
    p = before;
  }
  if (d->waiting > 0)
    pp_domain_look(d);
}

uint32_t pp_domain_size(const pp_domain *d) {
  const pp_sched *s = d->sched;

  if (d->want > 0)
    return d->want;
  return d == &s->own ? (uint32_t)s->nopen : d->nopen;
}

static int link_up(pp_class *c, pp_domain *d) {
  if (d->nclasses == d->cap) {
    uint32_t cap = d->cap ? d->cap * 2 : 4;
    pp_class **v = realloc(d->classes, cap * sizeof(pp_class *));

    if (v == NULL)
      return PP_ENOMEM;
    d->classes = v;
    d->cap = cap;
  }
  if (c->ndomains == c->cap) {
    uint32_t cap = c->cap ? c->cap * 2 : 4;
    pp_domain **v = realloc(c->domains, cap * sizeof(pp_domain *));

    if (v == NULL)
      return PP_ENOMEM;
    c->domains = v;
    c->cap = cap;
  }
  c->domains[c->ndomains++] = d;
  d->classes[d->nclasses++] = c;
  d->waiting += c->queue.n > 0;
  return 0;
}

static void forget_class(pp_domain *d, const pp_class *c) {
  for (uint32_t i = 0; i < d->nclasses; i++)
    if (d->classes[i] == c) {
      d->classes[i] = d->classes[--d->nclasses];
      d->waiting -= c->queue.n > 0;
      return;
    }
}

static void forget_domain(pp_class *c, const pp_domain *d) {
  c->target = NULL;
  for (uint32_t i = 0; i < c->ndomains; i++)
    if (c->domains[i] == d) {
      c->domains[i] = c->domains[--c->ndomains];
      return;
    }
}

int pp_domain_add(pp_sched *s, pp_domain *d) {
  pp_domain **end = &s->domains;

  d->sched = s;
  for (pp_class *c = s->classes; c != NULL; c = c->next)
    if (d != &s->own && c->has(c, d) && link_up(c, d) != 0) {
      pp_domain_remove(d);
      return PP_ENOMEM;
    }
  while (*end != NULL)
    end = &(*end)->next;
  *end = d;
  return 0;
}

void pp_domain_remove(pp_domain *d) {
  if (d->sched == NULL)
    return;
  for (pp_domain **p = &d->sched->domains; *p != NULL; p = &(*p)->next)
    if (*p == d) {
      *p = d->next;
      break;
    }
  pp_domain_unlook(d);
  d->sched->nheld -= d->held;
  d->held = false;
  for (uint32_t i = 0; i < d->nclasses; i++)
    forget_domain(d->classes[i], d);
  free(d->classes);
  d->classes = NULL;
  d->nclasses = d->cap = d->waiting = 0;
  d->sched = NULL;
}

/* --- classes -------------------------------------------------------------- */

int pp_class_add(pp_sched *s, pp_class *c) {
  c->sched = s;
  for (pp_domain *d = s->domains; d != NULL; d = d->next)
    if (d != &s->own && c->has(c, d) && link_up(c, d) != 0) {
      pp_class_remove(c);
      return PP_ENOMEM;
    }
  c->prev = NULL;
  c->next = s->classes;
  if (c->next != NULL)
    c->next->prev = c;
  s->classes = c;
  return 0;
}

void pp_class_remove(pp_class *c) {
  pp_sched *s = c->sched;

  for (uint32_t i = 0; i < c->ndomains; i++)
    forget_class(c->domains[i], c);
  free(c->domains);
  c->domains = NULL;
  c->ndomains = c->cap = 0;
  if (c->prev != NULL)
    c->prev->next = c->next;
  else if (s->classes == c)
    s->classes = c->next;
  if (c->next != NULL)
    c->next->prev = c->prev;
}

/* It has jobs queued now, or no more. */
static void set_due(pp_class *c, bool due) {
  pp_sched *s = c->sched;

  for (uint32_t i = 0; i < c->ndomains; i++)
    c->domains[i]->waiting += due ? 1u : UINT32_MAX;
  if (due) {
    c->due_prev = NULL;
    c->due_next = s->due;
    if (s->due != NULL)
      s->due->due_prev = c;
    s->due = c;
    return;
  }
  if (c->due_prev != NULL)
    c->due_prev->due_next = c->due_next;
  else
    s->due = c->due_next;
  if (c->due_next != NULL)
    c->due_next->due_prev = c->due_prev;
}

void pp_class_put(pp_class *c, pp_job *j, bool front) {
  pp_sched *s = c->sched;
  bool open = false;

  pp_levels_put(&c->levels, &c->queue, j, front);
  if (c->queue.n == 1)
    set_due(c, true);
  if (c->queue.head != j)
    return;
  c->target = NULL;
  for (uint32_t i = 0; i < c->ndomains && !open; i++)
    open = c->domains[i]->nopen > 0;
  s->stranded = s->stranded || !open;
  for (uint32_t i = 0; i < c->ndomains; i++)
    if (c->domains[i]->spare != NULL || c->domains[i]->more != NULL)
      pp_domain_look(c->domains[i]);
}

void pp_class_take(pp_class *c, pp_job *j) {
  bool kept = c->queue.head == j && j->slots > 1;

  if (kept)
    c->target = NULL;

  pp_levels_remove(&c->levels, &c->queue, j);
  if (c->queue.n == 0)
    set_due(c, false);
  for (uint32_t i = 0; kept && i < c->ndomains; i++)
    pp_domain_unhold(c->domains[i]);
}

/* Does the first job of c, of several slots, want this domain's places? It
 * waits for one that is large enough, that with the most idle places now, and
 * takes any other where there happen to be as many. */
static bool wants(pp_class *c, const pp_domain *d, const pp_job *j) {
  uint32_t need = pp_sched_need(d->sched, j);

  if (need == 0 || need > pp_domain_size(d))
    return false;
  if (c->target == NULL)
    for (uint32_t i = 0; i < c->ndomains; i++) {
      pp_domain *x = c->domains[i];

      if (need <= pp_domain_size(x) &&
          (c->target == NULL || x->nspare > c->target->nspare))
        c->target = x;
    }
  return c->target == d || d->nspare >= need;
}

pp_job *pp_domain_first(const pp_domain *d) {
  pp_job *first = NULL;

  for (uint32_t i = 0; i < d->nclasses; i++) {
    pp_job *j = d->classes[i]->queue.head;

    if (j != NULL && (first == NULL || pp_sched_before(j, first)) &&
        (j->slots < 2 || wants(d->classes[i], d, j)))
      first = j;
  }
  return first;
}

bool pp_sched_may(const pp_place *p, const pp_job *j) {
  const pp_class *c = pp_class_of(p->sched, j);

  return c == NULL || (p->domain != NULL && p->domain != &p->sched->own &&
                       c->has(c, p->domain));
}

pp_job *pp_sched_head(const pp_sched *s) {
  pp_job *first = s->queue.head;

  for (const pp_class *c = s->due; c != NULL; c = c->due_next)
    if (first == NULL || pp_sched_before(c->queue.head, first))
      first = c->queue.head;
  return first;
}

uint32_t pp_sched_need(const pp_sched *s, const pp_job *j) {
  const pp_class *c = pp_class_of(s, j);
  uint32_t most = c == NULL && s->domains == NULL ? (uint32_t)s->nopen : 0;
  bool hazy = false;

  if (c == NULL) {
    for (const pp_domain *d = s->domains; d != NULL; d = d->next) {
      hazy = hazy || d->hazy;
      most = pp_domain_size(d) > most ? pp_domain_size(d) : most;
    }
  } else {
    for (uint32_t i = 0; i < c->ndomains; i++) {
      const pp_domain *d = c->domains[i];

      hazy = hazy || d->hazy;
      most = pp_domain_size(d) > most ? pp_domain_size(d) : most;
    }
  }
  return j->slots <= most ? j->slots : hazy ? 0 : most;
}
