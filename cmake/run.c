/* SPDX-License-Identifier: MIT */
/*
 * run SCRIPT [ARGUMENT...]
 *
 * Runs a script of Lua at build time, by the Lua that the program is linked
 * with: none need be installed as a program.
 */
#include <lauxlib.h>
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
  lua_State *L = luaL_newstate();

  if (argc < 2 || L == NULL) {
    fprintf(stderr, "usage: run SCRIPT [ARGUMENT...]\n");
    return EXIT_FAILURE;
  }
  luaL_openlibs(L);
  lua_createtable(L, argc - 2, 2);
  for (int i = 0; i < argc; i++) {
    lua_pushstring(L, argv[i]);
    lua_rawseti(L, -2, i - 1);
  }
  lua_setglobal(L, "arg");
  if (luaL_dofile(L, argv[1]) != LUA_OK) {
    fprintf(stderr, "run: %s\n", lua_tostring(L, -1));
    return EXIT_FAILURE;
  }
  lua_close(L);
  return EXIT_SUCCESS;
}
