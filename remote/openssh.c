/* SPDX-License-Identifier: MIT */
/*
 * The user's ssh program as transport: its stdin and stdout are the command's.
 *
 * Its stderr has three voices. With LogLevel=DEBUG1 ssh tells how far it is,
 * each line behind "debug1: ": that is where "connected" is read from, and the
 * methods tried. Other lines of its own, before the command runs, are the
 * reason if it fails. What comes after is the command's stderr. Questions come
 * by way of askpass.c, marked by a word made up for each ssh.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "child.h"
#include "openssh_words.h"
#include "stream_impl.h"

extern char **environ;

enum { LINE_MAX_ = 4096, ARGS_MAX = 64, AUTH_SECONDS = 60 };

typedef struct openssh {
  pp_stream *s; /* NULL: it has let go of us */
  pp_net *net;
  pp_child *child;
  uv_timer_t timer;
  pp_question *question;
  char *asked_key;   /* the key file the passphrase is asked for, or NULL */
  bool key_answered; /* it was given one that was remembered */
  char word[32];
  char line[LINE_MAX_];
  size_t n;       /* of the line begun */
  bool passing;   /* of a line of the command, the beginning was passed on */
  bool connected; /* TCP is, and the server spoke */
  bool started;   /* there was a place for it */
  bool no_way;    /* the jump host cannot reach the host */
  bool too_many;  /* it was offered more keys than the server looks at */
  bool opened, cancelled, gone;
  int busy;
  int timeout; /* seconds ssh has to connect */
  int seconds; /* of our own deadline */
  const char *waiting_for;
  char reason[300]; /* the last line that may be one */
  char allowed[160], tried[160];
  int keys;
  char exit_signal[32];
} openssh;

static void timer_closed(uv_handle_t *h) { free(h->data); }

static void destroy(openssh *o) {
  pp_ask_drop(o->question);
  o->question = NULL;
  free(o->asked_key);
  o->asked_key = NULL;
  pp_child_close(o->child);
  o->child = NULL;
  uv_close((uv_handle_t *)&o->timer, timer_closed);
}

static void let_go(openssh *o) {
  if (o->gone)
    return;
  o->gone = true;
  o->s->carrier = NULL;
  o->s->ops = NULL;
  o->s = NULL;
  if (o->busy == 0)
    destroy(o);
}

static void leave(openssh *o) {
  if (--o->busy == 0 && o->gone)
    destroy(o);
}

/* Let go, then tell why. */
static void fail(openssh *o, pp_end kind, const char *why) {
  pp_stream *s = o->s;
  char copy[PP_REASON_MAX];

  if (s == NULL)
    return;
  snprintf(copy, sizeof copy, "%s", why);
  if (kind == PP_END_BUSY)
    pp_throttle_dropped(o->net->throttle, &s->slot);
  let_go(o);
  pp_stream_failed(s, kind, "%s", copy);
}

static void on_timeout(uv_timer_t *t) {
  openssh *o = t->data;
  char why[200];

  snprintf(why, sizeof why, "timed out after %d s: %s", o->seconds,
           o->waiting_for);
  fail(o, PP_END_TIMEOUT, why);
}

static void deadline(openssh *o, int seconds, const char *what) {
  o->seconds = seconds;
  o->waiting_for = what;
  if (what == NULL)
    uv_timer_stop(&o->timer);
  else
    uv_timer_start(&o->timer, on_timeout, (uint64_t)seconds * 1000, 0);
}

static void is_open(openssh *o) {
  if (o->opened || o->gone)
    return;
  o->opened = true;
  deadline(o, 0, NULL);
  pp_stream_is_opened(o->s);
}

/* --- questions ------------------------------------------------------------ */

static void reply(openssh *o, const char *text) {
  pp_outq *q = pp_child_queue(o->child);
  char line[PP_ANSWER_MAX + 3];
  int n = text != NULL
              ? snprintf(line, sizeof line, "+%.*s\n", PP_ANSWER_MAX, text)
              : snprintf(line, sizeof line, "-\n");

  pp_outq_put(q, line, (size_t)n);
  pp_child_flush(o->child);
  pp_wipe(line, sizeof line);
  /* A chunk that is kept has a copy. */
  if (q->len == 0)
    pp_outq_clear(q);
}

static void answered(void *ud, pp_answer how, const char *text) {
  openssh *o = ud;

  o->question = NULL;
  if (how == PP_ANSWER_CANCELLED)
    o->cancelled = true;
  if (how == PP_ANSWER_GIVEN && o->asked_key != NULL)
    pp_keys_remember(o->net->keys, o->asked_key, text);
  reply(o, how == PP_ANSWER_GIVEN ? text : NULL);
  deadline(o, AUTH_SECONDS, "ssh does not complete the authentication");
}

/* "KIND TEXT" of a line of askpass. */
static void question(openssh *o, char *text) {
  static const char key_prompt[] = "Enter passphrase for key '";
  char *kind = text, *p, *end;
  const char *known;

  if ((text = strchr(text, ' ')) == NULL)
    return;
  *text++ = '\0';
  for (p = text; *p != '\0'; p++)
    if (*p == '\r')
      *p = '\n';
  if (strcmp(kind, "none") == 0) {
    pp_ask_show(o->net->ask, text);
    deadline(o, 0, NULL);
    return;
  }
  free(o->asked_key);
  o->asked_key = NULL;
  if (strncmp(text, key_prompt, sizeof key_prompt - 1) == 0 &&
      (end = strrchr(text, '\'')) > text + sizeof key_prompt - 1) {
    o->asked_key = strndup(text + sizeof key_prompt - 1,
                           (size_t)(end - text) - (sizeof key_prompt - 1));
    known = o->asked_key != NULL && !o->key_answered
                ? pp_keys_passphrase(o->net->keys, o->asked_key)
                : NULL;
    if (known != NULL) {
      o->key_answered = true;
      reply(o, known);
      return;
    }
  }
  deadline(o, 0, NULL);
  o->question = pp_ask_put(o->net->ask, NULL, text,
                           strstr(text, "(yes/no") != NULL, answered, o);
  if (o->question == NULL)
    reply(o, NULL);
}

/* --- its stderr ----------------------------------------------------------- */

static void debug_line(openssh *o, const char *p) {
  const char *q;

  if (pp_openssh_begins(p, "Connection established") ||
      pp_openssh_begins(p, "Local version string")) {
    o->connected = true;
    deadline(o, o->timeout, "the server does not complete the handshake");
  } else if (pp_openssh_begins(p, "Authenticating to")) {
    deadline(o, AUTH_SECONDS,
             "the server does not complete the authentication");
  } else if (pp_openssh_begins(p, "Authentications that can continue: ")) {
    snprintf(o->allowed, sizeof o->allowed, "%s", strchr(p, ':') + 2);
  } else if (pp_openssh_begins(p, "Next authentication method: ")) {
    size_t n = strlen(o->tried);

    if (o->opened)
      return;
    snprintf(o->tried + n, sizeof o->tried - n, "%s%s", n > 0 ? ", " : "",
             strchr(p, ':') + 2);
  } else if (pp_openssh_begins(p, "Offering public key: ")) {
    o->keys++;
  } else if (pp_openssh_begins(p, "Sending command: ") ||
             pp_openssh_begins(
                 p, "mux_client_request_session: master session id")) {
    is_open(o);
  } else if ((q = strstr(p, "rtype exit-signal")) != NULL) {
    snprintf(o->exit_signal, sizeof o->exit_signal, "?");
  }
}

static bool is_proxied(const openssh *o) {
  return o->s->target->proxy_command != NULL || o->s->target->via != NULL;
}

static void keep_reason(openssh *o, const char *p) {
  const char *q;

  if (pp_openssh_begins(p, "Offending ") &&
      (q = strstr(p, " key in ")) != NULL) {
    snprintf(o->reason, sizeof o->reason,
             "host key changed: it is not the key in %s", q + 8);
    return;
  }
  /* What speaks of the host key says more than what follows it. */
  if (*p == '\0' || pp_openssh_begins(p, "Transferred: ") ||
      pp_openssh_begins(p, "Bytes per second: ") ||
      strstr(o->reason, "host key") != NULL ||
      pp_openssh_begins(p, "Warning: Permanently added") || *p == '@' ||
      pp_openssh_begins(p, "It is also possible that a host key"))
    return;
  if (pp_openssh_begins(p, "stdio forwarding failed"))
    o->no_way = true;
  if (strstr(p, "Too many authentication failures") != NULL)
    o->too_many = true;
  if (o->reason[0] != '\0' &&
      (pp_openssh_begins(p, "Disconnected from ") ||
       pp_openssh_begins(o->reason, "channel 0: ") ||
       pp_openssh_begins(p, "Connection closed by ") ||
       pp_openssh_begins(p, "Connection reset by ") ||
       /* What goes between has said why. */
       (is_proxied(o) &&
        (pp_openssh_begins(p, "kex_exchange_identification: ") ||
         pp_openssh_begins(p, "ssh_exchange_identification: ") ||
         pp_openssh_begins(p, "banner exchange: ")))))
    return;
  snprintf(o->reason, sizeof o->reason, "%s", p);
}

static void line(openssh *o, char *p, size_t n, bool whole) {
  size_t nword = strlen(o->word);

  while (n > 0 && (p[n - 1] == '\r' || p[n - 1] == '\n'))
    n--;
  p[n] = '\0';
  if (!o->passing && pp_openssh_begins(p, "debug1: ")) {
    debug_line(o, p + 8);
  } else if (!o->passing && !o->opened && n > nword && p[nword] == ' ' &&
             memcmp(p, o->word, nword) == 0) {
    question(o, p + nword + 1);
  } else if (!o->passing && pp_openssh_begins(p, "Authenticated to ")) {
    /* Not a reason, nor the command's. */
  } else if (!o->opened) {
    keep_reason(o, p);
  } else if (!o->passing && pp_openssh_own_words(p)) {
    keep_reason(o, p);
  } else {
    if (whole)
      p[n++] = '\n';
    pp_stream_has_errors(o->s, p, n);
  }
}

static void on_errors(void *ud, const char *p, size_t n) {
  openssh *o = ud;
  size_t i;

  o->busy++;
  for (i = 0; i < n && !o->gone; i++) {
    o->line[o->n++] = p[i];
    if (p[i] == '\n') {
      line(o, o->line, o->n, true);
      o->n = 0;
      o->passing = false;
    } else if (o->n == sizeof o->line - 1) {
      line(o, o->line, o->n, false);
      o->n = 0;
      o->passing = o->opened;
    }
  }
  /* What the command says without a newline is not held back. */
  if (!o->gone && o->opened && o->n > 0 &&
      (o->passing ||
       (o->n >= 8 && memcmp(o->line, "debug1: ", 8) != 0 && o->n > 64))) {
    pp_stream_has_errors(o->s, o->line, o->n);
    o->n = 0;
    o->passing = true;
  }
  leave(o);
}

/* --- its end -------------------------------------------------------------- */

static pp_end kind_of(const openssh *o) {
  return o->no_way ? PP_END_UNREACHABLE
                   : pp_openssh_kind(o->reason, is_proxied(o));
}

static void ended_before(openssh *o, int64_t status, int signal) {
  const pp_target *t = o->s->target;
  pp_end kind = kind_of(o);
  char why[PP_REASON_MAX], keys[40] = "";

  if (o->keys > 0)
    snprintf(keys, sizeof keys, ", offered %d key%s", o->keys,
             o->keys == 1 ? "" : "s");
  if (o->cancelled) {
    fail(o, PP_END_CANCELLED, "authentication was given up");
    return;
  }
  if (kind == PP_END_RESOLVE)
    snprintf(why, sizeof why, "the name '%s' does not resolve", t->host);
  else if (kind == PP_END_REFUSED)
    snprintf(why, sizeof why, "connection refused by port %d", t->port);
  else if (kind == PP_END_TIMEOUT)
    snprintf(why, sizeof why, "timed out after %d s", o->timeout);
  else if (kind == PP_END_AUTH && o->allowed[0] == '\0')
    snprintf(why, sizeof why, "authentication failed: %s", o->reason);
  else if (kind == PP_END_AUTH)
    snprintf(why, sizeof why,
             "authentication failed (tried %s%s; the server allows %s)%s",
             o->tried[0] != '\0' ? o->tried : "nothing", keys, o->allowed,
             o->too_many ? ": too many keys for the server" : "");
  else if (kind == PP_END_BUSY)
    snprintf(why, sizeof why,
             "the server closes the connection before the handshake: %s",
             o->reason);
  else if (o->reason[0] != '\0')
    snprintf(why, sizeof why, "%s", o->reason);
  else if (signal != 0)
    snprintf(why, sizeof why, "ssh was ended by signal %d", signal);
  else
    snprintf(why, sizeof why, "ssh ended with status %d", (int)status);
  fail(o, kind, why);
}

static void on_ended(void *ud, int64_t status, int signal) {
  openssh *o = ud;
  char why[PP_REASON_MAX];

  o->busy++;
  if (o->n > 0) {
    o->line[o->n] = '\0';
    line(o, o->line, o->n, false);
    o->n = 0;
  }
  if (o->gone) {
    leave(o);
    return;
  }
  if (!o->opened) {
    ended_before(o, status, signal);
  } else if (signal != 0) {
    snprintf(why, sizeof why, "connection lost: ssh was ended by signal %d",
             signal);
    fail(o, PP_END_LOST, why);
  } else if (strstr(o->reason, "exec request failed") != NULL) {
    fail(o, PP_END_EXEC, "the server does not execute commands");
  } else if (status == 255 && o->exit_signal[0] != '\0') {
    o->s->status = 0;
    fail(o, PP_END_SIGNAL, "the command was ended by a signal");
  } else if (status == 255 && o->reason[0] != '\0') {
    snprintf(why, sizeof why, "connection lost: %s", o->reason);
    fail(o, PP_END_LOST, why);
  } else {
    o->s->status = (int)status;
    snprintf(why, sizeof why, "the command ended with status %d", (int)status);
    fail(o, PP_END_EXIT, why);
  }
  leave(o);
}

/* --- its life ------------------------------------------------------------- */

static void on_input(void *ud, const unsigned char *p, size_t n) {
  openssh *o = ud;

  o->busy++;
  is_open(o);
  if (!o->gone)
    pp_stream_has_data(o->s, p, n);
  if (!o->gone && o->s->paused)
    pp_child_pause(o->child, true);
  leave(o);
}

/* Bytes of the stream move whole pieces at a time: the child's own queue would
 * only copy them. So the stream's queue is lent to it, bounded. */
static void push(openssh *o) {
  pp_outq *q = pp_child_queue(o->child), *from = &o->s->out;
  struct iovec v;
  size_t moved = 0;

  while (q->len < 256 << 10 && pp_outq_peek(from, &v, 1) == 1) {
    size_t n = v.iov_len < 128 << 10 ? v.iov_len : 128 << 10;

    if (pp_outq_put(q, v.iov_base, n) != 0)
      break;
    pp_outq_consume(from, n);
    moved += n;
    pp_child_flush(o->child);
  }
  if (moved > 0)
    pp_stream_took(o->s, moved);
  if (!o->gone && o->s->ending && o->s->out.len == 0)
    pp_child_end(o->child);
}

static void on_moved(void *ud) {
  openssh *o = ud;

  if (!o->opened || o->gone)
    return;
  o->busy++;
  push(o);
  leave(o);
}

static void openssh_flush(pp_stream *s) {
  openssh *o = s->carrier;

  if (o->child == NULL)
    return;
  o->busy++;
  push(o);
  leave(o);
}

static void openssh_resume(pp_stream *s) {
  openssh *o = s->carrier;

  if (o->child != NULL)
    pp_child_pause(o->child, false);
}

static void openssh_abort(pp_stream *s) { let_go(s->carrier); }

/* Our environment, with three more. Owned: one block. */
static char **environment(openssh *o) {
  char **env, *p;
  char exe[64];
  size_t n = 0, k = 0;
  const char *askpass = o->net->o.askpass;

  snprintf(exe, sizeof exe, "/proc/%d/exe", (int)getpid());
  if (askpass == NULL)
    askpass = exe;
  while (environ[n] != NULL)
    n++;
  env = malloc((n + 5) * sizeof *env + strlen(askpass) + 256);
  if (env == NULL)
    return NULL;
  p = (char *)(env + n + 5);
  for (n = 0; environ[n] != NULL; n++)
    if (!pp_openssh_begins(environ[n], "SSH_ASKPASS=") &&
        !pp_openssh_begins(environ[n], "SSH_ASKPASS_REQUIRE=") &&
        !pp_openssh_begins(environ[n], PP_ASKPASS_VARIABLE "="))
      env[k++] = environ[n];
  env[k++] = p;
  p += sprintf(p, "SSH_ASKPASS=%s", askpass) + 1;
  env[k++] = p;
  p += sprintf(p, "SSH_ASKPASS_REQUIRE=force") + 1;
  env[k++] = p;
  p += sprintf(p, PP_ASKPASS_VARIABLE "=%s", o->word) + 1;
  if (getenv("DISPLAY") == NULL) {
    /* Older ssh asks that way only where there is a display. */
    env[k++] = p;
    sprintf(p, "DISPLAY=:ppsh");
  }
  env[k] = NULL;
  return env;
}

static void spawn(openssh *o) {
  static const pp_child_events events = {on_input, on_errors, on_moved,
                                         on_ended};
  const pp_target *t = o->s->target;
  char *argv[ARGS_MAX], number[16], timeout[40], alive[40], count[40];
  char why[200], **env;
  bool ask = !t->batch && pp_ask_possible(o->net->ask);
  int n = 0, error = UV_ENOMEM;

  /* Without a terminal ssh's own questions have nobody to answer them. */
  argv[n++] = "ssh";
  argv[n++] = "-T";
  argv[n++] = "-x";
  argv[n++] = "-oLogLevel=DEBUG1";
  argv[n++] = "-oRemoteCommand=none";
  argv[n++] = "-oRequestTTY=no";
  argv[n++] = "-oClearAllForwardings=yes";
  argv[n++] = "-oEscapeChar=none";
  for (size_t i = 0; i < t->undo.n && n < ARGS_MAX - 24; i++)
    argv[n++] = t->undo.v[i];
  if (!ask)
    argv[n++] = "-oBatchMode=yes";
  snprintf(timeout, sizeof timeout, "-oConnectTimeout=%d", o->timeout);
  argv[n++] = timeout;
  /* A line that was cut is to end ssh, too, when we do not live to do it. */
  snprintf(alive, sizeof alive, "-oServerAliveInterval=%d",
           t->alive_interval > 0 ? t->alive_interval : 5);
  snprintf(count, sizeof count, "-oServerAliveCountMax=%d",
           t->alive_interval > 0 ? t->alive_count : 3);
  argv[n++] = alive;
  argv[n++] = count;
  if (t->config_file != NULL) {
    argv[n++] = "-F";
    argv[n++] = t->config_file;
  }
  if (t->given_user != NULL) {
    argv[n++] = "-l";
    argv[n++] = t->given_user;
  }
  if (t->given_port > 0) {
    snprintf(number, sizeof number, "%d", t->given_port);
    argv[n++] = "-p";
    argv[n++] = number;
  }
  argv[n++] = "--";
  argv[n++] = t->alias;
  argv[n++] = o->s->command;
  argv[n] = NULL;
  pp_assert(n < ARGS_MAX);
  env = environment(o);
  if (env != NULL)
    o->child = pp_child_open(o->net, argv, env, &events, o, &error);
  free(env);
  if (o->child == NULL) {
    snprintf(why, sizeof why,
             error == UV_ENOENT ? "there is no ssh program here"
                                : "cannot start ssh: %s",
             uv_strerror(error));
    fail(o, PP_END_SYSTEM, why);
    return;
  }
  /* Resolving, connecting and the banner are within ssh's own timeout. */
  deadline(o, 3 * o->timeout + 5, "ssh does not connect");
}

static void on_place(void *ud) {
  openssh *o = ud;

  if (!o->gone && !o->started) {
    o->started = true;
    o->busy++;
    spawn(o);
    leave(o);
  }
}

static void on_place_at_once(uv_timer_t *t) { on_place(t->data); }

static int openssh_open(pp_stream *s) {
  const pp_target *t = s->target, *first = t;
  openssh *o = calloc(1, sizeof *o);
  unsigned char r[8];
  int place;

  if (o == NULL)
    return PP_ENOMEM;
  o->s = s;
  o->net = s->net;
  o->timeout = t->connect_timeout > 0 ? t->connect_timeout : 15;
  if (getrandom(r, sizeof r, 0) != sizeof r)
    memset(r, 7, sizeof r);
  snprintf(o->word, sizeof o->word, "ask-%02x%02x%02x%02x%02x%02x%02x%02x",
           r[0], r[1], r[2], r[3], r[4], r[5], r[6], r[7]);
  uv_timer_init(s->net->loop, &o->timer);
  o->timer.data = o;
  s->carrier = o;
  while (first->via != NULL)
    first = first->via;
  place = pp_throttle_enter(s->net->throttle, &s->slot, first->host,
                            first->port, on_place, o);
  if (place < 0) {
    let_go(o);
    return PP_ENOMEM;
  }
  if (place == 1)
    uv_timer_start(&o->timer, on_place_at_once, 0, 0);
  return 0;
}

const pp_transport_ops pp_transport_openssh = {
    "ssh", openssh_open, openssh_flush, openssh_resume, openssh_abort,
};
