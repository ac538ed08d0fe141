/* SPDX-License-Identifier: MIT */
#include "base64.h"

#include <openssl/evp.h>
#include <pthread.h>
#include <stdbool.h>

#include "lazylib.h"

static const char alphabet[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static int value_of(char c) {
  if (c >= 'A' && c <= 'Z')
    return c - 'A';
  if (c >= 'a' && c <= 'z')
    return c - 'a' + 26;
  if (c >= '0' && c <= '9')
    return c - '0' + 52;
  return c == '+' ? 62 : c == '/' ? 63 : -1;
}

int pp_base64_decode(const char *p, size_t n, pp_buf *out) {
  size_t pad = 0, i, len = out->len;
  uint32_t bits = 0;
  int r;

  if (n % 4 != 0)
    return PP_EBAD;
  if (n > 0 && p[n - 1] == '=')
    pad = p[n - 2] == '=' ? 2 : 1;
  r = pp_buf_reserve(out, n / 4 * 3);
  if (r < 0)
    return r;
  for (i = 0; i < n; i++) {
    int v = i >= n - pad ? 0 : value_of(p[i]);

    if (v < 0)
      return PP_EBAD;
    bits = bits << 6 | (uint32_t)v;
    if (i % 4 == 3) {
      out->data[len++] = (unsigned char)(bits >> 16);
      out->data[len++] = (unsigned char)(bits >> 8);
      out->data[len++] = (unsigned char)bits;
    }
  }
  /* Bits that stand for nothing must be zero: one text for one value. */
  if ((pad == 1 && (bits & 0xff) != 0) || (pad == 2 && (bits & 0xffff) != 0))
    return PP_EBAD;
  out->len = len - pad;
  return 0;
}

int pp_base64_encode(const void *p, size_t n, pp_buf *out) {
  const unsigned char *s = p;
  size_t i;
  int r = pp_buf_reserve(out, (n + 2) / 3 * 4);

  if (r < 0)
    return r;
  for (i = 0; i < n; i += 3) {
    size_t left = n - i;
    uint32_t v = (uint32_t)s[i] << 16 |
                 (left > 1 ? (uint32_t)s[i + 1] << 8 : 0) |
                 (left > 2 ? (uint32_t)s[i + 2] : 0);
    unsigned char *o = out->data + out->len;

    o[0] = (unsigned char)alphabet[v >> 18];
    o[1] = (unsigned char)alphabet[v >> 12 & 63];
    o[2] = left > 1 ? (unsigned char)alphabet[v >> 6 & 63] : '=';
    o[3] = left > 2 ? (unsigned char)alphabet[v & 63] : '=';
    out->len += 4;
  }
  return 0;
}

/* --- hashes --------------------------------------------------------------- */

#if OPENSSL_VERSION_NUMBER >= 0x30000000L
#define SONAME "libcrypto.so." PP_LAZY_STRING(OPENSSL_SHLIB_VERSION)
#define FETCHING(X) X(EVP_MD_fetch) X(EVP_MD_free)
#else
#define SONAME "libcrypto.so." SHLIB_VERSION_NUMBER
#define FETCHING(X)
#endif
#define SYMBOLS(X)                                                             \
  X(EVP_Digest)                                                                \
  X(EVP_DigestFinal_ex)                                                        \
  X(EVP_DigestInit_ex)                                                         \
  X(EVP_DigestUpdate)                                                          \
  X(EVP_MD_CTX_free)                                                           \
  X(EVP_MD_CTX_new)                                                            \
  X(EVP_sha1)                                                                  \
  X(EVP_sha256)                                                                \
  FETCHING(X)

static struct { SYMBOLS(PP_LAZY_FIELD) } lib;
static bool is_open;

static void open_library(void) {
  void *h = dlopen(SONAME, RTLD_LAZY);

  is_open = h != NULL SYMBOLS(PP_LAZY_FIND);
}

static bool has_library(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;

  pthread_once(&once, open_library);
  return is_open;
}

static int digest(EVP_MD_CTX *ctx, const EVP_MD *md, const void *a, size_t na,
                  const void *b, size_t nb, unsigned char *out) {
  return lib.EVP_DigestInit_ex(ctx, md, NULL) == 1 &&
                 lib.EVP_DigestUpdate(ctx, a, na) == 1 &&
                 lib.EVP_DigestUpdate(ctx, b, nb) == 1 &&
                 lib.EVP_DigestFinal_ex(ctx, out, NULL) == 1
             ? 0
             : PP_ESYS;
}

/* Looking an algorithm up costs several times what hashing a name does. */
static int prepare(pp_hmac *h) {
  if (!has_library())
    return PP_ESYS;
#if OPENSSL_VERSION_NUMBER >= 0x30000000L
  if (h->md == NULL)
    h->md = lib.EVP_MD_fetch(NULL, "SHA1", NULL);
#else
  h->md = (void *)(uintptr_t)lib.EVP_sha1();
#endif
  if (h->ctx == NULL)
    h->ctx = lib.EVP_MD_CTX_new();
  return h->md != NULL && h->ctx != NULL ? 0 : PP_ESYS;
}

int pp_hmac_sha1(pp_hmac *h, const void *key, size_t keylen, const void *p,
                 size_t n, unsigned char out[PP_SHA1_LEN]) {
  unsigned char inner[64] = {0}, outer[64], sum[PP_SHA1_LEN];
  int r = prepare(h);

  if (r < 0)
    return r;
  pp_assert(keylen <= sizeof inner);
  memcpy(inner, key, keylen);
  for (size_t i = 0; i < sizeof inner; i++) {
    outer[i] = inner[i] ^ 0x5c;
    inner[i] ^= 0x36;
  }
  r = digest(h->ctx, h->md, inner, sizeof inner, p, n, sum);
  return r < 0
             ? r
             : digest(h->ctx, h->md, outer, sizeof outer, sum, sizeof sum, out);
}

void pp_hmac_clear(pp_hmac *h) {
  if (!is_open)
    return;
  lib.EVP_MD_CTX_free(h->ctx);
#if OPENSSL_VERSION_NUMBER >= 0x30000000L
  lib.EVP_MD_free(h->md);
#endif
  *h = (pp_hmac){0};
}

int pp_sha1(const void *p, size_t n, unsigned char out[PP_SHA1_LEN]) {
  if (!has_library())
    return PP_ESYS;
  return lib.EVP_Digest(p, n, out, NULL, lib.EVP_sha1(), NULL) == 1 ? 0
                                                                    : PP_ESYS;
}

int pp_sha256(const void *p, size_t n, unsigned char out[PP_SHA256_LEN]) {
  if (!has_library())
    return PP_ESYS;
  return lib.EVP_Digest(p, n, out, NULL, lib.EVP_sha256(), NULL) == 1 ? 0
                                                                      : PP_ESYS;
}
