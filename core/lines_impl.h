/* SPDX-License-Identifier: MIT */
/*
 * lines: Lua functions over lines of text, block by block: what --map, --filter
 * and --reduce do in a worker. lines.c has the loop, lines_read.c cuts blocks
 * out of files, lines_fields.c is the table `f`.
 *
 * A line ends with a newline, or with its file. A block of a file, [at, at +
 * len), has the lines that begin in it, whole: the last is read on past the
 * block. So blocks can be laid over a file without a look at it.
 */
#ifndef PP_LINES_IMPL_H
#define PP_LINES_IMPL_H

#include <lua.h>
#include <stdbool.h>

#include "buf.h"

/* Lines of a block, in memory. */
typedef struct pp_lines {
  const char *p;   /* where the first begins */
  const char *end; /* where lines begin no more */
  const char *all; /* where the last ends, at the latest */
} pp_lines;

/*
 * Read the lines of a block into buf, whose bytes *out points to. A line is not
 * read on once it is longer than max. Fewer lines where the file has become
 * shorter. 0, PP_ENOMEM, or PP_ESYS with errno.
 */
int pp_lines_read(int fd, uint64_t at, uint64_t len, size_t max, pp_buf *buf,
                  pp_lines *out);
/* How many newlines there are. */
size_t pp_lines_newlines(const char *p, size_t len);

/* The fields of one line, found as far as somebody asked. */
enum pp_split { PP_SPLIT_BLANKS, PP_SPLIT_CHAR, PP_SPLIT_PATTERN };
typedef struct pp_fields {
  enum pp_split how;
  char sep;         /* PP_SPLIT_CHAR */
  const char *line; /* borrowed while that is at hand; NULL: there is none */
  size_t len;
  struct pp_span {
    size_t at, len;
  } * spans; /* owned */
  size_t n, cap;
  size_t next; /* where the next begins */
  bool all;    /* there is no other */
  bool given;  /* the table was changed, and has them: another for the next */
} pp_fields;

/* The metatable of tables f, pushed. ud: index of the userdata in which fields
 * are, which the metatable keeps; its user value 1 is the line as a string and
 * 2 the pattern, for PP_SPLIT_PATTERN. */
void pp_fields_meta(lua_State *L, int ud, pp_fields *f);
/* Registry: string.find, for PP_SPLIT_PATTERN. */
extern const char pp_fields_find;
/* Another line, or NULL. */
static inline void pp_fields_line(pp_fields *f, const char *line, size_t len) {
  f->line = line;
  f->len = len;
  f->n = f->next = 0;
  f->all = line == NULL;
}
void pp_fields_clear(pp_fields *f);

#endif
