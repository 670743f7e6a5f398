#include "slots.h"

#include "../store/crc32c.h"
#include "../store/entry.h"
#include "../store/scope.h"
#include "places.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

enum { SUMS_FIRST = 1024, SUMS_PARTS = 23 };
enum { GAP_BLOCKS = 8 }; /* that are read in vain, to save a read */

struct slots {
    int fd;
    bool direct;
    uint32_t *sums[SUMS_PARTS]; /* of SUMS_FIRST slots, of twice as many, and so on: what is there
                                   never moves */
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

int slots_open(const char *path, struct slots **ret)
{
    struct slots *s = calloc(1, sizeof *s);

    if (!s)
        return -ENOMEM;
    s->fd = open_direct(path);
    s->direct = s->fd >= 0;
    if (s->fd == -EINVAL) {
        s->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        if (s->fd < 0)
            s->fd = -errno;
    }
    if (s->fd < 0) {
        int r = s->fd;
        free(s);
        return r;
    }
    if (slots_reserve(s, 0) < 0) {
        slots_close(s);
        return -ENOMEM;
    }
    *ret = s;
    return 0;
}

void slots_close(struct slots *s)
{
    if (!s)
        return;
    close(s->fd);
    for (unsigned i = 0; i < SUMS_PARTS; i++)
        free(s->sums[i]);
    free(s);
}

bool slots_direct(const struct slots *s)
{
    return s->direct;
}

/* ------------------------------------------------------------------ sums */

static unsigned part_of(uint32_t slot)
{
    return 31 - (unsigned)__builtin_clz(slot / SUMS_FIRST + 1);
}

int slots_reserve(struct slots *s, uint32_t slot)
{
    for (unsigned part = 0; part <= part_of(slot); part++) {
        if (!s->sums[part])
            s->sums[part] = calloc((size_t)SUMS_FIRST << part, CHUNK_BLOCKS * sizeof(uint32_t));
        if (!s->sums[part])
            return -ENOMEM;
    }
    return 0;
}

/* NULL if nothing was reserved for it. */
static uint32_t *sums_of(const struct slots *s, uint32_t slot)
{
    unsigned part = part_of(slot);
    uint32_t first = ((UINT32_C(1) << part) - 1) * SUMS_FIRST;

    return s->sums[part] ? s->sums[part] + (size_t)(slot - first) * CHUNK_BLOCKS : NULL;
}

const uint32_t *slots_sums(const struct slots *s, uint32_t slot)
{
    return sums_of(s, slot);
}

void slots_set_sums(struct slots *s, uint32_t slot, const uint32_t sums[])
{
    memcpy(sums_of(s, slot), sums, CHUNK_BLOCKS * sizeof *sums);
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
static uint64_t check(struct slots *s, uint32_t slot, unsigned first, unsigned n, const void *buf)
{
    uint32_t *sums = sums_of(s, slot), now[CHUNK_BLOCKS];
    uint64_t bad = 0;

    if (!sums)
        return 0;
    sum_blocks(buf, n, now);
    for (unsigned i = 0; i < n; i++) {
        uint32_t sum = __atomic_load_n(&sums[first + i], __ATOMIC_RELAXED);
        if (sum == 0)
            __atomic_store_n(&sums[first + i], now[i], __ATOMIC_RELAXED);
        else if (sum != now[i])
            bad |= UINT64_C(1) << (first + i);
    }
    return bad;
}

/* ------------------------------------------------------------------ blocks */

static int io_all(int fd, bool write, char *buf, size_t len, off_t at)
{
    while (len > 0) {
        ssize_t n = write ? pwrite(fd, buf, len, at) : pread(fd, buf, len, at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno == EBADMSG ? -EIO : -errno; /* the file system's damage is not ours */
        if (n == 0 && write)
            return -EIO;
        if (n == 0) { /* beyond the file's end: a hole */
            memset(buf, 0, len);
            return 0;
        }
        buf += n;
        at += n;
        len -= (size_t)n;
    }
    return 0;
}

static bool aligned(const void *p)
{
    return (uintptr_t)p % BLOCK_BYTES == 0;
}

static off_t offset_of(uint32_t slot, unsigned first)
{
    return (off_t)slot * CHUNK_BYTES + (off_t)first * BLOCK_BYTES;
}

/* How many of the blocks are one slot's; the others go in a call of their own, as the memory for
 * copying has room for one slot. */
static unsigned at_once(const struct slots *s, unsigned first, unsigned n, const void *buf)
{
    INVARIANT(first < CHUNK_BLOCKS);
    return s->direct && !aligned(buf) ? MIN(n, CHUNK_BLOCKS - first) : n;
}

/* -EBADMSG if some are not as they were written. */
static int check_all(struct slots *s, uint32_t slot, unsigned first, unsigned n, const uint8_t *buf,
                     uint64_t ret_bad[])
{
    int r = 0;

    for (unsigned here; n > 0; n -= here, slot++, ret_bad++, first = 0) {
        here = MIN(n, CHUNK_BLOCKS - first);
        *ret_bad = check(s, slot, first, here, buf);
        r = *ret_bad ? -EBADMSG : r;
        buf += (size_t)here * BLOCK_BYTES;
    }
    return r;
}

int slots_read(struct slots *s, uint32_t slot, unsigned first, unsigned n, void *buf,
               uint64_t ret_bad[])
{
    unsigned here = at_once(s, first, n, buf);
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
    if (here == n)
        return r;
    int rest = slots_read(s, slot + 1, 0, n - here, (uint8_t *)buf + len, ret_bad + 1);
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

int slots_gather(struct slots *s, uint32_t slot, uint64_t mask, uint64_t keep, void *chunk,
                 uint64_t *bad)
{
    unsigned gap = GAP_BLOCKS;
    char *to = chunk;

    INVARIANT(!mask || slot != SLOT_NONE);
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
            *bad |= check(s, slot, from, here, to + (size_t)from * BLOCK_BYTES);
            rest &= ~mask_range(from, here);
        }
        mask &= ~mask_range(first, n);
    }
    return 0;
}

/* The sums of blocks to be written; NULL: of blocks that nobody knows any more. */
static void set_sums(struct slots *s, uint32_t slot, unsigned first, unsigned n,
                     const uint8_t *blocks)
{
    for (unsigned done = 0, here; done < n; done += here, slot++, first = 0) {
        uint32_t *sums = sums_of(s, slot);
        INVARIANT(slot != SLOT_NONE && sums);
        here = MIN(n - done, CHUNK_BLOCKS - first);
        if (blocks)
            sum_blocks(blocks + (size_t)done * BLOCK_BYTES, here, sums + first);
        else
            memset(sums + first, 0, here * sizeof *sums);
    }
}

int slots_write(struct slots *s, uint32_t slot, unsigned first, unsigned n, const void *buf)
{
    unsigned here = at_once(s, first, n, buf);
    size_t len = (size_t)here * BLOCK_BYTES;
    void *from = (void *)(uintptr_t)buf; /* only read */

    if (s->direct && !aligned(buf)) {
        from = slots_bounce();
        if (!from)
            return -ENOMEM;
        memcpy(from, buf, len);
    }
    set_sums(s, slot, first, here, from);
    int r = io_all(s->fd, true, from, len, offset_of(slot, first));
    if (r < 0) /* old bytes, new ones, or both */
        set_sums(s, slot, first, here, NULL);
    if (r < 0 || here == n)
        return r;
    return slots_write(s, slot + 1, 0, n - here, (const uint8_t *)buf + len);
}

void slots_allocate(struct slots *s, uint32_t slot, uint32_t n)
{
    (void)fallocate(s->fd, FALLOC_FL_KEEP_SIZE, offset_of(slot, 0), (off_t)n * CHUNK_BYTES);
}

int slots_punch(struct slots *s, uint32_t slot)
{
    uint32_t *sums = sums_of(s, slot);

    if (sums)
        memset(sums, 0, CHUNK_BLOCKS * sizeof *sums);
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
