/* SPDX-License-Identifier: MIT */
#include "specerror.h"

#include <stdio.h>

enum { AROUND = 56 }; /* bytes shown on either side */

static bool goes_on(char c) { return ((unsigned char)c & 0xc0) == 0x80; }

/* Copy bytes that can be shown, others as '?'. Returns how many places they
 * take on a terminal, if each character takes one. */
static size_t put_shown(char *out, size_t size, const char *p, size_t n) {
  size_t len = 0, columns = 0;

  for (size_t i = 0; i < n && len + 1 < size; i++) {
    out[len++] = (unsigned char)p[i] >= ' ' && p[i] != 0x7f ? p[i] : '?';
    columns += !goes_on(p[i]);
  }
  if (size > 0)
    out[len] = '\0';
  return columns;
}

void pp_host_error_set(pp_host_error *e, const char *text, size_t len,
                       size_t at, const char *file, unsigned line,
                       const char *why) {
  size_t from = at > AROUND ? at - AROUND : 0;
  size_t to = len - at > AROUND ? at + AROUND : len;
  char shown[3 * AROUND], before[2 * AROUND];
  size_t columns;

  /* Not through the middle of a character; it has four bytes at most. */
  for (int i = 0; i < 3 && from > 0 && goes_on(text[from]); i++)
    from--;
  for (int i = 0; i < 3 && to < len && goes_on(text[to]); i++)
    to++;
  e->column = 1;
  for (size_t i = 0; i < at; i++)
    e->column += !goes_on(text[i]);
  put_shown(shown, sizeof shown, text + from, to - from);
  columns = put_shown(before, sizeof before, text + from, at - from);
  if (file != NULL)
    snprintf(e->message, sizeof e->message, "%.200s:%u:%zu: %s", file, line,
             e->column, why);
  else
    snprintf(e->message, sizeof e->message,
             "bad hosts '%s%s%s': %s (character %zu)", from > 0 ? "..." : "",
             shown, to < len ? "..." : "", why, e->column);
  snprintf(e->caret, sizeof e->caret, "%s%s%s\n%*s^", from > 0 ? "..." : "",
           shown, to < len ? "..." : "", (int)(columns + (from > 0 ? 3 : 0)),
           "");
}
