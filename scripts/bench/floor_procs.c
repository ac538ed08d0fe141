/* SPDX-License-Identifier: MIT */
/* Processes that start, wait and work: see floor.c. */
#define _GNU_SOURCE
#include "floor.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

double run_fork(long n, char **args) {
  double t = now();

  (void)args;
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

/* A fresh program, not only a fresh process: a command, or this one, which
 * says a byte. From fork to the first byte; its end is waited for apart. */
double run_spawn(long n, char **args) {
  double t = 0;

  for (long i = 0; i < n; i++) {
    int p[2];
    child c;
    char byte;
    double from = now();

    if (pipe(p) < 0)
      die("pipe");
    c.pid = fork();
    if (c.pid < 0)
      die("fork");
    if (c.pid == 0) {
      dup2(p[1], 1);
      close(p[0]);
      close(p[1]);
      if (args[0] == NULL)
        execl("/proc/self/exe", "floor", "--hello", (char *)NULL);
      else
        execvp(args[0], args);
      _exit(127);
    }
    close(p[1]);
    c.fd = p[0];
    if (!read_all(c.fd, &byte, 1)) {
      fprintf(stderr, "floor: a program printed nothing\n");
      exit(1);
    }
    t += now() - from;
    while (read(c.fd, &byte, 1) > 0)
      continue;
    stop(&c);
  }
  return t;
}

static child *start_many(long n, serve_fn *serve, size_t size) {
  child *c = alloc((size_t)n * sizeof *c);

  for (long i = 0; i < n; i++) {
    c[i] = start(serve, size);
    write_all(c[i].fd, "x", 1);
  }
  for (long i = 0; i < n; i++) {
    char byte;

    if (!read_all(c[i].fd, &byte, 1))
      die("read");
  }
  return c;
}

static void stop_many(child *c, long n) {
  for (long i = 0; i < n; i++)
    stop(&c[i]);
  free(c);
}

double run_up(long n, char **args) {
  double t = now();
  child *c = start_many(n, serve_whole, 1);

  (void)args;
  t = now() - t;
  stop_many(c, n);
  return t;
}

/* Answers the byte that says it is up, then messages. */
static void serve_swarm(int fd, size_t size) {
  char byte;

  if (!read_all(fd, &byte, 1))
    return;
  write_all(fd, &byte, 1);
  serve_whole(fd, size);
}

/* Every child has one message under way until all have been answered. */
double run_swarm(long n, char **args) {
  long k = number(args[0], "K", 100000), sent = 0, got = 0;
  char buf[MSG] = "x";
  int ep = epoll_create1(EPOLL_CLOEXEC);
  double t = now();
  child *c = start_many(k, serve_swarm, MSG);

  if (ep < 0)
    die("epoll_create1");
  for (long i = 0; i < k; i++) {
    struct epoll_event ev = {.events = EPOLLIN, .data.fd = c[i].fd};

    if (epoll_ctl(ep, EPOLL_CTL_ADD, c[i].fd, &ev) < 0)
      die("epoll_ctl");
    if (sent < n) {
      write_all(c[i].fd, buf, MSG);
      sent++;
    }
  }
  while (got < n) {
    struct epoll_event ready[64];
    int m = epoll_wait(ep, ready, 64, -1);

    if (m < 0 && errno != EINTR)
      die("epoll_wait");
    for (int i = 0; i < m; i++) {
      read_all(ready[i].data.fd, buf, MSG);
      got++;
      if (sent < n) {
        write_all(ready[i].data.fd, buf, MSG);
        sent++;
      }
    }
  }
  close(ep);
  stop_many(c, k);
  return now() - t;
}

/* KB of a process as its share of the pages it has. */
static double pss(pid_t pid) {
  char path[64], line[256];
  double kb = -1;
  FILE *f;

  snprintf(path, sizeof path, "/proc/%d/smaps_rollup", (int)pid);
  f = fopen(path, "r");
  if (f == NULL)
    die(path);
  while (fgets(line, sizeof line, f) != NULL)
    if (sscanf(line, "Pss: %lf", &kb) == 1)
      break;
  fclose(f);
  return kb;
}

double run_memory(long n, char **args) {
  child *c = start_many(n, serve_whole, 1);
  double kb = pss(c[0].pid);

  if (args[0] != NULL) {
    kb = pss(getpid());
    for (long i = 0; i < n; i++)
      kb += pss(c[i].pid);
  }
  stop_many(c, n);
  return kb;
}

/* Works 10 ms by the clock for each byte. */
static void serve_work(int fd, size_t size) {
  char byte;

  (void)size;
  while (read_all(fd, &byte, 1)) {
    double until = now() + 0.01;

    while (now() < until)
      continue;
    write_all(fd, &byte, 1);
  }
}

/* Every child has two bytes under way, so that it never waits for us. */
double run_busy(long n, char **args) {
  long k = number(args[0], "K", 1024), each = (n + k - 1) / k;
  child *c = alloc((size_t)k * sizeof *c);
  double t;

  for (long i = 0; i < k; i++)
    c[i] = start(serve_work, 1);
  t = now();
  for (long i = 0; i < k; i++)
    write_all(c[i].fd, "xx", each > 1 ? 2 : 1);
  /* All work for the same time, so they answer in turn. */
  for (long got = 1; got <= each; got++)
    for (long i = 0; i < k; i++) {
      char byte;

      read_all(c[i].fd, &byte, 1);
      if (got + 1 < each)
        write_all(c[i].fd, &byte, 1);
    }
  t = now() - t;
  stop_many(c, k);
  return t;
}

static double cpu_of(pid_t pid) {
  char path[64];
  double ns = 0;
  FILE *f;

  snprintf(path, sizeof path, "/proc/%d/schedstat", (int)pid);
  f = fopen(path, "r");
  if (f == NULL)
    die(path);
  if (fscanf(f, "%lf", &ns) != 1)
    die(path);
  fclose(f);
  return ns;
}

double run_idle(long n, char **args) {
  child *c = start_many(2, serve_whole, 1);
  struct timespec rest = {.tv_sec = n / 1000, .tv_nsec = n % 1000 * 1000000};
  double ns = -cpu_of(c[0].pid) - cpu_of(c[1].pid) - cpu_of(getpid());

  (void)args;
  nanosleep(&rest, NULL);
  /* This process last and first: looking is not waiting. */
  ns += cpu_of(getpid()) + cpu_of(c[0].pid) + cpu_of(c[1].pid);
  stop_many(c, 2);
  return ns / 1e3 / (double)n;
}
