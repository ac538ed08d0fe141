/* SPDX-License-Identifier: MIT */
#include "trace.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kin.h"
#include "link_impl.h"
#include "report.h"
#include "serial_impl.h"
#include "tally.h"
#include "timeline.h"

/* --- nodes and workers ---------------------------------------------------- */

static pp_tnode *node_of(pp_trace *t, uint32_t server, uint16_t name) {
  pp_tnode *n, **v;

  for (uint32_t i = t->nnodes; i-- > 0;)
    if (t->nodes[i]->name == name && t->nodes[i]->server == server)
      return t->nodes[i];
  v = realloc(t->nodes, ((size_t)t->nnodes + 1) * sizeof *v);
  if (v != NULL)
    t->nodes = v;
  n = v != NULL ? calloc(1, sizeof *n) : NULL;
  if (n == NULL)
    return NULL;
  n->server = server;
  n->name = name;
  n->index = t->nnodes;
  t->nodes[t->nnodes++] = n;
  return n;
}

static pp_tworker *worker_of(pp_tnode *n, uint32_t number) {
  if (n == NULL)
    return NULL;
  if (number >= n->n) {
    uint32_t cap = number < 8 ? 9 : number + number / 2 + 1;
    pp_tworker **v = realloc(n->v, cap * sizeof *v);

    if (v == NULL)
      return NULL;
    memset(v + n->n, 0, (cap - n->n) * sizeof *v);
    n->v = v;
    n->n = cap;
  }
  if (n->v[number] == NULL &&
      (n->v[number] = calloc(1, sizeof(pp_tworker))) != NULL) {
    n->v[number]->node = n;
    n->v[number]->number = number;
  }
  return n->v[number];
}

static pp_tworker *worker_of_link(pp_trace *t, pp_link *l) {
  if (l->row == NULL && l->server != NULL)
    l->row = worker_of(node_of(t, l->server->number, l->node->name), l->number);
  return l->row;
}

/* Where the job at a place runs. */
static pp_tworker *worker_at(pp_trace *t, const pp_job *j) {
  if (j->place == NULL)
    return NULL;
  if (j->flags & PP_JOB_HERE) {
    const pp_serial *z = pp_serial_root((pp_serial *)(void *)j->place);

    return worker_of(node_of(t, z->server->number, PP_NAME_LOCAL), 0);
  }
  return worker_of_link(t, pp_link_of(j->place));
}

/* What is known of the nodes of a server that is still there. */
static void look_at(pp_trace *t, const pp_server *s) {
  for (const pp_node *n = s->local; n != NULL && !s->untraced; n = n->next) {
    pp_tnode *k = node_of(t, s->number, n->name);
    bool changed;

    if (k == NULL)
      continue;
    changed = k->state != n->state;
    k->state = n->state;
    k->stats = n->stats;
    if (k->ncpus < n->ncpus)
      k->ncpus = n->ncpus;
    if (n->reason != NULL && (changed || k->reason == NULL)) {
      free(k->reason);
      k->reason = strdup(n->reason);
    }
    if (changed && t->timeline != NULL)
      pp_timeline_node(t->timeline, k, n->reason);
  }
}

void pp_trace_name(const pp_trace *t, const pp_tnode *n, char *out,
                   size_t size) {
  const char *name = pp_engine_name(t->engine, n->name);

  if (n->server == 0)
    snprintf(out, size, "%s", name);
  else
    snprintf(out, size, "%s (%u)", name, n->server + 1);
}

/* --- attempts ------------------------------------------------------------- */

static void note_again(pp_trace *t, const pp_job *j, int64_t now) {
  struct pp_again *a = &t->again[t->nagain++ % 64];

  a->job = j;
  a->id = j->id;
  a->since = now;
}

/* Since when it was queued for this attempt. */
static int64_t queued_since(const pp_trace *t, const pp_job *j) {
  if (j->attempts > 1)
    for (uint32_t i = 0; i < 64; i++)
      if (t->again[i].job == j && t->again[i].id == j->id)
        return t->again[i].since;
  return j->submitted;
}

static void times_of(const pp_trace *t, pp_attempt *a, int64_t now) {
  const pp_job *j = a->job;
  int64_t sent = 0;

  a->queued = queued_since(t, j);
  a->returned = now;
  if (a->at == NULL)
    return;
  if (!(j->flags & PP_JOB_HERE)) {
    const pp_link *l = pp_link_of(j->place);

    if (l->sent != NULL)
      sent = l->sent[j->seq % PP_WINDOW];
  }
  a->begun = j->started < a->queued ? a->queued : j->started;
  a->sent = sent < a->queued || sent > a->begun ? a->begun : sent;
  a->ended = a->begun + j->run + pp_kin_waited(j, now);
  if (a->ended > now)
    a->ended = now;
  if (a->ended < a->begun)
    a->begun = a->ended;
  /* What a worker has run before cannot have taken longer; clocks of hosts are
   * known to some microseconds only. Jobs that wait for others lie around
   * those. */
  if (a->begun < a->at->until && pp_job_kin(j) == NULL) {
    a->begun = a->at->until < a->ended ? a->at->until : a->ended;
    if (a->sent > a->begun)
      a->sent = a->begun;
  }
}

static void tell(pp_trace *t, pp_attempt *a) {
  if (t->timeline != NULL)
    pp_timeline_add(t->timeline, a);
  if (t->tally != NULL)
    pp_tally_add(t->tally, a);
  if (a->at != NULL && a->at->until < a->ended)
    a->at->until = a->ended;
}

static void over(pp_trace *t, pp_job *j, int outcome, const char *why) {
  bool ran = (j->flags & PP_JOB_RAN) != 0;
  pp_attempt a = {.job = j, .outcome = outcome, .why = ""};
  int64_t now =
      outcome != PP_TRACE_AGAIN && j->ended > 0 ? j->ended : pp_now_ns();
  pp_job *parent = pp_kin_parent(j);
  pp_error_view v;

  if (t->ended || j->server->untraced)
    return;
  j->flags &= (uint16_t)~PP_JOB_RAN;
  a.at = ran ? worker_at(t, j) : NULL;
  a.number = ran ? j->attempts : 0;
  if (parent != NULL && parent->state == PP_JOB_SENT)
    a.from = worker_at(t, parent);
  if (why != NULL) {
    a.kind = PP_KIND_LOST;
    a.why = why;
    a.why_len = strlen(why);
  } else if (outcome != PP_TRACE_DONE &&
             pp_error_parse(j->result, j->result_len, &v) == 0) {
    a.kind = v.kind;
    a.why = v.msg;
    a.why_len = v.msg_len;
  }
  a.label = pp_label_of(&t->labels, j);
  times_of(t, &a, now);
  tell(t, &a);
  if (outcome == PP_TRACE_AGAIN)
    note_again(t, j, now);
}

/* Jobs that are running as all ends. */
static void unfinished(pp_trace *t, pp_link *l, int64_t now) {
  for (pp_job *j = l->place.jobs.head; j != NULL && pp_job_begun(j);
       j = j->next) {
    pp_attempt a = {.job = j, .outcome = PP_TRACE_UNFINISHED, .why = ""};

    if (j->flags & PP_JOB_GHOST)
      continue;
    a.at = worker_of_link(t, l);
    a.number = j->attempts + 1;
    j->started = l->place.ops->begun(&l->place, j);
    j->run = now - j->started - pp_kin_waited(j, now);
    a.label = pp_label_of(&t->labels, j);
    times_of(t, &a, now);
    tell(t, &a);
  }
}

void pp_trace_sent(pp_link *l, uint32_t seq) {
  if (l->sent == NULL)
    l->sent = calloc(PP_WINDOW, sizeof *l->sent);
  if (l->sent != NULL)
    l->sent[seq % PP_WINDOW] = pp_now_ns();
}

void pp_trace_died(pp_link *l, const char *how) {
  pp_trace *t = l->engine->trace;
  bool told = !t->ended && !l->server->untraced;
  pp_tworker *w = told ? worker_of_link(t, l) : NULL;

  if (t->timeline != NULL && w != NULL)
    pp_timeline_died(t->timeline, w, how);
}

/* --- the whole ------------------------------------------------------------ */

void pp_trace_count(const pp_engine *e, uint64_t *queued, uint64_t *running) {
  *running = e->in_job;
  for (const pp_server *s = e->servers; s != NULL; s = s->next)
    for (const pp_node *n = s->local; n != NULL && !s->untraced; n = n->next)
      for (uint32_t i = 0; i < n->cap; i++)
        *running += n->workers[i] != NULL && n->workers[i]->place.jobs.n > 0;
  *queued = e->pending > *running ? e->pending - *running : 0;
}

static void gone(pp_trace *t, pp_server *s) {
  pp_buf table = {0};

  if (t->ended || s->engine != t->engine) /* or of jobs that run here */
    return;
  look_at(t, s);
  if (t->tally != NULL && !s->untraced && pp_server_table(s, &table) == 0)
    pp_tally_table(t->tally, (const char *)table.data, table.len);
  pp_buf_clear(&table);
}

static int64_t tick(pp_trace *t, int64_t now) {
  int64_t next = -1, due;

  if (t->ended)
    return -1;
  for (const pp_server *s = t->engine->servers; s != NULL; s = s->next)
    look_at(t, s);
  if (t->timeline != NULL)
    next = pp_timeline_tick(t->timeline, now);
  if (t->tally != NULL) {
    due = pp_tally_tick(t->tally, now);
    if (next < 0 || (due >= 0 && due < next))
      next = due;
  }
  return next;
}

/* All but t, which servers of jobs that run here may still know. */
static void clear(pp_trace *t) {
  for (uint32_t i = 0; i < t->nnodes; i++) {
    for (uint32_t k = 0; k < t->nodes[i]->n; k++)
      free(t->nodes[i]->v[k]);
    free(t->nodes[i]->v);
    free(t->nodes[i]->reason);
    free(t->nodes[i]);
  }
  free(t->nodes);
  t->nodes = NULL;
  t->nnodes = 0;
  t->timeline = NULL;
  t->tally = NULL;
  t->ended = true;
  pp_labels_clear(&t->labels);
}

int pp_trace_begin(pp_engine *e) {
  const pp_options *o = e->options;
  pp_trace *t;
  int r = 0;

  if (o->trace == NULL && o->report == NULL)
    return 0;
  t = calloc(1, sizeof *t);
  if (t == NULL) {
    fputs("ppsh: not enough memory\n", stderr);
    return PP_ENOMEM;
  }
  t->over = over;
  t->gone = gone;
  t->tick = tick;
  t->engine = e;
  t->began = pp_now_ns();
  if (o->trace != NULL)
    r = pp_timeline_open(t, o->trace, &t->timeline);
  if (r == 0 && o->report != NULL)
    r = pp_tally_open(t, o->report, &t->tally);
  if (r == 0 && t->timeline != NULL && t->tally != NULL &&
      pp_report_same(pp_timeline_fd(t->timeline), pp_tally_fd(t->tally))) {
    fprintf(stderr, "ppsh: --trace and --report name the same file, '%s'\n",
            o->report);
    r = PP_EBAD;
  }
  if (r == 0) {
    e->trace = t;
    return 0;
  }
  if (t->timeline != NULL)
    pp_timeline_close(t->timeline);
  if (t->tally != NULL)
    pp_tally_close(t->tally);
  clear(t);
  free(t);
  return r;
}

bool pp_trace_end(pp_engine *e) {
  pp_trace *t = e->trace;
  int64_t now = pp_now_ns();
  bool ok = true;

  if (t == NULL || t->ended)
    return true;
  for (uint32_t i = 0; i < e->nlinks; i++)
    if (e->links[i] != NULL && !e->links[i]->dead &&
        e->links[i]->server != NULL && !e->links[i]->server->closed &&
        !e->links[i]->server->untraced)
      unfinished(t, e->links[i], now);
  for (pp_server *s = e->servers; s != NULL; s = s->next)
    gone(t, s);
  for (uint32_t i = 0; i < e->nlinks; i++)
    if (e->links[i] != NULL)
      e->links[i]->row = NULL;
  if (t->timeline != NULL)
    ok = pp_timeline_close(t->timeline);
  if (t->tally != NULL) {
    ok &= pp_report_write(t);
    pp_tally_close(t->tally);
  }
  clear(t);
  return ok;
}
