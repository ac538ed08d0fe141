/* SPDX-License-Identifier: MIT */
#include "shm.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <linux/membarrier.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGE 4096u
#define UP(n) (((n) + PAGE - 1) / PAGE * PAGE)
#define HUB_BYTES UP(sizeof(pp_hub))
#define LANE_HEAD UP(sizeof(pp_lane))
#define LANE_BYTES (LANE_HEAD + 2 * PP_RING)

static off_t lane_at(unsigned index) {
  return (off_t)HUB_BYTES + (off_t)index * LANE_BYTES;
}

pp_hub *pp_shm_hub(int fd) {
  void *p = mmap(NULL, HUB_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

  return p == MAP_FAILED ? NULL : p;
}

/* As ftruncate, which beyond a limit on file sizes (ulimit -f) would be a
 * signal. */
static int resize(int fd, off_t size) {
  struct rlimit lim;

  if (getrlimit(RLIMIT_FSIZE, &lim) == 0 && lim.rlim_cur != RLIM_INFINITY &&
      lim.rlim_cur < (rlim_t)size) {
    errno = EFBIG;
    return -1;
  }
  return ftruncate(fd, size);
}

const char *pp_shm_error(int why) {
  return why == EFBIG ? "the limit on the size of files (ulimit -f) is too low"
                      : strerror(why);
}

int pp_shm_open(int *fd, pp_hub **hub) {
  int f = memfd_create("pp-lanes", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  int seals = F_SEAL_SHRINK;

  if (f < 0)
    return PP_ESYS;
  if (sizeof(size_t) >= 8 && resize(f, (off_t)PP_FILE_BYTES) == 0)
    seals |= F_SEAL_GROW | F_SEAL_SEAL;
  else if (resize(f, (off_t)HUB_BYTES) < 0)
    goto fail;
  (void)fcntl(f, F_ADD_SEALS, seals);
  if ((*hub = pp_shm_hub(f)) == NULL)
    goto fail;
  *fd = f;
  return 0;
fail : {
  int e = errno;

  close(f);
  errno = e;
  return PP_ESYS;
}
}

/* --- cutting a chunk short ------------------------------------------------ */

/*
 * The worker writes which item it begins, then looks whether it may; here the
 * limit is written first, then the item read. With a barrier between the two on
 * both sides at least one sees the other's word. The worker's would be paid for
 * each item, so where the kernel can, it is made here for all CPUs at once.
 */
bool pp_lane_light(pp_lane *lane) {
  bool light = syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED,
                       0, 0) == 0;

  atomic_store(&lane->light, light);
  return light;
}

static bool barrier(const pp_lane *lane) {
  atomic_thread_fence(memory_order_seq_cst);
  return !atomic_load(&lane->light) ||
         syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL_EXPEDITED, 0, 0) == 0;
}

static bool has_barrier(const pp_lane *lane) {
  return !atomic_load(&lane->light) ||
         (syscall(SYS_membarrier, MEMBARRIER_CMD_QUERY, 0, 0) &
          MEMBARRIER_CMD_GLOBAL_EXPEDITED) != 0;
}

uint32_t pp_lane_cut(pp_lane *lane, uint32_t seq, uint32_t n) {
  uint64_t at = atomic_load(&lane->item);
  uint32_t keep, item;

  if (n < 2 ||
      atomic_load(&lane->claim[seq % PP_WINDOW]) != (seq << 2 | PP_CLAIM_TAKEN))
    return 0;
  if ((int32_t)((uint32_t)(at >> 32) - seq) > 0)
    return 0; /* it is at one in its midst, or done */
  if (atomic_load(&lane->cut) >> 32 == seq)
    return 0; /* more would be what was given away */
  keep = at >> 32 == seq ? (uint32_t)at + 1 : n / 2;
  if (keep == 0 || keep >= n || !has_barrier(lane))
    return 0;
  atomic_store(&lane->cut, (uint64_t)seq << 32 | keep);
  if (!barrier(lane))
    return 0; /* it may end with fewer for it */
  at = atomic_load(&lane->item);
  item = (uint32_t)at;
  if (at >> 32 == seq && item >= keep) /* it may, or may not, have begun it */
    keep = item < n ? item + 1 : n;
  else if ((int32_t)((uint32_t)(at >> 32) - seq) > 0)
    keep = n;
  return keep;
}

bool pp_shm_has_cargo(int fd) {
  const int seals = F_SEAL_SHRINK | F_SEAL_GROW;

  return (fcntl(fd, F_GET_SEALS) & seals) == seals;
}

int pp_shm_grow(int fd, unsigned index) {
  off_t need = lane_at(index) + (off_t)LANE_BYTES;
  off_t have = lseek(fd, 0, SEEK_END);

  if (have >= need)
    return 0;
  return resize(fd, need) < 0 ? PP_ESYS : 0;
}

int pp_lane_map(int fd, unsigned index, pp_map *map) {
  const int prot = PROT_READ | PROT_WRITE, flags = MAP_SHARED | MAP_FIXED;
  size_t size = LANE_HEAD + 4 * PP_RING;
  off_t at = lane_at(index);
  unsigned char *p = mmap(NULL, size, PROT_NONE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

  if (p == MAP_FAILED)
    return PP_ESYS;
  map->base = p;
  map->size = size;
  if (mmap(p, LANE_HEAD, prot, flags, fd, at) == MAP_FAILED)
    goto fail;
  at += (off_t)LANE_HEAD;
  map->lane = (pp_lane *)(void *)p;
  p += LANE_HEAD;
  map->in = p;
  map->out = p + 2 * PP_RING;
  for (int i = 0; i < 4; i++, p += PP_RING) {
    if (mmap(p, PP_RING, prot, flags, fd, at) == MAP_FAILED)
      goto fail;
    if (i == 1)
      at += PP_RING;
  }
  return 0;
fail : {
  int e = errno;

  pp_lane_unmap(map);
  errno = e;
  return PP_ESYS;
}
}

void pp_lane_unmap(pp_map *map) {
  if (map->base != NULL)
    munmap(map->base, map->size);
  memset(map, 0, sizeof *map);
}

void *pp_lanes_map(int fd, unsigned n) {
  uint64_t size = (uint64_t)lane_at(n);
  void *p = MAP_FAILED;

  if (size <= SIZE_MAX)
    p = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (p == MAP_FAILED)
    return NULL;
  (void)madvise(p, (size_t)size, MADV_DONTFORK);
  (void)madvise(p, (size_t)size, MADV_DONTDUMP);
  return p;
}

void pp_lanes_unmap(void *lanes, unsigned n) {
  if (lanes != NULL)
    munmap(lanes, (size_t)lane_at(n));
}

pp_lane *pp_lanes_at(void *lanes, unsigned index) {
  return (void *)((unsigned char *)lanes + lane_at(index));
}

void pp_lane_reset(int fd, unsigned index) {
  (void)fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                  lane_at(index), (off_t)LANE_BYTES);
}

void pp_lane_sleep(pp_lane *lane, uint32_t what, int64_t deadline) {
  struct timespec t;
  int64_t left = deadline - pp_now_ns();

  if (deadline >= 0 && left <= 0)
    return;
  t.tv_sec = (time_t)(left / 1000000000);
  t.tv_nsec = (long)(left % 1000000000);
  (void)syscall(SYS_futex, &lane->asleep, FUTEX_WAIT, what,
                deadline >= 0 ? &t : NULL, NULL, 0);
}

void pp_lane_wake_slow(pp_lane *lane) {
  if (atomic_exchange(&lane->asleep, PP_BUSY) != PP_BUSY)
    (void)syscall(SYS_futex, &lane->asleep, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}
