/* SPDX-License-Identifier: MIT */
/*
 * The scheduler over a thousand nodes that do not exist (sim.h): every job is
 * answered once, workers are busy while there is work, and what a job costs the
 * driver depends neither on how many there are nor on how many places.
 *
 *   sim_test [JOBS]     in the last and largest world; ten million by default,
 *                       with fewer it has fewer nodes
 */
#include <math.h>
#include <stdlib.h>

#include "sim.h"

static double uniform(void) { return (double)(sim_random() >> 11) * 0x1p-53; }

/* 5 to 15 ms; 0.1 ms to 1 s, log-uniform; about 1 ms. */
static double several(int k) {
  switch (k) {
  case 0:
    return 0.1 * pow(10000, uniform());
  case 1:
  case 2:
    return -log(1 - uniform());
  default:
    return 5 + 10 * uniform();
  }
}

static double ten(int k) {
  (void)k;
  return 9 + 2 * uniform();
}

static double mixed(int k) { /* 1 us to 1 s */
  (void)k;
  return 0.001 * pow(1e6, uniform());
}

static double tiny(int k) {
  (void)k;
  return 0.02 + 0.02 * uniform();
}

static double seconds(int k) {
  (void)k;
  return 1000 * (8 + 4 * uniform());
}

static void run(const sim_plan *p) {
  const sim_figures *f = &sim_count;
  int before = sim_failures;

  sim_run(p);
  printf("%s: %u nodes x %u workers, %.1f-%.0f ms, %llu jobs in %.2f s\n"
         "  %.2f %% busy; %llu sent, %llu lost, %llu failed, %llu cancelled; "
         "%llu late words, %llu asked back, %llu came\n"
         "  for a job %.2f steps (first %.2f, last %.2f), %.0f ns (first %.0f, "
         "last %.0f)\n",
         p->name, p->nodes, p->workers, p->least, p->most,
         (unsigned long long)p->jobs, f->span, 100 * f->busy,
         (unsigned long long)f->sent, (unsigned long long)f->lost,
         (unsigned long long)f->failed, (unsigned long long)f->cancelled,
         (unsigned long long)f->late, (unsigned long long)f->asked,
         (unsigned long long)f->back, f->steps, f->steps_first, f->steps_last,
         f->ns, f->ns_first, f->ns_last);
  SIM_CHECK(f->busy > p->least_busy);
  SIM_CHECK(f->steps < p->most_steps && f->steps_last < p->most_steps);
  if (sim_failures > before)
    printf("  %d checks failed\n", sim_failures - before);
  fflush(stdout);
}

int main(int argc, char **argv) {
  sim_plan plans[] = {
      {"one node", 1, 32, 0.1, 0.1, 20000, 20000, ten, 1, 0, 0.95, 4},
      {"near and far", 40, 8, 0.1, 50, 50000, 50000, mixed, 1, 0, 0.95, 5},
      {"tiny jobs", 10, 8, 0.1, 5, 1000000, 100000, tiny, 1, 0, 0.95, 4},
      {"long jobs", 100, 8, 0.1, 50, 5000, 5000, seconds, 1, 0, 0.95, 4},
      {"failures", 200, 8, 0.1, 50, 100000, 50000, several, 8, 1, 0.9, 4},
      {"single workers", 5000, 1, 0.1, 50, 1000000, 100000, several, 8, 0.1,
       0.95, 5},
      {"all", 1000, 32, 0.1, 50, 10000000, 300000, several, 8, 0.1, 0.95, 4},
  };
  sim_plan *largest = &plans[sizeof plans / sizeof *plans - 1];
  uint64_t jobs = argc > 1 ? strtoull(argv[1], NULL, 10) : largest->jobs;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  if (argc < 2)
    jobs = 500000;
#endif
  if (jobs < 20000)
    jobs = 20000;
  if (jobs < largest->jobs) { /* else it would be over as soon as it ran */
    largest->nodes = (uint32_t)(jobs / 10000) + 1;
    largest->backlog = jobs / 20;
    largest->jobs = jobs;
  }
  for (size_t i = 0; i < sizeof plans / sizeof *plans; i++)
    run(&plans[i]);
  printf(sim_failures ? "%d checks failed\n" : "ok\n", sim_failures);
  return sim_failures != 0;
}
