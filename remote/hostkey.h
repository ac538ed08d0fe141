/* SPDX-License-Identifier: MIT */
/*
 * hostkey: is this the host's key? Our own reading of known_hosts files.
 *
 * A line is [@cert-authority | @revoked] names keytype base64-key [comment].
 * names is comma separated, with the wildcards * and ?, and ! to exclude, or
 * one hashed name (|1|salt|hmac-sha1). A name with another port than 22 is
 * written [name]:port. A line that cannot be read is skipped, and only that.
 * Lines of a @cert-authority say nothing about plain keys. All as ssh does it.
 *
 * "Blob" is a public key as it is on the wire: a counted type name first.
 *
 *   pp_hostkey_query q = {.host = t->host, .port = t->port,
 *                         .alias = t->host_key_alias};
 *   pp_hostkeys known = {0};
 *   pp_hostkeys_load(&known, &q, &t->known_hosts)      -> before the handshake
 *   pp_hostkeys_types(&known, types, sizeof types)     -> which to ask for
 *   pp_hostkeys_check(&known, blob, n, &found)         -> after it
 *   pp_hostkey_decide(&found, t, has_terminal, blob, n, reason, size)
 *   pp_hostkey_add(...) if that said so; pp_hostkeys_clear(&known)
 */
#ifndef PP_HOSTKEY_H
#define PP_HOSTKEY_H

#include <stdbool.h>
#include <stddef.h>

#include "buf.h"
#include "target.h"

enum { PP_HOSTKEY_LINE_MAX = 64 << 10 }; /* bytes; a longer one is skipped */

/* Whom a key is to be known for. Borrowed. */
typedef struct pp_hostkey_query {
  const char *host; /* name or address connected to */
  int port;
  const char *alias; /* HostKeyAlias: stands for host and port; or NULL */
} pp_hostkey_query;

typedef enum pp_hostkey_marker {
  PP_MARK_NONE,
  PP_MARK_CA,
  PP_MARK_REVOKED,
} pp_hostkey_marker;

/* One line that speaks of the host. */
typedef struct pp_hostkey_line {
  size_t file;   /* which file, as counted by files */
  unsigned line; /* from 1 */
  unsigned char *blob;
  size_t len;
  pp_hostkey_marker marker;
  bool portless; /* it names the host without the port asked for */
} pp_hostkey_line;

/* The lines that speak of a host. Zeroed is empty. */
typedef struct pp_hostkeys {
  pp_hostkey_line *v;
  size_t n;
  pp_strings files; /* the names of all files looked at */
} pp_hostkeys;

typedef enum pp_hostkey_verdict {
  PP_HOSTKEY_UNKNOWN, /* nothing is known of this host */
  PP_HOSTKEY_OK,
  PP_HOSTKEY_CHANGED, /* other keys are known, this is none of them */
  PP_HOSTKEY_REVOKED,
} pp_hostkey_verdict;

typedef struct pp_hostkey_found {
  pp_hostkey_verdict verdict;
  const char *file; /* borrowed from the pp_hostkeys; NULL when unknown */
  unsigned line;    /* where the key that decided stands */
} pp_hostkey_found;

typedef enum pp_hostkey_decision {
  PP_HOSTKEY_REFUSE,
  PP_HOSTKEY_ACCEPT,
  PP_HOSTKEY_ACCEPT_ADD,  /* accept, and pp_hostkey_add to the first file */
  PP_HOSTKEY_ACCEPT_WARN, /* accept, log the reason, and send no password */
  PP_HOSTKEY_ASK,         /* a human decides: yes is ACCEPT_ADD */
} pp_hostkey_decision;

/* Gather from the text of one file. 0 or PP_ENOMEM (nothing has changed). */
int pp_hostkeys_parse(pp_hostkeys *k, const pp_hostkey_query *q,
                      const char *file, const char *text, size_t len);

/* Gather from files. One that does not exist or cannot be read holds nothing,
 * as in ssh. 0 or PP_ENOMEM. */
int pp_hostkeys_load(pp_hostkeys *k, const pp_hostkey_query *q,
                     const pp_strings *files);

void pp_hostkeys_clear(pp_hostkeys *k);

void pp_hostkeys_check(const pp_hostkeys *k, const void *blob, size_t len,
                       pp_hostkey_found *found);

/* Types of the plain keys known for the host, comma separated, each once and in
 * the order of the files: "ssh-ed25519,ssh-rsa". Empty when nothing is known
 * (or only of a @cert-authority). What does not fit is left out. Returns how
 * many there are. To be preferred in the handshake: with others a known host
 * would show a key that nobody knows. */
size_t pp_hostkeys_types(const pp_hostkeys *k, char *out, size_t size);

/* A @cert-authority speaks for the host: the ssh program may trust it even
 * when it is unknown here. */
bool pp_hostkeys_has_ca(const pp_hostkeys *k);

/* StrictHostKeyChecking at work. reason gets one line (empty for ACCEPT), that
 * names file and line where there is one: "host key changed: ed25519
 * SHA256:... is not the key in /home/u/.ssh/known_hosts:3". */
pp_hostkey_decision pp_hostkey_decide(const pp_hostkey_found *found,
                                      const pp_target *t, bool has_terminal,
                                      const void *blob, size_t len,
                                      char *reason, size_t size);

/*
 * Append the key to a file: in one write under a lock, after a newline if the
 * last line had none. The file is made (mode 0600) when missing, and so is its
 * directory (0700), not that one's parent. 0, PP_ESYS with errno, PP_EBAD for
 * a blob that is no key, PP_ENOMEM.
 */
int pp_hostkey_add(const char *file, const pp_hostkey_query *q,
                   const void *blob, size_t len, bool hashed);

/* "SHA256:..." as ssh prints it. size must be 64 or more. */
void pp_hostkey_fingerprint(const void *blob, size_t len, char *out,
                            size_t size);

/* The type of a blob: "ssh-ed25519"; false when it is no key. Bounded and
 * printable. out of 64 bytes is enough for all. */
bool pp_hostkey_type(const void *blob, size_t len, char *out, size_t size);

/* How a type is called in messages: "ed25519", "ecdsa", "rsa"; itself when it
 * has no short name. */
const char *pp_hostkey_short_type(const char *type);

/* Whether this connection goes to this machine itself, where
 * t->trust_localhost makes every key good: a loopback address. */
bool pp_hostkey_is_loopback(const void *sockaddr);

#endif
