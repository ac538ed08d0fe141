/* SPDX-License-Identifier: MIT */
/*
 * refuse: loaded before the C library, makes calls fail as long as the file
 * that an environment variable names is there: fork (PPSH_REFUSE_FORK), pipe2
 * (PPSH_REFUSE_PIPE), shared mappings for large payloads to write (SHARE) or to
 * read (VIEW), getting their memory (FILL), very large files (SIZE), opening
 * readline (READLINE).
 */
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <unistd.h>

static int refused(const char *name) {
  const char *path = getenv(name);

  return path != NULL && access(path, F_OK) == 0;
}

pid_t fork(void) {
  pid_t (*real)(void);

  if (refused("PPSH_REFUSE_FORK")) {
    errno = EAGAIN;
    return -1;
  }
  *(void **)&real = dlsym(RTLD_NEXT, "fork");
  return real();
}

int pipe2(int fds[2], int flags) {
  int (*real)(int[2], int);

  if (refused("PPSH_REFUSE_PIPE")) {
    errno = EMFILE;
    return -1;
  }
  *(void **)&real = dlsym(RTLD_NEXT, "pipe2");
  return real(fds, flags);
}

void *mmap(void *p, size_t size, int prot, int flags, int fd, off_t at) {
  void *(*real)(void *, size_t, int, int, int, off_t);

  if (at >= (off_t)1 << 46 &&
      refused(prot & PROT_WRITE ? "PPSH_REFUSE_SHARE" : "PPSH_REFUSE_VIEW")) {
    errno = ENOMEM;
    return MAP_FAILED;
  }
  *(void **)&real = dlsym(RTLD_NEXT, "mmap");
  return real(p, size, prot, flags, fd, at);
}

int madvise(void *p, size_t size, int how) {
  int (*real)(void *, size_t, int);

  if (how == 23 && refused("PPSH_REFUSE_FILL")) { /* MADV_POPULATE_WRITE */
    errno = ENOMEM;
    return -1;
  }
  *(void **)&real = dlsym(RTLD_NEXT, "madvise");
  return real(p, size, how);
}

int ftruncate(int fd, off_t size) {
  int (*real)(int, off_t);

  if (size >= (off_t)1 << 46 && refused("PPSH_REFUSE_SIZE")) {
    errno = EFBIG;
    return -1;
  }
  *(void **)&real = dlsym(RTLD_NEXT, "ftruncate");
  return real(fd, size);
}

void *dlopen(const char *name, int flags) {
  void *(*real)(const char *, int);

  if (name != NULL && strstr(name, "readline") != NULL &&
      refused("PPSH_REFUSE_READLINE"))
    return NULL;
  *(void **)&real = dlsym(RTLD_NEXT, "dlopen");
  return real(name, flags);
}
