/* SPDX-License-Identifier: MIT */
/* What jobs that run in this process run on: a Lua state, made when the first
 * of them comes, and the blobs it holds. */
#include <lauxlib.h>
#include <lualib.h>
#include <stdlib.h>
#include <string.h>

#include "serial_impl.h"
#include "state.h"
#include "zygote.h"

/* --- the state ------------------------------------------------------------ */

/* os.exit in a job ends its interpreter, not this process. */
static int job_exit(lua_State *L) {
  pp_serial *z = lua_touserdata(L, lua_upvalueindex(1));

  z->status = lua_isboolean(L, 1) ? !lua_toboolean(L, 1)
                                  : (int)luaL_optinteger(L, 1, 0) & 0xff;
  z->exited = 1;
  pp_state_poke(L, pp_serial_on_forced);
  return luaL_error(L, "exit");
}

static int prepare(lua_State *L) {
  pp_serial *z = lua_touserdata(L, 1);
  luaL_Stream *in;

  if (pp_zygote_library(L) != 0)
    return lua_error(L);
  lua_getglobal(L, "os");
  lua_pushlightuserdata(L, z);
  lua_pushcclosure(L, job_exit, 1);
  lua_setfield(L, -2, "exit");
  lua_getglobal(L, "io");
  lua_getfield(L, -1, "stdin");
  in = luaL_checkudata(L, -1, LUA_FILEHANDLE);
  in->f = z->empty; /* the script's has read ahead */
  lua_gc(L, LUA_GCGEN, 0, 0);
  return 0;
}

void pp_serial_close_state(pp_serial *z) {
  lua_State *L = z->L;
  pp_engine *at = z->engine->at;

  z->L = NULL;
  z->engine->at = z->own;
  if (L != NULL)
    lua_close(L);
  z->engine->at = at;
  pp_serial_close_own(z);
  pp_runner_free(z->runner);
  z->runner = NULL;
  if (z->empty != NULL)
    fclose(z->empty);
  z->empty = NULL;
  z->done = z->told = 0;
  z->stale = false;
}

bool pp_serial_open_state(pp_serial *z) {
  if (z->L != NULL)
    return true;
  z->empty = fopen("/dev/null", "re");
  z->L = z->empty != NULL ? pp_state_new(z->engine->options->noenv) : NULL;
  if (z->L == NULL)
    goto fail;
  lua_pushcfunction(z->L, prepare);
  lua_pushlightuserdata(z->L, z);
  if (lua_pcall(z->L, 1, 0, 0) != LUA_OK ||
      (z->runner = pp_runner_new(z->L)) == NULL || !pp_serial_open_own(z))
    goto fail;
  lua_settop(z->L, 0);
  pp_runner_name(z->runner, 0, "local");
  pp_serial_ask_here(z);
  pp_runner_reseed(z->runner);
  return true;
fail:
  pp_serial_close_state(z);
  return false;
}

pp_serial *pp_serial_root(const pp_serial *z) {
  while (z->outer != NULL)
    z = z->outer;
  return (pp_serial *)(uintptr_t)z;
}

void pp_serial_forget_blobs(pp_serial *z, pp_engine *e) {
  for (size_t w = 0; w < z->has_words; w++)
    for (uint64_t bits = z->has[w]; bits != 0; bits &= bits - 1) {
      uint32_t id = (uint32_t)(w * 64) + (uint32_t)__builtin_ctzll(bits);
      unsigned char number[4];

      pp_put32(number, id);
      if (z->runner != NULL)
        pp_runner_drop(z->runner, number, sizeof number);
      pp_engine_blob_lost(e, id, z->lane);
    }
  if (z->has_words > 0)
    memset(z->has, 0, z->has_words * sizeof *z->has);
  z->ndrops = 0;
}

void pp_serial_free(pp_serial *z) {
  pp_serial_close_state(z);
  free(z->has);
  free(z->drops);
  pp_buf_clear(&z->frame);
  pp_buf_clear(&z->in);
  pp_buf_clear(&z->out);
  free(z);
}

pp_serial *pp_serial_for(pp_server *s, const pp_place_ops *ops) {
  pp_serial *outer = s->engine->serial;
  pp_serial **at = outer != NULL ? &outer->inner : &s->serial, *z = *at;

  if (z != NULL) {
    z->server = s;
    return z;
  }
  z = calloc(1, sizeof *z);
  if (z == NULL)
    return NULL;
  z->place.ops = ops;
  z->from = s->engine;
  z->engine = outer != NULL ? outer->engine : s->engine;
  z->server = s;
  z->outer = outer;
  z->handle = LUA_NOREF;
  z->lane = PP_LANES_MAX + z->engine->nserials++;
  *at = z;
  return z;
}

void pp_serial_close(pp_server *s) {
  pp_serial *z = s->serial;
  pp_engine *e = s->engine;

  if (z == NULL)
    return;
  pp_engine_enter(e);
  pp_serial_forget_blobs(z, e);
  s->serial = NULL;
  pp_engine_leave(e);
  e->in_job = true; /* finalizers of jobs are no part of the script */
  pp_serial_free(z);
  e->in_job = false;
}

/* --- blobs ---------------------------------------------------------------- */

static bool holds(const pp_serial *z, uint32_t id) {
  return id / 64 < z->has_words && (z->has[id / 64] >> id % 64 & 1);
}

void pp_serial_drop_blob(pp_serial *z, uint32_t id) {
  if (!holds(z, id))
    return;
  z->has[id / 64] &= ~((uint64_t)1 << id % 64);
  if (z->ndrops == z->cap_drops) {
    size_t cap = z->cap_drops ? z->cap_drops * 2 : 16;
    uint32_t *v = realloc(z->drops, cap * sizeof *v);

    if (v == NULL)
      return; /* it stays until its number is used again */
    z->drops = v;
    z->cap_drops = cap;
  }
  z->drops[z->ndrops++] = id;
}

void pp_serial_drop(pp_engine *e, uint32_t lane, uint32_t id) {
  pp_serial *z = NULL;

  for (const pp_server *s = e->servers; s != NULL && z == NULL; s = s->next)
    if (s->serial != NULL && s->serial->lane == lane)
      z = s->serial;
  for (const pp_server *s = e->closed; s != NULL && z == NULL; s = s->next)
    if (s->serial != NULL && s->serial->lane == lane)
      z = s->serial;
  if (z != NULL)
    pp_serial_drop_blob(z, id);
}

static int give_one(pp_serial *z, pp_blob *b) {
  unsigned char head[PP_BLOB_HEAD] = {0}, id[4];
  int r = 0;

  if (b->id / 64 >= z->has_words) {
    size_t words = b->id / 64 + 8;
    uint64_t *v = realloc(z->has, words * sizeof *v);

    if (v == NULL)
      return PP_ENOMEM;
    memset(v + z->has_words, 0, (words - z->has_words) * sizeof *v);
    z->has = v;
    z->has_words = words;
  }
  pp_put32(head + PP_BLOB_ID, b->id);
  pp_put32(head + PP_BLOB_KIND, (uint32_t)b->kind);
  pp_put64(head + PP_BLOB_HASH, b->hash.lo);
  pp_put64(head + PP_BLOB_HASH + 8, b->hash.hi);
  pp_put32(head + PP_BLOB_NDEPS, b->ndeps);
  z->frame.len = 0;
  r = pp_buf_put(&z->frame, head, sizeof head);
  for (uint32_t i = 0; i < b->ndeps && r == 0; i++) {
    pp_put32(id, b->deps[i] != NULL ? b->deps[i]->id : PP_BLOB_NONE);
    r = pp_buf_put(&z->frame, id, 4);
  }
  if (r == 0)
    r = pp_buf_put(&z->frame, b->bytes, b->len);
  if (r == 0)
    r = pp_runner_blob(z->runner, z->frame.data, z->frame.len, NULL, NULL);
  if (r == 0)
    r = pp_blob_held(b, z->lane);
  if (r == 0)
    z->has[b->id / 64] |= (uint64_t)1 << b->id % 64;
  if (z->frame.cap > 1 << 20)
    pp_buf_clear(&z->frame);
  return r;
}

/* A blob and those it needs; as in link_send.c. */
static int give_blob(pp_serial *z, pp_blob *b) {
  if (b == NULL || holds(z, b->id))
    return 0;
  b->after = NULL;
  b->step = 0;
  while (b != NULL) {
    pp_blob *before = b->step < b->ndeps ? b->deps[b->step++] : NULL;

    if (before != NULL && !holds(z, before->id)) {
      before->after = b;
      before->step = 0;
      b = before;
    }
    if (b->step < b->ndeps)
      continue;
    if (give_one(z, b) != 0)
      return PP_ENOMEM;
    b = b->after;
  }
  return 0;
}

int pp_serial_give_blobs(pp_serial *z, const pp_job *j) {
  unsigned char id[4];
  int r;

  for (size_t i = 0; i < z->ndrops; i++) {
    pp_put32(id, z->drops[i]);
    pp_runner_drop(z->runner, id, 4);
  }
  z->ndrops = 0;
  r = give_blob(z, j->fn);
  if (r == 0)
    r = give_blob(z, j->setting);
  for (uint32_t i = 0, n = pp_job_ndeps(j); i < n && r == 0; i++)
    r = give_blob(z, pp_job_deps(j)[i]);
  return r;
}
