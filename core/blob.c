/* SPDX-License-Identifier: MIT */
#include "blob.h"

#include <stdlib.h>

static size_t place(const pp_blobs *s, int kind, pp_hash h) {
  return (size_t)(h.lo ^ h.hi ^ (uint64_t)kind) & (s->cap - 1);
}

static int grow(pp_blobs *s) {
  size_t cap = s->cap ? s->cap * 2 : 64;
  pp_blob **old = s->table, **table = calloc(cap, sizeof *table);
  size_t was = s->cap;

  if (table == NULL)
    return PP_ENOMEM;
  s->table = table;
  s->cap = cap;
  for (size_t i = 0; i < was; i++)
    for (pp_blob *b = old[i], *next; b != NULL; b = next) {
      size_t at = place(s, b->kind, b->hash);

      next = b->chain;
      b->chain = table[at];
      table[at] = b;
    }
  free(old);
  return 0;
}

pp_blob *pp_blobs_find(const pp_blobs *s, int kind, pp_hash hash) {
  if (s->cap == 0)
    return NULL;
  for (pp_blob *b = s->table[place(s, kind, hash)]; b != NULL; b = b->chain)
    if (b->hash.lo == hash.lo && b->hash.hi == hash.hi && b->kind == kind)
      return b;
  return NULL;
}

pp_hash pp_blob_name(int kind, const void *bytes, size_t len,
                     pp_blob *const *deps, size_t ndeps) {
  pp_hash h = {0, 0};
  pp_buf b = {0};
  int r;

  if (kind == 'c')
    return pp_hash_of(bytes, len, 0);
  r = pp_buf_put(&b, bytes, len);
  for (size_t i = 0; i < ndeps && r == 0; i++)
    r = pp_buf_put(&b, &deps[i]->hash, sizeof deps[i]->hash);
  if (r == 0)
    h = pp_hash_of(b.data, b.len, (uint64_t)kind);
  pp_buf_clear(&b);
  return h;
}

pp_blob *pp_blobs_intern(pp_blobs *s, int kind, pp_hash hash, const void *bytes,
                         size_t len, pp_blob *const *deps, size_t ndeps) {
  pp_blob *b = pp_blobs_find(s, kind, hash);
  size_t at;

  if (b != NULL)
    return pp_blob_ref(b);
  if (s->n >= s->cap && grow(s) != 0)
    return NULL;
  b = malloc(sizeof *b + len);
  if (b == NULL)
    return NULL;
  memset(b, 0, sizeof *b);
  if (ndeps > 0) {
    b->deps = malloc(ndeps * sizeof *b->deps);
    if (b->deps == NULL) {
      free(b);
      return NULL;
    }
    for (size_t i = 0; i < ndeps; i++)
      b->deps[i] = pp_blob_ref(deps[i]);
    b->ndeps = (uint32_t)ndeps;
  }
  b->hash = hash;
  b->kind = kind;
  b->refs = 1;
  b->run_ns = -1;
  b->len = len;
  memcpy(b->bytes, bytes, len);
  b->id = s->nfree > 0 ? s->free_ids[s->nfree - 1] : s->next_id;
  if (b->id >= s->cap_ids) {
    uint32_t cap = s->cap_ids ? s->cap_ids * 2 : 64;
    pp_blob **v = realloc(s->by_id, cap * sizeof *v);

    if (v == NULL) {
      for (size_t i = 0; i < ndeps; i++)
        pp_blob_unref(s, b->deps[i]);
      free(b->deps);
      free(b);
      return NULL;
    }
    memset(v + s->cap_ids, 0, (cap - s->cap_ids) * sizeof *v);
    s->by_id = v;
    s->cap_ids = cap;
  }
  if (s->nfree > 0)
    s->nfree--;
  else
    s->next_id++;
  s->by_id[b->id] = b;
  at = place(s, kind, hash);
  b->chain = s->table[at];
  s->table[at] = b;
  s->n++;
  return b;
}

static void forget_id(pp_blobs *s, uint32_t id) {
  if (s->nfree == s->cap_free) {
    uint32_t cap = s->cap_free ? s->cap_free * 2 : 64;
    uint32_t *v = realloc(s->free_ids, cap * sizeof *v);

    if (v == NULL)
      return; /* the number is never used again: harmless */
    s->free_ids = v;
    s->cap_free = cap;
  }
  s->free_ids[s->nfree++] = id;
}

void pp_blob_unref(pp_blobs *s, pp_blob *b) {
  pp_blob **p;

  if (b == NULL || --b->refs > 0)
    return;
  for (uint32_t i = 0; i < b->nholders; i++)
    s->dropped(s->ud, b->holders[i], b->id);
  for (p = &s->table[place(s, b->kind, b->hash)]; *p != b;)
    p = &(*p)->chain;
  *p = b->chain;
  s->n--;
  s->by_id[b->id] = NULL;
  forget_id(s, b->id);
  for (uint32_t i = 0; i < b->ndeps; i++)
    pp_blob_unref(s, b->deps[i]);
  free(b->deps);
  free(b->holders);
  free(b);
}

int pp_blob_held(pp_blob *b, uint32_t lane) {
  if (b->nholders == b->cap_holders) {
    uint32_t cap = b->cap_holders ? b->cap_holders * 2 : 4;
    uint32_t *v = realloc(b->holders, cap * sizeof *v);

    if (v == NULL)
      return PP_ENOMEM;
    b->holders = v;
    b->cap_holders = cap;
  }
  b->holders[b->nholders++] = lane;
  return 0;
}

void pp_blob_lost(pp_blob *b, uint32_t lane) {
  for (uint32_t i = 0; i < b->nholders; i++)
    if (b->holders[i] == lane) {
      b->holders[i] = b->holders[--b->nholders];
      return;
    }
}

void pp_blobs_clear(pp_blobs *s) {
  for (size_t i = 0; i < s->cap; i++)
    for (pp_blob *b = s->table[i], *next; b != NULL; b = next) {
      next = b->chain;
      free(b->deps);
      free(b->holders);
      free(b);
    }
  free(s->table);
  free(s->free_ids);
  free(s->by_id);
  memset(s, 0, sizeof *s);
}
