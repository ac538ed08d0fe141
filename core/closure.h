/* SPDX-License-Identifier: MIT */
/*
 * closure: functions and the globals they reach, for the encoder; functions
 * from their code, for the decoder. See marshal.h for the rules.
 */
#ifndef PP_CLOSURE_H
#define PP_CLOSURE_H

#include "marshal.h"

/* Append the lead of the Lua function on top and open its frame (1). In a
 * submitter notes what globals it reaches. */
int pp_put_function(pp_enc *e);

/* Append the bindings of the globals and patches reached, if any. How many. */
int pp_put_bindings(pp_enc *e);

/* Push the function whose lead byte has been read, upvalues yet unset; how
 * many those are, or an error with a message pushed. */
int pp_get_function(pp_dec *d, unsigned lead);

#endif
