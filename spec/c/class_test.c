/* SPDX-License-Identifier: MIT */
/* Jobs that are for some nodes only, and of several slots, over simulated
 * places: they run where they may, once, in order, and nobody is idle who could
 * run one. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sched.h"

enum { DOMAINS = 4, EACH = 4, PLACES = DOMAINS * EACH, CLASSES = 6 };

static int failures;

#define CHECK(e)                                                               \
  ((e) ? (void)0                                                               \
       : (failures++,                                                          \
          (void)printf("FAIL %s:%d %s\n", __FILE__, __LINE__, #e)))

/* A place that runs its jobs in order on a virtual clock. */
typedef struct sim {
  pp_place place;
  pp_job *running;
  int64_t until;
} sim;

/* A class and the domains that it is for. */
typedef struct kind {
  pp_class class;
  unsigned domains; /* bits */
} kind;

static struct {
  pp_sched sched;
  pp_domain domains[DOMAINS];
  sim sims[PLACES];
  kind kinds[CLASSES], wide;
  int64_t now;
  unsigned *runs;  /* by job id */
  int64_t *length; /* the same */
  size_t ended;
} w;

static unsigned number(const pp_domain *d) { return (unsigned)(d - w.domains); }

static bool has(const pp_class *c, const pp_domain *d) {
  const kind *k = (const kind *)(const void *)c;

  return (k->domains >> number(d) & 1) != 0;
}

/* May j run at domain d? */
static bool may(const pp_job *j, unsigned d) {
  return j->more == NULL || j->more->on == NULL ||
         has(j->more->on, &w.domains[d]);
}

static int sim_send(pp_place *p, pp_job *j) {
  j->flags = 0; /* not begun */
  CHECK(may(j, number(p->domain)));
  CHECK(p->holder == NULL);
  return 0;
}

static bool sim_recall(pp_place *p, pp_job *j) {
  (void)p;
  return j->flags == 0;
}

static const pp_place_ops ops = {.send = sim_send, .recall = sim_recall};

static void begin(sim *s) {
  pp_job *j = s->place.jobs.head;

  if (s->running != NULL || j == NULL)
    return;
  CHECK(s->place.holder == NULL);
  if (j->slots > 1) { /* its team does nothing else */
    const pp_place *m = s->place.team;

    CHECK(s->place.nteam + 1 == j->slots);
    for (uint32_t i = 0; i < s->place.nteam; i++, m = m->next)
      CHECK(m->domain == s->place.domain && m->jobs.n == 0 &&
            m->holder == &s->place);
  }
  s->running = j;
  j->flags = 1;
  s->until = w.now + w.length[j->id];
}

static void begin_all(void) {
  for (int i = 0; i < PLACES; i++)
    begin(&w.sims[i]);
}

/* Let the next job to end do so; false when none runs. */
static bool step(void) {
  sim *s = NULL;
  pp_job *j;

  for (int i = 0; i < PLACES; i++)
    if (w.sims[i].running != NULL && (s == NULL || w.sims[i].until < s->until))
      s = &w.sims[i];
  if (s == NULL)
    return false;
  j = s->running;
  w.now = s->until;
  s->running = NULL;
  w.runs[j->id]++;
  w.ended++;
  pp_sched_ended(&s->place, j);
  j->state = PP_JOB_DONE;
  begin_all();
  return true;
}

/* Places of this domain that do nothing and are kept for nobody. */
static unsigned idle(unsigned d) {
  unsigned n = 0;

  for (unsigned i = d * EACH; i < (d + 1) * EACH; i++)
    n += w.sims[i].place.jobs.n == 0 && w.sims[i].place.holder == NULL;
  return n;
}

/* Classes 0 to 3 are for one domain each, 4 for two, 5 for three. The general
 * queue is for all of them. */
static void begin_world(size_t njobs) {
  static const unsigned sets[CLASSES] = {1, 2, 4, 8, 5, 14};

  memset(&w, 0, sizeof w);
  w.runs = calloc(njobs, sizeof *w.runs);
  w.length = calloc(njobs, sizeof *w.length);
  for (unsigned i = 0; i < DOMAINS; i++)
    CHECK(pp_domain_add(&w.sched, &w.domains[i]) == 0);
  for (int i = 0; i < CLASSES; i++) {
    w.kinds[i] = (kind){.class = {.has = has}, .domains = sets[i]};
    CHECK(pp_class_add(&w.sched, &w.kinds[i].class) == 0);
  }
  w.wide = (kind){.class = {.has = has}, .domains = 15};
  CHECK(pp_class_add(&w.sched, &w.wide.class) == 0);
  w.sched.wide = &w.wide.class;
  for (int i = 0; i < PLACES; i++) {
    w.sims[i].place.ops = &ops;
    w.sims[i].place.domain = &w.domains[i / EACH];
    w.sims[i].place.sched = &w.sched;
    pp_sched_open(&w.sched, &w.sims[i].place);
  }
  for (int i = 0; i < DOMAINS; i++)
    pp_domain_want(&w.domains[i], EACH, false);
}

static void end_world(void) {
  for (int i = 0; i < PLACES; i++)
    pp_sched_close(&w.sched, &w.sims[i].place);
  for (int i = 0; i < CLASSES; i++)
    pp_class_remove(&w.kinds[i].class);
  pp_class_remove(&w.wide.class);
  for (int i = 0; i < DOMAINS; i++)
    pp_domain_remove(&w.domains[i]);
  pp_domain_remove(&w.sched.own);
  free(w.runs);
  free(w.length);
}

static pp_blob *new_fn(void) {
  pp_blob *b = calloc(1, sizeof *b);

  b->run_ns = -1;
  b->refs = 1 << 30;
  return b;
}

/* A job of class k, -1: none. */
static pp_job *new_job(pp_blob *fn, size_t id, int k, int64_t length) {
  pp_job *j = pp_job_new(64);

  j->fn = fn;
  j->id = id;
  j->submitted = (int64_t)id;
  w.length[id] = length;
  if (k >= 0)
    pp_job_more(j)->on = &w.kinds[k].class;
  return j;
}

static void drop_job(pp_job *j) {
  j->fn = NULL;
  if (j->more != NULL)
    j->more->on = NULL;
  pp_job_unref(j, NULL);
}

/* --- what is queued, and where it goes ------------------------------------ */

/* With every place of a domain busy, its jobs wait while others' go on; among
 * them priority counts, and then age. */
static void each_has_its_queue(void) {
  enum { N = 12 };
  pp_blob *fn = new_fn();
  pp_job *jobs[N];
  size_t order = 0;

  begin_world(N);
  for (size_t i = 0; i < N; i++) {
    jobs[i] = new_job(fn, i, i < 10 ? 0 : 1, 1000);
    fn->run_ns = 1000000000; /* nothing is sent behind another */
    if (i == 9)
      jobs[i]->priority = 1;
    pp_sched_add(&w.sched, jobs[i], false);
    begin_all();
  }
  CHECK(idle(0) == 0 && idle(1) == EACH - 2 && idle(2) == EACH);
  CHECK(w.kinds[0].class.queue.n == 6 && w.kinds[1].class.queue.n == 0);
  CHECK(pp_sched_head(&w.sched) == jobs[9]);
  CHECK(pp_domain_due(&w.domains[0]) && !pp_domain_due(&w.domains[1]));
  while (step())
    for (size_t i = 4; i < 9 && w.ended > 0;
         i++) /* in order, the urgent first */
      if (jobs[i]->state == PP_JOB_DONE) {
        CHECK(jobs[9]->state != PP_JOB_QUEUED);
        order = i > order ? i : order;
        for (size_t k = 4; k < i; k++)
          CHECK(jobs[k]->state != PP_JOB_QUEUED);
      }
  CHECK(order == 8);
  for (size_t i = 0; i < N; i++) {
    CHECK(w.runs[i] == 1);
    drop_job(jobs[i]);
  }
  end_world();
  free(fn);
}

/* A domain that comes is joined to the classes that have it, one that goes is
 * forgotten; a class that is stranded says so. */
static void domains_come_and_go(void) {
  pp_blob *fn = new_fn();
  pp_job *j;

  begin_world(1);
  for (unsigned i = 0; i < EACH; i++)
    pp_sched_close(&w.sched, &w.sims[i].place);
  w.sched.stranded = false;
  j = new_job(fn, 0, 0, 1000);
  pp_sched_add(&w.sched, j, false);
  CHECK(w.sched.stranded && j->state == PP_JOB_QUEUED);
  CHECK(!pp_sched_may(&w.sims[EACH].place, j));
  CHECK(pp_sched_may(&w.sims[0].place, j));
  pp_domain_remove(&w.domains[0]);
  CHECK(w.kinds[0].class.ndomains == 0 && w.kinds[4].class.ndomains == 1);
  memset(&w.domains[0], 0, sizeof w.domains[0]);
  CHECK(pp_domain_add(&w.sched, &w.domains[0]) == 0);
  CHECK(w.kinds[0].class.ndomains == 1 && w.domains[0].waiting == 1);
  pp_sched_open(&w.sched, &w.sims[2].place);
  begin_all();
  CHECK(w.sims[2].running == j);
  CHECK(step() && !step() && w.runs[0] == 1);
  drop_job(j);
  end_world();
  free(fn);
}

/* What is taken out of a class's queue is in it no more. */
static void jobs_are_taken_back(void) {
  enum { N = 40 };
  pp_blob *fn = new_fn();
  pp_job *jobs[N];

  begin_world(N);
  fn->run_ns = 1000000000;
  for (size_t i = 0; i < N; i++) {
    jobs[i] = new_job(fn, i, 2, 1000);
    pp_sched_add(&w.sched, jobs[i], false);
    begin_all();
  }
  for (size_t i = EACH; i < N; i += 2)
    CHECK(pp_sched_take(&w.sched, jobs[i]));
  while (step()) {
  }
  for (size_t i = 0; i < N; i++) {
    CHECK(w.runs[i] == (i < EACH || (i - EACH) % 2 == 1));
    drop_job(jobs[i]);
  }
  CHECK(w.kinds[2].class.queue.n == 0 && w.sched.due == NULL);
  end_world();
  free(fn);
}

/* --- all of it ------------------------------------------------------------ */

/* Many jobs of every class, submitted while others run. slots: some take
 * several places of one node. */
static void many(unsigned seed, uint32_t slots, int priorities) {
  enum { N = 3000 };
  pp_blob *fn = new_fn();
  static pp_job *jobs[N];
  size_t added = 0;

  srand(seed);
  begin_world(N);
  fn->run_ns = 1000000;
  do {
    while (added < N && (added < 20 || rand() % 3 != 0)) {
      pp_job *j = new_job(fn, added, rand() % (CLASSES + 1) - 1,
                          1000 + rand() % 2000000);

      j->slots =
          slots > 1 && rand() % 4 == 0 ? 1 + (uint32_t)rand() % slots : 1;
      j->priority = priorities > 0 ? rand() % priorities : 0;
      jobs[added++] = j;
      pp_sched_add(&w.sched, j, false);
      begin_all();
    }
    if (slots < 2) /* nobody is idle who could run something */
      for (unsigned d = 0; d < DOMAINS; d++) {
        if (idle(d) == 0)
          continue;
        CHECK(w.sched.queue.n == 0);
        for (int k = 0; k < CLASSES; k++)
          CHECK(w.kinds[k].class.queue.n == 0 ||
                !has(&w.kinds[k].class, &w.domains[d]));
      }
  } while (step() || added < N);
  CHECK(w.ended == N && w.sched.due == NULL && w.sched.nheld == 0 &&
        w.sched.nspans == 0);
  for (size_t i = 0; i < N; i++) {
    CHECK(w.runs[i] == 1);
    drop_job(jobs[i]);
  }
  end_world();
  free(fn);
}

int main(void) {
  each_has_its_queue();
  domains_come_and_go();
  jobs_are_taken_back();
  for (unsigned seed = 1; seed <= 20; seed++) {
    many(seed, 1, 0);
    many(seed, 1, 5);
    many(seed, EACH, 0);
    many(seed, EACH, 5);
  }
  printf(failures ? "%d checks failed\n" : "ok\n", failures);
  return failures != 0;
}
