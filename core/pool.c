/* SPDX-License-Identifier: MIT */
#include "pool.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/mman.h>

#include "base.h"

/* Slabs are as large as they are aligned, so that a block finds its own. */
#define SLAB ((size_t)256 << 10)

typedef struct block {
  struct block *next;
} block;

typedef struct pp_slab {
  pp_pool *pool;
  struct pp_slab *prev, *next; /* among those with free blocks */
  block *free;                 /* blocks that were used before */
  uint32_t size, used;         /* bytes of a block; blocks in use */
  uint32_t fresh;              /* offset of those never used */
} pp_slab;

static pp_slab **list_of(pp_pool *p, size_t size) {
  return &p->partial[(size - 1) / PP_POOL_STEP];
}

static void link_slab(pp_slab **list, pp_slab *s) {
  s->prev = NULL;
  s->next = *list;
  if (*list != NULL)
    (*list)->prev = s;
  *list = s;
}

static void unlink_slab(pp_slab **list, pp_slab *s) {
  if (s->prev != NULL)
    s->prev->next = s->next;
  else
    *list = s->next;
  if (s->next != NULL)
    s->next->prev = s->prev;
  s->prev = s->next = NULL;
}

static inline bool has_room(const pp_slab *s) {
  return s->free != NULL || s->fresh + s->size <= SLAB;
}

static pp_slab *new_slab(pp_pool *p, size_t size) {
  unsigned char *m = mmap(NULL, 2 * SLAB, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  size_t before;
  pp_slab *s;

  if (m == MAP_FAILED)
    return NULL;
  before = (SLAB - (uintptr_t)m % SLAB) % SLAB;
  if (before > 0)
    munmap(m, before);
  if (before < SLAB)
    munmap(m + before + SLAB, SLAB - before);
  s = (pp_slab *)(void *)(m + before); /* the kernel has cleared it */
  s->pool = p;
  s->size = (uint32_t)size;
  s->fresh = (sizeof *s + 15) / 16 * 16;
  return s;
}

#ifdef __SANITIZE_ADDRESS__ /* it is to see each block */
#include <stdlib.h>

void *pp_pool_get(pp_pool *p, size_t size) {
  (void)p, (void)new_slab, (void)list_of;
  return malloc(size);
}
void pp_pool_put(void *p) { free(p); }
void pp_pool_trim(pp_pool *p) { (void)p, (void)unlink_slab, (void)link_slab; }
#else

void *pp_pool_get(pp_pool *p, size_t size) {
  pp_slab **list = list_of(p, size), *s = *list;
  void *b;

  pp_assert(size > 0 && size <= PP_POOL_MOST);
  size = (size + PP_POOL_STEP - 1) / PP_POOL_STEP * PP_POOL_STEP;
  if (PP_UNLIKELY(s == NULL)) {
    s = new_slab(p, size);
    if (s == NULL)
      return NULL;
    link_slab(list, s);
  }
  if (s->free != NULL) {
    b = s->free;
    s->free = s->free->next;
  } else {
    b = (unsigned char *)s + s->fresh;
    s->fresh += s->size;
  }
  s->used++;
  if (PP_UNLIKELY(!has_room(s)))
    unlink_slab(list, s);
  return b;
}

void pp_pool_put(void *p) {
  pp_slab *s, **list;
  block *b = p;

  if (p == NULL)
    return;
  s = (pp_slab *)((uintptr_t)p & ~(uintptr_t)(SLAB - 1));
  list = list_of(s->pool, s->size);
  if (PP_UNLIKELY(!has_room(s)))
    link_slab(list, s);
  b->next = s->free;
  s->free = b;
  s->used--;
  if (PP_LIKELY(s->used > 0 || (s->prev == NULL && s->next == NULL)))
    return; /* one stays at hand */
  unlink_slab(list, s);
  if (munmap(s, SLAB) != 0) /* it would be one mapping too many */
    link_slab(list, s);
}

void pp_pool_trim(pp_pool *p) {
  for (size_t i = 0; i < sizeof p->partial / sizeof *p->partial; i++)
    for (pp_slab *s = p->partial[i], *next; s != NULL; s = next) {
      next = s->next;
      if (s->used > 0)
        continue;
      unlink_slab(&p->partial[i], s);
      if (munmap(s, SLAB) != 0)
        link_slab(&p->partial[i], s);
    }
}
#endif
