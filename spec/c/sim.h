/* SPDX-License-Identifier: MIT */
/*
 * sim: a cluster that does not exist. The scheduler, the jobs and the server
 * are the real ones; clock, links, nodes and their workers are not.
 *
 *   sim_clock.c  events on a virtual clock
 *   sim_node.c   an agent: what runs on a node, and its ends of the link
 *   sim_link.c   the driver's end: a place of the scheduler
 *   sim_world.c  who submits, who takes the answers, what fails, what is
 *                checked
 *   sim_test.c   which worlds there are
 *
 * Driver and node share nothing: whatever one knows of the other came in a
 * message, which takes the link's time. Time is counted in microseconds.
 */
#ifndef SIM_H
#define SIM_H

#include "engine.h"

/* --- clock ---------------------------------------------------------------- */

typedef struct sim_event sim_event;
struct sim_event {
  sim_event *next;
  int64_t at;
  void (*run)(sim_event *e);
};

extern int64_t sim_now;
void sim_clock_reset(void);
/* Run it at a time, now or later. It must not be set already. */
void sim_set(sim_event *e, int64_t at);
/* Go to the next moment that has events and run them; false: there is none. */
bool sim_step(void);

/* --- messages ------------------------------------------------------------- */

enum sim_kind {
  SIM_JOB,    /* to the node: run this */
  SIM_ASK,    /* to the node: give it back unless it has begun */
  SIM_RESULT, /* to the driver */
  SIM_BACK,   /* it has not begun and will not */
  SIM_KEPT    /* it has */
};

typedef struct sim_msg {
  int64_t at; /* when it arrives */
  uint64_t id;
  uint32_t seq;    /* of this execution at this link */
  uint32_t length; /* of the job */
  uint8_t kind, attempt;
} sim_msg;

/* One direction of a link: what is on the way, in order. */
typedef struct sim_wire {
  sim_event event; /* first: set while there is something */
  void (*deliver)(struct sim_wire *w, const sim_msg *m);
  sim_msg *v;
  size_t cap, head, n; /* cap: a power of two */
  int64_t delay;
  int64_t shut_until; /* nothing arrives before */
  bool closed;        /* nothing arrives */
  bool to_driver;
} sim_wire;

void sim_wire_open(sim_wire *w, int64_t delay,
                   void (*deliver)(sim_wire *w, const sim_msg *m));
void sim_wire_send(sim_wire *w, sim_msg m);

/* --- nodes ---------------------------------------------------------------- */

struct sim_link;
typedef struct sim_agent sim_agent;

#define SIM_SLOTS                                                              \
  16384u /* jobs a node can hold: seq % SIM_SLOTS is its slot                  \
          */

/* One life of a node. */
sim_agent *sim_agent_new(struct sim_link *l, uint32_t workers, int64_t delay);
/* The driver's word to it. */
void sim_agent_tell(sim_agent *a, sim_msg m);
/* Its power fails: nothing comes from it any more. */
void sim_agent_crash(sim_agent *a);
/* What it says does not arrive before `until`. */
void sim_agent_cut(sim_agent *a, int64_t until);
/* From now on it counts again. */
void sim_agent_heal(sim_agent *a);
/* The driver does not know it any more; what is on the way still arrives. */
void sim_agent_let_go(sim_agent *a);
/* Free all there have been; no event is set. */
void sim_agents_clear(void);
/* How many of its workers are counted as there, and as busy. */
extern uint64_t sim_workers, sim_busy;

/* --- links ---------------------------------------------------------------- */

typedef struct sim_slot {
  pp_job *job; /* at the place, or NULL */
  uint32_t seq;
} sim_slot;

typedef struct sim_link {
  pp_place place; /* first */
  sim_agent *agent;
  sim_slot *slots;
  uint32_t nslots, *spare, nspare;
  uint32_t workers;
  int64_t delay;   /* one way */
  sim_event event; /* what becomes of it next */
  int state;       /* sim_world.c */
} sim_link;

void sim_link_connect(sim_link *l);
/* It is noticed to be gone. */
void sim_link_lost(sim_link *l);
/* What the node says. */
void sim_link_hear(sim_link *l, const sim_msg *m);
void sim_link_clear(sim_link *l);

/* --- the world ------------------------------------------------------------ */

typedef struct sim_plan {
  const char *name;
  uint32_t nodes, workers;
  double least, most; /* of links, ms one way */
  uint64_t jobs;
  uint64_t backlog;        /* unfinished jobs there are at most */
  double (*length)(int k); /* ms; of a job of kind k, drawn */
  int kinds;               /* functions jobs are calls of */
  double flaky;            /* share of nodes that fail about once a second */
  double least_busy, most_steps; /* what is to come out */
} sim_plan;

/* What is counted. */
typedef struct sim_figures {
  uint64_t sent, answered, failed, lost, late, asked, back, cancelled;
  double span; /* seconds from the first to the last */
  double busy; /* share of the time of workers while jobs are queued */
  /* Steps of the schedule and driver's nanoseconds for a job: in all, and among
   * the first and the last. */
  double steps, steps_first, steps_last, ns, ns_first, ns_last;
} sim_figures;

extern sim_figures sim_count;
extern pp_engine sim_engine;
extern pp_server *sim_server;
extern int sim_failures;

#define SIM_CHECK(e)                                                           \
  ((e) ? (void)0                                                               \
       : (void)(sim_failures++ < 20 &&                                         \
                printf("FAIL %s:%d %s\n", __FILE__, __LINE__, #e)))

uint64_t sim_random(void);
/* What the job of this id gives. */
uint64_t sim_answer(uint64_t id);
uint32_t sim_length(const pp_job *j);
/* A job is sent, begins at a node that is there, is lost with its node, comes
 * to its end: checks. */
void sim_on_send(const pp_job *j);
void sim_on_begin(uint64_t id);
void sim_on_lost(const pp_job *j);
/* Before sim_workers or sim_busy change. */
void sim_tally(void);
/* Called before and after what the driver does: adds up its time. */
void sim_driver(int64_t *since);
void sim_run(const sim_plan *plan);

#endif
