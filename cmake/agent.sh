#!/bin/sh
# SPDX-License-Identifier: MIT
# Build the agent that is sent to remote hosts: one static program.
#
#   agent.sh OUTPUT WORK CC LUA_LIBRARY ZSTD_LIBRARY CFLAGS... -- SOURCE...
#
# Small comes before fast here, but the code that runs is Lua's. What unwinds
# stacks is taken out of copies of the static libraries: nobody throws. Without
# zstd ("none") it does not pack.
set -eu
output=$1 work=$2 cc=$3 lua=$4 zstd=$5
shift 5
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

slim() { # library name: a copy without unwind tables
  "${tools}objcopy" -R .eh_frame -R .rela.eh_frame "$1" "$work/$2"
}

# Some functions are there once for each generation of processors, and one is
# chosen at the start. What some of these gain is not worth their size here.
fewer() { # name, generation, pattern of members: the oldest in their place
  "${tools}nm" -g --defined-only "$work/$1" 2>/dev/null |
    awk -v generation="_$2\$" -v members="$3" '
      NF == 1 { member = $1; sub(/:$/, "", member) }
      NF == 3 { there[$3] = 1; if (member ~ members) of[$3] = member }
      END {
        for (f in of) {
          old = f
          if (!sub(generation, "_sse2", old) || !(old in there))
            stays[of[f]] = 1
        }
        for (f in of) {
          old = f
          sub(generation, "_sse2", old)
          if (!(of[f] in stays))
            print of[f], f, old
        }
      }' >"$work/fewer"
  [ -s "$work/fewer" ] || return 0
  cut -d' ' -f1 "$work/fewer" | sort -u | xargs "${tools}ar" d "$work/$1"
  cut -d' ' -f2- "$work/fewer" >"$work/instead"
  "${tools}objcopy" "--redefine-syms=$work/instead" "$work/$1"
}
slim "$($cc -print-file-name=libc.a)" libc.a
libm=$($cc -print-file-name=libm.a)
if head -c 2 "$libm" | grep -q '^/\*'; then # a linker script names it
  libm=$(sed -n 's/^GROUP *( *\([^ ]*\).*/\1/p' "$libm")
fi
slim "$libm" libm.a
slim "$lua" liblua.a
fewer libm.a fma4 '-fma4[.]o$'
fewer libm.a avx '-avx[.]o$'
fewer libc.a avx2_rtm '-avx2-rtm[.]o$'
fewer libc.a sse42 '-sse4_2[.]o$'
for generation in avx2 evex; do
  fewer libc.a $generation "^strn?(case|cat|cpy).*-$generation[.]o\$"
done

# Of zstd's ways to pack only the fastest is called: nothing stands in the place
# of the others, and of what opens the formats of its youth.
if [ "$zstd" != none ]; then
  slim "$zstd" libzstd.a
  libzstd=-l:libzstd.a
  "${tools}ar" t "$work/libzstd.a" >"$work/members"
  for member in zstd_lazy zstd_opt zstd_ldm zstd_double_fast zstdmt_compress \
    zstd_v01 zstd_v02 zstd_v03 zstd_v04 zstd_v05 zstd_v06 zstd_v07; do
    grep -qx "$member.o" "$work/members" || continue
    "${tools}ar" p "$work/libzstd.a" "$member.o" >"$work/member"
    "${tools}nm" -g --defined-only "$work/member" |
      awk 'NF == 3 { print "long " $3 "(void) { return 0; }" }'
    "${tools}ar" d "$work/libzstd.a" "$member.o"
  done >"$work/nothing.c"
  $cc -w -Os -fno-builtin -fno-asynchronous-unwind-tables -ffunction-sections \
    -c -o "$work/nothing.o" "$work/nothing.c"
else
  libzstd=''
fi

eval "$cc $flags -static -Wl,--gc-sections,--build-id=none \
  -Wl,-z,noseparate-code,-z,norelro -L'$work' -o '$work/agent' \
  '$work'/*.o -l:liblua.a $libzstd -lm" 2>"$work/log" || {
  cat "$work/log" >&2
  exit 1
}
"${tools}strip" -R .comment "$work/agent"
mv "$work/agent" "$output"
