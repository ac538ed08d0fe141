/* SPDX-License-Identifier: MIT */
#include <stdlib.h>
#include <string.h>

#include "sim.h"

#define RETRIES 2u
#define LENGTHS 4096u
#define SAMPLE                                                                 \
  3000u /* one job in so many is watched, to be cancelled perhaps */
#define PART 100000u /* jobs over which costs are compared */

sim_figures sim_count;
pp_engine sim_engine;
pp_server *sim_server;
int sim_failures;

static const sim_plan *plan;
static sim_link *links;
static uint8_t *answers, *losses; /* by id */
enum { ANSWERED = 1, GIVEN_UP };
static uint32_t *lengths; /* us; LENGTHS of each kind */
static pp_blob *fns;
static pp_job *watched[64];
static uint64_t seed, answered, cancelling;
static bool ending;
static int64_t driver_ns;

uint64_t sim_random(void) {
  uint64_t z = seed += 0x9e3779b97f4a7c15;

  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
  z = (z ^ z >> 27) * 0x94d049bb133111eb;
  return z ^ z >> 31;
}

static double between(double least, double most) {
  return least + (most - least) * ((double)(sim_random() >> 11) * 0x1p-53);
}

uint64_t sim_answer(uint64_t id) { return id * 0x9e3779b97f4a7c15 + 1; }

uint32_t sim_length(const pp_job *j) {
  return lengths[j->fn->id * LENGTHS + (sim_answer(j->id) >> 40) % LENGTHS];
}

/* --- busy ----------------------------------------------------------------- */

static int64_t tallied;
static double there, busy; /* worker microseconds while jobs were queued */

void sim_tally(void) {
  int64_t dt = sim_now - tallied;

  if (dt == 0)
    return;
  tallied = sim_now;
  if (sim_server->sched.queue.n > 0) {
    there += (double)dt * (double)sim_workers;
    busy += (double)dt * (double)sim_busy;
  }
}

/* --- checks --------------------------------------------------------------- */

void sim_on_send(const pp_job *j) {
  sim_count.sent++;
  SIM_CHECK(answers[j->id] == 0);
  SIM_CHECK(j->attempts == losses[j->id]);
}

void sim_on_begin(uint64_t id) { SIM_CHECK(answers[id] != ANSWERED); }

void sim_on_lost(const pp_job *j) {
  sim_count.lost++;
  losses[j->id]++;
  SIM_CHECK(j->attempts == losses[j->id]);
}

static void take(pp_job *j) {
  SIM_CHECK(answers[j->id] == 0);
  answers[j->id] = pp_job_dropped(j) ? GIVEN_UP : ANSWERED;
  answered++;
  if (j->state == PP_JOB_DONE) {
    sim_count.answered++;
    SIM_CHECK(j->result_len == 8 && pp_get64(j->result) == sim_answer(j->id));
    SIM_CHECK(j->attempts == losses[j->id] + 1u);
    SIM_CHECK(j->attempts <= RETRIES + 1);
  } else if (pp_job_dropped(j)) {
    sim_count.cancelled++;
    SIM_CHECK(j->id % SAMPLE == 0);
  } else {
    sim_count.failed++;
    SIM_CHECK(j->result_len > 0 && j->result[0] == PP_KIND_LOST);
    SIM_CHECK(losses[j->id] == RETRIES + 1);
  }
}

/* The script takes what has ended. */
static void take_all(void) {
  pp_job *j;

  while ((j = pp_jobs_pop(&sim_server->callbacks)) != NULL) {
    sim_engine.callbacks--;
    take(j);
    pp_job_unref(j, &sim_engine.blobs);
  }
}

/* --- jobs ----------------------------------------------------------------- */

static void submit(uint64_t id) {
  pp_job *j = pp_job_new(16);
  uint64_t r = sim_random();

  memset(j->body, 0, j->body_len);
  j->id = id;
  j->fn = pp_blob_ref(&fns[r % (unsigned)plan->kinds]);
  j->retries = RETRIES;
  j->priority = r >> 40 & 63 ? 0 : r >> 50 & 1 ? 1 : -1;
  j->flags |= PP_JOB_CALLBACK;
  if (id % SAMPLE == 0) {
    pp_job **old = &watched[id / SAMPLE % 64];

    if (*old != NULL) {
      if (!pp_job_over(*old) && sim_random() % 2 == 0) {
        cancelling++;
        pp_server_stop(sim_server, *old, PP_KIND_CANCELLED, "cancelled");
      }
      pp_job_unref(*old, &sim_engine.blobs);
    }
    *old = pp_job_ref(j);
  }
  pp_server_add(sim_server, j, sim_now * 1000);
}

/* --- failures ------------------------------------------------------------- */

enum { UP, CUT, DOWN, LOST };

static int64_t ms(double n) { return sim_now + (int64_t)(n * 1000); }

static void change(sim_event *e) {
  sim_link *l = (sim_link *)(void *)((char *)e - offsetof(sim_link, event));
  double r = between(0, 1);

  if (ending && l->state == UP)
    return;
  switch (l->state) {
  case UP:
    if (r < 0.6) {
      sim_agent_crash(l->agent);
      l->state = DOWN;
      sim_set(e, ms(between(20, 400)));
    } else {
      bool heals = r < 0.8;
      double until = between(5, 300);

      sim_agent_cut(l->agent, ms(until));
      l->state = heals ? CUT : DOWN;
      sim_set(e, ms(heals ? until : until * between(0.1, 1.2)));
    }
    break;
  case CUT:
    sim_agent_heal(l->agent);
    l->state = UP;
    sim_set(e, ms(between(0, 2000)));
    break;
  case DOWN:
    sim_link_lost(l);
    l->state = LOST;
    sim_set(e, ms(between(10, 300)));
    break;
  default:
    sim_link_connect(l);
    l->state = UP;
    sim_set(e, ms(between(0, 2000)));
  }
}

/* --- all of it ------------------------------------------------------------ */

static void set_up(void) {
  static pp_options options;
  const pp_server_options how = {.retries = RETRIES};

  memset(&sim_count, 0, sizeof sim_count);
  memset(&sim_engine, 0, sizeof sim_engine);
  seed = answered = cancelling = 0;
  ending = false;
  tallied = driver_ns = 0;
  there = busy = 0;
  sim_clock_reset();
  sim_engine.options = &options;
  sim_engine.ctl = -1;
  sim_server = pp_server_new(&sim_engine, &how);
  answers = calloc(plan->jobs, 1);
  losses = calloc(plan->jobs, 1);
  fns = calloc((size_t)plan->kinds, sizeof *fns);
  lengths = malloc((size_t)plan->kinds * LENGTHS * sizeof *lengths);
  for (int k = 0; k < plan->kinds; k++) {
    fns[k].run_ns = -1;
    fns[k].refs = 1;
    fns[k].id = (uint32_t)k;
    for (uint32_t i = 0; i < LENGTHS; i++) {
      double us = 1000 * plan->length(k);

      lengths[(unsigned)k * LENGTHS + i] = us < 1 ? 1 : (uint32_t)us;
    }
  }
  links = calloc(plan->nodes, sizeof *links);
  for (uint32_t i = 0; i < plan->nodes; i++) {
    sim_link *l = &links[i];

    l->workers = plan->workers;
    l->delay = (int64_t)(1000 * between(plan->least, plan->most));
    l->event.run = change;
    sim_link_connect(l);
    if (between(0, 1) < plan->flaky)
      sim_set(&l->event, ms(between(0, 2000)));
  }
}

static void tear_down(void) {
  const pp_sched *s = &sim_server->sched;

  SIM_CHECK(answered == plan->jobs);
  for (uint64_t i = 0; i < plan->jobs; i++)
    SIM_CHECK(answers[i] != 0);
  SIM_CHECK(s->queue.n == 0 && s->levels.root == NULL);
  SIM_CHECK(s->fat == 0 && s->fats == NULL && s->far_fats == NULL &&
            s->asked == 0);
  SIM_CHECK(s->nfree == (size_t)s->nopen * plan->workers);
  SIM_CHECK(s->roomy == NULL && s->packed == NULL && sim_busy == 0);
  for (uint32_t i = 0; i < plan->nodes; i++) {
    SIM_CHECK(links[i].place.jobs.n == 0 && links[i].place.load == 0);
    pp_sched_close(&sim_server->sched, &links[i].place);
    sim_link_clear(&links[i]);
  }
  for (int i = 0; i < 64; i++)
    if (watched[i] != NULL) {
      pp_job_unref(watched[i], &sim_engine.blobs);
      watched[i] = NULL;
    }
  SIM_CHECK(sim_engine.pending == 0 && sim_server->pending == 0);
  for (int k = 0; k < plan->kinds; k++)
    SIM_CHECK(fns[k].refs == 1);
  pp_server_destroy(sim_server);
  pp_server_free(sim_server);
  sim_agents_clear();
  sim_workers = 0;
  free(answers);
  free(losses);
  free(lengths);
  free(fns);
  free(links);
}

void sim_driver(int64_t *since) {
  if (*since == 0) {
    *since = pp_now_ns();
  } else {
    driver_ns += pp_now_ns() - *since;
    *since = 0;
  }
}

void sim_run(const sim_plan *p) {
  uint64_t sent = 0, part = p->jobs < 4 * PART ? p->jobs / 4 : PART;
  uint64_t last_steps = 0;
  int64_t last_ns = 0, clock = 0;
  bool first = true, last = true;

  plan = p;
  set_up();
  do {
    sim_driver(&clock);
    if (sim_server->pending < p->backlog - p->backlog / 8)
      for (; sent < p->jobs && sim_server->pending < p->backlog; sent++)
        submit(sent);
    take_all();
    sim_driver(&clock);
    if (first && answered >= part) {
      first = false;
      sim_count.ns_first = (double)driver_ns / (double)answered;
      sim_count.steps_first =
          (double)sim_server->sched.steps / (double)answered;
    }
    if (last && answered >= p->jobs - part) {
      last = false;
      last_ns = driver_ns;
      last_steps = sim_server->sched.steps;
    }
  } while ((sent < p->jobs || sim_server->pending > 0) && sim_step());
  sim_count.span = (double)sim_now / 1e6;
  take_all();
  sim_tally();
  ending = true;
  while (sim_step()) {
  }
  sim_count.busy = there > 0 ? busy / there : 1;
  sim_count.steps = (double)sim_server->sched.steps / (double)p->jobs;
  sim_count.steps_last =
      (double)(sim_server->sched.steps - last_steps) / (double)part;
  sim_count.ns = (double)driver_ns / (double)p->jobs;
  sim_count.ns_last = (double)(driver_ns - last_ns) / (double)part;
  tear_down();
}
