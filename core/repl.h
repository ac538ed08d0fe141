/* SPDX-License-Identifier: MIT */
/*
 * repl: the prompt. Lines are read and values printed by
 * lua/pp/shell/prompt.lua; what is done here is what Lua cannot do: reading a
 * line while jobs go on, calling what was typed so that its traceback shows
 * nothing of ours, Ctrl-C.
 */
#ifndef PP_REPL_H
#define PP_REPL_H

#include <lua.h>

/*
 * Read, evaluate and print until the end of stdin. At a terminal lines are
 * edited and kept between runs ($XDG_STATE_HOME/ppsh/history), and Tab
 * completes. Uses the global names _PROMPT, _PROMPT2 and print as lua(1) does.
 */
void pp_repl_run(lua_State *L);

#endif
