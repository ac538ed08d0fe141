/* SPDX-License-Identifier: MIT */
#include "label.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "job.h"

/* Longer names of files and functions are cut: at the front, at the end. */
#define PLACE_MAX 512
#define NAME_MAX_LEN 80
/* Further into a file nobody looks for a name. */
#define LINES_MAX 200000

/* Before the main function in a dump: its header, the number of upvalues. */
#define DUMP_HEAD 32

static void free_label(pp_label *l) {
  if (l != NULL) {
    free(l->name);
    free(l->place);
    free(l);
  }
}

static pp_label *make(const char *name, const char *place) {
  pp_label *l = calloc(1, sizeof *l);

  if (l == NULL)
    return NULL;
  l->name = strdup(name);
  l->place = strdup(place);
  if (l->name == NULL || l->place == NULL) {
    free_label(l);
    return NULL;
  }
  return l;
}

/* --- where it is from ----------------------------------------------------- */

/* A size as lua_dump writes it: seven bits at a time, the last with the high
 * bit. */
static bool get_size(pp_rd *r, uint64_t *out) {
  unsigned char c;

  *out = 0;
  do {
    if (*out >> 56 != 0 || pp_rd_byte(r, &c) != 0)
      return false;
    *out = *out << 7 | (c & 0x7f);
  } while ((c & 0x80) == 0);
  return true;
}

/* The source of the main function of a dump, and the line it begins at. */
static bool origin(const void *dump, size_t len, const char **source, size_t *n,
                   uint64_t *line) {
  pp_rd r = pp_rd_of(dump, len);
  const unsigned char *p;
  uint64_t size;

  if (pp_rd_bytes(&r, DUMP_HEAD, &p) != 0 || !get_size(&r, &size) ||
      size == 0 || pp_rd_bytes(&r, (size_t)size - 1, &p) != 0 ||
      !get_size(&r, line))
    return false;
  *source = (const char *)p;
  *n = (size_t)size - 1;
  return true;
}

/* As Lua names a source in messages, but of files the whole name. */
static void say_place(const char *source, size_t n, uint64_t line, char *out,
                      size_t size) {
  if (n > 0 && (*source == '@' || *source == '=')) {
    size_t cut = n - 1 > PLACE_MAX ? n - 1 - PLACE_MAX : 0;

    snprintf(out, size, "%s%.*s:%llu", cut > 0 ? "..." : "", (int)(n - 1 - cut),
             source + 1 + cut, (unsigned long long)line);
    return;
  }
  const char *eol = memchr(source, '\n', n);
  size_t end = eol != NULL ? (size_t)(eol - source) : n;
  bool whole = eol == NULL && n <= 40;

  snprintf(out, size, "[string \"%.*s%s\"]:%llu",
           (int)(whole || end < 40 ? end : 40), source, whole ? "" : "...",
           (unsigned long long)line);
}

/* --- what it is called ---------------------------------------------------- */

static bool is_name(int c) {
  return isalnum(c) || c == '_' || c == '.' || c == ':';
}

/* The name that a line gives the function that begins there: "function NAME(",
 * "NAME = function". */
static bool name_in(const char *line, char *out, size_t size) {
  const char *at = strstr(line, "function"), *p, *end;

  if (at == NULL)
    return false;
  p = at + 8 + strspn(at + 8, " \t");
  for (end = p; is_name((unsigned char)*end); end++)
    ;
  if (end == p) {
    for (end = at; end > line && isspace((unsigned char)end[-1]);)
      end--;
    if (end == line || *--end != '=')
      return false;
    while (end > line && isspace((unsigned char)end[-1]))
      end--;
    for (p = end; p > line && is_name((unsigned char)p[-1]);)
      p--;
  }
  if (end == p || isdigit((unsigned char)*p))
    return false;
  snprintf(out, size, "%.*s", (int)(end - p), p);
  return true;
}

/* Look it up in the file, if it is there. */
static bool find_name(const char *source, size_t n, uint64_t line, char *out,
                      size_t size) {
  char path[4096], text[1024];
  bool found = false, begins = true;
  FILE *f;

  if (n < 2 || n > sizeof path || *source != '@' || line == 0 ||
      line > LINES_MAX || memchr(source, '\0', n) != NULL)
    return false;
  memcpy(path, source + 1, n - 1);
  path[n - 1] = '\0';
  f = fopen(path, "re");
  if (f == NULL)
    return false;
  while (fgets(text, sizeof text, f) != NULL) {
    if (begins && --line == 0) {
      found = name_in(text, out, size);
      break;
    }
    begins = strchr(text, '\n') != NULL;
  }
  fclose(f);
  return found;
}

static pp_label *describe(const char *source, size_t n, uint64_t line,
                          const char *place) {
  char name[NAME_MAX_LEN];
  const char *base = strrchr(place, '/');

  if (line == 0)
    return make(base != NULL && *source == '@' ? base + 1 : place, place);
  if (find_name(source, n, line, name, sizeof name))
    return make(name, place);
  return make(base != NULL && *source == '@' ? base + 1 : place, place);
}

/* --- all of them ---------------------------------------------------------- */

static const pp_label *other(pp_label **slot, const char *name) {
  if (*slot == NULL)
    *slot = make(name, "");
  return *slot;
}

static const pp_label *intern(pp_labels *l, const char *source, size_t n,
                              uint64_t line) {
  char place[PLACE_MAX + 64];
  pp_hash h;

  say_place(source, n, line, place, sizeof place);
  if (l->slots == NULL)
    l->slots = calloc(PP_LABEL_SLOTS, sizeof *l->slots);
  if (l->slots == NULL)
    return NULL;
  h = pp_hash_of(place, strlen(place), 0);
  for (uint32_t i = (uint32_t)h.lo;; i++) {
    pp_label **slot = &l->slots[i % PP_LABEL_SLOTS];

    if (*slot == NULL) {
      if (l->n >= PP_LABELS_MAX)
        return other(&l->other, "other functions");
      l->n += (*slot = describe(source, n, line, place)) != NULL;
      return *slot;
    }
    if (strcmp((*slot)->place, place) == 0)
      return *slot;
  }
}

const pp_label *pp_label_of(pp_labels *l, const pp_job *j) {
  const pp_blob *code = j->fn;
  const pp_label *found = NULL;
  const char *source;
  uint64_t line;
  size_t n, slot;

  /* A parcel refers to the code of its function first. */
  if (code != NULL && code->kind != PP_BLOB_CODE)
    code = code->ndeps > 0 ? code->deps[0] : NULL;
  if (code == NULL || code->kind != PP_BLOB_CODE)
    return other(&l->library, "library function");
  slot = code->hash.lo % PP_LABEL_CODES;
  if (l->codes[slot].label != NULL &&
      pp_hash_eq(l->codes[slot].hash, code->hash))
    return l->codes[slot].label;
  found = origin(code->bytes, code->len, &source, &n, &line)
              ? intern(l, source, n, line)
              : other(&l->library, "library function");
  if (found != NULL) {
    l->codes[slot].hash = code->hash;
    l->codes[slot].label = found;
  }
  return found;
}

void pp_labels_clear(pp_labels *l) {
  for (uint32_t i = 0; l->slots != NULL && i < PP_LABEL_SLOTS; i++)
    free_label(l->slots[i]);
  free(l->slots);
  free_label(l->other);
  free_label(l->library);
  memset(l, 0, sizeof *l);
}
