# SPDX-License-Identifier: MIT
# spec/c/NAME_test.c      -> a program that exits 0 when all is well
# spec/fuzz/fuzz_NAME.c   -> the fuzz target linked with a main that replays
#                            files; run over spec/fuzz/corpus/NAME
# spec/support/refuse.c   -> a library that chaos_spec.lua loads before the C library
# spec/support/tapdelay.c -> latency for the hosts of hosts.sh
# spec/c/NAME_driver.c    -> a program that specs run
# spec/c/tiny_agent.c     -> what boot_driver sends to hosts
# other spec/c/*.c        -> what these share, linked with each

add_library(refuse SHARED spec/support/refuse.c)
target_compile_definitions(refuse PRIVATE _GNU_SOURCE)
target_compile_options(refuse PRIVATE -Wall -Wextra -Wshadow)
target_link_libraries(refuse PRIVATE ${CMAKE_DL_LIBS})

add_executable(tapdelay spec/support/tapdelay.c)
target_compile_definitions(tapdelay PRIVATE _GNU_SOURCE)
target_compile_options(tapdelay PRIVATE -Wall -Wextra -Wshadow)

file(GLOB test_sources CONFIGURE_DEPENDS
  ${CMAKE_CURRENT_SOURCE_DIR}/spec/c/*_test.c)
file(GLOB support_sources CONFIGURE_DEPENDS
  ${CMAKE_CURRENT_SOURCE_DIR}/spec/c/*.c)
file(GLOB driver_sources CONFIGURE_DEPENDS
  ${CMAKE_CURRENT_SOURCE_DIR}/spec/c/*_driver.c)
list(REMOVE_ITEM support_sources ${test_sources} ${driver_sources}
  ${CMAKE_CURRENT_SOURCE_DIR}/spec/c/tiny_agent.c)
add_library(pptest INTERFACE)
target_link_libraries(pptest INTERFACE ppflags PkgConfig::CRYPTO)
target_compile_options(pptest INTERFACE
  "SHELL:-iquote ${CMAKE_CURRENT_SOURCE_DIR}/spec/c")
if(support_sources)
  add_library(ppsupport STATIC ${support_sources})
  target_link_libraries(ppsupport PUBLIC ppflags)
  target_link_libraries(pptest INTERFACE ppsupport)
endif()

foreach(source IN LISTS test_sources)
  get_filename_component(name ${source} NAME_WE)
  add_executable(${name} ${source})
  target_link_libraries(${name} PRIVATE ppcore ppremote pptest)
  add_test(NAME c.${name} COMMAND ${name}
    WORKING_DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR})
  set_tests_properties(c.${name} PROPERTIES TIMEOUT 300 LABELS c)
endforeach()

# It verifies what was signed by the library itself.
target_link_libraries(keys_test PRIVATE PkgConfig::CRYPTO)

foreach(source IN LISTS driver_sources)
  get_filename_component(name ${source} NAME_WE)
  add_executable(${name} ${source})
  target_link_libraries(${name} PRIVATE ppcore ppremote pptest)
endforeach()

# What boot_driver sends: static, as the real one.
add_executable(tiny_agent spec/c/tiny_agent.c core/hash.c)
target_link_libraries(tiny_agent PRIVATE -static -s)
target_compile_definitions(tiny_agent PRIVATE _GNU_SOURCE)
target_compile_options(tiny_agent PRIVATE -Wall -Wextra -Wshadow
  "SHELL:-iquote ${CMAKE_CURRENT_SOURCE_DIR}/core")
target_include_directories(tiny_agent SYSTEM PRIVATE ${XXHASH_INCLUDE_DIR})

set(replay_main ${PPSH_GENERATED_DIR}/fuzz_replay.c)
file(CONFIGURE OUTPUT ${replay_main} @ONLY CONTENT [[
/* Made by cmake/tests.cmake: calls the fuzz target with each file named. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int replay(const char *path) {
  FILE *f = fopen(path, "rb");
  unsigned char *data = NULL;
  long size;

  if (f == NULL || fseek(f, 0, SEEK_END) != 0 || (size = ftell(f)) < 0) {
    perror(path);
    return 1;
  }
  rewind(f);
  /* Exactly as long as the input, so that a sanitizer sees reads past it. */
  data = malloc(size > 0 ? (size_t)size : 1);
  if (data == NULL || fread(data, 1, (size_t)size, f) != (size_t)size) {
    perror(path);
    return 1;
  }
  fclose(f);
  LLVMFuzzerTestOneInput(data, (size_t)size);
  free(data);
  return 0;
}

int main(int argc, char **argv) {
  int i, bad = 0;

  for (i = 1; i < argc; i++)
    bad |= replay(argv[i]);
  printf("%d inputs replayed\n", argc - 1);
  return bad;
}
]])

file(GLOB fuzz_sources CONFIGURE_DEPENDS
  ${CMAKE_CURRENT_SOURCE_DIR}/spec/fuzz/fuzz_*.c)
foreach(source IN LISTS fuzz_sources)
  get_filename_component(name ${source} NAME_WE)
  string(REGEX REPLACE "^fuzz_" "" corpus ${name})
  file(GLOB inputs CONFIGURE_DEPENDS
    ${CMAKE_CURRENT_SOURCE_DIR}/spec/fuzz/corpus/${corpus}/*)
  add_executable(${name} ${source} ${replay_main})
  target_link_libraries(${name} PRIVATE ppcore ppremote pptest)
  add_test(NAME fuzz.${corpus} COMMAND ${name} ${inputs})
  set_tests_properties(fuzz.${corpus} PROPERTIES TIMEOUT 300 LABELS fuzz)
endforeach()
