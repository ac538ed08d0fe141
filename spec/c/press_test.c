/* SPDX-License-Identifier: MIT */
/* How fast a link is found to be, and what is packed for it. */
#include "check.h"

#include "press.h"

#define MS ((int64_t)1000000)

/* --- a link --------------------------------------------------------------- */

/* Bytes go one after another, so many a second; each way takes so long. */
typedef struct road {
  double rate;
  int64_t way, now, free;
} road;

/* These are given to it; when the last of them is there. */
static int64_t give(road *r, uint64_t n) {
  int64_t start = r->free > r->now ? r->free : r->now;

  r->free = start + (int64_t)((double)n * 1e9 / r->rate);
  return r->free + r->way;
}

/* Send so many bytes in pieces, never more than `ahead` before the link. */
static void stream(pp_gauge *g, road *r, uint64_t n, uint64_t ahead) {
  uint64_t token = 0;
  int64_t echo = -1;

  while (n > 0 || echo >= 0) {
    int64_t room = r->free - (int64_t)((double)ahead * 1e9 / r->rate);

    if (n > 0 && (echo < 0 || room < echo) && (n > 0 || echo < 0)) {
      uint64_t k = n < 16384 ? n : 16384;

      if (room > r->now)
        r->now = room;
      give(r, k);
      pp_gauge_sent(g, k, 0, r->now);
      n -= k;
      if (echo < 0 && pp_gauge_due(g)) {
        token = pp_gauge_probe(g, r->now);
        echo = give(r, 16) + r->way;
      }
    } else {
      if (echo > r->now)
        r->now = echo;
      CHECK(pp_gauge_back(g, token, r->now));
      echo = -1;
    }
  }
}

static void greet(pp_gauge *g, road *r) {
  uint64_t token;

  CHECK(pp_gauge_due(g));
  token = pp_gauge_probe(g, r->now);
  r->now = give(r, 16) + r->way;
  CHECK(!pp_gauge_back(g, token + 1, r->now));
  CHECK(pp_gauge_back(g, token, r->now));
  CHECK(!pp_gauge_back(g, token, r->now));
  CHECK(!pp_gauge_due(g));
}

static void measures(void) {
  static const double rates[] = {1e5, 1e6, 1e7, 1e8, 1e9};
  static const int64_t ways[] = {MS / 20, MS, 30 * MS, 150 * MS};

  for (size_t i = 0; i < sizeof rates / sizeof *rates; i++)
    for (size_t k = 0; k < sizeof ways / sizeof *ways; k++) {
      road r = {.rate = rates[i], .way = ways[k], .now = MS};
      pp_gauge g = {0};

      if (r.rate * 2 * (double)r.way / 1e9 > 4e6)
        continue; /* what may be on the way at once does not fill it */
      greet(&g, &r);
      stream(&g, &r, 64 << 20, 8 << 20);
      CHECK(g.rate > 0.8 * r.rate && g.rate < 1.3 * r.rate);
    }
}

/* --- the window ----------------------------------------------------------- */

/* A sender that sends whenever it may, for so long. */
typedef struct sender {
  pp_gauge g;
  road r;
  uint64_t sent, asked, answered; /* bytes; probes */
  int64_t echo[PP_GAUGE_PROBES];  /* when their answers come */
  int64_t behind; /* the longest that bytes have waited at the link */
} sender;

static void ask(sender *s) {
  uint64_t token;

  if (!pp_gauge_due(&s->g))
    return;
  token = pp_gauge_probe(&s->g, s->r.now);
  CHECK(token == ++s->asked && token - s->answered <= PP_GAUGE_PROBES);
  s->echo[token % PP_GAUGE_PROBES] = give(&s->r, 16) + s->r.way;
}

static void go_on(sender *s, int64_t until) {
  while (s->r.now < until) {
    int64_t echo = s->asked > s->answered
                       ? s->echo[(s->answered + 1) % PP_GAUGE_PROBES]
                       : -1;

    if (echo >= 0 && echo <= s->r.now) {
      CHECK(pp_gauge_back(&s->g, ++s->answered, s->r.now));
      ask(s);
    } else if (pp_gauge_full(&s->g, 0)) {
      CHECK(echo >= 0); /* or it would wait for ever */
      if (echo < 0)
        return;
      s->r.now = echo;
    } else {
      int64_t wait = s->r.free - s->r.now;

      if (wait > s->behind)
        s->behind = wait;
      give(&s->r, 4096);
      pp_gauge_sent(&s->g, 4096, 0, s->r.now);
      s->sent += 4096;
      s->r.now += 1000; /* four gigabytes a second */
      ask(s);
    }
  }
}

static void fills_the_link_and_no_more(void) {
  static const double rates[] = {2.5e5, 2.5e6, 2.5e7, 2.5e8};
  static const int64_t ways[] = {MS / 20, 5 * MS, 50 * MS, 150 * MS};

  for (size_t i = 0; i < sizeof rates / sizeof *rates; i++)
    for (size_t k = 0; k < sizeof ways / sizeof *ways; k++) {
      sender s = {.g = {.on = true}};
      int64_t least, second = 1000 * MS;
      double share;

      s.r = (road){.rate = rates[i], .way = ways[k], .now = MS};
      ask(&s);
      go_on(&s, 10 * second); /* it was measured */
      s.sent = 0;
      s.behind = 0;
      go_on(&s, 60 * second);
      share = (double)s.sent / (50 * s.r.rate);
      CHECK(share > 0.93 && share < 1.03);
      least = (int64_t)(PP_GAUGE_LEAST * 1e9 / s.r.rate);
      CHECK(s.behind < 4 * ways[k] + 45 * MS + least + least / 2);

      /* Another way, of another rate, and so long: found within half a
       * minute, and it never stands still. */
      s.r.way = ways[(k + 2) % 4];
      s.r.rate = rates[i > 0 ? i - 1 : 1];
      go_on(&s, 90 * second);
      s.sent = 0;
      go_on(&s, 120 * second);
      share = (double)s.sent / (30 * s.r.rate);
      CHECK(share > 0.9 && share < 1.03);
    }
}

/* Nobody is asked who does not answer, and then there is no limit. */
static void asks_none_who_do_not_answer(void) {
  pp_gauge g = {0};

  pp_gauge_sent(&g, (uint64_t)1 << 40, 0, MS);
  CHECK(!pp_gauge_full(&g, 1));
  g.on = true;
  CHECK(pp_gauge_full(&g, 0));
  CHECK(!pp_gauge_full(&(pp_gauge){.on = true}, PP_GAUGE_FIRST - 1));
  CHECK(pp_gauge_full(&(pp_gauge){.on = true}, PP_GAUGE_FIRST));
}

/* A turn moves something, also while all that is under way is to run out: who
 * has to pass all he has on would take turns of nothing for ever. */
static void never_takes_turns_of_nothing(void) {
  pp_press z = {.gauge = {.on = true, .known = true, .rate = 1e9}};

  CHECK(pp_press_turn(&z) == PP_RELAY_MAX);
  z.gauge.rate = 1;
  CHECK(pp_press_turn(&z) > 0);
  z.gauge.drain = true;
  CHECK(pp_gauge_window(&z.gauge) == 0 && pp_press_full(&z, 0));
  CHECK(pp_press_turn(&z) > 0 && pp_press_turn(&z) <= PP_RELAY_MAX);
}

/* What comes in drops does not fill the link, and says nothing of it. */
static void is_not_misled_by_drops(void) {
  road r = {.rate = 1e9, .way = MS, .now = MS};
  pp_gauge g = {0};

  greet(&g, &r);
  for (int i = 0; i < 2000; i++) {
    r.now += 10 * MS;
    stream(&g, &r, 1000, 1 << 20);
  }
  CHECK(g.rate == 0 || g.rate > 1e8);
  stream(&g, &r, 64 << 20, 8 << 20);
  CHECK(g.rate > 5e8);
  /* One answer is late by much. */
  pp_gauge_sent(&g, PP_GAUGE_BYTES, 0, r.now);
  r.now += 500 * MS;
  CHECK(pp_gauge_back(&g, pp_gauge_probe(&g, r.now - 490 * MS), r.now));
  CHECK(g.rate > 4e8);
}

/* --- packing -------------------------------------------------------------- */

typedef struct sink {
  pp_press other;
  size_t bytes, probes, packed, messages;
  uint64_t token, sum;
} sink;

static void take(sink *s, const unsigned char *p, size_t n) {
  while (n > 0) {
    size_t size = PP_RELAY_HEAD + pp_get32(p + 4);

    CHECK(size <= n);
    s->messages++;
    for (size_t i = 0; i < size; i++)
      s->sum = s->sum * 31 + p[i];
    p += size;
    n -= size;
  }
}

static void write_to(void *ud, const void *p, size_t n) {
  sink *s = ud;
  const unsigned char *b = p, *out;
  size_t len;

  s->bytes += n;
  if (b[0] == PP_R_PROBE && n == PP_RELAY_HEAD + 8) {
    s->probes++;
    s->token = pp_get64(b + PP_RELAY_HEAD);
  } else if (b[0] == PP_R_PACKED) {
    s->packed++;
    CHECK(pp_press_open(&s->other, b + PP_RELAY_HEAD, n - PP_RELAY_HEAD, &out,
                        &len));
    take(s, out, len);
  } else {
    take(s, b, n);
  }
}

static uint64_t seed = 1;
static unsigned char random_byte(void) {
  seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
  return (unsigned char)(seed >> 56);
}

/* A message of so many bytes at p, random ones or text; the same added up. */
static size_t compose(unsigned char *p, size_t n, bool text, sink *want) {
  pp_relay_head(p, PP_R_BYTES, 3, (uint32_t)n);
  for (size_t i = 0; i < n; i++)
    p[PP_RELAY_HEAD + i] =
        text ? (unsigned char)"the same words again, "[i % 22] : random_byte();
  take(want, p, PP_RELAY_HEAD + n);
  return PP_RELAY_HEAD + n;
}

/* So many messages over z; what it took. */
static size_t send(pp_press *z, sink *s, sink *want, int n, bool text) {
  static unsigned char b[PP_RELAY_HEAD + PP_RELAY_MAX];
  size_t before = s->bytes;

  for (int i = 0; i < n; i++)
    pp_press_pass(z, b, compose(b, PP_RELAY_MAX, text, want), write_to, s);
  CHECK(s->messages == want->messages && s->sum == want->sum);
  return s->bytes - before;
}

static void packs_for_a_slow_link(void) {
  pp_press z = {.able = true, .gauge = {.known = true, .rate = 1e6}};
  sink s = {0}, want = {0};
  size_t packed;

  CHECK(send(&z, &s, &want, 20, true) < 20 * PP_RELAY_MAX / 10);
  CHECK(s.packed == 20);
  /* What does not shrink is tried less and less. */
  send(&z, &s, &want, 200, false);
  CHECK(s.packed == 20 && z.misses <= 12 && z.misses >= 6);
  /* And what does is found again. */
  packed = s.packed;
  send(&z, &s, &want, (int)PP_PRESS_SKIP + 10, true);
  CHECK(s.packed >= packed + 10 && z.misses == 0);
  /* Small ones together, in one message. */
  {
    unsigned char b[4096];
    size_t n = 0;

    packed = s.packed;
    while (n < 4000)
      n += compose(b + n, 20, true, &want);
    pp_press_pass(&z, b, n, write_to, &s);
    CHECK(s.packed == packed + 1 && s.sum == want.sum);
    /* A lone one goes as it is. */
    pp_press_pass(&z, b, compose(b, 100, true, &want), write_to, &s);
    CHECK(s.packed == packed + 1 && s.sum == want.sum);
  }
  pp_press_clear(&z);
  pp_press_clear(&s.other);
}

static void leaves_a_fast_link_alone(void) {
  pp_press z = {.able = true,
                .gauge = {.on = true, .known = true, .rate = 2e8}};
  pp_press unable = {.gauge = {.known = true, .rate = 1e3}};
  pp_press near = {.able = true, .gauge = {.known = true, .rtt = MS}};
  pp_press far = {.able = true, .gauge = {.known = true, .rtt = 30 * MS}};
  sink s = {0}, want = {0};
  size_t probes;

  send(&z, &s, &want, 20, true);
  CHECK(s.packed == 0 && s.probes > 0);
  probes = s.probes;
  send(&unable, &s, &want, 20, true); /* nor is one asked who cannot answer */
  CHECK(s.packed == 0 && s.probes == probes);
  send(&near, &s, &want, 1, true);
  CHECK(s.packed == 0);
  send(&far, &s, &want, 1, true);
  CHECK(s.packed == 1);
  pp_press_clear(&z);
  pp_press_clear(&unable);
  pp_press_clear(&near);
  pp_press_clear(&far);
  pp_press_clear(&s.other);
}

/* --- what others have packed ---------------------------------------------- */

static bool opens(const unsigned char *p, size_t n) {
  pp_press z = {0};
  const unsigned char *out;
  size_t len;
  bool ok = pp_press_open(&z, p, n, &out, &len);

  pp_press_clear(&z);
  return ok;
}

typedef struct kept {
  unsigned char p[2 * PP_PRESS_BLOCK];
  size_t n;
} kept;

static void keep(void *ud, const void *p, size_t n) {
  kept *k = ud;

  if (k->n == 0) {
    memcpy(k->p, p, n);
    k->n = n;
  }
}

static void refuses_what_makes_no_sense(void) {
  static kept good, b;
  static unsigned char text[PP_PRESS_BLOCK];
  pp_press z = {.able = true, .gauge = {.known = true, .rate = 1e6}};
  sink unused = {0};
  size_t n = compose(text, PP_RELAY_MAX, true, &unused), head = PP_RELAY_HEAD;

  pp_press_pass(&z, text, n, keep, &good);
  CHECK(good.p[0] == PP_R_PACKED && opens(good.p + head, good.n - head));
  for (size_t k = 0; k < good.n - head; k++)
    CHECK(!opens(good.p + head, k));
  /* It is more, or less, than it says; or says too much. */
  for (int i = 0; i < 5; i++) {
    static const uint32_t said[] = {0, PP_RELAY_HEAD, PP_PRESS_BLOCK - 1,
                                    PP_PRESS_BLOCK + 1, UINT32_MAX};

    b = good;
    pp_put32(b.p + head, said[i]);
    CHECK(!opens(b.p + head, b.n - head));
  }
  for (int i = 0; i < 2000; i++) { /* whatever: nothing is read beyond */
    b = good;
    for (int k = 0; k < 3; k++)
      b.p[head + 4 + (random_byte() << 8 | random_byte()) % (b.n - head - 4)] =
          random_byte();
    (void)opens(b.p + head, b.n - head);
  }
  /* Messages that end too early, or are packed again. */
  b.n = 0;
  pp_put32(text + 4, PP_RELAY_MAX - 1);
  z.skip = 0;
  pp_press_pass(&z, text, n - 1, keep, &b);
  CHECK(b.p[0] == PP_R_PACKED && opens(b.p + head, b.n - head));
  b.n = 0;
  text[0] = PP_R_PACKED;
  pp_press_pass(&z, text, n - 1, keep, &b);
  CHECK(b.p[0] == PP_R_PACKED && !opens(b.p + head, b.n - head));
  pp_press_clear(&z);
}

int main(void) {
  measures();
  is_not_misled_by_drops();
  fills_the_link_and_no_more();
  asks_none_who_do_not_answer();
  never_takes_turns_of_nothing();
  if (pp_press_able()) {
    packs_for_a_slow_link();
    leaves_a_fast_link_alone();
    refuses_what_makes_no_sense();
  } else {
    puts("libzstd is not here: only what measures was tested");
  }
  return failures != 0;
}
