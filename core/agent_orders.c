/* SPDX-License-Identifier: MIT */
/* What the agent is told: by the driver, and by its zygote of workers. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent_lane.h"
#include "proc.h"
#include "worker.h"
#include "zygote.h"

/* --- workers -------------------------------------------------------------- */

static void watch(pp_agent *a, pp_alane *l, unsigned which) {
  struct epoll_event ev = {.events = EPOLLIN,
                           .data.u64 =
                               pp_agent_tag(PP_AGENT_PIPE, l->index, which)};

  if (epoll_ctl(a->poll, EPOLL_CTL_ADD, l->fd[which], &ev) != 0)
    pp_agent_give_up("cannot watch a pipe");
}

static void failed(pp_agent *a, uint32_t lane, int why) {
  unsigned char p[4];

  pp_put32(p, (uint32_t)why);
  pp_agent_say(a, PP_R_FAILED, lane, p, sizeof p);
}

static void start(pp_agent *a, uint32_t index, uint32_t number) {
  pp_zreq req = {.op = PP_Z_SPAWN, .lane = index, .number = number};
  int pipes[2][2] = {{-1, -1}, {-1, -1}}, ends[2], r = 0;
  pp_alane *l;

  l = pp_alane_open(a, index);
  if (l == NULL)
    pp_agent_give_up("cannot make a lane");
  if (pp_proc_pipe(pipes[0]) != 0 || pp_proc_pipe(pipes[1]) != 0) {
    failed(a, index, errno);
    goto out;
  }
  for (int k = 0; k < 2; k++) {
    l->fd[k] = pipes[k][0];
    ends[k] = pipes[k][1];
    pipes[k][0] = -1;
    fcntl(l->fd[k], F_SETFL, fcntl(l->fd[k], F_GETFL) | O_NONBLOCK);
    watch(a, l, (unsigned)k);
  }
  while ((r = pp_zygote_send(a->ctl, &req, ends, 2)) == PP_EAGAIN)
    usleep(1000);
  if (r != 0) {
    failed(a, index, errno);
    goto out;
  }
  l->runs = true;
out:
  for (int k = 0; k < 2; k++)
    for (int i = 0; i < 2; i++)
      if (pipes[k][i] >= 0)
        close(pipes[k][i]);
  if (!l->runs)
    pp_alane_close_pipes(a, l);
}

void pp_agent_on_ctl(pp_agent *a) {
  unsigned char p[16] = {0};
  pp_zrep rep;
  ssize_t n;

  while ((n = recv(a->ctl, &rep, sizeof rep, MSG_DONTWAIT)) ==
         (ssize_t)sizeof rep) {
    pp_alane *l = rep.lane < a->nlanes ? a->lanes[rep.lane] : NULL;

    if (l == NULL || !l->runs)
      continue;
    if (rep.op == PP_Z_SPAWNED) {
      pp_put32(p, (uint32_t)rep.pid);
      pp_agent_say(a, PP_R_STARTED, rep.lane, p, 4);
      continue;
    }
    pp_alane_last(a, l);
    l->runs = false;
    pp_alane_close_pipes(a, l);
    if (rep.op == PP_Z_EXITED) {
      pp_put32(p, (uint32_t)rep.status);
      pp_put32(p + 4, 0);
      pp_put64(p + 8, rep.maxrss);
      pp_agent_say(a, PP_R_EXITED, rep.lane, p, 16);
    } else {
      failed(a, rep.lane, rep.status);
    }
  }
  if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
    pp_agent_give_up("the process that workers are forked from was killed");
}

/* --- from the driver ------------------------------------------------------ */

static void ask_zygote(pp_agent *a, uint32_t op, uint32_t lane, int signal) {
  pp_zreq req = {.op = op, .lane = lane, .signal = signal};

  while (pp_zygote_send(a->ctl, &req, NULL, 0) == PP_EAGAIN)
    usleep(1000);
}

static void recalled(pp_agent *a, uint32_t lane, uint32_t seq, bool ok) {
  unsigned char p[8];

  pp_put32(p, seq);
  pp_put32(p + 4, ok);
  pp_agent_say(a, PP_R_RECALLED, lane, p, sizeof p);
}

/* Take a job back, or have it stopped. */
static void stop(pp_agent *a, pp_alane *l, uint32_t seq, uint32_t kind) {
  if (pp_alane_recall(l, seq)) {
    recalled(a, l->index, seq, true);
    return;
  }
  pp_alane_look(a, l); /* the driver may not know that it has begun */
  /* If it has ended what interrupts the worker hits another job's read(2). */
  if ((int32_t)(seq - atomic_load(&l->map.lane->outer)) < 0)
    return;
  atomic_store(&l->map.lane->stop, (uint64_t)seq << 8 | (kind & 0xff));
  ask_zygote(a, PP_Z_SIGNAL, l->index, PP_SIG_STOP);
}

/* It is said before the result, if that is shorter for it. */
static void cut(pp_agent *a, pp_alane *l, uint32_t seq, uint32_t items) {
  unsigned char p[8];

  pp_put32(p, seq);
  pp_put32(p + 4, pp_lane_cut(l->map.lane, seq, items));
  pp_agent_say(a, PP_R_KEPT, l->index, p, sizeof p);
}

static void pong(pp_agent *a, const unsigned char *p) {
  unsigned char out[16];

  memcpy(out, p, 8);
  pp_put64(out + 8, (uint64_t)pp_now_ns());
  pp_agent_say(a, PP_R_PONG, 0, out, sizeof out);
}

/* One message; false if it makes no sense. */
static bool message(pp_agent *a, int type, uint32_t lane,
                    const unsigned char *p, uint32_t n) {
  pp_alane *l = lane < a->nlanes ? a->lanes[lane] : NULL;
  const unsigned char *in;
  size_t len;

  switch (type) {
  case PP_R_PACKED:
    return pp_press_open(&a->press, p, n, &in, &len) &&
           pp_agent_messages(a, in, len, &len);
  case PP_R_PROBE:
    if (n != 8)
      return false;
    pp_agent_say(a, PP_R_ECHO, 0, p, n);
    return true;
  case PP_R_ECHO:
    if (n != 8 || !pp_gauge_back(&a->press.gauge, pp_get64(p), pp_now_ns()))
      return false;
    pp_agent_probe(a);
    return true;
  case PP_R_PING:
    if (n != 8)
      return false;
    pong(a, p);
    return true;
  case PP_R_BYE:
    _exit(0); /* the zygote ends what is below */
  case PP_R_START:
    if (n != 4 || lane >= PP_LANES_MAX || l != NULL)
      return false;
    start(a, lane, pp_get32(p));
    return true;
  default:
    break;
  }
  if (l == NULL)
    return false;
  switch (type) {
  case PP_R_BYTES:
    return pp_alane_bytes(a, l, p, n);
  case PP_R_FREE:
    if (l->runs)
      return false;
    pp_alane_close(a, l);
    return true;
  case PP_R_RECALL:
    if (n != 4)
      return false;
    if (l->runs)
      recalled(a, lane, pp_get32(p), pp_alane_recall(l, pp_get32(p)));
    return true;
  case PP_R_CUT:
    if (n != 8)
      return false;
    if (l->runs)
      cut(a, l, pp_get32(p), pp_get32(p + 4));
    return true;
  case PP_R_STOP:
    if (n != 8)
      return false;
    if (l->runs)
      stop(a, l, pp_get32(p), pp_get32(p + 4));
    return true;
  case PP_R_KILL:
    if (n != 4)
      return false;
    if (l->runs)
      ask_zygote(a, PP_Z_KILL, lane, (int)pp_get32(p) & 63);
    return true;
  default:
    return false;
  }
}

bool pp_agent_messages(pp_agent *a, const unsigned char *p, size_t n,
                       size_t *taken) {
  size_t at = 0;

  while (n - at >= PP_RELAY_HEAD) {
    uint32_t head = pp_get32(p + at), len = pp_get32(p + at + 4);

    if (len > PP_RELAY_MAX)
      return false;
    if (n - at < PP_RELAY_HEAD + len)
      break;
    if (!message(a, (int)(head & 0xff), head >> 8, p + at + PP_RELAY_HEAD, len))
      return false;
    at += PP_RELAY_HEAD + len;
  }
  *taken = at;
  return true;
}
