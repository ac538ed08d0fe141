/* SPDX-License-Identifier: MIT */
#include "agents.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
  REQUEST_IDENTITIES = 11,
  IDENTITIES_ANSWER = 12,
  SIGN_REQUEST = 13,
  SIGN_RESPONSE = 14,
  KEEP_MS = 3000,
};

typedef struct list {
  struct list *next;
  uint64_t at; /* uv_now when it came; 0: none yet */
  pp_buf reply;
  char socket[];
} list;

struct pp_agent_request {
  pp_agents *a;
  uv_pipe_t pipe;
  uv_timer_t later; /* for answers that are there already, and failures */
  uv_connect_t connect;
  uv_write_t write;
  list *list; /* of a list request */
  pp_buf out, in;
  void (*listed)(void *ud, const pp_agent_key *keys, size_t n, const char *why);
  void (*is_signed)(void *ud, const unsigned char *sig, size_t n,
                    const char *why);
  void *ud;
  const char *why;
  bool have; /* the reply need not be fetched */
  bool dropped, over;
  int open;
};

struct pp_agents {
  uv_loop_t *loop;
  list *lists;
  int open;
  bool closing;
  void (*closed)(void *ud);
  void *ud;
};

pp_agents *pp_agents_new(uv_loop_t *loop) {
  pp_agents *a = calloc(1, sizeof *a);

  if (a != NULL)
    a->loop = loop;
  return a;
}

static void end(pp_agents *a) {
  void (*closed)(void *ud) = a->closed;
  void *ud = a->ud;
  list *l;

  while ((l = a->lists) != NULL) {
    a->lists = l->next;
    pp_buf_clear(&l->reply);
    free(l);
  }
  free(a);
  if (closed != NULL)
    closed(ud);
}

void pp_agents_close(pp_agents *a, void (*closed)(void *ud), void *ud) {
  if (a == NULL)
    return;
  a->closing = true;
  a->closed = closed;
  a->ud = ud;
  if (a->open == 0)
    end(a);
}

static list *list_of(pp_agents *a, const char *socket) {
  size_t n = strlen(socket) + 1;
  list *l;

  for (l = a->lists; l != NULL; l = l->next)
    if (strcmp(l->socket, socket) == 0)
      return l;
  if ((l = calloc(1, sizeof *l + n)) == NULL)
    return NULL;
  memcpy(l->socket, socket, n);
  l->next = a->lists;
  a->lists = l;
  return l;
}

static int get32(pp_rd *r, uint32_t *v) {
  const unsigned char *p;

  if (pp_rd_bytes(r, 4, &p) != 0)
    return PP_EBAD;
  *v = (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
  return 0;
}

static int get_string(pp_rd *r, const unsigned char **p, uint32_t *n) {
  return get32(r, n) != 0 ? PP_EBAD : pp_rd_bytes(r, *n, p);
}

static int put32(pp_buf *b, size_t v) {
  unsigned char p[4] = {(unsigned char)(v >> 24), (unsigned char)(v >> 16),
                        (unsigned char)(v >> 8), (unsigned char)v};

  return pp_buf_put(b, p, 4);
}

static int put_string(pp_buf *b, const void *p, size_t n) {
  return put32(b, n) != 0 ? PP_ENOMEM : pp_buf_put(b, p, n);
}

/* --- answers ----------------------------------------------------------------
 */

static void give_list(pp_agent_request *r, const pp_buf *reply) {
  pp_rd in = pp_rd_of(reply->data, reply->len);
  pp_agent_key *keys = NULL;
  char(*comments)[256] = NULL;
  unsigned char type = 0;
  uint32_t count, n, i;
  const unsigned char *p;
  const char *why = NULL;

  if (pp_rd_byte(&in, &type) != 0 || type != IDENTITIES_ANSWER ||
      get32(&in, &count) != 0 || count > PP_AGENT_KEYS_MAX) {
    r->listed(r->ud, NULL, 0, "the agent did not say which keys it has");
    return;
  }
  keys = calloc(count + 1, sizeof *keys);
  comments = calloc(count + 1, sizeof *comments);
  for (i = 0; keys != NULL && comments != NULL && i < count; i++) {
    if (get_string(&in, &keys[i].blob, &n) != 0)
      break;
    keys[i].len = n;
    if (get_string(&in, &p, &n) != 0)
      break;
    if (n > sizeof *comments - 1)
      n = sizeof *comments - 1;
    memcpy(comments[i], p, n);
    keys[i].comment = comments[i];
  }
  if (keys == NULL || comments == NULL)
    i = 0, why = "not enough memory";
  r->listed(r->ud, keys, i, why);
  free(keys);
  free(comments);
}

static void give_signature(pp_agent_request *r, const pp_buf *reply) {
  pp_rd in = pp_rd_of(reply->data, reply->len), sig;
  const unsigned char *p;
  unsigned char type = 0;
  uint32_t n;

  if (pp_rd_byte(&in, &type) == 0 && type == SIGN_RESPONSE &&
      get_string(&in, &p, &n) == 0) {
    sig = pp_rd_of(p, n);
    if (get_string(&sig, &p, &n) == 0 && get_string(&sig, &p, &n) == 0) {
      r->is_signed(r->ud, p, n, NULL);
      return;
    }
  }
  r->is_signed(r->ud, NULL, 0, "the agent refused to sign");
}

static void on_closed(uv_handle_t *h) {
  pp_agent_request *r = h->data;
  pp_agents *a = r->a;

  if (--r->open > 0)
    return;
  pp_buf_clear(&r->out);
  pp_buf_clear(&r->in);
  free(r);
  if (--a->open == 0 && a->closing)
    end(a);
}

static void close_all(pp_agent_request *r) {
  if (r->over)
    return;
  r->over = true;
  uv_close((uv_handle_t *)&r->pipe, on_closed);
  uv_close((uv_handle_t *)&r->later, on_closed);
}

static void give(pp_agent_request *r) {
  if (r->over)
    return;
  if (!r->dropped && r->listed != NULL) {
    if (r->why != NULL)
      r->listed(r->ud, NULL, 0, r->why);
    else
      give_list(r, r->have ? &r->list->reply : &r->in);
  } else if (!r->dropped) {
    if (r->why != NULL)
      r->is_signed(r->ud, NULL, 0, r->why);
    else
      give_signature(r, &r->in);
  }
  r->dropped = true;
  close_all(r);
}

static void on_later(uv_timer_t *timer) { give(timer->data); }

static void fail(pp_agent_request *r, const char *why) {
  r->why = why;
  uv_timer_start(&r->later, on_later, 0, 0);
}

/* --- the connection ------------------------------------------------------- */

static void on_alloc(uv_handle_t *h, size_t suggested, uv_buf_t *buf) {
  pp_agent_request *r = h->data;

  (void)suggested;
  if (pp_buf_reserve(&r->in, 4096) != 0)
    *buf = uv_buf_init(NULL, 0);
  else
    *buf = uv_buf_init((char *)r->in.data + r->in.len, 4096);
}

static void on_read(uv_stream_t *s, ssize_t n, const uv_buf_t *buf) {
  pp_agent_request *r = s->data;
  pp_rd in;
  uint32_t len;

  (void)buf;
  if (n == 0)
    return;
  if (n < 0) {
    fail(r, "the agent closed the connection");
    return;
  }
  r->in.len += (size_t)n;
  in = pp_rd_of(r->in.data, r->in.len);
  if (get32(&in, &len) != 0)
    return;
  if (len > PP_AGENT_REPLY_MAX) {
    fail(r, "the agent's reply is too long");
    return;
  }
  if (pp_rd_left(&in) < len)
    return;
  uv_read_stop(s);
  memmove(r->in.data, in.p, len);
  r->in.len = len;
  if (r->list != NULL) {
    r->list->reply.len = 0;
    if (pp_buf_put(&r->list->reply, r->in.data, r->in.len) == 0)
      r->list->at = uv_now(r->a->loop);
    else
      r->list->at = 0;
  }
  give(r);
}

static void on_written(uv_write_t *w, int status) {
  pp_agent_request *r = w->data;

  if (status != 0 && status != UV_ECANCELED)
    fail(r, "the agent closed the connection");
}

static void on_connect(uv_connect_t *c, int status) {
  pp_agent_request *r = c->data;
  uv_buf_t b;

  if (status == UV_ECANCELED)
    return;
  if (status != 0) {
    fail(r, "the agent cannot be reached");
    return;
  }
  b = uv_buf_init((char *)r->out.data, (unsigned)r->out.len);
  r->write.data = r;
  if (uv_write(&r->write, (uv_stream_t *)&r->pipe, &b, 1, on_written) != 0 ||
      uv_read_start((uv_stream_t *)&r->pipe, on_alloc, on_read) != 0)
    fail(r, "the agent cannot be reached");
}

static pp_agent_request *new_request(pp_agents *a, void *ud) {
  pp_agent_request *r = calloc(1, sizeof *r);

  if (r == NULL)
    return NULL;
  r->a = a;
  r->ud = ud;
  uv_pipe_init(a->loop, &r->pipe, 0);
  uv_timer_init(a->loop, &r->later);
  r->pipe.data = r->later.data = r->connect.data = r;
  r->open = 2;
  a->open++;
  return r;
}

pp_agent_request *pp_agents_list(pp_agents *a, const char *socket,
                                 void (*listed)(void *ud,
                                                const pp_agent_key *keys,
                                                size_t n, const char *why),
                                 void *ud) {
  static const unsigned char ask[] = {0, 0, 0, 1, REQUEST_IDENTITIES};
  list *l = list_of(a, socket);
  pp_agent_request *r = l != NULL ? new_request(a, ud) : NULL;

  if (r == NULL)
    return NULL;
  r->listed = listed;
  r->list = l;
  if (l->at != 0 && uv_now(a->loop) - l->at < KEEP_MS) {
    r->have = true;
    uv_timer_start(&r->later, on_later, 0, 0);
  } else if (pp_buf_put(&r->out, ask, sizeof ask) != 0) {
    fail(r, "not enough memory");
  } else {
    uv_pipe_connect(&r->connect, &r->pipe, socket, on_connect);
  }
  return r;
}

pp_agent_request *
pp_agents_sign(pp_agents *a, const char *socket, const void *blob, size_t nblob,
               const void *data, size_t ndata,
               void (*is_signed)(void *ud, const unsigned char *sig, size_t n,
                                 const char *why),
               void *ud) {
  pp_agent_request *r = new_request(a, ud);

  if (r == NULL)
    return NULL;
  r->is_signed = is_signed;
  if (put32(&r->out, 1 + 4 + nblob + 4 + ndata + 4) != 0 ||
      pp_buf_byte(&r->out, SIGN_REQUEST) != 0 ||
      put_string(&r->out, blob, nblob) != 0 ||
      put_string(&r->out, data, ndata) != 0 || put32(&r->out, 0) != 0)
    fail(r, "not enough memory");
  else
    uv_pipe_connect(&r->connect, &r->pipe, socket, on_connect);
  return r;
}

void pp_agents_drop(pp_agent_request *r) {
  if (r == NULL || r->dropped)
    return;
  r->dropped = true;
  close_all(r);
}
