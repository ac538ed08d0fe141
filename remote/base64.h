/* SPDX-License-Identifier: MIT */
/*
 * base64 and the hashes that known_hosts files and fingerprints are made of.
 */
#ifndef PP_BASE64_H
#define PP_BASE64_H

#include <stddef.h>

#include "buf.h"

/* Append the bytes that n characters stand for; padding must be there, nothing
 * else may. 0, PP_EBAD (out is as it was), PP_ENOMEM. */
int pp_base64_decode(const char *p, size_t n, pp_buf *out);

/* Append n bytes as text, padded. 0 or PP_ENOMEM. */
int pp_base64_encode(const void *p, size_t n, pp_buf *out);

enum { PP_SHA1_LEN = 20, PP_SHA256_LEN = 32 };

/* HMAC-SHA1 again and again: what it takes is found once. Zeroed is valid. */
typedef struct pp_hmac {
  void *md, *ctx; /* owned */
} pp_hmac;

/* 0, or PP_ESYS when the library has no SHA-1 (it may be set up so). */
int pp_hmac_sha1(pp_hmac *h, const void *key, size_t keylen, const void *p,
                 size_t n, unsigned char out[PP_SHA1_LEN]);
void pp_hmac_clear(pp_hmac *h);

/* 0 or PP_ESYS. */
int pp_sha1(const void *p, size_t n, unsigned char out[PP_SHA1_LEN]);
int pp_sha256(const void *p, size_t n, unsigned char out[PP_SHA256_LEN]);

#endif
