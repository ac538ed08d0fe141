/* SPDX-License-Identifier: MIT */
#include "target.h"

#include <stdlib.h>
#include <string.h>

#include "buf.h"

int pp_strings_add(pp_strings *s, const char *p, size_t n) {
  char *copy, **v;

  copy = pp_buf_realloc(NULL, n + 1);
  if (copy == NULL)
    return PP_ENOMEM;
  v = pp_buf_realloc(s->v, (s->n + 1) * sizeof *v);
  if (v == NULL) {
    pp_buf_realloc(copy, 0);
    return PP_ENOMEM;
  }
  if (n > 0)
    memcpy(copy, p, n);
  copy[n] = '\0';
  s->v = v;
  v[s->n++] = copy;
  return 0;
}

void pp_strings_clear(pp_strings *s) {
  for (size_t i = 0; i < s->n; i++)
    pp_buf_realloc(s->v[i], 0);
  pp_buf_realloc(s->v, 0);
  *s = (pp_strings){0};
}

void pp_target_free(pp_target *t) {
  while (t != NULL) {
    pp_target *via = t->via;
    char *strings[] = {
        t->name,
        t->alias,
        t->given_user,
        t->config_file,
        t->host,
        t->user,
        t->bind_address,
        t->proxy_command,
        t->host_key_alias,
        t->agent,
        t->preferred_auths,
        t->kex,
        t->ciphers,
        t->macs,
        t->hostkey_algorithms,
        t->pubkey_algorithms,
        t->needs_ssh,
        t->may_need_ssh,
        t->ssh_program,
        t->jump,
    };

    for (size_t i = 0; i < sizeof strings / sizeof *strings; i++)
      pp_buf_realloc(strings[i], 0);
    pp_strings_clear(&t->known_hosts);
    pp_strings_clear(&t->identities);
    pp_strings_clear(&t->env);
    pp_strings_clear(&t->undo);
    pp_buf_realloc(t, 0);
    t = via;
  }
}
