/* In place of the kernel's: what the engine calls with a path or a descriptor (SIMWRAP in the
 * Makefile). A path outside of /sim is the real one's. */
#include "disk_internal.h"
#include "sched.h"

#include "../../store/scope.h"

#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

enum { FD_FIRST = 1 << 20, FDS_MAX = 512 };

int __real_open64(const char *, int, ...);
int __real_close(int);
ssize_t __real_pread64(int, void *, size_t, off_t);
ssize_t __real_pwrite64(int, const void *, size_t, off_t);
int __real_stat64(const char *, struct stat *);
int __real_unlink(const char *);
int __real_mkdir(const char *, mode_t);
int __real_statvfs64(const char *, struct statvfs *);
int __wrap_open64(const char *, int, ...);
int __wrap_close(int);
ssize_t __wrap_pread64(int, void *, size_t, off_t);
ssize_t __wrap_pwrite64(int, const void *, size_t, off_t);
int __wrap_fallocate64(int, int, off_t, off_t);
int __wrap_ftruncate64(int, off_t);
int __wrap_fdatasync(int);
int __wrap_fsync(int);
int __wrap_fstat64(int, struct stat *);
int __wrap_stat64(const char *, struct stat *);
int __wrap_unlink(const char *);
int __wrap_mkdir(const char *, mode_t);
int __wrap_flock(int, int);
int __wrap_statvfs64(const char *, struct statvfs *);

void (*disk_on_sync)(bool names);

/* A descriptor: of a file, or of the directory `dir`. */
struct handle {
    bool used;
    int machine;
    struct file *file;
    char dir[PATH_BYTES];
};

static struct handle handles[FDS_MAX];

void disk_start(void)
{
    vfs_start();
}

void disk_forget_process(int machine)
{
    for (int i = 0; i < FDS_MAX; i++) {
        struct handle *h = &handles[i];
        if (!h->used || h->machine != machine)
            continue;
        if (h->file && h->file->flocked == h)
            h->file->flocked = NULL;
        h->used = false;
    }
}

static int failed(int error)
{
    errno = error;
    return -1;
}

static struct handle *handle_of(int fd)
{
    struct handle *h = fd >= FD_FIRST && fd < FD_FIRST + FDS_MAX ? &handles[fd - FD_FIRST] : NULL;

    if (!h || !h->used)
        sim_fail("file descriptor %d is not open", fd);
    return h;
}

/* Mostly it takes no time. */
static void be_slow(void)
{
    if (sim_chance(1, 16))
        sched_sleep_us((int64_t)sim_below(3000));
    else
        sched_yield_now();
}

int __wrap_open64(const char *path, int flags, ...)
{
    int i = 0;

    if (!file_is_below(path, "/sim"))
        return __real_open64(path, flags, 0600);
    sched_yield_now();
    while (i < FDS_MAX && handles[i].used)
        i++;
    if (i == FDS_MAX)
        sim_fail("too many open files");
    struct handle h = {.used = true, .machine = sched_machine()};
    if (flags & O_DIRECTORY) {
        (void)snprintf(h.dir, sizeof h.dir, "%s", path);
    } else {
        h.file = file_find(path);
        if (!h.file && !(flags & O_CREAT))
            return failed(ENOENT);
        if (!h.file)
            h.file = file_make(path);
        if (disk_fault(h.file, false) < 0)
            return failed(EIO);
        file_forget_doubtful(h.file);
    }
    handles[i] = h;
    return FD_FIRST + i;
}

int __wrap_close(int fd)
{
    if (fd < FD_FIRST)
        return __real_close(fd);
    struct handle *h = handle_of(fd);
    if (h->file && h->file->flocked == h)
        h->file->flocked = NULL;
    h->used = false;
    return 0;
}

ssize_t __wrap_pread64(int fd, void *buf, size_t len, off_t at)
{
    if (fd < FD_FIRST)
        return __real_pread64(fd, buf, len, at);
    be_slow();
    struct file *f = handle_of(fd)->file;
    if (disk_fault(f, false) < 0)
        return failed(sim_chance(1, 2) ? EIO : EBADMSG); /* of the file system's own checksums */
    return (ssize_t)file_read(f, buf, len, (uint64_t)at);
}

ssize_t __wrap_pwrite64(int fd, const void *buf, size_t len, off_t at)
{
    if (fd < FD_FIRST)
        return __real_pwrite64(fd, buf, len, at);
    be_slow();
    struct file *f = handle_of(fd)->file;
    int r = disk_fault(f, true);
    size_t n = r < 0 ? sim_below(len / SECTOR + 1) * SECTOR : len; /* it fails half way */
    if (sim_chance(1, 50) && n > SECTOR)
        n = SECTOR; /* a short write */
    if (n > 0)
        file_write(f, buf, n, (uint64_t)at);
    sched_yield_now();
    return r < 0 ? failed(-r) : (ssize_t)n;
}

int __wrap_fallocate64(int fd, int mode, off_t at, off_t len)
{
    sched_yield_now();
    if (!(mode & FALLOC_FL_PUNCH_HOLE)) /* disk space, of which there is enough */
        return 0;
    struct file *f = handle_of(fd)->file;
    if (disk_fault(f, false) < 0)
        return failed(EIO);
    file_punch(f, (uint64_t)at, (uint64_t)len);
    return 0;
}

int __wrap_ftruncate64(int fd, off_t size)
{
    sched_yield_now();
    struct file *f = handle_of(fd)->file;
    if (disk_fault(f, false) < 0)
        return failed(EIO);
    file_truncate(f, (uint64_t)size);
    return 0;
}

int __wrap_fdatasync(int fd)
{
    struct file *f = handle_of(fd)->file;
    uint64_t upto = f->last_change; /* what is written meanwhile is not promised */

    disk_on_sync(false);
    sched_sleep_us((int64_t)sim_below(2000));
    int r = file_sync(f, upto);
    disk_on_sync(false);
    return r < 0 ? failed(EIO) : 0;
}

int __wrap_fsync(int fd)
{
    struct handle *h = handle_of(fd);
    int r = 0;

    disk_on_sync(!h->file);
    sched_sleep_us((int64_t)sim_below(2000));
    if (h->file)
        r = file_sync(h->file, UINT64_MAX);
    else
        file_sync_names(h->dir);
    disk_on_sync(!h->file);
    return r < 0 ? failed(EIO) : 0;
}

int __wrap_fstat64(int fd, struct stat *st)
{
    *st = (struct stat){.st_size = (off_t)handle_of(fd)->file->now.size};
    return 0;
}

int __wrap_stat64(const char *path, struct stat *st)
{
    struct file *f;

    if (!file_is_below(path, "/sim"))
        return __real_stat64(path, st);
    f = file_find(path);
    *st = (struct stat){.st_size = f ? (off_t)f->now.size : 0};
    return f ? 0 : failed(ENOENT);
}

int __wrap_unlink(const char *path)
{
    struct file *f;

    if (!file_is_below(path, "/sim"))
        return __real_unlink(path);
    sched_yield_now();
    f = file_find(path);
    if (!f)
        return failed(ENOENT);
    file_remove(f, false);
    return 0;
}

int __wrap_mkdir(const char *path, mode_t mode)
{
    return file_is_below(path, "/sim") ? 0 : __real_mkdir(path, mode);
}

int __wrap_flock(int fd, int how)
{
    struct handle *h = handle_of(fd);

    (void)how; /* exclusive, without waiting */
    if (h->file->flocked && h->file->flocked != h)
        return failed(EWOULDBLOCK);
    h->file->flocked = h;
    return 0;
}

int __wrap_statvfs64(const char *path, struct statvfs *fs)
{
    if (!file_is_below(path, "/sim"))
        return __real_statvfs64(path, fs);
    *fs = (struct statvfs){.f_bavail = 1 << 20, .f_frsize = PAGE};
    return 0;
}
