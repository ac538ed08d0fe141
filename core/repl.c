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
#include <sys/ioctl.h>
#include <unistd.h>

#include "editor.h"
#include "interrupt.h"
#include "prompt.h"
#include "script.h"

enum {
  LINE_MOST = 64 << 20, /* bytes of a line that is not typed */
  FAILURES = 10         /* in a row, of our own: there is no prompt to be had */
};

typedef struct repl {
  lua_State *L;
  bool edit;  /* lines are edited by readline */
  bool tty;   /* stdin is a terminal */
  char *line; /* of plain input */
  size_t cap;
  const char *prompt; /* while plain input waits at a terminal */
} repl;

/* The one there is, for what is called back without an argument. */
static repl *the_repl;

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

/* --- lines without an editor ---------------------------------------------- */

static void hide_plain(void) {
  /* What was typed is the terminal's; it comes when the line is complete. */
  fputs("\n", stdout);
  fflush(stdout);
}

static void show_plain(void) {
  fputs(the_repl->prompt, stdout);
  fflush(stdout);
}

/* Push a line of stdin, without its end. */
static int get_line(repl *r) {
  size_t n = 0;
  int c;

  while ((c = getc_unlocked(stdin)) != EOF && c != '\n') {
    if (n + 1 >= r->cap) {
      size_t cap = r->cap > 0 ? r->cap * 2 : 256;
      char *p = n < LINE_MOST ? realloc(r->line, cap) : NULL;

      if (p == NULL) {
        fflush(stdout);
        fputs("ppsh: a line of stdin is too long\n", stderr);
        return PP_LINE_EOF;
      }
      r->line = p;
      r->cap = cap;
    }
    r->line[n++] = (char)c;
  }
  if (c == EOF && (n == 0 || pp_interrupt_pending() != 0))
    return PP_LINE_EOF;
  lua_pushlstring(r->L, r->line != NULL ? r->line : "", n);
  return PP_LINE_OK;
}

static int plain_line(repl *r, const char *prompt) {
  static const pp_line line = {hide_plain, show_plain, NULL};
  int result = PP_LINE_EOF;

  r->prompt = prompt;
  fputs(prompt, stdout);
  fflush(stdout);
  if (r->tty)
    pp_prompt_wait(r->L, STDIN_FILENO, &line);
  if (pp_interrupt_pending() == 0)
    result = get_line(r);
  if (result == PP_LINE_EOF && pp_interrupt_pending() != 0) {
    clearerr(stdin);
    fputs("\n", stdout);
    return PP_LINE_INTERRUPTED;
  }
  return result;
}

/* --- for Lua -------------------------------------------------------------- */

/* read(prompt) -> a line, or nil and "eof" or "interrupted" */
static int read_line(lua_State *L) {
  repl *r = the_repl;
  const char *prompt = luaL_checkstring(L, 1);
  int result;

  lua_settop(L, 1);
  if (r->tty)
    pp_prompt_open(L);
  result = r->edit ? pp_editor_line(L, prompt) : plain_line(r, prompt);
  if (r->tty)
    pp_prompt_close(L);
  if (result == PP_LINE_OK)
    return 1;
  if (result == PP_LINE_INTERRUPTED)
    interrupted(r);
  lua_pushnil(L);
  lua_pushstring(L, result == PP_LINE_EOF ? "eof" : "interrupted");
  return 2;
}

/* pending() -> is more input there already? */
static int pending(lua_State *L) {
  struct pollfd p = {.fd = STDIN_FILENO, .events = POLLIN};

  lua_pushboolean(L, poll(&p, 1, 0) > 0);
  return 1;
}

/* columns() -> of the terminal that stdout is, or nil */
static int columns(lua_State *L) {
  struct winsize size;

  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0)
    return 0;
  lua_pushinteger(L, size.ws_col > 0 ? size.ws_col : 80);
  return 1;
}

static const luaL_Reg funcs[] = {
    {"read", read_line},
    {"pending", pending},
    {"columns", columns},
    {"files", pp_editor_files},
    {"jobs", pp_prompt_jobs},
    {"servers", pp_prompt_servers},
    {NULL, NULL},
};

/* Push what pp.shell.prompt makes of these: read, print, explain, complete. */
static int make(lua_State *L) {
  repl *r = lua_touserdata(L, 1);

  lua_getglobal(L, "require");
  lua_pushliteral(L, "pp.shell.prompt");
  lua_call(L, 1, 1);
  lua_getfield(L, -1, "new");
  luaL_newlib(L, funcs);
  lua_pushvalue(L, 2); /* a table to be filled; the editor knows it */
  lua_call(L, 2, 0);
  lua_pushboolean(L, r->edit);
  lua_setfield(L, 2, "edit");
  return 0;
}

/* --- the loop ------------------------------------------------------------- */

/* Call a function of the prompt with the n values on top, with traceback. */
static int call(lua_State *L, const char *name, int n, int results) {
  lua_getfield(L, 1, name);
  lua_insert(L, -n - 1);
  return pp_script_call(L, n, results);
}

/* The message on top goes to stderr, as the prompt explains it. */
static void report(lua_State *L) {
  if (lua_isstring(L, -1)) {
    lua_pushvalue(L, -1);
    if (call(L, "explain", 1, 1) == LUA_OK && lua_isstring(L, -1))
      lua_remove(L, -2);
    else
      lua_pop(L, 1);
  }
  pp_script_report(L, LUA_ERRRUN, NULL);
}

static void print_results(lua_State *L) {
  int n = lua_gettop(L) - 1;

  if (n == 0)
    return;
  if (!lua_checkstack(L, LUA_MINSTACK)) {
    fputs("too many results to print\n", stderr);
    return;
  }
  lua_getfield(L, 1, "print");
  lua_insert(L, 2);
  if (lua_pcall(L, n, 0, 0) != LUA_OK) {
    lua_pushfstring(L, "error calling 'print' (%s)",
                    luaL_tolstring(L, -1, NULL));
    report(L);
  }
}

/* Call the function on top: what was typed. */
static void evaluate(lua_State *L) {
  bool stopped;
  int status;

  pp_prompt_begin(L);
  status = pp_script_call(L, 0, LUA_MULTRET);
  stopped = pp_interrupt_was() || pp_interrupt_pending() == SIGINT;
  pp_interrupt_reset(L);
  if (stopped)
    pp_prompt_stop(L);
  if (status == LUA_OK)
    print_results(L);
  else
    report(L);
}

void pp_repl_run(lua_State *L) {
  repl r = {.L = L, .tty = isatty(STDIN_FILENO)};
  int failures = 0;

  the_repl = &r;
  lua_settop(L, 0);
  lua_newtable(L);
  r.edit = r.tty && pp_editor_open(L, 1);
  lua_pushcfunction(L, make);
  lua_pushlightuserdata(L, &r);
  lua_pushvalue(L, 1);
  if (pp_script_call(L, 2, 0) != LUA_OK) {
    pp_script_report(L, LUA_ERRRUN, "ppsh");
    failures = FAILURES;
  }
  pp_interrupt_patient(true);
  while (failures < FAILURES) {
    lua_settop(L, 1);
    pp_interrupt_reset(L);
    if (call(L, "next", 0, 1) != LUA_OK) { /* a bug, Ctrl-C, no memory */
      failures += !pp_interrupt_was();
      pp_script_report(L, LUA_ERRRUN, NULL);
      continue;
    }
    failures = 0;
    if (lua_isnil(L, -1))
      break;
    if (lua_isfunction(L, -1))
      evaluate(L);
    else if (lua_isstring(L, -1))
      report(L);
  }
  pp_interrupt_patient(false);
  lua_settop(L, 0);
  fputs("\n", stdout);
  fflush(stdout);
  free(r.line);
  the_repl = NULL;
}
