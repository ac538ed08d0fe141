/* SPDX-License-Identifier: MIT */
/*
 * text: numbers and strings appended as JSON has them. Without memory they
 * append nothing.
 */
#ifndef PP_TEXT_H
#define PP_TEXT_H

#include "buf.h"

/* A string in quotes. What is no UTF-8 becomes U+FFFD; beyond `most` bytes it
 * is cut, with an ellipsis. */
void pp_text_json(pp_buf *out, const char *s, size_t n, size_t most);
void pp_text_number(pp_buf *out, uint64_t v);
/* Nanoseconds as microseconds: "12.345"; less than none is none. */
void pp_text_micros(pp_buf *out, int64_t ns);
/* How many bytes the UTF-8 character at p has; 0: that is none. n > 0. */
size_t pp_text_utf8(const char *p, size_t n);

#endif
