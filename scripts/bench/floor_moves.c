/* SPDX-License-Identifier: MIT */
/* Bytes there and back between processes: see floor.c. */
#define _GNU_SOURCE
#include "floor.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
  BATCH = 64 * 1024,  /* bytes moved by one call when messages are batched */
  AHEAD = 256 * 1024, /* bytes under way to one child when batched */
  INFLIGHT = 256,     /* messages under way when each has its own call */
};

/* ---- one at a time ------------------------------------------------------ */

static double there_and_back(long n, size_t size) {
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

double run_pingpong(long n, char **args) {
  (void)args;
  return there_and_back(n, MSG);
}

double run_echo(long n, char **args) {
  return there_and_back(n, (size_t)number(args[0], "BYTES", 1 << 30));
}

static bool one_cpu(void) {
  cpu_set_t set;

  return sched_getaffinity(0, sizeof set, &set) < 0 || CPU_COUNT(&set) < 2;
}

static void *share(size_t n) {
  void *p = mmap(NULL, n, PROT_READ | PROT_WRITE,
                 MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

  if (p == MAP_FAILED)
    die("mmap");
  return p;
}

/* Wait for a word to become `is`. When both sides share a CPU, spinning would
 * burn whole time slices: so it yields then, and after a while anyway. */
static void spin_for(atomic_long *word, long is, long spins) {
  for (long i = 0; atomic_load_explicit(word, memory_order_acquire) != is; i++)
    if (i >= spins)
      sched_yield();
}

/* Two counters in shared memory, on cache lines of their own. */
double run_spin(long n, char **args) {
  struct {
    _Alignas(64) atomic_long there;
    _Alignas(64) atomic_long back;
  } *s = share(sizeof *s);
  long spins = one_cpu() ? 0 : 10000;
  pid_t pid;
  double t = 0;

  (void)args;
  pid = fork();
  if (pid < 0)
    die("fork");
  if (pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (long i = 1; i <= n + 1; i++) {
      spin_for(&s->there, i, spins);
      atomic_store_explicit(&s->back, i, memory_order_release);
    }
    _exit(0);
  }
  for (long i = 1; i <= n + 1; i++) {
    atomic_store_explicit(&s->there, i, memory_order_release);
    spin_for(&s->back, i, spins);
    if (i == 1)
      t = now(); /* the child is up */
  }
  t = now() - t;
  if (waitpid(pid, NULL, 0) < 0)
    die("waitpid");
  munmap(s, sizeof *s);
  return t;
}

/* ---- many under way ------------------------------------------------------ */

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

static double pumping(long n, serve_fn *serve, int k, size_t step, long ahead) {
  child c[2];
  double t;

  for (int i = 0; i < k; i++) {
    c[i] = start(serve, MSG);
    set_nonblocking(c[i].fd);
  }
  pump(c, k, MSG, MSG, MSG); /* every child is up */
  t = now();
  pump(c, k, (n + k - 1) / k * MSG, step, ahead);
  t = now() - t;
  for (int i = 0; i < k; i++)
    stop(&c[i]);
  return t;
}

double run_batch2(long n, char **args) {
  (void)args;
  return pumping(n, serve_batched, 2, BATCH, AHEAD);
}

double run_inflight(long n, char **args) {
  (void)args;
  return pumping(n, serve_whole, 1, MSG, (long)INFLIGHT * MSG);
}

/* ---- work on a list ------------------------------------------------------ */

/* Integers in, their squares out, by the batch. */
static void serve_squares(int fd, size_t size) {
  int64_t *v = alloc(BATCH);
  size_t have = 0;

  (void)size;
  for (;;) {
    ssize_t k = read(fd, (char *)v + have, BATCH - have);
    size_t whole;

    if (k == 0)
      break;
    if (k < 0 && errno == EINTR)
      continue;
    if (k < 0)
      die("read");
    have += (size_t)k;
    whole = have / sizeof *v;
    for (size_t i = 0; i < whole; i++)
      v[i] *= v[i];
    write_all(fd, (char *)v, whole * sizeof *v);
    memmove(v, v + whole, have - whole * sizeof *v);
    have -= whole * sizeof *v;
  }
  free(v);
}

/* The list goes out in halves and comes back in place. */
double run_map(long n, char **args) {
  int64_t *list = alloc((size_t)n * sizeof *list);
  size_t half = (size_t)n / 2 * sizeof *list;
  size_t end[2] = {half, (size_t)n * sizeof *list};
  size_t out[2] = {0, half}, in[2] = {0, half};
  child c[2];
  double t;

  (void)args;
  for (long i = 0; i < n; i++)
    list[i] = (i * 48271) % 65521 + 1;
  for (int i = 0; i < 2; i++) {
    char byte[8] = {0};

    c[i] = start(serve_squares, 0);
    write_all(c[i].fd, byte, sizeof byte); /* it is up */
    read_all(c[i].fd, byte, sizeof byte);
    set_nonblocking(c[i].fd);
  }
  t = now();
  while (in[0] < end[0] || in[1] < end[1]) {
    struct pollfd p[2];

    for (int i = 0; i < 2; i++) {
      p[i].fd = in[i] < end[i] ? c[i].fd : -1;
      p[i].events = (short)(POLLIN | (out[i] < end[i] ? POLLOUT : 0));
    }
    if (poll(p, 2, -1) < 0 && errno != EINTR)
      die("poll");
    for (int i = 0; i < 2; i++) {
      ssize_t k;

      if (p[i].revents & POLLOUT) {
        k = write(c[i].fd, (char *)list + out[i], end[i] - out[i]);
        if (k > 0)
          out[i] += (size_t)k;
        else if (errno != EAGAIN)
          die("write");
      }
      if (p[i].revents & POLLIN) {
        k = read(c[i].fd, (char *)list + in[i], out[i] - in[i]);
        if (k > 0)
          in[i] += (size_t)k;
        else if (k == 0 || errno != EAGAIN)
          die("read");
      }
    }
  }
  t = now() - t;
  for (int i = 0; i < 2; i++)
    stop(&c[i]);
  for (long i = 0; i < n; i++) {
    int64_t x = (i * 48271) % 65521 + 1;

    if (list[i] != x * x) {
      fprintf(stderr, "floor: a square is wrong\n");
      exit(1);
    }
  }
  free(list);
  return t;
}

/* ---- small beside large -------------------------------------------------- */

/* Bytes of one block that is going there and back. */
typedef struct block {
  int fd;
  size_t size, sent, got;
} block;

static void step_out(block *b, const char *buf) {
  while (b->sent < b->size) {
    size_t want = b->size - b->sent;
    ssize_t k = write(b->fd, buf, want < BATCH ? want : BATCH);

    if (k < 0 && errno == EAGAIN)
      return;
    if (k < 0)
      die("write");
    b->sent += (size_t)k;
  }
}

static void step_in(block *b, char *buf) {
  while (b->got < b->size) {
    size_t want = b->size - b->got;
    ssize_t k = read(b->fd, buf, want < BATCH ? want : BATCH);

    if (k < 0 && errno == EAGAIN)
      return;
    if (k <= 0)
      die("read");
    b->got += (size_t)k;
  }
}

/* Trips of a small block while another child echoes a block so many times
 * larger, again and again. Nobody here waits for anyone but in poll. */
double run_big(long n, char **args) {
  size_t size = (size_t)number(args[0], "BYTES", 1 << 24);
  size_t large = size * (size_t)number(args[1], "TIMES", 1000);
  child c[2] = {start(serve_whole, size), start(serve_whole, large)};
  block b[2] = {{c[0].fd, size, 0, 0}, {c[1].fd, large, 0, 0}};
  char *buf = alloc(BATCH);
  double t = now();

  set_nonblocking(c[0].fd);
  set_nonblocking(c[1].fd);
  for (long done = 0; done < n;) {
    struct pollfd p[2];

    for (int i = 0; i < 2; i++) {
      p[i].fd = b[i].fd;
      p[i].events = (short)(POLLIN | (b[i].sent < b[i].size ? POLLOUT : 0));
    }
    if (poll(p, 2, -1) < 0 && errno != EINTR)
      die("poll");
    for (int i = 0; i < 2; i++) {
      step_out(&b[i], buf);
      step_in(&b[i], buf);
      if (b[i].got == b[i].size) {
        b[i].sent = b[i].got = 0;
        done += i == 0;
        step_out(&b[i], buf);
      }
    }
  }
  t = now() - t;
  for (int i = 0; i < 2; i++) {
    /* It may be in the middle of a block. */
    kill(c[i].pid, SIGKILL);
    close(c[i].fd);
    if (waitpid(c[i].pid, NULL, 0) < 0)
      die("waitpid");
  }
  free(buf);
  return t;
}

/* ---- waiting ------------------------------------------------------------- */

/* Bytes of memory for each message of a list: the message and a pointer. */
double run_queue(long n, char **args) {
  struct item {
    struct item *next;
    char message[MSG];
  } *first = NULL;
  char *low = sbrk(0), *high;

  (void)args;
  for (long i = 0; i < n; i++) {
    struct item *it = malloc(sizeof *it);

    if (it == NULL)
      die("malloc");
    memset(it->message, (int)i, MSG);
    it->next = first;
    first = it;
  }
  high = sbrk(0);
  return (double)(high - low) / (double)n;
}
