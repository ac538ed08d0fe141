/* SPDX-License-Identifier: MIT */
#include "bind.h"
#include "codeinfo.h"
#include "names.h"
#include "plain.h"

#define SCRATCH_KEPT 65536

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
  trim(&s->ids, keep);
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

/* They give up their blobs. */
static void disown(pp_codec *c, pp_owner *list) {
  while (list->next != list) {
    pp_owner *o = list->next;

    unlink_owner(o);
    if (o->blob != NULL)
      c->hooks.release(c->hooks.ud, o->blob);
    o->blob = NULL;
    o->c = NULL;
  }
}

void pp_codec_forget(pp_codec *c) { disown(c, &c->valued); }

void pp_owner_move(pp_owner *o, pp_owner *list) {
  unlink_owner(o);
  o->next = list->next;
  o->prev = list;
  o->next->prev = o;
  list->next = o;
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
  keep_weak(c, L, REF_EXTRAS, "k");
  keep_weak(c, L, REF_KEPT, "v");
  keep_weak(c, L, REF_KEPTIDS, "k");
  lua_newtable(L);
  lua_pushcfunction(L, collect_owner);
  lua_setfield(L, -2, "__gc");
  keep(c, L, REF_OWNER);
  if (luaL_loadbufferx(L, "return _ENV", 11, "=environment", "t") != LUA_OK)
    return lua_error(L);
  keep(c, L, REF_ANCHOR);
  lua_createtable(L, PP_FRAMES_READY * FRAME_SIZE, 0);
  for (i = 1; i <= PP_FRAMES_READY * FRAME_SIZE; i++) {
    lua_pushboolean(L, 0);
    lua_rawseti(L, -2, i);
  }
  keep(c, L, REF_FRAMES);
  lua_newtable(L);
  keep(c, L, REF_LATE);
  lua_pushliteral(L, "_G");
  keep(c, L, REF_G);
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
  c->valued.next = c->valued.prev = &c->valued;
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
  disown(c, &c->owners);
  disown(c, &c->valued);
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
int pp_outcome(lua_State *L, int status, int rc) {
  if (status == LUA_ERRMEM || (status == LUA_OK && rc == PP_ENOMEM)) {
    lua_pop(L, 1);
    lua_pushstring(L, PP_NO_MEMORY);
    return PP_ENOMEM;
  }
  return status == LUA_OK ? rc : PP_EBAD;
}

/* Push the tables the encoder works with; extra is a stack index or 0. */
void pp_encode_begin(pp_enc *e, lua_State *L, int extra, bool find) {
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
void pp_encode_said(pp_enc *e) {
  e->rc = pp_encode(e);
  if (e->rc == PP_EUNSENDABLE || e->rc == PP_ELIMIT)
    pp_refusal_push(e);
  else if (e->rc < 0)
    lua_pushstring(e->L, e->rc == PP_ENOMEM ? PP_NO_MEMORY : e->bad);
}

static int pack_protected(lua_State *L) {
  pp_enc *e = lua_touserdata(L, 1);

  pp_encode_begin(e, L, 0, false);
  pp_encode_said(e);
  if (e->rc == 0)
    lua_pushvalue(L, e->ix + IX_KEPT);
  return 1;
}

/* Start afresh: 0, or an error with its message pushed. */
int pp_slots(lua_State *L, int slots) {
  if (lua_checkstack(L, slots))
    return 0;
  lua_pushstring(L, PP_NO_MEMORY); /* LUA_MINSTACK is always there */
  return PP_ENOMEM;
}

static void drop_deps(pp_codec *c, pp_deps *d, size_t n) {
  while (d->n > n)
    c->hooks.release(c->hooks.ud, d->v[--d->n]);
}

int pp_codec_pack(pp_codec *c, lua_State *L, int first, int n, const char *what,
                  pp_buf *out, pp_deps *deps) {
  pp_deps none = {0};
  size_t start = out->len;
  pp_enc e;
  int i, rc, status;

  first = lua_absindex(L, first);
  rc = pp_slots(L, 4);
  if (rc < 0)
    return rc;
  rc = pp_plain_pack(L, first, n, out);
  if (rc != 0) {
    if (rc > 0)
      lua_pushnil(L);
    else
      lua_pushstring(L, PP_NO_MEMORY);
    return rc > 0 ? 0 : rc;
  }
  rc = pp_slots(L, n + 4);
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
  rc = pp_outcome(L, status, e.rc);
  pp_scratch_give(c, &e.s);
  if (rc < 0) {
    out->len = start;
    drop_deps(c, e.deps, e.ndeps);
  }
  if (deps == NULL)
    pp_deps_clear(c, &none);
  return rc;
}

/* --- decoding ----------------------------------------------------------- */

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
      lua_pushstring(L, PP_NO_MEMORY);
    return 1;
  }
  if (d->opening && d->any) {
    int first = lua_gettop(L) - n;

    if (n == 0) {
      lua_pushnil(L);
      lua_insert(L, -2);
    } else if (n > 1) {
      lua_replace(L, first + 1);
      lua_settop(L, first + 1);
    }
    return 2;
  }
  if (d->opening) {
    if (n == 1 && lua_isfunction(L, -2))
      return 2;
    d->rc = PP_EBAD;
    lua_pushliteral(L, "malformed bytes: no function");
    return 1;
  }
  if (!lua_isnil(L, -1))
    pp_bind_install(d->c, L, lua_gettop(L), false);
  lua_pop(L, 1);
  if (d->c->late > 0 && d->c->depth > 0 && !lua_isnil(L, d->ix + DX_KEPT)) {
    lua_pushvalue(L, d->ix + DX_KEPT); /* what is late may be among these */
    pp_bind_keep(d->c, L);
  }
  return n;
}

enum { DECODE_VALUES, DECODE_FUNCTION, DECODE_SHARED };

static int decode(pp_codec *c, lua_State *L, const void *bytes, size_t len,
                  const pp_code *codes, size_t ncodes, int how) {
  pp_dec d;
  int status, top = lua_gettop(L), rc;

  if (ncodes > 0 && c->role == PP_CODEC_WORKER) {
    rc = pp_know_code(c, codes, ncodes);
    if (rc == PP_ENOMEM) {
      lua_pushstring(L, PP_NO_MEMORY);
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
  d.opening = how != DECODE_VALUES;
  d.any = how == DECODE_SHARED;
  d.s = pp_scratch_take(c);
  lua_pushcfunction(L, decode_protected);
  lua_pushlightuserdata(L, &d);
  status = lua_pcall(L, 1, LUA_MULTRET, 0);
  pp_scratch_give(c, &d.s);
  if (status == LUA_OK && d.rc >= 0)
    return d.opening ? 0 : lua_gettop(L) - top;
  return pp_outcome(L, status, d.rc);
}

int pp_codec_unpack(pp_codec *c, lua_State *L, const void *bytes, size_t len,
                    const pp_code *codes, size_t ncodes) {
  int rc;

  rc = pp_slots(L, 4);
  if (rc < 0)
    return rc;
  if (len > 0 && *(const unsigned char *)bytes == (MSG_FORMAT | MSG_PLAIN))
    return pp_plain_unpack(L, bytes, len);
  return decode(c, L, bytes, len, codes, ncodes, DECODE_VALUES);
}

int pp_codec_open(pp_codec *c, lua_State *L, const void *bytes, size_t len,
                  const pp_code *codes, size_t ncodes) {
  int rc = pp_slots(L, 4);

  return rc < 0 ? rc : decode(c, L, bytes, len, codes, ncodes, DECODE_FUNCTION);
}

int pp_codec_open_value(pp_codec *c, lua_State *L, const void *bytes,
                        size_t len, const pp_code *codes, size_t ncodes) {
  int rc = pp_slots(L, 4);

  return rc < 0 ? rc : decode(c, L, bytes, len, codes, ncodes, DECODE_SHARED);
}
