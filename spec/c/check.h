/* SPDX-License-Identifier: MIT */
/* check: what a C test is made of. Included by its one source file. */
#ifndef PP_CHECK_H
#define PP_CHECK_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "buf.h"

static int failures;

#define CHECK(e)                                                               \
  ((e) ? (void)0                                                               \
       : (failures++,                                                          \
          (void)printf("FAIL %s:%d %s\n", __FILE__, __LINE__, #e)))

/* Strings, either of which may be NULL. */
#define CHECK_STR(a, b) check_str((a), (b), __FILE__, __LINE__)

static inline void check_str(const char *a, const char *b, const char *file,
                             int line) {
  if (a == NULL || b == NULL ? a == b : strcmp(a, b) == 0)
    return;
  failures++;
  printf("FAIL %s:%d got '%s'\n  not '%s'\n", file, line, a ? a : "(null)",
         b ? b : "(null)");
}

/* An allocator that gives so many times and no more: to be put in the place of
 * pp_buf_realloc, with ever more in check_left until all goes well. */
static int check_left;

static inline void *check_scarce(void *p, size_t size) {
  if (size == 0) {
    free(p);
    return NULL;
  }
  return check_left-- > 0 ? realloc(p, size) : NULL;
}

/* A program on the PATH? */
static inline int have(const char *program) {
  char command[256];

  snprintf(command, sizeof command, "command -v %s >/dev/null 2>&1", program);
  return system(command) == 0;
}

/* A directory of the test's own, removed with what is in it by leave(). */
static char check_dir[64];

static inline const char *enter(void) {
  setvbuf(stdout, NULL, _IOLBF, 0);
  snprintf(check_dir, sizeof check_dir, "/tmp/ppsh-test.XXXXXX");
  if (mkdtemp(check_dir) == NULL || chdir(check_dir) != 0) {
    perror(check_dir);
    exit(1);
  }
  return check_dir;
}

static inline int leave(void) {
  char command[128];

  if (chdir("/") == 0) {
    snprintf(command, sizeof command, "rm -rf %s", check_dir);
    if (system(command) != 0)
      failures++;
  }
  if (failures > 0)
    printf("%d checks failed\n", failures);
  return failures > 0;
}

#endif
