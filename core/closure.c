/* SPDX-License-Identifier: MIT */
#include "closure.h"

#include "bytecode.h"
#include "codeinfo.h"
#include "names.h"

/* The position of that code in the message's deps. */
static int need_code(pp_enc *e, pp_codeinfo *k, uint32_t *position) {
  if (k->pass != e->pass) {
    int rc = pp_need(e, e->c->hooks.retain(e->c->hooks.ud, k->own.blob),
                     k->hash, &k->dep);

    if (rc < 0)
      return rc;
    k->pass = e->pass;
    e->codelen += k->len;
  }
  *position = k->dep;
  return 0;
}

/* --- what a function reaches -------------------------------------------- */

static void want(pp_enc *e, int key, int fn, int table) {
  lua_State *L = e->L;
  lua_Integer at = 3 * (lua_Integer)e->wants;

  lua_pushvalue(L, key);
  lua_rawseti(L, e->ix + IX_WANT, at + 1);
  if (fn != 0)
    lua_pushvalue(L, fn);
  else
    lua_pushboolean(L, 0);
  lua_rawseti(L, e->ix + IX_WANT, at + 2);
  if (table != 0)
    lua_pushvalue(L, table);
  else
    lua_pushboolean(L, 0);
  lua_rawseti(L, e->ix + IX_WANT, at + 3);
  e->wants++;
}

static void begin_wants(pp_enc *e) {
  lua_State *L = e->L;

  if (!lua_isnil(L, e->ix + IX_WANT))
    return;
  lua_newtable(L);
  lua_replace(L, e->ix + IX_WANT);
  lua_newtable(L);
  lua_replace(L, e->ix + IX_WANTED);
}

/* The function fn reaches the global named by the string on top; pops it. */
static void want_global(pp_enc *e, int fn) {
  lua_State *L = e->L;

  begin_wants(e);
  lua_pushvalue(L, -1);
  if (lua_rawget(L, e->ix + IX_WANTED) == LUA_TNIL) {
    lua_pushvalue(L, -2);
    lua_pushboolean(L, 1);
    lua_rawset(L, e->ix + IX_WANTED);
    want(e, lua_gettop(L) - 1, fn, 0);
  }
  lua_pop(L, 2);
}

/* The function fn reaches the key on top of the standard table at index
 * `table`; pops the key. */
static void want_field(pp_enc *e, int fn, int table) {
  lua_State *L = e->L;
  int key = lua_gettop(L);

  begin_wants(e);
  lua_pushvalue(L, table);
  if (lua_rawget(L, e->ix + IX_WANTED) == LUA_TNIL) {
    lua_pop(L, 1);
    lua_newtable(L);
    lua_pushvalue(L, table);
    lua_pushvalue(L, -2);
    lua_rawset(L, e->ix + IX_WANTED);
  }
  lua_pushvalue(L, key);
  if (lua_rawget(L, key + 1) == LUA_TNIL) {
    lua_pushvalue(L, key);
    lua_pushboolean(L, 1);
    lua_rawset(L, key + 1);
    want(e, key, fn, table);
  }
  lua_settop(L, key - 1);
}

/* Push the value of the global named by the string on top, as the function
 * would see it; whether it is a standard table. */
static bool push_global(pp_enc *e) {
  lua_State *L = e->L;
  bool is_std;

  lua_pushvalue(L, -1);
  if (lua_rawget(L, e->ix + IX_GLOBALS) == LUA_TNIL) {
    lua_pop(L, 1);
    lua_pushvalue(L, -1);
    lua_rawget(L, e->ix + IX_BASE);
  }
  if (!lua_istable(L, -1))
    return false;
  lua_pushvalue(L, -1);
  is_std = lua_rawget(L, e->ix + IX_STD) == LUA_TTABLE;
  lua_pop(L, 1);
  return is_std;
}

typedef struct reacher {
  pp_enc *e;
  const pp_codeinfo *k;
  int fn, strings; /* stack indices */
} reacher;

/* Every field name in the code may be one of the table at that index. */
static void want_fields(const reacher *r, int table) {
  lua_State *L = r->e->L;
  uint32_t i;

  for (i = 0; i < r->k->nfields + r->k->nselfs; i++) {
    lua_rawgeti(L, r->strings, r->k->reach[r->k->nreach + i].name);
    want_field(r->e, r->fn, table);
  }
}

/* Every field name in the code may be a global. */
static void want_globals(const reacher *r) {
  lua_State *L = r->e->L;
  uint32_t i;

  for (i = 0; i < r->k->nfields + r->k->nselfs; i++) {
    lua_rawgeti(L, r->strings, r->k->reach[r->k->nreach + i].name);
    if (push_global(r->e))
      want_fields(r, lua_gettop(L));
    lua_pop(L, 1);
    want_global(r->e, r->fn);
  }
}

/* The code reads a global, perhaps a field of it. */
static void reach_global(const reacher *r, const pp_reach *use) {
  pp_enc *e = r->e;
  lua_State *L = e->L;
  bool is_std;
  int value;

  lua_rawgeti(L, r->strings, use->name);
  is_std = push_global(e);
  value = lua_gettop(L);
  if (is_std && use->kind == PP_BC_PAIR) {
    lua_rawgeti(L, r->strings, use->field);
    want_field(e, r->fn, value);
  } else if (is_std) {
    want_fields(r, value);
  } else if (lua_rawequal(L, value, e->ix + IX_GLOBALS) ||
             lua_rawequal(L, value, e->ix + IX_BASE)) {
    if (use->kind == PP_BC_PAIR) {
      lua_rawgeti(L, r->strings, use->field);
      if (push_global(e)) /* _G.string: its fields may be used */
        want_fields(r, lua_gettop(L));
      lua_pop(L, 1);
      want_global(e, r->fn);
    } else {
      want_globals(r);
    }
  }
  lua_pop(L, 1);
  want_global(e, r->fn);
}

static int add_check(pp_enc *e, int kind, int up, int nvalues) {
  lua_State *L = e->L;
  pp_check k = {(uint8_t)kind, (uint8_t)up, e->nchecked + 1};
  int i;

  for (i = nvalues; i > 0; i--)
    lua_rawseti(L, e->ix + IX_CHECKS, (lua_Integer)e->nchecked + i);
  e->nchecked += (uint32_t)nvalues;
  return pp_buf_put(&e->s.checks, &k, sizeof k);
}

/* The table on top: is what it has not looked for in the globals? Such is an
 * _ENV made by setmetatable({}, {__index = _G}). */
static bool stands_before_globals(pp_enc *e) {
  lua_State *L = e->L;
  int top = lua_gettop(L);
  bool does = false;

  if (lua_getmetatable(L, -1)) {
    lua_pushliteral(L, "__index");
    lua_rawget(L, -2);
    does = lua_rawequal(L, -1, e->ix + IX_GLOBALS);
  }
  lua_settop(L, top);
  return does;
}

/* Note what the function on top, of that code, reaches. */
static int reach(pp_enc *e, const pp_codeinfo *k, int fn, int strings) {
  enum { OTHER, GLOBALS, STD, BEFORE_GLOBALS };
  reacher r = {e, k, fn, strings};
  lua_State *L = e->L;
  unsigned char kind[256];
  int nups = 0, top = lua_gettop(L);
  bool planning = e->planning && !e->mutable;
  uint32_t i;

  if (planning) {
    lua_pushvalue(L, fn);
    if (add_check(e, CHECK_FUNC, 0, 1) < 0)
      return PP_ENOMEM;
  }
  while (nups < 255 && lua_getupvalue(L, fn, nups + 1) != NULL) {
    kind[nups] = OTHER;
    if (lua_istable(L, -1)) {
      if (lua_rawequal(L, -1, e->ix + IX_GLOBALS) ||
          lua_rawequal(L, -1, e->ix + IX_BASE)) {
        kind[nups] = GLOBALS;
      } else {
        lua_pushvalue(L, -1);
        if (lua_rawget(L, e->ix + IX_STD) == LUA_TTABLE)
          kind[nups] = STD;
        lua_pop(L, 1);
        if (kind[nups] == OTHER && stands_before_globals(e))
          kind[nups] = BEFORE_GLOBALS;
      }
    }
    if (planning && add_check(e, CHECK_UPVALUE, nups + 1, 1) < 0)
      return PP_ENOMEM;
    lua_settop(L, top);
    nups++;
  }
  for (i = 0; i < k->nreach; i++) {
    const pp_reach *use = &k->reach[i];

    if (use->up >= nups || kind[use->up] == OTHER)
      continue;
    if (kind[use->up] == BEFORE_GLOBALS) {
      bool own = use->kind == PP_BC_ESCAPE;

      if (!own) {
        lua_getupvalue(L, fn, use->up + 1);
        lua_rawgeti(L, strings, use->name);
        own = lua_rawget(L, -2) != LUA_TNIL;
        lua_settop(L, top);
      }
      if (!own)
        reach_global(&r, use);
      continue;
    }
    if (kind[use->up] == GLOBALS) {
      if (use->kind == PP_BC_ESCAPE)
        want_globals(&r);
      else
        reach_global(&r, use);
    } else {
      lua_getupvalue(L, fn, use->up + 1);
      if (use->kind == PP_BC_ESCAPE) {
        want_fields(&r, top + 1);
      } else {
        lua_rawgeti(L, strings, use->name);
        want_field(e, fn, top + 1);
      }
    }
    lua_settop(L, top);
  }
  if (k->nselfs > 0) {
    pp_ref(e->c, L, REF_STRING);
    for (i = 0; i < k->nselfs; i++) {
      lua_rawgeti(L, strings, k->reach[k->nreach + k->nfields + i].name);
      want_field(e, fn, top + 1);
    }
    lua_settop(L, top);
  }
  return 0;
}

/* --- functions ---------------------------------------------------------- */

static int begin_function(pp_enc *e, int nups) {
  int rc = pp_ptrmap_put(&e->s.map, lua_topointer(e->L, -1), e->objs++);

  return rc < 0 ? rc : pp_open_frame(e, FRAME_FUNC, e->out->len, nups);
}

static int first_canon(void *ud, const pp_bc_proto *p) {
  if (p->position == 0)
    *(pp_hash *)ud = p->canon;
  return 0;
}

/* Is the function on top what its own source text compiles to? */
static int is_text(pp_enc *e, const lua_Debug *ar) {
  lua_State *L = e->L;
  pp_buf was = e->s.dump;
  int rc;

  if (strcmp(ar->what, "main") != 0 || ar->source[0] == '@' ||
      ar->source[0] == '=' || strlen(ar->source) != ar->srclen)
    return 0;
  if (luaL_loadbufferx(L, ar->source, ar->srclen, ar->source, "t") != LUA_OK) {
    lua_pop(L, 1);
    return 0;
  }
  e->s.dump = e->s.work, e->s.work = was;
  rc = pp_dump(e);
  lua_pop(L, 1);
  if (rc < 0)
    return rc;
  return e->s.dump.len == was.len &&
         memcmp(e->s.dump.data, was.data, was.len) == 0;
}

/* In a worker: code that was not sent. It may be that of a module which the
 * submitter has too. */
static int put_unknown(pp_enc *e) {
  int rc = pp_put_field(e);

  return rc < 0 ? rc : rc == 0 ? pp_refuse(e, "function made there") : 0;
}

typedef struct place_sought {
  pp_hash canon;
  const pp_known *known; /* where it was first seen */
  pp_known found;
} place_sought;

static int is_proto(void *ud, const pp_bc_proto *p) {
  place_sought *s = ud;

  if (!pp_hash_eq(p->canon, s->canon))
    return 0;
  s->found.position = p->position;
  return 1;
}

static int is_blob(void *ud, const pp_code *code) {
  const place_sought *s = ud;

  return pp_hash_eq(code->hash, s->known->blob);
}

static int has_proto(void *ud, const pp_code *code) {
  place_sought *s = ud;

  s->found.blob = code->hash;
  return pp_bc_protos(code->data, code->len, is_proto, s) > 0;
}

/* Where the prototype is, best in what the job came with: code it was seen in
 * before may be gone where the result goes. */
static bool find_place(pp_enc *e, place_sought *s) {
  const pp_codec_hooks *h = &e->c->hooks;

  s->known = pp_known_find(e->c, s->canon);
  if (s->known == NULL)
    return false;
  if (h->each_code == NULL || h->each_code(h->ud, is_blob, s) != 0 ||
      h->each_code(h->ud, has_proto, s) == 0)
    s->found = *s->known;
  return true;
}

/* In a worker: the function on top by what the submitter can make it from. */
static int put_received(pp_enc *e) {
  lua_State *L = e->L;
  place_sought s = {0};
  unsigned char at[17];
  lua_Debug ar;
  int rc = pp_dump(e);

  if (rc < 0)
    return rc;
  lua_pushvalue(L, -1);
  lua_getinfo(L, ">Su", &ar);
  if (pp_bc_protos(e->s.dump.data, e->s.dump.len, first_canon, &s.canon) < 0)
    return put_unknown(e);
  if (find_place(e, &s)) {
    at[0] = LEAD_FUNC_AT;
    pp_put64(at + 1, s.found.blob.lo);
    pp_put64(at + 9, s.found.blob.hi);
    if (pp_buf_put(e->out, at, sizeof at) < 0 ||
        pp_name_code(e, s.found.blob) < 0 ||
        pp_buf_varint(e->out, s.found.position) < 0)
      return PP_ENOMEM;
    return begin_function(e, ar.nups);
  }
  rc = is_text(e, &ar);
  if (rc < 0)
    return rc;
  if (rc == 0)
    return put_unknown(e);
  if (pp_buf_byte(e->out, LEAD_FUNC_TEXT) < 0 ||
      pp_buf_varint(e->out, ar.srclen) < 0 ||
      pp_buf_put(e->out, ar.source, ar.srclen) < 0)
    return PP_ENOMEM;
  return begin_function(e, ar.nups);
}

int pp_put_function(pp_enc *e) {
  lua_State *L = e->L;
  pp_codeinfo *k;
  uint32_t position;
  int fn = lua_gettop(L), nups = 0, rc;

  if (!lua_checkstack(L, 40))
    return PP_ENOMEM;
  if (e->c->role == PP_CODEC_WORKER)
    return put_received(e);
  rc = pp_codeinfo_push(e, &k);
  if (rc < 0)
    return rc;
  rc = need_code(e, k, &position);
  if (rc < 0)
    return rc;
  if (pp_buf_byte(e->out, LEAD_FUNC) < 0 || pp_buf_varint(e->out, position) < 0)
    return PP_ENOMEM;
  if (k->assigns)
    e->mutable = true;
  lua_getiuservalue(L, -1, 1);
  rc = reach(e, k, fn, lua_gettop(L));
  lua_settop(L, fn);
  if (rc < 0)
    return rc;
  while (lua_upvalueid(L, fn, nups + 1) != NULL)
    nups++;
  return begin_function(e, nups);
}

/* --- bindings ----------------------------------------------------------- */

/* Append the name and the value on top. */
static int put_binding(pp_enc *e, int name) {
  lua_State *L = e->L;
  size_t n;
  const char *s = lua_tolstring(L, name, &n);

  if (!lua_isnil(L, e->ix + IX_FOUND)) {
    lua_pushvalue(L, name);
    lua_pushvalue(L, -2);
    lua_rawset(L, e->ix + IX_FOUND);
  }
  if (pp_buf_byte(e->out, LEAD_GLOBAL) < 0 || pp_buf_varint(e->out, n) < 0 ||
      pp_buf_put(e->out, s, n) < 0)
    return PP_ENOMEM;
  return pp_put_whole(e);
}

/* Append: this key of that standard table is the value on top. */
static int put_patch(pp_enc *e, const char *table, size_t n, int key) {
  lua_State *L = e->L;
  int rc;

  if (pp_buf_byte(e->out, LEAD_PATCH) < 0 || pp_buf_varint(e->out, n) < 0 ||
      pp_buf_put(e->out, table, n) < 0)
    return PP_ENOMEM;
  lua_pushvalue(L, key);
  rc = pp_put_whole(e);
  if (rc < 0)
    return rc;
  lua_pop(L, 1);
  return pp_put_whole(e);
}

/* The global named at `top + 1`: 1 if it had to be written. */
static int put_global(pp_enc *e, int top) {
  lua_State *L = e->L;
  int rc;

  lua_pushvalue(L, top + 1);
  lua_rawget(L, e->ix + IX_GLOBALS);
  if (e->planning && !e->mutable) {
    lua_pushvalue(L, top + 1);
    lua_pushvalue(L, -2);
    if (add_check(e, CHECK_GLOBAL, 0, 2) < 0)
      return PP_ENOMEM;
  }
  lua_pushvalue(L, top + 1);
  lua_rawget(L, e->ix + IX_PRISTINE);
  if (lua_rawequal(L, -1, -2))
    return 0;
  if (lua_isnil(L, -2)) { /* hidden, unless these are a job's globals */
    if (!lua_rawequal(L, e->ix + IX_GLOBALS, e->ix + IX_BASE))
      return 0;
    lua_pop(L, 1);
    rc = put_patch(e, "_G", 2, top + 1);
  } else {
    lua_pop(L, 1);
    rc = put_binding(e, top + 1);
  }
  return rc < 0 ? rc : 1;
}

/* The key at top + 1 of the standard table at top + 3: 1 if written. */
static int put_field(pp_enc *e, int top) {
  lua_State *L = e->L;
  const char *name;
  size_t n;
  int rc;

  lua_pushvalue(L, top + 1);
  lua_rawget(L, top + 3);
  if (e->planning && !e->mutable) {
    lua_pushvalue(L, top + 3);
    lua_pushvalue(L, top + 1);
    lua_pushvalue(L, -3);
    if (add_check(e, CHECK_FIELD, 0, 3) < 0)
      return PP_ENOMEM;
  }
  lua_pushvalue(L, top + 3);
  lua_rawget(L, e->ix + IX_STD);
  lua_pushvalue(L, top + 1);
  lua_rawget(L, -2);
  if (lua_rawequal(L, -1, -3))
    return 0;
  lua_pushvalue(L, top + 3);
  lua_rawget(L, e->ix + IX_NAMES);
  name = lua_tolstring(L, -1, &n);
  lua_pushvalue(L, top + 4);
  rc = put_patch(e, name, n, top + 1);
  return rc < 0 ? rc : 1;
}

static int want_extra(pp_enc *e) {
  lua_State *L = e->L;
  int top = lua_gettop(L);

  begin_wants(e);
  lua_pushnil(L);
  while (lua_next(L, e->ix + IX_EXTRA)) {
    if (lua_type(L, -2) != LUA_TSTRING) {
      e->bad = "the name of a global must be a string";
      return PP_EBAD;
    }
    lua_pushvalue(L, -2);
    lua_pushboolean(L, 1);
    lua_rawset(L, e->ix + IX_WANTED);
    want(e, top + 1, 0, 0);
    lua_pop(L, 1);
  }
  return 0;
}

int pp_put_bindings(pp_enc *e) {
  lua_State *L = e->L;
  int top = lua_gettop(L), count = 0, rc;

  if (e->c->role != PP_CODEC_SUBMITTER)
    return 0;
  if (!lua_isnil(L, e->ix + IX_EXTRA)) {
    rc = want_extra(e);
    if (rc < 0)
      return rc;
  }
  for (; e->want < e->wants; e->want++) {
    lua_Integer at = 3 * (lua_Integer)e->want;

    lua_rawgeti(L, e->ix + IX_WANT, at + 1);
    lua_rawgeti(L, e->ix + IX_WANT, at + 2);
    lua_rawgeti(L, e->ix + IX_WANT, at + 3);
    if (lua_istable(L, top + 3)) {
      rc = put_field(e, top);
    } else if (lua_isfunction(L, top + 2)) {
      rc = put_global(e, top);
    } else {
      lua_pushvalue(L, top + 1);
      lua_rawget(L, e->ix + IX_EXTRA);
      rc = put_binding(e, top + 1);
      rc = rc < 0 ? rc : 1;
    }
    if (rc < 0)
      return rc;
    count += rc;
    lua_settop(L, top);
  }
  if (count == 0)
    return 0;
  e->binds = true;
  if (pp_buf_byte(e->out, LEAD_END) < 0)
    return PP_ENOMEM;
  return 1;
}

/* --- functions received ------------------------------------------------- */

/* Push the function of a dump; how many upvalues it has. */
static int load_dump(pp_dec *d, const unsigned char *p, size_t n) {
  lua_State *L = d->L;
  int nups = pp_bc_nups(p, n), rc;

  if (nups < 0) {
    lua_pushliteral(L, "code of another Lua");
    return PP_EBAD;
  }
  rc = luaL_loadbufferx(L, (const char *)p, n, "=code", "b");
  if (rc == LUA_ERRMEM) {
    lua_pop(L, 1);
    return PP_ENOMEM;
  }
  return rc != LUA_OK ? PP_EBAD : nups;
}

static int get_sent(pp_dec *d) {
  pp_codec *c = d->c;
  lua_State *L = d->L;
  const unsigned char *p;
  uint64_t position;
  pp_hash hash;
  size_t n;
  int rc;

  if (pp_rd_bytes(&d->r, 16, &p) < 0 || pp_rd_varint(&d->r, &position) < 0 ||
      position > UINT32_MAX) {
    lua_pushliteral(L, "malformed bytes: function cut short");
    return PP_EBAD;
  }
  hash.lo = pp_get64(p), hash.hi = pp_get64(p + 8);
  p = c->hooks.code != NULL ? c->hooks.code(c->hooks.ud, hash, &n) : NULL;
  if (p == NULL) {
    lua_pushliteral(L, "function whose code was never sent from here");
    return PP_EBAD;
  }
  if (position == 0)
    return load_dump(d, p, n);
  d->s.dump.len = 0;
  rc = pp_bc_cut(p, n, (uint32_t)position, &d->s.dump);
  if (rc == PP_EBAD)
    lua_pushliteral(L, "function that is not in the code sent from here");
  return rc < 0 ? rc : load_dump(d, d->s.dump.data, d->s.dump.len);
}

static int get_text(pp_dec *d) {
  lua_State *L = d->L;
  const unsigned char *p;
  uint64_t n;
  const char *s;
  int rc, nups = 0;

  if (pp_rd_varint(&d->r, &n) < 0 || n > pp_rd_left(&d->r) ||
      pp_rd_bytes(&d->r, (size_t)n, &p) < 0) {
    lua_pushliteral(L, "malformed bytes: function cut short");
    return PP_EBAD;
  }
  lua_pushlstring(L, (const char *)p, (size_t)n);
  s = lua_tostring(L, -1);
  rc = luaL_loadbufferx(L, s, (size_t)n, s, "t");
  lua_remove(L, -2);
  if (rc == LUA_ERRMEM) {
    lua_pop(L, 1);
    return PP_ENOMEM;
  }
  if (rc != LUA_OK)
    return PP_EBAD;
  while (lua_upvalueid(L, -1, nups + 1) != NULL)
    nups++;
  return nups;
}

int pp_get_function(pp_dec *d, unsigned lead) {
  uint64_t i;

  if (lead == LEAD_FUNC_AT)
    return get_sent(d);
  if (lead == LEAD_FUNC_TEXT)
    return get_text(d);
  if (d->c->role != PP_CODEC_WORKER || pp_rd_varint(&d->r, &i) < 0 ||
      i >= d->ncodes || d->codes[i].data == NULL) {
    lua_pushliteral(d->L, "function without code");
    return PP_EBAD;
  }
  return load_dump(d, d->codes[i].data, d->codes[i].len);
}
