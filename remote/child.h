/* SPDX-License-Identifier: MIT */
/*
 * child: a program whose stdin and stdout are one socket to us, and its stderr
 * a pipe. In a session of its own, so that Ctrl-C at the terminal does not
 * reach it. Ended, it is reaped; closed, it is ended, and its process group:
 * its socket is shut, SIGTERM follows, and SIGKILL two seconds later.
 */
#ifndef PP_CHILD_H
#define PP_CHILD_H

#include <stdbool.h>
#include <uv.h>

#include "net.h"
#include "outq.h"

typedef struct pp_child pp_child;

typedef struct pp_child_events {
  void (*input)(void *ud, const unsigned char *p, size_t n);
  void (*errors)(void *ud, const char *p, size_t n);
  void (*moved)(void *ud); /* the queue was taken from */
  /* It has ended and everything it said was passed on. Last. signal: 0 or the
   * one that ended it. */
  void (*ended)(void *ud, int64_t status, int signal);
} pp_child_events;

/*
 * env: NULL for our own. NULL with *error a libuv error when it cannot be
 * started.
 */
pp_child *pp_child_open(pp_net *net, char *const argv[], char *const env[],
                        const pp_child_events *events, void *ud, int *error);

/* What goes to its stdin; pp_child_flush sends it. */
pp_outq *pp_child_queue(pp_child *c);
/* Bytes that left the queue. When the child does not read any more, they are
 * dropped: its end says why. */
size_t pp_child_flush(pp_child *c);
/* End of file, after what is queued. */
void pp_child_end(pp_child *c);
/* Stop and go on reading its stdout. */
void pp_child_pause(pp_child *c, bool paused);
int pp_child_pid(const pp_child *c);
/* Nothing is called any more. */
void pp_child_close(pp_child *c);

/* The file descriptor of the socket. */
int pp_child_fd(const pp_child *c);

#endif
