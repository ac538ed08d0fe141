/* SPDX-License-Identifier: MIT */
/* The program that is sent to a remote host: an agent, and nothing else. */
#include "agent.h"

int main(int argc, char **argv) { return pp_agent_main(argc, argv, false); }
