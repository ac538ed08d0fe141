/* SPDX-License-Identifier: MIT */
/***
Watching jobs.
@module pp.watching
*/
/* The progress of some jobs, and the table of .top. */
#include <errno.h>
#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "interrupt.h"
#include "lua_pp.h"

/* --- pp.progress ---------------------------------------------------------- */

#define WATCHED_META "pp.watched"

typedef struct watched {
  pp_meter_list list; /* references to jobs */
  pp_engine *engine;
} watched;

/* Its __gc and __close: whatever ended the wait. */
static int release(lua_State *L) {
  watched *w = luaL_checkudata(L, 1, WATCHED_META);
  pp_engine *e = w->engine;

  if (w->list.v == NULL || pp_engine_get() == NULL)
    return 0;
  pp_engine_enter(e);
  pp_meter_list_end(e, &w->list);
  for (size_t i = 0; i < w->list.n; i++)
    pp_job_unref(w->list.v[i], &e->blobs);
  pp_engine_leave(e);
  free(w->list.v);
  w->list.v = NULL;
  w->list.n = 0;
  return 0;
}

static bool all_over(void *ud) { return pp_meter_list_over(ud); }

/* core.progress(jobs) -> how many are done, how many failed; or nil and which
 * of them is none. A waiting call. */
static int progress(lua_State *L) {
  pp_engine *e = pp_check_engine(L);
  lua_Integer n = (lua_Integer)lua_rawlen(L, 1);
  watched *w;

  if (n == 0 && !e->loop_open) { /* there was no server yet */
    lua_pushinteger(L, 0);
    lua_pushinteger(L, 0);
    return 2;
  }
  w = lua_newuserdatauv(L, sizeof *w, 0);
  memset(w, 0, sizeof *w);
  w->engine = e;
  if (luaL_newmetatable(L, WATCHED_META)) {
    lua_pushcfunction(L, release);
    lua_setfield(L, -2, "__gc");
    lua_pushcfunction(L, release);
    lua_setfield(L, -2, "__close");
  }
  lua_setmetatable(L, -2);
  w->list.v = malloc((size_t)(n > 0 ? n : 1) * sizeof *w->list.v);
  if (w->list.v == NULL)
    return luaL_error(L, "not enough memory");
  lua_toclose(L, -1);
  for (lua_Integer i = 1; i <= n; i++) {
    pp_ujob *u;

    lua_rawgeti(L, 1, i);
    u = luaL_testudata(L, -1, PP_JOB_META);
    if (u == NULL) {
      lua_pushnil(L);
      lua_pushinteger(L, i);
      return 2;
    }
    pp_engine_enter(e);
    w->list.v[w->list.n++] = pp_job_ref(u->j);
    pp_engine_leave(e);
    lua_pop(L, 1);
  }
  pp_engine_enter(e);
  pp_engine_look(e, pp_now_ns());
  pp_meter_list_begin(e, &w->list);
  pp_engine_leave(e);
  pp_wait_call(L, all_over, &w->list, -1);
  lua_pushinteger(L, (lua_Integer)(w->list.over - w->list.failed));
  lua_pushinteger(L, (lua_Integer)w->list.failed);
  return 2;
}

/* --- .top ----------------------------------------------------------------- */

typedef struct key {
  uv_poll_t poll;
  bool pressed;
} key;

static void on_key(uv_poll_t *h, int status, int events) {
  (void)status, (void)events;
  ((key *)h->data)->pressed = true;
}

static bool pressed(void *ud) { return ((key *)ud)->pressed; }

static int wait_for_key(lua_State *L) {
  pp_wait_call(L, pressed, lua_touserdata(L, 1), -1);
  return 0;
}

static void free_key(uv_handle_t *h) { free(h->data); }

/* core.top() -> true when a key was pressed; or nil and why it cannot be
 * shown. A waiting call. */
static int top(lua_State *L) {
  pp_engine *e = pp_check_engine(L);
  struct termios mode;
  char bytes[64];
  int status;
  key *k;

  if (!isatty(STDIN_FILENO) || !pp_meter_can_table(&e->meter) ||
      tcgetattr(STDIN_FILENO, &mode) != 0) {
    lua_pushnil(L);
    lua_pushliteral(L, "the table needs a terminal that it can draw on");
    return 2;
  }
  k = calloc(1, sizeof *k);
  if (k == NULL)
    return luaL_error(L, "not enough memory");
  pp_engine_enter(e);
  if (pp_engine_open_loop(e) != 0 ||
      uv_poll_init(&e->loop, &k->poll, STDIN_FILENO) != 0) {
    pp_engine_leave(e);
    free(k);
    lua_pushnil(L);
    lua_pushliteral(L, "standard input cannot be waited for");
    return 2;
  }
  k->poll.data = k;
  uv_poll_start(&k->poll, UV_READABLE, on_key);
  pp_meter_table_begin(&e->meter, &mode);
  pp_engine_leave(e);
  lua_pushcfunction(L, wait_for_key);
  lua_pushlightuserdata(L, k);
  status = lua_pcall(L, 1, 0, 0);
  pp_engine_enter(e);
  pp_meter_table_end(&e->meter);
  if (k->pressed)
    (void)!read(STDIN_FILENO, bytes, sizeof bytes);
  pp_meter_restore(&e->meter);
  uv_close((uv_handle_t *)&k->poll, free_key);
  pp_engine_leave(e);
  if (status != LUA_OK && !pp_interrupt_was())
    return lua_error(L);
  pp_interrupt_reset(L); /* Ctrl-C leaves the table, and nothing else */
  lua_pushboolean(L, true);
  return 1;
}

static const luaL_Reg funcs[] = {
    {"progress", progress},
    {"top", top},
    {NULL, NULL},
};

void pp_open_watch(lua_State *L) { luaL_setfuncs(L, funcs, 0); }
