/* SPDX-License-Identifier: MIT */
/*
 * One leg, from bytes below to a channel: handshake, host key, methods of
 * authentication, channel, environment, command.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "keystream.h"
#include "ssh_impl.h"

/* What this client is willing to use, best first. Names that the library at
 * hand does not know are left out by it. */
static const char host_key_types[] =
    "ssh-ed25519,ecdsa-sha2-nistp256,ecdsa-sha2-nistp384,ecdsa-sha2-nistp521";
static const char ciphers[] =
    "aes128-gcm@openssh.com,aes256-gcm@openssh.com,aes128-ctr,aes192-ctr,"
    "aes256-ctr";
static const char macs[] = "hmac-sha2-256-etm@openssh.com,"
                           "hmac-sha2-512-etm@openssh.com,hmac-sha2-256,"
                           "hmac-sha2-512,hmac-sha1";
static const char kex[] =
    "curve25519-sha256,curve25519-sha256@libssh.org,ecdh-sha2-nistp256,"
    "ecdh-sha2-nistp384,ecdh-sha2-nistp521,"
    "diffie-hellman-group-exchange-sha256,diffie-hellman-group16-sha512,"
    "diffie-hellman-group18-sha512,diffie-hellman-group14-sha256";

/* --- what libssh2 sees of the network ------------------------------------- */

static LIBSSH2_SEND_FUNC(send_bytes) {
  pp_leg *h = *abstract;
  pp_outq *q;

  (void)socket;
  (void)flags;
  if (h->cut)
    return -ECONNRESET;
  q = h->index == 0 ? pp_carrier_queue(h->c->carrier) : &h->wire;
  return pp_outq_put(q, buffer, length) == 0 ? (ssize_t)length : -ENOMEM;
}

static LIBSSH2_RECV_FUNC(receive_bytes) {
  pp_leg *h = *abstract;
  size_t n = h->in.len - h->in_at;

  (void)socket;
  (void)flags;
  if (h->cut)
    return -ECONNRESET;
  if (n > 0) {
    n = n < length ? n : length;
    memcpy(buffer, h->in.data + h->in_at, n);
    h->in_at += n;
    return (ssize_t)n;
  }
  if (h->nlent > 0) {
    n = h->nlent < length ? h->nlent : length;
    memcpy(buffer, h->lent, n);
    h->lent += n;
    h->nlent -= n;
    return (ssize_t)n;
  }
  return h->eof ? 0 : -EAGAIN;
}

/* Why the server ends the connection, in its own words. */
static LIBSSH2_DISCONNECT_FUNC(on_disconnect) {
  pp_leg *h = *abstract;

  (void)session;
  (void)reason;
  (void)language;
  (void)language_len;
  h->disconnected = true;
  snprintf(h->disconnect, sizeof h->disconnect, "%.*s",
           message_len < (int)sizeof h->disconnect ? message_len
                                                   : (int)sizeof h->disconnect,
           message);
}

/* --- failing -------------------------------------------------------------- */

const char *pp_leg_error(pp_leg *h, char *buf, size_t size) {
  char *text = NULL;

  *buf = '\0';
  if (h->disconnect[0] != '\0')
    snprintf(buf, size, ": the server says: %s", h->disconnect);
  else if (h->session != NULL &&
           libssh2_session_last_error(h->session, &text, NULL, 0) != 0 &&
           text != NULL && *text != '\0')
    snprintf(buf, size, ": %s", text);
  return buf;
}

/* Has the server said that it speaks SSH? Other lines may come before. */
static bool speaks_ssh(pp_leg *h) {
  h->first[h->nfirst] = '\0';
  return strncmp(h->first, "SSH-", 4) == 0 ||
         strstr(h->first, "\nSSH-") != NULL;
}

/* It closed before the handshake, or said something else. */
static void no_handshake(pp_leg *h, const char *where) {
  pp_ssh *c = h->c;
  char *first = h->first;

  first[strcspn(first, "\r\n")] = '\0';
  if (c->lost && c->lost_kind != PP_END_LOST)
    pp_ssh_fail(c, c->lost_kind, "%s%s", where, c->lost_why);
  else if (*first == '\0' && h->t->proxy_command != NULL && c->lost)
    pp_ssh_fail(c, PP_END_UNREACHABLE, "%s%s", where, c->lost_why);
  else if (*first == '\0' || strncmp(first, "Exceeded MaxStartups", 20) == 0 ||
           strncmp(first, "Not allowed at this time", 24) == 0)
    /* So sshd drops who comes when too many are there. */
    pp_ssh_fail(c, PP_END_BUSY,
                "%sthe server closes the connection before the handshake%s%s",
                where, *first != '\0' ? ": " : "", first);
  else
    pp_ssh_fail(c, PP_END_LOST, "%sthis is no SSH server: it says '%s'", where,
                first);
}

static void broken_handshake(pp_leg *h, int rc, const char *where) {
  pp_ssh *c = h->c;
  char error[300];
  bool closed = h->eof || h->disconnected;

  if (!speaks_ssh(h) && (closed || rc == LIBSSH2_ERROR_BANNER_RECV ||
                         rc == LIBSSH2_ERROR_SOCKET_RECV)) {
    no_handshake(h, where);
    return;
  }
  if (closed && h->disconnect[0] == '\0') {
    /* In the midst of it: so does sshd when it is short of processes. */
    pp_ssh_fail(c, PP_END_BUSY,
                "%sthe server closes the connection during the handshake",
                where);
    return;
  }
  pp_leg_error(h, error, sizeof error);
  if (rc == LIBSSH2_ERROR_KEX_FAILURE || rc == LIBSSH2_ERROR_METHOD_NONE ||
      rc == LIBSSH2_ERROR_METHOD_NOT_SUPPORTED || h->disconnected)
    pp_ssh_fail(c, PP_END_UNSUPPORTED,
                "%sno way to exchange keys that both sides know%s", where,
                h->disconnect[0] != '\0' ? error : "");
  else if (rc == LIBSSH2_ERROR_ALLOC)
    pp_ssh_fail(c, PP_END_SYSTEM, "%snot enough memory", where);
  else
    pp_ssh_fail(c, PP_END_UNSUPPORTED, "%sthe handshake fails%s", where, error);
}

void pp_leg_broken(pp_leg *h, int rc, const char *doing) {
  pp_ssh *c = h->c;
  char where[300], error[300], tried[400];

  if (c->gone)
    return;
  pp_leg_where(h, where, sizeof where);
  if (h->state == PP_LEG_DOWN) {
    pp_ssh_fail(c, c->lost_kind, "%s%s", where, c->lost_why);
  } else if (h->state == PP_LEG_HANDSHAKE) {
    broken_handshake(h, rc, where);
  } else if (h->state == PP_LEG_METHODS || h->state == PP_LEG_AUTH) {
    pp_auth_describe(h, tried, sizeof tried);
    pp_leg_error(h, error, sizeof error);
    if ((h->eof || c->lost) && !h->disconnected)
      /* A server that has had enough says so. */
      pp_ssh_fail(c, PP_END_LOST,
                  "%sthe server closed the connection during authentication "
                  "(%s)",
                  where, tried);
    else
      pp_ssh_fail(c, PP_END_AUTH, "%sauthentication failed (%s)%s", where,
                  tried, error);
  } else if (h->disconnect[0] != '\0') {
    pp_ssh_fail(c, PP_END_LOST, "%sconnection closed%s", where,
                pp_leg_error(h, error, sizeof error));
  } else if (c->lost) {
    pp_ssh_fail(
        c, PP_END_LOST, "%s%s%s", where,
        strncmp(c->lost_why, "connection", 10) == 0 ? "" : "connection lost: ",
        c->lost_why);
  } else if (h->eof) {
    pp_ssh_fail(c, PP_END_LOST, "%sconnection closed by the other side", where);
  } else {
    pp_ssh_fail(c, PP_END_LOST, "%sconnection lost: %s failed%s", where, doing,
                pp_leg_error(h, error, sizeof error));
  }
}

static void no_memory(pp_leg *h) {
  pp_ssh_fail(h->c, PP_END_SYSTEM, "not enough memory");
}

/* --- handshake ------------------------------------------------------------ */

static bool listed(const char *list, const char *name, size_t n) {
  const char *p = list;

  for (; p != NULL; p = (p = strchr(p, ',')) != NULL ? p + 1 : NULL)
    if (strncmp(p, name, n) == 0 && (p[n] == ',' || p[n] == '\0'))
      return true;
  return false;
}

/* Those of `wanted` that are in `allowed` (NULL: all), each once. */
static void pick(char *out, size_t size, const char *wanted,
                 const char *allowed) {
  const char *p = wanted, *end;
  size_t len = strlen(out);

  for (; *p != '\0'; p = *end != '\0' ? end + 1 : end) {
    size_t n;

    end = p + strcspn(p, ",");
    n = (size_t)(end - p);
    if (n == 0 || (allowed != NULL && !listed(allowed, p, n)) ||
        listed(out, p, n) || len + n + 2 > size)
      continue;
    if (len > 0)
      out[len++] = ',';
    memcpy(out + len, p, n);
    len += n;
    out[len] = '\0';
  }
}

/* Prefer what is in the list. Only names that the library knows: 1.10 strikes
 * out others by copying the list over itself. */
static int set_preference(pp_leg *h, int method, const char *list) {
  const char **known = NULL;
  char kept[1024] = "", all[2048] = "";
  int n = libssh2_session_supported_algs(h->session, method, &known), i;

  if (n < 0)
    return n;
  for (i = 0; i < n; i++)
    pick(all, sizeof all, known[i], NULL);
  libssh2_free(h->session, known);
  pick(kept, sizeof kept, list, all);
  return *kept == '\0' ? LIBSSH2_ERROR_METHOD_NOT_SUPPORTED
                       : libssh2_session_method_pref(h->session, method, kept);
}

static int prefer(pp_leg *h, int method, const char *ours, const char *theirs) {
  char list[1024] = "";

  if (theirs == NULL)
    return set_preference(h, method, ours);
  pick(list, sizeof list, theirs, ours);
  return set_preference(h, method, list);
}

/* The types known for the host first: with another the host would show a key
 * that nobody knows. */
static int prefer_host_keys(pp_leg *h) {
  pp_hostkey_query q = {h->t->host, h->t->port, h->t->host_key_alias};
  char types[1024], list[1024] = "", where[300];
  size_t n;

  if (pp_hostkeys_load(&h->known, &q, &h->t->known_hosts) != 0)
    return LIBSSH2_ERROR_ALLOC;
  n = pp_hostkeys_types(&h->known, types, sizeof types);
  pick(list, sizeof list, types, host_key_types);
  if (n > 0 && *list == '\0') {
    pp_ssh_fail(h->c, PP_END_UNSUPPORTED,
                "%sonly keys of type %s are known for the host, which the "
                "built-in client cannot check",
                pp_leg_where(h, where, sizeof where), types);
    return 0;
  }
  pick(list, sizeof list,
       h->t->hostkey_algorithms != NULL ? h->t->hostkey_algorithms
                                        : host_key_types,
       host_key_types);
  return set_preference(h, LIBSSH2_METHOD_HOSTKEY, list);
}

void pp_leg_start(pp_leg *h, int fd) {
  pp_ssh *c = h->c;
  int rc, seconds = h->t->connect_timeout;

  h->state = PP_LEG_HANDSHAKE;
  c->top = h->index;
  (void)fd;
  if ((h->session = libssh2_session_init_ex(NULL, NULL, NULL, h)) == NULL) {
    no_memory(h);
    return;
  }
  libssh2_session_set_blocking(h->session, 0);
  libssh2_session_callback_set(h->session, LIBSSH2_CALLBACK_SEND,
                               (void *)send_bytes);
  libssh2_session_callback_set(h->session, LIBSSH2_CALLBACK_RECV,
                               (void *)receive_bytes);
  libssh2_session_callback_set(h->session, LIBSSH2_CALLBACK_DISCONNECT,
                               (void *)on_disconnect);
  rc = prefer_host_keys(h);
  if (c->gone)
    return;
  if (rc == 0)
    rc = prefer(h, LIBSSH2_METHOD_KEX, kex, h->t->kex);
  if (rc == 0)
    rc = prefer(h, LIBSSH2_METHOD_CRYPT_CS, ciphers, h->t->ciphers);
  if (rc == 0)
    rc = prefer(h, LIBSSH2_METHOD_CRYPT_SC, ciphers, h->t->ciphers);
  if (rc == 0)
    rc = prefer(h, LIBSSH2_METHOD_MAC_CS, macs, h->t->macs);
  if (rc == 0)
    rc = prefer(h, LIBSSH2_METHOD_MAC_SC, macs, h->t->macs);
  if (rc != 0) {
    char where[300];

    pp_ssh_fail(c, PP_END_UNSUPPORTED,
                "%sthe algorithms configured are none of the built-in client's",
                pp_leg_where(h, where, sizeof where));
    return;
  }
  pp_ssh_deadline(c, seconds > 0 ? seconds : PP_CARRIER_TIMEOUT,
                  "the server does not complete the handshake");
}

/* --- the host key --------------------------------------------------------- */

static void ask_for_methods(pp_leg *h) {
  h->state = PP_LEG_METHODS;
  pp_ssh_deadline(h->c, PP_SSH_AUTH_SECONDS,
                  "the server does not complete the authentication");
}

static void add_host_key(pp_leg *h) {
  pp_hostkey_query q = {h->t->host, h->t->port, h->t->host_key_alias};
  const char *key, *file;
  size_t n = 0;
  int type, status;

  if (h->t->user_known_hosts == 0)
    return;
  file = h->t->known_hosts.v[0];
  key = libssh2_session_hostkey(h->session, &n, &type);
  status = pp_hostkey_add(file, &q, key, n, h->t->hash_known_hosts);
  if (status != 0)
    pp_net_log(h->c->net, PP_NET_WARN, "%s: cannot add the host key to %s: %s",
               h->t->name, file,
               status == PP_ESYS ? strerror(errno) : pp_strerror(status));
  else
    pp_net_log(h->c->net, PP_NET_INFO, "%s: added the host key to %s",
               h->t->name, file);
}

static void host_key_answered(void *ud, pp_answer how, const char *text) {
  pp_leg *h = ud;
  pp_ssh *c = h->c;
  char where[300];

  h->auth.question = NULL;
  pp_ssh_enter(c);
  pp_leg_where(h, where, sizeof where);
  if (how == PP_ANSWER_GIVEN && strcasecmp(text, "yes") == 0) {
    add_host_key(h);
    ask_for_methods(h);
    pp_ssh_run(c);
  } else if (how == PP_ANSWER_CANCELLED) {
    pp_ssh_fail(c, PP_END_CANCELLED, "%sthe host key was not accepted", where);
  } else {
    pp_ssh_fail(c, PP_END_HOSTKEY, "%sthe host key was not accepted", where);
  }
  pp_ssh_leave(c);
}

static bool check_host_key(pp_leg *h) {
  pp_ssh *c = h->c;
  const struct sockaddr *peer =
      h->index == 0 ? pp_carrier_peer(c->carrier) : NULL;
  pp_hostkey_found found;
  pp_hostkey_decision d;
  char reason[400], where[300], prompt[900], print[64];
  const char *key;
  size_t n = 0;
  int type = 0;
  bool ask;

  key = libssh2_session_hostkey(h->session, &n, &type);
  if (key == NULL) {
    pp_ssh_fail(c, PP_END_UNSUPPORTED, "the server has no host key");
    return false;
  }
  if (h->t->trust_localhost && peer != NULL && pp_hostkey_is_loopback(peer)) {
    ask_for_methods(h);
    return true;
  }
  pp_leg_where(h, where, sizeof where);
  pp_hostkeys_check(&h->known, key, n, &found);
  ask = !h->t->batch && pp_ask_possible(c->net->ask);
  d = pp_hostkey_decide(&found, h->t, ask, key, n, reason, sizeof reason);
  if (d == PP_HOSTKEY_REFUSE && found.verdict == PP_HOSTKEY_UNKNOWN &&
      pp_hostkeys_has_ca(&h->known)) {
    pp_ssh_fail(c, PP_END_UNSUPPORTED,
                "%sa certificate authority is to vouch for the host, which the "
                "built-in client cannot check",
                where);
    return false;
  }
  switch (d) {
  case PP_HOSTKEY_ACCEPT_WARN:
    pp_net_log(c->net, PP_NET_WARN, "%s: %s", h->t->name, reason);
    h->no_password = true;
    break;
  case PP_HOSTKEY_ACCEPT_ADD:
    add_host_key(h);
    break;
  case PP_HOSTKEY_ACCEPT:
    break;
  case PP_HOSTKEY_ASK:
    pp_hostkey_fingerprint(key, n, print, sizeof print);
    snprintf(prompt, sizeof prompt,
             "The host '%s' is not known yet; its key is %s.\n"
             "Go on connecting, and remember the key (yes/no)? ",
             h->t->name, print);
    h->state = PP_LEG_HOSTKEY;
    pp_ssh_deadline(c, 0, NULL);
    h->auth.question =
        pp_ask_put(c->net->ask, NULL, prompt, true, host_key_answered, h);
    if (h->auth.question == NULL)
      no_memory(h);
    return false;
  case PP_HOSTKEY_REFUSE:
  default:
    pp_ssh_fail(c, PP_END_HOSTKEY, "%s%s", where, reason);
    return false;
  }
  ask_for_methods(h);
  return true;
}

/* --- steps ---------------------------------------------------------------- */

static bool handshake(pp_leg *h) {
  void *was = pp_keystream_enter();
  int rc = libssh2_session_handshake(h->session, pp_carrier_fd(h->c->carrier));

  pp_keystream_leave(was);
  if (rc == LIBSSH2_ERROR_EAGAIN)
    return false;
  if (rc != 0) {
    pp_leg_broken(h, rc, "the handshake");
    return false;
  }
  return check_host_key(h);
}

void pp_leg_authenticated(pp_leg *h) {
  pp_auth_clear(h);
  h->state = PP_LEG_CHANNEL;
  pp_ssh_deadline(h->c, PP_SSH_AUTH_SECONDS, "the server opens no channel");
}

static bool ask_methods(pp_leg *h) {
  char *list = libssh2_userauth_list(h->session, h->t->user,
                                     (unsigned)strlen(h->t->user));

  if (list == NULL) {
    if (libssh2_userauth_authenticated(h->session)) {
      pp_leg_authenticated(h);
      return true;
    }
    if (libssh2_session_last_errno(h->session) != LIBSSH2_ERROR_EAGAIN)
      pp_leg_broken(h, libssh2_session_last_errno(h->session),
                    "authentication");
    return false;
  }
  snprintf(h->auth.methods, sizeof h->auth.methods, "%s", list);
  h->auth.given_list = list;
  h->state = PP_LEG_AUTH;
  pp_auth_begin(h);
  return !h->c->gone;
}

static bool open_channel(pp_leg *h) {
  pp_ssh *c = h->c;
  const pp_leg *next = h + 1;
  char where[300], error[300];
  int rc;

  if (h->index < c->n - 1)
    h->channel = libssh2_channel_direct_tcpip_ex(
        h->session, next->t->host, next->t->port, "127.0.0.1", 22);
  else
    h->channel =
        libssh2_channel_open_ex(h->session, "session", 7, PP_STREAM_WINDOW,
                                LIBSSH2_CHANNEL_PACKET_DEFAULT, NULL, 0);
  if (h->channel == NULL) {
    rc = libssh2_session_last_errno(h->session);
    if (rc == LIBSSH2_ERROR_EAGAIN)
      return false;
    pp_leg_where(h, where, sizeof where);
    if (rc != LIBSSH2_ERROR_CHANNEL_FAILURE)
      pp_leg_broken(h, rc, "opening a channel");
    else if (h->index < c->n - 1)
      pp_ssh_fail(c, PP_END_UNREACHABLE, "%scannot reach '%s' port %d%s", where,
                  next->t->host, next->t->port,
                  pp_leg_error(h, error, sizeof error));
    else
      pp_ssh_fail(c, PP_END_EXEC, "the server opens no session%s",
                  pp_leg_error(h, error, sizeof error));
    return false;
  }
  if (h->index < c->n - 1) {
    h->state = PP_LEG_UP;
    if (h->index == 0)
      pp_stream_is_known(c->s);
    pp_leg_start(&c->legs[h->index + 1], -1);
    return !c->gone;
  }
  h->state = PP_LEG_ENV;
  return true;
}

static bool send_environment(pp_leg *h) {
  const pp_strings *env = &h->t->env;

  for (; h->env_at < env->n; h->env_at++) {
    const char *pair = env->v[h->env_at], *value = strchr(pair, '=');
    int rc;

    if (value == NULL)
      continue;
    rc = libssh2_channel_setenv_ex(h->channel, pair, (unsigned)(value - pair),
                                   value + 1, (unsigned)strlen(value + 1));
    if (rc == LIBSSH2_ERROR_EAGAIN)
      return false;
    /* A server need not take it. */
    if (rc != 0 && rc != LIBSSH2_ERROR_CHANNEL_REQUEST_DENIED) {
      pp_leg_broken(h, rc, "sending the environment");
      return false;
    }
  }
  h->state = PP_LEG_EXEC;
  return true;
}

static bool execute(pp_leg *h) {
  const char *command = h->c->s->command;
  int rc = libssh2_channel_process_startup(h->channel, "exec", 4, command,
                                           (unsigned)strlen(command));

  if (rc == LIBSSH2_ERROR_EAGAIN)
    return false;
  if (rc == LIBSSH2_ERROR_CHANNEL_REQUEST_DENIED) {
    pp_ssh_fail(h->c, PP_END_EXEC, "the server does not execute commands");
    return false;
  }
  if (rc != 0) {
    pp_leg_broken(h, rc, "executing the command");
    return false;
  }
  h->state = PP_LEG_UP;
  pp_ssh_is_up(h->c);
  return !h->c->gone;
}

bool pp_leg_step(pp_leg *h) {
  switch (h->state) {
  case PP_LEG_HANDSHAKE:
    return handshake(h);
  case PP_LEG_METHODS:
    return ask_methods(h);
  case PP_LEG_AUTH:
    return pp_auth_step_taken(h);
  case PP_LEG_CHANNEL:
    return open_channel(h);
  case PP_LEG_ENV:
    return send_environment(h);
  case PP_LEG_EXEC:
    return execute(h);
  case PP_LEG_DOWN:
  case PP_LEG_HOSTKEY:
  case PP_LEG_UP:
  case PP_LEG_OVER:
    break;
  }
  return false;
}

void pp_leg_clear(pp_leg *h) {
  pp_kbd_clear(h);
  pp_auth_clear(h);
  if (h->session != NULL) {
    if (h->index == 0 && !h->eof && h->state > PP_LEG_METHODS)
      libssh2_session_disconnect(h->session, "");
    /* It would wait for answers. */
    h->cut = true;
    /* Broken off in its midst, the handshake keeps what it has made unless it
     * gets to see that. */
    if (h->state == PP_LEG_HANDSHAKE)
      libssh2_session_handshake(h->session, -1);
    libssh2_session_free(h->session);
    h->session = NULL;
    h->channel = NULL;
  }
  h->state = PP_LEG_OVER;
  pp_hostkeys_clear(&h->known);
  pp_buf_clear(&h->in);
  pp_buf_clear(&h->staged);
  free(h->scratch);
  h->scratch = NULL;
}
