/* SPDX-License-Identifier: MIT */
/*
 * job: one call of a function, from submit to its result.
 *
 * A job is counted: its server holds one reference until the job has ended and
 * what is kept of it has been taken; each handle holds one. All fields belong
 * to the engine's lock.
 *
 * There may be millions: what few have is apart, in pp_more, and of the frame
 * it is sent in only the body is kept (modules and packed arguments); the head
 * is made when it is sent. A short body lies within the job, and so does, when
 * that is needed no more, a short result.
 */
#ifndef PP_JOB_H
#define PP_JOB_H

#include <stdbool.h>

#include "blob.h"
#include "group.h"
#include "pool.h"
#include "wire.h"

typedef struct pp_job pp_job;
struct pp_class;
struct pp_kin;
struct pp_place;
struct pp_server;

/* A doubly linked list of jobs; a zeroed one is empty. */
typedef struct pp_jobs {
  pp_job *head, *tail;
  size_t n;
} pp_jobs;

void pp_jobs_push(pp_jobs *l, pp_job *j);              /* at the end */
void pp_jobs_after(pp_jobs *l, pp_job *at, pp_job *j); /* NULL: at the front */
void pp_jobs_front(pp_jobs *l, pp_job *j);             /* at the front */
void pp_jobs_remove(pp_jobs *l, pp_job *j);
pp_job *pp_jobs_pop(pp_jobs *l);

enum pp_job_state {
  PP_JOB_QUEUED,  /* in its server's queue */
  PP_JOB_BLOCKED, /* waits for other jobs: in its server's list of those */
  PP_JOB_SENT,    /* at a place, perhaps begun */
  PP_JOB_ENDING,  /* its result is here, its output perhaps not */
  PP_JOB_DONE,
  PP_JOB_FAILED
};

/* What a job is to give to others, made when one is submitted that names it. */
typedef struct pp_promise {
  pp_blob *value;   /* reference: its results, or the error */
  pp_job **waiters; /* owned references; ended ones among them count no more */
  uint32_t n, cap;
} pp_promise;

/* What few jobs have. */
typedef struct pp_more {
  struct pp_kin *kin;  /* owned: who submitted it, whom it did; or NULL */
  struct pp_class *on; /* counted until it has ended: choice.h; or NULL */
  char *name;          /* owned, or NULL */
  pp_buf *output;      /* owned: stdout and stderr collected, or NULL */
  pp_promise *promise; /* owned, or NULL */
  pp_job *cause;       /* reference: it failed because that job had */
  pp_cargo *args;      /* reference: the body, if it is apart; or NULL */
  bool afar;           /* the body is but where args are, or were */
  pp_cargo *tail;      /* reference: what the body goes on with, of a job of the
                          script's: pin.h; or NULL */
  pp_cargo *load;      /* reference: what result is in; or NULL */
  pp_blob **deps;      /* references; of its arguments */
  uint32_t ndeps;
  uint32_t mods;          /* bytes of the body that are modules */
  uint32_t waits;         /* while BLOCKED: promises that are to come true */
  uint32_t error_retries; /* how many of its own errors to repeat */
  uint64_t memory;        /* bytes of its worker's Lua heap; 0: any */
  uint64_t seed;          /* of its random numbers, if wire says so */
  uint64_t index;         /* of a chunk: its first item's, from 1 */
  uint32_t most;          /* of one that was cut short: items it has; 0: all */
} pp_more;

struct pp_job {
  pp_job *prev, *next; /* in the list of its state */
  struct pp_server *server;
  struct pp_place *place; /* while SENT; else where it ended, or NULL */
  pp_blob *fn;            /* reference */
  pp_blob *setting;       /* reference, or NULL */
  pp_group *group;        /* reference */
  pp_more *more;          /* owned, or NULL */
  unsigned char *body;    /* owned unless == small; where args are, if they are
                             apart */
  unsigned char *result;  /* packed values or error: small, the bytes of a
                             promise (its own, or its cause's), those of load,
                             or owned */
  size_t body_len, result_len;
  uint64_t id;
  int64_t submitted, started, ended, run, cpu; /* ns */
  uint64_t sent, received;                     /* bytes */
  int64_t timeout;                             /* ns of one attempt; 0: none */
  double priority;                             /* higher ones first */
  uint32_t refs, seq;
  uint32_t attempts, retries; /* begun so far; how many lost ones to repeat */
  uint32_t weight; /* at a place: how long it was expected to run; sched's */
  uint32_t maxrss; /* KiB */
  uint32_t era;    /* calls of everywhere that come before it in its worker */
  uint32_t items;  /* how many it counts for; 0: one */
  uint32_t slots;  /* places it takes on its node; 0: one */
  uint32_t worker; /* number of the worker it ended on, from 1 */
  uint16_t wire;   /* PP_JOBF_x */
  uint16_t flags;
  uint16_t node; /* where it was sent last: a name of the engine's */
  uint8_t state;
  uint8_t failing; /* while ENDING: it will be FAILED */
  uint8_t small_cap;
  bool pooled;
  unsigned char small[];
};

enum {
  PP_JOB_CALLBACK = 1, /* its callback is still to run */
  PP_JOB_SEEN = 2,     /* somebody asked for its result */
  PP_JOB_ENDED = 4,    /* ended, in the server's list of kept jobs */
  PP_JOB_GHOST = 8,    /* stands for a job that has ended, at its worker */
  PP_JOB_FORGET = 16,  /* nothing is kept of it */
  PP_JOB_CHILD = 32,   /* a job has submitted it */
  PP_JOB_TOLD = 64,    /* somebody knows its error */
  PP_JOB_CALL = 128,   /* a call of everywhere, in one worker: no job of its
                          server's */
  PP_JOB_HERE = 256,   /* run in the submitting process: its worker is 0 */
  PP_JOB_ASKED = 512,  /* its place is to say whether it has begun; sched's */
  PP_JOB_RAN = 1024    /* it has been at its place, for which `started` and
                          `run` hold, and nobody was told yet: trace.h */
};

/* A job whose body has room for len bytes; NULL without memory. One reference,
 * owned by the caller. In a pool, or (NULL) by itself. */
pp_job *pp_job_new_in(pp_pool *pool, size_t len);
static inline pp_job *pp_job_new(size_t len) {
  return pp_job_new_in(NULL, len);
}
/* What few have, made if need be; NULL without memory. */
pp_more *pp_job_more(pp_job *j);
static inline pp_cargo *pp_job_args(const pp_job *j) {
  return j->more != NULL ? j->more->args : NULL;
}
static inline pp_cargo *pp_job_tail(const pp_job *j) {
  return j->more != NULL ? j->more->tail : NULL;
}
static inline pp_cargo *pp_job_load(const pp_job *j) {
  return j->more != NULL ? j->more->load : NULL;
}
/* Its body says where the arguments are: the reference passes. PP_ENOMEM. */
int pp_job_give_args(pp_job *j, pp_cargo *args);
static inline struct pp_kin *pp_job_kin(const pp_job *j) {
  return j->more != NULL ? j->more->kin : NULL;
}
static inline struct pp_class *pp_job_on(const pp_job *j) {
  return j->more != NULL ? j->more->on : NULL;
}
static inline pp_promise *pp_job_promise(const pp_job *j) {
  return j->more != NULL ? j->more->promise : NULL;
}
static inline pp_job *pp_job_cause(const pp_job *j) {
  return j->more != NULL ? j->more->cause : NULL;
}
static inline const pp_buf *pp_job_collected(const pp_job *j) {
  return j->more != NULL ? j->more->output : NULL;
}
static inline pp_blob **pp_job_deps(const pp_job *j) {
  return j->more != NULL ? j->more->deps : NULL;
}
/* Its arguments refer to these: the references and the array pass. Nothing if
 * there are none; PP_ENOMEM: they have not passed. */
int pp_job_give_deps(pp_job *j, pp_blob **deps, size_t n);
/* Peak memory of its worker, bytes. */
static inline uint64_t pp_job_maxrss(const pp_job *j) {
  return (uint64_t)j->maxrss << 10;
}
static inline void pp_job_set_maxrss(pp_job *j, uint64_t bytes) {
  j->maxrss = bytes >> 10 > UINT32_MAX ? UINT32_MAX : (uint32_t)(bytes >> 10);
}
static inline uint32_t pp_job_ndeps(const pp_job *j) {
  return j->more != NULL ? j->more->ndeps : 0;
}
static inline pp_job *pp_job_ref(pp_job *j) {
  j->refs++;
  return j;
}
void pp_job_unref(pp_job *j, pp_blobs *blobs);
/* Of the frame it is sent in: bytes of the head, before the body, and in all.
 */
static inline size_t pp_job_head_len(const pp_job *j) {
  return PP_FRAME_HEAD + PP_JOB_HEAD + 4 * (size_t)pp_job_ndeps(j);
}
static inline size_t pp_job_frame_len(const pp_job *j) {
  return pp_job_head_len(j) + j->body_len +
         (pp_job_tail(j) != NULL ? j->more->tail->len : 0);
}
/* Make the head, for its attempt and place as they are: pp_job_head_len bytes.
 */
void pp_job_head(const pp_job *j, unsigned char *p);
/* What its frame ends with, or says where it is: modules and arguments, without
 * their tail, which names nothing (message.h); *len: bytes. NULL: it has let
 * them go. */
static inline const unsigned char *pp_job_body(const pp_job *j, size_t *len) {
  const pp_cargo *args = pp_job_args(j);

  *len = 0;
  if (j->body == NULL || (args == NULL && j->more != NULL && j->more->afar))
    return NULL;
  *len = args != NULL ? args->len : j->body_len;
  return args != NULL ? args->p : j->body;
}
/* Bytes that go to its worker. */
static inline uint64_t pp_job_bytes(const pp_job *j) {
  return pp_job_frame_len(j) +
         (pp_job_args(j) != NULL ? j->more->args->len : 0);
}
/* Where its output (0 stdout, 1 stderr) is collected; NULL without memory. */
pp_buf *pp_job_output(pp_job *j, int which);
/* It will not run again: let its arguments go, and values it needed. Code
 * stays, which its results may name. */
void pp_job_shed(pp_job *j, pp_blobs *blobs);
/* A result has come from where it ran, and it will not run again: copy it, into
 * the room of its body if it has no other use; PP_ENOMEM. */
int pp_job_finish(pp_job *j, const void *bytes, size_t len);
/* Let its result go. */
void pp_job_clear_result(pp_job *j);
/* A result of len bytes that it owns from now on. */
void pp_job_give_result(pp_job *j, unsigned char *bytes, size_t len);
/* The same of cargo, whose reference passes. */
int pp_job_give_load(pp_job *j, pp_cargo *load); /* or PP_ENOMEM */
/* Its result has been read: let its code go too. */
void pp_job_done_with(pp_job *j, pp_blobs *blobs);
/* Copy a result into the job; PP_ENOMEM. */
int pp_job_store(pp_job *j, const void *bytes, size_t len);
/* A failed job: did the script itself put an end to it? */
static inline bool pp_job_dropped(const pp_job *j) {
  return j->result_len > 0 && (j->result[0] == PP_KIND_CANCELLED ||
                               j->result[0] == PP_KIND_DESTROYED);
}
static inline bool pp_job_over(const pp_job *j) {
  return j->state >= PP_JOB_DONE;
}

#endif
