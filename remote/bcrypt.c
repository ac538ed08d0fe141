/* SPDX-License-Identifier: MIT */
/*
 * PBKDF2 in shape, with bcrypt over SHA-512 as its hash: each output block is
 * the xor of `rounds` of them, and the blocks are dealt out byte by byte, so
 * that no part of the key is cheaper than the whole.
 */
#include "bcrypt.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "ask.h"
#include "base.h"
#include "crypto.h"

enum { WORDS = 18 + 4 * 256, BLOCK = 32, DIGEST = 64 };

/* 18 subkeys, then four tables of 256 words. */
typedef struct blowfish {
  uint32_t w[WORDS];
} blowfish;

/* --- the fraction of pi, which is how Blowfish begins ----------------------
 */

enum { GUARD = 3, LONG = WORDS + 1 + GUARD };

/* a /= d from word `from` on; 0 when nothing is left. */
static int divide(uint32_t *a, int from, uint32_t d) {
  uint64_t r = 0;
  uint32_t any = 0;
  int i;

  for (i = from; i < LONG; i++) {
    r = r << 32 | a[i];
    a[i] = (uint32_t)(r / d);
    r %= d;
    any |= a[i];
  }
  return any != 0;
}

/* sum += sign * factor * atan(1 / x); word 0 is the integer part. */
static void add_atan(uint32_t *sum, uint32_t factor, uint32_t x, int sign) {
  uint32_t t[LONG] = {0}, u[LONG];
  uint32_t k;
  int from = 0, i;

  t[0] = factor;
  divide(t, 0, x);
  for (k = 1;; k += 2, sign = -sign) {
    int64_t carry = 0;

    memcpy(u, t, sizeof u);
    divide(u, from, k);
    for (i = LONG - 1; i >= 0; i--) {
      carry += (int64_t)sum[i] + (sign > 0 ? (int64_t)u[i] : -(int64_t)u[i]);
      sum[i] = (uint32_t)carry;
      carry >>= 32;
      if (i < from && carry == 0)
        break;
    }
    if (!divide(t, from, x * x))
      return;
    while (from < LONG && t[from] == 0)
      from++;
  }
}

/* pi = 16 atan(1/5) - 4 atan(1/239) */
static void first_state(blowfish *b) {
  uint32_t pi[LONG] = {0};

  add_atan(pi, 16, 5, 1);
  add_atan(pi, 4, 239, -1);
  memcpy(b->w, pi + 1, sizeof b->w);
}

/* --- Blowfish ---------------------------------------------------------------
 */

static inline uint32_t f(const blowfish *b, uint32_t x) {
  const uint32_t *s = b->w + 18;

  return ((s[x >> 24] + s[256 + (x >> 16 & 255)]) ^ s[512 + (x >> 8 & 255)]) +
         s[768 + (x & 255)];
}

static inline void encipher(const blowfish *b, uint32_t *left,
                            uint32_t *right) {
  uint32_t l = *left ^ b->w[0], r = *right;
  int i;

  for (i = 1; i < 17; i += 2) {
    r ^= f(b, l) ^ b->w[i];
    l ^= f(b, r) ^ b->w[i + 1];
  }
  *left = r ^ b->w[17];
  *right = l;
}

/* The next big-endian word of bytes that are read round and round. */
static uint32_t cycle(const unsigned char *data, size_t n, size_t *at) {
  uint32_t w = 0;
  int i;

  for (i = 0; i < 4; i++) {
    w = w << 8 | data[*at];
    *at = (*at + 1) % n;
  }
  return w;
}

/* salt NULL: all zeros. */
static void expand(blowfish *b, const unsigned char *salt,
                   const unsigned char *key) {
  uint32_t l = 0, r = 0;
  size_t at = 0, i;

  for (i = 0; i < 18; i++)
    b->w[i] ^= cycle(key, DIGEST, &at);
  at = 0;
  for (i = 0; i < WORDS; i += 2) {
    if (salt != NULL) {
      l ^= cycle(salt, DIGEST, &at);
      r ^= cycle(salt, DIGEST, &at);
    }
    encipher(b, &l, &r);
    b->w[i] = l;
    b->w[i + 1] = r;
  }
}

static void bcrypt_hash(const blowfish *fresh, const unsigned char *pass,
                        const unsigned char *salt, unsigned char *out) {
  static const unsigned char text[] = "OxychromaticBlowfishSwatDynamite";
  blowfish b = *fresh;
  uint32_t w[8];
  size_t at = 0;
  int i, k;

  expand(&b, salt, pass);
  for (i = 0; i < 64; i++) {
    expand(&b, NULL, salt);
    expand(&b, NULL, pass);
  }
  for (i = 0; i < 8; i++)
    w[i] = cycle(text, BLOCK, &at);
  for (k = 0; k < 64; k++)
    for (i = 0; i < 8; i += 2)
      encipher(&b, &w[i], &w[i + 1]);
  for (i = 0; i < 8; i++)
    for (k = 0; k < 4; k++)
      out[4 * i + k] = (unsigned char)(w[i] >> 8 * k);
  pp_wipe(&b, sizeof b);
  pp_wipe(w, sizeof w);
}

int pp_bcrypt_pbkdf(const void *pass, size_t npass, const void *salt,
                    size_t nsalt, unsigned rounds, unsigned char *key,
                    size_t n) {
  unsigned char hpass[DIGEST], hsalt[DIGEST], sum[BLOCK], block[BLOCK];
  unsigned char *counted;
  size_t stride = (n + BLOCK - 1) / BLOCK, i, k;
  blowfish *fresh;
  unsigned count, round;

  if (npass == 0 || nsalt == 0 || nsalt > 1 << 20 || rounds == 0 || n == 0 ||
      n > 1024)
    return PP_EBAD;
  fresh = malloc(sizeof *fresh);
  counted = malloc(nsalt + 4);
  if (fresh == NULL || counted == NULL) {
    free(fresh);
    free(counted);
    return PP_ENOMEM;
  }
  first_state(fresh);
  SHA512(pass, npass, hpass);
  memcpy(counted, salt, nsalt);
  for (count = 1; count <= stride; count++) {
    for (i = 0; i < 4; i++)
      counted[nsalt + i] = (unsigned char)(count >> (24 - 8 * i));
    SHA512(counted, nsalt + 4, hsalt);
    bcrypt_hash(fresh, hpass, hsalt, block);
    memcpy(sum, block, BLOCK);
    for (round = 1; round < rounds; round++) {
      SHA512(block, BLOCK, hsalt);
      bcrypt_hash(fresh, hpass, hsalt, block);
      for (k = 0; k < BLOCK; k++)
        sum[k] ^= block[k];
    }
    for (k = 0; k < BLOCK; k++) {
      size_t to = k * stride + count - 1;

      if (to < n)
        key[to] = sum[k];
    }
  }
  pp_wipe(hpass, sizeof hpass);
  pp_wipe(sum, sizeof sum);
  pp_wipe(block, sizeof block);
  free(counted);
  free(fresh);
  return 0;
}
