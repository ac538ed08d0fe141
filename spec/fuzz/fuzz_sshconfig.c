/* SPDX-License-Identifier: MIT */
/*
 * What ssh -G prints: a target with all that must be there, or none.
 *
 * Input: the text. It is read as a ProxyJump list as well.
 */
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(int e) {
  if (!e)
    abort();
}

static void read_jump(const char *jump) {
  pp_hop h;

  if (pp_hop_parse(&h, jump) < 0)
    return;
  check(h.host[0] != '\0' && h.host[0] != '-' && h.name != NULL);
  check(h.user == NULL || (h.user[0] != '\0' && h.user[0] != '-'));
  check(h.port >= 0 && h.port <= 65535);
  check(h.before == NULL || strlen(h.before) < strlen(jump));
  pp_hop_clear(&h);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  char *env[] = {(char[]){"HOME=/h"}, (char[]){"SSH_AUTH_SOCK=/s"},
                 (char[]){"LC_ALL=C"}, NULL};
  const pp_local local = {.user = (char[]){"me"},
                          .home = (char[]){"/home/me"},
                          .hostname = (char[]){"here.org"},
                          .env = env};
  const pp_wanted wanted = {.name = "a:7", .host = "a", .port = 7};
  const char *text = size > 0 ? (const char *)data : "";
  pp_target *t = NULL;
  char reason[64], *jump;

  if (pp_config_parse(&t, &wanted, text, size, &local, reason, sizeof reason) ==
      0) {
    check(t->name != NULL && t->alias != NULL && t->user != NULL);
    check(t->host != NULL && t->host[0] != '\0' && t->host[0] != '-');
    check(t->port >= 1 && t->port <= 65535 && t->connect_attempts >= 1);
    check(t->user_known_hosts <= t->known_hosts.n && t->via == NULL);
    check(t->jump == NULL || t->proxy_command == NULL);
    for (size_t i = 0; i < t->env.n; i++)
      check(strchr(t->env.v[i], '=') > t->env.v[i]);
    if (t->jump != NULL)
      read_jump(t->jump);
    pp_target_free(t);
  } else {
    check(t == NULL && reason[0] != '\0');
  }
  jump = calloc(1, size + 1);
  memcpy(jump, text, size);
  read_jump(jump);
  free(jump);
  return 0;
}
