/* SPDX-License-Identifier: MIT */
/*
 * keys: private key files, opened once and used for every host.
 *
 * Reads OpenSSH's own format and PEM. A passphrase is asked for at the terminal
 * when the key is first to sign something, and worked upon in a thread; what
 * nobody could open stays closed and is not asked for again. ed25519 and ecdsa
 * keys can sign; others are for the ssh program.
 */
#ifndef PP_KEYS_H
#define PP_KEYS_H

#include <stdbool.h>
#include <uv.h>

#include "ask.h"
#include "buf.h"

typedef struct pp_keys pp_keys;
typedef struct pp_key_file pp_key_file;

typedef enum pp_key_state {
  PP_KEY_OPEN,
  PP_KEY_WAITING, /* for the passphrase, or for what is done with it */
  PP_KEY_FAILED,
} pp_key_state;

/* One that waits for a key. Zeroed is not waiting. */
typedef struct pp_key_wait {
  pp_key_file *file;
  struct pp_key_wait *prev, *next;
  void (*ready)(void *ud, pp_key_state state); /* open or failed */
  void *ud;
} pp_key_wait;

/* NULL when memory is short. ask is borrowed. */
pp_keys *pp_keys_new(uv_loop_t *loop, pp_ask *ask);
/* Nobody waits. closed(ud) once no thread works for it. Keys are wiped. */
void pp_keys_close(pp_keys *k, void (*closed)(void *ud), void *ud);

/*
 * Make the key of a file usable. PP_KEY_WAITING: ready is called later, from
 * the loop, unless pp_keys_stop_waiting comes first. may_ask false: no question
 * is put, an encrypted key that is not open yet fails this once.
 */
pp_key_state pp_keys_open(pp_keys *k, const char *path, bool may_ask,
                          pp_key_wait *wait,
                          void (*ready)(void *ud, pp_key_state state),
                          void *ud);
void pp_keys_stop_waiting(pp_key_wait *wait);

/* Why it failed, one line: "needs a passphrase". Never NULL. */
const char *pp_keys_why(pp_keys *k, const char *path);
/* It failed because the user gave up the question. */
bool pp_keys_cancelled(pp_keys *k, const char *path);

/* The public key, on the wire's form; NULL when it is not open. */
const pp_buf *pp_keys_blob(pp_keys *k, const char *path);

/* Append the signature, without its counted type in front: 64 bytes of ed25519,
 * two mpints of ecdsa. 0, PP_EBAD when the key is not open, PP_ENOMEM. */
int pp_keys_sign(pp_keys *k, const char *path, const void *data, size_t n,
                 pp_buf *out);

/* For the ssh program, which opens keys itself: a passphrase given for a file
 * earlier, or NULL; and to keep one. Wiped when all is closed. */
const char *pp_keys_passphrase(pp_keys *k, const char *path);
void pp_keys_remember(pp_keys *k, const char *path, const char *passphrase);

/* --- without a cache (key_read.c) ------------------------------------------
 */

typedef struct pp_key {
  void *pkey;  /* an EVP_PKEY, owned */
  pp_buf blob; /* the public key */
} pp_key;

enum {
  PP_KEY_NEEDS_PASSPHRASE = 1, /* none was given, or a wrong one */
};

/* Read the text of a key file. 0; PP_KEY_NEEDS_PASSPHRASE; PP_EBAD with *why,
 * a constant; PP_ENOMEM. Blocks for as long as the passphrase takes. */
int pp_key_read(pp_key *key, const void *text, size_t n, const char *passphrase,
                const char **why);
int pp_key_sign(const pp_key *key, const void *data, size_t n, pp_buf *out);
void pp_key_clear(pp_key *key);

#endif
