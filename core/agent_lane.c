/* SPDX-License-Identifier: MIT */
#include "agent_lane.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

/* More than a pipe holds: one look empties it. */
#define PIPE_MOST (1u << 20)

/* --- life ----------------------------------------------------------------- */

pp_alane *pp_alane_open(pp_agent *a, uint32_t index) {
  pp_alane *l;

  if (index >= a->nlanes) {
    uint32_t n = index + index / 2 + 8;
    pp_alane **v = realloc(a->lanes, n * sizeof(pp_alane *));

    if (v == NULL)
      return NULL;
    memset(v + a->nlanes, 0, (n - a->nlanes) * sizeof(pp_alane *));
    a->lanes = v;
    a->nlanes = n;
  }
  l = calloc(1, sizeof *l);
  if (l == NULL)
    return NULL;
  l->index = index;
  l->fd[0] = l->fd[1] = -1;
  if (pp_shm_grow(a->shm, index) != 0 ||
      pp_lane_map(a->shm, index, &l->map) != 0) {
    free(l);
    return NULL;
  }
  a->lanes[index] = l;
  return l;
}

void pp_alane_close_pipes(pp_agent *a, pp_alane *l) {
  (void)a;
  for (int k = 0; k < 2; k++)
    if (l->fd[k] >= 0) {
      close(l->fd[k]); /* which takes it out of the poll */
      l->fd[k] = -1;
    }
}

static void unqueue(pp_agent *a, pp_alane *l) {
  for (size_t i = l->first_span; i < l->nspans; i++)
    if (l->spans[i].stock != NULL)
      pp_stock_leave(&a->depot, l->spans[i].stock);
  l->nspans = l->first_span = 0;
  l->queue.len = l->queue_at = 0;
}

void pp_alane_close(pp_agent *a, pp_alane *l) {
  pp_alane **p = &a->looked;

  while (*p != NULL && *p != l)
    p = &(*p)->next_look;
  if (*p == l)
    *p = l->next_look;
  unqueue(a, l);
  if (l->filling != NULL) { /* the rest of it will not come */
    pp_depot_strike(&a->depot, l->filling);
    pp_stock_leave(&a->depot, l->filling);
  }
  pp_shelf_clear(&a->depot, &l->shelf);
  a->lanes[l->index] = NULL;
  pp_lane_unmap(&l->map);
  pp_lane_reset(a->shm, l->index);
  pp_buf_clear(&l->queue);
  free(l->spans);
  free(l);
}

/* --- to the worker -------------------------------------------------------- */

/* The last span, if more of our own bytes can follow there; a new one else. */
static pp_span *last_span(pp_alane *l) {
  if (l->nspans > l->first_span && l->spans[l->nspans - 1].stock == NULL)
    return &l->spans[l->nspans - 1];
  if (l->nspans == l->cap_spans) {
    size_t cap = l->cap_spans ? l->cap_spans * 2 : 8;
    pp_span *v = realloc(l->spans, cap * sizeof *v);

    if (v == NULL)
      return NULL;
    l->spans = v;
    l->cap_spans = cap;
  }
  l->spans[l->nspans] = (pp_span){0};
  return &l->spans[l->nspans++];
}

static void credit(pp_agent *a, pp_alane *l, size_t n) {
  unsigned char p[4];

  l->credit += (uint32_t)n;
  if (l->credit < PP_RELAY_CREDIT / 8)
    return; /* not worth a message: most of the window is left */
  pp_put32(p, l->credit);
  pp_agent_say(a, PP_R_CREDIT, l->index, p, sizeof p);
  l->credit = 0;
}

/* Add bytes, or what is in stock, to what waits. False without memory. */
static bool queue(pp_alane *l, const void *p, size_t n) {
  pp_span *s;

  if (!l->runs)
    return true;
  s = last_span(l);
  if (s == NULL || pp_buf_put(&l->queue, p, n) != 0)
    return false;
  s->own += n;
  return true;
}

/* The same, but into the ring what there is room for at once. */
static bool pass(pp_agent *a, pp_alane *l, const unsigned char *p, size_t n) {
  pp_ring *in = &l->map.lane->in;
  size_t room = l->runs && l->first_span == l->nspans ? pp_ring_room(in) : 0;
  size_t k = n < room ? n : room;

  if (k > 0) {
    memcpy(pp_ring_end(in, l->map.in), p, k);
    pp_ring_publish(in, k);
    l->wrote = true;
    credit(a, l, k);
  }
  return k == n || queue(l, p + k, n - k);
}

static bool queue_stock(pp_alane *l, pp_stock *t) {
  pp_span *s;

  if (!l->runs)
    return true;
  s = last_span(l);
  if (s == NULL)
    return false;
  s->stock = t;
  t->users++;
  return true;
}

/* What comes next in the first span. */
static size_t next_bytes(const pp_alane *l, const unsigned char **p) {
  const pp_span *s = &l->spans[l->first_span];

  if (s->own > 0) {
    *p = l->queue.data + l->queue_at;
    return s->own;
  }
  if (s->stock == NULL)
    return 0;
  *p = s->stock->bytes.data + s->at;
  return s->stock->bytes.len - s->at;
}

static void push(pp_agent *a, pp_alane *l) {
  pp_lane *lane = l->map.lane;
  pp_ring *in = &lane->in;
  size_t own = 0;
  bool wrote = l->wrote;

  l->wrote = false;
  while (l->runs && l->first_span < l->nspans) {
    pp_span *s = &l->spans[l->first_span];
    const unsigned char *p = NULL;
    size_t n = next_bytes(l, &p), room = pp_ring_room(in);

    if (n == 0) {
      if (s->stock != NULL && s->at < s->stock->len)
        break; /* the rest is still to come */
      if (s->stock != NULL)
        pp_stock_leave(&a->depot, s->stock);
      l->first_span++;
      continue;
    }
    if (room == 0) {
      if (wrote)
        pp_lane_wake(lane, PP_WANTS_INPUT);
      wrote = false;
      atomic_store(&lane->tx_blocked, 1);
      if (pp_ring_room(in) == 0)
        break;
      atomic_store(&lane->tx_blocked, 0);
      continue;
    }
    if (n > room)
      n = room;
    memcpy(pp_ring_end(in, l->map.in), p, n);
    pp_ring_publish(in, n);
    wrote = true;
    if (s->own > 0) {
      s->own -= n;
      l->queue_at += n;
      own += n;
    } else {
      s->at += n;
    }
  }
  if (wrote) {
    bool all = l->first_span == l->nspans;

    /* For a part of a frame it need not wake up, until that is a good one. */
    l->wrote = all && !l->whole && pp_ring_room(in) >= PP_RING / 2;
    if (!l->wrote)
      pp_lane_wake(lane, PP_WANTS_INPUT);
    l->whole = l->whole && !all;
  }
  if (l->first_span == l->nspans) {
    l->first_span = l->nspans = 0;
    l->queue.len = l->queue_at = 0;
  } else if (l->queue_at > PP_RELAY_CREDIT / 2) {
    l->queue.len -= l->queue_at;
    memmove(l->queue.data, l->queue.data + l->queue_at, l->queue.len);
    l->queue_at = 0;
    l->nspans -= l->first_span;
    memmove(l->spans, l->spans + l->first_span, l->nspans * sizeof *l->spans);
    l->first_span = 0;
  }
  if (own > 0)
    credit(a, l, own);
}

/* --- frames, as they come ------------------------------------------------- */

static void look_soon(pp_agent *a, pp_alane *l) {
  l->looks = 0;
  if (l->looking)
    return;
  l->looking = true;
  l->next_look = a->looked;
  a->looked = l;
}

/* How much of a frame's head is to be seen, by what of it is here; 0 if it
 * makes no sense. */
static size_t head_size(const pp_alane *l) {
  uint64_t head = pp_get64(l->head), len = head >> 8;
  size_t least;

  switch ((int)(head & 0xff)) {
  case PP_F_JOB:
  case PP_F_DROP:
    return len < 4 ? 0 : PP_FRAME_HEAD + 4;
  case PP_F_BLOB:
  case PP_F_AGAIN:
    least = PP_FRAME_HEAD + PP_BLOB_HEAD;
    if (len < PP_BLOB_HEAD)
      return 0;
    if (l->nhead < least)
      return least;
    if ((head & 0xff) == PP_F_BLOB &&
        !pp_depot_keeps(l->head + PP_FRAME_HEAD, len))
      return least;
    least += 4 * (size_t)pp_get32(l->head + PP_FRAME_HEAD + PP_BLOB_NDEPS);
    return least > sizeof l->head ? 0 : least;
  case PP_F_MODULE:
  case PP_F_RETOLD:
    least = PP_FRAME_HEAD + PP_MOD_HEAD;
    if (len < PP_MOD_HEAD)
      return 0;
    if (l->nhead < least)
      return least;
    if ((head & 0xff) == PP_F_MODULE &&
        !pp_depot_keeps_module(l->head + PP_FRAME_HEAD, len))
      return least;
    least += (size_t)pp_get32(l->head + PP_FRAME_HEAD + PP_MOD_NAME);
    return least > sizeof l->head ? 0 : least;
  default:
    return PP_FRAME_HEAD;
  }
}

/* What is to come of a frame goes into the depot. NULL if it is there, and
 * without memory. */
static pp_stock *fill(pp_agent *a, pp_alane *l, uint32_t kind,
                      const unsigned char *hash) {
  pp_stock *t = NULL;

  if (pp_depot_find(&a->depot, kind, hash) == NULL)
    t = pp_depot_add(&a->depot, kind, hash, l->left);
  if (t != NULL)
    t->users++;
  l->filling = t;
  return t;
}

/* The same from the depot, of a frame that has its head only; it becomes one of
 * that type. NULL if it is not there. */
static pp_stock *serve(const pp_agent *a, pp_alane *l, uint32_t kind,
                       const unsigned char *hash, int type, uint64_t len) {
  pp_stock *t = pp_depot_find(&a->depot, kind, hash);

  if (t == NULL || t->got < t->len || l->left > 0)
    return NULL;
  pp_frame_head(l->head, type, len + t->len);
  return t;
}

static bool blob(pp_agent *a, pp_alane *l, uint64_t len, bool again) {
  const unsigned char *p = l->head + PP_FRAME_HEAD, *hash = p + PP_BLOB_HASH;
  uint32_t kind = pp_get32(p + PP_BLOB_KIND);
  pp_stock *t;

  if (!again && !pp_depot_keeps(p, len))
    return queue(l, l->head, l->nhead);
  t = again ? serve(a, l, kind, hash, PP_F_BLOB, len) : fill(a, l, kind, hash);
  return t != NULL &&
         pp_shelf_put(&a->depot, &l->shelf, pp_get32(p + PP_BLOB_ID), t) == 0 &&
         queue(l, l->head, l->nhead) && queue_stock(l, t);
}

static bool module(pp_agent *a, pp_alane *l, uint64_t len, bool again) {
  const unsigned char *p = l->head + PP_FRAME_HEAD, *hash = p + PP_MOD_HASH;
  pp_stock *t;

  if (!again && !pp_depot_keeps_module(p, len))
    return queue(l, l->head, l->nhead);
  t = again ? serve(a, l, PP_DEPOT_MODULE, hash, PP_F_MODULE, len)
            : fill(a, l, PP_DEPOT_MODULE, hash);
  if (t == NULL || !queue(l, l->head, l->nhead) || !queue_stock(l, t))
    return false;
  pp_depot_keep(&a->depot, t);
  return true;
}

/* Was a job recalled before it came? */
static bool early(pp_alane *l, uint32_t seq) {
  uint64_t *word = &l->early[seq % PP_WINDOW / 64];
  uint64_t bit = (uint64_t)1 << seq % 64;
  bool was = (*word & bit) != 0;

  *word &= ~bit;
  return was;
}

/* The head of a frame is here. */
static bool begin(pp_agent *a, pp_alane *l) {
  uint64_t head = pp_get64(l->head), len = head >> 8;
  uint32_t v =
      l->nhead >= PP_FRAME_HEAD + 4 ? pp_get32(l->head + PP_FRAME_HEAD) : 0;

  l->left = len - (l->nhead - PP_FRAME_HEAD);
  switch ((int)(head & 0xff)) {
  case PP_F_BLOB:
  case PP_F_AGAIN:
    return blob(a, l, len, (head & 0xff) == PP_F_AGAIN);
  case PP_F_MODULE:
  case PP_F_RETOLD:
    return module(a, l, len, (head & 0xff) == PP_F_RETOLD);
  case PP_F_DROP:
    pp_shelf_drop(&a->depot, &l->shelf, v);
    break;
  case PP_F_JOB:
    atomic_store(&l->map.lane->claim[v % PP_WINDOW],
                 v << 2 | (early(l, v) ? PP_CLAIM_RECALLED : PP_CLAIM_SENT));
    l->sent = v;
    look_soon(a, l);
    break;
  default:
    break;
  }
  return queue(l, l->head, l->nhead);
}

/* More of the frame that is coming. */
static bool body(pp_agent *a, pp_alane *l, const unsigned char *p, size_t n) {
  pp_stock *t = l->filling;

  l->left -= n;
  if (t == NULL)
    return pass(a, l, p, n);
  if (pp_buf_put(&t->bytes, p, n) != 0)
    return false;
  t->got += n;
  credit(a, l, n); /* it is kept in any case */
  if (l->left == 0) {
    l->filling = NULL;
    pp_stock_leave(&a->depot, t);
  }
  return true;
}

bool pp_alane_bytes(pp_agent *a, pp_alane *l, const unsigned char *p,
                    size_t n) {
  while (n > 0) {
    size_t k, need;

    if (l->left > 0) {
      k = l->left < n ? (size_t)l->left : n;
      if (!body(a, l, p, k))
        return false;
      l->whole = l->whole || l->left == 0;
      p += k;
      n -= k;
      continue;
    }
    need = l->nhead < PP_FRAME_HEAD ? PP_FRAME_HEAD : head_size(l);
    if (need == 0)
      return false;
    k = need - l->nhead;
    if (k > n)
      k = n;
    memcpy(l->head + l->nhead, p, k);
    l->nhead += k;
    p += k;
    n -= k;
    if (l->nhead < PP_FRAME_HEAD || l->nhead < (need = head_size(l)))
      continue;
    if (need == 0 || !begin(a, l))
      return false;
    l->nhead = 0;
    l->whole = l->whole || l->left == 0;
  }
  if (l->runs)
    push(a, l);
  return true;
}

/* --- from the worker ------------------------------------------------------ */

static void pass_output(pp_agent *a, pp_alane *l, unsigned which) {
  unsigned char p[1 + 32768];
  pp_lane *lane = l->map.lane;
  size_t all = 0;

  p[0] = (unsigned char)which;
  while (l->fd[which] >= 0 && all < PIPE_MOST) {
    ssize_t n;

    atomic_fetch_add(&lane->read_seq, 1);
    n = read(l->fd[which], p + 1, sizeof p - 1);
    if (n > 0) {
      l->read[which] += (uint64_t)n;
      atomic_store(&lane->read_bytes[which], l->read[which]);
    }
    atomic_fetch_add(&lane->read_seq, 1);
    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0)
      return;
    if (n == 0) {
      close(l->fd[which]);
      l->fd[which] = -1;
      return;
    }
    l->unsettled = true;
    pp_agent_say(a, PP_R_OUTPUT, l->index, p, 1 + (size_t)n);
    all += (size_t)n;
  }
}

/* Stop or go on watching a pipe. */
static void watch(pp_agent *a, pp_alane *l, unsigned which, bool on) {
  struct epoll_event ev = {.events = on ? EPOLLIN : 0,
                           .data.u64 =
                               pp_agent_tag(PP_AGENT_PIPE, l->index, which)};

  if (l->paused[which] == !on || l->fd[which] < 0)
    return;
  epoll_ctl(a->poll, EPOLL_CTL_MOD, l->fd[which], &ev);
  l->paused[which] = !on;
}

/* What was read of its output came before any result that was not passed on. */
static void settle(pp_agent *a, pp_alane *l) {
  if (l->unsettled)
    pp_agent_say(a, PP_R_SETTLED, l->index, NULL, 0);
  l->unsettled = false;
}

/* As much as there is room for, or all. */
static void pass_results(pp_agent *a, pp_alane *l, bool all) {
  pp_ring *out = &l->map.lane->out;
  size_t used = pp_ring_used(out), most = pp_press_turn(&a->press);

  if (used == SIZE_MAX)
    return; /* it makes no sense: the driver ends it in time */
  if (used == 0) {
    settle(a, l);
    if (l->told != l->sent && atomic_load(&l->map.lane->watched) == 0)
      look_soon(a, l);
    return;
  }
  for (unsigned k = 0; k < 2; k++) /* what was written before comes first */
    pass_output(a, l, k);
  while (used > 0) {
    size_t n = used < most ? used : most;

    pp_agent_say(a, PP_R_BYTES, l->index, pp_ring_start(out, l->map.out), n);
    pp_ring_consume(out, n);
    used -= n;
    if (used > 0 && !all && pp_agent_full(a)) {
      a->held = true;
      break;
    }
  }
  if (used == 0)
    settle(a, l);
  pp_lane_wake(l->map.lane, PP_WANTS_ROOM);
  if (l->told != l->sent)
    look_soon(a, l);
  if (pp_ring_used(&l->map.lane->in) > 0)
    a->more = true;
}

void pp_alane_output(pp_agent *a, pp_alane *l, unsigned which) {
  if (pp_agent_full(a)) {
    a->held = true;
    watch(a, l, which, false);
  } else {
    pass_output(a, l, which);
    pass_results(a, l, false);
  }
}

void pp_alane_drain(pp_agent *a, pp_alane *l) {
  if (pp_agent_full(a))
    a->held = true;
  else
    pass_results(a, l, false);
  for (unsigned k = 0; k < 2; k++)
    if (l->paused[k] && !a->held)
      watch(a, l, k, true);
  push(a, l);
}

void pp_alane_last(pp_agent *a, pp_alane *l) {
  pass_results(a, l, true);
  pp_alane_look(a, l);
  for (unsigned k = 0; k < 2; k++)
    pass_output(a, l, k);
  settle(a, l);
  unqueue(a, l);
}

/* --- claims --------------------------------------------------------------- */

bool pp_alane_recall(pp_alane *l, uint32_t seq) {
  uint32_t want = seq << 2 | PP_CLAIM_SENT;

  if ((int32_t)(seq - l->sent) > 0) { /* it is still on its way */
    if (seq - l->sent > PP_WINDOW)
      return false;
    l->early[seq % PP_WINDOW / 64] |= (uint64_t)1 << seq % 64;
    return true;
  }
  return atomic_compare_exchange_strong(&l->map.lane->claim[seq % PP_WINDOW],
                                        &want, seq << 2 | PP_CLAIM_RECALLED) ||
         want == (seq << 2 | PP_CLAIM_RECALLED); /* it was asked for before */
}

bool pp_alane_look(pp_agent *a, pp_alane *l) {
  uint32_t seq = l->told, found = l->told;
  unsigned char p[16];
  int64_t ago;

  if (l->sent - seq > PP_WINDOW) /* those before are over */
    seq = l->sent - PP_WINDOW;
  while (seq != l->sent) {
    uint32_t c = atomic_load(&l->map.lane->claim[++seq % PP_WINDOW]);

    if (c == (seq << 2 | PP_CLAIM_TAKEN))
      found = seq;
    else if (c != (seq << 2 | PP_CLAIM_RECALLED))
      break;
  }
  if (found == l->told)
    return false;
  l->told = found;
  ago = pp_now_ns() - atomic_load(&l->map.lane->begun);
  pass_results(a, l, true); /* of those before it */
  pp_put32(p, found);
  pp_put32(p + 4, 0);
  pp_put64(p + 8, ago > 0 ? (uint64_t)ago : 0);
  pp_agent_say(a, PP_R_TAKEN, l->index, p, sizeof p);
  return true;
}

void pp_alane_watch(pp_agent *a, pp_alane *l) {
  if (l->told == l->sent)
    return;
  atomic_store(&l->map.lane->watched, 1);
  pp_alane_look(a, l); /* it may have begun just before */
}
