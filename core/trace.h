/* SPDX-License-Identifier: MIT */
/*
 * trace: what became of each attempt to run a job, told as it is over to those
 * who keep a record of the run: a timeline (--trace, timeline.h) and sums
 * (--report, tally.h).
 *
 *     queued --> sent --> begun ... ended --> returned
 *     |          |        |         |         its end is known here
 *     |          |        `---------' in its worker; by our clock, also of
 *     |          |          remote ones (far.h: skew)
 *     |          to its worker, the last time if it was taken back
 *     submitted, or the end of the attempt before
 *
 * Nothing is kept of a job while it runs but, for each worker, when the jobs in
 * its window were sent. An engine without a trace (NULL: nobody asked) pays one
 * test for each of these; agents have none. Belongs to the engine's lock.
 */
#ifndef PP_TRACE_H
#define PP_TRACE_H

#include "engine.h"
#include "label.h"

struct pp_bins;
struct pp_link;
struct pp_tally;
struct pp_timeline;
typedef struct pp_trace pp_trace;
typedef struct pp_tnode pp_tnode;

/* A worker's number on a node, whatever process has it. */
typedef struct pp_tworker {
  pp_tnode *node;
  uint32_t number;      /* 0: the script's own process */
  bool named;           /* the timeline knows it */
  int64_t until;        /* its last job had ended then; 0: there was none */
  struct pp_bins *bins; /* owned by the tally, or NULL */
  uint64_t njobs;
  int64_t busy, first; /* ns it ran jobs; when the first was begun */
} pp_tworker;

/* A server's node. */
struct pp_tnode {
  uint32_t server, index; /* from 0, as they came; of all nodes */
  uint16_t name;
  bool named;
  uint8_t state;     /* as it was last seen */
  pp_tworker **v;    /* by number; NULL: not seen */
  uint32_t n, ncpus; /* ncpus: the most it had */
  pp_stats stats;    /* as last seen */
  char *reason;      /* owned, or NULL */
};

enum {
  PP_TRACE_DONE,
  PP_TRACE_FAILED,
  PP_TRACE_AGAIN,     /* failed or lost, and is run once more */
  PP_TRACE_UNFINISHED /* it runs as the program ends */
};

/* One attempt, for the time of a call. */
typedef struct pp_attempt {
  const pp_job *job;
  pp_tworker *at;        /* NULL: it was never begun */
  pp_tworker *from;      /* where what submitted it runs, or NULL */
  const pp_label *label; /* NULL: no memory */
  int64_t queued, sent, begun, ended, returned; /* ns; sent and so on: if at */
  uint32_t number;   /* of the attempt, from 1; 0: it was never begun */
  int outcome, kind; /* kind: unless DONE */
  const char *why;   /* unless DONE; may be "" */
  size_t why_len;
} pp_attempt;

struct pp_trace {
  /* For those who are in agents, too: see pp_trace_over and the like. */
  void (*over)(pp_trace *t, pp_job *j, int outcome, const char *why);
  void (*gone)(pp_trace *t, pp_server *s);
  int64_t (*tick)(pp_trace *t, int64_t now);
  pp_engine *engine;
  int64_t began; /* ns */
  pp_tnode **nodes;
  uint32_t nnodes;
  pp_labels labels;
  struct pp_timeline *timeline; /* or NULL */
  struct pp_tally *tally;       /* or NULL */
  struct pp_again {             /* jobs that are run again, the last of them */
    const pp_job *job;
    uint64_t id;
    int64_t since;
  } again[64];
  uint32_t nagain;
  bool ended; /* nobody listens any more */
};

/* As the options say: 0; PP_ESYS or PP_EBAD after a line on stderr. */
int pp_trace_begin(pp_engine *e);
/* The run is over: write what is left. False if something could not be. */
bool pp_trace_end(pp_engine *e);

/* An attempt is over; call it while the job still has its function, its result
 * and, if it was begun, its place. why: where there is no result to tell. */
static inline void pp_trace_over(pp_engine *e, pp_job *j, int outcome,
                                 const char *why) {
  if (PP_UNLIKELY(e->trace != NULL))
    e->trace->over(e->trace, j, outcome, why);
}
/* A server closes. */
static inline void pp_trace_gone(pp_engine *e, pp_server *s) {
  if (PP_UNLIKELY(e->trace != NULL))
    e->trace->gone(e->trace, s);
}
/* When to come again; -1 never. */
static inline int64_t pp_trace_tick(pp_engine *e, int64_t now) {
  return PP_LIKELY(e->trace == NULL) ? -1 : e->trace->tick(e->trace, now);
}

/* For links: a job of this number is sent now; the worker is gone. */
void pp_trace_sent(struct pp_link *l, uint32_t seq);
void pp_trace_died(struct pp_link *l, const char *how);

/* A node's or server's name as people see it: "local", or "local (2)" of the
 * second server. */
void pp_trace_name(const pp_trace *t, const pp_tnode *n, char *out,
                   size_t size);
/* Unfinished jobs, and those of them that run, of all servers. */
void pp_trace_count(const pp_engine *e, uint64_t *queued, uint64_t *running);

#endif
