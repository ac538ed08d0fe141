/* SPDX-License-Identifier: MIT */
#include "runner.h"

#include <lauxlib.h>
#include <lualib.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "state.h"

/* A blob as a worker holds it. */
typedef struct held {
  unsigned char *bytes; /* owned; NULL: not held */
  size_t len;
  pp_hash hash;
  uint32_t *deps; /* owned numbers of code blobs */
  uint32_t ndeps;
  bool opened; /* its function and bindings are in the cache table */
} held;

struct pp_runner {
  lua_State *L;
  pp_codec *codec;
  held *blobs;
  uint32_t cap;
  pp_code *codes; /* scratch */
  uint32_t cap_codes;
  uint32_t setting; /* number + 1 of the setting in force */
  pp_running now;
  bool reseed;                    /* a job has seeded math.random */
  const char *volatile stop;      /* the job is to be stopped: why */
  volatile sig_atomic_t user;     /* the job's own code is running */
  volatile sig_atomic_t has_been; /* the error was raised */
  int cache; /* registry: [2 id] function, [2 id + 1] bindings */
  int base;  /* registry: the worker's globals */
  int env_meta;
  int traceback; /* registry slot for the failing job's traceback */
  int handler;   /* message handler */
};

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

static int seeding(lua_State *L) {
  pp_runner *r = runner_of(L, 1);
  int n = lua_gettop(L);

  r->reseed = true;
  lua_pushvalue(L, lua_upvalueindex(2));
  lua_insert(L, 1);
  lua_call(L, n, LUA_MULTRET);
  return lua_gettop(L);
}

/* What the job has written comes before what a program it starts writes. */
static int flushing(lua_State *L) {
  int n = lua_gettop(L);

  fflush(stdout);
  lua_pushvalue(L, lua_upvalueindex(2));
  lua_insert(L, 1);
  lua_call(L, n, LUA_MULTRET);
  return lua_gettop(L);
}

/* next over a job's globals, then over those of the base it does not hide. */
static int env_next(lua_State *L) {
  bool in_env = true;

  lua_settop(L, 2);
  if (!lua_isnil(L, 2)) {
    lua_pushvalue(L, 2);
    in_env = lua_rawget(L, 1) != LUA_TNIL;
    lua_pop(L, 1);
  }
  if (in_env) {
    if (lua_next(L, 1) != 0)
      return 2;
    lua_pushnil(L);
  }
  lua_rawgeti(L, LUA_REGISTRYINDEX, runner_of(L, 1)->base);
  lua_insert(L, 2); /* env, base, key */
  while (lua_next(L, 2) != 0) {
    lua_pushvalue(L, -2);
    if (lua_rawget(L, 1) == LUA_TNIL) {
      lua_pop(L, 1);
      return 2;
    }
    lua_pop(L, 2);
  }
  lua_pushnil(L);
  return 1;
}

static int env_pairs(lua_State *L) {
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_pushvalue(L, 1);
  lua_pushnil(L);
  return 3;
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
  wrap(L, r, "math", "randomseed", seeding);
  wrap(L, r, "os", "execute", flushing);
  wrap(L, r, "io", "popen", flushing);
  lua_newtable(L);
  r->cache = luaL_ref(L, LUA_REGISTRYINDEX);
  lua_pushglobaltable(L);
  r->base = luaL_ref(L, LUA_REGISTRYINDEX);
  lua_newtable(L);
  lua_pushglobaltable(L);
  lua_setfield(L, -2, "__index");
  lua_pushlightuserdata(L, r);
  lua_pushcclosure(L, env_next, 1);
  lua_pushcclosure(L, env_pairs, 1);
  lua_setfield(L, -2, "__pairs");
  r->env_meta = luaL_ref(L, LUA_REGISTRYINDEX);
  lua_pushboolean(L, 0);
  r->traceback = luaL_ref(L, LUA_REGISTRYINDEX);
  lua_pushlightuserdata(L, r);
  lua_pushcclosure(L, on_error, 1);
  r->handler = luaL_ref(L, LUA_REGISTRYINDEX);
  lua_pushlightuserdata(L, r);
  lua_setfield(L, LUA_REGISTRYINDEX, "pp.runner");
  return 0;
}

pp_runner *pp_runner_new(lua_State *L) {
  static const pp_codec_hooks none = {0};
  pp_runner *r = calloc(1, sizeof *r);

  if (r == NULL)
    return NULL;
  r->L = L;
  lua_pushcfunction(L, prepare);
  lua_pushlightuserdata(L, r);
  if (lua_pcall(L, 1, 0, 0) != LUA_OK)
    goto fail;
  r->codec = pp_codec_new(L, PP_CODEC_WORKER, &none);
  if (r->codec == NULL)
    goto fail;
  return r;
fail:
  free(r);
  return NULL;
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

/* --- blobs -------------------------------------------------------------- */

static held *blob_at(pp_runner *r, uint32_t id) {
  return id < r->cap && r->blobs[id].bytes != NULL ? &r->blobs[id] : NULL;
}

static void blob_free(pp_runner *r, uint32_t id) {
  held *h = &r->blobs[id];

  if (h->opened) {
    lua_rawgeti(r->L, LUA_REGISTRYINDEX, r->cache);
    lua_pushnil(r->L);
    lua_rawseti(r->L, -2, (lua_Integer)id * 2);
    lua_pushnil(r->L);
    lua_rawseti(r->L, -2, (lua_Integer)id * 2 + 1);
    lua_pop(r->L, 1);
  }
  free(h->bytes);
  free(h->deps);
  memset(h, 0, sizeof *h);
}

int pp_runner_blob(pp_runner *r, const unsigned char *p, size_t len) {
  uint32_t id, ndeps;
  held *h;

  if (len < PP_BLOB_HEAD)
    return PP_EBAD;
  id = pp_get32(p + PP_BLOB_ID);
  ndeps = pp_get32(p + PP_BLOB_NDEPS);
  if (id > 1u << 28 || ndeps > (len - PP_BLOB_HEAD) / 4)
    return PP_EBAD;
  if (id >= r->cap) {
    uint32_t cap = id + 64 + r->cap / 2;
    held *v = realloc(r->blobs, cap * sizeof *v);

    if (v == NULL)
      return PP_ENOMEM;
    memset(v + r->cap, 0, (cap - r->cap) * sizeof *v);
    r->blobs = v;
    r->cap = cap;
  }
  blob_free(r, id);
  h = &r->blobs[id];
  h->len = len - PP_BLOB_HEAD - 4 * (size_t)ndeps;
  h->bytes = malloc(h->len + 1);
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
  memcpy(h->bytes, p + len - h->len, h->len);
  h->bytes[h->len] = 0;
  return 0;
}

int pp_runner_drop(pp_runner *r, const unsigned char *p, size_t len) {
  uint32_t id;

  if (len < 4)
    return PP_EBAD;
  id = pp_get32(p);
  if (blob_at(r, id) != NULL)
    blob_free(r, id);
  return 0;
}

/* The code blobs of these numbers in r->codes; PP_EBAD if one is missing. */
static int gather(pp_runner *r, const uint32_t *ids, uint32_t n) {
  if (n > r->cap_codes) {
    pp_code *v = realloc(r->codes, n * sizeof *v);

    if (v == NULL)
      return PP_ENOMEM;
    r->codes = v;
    r->cap_codes = n;
  }
  for (uint32_t i = 0; i < n; i++) {
    const held *h = blob_at(r, ids[i]);

    if (h == NULL)
      return PP_EBAD;
    r->codes[i] = (pp_code){h->hash, h->bytes, h->len};
  }
  return 0;
}

/* --- a job -------------------------------------------------------------- */

typedef struct call {
  pp_runner *r;
  const unsigned char *p, *args; /* payload */
  size_t args_len;
  uint32_t fn, flags;
  const uint32_t *deps;
  uint32_t ndeps;
  const unsigned char *modules;
  size_t modules_len;
  pp_buf *out;
  void (*taken)(void *ud);
  void *ud;
  int kind;   /* of the failure */
  bool bound; /* its globals are in force */
  int64_t started, run;
  size_t memory;
} call;

/* Leave the function and its bindings (or nil) on the stack. */
static void push_function(lua_State *L, call *c) {
  pp_runner *r = c->r;
  held *h = blob_at(r, c->fn);

  if (h == NULL || gather(r, h->deps, h->ndeps) != 0)
    luaL_error(L, "the function of this job did not arrive");
  lua_rawgeti(L, LUA_REGISTRYINDEX, r->cache);
  if (h->opened && !(c->flags & PP_JOBF_AFRESH)) {
    lua_rawgeti(L, -1, (lua_Integer)c->fn * 2);
    lua_rawgeti(L, -2, (lua_Integer)c->fn * 2 + 1);
    lua_remove(L, -3);
    return;
  }
  if (pp_codec_open(r->codec, L, h->bytes, h->len, r->codes, h->ndeps) < 0)
    lua_error(L);
  if (!(c->flags & PP_JOBF_AFRESH)) {
    lua_pushvalue(L, -2);
    lua_rawseti(L, -4, (lua_Integer)c->fn * 2);
    lua_pushvalue(L, -1);
    lua_rawseti(L, -4, (lua_Integer)c->fn * 2 + 1);
    h->opened = true;
  }
  lua_remove(L, -3);
}

/* modules = {...}: require each, and make it a global of the job. */
static void require_modules(lua_State *L, call *c, int env) {
  pp_rd rd = pp_rd_of(c->modules, c->modules_len);
  const unsigned char *name;
  uint64_t n;

  while (pp_rd_left(&rd) > 0) {
    if (pp_rd_varint(&rd, &n) != 0 || n > pp_rd_left(&rd) ||
        pp_rd_bytes(&rd, n, &name) != 0)
      luaL_error(L, "malformed job");
    lua_rawgeti(L, LUA_REGISTRYINDEX, c->r->base);
    lua_getfield(L, -1, "require");
    lua_pushlstring(L, (const char *)name, n);
    lua_call(L, 1, 1);
    lua_pushlstring(L, (const char *)name, n);
    lua_insert(L, -2);
    lua_rawset(L, env);
    lua_pop(L, 1);
  }
}

/* Replace the error value at the top by what the submitter gets to know of
 * it, and append that: message, traceback, value. */
static int append_error(lua_State *L, call *c, int kind) {
  pp_runner *r = c->r;
  int err = lua_gettop(L), status;
  const char *msg, *tb;
  size_t msg_len, tb_len;

  luaL_checkstack(L, 10, NULL);
  msg =
      lua_type(L, err) == LUA_TSTRING ? lua_tolstring(L, err, &msg_len) : NULL;
  if (msg == NULL) {
    if (lua_type(L, err) == LUA_TNUMBER ||
        luaL_getmetafield(L, err, "__tostring") != LUA_TNIL)
      luaL_tolstring(L, err, NULL);
    else
      lua_pushfstring(L, "(error object is a %s value)", luaL_typename(L, err));
    msg = lua_tolstring(L, -1, &msg_len);
  }
  lua_rawgeti(L, LUA_REGISTRYINDEX, r->traceback);
  tb = lua_tolstring(L, -1, &tb_len);
  if (tb == NULL)
    tb = "", tb_len = 0;
  if (pp_error_body(c->out, kind, msg, msg_len, tb, tb_len) != 0)
    return luaL_error(L, "not enough memory");
  if (lua_type(L, err) != LUA_TSTRING) {
    lua_pushvalue(L, err);
    status = pp_codec_pack(r->codec, L, lua_gettop(L), 1, "error value", c->out,
                           NULL);
    if (status != 0) { /* its tostring must do */
      luaL_tolstring(L, err, NULL);
      if (pp_codec_pack(r->codec, L, lua_gettop(L), 1, "error value", c->out,
                        NULL) != 0)
        return luaL_error(L, "not enough memory");
    }
  }
  return 0;
}

/* Runs protected. Leaves the RESULT body in c->out; pushes true if it is an
 * error. */
static int run(lua_State *L) {
  call *c = lua_touserdata(L, 1);
  pp_runner *r = c->r;
  pp_memory *memory = pp_state_memory(L);
  int env, handler, n, status;

  lua_settop(L, 0);
  luaL_checkstack(L, 20, "job");
  lua_rawgeti(L, LUA_REGISTRYINDEX, r->handler);
  handler = 1;
  lua_createtable(L, 0, 2);
  lua_rawgeti(L, LUA_REGISTRYINDEX, r->env_meta);
  lua_setmetatable(L, -2);
  env = 2;
  push_function(L, c); /* 3 function, 4 bindings */
  if (pp_codec_bind(r->codec, L, env, lua_isnil(L, 4) ? 0 : 4) != 0)
    return lua_error(L);
  c->bound = true;
  lua_settop(L, 3);
  if (c->modules_len > 0)
    require_modules(L, c, env);
  if (gather(r, c->deps, c->ndeps) != 0)
    return luaL_error(L, "code of this job did not arrive");
  n = pp_codec_unpack(r->codec, L, c->args, c->args_len, r->codes, c->ndeps);
  if (n < 0)
    return lua_error(L);
  c->taken(c->ud);
  c->taken = NULL;
  c->started = pp_now_ns();
  memory->limit = c->memory;
  r->user = 1;
  if (r->stop == NULL) {
    status = lua_pcall(L, n, LUA_MULTRET, handler);
  } else {
    lua_pushstring(L, r->stop);
    status = LUA_ERRRUN;
  }
  r->user = 0;
  memory->limit = 0;
  c->run = pp_now_ns() - c->started;
  if (status != LUA_OK) {
    c->kind =
        status == LUA_ERRMEM && c->memory > 0 ? PP_KIND_MEMORY : PP_KIND_ERROR;
    return lua_error(L);
  }
  n = lua_gettop(L) - 2;
  if (pp_codec_pack(r->codec, L, 3, n, "result", c->out, NULL) != 0) {
    c->kind = PP_KIND_UNSENDABLE;
    return lua_error(L);
  }
  lua_pushboolean(L, 0);
  return 1;
}

static int report(lua_State *L) {
  call *c = lua_touserdata(L, 1);

  lua_remove(L, 1);
  return append_error(L, c, c->kind);
}

static int set_paths(lua_State *L) {
  const held *h = lua_touserdata(L, 1);
  const char *path = (const char *)h->bytes;
  size_t n = strlen(path);

  lua_getfield(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  lua_getfield(L, -1, "package");
  lua_pushlstring(L, path, n);
  lua_setfield(L, -2, "path");
  if (n < h->len) {
    lua_pushlstring(L, path + n + 1, h->len - n - 1);
    lua_setfield(L, -2, "cpath");
  }
  return 0;
}

int pp_runner_job(pp_runner *r, const unsigned char *p, size_t len, pp_buf *out,
                  void (*taken)(void *ud), void *ud) {
  lua_State *L = r->L;
  uint32_t deps[64], *big = NULL, setting;
  call c = {.r = r, .p = p, .out = out, .taken = taken, .ud = ud};
  size_t head = out->len, body, extra;
  bool failed;

  if (len < PP_JOB_HEAD)
    return PP_EBAD;
  c.fn = pp_get32(p + PP_JOB_FN);
  c.flags = pp_get32(p + PP_JOB_FLAGS);
  c.ndeps = pp_get32(p + PP_JOB_NDEPS);
  extra = pp_get32(p + PP_JOB_EXTRA);
  setting = pp_get32(p + PP_JOB_SETTING);
  c.memory = (size_t)pp_get64(p + PP_JOB_MEMORY);
  if (c.ndeps > (len - PP_JOB_HEAD) / 4 ||
      extra > len - PP_JOB_HEAD - 4 * (size_t)c.ndeps)
    return PP_EBAD;
  if (c.ndeps > 64 && (big = malloc(4 * (size_t)c.ndeps)) == NULL)
    return PP_ENOMEM;
  for (uint32_t i = 0; i < c.ndeps; i++)
    (big ? big : deps)[i] = pp_get32(p + PP_JOB_HEAD + 4 * (size_t)i);
  c.deps = big ? big : deps;
  c.modules = p + PP_JOB_HEAD + 4 * (size_t)c.ndeps;
  c.modules_len = extra;
  c.args = c.modules + extra;
  c.args_len = len - (size_t)(c.args - p);
  if (pp_buf_reserve(out, PP_RES_HEAD) != 0) {
    free(big);
    return PP_ENOMEM;
  }
  memset(out->data + head, 0, PP_RES_HEAD);
  pp_put32(out->data + head + PP_RES_SEQ, pp_get32(p + PP_JOB_SEQ));
  out->len += PP_RES_HEAD;
  body = out->len;
  r->now.id = pp_get64(p + PP_JOB_ID);
  r->now.attempt = pp_get32(p + PP_JOB_ATTEMPT);
  r->now.active = true;
  if (setting != r->setting && setting != 0 &&
      blob_at(r, setting - 1) != NULL) {
    lua_pushcfunction(L, set_paths);
    lua_pushlightuserdata(L, blob_at(r, setting - 1));
    if (lua_pcall(L, 1, 0, 0) == LUA_OK)
      r->setting = setting;
    else
      lua_pop(L, 1);
  }
  c.kind = PP_KIND_ERROR;
  c.started = pp_now_ns();
  c.run = 0;
  lua_settop(L, 0);
  lua_pushcfunction(L, run);
  lua_pushlightuserdata(L, &c);
  failed = lua_pcall(L, 1, 1, 0) != LUA_OK;
  if (failed) {
    out->len = body;
    lua_pushcfunction(L, report);
    lua_pushlightuserdata(L, &c);
    lua_pushvalue(L, 1);
    if (lua_pcall(L, 2, 0, 0) != LUA_OK) {
      /* Its __tostring fails, or there is no memory: say that instead. */
      const char *m = lua_tostring(L, -1);

      out->len = body;
      if (m == NULL)
        m = "(error object whose __tostring fails)";
      if (pp_error_body(out, c.kind, m, strlen(m), "", 0) != 0)
        c.kind = -1;
    }
  }
  lua_settop(L, 0);
  if (c.bound)
    pp_codec_unbind(r->codec, L);
  if (failed) {
    lua_pushboolean(L, 0);
    lua_rawseti(L, LUA_REGISTRYINDEX, r->traceback);
  }
  if (r->reseed)
    pp_runner_reseed(r);
  r->now.active = false;
  free(big);
  if (c.taken != NULL)
    c.taken(c.ud);
  if (c.kind < 0)
    return PP_ENOMEM;
  p = out->data + head;
  pp_put32(out->data + head + PP_RES_STATUS, failed);
  pp_put64(out->data + head + PP_RES_START, (uint64_t)c.started);
  pp_put64(out->data + head + PP_RES_RUN, (uint64_t)c.run);
  return 0;
}
