/* SPDX-License-Identifier: MIT */
/*
 * depend: jobs that wait for jobs. Belongs to the engine's lock. No Lua: what
 * a job gives goes to those that wait for it as the bytes it arrived in, also
 * while the script is busy.
 *
 * What a job is to give is a blob (kind 'r') from the moment another job names
 * it. A job whose function or arguments depend on such a blob, however far
 * down, is BLOCKED until all of them are there; when one fails, it fails with
 * the same error, and so do those that wait for it in turn.
 */
#ifndef PP_DEPEND_H
#define PP_DEPEND_H

#include "server.h"

/* The blob that stands for what j gives, borrowed from j; NULL without memory.
 * It is settled at once if j has ended and its result is still there. */
pp_blob *pp_depend_value(struct pp_engine *e, pp_job *j);
/* The result of an ended job that has given its own away, packed anew: bytes
 * are taken, deps are borrowed. NULL without memory. */
pp_blob *pp_depend_again(struct pp_engine *e, pp_job *j, unsigned char *bytes,
                         size_t len, pp_blob *const *deps, size_t ndeps);

enum { PP_DEPEND_READY, PP_DEPEND_BLOCKED, PP_DEPEND_FAILED };
/* A job that has come to s: if it must wait it is put in the list of blocked
 * ones. FAILED: what it needs has failed, and its error is in place. */
int pp_depend_begin(pp_server *s, pp_job *j);
/* Would it have to wait? Changes nothing. */
bool pp_depend_waits(struct pp_engine *e, pp_job *j);
/* j has ended, and has its result or error: give it to its promise... */
void pp_depend_settle(struct pp_engine *e, pp_job *j);
/* ...and then see to those that waited. cause: the job that failed, or NULL. */
void pp_depend_wake(struct pp_engine *e, pp_promise *waiters, pp_job *cause);
/* The job whose failure this failed job's is. */
static inline pp_job *pp_depend_root(pp_job *j) {
  return pp_job_cause(j) != NULL ? pp_job_cause(j) : j;
}
/* Take a blocked job out of its server's list; it is QUEUED in name. */
void pp_depend_unblock(pp_job *j);

#endif
