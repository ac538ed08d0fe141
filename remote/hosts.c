/* SPDX-License-Identifier: MIT */
#include "hosts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bootstrap.h"
#include "build_id.h"
#include "far.h"
#include "images.h"
#include "link.h"
#include "net.h"
#include "resolve.h"
#include "stream.h"
#include "zygote.h"

#define SECOND ((int64_t)1000000000)
/* Between tries: twice as long each time, up to this. */
#define RETRY_NS (SECOND / 2)
/* The agent may take so long from the shell's first word to its own. */
#define BOOT_NS (60 * SECOND)
#define RETRY_MOST_NS (30 * SECOND)
/* Calls of everywhere wait so long for a host from when it is first tried. */
#define DUE_NS (5 * SECOND)
/* CPUs that a host is believed to have. */
#define CPUS_MOST 1024u

enum state { RESOLVING, CONNECTING, UP, WAITING, FAILED, GONE };

typedef struct conn conn;
struct conn {
  conn *next;
  struct pp_remote *remote;
  pp_host host; /* owned strings */
  pp_hosts_how how;
  uint16_t name;
  enum state state;
  pp_node **nodes; /* of servers that use it */
  size_t n, cap;
  pp_resolving *resolving;
  pp_target *target;
  pp_stream *stream;
  pp_bootstrap *boot;
  pp_far *far; /* from the agent's first byte to the stream's end */
  uint32_t cpus;
  unsigned tries; /* since it was up, or began */
  int64_t began;  /* when it was first tried */
  int64_t retry_at, lost_at, up_at;
  int64_t losses[PP_HOST_LOSSES]; /* when, the last ones, in a ring */
  unsigned nlosses;
  bool was_up, told;
  bool final;       /* what ends the stream now will not change */
  int64_t opened;   /* when the stream was; 0: it is not yet */
  char said[200];   /* by its agent, on stderr: the last line */
  char reason[600]; /* why it is not up; "": it is, or is not known yet */
};

typedef struct pp_remote {
  pp_engine *engine;
  pp_net *net;
  pp_resolver *resolver[3]; /* by transport; NULL: none yet */
  conn *conns;
  bool ended;
} pp_remote;

static void resolve(conn *c);
static void again(conn *c, int64_t now);

/* --- nodes ---------------------------------------------------------------- */

static uint32_t width(const conn *c, const pp_node *n) {
  return n->server->console ? 1 : n->asked > 0 ? n->asked : c->cpus;
}

static void set_state(conn *c, enum state state) {
  static const uint8_t shown[] = {[RESOLVING] = PP_NODE_CONNECTING,
                                  [CONNECTING] = PP_NODE_CONNECTING,
                                  [UP] = PP_NODE_UP,
                                  [WAITING] = PP_NODE_CONNECTING,
                                  [FAILED] = PP_NODE_FAILED,
                                  [GONE] = PP_NODE_FAILED};

  c->state = state;
  for (size_t i = 0; i < c->n; i++) {
    pp_node *n = c->nodes[i];

    n->state = shown[state] == PP_NODE_CONNECTING && c->was_up ? PP_NODE_LOST
                                                               : shown[state];
    n->reason = c->reason;
    n->due = (state == RESOLVING || state == CONNECTING) && !c->was_up &&
                     c->tries == 0
                 ? c->began + DUE_NS
                 : 0;
  }
}

/* Do jobs wait for it? */
static bool expected(const conn *c, int64_t now) {
  switch (c->state) {
  case FAILED:
  case GONE:
    return false;
  case UP:
    return true;
  default:
    return c->was_up ? now - c->lost_at < PP_HOST_PATIENCE_NS
                     : c->tries == 0 || (c->tries < PP_HOST_TRIES &&
                                         now - c->began < PP_HOST_PATIENCE_NS);
  }
}

static void expect(conn *c, int64_t now) {
  bool is = expected(c, now);

  for (size_t i = 0; i < c->n; i++) {
    pp_node *n = c->nodes[i];

    if (n->leaving || n->expected == is)
      continue;
    n->expected = is;
    pp_server_want(n->server);
    if (!is)
      pp_server_hopeless(n->server);
  }
}

static void open_workers(conn *c, pp_node *n) {
  n->far = c->far;
  n->respawn_at = 0;
  n->refusals = 0;
  pp_everywhere_pardon_node(n);
  pp_node_resize(n, width(c, n));
}

static void close_workers(pp_node *n) {
  n->far = NULL;
  n->ncpus = 0;
  pp_server_want(n->server);
}

/* --- what the far side asks of us ----------------------------------------- */

static void far_write(void *ud, const void *p, size_t n) {
  conn *c = ud;

  if (c->stream != NULL && pp_stream_write(c->stream, p, n) == PP_ENOMEM)
    pp_stream_close(c->stream, "not enough memory");
}

static size_t far_queued(void *ud) {
  const conn *c = ud;

  return c->stream != NULL ? pp_stream_queued(c->stream) : 0;
}

static bool far_welcome(void *ud, uint32_t ncpus, const char *build,
                        const char *machine) {
  conn *c = ud;

  (void)build, (void)machine;
  c->cpus = ncpus < 1 ? 1 : ncpus > CPUS_MOST ? CPUS_MOST : ncpus;
  c->tries = 0;
  c->was_up = c->told = true;
  c->up_at = pp_now_ns();
  c->reason[0] = '\0';
  set_state(c, UP);
  pp_log(PP_LOG_INFO, "host '%s' is connected by %s: %u CPUs", c->host.name,
         pp_stream_transport(c->stream), ncpus);
  expect(c, c->up_at);
  for (size_t i = 0; i < c->n; i++)
    open_workers(c, c->nodes[i]);
  return true;
}

static void far_broken(void *ud, const char *why) {
  conn *c = ud;

  if (c->stream != NULL)
    pp_stream_close(c->stream, why);
}

static const pp_far_ops far_ops = {.write = far_write,
                                   .queued = far_queued,
                                   .welcome = far_welcome,
                                   .broken = far_broken};

/* --- trying --------------------------------------------------------------- */

static void fail(conn *c, const char *why) {
  snprintf(c->reason, sizeof c->reason, "%s", why);
  pp_log(PP_LOG_WARN, "host '%s' cannot be used: %s", c->host.name, c->reason);
  c->told = true;
  set_state(c, FAILED);
  expect(c, pp_now_ns());
}

/* Try again later. */
static void again(conn *c, int64_t now) {
  int64_t wait = RETRY_NS;

  for (unsigned i = 0; i < c->tries && wait < RETRY_MOST_NS; i++)
    wait *= 2;
  c->tries++;
  c->retry_at = now + (wait < RETRY_MOST_NS ? wait : RETRY_MOST_NS);
  set_state(c, WAITING);
  if (!c->told && !expected(c, now)) {
    c->told = true;
    pp_log(PP_LOG_WARN, "host '%s' cannot be used: %s; trying on", c->host.name,
           c->reason);
  }
  expect(c, now);
}

/* Will the next try go the same way? */
static bool is_final(pp_end kind) {
  return kind == PP_END_HOSTKEY || kind == PP_END_AUTH || kind == PP_END_EXEC ||
         kind == PP_END_CANCELLED || kind == PP_END_UNSUPPORTED;
}

/* It was up. True if it is set aside. */
static bool lose(conn *c, const char *why, int64_t now) {
  int64_t *oldest = &c->losses[c->nlosses++ % PP_HOST_LOSSES];
  char text[700];

  c->lost_at = now;
  if (c->nlosses < PP_HOST_LOSSES ||
      now - c->losses[c->nlosses % PP_HOST_LOSSES] > PP_HOST_LOSSES_NS) {
    *oldest = now;
    pp_log(PP_LOG_WARN, "host '%s' was lost: %s; trying to reach it again",
           c->host.name, why);
    return false;
  }
  *oldest = now;
  snprintf(text, sizeof text,
           "set aside after %u losses within 5 minutes, the last one: %s",
           PP_HOST_LOSSES, why);
  fail(c, text);
  return true;
}

static void let_go(conn *c);

/* Why an agent that was there is not any more, instead of `text`. */
static void agents_end(const conn *c, pp_end kind, const char *text, char *out,
                       size_t size) {
  static const char command[] = "the command ";
  size_t n = sizeof command - 1;

  if (kind == PP_END_EXIT && c->said[0] != '\0')
    snprintf(out, size, "its agent said: %s", c->said);
  else if ((kind == PP_END_EXIT || kind == PP_END_SIGNAL) &&
           strncmp(text, command, n) == 0)
    snprintf(out, size, "its agent %s", text + n);
  else
    snprintf(out, size, "%s", text);
}

static void tell_bytes(const conn *c) {
  const pp_press *z = c->far != NULL ? &c->far->press : NULL;

  pp_log(PP_LOG_DEBUG, "host '%s': %llu bytes went there, %llu came",
         c->host.name, (unsigned long long)pp_stream_sent(c->stream),
         (unsigned long long)pp_stream_received(c->stream));
  if (z == NULL || z->sent[0] + z->taken[0] == 0)
    return;
  pp_log(PP_LOG_DEBUG,
         "host '%s': of these, packed: %llu bytes as %llu went there, "
         "%llu as %llu came",
         c->host.name, (unsigned long long)z->sent[0],
         (unsigned long long)z->sent[1], (unsigned long long)z->taken[0],
         (unsigned long long)z->taken[1]);
}

static void on_closed(void *ud, pp_end kind, const char *text) {
  conn *c = ud;
  int64_t now = pp_now_ns();
  bool was_up = c->state == UP, final = is_final(kind);
  char why[600];

  if (c->boot != NULL && c->far == NULL && !c->final)
    text = pp_bootstrap_closed(c->boot, text);
  if (c->far != NULL)
    agents_end(c, kind, text, why, sizeof why);
  else
    snprintf(why, sizeof why, "%s", text);
  final = final || c->final;
  if (c->stream != NULL && c->opened > 0)
    tell_bytes(c);
  c->stream = NULL;
  c->opened = 0;
  pp_bootstrap_free(c->boot);
  c->boot = NULL;
  snprintf(c->reason, sizeof c->reason, "%s", why);
  if (c->state != GONE)
    set_state(c, WAITING);
  if (was_up)
    c->lost_at = now;
  if (c->far != NULL) {
    for (size_t i = 0; i < c->n; i++) {
      c->nodes[i]->ncpus = 0; /* first, so that no worker is started anew */
      c->nodes[i]->expected = !c->nodes[i]->leaving && expected(c, now);
    }
    pp_far_lost(c->far, why);
    for (size_t i = 0; i < c->n; i++)
      close_workers(c->nodes[i]);
    pp_far_free(c->far);
    c->far = NULL;
  }
  pp_target_free(c->target);
  c->target = NULL;
  if (c->state == GONE) {
    let_go(c);
    return;
  }
  if (was_up && lose(c, why, now))
    return;
  if (final)
    fail(c, why);
  else
    again(c, now);
}

static void on_data(void *ud, const void *p, size_t n) {
  conn *c = ud;
  const unsigned char *at = p;

  if (c->far == NULL) {
    size_t used = 0;

    switch (pp_bootstrap_data(c->boot, p, n, &used)) {
    case PP_BOOT_WAITING:
      return;
    case PP_BOOT_FAILED:
      c->final = true;
      pp_stream_close(c->stream, pp_bootstrap_reason(c->boot));
      return;
    default:
      break;
    }
    at += used;
    n -= used;
    c->far = pp_far_new(c->remote->engine,
                        pp_engine_name(c->remote->engine, c->name), &far_ops);
    if (c->far == NULL) {
      pp_stream_close(c->stream, "not enough memory");
      return;
    }
    c->far->ops.ud = c;
    pp_far_begin(c->far, pp_now_ns());
  }
  if (n > 0)
    pp_far_data(c->far, at, n);
}

static void on_opened(void *ud) {
  conn *c = ud;

  c->opened = pp_now_ns();
}

static void on_drained(void *ud) {
  conn *c = ud;

  if (c->far != NULL)
    pp_far_room(c->far);
}

/* A line that came from there, printable, in out. */
static void printable(const char *p, size_t n, char *out, size_t size) {
  size_t k = 0;

  for (; k < n && k < size - 1; k++)
    out[k] = (unsigned char)p[k] < ' ' || p[k] == 0x7f ? '?' : p[k];
  out[k] = '\0';
}

/* Keep a line of the agent's, without what it calls itself. */
static void note_said(conn *c, const char *p, size_t n) {
  static const char self[] = "ppsh agent: ";

  if (n > sizeof self - 1 && memcmp(p, self, sizeof self - 1) == 0)
    p += sizeof self - 1, n -= sizeof self - 1;
  printable(p, n, c->said, sizeof c->said);
}

static void on_errors(void *ud, const void *p, size_t n) {
  conn *c = ud;
  const char *s = p, *end = s + n;

  if (c->boot != NULL)
    pp_bootstrap_errors(c->boot, p, n);
  while (s < end) {
    const char *nl = memchr(s, '\n', (size_t)(end - s));
    size_t len = (size_t)((nl != NULL ? nl : end) - s);
    char line[300];

    if (len > 0) {
      if (c->far != NULL)
        note_said(c, s, len);
      printable(s, len, line, sizeof line);
      pp_log(PP_LOG_INFO, "host '%s' says: %s", c->host.name, line);
    }
    s += len + 1;
  }
}

static void nothing(void *ud) { (void)ud; }

static int boot_send(void *ud, const void *p, size_t n) {
  conn *c = ud;

  return pp_stream_give(c->stream, p, n, nothing, NULL);
}

static void boot_log(void *ud, const char *text) {
  const conn *c = ud;

  pp_log(PP_LOG_DEBUG, "host '%s': %s", c->host.name, text);
}

static void on_resolved(void *ud, pp_target *t, const char *reason) {
  static const pp_stream_events events = {.opened = on_opened,
                                          .data = on_data,
                                          .drained = on_drained,
                                          .errors = on_errors,
                                          .closed = on_closed};
  conn *c = ud;

  c->resolving = NULL;
  if (t == NULL) {
    fail(c, reason);
    return;
  }
  c->target = t;
  c->said[0] = '\0';
  c->final = false;
  c->boot = pp_bootstrap_new(&(pp_bootstrap_options){
      .images = pp_agent_images,
      .n = pp_agent_nimages,
      .installed = c->how.installed ? PP_BUILD_ID : NULL,
      .send = boot_send,
      .log = boot_log,
      .ud = c});
  if (c->boot != NULL)
    c->stream = pp_stream_open(c->remote->net, t, pp_bootstrap_command(c->boot),
                               &events, c);
  if (c->stream == NULL) {
    pp_bootstrap_free(c->boot);
    c->boot = NULL;
    pp_target_free(t);
    c->target = NULL;
    snprintf(c->reason, sizeof c->reason, "not enough memory");
    again(c, pp_now_ns());
    return;
  }
  set_state(c, CONNECTING);
}

static void resolve(conn *c) {
  pp_remote *r = c->remote;
  pp_resolver **v = &r->resolver[c->how.transport];

  if (c->tries == 0)
    c->began = pp_now_ns();
  set_state(c, RESOLVING);
  if (*v == NULL) {
    pp_resolver_options o = {.transport = c->how.transport};

    *v = pp_resolver_new(&r->engine->loop, &o);
  }
  if (*v != NULL)
    c->resolving = pp_config_resolve(*v, &c->host, on_resolved, c);
  if (c->resolving == NULL) {
    snprintf(c->reason, sizeof c->reason, "not enough memory");
    again(c, pp_now_ns());
  }
}

/* --- connections ---------------------------------------------------------- */

static void free_conn(conn *c) {
  free(c->host.name);
  free(c->host.host);
  free(c->host.user);
  free(c->nodes);
  free(c);
}

/* Nobody uses it any more, and its stream is gone. */
static void let_go(conn *c) {
  conn **p = &c->remote->conns;

  while (*p != c)
    p = &(*p)->next;
  *p = c->next;
  free_conn(c);
}

static void close_conn(conn *c, const char *why) {
  enum state was = c->state;

  c->state = GONE;
  if (c->resolving != NULL) {
    pp_config_cancel(c->resolving);
    c->resolving = NULL;
  }
  if (c->stream != NULL)
    pp_stream_close(c->stream, why);
  else if (was != GONE)
    let_go(c);
}

static char *copy(const char *s) { return s != NULL ? strdup(s) : NULL; }

static conn *new_conn(pp_remote *r, const pp_host *h, const pp_hosts_how *how) {
  conn *c = calloc(1, sizeof *c);

  if (c == NULL)
    return NULL;
  c->remote = r;
  c->host = *h;
  c->how = *how;
  c->host.name = copy(h->name);
  c->host.host = copy(h->host);
  c->host.user = copy(h->user);
  c->name = pp_engine_named(r->engine, h->name);
  if (c->host.name == NULL || c->host.host == NULL || c->name == 0 ||
      (h->user != NULL && c->host.user == NULL)) {
    free_conn(c);
    return NULL;
  }
  c->next = r->conns;
  r->conns = c;
  return c;
}

static bool same(const conn *c, const pp_host *h, const pp_hosts_how *how) {
  const char *a = c->host.user, *b = h->user;

  return c->state != GONE && strcmp(c->host.name, h->name) == 0 &&
         c->host.port == h->port && c->how.transport == how->transport &&
         c->how.installed == how->installed &&
         (a == b || (a != NULL && b != NULL && strcmp(a, b) == 0)) &&
         c->host.workers == h->workers;
}

/* n uses it no more. */
static void detach(conn *c, pp_node *n) {
  for (size_t i = 0; i < c->n; i++)
    if (c->nodes[i] == n) {
      c->nodes[i] = c->nodes[--c->n];
      break;
    }
  n->conn = NULL;
  n->expected = false;
  n->release = NULL;
  if (c->n == 0)
    close_conn(c, "it is not needed any more");
}

static void release(pp_node *n) {
  conn *c = n->conn;

  n->reason = NULL;
  detach(c, n);
}

static int attach(pp_node *n, conn *c) {
  if (c->n == c->cap) {
    size_t cap = c->cap ? c->cap * 2 : 2;
    pp_node **v = realloc(c->nodes, cap * sizeof(pp_node *));

    if (v == NULL)
      return PP_ENOMEM;
    c->nodes = v;
    c->cap = cap;
  }
  c->nodes[c->n++] = n;
  n->conn = c;
  n->release = release;
  n->leaving = false;
  return 0;
}

/* --- the engine's --------------------------------------------------------- */

static void on_log(void *ud, pp_net_level level, const char *text) {
  static const int levels[] = {[PP_NET_ERROR] = PP_LOG_ERROR,
                               [PP_NET_WARN] = PP_LOG_WARN,
                               [PP_NET_INFO] = PP_LOG_INFO,
                               [PP_NET_DEBUG] = PP_LOG_DEBUG};

  (void)ud;
  pp_log(levels[level], "%s", text);
}

static void guard(void *ud, int pid, bool on) {
  const pp_engine *e = ud;
  pp_zreq req = {.op = on ? PP_Z_GUARD : PP_Z_UNGUARD, .number = (uint32_t)pid};

  if (!e->zygote_gone)
    pp_zygote_send(e->ctl, &req, NULL, 0);
}

static int64_t tick(pp_engine *e, int64_t now) {
  pp_remote *r = e->remote;
  int64_t next = -1;

  for (conn *c = r->conns, *after; c != NULL; c = after) {
    after = c->next;
    for (size_t i = c->n; i-- > 0;)
      if (c->nodes[i]->leaving && c->nodes[i]->alive == 0) {
        pp_node *n = c->nodes[i];
        bool last = c->n == 1;

        n->far = NULL;
        n->state = PP_NODE_REMOVED;
        n->reason = NULL;
        detach(c, n);
        pp_server_hopeless(n->server);
        if (last)
          goto on;
      }
    if (c->state == WAITING) {
      if (now >= c->retry_at)
        resolve(c);
      else if (next < 0 || c->retry_at < next)
        next = c->retry_at;
    }
    if (c->state == CONNECTING && c->opened > 0) {
      int64_t due = c->opened + BOOT_NS;

      if (now >= due && c->far == NULL)
        pp_stream_close(c->stream, pp_bootstrap_stalled(c->boot));
      else if (now < due && (next < 0 || due < next))
        next = due;
    }
    expect(c, now);
  on:;
  }
  return next;
}

static void end(pp_engine *e) {
  pp_remote *r = e->remote;
  int64_t until = pp_now_ns() + SECOND / 2;

  r->ended = true;
  for (conn *c = r->conns, *after; c != NULL; c = after) {
    after = c->next;
    for (size_t i = 0; i < c->n; i++) {
      c->nodes[i]->conn = NULL;
      c->nodes[i]->release = NULL;
    }
    c->n = 0;
    if (c->far != NULL)
      pp_far_bye(c->far);
    close_conn(c, "ppsh ends");
  }
  while (r->conns != NULL && pp_now_ns() < until)
    uv_run(&e->loop, UV_RUN_NOWAIT);
}

static pp_remote *remote_of(pp_engine *e) {
  static const pp_remote_ops ops = {tick, end};
  pp_remote *r = e->remote;
  pp_net_options o = {.log = on_log, .guard = guard, .ud = e};

  if (r != NULL)
    return r;
  r = calloc(1, sizeof *r);
  if (r == NULL)
    return NULL;
  r->engine = e;
  r->net = pp_net_new(&e->loop, &o);
  if (r->net == NULL) {
    free(r);
    return NULL;
  }
  e->remote = r;
  e->remote_ops = &ops;
  return r;
}

static conn *conn_for(pp_remote *r, const pp_host *h, const pp_hosts_how *how) {
  for (conn *c = r->conns; c != NULL; c = c->next)
    if (same(c, h, how))
      return c;
  return new_conn(r, h, how);
}

static int attach_host(pp_server *s, pp_remote *r, const pp_host *h,
                       const pp_hosts_how *how) {
  uint16_t name = pp_engine_named(s->engine, h->name);
  pp_node *n = s->local->next;
  int64_t now = pp_now_ns();
  conn *c;

  if (name == 0)
    return PP_ENOMEM;
  while (n != NULL && n->name != name)
    n = n->next;
  if (n == NULL && (n = pp_node_add(s, name)) == NULL)
    return PP_ENOMEM;
  c = n->conn;
  if (c != NULL && !same(c, h, how) && c->state != UP && n->alive == 0) {
    n->reason = NULL;
    detach(c, n); /* what is to be tried is not what was */
    c = NULL;
  }
  if (c == NULL || n->leaving || h->workers > 0)
    n->asked = (uint32_t)h->workers;
  if (c == NULL) {
    c = conn_for(r, h, how);
    if (c == NULL || attach(n, c) != 0)
      return PP_ENOMEM;
  }
  n->leaving = false;
  if (c->state == UP) {
    n->expected = true;
    n->state = PP_NODE_UP;
    open_workers(c, n);
    return 0;
  }
  if (c->state == FAILED ||
      (c->tries == 0 && c->resolving == NULL && c->stream == NULL)) {
    c->tries = c->nlosses = 0;
    c->was_up = c->told = false;
    c->reason[0] = '\0';
    resolve(c);
  }
  set_state(c, c->state);
  expect(c, now);
  return 0;
}

int pp_hosts_attach(pp_server *s, const pp_hosts *set,
                    const pp_hosts_how *how) {
  pp_remote *r = remote_of(s->engine);

  if (r == NULL)
    return PP_ENOMEM;
  for (size_t i = 0; i < set->n; i++)
    if (attach_host(s, r, &set->v[i], how) != 0)
      return PP_ENOMEM;
  return 0;
}

void pp_hosts_remove_node(pp_node *n) {
  if (n->conn == NULL || n->leaving)
    return;
  n->leaving = true;
  n->expected = false;
  pp_node_resize(n, 0);
  pp_server_hopeless(n->server);
}
