/* SPDX-License-Identifier: MIT */
/*
 * agent_lane: one worker's lane as the agent of a remote host has it.
 *
 * What comes for it over the stream is frames. They are looked at as they come:
 * a JOB's claim word is set, a BLOB is kept for the other workers, an AGAIN is
 * made a BLOB again (depot.h). What does not fit the ring waits; the driver
 * sends no more than PP_RELAY_CREDIT bytes ahead.
 */
#ifndef PP_AGENT_LANE_H
#define PP_AGENT_LANE_H

#include "depot.h"
#include "press.h"
#include "relay.h"
#include "shm.h"

/* Bytes that wait for room in the ring: `own` of them, then a blob's. */
typedef struct pp_span {
  size_t own;
  pp_stock *stock; /* its bytes follow; one user; NULL: none */
  size_t at;       /* of these, how many are in the ring */
} pp_span;

typedef struct pp_alane pp_alane;
struct pp_alane {
  uint32_t index;
  pp_map map;
  int fd[2];        /* of its stdout and stderr; -1: closed */
  bool paused[2];   /* not watched until there is room for more */
  uint64_t read[2]; /* bytes that came from there */
  bool unsettled;   /* of output told, results that end before it were not */
  bool runs;        /* its worker may be alive */
  pp_shelf shelf;
  /* the frame that is coming */
  unsigned char head[PP_FRAME_HEAD + PP_BLOB_HEAD + 4 * PP_DEPOT_DEPS];
  size_t nhead;      /* bytes of it that are here */
  uint64_t left;     /* of its rest, how many are to come */
  pp_stock *filling; /* where they go; one user; NULL: on to the worker */
  /* what waits for room */
  pp_buf queue;
  size_t queue_at;
  pp_span *spans;
  size_t nspans, cap_spans, first_span;
  uint32_t credit; /* bytes gone into the ring, not yet told */
  bool wrote;      /* into the ring, and its worker was not woken since; */
  bool whole;      /* a frame's last bytes are among what goes or waits */
  /* jobs */
  uint32_t sent, told; /* the last that came; that the driver knows is begun */
  uint64_t early[PP_WINDOW / 64]; /* bits: recalled, and still to come */
  unsigned looks;
  bool looking;
  pp_alane *next_look;
};

typedef struct pp_agent {
  int in, out, poll, shm, bell, ctl;
  pp_hub *hub;
  int64_t heard, silence; /* ns */
  pp_buf rx, said, tx;    /* said: messages that are still to be put into tx */
  size_t tx_at;
  bool blocked, polls_out;
  bool held;     /* something waits until tx has room */
  uint32_t turn; /* the lane that is the first to have some of it */
  bool more;     /* workers that have given something have more to do */
  pp_alane **lanes;
  uint32_t nlanes;
  pp_alane *looked; /* lanes with jobs that may have been begun */
  pp_depot depot;
  pp_press press;
} pp_agent;

/* What its poll tells of. */
enum {
  PP_AGENT_IN = 1,
  PP_AGENT_OUT,
  PP_AGENT_BELL,
  PP_AGENT_CTL,
  PP_AGENT_PIPE
};
static inline uint64_t pp_agent_tag(unsigned what, uint32_t lane,
                                    unsigned which) {
  return (uint64_t)what << 32 | (uint64_t)which << 28 | lane;
}

/* agent.c */
void pp_agent_say(pp_agent *a, int type, uint32_t lane, const void *p,
                  size_t n);
bool pp_agent_full(const pp_agent *a);
_Noreturn void pp_agent_give_up(const char *why);
/* Ask how fast the link is if it is time to. */
void pp_agent_probe(pp_agent *a);

/* agent_orders.c: */
/* Take the whole messages among these bytes; false if one makes no sense. */
bool pp_agent_messages(pp_agent *a, const unsigned char *p, size_t n,
                       size_t *taken);
/* Take what the zygote says. */
void pp_agent_on_ctl(pp_agent *a);

/* agent_lane.c: */
/* A new lane, which there must not be; NULL without memory. */
pp_alane *pp_alane_open(pp_agent *a, uint32_t index);
void pp_alane_close(pp_agent *a, pp_alane *l);
void pp_alane_close_pipes(pp_agent *a, pp_alane *l);
/* Bytes for it from the driver; false if they make no sense. */
bool pp_alane_bytes(pp_agent *a, pp_alane *l, const unsigned char *p, size_t n);
/* Pass on what its worker has produced, and give it what waits. */
void pp_alane_drain(pp_agent *a, pp_alane *l);
/* Pass on what is in a pipe of its. */
void pp_alane_output(pp_agent *a, pp_alane *l, unsigned which);
/* The same, of all there is: its worker is dead. */
void pp_alane_last(pp_agent *a, pp_alane *l);
/* Take back a job; false if it has begun, or is not known. */
bool pp_alane_recall(pp_alane *l, uint32_t seq);
/* Tell the driver which job was begun last; false if none was since. */
bool pp_alane_look(pp_agent *a, pp_alane *l);
/* Have its worker tell when it begins the next job, if there is one to begin.
 */
void pp_alane_watch(pp_agent *a, pp_alane *l);

#endif
