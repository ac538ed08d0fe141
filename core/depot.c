/* SPDX-License-Identifier: MIT */
#include "depot.h"

#include <stdlib.h>

static size_t slot(const pp_depot *d, const uint64_t hash[2]) {
  return (size_t)(hash[0] ^ hash[1]) & (d->cap - 1);
}

pp_stock *pp_depot_find(const pp_depot *d, uint32_t kind,
                        const unsigned char *p) {
  uint64_t hash[2] = {pp_get64(p), pp_get64(p + 8)};
  pp_stock *t;

  if (d->cap == 0)
    return NULL;
  for (t = d->table[slot(d, hash)]; t != NULL; t = t->chain)
    if (t->hash[0] == hash[0] && t->hash[1] == hash[1] && t->kind == kind)
      break;
  return t;
}

static int grow(pp_depot *d) {
  size_t cap = d->cap ? d->cap * 2 : 64, was = d->cap;
  pp_stock **v, **old = d->table;

  if (d->n < d->cap)
    return 0;
  v = calloc(cap, sizeof(pp_stock *));
  if (v == NULL)
    return PP_ENOMEM;
  d->table = v;
  d->cap = cap;
  for (size_t i = 0; i < was; i++)
    for (pp_stock *t = old[i], *next; t != NULL; t = next) {
      size_t at = slot(d, t->hash);

      next = t->chain;
      t->chain = v[at];
      v[at] = t;
    }
  free(old);
  return 0;
}

pp_stock *pp_depot_add(pp_depot *d, uint32_t kind, const unsigned char *hash,
                       uint64_t len) {
  pp_stock *t;
  size_t at;

  if (grow(d) != 0 || (t = calloc(1, sizeof *t)) == NULL)
    return NULL;
  t->hash[0] = pp_get64(hash);
  t->hash[1] = pp_get64(hash + 8);
  t->kind = kind;
  t->len = len;
  t->listed = true;
  at = slot(d, t->hash);
  t->chain = d->table[at];
  d->table[at] = t;
  d->n++;
  return t;
}

static void release(pp_stock *t) {
  if (t->listed || t->users > 0)
    return;
  pp_buf_clear(&t->bytes);
  free(t);
}

/* The depot itself holds it no more. */
static void unkeep(pp_depot *d, pp_stock *t) {
  if (!t->kept)
    return;
  *(t->older != NULL ? &t->older->newer : &d->oldest) = t->newer;
  *(t->newer != NULL ? &t->newer->older : &d->newest) = t->older;
  t->older = t->newer = NULL;
  t->kept = false;
  d->kept -= t->len;
  t->holders--;
}

void pp_depot_strike(pp_depot *d, pp_stock *t) {
  pp_stock **p;

  if (!t->listed)
    return;
  unkeep(d, t);
  for (p = &d->table[slot(d, t->hash)]; *p != t;)
    p = &(*p)->chain;
  *p = t->chain;
  d->n--;
  t->listed = false;
  if (t->holders == 0)
    release(t);
}

static void put_back(pp_depot *d, pp_stock *t) {
  if (--t->holders > 0)
    return;
  if (t->listed)
    pp_depot_strike(d, t);
  else
    release(t);
}

void pp_depot_keep(pp_depot *d, pp_stock *t) {
  unkeep(d, t);
  t->older = d->newest;
  *(d->newest != NULL ? &d->newest->newer : &d->oldest) = t;
  d->newest = t;
  t->kept = true;
  t->holders++;
  for (d->kept += t->len; d->kept > PP_DEPOT_KEPT;)
    pp_depot_strike(d, d->oldest);
}

void pp_stock_leave(pp_depot *d, pp_stock *t) {
  (void)d;
  t->users--;
  if (t->holders == 0)
    release(t);
}

int pp_shelf_put(pp_depot *d, pp_shelf *s, uint32_t id, pp_stock *t) {
  if (id >= PP_DEPOT_IDS)
    return PP_EBAD;
  if (id >= s->n) {
    uint32_t n = id + id / 2 + 16;
    pp_stock **v = realloc(s->v, n * sizeof(pp_stock *));

    if (v == NULL)
      return PP_ENOMEM;
    memset(v + s->n, 0, (n - s->n) * sizeof(pp_stock *));
    s->v = v;
    s->n = n;
  }
  t->holders++;
  pp_shelf_drop(d, s, id);
  s->v[id] = t;
  return 0;
}

void pp_shelf_drop(pp_depot *d, pp_shelf *s, uint32_t id) {
  pp_stock *t = id < s->n ? s->v[id] : NULL;

  if (t == NULL)
    return;
  s->v[id] = NULL;
  put_back(d, t);
}

void pp_shelf_clear(pp_depot *d, pp_shelf *s) {
  for (uint32_t i = 0; i < s->n; i++)
    pp_shelf_drop(d, s, i);
  free(s->v);
  s->v = NULL;
  s->n = 0;
}

void pp_depot_clear(pp_depot *d) {
  for (size_t i = 0; i < d->cap; i++)
    while (d->table[i] != NULL) {
      pp_stock *t = d->table[i];

      unkeep(d, t);
      t->holders = 0;
      pp_depot_strike(d, t);
    }
  free(d->table);
  d->table = NULL;
  d->cap = d->n = 0;
}
