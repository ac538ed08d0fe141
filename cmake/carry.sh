#!/bin/sh
# SPDX-License-Identifier: MIT
# Write C that holds the agents, compressed: carry.sh OUTPUT MACHINE=FILE...
set -eu
output=$1
shift
table=''
{
  printf '/* Made by cmake/carry.sh. */\n#include "images.h"\n'
  for agent in "$@"; do
    machine=${agent%%=*} file=${agent#*=}
    packed=$output.$machine.gz
    gzip -9nc "$file" >"$packed"
    hash=$(sha256sum "$file" | cut -c1-32)
    size=$(wc -c <"$file")
    id=$(printf %s "$machine" | tr -c 'a-zA-Z0-9' _)
    cat <<END
__asm__(".section .rodata\n.balign 16\nagent_$id:\n.incbin \"$packed\"\n"
        "agent_${id}_end:\n.byte 0\n.previous\n");
extern const unsigned char agent_$id[], agent_${id}_end[];
END
    table="$table  {\"$machine\", \"$hash\", $size, agent_$id, agent_${id}_end},
"
  done
  printf 'const pp_image pp_images[] = {\n%s  {0},\n};\n' "$table"
} >"$output.new"
mv "$output.new" "$output"
