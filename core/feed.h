/* SPDX-License-Identifier: MIT */
/*
 * feed: one stream of bytes that the commands of many jobs read.
 *
 * A worker asks for more when its command has taken what there was; bytes are
 * kept until each of those jobs has been sent them. Belongs to the engine's
 * lock. There is one at a time.
 */
#ifndef PP_FEED_H
#define PP_FEED_H

#include "engine.h"

struct pp_link;
typedef struct pp_feed pp_feed;

/* NULL without memory. It is the engine's until it is freed. */
pp_feed *pp_feed_new(pp_engine *e);
void pp_feed_free(pp_feed *f);

/* A job's command reads it, from its beginning: 0, PP_ENOMEM, or PP_ECLOSED
 * when that is gone. A reference is taken. */
int pp_feed_add(pp_feed *f, pp_job *j);
void pp_feed_drop(pp_feed *f, pp_job *j);
/* Keep what comes for jobs that are yet to be added, or no longer. */
void pp_feed_hold(pp_feed *f, bool hold);
/* More bytes; none: there will be no more. 0 or PP_ENOMEM. */
int pp_feed_put(pp_feed *f, const void *p, size_t len);
/* How many bytes are kept. */
size_t pp_feed_kept(const pp_feed *f);

/* A FEED payload of a worker; false if it makes no sense. */
bool pp_feed_wanted(struct pp_link *l, const unsigned char *p, size_t len);

#endif
