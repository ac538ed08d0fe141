/* SPDX-License-Identifier: MIT */
/* Failed jobs that nobody asked about. */
#include <stdio.h>
#include <string.h>

#include "depend.h"
#include "engine.h"

/* Failures with one and the same text are told so often. */
#define SAME_TOLD 10

size_t pp_engine_unseen(pp_engine *e, pp_server *s, const char *of) {
  size_t unseen = 0, same = 0;
  const pp_job *last = NULL;

  pp_meter_erase(&e->meter, 1);

  fflush(stdout);
  for (pp_job *j = s->ended.head; j != NULL; j = j->next) {
    pp_error_view v;

    if (s->console || j->state != PP_JOB_FAILED || pp_job_dropped(j) ||
        pp_depend_root(j)->flags & PP_JOB_TOLD)
      continue;
    pp_depend_root(j)->flags |= PP_JOB_TOLD;
    unseen++;
    if (last != NULL && last->result_len == j->result_len &&
        memcmp(last->result, j->result, j->result_len) == 0)
      same++;
    else
      same = 0;
    last = j;
    if (same >= SAME_TOLD || pp_error_parse(j->result, j->result_len, &v) != 0)
      continue;
    fprintf(stderr, "ppsh: job %llu%s failed and nobody asked: %.*s%s%.*s\n",
            (unsigned long long)j->id, of, (int)v.msg_len, v.msg,
            v.tb_len > 0 ? "\n" : "", (int)v.tb_len, v.tb);
    if (same == SAME_TOLD - 1 && j->next != NULL)
      fprintf(stderr, "ppsh: (more jobs that failed the same way are counted "
                      "only)\n");
  }
  if (unseen > 1)
    fprintf(stderr, "ppsh: %zu jobs%s failed and nobody asked\n", unseen, of);
  e->unseen += unseen;
  return unseen;
}
