/* SPDX-License-Identifier: MIT */
/* wild: the patterns of ssh's files, * for any bytes and ? for one. */
#ifndef PP_WILD_H
#define PP_WILD_H

#include <stdbool.h>
#include <stddef.h>

/* Does the pattern match all of s? With lower, capitals of the pattern (not of
 * s) stand for small letters. Takes np * ns steps at most. */
bool pp_wild_match(const char *p, size_t np, const char *s, size_t ns,
                   bool lower);

/* A to a. */
char pp_lower(char c);

#endif
