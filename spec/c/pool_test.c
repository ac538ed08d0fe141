/* SPDX-License-Identifier: MIT */
/* Blocks of a pool: apart from each other, their memory used again and given
 * back; jobs that lie in one. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "job.h"

static int failures;

#define CHECK(e)                                                               \
  ((e) ? (void)0                                                               \
       : (failures++,                                                          \
          (void)printf("FAIL %s:%d %s\n", __FILE__, __LINE__, #e)))

/* Pages in memory; 0 where that is not told. */
static long resident(void) {
  FILE *f = fopen("/proc/self/statm", "r");
  long all, here = 0;

  if (f == NULL)
    return 0;
  if (fscanf(f, "%ld %ld", &all, &here) != 2)
    here = 0;
  fclose(f);
  return here;
}

static uint32_t next_random(uint32_t *x) {
  *x ^= *x << 13;
  *x ^= *x >> 17;
  *x ^= *x << 5;
  return *x;
}

static size_t size_of(size_t i) { return 1 + i * 37 % PP_POOL_MOST; }

static void blocks_are_apart(void) {
  enum { N = 20000 };
  pp_pool p = {0};
  unsigned char **v = calloc(N, sizeof *v);
  uint32_t x = 1;
  bool whole = true;

  for (size_t step = 0; step < 10 * (size_t)N; step++) {
    size_t i = next_random(&x) % N, size = size_of(i);

    if (v[i] == NULL) {
      v[i] = pp_pool_get(&p, size);
      whole = whole && v[i] != NULL && (uintptr_t)v[i] % 8 == 0;
      memset(v[i], (int)(i & 0xff), size);
      continue;
    }
    for (size_t k = 0; k < size; k++)
      whole = whole && v[i][k] == (i & 0xff);
    pp_pool_put(v[i]);
    v[i] = NULL;
  }
  CHECK(whole);
  for (size_t i = 0; i < N; i++)
    pp_pool_put(v[i]);
  pp_pool_trim(&p);
  for (size_t i = 0; i < sizeof p.partial / sizeof *p.partial; i++)
    CHECK(p.partial[i] == NULL);
  free(v);
}

static void memory_goes_back(void) {
  enum { N = 400000, SIZE = 240 };
  pp_pool p = {0};
  void **v = calloc(N, sizeof *v);
  long before, most, after;

  for (size_t i = 0; i < N; i++)
    v[i] = &p; /* so that the list itself is there */
  before = resident();
  for (size_t i = 0; i < N; i++)
    memset(v[i] = pp_pool_get(&p, SIZE), 1, SIZE);
  most = resident();
  for (size_t i = 0; i < N; i++)
    if (i % 1000 != 0)
      pp_pool_put(v[i]);
  for (size_t i = 0; i < N; i += 1000)
    pp_pool_put(v[i]);
  after = resident();
#ifndef __SANITIZE_ADDRESS__
  CHECK(before == 0 || (most - before) * 4096 < (long)N * SIZE * 11 / 10);
  CHECK(before == 0 || after - before < (most - before) / 20);
#endif
  (void)before, (void)most, (void)after;
  pp_pool_trim(&p);
  free(v);
}

/* A short result takes the room of the body; a long one, or one of a job that
 * may run again, does not. */
static void results_in_jobs(void) {
  pp_pool p = {0};
  pp_blobs blobs = {0};

  for (size_t body = 0; body < 400; body += 7)
    for (size_t result = 0; result < 400; result += 13)
      for (int again = 0; again < 2; again++) {
        pp_job *j = pp_job_new_in(&p, body);
        unsigned char bytes[400];

        memset(bytes, 7, sizeof bytes);
        memset(j->body, 9, body);
        CHECK(j->body_len == body);
        CHECK((again ? pp_job_store(j, bytes, result)
                     : pp_job_finish(j, bytes, result)) == 0);
        CHECK(j->result_len == result && memcmp(j->result, bytes, result) == 0);
        for (size_t k = 0; k < body && again; k++)
          CHECK(j->body[k] == 9);
        CHECK(again || j->body == NULL);
        pp_job_unref(j, &blobs);
      }
  pp_pool_trim(&p);
}

int main(void) {
  blocks_are_apart();
  memory_goes_back();
  results_in_jobs();
  if (failures > 0)
    printf("%d failures\n", failures);
  return failures > 0;
}
