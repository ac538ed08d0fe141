/* SPDX-License-Identifier: MIT */
/*
 * press: messages of a relay, packed (zstd) where they get there sooner so.
 *
 * Whole messages are packed together, up to PP_PRESS_BLOCK bytes, and go as one
 * of type PACKED. Whether that pays is decided for each block:
 *
 *   packing a byte, and opening it  +  sending what becomes of it
 *                                   <  sending the byte
 *
 * by what packing has cost and made of the last blocks, and by how fast the
 * link was found to be (gauge.h). What did not shrink is sent as it is, and the
 * next blocks are not even tried: one, then two, up to PP_PRESS_SKIP.
 *
 * Zeroed is new. What was packed by the other side is opened into memory of a
 * fixed size: it cannot grow beyond that, whoever made it.
 */
#ifndef PP_PRESS_H
#define PP_PRESS_H

#include "gauge.h"
#include "relay.h"

/* Most bytes that are packed together: one message at least. */
#define PP_PRESS_BLOCK (PP_RELAY_HEAD + PP_RELAY_MAX)
/* Fewer are not worth it. */
#define PP_PRESS_LEAST 512u
#define PP_PRESS_SKIP 32u
/* A link that was not measured yet: is it slow? If it is so long. */
#define PP_PRESS_LONG_NS ((int64_t)5000000)

typedef struct pp_press {
  bool able; /* the other side can open what is packed */
  pp_gauge gauge;
  void *packer, *opener;      /* zstd's, once needed */
  unsigned char *out, *in;    /* the same, for one message each */
  double cost;                /* ns for a byte: packing, and opening; 0: new */
  double ratio;               /* what becomes of one */
  unsigned misses, skip;      /* blocks that did not shrink; not to be tried */
  uint64_t sent[2], taken[2]; /* bytes that were packed, and what became of
                                 them: our own, theirs */
} pp_press;

/* Can we open what is packed? */
bool pp_press_able(void);
void pp_press_clear(pp_press *z);

/* Does packing pay at present? If not, messages may go by themselves and be
 * told of by passed: n bytes. */
bool pp_press_pays(const pp_press *z);
void pp_press_passed(pp_press *z, size_t n,
                     void (*write)(void *ud, const void *p, size_t n),
                     void *ud);

/* Is so much under way that more would only wait, with `waiting` bytes before
 * it that were not passed yet? An answer comes then, or the limit falls. */
bool pp_press_full(const pp_press *z, size_t waiting);
/* How much one of several may pass in its turn: PP_RELAY_MAX at most, never
 * nothing. */
size_t pp_press_turn(const pp_press *z);
/* Send a probe if it is time for one: for who has waited, after an answer. */
void pp_press_probe(pp_press *z,
                    void (*write)(void *ud, const void *p, size_t n), void *ud);

/* Pass on whole messages, by write, some of them packed. */
void pp_press_pass(pp_press *z, const unsigned char *p, size_t n,
                   void (*write)(void *ud, const void *p, size_t n), void *ud);

/*
 * Open the payload of a PACKED: a run of whole messages, none of them PACKED,
 * at *out until the next is opened. False if it makes no sense; or without
 * memory.
 */
bool pp_press_open(pp_press *z, const unsigned char *p, size_t n,
                   const unsigned char **out, size_t *len);

#endif
