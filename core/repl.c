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

#include "interrupt.h"
#include "script.h"

#ifdef PPSH_HAVE_READLINE
#include <fcntl.h>
#include <readline/history.h>
#include <readline/readline.h>
#include <sys/stat.h>
#endif

enum { LINE_OK, LINE_EOF, LINE_INTERRUPTED };

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

/* --- readline ------------------------------------------------------------ */

#ifdef PPSH_HAVE_READLINE

enum { HISTORY_LINES = 2000 };

/* readline's callbacks carry no argument. */
static struct {
  char *line;
  bool done;
  char *history; /* path, NULL: not kept */
  lua_State *L;  /* for completion */
} rl;

static void got_line(char *line) {
  rl_callback_handler_remove();
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
  using_history();
  stifle_history(HISTORY_LINES);
  if (read_history(rl.history) == 0)
    history_truncate_file(rl.history, HISTORY_LINES);
}

/* Written line by line: no ending can lose it, and prompts can share it. */
static void keep_line(const char *line) {
  HIST_ENTRY *last;
  int fd;

  if (line[strspn(line, " \t")] == '\0')
    return;
  last = history_length > 0 ? history_get(history_base + history_length - 1)
                            : NULL;
  if (last != NULL && strcmp(last->line, line) == 0)
    return;
  add_history(line);
  if (rl.history == NULL)
    return;
  make_parents(rl.history);
  fd = open(rl.history, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (fd >= 0) {
    close(fd);
    append_history(1, rl.history);
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
  rl_attempted_completion_over = 1; /* no file names */
  rl_completion_suppress_append = 1;
  if (start > 0 && text[0] == '\0' &&
      strspn(rl_line_buffer, " \t") >= (size_t)start) {
    rl_insert_text("  "); /* Tab in front of everything indents */
    return NULL;
  }
  return rl_completion_matches(text, next_match);
}

static void open_editor(lua_State *L) {
  rl.L = L;
  rl_readline_name = "ppsh";
  rl_catch_signals = 0;
  rl_basic_word_break_characters = " \t\n\"\\'><=;+-*/%^~#{}()[],|&?";
  rl_attempted_completion_function = complete;
  open_history();
}

static int edit_line(repl *r, const char *prompt) {
  rl.line = NULL;
  rl.done = false;
  rl_callback_handler_install(prompt, got_line);
  while (!rl.done) {
    int sig;

    if (r->wait(r->L, STDIN_FILENO) < 0) {
      rl_callback_handler_remove();
      return LINE_EOF;
    }
    sig = pp_interrupt_pending();
    if (sig == 0 && !readable(STDIN_FILENO))
      continue;
    if (sig != 0) {
      if (sig == SIGINT) {
        fputs("^C\n", rl_outstream);
        fflush(rl_outstream);
      }
      rl_callback_handler_remove();
      interrupted(r);
      return LINE_INTERRUPTED;
    }
    rl_callback_read_char();
  }
  if (rl.line == NULL)
    return LINE_EOF;
  keep_line(rl.line);
  lua_pushstring(r->L, rl.line);
  free(rl.line);
  return LINE_OK;
}

#endif

/* --- lines --------------------------------------------------------------- */

static int plain_line(repl *r, const char *prompt) {
  ssize_t n;

  fputs(prompt, stdout);
  fflush(stdout);
  if (isatty(STDIN_FILENO) && r->wait(r->L, STDIN_FILENO) < 0)
    return LINE_EOF;
  n = interrupted(r) ? -2 : getline(&r->line, &r->size, stdin);
  if (n < 0) {
    if (n == -2 || interrupted(r)) {
      clearerr(stdin);
      fputs("\n", stdout);
      return LINE_INTERRUPTED;
    }
    return LINE_EOF;
  }
  if (n > 0 && r->line[n - 1] == '\n')
    n--;
  lua_pushlstring(r->L, r->line, (size_t)n);
  return LINE_OK;
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
#ifdef PPSH_HAVE_READLINE
  if (r->edit)
    result = edit_line(r, prompt);
  else
#endif
    result = plain_line(r, prompt);
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
 * Read one statement, over as many lines as it needs. On LINE_OK, *status is
 * what loading it gave and the chunk or message has been pushed.
 */
static int read_statement(repl *r, int *status) {
  lua_State *L = r->L;
  int result = read_line(r, true);
  const char *line;
  size_t len;

  if (result != LINE_OK)
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
    return LINE_OK;
  }
  lua_pop(L, 1);
  for (;;) {
    line = lua_tolstring(L, -1, &len);
    *status = load(L, line, len);
    if (!incomplete(L, *status))
      break;
    result = read_line(r, false);
    if (result == LINE_EOF)
      break; /* the message stands */
    if (result != LINE_OK) {
      lua_pop(L, 2);
      return result;
    }
    lua_remove(L, -2);
    lua_pushliteral(L, "\n");
    lua_insert(L, -2);
    lua_concat(L, 3);
  }
  lua_remove(L, -2);
  return LINE_OK;
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

#ifdef PPSH_HAVE_READLINE
  r.edit = isatty(STDIN_FILENO);
  if (r.edit)
    open_editor(L);
#endif
  for (;;) {
    lua_settop(L, 0);
    pp_interrupt_reset(L);
    result = read_statement(&r, &status);
    if (result == LINE_EOF)
      break;
    if (result == LINE_INTERRUPTED)
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
