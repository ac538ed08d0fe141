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

/* Registry: light userdata of a pp_server -> its handle (weak values). */
#define PP_HANDLES "pp.servers"

typedef struct pp_userver {
  const char *tag; /* &pp_server_tag: no other userdata begins so */
  pp_server *s;    /* NULL: closed */
  bool running;    /* stands for that of the job at work */
} pp_userver;

extern const char pp_server_tag;

typedef struct pp_ujob {
  pp_job *j;
} pp_ujob;

/* The metatable of these lies in the registry at this address, too. */

/* What a job handle holds; most only their server, which is then their one
 * user value; else that is a table of these. */
enum { PP_HOLD_SERVER = 1, PP_HOLD_RESULTS, PP_HOLD_KEPT };
/* Push what the handle at idx holds there: its type, LUA_TNIL for nothing. */
int pp_job_held(lua_State *L, int idx, int which);
/* Have it hold the value on top, which is popped. */
void pp_job_hold(lua_State *L, int idx, int which);
/* User values of a server: table of what its jobs hold, by id; handles of its
 * jobs, by id (weak). */
enum { PP_UV_HELD = 1, PP_UV_HANDLES };

/* The engine of the Lua that runs; NULL, or raise, where there is none (in a
 * forked child). */
static inline pp_engine *pp_engine_here(void) {
  pp_engine *e = pp_engine_get();

  return e == NULL || !e->in_job ? e : e->at;
}
pp_engine *pp_check_engine(lua_State *L);
/* Registry: the handle that stands for the running server, in any job. */
#define PP_RUNNING_SERVER "pp.running"
/* Push a new handle without server; once it has one, note it. */
pp_userver *pp_push_server(lua_State *L);
void pp_note_server(lua_State *L, int idx);
/* Keep the server at idx, which has unfinished jobs now, from being collected;
 * let go those that have none any more. */
void pp_anchor(lua_State *L, pp_server *s, int idx);
void pp_unanchor(lua_State *L, pp_engine *e);
/* Push the handle of a server, which may be gone: whether there is one. */
bool pp_push_server_of(lua_State *L, const pp_server *s);
/* The open server at idx; raises "attempt to use a closed server". */
pp_server *pp_check_server(lua_State *L, int idx);

/* A waiting call: waits until until(ud), running callbacks that are due, until
 * the deadline (monotonic ns, -1 never). True, or false when the time is up.
 * Raises what a callback raises, and "interrupted!". */
bool pp_wait_call(lua_State *L, bool (*until)(void *ud), void *ud,
                  int64_t deadline);
/* Seconds at idx as a deadline; none or nil is -1. Raises. */
int64_t pp_opt_deadline(lua_State *L, int idx);

/* Push a new handle, without job as yet, for one of the server at index server.
 */
pp_ujob *pp_new_handle(lua_State *L, int server);
/* A new handle for j (its reference passes) of the server at index server;
 * pushes it. kept: index of the kept list or 0. */
void pp_push_job(lua_State *L, pp_job *j, int server, int kept);
/* The handle of a job of the server at index server: the one there is, or a
 * new one. The reference to j passes. */
void pp_push_handle(lua_State *L, pp_job *j, int server);
/* Note the handle at the top as that of its job, once that has its id. */
void pp_keep_handle(lua_State *L, int server);
/* The results of the ended job whose handle is at idx: pushes them and returns
 * how many, or pushes its error object and returns -1. */
int pp_push_results(lua_State *L, int idx);

/* lua_error.c: push the error object of a job that failed; one of this kind and
 * text. */
void pp_push_failure(lua_State *L, pp_engine *e, const pp_job *j);
void pp_push_job_error(lua_State *L, const pp_job *j, int kind, const char *msg,
                       size_t msg_len);
/* Push the values in the result of a job that has ended well, as by
 * pp_codec_unpack. */
int pp_unpack_result(lua_State *L, pp_engine *e, const pp_job *j);

/* lua_callback.c: run the callbacks that are due; none may be running. Raises
 * what one raises; the others remain due. */
void pp_run_callbacks(lua_State *L, pp_engine *e);
/* Forget callbacks of items that were put off. */
void pp_drop_put_off(lua_State *L, pp_engine *e);
int pp_call_back(lua_State *L);

/* A function and all that goes with it, to be submitted again and again. */
#define PP_PARCEL_META "pp.parcel"
typedef struct pp_uparcel {
  pp_parcel parcel; /* blob NULL: released */
  pp_buf modules;   /* section of the frame */
  uint32_t retries, error_retries;
  int64_t timeout;
  double priority;
  uint64_t memory;
  uint32_t slots;
  char *on; /* owned: the nodes its jobs may run at; NULL: any */
  size_t on_len;
  uint64_t id; /* of the jobs made of it, */
  bool has_id; /* once there is one */
  char *name;  /* owned, or NULL */
} pp_uparcel;
int pp_parcel_new(lua_State *L);

/* What a job is made of, packed; its body is in the engine's scratch. */
typedef struct pp_packed {
  pp_parcel parcel; /* owned, unless */
  bool borrowed;    /* it is a plan's: until Lua runs or allocates */
  pp_deps deps;     /* owned */
  pp_blob *setting; /* borrowed so, or NULL */
  uint32_t flags;   /* PP_JOBF_x */
  size_t mods;      /* bytes of the body that are modules */
  int place;        /* of the pin of its tail (pin.h); 0: it has none */
  pp_cargo *tail;   /* reference: that; NULL: no memory */
} pp_packed;

/* The job of these, of which nothing is owned any more then; NULL without
 * memory. The lock held. */
pp_job *pp_compose(pp_server *s, const pp_packed *k);
/* lua_setting.c: the blob of package.path, package.cpath and package.preload
 * as they are, borrowed; NULL while they are what ppsh started with. Raises. */
pp_blob *pp_setting(lua_State *L, pp_engine *e);

/* How handles of jobs and references of put travel: pp_codec_hooks.custom. */
int pp_send_userdata(pp_engine *e, lua_State *L, int idx, pp_custom *out);

/* Methods of a server; lua_submit.c. */
int pp_server_submit(lua_State *L);
int pp_server_spawn(lua_State *L);
/* lua_everywhere.c. */
int pp_server_everywhere(lua_State *L);
void pp_open_everywhere(lua_State *L);

/* Fill the table at the top with the functions of each binding. */
void pp_open_server(lua_State *L);
void pp_open_job(lua_State *L);
void pp_open_error(lua_State *L);
void pp_open_chunk(lua_State *L);
void pp_open_step(lua_State *L);
void pp_open_put(lua_State *L);
void pp_open_meter(lua_State *L);
void pp_open_watch(lua_State *L);
void pp_open_hosts(lua_State *L);
void pp_open_given(lua_State *L);
void pp_open_command(lua_State *L);
void pp_open_files(lua_State *L);
void pp_open_lines(lua_State *L);
void pp_open_input(lua_State *L);

#endif
