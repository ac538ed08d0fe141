/* SPDX-License-Identifier: MIT */
/* The half of host.h that expands nothing. */
#include <stdio.h>

#include "host.h"
#include "spec.h"
#include "specerror.h"

struct pp_nodeset {
  pp_spec spec;
  char text[]; /* what the spec borrows from */
};

int pp_nodeset_new(pp_nodeset **out, const char *text, size_t len,
                   pp_host_error *e) {
  const pp_term *wrong = NULL;
  const char *why = NULL;
  pp_spec_error se = {0};
  pp_nodeset *s;
  int r;

  *e = (pp_host_error){0};
  s = pp_buf_realloc(NULL, sizeof *s + len + 1);
  if (s == NULL)
    return PP_ENOMEM;
  memcpy(s->text, text, len);
  s->text[len] = '\0';
  r = pp_spec_parse(&s->spec, s->text, len, &se);
  for (size_t i = 0; r == 0 && wrong == NULL && i < s->spec.nterms; i++) {
    const pp_term *t = &s->spec.terms[i];

    why = t->file != NULL      ? "a file cannot stand here"
          : t->user != NULL    ? "a node is named without a user"
          : t->workers > 0     ? "a node is named without workers"
          : i == 0 && t->minus ? "there is nothing to take this from"
                               : NULL;
    wrong = why != NULL ? t : NULL;
  }
  if (wrong != NULL) {
    r = PP_EBAD;
    se.at = wrong->workers > 0 && wrong->user == NULL ? wrong->workers_at
                                                      : wrong->at;
    snprintf(se.why, sizeof se.why, "%s", why);
  }
  if (r == PP_EBAD || r == PP_ELIMIT)
    pp_host_error_set(e, text, len, se.at, NULL, 0, se.why);
  if (r < 0)
    pp_nodeset_free(s);
  else
    *out = s;
  return r;
}

bool pp_nodeset_has(const pp_nodeset *s, const char *name, size_t n) {
  bool is_in = false;

  for (size_t i = 0; i < s->spec.nterms; i++) {
    const pp_term *t = &s->spec.terms[i];

    if (is_in == t->minus && pp_spec_match(&s->spec, t, name, n))
      is_in = !is_in;
  }
  return is_in;
}

void pp_nodeset_free(pp_nodeset *s) {
  if (s == NULL)
    return;
  pp_spec_clear(&s->spec);
  pp_buf_realloc(s, 0);
}
