/* SPDX-License-Identifier: MIT */
/*
 * cargo: payloads too large for a ring, in the shared memory file.
 *
 * Behind its lanes the file has a range of its own for the driver and for each
 * worker: what that process fills with payloads, its hold. A range is many
 * terabytes of which only what is in use has memory. The other side is told
 * where a payload is (PP_F_AFAR in wire.h) and reads it in place, through a
 * window: it is written once and read once, and nobody waits for it to pass a
 * ring.
 *
 *   value --encoded into--> hold ----- window --decoded from--> value
 *
 * A buffer whose home is a hold moves there as it grows (buf.h). What it holds
 * is then taken from it as a slot, which stays as it is until it comes back.
 * Slots that are back stay mapped with their memory, up to PP_HOLD_WARM bytes:
 * to write to a page that is there costs a quarter of getting one first. An
 * idle ppsh lets go of them.
 *
 * Safe from the other side: the file is sealed against shrinking, so a mapping
 * of it never loses its end, whatever a worker does, and reads of a hole give
 * zeros. A worker can change bytes while the driver reads them; the driver
 * opens in place only what it copies as it opens it (strings), all else from a
 * private copy.
 *
 * Where there is no room (address space, memory, a limit on file sizes) a
 * buffer stays in the heap and its bytes go through the ring.
 */
#ifndef PP_CARGO_H
#define PP_CARGO_H

#include <pthread.h>
#include <stdbool.h>

#include "buf.h"

#define PP_CARGO_LEAST 65536u              /* less goes through the ring */
#define PP_HOLD_WARM ((size_t)128 << 20)   /* bytes kept for the next */
#define PP_WINDOW_WARM ((size_t)256 << 20) /* of address space */
#define PP_HOLD_SLOTS 16
#define PP_WINDOWS 16

/* Part of a hold. */
typedef struct pp_slot {
  uint64_t at; /* offset in the file */
  size_t cap;
  unsigned char *p; /* mapped there; NULL: not any more */
} pp_slot;

typedef struct pp_hold {
  pp_home home; /* first: of buffers */
  pthread_mutex_t lock;
  int fd;             /* borrowed */
  uint64_t next, end; /* of the range: what was never used */
  pp_slot busy[PP_HOLD_SLOTS], idle[PP_HOLD_SLOTS], sent[PP_HOLD_SLOTS];
  unsigned nbusy, nidle, nsent;
  _Atomic size_t warm; /* bytes of those idle; changed under the lock */
  bool told; /* somebody else decides which are kept idle (a worker's) */
} pp_hold;

/* A hold over [first, end) of the file; first 0: there is none, and buffers
 * stay in the heap. Zeroed before. */
void pp_hold_open(pp_hold *h, int fd, uint64_t first, uint64_t end);
/* Room for len bytes: 0, or PP_ENOMEM. */
int pp_hold_get(pp_hold *h, size_t len, pp_slot *out);
/* The slot of a buffer that is afar, which is empty then. */
pp_slot pp_hold_take(pp_hold *h, pp_buf *b);
/* A slot comes back. cold: its memory is gone already. */
void pp_hold_back(pp_hold *h, pp_slot slot, bool cold);
/* A slot has been handed over to the driver, and comes back when that says so.
 */
void pp_hold_sent(pp_hold *h, pp_slot slot);
void pp_hold_released(pp_hold *h, uint64_t at, size_t cap, bool cold);
/* Let go all memory that is kept for the next. */
void pp_hold_trim(pp_hold *h);
/* The same when somebody else has done so with the memory. */
void pp_hold_forget(pp_hold *h);
/* Let go the memory of part of the file. */
void pp_cargo_punch(int fd, uint64_t at, size_t len);
/* The same, and what is mapped at p (NULL: nothing), perhaps a while later: of
 * what is so large that it takes its time, in a thread of its own. Nobody may
 * put anything there any more. */
void pp_cargo_sweep(int fd, uint64_t at, size_t len, void *p, size_t size);
/* Is there memory for all of it? What its sender says may be a lie. */
bool pp_cargo_filled(int fd, uint64_t at, size_t len);

/* A payload of somebody else's, to be read: mapped, or a copy where it cannot
 * be. */
typedef struct pp_window {
  uint64_t at;
  size_t len;
  const unsigned char *p;
  unsigned char *base; /* of whole pages, or of the copy */
  size_t size;         /* of the mapping; 0: it is a copy */
} pp_window;

/* The windows of a process. Those closed lately stay mapped. */
typedef struct pp_windows {
  int fd; /* borrowed */
  pp_window idle[PP_WINDOWS];
  unsigned n;
  size_t warm;
} pp_windows;

/* Open one; PP_ENOMEM. */
int pp_window_open(pp_windows *w, uint64_t at, size_t len, pp_window *out);
/* Close it; it may be closed twice. */
void pp_window_close(pp_windows *w, pp_window *out);
void pp_windows_trim(pp_windows *w);

/*
 * The driver's count of who needs a payload: jobs, blobs, what is on its way.
 * It is in the driver's hold or in a worker's; or, what came from another
 * machine, in memory of its own. `gone` sees to that after the last.
 */
typedef struct pp_cargo pp_cargo;
struct pp_blocks;
struct pp_cargo {
  uint32_t refs;
  size_t len;
  uint64_t at;            /* of the payload */
  const unsigned char *p; /* mapped */
  pp_slot slot;           /* in which it is; of a worker's: p NULL; cap 0: it is
                             in no file but this process's own memory */
  pp_window window;       /* of a worker's; else base and size are the block */
  void (*gone)(pp_cargo *c);
  void *ud; /* gone's */
};

static inline pp_cargo *pp_cargo_ref(pp_cargo *c) {
  if (c != NULL)
    c->refs++;
  return c;
}
static inline void pp_cargo_unref(pp_cargo *c) {
  if (c != NULL && --c->refs == 0)
    c->gone(c);
}
/* Can another process be told where it is? If not, none can change it. */
static inline bool pp_cargo_shared(const pp_cargo *c) {
  return c != NULL && c->slot.cap > 0;
}
/* The len bytes at p, in a block (blocks.h) of so many bytes, which passes in
 * any case; NULL without memory. */
pp_cargo *pp_cargo_own(struct pp_blocks *b, unsigned char *block, size_t size,
                       const unsigned char *p, size_t len);
/* What a buffer holds, which is empty then; NULL without memory. One
 * reference. */
pp_cargo *pp_cargo_of(pp_hold *h, pp_buf *b);
/* A copy of these bytes; NULL where there is no room for one. */
pp_cargo *pp_cargo_copy(pp_hold *h, const void *bytes, size_t len);

#endif
