/* SPDX-License-Identifier: MIT */
#define PP_SSH2_PLAIN
#include "libssh2_lazy.h"

#include <pthread.h>

#include "crypto.h"

pp_ssh2 pp_ssh2_lib;
#define lib pp_ssh2_lib

static bool found;

static void find(void) {
  void *h;

  (void)pp_crypto_open(); /* first: how libcrypto is to end is said once */
  h = dlopen("libssh2.so.1", RTLD_NOW);

  found = h != NULL PP_SSH2_SYMBOLS(PP_LAZY_FIND);
}

bool pp_ssh2_open(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;

  pthread_once(&once, find);
  return found;
}
