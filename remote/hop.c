/* SPDX-License-Identifier: MIT */
/* One host of a ProxyJump list (config.h). */
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "config.h"

static int copy(char **at, const char *p, size_t n) {
  pp_strings s = {0};
  int r = pp_strings_add(&s, p, n);

  if (r == 0)
    *at = s.v[0];
  pp_buf_realloc(s.v, 0);
  return r;
}

static bool to_port(const char *digits, int *out) {
  if (digits[strspn(digits, "0123456789")] != '\0')
    return false;
  *out = atoi(digits);
  return *out >= 1 && *out <= 65535;
}

int pp_hop_parse(pp_hop *h, const char *jump) {
  const char *comma = strrchr(jump, ',');
  const char *p = comma != NULL ? comma + 1 : jump;
  const char *end = p + strcspn(p, "/"), *at, *host, *port = NULL, *colon;
  size_t n;
  int r = 0;

  *h = (pp_hop){0};
  if (strncmp(p, "ssh://", 6) == 0) {
    p += 6;
    end = p + strcspn(p, "/");
  }
  at = memrchr(p, '@', (size_t)(end - p));
  host = at != NULL ? at + 1 : p;
  if (*host == '[') {
    const char *close = memchr(host, ']', (size_t)(end - host));

    if (close == NULL)
      return PP_EBAD;
    n = (size_t)(close - ++host);
    if (close + 1 < end && close[1] == ':')
      port = close + 2;
    else if (close + 1 != end)
      return PP_EBAD;
  } else {
    colon = memchr(host, ':', (size_t)(end - host));
    /* Two of them, and it is an IPv6 address. */
    if (colon != NULL &&
        memchr(colon + 1, ':', (size_t)(end - colon - 1)) == NULL) {
      n = (size_t)(colon - host);
      port = colon + 1;
    } else {
      n = (size_t)(end - host);
    }
  }
  if (port != NULL) {
    char digits[8] = "";

    if (port == end || (size_t)(end - port) >= sizeof digits)
      return PP_EBAD;
    memcpy(digits, port, (size_t)(end - port));
    if (!to_port(digits, &h->port))
      return PP_EBAD;
  }
  if (n == 0 || *host == '-' || (at != NULL && (at == p || *p == '-'))) {
    *h = (pp_hop){0};
    return PP_EBAD;
  }
  r = copy(&h->host, host, n);
  if (r == 0 && at != NULL)
    r = copy(&h->user, p, (size_t)(at - p));
  p = at != NULL ? at + 1 : p;
  if (r == 0)
    r = copy(&h->name, p, (size_t)(end - p));
  if (r == 0 && comma != NULL)
    r = copy(&h->before, jump, (size_t)(comma - jump));
  if (r < 0)
    pp_hop_clear(h);
  return r;
}

void pp_hop_clear(pp_hop *h) {
  pp_buf_realloc(h->name, 0);
  pp_buf_realloc(h->host, 0);
  pp_buf_realloc(h->user, 0);
  pp_buf_realloc(h->before, 0);
  *h = (pp_hop){0};
}
