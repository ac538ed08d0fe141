/* SPDX-License-Identifier: MIT */
#include "numbers.h"

#define RUN_LEAST 4 /* fewer are written one by one */

int pp_put_integer(pp_buf *out, int64_t v) {
  unsigned char *p;

  if (pp_buf_reserve(out, 9) < 0)
    return PP_ENOMEM;
  p = out->data + out->len;
  if (v >= -LEAD_INT_BIAS && v <= LEAD_INT_MAX - LEAD_INT_BIAS) {
    p[0] = (unsigned char)(v + LEAD_INT_BIAS);
    out->len += 1;
  } else if (v >= INT8_MIN && v <= INT8_MAX) {
    p[0] = LEAD_INT8, p[1] = (unsigned char)v;
    out->len += 2;
  } else if (v >= INT16_MIN && v <= INT16_MAX) {
    p[0] = LEAD_INT8 + 1, p[1] = (unsigned char)v;
    p[2] = (unsigned char)((uint64_t)v >> 8);
    out->len += 3;
  } else if (v >= INT32_MIN && v <= INT32_MAX) {
    p[0] = LEAD_INT8 + 2;
    pp_put32(p + 1, (uint32_t)v);
    out->len += 5;
  } else {
    p[0] = LEAD_INT8 + 3;
    pp_put64(p + 1, (uint64_t)v);
    out->len += 9;
  }
  return 0;
}

int pp_put_float(pp_buf *out, double v) {
  unsigned char tmp[9] = {LEAD_FLOAT};

  memcpy(tmp + 1, &v, 8);
  return pp_buf_put(out, tmp, 9);
}

static unsigned varint(unsigned char *p, size_t v) {
  unsigned n = 0;

  for (; v >= 0x80; v >>= 7)
    p[n++] = (unsigned char)(v | 0x80);
  p[n++] = (unsigned char)v;
  return n;
}

static int flush_few(pp_runs *r) {
  for (unsigned i = 0; i < r->n; i++)
    if ((r->floats ? pp_put_float(r->out, r->v.d[i])
                   : pp_put_integer(r->out, r->v.i[i])) < 0)
      return PP_ENOMEM;
  r->n = 0;
  return 0;
}

int pp_runs_flush(pp_runs *r) {
  unsigned i, n = r->n;
  unsigned char *p;
  uint64_t bits = 0;

  if (n < RUN_LEAST)
    return flush_few(r);
  if (pp_buf_reserve(r->out, 1 + PP_VARINT_MAX + 8 * (size_t)n) < 0)
    return PP_ENOMEM;
  p = r->out->data + r->out->len + 1;
  p += varint(p, n);
  if (r->floats) {
    r->out->data[r->out->len] = LEAD_FLOATS;
    memcpy(p, r->v.d, 8 * (size_t)n);
    p += 8 * (size_t)n;
  } else {
    for (i = 0; i < n; i++) /* the bits of each but for the sign */
      bits |= (uint64_t)(r->v.i[i] ^ (r->v.i[i] >> 63));
    if (bits <= INT8_MAX) {
      r->out->data[r->out->len] = LEAD_INTS;
      for (i = 0; i < n; i++)
        p[i] = (unsigned char)r->v.i[i];
      p += n;
    } else if (bits <= INT16_MAX) {
      r->out->data[r->out->len] = LEAD_INTS + 1;
      for (i = 0; i < n; i++, p += 2)
        p[0] = (unsigned char)r->v.i[i],
        p[1] = (unsigned char)((uint64_t)r->v.i[i] >> 8);
    } else if (bits <= INT32_MAX) {
      r->out->data[r->out->len] = LEAD_INTS + 2;
      for (i = 0; i < n; i++, p += 4)
        pp_put32(p, (uint32_t)r->v.i[i]);
    } else {
      r->out->data[r->out->len] = LEAD_INTS + 3;
      for (i = 0; i < n; i++, p += 8)
        pp_put64(p, (uint64_t)r->v.i[i]);
    }
  }
  r->out->len = (size_t)(p - r->out->data);
  r->n = 0;
  return 0;
}

int pp_run_open(pp_rd *r, unsigned lead, pp_run *out) {
  const unsigned char *was = r->p;
  unsigned width;
  uint64_t n;

  if (lead < LEAD_INTS || lead > LEAD_FLOATS)
    return 0;
  width = lead == LEAD_FLOATS ? 8 : 1u << (lead - LEAD_INTS);
  if (pp_rd_varint(r, &n) < 0 || n == 0 || n > pp_rd_left(r) / width) {
    r->p = was;
    return PP_EBAD;
  }
  *out = (pp_run){r->p, (size_t)n, lead};
  r->p += n * width;
  return 1;
}
