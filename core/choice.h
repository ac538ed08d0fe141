/* SPDX-License-Identifier: MIT */
/*
 * choice: the nodes that jobs of a server may run at: what their `on` says. All
 * jobs that say the same have one choice, which is a class of the schedule (and
 * another for those of several slots, so that these hold back none of the
 * others); it goes when none of them is left. Belongs to the engine's lock. No
 * Lua.
 */
#ifndef PP_CHOICE_H
#define PP_CHOICE_H

#include "host.h"
#include "server.h"

typedef struct pp_choice pp_choice;

/* Let a job, its slots set, run at these nodes only. Nothing when the text is
 * empty. 0; PP_ENOMEM, PP_EBAD (it is no set), PP_ELIMIT. */
int pp_choice_set(pp_server *s, pp_job *j, const char *text, size_t len);
/* The job needs it no more: it is in no list. */
void pp_choice_drop(pp_job *j);
/* What it says; NULL: the job may run anywhere. */
const char *pp_choice_text(const pp_job *j);
/* Is no node of its choice there or to be expected? */
bool pp_choice_hopeless(const pp_job *j);
/* Append why. */
void pp_choice_why(const pp_job *j, char *out, size_t size);
/* End what is queued for nodes that there will never be, with kind "connect".
 */
void pp_choices_hopeless(pp_server *s);
/* Jobs of several slots that may run anywhere are a class. PP_ENOMEM. */
int pp_choices_begin(pp_server *s);
/* The server is being freed. */
void pp_choices_clear(pp_server *s);

#endif
