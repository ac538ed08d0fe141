/* SPDX-License-Identifier: MIT */
/* What the command line gives to the library and the shell. */
#include <lauxlib.h>
#include <string.h>

#include "lua_pp.h"

/* core.hosts_given(): what -H said, a list. */
static int core_hosts_given(lua_State *L) {
  pp_engine *e = pp_engine_here();

  lua_newtable(L);
  for (size_t i = 0; e != NULL && i < e->options->nhosts; i++) {
    lua_pushstring(L, e->options->hosts[i]);
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
  return 1;
}

/* core.shell_options(): those that were given, name -> value, or true; a list
 * of values where one may be given again (push, fetch). */
static int core_shell_options(lua_State *L) {
  pp_engine *e = pp_engine_here();

  lua_newtable(L);
  for (size_t i = 0; e != NULL && i < e->options->nshell; i++) {
    const pp_shell_option *o = &e->options->shell[i];
    bool list = strcmp(o->name, "push") == 0 || strcmp(o->name, "fetch") == 0;

    if (o->value == NULL)
      lua_pushboolean(L, true);
    else
      lua_pushstring(L, o->value);
    if (list) {
      if (lua_getfield(L, -2, o->name) == LUA_TNIL) {
        lua_pop(L, 1);
        lua_newtable(L);
        lua_pushvalue(L, -1);
        lua_setfield(L, -4, o->name);
      }
      lua_insert(L, -2);
      lua_rawseti(L, -2, (lua_Integer)lua_rawlen(L, -2) + 1);
      lua_pop(L, 1);
    } else {
      lua_setfield(L, -2, o->name);
    }
  }
  return 1;
}

void pp_open_given(lua_State *L) {
  static const luaL_Reg funcs[] = {
      {"hosts_given", core_hosts_given},
      {"shell_options", core_shell_options},
      {NULL, NULL},
  };

  luaL_setfuncs(L, funcs, 0);
}
