/* SPDX-License-Identifier: MIT */
#include "job.h"

#include <stddef.h>
#include <stdlib.h>

void pp_jobs_push(pp_jobs *l, pp_job *j) {
  j->next = NULL;
  j->prev = l->tail;
  if (l->tail != NULL)
    l->tail->next = j;
  else
    l->head = j;
  l->tail = j;
  l->n++;
}

void pp_jobs_front(pp_jobs *l, pp_job *j) {
  j->prev = NULL;
  j->next = l->head;
  if (l->head != NULL)
    l->head->prev = j;
  else
    l->tail = j;
  l->head = j;
  l->n++;
}

void pp_jobs_after(pp_jobs *l, pp_job *at, pp_job *j) {
  if (at == NULL) {
    pp_jobs_front(l, j);
  } else if (at == l->tail) {
    pp_jobs_push(l, j);
  } else {
    j->prev = at;
    j->next = at->next;
    at->next->prev = j;
    at->next = j;
    l->n++;
  }
}

void pp_jobs_remove(pp_jobs *l, pp_job *j) {
  if (j->prev != NULL)
    j->prev->next = j->next;
  else
    l->head = j->next;
  if (j->next != NULL)
    j->next->prev = j->prev;
  else
    l->tail = j->prev;
  j->prev = j->next = NULL;
  l->n--;
}

pp_job *pp_jobs_pop(pp_jobs *l) {
  pp_job *j = l->head;

  if (j != NULL)
    pp_jobs_remove(l, j);
  return j;
}

static void free_job(pp_job *j) {
  if (j->pooled)
    pp_pool_put(j);
  else
    free(j);
}

/* Bodies longer than this live apart and go as soon as the job has ended. */
#define SMALL_MAX 192u
/* The room of the others, for short results. */
#define SMALL_MIN 24u

pp_job *pp_job_new_in(pp_pool *pool, size_t len) {
  size_t head = offsetof(pp_job, small), size;
  pp_job *j;

  size = head + (len > SMALL_MAX ? SMALL_MIN : len);
  size = (size + PP_POOL_STEP - 1) / PP_POOL_STEP * PP_POOL_STEP;
  if (size < sizeof *j)
    size = sizeof *j;
  j = pool != NULL ? pp_pool_get(pool, size) : malloc(size);
  if (j == NULL)
    return NULL;
  memset(j, 0, sizeof *j);
  j->pooled = pool != NULL;
  j->small_cap = (uint8_t)(size - head);
  j->body = j->small;
  if (len > SMALL_MAX) {
    j->body = malloc(len);
    if (j->body == NULL) {
      free_job(j);
      return NULL;
    }
  }
  j->body_len = len;
  j->refs = 1;
  j->state = PP_JOB_QUEUED;
  return j;
}

pp_more *pp_job_more(pp_job *j) {
  if (j->more == NULL)
    j->more = calloc(1, sizeof *j->more);
  return j->more;
}

int pp_job_give_deps(pp_job *j, pp_blob **deps, size_t n) {
  if (n == 0) {
    free(deps);
    return 0;
  }
  if (pp_job_more(j) == NULL)
    return PP_ENOMEM;
  j->more->deps = deps;
  j->more->ndeps = (uint32_t)n;
  return 0;
}

void pp_job_head(const pp_job *j, unsigned char *p) {
  const pp_more *more = j->more;
  uint32_t ndeps = pp_job_ndeps(j);

  pp_frame_head(p, PP_F_JOB | (more != NULL && more->afar ? PP_F_AFAR : 0),
                pp_job_frame_len(j) - PP_FRAME_HEAD);
  p += PP_FRAME_HEAD;
  pp_put32(p + PP_JOB_SEQ, j->seq);
  pp_put32(p + PP_JOB_FN, j->fn->id);
  pp_put32(p + PP_JOB_ATTEMPT, j->attempts + 1);
  pp_put32(p + PP_JOB_FLAGS, j->wire);
  pp_put64(p + PP_JOB_ID, j->id);
  pp_put32(p + PP_JOB_NDEPS, ndeps);
  pp_put32(p + PP_JOB_EXTRA, more != NULL ? more->mods : 0);
  pp_put32(p + PP_JOB_SETTING, j->setting != NULL ? j->setting->id + 1 : 0);
  pp_put32(p + PP_JOB_MOST, more != NULL ? more->most : 0);
  pp_put64(p + PP_JOB_MEMORY, more != NULL ? more->memory : 0);
  pp_put64(p + PP_JOB_SEED, more != NULL ? more->seed : 0);
  pp_put64(p + PP_JOB_INDEX, more != NULL ? more->index : 0);
  for (uint32_t i = 0; i < ndeps; i++)
    pp_put32(p + PP_JOB_HEAD + 4 * (size_t)i, more->deps[i]->id);
}

/* Does the job need this blob until its result is read? */
static bool has_code(const pp_blob *b) { return !b->values || b->codes; }

/* In place of a parcel that needs values, the code it refers to. */
static void keep_code(pp_job *j, pp_blobs *blobs) {
  const pp_blob *fn = j->fn;
  uint32_t n = 0;
  pp_more *more;
  pp_blob **v;

  if (fn == NULL || !fn->values || (more = pp_job_more(j)) == NULL)
    return;
  v = realloc(more->deps, (more->ndeps + (size_t)fn->ndeps + 1) * sizeof *v);
  if (v == NULL)
    return; /* it keeps all */
  more->deps = v;
  for (uint32_t i = 0; i < fn->ndeps; i++)
    if (fn->deps[i] != NULL && has_code(fn->deps[i]))
      v[more->ndeps + n++] = pp_blob_ref(fn->deps[i]);
  more->ndeps += n;
  pp_blob_unref(blobs, j->fn);
  j->fn = NULL;
}

static void drop_body(pp_job *j) {
  if (j->body != j->small)
    free(j->body);
  j->body = NULL;
}

void pp_job_shed(pp_job *j, pp_blobs *blobs) {
  drop_body(j);
  if (j->more != NULL) {
    pp_cargo_unref(j->more->args);
    pp_cargo_unref(j->more->tail);
    j->more->args = j->more->tail = NULL;
  }
  for (uint32_t i = 0, n = pp_job_ndeps(j); i < n; i++) {
    pp_blob **b = &j->more->deps[i];

    if (*b != NULL && !has_code(*b)) {
      pp_blob_unref(blobs, *b);
      *b = NULL;
    }
  }
  keep_code(j, blobs);
}

void pp_job_done_with(pp_job *j, pp_blobs *blobs) {
  pp_more *more = j->more;

  pp_blob_unref(blobs, j->fn);
  pp_blob_unref(blobs, j->setting);
  j->fn = j->setting = NULL;
  if (more == NULL)
    return;
  for (uint32_t i = 0; i < more->ndeps; i++)
    pp_blob_unref(blobs, more->deps[i]);
  free(more->deps);
  more->deps = NULL;
  more->ndeps = 0;
}

void pp_job_clear_result(pp_job *j) {
  const pp_promise *p = pp_job_promise(j);
  bool borrowed =
      pp_job_cause(j) != NULL || (p != NULL && p->value->bytes == j->result);

  if (pp_job_load(j) != NULL) {
    pp_cargo_unref(j->more->load);
    j->more->load = NULL;
  } else if (j->result != j->small && !borrowed) {
    free(j->result);
  }
  j->result = NULL;
  j->result_len = 0;
}

void pp_job_give_result(pp_job *j, unsigned char *bytes, size_t len) {
  pp_job_clear_result(j);
  j->result = bytes;
  j->result_len = len;
}

int pp_job_give_load(pp_job *j, pp_cargo *load) {
  pp_job_clear_result(j);
  if (pp_job_more(j) == NULL) {
    pp_cargo_unref(load);
    return PP_ENOMEM;
  }
  j->more->load = load;
  j->result = (unsigned char *)(uintptr_t)load->p; /* only read */
  j->result_len = load->len;
  return 0;
}

int pp_job_give_args(pp_job *j, pp_cargo *args) {
  if (pp_job_more(j) == NULL || (j->body == NULL && args != NULL)) {
    pp_cargo_unref(args);
    return PP_ENOMEM;
  }
  j->more->args = args;
  j->more->afar = args != NULL;
  return 0;
}

/* It goes, and its promise, which others refer to, failed with it: that is to
 * know the error by itself. */
static void bequeath(const pp_job *j) {
  pp_blob *b = j->more->promise->value;
  unsigned char *bytes;

  if (b->state != PP_BLOB_FAILED || b->len > 0 || b->refs < 2 ||
      j->result_len == 0 || (bytes = malloc(j->result_len)) == NULL)
    return;
  memcpy(bytes, j->result, j->result_len);
  (void)pp_blob_fill(b, PP_BLOB_FAILED, bytes, j->result_len, NULL, NULL, 0);
}

/* One reference less: a job that has no more goes to the list. */
static void unref(pp_job *j, pp_job **dead) {
  if (j == NULL || --j->refs > 0)
    return;
  j->next = *dead;
  *dead = j;
}

static void free_more(pp_more *more, pp_job **dead, pp_blobs *blobs) {
  pp_promise *p = more->promise;

  if (p != NULL) {
    for (uint32_t i = 0; i < p->n; i++)
      unref(p->waiters[i], dead);
    free(p->waiters);
    p->value->job = NULL;
    p->value->home = false;
    pp_blob_unref(blobs, p->value);
    free(p);
  }
  unref(more->cause, dead);
  if (more->output != NULL) {
    pp_buf_clear(&more->output[0]);
    pp_buf_clear(&more->output[1]);
    free(more->output);
  }
  free(more->name);
  free(more->kin);
  free(more);
}

void pp_job_unref(pp_job *j, pp_blobs *blobs) {
  pp_job *dead = NULL;

  /* Jobs that wait for jobs make long chains: no recursion. */
  for (unref(j, &dead); (j = dead) != NULL;) {
    dead = j->next;
    pp_job_shed(j, blobs);
    pp_job_done_with(j, blobs);
    if (pp_job_promise(j) != NULL)
      bequeath(j);
    pp_job_clear_result(j);
    pp_group_unref(j->group);
    if (j->more != NULL)
      free_more(j->more, &dead, blobs);
    free_job(j);
  }
}

pp_buf *pp_job_output(pp_job *j, int which) {
  pp_more *more = pp_job_more(j);

  if (more != NULL && more->output == NULL)
    more->output = calloc(2, sizeof *more->output);
  return more != NULL && more->output != NULL ? &more->output[which] : NULL;
}

int pp_job_store(pp_job *j, const void *bytes, size_t len) {
  unsigned char *p = NULL;

  if (j->body != j->small && len <= j->small_cap)
    p = j->small;
  else if ((p = malloc(len ? len : 1)) == NULL)
    return PP_ENOMEM;
  memcpy(p, bytes, len);
  pp_job_give_result(j, p, len);
  return 0;
}

int pp_job_finish(pp_job *j, const void *bytes, size_t len) {
  if (pp_job_promise(j) == NULL)
    drop_body(j);
  return pp_job_store(j, bytes, len);
}
