/* SPDX-License-Identifier: MIT */
#include "plain.h"

#include "codec_impl.h"
#include "message.h"

/* --- values ------------------------------------------------------------- */

int pp_put_scalar(pp_buf *out, lua_State *L, int idx, int t) {
  switch (t) {
  case LUA_TNIL:
    return pp_buf_byte(out, LEAD_NIL);
  case LUA_TBOOLEAN:
    return pp_buf_byte(out, lua_toboolean(L, idx) ? LEAD_TRUE : LEAD_FALSE);
  default:
    if (lua_isinteger(L, idx))
      return pp_put_integer(out, lua_tointegerx(L, idx, NULL));
    return pp_put_float(out, lua_tonumberx(L, idx, NULL));
  }
}

int pp_put_short(pp_buf *out, const char *s, size_t n) {
  if (pp_buf_reserve(out, n + 1) < 0)
    return PP_ENOMEM;
  out->data[out->len++] = (unsigned char)(LEAD_STR + n);
  memcpy(out->data + out->len, s, n);
  out->len += n;
  return 0;
}

int pp_get_scalar(pp_rd *r, lua_State *L, unsigned lead) {
  const unsigned char *p;
  lua_Number x;

  if (lead <= LEAD_INT_MAX) {
    lua_pushinteger(L, (lua_Integer)lead - LEAD_INT_BIAS);
    return 1;
  }
  switch (lead) {
  case LEAD_NIL:
    lua_pushnil(L);
    return 1;
  case LEAD_FALSE:
    lua_pushboolean(L, 0);
    return 1;
  case LEAD_TRUE:
    lua_pushboolean(L, 1);
    return 1;
  case LEAD_INT8:
    if (pp_rd_bytes(r, 1, &p) < 0)
      return PP_EBAD;
    lua_pushinteger(L, (int8_t)p[0]);
    return 1;
  case LEAD_INT8 + 1:
    if (pp_rd_bytes(r, 2, &p) < 0)
      return PP_EBAD;
    lua_pushinteger(L, (int16_t)(p[0] | p[1] << 8));
    return 1;
  case LEAD_INT8 + 2:
    if (pp_rd_bytes(r, 4, &p) < 0)
      return PP_EBAD;
    lua_pushinteger(L, (int32_t)pp_get32(p));
    return 1;
  case LEAD_INT8 + 3:
    if (pp_rd_bytes(r, 8, &p) < 0)
      return PP_EBAD;
    lua_pushinteger(L, (lua_Integer)pp_get64(p));
    return 1;
  case LEAD_FLOAT:
    if (pp_rd_bytes(r, 8, &p) < 0)
      return PP_EBAD;
    memcpy(&x, p, 8);
    lua_pushnumber(L, x);
    return 1;
  default:
    return 0;
  }
}

lua_Integer pp_run_set(pp_run *run, lua_State *L, int t, lua_Integer n) {
  t = lua_absindex(L, t);
  switch (run->lead) {
  case LEAD_INTS + 2:
    for (; run->n > 0; run->n--, run->p += 4) {
      lua_pushinteger(L, (int32_t)pp_get32(run->p));
      lua_rawseti(L, t, ++n);
    }
    break;
  case LEAD_INTS + 3:
    for (; run->n > 0; run->n--, run->p += 8) {
      lua_pushinteger(L, (lua_Integer)pp_get64(run->p));
      lua_rawseti(L, t, ++n);
    }
    break;
  case LEAD_FLOATS:
    while (run->n > 0) {
      lua_pushnumber(L, pp_run_float(run));
      lua_rawseti(L, t, ++n);
    }
    break;
  default:
    while (run->n > 0) {
      lua_pushinteger(L, pp_run_integer(run));
      lua_rawseti(L, t, ++n);
    }
  }
  return n;
}

/* --- writing ------------------------------------------------------------ */

int pp_plain_begin(pp_plain_out *o, pp_buf *out, uint64_t n) {
  o->start = out->len;
  o->strings = o->has_long = false;
  o->runs.out = out;
  o->runs.n = 0;
  o->runs.floats = false;
  if (pp_buf_reserve(out, 1 + PP_VARINT_MAX) < 0)
    return PP_ENOMEM;
  pp_buf_byte(out, MSG_FORMAT | MSG_PLAIN); /* room was reserved */
  pp_buf_varint(out, n);
  o->body = out->len;
  return 0;
}

static int put_string(pp_plain_out *o, lua_State *L) {
  pp_buf *out = o->runs.out;
  size_t len;
  const char *s = lua_tolstring(L, -1, &len);

  if (len >= SHORT_STR && o->has_long)
    return 0; /* two may be one */
  if (o->runs.n > 0 && pp_runs_flush(&o->runs) < 0)
    return PP_ENOMEM;
  o->strings = true;
  if (len < SHORT_STR)
    return pp_put_short(out, s, len) < 0 ? PP_ENOMEM : 1;
  o->has_long = true;
  if (pp_buf_reserve(out, len + 1 + PP_VARINT_MAX) < 0)
    return PP_ENOMEM;
  pp_buf_byte(out, LEAD_LONGSTR); /* room was reserved */
  pp_buf_varint(out, len);
  return pp_buf_put(out, s, len) < 0 ? PP_ENOMEM : 1;
}

int pp_plain_put_other(pp_plain_out *o, lua_State *L) {
  int t = lua_type(L, -1);

  switch (t) {
  case LUA_TNUMBER:
    return pp_put_number(&o->runs, L) < 0 ? PP_ENOMEM : 1;
  case LUA_TSTRING:
    return put_string(o, L);
  case LUA_TBOOLEAN:
  case LUA_TNIL:
    if (o->runs.n > 0 && pp_runs_flush(&o->runs) < 0)
      return PP_ENOMEM;
    return pp_put_scalar(o->runs.out, L, -1, t) < 0 ? PP_ENOMEM : 1;
  default:
    return 0;
  }
}

int pp_plain_end(pp_plain_out *o) {
  if (o->runs.n > 0 && pp_runs_flush(&o->runs) < 0)
    return PP_ENOMEM;
  if (o->strings)
    o->runs.out->data[o->start] = MSG_FORMAT;
  return 0;
}

int pp_plain_count(pp_plain_out *o, uint64_t n) {
  pp_buf *out = o->runs.out;
  unsigned char head[PP_VARINT_MAX];
  pp_buf b = {.data = head, .cap = sizeof head};
  size_t was = o->body - o->start - 1, len = out->len - o->body;

  pp_buf_varint(&b, n); /* it has room */
  if (b.len > was && pp_buf_reserve(out, b.len - was) < 0)
    return PP_ENOMEM;
  memmove(out->data + o->start + 1 + b.len, out->data + o->body, len);
  memcpy(out->data + o->start + 1, head, b.len);
  o->body = o->start + 1 + b.len;
  out->len = o->body + len;
  return 0;
}

/* The few arguments and results that most jobs have: not worth a run. */
static int pack_few(lua_State *L, int first, int n, pp_buf *out) {
  unsigned char head[2] = {MSG_FORMAT | MSG_PLAIN, (unsigned char)n};
  size_t start = out->len;
  bool plain = true, has_long = false;
  int rc = pp_buf_put(out, head, 2);

  for (int i = first; rc == 0 && i < first + n; i++) {
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

int pp_plain_pack_but(lua_State *L, int first, int n, pp_buf *out) {
  size_t start = out->len, len;
  pp_plain_out o;
  int rc;

  (void)lua_tolstring(L, first + n - 1, &len);
  rc = pp_plain_begin(&o, out, (uint64_t)n) == 0 ? 1 : PP_ENOMEM;
  for (int i = first; rc > 0 && i < first + n - 1; i++) {
    if (lua_type(L, i) == LUA_TSTRING && lua_rawlen(L, i) >= SHORT_STR) {
      rc = 0; /* two may be one */
      break;
    }
    lua_pushvalue(L, i);
    rc = pp_plain_put(&o, L);
    lua_pop(L, 1);
  }
  o.strings = true;
  if (rc > 0 && (pp_plain_end(&o) < 0 || pp_buf_byte(out, LEAD_LONGSTR) < 0 ||
                 pp_buf_varint(out, len) < 0))
    rc = PP_ENOMEM;
  if (rc <= 0)
    out->len = start;
  return rc;
}

int pp_plain_pack(lua_State *L, int first, int n, pp_buf *out) {
  size_t start = out->len;
  pp_plain_out o;
  int rc;

  if (n < 8)
    return pack_few(L, first, n, out);
  rc = pp_plain_begin(&o, out, (uint64_t)n);
  if (rc == 0)
    rc = 1;
  for (int i = first; rc > 0 && i < first + n; i++) {
    lua_pushvalue(L, i);
    rc = pp_plain_put(&o, L);
    lua_pop(L, 1);
  }
  if (rc > 0 && pp_plain_end(&o) < 0)
    rc = PP_ENOMEM;
  if (rc <= 0)
    out->len = start;
  return rc;
}

int pp_plain_pack_list(lua_State *L, int t, lua_Integer first, lua_Integer n,
                       pp_buf *out) {
  size_t start = out->len;
  pp_plain_out o;
  bool raw = !lua_getmetatable(L, t);
  int rc, top;

  if (!raw)
    lua_pop(L, 1);
  top = lua_gettop(L);
  luaL_checkstack(L, 20, NULL);
  rc = pp_plain_begin(&o, out, (uint64_t)n);
  if (rc == 0)
    rc = 1;
  for (lua_Integer i = first, end = first + n; rc > 0 && i < end; i++) {
    if (raw)
      lua_rawgeti(L, t, i);
    else
      lua_geti(L, t, i);
    rc = pp_plain_put(&o, L);
    lua_settop(L, top);
  }
  if (rc > 0 && pp_plain_end(&o) < 0)
    rc = PP_ENOMEM;
  if (rc <= 0)
    out->len = start;
  return rc;
}

/* --- reading ------------------------------------------------------------ */

int pp_plain_open(pp_plain_in *in, const void *bytes, size_t len) {
  in->r = pp_rd_of(bytes, len);
  in->run.n = 0;
  in->left = 0;
  if (len == 0)
    return PP_EBAD;
  in->r.p++;
  if ((*(const unsigned char *)bytes & ~MSG_PLAIN) != MSG_FORMAT)
    return 0;
  if (pp_rd_varint(&in->r, &in->left) < 0 || in->left > pp_rd_left(&in->r))
    return PP_EBAD;
  return 1;
}

int pp_plain_next_other(pp_plain_in *in, lua_State *L) {
  const unsigned char *p, *was = in->r.p;
  unsigned char lead;
  uint64_t n;
  int rc;

  if (pp_rd_byte(&in->r, &lead) < 0)
    return PP_EBAD;
  rc = pp_run_open(&in->r, lead, &in->run);
  if (rc > 0) {
    if (in->run.n > in->left) {
      in->run.n = 0;
      return PP_EBAD;
    }
    pp_run_push(&in->run, L);
    in->left--;
    return 1;
  }
  if (rc == 0)
    rc = pp_get_scalar(&in->r, L, lead);
  if (rc != 0) {
    in->left -= rc > 0;
    return rc;
  }
  if (lead <= LEAD_STR_MAX) {
    n = lead - LEAD_STR;
  } else if (lead != LEAD_LONGSTR) {
    in->r.p = was;
    return 0;
  } else if (pp_rd_varint(&in->r, &n) < 0 || n > pp_rd_left(&in->r)) {
    return PP_EBAD;
  }
  if (pp_rd_bytes(&in->r, (size_t)n, &p) < 0)
    return PP_EBAD;
  lua_pushlstring(L, (const char *)p, (size_t)n);
  in->left--;
  return 1;
}

int pp_plain_set(pp_plain_in *in, lua_State *L, int t, lua_Integer n) {
  int rc;

  t = lua_absindex(L, t);
  while (in->left > 0) {
    if (in->run.n > 0) {
      in->left -= in->run.n;
      n = pp_run_set(&in->run, L, t, n);
      continue;
    }
    rc = pp_plain_next_other(in, L);
    if (rc <= 0)
      return rc;
    lua_rawseti(L, t, ++n);
  }
  return pp_rd_left(&in->r) == 0 ? 1 : PP_EBAD;
}

bool pp_plain_is(const void *bytes, size_t len) {
  pp_plain_in in;
  const unsigned char *p;
  unsigned char lead;
  uint64_t n;

  if (pp_plain_open(&in, bytes, len) <= 0)
    return false;
  if (*(const unsigned char *)bytes & MSG_PLAIN)
    return true;
  if (in.left > PP_PLAIN_FEW)
    return false;
  for (; in.left > 0; in.left--) {
    if (pp_rd_byte(&in.r, &lead) < 0)
      return false;
    if (lead <= LEAD_INT_MAX || (lead >= LEAD_NIL && lead <= LEAD_TRUE))
      continue;
    if (lead <= LEAD_STR_MAX)
      n = lead - LEAD_STR;
    else if (lead >= LEAD_INT8 && lead < LEAD_FLOAT)
      n = UINT64_C(1) << (lead - LEAD_INT8);
    else if (lead == LEAD_FLOAT)
      n = 8;
    else if (lead != LEAD_LONGSTR || pp_rd_varint(&in.r, &n) < 0)
      return false;
    if (n > pp_rd_left(&in.r) || pp_rd_bytes(&in.r, (size_t)n, &p) < 0)
      return false;
  }
  return true;
}

static int malformed(lua_State *L) {
  lua_pushliteral(L, "malformed bytes");
  return 1;
}

/* Its leads that are no scalars are refused: nothing here could raise. */
int pp_plain_unpack(lua_State *L, const void *bytes, size_t len) {
  pp_rd r = pp_rd_of((const unsigned char *)bytes + 1, len - 1);
  int top = lua_gettop(L), status;
  uint64_t n, i;

  if (pp_rd_varint(&r, &n) == 0 && n <= pp_rd_left(&r) && n < INT32_MAX / 2) {
    if (!lua_checkstack(L, (int)n + 2)) {
      lua_pushstring(L, PP_NO_MEMORY);
      return PP_ENOMEM;
    }
    for (i = 0; i < n;) {
      unsigned char lead;
      pp_run run;

      if (pp_rd_byte(&r, &lead) < 0)
        break;
      if (pp_run_open(&r, lead, &run) > 0 && run.n <= n - i) {
        i += run.n;
        while (run.n > 0)
          pp_run_push(&run, L);
        continue;
      }
      if (pp_get_scalar(&r, L, lead) <= 0)
        break;
      i++;
    }
    if (i == n && pp_rd_left(&r) == 0)
      return (int)n;
    lua_settop(L, top);
  }
  lua_pushcfunction(L, malformed);
  status = lua_pcall(L, 0, 1, 0);
  return pp_outcome(L, status, PP_EBAD);
}

bool pp_plain_text(lua_State *L, const void *bytes, size_t len, pp_text *text) {
  pp_rd r = pp_rd_of(bytes, len);
  const unsigned char *head, *p;
  unsigned char lead;
  uint64_t n;

  if (pp_rd_bytes(&r, 3, &head) != 0 || head[0] != MSG_FORMAT || head[1] != 2 ||
      head[2] != LEAD_LONGSTR || pp_rd_varint(&r, &n) != 0 ||
      n > pp_rd_left(&r) || pp_rd_bytes(&r, (size_t)n, &p) != 0 ||
      pp_rd_byte(&r, &lead) != 0 || pp_get_scalar(&r, L, lead) <= 0)
    return false;
  if (!lua_isinteger(L, -1)) {
    lua_pop(L, 1);
    return false;
  }
  text->s = (const char *)p;
  text->len = (size_t)n;
  return true;
}
