/* SPDX-License-Identifier: MIT */
#include "script.h"

#include <lauxlib.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "interrupt.h"
#include "meter.h"

/* Is the error value at index 1 a job's error? */
static bool is_job_error(lua_State *L) {
  bool yes = false;

  if (luaL_getmetafield(L, 1, "__name") == LUA_TSTRING)
    yes = strcmp(lua_tostring(L, -1), "pp.error") == 0;
  lua_settop(L, 1);
  return yes;
}

/* Message handler: any error value -> what is printed. */
static int explain(lua_State *L) {
  const char *message = lua_tostring(L, 1);

  if (message == NULL) {
    bool of_job = is_job_error(L);

    if (luaL_callmeta(L, 1, "__tostring") && lua_type(L, -1) == LUA_TSTRING) {
      if (of_job)
        luaL_traceback(L, L,
                       lua_pushfstring(L, "%s\njob() was called here:",
                                       lua_tostring(L, -1)),
                       1);
      return 1; /* it explains itself */
    }
    message =
        lua_pushfstring(L, "(error object is a %s value)", luaL_typename(L, 1));
  }
  luaL_traceback(L, L, message, 1);
  return 1;
}

int pp_script_call(lua_State *L, int narg, int nres) {
  int base = lua_gettop(L) - narg, status;

  lua_pushcfunction(L, explain);
  lua_insert(L, base);
  status = lua_pcall(L, narg, nres, base);
  lua_remove(L, base);
  return status;
}

static int raise_interrupt(lua_State *L) {
  pp_interrupt_check(L);
  return 0;
}

/* After a load that failed because Ctrl-C cut the reading short. */
static int explain_load(lua_State *L, int status) {
  if (status != LUA_OK && pp_interrupt_pending() != 0) {
    lua_pop(L, 1);
    lua_pushcfunction(L, raise_interrupt);
    return pp_script_call(L, 0, 0);
  }
  return status;
}

int pp_script_string(lua_State *L, const char *code, const char *chunkname) {
  int status = luaL_loadbuffer(L, code, strlen(code), chunkname);

  return status == LUA_OK ? pp_script_call(L, 0, 0) : status;
}

int pp_script_file(lua_State *L, const char *name) {
  int status = explain_load(L, luaL_loadfile(L, name));

  return status == LUA_OK ? pp_script_call(L, 0, 0) : status;
}

int pp_script_main(lua_State *L, char **argv, int n) {
  const char *name = argv[0];
  int status, i, count;

  if (strcmp(name, "-") == 0 && strcmp(argv[-1], "--") != 0)
    name = NULL;
  status = explain_load(L, luaL_loadfile(L, name));
  if (status != LUA_OK)
    return status;
  /* The script's arguments are what the table says by now: -e may have
   * changed it. */
  (void)n;
  if (lua_getglobal(L, "arg") != LUA_TTABLE)
    return luaL_error(L, "'arg' is not a table");
  count = (int)luaL_len(L, -1);
  luaL_checkstack(L, count + 3, "too many arguments to script");
  for (i = 1; i <= count; i++)
    lua_rawgeti(L, -i, i);
  lua_remove(L, -i);
  return pp_script_call(L, count, 0);
}

int pp_script_require(lua_State *L, const char *what) {
  const char *equals = strchr(what, '=');
  const char *module = equals != NULL ? equals + 1 : what;
  int status;

  lua_getglobal(L, "require");
  lua_pushstring(L, module);
  status = pp_script_call(L, 1, 1);
  if (status == LUA_OK) {
    lua_pushglobaltable(L);
    lua_pushlstring(L, what,
                    equals != NULL ? (size_t)(equals - what) : strlen(what));
    lua_rotate(L, -3, -1);
    lua_settable(L, -3);
    lua_pop(L, 1);
  }
  return status;
}

void pp_script_arg(lua_State *L, char **argv, int argc, int script) {
  int i;

  if (script == argc)
    script = 0;
  lua_createtable(L, argc - script - 1 > 0 ? argc - script - 1 : 0, script + 1);
  for (i = 0; i < argc; i++) {
    lua_pushstring(L, argv[i]);
    lua_rawseti(L, -2, i - script);
  }
  lua_setglobal(L, "arg");
}

int pp_script_report(lua_State *L, int status, const char *progname) {
  const char *message;
  int r = 1;

  if (status == LUA_OK)
    return 0;
  message = lua_tostring(L, -1);
  if (message == NULL)
    message = "(error message not a string)";
  if (pp_interrupt_was() && strstr(message, "interrupted!") != NULL)
    r = 128 + SIGINT;
  fflush(stdout);
  pp_meter_quiet();
  if (progname != NULL)
    fprintf(stderr, "%s: ", progname);
  fprintf(stderr, "%s\n", message);
  fflush(stderr);
  lua_pop(L, 1);
  return r;
}

void pp_script_global_pp(lua_State *L) {
  int top = lua_gettop(L);

  if (lua_getglobal(L, "pp") == LUA_TNIL) {
    lua_getglobal(L, "require");
    lua_pushliteral(L, "pp");
    if (lua_pcall(L, 1, 1, 0) == LUA_OK)
      lua_setglobal(L, "pp");
    else
      pp_script_report(L, LUA_ERRRUN, "ppsh");
  }
  lua_settop(L, top);
}
