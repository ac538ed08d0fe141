/* SPDX-License-Identifier: MIT */
/* Where jobs that run in this process find modules: as those of workers do, in
 * what the script has, along package.path as it was at submit. */
#include <stdio.h>
#include <string.h>

#include "capture.h"
#include "serial_impl.h"

/* What link_send.c answers a worker. */
static int answer(pp_buf *out, uint32_t status, const char *name, const void *p,
                  size_t len) {
  unsigned char head[PP_MOD_HEAD] = {0};
  int r;

  pp_put32(head + PP_MOD_STATUS, status);
  pp_put32(head + PP_MOD_NAME, (uint32_t)strlen(name) + 1);
  r = pp_buf_put(out, head, sizeof head);
  if (r == 0)
    r = pp_buf_byte(out, '@');
  if (r == 0)
    r = pp_buf_put(out, name, strlen(name));
  return r == 0 && len > 0 ? pp_buf_put(out, p, len) : r;
}

static int want(void *ud, const char *name, size_t len, pp_buf *out) {
  pp_serial *z = ud;
  pp_engine *e = z->engine;
  const char *path = e->path;
  pp_source *s = NULL;
  pp_buf tried = {0};
  const pp_job *j;
  int r, away;

  pp_engine_enter(e);
  j = z->place.jobs.head; /* NULL: it has ended */
  if (j != NULL && j->setting != NULL)
    path = (const char *)j->setting->bytes;
  away = pp_capture_visit(e);
  r = pp_modules_find(&e->modules, path, strlen(path), name, len, &s, &tried);
  pp_capture_return(away);
  if (r > 0)
    r = answer(out, PP_MOD_FOUND, s->file, s->bytes, s->len);
  else if (r == 0 || r == PP_EBAD)
    r = answer(out, r == 0 ? PP_MOD_NONE : PP_MOD_FAILED, "", tried.data,
               tried.len);
  pp_source_unref(s);
  pp_buf_clear(&tried);
  pp_engine_leave(e);
  return r;
}

void pp_serial_ask_here(pp_serial *z) { pp_runner_wants(z->runner, want, z); }
