/* SPDX-License-Identifier: MIT */
/*
 * codeinfo: what is known of the code of functions: in a submitter the names
 * it reaches, found once for each content hash; in a worker which prototypes
 * it was given, to tell where a function in a result comes from.
 */
#ifndef PP_CODEINFO_H
#define PP_CODEINFO_H

#include "marshal.h"

/* Dump the function on top into the scratch: 0 or PP_ENOMEM. */
int pp_dump(pp_enc *e);

/* Push the pp_codeinfo of the function on top. May raise. */
int pp_codeinfo_push(pp_enc *e, pp_codeinfo **out);

/* The prototype of that canonical hash among those the worker was given, or
 * NULL. Valid until the next pp_know_code. */
const pp_known *pp_known_find(const pp_codec *c, pp_hash canon);

/* Remember the prototypes of these blobs. Does not touch Lua. 0, PP_ENOMEM or
 * PP_EBAD for bytes that are no code. */
int pp_know_code(pp_codec *c, const pp_code *codes, size_t n);

#endif
