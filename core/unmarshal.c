/* SPDX-License-Identifier: MIT */
/* The decoder. Its bytes are never trusted. */
#include "marshal.h"

#include "bind.h"
#include "closure.h"
#include "names.h"
#include "state.h"

/* An error of these bytes, with its message on top. */
int pp_malformed(pp_dec *d, const char *what) {
  lua_pushfstring(d->L, "malformed bytes at offset %d: %s",
                  (int)(d->r.p - d->begin), what);
  return PP_EBAD;
}

int pp_get_name(pp_dec *d, const char **s, size_t *n) {
  const unsigned char *p;
  uint64_t len;

  if (pp_rd_varint(&d->r, &len) < 0 || len > pp_rd_left(&d->r) ||
      pp_rd_bytes(&d->r, (size_t)len, &p) < 0)
    return pp_malformed(d, "name cut short");
  *s = (const char *)p, *n = (size_t)len;
  return 0;
}

static pp_frame *top_frame(pp_dec *d) {
  return (pp_frame *)(void *)(d->s.frames.data + d->s.frames.len) - 1;
}

/* Number the object on top. */
static void record(pp_dec *d) {
  if (!d->refs)
    return;
  lua_pushvalue(d->L, -1);
  lua_rawseti(d->L, d->ix + DX_OBJS, (lua_Integer)++d->objs);
}

static int open_frame(pp_dec *d, int kind, unsigned flags, lua_Integer max) {
  pp_frame f = {.kind = (uint8_t)kind, .flags = (uint8_t)flags, .max = max};

  if (!lua_checkstack(d->L, 32)) {
    if (lua_gettop(d->L) < LUAI_MAXSTACK / 2)
      return PP_ENOMEM;
    lua_pop(d->L, 1);
    lua_pushliteral(d->L, "nested too deeply");
    return PP_ELIMIT;
  }
  f.obj = lua_gettop(d->L);
  if (pp_buf_put(&d->s.frames, &f, sizeof f) < 0)
    return PP_ENOMEM;
  return 1;
}

/* How many slots a hint asks for, out of what the bytes left can fill. */
static int announced(pp_dec *d, unsigned char h, size_t each, int *out) {
  size_t n = h, least = h;

  if (h >= 128) {
    if (h > 128 + 29)
      return PP_EBAD;
    n = (size_t)1 << (h - 128);
    least = n / 2 + 1;
  }
  if (least * each > d->budget || least * each > pp_rd_left(&d->r))
    return PP_EBAD;
  d->budget -= least * each;
  *out = (int)n;
  return 0;
}

static int open_table(pp_dec *d, unsigned lead) {
  const unsigned char *h;
  int array, pairs;

  if (pp_rd_bytes(&d->r, 2, &h) < 0 || announced(d, h[0], 1, &array) < 0 ||
      announced(d, h[1], 2, &pairs) < 0)
    return pp_malformed(d, "size of a table");
  lua_createtable(d->L, array, pairs);
  record(d);
  return open_frame(d, FRAME_TABLE,
                    ((lead - LEAD_TABLE) & 1 ? HAS_META : 0u) |
                        ((lead - LEAD_TABLE) & 2 ? HAS_ID : 0u),
                    0);
}

static int get_named(pp_dec *d, unsigned lead) {
  lua_State *L = d->L;
  const char *s, *zero;
  size_t n;
  int rc = pp_get_name(d, &s, &n);

  if (rc < 0)
    return rc;
  if (lead == LEAD_NAME) {
    if (pp_names_pristine(d->c, L, s, n))
      return 0;
    lua_pushlstring(L, s, n);
    lua_pushfstring(L, "nothing here is called '%s'", lua_tostring(L, -1));
    return PP_EBAD;
  }
  zero = memchr(s, '\0', n);
  if ((lead == LEAD_FIELD) != (zero != NULL))
    return pp_malformed(d, "name of a module");
  if (!pp_names_module(d->c, L, s, zero != NULL ? (size_t)(zero - s) : n))
    return PP_EBAD;
  pp_names_step(L, s, n);
  if (!lua_isnil(L, -1))
    return 0;
  lua_pushlstring(L, s, (size_t)(zero != NULL ? zero - s : 0));
  lua_pushlstring(L, zero != NULL ? zero + 1 : "",
                  zero != NULL ? n - (size_t)(zero + 1 - s) : 0);
  lua_pushfstring(L, "module '%s' has no field '%s' here", lua_tostring(L, -2),
                  lua_tostring(L, -1));
  return PP_EBAD;
}

static int get_string(pp_dec *d) {
  const unsigned char *p;
  uint64_t n;

  if (pp_rd_varint(&d->r, &n) < 0 || n > pp_rd_left(&d->r) ||
      pp_rd_bytes(&d->r, (size_t)n, &p) < 0)
    return pp_malformed(d, "string cut short");
  pp_state_push(d->L, p, (size_t)n);
  record(d);
  return 0;
}

static int get_ref(pp_dec *d) {
  uint64_t n;

  if (pp_rd_varint(&d->r, &n) < 0 || n >= d->objs)
    return pp_malformed(d, "reference to nothing");
  lua_rawgeti(d->L, d->ix + DX_OBJS, (lua_Integer)n + 1);
  return 0;
}

static int get_custom(pp_dec *d) {
  const unsigned char *p;
  uint64_t n;
  int top = lua_gettop(d->L);

  if (pp_rd_varint(&d->r, &n) < 0 || n > pp_rd_left(&d->r) ||
      pp_rd_bytes(&d->r, (size_t)n, &p) < 0)
    return pp_malformed(d, "custom value cut short");
  if (d->c->hooks.opened == NULL ||
      d->c->hooks.opened(d->c->hooks.ud, d->L, p, (size_t)n) < 0) {
    lua_settop(d->L, top);
    return pp_malformed(d, "custom value unknown here");
  }
  record(d);
  d->was_custom = true;
  return 0;
}

/* Read a value and push it. 0, 1 when a frame is open for it, or an error. */
static int get_value(pp_dec *d) {
  unsigned char lead;
  lua_State *L = d->L;
  const unsigned char *p;
  int rc;

  d->by_value = d->was_globals = d->was_custom = false;
  if (pp_rd_byte(&d->r, &lead) < 0)
    return pp_malformed(d, "cut short");
  rc = pp_get_scalar(&d->r, L, lead);
  if (rc != 0)
    return rc > 0 ? 0 : pp_malformed(d, "number cut short");
  if (lead <= LEAD_STR_MAX) {
    if (pp_rd_bytes(&d->r, lead - LEAD_STR, &p) < 0)
      return pp_malformed(d, "string cut short");
    lua_pushlstring(L, (const char *)p, lead - LEAD_STR);
    return 0;
  }
  switch (lead) {
  case LEAD_LONGSTR:
    return get_string(d);
  case LEAD_REF:
    d->by_value = true;
    return get_ref(d);
  case LEAD_EMPTY:
    d->by_value = true;
    lua_newtable(L);
    record(d);
    return 0;
  case LEAD_TABLE:
  case LEAD_TABLE + 1:
  case LEAD_TABLE + 2:
  case LEAD_TABLE + 3:
    return open_table(d, lead);
  case LEAD_NAME:
  case LEAD_MODULE:
  case LEAD_FIELD:
    return get_named(d, lead);
  case LEAD_GLOBALS:
    d->was_globals = true;
    pp_push_globals(L);
    return 0;
  case LEAD_FUNC:
  case LEAD_FUNC_AT:
  case LEAD_FUNC_TEXT:
    rc = pp_get_function(d, lead);
    if (rc < 0)
      return rc;
    record(d);
    return open_frame(d, FRAME_FUNC, 0, rc);
  case LEAD_CUSTOM:
    return get_custom(d);
  default:
    return pp_malformed(d, "unknown kind of value");
  }
}

/* --- where a value goes ------------------------------------------------- */

/* The globals table belongs in `where` at stack index obj: note it, to be put
 * there when it is known. `what` is a stack index or, for an upvalue, its
 * number. */
void pp_fix(pp_dec *d, int kind, int obj, int what) {
  lua_State *L = d->L;
  int fixes = d->ix + DX_FIXES;

  if (lua_isnil(L, fixes)) {
    lua_newtable(L);
    lua_replace(L, fixes);
  }
  lua_pushinteger(L, kind);
  lua_rawseti(L, fixes, (lua_Integer)++d->nfix);
  lua_pushvalue(L, obj);
  lua_rawseti(L, fixes, (lua_Integer)++d->nfix);
  if (kind == FIX_UPVALUE)
    lua_pushinteger(L, what);
  else
    lua_pushvalue(L, what);
  lua_rawseti(L, fixes, (lua_Integer)++d->nfix);
}

/* Note that the table at idx has that id. */
static void note_id(pp_dec *d, int idx, lua_Integer id) {
  lua_State *L = d->L;

  if (d->c->role != PP_CODEC_WORKER || !lua_istable(L, idx))
    return;
  idx = lua_absindex(L, idx);
  pp_ref(d->c, L, REF_KEPTIDS);
  lua_pushvalue(L, idx);
  lua_pushinteger(L, id);
  lua_rawset(L, -3);
  lua_pop(L, 1);
  if (lua_isnil(L, d->ix + DX_KEPT)) {
    lua_newtable(L);
    lua_replace(L, d->ix + DX_KEPT);
  }
  lua_pushvalue(L, idx);
  lua_rawseti(L, d->ix + DX_KEPT, id);
}

/* Give the table below it the metatable on top, later; pops that. */
static void pend(pp_dec *d, lua_Integer id, bool by_value) {
  lua_State *L = d->L;
  int list = d->ix + DX_PEND;

  if (lua_isnil(L, list)) {
    lua_newtable(L);
    lua_replace(L, list);
  }
  lua_pushvalue(L, -2);
  lua_rawseti(L, list, (lua_Integer)++d->npend);
  lua_rawseti(L, list, (lua_Integer)++d->npend);
  lua_pushinteger(L, id);
  lua_rawseti(L, list, (lua_Integer)++d->npend);
  lua_pushboolean(L, by_value);
  lua_rawseti(L, list, (lua_Integer)++d->npend);
}

static int get_id(pp_dec *d, lua_Integer *id) {
  uint64_t v;

  if (pp_rd_varint(&d->r, &v) < 0 || v > INT64_MAX)
    return pp_malformed(d, "id");
  *id = (lua_Integer)v;
  return 0;
}

/* Push the table that has the id in the registry of kept ones, or refuse. */
static int push_kept(pp_dec *d, lua_Integer id) {
  if (d->c->role == PP_CODEC_WORKER) { /* another's result */
    lua_pushlightuserdata(d->L, NOTHING(d->c));
    return 0;
  }
  pp_ref(d->c, d->L, REF_KEPT);
  lua_rawgeti(d->L, -1, id);
  lua_remove(d->L, -2);
  return lua_istable(d->L, -1) ? 0
                               : pp_malformed(d, "metatable that is no more");
}

/* The metatable of the table on top: read how it is given. 1: its value comes
 * next (phase AT_META), 0: it is done. */
static int begin_meta(pp_dec *d, pp_frame *f) {
  unsigned char form;
  const char *s;
  size_t n;
  lua_Integer id;
  int rc;

  if (pp_rd_byte(&d->r, &form) < 0)
    return pp_malformed(d, "metatable");
  switch (form) {
  case META_VALUE:
    rc = get_id(d, &id);
    if (rc < 0)
      return rc;
    f->n = id;
    break;
  case META_ID:
    rc = get_id(d, &id);
    if (rc < 0)
      return rc;
    rc = push_kept(d, id);
    if (rc < 0)
      return rc;
    pend(d, d->c->role == PP_CODEC_WORKER ? id : 0, false);
    return 0;
  case META_NAMED:
    f->at = (size_t)(d->r.p - d->begin); /* the name is looked up later */
    rc = pp_get_name(d, &s, &n);
    if (rc < 0)
      return rc;
    f->flags |= IS_LENIENT;
    f->n = 0;
    break;
  default:
    return pp_malformed(d, "metatable");
  }
  f->phase = AT_META;
  return 1;
}

/* The metatable's value is on top: is there a better one by its name? */
static int choose_meta(pp_dec *d, pp_frame *f, bool by_value) {
  lua_State *L = d->L;
  const unsigned char *at = d->r.p;
  const char *s, *zero;
  size_t n, module;
  lua_Integer id = f->n;
  int rc;

  if (f->flags & IS_LENIENT) {
    d->r.p = d->begin + f->at;
    rc = pp_get_name(d, &s, &n); /* was read before */
    d->r.p = at;
    if (rc < 0)
      return rc;
    zero = memchr(s, '\0', n);
    module = zero != NULL ? (size_t)(zero - s) : n;
    if (module > 0 && pp_names_module(d->c, L, s, module)) {
      pp_names_step(L, s, n);
    } else {
      if (module > 0)
        lua_pop(L, 1); /* the message */
      pp_names_global_get(L, s, n);
    }
    if (lua_istable(L, -1)) {
      lua_replace(L, -2);
      by_value = false;
    } else {
      lua_pop(L, 1);
    }
  }
  if (lua_isnil(L, -1) && f->flags & IS_LENIENT) {
    lua_pop(L, 1);
    return pp_malformed(d, "metatable not known here");
  }
  if (!lua_istable(L, -1))
    return pp_malformed(d, "metatable that is no table");
  if (id != 0 && by_value)
    note_id(d, -1, id);
  pend(d, by_value ? id : 0, by_value);
  return 0;
}

/* The next byte is the lead of a run: put its numbers where the next implicit
 * keys are of the table on top. */
static int get_numbers(pp_dec *d, pp_frame *f) {
  pp_run run;

  if (pp_run_open(&d->r, *d->r.p++, &run) < 0)
    return pp_malformed(d, "run of numbers cut short");
  f->n = pp_run_set(&run, d->L, -1, f->n);
  return 0;
}

/* Go on with the table of the frame on top: 0 it is complete and on top, 1 a
 * frame is open in it. On entry a value that had a frame is on top, unless
 * the phase is AT_START. */
static int step_table(pp_dec *d) {
  lua_State *L = d->L;
  pp_frame *f = top_frame(d);
  lua_Integer id;
  int rc;

  switch (f->phase) {
  case AT_START:
    break;
  case AT_KEY:
    goto key;
  case AT_VALUE:
    goto value;
  default:
    goto meta;
  }
  for (;;) {
    if (d->r.p == d->r.end)
      return pp_malformed(d, "table cut short");
    if (*d->r.p == LEAD_END)
      break;
    if (!(f->flags & IN_PAIRS)) {
      if (*d->r.p >= LEAD_INTS && *d->r.p <= LEAD_FLOATS) {
        rc = get_numbers(d, f);
        if (rc < 0)
          return rc;
        continue;
      }
      if (*d->r.p != LEAD_PAIRS) {
        f->phase = AT_VALUE;
        rc = get_value(d);
        if (rc != 0)
          return rc;
        goto value;
      }
      f->flags |= IN_PAIRS;
      d->r.p++;
      continue;
    }
    f->phase = AT_KEY;
    rc = get_value(d);
    if (rc != 0)
      return rc;
  key:
    f->flags &= (uint8_t)~IN_KEY;
    if (d->was_globals && d->opening)
      f->flags |= IN_KEY;
    if (lua_isnil(L, -1) || lua_rawequal(L, -1, -1) == 0) {
      if (!d->was_custom)
        return pp_malformed(d, "key that is nil or not a number");
      lua_pushfstring(L, "what stands for a key of a table is %s",
                      lua_isnil(L, -1) ? "nil" : "not a number");
      return PP_EBAD;
    }
    f->phase = AT_VALUE;
    rc = get_value(d);
    if (rc != 0)
      return rc;
  value:
    if (!(f->flags & IN_PAIRS)) {
      if (d->was_globals && d->opening) {
        lua_pushinteger(L, f->n + 1);
        pp_fix(d, FIX_FIELD, f->obj, lua_gettop(L));
        lua_pop(L, 1);
      }
      lua_rawseti(L, -2, ++f->n);
    } else if (d->opening && f->flags & IN_KEY) {
      pp_fix(d, FIX_KEY, f->obj, lua_gettop(L));
      lua_pop(L, 2);
    } else {
      if (d->was_globals && d->opening)
        pp_fix(d, FIX_FIELD, f->obj, lua_gettop(L) - 1);
      lua_rawset(L, -3);
    }
  }
  d->r.p++;
  if (f->flags & HAS_META) {
    rc = begin_meta(d, f);
    if (rc < 0)
      return rc;
    if (rc > 0) {
      rc = get_value(d);
      if (rc != 0)
        return rc;
    meta:
      if (d->was_globals && d->opening) {
        pp_fix(d, FIX_META, f->obj, f->obj);
        lua_pop(L, 1);
      } else {
        rc = choose_meta(d, f, d->by_value);
        if (rc < 0)
          return rc;
      }
    }
  }
  if (f->flags & HAS_ID) {
    rc = get_id(d, &id);
    if (rc < 0)
      return rc;
    if (id != 0)
      note_id(d, -1, id);
  }
  return 0;
}

static int get_cell(pp_dec *d, pp_frame *f) {
  lua_State *L = d->L;
  uint64_t n;
  const unsigned char *up;

  if (pp_rd_varint(&d->r, &n) < 0 || n >= d->s.cells.len)
    return pp_malformed(d, "upvalue that was not there before");
  up = d->s.cells.data + n;
  lua_rawgeti(L, d->ix + DX_CELLS, (lua_Integer)n + 1);
  lua_upvaluejoin(L, f->obj, (int)f->n, -1, *up);
  lua_pop(L, 1);
  return 0;
}

static void set_env(pp_dec *d, pp_frame *f) {
  lua_State *L = d->L;

  if (d->c->role == PP_CODEC_WORKER) {
    pp_ref(d->c, L, REF_ANCHOR);
    lua_upvaluejoin(L, f->obj, (int)f->n, -1, 1);
    lua_pop(L, 1);
  } else {
    pp_push_globals(L);
    lua_setupvalue(L, f->obj, (int)f->n);
  }
}

static int step_function(pp_dec *d) {
  lua_State *L = d->L;
  pp_frame *f = top_frame(d);
  int rc;

  if (f->phase == AT_VALUE)
    goto value;
  f->phase = AT_VALUE;
  while (f->n < f->max) {
    f->n++;
    if (d->r.p == d->r.end)
      return pp_malformed(d, "function cut short");
    if (*d->r.p == LEAD_ENV) {
      d->r.p++;
      set_env(d, f);
      continue;
    }
    if (*d->r.p == LEAD_CELL) {
      d->r.p++;
      rc = get_cell(d, f);
      if (rc < 0)
        return rc;
      continue;
    }
    /* The cell is there, and can be referred to, before its value is. */
    if (d->refs) {
      if (pp_buf_byte(&d->s.cells, (unsigned char)f->n) < 0)
        return PP_ENOMEM;
      lua_pushvalue(L, f->obj);
      lua_rawseti(L, d->ix + DX_CELLS, (lua_Integer)d->s.cells.len);
    }
    rc = get_value(d);
    if (rc != 0)
      return rc;
  value:
    if (d->was_globals && d->opening)
      pp_fix(d, FIX_UPVALUE, f->obj, (int)f->n);
    if (lua_setupvalue(L, f->obj, (int)f->n) == NULL)
      return pp_malformed(d, "function without that upvalue");
  }
  return 0;
}

/* Read one value to its end and push it. */
int pp_get_whole(pp_dec *d) {
  size_t base = d->s.frames.len;
  int rc = get_value(d);

  while (rc >= 0 && d->s.frames.len > base) {
    pp_frame *f = top_frame(d);
    bool table = f->kind == FRAME_TABLE;

    rc = table ? step_table(d) : step_function(d);
    if (rc == 0) {
      d->s.frames.len -= sizeof(pp_frame);
      d->by_value = table;
      d->was_globals = false;
    }
  }
  return rc;
}

/* --- after the graph ---------------------------------------------------- */

static void drop(lua_State *L, int t, const char *key) {
  lua_pushstring(L, key);
  lua_pushnil(L);
  lua_rawset(L, t);
}

static void set_metatables(pp_dec *d) {
  lua_State *L = d->L;
  uint32_t i;

  for (i = 0; i + 4 <= d->npend; i += 4) {
    bool by_value;
    int mt;

    lua_rawgeti(L, d->ix + DX_PEND, i + 1);
    lua_rawgeti(L, d->ix + DX_PEND, i + 2);
    mt = lua_gettop(L);
    lua_rawgeti(L, d->ix + DX_PEND, i + 4);
    by_value = lua_toboolean(L, -1);
    lua_rawgeti(L, d->ix + DX_PEND, i + 3);
    if (pp_push_captured(d, lua_tointeger(L, -1))) {
      lua_replace(L, mt);
    } else if (!lua_istable(L, mt)) {
      pp_bind_late(d->c, L, mt - 1, lua_tointeger(L, mt + 2));
      lua_settop(L, mt - 2);
      continue;
    }
    lua_settop(L, mt);
    if (by_value && d->c->role == PP_CODEC_SUBMITTER) {
      drop(L, mt, "__gc");
      drop(L, mt, "__close");
    }
    lua_setmetatable(L, -2);
    lua_pop(L, 1);
  }
}

int pp_decode(pp_dec *d) {
  lua_State *L = d->L;
  unsigned char flags;
  pp_names names;
  uint64_t n, i;
  int rc;

  if (pp_rd_byte(&d->r, &flags) < 0 || (flags & ~MSG_FLAGS) != MSG_FORMAT ||
      pp_rd_varint(&d->r, &n) < 0 || n > pp_rd_left(&d->r))
    return pp_malformed(d, "beginning");
  if (pp_message_names(d->begin, (size_t)(d->r.end - d->begin), &names) < 0 ||
      names.len > pp_rd_left(&d->r))
    return pp_malformed(d, "names");
  d->r.end -= names.len;
  d->refs = flags & MSG_REFS;
  d->budget = pp_rd_left(&d->r);
  if (n > INT32_MAX / 2 || !lua_checkstack(L, (int)n + 32)) {
    lua_pushliteral(L, "too many values");
    return PP_ELIMIT;
  }
  if (d->refs) {
    lua_newtable(L);
    lua_replace(L, d->ix + DX_OBJS);
    lua_newtable(L);
    lua_replace(L, d->ix + DX_CELLS);
  }
  for (i = 0; i < n;) {
    if (d->r.p < d->r.end && *d->r.p >= LEAD_INTS && *d->r.p <= LEAD_FLOATS) {
      pp_run run;

      if (pp_run_open(&d->r, *d->r.p++, &run) < 0 || run.n > n - i)
        return pp_malformed(d, "run of numbers");
      i += run.n;
      while (run.n > 0)
        pp_run_push(&run, L);
      continue;
    }
    rc = pp_get_whole(d);
    if (rc < 0)
      return rc;
    i++;
  }
  if (flags & MSG_BINDS) {
    if (d->c->role != PP_CODEC_WORKER)
      return pp_malformed(d, "bindings");
    rc = pp_get_bindings(d);
    if (rc < 0)
      return rc;
  } else {
    lua_pushnil(L);
  }
  if (pp_rd_left(&d->r) > 0)
    return pp_malformed(d, "more than there should be");
  if (d->npend > 0)
    set_metatables(d);
  if (d->opening && lua_isnil(L, -1) &&
      !(lua_isnil(L, d->ix + DX_FIXES) && lua_isnil(L, d->ix + DX_KEPT))) {
    lua_pop(L, 1);
    lua_createtable(L, 4, 0);
  }
  if (d->opening && !lua_isnil(L, -1)) {
    lua_pushvalue(L, d->ix + DX_FIXES);
    lua_rawseti(L, -2, BIND_FIXES);
    lua_pushvalue(L, d->ix + DX_KEPT);
    lua_rawseti(L, -2, BIND_KEPT);
  } else if (!lua_isnil(L, -1)) {
    pp_unify_globals(d);
  }
  return (int)n;
}
