/* SPDX-License-Identifier: MIT */
/*
 * floor: what this machine charges for the moves ppsh is made of.
 *
 * Each measurement is the bare operation in C, with no Lua and no scheduler:
 * nothing built from sockets, forks or shared memory can be much faster, so
 * the figures of ppsh are read as multiples of these.
 *
 *   floor NAME N [ARG...]    one measurement of N operations, once
 *   floor                    lists them
 *
 * prints one number: seconds, or what the list says. scripts/bench/run builds
 * it and calls it in turn with ppsh. Where it may use one CPU only (taskset), a
 * wake-up is a context switch and no interrupt.
 */
#define _GNU_SOURCE
#include "floor.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

void die(const char *what) {
  fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
  exit(1);
}

double now(void) {
  struct timespec t;

  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

void *alloc(size_t n) {
  void *p = malloc(n);

  if (p == NULL)
    die("malloc");
  memset(p, 'x', n);
  return p;
}

void write_all(int fd, const char *p, size_t n) {
  while (n > 0) {
    ssize_t k = write(fd, p, n);

    if (k > 0)
      p += k, n -= (size_t)k;
    else if (errno != EINTR)
      die("write");
  }
}

bool read_all(int fd, char *p, size_t n) {
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

void set_nonblocking(int fd) {
  int fl = fcntl(fd, F_GETFL);

  if (fl < 0 || fcntl(fd, F_SETFL, fl | O_NONBLOCK) < 0)
    die("fcntl");
}

void serve_whole(int fd, size_t size) {
  char *buf = alloc(size);

  while (read_all(fd, buf, size))
    write_all(fd, buf, size);
  free(buf);
}

child start(serve_fn *serve, size_t size) {
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

void stop(child *c) {
  int status;

  /* Later children inherited this end too: closing alone would not end the
   * stream. A pipe (run_spawn) says ENOTSOCK and needs no more. */
  shutdown(c->fd, SHUT_RDWR);
  close(c->fd);
  if (waitpid(c->pid, &status, 0) < 0)
    die("waitpid");
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    fprintf(stderr, "floor: a child failed\n");
    exit(1);
  }
}

static const struct measure {
  const char *name;
  measure_fn *run;
  const char *args, *text;
} measures[] = {
    {"pingpong", run_pingpong, "", "N messages there and back, one by one"},
    {"spin", run_spin, "", "the same by words in shared memory, never asleep"},
    {"inflight", run_inflight, "",
     "N messages, a call for each, many under way"},
    {"batch2", run_batch2, "", "N messages, many to a call, two children"},
    {"echo", run_echo, "BYTES", "N blocks of so many bytes there and back"},
    {"map", run_map, "", "squares of N integers by two children"},
    {"big", run_big, "BYTES TIMES",
     "N blocks there and back while another child echoes larger ones"},
    {"queue", run_queue, "", "bytes held by each of N messages that wait"},
    {"pipe", run_pipe, "BYTES COMMAND...",
     "N blocks through a command and back"},
    {"fork", run_fork, "", "N children, one by one, each answers a byte"},
    {"spawn", run_spawn, "[COMMAND...]",
     "N programs, one by one, until each has printed something"},
    {"up", run_up, "", "N children side by side, each answers a byte"},
    {"swarm", run_swarm, "K", "K children up, N messages to them, and down"},
    {"memory", run_memory, "[all]",
     "KB of a child that waits, or of parent and N children"},
    {"busy", run_busy, "K",
     "N messages to K children that work 10 ms for each"},
    {"idle", run_idle, "",
     "CPU ms a second of a parent and two children, for N ms"},
};

long number(const char *text, const char *what, long most) {
  char *end;
  long n;

  errno = 0;
  n = text == NULL ? 0 : strtol(text, &end, 10);
  if (text == NULL || *text == '\0' || *end != '\0' || errno != 0 || n < 1 ||
      n > most) {
    fprintf(stderr, "floor: %s must be a number from 1 to %ld, got '%s'\n",
            what, most, text == NULL ? "" : text);
    exit(2);
  }
  return n;
}

/* Each of a thousand children is a descriptor. */
static void raise_files(void) {
  struct rlimit files;

  if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
  }
}

int main(int argc, char **argv) {
  const size_t count = sizeof measures / sizeof *measures;

  if (argc == 2 && strcmp(argv[1], "--hello") == 0) {
    write_all(1, "x", 1);
    return 0;
  }
  if (argc == 1) {
    for (size_t i = 0; i < count; i++)
      printf("%-10s N %-14s %s\n", measures[i].name, measures[i].args,
             measures[i].text);
    return 0;
  }
  raise_files();
  for (size_t i = 0; i < count; i++)
    if (strcmp(argv[1], measures[i].name) == 0) {
      long n = number(argc > 2 ? argv[2] : NULL, "N", 1000000000);

      printf("%.9f\n", measures[i].run(n, argv + 3));
      return 0;
    }
  fprintf(stderr, "floor: no measurement is called '%s'\n", argv[1]);
  return 2;
}
