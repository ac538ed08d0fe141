#!/bin/sh
# SPDX-License-Identifier: MIT
# sh parallel.sh WORK N: prints seconds. Jobs of GNU parallel are shell commands;
# lists are lines that --pipe deals out in blocks.
set -eu
work=$1 n=$2
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
case $work in
start)
  parallel -j2 echo ::: 1
  exit
  ;;
gather | commands)
  seq "$n" >"$dir/in"
  set -- parallel -j2 true
  ;;
map)
  seq "$n" >"$dir/in"
  # shellcheck disable=SC2016 # awk's dollar
  set -- parallel -j2 -k --pipe awk "'{ print \$1 * \$1 }'"
  ;;
echo.64m)
  head -c $((n * 64 * 1024 * 1024)) /dev/zero >"$dir/in"
  set -- parallel -j2 -k --pipe --block 32M --recend "''" cat
  ;;
esac
from=$(date +%s%N)
"$@" <"$dir/in" >"$dir/out"
to=$(date +%s%N)
awk -v ns=$((to - from)) 'BEGIN { printf "%.9f\n", ns / 1e9 }'
