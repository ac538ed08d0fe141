/* SPDX-License-Identifier: MIT */
/*
 * floor: what this machine charges for the moves ppsh is made of.
 *
 * Each measurement is the bare operation in C, with no Lua and no scheduler:
 * nothing built from sockets, forks or shared memory can be faster, so the
 * figures of ppsh are read as multiples of these.
 *
 *   floor [--quick] [--json] [--cpu N] [NAME...]
 *
 * prints one line for each measurement whose name contains one of the NAMEs
 * (all without any): name, operations, seconds, rate and its unit. A
 * measurement runs in several rounds and the best is printed, which is the one
 * the rest of the machine disturbed least. --cpu pins parent and children to
 * one CPU: a wake-up is then a context switch and no interrupt.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
  MSG = 64,           /* bytes of a small message: about a no-op job's frame */
  BATCH = 64 * 1024,  /* bytes moved by one call when messages are batched */
  AHEAD = 256 * 1024, /* bytes under way to one child when batched */
  INFLIGHT = 256,     /* messages under way when each has its own call */
  MEGA = 1024 * 1024,
};

typedef struct child {
  pid_t pid;
  int fd; /* our end of the socketpair */
} child;

static bool pinned;

static void die(const char *what) {
  fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
  exit(1);
}

static double now(void) {
  struct timespec t;

  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void *alloc(size_t n) {
  void *p = malloc(n);

  if (p == NULL)
    die("malloc");
  memset(p, 'x', n); /* touched now, so that no page fault is measured */
  return p;
}

static void write_all(int fd, const char *p, size_t n) {
  while (n > 0) {
    ssize_t k = write(fd, p, n);

    if (k > 0)
      p += k, n -= (size_t)k;
    else if (errno != EINTR)
      die("write");
  }
}

/* True when n bytes came, false at the end of the stream before the first. */
static bool read_all(int fd, char *p, size_t n) {
  size_t got = 0;

  while (got < n) {
    ssize_t k = read(fd, p + got, n - got);

    if (k > 0)
      got += (size_t)k;
    else if (k == 0 && got == 0)
      return false;
    else if (k == 0 || errno != EINTR)
      die("read");
  }
  return true;
}

/* ---- children: each is the other end of one measurement ---------------- */

typedef void serve_fn(int fd, size_t size);

/* Reads `size` bytes, writes them back, until the parent closes. */
static void serve_whole(int fd, size_t size) {
  char *buf = alloc(size);

  while (read_all(fd, buf, size))
    write_all(fd, buf, size);
  free(buf);
}

/* Reads what there is, answers each message of it, writes all answers at once.
 * What is left of a torn message stays for the next turn. */
static void serve_batched(int fd, size_t size) {
  char *in = alloc(BATCH), *out = alloc(BATCH);
  size_t have = 0;

  for (;;) {
    ssize_t k = read(fd, in + have, BATCH - have);
    size_t done = 0;

    if (k == 0)
      break;
    if (k < 0 && errno == EINTR)
      continue;
    if (k < 0)
      die("read");
    for (have += (size_t)k; have - done >= size; done += size)
      memcpy(out + done, in + done, size);
    write_all(fd, out, done);
    memmove(in, in + done, have - done);
    have -= done;
  }
  free(in);
  free(out);
}

static child start(serve_fn *serve, size_t size) {
  int sv[2];
  child c;

  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) < 0)
    die("socketpair");
  c.pid = fork();
  if (c.pid < 0)
    die("fork");
  if (c.pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    close(sv[0]);
    serve(sv[1], size);
    _exit(0);
  }
  close(sv[1]);
  c.fd = sv[0];
  return c;
}

static void stop(child *c) {
  int status;

  /* Later children inherited this end too: closing alone would not end the
   * stream. A pipe (run_exec) says ENOTSOCK and needs no more. */
  shutdown(c->fd, SHUT_RDWR);
  close(c->fd);
  if (waitpid(c->pid, &status, 0) < 0)
    die("waitpid");
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    fprintf(stderr, "floor: a child failed\n");
    exit(1);
  }
}

/* ---- measurements: each does n operations and returns the seconds ------- */

static double run_pingpong(long n, size_t size) {
  child c = start(serve_whole, size);
  char *buf = alloc(size);
  double t;

  write_all(c.fd, buf, size); /* the child is up when this has come back */
  read_all(c.fd, buf, size);
  t = now();
  for (long i = 0; i < n; i++) {
    write_all(c.fd, buf, size);
    if (!read_all(c.fd, buf, size))
      die("read");
  }
  t = now() - t;
  stop(&c);
  free(buf);
  return t;
}

/* Move bytes to and from k children until each has answered `total` bytes.
 * One call moves at most `step`; at most `ahead` are under way to a child. */
static void pump(child *c, int k, long total, size_t step, long ahead) {
  char *buf = alloc(step);
  long sent[2] = {0}, got[2] = {0};
  int open = k;

  while (open > 0) {
    struct pollfd p[2];

    for (int i = 0; i < k; i++) {
      bool more = sent[i] < total && sent[i] - got[i] < ahead;

      p[i].fd = got[i] < total ? c[i].fd : -1;
      p[i].events = (short)(POLLIN | (more ? POLLOUT : 0));
    }
    if (poll(p, (nfds_t)k, -1) < 0 && errno != EINTR)
      die("poll");
    for (int i = 0; i < k; i++) {
      if (p[i].fd < 0)
        continue;
      while (sent[i] < total && sent[i] - got[i] < ahead) {
        long want = total - sent[i];
        ssize_t w;

        if (want > (long)step)
          want = (long)step;
        w = write(c[i].fd, buf, (size_t)want);
        if (w < 0 && errno == EAGAIN)
          break;
        if (w < 0)
          die("write");
        sent[i] += w;
      }
      while (got[i] < total) {
        ssize_t r = read(c[i].fd, buf, step);

        if (r < 0 && errno == EAGAIN)
          break;
        if (r <= 0)
          die("read");
        got[i] += r;
      }
      if (got[i] == total)
        open--;
    }
  }
  free(buf);
}

static void set_nonblocking(int fd) {
  int fl = fcntl(fd, F_GETFL);

  if (fl < 0 || fcntl(fd, F_SETFL, fl | O_NONBLOCK) < 0)
    die("fcntl");
}

static double run_pump(long n, serve_fn *serve, int k, size_t step,
                       long ahead) {
  child c[2];
  double t;

  for (int i = 0; i < k; i++) {
    c[i] = start(serve, MSG);
    set_nonblocking(c[i].fd);
  }
  pump(c, k, MSG, MSG, MSG); /* every child is up */
  t = now();
  pump(c, k, n / k * MSG, step, ahead);
  t = now() - t;
  for (int i = 0; i < k; i++)
    stop(&c[i]);
  return t;
}

static double run_batch2(long n, size_t size) {
  (void)size;
  return run_pump(n, serve_batched, 2, BATCH, AHEAD);
}

static double run_inflight(long n, size_t size) {
  (void)size;
  return run_pump(n, serve_whole, 1, MSG, (long)INFLIGHT * MSG);
}

static double run_fork(long n, size_t size) {
  double t = now();

  (void)size;
  for (long i = 0; i < n; i++) {
    child c = start(serve_whole, 1);
    char byte = 'x';

    write_all(c.fd, &byte, 1);
    if (!read_all(c.fd, &byte, 1))
      die("read");
    stop(&c);
  }
  return now() - t;
}

/* A fresh program, not only a fresh process: this one, which says a byte. */
static double run_exec(long n, size_t size) {
  double t = now();

  (void)size;
  for (long i = 0; i < n; i++) {
    int p[2];
    child c;
    char byte;

    if (pipe(p) < 0)
      die("pipe");
    c.pid = fork();
    if (c.pid < 0)
      die("fork");
    if (c.pid == 0) {
      dup2(p[1], 1);
      close(p[0]);
      close(p[1]);
      execl("/proc/self/exe", "floor", "--hello", (char *)NULL);
      _exit(127);
    }
    close(p[1]);
    c.fd = p[0];
    if (!read_all(c.fd, &byte, 1))
      die("exec");
    stop(&c);
  }
  return now() - t;
}

/* Two counters in shared memory, on cache lines of their own. When both sides
 * share a CPU spinning would burn whole time slices, so they yield instead. */
static double run_spin(long n, size_t size) {
  struct {
    _Alignas(64) atomic_long there;
    _Alignas(64) atomic_long back;
  } * s;
  bool yield = pinned || sysconf(_SC_NPROCESSORS_ONLN) < 2;
  pid_t pid;
  double t = 0;

  (void)size;
  s = mmap(NULL, sizeof *s, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
           -1, 0);
  if (s == MAP_FAILED)
    die("mmap");
  pid = fork();
  if (pid < 0)
    die("fork");
  if (pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (long i = 1; i <= n + 1; i++) {
      while (atomic_load_explicit(&s->there, memory_order_acquire) != i)
        if (yield)
          sched_yield();
      atomic_store_explicit(&s->back, i, memory_order_release);
    }
    _exit(0);
  }
  for (long i = 1; i <= n + 1; i++) {
    atomic_store_explicit(&s->there, i, memory_order_release);
    while (atomic_load_explicit(&s->back, memory_order_acquire) != i)
      if (yield)
        sched_yield();
    if (i == 1)
      t = now(); /* the child is up */
  }
  t = now() - t;
  if (waitpid(pid, NULL, 0) < 0)
    die("waitpid");
  munmap(s, sizeof *s);
  return t;
}

static const struct measure {
  const char *name;
  double (*run)(long n, size_t size);
  long n, quick_n;
  size_t size;
  double scale; /* rate = per_second ? n * scale / s : s * scale / n */
  bool per_second;
  const char *unit;
} measures[] = {
    {"pingpong", run_pingpong, 50000, 5000, MSG, 1e6, false, "us/trip"},
    {"spin", run_spin, 500000, 50000, 0, 1e6, false, "us/trip"},
    {"batch2", run_batch2, 8000000, 800000, 0, 1, true, "msg/s"},
    {"inflight", run_inflight, 400000, 40000, 0, 1, true, "msg/s"},
    {"echo1m", run_pingpong, 500, 50, MEGA, 2 * MEGA / 1e9, true, "GB/s"},
    {"echo64m", run_pingpong, 10, 2, 64 * (size_t)MEGA, 128 * MEGA / 1e9, true,
     "GB/s"},
    {"fork", run_fork, 1000, 100, 0, 1e6, false, "us"},
    {"exec", run_exec, 300, 30, 0, 1e6, false, "us"},
};

static void report(const struct measure *m, bool quick, bool json) {
  long n = quick ? m->quick_n : m->n;
  double best = 0, rate;

  for (int round = quick ? 2 : 5; round > 0; round--) {
    double t = m->run(n, m->size);

    if (best == 0 || t < best)
      best = t;
  }
  rate =
      m->per_second ? (double)n * m->scale / best : best * m->scale / (double)n;
  if (json)
    printf("{\"name\":\"%s\",\"n\":%ld,\"seconds\":%.6f,\"rate\":%.6g,"
           "\"unit\":\"%s\"}\n",
           m->name, n, best, rate, m->unit);
  else
    printf("%-10s %9ld %10.4f %12.6g %s\n", m->name, n, best, rate, m->unit);
  fflush(stdout);
}

static void pin(const char *text) {
  cpu_set_t set;
  char *end;
  long cpu = strtol(text, &end, 10);

  if (*text == '\0' || *end != '\0' || cpu < 0 || cpu >= CPU_SETSIZE) {
    fprintf(stderr, "floor: bad CPU number '%s'\n", text);
    exit(2);
  }
  CPU_ZERO(&set);
  CPU_SET((size_t)cpu, &set);
  if (sched_setaffinity(0, sizeof set, &set) < 0)
    die("sched_setaffinity");
  pinned = true;
}

int main(int argc, char **argv) {
  bool quick = false, json = false;
  int names = 1; /* argv[1..names-1] are kept as the filter */

  for (int i = 1; i < argc; i++) {
    if (strcmp(argv[i], "--hello") == 0) {
      write_all(1, "x", 1);
      return 0;
    }
    if (strcmp(argv[i], "--quick") == 0) {
      quick = true;
    } else if (strcmp(argv[i], "--json") == 0) {
      json = true;
    } else if (strcmp(argv[i], "--cpu") == 0 && i + 1 < argc) {
      pin(argv[++i]);
    } else if (argv[i][0] == '-') {
      fprintf(stderr, "usage: floor [--quick] [--json] [--cpu N] [NAME...]\n");
      return 2;
    } else {
      argv[names++] = argv[i];
    }
  }
  for (size_t i = 0; i < sizeof measures / sizeof *measures; i++) {
    bool wanted = names == 1;

    for (int k = 1; k < names && !wanted; k++)
      wanted = strstr(measures[i].name, argv[k]) != NULL;
    if (wanted)
      report(&measures[i], quick, json);
  }
  return 0;
}
