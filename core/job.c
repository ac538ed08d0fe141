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

void pp_job_shed(pp_job *j) {
  if (j->frame != j->small)
    free(j->frame);
  j->frame = NULL;
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

void pp_job_unref(pp_job *j, pp_blobs *blobs) {
  if (j == NULL || --j->refs > 0)
    return;
  pp_job_shed(j);
  pp_job_done_with(j, blobs);
  if (j->result != j->small)
    free(j->result);
  if (j->output != NULL) {
    pp_buf_clear(&j->output[0]);
    pp_buf_clear(&j->output[1]);
    free(j->output);
  }
  free(j->name);
  free(j->kin);
  free(j);
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
  if (j->result != j->small)
    free(j->result);
  j->result = p;
  j->result_len = len;
  return 0;
}
