/* SPDX-License-Identifier: MIT */
#include "kin.h"

#include <stdlib.h>

pp_kin *pp_kin_of(pp_job *j) {
  pp_more *more = pp_job_more(j);

  if (more != NULL && more->kin == NULL)
    more->kin = calloc(1, sizeof *more->kin);
  return more != NULL ? more->kin : NULL;
}

int pp_kin_adopt(pp_job *parent, pp_job *child, uint32_t key) {
  pp_kin *p = pp_kin_of(parent), *c = pp_kin_of(child);

  if (p == NULL || c == NULL)
    return PP_ENOMEM;
  c->parent = parent;
  c->key = key;
  c->prev = p->last;
  if (p->last != NULL)
    pp_job_kin(p->last)->next = child;
  else
    p->first = child;
  p->last = child;
  p->nchildren++;
  return 0;
}

void pp_kin_leave(pp_job *child) {
  pp_kin *c = pp_job_kin(child), *p;

  if (c == NULL || c->parent == NULL)
    return;
  p = pp_job_kin(c->parent);
  if (c->prev != NULL)
    pp_job_kin(c->prev)->next = c->next;
  else
    p->first = c->next;
  if (c->next != NULL)
    pp_job_kin(c->next)->prev = c->prev;
  else
    p->last = c->prev;
  p->nchildren--;
  c->parent = c->prev = c->next = NULL;
}

void pp_kin_anew(pp_job *j) {
  if (pp_job_kin(j) != NULL)
    pp_job_kin(j)->begun = pp_job_kin(j)->since = pp_job_kin(j)->waited = 0;
}

pp_job *pp_kin_leaf(pp_job *j) {
  while (pp_kin_child(j) != NULL)
    j = pp_job_kin(j)->first;
  return j;
}

pp_job *pp_kin_queued(const pp_job *j) {
  const pp_job *at = j;

  for (;;) {
    if (pp_kin_child(at) != NULL) {
      at = pp_job_kin(at)->first;
    } else {
      while (at != j && pp_job_kin(at)->next == NULL)
        at = pp_job_kin(at)->parent;
      if (at == j)
        return NULL;
      at = pp_job_kin(at)->next;
    }
    if (at->state == PP_JOB_QUEUED)
      return (pp_job *)(uintptr_t)at;
  }
}
