#include "slots.h"

#include "../store/crc32c.h"
#include "../store/entry.h"
#include "../store/scope.h"
#include "disk_io.h"
#include "places.h"
#include "sums.h"

#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

enum { GAP_BLOCKS = 8 }; /* that are read in vain, to save a read */
#ifndef SMALL_LIMITS
enum { SUMS_PAGES = 2048 }; /* in memory: of 30,720 slots */
#else                       /* so that the simulation does not have all of them there */
enum { SUMS_PAGES = 3 };
#endif

struct slots {
    int fd;
    bool direct;
    struct sums *sums;
};

static pthread_key_t bounce_key;
static pthread_once_t bounce_once = PTHREAD_ONCE_INIT;

static void make_key(void)
{
    pthread_key_create(&bounce_key, free);
}

void *slots_bounce(void)
{
    pthread_once(&bounce_once, make_key);
    void *p = pthread_getspecific(bounce_key);
    if (!p) {
        p = aligned_alloc(BLOCK_BYTES, CHUNK_BYTES);
        pthread_setspecific(bounce_key, p);
    }
    return p;
}

/* Some file systems take the flag and then refuse the I/O, so ask with a read. */
static int open_direct(const char *path)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_DIRECT, 0600);
    void *p = slots_bounce();

    if (fd < 0)
        return -errno;
    if (p && pread(fd, p, BLOCK_BYTES, 0) >= 0)
        return fd;
    close(fd);
    return -EINVAL;
}

/* Past the page cache, where that can be had. */
static int open_file(const char *dir, const char *name, bool *ret_direct)
{
    char path[PATH_MAX];
    int r = format(path, sizeof path, "%s/%s", dir, name);

    if (r < 0)
        return r;
    int fd = open_direct(path);
    *ret_direct = fd >= 0;
    if (fd != -EINVAL)
        return fd;
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    return fd < 0 ? -errno : fd;
}

int slots_open(const char *dir, struct slots **ret)
{
    struct slots *s = calloc(1, sizeof *s);
    bool direct;

    if (!s)
        return -ENOMEM;
    s->fd = open_file(dir, "slots", &s->direct);
    int fd = s->fd < 0 ? s->fd : open_file(dir, "sums", &direct);
    int r = fd < 0 ? fd : sums_new(fd, SUMS_PAGES, &s->sums);
    if (r == 0)
        r = slots_reserve(s, 0);
    if (r < 0) {
        slots_close(s);
        return r;
    }
    *ret = s;
    return 0;
}

void slots_close(struct slots *s)
{
    if (!s)
        return;
    if (s->fd >= 0)
        close(s->fd);
    sums_free(s->sums);
    free(s);
}

bool slots_direct(const struct slots *s)
{
    return s->direct;
}

/* ------------------------------------------------------------------ sums */

int slots_reserve(struct slots *s, uint32_t slot)
{
    return sums_reserve(s->sums, slot);
}

int slots_get_sums(struct slots *s, uint32_t slot, uint32_t ret_sums[])
{
    struct sums_held held;
    int r = sums_hold(s->sums, slot, 1, &held);

    if (r < 0)
        return r;
    memcpy(ret_sums, sums_of(&held, slot), CHUNK_BLOCKS * sizeof *ret_sums);
    sums_release(s->sums, &held, false);
    return 0;
}

int slots_set_sums(struct slots *s, uint32_t slot, const uint32_t sums[])
{
    struct sums_held held;
    int r = sums_hold(s->sums, slot, 1, &held);

    if (r < 0)
        return r;
    if (sums)
        memcpy(sums_of(&held, slot), sums, CHUNK_BLOCKS * sizeof *sums);
    else
        memset(sums_of(&held, slot), 0, CHUNK_BLOCKS * sizeof *sums);
    sums_release(s->sums, &held, true);
    return 0;
}

uint64_t slots_life(const struct slots *s)
{
    return sums_life(s->sums);
}

int slots_begin(struct slots *s)
{
    return sums_begin(s->sums);
}

int slots_save_sums(struct slots *s)
{
    return sums_save(s->sums);
}

/* Never 0, which stands for: not known. */
static void sum_blocks(const void *buf, unsigned n, uint32_t *ret)
{
    crc32c_each(buf, BLOCK_BYTES, n, ret);
    for (unsigned i = 0; i < n; i++)
        ret[i] = ret[i] ? ret[i] : 1;
}

/* The blocks whose bytes are not those that were written. What is not known yet is learnt, perhaps
 * by two readers at once: hence the atomics. */
static uint64_t check(const struct sums_held *held, uint32_t slot, unsigned first, unsigned n,
                      const void *buf, bool *learnt)
{
    uint32_t *sums = sums_of(held, slot), now[CHUNK_BLOCKS];
    uint64_t bad = 0;

    sum_blocks(buf, n, now);
    for (unsigned i = 0; i < n; i++) {
        uint32_t sum = __atomic_load_n(&sums[first + i], __ATOMIC_RELAXED);
        if (sum == 0) {
            __atomic_store_n(&sums[first + i], now[i], __ATOMIC_RELAXED);
            *learnt = true;
        } else if (sum != now[i]) {
            bad |= UINT64_C(1) << (first + i);
        }
    }
    return bad;
}

/* ------------------------------------------------------------------ blocks */

static bool aligned(const void *p)
{
    return (uintptr_t)p % BLOCK_BYTES == 0;
}

static off_t offset_of(uint32_t slot, unsigned first)
{
    return (off_t)slot * CHUNK_BYTES + (off_t)first * BLOCK_BYTES;
}

/* How many of the blocks go in one call: of one slot, if they are to be copied, as the memory for
 * that has room for one; else of as many as their sums are held of. */
static unsigned at_once(const struct slots *s, unsigned first, unsigned n, const void *buf)
{
    unsigned nslots = s->direct && !aligned(buf) ? 1 : SUMS_RUN;

    INVARIANT(first < CHUNK_BLOCKS);
    return MIN(n, nslots * CHUNK_BLOCKS - first);
}

static int hold(struct slots *s, uint32_t slot, unsigned first, unsigned n,
                struct sums_held *ret_held)
{
    return sums_hold(s->sums, slot, DIV_UP(first + n, (unsigned)CHUNK_BLOCKS), ret_held);
}

/* -EBADMSG if some are not as they were written. */
static int check_all(struct slots *s, uint32_t slot, unsigned first, unsigned n, const uint8_t *buf,
                     uint64_t ret_bad[])
{
    struct sums_held held;
    bool learnt = false;
    int failed = hold(s, slot, first, n, &held), r = 0;

    if (failed)
        return failed;
    for (unsigned here; n > 0; n -= here, slot++, ret_bad++, first = 0) {
        here = MIN(n, CHUNK_BLOCKS - first);
        *ret_bad = check(&held, slot, first, here, buf, &learnt);
        r = *ret_bad ? -EBADMSG : r;
        buf += (size_t)here * BLOCK_BYTES;
    }
    sums_release(s->sums, &held, learnt);
    return r;
}

int slots_read(struct slots *s, uint32_t slot, unsigned first, unsigned n, void *buf,
               uint64_t ret_bad[])
{
    unsigned here = at_once(s, first, n, buf),
             nslots = DIV_UP(first + here, (unsigned)CHUNK_BLOCKS);
    size_t len = (size_t)here * BLOCK_BYTES;
    void *to = s->direct && !aligned(buf) ? slots_bounce() : buf;

    INVARIANT(slot != SLOT_NONE);
    if (!to)
        return -ENOMEM;
    int r = io_all(s->fd, false, to, len, offset_of(slot, first));
    if (r < 0)
        return r;
    if (to != buf)
        memcpy(buf, to, len);
    r = check_all(s, slot, first, here, buf, ret_bad);
    if (here == n || (r < 0 && r != -EBADMSG))
        return r;
    int rest = slots_read(s, slot + nslots, 0, n - here, (uint8_t *)buf + len, ret_bad + nslots);
    return rest < 0 ? rest : r;
}

/* As much of `mask` as can be read at once, with gaps of at most `gap` blocks that are not of
 * `keep`: how many blocks in *ret_n, from the first one on. */
static unsigned mask_span(uint64_t mask, uint64_t keep, unsigned gap, unsigned *ret_n)
{
    unsigned first = mask_run(mask, ret_n);

    for (uint64_t rest = mask; rest &= ~mask_range(first, *ret_n);) {
        unsigned end = first + *ret_n, n, next = mask_run(rest, &n);
        if (next - end > gap || keep & mask_range(end, next - end))
            break;
        *ret_n = next + n - first;
    }
    return first;
}

static int gather(struct slots *s, uint32_t slot, uint64_t mask, uint64_t keep, char *to,
                  const struct sums_held *held, uint64_t *bad, bool *learnt)
{
    unsigned gap = GAP_BLOCKS;

    while (mask) {
        unsigned n, first = mask_span(mask, keep, gap, &n);
        size_t at = (size_t)first * BLOCK_BYTES;
        int r = io_all(s->fd, false, to + at, (size_t)n * BLOCK_BYTES, offset_of(slot, first));
        if (r < 0 && gap == 0)
            return r;
        if (r < 0) { /* perhaps of what is in between */
            gap = 0;
            continue;
        }
        for (uint64_t rest = mask & mask_range(first, n); rest;) {
            unsigned here, from = mask_run(rest, &here);
            *bad |= check(held, slot, from, here, to + (size_t)from * BLOCK_BYTES, learnt);
            rest &= ~mask_range(from, here);
        }
        mask &= ~mask_range(first, n);
    }
    return 0;
}

int slots_gather(struct slots *s, uint32_t slot, uint64_t mask, uint64_t keep, void *chunk,
                 uint64_t *bad)
{
    struct sums_held held;
    bool learnt = false;

    if (!mask)
        return 0;
    INVARIANT(slot != SLOT_NONE);
    int r = sums_hold(s->sums, slot, 1, &held);
    if (r < 0)
        return r;
    r = gather(s, slot, mask, keep, chunk, &held, bad, &learnt);
    sums_release(s->sums, &held, learnt);
    return r;
}

/* The sums of blocks to be written; NULL: of blocks that nobody knows any more. */
static void set_sums(const struct sums_held *held, uint32_t slot, unsigned first, unsigned n,
                     const uint8_t *blocks)
{
    for (unsigned done = 0, here; done < n; done += here, slot++, first = 0) {
        uint32_t *sums = sums_of(held, slot);
        here = MIN(n - done, CHUNK_BLOCKS - first);
        if (blocks)
            sum_blocks(blocks + (size_t)done * BLOCK_BYTES, here, sums + first);
        else
            memset(sums + first, 0, here * sizeof *sums);
    }
}

int slots_write(struct slots *s, uint32_t slot, unsigned first, unsigned n, const void *buf)
{
    unsigned here = at_once(s, first, n, buf),
             nslots = DIV_UP(first + here, (unsigned)CHUNK_BLOCKS);
    size_t len = (size_t)here * BLOCK_BYTES;
    void *from = (void *)(uintptr_t)buf; /* only read */
    struct sums_held held;

    INVARIANT(slot != SLOT_NONE);
    if (s->direct && !aligned(buf)) {
        from = slots_bounce();
        if (!from)
            return -ENOMEM;
        memcpy(from, buf, len);
    }
    int r = hold(s, slot, first, here, &held);
    if (r < 0)
        return r;
    set_sums(&held, slot, first, here, from);
    r = io_all(s->fd, true, from, len, offset_of(slot, first));
    if (r < 0) /* old bytes, new ones, or both */
        set_sums(&held, slot, first, here, NULL);
    sums_release(s->sums, &held, true);
    if (r < 0 || here == n)
        return r;
    return slots_write(s, slot + nslots, 0, n - here, (const uint8_t *)buf + len);
}

void slots_allocate(struct slots *s, uint32_t slot, uint32_t n)
{
    (void)fallocate(s->fd, FALLOC_FL_KEEP_SIZE, offset_of(slot, 0), (off_t)n * CHUNK_BYTES);
}

int slots_punch(struct slots *s, uint32_t slot)
{
    (void)slots_set_sums(s, slot, NULL); /* nobody reads what nobody has written since */
    return fallocate(s->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset_of(slot, 0),
                     CHUNK_BYTES) < 0
               ? -errno
               : 0;
}

int slots_sync(struct slots *s)
{
    return fdatasync(s->fd) < 0 ? -errno : 0;
}

uint64_t slots_count(const struct slots *s)
{
    struct stat st;

    return fstat(s->fd, &st) < 0 ? 0 : DIV_UP((uint64_t)st.st_size, (uint64_t)CHUNK_BYTES);
}

int slots_truncate(struct slots *s, uint32_t nslots)
{
    return ftruncate(s->fd, (off_t)nslots * CHUNK_BYTES) < 0 ? -errno : 0;
}
