/* SPDX-License-Identifier: MIT */
/*
 * What an agent needs of the C library, but less of it. It is static, and some
 * small functions of glibc's archive bring along half of the rest: threads the
 * resolver, timers threads, a failed assertion wide streams. These stand in
 * their place.
 */
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* No thread is begun in an agent or below it; cargo's sweeper does without. */
__attribute__((used)) int pthread_create(pthread_t *restrict t,
                                         const pthread_attr_t *restrict how,
                                         void *(*run)(void *),
                                         void *restrict ud) {
  (void)t, (void)how, (void)run, (void)ud;
  return EAGAIN;
}

/* A static program can load nothing: package.loadlib, and require of a C module
 * that is installed there. */
__attribute__((used)) void *dlopen(const char *file, int mode) {
  (void)file, (void)mode;
  return NULL;
}
__attribute__((used)) void *dlsym(void *restrict h, const char *restrict name) {
  (void)h, (void)name;
  return NULL;
}
__attribute__((used)) int dlclose(void *h) {
  (void)h;
  return -1;
}
__attribute__((used)) char *dlerror(void) {
  return (char *)"this worker cannot load C modules (agent = \"installed\" "
                 "can)";
}

/* glibc's are made for SIGEV_THREAD, too. */
__attribute__((used)) int timer_create(clockid_t clock,
                                       struct sigevent *restrict ev,
                                       timer_t *restrict t) {
  int id;

  if (syscall(SYS_timer_create, clock, ev, &id) != 0)
    return -1;
  *t = (timer_t)(intptr_t)id;
  return 0;
}
__attribute__((used)) int timer_settime(timer_t t, int flags,
                                        const struct itimerspec *restrict new,
                                        struct itimerspec *restrict old) {
  return (int)syscall(SYS_timer_settime, (int)(intptr_t)t, flags, new, old);
}
__attribute__((used)) int timer_delete(timer_t t) {
  return (int)syscall(SYS_timer_delete, (int)(intptr_t)t);
}

/* Where glibc would translate a message, and say it to a wide stream. */
int __fxprintf(FILE *f, const char *format, ...);
__attribute__((used, format(printf, 2, 3))) int
__fxprintf(FILE *f, const char *format, ...) {
  va_list ap;
  int n;

  va_start(ap, format);
  n = vfprintf(f != NULL ? f : stderr, format, ap);
  va_end(ap);
  return n;
}
_Noreturn void __assert_fail(const char *what, const char *file, unsigned line,
                             const char *function);
__attribute__((used)) _Noreturn void __assert_fail(const char *what,
                                                   const char *file,
                                                   unsigned line,
                                                   const char *function) {
  dprintf(2, "%s:%u: %s: assertion '%s' failed\n", file, line, function, what);
  abort();
}
