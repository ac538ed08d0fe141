/* SPDX-License-Identifier: MIT */
/* proc: what a process can learn and do about its kin through /proc. */
#ifndef PP_PROC_H
#define PP_PROC_H

#include <stdbool.h>
#include <sys/types.h>

/* Name this process (at most 15 bytes), its command line too. */
void pp_proc_name(const char *name);

/* SIGKILL each child of this process that `spare` does not spare; children of
 * children come to their nearest subreaper and are for its next call. Returns
 * how many were killed. Reads all of /proc: milliseconds. Async-signal-safe. */
int pp_proc_kill_children(bool (*spare)(void *ud, pid_t pid), void *ud);

/* CPUs this process may use: affinity and cgroup quota (v1, v2), at least 1. */
int pp_proc_cpus(void);

#endif
