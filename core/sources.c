/* SPDX-License-Identifier: MIT */
#include "sources.h"

#include <stdlib.h>

#include "message.h"

/* After so many tables that did not go out with the job, no more are looked
 * for. */
#define MISSING_MAX 100u

static int add(pp_buf *out, pp_blob *b) {
  return pp_buf_put(out, &b, sizeof b);
}

static pp_blob *nth(const pp_buf *list, size_t i) {
  pp_blob *b;

  memcpy(&b, list->data + i * sizeof b, sizeof b);
  return b;
}

/* Did the table with that id go out in this message? */
static bool defines(const void *bytes, size_t len, uint64_t id) {
  pp_names names;

  if (pp_message_names(bytes, len, &names) != 0)
    return false;
  for (size_t i = 0; i < names.nids; i++)
    if (pp_message_id(&names, i) == id)
      return true;
  return false;
}

/* A message to find tables in: it refers to code as it did, but to no value,
 * or else results would hold those they came from, and those theirs. name: of
 * what it is a copy, or NULL. A new reference. */
static pp_blob *code_only(pp_engine *e, const pp_hash *name, const void *bytes,
                          size_t len, pp_blob *const *deps, size_t n) {
  pp_blob **v = malloc((n + 1) * sizeof *v), *b;

  if (v == NULL)
    return NULL;
  for (size_t i = 0; i < n; i++)
    v[i] = deps[i] != NULL && !deps[i]->values ? deps[i] : NULL;
  b = name != NULL
          ? pp_blobs_intern(&e->blobs, PP_BLOB_KEPT, *name, bytes, len, v, n)
          : pp_blobs_value(&e->blobs, PP_BLOB_KEPT, bytes, len, v, n);
  free(v);
  return b;
}

/* What a value that the job was given offers, as a new reference, or NULL. */
static pp_blob *in_value(pp_engine *e, pp_blob *b, uint64_t id) {
  if (b->kind == PP_BLOB_VALUE)
    return defines(b->bytes, b->len, id) ? pp_blob_ref(b) : NULL;
  for (uint32_t i = 0; i < b->ndeps; i++) {
    pp_blob *d = b->deps[i];

    if (d != NULL && (d->kind == PP_BLOB_KEPT || d->kind == PP_BLOB_PARCEL) &&
        defines(d->bytes, d->len, id))
      return pp_blob_ref(d);
  }
  if (b->repacked && defines(b->bytes, b->len, id))
    return code_only(e, &b->hash, b->bytes, b->len, b->deps, b->ndeps);
  return NULL;
}

static int push(pp_buf *todo, pp_blob *const *deps, size_t n, uint32_t pass) {
  for (size_t i = 0; i < n; i++)
    if (deps[i] != NULL && deps[i]->pass != pass &&
        (deps[i]->kind == PP_BLOB_VALUE || deps[i]->kind == PP_BLOB_RESULT)) {
      deps[i]->pass = pass;
      if (add(todo, deps[i]) != 0)
        return PP_ENOMEM;
    }
  return 0;
}

static pp_blob *in_values(pp_engine *e, const pp_job *j, uint64_t id) {
  uint32_t pass = ++e->blobs.pass;
  pp_buf todo = {0};
  pp_blob *found = NULL;
  int r = push(&todo, j->fn->deps, j->fn->ndeps, pass);

  if (r == 0)
    r = push(&todo, pp_job_deps(j), pp_job_ndeps(j), pass);
  while (r == 0 && found == NULL && todo.len > 0) {
    pp_blob *b;

    todo.len -= sizeof b;
    memcpy(&b, todo.data + todo.len, sizeof b);
    found = in_value(e, b, id);
    r = push(&todo, b->deps, b->ndeps, pass);
  }
  pp_buf_clear(&todo);
  return found;
}

/* The message of the job that the table with that id went out in, as a blob: a
 * new reference, or NULL. */
static pp_blob *source(pp_engine *e, const pp_job *j, uint64_t id) {
  const pp_blob *fn = j->fn;
  const unsigned char *args;
  size_t mods, len;

  if (defines(fn->bytes, fn->len, id))
    return fn->values ? code_only(e, &fn->hash, fn->bytes, fn->len, fn->deps,
                                  fn->ndeps)
                      : pp_blob_ref(j->fn);
  mods = j->more != NULL ? j->more->mods : 0;
  args = pp_job_body(j, &len);
  if (args != NULL && defines(args + mods, len - mods, id))
    return code_only(e, NULL, args + mods, len - mods, pp_job_deps(j),
                     pp_job_ndeps(j));
  return in_values(e, j, id);
}

/* The code that is named, or reached by functions in a source. */
static int add_code(pp_engine *e, const pp_names *names, pp_buf *out) {
  for (size_t i = 0; i < names->nhashes; i++) {
    pp_blob *b =
        pp_blobs_find(&e->blobs, PP_BLOB_CODE, pp_message_hash(names, i));
    bool seen = false;

    for (size_t k = 0; b != NULL && k < out->len / sizeof b && !seen; k++)
      seen = nth(out, k) == b;
    if (b == NULL || seen)
      continue;
    if (add(out, b) != 0)
      return PP_ENOMEM;
    pp_blob_ref(b);
  }
  return 0;
}

int pp_sources_of(pp_engine *e, const pp_job *j, pp_buf *out) {
  pp_names names;
  unsigned missing = 0;

  if (pp_message_names(j->result, j->result_len, &names) != 0 ||
      add_code(e, &names, out) != 0)
    return 0;
  for (size_t i = 0; i < names.nids && j->body != NULL && j->fn != NULL; i++) {
    uint64_t id = pp_message_id(&names, i);
    bool seen = false;
    pp_blob *b;

    for (size_t k = 0; k < out->len / sizeof b && !seen; k++) {
      b = nth(out, k);
      seen = b->kind != PP_BLOB_CODE && defines(b->bytes, b->len, id);
    }
    b = seen ? NULL : source(e, j, id);
    if (!seen && b == NULL && ++missing == MISSING_MAX)
      break; /* it makes them up */
    if (b != NULL && add(out, b) != 0) {
      pp_blob_unref(&e->blobs, b);
      return PP_ENOMEM;
    }
  }
  return 0;
}
