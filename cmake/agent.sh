#!/bin/sh
# SPDX-License-Identifier: MIT
# Build the agent that is sent to remote hosts: one static program.
#
#   agent.sh OUTPUT WORK CC LUA_LIBRARY CFLAGS... -- SOURCE...
#
# Small comes before fast here, but the code that runs is Lua's. What unwinds
# stacks is taken out of copies of the static libraries: nobody throws.
set -eu
output=$1 work=$2 cc=$3 lua=$4
shift 4
flags=''
while [ "$1" != -- ]; do
  flags="$flags '$1'"
  shift
done
shift
rm -rf "$work"
mkdir -p "$work"
tools=${cc%gcc}
case $tools in *-) ;; *) tools='' ;; esac

jobs=$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)
printf '%s\n' "$@" | xargs -P "$jobs" -I{} sh -c '
  name=$(basename "$1" .c)
  shift
  exec "$@" -o "'"$work"'/$name.o"' sh {} \
  sh -c "exec $cc -c $flags \"\$@\"" cc {}

slim() { # library: a copy without unwind tables
  "${tools}objcopy" -R .eh_frame -R .rela.eh_frame "$1" "$work/$2"
}
slim "$($cc -print-file-name=libc.a)" libc.a
libm=$($cc -print-file-name=libm.a)
if head -c 2 "$libm" | grep -q '^/\*'; then # a linker script names it
  libm=$(sed -n 's/^GROUP *( *\([^ ]*\).*/\1/p' "$libm")
fi
slim "$libm" libm.a
slim "$lua" liblua.a

eval "$cc $flags -static -Wl,--gc-sections,--build-id=none \
  -Wl,-z,noseparate-code,-z,norelro -L'$work' -o '$work/agent' \
  '$work'/*.o -l:liblua.a -lm" 2>"$work/log" || {
  cat "$work/log" >&2
  exit 1
}
"${tools}strip" -R .comment "$work/agent"
mv "$work/agent" "$output"
