/* SPDX-License-Identifier: MIT */
/* What a worker says of jobs that its jobs submit, and what it is told of
 * them. All of it is checked: a worker may be out of its mind. */
#include <stdlib.h>
#include <string.h>

#include "choice.h"
#include "crew.h"
#include "feed.h"
#include "kin.h"
#include "link_impl.h"

/* Numbers a worker may give its blobs. */
#define OWN_MAX (1u << 24)

/* --- its blobs ------------------------------------------------------------ */

static pp_blob *own(const pp_link *l, uint32_t id) {
  return id < l->nown ? l->own[id] : NULL;
}

static bool room_for(pp_link *l, uint32_t id) {
  uint32_t n = l->nown;
  pp_blob **v;

  if (id < n)
    return true;
  if (id > OWN_MAX)
    return false;
  while (n <= id)
    n = n ? n * 2 : 16;
  v = realloc(l->own, n * sizeof(pp_blob *));
  if (v == NULL)
    return false;
  memset(v + l->nown, 0, (n - l->nown) * sizeof(pp_blob *));
  l->own = v;
  l->nown = n;
  return true;
}

void pp_link_disown(pp_link *l) {
  for (uint32_t i = 0; i < l->nown; i++)
    pp_blob_unref(&l->engine->blobs, l->own[i]);
  free(l->own);
  l->own = NULL;
  l->nown = 0;
}

static bool known(int kind) {
  return kind == PP_BLOB_CODE || kind == PP_BLOB_PARCEL ||
         kind == PP_BLOB_VALUE || kind == PP_BLOB_RESULT ||
         kind == PP_BLOB_KEPT;
}

static bool own_blob(pp_link *l, const unsigned char *p, size_t len) {
  pp_blobs *set = &l->engine->blobs;
  uint32_t id, ndeps;
  pp_blob **deps = NULL, *b = NULL;
  const unsigned char *bytes;
  int kind;

  if (len < PP_BLOB_HEAD)
    return false;
  id = pp_get32(p + PP_BLOB_ID);
  kind = (int)pp_get32(p + PP_BLOB_KIND);
  ndeps = pp_get32(p + PP_BLOB_NDEPS);
  if (ndeps > (len - PP_BLOB_HEAD) / 4 || !room_for(l, id) ||
      l->own[id] != NULL || !known(kind))
    return false;
  if (ndeps > 0 && (deps = malloc(ndeps * sizeof(pp_blob *))) == NULL)
    return false;
  for (uint32_t i = 0; i < ndeps; i++) {
    uint32_t dep = pp_get32(p + PP_BLOB_HEAD + 4 * (size_t)i);

    deps[i] = own(l, dep);
    if (deps[i] == NULL && (dep != PP_BLOB_NONE || kind != PP_BLOB_KEPT))
      goto done;
  }
  bytes = p + PP_BLOB_HEAD + 4 * (size_t)ndeps;
  len -= (size_t)(bytes - p);
  b = kind == PP_BLOB_CODE || kind == PP_BLOB_PARCEL
          ? pp_blobs_intern(set, kind,
                            pp_blob_name(kind, bytes, len, deps, ndeps), bytes,
                            len, deps, ndeps)
          : pp_blobs_value(set, kind, bytes, len, deps, ndeps);
  l->own[id] = b;
done:
  free(deps);
  return b != NULL;
}

static bool own_drop(pp_link *l, const unsigned char *p, size_t len) {
  uint32_t id;

  if (len != 4)
    return false;
  id = pp_get32(p);
  if (own(l, id) == NULL)
    return false;
  pp_blob_unref(&l->engine->blobs, l->own[id]);
  l->own[id] = NULL;
  return true;
}

/* --- answers -------------------------------------------------------------- */

/* Send bytes as one frame, in order behind what waits. The first are copied,
 * the others belong to j, which is kept. At the end is where its load is. */
static void send_parts(pp_link *l, const unsigned char *head, size_t head_len,
                       const void *const part[3], const size_t len[3],
                       pp_job *j) {
  if (pp_link_post(l, head, head_len) != 0)
    goto fail;
  for (int i = 0; i < 3; i++)
    if (len[i] > 0) {
      pp_piece *t = pp_link_piece(l, part[i], len[i]);

      if (t == NULL)
        goto fail;
      t->job = pp_job_ref(j);
    }
  if (pp_link_afar(l, pp_job_load(j)) != NULL) {
    unsigned char ref[PP_REF_SIZE];

    pp_put_ref(ref, pp_job_load(j)->at, pp_job_load(j)->len,
               pp_job_load(j)->slot.cap);
    if (pp_link_post(l, ref, sizeof ref) != 0)
      goto fail;
    l->tx[l->tx_n - 1].cargo = pp_cargo_ref(pp_job_load(j));
  }
  l->place.full = !pp_link_push(l);
  return;
fail: /* it would wait for ever: begin anew */
  pp_link_kill(l);
}

/* Bytes of a node's name that go along. */
#define NAME_MOST 255u

static void answer(pp_link *l, uint32_t parent, uint32_t key, pp_job *j) {
  unsigned char frame[PP_FRAME_HEAD + PP_CHILD_HEAD + NAME_MOST] = {0};
  unsigned char *h = frame + PP_FRAME_HEAD;
  const char *node = pp_engine_name(l->engine, j->node);
  size_t name = j->worker > 0 ? strnlen(node, NAME_MOST) : 0;
  const pp_cargo *afar = pp_link_afar(l, pp_job_load(j));
  const void *part[3] = {j->result, NULL, NULL};
  size_t len[3] = {afar != NULL ? 0 : j->result_len, 0, 0};

  if (pp_job_collected(j) != NULL)
    for (int k = 0; k < 2; k++) {
      part[1 + k] = pp_job_collected(j)[k].data;
      len[1 + k] = pp_job_collected(j)[k].len;
    }
  pp_frame_head(frame, PP_F_CHILD | (afar != NULL ? PP_F_AFAR : 0),
                PP_CHILD_HEAD + name + len[0] + len[1] + len[2] +
                    (afar != NULL ? PP_REF_SIZE : 0));
  pp_put32(h + PP_CHILD_PARENT, parent);
  pp_put32(h + PP_CHILD_KEY, key);
  pp_put32(h + PP_CHILD_STATUS, j->state == PP_JOB_FAILED);
  pp_put32(h + PP_CHILD_WORKER, j->worker);
  pp_put32(h + PP_CHILD_ATTEMPTS, j->attempts);
  pp_put32(h + PP_CHILD_NODE, (uint32_t)name);
  memcpy(h + PP_CHILD_HEAD, node, name);
  pp_put64(h + PP_CHILD_START, (uint64_t)j->started + pp_link_skew(l));
  pp_put64(h + PP_CHILD_RUN, (uint64_t)j->run);
  pp_put64(h + PP_CHILD_CPU, (uint64_t)j->cpu);
  pp_put64(h + PP_CHILD_RSS, pp_job_maxrss(j));
  pp_put64(h + PP_CHILD_SENT, j->sent);
  pp_put64(h + PP_CHILD_RECEIVED, j->received);
  pp_put64(h + PP_CHILD_ID, j->id);
  pp_put64(h + PP_CHILD_STDOUT, len[1]);
  pp_put64(h + PP_CHILD_STDERR, len[2]);
  send_parts(l, frame, PP_FRAME_HEAD + PP_CHILD_HEAD + name, part, len, j);
}

void pp_link_answer(pp_link *l, const pp_job *parent, pp_job *child) {
  if (!l->dead && !l->server->closed)
    answer(l, parent->seq, pp_job_kin(child)->key, child);
}

/* A job that nobody will run. */
static void refuse(pp_link *l, uint32_t parent, uint32_t key, uint64_t id,
                   const char *why) {
  pp_job *j = pp_job_new(0);
  pp_buf b = {0};

  if (j == NULL ||
      pp_error_body(&b, PP_KIND_CANCELLED, why, strlen(why), "", 0) != 0 ||
      pp_job_store(j, b.data, b.len) != 0) {
    pp_link_kill(l);
  } else {
    j->state = PP_JOB_FAILED;
    j->id = id;
    answer(l, parent, key, j);
  }
  pp_buf_clear(&b);
  pp_job_unref(j, &l->engine->blobs);
}

void pp_link_configure(pp_link *l) {
  const pp_server *s = l->server;
  unsigned char f[PP_FRAME_HEAD + PP_CONF_SIZE] = {0}, *p = f + PP_FRAME_HEAD;

  if (l->dead)
    return;
  pp_frame_head(f, PP_F_CONFIG, PP_CONF_SIZE);
  pp_put32(p + PP_CONF_NCPUS, pp_server_ncpus(s));
  pp_put32(p + PP_CONF_RETRIES, s->retries);
  pp_put64(p + PP_CONF_TIMEOUT, (uint64_t)s->timeout);
  pp_put64(p + PP_CONF_MEMORY, s->memory);
  pp_put32(p + PP_CONF_OUTPUT, s->output);
  if (l->tx_n == 0 && pp_ring_room(&l->map.lane->in) >= sizeof f) {
    /* Not worth waking it for. */
    memcpy(pp_ring_end(&l->map.lane->in, l->map.in), f, sizeof f);
    pp_ring_publish(&l->map.lane->in, sizeof f);
  } else if (pp_link_post(l, f, sizeof f) != 0) {
    pp_link_kill(l);
  }
}

/* --- jobs ----------------------------------------------------------------- */

/* The job in a SUBMIT frame; NULL if it makes no sense. */
static pp_job *compose(pp_link *l, const pp_job *parent, const unsigned char *p,
                       size_t len, bool afar) {
  uint32_t on = pp_get32(p + PP_SUB_ON);
  const unsigned char *sub = p + PP_SUB_HEAD + on, *body;
  size_t n = len - PP_SUB_HEAD - on, rest; /* submit has looked */
  pp_cargo *args = NULL;
  uint32_t ndeps, mods;
  pp_more *more;
  pp_blob *fn;
  uint64_t bits;
  pp_job *j;

  if (n < PP_JOB_HEAD)
    return NULL;
  ndeps = pp_get32(sub + PP_JOB_NDEPS);
  mods = pp_get32(sub + PP_JOB_EXTRA);
  fn = own(l, pp_get32(sub + PP_JOB_FN));
  if (fn == NULL || fn->kind != PP_BLOB_PARCEL || ndeps > (n - PP_JOB_HEAD) / 4)
    return NULL;
  rest = n - PP_JOB_HEAD - 4 * (size_t)ndeps;
  if (afar ? rest != PP_REF_SIZE : mods > rest)
    return NULL;
  for (uint32_t i = 0; i < ndeps; i++)
    if (own(l, pp_get32(sub + PP_JOB_HEAD + 4 * (size_t)i)) == NULL)
      return NULL;
  body = sub + PP_JOB_HEAD + 4 * (size_t)ndeps;
  n -= (size_t)(body - sub);
  if (afar && pp_berth_cargo(l->berth, body, &args) != 0)
    return NULL;
  j = args == NULL || mods <= args->len ? pp_job_new_in(&l->engine->jobs, n)
                                        : NULL;
  if (j == NULL) {
    pp_cargo_unref(args);
    return NULL;
  }
  more = pp_job_more(j);
  if (more == NULL ||
      (ndeps > 0 && (more->deps = malloc(ndeps * sizeof(pp_blob *))) == NULL)) {
    pp_cargo_unref(args);
    pp_job_unref(j, &l->engine->blobs);
    return NULL;
  }
  more->args = args;
  more->afar = afar;
  memcpy(j->body, body, n);
  j->wire = (uint16_t)pp_get32(sub + PP_JOB_FLAGS);
  j->id = pp_get64(sub + PP_JOB_ID);
  more->mods = mods;
  more->memory = pp_get64(sub + PP_JOB_MEMORY);
  more->seed = pp_get64(sub + PP_JOB_SEED);
  more->index = pp_get64(sub + PP_JOB_INDEX);
  for (uint32_t i = 0; i < ndeps; i++)
    more->deps[i] =
        pp_blob_ref(own(l, pp_get32(sub + PP_JOB_HEAD + 4 * (size_t)i)));
  more->ndeps = ndeps;
  j->fn = pp_blob_ref(fn);
  j->setting = parent->setting != NULL ? pp_blob_ref(parent->setting) : NULL;
  j->retries = pp_get32(p + PP_SUB_RETRIES);
  more->error_retries = pp_get32(p + PP_SUB_ERRORS);
  j->timeout = (int64_t)pp_get64(p + PP_SUB_TIMEOUT);
  if (j->timeout < 0)
    j->timeout = 0;
  bits = pp_get64(p + PP_SUB_PRIORITY);
  memcpy(&j->priority, &bits, sizeof j->priority);
  if (j->priority != j->priority)
    j->priority = 0;
  j->items = pp_get32(p + PP_SUB_ITEMS);
  j->slots = pp_get32(p + PP_SUB_SLOTS);
  if (pp_choice_set(l->server, j, (const char *)p + PP_SUB_HEAD, on) != 0) {
    pp_job_unref(j, &l->engine->blobs);
    return NULL;
  }
  return j;
}

/* A job that is not taken: nor is its cargo. */
static void let_go(pp_link *l, const unsigned char *p, size_t len) {
  pp_cargo *c;

  if (len >= PP_REF_SIZE &&
      pp_berth_cargo(l->berth, p + len - PP_REF_SIZE, &c) == 0)
    pp_cargo_unref(c);
}

static bool submit(pp_link *l, const unsigned char *p, size_t len, bool afar,
                   int64_t now) {
  uint32_t seq, key, on;
  pp_job *parent, *j;

  if (len < PP_SUB_HEAD)
    return false;
  on = pp_get32(p + PP_SUB_ON);
  if (on > PP_ON_MAX || on > len - PP_SUB_HEAD)
    return false;
  seq = pp_get32(p + PP_SUB_PARENT);
  key = pp_get32(p + PP_SUB_KEY);
  parent = pp_link_job(l, seq);
  if (parent == NULL || (parent->flags & PP_JOB_CALL))
    return false;
  if (parent->flags & PP_JOB_GHOST) {
    if (len < PP_SUB_HEAD + on + PP_JOB_HEAD)
      return false;
    if (afar)
      let_go(l, p, len);
    refuse(l, seq, key, pp_get64(p + PP_SUB_HEAD + on + PP_JOB_ID),
           "the job that submitted it has ended");
    return true;
  }
  j = compose(l, parent, p, len, afar);
  if (j == NULL)
    return false;
  if (pp_server_add_child(l->server, parent, j, key, now) != 0) {
    pp_choice_drop(j);
    pp_job_unref(j, &l->engine->blobs);
    return false;
  }
  return true;
}

static pp_job *child_by_key(const pp_job *parent, uint32_t key) {
  pp_job *j = pp_kin_child(parent);

  while (j != NULL && pp_job_kin(j)->key != key)
    j = pp_job_kin(j)->next;
  return j;
}

static bool cancel(pp_link *l, const unsigned char *p, size_t len) {
  pp_job *parent, *j;

  if (len != PP_CANCEL_SIZE)
    return false;
  parent = pp_link_job(l, pp_get32(p));
  j = parent != NULL ? child_by_key(parent, pp_get32(p + 4)) : NULL;
  if (j != NULL) { /* else it has ended: word of that is on its way */
    pp_kin_leave(j);
    pp_server_cut(l->server, j, PP_KIND_CANCELLED, "the job was cancelled");
  }
  return true;
}

static bool waits(pp_link *l, const unsigned char *p, size_t len, int64_t now) {
  pp_job *j;

  if (len != PP_WAIT_SIZE)
    return false;
  j = pp_link_job(l, pp_get32(p));
  if (j == NULL || (j->flags & PP_JOB_GHOST))
    return true;
  if (pp_get32(p + PP_WAIT_ON) == PP_WAIT_NOT) {
    pp_crew_goes_on(l, j, now);
    return true;
  }
  for (int k = 0; k < 2; k++) { /* what it wrote so far is its own */
    uint64_t end = pp_get64(p + PP_WAIT_STDOUT + 8 * k);
    pp_outlet *o = &l->outlet[k];

    if (o->mode != PP_OUTPUT_JOB || o->fd < 0)
      continue;
    pp_outlet_read_to(o, end);
    pp_outlet_collect(o, end, pp_job_output(j, k));
  }
  pp_crew_waits(l, j, pp_get32(p + PP_WAIT_ON) == PP_WAIT_DEEP, now);
  return true;
}

static uint64_t cancel_unbegun(pp_server *s, pp_job *parent) {
  pp_job *j = pp_kin_child(parent), *next;
  uint64_t n = 0;

  for (; j != NULL; j = next) {
    next = pp_job_kin(j)->next;
    if (pp_job_over(j) || !pp_sched_take(&s->sched, j))
      continue;
    pp_server_fail(s, j, PP_KIND_CANCELLED, "the job was cancelled");
    n++;
  }
  return n;
}

static bool ask(pp_link *l, const unsigned char *p, size_t len) {
  unsigned char f[PP_FRAME_HEAD + PP_SAID_SIZE + NAME_MOST] = {0}, *said;
  size_t name = 0;
  pp_job *parent, *j;
  uint64_t value = 0;

  if (len != PP_ASK_SIZE)
    return false;
  parent = pp_link_job(l, pp_get32(p));
  if (parent != NULL)
    switch (pp_get32(p + PP_ASK_WHAT)) {
    case PP_ASK_BEGUN:
      j = child_by_key(parent, pp_get32(p + 4));
      if (j != NULL && j->state == PP_JOB_SENT) {
        int64_t begun = j->place->ops->begun(j->place, j);

        value = begun < 0   ? 0
                : begun > 1 ? (uint64_t)begun + pp_link_skew(l)
                            : 1;
      }
      break;
    case PP_ASK_WORKER:
      j = child_by_key(parent, pp_get32(p + 4));
      if (j != NULL && j->state == PP_JOB_SENT && j->place->ops->worker != NULL)
        value = j->place->ops->worker(j->place, j);
      if (value > 0) {
        const char *node = pp_engine_name(l->engine, j->node);

        name = strnlen(node, NAME_MOST);
        memcpy(f + PP_FRAME_HEAD + PP_SAID_SIZE, node, name);
      }
      break;
    case PP_ASK_CUT:
      j = child_by_key(parent, pp_get32(p + 4));
      if (j != NULL)
        value = pp_server_cut_chunk(j, 0);
      break;
    case PP_ASK_CANCEL_ALL:
      value = cancel_unbegun(l->server, parent);
      break;
    default:
      return false;
    }
  said = f + PP_FRAME_HEAD;
  pp_frame_head(f, PP_F_SAID, PP_SAID_SIZE + name);
  pp_put32(said, pp_get32(p + PP_ASK_TOKEN));
  pp_put64(said + PP_SAID_VALUE, value);
  if (pp_link_post(l, f, PP_FRAME_HEAD + PP_SAID_SIZE + name) != 0)
    pp_link_kill(l);
  else
    l->place.full = !pp_link_push(l);
  return true;
}

bool pp_link_heard(pp_link *l, int type, const unsigned char *p, size_t len,
                   int64_t now) {
  bool afar = (type & PP_F_AFAR) != 0;

  if (afar && (type & ~PP_F_AFAR) != PP_F_SUBMIT)
    return false;
  switch (type & ~PP_F_AFAR) {
  case PP_F_OWN_BLOB:
    return own_blob(l, p, len);
  case PP_F_OWN_DROP:
    return own_drop(l, p, len);
  case PP_F_SUBMIT:
    return submit(l, p, len, afar, now);
  case PP_F_CANCEL:
    return cancel(l, p, len);
  case PP_F_WAIT:
    return waits(l, p, len, now);
  case PP_F_ASK:
    return ask(l, p, len);
  case PP_F_UNSEEN:
    if (len != 8)
      return false;
    l->engine->unseen += pp_get64(p) > 0;
    return true;
  case PP_F_FEED:
    return pp_feed_wanted(l, p, len);
  default:
    return false;
  }
}
