/* SPDX-License-Identifier: MIT */
/*
 * config: a target from what `ssh -G` prints, or from defaults.
 *
 * ssh -G prints one "key value" a line, keys in lower case, with some paths
 * expanded and some not, depending on the key and on ssh's version. Keys that
 * are not known here are skipped; those the built-in client cannot honour end
 * up in needs_ssh.
 *
 * No loop and no subprocess here (see resolve.h); nothing is looked up but
 * what pp_local says.
 */
#ifndef PP_CONFIG_H
#define PP_CONFIG_H

#include <stddef.h>

#include "target.h"

enum {
  PP_CONFIG_MAX = 1 << 20, /* bytes of output of ssh -G */
  PP_CONFIG_VALUE_MAX = 16 << 10
};

/* This side of the connection. Owned, but env. */
typedef struct pp_local {
  char *user, *home, *hostname;
  unsigned uid;
  char **env; /* borrowed, as environ; NULL: none */
  /* The home directory of another user, or NULL. May be NULL. */
  const char *(*home_of)(const char *user);
} pp_local;

/* From the machine; as ssh does, the home directory is the user database's and
 * not $HOME, which stands in only when there is no entry. 0 or PP_ENOMEM. */
int pp_local_init(pp_local *l);
void pp_local_clear(pp_local *l);

/* What was asked for. Borrowed. */
typedef struct pp_wanted {
  const char *name, *host, *user, *config_file, *ssh_program;
  int port;
  pp_transport transport;
} pp_wanted;

/*
 * 0 and a new target in *out, its via NULL whatever jump says; PP_EBAD with a
 * reason when the text is not what ssh -G prints, PP_ELIMIT when it is longer
 * than PP_CONFIG_MAX; PP_ENOMEM.
 */
int pp_config_parse(pp_target **out, const pp_wanted *w, const char *text,
                    size_t len, const pp_local *l, char *reason, size_t size);

/* What holds where there is no ssh to ask. 0 or PP_ENOMEM. */
int pp_config_defaults(pp_target **out, const pp_wanted *w, const pp_local *l);

/* The last hop of a ProxyJump list, and the hops before it (NULL: none). All
 * strings are owned; the name is the hop's host, with port if it has one. */
typedef struct pp_hop {
  char *name, *host, *user, *before;
  int port; /* 0: none */
} pp_hop;

/* 0, PP_EBAD or PP_ENOMEM. */
int pp_hop_parse(pp_hop *h, const char *jump);
void pp_hop_clear(pp_hop *h);

#endif
