/* SPDX-License-Identifier: MIT */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ssh_impl.h"

/*
 * One thread for one call of libssh2, and a new one when that says EAGAIN. The
 * loop's side never touches the session in the meantime: input is kept in
 * `staged`, output is not sent. All below `lock` is guarded by it.
 */
struct pp_kbd {
  pp_leg *h;
  uv_async_t async; /* a question was put, or the call has returned */
  pthread_t thread;
  bool begun;            /* loop's side: libssh2 is in the midst of it */
  bool running;          /* loop's side: there is a thread to join */
  pp_question *question; /* loop's side */
  bool cancelled;

  pthread_mutex_t lock;
  pthread_cond_t answered;
  bool returned; /* the call has */
  int rc;
  bool wanted, given, abort;
  bool echo;
  char intro[1024], prompt[1024];
  char answer[PP_ANSWER_MAX];
};

/* --- in the thread -------------------------------------------------------- */

/* The text of one prompt, answered into k->answer. */
static void ask_one(pp_kbd *k, const char *intro, size_t nintro,
                    const char *text, size_t n, bool echo) {
  snprintf(k->intro, sizeof k->intro, "%.*s",
           (int)(nintro < sizeof k->intro ? nintro : sizeof k->intro - 1),
           intro);
  snprintf(k->prompt, sizeof k->prompt, "(%s@%s) %.*s", k->h->t->user,
           k->h->t->host, (int)(n < 900 ? n : 900), text);
  k->echo = echo;
  k->given = false;
  k->wanted = true;
  uv_async_send(&k->async);
  while (!k->given && !k->abort)
    pthread_cond_wait(&k->answered, &k->lock);
  k->wanted = false;
}

static LIBSSH2_USERAUTH_KBDINT_RESPONSE_FUNC(respond) {
  pp_kbd *k = ((pp_leg *)*abstract)->auth.kbd;
  int i;

  (void)name;
  (void)name_len;
  pthread_mutex_lock(&k->lock);
  for (i = 0; i < num_prompts; i++) {
    responses[i].text = NULL;
    responses[i].length = 0;
    if (k->abort)
      continue;
    ask_one(k, i == 0 ? (const char *)instruction : "",
            i == 0 && instruction_len > 0 ? (size_t)instruction_len : 0,
            (const char *)prompts[i].text, prompts[i].length,
            prompts[i].echo != 0);
    if (!k->abort && (responses[i].text = strdup(k->answer)) != NULL)
      responses[i].length = (unsigned)strlen(k->answer);
    pp_wipe(k->answer, sizeof k->answer);
  }
  pthread_mutex_unlock(&k->lock);
}

static void *call(void *ud) {
  pp_kbd *k = ud;
  pp_leg *h = k->h;
  int rc = libssh2_userauth_keyboard_interactive_ex(
      h->session, h->t->user, (unsigned)strlen(h->t->user), respond);

  pthread_mutex_lock(&k->lock);
  k->rc = rc;
  k->returned = true;
  uv_async_send(&k->async);
  pthread_mutex_unlock(&k->lock);
  return NULL;
}

/* --- in the loop ---------------------------------------------------------- */

static void given(void *ud, pp_answer how, const char *text) {
  pp_kbd *k = ud;

  k->question = NULL;
  pthread_mutex_lock(&k->lock);
  if (how == PP_ANSWER_GIVEN) {
    snprintf(k->answer, sizeof k->answer, "%s", text);
    k->given = true;
  } else {
    k->cancelled = true;
    k->abort = true;
  }
  pthread_cond_signal(&k->answered);
  pthread_mutex_unlock(&k->lock);
}

static void on_async(uv_async_t *async) {
  pp_kbd *k = async->data;
  bool wanted, returned;

  if (k->h == NULL)
    return;
  pthread_mutex_lock(&k->lock);
  wanted = k->wanted && !k->given && !k->abort;
  returned = k->returned;
  pthread_mutex_unlock(&k->lock);
  if (wanted && k->question == NULL) {
    k->question =
        pp_ask_put(k->h->c->net->ask, k->intro[0] != '\0' ? k->intro : NULL,
                   k->prompt, k->echo, given, k);
    if (k->question == NULL)
      given(k, PP_ANSWER_CANCELLED, NULL);
  }
  if (returned)
    pp_ssh_kick(k->h->c);
}

static void async_closed(uv_handle_t *h) {
  pp_kbd *k = h->data;

  pthread_mutex_destroy(&k->lock);
  pthread_cond_destroy(&k->answered);
  pp_wipe(k->answer, sizeof k->answer);
  free(k);
}

static pp_kbd *new_kbd(pp_leg *h) {
  pp_kbd *k = calloc(1, sizeof *k);

  if (k == NULL)
    return NULL;
  if (uv_async_init(h->c->net->loop, &k->async, on_async) != 0) {
    free(k);
    return NULL;
  }
  k->async.data = k;
  k->h = h;
  pthread_mutex_init(&k->lock, NULL);
  pthread_cond_init(&k->answered, NULL);
  return k;
}

static void start(pp_kbd *k) {
  sigset_t all, old;

  k->returned = false;
  /* Signals are for the thread that runs the loop. */
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &old);
  k->running = pthread_create(&k->thread, NULL, call, k) == 0;
  pthread_sigmask(SIG_SETMASK, &old, NULL);
  if (!k->running) {
    k->returned = true;
    k->rc = LIBSSH2_ERROR_ALLOC;
  }
}

bool pp_kbd_running(const pp_leg *h) {
  return h->auth.kbd != NULL && h->auth.kbd->running;
}

bool pp_kbd_cancelled(const pp_leg *h) {
  return h->auth.kbd != NULL && h->auth.kbd->cancelled;
}

/* The thread is done; what came in meanwhile can be read now. */
static int join(pp_leg *h, pp_kbd *k) {
  pthread_join(k->thread, NULL);
  k->running = false;
  if (h->staged.len == 0)
    return 0;
  if (h->in_at == h->in.len)
    h->in_at = h->in.len = 0;
  if (pp_buf_put(&h->in, h->staged.data, h->staged.len) != 0)
    return PP_ENOMEM;
  h->staged.len = 0;
  return 0;
}

int pp_kbd_run(pp_leg *h, int *rc) {
  pp_kbd *k = h->auth.kbd;
  bool returned;

  if (k == NULL && (k = h->auth.kbd = new_kbd(h)) == NULL) {
    *rc = LIBSSH2_ERROR_ALLOC;
    return 1;
  }
  if (k->running) {
    pthread_mutex_lock(&k->lock);
    returned = k->returned;
    pthread_mutex_unlock(&k->lock);
    if (!returned)
      return 0;
    if (join(h, k) != 0)
      k->rc = LIBSSH2_ERROR_ALLOC;
    if (k->rc != LIBSSH2_ERROR_EAGAIN) {
      k->begun = false;
      *rc = k->rc;
      return 1;
    }
  }
  /* The next call is worth making when there is something to read. */
  if (k->begun && h->in_at == h->in.len && !h->eof)
    return 0;
  k->begun = true;
  start(k);
  if (k->running)
    return 0;
  k->begun = false;
  *rc = k->rc;
  return 1;
}

void pp_kbd_clear(pp_leg *h) {
  pp_kbd *k = h->auth.kbd;

  if (k == NULL)
    return;
  pp_ask_drop(k->question);
  k->question = NULL;
  if (k->running) {
    pthread_mutex_lock(&k->lock);
    k->abort = true;
    pthread_cond_signal(&k->answered);
    pthread_mutex_unlock(&k->lock);
    pthread_join(k->thread, NULL);
    k->running = false;
  }
  h->auth.kbd = NULL;
  k->h = NULL;
  uv_close((uv_handle_t *)&k->async, async_closed);
}
