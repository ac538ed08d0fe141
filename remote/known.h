/* SPDX-License-Identifier: MIT */
/* known: what hostkey.c and trust.c share. */
#ifndef PP_KNOWN_H
#define PP_KNOWN_H

#include "hostkey.h"

/* Is it a public key, whole and of a type known here? */
bool pp_hostkey_is_key(const void *blob, size_t len);

/* Append the name a host's key stands under: "host", "[host]:2222", or its
 * alias, in lower case. 0 or PP_ENOMEM. */
int pp_hostkey_name(const pp_hostkey_query *q, pp_buf *out);

#endif
