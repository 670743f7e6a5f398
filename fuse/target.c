#include "target.h"

#include "../store/bytes.h"
#include "../store/msg.h"
#include "../store/scope.h"

#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <limits.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

enum { BLOCK = 4096 };

enum kind { TARGET_FILE, TARGET_DEVICE, TARGET_STREAM };

struct target {
    const char *name;
    enum kind kind;
    int fd;
    bool force;
    uint64_t size_bytes;
    uint64_t at;                         /* written up to here */
    char path[PATH_MAX], part[PATH_MAX]; /* of a file; and what it is called until it is whole */
    bool finished;
};

static int failed(const char *name)
{
    int err = errno;

    return msg_error(-err, "%s: %s", name, strerror(err));
}

/* ---------------------------------------------------------------------------- opening */

static int look_at(const char *name, bool force, enum kind *ret_kind)
{
    struct stat st;

    *ret_kind = TARGET_FILE;
    if (strcmp(name, "-") == 0) {
        *ret_kind = TARGET_STREAM;
        return isatty(STDOUT_FILENO)
                   ? msg_error(-EINVAL, "standard output is a terminal: lead it elsewhere")
                   : 0;
    }
    if (stat(name, &st) < 0)
        return errno == ENOENT ? 0 : failed(name);
    if (S_ISREG(st.st_mode) && !force)
        return msg_error(-EEXIST, "%s: is there already; --force replaces it", name);
    if (S_ISBLK(st.st_mode) && !force)
        return msg_error(-EEXIST, "%s: is a block device; --force overwrites what is on it", name);
    if (S_ISDIR(st.st_mode))
        return msg_error(-EISDIR, "%s: is a directory; name a file", name);
    *ret_kind = S_ISREG(st.st_mode)   ? TARGET_FILE
                : S_ISBLK(st.st_mode) ? TARGET_DEVICE
                                      : TARGET_STREAM;
    return 0;
}

int target_check(const char *name, bool force)
{
    enum kind kind;

    return look_at(name, force, &kind);
}

/* One export at a time writes the part; what one that was killed has left is begun anew. */
static int lock_part(struct target *t)
{
    struct stat here, there;

    if (flock(t->fd, LOCK_EX | LOCK_NB) == 0 && fstat(t->fd, &here) == 0 &&
        stat(t->part, &there) == 0 && here.st_dev == there.st_dev && here.st_ino == there.st_ino)
        return 0;
    close(t->fd);
    t->fd = -1;
    return msg_error(-EBUSY, "%s: another export is writing it", t->part);
}

static int open_file(struct target *t)
{
    char real[PATH_MAX];
    int r = format(t->path, sizeof t->path, "%s", realpath(t->name, real) ? real : t->name);

    if (r == 0)
        r = format(t->part, sizeof t->part, "%s.s3vol-part", t->path);
    if (r < 0)
        return msg_error(r, "%.100s…: the path is too long", t->name);
    t->fd = open(t->part, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (t->fd < 0)
        return failed(t->part);
    r = lock_part(t);
    if (r < 0)
        return r;
    if (ftruncate(t->fd, 0) < 0 || ftruncate(t->fd, (off_t)t->size_bytes) < 0)
        return failed(t->name);
    return 0;
}

/* Refused by the kernel if it is mounted, or part of something else. */
static int open_device(struct target *t)
{
    uint64_t size;

    t->fd = open(t->name, O_RDWR | O_EXCL | O_CLOEXEC);
    if (t->fd < 0 || ioctl(t->fd, BLKGETSIZE64, &size) < 0)
        return failed(t->name);
    if (size < t->size_bytes)
        return msg_error(-ENOSPC, "%s: has %" PRIu64 " bytes, the volume %" PRIu64, t->name, size,
                         t->size_bytes);
    return 0;
}

static int open_stream(struct target *t)
{
    bool standard = strcmp(t->name, "-") == 0;

    t->fd = standard ? dup(STDOUT_FILENO) : open(t->name, O_WRONLY | O_CLOEXEC);
    if (standard)
        t->name = "standard output";
    return t->fd < 0 ? failed(t->name) : 0;
}

int target_open(const char *name, uint64_t size_bytes, bool force, struct target **ret)
{
    struct target *t = calloc(1, sizeof *t);
    int r;

    if (!t)
        return -ENOMEM;
    *t = (struct target){.name = name, .fd = -1, .force = force, .size_bytes = size_bytes};
    r = look_at(name, force, &t->kind);
    if (r == 0)
        r = t->kind == TARGET_FILE     ? open_file(t)
            : t->kind == TARGET_DEVICE ? open_device(t)
                                       : open_stream(t);
    if (r < 0) {
        target_free(t);
        return r;
    }
    *ret = t;
    return 0;
}

void target_free(struct target *t)
{
    if (!t)
        return;
    if (t->kind == TARGET_FILE && t->fd >= 0 && !t->finished)
        (void)unlink(t->part);
    if (t->fd >= 0)
        close(t->fd);
    free(t);
}

/* ---------------------------------------------------------------------------- writing */

static int write_all(struct target *t, const uint8_t *p, size_t len, uint64_t offset)
{
    while (len > 0) {
        ssize_t n =
            t->kind == TARGET_STREAM ? write(t->fd, p, len) : pwrite(t->fd, p, len, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return failed(t->name);
        p += n;
        len -= (size_t)n;
        offset += (uint64_t)n;
    }
    return 0;
}

static int write_zeros(struct target *t, uint64_t len)
{
    static const uint8_t zeros[16 * BLOCK];
    int r = 0;

    while (len > 0 && r == 0) {
        size_t n = MIN(len, sizeof zeros);
        r = write_all(t, zeros, n, t->at);
        t->at += n;
        len -= n;
    }
    return r;
}

/* What is not written until `end` is zeros. */
static int fill_up(struct target *t, uint64_t end)
{
    uint64_t len = end - t->at;

    if (len == 0)
        return 0;
    if (t->kind == TARGET_STREAM || (t->kind == TARGET_DEVICE &&
                                     fallocate(t->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                               (off_t)t->at, (off_t)len) < 0 &&
                                     fallocate(t->fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
                                               (off_t)t->at, (off_t)len) < 0))
        return write_zeros(t, len);
    t->at = end;
    return 0;
}

/* Blocks with something in them, of a file that has holes in place of the others. */
static int write_sparse(struct target *t, const uint8_t *p, size_t len, uint64_t offset,
                        uint64_t *ret_bytes)
{
    uint64_t bytes = 0;
    int r = 0;

    for (size_t at = 0, end; at < len && r == 0; at = end) {
        bool zero = all_zero(p + at, MIN(len - at, (size_t)BLOCK));
        for (end = at + BLOCK; end < len; end += BLOCK)
            if (all_zero(p + end, MIN(len - end, (size_t)BLOCK)) != zero)
                break;
        end = MIN(end, len);
        if (!zero)
            r = write_all(t, p + at, end - at, offset + at);
        bytes += zero ? 0 : end - at;
    }
    *ret_bytes = bytes;
    return r;
}

int target_write(struct target *t, const void *buf, size_t len, uint64_t offset,
                 uint64_t *ret_bytes)
{
    int r = fill_up(t, offset);

    if (r < 0)
        return r;
    *ret_bytes = len;
    r = t->kind == TARGET_FILE ? write_sparse(t, buf, len, offset, ret_bytes)
                               : write_all(t, buf, len, offset);
    t->at = offset + len;
    return r;
}

/* ---------------------------------------------------------------------------- the end */

/* A pipe has nothing to sync. */
static int sync_all(struct target *t)
{
    if (fsync(t->fd) < 0 && !(t->kind == TARGET_STREAM && (errno == EINVAL || errno == EROFS)))
        return failed(t->name);
    return 0;
}

static int sync_dir_of(struct target *t)
{
    char path[PATH_MAX];

    memcpy(path, t->path, sizeof path);
    scope_close int dir = open(dirname(path), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return dir < 0 || fsync(dir) < 0 ? failed(t->path) : 0;
}

static int give_name(struct target *t)
{
    unsigned flags = t->force ? 0 : RENAME_NOREPLACE;
    int r = renameat2(AT_FDCWD, t->part, AT_FDCWD, t->path, flags);

    if (r < 0 && flags && errno == EINVAL) /* this file system cannot do it */
        r = access(t->path, F_OK) == 0 ? (errno = EEXIST, -1) : rename(t->part, t->path);
    if (r < 0)
        return failed(t->path);
    t->finished = true;
    return sync_dir_of(t);
}

int target_finish(struct target *t)
{
    int r = fill_up(t, t->size_bytes);

    if (r == 0)
        r = sync_all(t);
    return r == 0 && t->kind == TARGET_FILE ? give_name(t) : r;
}
