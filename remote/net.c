/* SPDX-License-Identifier: MIT */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agents.h"
#include "stream_impl.h"

/* Streams written to by events of others are flushed in the same go; if that
 * does not end, the loop does not sleep. */
static void flush_dirty(pp_net *net) {
  pp_stream *s, *next;
  int round;

  for (round = 0; net->dirty != NULL && round < 4; round++) {
    s = net->dirty;
    net->dirty = NULL;
    for (; s != NULL; s = next) {
      next = s->dirty_next;
      s->dirty_next = NULL;
      s->dirty = false;
      if (s->ops != NULL && s->opened && !s->closing)
        s->ops->flush(s);
    }
  }
  if (net->dirty != NULL)
    pp_net_wake(net);
}

static void on_prepare(uv_prepare_t *h) { flush_dirty(h->data); }

static void on_check(uv_check_t *h) {
  pp_net *net = h->data;

  if (net->finished == NULL && net->resumed == NULL)
    uv_idle_stop(&net->idle);
  flush_dirty(net);
}

/* Nothing is left to be done but to let the loop sleep. */
static void on_last_check(uv_check_t *h) {
  pp_net *net = h->data;

  uv_idle_stop(&net->idle);
  uv_check_stop(&net->check);
}

void pp_net_watch(pp_net *net) {
  uv_check_stop(&net->check);
  uv_prepare_start(&net->prepare, on_prepare);
  uv_check_start(&net->check, on_check);
}

void pp_net_flush(pp_net *net) { flush_dirty(net); }

uv_loop_t *pp_net_loop(pp_net *net) { return net->loop; }

void pp_net_cancel_questions(pp_net *net) { pp_ask_cancel(net->ask); }

void pp_net_log(pp_net *net, pp_net_level level, const char *fmt, ...) {
  char text[1024], *p;
  va_list ap;

  if (net->o.log == NULL)
    return;
  va_start(ap, fmt);
  vsnprintf(text, sizeof text, fmt, ap);
  va_end(ap);
  /* Some of it may come from far away. */
  for (p = text; *p != '\0'; p++)
    if ((unsigned char)*p < 0x20 || *p == 0x7f)
      *p = '?';
  net->o.log(net->o.ud, level, text);
}

static void last_words(pp_stream *s) {
  pp_net *net = s->net;

  if (s->events.closed != NULL)
    s->events.closed(s->ud, s->end, s->reason);
  pp_outq_clear(&s->out);
  if (s->prev != NULL)
    s->prev->next = s->next;
  else
    net->streams = s->next;
  if (s->next != NULL)
    s->next->prev = s->prev;
  free(s->command);
  free(s);
}

/*
 * What must not happen within a call of the interface: last words, and data
 * after a pause. Active, this keeps the loop from sleeping; it is stopped after
 * the poll, so that who runs the loop once gets to look at what has happened.
 */
static void on_idle(uv_idle_t *h) {
  pp_net *net = h->data;
  pp_stream *s, *next;

  while ((s = net->resumed) != NULL) {
    net->resumed = s->resumed_next;
    s->resumed = false;
    if (s->ops != NULL && s->opened && !s->closing && !s->paused)
      s->ops->resume(s);
  }
  s = net->finished;
  net->finished = NULL;
  for (; s != NULL; s = next) {
    next = s->dirty_next;
    last_words(s);
  }
  if (net->streams == NULL) {
    uv_prepare_stop(&net->prepare);
    uv_check_stop(&net->check);
    uv_check_start(&net->check, on_last_check);
  }
}

void pp_net_wake(pp_net *net) { uv_idle_start(&net->idle, on_idle); }

static void unlink_resumed(pp_stream *s) {
  pp_stream **p;

  for (p = &s->net->resumed; *p != NULL && *p != s; p = &(*p)->resumed_next)
    ;
  if (*p != NULL)
    *p = s->resumed_next;
  s->resumed = false;
}

void pp_stream_resume(pp_stream *s) {
  if (!s->paused)
    return;
  s->paused = false;
  if (s->resumed || s->dead)
    return;
  s->resumed = true;
  s->resumed_next = s->net->resumed;
  s->net->resumed = s;
  pp_net_wake(s->net);
}

void pp_stream_finish(pp_stream *s) {
  pp_net *net = s->net;
  pp_stream **p;

  if (s->dead)
    return;
  s->dead = true;
  if (s->resumed)
    unlink_resumed(s);
  if (s->dirty) {
    for (p = &net->dirty; *p != NULL && *p != s; p = &(*p)->dirty_next)
      ;
    if (*p != NULL)
      *p = s->dirty_next;
    s->dirty = false;
  }
  s->dirty_next = net->finished;
  net->finished = s;
  pp_net_wake(net);
}

void pp_stream_touch(pp_stream *s) {
  if (s->dirty || s->dead)
    return;
  s->dirty = true;
  s->dirty_next = s->net->dirty;
  s->net->dirty = s;
}

pp_net *pp_net_new(uv_loop_t *loop, const pp_net_options *o) {
  pp_net *net = calloc(1, sizeof *net);

  if (net == NULL)
    return NULL;
  net->loop = loop;
  net->o = *o;
  net->o.askpass = o->askpass != NULL ? strdup(o->askpass) : NULL;
  net->has_ssh = -1;
  net->input = malloc(PP_NET_INPUT);
  net->scratch = malloc(PP_NET_SCRATCH);
  net->ask = pp_ask_new(loop, "/dev/tty", o->never_ask, o->asking, o->ud);
  net->keys = pp_keys_new(loop, net->ask);
  net->throttle = pp_throttle_new(loop);
  net->agents = pp_agents_new(loop);
  uv_prepare_init(loop, &net->prepare);
  uv_check_init(loop, &net->check);
  uv_idle_init(loop, &net->idle);
  net->prepare.data = net->check.data = net->idle.data = net;
  net->open = 3;
  uv_unref((uv_handle_t *)&net->prepare);
  uv_unref((uv_handle_t *)&net->check);
  if (net->input == NULL || net->scratch == NULL || net->ask == NULL ||
      net->keys == NULL || net->throttle == NULL || net->agents == NULL ||
      (o->askpass != NULL && net->o.askpass == NULL)) {
    pp_net_close(net, NULL, NULL);
    return NULL;
  }
  return net;
}

static void one_closed(void *ud) {
  pp_net *net = ud;
  void (*done)(void *ud) = net->done;
  void *done_ud = net->done_ud;

  if (--net->open > 0)
    return;
  free((char *)net->o.askpass);
  free(net->input);
  free(net->scratch);
  free(net);
  if (done != NULL)
    done(done_ud);
}

static void handle_closed(uv_handle_t *h) { one_closed(h->data); }

static void ask_closed(void *ud) { one_closed(ud); }

static void keys_closed(void *ud) {
  pp_net *net = ud;

  /* Keys may still have had a question at the terminal. */
  if (net->ask != NULL)
    pp_ask_close(net->ask, ask_closed, net);
  else
    one_closed(net);
}

void pp_net_close(pp_net *net, void (*done)(void *ud), void *ud) {
  if (net == NULL || net->closing)
    return;
  pp_assert(net->streams == NULL);
  net->closing = true;
  net->done = done;
  net->done_ud = ud;
  net->open += (net->throttle != NULL) + (net->agents != NULL) + 1;
  uv_close((uv_handle_t *)&net->prepare, handle_closed);
  uv_close((uv_handle_t *)&net->check, handle_closed);
  uv_close((uv_handle_t *)&net->idle, handle_closed);
  pp_throttle_close(net->throttle, one_closed, net);
  pp_agents_close(net->agents, one_closed, net);
  if (net->keys != NULL)
    pp_keys_close(net->keys, keys_closed, net);
  else
    keys_closed(net);
}
