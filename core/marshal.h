/* SPDX-License-Identifier: MIT */
/*
 * marshal: a graph of values as bytes (VALUES.md has the format) and back.
 *
 * Both directions keep a stack of frames in C memory and the values being
 * worked on in the Lua stack, two slots for each level; the C stack does not
 * grow. The functions that take a pp_enc or pp_dec run inside a protected
 * call and may raise; what they own is in the scratch of the structure, which
 * the caller gives back afterwards.
 */
#ifndef PP_MARSHAL_H
#define PP_MARSHAL_H

#include "codec_impl.h"
#include "message.h"
#include "plain.h"

/* Lead bytes; plain.h and numbers.h have more of them. */
enum {
  LEAD_REF = LEAD_LONGSTR + 1,
  LEAD_EMPTY, /* a table with nothing in it */
  LEAD_TABLE, /* + 1: has a metatable, + 2: has an id */
  LEAD_TABLE_3 = LEAD_TABLE + 3,
  LEAD_PAIRS,     /* in a table: keys follow */
  LEAD_END,       /* of a table, of the bindings */
  LEAD_NAME,      /* pristine object */
  LEAD_MODULE,    /* loaded module */
  LEAD_FIELD,     /* C function of a loaded module */
  LEAD_GLOBALS,   /* the globals table */
  LEAD_FUNC,      /* function: code in deps */
  LEAD_FUNC_AT,   /* function: code by blob hash and position */
  LEAD_FUNC_TEXT, /* function: code is source text */
  LEAD_CELL,      /* in a function: an upvalue that was there before */
  LEAD_ENV,       /* in a function: the shared _ENV */
  LEAD_CUSTOM,
  LEAD_GLOBAL, /* in the bindings */
  LEAD_PATCH
};

/* How a metatable is given. */
enum { META_VALUE, META_ID, META_NAMED };

/* Kinds of frames, and where a frame is. */
enum { FRAME_TABLE, FRAME_FUNC };
enum { AT_START, AT_KEY, AT_VALUE, AT_META, AT_END };
enum {
  IN_PAIRS = 1,   /* keys are written */
  HAS_META = 2,   /* decoder: more to come after the end */
  HAS_ID = 4,     /* encoder: has a key with "__" */
  IS_LENIENT = 8, /* encoder: the metatable is a fallback copy */
  IN_KEY = 16
};

/* --- encoder ------------------------------------------------------------ */

/* What a check of a plan is about; its values are in the plan's table. */
enum { CHECK_FUNC, CHECK_UPVALUE, CHECK_GLOBAL, CHECK_FIELD };
typedef struct pp_check {
  uint8_t kind, up;
  uint32_t slot;
} pp_check;

typedef struct pp_enc {
  pp_codec *c;
  lua_State *L;
  pp_scratch s;
  pp_buf *out;
  pp_deps *deps;
  size_t start, ndeps; /* of out and deps when it began */
  const char *what;    /* name of the roots in messages, NULL: a function */
  int first, n;        /* stack indices of the roots */
  int root;            /* the one at work, from 1; 0: in the bindings */
  uint32_t objs, cells;
  uint32_t pass;    /* the codec's, for pp_codeinfo */
  uint32_t wants;   /* entries in the list of names reached */
  uint32_t want;    /* the one at work */
  unsigned lenient; /* > 0: leave out what cannot travel */
  size_t codelen;   /* bytes of code in deps */
  bool refs, binds, mutable, by_meta;
  bool planning;     /* record checks */
  bool valued;       /* refers to a value */
  uint32_t nchecked; /* values in the plan's table */
  int rc;
  const char *bad; /* what cannot travel; or the whole message */
  /* Fixed stack slots. */
  int ix;
} pp_enc;

/* Slots, relative to pp_enc.ix. */
enum {
  IX_NAMES,
  IX_GLOBALS,
  IX_CODE,
  IX_KEPTIDS,
  IX_MODULES, /* nil until asked for */
  IX_KEPT,    /* id -> table that went out with it, or nil */
  IX_NAMED,   /* metatable -> name it may have there or false, or nil */
  IX_WANT,    /* {name or key, function, standard table or false, ...} */
  IX_WANTED,  /* set: name -> true, standard table -> set of keys */
  IX_STD,
  IX_PRISTINE,
  IX_BASE,
  IX_CHECKS, /* the plan's table, or nil */
  IX_EXTRA,  /* table of more bindings, or nil */
  IX_FOUND,  /* name -> value of the bindings written, or nil */
  IX_COUNT
};

/* Encode e->n values at e->first with all they reach. 0 or an error; e->bad
 * says what for PP_EUNSENDABLE. Pushes nothing. */
int pp_encode(pp_enc *e);

/* Push the tables the encoder works with; extra is a stack index or 0; `find`:
 * note the bindings. Raises. */
void pp_encode_begin(pp_enc *e, lua_State *L, int extra, bool find);
/* pp_encode with the outcome in e->rc and the message of a failure on top. */
void pp_encode_said(pp_enc *e);

/* Append the function on top by its name, if it is a field of a loaded module:
 * 1, 0 if it is not. */
int pp_put_field(pp_enc *e);

/* For closure.c: append the value on top, leaving it there. 1: a frame has
 * been opened for it. */
int pp_put_value(pp_enc *e);
/* The same to its end, with all frames it opens. */
int pp_put_whole(pp_enc *e);
/* Open a frame for the object on top, whose lead byte is at `at`. */
int pp_open_frame(pp_enc *e, int kind, size_t at, lua_Integer max);
int pp_refuse(pp_enc *e, const char *bad);
/* Append a blob to the message's deps, which take the reference (also on
 * error): its position. */
int pp_need(pp_enc *e, pp_blob *blob, pp_hash hash, uint32_t *position);
/* The message names that code, that table. 0 or PP_ENOMEM. */
int pp_name_code(pp_enc *e, pp_hash hash);
int pp_name_id(pp_enc *e, lua_Integer id);

/* The id of the table at idx, giving it one. Raises. */
lua_Integer pp_keep(pp_enc *e, int idx);

/* --- decoder ------------------------------------------------------------ */

typedef struct pp_dec {
  pp_codec *c;
  lua_State *L;
  pp_scratch s;
  pp_rd r;
  const unsigned char *begin;
  const pp_code *codes;
  size_t ncodes;
  size_t budget; /* elements tables may still announce */
  uint32_t objs, cells;
  uint32_t npend, nfix;
  bool refs;
  bool opening;     /* the globals are not known yet: note where they go */
  bool any;         /* opening, and not just a function */
  bool by_value;    /* the value just read is a table or a reference */
  bool was_globals; /* the value just read is the globals table */
  bool was_custom;  /* the value just read stood for another */
  int rc;
  int ix;
} pp_dec;

enum {
  DX_OBJS,  /* number -> object */
  DX_CELLS, /* number -> function with that cell */
  DX_PEND,  /* {table, metatable, id, by value, ...} */
  DX_FIXES, /* BIND_FIXES */
  DX_KEPT,  /* BIND_KEPT */
  DX_COUNT
};

/* Decode a message: pushes its values, and when opening its bindings. The
 * number of values, or an error with a message pushed. */
int pp_decode(pp_dec *d);

/* For bind.c and closure.c: read one value to its end and push it. */
int pp_get_whole(pp_dec *d);
int pp_get_name(pp_dec *d, const char **s, size_t *n);
/* PP_EBAD, with a message that says where. */
int pp_malformed(pp_dec *d, const char *what);
/* The globals table belongs in `where`, at stack index obj: note it, to be put
 * there when it is known. `what` is a stack index or, for FIX_UPVALUE, its
 * number. */
void pp_fix(pp_dec *d, int kind, int obj, int what);

#endif
