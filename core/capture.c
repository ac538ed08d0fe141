/* SPDX-License-Identifier: MIT */
#include "capture.h"

#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "proc.h"

/* A job that ran for less cannot have started a process. */
#define BRIEF_NS 10000
/* Descriptors of our own stay out of the way of the low ones. */
#define FD_LOW 10
/* How long to wait for killed processes to go. */
#define GOING_MS 1000

struct pp_capture {
  pp_outlet outlet[2];
  int empty;      /* what a job's stdin is */
  int w[2];       /* write ends of the outlets' pipes */
  int keep[3];    /* where 0, 1, 2 are meanwhile */
  int mark;       /* the number of the descriptor by which children are known */
  int cwd;        /* of the script, meanwhile; -1 */
  int last;       /* open /proc/loadavg: the last process that was started */
  FILE *real[2];  /* upon keep[1], keep[2] */
  struct stat is; /* of the first pipe */
  long newest;    /* process, when it was last looked */
  char locale[256];
  bool on, foreign; /* foreign: the script's locale is not "C" */
};

/* --- child processes ------------------------------------------------------ */

static bool not_of_job(void *ud, pid_t pid) {
  const pp_capture *c = ud;

  return !pp_proc_leads(pid, c->mark, c->is.st_dev, c->is.st_ino) &&
         !pp_proc_leads(pid, 1, c->is.st_dev, c->is.st_ino);
}

void pp_capture_kill(const pp_engine *e) {
  pp_capture *c = e->capture;

  if (c != NULL && c->on)
    pp_proc_kill_children(not_of_job, c);
}

/* The id of the process started last on this machine; -1 unknown. */
static long newest(const pp_capture *c) {
  char text[128], *at;
  ssize_t n = pread(c->last, text, sizeof text - 1, 0);

  if (n <= 0)
    return -1;
  text[n] = '\0';
  at = strrchr(text, ' ');
  return at != NULL ? atol(at) : -1;
}

typedef struct killed {
  const pp_capture *c;
  pid_t pids[64];
  size_t n;
} killed;

static bool spare(void *ud, pid_t pid) {
  killed *k = ud;

  if (k->n == sizeof k->pids / sizeof *k->pids ||
      not_of_job((void *)(uintptr_t)k->c, pid))
    return true;
  k->pids[k->n++] = pid;
  return false;
}

void pp_capture_reap(pp_engine *e, int64_t run) {
  pp_capture *c = e->capture;
  int64_t give_up;
  long last;

  if (run < BRIEF_NS)
    return;
  last = newest(c);
  if (last >= 0 && last == c->newest)
    return;
  give_up = pp_now_ns() + GOING_MS * (int64_t)1000000;
  for (;;) {
    killed k = {.c = c};

    /* What those leave behind comes to this process, and has its turn. */
    if (pp_proc_kill_children(spare, &k) == 0)
      break;
    for (size_t i = 0; i < k.n; i++)
      while (waitpid(k.pids[i], NULL, WNOHANG) == 0 && pp_now_ns() < give_up)
        poll(NULL, 0, 1);
    if (pp_now_ns() >= give_up)
      break;
  }
  c->newest = newest(c);
}

/* --- output --------------------------------------------------------------- */

static void on_output(uv_poll_t *h, int status, int events) {
  pp_capture *c = h->data;
  pp_outlet *o = &c->outlet[h == &c->outlet[1].poll];

  (void)events;
  if (status < 0 || !pp_outlet_read(o)) {
    uv_poll_stop(h);
    return;
  }
  pp_outlet_pass(o, o->read, false);
}

void pp_capture_job(pp_engine *e, const pp_server *s) {
  pp_capture *c = e->capture;

  for (int k = 0; k < 2; k++) {
    c->outlet[k].mode = s->output;
    strcpy(c->outlet[k].prefix, s->by_host ? "[local] " : "[local/0] ");
  }
  if (e->cwd >= 0 && c->cwd >= 0)
    (void)!fchdir(e->cwd);
}

int pp_capture_visit(const pp_engine *e) {
  const pp_capture *c = e->capture;
  int away;

  if (c == NULL || !c->on || c->cwd < 0)
    return -1;
  away = open(".", O_PATH | O_CLOEXEC);
  if (away >= 0 && fchdir(c->cwd) != 0) {
    close(away);
    away = -1;
  }
  return away;
}

void pp_capture_return(int away) {
  if (away < 0)
    return;
  (void)!fchdir(away);
  close(away);
}

void pp_capture_settle(pp_engine *e, pp_job *j) {
  pp_capture *c = e->capture;

  for (int k = 0; k < 2; k++) {
    pp_outlet *o = &c->outlet[k];

    pp_outlet_read_to(o, UINT64_MAX);
    if (o->mode == PP_OUTPUT_JOB)
      pp_outlet_collect(o, o->read,
                        j != NULL && o->text.len > 0 ? pp_job_output(j, k)
                                                     : NULL);
    else
      pp_outlet_pass(o, o->read, true);
  }
  pp_engine_flush(e);
}

void pp_capture_aside(pp_engine *e, pp_job *j, pp_buf kept[2]) {
  pp_capture *c = e->capture;

  for (int k = 0; k < 2; k++) {
    pp_outlet *o = &c->outlet[k];

    pp_outlet_read_to(o, UINT64_MAX);
    if (o->mode == PP_OUTPUT_JOB)
      pp_outlet_collect(o, o->read,
                        o->text.len > 0 ? pp_job_output(j, k) : NULL);
    else
      pp_outlet_pass(o, o->read, false);
    kept[k] = o->text;
    o->passed += o->text.len;
    memset(&o->text, 0, sizeof o->text);
  }
}

void pp_capture_back(pp_engine *e, pp_buf kept[2]) {
  for (int k = 0; k < 2; k++) {
    pp_outlet *o = &e->capture->outlet[k];

    if (kept[k].len == 0) {
      pp_buf_clear(&kept[k]);
      continue;
    }
    pp_buf_clear(&o->text);
    o->text = kept[k];
    o->passed = o->read - o->text.len;
  }
}

/* --- begin and end -------------------------------------------------------- */

static int high(int fd) { return fcntl(fd, F_DUPFD_CLOEXEC, FD_LOW); }

/* A stream upon a duplicate of fd. */
static FILE *stream(int fd, int *number) {
  FILE *f;

  *number = high(fd);
  f = *number >= 0 ? fdopen(*number, "w") : NULL;
  if (f == NULL && *number >= 0)
    close(*number);
  return f;
}

static pp_capture *make(pp_engine *e) {
  pp_capture *c = calloc(1, sizeof *c);
  int pipes[2][2] = {{-1, -1}, {-1, -1}}, null, why;

  if (c == NULL)
    return NULL;
  c->cwd = c->mark = -1;
  for (int k = 0; k < 2; k++)
    c->w[k] = c->outlet[k].fd = -1;
  null = open("/dev/null", O_RDONLY | O_CLOEXEC);
  c->empty = null >= 0 ? high(null) : -1;
  if (null >= 0)
    close(null);
  c->keep[0] = high(0);
  c->real[0] = stream(1, &c->keep[1]);
  c->real[1] = stream(2, &c->keep[2]);
  if (c->empty < 0 || c->keep[0] < 0 || c->real[0] == NULL ||
      c->real[1] == NULL || pipe2(pipes[0], O_CLOEXEC) != 0 ||
      pipe2(pipes[1], O_CLOEXEC) != 0)
    goto fail;
  for (int k = 0; k < 2; k++) {
    pp_outlet *o = &c->outlet[k];

    o->fd = high(pipes[k][0]);
    c->w[k] = high(pipes[k][1]);
    close(pipes[k][0]), close(pipes[k][1]);
    pipes[k][0] = pipes[k][1] = -1;
    if (o->fd < 0 || c->w[k] < 0)
      goto fail;
    o->which = k;
    o->to = &e->out[k];
    o->meter = &e->meter;
    o->dirty = &e->dirty[k];
    fcntl(o->fd, F_SETFL, fcntl(o->fd, F_GETFL) | O_NONBLOCK);
  }
  if (fstat(c->w[0], &c->is) != 0 ||
      uv_poll_init(&e->loop, &c->outlet[0].poll, c->outlet[0].fd) != 0)
    goto fail;
  if (uv_poll_init(&e->loop, &c->outlet[1].poll, c->outlet[1].fd) != 0)
    return NULL; /* cannot be: the loop has the first */
  for (int k = 0; k < 2; k++) {
    c->outlet[k].poll.data = c;
    uv_poll_start(&c->outlet[k].poll, UV_READABLE, on_output);
  }
  c->mark = fcntl(c->w[0], F_DUPFD_CLOEXEC, 100);
  c->last = open("/proc/loadavg", O_RDONLY | O_CLOEXEC);
  e->capture = c;
  return c;
fail:
  why = errno;
  for (int k = 0; k < 2; k++) {
    if (pipes[k][0] >= 0)
      close(pipes[k][0]), close(pipes[k][1]);
    if (c->real[k] != NULL)
      fclose(c->real[k]);
    if (c->w[k] >= 0)
      close(c->w[k]);
    if (c->outlet[k].fd >= 0)
      close(c->outlet[k].fd);
  }
  if (c->empty >= 0)
    close(c->empty);
  if (c->keep[0] >= 0)
    close(c->keep[0]);
  free(c);
  errno = why;
  return NULL;
}

int pp_capture_begin(pp_engine *e) {
  pp_capture *c = e->capture;
  const char *locale;

  if (c == NULL)
    c = make(e);
  if (c == NULL)
    return PP_ESYS;
  if (c->on)
    return 0;
  pp_engine_flush(e);
  fflush(stdout), fflush(stderr);
  for (int fd = 0; fd < 3; fd++)
    if (dup3(fd, c->keep[fd], O_CLOEXEC) < 0)
      return PP_ESYS;
  c->on = true;
  dup2(c->empty, 0);
  dup2(c->w[0], 1);
  dup2(c->w[1], 2);
  if (c->mark >= 0)
    fcntl(c->mark, F_SETFD, 0);
  e->out[0] = c->real[0];
  e->out[1] = c->real[1];
  locale = setlocale(LC_ALL, NULL);
  c->foreign = locale != NULL && strcmp(locale, "C") != 0;
  if (c->foreign) {
    snprintf(c->locale, sizeof c->locale, "%s", locale);
    setlocale(LC_ALL, "C");
  }
  c->cwd = open(".", O_PATH | O_CLOEXEC);
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  e->hub->mark = c->mark;
  e->hub->mark_device = c->is.st_dev;
  atomic_store(&e->hub->mark_inode, c->is.st_ino);
  c->newest = newest(c);
  return 0;
}

void pp_capture_end(pp_engine *e) {
  pp_capture *c = e->capture;
  const char *locale;

  if (c == NULL || !c->on)
    return;
  c->on = false;
  atomic_store(&e->hub->mark_inode, 0);
  fflush(e->out[0]), fflush(e->out[1]);
  e->out[0] = stdout;
  e->out[1] = stderr;
  for (int fd = 0; fd < 3; fd++)
    dup2(c->keep[fd], fd);
  if (c->mark >= 0)
    fcntl(c->mark, F_SETFD, FD_CLOEXEC);
  prctl(PR_SET_CHILD_SUBREAPER, 0);
  locale = setlocale(LC_ALL, NULL);
  if (c->foreign || (locale != NULL && strcmp(locale, "C") != 0))
    setlocale(LC_ALL, c->foreign ? c->locale : "C");
  if (c->cwd >= 0) {
    (void)!fchdir(c->cwd);
    close(c->cwd);
  }
  c->cwd = -1;
}
