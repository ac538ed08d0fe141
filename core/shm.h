/* SPDX-License-Identifier: MIT */
/*
 * shm: the memory a driver and its workers share.
 *
 * One memory file: a hub (who is asleep, which lanes have something for the
 * driver) and, for each worker, a lane: two single-producer single-consumer
 * byte rings and the claim words.
 *
 *   driver --- in ring ---> worker      frames, see PROTOCOL.md
 *   driver <-- out ring --- worker
 *
 * A side that sleeps says so in a word first and looks again; a side that
 * publishes looks at that word after. The worker sleeps on a futex, the driver
 * on one eventfd in its event loop, so a worker costs it no descriptor here.
 *
 * Each ring is mapped twice in a row, so that a run of up to PP_RING bytes is
 * contiguous wherever it starts. Positions only grow; a reader checks
 * tail - head <= PP_RING before it believes a peer's word.
 *
 * Behind the lanes are ranges for large payloads (cargo.h): one for each berth,
 * which a worker has, and the driver's. The file is as large as all of that
 * from the start and sealed against any other size, so that nobody can take the
 * end of it from under a mapping; only what is used has memory. Where files may
 * not be that large it grows with the lanes, and there is no cargo.
 */
#ifndef PP_SHM_H
#define PP_SHM_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base.h"

#define PP_RING 131072u     /* bytes of one ring */
#define PP_WINDOW 1024u     /* claim words of one lane, a power of two */
#define PP_LANES_MAX 16384u /* workers of one ppsh, all servers together */

/* Ranges for cargo: of berth n, from 1, and of the driver. */
#define PP_BERTHS 16384u
#define PP_BERTH_BYTES ((uint64_t)1 << 46)
#define PP_BERTH_AT(n) ((uint64_t)(n)*PP_BERTH_BYTES)
#define PP_DRIVER_AT ((uint64_t)1 << 60)
#define PP_FILE_BYTES ((uint64_t)1 << 62)

typedef struct pp_ring {
  _Alignas(64) _Atomic uint64_t head; /* written by the consumer */
  _Alignas(64) _Atomic uint64_t tail; /* written by the producer */
} pp_ring;

/* What the driver is doing (pp_hub.asleep). */
enum {
  PP_AWAKE,   /* it will look at the ready bits by itself */
  PP_DOZING,  /* asleep for a moment: ring for a batch, not for each result */
  PP_SLEEPING /* asleep: ring at the first result */
};

typedef struct pp_hub {
  _Alignas(64) _Atomic uint32_t asleep;
  _Alignas(64) _Atomic uint64_t ready[PP_LANES_MAX / 64];
  /* For workers that would spin (spin.h): CPUs there are to be had, 0 if that
   * is not known yet; places with jobs, as of when the driver last waited;
   * workers that spin. */
  _Alignas(64) _Atomic uint32_t cpus;
  _Atomic uint32_t busy;
  _Atomic int32_t spinners;
  /* The zygote looks after the workers that sleep; who falls asleep while it
   * does not asks it to. */
  _Atomic uint32_t watch;
  /* While jobs run in the driver: what their children have at descriptor
   * `mark`, or at 1, for the zygote to know them by when the driver is gone. */
  _Atomic uint64_t mark_inode; /* 0: none runs; written after the others */
  uint64_t mark_device;
  int32_t mark;
} pp_hub;

/* What a worker waits for (pp_lane.asleep, a futex word). */
enum { PP_BUSY, PP_WANTS_INPUT, PP_WANTS_ROOM };

/* A worker that sleeps for long is sent to rest (pp_lane.rest), by the zygote:
 * it gives back what it does not need to sleep. */
enum {
  PP_FRESH,   /* a frame has come since the zygote last saw it asleep */
  PP_TIRED,   /* none has */
  PP_TO_REST, /* none has for long: it is to rest */
  PP_RESTED   /* it was told; until the next frame */
};

/* State of a job at its worker: pp_lane.claim[seq % PP_WINDOW] holds
 * seq << 2 | state. Whoever moves it from SENT owns the job. */
enum { PP_CLAIM_NONE, PP_CLAIM_SENT, PP_CLAIM_TAKEN, PP_CLAIM_RECALLED };

typedef struct pp_lane pp_lane;
struct pp_lane {
  _Alignas(64) _Atomic uint32_t asleep;
  _Atomic uint32_t tx_blocked; /* the driver waits for room in `in` */
  _Atomic uint32_t spins;      /* it is one of hub.spinners */
  _Atomic uint64_t stop;       /* job to be stopped: seq << 8 | kind */
  _Atomic int64_t begun;       /* ns; when the last job was taken */
  _Atomic uint32_t outer;      /* the last that was not in the midst of another:
                                  those before it have ended */
  _Atomic uint32_t watched;    /* an agent wants to be told when the next job is
                                  taken */
  _Atomic uint64_t handled;    /* position in `in`: what came before is done
                                  with, and the cargo it spoke of */
  _Atomic uint32_t trimmed;    /* how often the driver let go the memory of
                                  cargo that the worker keeps for the next */
  uint32_t berth;              /* its worker's; 0: none */
  _Atomic uint32_t rest;       /* how far it is from resting */
  pp_ring in, out;
  /* Bytes the driver has read of the worker's stdout and stderr pipes, under
   * a sequence lock (odd while it reads). */
  _Alignas(64) _Atomic uint64_t read_seq;
  _Atomic uint64_t read_bytes[2];
  /* A chunk can be cut short while it runs (pp_lane_cut): seq << 32 | the item
   * that is being begun, from 0, and seq << 32 | how many are to be begun. */
  _Alignas(64) _Atomic uint64_t item;
  _Atomic uint64_t cut;
  _Atomic uint32_t light; /* its worker leaves the barrier to whoever cuts */
  _Alignas(64) _Atomic uint32_t claim[PP_WINDOW];
};

/* A mapped lane. */
typedef struct pp_map {
  pp_lane *lane;
  unsigned char *in, *out; /* ring bytes, mapped twice */
  void *base;
  size_t size;
} pp_map;

/* Create the memory file (close-on-exec) and map its hub. */
int pp_shm_open(int *fd, pp_hub **hub);
/* Is there cargo in this file? */
bool pp_shm_has_cargo(int fd);
/* Map the hub of a memory file made by another process; NULL with errno. */
pp_hub *pp_shm_hub(int fd);
/* Grow the file so that lane `index` exists. */
int pp_shm_grow(int fd, unsigned index);
/* What the errno of these, or of the start of a worker, means to the user. */
const char *pp_shm_error(int why);
/* Map lane `index`; PP_ESYS with errno. */
int pp_lane_map(int fd, unsigned index, pp_map *map);
void pp_lane_unmap(pp_map *map);
/* Map the first n lanes, in one process and not in those it forks: NULL where
 * there is no room. Only what the file has grown to may be looked at. */
void *pp_lanes_map(int fd, unsigned n);
void pp_lanes_unmap(void *lanes, unsigned n); /* lanes may be NULL */
pp_lane *pp_lanes_at(void *lanes, unsigned index);
/* Give a lane's memory back and zero it; nobody may be using it. */
void pp_lane_reset(int fd, unsigned index);

/*
 * Cut the chunk of n items with that sequence number short: it is to begin no
 * more than it has. How many items stay with it at most, from 1 on: the others
 * it will never begin. It may end with fewer, and says so. 0: nothing has
 * changed, it is not at such a chunk or was cut before, or that cannot be told.
 */
uint32_t pp_lane_cut(pp_lane *lane, uint32_t seq, uint32_t n);
/* Worker: before its first chunk. Whether pp_lane_item may be light. */
bool pp_lane_light(pp_lane *lane);
/* Worker: item i, from 0, of the chunk is to be begun. False: it is not. */
static inline bool pp_lane_item(_Atomic uint64_t *item,
                                const _Atomic uint64_t *cut, bool light,
                                uint32_t seq, uint64_t i) {
  uint64_t c;

  atomic_store_explicit(item, (uint64_t)seq << 32 | i, memory_order_relaxed);
  if (light)
    atomic_signal_fence(memory_order_seq_cst);
  else
    atomic_thread_fence(memory_order_seq_cst);
  c = atomic_load_explicit(cut, memory_order_relaxed);
  return c >> 32 != seq || i < (uint32_t)c;
}

/* --- rings: producer -------------------------------------------------- */

static inline size_t pp_ring_room(const pp_ring *r) {
  uint64_t used = atomic_load_explicit(&r->tail, memory_order_relaxed) -
                  atomic_load_explicit(&r->head, memory_order_acquire);

  return used > PP_RING ? 0 : PP_RING - (size_t)used;
}
/* Where the producer writes next: room bytes from here on. */
static inline unsigned char *pp_ring_end(const pp_ring *r,
                                         unsigned char *data) {
  return data + atomic_load_explicit(&r->tail, memory_order_relaxed) % PP_RING;
}
/* Publish n bytes written at pp_ring_end. */
static inline void pp_ring_publish(pp_ring *r, size_t n) {
  uint64_t t = atomic_load_explicit(&r->tail, memory_order_relaxed);

  atomic_store_explicit(&r->tail, t + n, memory_order_release);
}

/* --- rings: consumer -------------------------------------------------- */

/* Bytes to read; SIZE_MAX when the peer's words make no sense. */
static inline size_t pp_ring_used(const pp_ring *r) {
  uint64_t used = atomic_load_explicit(&r->tail, memory_order_acquire) -
                  atomic_load_explicit(&r->head, memory_order_relaxed);

  return used > PP_RING ? SIZE_MAX : (size_t)used;
}
static inline const unsigned char *pp_ring_start(const pp_ring *r,
                                                 const unsigned char *data) {
  return data + atomic_load_explicit(&r->head, memory_order_relaxed) % PP_RING;
}
static inline void pp_ring_consume(pp_ring *r, size_t n) {
  uint64_t h = atomic_load_explicit(&r->head, memory_order_relaxed);

  atomic_store_explicit(&r->head, h + n, memory_order_release);
}

/* --- sleeping --------------------------------------------------------- */

/* Worker: sleep while lane->asleep == what, until the deadline (monotonic ns,
 * -1 never); a wake-up may be spurious. */
void pp_lane_sleep(pp_lane *lane, uint32_t what, int64_t deadline);
/* Driver: wake the worker if it waits for `what`. Call after publishing or
 * consuming. */
void pp_lane_wake_slow(pp_lane *lane);
static inline void pp_lane_wake(pp_lane *lane, uint32_t what) {
  atomic_thread_fence(memory_order_seq_cst);
  if (atomic_load_explicit(&lane->asleep, memory_order_relaxed) == what)
    pp_lane_wake_slow(lane);
}

#endif
