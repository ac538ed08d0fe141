/* SPDX-License-Identifier: MIT */
#include "cargo.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "blocks.h"
#include "wire.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif

#define PAGE ((size_t)4096)
#define GRAIN ((size_t)PP_REF_GRAIN)
/* From here on a slot may have pages of two megabytes, where the system has
 * such for shared memory. */
#define HUGE ((size_t)2 << 20)
/* To let go of this much takes longer than anybody should wait. */
#define LONG ((size_t)16 << 20)
#define STEP ((size_t)4 << 20)

static size_t up(size_t n, size_t to) { return (n + to - 1) / to * to; }

void pp_cargo_punch(int fd, uint64_t at, size_t len) {
  (void)fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)at,
                  (off_t)len);
}

typedef struct litter {
  int fd;
  uint64_t at;
  size_t len, size;
  unsigned char *p;
} litter;

static void sweep(litter l) {
  if (l.p != NULL)
    munmap(l.p, l.size);
  while (l.len > 0) { /* in steps: the file is locked meanwhile */
    size_t n = l.len < STEP ? l.len : STEP;

    pp_cargo_punch(l.fd, l.at, n);
    l.at += n;
    l.len -= n;
  }
}

static void *sweeper(void *arg) {
  sweep(*(litter *)arg);
  free(arg);
  return NULL;
}

void pp_cargo_sweep(int fd, uint64_t at, size_t len, void *p, size_t size) {
  litter l = {fd, at, len, size, p}, *own;
  pthread_attr_t how;
  sigset_t all, was;
  pthread_t thread;
  int r = -1;

  if (len < LONG && size < LONG) {
    sweep(l);
    return;
  }
  own = malloc(sizeof *own);
  if (own != NULL && pthread_attr_init(&how) == 0) {
    *own = l;
    pthread_attr_setdetachstate(&how, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&how, 65536);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &was);
    r = pthread_create(&thread, &how, sweeper, own);
    pthread_sigmask(SIG_SETMASK, &was, NULL);
    pthread_attr_destroy(&how);
  }
  if (r != 0) {
    free(own);
    sweep(l);
  }
}

bool pp_cargo_filled(int fd, uint64_t at, size_t len) {
  off_t hole = lseek(fd, (off_t)at, SEEK_HOLE);

  return hole >= 0 && (uint64_t)hole - at >= len;
}

/* --- slots ---------------------------------------------------------------- */

/* Sizes few enough that one slot serves many payloads of about a size. */
static size_t size_of(size_t need) {
  size_t step = GRAIN;

  while (step < need / 8)
    step *= 2;
  return up(need, step);
}

/* Memory for part of the file, mapped at p: now, not at the first touch, which
 * is dearer page by page, and could not say that there is none. */
static int fill(int fd, unsigned char *p, uint64_t at, size_t len) {
  if (len >= 4 * HUGE)
    (void)madvise(p, len, MADV_HUGEPAGE);
  if (madvise(p, len, MADV_POPULATE_WRITE) == 0)
    return 0;
  return errno == EINVAL &&
                 fallocate(fd, FALLOC_FL_KEEP_SIZE, (off_t)at, (off_t)len) == 0
             ? 0
             : PP_ENOMEM;
}

static int make(pp_hold *h, size_t need, pp_slot *out) {
  size_t cap = size_of(need), align = cap >= HUGE ? HUGE : GRAIN;
  uint64_t at;
  void *p;

  pthread_mutex_lock(&h->lock);
  /* Behind each slot is a hole: pp_cargo_filled looks no further. */
  at = (h->next + GRAIN + align - 1) / align * align;
  if (at >= h->end || cap > h->end - at) {
    pthread_mutex_unlock(&h->lock);
    return PP_ENOMEM;
  }
  h->next = at + cap;
  pthread_mutex_unlock(&h->lock);
  p = mmap(NULL, cap, PROT_READ | PROT_WRITE, MAP_SHARED, h->fd, (off_t)at);
  if (p == MAP_FAILED)
    return PP_ENOMEM;
  if (fill(h->fd, p, at, cap) != 0) {
    munmap(p, cap);
    pp_cargo_punch(h->fd, at, cap);
    return PP_ENOMEM;
  }
  *out = (pp_slot){at, cap, p};
  return 0;
}

/* The smallest idle one that will do, unless it would be mostly wasted. */
static bool reuse(pp_hold *h, size_t need, pp_slot *out) {
  unsigned best = h->nidle;

  for (unsigned i = 0; i < h->nidle; i++)
    if (h->idle[i].cap >= need && h->idle[i].cap / 2 <= need &&
        (best == h->nidle || h->idle[i].cap < h->idle[best].cap))
      best = i;
  if (best == h->nidle)
    return false;
  *out = h->idle[best];
  h->warm -= out->cap;
  memmove(h->idle + best, h->idle + best + 1,
          (--h->nidle - best) * sizeof *h->idle);
  return true;
}

int pp_hold_get(pp_hold *h, size_t len, pp_slot *out) {
  bool found;

  if (h->end == 0 || len > SIZE_MAX / 4)
    return PP_ENOMEM;
  pthread_mutex_lock(&h->lock);
  found = reuse(h, len, out);
  pthread_mutex_unlock(&h->lock);
  return found ? 0 : make(h, len, out);
}

static void let_go(const pp_hold *h, const pp_slot *s, bool cold) {
  if (!h->told) {
    pp_cargo_sweep(h->fd, s->at, cold ? 0 : s->cap, s->p, s->cap);
    return;
  }
  if (s->p != NULL)
    munmap(s->p, s->cap);
  if (!cold)
    pp_cargo_punch(h->fd, s->at, s->cap);
}

void pp_hold_back(pp_hold *h, pp_slot slot, bool cold) {
  pp_slot old = {0};

  if (slot.cap == 0)
    return;
  pthread_mutex_lock(&h->lock);
  if (!cold && slot.p != NULL && slot.cap <= PP_HOLD_WARM) {
    /* The oldest ones make room for it. */
    while (h->nidle > 0 &&
           (h->nidle == PP_HOLD_SLOTS || h->warm > PP_HOLD_WARM - slot.cap)) {
      old = h->idle[0];
      h->warm -= old.cap;
      memmove(h->idle, h->idle + 1, --h->nidle * sizeof *h->idle);
      pthread_mutex_unlock(&h->lock);
      let_go(h, &old, false);
      pthread_mutex_lock(&h->lock);
    }
    h->idle[h->nidle++] = slot;
    h->warm += slot.cap;
    slot.cap = 0;
  }
  pthread_mutex_unlock(&h->lock);
  if (slot.cap > 0)
    let_go(h, &slot, cold);
}

void pp_hold_sent(pp_hold *h, pp_slot slot) {
  if (h->nsent == PP_HOLD_SLOTS) { /* the oldest will come back unmapped */
    munmap(h->sent[0].p, h->sent[0].cap);
    memmove(h->sent, h->sent + 1, --h->nsent * sizeof *h->sent);
  }
  h->sent[h->nsent++] = slot;
}

void pp_hold_released(pp_hold *h, uint64_t at, size_t cap, bool cold) {
  pp_slot s = {at, cap, NULL};

  for (unsigned i = 0; i < h->nsent; i++)
    if (h->sent[i].at == at) {
      s = h->sent[i];
      memmove(h->sent + i, h->sent + i + 1, (--h->nsent - i) * sizeof s);
      break;
    }
  pp_hold_back(h, s, cold);
}

static void clear(pp_hold *h, bool cold) {
  for (;;) {
    pp_slot s;

    pthread_mutex_lock(&h->lock);
    if (h->nidle == 0) {
      pthread_mutex_unlock(&h->lock);
      return;
    }
    s = h->idle[--h->nidle];
    h->warm -= s.cap;
    pthread_mutex_unlock(&h->lock);
    let_go(h, &s, cold);
  }
}

void pp_hold_trim(pp_hold *h) { clear(h, false); }

void pp_hold_forget(pp_hold *h) { clear(h, true); }

/* --- buffers -------------------------------------------------------------- */

static unsigned at_of(const pp_hold *h, const unsigned char *p) {
  unsigned i = 0;

  while (i < h->nbusy && h->busy[i].p != p)
    i++;
  pp_assert(i < h->nbusy);
  return i;
}

/* A slot was not handed over: whoever decides what is kept knows nothing of it.
 */
static void unsent(pp_hold *h, pp_slot slot) {
  if (h->told)
    let_go(h, &slot, false);
  else
    pp_hold_back(h, slot, false);
}

/* The slot was the last one made: what comes behind it in the file is free. */
static bool extend(pp_hold *h, pp_slot *s, size_t need) {
  size_t cap = size_of(need);
  bool mine;
  void *p;

  pthread_mutex_lock(&h->lock);
  mine = h->next == s->at + s->cap && cap - s->cap <= h->end - h->next;
  if (mine)
    h->next = s->at + cap;
  pthread_mutex_unlock(&h->lock);
  if (!mine)
    return false;
  p = mremap(s->p, s->cap, cap, MREMAP_MAYMOVE);
  if (p == MAP_FAILED)
    return false;
  s->p = p;
  if (fill(h->fd, s->p + s->cap, s->at + s->cap, cap - s->cap) != 0) {
    pp_cargo_punch(h->fd, s->at + s->cap, cap - s->cap);
    munmap(s->p + s->cap, cap - s->cap);
    return false;
  }
  s->cap = cap;
  return true;
}

static unsigned char *grow(pp_home *home, unsigned char *p, size_t len,
                           size_t was_cap, size_t *cap) {
  pp_hold *h = (pp_hold *)(void *)home;
  pp_slot s, *was = p != NULL ? &h->busy[at_of(h, p)] : NULL;

  (void)was_cap;
  if (was != NULL && extend(h, was, *cap)) {
    *cap = was->cap;
    return was->p;
  }
  if ((was == NULL && h->nbusy == PP_HOLD_SLOTS) ||
      pp_hold_get(h, *cap, &s) != 0)
    return NULL;
  if (was != NULL) {
    pp_slot old = *was;

    memcpy(s.p, old.p, len);
    *was = s;
    unsent(h, old);
  } else {
    h->busy[h->nbusy++] = s;
  }
  *cap = s.cap;
  return s.p;
}

static void release(pp_home *home, unsigned char *p, size_t cap) {
  pp_hold *h = (pp_hold *)(void *)home;
  unsigned i = at_of(h, p);
  pp_slot s = h->busy[i];

  (void)cap;
  h->busy[i] = h->busy[--h->nbusy];
  unsent(h, s);
}

void pp_hold_open(pp_hold *h, int fd, uint64_t first, uint64_t end) {
  pthread_mutex_init(&h->lock, NULL);
  h->fd = fd;
  h->next = first;
  h->end = first > 0 ? end : 0;
  h->home = (pp_home){PP_CARGO_LEAST, grow, release};
}

pp_slot pp_hold_take(pp_hold *h, pp_buf *b) {
  unsigned i = at_of(h, b->data);
  pp_slot s = h->busy[i];

  h->busy[i] = h->busy[--h->nbusy];
  b->data = NULL;
  b->len = b->cap = 0;
  b->afar = false;
  return s;
}

/* --- windows -------------------------------------------------------------- */

static int copy(int fd, uint64_t at, size_t len, pp_window *out) {
  unsigned char *p = malloc(len);
  size_t done = 0;

  while (p != NULL && done < len) {
    ssize_t n = pread(fd, p + done, len - done, (off_t)(at + done));

    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0) {
      free(p);
      return PP_ENOMEM;
    }
    done += (size_t)n;
  }
  if (p == NULL)
    return PP_ENOMEM;
  *out = (pp_window){at, len, p, p, 0};
  return 0;
}

int pp_window_open(pp_windows *w, uint64_t at, size_t len, pp_window *out) {
  uint64_t first = at / PAGE * PAGE;
  size_t size = up((size_t)(at - first) + len, PAGE);
  void *p;

  for (unsigned i = 0; i < w->n; i++) {
    pp_window *v = &w->idle[i];

    if (v->at / PAGE * PAGE != first || v->size < size)
      continue;
    *out = *v;
    w->warm -= v->size;
    memmove(v, v + 1, (--w->n - i) * sizeof *v);
    out->at = at;
    out->len = len;
    out->p = out->base + (at - first);
    return 0;
  }
  p = mmap(NULL, size, PROT_READ, MAP_SHARED, w->fd, (off_t)first);
  if (p == MAP_FAILED)
    return copy(w->fd, at, len, out);
  *out = (pp_window){at, len, (unsigned char *)p + (at - first), p, size};
  return 0;
}

static void drop_oldest(pp_windows *w) {
  munmap(w->idle[0].base, w->idle[0].size);
  w->warm -= w->idle[0].size;
  memmove(w->idle, w->idle + 1, --w->n * sizeof *w->idle);
}

void pp_window_close(pp_windows *w, pp_window *out) {
  pp_window v = *out;

  memset(out, 0, sizeof *out);
  if (v.size == 0) {
    free(v.base);
    return;
  }
  if (v.size > PP_WINDOW_WARM) {
    munmap(v.base, v.size);
    return;
  }
  while (w->n > 0 && (w->n == PP_WINDOWS || w->warm > PP_WINDOW_WARM - v.size))
    drop_oldest(w);
  w->idle[w->n++] = v;
  w->warm += v.size;
}

void pp_windows_trim(pp_windows *w) {
  while (w->n > 0)
    drop_oldest(w);
}

/* --- the driver's count --------------------------------------------------- */

static void back(pp_cargo *c) {
  if (c->slot.cap > 0)
    unsent(c->ud, c->slot);
  free(c);
}

static pp_cargo *counted(pp_hold *h, pp_slot slot, size_t len) {
  pp_cargo *c = calloc(1, sizeof *c);

  if (c == NULL) {
    pp_hold_back(h, slot, false);
    return NULL;
  }
  c->refs = 1;
  c->len = len;
  c->at = slot.at;
  c->p = slot.p;
  c->slot = slot;
  c->gone = back;
  c->ud = h;
  return c;
}

pp_cargo *pp_cargo_of(pp_hold *h, pp_buf *b) {
  size_t len = b->len;

  return counted(h, pp_hold_take(h, b), len);
}

static void free_own(pp_cargo *c) {
  if (c->window.base != NULL)
    pp_block_free(c->ud, c->window.base, c->window.size);
  free(c);
}

pp_cargo *pp_cargo_own(struct pp_blocks *b, unsigned char *block, size_t size,
                       const unsigned char *p, size_t len) {
  pp_cargo *c = calloc(1, sizeof *c);

  if (c == NULL) {
    pp_block_free(b, block, size);
    return NULL;
  }
  c->refs = 1;
  c->len = len;
  c->p = p;
  c->window.base = block;
  c->window.size = size;
  c->gone = free_own;
  c->ud = b;
  return c;
}

pp_cargo *pp_cargo_copy(pp_hold *h, const void *bytes, size_t len) {
  pp_slot slot;

  if (len < PP_CARGO_LEAST || pp_hold_get(h, len, &slot) != 0)
    return NULL;
  memcpy(slot.p, bytes, len);
  return counted(h, slot, len);
}
