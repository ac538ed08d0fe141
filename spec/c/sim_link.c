/* SPDX-License-Identifier: MIT */
/* The driver's end of a link, as one to a remote host will be: every execution
 * has a number of its own, by which late words of a dead one are told apart. */
#include <stdlib.h>
#include <string.h>

#include "sim.h"

static int link_send(pp_place *p, pp_job *j) {
  sim_link *l = (sim_link *)(void *)p;
  sim_slot *t;
  uint32_t slot;

  if (l->nspare == 0) {
    uint32_t n = l->nslots ? l->nslots * 2 : 64;

    if (n > SIM_SLOTS)
      return PP_EAGAIN;
    l->slots = realloc(l->slots, n * sizeof *l->slots);
    l->spare = realloc(l->spare, n * sizeof *l->spare);
    for (uint32_t i = n; i-- > l->nslots;) {
      l->slots[i] = (sim_slot){NULL, i};
      l->spare[l->nspare++] = i;
    }
    l->nslots = n;
  }
  slot = l->spare[--l->nspare];
  t = &l->slots[slot];
  t->seq += SIM_SLOTS;
  t->job = j;
  j->seq = t->seq;
  j->sent += pp_job_frame_len(j);
  sim_on_send(j);
  sim_agent_tell(l->agent, (sim_msg){.kind = SIM_JOB,
                                     .id = j->id,
                                     .seq = t->seq,
                                     .length = sim_length(j),
                                     .attempt = (uint8_t)(j->attempts + 1)});
  return 0;
}

static bool recall(pp_place *p, pp_job *j) {
  (void)p, (void)j;
  return false; /* who knows */
}

static void ask(pp_place *p, pp_job *j) {
  sim_link *l = (sim_link *)(void *)p;

  sim_count.asked++;
  sim_agent_tell(l->agent, (sim_msg){.kind = SIM_ASK, .seq = j->seq});
}

static void drain(pp_place *p) { (void)p; }

static int64_t begun(pp_place *p, const pp_job *j) {
  (void)p, (void)j;
  return 0;
}

static bool withdraw(pp_place *p, pp_job *j) {
  (void)p, (void)j;
  return false;
}

/* It counts as begun: somebody else waits in its place until the node says
 * that it is over. */
static void stop(pp_place *p, pp_job *j, int kind) {
  sim_link *l = (sim_link *)(void *)p;
  pp_job *ghost = pp_job_new(0);

  (void)kind;
  ghost->flags = (uint16_t)(PP_JOB_GHOST | (j->flags & PP_JOB_ASKED));
  ghost->state = PP_JOB_SENT;
  ghost->server = j->server;
  ghost->place = p;
  ghost->seq = j->seq;
  ghost->weight = j->weight;
  ghost->prev = j->prev;
  ghost->next = j->next;
  *(j->prev != NULL ? &j->prev->next : &p->jobs.head) = ghost;
  *(j->next != NULL ? &j->next->prev : &p->jobs.tail) = ghost;
  j->prev = j->next = NULL;
  j->flags &= (uint16_t)~PP_JOB_ASKED;
  l->slots[j->seq % SIM_SLOTS].job = ghost;
}

static const pp_place_ops ops = {
    .send = link_send,
    .recall = recall,
    .ask = ask,
    .drain = drain,
    .begun = begun,
    .withdraw = withdraw,
    .stop = stop,
};

void sim_link_connect(sim_link *l) {
  l->agent = sim_agent_new(l, l->workers, l->delay);
  l->place.ops = &ops;
  l->place.width = l->workers;
  l->place.delay = 2 * l->delay * 1000;
  pp_sched_open(&sim_server->sched, &l->place);
}

static pp_job *release(sim_link *l, uint32_t slot) {
  pp_job *j = l->slots[slot].job;

  l->slots[slot].job = NULL;
  l->spare[l->nspare++] = slot;
  return j;
}

void sim_link_lost(sim_link *l) {
  pp_job *j;

  sim_agent_let_go(l->agent);
  l->agent = NULL;
  pp_sched_close(&sim_server->sched, &l->place);
  pp_sched_gone(&l->place);
  while ((j = pp_jobs_pop(&l->place.jobs)) != NULL) {
    release(l, j->seq % SIM_SLOTS);
    if (j->flags & PP_JOB_GHOST) {
      pp_job_unref(j, &sim_engine.blobs);
      continue;
    }
    j->attempts++;
    sim_on_lost(j);
    pp_server_lost(sim_server, j, "the connection was lost");
  }
}

/* As link.c does with a RESULT. */
static void result(sim_link *l, pp_job *j, const sim_msg *m) {
  unsigned char bytes[8];
  int64_t run = (int64_t)m->length * 1000;

  if (j->flags & PP_JOB_GHOST) {
    pp_sched_ended(&l->place, j);
    pp_job_unref(j, &sim_engine.blobs);
    return;
  }
  SIM_CHECK(m->attempt == j->attempts + 1);
  j->attempts++;
  j->run = run;
  j->fn->run_ns =
      j->fn->run_ns < 0 ? run : j->fn->run_ns + (run - j->fn->run_ns) / 8;
  pp_put64(bytes, m->id);
  pp_job_store(j, bytes, sizeof bytes);
  j->state = PP_JOB_ENDING;
  j->ended = sim_now * 1000;
  pp_sched_ended(&l->place, j);
  sim_server->local->stats.njobs++;
  pp_server_ended(sim_server, j, false);
}

void sim_link_hear(sim_link *l, const sim_msg *m) {
  uint32_t slot = m->seq % SIM_SLOTS;
  pp_job *j = slot < l->nslots && l->slots[slot].seq == m->seq
                  ? l->slots[slot].job
                  : NULL;

  if (j == NULL) {
    sim_count.late++; /* of a dead execution */
    return;
  }
  if (m->kind == SIM_KEPT) {
    pp_sched_answered(&l->place, j, false);
    return;
  }
  release(l, slot);
  if (m->kind == SIM_RESULT) {
    result(l, j, m);
  } else if (j->flags & PP_JOB_GHOST) {
    pp_sched_ended(&l->place, j);
    pp_job_unref(j, &sim_engine.blobs);
  } else {
    sim_count.back++;
    pp_sched_answered(&l->place, j, true);
  }
}

void sim_link_clear(sim_link *l) {
  free(l->slots);
  free(l->spare);
}
