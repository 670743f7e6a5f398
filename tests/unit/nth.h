/*
 * The Nth call of some kind fails: the linker sends the engine's calls here (the Makefile's
 * NTHWRAP), SQLite's come through its VFS and its allocator. Nothing fails while it is not armed.
 * For one test program, which includes this before everything else: its own memory never fails.
 */
#ifndef NTH_H
#define NTH_H

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum nth_kind {
    NTH_FILE,      /* a file operation of the cache directory, but those of SQLite */
    NTH_LARGE,     /* a write of 64 KiB or more, in one call */
    NTH_READ,      /* a read of the slots gives back other bytes than were written */
    NTH_DB,        /* SQLite writes, syncs or truncates */
    NTH_STORE,     /* a request, for good */
    NTH_MEMORY,    /* the engine's, and a new thread's */
    NTH_DB_MEMORY, /* SQLite's */
};

enum { NTH_FULL = 60 };

static struct {
    enum nth_kind kind;
    int error; /* EIO, ENOSPC, where there is a choice */
    bool all;  /* all that follow fail, too; of a full disk so many: what waits for space goes on */
    atomic_long left; /* calls of this kind until the one that fails */
    atomic_bool armed;
} nth;

/* From now on the `n`th call of the kind fails, counted from 1. */
static void nth_arm(enum nth_kind kind, int error, bool all, long n)
{
    nth.kind = kind;
    nth.error = error;
    nth.all = all;
    nth.left = n;
    nth.armed = true;
}

/* Whether it was reached. */
static bool nth_disarm(void)
{
    nth.armed = false;
    return nth.left <= 0;
}

static bool nth_fails(enum nth_kind kind)
{
    if (!nth.armed || nth.kind != kind)
        return false;
    long left = atomic_fetch_sub(&nth.left, 1);
    return left == 1 || (left < 1 && nth.all && (nth.error != ENOSPC || left > -NTH_FULL));
}

/* ------------------------------------------------------------------ files */

#define WRAP_FILE(type, name, params, ...)                                                         \
    type __real_##name params;                                                                     \
    type __wrap_##name params;                                                                     \
    type __wrap_##name params                                                                      \
    {                                                                                              \
        if (!nth_fails(NTH_FILE))                                                                  \
            return __real_##name(__VA_ARGS__);                                                     \
        errno = nth.error;                                                                         \
        return -1;                                                                                 \
    }

WRAP_FILE(int, fallocate64, (int fd, int mode, off_t at, off_t n), fd, mode, at, n)
WRAP_FILE(int, ftruncate64, (int fd, off_t size), fd, size)
WRAP_FILE(int, fdatasync, (int fd), fd)
WRAP_FILE(int, fsync, (int fd), fd)
WRAP_FILE(int, unlink, (const char *path), path)
WRAP_FILE(int, mkdir, (const char *path, mode_t mode), path, mode)
WRAP_FILE(int, flock, (int fd, int how), fd, how)

ssize_t __real_pwrite64(int fd, const void *buf, size_t n, off_t at);
ssize_t __wrap_pwrite64(int fd, const void *buf, size_t n, off_t at);
ssize_t __wrap_pwrite64(int fd, const void *buf, size_t n, off_t at)
{
    if (!nth_fails(NTH_FILE) && (n < 65536 || !nth_fails(NTH_LARGE)))
        return __real_pwrite64(fd, buf, n, at);
    errno = nth.error;
    return -1;
}

ssize_t __real_pread64(int fd, void *buf, size_t n, off_t at);
ssize_t __wrap_pread64(int fd, void *buf, size_t n, off_t at);
ssize_t __wrap_pread64(int fd, void *buf, size_t n, off_t at)
{
    if (nth_fails(NTH_FILE)) {
        errno = nth.error;
        return -1;
    }
    ssize_t got = __real_pread64(fd, buf, n, at);
    if (got > 0 && nth_fails(NTH_READ))
        ((char *)buf)[got / 2] ^= 4;
    return got;
}

int __real_open64(const char *path, int flags, ...);
int __wrap_open64(const char *path, int flags, ...);
int __wrap_open64(const char *path, int flags, ...)
{
    va_list ap;

    va_start(ap, flags);
    mode_t mode = flags & O_CREAT ? va_arg(ap, mode_t) : 0;
    va_end(ap);
    if (!nth_fails(NTH_FILE))
        return __real_open64(path, flags, mode);
    errno = nth.error;
    return -1;
}

/* ------------------------------------------------------------------ memory */

#define WRAP_MEMORY(name, params, ...)                                                             \
    void *__real_##name params;                                                                    \
    void *__wrap_##name params;                                                                    \
    void *__wrap_##name params                                                                     \
    {                                                                                              \
        if (!nth_fails(NTH_MEMORY))                                                                \
            return __real_##name(__VA_ARGS__);                                                     \
        errno = ENOMEM;                                                                            \
        return NULL;                                                                               \
    }

WRAP_MEMORY(malloc, (size_t n), n)
WRAP_MEMORY(calloc, (size_t n, size_t size), n, size)
WRAP_MEMORY(realloc, (void *old, size_t n), old, n)
WRAP_MEMORY(aligned_alloc, (size_t align, size_t n), align, n)

int __real_pthread_create(pthread_t *t, const pthread_attr_t *attr, void *(*fn)(void *), void *arg);
int __wrap_pthread_create(pthread_t *t, const pthread_attr_t *attr, void *(*fn)(void *), void *arg);
int __wrap_pthread_create(pthread_t *t, const pthread_attr_t *attr, void *(*fn)(void *), void *arg)
{
    return nth_fails(NTH_MEMORY) ? EAGAIN : __real_pthread_create(t, attr, fn, arg);
}

/* What the test itself allocates. */
#define malloc(n)               __real_malloc(n)
#define calloc(n, size)         __real_calloc(n, size)
#define realloc(old, n)         __real_realloc(old, n)
#define aligned_alloc(align, n) __real_aligned_alloc(align, n)
#define pthread_create(...)     __real_pthread_create(__VA_ARGS__)

/* ------------------------------------------------------------------ SQLite */

static sqlite3_mem_methods nth_sqlite_memory;

static void *nth_sqlite_malloc(int n)
{
    return nth_fails(NTH_DB_MEMORY) ? NULL : nth_sqlite_memory.xMalloc(n);
}

static void *nth_sqlite_realloc(void *old, int n)
{
    return nth_fails(NTH_DB_MEMORY) ? NULL : nth_sqlite_memory.xRealloc(old, n);
}

/* A file's methods are SQLite's own, but for some. */
struct nth_methods {
    sqlite3_io_methods ours;
    const sqlite3_io_methods *real;
};

static const sqlite3_io_methods *nth_real(sqlite3_file *f)
{
    return ((const struct nth_methods *)(const void *)f->pMethods)->real;
}

static int nth_db_error(int code)
{
    return nth.error == ENOSPC ? SQLITE_FULL : code;
}

static int nth_db_write(sqlite3_file *f, const void *buf, int n, sqlite3_int64 at)
{
    return nth_fails(NTH_DB) ? nth_db_error(SQLITE_IOERR_WRITE)
                             : nth_real(f)->xWrite(f, buf, n, at);
}

static int nth_db_sync(sqlite3_file *f, int flags)
{
    return nth_fails(NTH_DB) ? nth_db_error(SQLITE_IOERR_FSYNC) : nth_real(f)->xSync(f, flags);
}

static int nth_db_truncate(sqlite3_file *f, sqlite3_int64 size)
{
    return nth_fails(NTH_DB) ? nth_db_error(SQLITE_IOERR_TRUNCATE)
                             : nth_real(f)->xTruncate(f, size);
}

static sqlite3_vfs nth_vfs, *nth_real_vfs;

static int nth_db_open(sqlite3_vfs *vfs, sqlite3_filename name, sqlite3_file *f, int flags,
                       int *ret_flags)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static struct nth_methods known[8];
    size_t i = 0;

    (void)vfs;
    if (nth_fails(NTH_DB)) {
        f->pMethods = NULL;
        return SQLITE_CANTOPEN;
    }
    int r = nth_real_vfs->xOpen(nth_real_vfs, name, f, flags, ret_flags);
    if (r != SQLITE_OK || !f->pMethods)
        return r;
    pthread_mutex_lock(&lock);
    while (known[i].real && known[i].real != f->pMethods)
        i++;
    if (!known[i].real) {
        known[i].ours = *f->pMethods;
        known[i].ours.xWrite = nth_db_write;
        known[i].ours.xSync = nth_db_sync;
        known[i].ours.xTruncate = nth_db_truncate;
        known[i].real = f->pMethods;
    }
    f->pMethods = &known[i].ours;
    pthread_mutex_unlock(&lock);
    return r;
}

/* Before anything opens a database. */
static void nth_init(void)
{
    sqlite3_mem_methods memory;

    sqlite3_config(SQLITE_CONFIG_GETMALLOC, &nth_sqlite_memory);
    memory = nth_sqlite_memory;
    memory.xMalloc = nth_sqlite_malloc;
    memory.xRealloc = nth_sqlite_realloc;
    sqlite3_config(SQLITE_CONFIG_MALLOC, &memory);
    sqlite3_initialize();
    nth_real_vfs = sqlite3_vfs_find(NULL);
    nth_vfs = *nth_real_vfs;
    nth_vfs.zName = "nth";
    nth_vfs.xOpen = nth_db_open;
    sqlite3_vfs_register(&nth_vfs, 1);
}

#endif
