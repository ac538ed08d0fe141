/* SPDX-License-Identifier: MIT */
/*
 * Gets an agent to run on a host and says how; remote_boot_spec.lua runs it.
 *
 *   boot_driver [options] HOST MACHINE=FILE...
 *
 *   -F FILE         ssh's configuration
 *   -t TRANSPORT    libssh2 or ssh; else it is chosen
 *   -i ID           use an installed ppsh of this build
 *   -r              without compression
 *   -T SECONDS      how long to wait
 *
 * When it runs, a megabyte goes there and back. Lines on stderr: "log TEXT",
 * "ready MS SENT SYSTEM PLACE", "failed REASON", "closed KIND TEXT".
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ask.h"
#include "bootstrap.h"
#include "hash.h"
#include "host.h"
#include "resolve.h"
#include "stream.h"

enum { BYTES = 1 << 20, IMAGES = 8 };

static uv_loop_t loop;
static pp_net *net;
static pp_target *target;
static pp_stream *s;
static pp_bootstrap *boot;
static uv_timer_t timer;
static uint64_t started;
static bool ready, over;
static size_t received;
static int bad, seconds = 20;
static pp_agent_image images[IMAGES];
static char hashes[IMAGES][33];
static pp_bootstrap_options bo;
static char *pattern;

static void on_log(void *ud, pp_net_level level, const char *text) {
  (void)ud;
  if (level < PP_NET_DEBUG)
    fprintf(stderr, "log %s\n", text);
}

static void on_boot_log(void *ud, const char *text) {
  (void)ud;
  fprintf(stderr, "log %s\n", text);
}

static void nothing(void *ud) { (void)ud; }

static int send_image(void *ud, const void *p, size_t n) {
  (void)ud;
  return pp_stream_give(s, p, n, nothing, NULL);
}

static void echoed(const char *p, size_t n) {
  if (received + n > BYTES || memcmp(pattern + received, p, n) != 0) {
    fprintf(stderr, "wrong bytes came back\n");
    bad++;
    pp_stream_close(s, NULL);
    return;
  }
  received += n;
  if (received == BYTES)
    pp_stream_end(s);
}

static void on_data(void *ud, const void *p, size_t n) {
  size_t used;

  (void)ud;
  if (ready) {
    echoed(p, n);
    return;
  }
  switch (pp_bootstrap_data(boot, p, n, &used)) {
  case PP_BOOT_WAITING:
    break;
  case PP_BOOT_FAILED:
    bad++;
    fprintf(stderr, "failed %s\n", pp_bootstrap_reason(boot));
    pp_stream_close(s, NULL);
    break;
  case PP_BOOT_READY:
    ready = true;
    fprintf(stderr, "ready %.1f %s. %s %s\n",
            (double)(uv_hrtime() - started) / 1e6, pp_bootstrap_sent(boot),
            pp_bootstrap_system(boot), pp_bootstrap_place(boot));
    if (used < n)
      echoed((const char *)p + used, n - used);
    pp_stream_write(s, pattern, BYTES);
  }
}

static void on_errors(void *ud, const void *p, size_t n) {
  (void)ud;
  pp_bootstrap_errors(boot, p, n);
}

static void on_closed(void *ud, pp_end kind, const char *text) {
  (void)ud;
  if (!ready && kind != PP_END_CLOSED) {
    bad++;
    fprintf(stderr, "failed %s\n",
            kind == PP_END_EXIT || kind == PP_END_SIGNAL || kind == PP_END_LOST
                ? pp_bootstrap_closed(boot, text)
                : text);
  } else if (ready && (received != BYTES || kind != PP_END_EXIT)) {
    bad++;
  }
  fprintf(stderr, "closed %s %s\n", pp_end_name(kind), text);
  over = true;
  uv_close((uv_handle_t *)&timer, NULL);
}

static void on_time(uv_timer_t *t) {
  (void)t;
  if (!ready && !over) {
    bad++;
    fprintf(stderr, "failed %s\n", pp_bootstrap_stalled(boot));
    pp_stream_close(s, NULL);
  }
}

static void on_resolved(void *ud, pp_target *t, const char *reason) {
  static const pp_stream_events events = {NULL, on_data, NULL, on_errors,
                                          on_closed};

  (void)ud;
  if (t == NULL) {
    fprintf(stderr, "cannot resolve: %s\n", reason);
    exit(1);
  }
  target = t;
  started = uv_hrtime();
  s = pp_stream_open(net, t, pp_bootstrap_command(boot), &events, NULL);
  uv_timer_start(&timer, on_time, (uint64_t)seconds * 1000, 0);
}

static void *slurp(FILE *f, size_t *n) {
  size_t cap = 1 << 20;
  char *p = malloc(cap);

  *n = 0;
  while (p != NULL && !feof(f) && !ferror(f)) {
    *n += fread(p + *n, 1, cap - *n, f);
    if (*n == cap)
      p = realloc(p, cap *= 2);
  }
  return p;
}

static void add_image(char *arg, bool raw) {
  pp_agent_image *a = &images[bo.n];
  char *file = strchr(arg, '='), command[4200];
  pp_hash h;
  FILE *f;

  if (file == NULL || bo.n == IMAGES)
    exit(2);
  *file++ = '\0';
  if ((f = fopen(file, "rb")) == NULL) {
    perror(file);
    exit(1);
  }
  a->machine = arg;
  a->bytes = slurp(f, &a->size);
  fclose(f);
  h = pp_hash_of(a->bytes, a->size, 0);
  sprintf(hashes[bo.n], "%016llx%016llx", (unsigned long long)h.hi,
          (unsigned long long)h.lo);
  a->hash = hashes[bo.n];
  if (!raw) {
    snprintf(command, sizeof command, "gzip -9 -c '%s'", file);
    f = popen(command, "r");
    a->gz = slurp(f, &a->gz_size);
    pclose(f);
  }
  bo.n++;
}

int main(int argc, char **argv) {
  pp_resolver_options ro = {0};
  pp_net_options no = {.log = on_log, .never_ask = true};
  pp_host_error error;
  pp_hosts hosts = {0};
  pp_resolver *resolver;
  bool raw = false;
  int c = pp_askpass_main(argc, argv), i;

  if (c >= 0)
    return c;
  while ((c = getopt(argc, argv, "+F:t:i:rT:")) != -1)
    switch (c) {
    case 'F':
      ro.config_file = optarg;
      break;
    case 't':
      ro.transport =
          strcmp(optarg, "ssh") == 0 ? PP_TRANSPORT_SSH : PP_TRANSPORT_LIBSSH2;
      break;
    case 'i':
      bo.installed = optarg;
      break;
    case 'r':
      raw = true;
      break;
    case 'T':
      seconds = atoi(optarg);
      break;
    default:
      return 2;
    }
  if (optind >= argc)
    return 2;
  signal(SIGPIPE, SIG_IGN);
  setvbuf(stderr, NULL, _IOLBF, 0);
  for (i = optind + 1; i < argc; i++)
    add_image(argv[i], raw);
  bo.images = images;
  bo.send = send_image;
  bo.log = on_boot_log;
  pattern = malloc(BYTES);
  for (i = 0; i < BYTES; i++)
    pattern[i] = (char)((unsigned)i * 2654435761u >> 11);
  if (pp_hosts_add(&hosts, argv[optind], strlen(argv[optind]), NULL, NULL,
                   &error) != 0 ||
      hosts.n != 1)
    return 2;
  uv_loop_init(&loop);
  uv_timer_init(&loop, &timer);
  net = pp_net_new(&loop, &no);
  resolver = pp_resolver_new(&loop, &ro);
  boot = pp_bootstrap_new(&bo);
  pp_config_resolve(resolver, &hosts.v[0], on_resolved, NULL);
  while (!over)
    uv_run(&loop, UV_RUN_ONCE);
  pp_resolver_free(resolver);
  pp_net_close(net, NULL, NULL);
  uv_run(&loop, UV_RUN_DEFAULT);
  if (uv_loop_close(&loop) != 0)
    bad++;
  pp_bootstrap_free(boot);
  pp_target_free(target);
  pp_hosts_clear(&hosts);
  for (i = 0; i < (int)bo.n; i++) {
    free((void *)images[i].bytes);
    free((void *)images[i].gz);
  }
  free(pattern);
  return bad > 0;
}
