/* SPDX-License-Identifier: MIT */
/* A main that gives each file named, or in a directory named, to the fuzzer's
 * function. Included once, at the end of a fuzzer. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

static int replay_file(const char *path) {
  FILE *f = fopen(path, "rb");
  unsigned char *data;
  size_t n;

  if (f == NULL) {
    perror(path);
    return 0;
  }
  data = malloc(1 << 20);
  n = fread(data, 1, 1 << 20, f);
  fclose(f);
  data = realloc(data, n > 0 ? n : 1); /* so that reads beyond it show */
  LLVMFuzzerTestOneInput(data, n);
  free(data);
  return 1;
}

int main(int argc, char **argv) {
  int i, count = 0;

  for (i = 1; i < argc; i++) {
    DIR *d = opendir(argv[i]);
    struct dirent *e;
    char path[4096];

    if (d == NULL) {
      count += replay_file(argv[i]);
      continue;
    }
    while ((e = readdir(d)) != NULL) {
      if (e->d_name[0] == '.')
        continue;
      snprintf(path, sizeof path, "%s/%s", argv[i], e->d_name);
      count += replay_file(path);
    }
    closedir(d);
  }
  printf("%d inputs replayed\n", count);
  return count == 0;
}
