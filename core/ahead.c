/* SPDX-License-Identifier: MIT */
#include "ahead.h"

#include <errno.h>
#include <signal.h>
#include <sys/mman.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif

/* A large page; who ends the thread waits for no more than one. */
#define STEP ((size_t)2 << 20)
#define STACK 65536

/* How far there is to be memory when so much has come. */
static size_t reach(const pp_ahead *a, size_t come) {
  size_t n = come < PP_AHEAD_LEAST  ? PP_AHEAD_LEAST
             : come > PP_AHEAD_MOST ? PP_AHEAD_MOST
                                    : come;

  return n < a->size - come ? come + n : a->size;
}

static void *make(void *arg) {
  pp_ahead *a = arg;
  size_t at = 0;

  while (!atomic_load(&a->over) && at < a->size) {
    size_t come = atomic_load(&a->come), n = a->size - at;

    if (at <= come) { /* this page is being filled: not both at once */
      at = (come / STEP + 1) * STEP;
      continue;
    }
    if (at >= reach(a, come)) {
      while (sem_wait(&a->go) != 0 && errno == EINTR) {
      }
      continue;
    }
    if (madvise(a->p + at, n < STEP ? n : STEP, MADV_POPULATE_WRITE) != 0)
      break;
    at += STEP;
  }
  return NULL;
}

void pp_ahead_begin(pp_ahead *a, unsigned char *p, size_t size) {
  pthread_attr_t how;
  sigset_t all, was;
  int r = -1;

  if (a->p != NULL || size < PP_AHEAD_SIZE)
    return;
  a->p = p;
  a->size = size;
  a->told = 0;
  atomic_store(&a->come, 0);
  atomic_store(&a->over, false);
  sem_init(&a->go, 0, 0);
  if (pthread_attr_init(&how) == 0) {
    pthread_attr_setstacksize(&how, STACK);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &was);
    r = pthread_create(&a->thread, &how, make, a);
    pthread_sigmask(SIG_SETMASK, &was, NULL);
    pthread_attr_destroy(&how);
  }
  if (r != 0) {
    sem_destroy(&a->go);
    a->p = NULL;
  }
}

void pp_ahead_come(pp_ahead *a, const unsigned char *p, size_t come) {
  if (a->p != p)
    return;
  atomic_store(&a->come, come);
  if (come - a->told >= STEP) {
    a->told = come;
    sem_post(&a->go);
  }
}

void pp_ahead_end(pp_ahead *a, const unsigned char *p) {
  if (a->p != p || p == NULL)
    return;
  atomic_store(&a->over, true);
  sem_post(&a->go);
  pthread_join(a->thread, NULL);
  sem_destroy(&a->go);
  a->p = NULL;
}
