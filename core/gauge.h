/* SPDX-License-Identifier: MIT */
/*
 * gauge: how fast a link is, measured by what goes over it anyway.
 *
 * Behind so many bytes a probe is sent, which comes back at once. The bytes
 * before it have arrived when it does: from when the last one came back, or the
 * first of them went, if that was later. A probe that comes back as fast as
 * ever did not have to wait behind them: then the link can do that and more.
 *
 * Times are nanoseconds of one clock. Never fails, owns nothing; zeroed is new.
 */
#ifndef PP_GAUGE_H
#define PP_GAUGE_H

#include <stdbool.h>
#include <stdint.h>

/* Bytes between probes. */
#define PP_GAUGE_BYTES (128u << 10)

/* Some bytes, and what is to be known of them. */
typedef struct pp_gauged {
  uint64_t bytes;
  int64_t first; /* when the first of them went */
  int64_t spent; /* on making them, in which none went */
} pp_gauged;

typedef struct pp_gauge {
  bool asked; /* a probe is under way */
  bool known; /* rtt is */
  uint64_t token;
  pp_gauged since;  /* what went after the last probe */
  pp_gauged before; /* and between that and the one before */
  int64_t sent;     /* when the last probe went */
  int64_t back;     /* when the last came back */
  int64_t rtt;      /* the least a probe has taken */
  double rate;      /* bytes a second; 0: not known */
} pp_gauge;

/* n bytes go, which took so long to make. */
void pp_gauge_sent(pp_gauge *g, uint64_t n, int64_t spent, int64_t now);
/* Is it time for a probe? */
static inline bool pp_gauge_due(const pp_gauge *g) {
  return !g->asked && (!g->known || g->since.bytes >= PP_GAUGE_BYTES);
}
/* It goes: what is to come back. */
uint64_t pp_gauge_probe(pp_gauge *g, int64_t now);
/* This came back. False if it was not asked for. */
bool pp_gauge_back(pp_gauge *g, uint64_t token, int64_t now);

#endif
