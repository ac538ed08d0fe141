/* SPDX-License-Identifier: MIT */
#include "group.h"

#include <stdlib.h>
#include <string.h>

#include "hash.h"

static pp_group *look(const pp_groups *s, const char *name, size_t len,
                      uint64_t hash) {
  pp_group *g = s->cap > 0 ? s->table[hash & (s->cap - 1)] : NULL;

  while (g != NULL &&
         (g->hash != hash || g->len != len || memcmp(g->name, name, len) != 0))
    g = g->next;
  return g;
}

static uint64_t hash_of(const char *name, size_t len) {
  return pp_hash_of(name, len, 0).lo;
}

pp_group *pp_groups_find(const pp_groups *s, const char *name, size_t len) {
  return look(s, name, len, hash_of(name, len));
}

/* Without memory for a larger table it stays as it is, if there is one. */
static int grow(pp_groups *s) {
  size_t cap = s->cap > 0 ? s->cap * 2 : 8;
  pp_group **v = calloc(cap, sizeof(pp_group *)), *g;

  if (v == NULL)
    return s->cap > 0 ? 0 : -1;
  for (size_t i = 0; i < s->cap; i++)
    while ((g = s->table[i]) != NULL) {
      s->table[i] = g->next;
      g->next = v[g->hash & (cap - 1)];
      v[g->hash & (cap - 1)] = g;
    }
  free(s->table);
  s->table = v;
  s->cap = cap;
  return 0;
}

pp_group *pp_groups_get(pp_groups *s, const char *name, size_t len) {
  pp_group *g = s->last, **at;
  uint64_t hash;

  if (g != NULL && g->len == len && memcmp(g->name, name, len) == 0) {
    g->refs++;
    return g;
  }
  hash = hash_of(name, len);
  g = look(s, name, len, hash);
  if (g != NULL) {
    g->refs++;
    s->last = g;
    return g;
  }
  if (s->n >= s->cap && grow(s) != 0)
    return NULL;
  g = malloc(sizeof *g + len + 1);
  if (g == NULL)
    return NULL;
  memset(g, 0, sizeof *g);
  memcpy(g->name, name, len);
  g->name[len] = '\0';
  g->len = len;
  g->hash = hash;
  g->refs = 1;
  g->set = s;
  at = &s->table[hash & (s->cap - 1)];
  g->next = *at;
  *at = g;
  s->n++;
  s->last = g;
  return g;
}

void pp_group_unref(pp_group *g) {
  if (g == NULL || --g->refs > 0)
    return;
  if (g->set != NULL) {
    pp_group **at = &g->set->table[g->hash & (g->set->cap - 1)];

    while (*at != g)
      at = &(*at)->next;
    *at = g->next;
    g->set->n--;
    if (g->set->last == g)
      g->set->last = NULL;
  }
  free(g);
}

void pp_groups_clear(pp_groups *s) {
  for (size_t i = 0; i < s->cap; i++)
    for (pp_group *g = s->table[i]; g != NULL; g = g->next)
      g->set = NULL;
  free(s->table);
  memset(s, 0, sizeof *s);
}
