/* SPDX-License-Identifier: MIT */
/* What a command makes of bytes that go through it: `ssh host cat`. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "floor.h"

/* n bytes there and back, both ways at once. */
static void through(int fd, const char *out, char *in, size_t n) {
  size_t sent = 0, got = 0;

  while (got < n) {
    struct pollfd p = {fd, POLLIN | (sent < n ? POLLOUT : 0), 0};
    ssize_t k;

    if (poll(&p, 1, -1) < 0)
      die("poll");
    if (p.revents & POLLOUT) {
      k = write(fd, out + sent, n - sent);
      if (k < 0 && errno != EAGAIN)
        die("write");
      sent += k > 0 ? (size_t)k : 0;
    }
    if (p.revents & ~POLLOUT) {
      k = read(fd, in + got, n - got);
      if (k == 0 || (k < 0 && errno != EAGAIN))
        die("read");
      got += k > 0 ? (size_t)k : 0;
    }
  }
}

double run_pipe(long n, char **args) {
  size_t size = (size_t)number(args[0], "BYTES", 1L << 30);
  char *out = alloc(size), *in = alloc(size);
  int sv[2], status;
  double begin;
  pid_t pid;

  if (args[1] == NULL) {
    fprintf(stderr, "floor: a command is missing\n");
    exit(2);
  }
  if (socketpair(AF_UNIX, SOCK_STREAM, 0, sv) < 0)
    die("socketpair");
  pid = fork();
  if (pid < 0)
    die("fork");
  if (pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    dup2(sv[1], 0);
    dup2(sv[1], 1);
    close(sv[0]);
    execvp(args[1], args + 1);
    die(args[1]);
  }
  close(sv[1]);
  set_nonblocking(sv[0]);
  through(sv[0], out, in, 1); /* it is there */
  begin = now();
  for (long i = 0; i < n; i++)
    through(sv[0], out, in, size);
  begin = now() - begin;
  close(sv[0]);
  kill(pid, SIGTERM);
  waitpid(pid, &status, 0);
  free(out);
  free(in);
  return begin;
}
