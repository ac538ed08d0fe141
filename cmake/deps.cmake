# SPDX-License-Identifier: MIT
# Lua 5.4, libuv, libssh2, libcrypto, threads, xxhash.h; headers of readline
# and zstd when they are there.

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
pkg_check_modules(CRYPTO QUIET IMPORTED_TARGET libcrypto)
if(NOT CRYPTO_FOUND)
  message(FATAL_ERROR
    "libcrypto was not found by pkg-config. "
    "On Debian: apt-get install libssl-dev")
endif()

# Lua and libuv come from their archives where there are some. What is loaded
# at every start, and shared out anew to each worker, is then one program: it
# starts in half the time, and its workers are smaller. C modules find the Lua
# API in the program, as they do in lua(1).
#
# ppsh_library(NAME PREFIX FUNCTION ARCHIVE...): the interface library NAME is
# the first archive that links, else what pkg-config found under PREFIX.
function(ppsh_library name prefix function)
  set(file FALSE)
  if(NOT PPSH_STATIC STREQUAL "OFF")
    find_library(${prefix}_ARCHIVE NAMES ${ARGN} HINTS ${${prefix}_LIBRARY_DIRS}
      ${${prefix}_STATIC_LIBRARY_DIRS})
    mark_as_advanced(${prefix}_ARCHIVE)
    if(${prefix}_ARCHIVE)
      set(CMAKE_REQUIRED_LIBRARIES
        ${${prefix}_ARCHIVE} Threads::Threads ${CMAKE_DL_LIBS} m)
      set(CMAKE_REQUIRED_QUIET TRUE)
      check_c_source_compiles(
        "char ${function}(void); int main(void) { return ${function}(); }"
        ${prefix}_ARCHIVE_LINKS)
      if(${prefix}_ARCHIVE_LINKS)
        set(file ${${prefix}_ARCHIVE})
      endif()
    endif()
    if(NOT file AND NOT PPSH_STATIC STREQUAL "AUTO")
      message(FATAL_ERROR
        "PPSH_STATIC is ON but no archive of ${prefix} was found that links")
    endif()
  endif()
  add_library(${name} INTERFACE)
  if(file)
    target_include_directories(${name} SYSTEM INTERFACE
      ${${prefix}_INCLUDE_DIRS})
    target_compile_options(${name} INTERFACE ${${prefix}_CFLAGS_OTHER})
    target_link_libraries(${name} INTERFACE
      ${file} Threads::Threads ${CMAKE_DL_LIBS} m)
  else()
    target_link_libraries(${name} INTERFACE PkgConfig::${prefix})
  endif()
endfunction()
include(CheckCSourceCompiles)
ppsh_library(pplua LUA lua_newstate liblua5.4.a liblua54.a liblua-5.4.a liblua.a)
ppsh_library(ppuv UV uv_version libuv_a.a libuv.a)

find_path(XXHASH_INCLUDE_DIR xxhash.h)
if(NOT XXHASH_INCLUDE_DIR)
  message(FATAL_ERROR
    "xxhash.h was not found. On Debian: apt-get install libxxhash-dev")
endif()
mark_as_advanced(XXHASH_INCLUDE_DIR)

# Opened when it is needed, not linked: core/lazylib.h. What goes to hosts and
# back is packed by it.
find_path(ZSTD_INCLUDE_DIR zstd.h)
mark_as_advanced(ZSTD_INCLUDE_DIR)

# Opened when it is needed, not linked: core/lazylib.h.
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
