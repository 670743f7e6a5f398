/*
 * barefuse [-d] FILE DIR: shows FILE as DIR/image, in the foreground, with the open flags of
 * s3vol's image and nothing between a request and one pread() or pwrite(). What a FUSE file costs
 * at least. -d: FILE is read and written past the page cache.
 */
#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <linux/fuse.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { IMAGE = 2, IO_MAX = 1 << 20, ALIGN = 4096, THREADS = 8 };
static int fd, cached; /* the same file, and never past the page cache */
static off_t size;

static void op_init(void *userdata, struct fuse_conn_info *conn)
{
    (void)userdata;
    conn->want &= ~(unsigned)(FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE |
                              FUSE_CAP_AUTO_INVAL_DATA);
    conn->max_write = conn->max_readahead = IO_MAX;
    conn->max_background = 64;
}

static struct stat attributes(fuse_ino_t ino)
{
    struct stat st = {.st_ino = ino, .st_nlink = 1, .st_mode = S_IFDIR | 0700};

    if (ino == IMAGE) {
        st.st_mode = S_IFREG | 0600;
        st.st_size = size;
    }
    return st;
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct fuse_entry_param e = {.ino = IMAGE, .attr = attributes(IMAGE)};

    if (parent == FUSE_ROOT_ID && strcmp(name, "image") == 0)
        fuse_reply_entry(req, &e);
    else
        fuse_reply_err(req, ENOENT);
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct stat st = attributes(ino);

    (void)fi;
    fuse_reply_attr(req, &st, 0);
}

/* libfuse 3.14 does not know FOPEN_PARALLEL_DIRECT_WRITES, so the answer is sent as the kernel has
 * it. */
static void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct fuse_open_out out = {.open_flags = FOPEN_DIRECT_IO | FOPEN_PARALLEL_DIRECT_WRITES |
                                              FOPEN_NOFLUSH | FOPEN_KEEP_CACHE};

    (void)ino;
    (void)fi;
    fuse_reply_buf(req, (const char *)&out, sizeof out);
}

/* Each thread's own; they live as long as the program. */
static void *buffer(void)
{
    static _Thread_local void *buf;

    if (!buf && posix_memalign(&buf, ALIGN, IO_MAX) != 0)
        abort();
    return buf;
}

static int fd_for(size_t len, off_t offset)
{
    return ((off_t)len | offset) % ALIGN ? cached : fd;
}

static void op_read(fuse_req_t req, fuse_ino_t ino, size_t len, off_t offset,
                    struct fuse_file_info *fi)
{
    ssize_t n = pread(fd_for(len, offset), buffer(), len, offset);

    (void)ino;
    (void)fi;
    if (n < 0)
        fuse_reply_err(req, errno);
    else
        fuse_reply_buf(req, buffer(), (size_t)n);
}

/* The payload follows headers of 80 bytes: O_DIRECT needs a copy of it that is aligned. */
static void op_write(fuse_req_t req, fuse_ino_t ino, const char *data, size_t len, off_t offset,
                     struct fuse_file_info *fi)
{
    int to = fd_for(len, offset);
    const void *from = data;

    (void)ino;
    (void)fi;
    if (fd != cached && to == fd)
        from = memcpy(buffer(), data, len);
    ssize_t n = pwrite(to, from, len, offset);
    if (n < 0)
        fuse_reply_err(req, errno);
    else
        fuse_reply_write(req, (size_t)n);
}

static void op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
    (void)ino;
    (void)datasync;
    (void)fi;
    fuse_reply_err(req, fdatasync(fd) < 0 ? errno : 0);
}

static void op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t len,
                         struct fuse_file_info *fi)
{
    (void)ino;
    (void)fi;
    fuse_reply_err(req, fallocate(fd, mode, offset, len) < 0 ? errno : 0);
}

static const struct fuse_lowlevel_ops ops = {
    .init = op_init,
    .lookup = op_lookup,
    .getattr = op_getattr,
    .open = op_open,
    .read = op_read,
    .write = op_write,
    .fsync = op_fsync,
    .fallocate = op_fallocate,
};

int main(int argc, char **argv)
{
    bool direct = argc > 1 && strcmp(argv[1], "-d") == 0;
    char *options[] = {argv[0], "-o", "fsname=barefuse", NULL};
    struct fuse_args args = FUSE_ARGS_INIT(3, options);
    struct stat st;

    if (argc != 3 + direct)
        return 2;
    fd = open(argv[1 + direct], O_RDWR | O_CLOEXEC | (direct ? O_DIRECT : 0));
    cached = direct ? open(argv[2], O_RDWR | O_CLOEXEC) : fd;
    if (fd < 0 || cached < 0 || fstat(fd, &st) < 0) {
        perror(argv[1 + direct]);
        return 1;
    }
    size = st.st_size;
    struct fuse_session *session = fuse_session_new(&args, &ops, sizeof ops, NULL);
    if (!session || fuse_session_mount(session, argv[2 + direct]) < 0)
        return 1;
    fuse_set_signal_handlers(session);
    struct fuse_loop_config *config = fuse_loop_cfg_create();
    fuse_loop_cfg_set_max_threads(config, THREADS);
    fuse_loop_cfg_set_idle_threads(config, THREADS);
    int r = fuse_session_loop_mt(session, config);
    fuse_loop_cfg_destroy(config);
    fuse_session_unmount(session);
    fuse_session_destroy(session);
    return r < 0;
}
