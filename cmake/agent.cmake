# SPDX-License-Identifier: MIT
# The agents that are sent to remote hosts, and how ppsh carries them along:
# one for this machine, one for aarch64 where a cross compiler and its Lua are.

option(PPSH_AGENT "Build the agents that are sent to remote hosts" ON)
set(PPSH_AGENT_FILES "" CACHE STRING
  "Agents built elsewhere to carry along: MACHINE=FILE;...")

# Nothing of these runs in a worker: core/agent_stubs.c stands for them.
set(driver_only main repl berths capture editor crew far far_send feed life link link_kids
  link_send link_take lua_given lua_input modules outlet serial serial_kids serial_modules serial_state
 
  options prompt script standby lua_lines)
# Those who watch a run.
list(APPEND driver_only label lua_watch report tally text timeline top trace)
set(agent_sources ${core_sources} ${CMAKE_CURRENT_SOURCE_DIR}/core/agent_main.c
  ${CMAKE_CURRENT_SOURCE_DIR}/core/agent_libc.c
  ${CMAKE_CURRENT_SOURCE_DIR}/core/agent_scan.c
  ${CMAKE_CURRENT_SOURCE_DIR}/core/agent_stubs.c)
foreach(name IN LISTS driver_only)
  list(FILTER agent_sources EXCLUDE REGEX "/core/${name}\\.c$")
endforeach()
list(REMOVE_DUPLICATES agent_sources)
file(GLOB core_headers CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/core/*.h)

set(agents "")
function(ppsh_agent machine cc lua zstd)
  set(file ${CMAKE_CURRENT_BINARY_DIR}/ppsh-agent-${machine})
  set(flags "")
  if(zstd AND ZSTD_INCLUDE_DIR)
    set(flags -DPPSH_HAVE_ZSTD -DPPSH_ZSTD_LINKED -idirafter ${ZSTD_INCLUDE_DIR})
  else()
    set(zstd none)
  endif()
  add_custom_command(
    OUTPUT ${file}
    COMMAND sh ${CMAKE_CURRENT_SOURCE_DIR}/cmake/agent.sh ${file}
      ${CMAKE_CURRENT_BINARY_DIR}/agent-${machine}.dir ${cc} ${lua} ${zstd}
      -Os -flto -std=gnu11 -D_GNU_SOURCE -fno-asynchronous-unwind-tables
      -ffunction-sections -fdata-sections
      -iquote ${CMAKE_CURRENT_SOURCE_DIR}/core -iquote ${PPSH_GENERATED_DIR}
      -idirafter ${XXHASH_INCLUDE_DIR} -I${LUA_INCLUDE_DIRS} ${flags}
      -- ${agent_sources} ${PPSH_GENERATED_DIR}/agent_embed.c
    DEPENDS ${agent_sources} ${core_headers} ${PPSH_GENERATED_SOURCES}
      ${PPSH_GENERATED_DIR}/agent_embed.c
      ${CMAKE_CURRENT_SOURCE_DIR}/cmake/agent.sh
    COMMENT "Building the agent for ${machine}"
    VERBATIM)
  set(agents ${agents} "${machine}=${file}" PARENT_SCOPE)
endfunction()

if(PPSH_AGENT_FILES)
  set(agents ${PPSH_AGENT_FILES})
elseif(PPSH_AGENT)
  set(places ${LUA_LIBRARY_DIRS} ${LUA_LIBDIR}
    /usr/lib/${CMAKE_LIBRARY_ARCHITECTURE} /usr/lib /usr/local/lib)
  find_file(PPSH_LUA_ARCHIVE NAMES liblua5.4.a liblua-5.4.a liblua54.a liblua.a
    PATHS ${places} NO_DEFAULT_PATH)
  find_file(PPSH_ZSTD_ARCHIVE libzstd.a PATHS ${places} NO_DEFAULT_PATH)
  execute_process(COMMAND ${CMAKE_C_COMPILER} -print-file-name=libc.a
    OUTPUT_VARIABLE libc OUTPUT_STRIP_TRAILING_WHITESPACE)
  if(PPSH_LUA_ARCHIVE AND EXISTS "${libc}")
    find_program(PPSH_AGENT_CC NAMES gcc cc)
    ppsh_agent(${CMAKE_HOST_SYSTEM_PROCESSOR} ${PPSH_AGENT_CC}
      ${PPSH_LUA_ARCHIVE} ${PPSH_ZSTD_ARCHIVE})
  else()
    message(STATUS "No agent: a static Lua or C library is missing")
  endif()
  find_program(PPSH_AARCH64_CC aarch64-linux-gnu-gcc)
  find_file(PPSH_AARCH64_LUA liblua5.4.a
    PATHS /usr/lib/aarch64-linux-gnu NO_DEFAULT_PATH)
  find_file(PPSH_AARCH64_ZSTD libzstd.a
    PATHS /usr/lib/aarch64-linux-gnu NO_DEFAULT_PATH)
  if(PPSH_AARCH64_CC AND PPSH_AARCH64_LUA AND
      NOT CMAKE_HOST_SYSTEM_PROCESSOR STREQUAL "aarch64")
    ppsh_agent(aarch64 ${PPSH_AARCH64_CC} ${PPSH_AARCH64_LUA}
      ${PPSH_AARCH64_ZSTD})
  endif()
endif()

add_executable(pphash cmake/hash.c core/hash.c)
target_compile_options(pphash PRIVATE
  "SHELL:-iquote ${CMAKE_CURRENT_SOURCE_DIR}/core")
target_include_directories(pphash SYSTEM PRIVATE ${XXHASH_INCLUDE_DIR})

set(agent_paths "")
foreach(agent IN LISTS agents)
  string(REGEX REPLACE "^[^=]*=" "" path "${agent}")
  list(APPEND agent_paths ${path})
endforeach()
add_custom_command(
  OUTPUT ${PPSH_GENERATED_DIR}/agents.c
  COMMAND sh ${CMAKE_CURRENT_SOURCE_DIR}/cmake/carry.sh
    ${PPSH_GENERATED_DIR}/agents.c $<TARGET_FILE:pphash> ${agents}
  DEPENDS pphash ${agent_paths} ${CMAKE_CURRENT_SOURCE_DIR}/cmake/carry.sh
  COMMENT "Packing the agents"
  VERBATIM)
