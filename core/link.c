/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "blocks.h"
#include "crew.h"
#include "kin.h"
#include "link_impl.h"
#include "proc.h"
#include "trace.h"
#include "worker.h"
#include "zygote.h"

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

/* --- stopping ------------------------------------------------------------- */

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
  if (l->rx_own != NULL) {
    pp_ahead_end(&e->ahead, l->rx_own);
    pp_block_free(e->blocks, l->rx_own, l->rx_size);
  }
  pp_lane_unmap(&l->map);
  free(l);
  e->closing--;
}

static void on_closed(uv_handle_t *h) {
  pp_link *l = h->data;

  if (--l->handles == 0)
    finish(l);
}

/* Have the zygote fork the worker; read what it writes. False with errno. */
static bool start_here(pp_link *l) {
  pp_zreq req = {.op = PP_Z_SPAWN, .lane = l->lane, .number = l->number};
  pp_engine *e = l->engine;
  int out[2] = {-1, -1}, err[2] = {-1, -1}, fds[2], why;

  if (pp_proc_pipe(out) != 0 || pp_proc_pipe(err) != 0)
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
      if (!e->ended && status != -2) /* of hosts their connection tells */
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
