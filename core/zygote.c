/* SPDX-License-Identifier: MIT */
#include "zygote.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "proc.h"
#include "state.h"
#include "worker.h"

/* Where the descriptors it keeps are. */
enum { FD_CTL = 3, FD_SHM, FD_BELL, FD_SIGNALS, FD_FIRST_OTHER };

/* The driver is gone (parent death signal). */
#define SIG_DRIVER SIGUSR1

/* A sweep reads all of /proc: deaths that come together share one. */
#define SWEEP_MS 5
/* Sweeps, 1 ms apart, for what the driver leaves: killed processes take a
 * moment to go. */
#define MARKED_TRIES 1000
/* No killed worker has gone for so long. */
#define STUCK_MS 5
/* Between two looks at who sleeps; a worker that is found asleep twice rests.
 * So many at a time, the others a moment later. */
#define WATCH_MS 50
#define REST_MOST 16
#define REST_MS 10
/* Lanes that are mapped at first. */
#define LANES_LEAST 64u

typedef struct kid {
  pid_t pid;
  uint32_t lane;
} kid;

typedef struct zygote {
  lua_State *L;
  struct pp_runner *runner;
  pp_hub *hub;
  pid_t self, driver;
  kid *kids;
  size_t n, cap;
  pid_t *wards; /* what else goes with the driver: leaders of groups */
  size_t nwards, cap_wards;
  bool sweep;   /* something may have been left by a dead worker */
  bool watch;   /* somebody may be asleep and not at rest */
  int64_t look; /* when to see to that: ns */
  void *lanes;  /* so many of them */
  uint32_t nlanes;
} zygote;

static void answer(uint32_t op, uint32_t lane, pid_t pid, int status,
                   uint64_t maxrss) {
  pp_zrep rep = {op, lane, pid, status, maxrss};

  while (send(FD_CTL, &rep, sizeof rep, MSG_NOSIGNAL) < 0 && errno == EINTR) {
  }
}

static bool is_worker(void *ud, pid_t pid) {
  const zygote *z = ud;

  for (size_t i = 0; i < z->n; i++)
    if (z->kids[i].pid == pid)
      return true;
  return false;
}

static void look_in(zygote *z, int ms) {
  z->look = pp_now_ns() + (int64_t)ms * 1000000;
}

static void spawn(zygote *z, const pp_zreq *req, const int fds[2]) {
  pid_t pid;

  if (z->n == z->cap) {
    size_t cap = z->cap ? z->cap * 2 : 16;
    kid *v = realloc(z->kids, cap * sizeof *v);

    if (v == NULL) {
      answer(PP_Z_FAILED, req->lane, 0, ENOMEM, 0);
      return;
    }
    z->kids = v;
    z->cap = cap;
  }
  pid = fork();
  if (pid < 0) {
    answer(PP_Z_FAILED, req->lane, 0, errno, 0);
    return;
  }
  if (pid == 0) {
    pp_worker_start start = {
        .L = z->L,
        .runner = z->runner,
        .hub = z->hub,
        .shm = FD_SHM,
        .bell = FD_BELL,
        .lane = req->lane,
        .number = req->number,
        .out = fds[0],
        .err = fds[1],
        .zygote = z->self,
    };

    close(FD_CTL);
    close(FD_SIGNALS);
    pp_worker_main(&start);
  }
  setpgid(pid, pid); /* also done by the child: whoever is first */
  z->kids[z->n++] = (kid){pid, req->lane};
  answer(PP_Z_SPAWNED, req->lane, pid, 0, 0);
  if (z->watch) /* not while others come up */
    look_in(z, WATCH_MS);
}

static void reap(zygote *z) {
  struct rusage ru;
  int status;
  pid_t pid;

  while ((pid = wait4(-1, &status, WNOHANG, &ru)) > 0) {
    z->sweep = true;
    for (size_t i = 0; i < z->n; i++)
      if (z->kids[i].pid == pid) {
        kill(-pid, SIGKILL);
        answer(PP_Z_EXITED, z->kids[i].lane, pid, status,
               (uint64_t)ru.ru_maxrss * 1024);
        z->kids[i] = z->kids[--z->n];
        break;
      }
  }
}

static void guard(zygote *z, pid_t pid) {
  if (z->nwards == z->cap_wards) {
    size_t cap = z->cap_wards ? z->cap_wards * 2 : 8;
    pid_t *v = realloc(z->wards, cap * sizeof *v);

    if (v == NULL)
      return; /* it goes with its stdin, or later */
    z->wards = v;
    z->cap_wards = cap;
  }
  z->wards[z->nwards++] = pid;
}

static void unguard(zygote *z, pid_t pid) {
  for (size_t i = 0; i < z->nwards; i++)
    if (z->wards[i] == pid) {
      z->wards[i] = z->wards[--z->nwards];
      return;
    }
}

/* One request; false when the driver is gone. */
static bool serve(zygote *z) {
  pp_zreq req;
  union {
    struct cmsghdr head;
    char room[CMSG_SPACE(2 * sizeof(int))];
  } control;
  struct iovec iov = {&req, sizeof req};
  struct msghdr msg = {.msg_iov = &iov,
                       .msg_iovlen = 1,
                       .msg_control = &control,
                       .msg_controllen = sizeof control};
  ssize_t n = recvmsg(FD_CTL, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  int fds[2] = {-1, -1};
  struct cmsghdr *c;

  if (n < 0)
    return errno == EAGAIN || errno == EINTR;
  if (n == 0)
    return false;
  c = CMSG_FIRSTHDR(&msg);
  if (c != NULL && c->cmsg_type == SCM_RIGHTS &&
      c->cmsg_len == CMSG_LEN(sizeof fds))
    memcpy(fds, CMSG_DATA(c), sizeof fds);
  if (n == sizeof req && req.op == PP_Z_SPAWN && fds[0] >= 0) {
    spawn(z, &req, fds);
  } else if (n == sizeof req && req.op == PP_Z_SPAWN) {
    answer(PP_Z_FAILED, req.lane, 0, EMFILE, 0);
  } else if (n == sizeof req && req.op == PP_Z_GUARD) {
    guard(z, (pid_t)req.number);
  } else if (n == sizeof req && req.op == PP_Z_UNGUARD) {
    unguard(z, (pid_t)req.number);
  } else if (n == sizeof req) {
    for (size_t i = 0; i < z->n; i++)
      if (z->kids[i].lane == req.lane)
        kill(req.op == PP_Z_KILL ? -z->kids[i].pid : z->kids[i].pid,
             req.signal);
  }
  if (fds[0] >= 0)
    close(fds[0]), close(fds[1]);
  return true;
}

/* --- workers that sleep for long ------------------------------------------ */

/* Map the lanes of all that are here. */
static bool map_lanes(zygote *z) {
  uint32_t need = 0, n = z->nlanes ? z->nlanes : LANES_LEAST;
  void *lanes;

  for (size_t i = 0; i < z->n; i++)
    if (z->kids[i].lane >= need)
      need = z->kids[i].lane + 1;
  if (need <= z->nlanes)
    return true;
  while (n < need)
    n *= 2;
  lanes = pp_lanes_map(FD_SHM, n);
  if (lanes == NULL)
    return false;
  pp_lanes_unmap(z->lanes, z->nlanes);
  z->lanes = lanes;
  z->nlanes = n;
  return true;
}

/* A worker fell asleep and nobody looked. */
static void begin_watch(zygote *z) {
  if (z->watch)
    return;
  z->watch = true;
  look_in(z, WATCH_MS);
}

static bool is_restless(const pp_lane *l) {
  return atomic_load(&l->asleep) == PP_WANTS_INPUT &&
         atomic_load(&l->rest) < PP_TO_REST;
}

/* Send those to rest that are asleep as they were the last time. */
static void look_after(zygote *z) {
  bool again = false;
  int sent = 0;

  if (!map_lanes(z)) { /* none rests; nobody asks again */
    z->watch = false;
    return;
  }
  for (size_t i = 0; i < z->n; i++) {
    pp_lane *l = pp_lanes_at(z->lanes, z->kids[i].lane);
    uint32_t is = PP_FRESH;

    if (!is_restless(l))
      continue;
    if (atomic_compare_exchange_strong(&l->rest, &is, PP_TIRED)) {
      again = true;
    } else if (is == PP_TIRED && sent == REST_MOST) {
      look_in(z, REST_MS);
      return;
    } else if (is == PP_TIRED &&
               atomic_compare_exchange_strong(&l->rest, &is, PP_TO_REST)) {
      pp_lane_wake(l, PP_WANTS_INPUT);
      sent++;
    }
  }
  look_in(z, WATCH_MS);
  if (again)
    return;
  /* Who falls asleep from here on asks, or is seen. */
  atomic_store(&z->hub->watch, 0);
  atomic_thread_fence(memory_order_seq_cst);
  z->watch = false;
  for (size_t i = 0; i < z->n && !z->watch; i++)
    z->watch = is_restless(pp_lanes_at(z->lanes, z->kids[i].lane));
  if (z->watch)
    atomic_store(&z->hub->watch, 1);
}

static int next_look(const zygote *z) {
  int64_t left;

  if (z->sweep)
    return SWEEP_MS;
  if (!z->watch)
    return -1;
  left = (z->look - pp_now_ns()) / 1000000 + 1;
  return left > 0 ? (int)left : 0;
}

static bool nobody(void *ud, pid_t pid) {
  (void)ud, (void)pid;
  return false;
}

static bool not_of_job(void *ud, pid_t pid) {
  const zygote *z = ud;
  uint64_t inode = atomic_load(&z->hub->mark_inode);

  return pid == z->driver ||
         (!pp_proc_leads(pid, z->hub->mark, z->hub->mark_device, inode) &&
          !pp_proc_leads(pid, 1, z->hub->mark_device, inode));
}

/* What a job in the driver has started, when that was killed in the midst of
 * it; others must not have that pipe. */
static void end_marked(zygote *z) {
  if (atomic_load(&z->hub->mark_inode) == 0)
    return;
  for (int tries = 0; tries < MARKED_TRIES; tries++) {
    if (pp_proc_kill_all(not_of_job, z) == 0)
      return;
    poll(NULL, 0, 1);
  }
}

static void forget_signals(void) {
  struct signalfd_siginfo info;

  while (read(FD_SIGNALS, &info, sizeof info) == (ssize_t)sizeof info) {
  }
}

/* Looking for others costs a look at all of /proc: not before all workers are
 * gone, which takes them a moment, or one seems stuck. */
static _Noreturn void end_all(zygote *z) {
  struct pollfd p = {FD_SIGNALS, POLLIN, 0};

  for (size_t i = 0; i < z->n; i++)
    kill(-z->kids[i].pid, SIGKILL);
  for (size_t i = 0; i < z->nwards; i++)
    kill(-z->wards[i], SIGKILL);
  end_marked(z);
  for (bool stuck = false;;) {
    size_t left = z->n;
    pid_t pid;

    forget_signals();
    while ((pid = waitpid(-1, NULL, WNOHANG)) > 0)
      for (size_t i = 0; i < z->n; i++)
        if (z->kids[i].pid == pid) {
          z->kids[i] = z->kids[--z->n];
          break;
        }
    if (pid < 0 && errno == ECHILD)
      _exit(0);
    if (z->n == 0 || (stuck && z->n == left))
      pp_proc_kill_children(nobody, NULL);
    stuck = poll(&p, 1, z->n > 0 ? STUCK_MS : 1) == 0;
  }
}

static _Noreturn void zygote_main(zygote *z, pid_t driver) {
  struct pollfd p[2] = {{FD_CTL, POLLIN, 0}, {FD_SIGNALS, POLLIN, 0}};
  struct signalfd_siginfo info;

  prctl(PR_SET_PDEATHSIG, SIG_DRIVER);
  if (getppid() != driver)
    end_all(z);
  for (;;) {
    if (poll(p, 2, next_look(z)) < 0 && errno != EINTR)
      end_all(z);
    if (p[1].revents) {
      while (read(FD_SIGNALS, &info, sizeof info) == (ssize_t)sizeof info)
        if (info.ssi_signo == PP_SIG_WATCH)
          begin_watch(z);
        else if (info.ssi_signo == SIG_DRIVER && getppid() != driver)
          end_all(z);
      reap(z);
    } else if (p[0].revents == 0 && z->sweep) {
      z->sweep = false;
      pp_proc_kill_children(is_worker, z);
    }
    if (p[0].revents && !serve(z))
      end_all(z);
    if (z->watch && pp_now_ns() >= z->look)
      look_after(z);
  }
}

/* --- beginning ------------------------------------------------------------ */

static int nothing(int flags) { return open("/dev/null", flags | O_CLOEXEC); }

/* Put fds (ctl, shm, bell) where they belong; nothing else stays open but the
 * standard ones, which lead nowhere. Only calls that are safe between fork
 * and exec. */
static bool arrange(const int fds[3]) {
  int high[3];

  /* Out of the way first. */
  for (int i = 0; i < 3; i++)
    if ((high[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, FD_FIRST_OTHER)) < 0)
      return false;
  for (int i = 0; i < 3; i++)
    if (dup3(high[i], FD_CTL + i, O_CLOEXEC) < 0)
      return false;
  close_range(FD_SIGNALS, ~0U, 0);
  return dup2(nothing(O_RDONLY), 0) == 0 && dup2(nothing(O_WRONLY), 1) == 1 &&
         dup2(1, 2) == 2;
}

int pp_zygote_library(lua_State *L) {
  lua_getglobal(L, "require");
  lua_pushliteral(L, "pp");
  if (lua_pcall(L, 1, 0, 0) != LUA_OK)
    return PP_EBAD;
  /* What is here now is old, and not looked at again until as much has come:
   * a process that marks it has pages of its own of all of it. */
  lua_gc(L, LUA_GCGEN, 0, 0);
  return 0;
}

/* In the zygote, its descriptors arranged. */
static _Noreturn void run(lua_State *L, pp_hub *hub, pid_t driver) {
  zygote z = {.L = L, .hub = hub, .self = getpid(), .driver = driver};
  sigset_t set;
  int sig;

  pp_proc_name(PP_ZYGOTE_NAME);
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  for (int s = 1; s < 32; s++)
    signal(s, SIG_DFL);
  signal(SIGPIPE, SIG_IGN);
  sigemptyset(&set);
  sigaddset(&set, SIGCHLD);
  sigaddset(&set, SIG_DRIVER);
  sigaddset(&set, PP_SIG_WATCH);
  sigprocmask(SIG_SETMASK, &set, NULL);
  sig = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
  if (sig < 0 || (sig != FD_SIGNALS && dup3(sig, FD_SIGNALS, O_CLOEXEC) < 0))
    _exit(1);
  close_range(FD_FIRST_OTHER, ~0U, 0);
  z.runner = pp_worker_prepare(L);
  if (z.runner == NULL)
    _exit(1);
  zygote_main(&z, driver);
}

static pid_t fail(const int pair[2]) {
  int e = errno;

  close(pair[0]), close(pair[1]);
  errno = e;
  return PP_ESYS;
}

pid_t pp_zygote_fork(lua_State *L, int shm, pp_hub *hub, int bell, int *ctl) {
  pid_t driver = getpid(), pid;
  int pair[2];

  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
    return PP_ESYS;
  pid = fork();
  if (pid < 0)
    return fail(pair);
  if (pid == 0) {
    const int fds[3] = {pair[1], shm, bell};

    setpgid(0, 0);
    close(pair[0]);
    if (!arrange(fds))
      _exit(1);
    run(L, hub, driver);
  }
  close(pair[1]);
  *ctl = pair[0];
  return pid;
}

pid_t pp_zygote_exec(int shm, int bell, int cwd, bool noenv, int *ctl) {
  char *argv[] = {PP_ZYGOTE_NAME, noenv ? "-E" : NULL, NULL};
  pid_t pid;
  int pair[2];

  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
    return PP_ESYS;
  pid = fork();
  if (pid < 0)
    return fail(pair);
  if (pid == 0) {
    const int fds[3] = {pair[1], shm, bell};

    setpgid(0, 0);
    close(pair[0]);
    if (cwd >= 0 && fchdir(cwd) < 0)
      _exit(1);
    if (!arrange(fds))
      _exit(1);
    for (int i = 0; i < 3; i++)
      fcntl(FD_CTL + i, F_SETFD, 0);
    execv("/proc/self/exe", argv);
    _exit(1);
  }
  close(pair[1]);
  *ctl = pair[0];
  return pid;
}

_Noreturn void pp_zygote_main(int argc, char **argv) {
  pid_t driver = getppid();
  lua_State *L = pp_state_new(argc > 1 && strcmp(argv[1], "-E") == 0);
  pp_hub *hub = pp_shm_hub(FD_SHM);

  if (L == NULL || hub == NULL || pp_zygote_library(L) != 0)
    _exit(1);
  for (int i = 0; i < 3; i++)
    fcntl(FD_CTL + i, F_SETFD, FD_CLOEXEC);
  run(L, hub, driver);
}

int pp_zygote_send(int ctl, const pp_zreq *req, const int *fds, int n) {
  union {
    struct cmsghdr head;
    char room[CMSG_SPACE(2 * sizeof(int))];
  } control;
  struct iovec iov = {(void *)(uintptr_t)req, sizeof *req};
  struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

  if (n == 2) {
    struct cmsghdr *c;

    memset(&control, 0, sizeof control);
    msg.msg_control = &control;
    msg.msg_controllen = sizeof control;
    c = CMSG_FIRSTHDR(&msg);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(2 * sizeof(int));
    memcpy(CMSG_DATA(c), fds, 2 * sizeof(int));
  }
  for (;;) {
    if (sendmsg(ctl, &msg, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0)
      return 0;
    if (errno == EINTR)
      continue;
    return errno == EAGAIN || errno == ETOOMANYREFS ? PP_EAGAIN : PP_ESYS;
  }
}
