/* SPDX-License-Identifier: MIT */
#include "wild.h"

char pp_lower(char c) {
  return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

/* The last * seen is the only one that ever needs to take back what it let
 * others have. */
bool pp_wild_match(const char *p, size_t np, const char *s, size_t ns,
                   bool lower) {
  const char *pe = p + np, *se = s + ns, *star = NULL, *from = NULL;

  while (s < se) {
    if (p < pe && *p == '*') {
      star = ++p;
      from = s;
    } else if (p < pe && (*p == '?' || (lower ? pp_lower(*p) : *p) == *s)) {
      p++, s++;
    } else if (star != NULL) {
      p = star;
      s = ++from;
    } else {
      return false;
    }
  }
  while (p < pe && *p == '*')
    p++;
  return p == pe;
}
