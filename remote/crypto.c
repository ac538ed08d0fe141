/* SPDX-License-Identifier: MIT */
#define PP_CRYPTO_PLAIN
#include "crypto.h"

#include <pthread.h>

pp_crypto pp_crypto_lib;
#define lib pp_crypto_lib

static bool found;

static void find(void) {
  void *h =
      dlopen("libcrypto.so." PP_LAZY_STRING(OPENSSL_SHLIB_VERSION), RTLD_NOW);

  found = h != NULL PP_CRYPTO_SYMBOLS(PP_LAZY_FIND);
}

bool pp_crypto_open(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;

  pthread_once(&once, find);
  return found;
}
