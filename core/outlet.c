/* SPDX-License-Identifier: MIT */
#include "outlet.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "meter.h"
#include "shm.h"

/* A line longer than this is passed on in pieces. */
#define LINE_MAX_BYTES 65536u
/* More than a pipe can hold, so that one look empties it. */
#define READ_MAX (1u << 20)

static void pass(pp_outlet *o, const unsigned char *p, size_t n) {
  FILE *f = *o->to;

  if (o->mode == PP_OUTPUT_NONE)
    return;
  *o->dirty = true;
  pp_meter_erase(o->meter, o->which);
  pp_meter_wrote(o->meter, o->which, p[n - 1] == '\n');
  if (o->mode != PP_OUTPUT_PREFIX) {
    (void)!fwrite(p, 1, n, f);
    o->inside = p[n - 1] != '\n';
    return;
  }
  while (n > 0) {
    const unsigned char *nl = memchr(p, '\n', n);
    size_t k = nl != NULL ? (size_t)(nl - p) + 1 : n;

    if (!o->inside)
      fputs(o->prefix, f);
    (void)!fwrite(p, 1, k, f);
    o->inside = nl == NULL;
    p += k;
    n -= k;
  }
}

static void taken(pp_outlet *o, size_t k) {
  o->passed += k;
  o->text.len -= k;
  memmove(o->text.data, o->text.data + k, o->text.len);
  if (o->text.len == 0 && o->text.cap > LINE_MAX_BYTES)
    pp_buf_clear(&o->text);
}

void pp_outlet_collect(pp_outlet *o, uint64_t upto, pp_buf *sink) {
  size_t n = upto > o->passed ? (size_t)(upto - o->passed) : 0;

  if (n > o->text.len)
    n = o->text.len;
  if (n == 0)
    return;
  if (sink != NULL)
    (void)pp_buf_put(sink, o->text.data, n);
  taken(o, n);
}

void pp_outlet_pass(pp_outlet *o, uint64_t upto, bool end) {
  size_t n = upto > o->passed ? (size_t)(upto - o->passed) : 0, k;

  if (o->mode == PP_OUTPUT_JOB)
    return; /* it waits to be collected */
  if (n > o->text.len)
    n = o->text.len;
  if (n == 0) {
    if (end && o->inside) /* of a line that went in pieces */
      pass(o, (const unsigned char *)"\n", 1);
    return;
  }
  if (end) {
    k = n;
  } else {
    const unsigned char *nl = memrchr(o->text.data, '\n', n);

    k = nl != NULL ? (size_t)(nl - o->text.data) + 1 : 0;
    if (n - k >= LINE_MAX_BYTES)
      k = n;
  }
  if (k == 0)
    return;
  pass(o, o->text.data, k);
  if (end && o->text.data[k - 1] != '\n')
    pass(o, (const unsigned char *)"\n", 1);
  taken(o, k);
}

bool pp_outlet_read(pp_outlet *o) {
  size_t total = 0;

  while (o->fd >= 0 && total < READ_MAX) {
    ssize_t n;

    if (pp_buf_reserve(&o->text, 16384) != 0)
      return true;
    if (o->lane != NULL)
      atomic_fetch_add(&o->lane->read_seq, 1);
    n = read(o->fd, o->text.data + o->text.len, 16384);
    if (n > 0 && o->lane != NULL)
      atomic_fetch_add(&o->lane->read_bytes[o->which], (uint64_t)n);
    if (o->lane != NULL)
      atomic_fetch_add(&o->lane->read_seq, 1);
    if (n < 0)
      return errno == EAGAIN || errno == EINTR;
    if (n == 0)
      return false;
    o->text.len += (size_t)n;
    o->read += (uint64_t)n;
    total += (size_t)n;
    if (n < 16384)
      break;
  }
  return true;
}

void pp_outlet_read_to(pp_outlet *o, uint64_t upto) {
  while (o->read < upto) {
    uint64_t was = o->read;

    if (!pp_outlet_read(o) || o->read == was)
      return;
  }
}
