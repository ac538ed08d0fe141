/* SPDX-License-Identifier: MIT */
/* How codecs keep blobs with an engine. */
#include "engine.h"

static pp_blob *hook_intern(void *ud, int kind, pp_hash hash, const void *bytes,
                            size_t len, pp_blob *const *deps, size_t ndeps) {
  pp_engine *e = ud;
  pp_blob *b;

  pp_engine_enter(e);
  b = pp_blobs_intern(&e->blobs, kind, hash, bytes, len, deps, ndeps);
  pp_engine_leave(e);
  return b;
}

static pp_blob *hook_retain(void *ud, pp_blob *b) {
  pp_engine *e = ud;

  pp_engine_enter(e);
  pp_blob_ref(b);
  pp_engine_leave(e);
  return b;
}

static void hook_release(void *ud, pp_blob *b) {
  pp_engine *e = ud;

  pp_engine_enter(e);
  pp_blob_unref(&e->blobs, b);
  pp_engine_leave(e);
}

static int hook_custom(void *ud, lua_State *L, int idx, pp_custom *out) {
  pp_engine *e = ud;

  return e->custom != NULL ? e->custom(e, L, idx, out) : 0;
}

static const unsigned char *hook_code(void *ud, pp_hash hash, size_t *len) {
  pp_engine *e = ud;
  const pp_blob *b;

  pp_engine_enter(e);
  b = pp_blobs_find(&e->blobs, PP_BLOB_CODE, hash);
  pp_engine_leave(e);
  if (b == NULL)
    return NULL;
  *len = b->len;
  return b->bytes;
}

pp_codec_hooks pp_engine_hooks(pp_engine *e) {
  return (pp_codec_hooks){.intern = hook_intern,
                          .retain = hook_retain,
                          .release = hook_release,
                          .code = hook_code,
                          .custom = hook_custom,
                          .ud = e};
}
