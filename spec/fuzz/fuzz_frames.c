/* SPDX-License-Identifier: MIT */
/*
 * A worker that writes anything: the input goes into the ring a driver reads
 * results from, in pieces, while some jobs are out. Whatever comes, each job
 * ends at most once and what is stored for it can be read as an error or not.
 *
 * Input: a byte of piece size, then what the worker writes.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "depend.h"
#include "link_impl.h"

#define JOBS 4

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static pp_map map;
static int shm = -1;

static bool refuse(pp_place *p, pp_job *j) {
  (void)p, (void)j;
  return false;
}
static int accept_any(pp_place *p, pp_job *j) {
  (void)p, (void)j;
  return 0;
}
static const pp_place_ops ops = {.send = accept_any, .recall = refuse};

static void begin(void) {
  pp_hub *hub;

  if (shm >= 0)
    return;
  if (pp_shm_open(&shm, &hub) != 0 || pp_shm_grow(shm, 0) != 0 ||
      pp_lane_map(shm, 0, &map) != 0)
    abort();
  pp_log_level_set(PP_LOG_ERROR);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  pp_options options = {0};
  char path[] = "/nonexistent/?.lua;/nonexistent/?/init.lua";
  pp_engine engine = {.options = &options, .ctl = -1, .path = path};
  pp_server *s = calloc(1, sizeof *s);
  pp_link *l = calloc(1, sizeof *l);
  /* A message in which the table with the id 5 went out. */
  static const unsigned char parcel[] = {0x58, 1, 0x11, 5, 0, 0, 0, 0, 0, 0,
                                         0,    0, 0,    0, 0, 1, 0, 0, 0};
  const pp_hash name = {1, 2};
  pp_error_view view;
  size_t piece, ended = 0;
  pp_job *jobs[JOBS];

  begin();
  if (size == 0) {
    free(s);
    free(l);
    return 0;
  }
  if (pp_error_parse(data, size, &view) == 0 &&
      (view.msg_len > size || view.tb_len > size || view.value_len > size))
    abort();
  piece = (size_t)data[0] * 16 + 1;
  data++, size--;
  memset((void *)map.lane, 0, sizeof *map.lane);
  engine.servers = s;
  s->engine = &engine;
  l->engine = &engine;
  if (pp_node_add(s, PP_NAME_LOCAL) == NULL ||
      pp_node_reserve(s->local, 1) != 0)
    abort();
  l->server = s;
  l->node = s->local;
  l->map = map;
  l->number = 1;
  for (int k = 0; k < 2; k++) {
    l->outlet[k].fd = -1;
    l->outlet[k].lane = map.lane;
    l->outlet[k].dirty = &engine.dirty[k];
  }
  l->place.ops = &ops;
  pp_sched_open(&s->sched, &l->place);
  for (uint32_t i = 0; i < JOBS; i++) {
    jobs[i] = pp_job_ref(pp_job_new(8));
    memset(jobs[i]->body, 0, jobs[i]->body_len);
    jobs[i]->server = s;
    if (i % 2 == 0) { /* others are to be given its results */
      jobs[i]->fn = pp_blobs_intern(&engine.blobs, PP_BLOB_PARCEL, name, parcel,
                                    sizeof parcel, NULL, 0);
      pp_depend_value(&engine, jobs[i]);
    }
    s->pending++;
    engine.pending++;
    pp_sched_add(&s->sched, jobs[i], false);
    if (jobs[i]->state != PP_JOB_SENT) { /* no wish to queue behind others */
      pp_sched_remove(&s->sched, jobs[i]);
      pp_jobs_push(&l->place.jobs, jobs[i]);
      jobs[i]->state = PP_JOB_SENT;
      jobs[i]->place = &l->place;
      s->sched.fat = 1;
    }
    jobs[i]->seq = i + 1;
    atomic_store(&map.lane->claim[i + 1], (i + 1) << 2 | PP_CLAIM_TAKEN);
  }
  while (size > 0 && !l->broken) {
    size_t room = pp_ring_room(&map.lane->out);
    size_t n = piece < size ? piece : size;

    if (n > room)
      n = room;
    if (n == 0)
      break;
    memcpy(pp_ring_end(&map.lane->out, map.out), data, n);
    pp_ring_publish(&map.lane->out, n);
    pp_link_drain(l);
    data += n;
    size -= n;
  }
  for (int i = 0; i < JOBS; i++)
    ended += pp_job_over(jobs[i]);
  for (int i = 0; i < JOBS; i += 2) {
    const pp_blob *b = jobs[i]->more->promise->value;

    if ((b->state != PP_BLOB_PROMISED) != pp_job_over(jobs[i]) ||
        (b->state == PP_BLOB_THERE && jobs[i]->state != PP_JOB_DONE) ||
        b->bytes == NULL)
      abort();
  }
  if (ended + l->place.jobs.n != JOBS || s->pending != JOBS - ended)
    abort();
  while (l->place.jobs.head != NULL)
    pp_job_unref(pp_jobs_pop(&l->place.jobs), &engine.blobs);
  while (s->ended.head != NULL)
    pp_job_unref(pp_jobs_pop(&s->ended), &engine.blobs);
  for (int i = 0; i < JOBS; i++)
    pp_job_unref(jobs[i], &engine.blobs);
  pp_link_unsend(l);
  free(l->tx);
  pp_modules_clear(&engine.modules);
  pp_buf_clear(&l->rx_buf);
  pp_link_disown(l);
  if (engine.blobs.n != 0)
    abort();
  pp_blobs_clear(&engine.blobs);
  free(l);
  pp_everywhere_free(s);
  pp_node_free(s->local);
  free(s);
  return 0;
}
