/* SPDX-License-Identifier: MIT */
/*
 * serial: jobs of a server without workers run in the calling process.
 *
 * They stay in the server's queue. Whoever waits on the script's thread takes
 * them out, one after another, and runs each on a Lua state apart, through the
 * very frames a worker would get, so that results, errors, captures and globals
 * are as with workers. The standby thread never runs one; while one runs, the
 * lock is free and that thread passes the job's output on (capture.h).
 *
 * A job that is to be stopped (timeout, Ctrl-C) gets an error raised once in
 * its running coroutine; what is still running a second later gets one at every
 * instruction, its child processes are killed and the state is replaced. A C
 * function that does not return cannot be stopped.
 *
 * A job may submit jobs: an engine of its own (no loop, no thread) holds them
 * until it waits; then they run the same way, on one more state, one for each
 * depth of jobs within jobs.
 */
#ifndef PP_SERIAL_H
#define PP_SERIAL_H

#include "server.h"

struct lua_State;

typedef struct pp_serial pp_serial;

/* Is there a job to be run here? The lock held. */
bool pp_serial_due(const struct pp_engine *e);
/* Run the first of them. The script's thread, the lock free. */
void pp_serial_run(struct pp_engine *e);
/* The lane this one stands for is to forget a blob; any thread, the lock held.
 */
void pp_serial_drop(struct pp_engine *e, uint32_t lane, uint32_t id);
/* Close a server's state, if it has one. The script's thread, the lock free. */
void pp_serial_close(pp_server *s);
/* In place of the loop, for a job that runs here (see engine.h). */
int pp_serial_wait(struct pp_engine *e, bool (*until)(void *ud), void *ud,
                   int64_t deadline);
/* Raise in L if its job is to stop. */
void pp_serial_check(struct pp_engine *e, struct lua_State *L);
/* The setting of the job that runs and has this engine, borrowed, or NULL. */
const struct pp_blob *pp_serial_setting(const struct pp_engine *e);
/* Push the server of the job that runs, made if need be; raises. */
int pp_serial_push_server(struct lua_State *L);
/* The script is to see a signal: stop the job that runs. For signal handlers.
 */
void pp_serial_interrupt(void);

#endif
