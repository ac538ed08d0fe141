/* SPDX-License-Identifier: MIT */
/*
 * codec_impl: what the files of the codec share. For them alone.
 *
 * All Lua values a codec keeps are in the registry, under the integers in
 * `ref`. All C memory it works with is in a pp_scratch, which each call takes
 * from the codec and gives back when its protected part is over, however that
 * ended: a call made from within a call (a finalizer, a require) works with
 * one of its own.
 */
#ifndef PP_CODEC_IMPL_H
#define PP_CODEC_IMPL_H

#include <lauxlib.h>

#include "codec.h"
#include "ptrmap.h"

enum {
  REF_NAMES,    /* pristine object -> "module\0field"; the globals -> true */
  REF_BYNAME,   /* "module\0field" -> pristine object */
  REF_BASE,     /* the globals table at the start */
  REF_PRISTINE, /* a copy of it as it was */
  REF_STD,      /* standard table -> a copy of it as it was */
  REF_STRING,   /* the table `string` */
  REF_REQUIRE,  /* the function `require` */
  REF_MODULES,  /* loaded object -> its name in package.loaded */
  REF_FIELDS,   /* object -> "module\0field" found for it, false: not found */
  REF_CODE,     /* weak keys: function -> its pp_codeinfo */
  REF_CODES,    /* weak values: hash -> pp_codeinfo */
  REF_PLANS,    /* weak keys: function -> its pp_plan */
  REF_EXTRAS,   /* the same for one with more globals, those of the last time */
  REF_KEPT,     /* weak values: id -> table that went out (submitter) */
  REF_KEPTIDS,  /* weak keys: table -> its id, on both sides */
  REF_OWNER,    /* metatable of pp_codeinfo and pp_plan userdata */
  REF_ANCHOR,   /* a function whose upvalue 1 is the shared _ENV (worker) */
  REF_FRAMES,   /* FRAME_SIZE values for each nested bind (worker) */
  REF_LATE,     /* {table, id of its metatable, ...} (worker) */
  REF_G,        /* the string "_G" */
  REF_COUNT
};

/* In REF_FRAMES, for each bind. */
enum {
  FRAME_GLOBALS = 1, /* what _ENV and the registry's globals were */
  FRAME_UNDO,        /* {table, key, value or NOTHING, ...}, or false */
  FRAME_KEPT,        /* id -> table of the function's captures, or false */
  FRAME_SIZE = FRAME_KEPT
};

/* In a table of bindings. */
enum {
  BIND_GLOBALS = 1, /* {name, value, ...} */
  BIND_PATCHES,     /* {table, key, value or NOTHING, ...} */
  BIND_FIXES,       /* {FIX_x, where, what, ...} */
  BIND_KEPT         /* id -> table */
};
enum {
  FIX_FIELD,   /* where[what] = the globals */
  FIX_KEY,     /* where[the globals] = what */
  FIX_UPVALUE, /* upvalue `what` of where */
  FIX_META,    /* metatable of where */
  FIX_GLOBAL   /* the global named `where` */
};

/* A userdata that owns a blob, in its codec's list while it does. */
typedef struct pp_owner {
  struct pp_owner *prev, *next;
  pp_codec *c; /* NULL when the codec is gone */
  pp_blob *blob;
} pp_owner;

/* One way the code of a function reaches a name through an upvalue. */
typedef struct pp_reach {
  uint16_t kind; /* PP_BC_NAME, PAIR or ESCAPE */
  uint16_t up;
  uint32_t name, field; /* in the table of strings */
} pp_reach;

/* What is known of the code of a function: userdata; user value 1 is a table
 * of the strings in it (also string -> index while it is made). */
typedef struct pp_codeinfo {
  pp_owner own;
  pp_hash hash;
  size_t len;
  uint32_t nreach, nfields, nselfs;
  bool assigns;       /* assigns one of its upvalues */
  uint32_t pass, dep; /* its position in deps in that pass */
  pp_reach reach[];   /* then nfields + nselfs string indices as
                         entries of kind PP_BC_FIELD and SELF */
} pp_codeinfo;

typedef struct pp_frame {
  uint8_t kind, phase, flags;
  int obj;         /* stack index of the table or function */
  size_t at;       /* encoder: where its lead byte is; decoder: its number */
  lua_Integer n;   /* implicit keys so far; upvalues done */
  lua_Integer max; /* pairs so far; upvalues in all */
} pp_frame;

typedef struct pp_scratch {
  pp_ptrmap map;
  pp_buf frames; /* pp_frame */
  pp_buf out, dump, work, cells, checks, hashes, ids;
  pp_buf reach, fields, selfs; /* pp_reach */
} pp_scratch;

/* What a worker knows of the code it was given. */
typedef struct pp_known {
  pp_hash key; /* canonical hash of a prototype, or the hash of a blob */
  pp_hash blob;
  uint32_t position; /* PP_KNOWN_BLOB: the entry is about the blob */
  uint32_t used;
} pp_known;
#define PP_KNOWN_BLOB UINT32_MAX

typedef struct pp_index {
  pp_known *slots;
  size_t mask, n;
} pp_index;

struct pp_codec {
  pp_codec_hooks hooks;
  int role;
  int ref[REF_COUNT];
  pp_scratch scratch;
  pp_owner owners;      /* head of the list */
  pp_owner valued;      /* of plans whose parcel refers to a value */
  uint64_t modules_sum; /* of package.loaded when REF_MODULES was made */
  lua_Integer last_id;  /* of the tables that went out */
  uint32_t pass;
  int depth;         /* nested binds */
  bool base_kept;    /* the first frame has the base globals */
  lua_Integer late;  /* values in REF_LATE */
  uint64_t touched;  /* of each: has something to undo or captures to know */
  pp_index known[2]; /* worker: this generation and the one before */
};

/* A value no user's value equals: stands for nil in lists. */
#define NOTHING(c) ((void *)(c))

static inline int pp_ref(pp_codec *c, lua_State *L, int which) {
  return lua_rawgeti(L, LUA_REGISTRYINDEX, c->ref[which]);
}
static inline void pp_push_globals(lua_State *L) {
  lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_GLOBALS);
}

pp_scratch pp_scratch_take(pp_codec *c);
void pp_scratch_give(pp_codec *c, pp_scratch *s);

#define PP_NO_MEMORY "not enough memory" /* Lua has this string ready */
#define PP_FRAMES_READY 16               /* nested binds that need no memory */

/* Make room for so many stack slots: 0, or PP_ENOMEM with the message. */
int pp_slots(lua_State *L, int slots);
/* What a protected call that left a message on the stack amounts to. */
int pp_outcome(lua_State *L, int status, int rc);

/* Push a new userdata of that size that owns no blob yet, with its metatable;
 * zeroed. Raises. */
pp_owner *pp_owner_new(pp_codec *c, lua_State *L, size_t size, int uservalues);
void pp_owner_move(pp_owner *o, pp_owner *list);

/* Push "cannot send field 'sock' of argument 1: userdata" and the like: what
 * an encoder that failed was at, and why. The bad value is on top. Raises. */
struct pp_enc;
void pp_refusal_push(struct pp_enc *e);

#endif
