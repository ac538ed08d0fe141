/* SPDX-License-Identifier: MIT */
/*
 * lua_submission: one call of submit while its parts are on the Lua stack:
 * lua_spec.c reads the table form, lua_submit.c makes a job of it,
 * lua_travel.c sees to what goes along beside the arguments.
 */
#ifndef PP_LUA_SUBMISSION_H
#define PP_LUA_SUBMISSION_H

#include "lua_pp.h"

/* Where the parts of a submission are on the stack. */
enum {
  AT_SELF = 1,
  AT_FUNC,
  AT_ARGS,
  AT_DEPS,
  AT_MODULES,
  AT_CALLBACK,
  AT_CBARGS,
  AT_GROUP,
  AT_GLOBALS,
  AT_EXTRA /* more globals for the function: a table or nil */
};

typedef struct submission {
  pp_engine *e;
  pp_server *s;
  unsigned has; /* bits: at which places something stands; pp_has */
  const char *names[AT_EXTRA]; /* of arguments, for errors */
  const char *method;
  int level;    /* of the caller, for errors */
  int number;   /* of the table of options among the arguments */
  bool by_name; /* the table form */
  int nargs;
  lua_Integer retries, retry_errors, memory;
  int64_t timeout; /* ns */
  double priority;
  bool forget;
  bool pins; /* its last argument may be pinned: pin.h */
  uint32_t slots;
  const char *on; /* the nodes it may run at; NULL: any; kept as name is */
  size_t on_len;
  const char *name;
  pp_buf modules; /* lives in e->scratch's tail: not owned */
} submission;

static inline bool pp_has(const submission *b, int at) {
  return (b->has >> at & 1) != 0;
}

/* As luaL_argerror, but with our name and numbers however it was called. */
int pp_arg_error(lua_State *L, const submission *b, int at, const char *msg);

/* A call of a method of the server at 1 that has come with these arguments. */
void pp_submission_begin(lua_State *L, submission *b);
/* The only argument is a table of options: spread its fields over the places of
 * the other form. Raises on names that do not exist and bad values. */
void pp_submission_by_name(lua_State *L, submission *b);
/* They are the function and its arguments, one by one: check the function and
 * put all in place. */
void pp_submission_spread(lua_State *L, submission *b);
/* Everything is at its place on the stack and checked: pack it. Pushes the kept
 * list of function and arguments. Raises what cannot be sent. */
void pp_submission_pack(lua_State *L, const submission *b, pp_packed *k);
/* As pp_compose, with what the submission says. */
pp_job *pp_submission_job(const submission *b, const pp_packed *k);

/* Add depfuncs and globals to the table at AT_EXTRA. Raise on bad ones. */
void pp_add_deps(lua_State *L, submission *b);
void pp_add_globals(lua_State *L, submission *b);
/* Append the names of modules to e->scratch; returns bytes. Raises. */
size_t pp_add_modules(lua_State *L, const submission *b);

#endif
