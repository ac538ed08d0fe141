/* SPDX-License-Identifier: MIT */
/*
 * host: what users write for hosts, and sets of node names.
 *
 *   list   := term { ',' term | '!' term }      evaluated from left to right:
 *             ',' adds, '!' takes away what the term before it has gathered
 *   term   := '@' FILE | spec
 *   spec   := [ 'ssh://' ] [ user '@' ] host [ ':' port ] [ '/' workers ]
 *   host   := a name or IPv4 address, in which [01-16,20] and [1-9/2] stand for
 *             numbers, as often as one likes; or an IPv6 address, in brackets
 *             when a port follows; a port may hold such brackets too
 *
 * What is taken away is named without user and workers. "!n2" takes n2:22 away
 * as well as n2; "!n2:22" only that. A file can be taken away, too; then users
 * and workers in it say nothing.
 *
 * A file holds one list a line, # begins a comment; it names no other file.
 * Blanks around a term are skipped.
 *
 * A node's name is its host as written (brackets of an IPv6 address included),
 * with ":port" when one was written. "local" is this machine and no host's
 * name. Naming a node again changes nothing; naming it with another user or
 * another number of workers is an error.
 *
 * Nothing here knows a Lua state, a loop or the network.
 */
#ifndef PP_HOST_H
#define PP_HOST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buf.h"

enum {
  PP_HOSTS_MAX = 100000,      /* nodes in one set */
  PP_HOST_NAME_MAX = 255,     /* bytes of a node's name */
  PP_HOST_WORKERS_MAX = 65536 /* workers of one host */
};

/* One host. All strings are owned by the set it is in. */
typedef struct pp_host {
  char *name;  /* the node's name */
  char *host;  /* without port and without brackets */
  char *user;  /* NULL: none was written */
  int port;    /* 0: none was written */
  int workers; /* 0: none was written, so as many as the host has CPUs */
} pp_host;

/* Hosts in the order in which they were first named. Zeroed is empty. */
typedef struct pp_hosts {
  pp_host *v;
  size_t n, cap;
  uint32_t *slots; /* index of v + 1 by hash of the name; 0: free */
  size_t nslots;
} pp_hosts;

/* What was wrong with a list, and where. */
typedef struct pp_host_error {
  size_t column;     /* of the character, from 1; bytes of UTF-8 make one */
  char message[512]; /* one line: the text (or file:line:column), and why */
  char caret[512];   /* two lines: the text, or that part of it which matters,
                        and a ^ below the character */
} pp_host_error;

/* How files are read: append the file to out, 0 or PP_ESYS with errno, or
 * PP_ELIMIT when it is too long. NULL where one is asked for: open(2). */
typedef int (*pp_hosts_read)(void *ud, const char *path, pp_buf *out);

/*
 * Add the hosts of a list. A list stands for itself: its exclusions do not
 * touch what the set held before, except that a list which begins with '!'
 * takes away from that. Returns 0; PP_EBAD or PP_ELIMIT with *e filled and the
 * set as it was; PP_ENOMEM.
 */
int pp_hosts_add(pp_hosts *set, const char *text, size_t len,
                 pp_hosts_read read, void *ud, pp_host_error *e);

/* The host of that name, or NULL. Borrowed until the set changes. */
const pp_host *pp_hosts_find(const pp_hosts *set, const char *name, size_t n);

/* Remove the host of that name; whether there was one. The order stays. */
bool pp_hosts_remove(pp_hosts *set, const char *name, size_t n);

/* Free everything; the set is empty then. May be called twice. */
void pp_hosts_clear(pp_hosts *set);

/*
 * A set of node names that is never expanded, to be asked whether a name is in
 * it: the `on` of a job, the @SET of the prompt. Written as a list is, without
 * users, workers and files; "local" is a name like others here.
 */
typedef struct pp_nodeset pp_nodeset;

/* 0 and a new set in *out; or as pp_hosts_add. */
int pp_nodeset_new(pp_nodeset **out, const char *text, size_t len,
                   pp_host_error *e);
bool pp_nodeset_has(const pp_nodeset *s, const char *name, size_t n);
void pp_nodeset_free(pp_nodeset *s); /* NULL is fine */

/*
 * Append names as a list that is as short as brackets make it:
 * "local,node[1-14,16]". Sorted, each name once; reading it gives the same
 * names again. 0 or PP_ENOMEM (out is as it was then).
 */
int pp_hosts_fold(const char *const *names, size_t n, pp_buf *out);

#endif
