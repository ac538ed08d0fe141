/* SPDX-License-Identifier: MIT */
/* known_hosts as ssh reads it, and what follows from what stands there. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <sys/stat.h>

#include "base64.h"
#include "check.h"
#include "hostkey.h"

#define A "AAAAC3NzaC1lZDI1NTE5AAAAIAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8g"
#define B "AAAAC3NzaC1lZDI1NTE5AAAAICAfHh0cGxoZGBcWFRQTEhEQDw4NDAsKCQgHBgUEAwIB"
#define RSA "AAAAB3NzaC1yc2EAAAADAQABAAAABQDF0rPT"
#define HASH_22 "|1|zqlZNYe/u5JIlUkCiTEsaXMTbRE=|uAfteS9CjkKht8HvYEUNiAhmgZU= "
#define HASH_2222                                                              \
  "|1|w1EdoGXk6/eVX0t5+fWVVVx07Gc=|eFRGemWacaBrn7xjcmIjGOerI7A= "
#define KEY_A "ssh-ed25519 " A
#define KEY_B "ssh-ed25519 " B
#define KEY_RSA "ssh-rsa " RSA

static pp_buf blob(const char *text) {
  pp_buf b = {0};

  CHECK(pp_base64_decode(text, strlen(text), &b) == 0);
  return b;
}

/* The verdict on key A (or another) for a host, in one file. */
static pp_hostkey_found ask(const char *file, const char *host, int port,
                            const char *alias, const char *key) {
  pp_hostkey_query q = {host, port, alias};
  pp_hostkeys k = {0};
  pp_hostkey_found found;
  pp_buf b = blob(key);

  CHECK(pp_hostkeys_parse(&k, &q, "kh", file, strlen(file)) == 0);
  pp_hostkeys_check(&k, b.data, b.len, &found);
  found.file = NULL; /* it goes with k */
  pp_hostkeys_clear(&k);
  pp_buf_clear(&b);
  return found;
}

static pp_hostkey_verdict look(const char *file, const char *host, int port) {
  return ask(file, host, port, NULL, A).verdict;
}

static void names(void) {
  CHECK(look("", "h", 22) == PP_HOSTKEY_UNKNOWN);
  CHECK(look("h " KEY_A "\n", "h", 22) == PP_HOSTKEY_OK);
  CHECK(look("h " KEY_A, "h", 0) == PP_HOSTKEY_OK);
  CHECK(look("h " KEY_A "\r\n", "h", 22) == PP_HOSTKEY_OK);
  CHECK(look("h\t" KEY_A " a comment", "H", 22) == PP_HOSTKEY_OK);
  CHECK(look("x,H,y " KEY_A, "h", 22) == PP_HOSTKEY_OK);
  CHECK(look("h2 " KEY_A, "h", 22) == PP_HOSTKEY_UNKNOWN);
  CHECK(look("h " KEY_B, "h", 22) == PP_HOSTKEY_CHANGED);
  CHECK(look("h " KEY_RSA, "h", 22) == PP_HOSTKEY_CHANGED);
  CHECK(look("h " KEY_B "\nh " KEY_A, "h", 22) == PP_HOSTKEY_OK);
  CHECK(look("*.org " KEY_A, "a.org", 22) == PP_HOSTKEY_OK);
  CHECK(look("h?.org " KEY_A, "h1.org", 22) == PP_HOSTKEY_OK);
  CHECK(look("h?.org " KEY_A, "h12.org", 22) == PP_HOSTKEY_UNKNOWN);
  CHECK(look("*.org,!bad.org " KEY_A, "bad.org", 22) == PP_HOSTKEY_UNKNOWN);
  CHECK(look("!bad.org,*.org " KEY_A, "good.org", 22) == PP_HOSTKEY_OK);
  CHECK(look("!bad.org " KEY_A, "good.org", 22) == PP_HOSTKEY_UNKNOWN);
  CHECK(look("*a*a*a*a*a*a*a*a*a*b " KEY_A,
             "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
             22) == PP_HOSTKEY_UNKNOWN);
  /* As ssh-keygen -H hashed host1, and [host1]:2222. */
  CHECK(look(HASH_22 KEY_A, "Host1", 22) == PP_HOSTKEY_OK);
  CHECK(look(HASH_22 KEY_A, "host2", 22) == PP_HOSTKEY_UNKNOWN);
  CHECK(look(HASH_2222 KEY_A, "host1", 2222) == PP_HOSTKEY_OK);
  CHECK(look(HASH_2222 KEY_A, "host1", 22) == PP_HOSTKEY_UNKNOWN);
  CHECK(look(HASH_22 KEY_A, "host1", 2222) == PP_HOSTKEY_OK);
}

static void ports(void) {
  CHECK(look("[h]:2222 " KEY_A, "h", 2222) == PP_HOSTKEY_OK);
  CHECK(look("[h]:2222 " KEY_A, "h", 22) == PP_HOSTKEY_UNKNOWN);
  CHECK(look("[h]:2222 " KEY_A, "h", 2223) == PP_HOSTKEY_UNKNOWN);
  CHECK(look("[::1]:2222 " KEY_A, "::1", 2222) == PP_HOSTKEY_OK);
  CHECK(look("::1 " KEY_A, "::1", 22) == PP_HOSTKEY_OK);
  CHECK(look("[*]:2222 " KEY_A, "h", 2222) == PP_HOSTKEY_OK);
  /* A key known for the host without port is good enough, but if it is another
   * that says nothing. */
  CHECK(look("h " KEY_A, "h", 2222) == PP_HOSTKEY_OK);
  CHECK(look("h " KEY_B, "h", 2222) == PP_HOSTKEY_UNKNOWN);
  CHECK(look("h " KEY_A "\n[h]:2222 " KEY_B, "h", 2222) == PP_HOSTKEY_CHANGED);
  /* An alias stands for both. */
  CHECK(ask("al " KEY_A, "h", 2222, "Al", A).verdict == PP_HOSTKEY_OK);
  CHECK(ask("h " KEY_A, "h", 22, "al", A).verdict == PP_HOSTKEY_UNKNOWN);
  CHECK(ask("[al]:2222 " KEY_A, "h", 2222, "al", A).verdict ==
        PP_HOSTKEY_UNKNOWN);
}

static void markers(void) {
  pp_hostkey_query q = {"h", 22, NULL};
  pp_hostkeys k = {0};
  const char ca[] = "@cert-authority * " KEY_B;

  CHECK(look("@revoked * " KEY_A "\nh " KEY_A, "h", 22) == PP_HOSTKEY_REVOKED);
  CHECK(look("h " KEY_A "\n@revoked\th " KEY_A, "h", 22) == PP_HOSTKEY_REVOKED);
  CHECK(look("@revoked * " KEY_B "\nh " KEY_A, "h", 22) == PP_HOSTKEY_OK);
  CHECK(look("@revoked * " KEY_B, "h", 22) == PP_HOSTKEY_UNKNOWN);
  CHECK(look("@revoked h " KEY_A "\n[h]:22 " KEY_A, "h", 2222) ==
        PP_HOSTKEY_REVOKED);
  CHECK(look("@cert-authority * " KEY_A, "h", 22) == PP_HOSTKEY_UNKNOWN);
  CHECK(look("@cert-authority * " KEY_B "\nh " KEY_A, "h", 22) ==
        PP_HOSTKEY_OK);
  CHECK(look("@other h " KEY_A, "h", 22) == PP_HOSTKEY_UNKNOWN);
  CHECK(pp_hostkeys_parse(&k, &q, "kh", ca, strlen(ca)) == 0);
  CHECK(pp_hostkeys_has_ca(&k));
  pp_hostkeys_clear(&k);
  pp_hostkeys_clear(&k);
}

/* A bad line costs itself only, and the ones after it keep their numbers. */
static void bad_lines(void) {
  static const char *const bad[] = {
      "h",
      "h ssh-ed25519",
      "h " A,
      "h ssh-rsa " A,
      "h ssh-ed25519 " A "=",
      "h ssh-ed25519 AAAA",
      "h ssh-ed25519 !!!!",
      "h ssh-foo " A,
      "|1|",
      "|",
      "|1|AAAA|AAAA " KEY_A,
      "@",
      "@revoked",
      "@revoked h",
      "h 1024 35 1234",
      "@revoked @revoked h " KEY_A,
      "\x80\xff\x01",
      " ",
      "\t#h " KEY_A,
      "",
      "h ssh-ed25519 " A "A",
  };
  char text[1024];
  pp_buf huge = {0};

  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    pp_hostkey_found f;

    snprintf(text, sizeof text, "%s\n  h %s\n", bad[i], KEY_A);
    f = ask(text, "h", 22, NULL, A);
    if (f.verdict != PP_HOSTKEY_OK || f.line != 2) {
      printf("after '%s': verdict %d, line %u\n", bad[i], f.verdict, f.line);
      failures++;
    }
    snprintf(text, sizeof text, "%s\n", bad[i]);
    CHECK(look(text, "h", 22) == PP_HOSTKEY_UNKNOWN);
  }
  for (int i = 0; i < PP_HOSTKEY_LINE_MAX; i++)
    pp_buf_put(&huge, "h,", 2);
  pp_buf_put(&huge, " " KEY_B "\nh " KEY_A, strlen(" " KEY_B "\nh " KEY_A) + 1);
  CHECK(ask((char *)huge.data, "h", 22, NULL, A).line == 2);
  pp_buf_clear(&huge);
}

static void types(void) {
  pp_hostkey_query q = {"h", 2222, NULL};
  pp_hostkeys k = {0};
  char out[256];
  const char one[] = "h " KEY_RSA "\n[h]:2222 " KEY_A "\n[h]:2222 " KEY_RSA
                     "\n[h]:2222 " KEY_B "\n@revoked h " KEY_RSA;
  const char two[] = "h " KEY_RSA "\nx " KEY_A;

  CHECK(pp_hostkeys_types(&k, out, sizeof out) == 0 && out[0] == '\0');
  CHECK(pp_hostkeys_parse(&k, &q, "kh", one, strlen(one)) == 0);
  CHECK(pp_hostkeys_types(&k, out, sizeof out) == 2);
  CHECK_STR(out, "ssh-ed25519,ssh-rsa");
  CHECK(pp_hostkeys_types(&k, out, 12) == 2);
  CHECK_STR(out, "ssh-ed25519");
  CHECK(pp_hostkeys_types(&k, out, 11) == 2);
  CHECK_STR(out, "ssh-rsa");
  pp_hostkeys_clear(&k);
  CHECK(pp_hostkeys_parse(&k, &q, "kh", two, strlen(two)) == 0);
  CHECK(pp_hostkeys_types(&k, out, sizeof out) == 1);
  CHECK_STR(out, "ssh-rsa");
  pp_hostkeys_clear(&k);
}

static void decide(void) {
  static const struct {
    pp_hostkey_verdict verdict;
    pp_strict strict;
    bool terminal, batch;
    pp_hostkey_decision want;
    const char *reason; /* how it begins */
  } cases[] = {
      {PP_HOSTKEY_OK, PP_STRICT_YES, 0, 0, PP_HOSTKEY_ACCEPT, ""},
      {PP_HOSTKEY_UNKNOWN, PP_STRICT_YES, 1, 0, PP_HOSTKEY_REFUSE,
       "host key unknown (ed25519 SHA256:"},
      {PP_HOSTKEY_UNKNOWN, PP_STRICT_ASK, 1, 0, PP_HOSTKEY_ASK,
       "host key unknown (ed25519 SHA256:"},
      {PP_HOSTKEY_UNKNOWN, PP_STRICT_ASK, 0, 0, PP_HOSTKEY_REFUSE,
       "host key unknown (ed25519 SHA256:"},
      {PP_HOSTKEY_UNKNOWN, PP_STRICT_ASK, 1, 1, PP_HOSTKEY_REFUSE,
       "host key unknown (ed25519 SHA256:"},
      {PP_HOSTKEY_UNKNOWN, PP_STRICT_ACCEPT_NEW, 0, 0, PP_HOSTKEY_ACCEPT_ADD,
       "host key accepted for the first time (ed25519 "},
      {PP_HOSTKEY_UNKNOWN, PP_STRICT_NO, 0, 0, PP_HOSTKEY_ACCEPT_ADD, "host "},
      {PP_HOSTKEY_CHANGED, PP_STRICT_ASK, 1, 0, PP_HOSTKEY_REFUSE,
       "host key changed: ed25519 SHA256:"},
      {PP_HOSTKEY_CHANGED, PP_STRICT_ACCEPT_NEW, 1, 0, PP_HOSTKEY_REFUSE,
       "host key changed: "},
      {PP_HOSTKEY_CHANGED, PP_STRICT_NO, 0, 0, PP_HOSTKEY_ACCEPT_WARN,
       "host key changed: "},
      {PP_HOSTKEY_REVOKED, PP_STRICT_NO, 1, 0, PP_HOSTKEY_REFUSE,
       "host key revoked: "},
  };
  pp_buf b = blob(A);
  char reason[256];

  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    pp_target t = {.strict = cases[i].strict,
                   .batch = cases[i].batch,
                   .user_known_hosts = 1};
    pp_hostkey_found f = {cases[i].verdict, "/home/u/.ssh/known_hosts", 3};
    pp_hostkey_decision d = pp_hostkey_decide(&f, &t, cases[i].terminal, b.data,
                                              b.len, reason, sizeof reason);

    if (d != cases[i].want ||
        strncmp(reason, cases[i].reason, strlen(cases[i].reason)) != 0) {
      printf("case %zu: %d '%s'\n", i, d, reason);
      failures++;
    }
    if (f.verdict == PP_HOSTKEY_CHANGED)
      CHECK(strstr(reason, " is not the key in /home/u/.ssh/known_hosts:3"));
    t.user_known_hosts = 0;
    if (d == PP_HOSTKEY_ACCEPT_ADD) {
      d = pp_hostkey_decide(&f, &t, false, b.data, b.len, reason,
                            sizeof reason);
      CHECK(d == PP_HOSTKEY_ACCEPT); /* nowhere to add it to */
    }
  }
  pp_buf_clear(&b);
}

static void add(void) {
  pp_hostkey_query q = {"Host", 22, NULL}, far = {"::1", 2222, NULL};
  pp_hostkey_query odd = {"a b", 22, NULL};
  pp_buf a = blob(A), b = blob(B);
  pp_strings files = {0};
  pp_hostkeys k = {0};
  pp_hostkey_found f;
  struct stat st;
  FILE *file;
  char text[1024];
  size_t n;

  CHECK(pp_hostkey_add("dir/kh", &q, a.data, a.len, false) == 0);
  CHECK(stat("dir", &st) == 0 && (st.st_mode & 0777) == 0700);
  CHECK(stat("dir/kh", &st) == 0 && (st.st_mode & 0777) == 0600);
  file = fopen("dir/kh", "a");
  fputs("# no newline", file);
  fclose(file);
  CHECK(pp_hostkey_add("dir/kh", &far, b.data, b.len, false) == 0);
  CHECK(pp_hostkey_add("dir/kh", &odd, b.data, b.len, false) == PP_EBAD);
  CHECK(pp_hostkey_add("dir/kh", &q, "abcd", 4, false) == PP_EBAD);
  CHECK(pp_hostkey_add("no/such/dir/kh", &q, a.data, a.len, false) == PP_ESYS &&
        errno == ENOENT);
  if (geteuid() != 0) {
    CHECK(mkdir("shut", 0500) == 0);
    CHECK(pp_hostkey_add("shut/kh", &q, a.data, a.len, false) == PP_ESYS &&
          errno == EACCES);
  }
  file = fopen("dir/kh", "r");
  n = fread(text, 1, sizeof text - 1, file);
  text[n] = '\0';
  fclose(file);
  CHECK_STR(text, "host " KEY_A "\n# no newline\n[::1]:2222 " KEY_B "\n");

  CHECK(pp_hostkey_add("hashed", &far, a.data, a.len, true) == 0);
  file = fopen("hashed", "r");
  CHECK(fgets(text, sizeof text, file) != NULL);
  fclose(file);
  CHECK(strncmp(text, "|1|", 3) == 0 && strstr(text, "::1") == NULL);

  pp_strings_add(&files, "missing", 7);
  pp_strings_add(&files, ".", 1);
  pp_strings_add(&files, "dir/kh", 6);
  pp_strings_add(&files, "hashed", 6);
  CHECK(pp_hostkeys_load(&k, &far, &files) == 0);
  pp_hostkeys_check(&k, a.data, a.len, &f);
  CHECK(f.verdict == PP_HOSTKEY_OK && f.line == 1);
  CHECK_STR(f.file, "hashed");
  pp_hostkeys_check(&k, b.data, b.len, &f);
  CHECK(f.verdict == PP_HOSTKEY_OK && f.line == 3);
  CHECK_STR(f.file, "dir/kh");
  pp_hostkeys_clear(&k);
  pp_strings_clear(&files);
  pp_buf_clear(&a);
  pp_buf_clear(&b);
}

/* Files are read in pieces: lines across them, and one that is too long. */
static void large(void) {
  pp_hostkey_query q = {"last", 22, NULL};
  pp_strings files = {0};
  pp_hostkeys k = {0};
  pp_hostkey_found f;
  pp_buf a = blob(A);
  FILE *file = fopen("large", "w");

  for (int i = 0; i < 5000; i++)
    fprintf(file, "host%d,[host%d]:2222 " KEY_B "\n", i, i);
  for (int i = 0; i < 200000; i++)
    fputs("last,", file);
  fputs(" " KEY_B "\nlast " KEY_A, file);
  fclose(file);
  pp_strings_add(&files, "large", 5);
  CHECK(pp_hostkeys_load(&k, &q, &files) == 0);
  pp_hostkeys_check(&k, a.data, a.len, &f);
  CHECK(f.verdict == PP_HOSTKEY_OK && f.line == 5002 && k.n == 1);
  pp_hostkeys_clear(&k);
  q.host = "host4999";
  q.port = 2222;
  CHECK(pp_hostkeys_load(&k, &q, &files) == 0);
  CHECK(k.n == 1 && k.v[0].line == 5000 && !k.v[0].portless);
  pp_hostkeys_clear(&k);
  pp_strings_clear(&files);
  pp_buf_clear(&a);
}

/* --- beside ssh-keygen ------------------------------------------------------
 */

static unsigned seed = 12345;
static unsigned chance(unsigned n) {
  seed = seed * 1103515245 + 12345;
  return seed / 65536 % n;
}

static void random_name(char *out, size_t size, bool wild) {
  static const char *const bits[] = {
      "a",  "b",  "ab",   ".org", ".", "host", "1",
      "10", "::", "[a]:", "22",   "*", "?",    "*."};
  out[0] = '\0';
  for (unsigned i = chance(3) + 1; i > 0; i--)
    strncat(out, bits[chance(wild ? 14 : 11)], size - strlen(out) - 1);
}

static void random_file(const char *path) {
  FILE *f = fopen(path, "w");

  for (int i = 0; i < 40; i++) {
    static const char *const marks[] = {"@revoked ", "@cert-authority ", "@x "};
    char name[64];

    switch (chance(12)) {
    case 0:
      fputs(marks[chance(3)], f);
      break;
    case 1:
      fputs("  ", f);
      break;
    case 2:
      fputs("# ", f);
      break;
    }
    for (unsigned n = chance(3) + 1; n > 0; n--) {
      random_name(name, sizeof name, true);
      fprintf(f, "%s%s%s", chance(5) == 0 ? "!" : "", name, n > 1 ? "," : "");
    }
    fprintf(f, " %s%s\n", chance(2) ? KEY_A : KEY_B, chance(4) ? "" : " note");
  }
  fclose(f);
}

/* The lines `ssh-keygen -F` finds, as a set of bits. */
static uint64_t keygen_lines(const char *path, const char *name) {
  char command[256], line[4096];
  uint64_t lines = 0;
  unsigned at;
  FILE *p;

  snprintf(command, sizeof command, "ssh-keygen -F '%s' -f %s 2>/dev/null",
           name, path);
  p = popen(command, "r");
  while (p != NULL && fgets(line, sizeof line, p) != NULL) {
    const char *found = strstr(line, "found: line ");

    if (line[0] == '#' && found != NULL && sscanf(found + 12, "%u", &at) == 1)
      lines |= UINT64_C(1) << at;
  }
  if (p != NULL)
    pclose(p);
  return lines;
}

static uint64_t our_lines(const char *path, const char *name) {
  pp_hostkey_query q = {"unused", 22, name};
  pp_strings files = {0};
  pp_hostkeys k = {0};
  uint64_t lines = 0;

  pp_strings_add(&files, path, strlen(path));
  CHECK(pp_hostkeys_load(&k, &q, &files) == 0);
  for (size_t i = 0; i < k.n; i++)
    lines |= UINT64_C(1) << k.v[i].line;
  pp_hostkeys_clear(&k);
  pp_strings_clear(&files);
  return lines;
}

static void beside_keygen(void) {
  int files = 8, found = 0;

  if (!have("ssh-keygen")) {
    puts("not compared with ssh-keygen: it is not installed");
    return;
  }
  for (int i = 0; i < files; i++) {
    random_file("random");
    /* Hashed as ssh-keygen does it; wildcards stay as they are. */
    if (i % 2 == 1)
      CHECK(system("ssh-keygen -H -f random >/dev/null 2>&1") == 0 ||
            i > 0); /* it may refuse a file it finds bad lines in */
    for (int j = 0; j < 12; j++) {
      char name[64];
      uint64_t theirs, ours;

      random_name(name, sizeof name, false);
      theirs = keygen_lines("random", name);
      ours = our_lines("random", name);
      found += theirs != 0;
      if (ours != theirs) {
        printf("FAIL '%s' in file %d: lines %llx, ssh-keygen %llx\n", name, i,
               (unsigned long long)ours, (unsigned long long)theirs);
        failures++;
        if (failures < 3)
          CHECK(system("cat -n random") == 0);
      }
    }
  }
  CHECK(found > 10);
}

/* What we add is found by ssh-keygen, and fingerprints are what it prints. */
static void read_by_keygen(void) {
  pp_hostkey_query q = {"host.example", 2222, NULL};
  pp_buf a = blob(A);
  char print[64], command[256];

  if (!have("ssh-keygen"))
    return;
  CHECK(pp_hostkey_add("plain", &q, a.data, a.len, false) == 0);
  CHECK(pp_hostkey_add("secret", &q, a.data, a.len, true) == 0);
  CHECK(keygen_lines("plain", "[host.example]:2222") == 2);
  CHECK(keygen_lines("secret", "[host.example]:2222") == 2);
  CHECK(keygen_lines("secret", "host.example") == 0);
  pp_hostkey_fingerprint(a.data, a.len, print, sizeof print);
  snprintf(command, sizeof command,
           "echo '%s' | ssh-keygen -lf - | grep -qF ' %s '", KEY_A, print);
  CHECK(system(command) == 0);
  pp_buf_clear(&a);
}

static void no_memory(void) {
  static const char text[] =
      "h " KEY_A "\nx,[h]:2222 " KEY_B "\n" HASH_22 KEY_A;
  const pp_hostkey_query q = {"h", 2222, NULL};
  void *(*usual)(void *, size_t) = pp_buf_realloc;
  pp_buf a = blob(A);
  int r, n = 0;

  pp_buf_realloc = check_scarce;
  do {
    pp_hostkeys k = {0};

    check_left = n;
    r = pp_hostkeys_parse(&k, &q, "kh", text, sizeof text - 1);
    CHECK(r == 0 || (k.n == 0 && k.files.n == 0));
    if (r == 0)
      r = pp_hostkey_add("scarce", &q, a.data, a.len, true);
    CHECK(r == 0 || r == PP_ENOMEM);
    pp_hostkeys_clear(&k);
  } while (r != 0 && ++n < 1000);
  CHECK(r == 0 && n > 8);
  pp_buf_realloc = usual;
  pp_buf_clear(&a);
}

static void loopback(void) {
  struct sockaddr_in in = {.sin_family = AF_INET};
  struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};

  inet_pton(AF_INET, "127.3.2.1", &in.sin_addr);
  CHECK(pp_hostkey_is_loopback(&in));
  inet_pton(AF_INET, "128.0.0.1", &in.sin_addr);
  CHECK(!pp_hostkey_is_loopback(&in));
  inet_pton(AF_INET6, "::1", &in6.sin6_addr);
  CHECK(pp_hostkey_is_loopback(&in6));
  inet_pton(AF_INET6, "fe80::1", &in6.sin6_addr);
  CHECK(!pp_hostkey_is_loopback(&in6));
}

int main(void) {
  enter();
  names();
  ports();
  markers();
  bad_lines();
  types();
  decide();
  add();
  large();
  beside_keygen();
  read_by_keygen();
  loopback();
  no_memory();
  return leave();
}
