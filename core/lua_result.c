/* SPDX-License-Identifier: MIT */
/* What a job has brought, as Lua values. */
#include <stdlib.h>
#include <string.h>

#include "kin.h"
#include "link.h"
#include "lua_pp.h"
#include "marshal.h"
#include "message.h"
#include "state.h"

static void cache(lua_State *L, pp_engine *e, pp_job *j, int idx, int first,
                  int n, bool ok) {
  lua_createtable(L, n, 2);
  for (int i = 0; i < n; i++) {
    lua_pushvalue(L, first + i);
    lua_rawseti(L, -2, i + 1);
  }
  lua_pushinteger(L, n);
  lua_setfield(L, -2, "n");
  lua_pushboolean(L, ok);
  lua_rawseti(L, -2, 0);
  pp_job_hold(L, idx, PP_HOLD_RESULTS);
  if (pp_job_promise(j) ==
      NULL) { /* else others may still be given its bytes */
    lua_pushnil(L);
    pp_job_hold(L, idx, PP_HOLD_KEPT);
  }
  pp_engine_enter(e);
  if (ok) /* an error is what others may fail with */
    pp_job_clear_result(j);
  pp_job_done_with(j, &e->blobs);
  pp_engine_leave(e);
}

static int open_string(lua_State *L) {
  const pp_rd *r = lua_touserdata(L, 1);

  pp_state_push(L, r->p, pp_rd_left(r));
  return 1;
}

/* If there is one string in a message, and nothing else: push it. 1; 0: there
 * is something else; PP_ENOMEM with a message pushed. Each byte of its head is
 * looked at once. */
static int unpack_string(lua_State *L, const unsigned char *p, size_t len) {
  pp_rd r = pp_rd_of(p, len);
  const unsigned char *head;
  uint64_t n;

  if (pp_rd_bytes(&r, 3, &head) != 0 || head[0] != MSG_FORMAT || head[1] != 1 ||
      head[2] != LEAD_LONGSTR || pp_rd_varint(&r, &n) != 0 ||
      n != pp_rd_left(&r))
    return 0;
  lua_pushcfunction(L, open_string);
  lua_pushlightuserdata(L, &r);
  return lua_pcall(L, 1, 1, 0) == LUA_OK ? 1 : PP_ENOMEM;
}

/*
 * A result may be where its worker has put it, and can change it meanwhile. A
 * string is copied as it is opened; of all else a copy of our own is opened.
 */
int pp_unpack_result(lua_State *L, pp_engine *e, const pp_job *j) {
  unsigned char *copy;
  int n;

  if (pp_job_load(j) != NULL) /* the last may be garbage, and its memory what
                                 this needs */
    pp_state_expect(L, j->result_len);
  if (!pp_cargo_shared(pp_job_load(j)))
    return pp_codec_unpack(e->codec, L, j->result, j->result_len, NULL, 0);
  n = unpack_string(L, j->result, j->result_len);
  if (n != 0)
    return n;
  copy = malloc(j->result_len);
  if (copy == NULL) {
    lua_pushliteral(L, "not enough memory");
    return PP_ENOMEM;
  }
  memcpy(copy, j->result, j->result_len);
  n = pp_codec_unpack(e->codec, L, copy, j->result_len, NULL, 0);
  free(copy);
  return n;
}

/* The result of a job is one string, and nobody else needs its bytes, which are
 * where a string is to have them: it becomes that. As pp_unpack_result; 0: it
 * is not so. */
static int adopt(lua_State *L, pp_engine *e, pp_job *j) {
  size_t n = pp_message_lone(j->result_len);
  int r = 0, top = lua_gettop(L);
  unsigned char *block;
  pp_cargo *c;

  if (n == 0 || pp_job_load(j) == NULL)
    return 0;
  pp_state_expect(L, n);
  pp_engine_enter(e);
  c = pp_job_load(j);
  if (c == NULL || pp_cargo_shared(c) || c->refs > 1 ||
      pp_job_promise(j) != NULL || pp_job_kin(j) != NULL ||
      c->window.size != pp_state_string_size(L, n)) {
    pp_engine_leave(e);
    return 0;
  }
  pp_cargo_ref(c); /* a finalizer might ask for it, too */
  block = c->window.base;
  c->window.base = NULL;
  pp_engine_leave(e);
  pp_state_lend(L, block, n);
  r = unpack_string(L, c->p, c->len);
  block = pp_state_unlend(L);
  if (block != NULL && r != 1) {
    lua_settop(L, top);
    r = 0;
  }
  pp_engine_enter(e);
  c->window.base = block;
  if (block == NULL && pp_job_load(j) == c)
    pp_job_clear_result(j);
  pp_cargo_unref(c);
  pp_engine_leave(e);
  return r;
}

int pp_push_results(lua_State *L, int idx) {
  pp_engine *e = pp_check_engine(L);
  pp_ujob *u = lua_touserdata(L, idx);
  pp_job *j = u->j;
  int n, top;
  bool plain = true;
  size_t len;

  idx = lua_absindex(L, idx);
  if (pp_job_held(L, idx, PP_HOLD_RESULTS) == LUA_TTABLE) {
    int t = lua_gettop(L);
    bool ok;

    lua_rawgeti(L, t, 0);
    ok = lua_toboolean(L, -1);
    lua_getfield(L, t, "n");
    n = (int)lua_tointeger(L, -1);
    lua_pop(L, 2);
    luaL_checkstack(L, n + 4, "too many results");
    for (int i = 1; i <= n; i++)
      lua_rawgeti(L, t, i);
    lua_remove(L, t);
    return ok ? n : -1;
  }
  lua_pop(L, 1);
  top = lua_gettop(L);
  if (j->state == PP_JOB_FAILED) {
    pp_push_failure(L, e, j);
    cache(L, e, j, idx, top + 1, 1, false);
    return -1;
  }
  len = j->result_len;
  n = adopt(L, e, j);
  if (n == 0)
    n = pp_unpack_result(L, e, j);
  if (n < 0) {
    const char *m = lua_tolstring(L, -1, &len);

    pp_push_job_error(
        L, j, n == PP_ENOMEM ? PP_KIND_MEMORY : PP_KIND_UNSENDABLE, m, len);
    lua_remove(L, -2);
    cache(L, e, j, idx, top + 1, 1, false);
    return -1;
  }
  for (int i = top + 1; i <= top + n && plain; i++) {
    int t = lua_type(L, i);

    plain = t == LUA_TNIL || t == LUA_TNUMBER || t == LUA_TBOOLEAN ||
            (t == LUA_TSTRING && len < 256);
  }
  if (!plain)
    cache(L, e, j, idx, top + 1, n, true);
  return n;
}
