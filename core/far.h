/* SPDX-License-Identifier: MIT */
/*
 * far: the driver's end of the stream to the agent of a remote host (relay.h).
 *
 * A worker over there has a link and a lane here like any other; this is at the
 * other end of that lane: it takes what links put into `in` rings and sends it,
 * and puts what comes back into `out` rings. So links neither know nor care,
 * but for what shared memory would tell at once:
 *
 *   a job is asked back by a message and answered for later (pp_sched_answered)
 *   a claim word says "taken" some time after it was
 *   output arrives by message, and is settled when all results before it came
 *
 * How bytes travel is behind its ops. Belongs to the engine's lock. No Lua.
 */
#ifndef PP_FAR_H
#define PP_FAR_H

#include "depot.h"
#include "engine.h"
#include "press.h"
#include "relay.h"

struct pp_link;
typedef struct pp_far pp_far;

typedef struct pp_far_ops {
  /* Send bytes, copied. */
  void (*write)(void *ud, const void *p, size_t n);
  /* Bytes that wait to be sent. When there were a mebibyte of them, and a
   * quarter of that is left, pp_far_room is to be called. */
  size_t (*queued)(void *ud);
  /* The agent has said who it is: CPUs it may use, its build id, its machine.
   * False to have none of it. */
  bool (*welcome)(void *ud, uint32_t ncpus, const char *build,
                  const char *machine);
  /* It sent nonsense, or nothing for too long: close the stream, which ends
   * with pp_far_lost. */
  void (*broken)(void *ud, const char *why);
  void *ud;
} pp_far_ops;

/* The driver's end of one lane. */
typedef struct pp_flane {
  struct pp_flane *next; /* of those with something to send */
  struct pp_far *owner;
  struct pp_link *link; /* NULL: its worker is gone, or never was */
  uint32_t index;       /* of the lane */
  bool dirty;
  pp_shelf shelf;
  uint64_t left;     /* bytes of the frame under way that are to go */
  pp_stock *filling; /* whose bytes these are; one user; NULL: nobody's */
  bool swallow;      /* they stay here: the agent has them */
  size_t credit;
  uint32_t sent;   /* sequence number of the last job that went */
  int64_t kill_by; /* ns; its worker was killed and is to have ended; 0: no */
} pp_flane;

struct pp_far {
  pp_engine *engine;
  pp_far *next;
  pp_far_ops ops;
  const char *name;      /* of the node; the engine's */
  bool up;               /* welcome was said */
  bool over;             /* nothing is read or sent any more */
  const char *why;       /* while it is being lost */
  int64_t heard, pinged; /* ns */
  int64_t rtt;           /* ns, about the least of late */
  int64_t skew;          /* ns, its clock less ours */
  pp_buf rx, tx;
  uint32_t part;      /* bytes that are to come of a BYTES, */
  uint32_t part_lane; /* for this lane */
  size_t open; /* where in tx the head of a BYTES is that may grow; or 0 */
  pp_flane *dirty, **dirty_end;
  pp_flane **lanes; /* by index */
  uint32_t nlanes;
  pp_depot depot;
  pp_press press;
};

/* How often the agent is asked whether it is there, and how long either may be
 * silent; so long it may take to end a worker, too. */
#define PP_FAR_PING_NS ((int64_t)2000000000)
#define PP_FAR_SILENCE_NS ((int64_t)8000000000)

/* A new one, in the engine's list; NULL without memory. */
pp_far *pp_far_new(pp_engine *e, const char *name, const pp_far_ops *ops);
/* No link may have it any more: pp_far_lost first. */
void pp_far_free(pp_far *f);

/* The stream is there: say hello. */
void pp_far_begin(pp_far *f, int64_t now);
/* Bytes have come. */
void pp_far_data(pp_far *f, const unsigned char *p, size_t n);
/* The stream takes more. */
void pp_far_room(pp_far *f);
/* The stream is gone: its workers are lost, `why`. */
void pp_far_lost(pp_far *f, const char *why);
/* The agent is to end, and all below it. */
void pp_far_bye(pp_far *f);
/* Send what links have; true: call again before you sleep. */
bool pp_far_flush(pp_engine *e);
/* Ask whether it is there, or give it up. When to come again. */
int64_t pp_far_tick(pp_far *f, int64_t now);

/* --- for links ------------------------------------------------------------ */

/* A worker of this number begins at the lane of l; PP_ENOMEM. */
int pp_far_start(struct pp_link *l);
/* There is something in its ring `in`. */
void pp_far_wake(struct pp_link *l);
void pp_far_kill(struct pp_link *l, int signal);
void pp_far_stop(struct pp_link *l, uint32_t seq, int kind);
void pp_far_ask(struct pp_link *l, uint32_t seq);
/* Ask to have a chunk of so many items cut short. */
void pp_far_cut(struct pp_link *l, uint32_t seq, uint32_t items);
/* The link is freed. */
void pp_far_forget(struct pp_link *l);

#endif
