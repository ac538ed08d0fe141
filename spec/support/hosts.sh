#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Hosts to connect to, on this machine, for specs and benchmarks.
#
#   hosts.sh DIR new                      keys, ssh_config, known_hosts
#   hosts.sh DIR sshd NAME [LINE...]      a host: an sshd of its own on loopback,
#                                         with these lines in its configuration
#   hosts.sh DIR netns NAME [DELAY_US]    a host in a network namespace (root);
#                                         DELAY_US: so late each way (TAPDELAY is
#                                         the program that does it)
#   hosts.sh DIR alias NAME HOST [LINE...] another name for it, with these lines
#                                         in ssh_config before all others
#   hosts.sh DIR stop NAME                no new connections; sessions go on
#   hosts.sh DIR kill NAME                all its processes die
#   hosts.sh DIR drop NAME                only its sessions die
#   hosts.sh DIR start NAME               again
#   hosts.sh DIR cut NAME | join NAME     the cable of a namespace
#   hosts.sh DIR slow NAME RATE           the bandwidth of a namespace, each way, as
#                                         tc(8) says it (10mbit)
#   hosts.sh DIR down                     everything is gone
#
# HOSTKEYS (default "ed25519 ecdsa rsa") says which host keys a new host has;
# KNOWN=no leaves it out of known_hosts; KNOWN="rsa" puts in only these.
# Home is an empty directory of its own, unless LINE is a SetEnv (the first counts).
# SETUP is run by sh in a mount namespace of the host's own before its sshd (root):
# what is mounted there is seen by this host only.
#
# The user's keys are DIR/user_{ed25519,ecdsa,rsa}, user_locked and
# user_locked_rsa with the passphrase "open sesame", and user_unknown, which no
# host lets in. As any user; processes are found by descent or by namespace,
# never by name.
set -eu
dir=$1 command=$2
shift 2
sshd=$(command -v sshd || echo /usr/sbin/sshd)
prefix=pp$(printf %s "$dir" | cksum | cut -d' ' -f1 | tail -c 6)
bridge=${prefix}b
net=10.$((64 + $(printf %s "$dir" | cksum | cut -d' ' -f1) % 64)).$(($(printf %s "$dir" | cksum | cut -d' ' -f1) / 64 % 256))

# RSA keys of the usual size take seconds to find.
key() {
  local bits=()
  [ "$1" != rsa ] || bits=(-b 2048)
  [ -f "$3" ] || ssh-keygen -q -t "$1" "${bits[@]}" -N "$2" -C "$(basename "$3")" -f "$3"
}

# PID and everything below it, the deepest first.
tree() {
  local child
  for child in $(cat /proc/"$1"/task/*/children 2>/dev/null); do tree "$child"; done
  echo "$1"
}

pid_of() { cat "$dir/$1/sshd.pid" 2>/dev/null || true; }
in_netns() { [ -f "$dir/$1/netns" ]; }
namespace() { cat "$dir/$1/netns"; }

pids() { # NAME: all its processes
  if in_netns "$1"; then
    ip netns pids "$(namespace "$1")" 2>/dev/null || true
  else
    # Sessions outlive an sshd that was stopped: they are remembered.
    for pid in $(pid_of "$1") $(cat "$dir/$1/orphans" 2>/dev/null); do
      [ ! -d "/proc/$pid" ] || tree "$pid"
    done
  fi
}

sessions() { # NAME
  local listener
  listener=$(pid_of "$1")
  for pid in $(pids "$1"); do [ "$pid" = "$listener" ] || echo "$pid"; done
}

wait_gone() { # PID...
  local n=0 pid state
  for pid; do
    while state=$(sed 's/.*) //;s/ .*//' "/proc/$pid/stat" 2>/dev/null) &&
      [ -n "$state" ] && [ "$state" != Z ] && [ $n -lt 500 ]; do
      sleep 0.01
      n=$((n + 1))
    done
  done
}

# PID..., the deepest first: they die as in a power cut, none living to tell of
# the others. Who would tell is stopped first.
at_once() {
  local pid upwards=()
  [ $# -gt 0 ] || return 0
  for pid; do upwards=("$pid" "${upwards[@]}"); done
  kill -STOP "${upwards[@]}" 2>/dev/null || true
  kill -9 "$@" 2>/dev/null || true
  wait_gone "$@"
}

start() {
  local d=$dir/$1 in=() n=0
  rm -f "$d/sshd.pid"
  if in_netns "$1"; then in=(ip netns exec "$(namespace "$1")"); fi
  if [ -s "$d/setup" ]; then
    in+=(unshare -m --propagation private sh -e -c ". '$d/setup'; exec \"\$@\"" sh)
  fi
  # sshd wants an absolute path, and goes to the background by itself.
  "${in[@]}" "$sshd" -f "$d/sshd_config" -E "$d/log" </dev/null
  while [ ! -s "$d/sshd.pid" ]; do
    [ $n -lt 500 ] || { cat "$d/log" >&2; echo "sshd $1 did not start" >&2; exit 1; }
    sleep 0.01
    n=$((n + 1))
  done
}

configure() { # NAME ADDRESS PORT [LINE...]
  local d=$dir/$1 name=$1 address=$2 port=$3 type
  shift 3
  printf '%s' "${SETUP:-}" >"$d/setup"
  mkdir -p "$d/home"
  {
    # What stands first counts.
    printf '%s\n' "$@"
    echo "Port $port"
    echo "ListenAddress $address"
    for type in ${HOSTKEYS:-ed25519 ecdsa rsa}; do
      key "$type" '' "$d/host_$type"
      echo "HostKey $d/host_$type"
    done
    cat <<LINES
PidFile $d/sshd.pid
AuthorizedKeysFile $dir/authorized_keys
StrictModes no
PermitRootLogin yes
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
PrintMotd no
AllowTcpForwarding yes
Subsystem sftp internal-sftp
SetEnv HOME=$d/home
LINES
  } >"$d/sshd_config"
  for type in ${KNOWN:-${HOSTKEYS:-ed25519 ecdsa rsa}}; do
    [ "$type" != no ] || continue
    if [ "$port" = 22 ]; then who=$address; else who="[$address]:$port"; fi
    echo "$who $(cut -d' ' -f1,2 "$d/host_$type.pub")" >>"$dir/known_hosts"
  done
  printf 'Host %s\n  HostName %s\n  Port %s\n' "$name" "$address" "$port" \
    >>"$dir/hosts.conf"
  echo "$port" >"$d/port"
  echo "$address" >"$d/address"
}

free_port() {
  local port
  while :; do
    port=$((20000 + (RANDOM * 32768 + RANDOM) % 12000))
    if ! grep -qsi ":$(printf %04X $port) " /proc/net/tcp /proc/net/tcp6; then
      echo $port
      return
    fi
  done
}

case $command in
  new)
    mkdir -p "$dir"
    chmod 755 "$dir"
    [ "$(id -u)" != 0 ] || mkdir -p /run/sshd
    for type in ed25519 ecdsa rsa; do key $type '' "$dir/user_$type"; done
    key ed25519 'open sesame' "$dir/user_locked"
    key rsa 'open sesame' "$dir/user_locked_rsa"
    key ed25519 '' "$dir/user_unknown"
    cat "$dir"/user_{ed25519,ecdsa,rsa,locked,locked_rsa}.pub >"$dir/authorized_keys"
    : >"$dir/known_hosts"
    : >"$dir/hosts.conf"
    : >"$dir/aliases.conf"
    cat >"$dir/ssh_config" <<LINES
Include $dir/aliases.conf
Include $dir/hosts.conf
Host *
  User $(id -un)
  IdentityFile $dir/user_ed25519
  IdentitiesOnly yes
  IdentityAgent none
  UserKnownHostsFile $dir/known_hosts
  GlobalKnownHostsFile /dev/null
  StrictHostKeyChecking yes
  GSSAPIAuthentication no
LINES
    ;;
  sshd)
    name=$1
    shift
    mkdir -p "$dir/$name"
    for _ in 1 2 3 4 5; do
      configure "$name" 127.0.0.1 "$(free_port)" "$@"
      ! start "$name" 2>"$dir/$name/error" || exit 0
    done
    cat "$dir/$name/error" >&2
    exit 1
    ;;
  netns)
    name=$1 delay=${2:-0} d=$dir/$1
    mkdir -p "$d"
    i=$(find "$dir" -name netns | wc -l)
    i=$((i + 1))
    echo "${prefix}n$i" >"$d/netns"
    echo "${prefix}v$i" >"$d/link"
    ip link show "$bridge" >/dev/null 2>&1 || {
      ip link add "$bridge" type bridge
      ip addr add "$net.1/24" dev "$bridge"
      ip link set "$bridge" up
    }
    ip netns add "$(namespace "$name")"
    if [ "$delay" = 0 ]; then
      ip link add "${prefix}v$i" type veth peer name eth0 netns "$(namespace "$name")"
    else
      "${TAPDELAY:?}" "${prefix}v$i" "${prefix}w$i" "$delay" >"$d/tapdelay.out" 2>&1 </dev/null &
      echo $! >"$d/tapdelay.pid"
      for _ in $(seq 500); do
        [ ! -s "$d/tapdelay.out" ] || break
        sleep 0.01
      done
      ip link set "${prefix}w$i" netns "$(namespace "$name")" name eth0
    fi
    ip link set "${prefix}v$i" master "$bridge" up
    ip -n "$(namespace "$name")" addr add "$net.$((10 + i))/24" dev eth0
    ip -n "$(namespace "$name")" link set lo up
    ip -n "$(namespace "$name")" link set eth0 up
    configure "$name" "$net.$((10 + i))" 22
    start "$name"
    ;;
  alias)
    name=$1 host=$2
    shift 2
    {
      echo "Host $name"
      printf '  %s\n' "$@"
      printf '  HostName %s\n  Port %s\n' "$(cat "$dir/$host/address")" "$(cat "$dir/$host/port")"
    } >>"$dir/aliases.conf"
    ;;
  stop)
    listener=$(pid_of "$1")
    sessions "$1" >>"$dir/$1/orphans"
    kill "$listener"
    wait_gone "$listener"
    ;;
  kill)
    at_once $(pids "$1")
    rm -f "$dir/$1/sshd.pid"
    ;;
  drop)
    at_once $(sessions "$1")
    ;;
  start) start "$1" ;;
  cut) ip link set "$(cat "$dir/$1/link")" down ;;
  join)
    ip link set "$(cat "$dir/$1/link")" up
    # Nobody waits until that the other is not there is forgotten.
    ip neigh flush dev "$bridge"
    ip -n "$(namespace "$1")" neigh flush dev eth0
    ;;
  slow)
    way=(root tbf rate "$2" burst 32k latency 400ms)
    tc qdisc replace dev "$(cat "$dir/$1/link")" "${way[@]}"
    ip netns exec "$(namespace "$1")" tc qdisc replace dev eth0 "${way[@]}"
    ;;
  down)
    for config in "$dir"/*/sshd_config; do
      [ -f "$config" ] || continue
      name=$(basename "$(dirname "$config")")
      at_once $(pids "$name")
      if in_netns "$name"; then
        [ ! -s "$dir/$name/tapdelay.pid" ] || kill "$(cat "$dir/$name/tapdelay.pid")" 2>/dev/null || true
        ip netns del "$(namespace "$name")" 2>/dev/null || true
        ip link del "$(cat "$dir/$name/link")" 2>/dev/null || true
      fi
    done
    ip link del "$bridge" 2>/dev/null || true
    rm -rf "$dir"
    ;;
  *)
    sed -n '3,30s/^# \{0,1\}//p' "$0"
    exit 2
    ;;
esac
