/* SPDX-License-Identifier: MIT */
#include "codeinfo.h"

#include "bytecode.h"

/* --- what is sent ------------------------------------------------------- */

static int write_dump(lua_State *L, const void *p, size_t n, void *ud) {
  (void)L;
  return pp_buf_put(ud, p, n);
}

int pp_dump(pp_enc *e) {
  e->s.dump.len = 0;
  if (lua_dump(e->L, write_dump, &e->s.dump, 0) != 0)
    return PP_ENOMEM;
  return 0;
}

typedef struct study {
  pp_enc *e;
  int strings; /* stack index: string -> index, index -> string */
  uint32_t nstrings;
  bool assigns;
} study;

static uint32_t string_index(study *s, pp_bc_str str) {
  lua_State *L = s->e->L;
  uint32_t i;

  lua_pushlstring(L, str.p, str.n);
  lua_pushvalue(L, -1);
  if (lua_rawget(L, s->strings) == LUA_TNUMBER) {
    i = (uint32_t)lua_tointeger(L, -1);
    lua_pop(L, 2);
    return i;
  }
  lua_pop(L, 1);
  i = ++s->nstrings;
  lua_pushvalue(L, -1);
  lua_pushinteger(L, i);
  lua_rawset(L, s->strings);
  lua_rawseti(L, s->strings, i);
  return i;
}

static int study_use(void *ud, const pp_bc_use *use) {
  study *s = ud;
  lua_State *L = s->e->L;
  pp_reach r = {.kind = (uint16_t)use->kind, .up = (uint16_t)use->up};

  if (use->kind == PP_BC_ASSIGN) {
    s->assigns = true;
    return 0;
  }
  if (use->kind == PP_BC_STORE)
    return 0; /* what it was before is not seen by that */
  if (use->name.p != NULL)
    r.name = string_index(s, use->name);
  if (use->field.p != NULL)
    r.field = string_index(s, use->field);
  lua_pushlstring(L, (const char *)&r, sizeof r); /* each once */
  lua_pushvalue(L, -1);
  if (lua_rawget(L, s->strings + 1) != LUA_TNIL) {
    lua_pop(L, 2);
    return 0;
  }
  lua_pop(L, 1);
  lua_pushboolean(L, 1);
  lua_rawset(L, s->strings + 1);
  return pp_buf_put(use->kind == PP_BC_FIELD  ? &s->e->s.fields
                    : use->kind == PP_BC_SELF ? &s->e->s.selfs
                                              : &s->e->s.reach,
                    &r, sizeof r);
}

static const void *bytes_or(const pp_buf *b) {
  return b->len > 0 ? b->data : (const void *)"";
}

/* Make the pp_codeinfo of the code in the scratch and push it. */
static int study_code(pp_enc *e, pp_hash hash, pp_codeinfo **out) {
  lua_State *L = e->L;
  pp_codec *c = e->c;
  pp_scratch *sc = &e->s;
  study s = {.e = e};
  size_t n;
  pp_codeinfo *k;
  int rc;

  lua_newtable(L);
  s.strings = lua_gettop(L);
  lua_newtable(L); /* uses already seen */
  sc->reach.len = sc->fields.len = sc->selfs.len = 0;
  rc = pp_bc_uses(sc->dump.data, sc->dump.len, &sc->work, study_use, &s);
  if (rc == PP_ENOMEM)
    return rc;
  if (rc < 0) {
    e->bad = "function whose bytecode cannot be read";
    return PP_EUNSENDABLE;
  }
  n = sc->reach.len + sc->fields.len + sc->selfs.len;
  k = (pp_codeinfo *)pp_owner_new(c, L, sizeof *k + n, 1);
  k->hash = hash;
  k->len = sc->dump.len;
  k->assigns = s.assigns;
  k->nreach = (uint32_t)(sc->reach.len / sizeof *k->reach);
  k->nfields = (uint32_t)(sc->fields.len / sizeof *k->reach);
  k->nselfs = (uint32_t)(sc->selfs.len / sizeof *k->reach);
  memcpy(k->reach, bytes_or(&sc->reach), sc->reach.len);
  memcpy(k->reach + k->nreach, bytes_or(&sc->fields), sc->fields.len);
  memcpy(k->reach + k->nreach + k->nfields, bytes_or(&sc->selfs),
         sc->selfs.len);
  lua_pushvalue(L, s.strings);
  lua_setiuservalue(L, -2, 1);
  k->own.blob = c->hooks.intern(c->hooks.ud, 'c', hash, sc->dump.data,
                                sc->dump.len, NULL, 0);
  if (k->own.blob == NULL)
    return PP_ENOMEM;
  lua_replace(L, s.strings);
  lua_settop(L, s.strings);
  *out = k;
  return 0;
}

int pp_codeinfo_push(pp_enc *e, pp_codeinfo **out) {
  lua_State *L = e->L;
  int f = lua_gettop(L), rc;
  pp_hash hash;

  lua_pushvalue(L, f);
  if (lua_rawget(L, e->ix + IX_CODE) == LUA_TUSERDATA) {
    *out = lua_touserdata(L, -1);
    return 0;
  }
  lua_pop(L, 1);
  rc = pp_dump(e);
  if (rc < 0)
    return rc;
  hash = pp_hash_of(e->s.dump.data, e->s.dump.len, 0);
  pp_ref(e->c, L, REF_CODES);
  lua_pushlstring(L, (const char *)&hash, sizeof hash);
  lua_pushvalue(L, -1);
  if (lua_rawget(L, -3) == LUA_TUSERDATA) {
    *out = lua_touserdata(L, -1);
  } else {
    lua_pop(L, 1);
    rc = study_code(e, hash, out);
    if (rc < 0)
      return rc;
    lua_pushvalue(L, -2); /* hash */
    lua_pushvalue(L, -2);
    lua_rawset(L, f + 1);
  }
  lua_replace(L, f + 1);
  lua_settop(L, f + 1);
  lua_pushvalue(L, f);
  lua_pushvalue(L, f + 1);
  lua_rawset(L, e->ix + IX_CODE);
  return 0;
}

/* --- what a worker was given -------------------------------------------- */

static const pp_known *find_known(const pp_index *x, pp_hash key, bool blob) {
  size_t i;

  if (x->slots == NULL)
    return NULL;
  for (i = (size_t)key.lo & x->mask; x->slots[i].used; i = (i + 1) & x->mask)
    if (pp_hash_eq(x->slots[i].key, key) &&
        (x->slots[i].position == PP_KNOWN_BLOB) == blob)
      return &x->slots[i];
  return NULL;
}

const pp_known *pp_known_find(const pp_codec *c, pp_hash canon) {
  const pp_known *k = find_known(&c->known[0], canon, false);

  return k != NULL ? k : find_known(&c->known[1], canon, false);
}

#define GENERATION 65536 /* prototypes; those of two generations are known */

static int add_known(pp_index *x, const pp_known *k) {
  size_t i;

  if (x->slots == NULL || x->n * 2 > x->mask) {
    size_t cap = x->slots != NULL ? (x->mask + 1) * 2 : 16;
    pp_index bigger = {.mask = cap - 1};

    bigger.slots = pp_buf_realloc(NULL, cap * sizeof *x->slots);
    if (bigger.slots == NULL)
      return PP_ENOMEM;
    memset(bigger.slots, 0, cap * sizeof *x->slots);
    for (i = 0; x->slots != NULL && i <= x->mask; i++)
      if (x->slots[i].used)
        add_known(&bigger, &x->slots[i]);
    if (x->slots != NULL)
      pp_buf_realloc(x->slots, 0);
    *x = bigger;
  }
  for (i = (size_t)k->key.lo & x->mask; x->slots[i].used; i = (i + 1) & x->mask)
    ;
  x->slots[i] = *k;
  x->n++;
  return 0;
}

typedef struct learn {
  pp_index *index;
  pp_hash blob;
} learn;

static int learn_proto(void *ud, const pp_bc_proto *p) {
  learn *l = ud;
  pp_known k = {p->canon, l->blob, p->position, 1};

  if (find_known(l->index, p->canon, false) != NULL)
    return 0;
  return add_known(l->index, &k);
}

int pp_know_code(pp_codec *c, const pp_code *codes, size_t n) {
  size_t i;
  int rc;

  for (i = 0; i < n; i++) {
    learn l = {&c->known[0], codes[i].hash};
    pp_known k = {codes[i].hash, codes[i].hash, PP_KNOWN_BLOB, 1};

    if (codes[i].data == NULL ||
        find_known(&c->known[0], codes[i].hash, true) != NULL)
      continue;
    if (c->known[0].n > GENERATION) {
      if (c->known[1].slots != NULL)
        pp_buf_realloc(c->known[1].slots, 0);
      c->known[1] = c->known[0];
      memset(&c->known[0], 0, sizeof c->known[0]);
    }
    rc = pp_bc_protos(codes[i].data, codes[i].len, learn_proto, &l);
    if (rc < 0)
      return rc;
    rc = add_known(&c->known[0], &k);
    if (rc < 0)
      return rc;
  }
  return 0;
}
