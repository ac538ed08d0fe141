/* SPDX-License-Identifier: MIT */
/*
 * prompt: what goes on around a prompt, in a program that has one.
 *
 * While a line is typed the loop runs: jobs go on, callbacks run. What is
 * written to the terminal meanwhile (by jobs, to the log) is put aside by
 * whichever thread comes by it, and shown above the line by the one that has
 * the prompt: the line is hidden, the text written, the line drawn again. So
 * are notices of jobs that ended and that nobody waits for.
 *
 * Jobs that a line has submitted can be stopped with it; those of earlier lines
 * go on.
 */
#ifndef PP_PROMPT_H
#define PP_PROMPT_H

#include <lua.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>

#include "buf.h"
#include "job.h"

struct pp_engine;

enum { PP_NOTICES = 4 }; /* jobs told of one by one; more are counted */

/* An engine has one, if there is a prompt. All but `text` belongs to the
 * engine's lock. */
typedef struct pp_prompt {
  /* A job of the script's own has ended. */
  void (*ended)(struct pp_engine *e, pp_job *j);
  /* Everything ends: show what was put aside, free the prompt. */
  void (*end)(struct pp_engine *e);
  FILE *aside; /* what writes to text */
  pthread_mutex_t lock;
  pp_buf text;              /* put aside */
  bool typing;              /* a line is being typed */
  bool tty[2];              /* stdout, stderr are the terminal */
  pp_job *told[PP_NOTICES]; /* references: ended, notices are due */
  unsigned ntold;
  size_t done, failed; /* others */
  int64_t noticed;     /* when the last notice was shown */
  int64_t shown;       /* when anything was, above a line */
} pp_prompt;

/* The line being typed, as the prompt has it on the screen; each may be NULL.
 */
typedef struct pp_line {
  void (*hide)(void); /* leave an empty line, the cursor at its beginning */
  void (*show)(void); /* draw it there */
  bool (*due)(void);  /* has it something to see to, so that waiting ends? */
} pp_line;

/* A line is going to be typed, at a terminal; it has been. */
void pp_prompt_open(lua_State *L);
void pp_prompt_close(lua_State *L);
/* Wait until fd can be read, a signal has come, or the line has something to
 * see to. May not raise. */
void pp_prompt_wait(lua_State *L, int fd, const pp_line *line);

/* A line is going to be evaluated. */
void pp_prompt_begin(lua_State *L);
/* Stop the jobs that were submitted since and have not ended. */
void pp_prompt_stop(lua_State *L);

/* For Lua: (most) -> list of unfinished jobs, at most so many; how many there
 * are of them; how many have ended well and badly, and were not asked for. */
int pp_prompt_jobs(lua_State *L);
/* For Lua: () -> list of the open servers' handles. */
int pp_prompt_servers(lua_State *L);

#endif
