/* SPDX-License-Identifier: MIT */
/*
 * job: one call of a function, from submit to its result.
 *
 * A job is counted: its server holds one reference until the job has ended and
 * what is kept of it has been taken; each handle holds one. All fields belong
 * to the engine's lock. The frame is complete but for sequence number and
 * attempt, which a place fills in when it sends the job.
 */
#ifndef PP_JOB_H
#define PP_JOB_H

#include <stdbool.h>

#include "blob.h"
#include "group.h"
#include "wire.h"

typedef struct pp_job pp_job;
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

struct pp_job {
  pp_job *prev, *next; /* in the list of its state */
  struct pp_server *server;
  struct pp_place *place; /* while SENT; else where it ended, or NULL */
  pp_blob *fn;            /* reference */
  pp_blob **deps;         /* references; of its arguments */
  pp_blob *setting;       /* reference, or NULL */
  pp_group *group;        /* reference */
  struct pp_kin *kin;     /* owned: who submitted it, whom it did; or NULL */
  char *name;             /* owned, or NULL */
  unsigned char *frame;   /* owned unless == small */
  pp_buf *output;         /* owned: stdout and stderr collected, or NULL */
  pp_cargo *args;         /* reference: what follows the frame; or NULL */
  unsigned char *result;  /* packed values or error: small, the bytes of a
                             promise (its own, or its cause's), those of load,
                             or owned */
  pp_cargo *load;         /* reference, or NULL */
  pp_promise *promise;    /* owned, or NULL */
  pp_job *cause;          /* reference: it failed because that job had */
  size_t frame_len, result_len;
  uint64_t id;
  int64_t submitted, started, ended, run, cpu; /* ns */
  uint64_t sent, received, maxrss;             /* bytes */
  uint64_t stops[2]; /* where its output ends in the worker's pipes */
  uint32_t refs, ndeps, seq;
  uint32_t waits; /* while BLOCKED: promises that are to come true */
  uint32_t attempts, retries; /* begun so far; how many lost ones to repeat */
  uint32_t error_retries;     /* how many of its own errors to repeat */
  uint32_t weight; /* at a place: how long it was expected to run; sched's */
  int64_t timeout; /* ns of one attempt; 0: none */
  double priority; /* higher ones first */
  uint32_t era;    /* calls of everywhere that come before it in its worker */
  uint32_t items;  /* how many it counts for; 0: one */
  uint32_t slots;  /* places it takes on its node; 0: one */
  uint32_t worker; /* number of the worker it ended on, from 1 */
  uint16_t flags;
  uint16_t node; /* where it was sent last: a name of the engine's */
  uint8_t state;
  uint8_t failing; /* while ENDING: it will be FAILED */
  uint32_t small_cap;
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
  PP_JOB_ASKED = 512   /* its place is to say whether it has begun; sched's */
};

/* A job whose frame has room for len bytes at frame; NULL without memory. One
 * reference, owned by the caller. */
pp_job *pp_job_new(size_t len);
static inline pp_job *pp_job_ref(pp_job *j) {
  j->refs++;
  return j;
}
void pp_job_unref(pp_job *j, pp_blobs *blobs);
/* What its frame ends with, or says where it is: modules and arguments; *len:
 * bytes. NULL: it has let them go. */
static inline const unsigned char *pp_job_body(const pp_job *j, size_t *len) {
  size_t before = PP_FRAME_HEAD + PP_JOB_HEAD + 4 * (size_t)j->ndeps;
  bool afar = j->frame != NULL && (j->frame[0] & PP_F_AFAR);

  *len = 0;
  if (j->frame == NULL || (afar && j->args == NULL))
    return NULL;
  *len = afar ? j->args->len : j->frame_len - before;
  return afar ? j->args->p : j->frame + before;
}
/* Bytes that go to its worker. */
static inline uint64_t pp_job_bytes(const pp_job *j) {
  return j->frame_len + (j->args != NULL ? j->args->len : 0);
}
/* Fill in what depends on where and how often it is run. */
void pp_job_address(pp_job *j, uint32_t seq);
/* Where its output (0 stdout, 1 stderr) is collected; NULL without memory. */
pp_buf *pp_job_output(pp_job *j, int which);
/* It will not run again: let its arguments go, and values it needed. Code
 * stays, which its results may name. */
void pp_job_shed(pp_job *j, pp_blobs *blobs);
/* Let its result go. */
void pp_job_clear_result(pp_job *j);
/* A result of len bytes that it owns from now on. */
void pp_job_give_result(pp_job *j, unsigned char *bytes, size_t len);
/* The same of cargo, whose reference passes. */
void pp_job_give_load(pp_job *j, pp_cargo *load);
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
