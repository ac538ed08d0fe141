/* SPDX-License-Identifier: MIT */
/*
 * libzstd, opened when the first bytes are to be packed (lazylib.h); an agent
 * has it linked. Include this in place of zstd.h.
 */
#ifndef PP_ZSTD_LAZY_H
#define PP_ZSTD_LAZY_H

#include <stdbool.h>

#ifdef PPSH_HAVE_ZSTD
#include <zstd.h>

#include "lazylib.h"

#define PP_ZSTD_SYMBOLS(X)                                                     \
  X(ZSTD_createCCtx)                                                           \
  X(ZSTD_freeCCtx)                                                             \
  X(ZSTD_compressCCtx)                                                         \
  X(ZSTD_createDCtx)                                                           \
  X(ZSTD_freeDCtx)                                                             \
  X(ZSTD_decompressDCtx)                                                       \
  X(ZSTD_isError)

typedef struct pp_zstd {
  PP_ZSTD_SYMBOLS(PP_LAZY_FIELD)
} pp_zstd;
extern pp_zstd pp_zstd_lib;
#endif

/* Is it here? Its functions are in pp_zstd_lib then. */
bool pp_zstd_open(void);

#endif
