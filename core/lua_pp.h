/* SPDX-License-Identifier: MIT */
/*
 * lua_pp: what the bindings share. Each lua_*.c is one binding: check, call,
 * push. The engine's lock is held for plain C only, never across Lua.
 */
#ifndef PP_LUA_PP_H
#define PP_LUA_PP_H

#include <lua.h>

#include "engine.h"

#define PP_SERVER_META "pp.Server"
#define PP_JOB_META "pp.Job"
#define PP_ERROR_META "pp.error"

typedef struct pp_userver {
  pp_server *s; /* NULL: closed */
} pp_userver;

typedef struct pp_ujob {
  pp_job *j;
} pp_ujob;

/* User values of a job handle. */
enum { PP_UV_RESULTS = 1, PP_UV_SERVER, PP_UV_KEPT, PP_UV_JOB_N = 3 };
/* User value of a server: table of what its jobs hold, by id. */
enum { PP_UV_HELD = 1 };

/* The engine; raises where there is none (in a job, in a forked child). */
pp_engine *pp_check_engine(lua_State *L);
/* The open server at idx; raises "attempt to use a closed server". */
pp_server *pp_check_server(lua_State *L, int idx);

/* A waiting call: waits until until(ud), running callbacks that are due, until
 * the deadline (monotonic ns, -1 never). True, or false when the time is up.
 * Raises what a callback raises, and "interrupted!". */
bool pp_wait_call(lua_State *L, bool (*until)(void *ud), void *ud,
                  int64_t deadline);
/* Seconds at idx as a deadline; none or nil is -1. Raises. */
int64_t pp_opt_deadline(lua_State *L, int idx);

/* A new handle for j (its reference passes) of the server at index server;
 * pushes it. kept: index of the kept list or 0. */
void pp_push_job(lua_State *L, pp_job *j, int server, int kept);
/* The results of the ended job whose handle is at idx: pushes them and returns
 * how many, or pushes its error object and returns -1. */
int pp_push_results(lua_State *L, int idx);

/* Callback of a job that has ended; lua_server.c. */
void pp_run_callbacks(lua_State *L, pp_engine *e);

/* What the prompt waits by: jobs and their callbacks go on until fd can be
 * read or a signal has come. Returns 0. */
int pp_prompt_wait(lua_State *L, int fd);

/* Methods of a server; lua_submit.c. */
int pp_server_submit(lua_State *L);
int pp_server_spawn(lua_State *L);

/* Fill the table at the top with the functions of each binding. */
void pp_open_server(lua_State *L);
void pp_open_job(lua_State *L);

#endif
