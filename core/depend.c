/* SPDX-License-Identifier: MIT */
#include "depend.h"

#include "choice.h"

#include <stdlib.h>

#include "engine.h"
#include "sources.h"

/* --- promises ------------------------------------------------------------- */

void pp_depend_settle(pp_engine *e, pp_job *j) {
  pp_blob *b = pp_job_promise(j)->value;
  bool failed = j->state == PP_JOB_FAILED;
  unsigned char *bytes = j->result;
  size_t len = j->result_len;
  pp_buf deps = {0};

  if (b->state != PP_BLOB_PROMISED)
    return;
  if (pp_job_cause(j) != NULL) { /* the bytes are those of another promise */
    b->state = PP_BLOB_FAILED;
    return;
  }
  if (!failed && pp_sources_of(e, j, &deps) != 0)
    failed = true;
  if (bytes == j->small) {
    bytes = malloc(len ? len : 1);
    if (bytes != NULL)
      memcpy(bytes, j->result, len);
    else
      len = 0, failed = true;
  }
  if (bytes == NULL) { /* there was no memory for it */
    b->state = PP_BLOB_FAILED;
  } else {
    pp_blob_fill(b, failed ? PP_BLOB_FAILED : PP_BLOB_THERE, bytes, len,
                 pp_job_load(j), (pp_blob *const *)(void *)deps.data,
                 deps.len / sizeof(pp_blob *));
    j->result = bytes;
  }
  for (size_t at = 0; at < deps.len; at += sizeof b) {
    memcpy(&b, deps.data + at, sizeof b);
    pp_blob_unref(&e->blobs, b);
  }
  pp_buf_clear(&deps);
}

static pp_blob *promise(pp_engine *e, pp_job *j) {
  pp_promise *p = pp_job_promise(j);

  if (p != NULL)
    return p->value;
  if (pp_job_more(j) == NULL)
    return NULL;
  p = calloc(1, sizeof *p);
  if (p == NULL)
    return NULL;
  p->value = pp_blobs_value(&e->blobs, PP_BLOB_RESULT, NULL, 0, NULL, 0);
  if (p->value == NULL) {
    free(p);
    return NULL;
  }
  p->value->job = j;
  p->value->home = true;
  j->more->promise = p;
  return p->value;
}

pp_blob *pp_depend_value(pp_engine *e, pp_job *j) {
  bool is_new = pp_job_promise(j) == NULL;
  pp_blob *b = promise(e, j);

  if (b != NULL && is_new && pp_job_over(j))
    pp_depend_settle(e, j);
  return b;
}

pp_blob *pp_depend_again(pp_engine *e, pp_job *j, unsigned char *bytes,
                         size_t len, pp_blob *const *deps, size_t ndeps) {
  pp_blob *b = promise(e, j);

  if (b == NULL)
    free(bytes);
  else if (pp_blob_fill(b, PP_BLOB_THERE, bytes, len, NULL, deps, ndeps) == 0)
    b->repacked = true;
  return b;
}

/* --- waiting -------------------------------------------------------------- */

static int add_waiter(pp_promise *p, pp_job *j) {
  if (p->n == p->cap) {
    uint32_t cap = p->cap ? p->cap * 2 : 4;
    pp_job **v = realloc(p->waiters, cap * sizeof *v);

    if (v == NULL)
      return PP_ENOMEM;
    p->waiters = v;
    p->cap = cap;
  }
  p->waiters[p->n++] = pp_job_ref(j);
  j->more->waits++;
  return 0;
}

static int push(pp_buf *todo, pp_blob *b, uint32_t pass) {
  if (b == NULL || !b->waits || b->pass == pass)
    return 0;
  b->pass = pass;
  return pp_buf_put(todo, &b, sizeof b);
}

/* Make j (NULL: nobody) a waiter of every promise below what is in todo that is
 * still to come true; *promised: there is one. 0, PP_ENOMEM, or 1 and one that
 * has failed. */
static int walk(pp_job *j, pp_buf *todo, uint32_t pass, pp_blob **failed,
                bool *promised) {
  while (todo->len > 0) {
    pp_blob *b;

    todo->len -= sizeof b;
    memcpy(&b, todo->data + todo->len, sizeof b);
    if (b->state == PP_BLOB_FAILED) {
      *failed = b;
      return 1;
    }
    if (b->state == PP_BLOB_PROMISED) {
      *promised = true;
      if (j == NULL)
        continue;
      if (b->job == NULL || add_waiter(pp_job_promise(b->job), j) != 0)
        return PP_ENOMEM;
      continue;
    }
    for (uint32_t i = 0; i < b->ndeps; i++)
      if (push(todo, b->deps[i], pass) != 0)
        return PP_ENOMEM;
  }
  return 0;
}

static int push_needs(pp_buf *todo, const pp_job *j, uint32_t pass) {
  int r = push(todo, j->fn, pass);

  for (uint32_t i = 0, n = pp_job_ndeps(j); i < n && r == 0; i++)
    r = push(todo, pp_job_deps(j)[i], pass);
  return r;
}

bool pp_depend_waits(pp_engine *e, pp_job *j) {
  pp_blob *failed = NULL;
  pp_buf todo = {0};
  uint32_t pass = ++e->blobs.pass;
  bool promised = false;
  int r = push_needs(&todo, j, pass);

  if (r == 0)
    r = walk(NULL, &todo, pass, &failed, &promised);
  pp_buf_clear(&todo);
  return r == 0 && promised;
}

/* j, which has had to wait, is to end as its cause did. */
static void blame(pp_job *j, pp_job *cause) {
  pp_job_clear_result(j);
  j->more->cause = pp_job_ref(cause);
  j->result = cause->result;
  j->result_len = cause->result_len;
}

int pp_depend_begin(pp_server *s, pp_job *j) {
  pp_engine *e = s->engine;
  pp_blob *failed = NULL;
  pp_buf todo = {0};
  uint32_t pass = ++e->blobs.pass;
  bool promised = false;
  int r = pp_job_more(j) != NULL ? push_needs(&todo, j, pass) : PP_ENOMEM;

  if (r == 0)
    r = walk(j, &todo, pass, &failed, &promised);
  pp_buf_clear(&todo);
  if (r == 0 && j->more->waits == 0) {
    j->fn->waits = false; /* all is there, and stays */
    for (uint32_t i = 0; i < j->more->ndeps; i++)
      j->more->deps[i]->waits = false;
    return PP_DEPEND_READY;
  }
  if (r == 0) {
    j->state = PP_JOB_BLOCKED;
    pp_jobs_push(&s->blocked, j);
    return PP_DEPEND_BLOCKED;
  }
  if (failed != NULL && failed->job != NULL && failed->job->result != NULL) {
    blame(j, pp_depend_root(failed->job));
  } else if (failed == NULL || failed->len == 0 ||
             pp_job_store(j, failed->bytes, failed->len) != 0) {
    static const char lost[] = "\0\x2d"
                               "the result of a job it waits for is not there"
                               "\0";

    (void)pp_job_store(j, lost, sizeof lost - 1);
  }
  return PP_DEPEND_FAILED;
}

void pp_depend_unblock(pp_job *j) {
  pp_jobs_remove(&j->server->blocked, j);
  j->state = PP_JOB_QUEUED;
}

void pp_depend_wake(pp_engine *e, pp_promise *waiters, pp_job *cause) {
  pp_job *j;

  for (uint32_t i = 0; i < waiters->n; i++) {
    j = waiters->waiters[i];
    if (j->state == PP_JOB_BLOCKED && cause != NULL) {
      pp_depend_unblock(j);
      blame(j, cause);
      pp_jobs_push(&e->failing, j);
    } else if (j->state == PP_JOB_BLOCKED && --j->more->waits == 0) {
      pp_depend_unblock(j);
      pp_sched_put(&j->server->sched, j, false);
    }
  }
  for (uint32_t i = 0; i < waiters->n; i++) { /* first by priority */
    j = waiters->waiters[i];
    if (j->state == PP_JOB_QUEUED && cause == NULL)
      pp_sched_place(&j->server->sched);
    if (j->state == PP_JOB_QUEUED && cause == NULL && pp_choice_hopeless(j))
      pp_server_hopeless(j->server);
    pp_job_unref(j, &e->blobs);
  }
  free(waiters->waiters);
  if (e->fails)
    return; /* whoever does sees to these too: no recursion */
  e->fails = true;
  while ((j = pp_jobs_pop(&e->failing)) != NULL)
    pp_server_ended(j->server, j, true);
  e->fails = false;
}
