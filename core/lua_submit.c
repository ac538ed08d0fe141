/* SPDX-License-Identifier: MIT */
/***
Submitting jobs.
@module pp.submission
*/
/* server:submit in both its forms, and server:spawn. */
#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "link.h"
#include "lua_submission.h"

#define ARGS_MAX 200000

/* --- submit --------------------------------------------------------------- */

static int bad(lua_State *L, const submission *b, int at, const char *what) {
  return pp_arg_error(L, b, at,
                      lua_pushfstring(L, "%s must be %s, got %s", b->names[at],
                                      what, luaL_typename(L, at)));
}

static const char *const names_by_place[AT_EXTRA] = {
    "",        "self",     "func",         "args",  "depfuncs",
    "modules", "callback", "callbackargs", "group", "globals",
};
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

/* submit{...}: spread the fields over the places of the other form. */
static void by_name(lua_State *L, submission *b) {
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

static bool callable(lua_State *L, int idx) {
  if (lua_isfunction(L, idx))
    return true;
  if (luaL_getmetafield(L, idx, "__call") == LUA_TNIL)
    return false;
  lua_pop(L, 1);
  return true;
}

static void check_parts(lua_State *L, submission *b) {
  static const struct {
    int at;
    const char *what;
  } tables[] = {
      {AT_ARGS, "a table"},   {AT_DEPS, "a table"},    {AT_MODULES, "a table"},
      {AT_CBARGS, "a table"}, {AT_GLOBALS, "a table"},
  };

  if (!lua_isfunction(L, AT_FUNC))
    bad(L, b, AT_FUNC, "a function");
  for (size_t i = 0; i < sizeof tables / sizeof *tables; i++)
    if (!lua_isnil(L, tables[i].at) && !lua_istable(L, tables[i].at))
      bad(L, b, tables[i].at, tables[i].what);
  if (!lua_isnil(L, AT_CALLBACK) && !callable(L, AT_CALLBACK))
    bad(L, b, AT_CALLBACK, "a function");
  if (!lua_isnil(L, AT_GROUP) && lua_type(L, AT_GROUP) != LUA_TSTRING)
    bad(L, b, AT_GROUP, "a string");
}

/* A list that is not what it looks like (pp.range): a plain one in its place.
 */
static void plain_args(lua_State *L, const submission *b, int at) {
  lua_Integer n;

  if (luaL_getmetafield(L, at, "__len") == LUA_TNIL &&
      luaL_getmetafield(L, at, "__index") == LUA_TNIL)
    return;
  lua_pop(L, 1);
  n = luaL_len(L, at);
  if (n < 0 || n > ARGS_MAX)
    pp_arg_error(L, b, at,
                 lua_pushfstring(L, "%s has more than %d values", b->names[at],
                                 ARGS_MAX));
  lua_createtable(L, (int)n, 0);
  for (lua_Integer i = 1; i <= n; i++) {
    lua_geti(L, at, i);
    lua_rawseti(L, -2, i);
  }
  lua_pushliteral(L, "n");
  if (lua_rawget(L, at) != LUA_TNIL)
    lua_setfield(L, -2, "n");
  else
    lua_pop(L, 1);
  lua_replace(L, at);
}

/* How many arguments the table at idx holds: n, else #. */
static int count_args(lua_State *L, const submission *b, int at) {
  lua_Integer n;

  if (lua_isnil(L, at))
    return 0;
  if (PP_UNLIKELY(lua_getmetatable(L, at))) {
    lua_pop(L, 1);
    plain_args(L, b, at);
  }
  lua_pushliteral(L, "n");
  if (lua_rawget(L, at) == LUA_TNIL) {
    n = (lua_Integer)lua_rawlen(L, at);
  } else {
    int ok;

    n = lua_tointegerx(L, -1, &ok);
    if (!ok || n < 0)
      pp_arg_error(
          L, b, at,
          lua_pushfstring(L, "%s.n must be an integer >= 0", b->names[at]));
  }
  lua_pop(L, 1);
  if (n > ARGS_MAX)
    pp_arg_error(L, b, at,
                 lua_pushfstring(L, "%s has more than %d values", b->names[at],
                                 ARGS_MAX));
  return (int)n;
}

/* The callback's arguments are what they are now. */
static void keep_args(lua_State *L, const submission *b) {
  int n = count_args(L, b, AT_CBARGS);

  if (lua_isnil(L, AT_CALLBACK) || lua_isnil(L, AT_CBARGS))
    return;
  lua_createtable(L, n, 1);
  for (int i = 1; i <= n; i++) {
    lua_rawgeti(L, AT_CBARGS, i);
    lua_rawseti(L, -2, i);
  }
  lua_pushinteger(L, n);
  lua_setfield(L, -2, "n");
  lua_replace(L, AT_CBARGS);
}

/* --- the submission ------------------------------------------------------- */

pp_job *pp_compose(pp_engine *e, const pp_parcel *parcel, pp_deps *deps,
                   uint32_t flags, size_t mods) {
  size_t body = e->scratch.len;
  bool afar = e->scratch.afar && body >= PP_CARGO_LEAST;
  size_t len =
      PP_FRAME_HEAD + PP_JOB_HEAD + 4 * deps->n + (afar ? PP_REF_SIZE : body);
  pp_job *j = pp_job_new(len);
  unsigned char *p;

  if (j != NULL && afar &&
      (j->args = pp_cargo_of((pp_hold *)(void *)e->scratch.home,
                             &e->scratch)) == NULL) {
    pp_engine_enter(e);
    pp_job_unref(j, &e->blobs);
    pp_engine_leave(e);
    j = NULL;
  }
  if (j == NULL) {
    pp_engine_enter(e);
    pp_blob_unref(&e->blobs, parcel->blob);
    pp_engine_leave(e);
    pp_deps_clear(e->codec, deps);
    return NULL;
  }
  p = j->frame;
  pp_frame_head(p, PP_F_JOB | (afar ? PP_F_AFAR : 0), len - PP_FRAME_HEAD);
  p += PP_FRAME_HEAD;
  memset(p, 0, PP_JOB_HEAD);
  if (parcel->flags & PP_PARCEL_MUTABLE)
    flags |= PP_JOBF_AFRESH;
  pp_put32(p + PP_JOB_FLAGS, flags);
  pp_put32(p + PP_JOB_NDEPS, (uint32_t)deps->n);
  pp_put32(p + PP_JOB_EXTRA, (uint32_t)mods);
  p += PP_JOB_HEAD + 4 * deps->n;
  if (afar)
    pp_put_ref(p, j->args->at, j->args->len, j->args->slot.cap);
  else
    memcpy(p, e->scratch.data, body);
  if (e->scratch.cap > 1 << 20)
    pp_buf_clear(&e->scratch);
  j->fn = parcel->blob;
  j->deps = deps->v;
  j->ndeps = (uint32_t)deps->n;
  return j;
}

/* May an argument share something with what the function captured? A function
 * may share upvalues, a table be captured too. */
static bool may_share(lua_State *L, int nargs, bool tables) {
  for (int i = 1; i <= nargs; i++) {
    int t = lua_rawgeti(L, AT_ARGS, i);

    lua_pop(L, 1);
    if (t == LUA_TFUNCTION || (tables && t == LUA_TTABLE))
      return true;
  }
  return false;
}

/* Let the kept list at `kept` (or nil) keep what that on top (or nil) keeps.
 * Both are by id, so one list does for a chain of jobs however long. */
static void keep_too(lua_State *L, int kept) {
  int more = lua_gettop(L);

  if (lua_isnil(L, kept))
    lua_copy(L, more, kept);
  if (lua_isnil(L, more) || lua_rawequal(L, more, kept))
    return;
  lua_pushnil(L);
  while (lua_next(L, more)) {
    lua_pushvalue(L, -2);
    lua_insert(L, -2);
    lua_rawset(L, kept);
  }
}

/*
 * Pack the arguments anew, the function before them, as one graph: a table or
 * an upvalue that it captured and that is also an argument is one thing in the
 * job. Both have been found fit to travel. The kept list joins that at kept.
 */
static int pack_inline(lua_State *L, submission *b, pp_deps *deps, size_t mods,
                       int kept) {
  pp_engine *e = b->e;
  int first = lua_gettop(L) + 1, r;

  pp_deps_clear(e->codec, deps);
  e->scratch.len = mods;
  lua_pushvalue(L, AT_FUNC);
  for (int i = 1; i <= b->nargs; i++)
    lua_rawgeti(L, AT_ARGS, i);
  r = pp_codec_pack(e->codec, L, first, b->nargs + 1, "argument", &e->scratch,
                    deps);
  if (r != 0)
    return r;
  keep_too(L, kept);
  lua_settop(L, kept);
  return 0;
}

pp_job *pp_submission_job(lua_State *L, submission *b) {
  pp_engine *e = b->e;
  pp_parcel parcel;
  pp_deps deps = {0};
  pp_job *j;
  pp_blob *set;
  size_t mods;
  int r, kept, first = lua_gettop(L) + 1;
  uint32_t flags = 0;

  /* Arguments. */
  e->scratch.len = 0;
  mods = pp_add_modules(L, b);
  luaL_checkstack(L, b->nargs + 10, "too many arguments");
  for (int i = 1; i <= b->nargs; i++)
    lua_rawgeti(L, AT_ARGS, i);
  r = pp_codec_pack(e->codec, L, first, b->nargs, "argument", &e->scratch,
                    &deps);
  if (r != 0)
    goto unsendable;
  kept = first + b->nargs;
  if (b->nargs > 0) {
    lua_replace(L, first);
    kept = first;
    lua_settop(L, first);
  }
  /* The function. */
  r = pp_codec_function(e->codec, L, AT_FUNC,
                        lua_isnil(L, AT_EXTRA) ? 0 : AT_EXTRA, &parcel);
  if (r != 0)
    goto unsendable;
  keep_too(L, kept);
  lua_settop(L, kept);
  if (lua_isnil(L, AT_EXTRA) &&
      may_share(L, b->nargs, parcel.flags & PP_PARCEL_MUTABLE)) {
    r = pack_inline(L, b, &deps, mods, kept);
    if (r != 0) {
      pp_engine_enter(e);
      pp_blob_unref(&e->blobs, parcel.blob);
      pp_engine_leave(e);
      goto unsendable;
    }
    flags = PP_JOBF_INLINE;
  }
  set = pp_setting(L, e);
  j = pp_compose(e, &parcel, &deps, flags, mods);
  if (j == NULL) {
    luaL_error(L, "not enough memory");
    return NULL;
  }
  j->retries = (uint32_t)b->retries;
  j->error_retries = (uint32_t)b->retry_errors;
  j->timeout = b->timeout;
  j->priority = b->priority;
  j->setting = set; /* borrowed as yet */
  j->slots = b->slots;
  pp_put64(j->frame + PP_FRAME_HEAD + PP_JOB_MEMORY, (uint64_t)b->memory);
  return j;
unsendable:
  pp_deps_clear(e->codec, &deps);
  if (lua_type(L, -1) == LUA_TSTRING) {
    luaL_where(L, 1);
    lua_insert(L, -2);
    lua_concat(L, 2);
  }
  lua_error(L);
  return NULL;
}

/* Everything is at its place on the stack and checked. Pushes the handle. */
static int submit(lua_State *L, submission *b) {
  pp_engine *e = b->e;
  pp_server *s = b->s;
  pp_job *j = pp_submission_job(L, b);
  pp_blob *set = j->setting;
  size_t group_len = 7;
  const char *group = "default";
  int64_t now;

  j->setting = NULL;
  if (lua_type(L, AT_GROUP) == LUA_TSTRING)
    group = lua_tolstring(L, AT_GROUP, &group_len);
  if (b->forget)
    j->flags |= PP_JOB_FORGET;
  if (!lua_isnil(L, AT_CALLBACK))
    j->flags |= PP_JOB_CALLBACK;
  if (b->name != NULL)
    j->name = strdup(b->name);
  pp_push_job(L, j, AT_SELF, lua_gettop(L));
  /* From here on nothing fails. */
  now = pp_now_ns();
  pp_engine_enter(e);
  pp_engine_look(e, now);
  j->setting = set != NULL ? pp_blob_ref(set) : NULL;
  j->group = pp_groups_get(&s->groups, group, group_len);
  j->id = s->next_id++;
  if (b->nowhere[0] == '\0')
    pp_server_add(s, pp_job_ref(j), now);
  else
    pp_server_add_failed(s, pp_job_ref(j), now, PP_KIND_CONNECT, b->nowhere);
  pp_engine_leave(e);
  pp_keep_handle(L, AT_SELF);
  if (!s->anchored)
    pp_anchor(L, s, AT_SELF);
  if (!lua_isnil(L, AT_CALLBACK)) {
    int handle = lua_gettop(L);

    lua_getiuservalue(L, AT_SELF, PP_UV_HELD);
    lua_createtable(L, 3, 0);
    lua_pushvalue(L, AT_CALLBACK);
    lua_rawseti(L, -2, 1);
    lua_pushvalue(L, AT_CBARGS);
    lua_rawseti(L, -2, 2);
    lua_pushvalue(L, handle);
    lua_rawseti(L, -2, 3);
    lua_rawseti(L, -2, (lua_Integer)j->id);
    lua_settop(L, handle);
  }
  return 1;
}

/*
 * core.parcel(server, method, spec): what server:map and the like submit again
 * and again: spec is as for submit{...} without args and callback. Returns a
 * parcel: the function and all that goes with it, as they are now.
 */
int pp_parcel_new(lua_State *L) {
  submission b;
  pp_uparcel *u;
  pp_parcel parcel;
  size_t mods;
  int r;

  pp_submission_begin(L, &b);
  b.method = luaL_checkstring(L, 2);
  b.level = 3;
  b.number = 3;
  lua_remove(L, 2);
  by_name(L, &b);
  lua_settop(L, AT_EXTRA);
  lua_pushnil(L);
  lua_replace(L, AT_EXTRA);
  check_parts(L, &b);
  count_args(L, &b, AT_CBARGS);
  pp_add_deps(L, &b);
  pp_add_globals(L, &b);
  u = lua_newuserdatauv(L, sizeof *u, 1);
  memset(u, 0, sizeof *u);
  luaL_setmetatable(L, PP_PARCEL_META);
  b.e->scratch.len = 0;
  mods = pp_add_modules(L, &b);
  if (pp_buf_put(&u->modules, b.e->scratch.data, mods) != 0)
    return luaL_error(L, "not enough memory");
  r = pp_codec_function(b.e->codec, L, AT_FUNC,
                        lua_isnil(L, AT_EXTRA) ? 0 : AT_EXTRA, &parcel);
  if (r != 0) {
    luaL_where(L, b.level);
    lua_insert(L, -2);
    lua_concat(L, 2);
    return lua_error(L);
  }
  u->parcel = parcel;
  u->retries = (uint32_t)b.retries;
  u->error_retries = (uint32_t)b.retry_errors;
  u->timeout = b.timeout;
  u->priority = b.priority;
  u->slots = b.slots;
  if (b.nowhere[0] != '\0' && (u->nowhere = strdup(b.nowhere)) == NULL)
    return luaL_error(L, "not enough memory");
  u->memory = (uint64_t)b.memory;
  if (b.name != NULL)
    u->name = strdup(b.name);
  lua_setiuservalue(L, -2, 1); /* the kept list */
  lua_pushboolean(L, b.timeout > 0);
  lua_pushinteger(L, b.retries);
  return 3;
}

void pp_submission_begin(lua_State *L, submission *b) {
  memset(b, 0, sizeof *b);
  b->s = pp_check_server(L, 1);
  b->e = pp_check_engine(L);
  b->retries = b->s->retries;
  b->timeout = b->s->timeout;
  b->memory = (lua_Integer)b->s->memory;
  b->method = "submit";
  b->level = 1;
  b->number = 1;
  memcpy(b->names, names_by_place, sizeof b->names);
}

/***
Submit a job: a call of a function in a worker. Does not wait.
The arguments stand in parallelpython's order, all but `func` are optional; or a
table of options (see below) is the only argument, as in
`server:submit{func, args = {1, 2}}`. All of it is taken as it is at the call.
@function Server:submit
@func func called as `func(args[1], ..., args[n])` in a worker
@tparam[opt] table args its arguments: `args.n`, else `#args` of them
@tparam[opt] table depfuncs functions to be found under their names: a list, or
  a map name -> function. Rarely needed: what `func` reaches by name goes along
@tparam[opt] table modules names of modules to be required first; each is set
  as a global of the job
@func[opt] callback called in a waiting call of the script when the job has
  ended: `callback(a1, ..., an, results...)`, with the callbackargs first; for a
  failed job `callback(a1, ..., an, nil, err)`
@tparam[opt] table callbackargs `callbackargs.n`, else `#callbackargs` of them
@string[opt] group a name to wait for with others; "default"
@tparam[opt] table globals more globals: a list of names of the script's, or a
  map name -> value
@treturn Job its handle
@raise bad arguments, options that do not exist, and what cannot travel, with
  the path to it: all at the caller's line
*/
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
int pp_server_submit(lua_State *L) {
  submission b;
  int top = lua_gettop(L);

  pp_submission_begin(L, &b);
  if (top == 2 && lua_istable(L, AT_FUNC)) {
    by_name(L, &b);
  } else {
    if (top > AT_GLOBALS)
      pp_arg_error(L, &b, AT_EXTRA, "submit takes at most eight arguments");
  }
  lua_settop(L, AT_EXTRA);
  if (b.by_name && b.name != NULL)
    lua_pushvalue(L, AT_EXTRA); /* the spec, which holds the name */
  lua_pushnil(L);
  lua_replace(L, AT_EXTRA);
  check_parts(L, &b);
  b.nargs = count_args(L, &b, AT_ARGS);
  keep_args(L, &b);
  pp_add_deps(L, &b);
  pp_add_globals(L, &b);
  return submit(L, &b);
}

void pp_submission_spread(lua_State *L, submission *b) {
  int n = lua_gettop(L);

  if (!lua_isfunction(L, AT_FUNC))
    bad(L, b, AT_FUNC, "a function");
  lua_createtable(L, n > 2 ? n - 2 : 0, 1);
  for (int i = 3; i <= n; i++) {
    lua_pushvalue(L, i);
    lua_rawseti(L, -2, i - 2);
  }
  lua_replace(L, n >= 3 ? 3 : (lua_pushnil(L), lua_insert(L, 3), 3));
  b->nargs = n > 2 ? n - 2 : 0;
  lua_settop(L, 3);
  lua_settop(L, AT_EXTRA);
}

/***
Submit a job for `func(...)`: the short form.
@function Server:spawn
@func func
@param ... its arguments
@treturn Job its handle
@raise as submit
*/
int pp_server_spawn(lua_State *L) {
  submission b;

  pp_submission_begin(L, &b);
  b.method = "spawn";
  pp_submission_spread(L, &b);
  return submit(L, &b);
}
