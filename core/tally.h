/* SPDX-License-Identifier: MIT */
/*
 * tally: the record of a run as sums (--report), in memory that does not grow
 * with the number of jobs.
 *
 * Time is cut into PP_BINS bins; when they are full, each two become one of
 * twice the width. For each worker they say how much of each bin it ran jobs.
 * As long as there are few, attempts are kept one by one as well. What a worker
 * does not run jobs is put down to a cause, by the job that comes next:
 *
 *     until --------- queued --------- sent --------- begun
 *            script            driver           way
 *
 * If it was sent before the worker was through with the one before (until), all
 * of the gap is the cost of a job. Before its first job a worker starts, once
 * there was something to do; behind its last there is the tail.
 */
#ifndef PP_TALLY_H
#define PP_TALLY_H

#include "trace.h"

#define PP_BINS 1024u
#define PP_TALLY_JOBS 20000u /* kept one by one */
#define PP_TALLY_SLOWEST 20u
#define PP_TALLY_CAUSES 100u
#define PP_TALLY_SIZES 128u /* of the histogram: two for each doubling */

typedef struct pp_bins {
  float busy[PP_BINS];            /* ns */
  uint64_t trouble[PP_BINS / 64]; /* bits: an attempt failed there */
} pp_bins;

typedef struct pp_tjob {
  const pp_tworker *at;
  const pp_label *label;
  char *name; /* its own; owned, or NULL */
  uint64_t id;
  int64_t begun, ended, queued, run; /* ns; queued: how long */
  uint32_t items, attempt;
  uint8_t outcome, kind;
} pp_tjob;

typedef struct pp_cause {
  int kind;
  char *why; /* first line; owned */
  uint64_t failed, again;
} pp_cause;

enum pp_idle {
  PP_IDLE_SCRIPT, /* nothing was submitted */
  PP_IDLE_START,  /* the worker was not there yet */
  PP_IDLE_DRIVER, /* a job was queued and not sent */
  PP_IDLE_WAY,    /* it was under way to the worker */
  PP_IDLE_COST,   /* it was there: the worker was between two */
  PP_IDLE_TAIL,   /* nothing was left for it */
  PP_IDLE_NEVER,  /* it never had any */
  PP_IDLES
};

typedef struct pp_tally {
  pp_trace *trace;
  char *path;
  int fd;
  int64_t width;       /* ns of a bin */
  int64_t origin;      /* of the bins: no job was queued before; 0: none yet */
  int64_t first, last; /* queued first, returned last */
  uint32_t waiting[PP_BINS]; /* most jobs that were queued */
  int64_t counted;           /* when they were, and how many */
  uint32_t queued;
  uint64_t attempts, jobs, again, failed, unfinished, never; /* attempts; jobs
                                              that ended, items one by one */
  int64_t run, cpu;                                          /* ns */
  int64_t sending, returning; /* ns, of all attempts */
  int64_t far_way;            /* ns of PP_IDLE_WAY at hosts */
  int64_t idle[PP_IDLES];     /* ns, of all workers; the last two at the end */
  uint64_t sizes[PP_TALLY_SIZES]; /* jobs, by how long they ran */
  pp_tjob *all;                   /* PP_TALLY_JOBS; NULL: there are more */
  uint32_t nall;
  pp_tjob slowest[PP_TALLY_SLOWEST]; /* longest first */
  uint32_t nslowest;
  pp_tjob end;                      /* the one that returned last */
  pp_cause causes[PP_TALLY_CAUSES]; /* the last: of all others */
  uint32_t ncauses;
  pp_buf tables; /* statistics of servers that are gone */
} pp_tally;

/* Jobs in sizes[i] ran no shorter than this, ns. */
double pp_tally_size(uint32_t i);

/* Open the file; 0, or PP_ESYS or PP_ENOMEM after a line on stderr. */
int pp_tally_open(pp_trace *t, const char *path, pp_tally **out);
void pp_tally_close(pp_tally *y);
int pp_tally_fd(const pp_tally *y);

void pp_tally_add(pp_tally *y, const pp_attempt *a);
void pp_tally_table(pp_tally *y, const char *text, size_t n);
int64_t pp_tally_tick(pp_tally *y, int64_t now);
/* No more will be added: idle times of those that wait for nothing. */
void pp_tally_settle(pp_tally *y);

#endif
