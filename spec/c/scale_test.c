/* SPDX-License-Identifier: MIT */
/* What a server keeps by the thousand: priorities, groups, deadlines; windows
 * in bytes. Costs are counted, not timed. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "deadlines.h"
#include "sched.h"

static int failures;

#define CHECK(e)                                                               \
  ((e) ? (void)0                                                               \
       : (failures++,                                                          \
          (void)printf("FAIL %s:%d %s\n", __FILE__, __LINE__, #e)))

static size_t depth(const pp_level *l) {
  size_t left, right;

  if (l == NULL)
    return 0;
  left = depth(l->left);
  right = depth(l->right);
  return 1 + (left > right ? left : right);
}

/* However they come, finding a priority among many takes few steps. */
static void many_priorities(double (*priority)(int i)) {
  enum { N = 100000 };
  pp_sched s = {0};
  pp_job **jobs = malloc(N * sizeof *jobs);
  const pp_job *last = NULL;
  pp_job *j;
  size_t n = 0;

  for (int i = 0; i < N; i++) {
    jobs[i] = pp_job_new(0);
    jobs[i]->id = (uint64_t)i;
    jobs[i]->priority = priority(i);
    pp_sched_put(&s, jobs[i], false);
  }
  CHECK(depth(s.levels.root) < 60);
  for (int i = 0; i < N; i += 3)
    pp_sched_remove(&s, jobs[i]);
  for (int i = 0; i < N; i += 3)
    pp_sched_put(&s, jobs[i], true);
  CHECK(s.queue.n == N && depth(s.levels.root) < 60);
  while ((j = pp_sched_first(&s)) != NULL) {
    CHECK(last == NULL || last->priority >= j->priority);
    last = j;
    n++;
  }
  CHECK(n == N && s.levels.root == NULL && !s.levels.one_used);
  for (int i = 0; i < N; i++)
    pp_job_unref(jobs[i], NULL);
  free(jobs);
}

static double ascending(int i) { return i; }
static double descending(int i) { return -i; }
static double at_random(int i) {
  (void)i;
  return rand() % 50000 / 3.0;
}

/* Groups are there as long as their jobs, also where their server is not. */
static void many_groups(void) {
  enum { N = 100000 };
  pp_groups set = {0};
  pp_group **groups = malloc(N * sizeof *groups);
  size_t longest = 0;
  char name[32];

  for (int i = 0; i < N; i++) {
    int len = snprintf(name, sizeof name, "group %d", i);

    groups[i] = pp_groups_get(&set, name, (size_t)len);
    CHECK(groups[i]->refs == 1 && strcmp(groups[i]->name, name) == 0);
    CHECK(pp_groups_get(&set, name, (size_t)len) == groups[i]);
  }
  for (size_t i = 0; i < set.cap; i++) {
    size_t n = 0;

    for (const pp_group *g = set.table[i]; g != NULL; g = g->next)
      n++;
    if (n > longest)
      longest = n;
  }
  CHECK(set.n == N && longest < 20);
  CHECK(pp_groups_find(&set, "group", 5) == NULL);
  CHECK(pp_groups_find(&set, "group 17", 8) == groups[17]);
  for (int i = 0; i < N; i++) {
    pp_group_unref(groups[i]);
    if (i % 2 == 0)
      pp_group_unref(groups[i]);
  }
  CHECK(set.n == N / 2 && pp_groups_find(&set, "group 16", 8) == NULL);
  pp_groups_clear(&set);
  for (int i = 1; i < N; i += 2)
    pp_group_unref(groups[i]);
  free(groups);
}

/* Deadlines of jobs that have ended do not pile up; the others come in order.
 */
static void deadlines_of_the_living(void) {
  enum { N = 100000, AT_WORK = 100 };
  pp_deadlines d = {0};
  pp_job *jobs[AT_WORK] = {0};
  size_t most = 0, n = 0;
  int64_t last = 0;

  for (int i = 0; i < N; i++) {
    pp_job **at = &jobs[i % AT_WORK];

    if (*at != NULL) {
      (*at)->state = PP_JOB_DONE;
      pp_job_unref(*at, NULL);
    }
    *at = pp_job_new(0);
    (*at)->state = PP_JOB_SENT;
    CHECK(pp_deadlines_add(&d, rand(), *at, NULL) == 0);
    if (d.n > most)
      most = d.n;
  }
  CHECK(most <= 2 * AT_WORK + 64);
  while (d.n > 0) {
    pp_deadline first = pp_deadlines_pop(&d);

    CHECK(first.when >= last);
    last = first.when;
    n += first.job->state == PP_JOB_SENT;
    pp_job_unref(first.job, NULL);
  }
  CHECK(n == AT_WORK);
  for (int i = 0; i < AT_WORK; i++)
    pp_job_unref(jobs[i], NULL);
  pp_deadlines_clear(&d, NULL);
}

/* --- windows -------------------------------------------------------------- */

static int accept_any(pp_place *p, pp_job *j) {
  (void)p, (void)j;
  return 0;
}
static bool refuse(pp_place *p, pp_job *j) {
  (void)p, (void)j;
  return false;
}

/* What is on the way to a place is bounded in bytes, but a free worker always
 * gets its job. */
static void windows_in_bytes(void) {
  enum { N = 400, SIZE = 300000 };
  static const pp_place_ops ops = {.send = accept_any, .recall = refuse};
  pp_place near = {.ops = &ops}, far = {.ops = &ops};
  pp_blob fn = {.refs = 1, .run_ns = 1000};
  pp_job *jobs[N];
  pp_sched s = {0};

  far.width = 4;
  far.delay = 50000000;
  pp_sched_open(&s, &near);
  pp_sched_open(&s, &far);
  for (int i = 0; i < N; i++) {
    jobs[i] = pp_job_new(SIZE);
    jobs[i]->fn = pp_blob_ref(&fn);
    pp_sched_add(&s, jobs[i], false);
  }
  CHECK(near.jobs.n > 1 && near.bytes <= 1 << 20);
  CHECK(far.jobs.n > 4 && far.bytes <= 4 << 20);
  CHECK(s.queue.n == N - near.jobs.n - far.jobs.n && s.nfree == 0);
  while (s.nfree == 0 || s.queue.n > 0) {
    pp_place *p = far.jobs.n > near.jobs.n ? &far : &near;

    pp_sched_ended(p, p->jobs.head);
  }
  while (near.jobs.n > 0)
    pp_sched_ended(&near, near.jobs.head);
  while (far.jobs.n > 0)
    pp_sched_ended(&far, far.jobs.head);
  CHECK(near.bytes == 0 && far.bytes == 0 && s.nfree == 5 && s.fat == 0);
  for (int i = 0; i < N; i++) {
    jobs[i]->fn = NULL;
    pp_job_unref(jobs[i], NULL);
  }
}

/* Long jobs never wait behind each other while somebody is free, and not at all
 * where the way is short. */
static void long_jobs_wait_in_the_queue(void) {
  enum { N = 100 };
  static const pp_place_ops ops = {.send = accept_any, .recall = refuse};
  pp_place places[3] = {{.ops = &ops}, {.ops = &ops}, {.ops = &ops}};
  pp_blob fn = {.refs = 1, .run_ns = 10000000000};
  pp_job *jobs[N];
  pp_sched s = {0};

  places[2].width = 32;
  places[2].delay = 50000000;
  for (int i = 0; i < 3; i++)
    pp_sched_open(&s, &places[i]);
  for (int i = 0; i < N; i++) {
    jobs[i] = pp_job_new(0);
    jobs[i]->fn = &fn;
    pp_sched_add(&s, jobs[i], false);
  }
  CHECK(places[0].jobs.n == 1 && places[1].jobs.n == 1);
  CHECK(places[2].jobs.n == 32 && s.queue.n == N - 34);
  for (int i = 0; i < N; i++) {
    jobs[i]->fn = NULL;
    pp_job_unref(jobs[i], NULL);
  }
}

int main(void) {
  srand(1);
  many_priorities(ascending);
  many_priorities(descending);
  many_priorities(at_random);
  many_groups();
  deadlines_of_the_living();
  windows_in_bytes();
  long_jobs_wait_in_the_queue();
  printf(failures ? "%d checks failed\n" : "ok\n", failures);
  return failures != 0;
}
