/* SPDX-License-Identifier: MIT */
/*
 * pp_hosts_fold of host.h: names to brackets.
 *
 * A name is cut into cells, text and numbers in turn. From the last number to
 * the first, names that differ in that number only become one, whose cell then
 * reads [1-14,16]. So racks of nodes fold as well: rack[1-2]node[1-4].
 */
#include <stdio.h>
#include <stdlib.h>

#include "host.h"
#include "spec.h"

enum { NUMBERS_MAX = 8, CELLS_MAX = 2 * NUMBERS_MAX + 1 };

typedef struct cell {
  const char *p; /* borrowed from a name, or owned when it is folded */
  size_t n;
  bool folded;
} cell;

typedef struct item {
  cell *cells; /* in the pool; odd ones are numbers */
  int ncells;
} item;

static bool is_digit(char c) { return c >= '0' && c <= '9'; }

/* Cut a name; the first numbers of very many stay text. cells may be NULL. */
static int cut(const char *name, cell *cells) {
  size_t n = strlen(name), end = n;
  int numbers = 0, count;
  cell reversed[CELLS_MAX];
  int k = 0;

  /* Addresses of IPv6 have digits, but no numbers. */
  bool whole =
      strchr(name, '[') != NULL ||
      (strchr(name, ':') != NULL && strchr(name, ':') != strrchr(name, ':'));

  for (size_t i = n; !whole && i > 0 && numbers < NUMBERS_MAX;) {
    size_t e;

    while (i > 0 && !is_digit(name[i - 1]))
      i--;
    e = i;
    while (i > 0 && is_digit(name[i - 1]))
      i--;
    if (e == i || e - i > PP_SPEC_DIGITS_MAX)
      continue;
    reversed[k++] = (cell){.p = name + e, .n = end - e};
    reversed[k++] = (cell){.p = name + i, .n = e - i};
    end = i;
    numbers++;
  }
  reversed[k++] = (cell){.p = name, .n = end};
  count = k;
  for (int i = 0; cells != NULL && i < count; i++)
    cells[i] = reversed[--k];
  return count;
}

/* Fewer digits first: then numbers are in order, and those padded alike are
 * together. What is folded begins with its first number. */
static int compare_cells(const cell *a, const cell *b, bool number) {
  size_t n;
  int r;

  if (number && a->n != b->n && !a->folded && !b->folded)
    return a->n < b->n ? -1 : 1;
  n = a->n < b->n ? a->n : b->n;
  r = memcmp(a->p, b->p, n);
  if (r != 0 || a->n == b->n)
    return r;
  return a->n < b->n ? -1 : 1;
}

/* Do all cells but one say the same? Order of these, else of that one. */
static int compare_others(const item *a, const item *b, int but) {
  if (a->ncells != b->ncells)
    return a->ncells < b->ncells ? -1 : 1;
  for (int i = 0; i < a->ncells; i++) {
    int r = i != but ? compare_cells(&a->cells[i], &b->cells[i], i % 2) : 0;

    if (r != 0)
      return r;
  }
  return 0;
}

static int compare_at(const void *a, const void *b, void *at) {
  const item *x = a, *y = b;
  int but = *(int *)at, r = compare_others(x, y, but);

  return r != 0 || but < 0 || but >= x->ncells
             ? r
             : compare_cells(&x->cells[but], &y->cells[but], true);
}

/* As one would list them: text by text, number by number. */
static int compare_shown(const void *a, const void *b) {
  const item *x = a, *y = b;

  for (int i = 0; i < x->ncells && i < y->ncells; i++) {
    const cell *c = &x->cells[i], *d = &y->cells[i];
    size_t m = c->n, n = d->n;
    int r;

    if (i % 2) { /* the first number of each */
      for (m = 0; m < c->n && is_digit(c->p[m]); m++)
        ;
      for (n = 0; n < d->n && is_digit(d->p[n]); n++)
        ;
      if (m != n)
        return m < n ? -1 : 1;
    }
    r = memcmp(c->p, d->p, m < n ? m : n);
    if (r != 0)
      return r;
    if (c->n != d->n)
      return c->n < d->n ? -1 : 1;
  }
  return x->ncells - y->ncells;
}

static uint64_t value_of(const cell *c) {
  uint64_t v = 0;

  for (size_t i = 0; i < c->n; i++)
    v = v * 10 + (uint64_t)(c->p[i] - '0');
  return v;
}

/* Does b come after a, written as a range that began with lo would write it? */
static bool follows(const cell *lo, const cell *a, const cell *b) {
  char text[PP_SPEC_DIGITS_MAX + 2];
  int width = lo->n > 1 && lo->p[0] == '0' ? (int)lo->n : 0;
  int n = snprintf(text, sizeof text, "%0*llu", width,
                   (unsigned long long)value_of(a) + 1);

  return b->n == (size_t)n && b->n <= PP_SPEC_DIGITS_MAX &&
         memcmp(b->p, text, b->n) == 0;
}

/* Fold the numbers at cell `at` of items that are sorted by it. */
static int fold_group(item *items, size_t n, int at) {
  pp_buf b = {0};
  int r = 0;

  for (size_t i = 0; r == 0 && i < n;) {
    const cell *lo = &items[i].cells[at], *hi = lo;
    size_t k = i + 1;

    while (k < n && follows(lo, hi, &items[k].cells[at]))
      hi = &items[k++].cells[at];
    if (i > 0)
      r = pp_buf_byte(&b, ',');
    if (r == 0)
      r = pp_buf_put(&b, lo->p, lo->n);
    if (r == 0 && hi != lo)
      r = pp_buf_byte(&b, '-');
    if (r == 0 && hi != lo)
      r = pp_buf_put(&b, hi->p, hi->n);
    i = k;
  }
  if (r < 0) {
    pp_buf_clear(&b);
    return r;
  }
  items[0].cells[at] = (cell){.p = (char *)b.data, .n = b.len, .folded = true};
  return 0;
}

static void free_cells(item *it) {
  for (int i = 0; i < it->ncells; i++)
    if (it->cells[i].folded)
      pp_buf_realloc((void *)(uintptr_t)it->cells[i].p, 0);
}

/* Fold what differs at one cell only. Returns how many remain, first among
 * items; or PP_ENOMEM, everything still owned by the n items there were. */
static int64_t fold_at(item *items, size_t n, int at) {
  size_t left = 0;

  qsort_r(items, n, sizeof *items, compare_at, &at);
  for (size_t i = 0; i < n;) {
    size_t k = i + 1;

    while (k < n && at < items[i].ncells &&
           compare_others(&items[i], &items[k], at) == 0)
      k++;
    if (k - i > 1) {
      int r = fold_group(&items[i], k - i, at);

      if (r < 0) {
        while (i < n)
          items[left++] = items[i++];
        for (; left < n; left++)
          items[left].ncells = 0;
        return r;
      }
      for (size_t j = i + 1; j < k; j++)
        free_cells(&items[j]);
    }
    items[left++] = items[i];
    i = k;
  }
  return (int64_t)left;
}

static int put_item(pp_buf *out, const item *it) {
  int r = 0;

  for (int i = 0; r == 0 && i < it->ncells; i++) {
    const cell *c = &it->cells[i];

    if (c->folded)
      r = pp_buf_byte(out, '[');
    if (r == 0)
      r = pp_buf_put(out, c->p, c->n);
    if (r == 0 && c->folded)
      r = pp_buf_byte(out, ']');
  }
  return r;
}

int pp_hosts_fold(const char *const *names, size_t n, pp_buf *out) {
  size_t ncells = 0, len = out->len, left = 0;
  item *items = pp_buf_realloc(NULL, (n + 1) * sizeof *items);
  cell *pool;
  int none = -1, r = 0;

  for (size_t i = 0; i < n; i++)
    ncells += (size_t)cut(names[i], NULL);
  pool = pp_buf_realloc(NULL, (ncells + 1) * sizeof *pool);
  if (items == NULL || pool == NULL) {
    r = PP_ENOMEM;
    goto done;
  }
  ncells = 0;
  for (size_t i = 0; i < n; i++) {
    items[i].cells = pool + ncells;
    items[i].ncells = cut(names[i], items[i].cells);
    ncells += (size_t)items[i].ncells;
  }
  qsort_r(items, n, sizeof *items, compare_at, &none);
  for (size_t i = 0; i < n; i++) /* each once */
    if (left == 0 || compare_others(&items[left - 1], &items[i], -1) != 0)
      items[left++] = items[i];
  for (int at = CELLS_MAX - 2; r == 0 && at > 0; at -= 2) {
    int64_t m = fold_at(items, left, at);

    if (m < 0)
      r = (int)m;
    else
      left = (size_t)m;
  }
  qsort(items, left, sizeof *items, compare_shown);
  for (size_t i = 0; r == 0 && i < left; i++) {
    if (i > 0)
      r = pp_buf_byte(out, ',');
    if (r == 0)
      r = put_item(out, &items[i]);
  }
  for (size_t i = 0; i < left; i++)
    free_cells(&items[i]);
done:
  if (r < 0)
    out->len = len;
  pp_buf_realloc(items, 0);
  pp_buf_realloc(pool, 0);
  return r;
}
