/* SPDX-License-Identifier: MIT */
#include "link.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "zygote.h"

/* How much a dead worker may leave behind in a pipe, and more. */
#define LAST_WORDS (1u << 20)

static pp_link *link_of(pp_place *p) { return (pp_link *)(void *)p; }

static _Atomic uint32_t *claim_of(const pp_link *l, uint32_t seq) {
  return &l->map.lane->claim[seq % PP_WINDOW];
}

/* --- output ----------------------------------------------------------------
 */

static void on_output(uv_poll_t *h, int status, int events) {
  pp_link *l = h->data;
  pp_outlet *o = &l->outlet[h == &l->outlet[1].poll];

  (void)events;
  if (status < 0 || !pp_outlet_read(o))
    uv_poll_stop(h);
}

bool pp_link_unsettled(const pp_link *l) {
  return l->outlet[0].safe < l->outlet[0].read ||
         l->outlet[1].safe < l->outlet[1].read;
}

/* --- sending -------------------------------------------------------------- */

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
  if (t->job != NULL)
    pp_job_unref(t->job, &l->engine->blobs);
  pp_blob_unref(&l->engine->blobs, t->blob);
  free(t->owned);
  memset(t, 0, sizeof *t);
}

/* Push waiting pieces into the ring as far as there is room: true when none is
 * left. */
static bool push_pieces(pp_link *l) {
  pp_ring *in = &l->map.lane->in;
  bool wrote = false;

  while (l->tx_at < l->tx_n) {
    pp_piece *t = &l->tx[l->tx_at];
    size_t room = pp_ring_room(in), k = t->len < room ? t->len : room;

    if (t->len > 0 && k == 0) {
      if (wrote)
        pp_lane_wake(l->map.lane, PP_WANTS_INPUT);
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
      pp_lane_wake(l->map.lane, PP_WANTS_INPUT);
      wrote = false;
    }
  }
  if (wrote)
    pp_lane_wake(l->map.lane, PP_WANTS_INPUT);
  l->tx_at = l->tx_n = 0;
  return true;
}

static pp_piece *add_piece(pp_link *l, const void *p, size_t len) {
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

/* A piece of bytes of our own, copied. */
static int add_copy(pp_link *l, const void *p, size_t len) {
  unsigned char *own = malloc(len);
  pp_piece *t;

  if (own == NULL)
    return PP_ENOMEM;
  memcpy(own, p, len);
  t = add_piece(l, own, len);
  if (t == NULL) {
    free(own);
    return PP_ENOMEM;
  }
  t->owned = own;
  return 0;
}

static size_t blob_head(const pp_blob *b, unsigned char *p) {
  size_t n = PP_FRAME_HEAD + PP_BLOB_HEAD;

  pp_frame_head(p, PP_F_BLOB, PP_BLOB_HEAD + 4 * (uint64_t)b->ndeps + b->len);
  memset(p + PP_FRAME_HEAD, 0, PP_BLOB_HEAD);
  p += PP_FRAME_HEAD;
  pp_put32(p + PP_BLOB_ID, b->id);
  pp_put32(p + PP_BLOB_KIND, (uint32_t)b->kind);
  pp_put64(p + PP_BLOB_HASH, b->hash.lo);
  pp_put64(p + PP_BLOB_HASH + 8, b->hash.hi);
  pp_put32(p + PP_BLOB_NDEPS, b->ndeps);
  return n;
}

/* Send one blob and those it needs, if the worker has them not. */
static int send_blob(pp_link *l, pp_blob *b) {
  unsigned char head[PP_FRAME_HEAD + PP_BLOB_HEAD], *own;
  size_t n, total;
  pp_piece *t;

  if (b == NULL || holds(l, b->id))
    return 0;
  for (uint32_t i = 0; i < b->ndeps; i++)
    if (send_blob(l, b->deps[i]) != 0)
      return PP_ENOMEM;
  n = blob_head(b, head);
  total = n + 4 * (size_t)b->ndeps;
  own = malloc(total);
  if (own == NULL)
    return PP_ENOMEM;
  memcpy(own, head, n);
  for (uint32_t i = 0; i < b->ndeps; i++)
    pp_put32(own + n + 4 * (size_t)i, b->deps[i]->id);
  t = add_piece(l, own, total);
  if (t == NULL) {
    free(own);
    return PP_ENOMEM;
  }
  t->owned = own;
  t = add_piece(l, b->bytes, b->len);
  if (t == NULL)
    return PP_ENOMEM; /* the half frame before it goes with the link */
  t->blob = pp_blob_ref(b);
  return set_held(l, b);
}

static int place_send(pp_place *p, pp_job *j) {
  pp_link *l = link_of(p);
  pp_lane *lane = l->map.lane;
  unsigned char *f = j->frame;
  uint32_t seq;
  bool need;

  if (l->tx_n > 0)
    return PP_EAGAIN;
  seq = l->seq + 1;
  if (p->jobs.head != NULL && seq - p->jobs.head->seq >= PP_WINDOW)
    return PP_EAGAIN;
  need =
      !holds(l, j->fn->id) || (j->setting != NULL && !holds(l, j->setting->id));
  for (uint32_t i = 0; i < j->ndeps && !need; i++)
    need = !holds(l, j->deps[i]->id);
  if (need) {
    int r = send_blob(l, j->fn);

    if (r == 0)
      r = send_blob(l, j->setting);
    for (uint32_t i = 0; i < j->ndeps && r == 0; i++)
      r = send_blob(l, j->deps[i]);
    if (r != 0) {
      pp_link_kill(l); /* what it was sent cannot be told: begin anew */
      return PP_EAGAIN;
    }
  }
  l->seq = seq;
  j->seq = seq;
  pp_put32(f + PP_FRAME_HEAD + PP_JOB_SEQ, seq);
  pp_put32(f + PP_FRAME_HEAD + PP_JOB_ATTEMPT, j->attempts + 1);
  pp_put32(f + PP_FRAME_HEAD + PP_JOB_FN, j->fn->id);
  pp_put32(f + PP_FRAME_HEAD + PP_JOB_SETTING,
           j->setting != NULL ? j->setting->id + 1 : 0);
  for (uint32_t i = 0; i < j->ndeps; i++)
    pp_put32(f + PP_FRAME_HEAD + PP_JOB_HEAD + 4 * (size_t)i, j->deps[i]->id);
  atomic_store(claim_of(l, seq), seq << 2 | PP_CLAIM_SENT);
  j->sent += j->frame_len;
  l->server->stats.sent += j->frame_len;
  if (l->tx_n == 0 && pp_ring_room(&lane->in) >= j->frame_len) {
    memcpy(pp_ring_end(&lane->in, l->map.in), f, j->frame_len);
    pp_ring_publish(&lane->in, j->frame_len);
    pp_lane_wake(lane, PP_WANTS_INPUT);
    return 0;
  }
  {
    pp_piece *t = add_piece(l, f, j->frame_len);

    if (t == NULL) {
      pp_link_kill(l);
      return 0; /* it comes back with the death of the worker */
    }
    t->job = pp_job_ref(j);
  }
  l->place.full = !push_pieces(l);
  return 0;
}

static bool place_recall(pp_place *p, pp_job *j) {
  pp_link *l = link_of(p);
  uint32_t want = j->seq << 2 | PP_CLAIM_SENT;

  if (!l->dead)
    for (size_t i = l->tx_at; i < l->tx_n; i++)
      if (l->tx[i].job == j)
        return false; /* its bytes are on the way */
  return atomic_compare_exchange_strong(claim_of(l, j->seq), &want,
                                        j->seq << 2 | PP_CLAIM_RECALLED);
}

bool pp_link_begun(const pp_job *j) {
  pp_link *l;

  if (j->state == PP_JOB_ENDING)
    return true;
  if (j->state != PP_JOB_SENT)
    return false;
  l = link_of(j->place);
  return atomic_load(claim_of(l, j->seq)) == (j->seq << 2 | PP_CLAIM_TAKEN);
}

static const pp_place_ops ops = {place_send, place_recall};

void pp_link_drop(pp_link *l, uint32_t id) {
  unsigned char f[PP_FRAME_HEAD + 4];

  if (l->dead || !holds(l, id))
    return;
  l->has[id / 64] &= ~((uint64_t)1 << id % 64);
  pp_frame_head(f, PP_F_DROP, 4);
  pp_put32(f + PP_FRAME_HEAD, id);
  if (l->tx_n == 0 && pp_ring_room(&l->map.lane->in) >= sizeof f) {
    /* Not worth waking it for. */
    memcpy(pp_ring_end(&l->map.lane->in, l->map.in), f, sizeof f);
    pp_ring_publish(&l->map.lane->in, sizeof f);
  } else if (add_copy(l, f, sizeof f) != 0) {
    pp_link_kill(l);
  }
}

/* --- results -------------------------------------------------------------- */

static pp_job *job_by_seq(pp_link *l, uint32_t seq) {
  pp_job *j = l->place.jobs.head;

  while (j != NULL && j->seq != seq)
    j = j->next;
  return j;
}

static void broken(pp_link *l, const char *what) {
  pp_log(PP_LOG_WARN, "worker %u of '%s' sent nonsense (%s): replaced",
         l->number, "local", what);
  pp_link_kill(l);
}

/* Take down what the head of a RESULT says. */
static void note(pp_link *l, pp_job *j, const unsigned char *h) {
  pp_server *s = l->server;
  int64_t run = (int64_t)pp_get64(h + PP_RES_RUN);

  j->started = (int64_t)pp_get64(h + PP_RES_START);
  j->run = run > 0 ? run : 0;
  j->cpu = (int64_t)pp_get64(h + PP_RES_CPU);
  j->maxrss = pp_get64(h + PP_RES_RSS);
  j->stops[0] = pp_get64(h + PP_RES_STDOUT);
  j->stops[1] = pp_get64(h + PP_RES_STDERR);
  j->failing = pp_get32(h + PP_RES_STATUS) != 0;
  j->worker = l->number;
  j->attempts++;
  s->deaths = 0;
  s->stats.njobs++;
  s->stats.time += j->run;
  s->stats.cpu += j->cpu;
  if (s->stats.maxrss < j->maxrss)
    s->stats.maxrss = j->maxrss;
  if (j->fn != NULL)
    j->fn->run_ns = j->fn->run_ns < 0
                        ? j->run
                        : j->fn->run_ns + (j->run - j->fn->run_ns) / 8;
}

/* A job's result is whole: settle its output and end it. */
static void arrived(pp_link *l, pp_job *j, int64_t now) {
  pp_server *s = l->server;

  j->state = PP_JOB_ENDING;
  j->ended = now;
  pp_sched_ended(&l->place, j);
  for (int k = 0; k < 2; k++) {
    pp_outlet_read_to(&l->outlet[k], j->stops[k]);
    pp_outlet_pass(&l->outlet[k], j->stops[k], true);
  }
  pp_server_ended(s, j, j->failing);
}

/* One whole frame in the ring, or the beginning of a large one. Returns bytes
 * to consume, 0 to wait for more, SIZE_MAX when it makes no sense. */
static size_t take_frame(pp_link *l, const unsigned char *p, size_t used,
                         int64_t now) {
  uint64_t head = pp_get64(p), len = head >> 8;
  const unsigned char *body = p + PP_FRAME_HEAD;
  pp_job *j;

  if ((head & 0xff) != PP_F_RESULT || len < PP_RES_HEAD || len > PP_FRAME_MAX)
    return SIZE_MAX;
  if (used < PP_FRAME_HEAD + PP_RES_HEAD)
    return 0;
  j = job_by_seq(l, pp_get32(body + PP_RES_SEQ));
  if (j == NULL)
    return SIZE_MAX;
  j->received += PP_FRAME_HEAD + len;
  l->server->stats.received += PP_FRAME_HEAD + len;
  if (len <= used - PP_FRAME_HEAD) {
    note(l, j, body);
    if (pp_job_store(j, body + PP_RES_HEAD, len - PP_RES_HEAD) != 0) {
      static const char why[] = "\0\x26not enough memory to keep its result";

      j->failing = 1; /* a short error always fits the job itself */
      pp_job_shed(j);
      pp_job_store(j, why, sizeof why - 1 < j->small_cap ? sizeof why - 1 : 0);
    }
    arrived(l, j, now);
    return PP_FRAME_HEAD + (size_t)len;
  }
  if (len > SIZE_MAX / 2)
    return SIZE_MAX;
  l->rx_len = (size_t)len - PP_RES_HEAD;
  l->rx_buf = malloc(l->rx_len ? l->rx_len : 1);
  if (l->rx_buf == NULL)
    return SIZE_MAX;
  l->rx_got = 0;
  l->rx = j;
  memcpy(l->rx_head, body, PP_RES_HEAD);
  return PP_FRAME_HEAD + PP_RES_HEAD;
}

static size_t take_part(pp_link *l, const unsigned char *p, size_t used,
                        int64_t now) {
  size_t n = l->rx_len - l->rx_got;
  pp_job *j = l->rx;

  if (n > used)
    n = used;
  memcpy(l->rx_buf + l->rx_got, p, n);
  l->rx_got += n;
  if (l->rx_got == l->rx_len) {
    l->rx = NULL;
    note(l, j, (const unsigned char *)l->rx_head);
    if (j->result != j->small)
      free(j->result);
    j->result = l->rx_buf;
    j->result_len = l->rx_len;
    l->rx_buf = NULL;
    arrived(l, j, now);
  }
  return n;
}

void pp_link_drain(pp_link *l) {
  pp_ring *out = &l->map.lane->out;
  int64_t now = pp_now_ns();
  uint64_t safe[2] = {l->outlet[0].read, l->outlet[1].read};

  for (;;) {
    size_t used = pp_ring_used(out), n;
    const unsigned char *p = pp_ring_start(out, l->map.out);

    if (used == SIZE_MAX) {
      broken(l, "ring");
      return;
    }
    if (used == 0 || (l->rx == NULL && used < PP_FRAME_HEAD))
      break;
    n = l->rx != NULL ? take_part(l, p, used, now)
                      : take_frame(l, p, used, now);
    if (n == SIZE_MAX) {
      broken(l, "frame");
      return;
    }
    if (n == 0)
      break;
    pp_ring_consume(out, n);
    pp_lane_wake(l->map.lane, PP_WANTS_ROOM);
  }
  for (int s = 0; s < 2; s++) {
    l->outlet[s].safe = safe[s];
    pp_outlet_pass(&l->outlet[s], safe[s], false);
  }
  if (l->tx_n > 0 && push_pieces(l))
    pp_sched_room(&l->place);
}

/* --- life ----------------------------------------------------------------- */

static void on_closed(uv_handle_t *h) {
  pp_link *l = h->data;
  pp_engine *e = l->engine;

  if (--l->handles > 0)
    return;
  if (l->generation == e->generation)
    pp_engine_lane_free(e, l->lane);
  else
    e->links[l->lane] = NULL; /* its worker may live a moment longer */
  for (int s = 0; s < 2; s++) {
    if (l->outlet[s].fd >= 0)
      close(l->outlet[s].fd);
    pp_buf_clear(&l->outlet[s].text);
  }
  free(l->tx);
  free(l->has);
  free(l->rx_buf);
  pp_lane_unmap(&l->map);
  free(l);
  e->closing--;
}

/* pipe2, with the soft limit on descriptors raised once if it is in the way. */
static int open_pipe(int p[2]) {
  struct rlimit lim;

  if (pipe2(p, O_CLOEXEC) == 0)
    return 0;
  if (errno != EMFILE || getrlimit(RLIMIT_NOFILE, &lim) < 0 ||
      lim.rlim_cur == lim.rlim_max) {
    errno = EMFILE;
    return -1;
  }
  lim.rlim_cur = lim.rlim_max;
  if (setrlimit(RLIMIT_NOFILE, &lim) < 0)
    return -1;
  return pipe2(p, O_CLOEXEC);
}

pp_link *pp_link_open(pp_server *s, uint32_t number) {
  pp_engine *e = s->engine;
  pp_link *l = calloc(1, sizeof *l);
  int out[2] = {-1, -1}, err[2] = {-1, -1}, lane = -1, why;
  pp_zreq req = {.op = PP_Z_SPAWN, .number = number};

  if (l == NULL)
    return NULL;
  if (e->zygote_gone) {
    errno = ECHILD;
    goto fail;
  }
  l->engine = e;
  l->server = s;
  l->number = number;
  l->generation = e->generation;
  l->outlet[0].fd = l->outlet[1].fd = -1;
  lane = pp_engine_lane(e, l);
  if (lane < 0)
    goto fail;
  l->lane = (uint32_t)lane;
  if (pp_shm_grow(e->shm, l->lane) != 0 ||
      pp_lane_map(e->shm, l->lane, &l->map) != 0)
    goto fail;
  if (open_pipe(out) != 0 || open_pipe(err) != 0)
    goto fail;
  req.lane = l->lane;
  {
    int fds[2] = {out[1], err[1]};

    if (pp_zygote_send(e->ctl, &req, fds, 2) != 0)
      goto fail;
  }
  close(out[1]), close(err[1]);
  out[1] = err[1] = -1;
  for (int k = 0; k < 2; k++) {
    pp_outlet *o = &l->outlet[k];

    o->fd = k == 0 ? out[0] : err[0];
    o->which = k;
    o->lane = l->map.lane;
    o->dirty = &e->dirty[k];
    fcntl(o->fd, F_SETFL, fcntl(o->fd, F_GETFL) | O_NONBLOCK);
    if (uv_poll_init(&e->loop, &o->poll, o->fd) == 0) {
      o->poll.data = l;
      l->handles++;
      uv_poll_start(&o->poll, UV_READABLE, on_output);
    }
  }
  e->closing++;
  l->place.ops = &ops;
  pp_sched_open(&s->sched, &l->place);
  return l;
fail:
  why = errno;
  for (int k = 0; k < 2; k++) {
    if (out[k] >= 0)
      close(out[k]);
    if (err[k] >= 0)
      close(err[k]);
  }
  pp_lane_unmap(&l->map);
  if (lane >= 0)
    pp_engine_lane_free(e, (uint32_t)lane);
  free(l);
  errno = why;
  return NULL;
}

static void how_it_ended(const pp_link *l, int status, char *out, size_t size) {
  if (status < 0)
    snprintf(out, size, "worker %u could not be started", l->number);
  else if (WIFSIGNALED(status))
    snprintf(out, size, "worker %u (pid %d) was killed by signal %d (%s)",
             l->number, l->pid, WTERMSIG(status), strsignal(WTERMSIG(status)));
  else
    snprintf(out, size, "worker %u (pid %d) exited with status %d", l->number,
             l->pid, WEXITSTATUS(status));
}

void pp_link_last_words(pp_link *l) {
  for (int k = 0; k < 2 && !l->dead; k++) {
    pp_outlet *o = &l->outlet[k];

    pp_outlet_read_to(o, o->read + LAST_WORDS);
    pp_outlet_pass(o, o->read, true);
  }
}

void pp_link_died(pp_link *l, int status, int why, uint64_t maxrss) {
  pp_server *s = l->server;
  pp_engine *e = l->engine;
  char how[160];
  pp_job *j;

  if (l->dead)
    return;
  if (s != NULL && !s->closed) {
    pp_link_drain(l);
    pp_link_last_words(l);
  }
  l->dead = true;
  for (; l->tx_at < l->tx_n; l->tx_at++)
    piece_done(l, &l->tx[l->tx_at]);
  l->tx_n = l->tx_at = 0;
  for (size_t w = 0; w < l->has_words; w++)
    for (uint64_t bits = l->has[w]; bits != 0; bits &= bits - 1)
      pp_engine_blob_lost(
          e, (uint32_t)(w * 64) + (uint32_t)__builtin_ctzll(bits), l->lane);
  l->has_words = 0;
  how_it_ended(l, status, how, sizeof how);
  if (s != NULL) {
    if (s->workers[l->number - 1] == l) {
      s->workers[l->number - 1] = NULL;
      s->alive--;
    }
    pp_sched_close(&s->sched, &l->place);
    if (!l->retiring && !s->closed) {
      pp_log(PP_LOG_INFO, "%s", how);
      if (s->stats.maxrss < maxrss)
        s->stats.maxrss = maxrss;
      if (status < 0) {
        pp_server_refused(s, l->number, why);
      } else {
        s->refusals = 0;
        s->deaths++;
        if (l->place.jobs.head == NULL)
          s->stats.lost++;
      }
    }
    while ((j = pp_jobs_pop(&l->place.jobs)) != NULL) {
      j->attempts++;
      j->worker = l->number;
      pp_server_lost(s, j, how);
    }
    pp_server_tend(s, pp_now_ns());
  }
  for (int k = 0; k < 2; k++)
    if (l->outlet[k].poll.data != NULL)
      uv_close((uv_handle_t *)&l->outlet[k].poll, on_closed);
}

void pp_link_retire(pp_link *l) {
  unsigned char f[PP_FRAME_HEAD];

  if (l->retiring || l->dead)
    return;
  l->retiring = true;
  pp_sched_close(&l->server->sched, &l->place);
  pp_frame_head(f, PP_F_QUIT, 0);
  if (add_copy(l, f, sizeof f) != 0)
    pp_link_kill(l);
  else
    push_pieces(l);
}

void pp_link_kill(pp_link *l) {
  pp_zreq req = {.op = PP_Z_KILL, .lane = l->lane, .signal = SIGKILL};

  pp_zygote_send(l->engine->ctl, &req, NULL, 0);
}
