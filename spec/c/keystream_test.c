/* SPDX-License-Identifier: MIT */
/* AES in counter mode by the page is AES in counter mode, whatever the pieces
 * it is asked for, and nobody meets it who does not ask for it. */
#include "keystream.h"

#include <openssl/evp.h>
#include <pthread.h>

#include "check.h"

#if OPENSSL_VERSION_MAJOR >= 3

#include <openssl/provider.h>

enum { MOST = 40000 };

static unsigned char text[MOST], wanted[MOST], got[MOST];

typedef const EVP_CIPHER *cipher(void);

static unsigned draw(unsigned n) {
  static unsigned long long x = 88172645463325252;

  x ^= x << 13;
  x ^= x >> 7;
  x ^= x << 17;
  return (unsigned)(x % n);
}

/* As libssh2 does. */
static EVP_CIPHER_CTX *begin(cipher *aes, const unsigned char *key,
                             const unsigned char *iv, int encrypt) {
  EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();

  CHECK(EVP_CipherInit(c, aes(), key, iv, encrypt) == 1);
  return c;
}

static const char *provider(const EVP_CIPHER_CTX *c) {
  return OSSL_PROVIDER_get0_name(
      EVP_CIPHER_get0_provider(EVP_CIPHER_CTX_get0_cipher(c)));
}

/* How libcrypto itself does it. */
static void reference(cipher *aes, const unsigned char *key,
                      const unsigned char *iv, size_t n) {
  EVP_CIPHER_CTX *c = begin(aes, key, iv, 1);
  int len;

  CHECK_STR(provider(c), "default");
  CHECK(EVP_EncryptUpdate(c, wanted, &len, text, (int)n) == 1);
  EVP_CIPHER_CTX_free(c);
}

/* In pieces of at most so many bytes; in place. */
static void in_pieces(EVP_CIPHER_CTX *c, size_t from, size_t n, unsigned most) {
  memcpy(got + from, text + from, n - from);
  while (from < n) {
    size_t k = most == 16 ? 16 : 1 + draw(most);

    if (k > n - from)
      k = n - from;
    CHECK(EVP_Cipher(c, got + from, got + from, (unsigned)k) >= 0);
    from += k;
  }
}

static void same(cipher *aes, const unsigned char *iv, unsigned most,
                 int encrypt) {
  unsigned char key[32];
  size_t n = MOST - draw(100), half = n / 2;
  EVP_CIPHER_CTX *c, *d;
  void *was;

  for (size_t i = 0; i < sizeof key; i++)
    key[i] = (unsigned char)draw(256);
  for (size_t i = 0; i < n; i++)
    text[i] = (unsigned char)draw(256);
  reference(aes, key, iv, n);

  was = pp_keystream_enter();
  CHECK(was != NULL);
  c = begin(aes, key, iv, encrypt);
  pp_keystream_leave(was);
  CHECK_STR(provider(c), "ppsh");
  CHECK(EVP_CIPHER_CTX_get_key_length(c) == EVP_CIPHER_get_key_length(aes()));
  CHECK(EVP_CIPHER_CTX_get_iv_length(c) == 16);
  CHECK(EVP_CIPHER_CTX_get_block_size(c) == 1);
  in_pieces(c, 0, n, most);
  CHECK(memcmp(got, wanted, n) == 0);

  /* From the beginning, by a new initial counter alone; a copy goes on where
   * it was copied. */
  CHECK(EVP_CipherInit_ex(c, NULL, NULL, NULL, iv, -1) == 1);
  memset(got, 0, n);
  in_pieces(c, 0, half, most);
  d = EVP_CIPHER_CTX_new();
  CHECK(EVP_CIPHER_CTX_copy(d, c) == 1);
  EVP_CIPHER_CTX_free(c);
  in_pieces(d, half, n, most);
  CHECK(memcmp(got, wanted, n) == 0);
  EVP_CIPHER_CTX_free(d);
}

static void *elsewhere(void *unused) {
  unsigned char key[16] = {1}, iv[16] = {2};
  EVP_CIPHER_CTX *c = begin(EVP_aes_128_ctr, key, iv, 1);

  (void)unused;
  CHECK_STR(provider(c), "default");
  EVP_CIPHER_CTX_free(c);
  return NULL;
}

/* Only the thread that has entered finds it, and other algorithms are there. */
static void scope(void) {
  unsigned char key[16] = {1}, iv[16] = {2}, hash[32];
  void *was = pp_keystream_enter(), *again = pp_keystream_enter();
  EVP_CIPHER_CTX *c;
  pthread_t t;

  CHECK(pthread_create(&t, NULL, elsewhere, NULL) == 0);
  CHECK(pthread_join(t, NULL) == 0);
  CHECK(EVP_Digest("", 0, hash, NULL, EVP_sha256(), NULL) == 1);
  CHECK(hash[0] == 0xe3 && hash[31] == 0x55);
  c = begin(EVP_aes_128_cbc, key, iv, 1);
  CHECK_STR(provider(c), "default");
  EVP_CIPHER_CTX_free(c);
  pp_keystream_leave(again);
  c = begin(EVP_aes_128_ctr, key, iv, 1);
  CHECK_STR(provider(c), "ppsh");
  EVP_CIPHER_CTX_free(c);
  pp_keystream_leave(was);
  elsewhere(NULL);
}

int main(void) {
  static cipher *const all[] = {EVP_aes_128_ctr, EVP_aes_192_ctr,
                                EVP_aes_256_ctr};
  static const unsigned pieces[] = {16, 1, 40, 9000};
  unsigned char iv[16];

  for (int k = 0; k < 3; k++)
    for (int i = 0; i < 4; i++)
      for (int wrap = 0; wrap < 3; wrap++) {
        /* Counters that run over: 32, 64 and 128 bits of them. */
        memset(iv, draw(256), sizeof iv);
        memset(iv + (wrap == 0   ? 12
                     : wrap == 1 ? 8
                                 : 0),
               0xff,
               wrap == 0   ? 4
               : wrap == 1 ? 8
                           : 16);
        iv[15] = (unsigned char)(iv[15] - draw(9));
        same(all[k], iv, pieces[i], i & 1);
      }
  scope();
  return failures > 0;
}

#else

int main(void) {
  CHECK(pp_keystream_enter() == NULL);
  pp_keystream_leave(NULL);
  return failures > 0;
}

#endif
