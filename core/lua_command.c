/* SPDX-License-Identifier: MIT */
/* Commands: what server:sh and the shell run in workers. */
#include <errno.h>
#include <lauxlib.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "command.h"
#include "lua_pp.h"
#include "runner.h"

#define PP_COMMAND_META "pp.command"

extern char **environ;

/* One command, from its options to its end. */
typedef struct ucommand {
  pp_command c;
  pp_command_end end;
  char **argv, **env; /* owned arrays; strings are borrowed, those of env from
                         user value 1 or environ */
  pp_runner *runner;
} ucommand;

static void clear(ucommand *u) {
  pp_command_clear(&u->end);
  free(u->argv);
  free(u->env);
  u->argv = u->env = NULL;
}

static int command_gc(lua_State *L) {
  clear(luaL_checkudata(L, 1, PP_COMMAND_META));
  return 0;
}

/* A string without zero bytes at the top of the stack, which stays there. */
static const char *check_word(lua_State *L, const char *what) {
  size_t len;
  const char *s = lua_tolstring(L, -1, &len);

  if (lua_type(L, -1) != LUA_TSTRING)
    luaL_error(L, "%s must be a string, got %s", what, luaL_typename(L, -1));
  if (strlen(s) != len)
    luaL_error(L, "%s holds a zero byte, which no command can be given", what);
  return s;
}

static char **new_array(lua_State *L, size_t n) {
  char **v = calloc(n, sizeof *v);

  if (v == NULL)
    luaL_error(L, "not enough memory");
  return v;
}

/* 1: the command, a list of words or text for a shell; 3: u. */
static void read_argv(lua_State *L, ucommand *u) {
  lua_Integer n = 0;

  if (lua_type(L, 1) == LUA_TSTRING) {
    u->argv = new_array(L, 5);
    u->argv[0] = "/bin/sh";
    if (lua_getfield(L, 2, "shell") != LUA_TNIL)
      u->argv[0] = (char *)check_word(L, "shell");
    u->argv[1] = "-c";
    lua_pushvalue(L, 1);
    u->argv[2] = (char *)check_word(L, "the command");
    /* What begins with a dash is a command, too. */
    if (u->argv[2][0] == '-' || u->argv[2][0] == '+') {
      u->argv[3] = u->argv[2];
      u->argv[2] = "--";
    }
    lua_pop(L, 2);
    return;
  }
  if (!lua_istable(L, 1) || (n = (lua_Integer)lua_rawlen(L, 1)) < 1)
    luaL_error(L, "the command must be a string or a list of strings");
  u->argv = new_array(L, (size_t)n + 1);
  for (lua_Integer i = 1; i <= n; i++) {
    lua_rawgeti(L, 1, i); /* the table keeps it */
    u->argv[i - 1] = (char *)check_word(L, "a word of the command");
    lua_pop(L, 1);
  }
}

static bool is_set(const char *assignment, const char *name, size_t len) {
  return strncmp(assignment, name, len) == 0 && assignment[len] == '=';
}

/* The environment with what the table at the top says changed. */
static void read_env(lua_State *L, ucommand *u) {
  int env = lua_gettop(L);
  size_t n = 0, more = 0;

  if (!lua_istable(L, env))
    luaL_error(L, "env must be a table, got %s", luaL_typename(L, env));
  for (lua_pushnil(L); lua_next(L, env); lua_pop(L, 1))
    more++;
  while (environ[n] != NULL)
    n++;
  u->env = new_array(L, n + more + 1);
  memcpy(u->env, environ, n * sizeof *u->env);
  lua_newtable(L);
  lua_pushvalue(L, -1);
  lua_setiuservalue(L, 3, 1);
  for (lua_pushnil(L); lua_next(L, env); lua_pop(L, 1)) {
    const char *name, *value;
    size_t len, at = 0;

    lua_pushvalue(L, -2);
    name = check_word(L, "a name in env");
    len = strlen(name);
    lua_pop(L, 1);
    if (len == 0 || strchr(name, '=') != NULL)
      luaL_error(L, "'%s' is no name for a variable", name);
    while (u->env[at] != NULL && !is_set(u->env[at], name, len))
      at++;
    if (lua_isboolean(L, -1) && !lua_toboolean(L, -1)) {
      if (u->env[at] != NULL) {
        u->env[at] = u->env[--n];
        u->env[n] = NULL;
      }
      continue;
    }
    lua_pushvalue(L, -1); /* a number becomes a string */
    lua_tostring(L, -1);
    value = check_word(L, "a value in env");
    lua_pushfstring(L, "%s=%s", name, value);
    n += u->env[at] == NULL;
    u->env[at] = (char *)lua_tostring(L, -1);
    lua_rawseti(L, env + 1, (lua_Integer)lua_rawlen(L, env + 1) + 1);
    lua_pop(L, 1);
  }
  u->c.env = u->env;
  lua_settop(L, env);
}

static void read_options(lua_State *L, ucommand *u) {
  pp_command *c = &u->c;

  c->limit = (size_t)1 << 26;
  if (lua_getfield(L, 2, "cwd") != LUA_TNIL)
    c->cwd = check_word(L, "cwd");
  if (lua_getfield(L, 2, "stdin") != LUA_TNIL) {
    if (lua_type(L, -1) != LUA_TSTRING)
      luaL_error(L, "stdin must be a string, got %s", luaL_typename(L, -1));
    c->in = lua_tolstring(L, -1, &c->in_len);
  }
  if (lua_getfield(L, 2, "limit") != LUA_TNIL)
    c->limit = (size_t)lua_tointeger(L, -1);
  if (lua_getfield(L, 2, "timeout") != LUA_TNIL) {
    double s = lua_tonumber(L, -1);

    c->timeout = s < 9e9 ? (int64_t)(s * 1e9) : 0;
  }
  if (lua_getfield(L, 2, "pass") != LUA_TNIL)
    c->to = PP_COMMAND_PASS;
  if (lua_getfield(L, 2, "spill") != LUA_TNIL) {
    c->spill = getenv("TMPDIR");
    if (c->spill == NULL || c->spill[0] != '/')
      c->spill = "/tmp";
  }
  if (lua_getfield(L, 2, "fed") != LUA_TNIL &&
      (c->feed = pp_runner_feed(u->runner)) == NULL)
    luaL_error(L, "there is nobody here to pass input on");
  lua_pop(L, 7); /* the table keeps them */
  if (lua_getfield(L, 2, "env") != LUA_TNIL)
    read_env(L, u);
  lua_pop(L, 1);
}

static bool stopping(void *ud) {
  const ucommand *u = ud;

  return pp_runner_stopping(u->runner) != NULL;
}

static int fail(lua_State *L, const ucommand *u, int why) {
  const pp_command_end *e = &u->end;
  const char *text = strerror(why);

  if (e->what == NULL)
    return luaL_error(L, "not enough memory");
  if (strcmp(e->what, "run") == 0)
    return luaL_error(L, "cannot run '%s': %s", u->c.argv[0], text);
  if (strcmp(e->what, "cwd") == 0)
    return luaL_error(L, "cannot run in '%s': %s", u->c.cwd, text);
  if (strcmp(e->what, "spill") == 0)
    return luaL_error(L, "cannot keep what the command writes in '%s': %s",
                      u->c.spill, text);
  return luaL_error(L, "cannot run a command: %s: %s", e->what, text);
}

static void push_end(lua_State *L, ucommand *u) {
  static const char *const names[][3] = {
      {"stdout", "stdout_file", "stdout_size"},
      {"stderr", "stderr_file", "stderr_size"},
  };
  const pp_command_end *e = &u->end;

  lua_createtable(L, 0, 4);
  if (WIFSIGNALED(e->status)) {
    lua_pushinteger(L, WTERMSIG(e->status));
    lua_setfield(L, -2, "signal");
    lua_pushinteger(L, 128 + WTERMSIG(e->status));
  } else {
    lua_pushinteger(L, WEXITSTATUS(e->status));
  }
  lua_setfield(L, -2, "status");
  for (int s = 0; s < 2 && u->c.to == PP_COMMAND_KEEP; s++) {
    if (e->file[s] != NULL) {
      lua_pushstring(L, e->file[s]);
      lua_setfield(L, -2, names[s][1]);
      lua_pushinteger(L, (lua_Integer)e->written[s]);
      lua_setfield(L, -2, names[s][2]);
    }
    lua_pushlstring(L, (const char *)e->out[s].data,
                    e->file[s] != NULL ? 0 : e->out[s].len);
    lua_setfield(L, -2, names[s][0]);
  }
  if (e->timed_out) {
    lua_pushboolean(L, true);
    lua_setfield(L, -2, "timed_out");
  }
  lua_pushnumber(L, (lua_Number)e->ran / 1e9);
  lua_setfield(L, -2, "time");
}

/*
 * core.command(command, options): run it here, in a job. command: text for a
 * shell, or a list of words, which no shell sees. options: cwd, env (name ->
 * value, or false), stdin (a string), shell, limit (bytes kept of each stream),
 * fed (it reads
 * what the submitting side feeds), spill (what is beyond goes to a file, else
 * the command is killed and an error raised), timeout, pass (what it writes is
 * not kept but goes where the job's own goes). -> {status =, signal =, stdout
 * =, stderr =, time =, timed_out =, stdout_file =, stdout_size =, ...}
 */
static int run_command(lua_State *L) {
  ucommand *u;
  int r, why;

  lua_settop(L, 2);
  if (lua_isnil(L, 2)) {
    lua_newtable(L);
    lua_replace(L, 2);
  }
  luaL_checktype(L, 2, LUA_TTABLE);
  u = lua_newuserdatauv(L, sizeof *u, 1);
  memset(u, 0, sizeof *u);
  luaL_setmetatable(L, PP_COMMAND_META);
  if (lua_getfield(L, LUA_REGISTRYINDEX, "pp.runner") == LUA_TNIL)
    return luaL_error(L, "commands are run in jobs: use server:sh");
  u->runner = lua_touserdata(L, -1);
  lua_pop(L, 1);
  read_argv(L, u);
  read_options(L, u);
  u->c.argv = u->argv;
  u->c.stopping = stopping;
  u->c.ud = u;
  r = pp_command_run(&u->c, &u->end);
  why = errno;
  if (stopping(u)) {
    const char *text = pp_runner_stopping(u->runner);

    pp_runner_stopped(u->runner, L);
    return luaL_error(L, "%s", text);
  }
  if (r != 0)
    return fail(L, u, why);
  if (u->end.over != 0)
    return luaL_error(L, "the command wrote more than %d bytes to %s",
                      (int)u->c.limit, u->end.over == 1 ? "stdout" : "stderr");
  push_end(L, u);
  clear(u);
  return 1;
}

void pp_open_command(lua_State *L) {
  static const luaL_Reg funcs[] = {{"command", run_command}, {NULL, NULL}};

  luaL_newmetatable(L, PP_COMMAND_META);
  lua_pushcfunction(L, command_gc);
  lua_setfield(L, -2, "__gc");
  lua_pop(L, 1);
  luaL_setfuncs(L, funcs, 0);
}
