/* SPDX-License-Identifier: MIT */
#include "feed.h"

#include <stdlib.h>
#include <string.h>

#include "link_impl.h"

/* Sent at a time. */
#define PIECE 65536u

typedef struct reader {
  pp_job *j;     /* reference */
  uint64_t sent; /* bytes from the beginning */
  uint32_t lane, seq;
  bool asks; /* its worker wants more */
} reader;

struct pp_feed {
  pp_engine *engine;
  pp_buf bytes; /* from `base` on */
  uint64_t base;
  bool ended, hold;
  reader *v; /* owned */
  size_t n, cap;
};

pp_feed *pp_feed_new(pp_engine *e) {
  pp_feed *f = calloc(1, sizeof *f);

  if (f == NULL)
    return NULL;
  f->engine = e;
  e->feed = f;
  return f;
}

void pp_feed_free(pp_feed *f) {
  if (f == NULL)
    return;
  while (f->n > 0)
    pp_feed_drop(f, f->v[0].j);
  if (f->engine->feed == f)
    f->engine->feed = NULL;
  pp_buf_clear(&f->bytes);
  free(f->v);
  free(f);
}

/* Let go what all have been sent. */
static void trim(pp_feed *f) {
  uint64_t least = f->base + f->bytes.len;
  size_t n;

  for (size_t i = 0; i < f->n; i++)
    if (f->v[i].sent < least)
      least = f->v[i].sent;
  n = f->hold ? 0 : (size_t)(least - f->base);
  /* Not for each piece: what stays is moved. */
  if (n == 0 || (n < PIECE && n < f->bytes.len))
    return;
  f->bytes.len -= n;
  memmove(f->bytes.data, f->bytes.data + n, f->bytes.len);
  f->base += n;
  if (f->bytes.len == 0)
    pp_buf_clear(&f->bytes);
}

/* Send a reader that asks what there is. */
static void serve(pp_feed *f, reader *r) {
  const uint64_t end = f->base + f->bytes.len;
  size_t n = end - r->sent < PIECE ? (size_t)(end - r->sent) : PIECE;
  unsigned char *p;
  pp_link *l;

  if (!r->asks || (n == 0 && !f->ended))
    return;
  r->asks = false;
  l = f->engine->links[r->lane];
  if (l == NULL || l->dead || pp_link_job(l, r->seq) != r->j)
    return;
  p = malloc(PP_FRAME_HEAD + PP_FED_HEAD + n);
  if (p == NULL)
    goto fail;
  pp_frame_head(p, PP_F_FED, PP_FED_HEAD + n);
  pp_put32(p + PP_FRAME_HEAD + PP_FED_SEQ, r->seq);
  pp_put32(p + PP_FRAME_HEAD + PP_FED_END, n == 0);
  pp_put64(p + PP_FRAME_HEAD + PP_FED_HAD, r->sent);
  if (n > 0)
    memcpy(p + PP_FRAME_HEAD + PP_FED_HEAD, f->bytes.data + (r->sent - f->base),
           n);
  if (pp_link_post(l, p, PP_FRAME_HEAD + PP_FED_HEAD + n) != 0)
    goto fail;
  free(p);
  r->sent += n;
  r->j->sent += n;
  pp_link_push(l);
  return;
fail:
  free(p);
  pp_link_kill(l); /* it would wait for ever */
}

static reader *find(const pp_feed *f, const pp_job *j) {
  for (size_t i = 0; i < f->n; i++)
    if (f->v[i].j == j)
      return &f->v[i];
  return NULL;
}

int pp_feed_add(pp_feed *f, pp_job *j) {
  if (f->base > 0)
    return PP_ECLOSED;
  if (f->n == f->cap) {
    size_t cap = f->cap ? 2 * f->cap : 16;
    reader *v = realloc(f->v, cap * sizeof *v);

    if (v == NULL)
      return PP_ENOMEM;
    f->v = v;
    f->cap = cap;
  }
  f->v[f->n++] = (reader){.j = j};
  pp_job_ref(j);
  return 0;
}

void pp_feed_drop(pp_feed *f, pp_job *j) {
  reader *r = find(f, j);

  if (r == NULL)
    return;
  *r = f->v[--f->n];
  pp_job_unref(j, &f->engine->blobs);
  trim(f);
}

void pp_feed_hold(pp_feed *f, bool hold) {
  f->hold = hold;
  trim(f);
}

int pp_feed_put(pp_feed *f, const void *p, size_t len) {
  if (pp_buf_put(&f->bytes, p, len) != 0)
    return PP_ENOMEM;
  f->ended = f->ended || len == 0;
  for (size_t i = 0; i < f->n; i++)
    serve(f, &f->v[i]);
  trim(f);
  return 0;
}

size_t pp_feed_kept(const pp_feed *f) { return f->bytes.len; }

bool pp_feed_wanted(pp_link *l, const unsigned char *p, size_t len) {
  pp_feed *f = l->engine->feed;
  pp_job *j;
  reader *r;

  if (len != PP_FEED_SIZE)
    return false;
  j = pp_link_job(l, pp_get32(p + PP_FEED_SEQ));
  r = f != NULL && j != NULL ? find(f, j) : NULL;
  if (r == NULL)
    return true; /* it is being stopped, or was not meant to read */
  if (pp_get64(p + PP_FEED_HAD) != r->sent)
    return false;
  r->lane = l->lane;
  r->seq = pp_get32(p + PP_FEED_SEQ);
  r->asks = true;
  serve(f, r);
  trim(f);
  return true;
}
