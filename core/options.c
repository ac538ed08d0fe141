/* SPDX-License-Identifier: MIT */
#include "options.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base.h"

const char pp_options_help[] =
    "usage: ppsh [options] [script [args]]\n"
    "A Lua 5.4 interpreter that runs jobs on every core you own.\n"
    "\n"
    "As lua(1):\n"
    "  -e STAT              execute the string STAT\n"
    "  -i                   show the prompt after the script\n"
    "  -l MOD               require MOD into the global MOD\n"
    "  -l G=MOD             require MOD into the global G\n"
    "  -v                   show Lua's version\n"
    "  -E                   ignore the environment's Lua variables\n"
    "  -W                   turn warnings on\n"
    "  --                   no more options\n"
    "  -                    no more options, and execute stdin\n"
    "\n"
    "Jobs:\n"
    "  -j N, --jobs N       local workers; 0: jobs run in this process, one\n"
    "                       by one (default: the CPUs it may use)\n"
    "  -H LIST, --hosts LIST\n"
    "                       remote hosts, [user@]host[:port][/workers],\n"
    "                       node sets (node[01-16,20]/8), @FILE; repeatable\n"
    "  --stats              print job statistics on stderr at exit\n"
    "  --progress[=always]  show progress on stderr while jobs run, if it is "
    "a\n"
    "                       terminal (or always)\n"
    "  --top                show a table of hosts and workers on stderr while\n"
    "                       jobs run, if it is a terminal\n"
    "  --trace FILE         write a timeline in the Chrome trace-event format\n"
    "  --report FILE        write a page that tells how the run went (HTML)\n"
    "  --log LEVEL          error, warn (default), info or debug\n"
    "\n"
    "Lines of stdin or of files, in place of a script:\n"
    "  --map EXPR           print EXPR of each line, in order; it may name\n"
    "                       line, i (its number), file, f (its fields)\n"
    "  --filter EXPR        print the lines, or map those, for which it holds\n"
    "  --reduce EXPR        reduce what there is to one value: EXPR of a and "
    "b\n"
    "  -F SEP, --fields SEP what separates fields: a character or a pattern\n"
    "                       (default: blanks)\n"
    "  --block SIZE         bytes that a worker is given at a time\n"
    "  --max-line SIZE      bytes of the longest line there may be (64M)\n"
    "\n"
    "Commands, in place of a script (see ppsh(1)):\n"
    "  --sh CMD             run CMD on each host of -H; or, with a "
    "placeholder\n"
    "                       ({} {.} {/} {//} {/.} {#} {1}), ::: or --each, "
    "for\n"
    "                       each line of stdin or argument, on all workers:\n"
    "                       ppsh --sh 'gzip -9 {}' ::: *.txt\n"
    "  --each               for each line, which stands behind CMD\n"
    "  --once               once on each host, or here, whatever CMD holds\n"
    "  --null, -0           lines end in zero bytes\n"
    "  --keep               output in the order of the lines\n"
    "  --line-buffer        pass lines on at once, not each job's output "
    "whole\n"
    "  --retries N          try a failing command N times in all\n"
    "  --timeout SECONDS    kill what runs longer\n"
    "  --halt WHEN,WHY=N    soon or now; fail, success or done; N or N%\n"
    "  --joblog FILE        log jobs as GNU parallel does\n"
    "  --resume             skip what is in that log\n"
    "  --resume-failed      skip what has succeeded by that log\n"
    "  --workdir DIR        where commands run\n"
    "  --push FILE          send this file or directory there first ({} too)\n"
    "  --fetch FILE         bring this one back afterwards ({} too)\n"
    "  --cleanup            remove both there\n"
    "  --fold               hosts that wrote the same are shown once\n"
    "  --fanout N           hosts at a time (64)\n"
    "\n"
    "  --help               show this\n"
    "  --version            show the version of all parts\n"
    "\n"
    "Exit status: 0; 1 after an error; 2 for a wrong command line; 130 after\n"
    "Ctrl-C; 128+n after signal n.\n";

static int usage_hint(void) {
  fputs("Try 'ppsh --help'.\n", stderr);
  return PP_EBAD;
}

static int unrecognized(const char *option) {
  fprintf(stderr, "ppsh: unrecognized option '%s'\n", option);
  return usage_hint();
}

static int needs_argument(const char *option) {
  fprintf(stderr, "ppsh: '%s' needs argument\n", option);
  return usage_hint();
}

static int bad_value(const char *option, const char *value, const char *want) {
  fprintf(stderr, "ppsh: bad value for %s: '%s' (%s)\n", option, value, want);
  return usage_hint();
}

static int add_action(pp_options *o, char kind, const char *arg) {
  pp_action *v = realloc(o->actions, (o->nactions + 1) * sizeof(*v));

  if (v == NULL)
    return PP_ENOMEM;
  o->actions = v;
  v[o->nactions].kind = kind;
  v[o->nactions].arg = arg;
  o->nactions++;
  return 0;
}

static int set_jobs(pp_options *o, const char *option, const char *value) {
  static const char want[] = "a number of workers >= 0";
  const char *p;
  long n = 0;

  for (p = value; *p >= '0' && *p <= '9' && n <= PP_JOBS_MAX; p++)
    n = n * 10 + (*p - '0');
  if (p > value && n > PP_JOBS_MAX)
    return bad_value(option, value, "at most 16000 workers");
  if (p == value || *p != '\0')
    return bad_value(option, value, want);
  o->jobs = (int)n;
  return 0;
}

static int add_hosts(pp_options *o, const char *option, const char *value) {
  const char **v;

  if (*value == '\0')
    return bad_value(option, value, "a list of hosts");
  v = realloc(o->hosts, (o->nhosts + 1) * sizeof(*v));
  if (v == NULL)
    return PP_ENOMEM;
  o->hosts = v;
  v[o->nhosts++] = value;
  return 0;
}

static int set_file(pp_options *o, const char *option, const char *value) {
  if (*value == '\0')
    return bad_value(option, value, "a file name");
  *(strcmp(option, "--trace") == 0 ? &o->trace : &o->report) = value;
  return 0;
}

static int set_log(pp_options *o, const char *option, const char *value) {
  static const char *const names[] = {"error", "warn", "info", "debug"};
  int i;

  for (i = 0; i < 4; i++) {
    if (strcmp(value, names[i]) == 0) {
      o->log_level = (pp_log_level)i;
      return 0;
    }
  }
  return bad_value(option, value, "error, warn, info or debug");
}

static int add_shell(pp_options *o, const char *option, const char *value) {
  static const char *const modes[] = {"--sh", "--map", "--filter", "--reduce"};
  pp_shell_option *v;

  v = realloc(o->shell, (o->nshell + 1) * sizeof(*v));
  if (v == NULL)
    return PP_ENOMEM;
  o->shell = v;
  v[o->nshell].name = strcmp(option, "-F") == 0 ? "fields" : option + 2;
  v[o->nshell++].value = value;
  for (size_t k = 0; k < sizeof(modes) / sizeof(*modes); k++)
    if (o->mode == NULL && strcmp(option, modes[k]) == 0)
      o->mode = modes[k] + 2;
  return 0;
}

/* Options of the shell that take no value. What their values mean is for
 * lua/pp/shell/ to say. */
static const char *const flags[] = {
    "--fold",   "--keep",    "--each",          "--once",        "--null",
    "--resume", "--cleanup", "--resume-failed", "--line-buffer",
};

/* Options that take a value: --name VALUE, --name=VALUE, -x VALUE, -xVALUE. */
static const struct valued {
  const char *name;
  char letter;
  int (*set)(pp_options *o, const char *option, const char *value);
} valued[] = {
    {"--jobs", 'j', set_jobs},    {"--hosts", 'H', add_hosts},
    {"--trace", 0, set_file},     {"--log", 0, set_log},
    {"--sh", 0, add_shell},       {"--map", 0, add_shell},
    {"--filter", 0, add_shell},   {"--reduce", 0, add_shell},
    {"--fields", 'F', add_shell}, {"--joblog", 0, add_shell},
    {"--retries", 0, add_shell},  {"--timeout", 0, add_shell},
    {"--halt", 0, add_shell},     {"--push", 0, add_shell},
    {"--fetch", 0, add_shell},    {"--report", 0, set_file},
    {"--block", 0, add_shell},    {"--max-line", 0, add_shell},
    {"--fanout", 0, add_shell},   {"--workdir", 0, add_shell},
};

/* The value of such an option standing at argv[*i], which it may move. */
static int set_valued(pp_options *o, const struct valued *v, int *i,
                      const char *option, const char *attached) {
  const char *value = attached;

  if (value == NULL) {
    value = o->argv[*i + 1];
    /* "-1" is a bad number, "--stats" a forgotten value. */
    if (value == NULL || strncmp(value, "--", 2) == 0)
      return needs_argument(option);
    ++*i;
  }
  return v->set(o, option, value);
}

static int long_option(pp_options *o, int *i) {
  const char *arg = o->argv[*i];
  size_t k;

  for (k = 0; k < sizeof(valued) / sizeof(*valued); k++) {
    const struct valued *v = &valued[k];
    size_t n = strlen(v->name);

    if (strncmp(arg, v->name, n) == 0 && (arg[n] == '\0' || arg[n] == '='))
      return set_valued(o, v, i, v->name, arg[n] == '=' ? arg + n + 1 : NULL);
  }
  for (k = 0; k < sizeof(flags) / sizeof(*flags); k++)
    if (strcmp(arg, flags[k]) == 0)
      return add_shell(o, flags[k], NULL);
  if (strcmp(arg, "--stats") == 0)
    o->stats = true;
  else if (strcmp(arg, "--top") == 0)
    o->top = true;
  else if (strcmp(arg, "--progress") == 0)
    o->progress = PP_PROGRESS_TTY;
  else if (strcmp(arg, "--progress=always") == 0)
    o->progress = PP_PROGRESS_ALWAYS;
  else if (strncmp(arg, "--progress=", 11) == 0)
    return bad_value("--progress", arg + 11, "always, or nothing");
  else if (strcmp(arg, "--help") == 0)
    o->help = true;
  else if (strcmp(arg, "--version") == 0)
    o->version = true;
  else
    return unrecognized(arg);
  return 0;
}

static int short_option(pp_options *o, int *i) {
  const char *arg = o->argv[*i];
  const char *rest = arg[2] != '\0' ? arg + 2 : NULL;
  size_t k;

  switch (arg[1]) {
  case 'e':
  case 'l':
    if (arg[1] == 'e')
      o->has_e = true;
    if (rest == NULL) {
      rest = o->argv[++*i];
      if (rest == NULL || rest[0] == '-')
        return needs_argument(arg);
    }
    return add_action(o, arg[1], rest);
  case 'i':
  case 'v':
    if (rest != NULL)
      return unrecognized(arg);
    o->show_lua_version = true;
    if (arg[1] == 'i')
      o->interactive = true;
    return 0;
  case '0':
    if (rest != NULL)
      return unrecognized(arg);
    return add_shell(o, "--null", NULL);
  case 'E':
    if (rest != NULL)
      return unrecognized(arg);
    o->noenv = true;
    return 0;
  case 'W':
    if (rest != NULL)
      return unrecognized(arg);
    return add_action(o, 'W', NULL);
  }
  for (k = 0; k < sizeof(valued) / sizeof(*valued); k++) {
    if (valued[k].letter != 0 && arg[1] == valued[k].letter) {
      char option[3] = {'-', valued[k].letter, '\0'};

      return set_valued(o, &valued[k], i, option, rest);
    }
  }
  return unrecognized(arg);
}

/* What is for commands and lines alone does not go with a script. */
static int check_shell(const pp_options *o) {
  if (o->mode != NULL || o->nshell == 0)
    return 0;
  fprintf(stderr, "ppsh: --%s goes with --sh or --map only\n",
          o->shell[0].name);
  return usage_hint();
}

int pp_options_parse(pp_options *o, int argc, char **argv) {
  int i, r = 0;

  memset(o, 0, sizeof(*o));
  o->jobs = -1;
  o->log_level = PP_LOG_WARN;
  o->argc = argc;
  o->argv = argv;
  o->progname = argc > 0 && argv[0][0] != '\0' ? argv[0] : "ppsh";
  for (i = 1; i < argc && r == 0; i++) {
    const char *arg = argv[i];

    if (arg[0] != '-' || arg[1] == '\0')
      break; /* the script, or "-" */
    if (strcmp(arg, "--") == 0) {
      i++;
      break;
    }
    r = arg[1] == '-' ? long_option(o, &i) : short_option(o, &i);
  }
  o->script = i < argc ? i : argc;
  return r == 0 ? check_shell(o) : r;
}

void pp_options_clear(pp_options *o) {
  free(o->hosts);
  free(o->shell);
  free(o->actions);
  memset(o, 0, sizeof(*o));
}
