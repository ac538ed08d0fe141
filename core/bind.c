/* SPDX-License-Identifier: MIT */
#include "bind.h"

#include "names.h"

/* --- bindings received -------------------------------------------------- */

/* The first slot of a bind in REF_FRAMES, less one. */
static lua_Integer frame_at(int depth) {
  return (lua_Integer)depth * FRAME_SIZE;
}

bool pp_push_captured(pp_dec *d, lua_Integer id) {
  return !d->opening && pp_bind_captured(d->c, d->L, id);
}

bool pp_bind_captured(pp_codec *c, lua_State *L, lua_Integer id) {
  if (id == 0 || c->role != PP_CODEC_WORKER || c->depth == 0)
    return false;
  pp_ref(c, L, REF_FRAMES);
  lua_rawgeti(L, -1, frame_at(c->depth - 1) + FRAME_KEPT);
  lua_remove(L, -2);
  if (lua_istable(L, -1)) {
    lua_rawgeti(L, -1, id);
    lua_remove(L, -2);
  }
  if (lua_istable(L, -1))
    return true;
  lua_pop(L, 1);
  return false;
}

/* Append to the list the two or three values at those stack indices. */
static void append3(lua_State *L, int list, int a, int b, int c, int n) {
  lua_Integer at = (lua_Integer)lua_rawlen(L, list);

  lua_pushvalue(L, a);
  lua_rawseti(L, list, at + 1);
  lua_pushvalue(L, b);
  lua_rawseti(L, list, at + 2);
  if (n == 3) {
    lua_pushvalue(L, c);
    lua_rawseti(L, list, at + 3);
  }
}

int pp_get_bindings(pp_dec *d) {
  lua_State *L = d->L;
  int globals, patches, top, rc;
  unsigned char kind;
  const char *s;
  size_t n;

  lua_createtable(L, 4, 0);
  lua_newtable(L);
  globals = lua_gettop(L);
  lua_newtable(L);
  patches = top = lua_gettop(L);
  for (;;) {
    if (pp_rd_byte(&d->r, &kind) < 0)
      return pp_malformed(d, "bindings cut short");
    if (kind == LEAD_END)
      break;
    if (kind != LEAD_GLOBAL && kind != LEAD_PATCH)
      return pp_malformed(d, "binding");
    rc = pp_get_name(d, &s, &n);
    if (rc < 0)
      return rc;
    if (kind == LEAD_GLOBAL) {
      lua_pushlstring(L, s, n);
      rc = pp_get_whole(d);
      if (rc < 0)
        return rc;
      if (d->was_globals && d->opening) {
        pp_fix(d, FIX_GLOBAL, top + 1, top + 1);
        lua_settop(L, top);
        continue;
      }
      if (lua_isnil(L, -1))
        return pp_malformed(d, "binding");
      append3(L, globals, top + 1, top + 2, 0, 2);
      lua_settop(L, top);
      continue;
    }
    if (n == 2 && memcmp(s, "_G", 2) == 0)
      pp_ref(d->c, L, REF_BASE);
    else if (!pp_names_pristine(d->c, L, s, n) || !lua_istable(L, -1))
      return pp_malformed(d, "table to patch");
    rc = pp_get_whole(d);
    if (rc < 0)
      return rc;
    if (lua_isnil(L, -1) || !lua_rawequal(L, -1, -1))
      return pp_malformed(d, "key to patch");
    rc = pp_get_whole(d);
    if (rc < 0)
      return rc;
    if (lua_isnil(L, -1)) {
      lua_pop(L, 1);
      lua_pushlightuserdata(L, NOTHING(d->c));
    }
    append3(L, patches, top + 1, top + 2, top + 3, 3);
    lua_settop(L, top);
  }
  lua_rawseti(L, globals - 1, BIND_PATCHES);
  lua_rawseti(L, globals - 1, BIND_GLOBALS);
  return 0;
}

void pp_unify_globals(pp_dec *d) {
  lua_State *L = d->L;
  int list;
  lua_Integer i, n;

  lua_rawgeti(L, -1, BIND_GLOBALS);
  list = lua_gettop(L);
  pp_ref(d->c, L, REF_KEPTIDS);
  n = (lua_Integer)lua_rawlen(L, list);
  for (i = 2; i <= n; i += 2) {
    if (lua_rawgeti(L, list, i) == LUA_TTABLE) {
      lua_rawget(L, list + 1);
      if (pp_push_captured(d, lua_tointeger(L, -1)))
        lua_rawseti(L, list, i);
    }
    lua_settop(L, list + 1);
  }
  lua_settop(L, list - 1);
}

/* --- in force ----------------------------------------------------------- */

static bool is_touched(const pp_codec *c) {
  return c->depth >= 64 || (c->touched >> c->depth & 1) != 0;
}

/* The bind at work has something to undo. */
static void touch(pp_codec *c) {
  if (c->depth > 0 && c->depth <= 64)
    c->touched |= UINT64_C(1) << (c->depth - 1);
}

/* Set table[key] = value, all on top, and note in the list of undoings at
 * index `undo` (0: none) what was there. */
static void patch(pp_codec *c, lua_State *L, int undo) {
  int table = lua_gettop(L) - 2;

  if (lua_touserdata(L, -1) == NOTHING(c) && lua_islightuserdata(L, -1)) {
    lua_pop(L, 1);
    lua_pushnil(L);
  }
  if (undo != 0) {
    lua_Integer n = (lua_Integer)lua_rawlen(L, undo);

    /* The value goes in first: an undoing is there whole or not at all. */
    lua_pushvalue(L, table + 1);
    lua_rawget(L, table);
    if (lua_isnil(L, -1)) {
      lua_pop(L, 1);
      lua_pushlightuserdata(L, NOTHING(c));
    }
    lua_createtable(L, 3, 0);
    lua_insert(L, -2);
    lua_rawseti(L, -2, 3);
    lua_pushvalue(L, table + 1);
    lua_rawseti(L, -2, 2);
    lua_pushvalue(L, table);
    lua_rawseti(L, -2, 1);
    lua_rawseti(L, undo, n + 1);
  }
  lua_rawset(L, table);
  lua_settop(L, table - 1);
}

/* Put the globals where the parcel has them. */
static void apply_fixes(lua_State *L, int fixes, int globals) {
  lua_Integer i, n = (lua_Integer)lua_rawlen(L, fixes);
  int top = lua_gettop(L);

  for (i = 0; i + 3 <= n; i += 3) {
    lua_rawgeti(L, fixes, i + 2);
    lua_rawgeti(L, fixes, i + 3);
    lua_rawgeti(L, fixes, i + 1);
    switch (lua_tointeger(L, -1)) {
    case FIX_FIELD:
      lua_pop(L, 1);
      lua_pushvalue(L, globals);
      lua_rawset(L, top + 1);
      break;
    case FIX_KEY:
      lua_pushvalue(L, globals);
      lua_pushvalue(L, top + 2);
      lua_rawset(L, top + 1);
      break;
    case FIX_UPVALUE:
      lua_pushvalue(L, globals);
      lua_setupvalue(L, top + 1, (int)lua_tointeger(L, top + 2));
      break;
    case FIX_META:
      lua_pushvalue(L, globals);
      lua_setmetatable(L, top + 1);
      break;
    default:
      lua_pushvalue(L, top + 1);
      lua_pushvalue(L, globals);
      lua_rawset(L, globals);
      break;
    }
    lua_settop(L, top);
  }
}

void pp_bind_install(pp_codec *c, lua_State *L, int bindings, bool over) {
  int top = lua_gettop(L), globals = top + 1, undo = 0;
  lua_Integer i, n;

  pp_push_globals(L);
  pp_ref(c, L, REF_BASE);
  if (c->depth == 0 || lua_rawequal(L, -1, globals))
    over = true;
  lua_settop(L, globals);
  if (lua_rawgeti(L, bindings, BIND_PATCHES) == LUA_TTABLE) {
    n = (lua_Integer)lua_rawlen(L, -1);
    if (n > 0 && c->depth > 0) {
      pp_ref(c, L, REF_FRAMES);
      lua_rawgeti(L, -1, frame_at(c->depth - 1) + FRAME_UNDO);
      if (!lua_istable(L, -1)) {
        lua_pop(L, 1);
        lua_newtable(L);
        lua_pushvalue(L, -1);
        lua_rawseti(L, -3, frame_at(c->depth - 1) + FRAME_UNDO);
      }
      touch(c);
      undo = lua_gettop(L);
    }
    for (i = 0; i + 3 <= n; i += 3) {
      lua_rawgeti(L, globals + 1, i + 1);
      lua_rawgeti(L, globals + 1, i + 2);
      lua_rawgeti(L, globals + 1, i + 3);
      patch(c, L, undo);
    }
  }
  lua_settop(L, globals);
  if (lua_rawgeti(L, bindings, BIND_GLOBALS) == LUA_TTABLE) {
    n = (lua_Integer)lua_rawlen(L, -1);
    for (i = 0; i + 2 <= n; i += 2) {
      lua_rawgeti(L, globals + 1, i + 1);
      if (!over) {
        lua_pushvalue(L, -1);
        if (lua_rawget(L, globals) != LUA_TNIL) {
          lua_pop(L, 2);
          continue;
        }
        lua_pop(L, 1);
      }
      lua_rawgeti(L, globals + 1, i + 2);
      lua_rawset(L, globals);
    }
  }
  lua_settop(L, globals);
  if (lua_rawgeti(L, bindings, BIND_FIXES) == LUA_TTABLE)
    apply_fixes(L, globals + 1, globals);
  lua_settop(L, globals);
  if (c->depth > 0 && lua_rawgeti(L, bindings, BIND_KEPT) == LUA_TTABLE)
    pp_bind_keep(c, L);
  lua_settop(L, top);
}

/* Add the entries of the table at index `from` to that at `to`. */
static void add_all(lua_State *L, int from, int to) {
  lua_pushnil(L);
  while (lua_next(L, from)) {
    lua_pushvalue(L, -2);
    lua_insert(L, -2);
    lua_rawset(L, to);
  }
}

void pp_bind_keep(pp_codec *c, lua_State *L) {
  int top = lua_gettop(L);
  lua_Integer at = frame_at(c->depth - 1) + FRAME_KEPT;

  pp_ref(c, L, REF_FRAMES);
  if (lua_rawgeti(L, top + 1, at) == LUA_TTABLE) { /* neither is ours */
    lua_newtable(L);
    add_all(L, top, top + 3);
    add_all(L, top + 2, top + 3);
    lua_replace(L, top);
  }
  lua_pushvalue(L, top);
  lua_rawseti(L, top + 1, at);
  touch(c);
  lua_settop(L, top - 1);
}

static int more_protected(lua_State *L) {
  pp_bind_install(lua_touserdata(L, 1), L, 2, lua_toboolean(L, 3));
  return 0;
}

int pp_codec_install(pp_codec *c, lua_State *L, int bindings, bool over) {
  if (lua_isnil(L, bindings))
    return 0;
  bindings = lua_absindex(L, bindings);
  if (!lua_checkstack(L, 8))
    return PP_ENOMEM;
  lua_pushcfunction(L, more_protected);
  lua_pushlightuserdata(L, c);
  lua_pushvalue(L, bindings);
  lua_pushboolean(L, over);
  if (lua_pcall(L, 3, 0, 0) == LUA_OK)
    return 0;
  lua_pop(L, 1);
  return PP_ENOMEM;
}

void pp_codec_kept(lua_State *L, int bindings) {
  if (lua_istable(L, bindings))
    lua_rawgeti(L, bindings, BIND_KEPT);
  else
    lua_pushnil(L);
}

void pp_bind_late(pp_codec *c, lua_State *L, int table, lua_Integer id) {
  table = lua_absindex(L, table);
  pp_ref(c, L, REF_LATE);
  lua_pushvalue(L, table);
  lua_rawseti(L, -2, c->late + 1);
  lua_pushinteger(L, id);
  lua_rawseti(L, -2, c->late + 2);
  c->late += 2;
  lua_pop(L, 1);
}

static int settle_protected(lua_State *L) {
  pp_codec *c = lua_touserdata(L, 1);
  int list = 2, meta = 4;

  lua_settop(L, 1);
  pp_ref(c, L, REF_LATE);
  while (c->late > 0) {
    lua_Integer id;

    lua_rawgeti(L, list, c->late - 1);
    lua_rawgeti(L, list, c->late);
    id = lua_tointeger(L, meta);
    lua_pop(L, 1);
    if (!pp_bind_captured(c, L, id) &&
        (c->hooks.kept == NULL || !c->hooks.kept(c->hooks.ud, L, id)))
      return luaL_error(L, "a metatable of what a job gave is known nowhere");
    lua_setmetatable(L, list + 1);
    lua_settop(L, list);
    lua_pushnil(L);
    lua_rawseti(L, list, c->late);
    lua_pushnil(L);
    lua_rawseti(L, list, c->late - 1);
    c->late -= 2;
  }
  return 0;
}

int pp_codec_settle(pp_codec *c, lua_State *L) {
  int status;

  if (c->late == 0)
    return 0;
  if (!lua_checkstack(L, 4)) {
    lua_pushstring(L, PP_NO_MEMORY);
    return PP_ENOMEM;
  }
  lua_pushcfunction(L, settle_protected);
  lua_pushlightuserdata(L, c);
  status = lua_pcall(L, 1, 0, 0);
  return status == LUA_OK ? 0 : pp_outcome(L, status, PP_EBAD);
}

/* Nobody will ask for these any more. */
static void drop_late(pp_codec *c, lua_State *L) {
  pp_ref(c, L, REF_LATE);
  for (; c->late > 0; c->late--) {
    lua_pushnil(L);
    lua_rawseti(L, -2, c->late);
  }
  lua_pop(L, 1);
}

static int install_protected(lua_State *L) {
  pp_codec *c = lua_touserdata(L, 1);

  pp_push_globals(L);
  lua_pushliteral(L, "_G");
  lua_pushvalue(L, -2);
  lua_rawset(L, -3);
  if (lua_istable(L, 2))
    pp_bind_install(c, L, 2, true);
  return 0;
}

static int grow_frames(lua_State *L) {
  pp_codec *c = lua_touserdata(L, 1);
  int i;

  pp_ref(c, L, REF_FRAMES);
  for (i = 1; i <= FRAME_SIZE; i++) {
    lua_pushboolean(L, 0);
    lua_rawseti(L, -2, frame_at(c->depth) + i);
  }
  return 0;
}

/* Make the table on top the globals; pops it. */
static void set_globals(pp_codec *c, lua_State *L) {
  pp_ref(c, L, REF_ANCHOR);
  lua_pushvalue(L, -2);
  lua_setupvalue(L, -2, 1);
  lua_pop(L, 1);
  lua_rawseti(L, LUA_REGISTRYINDEX, LUA_RIDX_GLOBALS);
}

int pp_codec_bind(pp_codec *c, lua_State *L, int env, int bindings) {
  int top = lua_gettop(L), status = LUA_OK;
  bool plain;

  env = lua_absindex(L, env);
  if (bindings != 0)
    bindings = lua_absindex(L, bindings);
  if (!lua_checkstack(L, 8))
    return PP_ENOMEM;
  if (c->depth >= PP_FRAMES_READY) {
    lua_pushcfunction(L, grow_frames);
    lua_pushlightuserdata(L, c);
    status = lua_pcall(L, 1, 0, 0);
    if (status != LUA_OK) {
      lua_settop(L, top);
      return PP_ENOMEM;
    }
  }
  pp_ref(c, L, REF_FRAMES);
  pp_push_globals(L);
  lua_rawseti(L, -2, frame_at(c->depth) + FRAME_GLOBALS);
  c->base_kept |= c->depth == 0;
  c->depth++;
  lua_pushvalue(L, env);
  set_globals(c, L);
  plain = bindings == 0 || lua_isnil(L, bindings);
  if (plain) {
    lua_pushliteral(L, "_G"); /* in use, so there already */
    lua_rawget(L, env);
    plain = lua_rawequal(L, -1, env);
  }
  if (!plain) {
    lua_pushcfunction(L, install_protected);
    lua_pushlightuserdata(L, c);
    if (bindings != 0)
      lua_pushvalue(L, bindings);
    status = lua_pcall(L, bindings != 0 ? 2 : 1, 0, 0);
  }
  lua_settop(L, top);
  if (status == LUA_OK)
    return 0;
  pp_codec_unbind(c, L);
  return PP_ENOMEM;
}

void pp_codec_rebind(pp_codec *c, lua_State *L, int env) {
  if (c->depth > 0 || !c->base_kept) {
    lua_pushvalue(L, env);
    if (pp_codec_bind(c, L, -1, 0) != 0)
      luaL_error(L, PP_NO_MEMORY);
    lua_pop(L, 1);
    return;
  }
  c->depth++;
  lua_pushvalue(L, env);
  set_globals(c, L);
}

bool pp_codec_renew(pp_codec *c, lua_State *L, int env, int bindings) {
  int top = lua_gettop(L);

  if (c->depth == 0 || c->depth > 64 || c->late > 0 ||
      (c->touched >> (c->depth - 1) & 1) != 0)
    return false;
  env = lua_absindex(L, env);
  bindings = lua_absindex(L, bindings);
  luaL_checkstack(L, 8, NULL);
  lua_pushvalue(L, env);
  set_globals(c, L);
  pp_ref(c, L, REF_G);
  lua_pushvalue(L, env);
  lua_rawset(L, env);
  if (lua_istable(L, bindings))
    pp_bind_install(c, L, bindings, true);
  lua_settop(L, top);
  return true;
}

void pp_codec_stay(pp_codec *c, lua_State *L) {
  pp_assert(c->depth > 0);
  pp_ref(c, L, REF_FRAMES);
  lua_pushboolean(L, 0);
  lua_rawseti(L, -2, frame_at(c->depth - 1) + FRAME_UNDO);
  lua_pop(L, 1);
}

/* Undo the last thing in the list; it goes away first only when done. */
static int undo_protected(lua_State *L) {
  pp_codec *c = lua_touserdata(L, 1);
  lua_Integer n;

  for (n = (lua_Integer)lua_rawlen(L, 2); n > 0; n--) {
    lua_rawgeti(L, 2, n);
    lua_rawgeti(L, 3, 1);
    lua_rawgeti(L, 3, 2);
    lua_rawgeti(L, 3, 3);
    patch(c, L, 0);
    lua_pushnil(L);
    lua_rawseti(L, 2, n);
    lua_settop(L, 2);
  }
  return 0;
}

void pp_codec_unbind(pp_codec *c, lua_State *L) {
  int top = lua_gettop(L), i, tries;

  pp_assert(c->depth > 0);
  lua_checkstack(L, 8); /* what bind had */
  if (c->late > 0)
    drop_late(c, L);
  c->depth--;
  pp_ref(c, L, REF_FRAMES);
  if (c->depth == 0 && !is_touched(c)) {
    /* What is left in the frame is the base globals, which stay anyway. */
    lua_rawgeti(L, -1, FRAME_GLOBALS);
    set_globals(c, L);
    lua_pop(L, 1);
    return;
  }
  if (c->depth < 64)
    c->touched &= ~(UINT64_C(1) << c->depth);
  lua_rawgeti(L, -1, frame_at(c->depth) + FRAME_UNDO);
  for (tries = 0; tries < 3 && lua_istable(L, top + 2); tries++) {
    lua_pushcfunction(L, undo_protected);
    lua_pushlightuserdata(L, c);
    lua_pushvalue(L, top + 2);
    if (lua_pcall(L, 2, 0, 0) == LUA_OK)
      break;
    lua_settop(L, top + 2);
  }
  lua_settop(L, top + 1);
  lua_rawgeti(L, -1, frame_at(c->depth) + FRAME_GLOBALS);
  set_globals(c, L);
  for (i = 1; i <= FRAME_SIZE; i++) {
    lua_pushboolean(L, 0);
    lua_rawseti(L, top + 1, frame_at(c->depth) + i);
  }
  c->base_kept &= c->depth > 0;
  lua_settop(L, top);
}
