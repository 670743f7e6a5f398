#include "image_internal.h"

#include "../store/msg.h"
#include "../store/scope.h"
#include "session.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <string.h>

/* ---------------------------------------------------------------------------- jobs */

struct job *image_job(fuse_req_t req, void (*run)(struct work *work))
{
    struct job *job = calloc(1, sizeof *job);

    if (!job) {
        fuse_reply_err(req, ENOMEM);
        return NULL;
    }
    job->work.run = run;
    job->req = req;
    job->image = fuse_req_userdata(req);
    return job;
}

struct job *image_job_of(struct work *work)
{
    return (struct job *)((char *)work - offsetof(struct job, work));
}

void image_job_free(struct job *job)
{
    free(job->buf);
    free(job);
}

int image_errno(int err)
{
    switch (err) {
    case 0:
    case -EINVAL:
    case -ENOSPC:
    case -ENOMEM:
    case -ENXIO:
    case -EBUSY:
    case -EPERM:
    case -EROFS:
    case -EFBIG:
    case -EOPNOTSUPP:
    case -ETIMEDOUT: /* see --timeout: nothing is lost */
        return -err;
    default:
        return EIO;
    }
}

/* Memory for `len` bytes, aligned for direct I/O. */
static void *alloc_aligned(size_t len)
{
    return aligned_alloc(BLOCK, ROUND_UP(len, (size_t)BLOCK));
}

/* How much of [offset, offset + len) is there. */
static size_t cut(const struct image *image, uint64_t offset, size_t len)
{
    uint64_t size = volume_size_bytes(image->volume);

    return offset >= size ? 0 : MIN(len, size - offset);
}

/* ---------------------------------------------------------------------------- reading */

/* An image that follows a writer may become smaller between two looks at its size. */
static bool has_shrunk(struct job *job)
{
    size_t len = cut(job->image, job->offset, job->len);
    bool shrunk = len < job->len;

    job->len = len;
    return shrunk;
}

static void run_read(struct work *work)
{
    struct job *job = image_job_of(work);
    int r = -ENOMEM;

    job->buf = alloc_aligned(job->len);
    if (job->buf)
        do
            r = volume_read(job->image->volume, job->buf, job->len, job->offset, true);
        while (r == -EINVAL && has_shrunk(job));
    if (r < 0)
        fuse_reply_err(job->req, image_errno(r));
    else
        fuse_reply_buf(job->req, job->buf, job->len);
    image_job_free(job);
}

void image_read(fuse_req_t req, fuse_ino_t ino, size_t len, off_t offset, struct fuse_file_info *fi)
{
    struct image *image = fuse_req_userdata(req);
    char *buf = session_reply_buffer();

    (void)ino, (void)fi;
    len = cut(image, (uint64_t)offset, MIN(len, (size_t)SESSION_IO_MAX));
    int r = len ? volume_read(image->volume, buf, len, (uint64_t)offset, false) : 0;
    if (r == 0) {
        fuse_reply_buf(req, buf, len);
    } else if (r != -EAGAIN && (r != -EINVAL || !image->config.follows)) {
        fuse_reply_err(req, image_errno(r));
    } else {
        struct job *job = image_job(req, run_read);
        if (!job)
            return;
        job->offset = (uint64_t)offset;
        job->len = len;
        workers_run(image->reads, &job->work);
    }
}

/* ---------------------------------------------------------------------------- writing */

/* Whether nobody but us makes an O_SYNC write durable. The kernel sends a FSYNC after a write
 * through its page cache, but not after one to a file opened for direct I/O, nor after an
 * asynchronous one with O_DIRECT. */
static bool must_flush(const struct fuse_file_info *fi)
{
    return (fi->flags & O_DSYNC) && ((fi->fh & OPEN_DIRECT) || (fi->flags & O_DIRECT));
}

static void answer_write(fuse_req_t req, struct image *image, int r, size_t len)
{
    if (r < 0) {
        fuse_reply_err(req, image_errno(r));
    } else {
        image_touch(image);
        fuse_reply_write(req, len);
    }
}

static void run_write(struct work *work)
{
    struct job *job = image_job_of(work);
    struct volume *volume = job->image->volume;
    int r = 0;

    if (job->buf)
        r = volume_write(volume, job->buf, job->len, job->offset, true);
    if (r == 0 && job->flags)
        r = volume_flush(volume, true);
    answer_write(job->req, job->image, r, job->len);
    image_job_free(job);
}

/* The rest of a write that cannot be answered at once: `buf` is what is still to be written, or
 * NULL. */
static void finish_write(fuse_req_t req, const char *buf, size_t len, uint64_t offset, bool flush)
{
    struct job *job = image_job(req, run_write);

    if (!job)
        return;
    job->offset = offset;
    job->len = len;
    job->flags = flush;
    if (buf) {
        job->buf = alloc_aligned(len);
        if (!job->buf) {
            fuse_reply_err(req, ENOMEM);
            image_job_free(job);
            return;
        }
        memcpy(job->buf, buf, len);
        job->work.bytes = len;
    }
    workers_run(buf ? job->image->writes : job->image->others, &job->work);
}

void image_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t len, off_t offset,
                 struct fuse_file_info *fi)
{
    struct image *image = fuse_req_userdata(req);
    size_t fits = cut(image, (uint64_t)offset, len);

    (void)ino;
    if (len && !fits) {
        fuse_reply_err(req, ENOSPC); /* as at the end of a disk */
        return;
    }
    int r = volume_write(image->volume, buf, fits, (uint64_t)offset, false);
    if (r == -EAGAIN)
        finish_write(req, buf, fits, (uint64_t)offset, must_flush(fi));
    else if (r == 0 && must_flush(fi))
        finish_write(req, NULL, fits, 0, true);
    else
        answer_write(req, image, r, fits);
}

/* ---------------------------------------------------------------------------- the rest */

static void run_fsync(struct work *work)
{
    struct job *job = image_job_of(work);

    fuse_reply_err(job->req, image_errno(volume_flush(job->image->volume, true)));
    image_job_free(job);
}

void image_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
    struct image *image = fuse_req_userdata(req);

    (void)ino, (void)datasync, (void)fi;
    session_hold_signals(true);
    int r = volume_flush(image->volume, false);
    session_hold_signals(false);
    if (r != -EAGAIN) {
        fuse_reply_err(req, image_errno(r));
    } else {
        struct job *job = image_job(req, run_fsync);
        if (job)
            workers_run(image->others, &job->work);
    }
}

static void run_fallocate(struct work *work)
{
    struct job *job = image_job_of(work);
    struct volume *volume = job->image->volume;
    uint64_t end = job->offset + job->len;
    int r = 0;

    if (!(job->flags & FALLOC_FL_KEEP_SIZE) && end > volume_size_bytes(volume))
        r = volume_resize(volume, ROUND_UP(end, (uint64_t)BLOCK));
    if (r == 0 && (job->flags & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))) {
        size_t len = cut(job->image, job->offset, job->len);
        if (len)
            r = volume_discard(volume, job->offset, len);
        if (r == 0)
            image_touch(job->image);
    }
    fuse_reply_err(job->req, image_errno(r));
    image_job_free(job);
}

void image_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t len,
                     struct fuse_file_info *fi)
{
    (void)ino, (void)fi;
    /* Plain preallocation reserves nothing, here or in the bucket; it only may grow the image. */
    if (mode & ~(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) {
        fuse_reply_err(req, EOPNOTSUPP);
        return;
    }
    if (offset < 0 || len <= 0 || offset > INT64_MAX - len) {
        fuse_reply_err(req, EINVAL);
        return;
    }
    struct job *job = image_job(req, run_fallocate);
    if (!job)
        return;
    job->offset = (uint64_t)offset;
    job->len = (size_t)len;
    job->flags = mode;
    workers_run(job->image->others, &job->work);
}

static void run_lseek(struct work *work)
{
    struct job *job = image_job_of(work);
    uint64_t found = 0;
    int r = volume_seek(job->image->volume, job->offset, job->flags == SEEK_DATA, &found);

    if (r < 0)
        fuse_reply_err(job->req, image_errno(r));
    else
        fuse_reply_lseek(job->req, (off_t)found);
    image_job_free(job);
}

void image_lseek(fuse_req_t req, fuse_ino_t ino, off_t offset, int whence,
                 struct fuse_file_info *fi)
{
    (void)ino, (void)fi;
    if (whence != SEEK_DATA && whence != SEEK_HOLE) {
        fuse_reply_err(req, EINVAL);
        return;
    }
    if (offset < 0) {
        fuse_reply_err(req, ENXIO);
        return;
    }
    struct job *job = image_job(req, run_lseek);
    if (!job)
        return;
    job->offset = (uint64_t)offset;
    job->flags = whence;
    workers_run(job->image->others, &job->work);
}

static void run_resize(struct work *work)
{
    struct job *job = image_job_of(work);
    struct stat attr;
    int r = volume_resize(job->image->volume, job->offset);

    if (r < 0) {
        fuse_reply_err(job->req, image_errno(r));
    } else {
        image_touch(job->image);
        image_stat(job->image, &attr);
        fuse_reply_attr(job->req, &attr, 0);
    }
    image_job_free(job);
}

void image_resize(fuse_req_t req, uint64_t size_bytes)
{
    struct job *job = image_job(req, run_resize);

    if (!job)
        return;
    job->offset = size_bytes;
    workers_run(job->image->others, &job->work);
}
