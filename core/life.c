/* SPDX-License-Identifier: MIT */
/* The engine's life: start, its zygote and what happens when that dies, end. */
#include <errno.h>
#include <fcntl.h>
#include <lauxlib.h>
#include <lualib.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "capture.h"
#include "depend.h"
#include "engine.h"
#include "link.h"
#include "prompt.h"
#include "serial.h"
#include "state.h"
#include "top.h"
#include "trace.h"
#include "zygote.h"

static void on_bell(uv_poll_t *h, int status, int events) {
  pp_engine *e = h->data;
  uint64_t n;

  (void)status, (void)events;
  (void)!read(e->bell, &n, sizeof n);
}

static void free_handle(uv_handle_t *h) { free(h); }

static void on_ctl(uv_poll_t *h, int status, int events);

static int watch_ctl(pp_engine *e) {
  e->on_ctl = malloc(sizeof *e->on_ctl);
  if (e->on_ctl == NULL)
    return PP_ENOMEM;
  uv_poll_init(&e->loop, e->on_ctl, e->ctl);
  e->on_ctl->data = e;
  uv_poll_start(e->on_ctl, UV_READABLE, on_ctl);
  return 0;
}

/* The zygote is dead, and so are its workers: begin a new one, from this
 * program anew since this process is pristine no more. */
static void zygote_died(pp_engine *e) {
  uint32_t n = e->nlinks, old = e->generation;

  uv_close((uv_handle_t *)e->on_ctl, free_handle);
  e->on_ctl = NULL;
  e->zygote_gone = true;
  if (e->ended)
    return;
  close(e->ctl);
  waitpid(e->zygote, NULL, 0);
  e->generation++;
  e->zygote =
      pp_zygote_exec(e->shm, e->bell, e->cwd, e->options->noenv, &e->ctl);
  e->zygote_gone = e->zygote < 0 || watch_ctl(e) != 0;
  pp_log(PP_LOG_WARN, "the process that workers are forked from was killed; %s",
         e->zygote_gone ? "there will be no more workers"
                        : "there is a new one");
  for (uint32_t i = 0; i < n; i++)
    if (e->links[i] != NULL && e->links[i]->far == NULL &&
        e->links[i]->generation == old)
      pp_link_died(e->links[i], 9, 0, 0);
}

static void on_ctl(uv_poll_t *h, int status, int events) {
  pp_engine *e = h->data;
  pp_zrep rep;
  ssize_t n;

  (void)status, (void)events;
  while ((n = recv(e->ctl, &rep, sizeof rep, MSG_DONTWAIT)) ==
         (ssize_t)sizeof rep) {
    pp_link *l = rep.lane < e->nlinks ? e->links[rep.lane] : NULL;

    if (l == NULL)
      continue;
    if (rep.op == PP_Z_SPAWNED) {
      l->pid = rep.pid;
      if (l->server != NULL)
        l->node->refusals = 0, l->node->stuck_since = 0;
    } else if (rep.op == PP_Z_EXITED) {
      pp_link_died(l, rep.status, 0, rep.maxrss);
    } else if (rep.op == PP_Z_FAILED) {
      pp_link_died(l, -1, rep.status, 0);
    }
  }
  if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
    zygote_died(e);
}

/* --- blobs -----------------------------------------------------------------
 */

static void on_dropped(void *ud, uint32_t lane, uint32_t id) {
  pp_engine *e = ud;

  if (lane >= PP_LANES_MAX)
    pp_serial_drop(e, lane, id);
  else if (e->links[lane] != NULL)
    pp_link_drop(e->links[lane], id);
}

/* --- start ---------------------------------------------------------------- */

/* A child the script forked by itself has no part in this. */
static void forked_child(void) {
  pp_engine *e = pp_engine_get();

  if (e != NULL) {
    close(e->ctl);
    pp_engine_set(NULL);
  }
}

/* A copy of a string in the table package; NULL without memory. */
static char *package_field(lua_State *L, const char *name) {
  char *copy;

  lua_getglobal(L, LUA_LOADLIBNAME);
  lua_getfield(L, -1, name);
  copy = strdup(lua_tostring(L, -1));
  lua_pop(L, 2);
  return copy;
}

int pp_engine_start(lua_State *L, const pp_options *o) {
  pp_engine *e = calloc(1, sizeof *e);
  pp_codec_hooks hooks;
  int r;

  if (e == NULL) {
    fprintf(stderr, "ppsh: not enough memory\n");
    return PP_ENOMEM;
  }
  pp_log_level_set((int)o->log_level);
  e->options = o;
  e->out[0] = stdout;
  e->out[1] = stderr;
  e->pid = getpid();
  e->bell = e->shm = e->ctl = -1;
  e->cwd = open(".", O_PATH | O_CLOEXEC);
  pthread_mutex_init(&e->lock, NULL);
  e->blobs.dropped = on_dropped;
  e->blobs.ud = e;
  r = pp_trace_begin(e);
  if (r != 0) {
    free(e);
    return r;
  }
  if (pp_zygote_library(L) != 0) {
    fprintf(stderr, "ppsh: cannot load its library: %s\n", lua_tostring(L, -1));
    free(e);
    return PP_ENOMEM;
  }
  if (pp_shm_open(&e->shm, &e->hub) != 0 ||
      (e->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) < 0 ||
      (e->zygote = pp_zygote_fork(L, e->shm, e->hub, e->bell, &e->ctl)) < 0) {
    fprintf(stderr, "ppsh: cannot start: %s\n", pp_shm_error(errno));
    free(e);
    return PP_ESYS;
  }
  pp_hold_open(&e->hold, e->shm, pp_shm_has_cargo(e->shm) ? PP_DRIVER_AT : 0,
               PP_FILE_BYTES);
  pp_berths_init(&e->berths, pp_shm_has_cargo(e->shm) ? e->shm : -1);
  e->blobs.hold = &e->hold;
  e->scratch.home = &e->hold.home;
  e->blocks = pp_state_blocks(L);
  e->string_at = pp_state_string_at(L);
  pp_meter_init(&e->meter, o->progress != PP_PROGRESS_NO || o->top,
                o->progress == PP_PROGRESS_ALWAYS);
  e->meter.table = pp_top_lines;
  e->meter.top = o->top && pp_meter_can_table(&e->meter);
  if (o->top && o->progress == PP_PROGRESS_NO && !isatty(STDERR_FILENO))
    e->meter.all = false;
  if (e->meter.can && pp_meter_install(L, &e->meter) != 0) {
    fprintf(stderr, "ppsh: not enough memory\n");
    return PP_ENOMEM;
  }
  hooks = pp_engine_hooks(e);
  e->path = package_field(L, "path");
  e->cpath = package_field(L, "cpath");
  e->codec = pp_codec_new(L, PP_CODEC_SUBMITTER, &hooks);
  if (e->codec == NULL || e->path == NULL || e->cpath == NULL) {
    fprintf(stderr, "ppsh: not enough memory\n");
    return PP_ENOMEM;
  }
  pp_engine_set(e);
  pthread_atfork(NULL, NULL, forked_child);
  return 0;
}

/* Descriptors an event loop needs for itself, and some. */
#define LOOP_FDS 8

int pp_engine_open_loop(pp_engine *e) {
  int fds[LOOP_FDS], n, r;

  if (e->loop_open)
    return 0;
  /* The library aborts where it cannot have the descriptors it wants. */
  for (n = 0; n < LOOP_FDS; n++)
    if ((fds[n] = fcntl(e->bell, F_DUPFD_CLOEXEC, 0)) < 0)
      break;
  r = errno;
  for (int i = 0; i < n; i++)
    close(fds[i]);
  if (n < LOOP_FDS) {
    errno = r;
    return PP_ESYS;
  }
  r = uv_loop_init(&e->loop);
  if (r != 0) {
    errno = -r;
    return PP_ESYS;
  }
  e->loop_open = true;
  uv_timer_init(&e->loop, &e->tick);
  uv_poll_init(&e->loop, &e->on_bell, e->bell);
  e->tick.data = e->on_bell.data = e;
  uv_poll_start(&e->on_bell, UV_READABLE, on_bell);
  return watch_ctl(e);
}

/* Let the zygote kill everything below it and go; not even one that was
 * stopped or is stuck keeps this process. Its end of the pair closes as it
 * goes. */
static void end_zygote(pp_engine *e) {
  int64_t give_up = pp_now_ns() + 10 * (int64_t)1000000000, left;
  struct pollfd p = {.fd = e->ctl, .events = POLLIN};
  pp_zrep rep;
  ssize_t n;

  shutdown(e->ctl, SHUT_WR);
  kill(e->zygote, SIGCONT);
  for (;;) {
    n = recv(e->ctl, &rep, sizeof rep, MSG_DONTWAIT);
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
      break;
    left = give_up - pp_now_ns();
    if (left <= 0) {
      kill(e->zygote, SIGKILL);
      close(e->ctl);
      return;
    }
    if (n < 0)
      poll(&p, 1, (int)(left / 1000000) + 1);
  }
  close(e->ctl);
  while (waitpid(e->zygote, NULL, 0) < 0 && errno == EINTR) {
  }
}

/* The lock held. */
static int end(pp_engine *e, int status) {
  const bool shell = e->options->mode != NULL;
  bool written;

  pp_meter_hide(&e->meter);
  if (e->prompt != NULL)
    e->prompt->end(e);
  pp_meter_restore(&e->meter);
  if (e->in_job) { /* exit was called in there, or it is stuck */
    fflush(stdout), fflush(stderr);
    pp_capture_kill(e);
    pp_capture_settle(e, NULL);
  }
  pp_capture_end(e);
  if (e->loop_open) {
    uv_run(&e->loop, UV_RUN_NOWAIT);
    pp_engine_drain(e);
    pp_engine_drain(e);
    for (uint32_t i = 0; i < e->nlinks; i++)
      if (e->links[i] != NULL)
        pp_link_last_words(e->links[i]);
  }
  pp_engine_flush(e);
  /* Of its commands the shell says itself how they ended; and one that is
   * stopped by a signal, or has nobody left to write to, is silent. */
  for (pp_server *s = e->servers; s != NULL && !shell; s = s->next) {
    e->dropped += s->console ? 0 : s->pending;
    pp_engine_unseen(e, s, "");
  }
  for (pp_server *s = e->closed; s != NULL && !shell; s = s->next)
    pp_engine_unseen(e, s, "");
  if (e->dropped > 0 && !shell)
    pp_log(PP_LOG_WARN, "%zu unfinished job%s dropped", e->dropped,
           e->dropped == 1 ? "" : "s");
  written = pp_trace_end(e);
  if (e->options->stats) {
    for (pp_server *s = e->servers; s != NULL; s = s->next)
      if (!s->console)
        pp_server_table(s, &e->past);
    fflush(stdout);
    fwrite(e->past.data, 1, e->past.len, stderr);
  }
  if (e->remote != NULL)
    e->remote_ops->end(e);
  end_zygote(e);
  return status == 0 && (e->unseen > 0 || !written) ? 1 : status;
}

int pp_engine_end(int status) {
  pp_engine *e = pp_engine_get();

  if (e == NULL || e->ended || e->pid != getpid())
    return status;
  pp_engine_enter(e);
  e->ended = true;
  if (e->standby_runs) {
    e->standby_quit = true;
    sem_post(&e->park);
    pthread_mutex_unlock(&e->lock);
    pthread_join(e->standby, NULL);
    pthread_mutex_lock(&e->lock);
  }
  status = end(e, status);
  pp_engine_leave(e);
  return status;
}

_Noreturn void pp_engine_end_late(pp_engine *e) {
  int status = atomic_load(&e->late);

  e->ended = true;
  status = end(e, status);
  fflush(NULL);
  _exit(status);
}
