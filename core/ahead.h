/* SPDX-License-Identifier: MIT */
/*
 * ahead: memory for a large block that fills up, made by a thread beside.
 *
 * The first touch of a page costs what it takes to clear it, and on a virtual
 * machine the host may have to clear it, too: milliseconds for one of two
 * megabytes. Whoever takes in what comes for a block that is mapped and no
 * more has other work for that time.
 *
 *          come            <- reach ->
 *     |#####|...............|         |       # filled  . there already
 *     0                               size
 *
 * The thread keeps as much ahead of what has come as has come, within bounds:
 * memory grows with what comes, not with what was promised. It never writes to
 * the block and owns nothing; pp_ahead_end has it gone before the block is let
 * go. Where there is no thread to be had, or the system makes no memory ahead,
 * pages come as they are touched.
 *
 * Calls belong to one lock.
 */
#ifndef PP_AHEAD_H
#define PP_AHEAD_H

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

/* For smaller blocks it is not worth a thread. */
#define PP_AHEAD_SIZE ((size_t)8 << 20)
/* At least and at most so much is made ahead. */
#define PP_AHEAD_LEAST ((size_t)8 << 20)
#define PP_AHEAD_MOST ((size_t)64 << 20)

/* For one block at a time. Zeroed is empty. */
typedef struct pp_ahead {
  unsigned char *p; /* the block; NULL: none */
  size_t size;
  size_t told;         /* of `come`, when the thread was last woken */
  _Atomic size_t come; /* bytes, from the start */
  _Atomic bool over;
  sem_t go;
  pthread_t thread;
} pp_ahead;

/* Keep ahead in the block p, whole pages, not touched yet, of so many bytes;
 * nothing if there is another, it is too small, or no thread. */
void pp_ahead_begin(pp_ahead *a, unsigned char *p, size_t size);
/* So many bytes have come, if p is the block. */
void pp_ahead_come(pp_ahead *a, const unsigned char *p, size_t come);
/* If p is the block: it is not looked after any more when this returns, which
 * may take as long as one page. */
void pp_ahead_end(pp_ahead *a, const unsigned char *p);

#endif
