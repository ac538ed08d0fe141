/* SPDX-License-Identifier: MIT */
#include "press.h"

#include <stdlib.h>

#include "zstd_lazy.h"

/* What is believed before anything was packed, and slowly again when nothing is
 * for long: ns for a byte, and what becomes of it. */
#define COST 4.0
#define RATIO 0.45
/* Opening costs that part of packing. */
#define OPENING 0.4
/* It has to be so much better. */
#define ENOUGH 0.9
/* Little is gained above that: the rest of a block's bytes does not shrink. */
#define WORTH(n) ((n) - (n) / 8)
#define LEVEL 1

bool pp_press_able(void) { return pp_zstd_open(); }

bool pp_press_pays(const pp_press *z) {
  const pp_gauge *g = &z->gauge;
  double cost = z->cost > 0 ? z->cost : COST;
  double ratio = z->cost > 0 ? z->ratio : RATIO;

  if (!z->able)
    return false;
  if (g->rate <= 0)
    return g->known && g->rtt >= PP_PRESS_LONG_NS;
  return cost * 1e-9 * g->rate < ENOUGH - ratio;
}

#ifdef PPSH_HAVE_ZSTD
void pp_press_clear(pp_press *z) {
  if (z->packer != NULL)
    pp_zstd_lib.ZSTD_freeCCtx(z->packer);
  if (z->opener != NULL)
    pp_zstd_lib.ZSTD_freeDCtx(z->opener);
  free(z->out);
  free(z->in);
  *z = (pp_press){0};
}

/* Pack a block into z->out: bytes of the message, or 0. */
static size_t pack(pp_press *z, const unsigned char *p, size_t n) {
  size_t k;

  if (z->out == NULL && (z->out = malloc(PP_PRESS_BLOCK)) == NULL)
    return 0;
  if (z->packer == NULL &&
      (!pp_zstd_open() || (z->packer = pp_zstd_lib.ZSTD_createCCtx()) == NULL))
    return 0;
  k = pp_zstd_lib.ZSTD_compressCCtx(z->packer, z->out + PP_RELAY_HEAD + 4,
                                    WORTH(n), p, n, LEVEL);
  if (pp_zstd_lib.ZSTD_isError(k))
    return 0;
  pp_relay_head(z->out, PP_R_PACKED, 0, (uint32_t)k + 4);
  pp_put32(z->out + PP_RELAY_HEAD, (uint32_t)n);
  return PP_RELAY_HEAD + 4 + k;
}

bool pp_press_open(pp_press *z, const unsigned char *p, size_t n,
                   const unsigned char **out, size_t *len) {
  size_t k;

  if (n < 4 || (*len = pp_get32(p)) < PP_RELAY_HEAD || *len > PP_PRESS_BLOCK)
    return false;
  if (z->in == NULL && (z->in = malloc(PP_PRESS_BLOCK)) == NULL)
    return false;
  if (z->opener == NULL &&
      (!pp_zstd_open() || (z->opener = pp_zstd_lib.ZSTD_createDCtx()) == NULL))
    return false;
  k = pp_zstd_lib.ZSTD_decompressDCtx(z->opener, z->in, *len, p + 4, n - 4);
  if (pp_zstd_lib.ZSTD_isError(k) || k != *len)
    return false;
  z->taken[0] += k;
  z->taken[1] += n;
  for (size_t at = 0; at < *len;) {
    size_t left = *len - at, size;

    if (left < PP_RELAY_HEAD || z->in[at] == PP_R_PACKED)
      return false;
    size = PP_RELAY_HEAD + (size_t)pp_get32(z->in + at + 4);
    if (size > left)
      return false;
    at += size;
  }
  *out = z->in;
  return true;
}
#else
void pp_press_clear(pp_press *z) { *z = (pp_press){0}; }
static size_t pack(pp_press *z, const unsigned char *p, size_t n) {
  (void)z, (void)p, (void)n;
  return 0;
}
bool pp_press_open(pp_press *z, const unsigned char *p, size_t n,
                   const unsigned char **out, size_t *len) {
  (void)z, (void)p, (void)n, (void)out, (void)len;
  return false;
}
#endif

/* Bring an average nearer to what was seen last. */
static void lean(double *average, double last, double part) {
  *average += (last - *average) * part;
}

/* Pack a block if it may shrink: bytes of the message in z->out, or 0. */
static size_t try(pp_press *z, const unsigned char *p, size_t n,
                  int64_t *spent) {
  int64_t began;
  double cost;
  size_t k;

  if (z->skip > 0) {
    z->skip--;
    return 0;
  }
  if (n < PP_PRESS_LEAST)
    return 0;
  began = pp_now_ns();
  k = pack(z, p, n);
  *spent = pp_now_ns() - began;
  cost = (double)*spent / (double)n * (1 + OPENING);
  if (z->cost <= 0) {
    z->cost = COST;
    z->ratio = RATIO;
  }
  /* It may have been held up by another process. */
  lean(&z->cost, cost < 4 * z->cost ? cost : 4 * z->cost, 1.0 / 16);
  if (k == 0) {
    z->misses++;
    z->skip = z->misses < 6 ? 1u << (z->misses - 1) : PP_PRESS_SKIP;
    return 0;
  }
  z->misses = 0;
  lean(&z->ratio, (double)k / (double)n, 1.0 / 8);
  z->sent[0] += n;
  z->sent[1] += k;
  return k;
}

static void probe(pp_press *z, int64_t now,
                  void (*write)(void *ud, const void *p, size_t n), void *ud) {
  unsigned char p[PP_RELAY_HEAD + 8];

  if (!z->gauge.on || !pp_gauge_due(&z->gauge))
    return;
  pp_relay_head(p, PP_R_PROBE, 0, 8);
  pp_put64(p + PP_RELAY_HEAD, pp_gauge_probe(&z->gauge, now));
  write(ud, p, sizeof p);
}

void pp_press_probe(pp_press *z,
                    void (*write)(void *ud, const void *p, size_t n),
                    void *ud) {
  probe(z, pp_now_ns(), write, ud);
}

bool pp_press_full(const pp_press *z, size_t waiting) {
  int64_t asked = pp_gauge_asked(&z->gauge);

  return pp_gauge_full(&z->gauge, waiting) &&
         (asked == 0 || pp_now_ns() - asked < PP_GAUGE_PATIENCE_NS);
}

size_t pp_press_turn(const pp_press *z) {
  uint64_t n = z->gauge.on ? pp_gauge_window(&z->gauge) / 4 : PP_RELAY_MAX;

  if (n < PP_GAUGE_LEAST / 4) /* what has to go goes while all runs out, too */
    n = PP_GAUGE_LEAST / 4;
  return n < PP_RELAY_MAX ? (size_t)n : PP_RELAY_MAX;
}

/* So much went. */
static void note(pp_press *z, size_t n, int64_t spent,
                 void (*write)(void *ud, const void *p, size_t n), void *ud) {
  int64_t now;

  if (!z->gauge.on)
    return;
  now = pp_now_ns();
  pp_gauge_sent(&z->gauge, n, spent, now);
  probe(z, now, write, ud);
}

void pp_press_passed(pp_press *z, size_t n,
                     void (*write)(void *ud, const void *p, size_t n),
                     void *ud) {
  if (z->cost > 0) /* things may have changed when it pays again */
    lean(&z->ratio, RATIO, 1.0 / 64);
  note(z, n, 0, write, ud);
}

void pp_press_pass(pp_press *z, const unsigned char *p, size_t n,
                   void (*write)(void *ud, const void *p, size_t n), void *ud) {
  if (!pp_press_pays(z)) {
    write(ud, p, n);
    pp_press_passed(z, n, write, ud);
    return;
  }
  while (n > 0) {
    size_t block = 0, k;
    int64_t spent = 0;

    while (block < n) {
      size_t size = PP_RELAY_HEAD + (size_t)pp_get32(p + block + 4);

      if (block > 0 && block + size > PP_PRESS_BLOCK)
        break;
      block += size;
    }
    k = try(z, p, block, &spent);
    write(ud, k > 0 ? z->out : p, k > 0 ? k : block);
    note(z, k > 0 ? k : block, spent, write, ud);
    p += block;
    n -= block;
  }
}
