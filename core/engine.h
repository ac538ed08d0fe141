/* SPDX-License-Identifier: MIT */
/*
 * engine: what one ppsh has one of: the lock, the event loop, the zygote, the
 * shared memory, the standby thread.
 *
 * All of the C side's state (servers, jobs, blobs, links) belongs to the lock.
 * The script's thread holds it inside calls of pp: pp_engine_enter and leave,
 * which nest. While the script is elsewhere for more than about a millisecond
 * and jobs are under way, the standby thread takes the lock and moves bytes;
 * entering takes it back. The standby thread never touches a lua_State.
 */
#ifndef PP_ENGINE_H
#define PP_ENGINE_H

#include <lua.h>
#include <pthread.h>
#include <semaphore.h>
#include <uv.h>

#include "ahead.h"
#include "berths.h"
#include "blob.h"
#include "meter.h"
#include "modules.h"
#include "options.h"
#include "server.h"
#include "shm.h"
#include "spin.h"

typedef struct pp_engine pp_engine;
struct pp_link;
struct pp_far;
struct pp_remote;
struct pp_nest;
struct pp_serial;
struct pp_capture;
struct pp_prompt;
struct top;
struct pp_trace;
struct pp_feed;
typedef struct pp_pin pp_pin;

/* What is asked of those who see to remote hosts. */
typedef struct pp_remote_ops {
  /* See to what is due. When to come again; -1 never. */
  int64_t (*tick)(struct pp_engine *e, int64_t now);
  /* Everything ends: half a second for goodbyes. */
  void (*end)(struct pp_engine *e);
} pp_remote_ops;

struct pp_engine {
  struct pp_nest *nest;     /* a worker's engine has this in place of a loop */
  struct pp_serial *serial; /* that of jobs which run here has this */
  pp_engine *at;            /* whose Lua runs, if not the script's; NULL */

  pthread_mutex_t lock;
  sem_t park; /* the standby thread waits here when it is not needed */
  pthread_t standby;
  bool standby_runs, standby_parked, standby_quit;
  bool standby_cools;          /* parked until memory is to be let go */
  _Atomic int late;            /* end with this status; 0: no */
  _Atomic uint32_t main_wants; /* the script's thread waits for the lock */
  _Atomic uint64_t epoch;      /* grows with every enter */
  unsigned depth;              /* of enter; the script's thread only */

  uv_loop_t loop;
  uv_poll_t on_bell, *on_ctl;
  uv_timer_t tick;
  bool loop_open, timed_out;
  bool heard; /* workers have written what may wait to be passed on */
  int bell, ctl, shm, cwd, pid, zygote;
  uint32_t generation; /* zygotes that have died */
  pp_hub *hub;
  int64_t looked, drained; /* when the loop and the rings were last seen to */
  pp_spin spin;
  uint32_t cpus; /* this process may use; 0: not looked up yet */

  int64_t submitted;      /* when the last job was */
  bool streaming;         /* one of many is being submitted: see pp_link_lull */
  struct pp_link *lulled; /* list: those that may have to be woken */
  int64_t lulled_since;

  struct pp_link **links; /* by lane; NULL: free */
  uint32_t nlinks;        /* lanes ever used */
  uint32_t *free_lanes, nfree;
  size_t closing; /* links whose handles are being closed */

  struct pp_far *fars;      /* streams to remote hosts */
  struct pp_remote *remote; /* those hosts; NULL: there were none */
  const struct pp_remote_ops *remote_ops;
  char **names; /* of nodes, by number; kept to the end */
  uint16_t nnames;

  pp_hold hold;             /* cargo of the script's, and of blobs */
  struct pp_blocks *blocks; /* reference: of the script's Lua heap, and what
                             comes from hosts */
  size_t string_at;         /* pp_state_string_at of it */
  pp_ahead ahead;           /* in one of these that a result comes to */
  size_t warm;              /* bytes kept for the next payload, as last seen */
  int64_t warm_since;
  size_t hanging;           /* bytes of cargo that workers may still look at */
  pp_pin *_Atomic unpinned; /* list: strings of the script's that may go */
  pp_berths berths;
  pp_blobs blobs;
  pp_pool jobs;                /* where those that are submitted lie */
  pp_server *servers, *closed; /* open ones; destroyed ones not yet freed */
  struct pp_trace *trace;      /* what is told of jobs that are over; or NULL */
  struct top *top;             /* top.c's; NULL: not drawn yet */
  uint32_t nservers;           /* there have been */
  pp_server *idle;             /* some that have no unfinished job any more */
  size_t pending;              /* unfinished jobs of all servers */
  size_t stopping;             /* workers that have a second to leave a job */
  size_t calls;                /* of everywhere, under way in a worker */
  _Atomic size_t callbacks;    /* due, of all servers */
  uint64_t ends;               /* jobs that have ended, of all servers */
  pp_jobs failing;             /* to fail with a job they waited for */
  bool fails;                  /* somebody sees to these */
  size_t put_off;              /* of these, of items of map */
  uint64_t put_off_first;      /* number of the oldest of them */
  size_t unseen, dropped; /* failed jobs reported, unfinished ones let go */
  pp_buf past; /* tables of servers that were destroyed, for --stats */
  bool in_callback, dirty[2], ended, zygote_gone;
  struct pp_feed *feed; /* what commands read; NULL: none do */
  FILE *out[2]; /* stdout, stderr; those of before while a job runs here */
  struct pp_capture *capture; /* what such a job writes; NULL: none yet */
  _Atomic bool
      in_job;        /* the script's thread runs a job's Lua, not the script */
  bool may_run;      /* who waits can run jobs here */
  uint32_t nserials; /* servers that have run jobs here */
  pp_meter meter;
  bool at_prompt;           /* a line is being edited */
  struct pp_prompt *prompt; /* NULL: there is none */
  const pp_options *options;
  pp_modules modules;
  char *path, *cpath; /* package.path and package.cpath at the start */
  pp_codec *codec;
  pp_blob *setting; /* reference: of a serial job's jobs */
  /* How userdata of the bindings travel; they put it here. */
  int (*custom)(struct pp_engine *e, lua_State *L, int idx, pp_custom *out);
  pp_buf scratch; /* of the script's thread */
};

/* The one engine, NULL before start. Only for signal handlers, exit and the
 * bindings' entry. */
pp_engine *pp_engine_get(void);

/* life.c and the like only. */
void pp_engine_set(pp_engine *e);
void pp_log_level_set(int level);

/* Fork the zygote from the pristine state L and get ready. 0, or negative with
 * a line on stderr. */
int pp_engine_start(lua_State *L, const pp_options *o);
/* Everything that happens at an ending: statistics, what nobody asked about,
 * no process left. Idempotent. Returns the exit status to use. */
int pp_engine_end(int status);
/* The script's thread does not come to its end by itself: have the standby
 * thread end the process, lock or no lock to be had from there. False where
 * there is none. Async-signal-safe. */
bool pp_engine_late(int status);
_Noreturn void pp_engine_end_late(pp_engine *e);
/* Report failed jobs of a server that nobody asked about; how many. of: whose
 * they are, " of job 3". */
size_t pp_engine_unseen(pp_engine *e, pp_server *s, const char *of);
/* Is there anything to move or to watch? */
static inline bool pp_engine_works(const pp_engine *e) {
  return e->pending + e->stopping + e->calls > 0 || e->remote != NULL;
}
/* Make a waiting call look up. Async-signal-safe. */
void pp_engine_wake(void);

/* How a submitter's codec keeps blobs with an engine, and has userdata sent by
 * its `custom`. */
pp_codec_hooks pp_engine_hooks(pp_engine *e);

/* What the first server needs: the event loop, the standby thread. 0, or
 * PP_ESYS with errno. */
int pp_engine_open_loop(pp_engine *e);
int pp_engine_standby(pp_engine *e);

void pp_engine_enter(pp_engine *e);
/* The same to submit a job: for one of many that follow closely workers are not
 * woken at once. */
void pp_engine_enter_stream(pp_engine *e, int64_t now);
void pp_engine_leave(pp_engine *e);

/* The loop, the lock held:
 * look at what has arrived, without waiting (cheap, rate-limited); */
void pp_engine_look(pp_engine *e, int64_t now);
/* run it until until(ud) is true, a callback is due (unless one is running),
 * a signal is pending, a job is to be run here (if may_run) or deadline
 * (monotonic ns, -1 never): 1, 0 when the time ran out, PP_EAGAIN for the
 * others. */
int pp_engine_wait(pp_engine *e, bool (*until)(void *ud), void *ud,
                   int64_t deadline);

/* The loop, for whoever holds the lock, until stop says so after a look, or
 * the deadline. */
void pp_engine_pump(pp_engine *e, bool (*stop)(pp_engine *e, void *ud),
                    void *ud, int64_t deadline);
/* Look at every lane, bell or not: output that may be passed on, results that
 * wait for company. True if some output must wait for another look. */
bool pp_engine_drain(pp_engine *e);
/* What was passed on to stdout and stderr is to be seen. */
void pp_engine_flush(pp_engine *e);

/* Memory that is kept for the next large payload and has not been asked for in
 * a second is let go. Returns when to come again, -1 never. */
int64_t pp_engine_cool(pp_engine *e, int64_t now);
size_t pp_engine_warm(const pp_engine *e);

/* A free lane for a link, or -1 with errno. */
int pp_engine_lane(pp_engine *e, struct pp_link *link);
void pp_engine_lane_free(pp_engine *e, uint32_t lane);

/* A lane's worker is gone and held this blob. */
void pp_engine_blob_lost(pp_engine *e, uint32_t id, uint32_t lane);

/* The number of a node's name, made if need be; 0, which is "local", without
 * memory; and the name. */
#define PP_NAME_LOCAL 0
uint16_t pp_engine_named(pp_engine *e, const char *name);
static inline const char *pp_engine_name(const pp_engine *e, uint16_t i) {
  return i > 0 && i <= e->nnames ? e->names[i - 1] : "local";
}

/* One line on stderr if the level is asked for. */
void pp_log(int level, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
