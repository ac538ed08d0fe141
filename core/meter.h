/* SPDX-License-Identifier: MIT */
/*
 * meter: the progress line on stderr while jobs run, or a table in its place.
 *
 * Drawn from the engine's loop, by whoever runs it, ten times a second at most,
 * and erased before anything else is written to the same terminal: job output
 * (outlet.c), log lines, and what the script writes (lua_meter.c). It is not
 * drawn where a line is not complete, while the script writes, nor from the
 * time the prompt waits for a line until that line waits for jobs.
 *
 * Counts belong to the engine's lock, what is on the terminal to the meter's
 * own, which is held for a moment only.
 */
#ifndef PP_METER_H
#define PP_METER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <termios.h>

#include "buf.h"

struct pp_engine;
struct pp_job;
struct lua_State;

/* Lines of a table. */
#define PP_TABLE_MOST 512

/* Jobs that the line is to be about, in place of all: those that have ended
 * come first. */
typedef struct pp_meter_list {
  struct pp_job **v;
  size_t n, over, failed;
  int64_t began;
} pp_meter_list;

typedef struct pp_meter {
  bool can;         /* stderr is a terminal, or it does not matter */
  bool all;         /* --progress: for all jobs */
  bool same;        /* stdout goes where stderr goes */
  bool dumb;        /* a terminal that understands no escapes */
  unsigned asked;   /* calls under way that want it */
  unsigned endless; /* calls under way of unknown length */
  uint64_t total, ended, failed; /* items since it began */
  uint64_t expected;             /* items to be submitted yet */
  int64_t began, idle;           /* ns; idle: when the last job ended */

  pthread_mutex_t lock;
  _Atomic bool shown;
  _Atomic bool held;   /* the script is writing */
  _Atomic bool hidden; /* the prompt has the terminal */
  bool midline;        /* the last line written is not complete */
  int64_t drawn;
  int width; /* of what is shown */

  pp_meter_list *list; /* borrowed; NULL: all jobs */
  /* Lays out the table as it is now: see top.h. NULL: there is none. */
  int (*table)(struct pp_engine *e, int64_t now, int width, int height,
               pp_buf *out, uint16_t *widths);
  bool top;   /* --top: the table is shown, not the line */
  bool stays; /* .top: it is shown also while nothing is under way */
  bool raw;   /* the terminal's mode is to be restored: */
  struct termios mode;
  int rows; /* of the table that is shown; 0: the line is */
  uint16_t widths[PP_TABLE_MOST]; /* columns of each */
} pp_meter;

void pp_meter_init(pp_meter *m, bool all, bool always);
/* Have what the script writes make the line give way (lua_meter.c). L: the
 * pristine state, before its codec is made. 0, PP_ENOMEM. */
int pp_meter_install(struct lua_State *L, pp_meter *m);

/* n items came in (the first ones of all that are pending?), or ended. */
void pp_meter_added(pp_meter *m, uint64_t n, bool first, int64_t now);
void pp_meter_ended(pp_meter *m, uint64_t n, bool failed, bool dropped);
/* A call of n items (-1: unknown) begins, has submitted k of them, ends with
 * `left` not submitted. asked: it wants the line for itself. */
bool pp_meter_watch(struct pp_engine *e, bool asked, int64_t n);
void pp_meter_watched(pp_meter *m, uint64_t k);
void pp_meter_unwatch(struct pp_engine *e, bool asked, int64_t left);

/* Draw it if it is time, erase it if nothing is under way. Returns when to
 * come again, -1: no need. */
int64_t pp_meter_tick(struct pp_engine *e, int64_t now);

/* Stream `which` (0 stdout, 1 stderr) is about to be written to: erase. */
void pp_meter_erase(pp_meter *m, int which);
/* It was written to; has the last line an end? */
void pp_meter_wrote(pp_meter *m, int which, bool complete);
/* The same around what may take long or not come back; nothing is drawn
 * between, nor until the next waiting call (pp_meter_unhide). */
void pp_meter_hold(pp_meter *m, int which);
void pp_meter_release(pp_meter *m, int which, bool complete);
/* The prompt takes the terminal; the script has it back. */
void pp_meter_hide(pp_meter *m);
void pp_meter_unhide(pp_meter *m);
/* As hold, for those who do not know the engine. */
void pp_meter_quiet(void);

/* The line is about these jobs from now on; about all again. */
void pp_meter_list_begin(struct pp_engine *e, pp_meter_list *l);
void pp_meter_list_end(struct pp_engine *e, pp_meter_list *l);
/* Have they all ended? */
bool pp_meter_list_over(pp_meter_list *l);

/* Is stderr a terminal that a table can be drawn on? */
bool pp_meter_can_table(const pp_meter *m);
/* It is shown until end; keys are read one by one, and not echoed, until
 * restore (mode: as the terminal was), or until ppsh ends. */
void pp_meter_table_begin(pp_meter *m, const struct termios *mode);
void pp_meter_table_end(pp_meter *m);
void pp_meter_restore(pp_meter *m);

#endif
