/* SPDX-License-Identifier: MIT */
/*
 * carrier: the bytes under an SSH session: a TCP connection, or a ProxyCommand.
 *
 * Resolves the name, takes a place in the throttle, tries each address in turn.
 * TCP is told to send small pieces at once, and to give up a peer that has
 * acknowledged nothing for PP_CARRIER_SILENCE milliseconds.
 */
#ifndef PP_CARRIER_H
#define PP_CARRIER_H

#include <sys/socket.h>

#include "stream_impl.h"

#define PP_CARRIER_SILENCE 8000
/* Bytes that the kernel takes beyond what it can send at once. */
#define PP_CARRIER_UNSENT (128 << 10)
#define PP_CARRIER_TIMEOUT 15 /* seconds to connect, when none are set */

typedef struct pp_carrier pp_carrier;

typedef struct pp_carrier_events {
  void (*connected)(void *ud);
  void (*input)(void *ud, const unsigned char *p, size_t n);
  void (*moved)(void *ud); /* the queue was taken from */
  /* Last. UV_EOF as error: it was closed by the other side. */
  void (*failed)(void *ud, pp_end kind, int error, const char *why);
} pp_carrier_events;

/* Events come from the loop only. NULL when memory is short. */
pp_carrier *pp_carrier_open(pp_net *net, const pp_target *t, pp_slot *slot,
                            const pp_carrier_events *events, void *ud);

pp_outq *pp_carrier_queue(pp_carrier *c);
/* Send what is queued. Errors are told by failed, later. */
void pp_carrier_flush(pp_carrier *c);
/* Hold the other side back, and go on. */
void pp_carrier_pause(pp_carrier *c, bool paused);
int pp_carrier_fd(const pp_carrier *c);
/* Whom it is connected to; NULL for a ProxyCommand. */
const struct sockaddr *pp_carrier_peer(const pp_carrier *c);
/* Nothing is called any more. */
void pp_carrier_close(pp_carrier *c);

#endif
