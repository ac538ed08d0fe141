# SPDX-License-Identifier: MIT
# Two generated files: the embedded Lua modules and the build id.
#
# The list of files is written to a file of its own, which changes only when
# the list does: a module that was deleted is gone from the next build.

set(PPSH_GENERATED_DIR ${CMAKE_CURRENT_BINARY_DIR}/generated)

file(GLOB_RECURSE lua_files CONFIGURE_DEPENDS
  RELATIVE ${CMAKE_CURRENT_SOURCE_DIR}
  ${CMAKE_CURRENT_SOURCE_DIR}/lua/*.lua)
file(GLOB c_files CONFIGURE_DEPENDS
  RELATIVE ${CMAKE_CURRENT_SOURCE_DIR}
  ${CMAKE_CURRENT_SOURCE_DIR}/core/*.c ${CMAKE_CURRENT_SOURCE_DIR}/core/*.h
  ${CMAKE_CURRENT_SOURCE_DIR}/remote/*.c
  ${CMAKE_CURRENT_SOURCE_DIR}/remote/*.h)
list(SORT lua_files)
list(SORT c_files)

function(ppsh_write_list file)
  string(REPLACE ";" "\n" lines "${ARGN}")
  file(CONFIGURE OUTPUT ${file} CONTENT "${lines}\n" @ONLY)
endfunction()
# What the prompt's .doc tells: docstrings, as a module.
set(PPSH_REFERENCE ${PPSH_GENERATED_DIR}/reference.lua)
ppsh_write_list(${PPSH_GENERATED_DIR}/lua.list ${lua_files}
  lua/pp/shell/reference.lua=${PPSH_REFERENCE})
# Agents have what workers need.
set(worker_files ${lua_files})
list(FILTER worker_files EXCLUDE REGEX "^lua/pp/shell/")
ppsh_write_list(${PPSH_GENERATED_DIR}/worker.list ${worker_files})
ppsh_write_list(${PPSH_GENERATED_DIR}/all.list ${c_files} ${lua_files})

list(TRANSFORM lua_files PREPEND ${CMAKE_CURRENT_SOURCE_DIR}/
  OUTPUT_VARIABLE lua_paths)
list(TRANSFORM c_files PREPEND ${CMAKE_CURRENT_SOURCE_DIR}/
  OUTPUT_VARIABLE c_paths)

# It runs here, at build time, and takes the Lua of the program.
add_executable(ppembed cmake/embed.c)
target_link_libraries(ppembed PRIVATE pplua)

add_executable(pprun cmake/run.c)
target_link_libraries(pprun PRIVATE pplua)
set(doc_files ${lua_files} ${c_files})
list(FILTER doc_files INCLUDE REGEX "^lua/pp/[^/]*$|/lua_[^/]*[.]c$")
list(TRANSFORM doc_files PREPEND ${CMAKE_CURRENT_SOURCE_DIR}/)
add_custom_command(
  OUTPUT ${PPSH_REFERENCE}
  COMMAND pprun ${CMAKE_CURRENT_SOURCE_DIR}/scripts/reference --lua
    ${PPSH_REFERENCE}
  DEPENDS pprun ${CMAKE_CURRENT_SOURCE_DIR}/scripts/reference ${doc_files}
  COMMENT "Gathering docstrings"
  VERBATIM)

foreach(pair lua:embed worker:agent_embed)
  string(REGEX REPLACE ":.*" "" list ${pair})
  string(REGEX REPLACE ".*:" "" name ${pair})
  add_custom_command(
    OUTPUT ${PPSH_GENERATED_DIR}/${name}.c
    COMMAND ppembed ${CMAKE_CURRENT_SOURCE_DIR}
      ${PPSH_GENERATED_DIR}/${list}.list ${PPSH_GENERATED_DIR}/${name}.c
    DEPENDS ppembed ${lua_paths} ${PPSH_GENERATED_DIR}/${list}.list
      ${PPSH_REFERENCE}
    COMMENT "Embedding Lua modules"
    VERBATIM)
endforeach()

add_custom_command(
  OUTPUT ${PPSH_GENERATED_DIR}/build_id.h
  COMMAND ${CMAKE_COMMAND}
    -DROOT=${CMAKE_CURRENT_SOURCE_DIR}
    -DLIST=${PPSH_GENERATED_DIR}/all.list
    -DVERSION=${PROJECT_VERSION}
    -DOUTPUT=${PPSH_GENERATED_DIR}/build_id.h
    -P ${CMAKE_CURRENT_SOURCE_DIR}/cmake/build_id.cmake
  DEPENDS ${lua_paths} ${c_paths} ${PPSH_GENERATED_DIR}/all.list
    ${CMAKE_CURRENT_SOURCE_DIR}/cmake/build_id.cmake
  COMMENT "Computing the build id"
  VERBATIM)

set(PPSH_GENERATED_SOURCES
  ${PPSH_GENERATED_DIR}/embed.c ${PPSH_GENERATED_DIR}/build_id.h)
