/* SPDX-License-Identifier: MIT */
/* What the codec does, shown by round trips between two interpreters. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codec_support.h"

static int failures, checks;

static void verdict(const char *name, bool ok, const char *why) {
  checks++;
  if (!ok)
    failures++;
  if (!ok || getenv("VERBOSE") != NULL)
    printf("%s %s%s%s\n", ok ? "ok    " : "not ok", name, ok ? "" : ": ",
           ok ? "" : why);
}

static int handler(lua_State *L) {
  luaL_traceback(L, L, luaL_tolstring(L, 1, NULL), 1);
  return 1;
}

/* The source runs in the submitter and must not raise. */
static void check(const char *name, const char *source) {
  static const char prelude[] =
      "local T = T\n"
      "local function same(a, b) assert(rawequal(a, b), tostring(a) .. ' is "
      "not ' .. tostring(b)) end\n"
      "local function refused(want, v, msg, code)\n"
      " same(v, nil) assert(msg == want, 'got: ' .. tostring(msg)) end\n";
  char *text = malloc(sizeof prelude + strlen(source) + 1);
  pair p;
  const char *why;

  strcpy(text, prelude);
  strcat(text, source);
  pair_open(&p);
  lua_pushcfunction(p.submitter, handler);
  if (luaL_loadbuffer(p.submitter, text, strlen(text), "@test.lua") ||
      lua_pcall(p.submitter, 0, 0, 1))
    why = lua_tostring(p.submitter, -1);
  else
    why = NULL;
  verdict(name, why == NULL, why);
  if (lua_gettop(p.worker) != 0)
    verdict(name, false, "the worker's stack has grown");
  if (pair_close(&p) != 0)
    verdict(name, false, "blobs leaked");
  if (fail_c.live != 0) {
    verdict(name, false, "memory leaked");
    fail_c.live = 0;
  }
  free(text);
}

/* --- speed -------------------------------------------------------------- */

static double since(int64_t start, int n) {
  return (double)(pp_now_ns() - start) / n;
}

static void bench(void) {
  enum { N = 1000000, FEW = 100000 };
  pair p;
  pp_buf out = {0};
  pp_parcel parcel;
  pp_code *codes;
  lua_State *L, *W;
  int64_t start;
  int i;

  pair_open(&p);
  L = p.submitter, W = p.worker;
  if (luaL_dostring(L,
                    "function isprime(n) for i = 2, math.floor(n^0.5) do if n "
                    "% i == 0 then return false end end return true end\n"
                    "function sum_primes(n) local s = 0 for i = 2, n do if "
                    "isprime(i) then s = s + i end end return s end\n"))
    abort();
  lua_settop(L, 0);
  for (i = 1; i <= 3; i++)
    lua_pushinteger(L, i * 1000);
  start = pp_now_ns();
  for (i = 0; i < N; i++) {
    out.len = 0;
    pp_codec_pack(p.sc, L, 1, 3, "argument", &out, NULL);
    lua_settop(L, 3);
  }
  printf("pack 3 integers          %8.1f ns\n", since(start, N));
  start = pp_now_ns();
  for (i = 0; i < N; i++) {
    pp_codec_unpack(p.wc, W, out.data, out.len, NULL, 0);
    lua_settop(W, 0);
  }
  printf("unpack 3 integers        %8.1f ns\n", since(start, N));

  lua_settop(L, 0);
  if (luaL_dostring(L, "return {1, 2, 3, name = 'x', value = 2.5}, 'text'"))
    abort();
  start = pp_now_ns();
  for (i = 0; i < FEW; i++) {
    out.len = 0;
    pp_codec_pack(p.sc, L, 1, 2, "argument", &out, NULL);
    lua_settop(L, 2);
  }
  printf("pack table of 5, string  %8.1f ns\n", since(start, FEW));
  start = pp_now_ns();
  for (i = 0; i < FEW; i++) {
    pp_codec_unpack(p.wc, W, out.data, out.len, NULL, 0);
    lua_settop(W, 0);
  }
  printf("unpack the same          %8.1f ns\n", since(start, FEW));
  lua_settop(L, 0);
  if (luaL_dostring(L, "local t = {} for i = 1, 100000 do t[i] = i + 0.5 end "
                       "return t"))
    abort();
  start = pp_now_ns();
  for (i = 0; i < 20; i++) {
    out.len = 0;
    pp_codec_pack(p.sc, L, 1, 1, "argument", &out, NULL);
    lua_settop(L, 1);
  }
  printf("pack array, per element  %8.1f ns\n", since(start, 2000000));
  start = pp_now_ns();
  for (i = 0; i < 20; i++) {
    pp_codec_unpack(p.wc, W, out.data, out.len, NULL, 0);
    lua_settop(W, 0);
  }
  printf("unpack it, per element   %8.1f ns\n", since(start, 2000000));
  pp_buf_clear(&out);

  lua_settop(L, 0);
  lua_getglobal(L, "sum_primes");
  start = pp_now_ns();
  for (i = 0; i < N; i++) {
    pp_codec_function(p.sc, L, 1, 0, &parcel);
    p.blobs->refs--;
    lua_settop(L, 1);
  }
  printf("sum_primes, cached       %8.1f ns\n", since(start, N));
  start = pp_now_ns();
  for (i = 0; i < FEW / 10; i++) {
    if (luaL_dostring(L, "local k = ... return function(n) return n + 1, "
                         "isprime(n) end"))
      abort();
    pp_codec_function(p.sc, L, 2, 0, &parcel);
    parcel.blob->refs--;
    lua_settop(L, 1);
  }
  printf("new closure and compile  %8.1f ns\n", since(start, FEW / 10));
  pp_codec_function(p.sc, L, 1, 0, &parcel);
  codes = codes_of(parcel.blob->deps, parcel.blob->ndeps);
  start = pp_now_ns();
  for (i = 0; i < FEW; i++) {
    pp_codec_open(p.wc, W, parcel.blob->bytes, parcel.blob->len, codes,
                  parcel.blob->ndeps);
    lua_settop(W, 0);
  }
  printf("open                     %8.1f ns\n", since(start, FEW));
  pp_codec_open(p.wc, W, parcel.blob->bytes, parcel.blob->len, codes,
                parcel.blob->ndeps);
  lua_newtable(W);
  start = pp_now_ns();
  for (i = 0; i < N; i++) {
    pp_codec_bind(p.wc, W, 3, 2);
    pp_codec_unbind(p.wc, W);
  }
  printf("bind, unbind: isprime    %8.1f ns\n", since(start, N));
  start = pp_now_ns();
  for (i = 0; i < N; i++) {
    pp_codec_bind(p.wc, W, 3, 0);
    pp_codec_unbind(p.wc, W);
  }
  printf("bind, unbind: nothing    %8.1f ns\n", since(start, N));
  free(codes);
  parcel.blob->refs--;
  lua_settop(W, 0);
  pair_close(&p);
}

int main(int argc, char **argv) {
  failing_start();
  setvbuf(stdout, NULL, _IOLBF, 0);
  if (argc > 1 && strcmp(argv[1], "--bench") == 0) {
    bench();
    return 0;
  }
#include "codec_cases.h"
  printf("%d checks, %d failed\n", checks, failures);
  return failures > 0;
}
