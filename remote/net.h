/* SPDX-License-Identifier: MIT */
/*
 * net: what the streams of one event loop share.
 *
 * Streams that have something to send are flushed just before the loop sleeps
 * and just after it woke: what is written within one turn goes out together.
 * Here too are the opened keys, the throttle of handshakes, and the one
 * terminal at which questions are asked.
 */
#ifndef PP_NET_H
#define PP_NET_H

#include <stdbool.h>
#include <uv.h>

typedef struct pp_net pp_net;

typedef enum pp_net_level {
  PP_NET_ERROR,
  PP_NET_WARN,
  PP_NET_INFO,
  PP_NET_DEBUG,
} pp_net_level;

typedef struct pp_net_options {
  /* One line for the log, without newline; never a secret. May be NULL. */
  void (*log)(void *ud, pp_net_level level, const char *text);
  /* The terminal is about to be used for questions (true), or is free again:
   * others stop reading it meanwhile. May be NULL. */
  void (*asking)(void *ud, bool on);
  /* A program was started, in a process group of its own (true), or is gone:
   * who outlives us ends the group. May be NULL. */
  void (*guard)(void *ud, int pid, bool on);
  void *ud;
  bool never_ask; /* as if there were no terminal */
  /* The program that answers ssh's questions when it is the ssh program that
   * connects: one whose main calls pp_askpass_main (ask.h) first of all. NULL:
   * /proc/PID/exe, so this one. */
  const char *askpass;
} pp_net_options;

/* The options are copied, strings too. NULL when memory is short. */
pp_net *pp_net_new(uv_loop_t *loop, const pp_net_options *o);

/*
 * Every stream must have said closed. What is open in the loop is closed now
 * and gone after the loop has run until it had nothing more to do; done(ud),
 * if not NULL, is called then, and the net is no more.
 */
void pp_net_close(pp_net *net, void (*done)(void *ud), void *ud);

/* Send now what would be sent at the end of this turn of the loop. */
void pp_net_flush(pp_net *net);

/* Give up all questions that are open or waiting, as Ctrl-C does. */
void pp_net_cancel_questions(pp_net *net);

/* The version of libssh2 that is here; "none". */
const char *pp_net_libssh2(void);

uv_loop_t *pp_net_loop(pp_net *net);

void pp_net_log(pp_net *net, pp_net_level level, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#endif
