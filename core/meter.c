/* SPDX-License-Identifier: MIT */
#include "meter.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine.h"
#include "link.h"

#define MS ((int64_t)1000000)
#define REDRAW_NS (100 * MS)
#define TABLE_NS (250 * MS)
/* Jobs that come after a longer silence are counted anew. */
#define SILENCE_NS (1000 * MS)
#define LINE_MOST 200

void pp_meter_init(pp_meter *m, bool all, bool always) {
  struct stat out, err;
  const char *term = getenv("TERM");

  memset(m, 0, sizeof *m);
  pthread_mutex_init(&m->lock, NULL);
  m->all = all;
  m->can = always || isatty(STDERR_FILENO);
  m->same = fstat(STDOUT_FILENO, &out) == 0 &&
            fstat(STDERR_FILENO, &err) == 0 && out.st_dev == err.st_dev &&
            out.st_ino == err.st_ino;
  m->dumb = term == NULL || strcmp(term, "dumb") == 0;
}

/* --- counting ------------------------------------------------------------- */

static void restart(pp_meter *m, int64_t now, uint64_t total) {
  m->began = now;
  m->total = total;
  m->ended = m->failed = 0;
}

void pp_meter_added(pp_meter *m, uint64_t n, bool first, int64_t now) {
  if (first && (m->began == 0 || now - m->idle > SILENCE_NS))
    restart(m, now, 0);
  m->total += n;
}

void pp_meter_ended(pp_meter *m, uint64_t n, bool failed, bool dropped) {
  m->idle = pp_now_ns();
  if (dropped) {
    m->total -= n < m->total ? n : m->total;
    return;
  }
  m->ended += n;
  m->failed += failed;
}

bool pp_meter_watch(pp_engine *e, bool asked, int64_t n) {
  pp_meter *m = &e->meter;

  if (!m->can || !(asked || m->all))
    return false;
  if (asked && m->asked++ == 0 && !m->all)
    restart(m, pp_now_ns(), e->pending);
  if (n < 0)
    m->endless++;
  else
    m->expected += (uint64_t)n;
  return true;
}

void pp_meter_watched(pp_meter *m, uint64_t k) {
  m->expected -= k < m->expected ? k : m->expected;
}

void pp_meter_unwatch(pp_engine *e, bool asked, int64_t left) {
  pp_meter *m = &e->meter;

  if (left < 0)
    m->endless -= m->endless > 0;
  else
    pp_meter_watched(m, (uint64_t)left);
  if (asked && --m->asked == 0 && !m->all)
    pp_meter_erase(m, 1);
}

/* --- the terminal --------------------------------------------------------- */

/* Where stderr leads, also while a job runs in this process. */
static void put(const char *p, size_t n) {
  const pp_engine *e = pp_engine_get();
  int fd = e != NULL ? fileno(e->out[1]) : STDERR_FILENO;

  while (n > 0) {
    ssize_t k = write(fd, p, n);

    if (k <= 0)
      return; /* it is not worth waiting for */
    p += k;
    n -= (size_t)k;
  }
}

static void window(struct winsize *size) {
  const pp_engine *e = pp_engine_get();

  memset(size, 0, sizeof *size);
  if (e == NULL || ioctl(fileno(e->out[1]), TIOCGWINSZ, size) != 0)
    size->ws_col = size->ws_row = 0;
  if (size->ws_col < 2)
    size->ws_col = 80;
  if (size->ws_row < 2)
    size->ws_row = 24;
}

/* To the beginning of the table that is shown. Where the terminal has become
 * narrower since, it has wrapped lines of it. */
static void go_home(const pp_meter *m, pp_buf *out) {
  struct winsize size;
  char up[24];
  int rows = 0;

  window(&size);
  for (int i = 0; i < m->rows; i++)
    rows += m->widths[i] > 0 ? (m->widths[i] - 1) / size.ws_col + 1 : 1;
  if (rows > size.ws_row)
    rows = size.ws_row;
  (void)pp_buf_byte(out, '\r');
  if (rows > 1) {
    snprintf(up, sizeof up, "\033[%dA", rows - 1);
    (void)pp_buf_put(out, up, strlen(up));
  }
}

static void erase(pp_meter *m) {
  char blank[LINE_MOST + 2];

  if (!m->shown)
    return;
  m->shown = false;
  if (m->rows > 0) {
    pp_buf home = {0};

    go_home(m, &home);
    (void)pp_buf_put(&home, "\033[J", 3);
    put((const char *)home.data, home.len);
    pp_buf_clear(&home);
    m->rows = 0;
    return;
  }
  if (!m->dumb) {
    put("\r\033[K", 4);
    return;
  }
  memset(blank, ' ', sizeof blank);
  blank[0] = blank[m->width + 1] = '\r';
  put(blank, (size_t)m->width + 2);
}

static bool concerns(const pp_meter *m, int which) {
  return which == 1 || m->same;
}

void pp_meter_erase(pp_meter *m, int which) {
  if (!m->shown || !concerns(m, which))
    return;
  pthread_mutex_lock(&m->lock);
  erase(m);
  pthread_mutex_unlock(&m->lock);
}

void pp_meter_wrote(pp_meter *m, int which, bool complete) {
  if (!m->can || !concerns(m, which))
    return;
  pthread_mutex_lock(&m->lock);
  m->midline = !complete;
  pthread_mutex_unlock(&m->lock);
}

void pp_meter_hold(pp_meter *m, int which) {
  if (!m->can || !concerns(m, which))
    return;
  pthread_mutex_lock(&m->lock);
  erase(m);
  m->held = true;
  pthread_mutex_unlock(&m->lock);
}

void pp_meter_release(pp_meter *m, int which, bool complete) {
  if (!m->can || !concerns(m, which))
    return;
  pthread_mutex_lock(&m->lock);
  m->held = false;
  m->midline = !complete;
  pthread_mutex_unlock(&m->lock);
}

void pp_meter_hide(pp_meter *m) {
  if (!m->can)
    return;
  pthread_mutex_lock(&m->lock);
  erase(m);
  m->hidden = true;
  pthread_mutex_unlock(&m->lock);
}

void pp_meter_unhide(pp_meter *m) {
  if (!m->can || !(m->hidden || m->held))
    return;
  pthread_mutex_lock(&m->lock);
  /* Whoever typed a line ended it. */
  m->midline = m->midline && !m->hidden;
  m->hidden = m->held = false;
  pthread_mutex_unlock(&m->lock);
}

void pp_meter_quiet(void) {
  pp_engine *e = pp_engine_get();

  if (e != NULL)
    pp_meter_hold(&e->meter, 1);
}

/* --- some jobs ------------------------------------------------------------ */

bool pp_meter_list_over(pp_meter_list *l) {
  for (; l->over < l->n && pp_job_over(l->v[l->over]); l->over++)
    l->failed += l->v[l->over]->state == PP_JOB_FAILED;
  return l->over == l->n;
}

/* Those that have ended, to the front. */
static void sort_out(pp_meter_list *l) {
  for (size_t i = l->over; i < l->n; i++) {
    pp_job *j = l->v[i];

    if (!pp_job_over(j))
      continue;
    l->v[i] = l->v[l->over];
    l->v[l->over++] = j;
    l->failed += j->state == PP_JOB_FAILED;
  }
}

void pp_meter_list_begin(pp_engine *e, pp_meter_list *l) {
  sort_out(l);
  l->began = pp_now_ns();
  e->meter.list = l;
}

void pp_meter_list_end(pp_engine *e, pp_meter_list *l) {
  if (e->meter.list != l)
    return;
  e->meter.list = NULL;
  if (!e->meter.all)
    pp_meter_erase(&e->meter, 1);
}

/* --- the line ------------------------------------------------------------- */

/* What it says. */
typedef struct said {
  uint64_t done, failed, total; /* total: if it has an end */
  bool ends;
  double rate; /* a second */
  char left[40];
  unsigned running;
} said;

static unsigned running(const pp_engine *e) {
  unsigned n = e->in_job;

  for (const pp_server *s = e->servers; s != NULL; s = s->next)
    for (const pp_node *at = s->local; at != NULL && !s->console; at = at->next)
      for (uint32_t i = 0; i < at->cap; i++)
        n += at->workers[i] != NULL && at->workers[i]->place.jobs.n > 0;
  return n;
}

static void find_out(const pp_engine *e, int64_t now, said *w) {
  const pp_meter *m = &e->meter;
  uint64_t ended = m->ended;
  int64_t began = m->began;

  memset(w, 0, sizeof *w);
  w->running = running(e);
  w->failed = m->failed;
  w->total = m->total + m->expected;
  w->ends = m->endless == 0;
  if (m->list != NULL) {
    sort_out(m->list);
    ended = m->list->over;
    began = m->list->began;
    w->failed = m->list->failed;
    w->total = m->list->n;
    w->ends = true;
  }
  w->done = ended >= w->failed ? ended - w->failed : 0;
  if (now > began)
    w->rate = (double)ended / ((double)(now - began) / 1e9);
  if (w->ends && ended > 0 && w->total >= ended && w->rate > 0) {
    double s = (double)(w->total - ended) / w->rate;

    if (s < 3600)
      snprintf(w->left, sizeof w->left, "%d:%02d", (int)s / 60, (int)s % 60);
    else if (s < 1e9)
      snprintf(w->left, sizeof w->left, "%d:%02d:%02d", (int)(s / 3600),
               (int)(s / 60) % 60, (int)s % 60);
  }
}

/* Append how busy each host is, as far as there is room; nothing where there
 * is but this machine. */
static int add_hosts(const pp_engine *e, char *line, int n, int most) {
  int nodes = 0;

  for (const pp_server *s = e->servers; s != NULL; s = s->next)
    for (const pp_node *at = s->local; at != NULL && !s->console; at = at->next)
      nodes += at->name != PP_NAME_LOCAL;
  for (const pp_server *s = nodes > 0 ? e->servers : NULL; s != NULL;
       s = s->next)
    for (const pp_node *at = s->local; at != NULL && !s->console;
         at = at->next) {
      unsigned busy = 0;
      char text[300];
      int k;

      if (at->ncpus == 0 && at->alive == 0 && at->state == PP_NODE_UP)
        continue;
      for (uint32_t i = 0; i < at->cap; i++)
        busy += at->workers[i] != NULL && at->workers[i]->place.jobs.n > 0;
      if (at->state == PP_NODE_UP)
        k = snprintf(text, sizeof text, ", %s %u/%u", pp_node_name(at), busy,
                     at->alive);
      else
        k = snprintf(text, sizeof text, ", %s %s", pp_node_name(at),
                     pp_node_state_name(at));
      if (k >= (int)sizeof text || n + k > most)
        continue; /* a shorter one may fit */
      memcpy(line + n, text, (size_t)k + 1);
      n += k;
    }
  return n;
}

/* As much as fits into so many columns. */
static int compose(const pp_engine *e, int64_t now, char *line, int most) {
  char of[32] = "", full[LINE_MOST];
  unsigned long long done, failed;
  said w;
  int n;

  find_out(e, now, &w);
  done = w.done;
  failed = w.failed;
  if (w.ends)
    snprintf(of, sizeof of, " of %llu", (unsigned long long)w.total);
  n = snprintf(
      full, sizeof full, "%llu%s done, %llu failed, %u running, %.*f/s%s%s%s",
      done, of, failed, w.running, w.rate < 100 ? 1 : 0, w.rate,
      w.left[0] != '\0' ? ", " : "", w.left, w.left[0] != '\0' ? " left" : "");
  if (n <= most) {
    memcpy(line, full, (size_t)n + 1);
    return add_hosts(e, line, n, most);
  }
  for (int k = 0; k < 4 && n > most; k++) {
    static const char *const forms[] = {"%llu%s done, %llu failed, %s left",
                                        "%llu%s done, %llu failed",
                                        "%llu%s, %llu failed", "%llu%s done"};
    if (k == 0 && w.left[0] == '\0')
      continue;
    n = snprintf(full, sizeof full, forms[k], done, of, failed, w.left);
  }
  if (n > most) {
    n = w.ends ? snprintf(full, sizeof full, "%llu/%llu", done,
                          (unsigned long long)w.total)
               : snprintf(full, sizeof full, "%llu", done);
    if (n > most)
      n = most;
  }
  memcpy(line, full, (size_t)n);
  line[n] = '\0';
  return n;
}

static void draw(pp_engine *e, int64_t now) {
  pp_meter *m = &e->meter;
  char line[LINE_MOST + 8];
  struct winsize size;
  int most = LINE_MOST - 1, n;

  line[0] = '\r';
  window(&size);
  if (size.ws_col - 1 < most)
    most = size.ws_col - 1;
  n = compose(e, now, line + 1, most);
  pthread_mutex_lock(&m->lock);
  if (!m->held && !m->hidden && !m->midline) {
    if (m->rows > 0 || (m->dumb && m->shown && m->width > n))
      erase(m);
    if (!m->dumb)
      memcpy(line + 1 + n, "\033[K", 3);
    put(line, (size_t)n + (m->dumb ? 1 : 4));
    m->shown = true;
    m->width = n;
    m->drawn = now;
  }
  pthread_mutex_unlock(&m->lock);
}

/* --- the table ------------------------------------------------------------ */

bool pp_meter_can_table(const pp_meter *m) {
  return m->table != NULL && !m->dumb && isatty(STDERR_FILENO);
}

void pp_meter_table_begin(pp_meter *m, const struct termios *mode) {
  struct termios keys = *mode;

  m->mode = *mode;
  m->raw = m->stays = true;
  keys.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
  keys.c_cc[VMIN] = 1;
  keys.c_cc[VTIME] = 0;
  (void)tcsetattr(STDIN_FILENO, TCSANOW, &keys);
}

void pp_meter_table_end(pp_meter *m) {
  m->stays = false;
  pp_meter_erase(m, 1);
}

void pp_meter_restore(pp_meter *m) {
  if (m->raw)
    (void)tcsetattr(STDIN_FILENO, TCSADRAIN, &m->mode);
  m->raw = false;
}

/* False: it cannot be drawn. */
static bool draw_table(pp_engine *e, int64_t now) {
  pp_meter *m = &e->meter;
  pp_buf lines = {0}, out = {0};
  uint16_t widths[PP_TABLE_MOST];
  const unsigned char *p, *end;
  struct winsize size;
  int n, height;

  window(&size);
  height = size.ws_row - 1 < PP_TABLE_MOST ? size.ws_row - 1 : PP_TABLE_MOST;
  n = m->table(e, now, size.ws_col - 1, height, &lines, widths);
  if (n <= 0) {
    pp_buf_clear(&lines);
    return false;
  }
  pthread_mutex_lock(&m->lock);
  if (!m->held && !m->hidden && !m->midline) {
    if (m->shown && m->rows == 0)
      erase(m);
    if (m->rows > 0)
      go_home(m, &out);
    p = lines.data;
    for (int i = 0; i < n; i++, p = end + 1) {
      end = memchr(p, '\n', lines.len - (size_t)(p - lines.data));
      if (i > 0)
        (void)pp_buf_put(&out, "\r\n", 2);
      (void)pp_buf_put(&out, p, (size_t)(end - p));
      (void)pp_buf_put(&out, "\033[K", 3);
    }
    (void)pp_buf_put(&out, "\033[J", 3);
    put((const char *)out.data, out.len);
    memcpy(m->widths, widths, (size_t)n * sizeof *widths);
    m->rows = n;
    m->shown = true;
    m->drawn = now;
  }
  pthread_mutex_unlock(&m->lock);
  pp_buf_clear(&lines);
  pp_buf_clear(&out);
  return true;
}

int64_t pp_meter_tick(pp_engine *e, int64_t now) {
  pp_meter *m = &e->meter;
  bool table = (m->top || m->stays) && m->table != NULL && !m->dumb;
  int64_t pause = table ? TABLE_NS : REDRAW_NS;

  if (!m->can || e->ended ||
      !(m->all || m->asked > 0 || m->list != NULL || m->stays))
    return -1;
  if (e->pending == 0 && !m->stays) {
    pp_meter_erase(m, 1);
    return -1;
  }
  if (m->hidden)
    return -1;
  if (now < m->drawn + pause)
    return m->drawn + pause;
  if (!table || !draw_table(e, now))
    draw(e, now);
  return now + pause;
}
