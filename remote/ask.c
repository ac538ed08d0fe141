/* SPDX-License-Identifier: MIT */
#include "ask.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "base.h"

struct pp_question {
  pp_ask *a;
  pp_question *next;
  bool echo;
  void (*answered)(void *ud, pp_answer how, const char *text);
  void *ud;
  char *intro; /* in the same block, or NULL */
  char prompt[];
};

struct pp_ask {
  uv_loop_t *loop;
  const char *path;
  bool never;
  void (*asking)(void *ud, bool on);
  void *ud;
  pp_question *first, **last;
  pp_question *current; /* being asked; not in line any more */
  uv_timer_t turn;      /* the next question, or cancelling */
  uv_poll_t poll;
  bool polling; /* poll is a handle of the loop */
  bool asked;   /* asking(true) was said */
  bool cancelling;
  int fd;
  struct termios saved;
  size_t len;
  char answer[PP_ANSWER_MAX];
  int open; /* handles */
  bool closing;
  void (*closed)(void *ud);
  void *closed_ud;
};

void pp_wipe(void *p, size_t n) { explicit_bzero(p, n); }

/* The terminal, if this process may ask at it: one in the background would be
 * stopped. */
static int open_terminal(const pp_ask *a) {
  int fd;

  if (a->never)
    return -1;
  fd = open(a->path, O_RDWR | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
  if (fd >= 0 && tcgetpgrp(fd) != getpgrp()) {
    close(fd);
    fd = -1;
  }
  return fd;
}

bool pp_ask_possible(const pp_ask *a) {
  int fd = a->fd >= 0 ? a->fd : open_terminal(a);

  if (fd < 0)
    return false;
  if (fd != a->fd)
    close(fd);
  return true;
}

static void on_turn(uv_timer_t *timer);

static void ended(uv_handle_t *h) {
  pp_ask *a = h->data;
  void (*closed)(void *ud) = a->closed;
  void *ud = a->closed_ud;

  if (--a->open > 0 || !a->closing)
    return;
  free(a);
  if (closed != NULL)
    closed(ud);
}

pp_ask *pp_ask_new(uv_loop_t *loop, const char *path, bool never,
                   void (*asking)(void *ud, bool on), void *ud) {
  pp_ask *a = calloc(1, sizeof *a);

  if (a == NULL)
    return NULL;
  a->loop = loop;
  a->path = path;
  a->never = never;
  a->asking = asking;
  a->ud = ud;
  a->last = &a->first;
  a->fd = -1;
  uv_timer_init(loop, &a->turn);
  a->turn.data = a;
  a->open = 1;
  return a;
}

static void say(int fd, const char *p, size_t n) {
  while (n > 0) {
    ssize_t k = write(fd, p, n);

    if (k < 0 && errno == EINTR)
      continue;
    if (k <= 0)
      return; /* a terminal that is full is not waited for */
    p += k;
    n -= (size_t)k;
  }
}

static void say_clean(int fd, const char *text) {
  char out[1024];
  size_t n = 0;

  for (; *text != '\0' && n < sizeof out; text++) {
    unsigned char c = (unsigned char)*text;

    if (c == '\n' || c == '\t' || c >= 0x80)
      out[n++] = (char)c;
    else
      out[n++] = c < 0x20 || c == 0x7f ? '?' : (char)c;
  }
  say(fd, out, n);
}

/* Give the terminal back as it was found. */
static void release_terminal(pp_ask *a) {
  if (a->fd < 0)
    return;
  if (a->polling) {
    uv_poll_stop(&a->poll);
    uv_close((uv_handle_t *)&a->poll, ended);
    a->polling = false;
  }
  tcsetattr(a->fd, TCSADRAIN, &a->saved);
  close(a->fd);
  a->fd = -1;
  if (a->asked && a->asking != NULL)
    a->asking(a->ud, false);
  a->asked = false;
}

static void answer(pp_ask *a, pp_answer how) {
  pp_question *q = a->current;

  a->current = NULL;
  if (how != PP_ANSWER_GIVEN)
    pp_wipe(a->answer, sizeof a->answer);
  a->answer[a->len < sizeof a->answer ? a->len : 0] = '\0';
  if (a->first == NULL || how != PP_ANSWER_GIVEN)
    release_terminal(a);
  if (q != NULL) {
    q->answered(q->ud, how, how == PP_ANSWER_GIVEN ? a->answer : NULL);
    free(q);
  }
  pp_wipe(a->answer, sizeof a->answer);
  a->len = 0;
  if (a->first != NULL && !a->closing)
    uv_timer_start(&a->turn, on_turn, 0, 0);
}

static void cancel_all(pp_ask *a, pp_answer how) {
  pp_question *q;
  size_t n = 0;

  release_terminal(a);
  if (a->current != NULL)
    answer(a, how);
  /* Only those that wait now: answers may put new questions. */
  for (q = a->first; q != NULL; q = q->next)
    n++;
  while (n-- > 0 && (q = a->first) != NULL) {
    if ((a->first = q->next) == NULL)
      a->last = &a->first;
    q->answered(q->ud, how, NULL);
    free(q);
  }
}

static void erase(pp_ask *a, size_t n) {
  while (n-- > 0 && a->len > 0) {
    /* A whole character, if it is UTF-8. */
    while (a->len > 0 && ((unsigned char)a->answer[a->len - 1] & 0xc0) == 0x80)
      a->len--;
    if (a->len > 0)
      a->len--;
    if (a->current->echo)
      say(a->fd, "\b \b", 3);
  }
}

static bool typed(pp_ask *a, unsigned char c) {
  if (c == a->saved.c_cc[VINTR] || c == 3) {
    say(a->fd, "\n", 1);
    cancel_all(a, PP_ANSWER_CANCELLED);
    kill(getpid(), SIGINT);
    return false;
  }
  if (c == '\r' || c == '\n') {
    say(a->fd, "\n", 1);
    answer(a, PP_ANSWER_GIVEN);
    return false;
  }
  if (c == 4 && a->len == 0) {
    say(a->fd, "\n", 1);
    answer(a, PP_ANSWER_CANCELLED);
    return false;
  }
  if (c == a->saved.c_cc[VERASE] || c == '\b' || c == 0x7f)
    erase(a, 1);
  else if (c == 21)
    erase(a, a->len);
  else if (c == 23) {
    while (a->len > 0 && a->answer[a->len - 1] == ' ')
      erase(a, 1);
    while (a->len > 0 && a->answer[a->len - 1] != ' ')
      erase(a, 1);
  } else if (c >= 0x20 && a->len < sizeof a->answer - 1) {
    a->answer[a->len++] = (char)c;
    if (a->current->echo)
      say(a->fd, (char *)&c, 1);
  }
  return true;
}

static void on_key(uv_poll_t *poll, int status, int events) {
  pp_ask *a = poll->data;
  unsigned char c;
  ssize_t n = 0;

  (void)events;
  while (status == 0 && a->fd >= 0 && a->current != NULL) {
    /* One at a time: what is typed ahead belongs to the next who reads. */
    n = read(a->fd, &c, 1);
    if (n < 0 && errno == EINTR)
      continue;
    if (n != 1)
      break;
    if (!typed(a, c))
      return;
  }
  c = 0;
  if (status != 0 || n == 0 || (n < 0 && errno != EAGAIN))
    cancel_all(a, PP_ANSWER_NO_TERMINAL); /* it hung up */
}

/* Take the terminal: no echo, each key at once, Ctrl-C as a key. */
static bool take_terminal(pp_ask *a) {
  struct termios raw;

  if (a->fd >= 0)
    return true;
  if ((a->fd = open_terminal(a)) < 0)
    return false;
  if (tcgetattr(a->fd, &a->saved) != 0)
    goto fail;
  if (a->asking != NULL) {
    a->asking(a->ud, true);
    /* Others may have had it in a mode of their own. */
    tcgetattr(a->fd, &a->saved);
  }
  a->asked = true;
  raw = a->saved;
  raw.c_lflag &= (tcflag_t) ~(ECHO | ECHONL | ICANON | ISIG | IEXTEN);
  raw.c_iflag &= (tcflag_t) ~(INLCR | IGNCR);
  raw.c_iflag |= ICRNL;
  raw.c_oflag |= OPOST | ONLCR;
  raw.c_cc[VMIN] = 1;
  raw.c_cc[VTIME] = 0;
  if (tcsetattr(a->fd, TCSAFLUSH, &raw) != 0 ||
      uv_poll_init(a->loop, &a->poll, a->fd) != 0)
    goto fail;
  a->poll.data = a;
  a->open++;
  a->polling = true;
  uv_poll_start(&a->poll, UV_READABLE, on_key);
  return true;
fail:
  release_terminal(a);
  return false;
}

static void on_turn(uv_timer_t *timer) {
  pp_ask *a = timer->data;
  pp_question *q = a->first;

  if (a->cancelling) {
    a->cancelling = false;
    cancel_all(a, PP_ANSWER_CANCELLED);
    return;
  }
  if (a->current != NULL || q == NULL)
    return;
  /* A poll handle that is closing has not let go of its memory yet. */
  if (a->fd < 0 && a->open > 1) {
    uv_timer_start(&a->turn, on_turn, 1, 0);
    return;
  }
  if (!take_terminal(a)) {
    cancel_all(a, PP_ANSWER_NO_TERMINAL);
    return;
  }
  if ((a->first = q->next) == NULL)
    a->last = &a->first;
  a->current = q;
  if (q->intro != NULL) {
    say_clean(a->fd, q->intro);
    say(a->fd, "\n", 1);
  }
  say_clean(a->fd, q->prompt);
}

pp_question *
pp_ask_put(pp_ask *a, const char *intro, const char *prompt, bool echo,
           void (*answered)(void *ud, pp_answer how, const char *text),
           void *ud) {
  size_t np = strlen(prompt) + 1, ni = intro != NULL ? strlen(intro) + 1 : 0;
  pp_question *q = calloc(1, sizeof *q + np + ni);

  if (q == NULL)
    return NULL;
  memcpy(q->prompt, prompt, np);
  if (ni > 0)
    q->intro = memcpy(q->prompt + np, intro, ni);
  q->a = a;
  q->echo = echo;
  q->answered = answered;
  q->ud = ud;
  *a->last = q;
  a->last = &q->next;
  if (a->current == NULL)
    uv_timer_start(&a->turn, on_turn, 0, 0);
  return q;
}

void pp_ask_drop(pp_question *q) {
  pp_question **p;
  pp_ask *a;

  if (q == NULL)
    return;
  a = q->a;
  if (q == a->current) {
    say(a->fd, "\n", 1);
    a->current = NULL;
    pp_wipe(a->answer, sizeof a->answer);
    a->len = 0;
    if (a->first == NULL)
      release_terminal(a);
    else
      uv_timer_start(&a->turn, on_turn, 0, 0);
    free(q);
    return;
  }
  for (p = &a->first; *p != NULL && *p != q; p = &(*p)->next)
    ;
  if (*p == NULL)
    return; /* it is being answered */
  *p = q->next;
  if (a->last == &q->next)
    a->last = p;
  free(q);
}

void pp_ask_show(pp_ask *a, const char *text) {
  int fd = a->current == NULL ? open_terminal(a) : -1;

  if (fd < 0)
    return;
  say_clean(fd, text);
  say(fd, "\n", 1);
  close(fd);
}

void pp_ask_cancel(pp_ask *a) {
  if (a->current == NULL && a->first == NULL)
    return;
  a->cancelling = true;
  uv_timer_start(&a->turn, on_turn, 0, 0);
}

void pp_ask_close(pp_ask *a, void (*closed)(void *ud), void *ud) {
  pp_question *q;

  if (a == NULL)
    return;
  a->closing = true;
  a->closed = closed;
  a->closed_ud = ud;
  if (a->current != NULL)
    say(a->fd, "\n", 1);
  free(a->current);
  a->current = NULL;
  while ((q = a->first) != NULL) {
    a->first = q->next;
    free(q);
  }
  release_terminal(a);
  pp_wipe(a->answer, sizeof a->answer);
  uv_close((uv_handle_t *)&a->turn, ended);
}
