/* SPDX-License-Identifier: MIT */
/*
 * throttle: how many handshakes one server is asked for at a time.
 *
 * sshd drops connections when more than 10 have not proved who they are
 * (MaxStartups 10:30:100). So there are PP_THROTTLE_SLOTS places per server
 * address; who finds none waits in line. A server that drops one all the same
 * gets half as many at a time, and nobody for a moment.
 */
#ifndef PP_THROTTLE_H
#define PP_THROTTLE_H

#include <stdbool.h>
#include <uv.h>

#define PP_THROTTLE_SLOTS 8

typedef struct pp_throttle pp_throttle;
typedef struct pp_server pp_server;

/* A place, or one waiting for it. Zeroed is out. */
typedef struct pp_slot {
  pp_server *server;
  struct pp_slot *prev, *next; /* in line */
  bool inside;
  void (*go)(void *ud);
  void *ud;
} pp_slot;

/* NULL when memory is short. */
pp_throttle *pp_throttle_new(uv_loop_t *loop);
/* No slot is in use. closed(ud) once the loop holds nothing of it. */
void pp_throttle_close(pp_throttle *t, void (*closed)(void *ud), void *ud);

/*
 * Take a place at host:port. 1: it is taken. 0: go(ud) is called, from the
 * loop, when there is one. PP_ENOMEM: neither. Loopback addresses are all one
 * server.
 */
int pp_throttle_enter(pp_throttle *t, pp_slot *slot, const char *host, int port,
                      void (*go)(void *ud), void *ud);

/* Give the place back, or leave the line. A slot that is out stays so. */
void pp_throttle_leave(pp_throttle *t, pp_slot *slot);

/* The server dropped the one inside this slot; it leaves. */
void pp_throttle_dropped(pp_throttle *t, pp_slot *slot);

#endif
