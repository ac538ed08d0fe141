/* SPDX-License-Identifier: MIT */
/*
 * crew: which of a server's workers take jobs.
 *
 * As many take jobs as there are to be (ncpus). When a job waits for jobs it
 * has submitted, its worker goes away: another takes its place, one that was
 * spare or a new one, once there is something to do. When the job goes on, its
 * worker is one more than there should be, until some other has nothing to do
 * or ends a job and hands its place over. A worker whose place is taken and
 * that has no job is spare. One that is to retire and whose job waits is held:
 * it has no place, but counts as one more until its job goes on.
 *
 *          waits                 goes on            place free
 *   OPEN ---------> AWAY ------------------> AWAY, extra -------> OPEN
 *     ^               `-- its job has ended --> SPARE
 *     `------- a place is to be taken ------------'
 *
 * No more than PP_AWAY_MAX are away. Beyond that a worker whose job waits
 * keeps its place and serves: what its job waits for, as far as nobody has
 * begun it, runs there, in the midst of that job. Since a job only waits for
 * jobs below it, this comes to an end: whoever serves either finds something
 * below its job that can be begun or waits for somebody who can go on. (Where a
 * worker has no room left for that, it goes away however many are.)
 */
#ifndef PP_CREW_H
#define PP_CREW_H

#include "link.h"

#define PP_AWAY_MAX(ncpus) (4 * (ncpus) + 16)

/* A new worker takes jobs. */
void pp_crew_join(pp_link *l);
/* It takes none any more: it retires or is dead. */
void pp_crew_leave(pp_link *l);
/* Its innermost job begins, or ceases, to wait for children. deep: nothing
 * more can run in its midst. */
void pp_crew_waits(pp_link *l, pp_job *j, bool deep, int64_t now);
void pp_crew_goes_on(pp_link *l, pp_job *j, int64_t now);
/* A job at it ends: call before and after it leaves the place. */
void pp_crew_ends(pp_link *l);
void pp_crew_ended(pp_link *l);
/* Jobs are queued that some job may wait for whose worker serves. */
void pp_crew_serve(pp_node *n);
/* No other worker can be started: those whose jobs wait keep their places and
 * serve. */
void pp_crew_stay(pp_node *n);
/* Are there fewer that take jobs than there should and could be? */
bool pp_crew_missing(const pp_node *n);
/* Let a spare one take jobs; false if there is none. */
bool pp_crew_call(pp_node *n);
/* Spare ones end when nobody has needed them for a while. When to come again,
 * -1 never. */
int64_t pp_crew_tidy(pp_node *n, int64_t now);

#endif
