#include "image.h"

#include "../../store/msg.h"
#include "../../store/scope.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/uio.h>
#include <time.h>

enum {
    PREFERRED_MIN = 4096,
    PREFERRED_MAX = 1 << 20,
    ZEROES_BYTES = 64 * 1024,
};

struct image {
    int fd;
    uint64_t size;
    uint32_t preferred;
    bool read_only, device;
    bool one_writer;                     /* the kernel writes to it one write at a time */
    atomic_bool written;                 /* since it was opened */
    atomic_bool lost;                    /* a flush has failed for good: invariant 1 */
    atomic_bool no_punch, no_zero_range; /* the kernel has said so */
    atomic_bool no_at_once;
    atomic_long complained_s;
    pthread_mutex_t lock;        /* guards what follows */
    uint64_t data_from, data_to; /* known to be data */
    unsigned holes;              /* made so far */
    char path[];
};

/* ----------------------------------------------------------------------------- opening */

static int find_size(struct image *image)
{
    struct stat st;

    if (fstat(image->fd, &st) < 0)
        return msg_error(-errno, "%s: %s", image->path, strerror(errno));
    image->device = S_ISBLK(st.st_mode);
    if (!image->device && !S_ISREG(st.st_mode))
        return msg_error(-EINVAL,
                         "%s: neither a file nor a block device; give the path of an image",
                         image->path);
    image->size = (uint64_t)st.st_size;
    if (image->device && ioctl(image->fd, BLKGETSIZE64, &image->size) < 0)
        return msg_error(-errno, "%s: its size cannot be found out: %s", image->path,
                         strerror(errno));
    uint64_t unit = (uint64_t)st.st_blksize;
    image->preferred = unit >= PREFERRED_MIN && unit <= PREFERRED_MAX && !(unit & (unit - 1))
                           ? (uint32_t)unit
                           : PREFERRED_MIN;
    return 0;
}

/* These hold the inode's lock for a write into the page cache, so that more threads only wait for
 * each other. Others may wait for long, a FUSE file for its daemon, and do many at once. */
static bool has_one_writer(const struct image *image)
{
    struct statfs fs;

    if (image->device || fstatfs(image->fd, &fs) < 0)
        return false;
    return fs.f_type == EXT4_SUPER_MAGIC || fs.f_type == XFS_SUPER_MAGIC ||
           fs.f_type == BTRFS_SUPER_MAGIC || fs.f_type == TMPFS_MAGIC;
}

static int open_file(struct image *image)
{
    /* Not blocking, as else a FIFO would wait for its other end. */
    image->fd = open(image->path,
                     (image->read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (image->fd >= 0) {
        image->one_writer = has_one_writer(image);
        return find_size(image);
    }
    if (errno == EACCES || errno == EPERM || errno == EROFS)
        return msg_error(-errno, "%s: %s%s", image->path, strerror(errno),
                         image->read_only ? "" : "; to only read it, say --read-only");
    if (errno == EISDIR)
        return msg_error(-errno, "%s: a directory; give the path of the image in it", image->path);
    return msg_error(-errno, "%s: %s", image->path, strerror(errno));
}

int image_open(const char *path, bool read_only, struct image **ret_image)
{
    size_t len = strlen(path) + 1;
    struct image *image = calloc(1, sizeof *image + len);

    if (!image)
        return -ENOMEM;
    memcpy(image->path, path, len);
    image->read_only = read_only;
    pthread_mutex_init(&image->lock, NULL);
    int r = open_file(image);
    if (r < 0) {
        image_close(image);
        return r;
    }
    *ret_image = image;
    return 0;
}

void image_close(struct image *image)
{
    if (!image)
        return;
    if (image->written)
        (void)image_flush(image);
    if (image->fd >= 0)
        close(image->fd);
    pthread_mutex_destroy(&image->lock);
    free(image);
}

uint64_t image_size(const struct image *image)
{
    return image->size;
}

bool image_read_only(const struct image *image)
{
    return image->read_only;
}

uint32_t image_preferred_bytes(const struct image *image)
{
    return image->preferred;
}

/* Says what failed, but not thousands of times while a disk is broken. */
static int io_error(struct image *image, int err, const char *what, uint64_t offset)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    if (atomic_exchange(&image->complained_s, ts.tv_sec + 1) <= ts.tv_sec)
        msg_warn("%s: %s at %llu failed: %s", image->path, what, (unsigned long long)offset,
                 strerror(-err));
    return err;
}

/* ----------------------------------------------------------------------------- data */

int image_read(struct image *image, void *buf, size_t len, uint64_t offset)
{
    for (size_t done = 0; done < len;) {
        ssize_t n = pread(image->fd, (char *)buf + done, len - done, (off_t)(offset + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return io_error(image, n < 0 ? -errno : -EIO, "reading", offset + done);
        done += (size_t)n;
    }
    return 0;
}

int image_read_at_once(struct image *image, void *buf, size_t len, uint64_t offset)
{
    struct iovec iov = {buf, len};

    if (image->no_at_once)
        return -EAGAIN;
    ssize_t n = preadv2(image->fd, &iov, 1, (off_t)offset, RWF_NOWAIT);
    if (n < 0 && errno == EOPNOTSUPP)
        image->no_at_once = true;
    return n == (ssize_t)len ? 0 : -EAGAIN;
}

int image_write(struct image *image, const void *buf, size_t len, uint64_t offset, bool fua)
{
    image->written = true;
    for (size_t done = 0; done < len;) {
        struct iovec iov = {(char *)buf + done, len - done};
        ssize_t n = pwritev2(image->fd, &iov, 1, (off_t)(offset + done), fua ? RWF_DSYNC : 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && fua && errno == EIO)
            image->lost = true;
        if (n <= 0)
            return io_error(image, n < 0 ? -errno : -EIO, "writing", offset + done);
        done += (size_t)n;
    }
    return 0;
}

bool image_writes_at_once(const struct image *image, size_t len, uint64_t offset)
{
    return image->one_writer && len % PREFERRED_MIN == 0 && offset % PREFERRED_MIN == 0;
}

/* The kernel reports a write that it could not do later to the next flush, and forgets it: the one
 * after that would succeed. We do not forget. What only took too long (s3vol mount --timeout) is
 * not lost. */
int image_flush(struct image *image)
{
    if (image->read_only)
        return 0;
    if (image->lost)
        return -EIO;
    if (fdatasync(image->fd) == 0)
        return 0;
    int err = -errno;
    if (err == -EIO || err == -ENOSPC || err == -EDQUOT)
        image->lost = true;
    return io_error(image, err, "flushing", 0);
}

/* ----------------------------------------------------------------------------- zeroes */

static int allocate(struct image *image, int mode, uint64_t offset, uint64_t len)
{
    int r;

    do
        r = fallocate(image->fd, mode | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)len);
    while (r < 0 && errno == EINTR);
    return r < 0 ? -errno : 0;
}

/* A device takes only whole sectors, and says EINVAL to others. */
static bool unsupported(int r)
{
    return r == -EOPNOTSUPP || r == -ENOSYS || r == -ENODEV || r == -EINVAL;
}

/* There may be a hole now. */
static void note_hole(struct image *image, uint64_t offset, uint64_t len)
{
    scope_lock(&image->lock);
    image->holes++;
    if (offset < image->data_to && offset + len > image->data_from)
        image->data_to = MAX(offset, image->data_from);
}

int image_trim(struct image *image, uint64_t offset, uint64_t len, bool fua)
{
    image->written = true;
    if (len && !image->no_punch) {
        int r = allocate(image, FALLOC_FL_PUNCH_HOLE, offset, len);
        if (r == -EOPNOTSUPP)
            image->no_punch = true;
        else if (r < 0 && !unsupported(r))
            return io_error(image, r, "discarding", offset);
        note_hole(image, offset, len);
    }
    return fua ? image_flush(image) : 0;
}

static int write_zeroes(struct image *image, uint64_t offset, uint64_t len)
{
    static const char zeroes[ZEROES_BYTES];

    for (size_t n; len > 0; offset += n, len -= n) {
        n = MIN(len, sizeof zeroes);
        int r = image_write(image, zeroes, n, offset, false);
        if (r < 0)
            return r;
    }
    return 0;
}

/* By telling the kernel. -EOPNOTSUPP: it cannot, or would itself write zeroes. */
static int zero_range(struct image *image, uint64_t offset, uint64_t len, unsigned flags)
{
    atomic_bool *no = flags & IMAGE_NO_HOLE ? &image->no_zero_range : &image->no_punch;
    int r;

    if (*no || (image->device && (flags & IMAGE_NO_HOLE)))
        return -EOPNOTSUPP;
    r = allocate(image, flags & IMAGE_NO_HOLE ? FALLOC_FL_ZERO_RANGE : FALLOC_FL_PUNCH_HOLE, offset,
                 len);
    if (r == -EOPNOTSUPP)
        *no = true;
    if (unsupported(r))
        return -EOPNOTSUPP;
    return r < 0 ? io_error(image, r, "zeroing", offset) : 0;
}

int image_zero(struct image *image, uint64_t offset, uint64_t len, unsigned flags)
{
    int r = 0;

    image->written = true;
    if (len) {
        r = zero_range(image, offset, len, flags);
        note_hole(image, offset, len);
        if (r == -EOPNOTSUPP && !(flags & IMAGE_FAST))
            r = write_zeroes(image, offset, len);
    }
    return r == 0 && (flags & IMAGE_FUA) ? image_flush(image) : r;
}

/* ----------------------------------------------------------------------------- extents */

static bool is_known_data(struct image *image, uint64_t offset, uint64_t end, uint64_t *ret_len,
                          unsigned *ret_holes)
{
    scope_lock(&image->lock);
    *ret_holes = image->holes;
    if (offset < image->data_from || offset >= image->data_to)
        return false;
    *ret_len = MIN(image->data_to, end) - offset;
    return true;
}

static void note_data(struct image *image, uint64_t from, uint64_t to, unsigned holes)
{
    scope_lock(&image->lock);
    if (image->holes != holes)
        return;
    image->data_from = from;
    image->data_to = to;
}

/* Each seek is a walk, to the end of what it finds, in which the kernel lets nobody write: of data
 * it is made once. */
void image_extent(struct image *image, uint64_t offset, uint64_t end, uint64_t *ret_len,
                  bool *ret_hole)
{
    unsigned holes;

    *ret_len = end - offset;
    *ret_hole = false;
    if (image->device || is_known_data(image, offset, end, ret_len, &holes))
        return;
    off_t data = lseek(image->fd, (off_t)offset, SEEK_DATA);
    if (data < 0) {
        *ret_hole = errno == ENXIO; /* no data from here to the end */
    } else if ((uint64_t)data > offset) {
        *ret_hole = true;
        *ret_len = MIN((uint64_t)data, end) - offset;
    } else {
        off_t hole = lseek(image->fd, (off_t)offset, SEEK_HOLE);
        if (hole > (off_t)offset) {
            *ret_len = MIN((uint64_t)hole, end) - offset;
            note_data(image, offset, (uint64_t)hole, holes);
        }
    }
}
