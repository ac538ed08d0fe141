/* SPDX-License-Identifier: MIT */
/*
 * Lists of hosts: whatever is read, its names are found again, matched by the
 * same list unexpanded, and the same after folding.
 *
 * Input: a list, and after a zero byte what every file in it holds.
 */
#include <stdlib.h>

#include "host.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct file {
  const uint8_t *data;
  size_t size;
} file;

static int read_file(void *ud, const char *path, pp_buf *out) {
  const file *f = ud;

  (void)path;
  return pp_buf_put(out, f->data, f->size);
}

static void check(int e) {
  if (!e)
    abort();
}

static void fold(const pp_hosts *set) {
  const char *names[256];
  pp_hosts again = {0};
  pp_nodeset *ns = NULL;
  pp_host_error e;
  pp_buf b = {0};

  for (size_t i = 0; i < set->n; i++)
    names[i] = set->v[i].name;
  check(pp_hosts_fold(names, set->n, &b) == 0);
  check(pp_hosts_add(&again, (char *)b.data, b.len, read_file, NULL, &e) == 0);
  check(again.n == set->n);
  check(pp_nodeset_new(&ns, (char *)b.data, b.len, &e) == 0);
  for (size_t i = 0; i < set->n; i++) {
    check(pp_hosts_find(&again, names[i], strlen(names[i])) != NULL);
    check(pp_nodeset_has(ns, names[i], strlen(names[i])));
  }
  pp_nodeset_free(ns);
  pp_hosts_clear(&again);
  pp_buf_clear(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const uint8_t *zero = size > 0 ? memchr(data, 0, size) : NULL;
  size_t len = zero != NULL ? (size_t)(zero - data) : size;
  file f = {data + len + (zero != NULL), size - len - (zero != NULL)};
  const char *text = size > 0 ? (const char *)data : "";
  pp_hosts set = {0};
  pp_nodeset *ns = NULL;
  pp_host_error e;

  if (size > 4096)
    return 0;
  if (pp_hosts_add(&set, text, len, read_file, &f, &e) == 0) {
    check(set.n > 0 && set.n <= PP_HOSTS_MAX);
    for (size_t i = 0; i < set.n && i < 256; i++) {
      const pp_host *h = &set.v[i];
      size_t n = strlen(h->name);

      check(pp_hosts_find(&set, h->name, n) == h);
      check(n <= PP_HOST_NAME_MAX && h->host[0] != '\0' && h->host[0] != '-');
      check(h->port >= 0 && h->port <= 65535 && h->workers >= 0);
      check(h->user == NULL || (h->user[0] != '\0' && h->user[0] != '-'));
    }
    if (set.n <= 256)
      fold(&set);
  } else {
    check(set.n == 0 && e.column >= 1 && e.message[0] != '\0');
  }
  if (pp_nodeset_new(&ns, text, len, &e) == 0) {
    for (size_t i = 0; i < set.n && i < 256; i++)
      check(pp_nodeset_has(ns, set.v[i].name, strlen(set.v[i].name)));
    (void)pp_nodeset_has(ns, text, len);
  }
  pp_nodeset_free(ns);
  pp_hosts_clear(&set);
  return 0;
}
