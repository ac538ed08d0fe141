/* SPDX-License-Identifier: MIT */
/* runner_impl: what runner.c (the state, blobs) and execute.c (jobs) share. */
#ifndef PP_RUNNER_IMPL_H
#define PP_RUNNER_IMPL_H

#include <signal.h>

#include "runner.h"

/* A blob as a worker holds it. */
typedef struct pp_held {
  unsigned char *bytes; /* owned; NULL: not held */
  size_t len;
  pp_hash hash;
  uint32_t *deps; /* owned numbers of code blobs */
  uint32_t ndeps;
  bool opened; /* its function and bindings are in the cache table */
} pp_held;

struct pp_runner {
  lua_State *L;
  pp_codec *codec;
  pp_held *blobs;
  uint32_t cap;
  pp_code *codes; /* scratch */
  uint32_t cap_codes;
  uint32_t setting; /* number + 1 of the setting in force */
  pp_running now;
  bool reseed;                    /* a job has seeded math.random */
  const char *volatile stop;      /* the job is to be stopped: why */
  volatile sig_atomic_t user;     /* the job's own code is running */
  volatile sig_atomic_t has_been; /* the error was raised */
  int cache;  /* registry: [2 id] function, [2 id + 1] bindings */
  int base;   /* registry: the worker's globals */
  int shared; /* registry: set of the names there that calls of everywhere have
                 added, changed or (false) taken away */
  int env_meta;
  int traceback;        /* registry slot for the failing job's traceback */
  int randomseed;       /* math.randomseed as it was */
  int files[2];         /* default input and output */
  int handler;          /* message handler */
  int path;             /* package.path as the submitting side has it */
  pp_runner_want *want; /* NULL: nobody is asked */
  void *want_ud;
  pp_buf answer; /* scratch */
};

/* Put a setting (number + 1) in force. */
void pp_runner_set(pp_runner *r, uint32_t setting);

/* Have require look on the submitting side, too. Raises. */
void pp_runner_searchers(pp_runner *r, lua_State *L);

/* A call of everywhere: push a copy of the base globals before it runs. Raises
 * without memory. */
void pp_runner_copy_base(pp_runner *r, lua_State *L);
/* It is over: what it has done to the base globals stays and is noted in
 * `shared`. `before` is the index of that copy. Raises without memory. */
void pp_runner_settle_base(pp_runner *r, lua_State *L, int before);

static inline pp_held *pp_held_at(pp_runner *r, uint32_t id) {
  return id < r->cap && r->blobs[id].bytes != NULL ? &r->blobs[id] : NULL;
}

#endif
