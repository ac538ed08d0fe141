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

static void erase(pp_meter *m) {
  char blank[LINE_MOST + 2];

  if (!m->shown)
    return;
  m->shown = false;
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

/* --- the line ------------------------------------------------------------- */

static unsigned running(const pp_engine *e) {
  unsigned n = e->in_job;

  for (const pp_server *s = e->servers; s != NULL; s = s->next)
    for (const pp_node *at = s->local; at != NULL; at = at->next)
      for (uint32_t i = 0; i < at->cap; i++)
        n += !s->console && at->workers[i] != NULL &&
             at->workers[i]->place.jobs.n > 0;
  return n;
}

static int compose(const pp_engine *e, int64_t now, char *line, size_t size) {
  const pp_meter *m = &e->meter;
  uint64_t total = m->total + m->expected, done = m->ended - m->failed;
  double took = (double)(now - m->began) / 1e9;
  double rate = took > 0 ? (double)m->ended / took : 0;
  char of[32] = "", left[40] = "";

  if (m->endless == 0) {
    snprintf(of, sizeof of, " of %llu", (unsigned long long)total);
    if (m->ended > 0 && total >= m->ended) {
      double s = (double)(total - m->ended) / rate;

      if (s < 3600)
        snprintf(left, sizeof left, ", %d:%02d left", (int)s / 60, (int)s % 60);
      else if (s < 1e9)
        snprintf(left, sizeof left, ", %d:%02d:%02d left", (int)(s / 3600),
                 (int)(s / 60) % 60, (int)s % 60);
    }
  }
  return snprintf(line, size, "%llu%s done, %llu failed, %u running, %.*f/s%s",
                  (unsigned long long)(m->ended >= m->failed ? done : 0), of,
                  (unsigned long long)m->failed, running(e), rate < 100 ? 1 : 0,
                  rate, left);
}

static void draw(pp_engine *e, int64_t now) {
  pp_meter *m = &e->meter;
  char line[LINE_MOST + 8];
  struct winsize size;
  int most = 79, n;

  line[0] = '\r';
  n = compose(e, now, line + 1, LINE_MOST);
  if (ioctl(fileno(e->out[1]), TIOCGWINSZ, &size) == 0 && size.ws_col > 1)
    most = size.ws_col - 1;
  if (n > LINE_MOST - 1)
    n = LINE_MOST - 1;
  if (n > most)
    n = most;
  pthread_mutex_lock(&m->lock);
  if (!m->held && !m->hidden && !m->midline) {
    if (m->dumb && m->shown && m->width > n)
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

int64_t pp_meter_tick(pp_engine *e, int64_t now) {
  pp_meter *m = &e->meter;

  if (!m->can || !(m->all || m->asked > 0) || e->ended)
    return -1;
  if (e->pending == 0) {
    pp_meter_erase(m, 1);
    return -1;
  }
  if (m->hidden)
    return -1;
  if (now < m->drawn + REDRAW_NS)
    return m->drawn + REDRAW_NS;
  draw(e, now);
  return now + REDRAW_NS;
}
