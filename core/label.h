/* SPDX-License-Identifier: MIT */
/*
 * label: what the function of a job is called by those who show jobs: the file
 * and line it is from and, where that line of that file says so, its name.
 *
 * Each is found once and kept; all code from one line has one label. Belongs to
 * the engine's lock.
 */
#ifndef PP_LABEL_H
#define PP_LABEL_H

#include <stddef.h>
#include <stdint.h>

#include "hash.h"

struct pp_job;

typedef struct pp_label {
  char *name;  /* "sum_primes", or as place, without directories */
  char *place; /* "/home/me/primes.lua:12"; "": it has none */
} pp_label;

/* No more labels than this: what comes later shares one, "other functions". */
#define PP_LABELS_MAX 20000u
#define PP_LABEL_CODES 1024u  /* a power of two */
#define PP_LABEL_SLOTS 65536u /* as well, and more than labels */

/* Zeroed is empty. */
typedef struct pp_labels {
  pp_label *other, *library; /* of no place; or NULL */
  pp_label **slots;          /* PP_LABEL_SLOTS, by hash of the place; or NULL */
  uint32_t n;
  struct {
    pp_hash hash;          /* of the code */
    const pp_label *label; /* NULL: free */
  } codes[PP_LABEL_CODES]; /* those seen last */
} pp_labels;

/* The label of the function of a job that has it still; lives as long as l.
 * NULL without memory. */
const pp_label *pp_label_of(pp_labels *l, const struct pp_job *j);
void pp_labels_clear(pp_labels *l);

#endif
