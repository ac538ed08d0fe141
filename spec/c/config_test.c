/* SPDX-License-Identifier: MIT */
/* Targets from what ssh -G prints: canned, and by the ssh that is here. */
#include <sys/socket.h>

#include "buf.h"
#include "check.h"
#include "config.h"

static char *env[] = {"HOME=/elsewhere",
                      "SSH_AUTH_SOCK=/run/agent",
                      "KEYS=/keys",
                      "LC_ALL=C",
                      "LANG=en",
                      "LC_TIME=x",
                      "OTHER=y",
                      "EMPTY=",
                      "MY_SOCK=/run/other",
                      NULL};

static const char *home_of(const char *user) {
  return strcmp(user, "bob") == 0 ? "/home/bob" : NULL;
}

static const pp_local local = {.user = (char[]){"me"},
                               .home = (char[]){"/home/me"},
                               .hostname = (char[]){"here.example.org"},
                               .uid = 1234,
                               .env = env,
                               .home_of = home_of};

static const pp_wanted wanted = {.name = "alias:77",
                                 .host = "alias",
                                 .user = "joe",
                                 .port = 77,
                                 .transport = PP_TRANSPORT_AUTO};

/* What the text makes of it, after the lines that must be there. */
static pp_target *target(const char *lines) {
  char text[8192], reason[128];
  pp_target *t = NULL;

  snprintf(text, sizeof text,
           "host alias\nuser joe\nhostname real.example.org\nport 2200\n%s",
           lines);
  CHECK(pp_config_parse(&t, &wanted, text, strlen(text), &local, reason,
                        sizeof reason) == 0);
  if (t == NULL)
    exit(1);
  return t;
}

static void plain(void) {
  pp_target *t = target("addressfamily inet6\n"
                        "connecttimeout 5\n"
                        "connectionattempts 3\n"
                        "serveraliveinterval 15\n"
                        "serveralivecountmax 9\n"
                        "bindaddress 127.0.0.2\n"
                        "hashknownhosts yes\n"
                        "nohostauthenticationforlocalhost yes\n"
                        "hostkeyalias other\n"
                        "identitiesonly yes\n"
                        "batchmode yes\n"
                        "pubkeyauthentication unbound\n"
                        "passwordauthentication no\n"
                        "kbdinteractiveauthentication false\n"
                        "preferredauthentications publickey,password\n"
                        "numberofpasswordprompts 1\n"
                        "ciphers aes128-ctr,aes256-ctr\n"
                        "somethingnew in ssh 99\n"
                        "nothing\n"
                        "\n");

  CHECK_STR(t->name, "alias:77");
  CHECK_STR(t->alias, "alias");
  CHECK_STR(t->given_user, "joe");
  CHECK(t->given_port == 77 && t->port == 2200);
  CHECK_STR(t->host, "real.example.org");
  CHECK_STR(t->user, "joe");
  CHECK(t->family == AF_INET6);
  CHECK(t->connect_timeout == 5 && t->connect_attempts == 3);
  CHECK(t->alive_interval == 15 && t->alive_count == 9);
  CHECK_STR(t->bind_address, "127.0.0.2");
  CHECK(t->hash_known_hosts && t->trust_localhost && t->identities_only);
  CHECK(t->batch && t->pubkey_auth && !t->password_auth && !t->kbdint_auth);
  CHECK(t->password_prompts == 1);
  CHECK_STR(t->preferred_auths, "publickey,password");
  CHECK_STR(t->host_key_alias, "other");
  CHECK_STR(t->ciphers, "aes128-ctr,aes256-ctr");
  CHECK_STR(t->needs_ssh, NULL);
  CHECK_STR(t->may_need_ssh, NULL);
  CHECK_STR(t->agent, "/run/agent");
  CHECK(t->strict == PP_STRICT_ASK);
  pp_target_free(t);
}

static void strict(void) {
  static const struct {
    const char *text;
    pp_strict want;
  } cases[] = {
      {"yes", PP_STRICT_YES}, {"true", PP_STRICT_YES},
      {"no", PP_STRICT_NO},   {"false", PP_STRICT_NO},
      {"off", PP_STRICT_NO},  {"accept-new", PP_STRICT_ACCEPT_NEW},
      {"ask", PP_STRICT_ASK}, {"something-new", PP_STRICT_YES},
  };

  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    char line[128];
    pp_target *t;

    snprintf(line, sizeof line, "stricthostkeychecking %s\n", cases[i].text);
    t = target(line);
    CHECK(t->strict == cases[i].want);
    pp_target_free(t);
  }
}

static void paths(void) {
  pp_target *t = target("identityfile ~/my keys/id_%h_%r_%p\n"
                        "identityfile ${KEYS}/%u-%i-%l-%L-%n-%k-100%%\n"
                        "identityfile ~bob/%d\n"
                        "identityfile none\n"
                        "identityfile relative\n"
                        "hostkeyalias key\n"
                        "userknownhostsfile /root/a b/kh /tmp/100% ~/x c\n"
                        "globalknownhostsfile /etc/ssh/kh none\n");

  CHECK(t->identities.n == 4 && t->identities_given);
  CHECK_STR(t->identities.v[0],
            "/home/me/my keys/id_real.example.org_joe_2200");
  CHECK_STR(t->identities.v[1],
            "/keys/me-1234-here.example.org-here-alias-key-100%");
  CHECK_STR(t->identities.v[2], "/home/bob//home/me");
  CHECK_STR(t->identities.v[3], "relative");
  CHECK(t->known_hosts.n == 4 && t->user_known_hosts == 3);
  CHECK_STR(t->known_hosts.v[0], "/root/a b/kh");
  CHECK_STR(t->known_hosts.v[1], "/tmp/100%");
  CHECK_STR(t->known_hosts.v[2], "/home/me/x c");
  CHECK_STR(t->known_hosts.v[3], "/etc/ssh/kh none");
  CHECK_STR(t->needs_ssh, NULL);
  pp_target_free(t);

  t = target("userknownhostsfile none\nidentityfile none\n");
  CHECK(t->known_hosts.n == 0 && t->identities.n == 0 && !t->identities_given);
  CHECK(t->user_known_hosts == 0);
  pp_target_free(t);

  t = target("identityfile ~/.ssh/id_rsa\nidentityfile ~/.ssh/id_ecdsa\n"
             "identityfile ~/.ssh/id_ed25519\n");
  CHECK(t->identities.n == 3 && !t->identities_given);
  pp_target_free(t);

  t = target("identityfile ~/%x/a\nidentityfile ~/b\n");
  CHECK_STR(t->needs_ssh, "IdentityFile has %x in it");
  CHECK(t->identities.n == 1);
  pp_target_free(t);
  t = target("identityfile ${NOT}/a\n");
  CHECK_STR(t->needs_ssh, "IdentityFile has ${NOT} in it");
  pp_target_free(t);
  t = target("identityfile ~nobody-here/a\n");
  CHECK_STR(t->needs_ssh, "IdentityFile has ~nobody-here in it");
  pp_target_free(t);
}

static void agents(void) {
  static const char *const cases[][2] = {
      {"", "/run/agent"},
      {"identityagent SSH_AUTH_SOCK\n", "/run/agent"},
      {"identityagent none\n", NULL},
      {"identityagent $MY_SOCK\n", "/run/other"},
      {"identityagent $EMPTY\n", NULL},
      {"identityagent $NOT\n", NULL},
      {"identityagent ~/sock %u\n", "/home/me/sock me"},
      {"identityagent ${KEYS}/s\n", "/keys/s"},
      {"identityagent /run/100%\n", "/run/100%"},
  };

  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    pp_target *t = target(cases[i][0]);

    CHECK_STR(t->agent, cases[i][1]);
    pp_target_free(t);
  }
}

static void commands(void) {
  pp_target *t = target("proxycommand nc -x %h:%p '%%' %n %r %k\n");

  CHECK_STR(t->proxy_command,
            "nc -x real.example.org:2200 '%' alias joe alias");
  CHECK_STR(t->jump, NULL);
  pp_target_free(t);
  t = target("proxycommand none\nproxyjump none\n");
  CHECK_STR(t->proxy_command, NULL);
  CHECK_STR(t->jump, NULL);
  pp_target_free(t);
  t = target("proxyjump a,%r@b\n");
  CHECK_STR(t->jump, "a,joe@b");
  pp_target_free(t);
  t = target("proxycommand nc %C\n");
  CHECK_STR(t->needs_ssh, "ProxyCommand has %C in it");
  pp_target_free(t);
}

static void environment(void) {
  pp_target *t = target("sendenv LANG\nsendenv LC_*\nsendenv LC_T?ME\n"
                        "setenv A=1\nsetenv B=x y=z\nsetenv bad\nsetenv =\n");

  CHECK(t->env.n == 5);
  CHECK_STR(t->env.v[0], "LC_ALL=C");
  CHECK_STR(t->env.v[1], "LANG=en");
  CHECK_STR(t->env.v[2], "LC_TIME=x");
  CHECK_STR(t->env.v[3], "A=1");
  CHECK_STR(t->env.v[4], "B=x y=z");
  pp_target_free(t);
}

static void needs(void) {
  static const char *const cases[][2] = {
      {"pkcs11provider /usr/lib/p.so\n", "PKCS11Provider is set"},
      {"pkcs11provider none\n", NULL},
      {"securitykeyprovider internal\n", NULL},
      {"securitykeyprovider /usr/lib/sk.so\n", "SecurityKeyProvider is set"},
      {"certificatefile ~/c-cert.pub\n", "CertificateFile is set"},
      {"forwardagent no\n", NULL},
      {"forwardagent yes\n", "ForwardAgent is on"},
      {"forwardagent /run/a\n", "ForwardAgent is set"},
      {"proxyusefdpass yes\n", "ProxyUseFdpass is on"},
      {"bindinterface lo\n", "BindInterface is set"},
      {"knownhostscommand /bin/x %H\n", "KnownHostsCommand is set"},
      {"revokedhostkeys /etc/krl\n", "RevokedHostKeys is set"},
      {"verifyhostkeydns true\n", "VerifyHostKeyDNS is on"},
      {"verifyhostkeydns ask\n", NULL},
      {"permitlocalcommand yes\nlocalcommand x\n", "LocalCommand is set"},
      {"permitlocalcommand no\nlocalcommand x\n", NULL},
      {"ciphers chacha20-poly1305@openssh.com\n",
       "Ciphers allows nothing that the built-in client has"},
      {"ciphers chacha20-poly1305@openssh.com,aes128-ctr\n", NULL},
      {"macs umac-64@openssh.com\n",
       "MACs allows nothing that the built-in client has"},
      {"kexalgorithms sntrup761x25519-sha512\n",
       "KexAlgorithms allows nothing that the built-in client has"},
      {"hostkeyalgorithms rsa-sha2-512\n",
       "HostKeyAlgorithms allows nothing that the built-in client has"},
      {"pubkeyacceptedalgorithms rsa-sha2-512\n",
       "PubkeyAcceptedAlgorithms allows nothing that the built-in client has"},
      {"pubkeyacceptedalgorithms rsa-sha2-512\npubkeyauthentication no\n",
       NULL},
  };
  pp_target *t;

  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    t = target(cases[i][0]);
    CHECK_STR(t->needs_ssh, cases[i][1]);
    pp_target_free(t);
  }
  t = target("gssapiauthentication yes\nhostbasedauthentication yes\n"
             "controlpath /tmp/%C\n");
  CHECK_STR(t->may_need_ssh, "GSSAPIAuthentication is on, "
                             "HostbasedAuthentication is on, "
                             "ControlPath is set");
  CHECK_STR(t->needs_ssh, NULL);
  pp_target_free(t);
}

static void bad(void) {
  static const char *const texts[] = {
      "",
      "hello\n",
      "port 22\n",
      "hostname \nport 22\n",
      "hostname h\nport 0\n",
      "hostname h\nport 65536\n",
      "hostname -oProxyCommand=x\nport 22\n",
  };
  char reason[128];
  char *huge = calloc(1, PP_CONFIG_MAX + 1);
  pp_target *t = NULL;

  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
    CHECK(pp_config_parse(&t, &wanted, texts[i], strlen(texts[i]), &local,
                          reason, sizeof reason) == PP_EBAD);
    CHECK(t == NULL && reason[0] != '\0');
  }
  CHECK(pp_config_parse(&t, &wanted, huge, PP_CONFIG_MAX + 1, &local, reason,
                        sizeof reason) == PP_ELIMIT);
  free(huge);
  /* Numbers that are none leave what was there. */
  t = target("port 12x\nport 99999999999999999999\nconnecttimeout -1\n");
  CHECK(t->port == 2200 && t->connect_timeout == 0);
  pp_target_free(t);
}

static void defaults(void) {
  const pp_wanted w = {.name = "h", .host = "h"};
  pp_target *t = NULL;

  CHECK(pp_config_defaults(&t, &w, &local) == 0);
  CHECK_STR(t->user, "me");
  CHECK_STR(t->host, "h");
  CHECK_STR(t->ssh_program, NULL);
  CHECK(t->port == 22 && t->given_port == 0 && t->given_user == NULL);
  CHECK_STR(t->identities.v[1], "/home/me/.ssh/id_ed25519");
  CHECK_STR(t->known_hosts.v[0], "/home/me/.ssh/known_hosts");
  CHECK(t->user_known_hosts == 2 && t->known_hosts.n == 4);
  CHECK_STR(t->agent, "/run/agent");
  CHECK(t->strict == PP_STRICT_ASK && !t->hash_known_hosts);
  CHECK(t->pubkey_auth && t->password_auth && t->kbdint_auth);
  pp_target_free(t);
}

static void hop(const char *jump, const char *user, const char *host, int port,
                const char *name, const char *before) {
  pp_hop h;

  if (host == NULL) {
    CHECK(pp_hop_parse(&h, jump) == PP_EBAD);
    CHECK(h.host == NULL);
    return;
  }
  CHECK(pp_hop_parse(&h, jump) == 0);
  CHECK_STR(h.user, user);
  CHECK_STR(h.host, host);
  CHECK_STR(h.name, name);
  CHECK_STR(h.before, before);
  CHECK(h.port == port);
  pp_hop_clear(&h);
}

static void hops(void) {
  hop("h", NULL, "h", 0, "h", NULL);
  hop("u@h:22", "u", "h", 22, "h:22", NULL);
  hop("a@b@h", "a@b", "h", 0, "h", NULL);
  hop("j1,u@[::2]:2200,[10.0.0.1]", NULL, "10.0.0.1", 0, "[10.0.0.1]",
      "j1,u@[::2]:2200");
  hop("j1,u@[::2]:2200", "u", "::2", 2200, "[::2]:2200", "j1");
  hop("fe80::1%eth0", NULL, "fe80::1%eth0", 0, "fe80::1%eth0", NULL);
  hop("ssh://u@h:99", "u", "h", 99, "h:99", NULL);
  hop("ssh://h/", NULL, "h", 0, "h", NULL);
  hop("", NULL, NULL, 0, NULL, NULL);
  hop("a,", NULL, NULL, 0, NULL, NULL);
  hop("@h", NULL, NULL, 0, NULL, NULL);
  hop("-h", NULL, NULL, 0, NULL, NULL);
  hop("u@-h", NULL, NULL, 0, NULL, NULL);
  hop("-l@h", NULL, NULL, 0, NULL, NULL);
  hop("h:", NULL, NULL, 0, NULL, NULL);
  hop("h:0", NULL, NULL, 0, NULL, NULL);
  hop("h:65536", NULL, NULL, 0, NULL, NULL);
  hop("h:22x", NULL, NULL, 0, NULL, NULL);
  hop("[::1", NULL, NULL, 0, NULL, NULL);
  hop("[::1]x", NULL, NULL, 0, NULL, NULL);
  hop("[]", NULL, NULL, 0, NULL, NULL);
}

/* --- the ssh that is here ------------------------------------------------- */

static const char ssh_config[] =
    "Include included\n"
    "Host alias al?as\n"
    "  HostName %h.Example.ORG\n"
    "  User bob\n"
    "  Port 2222\n"
    "  IdentitiesOnly yes\n"
    "  IdentityFile \"~/my keys/%r@%h\"\n"
    "  IdentityFile /k/100%%\n"
    "  ProxyJump j1,carl@j2:2022,[::1]:2200,10.0.0.1\n"
    "  UserKnownHostsFile \"~/a b/kh\" /tmp/kh_%h\n"
    "  SetEnv A=1 B=\"x y\"\n"
    "  HostKeyAlias Key\n"
    "  StrictHostKeyChecking accept-new\n"
    "  ConnectTimeout 1m\n"
    "  ServerAliveInterval 15\n"
    "  RemoteCommand echo hello\n"
    "Match host proxied user dave\n"
    "  ProxyCommand nc -X connect %h %p\n"
    "  StrictHostKeyChecking off\n"
    "  PasswordAuthentication no\n"
    "  HashKnownHosts yes\n"
    "Match originalhost executed exec \"test %n = executed\"\n"
    "  Port 2223\n"
    "  CertificateFile ~/cert\n"
    "Host six\n"
    "  HostName fe80::1%%lo\n"
    "  AddressFamily inet6\n"
    "  IdentityAgent none\n"
    "  UserKnownHostsFile none\n"
    "Host *\n"
    "  ServerAliveCountMax 7\n";

static void write_file(const char *path, const char *text) {
  FILE *f = fopen(path, "w");

  fputs(text, f);
  fclose(f);
}

static pp_target *by_ssh(const pp_local *l, const char *host, const char *user,
                         int port) {
  static char text[1 << 16];
  const pp_wanted w = {.name = host, .host = host, .user = user, .port = port};
  char command[512], number[32] = "", reason[128];
  pp_target *t = NULL;
  size_t n;
  FILE *p;

  if (port > 0)
    snprintf(number, sizeof number, "-p %d", port);
  snprintf(command, sizeof command, "ssh -T -F config %s %s %s -G -- '%s'",
           number, user != NULL ? "-l" : "", user != NULL ? user : "", host);
  p = popen(command, "r");
  n = fread(text, 1, sizeof text, p);
  CHECK(pclose(p) == 0);
  CHECK(pp_config_parse(&t, &w, text, n, l, reason, sizeof reason) == 0);
  if (t == NULL)
    exit(1);
  return t;
}

static void real(void) {
  pp_local l;
  pp_target *t;
  char path[512];

  if (!have("ssh")) {
    puts("ssh -G was not tried: there is no ssh");
    return;
  }
  write_file("config", ssh_config);
  snprintf(path, sizeof path, "%s/included", check_dir);
  write_file(path, "Host inc\n  HostName included.example\n  Port 1\n");
  snprintf(path, sizeof path,
           "sed -i 's|^Include .*|Include %s/included|' "
           "config",
           check_dir);
  CHECK(system(path) == 0);
  CHECK(pp_local_init(&l) == 0);

  t = by_ssh(&l, "alias", NULL, 0);
  CHECK_STR(t->host, "alias.example.org");
  CHECK_STR(t->user, "bob");
  CHECK(t->port == 2222 && t->identities_only && t->identities_given);
  snprintf(path, sizeof path, "%s/my keys/bob@alias.example.org", l.home);
  CHECK(t->identities.n == 2);
  CHECK_STR(t->identities.v[0], path);
  CHECK_STR(t->identities.v[1], "/k/100%");
  CHECK_STR(t->jump, "j1,carl@j2:2022,[::1]:2200,[10.0.0.1]");
  CHECK(t->user_known_hosts == 2 && t->known_hosts.n >= 3);
  snprintf(path, sizeof path, "%s/a b/kh", l.home);
  CHECK_STR(t->known_hosts.v[0], path);
  CHECK_STR(t->known_hosts.v[1], "/tmp/kh_alias.example.org");
  CHECK_STR(t->host_key_alias, "key");
  CHECK(t->strict == PP_STRICT_ACCEPT_NEW);
  CHECK(t->connect_timeout == 60 && t->alive_interval == 15);
  CHECK(t->alive_count == 7);
  CHECK(t->env.n >= 2);
  CHECK_STR(t->env.v[t->env.n - 1], "B=x y");
  CHECK_STR(t->needs_ssh, NULL);
  pp_target_free(t);

  t = by_ssh(&l, "alias", "eve", 99); /* what was written wins */
  CHECK(t->port == 99);
  CHECK_STR(t->user, "eve");
  pp_target_free(t);

  t = by_ssh(&l, "proxied", "dave", 0);
  CHECK_STR(t->proxy_command, "nc -X connect proxied 22");
  CHECK(t->strict == PP_STRICT_NO && !t->password_auth && t->hash_known_hosts);
  pp_target_free(t);
  t = by_ssh(&l, "proxied", "other", 0);
  CHECK_STR(t->proxy_command, NULL);
  CHECK(t->strict == PP_STRICT_ASK && t->password_auth);
  CHECK(!t->identities_given && t->identities.n >= 3);
  CHECK(t->kex != NULL && t->hostkey_algorithms != NULL);
  CHECK_STR(t->needs_ssh, NULL);
  pp_target_free(t);

  t = by_ssh(&l, "executed", NULL, 0);
  CHECK(t->port == 2223);
  CHECK_STR(t->needs_ssh, "CertificateFile is set");
  pp_target_free(t);

  t = by_ssh(&l, "six", NULL, 0);
  CHECK_STR(t->host, "fe80::1%lo");
  CHECK(t->family == AF_INET6 && t->user_known_hosts == 0);
  CHECK_STR(t->agent, NULL);
  pp_target_free(t);

  t = by_ssh(&l, "inc", NULL, 0);
  CHECK_STR(t->host, "included.example");
  CHECK(t->port == 1);
  pp_target_free(t);
  t = by_ssh(&l, "::1", NULL, 0);
  CHECK_STR(t->host, "::1");
  pp_target_free(t);
  pp_local_clear(&l);
}

/* --- no memory ------------------------------------------------------------ */

static void no_memory(void) {
  static const char text[] =
      "hostname h\nport 22\nidentityfile ~/a\nuserknownhostsfile ~/a ~/b\n"
      "identityagent ~/c\nproxyjump a,b\nsendenv L*\nsetenv A=1\n"
      "controlpath x\nforwardagent yes\nproxycommand x %h\n";
  void *(*usual)(void *, size_t) = pp_buf_realloc;
  char reason[128];
  int r, n = 0;

  pp_buf_realloc = check_scarce;
  do {
    pp_target *t = NULL;
    pp_hop h;

    check_left = n;
    r = pp_config_parse(&t, &wanted, text, sizeof text - 1, &local, reason,
                        sizeof reason);
    if (r == 0)
      r = pp_hop_parse(&h, "x,u@h:22");
    if (r == 0)
      pp_hop_clear(&h);
    CHECK(r == 0 || r == PP_ENOMEM);
    pp_target_free(t);
  } while (r != 0 && ++n < 1000);
  CHECK(r == 0 && n > 20);
  pp_buf_realloc = usual;
}

int main(void) {
  enter();
  plain();
  strict();
  paths();
  agents();
  commands();
  environment();
  needs();
  bad();
  defaults();
  hops();
  real();
  no_memory();
  return leave();
}
