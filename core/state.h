/* SPDX-License-Identifier: MIT */
/*
 * state: how a Lua state is made, and what is in it.
 *
 * Every state has the standard library, the embedded modules and the C modules
 * of this program (found by require after package.preload and before any
 * file), warnings as in lua(1), an allocator that counts, and a note of which
 * of its coroutines is running.
 */
#ifndef PP_STATE_H
#define PP_STATE_H

#include <lauxlib.h>
#include <lua.h>
#include <stdbool.h>
#include <stddef.h>

/* Bytes this state holds, and the most it may hold (0: no limit). Beyond it
 * an allocation fails: Lua collects, then raises "not enough memory". What
 * is held already is never taken away by lowering the limit. */
typedef struct pp_memory {
  size_t used, limit;
} pp_memory;

/* What letters.c puts in the table `string` of every state. */
extern const luaL_Reg pp_letters[];

/* New state, or NULL without memory. With noenv, LUA_PATH and LUA_CPATH are
 * not looked at. */
lua_State *pp_state_new(bool noenv);

/* Is this what a function of the library's own Lua has for its source? */
bool pp_state_embedded(const char *source);

/* lua_close, which does as well (os.exit(n, true) calls it), but L may be
 * NULL. */
void pp_state_close(lua_State *L);

/* Set *slot to NULL when the state's memory goes, for those who might use it
 * afterwards. One slot per state; borrowed. */
void pp_state_at_close(lua_State *L, lua_State *volatile *slot);

/* What is kept of its large blocks: nothing, unless asked for. A reference, for
 * whoever trims it: it may outlive the state. */
struct pp_blocks;
struct pp_blocks *pp_state_blocks(lua_State *L);

/*
 * A string of so many bytes is about to come, or some have gone. The collector
 * sees what is large only when it is there, and what a job's handle keeps only
 * after its finalizer: by then the next string has taken fresh memory, which is
 * dearer than its bytes. If it is large enough all is collected before, as
 * often as that takes no longer than half of what copying such strings does.
 * May run finalizers.
 */
void pp_state_expect(lua_State *L, size_t bytes);

/*
 * A large string need not be copied when its bytes come to where they are to be
 * in its own block: a block of pp_state_string_size(n) bytes of this state's,
 * and in it the n bytes from pp_state_string_at on (0: that cannot be). Who has
 * put them there lends the block; if the string is pushed by pp_state_push
 * meanwhile it is that, with a head that is written over what comes before the
 * bytes; else the block is as it was.
 */
size_t pp_state_string_at(lua_State *L);
size_t pp_state_string_size(lua_State *L, size_t n);
void pp_state_lend(lua_State *L, unsigned char *block, size_t n);
/* No longer: the block, or NULL if it is a string now. */
unsigned char *pp_state_unlend(lua_State *L);
/* lua_pushlstring. In a state of another maker, too. */
void pp_state_push(lua_State *L, const void *p, size_t n);

/* Collect all, and give what is free in this process back to the system. May
 * run finalizers. */
void pp_state_slim(lua_State *L);

/* L's state is about to be closed, and others may read strings of its beyond
 * that: what is in blocks of their own (blocks.h) is not freed any more. */
void pp_state_leave(lua_State *L);

/* The counters of L's state; they live as long as it does. */
pp_memory *pp_state_memory(lua_State *L);

/*
 * The coroutine that is running in the state L belongs to. Exact for
 * coroutines resumed by coroutine.resume and coroutine.wrap; what a C module
 * resumes by itself counts as its resumer. A signal handler may call it.
 */
lua_State *pp_state_running(lua_State *L);

/* Say that `to`, a thread made with lua_newthread, runs from now on. */
void pp_state_switch(lua_State *to);

/*
 * Have hook called at the next VM instruction of whatever runs in L's state,
 * also when that is just changing coroutines. Async-signal-safe as far as
 * lua_sethook is. The hook calls pp_state_unpoke(its own L) first; a suspended
 * coroutine may still hold the hook and call it much later, so it must look
 * whether there is anything to do. Takes the place of a hook the script set.
 */
void pp_state_poke(lua_State *L, lua_Hook hook);
void pp_state_unpoke(lua_State *L);

#endif
