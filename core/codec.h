/* SPDX-License-Identifier: MIT */
/*
 * codec: Lua values and functions as bytes and back.
 *
 * One pp_codec belongs to one lua_State. It is made on a pristine state (the
 * standard library and `pp` open, no user code run): what it finds then is the
 * vocabulary that travels by name, and what user-defined globals are told
 * apart from. Nothing here knows of processes, jobs or I/O.
 *
 *   submitter                                   worker
 *   pp_codec_function -> pp_parcel  --blob--->  pp_codec_open    (function)
 *   pp_codec_pack     -> bytes      --job---->  pp_codec_unpack  (arguments)
 *   pp_codec_unpack   <- bytes      <-result--  pp_codec_pack    (results)
 *
 * Code is apart from data: the bytecode of each function prototype is a code
 * blob, named by its content hash and interned through hooks; what a function
 * captured refers to it by position in a list of blobs (`deps`).
 */
#ifndef PP_CODEC_H
#define PP_CODEC_H

#include <lua.h>
#include <stdbool.h>

#include "buf.h"
#include "hash.h"

typedef struct pp_codec pp_codec;

typedef struct pp_blob pp_blob; /* opaque here: the hooks' reference */

/* How a userdata is sent; zeroed before it is asked for. */
typedef struct pp_custom {
  pp_buf *bytes; /* append what `opened` is to be given; by convention the
                    first byte says what it is about */
  pp_blob *dep;  /* a blob it stands for, or NULL: this reference passes to
                    the deps; its position there is appended as a varint */
  pp_hash hash;  /* that blob's */
  bool shared;   /* all executions may have the same value */
  bool keeps;    /* a kept list was pushed: what this was made with */
  const char *bad;
} pp_custom;

struct pp_code;

/*
 * The owner of blobs (a worker needs none of it). `intern` returns a new
 * reference to the blob of these bytes (copied; kind 'c' code, 'f' function
 * parcel; deps are borrowed, the blob takes references of its own) or NULL
 * without memory. `code` gives the bytes of a code blob (borrowed while the
 * reference or the job lives) by hash, NULL if this side never sent it or has
 * it no more. Hooks never raise. `release` may be called whenever Lua collects
 * garbage.
 */
typedef struct pp_codec_hooks {
  pp_blob *(*intern)(void *ud, int kind, pp_hash hash, const void *bytes,
                     size_t len, pp_blob *const *deps, size_t ndeps);
  /* One more reference to a blob that a reference is held to; it cannot fail.
   * Returns blob. */
  pp_blob *(*retain)(void *ud, pp_blob *blob);
  void (*release)(void *ud, pp_blob *blob);
  const unsigned char *(*code)(void *ud, pp_hash hash, size_t *len);
  /* Optional, submitter: a userdata the caller wants sent its own way. Fills
   * in what is below: 1; 0: it is none of these; PP_EUNSENDABLE: neither is
   * it, for the reason in out->bad; PP_ENOMEM. May raise. */
  int (*custom)(void *ud, lua_State *L, int idx, struct pp_custom *out);
  /* Optional: push the value for such bytes; 0 or PP_EBAD. May raise. */
  int (*opened)(void *ud, lua_State *L, const unsigned char *p, size_t n);
  /* Optional, worker: push the table that went out with that id: whether there
   * is one. May raise. */
  bool (*kept)(void *ud, lua_State *L, lua_Integer id);
  /* Optional, worker: call f for the code of the job that runs, which its
   * submitter has as long as that has not ended; what is not 0 ends it and is
   * returned. */
  int (*each_code)(void *ud, int (*f)(void *p, const struct pp_code *code),
                   void *p);
  void *ud;
} pp_codec_hooks;

enum { PP_CODEC_SUBMITTER, PP_CODEC_WORKER };

/* New codec for the pristine state L, or NULL without memory. Leaves L's stack
 * as it was. Free it before or after closing L (free does not touch L). */
pp_codec *pp_codec_new(lua_State *L, int role, const pp_codec_hooks *hooks);
void pp_codec_free(pp_codec *c);

/* --- submitter ---------------------------------------------------------- */

enum {
  PP_PARCEL_MUTABLE = 1, /* captures tables, or assigns what it captured: the
                            worker opens it afresh for every execution */
  PP_PARCEL_BINDS = 2    /* carries globals or patches to install */
};

typedef struct pp_parcel {
  pp_blob *blob; /* a reference the caller now owns: release it by the hook */
  unsigned flags;
} pp_parcel;

/*
 * The parcel of the Lua function at idx: its code, upvalues and every
 * user-defined global they reach by name, transitively, as they are now. extra
 * is the stack index of a table of more globals (name -> value), or 0. Calls
 * for a function that captures, and whose extra holds, only functions, strings,
 * numbers and booleans are answered from a cache that checks nothing has
 * changed.
 * On success pushes the kept list (see pp_codec_pack) or nil. On
 * PP_EUNSENDABLE (also for what is no function, or a C function without a
 * name) a message string like "cannot send upvalue 'conn' of function 'fetch'
 * (crawl.lua:12): userdata" is pushed on L instead; PP_ENOMEM, PP_ELIMIT and
 * PP_EBAD (a key of extra that is no string) push a message too. Does not
 * raise. Functions that travel by name (string.rep) have parcels as well.
 */
int pp_codec_function(pp_codec *c, lua_State *L, int idx, int extra,
                      pp_parcel *out);

/* The same if that cache has the answer, pushing nothing; else false. The blob
 * is borrowed until Lua runs or allocates. */
bool pp_codec_cached(pp_codec *c, lua_State *L, int idx, int extra,
                     pp_parcel *out);

/*
 * What would travel with the function at idx: pushes a table
 * {bytes =, upvalues = {name -> value}, globals = {name -> value}}; result as
 * pp_codec_function.
 */
int pp_codec_captures(pp_codec *c, lua_State *L, int idx);

/* A custom value is gone: forget cached parcels that refer to such blobs. */
void pp_codec_forget(pp_codec *c);

/* --- both --------------------------------------------------------------- */

/* Blobs that packed bytes refer to; an array that grows, each a reference
 * owned by it. Zeroed is empty. */
typedef struct pp_deps {
  pp_blob **v;
  size_t n, cap;
} pp_deps;
void pp_deps_clear(pp_codec *c, pp_deps *d); /* releases each, frees */

/*
 * Append the n values at stack indices first .. first+n-1 to out, as one graph
 * (sharing among them is kept). Functions in them add to deps (submitter) or
 * refer to code this worker was sent (worker; deps may be NULL). `what` names
 * them in a refusal: "argument" -> "cannot send argument 2: userdata",
 * "field 'sock' of argument 1"; "result" in a worker. Does not raise; grows C
 * memory and the Lua stack with nesting, not the C stack; runs no metamethod.
 *
 * On success pushes one value: in a submitter the kept list, a table holding
 * (by id, not in sequence) every table that went out and may come back as a
 * metatable (it is a metatable, or has a key beginning with "__"), or nil when
 * there is none; nil in a worker. Whoever unpacks the results must still hold
 * that list: results name those tables by a number that a weak registry of the
 * codec resolves. On error out and deps are as they were and a message is
 * pushed instead.
 */
int pp_codec_pack(pp_codec *c, lua_State *L, int first, int n, const char *what,
                  pp_buf *out, pp_deps *deps);

/* Code blobs of a parcel or of packed arguments, in the order of deps. */
typedef struct pp_code {
  pp_hash hash;
  const unsigned char *data; /* borrowed for the call; NULL: that is no code */
  size_t len;
} pp_code;

/*
 * Push the values in these bytes; returns how many (>= 0). On PP_EBAD,
 * PP_ENOMEM, PP_ELIMIT a message is pushed instead. Does not raise. In a
 * submitter nothing received is run: __gc and __close are dropped, no
 * metamethod called, code only accepted by the hash and position of what was
 * sent (hooks.code) or as source text.
 */
int pp_codec_unpack(pp_codec *c, lua_State *L, const void *bytes, size_t len,
                    const pp_code *codes, size_t ncodes);

/* --- worker ------------------------------------------------------------- */

/*
 * Push the function in a parcel's bytes, then its bindings: nil, or a table to
 * hand to pp_codec_bind, of no other use. On failure a message is pushed, as by
 * pp_codec_unpack; returns 0. A parcel without PP_PARCEL_MUTABLE is opened
 * once: its function and bindings serve any number of executions.
 */
int pp_codec_open(pp_codec *c, lua_State *L, const void *bytes, size_t len,
                  const pp_code *codes, size_t ncodes);

/*
 * The same for the first of any values packed by a submitter, which is to
 * serve any number of executions: its bindings are for pp_codec_install.
 */
int pp_codec_open_value(pp_codec *c, lua_State *L, const void *bytes,
                        size_t len, const pp_code *codes, size_t ncodes);

/*
 * Begin an execution: the table at index env becomes the value of the global
 * _ENV of every function opened or unpacked by this codec, of load and dofile
 * (registry globals) and of the name _G; bindings (index, or 0) are put in it,
 * raw, and patches applied to standard tables (and, where the script set a
 * standard global to nil, to the base globals). 0 or PP_ENOMEM: then nothing
 * is bound; pushes nothing. pp_codec_unbind ends it: _ENV and the registry's
 * globals are what they were before, the patches are taken back; what was put
 * in env stays there. They nest. Neither raises.
 *
 * Cheapest when there are no bindings and env._G is env already: no protected
 * call is made. Functions in arguments bring globals and patches of their own:
 * pp_codec_unpack, between bind and unbind, puts them where these would be
 * (globals only where env has none of that name).
 */
int pp_codec_bind(pp_codec *c, lua_State *L, int env, int bindings);
/* The same for an env that was bound before, with whatever bindings, and is as
 * it was then. May raise for lack of memory; then nothing is bound. */
void pp_codec_rebind(pp_codec *c, lua_State *L, int env);
/* More bindings for the execution that has begun; `over`: also where it has a
 * global of that name. 0 or PP_ENOMEM; pushes nothing, does not raise. */
int pp_codec_install(pp_codec *c, lua_State *L, int bindings, bool over);
/* Another execution of the same: what unbind and bind would do, in place of
 * both, where the one at work has left nothing that unbind would see to; else
 * false, and nothing is done. bindings: index of what it was bound with. May
 * raise for lack of memory; it is bound in any case. */
bool pp_codec_renew(pp_codec *c, lua_State *L, int env, int bindings);
/* Push the tables these bindings' message had by id: a table, or nil. */
void pp_codec_kept(lua_State *L, int bindings);
/*
 * Another worker's results, opened here, name metatables by id: of what the
 * function captured, or arguments had, or what hooks.kept knows. Once those
 * are here, give the tables theirs. 0, or an error with a message pushed.
 */
int pp_codec_settle(pp_codec *c, lua_State *L);
/* The patches of the bind at work are there to stay. Does not raise. */
void pp_codec_stay(pp_codec *c, lua_State *L);
void pp_codec_unbind(pp_codec *c, lua_State *L);

#endif
