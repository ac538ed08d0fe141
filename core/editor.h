/* SPDX-License-Identifier: MIT */
/*
 * editor: a line at the terminal, edited, with a history that is kept between
 * runs ($XDG_STATE_HOME/ppsh/history) and completed by Tab.
 *
 * readline does the work. It is opened when a prompt is, not linked: most runs
 * have no prompt, and each would load it, as would each worker. What was pasted
 * comes as one line that may hold several.
 */
#ifndef PP_EDITOR_H
#define PP_EDITOR_H

#include <lua.h>
#include <stdbool.h>

enum { PP_LINE_OK, PP_LINE_EOF, PP_LINE_INTERRUPTED };

/*
 * Get ready to edit lines. False where readline is not to be had. Completion is
 * done by the Lua function `complete` in the table at index `with`, if there is
 * one when it is needed: (the line up to the cursor, the word there) -> list of
 * what may stand in the word's place[, what to put behind if it is one only].
 */
bool pp_editor_open(lua_State *L, int with);

/* Read a line, waiting by pp_prompt_wait, and push it. On any other result
 * nothing is pushed; INTERRUPTED: a signal is pending. */
int pp_editor_line(lua_State *L, const char *prompt);

/* For Lua: (beginning of a path) -> list of the files it may be, those in a
 * directory that begin so; directories end with a slash. */
int pp_editor_files(lua_State *L);

#endif
