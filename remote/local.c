/* SPDX-License-Identifier: MIT */
/* Who and where we are (config.h). */
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "buf.h"
#include "config.h"

static int copy(char **at, const char *s) {
  size_t n = strlen(s) + 1;

  *at = pp_buf_realloc(NULL, n);
  if (*at == NULL)
    return PP_ENOMEM;
  memcpy(*at, s, n);
  return 0;
}

static const char *home_of(const char *user) {
  const struct passwd *pw = getpwnam(user);

  return pw != NULL ? pw->pw_dir : NULL;
}

int pp_local_init(pp_local *l) {
  const struct passwd *pw = getpwuid(getuid());
  const char *home = pw != NULL ? pw->pw_dir : getenv("HOME");
  const char *user = pw != NULL ? pw->pw_name : getenv("USER");
  char host[256] = "";
  int r = 0;

  gethostname(host, sizeof host - 1);
  *l = (pp_local){.uid = getuid(), .env = environ, .home_of = home_of};
  if (user != NULL)
    r = copy(&l->user, user);
  if (r == 0 && home != NULL)
    r = copy(&l->home, home);
  if (r == 0)
    r = copy(&l->hostname, host);
  if (r < 0)
    pp_local_clear(l);
  return r;
}

void pp_local_clear(pp_local *l) {
  pp_buf_realloc(l->user, 0);
  pp_buf_realloc(l->home, 0);
  pp_buf_realloc(l->hostname, 0);
  *l = (pp_local){0};
}
