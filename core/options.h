/* SPDX-License-Identifier: MIT */
/*
 * options: the command line of ppsh.
 *
 * lua(1)'s options with lua(1)'s meaning, and our own among them, all before
 * the script's name.
 */
#ifndef PP_OPTIONS_H
#define PP_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>

enum { PP_JOBS_MAX = 16000 }; /* as pp.Server's ncpus */

typedef enum pp_log_level {
  PP_LOG_ERROR,
  PP_LOG_WARN,
  PP_LOG_INFO,
  PP_LOG_DEBUG,
} pp_log_level;

typedef enum pp_progress {
  PP_PROGRESS_NO,
  PP_PROGRESS_TTY, /* only when stderr is a terminal */
  PP_PROGRESS_ALWAYS,
} pp_progress;

/* One -e, -l or -W; they are carried out in order. */
typedef struct pp_action {
  char kind;       /* 'e', 'l' or 'W' */
  const char *arg; /* borrowed from argv; NULL for 'W' */
} pp_action;

/* An option of the shell (lua/pp/shell/): --name, or --name=value. */
typedef struct pp_shell_option {
  const char *name;  /* without dashes; a constant */
  const char *value; /* borrowed from argv; NULL: it takes none */
} pp_shell_option;

/* Zeroed is empty. Strings are borrowed from argv, arrays owned. */
typedef struct pp_options {
  int jobs; /* -j; -1: not given */
  const char **hosts;
  size_t nhosts; /* -H, in order */
  bool stats;
  pp_progress progress;
  const char *trace, *report; /* NULL: none */
  bool top;
  const char *mode; /* what is run in place of a script: "sh", "map", "filter"
                       or "reduce", the first that is given; NULL: none */
  pp_shell_option *shell; /* in order, modes included */
  size_t nshell;
  pp_log_level log_level;

  bool help, version;    /* --help, --version */
  bool interactive;      /* -i */
  bool show_lua_version; /* -v, -i */
  bool noenv;            /* -E */
  bool has_e;            /* there is a -e */
  pp_action *actions;
  size_t nactions;

  char **argv;
  int argc;
  int script;           /* its index in argv; argc when there is none */
  const char *progname; /* what errors begin with */
} pp_options;

/*
 * Read the command line. Returns 0, or PP_EBAD after a line on stderr said
 * what is wrong with it, or PP_ENOMEM. Clear *o in either case.
 */
int pp_options_parse(pp_options *o, int argc, char **argv);
void pp_options_clear(pp_options *o);

/* What --help prints. */
extern const char pp_options_help[];

#endif
