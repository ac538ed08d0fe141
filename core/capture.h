/* SPDX-License-Identifier: MIT */
/*
 * capture: what this process lends to a job that runs in it: standard
 * descriptors, directory, locale; and the child processes the job leaves.
 *
 * From begin to end stdin is empty, stdout and stderr are pipes whose other
 * ends are outlets in the event loop, and the engine's own streams lead to
 * where stdout and stderr led before. Several jobs may run between them. A
 * process that a job starts is known by the pipe it inherits, also through one
 * more descriptor than the standard ones; what closes all of these is not
 * found.
 */
#ifndef PP_CAPTURE_H
#define PP_CAPTURE_H

#include "engine.h"

typedef struct pp_capture pp_capture;

/* The script's thread, the lock held. 0, or PP_ENOMEM, PP_ESYS. Does nothing
 * when it has begun already. */
int pp_capture_begin(pp_engine *e);
/* Everything as it was. Does nothing when it has not begun. */
void pp_capture_end(pp_engine *e);
/* A job of s begins: its directory, its kind of output. The lock held. */
void pp_capture_job(pp_engine *e, const pp_server *s);
/* It has ended: kill and reap what it started (looked for only if `run`, its
 * ns, was long enough to start anything). The lock free. */
void pp_capture_reap(pp_engine *e, int64_t run);
/* Pass on what it wrote, or collect it with the job (NULL: drop it), to the
 * last byte. The lock held. */
void pp_capture_settle(pp_engine *e, pp_job *j);
/* A job runs in the midst of j: what j has written is passed on or collected,
 * but for a line that has no end yet, which is put aside; and comes back. The
 * lock held. */
void pp_capture_aside(pp_engine *e, pp_job *j, pp_buf kept[2]);
void pp_capture_back(pp_engine *e, pp_buf kept[2]);
/* Go to the directory of the script: a descriptor to come back by, or -1, then
 * nothing has changed. */
int pp_capture_visit(const pp_engine *e);
void pp_capture_return(int away);
/* Kill what the job that runs has started. Async-signal-safe. */
void pp_capture_kill(const pp_engine *e);

#endif
