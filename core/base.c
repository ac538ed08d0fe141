/* SPDX-License-Identifier: MIT */
#include "base.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

const char *pp_strerror(int code) {
  switch (code) {
  case PP_OK:
    return "no error";
  case PP_ENOMEM:
    return "not enough memory";
  case PP_EBAD:
    return "malformed bytes";
  case PP_ELIMIT:
    return "limit reached";
  case PP_EUNSENDABLE:
    return "value cannot be sent";
  case PP_ESYS:
    return "system call failed";
  case PP_EAGAIN:
    return "would block";
  case PP_ECLOSED:
    return "closed";
  default:
    return "unknown error";
  }
}

int64_t pp_now_ns(void) {
  struct timespec t;

  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

_Noreturn void pp_assert_failed(const char *what, const char *file, int line) {
  fprintf(stderr, "ppsh: internal error: %s (%s:%d)\n", what, file, line);
  abort();
}
