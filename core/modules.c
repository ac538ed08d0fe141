/* SPDX-License-Identifier: MIT */
#include "modules.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base.h"

void pp_source_unref(pp_source *s) {
  if (s == NULL || --s->refs > 0)
    return;
  free(s->file);
  free(s);
}

void pp_modules_clear(pp_modules *m) {
  pp_source *s;

  while ((s = m->kept) != NULL) {
    m->kept = s->next;
    pp_source_unref(s);
  }
}

static int put(pp_buf *b, const char *text) {
  return pp_buf_put(b, text, strlen(text));
}

/* The file name of a template for a module: `?` stands for the name, with `/`
 * for its dots. With a zero byte behind it. */
static int file_name(pp_buf *out, const char *t, size_t len, const char *name,
                     size_t name_len) {
  int r = 0;

  out->len = 0;
  for (size_t i = 0; i < len && r == 0; i++) {
    if (t[i] != '?') {
      r = pp_buf_byte(out, (unsigned char)t[i]);
      continue;
    }
    for (size_t k = 0; k < name_len && r == 0; k++)
      r = pp_buf_byte(out, name[k] == '.' ? '/' : (unsigned char)name[k]);
  }
  return r == 0 ? pp_buf_byte(out, 0) : r;
}

static int64_t changed(const struct stat *st) {
  int64_t data = (int64_t)st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec;
  int64_t node = (int64_t)st->st_ctim.tv_sec * 1000000000 + st->st_ctim.tv_nsec;

  return data ^ node << 1;
}

static bool same(const pp_source *s, const char *file, const struct stat *st) {
  return s->device == st->st_dev && s->inode == st->st_ino &&
         s->changed == changed(st) && (off_t)s->len == st->st_size &&
         strcmp(s->file, file) == 0;
}

/* Is there a kept one of this file as it is? One of the file as it was goes. */
static pp_source *kept(pp_modules *m, const char *file, const struct stat *st) {
  for (pp_source **p = &m->kept, *s; (s = *p) != NULL; p = &s->next) {
    if (strcmp(s->file, file) != 0)
      continue;
    if (same(s, file, st))
      return s;
    *p = s->next;
    pp_source_unref(s);
    break;
  }
  return NULL;
}

/* Read all of the file; it may have changed its size meanwhile. NULL with
 * errno. */
static pp_source *read_all(int fd, const char *file, const struct stat *st) {
  size_t want = (size_t)st->st_size;
  pp_source *s = malloc(sizeof *s + want);
  ssize_t n = 0;

  if (s == NULL) {
    errno = ENOMEM;
    return NULL;
  }
  memset(s, 0, sizeof *s);
  s->refs = 1;
  s->device = st->st_dev;
  s->inode = st->st_ino;
  s->changed = changed(st);
  s->file = strdup(file);
  while (s->file != NULL && s->len < want &&
         ((n = read(fd, s->bytes + s->len, want - s->len)) > 0 ||
          (n < 0 && errno == EINTR)))
    s->len += n > 0 ? (size_t)n : 0;
  if (s->file != NULL && n >= 0) {
    s->hash = pp_hash_of(s->bytes, s->len, 0);
    return s;
  }
  n = s->file == NULL ? ENOMEM : errno;
  pp_source_unref(s);
  errno = (int)n;
  return NULL;
}

/* The file, if it is there: 1, 0, or PP_EBAD with the reason in `tried`. */
static int take(pp_modules *m, const char *file, pp_source **out,
                pp_buf *tried) {
  int fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY), why;
  struct stat st;
  pp_source *s;

  if (fd < 0)
    return 0;
  if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
    close(fd);
    return 0;
  }
  s = kept(m, file, &st);
  if (s == NULL) {
    s = read_all(fd, file, &st);
    if (s == NULL) {
      why = errno;
      close(fd);
      tried->len = 0;
      if (put(tried, "cannot read '") != 0 || put(tried, file) != 0 ||
          put(tried, "': ") != 0 || put(tried, strerror(why)) != 0)
        return PP_ENOMEM;
      return PP_EBAD;
    }
    s->next = m->kept;
    m->kept = s;
  }
  close(fd);
  s->refs++;
  *out = s;
  return 1;
}

int pp_modules_find(pp_modules *m, const char *path, size_t path_len,
                    const char *name, size_t name_len, pp_source **out,
                    pp_buf *tried) {
  const char *t = path, *end = path + path_len;
  pp_buf file = {0};
  int r = 0;

  tried->len = 0;
  if (memchr(name, '\0', name_len) != NULL)
    return 0;
  while (t < end && r == 0) {
    const char *semi = memchr(t, ';', (size_t)(end - t));
    size_t len = (size_t)((semi != NULL ? semi : end) - t);

    if (len > 0) {
      r = file_name(&file, t, len, name, name_len);
      if (r == 0)
        r = take(m, (const char *)file.data, out, tried);
      if (r == 0 && (put(tried, tried->len > 0 ? "\nno file '" : "no file '") ||
                     pp_buf_put(tried, file.data, file.len - 1) != 0 ||
                     put(tried, "'") != 0))
        r = PP_ENOMEM;
    }
    t += len + 1;
  }
  pp_buf_clear(&file);
  return r;
}
