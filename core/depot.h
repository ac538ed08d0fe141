/* SPDX-License-Identifier: MIT */
/*
 * depot: which blobs the agent of a host has, so that each goes there once
 * however many of its workers need it.
 *
 * Driver and agent keep a depot each and do the same to it as the frames of all
 * lanes go by, in the order of the stream, so they need not tell each other:
 *
 *   BLOB   of a blob that is not there: put in; this lane holds it
 *   AGAIN  (BLOB without its bytes): this lane holds it too
 *   DROP   this lane does not hold that number any more
 *   START, FREE  this lane holds nothing
 *
 *   MODULE of a source that is not there: put in; the depot keeps it
 *   RETOLD (MODULE without its source): it has been used again
 *
 * What no lane holds is gone. A blob is known by its kind and hash; numbers are
 * those of the lane. Frames with more than PP_DEPOT_DEPS references, or fewer
 * than PP_DEPOT_LEAST bytes, go by as they are.
 *
 * Sources of modules are for workers that are still to come, too: kept, until
 * those that were used later are more than PP_DEPOT_KEPT bytes. Whether a
 * worker gets this one or what the file has become meanwhile, the driver says,
 * which looks at the file each time.
 */
#ifndef PP_DEPOT_H
#define PP_DEPOT_H

#include <stdbool.h>

#include "wire.h"

#define PP_DEPOT_DEPS 4096u
#define PP_DEPOT_LEAST 64u
#define PP_DEPOT_KEPT (16u << 20)
#define PP_DEPOT_NAME 4096u /* longest chunk name */
#define PP_DEPOT_MODULE 'm' /* its kind, among those of blobs */
/* A number of a blob above this makes no sense. */
#define PP_DEPOT_IDS (1u << 26)

typedef struct pp_stock {
  struct pp_stock *chain;
  uint64_t hash[2];
  uint32_t kind;
  uint32_t holders; /* lanes */
  uint32_t users;   /* who reads its bytes at present */
  bool listed;      /* in the depot; if not, it goes with its last user */
  uint64_t len;     /* of its bytes */
  uint64_t got;     /* of these, how many have gone by */
  bool kept;        /* the depot holds it; then among these, by last use: */
  struct pp_stock *older, *newer;
  pp_buf bytes; /* the agent keeps them */
} pp_stock;

/* Zeroed is empty. */
typedef struct pp_depot {
  pp_stock **table;
  size_t cap, n;
  pp_stock *oldest, *newest; /* of those kept */
  uint64_t kept;             /* their bytes */
} pp_depot;

/* What one lane holds, by number. Zeroed is empty. */
typedef struct pp_shelf {
  pp_stock **v;
  uint32_t n;
} pp_shelf;

/* Is a BLOB frame with this payload, of `len` bytes in all, for the depot? */
static inline bool pp_depot_keeps(const unsigned char *blob, uint64_t len) {
  uint32_t ndeps = pp_get32(blob + PP_BLOB_NDEPS);
  uint64_t head = PP_BLOB_HEAD + 4 * (uint64_t)ndeps;

  return ndeps <= PP_DEPOT_DEPS && len >= head + PP_DEPOT_LEAST;
}
/* The same of a MODULE frame's payload. */
static inline bool pp_depot_keeps_module(const unsigned char *mod,
                                         uint64_t len) {
  uint64_t head = PP_MOD_HEAD + (uint64_t)pp_get32(mod + PP_MOD_NAME);

  return pp_get32(mod + PP_MOD_STATUS) == PP_MOD_FOUND &&
         head <= PP_MOD_HEAD + PP_DEPOT_NAME && len >= head + PP_DEPOT_LEAST &&
         len <= head + PP_DEPOT_KEPT;
}
/* The one of this kind and hash (16 bytes), or NULL. */
pp_stock *pp_depot_find(const pp_depot *d, uint32_t kind,
                        const unsigned char *hash);
/* A new one, of len bytes, none of them here yet; NULL without memory. */
pp_stock *pp_depot_add(pp_depot *d, uint32_t kind, const unsigned char *hash,
                       uint64_t len);
/* It is used: keep it, and let go of those that were used longest ago. */
void pp_depot_keep(pp_depot *d, pp_stock *t);
/* The lane holds it by this number. PP_ENOMEM, PP_EBAD. */
int pp_shelf_put(pp_depot *d, pp_shelf *s, uint32_t id, pp_stock *t);
/* It does not any more; it need not have. */
void pp_shelf_drop(pp_depot *d, pp_shelf *s, uint32_t id);
void pp_shelf_clear(pp_depot *d, pp_shelf *s);
/* Whoever read its bytes has done. */
void pp_stock_leave(pp_depot *d, pp_stock *t);
/* It will never be whole: forget it. */
void pp_depot_strike(pp_depot *d, pp_stock *t);
/* Every shelf was cleared: free the rest. */
void pp_depot_clear(pp_depot *d);

#endif
