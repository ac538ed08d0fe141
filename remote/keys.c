/* SPDX-License-Identifier: MIT */
#include "keys.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FILE_MAX = 64 << 10, TRIES = 3 };

struct pp_key_file {
  pp_keys *keys;
  pp_key_file *next;
  pp_key_wait *first, *last;
  pp_question *question;
  uv_work_t work;
  bool open, working, failed, cancelled;
  int tries;
  pp_key key;
  char *text; /* of the file, while it is closed; owned, n bytes */
  size_t n;
  char *passphrase; /* owned: being tried, or remembered */
  int status;       /* of the work */
  pp_key result;
  const char *why;
  char path[];
};

struct pp_keys {
  uv_loop_t *loop;
  pp_ask *ask;
  pp_key_file *files;
  int working;
  bool closing;
  void (*closed)(void *ud);
  void *ud;
};

pp_keys *pp_keys_new(uv_loop_t *loop, pp_ask *ask) {
  pp_keys *k = calloc(1, sizeof *k);

  if (k != NULL) {
    k->loop = loop;
    k->ask = ask;
  }
  return k;
}

static void forget_text(pp_key_file *f) {
  if (f->text != NULL)
    pp_wipe(f->text, f->n);
  free(f->text);
  f->text = NULL;
  f->n = 0;
}

static void forget_passphrase(pp_key_file *f) {
  if (f->passphrase != NULL)
    pp_wipe(f->passphrase, strlen(f->passphrase));
  free(f->passphrase);
  f->passphrase = NULL;
}

static void end(pp_keys *k) {
  void (*closed)(void *ud) = k->closed;
  void *ud = k->ud;
  pp_key_file *f;

  while ((f = k->files) != NULL) {
    k->files = f->next;
    forget_text(f);
    forget_passphrase(f);
    pp_key_clear(&f->key);
    free(f);
  }
  free(k);
  if (closed != NULL)
    closed(ud);
}

void pp_keys_close(pp_keys *k, void (*closed)(void *ud), void *ud) {
  if (k == NULL)
    return;
  k->closing = true;
  k->closed = closed;
  k->ud = ud;
  if (k->working == 0)
    end(k);
}

static pp_key_file *find(pp_keys *k, const char *path, bool make) {
  pp_key_file *f;
  size_t n = strlen(path) + 1;

  for (f = k->files; f != NULL; f = f->next)
    if (strcmp(f->path, path) == 0)
      return f;
  if (!make || (f = calloc(1, sizeof *f + n)) == NULL)
    return NULL;
  memcpy(f->path, path, n);
  f->keys = k;
  f->why = "was not opened";
  f->next = k->files;
  k->files = f;
  return f;
}

/* The whole text of the file into f->text. */
static int load(pp_key_file *f) {
  int fd = open(f->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  ssize_t n;
  int saved;

  forget_text(f);
  if (fd < 0)
    return PP_ESYS;
  if ((f->text = malloc(FILE_MAX)) == NULL) {
    close(fd);
    return PP_ENOMEM;
  }
  while ((n = read(fd, f->text + f->n, FILE_MAX - f->n)) > 0 ||
         (n < 0 && errno == EINTR))
    f->n += n > 0 ? (size_t)n : 0;
  saved = errno;
  close(fd);
  errno = saved;
  return n < 0 ? PP_ESYS : 0;
}

/* Tell all that wait. */
static void settle(pp_key_file *f) {
  pp_key_wait *w;

  forget_text(f);
  if (f->failed)
    forget_passphrase(f);
  while ((w = f->first) != NULL) {
    pp_keys_stop_waiting(w);
    w->ready(w->ud, f->open ? PP_KEY_OPEN : PP_KEY_FAILED);
  }
}

static void fail(pp_key_file *f, const char *why) {
  f->failed = true;
  f->why = why;
  settle(f);
}

static void ask(pp_key_file *f);

static void do_work(uv_work_t *work) {
  pp_key_file *f = work->data;

  f->status = pp_key_read(&f->result, f->text, f->n, f->passphrase, &f->why);
}

static void after_work(uv_work_t *work, int cancelled) {
  pp_key_file *f = work->data;
  pp_keys *k = f->keys;

  (void)cancelled;
  f->working = false;
  k->working--;
  if (f->status == 0) {
    f->key = f->result;
    f->open = true;
  }
  if (k->closing) {
    if (k->working == 0)
      end(k);
    return;
  }
  if (f->status == 0)
    settle(f);
  else if (f->status == PP_KEY_NEEDS_PASSPHRASE && ++f->tries < TRIES)
    ask(f);
  else if (f->status == PP_KEY_NEEDS_PASSPHRASE)
    fail(f, "no passphrase given was the right one");
  else
    fail(f, f->status == PP_ENOMEM ? "not enough memory" : f->why);
}

static void answered(void *ud, pp_answer how, const char *text) {
  pp_key_file *f = ud;

  f->question = NULL;
  if (how == PP_ANSWER_NO_TERMINAL) {
    fail(f, "needs a passphrase, and there is no terminal to ask at");
    return;
  }
  if (how == PP_ANSWER_CANCELLED) {
    f->cancelled = true;
    fail(f, "needs a passphrase, and none was given");
    return;
  }
  if (*text == '\0') {
    fail(f, "needs a passphrase, and none was given");
    return;
  }
  forget_passphrase(f);
  f->work.data = f;
  if ((f->passphrase = strdup(text)) == NULL ||
      uv_queue_work(f->keys->loop, &f->work, do_work, after_work) != 0) {
    fail(f, "not enough memory");
    return;
  }
  f->working = true;
  f->keys->working++;
}

static void ask(pp_key_file *f) {
  char prompt[4200];

  snprintf(prompt, sizeof prompt, "%sEnter passphrase for key '%s': ",
           f->tries > 0 ? "Bad passphrase, try again. " : "", f->path);
  f->question = pp_ask_put(f->keys->ask, NULL, prompt, false, answered, f);
  if (f->question == NULL)
    fail(f, "not enough memory");
}

pp_key_state pp_keys_open(pp_keys *k, const char *path, bool may_ask,
                          pp_key_wait *wait,
                          void (*ready)(void *ud, pp_key_state state),
                          void *ud) {
  pp_key_file *f = find(k, path, true);
  int status;

  pp_keys_stop_waiting(wait);
  if (f == NULL)
    return PP_KEY_FAILED;
  if (f->open)
    return PP_KEY_OPEN;
  if (f->failed)
    return PP_KEY_FAILED;
  if (!f->working && f->question == NULL) {
    if (load(f) != 0) {
      f->why = errno == EACCES ? "cannot be read: permission denied"
                               : "cannot be read";
      forget_text(f);
      return PP_KEY_FAILED;
    }
    status = pp_key_read(&f->key, f->text, f->n, NULL, &f->why);
    if (status == 0) {
      f->open = true;
      forget_text(f);
      return PP_KEY_OPEN;
    }
    if (status != PP_KEY_NEEDS_PASSPHRASE) {
      f->failed = true;
      forget_text(f);
      return PP_KEY_FAILED;
    }
    if (!may_ask || !pp_ask_possible(k->ask)) {
      f->why = "needs a passphrase, and there is no terminal to ask at";
      forget_text(f);
      return PP_KEY_FAILED;
    }
    ask(f);
    if (f->failed)
      return PP_KEY_FAILED;
  }
  wait->file = f;
  wait->ready = ready;
  wait->ud = ud;
  wait->next = NULL;
  if ((wait->prev = f->last) != NULL)
    f->last->next = wait;
  else
    f->first = wait;
  f->last = wait;
  return PP_KEY_WAITING;
}

void pp_keys_stop_waiting(pp_key_wait *w) {
  pp_key_file *f = w->file;

  if (f == NULL)
    return;
  if (w->prev != NULL)
    w->prev->next = w->next;
  else
    f->first = w->next;
  if (w->next != NULL)
    w->next->prev = w->prev;
  else
    f->last = w->prev;
  w->file = NULL;
  w->prev = w->next = NULL;
  /* A question that nobody wants answered any more goes away. */
  if (f->first == NULL && f->question != NULL) {
    pp_ask_drop(f->question);
    f->question = NULL;
    forget_text(f);
  }
}

const char *pp_keys_why(pp_keys *k, const char *path) {
  pp_key_file *f = find(k, path, false);

  return f != NULL ? f->why : "not enough memory";
}

bool pp_keys_cancelled(pp_keys *k, const char *path) {
  pp_key_file *f = find(k, path, false);

  return f != NULL && f->cancelled;
}

const pp_buf *pp_keys_blob(pp_keys *k, const char *path) {
  pp_key_file *f = find(k, path, false);

  return f != NULL && f->open ? &f->key.blob : NULL;
}

int pp_keys_sign(pp_keys *k, const char *path, const void *data, size_t n,
                 pp_buf *out) {
  pp_key_file *f = find(k, path, false);

  return f != NULL && f->open ? pp_key_sign(&f->key, data, n, out) : PP_EBAD;
}

const char *pp_keys_passphrase(pp_keys *k, const char *path) {
  pp_key_file *f = find(k, path, false);

  return f != NULL && !f->working && f->question == NULL ? f->passphrase : NULL;
}

void pp_keys_remember(pp_keys *k, const char *path, const char *passphrase) {
  pp_key_file *f = find(k, path, true);

  if (f == NULL || f->working || f->question != NULL)
    return;
  forget_passphrase(f);
  f->passphrase = strdup(passphrase);
}
