/* SPDX-License-Identifier: MIT */
/*
 * embed: the Lua modules under lua/, compiled, in the program.
 *
 * The table is generated at build time (cmake/embed.c): lua/pp/init.lua is
 * the module "pp", lua/pp/foo.lua is "pp.foo". It ends with an entry whose
 * module is NULL. Everything in it is static.
 */
#ifndef PP_EMBED_H
#define PP_EMBED_H

#include <stddef.h>

typedef struct pp_embedded {
  const char *module;        /* what require is given */
  const char *chunk;         /* chunk name: "@pp/init.lua" */
  const unsigned char *code; /* as of string.dump, nothing stripped */
  size_t len;
} pp_embedded;

extern const pp_embedded pp_embedded_modules[];

#endif
