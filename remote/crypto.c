/* SPDX-License-Identifier: MIT */
#define PP_CRYPTO_PLAIN
#include "crypto.h"

#include <openssl/crypto.h>
#include <pthread.h>

pp_crypto pp_crypto_lib;
#define lib pp_crypto_lib

static bool found;

/* Left to itself it cleans up in exit(), before our own end, which still says
 * goodbye to hosts, and while the standby thread may be at work with it. */
static void stay(void *h) {
  __typeof__(OPENSSL_init_crypto) *init;

  *(void **)&init = dlsym(h, "OPENSSL_init_crypto");
  if (init != NULL)
    init(OPENSSL_INIT_NO_ATEXIT, NULL);
}

static void find(void) {
  void *h =
      dlopen("libcrypto.so." PP_LAZY_STRING(OPENSSL_SHLIB_VERSION), RTLD_NOW);

  if (h != NULL)
    stay(h);
  found = h != NULL PP_CRYPTO_SYMBOLS(PP_LAZY_FIND);
}

bool pp_crypto_open(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;

  pthread_once(&once, find);
  return found;
}
