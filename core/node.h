/* SPDX-License-Identifier: MIT */
/*
 * node: what a server has on one machine: workers, how many there are to be,
 * and what became of the jobs that ran there. The first of a server's nodes is
 * this machine, "local".
 *
 * Workers of a node are numbered from 1. Each number also has a seat, which
 * says the same among all workers of the server: calls of everywhere are kept
 * by seat. Belongs to the engine's lock. No Lua.
 */
#ifndef PP_NODE_H
#define PP_NODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sched.h"

struct pp_link;
struct pp_server;

/* What print_stats and get_stats tell of one node. */
typedef struct pp_stats {
  uint64_t njobs, failed, retried, lost, sent, received, maxrss;
  int64_t time, cpu; /* ns */
} pp_stats;

/* How it stands with the host of a node. */
enum pp_node_state {
  PP_NODE_UP, /* this machine always is */
  PP_NODE_CONNECTING,
  PP_NODE_LOST,   /* it was up, and is tried again */
  PP_NODE_FAILED, /* it is not tried any more */
  PP_NODE_REMOVED
};
typedef struct pp_node pp_node;
struct pp_node {
  pp_node *next;
  struct pp_server *server;
  struct pp_far *far;       /* how it is reached; NULL: it is here, or not
                               connected */
  uint16_t name;            /* among the engine's names */
  struct pp_link **workers; /* by number - 1; NULL: none at present */
  uint32_t *seats;          /* of these */
  uint32_t cap, ncpus;      /* ncpus: how many workers there are to be */
  pp_domain domain;         /* what the schedule knows of it */
  /* Of a host, kept by remote/hosts.c. */
  void *conn;
  void (*release)(pp_node *n); /* it is being freed or its server closed */
  const char *reason;          /* why it is not up; borrowed; may be "" */
  uint8_t state;
  bool leaving;  /* to be removed when its workers have ended */
  bool expected; /* of a host: it may connect yet */
  int64_t due;   /* ns; of a host that is connected to for the first time: calls
                    of everywhere wait for it until then; 0: they do not */
  uint32_t asked; /* workers, by its spec; 0: as many as it has CPUs */
  uint32_t alive;
  uint32_t open, away, spare; /* of these; see crew.h */
  uint32_t extra, serving;    /* of those away, of the open ones */
  uint32_t held;              /* of those that retire */
  uint32_t barred;            /* places not used: everywhere.h */
  uint32_t deaths;            /* in a row, without a finished job */
  uint32_t refusals;          /* spawns that failed, in a row */
  int64_t spare_since;        /* when the last became so */
  int64_t respawn_at;         /* ns; 0: at once */
  int64_t stuck_since;        /* when it had its last worker; 0: it has some */
  pp_stats stats;
};

static inline const pp_node *pp_node_of(const pp_domain *d) {
  return (const pp_node *)(const void *)((const char *)d -
                                         offsetof(pp_node, domain));
}

void pp_stats_add(pp_stats *to, const pp_stats *t);

const char *pp_node_state_name(const pp_node *n);
/* Its name; the engine's. */
const char *pp_node_name(const pp_node *n);

/* Append a node of no worker to a server's; NULL without memory. */
pp_node *pp_node_add(struct pp_server *s, uint16_t name);
/* Its workers' links know it no more. */
void pp_node_free(pp_node *n);
/* Make room for so many workers. 0, or PP_ENOMEM. */
int pp_node_reserve(pp_node *n, uint32_t cap);
/* Change how many workers there should be. PP_ENOMEM: nothing has changed. */
int pp_node_resize(pp_node *n, uint32_t ncpus);
/* Start those that are missing and due. False with errno when that failed. */
bool pp_node_tend(pp_node *n, int64_t now);
/* Worker `number` could not be started, for this errno. */
void pp_node_refused(pp_node *n, uint32_t number, int why);

#endif
