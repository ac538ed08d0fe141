/* SPDX-License-Identifier: MIT */
#include "buf.h"

#include <stdlib.h>

static void *libc_realloc(void *p, size_t size) {
  if (size == 0) {
    free(p);
    return NULL;
  }
  return realloc(p, size);
}

void *(*pp_buf_realloc)(void *p, size_t size) = libc_realloc;

void pp_buf_clear(pp_buf *b) {
  pp_home *home = b->home;

  if (b->afar)
    home->release(home, b->data, b->cap);
  else if (b->data != NULL)
    pp_buf_realloc(b->data, 0);
  memset(b, 0, sizeof *b);
  b->home = home;
}

/* Move to its home, or grow there. */
static bool go_home(pp_buf *b, size_t need) {
  size_t cap = b->afar && need < b->cap / 2 * 3 ? b->cap / 2 * 3 : need;
  unsigned char *p =
      b->home->grow(b->home, b->afar ? b->data : NULL, b->len, b->cap, &cap);

  if (p == NULL)
    return false;
  if (!b->afar && b->data != NULL) {
    memcpy(p, b->data, b->len);
    pp_buf_realloc(b->data, 0);
  }
  b->data = p;
  b->cap = cap;
  b->afar = true;
  return true;
}

int pp_buf_reserve_slow(pp_buf *b, size_t n) {
  size_t need = b->len + n, cap = b->cap ? b->cap : 64;
  unsigned char *p;

  if (need < n || need > PTRDIFF_MAX / 2)
    return PP_ENOMEM;
  if (PP_UNLIKELY(b->home != NULL && need >= b->home->least) &&
      go_home(b, need))
    return 0;
  while (cap < need)
    cap *= 2;
  p = pp_buf_realloc(b->afar ? NULL : b->data, cap);
  if (p == NULL)
    return PP_ENOMEM;
  if (b->afar) { /* no room there any more */
    memcpy(p, b->data, b->len);
    b->home->release(b->home, b->data, b->cap);
    b->afar = false;
  }
  b->data = p;
  b->cap = cap;
  return 0;
}

int pp_buf_varint(pp_buf *b, uint64_t v) {
  unsigned char tmp[PP_VARINT_MAX];
  size_t n = 0;

  while (v >= 0x80) {
    tmp[n++] = (unsigned char)(v | 0x80);
    v >>= 7;
  }
  tmp[n++] = (unsigned char)v;
  return pp_buf_put(b, tmp, n);
}

int pp_rd_byte(pp_rd *r, unsigned char *out) {
  if (r->p == r->end)
    return PP_EBAD;
  *out = *r->p++;
  return 0;
}

int pp_rd_varint(pp_rd *r, uint64_t *out) {
  const unsigned char *p = r->p;
  uint64_t v = 0;
  unsigned shift = 0;

  for (;; p++, shift += 7) {
    if (p == r->end || shift > 63 || (shift == 63 && *p > 1))
      return PP_EBAD;
    v |= (uint64_t)(*p & 0x7f) << shift;
    if (*p < 0x80)
      break;
  }
  r->p = p + 1;
  *out = v;
  return 0;
}

int pp_rd_bytes(pp_rd *r, size_t n, const unsigned char **out) {
  if (pp_rd_left(r) < n)
    return PP_EBAD;
  *out = r->p;
  r->p += n;
  return 0;
}
