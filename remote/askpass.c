/* SPDX-License-Identifier: MIT */
/*
 * The program as SSH_ASKPASS. ssh gives its own stdin and stderr to it; both
 * lead to the program that started ssh, and ssh itself does not read its stdin
 * before the user is let in. So the question goes out by stderr, as a line
 *   WORD KIND TEXT
 * (WORD from the environment, KIND "text", "confirm" or "none", as in
 * SSH_ASKPASS_PROMPT, line ends in TEXT as \r), and the answer comes by stdin:
 * a line, which begins with '+' and the answer, or is "-".
 */
#include "ask.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int pp_askpass_main(int argc, char **argv) {
  const char *word = getenv(PP_ASKPASS_VARIABLE);
  const char *kind = getenv("SSH_ASKPASS_PROMPT");
  char line[PP_ANSWER_MAX + 2], question[4096], *p;
  size_t n = 0;
  int status = 1;

  if (word == NULL || *word == '\0' || argc != 2)
    return -1;
  if (kind == NULL ||
      (strcmp(kind, "confirm") != 0 && strcmp(kind, "none") != 0))
    kind = "text";
  n = (size_t)snprintf(question, sizeof question - 1, "\n%s %s %s", word, kind,
                       argv[1]);
  if (n >= sizeof question - 1)
    n = sizeof question - 2;
  for (p = question + 1; p < question + n; p++)
    if (*p == '\n')
      *p = '\r';
  question[n++] = '\n';
  if (write(2, question, n) != (ssize_t)n)
    return 1;
  if (strcmp(kind, "none") == 0) {
    /* A notice, to be shown until ssh ends us. */
    pause();
    return 0;
  }
  /* Byte by byte: what follows the line is not ours. */
  for (n = 0; n < sizeof line;) {
    ssize_t k = read(0, line + n, 1);

    if (k < 0 && errno == EINTR)
      continue;
    if (k <= 0)
      break;
    if (line[n++] == '\n') {
      if (line[0] == '+' && (strcmp(kind, "confirm") == 0 ||
                             write(1, line + 1, n - 1) == (ssize_t)(n - 1)))
        status = 0;
      break;
    }
  }
  pp_wipe(line, sizeof line);
  return status;
}
