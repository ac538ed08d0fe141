/* SPDX-License-Identifier: MIT */
/*
 * What cannot be sent, and where it was found: only looked into once it has
 * gone wrong. The frames of the encoder are the path, innermost last.
 */
#include "marshal.h"

#include <stdio.h>

#define NAME_MAX_SHOWN 60
#define PARTS_FIRST 4
#define PARTS_LAST 3

static void say(pp_enc *e, const char *s) {
  pp_buf_put(&e->s.work, s, strlen(s)); /* without memory: a shorter text */
}

/* Say a name from the script, cut short and without control characters. */
static void say_name(pp_enc *e, const char *s) {
  char text[NAME_MAX_SHOWN + 4];
  size_t i;

  for (i = 0; s[i] != '\0' && i < NAME_MAX_SHOWN; i++)
    text[i] = (unsigned char)s[i] < ' ' || s[i] == 0x7f ? '?' : s[i];
  text[i] = '\0';
  if (s[i] != '\0')
    memcpy(text + i, "...", 4);
  say(e, text);
}

static void say_quoted(pp_enc *e, const char *s) {
  say(e, "'");
  say_name(e, s);
  say(e, "'");
}

/* "[3]" or "field 'sock'" for the key at idx. */
static void say_key(pp_enc *e, int idx) {
  lua_State *L = e->L;
  char text[64];

  switch (lua_type(L, idx)) {
  case LUA_TSTRING:
    say(e, "field ");
    say_quoted(e, lua_tostring(L, idx));
    return;
  case LUA_TNUMBER:
    if (lua_isinteger(L, idx))
      snprintf(text, sizeof text, "[" LUA_INTEGER_FMT "]",
               lua_tointeger(L, idx));
    else
      snprintf(text, sizeof text, "[" LUA_NUMBER_FMT "]", lua_tonumber(L, idx));
    say(e, text);
    return;
  case LUA_TBOOLEAN:
    say(e, lua_toboolean(L, idx) ? "[true]" : "[false]");
    return;
  default:
    snprintf(text, sizeof text, "[%s]", lua_typename(L, lua_type(L, idx)));
    say(e, text);
  }
}

/* --- the name of a function --------------------------------------------- */

/* Is the function at fn a local of a running Lua function, or an upvalue of
 * one? Copies its name to out. */
static bool name_from_stack(lua_State *L, int fn, char *out, size_t max) {
  lua_Debug ar;
  const char *name;
  int level, i, upvalues;
  bool found = false;

  for (upvalues = 0; upvalues < 2; upvalues++)
    for (level = 0; level < 100 && lua_getstack(L, level, &ar); level++) {
      lua_getinfo(L, "Sf", &ar);
      if (strcmp(ar.what, "C") == 0) {
        lua_pop(L, 1);
        continue;
      }
      for (i = 1;; i++) {
        name = upvalues ? lua_getupvalue(L, -1, i) : lua_getlocal(L, &ar, i);
        if (name == NULL)
          break;
        found = name[0] != '(' && lua_rawequal(L, -1, fn);
        if (found)
          snprintf(out, max, "%s", name);
        lua_pop(L, 1);
        if (found)
          break;
      }
      lua_pop(L, 1);
      if (found)
        return true;
    }
  return false;
}

/* Is it a value in the table on top? */
static bool name_from_table(lua_State *L, int fn, const char *prefix, char *out,
                            size_t max) {
  bool found = false;

  lua_pushnil(L);
  while (!found && lua_next(L, -2)) {
    found = lua_type(L, -2) == LUA_TSTRING && lua_rawequal(L, -1, fn);
    if (found)
      snprintf(out, max, "%s%s", prefix, lua_tostring(L, -2));
    lua_pop(L, found ? 2 : 1);
  }
  return found;
}

static bool name_from_modules(lua_State *L, int fn, char *out, size_t max) {
  char prefix[64];
  bool found = false;

  lua_pushliteral(L, LUA_LOADED_TABLE);
  lua_rawget(L, LUA_REGISTRYINDEX);
  if (lua_istable(L, -1)) {
    lua_pushnil(L);
    while (!found && lua_next(L, -2)) {
      if (lua_type(L, -2) == LUA_TSTRING && lua_istable(L, -1)) {
        const char *module = lua_tostring(L, -2);

        snprintf(prefix, sizeof prefix, "%s.", module);
        if (strcmp(module, LUA_GNAME) == 0)
          prefix[0] = '\0';
        found = name_from_table(L, fn, prefix, out, max);
      }
      lua_pop(L, found ? 2 : 1);
    }
  }
  lua_pop(L, 1);
  return found;
}

static pp_frame *frame(pp_enc *e, size_t i) {
  return (pp_frame *)(void *)e->s.frames.data + i;
}

/* Is it an upvalue or field of what the encoder came through? */
static bool name_from_path(pp_enc *e, size_t i, char *out, size_t max) {
  lua_State *L = e->L;
  const char *name = NULL;

  if (i == 0)
    return false;
  if (frame(e, i - 1)->kind == FRAME_FUNC) {
    name = lua_getupvalue(L, frame(e, i - 1)->obj, (int)frame(e, i - 1)->n);
    if (name != NULL)
      lua_pop(L, 1);
  } else if (frame(e, i - 1)->phase == AT_VALUE &&
             lua_type(L, frame(e, i - 1)->obj + 1) == LUA_TSTRING) {
    name = lua_tostring(L, frame(e, i - 1)->obj + 1);
  }
  if (name != NULL && *name != '\0' && *name != '(')
    snprintf(out, max, "%s", name);
  return name != NULL && *name != '\0' && *name != '(';
}

/* "function 'fetch' (crawl.lua:12)" for the function at fn; i is its frame, or
 * SIZE_MAX. */
static void say_function(pp_enc *e, int fn, size_t i) {
  lua_State *L = e->L;
  char name[NAME_MAX_SHOWN * 2] = "", line[32];
  lua_Debug ar;

  fn = lua_absindex(L, fn);
  if (!name_from_stack(L, fn, name, sizeof name)) {
    bool found;

    lua_pushvalue(L, e->ix + IX_GLOBALS);
    found = name_from_table(L, fn, "", name, sizeof name);
    lua_pop(L, 1);
    if (!found && !(i != SIZE_MAX && name_from_path(e, i, name, sizeof name)))
      name_from_modules(L, fn, name, sizeof name);
  }
  lua_pushvalue(L, fn);
  lua_getinfo(L, ">S", &ar);
  if (name[0] == '\0' && strcmp(ar.what, "main") == 0) {
    say(e, "main chunk of ");
    say(e, ar.short_src);
    return;
  }
  say(e, "function ");
  if (name[0] != '\0')
    say_quoted(e, name);
  say(e, name[0] != '\0' ? " (" : "<");
  snprintf(line, sizeof line, ":%d%s", ar.linedefined,
           name[0] != '\0' ? ")" : ">");
  say(e, ar.short_src);
  say(e, line);
}

/* --- the path ----------------------------------------------------------- */

static void say_origin(pp_enc *e) {
  lua_State *L = e->L;
  lua_Integer at = 3 * (lua_Integer)e->want;
  char text[32];
  int top = lua_gettop(L);

  if (e->root > 0) {
    if (e->what == NULL) {
      say(e, "function");
      return;
    }
    say(e, e->what);
    if (strcmp(e->what, "value") == 0) /* there is but one */
      return;
    snprintf(text, sizeof text, " %d", e->root);
    say(e, text);
    return;
  }
  if (lua_isnil(L, e->ix + IX_WANT) || e->want >= e->wants) {
    say(e, "globals");
    return;
  }
  lua_rawgeti(L, e->ix + IX_WANT, at + 1);
  lua_rawgeti(L, e->ix + IX_WANT, at + 2);
  lua_rawgeti(L, e->ix + IX_WANT, at + 3);
  if (lua_istable(L, top + 3)) {
    const char *key = lua_tostring(L, top + 1);

    lua_pushvalue(L, top + 3);
    lua_rawget(L, e->ix + IX_NAMES);
    say(e, "'");
    say_name(e, lua_isstring(L, -1) ? lua_tostring(L, -1) : "?");
    say(e, ".");
    say_name(e, key);
    say(e, "'");
  } else {
    say(e, "global ");
    say_quoted(e, lua_tostring(L, top + 1));
  }
  if (lua_isfunction(L, top + 2)) {
    say(e, " of ");
    say_function(e, top + 2, SIZE_MAX);
  }
  lua_settop(L, top);
}

/* Say how frame i leads to what is in it; true if that needs no more. */
static bool say_part(pp_enc *e, size_t i) {
  pp_frame *f = frame(e, i);
  const char *name;

  if (f->kind == FRAME_FUNC) {
    name = lua_getupvalue(e->L, f->obj, (int)f->n);
    if (name != NULL)
      lua_pop(e->L, 1);
    say(e, "upvalue ");
    say_quoted(e, name != NULL ? name : "?");
    say(e, " of ");
    say_function(e, f->obj, i);
    return true;
  }
  if (f->phase == AT_META)
    say(e, "metatable");
  else if (f->phase == AT_KEY)
    say(e, "key");
  else
    say_key(e, f->obj + 1);
  say(e, " of ");
  return false;
}

void pp_refusal_push(pp_enc *e) {
  lua_State *L = e->L;
  size_t n = e->s.frames.len / sizeof(pp_frame), first = n, i;
  bool whole = false;
  int top = lua_gettop(L);

  if (!lua_checkstack(L, 40)) { /* past the limit: there is room to spare */
    lua_settop(L, e->ix + IX_COUNT);
    e->s.work.len = 0;
    say(e, "cannot send ");
    if (e->what != NULL && e->root > 0)
      say_origin(e);
    else
      say(e, "function");
    say(e, ": ");
    say(e, e->bad);
    lua_pushlstring(L, (const char *)e->s.work.data, e->s.work.len);
    return;
  }
  e->s.work.len = 0;
  say(e, "cannot send ");
  while (first > 0 && frame(e, first - 1)->kind != FRAME_FUNC)
    first--;
  if (first > 0)
    first--; /* begin at the innermost function */
  for (i = n; i-- > first;) {
    if (n - first > PARTS_FIRST + PARTS_LAST + 1 && n - i == PARTS_FIRST + 1) {
      say(e, "... of ");
      i = first + PARTS_LAST - 1;
    }
    whole = say_part(e, i);
  }
  if (!whole)
    say_origin(e);
  say(e, ": ");
  if (strcmp(e->bad, "function made there") == 0 && lua_isfunction(L, top)) {
    say_function(e, top, SIZE_MAX);
    say(e, " made there");
  } else {
    say(e, e->bad);
  }
  lua_pushlstring(L, e->s.work.data ? (const char *)e->s.work.data : "",
                  e->s.work.len);
}
