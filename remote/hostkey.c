/* SPDX-License-Identifier: MIT */
#include "hostkey.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base64.h"
#include "known.h"
#include "wild.h"

enum { CHUNK = 64 << 10, TYPE_MAX = 64 };

/* --- blobs -----------------------------------------------------------------
 */

/* Borrow the next counted string of a blob. */
static bool take(const unsigned char **p, const unsigned char *end,
                 const unsigned char **s, size_t *n) {
  if (end - *p < 4)
    return false;
  *n = (size_t)(*p)[0] << 24 | (size_t)(*p)[1] << 16 | (size_t)(*p)[2] << 8 |
       (size_t)(*p)[3];
  *p += 4;
  if ((size_t)(end - *p) < *n)
    return false;
  *s = *p;
  *p += *n;
  return true;
}

/* What follows the type's name: so many counted strings. */
static const struct {
  const char *type, *brief;
  int fields;
  size_t first; /* length the first of them must have, or 0 */
} types[] = {
    {"ssh-ed25519", "ed25519", 1, 32},
    {"ecdsa-sha2-nistp256", "ecdsa", 2, 8},
    {"ecdsa-sha2-nistp384", "ecdsa", 2, 8},
    {"ecdsa-sha2-nistp521", "ecdsa", 2, 8},
    {"ssh-rsa", "rsa", 2, 0},
    {"ssh-dss", "dsa", 4, 0},
    {"sk-ssh-ed25519@openssh.com", "ed25519-sk", 2, 32},
    {"sk-ecdsa-sha2-nistp256@openssh.com", "ecdsa-sk", 3, 8},
};
enum { NTYPES = sizeof types / sizeof *types };

/* Is this a whole public key, of the type named if that is not NULL? */
static bool is_key(const void *blob, size_t len, const char *type,
                   size_t ntype) {
  const unsigned char *p = blob, *end, *s;
  size_t n, k;
  int i;

  if (len == 0)
    return false;
  end = p + len;
  if (!take(&p, end, &s, &n) ||
      (type != NULL && (n != ntype || memcmp(s, type, n) != 0)))
    return false;
  for (k = 0; k < NTYPES; k++)
    if (strlen(types[k].type) == n && memcmp(s, types[k].type, n) == 0)
      break;
  if (k == NTYPES)
    return false;
  for (i = 0; i < types[k].fields; i++)
    if (!take(&p, end, &s, &n) ||
        (i == 0 && types[k].first != 0 && n != types[k].first))
      return false;
  return p == end;
}

bool pp_hostkey_type(const void *blob, size_t len, char *out, size_t size) {
  const unsigned char *p = blob, *s;
  size_t n;

  if (size > 0)
    out[0] = '\0';
  if (len == 0 || !take(&p, p + len, &s, &n) || n == 0 || n >= size)
    return false;
  for (size_t i = 0; i < n; i++)
    if (s[i] <= ' ' || s[i] > '~')
      return false;
  memcpy(out, s, n);
  out[n] = '\0';
  return true;
}

const char *pp_hostkey_short_type(const char *type) {
  for (size_t k = 0; k < NTYPES; k++)
    if (strcmp(types[k].type, type) == 0)
      return types[k].brief;
  return type;
}

void pp_hostkey_fingerprint(const void *blob, size_t len, char *out,
                            size_t size) {
  unsigned char sum[PP_SHA256_LEN];
  pp_buf b = {0};

  if (pp_sha256(blob, len, sum) < 0 ||
      pp_base64_encode(sum, sizeof sum, &b) < 0) {
    snprintf(out, size, "SHA256:?");
  } else { /* 43 characters and one of padding */
    snprintf(out, size, "SHA256:%.*s", (int)b.len - 1, (char *)b.data);
  }
  pp_buf_clear(&b);
}

/* --- names -----------------------------------------------------------------
 */

static bool match_list(const char *p, size_t n, const char *name, size_t len) {
  const char *end = p + n;
  bool is_in = false;

  while (p <= end) {
    const char *comma = memchr(p, ',', (size_t)(end - p));
    const char *e = comma != NULL ? comma : end;
    bool negated = p < e && *p == '!';

    if (pp_wild_match(p + negated, (size_t)(e - p) - negated, name, len,
                      true)) {
      if (negated)
        return false;
      is_in = true;
    }
    p = e + 1;
  }
  return is_in;
}

/* |1|salt|hash */
static bool match_hashed(pp_hmac *h, const char *p, size_t n, const char *name,
                         size_t len) {
  unsigned char sum[PP_SHA1_LEN];
  const char *bar;
  pp_buf b = {0};
  bool is_in;

  if (n < 3 || memcmp(p, "|1|", 3) != 0)
    return false;
  p += 3, n -= 3;
  bar = memchr(p, '|', n);
  if (bar == NULL)
    return false;
  is_in = pp_base64_decode(p, (size_t)(bar - p), &b) == 0 &&
          b.len == PP_SHA1_LEN &&
          pp_base64_decode(bar + 1, n - (size_t)(bar + 1 - p), &b) == 0 &&
          b.len == 2 * PP_SHA1_LEN &&
          pp_hmac_sha1(h, b.data, PP_SHA1_LEN, name, len, sum) == 0 &&
          memcmp(sum, b.data + PP_SHA1_LEN, PP_SHA1_LEN) == 0;
  pp_buf_clear(&b);
  return is_in;
}

/* What the host is looked up as: [0], and also [1] if that is not empty. */
typedef struct names {
  pp_buf name[2];
} names;

static int put_lower(pp_buf *b, const char *s) {
  int r = 0;

  for (; r == 0 && *s != '\0'; s++)
    r = pp_buf_byte(b, (unsigned char)pp_lower(*s));
  return r;
}

static int make_name(pp_buf *b, const pp_hostkey_query *q) {
  char port[16];
  int r;

  if (q->alias != NULL)
    return put_lower(b, q->alias);
  if (q->port == 0 || q->port == 22)
    return put_lower(b, q->host);
  snprintf(port, sizeof port, "]:%d", q->port);
  r = pp_buf_byte(b, '[');
  if (r == 0)
    r = put_lower(b, q->host);
  return r == 0 ? pp_buf_put(b, port, strlen(port)) : r;
}

static void clear_names(names *m) {
  pp_buf_clear(&m->name[0]);
  pp_buf_clear(&m->name[1]);
}

/* m is empty; so it is again on failure. */
static int make_names(names *m, const pp_hostkey_query *q) {
  int r = make_name(&m->name[0], q);

  if (r == 0 && q->alias == NULL && q->port != 0 && q->port != 22)
    r = put_lower(&m->name[1], q->host);
  if (r < 0)
    clear_names(m);
  return r;
}

/* 0: the line's names are not the host's; 1: they are; 2: without its port. */
static int match_names(const names *m, pp_hmac *h, const char *p, size_t n) {
  for (int i = 0; i < 2; i++) {
    const char *name = (const char *)m->name[i].data;
    size_t len = m->name[i].len;

    if (len > 0 && (*p == '|' ? match_hashed(h, p, n, name, len)
                              : match_list(p, n, name, len)))
      return i + 1;
  }
  return 0;
}

/* --- lines -----------------------------------------------------------------
 */

typedef struct reader {
  pp_hostkeys *k;
  names names;
  pp_hmac hmac;
  size_t file;
  unsigned line;
  bool skip; /* in a line that is too long */
} reader;

/* The next word of a line; false at its end. */
static bool word(const char **p, const char *end, const char **w, size_t *n) {
  while (*p < end && (**p == ' ' || **p == '\t'))
    ++*p;
  *w = *p;
  while (*p < end && **p != ' ' && **p != '\t')
    ++*p;
  *n = (size_t)(*p - *w);
  return *n > 0;
}

static bool is_word(const char *w, size_t n, const char *s) {
  return strlen(s) == n && memcmp(w, s, n) == 0;
}

static int add_line(reader *d, pp_hostkey_marker marker, bool portless,
                    pp_buf *blob) {
  pp_hostkeys *k = d->k;

  if ((k->n & (k->n - 1)) == 0) { /* full at powers of two */
    size_t cap = k->n == 0 ? 1 : 2 * k->n;
    pp_hostkey_line *v = pp_buf_realloc(k->v, cap * sizeof *v);

    if (v == NULL)
      return PP_ENOMEM;
    k->v = v;
  }
  k->v[k->n++] = (pp_hostkey_line){
      .file = d->file,
      .line = d->line,
      .blob = blob->data,
      .len = blob->len,
      .marker = marker,
      .portless = portless,
  };
  *blob = (pp_buf){0};
  return 0;
}

static int read_line(reader *d, const char *p, size_t len) {
  const char *end = p + len, *w, *type;
  size_t n, ntype;
  pp_hostkey_marker marker = PP_MARK_NONE;
  pp_buf blob = {0};
  int match, r;

  if (len > 0 && end[-1] == '\r')
    end--;
  if (len > PP_HOSTKEY_LINE_MAX || !word(&p, end, &w, &n) || *w == '#')
    return 0;
  if (*w == '@') {
    if (is_word(w, n, "@revoked"))
      marker = PP_MARK_REVOKED;
    else if (is_word(w, n, "@cert-authority"))
      marker = PP_MARK_CA;
    else
      return 0;
    if (!word(&p, end, &w, &n))
      return 0;
  }
  match = match_names(&d->names, &d->hmac, w, n);
  if (match == 0 || !word(&p, end, &type, &ntype) || !word(&p, end, &w, &n))
    return 0;
  r = pp_base64_decode(w, n, &blob);
  if (r == 0 && is_key(blob.data, blob.len, type, ntype))
    r = add_line(d, marker, match == 2, &blob);
  pp_buf_clear(&blob);
  return r == PP_ENOMEM ? r : 0;
}

/* Read the whole lines there are, and what remains at the end of the file.
 * Returns how many bytes were read, or PP_ENOMEM. */
static int64_t read_lines(reader *d, const char *text, size_t len, bool last) {
  size_t at = 0;

  while (at < len) {
    const char *nl = memchr(text + at, '\n', len - at);
    size_t n = nl != NULL ? (size_t)(nl - text) - at : len - at;
    int r;

    if (nl == NULL && !last)
      break;
    if (d->skip)
      d->skip = false;
    else if ((d->line++, r = read_line(d, text + at, n)) < 0)
      return r;
    at += n + (nl != NULL);
  }
  return (int64_t)at;
}

/* Begin a file; finish() undoes what was gathered from it on failure. */
static int begin(reader *d, pp_hostkeys *k, const pp_hostkey_query *q,
                 const char *file) {
  int r;

  *d = (reader){.k = k, .file = k->files.n};
  r = make_names(&d->names, q);
  if (r == 0 && (r = pp_strings_add(&k->files, file, strlen(file))) < 0)
    clear_names(&d->names);
  return r;
}

static int finish(reader *d, size_t n, int r) {
  pp_hostkeys *k = d->k;

  clear_names(&d->names);
  pp_hmac_clear(&d->hmac);
  if (r >= 0)
    return 0;
  while (k->n > n)
    pp_buf_realloc(k->v[--k->n].blob, 0);
  k->files.n--;
  pp_buf_realloc(k->files.v[k->files.n], 0);
  return r;
}

int pp_hostkeys_parse(pp_hostkeys *k, const pp_hostkey_query *q,
                      const char *file, const char *text, size_t len) {
  size_t n = k->n;
  reader d;
  int r = begin(&d, k, q, file);

  return r < 0 ? r
               : finish(&d, n,
                        (int)(read_lines(&d, text, len, true) < 0 ? PP_ENOMEM
                                                                  : 0));
}

static int read_fd(reader *d, int fd) {
  pp_buf b = {0};
  bool last = false;
  int r = 0;

  while (r == 0 && !last) {
    ssize_t got;
    int64_t used;

    r = pp_buf_reserve(&b, CHUNK);
    if (r < 0)
      break;
    got = read(fd, b.data + b.len, CHUNK);
    if (got < 0 && errno == EINTR)
      continue;
    last = got <= 0;
    b.len += last ? 0 : (size_t)got;
    used = read_lines(d, (const char *)b.data, b.len, last);
    if (used < 0) {
      r = PP_ENOMEM;
      break;
    }
    b.len -= (size_t)used;
    memmove(b.data, b.data + used, b.len);
    if (b.len > PP_HOSTKEY_LINE_MAX) {
      d->line += !d->skip;
      d->skip = true;
      b.len = 0;
    }
  }
  pp_buf_clear(&b);
  return r;
}

int pp_hostkeys_load(pp_hostkeys *k, const pp_hostkey_query *q,
                     const pp_strings *files) {
  for (size_t i = 0; i < files->n; i++) {
    size_t n = k->n;
    struct stat st;
    reader d;
    int fd, r;

    /* A pipe or a terminal would make us wait. */
    fd = open(files->v[i], O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0)
      continue;
    r = begin(&d, k, q, files->v[i]);
    if (r == 0) {
      if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
        r = read_fd(&d, fd);
      r = finish(&d, n, r);
    }
    close(fd);
    if (r < 0)
      return r;
  }
  return 0;
}

void pp_hostkeys_clear(pp_hostkeys *k) {
  for (size_t i = 0; i < k->n; i++)
    pp_buf_realloc(k->v[i].blob, 0);
  pp_buf_realloc(k->v, 0);
  pp_strings_clear(&k->files);
  *k = (pp_hostkeys){0};
}

/* --- verdict ---------------------------------------------------------------
 */

static bool same(const pp_hostkey_line *l, const void *blob, size_t len) {
  return l->len == len && memcmp(l->blob, blob, len) == 0;
}

void pp_hostkeys_check(const pp_hostkeys *k, const void *blob, size_t len,
                       pp_hostkey_found *found) {
  const pp_hostkey_line *ok = NULL, *changed = NULL, *revoked = NULL;
  const pp_hostkey_line *portless = NULL, *best;
  char type[TYPE_MAX], other[TYPE_MAX];
  bool alike = false;

  pp_hostkey_type(blob, len, type, sizeof type);
  for (size_t i = 0; i < k->n; i++) {
    const pp_hostkey_line *l = &k->v[i];

    if (l->marker == PP_MARK_REVOKED) {
      if (revoked == NULL && same(l, blob, len))
        revoked = l;
    } else if (l->marker == PP_MARK_CA) {
      continue;
    } else if (same(l, blob, len)) {
      if (!l->portless && ok == NULL)
        ok = l;
      else if (l->portless && portless == NULL)
        portless = l;
    } else if (!l->portless && !alike) {
      /* Of the keys it is not, one of its own type says most. */
      pp_hostkey_type(l->blob, l->len, other, sizeof other);
      alike = strcmp(type, other) == 0;
      if (alike || changed == NULL)
        changed = l;
    }
  }
  if (revoked != NULL)
    best = revoked, found->verdict = PP_HOSTKEY_REVOKED;
  else if (ok != NULL)
    best = ok, found->verdict = PP_HOSTKEY_OK;
  else if (changed != NULL)
    best = changed, found->verdict = PP_HOSTKEY_CHANGED;
  else if (portless != NULL)
    best = portless, found->verdict = PP_HOSTKEY_OK;
  else
    best = NULL, found->verdict = PP_HOSTKEY_UNKNOWN;
  found->file = best != NULL ? k->files.v[best->file] : NULL;
  found->line = best != NULL ? best->line : 0;
}

size_t pp_hostkeys_types(const pp_hostkeys *k, char *out, size_t size) {
  bool ported = false;
  unsigned seen = 0;
  size_t count = 0, len = 0;

  pp_assert(size > 0);
  out[0] = '\0';
  /* What is known without the port counts when nothing else is known. */
  for (size_t i = 0; i < k->n; i++)
    ported |= k->v[i].marker == PP_MARK_NONE && !k->v[i].portless;
  for (size_t i = 0; i < k->n; i++) {
    const pp_hostkey_line *l = &k->v[i];
    char type[TYPE_MAX];
    size_t t, n;

    if (l->marker != PP_MARK_NONE || (ported && l->portless))
      continue;
    pp_hostkey_type(l->blob, l->len, type, sizeof type);
    for (t = 0; t < NTYPES && strcmp(types[t].type, type) != 0; t++)
      ;
    if (t == NTYPES || (seen >> t & 1) != 0)
      continue;
    seen |= 1U << t;
    count++;
    n = strlen(type);
    if (len + (len > 0) + n + 1 > size)
      continue;
    if (len > 0)
      out[len++] = ',';
    memcpy(out + len, type, n + 1);
    len += n;
  }
  return count;
}

bool pp_hostkeys_has_ca(const pp_hostkeys *k) {
  for (size_t i = 0; i < k->n; i++)
    if (k->v[i].marker == PP_MARK_CA && !k->v[i].portless)
      return true;
  return false;
}

bool pp_hostkey_is_key(const void *blob, size_t len) {
  return is_key(blob, len, NULL, 0);
}

int pp_hostkey_name(const pp_hostkey_query *q, pp_buf *out) {
  return make_name(out, q);
}

bool pp_hostkey_is_loopback(const void *sockaddr) {
  const struct sockaddr *sa = sockaddr;

  if (sa->sa_family == AF_INET) {
    const struct sockaddr_in *in = sockaddr;

    return ntohl(in->sin_addr.s_addr) >> 24 == 127;
  }
  if (sa->sa_family == AF_INET6) {
    const struct sockaddr_in6 *in = sockaddr;

    return IN6_IS_ADDR_LOOPBACK(&in->sin6_addr);
  }
  return false;
}
