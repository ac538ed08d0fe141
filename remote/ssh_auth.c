/* SPDX-License-Identifier: MIT */
/*
 * Proving who we are, in ssh's order: keys that are both in the agent and
 * named, other keys of the agent, key files; then keyboard-interactive and
 * password, if there is a terminal to ask at.
 *
 * Keys sign by way of a callback from within libssh2, which may say EAGAIN: so
 * neither an agent that thinks nor a passphrase that is being typed is waited
 * for.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ssh_impl.h"

static const char usual_order[] = "publickey,keyboard-interactive,password";

static bool in_list(const char *list, const char *name) {
  size_t n = strlen(name);
  const char *p = list;

  for (; p != NULL; p = (p = strchr(p, ',')) != NULL ? p + 1 : NULL)
    if (strncmp(p, name, n) == 0 && (p[n] == ',' || p[n] == '\0'))
      return true;
  return false;
}

static void note(pp_leg *h, const char *fmt, const char *a, const char *b) {
  pp_auth *x = &h->auth;
  size_t n = strlen(x->notes);

  if (n < sizeof x->notes - 1)
    snprintf(x->notes + n, sizeof x->notes - n, fmt, a, b);
}

void pp_auth_describe(pp_leg *h, char *buf, size_t size) {
  const pp_auth *x = &h->auth;
  char tried[120] = "";
  size_t n = 0;

  if (x->keys_tried > 0)
    n += (size_t)snprintf(tried, sizeof tried, "publickey with %d key%s",
                          x->keys_tried, x->keys_tried == 1 ? "" : "s");
  if (x->kbd_tried > 0)
    n += (size_t)snprintf(tried + n, sizeof tried - n, "%skeyboard-interactive",
                          n > 0 ? ", " : "");
  if (x->passwords_tried > 0)
    n += (size_t)snprintf(tried + n, sizeof tried - n, "%spassword",
                          n > 0 ? ", " : "");
  snprintf(buf, size, "tried %s%s%s%s", n > 0 ? tried : "nothing",
           x->methods[0] != '\0' ? "; the server allows " : "", x->methods,
           x->notes);
}

static void free_candidates(pp_auth *x) {
  size_t i;

  for (i = 0; i < x->n; i++)
    pp_buf_clear(&x->v[i].blob);
  free(x->v);
  x->v = NULL;
  x->n = x->at = 0;
}

static void drop_password(pp_auth *x) {
  if (x->password != NULL)
    pp_wipe(x->password, strlen(x->password));
  free(x->password);
  x->password = NULL;
}

void pp_auth_clear(pp_leg *h) {
  pp_auth *x = &h->auth;

  pp_agents_drop(x->list);
  pp_agents_drop(x->sign);
  x->list = x->sign = NULL;
  pp_keys_stop_waiting(&x->wait);
  pp_ask_drop(x->question);
  x->question = NULL;
  free_candidates(x);
  pp_buf_clear(&x->signature);
  drop_password(x);
}

static void no_memory(pp_leg *h) {
  pp_ssh_fail(h->c, PP_END_SYSTEM, "not enough memory");
}

/* While a human or another process is waited for, the server's time does not
 * run. */
static void stop_clock(pp_leg *h) { pp_ssh_deadline(h->c, 0, NULL); }

static void start_clock(pp_leg *h) {
  pp_ssh_deadline(h->c, PP_SSH_AUTH_SECONDS,
                  "the server does not complete the authentication");
}

/* --- which keys ----------------------------------------------------------- */

/* May a key of this type be offered here? Says so if it is one for the ssh
 * program. */
static bool usable(pp_leg *h, const char *type, const char *where) {
  if (!pp_identity_builtin(type)) {
    pp_stream_try_ssh(h->c->s, "%s key %s", pp_hostkey_short_type(type), where);
    return false;
  }
  return h->t->pubkey_algorithms == NULL ||
         in_list(h->t->pubkey_algorithms, type);
}

/* blob is taken. */
static bool add_candidate(pp_leg *h, pp_buf *blob, const char *path,
                          bool agent) {
  pp_auth *x = &h->auth;
  pp_candidate *v = realloc(x->v, (x->n + 1) * sizeof *v);

  if (v == NULL) {
    no_memory(h);
    return false;
  }
  x->v = v;
  v[x->n].blob = *blob;
  v[x->n].path = path;
  v[x->n].agent = agent;
  x->n++;
  memset(blob, 0, sizeof *blob);
  return true;
}

static bool same(const pp_buf *blob, const pp_agent_key *key) {
  return blob->len == key->len && memcmp(blob->data, key->blob, key->len) == 0;
}

static bool add_agent_key(pp_leg *h, const pp_agent_key *key,
                          const char *path) {
  pp_buf blob = {0};
  char type[64], where[300];
  bool ok;

  snprintf(where, sizeof where, "'%s' of the agent", key->comment);
  if (!pp_hostkey_type(key->blob, key->len, type, sizeof type) ||
      !usable(h, type, where))
    return true;
  if (pp_buf_put(&blob, key->blob, key->len) != 0) {
    no_memory(h);
    return false;
  }
  ok = add_candidate(h, &blob, path, true);
  pp_buf_clear(&blob);
  return ok;
}

/* The list of candidates, of the agent's keys and the files. */
static void gather(pp_leg *h, const pp_agent_key *keys, size_t n) {
  const pp_strings *files = &h->t->identities;
  pp_identity *ids = calloc(files->n + 1, sizeof *ids);
  bool *in_agent = calloc(files->n + 1, sizeof *in_agent);
  bool *named = calloc(n + 1, sizeof *named);
  size_t i, k;

  if (ids == NULL || in_agent == NULL || named == NULL) {
    no_memory(h);
    goto done;
  }
  for (i = 0; i < files->n; i++) {
    if (pp_identity_look(&ids[i], files->v[i]) != 0) {
      no_memory(h);
      goto done;
    }
    if (ids[i].has_cert)
      pp_stream_try_ssh(h->c->s, "certificate %s-cert.pub", files->v[i]);
  }
  for (i = 0; i < files->n; i++)
    for (k = 0; k < n; k++)
      if (!named[k] && !in_agent[i] && same(&ids[i].blob, &keys[k])) {
        named[k] = in_agent[i] = true;
        if (!add_agent_key(h, &keys[k], files->v[i]))
          goto done;
      }
  for (k = 0; k < n; k++)
    if (!named[k] && !h->t->identities_only &&
        !add_agent_key(h, &keys[k], NULL))
      goto done;
  for (i = 0; i < files->n; i++) {
    if (in_agent[i] || !ids[i].exists)
      continue;
    if (ids[i].type[0] != '\0' && !usable(h, ids[i].type, files->v[i]))
      continue;
    if (!add_candidate(h, &ids[i].blob, files->v[i], false))
      goto done;
  }
done:
  for (i = 0; ids != NULL && i < files->n; i++)
    pp_identity_clear(&ids[i]);
  free(ids);
  free(in_agent);
  free(named);
}

static void listed(void *ud, const pp_agent_key *keys, size_t n,
                   const char *why) {
  pp_leg *h = ud;
  pp_ssh *c = h->c;

  h->auth.list = NULL;
  pp_ssh_enter(c);
  if (why != NULL)
    note(h, "; %s%s", why, "");
  gather(h, keys, n);
  if (!c->gone) {
    start_clock(h);
    h->auth.listed = true;
    h->auth.step = PP_AUTH_NEXT;
    pp_ssh_run(c);
  }
  pp_ssh_leave(c);
}

/* --- publickey ------------------------------------------------------------ */

static void is_signed(void *ud, const unsigned char *sig, size_t n,
                      const char *why) {
  pp_leg *h = ud;
  pp_auth *x = &h->auth;

  x->sign = NULL;
  x->signature.len = 0;
  if (why != NULL || pp_buf_put(&x->signature, sig, n) != 0)
    x->sign_failed = true;
  else
    x->have_signature = true;
  start_clock(h);
  pp_ssh_kick(h->c);
}

static void key_ready(void *ud, pp_key_state state) {
  pp_leg *h = ud;

  (void)state; /* is asked again */
  start_clock(h);
  pp_ssh_kick(h->c);
}

static bool may_ask(pp_leg *h) {
  return !h->t->batch && pp_ask_possible(h->c->net->ask);
}

/* Sign with the key that is being offered: 0, LIBSSH2_ERROR_EAGAIN, or -1. */
static int sign(pp_leg *h, const unsigned char *data, size_t n) {
  pp_auth *x = &h->auth;
  const pp_candidate *v = &x->v[x->at];
  pp_net *net = h->c->net;

  if (x->have_signature)
    return 0;
  if (x->sign_failed)
    return -1;
  if (v->agent) {
    if (x->sign == NULL) {
      x->sign = pp_agents_sign(net->agents, h->t->agent, v->blob.data,
                               v->blob.len, data, n, is_signed, h);
      stop_clock(h);
    }
    return x->sign != NULL ? LIBSSH2_ERROR_EAGAIN : -1;
  }
  if (x->wait.file != NULL)
    return LIBSSH2_ERROR_EAGAIN;
  switch (
      pp_keys_open(net->keys, v->path, may_ask(h), &x->wait, key_ready, h)) {
  case PP_KEY_WAITING:
    stop_clock(h);
    return LIBSSH2_ERROR_EAGAIN;
  case PP_KEY_OPEN:
    x->signature.len = 0;
    return pp_keys_sign(net->keys, v->path, data, n, &x->signature);
  case PP_KEY_FAILED:
    break;
  }
  note(h, "; %s %s", v->path, pp_keys_why(net->keys, v->path));
  x->cancelled = x->cancelled || pp_keys_cancelled(net->keys, v->path);
  return -1;
}

static LIBSSH2_USERAUTH_PUBLICKEY_SIGN_FUNC(sign_callback) {
  pp_leg *h = *abstract;
  int rc = sign(h, data, data_len);

  (void)session;
  if (rc != 0)
    return rc;
  /* libssh2 frees it with its own free, which is the C library's. */
  if ((*sig = malloc(h->auth.signature.len + 1)) == NULL)
    return -1;
  memcpy(*sig, h->auth.signature.data, h->auth.signature.len);
  *sig_len = h->auth.signature.len;
  return 0;
}

static bool next_key(pp_leg *h) {
  pp_auth *x = &h->auth;

  x->at++;
  x->have_signature = x->sign_failed = false;
  x->step = PP_AUTH_NEXT;
  return true;
}

static bool offer_key(pp_leg *h) {
  pp_auth *x = &h->auth;
  const pp_candidate *v = &x->v[x->at];
  void *abstract = h;
  int rc;

  rc = libssh2_userauth_publickey(h->session, h->t->user, v->blob.data,
                                  v->blob.len, sign_callback, &abstract);
  if (rc == LIBSSH2_ERROR_EAGAIN)
    return false;
  x->keys_tried++;
  if (rc == 0) {
    pp_net_log(h->c->net, PP_NET_DEBUG, "%s: let in by %s%s", h->t->name,
               v->agent ? "a key of the agent" : "", v->agent ? "" : v->path);
    pp_leg_authenticated(h);
    return true;
  }
  if (rc != LIBSSH2_ERROR_AUTHENTICATION_FAILED &&
      rc != LIBSSH2_ERROR_PUBLICKEY_UNVERIFIED) {
    pp_leg_broken(h, rc, "authentication");
    return false;
  }
  /* The same code stands for a signature we have not made, for one that was
   * refused, and for a connection that is gone. */
  if (h->disconnected || (h->eof && h->nlent == 0 && h->in_at == h->in.len)) {
    pp_leg_broken(h, rc, "authentication");
    return false;
  }
  return next_key(h);
}

/* An encrypted PEM file without .pub: which key it is shows when it is open. */
static bool open_key(pp_leg *h) {
  pp_auth *x = &h->auth;
  pp_candidate *v = &x->v[x->at];
  pp_net *net = h->c->net;
  const pp_buf *blob;

  if (x->wait.file != NULL)
    return false;
  switch (
      pp_keys_open(net->keys, v->path, may_ask(h), &x->wait, key_ready, h)) {
  case PP_KEY_WAITING:
    stop_clock(h);
    return false;
  case PP_KEY_OPEN:
    blob = pp_keys_blob(net->keys, v->path);
    if (pp_buf_put(&v->blob, blob->data, blob->len) != 0) {
      no_memory(h);
      return false;
    }
    x->step = PP_AUTH_KEY;
    return true;
  case PP_KEY_FAILED:
    break;
  }
  note(h, "; %s %s", v->path, pp_keys_why(net->keys, v->path));
  pp_stream_try_ssh(h->c->s, "key %s", v->path);
  return next_key(h);
}

/* --- questions ------------------------------------------------------------ */

static void password_given(void *ud, pp_answer how, const char *text) {
  pp_leg *h = ud;
  pp_auth *x = &h->auth;

  x->question = NULL;
  drop_password(x);
  start_clock(h);
  if (how == PP_ANSWER_GIVEN && (x->password = strdup(text)) != NULL) {
    x->step = PP_AUTH_PASSWORD;
  } else {
    x->cancelled = how == PP_ANSWER_CANCELLED;
    x->password_done = true;
    x->step = PP_AUTH_NEXT;
  }
  pp_ssh_kick(h->c);
}

static bool ask_password(pp_leg *h) {
  pp_auth *x = &h->auth;
  char prompt[600];

  if (x->question != NULL)
    return false;
  snprintf(prompt, sizeof prompt, "%s%s@%s's password: ",
           x->passwords_tried > 0 ? "Permission denied, please try again. "
                                  : "",
           h->t->user, h->t->host);
  stop_clock(h);
  x->question =
      pp_ask_put(h->c->net->ask, NULL, prompt, false, password_given, h);
  if (x->question == NULL)
    no_memory(h);
  return false;
}

static bool try_password(pp_leg *h) {
  pp_auth *x = &h->auth;
  int rc = libssh2_userauth_password_ex(
      h->session, h->t->user, (unsigned)strlen(h->t->user), x->password,
      (unsigned)strlen(x->password), NULL);

  if (rc == LIBSSH2_ERROR_EAGAIN)
    return false;
  x->passwords_tried++;
  drop_password(x);
  if (rc == 0) {
    pp_leg_authenticated(h);
    return true;
  }
  if (rc == LIBSSH2_ERROR_PASSWORD_EXPIRED) {
    note(h, "; %s%s", "the password has expired", "");
    x->password_done = true;
    x->step = PP_AUTH_NEXT;
    return true;
  }
  if (rc != LIBSSH2_ERROR_AUTHENTICATION_FAILED || h->disconnected || h->eof) {
    pp_leg_broken(h, rc, "authentication");
    return false;
  }
  x->step = x->passwords_tried < h->t->password_prompts ? PP_AUTH_PASSWORD_ASK
                                                        : PP_AUTH_AGAIN;
  x->password_done = x->step == PP_AUTH_AGAIN;
  return true;
}

static bool try_kbd(pp_leg *h) {
  pp_auth *x = &h->auth;
  int rc = 0;

  stop_clock(h);
  if (pp_kbd_run(h, &rc) == 0)
    return false;
  start_clock(h);
  x->kbd_tried++;
  if (rc == 0) {
    pp_leg_authenticated(h);
    return true;
  }
  if (pp_kbd_cancelled(h)) {
    x->cancelled = true;
    x->kbd_done = true;
    x->step = PP_AUTH_NEXT;
    return true;
  }
  if (rc != LIBSSH2_ERROR_AUTHENTICATION_FAILED || h->disconnected || h->eof) {
    pp_leg_broken(h, rc, "authentication");
    return false;
  }
  if (x->kbd_tried >= h->t->password_prompts) {
    x->kbd_done = true;
    x->step = PP_AUTH_AGAIN;
  }
  return true;
}

/* --- what next ------------------------------------------------------------ */

static void give_up(pp_leg *h) {
  pp_ssh *c = h->c;
  char where[300], tried[500];

  pp_leg_where(h, where, sizeof where);
  pp_auth_describe(h, tried, sizeof tried);
  if (h->auth.cancelled) {
    pp_ssh_fail(c, PP_END_CANCELLED, "%sauthentication was given up (%s)",
                where, tried);
    return;
  }
  if (h->t->may_need_ssh != NULL)
    pp_stream_try_ssh(c->s, "%s", h->t->may_need_ssh);
  pp_ssh_fail(c, PP_END_AUTH, "%sauthentication failed (%s)", where, tried);
}

/* Did what we did help partly? Then the server allows something else now. */
static bool ask_again(pp_leg *h) {
  pp_auth *x = &h->auth;
  const char *list;

  /* The library forgets the list it gave before without freeing it. */
  if (x->given_list != NULL)
    libssh2_free(h->session, x->given_list);
  x->given_list = NULL;
  list = libssh2_userauth_list(h->session, h->t->user,
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
  x->given_list = (char *)list;
  if (strcmp(list, x->methods) != 0) {
    snprintf(x->methods, sizeof x->methods, "%s", list);
    if (++x->rounds < 4) {
      x->at = 0;
      x->keys_done = false;
    }
  }
  x->step = PP_AUTH_NEXT;
  return true;
}

static bool begin_method(pp_leg *h, const char *name, size_t n) {
  pp_auth *x = &h->auth;
  const pp_target *t = h->t;

  if (n == 9 && memcmp(name, "publickey", n) == 0) {
    if (!t->pubkey_auth || x->keys_done)
      return false;
    if (!x->listed) {
      x->step = PP_AUTH_LIST;
      if (t->agent != NULL) {
        stop_clock(h);
        x->list = pp_agents_list(h->c->net->agents, t->agent, listed, h);
      }
      if (x->list == NULL) {
        gather(h, NULL, 0);
        x->listed = true;
        x->step = PP_AUTH_NEXT;
      }
      return true;
    }
    if (x->at < x->n) {
      x->step = x->v[x->at].blob.len > 0 ? PP_AUTH_KEY : PP_AUTH_OPEN;
      return true;
    }
    x->keys_done = true;
    if (x->keys_tried > 0) {
      x->step = PP_AUTH_AGAIN;
      return true;
    }
    return false;
  }
  if (x->cancelled || h->no_password || !may_ask(h) || t->password_prompts <= 0)
    return false;
  if (n == 20 && memcmp(name, "keyboard-interactive", n) == 0) {
    if (!t->kbdint_auth || x->kbd_done)
      return false;
    x->step = PP_AUTH_KBD;
    return true;
  }
  if (n == 8 && memcmp(name, "password", n) == 0) {
    if (!t->password_auth || x->password_done)
      return false;
    x->step = PP_AUTH_PASSWORD_ASK;
    return true;
  }
  return false;
}

static bool choose(pp_leg *h) {
  pp_auth *x = &h->auth;
  const char *order = h->t->preferred_auths, *p;
  size_t n;

  for (p = order != NULL ? order : usual_order; *p != '\0';
       p += p[n] != '\0' ? n + 1 : n) {
    char name[32];

    n = strcspn(p, ",");
    if (n == 0 || n >= sizeof name)
      continue;
    memcpy(name, p, n);
    name[n] = '\0';
    if (in_list(x->methods, name) && begin_method(h, p, n))
      return !h->c->gone;
  }
  give_up(h);
  return false;
}

void pp_auth_begin(pp_leg *h) { h->auth.step = PP_AUTH_NEXT; }

bool pp_auth_step_taken(pp_leg *h) {
  switch (h->auth.step) {
  case PP_AUTH_LIST:
    return false;
  case PP_AUTH_NEXT:
    return choose(h);
  case PP_AUTH_OPEN:
    return open_key(h);
  case PP_AUTH_KEY:
    return offer_key(h);
  case PP_AUTH_AGAIN:
    return ask_again(h);
  case PP_AUTH_KBD:
    return try_kbd(h);
  case PP_AUTH_PASSWORD_ASK:
    return ask_password(h);
  case PP_AUTH_PASSWORD:
    return try_password(h);
  }
  return false;
}
