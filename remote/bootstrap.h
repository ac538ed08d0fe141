/* SPDX-License-Identifier: MIT */
/*
 * bootstrap: getting the agent program to run on a host that has nothing but
 * sshd and a POSIX sh, over the one stream to a command there.
 *
 * The command is a shell script that any login shell passes on to /bin/sh. It
 * prints lines that begin with a word made up for this connection; what login
 * files print before is no harm, and is kept as a reason if it fails. It looks
 * for the program by its content hash: in $XDG_CACHE_HOME or ~/.cache, then in
 * /dev/shm, $TMPDIR and /tmp, each in a directory that is the user's alone. If
 * it is not there it asks for it; where it may be stored but not executed it
 * goes on to the next place, and at last to memory, by perl or python.
 *
 * Nothing is sent to the host but the program, and after that nothing until it
 * runs: so what reads the upload may read too far.
 *
 * This is fed by the events of a stream, and knows no stream:
 *
 *   open the stream with pp_bootstrap_command(b)
 *   data    -> pp_bootstrap_data until it says PP_BOOT_READY; the bytes behind
 *              that are the agent's
 *   errors  -> pp_bootstrap_errors
 *   closed  -> pp_bootstrap_closed says why
 *   too long without PP_BOOT_READY -> pp_bootstrap_stalled says why
 *
 * What the program must do (agent images and an installed ppsh alike):
 *   PROGRAM --agent check ID    status 0 if ID is the content hash of its own
 *                               file or its build id, else 1
 *   PROGRAM --agent run WORD    first of all write the line "WORD run ID" to
 *                               stdout, ID being its content hash (an
 *                               installed one: its build id), then speak its
 *                               own protocol; and set the time of its own file,
 *                               /proc/self/exe, to now: one that nobody has run
 *                               for PP_BOOT_STALE_DAYS is removed when another
 *                               is stored beside it
 */
#ifndef PP_BOOTSTRAP_H
#define PP_BOOTSTRAP_H

#include <stdbool.h>
#include <stddef.h>

#define PP_BOOT_STALE_DAYS 30

typedef struct pp_bootstrap pp_bootstrap;

/* A program to send. Everything is borrowed as long as there are bootstraps. */
typedef struct pp_agent_image {
  const char *machine; /* as uname -m has it: "x86_64" */
  const void *bytes;
  size_t size;
  const void *gz; /* the same through gzip; NULL: there is none */
  size_t gz_size;
  const char *hash; /* of the bytes, in hex */
} pp_agent_image;

typedef struct pp_bootstrap_options {
  const pp_agent_image *images;
  size_t n;
  /* Use a ppsh on the host's PATH if that is its build id; NULL: do not. */
  const char *installed;
  /*
   * Queue bytes on the stream: pp_stream_give, that is. They are of an image.
   * 0, or negative when there is no memory for that.
   */
  int (*send)(void *ud, const void *p, size_t n);
  /* A line for the log, at level debug. May be NULL. */
  void (*log)(void *ud, const char *text);
  void *ud;
} pp_bootstrap_options;

typedef enum pp_boot_state {
  PP_BOOT_WAITING,
  PP_BOOT_READY,
  PP_BOOT_FAILED, /* close the stream; pp_bootstrap_reason says why */
} pp_boot_state;

/* The options are copied. NULL when memory is short. */
pp_bootstrap *pp_bootstrap_new(const pp_bootstrap_options *o);
void pp_bootstrap_free(pp_bootstrap *b); /* NULL is fine */

/* Borrowed from it. */
const char *pp_bootstrap_command(const pp_bootstrap *b);

/* Feed it; *used says how many of the bytes were taken: all, unless it says
 * PP_BOOT_READY. Not to be fed after that. */
pp_boot_state pp_bootstrap_data(pp_bootstrap *b, const void *p, size_t n,
                                size_t *used);
void pp_bootstrap_errors(pp_bootstrap *b, const void *p, size_t n);

/* One line; "" unless it failed. */
const char *pp_bootstrap_reason(const pp_bootstrap *b);

/* The stream was closed before it was ready, saying `text`: why, in one line.
 */
const char *pp_bootstrap_closed(pp_bootstrap *b, const char *text);
/* It takes too long: what it waits for, in one line. */
const char *pp_bootstrap_stalled(pp_bootstrap *b);

/* Known once it is ready. "Linux x86_64"; whether the program had to be sent,
 * in which form ("gz", "raw", ""); the file it runs from ("" for memory). */
const char *pp_bootstrap_system(const pp_bootstrap *b);
const char *pp_bootstrap_sent(const pp_bootstrap *b);
const char *pp_bootstrap_place(const pp_bootstrap *b);

#endif
