/* SPDX-License-Identifier: MIT */
#include "keystream.h"

#include <openssl/opensslv.h>
#include <stddef.h>

#if OPENSSL_VERSION_MAJOR >= 3

#include <openssl/core_dispatch.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <openssl/provider.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base.h"
#include "lazylib.h"

#define SYMBOLS(X)                                                             \
  X(EVP_CIPHER_CTX_copy)                                                       \
  X(EVP_CIPHER_CTX_free)                                                       \
  X(EVP_CIPHER_CTX_new)                                                        \
  X(EVP_CIPHER_fetch)                                                          \
  X(EVP_CIPHER_free)                                                           \
  X(EVP_EncryptInit_ex)                                                        \
  X(EVP_EncryptUpdate)                                                         \
  X(EVP_default_properties_is_fips_enabled)                                    \
  X(EVP_set_default_properties)                                                \
  X(OPENSSL_cleanse)                                                           \
  X(OSSL_LIB_CTX_free)                                                         \
  X(OSSL_LIB_CTX_new)                                                          \
  X(OSSL_LIB_CTX_set0_default)                                                 \
  X(OSSL_PARAM_locate)                                                         \
  X(OSSL_PARAM_set_size_t)                                                     \
  X(OSSL_PARAM_set_uint)                                                       \
  X(OSSL_PROVIDER_add_builtin)                                                 \
  X(OSSL_PROVIDER_do_all)                                                      \
  X(OSSL_PROVIDER_get0_name)                                                   \
  X(OSSL_PROVIDER_load)

static struct { SYMBOLS(PP_LAZY_FIELD) } lib;

enum {
  PAGE = 4096,
  BLOCK = 16, /* of AES; and its counter */
};

/* What is to be had, by length of key: 16, 24, 32 bytes. */
static EVP_CIPHER *real[3];
static OSSL_LIB_CTX *context;

/* --- the cipher ----------------------------------------------------------- */

/* One direction of one connection. */
typedef struct stream {
  unsigned char page[PAGE];
  size_t used; /* of the page */
  EVP_CIPHER_CTX *aes;
  size_t keylen;
} stream;

static void drop(void *p) {
  stream *s = p;

  if (s == NULL)
    return;
  lib.EVP_CIPHER_CTX_free(s->aes);
  lib.OPENSSL_cleanse(s, sizeof *s);
  free(s);
}

static stream *make(size_t keylen) {
  stream *s = malloc(sizeof *s);

  if (s == NULL)
    return NULL;
  s->keylen = keylen;
  s->used = PAGE;
  s->aes = lib.EVP_CIPHER_CTX_new();
  if (s->aes == NULL) {
    free(s);
    return NULL;
  }
  return s;
}

static void *make_128(void *unused) {
  (void)unused;
  return make(16);
}
static void *make_192(void *unused) {
  (void)unused;
  return make(24);
}
static void *make_256(void *unused) {
  (void)unused;
  return make(32);
}

static void *dup_stream(void *p) {
  const stream *from = p;
  stream *s = make(from->keylen);

  if (s == NULL)
    return NULL;
  if (lib.EVP_CIPHER_CTX_copy(s->aes, from->aes) != 1) {
    drop(s);
    return NULL;
  }
  s->used = from->used;
  memcpy(s->page, from->page, PAGE);
  return s;
}

/* To encrypt and to decrypt are the same. Either may be given alone. */
static int init(void *p, const unsigned char *key, size_t keylen,
                const unsigned char *iv, size_t ivlen,
                const OSSL_PARAM params[]) {
  stream *s = p;
  const EVP_CIPHER *cipher = real[s->keylen / 8 - 2];

  (void)params;
  if ((key != NULL && keylen != s->keylen) || (iv != NULL && ivlen != BLOCK))
    return 0;
  if (key == NULL && iv == NULL)
    return 1;
  s->used = PAGE;
  return lib.EVP_EncryptInit_ex(s->aes, key != NULL ? cipher : NULL, NULL, key,
                                iv);
}

static bool refill(stream *s) {
  static const unsigned char zeros[PAGE];
  int n;

  s->used = 0;
  return lib.EVP_EncryptUpdate(s->aes, s->page, &n, zeros, PAGE) == 1 &&
         n == PAGE;
}

static void block(unsigned char *out, const unsigned char *in,
                  const unsigned char *k) {
  uint64_t a[2], b[2];

  memcpy(a, in, BLOCK);
  memcpy(b, k, BLOCK);
  a[0] ^= b[0];
  a[1] ^= b[1];
  memcpy(out, a, BLOCK);
}

static int many(stream *s, unsigned char *out, const unsigned char *in,
                size_t len) {
  while (len > 0) {
    const unsigned char *k;
    size_t n, i = 0;

    if (s->used == PAGE && !refill(s))
      return 0;
    k = s->page + s->used;
    n = len < PAGE - s->used ? len : PAGE - s->used;
    for (; i + BLOCK <= n; i += BLOCK)
      block(out + i, in + i, k + i);
    for (; i < n; i++)
      out[i] = in[i] ^ k[i];
    s->used += n;
    in += n;
    out += n;
    len -= n;
  }
  return 1;
}

static int combine(void *p, unsigned char *out, size_t *outl, size_t outsize,
                   const unsigned char *in, size_t inl) {
  stream *s = p;

  if (PP_UNLIKELY(outsize < inl))
    return 0;
  *outl = inl;
  if (PP_UNLIKELY(inl != BLOCK || s->used > PAGE - BLOCK))
    return many(s, out, in, inl);
  block(out, in, s->page + s->used);
  s->used += BLOCK;
  return 1;
}

static int finish(void *p, unsigned char *out, size_t *outl, size_t outsize) {
  (void)p;
  (void)out;
  (void)outsize;
  *outl = 0;
  return 1;
}

/* --- what it says of itself ----------------------------------------------- */

static int set_size(OSSL_PARAM params[], const char *name, size_t n) {
  OSSL_PARAM *p = lib.OSSL_PARAM_locate(params, name);

  return p == NULL || lib.OSSL_PARAM_set_size_t(p, n);
}

static int describe(OSSL_PARAM params[], size_t keylen) {
  OSSL_PARAM *mode = lib.OSSL_PARAM_locate(params, OSSL_CIPHER_PARAM_MODE);

  return (mode == NULL || lib.OSSL_PARAM_set_uint(mode, EVP_CIPH_CTR_MODE)) &&
         set_size(params, OSSL_CIPHER_PARAM_KEYLEN, keylen) &&
         set_size(params, OSSL_CIPHER_PARAM_IVLEN, BLOCK) &&
         set_size(params, OSSL_CIPHER_PARAM_BLOCK_SIZE, 1);
}

static int describe_128(OSSL_PARAM params[]) { return describe(params, 16); }
static int describe_192(OSSL_PARAM params[]) { return describe(params, 24); }
static int describe_256(OSSL_PARAM params[]) { return describe(params, 32); }

static int describe_stream(void *p, OSSL_PARAM params[]) {
  const stream *s = p;

  return set_size(params, OSSL_CIPHER_PARAM_KEYLEN, s->keylen) &&
         set_size(params, OSSL_CIPHER_PARAM_IVLEN, BLOCK);
}

/* libcrypto's table of functions takes them all as one type. */
#define ENTRY(id, f)                                                           \
  { id, (void (*)(void))(f) }
#define CIPHER(bits)                                                           \
  static const OSSL_DISPATCH aes_##bits[] = {                                  \
      ENTRY(OSSL_FUNC_CIPHER_NEWCTX, make_##bits),                             \
      ENTRY(OSSL_FUNC_CIPHER_FREECTX, drop),                                   \
      ENTRY(OSSL_FUNC_CIPHER_DUPCTX, dup_stream),                              \
      ENTRY(OSSL_FUNC_CIPHER_ENCRYPT_INIT, init),                              \
      ENTRY(OSSL_FUNC_CIPHER_DECRYPT_INIT, init),                              \
      ENTRY(OSSL_FUNC_CIPHER_UPDATE, combine),                                 \
      ENTRY(OSSL_FUNC_CIPHER_FINAL, finish),                                   \
      ENTRY(OSSL_FUNC_CIPHER_CIPHER, combine),                                 \
      ENTRY(OSSL_FUNC_CIPHER_GET_PARAMS, describe_##bits),                     \
      ENTRY(OSSL_FUNC_CIPHER_GET_CTX_PARAMS, describe_stream),                 \
      {0, NULL}}

CIPHER(128);
CIPHER(192);
CIPHER(256);

static const OSSL_ALGORITHM *query(void *unused, int operation, int *no_cache) {
  static const OSSL_ALGORITHM ciphers[] = {
      {"AES-128-CTR", "provider=ppsh", aes_128, "by the page"},
      {"AES-192-CTR", "provider=ppsh", aes_192, "by the page"},
      {"AES-256-CTR", "provider=ppsh", aes_256, "by the page"},
      {NULL, NULL, NULL, NULL}};

  (void)unused;
  *no_cache = 0;
  return operation == OSSL_OP_CIPHER ? ciphers : NULL;
}

static int provide(const OSSL_CORE_HANDLE *handle, const OSSL_DISPATCH *in,
                   const OSSL_DISPATCH **out, void **provctx) {
  static const OSSL_DISPATCH functions[] = {
      ENTRY(OSSL_FUNC_PROVIDER_QUERY_OPERATION, query), {0, NULL}};

  (void)in;
  *provctx = (void *)handle;
  *out = functions;
  return 1;
}

/* --- the context ---------------------------------------------------------- */

/* One that is not libcrypto's own choice. */
static int foreign(OSSL_PROVIDER *p, void *found) {
  const char *name = lib.OSSL_PROVIDER_get0_name(p);

  if (strcmp(name, "default") != 0 && strcmp(name, "legacy") != 0 &&
      strcmp(name, "base") != 0 && strcmp(name, "null") != 0)
    *(bool *)found = true;
  return 1;
}

static bool fetch_all(void) {
  static const char *const names[] = {"AES-128-CTR", "AES-192-CTR",
                                      "AES-256-CTR"};

  for (int i = 0; i < 3; i++) {
    real[i] = lib.EVP_CIPHER_fetch(context, names[i], "provider=default");
    if (real[i] == NULL)
      return false;
  }
  return true;
}

static void open_context(void) {
  void *h = dlopen("libcrypto.so." PP_LAZY_STRING(OPENSSL_SHLIB_VERSION),
                   RTLD_NOW | RTLD_NOLOAD);
  bool chosen = false;

  if (h == NULL || !(true SYMBOLS(PP_LAZY_FIND)))
    return;
  if (lib.EVP_default_properties_is_fips_enabled(NULL) ||
      lib.OSSL_PROVIDER_do_all(NULL, foreign, &chosen) != 1 || chosen)
    return;
  context = lib.OSSL_LIB_CTX_new();
  if (context == NULL)
    return;
  if (lib.OSSL_PROVIDER_load(context, "default") == NULL ||
      lib.OSSL_PROVIDER_add_builtin(context, "ppsh", provide) != 1 ||
      lib.OSSL_PROVIDER_load(context, "ppsh") == NULL || !fetch_all() ||
      lib.EVP_set_default_properties(context, "?provider=ppsh") != 1) {
    for (int i = 0; i < 3; i++) {
      lib.EVP_CIPHER_free(real[i]);
      real[i] = NULL;
    }
    lib.OSSL_LIB_CTX_free(context);
    context = NULL;
  }
}

void *pp_keystream_enter(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;

  pthread_once(&once, open_context);
  return context != NULL ? lib.OSSL_LIB_CTX_set0_default(context) : NULL;
}

void pp_keystream_leave(void *was) {
  if (was != NULL)
    lib.OSSL_LIB_CTX_set0_default(was);
}

#else

void *pp_keystream_enter(void) { return NULL; }
void pp_keystream_leave(void *was) { (void)was; }

#endif
