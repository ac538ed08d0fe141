/* SPDX-License-Identifier: MIT */
#include "blob.h"

#include <stdlib.h>

#include "wire.h"

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

static int set_deps(pp_blob *b, pp_blob *const *deps, size_t ndeps) {
  if (ndeps == 0)
    return 0;
  b->deps = malloc(ndeps * sizeof *b->deps);
  if (b->deps == NULL)
    return PP_ENOMEM;
  for (size_t i = 0; i < ndeps; i++) {
    b->deps[i] = deps[i] != NULL ? pp_blob_ref(deps[i]) : NULL;
    if (deps[i] != NULL) {
      b->waits |= deps[i]->waits;
      b->values |= deps[i]->values;
      b->codes |= deps[i]->kind == PP_BLOB_CODE || deps[i]->codes;
    }
  }
  b->ndeps = (uint32_t)ndeps;
  return 0;
}

/* A new blob of bytes to be copied, or none, or those of cargo, whose reference
 * passes. */
static pp_blob *make(pp_blobs *s, int kind, pp_hash hash, const void *bytes,
                     size_t len, pp_cargo *cargo, pp_blob *const *deps,
                     size_t ndeps) {
  pp_blob *b;
  size_t at;

  if (cargo == NULL && s->hold != NULL && kind != PP_BLOB_SETTING)
    cargo = pp_cargo_copy(s->hold, bytes, len);
  if (s->n >= s->cap && grow(s) != 0)
    goto fail;
  b = malloc(sizeof *b + (cargo == NULL ? len : 0));
  if (b == NULL)
    goto fail;
  memset(b, 0, sizeof *b);
  if (set_deps(b, deps, ndeps) != 0) {
    free(b);
    goto fail;
  }
  b->hash = hash;
  b->kind = (uint8_t)kind;
  b->refs = 1;
  b->run_ns = -1;
  b->len = len;
  b->bytes = cargo != NULL ? cargo->p : b->room;
  b->cargo = cargo;
  b->values |= kind == PP_BLOB_VALUE || kind == PP_BLOB_RESULT;
  if (len > 0 && cargo == NULL)
    memcpy(b->room, bytes, len);
  b->id = s->nfree > 0 ? s->free_ids[s->nfree - 1] : s->next_id;
  if (b->id >= s->cap_ids) {
    uint32_t cap = s->cap_ids ? s->cap_ids * 2 : 64;
    pp_blob **v = realloc(s->by_id, cap * sizeof *v);

    if (v == NULL) {
      for (size_t i = 0; i < ndeps; i++)
        pp_blob_unref(s, b->deps[i]);
      free(b->deps);
      free(b);
      goto fail;
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
fail:
  pp_cargo_unref(cargo);
  return NULL;
}

pp_blob *pp_blobs_intern(pp_blobs *s, int kind, pp_hash hash, const void *bytes,
                         size_t len, pp_blob *const *deps, size_t ndeps) {
  pp_blob *b = pp_blobs_find(s, kind, hash);

  return b != NULL ? pp_blob_ref(b)
                   : make(s, kind, hash, bytes, len, NULL, deps, ndeps);
}

pp_blob *pp_blobs_value(pp_blobs *s, int kind, const void *bytes, size_t len,
                        pp_blob *const *deps, size_t ndeps) {
  pp_hash name = {++s->serial, 0};
  pp_blob *b = make(s, kind, name, bytes, len, NULL, deps, ndeps);

  if (b != NULL && bytes == NULL) {
    b->state = PP_BLOB_PROMISED;
    b->waits = true;
  }
  return b;
}

pp_blob *pp_blobs_value_of(pp_blobs *s, int kind, pp_buf *bytes,
                           pp_blob *const *deps, size_t ndeps) {
  pp_hash name = {++s->serial, 0};
  size_t len = bytes->len;
  pp_cargo *cargo = NULL;

  if (s->hold != NULL && bytes->afar && bytes->home == &s->hold->home &&
      (cargo = pp_cargo_of(s->hold, bytes)) == NULL)
    return NULL;
  return make(s, kind, name, bytes->data, len, cargo, deps, ndeps);
}

int pp_blob_fill(pp_blob *b, int state, unsigned char *bytes, size_t len,
                 pp_cargo *cargo, pp_blob *const *deps, size_t ndeps) {
  b->waits = state == PP_BLOB_FAILED;
  b->state = (uint8_t)state;
  b->cargo = pp_cargo_ref(cargo);
  b->bytes = cargo != NULL ? cargo->p : bytes;
  b->len = len;
  if (set_deps(b, deps, ndeps) == 0)
    return 0;
  b->state = PP_BLOB_FAILED;
  b->waits = true;
  return PP_ENOMEM;
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

/* Workers are to hold it no longer. */
static void drop(pp_blobs *s, pp_blob *b) {
  for (uint32_t i = 0; i < b->nholders; i++)
    s->dropped(s->ud, b->holders[i], b->id);
  b->nholders = 0;
}

static void free_blob(pp_blob *b) {
  if (b->cargo != NULL)
    pp_cargo_unref(b->cargo);
  else if (b->bytes != b->room)
    free((void *)(uintptr_t)b->bytes);
  free(b->deps);
  free(b->holders);
  free(b);
}

void pp_blob_unref(pp_blobs *s, pp_blob *b) {
  pp_blob **p, *dead;

  if (b == NULL)
    return;
  if (--b->refs > 0) {
    if (b->refs == 1 && b->home)
      drop(s, b);
    return;
  }
  /* Values nest as deep as somebody likes: those to go are in a list. */
  b->after = NULL;
  for (dead = b; (b = dead) != NULL;) {
    drop(s, b);
    for (p = &s->table[place(s, b->kind, b->hash)]; *p != b;)
      p = &(*p)->chain;
    *p = b->chain;
    s->n--;
    s->by_id[b->id] = NULL;
    forget_id(s, b->id);
    dead = b->after;
    for (uint32_t i = 0; i < b->ndeps; i++) {
      pp_blob *d = b->deps[i];

      if (d == NULL || --d->refs > 0) {
        if (d != NULL && d->refs == 1 && d->home)
          drop(s, d);
        continue;
      }
      d->after = dead;
      dead = d;
    }
    free_blob(b);
  }
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
      free_blob(b);
    }
  free(s->table);
  free(s->free_ids);
  free(s->by_id);
  memset(s, 0, sizeof *s);
}
