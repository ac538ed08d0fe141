/* SPDX-License-Identifier: MIT */
/*
 * embed ROOT LIST OUTPUT
 *
 * Writes OUTPUT, the C file that core/embed.h declares, from the Lua files
 * named in the file LIST (relative to ROOT, each "lua/..."; one that is made
 * in the build is named "lua/...=PATH"). They are compiled
 * here, by the Lua that the program is linked with: ppsh loads its library at
 * every start, and compiling takes ten times as long as loading.
 */
#include <errno.h>
#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct output {
  FILE *f;
  size_t n; /* bytes of this module so far */
} output;

static int put(lua_State *L, const void *p, size_t len, void *ud) {
  output *o = ud;

  (void)L;
  for (size_t i = 0; i < len; i++)
    fprintf(o->f, "0x%02x,%s", ((const unsigned char *)p)[i],
            ++o->n % 16 == 0 ? "\n" : "");
  return ferror(o->f);
}

static int fail(const char *what, const char *why) {
  fprintf(stderr, "embed: %s: %s\n", what, why);
  return EXIT_FAILURE;
}

/* lua/pp/init.lua: the chunk @pp/init.lua. Its array is m<index>. */
static int module(lua_State *L, const char *root, char *file, int index,
                  output *o) {
  char *made = strchr(file, '=');
  luaL_Buffer b;
  int status;

  if (made != NULL)
    *made++ = '\0';
  if (made != NULL)
    lua_pushstring(L, made);
  else
    lua_pushfstring(L, "%s/%s", root, file);
  lua_pushfstring(L, "@%s", file + strlen("lua/"));
  {
    FILE *f = fopen(lua_tostring(L, 1), "rb");
    size_t n;

    if (f == NULL)
      return fail(lua_tostring(L, 1), strerror(errno));
    luaL_buffinit(L, &b);
    do {
      char *p = luaL_prepbuffer(&b);

      n = fread(p, 1, LUAL_BUFFERSIZE, f);
      luaL_addsize(&b, n);
    } while (n > 0);
    luaL_pushresult(&b);
    fclose(f);
  }
  status = luaL_loadbufferx(L, lua_tostring(L, 3), lua_rawlen(L, 3),
                            lua_tostring(L, 2), "t");
  if (status != LUA_OK)
    return fail(file, lua_tostring(L, -1));
  fprintf(o->f, "static const unsigned char m%d[] = {\n", index);
  o->n = 0;
  /* Nothing is stripped: tracebacks and messages are as ever. */
  if (lua_dump(L, put, o, 0) != 0)
    return fail(file, "cannot write its code");
  fprintf(o->f, "};\n");
  lua_settop(L, 0);
  return EXIT_SUCCESS;
}

/* lua/pp/init.lua is the module pp, lua/pp/foo.lua is pp.foo. */
static void entry(const char *file, int index, FILE *out) {
  const char *chunk = file + strlen("lua/");
  size_t len = strlen(chunk) - strlen(".lua");

  if (len > 5 && strncmp(chunk + len - 5, "/init", 5) == 0)
    len -= 5;
  fputs("  {\"", out);
  for (size_t i = 0; i < len; i++)
    fputc(chunk[i] == '/' ? '.' : chunk[i], out);
  fprintf(out, "\", \"@%s\", m%d, sizeof m%d},\n", chunk, index, index);
}

int main(int argc, char **argv) {
  lua_State *L = luaL_newstate();
  char line[1024];
  output o = {0};
  FILE *list;
  int n = 0;

  if (argc != 4 || L == NULL)
    return fail("usage", "embed ROOT LIST OUTPUT");
  if ((list = fopen(argv[2], "r")) == NULL)
    return fail(argv[2], strerror(errno));
  if ((o.f = fopen(argv[3], "w")) == NULL)
    return fail(argv[3], strerror(errno));
  fprintf(o.f, "/* Made by cmake/embed.c; changes here are lost. */\n"
               "#include \"embed.h\"\n\n");
  while (fgets(line, sizeof line, list) != NULL) {
    line[strcspn(line, "\n")] = '\0';
    if (line[0] != '\0' && module(L, argv[1], line, n++, &o) != EXIT_SUCCESS)
      goto failed;
  }
  fprintf(o.f, "\nconst pp_embedded pp_embedded_modules[] = {\n");
  rewind(list);
  for (n = 0; fgets(line, sizeof line, list) != NULL;) {
    line[strcspn(line, "=\n")] = '\0';
    if (line[0] != '\0')
      entry(line, n++, o.f);
  }
  fprintf(o.f, "  {0, 0, 0, 0},\n};\n");
  fclose(list);
  lua_close(L);
  if (fclose(o.f) != 0) {
    remove(argv[3]);
    return fail(argv[3], strerror(errno));
  }
  return EXIT_SUCCESS;
failed:
  fclose(o.f);
  remove(argv[3]); /* not half of it */
  return EXIT_FAILURE;
}
