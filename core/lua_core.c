/* SPDX-License-Identifier: MIT */
/* The C module pp.core, which pp/init.lua makes the library pp of. */
#include <errno.h>
#include <lauxlib.h>
#include <poll.h>
#include <string.h>

#include "lua_pp.h"
#include "proc.h"
#include "runner.h"

int luaopen_pp_core(lua_State *L);

/* pp.time(): seconds, monotonic. */
static int core_time(lua_State *L) {
  lua_pushnumber(L, (lua_Number)pp_now_ns() / 1e9);
  return 1;
}

/* pp.ncpus(): CPUs this process may use. */
static int core_ncpus(lua_State *L) {
  lua_pushinteger(L, pp_proc_cpus());
  return 1;
}

/* pp.is_error(v): whether v is the error of a job. */
static int core_is_error(lua_State *L) {
  bool is = false;

  luaL_checkany(L, 1);
  if (lua_istable(L, 1) && lua_getmetatable(L, 1)) {
    luaL_getmetatable(L, PP_ERROR_META);
    is = lua_rawequal(L, -1, -2);
  }
  lua_pushboolean(L, is);
  return 1;
}

/* core.jobs(): what -j said, or nil. */
static int core_jobs(lua_State *L) {
  pp_engine *e = pp_engine_here();

  if (e == NULL || e->options->jobs < 0)
    lua_pushnil(L);
  else
    lua_pushinteger(L, e->options->jobs);
  return 1;
}

/* core.running(): what pp.job is: nil outside of jobs. */
static int core_running(lua_State *L) {
  const pp_running *r;

  if (lua_getfield(L, LUA_REGISTRYINDEX, "pp.runner") == LUA_TNIL)
    return 1;
  r = pp_runner_running(lua_touserdata(L, -1));
  if (!r->active) {
    lua_pushnil(L);
    return 1;
  }
  lua_createtable(L, 0, 5);
  if (!r->base) {
    lua_pushinteger(L, (lua_Integer)r->id);
    lua_setfield(L, -2, "id");
  }
  lua_pushstring(L, r->node);
  lua_setfield(L, -2, "node");
  lua_pushinteger(L, r->worker);
  lua_setfield(L, -2, "worker");
  lua_pushinteger(L, r->attempt);
  lua_setfield(L, -2, "attempt");
  if (r->seeded) {
    lua_pushinteger(L, (lua_Integer)r->seed);
    lua_setfield(L, -2, "seed");
  }
  return 1;
}

/* pp.captures(f): what would travel with f. */
static int core_captures(lua_State *L) {
  pp_engine *e = pp_check_engine(L);

  luaL_checktype(L, 1, LUA_TFUNCTION);
  lua_settop(L, 1);
  if (pp_codec_captures(e->codec, L, 1) != 0) {
    luaL_where(L, 1);
    lua_insert(L, -2);
    lua_concat(L, 2);
    return lua_error(L);
  }
  return 1;
}

static const luaL_Reg funcs[] = {
    {"time", core_time}, {"ncpus", core_ncpus},     {"is_error", core_is_error},
    {"jobs", core_jobs}, {"running", core_running}, {"captures", core_captures},
    {NULL, NULL},
};

/* core -> core, with what `open` puts into the table on top, where it finds
 * what is there already. Two that put the same name there are an error of ours:
 * the first would silently be gone. */
static void add(lua_State *L, void (*open)(lua_State *)) {
  lua_newtable(L);
  lua_createtable(L, 0, 1);
  lua_pushvalue(L, -3);
  lua_setfield(L, -2, "__index");
  lua_setmetatable(L, -2);
  open(L);
  lua_pushnil(L);
  while (lua_next(L, -2) != 0) {
    lua_pushvalue(L, -2);
    if (lua_rawget(L, -5) != LUA_TNIL)
      luaL_error(L, "pp.core.%s is there twice", lua_tostring(L, -3));
    lua_pop(L, 1);
    lua_pushvalue(L, -2);
    lua_insert(L, -2);
    lua_rawset(L, -5);
  }
  lua_pop(L, 1);
}

int luaopen_pp_core(lua_State *L) {
  static void (*const parts[])(lua_State *) = {
      pp_open_server, pp_open_job,   pp_open_error,      pp_open_chunk,
      pp_open_step,   pp_open_put,   pp_open_everywhere, pp_open_meter,
      pp_open_watch,  pp_open_hosts, pp_open_given,      pp_open_command,
      pp_open_files,  pp_open_lines, pp_open_input,
  };

  luaL_newlib(L, funcs);
  for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
    add(L, parts[i]);
  return 1;
}
