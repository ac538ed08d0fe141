/* SPDX-License-Identifier: MIT */
/***
Jobs and their errors.
@module pp.jobs
*/
/* The error objects of jobs that failed. */
#include <lauxlib.h>

#include "lua_pp.h"

/* --- making one ----------------------------------------------------------- */

/* The error of the job that this one failed with: pushes it. The very object,
 * if somebody has a handle of that. */
static void push_cause(lua_State *L, pp_engine *e, pp_job *j) {
  int top = lua_gettop(L);

  if (pp_push_server_of(L, j->server)) {
    lua_getiuservalue(L, -1, PP_UV_HANDLES);
    if (lua_rawgeti(L, -1, (lua_Integer)j->id + 1) == LUA_TUSERDATA &&
        ((pp_ujob *)lua_touserdata(L, -1))->j == j) {
      pp_push_results(L, -1);
      lua_replace(L, top + 1);
      lua_settop(L, top + 1);
      return;
    }
  }
  lua_settop(L, top);
  pp_push_failure(L, e, j);
}

void pp_push_job_error(lua_State *L, const pp_job *j, int kind, const char *msg,
                       size_t msg_len) {
  lua_createtable(L, 0, 8);
  lua_pushstring(L, pp_kind_name(kind));
  lua_setfield(L, -2, "kind");
  lua_pushlstring(L, msg, msg_len);
  lua_setfield(L, -2, "message");
  if (!(j->flags & PP_JOB_CALL)) {
    lua_pushinteger(L, (lua_Integer)j->id);
    lua_setfield(L, -2, "job");
  }
  if (j->worker > 0 || j->flags & PP_JOB_HERE) {
    lua_pushstring(L, pp_engine_name(pp_engine_here(), j->node));
    lua_setfield(L, -2, "node");
    lua_pushinteger(L, j->worker);
    lua_setfield(L, -2, "worker");
  }
  luaL_setmetatable(L, PP_ERROR_META);
}

/* Is the value on top the error of a job? */
static bool is_error(lua_State *L) {
  bool is;

  if (!lua_istable(L, -1) || !lua_getmetatable(L, -1))
    return false;
  luaL_getmetatable(L, PP_ERROR_META);
  is = lua_rawequal(L, -1, -2);
  lua_pop(L, 2);
  return is;
}

/***
Fields of a job's error.
`tostring(err)` is the message, then the traceback of the worker.
@table Error.fields
@tfield string kind "error" (the function raised one), "timeout", "cancelled",
  "lost" (its worker died), "unsendable" (a result cannot travel), "memory",
  "destroyed" (the server was) or "connect"
@tfield string message what happened
@tfield value value what was passed to `error`, of any type; its tostring if it
  cannot travel
@tfield ?string traceback where, in the script's own files and lines
@tfield ?string node where it ran
@tfield ?integer worker which worker of that node, from 1; 0: the script's own
  process (ncpus = 0)
@tfield integer job its id
@tfield ?Error cause the error of a job it waited for
*/
void pp_push_failure(lua_State *L, pp_engine *e, const pp_job *j) {
  pp_error_view v;

  if (pp_error_parse(j->result, j->result_len, &v) != 0) {
    pp_push_job_error(L, j, PP_KIND_LOST, "its error could not be read", 27);
    return;
  }
  pp_push_job_error(L, j, v.kind, v.msg, v.msg_len);
  lua_pushlstring(L, v.tb, v.tb_len);
  lua_setfield(L, -2, "traceback");
  if (v.value_len > 0) {
    int n = pp_codec_unpack(e->codec, L, v.value, v.value_len, NULL, 0);

    if (n == 1) {
      if (is_error(L)) { /* of a job that it waited for */
        lua_pushvalue(L, -1);
        lua_setfield(L, -3, "cause");
      }
      lua_setfield(L, -2, "value");
    } else
      lua_pop(L, n < 0 ? 1 : n);
  } else if (v.kind == PP_KIND_ERROR) {
    lua_pushlstring(L, v.msg, v.msg_len);
    lua_setfield(L, -2, "value");
  }
  if (pp_job_cause(j) != NULL) {
    push_cause(L, e, pp_job_cause(j));
    lua_getfield(L, -1, "value"); /* one error: one value */
    lua_setfield(L, -3, "value");
    lua_setfield(L, -2, "cause");
  }
}

/* --- as text -------------------------------------------------------------- */

/* Append a newline and the traceback of the error at idx, if it has one. */
static void add_traceback(lua_State *L, luaL_Buffer *b, int idx,
                          const char *above) {
  lua_pushliteral(L, "traceback");
  lua_rawget(L, idx);
  if (lua_type(L, -1) == LUA_TSTRING && lua_rawlen(L, -1) > 0) {
    luaL_addstring(b, above);
    luaL_addvalue(b);
  } else {
    lua_pop(L, 1);
  }
}

/* Have the errors at 1 and 2 the same one? So it is with a job that failed
 * before it began. */
static bool same_traceback(lua_State *L) {
  bool same;

  lua_pushliteral(L, "traceback");
  lua_rawget(L, 1);
  lua_pushliteral(L, "traceback");
  lua_rawget(L, 2);
  same = lua_rawequal(L, -1, -2);
  lua_pop(L, 2);
  return same;
}

/* How far down to look for where an error comes from. */
#define CAUSES_MAX 100000

static int error_tostring(lua_State *L) {
  luaL_Buffer b;
  bool deeper = false;

  lua_settop(L, 1);
  if (!lua_istable(L, 1)) {
    lua_pushliteral(L, "pp.error");
    return 1;
  }
  lua_pushvalue(L, 1); /* 2: the error at the bottom */
  for (int i = 0; i < CAUSES_MAX; i++) {
    lua_pushliteral(L, "cause");
    lua_rawget(L, 2);
    if (!is_error(L))
      break;
    lua_replace(L, 2);
    deeper = true;
  }
  lua_settop(L, 2);
  lua_getfield(L, 1, "message");
  luaL_tolstring(L, -1, NULL);
  lua_replace(L, 3);
  luaL_buffinit(L, &b);
  lua_pushvalue(L, 3);
  luaL_addvalue(&b);
  add_traceback(L, &b, 1, "\n");
  if (deeper && !same_traceback(L))
    add_traceback(L, &b, 2, "\nin a job that it waited for:\n");
  luaL_pushresult(&b);
  return 1;
}

/* "what: " .. err, as with the strings that errors of Lua's are. */
static int error_concat(lua_State *L) {
  lua_settop(L, 2);
  for (int i = 1; i <= 2; i++) {
    lua_pushvalue(L, i);
    if (!is_error(L) && !lua_isstring(L, i))
      return luaL_error(L, "attempt to concatenate a %s value",
                        luaL_typename(L, i));
    luaL_tolstring(L, i, NULL);
    lua_replace(L, i);
    lua_settop(L, 2);
  }
  lua_concat(L, 2);
  return 1;
}

void pp_open_error(lua_State *L) {
  luaL_newmetatable(L, PP_ERROR_META);
  lua_pushcfunction(L, error_tostring);
  lua_setfield(L, -2, "__tostring");
  lua_pushcfunction(L, error_concat);
  lua_setfield(L, -2, "__concat");
  lua_setfield(L, -2, "error_meta");
}
