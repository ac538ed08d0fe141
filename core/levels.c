/* SPDX-License-Identifier: MIT */
#include "levels.h"

#include <stdlib.h>
#include <string.h>

/* The level of this priority, or NULL; *above: the nearest of a higher one,
 * *below: of a lower. */
static pp_level *find(pp_levels *v, double priority, pp_level **above,
                      pp_level **below) {
  pp_level *l = v->root;

  *above = *below = NULL;
  while (l != NULL && l->priority != priority) {
    if (l->priority > priority) {
      *above = l;
      l = l->right;
    } else {
      *below = l;
      l = l->left;
    }
  }
  return l;
}

static void split(pp_level *l, double priority, pp_level **higher,
                  pp_level **lower) {
  while (l != NULL)
    if (l->priority > priority) {
      *higher = l;
      higher = &l->right;
      l = l->right;
    } else {
      *lower = l;
      lower = &l->left;
      l = l->left;
    }
  *higher = *lower = NULL;
}

static pp_level *merge(pp_level *high, pp_level *low) {
  pp_level *root, **at = &root;

  while (high != NULL && low != NULL)
    if (high->weight > low->weight) {
      *at = high;
      at = &high->right;
      high = high->right;
    } else {
      *at = low;
      at = &low->left;
      low = low->left;
    }
  *at = high != NULL ? high : low;
  return root;
}

/* A new level; NULL without memory. */
static pp_level *add(pp_levels *v, double priority) {
  pp_level *l = v->one_used ? malloc(sizeof *l) : &v->one;
  pp_level **at = &v->root;

  if (l == NULL)
    return NULL;
  memset(l, 0, sizeof *l);
  if (l == &v->one)
    v->one_used = true;
  l->priority = priority;
  v->seed = v->seed * 1664525u + 1013904223u;
  l->weight = v->seed >> 1 ^ v->seed << 15;
  while (*at != NULL && (*at)->weight >= l->weight)
    at = (*at)->priority > priority ? &(*at)->right : &(*at)->left;
  split(*at, priority, &l->left, &l->right);
  *at = l;
  return l;
}

static void drop(pp_levels *v, pp_level *l) {
  pp_level **at = &v->root;

  while (*at != l)
    at = (*at)->priority > l->priority ? &(*at)->right : &(*at)->left;
  *at = merge(l->left, l->right);
  if (v->recent == l)
    v->recent = NULL;
  if (l == &v->one)
    v->one_used = false;
  else
    free(l);
}

void pp_levels_put(pp_levels *v, pp_jobs *list, pp_job *j, bool front) {
  pp_level *l = v->recent, *above, *below;

  if (l == NULL || l->priority != j->priority) {
    l = find(v, j->priority, &above, &below);
    if (l == NULL) {
      l = add(v, j->priority);
      if (l != NULL) {
        pp_jobs_after(list, above != NULL ? above->last : NULL, j);
        l->first = l->last = j;
        l->n = 1;
        v->recent = l;
        return;
      }
      l = above != NULL ? above : below; /* there is one: v->one is used */
      j->priority = l->priority;
    }
    v->recent = l;
  }
  if (front) {
    pp_jobs_after(list, l->first->prev, j);
    l->first = j;
  } else {
    pp_jobs_after(list, l->last, j);
    l->last = j;
  }
  l->n++;
}

void pp_levels_remove(pp_levels *v, pp_jobs *list, pp_job *j) {
  pp_level *l = v->recent, *above, *below;

  if (l == NULL || l->priority != j->priority)
    l = find(v, j->priority, &above, &below);
  if (l->first == j)
    l->first = j->next;
  if (l->last == j)
    l->last = j->prev;
  if (--l->n == 0)
    drop(v, l);
  pp_jobs_remove(list, j);
}
