/* SPDX-License-Identifier: MIT */
/* proc: what a process can learn and do about its kin through /proc. */
#ifndef PP_PROC_H
#define PP_PROC_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Name this process (at most 15 bytes), its command line too. */
void pp_proc_name(const char *name);

/* SIGKILL each child of this process that `spare` does not spare; children of
 * children come to their nearest subreaper and are for its next call. Returns
 * how many were killed. Reads all of /proc: milliseconds. Async-signal-safe. */
int pp_proc_kill_children(bool (*spare)(void *ud, pid_t pid), void *ud);

/* The same for all processes, whoever's children, but this one. */
int pp_proc_kill_all(bool (*spare)(void *ud, pid_t pid), void *ud);

/* Is descriptor fd of a process the file of that device and inode? Not, if it
 * cannot be known. Async-signal-safe. */
bool pp_proc_leads(pid_t pid, int fd, uint64_t device, uint64_t inode);

/* pipe2 with O_CLOEXEC, the soft limit on descriptors raised to the hard one if
 * it is in the way. 0, or -1 with errno. */
int pp_proc_pipe(int p[2]);

/* CPUs this process may use: affinity and cgroup quota (v1, v2), at least 1. */
int pp_proc_cpus(void);

/* Bytes of memory that are to be had without swapping; UINT64_MAX if that is
 * not known. */
uint64_t pp_proc_available(void);

#endif
