# SPDX-License-Identifier: MIT
# cmake -DROOT= -DLIST= -DOUTPUT= -P embed.cmake
#
# Writes OUTPUT, the C file that core/embed.h declares, from the Lua files
# named in LIST (relative to ROOT, each "lua/...").

file(STRINGS ${LIST} files)
set(arrays "")
set(table "")
set(n 0)
foreach(file IN LISTS files)
  string(REGEX REPLACE "^lua/" "" chunk ${file})
  string(REGEX REPLACE "\\.lua$" "" module ${chunk})
  string(REGEX REPLACE "/init$" "" module ${module})
  string(REPLACE "/" "." module ${module})
  file(SIZE ${ROOT}/${file} size)
  file(READ ${ROOT}/${file} hex HEX)
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
  # One line of C for each line of Lua.
  string(REGEX REPLACE "(0x0a,)" "\\1\n" bytes "${bytes}")
  string(APPEND arrays
    "static const char m${n}[] = {\n${bytes}0x00};\n")
  string(APPEND table
    "  {\"${module}\", \"@${chunk}\", m${n}, ${size}},\n")
  math(EXPR n "${n} + 1")
endforeach()

file(WRITE ${OUTPUT}
  "/* Made by cmake/embed.cmake; changes here are lost. */\n"
  "#include \"embed.h\"\n\n"
  "${arrays}\n"
  "const pp_embedded pp_embedded_modules[] = {\n${table}"
  "  {0, 0, 0, 0},\n};\n")
