/* SPDX-License-Identifier: MIT */
/* Host specs, node sets, and names folded back into them. */
#include <errno.h>

#include "check.h"
#include "host.h"

/* --- lists ---------------------------------------------------------------- */

/* All names of a list with what was written of them: "u@a:22/4 b". */
static void put_host(pp_buf *b, const pp_host *h) {
  char text[1024], port[16] = "", workers[16] = "";

  if (h->port > 0)
    snprintf(port, sizeof port, ":%d", h->port);
  if (h->workers > 0)
    snprintf(workers, sizeof workers, "/%d", h->workers);
  snprintf(text, sizeof text, "%s%s%s%s%s%s", b->len > 0 ? " " : "",
           h->user != NULL ? h->user : "", h->user != NULL ? "@" : "", h->host,
           port, workers);
  pp_buf_put(b, text, strlen(text));
}

static int add(pp_hosts *set, const char *list, pp_host_error *e) {
  return pp_hosts_add(set, list, strlen(list), NULL, NULL, e);
}

static void check_set(const pp_hosts *set, const char *want, int line) {
  pp_buf b = {0};

  for (size_t i = 0; i < set->n; i++) {
    const char *name = set->v[i].name;

    CHECK(pp_hosts_find(set, name, strlen(name)) == &set->v[i]);
    put_host(&b, &set->v[i]);
  }
  pp_buf_byte(&b, 0);
  check_str((char *)b.data, want, __FILE__, line);
  pp_buf_clear(&b);
}

static void good_at(const char *list, const char *want, int line) {
  pp_hosts set = {0};
  pp_host_error e;

  if (add(&set, list, &e) != 0) {
    printf("FAIL %s:%d %s\n", __FILE__, line, e.message);
    failures++;
  } else {
    check_set(&set, want, line);
  }
  pp_hosts_clear(&set);
}

static void bad_at(const char *list, size_t column, const char *why, int line) {
  pp_hosts set = {0};
  pp_host_error e;
  int r = add(&set, list, &e);

  if ((r != PP_EBAD && r != PP_ELIMIT) || set.n != 0 || e.column != column ||
      strstr(e.message, why) == NULL) {
    printf("FAIL %s:%d '%s' gave %d, %zu hosts, character %zu: %s\n", __FILE__,
           line, list, r, set.n, e.column, e.message);
    failures++;
  }
  pp_hosts_clear(&set);
}

#define good(list, want) good_at(list, want, __LINE__)
#define bad(list, column, why) bad_at(list, column, why, __LINE__)

static void specs(void) {
  good("a", "a");
  good("a.b-c_d.org", "a.b-c_d.org");
  good("10.0.0.1", "10.0.0.1");
  good("joe@a:2222/4", "joe@a:2222/4");
  good("joe@corp@a", "joe@corp@a");
  good("CORP\\joe@a", "CORP\\joe@a");
  good("a/16", "a/16");
  good("a,b , c\n", "a b c");
  good("  a  ", "a");
  good("ssh://joe@a:22/3,ssh://b,ssh://c/", "joe@a:22/3 b c");
  good("ssh://[::1]:22/3", "::1:22/3");
  good("[::1]:22/4", "::1:22/4");
  good("[::1]", "::1");
  good("::1/4", "::1/4");
  good("user@[fe80::1%eth0]", "user@fe80::1%eth0");
  good("fe80::1%eth0", "fe80::1%eth0");
  good("::ffff:10.0.0.1", "::ffff:10.0.0.1");
  good("h\xc3\xb6st", "h\xc3\xb6st");
  good("a:1,a:65535", "a:1 a:65535");
  good("local:22", "local:22");
  good("a/65536", "a/65536");

  bad("", 1, "a host is missing before the end");
  bad(" ", 2, "a host is missing");
  bad("a,", 3, "a host is missing before the end");
  bad("a,,b", 3, "a host is missing before ','");
  bad(",a", 1, "a host is missing");
  bad("a b", 3, "',' is missing before 'b'");
  bad("a/0", 3, "0 workers");
  bad("a/", 3, "a number is missing");
  bad("a/x", 3, "a number is missing before 'x'");
  bad("a/4x", 4, "'x' cannot stand here");
  bad("a/65537", 3, "at most 65536");
  bad("a/9999999999999999999", 21, "at most 18 digits");
  bad("a:", 3, "a port is missing");
  bad("a:x", 3, "a port is missing before 'x'");
  bad("a:0", 3, "ports are");
  bad("a:65536", 3, "ports are");
  bad("b,a:000001", 5, "ports are");
  bad("a:22:33", 1, "not an IPv6 address");
  bad("@", 2, "a file is missing");
  bad("joe@", 5, "a host is missing");
  bad("joe@/4", 5, "a host is missing before '/'");
  bad("jo e@a", 4, "',' is missing");
  bad("jo;e@a", 3, "';' cannot stand here in a user's name");
  bad("-l@a", 1, "'-' cannot stand here");
  bad("joe\\@a", 4, "cannot stand here");
  bad("-oProxyCommand=x", 1, "does not begin with '-'");
  bad("a$(x)", 2, "'$' cannot stand here");
  bad("`x`", 1, "'`' cannot stand in a host's name");
  bad("a\x01", 2, "\\x01 cannot stand here");
  bad("[::1", 1, "never closed");
  bad("[::x]", 2, "not an IPv6 address");
  bad("[::1]x", 6, "'x' cannot stand here");
  bad("[::1%]", 2, "not an IPv6 address");
  bad("fe80::1%e/h:", 11, "a number is missing before 'h'");
  bad("::1:22/3x", 9, "'x' cannot stand here");
  bad("local", 1, "'local' is this machine's own name");
  bad("ssh:///a", 7, "a host is missing");
}

static void sets(void) {
  good("n[1-3]", "n1 n2 n3");
  good("n[01-03,20]", "n01 n02 n03 n20");
  good("n[08-11]", "n08 n09 n10 n11");
  good("n[98-101]", "n98 n99 n100 n101");
  good("n[098-101]", "n098 n099 n100 n101");
  good("n[1-9/2]", "n1 n3 n5 n7 n9");
  good("n[1-9/4,3]", "n1 n5 n9 n3");
  good("n[5]", "n5");
  good("n[00-01]", "n00 n01");
  good("n[0-1]x", "n0x n1x");
  good("[1-2]n", "1n 2n");
  good("r[1-2]n[01-02]", "r1n01 r1n02 r2n01 r2n02");
  good("10.0.[1-2].[7-8]", "10.0.1.7 10.0.1.8 10.0.2.7 10.0.2.8");
  good("joe@n[1-2]:22/8", "joe@n1:22/8 joe@n2:22/8");
  good("h:[2201-2203]", "h:2201 h:2202 h:2203");
  good("h:22[01-02]/1", "h:2201/1 h:2202/1");
  good("n[1-3,2-4]", "n1 n2 n3 n4");
  good("n[1-2],n[2-3]", "n1 n2 n3");
  good("n[999999999999999998-999999999999999999]",
       "n999999999999999998 n999999999999999999");

  bad("node[5-3]", 8, "ends before it begins");
  bad("n[1-016]", 5, "same number of digits");
  bad("n[01-016]", 6, "same number of digits");
  bad("n[1-3/0]", 7, "step of 0");
  bad("n[1/2]", 4, "only a range has a step");
  bad("n[", 3, "a number is missing before the end");
  bad("n[1", 2, "never closed");
  bad("n[1-", 5, "a number is missing");
  bad("n[]", 3, "a number is missing before ']'");
  bad("n[1,]", 5, "a number is missing before ']'");
  bad("n[a-c]", 3, "a number is missing before 'a'");
  bad("n[1;2]", 4, "',' or ']' is missing before ';'");
  bad("n]", 2, "']' cannot stand here");
  bad("n[1-100001]", 1, "more than 100000 hosts");
  bad("n[1-100000],x", 13, "more than 100000 hosts");
  bad("x,n[1-100000]", 3, "more than 100000 hosts");
  bad("n[0-99][0-99][0-99][0-99]", 1, "more than 100000 hosts");
  bad("n[0-999999999999999999][0-999999999999999999][0-999999999999999999]"
      "[0-999999999999999999]",
      1, "more than 100000 hosts");
  bad("n[1-2]:[0-1]", 8, "ports are");
  bad("n[1-2]/8,n2/4", 10, "'n2' was named before, with another number");
  bad("a,joe@a", 3, "'a' was named before, with another user");
  bad("joe@a,sue@a", 7, "'a' was named before, with another user");
}

static void exclusions(void) {
  good("n[1-4]!n2", "n1 n3 n4");
  good("a,b!node3", "a b");
  good("n[1-8]!n[2-6/2],x", "n1 n3 n5 n7 n8 x");
  good("n[1-4]!n2!n3", "n1 n4");
  good("n[1-4] ! n2 , n2", "n1 n3 n4 n2");
  good("n[01-16]!n3!n[05-16]", "n01 n02 n03 n04");
  good("n[1-3]:22!n2", "n1:22 n3:22");
  good("n2:22,n2:23!n2:22", "n2:23");
  good("[::1]:22,a![::1]", "a");
  good("n[1-4]/8!n[2-3]", "n1/8 n4/8");
  good("n[1-4]!n[1-999999999999999999/2]", "n2 n4");
  bad("a!a", 3, "no host is left");
  bad("!a", 2, "nothing yet to take this from");
  bad("a!joe@b", 3, "has no user");
  bad("a!b/4", 5, "has no workers");
  bad("a!", 3, "a host is missing");
}

static void several(void) {
  pp_hosts set = {0};
  pp_host_error e;

  CHECK(add(&set, "n[1-3]", &e) == 0);
  CHECK(add(&set, "n[1-5]!n2", &e) == 0); /* its own n2 only */
  check_set(&set, "n1 n2 n3 n4 n5", __LINE__);
  CHECK(add(&set, "!n[2-3],x", &e) == 0);
  check_set(&set, "n1 n4 n5 x", __LINE__);
  /* After a mistake all is as it was. */
  CHECK(add(&set, "y,n1/4", &e) == PP_EBAD);
  CHECK(add(&set, "!n1,x/4", &e) == PP_EBAD);
  CHECK(add(&set, "!n1,n4,n5,x!n[1-9]!x", &e) == PP_EBAD);
  CHECK(add(&set, "z[1-99997]", &e) == PP_ELIMIT);
  check_set(&set, "n1 n4 n5 x", __LINE__);
  CHECK(pp_hosts_remove(&set, "n4", 2) && !pp_hosts_remove(&set, "n4", 2));
  check_set(&set, "n1 n5 x", __LINE__);
  CHECK(add(&set, "z[1-99997]", &e) == 0 && set.n == 100000);
  CHECK(pp_hosts_find(&set, "z99997", 6) != NULL);
  CHECK(pp_hosts_find(&set, "z99998", 6) == NULL);
  CHECK(add(&set, "!z[1-99997]", &e) == 0);
  check_set(&set, "n1 n5 x", __LINE__);
  pp_hosts_clear(&set);
  pp_hosts_clear(&set);
  CHECK(pp_hosts_find(&set, "n1", 2) == NULL);

  CHECK(add(&set, "u@[::1]:22/3,b", &e) == 0);
  CHECK_STR(set.v[0].name, "[::1]:22");
  CHECK_STR(set.v[0].host, "::1");
  CHECK_STR(set.v[0].user, "u");
  CHECK(set.v[0].port == 22 && set.v[0].workers == 3);
  CHECK_STR(set.v[1].name, "b");
  CHECK_STR(set.v[1].user, NULL);
  pp_hosts_clear(&set);
}

static void errors(void) {
  pp_hosts set = {0};
  pp_host_error e;
  char list[512];

  CHECK(add(&set, "node[5-3],b", &e) == PP_EBAD);
  CHECK_STR(e.message, "bad hosts 'node[5-3],b': the range ends before it "
                       "begins (character 8)");
  CHECK_STR(e.caret, "node[5-3],b\n       ^");
  CHECK(add(&set, "h\xc3\xb6st;", &e) == PP_EBAD);
  CHECK(e.column == 5);
  CHECK_STR(e.caret, "h\xc3\xb6st;\n    ^");
  memset(list, 'a', 300);
  for (int i = 10; i < 300; i += 10)
    list[i] = ',';
  strcpy(list + 300, ";b,c");
  CHECK(add(&set, list, &e) == PP_EBAD);
  CHECK(e.column == 301);
  CHECK(strncmp(e.caret, "...", 3) == 0 &&
        strchr(e.caret, ';') - e.caret ==
            strchr(e.caret, '^') - strchr(e.caret, '\n') - 1);
  memset(list, 'a', 300);
  list[300] = '\0';
  CHECK(add(&set, list, &e) == PP_ELIMIT);
  CHECK(strstr(e.message, "at most 255 bytes") != NULL);
  memset(list, 'a', 250);
  strcpy(list + 250, "[1-2]x[10000-10001]");
  CHECK(add(&set, list, &e) == PP_ELIMIT);
  CHECK(set.n == 0);
  list[255] = '\0';
  memset(list, 'a', 255);
  CHECK(add(&set, list, &e) == 0 && set.n == 1);
  pp_hosts_clear(&set);
}

static void write_file(const char *path, const char *text, size_t n) {
  FILE *f = fopen(path, "w");

  fwrite(text, 1, n, f);
  fclose(f);
}

static void files(void) {
  const char *text = "# mine\n\na # the first\n  b/4\t\r\nn[1-3]!n2\n!n3\n@c";

  write_file("hosts", text, strlen(text) - 3);
  write_file("nested", text, strlen(text));
  write_file("bad", "a\n\n  b, c;d\n", 12);
  write_file("none", "# nothing\n\n", 11);
  write_file("zero", "a\n\0\n", 4);
  write_file("last", "x,y", 3);
  good("@hosts", "a b/4 n1");
  good("z,@last", "z x y");
  good("@last,z", "x y z");
  good("@last ,z", "x y z");
  good("@last!x,z", "y z");
  good("a,x,y,y:22!@last", "a");
  good("@./last", "x y");
  bad("a,@missing", 3, "cannot read 'missing': ");
  bad("a,@.", 3, "cannot read '.': ");
  bad("@none", 1, "this file names no host");
  bad("@nested", 1, "nested:7:1: a file of hosts names no other file");
  bad("@bad", 7, "bad:3:7: ';' cannot stand here in a host");
  bad("@zero", 1, "zero:2:1: \\x00 cannot stand in a host's name");
}

/* --- sets of names -------------------------------------------------------- */

static bool in(const char *set, const char *name) {
  pp_nodeset *s = NULL;
  pp_host_error e;
  bool is_in;

  if (pp_nodeset_new(&s, set, strlen(set), &e) != 0) {
    printf("FAIL %s\n", e.message);
    failures++;
    return false;
  }
  is_in = pp_nodeset_has(s, name, strlen(name));
  pp_nodeset_free(s);
  return is_in;
}

static void no_nodeset(const char *set, size_t column) {
  pp_nodeset *s = NULL;
  pp_host_error e;

  CHECK(pp_nodeset_new(&s, set, strlen(set), &e) == PP_EBAD);
  CHECK(s == NULL && e.message[0] != '\0');
  if (e.column != column) {
    printf("FAIL '%s': character %zu\n", set, e.column);
    failures++;
  }
}

static void nodesets(void) {
  char deep[1024] = "", name[256] = "";

  CHECK(in("local", "local"));
  CHECK(in("a,local", "local"));
  CHECK(!in("a", "local"));
  CHECK(in("n[1-3]", "n2"));
  CHECK(!in("n[1-3]", "n4") && !in("n[1-3]", "n02") && !in("n[1-3]", "n"));
  CHECK(!in("n[1-3]", "n22") && !in("n[1-3]", "xn2") && !in("n[1-3]", "n2x"));
  CHECK(in("n[01-16]", "n02") && in("n[01-16]", "n16"));
  CHECK(!in("n[01-16]", "n2") && !in("n[01-16]", "n002"));
  CHECK(in("n[098-101]", "n099") && in("n[098-101]", "n101"));
  CHECK(in("n[0-3]", "n0") && !in("n[0-3]", "n00"));
  CHECK(in("n[00-03]", "n00"));
  CHECK(in("n[1-9/2]", "n3") && !in("n[1-9/2]", "n4"));
  CHECK(in("n[1-4]!n2", "n1") && !in("n[1-4]!n2", "n2"));
  CHECK(in("n[1-4]!n2,n2", "n2"));
  CHECK(in("r[1-2]n[1-3]0", "r2n30") && !in("r[1-2]n[1-3]0", "r2n3"));
  CHECK(in("n[1-11][1-2]", "n112") && in("n[1-11][1-2]", "n12"));
  CHECK(in("h:[2201-2203]", "h:2202") && !in("h", "h:2202"));
  CHECK(in("[::1]:22", "[::1]:22") && in("::1", "::1"));
  CHECK(in("n[0-999999999999999999]", "n123456789012345678"));
  CHECK(!in("n[0-999999999999999999]", "n1234567890123456789"));
  no_nodeset("", 1);
  no_nodeset("!a", 2);
  no_nodeset("u@a", 1);
  no_nodeset("a,b/4", 5);
  no_nodeset("a,@file", 3);
  no_nodeset("n[3-1]", 5);
  /* Many brackets, each of which could stop anywhere. */
  for (int i = 0; i < 60; i++)
    strcat(deep, "[0-9,10-999]");
  memset(name, '1', 180);
  CHECK(in(deep, name));
  name[59] = '\0';
  CHECK(!in(deep, name));
}

/* --- folding -------------------------------------------------------------- */

static void fold_at(const char *names, const char *want, int line) {
  char copy[1024], *save = NULL;
  const char *v[64];
  pp_buf b = {0};
  size_t n = 0;

  snprintf(copy, sizeof copy, "%s", names);
  for (char *p = strtok_r(copy, " ", &save); p != NULL;
       p = strtok_r(NULL, " ", &save))
    v[n++] = p;
  CHECK(pp_hosts_fold(v, n, &b) == 0);
  pp_buf_byte(&b, 0);
  check_str((char *)b.data, want, __FILE__, line);
  pp_buf_clear(&b);
}

#define fold(names, want) fold_at(names, want, __LINE__)

static void folds(void) {
  fold("", "");
  fold("a", "a");
  fold("b a b", "a,b");
  fold("n1", "n1");
  fold("n2 n1", "n[1-2]");
  fold("n1 n3", "n[1,3]");
  fold("n1 n2 n3 n4 n5 n6 n7 n8 n9 n10 n11 n12 n13 n14 n16", "n[1-14,16]");
  fold("n10 n9 local", "local,n[9-10]");
  fold("n09 n10 n11", "n[09-11]");
  fold("n9 n09 n10 n010", "n[9,09-10,010]");
  fold("n099 n100 n101", "n[099-101]");
  fold("n99 n100", "n[99-100]");
  fold("n0 n00 n1 n01", "n[0-1,00-01]");
  fold("r1n1 r1n2 r2n1 r2n2", "r[1-2]n[1-2]");
  fold("r1n1 r1n2 r2n1", "r1n[1-2],r2n1");
  fold("10.0.0.1 10.0.0.2 10.0.1.1", "10.0.0.[1-2],10.0.1.1");
  fold("h:2201 h:2202 h", "h,h:[2201-2202]");
  fold("[::1]:22 [::2]:22", "[::1]:22,[::2]:22");
  fold("fe80::1 fe80::2", "fe80::1,fe80::2");
  fold("n1x n2x n1y", "n1y,n[1-2]x");
  fold("n999999999999999999 n1000000000000000000",
       "n999999999999999999,n1000000000000000000");
  fold("a1b1c1d1e1f1g1h1i1j1 a1b1c1d1e1f1g1h1i1j2", "a1b1c1d1e1f1g1h1i1j[1-2]");
}

static unsigned seed = 4711;
static unsigned chance(unsigned n) {
  seed = seed * 1103515245 + 12345;
  return seed / 65536 % n;
}

/* What is folded says the same when it is read again, expanded or not. */
static void round_trips(void) {
  for (int round = 0; round < 300; round++) {
    static char names[40][64];
    const char *v[40];
    pp_hosts set = {0};
    pp_host_error e;
    pp_nodeset *ns = NULL;
    pp_buf b = {0};
    size_t n = chance(40) + 1, unique = 0;

    for (size_t i = 0; i < n; i++) {
      static const char *const forms[] = {"n%u",     "n%02u",    "r%un%02u",
                                          "%u.%u",   "h:22%02u", "x%uy%ux%u",
                                          "n%03u-ib"};
      unsigned a = chance(13), c = chance(3), d = chance(3);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
#pragma GCC diagnostic ignored "-Wformat-extra-args"
      snprintf(names[i], sizeof names[i], forms[chance(7)], a, c, d);
#pragma GCC diagnostic pop
      v[i] = names[i];
    }
    for (size_t i = 0; i < n; i++) {
      size_t k = 0;

      while (strcmp(v[k], v[i]) != 0)
        k++;
      unique += k == i;
    }
    CHECK(pp_hosts_fold(v, n, &b) == 0);
    CHECK(pp_hosts_add(&set, (char *)b.data, b.len, NULL, NULL, &e) == 0);
    CHECK(pp_nodeset_new(&ns, (char *)b.data, b.len, &e) == 0);
    if (set.n != unique) {
      printf("FAIL %.*s has %zu names, not %zu\n", (int)b.len, (char *)b.data,
             set.n, unique);
      failures++;
    }
    for (size_t i = 0; i < n; i++) {
      CHECK(pp_hosts_find(&set, v[i], strlen(v[i])) != NULL);
      CHECK(pp_nodeset_has(ns, v[i], strlen(v[i])));
    }
    pp_nodeset_free(ns);
    pp_hosts_clear(&set);
    pp_buf_clear(&b);
  }
}

/* --- no memory ------------------------------------------------------------ */

static void no_memory(void) {
  static const char *const names[] = {"n1", "n2", "r1n1", "r1n2", "x"};
  void *(*usual)(void *, size_t) = pp_buf_realloc;
  int r, n = 0;

  pp_buf_realloc = check_scarce;
  do {
    pp_hosts set = {0};
    pp_host_error e;
    pp_nodeset *ns = NULL;
    pp_buf b = {0};

    check_left = n;
    r = add(&set, "u@a:22/3,n[1-12]!n3,@last", &e);
    if (r == 0)
      r = add(&set, "!n1,y", &e);
    if (r == 0)
      r = pp_nodeset_new(&ns, "a[1-3],b", 8, &e);
    if (r == 0)
      r = pp_hosts_fold(names, 5, &b);
    CHECK(r == 0 || r == PP_ENOMEM);
    pp_hosts_clear(&set);
    pp_nodeset_free(ns);
    pp_buf_clear(&b);
  } while (r != 0 && ++n < 1000);
  CHECK(r == 0 && n > 20);
  pp_buf_realloc = usual;
}

int main(void) {
  enter();
  specs();
  sets();
  exclusions();
  several();
  errors();
  files();
  nodesets();
  folds();
  round_trips();
  no_memory();
  return leave();
}
