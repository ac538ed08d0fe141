/* SPDX-License-Identifier: MIT */
/* The encoder. unmarshal.c is the decoder. */
#include "marshal.h"

#include "closure.h"
#include "names.h"

/* --- objects ------------------------------------------------------------ */

static int put_ref(pp_enc *e, uint32_t number) {
  e->refs = true;
  if (pp_buf_byte(e->out, LEAD_REF) < 0)
    return PP_ENOMEM;
  return pp_buf_varint(e->out, number);
}

static int number_object(pp_enc *e, const void *p) {
  if (e->objs == UINT32_MAX) {
    e->bad = "too many values in one message";
    return PP_ELIMIT;
  }
  return pp_ptrmap_put(&e->s.map, p, e->objs++);
}

static int put_string(pp_enc *e, int idx) {
  size_t n;
  const char *s = lua_tolstring(e->L, idx, &n);
  uint32_t number;
  int rc;

  if (n < SHORT_STR)
    return pp_put_short(e->out, s, n);
  if (pp_ptrmap_get(&e->s.map, s, &number))
    return put_ref(e, number);
  rc = number_object(e, s);
  if (rc < 0)
    return rc;
  if (pp_buf_reserve(e->out, n + 1 + PP_VARINT_MAX) < 0)
    return PP_ENOMEM;
  pp_buf_byte(e->out, LEAD_LONGSTR); /* room was reserved */
  pp_buf_varint(e->out, n);
  return pp_buf_put(e->out, s, n);
}

/* A string of any length that is no object: names. */
static int put_name(pp_enc *e, int idx) {
  size_t n;
  const char *s = lua_tolstring(e->L, idx, &n);
  int rc = pp_buf_varint(e->out, n);

  return rc < 0 ? rc : pp_buf_put(e->out, s, n);
}

int pp_refuse(pp_enc *e, const char *bad) {
  if (e->lenient > 0)
    return pp_buf_byte(e->out, LEAD_NIL);
  e->bad = bad;
  return PP_EUNSENDABLE;
}

int pp_open_frame(pp_enc *e, int kind, size_t at, lua_Integer max) {
  pp_frame f = {.kind = (uint8_t)kind, .at = at, .max = max};

  if (!lua_checkstack(e->L, 32)) {
    if (lua_gettop(e->L) < LUAI_MAXSTACK / 2)
      return PP_ENOMEM;
    e->bad = "nested too deeply";
    return PP_ELIMIT;
  }
  f.obj = lua_gettop(e->L);
  return pp_buf_put(&e->s.frames, &f, sizeof f) < 0 ? PP_ENOMEM : 1;
}

static pp_frame *top_frame(pp_enc *e) {
  return (pp_frame *)(void *)(e->s.frames.data + e->s.frames.len) - 1;
}

/* Write the object on top by name if it has one: 1 if so. */
static int put_by_name(pp_enc *e) {
  lua_State *L = e->L;
  int rc = 0;

  if (lua_rawequal(L, -1, e->ix + IX_GLOBALS)) {
    e->binds |= e->c->role == PP_CODEC_SUBMITTER;
    return pp_buf_byte(e->out, LEAD_GLOBALS) < 0 ? PP_ENOMEM : 1;
  }
  lua_pushvalue(L, -1);
  switch (lua_rawget(L, e->ix + IX_NAMES)) {
  case LUA_TSTRING:
    rc = pp_buf_byte(e->out, LEAD_NAME);
    break;
  case LUA_TBOOLEAN:
    lua_pop(L, 1);
    return pp_buf_byte(e->out, LEAD_GLOBALS) < 0 ? PP_ENOMEM : 1;
  default:
    lua_pop(L, 1);
    if (lua_isnil(L, e->ix + IX_MODULES)) {
      pp_names_modules(e->c, L);
      lua_replace(L, e->ix + IX_MODULES);
    }
    lua_pushvalue(L, -1);
    if (lua_rawget(L, e->ix + IX_MODULES) != LUA_TSTRING) {
      lua_pop(L, 1);
      return 0;
    }
    rc = pp_buf_byte(e->out, LEAD_MODULE);
  }
  if (rc == 0)
    rc = put_name(e, -1);
  lua_pop(L, 1);
  return rc < 0 ? rc : 1;
}

static int open_table(pp_enc *e) {
  size_t at = e->out->len;
  int rc = number_object(e, lua_topointer(e->L, -1));

  if (rc < 0)
    return rc;
  e->mutable = true;
  if (pp_buf_reserve(e->out, 3) < 0)
    return PP_ENOMEM;
  e->out->data[at] = LEAD_TABLE; /* it and the hints are filled at the end */
  e->out->len += 3;
  return pp_open_frame(e, FRAME_TABLE, at, 0);
}

int pp_need(pp_enc *e, pp_blob *blob, pp_hash hash, uint32_t *position) {
  pp_deps *d = e->deps;

  if (d->n == d->cap) {
    size_t cap = d->cap > 0 ? d->cap * 2 : 8;
    pp_blob **v = pp_buf_realloc(d->v, cap * sizeof *v);

    if (v == NULL)
      goto fail;
    d->v = v, d->cap = cap;
  }
  if (pp_buf_put(&e->s.hashes, &hash, sizeof hash) < 0)
    goto fail;
  *position = (uint32_t)d->n;
  d->v[d->n++] = blob;
  return 0;
fail:
  e->c->hooks.release(e->c->hooks.ud, blob);
  return PP_ENOMEM;
}

/* Take over the kept list on top; pops it. */
static void keep_all(pp_enc *e) {
  lua_State *L = e->L;
  int list = lua_gettop(L);

  if (lua_isnil(L, e->ix + IX_KEPT)) {
    lua_newtable(L);
    lua_replace(L, e->ix + IX_KEPT);
  }
  lua_pushnil(L);
  while (lua_next(L, list)) {
    lua_pushvalue(L, -2);
    lua_insert(L, -2);
    lua_rawset(L, e->ix + IX_KEPT);
  }
  lua_settop(L, list - 1);
  e->planning = false; /* a plan would have to keep it too */
}

static int put_custom(pp_enc *e) {
  pp_codec *c = e->c;
  lua_State *L = e->L;
  int top = lua_gettop(L), rc = 0;
  pp_custom x = {.bytes = &e->s.work};
  uint32_t position;

  x.bytes->len = 0;
  if (c->hooks.custom != NULL)
    rc = c->hooks.custom(c->hooks.ud, L, top, &x);
  if (rc == 0)
    return pp_refuse(e, "userdata");
  if (rc == PP_EUNSENDABLE)
    return pp_refuse(e, x.bad);
  if (rc < 0)
    return rc;
  if (x.dep != NULL) {
    rc = pp_need(e, x.dep, x.hash, &position);
    if (rc < 0 || pp_buf_varint(x.bytes, position) < 0)
      return PP_ENOMEM;
    e->valued = true;
  }
  if (x.keeps)
    keep_all(e);
  lua_settop(L, top);
  rc = number_object(e, lua_topointer(L, -1));
  if (rc < 0)
    return rc;
  if (!x.shared)
    e->mutable = true; /* it may stand for a table */
  if (pp_buf_byte(e->out, LEAD_CUSTOM) < 0 ||
      pp_buf_varint(e->out, x.bytes->len) < 0)
    return PP_ENOMEM;
  return pp_buf_put(e->out, x.bytes->data, x.bytes->len);
}

int pp_put_field(pp_enc *e) {
  int rc;

  if (!pp_names_field(e->c, e->L, -1))
    return 0;
  rc = pp_buf_byte(e->out, LEAD_FIELD);
  if (rc == 0)
    rc = put_name(e, -1);
  lua_pop(e->L, 1);
  return rc < 0 ? rc : 1;
}

static int put_c_function(pp_enc *e) {
  int rc = pp_put_field(e);

  return rc < 0 ? rc : rc == 0 ? pp_refuse(e, "C function") : 0;
}

int pp_put_value(pp_enc *e) {
  lua_State *L = e->L;
  int t = lua_type(L, -1), rc;
  uint32_t number;

  switch (t) {
  case LUA_TNIL:
  case LUA_TBOOLEAN:
  case LUA_TNUMBER:
    return pp_put_scalar(e->out, L, -1, t);
  case LUA_TSTRING:
    return put_string(e, -1);
  case LUA_TTHREAD:
    return pp_refuse(e, "coroutine");
  case LUA_TLIGHTUSERDATA:
    return pp_refuse(e, "light userdata");
  default:
    break;
  }
  if (pp_ptrmap_get(&e->s.map, lua_topointer(L, -1), &number))
    return put_ref(e, number);
  rc = put_by_name(e);
  if (rc != 0)
    return rc < 0 ? rc : 0;
  if (t == LUA_TTABLE)
    return open_table(e);
  if (t == LUA_TUSERDATA)
    return put_custom(e);
  if (lua_iscfunction(L, -1))
    return put_c_function(e);
  rc = pp_put_function(e);
  return rc;
}

/* --- tables ------------------------------------------------------------- */

lua_Integer pp_keep(pp_enc *e, int idx) {
  lua_State *L = e->L;
  lua_Integer id;

  idx = lua_absindex(L, idx);
  lua_pushvalue(L, idx);
  if (lua_rawget(L, e->ix + IX_KEPTIDS) == LUA_TNUMBER) {
    id = lua_tointeger(L, -1);
  } else {
    id = ++e->c->last_id;
    pp_ref(e->c, L, REF_KEPT); /* first, in case memory ends in between */
    lua_pushvalue(L, idx);
    lua_rawseti(L, -2, id);
    lua_pop(L, 1);
    lua_pushvalue(L, idx);
    lua_pushinteger(L, id);
    lua_rawset(L, e->ix + IX_KEPTIDS);
  }
  lua_pop(L, 1);
  if (lua_isnil(L, e->ix + IX_KEPT)) {
    lua_newtable(L);
    lua_replace(L, e->ix + IX_KEPT);
  }
  lua_pushvalue(L, idx);
  lua_rawseti(L, e->ix + IX_KEPT, id);
  if (pp_name_id(e, id) < 0)
    luaL_error(L, PP_NO_MEMORY);
  return id;
}

/* A count in one byte: exactly up to 127, else 128 + the power of two it is
 * not above. */
static unsigned char hint(lua_Integer n) {
  unsigned log = 0;

  if (n < 128)
    return (unsigned char)n;
  while (((lua_Integer)1 << log) < n)
    log++;
  return (unsigned char)(128 + log);
}

static int put_named_meta(pp_enc *e, pp_frame *f) {
  int rc = pp_buf_byte(e->out, META_NAMED);

  if (rc == 0)
    rc = put_name(e, -1);
  lua_pop(e->L, 1);
  if (rc < 0)
    return rc;
  if (e->c->role == PP_CODEC_SUBMITTER)
    return pp_buf_byte(e->out, LEAD_NIL); /* no copy: it is there; 0 */
  f->phase = AT_META;
  f->flags |= IS_LENIENT;
  e->lenient++;
  return 2;
}

/* Push the name under which the other side may have the table on top, if any:
 * looked for once in a message. */
static bool push_meta_name(pp_enc *e) {
  lua_State *L = e->L;
  int mt = lua_gettop(L);
  bool found;

  if (lua_isnil(L, e->ix + IX_NAMED)) {
    lua_newtable(L);
    lua_replace(L, e->ix + IX_NAMED);
  }
  lua_pushvalue(L, mt);
  if (lua_rawget(L, e->ix + IX_NAMED) != LUA_TNIL) {
    found = lua_isstring(L, -1);
    if (!found)
      lua_pop(L, 1);
    return found;
  }
  lua_pop(L, 1);
  found = false;
  if (e->c->role == PP_CODEC_WORKER) {
    pp_names_modules(e->c, L);
    lua_pushvalue(L, mt);
    found = lua_rawget(L, -2) == LUA_TSTRING;
    lua_remove(L, -2);
    if (!found)
      lua_pop(L, 1);
  }
  if (!found)
    found = pp_names_field(e->c, L, mt) ||
            (e->c->role == PP_CODEC_WORKER && pp_names_global(e->c, L, mt));
  lua_pushvalue(L, mt);
  if (found)
    lua_pushvalue(L, -2);
  else
    lua_pushboolean(L, 0);
  lua_rawset(L, e->ix + IX_NAMED);
  return found;
}

/* Write the metatable on top. 1: it has a frame; the table of the frame f is
 * below it. */
static int put_meta(pp_enc *e, pp_frame *f) {
  lua_State *L = e->L;
  bool submits = e->c->role == PP_CODEC_SUBMITTER;
  uint32_t number = 0;
  bool seen = pp_ptrmap_get(&e->s.map, lua_topointer(L, -1), &number);
  int rc;

  f->phase = AT_META;
  if (!submits) {
    lua_pushvalue(L, -1);
    if (lua_rawget(L, e->ix + IX_KEPTIDS) == LUA_TNUMBER) {
      lua_Integer id = lua_tointeger(L, -1);

      lua_pop(L, 1);
      if (pp_buf_byte(e->out, META_ID) < 0 || pp_name_id(e, id) < 0)
        return PP_ENOMEM;
      return pp_buf_varint(e->out, (uint64_t)id);
    }
    lua_pop(L, 1);
  }
  if (pp_buf_reserve(e->out, 2 + PP_VARINT_MAX) < 0)
    return PP_ENOMEM;
  if (!seen || !submits) {
    /* By name alone, if both sides are sure to have it. */
    size_t at = e->out->len;

    pp_buf_byte(e->out, META_VALUE); /* room was reserved */
    pp_buf_byte(e->out, 0);
    lua_pushvalue(L, -1);
    if (lua_rawget(L, e->ix + IX_NAMES) != LUA_TNIL || submits ||
        lua_rawequal(L, -2, e->ix + IX_GLOBALS)) {
      lua_pop(L, 1);
      rc = put_by_name(e);
      if (rc != 0)
        return rc < 0 ? rc : 0;
    } else {
      lua_pop(L, 1);
    }
    e->out->len = at;
    /* By a name that the other side may have. */
    if (push_meta_name(e)) {
      rc = put_named_meta(e, f);
      if (rc <= 0)
        return rc;
      return seen ? put_ref(e, number) : open_table(e);
    }
  }
  if (pp_buf_byte(e->out, META_VALUE) < 0 ||
      pp_buf_varint(e->out, submits ? (uint64_t)pp_keep(e, -1) : 0) < 0)
    return PP_ENOMEM;
  return seen ? put_ref(e, number) : open_table(e);
}

/* The entries are written and the table is on top. */
static int close_table(pp_enc *e, pp_frame *f) {
  unsigned char *lead;
  lua_State *L = e->L;
  int rc = 0;

  if (f->phase != AT_META) {
    bool meta = lua_getmetatable(L, -1);

    lead = e->out->data + f->at;
    if (!meta && f->n == 0 && f->max == 0) {
      *lead = LEAD_EMPTY;
      e->out->len = f->at + 1;
      return 0;
    }
    if (e->c->role != PP_CODEC_SUBMITTER)
      f->flags &= (uint8_t)~HAS_ID;
    lead[0] = (unsigned char)(LEAD_TABLE + (meta ? 1 : 0) +
                              (f->flags & HAS_ID ? 2 : 0));
    lead[1] = hint(f->n);
    lead[2] = hint(f->max);
    if (pp_buf_byte(e->out, LEAD_END) < 0)
      return PP_ENOMEM;
    if (meta) {
      rc = put_meta(e, f);
      if (rc != 0)
        return rc;
      f = top_frame(e);
      lua_pop(L, 1);
    }
  } else {
    lua_pop(L, 1); /* the metatable */
  }
  if (f->flags & IS_LENIENT)
    e->lenient--;
  if (f->flags & HAS_ID)
    rc = pp_buf_varint(e->out, (uint64_t)pp_keep(e, -1));
  return rc;
}

/* The value on top, a number, is that of the next implicit key, below it: write
 * it and the numbers that follow it so. 1: what comes next is on the stack, 0:
 * the table has come to its end. */
static int put_numbers(pp_enc *e, pp_frame *f) {
  lua_State *L = e->L;
  pp_runs runs;
  lua_Integer n = f->n;
  bool more;

  runs.out = e->out;
  runs.n = 0;
  runs.floats = false;
  do {
    n++;
    if (pp_put_number(&runs, L) < 0)
      return PP_ENOMEM;
    lua_pop(L, 1);
    more = lua_next(L, -2) != 0;
  } while (more && lua_type(L, -1) == LUA_TNUMBER && lua_isinteger(L, -2) &&
           lua_tointegerx(L, -2, NULL) == n + 1);
  f->n = n;
  if (pp_runs_flush(&runs) < 0)
    return PP_ENOMEM;
  return more;
}

/* Go on with the table of the frame on top until it is written (0) or
 * something in it has a frame of its own (1). */
static int step_table(pp_enc *e) {
  lua_State *L = e->L;
  pp_frame *f = top_frame(e);
  int t, rc;

  switch (f->phase) {
  case AT_START:
    lua_pushnil(L);
    break;
  case AT_KEY:
    lua_pop(L, 1);
    goto value;
  case AT_VALUE:
    lua_pop(L, 1);
    break;
  default:
    return close_table(e, f);
  }
  for (;;) {
    f->phase = AT_START;
    if (!lua_next(L, -2))
      return close_table(e, f);
  next:
    t = lua_type(L, -2);
    if (!(f->flags & IN_PAIRS)) {
      if (t == LUA_TNUMBER && lua_isinteger(L, -2) &&
          lua_tointegerx(L, -2, NULL) == f->n + 1) {
        if (lua_type(L, -1) != LUA_TNUMBER) {
          f->n++;
          goto value;
        }
        rc = put_numbers(e, f);
        if (rc > 0)
          goto next;
        return rc < 0 ? rc : close_table(e, f);
      }
      f->flags |= IN_PAIRS;
      if (pp_buf_byte(e->out, LEAD_PAIRS) < 0)
        return PP_ENOMEM;
    }
    f->max++;
    if (t == LUA_TSTRING) {
      size_t n;
      const char *s = lua_tolstring(L, -2, &n);

      if (n >= 2 && s[0] == '_' && s[1] == '_')
        f->flags |= HAS_ID;
      f->phase = AT_KEY;
      rc = n < SHORT_STR ? pp_put_short(e->out, s, n) : put_string(e, -2);
    } else if (t == LUA_TNUMBER || t == LUA_TBOOLEAN) {
      rc = pp_put_scalar(e->out, L, -2, t);
    } else {
      f->phase = AT_KEY;
      lua_pushvalue(L, -2);
      rc = pp_put_value(e);
      if (rc != 0)
        return rc;
      f = top_frame(e);
      lua_pop(L, 1);
    }
    if (rc < 0)
      return rc;
  value:
    f->phase = AT_VALUE;
    t = lua_type(L, -1);
    if (t == LUA_TNUMBER || t == LUA_TBOOLEAN) {
      rc = pp_put_scalar(e->out, L, -1, t);
    } else {
      rc = pp_put_value(e);
      if (rc > 0)
        return rc;
      f = top_frame(e);
    }
    if (rc < 0)
      return rc;
    lua_pop(L, 1);
  }
}

static int step_function(pp_enc *e) {
  lua_State *L = e->L;
  pp_frame *f = top_frame(e);

  if (f->phase == AT_VALUE)
    lua_pop(L, 1);
  f->phase = AT_VALUE;
  while (f->n < f->max) {
    int up = (int)++f->n, rc;
    const void *cell = lua_upvalueid(L, f->obj, up);
    const char *name = lua_getupvalue(L, f->obj, up);
    uint32_t number;

    if (lua_istable(L, -1) && name != NULL &&
        (lua_rawequal(L, -1, e->ix + IX_GLOBALS) ||
         lua_rawequal(L, -1, e->ix + IX_BASE)) &&
        (strcmp(name, "_ENV") == 0 || strcmp(name, "(no name)") == 0)) {
      rc = pp_buf_byte(e->out, LEAD_ENV);
    } else if (pp_ptrmap_get(&e->s.map, cell, &number)) {
      e->refs = true;
      rc = pp_buf_byte(e->out, LEAD_CELL);
      if (rc == 0)
        rc = pp_buf_varint(e->out, number);
    } else {
      if (pp_ptrmap_put(&e->s.map, cell, e->cells++) < 0)
        return PP_ENOMEM;
      rc = pp_put_value(e);
      if (rc > 0)
        return rc;
      f = top_frame(e);
    }
    if (rc < 0)
      return rc;
    lua_pop(L, 1);
  }
  return 0;
}

int pp_put_whole(pp_enc *e) {
  size_t base = e->s.frames.len;
  int rc = pp_put_value(e);

  while (rc >= 0 && e->s.frames.len > base) {
    rc = top_frame(e)->kind == FRAME_TABLE ? step_table(e) : step_function(e);
    if (rc == 0)
      e->s.frames.len -= sizeof(pp_frame);
  }
  return rc;
}

/* What is named must be known where this is opened: a worker's results tell
 * which code and tables, a submitter's messages which tables are in them. */
static int put_names(pp_enc *e) {
  pp_buf none = {0};
  bool works = e->c->role == PP_CODEC_WORKER;
  int rc;

  if (e->s.ids.len == 0 && (!works || e->s.hashes.len == 0))
    return 0;
  rc = pp_message_put_names(e->out, works ? &e->s.hashes : &none, &e->s.ids);
  if (rc == 0)
    e->out->data[e->start] |= MSG_NAMES;
  return rc;
}

/* Append what is not among the last few: most of what repeats, repeats soon. */
static int name(pp_buf *list, const void *p, size_t size) {
  size_t i, first = list->len > 16 * size ? list->len - 16 * size : 0;

  for (i = first; i < list->len; i += size)
    if (memcmp(list->data + i, p, size) == 0)
      return 0;
  return pp_buf_put(list, p, size);
}

int pp_name_code(pp_enc *e, pp_hash hash) {
  return name(&e->s.hashes, &hash, sizeof hash);
}

int pp_name_id(pp_enc *e, lua_Integer id) {
  uint64_t v = (uint64_t)id;

  return name(&e->s.ids, &v, sizeof v);
}

int pp_encode(pp_enc *e) {
  lua_State *L = e->L;
  int i, rc;

  e->start = e->out->len;
  if (pp_buf_byte(e->out, MSG_FORMAT) < 0 ||
      pp_buf_varint(e->out, (uint64_t)e->n) < 0)
    return PP_ENOMEM;
  for (i = 0; i < e->n; i++) {
    e->root = i + 1;
    lua_pushvalue(L, e->first + i);
    rc = pp_put_whole(e);
    if (rc < 0)
      return rc;
    lua_pop(L, 1);
  }
  e->root = 0;
  rc = pp_put_bindings(e);
  if (rc < 0)
    return rc;
  e->out->data[e->start] =
      (unsigned char)(MSG_FORMAT | (e->refs ? MSG_REFS : 0) |
                      (rc > 0 ? MSG_BINDS : 0));
  return put_names(e);
}
