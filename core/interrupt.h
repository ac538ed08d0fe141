/* SPDX-License-Identifier: MIT */
/*
 * interrupt: what signals do to a running script.
 *
 *   SIGINT           the error "interrupted!" at the script's next VM
 *                    instruction, in whatever coroutine, or in the call that
 *                    waits; a second one ends the process at once, status 130,
 *                    whatever the script catches
 *   SIGTERM, SIGHUP  exit(128 + n) from there, so that handlers of atexit run;
 *                    a script stuck in C has one second until another thread
 *                    ends the process, then two until _exit
 *   SIGPIPE          the same, quietly, then death by SIGPIPE
 *
 * They are handlers, never "ignore", so that programs the script starts have
 * the default again. A SIGHUP or SIGPIPE that was ignored before stays so
 * (nohup). One state per process, the one that was installed.
 */
#ifndef PP_INTERRUPT_H
#define PP_INTERRUPT_H

#include <lua.h>
#include <signal.h>
#include <stdbool.h>

/*
 * Install the handlers for the state L and the calling thread. wake is called
 * from signal handlers, on that thread: it makes a waiting call return to
 * where it calls pp_interrupt_check. Forked children that run no script should
 * be forked before, or set these signals themselves. late is called from the
 * handler too, when that thread does not come to its end: true if another one
 * will end the process with this status.
 */
void pp_interrupt_install(lua_State *L, void (*wake)(void),
                          bool (*late)(int status));

/* The signal that waits to be acted on, or 0. */
int pp_interrupt_pending(void);

/* Act on it: raise for SIGINT, at the line of the script, exit for the others,
 * or do nothing. Waiting calls call this on waking up. */
void pp_interrupt_check(lua_State *L);

/* Whether "interrupted!" has been raised since installation or reset. */
bool pp_interrupt_was(void);

/* Forget Ctrl-C, pending or past: the prompt, before each line. L is the
 * state's main thread. */
void pp_interrupt_reset(lua_State *L);

/*
 * At a prompt, which gets back what was stopped, one is patient: a second
 * Ctrl-C before the reset does not end the process, but raises "interrupted!"
 * at each instruction until then, whatever the script catches. Where that does
 * not help for a second (it is stuck in C), a further one ends it.
 */
void pp_interrupt_patient(bool yes);

/*
 * The process is ending: from now on SIGINT ends it at once and the others
 * change nothing, but ten seconds later it is over. Returns the signal that
 * ended it, or 0.
 */
int pp_interrupt_ending(void);

/* Die by SIGPIPE, as if there were no handler. */
_Noreturn void pp_interrupt_die_of_pipe(void);

/*
 * While non-zero, SIGPIPE does nothing in this thread: for writes to sockets
 * that cannot be told MSG_NOSIGNAL. Does not reach user code: set it back
 * before calling Lua.
 */
extern _Thread_local volatile sig_atomic_t pp_interrupt_ignore_pipe;

#endif
