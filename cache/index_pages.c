#include "index_pages.h"

#include "../store/bytes.h"
#include "../store/crc32c.h"

#include <pthread.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <string.h>

enum { SUMMED_BYTES = INDEX_PAGE_BYTES - INDEX_PAGE_RESERVED, HEADER_BYTES = 100 };

/* Behind it, in the same memory, is the file of the VFS below. */
struct file {
    sqlite3_file base;
    sqlite3_file *below;
    bool wal; /* has no pages */
    bool sync_failed;
};

static sqlite3_vfs vfs, *parent;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static sqlite3_file *below(sqlite3_file *f)
{
    return ((struct file *)f)->below;
}

/* ------------------------------------------------------------------ pages */

static bool is_page(int len, sqlite3_int64 at)
{
    return len == INDEX_PAGE_BYTES && at % INDEX_PAGE_BYTES == 0;
}

static uint64_t sum_of(const uint8_t *page, sqlite3_int64 at)
{
    uint8_t number[8];

    put_le64(number, (uint64_t)at);
    return crc32c(crc32c(0, number, sizeof number), page, SUMMED_BYTES);
}

static int file_read(sqlite3_file *f, void *buf, int len, sqlite3_int64 at)
{
    int r = below(f)->pMethods->xRead(below(f), buf, len, at);

    if (((struct file *)f)->wal || at + len <= HEADER_BYTES)
        return r; /* looked at before anything is known, and read again with its page */
    if (r == SQLITE_IOERR_SHORT_READ || !is_page(len, at))
        return SQLITE_IOERR_DATA; /* cut off; or the header tells of another size of pages */
    if (r == SQLITE_OK && get_le64((uint8_t *)buf + SUMMED_BYTES) != sum_of(buf, at))
        return SQLITE_IOERR_DATA;
    return r;
}

static int file_write(sqlite3_file *f, const void *buf, int len, sqlite3_int64 at)
{
    uint8_t page[INDEX_PAGE_BYTES];

    if (((struct file *)f)->wal)
        return below(f)->pMethods->xWrite(below(f), buf, len, at);
    if (!is_page(len, at))
        return SQLITE_IOERR_DATA;
    memcpy(page, buf, SUMMED_BYTES);
    put_le64(page + SUMMED_BYTES, sum_of(page, at));
    return below(f)->pMethods->xWrite(below(f), page, len, at);
}

/* ------------------------------------------------------------------ passed on */

static int file_close(sqlite3_file *f)
{
    return below(f)->pMethods->xClose(below(f));
}

static int file_truncate(sqlite3_file *f, sqlite3_int64 size)
{
    return below(f)->pMethods->xTruncate(below(f), size);
}

/* The next one might say that all is well although it is not. */
static int file_sync(sqlite3_file *f, int flags)
{
    struct file *file = (struct file *)f;

    if (file->sync_failed)
        return SQLITE_IOERR_FSYNC;
    int r = below(f)->pMethods->xSync(below(f), flags);
    file->sync_failed = r != SQLITE_OK;
    return r;
}

static int file_size(sqlite3_file *f, sqlite3_int64 *ret_size)
{
    return below(f)->pMethods->xFileSize(below(f), ret_size);
}

static int file_lock(sqlite3_file *f, int level)
{
    return below(f)->pMethods->xLock(below(f), level);
}

static int file_unlock(sqlite3_file *f, int level)
{
    return below(f)->pMethods->xUnlock(below(f), level);
}

static int file_check_reserved(sqlite3_file *f, int *ret_reserved)
{
    return below(f)->pMethods->xCheckReservedLock(below(f), ret_reserved);
}

static int file_control(sqlite3_file *f, int op, void *arg)
{
    return below(f)->pMethods->xFileControl(below(f), op, arg);
}

static int file_sector(sqlite3_file *f)
{
    return below(f)->pMethods->xSectorSize(below(f));
}

static int file_device(sqlite3_file *f)
{
    return below(f)->pMethods->xDeviceCharacteristics(below(f));
}

static int file_shm_map(sqlite3_file *f, int page, int bytes, int extend, void volatile **ret)
{
    return below(f)->pMethods->xShmMap(below(f), page, bytes, extend, ret);
}

static int file_shm_lock(sqlite3_file *f, int first, int n, int flags)
{
    return below(f)->pMethods->xShmLock(below(f), first, n, flags);
}

static void file_shm_barrier(sqlite3_file *f)
{
    below(f)->pMethods->xShmBarrier(below(f));
}

static int file_shm_unmap(sqlite3_file *f, int remove)
{
    return below(f)->pMethods->xShmUnmap(below(f), remove);
}

static const sqlite3_io_methods methods = {
    .iVersion = 2, /* without mapped pages, which nobody would compare */
    .xClose = file_close,
    .xRead = file_read,
    .xWrite = file_write,
    .xTruncate = file_truncate,
    .xSync = file_sync,
    .xFileSize = file_size,
    .xLock = file_lock,
    .xUnlock = file_unlock,
    .xCheckReservedLock = file_check_reserved,
    .xFileControl = file_control,
    .xSectorSize = file_sector,
    .xDeviceCharacteristics = file_device,
    .xShmMap = file_shm_map,
    .xShmLock = file_shm_lock,
    .xShmBarrier = file_shm_barrier,
    .xShmUnmap = file_shm_unmap,
};

/* Only the database itself and its -wal are seen by us. */
static int vfs_open(sqlite3_vfs *v, const char *name, sqlite3_file *f, int flags, int *ret_flags)
{
    struct file *file = (struct file *)f;

    (void)v;
    if (!(flags & (SQLITE_OPEN_MAIN_DB | SQLITE_OPEN_WAL)))
        return parent->xOpen(parent, name, f, flags, ret_flags);
    *file = (struct file){.below = (sqlite3_file *)(file + 1), .wal = flags & SQLITE_OPEN_WAL};
    int r = parent->xOpen(parent, name, file->below, flags, ret_flags);
    if (r == SQLITE_OK)
        f->pMethods = &methods;
    return r;
}

static void make_vfs(void)
{
    parent = sqlite3_vfs_find(NULL);
    if (!parent)
        return;
    vfs = *parent;
    vfs.pNext = NULL;
    vfs.zName = "s3vol";
    vfs.szOsFile = (int)sizeof(struct file) + parent->szOsFile;
    vfs.xOpen = vfs_open;
    if (sqlite3_vfs_register(&vfs, 0) != SQLITE_OK)
        vfs.zName = NULL;
}

const char *index_pages_vfs(void)
{
    pthread_once(&once, make_vfs);
    return vfs.zName;
}
