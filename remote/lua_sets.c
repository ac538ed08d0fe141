/* SPDX-License-Identifier: MIT */
#include "lua_sets.h"

#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host.h"
#include "interrupt.h"
#include "link.h"
#include "lua_pp.h"
#include "spec.h"
#include "specerror.h"

/* What a set is looked for in. */
typedef struct names {
  const char **v; /* the list's */
  bool *in;
  size_t n;
} names;

/* The list of strings at idx, which keeps them; pushes what holds the arrays.
 */
static names names_at(lua_State *L, int idx) {
  names a;

  luaL_checktype(L, idx, LUA_TTABLE);
  a.n = lua_rawlen(L, idx);
  a.v = lua_newuserdatauv(L, (a.n + 1) * (sizeof *a.v + sizeof *a.in), 0);
  a.in = (bool *)(void *)(a.v + a.n + 1);
  for (size_t i = 0; i < a.n; i++) {
    lua_rawgeti(L, idx, (lua_Integer)i + 1);
    if (lua_type(L, -1) != LUA_TSTRING)
      luaL_argerror(L, idx, "a list of strings is needed");
    a.v[i] = lua_tostring(L, -1);
    a.in[i] = false;
    lua_pop(L, 1);
  }
  return a;
}

static int host_specs(lua_State *L) {
  const pp_hosts *set = luaL_checkudata(L, 1, "pp.hosts");

  lua_createtable(L, (int)set->n, 0);
  for (size_t i = 0; i < set->n; i++) {
    const pp_host *h = &set->v[i];
    char workers[20] = "";

    if (h->workers > 0)
      snprintf(workers, sizeof workers, "/%d", h->workers);
    lua_createtable(L, 2, 0);
    lua_pushstring(L, h->name);
    lua_rawseti(L, -2, 1);
    lua_pushfstring(L, "%s%s%s%s", h->user != NULL ? h->user : "",
                    h->user != NULL ? "@" : "", h->name, workers);
    lua_rawseti(L, -2, 2);
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
  return 1;
}

/* --- picking -------------------------------------------------------------- */

static bool is_all(const pp_spec *s, const pp_term *t) {
  const pp_part *p = &s->parts[t->part];

  return t->nparts == 1 && p->nranges == 0 && !t->brackets && p->len == 3 &&
         memcmp(p->text, "all", 3) == 0;
}

/* Why a term cannot stand in a set of nodes; NULL: it can. */
static const char *misfit(const pp_term *t, bool first) {
  return t->file != NULL     ? "a file cannot stand here"
         : t->user != NULL   ? "a node is named without a user"
         : t->workers > 0    ? "a node is named without workers"
         : first && t->minus ? "there is nothing to take this from"
                             : NULL;
}

/* The names of a term that are not among those there are, folded. */
static void say_missing(const char *text, size_t len, const names *a, char *out,
                        size_t size) {
  pp_hosts set = {0};
  pp_host_error e;
  pp_buf b = {0};
  size_t n = 0;

  if (pp_hosts_add(&set, text, len, NULL, NULL, &e) == 0) {
    const char **v = malloc((set.n + 1) * sizeof *v);

    for (size_t i = 0; v != NULL && i < set.n; i++) {
      bool known = false;

      for (size_t k = 0; k < a->n && !known; k++)
        known = strcmp(a->v[k], set.v[i].name) == 0;
      if (!known)
        v[n++] = set.v[i].name;
    }
    if (v != NULL)
      (void)pp_hosts_fold(v, n, &b);
    free(v);
  }
  if (b.len == 0)
    (void)pp_buf_put(&b, text, len);
  snprintf(out, size, "there is no host '%.*s%s' here",
           (int)(b.len < 120 ? b.len : 120), (const char *)b.data,
           b.len > 120 ? "..." : "");
  pp_buf_clear(&b);
  pp_hosts_clear(&set);
}

static bool parts_terms(char c) {
  return c == ' ' || c == '\t' || c == ',' || c == '!';
}

/* Is the name one of a term's? What is taken away without a port is taken away
 * whatever the port. */
static bool means(const pp_spec *s, const pp_term *t, const char *name) {
  size_t n = strlen(name), host = n;

  if (pp_spec_match(s, t, name, n))
    return true;
  while (host > 0 && name[host - 1] >= '0' && name[host - 1] <= '9')
    host--;
  return t->minus && t->port_part == 0 && host > 0 && host < n &&
         name[host - 1] == ':' && pp_spec_match(s, t, name, host - 1);
}

/* Put a term's names in or take them out. False with why there is none. */
static bool apply(const pp_spec *s, size_t i, const char *text, size_t len,
                  const names *a, char *why, size_t size) {
  const pp_term *t = &s->terms[i];
  size_t end = i + 1 < s->nterms ? s->terms[i + 1].at : len, matched = 0;
  bool all = is_all(s, t);

  for (size_t k = 0; k < a->n; k++)
    if (all ? a->n == 1 || strcmp(a->v[k], "local") != 0
            : means(s, t, a->v[k])) {
      a->in[k] = !t->minus;
      matched++;
    }
  if (t->minus || (matched > 0 && (all || matched >= pp_spec_count(s, t))))
    return true;
  while (end > t->at && parts_terms(text[end - 1]))
    end--;
  say_missing(text + t->at, end - t->at, a, why, size);
  return false;
}

static int pick(lua_State *L) {
  size_t len, at = 0;
  const char *text = luaL_checklstring(L, 1, &len), *wrong = NULL;
  names a = names_at(L, 2);
  pp_spec_error se = {0};
  pp_host_error e;
  pp_spec s;
  int r = pp_spec_parse(&s, text, len, &se);

  if (r == PP_ENOMEM)
    return luaL_error(L, "not enough memory");
  if (r != 0) {
    at = se.at;
    wrong = se.why;
  } else {
    for (size_t i = 0; i < s.nterms && wrong == NULL; i++) {
      wrong = misfit(&s.terms[i], i == 0);
      if (wrong == NULL && !apply(&s, i, text, len, &a, se.why, sizeof se.why))
        wrong = se.why;
      if (wrong != NULL)
        at = s.terms[i].workers > 0 && s.terms[i].user == NULL
                 ? s.terms[i].workers_at
                 : s.terms[i].at;
    }
    pp_spec_clear(&s);
  }
  if (wrong != NULL) {
    pp_host_error_set(&e, text, len, at, NULL, 0, wrong);
    lua_pushnil(L);
    lua_pushfstring(L, "%s\n%s", e.message, e.caret);
    return 2;
  }
  lua_newtable(L);
  for (size_t i = 0, n = 0; i < a.n; i++)
    if (a.in[i]) {
      lua_pushstring(L, a.v[i]);
      lua_rawseti(L, -2, (lua_Integer)++n);
    }
  if (lua_rawlen(L, -1) == 0) {
    lua_pushnil(L);
    lua_pushfstring(L, "there is no host in the set '%s'", text);
    return 2;
  }
  return 1;
}

static int fold(lua_State *L) {
  names a = names_at(L, 1);
  pp_buf b = {0};

  if (pp_hosts_fold(a.v, a.n, &b) != 0)
    return luaL_error(L, "not enough memory");
  lua_pushlstring(L, b.data != NULL ? (const char *)b.data : "", b.len);
  pp_buf_clear(&b);
  return 1;
}

/* --- the console ---------------------------------------------------------- */

static int hide(lua_State *L) {
  pp_server *s = pp_check_server(L, 1);

  s->console = true;
  s->untraced = lua_toboolean(L, 2);
  return 0;
}

static int hear(lua_State *L) {
  pp_ujob *u = luaL_checkudata(L, 1, PP_JOB_META);
  pp_engine *e = pp_check_engine(L);
  pp_buf text[2] = {{0}, {0}};

  pp_engine_enter(e);
  pp_engine_look(e, pp_now_ns());
  if (u->j->state == PP_JOB_SENT)
    pp_link_hear(u->j->place, u->j, text);
  pp_engine_leave(e);
  for (int k = 0; k < 2; k++) {
    lua_pushlstring(L, text[k].data != NULL ? (char *)text[k].data : "",
                    text[k].len);
    pp_buf_clear(&text[k]);
  }
  return 2;
}

static int calm(lua_State *L) {
  lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_MAINTHREAD);
  pp_interrupt_reset(lua_tothread(L, -1));
  return 0;
}

void pp_open_sets(lua_State *L) {
  static const luaL_Reg funcs[] = {
      {"host_specs", host_specs},
      {"pick", pick},
      {"fold", fold},
      {"hide", hide},
      {"hear", hear},
      {"calm", calm},
      {NULL, NULL},
  };

  luaL_setfuncs(L, funcs, 0);
}
