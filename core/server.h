/* SPDX-License-Identifier: MIT */
/*
 * server: a pool of workers, the jobs given to it, and what became of them.
 * Belongs to the engine's lock. No Lua.
 */
#ifndef PP_SERVER_H
#define PP_SERVER_H

#include "deadlines.h"
#include "everywhere.h"
#include "node.h"
#include "outlet.h"
#include "sched.h"

struct pp_engine;
struct pp_link;
struct pp_serial;
typedef struct pp_server pp_server;

#define PP_CHOICES 64

struct pp_server {
  pp_server *next;
  struct pp_engine *engine;
  pp_sched sched;
  pp_node *local; /* the first of its nodes; of no workers and the only one:
                     jobs run in this process */
  pp_class wide;  /* jobs of several slots that may run anywhere */
  struct pp_choice *choices[PP_CHOICES]; /* by their text's hash: choice.h */
  struct pp_serial *serial;              /* where they do; NULL: none has yet */
  size_t kids; /* unfinished jobs that jobs have submitted */
  int64_t created;
  pp_groups groups;
  pp_jobs blocked;   /* wait for other jobs */
  pp_jobs ended;     /* kept until taken or asked for */
  pp_jobs callbacks; /* ended, callback due */
  size_t pending;
  uint64_t next_id;
  uint64_t line_id; /* next_id when the prompt's line began */
  pp_deadlines deadlines;
  pp_calls calls;  /* of everywhere */
  size_t stopping; /* workers that are to end a job, or else */
  uint32_t retries;
  uint32_t restart;      /* a worker is replaced after so many jobs; 0: never */
  enum pp_output output; /* what becomes of its jobs' output */
  bool by_host;          /* prefixes name the node alone */
  int64_t timeout;       /* ns, of a job that has none of its own; 0: none */
  uint64_t memory;       /* bytes of a worker's Lua heap; 0: any */
  uint64_t seed;         /* of its jobs' random numbers, if seeded */
  bool seeded;
  struct pp_up *up; /* in a job: its place; owned */
  uint32_t number;  /* among all there have been, from 0 */
  bool closed;
  bool console;  /* the shell's: a worker a node, whose jobs run in its base
                    globals; nobody is told of them: no table, no warning */
  bool untraced; /* its jobs are in no trace, report or live table */
  bool anchored; /* the bindings keep its handle */
  bool idle;     /* in the engine's list of those they may let go */
  pp_server *next_idle;
};

/* How a server is to be. */
typedef struct pp_server_options {
  uint32_t ncpus, retries, restart;
  enum pp_output output;
  bool by_host;
  int64_t timeout;
  uint64_t memory, seed;
  bool seeded;
} pp_server_options;

/* Open a server; NULL without memory or, with errno, when no worker could be
 * started. */
pp_server *pp_server_new(struct pp_engine *e, const pp_server_options *o);
/* End its workers; unfinished jobs fail with kind "destroyed". */
void pp_server_destroy(pp_server *s);
/* Destroyed before; frees. Jobs that handles hold stay, without server. */
void pp_server_free(pp_server *s);

/* Do its jobs run in this process? */
static inline bool pp_server_here(const pp_server *s) {
  return s->local->ncpus == 0 && s->local->next == NULL;
}
/* Tell the schedule how many places there are to be. */
void pp_server_want(pp_server *s);
/* How many workers it is to have, on all its nodes. */
uint32_t pp_server_ncpus(const pp_server *s);
/* The node where a job was sent last. */
pp_node *pp_server_node(const pp_server *s, const pp_job *j);
/* All of its statistics in one. */
pp_stats pp_server_sum(const pp_server *s);

/* Change how many workers it has here. */
void pp_server_resize(pp_server *s, uint32_t n);
/* Start those that are missing and due. */
void pp_server_tend(pp_server *s, int64_t now);

/* Take a job in (its reference passes to the server), its id set: the server's
 * next, which all chunks of a map share. */
void pp_server_add(pp_server *s, pp_job *j, int64_t now);
/* Take in a job that `parent` has submitted, by the name of key. PP_ENOMEM:
 * the reference has not passed. */
int pp_server_add_child(pp_server *s, pp_job *parent, pp_job *j, uint32_t key,
                        int64_t now);
/* End a job that has not, wherever it is, with this kind and text; false if it
 * had ended. A worker that runs it has one second to leave it. */
bool pp_server_stop(pp_server *s, pp_job *j, int kind, const char *msg);
/* The same by what has been taken in so far: nothing is drained, so it is for
 * those who do that. */
bool pp_server_cut(pp_server *s, pp_job *j, int kind, const char *msg);
/* Stop what has run out of time; see to workers that do not stop. Returns when
 * to come again, -1 never. */
int64_t pp_server_expire(pp_server *s, int64_t now);
/* Its own error: is there an attempt left? Then it is queued again. */
bool pp_server_again(pp_server *s, pp_job *j);
/* End what has not begun with kind "cancelled"; how many. */
size_t pp_server_cancel_all(pp_server *s);

/* A job has ended; its result is stored, its output passed on. */
void pp_server_ended(pp_server *s, pp_job *j, bool failed);
/* End a job, not at a place any more, with an error of ours. */
void pp_server_fail(pp_server *s, pp_job *j, int kind, const char *msg);
/* If no worker is left nor to be expected, end what has not begun, with kind
 * "connect" and why. */
void pp_server_hopeless(pp_server *s);
/* End all that has not begun so. */
void pp_server_fail_all(pp_server *s, int kind, const char *msg);
/* A begun job has lost its worker: run it again, or fail it. */
void pp_server_lost(pp_server *s, pp_job *j, const char *how);
/* Have a chunk cut short if it has run for so long, ns: how many of its items
 * stay where it is; 0: it has not, or that is not known yet. */
uint32_t pp_server_cut_chunk(pp_job *j, int64_t least);
/* A chunk at its worker was cut short: at most so many items stay there, also
 * should it be run again. */
void pp_server_kept(pp_server *s, pp_job *j, uint32_t items);
/* It has begun so many of its items only; 0: all. */
void pp_server_shorten(pp_job *j, uint32_t items);
/* Somebody has its result, or it was taken: the server keeps it no more. */
void pp_server_seen(pp_server *s, pp_job *j);

/* Append parallelpython's table. */
int pp_server_table(pp_server *s, pp_buf *out);

#endif
