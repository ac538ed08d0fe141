/* SPDX-License-Identifier: MIT */
#include "spec.h"

#include <arpa/inet.h>
#include <stdarg.h>
#include <stdio.h>

typedef struct reader {
  pp_spec *s;
  const char *text, *p, *end;
  pp_spec_error *e;
} reader;

__attribute__((format(printf, 3, 4))) static int fail(reader *d, const char *at,
                                                      const char *format, ...) {
  va_list ap;

  va_start(ap, format);
  vsnprintf(d->e->why, sizeof d->e->why, format, ap);
  va_end(ap);
  d->e->at = (size_t)(at - d->text);
  return PP_EBAD;
}

/* Room for one more element; arrays are full at powers of two. */
static int room(void *array, size_t n, size_t size) {
  void **v = array, *bigger;

  if ((n & (n - 1)) != 0)
    return 0;
  bigger = pp_buf_realloc(*v, (n == 0 ? 1 : 2 * n) * size);
  if (bigger == NULL)
    return PP_ENOMEM;
  *v = bigger;
  return 0;
}

static int add_part(reader *d, pp_term *t, pp_part part) {
  pp_spec *s = d->s;
  int r = room(&s->parts, s->nparts, sizeof *s->parts);

  if (r == 0) {
    s->parts[s->nparts++] = part;
    t->nparts++;
  }
  return r;
}

static bool is_digit(char c) { return c >= '0' && c <= '9'; }
static bool is_blank(char c) {
  return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static bool is_name(char c) {
  return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
         c == '.' || c == '_' || c == '-' || (unsigned char)c >= 0x80;
}

static bool is_user(char c) {
  return is_name(c) || c == '@' || c == '\\' || c == '+' || c == '%' ||
         c == '~' || c == '=';
}

static bool ends_term(const reader *d, const char *p) {
  return p == d->end || *p == ',' || *p == '!' || is_blank(*p);
}

/* How a character is shown in a message. */
static const char *show(const reader *d, const char *p, char out[8]) {
  if (p == d->end)
    return "the end";
  snprintf(out, 8, *p > ' ' && *p < 0x7f ? "'%c'" : "\\x%02x",
           (unsigned char)*p);
  return out;
}

/* --- numbers ---------------------------------------------------------------
 */

static int number(reader *d, uint64_t *out, size_t *digits) {
  const char *p = d->p;
  char c[8];

  *out = 0;
  while (d->p < d->end && is_digit(*d->p)) {
    if (d->p - p == PP_SPEC_DIGITS_MAX)
      return fail(d, d->p, "a number has at most %d digits",
                  PP_SPEC_DIGITS_MAX);
    *out = *out * 10 + (uint64_t)(*d->p++ - '0');
  }
  *digits = (size_t)(d->p - p);
  if (*digits == 0)
    return fail(d, p, "a number is missing before %s", show(d, p, c));
  return 0;
}

/* 01-16, 1-9/2, 20 */
static int range(reader *d) {
  pp_spec *s = d->s;
  pp_range v = {.step = 1};
  const char *lo = d->p, *hi;
  size_t nlo, nhi;
  int r = number(d, &v.lo, &nlo);

  if (r < 0)
    return r;
  v.hi = v.lo;
  if (nlo > 1 && *lo == '0')
    v.width = nlo;
  if (d->p < d->end && *d->p == '-') {
    hi = ++d->p;
    r = number(d, &v.hi, &nhi);
    if (r < 0)
      return r;
    if (nhi > 1 && *hi == '0' && nhi != v.width)
      return fail(d, hi, "both ends must have the same number of digits");
    if (v.hi < v.lo)
      return fail(d, hi, "the range ends before it begins");
    if (d->p < d->end && *d->p == '/') {
      hi = ++d->p;
      r = number(d, &v.step, &nhi);
      if (r < 0)
        return r;
      if (v.step == 0)
        return fail(d, hi, "a step of 0 leads nowhere");
    }
  } else if (d->p < d->end && *d->p == '/') {
    return fail(d, d->p, "only a range has a step");
  }
  r = room(&s->ranges, s->nranges, sizeof *s->ranges);
  if (r == 0)
    s->ranges[s->nranges++] = v;
  return r;
}

/* [01-16,20] */
static int ranges(reader *d, pp_term *t) {
  const char *open = d->p++;
  pp_part part = {.range = d->s->nranges};
  char c[8];
  int r;

  do {
    r = range(d);
    if (r < 0)
      return r;
  } while (d->p < d->end && *d->p == ',' && d->p++);
  if (d->p == d->end)
    return fail(d, open, "this bracket is never closed");
  if (*d->p != ']')
    return fail(d, d->p, "',' or ']' is missing before %s", show(d, d->p, c));
  d->p++;
  part.nranges = d->s->nranges - part.range;
  return add_part(d, t, part);
}

/* --- hosts ------------------------------------------------------------------
 */

/* Is this an IPv6 address, perhaps with a %zone? */
static bool is_ipv6(const char *p, size_t n) {
  const char *zone = memchr(p, '%', n);
  size_t len = zone != NULL ? (size_t)(zone - p) : n;
  struct in6_addr addr;
  char copy[INET6_ADDRSTRLEN];

  if (len >= sizeof copy || n - len > 64 || n - len == 1)
    return false;
  for (size_t i = len + 1; i < n; i++)
    if (!is_name(p[i]))
      return false;
  memcpy(copy, p, len);
  copy[len] = '\0';
  return inet_pton(AF_INET6, copy, &addr) == 1;
}

/* [::1] or, without a port, ::1. *done when there was one. */
static int ipv6(reader *d, pp_term *t, bool *done) {
  const char *p = d->p, *e = p;
  size_t colons = 0;

  *done = false;
  if (p < d->end && *p == '[') {
    const char *close = memchr(p, ']', (size_t)(d->end - p));
    size_t n = close != NULL ? (size_t)(close - p) - 1 : 0;

    if (close == NULL)
      return fail(d, p, "this bracket is never closed");
    if (memchr(p, ':', n) == NULL)
      return 0; /* ranges */
    if (!is_ipv6(p + 1, n))
      return fail(d, p + 1, "this is not an IPv6 address");
    d->p = close + 1;
    t->brackets = true;
  } else {
    while (!ends_term(d, e) && *e != '/' && *e != '[')
      colons += *e++ == ':';
    if (colons < 2)
      return 0;
    if (!is_ipv6(p, (size_t)(e - p)))
      return fail(d, p, "this is not an IPv6 address, nor a host and a port");
    d->p = e;
  }
  *done = true;
  return add_part(d, t, (pp_part){.text = p, .len = (size_t)(d->p - p)});
}

/* Text and brackets up to what ends a name. */
static int name(reader *d, pp_term *t) {
  int r = 0;

  while (r == 0 && d->p < d->end && (is_name(*d->p) || *d->p == '[')) {
    const char *p = d->p;

    if (*p == '[') {
      r = ranges(d, t);
      continue;
    }
    while (d->p < d->end && is_name(*d->p))
      d->p++;
    r = add_part(d, t, (pp_part){.text = p, .len = (size_t)(d->p - p)});
  }
  return r;
}

static int port(reader *d, pp_term *t) {
  const char *colon = d->p++, *p;
  char c[8];
  int r = add_part(d, t, (pp_part){.text = colon, .len = 1});

  t->port_part = t->nparts;
  t->port_at = (size_t)(d->p - d->text);
  while (r == 0 && d->p < d->end && (is_digit(*d->p) || *d->p == '[')) {
    p = d->p;
    if (*p == '[') {
      r = ranges(d, t);
      continue;
    }
    while (d->p < d->end && is_digit(*d->p))
      d->p++;
    r = add_part(d, t, (pp_part){.text = p, .len = (size_t)(d->p - p)});
  }
  if (r == 0 && t->nparts == t->port_part)
    return fail(d, d->p, "a port is missing before %s", show(d, d->p, c));
  return r;
}

static int workers(reader *d, pp_term *t, bool is_url) {
  const char *p = ++d->p;
  uint64_t n;
  size_t digits;
  int r;

  if (is_url && ends_term(d, p)) /* ssh://host/ */
    return 0;
  t->workers_at = (size_t)(p - d->text);
  r = number(d, &n, &digits);
  if (r < 0)
    return r;
  if (n == 0)
    return fail(d, p, "a host with 0 workers is of no use; leave it out");
  if (n > PP_HOST_WORKERS_MAX)
    return fail(d, p, "a host has at most %d workers", PP_HOST_WORKERS_MAX);
  t->workers = (int)n;
  return 0;
}

static int user(reader *d, pp_term *t) {
  const char *p = d->p, *at = NULL;
  char c[8];

  while (!ends_term(d, p) && *p != '/' && *p != '[') {
    if (*p == '@')
      at = p;
    p++;
  }
  if (at == NULL)
    return 0;
  if (at == d->p)
    return fail(d, at, "a user is missing before '@'");
  for (p = d->p; p < at; p++)
    if (!is_user(*p) || (*p == '-' && p == d->p) || (*p == '\\' && p + 1 == at))
      return fail(d, p, "%s cannot stand here in a user's name", show(d, p, c));
  t->user = d->p;
  t->user_len = (size_t)(at - d->p);
  d->p = at + 1;
  return 0;
}

static int host(reader *d, pp_term *t) {
  const char *p;
  bool is_url = d->end - d->p >= 6 && memcmp(d->p, "ssh://", 6) == 0;
  bool done;
  char c[8];
  int r;

  if (is_url)
    d->p += 6;
  r = user(d, t);
  if (r < 0)
    return r;
  p = d->p;
  t->part = d->s->nparts;
  r = ipv6(d, t, &done);
  if (r == 0 && !done)
    r = name(d, t);
  if (r < 0)
    return r;
  if (t->nparts == 0)
    return ends_term(d, d->p) || *d->p == '/' || *d->p == ':'
               ? fail(d, d->p, "a host is missing before %s", show(d, d->p, c))
               : fail(d, d->p, "%s cannot stand in a host's name",
                      show(d, d->p, c));
  if (*p == '-')
    return fail(d, p, "a host's name does not begin with '-'");
  if (d->p < d->end && *d->p == ':' && (!done || t->brackets))
    r = port(d, t);
  if (r == 0 && d->p < d->end && *d->p == '/')
    r = workers(d, t, is_url);
  if (r == 0 && !ends_term(d, d->p))
    r = fail(d, d->p, "%s cannot stand here in a host", show(d, d->p, c));
  return r;
}

static int term(reader *d, bool minus) {
  pp_spec *s = d->s;
  pp_term t = {.minus = minus, .at = (size_t)(d->p - d->text)};
  int r;

  if (d->p < d->end && *d->p == '@') {
    t.file = ++d->p;
    while (d->p < d->end && *d->p != ',' && *d->p != '!')
      d->p++;
    t.file_len = (size_t)(d->p - t.file);
    while (t.file_len > 0 && is_blank(t.file[t.file_len - 1]))
      t.file_len--;
    if (t.file_len == 0)
      return fail(d, t.file, "a file is missing after '@'");
    if (memchr(t.file, 0, t.file_len) != NULL)
      return fail(d, t.file, "a file's name has no zero byte");
  } else {
    r = host(d, &t);
    if (r < 0)
      return r;
    if (minus && t.user != NULL)
      return fail(d, t.user, "what is taken away has no user");
    if (minus && t.workers > 0)
      return fail(d, d->text + t.workers_at,
                  "what is taken away has no workers");
  }
  r = room(&s->terms, s->nterms, sizeof *s->terms);
  if (r == 0)
    s->terms[s->nterms++] = t;
  return r;
}

/* --- lists ------------------------------------------------------------------
 */

static void blanks(reader *d) {
  while (d->p < d->end && is_blank(*d->p))
    d->p++;
}

static int list(reader *d) {
  bool minus;
  char c[8];
  int r;

  blanks(d);
  minus = d->p < d->end && *d->p == '!';
  d->p += minus;
  for (;;) {
    blanks(d);
    r = term(d, minus);
    if (r < 0)
      return r;
    blanks(d);
    if (d->p == d->end)
      return 0;
    if (*d->p != ',' && *d->p != '!')
      return fail(d, d->p, "',' is missing before %s", show(d, d->p, c));
    minus = *d->p++ == '!';
  }
}

int pp_spec_parse(pp_spec *s, const char *text, size_t len, pp_spec_error *e) {
  reader d = {.s = s, .text = text, .p = text, .end = text + len, .e = e};
  int r;

  *s = (pp_spec){0};
  *e = (pp_spec_error){0};
  if (len > PP_SPEC_TEXT_MAX) {
    fail(&d, text, "a list has at most %d bytes", PP_SPEC_TEXT_MAX);
    return PP_ELIMIT;
  }
  r = list(&d);
  if (r < 0)
    pp_spec_clear(s);
  return r;
}

void pp_spec_clear(pp_spec *s) {
  pp_buf_realloc(s->terms, 0);
  pp_buf_realloc(s->parts, 0);
  pp_buf_realloc(s->ranges, 0);
  *s = (pp_spec){0};
}

uint64_t pp_spec_count(const pp_spec *s, const pp_term *t) {
  uint64_t count = 1;

  for (size_t i = 0; i < t->nparts; i++) {
    const pp_part *part = &s->parts[t->part + i];
    uint64_t sum = part->nranges == 0;

    for (size_t k = 0; k < part->nranges; k++) {
      const pp_range *v = &s->ranges[part->range + k];

      sum += (v->hi - v->lo) / v->step + 1; /* each below 10^18 */
      if (sum > UINT64_MAX / 4)
        return UINT64_MAX;
    }
    if (__builtin_mul_overflow(count, sum, &count))
      return UINT64_MAX;
  }
  return count;
}

/* --- matching ----------------------------------------------------------------
 */

/* Do n digits say a number of these ranges as it would be written? */
static bool in_ranges(const pp_range *v, size_t n, uint64_t value,
                      size_t digits, size_t plain) {
  for (; n > 0; n--, v++)
    if (value >= v->lo && value <= v->hi && (value - v->lo) % v->step == 0 &&
        digits == (v->width > plain ? v->width : plain))
      return true;
  return false;
}

/* All places in the name that can be reached part by part. A place is reached
 * or not, so there is no backtracking, whatever the brackets. */
bool pp_spec_match(const pp_spec *s, const pp_term *t, const char *name,
                   size_t n) {
  bool here[PP_HOST_NAME_MAX + 1] = {true}, next[PP_HOST_NAME_MAX + 1];

  if (n > PP_HOST_NAME_MAX || t->file != NULL)
    return false;
  for (size_t i = 0; i < t->nparts; i++) {
    const pp_part *part = &s->parts[t->part + i];
    bool any = false;

    memset(next, 0, n + 1);
    for (size_t at = 0; at <= n; at++) {
      uint64_t value = 0;
      size_t plain = 0;

      if (!here[at])
        continue;
      if (part->nranges == 0) {
        if (n - at >= part->len &&
            memcmp(name + at, part->text, part->len) == 0)
          any = next[at + part->len] = true;
        continue;
      }
      for (size_t k = at; k < n && k - at < PP_SPEC_DIGITS_MAX; k++) {
        if (!is_digit(name[k]))
          break;
        value = value * 10 + (uint64_t)(name[k] - '0');
        plain += plain > 0 || name[k] != '0'; /* digits without the zeros */
        if (in_ranges(&s->ranges[part->range], part->nranges, value, k - at + 1,
                      plain > 0 ? plain : 1))
          any = next[k + 1] = true;
      }
    }
    if (!any)
      return false;
    memcpy(here, next, n + 1);
  }
  return here[n];
}
