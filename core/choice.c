/* SPDX-License-Identifier: MIT */
#include "choice.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hash.h"

struct pp_choice {
  pp_class class;  /* first */
  pp_choice *next; /* in its bucket */
  pp_server *server;
  pp_nodeset *set;
  size_t jobs; /* that have it and have not ended */
  bool wide;
  size_t len;
  char text[];
};

static pp_choice *choice_of(const pp_job *j) {
  return (pp_choice *)(void *)pp_job_on(j);
}

static bool in_set(const pp_choice *c, const pp_node *n) {
  const char *name = pp_node_name(n);

  return pp_nodeset_has(c->set, name, strlen(name));
}

/* --- classes -------------------------------------------------------------- */

static bool has(const pp_class *class, const pp_domain *d) {
  return in_set((const pp_choice *)(const void *)class, pp_node_of(d));
}

static bool has_all(const pp_class *class, const pp_domain *d) {
  (void)class, (void)d;
  return true;
}

static pp_choice **bucket(pp_server *s, const char *text, size_t len) {
  return &s->choices[pp_hash_of(text, len, 0).lo % PP_CHOICES];
}

static void free_choice(pp_choice *c) {
  pp_choice **p = bucket(c->server, c->text, c->len);

  while (*p != c)
    p = &(*p)->next;
  *p = c->next;
  pp_class_remove(&c->class);
  pp_nodeset_free(c->set);
  free(c);
}

static int get(pp_choice **out, pp_server *s, const char *text, size_t len,
               bool wide) {
  pp_choice **b = bucket(s, text, len), *c = *b;
  pp_host_error e;
  int r;

  while (c != NULL &&
         (c->wide != wide || c->len != len || memcmp(c->text, text, len) != 0))
    c = c->next;
  if (c != NULL) {
    *out = c;
    return 0;
  }
  c = calloc(1, sizeof *c + len + 1);
  if (c == NULL)
    return PP_ENOMEM;
  memcpy(c->text, text, len);
  c->len = len;
  c->wide = wide;
  c->server = s;
  c->class.has = has;
  r = pp_nodeset_new(&c->set, text, len, &e);
  if (r == 0)
    r = pp_class_add(&s->sched, &c->class);
  if (r != 0) {
    pp_nodeset_free(c->set);
    free(c);
    return r;
  }
  c->next = *b;
  *b = c;
  *out = c;
  return 0;
}

int pp_choice_set(pp_server *s, pp_job *j, const char *text, size_t len) {
  pp_choice *c;
  int r;

  if (len == 0)
    return 0;
  if (pp_job_more(j) == NULL)
    return PP_ENOMEM;
  r = get(&c, s, text, len, j->slots > 1);
  if (r != 0)
    return r;
  c->jobs++;
  j->more->on = &c->class;
  return 0;
}

void pp_choice_drop(pp_job *j) {
  pp_choice *c = choice_of(j);

  if (c == NULL)
    return;
  j->more->on = NULL;
  if (--c->jobs == 0)
    free_choice(c);
}

const char *pp_choice_text(const pp_job *j) {
  const pp_choice *c = choice_of(j);

  return c != NULL ? c->text : NULL;
}

int pp_choices_begin(pp_server *s) {
  s->wide.has = has_all;
  s->sched.wide = &s->wide;
  return pp_class_add(&s->sched, &s->wide);
}

void pp_choices_clear(pp_server *s) {
  for (size_t i = 0; i < PP_CHOICES; i++)
    while (s->choices[i] != NULL)
      free_choice(s->choices[i]);
  if (s->sched.wide != NULL)
    pp_class_remove(&s->wide);
  s->sched.wide = NULL;
}

/* --- is there any hope? --------------------------------------------------- */

static bool hopeless(const pp_choice *c) {
  const pp_server *s = c->server;

  if (s->up != NULL)
    return false; /* the driver knows */
  if (pp_server_here(s))
    return !in_set(c, s->local);
  for (const pp_node *n = s->local; n != NULL; n = n->next)
    if ((n->barred < n->ncpus || (n->expected && n->ncpus == 0)) &&
        in_set(c, n))
      return false;
  return true;
}

static void why(const pp_choice *c, char *out, size_t size) {
  const char *sep = ": host";

  snprintf(out, size, "no worker is to be expected on '%.80s%s'", c->text,
           c->len > 80 ? "..." : "");
  for (const pp_node *n = c->server->local; n != NULL; n = n->next) {
    const char *reason = n->reason;
    size_t len = strlen(out);
    char text[400] = "";

    if (!in_set(c, n))
      continue;
    if ((reason == NULL || *reason == '\0') && n->barred > 0) {
      pp_everywhere_why_not(n, n->barred >= n->ncpus, text, sizeof text);
      reason = text;
    }
    if (reason == NULL || *reason == '\0')
      continue;
    snprintf(out + len, size - len, "%s '%s': %s", sep, pp_node_name(n),
             reason);
    sep = "; host";
  }
}

bool pp_choice_hopeless(const pp_job *j) {
  const pp_choice *c = choice_of(j);

  return c != NULL && hopeless(c);
}

void pp_choice_why(const pp_job *j, char *out, size_t size) {
  why(choice_of(j), out, size);
}

void pp_choices_hopeless(pp_server *s) {
  pp_class *c = s->sched.due;
  bool some = false;

  while (c != NULL) {
    pp_choice *x = (pp_choice *)(void *)c;
    char text[400];
    pp_job *j;

    if (c == &s->wide || !hopeless(x)) {
      c = c->due_next;
      continue;
    }
    why(x, text, sizeof text);
    x->jobs++; /* stay */
    while ((j = c->queue.head) != NULL) {
      pp_sched_remove(&s->sched, j);
      pp_server_fail(s, j, PP_KIND_CONNECT, text);
    }
    if (--x->jobs == 0)
      free_choice(x);
    some = true;
    c = s->sched.due; /* anything may have changed */
  }
  if (some)
    pp_sched_place(&s->sched);
}
