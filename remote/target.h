/* SPDX-License-Identifier: MIT */
/*
 * target: all that is known of a host before it is connected to.
 *
 * Made by config.h from what `ssh -G` says, or from defaults where there is no
 * ssh. Paths are absolute or relative to the working directory, and every ~,
 * %token and ${VARIABLE} in them is expanded. Whether files exist was not
 * looked at: that is what connecting does (see identity.h for key files).
 *
 * Everything is owned by the target.
 */
#ifndef PP_TARGET_H
#define PP_TARGET_H

#include <stdbool.h>
#include <stddef.h>

typedef enum pp_transport {
  PP_TRANSPORT_AUTO,    /* the built-in client unless needs_ssh */
  PP_TRANSPORT_LIBSSH2, /* the built-in client only */
  PP_TRANSPORT_SSH,     /* the ssh program only */
} pp_transport;

/* StrictHostKeyChecking. */
typedef enum pp_strict {
  PP_STRICT_ASK, /* the default: ask at a terminal, refuse without one */
  PP_STRICT_YES,
  PP_STRICT_ACCEPT_NEW,
  PP_STRICT_NO,
} pp_strict;

/* Owned strings. Zeroed is empty. */
typedef struct pp_strings {
  char **v;
  size_t n;
} pp_strings;

typedef struct pp_target pp_target;

struct pp_target {
  /* As the user wrote it. `ssh [-F config_file] [-p given_port]
   * [-l given_user] -- alias` reaches the same host with the same settings. */
  char *name;        /* the node's name */
  char *alias;       /* the host, without user, port and brackets */
  char *given_user;  /* NULL: none was written */
  int given_port;    /* 0: none was written */
  char *config_file; /* ssh's -F; NULL: the usual files */
  char *ssh_program; /* what to run as ssh; NULL: there is none here */

  /* Where to connect to, and as whom. */
  char *host; /* HostName */
  char *user;
  int port;
  int family;           /* AF_UNSPEC, AF_INET or AF_INET6 */
  char *bind_address;   /* NULL: any */
  int connect_timeout;  /* seconds; 0: none was set */
  int connect_attempts; /* at least 1 */
  int alive_interval;   /* ServerAliveInterval, seconds; 0: off */
  int alive_count;      /* ServerAliveCountMax */

  /* Through what. At most one of these two. */
  char *jump;          /* ProxyJump as configured; NULL: none */
  pp_target *via;      /* the last jump host, which may have its own via, and so
                          on to the one that is connected to directly */
  char *proxy_command; /* for `$SHELL -c "exec ..."`; tokens are expanded */

  /* Proving who the host is (see hostkey.h). */
  char *host_key_alias;    /* looked up instead of host and port; NULL: none */
  pp_strings known_hosts;  /* the user's files first; a new key goes to the
                              first of them, if user_known_hosts > 0 */
  size_t user_known_hosts; /* how many of known_hosts are the user's */
  bool hash_known_hosts;
  bool trust_localhost; /* NoHostAuthenticationForLocalhost */
  pp_strict strict;

  /* Proving who we are. */
  pp_strings identities; /* private key files, in order; many may not exist */
  bool identities_given; /* the user named them: they are not ssh's defaults */
  bool identities_only;  /* no keys of the agent but those in identities */
  char *agent;           /* the agent's socket; NULL: none */
  bool pubkey_auth, kbdint_auth, password_auth;
  char *preferred_auths; /* PreferredAuthentications, comma separated; NULL: the
                            usual order */
  bool batch;            /* BatchMode: never ask anything */
  int password_prompts;

  /* Comma separated and in order of preference, as ssh knows them; NULL: the
   * client's own. Names the built-in client does not know stand among them. */
  char *kex, *ciphers, *macs, *hostkey_algorithms, *pubkey_algorithms;

  /* What is sent along. */
  pp_strings env; /* NAME=VALUE: SetEnv, and SendEnv with our values */

  /* The ssh program must be told -oRemoteCommand=none, -oRequestTTY=no and
   * -oClearAllForwardings=yes whatever is configured; so none of these is here.
   * What else it is to be told, as far as it knows of that and it is set: that
   * it is to run a command, in the foreground, and not to be the master of
   * others. */
  pp_strings undo;        /* "-oStdinNull=no" */
  pp_transport transport; /* what was asked for */
  char *needs_ssh;        /* why the built-in client cannot serve this: "PKCS11-
                             Provider is set"; NULL: it can, as far as known */
  char *may_need_ssh;     /* which way the ssh program may still get in when the
                             built-in client was not let in: "GSSAPIAuthentication
                             is on"; NULL: none */
};

/* Free a target, and what it goes via. NULL is fine. */
void pp_target_free(pp_target *t);

/* Append a copy of n bytes. 0 or PP_ENOMEM. */
int pp_strings_add(pp_strings *s, const char *p, size_t n);
void pp_strings_clear(pp_strings *s);

#endif
