/* SPDX-License-Identifier: MIT */
/*
 * What of an engine only a driver has, and an agent's workers never come to:
 * the loop, links to workers, jobs that run in the submitting process. An
 * agent is built without these.
 */
#include <stdlib.h>

#include "capture.h"
#include "crew.h"
#include "far.h"
#include "link.h"
#include "lua_pp.h"
#include "serial.h"

#define NEVER pp_assert(!"this is for a driver")

int pp_engine_open_loop(pp_engine *e) {
  (void)e;
  return PP_ESYS;
}
int pp_engine_standby(pp_engine *e) {
  (void)e;
  return PP_ESYS;
}
void pp_open_hosts(lua_State *L) { (void)L; }
void pp_open_watch(lua_State *L) { (void)L; }
void pp_open_given(lua_State *L) { (void)L; }
void pp_open_lines(lua_State *L) { (void)L; }
void pp_open_input(lua_State *L) { (void)L; }

int uv_run(uv_loop_t *loop, uv_run_mode mode) {
  (void)loop, (void)mode;
  NEVER;
  return 0;
}
int uv_timer_start(uv_timer_t *t, uv_timer_cb cb, uint64_t ms, uint64_t again) {
  (void)t, (void)cb, (void)ms, (void)again;
  NEVER;
  return 0;
}
int uv_timer_stop(uv_timer_t *t) {
  (void)t;
  NEVER;
  return 0;
}
int uv_poll_init(uv_loop_t *loop, uv_poll_t *p, int fd) {
  (void)loop, (void)p, (void)fd;
  NEVER;
  return UV_ENOSYS;
}
int uv_poll_start(uv_poll_t *p, int events, uv_poll_cb cb) {
  (void)p, (void)events, (void)cb;
  NEVER;
  return UV_ENOSYS;
}
int uv_poll_stop(uv_poll_t *p) {
  (void)p;
  NEVER;
  return UV_ENOSYS;
}
void uv_update_time(uv_loop_t *loop) {
  (void)loop;
  NEVER;
}

void pp_link_unhang(pp_link *l, bool all) {
  (void)l, (void)all;
  NEVER;
}
void pp_berths_trim(pp_berths *b) {
  (void)b;
  NEVER;
}
bool pp_crew_missing(const pp_node *n) {
  (void)n;
  return false;
}
bool pp_crew_call(pp_node *n) {
  (void)n;
  return false;
}
void pp_crew_serve(pp_node *n) { (void)n; }
void pp_crew_stay(pp_node *n) { (void)n; }
int64_t pp_crew_tidy(pp_node *n, int64_t now) {
  (void)n, (void)now;
  return -1;
}

bool pp_far_flush(pp_engine *e) {
  (void)e;
  return false;
}
int64_t pp_far_tick(pp_far *f, int64_t now) {
  (void)f, (void)now;
  return -1;
}

pp_link *pp_link_open(pp_node *n, uint32_t number) {
  (void)n, (void)number;
  NEVER;
  return NULL;
}
void pp_link_answer(pp_link *l, const pp_job *parent, pp_job *child) {
  (void)l, (void)parent, (void)child;
  NEVER;
}
void pp_link_configure(pp_link *l) { (void)l; }
void pp_link_drain(pp_link *l) { (void)l; }
void pp_link_kill(pp_link *l) { (void)l; }
void pp_link_retire(pp_link *l) { (void)l; }
void pp_link_rouse(pp_engine *e) { (void)e; }
void pp_link_stopped(pp_link *l) { (void)l; }

/* Jobs run in a process of their own: nothing runs where its engine is. */
bool pp_serial_due(const pp_engine *e) {
  (void)e;
  return false;
}
void pp_serial_run(pp_engine *e) {
  (void)e;
  NEVER;
}
void pp_serial_close(pp_server *s) { (void)s; }
int pp_serial_wait(pp_engine *e, bool (*until)(void *ud), void *ud,
                   int64_t deadline) {
  (void)e, (void)until, (void)ud, (void)deadline;
  NEVER;
  return PP_EAGAIN;
}
void pp_serial_check(pp_engine *e, lua_State *L) { (void)e, (void)L; }
const pp_blob *pp_serial_setting(const pp_engine *e) {
  (void)e;
  return NULL;
}
int pp_serial_push_server(lua_State *L) {
  (void)L;
  NEVER;
  return 0;
}
void pp_serial_interrupt(void) {}
void pp_capture_end(pp_engine *e) { (void)e; }

/* --- of the compiler's library -------------------------------------------- */

/*
 * The C library names these for threads that are cancelled and for exceptions
 * that pass through it. No thread is cancelled here and nobody throws; what
 * really unwinds would be 24 KB of every agent.
 */
#define UNWINDS(name)                                                          \
  void name(void);                                                             \
  void name(void) { abort(); }
UNWINDS(_Unwind_Backtrace)
UNWINDS(_Unwind_ForcedUnwind)
UNWINDS(_Unwind_GetCFA)
UNWINDS(_Unwind_GetIP)
UNWINDS(_Unwind_Resume)
UNWINDS(__gcc_personality_v0)
