/* SPDX-License-Identifier: MIT */
#include <stdlib.h>
#include <string.h>

#include "sim.h"

uint64_t sim_workers, sim_busy;

/* --- wires ---------------------------------------------------------------- */

static void on_wire(sim_event *e) {
  sim_wire *w = (sim_wire *)(void *)e;
  int64_t since = 0;

  if (sim_now < w->shut_until) {
    sim_set(e, w->shut_until);
    return;
  }
  if (w->to_driver)
    sim_driver(&since);
  while (w->n > 0 && w->v[w->head].at <= sim_now) {
    sim_msg m = w->v[w->head];

    w->head = (w->head + 1) & (w->cap - 1);
    w->n--;
    if (!w->closed)
      w->deliver(w, &m);
  }
  if (w->to_driver)
    sim_driver(&since);
  if (w->n > 0)
    sim_set(e, w->v[w->head].at);
}

void sim_wire_open(sim_wire *w, int64_t delay,
                   void (*deliver)(sim_wire *w, const sim_msg *m)) {
  memset(w, 0, sizeof *w);
  w->event.run = on_wire;
  w->delay = delay;
  w->deliver = deliver;
}

void sim_wire_send(sim_wire *w, sim_msg m) {
  if (w->n == w->cap) {
    size_t cap = w->cap ? w->cap * 2 : 64;
    sim_msg *v = malloc(cap * sizeof *v);

    for (size_t i = 0; i < w->n; i++)
      v[i] = w->v[(w->head + i) & (w->cap - 1)];
    free(w->v);
    w->v = v;
    w->cap = cap;
    w->head = 0;
  }
  m.at = sim_now + w->delay;
  w->v[(w->head + w->n) & (w->cap - 1)] = m;
  if (w->n++ == 0)
    sim_set(&w->event, m.at);
}

/* --- agents --------------------------------------------------------------- */

/* A job at the node, by its slot. */
typedef struct record {
  uint64_t id;
  uint32_t seq, length;
  uint8_t attempt, waits;
} record;

typedef struct worker {
  sim_event event; /* first: set while it runs */
  sim_agent *agent;
  uint32_t slot;
} worker;

struct sim_agent {
  sim_wire in, out; /* in first */
  sim_link *link;
  record *records; /* by slot */
  uint32_t nrecords;
  uint32_t *queue; /* slots, as they came; a ring */
  size_t cap, head, n;
  uint32_t nworkers, nidle, *idle;
  bool dead, counted;
  sim_agent *next;
  worker workers[];
};

static sim_agent *agents; /* all there have been */

void sim_agents_clear(void) {
  sim_agent *a;

  while ((a = agents) != NULL) {
    agents = a->next;
    free(a->in.v);
    free(a->out.v);
    free(a->records);
    free(a->queue);
    free(a->idle);
    free(a);
  }
}

/* It counts no more among what is there. */
static void uncount(sim_agent *a) {
  if (!a->counted)
    return;
  sim_tally();
  a->counted = false;
  sim_workers -= a->nworkers;
  sim_busy -= a->nworkers - a->nidle;
}

static void count(sim_agent *a) {
  sim_tally();
  a->counted = true;
  sim_workers += a->nworkers;
  sim_busy += a->nworkers - a->nidle;
}

static void begin(sim_agent *a, uint32_t slot) {
  worker *w = &a->workers[a->idle[--a->nidle]];
  record *r = &a->records[slot];

  r->waits = false;
  w->slot = slot;
  if (a->counted) {
    sim_tally();
    sim_busy++;
    sim_on_begin(r->id);
  }
  sim_set(&w->event, sim_now + r->length);
}

static void on_done(sim_event *e) {
  worker *w = (worker *)(void *)e;
  sim_agent *a = w->agent;
  const record *r = &a->records[w->slot];

  if (a->counted) {
    sim_tally();
    sim_busy--;
  }
  a->idle[a->nidle++] = (uint32_t)(w - a->workers);
  if (!a->dead) {
    sim_wire_send(&a->out, (sim_msg){.kind = SIM_RESULT,
                                     .id = sim_answer(r->id),
                                     .seq = r->seq,
                                     .attempt = r->attempt,
                                     .length = r->length});
    while (a->n > 0) {
      uint32_t slot = a->queue[a->head];

      a->head = (a->head + 1) & (a->cap - 1);
      a->n--;
      if (a->records[slot].waits) { /* else it was given back */
        begin(a, slot);
        break;
      }
    }
  }
}

static void enqueue(sim_agent *a, uint32_t slot) {
  if (a->n == a->cap) {
    size_t cap = a->cap ? a->cap * 2 : 64;
    uint32_t *v = malloc(cap * sizeof *v);

    for (size_t i = 0; i < a->n; i++)
      v[i] = a->queue[(a->head + i) & (a->cap - 1)];
    free(a->queue);
    a->queue = v;
    a->cap = cap;
    a->head = 0;
  }
  a->queue[(a->head + a->n++) & (a->cap - 1)] = slot;
}

static void on_word(sim_wire *w, const sim_msg *m) {
  sim_agent *a = (sim_agent *)(void *)w;
  uint32_t slot = m->seq % SIM_SLOTS;
  record *r;

  if (a->dead)
    return;
  if (slot >= a->nrecords) {
    uint32_t n = slot + 64;

    a->records = realloc(a->records, n * sizeof *a->records);
    memset(a->records + a->nrecords, 0, (n - a->nrecords) * sizeof *r);
    a->nrecords = n;
  }
  r = &a->records[slot];
  if (m->kind == SIM_JOB) {
    bool tail = r->waits; /* cannot be: its slot is in use */

    SIM_CHECK(!tail);
    *r = (record){m->id, m->seq, m->length, m->attempt, true};
    if (a->nidle > 0)
      begin(a, slot);
    else
      enqueue(a, slot);
  } else if (r->seq == m->seq) {
    bool back = r->waits;

    if (back) { /* its slot may be used again: take it out of the queue */
      for (size_t i = a->n, k; i-- > 0;) {
        k = (a->head + i) & (a->cap - 1);
        if (a->queue[k] != slot)
          continue;
        for (; i + 1 < a->n; i++)
          a->queue[(a->head + i) & (a->cap - 1)] =
              a->queue[(a->head + i + 1) & (a->cap - 1)];
        a->n--;
        break;
      }
      r->waits = false;
    }
    sim_wire_send(&a->out,
                  (sim_msg){.kind = back ? SIM_BACK : SIM_KEPT, .seq = m->seq});
  }
}

static void on_report(sim_wire *w, const sim_msg *m) {
  sim_agent *a = (sim_agent *)(void *)((char *)w - offsetof(sim_agent, out));

  sim_link_hear(a->link, m);
}

sim_agent *sim_agent_new(sim_link *l, uint32_t workers, int64_t delay) {
  sim_agent *a = calloc(1, sizeof *a + workers * sizeof(worker));

  sim_wire_open(&a->in, delay, on_word);
  sim_wire_open(&a->out, delay, on_report);
  a->out.to_driver = true;
  a->link = l;
  a->nworkers = a->nidle = workers;
  a->idle = malloc(workers * sizeof *a->idle);
  for (uint32_t i = 0; i < workers; i++) {
    a->idle[i] = i;
    a->workers[i].agent = a;
    a->workers[i].event.run = on_done;
  }
  a->next = agents;
  agents = a;
  count(a);
  return a;
}

void sim_agent_tell(sim_agent *a, sim_msg m) { sim_wire_send(&a->in, m); }

void sim_agent_crash(sim_agent *a) {
  uncount(a);
  a->dead = true;
}

void sim_agent_cut(sim_agent *a, int64_t until) {
  uncount(a);
  a->in.shut_until = a->out.shut_until = until;
}

void sim_agent_heal(sim_agent *a) { count(a); }

void sim_agent_let_go(sim_agent *a) {
  uncount(a);
  a->in.closed = true;
}
