/* SPDX-License-Identifier: MIT */
/* far_impl: what far.c (what comes, life) and far_send.c share. */
#ifndef PP_FAR_IMPL_H
#define PP_FAR_IMPL_H

#include "far.h"

/* Above so much in the stream's queue links wait, however fast it is (gauge.h
 * has what a slow one takes): pp_far_room tells when there is room. */
#define PP_FAR_QUEUE_MOST ((size_t)1 << 20)

/* The stream is to be closed. Nothing more is read or sent. */
void pp_far_broken(pp_far *f, const char *why);
/* Add a message to what goes with the next post. */
void pp_far_say(pp_far *f, int type, uint32_t lane, const void *p, size_t n);
void pp_far_post(pp_far *f);
/* The agent's side of a lane is free, and what it held there. Frees it. */
void pp_far_release(pp_far *f, pp_flane *w);

#endif
