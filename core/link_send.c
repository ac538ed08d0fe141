/* SPDX-License-Identifier: MIT */
/* Frames on their way to a worker: into its ring as far as there is room, the
 * rest in pieces that wait. */
#include <stdlib.h>
#include <string.h>

#include "kin.h"
#include "link_impl.h"
#include "trace.h"

/* Jobs that are likely to take less are not worth waking a worker for each. */
#define LULLED_NS 5000

static bool holds(const pp_link *l, uint32_t id) {
  return id / 64 < l->has_words && (l->has[id / 64] >> id % 64 & 1);
}

static int set_held(pp_link *l, pp_blob *b) {
  if (b->id / 64 >= l->has_words) {
    size_t words = b->id / 64 + 8;
    uint64_t *v = realloc(l->has, words * sizeof *v);

    if (v == NULL)
      return PP_ENOMEM;
    memset(v + l->has_words, 0, (words - l->has_words) * sizeof *v);
    l->has = v;
    l->has_words = words;
  }
  if (pp_blob_held(b, l->lane) != 0)
    return PP_ENOMEM;
  l->has[b->id / 64] |= (uint64_t)1 << b->id % 64;
  return 0;
}

static void piece_done(pp_link *l, pp_piece *t) {
  pp_piece p = *t;

  memset(t, 0, sizeof *t); /* what goes may be told to this link: t moves */
  if (p.job != NULL)
    pp_job_unref(p.job, &l->engine->blobs);
  pp_blob_unref(&l->engine->blobs, p.blob);
  if (p.last)
    l->answering = false;
  pp_source_unref(p.source);
  if (p.cargo != NULL)
    pp_link_hang(l, p.cargo);
  free(p.owned);
}

void pp_link_rouse(pp_engine *e) {
  pp_link *l;

  while ((l = e->lulled) != NULL) {
    e->lulled = l->next_lulled;
    l->lulled = false;
    if (!l->dead)
      pp_lane_wake(l->map.lane, PP_WANTS_INPUT);
  }
}

void pp_link_unhang(pp_link *l, bool all) {
  uint64_t done =
      atomic_load_explicit(&l->map.lane->handled, memory_order_acquire);
  size_t n = 0;

  while (n < l->nhanging && (all || l->hanging[n].until <= done))
    n++;
  /* Out of the list first: what goes may be told to this link. */
  while (n > 0) {
    pp_cargo *c = l->hanging[0].cargo;

    memmove(l->hanging, l->hanging + 1, --l->nhanging * sizeof *l->hanging);
    l->engine->hanging -= c->len;
    n--;
    pp_cargo_unref(c);
  }
}

void pp_link_hang(pp_link *l, pp_cargo *c) {
  if (l->dead || pp_link_afar(l, c) == NULL) {
    pp_cargo_unref(c);
    return;
  }
  if (l->nhanging == l->cap_hanging) {
    size_t cap = l->cap_hanging ? l->cap_hanging * 2 : 8;
    pp_hanging *v = realloc(l->hanging, cap * sizeof *v);

    if (v == NULL) {
      /* When its worker is gone nobody looks at it. */
      pp_link_kill(l);
      return;
    }
    l->hanging = v;
    l->cap_hanging = cap;
  }
  l->engine->hanging += c->len;
  l->hanging[l->nhanging++] = (pp_hanging){
      atomic_load_explicit(&l->map.lane->in.tail, memory_order_relaxed), c};
}

bool pp_link_push(pp_link *l) {
  pp_ring *in = &l->map.lane->in;
  bool wrote = false;

  while (l->tx_at < l->tx_n) {
    pp_piece *t = &l->tx[l->tx_at];
    size_t room = pp_ring_room(in), k = t->len < room ? t->len : room;

    if (t->len > 0 && k == 0) {
      if (wrote)
        pp_link_wake(l);
      wrote = false;
      atomic_store(&l->map.lane->tx_blocked, 1);
      if (pp_ring_room(in) == 0)
        return false;
      atomic_store(&l->map.lane->tx_blocked, 0);
      continue;
    }
    memcpy(pp_ring_end(in, l->map.in), t->p, k);
    pp_ring_publish(in, k);
    wrote = true;
    t->p += k;
    t->len -= k;
    if (t->len == 0) {
      piece_done(l, t);
      l->tx_at++;
    } else {
      pp_link_wake(l);
      wrote = false;
    }
  }
  if (wrote)
    pp_link_wake(l);
  l->tx_at = l->tx_n = 0;
  return true;
}

pp_piece *pp_link_piece(pp_link *l, const void *p, size_t len) {
  if (l->tx_n == l->tx_cap) {
    size_t cap = l->tx_cap ? l->tx_cap * 2 : 8;
    pp_piece *v = realloc(l->tx, cap * sizeof *v);

    if (v == NULL)
      return NULL;
    l->tx = v;
    l->tx_cap = cap;
  }
  l->tx[l->tx_n] = (pp_piece){.p = p, .len = len};
  return &l->tx[l->tx_n++];
}

int pp_link_post(pp_link *l, const void *p, size_t len) {
  unsigned char *own = malloc(len);
  pp_piece *t;

  if (own == NULL)
    return PP_ENOMEM;
  memcpy(own, p, len);
  t = pp_link_piece(l, own, len);
  if (t == NULL) {
    free(own);
    return PP_ENOMEM;
  }
  t->owned = own;
  return 0;
}

/* Send a MODULE frame: `name` and what is at p, which belongs to source (its
 * reference passes) or is copied. */
static int send_module(pp_link *l, uint32_t status, const char *name,
                       const void *p, size_t len, pp_source *source) {
  size_t at = strlen(name), head = PP_FRAME_HEAD + PP_MOD_HEAD + 1 + at;
  unsigned char *own = malloc(head + (source == NULL ? len : 0));
  pp_piece *t = NULL;

  if (own == NULL)
    goto fail;
  pp_frame_head(own, PP_F_MODULE, head - PP_FRAME_HEAD + len);
  pp_put32(own + PP_FRAME_HEAD + PP_MOD_STATUS, status);
  pp_put32(own + PP_FRAME_HEAD + PP_MOD_NAME, (uint32_t)at + 1);
  pp_put64(own + PP_FRAME_HEAD + PP_MOD_HASH,
           source != NULL ? source->hash.lo : 0);
  pp_put64(own + PP_FRAME_HEAD + PP_MOD_HASH + 8,
           source != NULL ? source->hash.hi : 0);
  own[PP_FRAME_HEAD + PP_MOD_HEAD] = '@';
  memcpy(own + head - at, name, at);
  if (source == NULL && len > 0) {
    memcpy(own + head, p, len);
    head += len;
  }
  if ((t = pp_link_piece(l, own, head)) == NULL)
    goto fail;
  t->owned = own;
  if (source != NULL) {
    if ((t = pp_link_piece(l, p, len)) == NULL) {
      pp_source_unref(source);
      return PP_ENOMEM; /* half a frame: the link has to go */
    }
    t->source = source;
  }
  t->last = l->answering = true;
  return 0;
fail:
  free(own);
  pp_source_unref(source);
  return PP_ENOMEM;
}

/* Is it no more than names with a dot between? In others are ways out of the
 * directories of a path, for a template may begin with `?`. */
static bool module_name(const char *name, size_t len) {
  char was = '.';

  for (size_t i = 0; i < len; was = name[i++])
    if (name[i] == '/' || (name[i] == '.' && was == '.'))
      return false;
  return was != '.';
}

bool pp_link_want(pp_link *l, const unsigned char *p, size_t len) {
  pp_engine *e = l->engine;
  const char *path = e->path, *name = (const char *)p + PP_WANT_HEAD;
  pp_source *s = NULL;
  pp_buf tried = {0};
  const pp_job *j;
  int r;

  if (len <= PP_WANT_HEAD || l->answering)
    return false;
  j = pp_link_job(l, pp_get32(p + PP_WANT_SEQ));
  if (j == NULL || !pp_link_taken(l, j))
    return false;
  if (j->setting != NULL) /* up to its zero byte */
    path = (const char *)j->setting->bytes;
  if (l->far != NULL && !module_name(name, len - PP_WANT_HEAD)) {
    static const char no[] = "no file: hosts name modules, not paths";

    r = pp_buf_put(&tried, no, sizeof no - 1);
  } else {
    r = pp_modules_find(&e->modules, path, strlen(path), name,
                        len - PP_WANT_HEAD, &s, &tried);
  }
  if (r > 0)
    r = send_module(l, PP_MOD_FOUND, s->file, s->bytes, s->len, s);
  else if (r == 0 || r == PP_EBAD)
    r = send_module(l, r == 0 ? PP_MOD_NONE : PP_MOD_FAILED, "", tried.data,
                    tried.len, NULL);
  pp_buf_clear(&tried);
  if (r != 0) {
    pp_log(PP_LOG_WARN, "not enough memory to answer worker %u: replaced",
           l->number);
    pp_link_kill(l);
  } else {
    pp_link_push(l);
  }
  return true;
}

void pp_link_unsend(pp_link *l) {
  for (; l->tx_at < l->tx_n; l->tx_at++)
    piece_done(l, &l->tx[l->tx_at]);
  l->tx_n = l->tx_at = 0;
}

static size_t blob_head(const pp_link *l, const pp_blob *b, unsigned char *p) {
  size_t n = PP_FRAME_HEAD + PP_BLOB_HEAD;

  pp_frame_head(p,
                PP_F_BLOB | (pp_link_afar(l, b->cargo) != NULL ? PP_F_AFAR : 0),
                PP_BLOB_HEAD + 4 * (uint64_t)b->ndeps +
                    (pp_link_afar(l, b->cargo) != NULL ? PP_REF_SIZE : b->len));
  memset(p + PP_FRAME_HEAD, 0, PP_BLOB_HEAD);
  p += PP_FRAME_HEAD;
  pp_put32(p + PP_BLOB_ID, b->id);
  pp_put32(p + PP_BLOB_KIND, (uint32_t)b->kind);
  pp_put64(p + PP_BLOB_HASH, b->hash.lo);
  pp_put64(p + PP_BLOB_HASH + 8, b->hash.hi);
  pp_put32(p + PP_BLOB_NDEPS, b->ndeps);
  return n;
}

static int send_one(pp_link *l, pp_blob *b) {
  unsigned char head[PP_FRAME_HEAD + PP_BLOB_HEAD], *own;
  size_t n, total;
  pp_piece *t;

  n = blob_head(l, b, head);
  total = n + 4 * (size_t)b->ndeps +
          (pp_link_afar(l, b->cargo) != NULL ? PP_REF_SIZE : 0);
  own = malloc(total);
  if (own == NULL)
    return PP_ENOMEM;
  memcpy(own, head, n);
  for (uint32_t i = 0; i < b->ndeps; i++)
    pp_put32(own + n + 4 * (size_t)i,
             b->deps[i] != NULL ? b->deps[i]->id : PP_BLOB_NONE);
  if (pp_link_afar(l, b->cargo) != NULL)
    pp_put_ref(own + total - PP_REF_SIZE, b->cargo->at, b->cargo->len,
               b->cargo->slot.cap);
  t = pp_link_piece(l, own, total);
  if (t == NULL) {
    free(own);
    return PP_ENOMEM;
  }
  t->owned = own;
  if (pp_link_afar(l, b->cargo) == NULL) {
    t = pp_link_piece(l, b->bytes, b->len);
    if (t == NULL)
      return PP_ENOMEM; /* the half frame before it goes with the link */
  }
  t->blob = pp_blob_ref(b);
  return set_held(l, b);
}

/* Send one blob and those it needs, those first, if the worker has them not.
 * They may nest deeply: the way to where it is, is a list. */
static int send_blob(pp_link *l, pp_blob *b) {
  if (b == NULL || holds(l, b->id))
    return 0;
  b->after = NULL;
  b->step = 0;
  while (b != NULL) {
    pp_blob *before = b->step < b->ndeps ? b->deps[b->step++] : NULL;

    if (before != NULL && !holds(l, before->id)) {
      before->after = b;
      before->step = 0;
      b = before;
    }
    if (b->step < b->ndeps)
      continue;
    if (send_one(l, b) != 0)
      return PP_ENOMEM;
    b = b->after;
  }
  return 0;
}

/* It will have to be stopped if it takes too long. */
static int watch(pp_link *l, pp_job *j) {
  if (j->timeout > 0)
    (void)pp_deadlines_add(&l->server->deadlines, pp_now_ns() + j->timeout, j,
                           &l->engine->blobs);
  return 0;
}

/* Is the claim word of this number free? Jobs that are known to have been begun
 * need theirs no more. */
static bool window_has(const pp_place *p, uint32_t seq) {
  const pp_job *j = p->jobs.head;

  while (j != NULL && pp_job_kin(j) != NULL && pp_job_kin(j)->begun > 0)
    j = j->next;
  return j == NULL || seq - j->seq < PP_WINDOW;
}

/* Its frame does not fit: head and body as two pieces. To a remote worker cargo
 * goes as bytes, behind the head; a tail goes to any, behind head and body. */
static int send_pieces(pp_link *l, pp_job *j, size_t head) {
  pp_cargo *cargo = l->far != NULL ? pp_job_args(j) : NULL;
  pp_cargo *tail = pp_job_tail(j);
  size_t len = head + (tail != NULL ? j->body_len : 0);
  unsigned char *own = malloc(len);
  pp_piece *t;

  if (own == NULL)
    return PP_ENOMEM;
  pp_job_head(j, own);
  if (cargo != NULL)
    pp_frame_head(own, PP_F_JOB, head - PP_FRAME_HEAD + cargo->len);
  memcpy(own + head, j->body, len - head);
  if (tail != NULL)
    cargo = tail;
  t = pp_link_piece(l, own, len);
  if (t == NULL) {
    free(own);
    return PP_ENOMEM;
  }
  t->owned = own;
  t = cargo != NULL ? pp_link_piece(l, cargo->p, cargo->len)
                    : pp_link_piece(l, j->body, j->body_len);
  if (t == NULL)
    return PP_ENOMEM; /* the half frame before it goes with the link */
  if (cargo != NULL)
    t->cargo = pp_cargo_ref(cargo);
  else
    t->job = pp_job_ref(j);
  return 0;
}

/* Are bytes that go to its ring not in the job's body? */
static bool apart(const pp_link *l, const pp_job *j) {
  return pp_job_tail(j) != NULL || (l->far != NULL && pp_job_args(j) != NULL);
}

static int place_send(pp_place *p, pp_job *j) {
  pp_link *l = pp_link_of(p);
  pp_lane *lane = l->map.lane;
  uint32_t seq, ndeps = pp_job_ndeps(j);
  size_t head, size;
  bool need;

  if (l->tx_n > 0 && !(j->flags & PP_JOB_CALL))
    return PP_EAGAIN;
  seq = l->seq + 1;
  if (!l->lending && !window_has(p, seq))
    return PP_EAGAIN;
  need =
      !holds(l, j->fn->id) || (j->setting != NULL && !holds(l, j->setting->id));
  for (uint32_t i = 0; i < ndeps && !need; i++)
    need = !holds(l, j->more->deps[i]->id);
  if (need) {
    int r = send_blob(l, j->fn);

    if (r == 0)
      r = send_blob(l, j->setting);
    for (uint32_t i = 0; i < ndeps && r == 0; i++)
      r = send_blob(l, j->more->deps[i]);
    if (r != 0) {
      pp_link_kill(l); /* what it was sent cannot be told: begin anew */
      return PP_EAGAIN;
    }
  }
  l->seq = j->seq = seq;
  if (PP_UNLIKELY(l->engine->trace != NULL))
    pp_trace_sent(l, seq);
  pp_kin_anew(j);
  if (l->server->console)
    j->wire |= PP_JOBF_BASE;
  if (j->flags & PP_JOB_CHILD) {
    j->wire &= (uint16_t)~PP_JOBF_NOW;
    j->wire |= l->lending ? PP_JOBF_NOW : 0;
  }
  /* Published with the frame, or with its last piece. */
  atomic_store_explicit(pp_link_claim(l, seq), seq << 2 | PP_CLAIM_SENT,
                        memory_order_release);
  head = pp_job_head_len(j);
  size = head + j->body_len;
  j->sent += pp_job_bytes(j);
  j->node = l->node->name;
  l->node->stats.sent += pp_job_bytes(j);
  if (l->tx_n == 0 && !apart(l, j) && pp_ring_room(&lane->in) >= size) {
    unsigned char *f = pp_ring_end(&lane->in, l->map.in);

    pp_job_head(j, f);
    memcpy(f + head, j->body, j->body_len);
    pp_ring_publish(&lane->in, size);
    if (l->engine->streaming && l->far == NULL && j->fn->run_ns >= 0 &&
        j->fn->run_ns < LULLED_NS)
      pp_link_lull(l);
    else
      pp_link_wake(l);
    return watch(l, j);
  }
  if (send_pieces(l, j, head) != 0) {
    pp_link_kill(l);
    return 0; /* it comes back with the death of the worker */
  }
  l->place.full = !pp_link_push(l);
  return watch(l, j);
}

static bool place_recall(pp_place *p, pp_job *j) {
  pp_link *l = pp_link_of(p);
  uint32_t want = j->seq << 2 | PP_CLAIM_SENT;

  if (!l->dead)
    for (size_t i = l->tx_at; i < l->tx_n; i++)
      if (l->tx[i].job == j)
        return false; /* its bytes are on the way */
  return atomic_compare_exchange_strong(pp_link_claim(l, j->seq), &want,
                                        j->seq << 2 | PP_CLAIM_RECALLED);
}

void pp_link_detach(pp_link *l) {
  for (size_t i = l->tx_at; i < l->tx_n; i++) {
    pp_piece *t = &l->tx[i];

    if (t->job == NULL || t->job->state != PP_JOB_SENT ||
        t->job->place != &l->place)
      continue;
    t->owned = malloc(t->len ? t->len : 1);
    if (t->owned == NULL) {
      pp_link_kill(l);
      return;
    }
    memcpy(t->owned, t->p, t->len);
    t->p = t->owned;
    pp_job_unref(t->job, &l->engine->blobs);
    t->job = NULL;
  }
}

static int64_t place_begun(pp_place *p, const pp_job *j) {
  const pp_link *l = pp_link_of(p);

  if (pp_job_kin(j) != NULL && pp_job_kin(j)->begun > 0)
    return pp_job_kin(j)->begun;
  return atomic_load(pp_link_claim(l, j->seq)) == (j->seq << 2 | PP_CLAIM_TAKEN)
             ? atomic_load(&l->map.lane->begun)
             : -1;
}

static uint32_t place_worker(pp_place *p, pp_job *j) {
  return place_begun(p, j) >= 0 ? pp_link_of(p)->number : 0;
}

static bool place_withdraw(pp_place *p, pp_job *j) {
  pp_link *l = pp_link_of(p);
  uint32_t want = j->seq << 2 | PP_CLAIM_SENT;

  if (!atomic_compare_exchange_strong(pp_link_claim(l, j->seq), &want,
                                      j->seq << 2 | PP_CLAIM_RECALLED))
    return false;
  for (size_t i = l->tx_at; i < l->tx_n; i++)
    if (l->tx[i].job == j && j->body != j->small) {
      l->tx[i].owned = j->body; /* it outlives the job's interest in it */
      j->body = NULL;
    }
  pp_sched_ended(&l->place, j);
  return true;
}

static void place_drain(pp_place *p) { pp_link_drain(pp_link_of(p)); }

static uint32_t place_cut(pp_place *p, pp_job *j, uint32_t n) {
  return pp_lane_cut(pp_link_of(p)->map.lane, j->seq, n);
}

const pp_place_ops pp_link_ops = {
    .send = place_send,
    .recall = place_recall,
    .drain = place_drain,
    .begun = place_begun,
    .worker = place_worker,
    .withdraw = place_withdraw,
    .stop = pp_link_stop,
    .cut = place_cut,
};

/* --- of a remote worker --------------------------------------------------- */

static bool far_recall(pp_place *p, pp_job *j) {
  /* Of one that was withdrawn nothing is left to run elsewhere. */
  return pp_link_of(p)->dead && !(j->flags & PP_JOB_GHOST) &&
         place_recall(p, j);
}

static void far_ask(pp_place *p, pp_job *j) {
  pp_far_ask(pp_link_of(p), j->seq);
}

/* If it is not known to have been begun it ends as if it never had. */
static bool far_withdraw(pp_place *p, pp_job *j) {
  if (place_begun(p, j) >= 0)
    return false;
  pp_link_stop(p, j, PP_KIND_CANCELLED);
  j->worker = 0;
  return true;
}

/* It answers: pp_server_cut. */
static uint32_t far_cut(pp_place *p, pp_job *j, uint32_t n) {
  pp_link *l = pp_link_of(p);

  if (l->far != NULL && !l->dead)
    pp_far_cut(l, j->seq, n);
  return 0;
}

const pp_place_ops pp_link_far_ops = {
    .send = place_send,
    .recall = far_recall,
    .ask = far_ask,
    .drain = place_drain,
    .begun = place_begun,
    .worker = place_worker,
    .withdraw = far_withdraw,
    .stop = pp_link_stop,
    .cut = far_cut,
};

/* Send a small frame that is not worth waking the worker for, but for cargo: a
 * reference that passes, or NULL, see pp_link_hang. */
static void send_quietly(pp_link *l, const unsigned char *f, size_t len,
                         pp_cargo *cargo) {
  if (l->tx_n == 0 && pp_ring_room(&l->map.lane->in) >= len) {
    memcpy(pp_ring_end(&l->map.lane->in, l->map.in), f, len);
    pp_ring_publish(&l->map.lane->in, len);
    if (l->far != NULL || cargo != NULL)
      pp_link_wake(l);
    if (cargo != NULL)
      pp_link_hang(l, cargo);
  } else if (pp_link_post(l, f, len) == 0) {
    l->tx[l->tx_n - 1].cargo = cargo;
  } else {
    pp_link_kill(l); /* and it may look at the cargo until it is gone */
  }
}

void pp_link_release(pp_link *l, uint64_t at, size_t cap, bool cold) {
  unsigned char f[PP_FRAME_HEAD + PP_RELEASE_SIZE] = {0};
  unsigned char *p = f + PP_FRAME_HEAD;

  if (l->dead)
    return;
  pp_frame_head(f, PP_F_RELEASE, PP_RELEASE_SIZE);
  pp_put64(p, at);
  pp_put64(p + PP_RELEASE_CAP, cap);
  p[PP_RELEASE_COLD] = cold;
  send_quietly(l, f, sizeof f, NULL);
}

void pp_link_drop(pp_link *l, uint32_t id) {
  unsigned char f[PP_FRAME_HEAD + 4];
  pp_blob *b;

  if (l->dead || !holds(l, id))
    return;
  b = pp_blobs_by_id(&l->engine->blobs, id);
  l->has[id / 64] &= ~((uint64_t)1 << id % 64);
  pp_frame_head(f, PP_F_DROP, 4);
  pp_put32(f + PP_FRAME_HEAD, id);
  send_quietly(l, f, sizeof f, b != NULL ? pp_cargo_ref(b->cargo) : NULL);
}
