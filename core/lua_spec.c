/* SPDX-License-Identifier: MIT */
/***
Submitting jobs.
@module pp.submission
*/
/* The table form of submit: its names and what may stand under each. */
#include <lauxlib.h>
#include <stdio.h>
#include <string.h>

#include "lua_submission.h"

static const char *const names_by_name[AT_EXTRA] = {
    "",        "self",     "func",         "args",  "deps",
    "modules", "callback", "callbackargs", "group", "globals",
};

/* The value at the top, as messages name it: a number by itself, all else by
 * its type. */
static const char *got(lua_State *L) {
  if (lua_type(L, -1) == LUA_TNUMBER)
    return lua_rawequal(L, -1, -1) ? luaL_tolstring(L, -1, NULL) : "nan";
  return luaL_typename(L, -1);
}

/* An optional integer >= 0 of the table form. */
static lua_Integer integer_field(lua_State *L, submission *b, const char *name,
                                 lua_Integer otherwise, lua_Integer most) {
  lua_getfield(L, AT_FUNC, name);
  if (!lua_isnil(L, -1)) {
    int ok;

    otherwise = lua_tointegerx(L, -1, &ok);
    if (!ok || lua_type(L, -1) != LUA_TNUMBER || otherwise < 0 ||
        otherwise > most)
      pp_arg_error(L, b, AT_FUNC,
                   lua_pushfstring(L, "%s must be an integer >= 0, got %s",
                                   name, got(L)));
  }
  lua_pop(L, 1);
  return otherwise;
}

/* slots =: how many places the job takes, at most those of its node. A server
 * of no workers has one, and it is enough. */
static void read_slots(lua_State *L, submission *b) {
  int ok;
  lua_Integer n;

  if (lua_getfield(L, AT_FUNC, "slots") != LUA_TNIL) {
    n = lua_tointegerx(L, -1, &ok);
    if (!ok || lua_type(L, -1) != LUA_TNUMBER || n < 1)
      pp_arg_error(L, b, AT_FUNC,
                   lua_pushfstring(L, "slots must be an integer >= 1, got %s",
                                   luaL_tolstring(L, -1, NULL)));
    if (b->s->local->ncpus > 0 && n > (lua_Integer)b->s->local->ncpus)
      pp_arg_error(L, b, AT_FUNC,
                   lua_pushfstring(L,
                                   "slots must be at most %d, the workers of "
                                   "'local', got %I",
                                   (int)b->s->local->ncpus, n));
    b->slots = b->s->local->ncpus > 0 ? (uint32_t)n : 1;
  }
  lua_pop(L, 1);
}

/* Is there a "local" among the names, which commas may separate? */
static bool names_local(const char *names) {
  while (*names != '\0') {
    size_t n;

    names += strspn(names, " \t,");
    n = strcspn(names, " \t,");
    if (n == 5 && memcmp(names, "local", 5) == 0)
      return true;
    names += n;
  }
  return false;
}

static void check_names(lua_State *L, submission *b, int idx) {
  const char *names;

  if (lua_type(L, idx) != LUA_TSTRING)
    pp_arg_error(L, b, AT_FUNC,
                 lua_pushfstring(L,
                                 "on must be a node's name or a list of names, "
                                 "got %s",
                                 luaL_typename(L, idx)));
  names = lua_tostring(L, idx);
  if (names[strspn(names, " \t,")] == '\0')
    pp_arg_error(L, b, AT_FUNC, "on names no node");
}

/* on =: the nodes the job may run at. This one is the only one there is: says
 * in b->nowhere if it is not among them. */
static void read_on(lua_State *L, submission *b) {
  int top = lua_gettop(L), on = top + 1;
  bool here = false;
  luaL_Buffer list;

  if (lua_getfield(L, AT_FUNC, "on") == LUA_TNIL) {
    lua_settop(L, top);
    return;
  }
  if (lua_type(L, on) != LUA_TTABLE) {
    check_names(L, b, on);
    here = names_local(lua_tostring(L, on));
  } else {
    lua_Integer n = (lua_Integer)lua_rawlen(L, on);

    if (n == 0)
      pp_arg_error(L, b, AT_FUNC, "on names no node");
    luaL_buffinit(L, &list);
    for (lua_Integer i = 1; i <= n; i++) {
      if (i > 1)
        luaL_addstring(&list, ", ");
      lua_rawgeti(L, on, i);
      check_names(L, b, lua_gettop(L));
      here = here || names_local(lua_tostring(L, -1));
      luaL_addvalue(&list);
    }
    luaL_pushresult(&list);
  }
  if (!here) {
    const char *names = lua_tostring(L, -1);

    snprintf(b->nowhere, sizeof b->nowhere,
             "no worker is to be expected on '%.80s%s'", names,
             strlen(names) > 80 ? "..." : "");
  }
  lua_settop(L, top);
}

/***
Options of submit. The function stands without a name or as `func`.
@table Server.submit_options
@tfield function func the function
@tfield[opt] table args its arguments
@tfield[opt] table deps depfuncs; `depfuncs` is the same
@tfield[opt] table modules as above
@tfield[opt] function callback as above
@tfield[opt] table callbackargs as above
@tfield[opt] string group as above
@tfield[opt] table globals as above
@tfield[opt] number timeout seconds one attempt may run; then the job is stopped
  and fails with kind "timeout", without retry. Default: the server's
@tfield[opt] integer retries how often the job is run again when its worker died
  under it; then it fails with kind "lost". Default: the server's
@tfield[opt] integer retry_errors how often it is run again after an error of
  its own; 0
@tfield[opt] number priority higher goes first; 0. Equals go in the order they
  came, and nothing that runs is stopped for another
@tfield[opt] string|table on the name of the node it may run at, or several:
  a list, or one string with commas; "local" is this machine. Where no worker
  of that name is to be expected, the job fails with kind "connect"
@tfield[opt] integer slots places of workers it takes, at most those of its
  node; 1. It starts when so many are idle, and they are kept for it
@tfield[opt] string name any text; it is `job.name`
@tfield[opt] integer memory most bytes of Lua heap for its worker; more is the
  job's error of kind "memory". Default: the server's
@tfield[opt] boolean forget keep nothing when the job ends; its failure then
  goes unsaid
*/
void pp_submission_by_name(lua_State *L, submission *b) {
  static const char *const keys[] = {
      "args", "deps", "modules", "callback", "callbackargs", "group", "globals",
  };
  int spec = AT_FUNC;

  b->by_name = true;
  memcpy(b->names, names_by_name, sizeof b->names);
  lua_pushnil(L);
  while (lua_next(L, spec) != 0) {
    bool known = lua_type(L, -2) == LUA_TNUMBER;
    const char *k;

    if (known) {
      known = lua_isinteger(L, -2) && lua_tointeger(L, -2) == 1;
      if (!known)
        pp_arg_error(L, b, AT_FUNC, "only the function stands without a name");
    } else if (lua_type(L, -2) == LUA_TSTRING) {
      k = lua_tostring(L, -2);
      known = strcmp(k, "func") == 0 || strcmp(k, "retries") == 0 ||
              strcmp(k, "name") == 0 || strcmp(k, "timeout") == 0 ||
              strcmp(k, "priority") == 0 || strcmp(k, "memory") == 0 ||
              strcmp(k, "forget") == 0 || strcmp(k, "retry_errors") == 0 ||
              strcmp(k, "depfuncs") == 0 || strcmp(k, "on") == 0 ||
              strcmp(k, "slots") == 0;
      for (size_t i = 0; i < sizeof keys / sizeof *keys && !known; i++)
        known = strcmp(k, keys[i]) == 0;
      if (!known)
        pp_arg_error(L, b, AT_FUNC,
                     lua_pushfstring(L, "unknown option '%s'", k));
    } else {
      pp_arg_error(
          L, b, AT_FUNC,
          lua_pushfstring(L, "unknown option (a %s)", luaL_typename(L, -2)));
    }
    lua_pop(L, 1);
  }
  b->retries = integer_field(L, b, "retries", b->retries, INT32_MAX);
  b->retry_errors = integer_field(L, b, "retry_errors", 0, INT32_MAX);
  b->memory = integer_field(L, b, "memory", b->memory, INT64_MAX);
  lua_getfield(L, spec, "timeout");
  if (!lua_isnil(L, -1)) {
    lua_Number t = lua_tonumber(L, -1);

    if (lua_type(L, -1) != LUA_TNUMBER || !(t > 0))
      pp_arg_error(
          L, b, AT_FUNC,
          lua_pushfstring(L, "timeout must be a number > 0, got %s", got(L)));
    b->timeout = t < 9e9 ? (int64_t)(t * 1e9) : 0;
  }
  lua_pop(L, 1);
  if (lua_getfield(L, spec, "priority") != LUA_TNIL) {
    b->priority = lua_tonumber(L, -1);
    if (lua_type(L, -1) != LUA_TNUMBER || b->priority != b->priority)
      pp_arg_error(
          L, b, AT_FUNC,
          lua_pushfstring(L, "priority must be a number, got %s", got(L)));
  }
  lua_pop(L, 1);
  read_slots(L, b);
  read_on(L, b);
  if (lua_getfield(L, spec, "forget") != LUA_TNIL && !lua_isboolean(L, -1))
    pp_arg_error(
        L, b, AT_FUNC,
        lua_pushfstring(L, "forget must be a boolean, got %s", got(L)));
  b->forget = lua_toboolean(L, -1);
  lua_pop(L, 1);
  lua_getfield(L, spec, "name");
  if (!lua_isnil(L, -1)) {
    if (lua_type(L, -1) != LUA_TSTRING)
      pp_arg_error(L, b, AT_FUNC,
                   lua_pushfstring(L, "name must be a string, got %s",
                                   luaL_typename(L, -1)));
    b->name = lua_tostring(L, -1); /* the spec keeps it */
  }
  lua_settop(L, spec);
  for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
    if (lua_getfield(L, spec, keys[i]) == LUA_TNIL && i == 1) {
      lua_pop(L, 1);
      lua_getfield(L, spec, "depfuncs");
    }
  if (lua_rawgeti(L, spec, 1) == LUA_TNIL) {
    lua_pop(L, 1);
    lua_getfield(L, spec, "func");
  }
  lua_pushvalue(L, spec); /* keep it alive: b->name points into it */
  lua_insert(L, AT_EXTRA);
  lua_replace(L, spec);
}
