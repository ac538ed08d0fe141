/* SPDX-License-Identifier: MIT */
/* The C module pp.lines: see lines_impl.h. */
#include <errno.h>
#include <fcntl.h>
#include <lauxlib.h>
#include <lualib.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lines_impl.h"

int luaopen_pp_lines(lua_State *L);

enum { TEXT_MAX = 200 }; /* bytes of a line that an error shows */

/* Arguments of lines.run, which are where they are in `each`, too, and what
 * stands above them there. */
enum {
  LIST = 1,
  MAX,
  SEP,
  NAMES,
  FILTER,
  MAP,
  REDUCE,
  RUN,
  VALUE, /* of the reduction so far */
  META,
  FIELDS,
  NAME,   /* of the file at hand */
  FAILED, /* files */
  TOP = FAILED
};

typedef struct run {
  pp_buf in, out;
  pp_fields fields;
  size_t max;
  lua_Integer segment; /* at hand, from 1 */
  lua_Integer at;      /* number of the line at hand in that, from 1; 0: none */
  lua_Integer lines;   /* begun so far, of all */
  lua_Integer before;  /* in all input before these */
  const char *line;    /* at hand, or NULL */
  size_t len;
  bool too_long;
  int fd;
} run;

static void run_clear(run *r) {
  pp_buf_clear(&r->in);
  pp_buf_clear(&r->out);
  pp_fields_clear(&r->fields);
  if (r->fd >= 0)
    close(r->fd);
  r->fd = -1;
}

static int run_gc(lua_State *L) {
  run_clear(lua_touserdata(L, 1));
  return 0;
}

/* --- results -------------------------------------------------------------- */

static void put(lua_State *L, run *r, const char *p, size_t n) {
  if (PP_UNLIKELY(pp_buf_put(&r->out, p, n) != 0))
    luaL_error(L, "not enough memory");
}

static void put_integer(lua_State *L, run *r, lua_Integer v) {
  char text[24], *p = text + sizeof text;
  uint64_t u = v < 0 ? 0 - (uint64_t)v : (uint64_t)v;

  do
    *--p = (char)('0' + u % 10);
  while ((u /= 10) > 0);
  if (v < 0)
    *--p = '-';
  put(L, r, p, (size_t)(text + sizeof text - p));
}

static void put_value(lua_State *L, run *r, int idx) {
  size_t n;
  const char *p;

  switch (lua_type(L, idx)) {
  case LUA_TNIL:
    return;
  case LUA_TSTRING:
    p = lua_tolstring(L, idx, &n);
    break;
  case LUA_TNUMBER:
    if (lua_isinteger(L, idx)) {
      put_integer(L, r, lua_tointeger(L, idx));
      return;
    }
    /* fall through */
  default:
    p = luaL_tolstring(L, idx, &n);
    put(L, r, p, n);
    lua_pop(L, 1);
    return;
  }
  put(L, r, p, n);
}

/* The results above `base` as a line, unless all are nil. */
static void put_results(lua_State *L, run *r, int base) {
  int n = lua_gettop(L), i = base + 1;

  while (i <= n && lua_isnil(L, i))
    i++;
  if (i > n)
    return;
  for (i = base + 1; i <= n; i++) {
    if (i > base + 1)
      put(L, r, "\t", 1);
    put_value(L, r, i);
  }
  put(L, r, "\n", 1);
}

/* --- the loop ------------------------------------------------------------- */

/* Push what the functions are called with: as many values as NAMES has
 * letters. */
static int push_names(lua_State *L, run *r, const char *names) {
  int n = 0;

  for (; names[n] != '\0'; n++) {
    switch (names[n]) {
    case 'l':
      lua_pushlstring(L, r->line, r->len);
      if (r->fields.how == PP_SPLIT_PATTERN) {
        lua_pushvalue(L, -1);
        lua_setiuservalue(L, RUN, 1);
      }
      break;
    case 'i':
      lua_pushinteger(L, r->before + r->lines);
      break;
    case 'n':
      lua_pushvalue(L, NAME);
      break;
    default:
      if (r->fields.given) { /* somebody may have kept that table */
        lua_createtable(L, 0, 0);
        lua_pushvalue(L, META);
        lua_setmetatable(L, -2);
        lua_replace(L, FIELDS);
        r->fields.given = false;
      }
      lua_pushvalue(L, FIELDS);
    }
  }
  return n;
}

static void fold(lua_State *L) {
  if (lua_isnil(L, -1)) {
    lua_pop(L, 1);
    return;
  }
  if (!lua_isnil(L, VALUE)) {
    lua_pushvalue(L, REDUCE);
    lua_insert(L, -2);
    lua_pushvalue(L, VALUE);
    lua_insert(L, -2);
    lua_call(L, 2, 1);
  }
  lua_replace(L, VALUE);
}

/*
 * Where the next line begins that has the string at FILTER in it, of those that
 * begin at p and behind, which are counted as they are passed over; in->end:
 * there is none. No line is cut short.
 */
static const char *seek(lua_State *L, run *r, const pp_lines *in,
                        const char *p) {
  size_t n;
  const char *needle = lua_tolstring(L, FILTER, &n);
  const char *last = in->end, *hit, *nl;

  if (last > in->p && last[-1] != '\n') {
    nl = memchr(last, '\n', (size_t)(in->all - last));
    last = nl != NULL ? nl : in->all;
  }
  hit = memmem(p, (size_t)(last - p), needle, n);
  if (hit != NULL) {
    nl = memrchr(p, '\n', (size_t)(hit - p));
    hit = nl != NULL ? nl + 1 : p;
  }
  n = pp_lines_newlines(p, (size_t)((hit != NULL ? hit : last) - p));
  if (hit == NULL && last > p && last[-1] != '\n')
    n++;
  r->at += (lua_Integer)n;
  r->lines += (lua_Integer)n;
  return hit != NULL ? hit : in->end;
}

/* All lines from p that begin before `end`. */
static void each_line(lua_State *L, run *r, const pp_lines *in,
                      const char *names) {
  bool filter = lua_toboolean(L, FILTER), map = lua_toboolean(L, MAP);
  bool reduce = lua_toboolean(L, REDUCE), fields = strchr(names, 'f') != NULL;
  /* Where no line can be too long, these need not be looked at one by one. */
  size_t needle_len;
  const char *needle = lua_tolstring(L, FILTER, &needle_len), *p = in->p;
  bool seeks = needle != NULL && (size_t)(in->all - in->p) <= r->max;
  int n;

  while (p < in->end) {
    const char *nl;

    if (seeks && (p = seek(L, r, in, p)) == in->end)
      break;
    nl = memchr(p, '\n', (size_t)(in->all - p));
    r->line = p;
    r->len = (size_t)((nl != NULL ? nl : in->all) - p);
    r->at++;
    r->lines++;
    if (PP_UNLIKELY(r->len > r->max)) {
      r->too_long = true;
      luaL_error(L, "the line is longer than %I bytes (--max-line)",
                 (lua_Integer)r->max);
    }
    if (fields)
      pp_fields_line(&r->fields, p, r->len);
    p += r->len + 1;
    if (needle != NULL) {
      if (!seeks && memmem(r->line, r->len, needle, needle_len) == NULL)
        continue;
    } else if (filter) {
      bool is;

      lua_pushvalue(L, FILTER);
      n = push_names(L, r, names);
      lua_call(L, n, 1);
      is = lua_toboolean(L, -1);
      lua_settop(L, TOP);
      if (!is)
        continue;
    }
    if (!map && !reduce) {
      put(L, r, r->line, r->len);
      put(L, r, "\n", 1);
      continue;
    }
    if (map) {
      lua_pushvalue(L, MAP);
      n = push_names(L, r, names);
      lua_call(L, n, reduce ? 1 : LUA_MULTRET);
    } else {
      lua_pushlstring(L, r->line, r->len);
    }
    if (reduce)
      fold(L);
    else
      put_results(L, r, TOP);
    lua_settop(L, TOP);
  }
  r->line = NULL;
  pp_fields_line(&r->fields, NULL, 0);
}

/* A file that cannot be read costs that file: it goes to the list FAILED. */
static void unreadable(lua_State *L, const run *r, int error) {
  lua_createtable(L, 0, 2);
  lua_pushinteger(L, r->segment);
  lua_setfield(L, -2, "segment");
  lua_pushstring(L, strerror(error));
  lua_setfield(L, -2, "message");
  lua_rawseti(L, FAILED, (lua_Integer)lua_rawlen(L, FAILED) + 1);
}

static void each_of_file(lua_State *L, run *r, const char *names,
                         const char *path, uint64_t at, uint64_t len) {
  pp_lines in;
  int e = PP_ESYS;

  r->fd = open(path, O_RDONLY | O_CLOEXEC);
  if (r->fd >= 0)
    e = pp_lines_read(r->fd, at, len, r->max, &r->in, &in);
  if (e == PP_ESYS)
    unreadable(L, r, errno);
  if (r->fd >= 0)
    close(r->fd);
  r->fd = -1;
  if (e == PP_ENOMEM)
    luaL_error(L, "not enough memory");
  if (e == 0)
    each_line(L, r, &in, names);
}

/* All segments. Called with what lines.run is, and RUN; returns VALUE and
 * FAILED. */
static int each(lua_State *L) {
  run *r = lua_touserdata(L, RUN);
  const char *names = lua_tostring(L, NAMES);
  lua_Integer n = (lua_Integer)lua_rawlen(L, LIST);

  lua_pushnil(L);
  pp_fields_meta(L, RUN, &r->fields);
  lua_pushnil(L);
  lua_pushnil(L);
  lua_newtable(L);
  r->fields.given = true; /* there is no table yet */
  for (lua_Integer k = 1; k <= n; k += 4) {
    pp_lines in;
    size_t len;
    const char *p;

    r->segment = (k + 3) / 4;
    r->at = 0;
    lua_rawgeti(L, LIST, k);
    lua_replace(L, NAME);
    lua_rawgeti(L, LIST, k + 1);
    p = luaL_checklstring(L, -1, &len); /* LIST keeps it */
    lua_rawgeti(L, LIST, k + 2);
    lua_rawgeti(L, LIST, k + 3);
    if (lua_isinteger(L, -1)) {
      uint64_t at = (uint64_t)lua_tointeger(L, -2);
      uint64_t bytes = (uint64_t)lua_tointeger(L, -1);

      lua_settop(L, TOP);
      each_of_file(L, r, names, p, at, bytes);
    } else {
      lua_settop(L, TOP);
      in.p = p;
      in.end = in.all = p + len;
      each_line(L, r, &in, names);
    }
  }
  lua_pushvalue(L, VALUE);
  lua_pushvalue(L, FAILED);
  return 2;
}

/* --- a block -------------------------------------------------------------- */

static void separator(lua_State *L, pp_fields *f) {
  size_t n;
  const char *sep = lua_tolstring(L, SEP, &n);

  if (sep == NULL) {
    f->how = PP_SPLIT_BLANKS;
  } else if (n == 1) {
    f->how = PP_SPLIT_CHAR;
    f->sep = sep[0];
  } else {
    f->how = PP_SPLIT_PATTERN;
    lua_pushvalue(L, SEP);
    lua_setiuservalue(L, RUN, 2);
  }
}

/*
 * Every line makes garbage and none of it lives: the collector looks at the
 * young ones only, seldom at all, and while they are still in the cache. A
 * worker that has run lines is left so.
 */
enum { MINOR = 40, MAJOR = 1000 };

/* Push what went wrong: the error on top is replaced by a table. */
static void push_error(lua_State *L, const run *r) {
  luaL_tolstring(L, -1, NULL);
  lua_createtable(L, 0, 5);
  lua_insert(L, -2);
  lua_setfield(L, -2, "message");
  lua_pushinteger(L, r->segment);
  lua_setfield(L, -2, "segment");
  lua_pushinteger(L, r->at);
  lua_setfield(L, -2, "line");
  if (r->line != NULL && !r->too_long) {
    lua_pushlstring(L, r->line, r->len < TEXT_MAX ? r->len : TEXT_MAX);
    lua_setfield(L, -2, "text");
    lua_pushboolean(L, r->len > TEXT_MAX);
    lua_setfield(L, -2, "cut");
  }
  lua_remove(L, -2);
}

/*
 * lines.run(list, max, separator, names, filter, map, reduce) -> what the
 * functions made of the lines, as text, and how many lines there were; if there
 * is more to say two more: an error, or nil, and what the lines were reduced
 * to, or nil.
 *
 * list: four for each segment: its name; text of whole lines, or a path; false,
 * or where to begin in the file; the same, or how many bytes. list.before:
 * lines before these in all input. max: bytes of a line. separator: of fields;
 * nil: blanks. names: letters, for what the functions are called with: l the
 * line, i its number, n the file's name, f its fields. Functions may be nil;
 * filter may be a string, which is to be in the line.
 *
 * The error is a table: failed = {{segment =, message =}, ...} for files that
 * could not be read; message, segment, line (in that; 0: none), text and cut
 * (there is more of the line) for what ended it all. What was made of the lines
 * before that one stands in the text.
 */
static int lines_run(lua_State *L) {
  run *r;
  int status;
  lua_Integer lines;

  luaL_checktype(L, LIST, LUA_TTABLE);
  luaL_checkstring(L, NAMES);
  lua_settop(L, REDUCE);
  r = lua_newuserdatauv(L, sizeof *r, 2);
  memset(r, 0, sizeof *r);
  r->fd = -1;
  lua_createtable(L, 0, 1);
  lua_pushcfunction(L, run_gc);
  lua_setfield(L, -2, "__gc");
  lua_setmetatable(L, -2);
  r->max = (size_t)luaL_checkinteger(L, MAX);
  separator(L, &r->fields);
  lua_getfield(L, LIST, "before");
  r->before = lua_tointeger(L, -1);
  lua_pop(L, 1);

  lua_gc(L, LUA_GCGEN, MINOR, MAJOR);
  lua_pushcfunction(L, each);
  for (int i = 1; i <= RUN; i++)
    lua_pushvalue(L, i);
  status = lua_pcall(L, RUN, 2, 0);

  lines = r->lines;
  if (status != LUA_OK) {
    push_error(L, r);
    lua_pushnil(L);
  } else if (lua_rawlen(L, -1) > 0) {
    lua_createtable(L, 0, 1);
    lua_insert(L, -2);
    lua_setfield(L, -2, "failed");
    lua_insert(L, -2);
  } else {
    lua_pop(L, 1);
    lua_pushnil(L);
    lua_insert(L, -2);
  }
  /* error, value */
  pp_fields_line(&r->fields, NULL, 0); /* somebody may have kept the table */
  pp_buf_clear(&r->in);
  lua_pushlstring(L, (const char *)r->out.data, r->out.len);
  run_clear(r);
  lua_insert(L, -3);
  lua_pushinteger(L, lines);
  lua_insert(L, -3);
  return lua_isnil(L, -1) && lua_isnil(L, -2) ? (lua_pop(L, 2), 2) : 4;
}

static const luaL_Reg funcs[] = {
    {"run", lines_run},
    {NULL, NULL},
};

int luaopen_pp_lines(lua_State *L) {
  lua_getglobal(L, LUA_STRLIBNAME);
  lua_getfield(L, -1, "find");
  lua_rawsetp(L, LUA_REGISTRYINDEX, &pp_fields_find);
  luaL_newlib(L, funcs);
  return 1;
}
