/* SQLite's VFS over disk.c's files (sqlite.org/vfs.html): it runs for real, on a disk that can be
 * cut off. */
#include "disk_internal.h"
#include "sched.h"

#include "../../store/scope.h"

#include <sqlite3.h>
#include <string.h>

enum { REGIONS_MAX = 16 };

/* Of one database file, while processes have it open. */
struct vfs_state {
    int machine;
    int shared, reserved, exclusive; /* holders */
    void *regions[REGIONS_MAX];
    int shm_shared[SQLITE_SHM_NLOCK], shm_exclusive[SQLITE_SHM_NLOCK];
};

struct vfs_file {
    sqlite3_file base;
    struct file *file;
    struct vfs_state *state;
    bool new_journal; /* its first sync is also the directory's, as in SQLite's own for Unix */
    int level;        /* SQLITE_LOCK_… */
    unsigned shm_shared, shm_exclusive;
};

static struct vfs_file *of(sqlite3_file *f)
{
    return (struct vfs_file *)f;
}

/* A new process is a new machine, and finds no locks. */
static struct vfs_state *state_of(struct file *f)
{
    if (!f->vfs || f->vfs->machine != sched_machine()) {
        f->vfs = calloc(1, sizeof *f->vfs);
        f->vfs->machine = sched_machine();
    }
    return f->vfs;
}

/* ------------------------------------------------------------------ bytes */

static int vfs_read(sqlite3_file *sf, void *buf, int len, sqlite3_int64 at)
{
    struct file *f = of(sf)->file;

    if (disk_fault(f, false) < 0)
        return SQLITE_IOERR_READ;
    size_t n = file_read(f, buf, (size_t)len, (uint64_t)at);
    memset((uint8_t *)buf + n, 0, (size_t)len - n);
    return n < (size_t)len ? SQLITE_IOERR_SHORT_READ : SQLITE_OK;
}

static int vfs_write(sqlite3_file *sf, const void *buf, int len, sqlite3_int64 at)
{
    int r = disk_fault(of(sf)->file, true);

    sched_yield_now();
    if (r < 0)
        return r == -ENOSPC ? SQLITE_FULL : SQLITE_IOERR_WRITE;
    file_write(of(sf)->file, buf, (size_t)len, (uint64_t)at);
    return SQLITE_OK;
}

static int vfs_truncate(sqlite3_file *sf, sqlite3_int64 size)
{
    sched_yield_now();
    file_truncate(of(sf)->file, (uint64_t)size);
    return SQLITE_OK;
}

static int vfs_sync(sqlite3_file *sf, int flags)
{
    struct vfs_file *f = of(sf);
    char dir[PATH_BYTES];

    (void)flags;
    disk_on_sync(false);
    sched_sleep_us((int64_t)sim_below(1000));
    int r = file_sync(f->file, UINT64_MAX);
    if (r == 0 && f->new_journal) {
        (void)snprintf(dir, sizeof dir, "%s", f->file->path);
        *strrchr(dir, '/') = 0;
        file_sync_names(dir);
        f->new_journal = false;
    }
    disk_on_sync(false);
    return r < 0 ? SQLITE_IOERR_FSYNC : SQLITE_OK;
}

static int vfs_size(sqlite3_file *sf, sqlite3_int64 *ret)
{
    *ret = (sqlite3_int64)of(sf)->file->now.size;
    return SQLITE_OK;
}

/* ------------------------------------------------------------------ locks */

static int vfs_lock(sqlite3_file *sf, int level)
{
    struct vfs_file *f = of(sf);
    struct vfs_state *s = f->state;

    if (level <= f->level)
        return SQLITE_OK;
    if (level == SQLITE_LOCK_SHARED) {
        if (s->exclusive)
            return SQLITE_BUSY;
        s->shared++;
    } else if (level == SQLITE_LOCK_RESERVED) {
        if (s->reserved)
            return SQLITE_BUSY;
        s->reserved = 1;
    } else {
        if (s->shared > 1 || (s->reserved && f->level < SQLITE_LOCK_RESERVED))
            return SQLITE_BUSY;
        s->reserved = s->exclusive = 1;
    }
    f->level = level;
    return SQLITE_OK;
}

static int vfs_unlock(sqlite3_file *sf, int level)
{
    struct vfs_file *f = of(sf);
    struct vfs_state *s = f->state;

    if (f->level > SQLITE_LOCK_RESERVED && level <= SQLITE_LOCK_RESERVED)
        s->exclusive = 0;
    if (f->level >= SQLITE_LOCK_RESERVED && level < SQLITE_LOCK_RESERVED)
        s->reserved = 0;
    if (f->level >= SQLITE_LOCK_SHARED && level < SQLITE_LOCK_SHARED)
        s->shared--;
    f->level = MIN(f->level, level);
    return SQLITE_OK;
}

static int vfs_close(sqlite3_file *sf)
{
    return vfs_unlock(sf, SQLITE_LOCK_NONE);
}

static int vfs_check_reserved(sqlite3_file *sf, int *ret)
{
    *ret = of(sf)->state->reserved;
    return SQLITE_OK;
}

static int vfs_control(sqlite3_file *sf, int op, void *arg)
{
    (void)sf, (void)op, (void)arg;
    return SQLITE_NOTFOUND;
}

static int vfs_sector(sqlite3_file *sf)
{
    (void)sf;
    return SECTOR;
}

static int vfs_device(sqlite3_file *sf)
{
    (void)sf;
    return SQLITE_IOCAP_POWERSAFE_OVERWRITE; /* as SQLite's own for Unix says */
}

/* ------------------------------------------------------------------ shared memory */

static int vfs_shm_map(sqlite3_file *sf, int i, int bytes, int extend, void volatile **ret)
{
    struct vfs_state *s = of(sf)->state;

    if (i >= REGIONS_MAX)
        return SQLITE_IOERR_SHMMAP;
    if (!s->regions[i] && extend)
        s->regions[i] = calloc(1, (size_t)bytes);
    *ret = s->regions[i];
    return SQLITE_OK;
}

static int vfs_shm_lock(sqlite3_file *sf, int first, int n, int flags)
{
    struct vfs_file *f = of(sf);
    struct vfs_state *s = f->state;
    unsigned mask = ((1U << n) - 1) << first;

    if (flags & SQLITE_SHM_UNLOCK) {
        for (int i = first; i < first + n; i++) {
            s->shm_shared[i] -= f->shm_shared >> i & 1;
            s->shm_exclusive[i] -= f->shm_exclusive >> i & 1;
        }
        f->shm_shared &= ~mask;
        f->shm_exclusive &= ~mask;
        return SQLITE_OK;
    }
    for (int i = first; i < first + n; i++) {
        bool mine = f->shm_shared >> i & 1;
        if (s->shm_exclusive[i] && !(f->shm_exclusive >> i & 1))
            return SQLITE_BUSY;
        if (flags & SQLITE_SHM_EXCLUSIVE && s->shm_shared[i] > mine)
            return SQLITE_BUSY;
    }
    unsigned *held = flags & SQLITE_SHM_SHARED ? &f->shm_shared : &f->shm_exclusive;
    int *count = flags & SQLITE_SHM_SHARED ? s->shm_shared : s->shm_exclusive;
    for (int i = first; i < first + n; i++)
        count[i] += !(*held >> i & 1);
    *held |= mask;
    return SQLITE_OK;
}

static void vfs_shm_barrier(sqlite3_file *sf)
{
    (void)sf;
}

static int vfs_shm_unmap(sqlite3_file *sf, int delete)
{
    struct vfs_state *s = of(sf)->state;

    for (int i = 0; delete &&i < REGIONS_MAX; i++) {
        free(s->regions[i]);
        s->regions[i] = NULL;
    }
    return SQLITE_OK;
}

/* ------------------------------------------------------------------ files */

static const sqlite3_io_methods methods = {
    .iVersion = 2,
    .xClose = vfs_close,
    .xRead = vfs_read,
    .xWrite = vfs_write,
    .xTruncate = vfs_truncate,
    .xSync = vfs_sync,
    .xFileSize = vfs_size,
    .xLock = vfs_lock,
    .xUnlock = vfs_unlock,
    .xCheckReservedLock = vfs_check_reserved,
    .xFileControl = vfs_control,
    .xSectorSize = vfs_sector,
    .xDeviceCharacteristics = vfs_device,
    .xShmMap = vfs_shm_map,
    .xShmLock = vfs_shm_lock,
    .xShmBarrier = vfs_shm_barrier,
    .xShmUnmap = vfs_shm_unmap,
};

static int vfs_open(sqlite3_vfs *vfs, const char *path, sqlite3_file *sf, int flags, int *ret_flags)
{
    struct vfs_file *f = of(sf);

    (void)vfs;
    memset(f, 0, sizeof *f);
    if (!path)
        return SQLITE_CANTOPEN; /* temporary files are kept in memory */
    f->file = file_find(path);
    if (!f->file && !(flags & SQLITE_OPEN_CREATE))
        return SQLITE_CANTOPEN;
    if (!f->file) {
        f->file = file_make(path);
        f->new_journal = flags & (SQLITE_OPEN_MAIN_JOURNAL | SQLITE_OPEN_WAL);
    }
    f->state = state_of(f->file);
    f->base.pMethods = &methods;
    if (ret_flags)
        *ret_flags = flags;
    return SQLITE_OK;
}

static int vfs_delete(sqlite3_vfs *vfs, const char *path, int sync_dir)
{
    struct file *f = file_find(path);

    (void)vfs;
    sched_yield_now();
    if (!f)
        return SQLITE_IOERR_DELETE_NOENT;
    file_remove(f, sync_dir != 0);
    return SQLITE_OK;
}

static int vfs_access(sqlite3_vfs *vfs, const char *path, int flags, int *ret)
{
    const struct file *f = file_find(path);

    (void)vfs;
    *ret = f && (flags != SQLITE_ACCESS_EXISTS || f->now.size > 0);
    return SQLITE_OK;
}

static int vfs_full_path(sqlite3_vfs *vfs, const char *path, int n, char *ret)
{
    (void)vfs;
    return format(ret, (size_t)n, "%s", path) < 0 ? SQLITE_CANTOPEN : SQLITE_OK;
}

static int vfs_random(sqlite3_vfs *vfs, int n, char *ret)
{
    (void)vfs;
    for (int i = 0; i < n; i++)
        ret[i] = (char)sim_random();
    return n;
}

static int vfs_sleep(sqlite3_vfs *vfs, int us)
{
    (void)vfs;
    sched_sleep_us(us);
    return us;
}

static int vfs_time(sqlite3_vfs *vfs, sqlite3_int64 *ret)
{
    (void)vfs;
    *ret = 210866760000000 + sim_clock.wall_ms();
    return SQLITE_OK;
}

static int vfs_last_error(sqlite3_vfs *vfs, int n, char *ret)
{
    (void)vfs, (void)n, (void)ret;
    return 0;
}

void vfs_start(void)
{
    static sqlite3_vfs vfs = {
        .iVersion = 2,
        .szOsFile = sizeof(struct vfs_file),
        .mxPathname = PATH_BYTES,
        .zName = "sim",
        .xOpen = vfs_open,
        .xDelete = vfs_delete,
        .xAccess = vfs_access,
        .xFullPathname = vfs_full_path,
        .xRandomness = vfs_random,
        .xSleep = vfs_sleep,
        .xGetLastError = vfs_last_error,
        .xCurrentTimeInt64 = vfs_time,
    };

    if (sqlite3_vfs_register(&vfs, 1) != SQLITE_OK)
        sim_fail("SQLite does not take the VFS");
}
