/* SPDX-License-Identifier: MIT */
/* A job in the midst of another: what the outer one has set is put aside. */
#include <lauxlib.h>
#include <string.h>

#include "runner_impl.h"
#include "state.h"

/* As much as the state of math.random takes, and more. */
#define RANDOM_MAX 128

typedef struct aside {
  unsigned char random[RANDOM_MAX];
  size_t random_len;
  pp_running now;
  size_t limit;
  uint32_t setting;
  sig_atomic_t user, has_been;
  const char *stop;
  bool reseed;
  pp_with with;
} aside;

/* The numbers math.random goes on from: a userdata it holds. NULL if it is not
 * there. Leaves nothing on the stack. */
static void *random_state(lua_State *L, pp_runner *r, size_t *len) {
  int top = lua_gettop(L);
  void *p = NULL;

  lua_rawgeti(L, LUA_REGISTRYINDEX, r->randomseed);
  if (lua_getupvalue(L, -1, 1) != NULL && lua_isuserdata(L, -1)) {
    *len = lua_rawlen(L, -1);
    if (*len <= RANDOM_MAX)
      p = lua_touserdata(L, -1);
  }
  lua_settop(L, top);
  return p;
}

static const char *const files[] = {"_IO_input", "_IO_output"};

int pp_runner_inner(pp_runner *r, const unsigned char *p, size_t len,
                    const unsigned char *rest, size_t rest_len, pp_buf *out,
                    void (*taken)(void *ud), void *ud) {
  lua_State *main = r->L, *outer = pp_state_running(main), *L;
  aside a = {.now = r->now,
             .limit = pp_state_memory(main)->limit,
             .setting = r->setting,
             .user = r->user,
             .has_been = r->has_been,
             .reseed = r->reseed,
             .with = r->with};
  void *random;
  int top, rc;

  pp_state_memory(main)->limit = 0;
  luaL_checkstack(outer, 10, "job");
  top = lua_gettop(outer);
  L = lua_newthread(outer); /* kept by the stack */
  for (int i = 0; i < 2; i++)
    lua_getfield(outer, LUA_REGISTRYINDEX, files[i]);
  lua_rawgeti(outer, LUA_REGISTRYINDEX, r->given);
  memset(&r->with, 0, sizeof r->with);
  random = random_state(outer, r, &a.random_len);
  if (random != NULL)
    memcpy(a.random, random, a.random_len);
  r->user = 0;
  r->has_been = 0;
  r->reseed = random == NULL;
  r->L = L;
  pp_state_switch(L);
  r->era++; /* the outer one may have changed anything */
  rc = pp_runner_job(r, p, len, rest, rest_len, out, taken, ud);
  pp_state_switch(outer);
  r->L = main;
  if (random != NULL)
    memcpy(random, a.random, a.random_len);
  for (int i = 0; i < 2; i++) {
    lua_pushvalue(outer, top + 2 + i);
    lua_setfield(outer, LUA_REGISTRYINDEX, files[i]);
  }
  lua_pushvalue(outer, top + 4);
  lua_rawseti(outer, LUA_REGISTRYINDEX, r->given);
  pp_buf_clear(&r->with.todo);
  pp_buf_clear(&r->with.sources);
  r->with = a.with;
  lua_settop(outer, top);
  if (r->setting != a.setting)
    pp_runner_set(r, a.setting);
  r->now = a.now;
  r->user = a.user;
  r->has_been = a.has_been;
  r->reseed = a.reseed;
  pp_state_memory(main)->limit = a.limit;
  return rc;
}
