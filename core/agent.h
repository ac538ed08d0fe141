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

#include <stdbool.h>

/*
 * What `--agent ...` asks for; exit status. check ID: 0 if ID is the content
 * hash of this program's file, or its build id. run WORD: say "WORD run ID" on
 * stdout, then serve the driver at stdin and stdout until it is gone; ID is the
 * hash, or the build id if installed. Marks the file as used.
 */
int pp_agent_main(int argc, char **argv, bool installed);

#endif
