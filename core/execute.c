/* SPDX-License-Identifier: MIT */
/* Running a job: its globals, its function, its arguments; its results or its
 * error as bytes. */
#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>

#include "blocks.h"
#include "execute_impl.h"
#include "message.h"
#include "plain.h"
#include "pure.h"
#include "state.h"

/* The code blobs of these numbers in r->codes; PP_EBAD if one is missing. */
static int gather(pp_runner *r, const uint32_t *ids, uint32_t n) {
  if (n > r->cap_codes) {
    pp_code *v = realloc(r->codes, n * sizeof *v);

    if (v == NULL)
      return PP_ENOMEM;
    r->codes = v;
    r->cap_codes = n;
  }
  return pp_runner_codes(r, ids, n, r->codes);
}

/* Leave the function and its bindings (or nil) on the stack. */
static void push_function(lua_State *L, pp_call *c) {
  pp_runner *r = c->r;
  pp_held *h = pp_held_at(r, c->fn);

  if (h == NULL || gather(r, h->deps, h->ndeps) != 0)
    luaL_error(L, "the function of this job did not arrive");
  lua_rawgeti(L, LUA_REGISTRYINDEX, r->cache);
  if (h->opened && !(c->flags & (PP_JOBF_AFRESH | PP_JOBF_BASE))) {
    lua_rawgeti(L, -1, (lua_Integer)c->fn * 2);
    lua_rawgeti(L, -2, (lua_Integer)c->fn * 2 + 1);
    lua_remove(L, -3);
    return;
  }
  pp_runner_list(r, h->deps, h->ndeps);
  if (pp_codec_open(r->codec, L, h->bytes, h->len, r->codes, h->ndeps) < 0)
    lua_error(L);
  if (!(c->flags & (PP_JOBF_AFRESH | PP_JOBF_BASE))) {
    lua_pushvalue(L, -2);
    lua_rawseti(L, -4, (lua_Integer)c->fn * 2);
    lua_pushvalue(L, -1);
    lua_rawseti(L, -4, (lua_Integer)c->fn * 2 + 1);
    h->opened = true;
  }
  lua_remove(L, -3);
}

static int text_of(lua_State *L) {
  luaL_tolstring(L, 1, NULL);
  return 1;
}

void pp_execute_message(lua_State *L, int err) {
  if (lua_type(L, err) == LUA_TSTRING) {
    lua_pushvalue(L, err);
    return;
  }
  if (lua_istable(L, err) && lua_getmetatable(L, err)) { /* a job's error? */
    luaL_getmetatable(L, "pp.error");
    lua_pushliteral(L, "message");
    lua_rawget(L, err); /* where it happened is in the value */
    if (lua_rawequal(L, -2, -3) && lua_type(L, -1) == LUA_TSTRING) {
      lua_replace(L, -3);
      lua_pop(L, 1);
      return;
    }
    lua_pop(L, 3);
  }
  if (lua_type(L, err) == LUA_TNUMBER ||
      luaL_getmetafield(L, err, "__tostring") != LUA_TNIL) {
    lua_pushcfunction(L, text_of);
    lua_pushvalue(L, err);
    if (lua_pcall(L, 1, 1, 0) == LUA_OK && lua_type(L, -1) == LUA_TSTRING)
      return;
  }
  lua_pushfstring(L, "(error object is a %s value)", luaL_typename(L, err));
}

/* Replace the error value at the top by what the submitter gets to know of
 * it, and append that: message, traceback, value. */
static int append_error(lua_State *L, pp_call *c, int kind) {
  pp_runner *r = c->r;
  int err = lua_gettop(L), status;
  const char *msg, *tb;
  size_t msg_len, tb_len;

  luaL_checkstack(L, 10, NULL);
  pp_execute_message(L, err);
  msg = lua_tolstring(L, -1, &msg_len);
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
      lua_pushcfunction(L, text_of);
      lua_pushvalue(L, err);
      if (lua_pcall(L, 1, 1, 0) != LUA_OK)
        lua_pushlstring(L, msg, msg_len);
      if (pp_codec_pack(r->codec, L, lua_gettop(L), 1, "error value", c->out,
                        NULL) != 0)
        return luaL_error(L, "not enough memory");
    }
  }
  return 0;
}

/* Of a function that captures what others put or gave: opening that needs the
 * globals in force. */
static void begin_given(lua_State *L, pp_call *c, int env) {
  pp_runner *r = c->r;

  if (pp_codec_bind(r->codec, L, env, 0) != 0)
    luaL_error(L, "not enough memory");
  c->bound = true;
  pp_state_memory(L)->limit = c->memory;
  push_function(L, c);
  pp_state_memory(L)->limit = 0;
  if (pp_codec_install(r->codec, L, env + 2, true) != 0)
    luaL_error(L, "not enough memory");
  lua_settop(L, env + 1);
  pp_given_bind(L, r, c->fn);
  if (c->modules_len > 0)
    pp_execute_require(L, c, env);
  lua_remove(L, env);
}

int pp_execute_args(lua_State *L, pp_call *c, const void *p, size_t len) {
  pp_runner *r = c->r;
  int n;

  if (gather(r, c->deps, c->ndeps) != 0)
    return luaL_error(L, "what this job needs did not arrive");
  pp_runner_list(r, c->deps, c->ndeps);
  n = pp_codec_unpack(r->codec, L, p, len, r->codes, c->ndeps);
  if (n >= 0 && pp_codec_settle(r->codec, L) != 0)
    return PP_EBAD;
  return n;
}

void pp_execute_begin(lua_State *L, pp_call *c) {
  pp_runner *r = c->r;
  const pp_held *h = pp_held_at(r, c->fn);
  int env = lua_gettop(L) + 1;

  if (PP_UNLIKELY(c->flags & PP_JOBF_BASE)) {
    lua_rawgeti(L, LUA_REGISTRYINDEX, r->base);
  } else {
    lua_createtable(L, 0, 2);
    lua_rawgeti(L, LUA_REGISTRYINDEX, r->env_meta);
    lua_setmetatable(L, -2);
  }
  if (c->flags & PP_JOBF_INLINE) { /* the function comes with the arguments */
    if (pp_codec_bind(r->codec, L, env, 0) != 0)
      luaL_error(L, "not enough memory");
    c->bound = true;
    if (c->modules_len > 0)
      pp_execute_require(L, c, env);
    lua_settop(L, env - 1);
    return;
  }
  if (h != NULL && h->values) {
    begin_given(L, c, env);
    return;
  }
  push_function(L, c); /* function, bindings */
  if (pp_codec_bind(r->codec, L, env, lua_isnil(L, env + 2) ? 0 : env + 2) != 0)
    luaL_error(L, "not enough memory");
  c->bound = true;
  lua_settop(L, env + 1);
  if (c->modules_len > 0)
    pp_execute_require(L, c, env);
  lua_remove(L, env); /* the registry holds it */
}

/* Look at the function, if need be, and push the cache table and what must
 * hold (or nil). */
static int look(lua_State *L, pp_call *c) {
  pp_runner *r = c->r;
  pp_held *h = pp_held_at(r, c->fn);
  int top = lua_gettop(L), pure;

  lua_rawgeti(L, LUA_REGISTRYINDEX, r->cache);
  if (h->pure == PP_PURE_UNKNOWN) {
    push_function(L, c);
    pure = pp_pure_look(L, r, top + 2, top + 3);
    h = pp_held_at(r, c->fn); /* a module it loaded may have waited for blobs */
    h->pure = (uint8_t)pure;
    h->era = r->era;
    if (pure >= PP_PURE)
      lua_rawseti(L, top + 1, -1 - (lua_Integer)c->fn);
    lua_settop(L, top + 1);
  }
  lua_rawgeti(L, top + 1, -1 - (lua_Integer)c->fn);
  return h->pure;
}

/* Can the function be pure? */
static bool may_be_pure(const pp_call *c, const pp_held *h) {
  return h != NULL && !h->values && h->pure != PP_PURE_NOT &&
         c->modules_len == 0 &&
         !(c->flags & (PP_JOBF_AFRESH | PP_JOBF_BASE | PP_JOBF_INLINE));
}

int pp_execute_pure(lua_State *L, pp_call *c) {
  pp_runner *r = c->r;
  int top = lua_gettop(L), pure;

  if (!may_be_pure(c, pp_held_at(r, c->fn)))
    return PP_PURE_NOT;
  pure = look(L, c);
  if (pure >= PP_PURE && pp_pure_holds(L, r, -1)) {
    lua_replace(L, top + 1);
    lua_settop(L, top + 1);
    return pure;
  }
  lua_settop(L, top);
  return PP_PURE_NOT;
}

/* Looking takes time, looking again as much as many a job: not at functions
 * that run but once, nor where others run in between. */
#define LOOKS_MAX 8
#define ROW_MIN 4
/* In what must hold: the globals a tame function has. */
#define AT_GLOBALS 0

/* The globals for a tame function with these needs, in force; pushes it. */
static void bind_tame(lua_State *L, pp_call *c, int needs) {
  pp_runner *r = c->r;
  int env = lua_gettop(L) + 1;
  bool fresh = lua_rawgeti(L, needs, AT_GLOBALS) != LUA_TTABLE;

  if (PP_UNLIKELY(fresh)) {
    lua_pop(L, 1);
    lua_newtable(L);
    pp_pure_warm(L, r, needs, env);
    lua_rawgeti(L, LUA_REGISTRYINDEX, r->env_meta);
    lua_setmetatable(L, env);
  }
  push_function(L, c);
  if (PP_UNLIKELY(fresh)) {
    if (pp_codec_bind(r->codec, L, env, env + 2) != 0)
      luaL_error(L, "not enough memory");
    c->bound = true;
    lua_pushvalue(L, env);
    lua_rawseti(L, needs, AT_GLOBALS);
  } else {
    pp_codec_rebind(r->codec, L, env);
    c->bound = true;
  }
  lua_settop(L, env + 1);
}

bool pp_execute_tame(lua_State *L, pp_call *c) {
  pp_runner *r = c->r;
  pp_held *h = pp_held_at(r, c->fn);
  int top = lua_gettop(L), pure;

  r->row = r->last == c->fn + 1 ? r->row + 1 : 0;
  r->last = c->fn + 1;
  if (!may_be_pure(c, h) || !pp_plain_is(c->args, c->args_len))
    return false;
  if (r->row > 0)
    r->looks = 0;
  else if (h->pure == PP_PURE_UNKNOWN &&
           (r->checked != r->era || ++r->looks > LOOKS_MAX))
    return false;
  pure = look(L, c);
  h = pp_held_at(r, c->fn);
  if ((pure & (PP_PURE | PP_PURE_STORES | PP_PURE_LOOSE)) != PP_PURE)
    goto no;
  if (PP_UNLIKELY(h->era != r->era || r->checked != r->era)) {
    if (r->row < ROW_MIN)
      goto no;
    if (!pp_pure_holds(L, r, -1)) {
      h->pure |= PP_PURE_LOOSE; /* not to be asked again */
      goto no;
    }
    h->era = r->checked = r->era;
  }
  bind_tame(L, c, top + 2);
  lua_replace(L, top + 1);
  lua_settop(L, top + 1);
  c->tame = true;
  return true;
no:
  lua_settop(L, top);
  return false;
}

/* What a job has set that is not a global: default files, a hook, and that
 * nothing is collected. */
static void reset(lua_State *L, pp_runner *r) {
  if (PP_UNLIKELY(!lua_gc(L, LUA_GCISRUNNING)))
    lua_gc(L, LUA_GCRESTART);
  if (lua_gethook(L) != NULL)
    lua_sethook(L, NULL, 0, 0);
  for (int i = 0; i < 2; i++) {
    lua_rawgeti(L, LUA_REGISTRYINDEX, r->files[i]);
    lua_rawgeti(L, LUA_REGISTRYINDEX, r->file_keys[i]);
    lua_rawget(L, LUA_REGISTRYINDEX);
    if (PP_UNLIKELY(!lua_rawequal(L, -1, -2))) {
      lua_rawgeti(L, LUA_REGISTRYINDEX, r->file_keys[i]);
      lua_pushvalue(L, -3);
      lua_rawset(L, LUA_REGISTRYINDEX);
    }
    lua_pop(L, 2);
  }
}

void pp_execute_renew(lua_State *L, pp_call *c) {
  pp_runner *r = c->r;
  const pp_held *h = pp_held_at(r, c->fn);
  int top = lua_gettop(L);

  if (c->bound && h != NULL && h->opened && !h->values && !r->with.has_given &&
      c->modules_len == 0 &&
      !(c->flags & (PP_JOBF_AFRESH | PP_JOBF_BASE | PP_JOBF_INLINE))) {
    lua_rawgeti(L, LUA_REGISTRYINDEX, r->cache);
    lua_rawgeti(L, top + 1, (lua_Integer)c->fn * 2);
    lua_rawgeti(L, top + 1, (lua_Integer)c->fn * 2 + 1);
    lua_createtable(L, 0, 2);
    lua_rawgeti(L, LUA_REGISTRYINDEX, r->env_meta);
    lua_setmetatable(L, -2);
    if (pp_codec_renew(r->codec, L, top + 4, top + 3)) {
      reset(L, r);
      lua_settop(L, top + 2);
      lua_remove(L, top + 1);
      return;
    }
    lua_settop(L, top);
  }
  pp_execute_end(L, c);
  pp_execute_begin(L, c);
}

void pp_execute_end(lua_State *L, pp_call *c) {
  if (c->bound) {
    pp_codec_unbind(c->r->codec, L);
    if (!c->tame) {
      pp_given_end(L, c->r);
      reset(L, c->r);
    }
  }
  c->bound = false;
}

/* One step of splitmix64 (Steele, Lea, Flood: "Fast splittable pseudorandom
 * number generators", 2014): neighbours in, nothing alike out. */
static uint64_t mix(uint64_t x) {
  x += UINT64_C(0x9e3779b97f4a7c15);
  x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
  x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
  return x ^ x >> 31;
}

void pp_execute_seed(lua_State *L, pp_call *c, uint64_t k, bool item) {
  pp_runner *r = c->r;
  uint64_t kind = item                      ? UINT64_C(0x6d6170)
                  : c->flags & PP_JOBF_BASE ? UINT64_C(0x657679)
                                            : 0;

  r->now.seed = mix(mix(c->seed ^ kind) ^ k);
  r->now.seeded = true;
  r->reseed = true; /* the next is not to go on from here */
  lua_rawgeti(L, LUA_REGISTRYINDEX, r->randomseed);
  lua_pushinteger(L, (lua_Integer)r->now.seed);
  lua_pushinteger(L, (lua_Integer)mix(r->now.seed));
  lua_call(L, 2, 0);
}

int pp_execute_user(lua_State *L, pp_call *c, int n, int results, int handler) {
  pp_runner *r = c->r;
  pp_memory *memory = pp_state_memory(L);
  int status;

  memory->limit = c->memory;
  r->user = 1;
  if (r->stop == NULL) {
    status = lua_pcall(L, n, results, handler);
  } else {
    lua_pushstring(L, r->stop);
    status = LUA_ERRRUN;
  }
  r->user = 0;
  memory->limit = 0;
  if (status != LUA_OK)
    c->kind =
        status == LUA_ERRMEM && c->memory > 0 ? PP_KIND_MEMORY : PP_KIND_ERROR;
  return status;
}

void pp_execute_untraced(lua_State *L, pp_call *c) {
  lua_pushboolean(L, 0);
  lua_rawseti(L, LUA_REGISTRYINDEX, c->r->traceback);
}

/* A large string by itself: its bytes are a tail. False: it is something else,
 * or there is no memory for its head. */
static bool leave_tail(lua_State *L, pp_call *c, int at) {
  pp_runner *r = c->r;
  const char *s;
  size_t len;

  if (lua_type(L, at) != LUA_TSTRING)
    return false;
  s = lua_tolstring(L, at, &len);
  if (!pp_block_large(len) || pp_buf_reserve(c->out, 3 + PP_VARINT_MAX) != 0)
    return false;
  lua_pushvalue(L, at);
  lua_rawseti(L, LUA_REGISTRYINDEX, r->tail_slot);
  pp_buf_byte(c->out, MSG_FORMAT); /* room was reserved */
  pp_buf_varint(c->out, 1);
  pp_buf_byte(c->out, LEAD_LONGSTR);
  pp_buf_varint(c->out, len);
  r->tail = s;
  r->tail_len = len;
  return true;
}

/* Runs protected. Leaves the RESULT body in c->out. */
static int run(lua_State *L) {
  pp_call *c = lua_touserdata(L, 1);
  pp_runner *r = c->r;
  int n, status, first = 2;

  lua_settop(L, 0);
  luaL_checkstack(L, 20, "job");
  if (PP_UNLIKELY(c->flags & PP_JOBF_BASE)) {
    pp_runner_copy_base(r, L);
    first = 3;
  }
  lua_rawgeti(L, LUA_REGISTRYINDEX, r->handler);
  if (c->flags & PP_JOBF_SEEDED)
    pp_execute_seed(L, c, r->now.id, false);
  if (!pp_execute_tame(L, c)) {
    r->era++;
    pp_execute_begin(L, c);
  }
  pp_state_memory(L)->limit = c->memory;
  n = pp_execute_args(L, c, c->args, c->args_len);
  if (n < 0) {
    if (n == PP_ENOMEM && c->memory > 0)
      c->kind = PP_KIND_MEMORY;
    return lua_error(L);
  }
  if (c->flags & PP_JOBF_INLINE && (n < 1 || !lua_isfunction(L, first)))
    return luaL_error(L, "malformed job");
  c->taken(c->ud);
  c->taken = NULL;
  c->started = pp_now_ns();
  status = pp_execute_user(L, c, lua_gettop(L) - first, LUA_MULTRET, first - 1);
  c->run = pp_now_ns() - c->started;
  if (status != LUA_OK)
    return lua_error(L);
  if (PP_UNLIKELY(c->flags & PP_JOBF_BASE))
    pp_runner_settle_base(r, L, 1);
  n = c->flags & PP_JOBF_QUIET ? 0 : lua_gettop(L) - first + 1;
  if (r->tails && n == 1 && leave_tail(L, c, first))
    return 0;
  if (pp_codec_pack(r->codec, L, first, n, "result", c->out, NULL) != 0) {
    c->kind = PP_KIND_UNSENDABLE;
    pp_execute_untraced(L, c);
    return lua_error(L);
  }
  return 0;
}

static int report(lua_State *L) {
  pp_call *c = lua_touserdata(L, 1);

  lua_remove(L, 1);
  return append_error(L, c, c->kind);
}

void pp_runner_tails(pp_runner *r) { r->tails = true; }

size_t pp_runner_tail(const pp_runner *r, const unsigned char **p) {
  *p = (const unsigned char *)r->tail;
  return r->tail_len;
}

void pp_runner_untail(pp_runner *r) {
  lua_pushboolean(r->L, 0);
  lua_rawseti(r->L, LUA_REGISTRYINDEX, r->tail_slot);
  r->tail_len = 0;
}

int pp_runner_job(pp_runner *r, const unsigned char *p, size_t len,
                  const unsigned char *rest, size_t rest_len, pp_buf *out,
                  void (*taken)(void *ud), void *ud) {
  lua_State *L = r->L;
  uint32_t deps[64], *big = NULL, setting;
  pp_call c = {.r = r, .p = p, .out = out, .taken = taken, .ud = ud};
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
  c.seed = pp_get64(p + PP_JOB_SEED);
  c.index = pp_get64(p + PP_JOB_INDEX);
  if (c.ndeps > (len - PP_JOB_HEAD) / 4)
    return PP_EBAD;
  if (rest == NULL) {
    rest = p + PP_JOB_HEAD + 4 * (size_t)c.ndeps;
    rest_len = len - (size_t)(rest - p);
  }
  if (extra > rest_len)
    return PP_EBAD;
  if (c.ndeps > 64 && (big = malloc(4 * (size_t)c.ndeps)) == NULL)
    return PP_ENOMEM;
  for (uint32_t i = 0; i < c.ndeps; i++)
    (big ? big : deps)[i] = pp_get32(p + PP_JOB_HEAD + 4 * (size_t)i);
  c.deps = big ? big : deps;
  c.modules = rest;
  c.modules_len = extra;
  c.args = c.modules + extra;
  c.args_len = rest_len - extra;
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
  r->now.seeded = false;
  r->tail_len = 0;
  r->with.no_memory = false;
  r->with.fn = c.fn;
  r->with.job = (pp_list){c.deps, c.ndeps};
  pp_runner_set(r, setting);
  r->now.base = (c.flags & PP_JOBF_BASE) != 0;
  c.kind = PP_KIND_ERROR;
  c.started = pp_now_ns();
  c.run = 0;
  lua_settop(L, 0);
  if (c.flags & PP_JOBF_CHUNK) {
    failed = pp_chunk_run(L, &c) != LUA_OK;
  } else {
    lua_pushcfunction(L, run);
    lua_pushlightuserdata(L, &c);
    failed = lua_pcall(L, 1, 0, 0) != LUA_OK;
  }
  pp_state_memory(L)->limit = 0;
  if (failed && r->with.no_memory && c.memory > 0)
    c.kind = PP_KIND_MEMORY; /* what it was given takes too much */
  if (failed) {
    if (c.run == 0) /* it did not come to its end */
      c.run = pp_now_ns() - c.started;
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
  pp_execute_end(L, &c);
  if (!c.tame)
    r->era++; /* also when it has gone on since others were checked */
  if (failed) {
    lua_pushboolean(L, 0);
    lua_rawseti(L, LUA_REGISTRYINDEX, r->traceback);
  }
  if (r->reseed)
    pp_runner_reseed(r);
  r->now.active = false;
  r->with.job.ids = NULL;
  free(big);
  if (c.taken != NULL)
    c.taken(c.ud);
  if (c.kind < 0)
    return PP_ENOMEM;
  p = out->data + head;
  pp_put32(out->data + head + PP_RES_STATUS,
           failed | c.failed_items << 1 | c.begun_items << 16);
  pp_put64(out->data + head + PP_RES_START, (uint64_t)c.started);
  pp_put64(out->data + head + PP_RES_RUN, (uint64_t)c.run);
  return 0;
}
