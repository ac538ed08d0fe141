/* SPDX-License-Identifier: MIT */
/*
 * agents: the user's ssh-agent, which keeps keys and signs with them.
 *
 * Asked without waiting for it: it may itself ask somebody. Each request has a
 * connection of its own. The list of keys is kept for a few seconds, so that
 * a hundred hosts ask for it once.
 */
#ifndef PP_AGENTS_H
#define PP_AGENTS_H

#include <stdbool.h>
#include <stddef.h>
#include <uv.h>

#include "buf.h"

typedef struct pp_agents pp_agents;
typedef struct pp_agent_request pp_agent_request;

typedef struct pp_agent_key {
  const unsigned char *blob;
  size_t len;
  const char *comment; /* as it came, cut at 255 bytes */
} pp_agent_key;

enum {
  PP_AGENT_REPLY_MAX = 256 << 10, /* bytes of a reply, as in ssh */
  PP_AGENT_KEYS_MAX = 2048,
};

/* NULL when memory is short. */
pp_agents *pp_agents_new(uv_loop_t *loop);
/* No request is under way but dropped ones. */
void pp_agents_close(pp_agents *a, void (*closed)(void *ud), void *ud);

/*
 * The keys of the agent at this socket. listed(ud, keys, n, why) is called
 * once, from the loop; keys is borrowed until it returns; why is NULL, or a
 * line that says why there is none. NULL when memory is short.
 */
pp_agent_request *pp_agents_list(pp_agents *a, const char *socket,
                                 void (*listed)(void *ud,
                                                const pp_agent_key *keys,
                                                size_t n, const char *why),
                                 void *ud);

/*
 * Have it sign data with the key of that blob. is_signed(ud, sig, n, why): the
 * signature without its counted type in front; why as above.
 */
pp_agent_request *
pp_agents_sign(pp_agents *a, const char *socket, const void *blob, size_t nblob,
               const void *data, size_t ndata,
               void (*is_signed)(void *ud, const unsigned char *sig, size_t n,
                                 const char *why),
               void *ud);

/* Its callback is not called any more. NULL is fine. */
void pp_agents_drop(pp_agent_request *r);

#endif
