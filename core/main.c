/* SPDX-License-Identifier: MIT */
/*
 * main: the program ppsh, in the order of its life: descriptors, options, the
 * state, the engine (which forks before any user code runs), the script, the
 * end.
 */
#include <errno.h>
#include <fcntl.h>
#include <lauxlib.h>
#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include <uv.h>

#include "agent.h"
#include "ask.h"
#include "base.h"
#include "build_id.h"
#include "engine.h"
#include "host.h"
#include "interrupt.h"
#include "lua_pp.h"
#include "net.h"
#include "options.h"
#include "repl.h"
#include "script.h"
#include "state.h"
#include "zygote.h"

enum { EXIT_USAGE = 2 };

/*
 * A standard descriptor that is closed would be taken by the first thing we
 * open. Put /dev/null there, the wrong way round: a write to what was closed
 * still fails.
 */
static void reserve_descriptors(void) {
  int fd;

  for (fd = 0; fd <= 2; fd++)
    if (fcntl(fd, F_GETFD) < 0 && errno == EBADF &&
        open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY) != fd)
      _exit(EXIT_FAILURE);
}

/* --- the end ------------------------------------------------------------- */

/*
 * Returns 0, or the errno for which what was printed is not on stdout. print
 * flushes, and drops what it could not write: then the reason is asked again.
 */
static int flush_stdout(void) {
  struct pollfd p = {.fd = STDOUT_FILENO, .events = POLLOUT};
  struct statvfs fs;

  errno = 0;
  if (fflush(stdout) == 0 && !ferror(stdout))
    return 0;
  if (errno == 0 && write(STDOUT_FILENO, "", 0) == 0) {
    errno = EIO;
    if (poll(&p, 1, 0) == 1 && p.revents & POLLERR)
      errno = EPIPE; /* nobody reads it */
    else if (fstatvfs(STDOUT_FILENO, &fs) == 0 && fs.f_blocks > 0 &&
             fs.f_bavail == 0)
      errno = ENOSPC;
  }
  return errno;
}

/* Runs at exit(), from wherever; forked children that exit pass it by. */
static void at_end(int status, void *owner) {
  static bool ended;
  int final, sig, error;

  if (getpid() != (pid_t)(intptr_t)owner || ended)
    return;
  ended = true;
  sig = pp_interrupt_ending();
  error = sig == SIGPIPE ? 0 : flush_stdout();
  final = pp_engine_end(sig != 0 ? 128 + sig : status);
  if (error == 0)
    error = flush_stdout();
  sig = pp_interrupt_ending(); /* flushing may have been the last straw */
  if (sig == SIGPIPE)
    pp_interrupt_die_of_pipe();
  if (error != 0) {
    fprintf(stderr, "ppsh: cannot write to stdout: %s\n", strerror(error));
    if (final == 0)
      final = EXIT_FAILURE;
  }
  if (final != status) {
    fflush(NULL);
    _exit(final);
  }
}

#ifdef __GLIBC__
static void register_end(void) { on_exit(at_end, (void *)(intptr_t)getpid()); }
#else
/* Without on_exit the status given to os.exit is not known there. */
static int exit_status;
static pid_t owner;
static void at_end_plain(void) { at_end(exit_status, (void *)(intptr_t)owner); }
static void register_end(void) {
  owner = getpid();
  atexit(at_end_plain);
}
#endif

/* --- the run ------------------------------------------------------------- */

typedef struct run {
  const pp_options *o;
  int status;
} run;

static void print_lua_version(void) {
  fputs(LUA_COPYRIGHT "\n", stdout);
  fflush(stdout);
}

static int run_init(lua_State *L, const pp_options *o) {
  static const char *const names[] = {"=LUA_INIT_5_4", "=LUA_INIT"};
  const char *init = NULL;
  int i, status;

  for (i = 0; i < 2 && init == NULL; i++)
    init = getenv(names[i] + 1);
  if (init == NULL)
    return 0;
  if (init[0] == '@')
    status = pp_script_file(L, init + 1);
  else
    status = pp_script_string(L, init, names[i - 1]);
  return pp_script_report(L, status, o->progname);
}

static int run_actions(lua_State *L, const pp_options *o) {
  size_t i;

  for (i = 0; i < o->nactions; i++) {
    const pp_action *a = &o->actions[i];
    int status = LUA_OK, r;

    if (a->kind == 'W')
      lua_warning(L, "@on", 0);
    else if (a->kind == 'l')
      status = pp_script_require(L, a->arg);
    else
      status = pp_script_string(L, a->arg, "=(command line)");
    r = pp_script_report(L, status, o->progname);
    if (r != 0)
      return r;
  }
  return 0;
}

/* The shell in place of a script: require "pp.shell".main(mode, args), whose
 * result is the exit status. */
static int run_shell(lua_State *L, const pp_options *o) {
  int status;

  lua_getglobal(L, "require");
  lua_pushliteral(L, "pp.shell");
  status = pp_script_call(L, 1, 1);
  if (status == LUA_OK) {
    lua_getfield(L, -1, "main");
    lua_pushstring(L, o->mode);
    lua_createtable(L, o->argc - o->script, 0);
    for (int i = o->script; i < o->argc; i++) {
      lua_pushstring(L, o->argv[i]);
      lua_rawseti(L, -2, i - o->script + 1);
    }
    status = pp_script_call(L, 2, 1);
  }
  if (status != LUA_OK)
    return pp_script_report(L, status, o->progname);
  return (int)lua_tointeger(L, -1);
}

/* Everything that runs user code. One light userdata: the run. */
static int run_all(lua_State *L) {
  run *r = lua_touserdata(L, 1);
  const pp_options *o = r->o;
  bool terminal = isatty(STDIN_FILENO);

  lua_settop(L, 0);
  if (o->show_lua_version)
    print_lua_version();
  pp_script_arg(L, o->argv, o->argc, o->script);
  if (!o->noenv && (r->status = run_init(L, o)) != 0)
    return 0;
  if (o->has_e)
    pp_script_global_pp(L);
  if ((r->status = run_actions(L, o)) != 0)
    return 0;
  if (o->mode != NULL) {
    r->status = run_shell(L, o);
    return 0;
  }
  if (o->script < o->argc) {
    int status = pp_script_main(L, o->argv + o->script, o->argc - o->script);

    r->status = pp_script_report(L, status, o->progname);
    if (r->status != 0)
      return 0;
  }
  if (o->interactive) {
    pp_script_global_pp(L);
    pp_repl_run(L);
  } else if (o->script == o->argc && !o->has_e && !o->show_lua_version) {
    if (terminal) {
      printf("ppsh " PP_VERSION "\n");
      print_lua_version();
      pp_script_global_pp(L);
      pp_repl_run(L);
    } else {
      r->status = pp_script_report(L, pp_script_file(L, NULL), o->progname);
    }
  }
  return 0;
}

static int run_program(const pp_options *o) {
  run r = {.o = o};
  lua_State *L = pp_state_new(o->noenv);
  int e, status;

  if (L == NULL) {
    fputs("ppsh: cannot create the Lua state: not enough memory\n", stderr);
    return EXIT_FAILURE;
  }
  e = pp_engine_start(L, o);
  if (e != 0) {
    pp_state_close(L);
    return e == PP_EBAD ? EXIT_USAGE : EXIT_FAILURE;
  }
  pp_interrupt_install(L, pp_engine_wake, pp_engine_late);
  lua_pushcfunction(L, run_all);
  lua_pushlightuserdata(L, &r);
  status = lua_pcall(L, 1, 0, 0);
  if (status != LUA_OK)
    r.status = pp_script_report(L, status, o->progname);
  /* The engine first: it may still need the state to say what was lost. */
  r.status = pp_engine_end(r.status);
  pp_state_close(L);
  return r.status;
}

static void print_version(void) {
  printf("ppsh %s, %s, libssh2 %s, libuv %s, wire protocol 1, build %s\n",
         PP_VERSION, LUA_RELEASE, pp_net_libssh2(), uv_version_string(),
         PP_BUILD_ID);
}

/* What large values took is given back to the system, or used again: one heap
 * for both threads, which never allocate at the same time, and no heap that
 * keeps more the more it has seen. */
static void settle_memory(void) {
#ifdef __GLIBC__
  mallopt(M_ARENA_MAX, 1);
  mallopt(M_MMAP_THRESHOLD, 8 << 20);
  mallopt(M_TRIM_THRESHOLD, 16 << 20);
#endif
}

/* What -H says is looked at before anything runs. */
static bool hosts_make_sense(const pp_options *o) {
  pp_hosts set = {0};
  pp_host_error e;
  int r = 0;

  for (size_t i = 0; i < o->nhosts && r == 0; i++)
    r = pp_hosts_add(&set, o->hosts[i], strlen(o->hosts[i]), NULL, NULL, &e);
  pp_hosts_clear(&set);
  if (r == PP_ENOMEM)
    fputs("ppsh: not enough memory\n", stderr);
  else if (r != 0)
    fprintf(stderr, "ppsh: -H: %s\n%s\n", e.message, e.caret);
  return r == 0;
}

int main(int argc, char **argv) {
  pp_options o;
  int status = 0;

  settle_memory();
  if (argc > 0 && strcmp(argv[0], PP_ZYGOTE_NAME) == 0)
    pp_zygote_main(argc, argv);
  if ((status = pp_askpass_main(argc, argv)) >= 0)
    return status;
  status = 0;
  if (argc == 4 && strcmp(argv[1], "--agent") == 0)
    return pp_agent_main(argc, argv, true);
  reserve_descriptors();
  register_end();
  if (pp_options_parse(&o, argc, argv) != 0)
    status = EXIT_USAGE;
  else if (o.help)
    fputs(pp_options_help, stdout);
  else if (o.version)
    print_version();
  else
    status = hosts_make_sense(&o) ? run_program(&o) : EXIT_USAGE;
  pp_options_clear(&o);
  return status;
}
