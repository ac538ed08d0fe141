/* SPDX-License-Identifier: MIT */
#include "throttle.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base.h"

enum { PAUSE_MS = 150 };

struct pp_server {
  pp_server *next;
  pp_throttle *t;
  uv_timer_t timer;      /* ends a pause */
  pp_slot *first, *last; /* in line */
  int inside, limit;
  bool paused;
  char key[];
};

struct pp_throttle {
  uv_loop_t *loop;
  pp_server *servers;
  int open;
  bool closing;
  void (*closed)(void *ud);
  void *ud;
};

pp_throttle *pp_throttle_new(uv_loop_t *loop) {
  pp_throttle *t = calloc(1, sizeof *t);

  if (t != NULL)
    t->loop = loop;
  return t;
}

static void end(pp_throttle *t) {
  void (*closed)(void *ud) = t->closed;
  void *ud = t->ud;

  free(t);
  if (closed != NULL)
    closed(ud);
}

static void server_closed(uv_handle_t *h) {
  pp_server *v = h->data;
  pp_throttle *t = v->t;

  free(v);
  if (--t->open == 0 && t->closing)
    end(t);
}

void pp_throttle_close(pp_throttle *t, void (*closed)(void *ud), void *ud) {
  pp_server *v;

  if (t == NULL)
    return;
  t->closing = true;
  t->closed = closed;
  t->ud = ud;
  while ((v = t->servers) != NULL) {
    t->servers = v->next;
    uv_close((uv_handle_t *)&v->timer, server_closed);
  }
  if (t->open == 0)
    end(t);
}

static bool is_loopback(const char *host) {
  return strncmp(host, "127.", 4) == 0 || strcmp(host, "::1") == 0 ||
         strcasecmp(host, "localhost") == 0;
}

static pp_server *find(pp_throttle *t, const char *host, int port) {
  pp_server *v;
  size_t size;
  char key[300];

  snprintf(key, sizeof key, "%d %s", port,
           is_loopback(host) ? "loopback" : host);
  for (v = t->servers; v != NULL; v = v->next)
    if (strcasecmp(v->key, key) == 0)
      return v;
  size = strlen(key) + 1;
  if ((v = calloc(1, sizeof *v + size)) == NULL)
    return NULL;
  memcpy(v->key, key, size);
  v->t = t;
  v->limit = PP_THROTTLE_SLOTS;
  uv_timer_init(t->loop, &v->timer);
  v->timer.data = v;
  t->open++;
  v->next = t->servers;
  t->servers = v;
  return v;
}

int pp_throttle_enter(pp_throttle *t, pp_slot *slot, const char *host, int port,
                      void (*go)(void *ud), void *ud) {
  pp_server *v;

  pp_throttle_leave(t, slot);
  if ((v = find(t, host, port)) == NULL)
    return PP_ENOMEM;
  slot->server = v;
  slot->go = go;
  slot->ud = ud;
  slot->prev = slot->next = NULL;
  if (v->first == NULL && !v->paused && v->inside < v->limit) {
    slot->inside = true;
    v->inside++;
    return 1;
  }
  slot->inside = false;
  if ((slot->prev = v->last) != NULL)
    v->last->next = slot;
  else
    v->first = slot;
  v->last = slot;
  return 0;
}

static void unlink_slot(pp_server *v, pp_slot *slot) {
  if (slot->prev != NULL)
    slot->prev->next = slot->next;
  else
    v->first = slot->next;
  if (slot->next != NULL)
    slot->next->prev = slot->prev;
  else
    v->last = slot->prev;
  slot->prev = slot->next = NULL;
}

/* Those who are let in are called from the timer: never from within the call
 * that made room. */
static void on_timer(uv_timer_t *timer) {
  pp_server *v = timer->data;
  pp_slot *slot;

  v->paused = false;
  while ((slot = v->first) != NULL && !v->paused && v->inside < v->limit) {
    unlink_slot(v, slot);
    slot->inside = true;
    v->inside++;
    slot->go(slot->ud);
  }
}

void pp_throttle_leave(pp_throttle *t, pp_slot *slot) {
  pp_server *v = slot->server;

  (void)t;
  if (v == NULL)
    return;
  if (slot->inside)
    v->inside--;
  else
    unlink_slot(v, slot);
  memset(slot, 0, sizeof *slot);
  if (v->first != NULL && !v->paused && v->inside < v->limit)
    uv_timer_start(&v->timer, on_timer, 0, 0);
}

void pp_throttle_dropped(pp_throttle *t, pp_slot *slot) {
  pp_server *v = slot->server;

  if (v == NULL)
    return;
  if (v->limit > 1)
    v->limit /= 2;
  v->paused = true;
  pp_throttle_leave(t, slot);
  uv_timer_start(&v->timer, on_timer, PAUSE_MS, 0);
}
