/* SPDX-License-Identifier: MIT */
/*
 * blob: immutable runs of bytes (code, function parcels) named by content
 * hash, counted, and numbered for the workers that hold them.
 *
 * Values are blobs too, each with a name of its own whatever its bytes: what
 * was put ('v'), and what a job gives ('r'). The latter is there before its
 * bytes are: parcels and arguments can refer to it while its job runs.
 *
 * Not thread-safe: the engine's lock guards a set and its blobs.
 */
#ifndef PP_BLOB_H
#define PP_BLOB_H

#include "cargo.h"
#include "codec.h"

struct pp_blob {
  pp_hash hash;
  pp_blob *chain;    /* in the set */
  pp_blob *after;    /* in a list of those to go, or to be sent */
  uint32_t step;     /* deps seen to, while it is in that */
  pp_blob **deps;    /* references owned */
  uint32_t *holders; /* lanes that hold it */
  uint32_t nholders, cap_holders;
  uint32_t ndeps;
  uint32_t id; /* small number, reused after the blob is gone */
  uint32_t refs;
  uint32_t pass; /* of the last walk that came by */
  uint8_t kind;  /* wire.h: PP_BLOB_x */
  uint8_t state; /* of a result: PP_BLOB_x below */
  bool waits;    /* it, or a blob it depends on, may not be there yet */
  bool values;   /* it is a value or depends on one */
  bool codes;    /* it depends on code, which results may name */
  bool repacked; /* a result packed by its submitter, not a worker */
  bool home;     /* its job holds one of the references: for that one alone no
                    worker needs it */
  struct pp_job *job; /* of a result: borrowed, NULL when that is gone */
  int64_t run_ns;     /* moving mean of how long its jobs run; -1 unknown */
  size_t len;
  const unsigned char *bytes; /* cargo's, room, or owned */
  pp_cargo *cargo;            /* reference, or NULL */
  unsigned char room[];
};

enum {
  PP_BLOB_THERE,
  PP_BLOB_PROMISED, /* its job has not ended */
  PP_BLOB_FAILED    /* its job has failed: the bytes are the error */
};

typedef struct pp_blobs {
  pp_blob **table;
  size_t cap, n;
  pp_blob **by_id;
  uint32_t cap_ids;
  uint32_t *free_ids; /* numbers to be used again */
  uint32_t nfree, cap_free, next_id;
  uint32_t pass;   /* of walks */
  uint64_t serial; /* names of values */
  pp_hold *hold;   /* where large ones go; NULL: they do not */
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
/* A new value: bytes are copied (NULL: promised, without bytes). NULL without
 * memory. */
pp_blob *pp_blobs_value(pp_blobs *s, int kind, const void *bytes, size_t len,
                        pp_blob *const *deps, size_t ndeps);
/* The same of what is in a buffer, which is empty then if that could be taken
 * as it is. */
pp_blob *pp_blobs_value_of(pp_blobs *s, int kind, pp_buf *bytes,
                           pp_blob *const *deps, size_t ndeps);
/* A promised value comes true, or fails: bytes are taken, or those of cargo
 * (NULL: not), which is borrowed; deps are borrowed. PP_ENOMEM: then it has
 * failed, and bytes are still taken. */
int pp_blob_fill(pp_blob *b, int state, unsigned char *bytes, size_t len,
                 pp_cargo *cargo, pp_blob *const *deps, size_t ndeps);
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
