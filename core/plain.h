/* SPDX-License-Identifier: MIT */
/*
 * plain: values without structure (numbers, strings, booleans, nils), which
 * most arguments, items and results are. They need no numbering of objects and
 * no scratch; those other than strings cannot even run out of memory on the
 * way. What is written here is a message like any other (VALUES.md), and only
 * messages of plain values are read here.
 */
#ifndef PP_PLAIN_H
#define PP_PLAIN_H

#include <lua.h>
#include <stdbool.h>

#include "numbers.h"

enum {
  LEAD_STR = 0x80, /* ... 0xa7: a string of that many bytes */
  LEAD_STR_MAX = 0xa7,
  LEAD_NIL,
  LEAD_FALSE,
  LEAD_TRUE,
  LEAD_LONGSTR = LEAD_FLOAT + 1
};
#define SHORT_STR 40 /* strings from here on are objects */

/* Append a number, boolean or nil at idx (type t): no Lua call that raises. */
int pp_put_scalar(pp_buf *out, lua_State *L, int idx, int t);
/* Append a string shorter than SHORT_STR. */
int pp_put_short(pp_buf *out, const char *s, size_t n);
/* The number on top, to the runs. Where the last was a float it is likely one
 * more, and one with a fraction needs no other call to know. */
static inline int pp_put_number(pp_runs *r, lua_State *L) {
  if (r->floats) {
    lua_Number d = lua_tonumberx(L, -1, NULL);

    if ((d > -1e15 && d < 1e15 && d != (lua_Number)(lua_Integer)d) ||
        !lua_isinteger(L, -1))
      return pp_runs_float(r, d);
  } else if (!lua_isinteger(L, -1)) {
    return pp_runs_float(r, lua_tonumberx(L, -1, NULL));
  }
  return pp_runs_integer(r, lua_tointegerx(L, -1, NULL));
}

/* Read a number, boolean or nil whose lead byte has been read and push it.
 * Whether it was one; PP_EBAD when cut short. */
int pp_get_scalar(pp_rd *r, lua_State *L, unsigned lead);

/* Push the next number of a run that has one. */
static inline void pp_run_push(pp_run *run, lua_State *L) {
  if (run->lead == LEAD_FLOATS)
    lua_pushnumber(L, pp_run_float(run));
  else
    lua_pushinteger(L, pp_run_integer(run));
}
/* All that is left of it goes to t[n + 1], ...: the last index. The table is at
 * the stack index t. Raises without memory. */
lua_Integer pp_run_set(pp_run *run, lua_State *L, int t, lua_Integer n);

/* --- whole messages ----------------------------------------------------- */

/* Append the n values from the stack index first as a message: 1, or 0 when
 * there is something else among them, or PP_ENOMEM; then out is as it was. Does
 * not raise. */
int pp_plain_pack(lua_State *L, int first, int n, pp_buf *out);
/* The same, the last being a long string, but for the bytes of that, which are
 * the message's last. 0: other things. */
int pp_plain_pack_but(lua_State *L, int first, int n, pp_buf *out);
/* As pp_plain_pack for t[first .. first + n - 1]. Raises where reading an index
 * of the table does. */
int pp_plain_pack_list(lua_State *L, int t, lua_Integer first, lua_Integer n,
                       pp_buf *out);

/* Push the values of a message that says it has scalars only; how many, or an
 * error with a message pushed. Does not raise. */
int pp_plain_unpack(lua_State *L, const void *bytes, size_t len);

/* Is this a message of scalars, or of at most so many scalars and strings? One
 * that is not well formed may pass. */
#define PP_PLAIN_FEW 16
bool pp_plain_is(const void *bytes, size_t len);

/* --- one by one --------------------------------------------------------- */

/* A message on its way to out. Only what pp_plain_begin sets need be set. */
typedef struct pp_plain_out {
  size_t start, body; /* of the message, of its values */
  bool strings, has_long;
  pp_runs runs;
} pp_plain_out;

/* Begin one of n values. 0 or PP_ENOMEM. */
int pp_plain_begin(pp_plain_out *o, pp_buf *out, uint64_t n);
/* The value on top: 1, 0 if it is not plain, or is a second long string (they
 * may be one), PP_ENOMEM. Does not raise. */
int pp_plain_put_other(pp_plain_out *o, lua_State *L);
static inline int pp_plain_put(pp_plain_out *o, lua_State *L) {
  if (!o->runs.floats && lua_isinteger(L, -1))
    return pp_runs_integer(&o->runs, lua_tointegerx(L, -1, NULL)) < 0
               ? PP_ENOMEM
               : 1;
  return pp_plain_put_other(o, L);
}
/* All are there. 0 or PP_ENOMEM. */
int pp_plain_end(pp_plain_out *o);
/* It is n values after all. 0 or PP_ENOMEM. */
int pp_plain_count(pp_plain_out *o, uint64_t n);

/* A message being read. Borrows its bytes. */
typedef struct pp_plain_in {
  pp_rd r;
  pp_run run;
  uint64_t left; /* values */
} pp_plain_in;

/* 1; 0 when it is not of plain values by its first byte (one that passes may
 * yet have others); PP_EBAD. */
int pp_plain_open(pp_plain_in *in, const void *bytes, size_t len);
/* Push the next value, left being > 0: 1; 0 if it is not plain; PP_EBAD.
 * Raises without memory. */
int pp_plain_next_other(pp_plain_in *in, lua_State *L);
static inline int pp_plain_next(pp_plain_in *in, lua_State *L) {
  if (in->run.n == 0)
    return pp_plain_next_other(in, L);
  pp_run_push(&in->run, L);
  in->left--;
  return 1;
}
/* Put all that is left in t[n + 1], ...: as pp_plain_next. */
int pp_plain_set(pp_plain_in *in, lua_State *L, int t, lua_Integer n);

typedef struct pp_text {
  const char *s;
  size_t len;
} pp_text;

/* If a message is of two values, a long string and an integer: point at the
 * text, which is not copied, and push the integer. Else false, nothing is
 * pushed. */
bool pp_plain_text(lua_State *L, const void *bytes, size_t len, pp_text *text);

#endif
