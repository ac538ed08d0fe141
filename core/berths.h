/* SPDX-License-Identifier: MIT */
/*
 * berths: the driver's account of the holds of its workers.
 *
 * A worker has a berth: the range of the shared file that it fills. What it
 * has handed over is read there by whoever needs it, also after its death: the
 * range is given to another only when nothing in it is needed any more. A slot
 * that nobody needs goes back to the worker, with its memory or without: how
 * much the workers keep for the next is decided here, for all of them.
 *
 * Belongs to the engine's lock.
 */
#ifndef PP_BERTHS_H
#define PP_BERTHS_H

#include "cargo.h"
#include "shm.h"

struct pp_link;

typedef struct pp_berth {
  struct pp_link *link; /* its worker's; NULL: that is gone */
  struct pp_berths *all;
  uint32_t number; /* from 1 */
  uint32_t refs;   /* the link's, and one for each cargo */
} pp_berth;

/* A slot whose memory a worker keeps. */
typedef struct pp_kept_slot {
  pp_berth *berth;
  uint64_t at;
  size_t cap;
} pp_kept_slot;

#define PP_KEPT_SLOTS 64

typedef struct pp_berths {
  int fd; /* borrowed; -1: there is no cargo */
  pp_windows windows;
  uint64_t used[PP_BERTHS / 64]; /* bits: numbers that are given away */
  uint32_t next; /* where to look: all others are used before one is again */
  pp_kept_slot kept[PP_KEPT_SLOTS];
  unsigned nkept;
  size_t warm; /* bytes of those */
} pp_berths;

void pp_berths_init(pp_berths *b, int fd);
/* A berth for a link; NULL: there is none to be had, and no cargo from it. */
pp_berth *pp_berth_new(pp_berths *b, struct pp_link *l);
/* The link's worker is gone; berth may be NULL. */
void pp_berth_leave(pp_berth *berth);
/*
 * Cargo that a worker says it has handed over, by the reference at p: one
 * reference. PP_EBAD if that makes no sense, PP_ENOMEM where there is none to
 * read it.
 */
int pp_berth_cargo(pp_berth *berth, const unsigned char *p, pp_cargo **out);
/* Let go the memory that workers without jobs keep. */
void pp_berths_trim(pp_berths *b);

#endif
