/* SPDX-License-Identifier: MIT */
/*
 * outq: bytes on their way out, in pieces.
 *
 * Small writes are gathered in chunks of a fixed size, which never move, so
 * that what is at the head can be lent to the kernel or to a cipher while more
 * is appended. Large data can be handed over instead of being copied. One
 * chunk that became free is kept: a queue that fills and empties again and
 * again allocates nothing.
 *
 * A zeroed pp_outq is valid and empty.
 */
#ifndef PP_OUTQ_H
#define PP_OUTQ_H

#include <stddef.h>
#include <sys/uio.h>

/* As much as libssh2 puts into one packet, so that a full chunk is one. */
#define PP_OUTQ_CHUNK 32700

typedef struct pp_piece pp_piece;

typedef struct pp_outq {
  pp_piece *head, *tail; /* owned */
  pp_piece *spare;       /* owned; an empty chunk, or NULL */
  size_t len;            /* bytes queued */
} pp_outq;

/* Append a copy. 0 or PP_ENOMEM (nothing has changed). */
int pp_outq_put(pp_outq *q, const void *p, size_t n);

/*
 * Append n bytes that stay where they are: release(ud) is called once, when
 * they are out or dropped; never before this returns. On PP_ENOMEM nothing has
 * changed, and they are still the caller's.
 */
int pp_outq_give(pp_outq *q, const void *p, size_t n, void (*release)(void *ud),
                 void *ud);

/* The first bytes, as up to max contiguous runs; how many were filled in.
 * Borrowed until they are consumed; appending does not move them. */
int pp_outq_peek(const pp_outq *q, struct iovec *v, int max);

/* Drop the first n bytes; n <= len. */
void pp_outq_consume(pp_outq *q, size_t n);

/* Drop and free everything. May be called twice. */
void pp_outq_clear(pp_outq *q);

#endif
