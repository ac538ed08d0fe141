/* SPDX-License-Identifier: MIT */
/* The scheduler over simulated places: nothing lost, nothing twice, everybody
 * busy while there is work. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sched.h"

#define PLACES 16

static int failures;

#define CHECK(e)                                                               \
  ((e) ? (void)0                                                               \
       : (failures++,                                                          \
          (void)printf("FAIL %s:%d %s\n", __FILE__, __LINE__, #e)))

/* A place that runs its jobs in order on a virtual clock. */
typedef struct sim {
  pp_place place;
  pp_job *running;
  int64_t until, busy;
  bool refuses;
} sim;

typedef struct world {
  pp_sched sched;
  sim sims[PLACES];
  int64_t now;
  unsigned *runs; /* by job id */
  int64_t *length;
  size_t njobs, ended;
} world;

static world *w;

static int sim_send(pp_place *p, pp_job *j) {
  sim *s = (sim *)(void *)p;

  if (s->refuses)
    return PP_EAGAIN;
  j->flags = 0; /* not begun */
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
  s->running = j;
  j->flags = 1;
  s->until = w->now + w->length[j->id];
}

static void begin_all(void) {
  for (int i = 0; i < PLACES; i++)
    begin(&w->sims[i]);
}

/* Let the next job to end do so; false when none runs. */
static bool step(void) {
  sim *s = NULL;
  pp_job *j;

  for (int i = 0; i < PLACES; i++)
    if (w->sims[i].running != NULL &&
        (s == NULL || w->sims[i].until < s->until))
      s = &w->sims[i];
  if (s == NULL)
    return false;
  j = s->running;
  w->now = s->until;
  s->busy += w->length[j->id];
  s->running = NULL;
  w->runs[j->id]++;
  w->ended++;
  if (j->fn->run_ns < 0)
    j->fn->run_ns = w->length[j->id];
  else
    j->fn->run_ns += (w->length[j->id] - j->fn->run_ns) / 8;
  pp_sched_ended(&s->place, j);
  j->state = PP_JOB_DONE;
  begin_all();
  return true;
}

static pp_blob *new_fn(void) {
  pp_blob *b = calloc(1, sizeof *b);

  b->run_ns = -1;
  b->refs = 1 << 30;
  return b;
}

static void run_world(const char *what, size_t njobs, int64_t (*length)(void),
                      double least_busy) {
  pp_blob *fn = new_fn();
  pp_job **jobs = calloc(njobs, sizeof *jobs);
  int64_t busy = 0;

  w = calloc(1, sizeof *w);
  w->njobs = njobs;
  w->runs = calloc(njobs, sizeof *w->runs);
  w->length = calloc(njobs, sizeof *w->length);
  for (int i = 0; i < PLACES; i++) {
    w->sims[i].place.ops = &ops;
    pp_sched_open(&w->sched, &w->sims[i].place);
  }
  for (size_t i = 0; i < njobs; i++) {
    jobs[i] = pp_job_new(64);
    jobs[i]->id = i;
    jobs[i]->fn = fn;
    w->length[i] = length();
    pp_sched_add(&w->sched, jobs[i], false);
    begin_all();
  }
  while (step()) {
    if (w->ended == njobs / 2) { /* a place closes and comes back */
      sim *s = &w->sims[3];
      pp_job *j;

      pp_sched_close(&w->sched, &s->place);
      CHECK(s->place.jobs.n <= 1);
      j = s->place.jobs.head;
      if (j != NULL) { /* it was running: lost, to be run again */
        pp_jobs_remove(&s->place.jobs, j);
        s->running = NULL;
        pp_sched_add(&w->sched, j, true);
      }
      s->place.load = 0;
      pp_sched_open(&w->sched, &s->place);
      begin_all();
    }
  }
  for (size_t i = 0; i < njobs; i++) {
    CHECK(w->runs[i] == 1);
    CHECK(jobs[i]->state == PP_JOB_DONE);
    jobs[i]->fn = NULL;
    pp_job_unref(jobs[i], NULL);
  }
  for (int i = 0; i < PLACES; i++)
    busy += w->sims[i].busy;
  printf("%s: %zu jobs, %.1f %% busy\n", what, njobs,
         100.0 * (double)busy / ((double)w->now * PLACES));
  CHECK((double)busy >= least_busy * (double)w->now * PLACES);
  free(w->runs);
  free(w->length);
  free(w);
  free(jobs);
  free(fn);
}

static int64_t tiny(void) { return 500 + rand() % 1000; }
static int64_t even(void) { return 10000000; }
static int64_t mixed(void) { /* 1 us to 1 s */
  int64_t t = 1000;

  for (int n = rand() % 20; n > 0; n--)
    t *= 2;
  return t;
}

static void refusing_place_gets_nothing_until_it_has_room(void) {
  pp_sched s = {0};
  sim a = {.place = {.ops = &ops}, .refuses = true};
  pp_job *j = pp_job_new(64);
  pp_blob *fn = new_fn();

  j->fn = fn;
  pp_sched_open(&s, &a.place);
  pp_sched_add(&s, j, false);
  CHECK(s.queue.n == 1 && a.place.full);
  a.refuses = false;
  pp_sched_room(&a.place);
  CHECK(s.queue.n == 0 && a.place.jobs.n == 1);
  CHECK(pp_sched_take(&s, j));
  CHECK(a.place.jobs.n == 0 && s.idle == &a.place);
  pp_sched_add(&s, j, false);
  j->flags = 1;
  CHECK(!pp_sched_take(&s, j));
  j->fn = NULL;
  pp_job_unref(j, NULL);
  free(fn);
}

/* Jobs of a later era stay out of the way until theirs has come; a closed
 * place can be handed a job of its own. */
static void later_eras_wait(void) {
  pp_sched s = {0};
  sim a = {.place = {.ops = &ops}};
  pp_job *jobs[4];
  pp_blob *fn = new_fn();

  a.place.sched = &s;
  for (uint32_t i = 0; i < 4; i++) {
    jobs[i] = pp_job_new(64);
    jobs[i]->fn = fn;
    jobs[i]->era = i == 3 ? 0 : i; /* 0 1 2, and one for the place alone */
  }
  pp_sched_open(&s, &a.place);
  pp_sched_add(&s, jobs[2], false);
  pp_sched_add(&s, jobs[1], false);
  CHECK(s.held.n == 2 && s.queue.n == 0 && a.place.jobs.n == 0);
  pp_sched_add(&s, jobs[0], false);
  CHECK(a.place.jobs.head == jobs[0]);
  jobs[0]->flags = 1; /* begun */
  pp_sched_close(&s, &a.place);
  CHECK(pp_sched_give(&a.place, jobs[3]) == 0 && a.place.jobs.n == 2);
  pp_sched_ended(&a.place, jobs[0]);
  pp_sched_ended(&a.place, jobs[3]);
  CHECK(a.place.jobs.n == 0 && s.fat == 0);
  pp_sched_era(&s, 1);
  CHECK(s.held.n == 1 && s.queue.head == jobs[1]);
  CHECK(pp_sched_take(&s, jobs[2]) && s.held.n == 0);
  pp_sched_add(&s, jobs[2], false);
  CHECK(pp_sched_first(&s) == jobs[1] && pp_sched_first(&s) == jobs[2]);
  CHECK(pp_sched_first(&s) == NULL);
  for (uint32_t i = 0; i < 4; i++) {
    jobs[i]->fn = NULL;
    pp_job_unref(jobs[i], NULL);
  }
  free(fn);
}

/* Queued and removed in any order, they come out by priority, then as they
 * came; one that was there before comes first among its equals. */
static void queue_is_by_priority(void) {
  enum { N = 2000 };
  pp_sched s = {0};
  pp_job *jobs[N], *last = NULL, *j;
  size_t left = N;

  for (int i = 0; i < N; i++) {
    jobs[i] = pp_job_new(0);
    jobs[i]->id = (uint64_t)i;
    jobs[i]->priority = (rand() % 7 - 3) / 2.0;
    pp_sched_put(&s, jobs[i], false);
    if (i % 5 == 4) {
      int k = rand() % (i + 1);

      if (jobs[k] != NULL) {
        pp_sched_remove(&s, jobs[k]);
        if (k % 2 == 0) {
          pp_sched_put(&s, jobs[k], true);
          CHECK(jobs[k]->prev == NULL ||
                jobs[k]->prev->priority > jobs[k]->priority);
          pp_sched_remove(&s, jobs[k]);
        }
        pp_job_unref(jobs[k], NULL);
        jobs[k] = NULL;
        left--;
      }
    }
  }
  CHECK(s.queue.n == left && s.levels.root != NULL);
  while ((j = pp_sched_first(&s)) != NULL) {
    if (last != NULL) {
      CHECK(last->priority > j->priority ||
            (last->priority == j->priority && last->id < j->id));
      pp_job_unref(last, NULL);
    }
    last = j;
    left--;
  }
  pp_job_unref(last, NULL);
  CHECK(left == 0 && s.queue.n == 0 && s.levels.root == NULL);
}

/* --- jobs of several slots ------------------------------------------------ */

/* Places taken by what runs; no team member runs anything. */
static size_t taken_places(const sim *sims, int n) {
  size_t taken = 0;

  for (int i = 0; i < n; i++) {
    const pp_place *p = &sims[i].place;

    CHECK(p->holder == NULL || p->jobs.n == 0);
    if (p->jobs.n > 0)
      taken += p->span > 0 ? 1 + p->nteam : 1;
  }
  return taken;
}

static pp_job *new_job(pp_blob *fn, uint64_t id, uint32_t slots) {
  pp_job *j = pp_job_new(64);

  j->id = id;
  j->fn = fn;
  j->slots = slots;
  return j;
}

static void drop_job(pp_job *j) {
  j->fn = NULL;
  pp_job_unref(j, NULL);
}

/* A wide job waits until enough places are idle, holds them, and small ones
 * behind it wait for it. */
static void slots_are_held(void) {
  enum { N = 4 };
  pp_sched s = {0};
  sim sims[N];
  pp_blob *fn = new_fn();
  pp_job *small[6], *wide = new_job(fn, 10, 3);

  memset(sims, 0, sizeof sims);
  pp_sched_want(&s, N);
  for (int i = 0; i < N; i++) {
    sims[i].place.ops = &ops;
    pp_sched_open(&s, &sims[i].place);
  }
  for (int i = 0; i < 6; i++)
    small[i] = new_job(fn, (uint64_t)i, 0);
  for (int i = 0; i < 3; i++)
    pp_sched_add(&s, small[i], false);
  CHECK(s.queue.n == 0 && s.nidle == 1);
  pp_sched_add(&s, wide, false);
  pp_sched_add(&s, small[3], false);
  CHECK(s.queue.n == 2 && s.nidle == 1); /* the idle one waits for the wide */
  small[0]->flags = small[1]->flags = small[2]->flags = 1;
  pp_sched_ended(small[0]->place, small[0]);
  CHECK(s.queue.n == 2 && s.nidle == 2);
  pp_sched_ended(small[1]->place, small[1]);
  CHECK(wide->state == PP_JOB_SENT && s.queue.n == 1 && s.nidle == 0);
  CHECK(wide->place->span == 3 && wide->place->nteam == 2);
  CHECK(taken_places(sims, N) == 4);
  pp_sched_ended(small[2]->place, small[2]);
  CHECK(small[3]->state == PP_JOB_SENT && s.nidle == 0);
  /* One of higher priority comes first; equal ones wait. */
  pp_sched_add(&s, small[4], false);
  CHECK(small[4]->state == PP_JOB_QUEUED);
  wide->flags = 1;
  pp_sched_ended(wide->place, wide);
  CHECK(small[4]->state == PP_JOB_SENT && s.nspans == 0 && s.nidle == 2);
  pp_sched_add(&s, small[5], false);
  CHECK(s.nidle == 1);
  for (int i = 0; i < 6; i++)
    drop_job(small[i]);
  drop_job(wide);
  free(fn);
}

/* Places close, come back, and are lost under wide jobs. */
static void slots_follow_the_pool(void) {
  enum { N = 4 };
  pp_sched s = {0};
  sim sims[N], more = {.place = {.ops = &ops}};
  pp_blob *fn = new_fn();
  pp_job *wide = new_job(fn, 1, 4), *small = new_job(fn, 2, 1);
  pp_place *p, *member;

  memset(sims, 0, sizeof sims);
  pp_sched_want(&s, N);
  for (int i = 0; i < N - 1; i++) {
    sims[i].place.ops = &ops;
    pp_sched_open(&s, &sims[i].place);
  }
  pp_sched_add(&s, wide, false);
  CHECK(s.queue.n == 1); /* the fourth is to come */
  pp_sched_want(&s, 3);
  CHECK(s.queue.n == 0 && s.nidle == 0); /* it takes all there are */
  wide->flags = 1;
  p = wide->place;
  member = p->team;
  pp_sched_close(&s, member); /* lost */
  CHECK(p->nteam == 1 && member->holder == NULL);
  sims[3].place.ops = &ops;
  pp_sched_open(&s, &sims[3].place); /* and replaced */
  CHECK(p->nteam == 2 && sims[3].place.holder == p && s.nidle == 0);
  pp_sched_open(&s, &more.place); /* one more than it asked for */
  CHECK(s.nidle == 1);
  pp_sched_add(&s, small, false);
  CHECK(small->place == &more.place);
  pp_sched_close(&s, p); /* its worker is killed, the job begun */
  CHECK(p->jobs.n == 1 && p->nteam == 0 && s.nidle == 2);
  pp_sched_gone(p);
  CHECK(p->nteam == 0 && s.nidle == 2 && s.nspans == 0);
  pp_jobs_remove(&p->jobs, wide);
  wide->flags = 0;
  pp_sched_add(&s, wide, true);
  CHECK(wide->state == PP_JOB_QUEUED);
  CHECK(pp_sched_take(&s, wide)); /* cancelled in the queue */
  pp_sched_add(&s, wide, false);
  small->flags = 1;
  pp_sched_ended(small->place, small);
  CHECK(wide->state == PP_JOB_SENT && s.nidle == 0);
  CHECK(pp_sched_take(&s, wide)); /* cancelled at its place, not begun */
  CHECK(s.nidle == 3 && s.nspans == 0);
  drop_job(wide);
  drop_job(small);
  free(fn);
}

/* Jobs of any width: all run, never more than there is room for, and a wide
 * one does not wait for those that came after it. */
static void slots_among_many(void) {
  enum { N = 3000 };
  pp_blob *fn = new_fn();
  pp_job *jobs[N];
  uint64_t seen = 0;

  w = calloc(1, sizeof *w);
  w->njobs = N;
  w->runs = calloc(N, sizeof *w->runs);
  w->length = calloc(N, sizeof *w->length);
  pp_sched_want(&w->sched, PLACES);
  for (int i = 0; i < PLACES; i++) {
    w->sims[i].place.ops = &ops;
    pp_sched_open(&w->sched, &w->sims[i].place);
  }
  for (int i = 0; i < N; i++) {
    jobs[i] = new_job(fn, (uint64_t)i, rand() % 4 == 0 ? rand() % 20 : 1);
    w->length[i] = 1000 + rand() % 100000;
    pp_sched_add(&w->sched, jobs[i], false);
    begin_all();
  }
  do {
    CHECK(taken_places(w->sims, PLACES) <= PLACES);
    for (int i = 0; i < PLACES; i++) {
      const pp_job *j = w->sims[i].running;

      if (j != NULL && j->slots > 1) {
        CHECK(j->slots >= PLACES || w->sims[i].place.span == j->slots);
        if (j->id > seen)
          seen = j->id;
      }
    }
    for (int i = 0; i < PLACES; i++) /* nothing before it is still queued */
      if (w->sched.queue.head != NULL && w->sims[i].running != NULL &&
          w->sims[i].running->slots > 1)
        CHECK(w->sched.queue.head->id > w->sims[i].running->id);
  } while (step());
  for (int i = 0; i < N; i++) {
    CHECK(w->runs[i] == 1 && jobs[i]->state == PP_JOB_DONE);
    drop_job(jobs[i]);
  }
  CHECK(w->sched.nidle == PLACES && w->sched.nspans == 0 && seen > N - 100);
  free(w->runs);
  free(w->length);
  free(w);
  free(fn);
}

/* --- idle places ---------------------------------------------------------- */

/* Nodes behind links have their turns as their places fall idle; of a node's
 * idle places, and of near ones, the last to work works first. */
static void last_to_work_works_first(int nodes) {
  enum { EACH = 4, ALL = 3 * EACH };
  static pp_domain domains[3];
  static sim sims[ALL];
  pp_sched s = {0};
  pp_blob *fn = new_fn();
  pp_place *idle[3][EACH];
  pp_job *jobs[ALL];
  int turns[ALL], nturns = 0, n[3] = {0}, busy = 0;

  memset(domains, 0, sizeof domains);
  memset(sims, 0, sizeof sims);
  for (int i = 0; i < nodes; i++)
    CHECK(pp_domain_add(&s, &domains[i]) == 0);
  for (int i = 0; i < nodes * EACH; i++) {
    pp_place *p = &sims[i].place;
    int d = i % nodes;

    p->ops = &ops;
    p->domain = &domains[d];
    p->delay = nodes > 1 ? 1000 : 0;
    pp_sched_open(&s, p);
    idle[d][n[d]++] = p;
    turns[nturns++] = d;
  }
  for (uint64_t k = 0; k < 5000; k++) {
    if (nturns > 0 && (busy == 0 || rand() % 2 == 0)) {
      pp_job *j = jobs[busy++] = new_job(fn, k, 1);
      int d = turns[0];

      memmove(turns, turns + 1, (size_t)--nturns * sizeof *turns);
      pp_sched_add(&s, j, false);
      CHECK(j->state == PP_JOB_SENT && j->place == idle[d][--n[d]]);
    } else {
      int i = rand() % busy;
      pp_job *j = jobs[i];
      pp_place *p = j->place;
      int d = (int)(p->domain - domains);

      jobs[i] = jobs[--busy];
      pp_sched_ended(p, j);
      idle[d][n[d]++] = p;
      turns[nturns++] = d;
      drop_job(j);
    }
  }
  while (busy > 0) {
    pp_job *j = jobs[--busy];

    pp_sched_ended(j->place, j);
    drop_job(j);
  }
  CHECK(s.steps < 4 * 5000);
  for (int i = 0; i < nodes * EACH; i++)
    pp_sched_close(&s, &sims[i].place);
  for (int i = 0; i < nodes; i++)
    pp_domain_remove(&domains[i]);
  free(fn);
}

int main(void) {
  srand(1);
  last_to_work_works_first(1);
  last_to_work_works_first(3);
  slots_are_held();
  slots_follow_the_pool();
  slots_among_many();
  refusing_place_gets_nothing_until_it_has_room();
  queue_is_by_priority();
  later_eras_wait();
  run_world("no-op jobs", 200000, tiny, 0.95);
  run_world("10 ms jobs", 3200, even, 0.95);
  run_world("mixed lengths", 5000, mixed, 0.80);
  printf(failures ? "%d checks failed\n" : "ok\n", failures);
  return failures != 0;
}
