/* SPDX-License-Identifier: MIT */
/*
 * group: jobs of one name, and how many of them are unfinished. A group lives
 * as long as it has jobs, and is found by its name at a cost that does not
 * depend on how many groups there are.
 */
#ifndef PP_GROUP_H
#define PP_GROUP_H

#include <stddef.h>
#include <stdint.h>

struct pp_groups;

/* Counted: each of its jobs has a reference. */
typedef struct pp_group {
  struct pp_group *next; /* in its set's table */
  struct pp_groups *set; /* NULL: that is gone */
  size_t pending, refs, len;
  uint64_t hash;
  char name[];
} pp_group;

/* Those of a server; zeroed is empty. */
typedef struct pp_groups {
  pp_group **table; /* owned */
  size_t cap, n;    /* cap: 0 or a power of two */
  pp_group *last;   /* that was asked for; NULL: it is gone */
} pp_groups;

/* The group of this name, or NULL. */
pp_group *pp_groups_find(const pp_groups *s, const char *name, size_t len);
/* A reference to it, made if need be; NULL without memory. */
pp_group *pp_groups_get(pp_groups *s, const char *name, size_t len);
void pp_group_unref(pp_group *g); /* g may be NULL */
/* The set goes; its groups stay with their jobs. */
void pp_groups_clear(pp_groups *s);

#endif
