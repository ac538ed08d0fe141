/* SPDX-License-Identifier: MIT */
/* What the agent is told: messages, and what links have put in their rings. */
#include <signal.h>
#include <stdlib.h>

#include "far_impl.h"
#include "link_impl.h"

/* Bytes that are not gathered with others. */
#define LARGE (16u << 10)
/* So often what has been gathered goes before others have a turn. */
#define POSTS 8u

/* --- sending -------------------------------------------------------------- */

void pp_far_broken(pp_far *f, const char *why) {
  if (f->over)
    return;
  f->over = true;
  f->ops.broken(f->ops.ud, why);
}

void pp_far_post(pp_far *f) {
  if (f->tx.len > 0 && !f->over)
    pp_press_pass(&f->press, f->tx.data, f->tx.len, f->ops.write, f->ops.ud);
  f->tx.len = f->open = 0;
}

void pp_far_say(pp_far *f, int type, uint32_t lane, const void *p, size_t n) {
  unsigned char head[PP_RELAY_HEAD];

  if (f->over)
    return;
  pp_relay_head(head, type, lane, (uint32_t)n);
  if (pp_buf_reserve(&f->tx, sizeof head + n) != 0) {
    pp_far_broken(f, "not enough memory");
    return;
  }
  pp_buf_put(&f->tx, head, sizeof head);
  pp_buf_put(&f->tx, p, n);
  f->open = 0;
}

static void say32(pp_far *f, int type, uint32_t lane, uint32_t a) {
  unsigned char p[4];

  pp_put32(p, a);
  pp_far_say(f, type, lane, p, sizeof p);
}

/* A large BYTES, as it is: on without a copy in between. */
static void pass_on(pp_far *f, uint32_t lane, const void *p, size_t n) {
  unsigned char head[PP_RELAY_HEAD];

  pp_far_post(f);
  if (f->over)
    return;
  pp_relay_head(head, PP_R_BYTES, lane, (uint32_t)n);
  f->ops.write(f->ops.ud, head, sizeof head);
  f->ops.write(f->ops.ud, p, n);
  pp_press_passed(&f->press, sizeof head + n, f->ops.write, f->ops.ud);
}

/* Bytes for a lane, in the BYTES that is open if that is the lane's. */
static void bytes(pp_far *f, pp_flane *w, const void *p, size_t n) {
  w->credit -= n;
  if (n >= LARGE && !pp_press_pays(&f->press)) {
    pass_on(f, w->index, p, n);
    return;
  }
  if (f->open > 0) {
    unsigned char *head = f->tx.data + f->open - 1;
    uint32_t len = pp_get32(head + 4);

    if (pp_get32(head) >> 8 == w->index && len + n <= PP_RELAY_MAX &&
        pp_buf_put(&f->tx, p, n) == 0) {
      pp_put32(f->tx.data + f->open - 1 + 4, len + (uint32_t)n);
      return;
    }
  }
  pp_far_say(f, PP_R_BYTES, w->index, p, n);
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
  size_t moved = 0, most = pp_press_turn(&f->press);

  if (l == NULL || l->dead)
    return false;
  in = &l->map.lane->in;
  while (moved < most) {
    size_t used = pp_ring_used(in), n;
    const unsigned char *p = pp_ring_start(in, l->map.in);

    if (used == SIZE_MAX || used == 0 || w->credit < 2 * PP_RELAY_MAX)
      break;
    n = w->left > 0 ? go_on(f, w, p, used) : begin(f, w, p, used);
    if (n == SIZE_MAX) {
      pp_far_broken(f, "not enough memory");
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

/* Would what goes now only wait? */
static bool waits(const pp_far *f) {
  return f->tx.len + f->ops.queued(f->ops.ud) >= PP_FAR_QUEUE_MOST ||
         pp_press_full(&f->press, f->tx.len);
}

/* Send what there is, as far as the stream takes it, each lane in turn. True
 * if that would have been more: what shrinks much costs time, not room. */
static bool send_all(pp_far *f) {
  pp_flane *stuck = NULL, **stuck_end = &stuck;
  bool progress = true, again = false;
  unsigned posts = 0;

  while (progress && !f->over) {
    progress = false;
    while (f->dirty != NULL) {
      pp_flane *w = f->dirty;

      if (waits(f)) {
        pp_far_post(f); /* it may have shrunk */
        again = !waits(f);
        if (!again || ++posts == POSTS)
          goto out;
        again = false;
      }
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
  pp_far_post(f);
  return again && !f->over;
}

bool pp_far_flush(pp_engine *e) {
  bool again = false;

  for (pp_far *f = e->fars; f != NULL; f = f->next)
    if (f->dirty != NULL || f->tx.len > 0)
      again = send_all(f) || again;
  return again;
}

void pp_far_room(pp_far *f) { (void)send_all(f); }

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
  pp_far_say(l->far->owner, PP_R_STOP, l->lane, p, sizeof p);
}

void pp_far_ask(pp_link *l, uint32_t seq) {
  if (l->far != NULL)
    say32(l->far->owner, PP_R_RECALL, l->lane, seq);
}

void pp_far_cut(pp_link *l, uint32_t seq, uint32_t items) {
  unsigned char p[8];

  pp_put32(p, seq);
  pp_put32(p + 4, items);
  pp_far_say(l->far->owner, PP_R_CUT, l->lane, p, sizeof p);
}

void pp_far_release(pp_far *f, pp_flane *w) {
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
