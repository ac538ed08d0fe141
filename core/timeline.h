/* SPDX-License-Identifier: MIT */
/*
 * timeline: the record of a run as a file of Chrome trace events (--trace),
 * which Perfetto and chrome://tracing open.
 *
 * A JSON array, one event a line, written as the run goes: hosts are processes,
 * workers their threads, attempts at jobs slices. What lies before and behind a
 * slice (queue, send, return) is in its args, with the rest that is known. What
 * never ran, and what happened to workers and hosts, are instants; how many
 * jobs wait and run, counters; from a job to one it has submitted leads an
 * arrow. Times are microseconds since ppsh began. Only the closing bracket
 * is missing from a run that was killed; readers do without.
 */
#ifndef PP_TIMELINE_H
#define PP_TIMELINE_H

#include "trace.h"

typedef struct pp_timeline pp_timeline;

/* 0; PP_ESYS or PP_ENOMEM after a line on stderr. */
int pp_timeline_open(pp_trace *t, const char *path, pp_timeline **out);
/* Write the rest; frees it. False if something could not be written. */
bool pp_timeline_close(pp_timeline *f);
int pp_timeline_fd(const pp_timeline *f);

void pp_timeline_add(pp_timeline *f, const pp_attempt *a);
void pp_timeline_died(pp_timeline *f, pp_tworker *w, const char *how);
/* A node's state is another; why may be NULL. */
void pp_timeline_node(pp_timeline *f, pp_tnode *n, const char *why);
/* Write what has waited long enough. When to come again. */
int64_t pp_timeline_tick(pp_timeline *f, int64_t now);

#endif
