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
 * What no lane holds is gone. A blob is known by its kind and hash; numbers are
 * those of the lane. Frames with more than PP_DEPOT_DEPS references, or fewer
 * than PP_DEPOT_LEAST bytes, go by as they are.
 */
#ifndef PP_DEPOT_H
#define PP_DEPOT_H

#include <stdbool.h>

#include "wire.h"

#define PP_DEPOT_DEPS 4096u
#define PP_DEPOT_LEAST 64u
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
  pp_buf bytes;     /* the agent keeps them */
} pp_stock;

/* Zeroed is empty. */
typedef struct pp_depot {
  pp_stock **table;
  size_t cap, n;
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
/* The one of this BLOB payload's kind and hash, or NULL. */
pp_stock *pp_depot_find(const pp_depot *d, const unsigned char *blob);
/* A new one, of len bytes, none of them here yet; NULL without memory. */
pp_stock *pp_depot_add(pp_depot *d, const unsigned char *blob, uint64_t len);
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
