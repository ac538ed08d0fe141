/* SPDX-License-Identifier: MIT */
#include "text.h"

size_t pp_text_utf8(const char *p, size_t n) {
  const unsigned char *s = (const unsigned char *)p;
  uint32_t c = s[0];
  size_t len = c < 0x80 ? 1 : c < 0xc2 ? 0 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;

  if (len < 2)
    return len;
  if (c > 0xf4 || len > n)
    return 0;
  for (size_t i = 1; i < len; i++)
    if ((s[i] & 0xc0) != 0x80)
      return 0;
  if ((c == 0xe0 && s[1] < 0xa0) || (c == 0xed && s[1] > 0x9f) ||
      (c == 0xf0 && s[1] < 0x90) || (c == 0xf4 && s[1] > 0x8f))
    return 0;
  return len;
}

void pp_text_json(pp_buf *out, const char *s, size_t n, size_t most) {
  static const char hex[] = "0123456789abcdef";
  size_t i = 0;

  /* Each byte becomes six at most. */
  if (pp_buf_reserve(out, (n < most ? n : most) * 6 + 32) != 0)
    return;
  out->data[out->len++] = '"';
  while (i < n) {
    unsigned char c = (unsigned char)s[i];
    size_t len = pp_text_utf8(s + i, n - i);
    unsigned char *p = out->data + out->len;

    if (i + (len > 0 ? len : 1) > most) {
      (void)pp_buf_put(out, "\xe2\x80\xa6", 3);
      break;
    }
    if (len == 0) {
      memcpy(p, "\\ufffd", 6);
      out->len += 6;
      i++;
    } else if (len > 1) {
      memcpy(p, s + i, len);
      out->len += len;
      i += len;
    } else {
      if (c == '"' || c == '\\') {
        *p++ = '\\', *p++ = c;
      } else if (c < 0x20 || c == 0x7f) {
        memcpy(p, "\\u00", 4);
        p[4] = (unsigned char)hex[c >> 4], p[5] = (unsigned char)hex[c & 15];
        p += 6;
      } else {
        *p++ = c;
      }
      out->len = (size_t)(p - out->data);
      i++;
    }
  }
  (void)pp_buf_put(out, "\"", 1);
}

void pp_text_number(pp_buf *out, uint64_t v) {
  char digits[20];
  size_t n = sizeof digits;

  do
    digits[--n] = (char)('0' + v % 10);
  while ((v /= 10) > 0);
  (void)pp_buf_put(out, digits + n, sizeof digits - n);
}

void pp_text_micros(pp_buf *out, int64_t ns) {
  unsigned part;
  char tail[4];

  if (ns < 0)
    ns = 0;
  pp_text_number(out, (uint64_t)ns / 1000);
  part = (unsigned)(ns % 1000);
  if (part == 0)
    return;
  tail[0] = '.';
  tail[1] = (char)('0' + part / 100);
  tail[2] = (char)('0' + part / 10 % 10);
  tail[3] = (char)('0' + part % 10);
  (void)pp_buf_put(out, tail, 4);
}
