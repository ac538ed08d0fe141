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
  PP_F_BLOB = 1,     /* driver: code or a function parcel, by number */
  PP_F_DROP = 2,     /* driver: forget a blob */
  PP_F_JOB = 3,      /* driver: run this */
  PP_F_QUIT = 4,     /* driver: end when all before it is done */
  PP_F_CONFIG = 5,   /* driver: what goes for jobs that jobs submit */
  PP_F_CHILD = 6,    /* driver: how one of those ended */
  PP_F_SAID = 7,     /* driver: the answer to ASK */
  PP_F_MODULE = 8,   /* driver: the answer to WANT */
  PP_F_AGAIN = 9,    /* to an agent: BLOB without the bytes it has */
  PP_F_RELEASE = 10, /* driver: cargo that it needs no more */
  PP_F_RETOLD = 11,  /* to an agent: MODULE without the source it has */
  PP_F_FED = 12,     /* driver: the answer to FEED */
  PP_F_RESULT = 16,  /* worker: how a job ended */
  /* What follows is about jobs that a job submits. */
  PP_F_OWN_BLOB = 17, /* worker: a blob, by a number of its own */
  PP_F_OWN_DROP = 18, /* worker: forget that blob */
  PP_F_SUBMIT = 19,   /* worker: a job */
  PP_F_CANCEL = 20,   /* worker: end it */
  PP_F_WAIT = 21,     /* worker: a job begins or ceases to wait for others */
  PP_F_ASK = 22,      /* worker: a question, answered at once */
  PP_F_WANT = 23,     /* worker: the job it is at requires this module */
  PP_F_UNSEEN = 24,   /* worker: jobs of its job's failed and nobody asked */
  PP_F_FEED = 25,     /* worker: the command of its job wants more to read */
  PP_F_AFAR = 128     /* + JOB, BLOB, CHILD, RESULT, OWN_BLOB, SUBMIT: the rest
                         of the payload is cargo, and at its end is where */
};

/* Where cargo is: offset in the shared file, bytes, and bytes of the slot it is
 * in, which begins at a multiple of PP_REF_GRAIN below. */
#define PP_REF_AT 0
#define PP_REF_LEN 8
#define PP_REF_CAP 16
#define PP_REF_SIZE 24
#define PP_REF_GRAIN 65536u
static inline void pp_put_ref(unsigned char *p, uint64_t at, uint64_t len,
                              uint64_t cap) {
  pp_put64(p + PP_REF_AT, at);
  pp_put64(p + PP_REF_LEN, len);
  pp_put64(p + PP_REF_CAP, cap);
}

/* RELEASE: offset and bytes of a slot; 1: its memory is gone already. */
#define PP_RELEASE_CAP 8
#define PP_RELEASE_COLD 16
#define PP_RELEASE_SIZE 24

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
#define PP_JOB_MOST 36    /* of a chunk: most items to begin; 0: all */
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
                           the error, and the last unless KEEP; or
                           PP_ONE_EACH and one for each */
  PP_JOBF_SEEDED = 128, /* random numbers by seed and number */
  PP_JOBF_NOW = 256,    /* run it in the midst of the job that waits */
  PP_JOBF_BASE = 512,   /* run it in the base globals: a call of everywhere, and
                           the id is that call's number */
  PP_JOBF_QUIET = 1024, /* nobody wants its results: send none */
  PP_JOBF_INLINE = 64,  /* the function is the first argument: it shares
                           tables with the others */
  PP_JOBF_EACH = 32,    /* the items are packed one by one, each behind its
                           length: they share nothing */
  PP_JOBF_RANGE = 2048  /* the items are not there but these of their numbers:
                           first, step, how many come before, how many */
};
#define PP_ONE_EACH (-2)

/* WANT: sequence number of the job, then the name. MODULE: what there is, bytes
 * of the chunk name, hash of the source (low half first; 0 if there is none),
 * the chunk name, the source or text. */
#define PP_WANT_SEQ 0
#define PP_WANT_HEAD 4
#define PP_WANT_NAME_MAX 1024u
#define PP_MOD_STATUS 0
#define PP_MOD_NAME 4 /* bytes of the chunk name */
#define PP_MOD_HASH 8
#define PP_MOD_HEAD 24
enum {
  PP_MOD_FOUND,
  PP_MOD_NONE,  /* text: the files that were tried, a line each */
  PP_MOD_FAILED /* text: why it cannot be had */
};

/* FEED: sequence number of the job, zero, how many bytes it has had. FED: the
 * same number, 1 when there is no more, how many came before, then bytes. */
#define PP_FEED_SEQ 0
#define PP_FEED_HAD 8
#define PP_FEED_SIZE 16
#define PP_FED_SEQ 0
#define PP_FED_END 4
#define PP_FED_HAD 8
#define PP_FED_HEAD 16

/* Kinds of blobs. A setting is package.path, a zero byte, package.cpath. */
#define PP_BLOB_CODE 'c'
#define PP_BLOB_PARCEL 'f'
#define PP_BLOB_SETTING 's'
#define PP_BLOB_VALUE 'v'  /* put: opened once, shared */
#define PP_BLOB_RESULT 'r' /* a job's results: opened for each execution */
#define PP_BLOB_KEPT 'k'   /* a parcel or arguments: tables results name */
/* Custom values, by their first byte; the position of a blob follows. */
#define PP_CUSTOM_JOB 'J'
#define PP_CUSTOM_PUT 'P'
#define PP_CUSTOM_SERVER 'S' /* the running server */
#define PP_BLOB_NONE                                                           \
  UINT32_MAX /* the number of none, among those referred to */

/* RESULT: fixed part, then packed values, or an error: kind byte, message and
 * traceback as varint length and bytes, packed value (may be absent). */
#define PP_RES_SEQ 0
#define PP_RES_STATUS 4  /* PP_RES_FAILED and the like */
#define PP_RES_START 8   /* monotonic ns, the worker's clock */
#define PP_RES_RUN 16    /* ns */
#define PP_RES_CPU 24    /* ns */
#define PP_RES_RSS 32    /* peak resident bytes of the worker */
#define PP_RES_STDOUT 40 /* bytes written there since the worker began */
#define PP_RES_STDERR 48
#define PP_RES_HEAD 56
/* Its status: bit 0 an error; how many items failed (15 bits); how many were
 * begun, if not all of the chunk (16). */
#define PP_RES_ITEMS_FAILED(status) ((status) >> 1 & 0x7fff)
#define PP_RES_ITEMS_BEGUN(status) ((status) >> 16)
#define PP_CHUNK_MAX 32767u

/* CONFIG: of the server its jobs belong to. */
#define PP_CONF_NCPUS 0
#define PP_CONF_RETRIES 4
#define PP_CONF_TIMEOUT 8 /* ns; 0: none */
#define PP_CONF_MEMORY 16
#define PP_CONF_OUTPUT 24
#define PP_CONF_SIZE 32

/* SUBMIT: fixed part, then a JOB payload with the worker's own numbers of
 * blobs, and its own id for the job. */
#define PP_SUB_PARENT 0 /* sequence number of the job that submits */
#define PP_SUB_KEY 4    /* what the worker will know it by */
#define PP_SUB_RETRIES 8
#define PP_SUB_ERRORS 12  /* how many of its own errors to repeat */
#define PP_SUB_TIMEOUT 16 /* ns; 0: none */
#define PP_SUB_PRIORITY 24
#define PP_SUB_ITEMS 32
#define PP_SUB_SLOTS 36
#define PP_SUB_ON 40 /* bytes of `on`, which follow the head; 0: none */
#define PP_SUB_HEAD 44
#define PP_ON_MAX 65536 /* of these */

/* CANCEL: parent, key. */
#define PP_CANCEL_SIZE 8

/* WAIT: parent, begins or ceases, bytes written so far if output is kept by
 * job. */
#define PP_WAIT_ON 4
#define PP_WAIT_STDOUT 8
#define PP_WAIT_STDERR 16
#define PP_WAIT_SIZE 24
enum {
  PP_WAIT_NOT,    /* it goes on */
  PP_WAIT_BEGINS, /* it waits */
  PP_WAIT_DEEP    /* it waits, and no more jobs can run in its midst */
};

/* ASK: parent, key, what, token. SAID: token, value, and the node's name of
 * WORKER. */
#define PP_ASK_WHAT 8
#define PP_ASK_TOKEN 12
#define PP_ASK_SIZE 16
#define PP_SAID_VALUE 8
#define PP_SAID_SIZE 16
enum {
  PP_ASK_BEGUN = 1,  /* when was that job begun, ns? 0: not yet, 1: unknown */
  PP_ASK_CANCEL_ALL, /* cancel what has not: how many? */
  PP_ASK_WORKER,     /* which worker has begun that job? */
  PP_ASK_CUT /* cut that chunk short: items that stay there, 0: not yet */
};

/* CHILD: fixed part, then as in a RESULT, then what it wrote. */
#define PP_CHILD_PARENT 0
#define PP_CHILD_KEY 4
#define PP_CHILD_STATUS 8 /* as in a RESULT */
#define PP_CHILD_WORKER 12
#define PP_CHILD_ATTEMPTS 16
#define PP_CHILD_NODE                                                          \
  20 /* bytes of its node's name, which come first behind                      \
      */
#define PP_CHILD_START 24
#define PP_CHILD_RUN 32
#define PP_CHILD_CPU 40
#define PP_CHILD_RSS 48
#define PP_CHILD_SENT 56
#define PP_CHILD_RECEIVED 64
#define PP_CHILD_STDOUT 72 /* bytes of what it wrote there */
#define PP_CHILD_STDERR 80
#define PP_CHILD_ID 88 /* the worker's own id for it */
#define PP_CHILD_HEAD 96

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
