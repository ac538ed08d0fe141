/* SPDX-License-Identifier: MIT */
#include "spin.h"

#include <sys/resource.h>

#include "base.h"

#define MS ((int64_t)1000000)
/* Preemptions are counted over so long, and so many are no chance. */
#define COUNTED_MS 40
#define MANY 3
/* Let be for so long, doubled each time it happens anew. */
#define BARRED_MS 100u
#define BARRED_MS_MAX 6400u

static int64_t preemptions(void) {
  struct rusage ru;

  return getrusage(RUSAGE_THREAD, &ru) == 0 ? (int64_t)ru.ru_nivcsw : 0;
}

void pp_spin_won_often(pp_spin *s) {
  int64_t now = pp_now_ns(), n;

  if (s->since != 0 && now - s->since < COUNTED_MS * MS)
    return;
  n = preemptions();
  if (s->since != 0 && now - s->since < 2 * COUNTED_MS * MS) {
    if (n - s->preemptions >= MANY) {
      s->barred_ms = s->barred_ms == 0 ? BARRED_MS : s->barred_ms * 2;
      if (s->barred_ms > BARRED_MS_MAX)
        s->barred_ms = BARRED_MS_MAX;
      s->barred = now + s->barred_ms * MS;
    } else {
      s->barred_ms /= 2;
    }
  }
  s->since = now;
  s->preemptions = n;
}

bool pp_spin_barred(pp_spin *s) {
  if (pp_now_ns() < s->barred)
    return true;
  s->barred = s->since = 0;
  return false;
}
