/* SPDX-License-Identifier: MIT */
/*
 * agent: ppsh's end on a remote host. It speaks to the driver over one stream
 * (relay.h), has a zygote and workers like a driver, and moves bytes between
 * that stream and their lanes. It opens no socket to the outside, takes orders
 * from its stream only, and when that ends or is silent for too long it ends
 * everything below it.
 */
#ifndef PP_AGENT_H
#define PP_AGENT_H

/* Serve the driver at these descriptors until it is gone: exit status. */
int pp_agent_run(int in, int out);

#endif
