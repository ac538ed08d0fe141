/* SPDX-License-Identifier: MIT */
#include "message.h"

#define COUNTS 8

int pp_message_names(const void *bytes, size_t len, pp_names *out) {
  const unsigned char *p = bytes;
  size_t left;

  memset(out, 0, sizeof *out);
  if (len == 0)
    return PP_EBAD;
  if (!(p[0] & MSG_NAMES))
    return 0;
  if (len < 1 + COUNTS)
    return PP_EBAD;
  left = len - 1 - COUNTS;
  out->nhashes = pp_get32(p + len - 8);
  out->nids = pp_get32(p + len - 4);
  if (out->nhashes > left / 16 || out->nids > (left - 16 * out->nhashes) / 8) {
    memset(out, 0, sizeof *out);
    return PP_EBAD;
  }
  out->len = COUNTS + 16 * out->nhashes + 8 * out->nids;
  out->hashes = p + len - out->len;
  out->ids = out->hashes + 16 * out->nhashes;
  return 0;
}

int pp_message_put_names(pp_buf *out, const pp_buf *hashes, const pp_buf *ids) {
  size_t nh = hashes->len / sizeof(pp_hash), ni = ids->len / sizeof(uint64_t);
  unsigned char *p;

  if (nh > UINT32_MAX || ni > UINT32_MAX)
    return PP_ELIMIT;
  if (pp_buf_reserve(out, COUNTS + 16 * nh + 8 * ni) != 0)
    return PP_ENOMEM;
  p = out->data + out->len;
  for (size_t i = 0; i < nh; i++, p += 16) {
    pp_hash h;

    memcpy(&h, hashes->data + i * sizeof h, sizeof h);
    pp_put64(p, h.lo);
    pp_put64(p + 8, h.hi);
  }
  for (size_t i = 0; i < ni; i++, p += 8) {
    uint64_t id;

    memcpy(&id, ids->data + i * sizeof id, sizeof id);
    pp_put64(p, id);
  }
  pp_put32(p, (uint32_t)nh);
  pp_put32(p + 4, (uint32_t)ni);
  out->len = (size_t)(p + 8 - out->data);
  return 0;
}
