/* SPDX-License-Identifier: MIT */
#include "gauge.h"

/* A probe that took so much longer has waited. */
#define WAITED_NS 1000000

/* By rate and time: what is under way if nothing waits, twice, and a little. */
static uint64_t measured(const pp_gauge *g) {
  double n = g->rate * (double)(2 * g->rtt + PP_GAUGE_AHEAD_NS) / 1e9;

  return n < PP_GAUGE_LEAST ? PP_GAUGE_LEAST
         : n < 1e15         ? (uint64_t)n
                            : (uint64_t)1000000000000000;
}

static uint64_t wide(const pp_gauge *g) {
  if (g->rate > 0)
    return measured(g);
  return g->unlimited > 0 ? g->unlimited : PP_GAUGE_FIRST;
}

static uint64_t step(const pp_gauge *g) {
  uint64_t n = wide(g) / 8, least = wide(g) / (PP_GAUGE_PROBES - 4);

  return n < PP_GAUGE_BYTES       ? n
         : least > PP_GAUGE_BYTES ? least
                                  : PP_GAUGE_BYTES;
}

uint64_t pp_gauge_window(const pp_gauge *g) { return g->drain ? 0 : wide(g); }

bool pp_gauge_due(const pp_gauge *g) {
  if (g->nasked == 0 && (!g->known || g->drain))
    return true;
  return g->known && g->nasked < PP_GAUGE_PROBES && g->since.bytes >= step(g);
}

void pp_gauge_sent(pp_gauge *g, uint64_t n, int64_t spent, int64_t now) {
  if (g->since.bytes == 0)
    g->since.first = now;
  g->since.bytes += n;
  g->since.spent += spent;
  g->flight += n;
}

uint64_t pp_gauge_probe(pp_gauge *g, int64_t now) {
  g->asked[g->nasked++] = (pp_probed){g->since, now, g->flight == 0};
  g->since = (pp_gauged){0};
  return ++g->token;
}

static void learn(pp_gauge *g, double rate, bool waited) {
  if (rate > g->rate)
    g->rate = g->rate > 0 || waited ? rate : 0;
  else if (waited) /* one that was held up by something else counts little */
    g->rate = rate > g->rate * 0.75 ? rate : g->rate * 0.75;
}

/* The bytes before a probe are there. */
static void arrived(pp_gauge *g, const pp_probed *p, int64_t now) {
  const pp_gauged *b = &p->before;
  int64_t took = now - p->sent;
  bool waited = took - g->rtt > WAITED_NS && took > g->rtt + g->rtt / 4;
  int64_t begun = b->first + g->rtt, time, idle;
  double rate;

  if (g->run.bytes == 0 || begun > g->back) {
    g->paused = begun > g->back; /* the link had nothing to do */
    g->run = (pp_gauged){0, g->paused ? begun : g->back, 0};
    g->went = b->first;
  }
  g->run.bytes += b->bytes;
  g->run.spent += b->spent;
  time = now - g->run.first;
  if (p->sent - g->went > time) /* several answers have come at once */
    time = p->sent - g->went;
  /* While they were made the link had nothing to do, at worst. */
  idle = g->run.spent < time - time / 8 ? g->run.spent : time - time / 8;
  time -= idle;
  rate = (double)g->run.bytes * 1e9 / (double)(time > 1000 ? time : 1000);
  if (g->paused && g->rate > 0 && rate > g->rate * 1.25)
    rate = g->rate * 1.25; /* how long it had nothing to do is a guess */
  if (g->run.bytes >= PP_GAUGE_BYTES) {
    learn(g, rate, waited);
    g->run.bytes = 0;
  } else if (g->run.bytes >= step(g) && g->rate > 0 && !waited) {
    learn(g, rate, false); /* the window may be too small to see it */
  }
}

/* What a probe takes that does not wait. */
static void least(pp_gauge *g, int64_t took, bool alone, int64_t now) {
  int64_t while_ns = 64 * g->rtt;

  if (!g->known || took < g->rtt)
    g->rtt = took;
  if (!g->known)
    g->anew = now;
  g->known = true;
  if (g->drain && alone) { /* it says all of it: ways change */
    g->drain = false;
    g->rtt = took;
    g->anew = now;
  } else if (alone) {
    g->anew = now;
    g->rtt += (took - g->rtt) / 64;
  } else if (now - g->anew >=
             (while_ns > PP_GAUGE_ANEW_NS ? while_ns : PP_GAUGE_ANEW_NS)) {
    g->drain = true;
  }
}

bool pp_gauge_back(pp_gauge *g, uint64_t token, int64_t now) {
  pp_probed p = g->asked[0];
  int64_t took = now - p.sent;

  if (g->nasked == 0 || token != g->token - (g->nasked - 1))
    return false;
  g->nasked--;
  for (unsigned i = 0; i < g->nasked; i++)
    g->asked[i] = g->asked[i + 1];
  least(g, took, p.alone, now);
  if (p.before.bytes > 0)
    arrived(g, &p, now);
  if (g->rate <= 0 && token > g->doubled && 2 * g->flight >= wide(g) &&
      wide(g) < (uint64_t)1 << 40) {
    g->unlimited = 2 * wide(g);
    g->doubled = g->token; /* once for all that are under way */
  }
  g->flight -= p.before.bytes;
  g->back = now;
  return true;
}
