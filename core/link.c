/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "crew.h"
#include "kin.h"
#include "link_impl.h"
#include "proc.h"
#include "trace.h"
#include "worker.h"
#include "zygote.h"

/* Results of remote workers from this size on have to fit into memory. */
#define PROVED (16u << 20)
/* How much a dead worker may leave behind in a pipe, and more. */
#define LAST_WORDS (1u << 20)

/* --- output --------------------------------------------------------------- */

static void on_output(uv_poll_t *h, int status, int events) {
  pp_link *l = h->data;
  pp_outlet *o = &l->outlet[h == &l->outlet[1].poll];

  (void)events;
  l->engine->heard = true;
  if (status < 0 || !pp_outlet_read(o))
    uv_poll_stop(h);
}

/* --- results -------------------------------------------------------------- */

/* What its worker is to leave, it has begun: kill it if it does not in time. */
static void arm(pp_link *l, pp_job *ghost) {
  ghost->started = pp_now_ns();
  if (l->kill_at == 0)
    l->kill_at = ghost->started + PP_LINK_GRACE_NS +
                 (l->far != NULL ? l->far->owner->rtt : 0);
}

void pp_link_begun(pp_link *l, uint32_t seq) {
  pp_job *j = pp_link_job(l, seq);

  if (j != NULL && j->seq == seq && (j->flags & PP_JOB_GHOST) &&
      j->started == 0)
    arm(l, j);
}

static void signal_stop(pp_link *l, uint32_t seq, int kind) {
  pp_zreq req = {.op = PP_Z_SIGNAL, .lane = l->lane, .signal = PP_SIG_STOP};

  if (l->far != NULL) {
    pp_far_stop(l, seq, kind);
    return;
  }
  /* If it has just ended what interrupts the worker hits another job's read(2).
   */
  if ((int32_t)(seq - atomic_load(&l->map.lane->outer)) < 0)
    return;
  atomic_store(&l->map.lane->stop, (uint64_t)seq << 8 | (unsigned)kind);
  pp_zygote_send(l->engine->ctl, &req, NULL, 0);
}

void pp_link_stop(pp_place *p, pp_job *j, int kind) {
  pp_link *l = pp_link_of(p);
  pp_jobs *list = &l->place.jobs;
  bool begun = p->ops->begun(p, j) >= 0;
  pp_job *ghost;

  if (l->dead) {
    pp_jobs_remove(list, j);
    return;
  }
  ghost = pp_job_new(0);
  if (ghost == NULL || (pp_job_args(j) != NULL &&
                        pp_job_more(ghost) == NULL)) { /* then at once */
    if (ghost != NULL)
      pp_job_unref(ghost, &l->engine->blobs);
    pp_jobs_remove(list, j);
    pp_link_kill(l);
    return;
  }
  ghost->flags = PP_JOB_GHOST;
  ghost->state = PP_JOB_SENT;
  ghost->server = j->server;
  ghost->place = j->place;
  ghost->seq = j->seq;
  ghost->submitted = j->submitted;
  if (pp_job_args(j) != NULL) /* its worker may still look at them */
    ghost->more->args = pp_cargo_ref(pp_job_args(j));
  ghost->prev = j->prev;
  ghost->next = j->next;
  *(j->prev != NULL ? &j->prev->next : &list->head) = ghost;
  *(j->next != NULL ? &j->next->prev : &list->tail) = ghost;
  j->prev = j->next = NULL;
  if (l->rx == j) /* part of its result is here */
    l->rx = ghost;
  j->worker = l->number;
  for (int k = 0; k < 2; k++) { /* what it has written so far is its own */
    pp_outlet *o = &l->outlet[k];

    pp_outlet_read_to(o, o->read + LAST_WORDS);
    if (o->mode == PP_OUTPUT_JOB)
      pp_outlet_collect(o, o->read, pp_job_output(j, k));
    else
      pp_outlet_pass(o, o->read, true);
  }
  l->engine->heard = true;
  l->ghosts++;
  if (begun)
    arm(l, ghost);
  l->server->stopping++;
  l->engine->stopping++;
  signal_stop(l, j->seq, kind);
  if (l->place.open)
    pp_sched_spread(&l->place);
}

void pp_link_stopped(pp_link *l) {
  const pp_job *j = --l->ghosts > 0 ? l->place.jobs.head : NULL;

  while (j != NULL && (!(j->flags & PP_JOB_GHOST) || j->started == 0))
    j = j->next;
  if (j == NULL)
    l->kill_at = 0;
  l->server->stopping--;
  l->engine->stopping--;
}

pp_job *pp_link_job(pp_link *l, uint32_t seq) {
  pp_job *j = l->place.jobs.head;

  if (j == NULL || j->seq == seq)
    return j;
  /* Else it is the innermost of those that run in each other's midst. */
  for (j = l->place.jobs.tail; j != NULL && j->seq != seq;)
    j = j->prev;
  return j;
}

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
    l->rx_len = (size_t)len;
    l->rx_buf.len = 0;
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
  l->rx_len = (size_t)len - PP_RES_HEAD;
  l->rx_buf.len = 0;
  l->rx = j;
  memcpy(l->rx_head, body, PP_RES_HEAD);
  return PP_FRAME_HEAD + PP_RES_HEAD;
}

/* More of a large one. The buffer grows with what has come, not with what was
 * promised. */
static size_t take_part(pp_link *l, const unsigned char *p, size_t used,
                        int64_t now) {
  size_t n = l->rx_len - l->rx_buf.len;
  pp_job *j = l->rx;

  if (n > used)
    n = used;
  if (pp_buf_put(&l->rx_buf, p, n) != 0)
    return SIZE_MAX; /* the job is lost with its worker, and says so */
  if (l->rx_buf.len == l->rx_len && l->rx_type != 0) {
    pp_buf whole = l->rx_buf;
    bool ok;

    memset(&l->rx_buf, 0, sizeof l->rx_buf);
    ok = pp_link_heard(l, l->rx_type, whole.data, whole.len, now);
    l->rx_type = 0;
    pp_buf_clear(&whole);
    return ok ? n : SIZE_MAX;
  }
  if (l->rx_buf.len == l->rx_len) {
    l->rx = NULL;
    note(l, j, (const unsigned char *)l->rx_head, now);
    pp_job_give_result(j, l->rx_buf.data, l->rx_len);
    memset(&l->rx_buf, 0, sizeof l->rx_buf);
    arrived(l, j, now);
  }
  return n;
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
    bool parts = l->rx != NULL || l->rx_type != 0;

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

/* --- life ----------------------------------------------------------------- */

static void finish(pp_link *l) {
  pp_engine *e = l->engine;
  bool far = l->place.ops == &pp_link_far_ops;

  pp_far_forget(l);
  if (far || l->generation == e->generation)
    pp_engine_lane_free(e, l->lane);
  else
    e->links[l->lane] = NULL; /* its worker may live a moment longer */
  for (int s = 0; s < 2; s++) {
    if (l->outlet[s].fd >= 0)
      close(l->outlet[s].fd);
    pp_buf_clear(&l->outlet[s].text);
  }
  if (l->lulled)
    pp_link_rouse(e);
  free(l->tx);
  free(l->has);
  free(l->sent);
  free(l->hanging);
  pp_buf_clear(&l->rx_buf);
  pp_lane_unmap(&l->map);
  free(l);
  e->closing--;
}

static void on_closed(uv_handle_t *h) {
  pp_link *l = h->data;

  if (--l->handles == 0)
    finish(l);
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

/* Have the zygote fork the worker; read what it writes. False with errno. */
static bool start_here(pp_link *l) {
  pp_zreq req = {.op = PP_Z_SPAWN, .lane = l->lane, .number = l->number};
  pp_engine *e = l->engine;
  int out[2] = {-1, -1}, err[2] = {-1, -1}, fds[2], why;

  if (open_pipe(out) != 0 || open_pipe(err) != 0)
    goto fail;
  fds[0] = out[1];
  fds[1] = err[1];
  if (pp_zygote_send(e->ctl, &req, fds, 2) != 0)
    goto fail;
  close(out[1]), close(err[1]);
  for (int k = 0; k < 2; k++) {
    pp_outlet *o = &l->outlet[k];

    o->fd = k == 0 ? out[0] : err[0];
    o->lane = l->map.lane;
    fcntl(o->fd, F_SETFL, fcntl(o->fd, F_GETFL) | O_NONBLOCK);
    if (uv_poll_init(&e->loop, &o->poll, o->fd) == 0) {
      o->poll.data = l;
      l->handles++;
      uv_poll_start(&o->poll, UV_READABLE, on_output);
    }
  }
  return true;
fail:
  why = errno;
  for (int k = 0; k < 2; k++) {
    if (out[k] >= 0)
      close(out[k]);
    if (err[k] >= 0)
      close(err[k]);
  }
  errno = why;
  return false;
}

pp_link *pp_link_open(pp_node *n, uint32_t number) {
  pp_server *s = n->server;
  pp_engine *e = s->engine;
  pp_link *l = calloc(1, sizeof *l);
  int lane = -1, why;

  if (l == NULL)
    return NULL;
  if (n->far == NULL && e->zygote_gone) {
    errno = ECHILD;
    goto fail;
  }
  l->engine = e;
  l->server = s;
  l->node = n;
  l->number = number;
  l->seat = n->seats[number - 1];
  l->generation = e->generation;
  for (int k = 0; k < 2; k++) {
    pp_outlet *o = &l->outlet[k];

    o->fd = -1;
    o->which = k;
    o->dirty = &e->dirty[k];
    o->to = &e->out[k];
    o->meter = &e->meter;
    o->mode = s->output;
    if (s->by_host)
      snprintf(o->prefix, sizeof o->prefix, "[%s] ", pp_node_name(n));
    else
      snprintf(o->prefix, sizeof o->prefix, "[%s/%u] ", pp_node_name(n),
               number);
  }
  lane = pp_engine_lane(e, l);
  if (lane < 0)
    goto fail;
  l->lane = (uint32_t)lane;
  if (pp_shm_grow(e->shm, l->lane) != 0 ||
      pp_lane_map(e->shm, l->lane, &l->map) != 0)
    goto fail;
  if (n->far == NULL)
    l->berth = pp_berth_new(&e->berths, l);
  l->map.lane->berth = l->berth != NULL ? l->berth->number : 0;
  if (n->far == NULL ? !start_here(l) : pp_far_start(l) != 0)
    goto fail;
  e->closing++;
  l->place.ops = n->far != NULL ? &pp_link_far_ops : &pp_link_ops;
  l->place.sched = &s->sched;
  l->place.domain = &n->domain;
  l->place.most = s->restart;
  l->place.delay = n->far != NULL ? n->far->rtt + 1 : 0;
  pp_link_configure(l);
  pp_crew_join(l);
  return l;
fail:
  why = errno;
  pp_berth_leave(l->berth);
  pp_lane_unmap(&l->map);
  if (lane >= 0)
    pp_engine_lane_free(e, (uint32_t)lane);
  free(l);
  errno = why;
  return NULL;
}

static void how_it_ended(const pp_link *l, int status, char *out, size_t size) {
  if (status == -2)
    snprintf(out, size, "host '%s' was lost (%s)", pp_node_name(l->node),
             l->far != NULL ? l->far->owner->why : "gone");
  else if (status < 0)
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

    pp_job *j = l->place.jobs.head;

    pp_outlet_read_to(o, o->read + LAST_WORDS);
    if (o->mode == PP_OUTPUT_JOB)
      pp_outlet_collect(o, o->read, j != NULL ? pp_job_output(j, k) : NULL);
    else
      pp_outlet_pass(o, o->read, true);
  }
}

void pp_link_hear(pp_place *p, pp_job *j, pp_buf out[2]) {
  pp_link *l = pp_link_of(p);

  for (int k = 0; k < 2 && p->jobs.head == j; k++) {
    pp_outlet *o = &l->outlet[k];
    pp_buf *b = o->mode == PP_OUTPUT_JOB ? pp_job_output(j, k) : NULL;

    if (b == NULL)
      continue;
    pp_outlet_collect(o, o->read, b);
    out[k] = *b;
    memset(b, 0, sizeof *b);
  }
}

void pp_link_died(pp_link *l, int status, int why, uint64_t maxrss) {
  pp_server *s = l->server;
  pp_engine *e = l->engine;
  char how[400];
  pp_job *j;

  if (l->dead)
    return;
  if (s != NULL && !s->closed) {
    pp_link_drain(l);
    pp_link_last_words(l);
  }
  l->dead = true;
  if (atomic_load(&l->map.lane->spins) != 0)
    atomic_fetch_sub(&e->hub->spinners, 1);
  pp_link_unsend(l);
  pp_link_disown(l);
  pp_link_unhang(l, true);
  pp_berth_leave(l->berth);
  l->berth = NULL;
  for (size_t w = 0; w < l->has_words; w++)
    for (uint64_t bits = l->has[w]; bits != 0; bits &= bits - 1)
      pp_engine_blob_lost(
          e, (uint32_t)(w * 64) + (uint32_t)__builtin_ctzll(bits), l->lane);
  l->has_words = 0;
  if (s != NULL) {
    how_it_ended(l, status, how, sizeof how);
    pp_node *n = l->node;

    if (n->workers[l->number - 1] == l) {
      n->workers[l->number - 1] = NULL;
      n->alive--;
    }
    pp_crew_leave(l);
    pp_sched_gone(&l->place);
    if (!l->retiring && !s->closed) {
      if (!e->ended)
        pp_log(PP_LOG_INFO, "%s", how);
      if (PP_UNLIKELY(e->trace != NULL))
        pp_trace_died(l, how);
      if (n->stats.maxrss < maxrss)
        n->stats.maxrss = maxrss;
      if (status == -1) {
        pp_node_refused(n, l->number, why);
      } else if (status >= 0) {
        n->refusals = 0;
        if (l->kill_at == 0) {
          n->deaths++;
          if (l->place.jobs.head == NULL)
            n->stats.lost++;
        }
      }
    }
    while ((j = pp_jobs_pop(&l->place.jobs)) != NULL) {
      if (j->flags & PP_JOB_GHOST) {
        pp_job_unref(j, &e->blobs);
        pp_link_stopped(l);
        continue;
      }
      if (j->flags & PP_JOB_CALL) {
        pp_everywhere_lost(l, j, how);
        continue;
      }
      j->attempts++;
      j->worker = l->number;
      pp_job_set_maxrss(j, maxrss);
      pp_server_lost(s, j, how);
    }
    pp_everywhere_gone(l);
    pp_server_tend(s, pp_now_ns());
    pp_everywhere_step(s);
  }
  if (l->handles == 0)
    finish(l);
  else
    for (int k = 0; k < 2; k++)
      if (l->outlet[k].poll.data != NULL)
        uv_close((uv_handle_t *)&l->outlet[k].poll, on_closed);
}

void pp_link_retire(pp_link *l) {
  unsigned char f[PP_FRAME_HEAD];

  if (l->retiring || l->dead)
    return;
  l->retiring = true;
  pp_everywhere_gone(l);
  pp_crew_leave(l);
  pp_frame_head(f, PP_F_QUIT, 0);
  if (pp_link_post(l, f, sizeof f) != 0)
    pp_link_kill(l);
  else
    pp_link_push(l);
}

void pp_link_kill(pp_link *l) {
  pp_zreq req = {.op = PP_Z_KILL, .lane = l->lane, .signal = SIGKILL};

  if (l->far != NULL)
    pp_far_kill(l, SIGKILL);
  if (l->place.ops == &pp_link_far_ops)
    return;
  pp_zygote_send(l->engine->ctl, &req, NULL, 0);
}
