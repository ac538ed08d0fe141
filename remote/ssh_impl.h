/* SPDX-License-Identifier: MIT */
/*
 * What the files of the built-in client share: ssh.c (life, and moving bytes),
 * ssh_leg.c (from the connection to the channel), ssh_auth.c and ssh_kbd.c
 * (proving who we are). Nothing else includes libssh2.h.
 *
 * A client is a chain of legs. Each is a session with one channel; the first
 * lies on the carrier, each other on the channel of the one before it:
 *
 *   stream.out -> [leg n channel] -> leg n wire -> [leg n-1 channel] -> ...
 *              -> [leg 0 channel] -> the carrier's queue -> the network
 *
 * libssh2 sees no socket: what it sends is appended to `wire` and always
 * accepted, what it reads comes from `in` and `lent`. So it is never left with
 * a packet half sent, which it does not survive in full duplex.
 */
#ifndef PP_SSH_IMPL_H
#define PP_SSH_IMPL_H

#include "libssh2_lazy.h"

#include "agents.h"
#include "carrier.h"
#include "hostkey.h"
#include "identity.h"
#include "stream_impl.h"

typedef struct pp_ssh pp_ssh;
typedef struct pp_leg pp_leg;
typedef struct pp_kbd pp_kbd;

/* What a leg is at; each step is taken again until libssh2 does not say
 * EAGAIN any more. */
typedef enum pp_leg_state {
  PP_LEG_DOWN, /* what is below is not there yet */
  PP_LEG_HANDSHAKE,
  PP_LEG_HOSTKEY, /* a human looks at the host key */
  PP_LEG_METHODS, /* which methods does the server allow? */
  PP_LEG_AUTH,    /* see pp_auth */
  PP_LEG_CHANNEL, /* opening the channel */
  PP_LEG_ENV,
  PP_LEG_EXEC,
  PP_LEG_UP,
  PP_LEG_OVER,
} pp_leg_state;

/* One key that can be offered. */
typedef struct pp_candidate {
  pp_buf blob;
  const char *path; /* borrowed from the target; NULL: it is the agent's only */
  bool agent;       /* the agent signs */
} pp_candidate;

typedef enum pp_auth_step {
  PP_AUTH_LIST,  /* waiting for the agent's list of keys */
  PP_AUTH_NEXT,  /* what to try next is to be chosen */
  PP_AUTH_OPEN,  /* a key file must be opened before it can be offered */
  PP_AUTH_KEY,   /* a key is being offered */
  PP_AUTH_AGAIN, /* asking for the methods again: it may have helped partly */
  PP_AUTH_KBD,
  PP_AUTH_PASSWORD_ASK,
  PP_AUTH_PASSWORD,
} pp_auth_step;

typedef struct pp_auth {
  pp_auth_step step;
  char methods[256]; /* that the server allows */
  char *given_list;  /* the session's, of these */
  pp_candidate *v;
  size_t n, at;
  pp_agent_request *list, *sign;
  pp_key_wait wait;
  pp_question *question;
  pp_buf signature;
  bool have_signature, sign_failed;
  bool listed, keys_done, kbd_done, password_done;
  int rounds; /* of partial success */
  int keys_tried, kbd_tried, passwords_tried;
  char *password; /* wiped */
  pp_kbd *kbd;
  bool cancelled;
  char notes[200]; /* what else is worth saying when it fails */
} pp_auth;

struct pp_leg {
  pp_ssh *c;
  int index;
  const pp_target *t;
  pp_leg_state state;
  LIBSSH2_SESSION *session;
  LIBSSH2_CHANNEL *channel;
  const unsigned char *lent; /* input not copied yet */
  size_t nlent;
  pp_buf in; /* input kept, from in_at on */
  size_t in_at;
  pp_buf staged; /* input that came while a thread uses the session */
  pp_outq wire;  /* of all legs but the first */
  bool eof;      /* no more input will come */
  bool eof_seen, eof_sent;
  bool cut; /* libssh2 is to see a dead connection: it is being freed */
  bool no_password;
  pp_hostkeys known;
  pp_auth auth;
  size_t env_at;
  unsigned char *scratch; /* for data that goes to the next leg */
  char first[80];         /* what the server said first */
  size_t nfirst;
  char disconnect[160]; /* what it said last */
  bool disconnected;
};

struct pp_ssh {
  pp_stream *s; /* NULL: it has let go of us */
  pp_net *net;
  pp_carrier *carrier;
  pp_leg *legs;
  int n;   /* legs */
  int top; /* the one that is being set up, or the last */
  uv_timer_t timer;
  const char *waiting_for; /* what the deadline is for */
  int seconds;
  bool alive;   /* the timer is for ServerAlive */
  bool pinging; /* a request is under way that the server must answer */
  int silent;   /* intervals without a byte */
  bool heard;   /* a byte came in this interval */
  int busy;     /* calls on the stack that use this */
  bool gone;    /* to be freed when it is not busy */
  bool lost;    /* the carrier failed: kind, why */
  pp_end lost_kind;
  int lost_error;
  char lost_why[PP_REASON_MAX];
};

#define PP_SSH_AUTH_SECONDS 60

/* --- ssh.c -------------------------------------------------------------------
 */

void pp_ssh_enter(pp_ssh *c);
void pp_ssh_leave(pp_ssh *c); /* may free it */
/* The attempt has failed; c has let go of the stream when this returns. */
void pp_ssh_fail(pp_ssh *c, pp_end kind, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* A deadline from now on; what for NULL: none. */
void pp_ssh_deadline(pp_ssh *c, int seconds, const char *what);
/* Go on with everything that can go on. */
void pp_ssh_run(pp_ssh *c);
/* As that, from outside: enters and leaves. */
void pp_ssh_kick(pp_ssh *c);
/* The channel of the last leg is open and the command asked for. */
void pp_ssh_is_up(pp_ssh *c);

/* Who is meant, for reasons: "" for the last leg, "jump host 'x': " before. */
const char *pp_leg_where(const pp_leg *h, char *buf, size_t size);
/* The server's words behind a reason, or "". */
const char *pp_leg_error(pp_leg *h, char *buf, size_t size);

/* --- ssh_leg.c ------------------------------------------------------------ */

/* What is below the leg is there. */
void pp_leg_start(pp_leg *h, int fd);
/* Take the next steps; false when it has to wait. */
bool pp_leg_step(pp_leg *h);
void pp_leg_clear(pp_leg *h);
/* A libssh2 call failed: find out why, and fail. */
void pp_leg_broken(pp_leg *h, int rc, const char *doing);
void pp_leg_authenticated(pp_leg *h);

/* --- ssh_auth.c ----------------------------------------------------------- */

bool pp_auth_step_taken(pp_leg *h); /* as pp_leg_step */
void pp_auth_begin(pp_leg *h);      /* h->auth.methods is filled in */
void pp_auth_clear(pp_leg *h);
/* "tried publickey (2 keys), password; the server allows publickey" */
void pp_auth_describe(pp_leg *h, char *buf, size_t size);

/* --- ssh_kbd.c ------------------------------------------------------------ */

/*
 * keyboard-interactive. libssh2 wants the answers from within its call, so the
 * call is made in a thread, which alone uses the session while it runs.
 * pp_kbd_run: 1 it has ended, with *rc; 0 wait, pp_ssh_kick comes.
 */
int pp_kbd_run(pp_leg *h, int *rc);
/* The thread is using the session now. */
bool pp_kbd_running(const pp_leg *h);
bool pp_kbd_cancelled(const pp_leg *h);
/* Ends the thread if there is one; waits for it, which takes no time. */
void pp_kbd_clear(pp_leg *h);

#endif
