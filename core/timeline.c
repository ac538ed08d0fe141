/* SPDX-License-Identifier: MIT */
#include "timeline.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kin.h"
#include "text.h"

#define MS ((int64_t)1000000)
/* Events are written when they are so many bytes, or so old. */
#define FLUSH_BYTES ((size_t)256 << 10)
#define FLUSH_NS (250 * MS)
/* Counters are taken no more often. */
#define COUNT_NS (10 * MS)
/* Longer texts are cut. */
#define TEXT_MAX 500u

struct pp_timeline {
  pp_trace *trace;
  char *path;
  int fd, error; /* error: errno of a write that failed; 0: none has */
  pp_buf out;
  bool any;                 /* there is an event before */
  int64_t since;            /* when the oldest event in out came */
  int64_t counted;          /* when counters were taken last */
  uint64_t queued, running; /* what they said */
  uint64_t arrows;
};

/* --- events --------------------------------------------------------------- */

static void put(pp_timeline *f, const char *text) {
  (void)pp_buf_put(&f->out, text, strlen(text));
}

/* Begin an event: its phase, name and category. */
static void begin(pp_timeline *f, const char *phase, const char *name,
                  const char *category) {
  if (f->out.len == 0)
    f->since = pp_now_ns();
  put(f, f->any ? ",\n{\"ph\":\"" : "{\"ph\":\"");
  f->any = true;
  put(f, phase);
  put(f, "\",\"name\":");
  pp_text_json(&f->out, name, strlen(name), TEXT_MAX);
  if (category != NULL) {
    put(f, ",\"cat\":\"");
    put(f, category);
    put(f, "\"");
  }
}

static void number(pp_timeline *f, const char *key, uint64_t v) {
  put(f, key);
  pp_text_number(&f->out, v);
}

static void micros(pp_timeline *f, const char *key, int64_t ns) {
  put(f, key);
  pp_text_micros(&f->out, ns);
}

static void text(pp_timeline *f, const char *key, const char *s, size_t n) {
  put(f, key);
  pp_text_json(&f->out, s, n, TEXT_MAX);
}

static void when(pp_timeline *f, int64_t at) {
  micros(f, ",\"ts\":", at - f->trace->began);
}

/* Processes are numbered from 1; 0 is ppsh itself. */
static void name_node(pp_timeline *f, pp_tnode *n) {
  char name[300];

  if (n->named)
    return;
  n->named = true;
  pp_trace_name(f->trace, n, name, sizeof name);
  begin(f, "M", "process_name", NULL);
  number(f, ",\"pid\":", n->index + 1);
  text(f, ",\"args\":{\"name\":", name, strlen(name));
  put(f, "}}");
  begin(f, "M", "process_sort_index", NULL);
  number(f, ",\"pid\":", n->index + 1);
  number(f, ",\"args\":{\"sort_index\":", n->index + 1);
  put(f, "}}");
}

static void place(pp_timeline *f, pp_tworker *w) {
  number(f, ",\"pid\":", w->node->index + 1);
  number(f, ",\"tid\":", w->number);
}

static void name_worker(pp_timeline *f, pp_tworker *w) {
  char name[40];

  if (w->named)
    return;
  w->named = true;
  name_node(f, w->node);
  if (w->number == 0)
    snprintf(name, sizeof name, "this process");
  else
    snprintf(name, sizeof name, "worker %u", w->number);
  begin(f, "M", "thread_name", NULL);
  place(f, w);
  text(f, ",\"args\":{\"name\":", name, strlen(name));
  put(f, "}}");
  begin(f, "M", "thread_sort_index", NULL);
  place(f, w);
  number(f, ",\"args\":{\"sort_index\":", w->number);
  put(f, "}}");
}

static const char *name_of(const pp_attempt *a) {
  const pp_more *more = a->job->more;

  if (more != NULL && more->name != NULL)
    return more->name;
  return a->label != NULL ? a->label->name : "job";
}

/* What is known of an attempt. */
static void args(pp_timeline *f, const pp_attempt *a) {
  const pp_job *j = a->job;
  static const char *const outcomes[] = {"done", "failed", "run again",
                                         "unfinished"};

  number(f, ",\"args\":{\"job\":", j->id);
  put(f, ",\"outcome\":\"");
  put(f, outcomes[a->outcome]);
  put(f, "\"");
  if (a->label != NULL)
    text(f, ",\"function\":", a->label->place, strlen(a->label->place));
  if (a->at != NULL) {
    number(f, ",\"attempt\":", a->number);
    micros(f, ",\"queue_us\":", a->sent - a->queued);
    micros(f, ",\"send_us\":", a->begun - a->sent);
    micros(f, ",\"run_us\":", j->run);
    micros(f, ",\"return_us\":", a->returned - a->ended);
    micros(f, ",\"cpu_us\":", j->cpu);
    number(f, ",\"sent_bytes\":", j->sent);
    number(f, ",\"received_bytes\":", j->received);
    number(f, ",\"maxrss_bytes\":", pp_job_maxrss(j));
  } else {
    micros(f, ",\"queue_us\":", a->returned - a->queued);
  }
  if (j->items > 0) {
    number(f, ",\"items\":", j->items);
    if (j->more != NULL)
      number(f, ",\"first_item\":", j->more->index);
  }
  if (j->group != NULL && strcmp(j->group->name, "default") != 0)
    text(f, ",\"group\":", j->group->name, j->group->len);
  if (a->outcome == PP_TRACE_FAILED || a->outcome == PP_TRACE_AGAIN) {
    put(f, ",\"kind\":\"");
    put(f, pp_kind_name(a->kind));
    text(f, "\",\"error\":", a->why, a->why_len);
  }
  put(f, "}");
}

/* From the job that submitted this one. */
static void arrow(pp_timeline *f, const pp_attempt *a) {
  name_worker(f, a->from);
  begin(f, "s", "submit", "jobs");
  number(f, ",\"id\":", ++f->arrows);
  place(f, a->from);
  when(f, a->queued);
  put(f, "}");
  begin(f, "f", "submit", "jobs");
  number(f, ",\"bp\":\"e\",\"id\":", f->arrows);
  place(f, a->at);
  when(f, a->begun);
  put(f, "}");
}

static void flush(pp_timeline *f);

static void count(pp_timeline *f, int64_t now) {
  uint64_t queued, running;

  f->counted = now;
  pp_trace_count(f->trace->engine, &queued, &running);
  if (queued == f->queued && running == f->running)
    return;
  f->queued = queued;
  f->running = running;
  begin(f, "C", "jobs", NULL);
  put(f, ",\"pid\":0");
  when(f, now);
  number(f, ",\"args\":{\"running\":", running);
  number(f, ",\"queued\":", queued);
  put(f, "}}");
}

void pp_timeline_add(pp_timeline *f, const pp_attempt *a) {
  const char *category = a->job->flags & PP_JOB_CALL   ? "everywhere"
                         : a->outcome == PP_TRACE_DONE ? "job"
                                                       : "job,trouble";

  if (a->at != NULL) {
    name_worker(f, a->at);
    begin(f, "X", name_of(a), category);
    place(f, a->at);
    when(f, a->begun);
    micros(f, ",\"dur\":", a->ended - a->begun);
    if (a->outcome == PP_TRACE_FAILED || a->outcome == PP_TRACE_AGAIN)
      put(f, ",\"cname\":\"terrible\"");
    args(f, a);
    put(f, "}");
    if (a->from != NULL)
      arrow(f, a);
  } else {
    begin(f, "i", name_of(a), category);
    put(f, ",\"pid\":0,\"tid\":0,\"s\":\"p\"");
    when(f, a->returned);
    args(f, a);
    put(f, "}");
  }
  if (a->returned - f->counted > COUNT_NS)
    count(f, a->returned);
  if (f->out.len >= FLUSH_BYTES)
    flush(f);
}

void pp_timeline_died(pp_timeline *f, pp_tworker *w, const char *how) {
  name_worker(f, w);
  begin(f, "i", "worker lost", "trouble");
  place(f, w);
  put(f, ",\"s\":\"t\"");
  when(f, pp_now_ns());
  text(f, ",\"args\":{\"how\":", how, strlen(how));
  put(f, "}}");
}

void pp_timeline_node(pp_timeline *f, pp_tnode *n, const char *why) {
  pp_node state = {.state = n->state};

  name_node(f, n);
  begin(f, "i", pp_node_state_name(&state), "host");
  number(f, ",\"pid\":", n->index + 1);
  put(f, ",\"tid\":0,\"s\":\"p\"");
  when(f, pp_now_ns());
  text(f, ",\"args\":{\"reason\":", why != NULL ? why : "",
       why != NULL ? strlen(why) : 0);
  put(f, "}}");
}

/* --- the file ------------------------------------------------------------- */

static void flush(pp_timeline *f) {
  const unsigned char *p = f->out.data;
  size_t left = f->out.len;

  while (left > 0 && f->error == 0) {
    ssize_t n = write(f->fd, p, left);

    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0) {
      f->error = errno;
      pp_log(PP_LOG_ERROR, "cannot write the trace '%s': %s", f->path,
             strerror(f->error));
      break;
    }
    p += n;
    left -= (size_t)n;
  }
  f->out.len = 0;
}

int64_t pp_timeline_tick(pp_timeline *f, int64_t now) {
  if (now - f->counted > COUNT_NS)
    count(f, now);
  if (f->out.len > 0 && now - f->since >= FLUSH_NS)
    flush(f);
  return f->out.len > 0                  ? f->since + FLUSH_NS
         : f->trace->engine->pending > 0 ? now + FLUSH_NS
                                         : -1;
}

int pp_timeline_open(pp_trace *t, const char *path, pp_timeline **out) {
  pp_timeline *f = calloc(1, sizeof *f);

  *out = NULL;
  if (f == NULL || (f->path = strdup(path)) == NULL) {
    fputs("ppsh: not enough memory\n", stderr);
    free(f);
    return PP_ENOMEM;
  }
  f->trace = t;
  f->fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (f->fd < 0) {
    fprintf(stderr, "ppsh: cannot write the trace '%s': %s\n", path,
            strerror(errno));
    free(f->path);
    free(f);
    return PP_ESYS;
  }
  put(f, "[\n");
  begin(f, "M", "process_name", NULL);
  put(f, ",\"pid\":0,\"args\":{\"name\":\"ppsh\"}}");
  begin(f, "M", "process_sort_index", NULL);
  put(f, ",\"pid\":0,\"args\":{\"sort_index\":0}}");
  *out = f;
  return 0;
}

int pp_timeline_fd(const pp_timeline *f) { return f->fd; }

bool pp_timeline_close(pp_timeline *f) {
  bool ok;

  put(f, "\n]\n");
  flush(f);
  ok = f->error == 0;
  close(f->fd);
  pp_buf_clear(&f->out);
  free(f->path);
  free(f);
  return ok;
}
