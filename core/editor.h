/* SPDX-License-Identifier: MIT */
/*
 * editor: a line at the terminal, edited, with a history that is kept between
 * runs ($XDG_STATE_HOME/ppsh/history) and names completed by Tab.
 *
 * readline does the work. It is opened when a prompt is, not linked: most runs
 * have no prompt, and each would load it, as would each worker.
 */
#ifndef PP_EDITOR_H
#define PP_EDITOR_H

#include <lua.h>
#include <stdbool.h>

#include "repl.h"

enum { PP_LINE_OK, PP_LINE_EOF, PP_LINE_INTERRUPTED };

/* Get ready to edit lines and complete names of L's globals. False where
 * readline is not to be had. */
bool pp_editor_open(lua_State *L);

/* Read a line, waiting by `wait`, and push it. On any other result nothing is
 * pushed; INTERRUPTED: a signal is pending. */
int pp_editor_line(lua_State *L, const char *prompt, pp_repl_wait wait);

#endif
