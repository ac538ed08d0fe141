/* SPDX-License-Identifier: MIT */
/* expand: ~, %tokens and ${VARIABLES} in values of ssh's configuration. */
#ifndef PP_EXPAND_H
#define PP_EXPAND_H

#include <stdbool.h>

#include "buf.h"
#include "config.h"

/* The value of an environment variable, or NULL. */
const char *pp_local_var(const pp_local *l, const char *name, size_t n);

/*
 * Append a path with everything expanded and a zero byte. 0; PP_EBAD when
 * there is a token or variable that is not known (its name in why, of 64 bytes
 * or more); PP_ENOMEM. out is as it was on failure.
 */
int pp_expand_path(pp_buf *out, const char *value, const pp_target *t,
                   const pp_local *l, char *why, size_t size);

/* The same for a command: %tokens only, the shell does the rest. */
int pp_expand_command(pp_buf *out, const char *value, const pp_target *t,
                      const pp_local *l, char *why, size_t size);

#endif
