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

/* --- without memory ----------------------------------------------------- */

/* One job with everything in it; every allocation from here on can fail. 0 or
 * the error. */
static int whole_job(pair *p, int fn, int args) {
  lua_State *L = p->submitter, *W = p->worker;
  int top = lua_gettop(L), wtop = lua_gettop(W), rc, n;
  pp_buf out = {0}, back = {0};
  pp_deps deps = {0};
  pp_parcel parcel = {0};
  pp_code *codes = NULL, *fcodes = NULL;

  rc = pp_codec_function(p->sc, L, fn, 0, &parcel);
  if (rc < 0)
    goto done;
  rc = pp_codec_pack(p->sc, L, args, 1, "argument", &out, &deps);
  if (rc < 0)
    goto done;
  codes = codes_of(deps.v, deps.n);
  fcodes = codes_of(parcel.blob->deps, parcel.blob->ndeps);
  rc = pp_codec_open(p->wc, W, parcel.blob->bytes, parcel.blob->len, fcodes,
                     parcel.blob->ndeps);
  if (rc < 0)
    goto done;
  rc = pp_codec_bind(p->wc, W, 1, wtop + 2);
  if (rc < 0)
    goto done;
  lua_pushvalue(W, wtop + 1);
  n = pp_codec_unpack(p->wc, W, out.data, out.len, codes, deps.n);
  if (n < 0) {
    rc = n;
  } else {
    rc = lua_pcall(W, n, 1, 0) == LUA_OK ? 0 : PP_ENOMEM;
    if (rc == 0)
      rc = pp_codec_pack(p->wc, W, lua_gettop(W), 1, "result", &back, NULL);
    else if (!strstr(lua_tostring(W, -1), "not enough memory"))
      rc = PP_EBAD;
  }
  pp_codec_unbind(p->wc, W);
  if (rc == 0)
    rc = pp_codec_unpack(p->sc, L, back.data, back.len, NULL, 0);
  if (rc > 0)
    rc = 0;
done:
  if (rc < 0) {
    const char *m = lua_tostring(L, -1);

    if (m == NULL || !strstr(m, "memory"))
      m = lua_tostring(W, -1);
    if (m != NULL && rc != PP_ENOMEM)
      printf("# %d %s\n", rc, m);
  }
  lua_settop(L, top);
  lua_settop(W, wtop);
  free(codes);
  free(fcodes);
  pp_deps_clear(p->sc, &deps);
  pp_buf_clear(&out);
  pp_buf_clear(&back);
  if (parcel.blob != NULL)
    store_release(p, parcel.blob);
  return rc;
}

static const char heavy[] =
    "Account = {} Account.__index = Account\n"
    "function Account.new(b) return setmetatable({b = b}, Account) end\n"
    "function string.trim(s) return (s:gsub('^%s+', '')) end\n"
    "helper_data = {1, 2, {x = 'y'}, text = ('long'):rep(30)}\n"
    "print = nil\n"
    "local n, G = 0, _G\n"
    "local function helper(v) n = n + 1 return helper_data[v] end\n"
    "function job(a) print = print G.zzz = 1 local r = Account.new(helper(1))\n"
    " r.s = ('  x'):trim() r.f = function() return n, a end r.a = a return r "
    "end\n"
    "arg1 = {Account.new(3), job and 1, {}, {[{}] = 1}, ('s'):rep(60),\n"
    " function(x) return x, helper_data end}\n"
    "function light(a) return math.floor(a), isprime end\n"
    "function isprime() end number = 3\n";

static void fail_each(const char *name, failing *f, const char *fn,
                      const char *arg, bool fresh) {
  pair p;
  long n;
  int rc = PP_ENOMEM, i;

  for (n = 0; rc != 0 && n < 100000; n++) {
    if (n == 0 || fresh) {
      pair_open(&p);
      if (luaL_dostring(p.submitter, heavy))
        abort();
      lua_settop(p.submitter, 0);
      lua_getglobal(p.submitter, fn);
      lua_getglobal(p.submitter, arg);
      lua_newtable(p.worker);
      lua_newtable(p.worker);
      lua_pushvalue(p.worker, LUA_REGISTRYINDEX);
      lua_rawgeti(p.worker, -1, LUA_RIDX_GLOBALS);
      lua_setfield(p.worker, -3, "__index");
      lua_pop(p.worker, 1);
      lua_setmetatable(p.worker, 1);
    }
    f->left = n;
    rc = whole_job(&p, 1, 2);
    f->left = -1;
    if (rc != 0 && rc != PP_ENOMEM) {
      verdict(name, false, "another error than PP_ENOMEM");
      rc = 0;
    } else if (rc != 0) {
      for (i = 0; i < 2; i++)
        if (whole_job(&p, 1, 2) != 0)
          verdict(name, false, "not usable after a failure");
    }
    if (rc == 0 || fresh) {
      if (pair_close(&p) != 0)
        verdict(name, false, "blobs leaked");
      if (fail_c.live != 0)
        verdict(name, false, "memory leaked");
      fail_c.live = 0;
    }
  }
  verdict(name, rc == 0, "never got through");
  if (getenv("VERBOSE") != NULL)
    printf("# %ld failures\n", n - 1);
}

static void without_memory(void) {
  fail_each("C memory fails, heavy job", &fail_c, "job", "arg1", true);
  fail_each("C memory fails, light job", &fail_c, "light", "number", true);
  fail_each("Lua memory fails, heavy job", &fail_lua, "job", "arg1", true);
  fail_each("Lua memory fails, warm", &fail_lua, "job", "arg1", false);
  fail_each("Lua memory fails, light job", &fail_lua, "light", "number", true);
}

/* --- a job that submits ------------------------------------------------- */

static unsigned flags_of(pair *p, pp_codec *c, const char *source) {
  lua_State *W = p->worker;
  pp_parcel parcel = {0};
  unsigned flags = 99;

  if (luaL_dostring(W, source) == LUA_OK &&
      pp_codec_function(c, W, -1, 0, &parcel) == 0) {
    flags = parcel.flags;
    store_release(p, parcel.blob);
  } else {
    printf("# %s\n", lua_tostring(W, -1));
  }
  lua_settop(W, 1);
  return flags;
}

static void nested(void) {
  pair p;
  pp_codec_hooks h;
  pp_codec *c;
  lua_State *W;

  pair_open(&p);
  h = store_hooks(&p);
  W = p.worker;
  c = pp_codec_new(W, PP_CODEC_SUBMITTER, &h);
  lua_newtable(W);
  lua_createtable(W, 0, 1);
  lua_rawgeti(W, LUA_REGISTRYINDEX, LUA_RIDX_GLOBALS);
  lua_setfield(W, -2, "__index");
  lua_setmetatable(W, 1);
  pp_codec_bind(p.wc, W, 1, 0);
  verdict(
      "a job's globals hide no standard ones",
      flags_of(&p, c, "return function() return print, math.floor(1) end") == 0,
      "flags");
  verdict("a job's own globals are found",
          flags_of(&p, c,
                   "x = 1 function helper() return print, x end "
                   "return function() return helper() end") == PP_PARCEL_BINDS,
          "flags");
  pp_codec_unbind(p.wc, W);
  lua_settop(W, 0);
  lua_gc(W, LUA_GCCOLLECT, 0);
  lua_gc(W, LUA_GCCOLLECT, 0);
  verdict("its blobs go too", p.blobs == NULL, "blobs leaked");
  pp_codec_free(c);
  if (pair_close(&p) != 0 || fail_c.live != 0)
    verdict("a job that submits", false, "memory leaked");
  fail_c.live = 0;
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
  without_memory();
  nested();
  printf("%d checks, %d failed\n", checks, failures);
  return failures > 0;
}
