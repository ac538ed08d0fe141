/* SPDX-License-Identifier: MIT */
#include "bootstrap.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <zlib.h>

#include "buf.h"

/* A line of ours is no longer than this. */
#define LINE_MOST 4096u
/* So much of what was printed instead is kept. */
#define NOISE_MOST 300u

struct pp_boot {
  pp_boot_options o;
  char mark[40];
  pp_buf command;
  const pp_image *image; /* for that machine, once it is known */
  bool packed;           /* how it wants it */
  bool asked, sent, ready, failed, final;
  char line[LINE_MOST];
  size_t len;
  bool cut; /* the line is too long for one of ours */
  char noise[NOISE_MOST + 1], errors[NOISE_MOST + 1];
  char reason[LINE_MOST + 200];
};

/* --- the script ----------------------------------------------------------- */

/*
 * It stands between single quotes, so there is none in it; no newline and no
 * exclamation mark either, for csh.
 *
 * h, b: hash and build of the agent for this machine; ok DIR: is it the user's
 * alone? take: read the agent into $t.
 */
static const char script_head[] =
    "exec /bin/sh -c '"
    "umask 077; say() { echo \"$m $*\"; }; u=$(id -u); s=$(uname -sm); h=; ";

static const char script_tail[] =
    "[ \"$h\" ] || { say fail no agent for $s; exit 1; }; "
    "ok() { [ -d \"$1\" ] && [ ! -L \"$1\" ] && set -- $(ls -ldn \"$1\") && "
    "case \"$1 $3\" in drwx------*\" $u\") ;; *) false;; esac; }; "
    "c=${XDG_CACHE_HOME:-$HOME/.cache}; t=${TMPDIR:-/tmp}; "
    "for d in \"$c/ppsh\" /dev/shm/ppsh-$u \"$t/ppsh-$u\"; do "
    "f=$d/agent-$h; "
    "if [ -x \"$f\" ] && ok \"$d\" && "
    "[ \"$(\"$f\" --build 2>/dev/null)\" = $b ]; "
    "then say have; exec \"$f\"; fi; done; "
    "if command -v gzip >/dev/null 2>&1; then k=gzip; g=\"gzip -dc\"; "
    "else k=plain; g=cat; fi; "
    "r() { if head -c 1 </dev/null >/dev/null 2>&1; then head -c $1; "
    "else dd bs=1 count=$1 2>/dev/null; fi; }; "
    "w=; "
    "for d in \"$c/ppsh\" /dev/shm/ppsh-$u \"$t/ppsh-$u\"; do "
    "mkdir -p \"$d\" 2>/dev/null; chmod 700 \"$d\" 2>/dev/null; "
    "ok \"$d\" || { w=\"$w; $d is not this user alone\"; continue; }; "
    "x=$d/.new$$; (: >\"$x\") 2>/dev/null && chmod 700 \"$x\" || "
    "{ w=\"$w; cannot write to $d\"; continue; }; "
    "\"$x\" 2>/dev/null || "
    "{ rm -f \"$x\"; w=\"$w; no programs run in $d\"; continue; }; "
    "say need $h $k $d; read n z || exit 1; say go; "
    "e=$( { r $n | $g >\"$x\"; } 2>&1 ); "
    "if [ \"$(wc -c <\"$x\")\" -eq $z ] && "
    "[ \"$(\"$x\" --build 2>/dev/null)\" = $b ]; then "
    "mv -f \"$x\" \"$d/agent-$h\" && "
    "{ find \"$d\" -name \"agent-*\" -mtime +14 -exec rm -f {} \";\" "
    ">/dev/null 2>&1; say have; exec \"$d/agent-$h\"; }; fi; "
    "w=\"$w; $d: ${e:-it does not run there}\"; rm -f \"$x\"; done; "
    "p=\"\"; "
    "if command -v perl >/dev/null 2>&1; then "
    "say need $h $k memory; read n z || exit 1; say go; "
    "case $s in *x86_64) y=319;; *) y=279;; esac; "
    "exec perl -e \"my (\\$n, \\$k, \\$y, \\$m) = @ARGV; my \\$p = q(); "
    "while (length(\\$p) < \\$n) { sysread(STDIN, \\$p, \\$n - length(\\$p), "
    "length(\\$p)) or exit 1 } "
    "if (\\$k eq q(gzip)) { require IO::Uncompress::Gunzip; my \\$o; "
    "IO::Uncompress::Gunzip::gunzip(\\\\\\$p, \\\\\\$o) or exit 1; \\$p = \\$o "
    "} "
    "my \\$f = syscall(\\$y, q(ppsh-agent), 0); \\$f >= 0 or exit 1; "
    "open(my \\$h, q(>&=), \\$f) or exit 1; binmode \\$h; "
    "print \\$h \\$p; \\$h->flush; "
    "syswrite(STDOUT, \\$m . qq( have) . chr(10)); "
    "exec { qq(/proc/self/fd/\\$f) } q(ppsh-agent)\" "
    "$n $k $y $m; fi; "
    "say fail \"no place for the agent$w\"; exit 1'";

static void put(pp_boot *b, const char *text) {
  if (pp_buf_put(&b->command, text, strlen(text)) != 0)
    b->failed = true;
}

/* A mark that nobody prints by chance. */
static void make_mark(pp_boot *b) {
  unsigned char r[8];

  if (getrandom(r, sizeof r, GRND_NONBLOCK) != (ssize_t)sizeof r) {
    struct timespec t;
    uintptr_t v;

    clock_gettime(CLOCK_MONOTONIC, &t);
    v = (uintptr_t)b ^ (uintptr_t)t.tv_nsec ^ (uintptr_t)t.tv_sec << 20;
    memcpy(r, &v, sizeof v < sizeof r ? sizeof v : sizeof r);
  }
  snprintf(b->mark, sizeof b->mark, "ppsh-%02x%02x%02x%02x%02x%02x%02x%02x",
           r[0], r[1], r[2], r[3], r[4], r[5], r[6], r[7]);
}

pp_boot *pp_boot_new(const pp_boot_options *o) {
  pp_boot *b = calloc(1, sizeof *b);
  char text[300];

  if (b == NULL)
    return NULL;
  b->o = *o;
  make_mark(b);
  put(b, script_head);
  snprintf(text, sizeof text, "m=%s; b=%s; ", b->mark, o->build);
  put(b, text);
  if (o->installed)
    put(b, "case \"$(ppsh --version 2>/dev/null)\" in *\"build $b\"*) "
           "say have; exec ppsh --agent;; esac; ");
  put(b, "case $s in ");
  for (const pp_image *i = o->images; i->machine != NULL; i++) {
    snprintf(text, sizeof text, "\"Linux %s\") h=%s;; ", i->machine, i->hash);
    put(b, text);
  }
  put(b, "esac; ");
  put(b, script_tail);
  if (pp_buf_byte(&b->command, 0) != 0)
    b->failed = true;
  if (b->failed) {
    pp_boot_free(b);
    return NULL;
  }
  return b;
}

void pp_boot_free(pp_boot *b) {
  if (b == NULL)
    return;
  pp_buf_clear(&b->command);
  free(b);
}

const char *pp_boot_command(const pp_boot *b) {
  return (const char *)b->command.data;
}
bool pp_boot_ready(const pp_boot *b) { return b->ready; }
bool pp_boot_sent(const pp_boot *b) { return b->sent; }
bool pp_boot_final(const pp_boot *b) { return b->final; }

/* --- what it says --------------------------------------------------------- */

/* Append what was printed to what is kept of it, in one line. */
static void keep(char *to, const char *p, size_t n) {
  size_t len = strlen(to);

  for (; n > 0 && len < NOISE_MOST; p++, n--) {
    unsigned char c = (unsigned char)*p;

    if (c < ' ' || c == 0x7f)
      c = ' ';
    if (c == ' ' && (len == 0 || to[len - 1] == ' '))
      continue;
    to[len++] = (char)c;
  }
  to[len] = '\0';
}

static void fail(pp_boot *b, const char *why) {
  b->failed = true;
  snprintf(b->reason, sizeof b->reason, "%s", why);
  b->o.failed(b->o.ud, b->reason);
}

/* The image as it is; owned; NULL. */
static unsigned char *unpack(const pp_image *i) {
  unsigned char *p = malloc(i->size);
  z_stream z = {.next_in = (unsigned char *)(uintptr_t)i->packed,
                .avail_in = (uInt)(i->end - i->packed),
                .next_out = p,
                .avail_out = (uInt)i->size};
  bool ok = false;

  if (p != NULL && inflateInit2(&z, 15 + 16) == Z_OK) {
    ok = inflate(&z, Z_FINISH) == Z_STREAM_END && z.total_out == i->size;
    inflateEnd(&z);
  }
  if (!ok) {
    free(p);
    p = NULL;
  }
  return p;
}

static void send_image(pp_boot *b) {
  const pp_image *i = b->image;
  unsigned char *plain;

  b->sent = true;
  if (b->packed) {
    b->o.write(b->o.ud, i->packed, (size_t)(i->end - i->packed));
    return;
  }
  plain = unpack(i);
  if (plain == NULL)
    fail(b, "not enough memory");
  else
    b->o.write(b->o.ud, plain, i->size);
  free(plain);
}

/* need HASH KIND DIR */
static void needed(pp_boot *b, const char *hash, const char *kind) {
  char line[80];

  for (b->image = b->o.images; b->image->machine != NULL; b->image++)
    if (strcmp(b->image->hash, hash) == 0)
      break;
  if (b->image->machine == NULL) {
    fail(b, "it asks for an agent there is not");
    return;
  }
  b->packed = strcmp(kind, "gzip") == 0;
  b->asked = true;
  snprintf(line, sizeof line, "%zu %zu\n",
           b->packed ? (size_t)(b->image->end - b->image->packed)
                     : b->image->size,
           b->image->size);
  b->o.write(b->o.ud, line, strlen(line));
}

/* A line that began with the mark, without it. */
static void said(pp_boot *b, char *text) {
  char hash[40], kind[16];

  if (strcmp(text, "have") == 0) {
    b->ready = true;
  } else if (sscanf(text, "need %39s %15s", hash, kind) == 2) {
    needed(b, hash, kind);
  } else if (strcmp(text, "go") == 0 && b->asked) {
    b->asked = false;
    send_image(b);
  } else if (strncmp(text, "fail ", 5) == 0) {
    b->final = true;
    fail(b, text + 5);
  }
}

size_t pp_boot_feed(pp_boot *b, const void *bytes, size_t n) {
  const char *p = bytes;
  size_t used = 0, mark = strlen(b->mark);

  while (used < n && !b->ready && !b->failed) {
    char c = p[used++];

    if (c != '\n') {
      if (b->len < sizeof b->line - 1)
        b->line[b->len++] = c;
      else
        b->cut = true;
      continue;
    }
    if (b->len > 0 && b->line[b->len - 1] == '\r')
      b->len--;
    b->line[b->len] = '\0';
    {
      char *at = b->cut ? NULL : strstr(b->line, b->mark);

      if (at != NULL && at[mark] == ' ') {
        keep(b->noise, b->line, (size_t)(at - b->line)); /* without newline */
        said(b, at + mark + 1);
      } else {
        keep(b->noise, b->line, b->len);
        keep(b->noise, " ", 1);
      }
    }
    b->len = 0;
    b->cut = false;
  }
  return used;
}

void pp_boot_errors(pp_boot *b, const void *p, size_t n) {
  if (!b->ready)
    keep(b->errors, p, n);
}

const char *pp_boot_reason(pp_boot *b, const char *end) {
  const char *said_there;

  if (b->failed)
    return b->reason;
  if (b->ready)
    return NULL;
  keep(b->noise, b->line, b->len);
  b->len = 0;
  said_there = b->errors[0] != '\0' ? b->errors : b->noise;
  if (said_there[0] == '\0')
    return NULL;
  snprintf(b->reason, sizeof b->reason,
           "no agent could be started there: %s; it printed: %s", end,
           said_there);
  return b->reason;
}
