#include "dir_internal.h"

#include "scope.h"

#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

enum { PIECE_BYTES = 256 * 1024, DIRECT_BYTES = 64 * 1024, DIRECT_ALIGN = 4096 };

int dir_failed(const char *what, const char *path, int errnum, struct store_error *err)
{
    const char *hint = "";
    int r = -errnum;

    switch (errnum) {
    case ENOSPC:
    case EDQUOT:
        err->fate = STORE_RETRY;
        (void)snprintf(err->text, sizeof err->text, "the disk or quota of %.250s is full", path);
        return r;
    case EACCES:
    case EPERM:
    case EROFS:
        err->fate = STORE_REFUSED;
        hint = errnum == EROFS ? "; is it mounted read-only?" : "; check owner and permissions";
        r = -EACCES;
        break;
    case EIO: /* a share that is away may say so; a new file is written from the beginning */
    case ESTALE:
    case ENOTCONN:
    case ETIMEDOUT:
    case EHOSTDOWN:
    case EHOSTUNREACH:
    case ENETDOWN:
    case ENETUNREACH:
    case ENOENT: /* moved away under us */
    case EINTR:
    case EMFILE:
    case ENFILE:
    case ENOMEM:
        err->fate = STORE_RETRY;
        break;
    default:
        err->fate = STORE_FINAL;
    }
    /* These two would be taken for answers. */
    if (errnum == ENOENT || errnum == EEXIST)
        r = -EIO;
    (void)snprintf(err->text, sizeof err->text, "cannot %s %.250s: %s%s", what, path,
                   strerror(errnum), hint);
    return r;
}

void dir_path(const struct dir *dir, const char *key, char *path)
{
    INVARIANT(format(path, DIR_PATH_MAX, "%s%s%s", dir->root[1] || !*key ? dir->root : "",
                     *key ? "/" : "", key) == 0);
}

/* Up to the last slash: "log" of "log/7", "" of "log". `parent` may be `key`. */
static void parent_of(const char *key, char *parent)
{
    const char *slash = strrchr(key, '/');
    size_t len = slash ? (size_t)(slash - key) : 0;

    memmove(parent, key, len);
    parent[len] = 0;
}

static bool is_empty(const char *path)
{
    struct dirent *e;
    bool empty = true;
    DIR *d = opendir(path);

    while (d && empty && (e = readdir(d)))
        empty = strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0;
    if (d)
        closedir(d);
    return empty;
}

int dir_check_root(struct dir *dir, struct store_error *err)
{
    char parent[URL_PART_MAX];
    struct stat st;

    parent_of(dir->root, parent);
    if (dir->populated ? is_empty(dir->root) : stat(*parent ? parent : "/", &st) < 0) {
        err->fate = STORE_RETRY;
        (void)snprintf(err->text, sizeof err->text,
                       "the directory %.250s is not there%s; is the disk or share mounted?",
                       dir->populated || !*parent ? dir->root : parent,
                       dir->populated ? " or empty all of a sudden" : "");
        return -EAGAIN;
    }
    return 0;
}

static int sync_dir(struct dir *dir, const char *path, struct store_error *err)
{
    if (dir->sync_failed) {
        err->fate = STORE_FINAL;
        (void)snprintf(
            err->text, sizeof err->text,
            "syncing a directory of %.250s failed before: nothing stored there is sure to "
            "survive a power cut; see to the disk, and mount again",
            dir->root);
        return -EIO;
    }
    scope_close int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    /* EACCES: a directory above the volume that may be entered and not read. */
    if (fd < 0)
        return errno == EACCES ? 0 : dir_failed("open", path, errno, err);
    /* EINVAL: a file system that cannot, and needs no, sync of directories. */
    if (fsync(fd) == 0 || errno == EINVAL)
        return 0;
    int r = dir_failed("sync", path, errno, err);
    if (r == -EIO) {
        err->fate = STORE_FINAL;
        dir->sync_failed = true;
    }
    return r;
}

static bool is_durable(struct dir *dir, const char *sub)
{
    unsigned i = 0;

    scope_lock(&dir->lock);
    while (i < dir->ndurable && strcmp(dir->durable[i], sub) != 0)
        i++;
    return i < dir->ndurable;
}

static void remember_durable(struct dir *dir, const char *sub)
{
    scope_lock(&dir->lock);
    if (dir->ndurable < DIR_DURABLE_MAX)
        strcpy(dir->durable[dir->ndurable++], sub);
}

static void forget_durable(struct dir *dir)
{
    scope_lock(&dir->lock);
    dir->ndurable = 0;
}

/* Makes an object's entry in the directory `sub` durable, and the entries of the directories above
 * it up to the volume's own in its parent: also of those that somebody else made, who may not have
 * come to syncing them. */
static int sync_entry(struct dir *dir, const char *sub, struct store_error *err)
{
    char path[DIR_PATH_MAX], at[STORE_KEY_MAX];

    strcpy(at, sub);
    dir_path(dir, at, path);
    int r = sync_dir(dir, path, err);
    for (; r == 0; parent_of(at, at)) {
        if (!is_durable(dir, at)) {
            dir_path(dir, at, path);
            parent_of(path, path);
            r = sync_dir(dir, *path ? path : "/", err);
            if (r == 0)
                remember_durable(dir, at);
        }
        if (!*at)
            break;
    }
    return r;
}

static int make_dirs(struct dir *dir, const char *sub, struct store_error *err)
{
    char path[DIR_PATH_MAX], at[STORE_KEY_MAX];
    int r = dir_check_root(dir, err);

    for (size_t len = 0; r == 0; len += strcspn(sub + len, "/")) {
        memcpy(at, sub, len);
        at[len] = 0;
        dir_path(dir, at, path);
        if (mkdir(path, 0777) < 0 && errno != EEXIST)
            r = dir_failed("make the directory", path, errno, err);
        if (!sub[len])
            break;
        len += sub[len] == '/';
    }
    return r;
}

/* Opens a new temporary file beside the object; the directories are made when they are missing. */
static int open_tmp(struct dir *dir, const char *sub, char *path, struct store_error *err)
{
    char in[DIR_PATH_MAX];

    dir_path(dir, sub, in);
    for (int i = 0; i < 100; i++) {
        INVARIANT(format(path, DIR_PATH_MAX, "%s/" DIR_TMP_PREFIX "%d-%llu", in, getpid(),
                         (unsigned long long)dir->counter++) == 0);
        int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (fd >= 0)
            return fd;
        if (errno == EEXIST) /* a dead process's, or another machine's with our number */
            continue;
        if (errno != ENOENT)
            break;
        forget_durable(dir); /* before anyone can use what is made now */
        int r = make_dirs(dir, sub, err);
        if (r < 0)
            return r;
        errno = ENOENT;
    }
    return dir_failed("make a file in", in, errno, err);
}

/* `n` bytes of a piece at `at`: whole, or -errno. */
static int write_piece(int fd, const uint8_t *piece, size_t n, off_t at)
{
    while (n) {
        ssize_t done = pwrite(fd, piece, n, at);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return -errno;
        piece += done;
        at += done;
        n -= (size_t)done;
    }
    return 0;
}

/* Past the page cache where the file system can: an object is written once and not read again soon,
 * and a daemon that must upload for memory to be freed should not need memory for that. */
static int write_all(int fd, const void *data, size_t len)
{
    scope_free uint8_t *piece = aligned_alloc(DIRECT_ALIGN, DIRECT_BYTES);
    bool direct = fcntl(fd, F_SETFL, O_DIRECT) == 0;
    int r = piece ? 0 : -ENOMEM;

    for (size_t at = 0; at < len && r == 0; at += DIRECT_BYTES) {
        size_t n = MIN((size_t)DIRECT_BYTES, len - at), padded = ROUND_UP(n, (size_t)DIRECT_ALIGN);
        memcpy(piece, (const uint8_t *)data + at, n);
        memset(piece + n, 0, padded - n);
        r = write_piece(fd, piece, padded, (off_t)at);
        if (r == -EINVAL && direct && fcntl(fd, F_SETFL, 0) == 0) { /* it takes the flag only */
            direct = false;
            r = write_piece(fd, piece, padded, (off_t)at);
        }
    }
    if (r == 0 && ftruncate(fd, (off_t)len) < 0)
        r = -errno;
    return r == 0 && fdatasync(fd) < 0 ? -errno : r;
}

/* Gives the temporary file its name; it is gone afterwards, but for some errors. */
static int name_it(const char *tmp, const char *path, bool if_absent)
{
    if (!if_absent)
        return rename(tmp, path) < 0 ? -errno : 0;
    if (link(tmp, path) == 0) {
        (void)unlink(tmp);
        return 0;
    }
    /* A file system without hard links; Linux has no other word for it than these. */
    if ((errno == EPERM || errno == EOPNOTSUPP || errno == ENOSYS) &&
        renameat2(AT_FDCWD, tmp, AT_FDCWD, path, RENAME_NOREPLACE) == 0)
        return 0;
    return -errno;
}

static int dir_put(void *self, const char *key, const void *data, size_t len, unsigned flags,
                   struct store_error *err)
{
    struct dir *dir = self;
    char path[DIR_PATH_MAX], tmp[DIR_PATH_MAX], sub[STORE_KEY_MAX];

    parent_of(key, sub);
    dir_path(dir, key, path);
    scope_close int fd = open_tmp(dir, sub, tmp, err);
    if (fd < 0)
        return fd;
    int r = write_all(fd, data, len);
    if (r < 0) {
        r = dir_failed("write", path, -r, err);
    } else {
        r = name_it(tmp, path, flags & STORE_IF_ABSENT);
        if (r < 0 && r != -EEXIST)
            r = dir_failed("give its name to", path, -r, err);
    }
    if (r < 0)
        (void)unlink(tmp);
    if (r < 0 && r != -EEXIST)
        return r;
    /* One that was there may be our own, of a try that failed before this. */
    int r_sync = sync_entry(dir, sub, err);
    if (r_sync < 0)
        return r_sync;
    dir->populated = true;
    return r;
}

static int dir_get(void *self, const char *key, uint64_t offset, uint64_t len, store_sink *sink,
                   void *ctx, uint64_t *ret_size, struct store_error *err)
{
    struct dir *dir = self;
    char path[DIR_PATH_MAX];
    struct stat st;

    dir_path(dir, key, path);
    scope_close int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 && (errno == ENOENT || errno == ENOTDIR)) {
        int r = dir_check_root(dir, err);
        return r < 0 ? r : -ENOENT;
    }
    if (fd < 0 || fstat(fd, &st) < 0)
        return dir_failed("read", path, errno, err);
    if (!S_ISREG(st.st_mode))
        return -ENOENT;
    dir->populated = true;
    *ret_size = (uint64_t)st.st_size;
    scope_free char *piece = malloc(MAX(MIN(len, (uint64_t)PIECE_BYTES), (uint64_t)1));
    if (!piece)
        return dir_failed("read", path, ENOMEM, err);
    while (len) {
        ssize_t n = pread(fd, piece, MIN(len, (uint64_t)PIECE_BYTES), (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return dir_failed("read", path, errno, err);
        if (n == 0)
            break;
        int r = sink(ctx, piece, (size_t)n);
        if (r < 0)
            return r;
        offset += (uint64_t)n;
        len -= (uint64_t)n;
    }
    return 0;
}

/* After objects in `sub` were deleted: removes it, and what is above it, if nothing else is left,
 * and makes the deletion durable. */
static int sync_removal(struct dir *dir, const char *sub, struct store_error *err)
{
    char path[DIR_PATH_MAX], at[STORE_KEY_MAX];

    strcpy(at, sub);
    for (;;) {
        dir_path(dir, at, path);
        bool gone = rmdir(path) == 0 || errno == ENOENT;
        /* A root that cannot go (a mount point, or not ours to remove) has been emptied too. */
        if (!*at && (gone || (errno != ENOTEMPTY && errno != EEXIST)))
            dir->populated = false;
        if (!gone)
            break;
        if (!*at) {
            parent_of(path, path);
            break;
        }
        parent_of(at, at);
    }
    return sync_dir(dir, *path ? path : "/", err);
}

static int dir_del(void *self, const char *const *keys, size_t nkeys, struct store_error *err)
{
    struct dir *dir = self;
    char path[DIR_PATH_MAX], sub[STORE_KEY_MAX], next[STORE_KEY_MAX];

    for (size_t i = 0; i < nkeys; i++) {
        dir_path(dir, keys[i], path);
        if (unlink(path) < 0) {
            if (errno != ENOENT && errno != ENOTDIR)
                return dir_failed("delete", path, errno, err);
            int r = dir_check_root(dir, err);
            if (r < 0)
                return r;
        }
        parent_of(keys[i], sub);
        if (i + 1 < nkeys)
            parent_of(keys[i + 1], next);
        if (i + 1 == nkeys || strcmp(next, sub) != 0) {
            int r = sync_removal(dir, sub, err);
            if (r < 0)
                return r;
        }
    }
    return 0;
}

static void dir_free(void *self)
{
    struct dir *dir = self;

    pthread_mutex_destroy(&dir->lock);
    free(dir);
}

int dir_open(const struct url *url, struct store_backend *ret_backend)
{
    static const struct store_ops ops = {
        .put = dir_put, .get = dir_get, .list = dir_list, .del = dir_del, .free = dir_free};
    struct dir *dir = calloc(1, sizeof *dir);

    INVARIANT(!url->s3);
    if (!dir)
        return -ENOMEM;
    strcpy(dir->root, url->path);
    pthread_mutex_init(&dir->lock, NULL);
    *ret_backend = (struct store_backend){.ops = &ops, .self = dir};
    memcpy(ret_backend->url, url->text, sizeof url->text);
    return 0;
}
