/* SPDX-License-Identifier: MIT */
#include "bytecode.h"

#include <limits.h>

#define HEADER 31
#define MAX_NESTING 200 /* Lua's own limit on nested functions */

/* Instructions and constants of Lua 5.4 that say something about names. */
enum {
  OP_LOADK = 3,
  OP_LOADKX = 4,
  OP_GETUPVAL = 9,
  OP_SETUPVAL = 10,
  OP_GETTABUP = 11,
  OP_GETTABLE = 12,
  OP_GETFIELD = 14,
  OP_SETTABUP = 15,
  OP_SELF = 20,
  OP_LAST = 82, /* EXTRAARG */
};
enum {
  K_NIL = 0x00,
  K_FALSE = 0x01,
  K_INT = 0x03,
  K_SHORT = 0x04,
  K_TRUE = 0x11,
  K_FLOAT = 0x13,
  K_LONG = 0x14,
};

typedef struct walk {
  pp_rd r;
  uint32_t count; /* prototypes begun */
  pp_bc_each each;
  pp_bc_used used;
  pp_buf *constants; /* pp_bc_str of each constant; only for `used` */
  void *ud;
} walk;

/* The code of one prototype while its names are looked at. */
typedef struct code {
  walk *w;
  const unsigned char *ins;
  size_t n;
  const pp_bc_str *k;
  size_t nk;
  const int16_t *up; /* upvalue -> the main function's, -1 a local's */
  unsigned nups;
} code;

/* Lua's numbers: seven bits a byte, most significant first, the last byte
 * marked. `max` is the largest that is accepted. */
static int get_size(pp_rd *r, size_t max, size_t *out) {
  const unsigned char *p = r->p;
  size_t v = 0;

  for (;; p++) {
    if (p == r->end || v > (SIZE_MAX >> 7))
      return PP_EBAD;
    v = (v << 7) | (*p & 0x7f);
    if (*p & 0x80)
      break;
  }
  if (v > max)
    return PP_EBAD;
  r->p = p + 1;
  *out = v;
  return 0;
}

static int get_int(pp_rd *r, size_t *out) { return get_size(r, INT_MAX, out); }

/* A count of things that take at least `each` bytes. */
static int get_count(pp_rd *r, size_t each, size_t *out) {
  if (get_int(r, out) < 0 || *out > pp_rd_left(r) / each)
    return PP_EBAD;
  return 0;
}

static int get_string(pp_rd *r, pp_bc_str *s) {
  const unsigned char *p;
  size_t n;

  s->p = NULL, s->n = 0;
  if (get_size(r, SIZE_MAX, &n) < 0)
    return PP_EBAD;
  if (n == 0)
    return 0;
  if (pp_rd_bytes(r, n - 1, &p) < 0)
    return PP_EBAD;
  s->p = (const char *)p, s->n = n - 1;
  return 0;
}

static int skip(pp_rd *r, size_t n) {
  const unsigned char *p;

  return pp_rd_bytes(r, n, &p);
}

int pp_bc_nups(const void *dump, size_t len) {
  static const unsigned char start[] = {
      0x1b, 'L', 'u', 'a',  0x54, 0, 0x19, 0x93, '\r', '\n', 0x1a, '\n',
      4,    8,   8,   0x78, 0x56, 0, 0,    0,    0,    0,    0};
  static const unsigned char number[] = {0, 0, 0, 0, 0, 0x28, 0x77, 0x40};
  const unsigned char *p = dump;

  if (len <= HEADER || memcmp(p, start, sizeof start) != 0 ||
      memcmp(p + sizeof start, number, sizeof number) != 0)
    return PP_EBAD;
  return p[HEADER];
}

/* --- names -------------------------------------------------------------- */

static uint32_t ins_at(const code *c, size_t pc) {
  return pc < c->n ? pp_get32(c->ins + 4 * pc) : UINT32_MAX;
}
static unsigned op_of(uint32_t i) { return i & 0x7f; }
static unsigned a_of(uint32_t i) { return i >> 7 & 0xff; }
static unsigned b_of(uint32_t i) { return i >> 16 & 0xff; }
static unsigned c_of(uint32_t i) { return i >> 24; }

static pp_bc_str constant(const code *c, size_t i) {
  static const pp_bc_str none = {NULL, 0};

  return i < c->nk ? c->k[i] : none;
}

/* The string that the instruction at pc loads in `reg`, and how many
 * instructions that takes (0: it does not). */
static size_t loaded(const code *c, size_t pc, unsigned reg, pp_bc_str *s) {
  uint32_t i = ins_at(c, pc);

  if (op_of(i) == OP_LOADK && a_of(i) == reg)
    *s = constant(c, i >> 15);
  else if (op_of(i) == OP_LOADKX && a_of(i) == reg && pc + 1 < c->n)
    *s = constant(c, ins_at(c, pc + 1) >> 7);
  else
    return 0;
  return s->p == NULL ? 0 : op_of(i) == OP_LOADK ? 1 : 2;
}

/* Is R[reg] replaced at pc by its own field of a constant name? How many
 * instructions that takes, 0 if not. */
static size_t indexed(const code *c, size_t pc, unsigned reg, pp_bc_str *s) {
  uint32_t i = ins_at(c, pc);
  size_t n;

  if (op_of(i) == OP_GETFIELD && a_of(i) == reg && b_of(i) == reg) {
    *s = constant(c, c_of(i));
    return s->p != NULL;
  }
  for (unsigned tmp = reg + 1; tmp <= reg + 2u; tmp++) {
    n = loaded(c, pc, tmp, s);
    if (n == 0)
      continue;
    i = ins_at(c, pc + n);
    if (op_of(i) == OP_GETTABLE && a_of(i) == reg && b_of(i) == reg &&
        c_of(i) == tmp)
      return n + 1;
  }
  return 0;
}

static int tell(const code *c, int kind, int up, pp_bc_str name,
                pp_bc_str field) {
  pp_bc_use use = {kind, up < 0 ? 0 : (unsigned)up, name, field};

  return c->w->used(c->w->ud, &use);
}

/* up.name has been read into R[reg], and pc is what follows. */
static int tell_read(const code *c, int up, pp_bc_str name, unsigned reg,
                     size_t pc) {
  pp_bc_str field = {NULL, 0};

  if (indexed(c, pc, reg, &field) > 0)
    return tell(c, PP_BC_PAIR, up, name, field);
  return tell(c, PP_BC_NAME, up, name, field);
}

static int outer(const code *c, unsigned up) {
  return up < c->nups ? c->up[up] : -1;
}

static int look(const code *c, size_t pc) {
  static const pp_bc_str none = {NULL, 0};
  uint32_t i = ins_at(c, pc);
  unsigned a = a_of(i), b = b_of(i);
  pp_bc_str s = none;
  size_t n;

  switch (op_of(i)) {
  case OP_GETTABUP:
    s = constant(c, c_of(i));
    if (s.p == NULL)
      return 0;
    if (outer(c, b) < 0)
      return tell(c, PP_BC_FIELD, -1, s, none);
    return tell_read(c, outer(c, b), s, a, pc + 1);
  case OP_GETUPVAL:
    if (outer(c, b) < 0)
      return 0;
    n = indexed(c, pc + 1, a, &s);
    if (n > 0)
      return tell_read(c, outer(c, b), s, a, pc + 1 + n);
    return tell(c, PP_BC_ESCAPE, outer(c, b), none, none);
  case OP_SETUPVAL:
    return outer(c, b) < 0 ? 0 : tell(c, PP_BC_ASSIGN, outer(c, b), none, none);
  case OP_SETTABUP:
    s = constant(c, b);
    return outer(c, a) < 0 ? 0 : tell(c, PP_BC_STORE, outer(c, a), s, none);
  case OP_GETFIELD:
    s = constant(c, c_of(i));
    return s.p == NULL ? 0 : tell(c, PP_BC_FIELD, -1, s, none);
  case OP_SELF:
    if (i >> 15 & 1)
      s = constant(c, c_of(i));
    else if (pc > 0 && loaded(c, pc - 1, c_of(i), &s) == 0 && pc > 1)
      loaded(c, pc - 2, c_of(i), &s);
    return s.p == NULL ? 0 : tell(c, PP_BC_SELF, -1, s, none);
  case OP_LOADK:
  case OP_LOADKX:
    /* A key that does not fit in an instruction, or is no short string. */
    if (loaded(c, pc, a, &s) > 0 &&
        (i >> 15 > 255 || s.n > 40 || op_of(ins_at(c, pc + 1)) == OP_GETTABLE))
      return tell(c, PP_BC_FIELD, -1, s, none);
    return 0;
  default:
    return 0;
  }
}

/* --- structure ---------------------------------------------------------- */

static int read_constants(walk *w, size_t *count) {
  pp_rd *r = &w->r;
  size_t n, i;

  if (get_count(r, 1, &n) < 0)
    return PP_EBAD;
  *count = n;
  if (w->used != NULL) {
    w->constants->len = 0;
    if (pp_buf_reserve(w->constants, n * sizeof(pp_bc_str)) < 0)
      return PP_ENOMEM;
  }
  for (i = 0; i < n; i++) {
    pp_bc_str s = {NULL, 0};
    unsigned char t;
    int bad;

    if (pp_rd_byte(r, &t) < 0)
      return PP_EBAD;
    switch (t) {
    case K_NIL:
    case K_FALSE:
    case K_TRUE:
      bad = 0;
      break;
    case K_INT:
    case K_FLOAT:
      bad = skip(r, 8);
      break;
    case K_SHORT:
    case K_LONG:
      bad = get_string(r, &s);
      break;
    default:
      bad = PP_EBAD;
    }
    if (bad)
      return PP_EBAD;
    if (w->used != NULL)
      pp_buf_put(w->constants, &s, sizeof s); /* room was reserved */
  }
  return 0;
}

static int read_debug(pp_rd *r) {
  size_t n, v;
  pp_bc_str s;

  if (get_count(r, 1, &n) < 0 || skip(r, n) < 0) /* lines */
    return PP_EBAD;
  if (get_count(r, 2, &n) < 0) /* absolute lines */
    return PP_EBAD;
  while (n-- > 0)
    if (get_int(r, &v) < 0 || get_int(r, &v) < 0)
      return PP_EBAD;
  if (get_count(r, 3, &n) < 0) /* local variables */
    return PP_EBAD;
  while (n-- > 0)
    if (get_string(r, &s) < 0 || get_int(r, &v) < 0 || get_int(r, &v) < 0)
      return PP_EBAD;
  if (get_count(r, 1, &n) < 0) /* names of upvalues */
    return PP_EBAD;
  while (n-- > 0)
    if (get_string(r, &s) < 0)
      return PP_EBAD;
  return 0;
}

/* `outer_up` maps the upvalues of the enclosing function; NULL for the main
 * prototype. */
static int read_proto(walk *w, pp_bc_str source, const int16_t *outer_up,
                      unsigned outer_nups, int depth) {
  pp_rd *r = &w->r;
  pp_bc_proto p = {.position = w->count++};
  code c = {.w = w};
  int16_t up[256];
  size_t n, i, v;
  pp_bc_str s;
  int rc;

  if (depth > MAX_NESTING || get_string(r, &s) < 0)
    return PP_EBAD;
  p.source = s.p != NULL ? s : source;
  p.body = r->p;
  if (get_int(r, &v) < 0 || get_int(r, &v) < 0 || skip(r, 3) < 0)
    return PP_EBAD;
  if (get_count(r, 4, &c.n) < 0 || pp_rd_bytes(r, 4 * c.n, &c.ins) < 0)
    return PP_EBAD;
  rc = read_constants(w, &c.nk);
  if (rc < 0)
    return rc;

  if (get_count(r, 3, &n) < 0 || n > 255)
    return PP_EBAD;
  p.nups = (unsigned)n;
  for (i = 0; i < n; i++) {
    const unsigned char *d;

    if (pp_rd_bytes(r, 3, &d) < 0)
      return PP_EBAD;
    if (outer_up == NULL)
      up[i] = (int16_t)i;
    else
      up[i] = !d[0] && d[1] < outer_nups ? outer_up[d[1]] : -1;
  }
  if (w->used != NULL) {
    c.k = (const pp_bc_str *)(const void *)w->constants->data;
    c.up = up, c.nups = p.nups;
    for (i = 0; i < c.n; i++) {
      rc = look(&c, i);
      if (rc != 0)
        return rc;
    }
  }

  if (get_count(r, 1, &n) < 0)
    return PP_EBAD;
  for (i = 0; i < n; i++) {
    rc = read_proto(w, p.source, up, p.nups, depth + 1);
    if (rc != 0)
      return rc;
  }
  if (read_debug(r) < 0)
    return PP_EBAD;
  p.len = (size_t)(r->p - p.body);
  if (w->each == NULL)
    return 0;
  p.canon = pp_hash_of(
      p.body, p.len,
      pp_hash_of(p.source.p ? p.source.p : "", p.source.n, p.source.p != NULL)
          .lo);
  return w->each(w->ud, &p);
}

static int read_dump(walk *w, const void *dump, size_t len) {
  pp_bc_str none = {NULL, 0};
  int nups = pp_bc_nups(dump, len), rc;

  if (nups < 0)
    return nups;
  w->r = pp_rd_of((const unsigned char *)dump + HEADER + 1, len - HEADER - 1);
  rc = read_proto(w, none, NULL, 0, 0);
  if (rc == 0 && pp_rd_left(&w->r) > 0)
    return PP_EBAD;
  return rc;
}

int pp_bc_protos(const void *dump, size_t len, pp_bc_each each, void *ud) {
  walk w = {.each = each, .ud = ud};

  return read_dump(&w, dump, len);
}

int pp_bc_uses(const void *dump, size_t len, pp_buf *scratch, pp_bc_used each,
               void *ud) {
  walk w = {.used = each, .constants = scratch, .ud = ud};

  return read_dump(&w, dump, len);
}

typedef struct cut {
  uint32_t position;
  pp_bc_proto found;
} cut;

static int find_proto(void *ud, const pp_bc_proto *p) {
  cut *want = ud;

  if (p->position != want->position)
    return 0;
  want->found = *p;
  return 1;
}

/* Lua's form of a string's size: see get_size. */
static size_t form_size(unsigned char *out, size_t v) {
  unsigned char tmp[10];
  size_t n = 0, i;

  do {
    tmp[n++] = v & 0x7f;
    v >>= 7;
  } while (v > 0);
  tmp[0] |= 0x80;
  for (i = 0; i < n; i++)
    out[i] = tmp[n - 1 - i];
  return n;
}

int pp_bc_cut(const void *dump, size_t len, uint32_t position, pp_buf *out) {
  cut want = {.position = position};
  unsigned char size[10];
  size_t nsize;
  int rc = pp_bc_protos(dump, len, find_proto, &want);

  if (rc <= 0)
    return PP_EBAD;
  nsize = form_size(size, want.found.source.p ? want.found.source.n + 1 : 0);
  if (pp_buf_reserve(out, HEADER + 1 + nsize + want.found.source.n +
                              want.found.len) < 0)
    return PP_ENOMEM;
  pp_buf_put(out, dump, HEADER); /* room was reserved */
  pp_buf_byte(out, (unsigned char)want.found.nups);
  pp_buf_put(out, size, nsize);
  if (want.found.source.p != NULL)
    pp_buf_put(out, want.found.source.p, want.found.source.n);
  return pp_buf_put(out, want.found.body, want.found.len);
}
