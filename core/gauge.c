/* SPDX-License-Identifier: MIT */
#include "gauge.h"

/* A probe that took so much longer has waited. */
#define WAITED_NS 1000000

void pp_gauge_sent(pp_gauge *g, uint64_t n, int64_t spent, int64_t now) {
  if (g->since.bytes == 0)
    g->since.first = now;
  g->since.bytes += n;
  g->since.spent += spent;
}

uint64_t pp_gauge_probe(pp_gauge *g, int64_t now) {
  g->asked = true;
  g->before = g->since;
  g->since = (pp_gauged){0};
  g->sent = now;
  return ++g->token;
}

static void learn(pp_gauge *g, double rate, bool waited) {
  if (rate > g->rate)
    g->rate = g->rate > 0 || waited ? rate : 0;
  else if (waited) /* one that was held up by something else counts little */
    g->rate = rate > g->rate * 0.75 ? rate : g->rate * 0.75;
}

bool pp_gauge_back(pp_gauge *g, uint64_t token, int64_t now) {
  int64_t took = now - g->sent, start = g->back, time;

  if (!g->asked || token != g->token)
    return false;
  g->asked = false;
  if (!g->known || took < g->rtt)
    g->rtt = took;
  else
    g->rtt += (took - g->rtt) / 64; /* ways change */
  g->known = true;
  if (g->before.bytes >= PP_GAUGE_BYTES) {
    if (g->before.first + g->rtt > start)
      start = g->before.first + g->rtt;
    time = now - start;
    /* While they were made the link had nothing to do, at worst. */
    time -= g->before.spent < time ? g->before.spent : time;
    if (time < (now - start) / 8)
      time = (now - start) / 8;
    learn(g,
          (double)g->before.bytes * 1e9 / (double)(time > 1000 ? time : 1000),
          took - g->rtt > WAITED_NS && took > g->rtt + g->rtt / 4);
  }
  g->back = now;
  return true;
}
