/* SPDX-License-Identifier: MIT */
#include "engine.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "blocks.h"
#include "crew.h"
#include "far.h"
#include "interrupt.h"
#include "link.h"
#include "nest.h"
#include "proc.h"
#include "serial.h"
#include "trace.h"

#define MS ((int64_t)1000000)
/* Jobs that follow each other this closely are a stream; its workers are woken
 * so often. */
#define STREAM_NS 5000
#define LULL_NS 50000
/* Memory is kept for the next large payload so long. */
#define COOL_NS (1000 * MS)

static pp_engine *the_engine;
static int log_level = PP_LOG_WARN;
static volatile int wake_fd = -1; /* for signal handlers */

pp_engine *pp_engine_get(void) { return the_engine; }

void pp_engine_set(pp_engine *e) {
  the_engine = e;
  wake_fd = e != NULL ? e->bell : -1;
}

void pp_log_level_set(int level) { log_level = level; }

void pp_log(int level, const char *format, ...) {
  static const char *const names[] = {"error", "warning", "info", "debug"};
  char line[1024];
  va_list ap;

  if (level > log_level)
    return;
  va_start(ap, format);
  vsnprintf(line, sizeof line, format, ap);
  va_end(ap);
  if (the_engine != NULL) {
    pp_meter_erase(&the_engine->meter, 1);
    fflush(the_engine->out[0]);
  }
  fprintf(the_engine != NULL ? the_engine->out[1] : stderr, "ppsh: %s: %s\n",
          names[level], line);
}

void pp_engine_wake(void) {
  uint64_t one = 1;
  int fd = wake_fd, e = errno;

  pp_serial_interrupt();
  if (fd >= 0)
    (void)!write(fd, &one, sizeof one);
  errno = e;
}

bool pp_engine_late(int status) {
  pp_engine *e = the_engine;

  if (e == NULL || !e->standby_runs || e->ended)
    return false;
  atomic_store(&e->late, status);
  sem_post(&e->park);
  pp_engine_wake();
  return true;
}

/* --- lanes ---------------------------------------------------------------- */

int pp_engine_lane(pp_engine *e, pp_link *link) {
  uint32_t lane;

  if (e->nfree > 0) {
    lane = e->free_lanes[--e->nfree];
  } else if (e->nlinks < PP_LANES_MAX) {
    pp_link **v = realloc(e->links, (e->nlinks + 1) * sizeof *v);
    uint32_t *f;

    if (v == NULL)
      return -1;
    e->links = v;
    f = realloc(e->free_lanes, (e->nlinks + 1) * sizeof *f);
    if (f == NULL)
      return -1;
    e->free_lanes = f;
    lane = e->nlinks++;
  } else {
    errno = EUSERS;
    return -1;
  }
  e->links[lane] = link;
  return (int)lane;
}

void pp_engine_lane_free(pp_engine *e, uint32_t lane) {
  e->links[lane] = NULL;
  pp_lane_reset(e->shm, lane);
  e->free_lanes[e->nfree++] = lane;
}

void pp_engine_blob_lost(pp_engine *e, uint32_t id, uint32_t lane) {
  pp_blob *b = pp_blobs_by_id(&e->blobs, id);

  if (b != NULL)
    pp_blob_lost(b, lane);
}

uint16_t pp_engine_named(pp_engine *e, const char *name) {
  char **v, *copy;

  if (strcmp(name, "local") == 0)
    return PP_NAME_LOCAL;
  for (uint16_t i = 0; i < e->nnames; i++)
    if (strcmp(e->names[i], name) == 0)
      return (uint16_t)(i + 1);
  if (e->nnames == UINT16_MAX - 1)
    return PP_NAME_LOCAL;
  v = realloc(e->names, ((size_t)e->nnames + 1) * sizeof(char *));
  copy = strdup(name);
  if (v != NULL)
    e->names = v;
  if (v == NULL || copy == NULL) {
    free(copy);
    return PP_NAME_LOCAL;
  }
  v[e->nnames++] = copy;
  return e->nnames;
}

/* --- what has arrived ----------------------------------------------------- */

static bool any_ready(const pp_engine *e) {
  for (uint32_t w = 0; w <= e->nlinks / 64; w++)
    if (atomic_load_explicit(&e->hub->ready[w], memory_order_relaxed) != 0)
      return true;
  return false;
}

static void drain_lane(pp_engine *e, uint32_t lane) {
  pp_link *l = lane < e->nlinks ? e->links[lane] : NULL;

  if (l != NULL && !l->dead && l->server != NULL && !l->server->closed)
    pp_link_drain(l);
}

static void drain_ready(pp_engine *e) {
  for (uint32_t w = 0; w <= e->nlinks / 64; w++) {
    uint64_t bits;

    if (atomic_load_explicit(&e->hub->ready[w], memory_order_relaxed) == 0)
      continue;
    bits = atomic_exchange(&e->hub->ready[w], 0);
    for (; bits != 0; bits &= bits - 1)
      drain_lane(e, w * 64 + (uint32_t)__builtin_ctzll(bits));
  }
}

bool pp_engine_drain(pp_engine *e) {
  bool more = false;

  for (uint32_t i = 0; i < e->nlinks; i++) {
    const pp_link *l = e->links[i];

    if (l == NULL || l->dead || l->server == NULL || pp_link_quiet(l))
      continue;
    drain_lane(e, i);
    more |= pp_link_unsettled(l);
  }
  return more;
}

void pp_engine_flush(pp_engine *e) {
  for (int k = 0; k < 2; k++)
    if (e->dirty[k])
      fflush(e->out[k]);
  e->dirty[0] = e->dirty[1] = false;
}

static void on_tick(uv_timer_t *t) {
  pp_engine *e = t->data;

  e->timed_out = true;
}

/* --- memory for large payloads ------------------------------------------- */

size_t pp_engine_warm(const pp_engine *e) {
  return e->hanging + e->hold.warm + e->berths.warm + e->berths.windows.warm +
         (e->blocks != NULL ? atomic_load(&e->blocks->warm) : 0);
}

int64_t pp_engine_cool(pp_engine *e, int64_t now) {
  size_t warm = pp_engine_warm(e);

  if (warm != e->warm) {
    e->warm = warm;
    e->warm_since = now;
  }
  if (warm == 0)
    return -1;
  if (now - e->warm_since < COOL_NS)
    return e->warm_since + COOL_NS;
  for (uint32_t i = 0; i < e->nlinks && e->hanging > 0; i++)
    if (e->links[i] != NULL && !e->links[i]->dead)
      pp_link_unhang(e->links[i], false);
  pp_hold_trim(&e->hold);
  pp_berths_trim(&e->berths);
  if (e->blocks != NULL)
    pp_blocks_trim(e->blocks);
  e->warm = pp_engine_warm(e); /* what is left is in use, or soon will be */
  e->warm_since = now;
  return e->warm > 0 ? now + COOL_NS : -1;
}

static void earlier(int64_t *next, int64_t at) {
  if (at >= 0 && (*next < 0 || at < *next))
    *next = at;
}

/* When servers have something to do by themselves; -1 never. */
static int64_t tend(pp_engine *e, int64_t now) {
  int64_t next = pp_engine_cool(e, now);

  for (pp_server *s = e->servers; s != NULL; s = s->next) {
    earlier(&next, pp_server_expire(s, now));
    if (PP_UNLIKELY(s->sched.stranded)) {
      s->sched.stranded = false;
      pp_server_hopeless(s);
    }
    for (pp_node *n = s->local; n != NULL; n = n->next) {
      earlier(&next, pp_crew_tidy(n, now));
      if (n->serving > 0 && pp_domain_due(&n->domain))
        pp_crew_serve(n);
      if (!pp_crew_missing(n))
        continue;
      pp_node_tend(n, now);
      if (pp_crew_missing(n))
        earlier(&next, n->respawn_at > now ? n->respawn_at : now + 100 * MS);
    }
  }
  if (e->remote != NULL)
    earlier(&next, e->remote_ops->tick(e, now));
  for (pp_far *f = e->fars; f != NULL; f = f->next)
    earlier(&next, pp_far_tick(f, now));
  return next;
}

/* One turn of the loop, asleep until something happens or `until`. */
static void turn(pp_engine *e, int64_t now, int64_t until, bool doze) {
  uint32_t mode = doze ? PP_DOZING : PP_SLEEPING;
  int64_t ms = -1;

  if (until >= 0)
    ms = until <= now ? 0 : (until - now + MS - 1) / MS;
  if (doze && (ms < 0 || ms > 1))
    ms = 1;
  atomic_store(&e->hub->asleep, mode);
  atomic_thread_fence(memory_order_seq_cst);
  if (any_ready(e) || atomic_load(&e->main_wants))
    ms = 0;
  e->timed_out = false;
  if (ms == 0) {
    uv_run(&e->loop, UV_RUN_NOWAIT);
  } else {
    if (ms > 0) {
      /* It repeats: the loop runs timers before it polls, and one that is due
       * by then would leave the poll without an end. */
      uv_update_time(&e->loop);
      uv_timer_start(&e->tick, on_tick, (uint64_t)ms, (uint64_t)ms);
    }
    uv_run(&e->loop, UV_RUN_ONCE);
    if (ms > 0)
      uv_timer_stop(&e->tick);
  }
  atomic_store(&e->hub->asleep, PP_AWAKE);
}

/* Places that have jobs. */
static uint32_t busy(const pp_engine *e) {
  size_t n = 0;

  for (const pp_server *s = e->servers; s != NULL; s = s->next)
    n += s->sched.nopen - s->sched.nidle;
  return n < UINT32_MAX ? (uint32_t)n : UINT32_MAX;
}

/* A job is out that may end any moment: look a little longer for its result
 * before the loop sleeps. Not where as many workers have work as there are
 * CPUs. */
static void spin(pp_engine *e, uint32_t at_work, int64_t now, int64_t until) {
  int64_t end = now + PP_SPIN_NS;

  if (e->cpus == 0) {
    e->cpus = (uint32_t)pp_proc_cpus();
    atomic_store_explicit(&e->hub->cpus, e->cpus, memory_order_relaxed);
  }
  if (at_work == 0 || at_work >= e->cpus || (until >= 0 && until <= end) ||
      !pp_spin_worth(&e->spin))
    return;
  do {
    for (int i = 0; i < PP_SPIN_LOOKS; i++) {
      pp_spin_pause();
      if (any_ready(e)) {
        pp_spin_won(&e->spin);
        return;
      }
    }
  } while (pp_now_ns() < end && !pp_interrupt_pending());
  pp_spin_lost(&e->spin);
}

static bool batches(const pp_engine *e) {
  for (const pp_server *s = e->servers; s != NULL; s = s->next)
    if (s->sched.fat > 0)
      return true;
  return false;
}

/* spins: it is the script that waits. */
static void pump(pp_engine *e, bool (*stop)(pp_engine *e, void *ud), void *ud,
                 int64_t deadline, bool spins) {
  bool doze = true, unsettled = false;

  for (;;) {
    int64_t now, next, until = deadline;
    bool many;
    uint32_t n;

    if (e->lulled != NULL)
      pp_link_rouse(e);
    drain_ready(e);
    if (unsettled)
      unsettled = pp_engine_drain(e);
    pp_engine_flush(e);
    if (stop(e, ud))
      return;
    now = pp_now_ns();
    next = tend(e, now);
    earlier(&next, pp_meter_tick(e, now));
    earlier(&next, pp_trace_tick(e, now));
    if (stop(e, ud)) /* a job may have run out of time */
      return;
    if (deadline >= 0 && now >= deadline)
      return;
    if (next >= 0 && (until < 0 || next < until))
      until = next;
    if (pp_far_flush(e))
      until = now;
    many = batches(e);
    doze = doze && many;
    n = busy(e);
    atomic_store_explicit(&e->hub->busy, n, memory_order_relaxed);
    if (spins && !many && !unsettled)
      spin(e, n, now, until);
    turn(e, now, unsettled ? now : until, doze);
    if (doze && e->timed_out) {
      pp_engine_drain(e); /* results that waited for company */
      doze = false;
    } else {
      doze = true;
    }
    /* Output may have come without a result. */
    for (uint32_t i = 0; i < e->nlinks && e->heard && !unsettled; i++)
      unsettled = e->links[i] != NULL && !e->links[i]->dead &&
                  pp_link_unsettled(e->links[i]);
    e->heard = unsettled;
  }
}

void pp_engine_pump(pp_engine *e, bool (*stop)(pp_engine *e, void *ud),
                    void *ud, int64_t deadline) {
  pump(e, stop, ud, deadline, false);
}

typedef struct waiting {
  bool (*until)(void *ud);
  void *ud;
  int64_t deadline;
  int result;
} waiting;

static bool main_stops(pp_engine *e, void *ud) {
  waiting *w = ud;

  if (e->callbacks > 0 && !e->in_callback)
    w->result = PP_EAGAIN;
  else if (w->until(w->ud))
    w->result = 1;
  else if (pp_interrupt_pending() ||
           (e->may_run && pp_serial_due(e) &&
            (w->deadline < 0 || pp_now_ns() < w->deadline)))
    w->result = PP_EAGAIN;
  return w->result != 0;
}

int pp_engine_wait(pp_engine *e, bool (*until)(void *ud), void *ud,
                   int64_t deadline) {
  waiting w = {until, ud, deadline, 0};

  if (e->nest != NULL)
    return pp_nest_wait(e, until, ud, deadline);
  if (e->serial != NULL)
    return pp_serial_wait(e, until, ud, deadline);

  pump(e, main_stops, &w, deadline, true);
  return w.result;
}

void pp_engine_look(pp_engine *e, int64_t now) {
  if (e->nest != NULL) {
    pp_nest_look(e);
    return;
  }
  if (e->serial != NULL)
    return;
  if (e->lulled != NULL && now - e->lulled_since > LULL_NS)
    pp_link_rouse(e);
  if (any_ready(e) && now - e->drained > 20000) {
    e->drained = now;
    drain_ready(e);
  }
  if (now - e->looked > MS) {
    e->looked = now;
    uv_run(&e->loop, UV_RUN_NOWAIT);
    pp_engine_drain(e);
    tend(e, now);
    (void)pp_far_flush(e);
    pp_engine_flush(e);
    pp_meter_tick(e, now);
    pp_trace_tick(e, now);
  }
}

/* --- the lock ---------------------- -------------------------------------- */

void pp_engine_enter(pp_engine *e) {
  if (e->depth++ > 0)
    return;
  if (PP_UNLIKELY(pthread_mutex_trylock(&e->lock) != 0)) {
    atomic_store(&e->main_wants, 1);
    pp_engine_wake();
    pthread_mutex_lock(&e->lock);
    atomic_store(&e->main_wants, 0);
  }
  atomic_store_explicit(
      &e->epoch, atomic_load_explicit(&e->epoch, memory_order_relaxed) + 1,
      memory_order_relaxed);
}

void pp_engine_leave(pp_engine *e) {
  bool call;

  if (--e->depth > 0)
    return;
  if (PP_UNLIKELY(e->lulled != NULL && !e->streaming))
    pp_link_rouse(e);
  e->streaming = false;
  call = e->standby_parked &&
         (pp_engine_works(e) || (!e->standby_cools && pp_engine_warm(e) > 0));
  if (PP_UNLIKELY(call)) {
    e->standby_parked = false;
    sem_post(&e->park);
  }
  pthread_mutex_unlock(&e->lock);
}

void pp_engine_enter_stream(pp_engine *e, int64_t now) {
  pp_engine_enter(e);
  e->streaming = now - e->submitted < STREAM_NS;
  e->submitted = now;
}
