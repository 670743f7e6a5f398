/* flatten: of a clone that is mounted, through its daemon; of one that is not, by attaching to it.
 */
#include "command.h"

#include "../store/clock.h"
#include "../store/msg.h"
#include "../store/scope.h"
#include "control.h"

#include <pthread.h>
#include <string.h>
#include <sys/stat.h>

enum { LOOK_MS = 500 };

/* What it said itself, the daemon has said elsewhere. */
static int report(const char *what, int r)
{
    if (r == -EROFS)
        return msg_error(r, "%s: is mounted read-only", what);
    const char *why =
        r == -EBUSY ? "its snapshots need what it is a clone of; delete them first" : strerror(-r);

    return r < 0 ? msg_error(r,
                             "%s: not flattened: %s; s3vol status %s tells more, and it can be "
                             "flattened again",
                             what, why, what)
                 : 0;
}

static int flatten_mounted(const char *path, int fd)
{
    struct control_task task = {.kind = CONTROL_FLATTEN};

    return report(path, control_run_task(fd, path, &task));
}

/* ---------------------------------------------------------------------------- not mounted */

struct job {
    struct volume *volume;
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t ended;
    bool done;
    int result;
};

static void *run(void *arg)
{
    struct job *job = arg;
    int r = volume_flatten(job->volume);

    scope_lock(&job->lock);
    job->result = r;
    job->done = true;
    pthread_cond_signal(&job->ended);
    return NULL;
}

static void watch(struct job *job)
{
    struct control_task task = {.kind = CONTROL_FLATTEN};
    struct control_progress progress = {0};
    struct volume_status status;

    pthread_mutex_lock(&job->lock);
    while (!job->done) {
        pthread_mutex_unlock(&job->lock);
        volume_get_status(job->volume, &status);
        task.range_bytes = status.flatten_bytes;
        control_show(&progress, &task);
        pthread_mutex_lock(&job->lock);
        if (!job->done)
            clock_system.wait_until(&job->ended, &job->lock, clock_system.now_ms() + LOOK_MS);
    }
    pthread_mutex_unlock(&job->lock);
    control_shown(&progress);
}

static int flatten_attached(struct volume *volume)
{
    struct job job = {.volume = volume};
    pthread_t thread;

    pthread_mutex_init(&job.lock, NULL);
    clock_cond_init(&job.ended);
    int r = -pthread_create(&thread, NULL, run, &job);
    if (r == 0) {
        watch(&job);
        pthread_join(thread, NULL);
        r = job.result;
    }
    pthread_cond_destroy(&job.ended);
    pthread_mutex_destroy(&job.lock);
    return r;
}

/* With the cache of this machine's mounts: what only that has goes to the bucket as well. */
static int flatten_stored(struct options *options)
{
    char cache_dir[PATH_MAX];
    struct volume *volume;
    struct store *store;
    int r = command_open_store(options, options->args[0], &store);

    if (r < 0)
        return r;
    r = command_cache_dir(options, cache_dir);
    options->volume.cache_dir = cache_dir;
    if (r == 0)
        r = volume_open(store, &options->volume, &volume);
    if (r == 0) {
        r = flatten_attached(volume);
        if (r == -ENOMEM || r == -ECANCELED) /* else it was said */
            report(store_url(store), r);
        int closed = volume_close(volume, false);
        r = r < 0 ? r : closed;
    }
    store_free(store);
    return r;
}

int command_flatten(struct options *options)
{
    const char *what = options->args[0];
    scope_close int fd = -1;
    struct stat st;
    int r = -ENODEV;

    if (!strstr(what, "://") && (stat(what, &st) == 0 || errno != ENOENT))
        r = control_open(what, &fd);
    if (r == -ENOTCONN)
        msg_error(r, "%s: the daemon of this mount is dead; s3vol umount it, and mount it again",
                  what);
    else if (r == -ENODEV)
        r = flatten_stored(options);
    else if (r == 0)
        r = flatten_mounted(what, fd);
    return command_exit(r);
}
