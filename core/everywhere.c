/* SPDX-License-Identifier: MIT */
#include "everywhere.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine.h"
#include "link.h"

/* The call being made or next to be; NULL: none. */
static pp_call *current(const pp_server *s) {
  return s->sched.era < s->calls.n ? s->calls.v[s->sched.era] : NULL;
}

static bool runs(const pp_call *c) {
  return c != NULL && c->state == PP_CALL_RUNS;
}

/* --- how it went ---------------------------------------------------------- */

static void forget(pp_server *s, pp_job **run) {
  pp_job_unref(*run, &s->engine->blobs);
  *run = NULL;
}

int pp_everywhere_seats(pp_server *s, uint32_t n) {
  pp_calls *a = &s->calls;
  pp_seat *seats;

  if (n <= a->nseats)
    return 0;
  for (uint32_t i = 0; i < a->n; i++)
    if (a->v[i]->runs != NULL) {
      pp_job **v = realloc(a->v[i]->runs, n * sizeof *v);

      if (v == NULL)
        return PP_ENOMEM;
      memset(v + a->nseats, 0, (n - a->nseats) * sizeof *v);
      a->v[i]->runs = v;
    }
  seats = realloc(a->seats, n * sizeof *seats);
  if (seats == NULL)
    return PP_ENOMEM;
  memset(seats + a->nseats, 0, (n - a->nseats) * sizeof *seats);
  a->seats = seats;
  a->nseats = n;
  return 0;
}

void pp_everywhere_release(pp_server *s, pp_call *c) {
  forget(s, &c->here);
  for (uint32_t i = 0; c->runs != NULL && i < s->calls.nseats; i++)
    forget(s, &c->runs[i]);
  free(c->runs);
  c->runs = NULL;
}

void pp_everywhere_free(pp_server *s) {
  pp_calls *a = &s->calls;

  for (uint32_t i = 0; i < a->n; i++) {
    pp_everywhere_release(s, a->v[i]);
    pp_job_unref(a->v[i]->model, &s->engine->blobs);
    free(a->v[i]);
  }
  for (uint32_t i = 0; i < a->nseats; i++)
    forget(s, &a->seats[i].failed);
  forget(s, &a->here.failed);
  free(a->v);
  free(a->seats);
  memset(a, 0, sizeof *a);
}

pp_job *pp_everywhere_run(const pp_server *s, const pp_call *c, uint32_t seat) {
  pp_job *run;

  if (seat == PP_HERE)
    return !pp_server_here(s) ? NULL
           : c->here != NULL  ? c->here
                              : s->calls.here.failed;
  run = c->runs != NULL ? c->runs[seat] : NULL;
  return run != NULL ? run : s->calls.seats[seat].failed;
}

/* Note how the call went at a seat, or here; the run's reference passes. */
static void record(pp_server *s, pp_call *c, uint32_t seat, pp_job *run) {
  pp_job **at;

  if (!runs(c) || c->runs == NULL) {
    pp_job_unref(run, &s->engine->blobs);
    return;
  }
  at = seat != PP_HERE ? &c->runs[seat] : &c->here;
  forget(s, at);
  *at = run;
}

static void store_error(pp_job *run, int kind, const char *msg) {
  pp_buf b = {0};

  if (pp_error_body(&b, kind, msg, strlen(msg), "", 0) == 0)
    pp_job_store(run, b.data, b.len);
  pp_buf_clear(&b);
}

/* The first line of what an error says. */
static void message_of(const pp_job *run, char *out, size_t size) {
  pp_error_view v;
  const char *end;

  snprintf(out, size, "no reason known");
  if (pp_error_parse(run->result, run->result_len, &v) != 0)
    return;
  end = memchr(v.msg, '\n', v.msg_len);
  snprintf(out, size, "%.*s", (int)(end != NULL ? end - v.msg : (int)v.msg_len),
           v.msg);
}

/* --- places that are not used --------------------------------------------- */

bool pp_everywhere_hopeless(const pp_server *s) {
  if (pp_server_here(s))
    return s->calls.here.failed != NULL;
  for (const pp_node *n = s->local; n != NULL; n = n->next)
    if (n->barred < n->ncpus || (n->expected && n->ncpus == 0))
      return false;
  return true;
}

/* Say what failed in a worker of the node (NULL: of any) and what comes of
 * that; false when nothing has. */
static bool say_failed(const pp_server *s, const pp_node *n, const char *what,
                       char *out, size_t size) {
  char text[300] = "";

  if (pp_server_here(s) && s->calls.here.failed != NULL &&
      (n == NULL || n == s->local))
    message_of(s->calls.here.failed, text, sizeof text);
  for (uint32_t i = 0; i < s->calls.nseats && *text == '\0'; i++)
    if (s->calls.seats[i].failed != NULL &&
        (n == NULL || n == s->calls.seats[i].node))
      message_of(s->calls.seats[i].failed, text, sizeof text);
  if (*text != '\0')
    snprintf(out, size, "%s: a call of everywhere failed: %s", what, text);
  return *text != '\0';
}

void pp_everywhere_why_not(const pp_node *n, bool all, char *out, size_t size) {
  say_failed(n->server, n,
             all ? "no worker can be used" : "not all workers can be used", out,
             size);
}

void pp_everywhere_why(const pp_server *s, char *out, size_t size) {
  if (say_failed(s, NULL, "no worker can be used", out, size))
    return;
  snprintf(out, size, "no worker is left or to be expected");
  for (const pp_node *n = s->local->next; n != NULL; n = n->next)
    if (n->reason != NULL && *n->reason != '\0') {
      size_t len = strlen(out);

      snprintf(out + len, size - len, "%s '%s': %s",
               n == s->local->next ? ": host" : "; host", pp_node_name(n),
               n->reason);
    }
}

/* This worker's place is used no more. The run's reference passes. */
static void bar(pp_link *l, pp_call *c, pp_job *run) {
  pp_server *s = l->server;
  pp_seat *seat = &s->calls.seats[l->seat];
  char text[400];

  if (l->retiring || seat->failed != NULL) {
    pp_job_unref(run, &s->engine->blobs);
    return;
  }
  seat->failed = run;
  seat->call = c->number;
  seat->deaths = 0;
  s->calls.barred++;
  l->node->barred++;
  seat->node = l->node;
  message_of(run, text, sizeof text);
  pp_log(PP_LOG_WARN,
         "worker %u of '%s' is not used: a call of everywhere failed: %s",
         l->number, pp_node_name(l->node), text);
  pp_link_retire(l);
  pp_server_want(s);
  pp_server_hopeless(s);
}

static void pardon(pp_server *s, pp_seat *seat) {
  if (seat->failed != NULL) {
    forget(s, &seat->failed);
    s->calls.barred--;
    seat->node->barred--;
  }
  seat->deaths = 0;
}

static void pardon_here(pp_server *s) {
  forget(s, &s->calls.here.failed);
  s->calls.here.deaths = 0;
}

void pp_everywhere_pardon_node(pp_node *n) {
  for (uint32_t i = 0; i < n->cap; i++)
    pardon(n->server, &n->server->calls.seats[n->seats[i]]);
}

void pp_everywhere_pardon(pp_server *s) {
  for (uint32_t i = 0; i < s->calls.nseats; i++)
    pardon(s, &s->calls.seats[i]);
  pardon_here(s);
}

/* --- one worker ----------------------------------------------------------- */

pp_job *pp_everywhere_job(pp_server *s, const pp_call *c, uint32_t number) {
  const pp_job *model = c->model;
  pp_job *run = pp_job_new(model->body_len);

  if (run == NULL)
    goto fail;
  if (model->more != NULL) {
    const pp_more *m = model->more;
    pp_blob **deps = calloc(m->ndeps + (size_t)1, sizeof *deps);

    if (deps == NULL || pp_job_more(run) == NULL) {
      free(deps);
      goto fail;
    }
    for (uint32_t i = 0; i < m->ndeps; i++)
      deps[i] = pp_blob_ref(m->deps[i]);
    run->more->deps = deps;
    run->more->ndeps = m->ndeps;
    run->more->mods = m->mods;
    run->more->memory = m->memory;
    run->more->seed = m->seed;
  }
  run->fn = pp_blob_ref(model->fn);
  run->setting = model->setting != NULL ? pp_blob_ref(model->setting) : NULL;
  memcpy(run->body, model->body, model->body_len);
  run->wire = model->wire;
  if (pp_job_args(model) != NULL &&
      pp_job_give_args(run, pp_cargo_ref(pp_job_args(model))) != 0)
    goto fail;
  if (c->runs == NULL || c->state != PP_CALL_RUNS)
    run->wire |= PP_JOBF_QUIET;
  run->flags = PP_JOB_CALL;
  run->server = s;
  run->id = c->number;
  run->timeout = model->timeout;
  run->submitted = pp_now_ns();
  run->worker = number;
  return run;
fail:
  pp_job_unref(run, &s->engine->blobs);
  return NULL;
}

/* Have the worker make the call. */
static void make(pp_link *l, pp_call *c) {
  pp_engine *e = l->engine;
  pp_job *run = pp_everywhere_job(l->server, c, l->number);

  if (run == NULL)
    goto fail;
  l->call = run;
  e->calls++;
  if (pp_sched_give(&l->place, run) == 0)
    return;
  l->call = NULL;
  e->calls--;
  pp_job_unref(run, &e->blobs);
fail:
  pp_link_kill(l); /* begin anew */
}

void pp_everywhere_next(pp_link *l) {
  pp_server *s = l->server;
  uint32_t last;

  if (s == NULL || s->closed || l->dead || l->retiring || l->call != NULL)
    return;
  last = s->sched.era + runs(current(s));
  for (; l->told < last; l->told++)
    if (s->calls.v[l->told]->state != PP_CALL_VOID) {
      make(l, s->calls.v[l->told]);
      return;
    }
  if (!runs(current(s)) && !l->place.open && l->duty == PP_DUTY_OPEN &&
      !l->serving)
    pp_sched_open(&s->sched, &l->place);
}

/* The run is over, whatever became of it. */
static void end_run(pp_engine *e, pp_job *run, bool failed) {
  e->calls--;
  run->state = failed ? PP_JOB_FAILED : PP_JOB_DONE;
  run->ended = pp_now_ns();
  pp_job_shed(run, &e->blobs);
  pp_job_done_with(run, &e->blobs);
}

static void leave(pp_link *l, pp_job *run, bool failed) {
  l->call = NULL;
  run->worker = l->number;
  end_run(l->engine, run, failed);
}

/* Is the place where this call has failed not to be used? */
static bool bars(const pp_job *run) {
  return run->result_len == 0 || run->result[0] != PP_KIND_UNSENDABLE;
}

void pp_everywhere_ran(pp_link *l, pp_job *run, bool failed) {
  pp_server *s = l->server;
  pp_call *c = s->calls.v[run->id];

  leave(l, run, failed);
  if (s->closed || c->state == PP_CALL_VOID || l->retiring) {
    pp_job_unref(run, &l->engine->blobs);
    return;
  }
  if (failed && bars(run)) {
    bar(l, c, run);
  } else {
    l->told++;
    s->calls.seats[l->seat].deaths = c->deaths = 0;
    c->good = true;
    record(s, c, l->seat, run);
    pp_everywhere_next(l);
  }
  pp_everywhere_step(s);
}

void pp_everywhere_lost(pp_link *l, pp_job *run, const char *how) {
  pp_server *s = l->server;
  pp_call *c = s->calls.v[run->id];
  pp_seat *seat = &s->calls.seats[l->seat];
  bool begun = pp_job_begun(run);
  char msg[300];

  leave(l, run, true);
  if (!l->retiring && !s->closed && c->state != PP_CALL_VOID) {
    l->node->stats.lost++;
    seat->deaths += begun;
    c->deaths += begun;
    if (seat->deaths >= PP_CALL_TRIES ||
        (!c->good && c->deaths >= PP_CALL_TRIES)) {
      snprintf(msg, sizeof msg, "%s in a call of everywhere", how);
      store_error(run, PP_KIND_LOST, msg);
      bar(l, c, run);
      return;
    }
  }
  pp_job_unref(run, &s->engine->blobs);
}

void pp_everywhere_gone(pp_link *l) {
  pp_call *c = current(l->server);

  if (runs(c) && c->runs != NULL)
    forget(l->server, &c->runs[l->seat]);
}

/* --- in the submitting process -------------------------------------------- */

bool pp_everywhere_due(const pp_server *s) {
  return pp_server_here(s) && runs(current(s));
}

pp_call *pp_everywhere_here(const pp_server *s, uint32_t *told) {
  uint32_t last = s->sched.era + runs(current(s));

  while (*told < last && s->calls.v[*told]->state == PP_CALL_VOID)
    ++*told;
  return *told < last ? s->calls.v[*told] : NULL;
}

/* The jobs of s do not run here any more. The run's reference passes. */
static void bar_here(pp_server *s, pp_job *run) {
  pp_seat *seat = &s->calls.here;
  char text[400];

  if (seat->failed != NULL) {
    pp_job_unref(run, &s->engine->blobs);
    return;
  }
  seat->failed = run;
  seat->call = (uint32_t)run->id;
  seat->deaths = 0;
  message_of(run, text, sizeof text);
  pp_log(PP_LOG_WARN,
         "worker 0 of 'local' is not used: a call of everywhere failed: %s",
         text);
  pp_server_hopeless(s);
}

bool pp_everywhere_ran_here(pp_server *s, pp_server *here, pp_job *run,
                            bool failed) {
  pp_call *c = s->calls.v[run->id];

  end_run(s->engine, run, failed);
  if (s->closed || c->state == PP_CALL_VOID) {
    pp_job_unref(run, &s->engine->blobs);
    return false;
  }
  failed = failed && bars(run);
  if (failed) {
    bar_here(here, run);
  } else {
    here->calls.here.deaths = c->deaths = 0;
    c->good = true;
    record(s, c, PP_HERE, run);
  }
  pp_everywhere_step(s);
  return !failed;
}

void pp_everywhere_failed_here(pp_server *s, pp_server *here, pp_job *run,
                               int kind, const char *msg) {
  store_error(run, kind, msg);
  pp_everywhere_ran_here(s, here, run, true);
}

void pp_everywhere_lost_here(pp_server *s, pp_server *here, pp_job *run,
                             const char *how) {
  pp_call *c = s->calls.v[run->id];
  char msg[300];

  s->local->stats.lost++;
  c->deaths++;
  if (++here->calls.here.deaths >= PP_CALL_TRIES ||
      (!c->good && c->deaths >= PP_CALL_TRIES)) {
    snprintf(msg, sizeof msg, "%s in a call of everywhere", how);
    pp_everywhere_failed_here(s, here, run, PP_KIND_LOST, msg);
    return;
  }
  end_run(s->engine, run, true);
  pp_job_unref(run, &s->engine->blobs);
}

/* --- one call ------------------------------------------------------------- */

static void each_link(pp_server *s, void (*f)(pp_link *l)) {
  for (pp_node *n = s->local; n != NULL; n = n->next)
    for (uint32_t i = 0; i < n->cap; i++)
      if (n->workers[i] != NULL)
        f(n->workers[i]);
}

static void begin_at(pp_link *l) {
  if (l->dead || l->retiring)
    return;
  pp_sched_close(&l->server->sched, &l->place);
  pp_everywhere_next(l);
}

/* Has every worker there is or will be made it? One that cannot be started at
 * present is not waited for; it makes the call before its first job. */
static bool complete(const pp_server *s, const pp_call *c) {
  bool some = false, missing = false;

  if (pp_server_here(s))
    return c->here != NULL || s->calls.here.failed != NULL;
  for (const pp_node *n = s->local; n != NULL; n = n->next) {
    uint32_t have = n->barred;

    for (uint32_t i = 0; i < n->cap; i++) {
      const pp_link *l = n->workers[i];

      if (l == NULL || l->dead || l->retiring)
        continue;
      if (l->told <= c->number)
        return false;
      have++;
    }
    if (have < n->ncpus && n->refusals == 0)
      return false;
    missing |= have < n->ncpus;
    some |= have > 0;
  }
  return some || !missing;
}

void pp_everywhere_step(pp_server *s) {
  pp_calls *a = &s->calls;
  pp_call *c;

  if (a->stepping) {
    a->again = true;
    return;
  }
  a->stepping = true;
  do {
    a->again = false;
    while (!s->closed && (c = current(s)) != NULL) {
      if (c->state == PP_CALL_WAITS && c->ahead == 0) {
        c->state = PP_CALL_RUNS;
        each_link(s, begin_at);
      }
      if (c->state == PP_CALL_WAITS || (runs(c) && !complete(s, c)))
        break;
      if (runs(c))
        c->state = PP_CALL_OVER;
      pp_sched_era(&s->sched, s->sched.era + 1);
      each_link(s, pp_everywhere_next);
      pp_server_hopeless(s);
    }
  } while (a->again);
  a->stepping = false;
}

pp_call *pp_everywhere_call(pp_server *s, pp_job *model) {
  pp_calls *a = &s->calls;
  pp_call *c = calloc(1, sizeof *c);

  if (c == NULL)
    goto fail;
  c->runs = calloc(a->nseats + 1, sizeof(pp_job *));
  if (c->runs == NULL)
    goto fail;
  if (a->n == a->cap) {
    uint32_t cap = a->cap ? a->cap * 2 : 4;
    pp_call **v = realloc(a->v, cap * sizeof *v);

    if (v == NULL)
      goto fail;
    a->v = v;
    a->cap = cap;
  }
  c->number = a->n;
  c->model = model;
  c->ahead = s->pending;
  for (uint32_t i = s->sched.era; i < a->n; i++)
    c->ahead -= a->v[i]->ahead;
  a->v[a->n++] = c;
  pp_everywhere_step(s);
  return c;
fail:
  if (c != NULL)
    free(c->runs);
  free(c);
  pp_job_unref(model, &s->engine->blobs);
  return NULL;
}

/* The call that jobs of this era come before; NULL: none to be made. */
static pp_call *call_after(const pp_server *s, uint32_t era) {
  while (era < s->calls.n && s->calls.v[era]->state == PP_CALL_VOID)
    era++;
  return era < s->calls.n ? s->calls.v[era] : NULL;
}

void pp_everywhere_ended(pp_server *s, const pp_job *j) {
  pp_call *c = call_after(s, j->era);

  if (c != NULL && c->ahead > 0 && --c->ahead == 0)
    pp_everywhere_step(s);
}

/* A worker that has begun the call that is taken back. */
static void replace(pp_link *l, uint32_t number) {
  if (l->dead || l->retiring)
    return;
  if (l->call != NULL && l->told == number) {
    l->retiring = true;
    pp_link_kill(l);
  } else if (l->told > number) {
    pp_link_retire(l);
  }
}

void pp_everywhere_undo(pp_server *s, pp_call *c) {
  pp_call *next;
  bool began = c->state != PP_CALL_WAITS;

  if (!s->closed && c->state != PP_CALL_VOID) {
    c->state = PP_CALL_VOID;
    next = call_after(s, c->number);
    if (next != NULL)
      next->ahead += c->ahead;
    c->ahead = 0;
    s->calls.undone += began;
    for (pp_node *n = s->local; n != NULL && began; n = n->next)
      for (uint32_t i = 0; i < n->cap; i++)
        if (n->workers[i] != NULL)
          replace(n->workers[i], c->number);
    for (uint32_t i = 0; i < s->calls.nseats; i++)
      if (s->calls.seats[i].failed != NULL &&
          s->calls.seats[i].call == c->number)
        pardon(s, &s->calls.seats[i]);
    if (s->calls.here.call == c->number)
      pardon_here(s);
    pp_job_unref(c->model, &s->engine->blobs);
    c->model = NULL;
    pp_everywhere_step(s);
    pp_server_tend(s, pp_now_ns());
  }
  pp_everywhere_release(s, c);
}

/* A worker will not make the call that it has not made. */
static void miss(pp_server *s, pp_call *c, const pp_node *n, uint32_t seat,
                 uint32_t number, int kind, const char *msg) {
  pp_job *run;

  if (c->runs == NULL || pp_everywhere_run(s, c, seat) != NULL ||
      (run = pp_job_new(0)) == NULL)
    return;
  run->flags = PP_JOB_CALL;
  run->server = s;
  run->state = PP_JOB_FAILED;
  run->node = n->name;
  run->worker = number;
  store_error(run, kind, msg);
  record(s, c, seat, run);
}

void pp_everywhere_fail(pp_server *s, int kind, const char *msg) {
  for (uint32_t k = s->sched.era; k < s->calls.n; k++) {
    pp_call *c = s->calls.v[k];

    if (c->state == PP_CALL_VOID || (!s->closed && !runs(c)))
      continue;
    c->state = PP_CALL_RUNS;
    if (pp_server_here(s))
      miss(s, c, s->local, PP_HERE, 0, kind, msg);
    for (pp_node *n = s->local; n != NULL; n = n->next)
      for (uint32_t i = 0; i < n->ncpus; i++)
        miss(s, c, n, n->seats[i], i + 1, kind, msg);
    c->state = PP_CALL_OVER;
  }
  if (!s->closed)
    pp_everywhere_step(s);
}
