/* SPDX-License-Identifier: MIT */
#include "editor.h"

#ifdef PPSH_HAVE_READLINE

#include <fcntl.h>
#include <lauxlib.h>
#include <lualib.h>
#include <poll.h>
#include <readline/history.h>
#include <readline/readline.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "interrupt.h"
#include "lazylib.h"

/* --- the library --------------------------------------------------------- */

/* What is used of it, functions and variables. */
#define SYMBOLS(X)                                                             \
  X(rl_callback_handler_install)                                               \
  X(rl_callback_handler_remove)                                                \
  X(rl_callback_read_char)                                                     \
  X(rl_insert_text)                                                            \
  X(rl_completion_matches)                                                     \
  X(using_history)                                                             \
  X(stifle_history)                                                            \
  X(read_history)                                                              \
  X(history_truncate_file)                                                     \
  X(add_history)                                                               \
  X(append_history)                                                            \
  X(history_get)                                                               \
  X(history_length)                                                            \
  X(history_base)                                                              \
  X(rl_line_buffer)                                                            \
  X(rl_outstream)                                                              \
  X(rl_readline_name)                                                          \
  X(rl_catch_signals)                                                          \
  X(rl_basic_word_break_characters)                                            \
  X(rl_attempted_completion_function)                                          \
  X(rl_attempted_completion_over)                                              \
  X(rl_completion_suppress_append)

static struct { SYMBOLS(PP_LAZY_FIELD) } lib;

static bool open_library(void) {
  void *h =
      dlopen("libreadline.so." PP_LAZY_STRING(RL_VERSION_MAJOR), RTLD_LAZY);

  return h != NULL SYMBOLS(PP_LAZY_FIND);
}

enum { HISTORY_LINES = 2000 };

/* readline's callbacks carry no argument. */
static struct {
  char *line;
  bool done;
  char *history; /* path, NULL: not kept */
  lua_State *L;  /* for completion */
} rl;

static void got_line(char *line) {
  lib.rl_callback_handler_remove();
  rl.line = line;
  rl.done = true;
}

static void make_parents(char *path) {
  char *p;

  for (p = strchr(path + 1, '/'); p != NULL; p = strchr(p + 1, '/')) {
    *p = '\0';
    mkdir(path, 0700);
    *p = '/';
  }
}

static void open_history(void) {
  const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
  int n = -1;

  if (state != NULL && state[0] == '/')
    n = asprintf(&rl.history, "%s/ppsh/history", state);
  else if (home != NULL && home[0] == '/')
    n = asprintf(&rl.history, "%s/.local/state/ppsh/history", home);
  if (n < 0) {
    rl.history = NULL;
    return;
  }
  lib.using_history();
  lib.stifle_history(HISTORY_LINES);
  if (lib.read_history(rl.history) == 0)
    lib.history_truncate_file(rl.history, HISTORY_LINES);
}

/* Written line by line: no ending can lose it, and prompts can share it. */
static void keep_line(const char *line) {
  HIST_ENTRY *last;
  int fd;

  if (line[strspn(line, " \t")] == '\0')
    return;
  last = *lib.history_length > 0
             ? lib.history_get(*lib.history_base + *lib.history_length - 1)
             : NULL;
  if (last != NULL && strcmp(last->line, line) == 0)
    return;
  lib.add_history(line);
  if (rl.history == NULL)
    return;
  make_parents(rl.history);
  fd = open(rl.history, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (fd >= 0) {
    close(fd);
    lib.append_history(1, rl.history);
  }
}

/* Pending input, so that reading a character will not wait. */
static bool readable(int fd) {
  struct pollfd p = {.fd = fd, .events = POLLIN};

  return poll(&p, 1, 0) > 0;
}

/* --- completion: globals, and fields of tables reached without calls ------ */

/* Push the value of the path up to `end` ("string." or "a.b:"), starting at
 * globals; false if it is not a table or has none. */
static bool push_path(lua_State *L, const char *p, const char *end) {
  lua_pushglobaltable(L);
  while (p < end) {
    const char *q = p + strcspn(p, ".:");

    lua_pushlstring(L, p, (size_t)(q - p));
    lua_rawget(L, -2);
    lua_remove(L, -2);
    if (lua_type(L, -1) == LUA_TSTRING) { /* s:up<Tab> */
      lua_getglobal(L, LUA_STRLIBNAME);
      lua_remove(L, -2);
    }
    if (!lua_istable(L, -1) && luaL_getmetafield(L, -1, "__index") != LUA_TNIL)
      lua_remove(L, -2);
    if (!lua_istable(L, -1))
      return false;
    p = q + 1;
  }
  return true;
}

static const char *const keywords[] = {
    "and",      "break",  "do",   "else", "elseif", "end",   "false", "for",
    "function", "goto",   "if",   "in",   "local",  "nil",   "not",   "or",
    "repeat",   "return", "then", "true", "until",  "while",
};

/* List every completion of the text at stack 1 into the table at stack 2. */
static int list_matches(lua_State *L) {
  size_t len, i, n = 0;
  const char *text = lua_tolstring(L, 1, &len), *tail = text + len;
  int depth;

  while (tail > text && tail[-1] != '.' && tail[-1] != ':')
    tail--;
  if (!push_path(L, text, tail))
    return 0;
  if (tail == text) {
    for (i = 0; i < sizeof(keywords) / sizeof(*keywords); i++) {
      if (strncmp(keywords[i], text, len) == 0) {
        lua_pushstring(L, keywords[i]);
        lua_rawseti(L, 2, (lua_Integer)++n);
      }
    }
  }
  for (depth = 0; depth < 10; depth++) { /* the table, then its __index */
    lua_pushnil(L);
    while (lua_next(L, 3) != 0) {
      lua_pop(L, 1);
      if (lua_type(L, -1) == LUA_TSTRING) {
        const char *name = lua_tostring(L, -1);

        if (strncmp(name, tail, strlen(tail)) == 0 &&
            (name[0] != '_' || tail[0] == '_')) {
          lua_pushlstring(L, text, (size_t)(tail - text));
          lua_pushvalue(L, -2);
          lua_concat(L, 2);
          lua_rawseti(L, 2, (lua_Integer)++n);
        }
      }
    }
    if (luaL_getmetafield(L, 3, "__index") != LUA_TTABLE)
      break;
    lua_replace(L, 3);
    lua_settop(L, 3);
  }
  return 0;
}

/* readline asks again and again until NULL; state is 0 the first time. */
static char *next_match(const char *text, int state) {
  static int i;
  lua_State *L = rl.L;
  int top = lua_gettop(L);
  char *match = NULL;

  if (state == 0) {
    i = 0;
    lua_newtable(L);
    lua_pushvalue(L, -1);
    lua_setfield(L, LUA_REGISTRYINDEX, "ppsh.matches");
    lua_pushcfunction(L, list_matches);
    lua_insert(L, -2);
    lua_pushstring(L, text);
    lua_insert(L, -2);
    lua_pcall(L, 2, 0, 0);
    lua_settop(L, top);
  }
  if (lua_getfield(L, LUA_REGISTRYINDEX, "ppsh.matches") == LUA_TTABLE &&
      lua_rawgeti(L, -1, ++i) == LUA_TSTRING)
    match = strdup(lua_tostring(L, -1));
  lua_settop(L, top);
  return match;
}

static char **complete(const char *text, int start, int end) {
  (void)end;
  *lib.rl_attempted_completion_over = 1; /* no file names */
  *lib.rl_completion_suppress_append = 1;
  if (start > 0 && text[0] == '\0' &&
      strspn(*lib.rl_line_buffer, " \t") >= (size_t)start) {
    lib.rl_insert_text("  "); /* Tab in front of everything indents */
    return NULL;
  }
  return lib.rl_completion_matches(text, next_match);
}

bool pp_editor_open(lua_State *L) {
  if (!open_library())
    return false;
  rl.L = L;
  *lib.rl_readline_name = "ppsh";
  *lib.rl_catch_signals = 0;
  *lib.rl_basic_word_break_characters = " \t\n\"\\'><=;+-*/%^~#{}()[],|&?";
  *lib.rl_attempted_completion_function = complete;
  open_history();
  return true;
}

int pp_editor_line(lua_State *L, const char *prompt, pp_repl_wait wait) {
  rl.line = NULL;
  rl.done = false;
  lib.rl_callback_handler_install(prompt, got_line);
  while (!rl.done) {
    int sig;

    if (wait(L, STDIN_FILENO) < 0) {
      lib.rl_callback_handler_remove();
      return PP_LINE_EOF;
    }
    sig = pp_interrupt_pending();
    if (sig == 0 && !readable(STDIN_FILENO))
      continue;
    if (sig != 0) {
      if (sig == SIGINT) {
        fputs("^C\n", *lib.rl_outstream);
        fflush(*lib.rl_outstream);
      }
      lib.rl_callback_handler_remove();
      return PP_LINE_INTERRUPTED;
    }
    lib.rl_callback_read_char();
  }
  if (rl.line == NULL)
    return PP_LINE_EOF;
  keep_line(rl.line);
  lua_pushstring(L, rl.line);
  free(rl.line);
  return PP_LINE_OK;
}

#else

bool pp_editor_open(lua_State *L) {
  (void)L;
  return false;
}

int pp_editor_line(lua_State *L, const char *prompt, pp_repl_wait wait) {
  (void)L, (void)prompt, (void)wait;
  return PP_LINE_EOF;
}

#endif
