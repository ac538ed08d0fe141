/* SPDX-License-Identifier: MIT */
#include "bootstrap.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "bootstrap_script.h"
#include "buf.h"

enum {
  WORD = 20,            /* characters of the word that marks our lines */
  LINE = 1024,          /* of a line; what is longer is cut */
  SAID = 240,           /* of other words that are kept */
  NOISE_MAX = 32 << 20, /* bytes before the first line of ours */
  SENDS_MAX = 8,        /* times the program is sent */
  REASON = 1024,
};

struct pp_bootstrap {
  pp_bootstrap_options o;
  char word[WORD + 1];
  pp_buf command;
  char line[LINE];
  size_t n;
  bool begun; /* a line of ours has come */
  size_t noise;
  char said[SAID];   /* the last line before, or between, ours */
  char errors[SAID]; /* the last line on stderr */
  size_t nerrors;
  bool errors_ended;
  char skipped[600]; /* places that were no good */
  char system[80], place[LINE];
  const char *sent;
  const pp_agent_image *image;
  int sends;
  pp_boot_state state;
  char reason[REASON];
};

static int put(pp_buf *b, const char *s) { return pp_buf_put(b, s, strlen(s)); }

/* exec /bin/sh -c 'm=...; i=...; k="..."; SCRIPT' */
static int make_command(pp_bootstrap *b) {
  pp_buf *c = &b->command;
  char item[200];
  size_t i;
  int bad = 0;

  snprintf(item, sizeof item, "exec /bin/sh -c 'm=%s; i=%s; k=\"", b->word,
           b->o.installed != NULL ? b->o.installed : "");
  bad |= put(c, item);
  for (i = 0; i < b->o.n; i++) {
    const pp_agent_image *a = &b->o.images[i];

    snprintf(item, sizeof item, "%s%s:%s:%zu:%zu", i > 0 ? " " : "", a->machine,
             a->hash, a->gz != NULL ? a->gz_size : 0, a->size);
    bad |= put(c, item);
  }
  bad |= put(c, "\"; ");
  bad |= put(c, bootstrap_script);
  bad |= pp_buf_put(c, "'", 2);
  return bad;
}

/* Nobody can say this word beforehand: not a login file that prints what came
 * last time, and not a host that wants to be taken for another. */
static void make_word(char *word) {
  unsigned char r[8];
  size_t i;

  if (getrandom(r, sizeof r, 0) != sizeof r) {
    struct timespec t;

    clock_gettime(CLOCK_REALTIME, &t);
    memcpy(r, &t.tv_nsec, sizeof r);
  }
  memcpy(word, "ppsh", 4);
  for (i = 0; i < sizeof r; i++)
    sprintf(word + 4 + 2 * i, "%02x", r[i]);
}

pp_bootstrap *pp_bootstrap_new(const pp_bootstrap_options *o) {
  pp_bootstrap *b = calloc(1, sizeof *b);

  if (b == NULL)
    return NULL;
  b->o = *o;
  b->sent = "";
  make_word(b->word);
  if (make_command(b) != 0) {
    pp_bootstrap_free(b);
    return NULL;
  }
  return b;
}

void pp_bootstrap_free(pp_bootstrap *b) {
  if (b == NULL)
    return;
  pp_buf_clear(&b->command);
  free(b);
}

const char *pp_bootstrap_command(const pp_bootstrap *b) {
  return (const char *)b->command.data;
}

const char *pp_bootstrap_reason(const pp_bootstrap *b) {
  return b->state == PP_BOOT_FAILED ? b->reason : "";
}

const char *pp_bootstrap_system(const pp_bootstrap *b) { return b->system; }
const char *pp_bootstrap_sent(const pp_bootstrap *b) { return b->sent; }
const char *pp_bootstrap_place(const pp_bootstrap *b) { return b->place; }

static void fail(pp_bootstrap *b, const char *fmt, const char *x,
                 const char *y) {
  if (b->state == PP_BOOT_FAILED)
    return;
  b->state = PP_BOOT_FAILED;
  snprintf(b->reason, sizeof b->reason, fmt, x, y);
}

static void say(pp_bootstrap *b, const char *what, const char *text) {
  char line[LINE + 80];

  if (b->o.log == NULL)
    return;
  snprintf(line, sizeof line, "%s%s", what, text);
  b->o.log(b->o.ud, line);
}

/* --- what the script says ------------------------------------------------- */

static void on_hello(pp_bootstrap *b, const char *text) {
  const char *machine = strchr(text, ' ');
  char have[200] = "";
  size_t i, n = 0;

  snprintf(b->system, sizeof b->system, "%s", text);
  if (strncmp(text, "Linux ", 6) != 0) {
    fail(b, "the host runs %s, and the agent needs Linux%s", b->system, "");
    return;
  }
  for (i = 0; i < b->o.n; i++) {
    if (strcmp(b->o.images[i].machine, machine + 1) == 0)
      b->image = &b->o.images[i];
    if (n < sizeof have)
      n += (size_t)snprintf(have + n, sizeof have - n, "%s%s",
                            i > 0 ? ", " : "", b->o.images[i].machine);
  }
  if (b->image == NULL && b->o.installed == NULL)
    fail(b, "wrong architecture: the host is %s, and there are agents for %s",
         machine + 1, n > 0 ? have : "none");
}

static void on_send(pp_bootstrap *b, const char *form) {
  const pp_agent_image *a = b->image;
  bool gz = strcmp(form, "gz") == 0;

  if (a == NULL || (gz && a->gz == NULL) || ++b->sends > SENDS_MAX) {
    fail(b, "the host asks for what it cannot have: '%s'%s", form, "");
    return;
  }
  b->sent = gz ? "gz" : "raw";
  say(b, "sending the agent as ", b->sent);
  if (b->o.send(b->o.ud, gz ? a->gz : a->bytes, gz ? a->gz_size : a->size) != 0)
    fail(b, "not enough memory%s%s", "", "");
}

static void on_skip(pp_bootstrap *b, const char *text) {
  size_t n = strlen(b->skipped);

  say(b, "cannot put the agent into ", text);
  if (n < sizeof b->skipped)
    snprintf(b->skipped + n, sizeof b->skipped - n, "%s%s", n > 0 ? "; " : "",
             text);
}

static void on_run(pp_bootstrap *b, const char *id) {
  if ((b->image != NULL && strcmp(id, b->image->hash) == 0) ||
      (b->o.installed != NULL && strcmp(id, b->o.installed) == 0))
    b->state = PP_BOOT_READY;
  else
    fail(b, "another version answers there: '%s'%s", id, "");
}

/* Behind the word: "KIND TEXT". */
static void on_line(pp_bootstrap *b, char *kind) {
  char *text = strchr(kind, ' ');

  if (text != NULL)
    *text++ = '\0';
  else
    text = kind + strlen(kind);
  if (strcmp(kind, "hello") == 0 && strchr(text, ' ') != NULL)
    on_hello(b, text);
  else if (strcmp(kind, "at") == 0)
    snprintf(b->place, sizeof b->place, "%s", text);
  else if (strcmp(kind, "note") == 0)
    say(b, "", text);
  else if (strcmp(kind, "send") == 0)
    on_send(b, text);
  else if (strcmp(kind, "skip") == 0)
    on_skip(b, text);
  else if (strcmp(kind, "run") == 0)
    on_run(b, text);
  else if (strcmp(kind, "machine") == 0)
    fail(b,
         "wrong architecture: the host is %s, and no installed ppsh of this "
         "build was found%s",
         b->system, "");
  else if (strcmp(kind, "fail") == 0)
    fail(b, "the agent cannot be stored and run there (%s; %s)", b->skipped,
         text);
  else
    say(b, "the host says something unknown: ", kind);
}

/* Printable, without blanks at the end. */
static void clean(char *s) {
  size_t n = strlen(s);

  while (n > 0 && (unsigned char)s[n - 1] <= ' ')
    s[--n] = '\0';
  for (; *s != '\0'; s++)
    if ((unsigned char)*s < ' ' || *s == 0x7f)
      *s = *s == '\t' ? ' ' : '?';
}

static void end_line(pp_bootstrap *b) {
  b->line[b->n] = '\0';
  b->n = 0;
  clean(b->line);
  if (strncmp(b->line, b->word, WORD) == 0 && b->line[WORD] == ' ') {
    b->begun = true;
    on_line(b, b->line + WORD + 1);
  } else if (b->line[0] != '\0') {
    snprintf(b->said, sizeof b->said, "%.*s", SAID - 1, b->line);
  }
}

pp_boot_state pp_bootstrap_data(pp_bootstrap *b, const void *p, size_t n,
                                size_t *used) {
  const char *s = p;
  size_t i;

  for (i = 0; i < n && b->state == PP_BOOT_WAITING; i++) {
    if (s[i] == '\n')
      end_line(b);
    else if (b->n < sizeof b->line - 1)
      b->line[b->n++] = s[i];
    if (!b->begun && ++b->noise > NOISE_MAX)
      fail(b, "the host's login files print without end%s%s", "", "");
  }
  *used = b->state == PP_BOOT_READY ? i : n;
  return b->state;
}

void pp_bootstrap_errors(pp_bootstrap *b, const void *p, size_t n) {
  const char *s = p;

  /* The last line that says something. */
  for (; n > 0; n--, s++) {
    if (*s == '\n' || *s == '\r') {
      b->errors_ended = true;
      continue;
    }
    if (b->errors_ended)
      b->nerrors = 0;
    b->errors_ended = false;
    if (b->nerrors < sizeof b->errors - 1)
      b->errors[b->nerrors++] = *s;
    b->errors[b->nerrors] = '\0';
  }
}

/* --- failing -------------------------------------------------------------- */

static const char *last_words(pp_bootstrap *b) {
  clean(b->errors);
  if (b->errors[0] != '\0')
    return b->errors;
  if (b->n > 0 && !b->begun) {
    b->line[b->n] = '\0';
    clean(b->line);
    snprintf(b->said, sizeof b->said, "%.*s", SAID - 1, b->line);
  }
  return b->said;
}

const char *pp_bootstrap_closed(pp_bootstrap *b, const char *text) {
  const char *words;

  if (b->state == PP_BOOT_FAILED)
    return b->reason;
  words = last_words(b);
  b->state = PP_BOOT_FAILED;
  if (!b->begun && *words == '\0' && strncmp(text, "the command ", 12) != 0) {
    /* It did not get as far as a shell. */
    snprintf(b->reason, sizeof b->reason, "%s", text);
    return b->reason;
  }
  snprintf(b->reason, sizeof b->reason, "%s%s%s%s%s%s",
           !b->begun             ? "the login shell runs no commands: "
           : b->place[0] != '\0' ? "the agent does not start: "
                                 : "the agent cannot be set up: ",
           text, *words != '\0' ? ": " : "", words,
           b->skipped[0] != '\0' ? "; " : "", b->skipped);
  return b->reason;
}

const char *pp_bootstrap_stalled(pp_bootstrap *b) {
  const char *words;

  if (b->state == PP_BOOT_FAILED)
    return b->reason;
  words = last_words(b);
  b->state = PP_BOOT_FAILED;
  snprintf(b->reason, sizeof b->reason, "timed out: %s%s%s%s",
           !b->begun             ? "the login shell starts nothing"
           : b->place[0] != '\0' ? "the agent says nothing"
           : b->sends > 0        ? "the agent is still being sent"
                                 : "the host does not say what it has",
           *words != '\0' ? " (" : "", words, *words != '\0' ? ")" : "");
  return b->reason;
}
