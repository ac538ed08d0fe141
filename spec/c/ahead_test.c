/* SPDX-License-Identifier: MIT */
/* Memory made ahead of what comes: it is there before it is touched, no further
 * than it may be, and whoever lets a block go has no thread in it. */
#include "ahead.h"

#include <sys/mman.h>
#include <time.h>

#include "blocks.h"
#include "check.h"

#define MB ((size_t)1 << 20)
#define STEP (2 * MB)
#define SIZE (160 * MB)

/* Bytes of p that have memory, from there on. */
static size_t present(unsigned char *p, size_t from, size_t to) {
  static unsigned char in[SIZE / 4096];
  size_t page = (size_t)sysconf(_SC_PAGESIZE), n = 0;

  if (mincore(p + from, to - from, in) != 0)
    return 0;
  for (size_t i = 0; i < (to - from) / page; i++)
    n += in[i] & 1 ? page : 0;
  return n;
}

static void nap(void) {
  const struct timespec t = {0, 1000000};

  nanosleep(&t, NULL);
}

/* Can the system do it at all? */
static bool able(void) {
  void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  bool yes = p != MAP_FAILED && madvise(p, 4096, 23) == 0;

  munmap(p, 4096);
  return yes;
}

static void keeps_ahead_within_bounds(void) {
  static const size_t comes[] = {0, 1000, 5 * MB, 20 * MB, 70 * MB + 1, SIZE};
  pp_blocks *b = pp_blocks_make();
  pp_ahead a = {0};
  bool cold = false;
  unsigned char *p = pp_block_get(b, SIZE, &cold);

  CHECK(p != NULL && cold);
  pp_ahead_begin(&a, p, SIZE);
  CHECK(a.p == p);
  for (size_t i = 0; i < sizeof comes / sizeof *comes; i++) {
    size_t come = comes[i], from = (come / STEP + 1) * STEP, to;

    to = come + (come < 8 * MB ? 8 * MB : come > 64 * MB ? 64 * MB : come);
    to = (to < SIZE ? to : SIZE) / STEP * STEP;
    pp_ahead_come(&a, p, come);
    for (int k = 0; k < 20000 && from < to && present(p, from, to) < to - from;
         k++)
      nap();
    CHECK(from >= to || present(p, from, to) == to - from);
    CHECK(to >= SIZE || present(p, to + STEP, SIZE) == 0);
  }
  pp_ahead_end(&a, p);
  CHECK(a.p == NULL);
  pp_block_free(b, p, SIZE);
  pp_blocks_unref(b);
}

/* What is in a block already stays as it is. */
static void changes_nothing(void) {
  pp_blocks *b = pp_blocks_make();
  pp_ahead a = {0};
  unsigned char *p = pp_block_new(b, SIZE / 4);

  memset(p, 7, SIZE / 4);
  pp_ahead_begin(&a, p, SIZE / 4);
  for (size_t n = 0; n < SIZE / 4; n += 100000)
    pp_ahead_come(&a, p, n);
  pp_ahead_end(&a, p);
  for (size_t n = 0; n < SIZE / 4; n += 4096)
    if (p[n] != 7)
      failures++;
  pp_block_free(b, p, SIZE / 4);
  pp_blocks_unref(b);
}

static void one_at_a_time(void) {
  pp_blocks *b = pp_blocks_make();
  pp_ahead a = {0};
  unsigned char *p = pp_block_new(b, 16 * MB), *q = pp_block_new(b, 16 * MB),
                *small = pp_block_new(b, 2 * MB);

  pp_ahead_begin(&a, small, 2 * MB);
  CHECK(a.p == NULL);
  pp_ahead_begin(&a, p, 16 * MB);
  pp_ahead_begin(&a, q, 16 * MB);
  CHECK(a.p == p);
  pp_ahead_come(&a, q, 16 * MB);
  pp_ahead_end(&a, q);
  CHECK(a.p == p && atomic_load(&a.come) == 0);
  pp_ahead_end(&a, p);
  pp_ahead_end(&a, p);
  pp_ahead_begin(&a, q, 16 * MB);
  CHECK(a.p == q);
  pp_ahead_end(&a, q);
  pp_block_free(b, p, 16 * MB);
  pp_block_free(b, q, 16 * MB);
  pp_block_free(b, small, 2 * MB);
  pp_blocks_unref(b);
}

/* Blocks are let go in the midst of it, and written to meanwhile. */
static void ends_at_any_moment(void) {
  pp_blocks *b = pp_blocks_make();
  pp_ahead a = {0};

  for (int i = 0; i < 60; i++) {
    size_t size = 8 * MB + (size_t)(rand() % 24) * MB, come = 0;
    unsigned char *p = pp_block_new(b, size);

    pp_ahead_begin(&a, p, size);
    for (int k = rand() % 30; k > 0; k--) {
      size_t n = (size_t)(rand() % 2000000);

      n = n < size - come ? n : size - come;
      memset(p + come, 1, n);
      come += n;
      pp_ahead_come(&a, p, come);
    }
    pp_ahead_end(&a, p);
    pp_block_free(b, p, size);
  }
  CHECK(a.p == NULL);
  pp_blocks_unref(b);
}

int main(void) {
  if (able())
    keeps_ahead_within_bounds();
  changes_nothing();
  one_at_a_time();
  ends_at_any_moment();
  printf(failures ? "%d checks failed\n" : "ok\n", failures);
  return failures != 0;
}
