/* SPDX-License-Identifier: MIT */
/* specerror: a mistake in a list of hosts, said and pointed at. */
#ifndef PP_SPECERROR_H
#define PP_SPECERROR_H

#include "host.h"

/* Fill *e for byte `at` of a list, which is line `line` of a file if file is
 * not NULL. */
void pp_host_error_set(pp_host_error *e, const char *text, size_t len,
                       size_t at, const char *file, unsigned line,
                       const char *why);

#endif
