/* SPDX-License-Identifier: MIT */
#include "stream.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "stream_impl.h"

enum { HIGH = 1 << 20, LOW = 256 << 10 };

const char *pp_end_name(pp_end kind) {
  switch (kind) {
  case PP_END_EXIT:
    return "exit";
  case PP_END_SIGNAL:
    return "signal";
  case PP_END_CLOSED:
    return "closed";
  case PP_END_RESOLVE:
    return "resolve";
  case PP_END_REFUSED:
    return "refused";
  case PP_END_UNREACHABLE:
    return "unreachable";
  case PP_END_TIMEOUT:
    return "timeout";
  case PP_END_HOSTKEY:
    return "hostkey";
  case PP_END_AUTH:
    return "auth";
  case PP_END_EXEC:
    return "exec";
  case PP_END_CANCELLED:
    return "cancelled";
  case PP_END_UNSUPPORTED:
    return "unsupported";
  case PP_END_BUSY:
    return "busy";
  case PP_END_LOST:
    return "lost";
  case PP_END_SYSTEM:
    return "system";
  }
  return "?";
}

pp_stream *pp_stream_open(pp_net *net, const pp_target *target,
                          const char *command, const pp_stream_events *events,
                          void *ud) {
  pp_stream *s = calloc(1, sizeof *s);

  if (s == NULL)
    return NULL;
  if ((s->command = strdup(command)) == NULL ||
      (s->timer = malloc(sizeof *s->timer)) == NULL) {
    free(s->command);
    free(s);
    return NULL;
  }
  s->net = net;
  s->target = target;
  s->events = *events;
  s->ud = ud;
  if ((s->next = net->streams) != NULL)
    s->next->prev = s;
  else
    pp_net_watch(net);
  net->streams = s;
  s->started = uv_hrtime();
  pp_transport_begin(s);
  return s;
}

static int queued(pp_stream *s) {
  s->full = s->full || s->out.len >= HIGH;
  pp_stream_touch(s);
  return 0;
}

int pp_stream_write(pp_stream *s, const void *p, size_t n) {
  if (s->ending || s->closing || s->dead)
    return PP_ECLOSED;
  return pp_outq_put(&s->out, p, n) != 0 ? PP_ENOMEM : queued(s);
}

int pp_stream_give(pp_stream *s, const void *p, size_t n,
                   void (*release)(void *ud), void *ud) {
  if (s->ending || s->closing || s->dead)
    return PP_ECLOSED;
  return pp_outq_give(&s->out, p, n, release, ud) != 0 ? PP_ENOMEM : queued(s);
}

size_t pp_stream_queued(const pp_stream *s) { return s->out.len; }

bool pp_stream_full(const pp_stream *s) { return s->full; }

void pp_stream_pause(pp_stream *s) { s->paused = true; }

void pp_stream_end(pp_stream *s) {
  s->ending = true;
  pp_stream_touch(s);
}

void pp_stream_close(pp_stream *s, const char *text) {
  if (s->closing)
    return;
  s->closing = true;
  if (s->dead && s->end != PP_END_CLOSED && text == NULL)
    return; /* it ended by itself; that is more worth knowing */
  pp_transport_stop(s);
  pp_outq_clear(&s->out);
  s->end = PP_END_CLOSED;
  snprintf(s->reason, sizeof s->reason, "%s", text != NULL ? text : "closed");
  pp_stream_finish(s);
}

int pp_stream_status(const pp_stream *s) { return s->status; }

const char *pp_stream_transport(const pp_stream *s) {
  return s->ops != NULL ? s->ops->name : "";
}

uint64_t pp_stream_opened_at(const pp_stream *s) { return s->opened_at; }
uint64_t pp_stream_sent(const pp_stream *s) { return s->sent; }
uint64_t pp_stream_received(const pp_stream *s) { return s->received; }

/* --- for transports ------------------------------------------------------- */

void pp_stream_is_known(pp_stream *s) {
  pp_throttle_leave(s->net->throttle, &s->slot);
}

void pp_stream_is_opened(pp_stream *s) {
  pp_stream_is_known(s);
  s->opened = true;
  s->opened_at = uv_hrtime();
  pp_net_log(s->net, PP_NET_DEBUG, "%s: connected by %s in %.0f ms",
             s->target->name, s->ops->name,
             (double)(s->opened_at - s->started) / 1e6);
  pp_net_wake(s->net);
  if (s->out.len > 0 || s->ending)
    pp_stream_touch(s);
  if (s->events.opened != NULL)
    s->events.opened(s->ud);
}

void pp_stream_has_data(pp_stream *s, const void *p, size_t n) {
  s->received += n;
  if (n > 0 && !s->closing && s->events.data != NULL)
    s->events.data(s->ud, p, n);
}

void pp_stream_has_errors(pp_stream *s, const void *p, size_t n) {
  if (n > 0 && !s->closing && s->events.errors != NULL)
    s->events.errors(s->ud, p, n);
}

void pp_stream_took(pp_stream *s, size_t n) {
  s->sent += n;
  if (s->full && s->out.len <= LOW) {
    s->full = false;
    pp_net_wake(s->net);
    if (s->events.drained != NULL && !s->closing)
      s->events.drained(s->ud);
  }
}

void pp_stream_failed(pp_stream *s, pp_end kind, const char *fmt, ...) {
  va_list ap;
  char *p;

  if (s->dead)
    return;
  s->end = kind;
  va_start(ap, fmt);
  vsnprintf(s->reason, sizeof s->reason, fmt, ap);
  va_end(ap);
  for (p = s->reason; *p != '\0'; p++)
    if ((unsigned char)*p < 0x20 || *p == 0x7f)
      *p = *p == '\n' || *p == '\t' ? ' ' : '?';
  if (!s->opened && pp_transport_again(s))
    return;
  pp_transport_stop(s);
  pp_stream_finish(s);
}
