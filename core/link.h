/* SPDX-License-Identifier: MIT */
/*
 * link: the driver's end of one local worker: its place in the schedule, its
 * lane, and the pipes its jobs' output comes from.
 *
 * A link is opened before its worker runs: frames wait in the lane. Output is
 * read into buffers and passed on in whole lines; where a job's output ends is
 * told by its result, so that a line never joins two jobs.
 */
#ifndef PP_LINK_H
#define PP_LINK_H

#include "engine.h"
#include "outlet.h"

/* A piece on its way to the worker that did not fit its ring. */
typedef struct pp_piece {
  const unsigned char *p;
  size_t len;
  pp_job *job;       /* reference to what p belongs to, or */
  pp_blob *blob;     /* reference, or */
  pp_source *source; /* reference, or */
  pp_cargo *cargo;   /* reference, to be kept until it has been handled, or */
  unsigned char *owned; /* freed after */
  bool last;            /* of an answer to WANT */
} pp_piece;

/* Cargo that the worker may still look at, until it has handled what is in its
 * ring before this position. */
typedef struct pp_hanging {
  uint64_t until;
  pp_cargo *cargo;
} pp_hanging;

/* What a worker is there for; crew.h. */
enum pp_duty {
  PP_DUTY_NONE, /* it retires, or is dead */
  PP_DUTY_OPEN, /* it has a place: it takes jobs, or serves the one it has */
  PP_DUTY_AWAY, /* its job waits, or has waited: another has its place */
  PP_DUTY_SPARE /* it has neither */
};

struct pp_flane;
struct pp_tworker;
typedef struct pp_link pp_link;
struct pp_link {
  pp_place place; /* first */
  pp_engine *engine;
  pp_server *server;
  pp_node *node;        /* of that server */
  struct pp_flane *far; /* the other end of its lane, if that is remote */
  uint32_t number, lane, seq;
  uint32_t seat;       /* number among all workers of its server, from 0 */
  uint32_t generation; /* of its zygote */
  int64_t *sent;       /* ns, by number: when jobs were sent; owned; or NULL */
  struct pp_tworker *row; /* of the trace; NULL: not looked up yet */
  uint64_t njobs;         /* the same, items of map one by one; */
  uint64_t maxrss;        /* bytes its worker took at most, */
  int64_t cpu;            /* and ns of CPU time, in jobs that have ended */
  uint32_t done;          /* jobs its worker has ended */
  uint32_t told;          /* calls of everywhere it has made or passed over */
  pp_job *call;           /* the one it is at (in place.jobs), or NULL */
  int pid;                /* 0 until it is known */
  bool dead, retiring;
  enum pp_duty duty;
  bool extra;      /* AWAY, and its job has gone on */
  bool serving;    /* OPEN, and takes what its job waits for */
  bool held;       /* it retires, but its job waits: another has its place */
  bool lending;    /* what it is given now is such */
  int64_t kill_at; /* jobs it is at have ended here: kill it then; 0: no */
  uint32_t ghosts; /* how many */
  pp_map map;
  pp_outlet outlet[2];
  unsigned handles; /* open uv handles */
  uint64_t *has;    /* bits: blobs it holds, by number */
  size_t has_words;
  pp_piece *tx;
  size_t tx_n, tx_cap, tx_at; /* tx_at: pieces done */
  bool lulled;                /* in the engine's list of these */
  pp_link *next_lulled;
  bool answering;        /* a module is on its way to it */
  bool broken;           /* it sent nonsense: nothing is read any more */
  pp_job *rx;            /* whose result comes in parts */
  int rx_type;           /* what else comes in parts; 0: nothing */
  pp_buf rx_buf;         /* what is here of it, or */
  size_t rx_size;        /* of the block, */
  size_t rx_at;          /* and where in it the result begins */
  unsigned char *rx_own; /* a block of a large one of a remote worker */
  size_t rx_got, rx_len; /* bytes that are here, and it will have */
  uint64_t rx_head[PP_RES_HEAD / 8];
  uint64_t stops[2]; /* of the result at hand: where its output ends */
  pp_berth *berth;   /* where its worker puts cargo; NULL: nowhere */
  pp_hanging *hanging;
  size_t nhanging, cap_hanging;
  pp_blob **own; /* references: blobs of its worker's, by its numbers */
  uint32_t nown;
};

/* Start worker `number` of a node. NULL with errno. */
pp_link *pp_link_open(pp_node *n, uint32_t number);
/* Take what it has produced: results, output. */
void pp_link_drain(pp_link *l);
/* The same of what comes from a remote one, to be put behind that. */
void pp_link_take(pp_link *l, const unsigned char *p, size_t n);
/* Its process has ended (status as of wait(2)), or never was (status -1, why
 * an errno), or its host is lost (-2). Jobs go back or fail. Frees the link
 * when the loop is done. */
void pp_link_died(pp_link *l, int status, int why, uint64_t maxrss);
/* Let it finish what it has begun and end. */
void pp_link_retire(pp_link *l);
void pp_link_kill(pp_link *l);
/* Tell the worker how a job ended that `parent`, at it, has submitted. */
void pp_link_answer(pp_link *l, const pp_job *parent, pp_job *child);
/* Jobs whose bytes are on the way to it can be taken back from now on. */
void pp_link_detach(pp_link *l);
/* Tell it what goes for the jobs of its server. */
void pp_link_configure(pp_link *l);
/* The worker has left a job it was to leave, or is gone. */
void pp_link_stopped(pp_link *l);
/* At the end of ppsh: pass on whatever output is there. */
void pp_link_last_words(pp_link *l);
/* What a job at this place has written so far and is kept with it: taken out of
 * there, whole lines or not; out[k] owned by the caller. Nothing, unless it is
 * the first of its place. */
void pp_link_hear(pp_place *p, pp_job *j, pp_buf out[2]);
/* It is to forget a blob. */
void pp_link_drop(pp_link *l, uint32_t id);
/* A slot of its worker's is needed no more; cold: its memory is gone. */
void pp_link_release(pp_link *l, uint64_t at, size_t cap, bool cold);
/* Let go the cargo its worker has handled; all of it, when that is gone. */
void pp_link_unhang(pp_link *l, bool all);
/* Has it output that waits to be passed on? Then drain again soon. (An agent
 * says when its workers' is settled.) */
static inline bool pp_link_unsettled(const pp_link *l) {
  return l->far == NULL && (l->outlet[0].safe < l->outlet[0].read ||
                            l->outlet[1].safe < l->outlet[1].read);
}
/* Has it nothing that anybody waits for? What it has to say without being at a
 * job it rings for. */
static inline bool pp_link_quiet(const pp_link *l) {
  return l->tx_n == 0 && !pp_link_unsettled(l) &&
         (l->place.jobs.n == 0 || pp_ring_used(&l->map.lane->out) == 0);
}
/* Wake those that have been sent jobs of a stream. */
void pp_link_rouse(struct pp_engine *e);

#endif
