/* SPDX-License-Identifier: MIT */
#include "rest.h"

#include <fcntl.h>
#include <link.h>
#include <linux/futex.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Objects beyond these keep their pages. */
#define SPANS 96
/* What the code that goes on running may take, and its stack. */
#define CODE_BYTES 256u
#define STACK_BYTES 1024u

typedef struct span {
  uintptr_t from, to;
} span;

typedef struct spans {
  uintptr_t page; /* bytes of one */
  span kept[2];   /* whole pages */
  size_t n;
  span v[SPANS];
} spans;

static span pages_of(const spans *s, uintptr_t from, size_t len) {
  return (span){from & -s->page, (from + len + s->page - 1) & -s->page};
}

/* Note the pages from here to there, but not what is kept of them. */
static void add(spans *s, span p) {
  for (size_t i = 0; i < sizeof s->kept / sizeof *s->kept; i++) {
    span k = s->kept[i];

    if (k.from < p.to && k.to > p.from) {
      if (k.from > p.from)
        add(s, (span){p.from, k.from});
      if (k.to < p.to)
        add(s, (span){k.to, p.to});
      return;
    }
  }
  if (s->n < SPANS)
    s->v[s->n++] = p;
}

/* Was its code written when it was loaded? */
static bool is_relocated(const struct dl_phdr_info *o) {
  for (int i = 0; i < o->dlpi_phnum; i++) {
    const ElfW(Phdr) *h = &o->dlpi_phdr[i];
    const ElfW(Dyn) * d;

    if (h->p_type != PT_DYNAMIC)
      continue;
    for (d = (const void *)(o->dlpi_addr + h->p_vaddr); d->d_tag != DT_NULL;
         d++)
      if (d->d_tag == DT_TEXTREL ||
          (d->d_tag == DT_FLAGS && (d->d_un.d_val & DF_TEXTREL)))
        return true;
  }
  return false;
}

static int add_object(struct dl_phdr_info *o, size_t size, void *ud) {
  spans *s = ud;

  (void)size;
  if (is_relocated(o))
    return 0;
  for (int i = 0; i < o->dlpi_phnum; i++) {
    const ElfW(Phdr) *h = &o->dlpi_phdr[i];

    if (h->p_type == PT_LOAD && !(h->p_flags & PF_W))
      add(s, pages_of(s, o->dlpi_addr + h->p_vaddr, h->p_memsz));
  }
  return 0;
}

/*
 * From the first page on that is let go, all that runs is here and in the one
 * function that is called: what is somewhere else would come back, and with it
 * what lies around it.
 */
__attribute__((noinline, aligned(CODE_BYTES))) static void
let_go_and_sleep(long (*call)(long, ...), const spans *s, void *word,
                 uint32_t what, const struct timespec *t) {
  for (size_t i = 0; i < s->n; i++)
    (void)call(SYS_madvise, s->v[i].from, s->v[i].to - s->v[i].from,
               MADV_DONTNEED);
  (void)call(SYS_futex, word, FUTEX_WAIT, what, t, NULL, 0);
}

void pp_rest(pp_lane *lane, uint32_t what, int64_t deadline, uintptr_t stack,
             size_t room) {
  spans s = {.page = (uintptr_t)sysconf(_SC_PAGESIZE)};
  int64_t left = deadline - pp_now_ns();
  uintptr_t top = (uintptr_t)&s - STACK_BYTES;
  struct timespec t;

  if (deadline >= 0 && left <= 0)
    return;
  t.tv_sec = (time_t)(left / 1000000000);
  t.tv_nsec = (long)(left % 1000000000);
  s.kept[0] = pages_of(&s, (uintptr_t)let_go_and_sleep, CODE_BYTES);
  s.kept[1] = pages_of(&s, (uintptr_t)syscall, 1);
  if (room > 0 && room < stack && stack - room < (top & -s.page))
    add(&s, (span){(stack - room) & -s.page, top & -s.page});
  dl_iterate_phdr(add_object, &s);
  let_go_and_sleep(syscall, &s, &lane->asleep, what, deadline >= 0 ? &t : NULL);
}

/* The second and third number there: pages resident, and of files. */
size_t pp_rest_private(void) {
  int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
  char text[128], *p = text;
  ssize_t n = -1;
  long here, of_files;

  if (fd >= 0) {
    n = read(fd, text, sizeof text - 1);
    close(fd);
  }
  if (n <= 0)
    return 0;
  text[n] = '\0';
  (void)strtol(p, &p, 10);
  here = strtol(p, &p, 10);
  of_files = strtol(p, &p, 10);
  return here > of_files
             ? (size_t)(here - of_files) * (size_t)sysconf(_SC_PAGESIZE)
             : 0;
}
