/* SPDX-License-Identifier: MIT */
#include "config.h"

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "expand.h"
#include "wild.h"

/* --- values ----------------------------------------------------------------
 */

typedef enum kind { BOOL, INT, TEXT } kind;

/* A value that stands in a field as it is. */
static const struct {
  const char *key;
  kind kind;
  size_t at;
} plain[] = {
    {"hostname", TEXT, offsetof(pp_target, host)},
    {"user", TEXT, offsetof(pp_target, user)},
    {"port", INT, offsetof(pp_target, port)},
    {"bindaddress", TEXT, offsetof(pp_target, bind_address)},
    {"connecttimeout", INT, offsetof(pp_target, connect_timeout)},
    {"connectionattempts", INT, offsetof(pp_target, connect_attempts)},
    {"serveraliveinterval", INT, offsetof(pp_target, alive_interval)},
    {"serveralivecountmax", INT, offsetof(pp_target, alive_count)},
    {"proxyjump", TEXT, offsetof(pp_target, jump)},
    {"proxycommand", TEXT, offsetof(pp_target, proxy_command)},
    {"hostkeyalias", TEXT, offsetof(pp_target, host_key_alias)},
    {"hashknownhosts", BOOL, offsetof(pp_target, hash_known_hosts)},
    {"nohostauthenticationforlocalhost", BOOL,
     offsetof(pp_target, trust_localhost)},
    {"identitiesonly", BOOL, offsetof(pp_target, identities_only)},
    {"identityagent", TEXT, offsetof(pp_target, agent)},
    {"pubkeyauthentication", BOOL, offsetof(pp_target, pubkey_auth)},
    {"kbdinteractiveauthentication", BOOL, offsetof(pp_target, kbdint_auth)},
    {"challengeresponseauthentication", BOOL, offsetof(pp_target, kbdint_auth)},
    {"passwordauthentication", BOOL, offsetof(pp_target, password_auth)},
    {"preferredauthentications", TEXT, offsetof(pp_target, preferred_auths)},
    {"batchmode", BOOL, offsetof(pp_target, batch)},
    {"numberofpasswordprompts", INT, offsetof(pp_target, password_prompts)},
    {"kexalgorithms", TEXT, offsetof(pp_target, kex)},
    {"ciphers", TEXT, offsetof(pp_target, ciphers)},
    {"macs", TEXT, offsetof(pp_target, macs)},
    {"hostkeyalgorithms", TEXT, offsetof(pp_target, hostkey_algorithms)},
    {"pubkeyacceptedalgorithms", TEXT, offsetof(pp_target, pubkey_algorithms)},
    {"pubkeyacceptedkeytypes", TEXT, offsetof(pp_target, pubkey_algorithms)},
};

/* What only the ssh program can do, when it is neither off nor the default. */
static const struct {
  const char *key, *name;
  const char *unless; /* a value that asks for nothing, beside no and none */
} alien[] = {
    {"pkcs11provider", "PKCS11Provider", NULL},
    {"securitykeyprovider", "SecurityKeyProvider", "internal"},
    {"certificatefile", "CertificateFile", NULL},
    {"forwardagent", "ForwardAgent", NULL},
    {"proxyusefdpass", "ProxyUseFdpass", NULL},
    {"bindinterface", "BindInterface", NULL},
    {"knownhostscommand", "KnownHostsCommand", NULL},
    {"revokedhostkeys", "RevokedHostKeys", NULL},
    {"verifyhostkeydns", "VerifyHostKeyDNS", "ask"},
};

/* What is of no use to us, and what the ssh program is told then. Older ones do
 * not know all of it, and do not print it. */
static const struct {
  const char *key, *harmless, *undo;
} undone[] = {
    {"sessiontype", "default", "-oSessionType=default"},
    {"stdinnull", "no", "-oStdinNull=no"},
    {"forkafterauthentication", "no", "-oForkAfterAuthentication=no"},
    {"controlmaster", "false", "-oControlMaster=no"},
    {"tunnel", "false", "-oTunnel=no"},
};

/* Where the ssh program may get in though the built-in client cannot. */
static const struct {
  const char *key, *name;
} helpful[] = {
    {"gssapiauthentication", "GSSAPIAuthentication"},
    {"hostbasedauthentication", "HostbasedAuthentication"},
    {"controlpath", "ControlPath"},
};

/* Lists of which the built-in client must know one (libssh2 1.10 does). */
static const struct {
  size_t at;
  const char *name, *known;
} choices[] = {
    {offsetof(pp_target, kex), "KexAlgorithms",
     "curve25519-sha256,curve25519-sha256@libssh.org,ecdh-sha2-nistp256,"
     "ecdh-sha2-nistp384,ecdh-sha2-nistp521,"
     "diffie-hellman-group-exchange-sha256,diffie-hellman-group14-sha256,"
     "diffie-hellman-group16-sha512,diffie-hellman-group18-sha512,"
     "diffie-hellman-group14-sha1,diffie-hellman-group-exchange-sha1,"
     "diffie-hellman-group1-sha1"},
    {offsetof(pp_target, ciphers), "Ciphers",
     "aes128-ctr,aes192-ctr,aes256-ctr,aes128-cbc,aes192-cbc,aes256-cbc"},
    {offsetof(pp_target, macs), "MACs",
     "hmac-sha2-256,hmac-sha2-512,hmac-sha1"},
    {offsetof(pp_target, hostkey_algorithms), "HostKeyAlgorithms",
     "ssh-ed25519,ecdsa-sha2-nistp256,ecdsa-sha2-nistp384,"
     "ecdsa-sha2-nistp521"},
    {offsetof(pp_target, pubkey_algorithms), "PubkeyAcceptedAlgorithms",
     "ssh-ed25519,ecdsa-sha2-nistp256,ecdsa-sha2-nistp384,"
     "ecdsa-sha2-nistp521"},
};

typedef struct parser {
  pp_target *t;
  const pp_local *l;
  pp_strings identities, user_files, global_files; /* unexpanded */
  pp_strings send, set;
  bool permit_local, local_command;
  bool has_host;
} parser;

static bool is(const char *a, const char *b) { return strcmp(a, b) == 0; }

static bool is_off(const char *v) {
  return is(v, "no") || is(v, "false") || is(v, "off") || is(v, "none") ||
         is(v, "0");
}

static bool to_bool(const char *v, bool *out) {
  if (is_off(v))
    *out = false;
  else if (is(v, "yes") || is(v, "true") || is(v, "on") || is(v, "1") ||
           is(v, "unbound") || is(v, "host-bound"))
    *out = true;
  else
    return false;
  return true;
}

static bool to_int(const char *v, int *out) {
  char *end;
  long n;

  if (is(v, "none")) {
    *out = 0;
    return true;
  }
  errno = 0;
  n = strtol(v, &end, 10);
  if (end == v || *end != '\0' || errno != 0 || n < 0 || n > INT_MAX)
    return false;
  *out = (int)n;
  return true;
}

static int set_text(char **at, const char *v) {
  size_t n = strlen(v) + 1;
  char *copy = pp_buf_realloc(NULL, n);

  if (copy == NULL)
    return PP_ENOMEM;
  memcpy(copy, v, n);
  pp_buf_realloc(*at, 0);
  *at = copy;
  return 0;
}

/* Say why ssh is needed. The first reason stays. */
__attribute__((format(printf, 2, 3))) static int need(pp_target *t,
                                                      const char *format, ...) {
  char why[256];
  va_list ap;

  if (t->needs_ssh != NULL)
    return 0;
  va_start(ap, format);
  vsnprintf(why, sizeof why, format, ap);
  va_end(ap);
  return set_text(&t->needs_ssh, why);
}

static int may_need(pp_target *t, const char *name, const char *how) {
  char why[256];

  snprintf(why, sizeof why, "%s%s%s is %s",
           t->may_need_ssh != NULL ? t->may_need_ssh : "",
           t->may_need_ssh != NULL ? ", " : "", name, how);
  return set_text(&t->may_need_ssh, why);
}

/* Files in one line, without quotes around blanks in a name. So a word that
 * does not look like the beginning of a path goes on with the one before. */
static int split_files(pp_strings *out, char *v) {
  while (*v != '\0') {
    char *end = v + strcspn(v, " ");
    int r;

    while (*end == ' ' && end[1] != '\0' && strchr("/~$%. ", end[1]) == NULL)
      end += 1 + strcspn(end + 1, " ");
    r = pp_strings_add(out, v, (size_t)(end - v));
    if (r < 0)
      return r;
    v = end + (*end == ' ');
  }
  return 0;
}

/* --- lines -----------------------------------------------------------------
 */

static int read_plain(parser *c, size_t i, char *v) {
  char *at = (char *)c->t + plain[i].at;

  c->has_host |= plain[i].at == offsetof(pp_target, host);
  switch (plain[i].kind) {
  case BOOL:
    (void)to_bool(v, (bool *)(void *)at);
    return 0;
  case INT:
    (void)to_int(v, (int *)(void *)at);
    return 0;
  case TEXT:
    /* A host may well be called none, and ssh -G leaves out what is not set;
     * but this is how one says so for these. */
    if (is(v, "none") &&
        (is(plain[i].key, "proxyjump") || is(plain[i].key, "proxycommand")))
      return 0;
    return set_text((char **)(void *)at, v);
  }
  return 0;
}

static int read_special(parser *c, const char *key, char *v) {
  pp_target *t = c->t;

  if (is(key, "identityfile"))
    return pp_strings_add(&c->identities, v, strlen(v));
  if (is(key, "userknownhostsfile"))
    return split_files(&c->user_files, v);
  if (is(key, "globalknownhostsfile"))
    return split_files(&c->global_files, v);
  if (is(key, "sendenv"))
    return pp_strings_add(&c->send, v, strlen(v));
  if (is(key, "setenv"))
    return strchr(v, '=') > v ? pp_strings_add(&c->set, v, strlen(v)) : 0;
  if (is(key, "addressfamily"))
    t->family = is(v, "inet") ? AF_INET : is(v, "inet6") ? AF_INET6 : AF_UNSPEC;
  else if (is(key, "stricthostkeychecking"))
    t->strict = is_off(v)             ? PP_STRICT_NO
                : is(v, "accept-new") ? PP_STRICT_ACCEPT_NEW
                : is(v, "ask")        ? PP_STRICT_ASK
                                      : PP_STRICT_YES;
  else if (is(key, "permitlocalcommand"))
    (void)to_bool(v, &c->permit_local);
  else if (is(key, "localcommand"))
    c->local_command = !is(v, "none");
  return 0;
}

static int read_line(parser *c, const char *key, char *v) {
  size_t i;
  int r;

  for (i = 0; i < sizeof plain / sizeof *plain; i++)
    if (is(key, plain[i].key))
      return read_plain(c, i, v);
  for (i = 0; i < sizeof alien / sizeof *alien; i++)
    if (is(key, alien[i].key)) {
      bool on = true;

      if (is_off(v) || (alien[i].unless != NULL && is(v, alien[i].unless)))
        return 0;
      r = to_bool(v, &on) ? 1 : 0;
      return need(c->t, "%s is %s", alien[i].name, r ? "on" : "set");
    }
  for (i = 0; i < sizeof undone / sizeof *undone; i++)
    if (is(key, undone[i].key))
      return is(v, undone[i].harmless) || is(v, "no")
                 ? 0
                 : pp_strings_add(&c->t->undo, undone[i].undo,
                                  strlen(undone[i].undo));
  for (i = 0; i < sizeof helpful / sizeof *helpful; i++)
    if (is(key, helpful[i].key)) {
      bool on = true;

      if (is_off(v))
        return 0;
      r = to_bool(v, &on) ? 1 : 0;
      return may_need(c->t, helpful[i].name, r ? "on" : "set");
    }
  return read_special(c, key, v);
}

static int read_text(parser *c, const char *text, size_t len) {
  const char *end = text + len;
  pp_buf line = {0};
  int r = 0;

  for (const char *p = text; r == 0 && p < end;) {
    const char *nl = memchr(p, '\n', (size_t)(end - p));
    size_t n = (size_t)((nl != NULL ? nl : end) - p);

    line.len = 0;
    if (n > 0 && n <= PP_CONFIG_VALUE_MAX && memchr(p, 0, n) == NULL) {
      char *v, *last;

      r = pp_buf_put(&line, p, n);
      if (r == 0)
        r = pp_buf_byte(&line, 0);
      if (r < 0)
        break;
      last = (char *)line.data + n;
      while (last > (char *)line.data && (last[-1] == ' ' || last[-1] == '\r'))
        *--last = '\0';
      v = strchr((char *)line.data, ' ');
      if (v != NULL) {
        *v++ = '\0';
        r = read_line(c, (char *)line.data, v);
      }
    }
    p += n + 1;
  }
  pp_buf_clear(&line);
  return r;
}

/* --- after the last line ----------------------------------------------------
 */

/* Expand a value and add it, or say that it takes ssh to do so. */
static int add_path(parser *c, pp_strings *out, const char *what,
                    const char *v) {
  char why[64];
  pp_buf b = {0};
  int r = pp_expand_path(&b, v, c->t, c->l, why, sizeof why);

  if (r == 0)
    r = pp_strings_add(out, (char *)b.data, b.len - 1);
  else if (r == PP_EBAD)
    r = need(c->t, "%s has %s in it", what, why);
  pp_buf_clear(&b);
  return r;
}

/* What ssh -G expanded already begins with a slash, and a % in it is one. */
static int add_expanded(parser *c, pp_strings *out, const char *what,
                        const char *v) {
  return *v == '/' && strstr(v, "${") == NULL
             ? pp_strings_add(out, v, strlen(v))
             : add_path(c, out, what, v);
}

static int add_files(parser *c, const pp_strings *from, const char *what) {
  int r = 0;

  for (size_t i = 0; r == 0 && i < from->n; i++)
    if (!is(from->v[i], "none"))
      r = add_expanded(c, &c->t->known_hosts, what, from->v[i]);
  return r;
}

static int finish_identities(parser *c) {
  static const char usual[] = "~/.ssh/id_";
  bool given = c->identities.n < 3;
  int r = 0;

  for (size_t i = 0; r == 0 && i < c->identities.n; i++) {
    const char *v = c->identities.v[i];

    given = given || strncmp(v, usual, strlen(usual)) != 0;
    if (!is(v, "none"))
      r = add_path(c, &c->t->identities, "IdentityFile", v);
  }
  c->t->identities_given = given && c->t->identities.n > 0;
  return r;
}

static int finish_agent(parser *c) {
  pp_target *t = c->t;
  char *v = t->agent;
  pp_strings path = {0};
  const char *socket = NULL;
  int r = 0;

  t->agent = NULL;
  if (v == NULL || is(v, "SSH_AUTH_SOCK"))
    socket = pp_local_var(c->l, "SSH_AUTH_SOCK", strlen("SSH_AUTH_SOCK"));
  else if (v[0] == '$' && v[1] != '{')
    socket = pp_local_var(c->l, v + 1, strlen(v + 1));
  else if (!is(v, "none") && (r = add_expanded(c, &path, "IdentityAgent", v),
                              r == 0 && path.n > 0))
    socket = path.v[0];
  if (r == 0 && socket != NULL && *socket != '\0')
    r = set_text(&t->agent, socket);
  pp_strings_clear(&path);
  pp_buf_realloc(v, 0);
  return r;
}

/* SendEnv takes patterns. */
static int finish_env(parser *c) {
  int r = 0;

  for (char **e = c->l->env; r == 0 && e != NULL && *e != NULL; e++) {
    const char *equals = strchr(*e, '=');

    for (size_t i = 0; r == 0 && equals != NULL && i < c->send.n; i++)
      if (pp_wild_match(c->send.v[i], strlen(c->send.v[i]), *e,
                        (size_t)(equals - *e), false)) {
        r = pp_strings_add(&c->t->env, *e, strlen(*e));
        break;
      }
  }
  for (size_t i = 0; r == 0 && i < c->set.n; i++)
    r = pp_strings_add(&c->t->env, c->set.v[i], strlen(c->set.v[i]));
  return r;
}

/* Have two comma separated lists a name in common? */
static bool meet(const char *list, const char *known) {
  for (const char *p = list; *p != '\0'; p += strspn(p, ",")) {
    size_t n = strcspn(p, ",");

    for (const char *k = known; *k != '\0'; k += strspn(k, ",")) {
      size_t m = strcspn(k, ",");

      if (n == m && memcmp(p, k, n) == 0)
        return true;
      k += m;
    }
    p += n;
  }
  return false;
}

static int finish_choices(parser *c) {
  for (size_t i = 0; i < sizeof choices / sizeof *choices; i++) {
    const char *list = *(char **)(void *)((char *)c->t + choices[i].at);
    int r;

    if (list == NULL || meet(list, choices[i].known) ||
        (choices[i].at == offsetof(pp_target, pubkey_algorithms) &&
         !c->t->pubkey_auth))
      continue;
    r = need(c->t, "%s allows nothing that the built-in client has",
             choices[i].name);
    if (r < 0)
      return r;
  }
  return 0;
}

static int finish_command(parser *c) {
  pp_target *t = c->t;
  char **at[] = {&t->jump, &t->proxy_command};
  static const char *const what[] = {"ProxyJump", "ProxyCommand"};
  char why[64];

  if (t->jump != NULL) { /* it wins, as ssh -G has decided already */
    pp_buf_realloc(t->proxy_command, 0);
    t->proxy_command = NULL;
  }
  for (int i = 0; i < 2; i++) {
    pp_buf b = {0};
    int r;

    if (*at[i] == NULL)
      continue;
    r = pp_expand_command(&b, *at[i], t, c->l, why, sizeof why);
    if (r == 0)
      r = set_text(at[i], (char *)b.data);
    else if (r == PP_EBAD)
      r = need(t, "%s has %s in it", what[i], why);
    pp_buf_clear(&b);
    if (r < 0)
      return r;
  }
  return 0;
}

static int finish(parser *c) {
  pp_target *t = c->t;
  int r = 0;

  if (t->connect_attempts < 1)
    t->connect_attempts = 1;
  if (c->permit_local && c->local_command)
    r = need(t, "LocalCommand is set");
  if (r == 0)
    r = finish_choices(c);
  if (r == 0)
    r = finish_command(c);
  if (r == 0)
    r = finish_agent(c);
  if (r == 0)
    r = finish_identities(c);
  if (r == 0)
    r = add_files(c, &c->user_files, "UserKnownHostsFile");
  t->user_known_hosts = t->known_hosts.n;
  if (r == 0)
    r = add_files(c, &c->global_files, "GlobalKnownHostsFile");
  return r == 0 ? finish_env(c) : r;
}

/* --- the whole ---------------------------------------------------------------
 */

static int begin(pp_target **out, const pp_wanted *w, const pp_local *l) {
  pp_target *t = pp_buf_realloc(NULL, sizeof *t);
  int r;

  if (t == NULL)
    return PP_ENOMEM;
  *t = (pp_target){
      .given_port = w->port,
      .port = w->port > 0 ? w->port : 22,
      .family = AF_UNSPEC,
      .connect_attempts = 1,
      .alive_count = 3,
      .pubkey_auth = true,
      .kbdint_auth = true,
      .password_auth = true,
      .password_prompts = 3,
      .transport = w->transport,
  };
  r = set_text(&t->name, w->name);
  if (r == 0)
    r = set_text(&t->alias, w->host);
  if (r == 0)
    r = set_text(&t->host, w->host);
  if (r == 0)
    r = set_text(&t->user, w->user != NULL   ? w->user
                           : l->user != NULL ? l->user
                                             : "");
  if (r == 0 && w->user != NULL)
    r = set_text(&t->given_user, w->user);
  if (r == 0 && w->config_file != NULL)
    r = set_text(&t->config_file, w->config_file);
  if (r == 0 && w->ssh_program != NULL)
    r = set_text(&t->ssh_program, w->ssh_program);
  if (r < 0) {
    pp_target_free(t);
    return r;
  }
  *out = t;
  return 0;
}

static int parse(pp_target **out, const pp_wanted *w, const char *text,
                 size_t len, const pp_local *l, bool whole) {
  parser c = {.l = l};
  int r;

  r = begin(&c.t, w, l);
  if (r < 0)
    return r;
  r = read_text(&c, text, len);
  if (r == 0)
    r = finish(&c);
  if (r == 0 && (c.t->port < 1 || c.t->port > 65535 || *c.t->host == '\0' ||
                 *c.t->host == '-' || (whole && !c.has_host)))
    r = PP_EBAD;
  pp_strings_clear(&c.identities);
  pp_strings_clear(&c.user_files);
  pp_strings_clear(&c.global_files);
  pp_strings_clear(&c.send);
  pp_strings_clear(&c.set);
  if (r < 0)
    pp_target_free(c.t);
  else
    *out = c.t;
  return r;
}

int pp_config_parse(pp_target **out, const pp_wanted *w, const char *text,
                    size_t len, const pp_local *l, char *reason, size_t size) {
  int r = len > PP_CONFIG_MAX ? PP_ELIMIT : parse(out, w, text, len, l, true);

  if (r == PP_ELIMIT)
    snprintf(reason, size, "ssh -G said too much");
  else if (r == PP_EBAD)
    snprintf(reason, size, "ssh -G gave no host name and port to connect to");
  return r;
}

int pp_config_defaults(pp_target **out, const pp_wanted *w, const pp_local *l) {
  static const char text[] =
      "identityfile ~/.ssh/id_ecdsa\n"
      "identityfile ~/.ssh/id_ed25519\n"
      "identityfile ~/.ssh/id_rsa\n"
      "userknownhostsfile ~/.ssh/known_hosts ~/.ssh/known_hosts2\n"
      "globalknownhostsfile /etc/ssh/ssh_known_hosts "
      "/etc/ssh/ssh_known_hosts2\n";
  int r = parse(out, w, text, sizeof text - 1, l, false);

  if (r < 0)
    return r;
  /* What cannot be expanded without a home directory is nothing the ssh
   * program could cure, there is none. */
  pp_buf_realloc((*out)->needs_ssh, 0);
  (*out)->needs_ssh = NULL;
  return 0;
}
