/* SPDX-License-Identifier: MIT */
#include "names.h"

static const char *const standard[] = {
    "string",    "table", "math",  "io",      "os",
    "coroutine", "utf8",  "debug", "package",
};
#define NSTANDARD (sizeof standard / sizeof *standard)

static bool is_object(lua_State *L, int idx) {
  int t = lua_type(L, idx);

  return t == LUA_TTABLE || t == LUA_TFUNCTION || t == LUA_TUSERDATA;
}

/* Replace the module and field strings on top by one name. */
static void join(lua_State *L) {
  lua_pushlstring(L, "", 1);
  lua_insert(L, -2);
  lua_concat(L, 3);
}

/* --- the snapshot ------------------------------------------------------- */

/* Name the object on top; pops it and the name below. The first name is what
 * it travels by, but all are understood: another state may have come upon them
 * in another order. */
static void name_object(pp_codec *c, lua_State *L) {
  pp_ref(c, L, REF_NAMES);
  lua_pushvalue(L, -2);
  if (lua_rawget(L, -2) == LUA_TNIL) {
    lua_pushvalue(L, -3); /* obj */
    lua_pushvalue(L, -5); /* name */
    lua_rawset(L, -4);
  }
  lua_pop(L, 2);
  pp_ref(c, L, REF_BYNAME);
  lua_insert(L, -3); /* below the name and the object */
  lua_rawset(L, -3);
  lua_pop(L, 1);
}

/* Name the objects in the table on top as fields of that module. */
static void name_fields(pp_codec *c, lua_State *L, const char *module) {
  int t = lua_gettop(L);

  lua_pushnil(L);
  while (lua_next(L, t)) {
    if (lua_type(L, -2) == LUA_TSTRING && is_object(L, -1)) {
      lua_pushstring(L, module);
      lua_pushvalue(L, -3);
      join(L);
      lua_pushvalue(L, -2);
      name_object(c, L);
    }
    lua_pop(L, 1);
  }
}

static void copy_table(lua_State *L, int from) {
  from = lua_absindex(L, from);
  lua_newtable(L);
  lua_pushnil(L);
  while (lua_next(L, from)) {
    lua_pushvalue(L, -2);
    lua_insert(L, -2);
    lua_rawset(L, -4);
  }
}

static void keep(pp_codec *c, lua_State *L, int which) {
  c->ref[which] = luaL_ref(L, LUA_REGISTRYINDEX);
}

static void keep_table(pp_codec *c, lua_State *L, int which, const char *mode) {
  lua_newtable(L);
  if (mode != NULL) {
    lua_createtable(L, 0, 1);
    lua_pushstring(L, mode);
    lua_setfield(L, -2, "__mode");
    lua_setmetatable(L, -2);
  }
  keep(c, L, which);
}

static void name_metatable(pp_codec *c, lua_State *L, const char *module) {
  if (!lua_getmetatable(L, -1))
    return;
  lua_pushstring(L, module);
  lua_pushliteral(L, "(metatable)");
  join(L);
  lua_insert(L, -2);
  name_object(c, L);
}

void pp_names_init(pp_codec *c, lua_State *L) {
  int loaded, i;

  keep_table(c, L, REF_NAMES, NULL);
  keep_table(c, L, REF_BYNAME, NULL);
  keep_table(c, L, REF_STD, NULL);
  keep_table(c, L, REF_MODULES, NULL);
  keep_table(c, L, REF_FIELDS, "k");
  pp_push_globals(L);
  copy_table(L, -1);
  keep(c, L, REF_PRISTINE);
  pp_ref(c, L, REF_NAMES);
  lua_pushvalue(L, -2);
  lua_pushboolean(L, 1);
  lua_rawset(L, -3);
  lua_pop(L, 1);
  lua_getfield(L, -1, "require");
  keep(c, L, REF_REQUIRE);
  keep(c, L, REF_BASE);

  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  loaded = lua_gettop(L);
  for (i = 0; i < (int)NSTANDARD; i++) {
    lua_pushstring(L, standard[i]);
    lua_pushvalue(L, -1);
    if (lua_rawget(L, loaded) != LUA_TTABLE) {
      lua_pop(L, 2);
      continue;
    }
    pp_ref(c, L, REF_STD);
    lua_pushvalue(L, -2);
    copy_table(L, -1);
    lua_rawset(L, -3);
    lua_pop(L, 1);
    name_object(c, L);
  }
  lua_pushliteral(L, "string");
  lua_rawget(L, loaded);
  keep(c, L, REF_STRING);
  for (i = 0; i < (int)NSTANDARD; i++) {
    lua_pushstring(L, standard[i]);
    if (lua_rawget(L, loaded) == LUA_TTABLE)
      name_fields(c, L, standard[i]);
    lua_pop(L, 1);
  }
  /* Whatever else is there: `pp` and its parts. */
  lua_pushnil(L);
  while (lua_next(L, loaded)) {
    if (lua_type(L, -2) == LUA_TSTRING && is_object(L, -1)) {
      lua_pushvalue(L, -2);
      lua_pushvalue(L, -2);
      name_object(c, L);
      if (lua_type(L, -1) == LUA_TTABLE)
        name_fields(c, L, lua_tostring(L, -2));
    }
    lua_pop(L, 1);
  }
  lua_pushliteral(L, "");
  name_metatable(c, L, "string");
  lua_pop(L, 1);
  lua_pushlstring(L, "io\0stdout", 9);
  pp_ref(c, L, REF_BYNAME);
  lua_insert(L, -2);
  if (lua_rawget(L, -2) == LUA_TUSERDATA)
    name_metatable(c, L, "io");
  lua_pop(L, 3);
}

/* --- modules ------------------------------------------------------------ */

/* Push package.loaded. */
static void push_loaded(lua_State *L) {
  lua_pushliteral(L, LUA_LOADED_TABLE);
  lua_rawget(L, LUA_REGISTRYINDEX);
  if (!lua_istable(L, -1)) {
    lua_pop(L, 1);
    lua_newtable(L);
  }
}

/* Is there a file a worker's require would find for this module? What is only
 * in package.preload, or was put into package.loaded by hand, travels by
 * value. */
static bool findable(lua_State *L, const char *name) {
  static const char *const paths[] = {"path", "cpath", "cpath"};
  int top = lua_gettop(L);
  bool found = false;

  push_loaded(L);
  lua_getfield(L, -1, "package");
  for (int i = 0; i < 3 && !found && lua_istable(L, top + 2); i++) {
    const char *dot = strchr(name, '.');

    lua_settop(L, top + 2);
    lua_getfield(L, -1, "searchpath");
    if (i < 2)
      lua_pushstring(L, name);
    else if (dot != NULL) /* a part of a C library */
      lua_pushlstring(L, name, (size_t)(dot - name));
    else
      break;
    lua_getfield(L, top + 2, paths[i]);
    found = lua_pcall(L, 2, 1, 0) == LUA_OK && lua_type(L, -1) == LUA_TSTRING;
  }
  lua_settop(L, top);
  return found;
}

/* Was the value at the top there before any user code? */
static bool is_pristine(pp_codec *c, lua_State *L) {
  bool is;

  pp_ref(c, L, REF_NAMES);
  lua_pushvalue(L, -2);
  is = lua_rawget(L, -2) != LUA_TNIL;
  lua_pop(L, 2);
  return is;
}

void pp_names_modules(pp_codec *c, lua_State *L) {
  uint64_t sum = 1;
  int loaded;

  push_loaded(L);
  loaded = lua_gettop(L);
  lua_pushnil(L);
  while (lua_next(L, loaded)) {
    sum =
        (sum ^ (uintptr_t)lua_topointer(L, -1)) * UINT64_C(0x9e3779b97f4a7c15);
    sum = (sum ^ (uintptr_t)lua_topointer(L, -2)) + (sum >> 29);
    lua_pop(L, 1);
  }
  pp_ref(c, L, REF_MODULES);
  if (sum == c->modules_sum) {
    lua_remove(L, loaded);
    return;
  }
  /* The old table holds what it named, so no address was used again. */
  lua_newtable(L);
  lua_replace(L, -2);
  lua_pushnil(L);
  while (lua_next(L, loaded)) {
    if (lua_type(L, -2) == LUA_TSTRING && is_object(L, -1) &&
        (c->role == PP_CODEC_WORKER || is_pristine(c, L) ||
         findable(L, lua_tostring(L, -2)))) {
      lua_pushvalue(L, -2); /* value as key, name as value */
      lua_rawset(L, -4);
    } else {
      lua_pop(L, 1);
    }
  }
  lua_pushvalue(L, -1);
  lua_rawseti(L, LUA_REGISTRYINDEX, c->ref[REF_MODULES]);
  lua_createtable(L, 0, 0);
  pp_ref(c, L, REF_FIELDS);
  lua_getmetatable(L, -1);
  lua_setmetatable(L, -3);
  lua_pop(L, 1);
  lua_rawseti(L, LUA_REGISTRYINDEX, c->ref[REF_FIELDS]);
  c->modules_sum = sum;
  lua_remove(L, loaded);
}

/* Find the value at idx among the string keys of the table on top and push its
 * key. */
static bool find_in(lua_State *L, int idx) {
  int t = lua_gettop(L);

  lua_pushnil(L);
  while (lua_next(L, t)) {
    if (lua_type(L, -2) == LUA_TSTRING && lua_rawequal(L, -1, idx)) {
      lua_pop(L, 1);
      return true;
    }
    lua_pop(L, 1);
  }
  return false;
}

/* Find the value at idx among the fields of the tables in the table on top,
 * and push the name; `own` leaves out the globals. */
static bool find_below(lua_State *L, int idx, bool modules) {
  int t = lua_gettop(L);

  lua_pushnil(L);
  while (lua_next(L, t)) {
    if (lua_type(L, -2) == LUA_TSTRING && lua_istable(L, -1) &&
        !lua_rawequal(L, -1, t) &&
        !(modules && strcmp(lua_tostring(L, -2), LUA_GNAME) == 0) &&
        find_in(L, idx)) {
      lua_remove(L, -2);
      join(L);
      return true;
    }
    lua_pop(L, 1);
  }
  return false;
}

bool pp_names_field(pp_codec *c, lua_State *L, int idx) {
  int top, fields;
  const char *name;
  size_t n;
  bool found;

  idx = lua_absindex(L, idx);
  pp_names_modules(c, L); /* forgets REF_FIELDS when something was loaded */
  lua_pop(L, 1);
  push_loaded(L);
  top = lua_gettop(L);
  pp_ref(c, L, REF_FIELDS);
  fields = top + 1;
  lua_pushvalue(L, idx);
  if (lua_rawget(L, fields) == LUA_TSTRING) {
    name = lua_tolstring(L, -1, &n);
    lua_pushstring(L, name);
    if (lua_rawget(L, top) == LUA_TTABLE) {
      pp_names_step(L, name, n);
      if (lua_rawequal(L, -1, idx)) {
        lua_pop(L, 1);
        lua_replace(L, top);
        lua_settop(L, top);
        return true;
      }
    }
  } else if (lua_isboolean(L, -1)) {
    lua_settop(L, top - 1);
    return false;
  }
  lua_settop(L, fields);
  lua_pushvalue(L, idx);
  lua_pushvalue(L, top);
  found = find_below(L, idx, true);
  if (found) {
    lua_remove(L, -2); /* package.loaded */
    lua_pushvalue(L, -1);
    lua_replace(L, top);
  } else {
    lua_pop(L, 1);
    lua_pushboolean(L, 0);
  }
  lua_rawset(L, fields);
  lua_settop(L, found ? top : top - 1);
  return found;
}

bool pp_names_global(pp_codec *c, lua_State *L, int idx) {
  int round, top = lua_gettop(L);

  idx = lua_absindex(L, idx);
  for (round = 0; round < 2; round++) {
    if (round == 0)
      pp_push_globals(L);
    else
      pp_ref(c, L, REF_BASE);
    if (find_in(L, idx)) {
      lua_pushliteral(L, "");
      lua_insert(L, -2);
      join(L);
      lua_replace(L, top + 1);
      lua_settop(L, top + 1);
      return true;
    }
    if (find_below(L, idx, false)) {
      lua_replace(L, top + 1);
      lua_settop(L, top + 1);
      return true;
    }
    lua_settop(L, top);
  }
  return false;
}

/* --- back --------------------------------------------------------------- */

bool pp_names_pristine(pp_codec *c, lua_State *L, const char *name, size_t n) {
  pp_ref(c, L, REF_BYNAME);
  lua_pushlstring(L, name, n);
  if (lua_rawget(L, -2) == LUA_TNIL) {
    lua_pop(L, 2);
    return false;
  }
  lua_remove(L, -2);
  return true;
}

bool pp_names_module(pp_codec *c, lua_State *L, const char *name, size_t n) {
  int rc;

  push_loaded(L);
  lua_pushlstring(L, name, n);
  if (lua_rawget(L, -2) != LUA_TNIL && lua_toboolean(L, -1)) {
    lua_remove(L, -2);
    return true;
  }
  lua_pop(L, 2);
  if (c->role == PP_CODEC_SUBMITTER) {
    lua_pushlstring(L, name, n);
    lua_pushfstring(L, "module '%s' is not loaded here", lua_tostring(L, -1));
    lua_remove(L, -2);
    return false;
  }
  pp_push_globals(L);
  pp_ref(c, L, REF_REQUIRE);
  lua_pushlstring(L, name, n);
  pp_ref(c, L, REF_BASE);
  lua_rawseti(L, LUA_REGISTRYINDEX, LUA_RIDX_GLOBALS);
  rc = lua_pcall(L, 1, 1, 0);
  lua_insert(L, -2);
  lua_rawseti(L, LUA_REGISTRYINDEX, LUA_RIDX_GLOBALS);
  if (rc != LUA_OK && !lua_isstring(L, -1)) {
    lua_pushlstring(L, name, n);
    lua_pushfstring(L, "module '%s' cannot be loaded", lua_tostring(L, -1));
    lua_replace(L, -3);
    lua_pop(L, 1);
  }
  return rc == LUA_OK;
}

void pp_names_step(lua_State *L, const char *name, size_t n) {
  const char *zero = memchr(name, '\0', n);

  if (zero == NULL)
    return;
  if (lua_istable(L, -1)) {
    lua_pushlstring(L, zero + 1, n - (size_t)(zero + 1 - name));
    lua_rawget(L, -2);
  } else {
    lua_pushnil(L);
  }
  lua_remove(L, -2);
}

void pp_names_global_get(lua_State *L, const char *name, size_t n) {
  const char *zero = memchr(name, '\0', n);

  pp_push_globals(L);
  if (zero == NULL) {
    lua_pop(L, 1);
    lua_pushnil(L);
    return;
  }
  if (zero > name) {
    lua_pushlstring(L, name, (size_t)(zero - name));
    lua_rawget(L, -2);
    lua_remove(L, -2);
  }
  pp_names_step(L, name, n);
}
