/* SPDX-License-Identifier: MIT */
/*
 * lazylib: a shared library that is opened when it is first needed, not linked.
 *
 * What is linked is loaded at every start, relocated and shared out to each
 * worker, needed or not: libcrypto alone takes half a millisecond and 100 KB
 * of each worker. So what only some runs need (readline, libcrypto, libssh2)
 * is used by way of a structure of its symbols:
 *
 *   #define SYMBOLS(X) X(readline) X(rl_catch_signals)
 *   static struct { SYMBOLS(PP_LAZY_FIELD) } lib;
 *
 *   static bool open_library(void) {
 *     void *h = dlopen("libreadline.so." PP_LAZY_STRING(RL_VERSION_MAJOR),
 *                      RTLD_LAZY);
 *     return h != NULL SYMBOLS(PP_LAZY_FIND);
 *   }
 *
 *   ... lib.readline("> ") ... *lib.rl_catch_signals = 0 ...
 *
 * Their types come from the library's own header.
 */
#ifndef PP_LAZYLIB_H
#define PP_LAZYLIB_H

#include <dlfcn.h>

#define PP_LAZY_STRING(x) PP_LAZY_STRING_(x)
#define PP_LAZY_STRING_(x) #x
#define PP_LAZY_FIELD(name) __typeof__(name) *name;
#define PP_LAZY_FIND(name) &&(*(void **)&lib.name = dlsym(h, #name)) != NULL

#endif
