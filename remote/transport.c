/* SPDX-License-Identifier: MIT */
/*
 * transport: which way a stream is carried, and what is done when that fails.
 *
 * The built-in client, unless what is known beforehand rules it out; the ssh
 * program then, and when the built-in client turned out not to be up to it.
 * Connections dropped by a busy server are tried again, each time later.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "hostkey.h"
#include "identity.h"
#include "stream_impl.h"

enum { BUSY_ATTEMPTS = 10, BUSY_MS = 200, BUSY_MAX_MS = 4000 };

/* Is the ssh program on the PATH? */
static bool has_ssh(pp_net *net) {
  const char *p, *path = getenv("PATH");
  char file[4096];

  if (net->has_ssh >= 0)
    return net->has_ssh;
  net->has_ssh = 0;
  for (p = path != NULL ? path : "/usr/bin:/bin"; *p != '\0';) {
    size_t n = strcspn(p, ":");

    if (snprintf(file, sizeof file, "%.*s/ssh", (int)n, p) < (int)sizeof file &&
        access(file, X_OK) == 0) {
      net->has_ssh = 1;
      break;
    }
    p += p[n] != '\0' ? n + 1 : n;
  }
  return net->has_ssh;
}

void pp_stream_try_ssh(pp_stream *s, const char *fmt, ...) {
  va_list ap;

  if (s->try_ssh[0] != '\0')
    return;
  va_start(ap, fmt);
  vsnprintf(s->try_ssh, sizeof s->try_ssh, fmt, ap);
  va_end(ap);
}

/* --- what the files tell -------------------------------------------------- */

/* Are there key files, and all of them such that only the ssh program can use
 * them? */
static bool only_foreign_keys(const pp_target *t, char *why, size_t size) {
  bool foreign = false, ours = false;
  pp_identity id;
  size_t i;

  if (!t->pubkey_auth)
    return false;
  for (i = 0; i < t->identities.n && !ours; i++) {
    memset(&id, 0, sizeof id);
    if (pp_identity_look(&id, t->identities.v[i]) == 0 && id.exists) {
      if (id.type[0] == '\0' || pp_identity_builtin(id.type)) {
        ours = true;
      } else if (!foreign) {
        foreign = true;
        snprintf(why, size, "%s key %s", pp_hostkey_short_type(id.type),
                 t->identities.v[i]);
      }
    }
    pp_identity_clear(&id);
  }
  /* An agent may have others. */
  return foreign && !ours && (t->agent == NULL || t->identities_only);
}

/* Does the host have keys that are known, but none that the built-in client can
 * check? */
static bool only_foreign_host_keys(const pp_target *t, char *why, size_t size) {
  pp_hostkey_query q = {t->host, t->port, t->host_key_alias};
  pp_hostkeys known = {0};
  char types[512], *p, *save = NULL;
  bool foreign = false;
  size_t n;

  if (pp_hostkeys_load(&known, &q, &t->known_hosts) != 0)
    return false;
  n = pp_hostkeys_types(&known, types, sizeof types);
  if (n > 0) {
    foreign = true;
    for (p = strtok_r(types, ",", &save); p != NULL && foreign;
         p = strtok_r(NULL, ",", &save)) {
      foreign = !pp_identity_builtin(p);
      snprintf(why, size, "the host key known is of type %s",
               pp_hostkey_short_type(p));
    }
  } else if (pp_hostkeys_has_ca(&known)) {
    foreign = true;
    snprintf(why, size, "a certificate authority vouches for the host");
  }
  pp_hostkeys_clear(&known);
  return foreign;
}

/* Why the built-in client cannot serve this target, or what it goes via. */
static bool needs_ssh(const pp_target *t, char *why, size_t size) {
  if (!pp_ssh_possible()) {
    snprintf(why, size, "libssh2 is not installed here");
    return true;
  }
  for (; t != NULL; t = t->via) {
    if (t->needs_ssh != NULL) {
      snprintf(why, size, "%s", t->needs_ssh);
      return true;
    }
    if (only_foreign_keys(t, why, size) || only_foreign_host_keys(t, why, size))
      return true;
  }
  return false;
}

/* --- attempts ------------------------------------------------------------- */

static void attempt(pp_stream *s, const pp_transport_ops *ops) {
  s->ops = ops;
  s->try_ssh[0] = '\0';
  if (ops == &pp_transport_libssh2 && !pp_ssh_possible()) {
    s->ops = NULL;
    pp_stream_failed(s, PP_END_UNSUPPORTED, "libssh2 is not installed here");
  } else if (ops->open(s) != 0) {
    s->ops = NULL;
    pp_stream_failed(s, PP_END_SYSTEM, "not enough memory");
  }
}

static const pp_transport_ops *choose(pp_stream *s) {
  const pp_target *t = s->target;
  char why[400] = "";

  switch (t->transport) {
  case PP_TRANSPORT_LIBSSH2:
    return &pp_transport_libssh2;
  case PP_TRANSPORT_SSH:
    return &pp_transport_openssh;
  case PP_TRANSPORT_AUTO:
    break;
  }
  if (s->fell_back)
    return &pp_transport_openssh;
  if (!needs_ssh(t, why, sizeof why))
    return &pp_transport_libssh2;
  if (!has_ssh(s->net)) {
    pp_net_log(s->net, PP_NET_WARN,
               "%s: %s, which is for the ssh program, and there is none",
               t->name, why);
    return &pp_transport_libssh2;
  }
  pp_net_log(s->net, PP_NET_INFO, "%s: using the ssh program: %s", t->name,
             why);
  s->fell_back = true;
  return &pp_transport_openssh;
}

static void again(pp_stream *s) {
  if (!s->dead && !s->closing)
    attempt(s, choose(s));
}

static void on_timer(uv_timer_t *timer) { again(timer->data); }

static void timer_closed(uv_handle_t *h) { free(h); }

void pp_transport_begin(pp_stream *s) {
  uv_timer_init(s->net->loop, s->timer);
  s->timer->data = s;
  /* From the loop: what it takes to decide is not for the caller to wait. */
  uv_timer_start(s->timer, on_timer, 0, 0);
}

void pp_transport_stop(pp_stream *s) {
  if (s->ops != NULL) {
    s->ops->abort(s);
    s->ops = NULL;
  }
  pp_throttle_leave(s->net->throttle, &s->slot);
  if (s->timer != NULL)
    uv_close((uv_handle_t *)s->timer, timer_closed);
  s->timer = NULL;
}

/* Whether the failure just noted is followed by another attempt. */
bool pp_transport_again(pp_stream *s) {
  const pp_target *t = s->target;
  uint64_t ms;
  int k;

  s->ops = NULL;
  pp_throttle_leave(s->net->throttle, &s->slot);
  if (s->closing)
    return false;
  if (s->end == PP_END_BUSY && ++s->attempts < BUSY_ATTEMPTS) {
    ms = BUSY_MS;
    for (k = 1; k < s->attempts && ms < BUSY_MAX_MS; k++)
      ms *= 2;
    if (ms > BUSY_MAX_MS)
      ms = BUSY_MAX_MS;
    /* Not all at the same moment. */
    ms = ms / 2 + uv_hrtime() / 1000 % (ms / 2 + 1);
    pp_net_log(s->net, PP_NET_DEBUG, "%s: %s; again in %d ms", t->name,
               s->reason, (int)ms);
    uv_timer_start(s->timer, on_timer, ms, 0);
    return true;
  }
  if ((s->end == PP_END_REFUSED || s->end == PP_END_TIMEOUT ||
       s->end == PP_END_UNREACHABLE) &&
      ++s->tries < t->connect_attempts) {
    uv_timer_start(s->timer, on_timer, 1000, 0);
    return true;
  }
  if ((s->end == PP_END_UNSUPPORTED ||
       (s->end == PP_END_AUTH && s->try_ssh[0] != '\0')) &&
      t->transport == PP_TRANSPORT_AUTO && !s->fell_back) {
    if (!has_ssh(s->net)) {
      size_t n = strlen(s->reason);

      snprintf(s->reason + n, sizeof s->reason - n,
               "; the ssh program might, but there is none");
      return false;
    }
    pp_net_log(s->net, PP_NET_INFO, "%s: using the ssh program: %s%s%s%s",
               t->name, s->reason, s->try_ssh[0] != '\0' ? " (" : "",
               s->try_ssh, s->try_ssh[0] != '\0' ? ")" : "");
    s->fell_back = true;
    s->attempts = 0;
    uv_timer_start(s->timer, on_timer, 0, 0);
    return true;
  }
  return false;
}
