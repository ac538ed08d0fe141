/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "lines_impl.h"

enum { READ_ON = 65536 }; /* bytes at a time, behind a block */

/* Read up to len bytes behind what is there: how many, fewer at the end of the
 * file. */
static int64_t append(int fd, uint64_t at, size_t len, pp_buf *buf) {
  size_t n = 0;

  if (pp_buf_reserve(buf, len) != 0)
    return PP_ENOMEM;
  while (n < len) {
    ssize_t k = pread(fd, buf->data + buf->len + n, len - n, (off_t)(at + n));

    if (k < 0 && errno == EINTR)
      continue;
    if (k < 0)
      return PP_ESYS;
    if (k == 0)
      break;
    n += (size_t)k;
  }
  buf->len += n;
  return (int64_t)n;
}

int pp_lines_read(int fd, uint64_t at, uint64_t len, size_t max, pp_buf *buf,
                  pp_lines *out) {
  size_t before = at > 0 ? 1 : 0, first = 0, begun, end;
  uint64_t next = at + len;
  int64_t n;

  buf->len = 0;
  memset(out, 0, sizeof *out);
  n = append(fd, at - before, (size_t)len + before, buf);
  if (n < 0)
    return (int)n;
  if (before > 0) { /* that of the byte before does not begin here */
    const unsigned char *nl =
        buf->len > 0 ? memchr(buf->data, '\n', buf->len) : NULL;

    first = nl != NULL ? (size_t)(nl - buf->data) + 1 : buf->len;
  }
  end = buf->len;
  if (first == end || (size_t)n < (size_t)len + before)
    goto done;
  /* Does the last line go on? */
  for (begun = end; begun > first && buf->data[begun - 1] != '\n';)
    begun--;
  while (begun < buf->len && buf->len - begun <= max) {
    size_t had = buf->len;

    n = append(fd, next, READ_ON, buf);
    if (n < 0)
      return (int)n;
    next += (uint64_t)n;
    if (n == 0 || memchr(buf->data + had, '\n', (size_t)n) != NULL)
      break;
  }
done:
  out->p = (const char *)buf->data + first;
  out->end = (const char *)buf->data + end;
  out->all = (const char *)buf->data + buf->len;
  return 0;
}

size_t pp_lines_newlines(const char *p, size_t len) {
  const char *end = p + len;
  size_t n = 0;

  /* What compilers make of it looks at 16 or 32 bytes at a time. */
  while (p < end) {
    size_t k = (size_t)(end - p) < 255 * 16 ? (size_t)(end - p) : 255 * 16;
    unsigned sum = 0;

    for (size_t i = 0; i < k; i++)
      sum += p[i] == '\n';
    n += sum;
    p += k;
  }
  return n;
}
