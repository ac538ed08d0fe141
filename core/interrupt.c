/* SPDX-License-Identifier: MIT */
#include "interrupt.h"

#include <errno.h>
#include <lauxlib.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "base.h"
#include "state.h"

enum {
  STUCK_MS = 1000,          /* from SIGTERM until another thread ends it */
  AT_ONCE_MS = 100,         /* from a second Ctrl-C */
  LATE_MS = 2000,           /* then until _exit */
  ENDING_MS = 10000,        /* from the beginning of the end until _exit */
  PATIENCE_NS = 1000000000, /* from the first Ctrl-C at a prompt */
  SAME_KEYPRESS_NS = 100000 /* timeout(1) sends twice: process, then group */
};

_Thread_local volatile sig_atomic_t pp_interrupt_ignore_pipe;

/* What the handlers need, and they alone write but for the script's thread. */
static struct {
  lua_State *volatile L; /* the state's main thread; NULL once closed */
  void (*wake)(void);
  bool (*late)(int status);
  pthread_t thread; /* the one that runs L */
  timer_t timer;
  bool have_timer;
  volatile sig_atomic_t pending; /* signal to act on, 0 none */
  volatile sig_atomic_t ints;    /* SIGINTs since reset */
  volatile sig_atomic_t was;     /* "interrupted!" was raised */
  volatile sig_atomic_t ending;
  volatile sig_atomic_t final;   /* a second SIGINT: no error, the end */
  volatile sig_atomic_t patient; /* there is a prompt */
  volatile sig_atomic_t insist;  /* raise until the reset */
  volatile int64_t first_int;    /* when, since reset */
  volatile sig_atomic_t is_late; /* `late` has been called */
  volatile int64_t last_int;     /* when, and who sent it */
  volatile pid_t last_sender;
} S;

_Noreturn void pp_interrupt_die_of_pipe(void) {
  sigset_t set;

  signal(SIGPIPE, SIG_DFL);
  sigemptyset(&set);
  sigaddset(&set, SIGPIPE);
  pthread_sigmask(SIG_UNBLOCK, &set, NULL);
  raise(SIGPIPE);
  _exit(128 + SIGPIPE);
}

static void arm(int ms) {
  struct itimerspec t = {
      .it_value = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L}};

  if (S.have_timer)
    timer_settime(S.timer, 0, &t, NULL);
}

static void on_hook(lua_State *L, lua_Debug *ar) {
  (void)ar;
  pp_state_unpoke(L);
  pp_interrupt_check(L);
}

/* One Ctrl-C that reached us twice, by the process and by its group. */
static bool is_echo(const siginfo_t *si) {
  int64_t now = pp_now_ns();
  bool echo = si->si_code == SI_USER && S.last_sender == si->si_pid &&
              now - S.last_int < SAME_KEYPRESS_NS;

  S.last_int = now;
  S.last_sender = si->si_code == SI_USER ? si->si_pid : 0;
  return echo;
}

static void on_signal(int sig, siginfo_t *si, void *context) {
  int saved = errno;

  (void)context;
  if (si->si_code == SI_TIMER && si->si_value.sival_ptr == &S) {
    int last = S.pending != 0 ? S.pending : SIGTERM;

    if (!S.is_late && !S.ending && S.late(128 + last)) {
      S.is_late = 1;
      arm(LATE_MS);
      errno = saved;
      return;
    }
    if (last == SIGPIPE)
      pp_interrupt_die_of_pipe();
    _exit(128 + last);
  }
  if (sig == SIGPIPE && pp_interrupt_ignore_pipe)
    return;
  if (!pthread_equal(pthread_self(), S.thread)) {
    pthread_kill(S.thread, sig);
    errno = saved;
    return;
  }
  if (sig == SIGINT) {
    if (is_echo(si))
      return;
    if (S.ending)
      _exit(128 + SIGINT);
    if (S.ints++ == 0)
      S.first_int = S.last_int;
    else if (S.patient)
      S.insist = 1;
    if (S.ints > (S.patient ? 2 : 1) && !S.final &&
        (!S.patient || S.last_int - S.first_int > PATIENCE_NS)) {
      S.final = 1;
      arm(AT_ONCE_MS);
    }
    if (S.pending == 0)
      S.pending = SIGINT;
  } else if (S.pending == 0 || S.pending == SIGINT) {
    S.pending = sig;
    arm(S.ending ? ENDING_MS : STUCK_MS);
  }
  if (!S.ending && S.L != NULL) {
    pp_state_poke(S.L, on_hook);
    S.wake();
  }
  errno = saved;
}

static void handle(int sig, bool even_if_ignored) {
  struct sigaction sa, old;

  sigaction(sig, NULL, &old);
  if (!even_if_ignored && (old.sa_flags & SA_SIGINFO) == 0 &&
      old.sa_handler == SIG_IGN)
    return;
  sa.sa_sigaction = on_signal;
  /* No SA_RESTART: a read that waits must return. */
  sa.sa_flags = SA_SIGINFO;
  sigemptyset(&sa.sa_mask);
  sigaddset(&sa.sa_mask, SIGINT);
  sigaddset(&sa.sa_mask, SIGTERM);
  sigaddset(&sa.sa_mask, SIGHUP);
  sigaddset(&sa.sa_mask, SIGPIPE);
  sigaction(sig, &sa, NULL);
}

void pp_interrupt_install(lua_State *L, void (*wake)(void),
                          bool (*late)(int status)) {
  struct sigevent ev = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGTERM};

  S.L = L;
  pp_state_at_close(L, &S.L);
  S.wake = wake;
  S.late = late;
  S.thread = pthread_self();
  ev.sigev_value.sival_ptr = &S;
  S.have_timer = timer_create(CLOCK_MONOTONIC, &ev, &S.timer) == 0;
  /* A shell's background job has SIGINT ignored; kill -INT is still meant. */
  handle(SIGINT, true);
  handle(SIGTERM, true);
  handle(SIGHUP, false);
  handle(SIGPIPE, false);
}

int pp_interrupt_pending(void) { return S.pending; }

/* Push where it came: as luaL_where does, but the script's line that called
 * where it is in the library's own Lua; "" where no script did. */
static void push_where(lua_State *L) {
  lua_Debug ar;
  int level = 1;

  luaL_checkstack(L, 3, NULL);
  for (; lua_getstack(L, level, &ar); level++) {
    lua_getinfo(L, "Sl", &ar);
    if ((level == 1 || ar.currentline > 0) && !pp_state_embedded(ar.source))
      break;
  }
  luaL_where(L, level);
}

void pp_interrupt_check(lua_State *L) {
  int sig = S.pending;

  if (PP_LIKELY(sig == 0))
    return;
  if (sig != SIGINT || S.final)
    exit(128 + sig);
  S.was = 1;
  if (S.insist) {
    pp_state_poke(L, on_hook);
  } else {
    S.pending = 0;
    pp_state_unpoke(L);
  }
  push_where(L);
  lua_pushliteral(L, "interrupted!");
  lua_concat(L, 2);
  lua_error(L);
}

bool pp_interrupt_was(void) { return S.was; }

void pp_interrupt_reset(lua_State *L) {
  S.was = 0;
  S.ints = 0;
  S.insist = 0;
  if (S.pending == SIGINT && !S.final) {
    S.pending = 0;
    pp_state_unpoke(L);
  }
}

void pp_interrupt_patient(bool yes) { S.patient = yes; }

int pp_interrupt_ending(void) {
  S.ending = 1;
  if (S.pending != 0 && S.pending != SIGINT) {
    arm(ENDING_MS);
    return S.pending;
  }
  return 0;
}
