/* SPDX-License-Identifier: MIT */
#include "berths.h"

#include <stdlib.h>

#include "link.h"
#include "wire.h"

void pp_berths_init(pp_berths *b, int fd) {
  b->fd = b->windows.fd = fd;
  b->next = 1;
}

/* A number nobody has, or 0. One that was given back is the last to be used
 * again: part of its range may still be swept (pp_cargo_sweep). */
static uint32_t number(pp_berths *b) {
  for (uint32_t tries = 1; tries < PP_BERTHS; tries++) {
    uint32_t n = b->next;
    uint64_t bit = (uint64_t)1 << n % 64;

    b->next = n + 1 < PP_BERTHS ? n + 1 : 1;
    if (!(b->used[n / 64] & bit)) {
      b->used[n / 64] |= bit;
      return n;
    }
  }
  return 0;
}

pp_berth *pp_berth_new(pp_berths *b, struct pp_link *l) {
  pp_berth *berth;
  uint32_t n;

  if (b->fd < 0 || (berth = calloc(1, sizeof *berth)) == NULL)
    return NULL;
  n = number(b);
  if (n == 0) {
    free(berth);
    return NULL;
  }
  berth->number = n;
  berth->refs = 1;
  berth->all = b;
  berth->link = l;
  return berth;
}

static void unref(pp_berth *berth) {
  pp_berths *b = berth->all;
  uint32_t n = berth->number;

  if (--berth->refs > 0)
    return;
  pp_cargo_punch(b->fd, PP_BERTH_AT(n), PP_BERTH_BYTES);
  b->used[n / 64] &= ~((uint64_t)1 << n % 64);
  free(berth);
}

static void forget(pp_berths *b, unsigned i) {
  b->warm -= b->kept[i].cap;
  b->kept[i] = b->kept[--b->nkept];
}

void pp_berth_leave(pp_berth *berth) {
  pp_berths *b;

  if (berth == NULL)
    return;
  b = berth->all;
  berth->link = NULL;
  for (unsigned i = b->nkept; i-- > 0;)
    if (b->kept[i].berth == berth) {
      pp_cargo_punch(b->fd, b->kept[i].at, b->kept[i].cap);
      forget(b, i);
    }
  unref(berth);
}

/* Nobody needs it: to its worker it goes. */
static void gone(pp_cargo *c) {
  pp_berth *berth = c->ud;
  pp_berths *b = berth->all;
  pp_link *l = berth->link;
  bool cold = l == NULL || b->nkept == PP_KEPT_SLOTS ||
              c->slot.cap > PP_HOLD_WARM ||
              b->warm > PP_HOLD_WARM - c->slot.cap;

  pp_window_close(&b->windows, &c->window);
  if (cold) {
    pp_cargo_sweep(b->fd, c->slot.at, c->slot.cap, NULL, 0);
  } else {
    b->kept[b->nkept++] = (pp_kept_slot){berth, c->slot.at, c->slot.cap};
    b->warm += c->slot.cap;
  }
  if (l != NULL)
    pp_link_release(l, c->slot.at, c->slot.cap, cold);
  unref(berth);
  free(c);
}

static bool says(const pp_berth *berth, const unsigned char *p, uint64_t *at,
                 uint64_t *len) {
  uint64_t cap = pp_get64(p + PP_REF_CAP), first, slot;

  *at = pp_get64(p + PP_REF_AT);
  *len = pp_get64(p + PP_REF_LEN);
  if (berth == NULL)
    return false;
  first = PP_BERTH_AT(berth->number);
  slot = *at / PP_REF_GRAIN * PP_REF_GRAIN;
  return *at >= first && *at - first < PP_BERTH_BYTES &&
         cap <= PP_BERTH_BYTES && slot - first <= PP_BERTH_BYTES - cap &&
         cap >= *at - slot && *len > 0 && *len <= cap - (*at - slot) &&
         pp_cargo_filled(berth->all->fd, *at, *len);
}

int pp_berth_cargo(pp_berth *berth, const unsigned char *p, pp_cargo **out) {
  pp_berths *b;
  uint64_t at, len;
  pp_cargo *c;

  if (!says(berth, p, &at, &len))
    return PP_EBAD;
  b = berth->all;
  c = calloc(1, sizeof *c);
  if (c == NULL)
    return PP_ENOMEM; /* its memory is the worker's as long as that lives */
  c->refs = 1;
  c->len = (size_t)len;
  c->at = at;
  c->slot.at = at / PP_REF_GRAIN * PP_REF_GRAIN;
  c->slot.cap = (size_t)pp_get64(p + PP_REF_CAP);
  c->gone = gone;
  c->ud = berth;
  berth->refs++;
  for (unsigned i = 0; i < b->nkept; i++)
    if (b->kept[i].at == c->slot.at) {
      forget(b, i);
      break;
    }
  if (pp_window_open(&b->windows, at, (size_t)len, &c->window) != 0) {
    pp_cargo_unref(c);
    return PP_ENOMEM;
  }
  c->p = c->window.p;
  *out = c;
  return 0;
}

void pp_berths_trim(pp_berths *b) {
  for (unsigned i = b->nkept; i-- > 0;) {
    const pp_kept_slot k = b->kept[i];
    pp_link *l = k.berth->link;

    /* One that has a job may be filling it again. */
    if (l == NULL || l->place.jobs.n > 0)
      continue;
    atomic_fetch_add(&l->map.lane->trimmed, 1);
    pp_cargo_punch(b->fd, k.at, k.cap);
    forget(b, i);
  }
  pp_windows_trim(&b->windows);
}
