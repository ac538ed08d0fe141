/* SPDX-License-Identifier: MIT */
/* Print the content hash of a file, as the agent knows itself by. */
#include <stdio.h>
#include <stdlib.h>

#include "hash.h"

int main(int argc, char **argv) {
  FILE *f = argc == 2 ? fopen(argv[1], "rb") : NULL;
  char text[33];
  pp_hash h;
  long size;
  void *p;

  if (f == NULL || fseek(f, 0, SEEK_END) != 0 || (size = ftell(f)) < 0)
    return 1;
  rewind(f);
  p = malloc(size > 0 ? (size_t)size : 1);
  if (p == NULL || fread(p, 1, (size_t)size, f) != (size_t)size)
    return 1;
  h = pp_hash_of(p, (size_t)size, 0);
  snprintf(text, sizeof text, "%016llx%016llx", (unsigned long long)h.hi,
           (unsigned long long)h.lo);
  puts(text);
  return 0;
}
