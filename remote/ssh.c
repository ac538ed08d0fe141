/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "keystream.h"
#include "ssh_impl.h"

/* Encrypted bytes that may wait below before more are made. */
enum { WIRE_FULL = 256 << 10 };

static pp_outq *wire_of(pp_leg *h) {
  return h->index == 0 ? pp_carrier_queue(h->c->carrier) : &h->wire;
}

/* --- life ----------------------------------------------------------------- */

static void timer_closed(uv_handle_t *h) {
  pp_ssh *c = h->data;
  int i;

  for (i = 0; i < c->n; i++)
    pp_outq_clear(&c->legs[i].wire);
  free(c->legs);
  free(c);
  libssh2_exit();
}

static void destroy(pp_ssh *c) {
  int i;

  for (i = c->n - 1; i >= 0; i--)
    pp_leg_clear(&c->legs[i]);
  if (c->carrier != NULL) {
    pp_carrier_flush(c->carrier); /* it says good-bye */
    pp_carrier_close(c->carrier);
    c->carrier = NULL;
  }
  uv_close((uv_handle_t *)&c->timer, timer_closed);
}

void pp_ssh_enter(pp_ssh *c) { c->busy++; }

void pp_ssh_leave(pp_ssh *c) {
  if (--c->busy == 0 && c->gone)
    destroy(c);
}

static void let_go(pp_ssh *c) {
  if (c->gone)
    return;
  c->s->carrier = NULL;
  c->s->ops = NULL;
  c->s = NULL;
  c->gone = true;
  uv_timer_stop(&c->timer);
  if (c->busy == 0)
    destroy(c);
}

void pp_ssh_fail(pp_ssh *c, pp_end kind, const char *fmt, ...) {
  pp_stream *s = c->s;
  char why[PP_REASON_MAX];
  va_list ap;

  if (s == NULL)
    return;
  va_start(ap, fmt);
  vsnprintf(why, sizeof why, fmt, ap);
  va_end(ap);
  if (kind == PP_END_BUSY)
    pp_throttle_dropped(c->net->throttle, &s->slot);
  let_go(c);
  pp_stream_failed(s, kind, "%s", why);
}

static void ping(pp_ssh *c);

static void on_timer(uv_timer_t *t) {
  pp_ssh *c = t->data;
  const pp_target *target;

  if (c->gone)
    return;
  if (!c->alive) {
    pp_ssh_fail(c, PP_END_TIMEOUT, "timed out after %d s: %s", c->seconds,
                c->waiting_for);
    return;
  }
  target = c->s->target;
  c->silent = c->heard ? 0 : c->silent + 1;
  c->heard = false;
  if (c->silent > target->alive_count) {
    pp_ssh_fail(c, PP_END_LOST, "connection lost: no answer for %d s",
                c->silent * target->alive_interval);
    return;
  }
  pp_ssh_enter(c);
  ping(c);
  pp_ssh_leave(c);
}

void pp_ssh_deadline(pp_ssh *c, int seconds, const char *what) {
  c->seconds = seconds;
  c->waiting_for = what;
  if (what == NULL)
    uv_timer_stop(&c->timer);
  else
    uv_timer_start(&c->timer, on_timer, (uint64_t)seconds * 1000, 0);
}

const char *pp_leg_where(const pp_leg *h, char *buf, size_t size) {
  if (h->index == h->c->n - 1)
    *buf = '\0';
  else
    snprintf(buf, size, "jump host '%s': ", h->t->name);
  return buf;
}

/* --- moving bytes --------------------------------------------------------- */

/* As the library's, which may exchange keys anew in them. */
static ssize_t channel_read(pp_leg *h, void *p, size_t size) {
  void *was = pp_keystream_enter();
  ssize_t n = libssh2_channel_read(h->channel, p, size);

  pp_keystream_leave(was);
  return n;
}

static ssize_t channel_write(pp_leg *h, const void *p, size_t n) {
  void *was = pp_keystream_enter();
  ssize_t r = libssh2_channel_write(h->channel, p, n);

  pp_keystream_leave(was);
  return r;
}

/* From q into the leg's channel, as much as goes. Bytes moved, or a libssh2
 * error. */
static ssize_t push(pp_leg *h, pp_outq *q) {
  pp_outq *wire = wire_of(h);
  ssize_t total = 0, n;
  struct iovec v;

  while (wire->len < WIRE_FULL && pp_outq_peek(q, &v, 1) == 1) {
    n = channel_write(h, v.iov_base, v.iov_len);
    if (n == LIBSSH2_ERROR_EAGAIN || n == 0)
      break; /* the same bytes are at the head next time */
    if (n < 0)
      return n;
    pp_outq_consume(q, (size_t)n);
    total += n;
  }
  return total;
}

/* Everything that wants to go down. false when the client is gone. */
static bool push_all(pp_ssh *c) {
  ssize_t n = 0;
  pp_leg *h;
  int i;

  if (c->gone)
    return false;
  h = &c->legs[c->n - 1];
  if (h->state == PP_LEG_UP && c->s->opened) {
    n = push(h, &c->s->out);
    if (n > 0)
      pp_stream_took(c->s, (size_t)n);
    if (c->gone)
      return false;
    if (n >= 0 && c->s->ending && c->s->out.len == 0 && !h->eof_sent) {
      n = libssh2_channel_send_eof(h->channel);
      h->eof_sent = n != LIBSSH2_ERROR_EAGAIN;
      if (n == LIBSSH2_ERROR_EAGAIN)
        n = 0;
    }
    if (n < 0) {
      pp_leg_broken(h, (int)n, "sending");
      return false;
    }
  }
  for (i = c->n - 1; i > 0; i--) {
    h = &c->legs[i - 1];
    if (h->state != PP_LEG_UP || c->legs[i].wire.len == 0 ||
        pp_kbd_running(&c->legs[i]))
      continue;
    if ((n = push(h, &c->legs[i].wire)) < 0) {
      pp_leg_broken(h, (int)n, "sending");
      return false;
    }
  }
  if (c->carrier != NULL && !pp_kbd_running(&c->legs[0]))
    pp_carrier_flush(c->carrier);
  return true;
}

/* Input that was lent must outlive the buffer it is in. */
static void keep_input(pp_leg *h) {
  if (h->nlent == 0)
    return;
  if (h->in_at == h->in.len)
    h->in_at = h->in.len = 0;
  if (pp_buf_put(&h->in, h->lent, h->nlent) != 0)
    pp_ssh_fail(h->c, PP_END_SYSTEM, "not enough memory");
  h->lent = NULL;
  h->nlent = 0;
}

static void ping(pp_ssh *c) {
  static const char name[] = "LC_PPSH_ALIVE";
  pp_leg *h = &c->legs[c->n - 1];
  int rc;

  /* A request that the server answers, with a refusal: libssh2's keepalive
   * would keep every answer for good. */
  if (h->state != PP_LEG_UP)
    return;
  rc = libssh2_channel_setenv_ex(h->channel, name, sizeof name - 1, "", 0);
  c->pinging = rc == LIBSSH2_ERROR_EAGAIN;
  push_all(c);
}

/* The command's end: exit status or signal. */
static void report_end(pp_ssh *c, pp_leg *h) {
  static const struct {
    const char *name;
    int number;
  } signals[] = {{"HUP", 1},   {"INT", 2},   {"QUIT", 3},  {"ILL", 4},
                 {"TRAP", 5},  {"ABRT", 6},  {"BUS", 7},   {"FPE", 8},
                 {"KILL", 9},  {"USR1", 10}, {"SEGV", 11}, {"USR2", 12},
                 {"PIPE", 13}, {"ALRM", 14}, {"TERM", 15}, {"XCPU", 24},
                 {"SYS", 31}};
  char *name = NULL, copy[32] = "";
  size_t i;

  /* A death by signal shows exit status 0, so this comes first. */
  libssh2_channel_get_exit_signal(h->channel, &name, NULL, NULL, NULL, NULL,
                                  NULL);
  if (name != NULL) {
    snprintf(copy, sizeof copy, "%s", name);
    libssh2_free(h->session, name);
    c->s->status = 0;
    for (i = 0; i < sizeof signals / sizeof *signals; i++)
      if (strcmp(copy, signals[i].name) == 0)
        c->s->status = signals[i].number;
    pp_ssh_fail(c, PP_END_SIGNAL, "the command was ended by signal %s", copy);
    return;
  }
  c->s->status = libssh2_channel_get_exit_status(h->channel);
  pp_ssh_fail(c, PP_END_EXIT, "the command ended with status %d", c->s->status);
}

/* What the command says. false when the client is gone or has to wait. */
static bool pull_command(pp_ssh *c, pp_leg *h) {
  char *p = (char *)c->net->scratch;
  ssize_t n = 0;

  while (!c->gone && !c->s->paused && !h->eof_seen) {
    n = channel_read(h, p, PP_NET_SCRATCH);
    if (n <= 0)
      break;
    pp_stream_has_data(c->s, p, (size_t)n);
  }
  if (c->gone)
    return false;
  if (n < 0 && n != LIBSSH2_ERROR_EAGAIN) {
    pp_leg_broken(h, (int)n, "receiving");
    return false;
  }
  while (!c->s->paused) {
    n = libssh2_channel_read_stderr(h->channel, p, PP_NET_SCRATCH);
    if (n <= 0)
      break;
    pp_stream_has_errors(c->s, p, (size_t)n);
    if (c->gone)
      return false;
  }
  if (c->s->paused) {
    /* Nothing of a stream that is never used: but what came in is looked at,
     * so that our own sending goes on. */
    n = libssh2_channel_read_ex(h->channel, 7, p, 1);
    if (n < 0 && n != LIBSSH2_ERROR_EAGAIN) {
      pp_leg_broken(h, (int)n, "receiving");
      return false;
    }
    return true;
  }
  if (n < 0 && n != LIBSSH2_ERROR_EAGAIN) {
    pp_leg_broken(h, (int)n, "receiving");
    return false;
  }
  if (c->pinging)
    ping(c);
  if (c->gone)
    return false;
  if (libssh2_channel_eof(h->channel)) {
    int rc;

    h->eof_seen = true;
    rc = libssh2_channel_wait_closed(h->channel);
    if (rc != LIBSSH2_ERROR_EAGAIN) {
      report_end(c, h);
      return false;
    }
  }
  return true;
}

static void input(pp_ssh *c, pp_leg *h, const unsigned char *p, size_t n);
static void run_leg(pp_ssh *c, pp_leg *h);

/* What a jump host's channel says goes to the next leg. */
static bool pull_leg(pp_ssh *c, pp_leg *h) {
  pp_leg *next = h + 1;
  ssize_t n;

  if (h->scratch == NULL && (h->scratch = malloc(PP_NET_SCRATCH)) == NULL) {
    pp_ssh_fail(c, PP_END_SYSTEM, "not enough memory");
    return false;
  }
  for (;;) {
    n = channel_read(h, h->scratch, PP_NET_SCRATCH);
    if (n <= 0)
      break;
    input(c, next, h->scratch, (size_t)n);
    if (c->gone)
      return false;
  }
  if (n < 0 && n != LIBSSH2_ERROR_EAGAIN) {
    pp_leg_broken(h, (int)n, "receiving");
    return false;
  }
  if (libssh2_channel_eof(h->channel) && !next->eof) {
    next->eof = true;
    input(c, next, NULL, 0);
    if (!c->gone) {
      char where[300];

      pp_ssh_fail(c, PP_END_LOST, "%sconnection closed by the other side",
                  pp_leg_where(next, where, sizeof where));
    }
    return false;
  }
  if (next->state != PP_LEG_UP)
    run_leg(c, next);
  return !c->gone;
}

/* Let one leg do what it can. */
static void run_leg(pp_ssh *c, pp_leg *h) {
  if (pp_kbd_running(h)) {
    pp_leg_step(h); /* it may have ended */
    if (c->gone || pp_kbd_running(h))
      return;
  }
  while (!c->gone && h->state != PP_LEG_UP && h->state != PP_LEG_DOWN)
    if (!pp_leg_step(h))
      return;
  if (c->gone || h->state != PP_LEG_UP)
    return;
  if (h->index < c->n - 1)
    pull_leg(c, h);
  else
    pull_command(c, h);
}

static void input(pp_ssh *c, pp_leg *h, const unsigned char *p, size_t n) {
  size_t k = sizeof h->first - 1 - h->nfirst;

  if (h->state == PP_LEG_HANDSHAKE && k > 0 && n > 0) {
    k = k < n ? k : n;
    memcpy(h->first + h->nfirst, p, k);
    h->nfirst += k;
  }
  if (pp_kbd_running(h)) {
    if (pp_buf_put(&h->staged, p, n) != 0)
      pp_ssh_fail(c, PP_END_SYSTEM, "not enough memory");
    return;
  }
  h->lent = p;
  h->nlent = n;
  if (h->auth.kbd != NULL)
    keep_input(h); /* a thread may read it */
  run_leg(c, h);
  if (!c->gone)
    keep_input(h);
}

void pp_ssh_run(pp_ssh *c) {
  int i;

  for (i = 0; i < c->n && !c->gone; i++)
    run_leg(c, &c->legs[i]);
  push_all(c);
}

void pp_ssh_kick(pp_ssh *c) {
  pp_ssh_enter(c);
  pp_ssh_run(c);
  pp_ssh_leave(c);
}

/* --- the carrier ---------------------------------------------------------- */

static void carrier_connected(void *ud) {
  pp_ssh *c = ud;

  pp_ssh_enter(c);
  pp_leg_start(&c->legs[0], pp_carrier_fd(c->carrier));
  pp_ssh_run(c);
  pp_ssh_leave(c);
}

static void carrier_input(void *ud, const unsigned char *p, size_t n) {
  pp_ssh *c = ud;

  if (c->gone)
    return;
  pp_ssh_enter(c);
  c->heard = true;
  input(c, &c->legs[0], p, n);
  push_all(c);
  pp_ssh_leave(c);
}

static void carrier_moved(void *ud) {
  pp_ssh *c = ud;

  if (c->gone)
    return;
  pp_ssh_enter(c);
  push_all(c);
  pp_ssh_leave(c);
}

static void carrier_failed(void *ud, pp_end kind, int error, const char *why) {
  pp_ssh *c = ud;

  if (c->gone)
    return;
  pp_ssh_enter(c);
  c->lost = true;
  c->lost_kind = kind;
  c->lost_error = error;
  snprintf(c->lost_why, sizeof c->lost_why, "%s", why);
  c->legs[0].eof = true;
  /* What it said last may explain it. */
  if (c->legs[0].state != PP_LEG_DOWN)
    pp_ssh_run(c);
  if (!c->gone && !pp_kbd_running(&c->legs[c->top]))
    pp_leg_broken(&c->legs[c->top], LIBSSH2_ERROR_SOCKET_RECV, "receiving");
  pp_ssh_leave(c);
}

/* --- for stream.c --------------------------------------------------------- */

void pp_ssh_is_up(pp_ssh *c) {
  const pp_target *t = c->s->target;

  pp_ssh_deadline(c, 0, NULL);
  if (t->alive_interval > 0) {
    uint64_t ms = (uint64_t)t->alive_interval * 1000;

    c->alive = true;
    c->heard = true;
    uv_timer_start(&c->timer, on_timer, ms, ms);
  }
  pp_stream_is_opened(c->s);
}

static int ssh_open(pp_stream *s) {
  static const pp_carrier_events events = {carrier_connected, carrier_input,
                                           carrier_moved, carrier_failed};
  pp_ssh *c = calloc(1, sizeof *c);
  const pp_target *t;
  int i;

  if (c == NULL)
    return PP_ENOMEM;
  for (t = s->target; t != NULL; t = t->via)
    c->n++;
  if ((c->legs = calloc((size_t)c->n, sizeof *c->legs)) == NULL) {
    free(c);
    return PP_ENOMEM;
  }
  for (t = s->target, i = c->n - 1; i >= 0; t = t->via, i--) {
    c->legs[i].c = c;
    c->legs[i].index = i;
    c->legs[i].t = t;
  }
  c->s = s;
  c->net = s->net;
  if ((c->carrier = pp_carrier_open(c->net, c->legs[0].t, &s->slot, &events,
                                    c)) == NULL) {
    free(c->legs);
    free(c);
    return PP_ENOMEM;
  }
  libssh2_init(0);
  pp_keystream_leave(pp_keystream_enter()); /* while the server gets ready */
  uv_timer_init(c->net->loop, &c->timer);
  c->timer.data = c;
  s->carrier = c;
  return 0;
}

bool pp_ssh_possible(void) { return pp_ssh2_open(); }

const char *pp_net_libssh2(void) {
  return pp_ssh2_open() ? libssh2_version(0) : "none";
}

static void ssh_flush(pp_stream *s) {
  pp_ssh *c = s->carrier;

  pp_ssh_enter(c);
  push_all(c);
  pp_ssh_leave(c);
}

static void ssh_resume(pp_stream *s) { pp_ssh_kick(s->carrier); }

static void ssh_abort(pp_stream *s) { let_go(s->carrier); }

const pp_transport_ops pp_transport_libssh2 = {
    "libssh2", ssh_open, ssh_flush, ssh_resume, ssh_abort,
};
