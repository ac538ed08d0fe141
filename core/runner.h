/* SPDX-License-Identifier: MIT */
/*
 * runner: what a worker does with frames: keeps blobs, runs jobs on its
 * lua_State, packs results. No processes, no I/O but a job's own.
 */
#ifndef PP_RUNNER_H
#define PP_RUNNER_H

#include <lua.h>

#include "cargo.h"
#include "codec.h"
#include "wire.h"

typedef struct pp_runner pp_runner;
struct pp_lane;

/* What the job that runs at present is, for pp.job in it. */
typedef struct pp_running {
  uint64_t id;
  uint32_t attempt;
  uint32_t worker;
  const char *node; /* borrowed */
  uint64_t seed;    /* of its random numbers, if seeded */
  bool seeded;
  bool active;
  bool base; /* a call of everywhere; id is its number, not a job's */
} pp_running;

/* A runner for the pristine state L (it becomes a worker's: require runs
 * modules in the base globals, and the like). NULL without memory. */
pp_runner *pp_runner_new(lua_State *L);
/* Free it, when its state has been closed; r may be NULL. */
void pp_runner_free(pp_runner *r);
/* The number of this worker, from 1 (0: the submitter itself), and its node's
 * name (borrowed). */
void pp_runner_name(pp_runner *r, uint32_t worker, const char *node);
/* New unpredictable random numbers; call after a fork. */
void pp_runner_reseed(pp_runner *r);
const pp_running *pp_runner_running(const pp_runner *r);

/* Raise an error (why: static text) in the job that runs, once, at its next VM
 * instruction. Async-signal-safe. */
void pp_runner_stop(pp_runner *r, const char *why);
/* The job that was to be stopped is over. */
void pp_runner_unstop(pp_runner *r);

/* Why the job that runs is to stop, as long as it has not been told. */
const char *pp_runner_stopping(const pp_runner *r);
/* The caller, in L, tells it by an error. */
void pp_runner_stopped(pp_runner *r, lua_State *L);
/* The state jobs run in. */
lua_State *pp_runner_state(const pp_runner *r);

/*
 * Ask the submitting side for the module of that name, while a job runs or is
 * being opened, and append the MODULE payload that answers to out. 0 or
 * PP_ENOMEM. It does not raise.
 */
typedef int pp_runner_want(void *ud, const char *name, size_t len, pp_buf *out);
/* Whom to ask. Without, modules are looked for on this machine only. */
void pp_runner_wants(pp_runner *r, pp_runner_want *want, void *ud);

/* Where chunks say what they are at and look how far they may go:
 * pp_lane_item. Without, none can be cut short. Borrowed. */
void pp_runner_cuts(pp_runner *r, struct pp_lane *lane);

/* Where the commands of jobs read what comes piece by piece; borrowed. NULL:
 * nowhere. */
struct pp_command_feed;
void pp_runner_feeds(pp_runner *r, const struct pp_command_feed *feed);
const struct pp_command_feed *pp_runner_feed(const pp_runner *r);

/* A BLOB or DROP payload; a blob's bytes may be afar: then the window is the
 * runner's, to be closed in windows, which outlive it. 0, PP_EBAD, PP_ENOMEM.
 */
int pp_runner_blob(pp_runner *r, const unsigned char *p, size_t len,
                   const pp_window *afar, pp_windows *windows);
int pp_runner_drop(pp_runner *r, const unsigned char *p, size_t len);

/*
 * Run the job in a JOB payload, what follows its head and dependencies perhaps
 * at rest (NULL: it does not), and append its RESULT payload to out (all but
 * cpu, rss and stream positions, which are the worker's to fill in). `taken`
 * is called once the payload's bytes are needed no more, before the function
 * runs. 0; PP_EBAD for a malformed frame; PP_ENOMEM.
 */
int pp_runner_job(pp_runner *r, const unsigned char *p, size_t len,
                  const unsigned char *rest, size_t rest_len, pp_buf *out,
                  void (*taken)(void *ud), void *ud);

/* Of a large string that is a result by itself, RESULT payloads may end before
 * its bytes, if that is asked for: those are a tail, which stays until it is
 * let go. */
void pp_runner_tails(pp_runner *r);
/* The tail of the last result: bytes; 0: it has none. */
size_t pp_runner_tail(const pp_runner *r, const unsigned char **p);
void pp_runner_untail(pp_runner *r);

/* The same while another job runs, in the midst of a C function that it has
 * called: in a thread of its own, and all that one has set is as before
 * afterwards, random numbers included. */
int pp_runner_inner(pp_runner *r, const unsigned char *p, size_t len,
                    const unsigned char *rest, size_t rest_len, pp_buf *out,
                    void (*taken)(void *ud), void *ud);

#endif
