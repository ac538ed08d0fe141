/* SPDX-License-Identifier: MIT */
/*
 * Any bytes at both decoders: they are refused, or what they give can be sent
 * again and comes back.
 *   clang -fsanitize=fuzzer,address,undefined ... fuzz_values.c
 *   gcc -DPP_FUZZ_REPLAY ...  replays the files named
 */
#include <stdio.h>
#include <stdlib.h>

#include "codec_support.h"
#include "message.h"
#include "plain.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static pair p;
static int uses;

/* Functions need code: the submitter sends these, the worker is given them. */
static pp_parcel parcel;
static pp_code *codes;

static void start(void) {
  pair_open(&p);
  if (luaL_dostring(p.submitter,
                    "local n = 1 function helper() n = n + 1 return n end\n"
                    "function job(a) return function(b) return helper(), a, b "
                    "end end") ||
      luaL_dostring(p.worker, "package.path, package.cpath = '', ''"))
    abort();
  lua_getglobal(p.submitter, "job");
  if (pp_codec_function(p.sc, p.submitter, -1, 0, &parcel) < 0)
    abort();
  lua_settop(p.submitter, 0);
  lua_settop(p.worker, 0);
  codes = codes_of(parcel.blob->deps, parcel.blob->ndeps);
}

static void stop(void) {
  store_release(&p, parcel.blob);
  free(codes);
  if (pair_close(&p) != 0)
    abort();
}

static void try(pp_codec *c, lua_State *L, const uint8_t *data, size_t size,
                size_t ncodes) {
  pp_buf again = {0};
  pp_deps deps = {0};
  int n = pp_codec_unpack(c, L, data, size, codes, ncodes);

  if (n < 0) {
    if (lua_gettop(L) < 1 || !lua_isstring(L, -1))
      abort();
  } else if (pp_codec_pack(c, L, lua_gettop(L) - n + 1, n, "value", &again,
                           &deps) == 0) {
    lua_pop(L, 1 + n);
    if (ncodes == 0 && !(again.data[0] & 2) &&
        pp_codec_unpack(c, L, again.data, again.len, NULL, 0) != n &&
        deps.n == 0)
      abort();
  }
  pp_buf_clear(&again);
  pp_deps_clear(c, &deps);
  lua_settop(L, 0);
}

/* Whatever is said to be named is in the message. */
static void read_names(const uint8_t *data, size_t size) {
  static volatile uint64_t seen;
  uint64_t sum = 0;
  pp_names names;

  if (pp_message_names(data, size, &names) < 0)
    return;
  if (names.len > size)
    abort();
  for (size_t i = 0; i < names.nhashes; i++)
    sum += pp_message_hash(&names, i).hi;
  for (size_t i = 0; i < names.nids; i++)
    sum += pp_message_id(&names, i);
  seen = sum; /* all of it was read */
  (void)seen;
}

/* The text of a block of lines is where the message is, and nothing is left on
 * the stack beside the other value. */
static void read_text(lua_State *L, const uint8_t *data, size_t size) {
  const char *from = (const char *)data;
  pp_text text;

  if (pp_plain_text(L, data, size, &text)) {
    if (text.s < from || text.len > size ||
        (size_t)(text.s - from) > size - text.len || !lua_isinteger(L, -1))
      abort();
    lua_pop(L, 1);
  }
  if (lua_gettop(L) != 0)
    abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  lua_State *W;

  if (uses++ == 0)
    start();
  read_names(data, size);
  read_text(p.submitter, data, size);
  W = p.worker;
  try(p.sc, p.submitter, data, size, 0);
  lua_newtable(W);
  if (pp_codec_bind(p.wc, W, 1, 0) < 0)
    abort();
  try(p.wc, W, data, size, parcel.blob->ndeps);
  if (pp_codec_unpack(p.wc, W, data, size, codes, parcel.blob->ndeps) >= 0)
    pp_codec_settle(p.wc, W); /* another worker's results */
  lua_settop(W, 1);
  if (pp_codec_open_value(p.wc, W, data, size, codes, parcel.blob->ndeps) ==
      0) {
    if (lua_gettop(W) != 3 || pp_codec_install(p.wc, W, 3, false) < 0)
      abort();
    pp_codec_kept(W, 3);
  }
  lua_settop(W, 1);
  pp_codec_unbind(p.wc, W);
  lua_settop(W, 0);
  if (pp_codec_open(p.wc, W, data, size, codes, parcel.blob->ndeps) == 0) {
    lua_newtable(W);
    if (pp_codec_bind(p.wc, W, 3, 2) < 0)
      abort();
    pp_codec_unbind(p.wc, W);
  }
  lua_settop(W, 0);
  if (uses == 2000) {
    stop();
    uses = 0;
  }
  return 0;
}

#ifdef PP_FUZZ_REPLAY
#include "fuzz_replay.h"
#endif
