/* SPDX-License-Identifier: MIT */
/*
 * refuse: loaded before the C library, makes fork and pipe2 fail as long as the
 * file named by PPSH_REFUSE_FORK or PPSH_REFUSE_PIPE is there.
 */
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
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
