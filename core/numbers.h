/* SPDX-License-Identifier: MIT */
/*
 * numbers: numbers as bytes, one by one and in runs (VALUES.md). No Lua.
 *
 * A run is many numbers of one kind behind one lead byte and their count, each
 * as wide as the widest of them needs. Every number still takes a byte at
 * least: what a run announces is there, or it is malformed.
 */
#ifndef PP_NUMBERS_H
#define PP_NUMBERS_H

#include <stdbool.h>

#include "buf.h"

/* Lead bytes. 0x00-0x7f are the integers -16 to 111. */
enum {
  LEAD_INT_BIAS = 16,
  LEAD_INT_MAX = 0x7f,
  LEAD_INT8 = 0xab, /* and of 2, 4, 8 bytes */
  LEAD_FLOAT = 0xaf,
  LEAD_INTS = 0xc5, /* run of integers of one byte; of 2, 4, 8 */
  LEAD_FLOATS = 0xc9
};

int pp_put_integer(pp_buf *out, int64_t v);
int pp_put_float(pp_buf *out, double v);

/* --- writing runs ------------------------------------------------------- */

#define PP_RUN_MAX 512 /* numbers that gather before they are written */

/* Numbers on their way to out, in order. All but v is to be set first. */
typedef struct pp_runs {
  pp_buf *out; /* borrowed */
  unsigned n;  /* that have gathered */
  bool floats; /* what they are, or were when there were some */
  union {
    int64_t i[PP_RUN_MAX];
    double d[PP_RUN_MAX];
  } v;
} pp_runs;

/* Write what has gathered: 0 or PP_ENOMEM. To be called before anything else
 * is appended to out. */
int pp_runs_flush(pp_runs *r);

static inline int pp_runs_integer(pp_runs *r, int64_t v) {
  if (PP_UNLIKELY(r->n > 0 && (r->floats || r->n == PP_RUN_MAX)) &&
      pp_runs_flush(r) < 0)
    return PP_ENOMEM;
  r->floats = false;
  r->v.i[r->n++] = v;
  return 0;
}

static inline int pp_runs_float(pp_runs *r, double v) {
  if (PP_UNLIKELY(r->n > 0 && (!r->floats || r->n == PP_RUN_MAX)) &&
      pp_runs_flush(r) < 0)
    return PP_ENOMEM;
  r->floats = true;
  r->v.d[r->n++] = v;
  return 0;
}

/* --- reading them ------------------------------------------------------- */

/* The rest of a run. Borrowed. */
typedef struct pp_run {
  const unsigned char *p;
  size_t n;      /* numbers left */
  unsigned lead; /* of what kind */
} pp_run;

/* A lead byte has been read: is it that of a run? 1, and the reader is behind
 * the run; 0; PP_EBAD when its numbers are not all there, or none. */
int pp_run_open(pp_rd *r, unsigned lead, pp_run *out);

/* The next number, an integer; the run has one. */
static inline int64_t pp_run_integer(pp_run *run) {
  const unsigned char *p = run->p;

  run->n--;
  switch (run->lead) {
  case LEAD_INTS:
    run->p += 1;
    return (int8_t)p[0];
  case LEAD_INTS + 1:
    run->p += 2;
    return (int16_t)(p[0] | p[1] << 8);
  case LEAD_INTS + 2:
    run->p += 4;
    return (int32_t)pp_get32(p);
  default:
    run->p += 8;
    return (int64_t)pp_get64(p);
  }
}

/* The same of a run of floats (LEAD_FLOATS). */
static inline double pp_run_float(pp_run *run) {
  double d;

  memcpy(&d, run->p, 8);
  run->p += 8;
  run->n--;
  return d;
}

#endif
