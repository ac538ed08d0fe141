/* SPDX-License-Identifier: MIT */
/*
 * nest: jobs that submit jobs, the worker's side.
 *
 * A worker has an engine of its own, without loop and thread, so that all of
 * pp works in a job as it does in the script. A job that asks for a server
 * gets one whose only place is the driver: what is submitted to it goes up at
 * once, and its end comes down. Whoever waits reads the worker's input.
 */
#ifndef PP_NEST_H
#define PP_NEST_H

#include "engine.h"

struct pp_runner;
typedef struct pp_nest pp_nest;

/* How it reaches the driver; the worker's. */
typedef struct pp_nest_ops {
  /* Send bytes, whole frames in one or more calls. */
  void (*send)(void *ud, const void *p, size_t len);
  /* All of a message has been sent: the driver is to look. */
  void (*sent)(void *ud);
  /* Take one frame of input, waiting for it until the deadline (ns, -1 never):
   * 1, 0 when the time is up, PP_EAGAIN when the job is to stop. */
  int (*take)(void *ud, int64_t deadline);
  /* Is there little room left for jobs in the midst of others? */
  bool (*deep)(void *ud);
  /* How much the job has written by now, if that is to be known. */
  void (*written)(void *ud, uint64_t bytes[2]);
} pp_nest_ops;

/* A job that runs in this worker, while it does; the innermost is at work. */
typedef struct pp_nested {
  struct pp_nested *outer;
  uint32_t seq;      /* its sequence number here */
  pp_server *server; /* what it has submitted to; NULL: none yet */
  uint64_t next_id;  /* of the next job it submits */
  int handle;        /* registry reference to the server's handle */
  int64_t waited;    /* ns it has waited for others */
} pp_nested;

/* For a pristine state; NULL without memory. Its engine becomes the one of this
 * process by pp_nest_start. */
pp_nest *pp_nest_new(lua_State *L);
void pp_nest_start(pp_nest *n, struct pp_runner *r, const pp_nest_ops *ops,
                   void *ud, pp_hold *hold);

/* A job begins, and is over: what it has submitted is let go. */
void pp_nest_begin(pp_nest *n, pp_nested *at, uint32_t seq);
void pp_nest_end(pp_nest *n, pp_nested *at);
/* The innermost job, or NULL. */
pp_nested *pp_nest_at(const pp_nest *n);

/* A CONFIG, CHILD or SAID payload; afar: where results are that are not in it,
 * or NULL. */
void pp_nest_heard(pp_nest *n, int type, const unsigned char *p, size_t len,
                   const pp_window *afar);

/* Given as ud: it sleeps, and does not wait for other jobs. */
extern char pp_nest_idle[1];
/* In place of the loop; see engine.h. */
void pp_nest_look(pp_engine *e);
int pp_nest_wait(pp_engine *e, bool (*until)(void *ud), void *ud,
                 int64_t deadline);
/* Raise in L if its job is to stop. */
void pp_nest_check(pp_engine *e, lua_State *L);

/* Push the server of the job at work, made if need be; raises. */
int pp_nest_push_server(lua_State *L);
/* End what has been submitted to s and not begun: how many. */
size_t pp_nest_cancel_all(pp_server *s);
static inline bool pp_nest_has(const pp_server *s) {
  return s->engine->nest != NULL;
}
/* The jobs of a server that is being destroyed. */
void pp_nest_close(pp_server *s);

#endif
