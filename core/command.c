/* SPDX-License-Identifier: MIT */
#include "command.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base.h"

extern char **environ;

/* Read at a time: what a pipe holds. */
#define READ_BYTES 65536u
/* Read of what is in a pipe when it has ended, as others may still write. */
#define LAST_WORDS (1u << 20)
/* From SIGTERM to SIGKILL; who stops a job kills its worker after a second. */
#define GRACE_NS 400000000
/* How often to look for its end where the kernel has no pidfd. */
#define LOOK_MS 20

enum { IN, OUT, ERR, END, NFDS };

/* One run. Descriptors are -1 when they are closed. */
typedef struct run {
  const pp_command *c;
  pp_command_end *end;
  pid_t pid;
  struct pollfd fds[NFDS]; /* END: a pidfd */
  int file[2];
  pp_buf fed; /* input that was taken and not yet written, from `at` on */
  size_t at;
  uint64_t had; /* bytes of input it was given */
  bool asked, ended, reaped;
  int64_t began, kill_at; /* SIGKILL is due; 0: no */
} run;

static void close_fd(int *fd) {
  if (*fd >= 0)
    close(*fd);
  *fd = -1;
}

static int sys(pp_command_end *end, const char *what) {
  end->what = what;
  return PP_ESYS;
}

/* --- the start ------------------------------------------------------------ */

/* The pipe for one of its descriptors: ours in *ours, its in *its. A number
 * that is one of the standard ones is not used: it would be replaced before it
 * is put in place. */
static int open_pipe(bool input, int *ours, int *its) {
  int p[2];

  if (pipe2(p, O_CLOEXEC) < 0)
    return PP_ESYS;
  for (int k = 0; k < 2; k++)
    if (p[k] <= 2) {
      int high = fcntl(p[k], F_DUPFD_CLOEXEC, 3), why = errno;

      close(p[k]);
      p[k] = high;
      if (high < 0) {
        close_fd(&p[1 - k]);
        errno = why;
        return PP_ESYS;
      }
    }
  *ours = p[input];
  *its = p[!input];
  fcntl(*ours, F_SETFL, O_NONBLOCK);
  return 0;
}

static int spawn(run *r, const int its[3]) {
  const pp_command *c = r->c;
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attr;
  sigset_t none;
  int e;

  posix_spawnattr_init(&attr);
  sigemptyset(&none);
  posix_spawnattr_setsigmask(&attr, &none);
  posix_spawnattr_setpgroup(&attr, 0);
  posix_spawnattr_setflags(&attr,
                           POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK);
  posix_spawn_file_actions_init(&actions);
  e = 0;
  for (int k = 0; k < 3 && e == 0; k++)
    if (its[k] >= 0)
      e = posix_spawn_file_actions_adddup2(&actions, its[k], k);
  if (e == 0 && c->cwd != NULL)
    e = posix_spawn_file_actions_addchdir_np(&actions, c->cwd);
  if (e == 0)
    e = posix_spawnp(&r->pid, c->argv[0], &actions, &attr, c->argv,
                     c->env != NULL ? c->env : environ);
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attr);
  if (e == 0)
    return 0;
  r->pid = 0;
  if (c->cwd != NULL && e != ENOMEM && e != EAGAIN) {
    int dir = open(c->cwd, O_PATH | O_DIRECTORY | O_CLOEXEC);

    if (dir < 0 || faccessat(dir, ".", X_OK, AT_EACCESS) < 0) {
      e = errno;
      close_fd(&dir);
      errno = e;
      return sys(r->end, "cwd");
    }
    close(dir);
  }
  errno = e;
  return sys(r->end, "run");
}

static int start(run *r) {
  const pp_command *c = r->c;
  int its[3] = {-1, -1, -1}, e = 0, why;

  if (c->in != NULL || c->feed != NULL)
    e = open_pipe(true, &r->fds[IN].fd, &its[0]);
  if (e == 0 && c->to == PP_COMMAND_KEEP)
    e = open_pipe(false, &r->fds[OUT].fd, &its[1]);
  if (e == 0 && c->to == PP_COMMAND_KEEP)
    e = open_pipe(false, &r->fds[ERR].fd, &its[2]);
  if (e != 0)
    sys(r->end, "pipe");
  r->began = pp_now_ns();
  if (e == 0)
    e = spawn(r, its);
  why = errno;
  for (int k = 0; k < 3; k++)
    close_fd(&its[k]);
  errno = why;
  return e;
}

/* --- while it runs -------------------------------------------------------- */

/* All at once, so that nothing it has started is left. */
static void kill_group(run *r, int sig) {
  if (!r->reaped)
    kill(-r->pid, sig);
}

/* Have it end: it is asked to first. */
static void stop(run *r) {
  if (r->kill_at != 0)
    return;
  kill_group(r, SIGTERM);
  kill_group(r, SIGCONT); /* one that is stopped would not hear it */
  r->kill_at = pp_now_ns() + GRACE_NS;
}

static int write_all(int fd, const unsigned char *p, size_t n) {
  while (n > 0) {
    ssize_t k = write(fd, p, n);

    if (k < 0 && errno != EINTR)
      return PP_ESYS;
    p += k > 0 ? k : 0;
    n -= k > 0 ? (size_t)k : 0;
  }
  return 0;
}

/* It has written more than is kept: into a file with that, and all that is to
 * come. */
static int spill(run *r, int s) {
  pp_command_end *e = r->end;
  pp_buf *b = &e->out[s];

  if (r->c->spill == NULL) {
    if (e->over == 0)
      e->over = s + 1;
    stop(r);
    b->len = 0;
    return 0;
  }
  if (e->file[s] == NULL) {
    size_t len = strlen(r->c->spill) + sizeof "/ppsh-XXXXXX";

    e->file[s] = malloc(len);
    if (e->file[s] == NULL)
      return PP_ENOMEM;
    snprintf(e->file[s], len, "%s/ppsh-XXXXXX", r->c->spill);
    r->file[s] = mkostemp(e->file[s], O_CLOEXEC);
    if (r->file[s] < 0) {
      int why = errno;

      free(e->file[s]);
      e->file[s] = NULL;
      errno = why;
      return sys(e, "spill");
    }
  }
  if (write_all(r->file[s], b->data, b->len) != 0)
    return sys(e, "spill");
  b->len = 0;
  return 0;
}

/* Read what is in a pipe. */
static int read_stream(run *r, int s) {
  pp_command_end *e = r->end;
  pp_buf *b = &e->out[s];
  int *fd = &r->fds[OUT + s].fd;

  for (;;) {
    size_t room;
    ssize_t n;

    if (pp_buf_reserve(b, 4096) != 0)
      return PP_ENOMEM;
    room = b->cap - b->len;
    n = read(*fd, b->data + b->len, room < READ_BYTES ? room : READ_BYTES);
    if (n < 0)
      return errno == EAGAIN || errno == EINTR ? 0 : sys(e, "read");
    if (n == 0) {
      close_fd(fd);
      return 0;
    }
    b->len += (size_t)n;
    e->written[s] += (uint64_t)n;
    if (e->file[s] != NULL ? b->len >= READ_BYTES : b->len > r->c->limit) {
      int x = spill(r, s);

      if (x != 0)
        return x;
    }
    if (n < 4096)
      return 0;
  }
}

/* Give it input as far as it takes some; who reads no more is not told. */
static void write_input(run *r) {
  const char *p = r->c->in;
  size_t len = r->c->in_len, *at = &r->at;
  int *fd = &r->fds[IN].fd;

  if (r->c->feed != NULL) {
    p = (const char *)r->fed.data;
    len = r->fed.len;
  }
  while (*fd >= 0 && *at < len) {
    ssize_t n = write(*fd, p + *at, len - *at);

    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0 && errno == EAGAIN)
      return;
    if (n < 0) {
      static const struct timespec now;
      sigset_t pipe;

      sigemptyset(&pipe);
      sigaddset(&pipe, SIGPIPE);
      if (errno == EPIPE) /* it is blocked, and not meant for us */
        sigtimedwait(&pipe, NULL, &now);
      close_fd(fd);
    } else {
      *at += (size_t)n;
    }
  }
  if (r->c->feed == NULL && *fd >= 0)
    close_fd(fd);
}

/* Take more input, when all there was is written. */
static void take_input(run *r) {
  const pp_command_feed *f = r->c->feed;

  while (r->fds[IN].fd >= 0 && r->at == r->fed.len) {
    int got;

    if (!r->asked) {
      f->ask(f->ud, r->had);
      r->asked = true;
    }
    r->at = r->fed.len = 0;
    got = f->take(f->ud, &r->fed);
    if (got == 0)
      return;
    r->asked = false;
    if (got < 0) {
      close_fd(&r->fds[IN].fd);
      return;
    }
    r->had += r->fed.len;
    write_input(r);
  }
}

static bool has_ended(run *r, int how) {
  siginfo_t info = {0};

  if (!r->ended &&
      waitid(P_PID, (id_t)r->pid, &info, how | WEXITED | WNOWAIT) == 0)
    r->ended = info.si_pid != 0;
  return r->ended;
}

/* How long to wait, ms: to the first of what is due. */
static int patience(run *r) {
  int64_t now = pp_now_ns(), at = r->kill_at;

  if (at == 0 && r->c->timeout > 0)
    at = r->began + r->c->timeout;
  if (r->fds[END].fd < 0 && r->c->feed == NULL) /* no pidfd */
    at = at == 0 || at > now + LOOK_MS * 1000000 ? now + LOOK_MS * 1000000 : at;
  if (at == 0)
    return -1;
  return at <= now ? 0
                   : (int)((at - now > 3600000000000 ? 3600000000000
                                                     : at - now + 999999) /
                           1000000);
}

/* What is due by the clock, or was asked for. */
static void check(run *r) {
  int64_t now;

  if (r->c->stopping != NULL && !r->end->stopped && r->c->stopping(r->c->ud)) {
    r->end->stopped = true;
    stop(r);
  }
  if (r->kill_at == 0 && r->c->timeout <= 0)
    return;
  now = pp_now_ns();
  if (r->kill_at == 0 && now >= r->began + r->c->timeout) {
    r->end->timed_out = true;
    stop(r);
  } else if (r->kill_at != 0 && now >= r->kill_at) {
    kill_group(r, SIGKILL);
    r->kill_at = now + GRACE_NS; /* till it is gone */
  }
}

/* Wait for whatever comes next. Signals are blocked but while it waits, so that
 * none goes unseen between a look and the wait. */
static int wait_once(run *r, const sigset_t *usual) {
  int ms = patience(r), n;
  struct timespec t = {ms / 1000, ms % 1000 * 1000000L};

  n = ppoll(r->fds, NFDS, ms < 0 ? NULL : &t, usual);
  if (n < 0 && errno != EINTR)
    return sys(r->end, "poll");
  if (n <= 0)
    for (int k = 0; k < NFDS; k++)
      r->fds[k].revents = 0;
  return 0;
}

static int serve(run *r, const sigset_t *usual) {
  int e = 0;

  r->fds[IN].events = POLLOUT;
  r->fds[OUT].events = r->fds[ERR].events = r->fds[END].events = POLLIN;
  r->fds[END].fd = (int)syscall(SYS_pidfd_open, r->pid, 0);
  write_input(r);
  while (e == 0) {
    if (r->fds[END].fd < 0 ? has_ended(r, WNOHANG)
                           : r->fds[END].revents != 0 && has_ended(r, WNOHANG))
      break;
    check(r);
    e = wait_once(r, usual);
    for (int s = 0; s < 2 && e == 0; s++)
      if (r->fds[OUT + s].revents != 0)
        e = read_stream(r, s);
    if (r->fds[IN].revents != 0)
      write_input(r);
  }
  return e;
}

/* The same with input that comes piece by piece. What the program writes goes
 * past us, so there is nothing to read. */
static int serve_fed(run *r) {
  const pp_command_feed *f = r->c->feed;
  struct sigaction child = {.sa_handler = f->child}, usual;

  sigaction(SIGCHLD, &child, &usual);
  while (!has_ended(r, WNOHANG)) {
    bool full;

    check(r);
    take_input(r);
    full = r->fds[IN].fd >= 0 && r->at < r->fed.len;
    if (full) {
      struct pollfd p = {r->fds[IN].fd, POLLOUT, 0};

      /* A look now and then, whatever it does: it may have to be stopped. */
      poll(&p, 1, LOOK_MS);
      write_input(r);
    } else {
      int ms = patience(r);

      f->sleep(f->ud, ms < 0 ? -1 : pp_now_ns() + ms * (int64_t)1000000);
    }
  }
  sigaction(SIGCHLD, &usual, NULL);
  return 0;
}

int pp_command_run(const pp_command *c, pp_command_end *end) {
  run r = {.c = c, .end = end, .file = {-1, -1}};
  sigset_t all, usual;
  int e, why;

  for (int k = 0; k < NFDS; k++)
    r.fds[k].fd = -1;
  e = start(&r);
  if (e == 0 && c->feed == NULL) {
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &usual);
    e = serve(&r, &usual);
    pthread_sigmask(SIG_SETMASK, &usual, NULL);
  } else if (e == 0) {
    sigemptyset(&all);
    sigaddset(&all, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &all, &usual);
    e = serve_fed(&r);
    pthread_sigmask(SIG_SETMASK, &usual, NULL);
  }
  why = errno;
  if (r.pid > 0) {
    kill_group(&r, SIGKILL); /* what it left; itself, on an error */
    while (waitpid(r.pid, &end->status, 0) < 0 && errno == EINTR) {
    }
    r.reaped = true;
    end->ran = pp_now_ns() - r.began;
  }
  /* What it wrote last: what a pipe holds. */
  for (int s = 0; s < 2; s++) {
    const uint64_t first = end->written[s];

    while (e == 0 && r.fds[OUT + s].fd >= 0 &&
           end->written[s] - first < LAST_WORDS) {
      uint64_t was = end->written[s];

      if ((e = read_stream(&r, s)) == 0 && end->written[s] == was)
        break;
      why = errno;
    }
    if (e == 0 && end->file[s] != NULL && (e = spill(&r, s)) != 0)
      why = errno;
    close_fd(&r.file[s]);
  }
  for (int k = 0; k < NFDS; k++)
    close_fd(&r.fds[k].fd);
  pp_buf_clear(&r.fed);
  errno = why;
  return e;
}

void pp_command_clear(pp_command_end *end) {
  for (int s = 0; s < 2; s++) {
    pp_buf_clear(&end->out[s]);
    free(end->file[s]);
    end->file[s] = NULL;
  }
}
