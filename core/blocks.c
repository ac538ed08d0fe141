/* SPDX-License-Identifier: MIT */
#include "blocks.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define HUGE ((size_t)2 << 20)

pp_blocks *pp_blocks_make(void) {
  pp_blocks *b = calloc(1, sizeof *b);

  if (b != NULL)
    b->refs = 1;
  return b;
}

void pp_blocks_unref(pp_blocks *b) {
  if (b == NULL || atomic_fetch_sub(&b->refs, 1) > 1)
    return;
  pp_blocks_trim(b);
  free(b);
}

/* What a block of so many bytes takes: sizes few enough that one that was freed
 * often serves the next; 0: too many. */
static size_t size_of(size_t need) {
  size_t step = 65536;

  if (need > PTRDIFF_MAX / 2)
    return 0;
  while (step < need / 16)
    step *= 2;
  return (need + step - 1) / step * step;
}

/* Of many mappings one is as good as the next; a large page begins where its
 * own size does. */
static void *map(size_t size) {
  size_t room = size + HUGE, before;
  unsigned char *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

  if (p == MAP_FAILED)
    return NULL;
  if ((uintptr_t)p % HUGE != 0) {
    unsigned char *q = mmap(NULL, room, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (q != MAP_FAILED) {
      munmap(p, size);
      before = (HUGE - (uintptr_t)q % HUGE) % HUGE;
      p = q + before;
      if (before > 0)
        munmap(q, before);
      munmap(p + size, room - size - before);
    }
  }
  (void)madvise(p, size, MADV_HUGEPAGE);
  return p;
}

static size_t kept_size(const void *p) {
  size_t size;

  memcpy(&size, p, sizeof size);
  return size;
}

static void *take(pp_blocks *b, int i) {
  void *p = atomic_exchange(&b->kept[i], NULL);

  if (p != NULL)
    atomic_fetch_sub(&b->warm, kept_size(p));
  return p;
}

static void drop(pp_blocks *b, int i) {
  void *p = take(b, i);

  if (p != NULL)
    munmap(p, kept_size(p));
}

/* Put a block, which begins with its size, where there is none. */
static void put(pp_blocks *b, int i, void *p) {
  void *other;

  atomic_fetch_add(&b->warm, kept_size(p));
  other = atomic_exchange(&b->kept[i], p);
  if (other != NULL) { /* there is: another thread was faster */
    atomic_fetch_sub(&b->warm, kept_size(other));
    munmap(other, kept_size(other));
  }
}

static void keep(pp_blocks *b, void *p, size_t size) {
  size_t most = atomic_load_explicit(&b->most, memory_order_relaxed);
  int at = atomic_load_explicit(&b->turn, memory_order_relaxed), next;

  if (size > most) {
    munmap(p, size);
    return;
  }
  next = (at + 1) % PP_BLOCKS;
  atomic_store_explicit(&b->turn, next, memory_order_relaxed);
  drop(b, at); /* the oldest there is; more of them, if it is still too much */
  for (int i = next; i != at && atomic_load(&b->warm) > most - size;
       i = (i + 1) % PP_BLOCKS)
    drop(b, i);
  memcpy(p, &size, sizeof size);
  put(b, at, p);
}

void *pp_block_get(pp_blocks *b, size_t need, bool *cold) {
  size_t size = size_of(need), have;
  void *p;

  *cold = false;
  if (size == 0)
    return NULL;
  for (int i = 0; i < PP_BLOCKS && pp_blocks_any(b); i++) {
    if ((p = take(b, i)) == NULL)
      continue;
    have = kept_size(p);
    if (have >= size && have / 2 <= size) {
      if (have > size)
        munmap((unsigned char *)p + size, have - size);
      return p;
    }
    put(b, i, p);
  }
  *cold = true;
  p = map(size);
  if (p == NULL && pp_blocks_any(b)) {
    pp_blocks_trim(b);
    p = map(size);
  }
  return p;
}

void *pp_block_new(pp_blocks *b, size_t need) {
  bool cold;

  return pp_block_get(b, need, &cold);
}

void pp_block_free(pp_blocks *b, void *p, size_t size) {
  keep(b, p, size_of(size));
}

void *pp_block_resize(pp_blocks *b, void *p, size_t from, size_t to) {
  size_t was = size_of(from), size = size_of(to);
  void *q;

  if (was == size)
    return p;
  if (size < was && size > 0) {
    (void)munmap((unsigned char *)p + size, was - size);
    return p;
  }
  if (size == 0)
    return NULL;
  q = mremap(p, was, size, MREMAP_MAYMOVE);
  if (q == MAP_FAILED && pp_blocks_any(b)) {
    pp_blocks_trim(b);
    q = mremap(p, was, size, MREMAP_MAYMOVE);
  }
  return q == MAP_FAILED ? NULL : q;
}

void pp_blocks_trim(pp_blocks *b) {
  for (int i = 0; i < PP_BLOCKS; i++)
    drop(b, i);
}

/* --- buffers -------------------------------------------------------------- */

static unsigned char *grow(pp_home *home, unsigned char *p, size_t len,
                           size_t was, size_t *cap) {
  pp_blocks *b = ((pp_block_home *)(void *)home)->blocks;
  size_t size = size_of(*cap); /* the size of a block of that size, too */
  unsigned char *q =
      p == NULL ? pp_block_new(b, size) : pp_block_resize(b, p, was, size);

  (void)len;
  if (q != NULL)
    *cap = size;
  return q;
}

static void release(pp_home *home, unsigned char *p, size_t cap) {
  pp_block_free(((pp_block_home *)(void *)home)->blocks, p, cap);
}

pp_block_home pp_block_home_of(pp_blocks *b) {
  return (pp_block_home){{PP_BLOCK_LEAST, grow, release}, b};
}
