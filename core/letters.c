/* SPDX-License-Identifier: MIT */
/*
 * string.upper and string.lower, as Lua's own but for the time: in the locale
 * "C", which is what there is unless a script sets another, a block of letters
 * is changed at once, and short strings need no buffer of Lua's.
 */
#include <ctype.h>
#include <lauxlib.h>
#include <locale.h>
#include <string.h>

#include "state.h"

enum {
  BLOCK = 32, /* bytes changed at once: what vectors hold */
  SMALL = 512 /* bytes of a string that is made on the C stack */
};

/* Letters of ASCII from `first` on, 26, are changed for their others. */
static inline unsigned char other(unsigned char c, unsigned char first) {
  return (unsigned char)(c ^ ((unsigned char)(c - first) < 26) << 5);
}

static void change(char *to, const char *from, size_t n, unsigned char first) {
  size_t i = 0;

  for (; n - i >= BLOCK; i += BLOCK) {
    unsigned char block[BLOCK];

    memcpy(block, from + i, BLOCK);
    for (int k = 0; k < BLOCK; k++)
      block[k] = other(block[k], first);
    memcpy(to + i, block, BLOCK);
  }
  for (; i < n; i++)
    to[i] = (char)other((unsigned char)from[i], first);
}

static void convert(char *to, const char *from, size_t n, bool up) {
  const char *locale = setlocale(LC_CTYPE, NULL);

  if (locale != NULL && strcmp(locale, "C") == 0)
    change(to, from, n, up ? 'a' : 'A');
  else
    for (size_t i = 0; i < n; i++)
      to[i] = (char)(up ? toupper((unsigned char)from[i])
                        : tolower((unsigned char)from[i]));
}

static int converted(lua_State *L, bool up) {
  size_t n;
  const char *s = luaL_checklstring(L, 1, &n);

  if (n <= SMALL) {
    char small[SMALL];

    convert(small, s, n, up);
    lua_pushlstring(L, small, n);
  } else {
    luaL_Buffer b;
    char *to = luaL_buffinitsize(L, &b, n);

    convert(to, s, n, up);
    luaL_pushresultsize(&b, n);
  }
  return 1;
}

static int str_upper(lua_State *L) { return converted(L, true); }
static int str_lower(lua_State *L) { return converted(L, false); }

const luaL_Reg pp_letters[] = {
    {"upper", str_upper},
    {"lower", str_lower},
    {NULL, NULL},
};
