/* SPDX-License-Identifier: MIT */
/*
 * zygote: the process that workers are forked from.
 *
 * It is forked before any user code, loop or thread exists, holds a warm Lua
 * state, forks workers on request and reaps them. It adopts whatever their
 * jobs leave behind (subreaper) and kills it. When the driver goes, in
 * whatever way, it kills and reaps all that is left below it and exits.
 *
 * The driver talks to it over a SOCK_SEQPACKET pair, one message each:
 * requests pp_zreq (SPAWN with two descriptors: write ends for the worker's
 * stdout and stderr), answers pp_zrep.
 */
#ifndef PP_ZYGOTE_H
#define PP_ZYGOTE_H

#include <lua.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "shm.h"

enum { PP_Z_SPAWN = 1, PP_Z_KILL, PP_Z_SIGNAL, PP_Z_GUARD, PP_Z_UNGUARD };
typedef struct pp_zreq {
  uint32_t op, lane;
  uint32_t number; /* SPAWN: the worker's number, for its name; GUARD: a process
                      of the driver's own, whose group is to go with it */
  int32_t signal;  /* KILL: to its process group; SIGNAL: to it alone */
} pp_zreq;

enum { PP_Z_SPAWNED = 1, PP_Z_FAILED, PP_Z_EXITED };
typedef struct pp_zrep {
  uint32_t op, lane;
  int32_t pid;
  int32_t status;  /* EXITED: as of wait(2); FAILED: errno */
  uint64_t maxrss; /* EXITED: bytes */
} pp_zrep;

/*
 * Fork the zygote. L is the pristine state that workers will inherit. Returns
 * its pid and the driver's end of the pair (close-on-exec) in *ctl; PP_ESYS
 * with errno. Never returns in the zygote.
 */
pid_t pp_zygote_fork(lua_State *L, int shm, pp_hub *hub, int bell, int *ctl);

/*
 * The same by executing this program again, for when the first zygote was
 * killed and this process is not pristine any more. cwd: the directory workers
 * run in. main() hands over to pp_zygote_main when it sees PP_ZYGOTE_NAME as
 * its own name.
 */
pid_t pp_zygote_exec(int shm, int bell, int cwd, bool noenv, int *ctl);
#define PP_ZYGOTE_NAME "pp-zygote"
_Noreturn void pp_zygote_main(int argc, char **argv);

/* Load the library pp into the pristine state, which is what driver and
 * workers have in common, and have it collected by generations. 0, or PP_EBAD
 * with a message pushed. */
int pp_zygote_library(lua_State *L);

/* Send a request; fds are borrowed (n 0 or 2). 0, PP_EAGAIN, PP_ESYS. */
int pp_zygote_send(int ctl, const pp_zreq *req, const int *fds, int n);

#endif
