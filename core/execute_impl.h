/* SPDX-License-Identifier: MIT */
/* execute_impl: what execute.c (one execution) and chunk.c (many) share. All
 * but pp_chunk_run runs protected and may raise. */
#ifndef PP_EXECUTE_IMPL_H
#define PP_EXECUTE_IMPL_H

#include "runner_impl.h"

/* A job under way. */
typedef struct pp_call {
  pp_runner *r;
  const unsigned char *p, *args; /* payload */
  size_t args_len;
  uint32_t fn, flags;
  const uint32_t *deps;
  uint32_t ndeps;
  const unsigned char *modules;
  size_t modules_len;
  pp_buf *out;
  void (*taken)(void *ud);
  void *ud;
  int kind;   /* of the failure */
  bool bound; /* its globals are in force */
  bool tame;  /* it cannot have left anything behind: pp_execute_tame */
  int64_t started, run;
  size_t memory;
  uint64_t seed, index;  /* of the server; of a chunk's first item */
  uint32_t failed_items; /* of a chunk that goes on */
  uint32_t begun_items;  /* of one that was cut short; 0: all */
} pp_call;

/* The globals of this execution, in force, and the function in them at the
 * top. They are fresh ones, over those of the base, but for a call of
 * everywhere. */
void pp_execute_begin(lua_State *L, pp_call *c);
/* modules = {...}: require each, and make it a global of the execution, whose
 * globals are at env; one of a dotted name, a field of what is before the dot,
 * too (requires.c). */
void pp_execute_require(lua_State *L, pp_call *c, int env);
/* Begin another execution of the same function: end the one at work, if any, in
 * whatever way is quickest, and leave the function at the top. */
void pp_execute_renew(lua_State *L, pp_call *c);
/* The execution is over, and what it has set that is not a global. */
void pp_execute_end(lua_State *L, pp_call *c);
/* Push what is in these bytes, arguments of the job; how many, or an error as
 * by pp_codec_unpack. */
int pp_execute_args(lua_State *L, pp_call *c, const void *p, size_t len);
/* The random numbers of job k, of item k of a map, of call k of everywhere
 * depend on the seed and on k alone. */
void pp_execute_seed(lua_State *L, pp_call *c, uint64_t k, bool item);
/* Call the job's own code: function and n arguments at the top. Its status;
 * c->kind says what kind of failure that is. */
int pp_execute_user(lua_State *L, pp_call *c, int n, int results, int handler);
/* Push the text of the error value at err, as lua(1) would show it; a
 * __tostring that fails does not count. */
void pp_execute_message(lua_State *L, int err);
/* The failure is not where the job's code was. */
void pp_execute_untraced(lua_State *L, pp_call *c);

/*
 * A job that calls a pure function (pure.h) that assigns no globals, with plain
 * values, can have the globals that it had the last time: they stay with its
 * blob, and what it reads of the standard library is in them. If this is one:
 * they are in force, and the function is at the top.
 */
bool pp_execute_tame(lua_State *L, pp_call *c);

/* Is the function of a chunk a pure one (PP_PURE_x)? Nothing is bound yet. If
 * so pushes what it needs. */
int pp_execute_pure(lua_State *L, pp_call *c);

/* Run a chunk (chunk.c). Unprotected; does not raise. A status; unless it is
 * LUA_OK the error has been pushed. */
int pp_chunk_run(lua_State *L, pp_call *c);

#endif
