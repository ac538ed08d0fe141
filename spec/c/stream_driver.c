/* SPDX-License-Identifier: MIT */
/*
 * Opens streams to hosts and says what happens to them; remote_stream_spec.lua
 * runs it.
 *
 *   stream_driver [options] HOSTS MODE [ARGUMENT...]
 *
 *   -F FILE         ssh's configuration
 *   -t TRANSPORT    libssh2 or ssh; else it is chosen
 *   -n N            so many streams to each host
 *   -b              never ask
 *   -c MS           close each after so many milliseconds (with r in front: at
 *                   a random moment up to that)
 *   -q              say nothing of streams that open, and end with status 0
 *   -v              log at level debug, else info
 *
 *   run COMMAND [INPUT]    pass on what the command says; INPUT goes to it
 *   type COMMAND           our stdin goes to the command
 *   echo BYTES COMMAND     that many bytes there and back, checked
 *   ping TIMES COMMAND     a byte there and back, so often, one after another
 *   slow BYTES COMMAND     as echo, and stop reading again and again
 *
 * Lines on stderr: "log LEVEL TEXT", "opened HOST TRANSPORT MS", "closed HOST
 * KIND STATUS TEXT", "errors HOST TEXT", "rate MB/s", "latency US".
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ask.h"
#include "host.h"
#include "resolve.h"
#include "stream.h"

typedef struct job {
  const pp_host *host;
  pp_target *target;
  pp_stream *s;
  uv_timer_t timer;
  uint64_t started;
  size_t sent, received; /* echo, and pings */
  size_t step;
  bool over, holding;
} job;

static uv_loop_t loop;
static pp_net *net;
static const char *mode, *command, *argument;
static size_t size;
static int running, bad;
static bool quiet, verbose, random_close;
static long close_ms = -1;
static uint64_t began;
static unsigned char pattern[64 << 10];
static uv_pipe_t typed;
static char typed_room[4096];

static double ms_since(uint64_t t) { return (double)(uv_hrtime() - t) / 1e6; }

static void on_log(void *ud, pp_net_level level, const char *text) {
  static const char *const names[] = {"error", "warn", "info", "debug"};

  (void)ud;
  if (level < PP_NET_DEBUG || verbose)
    fprintf(stderr, "log %s %s\n", names[level], text);
}

static void on_asking(void *ud, bool on) {
  (void)ud;
  if (verbose)
    fprintf(stderr, "asking %d\n", on);
}

/* --- echo: bytes whose place says what they are --------------------------- */

static unsigned char byte_at(size_t i) { return pattern[i % sizeof pattern]; }

static void nothing(void *ud) { (void)ud; }

static void send_more(job *j) {
  while (j->sent < size && !pp_stream_full(j->s)) {
    size_t from = j->sent % sizeof pattern, n = sizeof pattern - from;

    n = n < size - j->sent ? n : size - j->sent;
    /* Now copied, now not. */
    if (j->step++ % 2 == 0)
      pp_stream_write(j->s, pattern + from, n);
    else if (pp_stream_give(j->s, pattern + from, n, nothing, NULL) != 0)
      abort();
    j->sent += n;
  }
  if (j->sent == size)
    pp_stream_end(j->s);
}

static void on_hold_over(uv_timer_t *t) {
  job *j = t->data;

  j->holding = false;
  if (!j->over)
    pp_stream_resume(j->s);
}

static void check_echo(job *j, const unsigned char *p, size_t n) {
  size_t i;

  for (i = 0; i < n; i++)
    if (p[i] != byte_at(j->received + i)) {
      fprintf(stderr, "wrong byte at %zu\n", j->received + i);
      bad++;
      pp_stream_close(j->s, NULL);
      return;
    }
  j->received += n;
  if (*mode == 's' && !j->holding && j->received < size &&
      j->received / (1 << 20) > j->step) {
    j->step = j->received / (1 << 20);
    j->holding = true;
    pp_stream_pause(j->s);
    uv_timer_start(&j->timer, on_hold_over, 5, 0);
  }
}

/* --- events --------------------------------------------------------------- */

static void on_opened(void *ud) {
  job *j = ud;

  if (!quiet)
    fprintf(stderr, "opened %s %s %.1f\n", j->host->name,
            pp_stream_transport(j->s), ms_since(j->started));
  began = uv_hrtime();
  if (*mode == 'e' || *mode == 's')
    send_more(j);
  else if (*mode == 'p')
    pp_stream_write(j->s, "x", 1);
}

static void on_data(void *ud, const void *p, size_t n) {
  job *j = ud;

  if (*mode == 'e' || *mode == 's') {
    check_echo(j, p, n);
  } else if (*mode == 'p') {
    if ((j->received += n) < size)
      pp_stream_write(j->s, "x", 1);
    else
      pp_stream_end(j->s);
  } else if (write(1, p, n) != (ssize_t)n) {
    bad++;
  }
}

static void on_drained(void *ud) {
  job *j = ud;

  if (*mode == 'e' || *mode == 's')
    send_more(j);
}

static void on_errors(void *ud, const void *p, size_t n) {
  job *j = ud;

  fprintf(stderr, "errors %s %.*s\n", j->host->name,
          (int)(((const char *)p)[n - 1] == '\n' ? n - 1 : n), (const char *)p);
}

static void on_closed(void *ud, pp_end kind, const char *text) {
  job *j = ud;

  if (!quiet || (kind != PP_END_EXIT && close_ms < 0))
    fprintf(stderr, "closed %s %s %d %s\n", j->host->name, pp_end_name(kind),
            pp_stream_status(j->s), text);
  if (kind != PP_END_EXIT || pp_stream_status(j->s) != 0)
    bad++;
  if (!quiet && *mode == 'e' && j->received == size)
    fprintf(stderr, "rate %.1f\n",
            (double)size / 1e6 / (ms_since(began) / 1000));
  if (*mode == 'p' && j->received == size)
    fprintf(stderr, "latency %.1f\n", ms_since(began) * 1000 / (double)size);
  if ((*mode == 'e' || *mode == 's') && kind == PP_END_EXIT &&
      j->received != size) {
    fprintf(stderr, "%zu of %zu bytes came back\n", j->received, size);
    bad++;
  }
  j->over = true;
  uv_close((uv_handle_t *)&j->timer, NULL);
  if (--running == 0 && uv_is_active((uv_handle_t *)&typed))
    uv_close((uv_handle_t *)&typed, NULL);
}

static void on_close_time(uv_timer_t *t) {
  job *j = t->data;

  if (!j->over)
    pp_stream_close(j->s, NULL);
}

/* --- type ----------------------------------------------------------------- */

static void on_typed_alloc(uv_handle_t *h, size_t n, uv_buf_t *b) {
  (void)h;
  (void)n;
  *b = uv_buf_init(typed_room, sizeof typed_room);
}

static void on_typed(uv_stream_t *h, ssize_t n, const uv_buf_t *b) {
  job *j = h->data;

  if (j->over)
    return;
  if (n > 0) {
    pp_stream_write(j->s, b->base, (size_t)n);
  } else if (n < 0) {
    pp_stream_end(j->s);
    uv_close((uv_handle_t *)h, NULL);
  }
}

/* --- beginning ------------------------------------------------------------ */

static void on_resolved(void *ud, pp_target *t, const char *reason) {
  static const pp_stream_events events = {on_opened, on_data, on_drained,
                                          on_errors, on_closed};
  job *j = ud;

  if (t == NULL) {
    fprintf(stderr, "cannot resolve %s: %s\n", j->host->name, reason);
    bad++;
    running--;
    j->over = true;
    uv_close((uv_handle_t *)&j->timer, NULL);
    return;
  }
  j->target = t;
  j->started = uv_hrtime();
  j->s = pp_stream_open(net, t, command, &events, j);
  if (j->s == NULL)
    abort();
  if (*mode == 'r') {
    if (argument != NULL)
      pp_stream_write(j->s, argument, strlen(argument));
    pp_stream_end(j->s);
  } else if (*mode == 't') {
    uv_pipe_init(&loop, &typed, 0);
    typed.data = j;
    uv_pipe_open(&typed, 0);
    uv_read_start((uv_stream_t *)&typed, on_typed_alloc, on_typed);
  }
  if (close_ms >= 0)
    uv_timer_start(
        &j->timer, on_close_time,
        (uint64_t)(random_close ? rand() % (close_ms + 1) : close_ms), 0);
}

static void usage(void) {
  fputs("usage: stream_driver [options] HOSTS MODE [ARGUMENT...]\n", stderr);
  exit(2);
}

static bool turn(void) {
  uv_run(&loop, UV_RUN_ONCE);
  return running > 0;
}

int main(int argc, char **argv) {
  pp_resolver_options ro = {0};
  pp_net_options no = {.log = on_log, .asking = on_asking};
  pp_host_error error;
  pp_hosts hosts = {0};
  pp_resolver *resolver;
  size_t i, each = 1, n, k;
  job *jobs;
  int c = pp_askpass_main(argc, argv);

  if (c >= 0)
    return c;
  while ((c = getopt(argc, argv, "+F:t:n:c:bqv")) != -1)
    switch (c) {
    case 'F':
      ro.config_file = optarg;
      break;
    case 't':
      ro.transport =
          strcmp(optarg, "ssh") == 0 ? PP_TRANSPORT_SSH : PP_TRANSPORT_LIBSSH2;
      break;
    case 'n':
      each = (size_t)atol(optarg);
      break;
    case 'b':
      no.never_ask = true;
      break;
    case 'c':
      random_close = *optarg == 'r';
      close_ms = atol(optarg + random_close);
      break;
    case 'q':
      quiet = true;
      break;
    case 'v':
      verbose = true;
      break;
    default:
      usage();
    }
  if (argc - optind < 3)
    usage();
  mode = argv[optind + 1];
  if (*mode == 'r' || *mode == 't') {
    command = argv[optind + 2];
    argument = argc - optind > 3 ? argv[optind + 3] : NULL;
  } else {
    size = (size_t)atoll(argv[optind + 2]);
    command = argc - optind > 3 ? argv[optind + 3] : "cat";
  }
  signal(SIGPIPE, SIG_IGN);
  setvbuf(stderr, NULL, _IOLBF, 0);
  srand((unsigned)getpid());
  for (i = 0; i < sizeof pattern; i++)
    pattern[i] = (unsigned char)(i * 2654435761u >> 13);
  if (pp_hosts_add(&hosts, argv[optind], strlen(argv[optind]), NULL, NULL,
                   &error) != 0) {
    fprintf(stderr, "%s\n", error.message);
    return 2;
  }
  uv_loop_init(&loop);
  net = pp_net_new(&loop, &no);
  resolver = pp_resolver_new(&loop, &ro);
  n = hosts.n * each;
  jobs = calloc(n, sizeof *jobs);
  if (net == NULL || resolver == NULL || jobs == NULL)
    return 1;
  for (k = 0; k < n; k++) {
    jobs[k].host = &hosts.v[k / each];
    uv_timer_init(&loop, &jobs[k].timer);
    jobs[k].timer.data = &jobs[k];
    running++;
    pp_config_resolve(resolver, jobs[k].host, on_resolved, &jobs[k]);
  }
  /* As who waits for something does: look after each turn. */
  while (running > 0 && turn())
    ;
  pp_resolver_free(resolver);
  pp_net_close(net, NULL, NULL);
  uv_run(&loop, UV_RUN_DEFAULT);
  c = uv_loop_close(&loop);
  if (c != 0) {
    fprintf(stderr, "handles are left in the loop\n");
    bad++;
  }
  for (k = 0; k < n; k++)
    pp_target_free(jobs[k].target);
  free(jobs);
  pp_hosts_clear(&hosts);
  return bad > 0 && !(quiet && close_ms >= 0) ? 1 : 0;
}
