/* SPDX-License-Identifier: MIT */
#include "repl.h"

#include <errno.h>
#include <lauxlib.h>
#include <lualib.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "editor.h"
#include "interrupt.h"
#include "script.h"

typedef struct repl {
  lua_State *L;
  pp_repl_wait wait;
  bool edit;  /* lines are edited by readline */
  char *line; /* getline's buffer */
  size_t size;
} repl;

static int just_poll(lua_State *L, int fd) {
  struct pollfd p = {.fd = fd, .events = POLLIN};

  (void)L;
  return poll(&p, 1, -1) < 0 && errno != EINTR ? -1 : 0;
}

/* SIGTERM and its like end us here; true for Ctrl-C, which is then forgotten.
 */
static bool interrupted(repl *r) {
  int sig = pp_interrupt_pending();

  if (sig == 0)
    return false;
  if (sig != SIGINT)
    exit(128 + sig);
  pp_interrupt_reset(r->L);
  return true;
}

/* --- lines --------------------------------------------------------------- */

static int plain_line(repl *r, const char *prompt) {
  ssize_t n;

  fputs(prompt, stdout);
  fflush(stdout);
  if (isatty(STDIN_FILENO) && r->wait(r->L, STDIN_FILENO) < 0)
    return PP_LINE_EOF;
  n = interrupted(r) ? -2 : getline(&r->line, &r->size, stdin);
  if (n < 0) {
    if (n == -2 || interrupted(r)) {
      clearerr(stdin);
      fputs("\n", stdout);
      return PP_LINE_INTERRUPTED;
    }
    return PP_LINE_EOF;
  }
  if (n > 0 && r->line[n - 1] == '\n')
    n--;
  lua_pushlstring(r->L, r->line, (size_t)n);
  return PP_LINE_OK;
}

/* Name of a global -> its value as the prompt, or nil. */
static int find_prompt(lua_State *L) {
  lua_getglobal(L, lua_tostring(L, 1));
  if (!lua_isnil(L, -1))
    luaL_tolstring(L, -1, NULL);
  return 1;
}

/* Push one line of input; on any other result nothing is pushed. */
static int read_line(repl *r, bool first) {
  lua_State *L = r->L;
  const char *prompt;
  int result, at;

  lua_pushcfunction(L, find_prompt);
  lua_pushstring(L, first ? "_PROMPT" : "_PROMPT2");
  /* What goes wrong there must not end the session. */
  if (lua_pcall(L, 1, 1, 0) != LUA_OK || lua_isnil(L, -1)) {
    lua_pop(L, 1);
    lua_pushstring(L, first ? "> " : ">> ");
  }
  at = lua_gettop(L);
  prompt = lua_tostring(L, at);
  if (r->edit) {
    result = pp_editor_line(L, prompt, r->wait);
    if (result == PP_LINE_INTERRUPTED)
      interrupted(r);
  } else {
    result = plain_line(r, prompt);
  }
  lua_remove(L, at);
  return result;
}

/* --- statements ---------------------------------------------------------- */

static int load(lua_State *L, const char *s, size_t len) {
  return luaL_loadbuffer(L, s, len, "=stdin");
}

/* The chunk ended too early: its message ends so. */
static bool incomplete(lua_State *L, int status) {
  static const char mark[] = "<eof>";
  size_t len;
  const char *message;

  if (status != LUA_ERRSYNTAX)
    return false;
  message = lua_tolstring(L, -1, &len);
  return len >= sizeof(mark) - 1 &&
         strcmp(message + len - (sizeof(mark) - 1), mark) == 0;
}

/*
 * Read one statement, over as many lines as it needs. On PP_LINE_OK, *status is
 * what loading it gave and the chunk or message has been pushed.
 */
static int read_statement(repl *r, int *status) {
  lua_State *L = r->L;
  int result = read_line(r, true);
  const char *line;
  size_t len;

  if (result != PP_LINE_OK)
    return result;
  line = lua_tostring(L, -1);
  if (line[0] == '=') { /* lua 5.0's way to say return */
    lua_pushfstring(L, "return %s", line + 1);
    lua_remove(L, -2);
  }
  /* An expression? */
  lua_pushfstring(L, "return %s", lua_tostring(L, -1));
  line = lua_tolstring(L, -1, &len);
  *status = load(L, line, len);
  lua_remove(L, -2);
  if (*status == LUA_OK) {
    lua_remove(L, -2);
    return PP_LINE_OK;
  }
  lua_pop(L, 1);
  for (;;) {
    line = lua_tolstring(L, -1, &len);
    *status = load(L, line, len);
    if (!incomplete(L, *status))
      break;
    result = read_line(r, false);
    if (result == PP_LINE_EOF)
      break; /* the message stands */
    if (result != PP_LINE_OK) {
      lua_pop(L, 2);
      return result;
    }
    lua_remove(L, -2);
    lua_pushliteral(L, "\n");
    lua_insert(L, -2);
    lua_concat(L, 3);
  }
  lua_remove(L, -2);
  return PP_LINE_OK;
}

static int call_print(lua_State *L) {
  lua_getglobal(L, "print");
  lua_insert(L, 1);
  lua_call(L, lua_gettop(L) - 1, 0);
  return 0;
}

static void print_results(lua_State *L) {
  int n = lua_gettop(L);

  if (n == 0)
    return;
  if (!lua_checkstack(L, LUA_MINSTACK)) {
    fputs("too many results to print\n", stderr);
    return;
  }
  lua_pushcfunction(L, call_print);
  lua_insert(L, 1);
  if (lua_pcall(L, n, 0, 0) != LUA_OK) {
    lua_pushfstring(L, "error calling 'print' (%s)",
                    luaL_tolstring(L, -1, NULL));
    pp_script_report(L, LUA_ERRRUN, NULL);
  }
}

void pp_repl_run(lua_State *L, pp_repl_wait wait) {
  repl r = {.L = L, .wait = wait != NULL ? wait : just_poll};
  int status = LUA_OK, result;

  r.edit = isatty(STDIN_FILENO) && pp_editor_open(L);
  for (;;) {
    lua_settop(L, 0);
    pp_interrupt_reset(L);
    result = read_statement(&r, &status);
    if (result == PP_LINE_EOF)
      break;
    if (result == PP_LINE_INTERRUPTED)
      continue;
    if (status == LUA_OK)
      status = pp_script_call(L, 0, LUA_MULTRET);
    if (status == LUA_OK)
      print_results(L);
    else
      pp_script_report(L, status, NULL);
  }
  lua_settop(L, 0);
  fputs("\n", stdout);
  fflush(stdout);
  free(r.line);
}
