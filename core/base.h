/* SPDX-License-Identifier: MIT */
/*
 * base: error codes, assertions and clocks. Depends on nothing of ours.
 *
 * Functions return 0 or a count on success and one of the negative codes below
 * on failure. pp_assert is for our own bugs only and stays on in release
 * builds; bytes from a peer, a child or a user never reach one.
 */
#ifndef PP_BASE_H
#define PP_BASE_H

#include <stdint.h>

enum {
  PP_OK = 0,
  PP_ENOMEM = -1,      /* an allocation failed; nothing has changed */
  PP_EBAD = -2,        /* bytes that are not what they should be */
  PP_ELIMIT = -3,      /* a limit that can be named was reached */
  PP_EUNSENDABLE = -4, /* a value that cannot travel; a message says which */
  PP_ESYS = -5,        /* a system call failed; errno says why */
  PP_EAGAIN = -6,      /* not now */
  PP_ECLOSED = -7      /* the other side is gone */
};

/* What a code means, in lower case, without newline. Never NULL. */
const char *pp_strerror(int code);

/* Monotonic clock, nanoseconds since an arbitrary start. */
int64_t pp_now_ns(void);

_Noreturn void pp_assert_failed(const char *what, const char *file, int line);
#define pp_assert(e) ((e) ? (void)0 : pp_assert_failed(#e, __FILE__, __LINE__))

#define PP_LIKELY(e) __builtin_expect(!!(e), 1)
#define PP_UNLIKELY(e) __builtin_expect(!!(e), 0)

#endif
