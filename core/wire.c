/* SPDX-License-Identifier: MIT */
#include "wire.h"

const char *pp_kind_name(int kind) {
  static const char *const names[] = {
      "error",      "timeout", "cancelled", "lost",
      "unsendable", "memory",  "destroyed", "connect",
  };

  return kind >= 0 && kind < PP_KINDS ? names[kind] : "error";
}

int pp_error_body(pp_buf *out, int kind, const char *msg, size_t msg_len,
                  const char *tb, size_t tb_len) {
  size_t was = out->len;
  int r = pp_buf_byte(out, (unsigned char)kind);

  if (r == 0)
    r = pp_buf_varint(out, msg_len);
  if (r == 0)
    r = pp_buf_put(out, msg, msg_len);
  if (r == 0)
    r = pp_buf_varint(out, tb_len);
  if (r == 0)
    r = pp_buf_put(out, tb, tb_len);
  if (r != 0)
    out->len = was;
  return r;
}

int pp_error_parse(const void *bytes, size_t len, pp_error_view *out) {
  pp_rd r = pp_rd_of(bytes, len);
  const unsigned char *p;
  unsigned char kind;
  uint64_t n;

  if (pp_rd_byte(&r, &kind) != 0 || kind >= PP_KINDS)
    return PP_EBAD;
  out->kind = kind;
  if (pp_rd_varint(&r, &n) != 0 || n > len || pp_rd_bytes(&r, n, &p) != 0)
    return PP_EBAD;
  out->msg = (const char *)p;
  out->msg_len = n;
  if (pp_rd_varint(&r, &n) != 0 || n > len || pp_rd_bytes(&r, n, &p) != 0)
    return PP_EBAD;
  out->tb = (const char *)p;
  out->tb_len = n;
  out->value = r.p;
  out->value_len = pp_rd_left(&r);
  return 0;
}
