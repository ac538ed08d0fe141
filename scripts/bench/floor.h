/* SPDX-License-Identifier: MIT */
/*
 * What the measurements of the floor share: time, whole reads and writes, and
 * children at the other end of a socketpair. All of it ends the program with a
 * message when the system refuses something.
 */
#ifndef FLOOR_H
#define FLOOR_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

enum {
  MSG = 64, /* bytes of a small message: about a no-op job's frame */
  MEGA = 1024 * 1024,
};

/* Runs one measurement of n operations; extra arguments as on the command
 * line. Returns what is printed: seconds, unless the table says otherwise. */
typedef double measure_fn(long n, char **args);

/* floor_moves.c: bytes there and back. */
measure_fn run_pingpong, run_spin, run_batch2, run_inflight, run_echo, run_map,
    run_big, run_queue;
/* floor_procs.c: processes. */
measure_fn run_fork, run_spawn, run_up, run_swarm, run_memory, run_busy,
    run_idle;
/* floor_pipe.c: bytes through a command. */
measure_fn run_pipe;

/* End with "floor: WHAT: " and the message of errno. */
_Noreturn void die(const char *what);

/* Seconds of the monotonic clock. */
double now(void);

/* n bytes, touched, so that no page fault is measured later. */
void *alloc(size_t n);

void write_all(int fd, const char *p, size_t n);

/* True when n bytes came, false at the end of the stream before the first. */
bool read_all(int fd, char *p, size_t n);

void set_nonblocking(int fd);

/* A number from the command line, between 1 and most. */
long number(const char *text, const char *what, long most);

typedef struct child {
  pid_t pid;
  int fd; /* our end of the socketpair */
} child;

/* What a child does with its end: until the parent closes the other one. */
typedef void serve_fn(int fd, size_t size);

/* Fork a child that serves and then exits. It dies with the parent. */
child start(serve_fn *serve, size_t size);

/* Close our end and wait for the child. It must have ended well. */
void stop(child *c);

/* Reads `size` bytes, writes them back. */
serve_fn serve_whole;

#endif
