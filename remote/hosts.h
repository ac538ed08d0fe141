/* SPDX-License-Identifier: MIT */
/*
 * hosts: the remote hosts of one ppsh: connecting, sending the agent, trying
 * again, giving up, and saying why in one line.
 *
 * A host that several servers name is connected to once; each has a node of its
 * own for it (core/node.h), whose workers run over that connection. Nothing
 * here blocks: all of it happens in the engine's loop, under its lock.
 *
 *   RESOLVING   ssh -G is asked what the configuration says
 *   CONNECTING  up to the agent's welcome
 *   UP
 *   WAITING     for the next try
 *   FAILED      no more tries: a reason that trying again does not change, or
 *               too many losses
 *
 * A host that never was up is tried PP_HOST_TRIES times before jobs wait for it
 * no longer, or once where that takes PP_HOST_PATIENCE_NS; one that was lost
 * for as long. Tries go on after that, at longer and longer intervals. One that
 * is lost PP_HOST_LOSSES times within PP_HOST_LOSSES_NS is set aside.
 */
#ifndef PP_REMOTE_HOSTS_H
#define PP_REMOTE_HOSTS_H

#include "engine.h"
#include "host.h"
#include "target.h"

#define PP_HOST_TRIES 3u
#define PP_HOST_PATIENCE_NS ((int64_t)60000000000)
#define PP_HOST_LOSSES 5u
#define PP_HOST_LOSSES_NS ((int64_t)300000000000)

/* How a server wants its hosts. */
typedef struct pp_hosts_how {
  pp_transport transport;
  bool installed; /* run the host's own ppsh if it is of this build */
} pp_hosts_how;

/* Give a server nodes for these hosts and begin to connect. Those it has are
 * left alone, but for removed and failed ones: they are tried anew. 0, or
 * PP_ENOMEM. */
int pp_hosts_attach(pp_server *s, const pp_hosts *set, const pp_hosts_how *how);
/* Let a node finish what it has begun and go. */
void pp_hosts_remove_node(pp_node *n);

#endif
