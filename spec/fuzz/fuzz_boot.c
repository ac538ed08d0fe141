/* SPDX-License-Identifier: MIT */
/*
 * What a host may print while an agent is being set up. The byte 1 stands for
 * the mark of our lines, 2 for a switch between stdout and stderr.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "bootstrap.h"

static const char bytes[] = "0123456789";

static const pp_agent_image images[] = {
    {"x86_64", bytes, 10, bytes, 3, "0123456789abcdef0123456789abcdef"},
};

static size_t sent;

static int put(void *ud, const void *p, size_t n) {
  (void)ud;
  (void)p;
  sent += n;
  return 0;
}

static void one_line(const char *text) {
  if (strchr(text, '\n') != NULL)
    abort();
}

static void log_line(void *ud, const char *text) {
  (void)ud;
  one_line(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  pp_bootstrap_options o = {
      .images = images, .n = 1, .send = put, .log = log_line};
  pp_boot_state state = PP_BOOT_WAITING;
  pp_bootstrap *b;
  char word[21] = "";
  const char *reason;
  bool err = false;
  size_t i, used;

  if (size > 0 && (data[0] & 1) != 0)
    o.installed = "b";
  sent = 0;
  if ((b = pp_bootstrap_new(&o)) == NULL)
    return 0;
  memcpy(word, strstr(pp_bootstrap_command(b), "m=") + 2, 20);
  for (i = 1; i < size && state == PP_BOOT_WAITING; i++) {
    const void *p = data[i] == 1 ? (const void *)word : &data[i];
    size_t n = data[i] == 1 ? 20 : 1;

    if (data[i] == 2)
      err = !err;
    else if (err)
      pp_bootstrap_errors(b, p, n);
    else if ((state = pp_bootstrap_data(b, p, n, &used)) == PP_BOOT_FAILED &&
             *pp_bootstrap_reason(b) == '\0')
      abort();
  }
  if (state == PP_BOOT_WAITING) {
    reason =
        size % 2 ? pp_bootstrap_closed(b, "the end") : pp_bootstrap_stalled(b);
    if (*reason == '\0')
      abort();
    one_line(reason);
  }
  one_line(pp_bootstrap_reason(b));
  /* However often it asks, it gets what it may have and no more. */
  if (sent > 80)
    abort();
  pp_bootstrap_free(b);
  return 0;
}
