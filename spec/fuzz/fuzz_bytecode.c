/* SPDX-License-Identifier: MIT */
/*
 * Any bytes at the reader of dumps. Nothing is ever loaded.
 */
#include <stdint.h>
#include <stdlib.h>

#include "bytecode.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct seen {
  uint32_t protos;
  size_t bytes;
} seen;

static int count(void *ud, const pp_bc_proto *p) {
  seen *s = ud;

  s->protos++;
  s->bytes += p->source.n + p->nups + (p->len > 0 ? p->body[p->len - 1] : 0u);
  return 0;
}

static int use(void *ud, const pp_bc_use *u) {
  seen *s = ud;

  s->bytes += u->name.n + u->field.n + u->up;
  if (u->name.p != NULL && u->name.n > 0)
    s->bytes += (unsigned char)u->name.p[u->name.n - 1];
  return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  seen s = {0, 0};
  pp_buf scratch = {0}, cut = {0};
  uint32_t i;
  int valid = pp_bc_protos(data, size, count, &s) == 0;

  if ((pp_bc_uses(data, size, &scratch, use, &s) == 0) != valid)
    abort();
  for (i = 0; valid && i < s.protos && i < 50; i++) {
    seen again = {0, 0};

    cut.len = 0;
    if (pp_bc_cut(data, size, i, &cut) < 0 ||
        pp_bc_protos(cut.data, cut.len, count, &again) != 0)
      abort();
    if (i == 0 && again.protos != s.protos)
      abort();
  }
  if (valid && pp_bc_cut(data, size, s.protos, &cut) == 0)
    abort();
  pp_buf_clear(&scratch);
  pp_buf_clear(&cut);
  return 0;
}

#ifdef PP_FUZZ_REPLAY
#include "fuzz_replay.h"
#endif
