/* SPDX-License-Identifier: MIT */
#include "expand.h"

#include <stdio.h>

#include "base.h"

const char *pp_local_var(const pp_local *l, const char *name, size_t n) {
  for (char **e = l->env; e != NULL && *e != NULL; e++)
    if (strncmp(*e, name, n) == 0 && (*e)[n] == '=')
      return *e + n + 1;
  return NULL;
}

/* Put what %c stands for; PP_EBAD when nothing. */
static int put_token(pp_buf *out, char c, const pp_target *t, const pp_local *l,
                     bool path) {
  char number[32];
  const char *s;

  switch (c) {
  case '%':
    s = "%";
    break;
  case 'h':
    s = t->host;
    break;
  case 'n':
    s = t->alias;
    break;
  case 'k':
    s = t->host_key_alias != NULL ? t->host_key_alias : t->alias;
    break;
  case 'r':
    s = t->user;
    break;
  case 'p':
    snprintf(number, sizeof number, "%d", t->port);
    s = number;
    break;
  case 'd':
    s = path ? l->home : NULL;
    break;
  case 'u':
    s = path ? l->user : NULL;
    break;
  case 'i':
    snprintf(number, sizeof number, "%u", l->uid);
    s = path ? number : NULL;
    break;
  case 'j':
    s = path ? (t->jump != NULL ? t->jump : "") : NULL;
    break;
  case 'l':
    s = path ? l->hostname : NULL;
    break;
  case 'L':
    if (path && l->hostname != NULL)
      return pp_buf_put(out, l->hostname, strcspn(l->hostname, "."));
    s = NULL;
    break;
  default: /* %C among them: what it is a hash of differs between versions */
    s = NULL;
  }
  return s != NULL ? pp_buf_put(out, s, strlen(s)) : PP_EBAD;
}

static int put_home(pp_buf *out, const char **value, const pp_local *l,
                    char *why, size_t size) {
  size_t n = strcspn(*value + 1, "/");
  const char *home = l->home;
  char user[64];

  if (n > 0) {
    snprintf(user, sizeof user, "%.*s", (int)(n < 64 ? n : 64), *value + 1);
    home = n < sizeof user && l->home_of != NULL ? l->home_of(user) : NULL;
  }
  if (home == NULL) {
    snprintf(why, size, "~%.*s", (int)(n < 32 ? n : 32), *value + 1);
    return PP_EBAD;
  }
  *value += 1 + n;
  return pp_buf_put(out, home, strlen(home));
}

static int expand(pp_buf *out, const char *p, const pp_target *t,
                  const pp_local *l, bool path, char *why, size_t size) {
  size_t len = out->len;
  int r = 0;

  if (path && *p == '~')
    r = put_home(out, &p, l, why, size);
  while (r == 0 && *p != '\0') {
    if (*p == '%') {
      r = put_token(out, p[1], t, l, path);
      if (r == PP_EBAD)
        snprintf(why, size, "%%%.1s", p + 1);
      p += p[1] != '\0' ? 2 : 1;
    } else if (path && p[0] == '$' && p[1] == '{') {
      size_t n = strcspn(p + 2, "}");
      const char *value =
          p[2 + n] == '}' && n > 0 ? pp_local_var(l, p + 2, n) : NULL;

      if (value != NULL) {
        r = pp_buf_put(out, value, strlen(value));
        p += n + 3;
      } else {
        snprintf(why, size, "${%.*s}", (int)(n < 32 ? n : 32), p + 2);
        r = PP_EBAD;
      }
    } else {
      r = pp_buf_byte(out, (unsigned char)*p++);
    }
    if (out->len - len > PP_CONFIG_VALUE_MAX) {
      snprintf(why, size, "so much");
      r = PP_EBAD;
    }
  }
  if (r == 0)
    r = pp_buf_byte(out, 0);
  if (r < 0)
    out->len = len;
  return r;
}

int pp_expand_path(pp_buf *out, const char *value, const pp_target *t,
                   const pp_local *l, char *why, size_t size) {
  return expand(out, value, t, l, true, why, size);
}

int pp_expand_command(pp_buf *out, const char *value, const pp_target *t,
                      const pp_local *l, char *why, size_t size) {
  return expand(out, value, t, l, false, why, size);
}
