#!/bin/sh
# SPDX-License-Identifier: MIT
# Write C that holds the agents: carry.sh OUTPUT HASH-PROGRAM MACHINE=FILE...
set -eu
output=$1 hash=$2
shift 2
table='' n=0
{
  printf '/* Made by cmake/carry.sh. */\n#include "images.h"\n'
  for agent in "$@"; do
    machine=${agent%%=*} file=${agent#*=}
    packed=$output.$machine.gz
    gzip -9nc "$file" >"$packed"
    size=$(wc -c <"$file") small=$(wc -c <"$packed")
    cat <<END
__asm__(".section .rodata\n"
        ".balign 16\npp_agent_$n:\n.incbin \"$file\"\n"
        ".balign 16\npp_agent_gz_$n:\n.incbin \"$packed\"\n.previous\n");
extern const unsigned char pp_agent_$n[], pp_agent_gz_$n[];
END
    table="$table  {\"$machine\", pp_agent_$n, $size, pp_agent_gz_$n, $small,
   \"$("$hash" "$file")\"},
"
    n=$((n + 1))
  done
  printf 'const pp_agent_image pp_agent_images[] = {\n%s  {0},\n};\n' "$table"
  printf 'const size_t pp_agent_nimages = %d;\n' "$n"
} >"$output.new"
mv "$output.new" "$output"
