/* SPDX-License-Identifier: MIT */
/*
 * What stream.c shares with the transports, and they with transport.c.
 *
 * A stream outlives its carriers: each attempt to connect is one, made by
 * ops->open and told off by ops->abort. An attempt calls pp_stream_is_opened
 * once at most, then pp_stream_has_data and _errors, and pp_stream_failed or
 * pp_stream_ended once and last; after abort it calls nothing of its stream.
 */
#ifndef PP_STREAM_IMPL_H
#define PP_STREAM_IMPL_H

#include <uv.h>

#include "ask.h"
#include "keys.h"
#include "outq.h"
#include "stream.h"
#include "throttle.h"

#define PP_REASON_MAX 512

typedef struct pp_transport_ops {
  const char *name;
  /* Begin; s->carrier is set by it. 0 or PP_ENOMEM. */
  int (*open)(pp_stream *s);
  /* Take from s->out what can be taken; pass on s->ending when it is empty. */
  void (*flush)(pp_stream *s);
  /* s->paused is false again: data that was held back may be given. */
  void (*resume)(pp_stream *s);
  /* Let go of the stream at once; what is left closes by itself. */
  void (*abort)(pp_stream *s);
} pp_transport_ops;

/* Is libssh2 here? Opens it. */
bool pp_ssh_possible(void);
/* Is libssh2 here? Opens it. */
bool pp_ssh_possible(void);

extern const pp_transport_ops pp_transport_libssh2, pp_transport_openssh;

struct pp_stream {
  pp_net *net;
  const pp_target *target; /* borrowed */
  char *command;
  pp_stream_events events;
  void *ud;

  const pp_transport_ops *ops; /* of the attempt under way, else NULL */
  void *carrier;               /* its state */
  pp_outq out;
  bool full, paused, ending, closing, opened;
  bool dead;         /* closed is to be called in this turn of the loop */
  bool fell_back;    /* from libssh2 to ssh; not again */
  char try_ssh[160]; /* why the ssh program may do better; "": it may not */
  int attempts;      /* connections dropped by a busy server so far */
  int tries;         /* TCP connections tried (ConnectionAttempts) */
  int status;
  uint64_t opened_at, sent, received, started;
  pp_slot slot;      /* place in the throttle */
  uv_timer_t *timer; /* until the next attempt */
  pp_end end;
  char reason[PP_REASON_MAX];

  pp_stream *prev, *next;  /* all streams of the net */
  pp_stream *dirty_next;   /* to be flushed */
  pp_stream *resumed_next; /* data may be given again */
  bool dirty, resumed;
};

/* The built-in client, about to fail: the ssh program may do better, because of
 * this. Copied. */
void pp_stream_try_ssh(pp_stream *s, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* For transports. */
void pp_stream_is_opened(pp_stream *s);
/* sshd counts it among its startups no more. It says that the user is let in
 * before it does so itself; by its next answer it has. */
void pp_stream_is_known(pp_stream *s);
void pp_stream_has_data(pp_stream *s, const void *p, size_t n);
void pp_stream_has_errors(pp_stream *s, const void *p, size_t n);
/* The queue was taken from. */
void pp_stream_took(pp_stream *s, size_t n);
/* The attempt is over; the carrier has let go. transport.c decides whether
 * there is another one. */
void pp_stream_failed(pp_stream *s, pp_end kind, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* transport.c */
void pp_transport_begin(pp_stream *s);
bool pp_transport_again(pp_stream *s); /* after a failure; else it is final */
void pp_transport_stop(pp_stream *s);  /* no attempt, timer or slot is left */

/* stream.c: call closed in the next turn. */
void pp_stream_finish(pp_stream *s);
void pp_stream_touch(pp_stream *s); /* it is to be flushed */

/* net.c: there are streams to be flushed from now on. */
void pp_net_watch(pp_net *net);
/* An event was called where the loop might sleep next: it does not. */
void pp_net_wake(pp_net *net);

struct pp_net {
  uv_loop_t *loop;
  pp_net_options o;
  pp_keys *keys;
  pp_throttle *throttle;
  pp_ask *ask;
  struct pp_agents *agents;
  pp_stream *streams;
  pp_stream *dirty, *finished, *resumed;
  uv_prepare_t prepare;
  uv_check_t check;
  uv_idle_t idle; /* active while there are finished or resumed ones */
  int open;       /* handles of ours not closed yet */
  bool closing;
  void (*done)(void *ud);
  void *done_ud;
  unsigned char *input;   /* what is read from any socket, before it is used */
  unsigned char *scratch; /* what is passed to data(), after decryption */
  int has_ssh;            /* the ssh program is there: -1 not looked yet */
};
#define PP_NET_INPUT (128 << 10)
#define PP_NET_SCRATCH (128 << 10)

#endif
