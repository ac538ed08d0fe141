/* SPDX-License-Identifier: MIT */
/* Frames of a worker, as they come: results, and what else it has to say. */
#include <stdlib.h>
#include <string.h>

#include "blocks.h"
#include "crew.h"
#include "kin.h"
#include "link_impl.h"
#include "message.h"
#include "proc.h"

/* Results of remote workers from this size on have to fit into memory. */
#define PROVED (16u << 20)

static void broken(pp_link *l, const char *what) {
  if (l->broken)
    return;
  l->broken = true;
  pp_log(PP_LOG_WARN, "worker %u of '%s' sent nonsense (%s): replaced",
         l->number, pp_node_name(l->node), what);
  pp_link_kill(l);
}

static int64_t between(uint64_t v, int64_t low, int64_t high) {
  return v > (uint64_t)INT64_MAX || (int64_t)v > high ? high
         : (int64_t)v < low                           ? low
                                                      : (int64_t)v;
}

/* Take down what the head of a RESULT says, as far as it can be true. */
static void note(pp_link *l, pp_job *j, const unsigned char *h, int64_t now) {
  uint32_t status = pp_get32(h + PP_RES_STATUS);
  pp_stats *t = &l->node->stats;

  j->started =
      between(pp_get64(h + PP_RES_START) - pp_link_skew(l), j->submitted, now);
  j->run = between(pp_get64(h + PP_RES_RUN), 0, now - j->started);
  j->cpu = between(pp_get64(h + PP_RES_CPU), 0, j->run);
  pp_job_set_maxrss(j, pp_get64(h + PP_RES_RSS));
  l->stops[0] = pp_get64(h + PP_RES_STDOUT);
  l->stops[1] = pp_get64(h + PP_RES_STDERR);
  j->failing = status & 1;
  j->worker = l->number;
  j->attempts++;
  j->flags |= PP_JOB_RAN;
  if (j->flags & PP_JOB_CALL)
    return;
  t->failed += PP_RES_ITEMS_FAILED(status);
  if (!(j->flags & PP_JOB_CHILD))
    l->engine->meter.failed += PP_RES_ITEMS_FAILED(status);
  pp_server_shorten(j, PP_RES_ITEMS_BEGUN(status));
  l->njobs += j->items > 0 ? j->items : 1;
  l->cpu += j->cpu;
  if (l->maxrss < pp_job_maxrss(j))
    l->maxrss = pp_job_maxrss(j);
  l->node->deaths = 0;
  if (!(j->flags & PP_JOB_GHOST)) /* else that was counted as it was stopped */
    t->time += j->run;
  t->cpu += j->cpu;
  if (t->maxrss < pp_job_maxrss(j))
    t->maxrss = pp_job_maxrss(j);
  if (j->fn != NULL)
    j->fn->run_ns = j->fn->run_ns < 0
                        ? j->run
                        : j->fn->run_ns + (j->run - j->fn->run_ns) / 8;
}

/* A job's result is whole: settle its output and end it. */
static void arrived(pp_link *l, pp_job *j, int64_t now) {
  pp_server *s = l->server;
  const uint64_t stops[2] = {l->stops[0], l->stops[1]};

  l->done += !(j->flags & PP_JOB_CALL);
  if (l->server->restart > 0) {
    if (l->done < l->server->restart)
      l->place.most = l->server->restart - l->done;
    else if (l->place.jobs.n == 1)
      pp_link_retire(l); /* first, so that it is given no more */
    else
      l->place.most = 1; /* it ran in the midst of others: they come first */
  }
  pp_crew_ends(l);
  if (j->flags & PP_JOB_GHOST) {
    pp_sched_ended(&l->place, j);
    pp_job_unref(j, &l->engine->blobs);
    pp_link_stopped(l);
    s = NULL;
  } else {
    j->state = PP_JOB_ENDING;
    j->ended = now;
    pp_sched_ended(&l->place, j);
  }
  pp_crew_ended(l);
  for (int k = 0; k < 2; k++) {
    pp_outlet *o = &l->outlet[k];

    pp_outlet_read_to(o, stops[k]);
    if (o->mode == PP_OUTPUT_JOB)
      pp_outlet_collect(o, stops[k], s != NULL ? pp_job_output(j, k) : NULL);
    else
      pp_outlet_pass(o, stops[k], true);
  }
  if (s == NULL || (j->failing && j->result_len > 0 &&
                    j->result[0] == PP_KIND_ERROR && pp_server_again(s, j)))
    return;
  if (!(j->flags & PP_JOB_CALL))
    l->node->stats.njobs += j->items > 0 ? j->items : 1;
  pp_server_ended(s, j, j->failing);
}

/* There is no memory for its result: an error instead, if that fits. */
static void no_memory(pp_link *l, pp_job *j) {
  static const char body[] = "\0"
                             "\x24"
                             "not enough memory to keep its result"
                             "\0";

  j->failing = 1;
  pp_job_shed(j, &l->engine->blobs);
  if (pp_job_store(j, body, sizeof body - 1) != 0)
    j->result_len = 0;
}

/* Of a remote one what it sends is the first that is known of it. */
static bool claimed(const pp_link *l, uint32_t seq) {
  uint32_t sent = seq << 2 | PP_CLAIM_SENT;

  if (l->far != NULL)
    (void)atomic_compare_exchange_strong(pp_link_claim(l, seq), &sent,
                                         seq << 2 | PP_CLAIM_TAKEN);
  return atomic_load(pp_link_claim(l, seq)) == (seq << 2 | PP_CLAIM_TAKEN);
}

/* Take a result that its worker says is at the reference there. False if that
 * makes no sense. */
static bool load(pp_link *l, pp_job *j, const unsigned char *ref) {
  pp_cargo *c;
  int r = pp_berth_cargo(l->berth, ref, &c);

  if (r == PP_EBAD)
    return false;
  if (r != 0) {
    no_memory(l, j);
    return true;
  }
  j->received += c->len;
  l->node->stats.received += c->len;
  if (!j->failing) {
    if (pp_job_give_load(j, c) != 0)
      no_memory(l, j);
    return true;
  }
  /* Errors are read again and again: not from what their worker can change. */
  if (pp_job_store(j, c->p, c->len) != 0)
    no_memory(l, j);
  pp_cargo_unref(c);
  return true;
}

bool pp_link_taken(const pp_link *l, const pp_job *j) {
  return (j->flags & PP_JOB_GHOST) ||
         (pp_job_kin(j) != NULL && pp_job_kin(j)->begun > 0) ||
         claimed(l, j->seq);
}

/* A large frame will come in parts. */
static void expect(pp_link *l, size_t len) {
  l->rx_len = len;
  l->rx_got = l->rx_buf.len = 0;
}

/* A large result: if it is a string by itself it comes to where that is to have
 * its bytes (pp_state_lend). Without memory it goes into a buffer. The pages of
 * a block come from beside: this thread is the one that decrypts, too. */
static void expect_large(pp_link *l) {
  pp_engine *e = l->engine;
  size_t n = pp_message_lone(l->rx_len);
  bool cold;

  l->rx_at = 0;
  l->rx_size = l->rx_len;
  if (n > 0 && l->rx_len - n <= e->string_at) {
    l->rx_at = e->string_at - (l->rx_len - n);
    l->rx_size = e->string_at + n + 1;
  }
  l->rx_own = pp_block_get(e->blocks, l->rx_size, &cold);
  if (l->rx_own != NULL && cold && e->cpus != 1)
    pp_ahead_begin(&e->ahead, l->rx_own, l->rx_size);
}

/* One whole frame in the ring, or the beginning of a large one. Returns bytes
 * to consume, 0 to wait for more, SIZE_MAX when it makes no sense. */
static size_t take_frame(pp_link *l, const unsigned char *p, size_t used,
                         int64_t now) {
  uint64_t head = pp_get64(p), len = head >> 8;
  const unsigned char *body = p + PP_FRAME_HEAD;
  int type = (int)(head & 0xff) & ~PP_F_AFAR;
  bool afar = (head & PP_F_AFAR) != 0;
  pp_job *j;

  if (afar && type != PP_F_RESULT && type != PP_F_SUBMIT)
    return SIZE_MAX;
  if (type == PP_F_WANT) {
    if (len > PP_WANT_HEAD + PP_WANT_NAME_MAX)
      return SIZE_MAX;
    if (used < PP_FRAME_HEAD + len)
      return 0;
    return pp_link_want(l, body, (size_t)len) ? PP_FRAME_HEAD + (size_t)len
                                              : SIZE_MAX;
  }
  if (type < PP_F_RESULT || type > PP_F_FEED || len > PP_FRAME_MAX ||
      len > SIZE_MAX / 2)
    return SIZE_MAX;
  if (type != PP_F_RESULT) {
    if (len <= used - PP_FRAME_HEAD)
      return pp_link_heard(l, (int)(head & 0xff), body, (size_t)len, now)
                 ? PP_FRAME_HEAD + (size_t)len
                 : SIZE_MAX;
    l->rx_type = (int)(head & 0xff);
    expect(l, (size_t)len);
    return PP_FRAME_HEAD;
  }
  if (len < PP_RES_HEAD || (afar && len != PP_RES_HEAD + PP_REF_SIZE))
    return SIZE_MAX;
  if (used < PP_FRAME_HEAD + (afar ? len : PP_RES_HEAD))
    return 0;
  j = pp_link_job(l, pp_get32(body + PP_RES_SEQ));
  if (j == NULL || !pp_link_taken(l, j))
    return SIZE_MAX;
  j->received += PP_FRAME_HEAD + len;
  l->node->stats.received += PP_FRAME_HEAD + len;
  if (len <= used - PP_FRAME_HEAD) {
    note(l, j, body, now);
    body += PP_RES_HEAD;
    len -= PP_RES_HEAD;
    if (afar) {
      if (!load(l, j, body))
        return SIZE_MAX;
    } else if ((j->failing ? pp_job_store(j, body, len)
                           : pp_job_finish(j, body, len)) != 0)
      no_memory(l, j);
    arrived(l, j, now);
    return PP_FRAME_HEAD + PP_RES_HEAD + (size_t)len;
  }
  if (l->far != NULL && len >= PROVED && len > pp_proc_available() / 2) {
    broken(l, "a result larger than memory");
    return SIZE_MAX;
  }
  expect(l, (size_t)len - PP_RES_HEAD);
  if (l->far != NULL && pp_block_large(l->rx_len))
    expect_large(l);
  l->rx = j;
  memcpy(l->rx_head, body, PP_RES_HEAD);
  return PP_FRAME_HEAD + PP_RES_HEAD;
}

/* PP_ENOMEM. A buffer grows with what has come, not with what was promised, and
 * so does the memory of a block, which is a bounded part ahead. */
static int keep_part(pp_link *l, const unsigned char *p, size_t n) {
  if (l->rx_own == NULL && pp_buf_put(&l->rx_buf, p, n) != 0)
    return PP_ENOMEM;
  if (l->rx_own != NULL) {
    size_t at = l->rx_at + l->rx_got;

    memcpy(l->rx_own + at, p, n);
    pp_ahead_come(&l->engine->ahead, l->rx_own, at + n);
  }
  l->rx_got += n;
  return 0;
}

/* All of a large result is here. */
static void keep_whole(pp_link *l, pp_job *j) {
  unsigned char *own = l->rx_own;
  pp_cargo *c;

  l->rx_own = NULL;
  if (own != NULL) {
    pp_ahead_end(&l->engine->ahead, own);
    c = pp_cargo_own(l->engine->blocks, own, l->rx_size, own + l->rx_at,
                     l->rx_len);
    if (c == NULL || pp_job_give_load(j, c) != 0)
      no_memory(l, j);
  } else {
    pp_job_give_result(j, l->rx_buf.data, l->rx_len);
    memset(&l->rx_buf, 0, sizeof l->rx_buf);
  }
}

/* More of a large one. */
static size_t take_part(pp_link *l, const unsigned char *p, size_t used,
                        int64_t now) {
  size_t n = l->rx_len - l->rx_got;
  pp_job *j = l->rx;

  if (n > used)
    n = used;
  if (keep_part(l, p, n) != 0)
    return SIZE_MAX; /* the job is lost with its worker, and says so */
  if (l->rx_got == l->rx_len && l->rx_type != 0) {
    pp_buf whole = l->rx_buf;
    bool ok;

    memset(&l->rx_buf, 0, sizeof l->rx_buf);
    ok = pp_link_heard(l, l->rx_type, whole.data, whole.len, now);
    l->rx_type = 0;
    pp_buf_clear(&whole);
    return ok ? n : SIZE_MAX;
  }
  if (l->rx_got == l->rx_len) {
    l->rx = NULL;
    note(l, j, (const unsigned char *)l->rx_head, now);
    keep_whole(l, j);
    arrived(l, j, now);
  }
  return n;
}

static bool in_parts(const pp_link *l) {
  return l->rx != NULL || l->rx_type != 0;
}

void pp_link_take(pp_link *l, const unsigned char *p, size_t n) {
  pp_ring *out = &l->map.lane->out;

  if (l->broken)
    return;                                    /* its worker is being ended */
  if (in_parts(l) && pp_ring_used(out) == 0) { /* past the ring */
    size_t k = take_part(l, p, n, pp_now_ns());

    if (k == SIZE_MAX) {
      broken(l, "frame");
      return;
    }
    p += k;
    n -= k;
    if (n == 0 && in_parts(l))
      return;
  }
  /* There is room: a link leaves nothing there but a piece of a frame. */
  if (n > pp_ring_room(out)) {
    broken(l, "ring");
    return;
  }
  memcpy(pp_ring_end(out, l->map.out), p, n);
  pp_ring_publish(out, n);
  pp_link_drain(l);
}

void pp_link_drain(pp_link *l) {
  pp_ring *out = &l->map.lane->out;
  int64_t now = pp_now_ns();
  bool far = l->far != NULL;
  uint64_t safe[2] = {far ? l->outlet[0].settled : l->outlet[0].read,
                      far ? l->outlet[1].settled : l->outlet[1].read};
  bool waited = l->tx_n > 0;

  while (!l->broken) {
    size_t used = pp_ring_used(out), n;
    const unsigned char *p = pp_ring_start(out, l->map.out);

    if (used == SIZE_MAX) {
      broken(l, "ring");
      break;
    }
    bool parts = in_parts(l);

    if (used == 0 || (!parts && used < PP_FRAME_HEAD))
      break;
    n = parts ? take_part(l, p, used, now) : take_frame(l, p, used, now);
    if (n == SIZE_MAX) {
      broken(l, "frame");
      break;
    }
    if (n == 0)
      break;
    pp_ring_consume(out, n);
    pp_lane_wake(l->map.lane, PP_WANTS_ROOM);
  }
  if (l->nhanging > 0)
    pp_link_unhang(l, false);
  for (int s = 0; s < 2; s++) {
    l->outlet[s].safe = safe[s];
    pp_outlet_pass(&l->outlet[s], safe[s], false);
  }
  if (pp_link_unsettled(l))
    l->engine->heard = true;
  if ((waited || l->tx_n > 0) && pp_link_push(l))
    pp_sched_room(&l->place);
}
