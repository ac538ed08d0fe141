/* SPDX-License-Identifier: MIT */
/* serial_impl: what serial.c (running jobs), serial_state.c (what they run on),
 * serial_modules.c (where that finds modules) and serial_kids.c (what they
 * submit) share. */
#ifndef PP_SERIAL_IMPL_H
#define PP_SERIAL_IMPL_H

#include <lua.h>
#include <signal.h>
#include <stdio.h>

#include "engine.h"
#include "runner.h"
#include "serial.h"

struct pp_serial {
  pp_place place;    /* first; never in the schedule: it holds what runs */
  pp_engine *engine; /* the driver's */
  pp_engine *from;   /* whose jobs it runs: that, or the outer one's own */
  pp_engine *own;    /* of what its jobs submit; made with L */
  pp_serial *outer, *inner; /* jobs within jobs; inner: NULL until there are */
  pp_server *server;
  lua_State *L; /* NULL: to be made */
  pp_runner *runner;
  FILE *empty;   /* its io.stdin */
  uint32_t lane; /* by which blobs know it; no real one */
  uint64_t *has; /* bits: blobs it holds, by number */
  size_t has_words;
  uint32_t *drops; /* numbers of blobs to forget before the next job */
  size_t ndrops, cap_drops;
  uint32_t done;   /* jobs this state has run */
  uint32_t told;   /* calls of everywhere it has made, by number */
  uint32_t undone; /* how many had been taken back when it was made */
  bool stale;      /* it is to be replaced */
  uint64_t maxrss;
  int64_t began;
  uintptr_t stack;            /* where the C stack was */
  int64_t waited, waited_cpu; /* ns, for jobs of its own */
  pp_server *kids;            /* what its job has submitted to; NULL: nothing */
  int handle;                 /* registry reference to the handle of that */
  uint64_t next_id;           /* of jobs of the next such */
  pp_buf frame, in, out;
  int status;                   /* given to os.exit */
  volatile sig_atomic_t stop;   /* kind of failure + 1: it is to stop */
  volatile sig_atomic_t forced; /* it is not asked any more */
  volatile sig_atomic_t exited; /* it called os.exit */
};

/* What runs the jobs of s: its own, or what is within the job it belongs to;
 * made if need be. NULL without memory. */
pp_serial *pp_serial_for(pp_server *s, const pp_place_ops *ops);
/* Make its state, if it has none: false without memory. The caller has made
 * sure that what runs in there finds no engine but z's own. */
bool pp_serial_open_state(pp_serial *z);
void pp_serial_close_state(pp_serial *z);
void pp_serial_free(pp_serial *z);
/* Everything the job refers to, and nothing any more that is gone. The lock
 * held; 0, PP_ENOMEM. */
int pp_serial_give_blobs(pp_serial *z, const pp_job *j);
/* What it holds, of e's blobs, is gone or is to go. The lock held. */
void pp_serial_forget_blobs(pp_serial *z, pp_engine *e);
/* The outermost around z: its server is the script's. */
pp_serial *pp_serial_root(const pp_serial *z);
/* The state's require is to look for what the script has. */
void pp_serial_ask_here(pp_serial *z);
/* It is to forget one. */
void pp_serial_drop_blob(pp_serial *z, uint32_t id);
/* The engine of what its jobs submit: made with the state, closed after it. */
bool pp_serial_open_own(pp_serial *z);
void pp_serial_close_own(pp_serial *z);
/* Its job is over: so is what that has submitted. */
void pp_serial_end_kids(pp_serial *z);
/* The hook of one that has called os.exit. */
void pp_serial_on_forced(lua_State *L, lua_Debug *ar);

#endif
