/* SPDX-License-Identifier: MIT */
/*
 * stream: a command on another machine, as a pipe of bytes both ways.
 *
 *   pp_stream *s = pp_stream_open(net, target, "exec cat", &events, ud);
 *   -> opened, then data and errors as they come; pp_stream_write meanwhile
 *   -> closed, once and last: with why
 *
 * How the bytes travel (libssh2 in this process, or the ssh program) is
 * decided, and if need be decided anew, behind this. A host that is connected
 * to many times at once is not overrun: see throttle.h.
 *
 * All events are called from the loop, none from within a call of this
 * interface. The loop is never blocked: names are resolved and passphrases
 * worked upon elsewhere.
 */
#ifndef PP_STREAM_H
#define PP_STREAM_H

#include <stdbool.h>
#include <stddef.h>

#include "net.h"
#include "target.h"

typedef struct pp_stream pp_stream;

/* Why a stream has ended. */
typedef enum pp_end {
  PP_END_EXIT,        /* the command ended: pp_stream_status */
  PP_END_SIGNAL,      /* a signal ended the command */
  PP_END_CLOSED,      /* pp_stream_close */
  PP_END_RESOLVE,     /* the name does not resolve */
  PP_END_REFUSED,     /* connection refused */
  PP_END_UNREACHABLE, /* no route and the like */
  PP_END_TIMEOUT,     /* it took too long to connect */
  PP_END_HOSTKEY,     /* host key changed, revoked, unknown */
  PP_END_AUTH,        /* authentication failed */
  PP_END_EXEC,        /* the server does not execute commands */
  PP_END_CANCELLED,   /* the user answered a question with Ctrl-C */
  PP_END_UNSUPPORTED, /* this transport cannot: no method in common */
  PP_END_BUSY,        /* the server dropped us: too many at once */
  PP_END_LOST,        /* it was connected, and is no more */
  PP_END_SYSTEM,      /* something failed on this side */
} pp_end;

/* Each may be NULL. */
typedef struct pp_stream_events {
  /* The command has been asked for; from here on its bytes may come. */
  void (*opened)(void *ud);
  /* From the command's stdout. p is borrowed until this returns. */
  void (*data)(void *ud, const void *p, size_t n);
  /* The queue, full before, is down to the low mark. */
  void (*drained)(void *ud);
  /* From the command's stderr. With the ssh program, its own messages that
   * were not recognised are among it. */
  void (*errors)(void *ud, const void *p, size_t n);
  /* Exactly once and last; the stream is gone when this returns. text is one
   * line without newline, fit to stand behind "cannot connect to 'host': " or
   * "lost 'host': ". Borrowed until this returns. */
  void (*closed)(void *ud, pp_end kind, const char *text);
} pp_stream_events;

/*
 * Start connecting. The target must live until closed was called; command and
 * events are copied. Never fails but for memory (NULL): what goes wrong is
 * said by closed.
 */
pp_stream *pp_stream_open(pp_net *net, const pp_target *target,
                          const char *command, const pp_stream_events *events,
                          void *ud);

/*
 * Queue bytes for the command's stdin; before opened, too. They go out before
 * the loop sleeps next (pp_net_flush: now). 0, PP_ENOMEM (nothing was queued),
 * or PP_ECLOSED after pp_stream_end or pp_stream_close.
 */
int pp_stream_write(pp_stream *s, const void *p, size_t n);

/*
 * As that, without copying: the bytes stay where they are, unchanged, until
 * release(ud) is called, once. On error they are still the caller's, and
 * release is not called.
 */
int pp_stream_give(pp_stream *s, const void *p, size_t n,
                   void (*release)(void *ud), void *ud);

/* Bytes not yet given to the transport. */
size_t pp_stream_queued(const pp_stream *s);

/* The queue is full from 1 MiB on, until it has sunk to 256 KiB: then drained
 * is called. Nobody is kept from writing. */
bool pp_stream_full(const pp_stream *s);

/* No more data and errors until resume; the other side is held back once about
 * PP_STREAM_WINDOW bytes are on the way. Works from within data. */
void pp_stream_pause(pp_stream *s);
void pp_stream_resume(pp_stream *s);
#define PP_STREAM_WINDOW (4u << 20)

/* End of file for the command, after all that is queued. */
void pp_stream_end(pp_stream *s);

/*
 * Give up: from now on only closed is called, with PP_END_CLOSED and, if not
 * NULL, this text. What is queued is dropped. May be called at any time before
 * closed, and again.
 */
void pp_stream_close(pp_stream *s, const char *text);

/* Exit status of the command (PP_END_EXIT), or number of the signal if known
 * here, else 0 (PP_END_SIGNAL). For use within closed. */
int pp_stream_status(const pp_stream *s);

/* "libssh2" or "ssh": what carries it at present; "" before that is decided. */
const char *pp_stream_transport(const pp_stream *s);

/* When opened was called, in uv_hrtime's nanoseconds; 0 before. */
uint64_t pp_stream_opened_at(const pp_stream *s);

/* Bytes of data given to the transport, and received, so far. */
uint64_t pp_stream_sent(const pp_stream *s);
uint64_t pp_stream_received(const pp_stream *s);

/* What an ending is called in tests and logs: "refused". Never NULL. */
const char *pp_end_name(pp_end kind);

#endif
