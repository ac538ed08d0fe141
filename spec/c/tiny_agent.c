/* SPDX-License-Identifier: MIT */
/*
 * An agent as bootstrap.h wants it, that sends back what it is sent.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hash.h"

static const char build_id[] = "tiny-1";

static int own_hash(char *out) {
  int fd = open("/proc/self/exe", O_RDONLY);
  struct stat st;
  pp_hash h;
  void *p;

  if (fd < 0 || fstat(fd, &st) != 0)
    return -1;
  p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
  if (p == MAP_FAILED)
    return -1;
  h = pp_hash_of(p, (size_t)st.st_size, 0);
  sprintf(out, "%016llx%016llx", (unsigned long long)h.hi,
          (unsigned long long)h.lo);
  return 0;
}

int main(int argc, char **argv) {
  const char *name = strrchr(argv[0], '/');
  char hash[33], bytes[64 << 10];
  ssize_t n, k, i;

  name = name != NULL ? name + 1 : argv[0];
  if (argc != 4 || strcmp(argv[1], "--agent") != 0 || own_hash(hash) != 0)
    return 2;
  if (strcmp(argv[2], "check") == 0)
    return strcmp(argv[3], hash) != 0 && strcmp(argv[3], build_id) != 0;
  if (getenv("TINY_AGENT_DIES") != NULL) {
    fprintf(stderr, "no, not today\n");
    return 9;
  }
  utimensat(AT_FDCWD, "/proc/self/exe", NULL, 0);
  printf("%s run %s\n", argv[3], strcmp(name, "ppsh") == 0 ? build_id : hash);
  fflush(stdout);
  while ((n = read(0, bytes, sizeof bytes)) > 0)
    for (i = 0; i < n; i += k)
      if ((k = write(1, bytes + i, (size_t)(n - i))) <= 0)
        return 1;
  return 0;
}
