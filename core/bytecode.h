/* SPDX-License-Identifier: MIT */
/*
 * bytecode: what can be read from a Lua 5.4 dump without running it.
 *
 * A dump is a 31-byte header, the count of upvalues, then one prototype with
 * the nested ones inside it. Prototypes are counted in the order they begin
 * (preorder): the main one is 0. A nested prototype leaves its source name out
 * when it is its parent's, so the same function dumped by itself has other
 * bytes; pp_bc_proto.canon is equal for both.
 *
 * Every read is checked; any bytes give 0 or PP_EBAD. No Lua call is made.
 * Only little-endian, 8-byte integers and doubles: what Lua itself would load
 * on this machine.
 */
#ifndef PP_BYTECODE_H
#define PP_BYTECODE_H

#include "buf.h"
#include "hash.h"

typedef struct pp_bc_str {
  const char *p; /* borrowed from the dump; NULL: no string */
  size_t n;
} pp_bc_str;

typedef struct pp_bc_proto {
  uint32_t position;         /* preorder */
  unsigned nups;             /* upvalues */
  pp_bc_str source;          /* its own, or else its parent's */
  const unsigned char *body; /* what follows the source name */
  size_t len;                /* of the body, nested prototypes included */
  pp_hash canon;             /* hash of source and body */
} pp_bc_proto;

/* How many upvalues the main function has, or PP_EBAD: no dump for this Lua.
 * Looks at the first bytes only. */
int pp_bc_nups(const void *dump, size_t len);

/* Call each for every prototype, innermost first; a result that is not 0 ends
 * the walk and is returned. Otherwise 0, or PP_EBAD if any byte is wrong. */
typedef int (*pp_bc_each)(void *ud, const pp_bc_proto *p);
int pp_bc_protos(const void *dump, size_t len, pp_bc_each each, void *ud);

/* Append to out a dump of the prototype at that position alone, as lua_dump
 * would make it. PP_EBAD when there is none; out is then unchanged. */
int pp_bc_cut(const void *dump, size_t len, uint32_t position, pp_buf *out);

/* What the code does with names. `up` is an upvalue of the main function,
 * counted from 0, also where a nested function uses it. */
enum {
  PP_BC_NAME,   /* up.name is read (and may be kept) */
  PP_BC_PAIR,   /* up.name.field is read and up.name is not kept */
  PP_BC_ESCAPE, /* up itself is read as a value */
  PP_BC_ASSIGN, /* up is assigned */
  PP_BC_FIELD,  /* something that is no upvalue is indexed by name */
  PP_BC_SELF,   /* a method of that name is called on something */
  PP_BC_STORE   /* up.name is assigned */
};

typedef struct pp_bc_use {
  int kind;
  unsigned up;
  pp_bc_str name, field;
} pp_bc_use;

/* Call each for every use, nested prototypes included, with repetitions. The
 * callback may leave by longjmp: all memory is in scratch, which the caller
 * owns and may use again. Results as pp_bc_protos, or PP_ENOMEM. */
typedef int (*pp_bc_used)(void *ud, const pp_bc_use *use);
int pp_bc_uses(const void *dump, size_t len, pp_buf *scratch, pp_bc_used each,
               void *ud);

#endif
