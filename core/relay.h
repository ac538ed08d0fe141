/* SPDX-License-Identifier: MIT */
/*
 * relay: what a driver and the agent of a remote host say to each other over
 * one stream of bytes (PROTOCOL.md, "Relay").
 *
 * The agent has a hub, lanes, a zygote and workers as a driver has; what a
 * driver does to a lane of its own by shared memory, it does to one of the
 * agent's by message. The frames in the lanes are the same, so all that is said
 * between a driver and a worker is said to remote ones, too.
 *
 * A message is a head of 8 bytes (type, 1 byte; lane, 3; length of the payload,
 * 4) and the payload, at most PP_RELAY_MAX bytes. Numbers are little-endian.
 */
#ifndef PP_RELAY_H
#define PP_RELAY_H

#include "base.h"
#include "wire.h"

#define PP_RELAY_VERSION 2u
#define PP_RELAY_HEAD 8u
#define PP_RELAY_MAX 65536u
/* Bytes for a worker's lane that may be with the agent, not yet in the lane. */
#define PP_RELAY_CREDIT (4u << 20)
#define PP_RELAY_MAGIC UINT64_C(0x0a0d1a6873707010) /* 10 "ppsh" 1a 0d 0a */

/* What either side can, in HELLO and WELCOME. */
#define PP_RELAY_OPENS 1u /* it opens what is PACKED */

enum pp_relay_type {
  /* to the agent */
  PP_R_HELLO = 1, /* first: magic 8, version 4, silence in ms 4, what it can 4,
                     then the name of the node */
  PP_R_START,     /* lane: begin a worker: its number, 4 */
  PP_R_BYTES,     /* lane: bytes of its ring `in`; back: of its ring `out` */
  PP_R_RECALL,    /* lane: take a job back if it has not begun: its sequence
                     number, 4 */
  PP_R_STOP,      /* lane: leave a job: sequence number 4, kind 4; taken back if
                     it has not begun */
  PP_R_KILL,      /* lane: signal for its process group, 4 */
  PP_R_FREE,      /* lane: EXITED has been heard; it may be STARTed again */
  PP_R_PING,      /* token 8 */
  PP_R_BYE,       /* end everything */
  PP_R_CUT,       /* lane: cut a chunk short: its sequence number 4, items 4 */
  /* to both */
  PP_R_PACKED = 32, /* bytes that are packed, 4; a frame of zstd's: a run of
                       other messages, PP_RELAY_HEAD + PP_RELAY_MAX at most */
  PP_R_PROBE,       /* token 8 */
  PP_R_ECHO,        /* at once: that token */
  /* to the driver */
  PP_R_WELCOME = 64, /* first: magic 8, version 4, CPUs 4, clock in ns 8, what
                        it can 4, build id (length 4, text), machine (length 4,
                        text) */
  PP_R_STARTED,      /* lane: pid, 4 */
  PP_R_FAILED,       /* lane: errno, 4 */
  PP_R_EXITED,       /* lane: status as of wait(2) 4, zero 4, peak memory 8; its
                        last word */
  PP_R_OUTPUT,       /* lane: 1 byte: 0 stdout, 1 stderr; bytes */
  PP_R_SETTLED,      /* lane: every result that ends before what OUTPUT has told
                        was told */
  PP_R_TAKEN,        /* lane: sequence number 4, zero 4, how long ago in ns 8 */
  PP_R_RECALLED,     /* lane: sequence number 4, 1 if it was and 0 if it had
                        begun or ended, 4 */
  PP_R_CREDIT,       /* lane: so many bytes have gone into the ring, 4 */
  PP_R_PONG,         /* token 8, clock in ns 8 */
  PP_R_KEPT, /* lane: sequence number 4, items that stay with it 4 (0: it
                cannot be told) */
  PP_R_ALIVE /* nothing: it had nothing else to say for a while, and a
                PING may be on the way behind much else */
};

static inline void pp_relay_head(unsigned char *p, int type, uint32_t lane,
                                 uint32_t len) {
  pp_put32(p, (uint32_t)type | lane << 8);
  pp_put32(p + 4, len);
}

#endif
