/* SPDX-License-Identifier: MIT */
/* The text of a private key file. */
#include <stdint.h>

#include "keys.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const char *why = NULL;
  pp_buf sig = {0};
  pp_key key;

  if (pp_key_read(&key, data, size, NULL, &why) == 0) {
    pp_key_sign(&key, "data", 4, &sig);
    pp_buf_clear(&sig);
    pp_key_clear(&key);
  }
  return 0;
}
