/* SPDX-License-Identifier: MIT */
/***
Submitting jobs.
@module pp.submission
*/
/* server:submit in both its forms, and server:spawn. */
#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>

#include "blocks.h"
#include "choice.h"
#include "link.h"
#include "lua_submission.h"
#include "pin.h"
#include "plain.h"

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
static bool callable(lua_State *L, int idx) {
  if (lua_isfunction(L, idx))
    return true;
  if (luaL_getmetafield(L, idx, "__call") == LUA_TNIL)
    return false;
  lua_pop(L, 1);
  return true;
}

/* Note what there is, from AT_ARGS to `last`, and check it. */
static void check_parts(lua_State *L, submission *b, int last) {
  static const int tables[] = {AT_ARGS, AT_DEPS, AT_MODULES, AT_CBARGS,
                               AT_GLOBALS};

  if (!lua_isfunction(L, AT_FUNC))
    bad(L, b, AT_FUNC, "a function");
  for (int at = AT_ARGS; at <= last; at++)
    if (!lua_isnil(L, at))
      b->has |= 1u << at;
  if (b->has == 0)
    return;
  for (size_t i = 0; i < sizeof tables / sizeof *tables; i++)
    if (pp_has(b, tables[i]) && !lua_istable(L, tables[i]))
      bad(L, b, tables[i], "a table");
  if (pp_has(b, AT_CALLBACK) && !callable(L, AT_CALLBACK))
    bad(L, b, AT_CALLBACK, "a function");
  if (pp_has(b, AT_GROUP) && lua_type(L, AT_GROUP) != LUA_TSTRING)
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

  if (!pp_has(b, at))
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

  if (!pp_has(b, AT_CALLBACK) || !pp_has(b, AT_CBARGS))
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

pp_job *pp_compose(pp_server *s, const pp_packed *k) {
  pp_engine *e = s->engine;
  size_t len = e->scratch.len;
  bool afar = e->scratch.afar && len >= PP_CARGO_LEAST;
  pp_job *j = pp_job_new_in(&e->jobs, afar ? PP_REF_SIZE : len);
  pp_deps deps = k->deps;
  pp_cargo *args = NULL;

  if (j == NULL || pp_job_give_deps(j, deps.v, deps.n) != 0 ||
      ((k->mods > 0 || s->seeded || k->place > 0) && pp_job_more(j) == NULL) ||
      (k->place > 0 && k->tail == NULL) ||
      (afar && ((args = pp_cargo_of((pp_hold *)(void *)e->scratch.home,
                                    &e->scratch)) == NULL ||
                pp_job_give_args(j, args) != 0))) {
    if (j != NULL && pp_job_ndeps(j) > 0)
      memset(&deps, 0, sizeof deps); /* they go with it */
    pp_deps_clear(e->codec, &deps);
    pp_job_unref(j, &e->blobs);
    pp_cargo_unref(k->tail);
    if (!k->borrowed)
      pp_blob_unref(&e->blobs, k->parcel.blob);
    return NULL;
  }
  if (afar)
    pp_put_ref(j->body, args->at, args->len, args->slot.cap);
  else
    memcpy(j->body, e->scratch.data, len);
  if (e->scratch.cap > 1 << 20)
    pp_buf_clear(&e->scratch);
  if (k->tail != NULL)
    j->more->tail = k->tail;
  j->wire = (uint16_t)k->flags;
  if (k->parcel.flags & PP_PARCEL_MUTABLE)
    j->wire |= PP_JOBF_AFRESH;
  if (k->mods > 0)
    j->more->mods = (uint32_t)k->mods;
  if (s->seeded) {
    j->wire |= PP_JOBF_SEEDED;
    j->more->seed = s->seed;
  }
  j->fn = k->parcel.blob;
  if (k->borrowed)
    pp_blob_ref(j->fn);
  j->setting = k->setting;
  if (j->setting != NULL)
    pp_blob_ref(j->setting);
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

  if (lua_isnil(L, more))
    return;
  if (lua_isnil(L, kept))
    lua_copy(L, more, kept);
  if (lua_rawequal(L, more, kept))
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
static int pack_inline(lua_State *L, const submission *b, pp_deps *deps,
                       size_t mods, int kept) {
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

/* Do its jobs go to other machines, and no others? */
static bool all_far(pp_server *s) {
  bool far;

  pp_engine_enter(s->engine);
  far = s->engine->nest == NULL && s->engine->serial == NULL &&
        s->local->ncpus == 0 && s->local->next != NULL;
  pp_engine_leave(s->engine);
  return far;
}

/* Pack the arguments, pushed from first on, but for a large string at their end
 * that is to be pinned: it takes the place of their table, and the kept list
 * (there is nothing to keep) is pushed. False: it is not so. */
static bool pack_pinned(lua_State *L, const submission *b, int first,
                        pp_packed *k) {
  pp_buf *out = &b->e->scratch;
  int last = first + b->nargs - 1;

  if (!b->pins || b->nargs == 0 || lua_type(L, last) != LUA_TSTRING ||
      !pp_block_large(lua_rawlen(L, last)) || !all_far(b->s))
    return false;
  if (pp_plain_pack_but(L, first, b->nargs, out) <= 0)
    return false;
  if (out->len >= PP_CARGO_LEAST || (k->place = pp_pin_place(L)) == 0) {
    out->len = k->mods;
    return false;
  }
  lua_copy(L, last, AT_ARGS);
  lua_pushnil(L);
  return true;
}

void pp_submission_pack(lua_State *L, const submission *b, pp_packed *k) {
  pp_engine *e = b->e;
  int r = 0, kept, extra, first = lua_gettop(L) + 1;

  memset(k, 0, sizeof *k);
  /* Arguments. */
  e->scratch.len = 0;
  k->mods = pp_add_modules(L, b);
  luaL_checkstack(L, b->nargs + 10, "too many arguments");
  for (int i = 1; i <= b->nargs; i++)
    lua_rawgeti(L, AT_ARGS, i);
  if (!pack_pinned(L, b, first, k))
    r = pp_codec_pack(e->codec, L, first, b->nargs, "argument", &e->scratch,
                      &k->deps);
  if (r != 0)
    goto unsendable;
  kept = first + b->nargs;
  if (b->nargs > 0) {
    lua_replace(L, first);
    kept = first;
    lua_settop(L, first);
  }
  /* The function. */
  k->setting = pp_setting(L, e);
  extra = pp_has(b, AT_EXTRA) ? AT_EXTRA : 0;
  k->borrowed = pp_codec_cached(e->codec, L, AT_FUNC, extra, &k->parcel);
  if (!k->borrowed) {
    r = pp_codec_function(e->codec, L, AT_FUNC, extra, &k->parcel);
    if (r != 0)
      goto unsendable;
    keep_too(L, kept);
    lua_settop(L, kept);
  }
  if (extra == 0 && b->nargs > 0 && k->place == 0 &&
      may_share(L, b->nargs, k->parcel.flags & PP_PARCEL_MUTABLE)) {
    if (k->borrowed) {
      pp_engine_enter(e);
      pp_blob_ref(k->parcel.blob);
      pp_engine_leave(e);
      k->borrowed = false;
    }
    r = pack_inline(L, b, &k->deps, k->mods, kept);
    if (r != 0) {
      pp_engine_enter(e);
      pp_blob_unref(&e->blobs, k->parcel.blob);
      pp_engine_leave(e);
      goto unsendable;
    }
    k->flags = PP_JOBF_INLINE;
  }
  if (!k->borrowed) /* a finalizer may have run meanwhile */
    k->setting = pp_setting(L, e);
  if (k->place > 0)
    k->tail = pp_pin_string(e, L, k->place, AT_ARGS);
  return;
unsendable:
  if (k->place > 0)
    pp_pin_leave(L, k->place);
  pp_deps_clear(e->codec, &k->deps);
  if (lua_type(L, -1) == LUA_TSTRING) {
    luaL_where(L, 1);
    lua_insert(L, -2);
    lua_concat(L, 2);
  }
  lua_error(L);
}

pp_job *pp_submission_job(const submission *b, const pp_packed *k) {
  pp_job *j = pp_compose(b->s, k);

  if (j == NULL)
    return NULL;
  j->retries = (uint32_t)b->retries;
  j->timeout = b->timeout;
  j->priority = b->priority;
  j->slots = b->slots;
  if (b->on != NULL && pp_choice_set(b->s, j, b->on, b->on_len) != 0) {
    pp_job_unref(j, &b->e->blobs);
    return NULL;
  }
  if (b->retry_errors == 0 && b->memory == 0 && b->name == NULL)
    return j;
  if (pp_job_more(j) == NULL ||
      (b->name != NULL && (j->more->name = strdup(b->name)) == NULL)) {
    pp_job_unref(j, &b->e->blobs);
    return NULL;
  }
  j->more->error_retries = (uint32_t)b->retry_errors;
  j->more->memory = (uint64_t)b->memory;
  return j;
}

/* Everything is at its place on the stack and checked. Pushes the handle. */
static int submit(lua_State *L, submission *b) {
  pp_engine *e = b->e;
  pp_server *s = b->s;
  pp_ujob *u = pp_new_handle(L, AT_SELF); /* nothing may fail after the job */
  int handle = lua_gettop(L);
  size_t group_len = 7;
  const char *group = "default";
  pp_packed packed;
  int64_t now;
  pp_job *j;

  b->pins = true;
  pp_submission_pack(L, b, &packed);
  if (pp_has(b, AT_GROUP))
    group = lua_tolstring(L, AT_GROUP, &group_len);
  now = pp_now_ns();
  pp_engine_enter_stream(e, now);
  j = pp_submission_job(b, &packed);
  if (j == NULL) {
    pp_engine_leave(e);
    return luaL_error(L, "not enough memory");
  }
  u->j = j;
  if (b->forget)
    j->flags |= PP_JOB_FORGET;
  if (pp_has(b, AT_CALLBACK))
    j->flags |= PP_JOB_CALLBACK;
  pp_engine_look(e, now);
  j->group = pp_groups_get(&s->groups, group, group_len);
  j->id = s->next_id++;
  pp_server_add(s, pp_job_ref(j), now);
  pp_engine_leave(e);
  if (lua_isnil(L, -1))
    lua_settop(L, handle);
  else
    pp_job_hold(L, handle, PP_HOLD_KEPT);
  pp_keep_handle(L, AT_SELF);
  if (!s->anchored)
    pp_anchor(L, s, AT_SELF);
  if (pp_has(b, AT_CALLBACK)) {
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
  pp_submission_by_name(L, &b);
  lua_settop(L, AT_EXTRA);
  lua_pushvalue(L, AT_EXTRA); /* it holds name and on */
  lua_pushnil(L);
  lua_replace(L, AT_EXTRA);
  check_parts(L, &b, AT_GLOBALS);
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
  if (b.on != NULL && (u->on = strdup(b.on)) == NULL)
    return luaL_error(L, "not enough memory");
  u->on_len = b.on_len;
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
  as a global of the job, and `a.b` as the field `b` of a global `a` as well,
  which is made for that; what else stands there stays
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
int pp_server_submit(lua_State *L) {
  submission b;
  int top = lua_gettop(L);

  pp_submission_begin(L, &b);
  if (top == 2 && lua_istable(L, AT_FUNC)) {
    pp_submission_by_name(L, &b);
  } else {
    if (top > AT_GLOBALS)
      pp_arg_error(L, &b, AT_EXTRA, "submit takes at most eight arguments");
  }
  lua_settop(L, AT_EXTRA);
  if (b.by_name) {
    if (b.name != NULL || b.on != NULL)
      lua_pushvalue(L, AT_EXTRA); /* what holds them */
    lua_pushnil(L);
    lua_replace(L, AT_EXTRA);
    top = AT_GLOBALS;
  }
  check_parts(L, &b, top);
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
  b->has = b->nargs > 0 ? 1u << AT_ARGS : 0;
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
