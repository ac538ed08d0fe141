/* SPDX-License-Identifier: MIT */
#include "carrier.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "child.h"
#include "writer.h"

/* One attempt at one address; closes on its own when it failed. */
typedef struct wire {
  uv_tcp_t tcp;
  uv_connect_t connect;
  pp_carrier *c; /* NULL: given up */
} wire;

struct pp_carrier {
  pp_net *net;
  const pp_target *t;
  pp_slot *slot;
  pp_carrier_events events;
  void *ud;
  uv_getaddrinfo_t resolve;
  uv_timer_t timer; /* connecting; and failing later */
  struct addrinfo *found, *next;
  struct sockaddr_storage peer;
  wire *wire;
  pp_child *child; /* a ProxyCommand */
  pp_outq out;
  pp_writer writer;
  int open; /* handles and requests that point here */
  bool resolving, closed, connected, failed;
  pp_end kind;
  int error;
  char why[PP_REASON_MAX];
  char said[200]; /* the last line of the ProxyCommand's stderr */
};

static void try_next(pp_carrier *c);

static void release(pp_carrier *c) {
  if (--c->open > 0)
    return;
  pp_outq_clear(&c->out);
  free(c);
}

static void timer_closed(uv_handle_t *h) { release(h->data); }

static void wire_closed(uv_handle_t *h) {
  wire *w = h->data;
  pp_carrier *c = w->c;

  free(w);
  release(c);
}

static void drop_wire(pp_carrier *c) {
  if (c->wire == NULL)
    return;
  uv_close((uv_handle_t *)&c->wire->tcp, wire_closed);
  c->wire = NULL;
}

static void on_failed(uv_timer_t *t) {
  pp_carrier *c = t->data;

  if (!c->closed)
    c->events.failed(c->ud, c->kind, c->error, c->why);
}

__attribute__((format(printf, 4, 5))) static void
fail(pp_carrier *c, pp_end kind, int error, const char *fmt, ...) {
  va_list ap;

  if (c->failed || c->closed)
    return;
  c->failed = true;
  c->kind = kind;
  c->error = error;
  va_start(ap, fmt);
  vsnprintf(c->why, sizeof c->why, fmt, ap);
  va_end(ap);
  uv_timer_start(&c->timer, on_failed, 0, 0);
}

/* --- bytes ---------------------------------------------------------------- */

static void on_alloc(uv_handle_t *h, size_t suggested, uv_buf_t *buf) {
  wire *w = h->data;

  (void)suggested;
  *buf = uv_buf_init((char *)w->c->net->input, PP_NET_INPUT);
}

static const char *how_lost(int error) {
  return error == UV_ETIMEDOUT ? "connection lost: the host does not answer"
         : error == UV_EOF     ? "connection closed by the other side"
                               : uv_strerror(error);
}

static void on_read(uv_stream_t *s, ssize_t n, const uv_buf_t *buf) {
  wire *w = s->data;
  pp_carrier *c = w->c;

  if (n > 0 && !c->closed)
    c->events.input(c->ud, (unsigned char *)buf->base, (size_t)n);
  else if (n < 0) {
    uv_read_stop(s);
    fail(c, PP_END_LOST, (int)n, "%s", how_lost((int)n));
  }
}

static void on_moved(void *ud, int status) {
  pp_carrier *c = ud;

  if (c->closed)
    return;
  if (status != 0)
    fail(c, PP_END_LOST, status, "%s", how_lost(status));
  else
    c->events.moved(c->ud);
}

pp_outq *pp_carrier_queue(pp_carrier *c) {
  return c->child != NULL ? pp_child_queue(c->child) : &c->out;
}

void pp_carrier_flush(pp_carrier *c) {
  ssize_t n;

  if (c->failed || c->closed || !c->connected)
    return;
  if (c->child != NULL) {
    pp_child_flush(c->child);
  } else if ((n = pp_writer_flush(&c->writer)) < 0) {
    /* What it said before it went may still be there to be read. */
    if (n != UV_EPIPE && n != UV_ECONNRESET)
      fail(c, PP_END_LOST, (int)n, "%s", how_lost((int)n));
  }
}

void pp_carrier_pause(pp_carrier *c, bool paused) {
  if (c->failed || c->closed || !c->connected)
    return;
  if (c->child != NULL)
    pp_child_pause(c->child, paused);
  else if (paused)
    uv_read_stop((uv_stream_t *)&c->wire->tcp);
  else
    uv_read_start((uv_stream_t *)&c->wire->tcp, on_alloc, on_read);
}

int pp_carrier_fd(const pp_carrier *c) {
  uv_os_fd_t fd = -1;

  if (c->child != NULL)
    return pp_child_fd(c->child);
  if (c->wire != NULL)
    uv_fileno((const uv_handle_t *)&c->wire->tcp, &fd);
  return fd;
}

const struct sockaddr *pp_carrier_peer(const pp_carrier *c) {
  return c->child == NULL ? (const struct sockaddr *)&c->peer : NULL;
}

/* --- TCP ------------------------------------------------------------------ */

static int timeout_of(const pp_carrier *c) {
  return c->t->connect_timeout > 0 ? c->t->connect_timeout : PP_CARRIER_TIMEOUT;
}

static void set_int(int fd, int level, int name, int value) {
  /* Not every kernel has all of them; none is needed to work. */
  (void)setsockopt(fd, level, name, &value, sizeof value);
}

static void set_options(int fd) {
  set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  set_int(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  set_int(fd, IPPROTO_TCP, TCP_KEEPIDLE, 3);
  set_int(fd, IPPROTO_TCP, TCP_KEEPINTVL, 2);
  set_int(fd, IPPROTO_TCP, TCP_KEEPCNT, 3);
  set_int(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, PP_CARRIER_SILENCE);
  set_int(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, PP_CARRIER_UNSENT);
}

static void give_up_address(pp_carrier *c, int error) {
  drop_wire(c);
  c->error = error;
  try_next(c);
}

static void on_timeout(uv_timer_t *t) {
  give_up_address(t->data, UV_ETIMEDOUT);
}

static void on_connect(uv_connect_t *req, int status) {
  wire *w = req->data;
  pp_carrier *c = w->c;

  if (status == UV_ECANCELED || c->closed || c->wire != w)
    return;
  uv_timer_stop(&c->timer);
  if (status != 0) {
    give_up_address(c, status);
    return;
  }
  freeaddrinfo(c->found);
  c->found = c->next = NULL;
  c->connected = true;
  set_options(pp_carrier_fd(c));
  c->writer.to = (uv_stream_t *)&w->tcp;
  c->writer.q = &c->out;
  c->writer.moved = on_moved;
  c->writer.ud = c;
  uv_read_start((uv_stream_t *)&w->tcp, on_alloc, on_read);
  c->events.connected(c->ud);
}

static int bind_to(pp_carrier *c, uv_tcp_t *tcp, int family) {
  struct sockaddr_storage a;

  if (c->t->bind_address == NULL)
    return 0;
  if ((family == AF_INET6
           ? uv_ip6_addr(c->t->bind_address, 0, (struct sockaddr_in6 *)&a)
           : uv_ip4_addr(c->t->bind_address, 0, (struct sockaddr_in *)&a)) != 0)
    return UV_EADDRNOTAVAIL;
  return uv_tcp_bind(tcp, (struct sockaddr *)&a, 0);
}

static void no_address_left(pp_carrier *c) {
  pp_end kind = PP_END_UNREACHABLE;
  int error = c->error, seconds = timeout_of(c);

  if (error == UV_ECONNREFUSED)
    kind = PP_END_REFUSED;
  else if (error == UV_ETIMEDOUT)
    kind = PP_END_TIMEOUT;
  else if (error == UV_EMFILE || error == UV_ENFILE || error == UV_ENOMEM)
    kind = PP_END_SYSTEM;
  if (kind == PP_END_TIMEOUT)
    fail(c, kind, error, "timed out after %d s", seconds);
  else if (kind == PP_END_REFUSED)
    fail(c, kind, error, "connection refused by port %d", c->t->port);
  else
    fail(c, kind, error, "%s", uv_strerror(error));
}

static void try_next(pp_carrier *c) {
  for (; c->next != NULL; c->next = c->next->ai_next) {
    const struct addrinfo *a = c->next;
    wire *w;
    int r;

    if (a->ai_addrlen > sizeof c->peer)
      continue;
    if ((w = calloc(1, sizeof *w)) == NULL) {
      c->error = UV_ENOMEM;
      break;
    }
    uv_tcp_init(c->net->loop, &w->tcp);
    w->tcp.data = w->connect.data = w;
    w->c = c;
    c->wire = w;
    c->open++;
    memcpy(&c->peer, a->ai_addr, a->ai_addrlen);
    if ((r = bind_to(c, &w->tcp, a->ai_family)) == 0)
      r = uv_tcp_connect(&w->connect, &w->tcp, a->ai_addr, on_connect);
    if (r == 0) {
      c->next = a->ai_next;
      uv_timer_start(&c->timer, on_timeout, (uint64_t)timeout_of(c) * 1000, 0);
      return;
    }
    c->error = r;
    drop_wire(c);
  }
  no_address_left(c);
}

/* --- a ProxyCommand ------------------------------------------------------- */

static void proxy_input(void *ud, const unsigned char *p, size_t n) {
  pp_carrier *c = ud;

  c->events.input(c->ud, p, n);
}

static void proxy_errors(void *ud, const char *p, size_t n) {
  pp_carrier *c = ud;
  size_t len = strlen(c->said), i;

  for (i = 0; i < n; i++) {
    if (p[i] == '\n' || p[i] == '\r') {
      if (len > 0)
        pp_net_log(c->net, PP_NET_INFO, "%s: ProxyCommand says: %s", c->t->name,
                   c->said);
      if (i + 1 < n && p[i + 1] != '\n')
        len = 0; /* the last line stays */
    } else if (len < sizeof c->said - 1) {
      c->said[len++] = p[i];
    }
    c->said[len] = '\0';
  }
}

static void proxy_moved(void *ud) {
  pp_carrier *c = ud;

  c->events.moved(c->ud);
}

static void proxy_ended(void *ud, int64_t status, int signal) {
  pp_carrier *c = ud;
  char said[sizeof c->said + 4] = "";

  if (c->said[0] != '\0')
    snprintf(said, sizeof said, ": %s", c->said);
  if (signal != 0)
    fail(c, PP_END_LOST, UV_EOF, "ProxyCommand was ended by signal %d%s",
         signal, said);
  else
    fail(c, PP_END_LOST, UV_EOF, "ProxyCommand ended with status %d%s",
         (int)status, said);
}

static void on_proxy_ready(uv_timer_t *t) {
  pp_carrier *c = t->data;
  static const pp_child_events events = {proxy_input, proxy_errors, proxy_moved,
                                         proxy_ended};
  const char *shell = getenv("SHELL");
  char *argv[4], *command;
  size_t n = strlen(c->t->proxy_command) + 6;
  int error = UV_ENOMEM;

  if (shell == NULL || *shell == '\0')
    shell = "/bin/sh";
  if ((command = malloc(n)) != NULL) {
    snprintf(command, n, "exec %s", c->t->proxy_command);
    argv[0] = (char *)shell;
    argv[1] = "-c";
    argv[2] = command;
    argv[3] = NULL;
    c->child = pp_child_open(c->net, argv, NULL, &events, c, &error);
    free(command);
  }
  if (c->child == NULL) {
    fail(c, PP_END_SYSTEM, error, "cannot start the ProxyCommand: %s",
         uv_strerror(error));
    return;
  }
  c->connected = true;
  c->events.connected(c->ud);
}

/* --- resolving ------------------------------------------------------------ */

static void on_place(void *ud) {
  pp_carrier *c = ud;

  if (c->closed)
    return;
  if (c->t->proxy_command != NULL)
    on_proxy_ready(&c->timer);
  else
    try_next(c);
}

static void on_place_at_once(uv_timer_t *t) { on_place(t->data); }

/* From the timer when there is a place at once: no event may come from within
 * pp_carrier_open. */
static void take_place(pp_carrier *c, const char *host) {
  switch (pp_throttle_enter(c->net->throttle, c->slot, host, c->t->port,
                            on_place, c)) {
  case 0:
    return;
  case 1:
    uv_timer_start(&c->timer, on_place_at_once, 0, 0);
    return;
  default:
    fail(c, PP_END_SYSTEM, UV_ENOMEM, "not enough memory");
  }
}

static void on_resolved(uv_getaddrinfo_t *req, int status,
                        struct addrinfo *found) {
  pp_carrier *c = req->data;
  char host[256] = "";

  c->resolving = false;
  if (c->closed || status != 0) {
    uv_freeaddrinfo(found);
    if (!c->closed && status == UV_ENOMEM)
      fail(c, PP_END_SYSTEM, status, "not enough memory");
    else if (!c->closed && !c->failed)
      fail(c, PP_END_RESOLVE, status, "the name '%s' does not resolve: %s",
           c->t->host, uv_strerror(status));
    release(c);
    return;
  }
  uv_timer_stop(&c->timer);
  if (c->failed) { /* it took too long */
    uv_freeaddrinfo(found);
  } else {
    c->found = c->next = found;
    getnameinfo(found->ai_addr, found->ai_addrlen, host, sizeof host, NULL, 0,
                NI_NUMERICHOST);
    take_place(c, host);
  }
  release(c);
}

static void on_resolve_timeout(uv_timer_t *t) {
  pp_carrier *c = t->data;

  fail(c, PP_END_TIMEOUT, UV_ETIMEDOUT,
       "timed out after %d s: the name '%s' is still being resolved",
       timeout_of(c), c->t->host);
}

static int start_resolving(pp_carrier *c) {
  struct addrinfo hints;
  char port[16];
  int r;

  memset(&hints, 0, sizeof hints);
  hints.ai_family = c->t->family;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
  snprintf(port, sizeof port, "%d", c->t->port);
  /* An address needs no thread. */
  if (getaddrinfo(c->t->host, port, &hints, &c->found) == 0) {
    char host[256] = "";

    c->next = c->found;
    getnameinfo(c->found->ai_addr, c->found->ai_addrlen, host, sizeof host,
                NULL, 0, NI_NUMERICHOST);
    take_place(c, host);
    return 0;
  }
  c->found = NULL;
  hints.ai_flags = AI_NUMERICSERV;
  c->resolve.data = c;
  r = uv_getaddrinfo(c->net->loop, &c->resolve, on_resolved, c->t->host, port,
                     &hints);
  if (r == 0) {
    c->resolving = true;
    c->open++;
    uv_timer_start(&c->timer, on_resolve_timeout,
                   (uint64_t)timeout_of(c) * 1000, 0);
  }
  return r;
}

pp_carrier *pp_carrier_open(pp_net *net, const pp_target *t, pp_slot *slot,
                            const pp_carrier_events *events, void *ud) {
  pp_carrier *c = calloc(1, sizeof *c);
  int r;

  if (c == NULL)
    return NULL;
  c->net = net;
  c->t = t;
  c->slot = slot;
  c->events = *events;
  c->ud = ud;
  uv_timer_init(net->loop, &c->timer);
  c->timer.data = c;
  c->open = 1;
  if (t->proxy_command != NULL)
    take_place(c, t->host);
  else if ((r = start_resolving(c)) != 0)
    fail(c, PP_END_RESOLVE, r, "the name '%s' does not resolve: %s", t->host,
         uv_strerror(r));
  return c;
}

void pp_carrier_close(pp_carrier *c) {
  if (c == NULL || c->closed)
    return;
  c->closed = true;
  if (c->slot->ud == c)
    pp_throttle_leave(c->net->throttle, c->slot);
  if (c->resolving)
    uv_cancel((uv_req_t *)&c->resolve);
  if (c->found != NULL)
    freeaddrinfo(c->found);
  c->found = c->next = NULL;
  drop_wire(c);
  pp_child_close(c->child);
  c->child = NULL;
  uv_close((uv_handle_t *)&c->timer, timer_closed);
}
