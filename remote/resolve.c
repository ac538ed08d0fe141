/* SPDX-License-Identifier: MIT */
#include "resolve.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "config.h"

enum { TIMEOUT_MS = 20000, STDERR_MAX = 4096, PIECE = 16 << 10 };

/* One run of the program: three handles that close together. */
typedef struct run {
  pp_resolving *g; /* NULL: nobody wants it any more */
  pp_resolver *r;
  uv_process_t process;
  uv_pipe_t pipe[2]; /* its stdout and stderr */
  uv_timer_t timer;
  pp_buf out, err;
  int64_t status;
  int signal;
  int ends;    /* still to come: its exit and both ends of file */
  int handles; /* still to be closed */
  bool exited, timed_out, too_much;
  char buf[PIECE];
} run;

struct pp_resolving {
  pp_resolving *prev, *next; /* in the resolver's list of all */
  pp_resolving *wait;        /* in its queue */
  pp_resolver *r;
  run *run; /* NULL: not running */
  bool queued;
  pp_resolved cb;
  void *ud;
  pp_hop hop;     /* whom to ask for next; the host itself at first */
  pp_target *t;   /* the answers so far */
  pp_target **at; /* where the next goes: &t, or the via of the last */
  int hops;
};

struct pp_resolver {
  uv_loop_t *loop;
  uv_timer_t turn; /* starts what is queued from the loop */
  pp_local local;
  char *ssh, *config_file;
  pp_transport transport;
  int at_once, timeout_ms;
  int running, handles; /* handles: what must close before memory goes */
  bool freed;
  bool named; /* the program was: it must be there */
  pp_resolving *all, *head, **tail;
};

static char *copy_of(const char *s) {
  size_t n = strlen(s) + 1;
  char *copy = pp_buf_realloc(NULL, n);

  return copy != NULL ? memcpy(copy, s, n) : NULL;
}

/* --- the end of a request ------------------------------------------------- */

static void free_resolver(pp_resolver *r) {
  if (!r->freed || r->handles > 0)
    return;
  pp_local_clear(&r->local);
  pp_buf_realloc(r->ssh, 0);
  pp_buf_realloc(r->config_file, 0);
  pp_buf_realloc(r, 0);
}

/* Take it out of everything. A run that is under way goes on by itself. */
static void detach(pp_resolving *g) {
  pp_resolver *r = g->r;

  if (g->prev != NULL)
    g->prev->next = g->next;
  else
    r->all = g->next;
  if (g->next != NULL)
    g->next->prev = g->prev;
  if (g->queued) {
    pp_resolving **p = &r->head;

    while (*p != g)
      p = &(*p)->wait;
    *p = g->wait;
    if (r->tail == &g->wait)
      r->tail = p;
  }
  if (g->run != NULL)
    g->run->g = NULL;
  pp_hop_clear(&g->hop);
  pp_target_free(g->t);
}

/* Tell, and free. Either t or reason. */
static void done(pp_resolving *g, const char *reason) {
  pp_target *t = reason == NULL ? g->t : NULL;
  pp_resolved cb = g->cb;
  void *ud = g->ud;

  if (t != NULL)
    g->t = NULL;
  detach(g);
  pp_buf_realloc(g, 0);
  cb(ud, t, reason);
}

static void enqueue(pp_resolving *g);

/* An answer was hung on. Ask for the host it goes via, or be done. */
static void step(pp_resolving *g) {
  pp_target *last = *g->at;
  char why[512];
  int r = 0;

  pp_hop_clear(&g->hop);
  if (last->jump == NULL) {
    /* One hop that takes ssh makes all of it take ssh. */
    for (pp_target *v = g->t->via; v != NULL && g->t->needs_ssh == NULL;
         v = v->via)
      if (v->needs_ssh != NULL) {
        snprintf(why, sizeof why, "jump host '%s': %s", v->name, v->needs_ssh);
        g->t->needs_ssh = copy_of(why);
        if (g->t->needs_ssh == NULL)
          r = PP_ENOMEM;
        break;
      }
    done(g, r < 0 ? pp_strerror(r) : NULL);
    return;
  }
  if (++g->hops > PP_HOPS_MAX) {
    done(g, "ProxyJump goes over too many hosts");
    return;
  }
  r = pp_hop_parse(&g->hop, last->jump);
  if (r < 0) {
    snprintf(why, sizeof why, "ProxyJump '%.200s' cannot be read", last->jump);
    done(g, r == PP_EBAD ? why : pp_strerror(r));
    return;
  }
  g->at = &last->via;
  enqueue(g);
}

static void answer(pp_resolving *g, const char *text, size_t len) {
  const pp_resolver *r = g->r;
  const pp_wanted w = {
      .name = g->hop.name,
      .host = g->hop.host,
      .user = g->hop.user,
      .port = g->hop.port,
      .config_file = r->config_file,
      .ssh_program = text != NULL ? r->ssh : NULL,
      .transport = r->transport,
  };
  char reason[256] = "";
  int e = text != NULL ? pp_config_parse(g->at, &w, text, len, &r->local,
                                         reason, sizeof reason)
                       : pp_config_defaults(g->at, &w, &r->local);

  if (e < 0) {
    *g->at = NULL;
    done(g, reason[0] != '\0' ? reason : pp_strerror(e));
    return;
  }
  step(g);
}

/* --- a run ------------------------------------------------------------------
 */

/* The line of stderr that says most: the first that is no mere remark. */
static void complain(const run *u, char *out, size_t size) {
  const char *p = u->err.len > 0 ? (const char *)u->err.data : "";
  const char *end = p + u->err.len;
  size_t n = 0;

  while (p < end) {
    const char *nl = memchr(p, '\n', (size_t)(end - p));

    n = (size_t)((nl != NULL ? nl : end) - p);
    if (n > 0 && strncmp(p, "Pseudo-terminal", n < 15 ? n : 15) != 0)
      break;
    p += n + 1;
    n = 0;
  }
  if (u->timed_out)
    snprintf(out, size, "ssh -G did not answer in time");
  else if (u->too_much)
    snprintf(out, size, "ssh -G said too much");
  else if (n > 0)
    snprintf(out, size, "ssh -G: %.*s", (int)(n < 300 ? n : 300), p);
  else if (u->signal != 0)
    snprintf(out, size, "ssh -G was killed by signal %d", u->signal);
  else
    snprintf(out, size, "ssh -G ended with exit status %d", (int)u->status);
  for (char *c = out; *c != '\0'; c++)
    if ((unsigned char)*c < ' ' || *c == 0x7f)
      *c = ' ';
}

static void on_run_closed(uv_handle_t *h) {
  run *u = h->data;
  pp_resolver *r = u->r;

  if (--u->handles > 0)
    return;
  r->handles--;
  pp_buf_clear(&u->out);
  pp_buf_clear(&u->err);
  pp_buf_realloc(u, 0);
  free_resolver(r);
}

static void turn_soon(pp_resolver *r);

/* It ended and said all: judge it. */
static void end_run(run *u) {
  pp_resolver *r = u->r;
  pp_resolving *g = u->g;
  char why[400];

  uv_close((uv_handle_t *)&u->process, on_run_closed);
  uv_close((uv_handle_t *)&u->pipe[0], on_run_closed);
  uv_close((uv_handle_t *)&u->pipe[1], on_run_closed);
  uv_close((uv_handle_t *)&u->timer, on_run_closed);
  r->running--;
  if (r->head != NULL)
    turn_soon(r);
  if (g == NULL)
    return;
  g->run = NULL;
  if (u->exited && u->status == 0 && u->signal == 0 && !u->too_much) {
    answer(g, u->out.len > 0 ? (const char *)u->out.data : "", u->out.len);
    return;
  }
  complain(u, why, sizeof why);
  done(g, why);
}

static void over(run *u) {
  if (--u->ends == 0)
    end_run(u);
}

/* What Match exec may have started belongs to its group and goes too. */
static void kill_run(run *u) {
  if (!u->exited && u->process.pid > 0) {
    kill(-u->process.pid, SIGKILL);
    uv_process_kill(&u->process, SIGKILL);
  }
}

static void on_exit(uv_process_t *p, int64_t status, int sig) {
  run *u = p->data;

  u->exited = true;
  u->status = status;
  u->signal = sig;
  over(u);
}

static void on_timeout(uv_timer_t *t) {
  run *u = t->data;

  u->timed_out = true;
  if (!u->exited) {
    kill_run(u);
    return;
  }
  /* It is gone, but something it started holds on to its output. */
  u->status = -1;
  end_run(u);
}

static void on_alloc(uv_handle_t *h, size_t wanted, uv_buf_t *buf) {
  run *u = h->data;

  (void)wanted;
  *buf = uv_buf_init(u->buf, sizeof u->buf);
}

static void on_read(uv_stream_t *s, ssize_t n, const uv_buf_t *buf) {
  run *u = s->data;
  bool is_err = s == (uv_stream_t *)&u->pipe[1];
  pp_buf *b = is_err ? &u->err : &u->out;
  size_t room = (is_err ? STDERR_MAX : PP_CONFIG_MAX) - b->len;

  if (n == 0)
    return;
  if (n < 0) {
    uv_read_stop(s);
    over(u);
    return;
  }
  if ((size_t)n > room) {
    if (!is_err) {
      u->too_much = true;
      kill_run(u);
    }
    n = (ssize_t)room;
  }
  if (pp_buf_put(b, buf->base, (size_t)n) < 0) {
    u->too_much = true; /* for us */
    kill_run(u);
  }
}

/* Start the program. 0, or uv's error. */
static int start(pp_resolving *g) {
  pp_resolver *r = g->r;
  run *u = pp_buf_realloc(NULL, sizeof *u);
  char port[16];
  char *args[20];
  int n = 0, e;
  uv_stdio_container_t stdio[3];
  uv_process_options_t o = {
      .exit_cb = on_exit,
      .file = r->ssh,
      .args = args,
      .flags = UV_PROCESS_DETACHED, /* a group of its own, to be killed */
      .stdio = stdio,
      .stdio_count = 3,
  };

  if (u == NULL)
    return UV_ENOMEM;
  memset(u, 0, offsetof(run, buf));
  u->g = g;
  u->r = r;
  args[n++] = r->ssh;
  args[n++] = "-T";                   /* else it may remark on terminals */
  args[n++] = "-oRemoteCommand=none"; /* there is one, else it may not fork */
  if (r->config_file != NULL) {
    args[n++] = "-F";
    args[n++] = r->config_file;
  }
  if (g->hop.port > 0) {
    snprintf(port, sizeof port, "%d", g->hop.port);
    args[n++] = "-p";
    args[n++] = port;
  }
  if (g->hop.user != NULL) {
    args[n++] = "-l";
    args[n++] = g->hop.user;
  }
  if (g->hop.before != NULL) {
    args[n++] = "-J";
    args[n++] = g->hop.before;
  }
  args[n++] = "-G";
  args[n++] = "--"; /* a host is no option */
  args[n++] = g->hop.host;
  args[n++] = "true";
  args[n] = NULL;
  uv_timer_init(r->loop, &u->timer);
  stdio[0].flags = UV_IGNORE;
  for (int i = 0; i < 2; i++) {
    uv_pipe_init(r->loop, &u->pipe[i], 0);
    u->pipe[i].data = u;
    stdio[i + 1].flags = UV_CREATE_PIPE | UV_WRITABLE_PIPE;
    stdio[i + 1].data.stream = (uv_stream_t *)&u->pipe[i];
  }
  u->timer.data = u->process.data = u;
  u->handles = 4;
  r->handles++;
  e = uv_spawn(r->loop, &u->process, &o);
  if (e < 0) { /* the handle is there all the same, and must be closed */
    u->g = NULL;
    uv_close((uv_handle_t *)&u->process, on_run_closed);
    uv_close((uv_handle_t *)&u->pipe[0], on_run_closed);
    uv_close((uv_handle_t *)&u->pipe[1], on_run_closed);
    uv_close((uv_handle_t *)&u->timer, on_run_closed);
    return e;
  }
  g->run = u;
  r->running++;
  u->ends = 3;
  uv_read_start((uv_stream_t *)&u->pipe[0], on_alloc, on_read);
  uv_read_start((uv_stream_t *)&u->pipe[1], on_alloc, on_read);
  uv_timer_start(&u->timer, on_timeout, (uint64_t)r->timeout_ms,
                 (uint64_t)r->timeout_ms);
  return 0;
}

/* --- the queue --------------------------------------------------------------
 */

static void on_turn(uv_timer_t *t) {
  pp_resolver *r = t->data;

  /* A callback may cancel, ask for more, or free the resolver. */
  while (!r->freed && r->head != NULL && r->running < r->at_once) {
    pp_resolving *g = r->head;
    char why[256];
    int e;

    r->head = g->wait;
    if (r->head == NULL)
      r->tail = &r->head;
    g->wait = NULL;
    g->queued = false;
    e = start(g);
    if (e == UV_ENOENT && !r->named) {
      answer(g, NULL, 0);
    } else if (e < 0) {
      snprintf(why, sizeof why, "cannot run '%s': %s", r->ssh, uv_strerror(e));
      done(g, why);
    }
  }
}

static void turn_soon(pp_resolver *r) {
  if (!r->freed)
    uv_timer_start(&r->turn, on_turn, 0, 0);
}

static void enqueue(pp_resolving *g) {
  pp_resolver *r = g->r;

  g->queued = true;
  g->wait = NULL;
  *r->tail = g;
  r->tail = &g->wait;
  turn_soon(r);
}

pp_resolving *pp_config_resolve(pp_resolver *r, const pp_host *h,
                                pp_resolved cb, void *ud) {
  pp_resolving *g = pp_buf_realloc(NULL, sizeof *g);

  if (g == NULL)
    return NULL;
  *g = (pp_resolving){.r = r, .cb = cb, .ud = ud};
  g->at = &g->t;
  g->hop.name = copy_of(h->name);
  g->hop.host = copy_of(h->host);
  g->hop.port = h->port;
  if (h->user != NULL)
    g->hop.user = copy_of(h->user);
  if (g->hop.name == NULL || g->hop.host == NULL ||
      (h->user != NULL && g->hop.user == NULL)) {
    pp_hop_clear(&g->hop);
    pp_buf_realloc(g, 0);
    return NULL;
  }
  g->next = r->all;
  if (g->next != NULL)
    g->next->prev = g;
  r->all = g;
  enqueue(g);
  return g;
}

void pp_config_cancel(pp_resolving *g) {
  if (g->run != NULL)
    kill_run(g->run);
  detach(g);
  pp_buf_realloc(g, 0);
}

/* --- the resolver ------------------------------------------------------------
 */

pp_resolver *pp_resolver_new(uv_loop_t *loop, const pp_resolver_options *o) {
  pp_resolver *r = pp_buf_realloc(NULL, sizeof *r);
  long cpus = sysconf(_SC_NPROCESSORS_ONLN);

  if (r == NULL)
    return NULL;
  *r = (pp_resolver){
      .loop = loop,
      .transport = o->transport,
      .named = o->ssh != NULL || o->config_file != NULL,
      .at_once = o->at_once > 0 ? o->at_once
                 : cpus > 2     ? (int)cpus * 2
                                : 4,
      .timeout_ms = o->timeout_ms > 0 ? o->timeout_ms : TIMEOUT_MS,
  };
  r->tail = &r->head;
  r->ssh = copy_of(o->ssh != NULL ? o->ssh : "ssh");
  if (o->config_file != NULL)
    r->config_file = copy_of(o->config_file);
  if (r->ssh == NULL || (o->config_file != NULL && r->config_file == NULL) ||
      pp_local_init(&r->local) < 0) {
    r->freed = true;
    free_resolver(r);
    return NULL;
  }
  uv_timer_init(loop, &r->turn);
  r->turn.data = r;
  r->handles = 1;
  return r;
}

static void on_turn_closed(uv_handle_t *h) {
  pp_resolver *r = h->data;

  r->handles--;
  free_resolver(r);
}

void pp_resolver_free(pp_resolver *r) {
  if (r == NULL || r->freed)
    return;
  while (r->all != NULL)
    pp_config_cancel(r->all);
  r->freed = true;
  uv_close((uv_handle_t *)&r->turn, on_turn_closed);
}
