/* SPDX-License-Identifier: MIT */
/*
 * repl: the prompt.
 */
#ifndef PP_REPL_H
#define PP_REPL_H

#include <lua.h>

/*
 * Waits until fd can be read or a signal has come; what else goes on meanwhile
 * (jobs, their callbacks) is its business. Returns 0, or negative when it has
 * no way to wait. May not raise.
 */
typedef int (*pp_repl_wait)(lua_State *L, int fd);

/*
 * Read, evaluate and print until the end of stdin. At a terminal lines are
 * edited and kept between runs ($XDG_STATE_HOME/ppsh/history), and Tab
 * completes. wait may be NULL: then nothing goes on. Uses the global names
 * _PROMPT, _PROMPT2 and print as lua(1) does.
 */
void pp_repl_run(lua_State *L, pp_repl_wait wait);

#endif
