/* SPDX-License-Identifier: MIT */
/*
 * resolve: targets by asking `ssh -G`, a few at a time, in a loop.
 *
 * Each host of a ProxyJump is asked for as well and hung on as via, so one
 * request may run several times ssh. Without an ssh program the answer is
 * pp_config_defaults. Callbacks come from uv_run, never from within a call.
 */
#ifndef PP_RESOLVE_H
#define PP_RESOLVE_H

#include <uv.h>

#include "host.h"
#include "target.h"

enum { PP_HOPS_MAX = 16 }; /* hosts that one connection may go via */

typedef struct pp_resolver pp_resolver;
typedef struct pp_resolving pp_resolving;

/* Zeroed means what is said here. Borrowed during pp_resolver_new. */
typedef struct pp_resolver_options {
  const char *ssh;         /* the program; NULL: "ssh" */
  const char *config_file; /* its -F; NULL: the usual files */
  pp_transport transport;  /* what targets are to say */
  int at_once;             /* programs at a time; 0: twice our CPUs, >= 4 */
  int timeout_ms;          /* for each; 0: 20 s. Match exec may take long */
} pp_resolver_options;

/*
 * The end of a request: a target, which is the callee's then, or NULL and a
 * reason in one line ("ssh -G: /home/u/.ssh/config line 3: ..."), borrowed
 * until it returns. The handle is gone.
 */
typedef void (*pp_resolved)(void *ud, pp_target *t, const char *reason);

/* NULL when out of memory. The loop must outlive it. */
pp_resolver *pp_resolver_new(uv_loop_t *loop, const pp_resolver_options *o);

/* Cancel all that is under way. What it holds is closed in the loop's next
 * turns; the memory goes then. NULL is fine. */
void pp_resolver_free(pp_resolver *r);

/* Ask for a host, which is copied. NULL when out of memory, else a handle that
 * is good until the callback, or until it is cancelled. */
pp_resolving *pp_config_resolve(pp_resolver *r, const pp_host *h,
                                pp_resolved cb, void *ud);

/* The callback will not come; a program that runs for it is killed. */
void pp_config_cancel(pp_resolving *g);

#endif
