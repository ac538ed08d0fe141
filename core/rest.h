/* SPDX-License-Identifier: MIT */
/*
 * rest: what a process gives back to the system before it sleeps for long.
 *
 * The pages of programs and libraries that it has mapped but cannot have
 * written: they are the files', and when it wakes up those it needs are there
 * again at the price of a fault for sixteen of them. And what its stack once
 * took and does not now. A debugger's breakpoints in these pages go with them.
 *
 * The zygote says when (pp_hub.watch, pp_lane.rest): it looks at who sleeps
 * while somebody does who has not rested, and else at nobody.
 */
#ifndef PP_REST_H
#define PP_REST_H

#include <stddef.h>
#include <stdint.h>

#include "shm.h"

/* Do that, then pp_lane_sleep. The stack of this thread, the first, begins at
 * `stack` and has at most `room` bytes; 0: it keeps what it took. */
void pp_rest(pp_lane *lane, uint32_t what, int64_t deadline, uintptr_t stack,
             size_t room);

/* Bytes of memory that this process has to itself, or 0 if it cannot tell. */
size_t pp_rest_private(void);

#endif
