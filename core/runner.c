/* SPDX-License-Identifier: MIT */
#include "runner_impl.h"

#include <lauxlib.h>
#include <lualib.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "pure.h"
#include "state.h"

/* --- making the state a worker's ---------------------------------------- */

static pp_runner *runner_of(lua_State *L, int up) {
  return lua_touserdata(L, lua_upvalueindex(up));
}

/* Call the real require for the name at the top; replaces it by the module
 * and what else it returns, or by the error. */
static int plain_require(lua_State *L) {
  lua_pushvalue(L, lua_upvalueindex(2));
  lua_insert(L, -2);
  return lua_pcall(L, 1, LUA_MULTRET, 0);
}

/*
 * require: modules are loaded in, and see, the base globals. Here they may be
 * asked for in another order than where the script loaded them: a part of a
 * package that fails by itself is tried again after the package.
 */
static int in_base(lua_State *L) {
  pp_runner *r = runner_of(L, 1);
  const char *name = luaL_checkstring(L, 1), *dot;
  int status;

  lua_settop(L, 1);
  lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_GLOBALS); /* the job's */
  lua_rawgeti(L, LUA_REGISTRYINDEX, r->base);
  lua_rawseti(L, LUA_REGISTRYINDEX, LUA_RIDX_GLOBALS);
  lua_pushvalue(L, 1);
  status = plain_require(L);
  if (status == LUA_ERRRUN && strchr(name, '.') != NULL) { /* 3: its error */
    for (dot = strchr(name, '.'); dot != NULL; dot = strchr(dot + 1, '.')) {
      lua_pushlstring(L, name, (size_t)(dot - name));
      plain_require(L);
      lua_settop(L, 3);
    }
    lua_pushvalue(L, 1);
    if (plain_require(L) == LUA_OK) {
      lua_remove(L, 3);
      status = LUA_OK;
    } else {
      lua_settop(L, 3);
    }
  }
  lua_pushvalue(L, 2);
  lua_rawseti(L, LUA_REGISTRYINDEX, LUA_RIDX_GLOBALS);
  if (status != LUA_OK)
    return lua_error(L);
  return lua_gettop(L) - 2;
}

/* Call what a wrapper stands for, its arguments checked: an error in there
 * would not know the name. */
static int call_wrapped(lua_State *L) {
  lua_pushvalue(L, lua_upvalueindex(2));
  lua_insert(L, 1);
  lua_call(L, lua_gettop(L) - 1, LUA_MULTRET);
  return lua_gettop(L);
}

static int seeding(lua_State *L) {
  if (!lua_isnone(L, 1)) {
    luaL_checknumber(L, 1);
    luaL_optinteger(L, 2, 0);
  }
  runner_of(L, 1)->reseed = true;
  return call_wrapped(L);
}

/* What the job has written comes before what a program it starts writes. */
static int execute(lua_State *L) {
  luaL_optstring(L, 1, NULL);
  fflush(stdout);
  return call_wrapped(L);
}

static int popen_(lua_State *L) {
  const char *mode;

  luaL_checkstring(L, 1);
  mode = luaL_optstring(L, 2, "r");
  luaL_argcheck(L, (mode[0] == 'r' || mode[0] == 'w') && mode[1] == '\0', 2,
                "invalid mode");
  fflush(stdout);
  return call_wrapped(L);
}

static int on_error(lua_State *L) {
  pp_runner *r = runner_of(L, 1);

  luaL_traceback(L, L, NULL, 1);
  lua_rawseti(L, LUA_REGISTRYINDEX, r->traceback);
  lua_settop(L, 1);
  return 1;
}

static void wrap(lua_State *L, pp_runner *r, const char *table,
                 const char *name, lua_CFunction f) {
  lua_getglobal(L, table);
  lua_pushlightuserdata(L, r);
  lua_getfield(L, -2, name);
  lua_pushcclosure(L, f, 2);
  lua_setfield(L, -2, name);
  lua_pop(L, 1);
}

static int prepare(lua_State *L) {
  pp_runner *r = lua_touserdata(L, 1);

  wrap(L, r, "_G", "require", in_base);
  pp_runner_searchers(r, L);
  lua_getglobal(L, "math");
  lua_getfield(L, -1, "randomseed");
  r->randomseed = luaL_ref(L, LUA_REGISTRYINDEX);
  lua_pushboolean(L, 0);
  r->tail_slot = luaL_ref(L, LUA_REGISTRYINDEX);
  lua_pop(L, 1);
  wrap(L, r, "math", "randomseed", seeding);
  wrap(L, r, "os", "execute", execute);
  wrap(L, r, "io", "popen", popen_);
  lua_newtable(L);
  r->cache = luaL_ref(L, LUA_REGISTRYINDEX);
  lua_pushboolean(L, 0);
  r->given = luaL_ref(L, LUA_REGISTRYINDEX);
  lua_pushglobaltable(L);
  r->base = luaL_ref(L, LUA_REGISTRYINDEX);
  lua_newtable(L);
  r->shared = luaL_ref(L, LUA_REGISTRYINDEX);
  pp_globals_prepare(L, r);
  for (int i = 0; i < 2; i++) {
    lua_pushstring(L, i == 0 ? "_IO_input" : "_IO_output");
    lua_pushvalue(L, -1);
    lua_rawget(L, LUA_REGISTRYINDEX);
    r->files[i] = luaL_ref(L, LUA_REGISTRYINDEX);
    r->file_keys[i] = luaL_ref(L, LUA_REGISTRYINDEX);
  }
  lua_pushboolean(L, 0);
  r->traceback = luaL_ref(L, LUA_REGISTRYINDEX);
  lua_pushlightuserdata(L, r);
  lua_pushcclosure(L, on_error, 1);
  r->handler = luaL_ref(L, LUA_REGISTRYINDEX);
  lua_pushlightuserdata(L, r);
  lua_setfield(L, LUA_REGISTRYINDEX, "pp.runner");
  pp_pure_prepare(L, r);
  return 0;
}

pp_runner *pp_runner_new(lua_State *L) {
  pp_runner *r = calloc(1, sizeof *r);
  pp_codec_hooks hooks;

  if (r == NULL)
    return NULL;
  r->L = L;
  lua_pushcfunction(L, prepare);
  lua_pushlightuserdata(L, r);
  if (lua_pcall(L, 1, 0, 0) != LUA_OK)
    goto fail;
  hooks = pp_given_hooks(r);
  r->codec = pp_codec_new(L, PP_CODEC_WORKER, &hooks);
  if (r->codec == NULL)
    goto fail;
  return r;
fail:
  free(r);
  return NULL;
}

static void free_bytes(pp_runner *r, pp_held *h) {
  if (h->window.p != NULL)
    pp_window_close(r->windows, &h->window);
  else
    free(h->bytes);
  h->bytes = NULL;
}

void pp_runner_free(pp_runner *r) {
  if (r == NULL)
    return;
  for (uint32_t i = 0; i < r->cap; i++) {
    free_bytes(r, &r->blobs[i]);
    free(r->blobs[i].deps);
  }
  free(r->blobs);
  free(r->codes);
  pp_buf_clear(&r->with.todo);
  pp_buf_clear(&r->with.sources);
  pp_buf_clear(&r->answer);
  pp_buf_clear(&r->look[0]);
  pp_buf_clear(&r->look[1]);
  pp_codec_free(r->codec);
  free(r);
}

void pp_runner_name(pp_runner *r, uint32_t worker, const char *node) {
  r->now.worker = worker;
  r->now.node = node;
}

const pp_running *pp_runner_running(const pp_runner *r) { return &r->now; }

void pp_runner_reseed(pp_runner *r) {
  lua_State *L = r->L;
  lua_Integer seed[2] = {pp_now_ns(), getpid()};

  (void)!getrandom(seed, sizeof seed, GRND_NONBLOCK);
  lua_rawgeti(L, LUA_REGISTRYINDEX, r->base);
  lua_getfield(L, -1, "math");
  lua_getfield(L, -1, "randomseed");
  lua_pushinteger(L, seed[0]);
  lua_pushinteger(L, seed[1]);
  if (lua_pcall(L, 2, 0, 0) != LUA_OK)
    lua_pop(L, 1);
  lua_pop(L, 2);
  r->reseed = false;
}

/* --- calls of everywhere -------------------------------------------------- */

void pp_runner_copy_base(pp_runner *r, lua_State *L) {
  int base = lua_gettop(L) + 1;

  lua_rawgeti(L, LUA_REGISTRYINDEX, r->base);
  lua_newtable(L);
  lua_pushnil(L);
  while (lua_next(L, base) != 0) {
    lua_pushvalue(L, -2);
    lua_insert(L, -2);
    lua_rawset(L, base + 1);
  }
  lua_remove(L, base);
}

/* Of the names in the table at index `of`, note those that are not the same in
 * the table at index `other`. */
static void note_names(lua_State *L, int of, int other, int shared, bool have) {
  lua_pushnil(L);
  while (lua_next(L, of) != 0) {
    lua_pushvalue(L, -2);
    lua_rawget(L, other);
    if (have ? !lua_rawequal(L, -1, -2) : lua_isnil(L, -1)) {
      lua_pushvalue(L, -3);
      lua_pushboolean(L, have);
      lua_rawset(L, shared);
    }
    lua_pop(L, 2);
  }
}

void pp_runner_settle_base(pp_runner *r, lua_State *L, int before) {
  int top = lua_gettop(L);

  pp_codec_stay(r->codec, L);
  lua_rawgeti(L, LUA_REGISTRYINDEX, r->base);
  lua_rawgeti(L, LUA_REGISTRYINDEX, r->shared);
  note_names(L, top + 1, before, top + 2, true);
  note_names(L, before, top + 1, top + 2, false);
  lua_settop(L, top);
}

/* --- stopping ------------------------------------------------------------- */

static void on_stop(lua_State *L, lua_Debug *ar) {
  pp_runner *r;

  (void)ar;
  pp_state_unpoke(L);
  lua_getfield(L, LUA_REGISTRYINDEX, "pp.runner");
  r = lua_touserdata(L, -1);
  lua_pop(L, 1);
  if (r != NULL && r->user && r->stop != NULL && !r->has_been) {
    r->has_been = 1;
    luaL_error(L, "%s", r->stop);
  }
}

void pp_runner_stop(pp_runner *r, const char *why) {
  r->stop = why;
  if (r->user)
    pp_state_poke(r->L, on_stop);
}

void pp_runner_unstop(pp_runner *r) {
  if (r->stop == NULL)
    return;
  pp_state_unpoke(r->L);
  r->stop = NULL;
  r->has_been = 0;
}

const char *pp_runner_stopping(const pp_runner *r) {
  return r->user && !r->has_been ? r->stop : NULL;
}

void pp_runner_stopped(pp_runner *r, lua_State *L) {
  pp_state_unpoke(L);
  r->has_been = 1;
}

lua_State *pp_runner_state(const pp_runner *r) { return r->L; }

void pp_runner_feeds(pp_runner *r, const struct pp_command_feed *feed) {
  r->feed = feed;
}

const struct pp_command_feed *pp_runner_feed(const pp_runner *r) {
  return r->feed;
}

void pp_runner_cuts(pp_runner *r, struct pp_lane *lane) { r->lane = lane; }

/* --- blobs -------------------------------------------------------------- */

void pp_held_shrink(pp_runner *r, pp_held *h) {
  unsigned char *p =
      h->window.p != NULL ? malloc(1) : (unsigned char *)realloc(h->bytes, 1);

  if (p == NULL)
    return;
  if (h->window.p != NULL)
    free_bytes(r, h);
  h->bytes = p;
}

static void blob_free(pp_runner *r, uint32_t id) {
  pp_held *h = &r->blobs[id];
  size_t value = h->kind == PP_BLOB_VALUE && h->opened ? h->len + 1 : 0;

  if (h->opened) {
    lua_rawgeti(r->L, LUA_REGISTRYINDEX, r->cache);
    lua_pushnil(r->L);
    lua_rawseti(r->L, -2, (lua_Integer)id * 2);
    lua_pushnil(r->L);
    lua_rawseti(r->L, -2, (lua_Integer)id * 2 + 1);
    if (h->pure != PP_PURE_UNKNOWN) {
      lua_pushnil(r->L);
      lua_rawseti(r->L, -2, -1 - (lua_Integer)id);
    }
    lua_pop(r->L, 1);
  }
  if (r->setting == id + 1)
    r->setting = UINT32_MAX; /* its number may come to stand for another */
  free_bytes(r, h);
  free(h->deps);
  memset(h, 0, sizeof *h);
  if (value > 0)
    pp_given_dropped(r->L, r, value);
}

int pp_runner_blob(pp_runner *r, const unsigned char *p, size_t len,
                   const pp_window *afar, pp_windows *windows) {
  uint32_t id, ndeps;
  pp_held *h;

  if (len < PP_BLOB_HEAD)
    return PP_EBAD;
  id = pp_get32(p + PP_BLOB_ID);
  ndeps = pp_get32(p + PP_BLOB_NDEPS);
  if (id > 1u << 28 || ndeps > (len - PP_BLOB_HEAD) / 4)
    return PP_EBAD;
  if (id >= r->cap) {
    uint32_t cap = id + 8 + r->cap / 2;
    pp_held *v = realloc(r->blobs, cap * sizeof *v);

    if (v == NULL)
      return PP_ENOMEM;
    memset(v + r->cap, 0, (cap - r->cap) * sizeof *v);
    r->blobs = v;
    r->cap = cap;
  }
  blob_free(r, id);
  h = &r->blobs[id];
  h->len = len - PP_BLOB_HEAD - 4 * (size_t)ndeps;
  if (afar != NULL) {
    r->windows = windows;
    h->window = *afar;
    h->bytes = (unsigned char *)(uintptr_t)afar->p; /* only read */
    h->len = afar->len;
  } else {
    h->bytes = malloc(h->len + 1);
  }
  h->deps = malloc(4 * (size_t)ndeps + 1);
  if (h->bytes == NULL || h->deps == NULL) {
    blob_free(r, id);
    return PP_ENOMEM;
  }
  h->hash.lo = pp_get64(p + PP_BLOB_HASH);
  h->hash.hi = pp_get64(p + PP_BLOB_HASH + 8);
  h->ndeps = ndeps;
  for (uint32_t i = 0; i < ndeps; i++)
    h->deps[i] = pp_get32(p + PP_BLOB_HEAD + 4 * (size_t)i);
  for (uint32_t i = 0; i < ndeps; i++) {
    const pp_held *d = pp_held_at(r, h->deps[i]);

    h->values |=
        d != NULL && (d->kind == PP_BLOB_VALUE || d->kind == PP_BLOB_RESULT);
  }
  h->kind = (char)pp_get32(p + PP_BLOB_KIND);
  if (afar == NULL) {
    memcpy(h->bytes, p + len - h->len, h->len);
    h->bytes[h->len] = 0;
  }
  return 0;
}

int pp_runner_drop(pp_runner *r, const unsigned char *p, size_t len) {
  uint32_t id;

  if (len < 4)
    return PP_EBAD;
  id = pp_get32(p);
  if (pp_held_at(r, id) != NULL)
    blob_free(r, id);
  return 0;
}
