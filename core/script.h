/* SPDX-License-Identifier: MIT */
/*
 * script: running chunks and reporting their errors, as lua(1) does.
 */
#ifndef PP_SCRIPT_H
#define PP_SCRIPT_H

#include <lua.h>

/* Call the function below the narg arguments on top of the stack, with a
 * message handler that adds the traceback. Returns a lua status; on error the
 * message is pushed. */
int pp_script_call(lua_State *L, int narg, int nres);

/* Load and run a string, a file (NULL: stdin). Results are dropped; returns
 * and pushes as pp_script_call. */
int pp_script_string(lua_State *L, const char *code, const char *chunkname);
int pp_script_file(lua_State *L, const char *name);

/* Run argv[0] ("-" is stdin unless it followed "--") with the other n - 1
 * strings as arguments. */
int pp_script_main(lua_State *L, char **argv, int n);

/* Do "-l mod" or "-l g=mod". */
int pp_script_require(lua_State *L, const char *what);

/* Make the global `arg`: argv[script] at 0 (argv[0] if there is no script),
 * what follows above, what precedes below. */
void pp_script_arg(lua_State *L, char **argv, int argc, int script);

/*
 * Unless status is LUA_OK, pop the message and print it on stderr after
 * "progname: " (if not NULL). Returns the exit status it stands for: 0, 130 if
 * it is Ctrl-C's, or 1.
 */
int pp_script_report(lua_State *L, int status, const char *progname);

/* Make the library the global `pp`, unless there is such a global. */
void pp_script_global_pp(lua_State *L);

#endif
