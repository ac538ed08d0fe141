/* SPDX-License-Identifier: MIT */
/*
 * What a job is given by reference: values that were put, opened once and
 * shared by the jobs of this worker; results of other jobs, opened for each
 * execution.
 */
#include <lauxlib.h>
#include <stdlib.h>

#include "runner_impl.h"

/* In the table of what the execution has been given: by number * 2 a result's
 * value, or true for a shared value whose bindings are in force; by number * 2
 * + 1 the tables by id of what a result came from. */
static void push_given(pp_runner *r, lua_State *L) {
  if (!r->with.has_given) {
    lua_newtable(L);
    lua_rawseti(L, LUA_REGISTRYINDEX, r->given);
    r->with.has_given = true;
  }
  lua_rawgeti(L, LUA_REGISTRYINDEX, r->given);
}

int pp_runner_codes(pp_runner *r, const uint32_t *ids, uint32_t n,
                    pp_code *codes) {
  for (uint32_t i = 0; i < n; i++) {
    const pp_held *h = pp_held_at(r, ids[i]);

    memset(&codes[i], 0, sizeof codes[i]);
    if (h == NULL && ids[i] != PP_BLOB_NONE)
      return PP_EBAD;
    if (h != NULL && h->kind == PP_BLOB_CODE)
      codes[i] = (pp_code){h->hash, h->bytes, h->len};
  }
  return 0;
}

pp_list pp_runner_list(pp_runner *r, const uint32_t *ids, uint32_t n) {
  pp_list was = r->with.list;

  r->with.list = (pp_list){ids, n};
  return was;
}

/* The codes of a blob in a userdata that is pushed. */
static pp_code *push_codes(lua_State *L, pp_runner *r, const pp_held *h) {
  pp_code *codes = lua_newuserdatauv(L, (h->ndeps + 1u) * sizeof *codes, 0);

  if (pp_runner_codes(r, h->deps, h->ndeps, codes) != 0)
    luaL_error(L, "code of this job did not arrive");
  return codes;
}

static int failed(lua_State *L, pp_runner *r, int rc) {
  if (rc == PP_ENOMEM)
    r->with.no_memory = true;
  return lua_error(L);
}

/* --- shared values -------------------------------------------------------- */

/* Open one whose own shared values have been opened. */
static void open_shared(lua_State *L, pp_runner *r, uint32_t id) {
  pp_held *h = pp_held_at(r, id);
  pp_code *codes = push_codes(L, r, h);
  pp_list was = pp_runner_list(r, h->deps, h->ndeps);
  bool shares = r->with.shares;
  int rc, top = lua_gettop(L);

  r->with.shares = true;
  rc = pp_codec_open_value(r->codec, L, h->bytes, h->len, codes, h->ndeps);
  r->with.shares = shares;
  r->with.list = was;
  if (rc < 0)
    failed(L, r, rc);
  h = pp_held_at(r, id); /* a module it loaded may have waited for blobs */
  h->binds = !lua_isnil(L, -1);
  for (uint32_t i = 0; i < h->ndeps; i++) {
    const pp_held *d = pp_held_at(r, h->deps[i]);

    h->binds |= d != NULL && d->binds;
  }
  lua_rawgeti(L, LUA_REGISTRYINDEX, r->cache);
  lua_insert(L, top + 1);
  lua_rawseti(L, top + 1, (lua_Integer)id * 2 + 1);
  lua_rawseti(L, top + 1, (lua_Integer)id * 2);
  h->opened = true;
  pp_held_shrink(r, h); /* one copy of it will do */
  lua_settop(L, top - 1);
}

/* Open one and all those in it: they may nest deeply. */
static void open_all_shared(lua_State *L, pp_runner *r, uint32_t id) {
  size_t base = r->with.todo.len;

  if (pp_buf_put(&r->with.todo, &id, sizeof id) != 0)
    luaL_error(L, "not enough memory");
  while (r->with.todo.len > base) {
    size_t top = r->with.todo.len;
    pp_held *h;

    memcpy(&id, r->with.todo.data + top - sizeof id, sizeof id);
    h = pp_held_at(r, id);
    for (uint32_t i = 0; i < h->ndeps && !h->opened && !h->looked; i++) {
      const pp_held *d = pp_held_at(r, h->deps[i]);

      if (d != NULL && d->kind == PP_BLOB_VALUE && !d->opened &&
          pp_buf_put(&r->with.todo, &h->deps[i], sizeof id) != 0) {
        r->with.todo.len = base;
        luaL_error(L, "not enough memory");
      }
    }
    h->looked = true;
    if (r->with.todo.len > top)
      continue;
    r->with.todo.len -= sizeof id;
    if (!h->opened)
      open_shared(L, r, id);
  }
}

/* The globals that came with a shared value, and with those in it. */
static void bind_shared(lua_State *L, pp_runner *r, uint32_t id) {
  size_t base = r->with.todo.len;

  if (pp_buf_put(&r->with.todo, &id, sizeof id) != 0)
    luaL_error(L, "not enough memory");
  push_given(r, L);
  while (r->with.todo.len > base) {
    const pp_held *h;
    int rc;

    r->with.todo.len -= sizeof id;
    memcpy(&id, r->with.todo.data + r->with.todo.len, sizeof id);
    h = pp_held_at(r, id);
    if (h == NULL || h->kind != PP_BLOB_VALUE || !h->opened || !h->binds)
      continue;
    if (lua_rawgeti(L, -1, (lua_Integer)id * 2) != LUA_TNIL) {
      lua_pop(L, 1);
      continue;
    }
    lua_pushboolean(L, 1);
    lua_rawseti(L, -3, (lua_Integer)id * 2);
    lua_pop(L, 1);
    lua_rawgeti(L, LUA_REGISTRYINDEX, r->cache);
    lua_rawgeti(L, -1, (lua_Integer)id * 2 + 1);
    rc = pp_codec_install(r->codec, L, -1, false);
    lua_pop(L, 2);
    if (rc != 0 ||
        pp_buf_put(&r->with.todo, h->deps, h->ndeps * sizeof *h->deps) != 0) {
      r->with.todo.len = base;
      luaL_error(L, "not enough memory");
    }
  }
  lua_pop(L, 1);
}

void pp_given_bind(lua_State *L, pp_runner *r, uint32_t parcel) {
  const pp_held *h = pp_held_at(r, parcel);

  for (uint32_t i = 0; i < h->ndeps; i++) {
    const pp_held *d = pp_held_at(r, h->deps[i]);

    if (d != NULL && d->kind == PP_BLOB_VALUE && d->binds)
      bind_shared(L, r, h->deps[i]);
  }
}

static void push_shared(lua_State *L, pp_runner *r, uint32_t id) {
  pp_held *h = pp_held_at(r, id);

  if (!h->opened)
    open_all_shared(L, r, id);
  if (h->binds && !r->with.shares)
    bind_shared(L, r, id);
  lua_rawgeti(L, LUA_REGISTRYINDEX, r->cache);
  lua_rawgeti(L, -1, (lua_Integer)id * 2);
  lua_remove(L, -2);
}

/* --- results -------------------------------------------------------------- */

static void push_result(lua_State *L, pp_runner *r, uint32_t id) {
  const pp_held *h = pp_held_at(r, id);
  int top = lua_gettop(L), n;
  bool own = !r->with.shares; /* inside a shared value it is that value's */
  pp_code *codes;
  pp_list was;

  if (own) {
    push_given(r, L);
    if (lua_rawgeti(L, -1, (lua_Integer)id * 2) != LUA_TNIL) {
      if (lua_touserdata(L, -1) == r && lua_islightuserdata(L, -1)) {
        lua_pop(L, 1); /* stands for nil */
        lua_pushnil(L);
      }
      lua_replace(L, top + 1);
      lua_settop(L, top + 1);
      return;
    }
    lua_settop(L, top);
  }
  codes = push_codes(L, r, h);
  was = pp_runner_list(r, h->deps, h->ndeps);
  n = pp_codec_unpack(r->codec, L, h->bytes, h->len, codes, h->ndeps);
  r->with.list = was;
  if (n < 0)
    failed(L, r, n);
  h = pp_held_at(r, id);
  lua_settop(L, top + 2); /* the first, or nil */
  lua_remove(L, top + 1);
  for (uint32_t i = 0; i < h->ndeps; i++) {
    const pp_held *d = pp_held_at(r, h->deps[i]);

    if (d != NULL && d->kind != PP_BLOB_CODE && d->kind != PP_BLOB_RESULT &&
        pp_buf_put(&r->with.sources, &h->deps[i], sizeof *h->deps) != 0)
      luaL_error(L, "not enough memory");
  }
  if (!own)
    return;
  push_given(r, L);
  if (lua_isnil(L, top + 1))
    lua_pushlightuserdata(L, r);
  else
    lua_pushvalue(L, top + 1);
  lua_rawseti(L, -2, (lua_Integer)id * 2);
  lua_pop(L, 1);
}

/* Push what the blob, which results came from, has by id: a table or nil. */
static void push_kept(lua_State *L, pp_runner *r, uint32_t id) {
  const pp_held *h = pp_held_at(r, id);
  int top = lua_gettop(L), rc;
  pp_code *codes;
  pp_list was;
  bool shares = r->with.shares;

  if (h->kind == PP_BLOB_VALUE) {
    push_shared(L, r, id);
    lua_rawgeti(L, LUA_REGISTRYINDEX, r->cache);
    lua_rawgeti(L, -1, (lua_Integer)id * 2 + 1);
  } else {
    codes = push_codes(L, r, h);
    was = pp_runner_list(r, NULL, 0);
    r->with.shares = true;
    rc = pp_codec_open_value(r->codec, L, h->bytes, h->len, codes, h->ndeps);
    r->with.shares = shares;
    r->with.list = was;
    if (rc < 0)
      failed(L, r, rc);
    if (pp_codec_install(r->codec, L, -1, false) != 0)
      luaL_error(L, "not enough memory");
  }
  pp_codec_kept(L, -1);
  lua_replace(L, top + 1);
  lua_settop(L, top + 1);
}

static bool kept(void *ud, lua_State *L, lua_Integer id) {
  pp_runner *r = ud;
  int top = lua_gettop(L);

  luaL_checkstack(L, 20, NULL);
  push_given(r, L);
  for (size_t at = 0; at < r->with.sources.len; at += sizeof(uint32_t)) {
    uint32_t n;

    memcpy(&n, r->with.sources.data + at, sizeof n);
    if (lua_rawgeti(L, top + 1, (lua_Integer)n * 2 + 1) == LUA_TNIL) {
      lua_pop(L, 1);
      push_kept(L, r, n);
      if (lua_isnil(L, -1)) {
        lua_pop(L, 1);
        lua_pushboolean(L, 0);
      }
      lua_pushvalue(L, -1);
      lua_rawseti(L, top + 1, (lua_Integer)n * 2 + 1);
    }
    if (lua_istable(L, -1) && lua_rawgeti(L, -1, id) == LUA_TTABLE) {
      lua_replace(L, top + 1);
      lua_settop(L, top + 1);
      return true;
    }
    lua_settop(L, top + 1);
  }
  lua_settop(L, top);
  return false;
}

/* --- the codec's hooks ---------------------------------------------------- */

static int opened(void *ud, lua_State *L, const unsigned char *p, size_t n) {
  pp_runner *r = ud;
  pp_rd rd = pp_rd_of(p, n);
  unsigned char tag;
  const pp_held *h;
  uint64_t at;

  if (n == 1 && p[0] == PP_CUSTOM_SERVER) {
    lua_getfield(L, LUA_REGISTRYINDEX, "pp.running");
    return lua_isuserdata(L, -1) ? 0 : PP_EBAD;
  }
  if (pp_rd_byte(&rd, &tag) != 0 ||
      (tag != PP_CUSTOM_JOB && tag != PP_CUSTOM_PUT) ||
      pp_rd_varint(&rd, &at) != 0)
    return PP_EBAD;
  if (r->with.list.ids == NULL) { /* only what it names is of interest */
    lua_newtable(L);
    return 0;
  }
  if (at >= r->with.list.n)
    return PP_EBAD;
  h = pp_held_at(r, r->with.list.ids[at]);
  if (h == NULL)
    return luaL_error(L, "a value of this job did not arrive");
  luaL_checkstack(L, 20, NULL);
  if (h->kind == PP_BLOB_VALUE && tag == PP_CUSTOM_PUT)
    push_shared(L, r, r->with.list.ids[at]);
  else if (h->kind == PP_BLOB_RESULT && tag == PP_CUSTOM_JOB)
    push_result(L, r, r->with.list.ids[at]);
  else
    return PP_EBAD;
  return 0;
}

static const unsigned char *code(void *ud, pp_hash hash, size_t *len) {
  pp_runner *r = ud;

  for (uint32_t i = 0; i < r->with.list.n; i++) {
    const pp_held *h = pp_held_at(r, r->with.list.ids[i]);

    if (h != NULL && h->kind == PP_BLOB_CODE && pp_hash_eq(h->hash, hash)) {
      *len = h->len;
      return h->bytes;
    }
  }
  return NULL;
}

/* Of a blob's code, and that of a value among what it refers to. */
static int each_of(const pp_runner *r, const uint32_t *ids, uint32_t n,
                   int depth, int (*f)(void *p, const pp_code *code), void *p) {
  int rc = 0;

  for (uint32_t i = 0; i < n && rc == 0; i++) {
    const pp_held *h = pp_held_at((pp_runner *)(uintptr_t)r, ids[i]);

    if (h == NULL)
      continue;
    if (h->kind == PP_BLOB_CODE) {
      const pp_code k = {h->hash, h->bytes, h->len};

      rc = f(p, &k);
    } else if (depth > 0) {
      rc = each_of(r, h->deps, h->ndeps, depth - 1, f, p);
    }
  }
  return rc;
}

static int each_code(void *ud, int (*f)(void *p, const pp_code *code),
                     void *p) {
  const pp_runner *r = ud;
  int rc;

  if (r->with.job.ids == NULL)
    return 0;
  rc = each_of(r, &r->with.fn, 1, 2, f, p);
  return rc != 0 ? rc : each_of(r, r->with.job.ids, r->with.job.n, 1, f, p);
}

pp_codec_hooks pp_given_hooks(pp_runner *r) {
  return (pp_codec_hooks){.opened = opened,
                          .code = code,
                          .kept = kept,
                          .each_code = each_code,
                          .ud = r};
}

void pp_given_end(lua_State *L, pp_runner *r) {
  if (r->with.has_given) {
    lua_pushboolean(L, 0);
    lua_rawseti(L, LUA_REGISTRYINDEX, r->given);
  }
  r->with.has_given = r->with.shares = false;
  r->with.list = (pp_list){NULL, 0};
  r->with.sources.len = r->with.todo.len = 0;
}

/* Of a value that was dropped: large ones do not wait until other garbage has
 * gathered. */
void pp_given_dropped(lua_State *L, pp_runner *r, size_t len) {
  size_t heap = (size_t)lua_gc(L, LUA_GCCOUNT) * 1024;

  r->dropped += len;
  if (r->dropped < 65536 || r->dropped < heap / 16)
    return;
  r->dropped = 0;
  lua_gc(L, LUA_GCCOLLECT);
}
