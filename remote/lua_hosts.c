/* SPDX-License-Identifier: MIT */
/***
Remote hosts of a server.
@module pp.hosts
*/
#include <lauxlib.h>
#include <string.h>

#include "hosts.h"
#include "lua_pp.h"
#include "lua_sets.h"

#define PP_HOSTS_META "pp.hosts"

static pp_hosts *push_set(lua_State *L) {
  pp_hosts *set = lua_newuserdatauv(L, sizeof *set, 0);

  memset(set, 0, sizeof *set);
  luaL_setmetatable(L, PP_HOSTS_META);
  return set;
}

static int set_gc(lua_State *L) {
  pp_hosts_clear(luaL_checkudata(L, 1, PP_HOSTS_META));
  return 0;
}

/* core.hosts(list of lists) -> the set, or nil and what is wrong */
static int hosts(lua_State *L) {
  lua_Integer n;
  pp_hosts *set;

  luaL_checktype(L, 1, LUA_TTABLE);
  n = (lua_Integer)lua_rawlen(L, 1);
  set = push_set(L);
  for (lua_Integer i = 1; i <= n; i++) {
    pp_host_error e;
    const char *text;
    size_t len;
    int r;

    lua_rawgeti(L, 1, i);
    text = luaL_checklstring(L, -1, &len);
    r = pp_hosts_add(set, text, len, NULL, NULL, &e);
    if (r == PP_ENOMEM)
      return luaL_error(L, "not enough memory");
    if (r != 0) {
      lua_pushnil(L);
      lua_pushfstring(L, "%s\n%s", e.message, e.caret);
      return 2;
    }
    lua_pop(L, 1);
  }
  return 1;
}

/* core.attach(server, set, transport, installed) */
static int attach(lua_State *L) {
  static const char *const names[] = {"auto", "libssh2", "ssh", NULL};
  static const pp_transport transports[] = {
      PP_TRANSPORT_AUTO, PP_TRANSPORT_LIBSSH2, PP_TRANSPORT_SSH};
  pp_server *s = pp_check_server(L, 1);
  pp_engine *e = pp_check_engine(L);
  const pp_hosts *set = luaL_checkudata(L, 2, PP_HOSTS_META);
  pp_hosts_how how = {.transport =
                          transports[luaL_checkoption(L, 3, "auto", names)],
                      .installed = lua_toboolean(L, 4)};
  int r;

  pp_engine_enter(e);
  r = pp_hosts_attach(s, set, &how);
  pp_engine_leave(e);
  return r == 0 ? 0 : luaL_error(L, "not enough memory");
}

static pp_node *node_of(const pp_server *s, const char *name) {
  pp_node *n = s->local->next;

  while (n != NULL && (n->conn == NULL || strcmp(pp_node_name(n), name) != 0))
    n = n->next;
  return n;
}

/***
Let a host go: what runs there goes on to its end, what has not begun runs
elsewhere; where nothing else is left or to be expected it fails with kind
"connect". Does not wait for that.
@function Server:remove_host
@string name of the node, as get_active_nodes has it
*/
static int remove_host(lua_State *L) {
  pp_server *s = pp_check_server(L, 1);
  pp_engine *e = pp_check_engine(L);
  const char *name = luaL_checkstring(L, 2);
  pp_node *n;

  pp_engine_enter(e);
  n = node_of(s, name);
  if (n != NULL)
    pp_hosts_remove_node(n);
  pp_engine_leave(e);
  if (n == NULL)
    luaL_argerror(L, 2,
                  lua_pushfstring(L, "the server has no host '%s'", name));
  return 0;
}

static bool settled(void *ud) {
  const pp_server *s = ud;

  for (const pp_node *n = s->local->next; n != NULL; n = n->next)
    if (n->conn != NULL && n->expected && n->state != PP_NODE_UP)
      return false;
  return true;
}

/***
Wait until each host is connected or known not to be usable. A waiting call.
@function Server:wait_hosts
@number[opt] timeout seconds; none waits as long as it takes
@treturn boolean are all of them connected
@treturn ?table if not: name -> why
*/
static int wait_hosts(lua_State *L) {
  pp_server *s = pp_check_server(L, 1);
  pp_engine *e = pp_check_engine(L);
  bool all = true;

  pp_wait_call(L, settled, s, pp_opt_deadline(L, 2));
  lua_settop(L, 2);
  lua_newtable(L);
  for (uint32_t i = 0;; i++) {
    char why[600] = "";
    const char *name = NULL;
    bool up = true;
    uint32_t k = 0;

    pp_engine_enter(e);
    for (const pp_node *n = s->local->next; n != NULL; n = n->next)
      if (n->conn != NULL && !n->leaving && k++ == i) {
        name = pp_node_name(n);
        up = n->state == PP_NODE_UP;
        if (n->reason != NULL)
          strncat(why, n->reason, sizeof why - 1);
        break;
      }
    pp_engine_leave(e);
    if (name == NULL)
      break;
    if (up)
      continue;
    all = false;
    lua_pushstring(L, *why != '\0' ? why : "not connected yet");
    lua_setfield(L, 3, name);
  }
  lua_pushboolean(L, all);
  if (all)
    return 1;
  lua_insert(L, 3);
  return 2;
}

void pp_open_hosts(lua_State *L) {
  static const luaL_Reg funcs[] = {
      {"hosts", hosts}, {"attach", attach}, {NULL, NULL}};
  static const luaL_Reg methods[] = {
      {"remove_host", remove_host}, {"wait_hosts", wait_hosts}, {NULL, NULL}};

  luaL_newmetatable(L, PP_HOSTS_META);
  lua_pushcfunction(L, set_gc);
  lua_setfield(L, -2, "__gc");
  lua_pop(L, 1);
  luaL_setfuncs(L, funcs, 0);
  pp_open_sets(L);
  lua_getfield(L, -1, "server_methods");
  luaL_setfuncs(L, methods, 0);
  lua_pop(L, 1);
}
