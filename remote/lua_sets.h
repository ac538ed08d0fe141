/* SPDX-License-Identifier: MIT */
/*
 * lua_sets: sets of node names for the shell.
 *
 *   core.host_specs(hosts)    the hosts of a core.hosts, one by one: a list of
 *                             {name, spec}
 *   core.pick(text, names)    those of the names, a list, that the set says, in
 *                             their order; or nil and what is wrong, the
 *                             character pointed at. "all" is every name but
 *                             "local", which it is where there is no other.
 * What the set names and there is not is a mistake core.fold(names) the list as
 * short as brackets make it core.hide(server)         it is the console's: see
 * server.h core.hear(job)            what a job that runs has written to stdout
 * and to stderr since the last time, where that is kept with the job: two
 * strings; nothing is kept of it
 *   core.calm()               forget that Ctrl-C was pressed: the next one is
 *                             the first again
 */
#ifndef PP_REMOTE_LUA_SETS_H
#define PP_REMOTE_LUA_SETS_H

#include <lua.h>

/* Add these functions to the table at the top. */
void pp_open_sets(lua_State *L);

#endif
