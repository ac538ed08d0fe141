/* SPDX-License-Identifier: MIT */
/* The other half of hostkey.h: what follows from a verdict, and remembering a
 * key that was accepted. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base64.h"
#include "known.h"

pp_hostkey_decision pp_hostkey_decide(const pp_hostkey_found *found,
                                      const pp_target *t, bool has_terminal,
                                      const void *blob, size_t len,
                                      char *reason, size_t size) {
  char type[64], print[64], key[160];

  if (!pp_hostkey_type(blob, len, type, sizeof type))
    snprintf(type, sizeof type, "?");
  pp_hostkey_fingerprint(blob, len, print, sizeof print);
  snprintf(key, sizeof key, "%s %s", pp_hostkey_short_type(type), print);
  if (size > 0)
    reason[0] = '\0';

  switch (found->verdict) {
  case PP_HOSTKEY_OK:
    return PP_HOSTKEY_ACCEPT;
  case PP_HOSTKEY_REVOKED:
    snprintf(reason, size, "host key revoked: %s by %s:%u", key, found->file,
             found->line);
    return PP_HOSTKEY_REFUSE;
  case PP_HOSTKEY_CHANGED:
    snprintf(reason, size, "host key changed: %s is not the key in %s:%u", key,
             found->file, found->line);
    return t->strict == PP_STRICT_NO ? PP_HOSTKEY_ACCEPT_WARN
                                     : PP_HOSTKEY_REFUSE;
  case PP_HOSTKEY_UNKNOWN:
    break;
  }

  if (t->strict == PP_STRICT_NO || t->strict == PP_STRICT_ACCEPT_NEW) {
    snprintf(reason, size, "host key accepted for the first time (%s)", key);
    return t->user_known_hosts > 0 ? PP_HOSTKEY_ACCEPT_ADD : PP_HOSTKEY_ACCEPT;
  }
  if (t->strict == PP_STRICT_YES) {
    snprintf(reason, size,
             "host key unknown (%s), and StrictHostKeyChecking is yes", key);
    return PP_HOSTKEY_REFUSE;
  }
  if (t->batch || !has_terminal) {
    snprintf(reason, size,
             "host key unknown (%s), and %s; connect once with ssh, or set "
             "StrictHostKeyChecking to accept-new",
             key, t->batch ? "BatchMode is on" : "no terminal to ask at");
    return PP_HOSTKEY_REFUSE;
  }
  snprintf(reason, size, "host key unknown (%s)", key);
  return PP_HOSTKEY_ASK;
}

/* --- remembering -----------------------------------------------------------
 */

static int put_hashed(pp_buf *out, const pp_buf *name) {
  unsigned char salt[PP_SHA1_LEN], sum[PP_SHA1_LEN];
  pp_hmac h = {0};
  int r;

  if (getrandom(salt, sizeof salt, 0) != sizeof salt)
    return PP_ESYS;
  r = pp_hmac_sha1(&h, salt, sizeof salt, name->data, name->len, sum);
  pp_hmac_clear(&h);
  if (r < 0) {
    errno = ENOTSUP;
    return r;
  }
  r = pp_buf_put(out, "|1|", 3);
  if (r == 0)
    r = pp_base64_encode(salt, sizeof salt, out);
  if (r == 0)
    r = pp_buf_byte(out, '|');
  return r == 0 ? pp_base64_encode(sum, sizeof sum, out) : r;
}

/* A newline, and the line; the newline is left out if the file ends in one. */
static int make_line(pp_buf *out, const pp_hostkey_query *q, const void *blob,
                     size_t len, bool hashed) {
  char type[64];
  pp_buf name = {0};
  int r;

  if (!pp_hostkey_is_key(blob, len) ||
      !pp_hostkey_type(blob, len, type, sizeof type))
    return PP_EBAD;
  r = pp_hostkey_name(q, &name);
  /* Written plainly, these would say something else. */
  if (r == 0 && name.len == 0)
    r = PP_EBAD;
  for (size_t i = 0; r == 0 && i < name.len; i++)
    if (name.data[i] <= ' ' || strchr("*?,!|@#\x7f", name.data[i]) != NULL)
      r = PP_EBAD;
  if (r == 0)
    r = pp_buf_byte(out, '\n');
  if (r == 0)
    r = hashed ? put_hashed(out, &name) : pp_buf_put(out, name.data, name.len);
  if (r == 0)
    r = pp_buf_byte(out, ' ');
  if (r == 0)
    r = pp_buf_put(out, type, strlen(type));
  if (r == 0)
    r = pp_buf_byte(out, ' ');
  if (r == 0)
    r = pp_base64_encode(blob, len, out);
  if (r == 0)
    r = pp_buf_byte(out, '\n');
  pp_buf_clear(&name);
  return r;
}

static int open_file(const char *file) {
  const int flags = O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY;
  const char *slash = strrchr(file, '/');
  pp_buf dir = {0};
  int fd = open(file, flags, 0600);

  if (fd >= 0 || errno != ENOENT || slash == NULL || slash == file)
    return fd;
  if (pp_buf_put(&dir, file, (size_t)(slash - file)) < 0 ||
      pp_buf_byte(&dir, 0) < 0) {
    errno = ENOMEM;
  } else if (mkdir((char *)dir.data, 0700) == 0 || errno == EEXIST) {
    fd = open(file, flags, 0600);
  }
  pp_buf_clear(&dir);
  return fd;
}

/* The lock keeps others from looking at the last byte while we write. Whoever
 * holds it for long does something else; then one write is all the care there
 * can be. */
static void lock(int fd) {
  for (int i = 0; i < 50; i++) {
    if (flock(fd, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK)
      return;
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
  }
}

int pp_hostkey_add(const char *file, const pp_hostkey_query *q,
                   const void *blob, size_t len, bool hashed) {
  pp_buf line = {0};
  struct stat st;
  ssize_t put;
  char last;
  size_t skip;
  int fd, saved, r = make_line(&line, q, blob, len, hashed);

  if (r < 0)
    goto done;
  fd = open_file(file);
  if (fd < 0) {
    r = PP_ESYS;
    goto done;
  }
  lock(fd);
  skip = fstat(fd, &st) == 0 && st.st_size > 0 &&
                 pread(fd, &last, 1, st.st_size - 1) == 1 && last != '\n'
             ? 0
             : 1;
  do
    put = write(fd, line.data + skip, line.len - skip);
  while (put < 0 && errno == EINTR);
  if (put >= 0 && (size_t)put != line.len - skip) {
    errno = ENOSPC;
    put = -1;
  }
  r = put < 0 ? PP_ESYS : 0;
  saved = errno;
  close(fd); /* and with it the lock */
  errno = saved;
done:
  saved = errno;
  pp_buf_clear(&line);
  errno = saved;
  return r;
}
