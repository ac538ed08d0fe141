# SPDX-License-Identifier: MIT
# Completion of ppsh for bash. The options are those that `ppsh --help` lists.

# The options of $1, one a line, as --help has them: "--map EXPR".
_ppsh_help() {
  "$1" --help 2>/dev/null | sed -n '/^  -/ { s/^  //; s/   *.*//; s/, /\n/g; p; }'
}

# What of the options in $1 begins with $2.
_ppsh_options() {
  compgen -W "$(sed 's/\(--[a-z-]*\)\[\(=[a-z]*\)\]/\1\n\1\2/; s/ .*//' <<<"$1")" -- "$2"
}

# Hosts that ssh knows by name and that begin with $1.
_ppsh_hosts() {
  local dir=${HOME:-/}/.ssh
  {
    sed -n 's/^[[:space:]]*[Hh][Oo][Ss][Tt][[:space:]=][[:space:]]*//p' \
      "$dir"/config "$dir"/config.d/* /etc/ssh/ssh_config \
      /etc/ssh/ssh_config.d/* 2>/dev/null | tr '[:space:]' '\n'
    sed -n '/^[#|@]/d; s/[[:space:]].*//; s/,/\n/g; p' \
      "$dir"/known_hosts /etc/ssh/ssh_known_hosts 2>/dev/null |
      sed 's/^\[\([^]]*\)\]:\([0-9]*\)$/\1:\2/'
  } | grep -v '[]!*?[|]' | sort -u | while IFS= read -r host; do
    [[ $host == "$1"* ]] && printf '%s\n' "$host"
  done
}

_ppsh() {
  local line=${COMP_LINE:0:COMP_POINT} word before cut i help
  local -a words=()
  COMPREPLY=()
  # Words as the shell sees them, not as readline cuts them at @ and :.
  read -r -a words <<<"$line"
  [[ $line == *[[:space:]] ]] && words+=('')
  word=${words[-1]}
  before=
  ((${#words[@]} > 1)) && before=${words[-2]}
  help=$(_ppsh_help "${words[0]}")
  # Behind the script come its own arguments.
  for ((i = 1; i < ${#words[@]} - 1; i++)); do
    if [[ ${words[i]} == -- || ${words[i]} != -?* ]]; then
      return
    elif [[ $'\n'$help == *$'\n'"${words[i]} "* ]]; then
      ((i++)) # it has a value
    fi
  done
  cut=
  case $word in
  --hosts=*) before=--hosts cut=--hosts= ;;
  --log=*) before=--log cut=--log= ;;
  -H?*) before=-H cut=-H ;;
  esac
  case $before in
  -H | --hosts)
    [[ ${word#"$cut"} == @* ]] && return # a file of hosts
    case ${word#"$cut"} in
    *,*) cut=${word%,*}, ;;
    esac
    case ${word#"$cut"} in
    *@*) cut=$cut${word#"$cut"} cut=${cut%@*}@ ;;
    esac
    mapfile -t COMPREPLY < <(_ppsh_hosts "${word#"$cut"}")
    compopt -o nospace 2>/dev/null
    ;;
  --log)
    mapfile -t COMPREPLY < <(compgen -W 'error warn info debug' -- "${word#"$cut"}")
    ;;
  -j | --jobs)
    mapfile -t COMPREPLY < <(compgen -W "0 $(seq -s ' ' "$(nproc 2>/dev/null || echo 1)")" -- "$word")
    return
    ;;
  -l)
    mapfile -t COMPREPLY < <(compgen -f -X '!*.lua' -- "$word" | sed 's/\.lua$//; s,/,.,g')
    return
    ;;
  *)
    [[ $word == -* ]] || return # files, by default
    mapfile -t COMPREPLY < <(_ppsh_options "$help" "$word")
    ;;
  esac
  # readline replaces what is behind the last character it cuts words at.
  for i in "${!COMPREPLY[@]}"; do
    COMPREPLY[i]=$cut${COMPREPLY[i]}
  done
  cut=
  for ((i = 0; i < ${#word}; i++)); do
    [[ $COMP_WORDBREAKS == *"${word:i:1}"* ]] && cut=${word:0:i+1}
  done
  for i in "${!COMPREPLY[@]}"; do
    COMPREPLY[i]=${COMPREPLY[i]#"$cut"}
  done
}

complete -o bashdefault -o default -F _ppsh ppsh
