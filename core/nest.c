/* SPDX-License-Identifier: MIT */
#include "nest.h"

#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "choice.h"
#include "lua_pp.h"
#include "message.h"
#include "runner.h"
#include "serial.h"
#include "state.h"

struct pp_nest {
  pp_engine engine; /* its own */
  pp_options options;
  pp_buf head; /* scratch */
  const pp_nest_ops *ops;
  void *ud;
  pp_hold *hold;
  pp_runner *runner;
  pp_nested *volatile at; /* the innermost job */
  pp_server_options config;
  uint32_t token;   /* of the last question */
  uint32_t replied; /* the last one answered */
  uint64_t reply;
  uint16_t reply_node; /* the node it names */
};

/* The one place of a job's server: up, to the driver. */
typedef struct pp_up {
  pp_place place; /* first */
  pp_nest *nest;
  pp_nested *at;   /* whose server it is; NULL: that is over */
  pp_job **by_key; /* what was sent up and has not come back */
  uint32_t cap;
  uint32_t *free_keys, nfree;
} pp_up;

static pp_up *up_of(pp_place *p) { return (pp_up *)(void *)p; }

/* --- going up ------------------------------------------------------------- */

static void send_frame(pp_nest *n, int type, const void *p, size_t len) {
  unsigned char head[PP_FRAME_HEAD];

  pp_frame_head(head, type, len);
  n->ops->send(n->ud, head, sizeof head);
  n->ops->send(n->ud, p, len);
}

static int send_one(pp_nest *n, pp_blob *b) {
  unsigned char head[PP_FRAME_HEAD + PP_BLOB_HEAD] = {0}, id[4];
  unsigned char *p = head + PP_FRAME_HEAD;

  if (pp_blob_held(b, 0) != 0)
    return PP_ENOMEM;
  pp_frame_head(head, PP_F_OWN_BLOB,
                PP_BLOB_HEAD + 4 * (uint64_t)b->ndeps + b->len);
  pp_put32(p + PP_BLOB_ID, b->id);
  pp_put32(p + PP_BLOB_KIND, (uint32_t)b->kind);
  pp_put64(p + PP_BLOB_HASH, b->hash.lo);
  pp_put64(p + PP_BLOB_HASH + 8, b->hash.hi);
  pp_put32(p + PP_BLOB_NDEPS, b->ndeps);
  n->ops->send(n->ud, head, sizeof head);
  for (uint32_t i = 0; i < b->ndeps; i++) {
    pp_put32(id, b->deps[i] != NULL ? b->deps[i]->id : PP_BLOB_NONE);
    n->ops->send(n->ud, id, sizeof id);
  }
  n->ops->send(n->ud, b->bytes, b->len);
  return 0;
}

/* One blob and those it needs, those first, however deeply they nest. */
static int send_blob(pp_nest *n, pp_blob *b) {
  if (b->nholders > 0)
    return 0;
  b->after = NULL;
  b->step = 0;
  while (b != NULL) {
    pp_blob *before = b->step < b->ndeps ? b->deps[b->step++] : NULL;

    if (before != NULL && before->nholders == 0) {
      before->after = b;
      before->step = 0;
      b = before;
    }
    if (b->step < b->ndeps)
      continue;
    if (send_one(n, b) != 0)
      return PP_ENOMEM;
    b = b->after;
  }
  return 0;
}

static void on_dropped(void *ud, uint32_t lane, uint32_t id) {
  unsigned char p[4];

  (void)lane;
  pp_put32(p, id);
  send_frame(ud, PP_F_OWN_DROP, p, sizeof p);
}

static int new_key(pp_up *u, uint32_t *key) {
  if (u->nfree == 0) {
    uint32_t cap = u->cap ? u->cap * 2 : 16;
    pp_job **v = realloc(u->by_key, cap * sizeof(pp_job *));
    uint32_t *f;

    if (v == NULL)
      return PP_ENOMEM;
    u->by_key = v;
    f = realloc(u->free_keys, cap * sizeof *f);
    if (f == NULL)
      return PP_ENOMEM;
    u->free_keys = f;
    memset(v + u->cap, 0, (cap - u->cap) * sizeof(pp_job *));
    for (uint32_t k = cap; k > u->cap; k--)
      f[u->nfree++] = k - 1;
    u->cap = cap;
  }
  *key = u->free_keys[--u->nfree];
  return 0;
}

static void free_key(pp_up *u, uint32_t key) {
  u->by_key[key] = NULL;
  u->free_keys[u->nfree++] = key;
}

static void free_copy(pp_cargo *c) {
  free(c->ud);
  free(c);
}

/* Its arguments are the driver's now, who says when they are needed no more.
 * What they name may be asked for after that. */
static void hand_over(pp_nest *n, pp_job *j) {
  pp_cargo *c = pp_job_args(j), *copy = NULL;
  size_t mods = j->more->mods;
  pp_names names;

  if (pp_message_names(c->p + mods, c->len - mods, &names) == 0 &&
      names.nids > 0 && (copy = calloc(1, sizeof *copy)) != NULL) {
    copy->refs = 1;
    copy->len = c->len;
    copy->gone = free_copy;
    copy->ud = malloc(c->len);
    copy->p = copy->ud;
    if (copy->ud != NULL) {
      memcpy(copy->ud, c->p, c->len);
    } else {
      free(copy);
      copy = NULL;
    }
  }
  pp_hold_sent(n->hold, c->slot);
  c->slot.cap = 0;
  pp_cargo_unref(c);
  j->more->args = copy;
}

static int up_send(pp_place *place, pp_job *j) {
  pp_up *u = up_of(place);
  pp_nest *n = u->nest;
  unsigned char head[PP_FRAME_HEAD + PP_SUB_HEAD] = {0};
  const char *on = pp_choice_text(j);
  size_t on_len = on != NULL ? strlen(on) : 0;
  unsigned char *p = head + PP_FRAME_HEAD;
  size_t job = pp_job_head_len(j), size = job + j->body_len;
  uint64_t bits;
  uint32_t key, ndeps = pp_job_ndeps(j);
  int r = send_blob(n, j->fn);

  for (uint32_t i = 0; i < ndeps && r == 0; i++)
    r = send_blob(n, j->more->deps[i]);
  if (r != 0 || u->at == NULL || pp_buf_reserve(&n->head, job) != 0 ||
      new_key(u, &key) != 0)
    return PP_EAGAIN;
  u->by_key[key] = j;
  j->seq = key;
  pp_job_head(j, n->head.data);
  pp_frame_head(head, PP_F_SUBMIT | (pp_job_args(j) != NULL ? PP_F_AFAR : 0),
                PP_SUB_HEAD + on_len + size - PP_FRAME_HEAD);
  pp_put32(p + PP_SUB_PARENT, u->at->seq);
  pp_put32(p + PP_SUB_KEY, key);
  pp_put32(p + PP_SUB_RETRIES, j->retries);
  pp_put32(p + PP_SUB_ERRORS, j->more != NULL ? j->more->error_retries : 0);
  pp_put64(p + PP_SUB_TIMEOUT, (uint64_t)j->timeout);
  memcpy(&bits, &j->priority, sizeof bits);
  pp_put64(p + PP_SUB_PRIORITY, bits);
  pp_put32(p + PP_SUB_ITEMS, j->items);
  pp_put32(p + PP_SUB_SLOTS, j->slots);
  pp_put32(p + PP_SUB_ON, (uint32_t)on_len);
  n->ops->send(n->ud, head, sizeof head);
  if (on_len > 0)
    n->ops->send(n->ud, on, on_len);
  n->ops->send(n->ud, n->head.data + PP_FRAME_HEAD, job - PP_FRAME_HEAD);
  n->ops->send(n->ud, j->body, j->body_len);
  n->ops->sent(n->ud);
  j->sent += pp_job_bytes(j);
  if (pp_job_args(j) != NULL)
    hand_over(n, j);
  return 0;
}

static bool up_recall(pp_place *p, pp_job *j) {
  (void)p, (void)j;
  return false;
}

static void up_drain(pp_place *p) { pp_nest_look(&up_of(p)->nest->engine); }

/* Ask the driver and wait for the answer: it never lets one wait. */
static uint64_t ask(pp_up *u, uint32_t what, uint32_t key) {
  pp_nest *n = u->nest;
  unsigned char p[PP_ASK_SIZE];
  uint32_t token = ++n->token;

  if (u->at == NULL)
    return 0;
  pp_put32(p, u->at->seq);
  pp_put32(p + 4, key);
  pp_put32(p + PP_ASK_WHAT, what);
  pp_put32(p + PP_ASK_TOKEN, token);
  send_frame(n, PP_F_ASK, p, sizeof p);
  n->ops->sent(n->ud);
  while (n->replied != token)
    if (n->ops->take(n->ud, -1) < 0)
      return 0; /* the job is to stop */
  return n->reply;
}

static int64_t up_begun(pp_place *p, const pp_job *j) {
  uint64_t begun = ask(up_of(p), PP_ASK_BEGUN, j->seq);

  if (begun == 0)
    return pp_job_over(j) ? 0 : -1;
  return begun > 1 && begun <= INT64_MAX ? (int64_t)begun : 0;
}

static uint32_t up_worker(pp_place *p, pp_job *j) {
  pp_up *u = up_of(p);
  uint32_t worker = (uint32_t)ask(u, PP_ASK_WORKER, j->seq);

  if (worker > 0)
    j->node = u->nest->reply_node;
  return worker;
}

static uint32_t up_cut(pp_place *p, pp_job *j, uint32_t n) {
  uint64_t kept = ask(up_of(p), PP_ASK_CUT, j->seq);

  return kept > n ? n : (uint32_t)kept;
}

static bool up_withdraw(pp_place *p, pp_job *j) {
  pp_up *u = up_of(p);
  unsigned char b[PP_CANCEL_SIZE];

  if (u->at != NULL) {
    pp_put32(b, u->at->seq);
    pp_put32(b + 4, j->seq);
    send_frame(u->nest, PP_F_CANCEL, b, sizeof b);
    u->nest->ops->sent(u->nest->ud);
  }
  free_key(u, j->seq);
  pp_sched_ended(p, j);
  return true;
}

static void up_stop(pp_place *p, pp_job *j, int kind) {
  (void)kind;
  up_withdraw(p, j);
}

static const pp_place_ops up_ops = {
    .send = up_send,
    .recall = up_recall,
    .drain = up_drain,
    .begun = up_begun,
    .worker = up_worker,
    .withdraw = up_withdraw,
    .stop = up_stop,
    .cut = up_cut,
};

/* --- the server of a job -------------------------------------------------- */

static pp_server *new_server(pp_nest *n, pp_nested *at) {
  const pp_running *now = pp_runner_running(n->runner);
  pp_server *s = calloc(1, sizeof *s);
  pp_up *u = calloc(1, sizeof *u);

  if (s == NULL || u == NULL) {
    free(s);
    free(u);
    return NULL;
  }
  s->engine = &n->engine;
  s->created = pp_now_ns();
  s->retries = n->config.retries;
  s->output = n->config.output;
  s->timeout = n->config.timeout;
  s->memory = n->config.memory;
  if (pp_node_add(s, PP_NAME_LOCAL) == NULL) {
    free(s);
    free(u);
    return NULL;
  }
  s->local->ncpus = n->config.ncpus;
  s->seeded = now->seeded;
  s->seed = now->seed;
  s->next_id = at->next_id;
  s->up = u;
  u->nest = n;
  u->at = at;
  u->place.ops = &up_ops;
  u->place.wide = true;
  pp_sched_open(&s->sched, &u->place);
  s->next = n->engine.servers;
  n->engine.servers = s;
  return s;
}

void pp_nest_close(pp_server *s) {
  pp_up *u = s->up;
  pp_job *j;

  if (u == NULL)
    return;
  while ((j = u->place.jobs.head) != NULL) {
    up_withdraw(&u->place, j);
    pp_server_fail(s, j, PP_KIND_DESTROYED,
                   "the server was destroyed before this job ended");
  }
  if (u->at != NULL) {
    u->at->next_id = s->next_id;
    u->at->server = NULL;
  }
  pp_sched_close(&s->sched, &u->place);
  free(u->by_key);
  free(u->free_keys);
  free(u);
  s->up = NULL;
}

size_t pp_nest_cancel_all(pp_server *s) {
  return s->up != NULL ? ask(s->up, PP_ASK_CANCEL_ALL, 0) : 0;
}

int pp_nest_push_server(lua_State *L) {
  pp_engine *e = pp_check_engine(L);
  pp_nested *at = e->nest != NULL ? e->nest->at : NULL;

  if (e->serial != NULL)
    return pp_serial_push_server(L);
  if (at == NULL)
    return luaL_error(L, "there is no job here");
  if (pp_runner_running(e->nest->runner)->base)
    return luaL_error(L, "a call of everywhere, or @SET, cannot submit jobs");
  if (at->server == NULL) {
    pp_userver *u = pp_push_server(L);

    u->s = new_server(e->nest, at);
    if (u->s == NULL)
      return luaL_error(L, "not enough memory");
    at->server = u->s;
    pp_note_server(L, -1);
    lua_pushvalue(L, -1);
    if (at->handle == LUA_NOREF)
      at->handle = luaL_ref(L, LUA_REGISTRYINDEX);
    else
      lua_rawseti(L, LUA_REGISTRYINDEX, at->handle);
  } else {
    lua_rawgeti(L, LUA_REGISTRYINDEX, at->handle);
  }
  return 1;
}

/* --- coming down ---------------------------------------------------------- */

static void keep_output(pp_job *j, int which, const unsigned char *p,
                        size_t len) {
  pp_buf *b = pp_job_output(j, which);

  if (b != NULL)
    (void)!pp_buf_put(b, p, len);
}

/* The engine's number of a node's name; none is "local". */
static uint16_t named(pp_nest *n, const unsigned char *p, size_t len) {
  char name[256];

  if (len == 0 || len >= sizeof name)
    return PP_NAME_LOCAL;
  memcpy(name, p, len);
  name[len] = '\0';
  return pp_engine_named(&n->engine, name);
}

static void child_ended(pp_nest *n, const unsigned char *h, size_t len,
                        const pp_window *afar) {
  uint32_t seq, key;
  size_t out, err, body, name;
  pp_nested *at = n->at;
  pp_job *j;
  pp_up *u;
  bool failed;

  if (len < PP_CHILD_HEAD)
    return;
  seq = pp_get32(h + PP_CHILD_PARENT);
  key = pp_get32(h + PP_CHILD_KEY);
  name = pp_get32(h + PP_CHILD_NODE);
  out = (size_t)pp_get64(h + PP_CHILD_STDOUT);
  err = (size_t)pp_get64(h + PP_CHILD_STDERR);
  body = len - PP_CHILD_HEAD;
  if (name > body || out > body - name || err > body - name - out)
    return;
  body -= name + out + err;
  while (at != NULL && at->seq != seq)
    at = at->outer;
  u = at != NULL && at->server != NULL ? at->server->up : NULL;
  j = u != NULL && key < u->cap ? u->by_key[key] : NULL;
  if (j == NULL || j->id != pp_get64(h + PP_CHILD_ID))
    return; /* nobody waits for it any more */
  failed = pp_get32(h + PP_CHILD_STATUS) & 1;
  j->worker = pp_get32(h + PP_CHILD_WORKER);
  j->attempts = pp_get32(h + PP_CHILD_ATTEMPTS);
  j->started = (int64_t)pp_get64(h + PP_CHILD_START);
  j->run = (int64_t)pp_get64(h + PP_CHILD_RUN);
  j->cpu = (int64_t)pp_get64(h + PP_CHILD_CPU);
  pp_job_set_maxrss(j, pp_get64(h + PP_CHILD_RSS));
  j->sent = pp_get64(h + PP_CHILD_SENT);
  j->received = pp_get64(h + PP_CHILD_RECEIVED);
  h += PP_CHILD_HEAD;
  j->node = named(n, h, name);
  h += name;
  if (out > 0)
    keep_output(j, 0, h + body, out);
  if (err > 0)
    keep_output(j, 1, h + body + out, err);
  j->state = PP_JOB_ENDING;
  j->ended = pp_now_ns();
  free_key(u, key);
  pp_sched_ended(&u->place, j);
  if (j->worker > 0) {
    pp_stats *t = &at->server->local->stats;

    t->njobs += j->items > 0 ? j->items : 1;
    t->time += j->run;
    t->cpu += j->cpu;
    t->sent += j->sent;
    t->received += j->received;
    if (t->maxrss < pp_job_maxrss(j))
      t->maxrss = pp_job_maxrss(j);
  }
  if (pp_job_promise(j) == NULL) /* else that may need it */
    pp_job_shed(j, &n->engine.blobs);
  if (pp_job_store(j, afar != NULL ? afar->p : h,
                   afar != NULL ? afar->len : body) != 0) {
    failed = true; /* and its error cannot be read */
    j->result_len = 0;
  }
  pp_server_ended(at->server, j, failed);
}

void pp_nest_heard(pp_nest *n, int type, const unsigned char *p, size_t len,
                   const pp_window *afar) {
  if (type == PP_F_CHILD) {
    child_ended(n, p, len, afar);
  } else if (type == PP_F_SAID && len >= PP_SAID_SIZE) {
    n->replied = pp_get32(p);
    n->reply = pp_get64(p + PP_SAID_VALUE);
    n->reply_node = named(n, p + PP_SAID_SIZE, len - PP_SAID_SIZE);
  } else if (type == PP_F_CONFIG && len == PP_CONF_SIZE) {
    n->config.ncpus = pp_get32(p + PP_CONF_NCPUS);
    n->config.retries = pp_get32(p + PP_CONF_RETRIES);
    n->config.timeout = (int64_t)pp_get64(p + PP_CONF_TIMEOUT);
    n->config.memory = pp_get64(p + PP_CONF_MEMORY);
    n->config.output = (enum pp_output)pp_get32(p + PP_CONF_OUTPUT);
    for (pp_nested *at = n->at; at != NULL; at = at->outer)
      if (at->server != NULL)
        at->server->local->ncpus = n->config.ncpus;
  }
}

/* --- waiting -------------------------------------------------------------- */

char pp_nest_idle[1];

void pp_nest_look(pp_engine *e) {
  pp_nest *n = e->nest;

  if (n->at != NULL)
    while (n->ops->take(n->ud, 0) > 0) {
    }
}

static void tell(pp_nest *n, const pp_nested *at, bool on) {
  unsigned char p[PP_WAIT_SIZE] = {0};
  uint64_t written[2] = {0, 0};

  if (on && n->config.output == PP_OUTPUT_JOB)
    n->ops->written(n->ud, written);
  pp_put32(p, at->seq);
  pp_put32(p + PP_WAIT_ON, !on                   ? PP_WAIT_NOT
                           : n->ops->deep(n->ud) ? PP_WAIT_DEEP
                                                 : PP_WAIT_BEGINS);
  pp_put64(p + PP_WAIT_STDOUT, written[0]);
  pp_put64(p + PP_WAIT_STDERR, written[1]);
  send_frame(n, PP_F_WAIT, p, sizeof p);
  n->ops->sent(n->ud);
}

int pp_nest_wait(pp_engine *e, bool (*until)(void *ud), void *ud,
                 int64_t deadline) {
  pp_nest *n = e->nest;
  pp_nested *at = n->at;
  int64_t since = 0;
  int r, took = 1;

  for (;;) {
    if (e->callbacks > 0 && !e->in_callback)
      r = PP_EAGAIN;
    else if (until(ud))
      r = 1;
    else if (pp_runner_stopping(n->runner) != NULL)
      r = PP_EAGAIN;
    else if (deadline >= 0 && took == 0 && pp_now_ns() >= deadline)
      r = 0;
    else {
      bool waits = at != NULL && at->server != NULL &&
                   at->server->pending > 0 && ud != pp_nest_idle;

      if (since == 0 && (took = n->ops->take(n->ud, 0)) != 0)
        continue; /* there was something */
      if (deadline >= 0 && pp_now_ns() >= deadline) {
        took = 0;
        continue;
      }
      if (since == 0 && waits) {
        since = pp_now_ns();
        tell(n, at, true);
      }
      took = n->ops->take(n->ud, deadline);
      continue;
    }
    break;
  }
  if (since != 0) {
    tell(n, at, false);
    at->waited += pp_now_ns() - since;
  }
  return r;
}

void pp_nest_check(pp_engine *e, lua_State *L) {
  const char *why = pp_runner_stopping(e->nest->runner);

  if (why == NULL)
    return;
  pp_runner_stopped(e->nest->runner, L);
  luaL_error(L, "%s", why);
}

/* --- jobs that run here --------------------------------------------------- */

pp_nested *pp_nest_at(const pp_nest *n) { return n->at; }

void pp_nest_begin(pp_nest *n, pp_nested *at, uint32_t seq) {
  memset(at, 0, sizeof *at);
  at->seq = seq;
  at->handle = LUA_NOREF;
  at->outer = n->at;
  n->at = at;
}

/* Say what failed and nobody asked about, here and to the driver. */
static void report(pp_nest *n, pp_server *s) {
  unsigned char p[8];
  char of[40];
  size_t unseen;

  snprintf(of, sizeof of, " of job %llu",
           (unsigned long long)pp_runner_running(n->runner)->id);
  unseen = pp_engine_unseen(&n->engine, s, of);
  if (unseen == 0)
    return;
  pp_put64(p, unseen);
  send_frame(n, PP_F_UNSEEN, p, sizeof p);
}

void pp_nest_end(pp_nest *n, pp_nested *at) {
  if (PP_UNLIKELY(at->handle != LUA_NOREF)) {
    lua_State *L = pp_state_running(pp_runner_state(n->runner));

    if (at->server != NULL) {
      pp_server *s = at->server;
      pp_job *j;

      s->up->at = NULL; /* the driver sees to its jobs itself */
      at->server = NULL;
      report(n, s);
      while ((j = s->ended.head) != NULL)
        pp_server_seen(s, j);
      pp_server_destroy(s);
    }
    if (at->outer == NULL)
      pp_drop_put_off(L, &n->engine);
    pp_unanchor(L, &n->engine);
    luaL_unref(L, LUA_REGISTRYINDEX, at->handle);
  }
  n->at = at->outer;
}

/* --- its engine ----------------------------------------------------------- */

pp_nest *pp_nest_new(lua_State *L) {
  pp_codec_hooks hooks;
  pp_nest *n = calloc(1, sizeof *n);
  pp_engine *e;

  if (n == NULL)
    return NULL;
  e = &n->engine;
  hooks = pp_engine_hooks(e);
  e->custom = pp_send_userdata;
  n->options.jobs = -1;
  e->options = &n->options;
  e->nest = n;
  e->bell = e->shm = e->ctl = e->cwd = -1;
  e->out[0] = stdout;
  e->out[1] = stderr;
  e->blobs.dropped = on_dropped;
  e->blobs.ud = n;
  pthread_mutex_init(&e->lock, NULL);
  e->codec = pp_codec_new(L, PP_CODEC_SUBMITTER, &hooks);
  if (e->codec == NULL) {
    free(n);
    return NULL;
  }
  return n;
}

void pp_nest_start(pp_nest *n, pp_runner *r, const pp_nest_ops *ops, void *ud,
                   pp_hold *hold) {
  n->hold = hold;
  n->engine.scratch.home = &hold->home;
  n->runner = r;
  n->ops = ops;
  n->ud = ud;
  n->engine.pid = getpid();
  pp_engine_set(&n->engine);
}
