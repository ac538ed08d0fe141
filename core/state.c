/* SPDX-License-Identifier: MIT */
#include "state.h"

#include <lauxlib.h>
#include <lualib.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base.h"
#include "blocks.h"
#include "embed.h"

/*
 * Small blocks that were freed are kept for the next of that size, a megabyte
 * of them in all: a program that makes strings and lets them go has them from
 * here, at a fraction of what malloc and free cost. A block has the size of its
 * class, of which there is one for each sixteen bytes.
 */
#define SMALL_CLASSES 17
#define SMALL_MOST 264 /* bytes */
#define SMALL_KEPT ((size_t)1 << 20)

typedef struct small {
  struct small *next;
} small;

/* The allocator's userdata: what belongs to one state and lies outside it. */
typedef struct outside {
  pp_memory memory; /* first: pp_state_memory hands out its address */
  small *smalls[SMALL_CLASSES];
  size_t kept;                 /* bytes of those */
  pp_blocks *blocks;           /* a reference */
  size_t expected;             /* bytes of large strings since then: */
  int64_t collecting;          /* ns it took to collect all, the last time */
  size_t string_at;            /* where in its block a long string's bytes are;
                                  0: not known */
  unsigned char *lent;         /* block of a string to be; NULL: none */
  size_t lent_len;             /* bytes of the string */
  bool offered;                /* that string is being made */
  bool leaves;                 /* large blocks are not freed any more */
  lua_State *main;             /* NULL until made */
  lua_State *volatile *slot;   /* pp_state_at_close */
  lua_State *volatile running; /* read by signal handlers */
  volatile lua_Hook poke;      /* set by signal handlers */
  bool warn;                   /* warnings are shown */
  bool warn_midway;            /* a piece of one has been shown */
} outside;

/* C modules of this program, found by require. */
int luaopen_pp_core(lua_State *L);
int luaopen_pp_lines(lua_State *L);

static const luaL_Reg c_modules[] = {
    {"pp.core", luaopen_pp_core},
    {"pp.lines", luaopen_pp_lines},
};

static outside *outside_of(lua_State *L) {
  void *ud;

  lua_getallocf(L, &ud);
  return ud;
}

/* Fresh memory for this much costs more than the bytes. */
#define EXPECT_LARGE ((size_t)4 << 20)
#define BYTES_PER_NS 8 /* how fast they are copied, at best */

static inline unsigned class_of(size_t size) {
  return (unsigned)((size + 7) / 16);
}
static inline size_t size_of(unsigned class) { return 16 * class + 8; }
static inline bool is_small(size_t size) {
#ifdef __SANITIZE_ADDRESS__ /* which is to see each block's end */
  (void)size;
  return false;
#else
  return size <= SMALL_MOST;
#endif
}

static void *get(outside *o, size_t size) {
  unsigned class = class_of(size);
  small *s;

  if (!is_small(size))
    return malloc(size);
  s = o->smalls[class];
  if (PP_UNLIKELY(s == NULL))
    return malloc(size_of(class));
  o->smalls[class] = s->next;
  o->kept -= size_of(class);
  return s;
}

static void give(outside *o, void *p, size_t size) {
  unsigned class = class_of(size);

  if (!is_small(size) || o->kept >= SMALL_KEPT) {
    free(p);
    return;
  }
  ((small *)p)->next = o->smalls[class];
  o->smalls[class] = p;
  o->kept += size_of(class);
}

static void *change(outside *o, void *p, size_t osize, size_t nsize) {
  void *q;

  if (p == NULL)
    return get(o, nsize);
  if (!is_small(osize) && !is_small(nsize))
    return realloc(p, nsize);
  if (is_small(osize) && is_small(nsize) && class_of(osize) == class_of(nsize))
    return p;
  q = get(o, nsize);
  if (q == NULL)
    return NULL;
  memcpy(q, p, osize < nsize ? osize : nsize);
  give(o, p, osize);
  return q;
}

static void let_go(outside *o, void *p, size_t size) {
  if (PP_LIKELY(!pp_block_large(size)))
    give(o, p, size);
  else if (!o->leaves)
    pp_block_free(o->blocks, p, size);
}

static void let_go_smalls(outside *o) {
  for (unsigned i = 0; i < SMALL_CLASSES; i++) {
    small *s;

    while ((s = o->smalls[i]) != NULL) {
      o->smalls[i] = s->next;
      free(s);
    }
  }
  o->kept = 0;
}

/* A block that is large, or was, or is to be. */
static void *move(outside *o, void *p, size_t osize, size_t nsize) {
  bool was = pp_block_large(osize), is = pp_block_large(nsize);
  void *q;

  if (was && is)
    return pp_block_resize(o->blocks, p, osize, nsize);
  if (PP_UNLIKELY(o->offered && p == NULL &&
                  nsize == o->string_at + o->lent_len + 1)) {
    q = o->lent;
    o->lent = NULL;
    o->offered = false;
    return q;
  }
  q = is ? pp_block_new(o->blocks, nsize) : get(o, nsize);
  if (q == NULL || p == NULL)
    return q;
  memcpy(q, p, osize < nsize ? osize : nsize);
  if (was)
    pp_block_free(o->blocks, p, osize);
  else
    give(o, p, osize);
  return q;
}

static void *allocate(void *ud, void *p, size_t osize, size_t nsize) {
  outside *o = ud;
  void *q;

  if (p == NULL)
    osize = 0; /* Lua passes the kind of object there */
  if (nsize == 0) {
    bool last = p != NULL && o->main != NULL && o->memory.used == osize;

    if (last && o->slot != NULL)
      *o->slot = NULL;
    if (PP_LIKELY(p != NULL))
      let_go(o, p, osize);
    o->memory.used -= osize;
    if (last) { /* lua_close is done, whoever called it */
      let_go_smalls(o);
      pp_blocks_unref(o->blocks);
      free(o);
    }
    return NULL;
  }
  if (nsize > osize && o->memory.limit != 0 &&
      (o->memory.used > o->memory.limit ||
       nsize - osize > o->memory.limit - o->memory.used))
    return NULL;
  q = PP_UNLIKELY(pp_block_large(nsize) || pp_block_large(osize))
          ? move(o, p, osize, nsize)
          : change(o, p, osize, nsize);
  if (q != NULL)
    o->memory.used += nsize - osize;
  return q;
}

/* --- strings that are there already -------------------------------------- */

static void *probe(void *ud, void *p, size_t osize, size_t nsize) {
  outside *o = ud;
  void *q = allocate(o, p, osize, nsize);

  if (p == NULL && nsize > 0) {
    o->lent = q;
    o->lent_len = nsize;
  }
  return q;
}

/* Find out where the bytes of a long string are. May raise. */
static void learn_strings(lua_State *L) {
  static const char text[] = "a string that is longer than what Lua calls a "
                             "short one, which share their memory";
  outside *o = outside_of(L);
  const char *s;
  ptrdiff_t at;

  lua_setallocf(L, probe, o);
  s = lua_pushlstring(L, text, sizeof text - 1);
  lua_setallocf(L, allocate, o);
  at = (const unsigned char *)s - o->lent;
  if (at > 0 && at < 64 && o->lent_len == (size_t)at + sizeof text)
    o->string_at = (size_t)at;
  o->lent = NULL;
  lua_pop(L, 1);
}

size_t pp_state_string_at(lua_State *L) { return outside_of(L)->string_at; }

size_t pp_state_string_size(lua_State *L, size_t n) {
  return outside_of(L)->string_at + n + 1;
}

void pp_state_lend(lua_State *L, unsigned char *block, size_t n) {
  outside *o = outside_of(L);

  o->lent = block;
  o->lent_len = n;
  o->offered = false;
}

unsigned char *pp_state_unlend(lua_State *L) {
  outside *o = outside_of(L);
  unsigned char *block = o->lent;

  o->lent = NULL;
  o->offered = false;
  return block;
}

void pp_state_push(lua_State *L, const void *p, size_t n) {
  outside *o;
  void *ud;

  if (PP_LIKELY(!pp_block_large(n)) || lua_getallocf(L, &ud) != allocate) {
    lua_pushlstring(L, p, n);
    return;
  }
  o = ud;
  if (o->lent != NULL && n == o->lent_len &&
      (const unsigned char *)p == o->lent + o->string_at) {
    o->offered = true; /* until it is taken, or called back */
    lua_pushlstring(L, p, n);
    o->offered = false;
  } else {
    lua_pushlstring(L, p, n);
  }
}

/* --- warnings ------------------------------------------------------------ */

static void warn(void *ud, const char *message, int tocont) {
  outside *o = ud;

  if (!o->warn_midway && !tocont && message[0] == '@') {
    if (strcmp(message, "@on") == 0)
      o->warn = true;
    else if (strcmp(message, "@off") == 0)
      o->warn = false;
    return;
  }
  if (o->warn) {
    if (!o->warn_midway)
      fputs("Lua warning: ", stderr);
    fputs(message, stderr);
    if (!tocont)
      fputs("\n", stderr);
    fflush(stderr);
  }
  o->warn_midway = tocont != 0;
}

static int panic(lua_State *L) {
  const char *message = lua_tostring(L, -1);

  fprintf(stderr, "ppsh: unprotected error in a call to the Lua API (%s)\n",
          message != NULL ? message : "no message");
  fflush(stderr);
  return 0; /* Lua aborts */
}

/* --- modules in the program ---------------------------------------------- */

bool pp_state_embedded(const char *source) {
  const pp_embedded *m = pp_embedded_modules;

  while (m->module != NULL && strcmp(source, m->chunk) != 0)
    m++;
  return m->module != NULL;
}

/* package.searchers: name -> loader, where it came from. */
static int search(lua_State *L) {
  const char *name = luaL_checkstring(L, 1);
  const pp_embedded *m;
  size_t i;

  for (i = 0; i < sizeof(c_modules) / sizeof(*c_modules); i++) {
    if (strcmp(name, c_modules[i].name) == 0) {
      lua_pushcfunction(L, c_modules[i].func);
      lua_pushliteral(L, ":ppsh:");
      return 2;
    }
  }
  for (m = pp_embedded_modules; m->module != NULL; m++) {
    if (strcmp(name, m->module) == 0) {
      if (luaL_loadbufferx(L, (const char *)m->code, m->len, m->chunk, "b") !=
          LUA_OK)
        return luaL_error(L, "error loading embedded module '%s':\n\t%s", name,
                          lua_tostring(L, -1));
      lua_pushstring(L, m->chunk + 1);
      return 2;
    }
  }
  return 0;
}

/* After package.preload, so that a program can still put its own first. */
static void add_searcher(lua_State *L) {
  lua_Integer i;

  lua_getglobal(L, LUA_LOADLIBNAME);
  lua_getfield(L, -1, "searchers");
  for (i = (lua_Integer)lua_rawlen(L, -1); i >= 2; i--) {
    lua_rawgeti(L, -1, i);
    lua_rawseti(L, -2, i + 1);
  }
  lua_pushcfunction(L, search);
  lua_rawseti(L, -2, 2);
  lua_pop(L, 2);
}

/* --- coroutines ---------------------------------------------------------- */

enum {
  EVERY_EVENT = LUA_MASKCALL | LUA_MASKRET | LUA_MASKLINE | LUA_MASKCOUNT
};

/* Say which coroutine runs, and hand it a poke that came at the seam. */
static void switch_to(outside *o, lua_State *L) {
  o->running = L;
  if (PP_UNLIKELY(o->poke != NULL))
    lua_sethook(L, o->poke, EVERY_EVENT, 1);
}

/*
 * Resume co with the narg values on top of L. Returns how many results were
 * pushed on L, or -1 with an error value there. The same as the standard
 * library's but for switch_to.
 */
static int resume(lua_State *L, lua_State *co, int narg) {
  outside *o = outside_of(L);
  int status, nres;

  if (!lua_checkstack(co, narg)) {
    lua_pushliteral(L, "too many arguments to resume");
    return -1;
  }
  lua_xmove(L, co, narg);
  switch_to(o, co);
  status = lua_resume(co, L, narg, &nres);
  switch_to(o, L);
  if (status != LUA_OK && status != LUA_YIELD) {
    lua_xmove(co, L, 1);
    return -1;
  }
  if (!lua_checkstack(L, nres + 1)) {
    lua_pop(co, nres);
    lua_pushliteral(L, "too many results to resume");
    return -1;
  }
  lua_xmove(co, L, nres);
  return nres;
}

static int co_resume(lua_State *L) {
  lua_State *co = lua_tothread(L, 1);
  int n;

  luaL_argexpected(L, co != NULL, 1, "thread");
  n = resume(L, co, lua_gettop(L) - 1);
  lua_pushboolean(L, n >= 0);
  if (n < 0) {
    lua_insert(L, -2);
    return 2;
  }
  lua_insert(L, -(n + 1));
  return n + 1;
}

static int wrapped(lua_State *L) {
  lua_State *co = lua_tothread(L, lua_upvalueindex(1));
  int n = resume(L, co, lua_gettop(L)), status;

  if (n >= 0)
    return n;
  status = lua_status(co);
  if (status != LUA_OK && status != LUA_YIELD) {
    /* It died of the error: close its variables, which may change it. */
    status = lua_resetthread(co);
    lua_xmove(co, L, 1);
  }
  if (status != LUA_ERRMEM && lua_type(L, -1) == LUA_TSTRING) {
    luaL_where(L, 1);
    lua_insert(L, -2);
    lua_concat(L, 2);
  }
  return lua_error(L);
}

static int co_wrap(lua_State *L) {
  lua_State *co;

  luaL_checktype(L, 1, LUA_TFUNCTION);
  co = lua_newthread(L);
  lua_pushvalue(L, 1);
  lua_xmove(L, co, 1);
  lua_pushcclosure(L, wrapped, 1);
  return 1;
}

static const luaL_Reg coroutine_funcs[] = {
    {"resume", co_resume},
    {"wrap", co_wrap},
    {NULL, NULL},
};

void pp_state_switch(lua_State *to) { switch_to(outside_of(to), to); }

lua_State *pp_state_running(lua_State *L) { return outside_of(L)->running; }

void pp_state_poke(lua_State *L, lua_Hook hook) {
  outside *o = outside_of(L);

  o->poke = hook;
  lua_sethook(o->running, hook, EVERY_EVENT, 1);
}

void pp_state_unpoke(lua_State *L) {
  outside *o = outside_of(L);

  o->poke = NULL;
  lua_sethook(L, NULL, 0, 0);
}

/* --- the state ----------------------------------------------------------- */

static int open_all(lua_State *L) {
  luaL_checkversion(L);
  if (lua_toboolean(L, 1)) {
    lua_pushboolean(L, 1);
    lua_setfield(L, LUA_REGISTRYINDEX, "LUA_NOENV");
  }
  luaL_openlibs(L);
  add_searcher(L);
  lua_getglobal(L, LUA_COLIBNAME);
  luaL_setfuncs(L, coroutine_funcs, 0);
  lua_getglobal(L, LUA_STRLIBNAME);
  luaL_setfuncs(L, pp_letters, 0);
  learn_strings(L);
  return 0;
}

lua_State *pp_state_new(bool noenv) {
  outside *o = calloc(1, sizeof(*o));
  lua_State *L;

  if (o == NULL || (o->blocks = pp_blocks_make()) == NULL) {
    free(o);
    return NULL;
  }
  L = lua_newstate(allocate, o);
  if (L == NULL) {
    pp_blocks_unref(o->blocks);
    free(o);
    return NULL;
  }
  o->main = o->running = L;
  lua_atpanic(L, panic);
  lua_setwarnf(L, warn, o);
  lua_pushcfunction(L, open_all);
  lua_pushboolean(L, noenv);
  if (lua_pcall(L, 1, 0, 0) != LUA_OK) {
    pp_state_close(L);
    return NULL;
  }
  return L;
}

void pp_state_close(lua_State *L) {
  if (L != NULL)
    lua_close(L);
}

void pp_state_at_close(lua_State *L, lua_State *volatile *slot) {
  outside_of(L)->slot = slot;
}

void pp_state_expect(lua_State *L, size_t bytes) {
  outside *o = outside_of(L);
  int64_t began;

  if (bytes < EXPECT_LARGE || !lua_gc(L, LUA_GCISRUNNING))
    return;
  o->expected += bytes;
  if ((int64_t)(o->expected / BYTES_PER_NS) < 2 * o->collecting)
    return;
  began = pp_now_ns();
  lua_gc(L, LUA_GCCOLLECT);
  lua_gc(L, LUA_GCCOLLECT); /* what finalizers had to be kept for */
  o->collecting = pp_now_ns() - began;
  o->expected = 0;
}

void pp_state_leave(lua_State *L) { outside_of(L)->leaves = true; }

void pp_state_slim(lua_State *L) {
  if (lua_gc(L, LUA_GCISRUNNING))
    lua_gc(L, LUA_GCCOLLECT);
  let_go_smalls(outside_of(L));
#ifdef __GLIBC__
  malloc_trim(0);
#endif
}

pp_blocks *pp_state_blocks(lua_State *L) {
  return pp_blocks_ref(outside_of(L)->blocks);
}

pp_memory *pp_state_memory(lua_State *L) { return &outside_of(L)->memory; }
