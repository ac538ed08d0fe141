/* SPDX-License-Identifier: MIT */
/*
 * identity: what a private key file holds, without opening it with a
 * passphrase.
 *
 * Tells keys the built-in client can use from those that need the ssh program
 * before anything is connected, and which key of the agent is meant by a file.
 */
#ifndef PP_IDENTITY_H
#define PP_IDENTITY_H

#include <stdbool.h>
#include <stddef.h>

#include "buf.h"
#include "target.h"

enum { PP_IDENTITY_MAX = 64 << 10 }; /* bytes of a key file */

typedef struct pp_identity {
  bool exists;    /* a private key is there and can be read */
  bool encrypted; /* a passphrase must be asked for */
  bool has_cert;  /* there is a FILE-cert.pub, which ssh would use */
  char type[64];  /* "ssh-ed25519"; "ecdsa-sha2" when the curve cannot be told;
                     "" when nothing can */
  pp_buf blob;    /* the public key, from the file or from FILE.pub; empty when
                     neither has it */
} pp_identity;

/* What the text of a private key file says; id is empty before, and may be half
 * filled on failure. 0, PP_EBAD when it is none that is known, PP_ENOMEM. */
int pp_identity_parse(pp_identity *id, const char *text, size_t len);

/* The type and blob of a line "ssh-ed25519 AAAA... comment". As above, but
 * exists is left as it is. */
int pp_identity_parse_public(pp_identity *id, const char *text, size_t len);

/* Look at FILE, FILE.pub and FILE-cert.pub. FILE itself may be a public key,
 * whose other half an agent has. 0 or PP_ENOMEM; what is not there, not
 * readable or no key is not an error. */
int pp_identity_look(pp_identity *id, const char *file);

/* Can libssh2 (1.10 and later) sign with such a key? False for "". */
bool pp_identity_builtin(const char *type);

void pp_identity_clear(pp_identity *id);

#endif
