/* SPDX-License-Identifier: MIT */
/*
 * outlet: the driver's end of one pipe that jobs write to.
 *
 * Bytes are read into a buffer and passed on to this process's stdout or
 * stderr in whole lines. Where a job's output ends is told by its result, as
 * an offset: what was read is passed on only once no result can still be on
 * its way that ends before it.
 */
#ifndef PP_OUTLET_H
#define PP_OUTLET_H

#include <stdbool.h>
#include <stdio.h>
#include <uv.h>

#include "buf.h"

struct pp_lane;
struct pp_meter;

/* What becomes of jobs' output. */
enum pp_output {
  PP_OUTPUT_LINE,   /* passed on in whole lines */
  PP_OUTPUT_PREFIX, /* the same, each line behind "[node/worker] " */
  PP_OUTPUT_JOB,    /* kept with the job */
  PP_OUTPUT_NONE    /* dropped */
};

typedef struct pp_outlet {
  uv_poll_t poll;
  enum pp_output mode;
  char prefix[288];
  bool inside;            /* the last line passed on is not complete */
  int fd;                 /* owned; -1: none */
  int which;              /* 0 stdout, 1 stderr */
  struct pp_lane *lane;   /* where the worker can see how much was read; NULL:
                             nobody wants to */
  FILE *const *to;        /* what it is passed on to */
  struct pp_meter *meter; /* what has to make room there */
  bool *dirty;            /* set when something was passed on */
  uint64_t read, passed;  /* bytes, since the worker began */
  uint64_t safe;          /* may be passed on: no job ends before */
  uint64_t settled;       /* of a remote worker: what every result that ends
                             before it was told */
  pp_buf text;            /* bytes passed .. read */
} pp_outlet;

/* Read what is in the pipe. False at its end. */
bool pp_outlet_read(pp_outlet *o);
/* Read until there are `upto` bytes in all, or no more are there. */
void pp_outlet_read_to(pp_outlet *o, uint64_t upto);
/* Pass on whole lines of what was read before offset `upto`; at the end of a
 * job what is left becomes a line. */
void pp_outlet_pass(pp_outlet *o, uint64_t upto, bool end);
/* In mode JOB: append what was read before offset `upto` to sink (NULL: drop
 * it). */
void pp_outlet_collect(pp_outlet *o, uint64_t upto, pp_buf *sink);

#endif
