/* SPDX-License-Identifier: MIT */
/* What a place holds, and how much more it would take. */
#include "sched_impl.h"

/* Each worker is given this much work ahead, and twice what the way there and
 * back takes, a node once more than that (where many workers share what waits,
 * chance evens out): enough to cover a sleeping driver and a busy script, and
 * jobs that take longer or shorter than others, little enough to lose nothing
 * by. */
#define AHEAD_NS 400000
/* One job waits behind another only if it is likely to wait no longer. */
#define BEHIND_NS 20000000
/* One waits behind a link all the same where the way is more than this part of
 * the time it takes: else its worker would have nothing to do for so long. */
#define IDLE_PART 20
/* For each worker: a lane can take back so many; a node so many. */
#define AHEAD_JOBS 512u
#define AHEAD_JOBS_FAR 65536u
/* For each worker, behind the job that it is at. */
#define AHEAD_BYTES ((size_t)1 << 20)

/* --- rings ---------------------------------------------------------------- */

void pp_ring_add(pp_place **ring, pp_place *p) {
  if (*ring == NULL) {
    p->prev = p->next = p;
    *ring = p;
  } else {
    p->next = *ring;
    p->prev = (*ring)->prev;
    p->prev->next = p;
    p->next->prev = p;
  }
}

void pp_ring_remove(pp_place **ring, pp_place *p) {
  if (*ring == p)
    *ring = p->next == p ? NULL : p->next;
  p->prev->next = p->next;
  p->next->prev = p->prev;
  p->prev = p->next = NULL;
}

void pp_ring_lead(pp_place **ring, pp_place *p) {
  pp_place *first = *ring, *after = p->next == first ? p : p->next;

  if (p == first)
    return;
  pp_ring_remove(ring, p);
  pp_ring_add(ring, p);
  *ring = p;
  pp_ring_remove(ring, first);
  pp_ring_add(&after, first);
}

static pp_place **ring_of(const pp_place *p, int ring) {
  pp_sched *s = p->sched;

  return ring == PP_RING_ROOMY    ? &s->roomy
         : ring == PP_RING_PACKED ? &s->packed
         : p->delay > 0           ? &s->far
                                  : &s->idle;
}

static void move(pp_place *p, int ring) {
  bool near = p->delay == 0;

  if (p->ring == ring)
    return;
  if (p->ring != PP_RING_NONE)
    pp_ring_remove(ring_of(p, p->ring), p);
  p->sched->nidle -= p->ring == PP_RING_IDLE && near;
  if (ring != PP_RING_NONE)
    pp_ring_add(ring_of(p, ring), p);
  if (ring == PP_RING_IDLE && near)
    p->sched->idle = p; /* the last to work is the first to work again */
  p->sched->nidle += ring == PP_RING_IDLE && near;
  p->ring = (uint8_t)ring;
}

static uint32_t width(const pp_place *p) { return p->width > 0 ? p->width : 1; }

/* Its domain's ring, after any change of the other. */
static inline void settle_domain(pp_place *p) {
  if (p->domain != NULL)
    pp_domain_settle(p);
}

static void set_fat(pp_place *p, bool fat) {
  pp_sched *s = p->sched;
  pp_place **ring = p->ops->ask != NULL ? &s->far_fats : &s->fats;

  if (p->fat == fat)
    return;
  p->fat = fat;
  if (!fat) {
    if (*ring == p)
      *ring = p->fat_next == p ? NULL : p->fat_next;
    p->fat_prev->fat_next = p->fat_next;
    p->fat_next->fat_prev = p->fat_prev;
    s->fat--;
    return;
  }
  s->fat++;
  if (*ring == NULL) {
    p->fat_prev = p->fat_next = *ring = p;
  } else {
    p->fat_next = *ring;
    p->fat_prev = (*ring)->fat_prev;
    p->fat_prev->fat_next = p;
    p->fat_next->fat_prev = p;
  }
}

static void count_free(pp_place *p) {
  uint32_t n = p->ring == PP_RING_IDLE ? width(p) - p->taken : 0;

  p->sched->nfree += n - (size_t)p->free;
  p->free = n;
}

void pp_place_unlist(pp_place *p) {
  move(p, PP_RING_NONE);
  settle_domain(p);
  count_free(p);
  set_fat(p, false);
}

void pp_place_settle(pp_place *p, bool anew) {
  bool idle = p->taken < width(p);

  if (!p->open || p->holder != NULL)
    return;
  if (p->full)
    move(p, PP_RING_PACKED);
  else if (idle)
    move(p, PP_RING_IDLE);
  else if (anew || p->ring != PP_RING_PACKED)
    move(p, PP_RING_ROOMY);
  settle_domain(p);
  count_free(p);
  set_fat(p, !p->wide && pp_place_waiting(p) > 0);
}

void pp_place_pack(pp_place *p) {
  move(p, PP_RING_PACKED);
  settle_domain(p);
  count_free(p);
}

/* --- windows -------------------------------------------------------------- */

/* How long a job is likely to take, ns; -1 unknown. */
static int64_t length(const pp_job *j) {
  return j->fn != NULL ? j->fn->run_ns : -1;
}

/* May j wait behind those that are there, one for each worker at least? */
static bool behind(const pp_place *p, const pp_job *j) {
  int64_t t = length(j), head = length(p->jobs.head), each, waiting;
  size_t w = width(p), n = p->jobs.n;

  if (t < 0 || head < 0)
    return false; /* who knows how long it would wait */
  if (p->bytes + pp_job_bytes(j) > w * AHEAD_BYTES ||
      n >= w * (p->delay > 0 ? AHEAD_JOBS_FAR : AHEAD_JOBS))
    return false;
  each = p->load / (int64_t)n;
  if (p->delay == 0 && head > BEHIND_NS)
    return false;
  if (n < 2 * w && t <= BEHIND_NS && each <= BEHIND_NS)
    return true;
  if (n <= w && t <= IDLE_PART * p->delay)
    return true;
  waiting = n > w ? each * (int64_t)(n - w) : 0;
  return waiting + t <= (int64_t)w * (AHEAD_NS + 2 * p->delay) + 2 * p->delay;
}

bool pp_place_takes(const pp_place *p, const pp_job *j) {
  uint32_t w = width(p);

  if (!p->open || p->full || (p->most > 0 && p->jobs.n >= p->most))
    return false;
  if (p->wide)
    return true;
  if (p->span > 0 || p->holder != NULL)
    return false;
  if (j->slots > 1)
    return p->taken + (j->slots < w ? j->slots : w) <= w;
  return p->taken < w || behind(p, j);
}

/* --- jobs come and go ----------------------------------------------------- */

/* In units of 64 ns, as kept in the job: what is taken off is what was added,
 * whatever has been learnt since. */
static uint32_t weigh(const pp_job *j) {
  int64_t t = length(j) / 64;

  return t < 0 ? 0 : t > UINT32_MAX ? UINT32_MAX : (uint32_t)t;
}

static uint32_t seats(const pp_place *p, const pp_job *j) {
  uint32_t w = width(p);

  return j->slots < 2 ? 1 : j->slots < w ? j->slots : w;
}

int pp_place_enter(pp_place *p, pp_job *j) {
  int r = p->ops->send(p, j);

  if (r != 0)
    return r;
  pp_jobs_push(&p->jobs, j);
  j->weight = weigh(j);
  p->load += (int64_t)j->weight * 64;
  p->bytes += pp_job_bytes(j);
  p->taken += seats(p, j);
  j->place = p;
  j->state = PP_JOB_SENT;
  return 0;
}

void pp_place_leave(pp_place *p, pp_job *j) {
  pp_jobs_remove(&p->jobs, j);
  p->load -= (int64_t)j->weight * 64;
  p->taken -= seats(p, j);
  p->bytes -= p->bytes < pp_job_bytes(j) ? p->bytes : pp_job_bytes(j);
  if (j->flags & PP_JOB_ASKED) {
    j->flags &= (uint16_t)~PP_JOB_ASKED;
    p->asked--;
    p->sched->asked--;
  }
  if (p->load < 0)
    p->load = 0;
  if (p->jobs.n == 0) {
    p->load = 0;
    p->bytes = 0;
    p->taken = 0;
    p->full = false; /* nothing in its window: it may well take one now */
    if (p->span > 0)
      pp_team_dissolve(p);
  }
  pp_place_settle(p, true);
}
