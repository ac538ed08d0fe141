/* SPDX-License-Identifier: MIT */
/*
 * spec: a list of hosts read into terms, nothing of it expanded (see host.h
 * for what may be written). Shared by host.c and nodeset.c.
 *
 * Everything read borrows from the text.
 */
#ifndef PP_SPEC_H
#define PP_SPEC_H

#include "host.h"

enum {
  PP_SPEC_TEXT_MAX = 1 << 20, /* bytes of a list */
  PP_SPEC_DIGITS_MAX = 18     /* of a number in brackets */
};

/* What was wrong, and at which byte of the text. */
typedef struct pp_spec_error {
  size_t at;
  char why[192];
} pp_spec_error;

/* lo, lo + step, ... up to hi. */
typedef struct pp_range {
  uint64_t lo, hi, step;
  size_t width; /* zeros in front up to so many digits; 0: none */
} pp_range;

/* A piece of a name: text as it is, or one number of any of the ranges. */
typedef struct pp_part {
  const char *text;
  size_t len;
  size_t range, nranges; /* in ranges; 0: it is text */
} pp_part;

typedef struct pp_term {
  size_t at;        /* where it begins */
  bool minus;       /* it is taken away */
  const char *file; /* of @FILE, and nothing of what follows; or NULL */
  size_t file_len;
  const char *user; /* NULL: none */
  size_t user_len;
  size_t part, nparts; /* of the name, in parts; the port's come last */
  size_t port_part;    /* how many of them are before the port's digits, and
                          the colon is one of them; 0: no port */
  size_t port_at;      /* where its digits begin */
  bool brackets;       /* the host is an IPv6 address in brackets */
  int workers;         /* 0: none */
  size_t workers_at;
} pp_term;

typedef struct pp_spec {
  pp_term *terms;
  pp_part *parts;
  pp_range *ranges;
  size_t nterms, nparts, nranges;
} pp_spec;

/* 0, or PP_EBAD, PP_ELIMIT with *e filled, or PP_ENOMEM; s is empty then. */
int pp_spec_parse(pp_spec *s, const char *text, size_t len, pp_spec_error *e);
void pp_spec_clear(pp_spec *s);

/* Is this one of the names of a term that is no file? */
bool pp_spec_match(const pp_spec *s, const pp_term *t, const char *name,
                   size_t n);

/* How many names a term has; UINT64_MAX when that or more. */
uint64_t pp_spec_count(const pp_spec *s, const pp_term *t);

#endif
