/* SPDX-License-Identifier: MIT */
#include "proc.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Read a small file; its length, or -1. */
static ssize_t slurp(const char *path, char *out, size_t size) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  ssize_t n;

  if (fd < 0)
    return -1;
  n = read(fd, out, size - 1);
  close(fd);
  if (n >= 0)
    out[n] = '\0';
  return n;
}

/* Field `want` of a stat line, counted as in proc(5); NULL. The command name
 * may hold blanks and brackets: count from its last bracket. */
static const char *stat_field(const char *stat, int want) {
  const char *p = strrchr(stat, ')');

  for (int at = 2; p != NULL && at < want; at++) {
    p = strchr(p, ' ');
    if (p != NULL)
      p++;
  }
  return p;
}

void pp_proc_name(const char *name) {
  static char *from, *to; /* our own memory; children have it there too */
  char stat[2048];

  prctl(PR_SET_NAME, name, 0, 0, 0);
  if (from == NULL && slurp("/proc/self/stat", stat, sizeof stat) > 0) {
    const char *start = stat_field(stat, 48); /* arg_start, arg_end */
    const char *end = stat_field(stat, 49);

    if (start != NULL && end != NULL) {
      from = (char *)strtoul(start, NULL, 10);
      to = (char *)strtoul(end, NULL, 10);
    }
  }
  if (from != NULL && to > from) {
    memset(from, 0, (size_t)(to - from));
    strncpy(from, name, (size_t)(to - from) - 1);
  }
}

/* As linux_dirent64 has it; the C library does not name it for all. */
typedef struct entry {
  uint64_t ino;
  int64_t off;
  unsigned short len;
  unsigned char type;
  char name[];
} entry;

/* No allocation, no stdio: a signal handler may be here. */
static int kill_each(bool children, bool (*spare)(void *ud, pid_t pid),
                     void *ud) {
  _Alignas(entry) char list[4096];
  char path[32], stat[1024];
  pid_t self = getpid();
  int dir = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC), n = 0;
  long got;

  if (dir < 0)
    return 0;
  while ((got = syscall(SYS_getdents64, dir, list, sizeof list)) > 0)
    for (long at = 0; at < got;) {
      const entry *e = (const entry *)(const void *)(list + at);
      const char *parent;
      size_t len = strlen(e->name);
      pid_t pid = 0, of = 0;

      at += e->len;
      if (e->name[0] < '0' || e->name[0] > '9' || len > 10)
        continue;
      memcpy(path, "/proc/", 6);
      memcpy(path + 6, e->name, len);
      memcpy(path + 6 + len, "/stat", 6);
      if (slurp(path, stat, sizeof stat) <= 0)
        continue;
      parent = stat_field(stat, 4);
      for (const char *p = e->name; *p != '\0'; p++)
        pid = pid * 10 + (*p - '0');
      for (; parent != NULL && *parent >= '0' && *parent <= '9'; parent++)
        of = of * 10 + (*parent - '0');
      if (children ? of != self : pid == self)
        continue;
      if (spare(ud, pid))
        continue;
      kill(pid, SIGKILL);
      n++;
    }
  close(dir);
  return n;
}

int pp_proc_kill_children(bool (*spare)(void *ud, pid_t pid), void *ud) {
  return kill_each(true, spare, ud);
}

int pp_proc_kill_all(bool (*spare)(void *ud, pid_t pid), void *ud) {
  return kill_each(false, spare, ud);
}

bool pp_proc_leads(pid_t pid, int fd, uint64_t device, uint64_t inode) {
  char path[48], *p = path + sizeof path;
  struct stat is;

  if (pid <= 0 || fd < 0)
    return false;
  *--p = '\0'; /* no stdio: a signal handler may be here */
  for (int v = fd, n = 0; n == 0 || v > 0; v /= 10, n++)
    *--p = (char)('0' + v % 10);
  p -= 4;
  memcpy(p, "/fd/", 4);
  for (int v = (int)pid; v > 0; v /= 10)
    *--p = (char)('0' + v % 10);
  p -= 6;
  memcpy(p, "/proc/", 6);
  return stat(p, &is) == 0 && is.st_ino == inode && is.st_dev == device;
}

/* The quota in CPUs, rounded up, of one cgroup directory; 0 none. */
static int quota(const char *dir) {
  char path[600], text[128];
  double max, period;

  snprintf(path, sizeof path, "%s/cpu.max", dir);
  if (slurp(path, text, sizeof text) > 0) {
    char *rest, *end;

    max = strtod(text, &rest);
    period = strtod(rest, &end);
    if (rest > text && end > rest && period > 0)
      return (int)((max + period - 1) / period);
    return 0;
  }
  snprintf(path, sizeof path, "%s/cpu.cfs_quota_us", dir);
  if (slurp(path, text, sizeof text) <= 0 || (max = atof(text)) <= 0)
    return 0;
  snprintf(path, sizeof path, "%s/cpu.cfs_period_us", dir);
  if (slurp(path, text, sizeof text) <= 0 || (period = atof(text)) <= 0)
    return 0;
  return (int)((max + period - 1) / period);
}

int pp_proc_pipe(int p[2]) {
  struct rlimit lim;

  if (pipe2(p, O_CLOEXEC) == 0)
    return 0;
  if (errno != EMFILE || getrlimit(RLIMIT_NOFILE, &lim) < 0 ||
      lim.rlim_cur == lim.rlim_max) {
    errno = EMFILE;
    return -1;
  }
  lim.rlim_cur = lim.rlim_max;
  if (setrlimit(RLIMIT_NOFILE, &lim) < 0)
    return -1;
  return pipe2(p, O_CLOEXEC);
}

int pp_proc_cpus(void) {
  static const char *const mounts[] = {"/sys/fs/cgroup", "/sys/fs/cgroup/cpu",
                                       "/sys/fs/cgroup/cpu,cpuacct"};
  char text[4096], dir[560];
  int n = 0;

  for (int size = 1024; n == 0 && size <= 1 << 20; size *= 4) {
    cpu_set_t *set = CPU_ALLOC((size_t)size);

    if (set == NULL)
      break;
    if (sched_getaffinity(0, CPU_ALLOC_SIZE((size_t)size), set) == 0)
      n = CPU_COUNT_S(CPU_ALLOC_SIZE((size_t)size), set);
    CPU_FREE(set);
  }
  if (n <= 0)
    n = (int)sysconf(_SC_NPROCESSORS_ONLN);
  if (n <= 0)
    n = 1;
  if (slurp("/proc/self/cgroup", text, sizeof text) > 0)
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
      char *sub = strchr(line, ':'), *at;

      at = sub != NULL ? strchr(sub + 1, ':') : NULL;
      if (at == NULL || (at != sub + 1 && strstr(sub, "cpu") == NULL))
        continue;
      /* A limit may stand on any directory from there to the top. */
      for (at++; strlen(at) < 512;) {
        for (size_t i = 0; i < sizeof mounts / sizeof *mounts; i++) {
          int q;

          snprintf(dir, sizeof dir, "%s%s", mounts[i],
                   strcmp(at, "/") == 0 ? "" : at);
          q = quota(dir);
          if (q > 0 && q < n)
            n = q;
        }
        if (*at == '\0' || strcmp(at, "/") == 0)
          break;
        *strrchr(at, '/') = '\0';
      }
    }
  return n;
}

uint64_t pp_proc_available(void) {
  char text[512];
  const char *p;

  if (slurp("/proc/meminfo", text, sizeof text) <= 0 ||
      (p = strstr(text, "MemAvailable:")) == NULL)
    return UINT64_MAX;
  return strtoull(p + sizeof "MemAvailable:" - 1, NULL, 10) * 1024;
}
