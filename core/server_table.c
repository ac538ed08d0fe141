/* SPDX-License-Identifier: MIT */
/* What print_stats prints. */
#include <stdio.h>
#include <string.h>

#include "kin.h"
#include "link.h"
#include "server.h"

static int put(pp_buf *out, const char *text) {
  return pp_buf_put(out, text, strlen(text));
}

/* How many jobs have been begun and not ended. */
static size_t active(const pp_server *s) {
  size_t n = 0;

  for (const pp_node *at = s->local; at != NULL; at = at->next)
    for (uint32_t i = 0; i < at->cap; i++) {
      const pp_job *j =
          at->workers[i] != NULL ? at->workers[i]->place.jobs.head : NULL;

      for (; j != NULL && pp_job_begun(j); j = j->next)
        n += (j->flags & PP_JOB_GHOST) == 0;
    }
  return n;
}

int pp_server_table(pp_server *s, pp_buf *out) {
  char line[600];
  pp_stats sum = pp_server_sum(s);
  const pp_stats *t = &sum;
  int r;

  r = put(out, "Job execution statistics:\n job count | % of all jobs | "
               "job time sum | time per job | job server\n");
  for (const pp_node *n = s->local; n != NULL && r == 0; n = n->next) {
    double time = (double)n->stats.time / 1e9, njobs = (double)n->stats.njobs;

    if (n->stats.njobs == 0)
      continue;
    snprintf(line, sizeof line,
             "    %6llu |        %6.2f |     %8.4f |  "
             "%11.6f | ",
             (unsigned long long)n->stats.njobs,
             njobs * 100 / (double)sum.njobs, time, time / njobs);
    r = put(out, line);
    if (r == 0)
      r = put(out, pp_node_name(n));
    if (r == 0)
      r = put(out, "\n");
  }
  if (r == 0) {
    snprintf(line, sizeof line,
             "Time elapsed since server creation %.17g\n"
             "%zu active tasks, %u cores\n",
             (double)(pp_now_ns() - s->created) / 1e9, active(s),
             pp_server_ncpus(s));
    r = put(out, line);
  }
  if (r == 0 && (t->failed || t->retried || t->lost)) {
    snprintf(line, sizeof line,
             "%llu failed, %llu retried, %llu lost workers\n",
             (unsigned long long)t->failed, (unsigned long long)t->retried,
             (unsigned long long)t->lost);
    r = put(out, line);
  }
  return r == 0 ? put(out, "\n") : r;
}
