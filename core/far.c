/* SPDX-License-Identifier: MIT */
#include "far.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "kin.h"
#include "link_impl.h"

/* Above so much in the stream's queue links wait. */
#define QUEUE_MOST ((size_t)1 << 20)
/* Output an agent may tell of before it says what it comes before. */
#define OUTPUT_MOST ((size_t)16 << 20)

/* --- sending -------------------------------------------------------------- */

static void broken(pp_far *f, const char *why) {
  if (f->over)
    return;
  f->over = true;
  f->ops.broken(f->ops.ud, why);
}

static void post(pp_far *f) {
  if (f->tx.len > 0 && !f->over)
    pp_press_pass(&f->press, f->tx.data, f->tx.len, f->ops.write, f->ops.ud);
  f->tx.len = f->open = 0;
}

static void say(pp_far *f, int type, uint32_t lane, const void *p, size_t n) {
  unsigned char head[PP_RELAY_HEAD];

  if (f->over)
    return;
  pp_relay_head(head, type, lane, (uint32_t)n);
  if (pp_buf_reserve(&f->tx, sizeof head + n) != 0) {
    broken(f, "not enough memory");
    return;
  }
  pp_buf_put(&f->tx, head, sizeof head);
  pp_buf_put(&f->tx, p, n);
  f->open = 0;
}

static void say32(pp_far *f, int type, uint32_t lane, uint32_t a) {
  unsigned char p[4];

  pp_put32(p, a);
  say(f, type, lane, p, sizeof p);
}

/* Bytes for a lane, in the BYTES that is open if that is the lane's. */
static void bytes(pp_far *f, pp_flane *w, const void *p, size_t n) {
  w->credit -= n;
  if (f->open > 0) {
    unsigned char *head = f->tx.data + f->open - 1;
    uint32_t len = pp_get32(head + 4);

    if (pp_get32(head) >> 8 == w->index && len + n <= PP_RELAY_MAX &&
        pp_buf_put(&f->tx, p, n) == 0) {
      pp_put32(f->tx.data + f->open - 1 + 4, len + (uint32_t)n);
      return;
    }
  }
  say(f, PP_R_BYTES, w->index, p, n);
  if (f->tx.len > 0)
    f->open = f->tx.len - n - PP_RELAY_HEAD + 1;
}

/* --- what links have put in their rings ----------------------------------- */

static void mark(pp_far *f, pp_flane *w) {
  if (w->dirty)
    return;
  w->dirty = true;
  w->next = NULL;
  *f->dirty_end = w;
  f->dirty_end = &w->next;
}

void pp_far_wake(pp_link *l) { mark(l->far->owner, l->far); }

/* A frame whose last `body` bytes are for the depot, by this name; `head` bytes
 * before them. As it is, or without them and as `again`. NULL with *n 0: it has
 * to wait; SIZE_MAX: no memory. */
static pp_stock *stock(pp_far *f, pp_flane *w, const unsigned char *p,
                       size_t head, uint64_t body, uint32_t kind,
                       const unsigned char *hash, int again, size_t *n) {
  pp_stock *t = pp_depot_find(&f->depot, kind, hash);
  unsigned char short_head[PP_FRAME_HEAD];

  *n = 0;
  if (t != NULL && t->got < t->len)
    return NULL; /* another lane is sending it */
  if (t == NULL) {
    *n = SIZE_MAX;
    t = pp_depot_add(&f->depot, kind, hash, body);
    if (t == NULL)
      return NULL;
    t->users++;
    w->filling = t;
    bytes(f, w, p, head);
  } else {
    w->swallow = true;
    pp_frame_head(short_head, again, head - PP_FRAME_HEAD);
    bytes(f, w, short_head, sizeof short_head);
    bytes(f, w, p + PP_FRAME_HEAD, head - PP_FRAME_HEAD);
  }
  w->left = body;
  *n = head;
  return t;
}

/* The head of a BLOB. What of it goes; 0: it has to wait; SIZE_MAX: no memory.
 */
static size_t blob(pp_far *f, pp_flane *w, const unsigned char *p,
                   uint64_t len) {
  const unsigned char *b = p + PP_FRAME_HEAD;
  size_t head = PP_FRAME_HEAD + PP_BLOB_HEAD + 4 * pp_get32(b + PP_BLOB_NDEPS);
  size_t n;
  pp_stock *t =
      stock(f, w, p, head, PP_FRAME_HEAD + len - head,
            pp_get32(b + PP_BLOB_KIND), b + PP_BLOB_HASH, PP_F_AGAIN, &n);

  if (t != NULL &&
      pp_shelf_put(&f->depot, &w->shelf, pp_get32(b + PP_BLOB_ID), t) != 0)
    return SIZE_MAX;
  return n;
}

/* The head of a MODULE with a source. As blob. */
static size_t module(pp_far *f, pp_flane *w, const unsigned char *p,
                     size_t head, uint64_t len) {
  size_t n;
  pp_stock *t =
      stock(f, w, p, head, PP_FRAME_HEAD + len - head, PP_DEPOT_MODULE,
            p + PP_FRAME_HEAD + PP_MOD_HASH, PP_F_RETOLD, &n);

  if (t != NULL)
    pp_depot_keep(&f->depot, t);
  return n;
}

/* The beginning of a frame, of which `used` bytes are there. As blob. */
static size_t begin(pp_far *f, pp_flane *w, const unsigned char *p,
                    size_t used) {
  uint64_t head, len;
  size_t need = PP_FRAME_HEAD;

  if (used < need)
    return 0;
  head = pp_get64(p);
  len = head >> 8;
  switch ((int)(head & 0xff)) {
  case PP_F_BLOB:
    need += PP_BLOB_HEAD;
    if (used < need)
      return 0;
    if (!pp_depot_keeps(p + PP_FRAME_HEAD, len))
      break;
    need += 4 * (size_t)pp_get32(p + PP_FRAME_HEAD + PP_BLOB_NDEPS);
    return used < need ? 0 : blob(f, w, p, len);
  case PP_F_MODULE:
    need += PP_MOD_HEAD;
    if (used < need)
      return 0;
    if (!pp_depot_keeps_module(p + PP_FRAME_HEAD, len))
      break;
    need += (size_t)pp_get32(p + PP_FRAME_HEAD + PP_MOD_NAME);
    return used < need ? 0 : module(f, w, p, need, len);
  case PP_F_DROP:
    need += 4;
    if (used < need)
      return 0;
    pp_shelf_drop(&f->depot, &w->shelf, pp_get32(p + PP_FRAME_HEAD));
    break;
  case PP_F_JOB:
    need += 4;
    if (used < need)
      return 0;
    w->sent = pp_get32(p + PP_FRAME_HEAD);
    break;
  default:
    break;
  }
  bytes(f, w, p, need);
  w->left = PP_FRAME_HEAD + len - need;
  return need;
}

/* More of a frame. */
static size_t go_on(pp_far *f, pp_flane *w, const unsigned char *p,
                    size_t used) {
  size_t n = w->left < used ? (size_t)w->left : used;

  if (!w->swallow) {
    if (n > PP_RELAY_MAX / 2)
      n = PP_RELAY_MAX / 2;
    bytes(f, w, p, n);
  }
  if (w->filling != NULL)
    w->filling->got += n;
  w->left -= n;
  if (w->left == 0) {
    w->swallow = false;
    if (w->filling != NULL)
      pp_stock_leave(&f->depot, w->filling);
    w->filling = NULL;
  }
  return n;
}

/* Send some of what is in a lane; true if it may have more to send now. */
static bool pull(pp_far *f, pp_flane *w) {
  pp_link *l = w->link;
  pp_ring *in;
  size_t moved = 0;

  if (l == NULL || l->dead)
    return false;
  in = &l->map.lane->in;
  while (moved < PP_RELAY_MAX) {
    size_t used = pp_ring_used(in), n;
    const unsigned char *p = pp_ring_start(in, l->map.in);

    if (used == SIZE_MAX || used == 0 || w->credit < 2 * PP_RELAY_MAX)
      break;
    n = w->left > 0 ? go_on(f, w, p, used) : begin(f, w, p, used);
    if (n == SIZE_MAX) {
      broken(f, "not enough memory");
      return false;
    }
    if (n == 0)
      break;
    pp_ring_consume(in, n);
    moved += n;
  }
  if (atomic_exchange(&l->map.lane->tx_blocked, 0) && pp_link_push(l))
    pp_sched_room(&l->place);
  return moved > 0;
}

/* Send what there is, as far as the stream takes it, each lane in turn. */
static void send_all(pp_far *f) {
  pp_flane *stuck = NULL, **stuck_end = &stuck;
  bool progress = true;

  while (progress && !f->over) {
    progress = false;
    while (f->dirty != NULL) {
      pp_flane *w = f->dirty;

      if (f->tx.len + f->ops.queued(f->ops.ud) >= QUEUE_MOST)
        goto out;
      f->dirty = w->next;
      if (f->dirty == NULL)
        f->dirty_end = &f->dirty;
      w->dirty = false;
      if (pull(f, w)) {
        mark(f, w);
        progress = true;
      } else if (w->link != NULL && !w->link->dead &&
                 pp_ring_used(&w->link->map.lane->in) >= PP_FRAME_HEAD) {
        w->dirty = true; /* credit, or another lane's blob */
        w->next = NULL;
        *stuck_end = w;
        stuck_end = &w->next;
      }
    }
    if (progress && stuck != NULL) { /* a blob may be whole now */
      *f->dirty_end = stuck;
      f->dirty_end = stuck_end;
      stuck = NULL;
      stuck_end = &stuck;
    }
  }
out:
  if (stuck != NULL) {
    *f->dirty_end = stuck;
    f->dirty_end = stuck_end;
  }
  post(f);
}

void pp_far_flush(pp_engine *e) {
  for (pp_far *f = e->fars; f != NULL; f = f->next)
    if (f->dirty != NULL || f->tx.len > 0)
      send_all(f);
}

void pp_far_room(pp_far *f) { send_all(f); }

/* --- for links ------------------------------------------------------------ */

int pp_far_start(pp_link *l) {
  pp_far *f = l->node->far;
  pp_flane *w;

  if (l->lane >= f->nlanes) {
    uint32_t n = l->lane + l->lane / 2 + 8;
    pp_flane **v = realloc(f->lanes, n * sizeof(pp_flane *));

    if (v == NULL)
      return PP_ENOMEM;
    memset(v + f->nlanes, 0, (n - f->nlanes) * sizeof(pp_flane *));
    f->lanes = v;
    f->nlanes = n;
  }
  w = calloc(1, sizeof *w);
  if (w == NULL)
    return PP_ENOMEM;
  w->owner = f;
  w->link = l;
  w->index = l->lane;
  w->credit = PP_RELAY_CREDIT;
  f->lanes[l->lane] = w;
  l->far = w;
  say32(f, PP_R_START, l->lane, l->number);
  return 0;
}

void pp_far_kill(pp_link *l, int signal) {
  if (signal == SIGKILL && l->far->kill_by == 0)
    l->far->kill_by = pp_now_ns() + PP_FAR_SILENCE_NS;
  say32(l->far->owner, PP_R_KILL, l->lane, (uint32_t)signal);
}

void pp_far_stop(pp_link *l, uint32_t seq, int kind) {
  unsigned char p[8];

  pp_put32(p, seq);
  pp_put32(p + 4, (uint32_t)kind);
  say(l->far->owner, PP_R_STOP, l->lane, p, sizeof p);
}

void pp_far_ask(pp_link *l, uint32_t seq) {
  if (l->far != NULL)
    say32(l->far->owner, PP_R_RECALL, l->lane, seq);
}

void pp_far_cut(pp_link *l, uint32_t seq, uint32_t items) {
  unsigned char p[8];

  pp_put32(p, seq);
  pp_put32(p + 4, items);
  say(l->far->owner, PP_R_CUT, l->lane, p, sizeof p);
}

/* The agent's side of a lane is free, and what it held there. */
static void release(pp_far *f, pp_flane *w) {
  pp_flane **p = &f->dirty;

  while (*p != NULL && *p != w)
    p = &(*p)->next;
  if (*p == w) {
    *p = w->next;
    if (w->next == NULL)
      f->dirty_end = p;
  }
  if (w->filling != NULL) { /* the rest of it will not go */
    pp_depot_strike(&f->depot, w->filling);
    pp_stock_leave(&f->depot, w->filling);
  }
  pp_shelf_clear(&f->depot, &w->shelf);
  f->lanes[w->index] = NULL;
  if (w->link != NULL)
    w->link->far = NULL;
  free(w);
}

void pp_far_forget(pp_link *l) {
  if (l->far != NULL)
    l->far->link = NULL;
  l->far = NULL;
}

/* --- receiving ------------------------------------------------------------ */

/* A text behind its length, borrowed and ended; NULL if there is none. */
static const char *text(pp_rd *rd, char *out, size_t size) {
  const unsigned char *p;
  uint32_t n;

  if (pp_rd_left(rd) < 4)
    return NULL;
  n = pp_get32(rd->p);
  rd->p += 4;
  if (n >= size || pp_rd_bytes(rd, n, &p) != 0)
    return NULL;
  memcpy(out, p, n);
  out[n] = '\0';
  return out;
}

static bool welcome(pp_far *f, const unsigned char *p, size_t n, int64_t now) {
  char build[80], machine[80];
  pp_rd rd = pp_rd_of(p, n);

  if (f->up || n < 12 || pp_get64(p) != PP_RELAY_MAGIC)
    return false;
  if (pp_get32(p + 8) != PP_RELAY_VERSION) {
    char why[100];

    snprintf(why, sizeof why,
             "wrong version: it speaks version %u of the protocol, not %u",
             pp_get32(p + 8), PP_RELAY_VERSION);
    broken(f, why);
    return true;
  }
  if (n < 28)
    return false;
  rd.p += 28;
  if (text(&rd, build, sizeof build) == NULL ||
      text(&rd, machine, sizeof machine) == NULL || pp_rd_left(&rd) > 0)
    return false;
  f->rtt = now - f->pinged;
  f->skew = (int64_t)pp_get64(p + 16) - (now - f->rtt / 2);
  f->up = true;
  f->press.able = (pp_get32(p + 24) & PP_RELAY_OPENS) && pp_press_able();
  return f->ops.welcome(f->ops.ud, pp_get32(p + 12), build, machine);
}

static bool pong(pp_far *f, const unsigned char *p, size_t n, int64_t now) {
  int64_t sent, rtt;

  if (n != 16)
    return false;
  sent = (int64_t)pp_get64(p);
  if (sent > now || sent < f->pinged - 60 * PP_FAR_PING_NS)
    return false;
  rtt = now - sent;
  if (rtt <= f->rtt) {
    f->rtt = rtt;
    f->skew = (int64_t)pp_get64(p + 8) - (now - rtt / 2);
  } else {
    f->rtt += (rtt - f->rtt) / 16;
  }
  return true;
}

static bool result_bytes(pp_link *l, const unsigned char *p, size_t n) {
  pp_ring *out = &l->map.lane->out;

  if (l->broken)
    return true; /* its worker is being ended */
  if (pp_ring_room(out) < n)
    return false; /* it cannot be: a link takes all but a piece of a frame */
  memcpy(pp_ring_end(out, l->map.out), p, n);
  pp_ring_publish(out, n);
  pp_link_drain(l);
  return true;
}

/* It wrote to stdout or stderr. */
static bool output(pp_link *l, const unsigned char *p, size_t n) {
  pp_outlet *o;

  if (n < 1 || p[0] > 1)
    return false;
  o = &l->outlet[p[0]];
  if (o->read - o->settled > OUTPUT_MOST)
    return false;
  if (pp_buf_put(&o->text, p + 1, n - 1) != 0)
    return false;
  o->read += n - 1;
  return true;
}

static bool settled(pp_link *l) {
  for (int k = 0; k < 2; k++)
    l->outlet[k].settled = l->outlet[k].read;
  pp_link_drain(l);
  return true;
}

/* A job of its is known to have been begun. */
static bool taken(pp_far *f, pp_link *l, const unsigned char *p, size_t n,
                  int64_t now) {
  uint32_t seq, want;
  uint64_t ago;

  if (n != 16)
    return false;
  seq = pp_get32(p);
  ago = pp_get64(p + 8);
  want = seq << 2 | PP_CLAIM_SENT;
  if (ago > (uint64_t)now)
    ago = (uint64_t)now;
  if (atomic_compare_exchange_strong(pp_link_claim(l, seq), &want,
                                     seq << 2 | PP_CLAIM_TAKEN))
    atomic_store(&l->map.lane->begun, now - f->rtt / 2 - (int64_t)ago);
  pp_link_begun(l, seq);
  return true;
}

/* One was asked back, or was to be stopped and had not begun. */
static bool recalled(pp_link *l, const unsigned char *p, size_t n) {
  pp_job *j;
  uint32_t seq, want;

  if (n != 8)
    return false;
  seq = pp_get32(p);
  for (j = l->place.jobs.tail; j != NULL && j->seq != seq;)
    j = j->prev;
  if (j == NULL)
    return true; /* it has ended */
  if (pp_get32(p + 4) == 0) {
    if (j->flags & PP_JOB_ASKED)
      pp_sched_answered(&l->place, j, false);
    return true;
  }
  want = seq << 2 | PP_CLAIM_SENT;
  if (l->rx == j || pp_kin_child(j) != NULL ||
      !atomic_compare_exchange_strong(pp_link_claim(l, seq), &want,
                                      seq << 2 | PP_CLAIM_RECALLED))
    return false; /* it has shown itself to have begun */
  if (j->flags & PP_JOB_GHOST) {
    pp_sched_ended(&l->place, j);
    pp_job_unref(j, &l->engine->blobs);
    pp_link_stopped(l);
    return true;
  }
  if (!(j->flags & PP_JOB_ASKED))
    return false;
  pp_sched_answered(&l->place, j, true);
  if (j->state == PP_JOB_QUEUED)
    pp_server_hopeless(l->server); /* its node may be leaving */
  return true;
}

/* The answer to CUT. */
static bool kept(pp_link *l, const unsigned char *p, size_t n) {
  pp_job *j;

  if (n != 8)
    return false;
  for (j = l->place.jobs.tail; j != NULL && j->seq != pp_get32(p);)
    j = j->prev;
  if (j == NULL || j->flags & PP_JOB_GHOST || pp_get32(p + 4) == 0)
    return true;
  if (pp_get32(p + 4) > j->items)
    return false;
  pp_server_kept(l->server, j, pp_get32(p + 4));
  return true;
}

static void gone(pp_far *f, pp_flane *w, int status, int why, uint64_t rss) {
  if (w->link != NULL)
    pp_link_died(w->link, status, why, rss);
  say(f, PP_R_FREE, w->index, NULL, 0);
  release(f, w);
}

static bool message(pp_far *f, int type, uint32_t lane, const unsigned char *p,
                    uint32_t n, int64_t now);

/* A run of whole messages that were packed. */
static bool packed(pp_far *f, const unsigned char *p, uint32_t n, int64_t now) {
  const unsigned char *at, *end;
  size_t len;

  if (!f->up || !pp_press_open(&f->press, p, n, &at, &len))
    return false;
  for (end = at + len; at < end && !f->over;) {
    uint32_t head = pp_get32(at), size = pp_get32(at + 4);

    if (!message(f, (int)(head & 0xff), head >> 8, at + PP_RELAY_HEAD, size,
                 now))
      return false;
    at += PP_RELAY_HEAD + size;
  }
  return true;
}

static bool probe(pp_far *f, int type, const unsigned char *p, uint32_t n,
                  int64_t now) {
  if (!f->up || n != 8)
    return false;
  if (type == PP_R_ECHO)
    return pp_gauge_back(&f->press.gauge, pp_get64(p), now);
  if (f->ops.queued(f->ops.ud) > 16 * QUEUE_MOST)
    return false; /* it asks for more than it reads */
  say(f, PP_R_ECHO, 0, p, n);
  post(f);
  return true;
}

/* A message; false if it makes no sense. */
static bool message(pp_far *f, int type, uint32_t lane, const unsigned char *p,
                    uint32_t n, int64_t now) {
  pp_flane *w = lane < f->nlanes ? f->lanes[lane] : NULL;
  pp_link *l;

  if (type == PP_R_WELCOME)
    return welcome(f, p, n, now);
  if (type == PP_R_PONG)
    return pong(f, p, n, now);
  if (type == PP_R_ALIVE)
    return n == 0;
  if (type == PP_R_PACKED)
    return packed(f, p, n, now);
  if (type == PP_R_PROBE || type == PP_R_ECHO)
    return probe(f, type, p, n, now);
  if (!f->up || w == NULL)
    return false;
  l = w->link;
  switch (type) {
  case PP_R_EXITED:
    if (n != 16)
      return false;
    gone(f, w, (int)pp_get32(p), 0, pp_get64(p + 8));
    return true;
  case PP_R_FAILED:
    if (n != 4)
      return false;
    gone(f, w, -1, (int)(pp_get32(p) & 0xfff), 0);
    return true;
  case PP_R_CREDIT:
    if (n != 4 || pp_get32(p) > PP_RELAY_CREDIT - w->credit)
      return false;
    w->credit += pp_get32(p);
    return true;
  default:
    break;
  }
  if (l == NULL || l->dead || l->server == NULL || l->server->closed)
    return true; /* nobody cares any more */
  switch (type) {
  case PP_R_STARTED:
    if (n != 4)
      return false;
    l->pid = (int)(pp_get32(p) & INT32_MAX);
    l->node->refusals = 0;
    l->node->stuck_since = 0;
    return true;
  case PP_R_BYTES:
    return result_bytes(l, p, n);
  case PP_R_OUTPUT:
    return output(l, p, n);
  case PP_R_SETTLED:
    return settled(l);
  case PP_R_TAKEN:
    return taken(f, l, p, n, now);
  case PP_R_RECALLED:
    return recalled(l, p, n);
  case PP_R_KEPT:
    return kept(l, p, n);
  default:
    return false;
  }
}

void pp_far_data(pp_far *f, const unsigned char *p, size_t n) {
  int64_t now = pp_now_ns();
  const unsigned char *at = p, *end = p + n;

  if (f->over)
    return;
  f->heard = now;
  if (f->rx.len > 0) { /* a message that came in pieces */
    if (pp_buf_put(&f->rx, p, n) != 0) {
      broken(f, "not enough memory");
      return;
    }
    at = f->rx.data;
    end = at + f->rx.len;
  }
  while (end - at >= (ptrdiff_t)PP_RELAY_HEAD && !f->over) {
    uint32_t head = pp_get32(at), len = pp_get32(at + 4);

    if (len > PP_RELAY_MAX) {
      broken(f, "it sent a message too long");
      return;
    }
    if ((size_t)(end - at) < PP_RELAY_HEAD + len)
      break;
    if (!message(f, (int)(head & 0xff), head >> 8, at + PP_RELAY_HEAD, len,
                 now)) {
      broken(f, "it sent a message that makes no sense");
      return;
    }
    at += PP_RELAY_HEAD + len;
  }
  if (f->rx.len > 0) {
    f->rx.len = (size_t)(end - at);
    memmove(f->rx.data, at, f->rx.len);
  } else if (at < end && pp_buf_put(&f->rx, at, (size_t)(end - at)) != 0) {
    broken(f, "not enough memory");
  }
}

/* --- life ----------------------------------------------------------------- */

pp_far *pp_far_new(pp_engine *e, const char *name, const pp_far_ops *ops) {
  pp_far *f = calloc(1, sizeof *f);

  if (f == NULL)
    return NULL;
  f->engine = e;
  f->ops = *ops;
  f->name = name;
  f->dirty_end = &f->dirty;
  f->next = e->fars;
  e->fars = f;
  return f;
}

void pp_far_free(pp_far *f) {
  pp_far **p = &f->engine->fars;

  while (*p != f)
    p = &(*p)->next;
  *p = f->next;
  pp_buf_clear(&f->rx);
  pp_buf_clear(&f->tx);
  pp_press_clear(&f->press);
  free(f->lanes);
  pp_depot_clear(&f->depot);
  free(f);
}

void pp_far_begin(pp_far *f, int64_t now) {
  unsigned char p[20];
  size_t len = strlen(f->name);
  pp_buf b = {0};

  pp_put64(p, PP_RELAY_MAGIC);
  pp_put32(p + 8, PP_RELAY_VERSION);
  pp_put32(p + 12, (uint32_t)(PP_FAR_SILENCE_NS / 1000000));
  pp_put32(p + 16, pp_press_able() ? PP_RELAY_OPENS : 0);
  if (pp_buf_put(&b, p, sizeof p) == 0 && pp_buf_put(&b, f->name, len) == 0)
    say(f, PP_R_HELLO, 0, b.data, b.len);
  pp_buf_clear(&b);
  f->heard = f->pinged = now;
  post(f);
}

/* Jobs that went there may have been begun, for all that is known. */
static void suspect(pp_flane *w) {
  pp_link *l = w->link;

  for (pp_job *j = l->place.jobs.head; j != NULL; j = j->next) {
    uint32_t want = j->seq << 2 | PP_CLAIM_SENT;

    if ((int32_t)(w->sent - j->seq) >= 0 &&
        atomic_compare_exchange_strong(pp_link_claim(l, j->seq), &want,
                                       j->seq << 2 | PP_CLAIM_TAKEN))
      atomic_store(&l->map.lane->begun, pp_now_ns());
  }
}

void pp_far_lost(pp_far *f, const char *why) {
  f->over = true;
  f->up = false;
  f->why = why;
  for (uint32_t i = 0; i < f->nlanes; i++) {
    pp_flane *w = f->lanes[i];

    if (w == NULL)
      continue;
    if (w->link != NULL && !w->link->dead) {
      suspect(w);
      pp_link_died(w->link, -2, 0, 0);
    }
    release(f, w);
  }
  f->why = NULL;
  pp_depot_clear(&f->depot);
  f->rx.len = f->tx.len = f->open = 0;
}

void pp_far_bye(pp_far *f) {
  say(f, PP_R_BYE, 0, NULL, 0);
  post(f);
}

/* Does it do as it is told? */
static bool obeys(const pp_far *f, int64_t now) {
  for (uint32_t i = 0; i < f->nlanes; i++)
    if (f->lanes[i] != NULL && f->lanes[i]->kill_by > 0 &&
        f->lanes[i]->kill_by <= now)
      return false;
  return true;
}

int64_t pp_far_tick(pp_far *f, int64_t now) {
  unsigned char p[8];

  if (f->over)
    return -1;
  if (!obeys(f, now)) {
    broken(f, "a worker that was killed has not ended for 8 seconds");
    return -1;
  }
  if (now - f->heard >= PP_FAR_SILENCE_NS) {
    broken(f, "nothing was heard from it for 8 seconds");
    return -1;
  }
  if (f->up && now - f->pinged >= PP_FAR_PING_NS) {
    f->pinged = now;
    pp_put64(p, (uint64_t)now);
    say(f, PP_R_PING, 0, p, sizeof p);
    post(f);
  }
  return f->up ? f->pinged + PP_FAR_PING_NS : f->heard + PP_FAR_SILENCE_NS;
}
