/* SPDX-License-Identifier: MIT */
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <lualib.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "agent_lane.h"
#include "build_id.h"
#include "hash.h"
#include "proc.h"
#include "state.h"
#include "worker.h"
#include "zygote.h"

/* Bytes for the driver above which lanes and pipes are left alone. */
#define TX_MOST (1u << 20)
#define RX_ROOM (4 * PP_RELAY_MAX)
#define NAME_MAX_BYTES 1024u
/* Bytes that a pipe to or from sshd may hold: four times what it does. */
#define PIPE_ROOM (256 << 10)
/* How often to look whether a worker has begun a job, and how many times,
 * before it is asked to tell. Jobs that take less are none to speak of. */
#define LOOK_MS 3
#define LOOKS 3u
/* It says something at least so often. */
#define ALIVE_NS ((int64_t)2000000000)

_Noreturn void pp_agent_give_up(const char *why) {
  dprintf(2, "ppsh agent: %s\n", why);
  _exit(70);
}

/* --- to the driver -------------------------------------------------------- */

void pp_agent_say(pp_agent *a, int type, uint32_t lane, const void *p,
                  size_t n) {
  unsigned char head[PP_RELAY_HEAD];

  pp_relay_head(head, type, lane, (uint32_t)n);
  if (pp_buf_reserve(&a->said, sizeof head + n) != 0)
    pp_agent_give_up("not enough memory");
  pp_buf_put(&a->said, head, sizeof head);
  pp_buf_put(&a->said, p, n);
}

static size_t waiting(const pp_agent *a) {
  return a->said.len + a->tx.len - a->tx_at;
}

bool pp_agent_full(const pp_agent *a) {
  return waiting(a) > TX_MOST || pp_press_full(&a->press, a->said.len);
}

static void put(void *ud, const void *p, size_t n) {
  pp_agent *a = ud;

  if (pp_buf_put(&a->tx, p, n) != 0)
    pp_agent_give_up("not enough memory");
}

void pp_agent_probe(pp_agent *a) { pp_press_probe(&a->press, put, a); }

/* All of tx is gone: what goes next. False: nothing. */
static bool refill(pp_agent *a) {
  a->tx.len = a->tx_at = 0;
  if (a->tx.cap > 4 * TX_MOST)
    pp_buf_clear(&a->tx);
  if (a->said.len == 0)
    return false;
  if (pp_press_pays(&a->press)) {
    pp_press_pass(&a->press, a->said.data, a->said.len, put, a);
    a->said.len = 0;
  } else {
    pp_buf b = a->tx;

    a->tx = a->said;
    a->said = b;
    pp_press_passed(&a->press, a->tx.len, put, a);
  }
  return true;
}

static void flush(pp_agent *a) {
  struct epoll_event ev = {.data.u64 = pp_agent_tag(PP_AGENT_OUT, 0, 0)};

  while (a->tx_at < a->tx.len || refill(a)) {
    ssize_t n = write(a->out, a->tx.data + a->tx_at, a->tx.len - a->tx_at);

    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0 && errno == EAGAIN)
      break;
    if (n <= 0)
      _exit(0); /* the driver is gone */
    a->tx_at += (size_t)n;
  }
  if ((a->tx.len > 0) == a->blocked)
    return;
  a->blocked = a->tx.len > 0;
  ev.events = a->blocked ? EPOLLOUT : 0;
  if (a->polls_out)
    epoll_ctl(a->poll, EPOLL_CTL_MOD, a->out, &ev);
  else if (a->blocked && epoll_ctl(a->poll, EPOLL_CTL_ADD, a->out, &ev) == 0)
    a->polls_out = true;
}

/* --- from the driver ------------------------------------------------------ */

/* Take in what is there: false at the end of the stream. */
static bool receive(pp_agent *a) {
  for (;;) {
    ssize_t n;
    size_t at;

    if (pp_buf_reserve(&a->rx, RX_ROOM) != 0)
      pp_agent_give_up("not enough memory");
    n = read(a->in, a->rx.data + a->rx.len, a->rx.cap - a->rx.len);
    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0 && errno == EAGAIN)
      return true;
    if (n <= 0)
      return false;
    a->heard = pp_now_ns();
    a->rx.len += (size_t)n;
    if (!pp_agent_messages(a, a->rx.data, a->rx.len, &at))
      pp_agent_give_up("a message that makes no sense");
    a->rx.len -= at;
    memmove(a->rx.data, a->rx.data + at, a->rx.len);
    if ((size_t)n < RX_ROOM / 2)
      return true;
  }
}

/* --- the loop ------------------------------------------------------------- */

static void drain_ready(pp_agent *a) {
  for (uint32_t w = 0; w <= a->nlanes / 64; w++) {
    uint64_t bits;

    if (atomic_load_explicit(&a->hub->ready[w], memory_order_relaxed) == 0)
      continue;
    bits = atomic_exchange(&a->hub->ready[w], 0);
    for (; bits != 0; bits &= bits - 1) {
      uint32_t i = w * 64 + (uint32_t)__builtin_ctzll(bits);

      if (i < a->nlanes && a->lanes[i] != NULL && a->lanes[i]->runs)
        pp_alane_drain(a, a->lanes[i]);
    }
  }
}

static bool any_ready(const pp_agent *a) {
  for (uint32_t w = 0; w <= a->nlanes / 64; w++)
    if (atomic_load_explicit(&a->hub->ready[w], memory_order_relaxed) != 0)
      return true;
  return false;
}

/* Look at all lanes: output and room that no bell tells of. Where there is no
 * room for all, others are the first next time. */
static void drain_all(pp_agent *a) {
  uint32_t first = a->turn;

  a->turn = 0;
  for (uint32_t k = 0; k < a->nlanes; k++) {
    uint32_t i = (first + k) % a->nlanes;

    if (a->lanes[i] == NULL || !a->lanes[i]->runs)
      continue;
    pp_alane_drain(a, a->lanes[i]);
    if (a->turn == 0 && a->held)
      a->turn = i + 1;
  }
}

/* Say which jobs have been begun. True if it is worth another look soon. */
static bool look(pp_agent *a) {
  bool again = false;

  for (pp_alane **p = &a->looked; *p != NULL;) {
    pp_alane *l = *p;

    if (l->runs) {
      if (pp_alane_look(a, l))
        l->looks = 0; /* perhaps it goes from one to the next just now */
      if (l->told != l->sent && ++l->looks < LOOKS) {
        again = true;
        p = &l->next_look;
        continue;
      }
      pp_alane_watch(a, l);
    }
    *p = l->next_look;
    l->looking = false;
  }
  return again;
}

static _Noreturn void loop(pp_agent *a) {
  int64_t look_at = -1, alive_at = pp_now_ns() + ALIVE_NS;

  for (;;) {
    struct epoll_event ev[64];
    int64_t now = pp_now_ns(), until = a->heard + a->silence;
    bool doze = a->more;
    int n, ms;

    drain_ready(a);
    if (a->held && !pp_agent_full(a)) {
      a->held = false;
      drain_all(a);
    }
    if (now >= alive_at) {
      if (waiting(a) == 0)
        pp_agent_say(a, PP_R_ALIVE, 0, NULL, 0);
      alive_at = now + ALIVE_NS;
    }
    flush(a);
    if (now >= until)
      pp_agent_give_up("the driver is silent");
    if (a->looked == NULL)
      look_at = -1;
    else if (look_at < 0)
      look_at = now + LOOK_MS * 1000000;
    if (look_at >= 0 && look_at < until)
      until = look_at;
    if (alive_at < until)
      until = alive_at;
    ms = (int)((until - now + 999999) / 1000000);
    if (doze && ms > 1)
      ms = 1;
    atomic_store(&a->hub->asleep, doze ? PP_DOZING : PP_SLEEPING);
    atomic_thread_fence(memory_order_seq_cst);
    /* What went may have shrunk: nothing will tell that there is room. */
    if (any_ready(a) || (a->held && !pp_agent_full(a)))
      ms = 0;
    n = epoll_wait(a->poll, ev, 64, ms);
    atomic_store(&a->hub->asleep, PP_AWAKE);
    a->more = false;
    if (n == 0 && doze)
      drain_all(a); /* results that waited for company */
    for (int i = 0; i < n; i++) {
      uint64_t t = ev[i].data.u64;
      uint32_t lane = (uint32_t)t & 0xfffffff;
      uint64_t bell;

      switch (t >> 32) {
      case PP_AGENT_IN:
        if (!receive(a))
          _exit(0); /* the zygote ends what is below */
        break;
      case PP_AGENT_BELL:
        (void)!read(a->bell, &bell, sizeof bell);
        break;
      case PP_AGENT_CTL:
        pp_agent_on_ctl(a);
        break;
      case PP_AGENT_PIPE:
        if (lane < a->nlanes && a->lanes[lane] != NULL)
          pp_alane_output(a, a->lanes[lane], (unsigned)(t >> 28) & 1);
        break;
      default:
        break;
      }
    }
    if (look_at >= 0 && pp_now_ns() >= look_at)
      look_at = look(a) ? pp_now_ns() + LOOK_MS * 1000000 : -1;
  }
}

/* --- beginning ------------------------------------------------------------ */

/* Read exactly n bytes, blocking. */
static bool read_whole(int fd, unsigned char *p, size_t n) {
  while (n > 0) {
    ssize_t k = read(fd, p, n);

    if (k < 0 && errno == EINTR)
      continue;
    if (k <= 0)
      return false;
    p += k;
    n -= (size_t)k;
  }
  return true;
}

/* The driver's first message: the node's name, owned; its patience. */
static char *hello(pp_agent *a) {
  unsigned char head[PP_RELAY_HEAD], p[20 + NAME_MAX_BYTES];
  uint32_t len;
  char *name;

  if (!read_whole(a->in, head, sizeof head))
    _exit(0);
  len = pp_get32(head + 4);
  if (pp_get32(head) != PP_R_HELLO || len < 20 || len > sizeof p ||
      !read_whole(a->in, p, len) || pp_get64(p) != PP_RELAY_MAGIC)
    pp_agent_give_up("this is for ppsh to start");
  if (pp_get32(p + 8) != PP_RELAY_VERSION)
    pp_agent_give_up("another version of the relay protocol");
  a->silence = (int64_t)pp_get32(p + 12) * 1000000;
  a->press.able = (pp_get32(p + 16) & PP_RELAY_OPENS) && pp_press_able();
  a->press.gauge.on = true;
  name = malloc(len - 20 + 1);
  if (name == NULL)
    pp_agent_give_up("not enough memory");
  memcpy(name, p + 20, len - 20);
  name[len - 20] = '\0';
  return name;
}

static void put_text(pp_buf *b, const char *s) {
  unsigned char n[4];

  pp_put32(n, (uint32_t)strlen(s));
  if (pp_buf_put(b, n, 4) != 0 || pp_buf_put(b, s, strlen(s)) != 0)
    pp_agent_give_up("not enough memory");
}

static void welcome(pp_agent *a) {
  unsigned char p[28];
  struct utsname u;
  pp_buf b = {0};

  pp_put64(p, PP_RELAY_MAGIC);
  pp_put32(p + 8, PP_RELAY_VERSION);
  pp_put32(p + 12, (uint32_t)pp_proc_cpus());
  pp_put64(p + 16, (uint64_t)pp_now_ns());
  pp_put32(p + 24, pp_press_able() ? PP_RELAY_OPENS : 0);
  if (pp_buf_put(&b, p, sizeof p) != 0)
    pp_agent_give_up("not enough memory");
  put_text(&b, PP_BUILD_ID);
  put_text(&b, uname(&u) == 0 ? u.machine : "");
  pp_agent_say(a, PP_R_WELCOME, 0, b.data, b.len);
  pp_buf_clear(&b);
}

static void poll_in(pp_agent *a, int fd, unsigned what) {
  struct epoll_event ev = {.events = EPOLLIN,
                           .data.u64 = pp_agent_tag(what, 0, 0)};

  if (epoll_ctl(a->poll, EPOLL_CTL_ADD, fd, &ev) != 0)
    pp_agent_give_up("cannot watch its stream");
}

/* The stream's ends away from 0 and 1, which lead nowhere then. */
static int away(int fd, int flags) {
  int high = fcntl(fd, F_DUPFD_CLOEXEC, 10), none = open("/dev/null", flags);

  if (high < 0 || none < 0 || dup2(none, fd) < 0)
    pp_agent_give_up("cannot arrange its descriptors");
  close(none);
  /* Fewer wake-ups for what is large; of a socket it cannot be asked. */
  (void)fcntl(high, F_SETPIPE_SZ, PIPE_ROOM);
  fcntl(high, F_SETFL, fcntl(high, F_GETFL) | O_NONBLOCK);
  return high;
}

static int serve(int in, int out) {
  static pp_agent the_agent;
  pp_agent *a = &the_agent;
  lua_State *L;
  char *name;

  signal(SIGPIPE, SIG_IGN);
  signal(SIGHUP, SIG_IGN);
  a->in = in;
  a->out = out;
  L = pp_state_new(false);
  if (L == NULL || pp_zygote_library(L) != 0)
    pp_agent_give_up("cannot create the Lua state");
  name = hello(a);
  if (pp_shm_open(&a->shm, &a->hub) != 0)
    pp_agent_give_up("no shared memory");
  a->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  pp_worker_node(name);
  if (a->bell < 0 || pp_zygote_fork(L, a->shm, a->hub, a->bell, &a->ctl) < 0)
    pp_agent_give_up("cannot fork");
  pp_proc_name("pp-agent");
  pp_state_close(L);
  a->in = away(in, O_RDONLY);
  a->out = away(out, O_WRONLY);
  a->poll = epoll_create1(EPOLL_CLOEXEC);
  if (a->poll < 0)
    pp_agent_give_up("cannot watch its stream");
  poll_in(a, a->in, PP_AGENT_IN);
  poll_in(a, a->bell, PP_AGENT_BELL);
  poll_in(a, a->ctl, PP_AGENT_CTL);
  a->heard = pp_now_ns();
  welcome(a);
  loop(a);
}

/* The content hash of this program's file, in hex. */
static bool own_hash(char out[33]) {
  int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
  struct stat st;
  pp_hash h;
  void *p;

  if (fd < 0 || fstat(fd, &st) != 0)
    return false;
  p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
  close(fd);
  if (p == MAP_FAILED)
    return false;
  h = pp_hash_of(p, (size_t)st.st_size, 0);
  munmap(p, (size_t)st.st_size);
  snprintf(out, 33, "%016llx%016llx", (unsigned long long)h.hi,
           (unsigned long long)h.lo);
  return true;
}

int pp_agent_main(int argc, char **argv, bool installed) {
  char hash[33] = "", line[200];
  int n;

  if (argc != 4 || strcmp(argv[1], "--agent") != 0) {
    fputs("ppsh agent: this is for ppsh to start\n", stderr);
    return 2;
  }
  if (!installed && !own_hash(hash))
    return 1;
  if (strcmp(argv[2], "check") == 0)
    return strcmp(argv[3], hash) != 0 && strcmp(argv[3], PP_BUILD_ID) != 0;
  if (strcmp(argv[2], "run") != 0)
    return 2;
  if (!installed)
    utimensat(AT_FDCWD, "/proc/self/exe", NULL, 0);
  n = snprintf(line, sizeof line, "%s run %s\n", argv[3],
               installed ? PP_BUILD_ID : hash);
  if (n < 0 || n >= (int)sizeof line || write(1, line, (size_t)n) != n)
    return 1;
  return serve(0, 1);
}
