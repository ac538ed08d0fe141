/* SPDX-License-Identifier: MIT */
/*
 * message: what packed values say of themselves without being opened: the code
 * and the tables that are named in them and must be known to whoever opens
 * them. See "Names" in VALUES.md. No Lua.
 */
#ifndef PP_MESSAGE_H
#define PP_MESSAGE_H

#include "buf.h"
#include "hash.h"

/* First byte of a message. */
enum {
  MSG_REFS = 1,  /* has back references: number the objects */
  MSG_BINDS = 2, /* a section of bindings follows the values */
  MSG_PLAIN = 4, /* numbers, booleans and nils only: cannot run out of memory */
  MSG_NAMES = 8, /* a section of names is at the end */
  MSG_FORMAT = 0x50, /* the other bits */
  MSG_FLAGS = 0x0f
};

/* Bytes of the string, if a message of so many bytes is one, of some megabytes,
 * by itself; 0: it cannot be. They are its last. */
static inline size_t pp_message_lone(size_t len) {
  for (unsigned k = 4; k < 9; k++) { /* bytes of its length */
    size_t n = len - 3 - k;

    if (len > 3 + k && n >> 7 * (k - 1) > 0 && n >> 7 * k == 0)
      return n;
  }
  return 0;
}

/* Borrowed from the message. */
typedef struct pp_names {
  const unsigned char *hashes, *ids; /* 16 bytes each, 8 bytes each */
  size_t nhashes, nids;
  size_t len; /* of the section at the message's end */
} pp_names;

/* The names in a message (none is no error), or PP_EBAD. */
int pp_message_names(const void *bytes, size_t len, pp_names *out);
static inline pp_hash pp_message_hash(const pp_names *n, size_t i) {
  pp_hash h = {pp_get64(n->hashes + 16 * i), pp_get64(n->hashes + 16 * i + 8)};

  return h;
}
static inline uint64_t pp_message_id(const pp_names *n, size_t i) {
  return pp_get64(n->ids + 8 * i);
}

/* Append the section: hashes and ids as they are in memory. */
int pp_message_put_names(pp_buf *out, const pp_buf *hashes, const pp_buf *ids);

#endif
