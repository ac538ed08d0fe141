/* SPDX-License-Identifier: MIT */
/* The program that is sent to a remote host: an agent, and nothing else. */
#include "agent.h"

int main(void) { return pp_agent_run(0, 1); }
