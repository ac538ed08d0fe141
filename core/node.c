/* SPDX-License-Identifier: MIT */
#include "node.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "crew.h"
#include "engine.h"
#include "link.h"

/* After this many deaths in a row without a finished job, one new worker a
 * second. */
#define CALM_DEATHS 5
#define SECOND ((int64_t)1000000000)
/* Without any worker for so long, jobs are not kept waiting. */
#define STUCK_NS (10 * SECOND)

void pp_stats_add(pp_stats *to, const pp_stats *t) {
  to->njobs += t->njobs;
  to->failed += t->failed;
  to->retried += t->retried;
  to->lost += t->lost;
  to->sent += t->sent;
  to->received += t->received;
  to->time += t->time;
  to->cpu += t->cpu;
  if (to->maxrss < t->maxrss)
    to->maxrss = t->maxrss;
}

const char *pp_node_name(const pp_node *n) {
  return pp_engine_name(n->server->engine, n->name);
}

pp_node *pp_node_add(pp_server *s, uint16_t name) {
  pp_node *n = calloc(1, sizeof *n), **end = &s->local;

  if (n == NULL)
    return NULL;
  n->server = s;
  n->name = name;
  if (pp_domain_add(&s->sched, &n->domain) != 0) {
    free(n);
    return NULL;
  }
  while (*end != NULL)
    end = &(*end)->next;
  *end = n;
  return n;
}

const char *pp_node_state_name(const pp_node *n) {
  static const char *const names[] = {"connected", "connecting", "lost",
                                      "failed", "removed"};

  return names[n->state];
}

void pp_node_free(pp_node *n) {
  if (n->release != NULL)
    n->release(n);
  pp_domain_remove(&n->domain);
  free(n->workers);
  free(n->seats);
  free(n);
}

int pp_node_reserve(pp_node *n, uint32_t cap) {
  pp_calls *a = &n->server->calls;
  pp_link **v;
  uint32_t *seats;

  if (cap <= n->cap)
    return 0;
  v = realloc(n->workers, cap * sizeof(pp_link *));
  if (v != NULL)
    n->workers = v;
  seats = realloc(n->seats, cap * sizeof *seats);
  if (seats != NULL)
    n->seats = seats;
  if (v == NULL || seats == NULL ||
      pp_everywhere_seats(n->server, a->used + (cap - n->cap)) != 0)
    return PP_ENOMEM;
  for (; n->cap < cap; n->cap++) {
    n->workers[n->cap] = NULL;
    n->seats[n->cap] = a->used++;
  }
  return 0;
}

void pp_node_refused(pp_node *n, uint32_t number, int why) {
  pp_server *s = n->server;
  int64_t now = pp_now_ns();

  if (n->refusals++ == 0)
    pp_log(PP_LOG_WARN, "cannot start worker %u of '%s': %s; trying again",
           number, pp_node_name(n), pp_shm_error(why));
  n->respawn_at = now + SECOND / 10;
  pp_server_want(s); /* there may never be more */
  for (uint32_t i = 0; i < n->cap; i++)
    if (n->workers[i] != NULL && n->workers[i]->pid > 0) {
      n->stuck_since = 0;
      pp_crew_stay(n);
      pp_everywhere_step(s); /* a call may have waited for this one alone */
      return;
    }
  if (n->stuck_since == 0)
    n->stuck_since = now;
  if (now - n->stuck_since >= STUCK_NS && s->local->next == NULL) {
    char msg[120];

    snprintf(msg, sizeof msg, "no worker could be started for 10 seconds: %s",
             strerror(why));
    pp_server_fail_all(s, PP_KIND_LOST, msg);
    pp_everywhere_fail(s, PP_KIND_LOST, msg);
  }
}

/* A number no worker has, from 0; UINT32_MAX: none to be had. */
static uint32_t free_number(pp_node *n) {
  uint32_t most = n->ncpus + n->away + n->held, i;
  const pp_seat *seats = n->server->calls.seats;

  for (i = 0; i < n->cap &&
              (n->workers[i] != NULL || seats[n->seats[i]].failed != NULL);
       i++) {
  }
  if (i >= most)
    return UINT32_MAX;
  if (i == n->cap && pp_node_reserve(n, most) != 0)
    return UINT32_MAX;
  return i;
}

bool pp_node_tend(pp_node *n, int64_t now) {
  pp_server *s = n->server;

  if (n->refusals == 0 && s->up == NULL)
    pp_server_want(s);
  while (pp_crew_missing(n)) {
    uint32_t i;

    if (pp_crew_call(n))
      continue;
    if (now < n->respawn_at)
      return true;
    i = free_number(n);
    if (i == UINT32_MAX)
      return true;
    n->workers[i] = pp_link_open(n, i + 1);
    if (n->workers[i] == NULL) {
      int why = errno;

      if (why == EAGAIN) /* the zygote has enough to do */
        n->respawn_at = now + SECOND / 1000;
      else
        pp_node_refused(n, i + 1, why);
      errno = why;
      return false;
    }
    n->alive++;
    if (n->deaths >= CALM_DEATHS) {
      n->respawn_at = now + SECOND;
      return true;
    }
  }
  return true;
}

int pp_node_resize(pp_node *n, uint32_t ncpus) {
  if (pp_node_reserve(n, ncpus) != 0)
    return PP_ENOMEM;
  for (uint32_t i = n->cap; i-- > 0 && n->open > ncpus;)
    if (n->workers[i] != NULL && n->workers[i]->duty == PP_DUTY_OPEN)
      pp_link_retire(n->workers[i]);
  n->ncpus = ncpus;
  n->respawn_at = 0;
  pp_server_want(n->server);
  pp_node_tend(n, pp_now_ns());
  return 0;
}
