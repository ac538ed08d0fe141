/* SPDX-License-Identifier: MIT */
/* What travels by reference: server:put, and job handles as values. */
#include <lauxlib.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "depend.h"
#include "lua_pp.h"
#include "message.h"

#define PP_PUT_META "pp.Put"

typedef struct uput {
  pp_blob *blob; /* reference; NULL: collected */
} uput;

/* User values: the kept list of its value. */
enum { UV_KEPT = 1 };

/* --- sending them --------------------------------------------------------- */

/* The kept list on top, if it is one, goes along. */
static void push_kept(lua_State *L, pp_custom *out) {
  out->keeps = lua_istable(L, -1);
  if (!out->keeps)
    lua_pop(L, 1);
}

/* The first result of a finished job, which the script has asked, packed
 * anew. */
static int pack_again(lua_State *L, pp_engine *e, pp_job *j, int idx,
                      pp_custom *out) {
  pp_buf bytes = {0};
  pp_deps deps = {0};
  int top = lua_gettop(L), n = pp_push_results(L, idx), r;
  pp_blob *b;

  if (n < 0) { /* what came could not be read */
    lua_settop(L, top);
    out->bad = "job whose result cannot be read";
    return PP_EUNSENDABLE;
  }
  lua_settop(L, top + 1); /* the first, or nil */
  r = pp_codec_pack(e->codec, L, top + 1, 1, "result", &bytes, &deps);
  if (r == 0 && lua_istable(L, -1)) {
    lua_pushvalue(L, -1);
    pp_job_hold(L, idx, PP_HOLD_KEPT);
  }
  lua_settop(L, top);
  if (r != 0) {
    out->bad = "job whose result cannot be sent any more";
    pp_buf_clear(&bytes);
    return r == PP_ENOMEM ? r : PP_EUNSENDABLE;
  }
  pp_engine_enter(e);
  b = pp_depend_again(e, j, bytes.data, bytes.len, deps.v, deps.n);
  pp_engine_leave(e);
  pp_deps_clear(e->codec, &deps);
  return b != NULL ? 0 : PP_ENOMEM;
}

/* Do its results name metatables? Those are here, but the job no longer has
 * what they went out with. */
static bool names_tables(const pp_job *j) {
  pp_names names;

  return pp_message_names(j->result, j->result_len, &names) == 0 &&
         names.nids > 0;
}

static int send_job(lua_State *L, pp_engine *e, int idx, pp_custom *out) {
  pp_job *j = ((pp_ujob *)lua_touserdata(L, idx))->j;
  bool gone;
  int r = 0;

  if (j == NULL) {
    out->bad = "collected job";
    return PP_EUNSENDABLE;
  }
  pp_engine_enter(e);
  gone = j->state == PP_JOB_DONE && pp_job_promise(j) == NULL &&
         (j->result == NULL || names_tables(j));
  pp_engine_leave(e);
  if (gone)
    r = pack_again(L, e, j, idx, out);
  if (r < 0)
    return r;
  pp_engine_enter(e);
  out->dep = pp_depend_value(e, j);
  if (out->dep != NULL)
    pp_blob_ref(out->dep);
  pp_engine_leave(e);
  if (out->dep == NULL || pp_buf_byte(out->bytes, PP_CUSTOM_JOB) != 0)
    return PP_ENOMEM;
  out->hash = out->dep->hash;
  pp_job_held(L, idx, PP_HOLD_KEPT);
  push_kept(L, out);
  return 1;
}

static int send_put(lua_State *L, pp_engine *e, int idx, pp_custom *out) {
  uput *u = lua_touserdata(L, idx);

  if (u->blob == NULL) {
    out->bad = "collected reference";
    return PP_EUNSENDABLE;
  }
  if (pp_buf_byte(out->bytes, PP_CUSTOM_PUT) != 0)
    return PP_ENOMEM;
  pp_engine_enter(e);
  out->dep = pp_blob_ref(u->blob);
  pp_engine_leave(e);
  out->hash = out->dep->hash;
  out->shared = true;
  lua_getiuservalue(L, idx, UV_KEPT);
  push_kept(L, out);
  return 1;
}

int pp_send_userdata(struct pp_engine *e, lua_State *L, int idx,
                     pp_custom *out) {
  if (!lua_checkstack(L, 20))
    return PP_ENOMEM;
  if (luaL_testudata(L, idx, PP_JOB_META) != NULL)
    return send_job(L, e, idx, out);
  if (luaL_testudata(L, idx, PP_PUT_META) != NULL)
    return send_put(L, e, idx, out);
  if (luaL_testudata(L, idx, PP_SERVER_META) != NULL) {
    out->shared = true; /* it stands for whatever server runs the job */
    return pp_buf_byte(out->bytes, PP_CUSTOM_SERVER) != 0 ? PP_ENOMEM : 1;
  }
  return 0;
}

/* --- put ------------------------------------------------------------------ */

/***
Keep a value in the workers. It is taken as it is now, travels to each worker
once, and is freed when no reference to it and no job needs it.
@function Server:put
@param value anything that can be sent
@treturn Put a reference, for this and any other server: wherever it stands in
  arguments or captures, the job has the value in its place. The jobs of a
  worker share one copy and are to leave it unchanged
@raise on what cannot be sent, with its path
*/
static int server_put(lua_State *L) {
  pp_engine *e = pp_check_engine(L);
  pp_buf bytes = {.home = e->scratch.home};
  pp_deps deps = {0};
  size_t bytes_len = 0;
  uput *u;
  int r;

  pp_check_server(L, 1);
  luaL_checkany(L, 2);
  lua_settop(L, 2);
  u = lua_newuserdatauv(L, sizeof *u, 1);
  u->blob = NULL;
  luaL_setmetatable(L, PP_PUT_META);
  r = pp_codec_pack(e->codec, L, 2, 1, "value", &bytes, &deps);
  if (r == 0) {
    lua_setiuservalue(L, 3, UV_KEPT);
    pp_engine_enter(e);
    bytes_len = bytes.len;
    u->blob =
        pp_blobs_value_of(&e->blobs, PP_BLOB_VALUE, &bytes, deps.v, deps.n);
    pp_engine_leave(e);
  }
  pp_buf_clear(&bytes);
  pp_deps_clear(e->codec, &deps);
  if (r != 0) {
    luaL_where(L, 1);
    lua_insert(L, -2);
    lua_concat(L, 2);
    return lua_error(L);
  }
  if (u->blob == NULL)
    return luaL_error(L, "not enough memory");
  /* The collector is to know that there is more to it than it sees. */
  if (bytes_len >= 1024 && lua_gc(L, LUA_GCISRUNNING))
    lua_gc(L, LUA_GCSTEP,
           bytes_len / 1024 < INT_MAX ? (int)(bytes_len / 1024) : INT_MAX);
  return 1;
}

static int put_gc(lua_State *L) {
  uput *u = luaL_checkudata(L, 1, PP_PUT_META);
  pp_engine *e = pp_engine_here();

  if (u->blob != NULL && e != NULL) {
    pp_codec_forget(e->codec); /* functions' parcels that it may be in */
    pp_engine_enter(e);
    pp_blob_unref(&e->blobs, u->blob);
    pp_engine_leave(e);
  }
  u->blob = NULL;
  return 0;
}

static int put_tostring(lua_State *L) {
  uput *u = luaL_checkudata(L, 1, PP_PUT_META);

  lua_pushfstring(L, "pp.Put: %p (%I bytes)", (const void *)u,
                  (lua_Integer)(u->blob != NULL ? u->blob->len : 0));
  return 1;
}

static const luaL_Reg meta[] = {
    {"__gc", put_gc},
    {"__tostring", put_tostring},
    {NULL, NULL},
};

void pp_open_put(lua_State *L) {
  luaL_newmetatable(L, PP_PUT_META);
  luaL_setfuncs(L, meta, 0);
  lua_pushliteral(L, "pp.Put");
  lua_setfield(L, -2, "__metatable");
  lua_pop(L, 1);
  lua_getfield(L, -1, "server_methods");
  lua_pushcfunction(L, server_put);
  lua_setfield(L, -2, "put");
  lua_pop(L, 1);
}
