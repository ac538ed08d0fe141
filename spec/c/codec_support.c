/* SPDX-License-Identifier: MIT */
#include "codec_support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

failing fail_c = {.left = -1}, fail_lua = {.left = -1};

static bool fails(failing *f) {
  f->calls++;
  if (f->left < 0)
    return false;
  if (f->left == 0)
    return true;
  f->left--;
  return false;
}

static void *failing_realloc(void *p, size_t size) {
  if (size == 0) {
    if (p != NULL)
      fail_c.live--;
    free(p);
    return NULL;
  }
  if (fails(&fail_c))
    return NULL;
  if (p == NULL)
    fail_c.live++;
  return realloc(p, size);
}

void failing_start(void) { pp_buf_realloc = failing_realloc; }

void *failing_lua_alloc(void *ud, void *p, size_t old, size_t size) {
  (void)ud;
  if (size == 0) {
    free(p);
    return NULL;
  }
  /* Shrinking must not fail in Lua. */
  if ((p == NULL || size > old) && fails(&fail_lua))
    return NULL;
  return realloc(p, size);
}

/* --- hooks -------------------------------------------------------------- */

static pp_blob *retain(void *ud, pp_blob *b) {
  (void)ud;
  b->refs++;
  return b;
}

static void release(void *ud, pp_blob *b) {
  pair *p = ud;
  pp_blob **at;
  size_t i;

  if (--b->refs > 0)
    return;
  for (at = &p->blobs; *at != b; at = &(*at)->next)
    ;
  *at = b->next;
  for (i = 0; i < b->ndeps; i++)
    release(ud, b->deps[i]);
  free(b->deps);
  free(b->bytes);
  free(b);
}

void store_release(pair *p, pp_blob *b) { release(p, b); }

static pp_blob *intern(void *ud, int kind, pp_hash hash, const void *bytes,
                       size_t len, pp_blob *const *deps, size_t ndeps) {
  pair *p = ud;
  pp_blob *b;
  size_t i;

  for (b = p->blobs; b != NULL; b = b->next)
    if (pp_hash_eq(b->hash, hash))
      return retain(ud, b);
  if (fails(&fail_c))
    return NULL;
  b = calloc(1, sizeof *b);
  b->refs = 1, b->kind = kind, b->hash = hash, b->len = len;
  b->bytes = malloc(len + 1);
  memcpy(b->bytes, bytes, len);
  b->deps = calloc(ndeps + 1, sizeof(pp_blob *));
  for (i = 0; i < ndeps; i++)
    b->deps[i] = retain(ud, deps[i]);
  b->ndeps = ndeps;
  b->next = p->blobs;
  p->blobs = b;
  p->interned++;
  return b;
}

static const unsigned char *code(void *ud, pp_hash hash, size_t *len) {
  pair *p = ud;
  pp_blob *b;

  for (b = p->forget ? NULL : p->blobs; b != NULL; b = b->next)
    if (pp_hash_eq(b->hash, hash) && b->kind == 'c') {
      *len = b->len;
      return b->bytes;
    }
  return NULL;
}

/* A userdata of type "ticket" holds an integer and travels as that. */
static int custom(void *ud, lua_State *L, int idx, pp_custom *out) {
  lua_Integer *v = luaL_testudata(L, idx, "ticket");

  (void)ud;
  return v != NULL && pp_buf_put(out->bytes, v, sizeof *v) == 0;
}

static int opened(void *ud, lua_State *L, const unsigned char *p, size_t n) {
  lua_Integer v;

  (void)ud;
  if (n != sizeof v)
    return PP_EBAD;
  memcpy(&v, p, sizeof v);
  lua_createtable(L, 0, 1);
  lua_pushinteger(L, v);
  lua_setfield(L, -2, "ticket");
  return 0;
}

pp_code *codes_of(pp_blob *const *deps, size_t n) {
  pp_code *c = calloc(n + 1, sizeof *c);
  size_t i;

  for (i = 0; i < n; i++) {
    c[i].hash = deps[i]->hash;
    c[i].data = deps[i]->bytes;
    c[i].len = deps[i]->len;
  }
  return c;
}

/* --- T ------------------------------------------------------------------ */

static pair *pair_of(lua_State *L) {
  pair *p;

  lua_getfield(L, LUA_REGISTRYINDEX, "pair");
  p = lua_touserdata(L, -1);
  lua_pop(L, 1);
  return p;
}

/* nil, message, code. */
static int failed(lua_State *L, lua_State *from, int rc) {
  const char *message =
      lua_type(from, -1) == LUA_TSTRING ? lua_tostring(from, -1) : "?";

  luaL_checkstack(L, 4, NULL);
  lua_pushnil(L);
  lua_pushstring(L, message);
  if (from != L)
    lua_pop(from, 1);
  lua_pushinteger(L, rc);
  return 3;
}

/* Push on the worker a fresh environment over its globals. */
static void push_env(lua_State *W) {
  lua_newtable(W);
  lua_createtable(W, 0, 1);
  lua_rawgeti(W, LUA_REGISTRYINDEX, LUA_RIDX_GLOBALS);
  lua_setfield(W, -2, "__index");
  lua_setmetatable(W, -2);
}

static int traceback(lua_State *L) {
  if (lua_isstring(L, 1))
    luaL_traceback(L, L, lua_tostring(L, 1), 1);
  return 1;
}

/* Results of the worker, which are the n values on top there, to L. */
static int come_back(pair *p, lua_State *L, int n) {
  lua_State *W = p->worker;
  pp_buf out = {0};
  int rc =
      pp_codec_pack(p->wc, W, lua_gettop(W) - n + 1, n, "result", &out, NULL);

  if (rc < 0) {
    pp_buf_clear(&out);
    return failed(L, W, rc);
  }
  lua_pop(W, 1);
  rc = pp_codec_unpack(p->sc, L, out.data, out.len, NULL, 0);
  pp_buf_clear(&out);
  return rc < 0 ? failed(L, L, rc) : rc;
}

/* T.trip(...): there and back, as values. */
static int t_trip(lua_State *L) {
  pair *p = pair_of(L);
  lua_State *W = p->worker;
  pp_buf out = {0};
  pp_deps deps = {0};
  pp_code *codes;
  int n = lua_gettop(L), top = lua_gettop(W), rc;

  rc = pp_codec_pack(p->sc, L, 1, n, "argument", &out, &deps);
  if (rc < 0) {
    pp_buf_clear(&out);
    pp_deps_clear(p->sc, &deps);
    return failed(L, L, rc);
  }
  codes = codes_of(deps.v, deps.n);
  push_env(W);
  pp_codec_bind(p->wc, W, -1, 0);
  rc = pp_codec_unpack(p->wc, W, out.data, out.len, codes, deps.n);
  pp_deps_clear(p->sc, &deps);
  free(codes);
  pp_buf_clear(&out);
  rc = rc < 0 ? failed(L, W, rc) : come_back(p, L, rc);
  pp_codec_unbind(p->wc, W);
  lua_settop(W, top);
  return rc;
}

/* Execute: the parcel, then arguments from index `first`. */
static int execute(pair *p, lua_State *L, pp_parcel *parcel, int first,
                   int last, int times) {
  lua_State *W = p->worker;
  pp_buf out = {0};
  pp_deps deps = {0};
  pp_code *codes, *fcodes;
  int top = lua_gettop(W), rc, i, fn, n;

  rc =
      pp_codec_pack(p->sc, L, first, last - first + 1, "argument", &out, &deps);
  if (rc < 0) {
    pp_buf_clear(&out);
    pp_deps_clear(p->sc, &deps);
    return failed(L, L, rc);
  }
  fcodes = codes_of(parcel->blob->deps, parcel->blob->ndeps);
  codes = codes_of(deps.v, deps.n);
  rc = pp_codec_open(p->wc, W, parcel->blob->bytes, parcel->blob->len, fcodes,
                     parcel->blob->ndeps);
  free(fcodes);
  if (rc < 0) {
    rc = failed(L, W, rc);
    goto done;
  }
  fn = lua_gettop(W) - 1;
  for (i = 0; i < times; i++) {
    lua_settop(W, fn + 1);
    push_env(W);
    rc = pp_codec_bind(p->wc, W, fn + 2, fn + 1);
    if (rc < 0) {
      lua_pushstring(W, "bind");
      rc = failed(L, W, rc);
      goto done;
    }
    lua_pushcfunction(W, traceback);
    lua_pushvalue(W, fn);
    n = pp_codec_unpack(p->wc, W, out.data, out.len, codes, deps.n);
    if (n < 0)
      rc = failed(L, W, n);
    else if (lua_pcall(W, n, LUA_MULTRET, fn + 3) != LUA_OK)
      rc = failed(L, W, -100);
    else if (i == times - 1)
      rc = come_back(p, L, lua_gettop(W) - fn - 3);
    pp_codec_unbind(p->wc, W);
  }
done:
  lua_settop(W, top);
  free(codes);
  pp_deps_clear(p->sc, &deps);
  pp_buf_clear(&out);
  return rc;
}

static int run(lua_State *L, int extra, int first, int times) {
  pair *p = pair_of(L);
  pp_parcel parcel;
  int last = lua_gettop(L);
  int rc = pp_codec_function(p->sc, L, 1, extra, &parcel);

  if (rc < 0)
    return failed(L, L, rc);
  rc = execute(p, L, &parcel, first, last, times);
  release(p, parcel.blob);
  return rc;
}

/* T.run(f, ...): f(...) in the worker. */
static int t_run(lua_State *L) { return run(L, 0, 2, 1); }
/* T.again(f, ...): opened once, executed three times; the last results. */
static int t_again(lua_State *L) { return run(L, 0, 2, 3); }
/* T.with(f, globals, ...) */
static int t_with(lua_State *L) { return run(L, 2, 3, 1); }

/* T.parcel(f): its address, flags and length; the parcel is not kept. */
static int t_parcel(lua_State *L) {
  pair *p = pair_of(L);
  pp_parcel parcel;
  int rc = pp_codec_function(p->sc, L, 1, 0, &parcel);

  if (rc < 0)
    return failed(L, L, rc);
  lua_pushinteger(L, (lua_Integer)parcel.blob->hash.lo);
  lua_pushinteger(L, parcel.flags);
  lua_pushinteger(L, (lua_Integer)parcel.blob->len);
  release(p, parcel.blob);
  return 3;
}

static int t_captures(lua_State *L) {
  int rc = pp_codec_captures(pair_of(L)->sc, L, 1);

  return rc < 0 ? failed(L, L, rc) : 1;
}

/* T.pack(...): the bytes. */
static int t_pack(lua_State *L) {
  pair *p = pair_of(L);
  pp_buf out = {0};
  pp_deps deps = {0};
  int rc = pp_codec_pack(p->sc, L, 1, lua_gettop(L), "argument", &out, &deps);

  if (rc < 0) {
    pp_buf_clear(&out);
    pp_deps_clear(p->sc, &deps);
    return failed(L, L, rc);
  }
  lua_pushlstring(L, (const char *)out.data, out.len);
  pp_buf_clear(&out);
  pp_deps_clear(p->sc, &deps);
  return 1;
}

/* T.unpack(bytes): in the submitter, as if a worker had sent them. */
static int t_unpack(lua_State *L) {
  size_t n;
  const char *s = luaL_checklstring(L, 1, &n);
  int rc = pp_codec_unpack(pair_of(L)->sc, L, s, n, NULL, 0);

  return rc < 0 ? failed(L, L, rc) : rc;
}

/* T.worker(source): run it in the worker's base globals. */
static int t_worker(lua_State *L) {
  lua_State *W = pair_of(L)->worker;

  if (luaL_dostring(W, luaL_checkstring(L, 1)))
    return luaL_error(L, "%s", lua_tostring(W, -1));
  lua_settop(W, 0);
  return 0;
}

static int t_ticket(lua_State *L) {
  lua_Integer *v = lua_newuserdatauv(L, sizeof *v, 0);

  *v = luaL_checkinteger(L, 1);
  luaL_newmetatable(L, "ticket");
  lua_setmetatable(L, -2);
  return 1;
}

static int t_forget(lua_State *L) {
  pair_of(L)->forget = lua_toboolean(L, 1);
  return 0;
}

/* T.blobs(): how many there are. */
static int t_blobs(lua_State *L) {
  pp_blob *b;
  int n = 0;

  for (b = pair_of(L)->blobs; b != NULL; b = b->next)
    n++;
  lua_pushinteger(L, n);
  return 1;
}

static const luaL_Reg t_funcs[] = {
    {"blobs", t_blobs},   {"trip", t_trip},         {"run", t_run},
    {"again", t_again},   {"with", t_with},         {"parcel", t_parcel},
    {"pack", t_pack},     {"captures", t_captures}, {"unpack", t_unpack},
    {"worker", t_worker}, {"ticket", t_ticket},     {"forget", t_forget},
    {NULL, NULL},
};

/* --- both sides --------------------------------------------------------- */

static lua_State *new_state(void) {
  lua_State *L = lua_newstate(failing_lua_alloc, NULL);

  luaL_openlibs(L);
  if (luaL_dostring(L, "local pp = {range = function(a, b) return a + b end}\n"
                       "package.loaded.pp = pp"))
    abort();
  lua_settop(L, 0);
  return L;
}

pp_codec_hooks store_hooks(pair *p) {
  pp_codec_hooks h = {intern, retain, release, code, custom,
                      opened, NULL,   NULL,    p};

  return h;
}

void pair_open(pair *p) {
  pp_codec_hooks h = store_hooks(p);

  memset(p, 0, sizeof *p);
  p->submitter = new_state();
  p->worker = new_state();
  p->sc = pp_codec_new(p->submitter, PP_CODEC_SUBMITTER, &h);
  p->wc = pp_codec_new(p->worker, PP_CODEC_WORKER, &h);
  if (p->sc == NULL || p->wc == NULL)
    return;
  lua_pushlightuserdata(p->submitter, p);
  lua_setfield(p->submitter, LUA_REGISTRYINDEX, "pair");
  luaL_newlib(p->submitter, t_funcs);
  lua_setglobal(p->submitter, "T");
}

int pair_close(pair *p) {
  int left = 0;

  lua_close(p->submitter);
  pp_codec_free(p->sc);
  pp_codec_free(p->wc);
  lua_close(p->worker);
  while (p->blobs != NULL) {
    p->blobs->refs = 1;
    release(p, p->blobs);
    left++;
  }
  return left;
}
