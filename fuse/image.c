#include "image_internal.h"

#include "../store/msg.h"
#include "../store/scope.h"
#include "session.h"

#include <assert.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <string.h>
#include <sys/statvfs.h>

enum {
    /* Reads that miss, writes that wait, flushes and discards. */
    READ_THREADS = 32,
    WRITE_THREADS = 16,
    OTHER_THREADS = 16,
    CONTROL_THREADS = 4,
    LONG_WORK_THREADS = 4,
    WAITING_MAX = 1024,
    /* Bytes of writes that wait: beyond, receiving waits too, cached reads included. */
    WRITE_BYTES_MAX = 32 << 20,
};
static_assert(WRITE_BYTES_MAX >= SESSION_BACKGROUND_MAX * SESSION_IO_MAX,
              "all asynchronous writes may wait, and hold up nobody");

static const char IMAGE_NAME[] = "image";
static const double FOREVER_S = 1e9;

/* ---------------------------------------------------------------------------- life */

int image_new(struct volume *volume, struct store *store, const struct image_config *config,
              struct image **ret_image)
{
    struct image *image = calloc(1, sizeof *image);
    int r;

    if (!image)
        return -ENOMEM;
    image->volume = volume;
    image->store = store;
    image->config = *config;
    pthread_mutex_init(&image->lock, NULL);
    image->attr = (struct stat){.st_ino = INODE_IMAGE,
                                .st_mode = S_IFREG | (config->read_only ? 0400 : 0600),
                                .st_nlink = 1,
                                .st_uid = getuid(),
                                .st_gid = getgid(),
                                .st_blksize = BLOCK};
    clock_gettime(CLOCK_REALTIME, &image->attr.st_mtim);
    image->attr.st_atim = image->attr.st_ctim = image->attr.st_mtim;
    if ((r = workers_new(READ_THREADS, WAITING_MAX, 0, &image->reads)) < 0 ||
        (r = workers_new(WRITE_THREADS, WAITING_MAX, WRITE_BYTES_MAX, &image->writes)) < 0 ||
        (r = workers_new(OTHER_THREADS, WAITING_MAX, 0, &image->others)) < 0 ||
        (r = workers_new(CONTROL_THREADS, WAITING_MAX, 0, &image->controls)) < 0 ||
        (r = workers_new(LONG_WORK_THREADS, WAITING_MAX, 0, &image->long_work)) < 0 ||
        (r = workers_new(1, WAITING_MAX, 0, &image->keeper)) < 0 ||
        (r = tasks_new(volume, image->long_work, image->keeper, &image->tasks)) < 0) {
        image_free(image);
        return msg_error(r, "mount: cannot start its threads: %s", strerror(-r));
    }
    *ret_image = image;
    return 0;
}

bool image_keep_local(struct image *image)
{
    return atomic_load(&image->keep_local);
}

void image_stop(struct image *image)
{
    workers_free(take(image->reads));
    workers_free(take(image->writes));
    workers_free(take(image->others));
    workers_free(take(image->controls));
    workers_free(take(image->long_work));
    workers_free(take(image->keeper));
}

void image_free(struct image *image)
{
    if (!image)
        return;
    image_stop(image);
    tasks_free(image->tasks);
    pthread_mutex_destroy(&image->lock);
    free(image);
}

static void init(void *userdata, struct fuse_conn_info *conn)
{
    (void)userdata;
    conn->max_write = SESSION_IO_MAX;
    conn->max_background = SESSION_BACKGROUND_MAX;
    conn->congestion_threshold = SESSION_BACKGROUND_MAX * 3 / 4;
    /* Nobody else writes the volume, so what the kernel has cached stays true; asking for the times
     * before each read would cost more than the read. */
    conn->want &= ~(unsigned)FUSE_CAP_AUTO_INVAL_DATA;
    /* O_TRUNC comes as a truncate, which is refused: a disk does not become empty by being opened.
     */
    conn->want &= ~(unsigned)FUSE_CAP_ATOMIC_O_TRUNC;
    conn->want &= ~(unsigned)(FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE |
                              FUSE_CAP_WRITEBACK_CACHE);
}

/* ---------------------------------------------------------------------------- attributes */

void image_stat(struct image *image, struct stat *ret_attr)
{
    {
        scope_lock(&image->lock);
        *ret_attr = image->attr;
    }
    ret_attr->st_size = (off_t)volume_size_bytes(image->volume);
    ret_attr->st_blocks = (blkcnt_t)DIV_UP(volume_allocated_bytes(image->volume), UINT64_C(512));
}

void image_touch(struct image *image)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME_COARSE, &now);
    scope_lock(&image->lock);
    image->attr.st_mtim = image->attr.st_ctim = now;
}

static void root_stat(struct image *image, struct stat *ret_attr)
{
    scope_lock(&image->lock);
    *ret_attr = (struct stat){.st_ino = INODE_ROOT,
                              .st_mode = S_IFDIR | 0555,
                              .st_nlink = 2,
                              .st_uid = image->attr.st_uid,
                              .st_gid = image->attr.st_gid,
                              .st_blksize = BLOCK,
                              .st_atim = image->attr.st_ctim,
                              .st_mtim = image->attr.st_ctim,
                              .st_ctim = image->attr.st_ctim};
}

/* Kept for no time: st_blocks must be true at once, after each write and each discard. */
static void getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct image *image = fuse_req_userdata(req);
    struct stat attr;

    (void)fi;
    if (ino == INODE_ROOT)
        root_stat(image, &attr);
    else
        image_stat(image, &attr);
    fuse_reply_attr(req, &attr, 0);
}

static void set_times(struct stat *attr, const struct stat *want, int which)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    if (which & FUSE_SET_ATTR_ATIME)
        attr->st_atim = want->st_atim;
    if (which & FUSE_SET_ATTR_MTIME)
        attr->st_mtim = want->st_mtim;
    if (which & FUSE_SET_ATTR_ATIME_NOW)
        attr->st_atim = now;
    if (which & FUSE_SET_ATTR_MTIME_NOW)
        attr->st_mtim = now;
    attr->st_ctim = now;
}

static void setattr(fuse_req_t req, fuse_ino_t ino, struct stat *want, int which,
                    struct fuse_file_info *fi)
{
    struct image *image = fuse_req_userdata(req);
    uint64_t size = volume_size_bytes(image->volume);

    if (ino != INODE_IMAGE) {
        fuse_reply_err(req, EPERM);
        return;
    }
    if ((which & FUSE_SET_ATTR_SIZE) && (uint64_t)want->st_size < size) {
        msg_warn("image: truncating it was refused: see `s3vol resize --shrink`; or write to it "
                 "without truncating, or discard what is in it");
        fuse_reply_err(req, EPERM);
        return;
    }
    {
        scope_lock(&image->lock);
        struct stat *attr = &image->attr;
        if (which & FUSE_SET_ATTR_MODE)
            attr->st_mode = S_IFREG | (want->st_mode & 07777);
        if (which & FUSE_SET_ATTR_UID)
            attr->st_uid = want->st_uid;
        if (which & FUSE_SET_ATTR_GID)
            attr->st_gid = want->st_gid;
        set_times(attr, want, which);
    }
    if ((which & FUSE_SET_ATTR_SIZE) && (uint64_t)want->st_size > size)
        image_resize(req, (uint64_t)want->st_size);
    else
        getattr(req, ino, fi);
}

static void statfs_(fuse_req_t req, fuse_ino_t ino)
{
    struct image *image = fuse_req_userdata(req);
    uint64_t size = volume_size_bytes(image->volume);
    uint64_t used = MIN(volume_allocated_bytes(image->volume), size);

    (void)ino;
    fuse_reply_statfs(req, &(struct statvfs){.f_bsize = BLOCK,
                                             .f_frsize = BLOCK,
                                             .f_blocks = size / BLOCK,
                                             .f_bfree = (size - used) / BLOCK,
                                             .f_bavail = (size - used) / BLOCK,
                                             .f_files = 2,
                                             .f_namemax = 255});
}

/* ---------------------------------------------------------------------------- names */

static void lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct fuse_entry_param entry = {.ino = INODE_IMAGE, .entry_timeout = FOREVER_S};

    if (parent != INODE_ROOT || strcmp(name, IMAGE_NAME) != 0) {
        fuse_reply_err(req, ENOENT);
        return;
    }
    image_stat(fuse_req_userdata(req), &entry.attr);
    fuse_reply_entry(req, &entry);
}

static void readdir_(fuse_req_t req, fuse_ino_t ino, size_t len, off_t offset,
                     struct fuse_file_info *fi)
{
    static const struct {
        const char *name;
        fuse_ino_t ino;
        mode_t mode;
    } entry[] = {{".", INODE_ROOT, S_IFDIR},
                 {"..", INODE_ROOT, S_IFDIR},
                 {IMAGE_NAME, INODE_IMAGE, S_IFREG}};
    char buf[256];
    size_t used = 0;

    (void)fi;
    if (ino != INODE_ROOT) {
        fuse_reply_err(req, ENOTDIR);
        return;
    }
    len = MIN(len, sizeof buf);
    for (size_t i = (size_t)offset; i < ARRAY_SIZE(entry); i++) {
        struct stat attr = {.st_ino = entry[i].ino, .st_mode = entry[i].mode};
        size_t n =
            fuse_add_direntry(req, buf + used, len - used, entry[i].name, &attr, (off_t)i + 1);
        if (n > len - used)
            break;
        used += n;
    }
    fuse_reply_buf(req, buf, used);
}

static void unlink_(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    (void)parent, (void)name;
    fuse_reply_err(req, EPERM);
}

static void mknod_(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t dev)
{
    (void)parent, (void)name, (void)mode, (void)dev;
    fuse_reply_err(req, EPERM);
}

/* Direct: each read and write of an application is one of ours, many at once, and nothing is cached
 * twice. Where the kernel would then refuse to map the image, it goes through its page cache
 * instead; all opens alike, since older kernels do not keep the two ways in step. One that follows
 * a writer is never cached: the kernel would go on to show old bytes beside new ones. */
static void open_(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct image *image = fuse_req_userdata(req);
    const struct image_config *config = &image->config;
    bool direct = config->follows || (config->direct_io && session_maps_direct());
    struct fuse_open_out out = {.open_flags = FOPEN_NOFLUSH};

    if (ino != INODE_IMAGE) {
        fuse_reply_err(req, EISDIR);
        return;
    }
    if (!config->follows)
        out.open_flags |= FOPEN_KEEP_CACHE;
    if (direct) {
        out.fh |= OPEN_DIRECT;
        out.open_flags |= FOPEN_DIRECT_IO | FOPEN_PARALLEL_DIRECT_WRITES;
    }
    if ((fi->flags & O_ACCMODE) != O_RDONLY)
        out.fh |= OPEN_WRITABLE;
    fuse_reply_buf(req, (const char *)&out, sizeof out); /* libfuse 3.14 lacks the last flag */
}

static void flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    (void)ino, (void)fi;
    fuse_reply_err(req, 0); /* close() promises nothing */
}

static void fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
    (void)ino, (void)datasync, (void)fi;
    fuse_reply_err(req, 0);
}

const struct fuse_lowlevel_ops image_ops = {
    .init = init,
    .lookup = lookup,
    .getattr = getattr,
    .setattr = setattr,
    .statfs = statfs_,
    .readdir = readdir_,
    .fsyncdir = fsyncdir,
    .mknod = mknod_,
    .unlink = unlink_,
    .rmdir = unlink_,
    .open = open_,
    .flush = flush,
    .read = image_read,
    .write = image_write,
    .fsync = image_fsync,
    .fallocate = image_fallocate,
    .lseek = image_lseek,
    .ioctl = image_ioctl,
};
