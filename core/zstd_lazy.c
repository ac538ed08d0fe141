/* SPDX-License-Identifier: MIT */
#include "zstd_lazy.h"

#ifdef PPSH_HAVE_ZSTD
#include <pthread.h>

pp_zstd pp_zstd_lib;
#define lib pp_zstd_lib

static bool found;

#ifdef PPSH_ZSTD_LINKED
#define SET(name) lib.name = name;
static void find(void) {
  PP_ZSTD_SYMBOLS(SET)
  found = true;
}
#else
static void find(void) {
  void *h = dlopen("libzstd.so." PP_LAZY_STRING(ZSTD_VERSION_MAJOR), RTLD_NOW);

  found = h != NULL PP_ZSTD_SYMBOLS(PP_LAZY_FIND);
}
#endif

bool pp_zstd_open(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;

  pthread_once(&once, find);
  return found;
}
#else
bool pp_zstd_open(void) { return false; }
#endif
