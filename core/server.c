/* SPDX-License-Identifier: MIT */
#include "server.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "choice.h"
#include "crew.h"
#include "depend.h"
#include "engine.h"
#include "kin.h"
#include "link.h"
#include "nest.h"
#include "prompt.h"
#include "trace.h"

#define SECOND ((int64_t)1000000000)

/* --- workers -------------------------------------------------------------- */

pp_server *pp_server_new(pp_engine *e, const pp_server_options *o) {
  pp_server *s = calloc(1, sizeof *s);
  int why;

  if (s == NULL)
    return NULL;
  s->engine = e;
  s->number = e->nservers++;
  s->created = pp_now_ns();
  s->retries = o->retries;
  s->restart = o->restart;
  s->output = o->output;
  s->by_host = o->by_host;
  s->timeout = o->timeout;
  s->memory = o->memory;
  s->seed = o->seed;
  s->seeded = o->seeded;
  if (pp_choices_begin(s) != 0 || pp_node_add(s, PP_NAME_LOCAL) == NULL ||
      pp_node_resize(s->local, o->ncpus) != 0) {
    errno = ENOMEM;
    goto fail;
  }
  if (o->ncpus > 0 && s->local->alive == 0 && errno != EAGAIN)
    goto fail;
  s->next = e->servers;
  e->servers = s;
  return s;
fail:
  why = errno;
  pp_everywhere_free(s);
  if (s->local != NULL)
    pp_node_free(s->local);
  pp_choices_clear(s);
  free(s);
  errno = why;
  return NULL;
}

void pp_server_hopeless(pp_server *s) {
  char why[400];

  if (s->closed)
    return;
  if (!pp_everywhere_hopeless(s)) {
    if (PP_UNLIKELY(s->sched.due != NULL))
      pp_choices_hopeless(s);
    return;
  }
  pp_everywhere_why(s, why, sizeof why);
  pp_server_fail_all(s, PP_KIND_CONNECT, why);
}

void pp_server_fail_all(pp_server *s, int kind, const char *msg) {
  pp_job *j;

  while ((j = s->blocked.head) != NULL) {
    pp_depend_unblock(j);
    pp_server_fail(s, j, kind, msg);
  }
  while ((j = pp_sched_first(&s->sched)) != NULL)
    pp_server_fail(s, j, kind, msg);
}

/* A begun job, still at its place, is lost or ended before its worker says that
 * it has: note how long it ran. */
static void cut_short(pp_node *n, pp_job *j, int64_t now) {
  int64_t begun = j->place->ops->begun(j->place, j);

  j->started = begun > j->submitted && begun <= now ? begun : j->submitted;
  j->run = begun > 0 ? now - j->started - pp_kin_waited(j, now) : 0;
  if (j->run < 0)
    j->run = 0;
  j->flags |= PP_JOB_RAN;
  if (!(j->flags & PP_JOB_CALL))
    n->stats.time += j->run;
}

static void unlist(pp_server **p, pp_server *s) {
  for (; *p != NULL; p = &(*p)->next)
    if (*p == s) {
      *p = s->next;
      return;
    }
}

static void each_link(pp_server *s, void (*f)(pp_link *l)) {
  for (pp_node *n = s->local; n != NULL; n = n->next)
    for (uint32_t i = 0; i < n->cap; i++)
      if (n->workers[i] != NULL)
        f(n->workers[i]);
}

static void quiesce(pp_link *l) {
  pp_link_drain(l);
  pp_sched_close(&l->server->sched, &l->place);
}

static void break_off(pp_link *l) {
  pp_server *s = l->server;
  int64_t now = pp_now_ns();
  pp_job *j;

  while ((j = pp_jobs_pop(&l->place.jobs)) != NULL)
    if (j->flags & PP_JOB_GHOST) {
      pp_job_unref(j, &l->engine->blobs);
      pp_link_stopped(l);
    } else {
      cut_short(l->node, j, now);
      if (!(j->flags & PP_JOB_CALL))
        l->node->stats.njobs++;
      j->attempts++;
      j->worker = l->number;
      pp_server_fail(s, j, PP_KIND_DESTROYED,
                     "the server was destroyed while this job ran");
    }
  pp_link_kill(l);
}

/* End its workers and its jobs. */
static void shut(pp_server *s) {
  pp_engine *e = s->engine;

  s->closed = true;
  each_link(s, quiesce);
  pp_server_fail_all(s, PP_KIND_DESTROYED,
                     "the server was destroyed before this job ended");
  each_link(s, break_off);
  for (pp_node *n = s->local; n != NULL; n = n->next)
    if (n->release != NULL)
      n->release(n);
  pp_nest_close(s);
  pp_everywhere_fail(s, PP_KIND_DESTROYED,
                     "the server was destroyed before this call ended");
  unlist(&e->servers, s);
  s->next = e->closed;
  e->closed = s;
}

void pp_server_destroy(pp_server *s) {
  if (s->closed)
    return;
  shut(s);
  pp_trace_gone(s->engine, s);
  if (s->engine->options->stats && !s->console)
    pp_server_table(s, &s->engine->past);
}

void pp_server_free(pp_server *s) {
  pp_engine *e = s->engine;
  pp_node *n;
  pp_job *j;

  if (e->ended) { /* its workers are gone */
    unlist(&e->servers, s);
  } else {
    pp_engine_unseen(e, s, "");
    if (!s->closed) { /* with jobs only where the script ends */
      e->dropped += s->console ? 0 : s->pending;
      if (e->options->stats && !s->console)
        pp_server_table(s, &e->past);
      pp_trace_gone(e, s);
      shut(s);
    }
  }
  unlist(&e->closed, s);
  for (pp_server **p = &e->idle; s->idle && *p != NULL; p = &(*p)->next_idle)
    if (*p == s) {
      *p = s->next_idle;
      break;
    }
  e->callbacks -= s->callbacks.n;
  while ((n = s->local) != NULL) {
    for (uint32_t i = 0; i < n->cap; i++)
      if (n->workers[i] != NULL) {
        while ((j = pp_jobs_pop(&n->workers[i]->place.jobs)) != NULL)
          pp_jobs_push(&s->ended, j);
        n->workers[i]->server = NULL;
      }
    s->local = n->next;
    pp_node_free(n);
  }
  while ((j = pp_jobs_pop(&s->ended)) != NULL ||
         (j = pp_jobs_pop(&s->callbacks)) != NULL ||
         (j = pp_jobs_pop(&s->blocked)) != NULL ||
         (j = pp_sched_first(&s->sched)) != NULL) {
    j->server = NULL;
    pp_job_unref(j, &e->blobs);
  }
  pp_choices_clear(s);
  pp_groups_clear(&s->groups);
  pp_deadlines_clear(&s->deadlines, &e->blobs);
  pp_everywhere_free(s);
  free(s);
}

void pp_server_resize(pp_server *s, uint32_t n) {
  pp_everywhere_pardon(s);
  if (pp_node_resize(s->local, n) != 0)
    return;
  for (pp_node *at = s->local; at != NULL; at = at->next)
    for (uint32_t i = 0; i < at->cap; i++)
      if (at->workers[i] != NULL)
        pp_link_configure(at->workers[i]);
  pp_everywhere_step(s);
  pp_server_hopeless(s);
}

uint32_t pp_server_ncpus(const pp_server *s) {
  uint32_t n = 0;

  for (const pp_node *at = s->local; at != NULL; at = at->next)
    n += at->ncpus;
  return n;
}

void pp_server_want(pp_server *s) {
  for (pp_node *n = s->local; n != NULL; n = n->next) {
    uint32_t want = n->refusals > 0 ? n->alive : n->ncpus;

    pp_domain_want(&n->domain, want > n->barred ? want - n->barred : 0,
                   n->ncpus == 0 && n->expected);
  }
}

pp_node *pp_server_node(const pp_server *s, const pp_job *j) {
  pp_node *n = s->local;

  while (n->name != j->node && n->next != NULL)
    n = n->next;
  return n->name == j->node ? n : s->local;
}

void pp_server_tend(pp_server *s, int64_t now) {
  for (pp_node *n = s->local; n != NULL; n = n->next)
    pp_node_tend(n, now);
}

pp_stats pp_server_sum(const pp_server *s) {
  pp_stats t = {0};

  for (const pp_node *n = s->local; n != NULL; n = n->next)
    pp_stats_add(&t, &n->stats);
  return t;
}

/* --- jobs ----------------------------------------------------------------- */

/* May it have to wait for another job? */
static bool waits(const pp_job *j) {
  if (j->fn->waits)
    return true;
  for (uint32_t i = 0, n = pp_job_ndeps(j); i < n; i++)
    if (pp_job_deps(j)[i]->waits)
      return true;
  return false;
}

/* Queue a job, if there is a worker to be expected. */
static void queue(pp_server *s, pp_job *j, bool front) {
  if (PP_UNLIKELY(pp_everywhere_hopeless(s))) {
    char why[400];

    pp_everywhere_why(s, why, sizeof why);
    pp_server_fail(s, j, PP_KIND_CONNECT, why);
  } else if (PP_UNLIKELY(pp_choice_hopeless(j))) {
    char why[400];

    pp_choice_why(j, why, sizeof why);
    pp_server_fail(s, j, PP_KIND_CONNECT, why);
  } else {
    pp_sched_add(&s->sched, j, front);
  }
}

static void enlist(pp_server *s, pp_job *j, int64_t now) {
  j->server = s;
  j->era = s->calls.n;
  j->submitted = now;
  if (s->engine->meter.can && !s->console)
    pp_meter_added(&s->engine->meter, j->items > 0 ? j->items : 1,
                   s->engine->pending == 0, now);
  s->pending++;
  s->engine->pending++;
  if (j->group != NULL)
    j->group->pending++;
}

void pp_server_add(pp_server *s, pp_job *j, int64_t now) {
  enlist(s, j, now);
  if (PP_UNLIKELY(waits(j))) {
    int r = pp_depend_begin(s, j);

    if (r == PP_DEPEND_FAILED)
      pp_server_ended(s, j, true);
    if (r != PP_DEPEND_READY)
      return;
  }
  queue(s, j, false);
}

int pp_server_add_child(pp_server *s, pp_job *parent, pp_job *j, uint32_t key,
                        int64_t now) {
  if (pp_kin_adopt(parent, j, key) != 0)
    return PP_ENOMEM;
  j->flags |= PP_JOB_CHILD;
  j->server = s;
  j->submitted = now;
  s->kids++;
  s->engine->pending++;
  pp_sched_add(&s->sched, j, false);
  if (j->state == PP_JOB_QUEUED)
    for (pp_node *n = s->local; n != NULL; n = n->next)
      if (n->serving > 0)
        pp_crew_serve(n);
  pp_server_tend(s, now);
  pp_server_hopeless(s); /* it may be over after this */
  return 0;
}

/*
 * An attempt of j is over: what it has submitted and has not ended is
 * cancelled, and what that has submitted; from the leaves up, so that whatever
 * runs in the midst of another is left before that.
 */
static void scatter(pp_server *s, pp_job *j) {
  while (pp_kin_child(j) != NULL) {
    pp_job *leaf = pp_kin_leaf(j), *up;

    do {
      up = pp_job_kin(leaf)->parent;
      pp_kin_leave(leaf);
      if (!s->closed)
        pp_server_cut(s, leaf, PP_KIND_CANCELLED,
                      "the job that submitted this one has ended");
      leaf = up;
    } while (leaf != j && pp_kin_child(leaf) == NULL);
  }
}

void pp_server_ended(pp_server *s, pp_job *j, bool failed) {
  pp_engine *e = s->engine;
  pp_promise waiters = {0};
  pp_job *cause = NULL;

  pp_trace_over(e, j, failed ? PP_TRACE_FAILED : PP_TRACE_DONE, NULL);
  if (PP_UNLIKELY(j->flags & PP_JOB_CALL)) {
    pp_everywhere_ran((pp_link *)(void *)j->place, j, failed);
    return;
  }
  scatter(s, j);
  pp_choice_drop(j);
  j->state = failed ? PP_JOB_FAILED : PP_JOB_DONE;
  if (j->ended == 0)
    j->ended = pp_now_ns();
  if (pp_job_promise(j) != NULL) {
    pp_promise *p = j->more->promise;

    pp_depend_settle(e, j);
    waiters = *p;
    p->waiters = NULL;
    p->n = p->cap = 0;
    if (p->value->state == PP_BLOB_FAILED)
      cause = pp_job_ref(pp_depend_root(j));
  }
  pp_job_shed(j, &e->blobs);
  if (failed && !pp_job_dropped(j))
    pp_server_node(s, j)->stats.failed++;
  s->engine->pending--;
  if (j->flags & PP_JOB_CHILD) {
    pp_job *parent = pp_kin_parent(j);

    s->kids--;
    if (parent != NULL && parent->state == PP_JOB_SENT)
      pp_link_answer((pp_link *)(void *)parent->place, parent, j);
    pp_kin_leave(j);
    pp_job_unref(j, &s->engine->blobs);
    return;
  }
  if (--s->pending == 0 && s->anchored && !s->idle) {
    s->idle = true;
    s->next_idle = s->engine->idle;
    s->engine->idle = s;
  }
  e->ends++;
  if (s->engine->meter.can && !s->console) {
    pp_meter_ended(&s->engine->meter, j->items > 0 ? j->items : 1, failed,
                   failed && pp_job_dropped(j));
    if (s->engine->pending == 0)
      pp_meter_erase(&s->engine->meter, 1);
  }
  if (j->group != NULL)
    j->group->pending--;
  if (j->flags & PP_JOB_CALLBACK) {
    pp_jobs_push(&s->callbacks, j);
    s->engine->callbacks++;
  } else if (!(j->flags & (PP_JOB_SEEN | PP_JOB_FORGET))) {
    j->flags |= PP_JOB_ENDED;
    pp_jobs_push(&s->ended, j);
  }
  if (PP_UNLIKELY(s->sched.era < s->calls.n))
    pp_everywhere_ended(s, j);
  if (PP_UNLIKELY(e->prompt != NULL))
    e->prompt->ended(e, j);
  if (!(j->flags & (PP_JOB_CALLBACK | PP_JOB_ENDED)))
    pp_job_unref(j, &e->blobs);
  if (waiters.n > 0)
    pp_depend_wake(e, &waiters, cause);
  pp_job_unref(cause, &e->blobs);
}

void pp_server_fail(pp_server *s, pp_job *j, int kind, const char *msg) {
  pp_buf b = {0};

  if (pp_error_body(&b, kind, msg, strlen(msg), "", 0) == 0)
    pp_job_store(j, b.data, b.len);
  pp_buf_clear(&b);
  pp_server_ended(s, j, true);
}

void pp_server_lost(pp_server *s, pp_job *j, const char *how) {
  char msg[300];

  pp_node *n = pp_server_node(s, j);

  n->stats.lost++;
  cut_short(n, j, pp_now_ns());
  if (j->attempts <= j->retries)
    pp_trace_over(s->engine, j, PP_TRACE_AGAIN, how);
  scatter(s, j);
  if (j->attempts <= j->retries) {
    n->stats.retried++;
    queue(s, j, true);
    return;
  }
  n->stats.njobs++;
  if (j->attempts > 1)
    snprintf(msg, sizeof msg, "%s while it ran this job (attempt %u of %u)",
             how, j->attempts, j->retries + 1);
  else
    snprintf(msg, sizeof msg, "%s while it ran this job", how);
  pp_server_fail(s, j, PP_KIND_LOST, msg);
}

bool pp_server_again(pp_server *s, pp_job *j) {
  if (j->more == NULL || j->more->error_retries == 0 || j->body == NULL)
    return false;
  pp_trace_over(s->engine, j, PP_TRACE_AGAIN, NULL);
  scatter(s, j);
  j->more->error_retries--;
  pp_server_node(s, j)->stats.retried++;
  queue(s, j, false);
  return true;
}

bool pp_server_stop(pp_server *s, pp_job *j, int kind, const char *msg) {
  if (j->state == PP_JOB_SENT) /* it may have ended, and those before it */
    j->place->ops->drain(j->place);
  return pp_server_cut(s, j, kind, msg);
}

bool pp_server_cut(pp_server *s, pp_job *j, int kind, const char *msg) {
  if (pp_job_over(j) || j->state == PP_JOB_ENDING)
    return false;
  scatter(s, j);
  if (j->state == PP_JOB_BLOCKED) {
    pp_depend_unblock(j);
  } else if (!pp_sched_take(&s->sched, j) &&
             !j->place->ops->withdraw(j->place, j)) {
    j->ended = pp_now_ns();
    cut_short(pp_server_node(s, j), j, j->ended);
    if (!(j->flags & PP_JOB_CALL))
      pp_server_node(s, j)->stats.njobs++;
    j->attempts++;
    j->place->ops->stop(j->place, j, kind);
  }
  pp_server_fail(s, j, kind, msg);
  return true;
}

int64_t pp_server_expire(pp_server *s, int64_t now) {
  int64_t next = -1;

  while (s->deadlines.n > 0 && s->deadlines.v[0].when <= now) {
    pp_deadline d = pp_deadlines_pop(&s->deadlines);
    pp_job *j = d.job;
    char msg[80];

    if (j->state == PP_JOB_SENT && j->seq == d.seq &&
        j->attempts == d.attempts) {
      int64_t at, waited;

      if (pp_job_kin(j) != NULL) /* it may be waiting for others */
        j->place->ops->drain(j->place);
      if (j->state != PP_JOB_SENT || j->seq != d.seq)
        goto done;
      at = j->place->ops->begun(j->place, j);
      waited = pp_kin_waited(j, now);
      if (at < 0)
        at = now;
      at += waited;
      if (pp_job_kin(j) != NULL && pp_job_kin(j)->since > 0) {
        int64_t left = at + j->timeout - now;

        (void)pp_deadlines_add(&s->deadlines,
                               now + (left > SECOND / 50 ? left : SECOND / 50),
                               j, &s->engine->blobs);
      } else if (at + j->timeout <= now) {
        snprintf(msg, sizeof msg, "the %s ran longer than its timeout of %g s",
                 j->flags & PP_JOB_CALL ? "call" : "job",
                 (double)j->timeout / 1e9);
        pp_server_stop(s, j, PP_KIND_TIMEOUT, msg);
      } else {
        (void)pp_deadlines_add(&s->deadlines, at + j->timeout, j,
                               &s->engine->blobs);
      }
    }
  done:
    pp_job_unref(j, &s->engine->blobs);
  }
  next = pp_deadlines_next(&s->deadlines);
  for (pp_node *n = s->local; n != NULL && s->stopping > 0; n = n->next)
    for (uint32_t i = 0; i < n->cap; i++) {
      pp_link *l = n->workers[i];

      if (l == NULL || l->kill_at == 0)
        continue;
      if (l->kill_at <= now)
        pp_link_kill(l), l->kill_at = now + SECOND;
      if (next < 0 || l->kill_at < next)
        next = l->kill_at;
    }
  return next;
}

static void hold_back(pp_link *l) {
  if (l->place.open)
    pp_sched_close(&l->server->sched, &l->place);
}

size_t pp_server_cancel_all(pp_server *s) {
  pp_jobs kept = {0};
  size_t n = 0;
  pp_job *j;
  pp_jobs blocked = {0};

  while ((j = s->blocked.head) != NULL) { /* before those they wait for */
    pp_depend_unblock(j);
    pp_jobs_push(&blocked, j);
  }
  if (pp_nest_has(s))
    n = pp_nest_cancel_all(s);
  each_link(s, hold_back);
  while ((j = pp_sched_first(&s->sched)) != NULL) {
    if (j->flags & PP_JOB_CHILD) { /* part of one that has started */
      pp_jobs_push(&kept, j);
      continue;
    }
    pp_server_fail(s, j, PP_KIND_CANCELLED, "the job was cancelled");
    n++;
  }
  while ((j = pp_jobs_pop(&blocked)) != NULL) {
    pp_server_fail(s, j, PP_KIND_CANCELLED, "the job was cancelled");
    n++;
  }
  while ((j = pp_jobs_pop(&kept)) != NULL)
    pp_sched_put(&s->sched, j, false);
  each_link(s, pp_everywhere_next);
  return n;
}

void pp_server_shorten(pp_job *j, uint32_t items) {
  pp_meter *m = &j->server->engine->meter;

  if (items == 0 || items >= j->items)
    return;
  if (m->can) /* what it gives up will be submitted again */
    pp_meter_ended(m, j->items - items, false, true);
  j->items = items;
}

uint32_t pp_server_cut_chunk(pp_job *j, int64_t least) {
  const pp_place_ops *ops = j->place != NULL ? j->place->ops : NULL;
  uint32_t kept = 0;
  int64_t begun;

  if (j->more != NULL && j->more->most > 0)
    return j->more->most;
  if (j->state != PP_JOB_SENT || ops->cut == NULL || j->items < 2)
    return 0;
  begun = ops->begun(j->place, j);
  if (begun < 0 && ops->ask == NULL) /* else it knows best */
    return 0;
  if (least > 0 && begun > 0 && pp_now_ns() - begun < least)
    return 0;
  kept = ops->cut(j->place, j, j->items);
  if (kept > 0 && j->server != NULL)
    pp_server_kept(j->server, j, kept);
  return kept;
}

void pp_server_kept(pp_server *s, pp_job *j, uint32_t items) {
  pp_more *more = pp_job_more(j);

  if (more == NULL)
    return; /* nobody will be told: it just ends early */
  more->most = items;
  pp_server_shorten(j, items);
  s->engine->ends++;
}

void pp_server_seen(pp_server *s, pp_job *j) {
  if (j->state == PP_JOB_FAILED)
    pp_depend_root(j)->flags |= PP_JOB_TOLD;
  if (j->flags & PP_JOB_SEEN)
    return;
  j->flags |= PP_JOB_SEEN;
  if (j->flags & PP_JOB_ENDED) {
    j->flags &= (uint16_t)~PP_JOB_ENDED;
    pp_jobs_remove(&s->ended, j);
    pp_job_unref(j, &s->engine->blobs);
  }
}
