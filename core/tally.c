/* SPDX-License-Identifier: MIT */
#include "tally.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kin.h"

#define MS ((int64_t)1000000)
/* The shortest bins, and how often queues are looked at. */
#define WIDTH_NS MS
#define COUNT_NS (10 * MS)
/* What ran shorter ran so long: no clock is finer. */
#define SHORTEST_NS 32
#define WHY_MAX 200u
#define NAME_MAX_LEN 200u

/* --- bins ----------------------------------------------------------------- */

static void halve(pp_bins *b) {
  for (uint32_t i = 0; i < PP_BINS / 2; i++)
    b->busy[i] = b->busy[2 * i] + b->busy[2 * i + 1];
  memset(b->busy + PP_BINS / 2, 0, sizeof b->busy / 2);
  for (uint32_t i = 0; i < PP_BINS; i++) {
    uint64_t bit = b->trouble[i / 64] >> i % 64 & 1;

    b->trouble[i / 64] &= ~((uint64_t)1 << i % 64);
    b->trouble[i / 128] |= bit << i / 2 % 64;
  }
}

/* Bins twice as wide. */
static void widen(pp_tally *y) {
  y->width *= 2;
  for (uint32_t i = 0; i < PP_BINS / 2; i++)
    y->waiting[i] = y->waiting[2 * i] > y->waiting[2 * i + 1]
                        ? y->waiting[2 * i]
                        : y->waiting[2 * i + 1];
  memset(y->waiting + PP_BINS / 2, 0, sizeof y->waiting / 2);
  for (uint32_t n = 0; n < y->trace->nnodes; n++)
    for (uint32_t i = 0; i < y->trace->nodes[n]->n; i++)
      if (y->trace->nodes[n]->v[i] != NULL &&
          y->trace->nodes[n]->v[i]->bins != NULL)
        halve(y->trace->nodes[n]->v[i]->bins);
}

/* The bin of a time; bins that do not reach so far are widened. */
static uint32_t bin_of(pp_tally *y, int64_t at) {
  int64_t since = at > y->origin ? at - y->origin : 0;

  while (since / y->width >= PP_BINS)
    widen(y);
  return (uint32_t)(since / y->width);
}

/* The share of [from, to] that is `run`, spread over the bins. */
static void fill(pp_tally *y, pp_tworker *w, int64_t from, int64_t to,
                 int64_t run, bool trouble) {
  uint32_t last = bin_of(y, to), i = bin_of(y, from);
  double share = to > from ? (double)run / (double)(to - from) : 0;
  pp_bins *b = w->bins;

  if (b == NULL)
    b = w->bins = calloc(1, sizeof *b);
  if (b == NULL)
    return;
  if (trouble)
    b->trouble[last / 64] |= (uint64_t)1 << last % 64;
  if (i == last) {
    b->busy[i] += (float)run;
    return;
  }
  for (; i <= last; i++) {
    int64_t begin = y->origin + (int64_t)i * y->width, end = begin + y->width;

    b->busy[i] += (float)(share * (double)((end < to ? end : to) -
                                           (begin > from ? begin : from)));
  }
}

/* --- jobs ----------------------------------------------------------------- */

static char *copy(const char *s, size_t n, size_t most) {
  return strndup(s, n < most ? n : most);
}

static void note(pp_tjob *k, const pp_attempt *a) {
  const pp_job *j = a->job;

  memset(k, 0, sizeof *k);
  k->at = a->at;
  k->label = a->label;
  if (j->more != NULL && j->more->name != NULL)
    k->name = copy(j->more->name, strlen(j->more->name), NAME_MAX_LEN);
  k->id = j->id;
  k->begun = a->begun;
  k->ended = a->ended;
  k->queued = a->sent - a->queued;
  k->run = j->run;
  k->items = j->items;
  k->attempt = a->number;
  k->outcome = (uint8_t)a->outcome;
  k->kind = (uint8_t)a->kind;
}

/* There are too many to keep each. */
static void forget_all(pp_tally *y) {
  for (uint32_t i = 0; i < y->nall; i++)
    free(y->all[i].name);
  free(y->all);
  y->all = NULL;
  y->nall = 0;
}

static void keep(pp_tally *y, const pp_attempt *a) {
  uint32_t i = y->nslowest;

  if (y->all != NULL && y->nall < PP_TALLY_JOBS)
    note(&y->all[y->nall++], a);
  else if (y->all != NULL)
    forget_all(y);
  if (a->returned >= y->last) {
    free(y->end.name);
    note(&y->end, a);
  }
  if (i == PP_TALLY_SLOWEST) {
    if (y->slowest[--i].run >= a->job->run)
      return;
    free(y->slowest[i].name);
  } else {
    y->nslowest++;
  }
  for (; i > 0 && y->slowest[i - 1].run < a->job->run; i--)
    y->slowest[i] = y->slowest[i - 1];
  note(&y->slowest[i], a);
}

static pp_cause *cause_of(pp_tally *y, int kind, const char *why, size_t n) {
  const char *end = memchr(why, '\n', n);
  pp_cause *c = y->causes;

  if (end != NULL)
    n = (size_t)(end - why);
  if (n > WHY_MAX)
    n = WHY_MAX;
  for (uint32_t i = 0; i < y->ncauses; i++, c++)
    if (c->kind == kind && strncmp(c->why, why, n) == 0 && c->why[n] == '\0')
      return c;
  if (y->ncauses == PP_TALLY_CAUSES)
    return &y->causes[PP_TALLY_CAUSES - 1];
  if (y->ncauses == PP_TALLY_CAUSES - 1) {
    why = "other reasons";
    n = strlen(why);
    kind = -1;
  }
  c->kind = kind;
  c->why = copy(why, n, WHY_MAX);
  if (c->why == NULL)
    return NULL;
  y->ncauses++;
  return c;
}

/* --- gaps ----------------------------------------------------------------- */

static int64_t between(int64_t from, int64_t to) {
  return to > from ? to - from : 0;
}

/* Why the worker did not run jobs before this one. */
static void gap(pp_tally *y, const pp_attempt *a) {
  int64_t since = a->at->until, way;
  bool first = since == 0;

  if (first)
    since = y->first;
  if (a->begun <= since)
    return;
  if (a->sent <= since) {
    y->idle[PP_IDLE_COST] += a->begun - since;
    return;
  }
  y->idle[PP_IDLE_SCRIPT] += between(since, a->queued);
  if (a->queued > since)
    since = a->queued;
  way = a->begun - a->sent;
  y->idle[first ? PP_IDLE_START : PP_IDLE_DRIVER] += between(since, a->sent);
  y->idle[first ? PP_IDLE_START : PP_IDLE_WAY] += way;
  if (!first && a->at->node->name != PP_NAME_LOCAL)
    y->far_way += way;
}

void pp_tally_settle(pp_tally *y) {
  for (uint32_t i = 0; i < y->trace->nnodes; i++) {
    const pp_tnode *n = y->trace->nodes[i];
    uint32_t seen = 0;

    for (uint32_t k = 0; k < n->n; k++)
      if (n->v[k] != NULL && n->v[k]->until > 0) {
        y->idle[PP_IDLE_TAIL] += between(n->v[k]->until, y->last);
        seen += k > 0;
      }
    if (n->ncpus > seen && y->last > y->first)
      y->idle[PP_IDLE_NEVER] += (n->ncpus - seen) * (y->last - y->first);
  }
}

/* --- adding --------------------------------------------------------------- */

double pp_tally_size(uint32_t i) { return exp2((double)i / 2); }

static void sort_in(pp_tally *y, int64_t run, uint32_t items) {
  double each = (double)run / (items > 0 ? items : 1);
  int i = (int)floor(log2(each < SHORTEST_NS ? SHORTEST_NS : each) * 2);

  y->sizes[i < (int)PP_TALLY_SIZES ? i : (int)PP_TALLY_SIZES - 1] +=
      items > 0 ? items : 1;
}

static void count(pp_tally *y, int64_t now) {
  uint64_t queued, running;
  uint32_t i, k;

  if (y->origin == 0) {
    y->counted = now;
    return;
  }
  pp_trace_count(y->trace->engine, &queued, &running);
  i = bin_of(y, now);
  for (k = bin_of(y, y->counted) + 1; k < i; k++)
    y->waiting[k] = y->queued;
  y->counted = now;
  y->queued = queued < UINT32_MAX ? (uint32_t)queued : UINT32_MAX;
  if (y->queued > y->waiting[i])
    y->waiting[i] = y->queued;
}

static void begin(pp_tally *y, const pp_attempt *a) {
  const pp_engine *e = y->trace->engine;

  y->origin = a->queued;
  for (const pp_server *s = e->servers; s != NULL; s = s->next)
    if (s->created < y->origin)
      y->origin = s->created;
}

void pp_tally_add(pp_tally *y, const pp_attempt *a) {
  const pp_job *j = a->job;
  bool failed = a->outcome == PP_TRACE_FAILED;
  bool trouble = failed || a->outcome == PP_TRACE_AGAIN;
  pp_cause *c;

  if (y->origin == 0)
    begin(y, a);
  if (trouble && (c = cause_of(y, a->kind, a->why, a->why_len)) != NULL) {
    c->failed += failed;
    c->again += !failed;
  }
  y->failed += failed;
  y->again += a->outcome == PP_TRACE_AGAIN;
  y->unfinished += a->outcome == PP_TRACE_UNFINISHED;
  if (a->at == NULL) {
    y->never++;
    return;
  }
  if (y->first == 0 || a->queued < y->first)
    y->first = a->queued;
  if (pp_job_kin(j) == NULL || a->begun > a->at->until)
    gap(y, a);
  fill(y, a->at, a->begun, a->ended, j->run, trouble);
  if (a->at->first == 0)
    a->at->first = a->begun;
  a->at->busy += j->run;
  y->sending += a->begun - a->sent;
  y->returning += a->returned - a->ended;
  y->run += j->run;
  y->cpu += j->cpu;
  y->attempts++;
  keep(y, a);
  if (y->last < a->returned)
    y->last = a->returned;
  if (!(j->flags & PP_JOB_CALL) && a->outcome != PP_TRACE_AGAIN &&
      a->outcome != PP_TRACE_UNFINISHED) {
    uint32_t n = j->items > 0 ? j->items : 1;

    y->jobs += n;
    a->at->njobs += n;
    sort_in(y, j->run, j->items);
  }
  if (a->returned - y->counted > COUNT_NS)
    count(y, a->returned);
}

void pp_tally_table(pp_tally *y, const char *text, size_t n) {
  (void)pp_buf_put(&y->tables, text, n);
}

int64_t pp_tally_tick(pp_tally *y, int64_t now) {
  if (now - y->counted > COUNT_NS)
    count(y, now);
  return -1; /* whatever wakes ppsh is time enough */
}

/* --- the file ------------------------------------------------------------- */

int pp_tally_open(pp_trace *t, const char *path, pp_tally **out) {
  static const char meanwhile[] =
      "<!doctype html><meta charset=\"utf-8\"><title>ppsh report</title>\n"
      "<p>The run that this page is to tell about has not ended yet, or it was "
      "killed.\n";
  pp_tally *y = calloc(1, sizeof *y);

  *out = NULL;
  if (y == NULL || (y->path = strdup(path)) == NULL ||
      (y->all = calloc(PP_TALLY_JOBS, sizeof *y->all)) == NULL) {
    fputs("ppsh: not enough memory\n", stderr);
    goto fail;
  }
  y->trace = t;
  y->width = WIDTH_NS;
  y->fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (y->fd < 0) {
    fprintf(stderr, "ppsh: cannot write the report '%s': %s\n", path,
            strerror(errno));
    goto fail;
  }
  if (lseek(y->fd, 0, SEEK_CUR) == 0)
    (void)!write(y->fd, meanwhile, sizeof meanwhile - 1);
  *out = y;
  return 0;
fail:
  if (y != NULL) {
    free(y->all);
    free(y->path);
  }
  free(y);
  return PP_ESYS;
}

int pp_tally_fd(const pp_tally *y) { return y->fd; }

void pp_tally_close(pp_tally *y) {
  forget_all(y);
  for (uint32_t i = 0; i < y->nslowest; i++)
    free(y->slowest[i].name);
  free(y->end.name);
  for (uint32_t i = 0; i < y->ncauses; i++)
    free(y->causes[i].why);
  for (uint32_t n = 0; n < y->trace->nnodes; n++)
    for (uint32_t i = 0; i < y->trace->nodes[n]->n; i++)
      if (y->trace->nodes[n]->v[i] != NULL)
        free(y->trace->nodes[n]->v[i]->bins);
  pp_buf_clear(&y->tables);
  close(y->fd);
  free(y->path);
  free(y);
}
