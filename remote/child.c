/* SPDX-License-Identifier: MIT */
#include "child.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "stream_impl.h"
#include "writer.h"

enum { PATIENCE_MS = 2000 };

struct pp_child {
  pp_net *net;
  pp_child_events events;
  void *ud;
  uv_process_t process;
  uv_pipe_t pipe, err;
  uv_timer_t timer; /* until SIGKILL; or until what was left behind is read */
  uv_shutdown_t shutdown;
  pp_outq out;
  pp_writer writer;
  int open;
  void (*guard)(void *ud, int pid, bool on); /* the net's, which it outlives */
  void *guard_ud;
  bool closed, running, eof, err_eof, ending, shut, broken, said;
  int64_t status;
  int signal;
};

static void on_closed(uv_handle_t *h) {
  pp_child *c = h->data;

  if (--c->open > 0)
    return;
  pp_outq_clear(&c->out);
  free(c);
}

static void close_handle(pp_child *c, void *h) {
  (void)c;
  if (!uv_is_closing(h))
    uv_close(h, on_closed);
}

/* All handles but the process, which stays until it was reaped. */
static void close_pipes(pp_child *c) {
  close_handle(c, &c->pipe);
  close_handle(c, &c->err);
}

static void tell_end(pp_child *c) {
  if (c->said || c->closed)
    return;
  c->said = true;
  c->events.ended(c->ud, c->status, c->signal);
}

/* It leads a group, in which is what it has started. */
static void end_group(pp_child *c, int signal) {
  if (kill(-c->process.pid, signal) != 0)
    uv_process_kill(&c->process, signal);
}

static void guard(const pp_child *c, bool on) {
  if (c->guard != NULL)
    c->guard(c->guard_ud, c->process.pid, on);
}

static void on_patience(uv_timer_t *t) {
  pp_child *c = t->data;

  if (c->running)
    end_group(c, SIGKILL);
  else
    tell_end(c); /* somebody else holds its stdout open */
}

static void maybe_end(pp_child *c) {
  if (c->running)
    return;
  if (c->eof && c->err_eof)
    tell_end(c);
  else if (!c->closed)
    uv_timer_start(&c->timer, on_patience, 200, 0);
}

static void on_exit_of_child(uv_process_t *p, int64_t status, int signal) {
  pp_child *c = p->data;

  c->running = false;
  c->status = status;
  c->signal = signal;
  if (c->closed) /* what it has left goes, too */
    kill(-p->pid, SIGKILL);
  guard(c, false);
  close_handle(c, p);
  if (c->closed)
    close_handle(c, &c->timer);
  else
    maybe_end(c);
}

static void on_alloc(uv_handle_t *h, size_t suggested, uv_buf_t *buf) {
  pp_child *c = h->data;

  (void)suggested;
  *buf = uv_buf_init((char *)c->net->input, PP_NET_INPUT);
}

static void on_read(uv_stream_t *s, ssize_t n, const uv_buf_t *buf) {
  pp_child *c = s->data;

  if (n > 0) {
    if (!c->closed)
      c->events.input(c->ud, (unsigned char *)buf->base, (size_t)n);
  } else if (n < 0) {
    c->eof = true;
    uv_read_stop(s);
    maybe_end(c);
  }
}

static void on_read_err(uv_stream_t *s, ssize_t n, const uv_buf_t *buf) {
  pp_child *c = s->data;

  if (n > 0) {
    if (!c->closed)
      c->events.errors(c->ud, buf->base, (size_t)n);
  } else if (n < 0) {
    c->err_eof = true;
    uv_read_stop(s);
    maybe_end(c);
  }
}

static void on_shutdown(uv_shutdown_t *req, int status) {
  (void)req;
  (void)status;
}

static void maybe_shut(pp_child *c) {
  if (c->ending && !c->shut && !c->closed && c->out.len == 0 &&
      !c->writer.busy) {
    c->shut = true;
    uv_shutdown(&c->shutdown, (uv_stream_t *)&c->pipe, on_shutdown);
  }
}

static void moved(void *ud, int status) {
  pp_child *c = ud;

  if (c->closed)
    return;
  if (status != 0)
    c->broken = true;
  if (c->broken)
    pp_outq_consume(&c->out, c->out.len);
  maybe_shut(c);
  c->events.moved(c->ud);
}

pp_outq *pp_child_queue(pp_child *c) { return &c->out; }

size_t pp_child_flush(pp_child *c) {
  size_t before = c->out.len;

  if (!c->broken && pp_writer_flush(&c->writer) < 0)
    c->broken = true;
  if (c->broken && !c->writer.busy)
    pp_outq_consume(&c->out, c->out.len);
  maybe_shut(c);
  return before - c->out.len;
}

void pp_child_end(pp_child *c) {
  c->ending = true;
  maybe_shut(c);
}

void pp_child_pause(pp_child *c, bool paused) {
  if (c->closed || c->eof)
    return;
  if (paused)
    uv_read_stop((uv_stream_t *)&c->pipe);
  else
    uv_read_start((uv_stream_t *)&c->pipe, on_alloc, on_read);
}

int pp_child_pid(const pp_child *c) { return c->process.pid; }

int pp_child_fd(const pp_child *c) {
  uv_os_fd_t fd = -1;

  uv_fileno((const uv_handle_t *)&c->pipe, &fd);
  return fd;
}

pp_child *pp_child_open(pp_net *net, char *const argv[], char *const env[],
                        const pp_child_events *events, void *ud, int *error) {
  pp_child *c = calloc(1, sizeof *c);
  uv_stdio_container_t stdio[3];
  uv_process_options_t o;
  int sv[2], r;

  if (c == NULL) {
    *error = UV_ENOMEM;
    return NULL;
  }
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) != 0) {
    *error = -errno;
    free(c);
    return NULL;
  }
  c->net = net;
  c->guard = net->o.guard;
  c->guard_ud = net->o.ud;
  c->events = *events;
  c->ud = ud;
  uv_pipe_init(net->loop, &c->pipe, 0);
  uv_pipe_init(net->loop, &c->err, 0);
  uv_timer_init(net->loop, &c->timer);
  c->pipe.data = c->err.data = c->timer.data = c->process.data = c;
  c->writer.to = (uv_stream_t *)&c->pipe;
  c->writer.q = &c->out;
  c->writer.moved = moved;
  c->writer.ud = c;
  if ((r = uv_pipe_open(&c->pipe, sv[0])) != 0)
    close(sv[0]);
  memset(&o, 0, sizeof o);
  o.file = argv[0];
  o.args = (char **)argv;
  o.env = (char **)env;
  o.flags = UV_PROCESS_DETACHED;
  o.exit_cb = on_exit_of_child;
  o.stdio_count = 3;
  o.stdio = stdio;
  stdio[0].flags = stdio[1].flags = UV_INHERIT_FD;
  stdio[0].data.fd = stdio[1].data.fd = sv[1];
  stdio[2].flags = UV_CREATE_PIPE | UV_WRITABLE_PIPE;
  stdio[2].data.stream = (uv_stream_t *)&c->err;
  if (r == 0)
    r = uv_spawn(net->loop, &c->process, &o);
  else
    uv_timer_init(net->loop, (uv_timer_t *)&c->process); /* to be closed */
  c->process.data = c;
  c->open = 4;
  close(sv[1]);
  if (r != 0) {
    *error = r;
    c->closed = true;
    close_pipes(c);
    close_handle(c, &c->timer);
    close_handle(c, &c->process);
    return NULL;
  }
  c->running = true;
  guard(c, true);
  uv_read_start((uv_stream_t *)&c->pipe, on_alloc, on_read);
  uv_read_start((uv_stream_t *)&c->err, on_alloc, on_read_err);
  return c;
}

void pp_child_close(pp_child *c) {
  if (c == NULL || c->closed)
    return;
  c->closed = true;
  close_pipes(c);
  if (c->running) {
    end_group(c, SIGTERM);
    uv_timer_start(&c->timer, on_patience, PATIENCE_MS, 0);
  } else {
    close_handle(c, &c->timer);
  }
}
