/* SPDX-License-Identifier: MIT */
/*
 * gauge: how fast a link is, measured by what goes over it anyway.
 *
 * Behind so many bytes a probe is sent, which comes back at once. The bytes
 * before it have arrived when it does: from when the last one came back, or the
 * first of them went, if that was later. A probe that comes back as fast as
 * ever did not have to wait behind them: then the link can do that and more.
 *
 * What is sent faster than that waits somewhere on the way, in buffers that are
 * not ours (an ssh program, sshd, TCP, a router), and what is said later waits
 * behind it. So no more is to be under way at once than the link holds, twice,
 * and takes in in PP_GAUGE_AHEAD_NS: the window. That of a link that was not
 * measured yet doubles until it was. What a probe takes that need not wait has
 * to be known for it, and in buffers that are never empty none does: so every
 * PP_GAUGE_ANEW_NS what is under way runs out, for one probe. (For packets BBR
 * does so: N. Cardwell et al., ACM Queue 14(5), 2016.)
 *
 * Times are nanoseconds of one clock. Never fails, owns nothing; zeroed is new.
 */
#ifndef PP_GAUGE_H
#define PP_GAUGE_H

#include <stdbool.h>
#include <stdint.h>

/* Bytes between probes, but no more than an eighth of the window; and that are
 * enough to measure by: of fewer many may come at once (token buckets). */
#define PP_GAUGE_BYTES (128u << 10)
/* The smallest window, and the first. */
#define PP_GAUGE_LEAST (64u << 10)
#define PP_GAUGE_FIRST (128u << 10)
#define PP_GAUGE_AHEAD_NS ((int64_t)30000000)
#define PP_GAUGE_ANEW_NS ((int64_t)10000000000)
/* Who does not answer for so long is not waited for. */
#define PP_GAUGE_PATIENCE_NS ((int64_t)8000000000)
/* Probes that may be under way. */
#define PP_GAUGE_PROBES 16u

/* Some bytes, and what is to be known of them. */
typedef struct pp_gauged {
  uint64_t bytes;
  int64_t first; /* when the first of them went */
  int64_t spent; /* on making them, in which none went */
} pp_gauged;

/* A probe that is under way. */
typedef struct pp_probed {
  pp_gauged before; /* what went between the probe before it and it */
  int64_t sent;
  bool alone; /* nothing was under way */
} pp_probed;

typedef struct pp_gauge {
  bool on;                          /* the other side answers probes */
  bool known;                       /* rtt is */
  bool drain;                       /* let what is under way run out */
  uint64_t token;                   /* of the last probe */
  pp_probed asked[PP_GAUGE_PROBES]; /* under way, the oldest first */
  unsigned nasked;
  uint64_t flight;    /* bytes not known to have arrived */
  pp_gauged since;    /* what went after the last probe */
  pp_gauged run;      /* what has arrived without a pause since `first` */
  bool paused;        /* but before it */
  int64_t went;       /* when the first of it went */
  int64_t back;       /* when the last came back */
  int64_t rtt;        /* what a probe takes that has not to wait */
  int64_t anew;       /* when one had not to wait */
  double rate;        /* bytes a second; 0: not known */
  uint64_t unlimited; /* the window while it is not; 0: the first */
  uint64_t doubled;   /* the last probe when that was doubled */
} pp_gauge;

/* n bytes go, which took so long to make. */
void pp_gauge_sent(pp_gauge *g, uint64_t n, int64_t spent, int64_t now);
/* How many bytes may be under way. */
uint64_t pp_gauge_window(const pp_gauge *g);
/* With so many more, would they only wait? An answer is on its way then. */
static inline bool pp_gauge_full(const pp_gauge *g, uint64_t more) {
  return g->on && g->flight + more >= pp_gauge_window(g);
}
/* Since when the oldest probe has been under way; 0: there is none. */
static inline int64_t pp_gauge_asked(const pp_gauge *g) {
  return g->nasked > 0 ? g->asked[0].sent : 0;
}
/* Is it time for a probe? */
bool pp_gauge_due(const pp_gauge *g);
/* It goes: what is to come back. */
uint64_t pp_gauge_probe(pp_gauge *g, int64_t now);
/* This came back. False if it was not asked for. */
bool pp_gauge_back(pp_gauge *g, uint64_t token, int64_t now);

#endif
