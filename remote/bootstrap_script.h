/* SPDX-License-Identifier: MIT */
/*
 * The script of bootstrap.c, as sh reads it.
 *
 * It travels in single quotes through whatever the login shell is, csh and fish
 * included: no single quote, no backslash, no exclamation mark, no newline in
 * it. Before it stands
 *   m=WORD; i=BUILD-ID; k="MACHINE:HASH:GZSIZE:SIZE ..."
 * What it prints are lines WORD KIND TEXT; see on_line in bootstrap.c.
 */
#ifndef PP_BOOTSTRAP_SCRIPT_H
#define PP_BOOTSTRAP_SCRIPT_H

static const char bootstrap_script[] =
    /* What a login file has begun to print ends here. */
    "echo; s=$(uname -sm); echo \"$m hello $s\"; "
    /* U: what files are made with by jobs; ours are nobody else's. */
    "U=$(umask); umask 077; "
    "run() { umask $U; exec \"$1\" --agent run $m; }; "

    /* An installed one, if it is wanted. */
    "if [ -n \"$i\" ]; then "
    "if e=$(ppsh --agent check $i 2>&1 </dev/null); then "
    "echo \"$m at $(command -v ppsh)\"; run ppsh; "
    "fi; echo \"$m note no installed ppsh of this build:\" $e; fi; "

    /* h: hash, z: size compressed, n: size. */
    "h=; for e in $k; do case $e in \"${s#* }\":*) "
    "e=${e#*:}; h=${e%%:*}; e=${e#*:}; z=${e%%:*}; n=${e#*:};; esac; done; "
    "if [ -z \"$h\" ]; then echo \"$m machine\"; exit 1; fi; "

    /* Is this directory the user's alone? */
    "own() { [ -L \"$1\" ] && return 1; [ -d \"$1\" ] && [ -O \"$1\" ] || "
    "return 1; case $(ls -ld \"$1\") in drwx------*) return 0;; esac; "
    "return 1; }; "

    /* Run the program that is there already. */
    "start() { [ -L \"$1\" ] && return 1; [ -f \"$1\" ] && [ -x \"$1\" ] && "
    "[ -O \"$1\" ] || return 1; "
    "e=$(\"$1\" --agent check $h 2>&1 </dev/null) || return 1; "
    "echo \"$m at $1\"; run \"$1\"; }; "

    "c=${XDG_CACHE_HOME:-${HOME:-/}/.cache}; "
    "own \"$c/ppsh\" && start \"$c/ppsh/agent-$h\"; "
    "u=$(id -u); T=${TMPDIR:-}; [ \"$T\" = /tmp ] && T=; "
    "for b in /dev/shm ${T:+\"$T\"} /tmp; do "
    "own \"$b/ppsh-$u\" && start \"$b/ppsh-$u/agent-$h\"; done; "

    /* It is not there. l bytes are to be read, and what they are made by. */
    "if [ \"$(echo xx | head -c 1 2>&1)\" = x ]; then "
    "rd() { head -c $1; }; else "
    "rd() { dd bs=1 count=$1 2>/dev/null; }; fi; "
    "w=raw; g=cat; l=$n; "
    "if [ $z -gt 0 ] && gzip -c </dev/null >/dev/null 2>&1; then "
    "w=gz; g=\"gzip -dc\"; l=$z; fi; "

    /* p: a whole copy that could not be executed where it is. */
    "p=; for b in \"\" /dev/shm ${T:+\"$T\"} /tmp; do "
    "if [ -z \"$b\" ]; then d=$c/ppsh; mkdir -p \"$d\" 2>/dev/null; "
    "[ -L \"$d\" ] || chmod 700 \"$d\" 2>/dev/null; "
    "else d=$b/ppsh-$u; mkdir \"$d\" 2>/dev/null; "
    /* Somebody else was there first. */
    "own \"$d\" || { d=$d-$m; mkdir \"$d\" 2>/dev/null; }; fi; "
    "own \"$d\" || { echo \"$m skip $d: cannot be made\"; continue; }; "
    "t=$d/.new-$m; "
    "if [ -n \"$p\" ]; then "
    "e=$(cp \"$p\" \"$t\" 2>&1) || { rm -f \"$t\"; echo \"$m skip $d:\" "
    "${e##*: }; "
    "continue; }; "
    "else (: >\"$t\") 2>/dev/null || { echo \"$m skip $d: cannot be written\"; "
    "continue; }; "
    "echo \"$m send $w\"; "
    /* The rest is read in any case, or it would be taken for what follows. */
    "e=$( { rd $l | { $g >\"$t\"; cat >/dev/null; }; } 2>&1 ); "
    "if [ $(wc -c <\"$t\") -eq $n ]; then :; else rm -f \"$t\"; "
    "e=${e:-not all of it arrived}; echo \"$m skip $d:\" ${e##*: }; "
    "continue; fi; fi; "
    "chmod 700 \"$t\"; "
    "if e=$(\"$t\" --agent check $h 2>&1 </dev/null); then "
    "mv -f \"$t\" \"$d/agent-$h\"; [ -n \"$p\" ] && rm -f \"$p\"; "
    "find \"$d\" -type f -name \"agent-*\" -mtime +30 -exec rm -f {} + "
    "2>/dev/null; "
    "find \"$d\" -type f -name \".new-*\" -mtime +1 -exec rm -f {} + "
    "2>/dev/null; "
    "echo \"$m at $d/agent-$h\"; run \"$d/agent-$h\"; fi; "
    "echo \"$m skip $d: cannot execute there:\" ${e##*: }; "
    "if [ -n \"$p\" ]; then rm -f \"$t\"; else p=$t; fi; "
    "done; "

    /* Memory. v: the number of memfd_create. */
    "case ${s#* } in x86_64) v=319;; *) v=279;; esac; "
    "D=\"$\"; x=; "
    "if perl -e \"exit(syscall($v,my ${D}n=q(x),1)<0)\" 2>/dev/null; "
    "then x=perl; "
    "elif python3 -c \"import os;os.memfd_create(str(1))\" 2>/dev/null; "
    "then x=python3; fi; "
    "if [ -z \"$x\" ]; then [ -n \"$p\" ] && rm -f \"$p\"; "
    "echo \"$m fail no perl or python3 to run it from memory\"; exit 1; fi; "
    "umask $U; exec 3<&0; "
    "if [ -n \"$p\" ]; then src() { cat \"$p\"; rm -f \"$p\"; }; "
    "else echo \"$m send $w\"; src() { rd $l <&3 | $g; }; fi; "
    "if [ $x = perl ]; then src | perl -e \""
    "binmode STDIN;undef ${D}/;${D}b=<STDIN>;"
    "${D}n=q(ppsh-agent);${D}f=syscall($v,${D}n,1);"
    "open(O,q(>&=).${D}f)or die;"
    "syswrite(O,${D}b)==length(${D}b)or die;"
    "open(STDIN,q(<&3))or die;"
    "exec{q(/proc/self/fd/).${D}f}${D}n,q(--agent),q(run),q($m)"
    "\"; else src | python3 -c \""
    "import os,sys;b=sys.stdin.buffer.read();f=os.memfd_create(sys.argv[1],1);"
    "o=os.fdopen(os.dup(f),sys.argv[2]);o.write(b);o.close();os.dup2(3,0);"
    "os.execve(f,[sys.argv[1]]+sys.argv[3:],os.environ)"
    "\" ppsh-agent wb --agent run $m; fi; exit $?";

#endif
