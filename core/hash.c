/* SPDX-License-Identifier: MIT */
#include "hash.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

pp_hash pp_hash_of(const void *p, size_t n, uint64_t seed) {
  XXH128_hash_t h = XXH3_128bits_withSeed(p, n, seed);
  pp_hash r = {h.low64, h.high64};

  return r;
}
