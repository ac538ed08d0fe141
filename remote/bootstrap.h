/* SPDX-License-Identifier: MIT */
/*
 * bootstrap: from a shell on another machine to our agent, over one stream.
 *
 * The command that is executed there is a script for sh that any login shell
 * can hand on. Its lines to us begin with a mark that nobody else prints:
 *
 *   MARK have            the agent's own bytes follow
 *   MARK need HASH gzip DIR   send it that agent, packed; or plain, as is
 *   MARK fail TEXT       why it cannot run here
 *
 * To "need" we answer with a line: how many bytes will come, how many the file
 * has, and send these when it has said "MARK go". Nothing else is sent before
 * it has said what became of them, so that no buffer on the way there swallows
 * what is not for it.
 *
 * The agent is kept in the first directory that is the user's alone and lets
 * programs run: $XDG_CACHE_HOME/ppsh (~/.cache/ppsh), /dev/shm/ppsh-UID,
 * $TMPDIR/ppsh-UID; if there is none, in memory, by perl or python3. Its name
 * there is the hash of what it is. Others that were not used for two weeks are
 * removed.
 *
 * This knows no stream: it is fed with what comes and writes by a function.
 */
#ifndef PP_BOOTSTRAP_H
#define PP_BOOTSTRAP_H

#include <stdbool.h>
#include <stddef.h>

#include "images.h"

typedef struct pp_boot pp_boot;

typedef struct pp_boot_options {
  bool installed; /* run the host's own ppsh if it is of this build */
  const pp_image *images;
  const char *build; /* id of this build */
  void (*write)(void *ud, const void *p, size_t n);
  /* It cannot come to anything: close the stream. why lives as long as the
   * pp_boot. */
  void (*failed)(void *ud, const char *why);
  void *ud;
} pp_boot_options;

/* NULL without memory. */
pp_boot *pp_boot_new(const pp_boot_options *o);
void pp_boot_free(pp_boot *b); /* NULL is fine */

/* What is to be executed. Lives as long as b. */
const char *pp_boot_command(const pp_boot *b);

/* Bytes have come from its stdout. How many of them were for us: once
 * pp_boot_ready, the rest are the agent's. */
size_t pp_boot_feed(pp_boot *b, const void *p, size_t n);
bool pp_boot_ready(const pp_boot *b);
/* And from its stderr: kept for the reason. */
void pp_boot_errors(pp_boot *b, const void *p, size_t n);

/* Was the agent sent, not found there? */
bool pp_boot_sent(const pp_boot *b);

/*
 * Why there is no agent, in one line: after failed, or, for the end of a
 * stream with the text `end`, what was printed there instead. NULL: nothing
 * more than `end` is known. Borrowed.
 */
const char *pp_boot_reason(pp_boot *b, const char *end);
/* Will another try go the same way? */
bool pp_boot_final(const pp_boot *b);

#endif
