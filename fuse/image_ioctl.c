#include "image_internal.h"

#include "../store/msg.h"
#include "../store/scope.h"
#include "status.h"

#include <string.h>

/* `work` of an ioctl; `buf` is what came with it. */
static void run_status(struct work *work)
{
    struct job *job = image_job_of(work);
    char last_error[512];
    struct status status = {.url = store_url(job->image->store), .pid = getpid()};
    struct control_text *text = calloc(1, sizeof *text);
    int r = -ENOMEM;

    volume_get_status(job->image->volume, &status.volume);
    store_get_stats(job->image->store, &status.store);
    msg_last_error(last_error, sizeof last_error);
    status.last_error = last_error;
    if (text)
        r = job->flags ? status_json(&status, text->text, sizeof text->text)
                       : status_text(&status, text->text, sizeof text->text);
    if (r < 0)
        fuse_reply_err(job->req, image_errno(r));
    else
        fuse_reply_ioctl(job->req, 0, text, sizeof *text);
    free(text);
    image_job_free(job);
}

static void run_task(struct work *work)
{
    struct job *job = image_job_of(work);
    struct control_task *task = job->buf;
    int r = tasks_step(job->image->tasks, task);

    if (r < 0)
        fuse_reply_err(job->req, image_errno(r));
    else
        fuse_reply_ioctl(job->req, 0, task, sizeof *task);
    image_job_free(job);
}

static void keep_local(fuse_req_t req, const void *in)
{
    struct image *image = fuse_req_userdata(req);
    uint32_t on;

    memcpy(&on, in, sizeof on);
    atomic_store(&image->keep_local, on != 0);
    fuse_reply_ioctl(req, 0, NULL, 0);
}

static void give_status(fuse_req_t req, bool as_json)
{
    struct job *job = image_job(req, run_status);

    if (!job)
        return;
    job->flags = as_json;
    workers_run(job->image->controls, &job->work);
}

static void give_task(fuse_req_t req, const struct control_task *task)
{
    struct job *job = image_job(req, run_task);

    if (!job)
        return;
    job->buf = malloc(sizeof *task);
    if (!job->buf) {
        fuse_reply_err(req, ENOMEM);
        image_job_free(job);
        return;
    }
    memcpy(job->buf, task, sizeof *task);
    workers_run(job->image->controls, &job->work);
}

/* Whoever may only read the image may ask how it is, and nothing else; of a read-only mount, where
 * nobody can open it for writing, nothing else does any harm. */
static bool may_control(fuse_req_t req, unsigned cmd, const void *in,
                        const struct fuse_file_info *fi)
{
    struct image *image = fuse_req_userdata(req);
    bool asks = cmd == CONTROL_TASK && ((const struct control_task *)in)->kind == CONTROL_NOTHING;

    return asks || image->config.read_only || (fi->fh & OPEN_WRITABLE);
}

void image_ioctl(fuse_req_t req, fuse_ino_t ino, unsigned cmd, void *arg, struct fuse_file_info *fi,
                 unsigned flags, const void *in, size_t in_len, size_t out_max)
{
    size_t in_min = _IOC_DIR(cmd) & _IOC_WRITE ? _IOC_SIZE(cmd) : 0;
    size_t out_min = _IOC_DIR(cmd) & _IOC_READ ? _IOC_SIZE(cmd) : 0;

    (void)arg, (void)flags;
    if (ino != INODE_IMAGE)
        fuse_reply_err(req, ENOTTY);
    else if (in_len < in_min || out_max < out_min)
        fuse_reply_err(req, EINVAL);
    else if (cmd == CONTROL_STATUS_JSON || cmd == CONTROL_STATUS_TEXT)
        give_status(req, cmd == CONTROL_STATUS_JSON);
    else if (cmd != CONTROL_TASK && cmd != CONTROL_KEEP_LOCAL)
        fuse_reply_err(req, ENOTTY);
    else if (!may_control(req, cmd, in, fi))
        fuse_reply_err(req, EPERM);
    else if (cmd == CONTROL_TASK)
        give_task(req, in);
    else
        keep_local(req, in);
}
