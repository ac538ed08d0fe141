/* SPDX-License-Identifier: MIT */
/***
Submitting jobs.
@module pp.submission
*/
/* The table form of submit: its names and what may stand under each. */
#include <lauxlib.h>
#include <string.h>

#include "host.h"
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

static void check_names(lua_State *L, submission *b, int idx) {
  size_t n;
  const char *names;

  if (lua_type(L, idx) != LUA_TSTRING)
    pp_arg_error(L, b, AT_FUNC,
                 lua_pushfstring(L,
                                 "on must be a node's name or a list of names, "
                                 "got %s",
                                 luaL_typename(L, idx)));
  names = lua_tolstring(L, idx, &n);
  if (n == 0 || strspn(names, " \t,") == n)
    pp_arg_error(L, b, AT_FUNC, "on names no node");
}

/* on =: the nodes the job may run at, as a string: a list is one with commas.
 * Pushes it; or nil. */
static void read_on(lua_State *L, submission *b) {
  int on = lua_gettop(L) + 1;
  luaL_Buffer list;

  if (lua_getfield(L, AT_FUNC, "on") == LUA_TNIL)
    return;
  if (lua_type(L, on) != LUA_TTABLE) {
    check_names(L, b, on);
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
      luaL_addvalue(&list);
    }
    luaL_pushresult(&list);
    lua_replace(L, on);
  }
  b->on = lua_tolstring(L, on, &b->on_len);
  if (b->on_len > PP_ON_MAX)
    pp_arg_error(L, b, AT_FUNC,
                 lua_pushfstring(L, "on is longer than %d bytes", PP_ON_MAX));
}

/* slots =: how many places the job takes. */
static lua_Integer read_slots(lua_State *L, submission *b) {
  lua_Integer n = 1;

  if (lua_getfield(L, AT_FUNC, "slots") != LUA_TNIL) {
    int ok;

    n = lua_tointegerx(L, -1, &ok);
    if (!ok || lua_type(L, -1) != LUA_TNUMBER || n < 1)
      pp_arg_error(L, b, AT_FUNC,
                   lua_pushfstring(L, "slots must be an integer >= 1, got %s",
                                   luaL_tolstring(L, -1, NULL)));
  }
  lua_pop(L, 1);
  return n;
}

/* The largest of the nodes the job may run at; NULL: it is not known yet. */
static const pp_node *largest(const pp_server *s, const pp_nodeset *set) {
  const pp_node *most = NULL;

  for (const pp_node *n = s->local; n != NULL; n = n->next) {
    const char *name = pp_node_name(n);

    if (set != NULL && !pp_nodeset_has(set, name, strlen(name)))
      continue;
    if (n->expected && n->ncpus == 0)
      return NULL;
    if (most == NULL || n->ncpus > most->ncpus)
      most = n;
  }
  return most;
}

/* Where the job may run, and how much of that it takes: at most the workers of
 * the largest node, as far as is known. A server of no workers has one place,
 * and it is enough. Pushes what `on` says, or nil. */
static void read_place(lua_State *L, submission *b) {
  lua_Integer slots;
  const pp_node *most;
  pp_nodeset *set = NULL;
  pp_host_error e;
  int r;

  read_on(L, b);
  slots = read_slots(L, b);
  if (b->on == NULL && slots == 1)
    return;
  if (b->on != NULL && (r = pp_nodeset_new(&set, b->on, b->on_len, &e)) != 0) {
    if (r == PP_ENOMEM)
      luaL_error(L, "not enough memory");
    pp_arg_error(L, b, AT_FUNC,
                 lua_pushfstring(L, "on is no set of nodes: %s", e.message));
  }
  most = largest(b->s, set);
  pp_nodeset_free(set);
  if (pp_server_here(b->s))
    slots = 1;
  else if (most != NULL && most->ncpus > 0 && slots > (lua_Integer)most->ncpus)
    pp_arg_error(L, b, AT_FUNC,
                 lua_pushfstring(L,
                                 "slots must be at most %d, the workers of "
                                 "'%s', got %I",
                                 (int)most->ncpus, pp_node_name(most), slots));
  b->slots = slots < UINT32_MAX ? (uint32_t)slots : UINT32_MAX;
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
  a set as hosts are written ("node[1-3]", "a,b!c"), without users and workers,
  or a list of such; "local" is this machine. A node of the set that is still
  connecting is waited for. Where there is none of them nor will be, the job
  fails with kind "connect"
@tfield[opt] integer slots places of workers it takes, all of one node; 1. It
  starts when so many are idle there, and they are kept for it. At most the
  workers of the largest node it may run at; while such a node is still
  connecting, it is waited for if none of the others is large enough. When it
  turns out that none is, the job takes all workers of the largest
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
  int spec = AT_FUNC, kept = AT_FUNC + 1;

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
  read_place(L, b);
  lua_insert(L, kept);
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
  lua_settop(L, kept); /* what b->on and b->name point into: on, or the spec */
  if (b->on == NULL) {
    lua_pushvalue(L, spec);
    lua_replace(L, kept);
  } else if (b->name != NULL) {
    lua_createtable(L, 2, 0);
    lua_insert(L, kept);
    lua_rawseti(L, kept, 1);
    lua_pushvalue(L, spec);
    lua_rawseti(L, kept, 2);
  }
  for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
    if (lua_getfield(L, spec, keys[i]) == LUA_TNIL && i == 1) {
      lua_pop(L, 1);
      lua_getfield(L, spec, "depfuncs");
    }
  if (lua_rawgeti(L, spec, 1) == LUA_TNIL) {
    lua_pop(L, 1);
    lua_getfield(L, spec, "func");
  }
  lua_pushvalue(L, kept);
  lua_remove(L, kept);
  lua_insert(L, AT_EXTRA);
  lua_replace(L, spec);
}
