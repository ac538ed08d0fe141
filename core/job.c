/* SPDX-License-Identifier: MIT */
#include "job.h"

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

/* Arguments longer than this live apart and go as soon as the job has ended. */
#define SMALL_MAX 192u

pp_job *pp_job_new(size_t len) {
  size_t small = len > SMALL_MAX ? 24 : (len + 7) / 8 * 8;
  pp_job *j = malloc(sizeof *j + small);

  if (j == NULL)
    return NULL;
  memset(j, 0, sizeof *j);
  j->small_cap = (uint32_t)small;
  j->frame = j->small;
  if (len > small) {
    j->frame = malloc(len);
    if (j->frame == NULL) {
      free(j);
      return NULL;
    }
  }
  j->frame_len = len;
  j->refs = 1;
  j->state = PP_JOB_QUEUED;
  return j;
}

void pp_job_address(pp_job *j, uint32_t seq) {
  unsigned char *p = j->frame + PP_FRAME_HEAD;

  j->seq = seq;
  pp_put32(p + PP_JOB_SEQ, seq);
  pp_put32(p + PP_JOB_ATTEMPT, j->attempts + 1);
  pp_put32(p + PP_JOB_FN, j->fn->id);
  pp_put32(p + PP_JOB_SETTING, j->setting != NULL ? j->setting->id + 1 : 0);
  for (uint32_t i = 0; i < j->ndeps; i++)
    pp_put32(p + PP_JOB_HEAD + 4 * (size_t)i, j->deps[i]->id);
}

/* Does the job need this blob until its result is read? */
static bool has_code(const pp_blob *b) { return !b->values || b->codes; }

/* In place of a parcel that needs values, the code it refers to. */
static void keep_code(pp_job *j, pp_blobs *blobs) {
  const pp_blob *fn = j->fn;
  uint32_t n = 0;
  pp_blob **v;

  if (fn == NULL || !fn->values)
    return;
  v = realloc(j->deps, (j->ndeps + (size_t)fn->ndeps + 1) * sizeof *v);
  if (v == NULL)
    return; /* it keeps all */
  j->deps = v;
  for (uint32_t i = 0; i < fn->ndeps; i++)
    if (fn->deps[i] != NULL && has_code(fn->deps[i]))
      v[j->ndeps + n++] = pp_blob_ref(fn->deps[i]);
  j->ndeps += n;
  pp_blob_unref(blobs, j->fn);
  j->fn = NULL;
}

void pp_job_shed(pp_job *j, pp_blobs *blobs) {
  if (j->frame != j->small)
    free(j->frame);
  j->frame = NULL;
  pp_cargo_unref(j->args);
  j->args = NULL;
  for (uint32_t i = 0; i < j->ndeps; i++)
    if (j->deps[i] != NULL && !has_code(j->deps[i])) {
      pp_blob_unref(blobs, j->deps[i]);
      j->deps[i] = NULL;
    }
  keep_code(j, blobs);
}

void pp_job_done_with(pp_job *j, pp_blobs *blobs) {
  pp_blob_unref(blobs, j->fn);
  pp_blob_unref(blobs, j->setting);
  for (uint32_t i = 0; i < j->ndeps; i++)
    pp_blob_unref(blobs, j->deps[i]);
  free(j->deps);
  j->fn = j->setting = NULL;
  j->deps = NULL;
  j->ndeps = 0;
}

void pp_job_clear_result(pp_job *j) {
  bool borrowed = j->cause != NULL ||
                  (j->promise != NULL && j->promise->value->bytes == j->result);

  if (j->load != NULL)
    pp_cargo_unref(j->load);
  else if (j->result != j->small && !borrowed)
    free(j->result);
  j->load = NULL;
  j->result = NULL;
  j->result_len = 0;
}

void pp_job_give_result(pp_job *j, unsigned char *bytes, size_t len) {
  pp_job_clear_result(j);
  j->result = bytes;
  j->result_len = len;
}

void pp_job_give_load(pp_job *j, pp_cargo *load) {
  pp_job_clear_result(j);
  j->load = load;
  j->result = (unsigned char *)(uintptr_t)load->p; /* only read */
  j->result_len = load->len;
}

/* It goes, and its promise, which others refer to, failed with it: that is to
 * know the error by itself. */
static void bequeath(const pp_job *j) {
  pp_blob *b = j->promise->value;
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

void pp_job_unref(pp_job *j, pp_blobs *blobs) {
  pp_job *dead = NULL;

  /* Jobs that wait for jobs make long chains: no recursion. */
  for (unref(j, &dead); (j = dead) != NULL;) {
    dead = j->next;
    pp_job_shed(j, blobs);
    pp_job_done_with(j, blobs);
    if (j->promise != NULL)
      bequeath(j);
    pp_job_clear_result(j);
    if (j->promise != NULL) {
      for (uint32_t i = 0; i < j->promise->n; i++)
        unref(j->promise->waiters[i], &dead);
      free(j->promise->waiters);
      j->promise->value->job = NULL;
      j->promise->value->home = false;
      pp_blob_unref(blobs, j->promise->value);
      free(j->promise);
    }
    unref(j->cause, &dead);
    if (j->output != NULL) {
      pp_buf_clear(&j->output[0]);
      pp_buf_clear(&j->output[1]);
      free(j->output);
    }
    pp_group_unref(j->group);
    free(j->name);
    free(j->kin);
    free(j);
  }
}

pp_buf *pp_job_output(pp_job *j, int which) {
  if (j->output == NULL)
    j->output = calloc(2, sizeof *j->output);
  return j->output != NULL ? &j->output[which] : NULL;
}

int pp_job_store(pp_job *j, const void *bytes, size_t len) {
  unsigned char *p = NULL;

  if (j->frame != j->small && len <= j->small_cap)
    p = j->small;
  else if ((p = malloc(len ? len : 1)) == NULL)
    return PP_ENOMEM;
  memcpy(p, bytes, len);
  pp_job_give_result(j, p, len);
  return 0;
}
