/* SPDX-License-Identifier: MIT */
/*
 * codec_support: a submitter and a worker in one process, joined by a store of
 * blobs in memory, and ways to make allocations fail. For tests and fuzzers.
 */
#ifndef PP_CODEC_SUPPORT_H
#define PP_CODEC_SUPPORT_H

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

#include "codec.h"

/* pp_blob of these hooks. */
struct pp_blob {
  int refs, kind;
  pp_hash hash;
  unsigned char *bytes;
  size_t len;
  pp_blob **deps;
  size_t ndeps;
  pp_blob *next;
};

typedef struct pair {
  lua_State *submitter, *worker;
  pp_codec *sc, *wc;
  pp_blob *blobs; /* all that have references */
  long interned;  /* calls that made a new one */
  bool forget;    /* hooks.code finds nothing */
} pair;

/* Open both sides. The submitter has a global table T: see codec_support.c. */
void pair_open(pair *p);
/* Close them; how many blobs were left with references (leaks). */
int pair_close(pair *p);

pp_codec_hooks store_hooks(pair *p);
void store_release(pair *p, pp_blob *b);

/* The codes of a blob's dependencies, for open and unpack; free(3) it. */
pp_code *codes_of(pp_blob *const *deps, size_t n);

/* Set `left` to n and the allocation after the next n fails, and so do all
 * after it until `left` is negative again. C memory of ppsh (hooks.intern
 * too) and memory of both Lua states are counted apart. */
typedef struct failing {
  long left; /* calls until it fails; negative: never */
  long calls, live;
} failing;
extern failing fail_c, fail_lua;
void failing_start(void); /* installs pp_buf_realloc */
void *failing_lua_alloc(void *ud, void *p, size_t old, size_t size);

#endif
