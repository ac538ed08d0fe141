/* SPDX-License-Identifier: MIT */
#include "ptrmap.h"

void pp_ptrmap_clear(pp_ptrmap *m) {
  if (m->slots != NULL)
    pp_buf_realloc(m->slots, 0);
  memset(m, 0, sizeof *m);
}

void pp_ptrmap_empty(pp_ptrmap *m) {
  m->n = 0;
  if (m->slots != NULL && ++m->round == 0) {
    memset(m->slots, 0, (m->mask + 1) * sizeof *m->slots);
    m->round = 1;
  }
}

int pp_ptrmap_grow(pp_ptrmap *m) {
  size_t cap = m->slots != NULL ? (m->mask + 1) * 2 : 64, i;
  pp_ptrmap bigger = {.mask = cap - 1, .round = 1};

  if (cap > SIZE_MAX / 4 / sizeof *m->slots)
    return PP_ENOMEM;
  bigger.slots = pp_buf_realloc(NULL, cap * sizeof *m->slots);
  if (bigger.slots == NULL)
    return PP_ENOMEM;
  memset(bigger.slots, 0, cap * sizeof *m->slots);
  for (i = 0; m->slots != NULL && i <= m->mask; i++)
    if (m->slots[i].round == m->round)
      pp_ptrmap_put(&bigger, m->slots[i].p, m->slots[i].value);
  pp_ptrmap_clear(m);
  *m = bigger;
  return 0;
}
