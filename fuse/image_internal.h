/* What the operations on the image share: image.c (names and attributes) and image_io.c (bytes). */
#ifndef S3VOL_IMAGE_INTERNAL_H
#define S3VOL_IMAGE_INTERNAL_H

#include "image.h"
#include "tasks.h"
#include "workers.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>

enum { INODE_ROOT = FUSE_ROOT_ID, INODE_IMAGE = 2, BLOCK = 4096 };

/* Bits of `fh` of an open image. */
enum { OPEN_DIRECT = 1, OPEN_WRITABLE = 2 };

struct image {
    struct volume *volume;
    struct store *store;
    struct image_config config;
    struct workers *reads, *writes, *others; /* others: flush, discard, resize, seek */
    struct workers *controls;                /* ioctls, which answer whatever else is stuck */
    struct workers *long_work, *keeper;      /* of `tasks` */
    struct tasks *tasks;
    atomic_bool keep_local;
    pthread_mutex_t lock; /* guards attr */
    struct stat attr;     /* owner, mode and times; they last as long as the mount */
};

/* The image's attributes as of now. */
void image_stat(struct image *image, struct stat *ret_attr);
/* The image was written to: its times change. */
void image_touch(struct image *image);

/* Only these reach the kernel: what an application cannot make sense of becomes EIO. Takes a
 * negative errno, returns a positive one. */
int image_errno(int err);

/* One operation that has been given to workers. `bytes` of work holds what `buf` takes. */
struct job {
    struct work work;
    fuse_req_t req;
    struct image *image;
    uint64_t offset;
    size_t len;
    int flags; /* open flags of the file, or what the operation needs */
    void *buf;
};

/* A job for `req` that `run` will do; NULL: out of memory, `req` is answered. */
struct job *image_job(fuse_req_t req, void (*run)(struct work *work));
struct job *image_job_of(struct work *work);
void image_job_free(struct job *job);

void image_read(fuse_req_t req, fuse_ino_t ino, size_t len, off_t offset,
                struct fuse_file_info *fi);
void image_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t len, off_t offset,
                 struct fuse_file_info *fi);
void image_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi);
void image_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t len,
                     struct fuse_file_info *fi);
void image_lseek(fuse_req_t req, fuse_ino_t ino, off_t offset, int whence,
                 struct fuse_file_info *fi);
void image_resize(fuse_req_t req, uint64_t size_bytes);
void image_ioctl(fuse_req_t req, fuse_ino_t ino, unsigned cmd, void *arg, struct fuse_file_info *fi,
                 unsigned flags, const void *in, size_t in_len, size_t out_max);

#endif
