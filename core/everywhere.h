/* SPDX-License-Identifier: MIT */
/*
 * everywhere: calls that every worker of a server makes once, in its base
 * globals, before the jobs that were submitted after them.
 *
 * Calls are numbered from 0. A job's era is how many calls had been made when
 * it was submitted: jobs of era k run before call k, in whatever worker; later
 * ones after it. So a call waits until the jobs before it have ended, is then
 * made in all workers at once, and only then are later jobs let in:
 *
 *     jobs of era 0 | call 0 | jobs of era 1 | call 1 | ...
 *
 * Calls are kept. A worker that starts makes all that are over, in order, and
 * the one that is being made, before it is given a job. Where one fails the
 * worker is ended and its place stays empty, until the server is resized or its
 * host connects anew; a result that cannot be sent is no such failure. A worker
 * that dies in a call is replaced, at most PP_CALL_TRIES times in a row.
 *
 * Where jobs run in the submitting process, what they run on there stands for a
 * worker, of number 0: it asks for the calls it has to make (serial.c).
 *
 * Belongs to the engine's lock, as its server does. No Lua.
 */
#ifndef PP_EVERYWHERE_H
#define PP_EVERYWHERE_H

#include "job.h"

struct pp_link;

#define PP_CALL_TRIES 3u

enum pp_call_state {
  PP_CALL_WAITS, /* for jobs before it */
  PP_CALL_RUNS,
  PP_CALL_OVER,
  PP_CALL_VOID /* taken back: nobody makes it any more */
};

typedef struct pp_call {
  uint32_t number;
  uint8_t state;
  bool good;       /* it has succeeded in some worker */
  uint32_t deaths; /* of workers at it, in a row */
  size_t ahead;    /* unfinished jobs that come before it, not before others */
  pp_job *model;   /* reference: what each worker's run is a copy of */
  pp_job **runs;   /* by seat: how it went there; references, until released */
  pp_job *here;    /* the same in the submitting process */
} pp_call;

/* A worker's place. */
typedef struct pp_seat {
  pp_job *failed;       /* reference: the run that failed here; NULL: in use */
  uint32_t call;        /* its number */
  uint32_t deaths;      /* of workers here, in a row, while they made calls */
  struct pp_node *node; /* if it failed: whose */
} pp_seat;

/* What a server knows of them. Zeroed is empty. */
typedef struct pp_calls {
  pp_call **v;
  uint32_t n, cap;
  pp_seat *seats;        /* node.h */
  pp_seat here;          /* in the submitting process */
  uint32_t nseats, used; /* of those, how many are some worker's */
  uint32_t barred;       /* of all nodes */
  uint32_t undone;       /* calls taken back that had begun */
  bool stepping, again;
} pp_calls;

/* Make room for so many workers. 0, or PP_ENOMEM: nothing has changed. */
int pp_everywhere_seats(struct pp_server *s, uint32_t n);
void pp_everywhere_free(struct pp_server *s);

/* A new call: the model's reference passes, also on error (NULL: no memory).
 * The call lives as long as its server. */
pp_call *pp_everywhere_call(struct pp_server *s, pp_job *model);
/* How it went in the worker of a seat, or in this process (PP_HERE): a borrowed
 * job that is over, or NULL where there is no such worker at present. For calls
 * that are over. */
#define PP_HERE UINT32_MAX
pp_job *pp_everywhere_run(const struct pp_server *s, const pp_call *c,
                          uint32_t seat);
/* Nobody will ask any more how it went. */
void pp_everywhere_release(struct pp_server *s, pp_call *c);
/* Whoever waited for it gave up: it is taken back, and workers that have begun
 * it are replaced. */
void pp_everywhere_undo(struct pp_server *s, pp_call *c);

/* A job of s has ended. */
void pp_everywhere_ended(struct pp_server *s, const pp_job *j);

/* The worker of l may have something to do: a call, or, when it has made all
 * there are and has a place among those that take jobs, jobs. */
void pp_everywhere_next(struct pp_link *l);
/* A run has ended in the worker of l; its result is stored. */
void pp_everywhere_ran(struct pp_link *l, pp_job *run, bool failed);
/* The worker of l has died at this run. */
void pp_everywhere_lost(struct pp_link *l, pp_job *run, const char *how);
/* The worker of l retires or has died: its replacement makes what is being made
 * anew. */
void pp_everywhere_gone(struct pp_link *l);
/* Perhaps a call can begin or is over. */
void pp_everywhere_step(struct pp_server *s);

/* Is a call to be made in this process? */
bool pp_everywhere_due(const struct pp_server *s);
/* The next one for what has made those before *told, which passes over those
 * that were taken back; NULL: it has made all there are. */
pp_call *pp_everywhere_here(const struct pp_server *s, uint32_t *told);
/* A run of that call; NULL without memory. */
pp_job *pp_everywhere_job(struct pp_server *s, const pp_call *c,
                          uint32_t number);
/* It is over, its result stored; its reference passes. Jobs of `here`, s or
 * what a job of s has submitted to, were to run there. True if it is made. */
bool pp_everywhere_ran_here(struct pp_server *s, struct pp_server *here,
                            pp_job *run, bool failed);
/* The same, with an error of ours. */
void pp_everywhere_failed_here(struct pp_server *s, struct pp_server *here,
                               pp_job *run, int kind, const char *msg);
/* What it ran on is gone. */
void pp_everywhere_lost_here(struct pp_server *s, struct pp_server *here,
                             pp_job *run, const char *how);

/* Is there no worker left that could run jobs, nor one to be expected? Then
 * why, as the message of their error. */
bool pp_everywhere_hopeless(const struct pp_server *s);
void pp_everywhere_why(const struct pp_server *s, char *out, size_t size);
/* Why all, or some, workers of a node are not used; `out` stays when that is
 * not because of calls. */
void pp_everywhere_why_not(const struct pp_node *n, bool all, char *out,
                           size_t size);
/* Try again where calls have failed: everywhere; at one node, whose workers all
 * are new. */
void pp_everywhere_pardon(struct pp_server *s);
void pp_everywhere_pardon_node(struct pp_node *n);
/* What has not ended will not: it fails, with this text. */
void pp_everywhere_fail(struct pp_server *s, int kind, const char *msg);

#endif
