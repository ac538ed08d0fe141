/* SPDX-License-Identifier: MIT */
/*
 * wire: the frames between a driver and its workers (PROTOCOL.md has the
 * fields). A frame is an 8-byte header, type in the low byte and payload
 * length in the others, then the payload. Numbers are little-endian.
 */
#ifndef PP_WIRE_H
#define PP_WIRE_H

#include "buf.h"

#define PP_WIRE_VERSION 1
#define PP_FRAME_HEAD 8u
#define PP_FRAME_MAX ((uint64_t)1 << 48) /* longest payload */

enum pp_frame_type {
  PP_F_BLOB = 1,   /* driver: code or a function parcel, by number */
  PP_F_DROP = 2,   /* driver: forget a blob */
  PP_F_JOB = 3,    /* driver: run this */
  PP_F_QUIT = 4,   /* driver: end when all before it is done */
  PP_F_RESULT = 16 /* worker: how a job ended */
};

static inline void pp_frame_head(unsigned char *p, int type, uint64_t len) {
  pp_put64(p, len << 8 | (unsigned)type);
}

/* BLOB: id, kind, hash, ndeps, ids of deps (4 each), bytes. */
#define PP_BLOB_ID 0
#define PP_BLOB_KIND 4
#define PP_BLOB_HASH 8
#define PP_BLOB_NDEPS 24
#define PP_BLOB_HEAD 32

/* JOB: fixed part, then deps (4 each), then the names of modules to require
 * (varint length and bytes, each), then the packed arguments. */
#define PP_JOB_SEQ 0
#define PP_JOB_FN 4
#define PP_JOB_ATTEMPT 8
#define PP_JOB_FLAGS 12
#define PP_JOB_ID 16
#define PP_JOB_NDEPS 24
#define PP_JOB_EXTRA 28   /* bytes of the modules section */
#define PP_JOB_SETTING 32 /* number of its setting blob + 1, or 0 */
#define PP_JOB_MEMORY 40  /* most bytes its worker's Lua may hold; 0: any */
#define PP_JOB_SEED 48    /* if SEEDED: its server's seed */
#define PP_JOB_INDEX 56   /* of a chunk: its first item's, from 1 */
#define PP_JOB_HEAD 64

enum {
  PP_JOBF_AFRESH = 1,   /* the function captures what one run may change */
  PP_JOBF_CHUNK = 2,    /* call it once for each argument: first results */
  PP_JOBF_SPREAD = 4,   /* each of those is a list of arguments */
  PP_JOBF_KEEP = 8,     /* an error takes the place of its result */
  PP_JOBF_ALL = 16,     /* all results, behind their number; an error is -1 and
                           the error, and the last unless KEEP */
  PP_JOBF_SEEDED = 128, /* random numbers by seed and number */
  PP_JOBF_INLINE = 64,  /* the function is the first argument: it shares
                           tables with the others */
  PP_JOBF_EACH = 32     /* the items are packed one by one, each behind its
                           length: they share nothing */
};

/* Kinds of blobs. A setting is package.path, a zero byte, package.cpath. */
#define PP_BLOB_CODE 'c'
#define PP_BLOB_PARCEL 'f'
#define PP_BLOB_SETTING 's'

/* RESULT: fixed part, then packed values, or an error: kind byte, message and
 * traceback as varint length and bytes, packed value (may be absent). */
#define PP_RES_SEQ 0
#define PP_RES_STATUS 4  /* 1: an error; + 2 for each item that failed */
#define PP_RES_START 8   /* monotonic ns, the worker's clock */
#define PP_RES_RUN 16    /* ns */
#define PP_RES_CPU 24    /* ns */
#define PP_RES_RSS 32    /* peak resident bytes of the worker */
#define PP_RES_STDOUT 40 /* bytes written there since the worker began */
#define PP_RES_STDERR 48
#define PP_RES_HEAD 56

/* Kinds of failure, in the order of pp_kind_name. */
enum pp_kind {
  PP_KIND_ERROR,
  PP_KIND_TIMEOUT,
  PP_KIND_CANCELLED,
  PP_KIND_LOST,
  PP_KIND_UNSENDABLE,
  PP_KIND_MEMORY,
  PP_KIND_DESTROYED,
  PP_KIND_CONNECT,
  PP_KINDS
};
const char *pp_kind_name(int kind);

/* Append an error body without value. */
int pp_error_body(pp_buf *out, int kind, const char *msg, size_t msg_len,
                  const char *tb, size_t tb_len);

/* An error body read: borrowed strings. */
typedef struct pp_error_view {
  int kind;
  const char *msg, *tb;
  size_t msg_len, tb_len;
  const unsigned char *value; /* packed, may be empty */
  size_t value_len;
} pp_error_view;
int pp_error_parse(const void *bytes, size_t len, pp_error_view *out);

#endif
