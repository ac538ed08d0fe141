/* SPDX-License-Identifier: MIT */
/* runner_impl: what runner.c (the state, blobs) and execute.c (jobs) share. */
#ifndef PP_RUNNER_IMPL_H
#define PP_RUNNER_IMPL_H

#include <signal.h>

#include "runner.h"

/* A blob as a worker holds it. */
typedef struct pp_held {
  unsigned char *bytes; /* owned, or the window's; NULL: not held */
  pp_window window;     /* open: p is not NULL */
  size_t len;
  pp_hash hash;
  uint32_t *deps; /* owned numbers of blobs it refers to */
  uint32_t ndeps;
  char kind;
  bool opened; /* its function or value, and bindings, are in the cache table */
  bool values; /* refers to values */
  bool binds;  /* a value that came with globals, or has such in it */
  bool looked; /* a value whose own values were looked for */
  uint8_t pure; /* PP_PURE_x; what must hold is in the cache table */
  uint64_t era; /* when that was last seen to hold */
} pp_held;

/* The blobs that the message being opened refers to; borrowed. */
typedef struct pp_list {
  const uint32_t *ids;
  uint32_t n;
} pp_list;

/* What a job is given by reference; one in its midst has its own. */
typedef struct pp_with {
  pp_list list;
  pp_list job;    /* what its arguments refer to; ids NULL: no job */
  uint32_t fn;    /* its function's parcel */
  pp_buf todo;    /* numbers of blobs to see to */
  pp_buf sources; /* numbers of what results came from, in this execution */
  bool has_given; /* something is in the table of these */
  bool shares;    /* a shared value is being opened */
  bool no_memory; /* there was none to open a value */
} pp_with;

struct pp_runner {
  lua_State *L;
  pp_codec *codec;
  pp_held *blobs;
  uint32_t cap;
  pp_code *codes; /* scratch */
  uint32_t cap_codes;
  uint32_t setting; /* number + 1 of the one in force; 0: none; UINT32_MAX:
                       one that was dropped */
  pp_with with;
  size_t dropped; /* bytes of values since the last collection for that */
  pp_running now;
  bool reseed;                    /* a job has seeded math.random */
  const char *volatile stop;      /* the job is to be stopped: why */
  volatile sig_atomic_t user;     /* the job's own code is running */
  volatile sig_atomic_t has_been; /* the error was raised */
  bool looking;                   /* at a function (pure.c) */
  uint64_t era;     /* counts what may have changed the standard library */
  uint64_t checked; /* the era when that was last seen to be as it was */
  uint32_t last;    /* the function that ran last + 1 */
  uint32_t row;     /* how often it has run again since */
  uint32_t looks;   /* at functions that have not run again so far */
  pp_buf look[2];   /* scratch for that: its dump, constants */
  int allowed;      /* registry: set of what pure functions may use */
  int whole;        /* registry: {table, copy, entries, ...} of those tables */
  int cache;        /* registry: [2 id] function or value, [2 id + 1] bindings;
                       [-1 - id] what pure.c says must hold */
  int given;        /* registry: see given.c */
  int base;         /* registry: the worker's globals */
  int shared; /* registry: set of the names there that calls of everywhere have
                 added, changed or (false) taken away */
  int env_meta;            /* registry: metatable of the globals of jobs */
  const void *env_meta_at; /* that table */
  int traceback;           /* registry slot for the failing job's traceback */
  int randomseed;          /* math.randomseed as it was */
  int files[2];            /* default input and output */
  int file_keys[2];        /* what the io library has these under there */
  int handler;             /* message handler */
  int path;                /* package.path as the submitting side has it */
  pp_runner_want *want;    /* NULL: nobody is asked */
  void *want_ud;
  const struct pp_command_feed *feed;
  struct pp_lane *lane; /* that says how far chunks may go; NULL: all the way */
  bool armed, light;    /* pp_lane_light has been called; what it said */
  pp_buf answer;        /* scratch */
  bool tails;           /* results may have one: */
  int tail_slot;        /* registry: the string, */
  const char *tail;     /* its bytes, */
  size_t tail_len;      /* how many; 0: none */
  pp_windows *windows;  /* where those of blobs are closed */
};

/* Let the packed bytes of a blob go, but for what says that it is held. */
void pp_held_shrink(pp_runner *r, pp_held *h);

/* setting.c: put a setting (number + 1) in force; 0: what was there first. */
void pp_runner_set(pp_runner *r, uint32_t setting);

/* globals.c: make the metatable of the globals of jobs, and have getmetatable
 * and setmetatable know it. Raises. */
void pp_globals_prepare(lua_State *L, pp_runner *r);

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

/* given.c: */
pp_codec_hooks pp_given_hooks(pp_runner *r);
/* Fill in the codes of these blobs, nothing for others; PP_EBAD when one is
 * not here. */
int pp_runner_codes(pp_runner *r, const uint32_t *ids, uint32_t n,
                    pp_code *codes);
/* What is opened next refers to these; returns what was before. */
pp_list pp_runner_list(pp_runner *r, const uint32_t *ids, uint32_t n);
/* Put the globals of the values of an opened parcel in force. Raises. */
void pp_given_bind(lua_State *L, pp_runner *r, uint32_t parcel);
/* An execution is over. */
void pp_given_end(lua_State *L, pp_runner *r);
/* A value of so many packed bytes was dropped. */
void pp_given_dropped(lua_State *L, pp_runner *r, size_t len);

#endif
