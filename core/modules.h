/* SPDX-License-Identifier: MIT */
/*
 * modules: the source of the script's Lua modules, found as require finds them
 * and kept while the file is the same. No Lua.
 *
 * Belongs to the engine's lock.
 */
#ifndef PP_MODULES_H
#define PP_MODULES_H

#include <stdbool.h>
#include <stdint.h>

#include "buf.h"
#include "hash.h"

/* A file as it was read. Counted. */
typedef struct pp_source {
  struct pp_source *next;
  uint32_t refs;
  char *file; /* as the path has it */
  uint64_t device, inode;
  int64_t changed; /* ns; content and attributes */
  pp_hash hash;    /* of the content */
  size_t len;
  unsigned char bytes[];
} pp_source;

/* Zeroed is empty. */
typedef struct pp_modules {
  pp_source *kept; /* references */
} pp_modules;

void pp_modules_clear(pp_modules *m);

/*
 * Look for a module by name along a package.path (templates, `;` between), from
 * this process's directory. 1: *out is a new reference; 0: there is none, and
 * `tried` has a line "no file 'name'" for each file tried; PP_EBAD: there is
 * one, but it cannot be read, and `tried` says why; PP_ENOMEM.
 */
int pp_modules_find(pp_modules *m, const char *path, size_t path_len,
                    const char *name, size_t name_len, pp_source **out,
                    pp_buf *tried);

void pp_source_unref(pp_source *s); /* may be NULL */

#endif
