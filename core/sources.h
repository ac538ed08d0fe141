/* SPDX-License-Identifier: MIT */
/*
 * sources: what must go along with results that are passed on as they came.
 *
 * Results name code by hash and metatables by id, since their submitter has
 * both. Another worker may have neither: it is given the code, and whatever
 * message the tables went out in.
 */
#ifndef PP_SOURCES_H
#define PP_SOURCES_H

#include "engine.h"
#include "job.h"

/* Append references to the blobs that the results of j, which still has all it
 * was submitted with, are to depend on. What is not found is left out: whoever
 * opens them says so. PP_ENOMEM. */
int pp_sources_of(pp_engine *e, const pp_job *j, pp_buf *out);

#endif
