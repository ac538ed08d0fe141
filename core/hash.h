/* SPDX-License-Identifier: MIT */
/*
 * hash: the 128-bit XXH3 content hash that names blobs. Not a defence against
 * a peer that makes collisions on purpose: workers trust their submitter, and
 * a submitter only looks up hashes of what it sent itself.
 */
#ifndef PP_HASH_H
#define PP_HASH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct pp_hash {
  uint64_t lo, hi;
} pp_hash;

pp_hash pp_hash_of(const void *p, size_t n, uint64_t seed);

static inline bool pp_hash_eq(pp_hash a, pp_hash b) {
  return a.lo == b.lo && a.hi == b.hi;
}

#endif
