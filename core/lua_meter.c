/* SPDX-License-Identifier: MIT */
/* What the script itself writes to the terminal, and reads from it, goes
 * around the progress line. Each function here stands for one of the standard
 * library and calls it in its own place, so that errors name it as ever. */
#include <lauxlib.h>
#include <string.h>

#include "lua_pp.h"

enum { OF = 1, METER }; /* upvalues */

static pp_meter *meter_of(lua_State *L) {
  return lua_touserdata(L, lua_upvalueindex(METER));
}

static int plain(lua_State *L) {
  return lua_tocfunction(L, lua_upvalueindex(OF))(L);
}

/* 0 stdout, 1 stderr, 2 stdin, -1 any other. */
static int which_of(const luaL_Stream *s) {
  if (s == NULL || s->closef == NULL)
    return -1;
  return s->f == stdout ? 0 : s->f == stderr ? 1 : s->f == stdin ? 2 : -1;
}

static int default_file(lua_State *L, const char *key) {
  int which;

  lua_getfield(L, LUA_REGISTRYINDEX, key);
  which = which_of(luaL_testudata(L, -1, LUA_FILEHANDLE));
  lua_pop(L, 1);
  return which;
}

/* Does the last of n arguments end a line? None: as it was. */
static bool ends_line(lua_State *L, int first, bool was) {
  size_t len;
  const char *s;

  if (lua_gettop(L) < first)
    return was;
  if (lua_type(L, -1) != LUA_TSTRING)
    return false;
  s = lua_tolstring(L, -1, &len);
  return len > 0 ? s[len - 1] == '\n' : was;
}

static int writing(lua_State *L, int which, int first) {
  pp_meter *m = meter_of(L);
  bool complete;
  int n;

  if (which != 0 && which != 1)
    return plain(L);
  complete = ends_line(L, first, !m->midline);
  pp_meter_hold(m, which);
  n = plain(L);
  pp_meter_release(m, which, complete);
  return n;
}

static int meter_print(lua_State *L) {
  pp_meter *m = meter_of(L);
  int n;

  pp_meter_hold(m, 0);
  n = plain(L);
  pp_meter_release(m, 0, true);
  return n;
}

static int meter_warn(lua_State *L) {
  pp_meter *m = meter_of(L);
  int n;

  pp_meter_hold(m, 1);
  n = plain(L);
  pp_meter_release(m, 1, true);
  return n;
}

static int meter_write(lua_State *L) {
  return writing(L, default_file(L, "_IO_output"), 1);
}

static int meter_fwrite(lua_State *L) {
  return writing(L, which_of(luaL_testudata(L, 1, LUA_FILEHANDLE)), 2);
}

/* A program may write, or the user type. */
static int around(lua_State *L) {
  pp_meter *m = meter_of(L);
  int n;

  pp_meter_hold(m, 1);
  n = plain(L);
  pp_meter_release(m, 1, true);
  return n;
}

static int meter_read(lua_State *L) {
  return default_file(L, "_IO_input") == 2 ? around(L) : plain(L);
}

static int meter_fread(lua_State *L) {
  return which_of(luaL_testudata(L, 1, LUA_FILEHANDLE)) == 2 ? around(L)
                                                             : plain(L);
}

/* Replace the field of the table on top. */
static void replace(lua_State *L, pp_meter *m, const char *name,
                    lua_CFunction f) {
  if (lua_getfield(L, -1, name) != LUA_TFUNCTION) {
    lua_pop(L, 1);
    return;
  }
  lua_pushlightuserdata(L, m);
  lua_pushcclosure(L, f, 2);
  lua_setfield(L, -2, name);
}

static int install(lua_State *L) {
  pp_meter *m = lua_touserdata(L, 1);

  lua_pushglobaltable(L);
  replace(L, m, "print", meter_print);
  replace(L, m, "warn", meter_warn);
  lua_getglobal(L, "io");
  replace(L, m, "write", meter_write);
  replace(L, m, "read", meter_read);
  replace(L, m, "popen", around);
  lua_getglobal(L, "os");
  replace(L, m, "execute", around);
  luaL_getmetatable(L, LUA_FILEHANDLE);
  lua_getfield(L, -1, "__index");
  replace(L, m, "write", meter_fwrite);
  replace(L, m, "read", meter_fread);
  return 0;
}

int pp_meter_install(lua_State *L, pp_meter *m) {
  lua_pushcfunction(L, install);
  lua_pushlightuserdata(L, m);
  if (lua_pcall(L, 1, 0, 0) == LUA_OK)
    return 0;
  lua_pop(L, 1);
  return PP_ENOMEM;
}

/* core.watch(asked, n): items are going to be iterated over, n of them if that
 * is known: is the line shown for them? */
static int watch(lua_State *L) {
  pp_engine *e = pp_check_engine(L);
  bool shown;

  pp_engine_enter(e);
  shown = pp_meter_watch(e, lua_toboolean(L, 1), luaL_optinteger(L, 2, -1));
  pp_engine_leave(e);
  lua_pushboolean(L, shown);
  return 1;
}

/* core.watched(k): so many of them have been submitted. */
static int watched(lua_State *L) {
  pp_engine *e = pp_check_engine(L);
  lua_Integer k = luaL_checkinteger(L, 1);

  pp_engine_enter(e);
  pp_meter_watched(&e->meter, (uint64_t)k);
  pp_engine_leave(e);
  return 0;
}

/* core.unwatch(asked, left): it is over, so many were not submitted. */
static int unwatch(lua_State *L) {
  pp_engine *e = pp_check_engine(L);
  lua_Integer left = luaL_optinteger(L, 2, -1);

  pp_engine_enter(e);
  pp_meter_unwatch(e, lua_toboolean(L, 1), left);
  pp_engine_leave(e);
  return 0;
}

static const luaL_Reg funcs[] = {
    {"watch", watch},
    {"watched", watched},
    {"unwatch", unwatch},
    {NULL, NULL},
};

void pp_open_meter(lua_State *L) { luaL_setfuncs(L, funcs, 0); }
