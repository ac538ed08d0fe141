/* SPDX-License-Identifier: MIT */
/*
 * known_hosts files: a key that a line names is known by it, whatever the
 * other lines are. The input is read as a key file too.
 */
#include <stdlib.h>

#include "hostkey.h"
#include "identity.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(int e) {
  if (!e)
    abort();
}

static void look(const char *text, size_t size, const pp_hostkey_query *q) {
  pp_hostkeys k = {0};
  pp_hostkey_found f;
  char out[256];
  size_t n;

  check(pp_hostkeys_parse(&k, q, "kh", text, size) == 0);
  n = pp_hostkeys_types(&k, out, sizeof out);
  check((n == 0) == (out[0] == '\0'));
  for (size_t i = 0; i < k.n; i++) {
    const pp_hostkey_line *l = &k.v[i];
    const pp_target t = {.strict = PP_STRICT_ASK};
    pp_hostkey_decision d;

    check(l->line > 0 && l->file == 0 && l->len > 4);
    pp_hostkeys_check(&k, l->blob, l->len, &f);
    check(l->marker != PP_MARK_REVOKED || f.verdict == PP_HOSTKEY_REVOKED);
    if (l->marker == PP_MARK_NONE && !l->portless)
      check(f.verdict == PP_HOSTKEY_OK || f.verdict == PP_HOSTKEY_REVOKED);
    d = pp_hostkey_decide(&f, &t, false, l->blob, l->len, out, sizeof out);
    check((d == PP_HOSTKEY_ACCEPT) == (f.verdict == PP_HOSTKEY_OK));
    check((d == PP_HOSTKEY_ACCEPT) == (out[0] == '\0'));
  }
  pp_hostkeys_clear(&k);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const pp_hostkey_query near = {"host", 22, NULL}, far = {"host", 2222, NULL};
  const pp_hostkey_query alias = {"x", 1, "host"};
  const char *text = size > 0 ? (const char *)data : "";
  pp_identity id = {0};

  look(text, size, &near);
  look(text, size, &far);
  look(text, size, &alias);
  if (pp_identity_parse(&id, text, size) == 0)
    check(id.exists);
  pp_identity_clear(&id);
  if (pp_identity_parse_public(&id, text, size) == 0)
    check(id.blob.len > 4 && id.type[0] != '\0');
  pp_identity_clear(&id);
  return 0;
}
