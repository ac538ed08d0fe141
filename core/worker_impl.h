/* SPDX-License-Identifier: MIT */
/*
 * worker_impl: what the files of a worker's process share. worker.c reads
 * frames and runs jobs; worker_wait.c sleeps, wakes the driver and moves bytes
 * through the rings; worker_nest.c is for jobs that submit jobs or read input;
 * worker_settle.c ends what a job has left and accounts for it.
 */
#ifndef PP_WORKER_IMPL_H
#define PP_WORKER_IMPL_H

#include <signal.h>
#include <sys/types.h>

#include "blocks.h"
#include "command.h"
#include "nest.h"
#include "spin.h"
#include "worker.h"

/* A job frame's payload, for later. */
typedef struct stashed {
  struct stashed *next;
  bool afar;
  size_t len;
  unsigned char bytes[];
} stashed;
/* A frame that was read while a job waited for one behind it. */
typedef struct early {
  struct early *next;
  int type;
  size_t len;
  unsigned char bytes[];
} early;

typedef struct worker {
  pp_runner *runner;
  pp_hub *hub;
  pp_map map;
  pp_hold hold;       /* of results */
  pp_windows windows; /* on what it is given */
  pp_blocks *blocks;  /* of its Lua heap */
  pp_block_home heap; /* of results that no hold is for, and large frames */
  uint32_t trimmed;   /* lane's, as last seen */
  size_t moved;       /* bytes in these since the collector was told */
  size_t lean;        /* bytes of its own when it last gave them back */
  uint32_t number, lane;
  pid_t zygote;
  int bell;
  int pipe[2];         /* its stdout and stderr, whatever jobs do to 1 and 2 */
  uint64_t written[2]; /* as last looked up */
  pp_nest *nest;       /* jobs it is at, and what they have submitted */
  stashed *first, *last;     /* jobs read while another ran, in order */
  early *early, **early_end; /* frames read while a job waited, in order */
  bool may_run;              /* the job at work waits: jobs for it may run */
  bool quit;                 /* to end once those are done */
  uintptr_t stack;           /* where its C stack begins */
  size_t stack_room;         /* bytes it may have */
  pp_buf out, in;            /* a result, a job */
  size_t frame; /* where the frame being read ends: consume this much */
  pp_buf big;   /* or what it is in, */
  size_t lent;  /* or bytes of the block that is lent to the state */
  const unsigned char *rest; /* what follows the head of a job, there */
  size_t nrest;
  unsigned pending; /* results the driver was not told of */
  int64_t pending_since;
  pp_buf fed;                   /* what came for the command of its job */
  uint64_t fed_had;             /* bytes that came before */
  bool fed_come, fed_ended;     /* an answer is here; it was the last */
  bool feeding;                 /* it waits for input, or for a child: */
  volatile sig_atomic_t bereft; /* one has ended */
  int64_t cpu_mark;             /* process CPU clock accounted for */
  uint64_t maxrss;
  pp_spin spin;
} worker;

/* That of this process. */
extern worker pp_the_worker;

/* --- frames --------------------------------------------------------------- */

/* Take one frame of input, waiting for it until the deadline: 1, 0 when the
 * time is up, PP_EAGAIN when the job at work is to stop. */
int pp_worker_take(worker *w, int64_t deadline);
/* Run the next job that was put aside: in the midst of another only one that
 * is meant to. False if there is none. */
bool pp_worker_unstash(worker *w);

/* --- for jobs at work ----------------------------------------------------- */

/* Bytes its C stack may have. */
size_t pp_worker_stack(void);
extern const pp_nest_ops pp_worker_nest_ops;
extern const pp_command_feed pp_worker_feed_ops;

/* --- waiting -------------------------------------------------------------- */

/* Have the driver look at the ring, now. */
void pp_worker_ring(worker *w);
/* A result is in the ring: as soon as it is worth it; `more` will follow soon.
 */
void pp_worker_ready(worker *w, int64_t now, bool more);
/* Sleep until there may be input or room (PP_WANTS_*), of which there was so
 * much, or the deadline (ns, -1 never). May return before. */
void pp_worker_wait(worker *w, uint32_t what, size_t was, int64_t deadline);
/* Is it at no job? */
bool pp_worker_idle(const worker *w);
/* n bytes of the ring of input are read. */
void pp_worker_consume(worker *w, size_t n);
/* Put bytes in the ring, waiting for room. */
void pp_worker_send(worker *w, const unsigned char *p, size_t n);

/* --- the end of a job ----------------------------------------------------- */

/* For pp_proc_kill_children: none is spared. */
bool pp_worker_spares(void *ud, pid_t pid);
/* Kill and reap whatever the job left running: this process adopts all of its
 * descendants. */
void pp_worker_end_children(void);
/* Flush stdio and find in w->written how much came of it. */
void pp_worker_written(worker *w);
/* Fill in what only the process knows: cpu, memory, where its output ends. */
void pp_worker_settle(worker *w, unsigned char *res, const pp_nested *at);

#endif
