/* SPDX-License-Identifier: MIT */
/*
 * worker: a forked process that takes frames from its lane, runs jobs one
 * after another and puts their results back.
 */
#ifndef PP_WORKER_H
#define PP_WORKER_H

#include "runner.h"
#include "shm.h"

typedef struct pp_worker_start {
  lua_State *L;
  pp_runner *runner;
  pp_hub *hub;
  int shm, bell, out, err; /* taken */
  uint32_t lane, number;
  int zygote; /* pid of the parent */
} pp_worker_start;

/* Sent to a worker that is to look at its lane's `stop`. */
#define PP_SIG_STOP (SIGRTMIN + 4)
/* Sent to the zygote by a worker that sleeps while hub.watch is 0. */
#define PP_SIG_WATCH SIGUSR2

/* In the zygote, once: make L a worker's state. */
pp_runner *pp_worker_prepare(lua_State *L);
/* The name of the node this machine is; kept. Before the first fork. */
void pp_worker_node(const char *name);
/* In the child: never returns. */
_Noreturn void pp_worker_main(const pp_worker_start *start);

#endif
