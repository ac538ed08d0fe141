/* SPDX-License-Identifier: MIT */
#include "prompt.h"

#include <errno.h>
#include <fcntl.h>
#include <lauxlib.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "interrupt.h"
#include "link.h"
#include "lua_pp.h"

/* Notices come once a second at most, however many jobs end. */
#define NOTICE_NS ((int64_t)1000000000)
/* The line is drawn again so often at most, however much is written. */
#define SHOW_NS ((int64_t)20000000)
/* Of an error or a name in a notice. */
#define TOLD_BYTES 300

/* --- text put aside ------------------------------------------------------- */

static ssize_t put_aside(void *cookie, const char *text, size_t len) {
  pp_prompt *p = cookie;
  int r;

  pthread_mutex_lock(&p->lock);
  r = pp_buf_put(&p->text, text, len);
  pthread_mutex_unlock(&p->lock);
  return r == 0 ? (ssize_t)len : 0;
}

static bool has_text(pp_prompt *p) {
  bool has;

  pthread_mutex_lock(&p->lock);
  has = p->text.len > 0;
  pthread_mutex_unlock(&p->lock);
  return has;
}

/* Write what was put aside to the terminal. The lock held: what jobs write more
 * waits in their pipes, and they with it. */
static void write_text(pp_prompt *p) {
  pp_buf text;
  size_t at = 0;

  pthread_mutex_lock(&p->lock);
  text = p->text;
  memset(&p->text, 0, sizeof p->text);
  pthread_mutex_unlock(&p->lock);
  if (text.len > 0 && text.data[text.len - 1] != '\n')
    (void)pp_buf_put(&text, "\n", 1);
  fflush(stdout);
  while (at < text.len) {
    ssize_t n = write(p->tty[0] ? STDOUT_FILENO : STDERR_FILENO, text.data + at,
                      text.len - at);

    if (n > 0)
      at += (size_t)n;
    else if (errno != EINTR && errno != EAGAIN)
      break;
  }
  pp_buf_clear(&text);
}

/* Have what is written to the terminal put aside, or not. The lock held. */
static void redirect(pp_engine *e, bool aside) {
  pp_prompt *p = e->prompt;
  FILE *const real[2] = {stdout, stderr};

  for (int k = 0; k < 2; k++)
    if (p->tty[k] && p->aside != NULL)
      e->out[k] = aside ? p->aside : real[k];
}

/* --- notices -------------------------------------------------------------- */

static void job_ended(pp_engine *e, pp_job *j) {
  pp_prompt *p = e->prompt;

  if (j->items > 0 || !(j->flags & PP_JOB_ENDED) || j->server->console ||
      (j->state == PP_JOB_FAILED && pp_job_dropped(j)))
    return;
  if (p->ntold < PP_NOTICES)
    p->told[p->ntold++] = pp_job_ref(j);
  else if (j->state == PP_JOB_FAILED)
    p->failed++;
  else
    p->done++;
}

static bool notices_due(const pp_prompt *p) {
  return p->ntold > 0 || p->done + p->failed > 0;
}

/* One line of a text, without what terminals obey, and whole characters. */
static void put_line(FILE *f, const char *text, size_t len) {
  size_t n = len < TOLD_BYTES ? len : TOLD_BYTES;

  while (n < len && n > 0 && ((unsigned char)text[n] & 0xc0) == 0x80)
    n--;
  for (size_t i = 0; i < n && text[i] != '\n'; i++)
    putc((unsigned char)text[i] < ' ' || text[i] == 0x7f ? ' ' : text[i], f);
}

static void tell(pp_engine *e, const pp_job *j) {
  pp_prompt *p = e->prompt;
  bool named = j->more != NULL && j->more->name != NULL;
  pp_error_view v;

  fprintf(p->aside, "-- job %llu ", (unsigned long long)j->id);
  if (named) {
    put_line(p->aside, j->more->name, strlen(j->more->name));
    fputs(" ", p->aside);
  }
  if (j->state == PP_JOB_DONE) {
    fprintf(p->aside, "done");
  } else if (pp_error_parse(j->result, j->result_len, &v) == 0) {
    fprintf(p->aside, "failed: ");
    put_line(p->aside, v.msg, v.msg_len);
  } else {
    fprintf(p->aside, "failed");
  }
  if (j->node != PP_NAME_LOCAL)
    fprintf(p->aside, ", on %s", pp_engine_name(e, j->node));
  fprintf(p->aside, ", %.*f s\n", j->run < 10000000 ? 4 : 2,
          (double)j->run / 1e9);
}

/* Put notices aside, of what is still not asked for. Then forget them. */
static void notify(pp_engine *e, bool say) {
  pp_prompt *p = e->prompt;

  for (unsigned i = 0; i < p->ntold; i++) {
    if (say && p->aside != NULL && p->told[i]->flags & PP_JOB_ENDED) {
      tell(e, p->told[i]);
      p->noticed = pp_now_ns();
    }
    pp_job_unref(p->told[i], &e->blobs);
  }
  if (say && p->aside != NULL && p->done + p->failed > 0) {
    fprintf(p->aside, "-- %zu more jobs done, %zu failed\n", p->done,
            p->failed);
    p->noticed = pp_now_ns();
  }
  p->ntold = 0;
  p->done = p->failed = 0;
}

/* --- coming and going ----------------------------------------------------- */

static void prompt_end(pp_engine *e) {
  pp_prompt *p = e->prompt;

  redirect(e, false);
  notify(e, false);
  if (has_text(p)) {
    if (p->typing)
      (void)!write(p->tty[0] ? STDOUT_FILENO : STDERR_FILENO, "\n", 1);
    write_text(p);
  }
  e->prompt = NULL;
  if (p->aside != NULL)
    fclose(p->aside);
  pp_buf_clear(&p->text);
  pthread_mutex_destroy(&p->lock);
  free(p);
}

static pp_prompt *prompt_of(pp_engine *e) {
  static const cookie_io_functions_t io = {.write = put_aside};
  pp_prompt *p;

  if (e->prompt != NULL)
    return e->prompt;
  p = calloc(1, sizeof *p);
  if (p == NULL)
    return NULL;
  pthread_mutex_init(&p->lock, NULL);
  p->ended = job_ended;
  p->end = prompt_end;
  p->tty[0] = isatty(STDOUT_FILENO);
  p->tty[1] = isatty(STDERR_FILENO);
  p->aside = fopencookie(p, "w", io);
  if (p->aside != NULL)
    setvbuf(p->aside, NULL, _IONBF, 0);
  e->prompt = p;
  return p;
}

void pp_prompt_open(lua_State *L) {
  pp_engine *e = pp_engine_here();
  pp_prompt *p;

  (void)L;
  if (e == NULL || e->ended)
    return;
  pp_engine_enter(e);
  p = prompt_of(e);
  if (p != NULL && p->tty[0] + p->tty[1] > 0) {
    pp_meter_hide(&e->meter);
    p->typing = true;
    redirect(e, true);
  }
  pp_engine_leave(e);
}

void pp_prompt_close(lua_State *L) {
  pp_engine *e = pp_engine_here();

  (void)L;
  if (e == NULL || e->prompt == NULL || !e->prompt->typing)
    return;
  pp_engine_enter(e);
  e->prompt->typing = false;
  redirect(e, false);
  if (has_text(e->prompt))
    write_text(e->prompt);
  pp_engine_leave(e);
}

/* --- waiting -------------------------------------------------------------- */

typedef struct waiting {
  pp_prompt *p; /* or NULL */
  const pp_line *line;
  int64_t text_at, notices_at; /* when they are due; -1: there were none */
  bool pressed;
} waiting;

/* When what is put aside, and notices, are to be shown. */
static void note_due(waiting *w) {
  const pp_prompt *p = w->p;

  w->text_at = p != NULL && has_text(w->p) ? p->shown + SHOW_NS : -1;
  w->notices_at = p == NULL || !notices_due(p) ? -1
                  : p->noticed > 0             ? p->noticed + NOTICE_NS
                                               : 0;
}

static int64_t sooner(int64_t a, int64_t b) {
  return a < 0 || (b >= 0 && b < a) ? b : a;
}

static bool is_due(int64_t at, int64_t now) { return at >= 0 && at <= now; }

static bool line_due(const pp_line *line) {
  return line != NULL && line->due != NULL && line->due();
}

static bool attention(void *ud) {
  waiting *w = ud;

  if (w->p != NULL && ((w->text_at < 0 && has_text(w->p)) ||
                       (w->notices_at < 0 && notices_due(w->p))))
    return true; /* it is to be seen when these are due */
  return w->pressed || line_due(w->line);
}

static void on_key(uv_poll_t *h, int status, int events) {
  (void)status, (void)events;
  ((waiting *)h->data)->pressed = true;
  uv_poll_stop(h);
}

static void free_handle(uv_handle_t *h) { free(h); }

static int callbacks_due(lua_State *L) {
  pp_run_callbacks(L, pp_check_engine(L));
  return 0;
}

static void run_callbacks(lua_State *L) {
  lua_pushcfunction(L, callbacks_due);
  if (lua_pcall(L, 0, 0, 0) != LUA_OK) {
    const char *m = luaL_tolstring(L, -1, NULL);

    fflush(stdout);
    fprintf(stderr, "callback: %s\n", m);
    lua_pop(L, 2);
  }
  fflush(stdout);
}

static void hide(const pp_line *line) {
  if (line != NULL && line->hide != NULL)
    line->hide();
}

static void show(const pp_line *line) {
  if (line != NULL && line->show != NULL)
    line->show();
}

/* Callbacks, or text that was put aside: above the line. The lock held, but for
 * callbacks. */
static void above(lua_State *L, pp_engine *e, const pp_line *line, bool due) {
  pp_prompt *p = e->prompt;

  if (p != NULL && due)
    redirect(e, false);
  hide(line);
  if (p != NULL && has_text(p)) {
    write_text(p);
    p->shown = pp_now_ns();
  }
  if (due) {
    pp_engine_leave(e);
    run_callbacks(L);
    pp_engine_enter(e);
    if (e->meter.can && e->meter.midline) {
      fputs("\n", stdout);
      fflush(stdout);
      pp_meter_wrote(&e->meter, 0, true);
    }
  }
  show(line);
  if (p != NULL && due && p->typing)
    redirect(e, true);
}

/* No loop yet: nothing goes on. */
static void just_poll(pp_engine *e, int fd) {
  /* A signal that came since the caller looked has rung the bell. */
  struct pollfd both[2] = {{fd, POLLIN, 0},
                           {e != NULL ? e->bell : -1, POLLIN, 0}};
  uint64_t n;

  if (poll(both, 2, -1) > 0 && both[1].revents != 0)
    (void)!read(e->bell, &n, sizeof n);
}

void pp_prompt_wait(lua_State *L, int fd, const pp_line *line) {
  pp_engine *e = pp_engine_here();
  int flags = fcntl(fd, F_GETFL);
  waiting w = {e != NULL ? e->prompt : NULL, line, -1, -1, false};
  struct pollfd key = {fd, POLLIN, 0};
  uv_poll_t *h;
  bool due;

  if (e == NULL || !e->loop_open || (h = malloc(sizeof *h)) == NULL) {
    just_poll(e, fd);
    return;
  }
  pp_meter_hide(&e->meter);
  pp_engine_enter(e);
  if (uv_poll_init(&e->loop, h, fd) != 0) {
    pp_engine_leave(e);
    free(h);
    just_poll(e, fd); /* a plain file: always ready */
    return;
  }
  /* The terminal is also what is written to: that is to wait, not to fail. */
  if (flags >= 0 && (flags & O_NONBLOCK) == 0)
    fcntl(fd, F_SETFL, flags);
  h->data = &w;
  uv_poll_start(h, UV_READABLE, on_key);
  e->at_prompt = true;
  do {
    int64_t now;

    note_due(&w);
    pp_engine_wait(e, attention, &w, sooner(w.text_at, w.notices_at));
    note_due(&w);
    now = pp_now_ns();
    if (is_due(w.notices_at, now))
      notify(e, w.p->typing);
    due = e->callbacks > 0 && !e->in_callback;
    if (due || is_due(w.text_at, now) ||
        (is_due(w.notices_at, now) && has_text(w.p)))
      above(L, e, line, due);
    /* Where it never comes to sleep the loop does not look at keys. */
    w.pressed = w.pressed || poll(&key, 1, 0) > 0;
  } while (!w.pressed && !pp_interrupt_pending() && !line_due(line));
  e->at_prompt = false;
  uv_close((uv_handle_t *)h, free_handle);
  pp_engine_leave(e);
}

/* --- jobs ----------------------------------------------------------------- */

static void each_of(const pp_jobs *l, void (*f)(void *ud, pp_job *j),
                    void *ud) {
  for (pp_job *j = l->head; j != NULL; j = j->next)
    f(ud, j);
}

/* Unfinished jobs, those at work first. f changes nothing. */
static void each_job(pp_engine *e, const pp_server *s,
                     void (*f)(void *ud, pp_job *j), void *ud) {
  for (uint32_t i = 0; i < e->nlinks; i++)
    if (e->links[i] != NULL && e->links[i]->server == s)
      each_of(&e->links[i]->place.jobs, f, ud);
  each_of(&s->sched.queue, f, ud);
  for (const pp_class *c = s->sched.classes; c != NULL; c = c->next)
    each_of(&c->queue, f, ud);
  each_of(&s->sched.held, f, ud);
  each_of(&s->blocked, f, ud);
}

typedef struct gathering {
  pp_job **v; /* references */
  size_t n, cap;
  uint64_t first; /* id */
} gathering;

static void gather(void *ud, pp_job *j) {
  gathering *g = ud;

  if (j->id < g->first || pp_job_over(j) ||
      j->flags & (PP_JOB_CHILD | PP_JOB_CALL | PP_JOB_GHOST))
    return;
  if (g->n == g->cap) {
    size_t cap = g->cap > 0 ? g->cap * 2 : 64;
    pp_job **v = realloc(g->v, cap * sizeof *v);

    if (v == NULL)
      return;
    g->v = v;
    g->cap = cap;
  }
  g->v[g->n++] = pp_job_ref(j);
}

void pp_prompt_begin(lua_State *L) {
  pp_engine *e = pp_engine_here();

  (void)L;
  if (e == NULL || e->ended)
    return;
  pp_engine_enter(e);
  for (pp_server *s = e->servers; s != NULL; s = s->next)
    s->line_id = s->next_id;
  pp_engine_leave(e);
}

void pp_prompt_stop(lua_State *L) {
  pp_engine *e = pp_engine_here();

  (void)L;
  if (e == NULL || e->ended)
    return;
  pp_engine_enter(e);
  for (pp_server *s = e->servers; s != NULL; s = s->next) {
    gathering g = {.first = s->line_id};

    if (s->closed)
      continue;
    each_job(e, s, gather, &g);
    /* What waits first: nothing takes the place of what is stopped. */
    for (size_t i = g.n; i > 0; i--) {
      pp_server_stop(s, g.v[i - 1], PP_KIND_CANCELLED,
                     "cancelled by Ctrl-C at the prompt");
      pp_job_unref(g.v[i - 1], &e->blobs);
    }
    free(g.v);
  }
  pp_engine_leave(e);
}

/* What is told of one. */
typedef struct job_view {
  uint64_t id;
  char name[100], group[100];
  const char *state;
  uint16_t node;
  uint32_t worker, items;
  double seconds; /* since it began, or was submitted */
} job_view;

typedef struct viewing {
  pp_engine *e;
  job_view *v;
  size_t n, most, all;
  int64_t now;
} viewing;

static void view(void *ud, pp_job *j) {
  viewing *w = ud;
  job_view *v;
  int64_t at = -1;

  if (pp_job_over(j) || j->flags & (PP_JOB_CALL | PP_JOB_GHOST))
    return;
  if (w->all++ >= w->most)
    return;
  v = &w->v[w->n++];
  *v = (job_view){.id = j->id, .items = j->items, .node = j->node};
  if (j->more != NULL && j->more->name != NULL)
    snprintf(v->name, sizeof v->name, "%s", j->more->name);
  if (j->group != NULL)
    snprintf(v->group, sizeof v->group, "%.*s", (int)j->group->len,
             j->group->name);
  if (j->state == PP_JOB_SENT && j->place != NULL)
    at = j->place->ops->begun(j->place, j);
  if (at >= 0)
    v->worker = ((const pp_link *)(const void *)j->place)->number;
  v->state = at >= 0                      ? "running"
             : j->state == PP_JOB_BLOCKED ? "waiting"
             : j->state == PP_JOB_ENDING  ? "ending"
                                          : "queued";
  v->seconds = (double)(w->now - (at > 0 ? at : j->submitted)) / 1e9;
}

static void set_string(lua_State *L, const char *key, const char *s) {
  if (*s == '\0')
    return;
  lua_pushstring(L, s);
  lua_setfield(L, -2, key);
}

static void push_view(lua_State *L, pp_engine *e, const job_view *v) {
  lua_createtable(L, 0, 8);
  lua_pushinteger(L, (lua_Integer)v->id);
  lua_setfield(L, -2, "id");
  set_string(L, "name", v->name);
  set_string(L, "group", v->group);
  set_string(L, "state", v->state);
  lua_pushnumber(L, v->seconds);
  lua_setfield(L, -2, "seconds");
  if (v->items > 0) {
    lua_pushinteger(L, v->items);
    lua_setfield(L, -2, "items");
  }
  if (v->worker > 0) {
    lua_pushstring(L, pp_engine_name(e, v->node));
    lua_setfield(L, -2, "node");
    lua_pushinteger(L, v->worker);
    lua_setfield(L, -2, "worker");
  }
}

int pp_prompt_jobs(lua_State *L) {
  pp_engine *e = pp_check_engine(L);
  lua_Integer most = luaL_checkinteger(L, 1);
  viewing w = {.e = e, .most = (size_t)most, .now = pp_now_ns()};
  size_t done = 0, failed = 0;

  luaL_argcheck(L, most >= 0 && most <= 100000, 1, "out of range");
  w.v = lua_newuserdatauv(L, (w.most + 1) * sizeof *w.v, 0);
  pp_engine_enter(e);
  if (e->loop_open)
    pp_engine_look(e, w.now);
  for (pp_server *s = e->servers; s != NULL; s = s->next) {
    if (s->console)
      continue;
    each_job(e, s, view, &w);
    for (const pp_job *j = s->ended.head; j != NULL; j = j->next)
      if (j->state == PP_JOB_DONE)
        done++;
      else
        failed += !pp_job_dropped(j);
  }
  pp_engine_leave(e);
  lua_createtable(L, (int)w.n, 0);
  for (size_t i = 0; i < w.n; i++) {
    push_view(L, e, &w.v[i]);
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
  lua_pushinteger(L, (lua_Integer)w.all);
  lua_pushinteger(L, (lua_Integer)done);
  lua_pushinteger(L, (lua_Integer)failed);
  return 4;
}

int pp_prompt_servers(lua_State *L) {
  pp_engine *e = pp_check_engine(L);
  lua_Integer n = 0;

  lua_newtable(L);
  for (const pp_server *s = e->servers; s != NULL; s = s->next) {
    if (s->closed || s->console)
      continue;
    if (pp_push_server_of(L, s))
      lua_rawseti(L, -2, ++n);
    else
      lua_pop(L, 1);
  }
  return 1;
}
