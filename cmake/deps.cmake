# SPDX-License-Identifier: MIT
# Lua 5.4, libuv, libssh2, libcrypto, threads, xxhash.h; readline when it is
# there.

find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)

# Distributions do not agree on what Lua 5.4's pkg-config file is called, and
# a plain "lua" may be any version.
foreach(name lua5.4 lua-5.4 lua54 lua)
  pkg_check_modules(LUA QUIET IMPORTED_TARGET "${name}>=5.4" "${name}<5.5")
  if(LUA_FOUND)
    break()
  endif()
endforeach()
if(NOT LUA_FOUND)
  message(FATAL_ERROR
    "Lua 5.4 was not found by pkg-config (tried lua5.4, lua-5.4, lua54, lua). "
    "On Debian: apt-get install liblua5.4-dev pkg-config")
endif()

pkg_check_modules(UV QUIET IMPORTED_TARGET "libuv>=1.38")
if(NOT UV_FOUND)
  message(FATAL_ERROR
    "libuv (1.38 or later) was not found by pkg-config. "
    "On Debian: apt-get install libuv1-dev")
endif()

pkg_check_modules(SSH2 QUIET IMPORTED_TARGET "libssh2>=1.9")
if(NOT SSH2_FOUND)
  message(FATAL_ERROR
    "libssh2 (1.9 or later) was not found by pkg-config. "
    "On Debian: apt-get install libssh2-1-dev")
endif()

# What libssh2 is built on here, and all that checking host keys and
# opening private keys needs.
pkg_check_modules(ZLIB QUIET IMPORTED_TARGET zlib)
if(NOT ZLIB_FOUND)
  message(FATAL_ERROR
    "zlib was not found by pkg-config. On Debian: apt-get install zlib1g-dev")
endif()

pkg_check_modules(CRYPTO QUIET IMPORTED_TARGET libcrypto)
if(NOT CRYPTO_FOUND)
  message(FATAL_ERROR
    "libcrypto was not found by pkg-config. "
    "On Debian: apt-get install libssl-dev")
endif()

find_path(XXHASH_INCLUDE_DIR xxhash.h)
if(NOT XXHASH_INCLUDE_DIR)
  message(FATAL_ERROR
    "xxhash.h was not found. On Debian: apt-get install libxxhash-dev")
endif()
mark_as_advanced(XXHASH_INCLUDE_DIR)

set(PPSH_HAVE_READLINE FALSE)
if(PPSH_READLINE STREQUAL "AUTO" OR PPSH_READLINE)
  pkg_check_modules(READLINE QUIET IMPORTED_TARGET readline)
  if(READLINE_FOUND)
    set(PPSH_HAVE_READLINE TRUE)
  elseif(NOT PPSH_READLINE STREQUAL "AUTO")
    message(FATAL_ERROR
      "PPSH_READLINE is ON but readline was not found by pkg-config. "
      "On Debian: apt-get install libreadline-dev")
  endif()
endif()
