/* SPDX-License-Identifier: MIT */
#include "host.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "hash.h"
#include "spec.h"
#include "specerror.h"

enum { FILE_MAX = 64 << 20 };

/* --- a set ---------------------------------------------------------------- */

static size_t slot_of(const pp_hosts *s, const char *name, size_t n) {
  size_t i = (size_t)pp_hash_of(name, n, 0).lo & (s->nslots - 1);

  for (; s->slots[i] != 0; i = (i + 1) & (s->nslots - 1)) {
    const char *other = s->v[s->slots[i] - 1].name;

    if (strncmp(other, name, n) == 0 && other[n] == '\0')
      break;
  }
  return i;
}

static void index_all(pp_hosts *s) {
  memset(s->slots, 0, s->nslots * sizeof *s->slots);
  for (size_t i = 0; i < s->n; i++)
    s->slots[slot_of(s, s->v[i].name, strlen(s->v[i].name))] = (uint32_t)i + 1;
}

/* Room for so many more. */
static int grow(pp_hosts *s, size_t more) {
  size_t cap = s->cap > 0 ? s->cap : 8, nslots;
  pp_host *v;
  uint32_t *slots;

  if (s->n + more <= s->cap)
    return 0;
  while (cap < s->n + more)
    cap *= 2;
  nslots = 2 * cap; /* a power of two, and half of them free */
  slots = pp_buf_realloc(NULL, nslots * sizeof *slots);
  if (slots == NULL)
    return PP_ENOMEM;
  v = pp_buf_realloc(s->v, cap * sizeof *v);
  if (v == NULL) {
    pp_buf_realloc(slots, 0);
    return PP_ENOMEM;
  }
  pp_buf_realloc(s->slots, 0);
  s->v = v;
  s->cap = cap;
  s->slots = slots;
  s->nslots = nslots;
  index_all(s);
  return 0;
}

const pp_host *pp_hosts_find(const pp_hosts *s, const char *name, size_t n) {
  uint32_t i = s->nslots > 0 ? s->slots[slot_of(s, name, n)] : 0;

  return i > 0 ? &s->v[i - 1] : NULL;
}

/* All strings of a host are in the one block of its name. */
static void free_host(pp_host *h) { pp_buf_realloc(h->name, 0); }

bool pp_hosts_remove(pp_hosts *s, const char *name, size_t n) {
  const pp_host *h = pp_hosts_find(s, name, n);
  size_t i;

  if (h == NULL)
    return false;
  i = (size_t)(h - s->v);
  free_host(&s->v[i]);
  memmove(&s->v[i], &s->v[i + 1], (--s->n - i) * sizeof *s->v);
  index_all(s);
  return true;
}

void pp_hosts_clear(pp_hosts *s) {
  for (size_t i = 0; i < s->n; i++)
    free_host(&s->v[i]);
  pp_buf_realloc(s->v, 0);
  pp_buf_realloc(s->slots, 0);
  *s = (pp_hosts){0};
}

/* The host as it was written: a name without its port. */
static size_t written_host(const pp_host *h) {
  size_t n = strlen(h->name);

  if (h->port > 0)
    while (h->name[--n] != ':')
      ;
  return n;
}

/* Keep those that keep() says; which way is told by ud. */
static void filter(pp_hosts *s, bool (*keep)(const pp_host *, const void *),
                   const void *ud) {
  size_t n = 0;

  for (size_t i = 0; i < s->n; i++) {
    if (keep(&s->v[i], ud))
      s->v[n++] = s->v[i];
    else
      free_host(&s->v[i]);
  }
  s->n = n;
  if (s->nslots > 0)
    index_all(s);
}

/* --- adding --------------------------------------------------------------- */

typedef struct adder {
  pp_hosts own; /* what this list has gathered */
  const pp_spec *spec;
  const char *text;
  size_t len;
  pp_hosts_read read;
  void *ud;
  const char *file; /* NULL: not in one */
  unsigned line;
  pp_host_error *e;
} adder;

static int refuse(const adder *a, size_t at, int code, const char *why) {
  pp_host_error_set(a->e, a->text, a->len, at, a->file, a->line, why);
  return code;
}

static const char *conflict(const pp_host *a, const pp_host *b) {
  if (a->workers != b->workers)
    return "with another number of workers";
  return (a->user == NULL) != (b->user == NULL) ||
                 (a->user != NULL && strcmp(a->user, b->user) != 0)
             ? "with another user"
             : NULL;
}

static int refuse_many(const adder *a, size_t at) {
  char why[64];

  snprintf(why, sizeof why, "more than %d hosts", PP_HOSTS_MAX);
  return refuse(a, at, PP_ELIMIT, why);
}

static int refuse_twice(const adder *a, size_t at, const char *name,
                        const char *how) {
  char why[PP_HOST_NAME_MAX + 96];

  snprintf(why, sizeof why, "'%s' was named before, %s", name, how);
  return refuse(a, at, PP_EBAD, why);
}

/* Take over what the host owns, or free it when it is there already. */
static int insert(adder *a, pp_hosts *s, pp_host *h, size_t at) {
  size_t n = strlen(h->name);
  const pp_host *old = pp_hosts_find(s, h->name, n);
  const char *how = old != NULL ? conflict(old, h) : NULL;
  int r = 0;

  if (how != NULL)
    r = refuse_twice(a, at, h->name, how);
  else if (old == NULL && s->n == PP_HOSTS_MAX)
    r = refuse_many(a, at);
  else if (old == NULL)
    r = grow(s, 1);
  if (r < 0 || old != NULL) {
    free_host(h);
    return r;
  }
  s->v[s->n] = *h;
  s->slots[slot_of(s, h->name, n)] = (uint32_t)++s->n;
  return 0;
}

/* One name of a term; port_at of it is where the port begins, 0: none. */
static int add_name(adder *a, const pp_term *t, const char *name, size_t n,
                    size_t port_at) {
  size_t nhost = port_at > 0 ? port_at - 1 : n;
  size_t skip = t->brackets ? 1 : 0;
  pp_host h = {.workers = t->workers};
  char *p;

  if (n > PP_HOST_NAME_MAX)
    return refuse(a, t->at, PP_ELIMIT, "a host's name has at most 255 bytes");
  if (port_at > 0) {
    long port = n - port_at <= 5 ? strtol(name + port_at, NULL, 10) : 0;

    if (port < 1 || port > 65535)
      return refuse(a, t->port_at, PP_EBAD, "ports are 1 to 65535");
    h.port = (int)port;
  } else if (n == 5 && memcmp(name, "local", 5) == 0) {
    return refuse(a, t->at, PP_EBAD,
                  "'local' is this machine's own name here, no host's");
  }
  h.name = p = pp_buf_realloc(NULL, n + 1 + nhost + 1 + t->user_len + 1);
  if (p == NULL)
    return PP_ENOMEM;
  memcpy(p, name, n + 1);
  h.host = p += n + 1;
  memcpy(p, name + skip, nhost - 2 * skip);
  p[nhost - 2 * skip] = '\0';
  if (t->user != NULL) {
    h.user = p += nhost + 1;
    memcpy(p, t->user, t->user_len);
    p[t->user_len] = '\0';
  }
  return insert(a, &a->own, &h, t->at);
}

/* All names of a term, the last bracket's numbers fastest. name holds what the
 * parts before i made of it. */
static int expand(adder *a, const pp_term *t, size_t i, char *name, size_t n,
                  size_t port_at) {
  const pp_part *part = &a->spec->parts[t->part + i];
  int r = 0;

  if (i > 0 && i == t->port_part)
    port_at = n;
  if (i == t->nparts)
    return add_name(a, t, name, n, port_at);
  if (part->nranges == 0) {
    if (n + part->len > PP_HOST_NAME_MAX)
      return add_name(a, t, name, PP_HOST_NAME_MAX + 1, 0);
    memcpy(name + n, part->text, part->len);
    name[n + part->len] = '\0';
    return expand(a, t, i + 1, name, n + part->len, port_at);
  }
  for (size_t k = 0; r == 0 && k < part->nranges; k++) {
    const pp_range *v = &a->spec->ranges[part->range + k];

    for (uint64_t x = v->lo; r == 0 && x <= v->hi; x += v->step) {
      int len = snprintf(name + n, PP_SPEC_DIGITS_MAX + 1, "%0*llu",
                         (int)v->width, (unsigned long long)x);

      r = n + (size_t)len > PP_HOST_NAME_MAX
              ? add_name(a, t, name, PP_HOST_NAME_MAX + 1, 0)
              : expand(a, t, i + 1, name, n + (size_t)len, port_at);
    }
  }
  return r;
}

/* --- taking away ---------------------------------------------------------- */

typedef struct away {
  const pp_spec *spec;
  const pp_term *term;
  const pp_hosts *hosts; /* of a file, instead of a term */
} away;

/* A host goes when its name is named, or its host whatever its port. */
static bool stays(const pp_host *h, const void *ud) {
  const away *w = ud;
  size_t n = strlen(h->name), m = written_host(h);

  if (w->hosts != NULL)
    return pp_hosts_find(w->hosts, h->name, n) == NULL &&
           (m == n || pp_hosts_find(w->hosts, h->name, m) == NULL);
  return !pp_spec_match(w->spec, w->term, h->name, n) &&
         (m == n || !pp_spec_match(w->spec, w->term, h->name, m));
}

/* --- files ---------------------------------------------------------------- */

static int read_file(void *ud, const char *path, pp_buf *out) {
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY), r = 0;

  (void)ud;
  if (fd < 0)
    return PP_ESYS;
  while (r == 0) {
    ssize_t got;

    r = pp_buf_reserve(out, 64 << 10);
    if (r < 0)
      break;
    got = read(fd, out->data + out->len, 64 << 10);
    if (got < 0 && errno == EINTR)
      continue;
    if (got < 0)
      r = PP_ESYS;
    if (got <= 0)
      break;
    out->len += (size_t)got;
    if (out->len > FILE_MAX)
      r = PP_ELIMIT;
  }
  if (r == PP_ESYS) {
    int saved = errno;

    close(fd);
    errno = saved;
  } else {
    close(fd);
  }
  return r;
}

static int add_list(pp_hosts *set, adder *a);

/* The lists in a file, one a line. */
static int add_lines(pp_hosts *set, const adder *from, const char *path,
                     const pp_buf *b) {
  const char *p = b->len > 0 ? (const char *)b->data : "", *end = p + b->len;
  unsigned line = 0;
  int r = 0;

  while (r == 0 && p < end) {
    const char *nl = memchr(p, '\n', (size_t)(end - p));
    const char *e = nl != NULL ? nl : end;
    const char *hash = memchr(p, '#', (size_t)(e - p)), *stop;
    adder a = {.text = p, .file = path, .line = ++line, .e = from->e};

    stop = hash != NULL ? hash : e;
    while (stop > p &&
           (stop[-1] == ' ' || stop[-1] == '\t' || stop[-1] == '\r'))
      stop--;
    a.len = (size_t)(stop - p);
    if (a.len > 0) /* the last byte is no blank */
      r = add_list(set, &a);
    p = nl != NULL ? nl + 1 : end;
  }
  return r;
}

static int add_file(adder *a, const pp_term *t, pp_hosts *out) {
  char why[512], path[4096];
  pp_buf b = {0};
  int r;

  if (a->file != NULL)
    return refuse(a, t->at, PP_EBAD, "a file of hosts names no other file");
  if (t->file_len >= sizeof path)
    return refuse(a, t->at, PP_ELIMIT, "a file's name has at most 4095 bytes");
  memcpy(path, t->file, t->file_len);
  path[t->file_len] = '\0';
  r = (a->read != NULL ? a->read : read_file)(a->ud, path, &b);
  if (r == PP_ESYS) {
    snprintf(why, sizeof why, "cannot read '%.400s': %s", path,
             strerror(errno));
    r = refuse(a, t->at, PP_EBAD, why);
  } else if (r == PP_ELIMIT) {
    r = refuse(a, t->at, r, "this file is too long for a list of hosts");
  }
  if (r == 0)
    r = add_lines(out, a, path, &b);
  if (r == 0 && out->n == 0)
    r = refuse(a, t->at, PP_EBAD, "this file names no host");
  pp_buf_clear(&b);
  return r;
}

/* --- lists ---------------------------------------------------------------- */

/* Move all of b into s; s changes only if all is well. b is empty then. */
static int merge(adder *a, pp_hosts *s, pp_hosts *b, size_t at) {
  size_t fresh = 0;
  int r = 0;

  for (size_t i = 0; r == 0 && i < b->n; i++) {
    const pp_host *h = &b->v[i];
    const pp_host *old = pp_hosts_find(s, h->name, strlen(h->name));
    const char *how = old != NULL ? conflict(old, h) : NULL;

    fresh += old == NULL;
    if (how != NULL)
      r = refuse_twice(a, at, h->name, how);
  }
  if (r == 0 && s->n + fresh > PP_HOSTS_MAX)
    r = refuse_many(a, at);
  if (r == 0)
    r = grow(s, fresh);
  for (size_t i = 0; r == 0 && i < b->n; i++)
    r = insert(a, s, &b->v[i], at);
  if (r == 0)
    b->n = 0; /* they have moved */
  pp_hosts_clear(b);
  return r;
}

static int add_term(adder *a, const pp_term *t) {
  const away w = {.spec = a->spec, .term = t};
  char name[PP_HOST_NAME_MAX + PP_SPEC_DIGITS_MAX + 2] = "";
  pp_hosts hosts = {0};
  int r;

  if (t->file != NULL) {
    r = add_file(a, t, &hosts);
    if (r == 0 && !t->minus)
      return merge(a, &a->own, &hosts, t->at);
    if (r == 0)
      filter(&a->own, stays, &(away){.hosts = &hosts});
    pp_hosts_clear(&hosts);
    return r;
  }
  if (t->minus) {
    filter(&a->own, stays, &w);
    return 0;
  }
  if (pp_spec_count(a->spec, t) > PP_HOSTS_MAX)
    return refuse_many(a, t->at);
  return expand(a, t, 0, name, 0, 0);
}

static int copy_all(pp_hosts *to, const pp_hosts *from) {
  int r = grow(to, from->n);

  for (size_t i = 0; r == 0 && i < from->n; i++) {
    const pp_host *h = &from->v[i];
    size_t name = strlen(h->name) + 1, host = strlen(h->host) + 1;
    size_t user = h->user != NULL ? strlen(h->user) + 1 : 0;
    pp_host c = *h;

    c.name = pp_buf_realloc(NULL, name + host + user);
    if (c.name == NULL)
      return PP_ENOMEM;
    memcpy(c.name, h->name, name);
    c.host = memcpy(c.name + name, h->host, host);
    if (user > 0)
      c.user = memcpy(c.host + host, h->user, user);
    to->v[to->n++] = c;
  }
  if (r == 0 && to->nslots > 0)
    index_all(to);
  return r;
}

/* What a list says. A set that is not a file's changes only if all is well. */
static int add_list(pp_hosts *set, adder *a) {
  pp_spec spec;
  pp_spec_error e;
  bool narrows;
  int r = pp_spec_parse(&spec, a->text, a->len, &e);

  if (r == PP_EBAD || r == PP_ELIMIT)
    return refuse(a, e.at, r, e.why);
  if (r < 0)
    return r;
  a->spec = &spec;
  narrows = spec.terms[0].minus;
  if (narrows && set->n == 0) {
    r = refuse(a, spec.terms[0].at, PP_EBAD,
               "there is nothing yet to take this from");
  } else if (narrows && a->file != NULL) { /* on failure all of it goes */
    a->own = *set;
    *set = (pp_hosts){0};
  } else if (narrows) {
    r = copy_all(&a->own, set);
  }
  for (size_t i = 0; r == 0 && i < spec.nterms; i++)
    r = add_term(a, &spec.terms[i]);
  if (r == 0 && a->own.n == 0)
    r = refuse(a, spec.terms[spec.nterms - 1].at, PP_EBAD,
               "no host is left when this is taken away");
  if (r == 0 && narrows) {
    pp_hosts_clear(set);
    *set = a->own;
    a->own = (pp_hosts){0};
  } else if (r == 0) {
    r = merge(a, set, &a->own, spec.terms[0].at);
  }
  pp_hosts_clear(&a->own);
  pp_spec_clear(&spec);
  return r;
}

int pp_hosts_add(pp_hosts *set, const char *text, size_t len,
                 pp_hosts_read read, void *ud, pp_host_error *e) {
  adder a = {.text = text, .len = len, .read = read, .ud = ud, .e = e};

  *e = (pp_host_error){0};
  return add_list(set, &a);
}
