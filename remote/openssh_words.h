/* SPDX-License-Identifier: MIT */
/* What the ssh program says when it fails, and what that means. Its messages
 * are in English wherever it runs. */
#ifndef PP_OPENSSH_WORDS_H
#define PP_OPENSSH_WORDS_H

#include <stdbool.h>

#include "stream.h"

bool pp_openssh_begins(const char *s, const char *with);

/* Is the line one that ssh says for itself while a command runs? */
bool pp_openssh_own_words(const char *line);

/* Which failure the line tells of. proxied: there is something between that may
 * close the connection. */
pp_end pp_openssh_kind(const char *reason, bool proxied);

#endif
