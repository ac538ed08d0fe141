/* SPDX-License-Identifier: MIT */
/* Callbacks: those of jobs that have ended, those of items of map and imap. */
#include <lauxlib.h>

#include "lua_pp.h"

/* Registry: callbacks of items that came up while another was running, each
 * {callback, arguments..., n = how many of both}, from e->put_off_first on. */
#define PUT_OFF "pp.put_off"

/* Call what stands below its n arguments. Its error is at the top, then. */
static int guarded(lua_State *L, pp_engine *e, int n) {
  int status;

  e->in_callback = true;
  status = lua_pcall(L, n, 0, 0);
  e->in_callback = false;
  return status;
}

/* Push the values of the list at idx: how many. */
static int push_list(lua_State *L, int idx) {
  int n;

  lua_getfield(L, idx, "n");
  n = lua_isnil(L, -1) ? (int)lua_rawlen(L, idx) : (int)lua_tointeger(L, -1);
  lua_pop(L, 1);
  luaL_checkstack(L, n + 10, "too many callback arguments");
  for (int i = 1; i <= n; i++)
    lua_rawgeti(L, idx, i);
  return n;
}

/* --- of items ------------------------------------------------------------- */

/* core.call_back(callback, its first arguments or nil, results...): now, or
 * when the callback that is running has returned. */
int pp_call_back(lua_State *L) {
  pp_engine *e = pp_check_engine(L);
  int n = lua_gettop(L) - 2;

  if (lua_istable(L, 2)) {
    int more = push_list(L, 2);

    lua_rotate(L, 3, more);
    n += more;
  }
  lua_remove(L, 2);
  if (!e->in_callback) {
    if (guarded(L, e, n) != LUA_OK)
      return lua_error(L);
    return 0;
  }
  lua_createtable(L, n + 1, 1);
  lua_insert(L, 1);
  lua_pushinteger(L, n + 1);
  lua_setfield(L, 1, "n");
  for (int i = n + 1; i >= 1; i--)
    lua_rawseti(L, 1, i);
  luaL_getsubtable(L, LUA_REGISTRYINDEX, PUT_OFF);
  lua_insert(L, 1);
  lua_rawseti(L, 1, (lua_Integer)(e->put_off_first + e->put_off));
  pp_engine_enter(e);
  e->put_off++;
  e->callbacks++;
  pp_engine_leave(e);
  return 0;
}

/* Take the oldest that was put off: pushes its list; false if there is none. */
static bool take_put_off(lua_State *L, pp_engine *e) {
  lua_Integer at = (lua_Integer)e->put_off_first;

  if (e->put_off == 0)
    return false;
  luaL_getsubtable(L, LUA_REGISTRYINDEX, PUT_OFF);
  lua_rawgeti(L, -1, at);
  lua_pushnil(L);
  lua_rawseti(L, -3, at);
  lua_remove(L, -2);
  pp_engine_enter(e);
  e->put_off_first++;
  e->put_off--;
  e->callbacks--;
  pp_engine_leave(e);
  return true;
}

void pp_drop_put_off(lua_State *L, pp_engine *e) {
  while (take_put_off(L, e))
    lua_pop(L, 1);
}

/* --- of jobs -------------------------------------------------------------- */

static int call_back(lua_State *L) {
  /* 1 callback, 2 its arguments or nil, 3 the job's handle */
  int n = 0, results;

  lua_pushvalue(L, 1);
  if (lua_istable(L, 2))
    n = push_list(L, 2);
  results = pp_push_results(L, 3);
  if (results < 0) {
    lua_pushnil(L);
    lua_insert(L, -2);
    results = 2;
  }
  lua_call(L, n + results, 0);
  return 0;
}

/* Take the next job whose callback is due; NULL: none. */
static pp_job *next_due(pp_engine *e) {
  pp_job *j = NULL;
  pp_server *s;

  pp_engine_enter(e);
  for (s = e->servers; s != NULL && j == NULL; s = s->next)
    j = pp_jobs_pop(&s->callbacks);
  for (s = e->closed; s != NULL && j == NULL; s = s->next)
    j = pp_jobs_pop(&s->callbacks);
  if (j != NULL) {
    e->callbacks--;
    j->flags &= (uint16_t)~PP_JOB_CALLBACK;
    pp_server_seen(j->server, j);
  }
  pp_engine_leave(e);
  return j;
}

/* Run the callback of a job, whose reference passes; an error's at the top. */
static int run_due(lua_State *L, pp_engine *e, pp_job *j) {
  lua_Integer id = (lua_Integer)j->id;
  int status = LUA_OK;

  luaL_getsubtable(L, LUA_REGISTRYINDEX, PP_HANDLES);
  if (lua_rawgetp(L, -1, j->server) == LUA_TUSERDATA) {
    lua_getiuservalue(L, -1, PP_UV_HELD);
    lua_rawgeti(L, -1, id);
    lua_pushnil(L);
    lua_rawseti(L, -3, id);
    if (lua_istable(L, -1)) {
      int held = lua_gettop(L);

      lua_pushcfunction(L, call_back);
      for (int i = 1; i <= 3; i++)
        lua_rawgeti(L, held, i);
      status = guarded(L, e, 3);
    }
  }
  pp_engine_enter(e);
  pp_job_unref(j, &e->blobs);
  pp_engine_leave(e);
  return status;
}

void pp_run_callbacks(lua_State *L, pp_engine *e) {
  int top = lua_gettop(L), status;
  pp_job *j;

  luaL_checkstack(L, 20, NULL);
  for (;;) {
    if (take_put_off(L, e)) {
      int n;

      n = push_list(L, top + 1);
      status = guarded(L, e, n - 1);
    } else if ((j = next_due(e)) != NULL) {
      status = run_due(L, e, j);
    } else {
      return;
    }
    if (status != LUA_OK)
      lua_error(L);
    lua_settop(L, top);
  }
}
