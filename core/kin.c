/* SPDX-License-Identifier: MIT */
#include "kin.h"

#include <stdlib.h>

pp_kin *pp_kin_of(pp_job *j) {
  if (j->kin == NULL)
    j->kin = calloc(1, sizeof *j->kin);
  return j->kin;
}

int pp_kin_adopt(pp_job *parent, pp_job *child, uint32_t key) {
  pp_kin *p = pp_kin_of(parent), *c = pp_kin_of(child);

  if (p == NULL || c == NULL)
    return PP_ENOMEM;
  c->parent = parent;
  c->key = key;
  c->prev = p->last;
  if (p->last != NULL)
    p->last->kin->next = child;
  else
    p->first = child;
  p->last = child;
  p->nchildren++;
  return 0;
}

void pp_kin_leave(pp_job *child) {
  pp_kin *c = child->kin, *p;

  if (c == NULL || c->parent == NULL)
    return;
  p = c->parent->kin;
  if (c->prev != NULL)
    c->prev->kin->next = c->next;
  else
    p->first = c->next;
  if (c->next != NULL)
    c->next->kin->prev = c->prev;
  else
    p->last = c->prev;
  p->nchildren--;
  c->parent = c->prev = c->next = NULL;
}

void pp_kin_anew(pp_job *j) {
  if (j->kin != NULL)
    j->kin->begun = j->kin->since = j->kin->waited = 0;
}

pp_job *pp_kin_leaf(pp_job *j) {
  while (pp_kin_child(j) != NULL)
    j = j->kin->first;
  return j;
}

pp_job *pp_kin_queued(const pp_job *j) {
  const pp_job *at = j;

  for (;;) {
    if (pp_kin_child(at) != NULL) {
      at = at->kin->first;
    } else {
      while (at != j && at->kin->next == NULL)
        at = at->kin->parent;
      if (at == j)
        return NULL;
      at = at->kin->next;
    }
    if (at->state == PP_JOB_QUEUED)
      return (pp_job *)(uintptr_t)at;
  }
}
