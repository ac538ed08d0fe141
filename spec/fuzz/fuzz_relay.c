/* SPDX-License-Identifier: MIT */
/*
 * An agent that says anything, while jobs are with its workers and some are
 * taken away from them. Whatever comes, each job ends once, when the host is
 * gone at the latest.
 *
 * Input: steps. A byte of 0x80 and more: a message of type 64 + its low four
 * bits, for the lane in the next byte, with as many bytes as the next says,
 * which follow; the same packed if the bit of 0x40 is set, too. 0x7f: the job
 * of the number in the next byte is cut short. 0x7e: what is to be sent is.
 * Below: as many bytes as that follow as they are.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "blocks.h"
#include "depend.h"
#include "kin.h"
#include "link_impl.h"
#include "zstd_lazy.h"

#define JOBS 6
#define WORKERS 2

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int shm = -1;
static pp_hub *hub;
static bool over;

static void begin(void) {
  if (shm >= 0)
    return;
  if (pp_shm_open(&shm, &hub) != 0)
    abort();
  pp_log_level_set(-1);
}

static void ignore(void *ud, const void *p, size_t n) {
  (void)ud, (void)p, (void)n;
}
static size_t nothing(void *ud) {
  (void)ud;
  return 0;
}
static bool welcome(void *ud, uint32_t ncpus, const char *build,
                    const char *machine) {
  (void)ud, (void)ncpus;
  return strlen(build) < 80 && strlen(machine) < 80;
}
static void broken(void *ud, const char *why) {
  (void)ud, (void)why;
  over = true;
}
static const pp_far_ops ops = {
    .write = ignore, .queued = nothing, .welcome = welcome, .broken = broken};

static void say(pp_far *f, int type, uint32_t lane, const uint8_t *p,
                size_t n) {
  unsigned char b[PP_RELAY_HEAD + 256];

  pp_relay_head(b, type, lane, (uint32_t)n);
  memcpy(b + PP_RELAY_HEAD, p, n);
  pp_far_data(f, b, PP_RELAY_HEAD + n);
}

#ifdef PPSH_HAVE_ZSTD
static void *packer;

/* As that, packed. */
static void say_packed(pp_far *f, int type, uint32_t lane, const uint8_t *p,
                       size_t n) {
  unsigned char b[PP_RELAY_HEAD + 256], *out;
  size_t bound = PP_RELAY_HEAD + 4 + ZSTD_COMPRESSBOUND(sizeof b), k;

  pp_relay_head(b, type, lane, (uint32_t)n);
  memcpy(b + PP_RELAY_HEAD, p, n);
  out = malloc(bound);
  if (out == NULL || !pp_zstd_open())
    abort();
  if (packer == NULL)
    packer = pp_zstd_lib.ZSTD_createCCtx();
  k = pp_zstd_lib.ZSTD_compressCCtx(packer, out + PP_RELAY_HEAD + 4,
                                    bound - PP_RELAY_HEAD - 4, b,
                                    PP_RELAY_HEAD + n, 1);
  pp_relay_head(out, PP_R_PACKED, 0, (uint32_t)k + 4);
  pp_put32(out + PP_RELAY_HEAD, PP_RELAY_HEAD + (uint32_t)n);
  pp_far_data(f, out, PP_RELAY_HEAD + 4 + k);
  free(out);
}
#else
#define say_packed say
#endif

static void greet(pp_far *f) {
  unsigned char p[36] = {0};

  pp_put64(p, PP_RELAY_MAGIC);
  pp_put32(p + 8, PP_RELAY_VERSION);
  pp_put32(p + 12, WORKERS);
  pp_put32(p + 24, PP_RELAY_OPENS);
  pp_far_begin(f, pp_now_ns());
  say(f, PP_R_WELCOME, 0, p, sizeof p);
}

static void step(pp_server *s, pp_far *f, pp_job *jobs[JOBS],
                 const uint8_t **data, size_t *size) {
  const uint8_t *p = *data;
  size_t n = *size, k = p[0];

  p++, n--;
  if (k >= 0x80 && n >= 2) {
    size_t len = p[1] < n - 2 ? p[1] : n - 2;

    (k & 0x40 ? say_packed : say)(f, PP_R_WELCOME + (int)(k & 15), p[0], p + 2,
                                  len);
    p += 2 + len, n -= 2 + len;
  } else if (k == 0x7f && n >= 1) {
    pp_server_cut(s, jobs[p[0] % JOBS], PP_KIND_CANCELLED, "cut");
    p++, n--;
  } else if (k == 0x7e) {
    pp_far_flush(s->engine);
    for (uint32_t i = 0; i < s->local->next->cap; i++)
      if (s->local->next->workers[i] != NULL && i % 2 == 0)
        pp_sched_spread(&s->local->next->workers[i]->place);
  } else {
    if (k > n)
      k = n;
    pp_far_data(f, p, k);
    p += k, n -= k;
  }
  *data = p;
  *size = n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const unsigned char parcel[] = {0x58, 1, 0x11, 5, 0, 0, 0, 0, 0, 0,
                                         0,    0, 0,    0, 0, 1, 0, 0, 0};
  const pp_hash name = {1, 2};
  pp_options options = {0};
  char path[] = "/nonexistent/?.lua;/nonexistent/?/init.lua";
  pp_engine e = {.options = &options, .ctl = -1, .path = path};
  pp_server *s = calloc(1, sizeof *s);
  pp_job *jobs[JOBS], *j;
  pp_node *n;
  pp_far *f;
  size_t ended = 0;

  begin();
  over = false;
  memset((void *)hub, 0, sizeof *hub);
  e.shm = shm;
  e.hub = hub;
  e.servers = s;
  e.blocks = pp_blocks_make();
  e.string_at = 24;
  if (e.blocks == NULL)
    abort();
  s->engine = &e;
  s->output = PP_OUTPUT_NONE;
  n = pp_node_add(s, PP_NAME_LOCAL);
  n = n != NULL ? pp_node_add(s, pp_engine_named(&e, "host")) : NULL;
  f = pp_far_new(&e, "host", &ops);
  if (n == NULL || f == NULL)
    abort();
  greet(f);
  n->far = f;
  n->expected = true;
  if (pp_node_resize(n, WORKERS) != 0 || n->alive != WORKERS)
    abort();
  for (uint32_t i = 0; i < JOBS; i++) {
    jobs[i] = pp_job_ref(pp_job_new(0));
    jobs[i]->retries = i % 2;
    jobs[i]->fn = pp_blobs_intern(&e.blobs, PP_BLOB_PARCEL, name, parcel,
                                  sizeof parcel, NULL, 0);
    pp_server_add(s, jobs[i], pp_now_ns());
  }
  pp_far_flush(&e);
  while (size > 0 && !over)
    step(s, f, jobs, &data, &size);

  n->ncpus = 0;
  n->expected = false;
  pp_far_lost(f, "the end");
  n->far = NULL;
  pp_server_hopeless(s);
  for (int i = 0; i < JOBS; i++)
    ended += pp_job_over(jobs[i]);
  if (ended != JOBS || s->pending != 0 || n->alive != 0 || e.closing != 0)
    abort();
  pp_far_free(f);
  while ((j = pp_jobs_pop(&s->ended)) != NULL)
    pp_job_unref(j, &e.blobs);
  for (int i = 0; i < JOBS; i++)
    pp_job_unref(jobs[i], &e.blobs);
  pp_deadlines_clear(&s->deadlines, &e.blobs);
  if (e.blobs.n != 0)
    abort();
  pp_blobs_clear(&e.blobs);
  pp_modules_clear(&e.modules);
  pp_everywhere_free(s);
  while ((n = s->local) != NULL) {
    s->local = n->next;
    pp_node_free(n);
  }
  for (uint16_t i = 0; i < e.nnames; i++)
    free(e.names[i]);
  if (e.ahead.p != NULL)
    abort();
  pp_blocks_unref(e.blocks);
  free(e.names);
  free(e.links);
  free(e.free_lanes);
  free(s);
  return 0;
}
