/* SPDX-License-Identifier: MIT */
#include "outq.h"

#include <stdlib.h>
#include <string.h>

#include "base.h"

struct pp_piece {
  pp_piece *next;
  const unsigned char *p;    /* the first byte not consumed */
  size_t n;                  /* bytes from there */
  size_t room;               /* of a chunk: bytes free behind them */
  void (*release)(void *ud); /* NULL: a chunk */
  void *ud;
  unsigned char data[];
};

static pp_piece *new_chunk(pp_outq *q) {
  pp_piece *c = q->spare;

  if (c != NULL)
    q->spare = NULL;
  else if ((c = malloc(sizeof *c + PP_OUTQ_CHUNK)) == NULL)
    return NULL;
  memset(c, 0, sizeof *c);
  c->p = c->data;
  c->room = PP_OUTQ_CHUNK;
  return c;
}

static void append(pp_outq *q, pp_piece *c) {
  if (q->tail != NULL)
    q->tail->next = c;
  else
    q->head = c;
  q->tail = c;
}

static void drop(pp_outq *q, pp_piece *c) {
  if (c->release != NULL)
    c->release(c->ud);
  else if (q->spare == NULL) {
    q->spare = c;
    return;
  }
  free(c);
}

static void fill(pp_outq *q, pp_piece *c, const unsigned char *p, size_t n) {
  memcpy((unsigned char *)c->p + c->n, p, n);
  c->n += n;
  c->room -= n;
  q->len += n;
}

int pp_outq_put(pp_outq *q, const void *p, size_t n) {
  const unsigned char *from = p;
  pp_piece *first = NULL, *last = NULL, *c;
  size_t room = q->tail != NULL ? q->tail->room : 0, need;

  if (n <= room) {
    if (n > 0)
      fill(q, q->tail, from, n);
    return 0;
  }
  /* All chunks first, so that it is all or nothing. */
  for (need = n - room; need > 0;
       need -= need < PP_OUTQ_CHUNK ? need : PP_OUTQ_CHUNK) {
    if ((c = new_chunk(q)) == NULL) {
      while ((c = first) != NULL) {
        first = c->next;
        free(c);
      }
      return PP_ENOMEM;
    }
    if (last != NULL)
      last->next = c;
    else
      first = c;
    last = c;
  }
  if (room > 0) {
    fill(q, q->tail, from, room);
    from += room;
    n -= room;
  }
  while ((c = first) != NULL) {
    size_t k = n < PP_OUTQ_CHUNK ? n : PP_OUTQ_CHUNK;

    first = c->next;
    c->next = NULL;
    append(q, c);
    fill(q, c, from, k);
    from += k;
    n -= k;
  }
  return 0;
}

int pp_outq_give(pp_outq *q, const void *p, size_t n, void (*release)(void *ud),
                 void *ud) {
  pp_piece *c;

  pp_assert(release != NULL);
  if ((c = malloc(sizeof *c)) == NULL)
    return PP_ENOMEM;
  memset(c, 0, sizeof *c);
  c->p = p;
  c->n = n;
  c->release = release;
  c->ud = ud;
  append(q, c);
  q->len += n;
  return 0;
}

int pp_outq_peek(const pp_outq *q, struct iovec *v, int max) {
  const pp_piece *c;
  int n = 0;

  for (c = q->head; c != NULL && n < max; c = c->next)
    if (c->n > 0) {
      v[n].iov_base = (void *)c->p;
      v[n++].iov_len = c->n;
    }
  return n;
}

void pp_outq_consume(pp_outq *q, size_t n) {
  pp_piece *c;

  pp_assert(n <= q->len);
  q->len -= n;
  while ((c = q->head) != NULL && n >= c->n) {
    n -= c->n;
    if ((q->head = c->next) == NULL)
      q->tail = NULL;
    drop(q, c);
  }
  if (n > 0) {
    pp_assert(c != NULL);
    c->p += n;
    c->n -= n;
  }
}

void pp_outq_clear(pp_outq *q) {
  pp_outq_consume(q, q->len);
  free(q->spare);
  memset(q, 0, sizeof *q);
}
