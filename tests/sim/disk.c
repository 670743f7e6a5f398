#include "disk_internal.h"
#include "sched.h"

#include "../../store/scope.h"

#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

enum { PAGE = 4096, FD_FIRST = 1 << 20, FDS_MAX = 512 };

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

void (*disk_on_sync)(void);

/* A descriptor: of a file, or of the directory `dir`. */
struct handle {
    bool used;
    int machine;
    struct file *file;
    char dir[PATH_BYTES];
};

static struct {
    struct file *files; /* newest first; removed ones too */
    struct handle handles[FDS_MAX];
    char fault_dir[PATH_BYTES];
    const char *fault_name; /* of the file; NULL: of any */
    unsigned fault_one_in, sync_fault_one_in;
} disk;

/* ------------------------------------------------------------------ content */

/* `whole`: all of it will be overwritten. */
static uint8_t *page_of(struct content *c, uint64_t at, bool whole)
{
    size_t i = at / PAGE;

    if (i >= c->npages) {
        size_t n = MAX(2 * c->npages, i + 16);
        c->pages = realloc(c->pages, n * sizeof *c->pages);
        memset(c->pages + c->npages, 0, (n - c->npages) * sizeof *c->pages);
        c->npages = n;
    }
    if (!c->pages[i])
        c->pages[i] = whole ? malloc(PAGE) : calloc(1, PAGE);
    return c->pages[i] + at % PAGE;
}

/* Zeros in [from, to); whole pages go. */
static void content_clear(struct content *c, uint64_t from, uint64_t to)
{
    to = MIN(to, (uint64_t)c->npages * PAGE);
    while (from < to) {
        uint64_t n = MIN(to - from, PAGE - from % PAGE);
        uint8_t **page = &c->pages[from / PAGE];
        if (n == PAGE) {
            free(*page);
            *page = NULL;
        } else if (*page) {
            memset(*page + from % PAGE, 0, n);
        }
        from += n;
    }
}

static void content_write(struct content *c, const uint8_t *from, size_t len, uint64_t at)
{
    c->size = MAX(c->size, at + len);
    while (len > 0) {
        size_t n = MIN(len, (size_t)(PAGE - at % PAGE));
        memcpy(page_of(c, at, n == PAGE), from, n);
        from += n;
        at += n;
        len -= n;
    }
}

static void content_truncate(struct content *c, uint64_t size)
{
    if (size < c->size)
        content_clear(c, size, c->size);
    c->size = size;
}

static void content_free(struct content *c)
{
    for (size_t i = 0; i < c->npages; i++)
        free(c->pages[i]);
    free(c->pages);
    *c = (struct content){0};
}

static void content_copy(struct content *to, const struct content *from)
{
    content_free(to);
    for (size_t i = 0; i < from->npages; i++)
        if (from->pages[i])
            memcpy(page_of(to, i * PAGE, true), from->pages[i], PAGE);
    to->size = from->size;
}

/* ------------------------------------------------------------------ changes */

static void apply(struct content *c, const struct change *ch)
{
    switch (ch->kind) {
    case CHANGE_WRITE:
        content_write(c, ch->bytes, ch->len, ch->offset);
        break;
    case CHANGE_TRUNCATE:
        content_truncate(c, ch->offset);
        break;
    case CHANGE_PUNCH:
        content_clear(c, ch->offset, ch->offset + ch->len);
        break;
    }
}

/* A power cut while it is on its way: each sector arrives, or not. */
static void apply_in_part(struct content *c, const struct change *ch, unsigned percent)
{
    if (ch->kind != CHANGE_WRITE) {
        if (sim_chance(percent, 100))
            apply(c, ch);
        return;
    }
    for (uint64_t at = 0; at < ch->len;) {
        uint64_t n = MIN(ch->len - at, SECTOR - (ch->offset + at) % SECTOR);
        if (sim_chance(percent, 100))
            content_write(c, ch->bytes + at, n, ch->offset + at);
        at += n;
    }
}

static void change(struct file *f, enum change_kind kind, uint64_t offset, uint64_t len,
                   const void *bytes)
{
    struct change ch = {.kind = kind, .number = ++f->last_change, .offset = offset, .len = len};

    if (bytes) {
        ch.bytes = malloc(len + 1);
        memcpy(ch.bytes, bytes, len);
    }
    if (f->nchanges == f->room) {
        f->room = 2 * f->room + 64;
        f->changes = realloc(f->changes, f->room * sizeof *f->changes);
    }
    f->changes[f->nchanges++] = ch;
    apply(&f->now, &ch);
}

static void drop_changes(struct file *f)
{
    for (size_t i = 0; i < f->nchanges; i++)
        free(f->changes[i].bytes);
    f->nchanges = 0;
}

/* ------------------------------------------------------------------ files */

struct file *file_find(const char *path)
{
    for (struct file *f = disk.files; f; f = f->next)
        if (!f->removed && strcmp(f->path, path) == 0)
            return f;
    return NULL;
}

struct file *file_make(const char *path)
{
    struct file *f = calloc(1, sizeof *f);

    if (format(f->path, sizeof f->path, "%s", path) < 0)
        sim_fail("path too long: %s", path);
    f->next = disk.files;
    disk.files = f;
    return f;
}

void file_remove(struct file *f, bool synced)
{
    f->removed = true;
    f->removal_synced = synced;
}

size_t file_read(const struct file *f, void *buf, size_t len, uint64_t offset)
{
    size_t n = offset < f->now.size ? MIN(len, f->now.size - offset) : 0;

    for (size_t done = 0; done < n;) {
        uint64_t at = offset + done;
        size_t piece = MIN(n - done, (size_t)(PAGE - at % PAGE)), i = at / PAGE;
        if (i < f->now.npages && f->now.pages[i])
            memcpy((uint8_t *)buf + done, f->now.pages[i] + at % PAGE, piece);
        else
            memset((uint8_t *)buf + done, 0, piece);
        done += piece;
    }
    return n;
}

void file_write(struct file *f, const void *buf, size_t len, uint64_t offset)
{
    change(f, CHANGE_WRITE, offset, len, buf);
}

void file_truncate(struct file *f, uint64_t size)
{
    change(f, CHANGE_TRUNCATE, size, 0, NULL);
}

static bool is_called(const struct file *f, const char *name)
{
    return strcmp(strrchr(f->path, '/') + 1, name) == 0;
}

/* Only the slots': what the index notices, ends the attachment. */
static bool sync_fault(const struct file *f)
{
    return disk.sync_fault_one_in && is_called(f, "slots") && sim_chance(1, disk.sync_fault_one_in);
}

int file_sync(struct file *f, uint64_t upto)
{
    size_t n = 0;

    while (n < f->nchanges && f->changes[n].number <= upto)
        n++;
    if (disk_fault(f, false) < 0 || sync_fault(f)) {
        for (size_t i = 0; i < n; i++)
            f->changes[i].doubtful = true;
        return -EIO;
    }
    for (size_t i = 0; i < n; i++)
        if (f->changes[i].doubtful)
            return 0; /* what came later is not told from it: all of it may be lost */
    for (size_t i = 0; i < n; i++) {
        apply(&f->synced, &f->changes[i]);
        free(f->changes[i].bytes);
    }
    f->nchanges -= n;
    if (n > 0)
        memmove(f->changes, f->changes + n, f->nchanges * sizeof *f->changes);
    return 0;
}

static bool below(const char *path, const char *dir)
{
    size_t n = strlen(dir);

    return strncmp(path, dir, n) == 0 && (path[n] == '/' || path[n] == '\0');
}

void file_sync_names(const char *dir)
{
    for (struct file *f = disk.files; f; f = f->next)
        if (below(f->path, dir)) {
            f->name_synced = true;
            f->removal_synced = f->removed;
        }
}

int disk_fault(const struct file *f, bool may_be_full)
{
    if (!disk.fault_one_in || !below(f->path, disk.fault_dir) ||
        (disk.fault_name && !is_called(f, disk.fault_name)) || !sim_chance(1, disk.fault_one_in))
        return 0;
    return may_be_full && sim_chance(1, 2) ? -ENOSPC : -EIO;
}

void disk_fail_one_in(const char *dir, const char *name, unsigned n)
{
    (void)snprintf(disk.fault_dir, sizeof disk.fault_dir, "%s", dir);
    disk.fault_name = name;
    disk.fault_one_in = n;
}

void disk_fail_syncs_one_in(unsigned n)
{
    disk.sync_fault_one_in = n;
}

/* ------------------------------------------------------------------ the end of a process, or of
 * power */

void disk_forget_process(int machine)
{
    for (int i = 0; i < FDS_MAX; i++) {
        struct handle *h = &disk.handles[i];
        if (!h->used || h->machine != machine)
            continue;
        if (h->file && h->file->flocked == h)
            h->file->flocked = NULL;
        h->used = false;
    }
}

static unsigned choose_percent(void)
{
    static const unsigned percents[] = {0, 10, 50, 90, 100};

    return percents[sim_below(ARRAY_SIZE(percents))];
}

/* So much of what was not synced is on the disk, and nothing else anywhere. */
static void lose_some(struct file *f, unsigned percent)
{
    for (size_t i = 0; i < f->nchanges; i++)
        apply_in_part(&f->synced, &f->changes[i], percent);
    drop_changes(f);
    content_copy(&f->now, &f->synced);
}

void disk_power_cut(const char *dir)
{
    unsigned percent = choose_percent();

    for (struct file *f = disk.files; f; f = f->next) {
        if (!below(f->path, dir))
            continue;
        if (f->removed && !f->removal_synced && !file_find(f->path) && sim_chance(1, 2))
            f->removed = false;
        if (!f->removed && !f->name_synced && sim_chance(1, 2))
            f->removed = true;
        if (f->removed)
            f->removal_synced = true;
        lose_some(f, percent);
        f->name_synced = true;
    }
}

void disk_remove_all(const char *dir)
{
    for (struct file *f = disk.files; f; f = f->next)
        if (below(f->path, dir))
            file_remove(f, true);
}

/* Something that is there: a page with bytes. */
static uint8_t *some_byte(struct file *f, uint64_t *ret_at)
{
    for (int tries = 0; tries < 100 && f->now.size > 0; tries++) {
        *ret_at = sim_below(f->now.size);
        size_t i = *ret_at / PAGE;
        if (i < f->now.npages && f->now.pages[i])
            return f->now.pages[i] + *ret_at % PAGE;
    }
    return NULL;
}

static bool is_named(const struct file *f, const char *dir, const char *name)
{
    return !f->removed && below(f->path, dir) && is_called(f, name);
}

bool disk_flip(const char *dir, const char *name)
{
    for (struct file *f = disk.files; f; f = f->next) {
        uint8_t *byte, bit = (uint8_t)(1U << sim_below(8));
        uint64_t at;
        if (!is_named(f, dir, name) || !(byte = some_byte(f, &at)))
            continue;
        *byte ^= bit;
        if (at / PAGE < f->synced.npages && f->synced.pages[at / PAGE])
            f->synced.pages[at / PAGE][at % PAGE] ^= bit;
        return true;
    }
    return false;
}

void disk_remove(const char *dir, const char *name)
{
    for (struct file *f = disk.files; f; f = f->next)
        if (is_named(f, dir, name))
            file_remove(f, true);
}

void disk_start(void)
{
    vfs_start();
}

/* ------------------------------------------------------------------ in place of the kernel's */

static int failed(int error)
{
    errno = error;
    return -1;
}

static struct handle *handle_of(int fd)
{
    struct handle *h =
        fd >= FD_FIRST && fd < FD_FIRST + FDS_MAX ? &disk.handles[fd - FD_FIRST] : NULL;

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

    if (!below(path, "/sim"))
        return __real_open64(path, flags, 0600);
    sched_yield_now();
    while (i < FDS_MAX && disk.handles[i].used)
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
        if (h.file->nchanges > 0 && h.file->changes[0].doubtful) /* memory forgets it, some day */
            lose_some(h.file, choose_percent());
    }
    disk.handles[i] = h;
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
    return disk_fault(f, false) < 0 ? failed(EIO) : (ssize_t)file_read(f, buf, len, (uint64_t)at);
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
    (void)mode; /* only holes are punched */
    sched_yield_now();
    struct file *f = handle_of(fd)->file;
    if (disk_fault(f, false) < 0)
        return failed(EIO);
    change(f, CHANGE_PUNCH, (uint64_t)at, (uint64_t)len, NULL);
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

    disk_on_sync();
    sched_sleep_us((int64_t)sim_below(2000));
    int r = file_sync(f, upto);
    disk_on_sync();
    return r < 0 ? failed(EIO) : 0;
}

int __wrap_fsync(int fd)
{
    struct handle *h = handle_of(fd);
    int r = 0;

    disk_on_sync();
    sched_sleep_us((int64_t)sim_below(2000));
    if (h->file)
        r = file_sync(h->file, UINT64_MAX);
    else
        file_sync_names(h->dir);
    disk_on_sync();
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

    if (!below(path, "/sim"))
        return __real_stat64(path, st);
    f = file_find(path);
    *st = (struct stat){.st_size = f ? (off_t)f->now.size : 0};
    return f ? 0 : failed(ENOENT);
}

int __wrap_unlink(const char *path)
{
    struct file *f;

    if (!below(path, "/sim"))
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
    return below(path, "/sim") ? 0 : __real_mkdir(path, mode);
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
    if (!below(path, "/sim"))
        return __real_statvfs64(path, fs);
    *fs = (struct statvfs){.f_bavail = 1 << 20, .f_frsize = PAGE};
    return 0;
}
