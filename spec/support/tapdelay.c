/* SPDX-License-Identifier: MIT */
/*
 * tapdelay TAP1 TAP2 MICROSECONDS: makes two TAP devices and carries frames
 * between them, each that much later. Latency for hosts in namespaces, where
 * the kernel has no netem. Says "ready" when both devices are there.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

enum { FRAMES = 8192, FRAME = 2048 };

typedef struct frame {
  int64_t due;
  ssize_t n;
  unsigned char bytes[FRAME];
} frame;

/* Frames that came in at one end, oldest first. */
typedef struct line {
  frame *v;
  unsigned first, last;
} line;

static int64_t now_ns(void) {
  struct timespec t;

  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static int open_tap(const char *name) {
  int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
  struct ifreq r;

  memset(&r, 0, sizeof r);
  r.ifr_flags = IFF_TAP | IFF_NO_PI;
  snprintf(r.ifr_name, sizeof r.ifr_name, "%s", name);
  if (fd < 0 || ioctl(fd, TUNSETIFF, &r) < 0) {
    perror(name);
    exit(1);
  }
  return fd;
}

static void take(int fd, line *l, int64_t delay) {
  for (;;) {
    frame *f = &l->v[l->last % FRAMES];
    ssize_t n = read(fd, f->bytes, sizeof f->bytes);

    if (n <= 0)
      return;
    if (l->last - l->first < FRAMES - 1) { /* else it is lost, as on a wire */
      f->n = n;
      f->due = now_ns() + delay;
      l->last++;
    }
  }
}

/* Nanoseconds until the next is due, or -1. */
static int64_t deliver(int fd, line *l) {
  while (l->first != l->last) {
    frame *f = &l->v[l->first % FRAMES];
    int64_t wait = f->due - now_ns();

    if (wait > 0)
      return wait;
    if (write(fd, f->bytes, (size_t)f->n) < 0 && errno == EAGAIN)
      return 100000;
    l->first++;
  }
  return -1;
}

int main(int argc, char **argv) {
  line lines[2] = {{NULL, 0, 0}, {NULL, 0, 0}};
  struct pollfd p[2];
  int64_t delay, a, b;
  int i;

  if (argc != 4) {
    fprintf(stderr, "usage: tapdelay TAP1 TAP2 MICROSECONDS\n");
    return 2;
  }
  delay = atoll(argv[3]) * 1000;
  for (i = 0; i < 2; i++) {
    p[i].fd = open_tap(argv[1 + i]);
    p[i].events = POLLIN;
    if ((lines[i].v = malloc(sizeof(frame) * FRAMES)) == NULL)
      return 1;
  }
  puts("ready");
  fflush(stdout);
  for (;;) {
    struct timespec t;

    a = deliver(p[1].fd, &lines[0]);
    b = deliver(p[0].fd, &lines[1]);
    a = a < 0 || (b >= 0 && b < a) ? b : a;
    t.tv_sec = a / 1000000000;
    t.tv_nsec = a % 1000000000;
    if (ppoll(p, 2, a < 0 ? NULL : &t, NULL) < 0 && errno != EINTR)
      return 1;
    for (i = 0; i < 2; i++) {
      if (p[i].revents & (POLLERR | POLLHUP | POLLNVAL))
        return 0; /* somebody has taken the interface away */
      take(p[i].fd, &lines[i], delay);
    }
  }
}
