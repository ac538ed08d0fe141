/* SPDX-License-Identifier: MIT */
/* What jobs that run in this process submit: an engine of theirs holds it until
 * they wait. */
#include <lauxlib.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>

#include "lua_pp.h"
#include "serial_impl.h"

static void on_dropped(void *ud, uint32_t lane, uint32_t id) {
  const pp_serial *z = ud;

  (void)lane;
  if (z->inner != NULL)
    pp_serial_drop_blob(z->inner, id);
}

bool pp_serial_open_own(pp_serial *z) {
  static const pp_options none = {.jobs = -1};
  pp_codec_hooks hooks;
  pp_engine *e = calloc(1, sizeof *e);

  if (e == NULL)
    return false;
  hooks = pp_engine_hooks(e);
  e->custom = pp_send_userdata;
  e->options = &none;
  e->serial = z;
  e->bell = e->shm = e->ctl = e->cwd = -1;
  e->out[0] = stdout;
  e->out[1] = stderr;
  e->pid = z->engine->pid;
  e->trace = z->engine->trace;
  e->blobs.dropped = on_dropped;
  e->blobs.ud = z;
  pthread_mutex_init(&e->lock, NULL);
  z->own = e;
  z->handle = LUA_NOREF;
  e->codec = pp_codec_new(z->L, PP_CODEC_SUBMITTER, &hooks);
  return e->codec != NULL;
}

/* After its Lua state. */
void pp_serial_close_own(pp_serial *z) {
  pp_engine *e = z->own;

  if (z->inner != NULL)
    pp_serial_free(z->inner);
  z->inner = NULL;
  if (e == NULL)
    return;
  z->own = NULL;
  pp_codec_free(e->codec);
  e->blobs.dropped = NULL;
  pp_blobs_clear(&e->blobs);
  pp_buf_clear(&e->scratch);
  pp_buf_clear(&e->past);
  pthread_mutex_destroy(&e->lock);
  free(e);
}

/* What they were counts where the job does. */
static void count_kids(pp_serial *z) {
  pp_stats t = pp_server_sum(z->kids);

  pp_stats_add(&z->server->local->stats, &t);
  z->next_id = z->kids->next_id;
  z->kids = NULL;
}

/* The job is over: so is what it has submitted. */
void pp_serial_end_kids(pp_serial *z) {
  pp_server *s = z->kids;

  if (z->handle == LUA_NOREF)
    return;
  if (s != NULL) {
    pp_job *j;

    if (!s->closed) {
      char of[40];

      snprintf(of, sizeof of, " of job %llu",
               (unsigned long long)pp_runner_running(z->runner)->id);
      pp_engine_get()->unseen += pp_engine_unseen(z->own, s, of);
      while ((j = s->ended.head) != NULL)
        pp_server_seen(s, j);
      pp_server_destroy(s);
    }
    count_kids(z);
  }
  pp_unanchor(z->L, z->own);
  luaL_unref(z->L, LUA_REGISTRYINDEX, z->handle);
  z->handle = LUA_NOREF;
}

int pp_serial_push_server(lua_State *L) {
  pp_serial *z = pp_check_engine(L)->serial;
  const pp_running *now = pp_runner_running(z->runner);
  pp_server_options o = {.retries = z->server->retries,
                         .restart = z->server->restart,
                         .output = z->server->output,
                         .timeout = z->server->timeout,
                         .memory = z->server->memory,
                         .seeded = now->seeded,
                         .seed = now->seed};
  pp_userver *u;

  if (now->base)
    return luaL_error(L, "a call of everywhere, or @SET, cannot submit jobs");
  if (z->kids != NULL && !z->kids->closed) {
    lua_rawgeti(L, LUA_REGISTRYINDEX, z->handle);
    return 1;
  }
  if (z->kids != NULL)
    count_kids(z);
  u = pp_push_server(L);
  u->s = pp_server_new(z->own, &o);
  if (u->s == NULL)
    return luaL_error(L, "not enough memory");
  u->s->next_id = z->next_id;
  z->kids = u->s;
  pp_note_server(L, -1);
  lua_pushvalue(L, -1);
  if (z->handle == LUA_NOREF)
    z->handle = luaL_ref(L, LUA_REGISTRYINDEX);
  else
    lua_rawseti(L, LUA_REGISTRYINDEX, z->handle);
  return 1;
}

int pp_serial_wait(pp_engine *e, bool (*until)(void *ud), void *ud,
                   int64_t deadline) {
  const pp_serial *z = e->serial;

  for (;;) {
    int64_t left = deadline < 0 ? INT64_MAX : deadline - pp_now_ns();

    if (e->callbacks > 0 && !e->in_callback)
      return PP_EAGAIN;
    if (until(ud))
      return 1;
    if (pp_runner_stopping(z->runner) != NULL)
      return PP_EAGAIN;
    if (left <= 0)
      return 0;
    if (e->may_run && pp_serial_due(e))
      return PP_EAGAIN;
    poll(NULL, 0,
         left > 60000000000 ? 60000 : (int)((left + 999999) / 1000000));
  }
}

void pp_serial_check(pp_engine *e, lua_State *L) {
  pp_runner *r = e->serial->runner;
  const char *why = pp_runner_stopping(r);

  if (why == NULL)
    return;
  pp_runner_stopped(r, L);
  luaL_error(L, "%s", why);
}
