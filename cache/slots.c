#include "slots.h"

#include "../store/entry.h"
#include "../store/scope.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

struct slots {
    int fd;
    bool direct;
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
    *ret = s;
    return 0;
}

void slots_close(struct slots *s)
{
    if (!s)
        return;
    close(s->fd);
    free(s);
}

bool slots_direct(const struct slots *s)
{
    return s->direct;
}

static int io_all(int fd, bool write, char *buf, size_t len, off_t at)
{
    while (len > 0) {
        ssize_t n = write ? pwrite(fd, buf, len, at) : pread(fd, buf, len, at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
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

int slots_read(struct slots *s, uint32_t slot, unsigned first, unsigned n, void *buf)
{
    size_t len = (size_t)n * BLOCK_BYTES;

    INVARIANT(slot != SLOT_NONE && first + n <= CHUNK_BLOCKS);
    if (!s->direct || aligned(buf))
        return io_all(s->fd, false, buf, len, offset_of(slot, first));
    void *bounce = slots_bounce();
    if (!bounce)
        return -ENOMEM;
    int r = io_all(s->fd, false, bounce, len, offset_of(slot, first));
    if (r == 0)
        memcpy(buf, bounce, len);
    return r;
}

int slots_write(struct slots *s, uint32_t slot, unsigned first, unsigned n, const void *buf)
{
    size_t len = (size_t)n * BLOCK_BYTES;
    void *from = (void *)(uintptr_t)buf; /* only read */

    INVARIANT(slot != SLOT_NONE && first + n <= CHUNK_BLOCKS);
    if (s->direct && !aligned(buf)) {
        from = slots_bounce();
        if (!from)
            return -ENOMEM;
        memcpy(from, buf, len);
    }
    return io_all(s->fd, true, from, len, offset_of(slot, first));
}

int slots_punch(struct slots *s, uint32_t slot)
{
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
