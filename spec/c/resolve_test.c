/* SPDX-License-Identifier: MIT */
/* ssh -G run in a loop: many at a time, over jump hosts, cancelled, silent. */
#include <sys/stat.h>

#include "check.h"
#include "resolve.h"

typedef struct result {
  pp_target *t;
  char reason[512];
  int calls;
} result;

static void on_resolved(void *ud, pp_target *t, const char *reason) {
  result *r = ud;

  r->calls++;
  r->t = t;
  snprintf(r->reason, sizeof r->reason, "%s", reason != NULL ? reason : "");
  CHECK((t == NULL) == (reason != NULL));
}

static uv_loop_t loop;

static pp_host host(const char *name) {
  return (pp_host){.name = (char *)(uintptr_t)name,
                   .host = (char *)(uintptr_t)name};
}

/* One request from beginning to end; the result is the caller's to free. */
static result one(const pp_resolver_options *o, const char *name) {
  pp_resolver *r = pp_resolver_new(&loop, o);
  pp_host h = host(name);
  result got = {0};

  CHECK(pp_config_resolve(r, &h, on_resolved, &got) != NULL);
  CHECK(got.calls == 0);
  uv_run(&loop, UV_RUN_DEFAULT);
  CHECK(got.calls == 1);
  pp_resolver_free(r);
  uv_run(&loop, UV_RUN_DEFAULT);
  return got;
}

static void write_file(const char *path, const char *text, int mode) {
  FILE *f = fopen(path, "w");

  fputs(text, f);
  fclose(f);
  chmod(path, (mode_t)mode);
}

static void missing(void) {
  const pp_resolver_options named = {.ssh = "/nonexistent/ssh"};
  const pp_resolver_options usual = {.transport = PP_TRANSPORT_LIBSSH2};
  char *path = strdup(getenv("PATH"));
  result got = one(&named, "h");

  CHECK_STR(got.reason,
            "cannot run '/nonexistent/ssh': no such file or directory");
  setenv("PATH", "/nonexistent", 1);
  got = one(&usual, "h");
  setenv("PATH", path, 1);
  free(path);
  CHECK(got.t != NULL);
  CHECK_STR(got.t->host, "h");
  CHECK_STR(got.t->ssh_program, NULL);
  CHECK(got.t->port == 22 && got.t->transport == PP_TRANSPORT_LIBSSH2);
  pp_target_free(got.t);
}

/* Killed is killed, also when nobody buries it. */
static bool is_gone(int pid) {
  for (int i = 0; i < 500; i++) {
    char path[64], state = 'Z';
    FILE *f;

    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    f = fopen(path, "r");
    if (f == NULL)
      return true;
    if (fscanf(f, "%*d (%*[^)]) %c", &state) != 1 || state == 'Z') {
      fclose(f);
      return true;
    }
    fclose(f);
    usleep(10000);
  }
  return false;
}

/* Programs that misbehave; no real ssh does so when asked to. */
static void misbehaving(void) {
  pp_resolver_options o = {.ssh = "./fake", .timeout_ms = 300};
  result got;
  FILE *f;
  int pid = 0;

  write_file("fake", "#!/bin/sh\nsleep 1000 &\necho $! >pid\nwait\n", 0755);
  got = one(&o, "h");
  CHECK_STR(got.reason, "ssh -G did not answer in time");
  f = fopen("pid", "r");
  CHECK(f != NULL && fscanf(f, "%d", &pid) == 1);
  fclose(f);
  CHECK(is_gone(pid)); /* its child, not only itself */

  write_file("fake", "#!/bin/sh\n(sleep 2) &\necho hostname h; echo port 1\n",
             0755);
  got = one(&o, "h"); /* gone, but what it left holds its output */
  CHECK_STR(got.reason, "ssh -G did not answer in time");

  o.timeout_ms = 20000;
  write_file("fake", "#!/bin/sh\nexec cat /dev/zero\n", 0755);
  got = one(&o, "h");
  CHECK_STR(got.reason, "ssh -G said too much");
  write_file(
      "fake",
      "#!/bin/sh\nprintf 'Pseudo-terminal x\\n\\nbad \\033 news\\nmore' >&2\n"
      "exit 255\n",
      0755);
  got = one(&o, "h");
  CHECK_STR(got.reason, "ssh -G: bad   news");
  write_file("fake", "#!/bin/sh\nexit 3\n", 0755);
  got = one(&o, "h");
  CHECK_STR(got.reason, "ssh -G ended with exit status 3");
  write_file("fake", "#!/bin/sh\nkill -9 $$\n", 0755);
  got = one(&o, "h");
  CHECK_STR(got.reason, "ssh -G was killed by signal 9");
  write_file("fake", "#!/bin/sh\n", 0755);
  got = one(&o, "h");
  CHECK_STR(got.reason, "ssh -G gave no host name and port to connect to");
  write_file("fake", "#!/bin/sh\n", 0644);
  got = one(&o, "h");
  CHECK_STR(got.reason, "cannot run './fake': permission denied");
  write_file("fake",
             "#!/bin/sh\necho hostname h; echo port 1; echo proxyjump '[a'\n",
             0755);
  got = one(&o, "h");
  CHECK_STR(got.reason, "ProxyJump '[a' cannot be read");
}

static const char config[] =
    "Host far\n"
    "  ProxyJump near,carl@middle:2022\n"
    "Host near\n"
    "  ProxyJump first\n"
    "  User nora\n"
    "Host middle\n"
    "  ProxyJump nowhere\n" /* not asked: it is given what it goes via */
    "  HostName middle.example\n"
    "Host odd\n"
    "  ProxyJump card\n"
    "Host card\n"
    "  PKCS11Provider /lib/p.so\n"
    "Host round\n"
    "  ProxyJump round2\n"
    "Host round2\n"
    "  ProxyJump round\n";

static void hops(void) {
  const pp_resolver_options o = {.config_file = "config"};
  result got = one(&o, "far");
  pp_target *t = got.t;

  CHECK(t != NULL && t->via != NULL && t->via->via != NULL &&
        t->via->via->via != NULL);
  if (t == NULL || t->via == NULL || t->via->via == NULL ||
      t->via->via->via == NULL)
    exit(1);
  CHECK_STR(t->config_file, "config");
  CHECK_STR(t->ssh_program, "ssh");
  CHECK_STR(t->via->name, "middle:2022");
  CHECK_STR(t->via->host, "middle.example");
  CHECK_STR(t->via->user, "carl");
  CHECK(t->via->port == 2022);
  CHECK_STR(t->via->via->host, "near");
  CHECK_STR(t->via->via->user, "nora");
  CHECK_STR(t->via->via->via->host, "first");
  CHECK(t->via->via->via->via == NULL);
  CHECK_STR(t->needs_ssh, NULL);
  pp_target_free(t);

  got = one(&o, "odd");
  CHECK_STR(got.t->needs_ssh, "jump host 'card': PKCS11Provider is set");
  pp_target_free(got.t);

  got = one(&o, "round");
  CHECK_STR(got.reason, "ProxyJump goes over too many hosts");
}

static void options(void) {
  const pp_resolver_options o = {.config_file = "none",
                                 .transport = PP_TRANSPORT_SSH};
  const pp_resolver_options broken = {.config_file = "broken"};
  pp_resolver *r = pp_resolver_new(&loop, &o);
  pp_host h = {.name = (char[]){"[::1]:99"},
               .host = (char[]){"::1"},
               .user = (char[]){"joe"},
               .port = 99};
  result got = {0};

  CHECK(pp_config_resolve(r, &h, on_resolved, &got) != NULL);
  uv_run(&loop, UV_RUN_DEFAULT);
  CHECK(got.t != NULL);
  CHECK_STR(got.t->name, "[::1]:99");
  CHECK_STR(got.t->host, "::1");
  CHECK_STR(got.t->user, "joe");
  CHECK_STR(got.t->given_user, "joe");
  CHECK(got.t->port == 99 && got.t->transport == PP_TRANSPORT_SSH);
  pp_target_free(got.t);
  pp_resolver_free(r);
  uv_run(&loop, UV_RUN_DEFAULT);

  write_file("broken", "Hots x\n", 0644);
  got = one(&broken, "h");
  CHECK(strncmp(got.reason, "ssh -G: broken: line 1: Bad configuration", 41) ==
        0);
  got = one(&o, "-oProxyCommand=x");
  CHECK(got.t == NULL && strncmp(got.reason, "ssh -G: ", 8) == 0);
}

enum { MANY = 100 };

static result many_results[MANY];
static pp_resolving *many_handles[MANY];

static void many(void) {
  const pp_resolver_options o = {.config_file = "none", .at_once = 8};
  pp_resolver *r = pp_resolver_new(&loop, &o);

  for (int i = 0; i < MANY; i++) {
    char name[16];
    pp_host h;

    snprintf(name, sizeof name, "host%d", i);
    h = host(name);
    many_handles[i] = pp_config_resolve(r, &h, on_resolved, &many_results[i]);
  }
  /* Every third is no longer wanted: some still queued, some running. */
  for (int turns = 0; turns < 3; turns++)
    uv_run(&loop, UV_RUN_NOWAIT);
  for (int i = 0; i < MANY; i += 3)
    if (many_results[i].calls == 0)
      pp_config_cancel(many_handles[i]);
    else
      many_results[i].calls = 0;
  uv_run(&loop, UV_RUN_DEFAULT);
  for (int i = 0; i < MANY; i++) {
    char name[16];

    snprintf(name, sizeof name, "host%d", i);
    CHECK(many_results[i].calls == (i % 3 != 0));
    if (many_results[i].t != NULL)
      CHECK_STR(many_results[i].t->host, name);
    pp_target_free(many_results[i].t);
  }
  pp_resolver_free(r);
  uv_run(&loop, UV_RUN_DEFAULT);
}

/* Freed with everything under way, and from a callback. */
static pp_resolver *to_free;

static void free_it(void *ud, pp_target *t, const char *reason) {
  (void)reason;
  ++*(int *)ud;
  pp_target_free(t);
  pp_resolver_free(to_free);
}

static void freed(void) {
  const pp_resolver_options o = {.config_file = "none", .at_once = 2};
  int calls = 0;

  for (int round = 0; round < 2; round++) {
    to_free = pp_resolver_new(&loop, &o);
    for (int i = 0; i < 6; i++) {
      pp_host h = host("h");

      CHECK(pp_config_resolve(to_free, &h, free_it, &calls) != NULL);
    }
    if (round == 0) {
      uv_run(&loop, UV_RUN_NOWAIT);
      uv_run(&loop, UV_RUN_NOWAIT);
      calls = 0;
      pp_resolver_free(to_free);
    }
    uv_run(&loop, UV_RUN_DEFAULT);
    CHECK(calls == round);
  }
}

int main(void) {
  enter();
  uv_loop_init(&loop);
  missing();
  misbehaving();
  if (have("ssh")) {
    write_file("config", config, 0644);
    hops();
    options();
    many();
    freed();
  } else {
    puts("ssh -G was not run: there is no ssh");
  }
  CHECK(uv_loop_close(&loop) == 0);
  return leave();
}
