/* SPDX-License-Identifier: MIT */
#include "writer.h"

#include "base.h"

enum { RUNS = 32 };

static unsigned lend(const pp_outq *q, uv_buf_t *b, size_t *total) {
  struct iovec v[RUNS];
  int n = pp_outq_peek(q, v, RUNS), i;

  *total = 0;
  for (i = 0; i < n; i++) {
    b[i] = uv_buf_init(v[i].iov_base, (unsigned)v[i].iov_len);
    *total += v[i].iov_len;
  }
  return (unsigned)n;
}

static void written(uv_write_t *req, int status) {
  pp_writer *w = req->data;
  ssize_t n;

  w->busy = false;
  if (status == UV_ECANCELED)
    return; /* the handle is closing, and the queue may be gone */
  if (status == 0) {
    pp_outq_consume(w->q, w->lent);
    n = pp_writer_flush(w);
    status = n < 0 ? (int)n : 0;
  }
  w->moved(w->ud, status);
}

ssize_t pp_writer_flush(pp_writer *w) {
  uv_buf_t b[RUNS];
  ssize_t moved = 0;
  size_t total;
  unsigned n;
  int r;

  while (!w->busy && w->q->len > 0) {
    n = lend(w->q, b, &total);
    r = uv_try_write(w->to, b, n);
    if (r < 0 && r != UV_EAGAIN)
      return r;
    if (r > 0) {
      pp_outq_consume(w->q, (size_t)r);
      moved += r;
    }
    if (r == (int)total)
      continue;
    n = lend(w->q, b, &total);
    w->lent = total;
    w->req.data = w;
    if ((r = uv_write(&w->req, w->to, b, n, written)) != 0)
      return r;
    w->busy = true;
  }
  return moved;
}
