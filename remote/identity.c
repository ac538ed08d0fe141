/* SPDX-License-Identifier: MIT */
#include "identity.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base64.h"
#include "hostkey.h"

/* --- the pieces of a file ------------------------------------------------- */

static bool begins(const char *p, const char *end, const char *with) {
  size_t n = strlen(with);

  return (size_t)(end - p) >= n && memcmp(p, with, n) == 0;
}

static const char *after_line(const char *p, const char *end) {
  const char *nl = memchr(p, '\n', (size_t)(end - p));

  return nl != NULL ? nl + 1 : end;
}

/* Decode the base64 up to the line that ends it. */
static int body(const char *p, const char *end, pp_buf *out) {
  pp_buf text = {0};
  int r = 0;

  for (; r == 0 && p < end && *p != '-'; p++)
    if (*p > ' ')
      r = pp_buf_byte(&text, (unsigned char)*p);
  if (r == 0)
    r = p < end ? pp_base64_decode((char *)text.data, text.len, out) : PP_EBAD;
  pp_buf_clear(&text);
  return r;
}

/* Find a DER object identifier, tag and length included. */
static bool has_oid(const pp_buf *der, const char *oid) {
  return der->len > 0 && memmem(der->data, der->len, oid, strlen(oid)) != NULL;
}

static const char *curve_of(const pp_buf *der) {
  return has_oid(der, "\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07")
             ? "ecdsa-sha2-nistp256"
         : has_oid(der, "\x06\x05\x2b\x81\x04\x22") ? "ecdsa-sha2-nistp384"
         : has_oid(der, "\x06\x05\x2b\x81\x04\x23") ? "ecdsa-sha2-nistp521"
                                                    : "ecdsa-sha2";
}

static bool counted(const unsigned char **p, const unsigned char *end,
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

/* "openssh-key-v1", cipher, kdf, its options, how many, public key, ... */
static int openssh(pp_identity *id, const pp_buf *b) {
  static const char magic[] = "openssh-key-v1"; /* its zero belongs to it */
  const unsigned char *p = b->data, *end, *cipher, *s;
  size_t ncipher, n;

  if (b->len < sizeof magic || memcmp(p, magic, sizeof magic) != 0)
    return PP_EBAD;
  end = p + b->len;
  p += sizeof magic;
  if (!counted(&p, end, &cipher, &ncipher) || !counted(&p, end, &s, &n) ||
      !counted(&p, end, &s, &n) || end - p < 4)
    return PP_EBAD;
  p += 4;
  if (!counted(&p, end, &s, &n) ||
      !pp_hostkey_type(s, n, id->type, sizeof id->type))
    return PP_EBAD;
  id->encrypted = ncipher != 4 || memcmp(cipher, "none", 4) != 0;
  id->blob.len = 0;
  return pp_buf_put(&id->blob, s, n);
}

/* --- private keys --------------------------------------------------------- */

int pp_identity_parse(pp_identity *id, const char *text, size_t len) {
  const char *p = text, *end = text + len;
  const char *type = "";
  pp_buf b = {0};
  int r;

  while (p < end && !begins(p, end, "-----BEGIN "))
    p = after_line(p, end);
  if (p == end)
    return PP_EBAD;
  text = p;
  p = after_line(p, end);
  id->exists = true;
  if (begins(text, end, "-----BEGIN ENCRYPTED PRIVATE KEY-----")) {
    id->encrypted = true;
    return 0;
  }
  if (begins(p, end, "Proc-Type: 4,ENCRYPTED")) {
    id->encrypted = true;
    r = 0;
  } else {
    r = body(p, end, &b);
  }
  if (r < 0)
    goto done;
  if (begins(text, end, "-----BEGIN OPENSSH PRIVATE KEY-----"))
    r = openssh(id, &b);
  else if (begins(text, end, "-----BEGIN RSA PRIVATE KEY-----"))
    type = "ssh-rsa";
  else if (begins(text, end, "-----BEGIN DSA PRIVATE KEY-----"))
    type = "ssh-dss";
  else if (begins(text, end, "-----BEGIN EC PRIVATE KEY-----"))
    type = b.len > 0 ? curve_of(&b) : "ecdsa-sha2";
  else if (begins(text, end, "-----BEGIN PRIVATE KEY-----"))
    type = has_oid(&b, "\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01")
               ? "ssh-rsa"
           : has_oid(&b, "\x06\x03\x2b\x65\x70")                 ? "ssh-ed25519"
           : has_oid(&b, "\x06\x07\x2a\x86\x48\xce\x3d\x02\x01") ? curve_of(&b)
                                                                 : "";
  else
    r = PP_EBAD;
  if (r == 0 && *type != '\0')
    snprintf(id->type, sizeof id->type, "%s", type);
done:
  if (b.data != NULL)
    explicit_bzero(b.data, b.len); /* it was a private key */
  pp_buf_clear(&b);
  id->exists = r == 0;
  return r;
}

/* --- public keys ---------------------------------------------------------- */

int pp_identity_parse_public(pp_identity *id, const char *text, size_t len) {
  const char *nl = len > 0 ? memchr(text, '\n', len) : NULL;
  const char *end = nl != NULL ? nl : text + len, *p = text, *key;
  char type[sizeof id->type];
  pp_buf b = {0};
  size_t n;
  int r;

  while (p < end && *p != ' ' && *p != '\t')
    p++;
  n = (size_t)(p - text);
  while (p < end && (*p == ' ' || *p == '\t'))
    p++;
  key = p;
  while (p<end && * p> ' ')
    p++;
  if (n == 0 || p == key)
    return PP_EBAD;
  r = pp_base64_decode(key, (size_t)(p - key), &b);
  if (r == 0 && (!pp_hostkey_type(b.data, b.len, type, sizeof type) ||
                 strlen(type) != n || memcmp(type, text, n) != 0))
    r = PP_EBAD;
  if (r < 0) {
    pp_buf_clear(&b);
    return r;
  }
  memcpy(id->type, type, sizeof type);
  pp_buf_clear(&id->blob);
  id->blob = b;
  return 0;
}

/* --- files ---------------------------------------------------------------- */

/* Append what is in a regular file. PP_ESYS when it cannot be read. */
static int slurp(const char *file, pp_buf *out) {
  int fd = open(file, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK), r = 0;
  struct stat st;
  ssize_t got;

  if (fd < 0)
    return PP_ESYS;
  if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))
    r = PP_ESYS;
  while (r == 0) {
    r = pp_buf_reserve(out, 4096);
    if (r < 0)
      break;
    got = read(fd, out->data + out->len, 4096);
    if (got < 0 && errno == EINTR)
      continue;
    if (got <= 0) {
      r = got < 0 ? PP_ESYS : 0;
      break;
    }
    out->len += (size_t)got;
    if (out->len > PP_IDENTITY_MAX)
      r = PP_ESYS;
  }
  close(fd);
  return r;
}

static int sibling(pp_buf *path, const char *file, const char *suffix) {
  int r;

  path->len = 0;
  r = pp_buf_put(path, file, strlen(file));
  return r == 0 ? pp_buf_put(path, suffix, strlen(suffix) + 1) : r;
}

int pp_identity_look(pp_identity *id, const char *file) {
  pp_buf text = {0}, path = {0};
  int r = slurp(file, &text);

  *id = (pp_identity){0};
  if (r == 0) {
    r = pp_identity_parse(id, (char *)text.data, text.len);
    if (r == PP_EBAD)
      r = pp_identity_parse_public(id, (char *)text.data, text.len);
  }
  if (text.data != NULL)
    explicit_bzero(text.data, text.len);
  text.len = 0;
  if (r != PP_ENOMEM && id->blob.len == 0) {
    r = sibling(&path, file, ".pub");
    if (r == 0)
      r = slurp((char *)path.data, &text);
    if (r == 0)
      r = pp_identity_parse_public(id, (char *)text.data, text.len);
  }
  if (r != PP_ENOMEM) {
    r = sibling(&path, file, "-cert.pub");
    id->has_cert = r == 0 && access((char *)path.data, R_OK) == 0;
  }
  pp_buf_clear(&text);
  pp_buf_clear(&path);
  if (r != PP_ENOMEM)
    return 0;
  pp_identity_clear(id);
  return r;
}

bool pp_identity_builtin(const char *type) {
  return strcmp(type, "ssh-ed25519") == 0 ||
         (strncmp(type, "ecdsa-sha2", 10) == 0 && strchr(type, '@') == NULL);
}

void pp_identity_clear(pp_identity *id) {
  pp_buf_clear(&id->blob);
  *id = (pp_identity){0};
}
