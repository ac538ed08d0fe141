/* SPDX-License-Identifier: MIT */
/*
 * buf: a growable run of bytes and the little-endian numbers in it.
 *
 * A zeroed pp_buf is valid and empty. pp_buf_clear frees and may be called
 * twice. Appending either succeeds whole or returns PP_ENOMEM and changes
 * nothing. All growth goes through pp_buf_realloc, which tests replace to fail
 * each allocation in turn.
 */
#ifndef PP_BUF_H
#define PP_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base.h"

/*
 * Where buffers that have one go as they grow, in place of the heap (cargo.h,
 * blocks.h). grow: memory for *cap bytes or more, how many in *cap, with the
 * first len of the `was` at p (NULL: none); p is no more then. NULL: there is
 * none, and p stays. release: of the cap bytes at p.
 */
typedef struct pp_home pp_home;
struct pp_home {
  size_t least; /* bytes; fewer stay in the heap */
  unsigned char *(*grow)(pp_home *h, unsigned char *p, size_t len, size_t was,
                         size_t *cap);
  void (*release)(pp_home *h, unsigned char *p, size_t cap);
};

typedef struct pp_buf {
  unsigned char *data; /* owned */
  size_t len;          /* bytes in use */
  size_t cap;          /* bytes allocated */
  pp_home *home;       /* borrowed, or NULL; pp_buf_clear leaves it */
  bool afar;           /* data is there */
} pp_buf;

/* realloc(3) by default; free when size is 0. A test may replace it. */
extern void *(*pp_buf_realloc)(void *p, size_t size);

void pp_buf_clear(pp_buf *b);

/* Make room for n more bytes beyond len; len is unchanged. */
int pp_buf_reserve_slow(pp_buf *b, size_t n);
static inline int pp_buf_reserve(pp_buf *b, size_t n) {
  return PP_LIKELY(b->cap - b->len >= n) ? 0 : pp_buf_reserve_slow(b, n);
}

static inline int pp_buf_put(pp_buf *b, const void *p, size_t n) {
  int r = pp_buf_reserve(b, n);

  if (r == 0 && n > 0) {
    memcpy(b->data + b->len, p, n);
    b->len += n;
  }
  return r;
}

static inline int pp_buf_byte(pp_buf *b, unsigned char c) {
  return pp_buf_put(b, &c, 1);
}

/* LEB128, least significant group first, at most 10 bytes. */
#define PP_VARINT_MAX 10
int pp_buf_varint(pp_buf *b, uint64_t v);

/*
 * A reader over borrowed bytes. Every get checks first: it returns PP_EBAD and
 * leaves p where it was when the bytes end too early or a varint is overlong.
 */
typedef struct pp_rd {
  const unsigned char *p, *end;
} pp_rd;

static inline pp_rd pp_rd_of(const void *p, size_t n) {
  pp_rd r = {(const unsigned char *)p, (const unsigned char *)p + n};

  return r;
}
static inline size_t pp_rd_left(const pp_rd *r) {
  return (size_t)(r->end - r->p);
}
int pp_rd_byte(pp_rd *r, unsigned char *out);
int pp_rd_varint(pp_rd *r, uint64_t *out);
/* Borrow n bytes: *out points into the reader's bytes. */
int pp_rd_bytes(pp_rd *r, size_t n, const unsigned char **out);

static inline void pp_put32(unsigned char *p, uint32_t v) {
  p[0] = (unsigned char)v, p[1] = (unsigned char)(v >> 8);
  p[2] = (unsigned char)(v >> 16), p[3] = (unsigned char)(v >> 24);
}
static inline void pp_put64(unsigned char *p, uint64_t v) {
  pp_put32(p, (uint32_t)v), pp_put32(p + 4, (uint32_t)(v >> 32));
}
static inline uint32_t pp_get32(const unsigned char *p) {
  return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 |
         (uint32_t)p[3] << 24;
}
static inline uint64_t pp_get64(const unsigned char *p) {
  return pp_get32(p) | (uint64_t)pp_get32(p + 4) << 32;
}

#endif
