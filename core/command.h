/* SPDX-License-Identifier: MIT */
/*
 * command: run a program to its end, in a process group of its own.
 *
 * What it writes is read as it comes, from both pipes, so that it never waits
 * for a reader; up to a limit it is kept in memory, and beyond that in a file,
 * or the program is killed. What the program has started and left in its group
 * is killed when it has ended. No Lua.
 */
#ifndef PP_COMMAND_H
#define PP_COMMAND_H

#include <stdbool.h>

#include "buf.h"

/* What becomes of what it writes. */
enum pp_command_to {
  PP_COMMAND_KEEP, /* it is kept: see below */
  PP_COMMAND_PASS  /* it goes where this process's own goes */
};

/* Where more of its input comes from. Each is called by the thread that runs
 * the program, and does not raise. */
typedef struct pp_command_feed {
  /* Have more sent, behind the `had` bytes it has had. */
  void (*ask)(void *ud, uint64_t had);
  /* Take what has come into `into` (emptied before): 1, 0 when nothing has,
   * PP_ECLOSED when there is no more. */
  int (*take)(void *ud, pp_buf *into);
  /* Sleep until something has come, a signal was handled or the deadline (ns,
   * -1 never) is there. */
  void (*sleep)(void *ud, int64_t deadline);
  /* What handles SIGCHLD meanwhile. */
  void (*child)(int sig);
  void *ud;
} pp_command_feed;

/* Zeroed but for argv: the program argv[0] with an empty input, what it writes
 * is not kept (limit 0). Everything is borrowed. */
typedef struct pp_command {
  char *const *argv; /* argv[0] is looked for along PATH */
  char *const *env;  /* NULL: this process's */
  const char *cwd;   /* where it runs; NULL: here */
  const char *in;    /* its input; NULL: that of this process */
  size_t in_len;
  const pp_command_feed *feed; /* in place of that; NULL: none */
  enum pp_command_to to;
  size_t limit;      /* bytes of each stream that are kept in memory */
  const char *spill; /* directory for files with what goes beyond that; NULL:
                        the program is killed then */
  int64_t timeout;   /* ns it may run; 0: any */
  /* Is it to end? Asked after each signal. NULL: never. */
  bool (*stopping)(void *ud);
  void *ud;
} pp_command;

/* How it ended. Zeroed is empty. */
typedef struct pp_command_end {
  int status; /* of wait(2) */
  bool timed_out, stopped;
  int over;      /* killed for too much: 1 stdout, 2 stderr */
  int64_t ran;   /* ns */
  pp_buf out[2]; /* what it wrote to stdout and stderr; */
  char *file[2]; /* or the file that has all of it, which is the caller's to
                    remove; owned name */
  uint64_t written[2]; /* bytes of these */
  const char *what;    /* of PP_ESYS: what failed; a constant */
} pp_command_end;

/* 0, PP_ENOMEM, or PP_ESYS with errno. Clear *end in any case. */
int pp_command_run(const pp_command *c, pp_command_end *end);
void pp_command_clear(pp_command_end *end);

#endif
