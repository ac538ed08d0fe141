/* SPDX-License-Identifier: MIT */
#include "marshal.h"

#include "closure.h"
#include "names.h"

#define FRAMES_READY 16 /* nested binds that need no memory */
#define SCRATCH_KEPT 65536

static const char no_memory[] = "not enough memory"; /* Lua has it ready */

/* A function that captures nothing mutable, and what must still hold for its
 * parcel to be the right one. User value 1: a table of the values. */
typedef struct pp_plan {
  pp_owner own;
  unsigned flags;
  uint32_t n;
  pp_check checks[];
} pp_plan;

/* --- memory ------------------------------------------------------------- */

static void trim(pp_buf *b, size_t keep) {
  if (b->cap > keep)
    pp_buf_clear(b);
  b->len = 0;
}

static void trim_scratch(pp_scratch *s, size_t keep) {
  trim(&s->frames, keep);
  trim(&s->out, keep);
  trim(&s->dump, keep);
  trim(&s->work, keep);
  trim(&s->cells, keep);
  trim(&s->checks, keep);
  trim(&s->hashes, keep);
  trim(&s->reach, keep);
  trim(&s->fields, keep);
  trim(&s->selfs, keep);
  if (s->map.mask * sizeof(pp_ptrslot) >= keep)
    pp_ptrmap_clear(&s->map);
  else
    pp_ptrmap_empty(&s->map);
}

pp_scratch pp_scratch_take(pp_codec *c) {
  pp_scratch s = c->scratch;

  memset(&c->scratch, 0, sizeof c->scratch);
  return s;
}

void pp_scratch_give(pp_codec *c, pp_scratch *s) {
  trim_scratch(&c->scratch, 0); /* of a call made meanwhile */
  trim_scratch(s, SCRATCH_KEPT);
  c->scratch = *s;
}

static void unlink_owner(pp_owner *o) {
  if (o->next != NULL) {
    o->prev->next = o->next;
    o->next->prev = o->prev;
    o->prev = o->next = NULL;
  }
}

static int collect_owner(lua_State *L) {
  pp_owner *o = lua_touserdata(L, 1);

  if (o != NULL && o->c != NULL) {
    unlink_owner(o);
    if (o->blob != NULL)
      o->c->hooks.release(o->c->hooks.ud, o->blob);
    o->blob = NULL;
    o->c = NULL;
  }
  return 0;
}

pp_owner *pp_owner_new(pp_codec *c, lua_State *L, size_t size, int uservalues) {
  pp_owner *o = lua_newuserdatauv(L, size, uservalues);

  memset(o, 0, size);
  pp_ref(c, L, REF_OWNER);
  lua_setmetatable(L, -2);
  o->c = c;
  o->next = c->owners.next;
  o->prev = &c->owners;
  o->next->prev = o;
  c->owners.next = o;
  return o;
}

/* --- new and free ------------------------------------------------------- */

static void keep(pp_codec *c, lua_State *L, int which) {
  c->ref[which] = luaL_ref(L, LUA_REGISTRYINDEX);
}

static void keep_weak(pp_codec *c, lua_State *L, int which, const char *mode) {
  lua_newtable(L);
  lua_createtable(L, 0, 1);
  lua_pushstring(L, mode);
  lua_setfield(L, -2, "__mode");
  lua_setmetatable(L, -2);
  keep(c, L, which);
}

static int set_up(lua_State *L) {
  pp_codec *c = lua_touserdata(L, 1);
  int i;

  pp_names_init(c, L);
  keep_weak(c, L, REF_CODE, "k");
  keep_weak(c, L, REF_CODES, "v");
  keep_weak(c, L, REF_PLANS, "k");
  keep_weak(c, L, REF_KEPT, "v");
  keep_weak(c, L, REF_KEPTIDS, "k");
  lua_newtable(L);
  lua_pushcfunction(L, collect_owner);
  lua_setfield(L, -2, "__gc");
  keep(c, L, REF_OWNER);
  if (luaL_loadbufferx(L, "return _ENV", 11, "=environment", "t") != LUA_OK)
    return lua_error(L);
  keep(c, L, REF_ANCHOR);
  lua_createtable(L, FRAMES_READY * FRAME_SIZE, 0);
  for (i = 1; i <= FRAMES_READY * FRAME_SIZE; i++) {
    lua_pushboolean(L, 0);
    lua_rawseti(L, -2, i);
  }
  keep(c, L, REF_FRAMES);
  return 0;
}

pp_codec *pp_codec_new(lua_State *L, int role, const pp_codec_hooks *hooks) {
  pp_codec *c = pp_buf_realloc(NULL, sizeof *c);

  if (c == NULL)
    return NULL;
  memset(c, 0, sizeof *c);
  c->hooks = *hooks;
  c->role = role;
  c->owners.next = c->owners.prev = &c->owners;
  if (lua_checkstack(L, 4)) {
    lua_pushcfunction(L, set_up);
    lua_pushlightuserdata(L, c);
    if (lua_pcall(L, 1, 0, 0) == LUA_OK)
      return c;
    lua_pop(L, 1);
  }
  pp_codec_free(c);
  return NULL;
}

void pp_codec_free(pp_codec *c) {
  int i;

  if (c == NULL)
    return;
  while (c->owners.next != &c->owners) {
    pp_owner *o = c->owners.next;

    unlink_owner(o);
    if (o->blob != NULL)
      c->hooks.release(c->hooks.ud, o->blob);
    o->blob = NULL;
    o->c = NULL;
  }
  trim_scratch(&c->scratch, 0);
  for (i = 0; i < 2; i++)
    if (c->known[i].slots != NULL)
      pp_buf_realloc(c->known[i].slots, 0);
  pp_buf_realloc(c, 0);
}

void pp_deps_clear(pp_codec *c, pp_deps *d) {
  size_t i;

  for (i = 0; i < d->n; i++)
    c->hooks.release(c->hooks.ud, d->v[i]);
  if (d->v != NULL)
    pp_buf_realloc(d->v, 0);
  memset(d, 0, sizeof *d);
}

/* --- encoding ----------------------------------------------------------- */

/* The outcome of a protected call that left a message on the stack. */
static int outcome(lua_State *L, int status, int rc) {
  if (status == LUA_ERRMEM || (status == LUA_OK && rc == PP_ENOMEM)) {
    lua_pop(L, 1);
    lua_pushstring(L, no_memory);
    return PP_ENOMEM;
  }
  return status == LUA_OK ? rc : PP_EBAD;
}

/* Push the tables the encoder works with; extra is a stack index or 0. */
static void begin_encoding(pp_enc *e, lua_State *L, int extra, bool find) {
  pp_codec *c = e->c;

  luaL_checkstack(L, IX_COUNT + 60, "too many values");
  e->L = L;
  e->ix = lua_gettop(L) + 1;
  pp_ref(c, L, REF_NAMES);
  pp_push_globals(L);
  pp_ref(c, L, REF_CODE);
  pp_ref(c, L, REF_KEPTIDS);
  lua_pushnil(L); /* IX_MODULES */
  lua_pushnil(L);
  lua_pushnil(L);
  lua_pushnil(L);
  lua_pushnil(L); /* IX_WANTED */
  pp_ref(c, L, REF_STD);
  pp_ref(c, L, REF_PRISTINE);
  pp_ref(c, L, REF_BASE);
  if (e->planning)
    lua_newtable(L);
  else
    lua_pushnil(L);
  if (extra != 0)
    lua_pushvalue(L, extra);
  else
    lua_pushnil(L);
  if (find)
    lua_newtable(L);
  else
    lua_pushnil(L);
}

/* Encode; on failure the message is on top. */
static void encode(pp_enc *e) {
  e->rc = pp_encode(e);
  if (e->rc == PP_EUNSENDABLE || e->rc == PP_ELIMIT)
    pp_refusal_push(e);
  else if (e->rc < 0)
    lua_pushstring(e->L, e->rc == PP_ENOMEM ? no_memory : e->bad);
}

static int pack_protected(lua_State *L) {
  pp_enc *e = lua_touserdata(L, 1);

  begin_encoding(e, L, 0, false);
  encode(e);
  if (e->rc == 0)
    lua_pushvalue(L, e->ix + IX_KEPT);
  return 1;
}

/* Start afresh: 0, or an error with its message pushed. */
static int begin(pp_codec *c, lua_State *L, int slots) {
  (void)c;
  if (lua_checkstack(L, slots))
    return 0;
  lua_pushstring(L, no_memory); /* LUA_MINSTACK is always there */
  return PP_ENOMEM;
}

static void drop_deps(pp_codec *c, pp_deps *d, size_t n) {
  while (d->n > n)
    c->hooks.release(c->hooks.ud, d->v[--d->n]);
}

/* Numbers, booleans, nils and strings need no protection, no numbering and no
 * scratch. 1: done, 0: there is something else. */
static int pack_plain(lua_State *L, int first, int n, pp_buf *out) {
  unsigned char head[1 + PP_VARINT_MAX] = {MSG_FORMAT | MSG_PLAIN};
  size_t start = out->len;
  bool plain = true, has_long = false;
  int i, rc;

  if (n < 128) {
    head[1] = (unsigned char)n;
    rc = pp_buf_put(out, head, 2);
  } else {
    rc = pp_buf_byte(out, head[0]);
    if (rc == 0)
      rc = pp_buf_varint(out, (uint64_t)n);
  }
  for (i = first; rc == 0 && i < first + n; i++) {
    int t = lua_type(L, i);

    if (t == LUA_TNUMBER || t == LUA_TBOOLEAN || t == LUA_TNIL) {
      rc = pp_put_scalar(out, L, i, t);
    } else if (t == LUA_TSTRING) {
      size_t len;
      const char *s = lua_tolstring(L, i, &len);

      plain = false;
      if (len < SHORT_STR) {
        rc = pp_put_short(out, s, len);
      } else if (!has_long) {
        has_long = true; /* two may be one */
        rc = pp_buf_byte(out, LEAD_LONGSTR);
        if (rc == 0)
          rc = pp_buf_varint(out, len);
        if (rc == 0)
          rc = pp_buf_put(out, s, len);
      } else {
        out->len = start;
        return 0;
      }
    } else {
      out->len = start;
      return 0;
    }
  }
  if (rc < 0) {
    out->len = start;
    return rc;
  }
  if (!plain)
    out->data[start] = MSG_FORMAT;
  return 1;
}

int pp_codec_pack(pp_codec *c, lua_State *L, int first, int n, const char *what,
                  pp_buf *out, pp_deps *deps) {
  pp_deps none = {0};
  size_t start = out->len;
  pp_enc e;
  int i, rc, status;

  first = lua_absindex(L, first);
  rc = begin(c, L, 4);
  if (rc < 0)
    return rc;
  rc = pack_plain(L, first, n, out);
  if (rc != 0) {
    if (rc > 0)
      lua_pushnil(L);
    else
      lua_pushstring(L, no_memory);
    return rc > 0 ? 0 : rc;
  }
  rc = begin(c, L, n + 4);
  if (rc < 0)
    return rc;
  memset(&e, 0, sizeof e);
  e.c = c, e.what = what, e.out = out, e.first = 2, e.n = n;
  e.deps = deps != NULL ? deps : &none;
  e.ndeps = e.deps->n;
  e.pass = ++c->pass;
  e.s = pp_scratch_take(c);
  lua_pushcfunction(L, pack_protected);
  lua_pushlightuserdata(L, &e);
  for (i = 0; i < n; i++)
    lua_pushvalue(L, first + i);
  status = lua_pcall(L, n + 1, 1, 0);
  rc = outcome(L, status, e.rc);
  pp_scratch_give(c, &e.s);
  if (rc < 0) {
    out->len = start;
    drop_deps(c, e.deps, e.ndeps);
  }
  if (deps == NULL)
    pp_deps_clear(c, &none);
  return rc;
}

/* --- functions ---------------------------------------------------------- */

typedef struct job {
  pp_enc e;
  pp_deps deps;
  pp_parcel *out;
  int extra;
} job;

/* Push the function's upvalues by name, all but the globals. */
static void push_upvalues(pp_enc *e, int fn) {
  lua_State *L = e->L;
  const char *name;
  int i;

  lua_newtable(L);
  for (i = 1; (name = lua_getupvalue(L, fn, i)) != NULL; i++) {
    if (lua_iscfunction(L, fn) || lua_rawequal(L, -1, e->ix + IX_GLOBALS))
      lua_pop(L, 1);
    else
      lua_setfield(L, -2, name);
  }
}

static int captures_protected(lua_State *L) {
  job *j = lua_touserdata(L, 1);
  pp_enc *e = &j->e;

  begin_encoding(e, L, 0, true);
  encode(e);
  if (e->rc < 0)
    return 1;
  lua_createtable(L, 0, 3);
  lua_pushinteger(L, (lua_Integer)(e->out->len + e->codelen));
  lua_setfield(L, -2, "bytes");
  push_upvalues(e, 2);
  lua_setfield(L, -2, "upvalues");
  lua_pushvalue(L, e->ix + IX_FOUND);
  lua_setfield(L, -2, "globals");
  return 1;
}

/* Make the plan of the function at index 2. */
static pp_plan *make_plan(pp_enc *e, unsigned flags) {
  lua_State *L = e->L;
  pp_plan *p = (pp_plan *)pp_owner_new(e->c, L, sizeof *p + e->s.checks.len, 1);

  p->flags = flags;
  p->n = (uint32_t)(e->s.checks.len / sizeof(pp_check));
  if (p->n > 0)
    memcpy(p->checks, e->s.checks.data, e->s.checks.len);
  lua_pushvalue(L, e->ix + IX_CHECKS);
  lua_setiuservalue(L, -2, 1);
  pp_ref(e->c, L, REF_PLANS);
  lua_pushvalue(L, 2);
  lua_pushvalue(L, -3);
  lua_rawset(L, -3);
  return p;
}

static int function_protected(lua_State *L) {
  job *j = lua_touserdata(L, 1);
  pp_enc *e = &j->e;
  pp_codec *c = e->c;
  pp_plan *plan = NULL;
  pp_blob *blob;
  pp_hash hash;
  unsigned flags;
  size_t len;

  begin_encoding(e, L, j->extra, false);
  encode(e);
  if (e->rc < 0)
    return 1;
  flags = (e->mutable ? PP_PARCEL_MUTABLE : 0u) |
          (e->binds ? PP_PARCEL_BINDS : 0u);
  len = e->out->len;
  if (e->planning && !e->mutable)
    plan = make_plan(e, flags);
  /* The name of a parcel covers the code it refers to. */
  if (pp_buf_put(e->out, e->s.hashes.data, e->s.hashes.len) < 0)
    goto fail;
  hash = pp_hash_of(e->out->data, e->out->len, 'f');
  blob = c->hooks.intern(c->hooks.ud, 'f', hash, e->out->data, len, j->deps.v,
                         j->deps.n);
  if (blob == NULL)
    goto fail;
  lua_pushvalue(L, e->ix + IX_KEPT);
  if (plan != NULL) {
    plan->own.blob = blob;
    blob = c->hooks.retain(c->hooks.ud, blob);
  }
  j->out->blob = blob;
  j->out->flags = flags;
  return 1;
fail:
  e->rc = PP_ENOMEM;
  lua_pushstring(L, no_memory);
  return 1;
}

/* Are the two values on top the same, to the bit? */
static bool same(lua_State *L) {
  if (lua_type(L, -1) == LUA_TNUMBER && lua_type(L, -2) == LUA_TNUMBER) {
    lua_Number a, b;

    if (lua_isinteger(L, -1) || lua_isinteger(L, -2))
      return lua_isinteger(L, -1) && lua_isinteger(L, -2) &&
             lua_tointegerx(L, -1, NULL) == lua_tointegerx(L, -2, NULL);
    a = lua_tonumberx(L, -1, NULL), b = lua_tonumberx(L, -2, NULL);
    return memcmp(&a, &b, sizeof a) == 0;
  }
  return lua_rawequal(L, -1, -2);
}

/* Does all still hold? Leaves things on the stack. */
static bool plan_holds(lua_State *L, const pp_plan *p, int values) {
  int globals = values + 1, fn = values + 2;
  uint32_t i;

  pp_push_globals(L);
  lua_pushnil(L);
  for (i = 0; i < p->n; i++) {
    const pp_check *k = &p->checks[i];

    switch (k->kind) {
    case CHECK_FUNC:
      lua_rawgeti(L, values, k->slot);
      lua_replace(L, fn);
      continue;
    case CHECK_UPVALUE:
      if (lua_getupvalue(L, fn, k->up) == NULL)
        return false;
      lua_rawgeti(L, values, k->slot);
      break;
    case CHECK_GLOBAL:
      lua_rawgeti(L, values, k->slot);
      lua_rawget(L, globals);
      lua_rawgeti(L, values, k->slot + 1);
      break;
    default:
      lua_rawgeti(L, values, k->slot);
      lua_rawgeti(L, values, k->slot + 1);
      lua_rawget(L, -2);
      lua_rawgeti(L, values, k->slot + 2);
      lua_remove(L, -3);
      break;
    }
    if (!same(L))
      return false;
    lua_pop(L, 2);
  }
  return true;
}

static bool cached(pp_codec *c, lua_State *L, int fn, pp_parcel *out) {
  int top = lua_gettop(L);
  pp_plan *p;
  bool holds = false;

  pp_ref(c, L, REF_PLANS);
  lua_pushvalue(L, fn);
  lua_rawget(L, -2);
  p = lua_touserdata(L, -1);
  if (p != NULL && p->own.blob != NULL) {
    lua_getiuservalue(L, -1, 1);
    holds = plan_holds(L, p, top + 3);
    if (holds) {
      out->blob = c->hooks.retain(c->hooks.ud, p->own.blob);
      out->flags = p->flags;
    }
  }
  lua_settop(L, top);
  return holds;
}

static int with_function(pp_codec *c, lua_State *L, int idx, int extra,
                         pp_parcel *out) {
  job j;
  int rc, status;

  memset(&j, 0, sizeof j);
  j.out = out;
  j.e.c = c;
  j.e.first = 2, j.e.n = 1;
  j.e.deps = &j.deps;
  j.e.pass = ++c->pass;
  j.e.planning = out != NULL && extra == 0 && !lua_iscfunction(L, idx);
  j.e.s = pp_scratch_take(c);
  j.e.out = &j.e.s.out;
  lua_pushcfunction(L, out != NULL ? function_protected : captures_protected);
  lua_pushlightuserdata(L, &j);
  lua_pushvalue(L, idx);
  if (extra != 0) {
    j.extra = 3;
    lua_pushvalue(L, extra);
  }
  status = lua_pcall(L, extra != 0 ? 3 : 2, 1, 0);
  rc = outcome(L, status, j.e.rc);
  pp_scratch_give(c, &j.e.s);
  pp_deps_clear(c, &j.deps);
  return rc;
}

static int not_function(lua_State *L) {
  lua_pushliteral(L, "cannot send function: not a function");
  return 1;
}

static int refuse_value(lua_State *L) {
  int status;

  lua_pushcfunction(L, not_function);
  status = lua_pcall(L, 0, 1, 0);
  return outcome(L, status, PP_EUNSENDABLE);
}

int pp_codec_function(pp_codec *c, lua_State *L, int idx, int extra,
                      pp_parcel *out) {
  int rc;

  idx = lua_absindex(L, idx);
  rc = begin(c, L, 20);
  if (rc < 0)
    return rc;
  if (!lua_isfunction(L, idx))
    return refuse_value(L);
  if (extra != 0)
    extra = lua_absindex(L, extra);
  else if (cached(c, L, idx, out)) {
    lua_pushnil(L);
    return 0;
  }
  return with_function(c, L, idx, extra, out);
}

int pp_codec_captures(pp_codec *c, lua_State *L, int idx) {
  int rc;

  idx = lua_absindex(L, idx);
  rc = begin(c, L, 20);
  if (rc < 0)
    return rc;
  if (!lua_isfunction(L, idx))
    return refuse_value(L);
  return with_function(c, L, idx, 0, NULL);
}

/* --- decoding ----------------------------------------------------------- */

static void install(pp_codec *c, lua_State *L, int bindings, bool over);

static int decode_protected(lua_State *L) {
  pp_dec *d = lua_touserdata(L, 1);
  int n;

  d->L = L;
  d->ix = 2;
  lua_settop(L, 1 + DX_COUNT);
  n = pp_decode(d);
  d->rc = n;
  if (n < 0) {
    if (n == PP_ENOMEM)
      lua_pushstring(L, no_memory);
    return 1;
  }
  if (d->opening) {
    if (n == 1 && lua_isfunction(L, -2))
      return 2;
    d->rc = PP_EBAD;
    lua_pushliteral(L, "malformed bytes: no function");
    return 1;
  }
  if (!lua_isnil(L, -1))
    install(d->c, L, lua_gettop(L), false);
  lua_pop(L, 1);
  return n;
}

static int decode(pp_codec *c, lua_State *L, const void *bytes, size_t len,
                  const pp_code *codes, size_t ncodes, bool opening) {
  pp_dec d;
  int status, top = lua_gettop(L), rc;

  if (ncodes > 0 && c->role == PP_CODEC_WORKER) {
    rc = pp_know_code(c, codes, ncodes);
    if (rc == PP_ENOMEM) {
      lua_pushstring(L, no_memory);
      return rc;
    }
    if (rc < 0)
      ncodes = 0; /* what refers to it is refused */
  }
  memset(&d, 0, sizeof d);
  d.c = c;
  d.r = pp_rd_of(bytes, len);
  d.begin = d.r.p;
  d.codes = codes, d.ncodes = ncodes;
  d.opening = opening;
  d.s = pp_scratch_take(c);
  lua_pushcfunction(L, decode_protected);
  lua_pushlightuserdata(L, &d);
  status = lua_pcall(L, 1, LUA_MULTRET, 0);
  pp_scratch_give(c, &d.s);
  if (status == LUA_OK && d.rc >= 0)
    return opening ? 0 : lua_gettop(L) - top;
  return outcome(L, status, d.rc);
}

static int malformed(lua_State *L) {
  lua_pushliteral(L, "malformed bytes");
  return 1;
}

/* Scalars only: nothing that could raise. */
static int unpack_plain(lua_State *L, const void *bytes, size_t len) {
  pp_rd r = pp_rd_of((const unsigned char *)bytes + 1, len - 1);
  int top = lua_gettop(L), status;
  uint64_t n, i;

  if (pp_rd_varint(&r, &n) == 0 && n <= pp_rd_left(&r) && n < INT32_MAX / 2) {
    if (!lua_checkstack(L, (int)n + 2)) {
      lua_pushstring(L, no_memory);
      return PP_ENOMEM;
    }
    for (i = 0; i < n; i++) {
      unsigned char lead;

      if (pp_rd_byte(&r, &lead) < 0 || pp_get_scalar(&r, L, lead) <= 0)
        break;
    }
    if (i == n && pp_rd_left(&r) == 0)
      return (int)n;
    lua_settop(L, top);
  }
  lua_pushcfunction(L, malformed);
  status = lua_pcall(L, 0, 1, 0);
  return outcome(L, status, PP_EBAD);
}

int pp_codec_unpack(pp_codec *c, lua_State *L, const void *bytes, size_t len,
                    const pp_code *codes, size_t ncodes) {
  int rc;

  rc = begin(c, L, 4);
  if (rc < 0)
    return rc;
  if (len > 0 && *(const unsigned char *)bytes == (MSG_FORMAT | MSG_PLAIN))
    return unpack_plain(L, bytes, len);
  return decode(c, L, bytes, len, codes, ncodes, false);
}

int pp_codec_open(pp_codec *c, lua_State *L, const void *bytes, size_t len,
                  const pp_code *codes, size_t ncodes) {
  int rc = begin(c, L, 4);

  return rc < 0 ? rc : decode(c, L, bytes, len, codes, ncodes, true);
}

/* --- bind --------------------------------------------------------------- */

/* The first slot of a bind in REF_FRAMES, less one. */
static lua_Integer frame_at(int depth) {
  return (lua_Integer)depth * FRAME_SIZE;
}

static bool is_touched(const pp_codec *c) {
  return c->depth >= 64 || (c->touched >> c->depth & 1) != 0;
}

/* The bind at work has something to undo. */
static void touch(pp_codec *c) {
  if (c->depth > 0 && c->depth <= 64)
    c->touched |= UINT64_C(1) << (c->depth - 1);
}

/* Set table[key] = value, all on top, and note in the list of undoings at
 * index `undo` (0: none) what was there. */
static void patch(pp_codec *c, lua_State *L, int undo) {
  int table = lua_gettop(L) - 2;

  if (lua_touserdata(L, -1) == NOTHING(c) && lua_islightuserdata(L, -1)) {
    lua_pop(L, 1);
    lua_pushnil(L);
  }
  if (undo != 0) {
    lua_Integer n = (lua_Integer)lua_rawlen(L, undo);

    /* The value goes in first: an undoing is there whole or not at all. */
    lua_pushvalue(L, table + 1);
    lua_rawget(L, table);
    if (lua_isnil(L, -1)) {
      lua_pop(L, 1);
      lua_pushlightuserdata(L, NOTHING(c));
    }
    lua_createtable(L, 3, 0);
    lua_insert(L, -2);
    lua_rawseti(L, -2, 3);
    lua_pushvalue(L, table + 1);
    lua_rawseti(L, -2, 2);
    lua_pushvalue(L, table);
    lua_rawseti(L, -2, 1);
    lua_rawseti(L, undo, n + 1);
  }
  lua_rawset(L, table);
  lua_settop(L, table - 1);
}

/* Put the globals where the parcel has them. */
static void apply_fixes(lua_State *L, int fixes, int globals) {
  lua_Integer i, n = (lua_Integer)lua_rawlen(L, fixes);
  int top = lua_gettop(L);

  for (i = 0; i + 3 <= n; i += 3) {
    lua_rawgeti(L, fixes, i + 2);
    lua_rawgeti(L, fixes, i + 3);
    lua_rawgeti(L, fixes, i + 1);
    switch (lua_tointeger(L, -1)) {
    case FIX_FIELD:
      lua_pop(L, 1);
      lua_pushvalue(L, globals);
      lua_rawset(L, top + 1);
      break;
    case FIX_KEY:
      lua_pushvalue(L, globals);
      lua_pushvalue(L, top + 2);
      lua_rawset(L, top + 1);
      break;
    case FIX_UPVALUE:
      lua_pushvalue(L, globals);
      lua_setupvalue(L, top + 1, (int)lua_tointeger(L, top + 2));
      break;
    case FIX_META:
      lua_pushvalue(L, globals);
      lua_setmetatable(L, top + 1);
      break;
    default:
      lua_pushvalue(L, top + 1);
      lua_pushvalue(L, globals);
      lua_rawset(L, globals);
      break;
    }
    lua_settop(L, top);
  }
}

/* Do what the table at index `bindings` says in the globals of now. `over`:
 * also where the job has such a global. Raises. */
static void install(pp_codec *c, lua_State *L, int bindings, bool over) {
  int top = lua_gettop(L), globals = top + 1, undo = 0;
  lua_Integer i, n;

  pp_push_globals(L);
  pp_ref(c, L, REF_BASE);
  if (c->depth == 0 || lua_rawequal(L, -1, globals))
    over = true;
  lua_settop(L, globals);
  if (lua_rawgeti(L, bindings, BIND_PATCHES) == LUA_TTABLE) {
    n = (lua_Integer)lua_rawlen(L, -1);
    if (n > 0 && c->depth > 0) {
      pp_ref(c, L, REF_FRAMES);
      lua_rawgeti(L, -1, frame_at(c->depth - 1) + FRAME_UNDO);
      if (!lua_istable(L, -1)) {
        lua_pop(L, 1);
        lua_newtable(L);
        lua_pushvalue(L, -1);
        lua_rawseti(L, -3, frame_at(c->depth - 1) + FRAME_UNDO);
      }
      touch(c);
      undo = lua_gettop(L);
    }
    for (i = 0; i + 3 <= n; i += 3) {
      lua_rawgeti(L, globals + 1, i + 1);
      lua_rawgeti(L, globals + 1, i + 2);
      lua_rawgeti(L, globals + 1, i + 3);
      patch(c, L, undo);
    }
  }
  lua_settop(L, globals);
  if (lua_rawgeti(L, bindings, BIND_GLOBALS) == LUA_TTABLE) {
    n = (lua_Integer)lua_rawlen(L, -1);
    for (i = 0; i + 2 <= n; i += 2) {
      lua_rawgeti(L, globals + 1, i + 1);
      if (!over) {
        lua_pushvalue(L, -1);
        if (lua_rawget(L, globals) != LUA_TNIL) {
          lua_pop(L, 2);
          continue;
        }
        lua_pop(L, 1);
      }
      lua_rawgeti(L, globals + 1, i + 2);
      lua_rawset(L, globals);
    }
  }
  lua_settop(L, globals);
  if (lua_rawgeti(L, bindings, BIND_FIXES) == LUA_TTABLE)
    apply_fixes(L, globals + 1, globals);
  lua_settop(L, globals);
  if (c->depth > 0 && lua_rawgeti(L, bindings, BIND_KEPT) == LUA_TTABLE) {
    pp_ref(c, L, REF_FRAMES);
    lua_insert(L, -2);
    lua_rawseti(L, -2, frame_at(c->depth - 1) + FRAME_KEPT);
    touch(c);
  }
  lua_settop(L, top);
}

static int install_protected(lua_State *L) {
  pp_codec *c = lua_touserdata(L, 1);

  pp_push_globals(L);
  lua_pushliteral(L, "_G");
  lua_pushvalue(L, -2);
  lua_rawset(L, -3);
  if (lua_istable(L, 2))
    install(c, L, 2, true);
  return 0;
}

static int grow_frames(lua_State *L) {
  pp_codec *c = lua_touserdata(L, 1);
  int i;

  pp_ref(c, L, REF_FRAMES);
  for (i = 1; i <= FRAME_SIZE; i++) {
    lua_pushboolean(L, 0);
    lua_rawseti(L, -2, frame_at(c->depth) + i);
  }
  return 0;
}

/* Make the table on top the globals; pops it. */
static void set_globals(pp_codec *c, lua_State *L) {
  pp_ref(c, L, REF_ANCHOR);
  lua_pushvalue(L, -2);
  lua_setupvalue(L, -2, 1);
  lua_pop(L, 1);
  lua_rawseti(L, LUA_REGISTRYINDEX, LUA_RIDX_GLOBALS);
}

int pp_codec_bind(pp_codec *c, lua_State *L, int env, int bindings) {
  int top = lua_gettop(L), status = LUA_OK;
  bool plain;

  env = lua_absindex(L, env);
  if (bindings != 0)
    bindings = lua_absindex(L, bindings);
  if (!lua_checkstack(L, 8))
    return PP_ENOMEM;
  if (c->depth >= FRAMES_READY) {
    lua_pushcfunction(L, grow_frames);
    lua_pushlightuserdata(L, c);
    status = lua_pcall(L, 1, 0, 0);
    if (status != LUA_OK) {
      lua_settop(L, top);
      return PP_ENOMEM;
    }
  }
  pp_ref(c, L, REF_FRAMES);
  pp_push_globals(L);
  lua_rawseti(L, -2, frame_at(c->depth) + FRAME_GLOBALS);
  c->depth++;
  lua_pushvalue(L, env);
  set_globals(c, L);
  plain = bindings == 0 || lua_isnil(L, bindings);
  if (plain) {
    lua_pushliteral(L, "_G"); /* in use, so there already */
    lua_rawget(L, env);
    plain = lua_rawequal(L, -1, env);
  }
  if (!plain) {
    lua_pushcfunction(L, install_protected);
    lua_pushlightuserdata(L, c);
    if (bindings != 0)
      lua_pushvalue(L, bindings);
    status = lua_pcall(L, bindings != 0 ? 2 : 1, 0, 0);
  }
  lua_settop(L, top);
  if (status == LUA_OK)
    return 0;
  pp_codec_unbind(c, L);
  return PP_ENOMEM;
}

/* Undo the last thing in the list; it goes away first only when done. */
static int undo_protected(lua_State *L) {
  pp_codec *c = lua_touserdata(L, 1);
  lua_Integer n;

  for (n = (lua_Integer)lua_rawlen(L, 2); n > 0; n--) {
    lua_rawgeti(L, 2, n);
    lua_rawgeti(L, 3, 1);
    lua_rawgeti(L, 3, 2);
    lua_rawgeti(L, 3, 3);
    patch(c, L, 0);
    lua_pushnil(L);
    lua_rawseti(L, 2, n);
    lua_settop(L, 2);
  }
  return 0;
}

void pp_codec_unbind(pp_codec *c, lua_State *L) {
  int top = lua_gettop(L), i, tries;

  pp_assert(c->depth > 0);
  lua_checkstack(L, 8); /* what bind had */
  c->depth--;
  pp_ref(c, L, REF_FRAMES);
  if (c->depth == 0 && !is_touched(c)) {
    /* What is left in the frame is the base globals, which stay anyway. */
    lua_rawgeti(L, -1, FRAME_GLOBALS);
    set_globals(c, L);
    lua_pop(L, 1);
    return;
  }
  if (c->depth < 64)
    c->touched &= ~(UINT64_C(1) << c->depth);
  lua_rawgeti(L, -1, frame_at(c->depth) + FRAME_UNDO);
  for (tries = 0; tries < 3 && lua_istable(L, top + 2); tries++) {
    lua_pushcfunction(L, undo_protected);
    lua_pushlightuserdata(L, c);
    lua_pushvalue(L, top + 2);
    if (lua_pcall(L, 2, 0, 0) == LUA_OK)
      break;
    lua_settop(L, top + 2);
  }
  lua_settop(L, top + 1);
  lua_rawgeti(L, -1, frame_at(c->depth) + FRAME_GLOBALS);
  set_globals(c, L);
  for (i = 1; i <= FRAME_SIZE; i++) {
    lua_pushboolean(L, 0);
    lua_rawseti(L, top + 1, frame_at(c->depth) + i);
  }
  lua_settop(L, top);
}
