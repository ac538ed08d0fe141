/* SPDX-License-Identifier: MIT */
/*
 * lua_sets: sets of node names for the shell.
 *
 *   core.host_specs(hosts)
 *     The hosts of a core.hosts, one by one: a list of {name, spec}.
 *
 *   core.pick(text, names)
 *     Those of the names, a list, that the set says, in their order; or nil and
 *     what is wrong, the character pointed at. "all" is every name but "local",
 *     which it is where there is no other. What the set names and there is not
 *     is a mistake.
 *
 *   core.fold(names)
 *     The list as short as brackets make it.
 *
 *   core.hide(server, still)
 *     It is a console's: see server.h. still: its jobs are in no trace or
 *     report either.
 *
 *   core.hear(job)
 *     What a job that runs has written to stdout and to stderr since the last
 *     time, where that is kept with the job: two strings; nothing is kept.
 *
 *   core.calm()
 *     Forget that Ctrl-C was pressed: the next one is the first again.
 */
#ifndef PP_REMOTE_LUA_SETS_H
#define PP_REMOTE_LUA_SETS_H

#include <lua.h>

/* Add these functions to the table at the top. */
void pp_open_sets(lua_State *L);

#endif
