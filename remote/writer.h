/* SPDX-License-Identifier: MIT */
/*
 * writer: from a queue of bytes to a handle of the loop.
 *
 * Tries at once, several pieces in one call of the kernel; only what does not
 * fit is left to the loop, which goes on by itself.
 */
#ifndef PP_WRITER_H
#define PP_WRITER_H

#include <stdbool.h>
#include <uv.h>

#include "outq.h"

typedef struct pp_writer {
  uv_stream_t *to; /* borrowed */
  pp_outq *q;      /* borrowed; its head is lent out while busy */
  /* Bytes have left the queue by the loop's doing; or an error, negative. */
  void (*moved)(void *ud, int status);
  void *ud;
  uv_write_t req;
  size_t lent;
  bool busy;
} pp_writer;

/* Bytes that left the queue, or a libuv error. */
ssize_t pp_writer_flush(pp_writer *w);

#endif
