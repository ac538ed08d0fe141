/* SPDX-License-Identifier: MIT */
/* Files that the shell sends to hosts and brings back: what Lua's io lacks. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hash.h"
#include "lua_pp.h"

/* Read at a time for a digest: part of what it is. */
#define PIECE ((size_t)1 << 16)

static int failed(lua_State *L) {
  lua_pushnil(L);
  lua_pushstring(L, strerror(errno));
  return 2;
}

static int done(lua_State *L) {
  lua_pushboolean(L, 1);
  return 1;
}

/* core.files.look(path): {kind = "file", "directory" or "other", mode, size,
 * mtime (ns), id (tells one file from all others of this machine)}, or nil and
 * why not. */
static int look(lua_State *L) {
  static const char *const kinds[] = {"other", "file", "directory"};
  struct stat st;

  if (stat(luaL_checkstring(L, 1), &st) < 0)
    return failed(L);
  lua_createtable(L, 0, 5);
  lua_pushstring(L, kinds[S_ISREG(st.st_mode)   ? 1
                          : S_ISDIR(st.st_mode) ? 2
                                                : 0]);
  lua_setfield(L, -2, "kind");
  lua_pushinteger(L, st.st_mode & 07777);
  lua_setfield(L, -2, "mode");
  lua_pushinteger(L, (lua_Integer)st.st_size);
  lua_setfield(L, -2, "size");
  lua_pushinteger(L, (lua_Integer)st.st_mtim.tv_sec * 1000000000 +
                         st.st_mtim.tv_nsec);
  lua_setfield(L, -2, "mtime");
  lua_pushfstring(L, "%I.%I", (lua_Integer)st.st_dev, (lua_Integer)st.st_ino);
  lua_setfield(L, -2, "id");
  return 1;
}

typedef struct closer {
  DIR *dir;
} closer;

static int closer_gc(lua_State *L) {
  closer *c = lua_touserdata(L, 1);

  if (c->dir != NULL)
    closedir(c->dir);
  c->dir = NULL;
  return 0;
}

/* core.files.list(path): what is in a directory, or nil and why not. */
static int list(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  closer *c = lua_newuserdatauv(L, sizeof *c, 0);
  const struct dirent *d;
  lua_Integer n = 0;

  c->dir = NULL;
  luaL_setmetatable(L, "pp.files.closer");
  c->dir = opendir(path);
  if (c->dir == NULL)
    return failed(L);
  lua_newtable(L);
  while (errno = 0, (d = readdir(c->dir)) != NULL) {
    if (strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0)
      continue;
    lua_pushstring(L, d->d_name);
    lua_rawseti(L, -2, ++n);
  }
  return errno != 0 ? failed(L) : 1;
}

/* core.files.mkdir(path): with all above it. true, or nil and why not. */
static int make(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  char *copy = lua_newuserdatauv(L, strlen(path) + 1, 0);
  struct stat st;

  strcpy(copy, path);
  for (char *p = copy + 1; *path != '\0'; p++) {
    char was = *p;

    if (was != '/' && was != '\0')
      continue;
    *p = '\0';
    if (mkdir(copy, 0777) < 0 && errno != EEXIST)
      return failed(L);
    *p = was;
    if (was == '\0')
      break;
  }
  if (stat(path, &st) < 0)
    return failed(L);
  errno = ENOTDIR;
  return S_ISDIR(st.st_mode) ? done(L) : failed(L);
}

/* core.files.settle(from, to, mode, mtime): give a file, or a directory (to is
 * nil), its mode and time, and put it in its place. true, or nil and why not.
 */
static int settle(lua_State *L) {
  const char *from = luaL_checkstring(L, 1), *to = luaL_optstring(L, 2, NULL);
  lua_Integer mtime = luaL_checkinteger(L, 4);
  struct timespec t[2] = {
      {.tv_nsec = UTIME_OMIT},
      {.tv_sec = mtime / 1000000000, .tv_nsec = mtime % 1000000000},
  };

  if (chmod(from, (mode_t)luaL_checkinteger(L, 3) & 07777) < 0 ||
      utimensat(AT_FDCWD, from, t, 0) < 0 ||
      (to != NULL && rename(from, to) < 0))
    return failed(L);
  return done(L);
}

/* core.files.digest(path): a string that tells its bytes from others, or nil
 * and why not. */
static int digest(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  unsigned char *p = lua_newuserdatauv(L, PIECE, 0);
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
  pp_hash h = {0, 0};
  uint64_t size = 0;
  char text[64];
  ssize_t n = 1;

  if (fd < 0)
    return failed(L);
  while (n > 0) { /* by full pieces, whatever a read gives */
    size_t have = 0;

    while (have < PIECE && ((n = read(fd, p + have, PIECE - have)) > 0 ||
                            (n < 0 && errno == EINTR)))
      have += n > 0 ? (size_t)n : 0;
    if (n < 0)
      break;
    if (have > 0)
      h = pp_hash_of(p, have, h.lo ^ h.hi);
    size += have;
  }
  if (n < 0) {
    int why = errno;

    close(fd);
    errno = why;
    return failed(L);
  }
  close(fd);
  snprintf(text, sizeof text, "%016llx%016llx-%llu", (unsigned long long)h.hi,
           (unsigned long long)h.lo, (unsigned long long)size);
  lua_pushstring(L, text);
  return 1;
}

/* core.files.remove(path): a file or an empty directory. true, or nil and why
 * not. */
static int take_away(lua_State *L) {
  return remove(luaL_checkstring(L, 1)) < 0 && errno != ENOENT ? failed(L)
                                                               : done(L);
}

void pp_open_files(lua_State *L) {
  static const luaL_Reg funcs[] = {
      {"look", look},     {"list", list},     {"mkdir", make},
      {"settle", settle}, {"digest", digest}, {"remove", take_away},
      {NULL, NULL},
  };

  luaL_newmetatable(L, "pp.files.closer");
  lua_pushcfunction(L, closer_gc);
  lua_setfield(L, -2, "__gc");
  lua_pop(L, 1);
  luaL_newlib(L, funcs);
  lua_setfield(L, -2, "files");
}
