/* SPDX-License-Identifier: MIT */
#include "editor.h"

#include <dirent.h>
#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { FILES_MOST = 10000 };

/* --- file names ----------------------------------------------------------- */

static bool is_directory(DIR *d, const struct dirent *f) {
  struct stat st;

  if (f->d_type != DT_LNK && f->d_type != DT_UNKNOWN)
    return f->d_type == DT_DIR;
  return fstatat(dirfd(d), f->d_name, &st, 0) == 0 && S_ISDIR(st.st_mode);
}

int pp_editor_files(lua_State *L) {
  const char *path = luaL_checkstring(L, 1), *name = strrchr(path, '/');
  const char *home = getenv("HOME");
  const struct dirent *f;
  lua_Integer n = 0;
  DIR *d;

  name = name != NULL ? name + 1 : path;
  lua_pushlstring(L, path, (size_t)(name - path));
  lua_newtable(L);
  if (name == path)
    d = opendir(".");
  else if (path[0] == '~' && path[1] == '/' && home != NULL)
    d = opendir(lua_pushfstring(L, "%s%s", home, lua_tostring(L, 2) + 1));
  else
    d = opendir(lua_tostring(L, 2));
  lua_settop(L, 3);
  if (d == NULL)
    return 1;
  while (n < FILES_MOST && (f = readdir(d)) != NULL) {
    if (strncmp(f->d_name, name, strlen(name)) != 0 ||
        (f->d_name[0] == '.' && name[0] != '.') ||
        strcmp(f->d_name, ".") == 0 || strcmp(f->d_name, "..") == 0)
      continue;
    lua_pushfstring(L, "%s%s%s", lua_tostring(L, 2), f->d_name,
                    is_directory(d, f) ? "/" : "");
    lua_rawseti(L, 3, ++n);
  }
  closedir(d);
  return 1;
}

#ifdef PPSH_HAVE_READLINE

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <readline/history.h>
#include <readline/readline.h>
#include <signal.h>
#include <unistd.h>
#include <wchar.h>

#include "engine.h"
#include "interrupt.h"
#include "lazylib.h"
#include "prompt.h"

/* --- the library ---------------------------------------------------------- */

/* What is used of it, functions and variables. */
#define SYMBOLS(X)                                                             \
  X(rl_callback_handler_install)                                               \
  X(rl_callback_handler_remove)                                                \
  X(rl_callback_read_char)                                                     \
  X(rl_callback_sigcleanup)                                                    \
  X(rl_prep_terminal)                                                          \
  X(rl_deprep_terminal)                                                        \
  X(rl_clear_visible_line)                                                     \
  X(rl_on_new_line)                                                            \
  X(rl_redisplay)                                                              \
  X(rl_forced_update_display)                                                  \
  X(rl_get_screen_size)                                                        \
  X(rl_display_prompt)                                                         \
  X(rl_reset_screen_size)                                                      \
  X(rl_insert_text)                                                            \
  X(rl_completion_matches)                                                     \
  X(rl_display_match_list)                                                     \
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
  X(rl_point)                                                                  \
  X(rl_end)                                                                    \
  X(rl_outstream)                                                              \
  X(rl_readline_name)                                                          \
  X(rl_catch_signals)                                                          \
  X(rl_catch_sigwinch)                                                         \
  X(rl_change_environment)                                                     \
  X(rl_basic_word_break_characters)                                            \
  X(rl_attempted_completion_function)                                          \
  X(rl_attempted_completion_over)                                              \
  X(rl_completion_append_character)                                            \
  X(rl_completion_suppress_quote)                                              \
  X(rl_completion_display_matches_hook)                                        \
  X(rl_sort_completion_matches)

static struct { SYMBOLS(PP_LAZY_FIELD) } lib;

static bool open_library(void) {
  void *h =
      dlopen("libreadline.so." PP_LAZY_STRING(RL_VERSION_MAJOR), RTLD_LAZY);

  return h != NULL SYMBOLS(PP_LAZY_FIND);
}

enum {
  HISTORY_LINES = 2000,
  HISTORY_BYTES = 65536 /* what is longer was hardly meant to be kept */
};

/* readline's callbacks carry no argument. */
static struct {
  char *line;
  bool done, dumb, begun;
  volatile sig_atomic_t resized, stopped; /* SIGWINCH, SIGTSTP came */
  char *history;                          /* path, NULL: not kept */
  lua_State *L;                           /* for completion */
  int next;                               /* match to be handed out */
} rl;

/* Where completion is found; and what it found. */
static const char complete_key = 0, matches_key = 0;

static void got_line(char *line) {
  lib.rl_callback_handler_remove();
  rl.line = line;
  rl.done = true;
}

/* --- history -------------------------------------------------------------- */

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

  if (line[strspn(line, " \t\n")] == '\0' || strlen(line) > HISTORY_BYTES)
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

/* --- completion ----------------------------------------------------------- */

/* readline asks again and again until NULL; state is 0 the first time. */
static char *next_match(const char *text, int state) {
  lua_State *L = rl.L;
  int top = lua_gettop(L);
  char *match = NULL;

  (void)text;
  if (state == 0)
    rl.next = 0;
  lua_checkstack(L, 3);
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &matches_key) == LUA_TTABLE &&
      lua_rawgeti(L, -1, ++rl.next) == LUA_TSTRING)
    match = strdup(lua_tostring(L, -1));
  lua_settop(L, top);
  return match;
}

/* (line, word): keeps the matches; returns what goes behind. */
static int find_matches(lua_State *L) {
  lua_rawgetp(L, LUA_REGISTRYINDEX, &complete_key);
  lua_getfield(L, -1, "complete");
  lua_insert(L, 1);
  lua_settop(L, 3);
  lua_call(L, 2, 2);
  lua_pushvalue(L, 1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &matches_key);
  return 1;
}

static char **complete(const char *text, int start, int end) {
  lua_State *L = rl.L;
  int top = lua_gettop(L);
  bool found;

  *lib.rl_attempted_completion_over = 1; /* no file names */
  *lib.rl_completion_append_character = '\0';
  *lib.rl_completion_suppress_quote = 1;
  if (start > 0 && text[0] == '\0' &&
      strspn(*lib.rl_line_buffer, " \t") >= (size_t)start) {
    lib.rl_insert_text("  "); /* Tab in front of everything indents */
    return NULL;
  }
  lua_checkstack(L, 5);
  lua_pushcfunction(L, find_matches);
  lua_pushlstring(L, *lib.rl_line_buffer, (size_t)end);
  lua_pushstring(L, text);
  found = lua_pcall(L, 2, 1, 0) == LUA_OK;
  if (found && lua_isstring(L, -1))
    *lib.rl_completion_append_character = lua_tostring(L, -1)[0];
  lua_settop(L, top);
  return found ? lib.rl_completion_matches(text, next_match) : NULL;
}

/* Show what may come next, without what all of them begin with: a.b.c as c. */
static void display(char **matches, int n, int max) {
  char **shown = calloc((size_t)n + 2, sizeof *shown);
  size_t skip = 0;

  for (const char *p = matches[0]; *p != '\0'; p++)
    if (strchr(".:/", *p) != NULL)
      skip = (size_t)(p - matches[0]) + 1;
  for (int i = 0; i <= n && shown != NULL; i++)
    shown[i] = matches[i] + (strlen(matches[i]) > skip ? skip : 0);
  if (shown != NULL)
    lib.rl_display_match_list(shown, n, max - (int)skip);
  lib.rl_forced_update_display();
  free(shown);
}

/* --- the line on the screen ----------------------------------------------- */

static void hide(void) {
  if (rl.dumb)
    fputs("\n", *lib.rl_outstream);
  else
    lib.rl_clear_visible_line();
  fflush(*lib.rl_outstream);
}

static void show(void) {
  lib.rl_on_new_line();
  lib.rl_redisplay();
  fflush(*lib.rl_outstream);
}

/* Columns that n bytes take, from column `at` on; where tabs go. */
static size_t columns(const char *s, size_t n, size_t at) {
  mbstate_t state = {0};

  while (n > 0) {
    wchar_t c;
    size_t k = mbrtowc(&c, s, n, &state);
    int width = 1;

    if (k == (size_t)-1 || k == (size_t)-2 || k == 0) {
      memset(&state, 0, sizeof state);
      k = 1;
    } else {
      width = c == L'\t' ? 8 - (int)(at % 8) : c < ' ' ? 2 : wcwidth(c);
    }
    at += width > 0 ? (size_t)width : 0;
    s += k;
    n -= k;
  }
  return at;
}

/*
 * The terminal has another width, and has broken the line anew at its margin,
 * as most do: go up to where the line begins now, and draw it again from there.
 */
static void redraw_resized(void) {
  const char *prompt = *lib.rl_display_prompt, *last = strrchr(prompt, '\n');
  size_t at = 0;
  int rows, cols;

  if (rl.dumb) {
    lib.rl_reset_screen_size();
    return;
  }
  for (prompt = last != NULL ? last + 1 : prompt; *prompt != '\0';) {
    const char *visible = prompt + strcspn(prompt, "\1");

    at = columns(prompt, (size_t)(visible - prompt), at);
    prompt = visible + strcspn(visible, "\2");
    prompt += *prompt != '\0';
  }
  at = columns(*lib.rl_line_buffer, (size_t)*lib.rl_point, at);
  lib.rl_reset_screen_size();
  lib.rl_get_screen_size(&rows, &cols);
  fputs("\r", *lib.rl_outstream);
  if (cols > 0 && at / (size_t)cols > 0)
    fprintf(*lib.rl_outstream, "\033[%zuA", at / (size_t)cols);
  fputs("\033[J", *lib.rl_outstream);
  lib.rl_on_new_line();
  lib.rl_forced_update_display();
  fflush(*lib.rl_outstream);
}

static void on_resize(int sig) {
  (void)sig;
  rl.resized = 1;
  pp_engine_wake();
}

static void on_stop(int sig) {
  (void)sig;
  rl.stopped = 1;
  pp_engine_wake();
}

static bool due(void) { return rl.resized || rl.stopped; }

static void catch_resize(void) {
  struct sigaction sa = {.sa_handler = on_resize, .sa_flags = SA_RESTART};

  sigaction(SIGWINCH, &sa, NULL);
}

/* Ctrl-Z while a line is typed: true if it is caught now, *old what was. */
static bool catch_stop(struct sigaction *old) {
  struct sigaction sa = {.sa_handler = on_stop, .sa_flags = SA_RESTART};

  return sigaction(SIGTSTP, NULL, old) == 0 && old->sa_handler != SIG_IGN &&
         sigaction(SIGTSTP, &sa, NULL) == 0;
}

/* Stop, the terminal as others expect it; go on where the line was. */
static void stop(const struct sigaction *old) {
  struct sigaction ours;

  hide();
  lib.rl_deprep_terminal();
  sigaction(SIGTSTP, old, &ours);
  raise(SIGTSTP);
  sigaction(SIGTSTP, &ours, NULL);
  lib.rl_prep_terminal(1);
  lib.rl_reset_screen_size();
  show();
}

bool pp_editor_open(lua_State *L, int with) {
  const char *term = getenv("TERM");

  if (!open_library())
    return false;
  rl.L = L;
  rl.dumb = term == NULL || *term == '\0' || strcmp(term, "dumb") == 0;
  lua_pushvalue(L, with);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &complete_key);
  *lib.rl_readline_name = "ppsh";
  *lib.rl_catch_signals = 0;
  *lib.rl_catch_sigwinch = 0;
  *lib.rl_change_environment = 0;
  *lib.rl_sort_completion_matches = 1;
  *lib.rl_basic_word_break_characters = " \t\n\"\\'><=;+-*/%^~#{}()[],|&?!@";
  *lib.rl_attempted_completion_function = complete;
  *lib.rl_completion_display_matches_hook = display;
  open_history();
  catch_resize();
  return true;
}

/* Pending input, so that reading a character will not wait. */
static bool readable(int fd) {
  struct pollfd p = {.fd = fd, .events = POLLIN};

  return poll(&p, 1, 0) > 0;
}

/* Leave the line where it is, and begin another. */
static void abandon(bool mark) {
  *lib.rl_point = *lib.rl_end;
  lib.rl_redisplay();
  if (mark) {
    fputs("^C\n", *lib.rl_outstream);
    fflush(*lib.rl_outstream);
  }
  lib.rl_callback_sigcleanup();
  lib.rl_callback_handler_remove();
}

int pp_editor_line(lua_State *L, const char *prompt) {
  static const pp_line line = {hide, show, due};
  struct sigaction old;
  bool caught;
  int result = PP_LINE_EOF;

  rl.line = NULL;
  rl.done = false;
  rl.resized = rl.stopped = 0;
  if (rl.begun) /* it may have changed since */
    lib.rl_reset_screen_size();
  rl.begun = true;
  lib.rl_callback_handler_install(prompt, got_line);
  caught = catch_stop(&old);
  while (!rl.done) {
    int sig;

    pp_prompt_wait(L, STDIN_FILENO, &line);
    if (rl.resized) {
      rl.resized = 0;
      redraw_resized();
    }
    if (rl.stopped) {
      rl.stopped = 0;
      stop(&old);
    }
    sig = pp_interrupt_pending();
    if (sig == 0 && !readable(STDIN_FILENO))
      continue;
    if (sig != 0) {
      abandon(sig == SIGINT);
      result = PP_LINE_INTERRUPTED;
      break;
    }
    do { /* all that is there: waiting may bring much to be shown */
      lib.rl_callback_read_char();
    } while (!rl.done && pp_interrupt_pending() == 0 && readable(STDIN_FILENO));
  }
  if (caught)
    sigaction(SIGTSTP, &old, NULL);
  if (rl.line == NULL)
    return result;
  keep_line(rl.line);
  lua_pushstring(L, rl.line);
  free(rl.line);
  return PP_LINE_OK;
}

#else

bool pp_editor_open(lua_State *L, int with) {
  (void)L, (void)with;
  return false;
}

int pp_editor_line(lua_State *L, const char *prompt) {
  (void)L, (void)prompt;
  return PP_LINE_EOF;
}

#endif
