/* SPDX-License-Identifier: MIT */
/* What the agent says, and its life; far_send.c has what it is told. */
#include <stdio.h>
#include <stdlib.h>

#include "far_impl.h"
#include "kin.h"
#include "link_impl.h"

/* Output an agent may tell of before it says what it comes before. */
#define OUTPUT_MOST ((size_t)16 << 20)

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
    pp_far_broken(f, why);
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
  f->press.gauge.on = true;
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
  pp_far_say(f, PP_R_FREE, w->index, NULL, 0);
  pp_far_release(f, w);
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
  if (type == PP_R_ECHO) {
    if (!pp_gauge_back(&f->press.gauge, pp_get64(p), now))
      return false;
    if (!f->over)
      pp_press_probe(&f->press, f->ops.write, f->ops.ud);
    return true;
  }
  if (f->ops.queued(f->ops.ud) > 16 * PP_FAR_QUEUE_MOST)
    return false; /* it asks for more than it reads */
  pp_far_say(f, PP_R_ECHO, 0, p, n);
  pp_far_post(f);
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
    pp_link_take(l, p, n);
    return true;
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

/* How many bytes are to be in f->rx before it can be looked at again. */
static size_t wanted(const pp_far *f) {
  return PP_RELAY_HEAD +
         (f->rx.len < PP_RELAY_HEAD ? 0 : pp_get32(f->rx.data + 4));
}

/* Take some of what is there: bytes, SIZE_MAX when that makes no sense. What
 * BYTES bring goes on as it comes, not when the last is there. */
static size_t take(pp_far *f, const unsigned char *p, size_t n, int64_t now) {
  uint32_t head, len;
  size_t k;

  if (f->part > 0) {
    k = n < f->part ? n : f->part;
    f->part -= (uint32_t)k;
    return message(f, PP_R_BYTES, f->part_lane, p, (uint32_t)k, now) ? k
                                                                     : SIZE_MAX;
  }
  if (f->rx.len > 0 || n < PP_RELAY_HEAD) { /* it comes in pieces */
    k = wanted(f) - f->rx.len;
    if (k > n)
      k = n;
    if (pp_buf_put(&f->rx, p, k) != 0) {
      pp_far_broken(f, "not enough memory");
      return k;
    }
    if (f->rx.len < PP_RELAY_HEAD)
      return k;
    p = f->rx.data;
    n = f->rx.len;
  } else {
    k = 0;
  }
  head = pp_get32(p);
  len = pp_get32(p + 4);
  if (len > PP_RELAY_MAX) {
    pp_far_broken(f, "it sent a message too long");
    return k;
  }
  if (n < PP_RELAY_HEAD + len) {
    if ((head & 0xff) == PP_R_BYTES) {
      f->part = len;
      f->part_lane = head >> 8;
      f->rx.len = 0;
      return k > 0 ? k : PP_RELAY_HEAD;
    }
    if (k > 0)
      return k;
    if (pp_buf_put(&f->rx, p, n) != 0)
      pp_far_broken(f, "not enough memory");
    return n;
  }
  if (!message(f, (int)(head & 0xff), head >> 8, p + PP_RELAY_HEAD, len, now))
    return SIZE_MAX;
  f->rx.len = 0;
  return k > 0 ? k : PP_RELAY_HEAD + len;
}

void pp_far_data(pp_far *f, const unsigned char *p, size_t n) {
  int64_t now = pp_now_ns();

  if (f->over)
    return;
  f->heard = now;
  while (n > 0 && !f->over) {
    size_t k = take(f, p, n, now);

    if (k == SIZE_MAX) {
      pp_far_broken(f, "it sent a message that makes no sense");
      return;
    }
    p += k;
    n -= k;
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
    pp_far_say(f, PP_R_HELLO, 0, b.data, b.len);
  pp_buf_clear(&b);
  f->heard = f->pinged = now;
  pp_far_post(f);
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
    pp_far_release(f, w);
  }
  f->why = NULL;
  pp_depot_clear(&f->depot);
  f->rx.len = f->tx.len = f->open = 0;
  f->part = 0;
}

void pp_far_bye(pp_far *f) {
  pp_far_say(f, PP_R_BYE, 0, NULL, 0);
  pp_far_post(f);
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
    pp_far_broken(f, "a worker that was killed has not ended for 8 seconds");
    return -1;
  }
  if (now - f->heard >= PP_FAR_SILENCE_NS) {
    pp_far_broken(f, "nothing was heard from it for 8 seconds");
    return -1;
  }
  if (f->up && now - f->pinged >= PP_FAR_PING_NS) {
    f->pinged = now;
    pp_put64(p, (uint64_t)now);
    pp_far_say(f, PP_R_PING, 0, p, sizeof p);
    pp_far_post(f);
  }
  return f->up ? f->pinged + PP_FAR_PING_NS : f->heard + PP_FAR_SILENCE_NS;
}
