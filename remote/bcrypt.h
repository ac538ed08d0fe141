/* SPDX-License-Identifier: MIT */
/*
 * bcrypt: the key derivation of encrypted OpenSSH key files (bcrypt_pbkdf).
 *
 * Slow on purpose: 16 rounds take a third of a second. To be called where
 * nothing waits.
 */
#ifndef PP_BCRYPT_H
#define PP_BCRYPT_H

#include <stddef.h>

/* Fill n bytes of key. 0; PP_EBAD for arguments it is not defined for (an empty
 * passphrase or salt, no rounds, more than 1024 bytes); PP_ENOMEM. */
int pp_bcrypt_pbkdf(const void *pass, size_t npass, const void *salt,
                    size_t nsalt, unsigned rounds, unsigned char *key,
                    size_t n);

#endif
