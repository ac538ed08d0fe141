/* SPDX-License-Identifier: MIT */
/*
 * blob: immutable runs of bytes (code, function parcels) named by content
 * hash, counted, and numbered for the workers that hold them.
 *
 * Not thread-safe: the engine's lock guards a set and its blobs.
 */
#ifndef PP_BLOB_H
#define PP_BLOB_H

#include "codec.h"

struct pp_blob {
  pp_hash hash;
  pp_blob *chain;    /* in the set */
  pp_blob **deps;    /* references owned */
  uint32_t *holders; /* lanes that hold it */
  uint32_t nholders, cap_holders;
  uint32_t ndeps;
  uint32_t id; /* small number, reused after the blob is gone */
  uint32_t refs;
  int kind;       /* 'c' code, 'f' function parcel */
  int64_t run_ns; /* moving mean of how long its jobs run; -1 unknown */
  size_t len;
  unsigned char bytes[];
};

typedef struct pp_blobs {
  pp_blob **table;
  size_t cap, n;
  pp_blob **by_id;
  uint32_t cap_ids;
  uint32_t *free_ids; /* numbers to be used again */
  uint32_t nfree, cap_free, next_id;
  /* Called before a blob goes, for each lane that holds it. */
  void (*dropped)(void *ud, uint32_t lane, uint32_t id);
  void *ud;
} pp_blobs;

/* The name of a blob: for code the hash of its bytes, else of these and the
 * names of what it refers to. */
pp_hash pp_blob_name(int kind, const void *bytes, size_t len,
                     pp_blob *const *deps, size_t ndeps);
void pp_blobs_clear(pp_blobs *s);
/* A new reference to the blob of these bytes; NULL without memory. */
pp_blob *pp_blobs_intern(pp_blobs *s, int kind, pp_hash hash, const void *bytes,
                         size_t len, pp_blob *const *deps, size_t ndeps);
/* The blob of this number, or NULL. */
static inline pp_blob *pp_blobs_by_id(const pp_blobs *s, uint32_t id) {
  return id < s->cap_ids ? s->by_id[id] : NULL;
}
pp_blob *pp_blobs_find(const pp_blobs *s, int kind, pp_hash hash);
static inline pp_blob *pp_blob_ref(pp_blob *b) {
  b->refs++;
  return b;
}
void pp_blob_unref(pp_blobs *s, pp_blob *b); /* b may be NULL */
/* Note that a lane holds b; PP_ENOMEM. */
int pp_blob_held(pp_blob *b, uint32_t lane);
/* A lane's worker is gone: it holds nothing any more. */
void pp_blob_lost(pp_blob *b, uint32_t lane);

#endif
