# SPDX-License-Identifier: MIT
# cmake -DROOT= -DLIST= -DVERSION= -DOUTPUT= -P build_id.cmake
#
# Writes PP_VERSION and PP_BUILD_ID: 16 hex digits that depend on the names and
# contents of the sources in LIST and on nothing else, so that two builds of
# the same sources know each other.

file(STRINGS ${LIST} files)
set(all "")
foreach(file IN LISTS files)
  file(SHA256 ${ROOT}/${file} hash)
  string(APPEND all "${file} ${hash}\n")
endforeach()
string(SHA256 id "${VERSION}\n${all}")
string(SUBSTRING ${id} 0 16 id)
file(WRITE ${OUTPUT}
  "/* Made by cmake/build_id.cmake; changes here are lost. */\n"
  "#define PP_VERSION \"${VERSION}\"\n"
  "#define PP_BUILD_ID \"${id}\"\n")
