/* SPDX-License-Identifier: MIT */
/*
 * ptrmap: addresses to small numbers, emptied in constant time. Addresses are
 * compared, never followed. A zeroed pp_ptrmap is valid and empty.
 */
#ifndef PP_PTRMAP_H
#define PP_PTRMAP_H

#include <stdbool.h>

#include "buf.h"

typedef struct pp_ptrslot {
  const void *p;
  uint32_t value, round; /* in use when round is the map's */
} pp_ptrslot;

typedef struct pp_ptrmap {
  pp_ptrslot *slots; /* owned; mask + 1 of them, a power of two */
  size_t mask, n;
  uint32_t round;
} pp_ptrmap;

void pp_ptrmap_clear(pp_ptrmap *m); /* frees */
void pp_ptrmap_empty(pp_ptrmap *m); /* keeps the memory */
int pp_ptrmap_grow(pp_ptrmap *m);

static inline size_t pp_ptrmap_at(const pp_ptrmap *m, const void *p) {
  return (size_t)(((uintptr_t)p >> 4) * UINT64_C(0x9e3779b97f4a7c15) >> 32) &
         m->mask;
}

static inline bool pp_ptrmap_get(const pp_ptrmap *m, const void *p,
                                 uint32_t *value) {
  size_t i;

  if (m->n == 0)
    return false;
  for (i = pp_ptrmap_at(m, p); m->slots[i].round == m->round;
       i = (i + 1) & m->mask)
    if (m->slots[i].p == p) {
      *value = m->slots[i].value;
      return true;
    }
  return false;
}

/* Add an address that is not in it. 0 or PP_ENOMEM. */
static inline int pp_ptrmap_put(pp_ptrmap *m, const void *p, uint32_t value) {
  size_t i;

  if (m->slots == NULL || m->n * 2 > m->mask) {
    int r = pp_ptrmap_grow(m);

    if (r < 0)
      return r;
  }
  for (i = pp_ptrmap_at(m, p); m->slots[i].round == m->round;
       i = (i + 1) & m->mask)
    ;
  m->slots[i].p = p;
  m->slots[i].value = value;
  m->slots[i].round = m->round;
  m->n++;
  return 0;
}

#endif
