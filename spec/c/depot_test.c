/* SPDX-License-Identifier: MIT */
/* The sources of modules that a depot keeps, and what it lets go of. */
#include "check.h"

#include "depot.h"

#define MIB (1u << 20)

static const unsigned char *name(unsigned i) {
  static unsigned char hash[16];

  pp_put64(hash, i);
  pp_put64(hash + 8, i * 7919u);
  return hash;
}

static pp_stock *add(pp_depot *d, unsigned i, uint64_t len) {
  pp_stock *t = pp_depot_add(d, PP_DEPOT_MODULE, name(i), len);

  if (t != NULL)
    pp_depot_keep(d, t);
  return t;
}

static bool there(const pp_depot *d, unsigned i) {
  return pp_depot_find(d, PP_DEPOT_MODULE, name(i)) != NULL;
}

static void lets_go_of_the_oldest(void) {
  pp_depot d = {0};

  for (unsigned i = 0; i < 4; i++)
    CHECK(add(&d, i, 4 * MIB) != NULL);
  CHECK(there(&d, 0) && there(&d, 3) && d.kept == PP_DEPOT_KEPT);
  /* The first is used again: the second is the oldest now. */
  pp_depot_keep(&d, pp_depot_find(&d, PP_DEPOT_MODULE, name(0)));
  add(&d, 4, 1);
  CHECK(there(&d, 0) && !there(&d, 1) && there(&d, 4));
  add(&d, 5, PP_DEPOT_KEPT);
  CHECK(there(&d, 5) && !there(&d, 0) && !there(&d, 4) && d.n == 1);
  pp_depot_clear(&d);
  CHECK(d.n == 0 && d.kept == 0 && d.oldest == NULL && d.newest == NULL);
}

/* One that is still read, or still comes, when it is let go of. */
static void leaves_what_is_in_use(void) {
  pp_depot d = {0};
  pp_stock *t = add(&d, 1, MIB);

  t->users++;
  add(&d, 2, PP_DEPOT_KEPT);
  CHECK(!there(&d, 1) && there(&d, 2));
  pp_stock_leave(&d, t);
  /* One whose rest will not come. */
  t = add(&d, 3, 5);
  t->users++;
  pp_depot_strike(&d, t);
  CHECK(!there(&d, 3) && d.kept == 0 && d.newest == NULL);
  pp_stock_leave(&d, t);
  CHECK(d.n == 0);
  pp_depot_clear(&d);
}

/* Blobs are held by lanes alone. */
static void keeps_no_blobs(void) {
  pp_depot d = {0};
  pp_shelf s = {0};
  pp_stock *t = pp_depot_add(&d, PP_BLOB_CODE, name(1), 100);

  CHECK(pp_shelf_put(&d, &s, 7, t) == 0);
  add(&d, 1, PP_DEPOT_KEPT); /* the same hash, another kind */
  CHECK(d.n == 2 && pp_depot_find(&d, PP_BLOB_CODE, name(1)) == t);
  pp_shelf_drop(&d, &s, 7);
  CHECK(d.n == 1 && there(&d, 1));
  pp_shelf_clear(&d, &s);
  pp_depot_clear(&d);
}

int main(void) {
  lets_go_of_the_oldest();
  leaves_what_is_in_use();
  keeps_no_blobs();
  return failures != 0;
}
