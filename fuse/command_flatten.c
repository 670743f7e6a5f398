/* flatten: of a clone that is mounted, through its daemon; of one that is not, by attaching to it.
 */
#include "command.h"

#include "../store/msg.h"
#include "../store/scope.h"
#include "control.h"
#include "work.h"

#include <string.h>
#include <sys/stat.h>

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

static int flatten_stored(struct work *work, void *ctx)
{
    struct options *options = ctx;
    struct volume *volume;
    struct store *store;
    int r = command_attach(options, &store, &volume);

    if (r < 0)
        return r;
    work_set_volume(work, volume);
    r = volume_flatten(volume);
    work_set_volume(work, NULL);
    if (r == -ENOMEM || r == -ECANCELED) /* else it was said */
        report(store_url(store), r);
    int closed = volume_close(volume, work_is_stopped(work));
    store_free(store);
    return r < 0 ? r : closed;
}

int command_flatten(struct options *options)
{
    const char *what = options->args[0];
    scope_close int fd = -1;
    struct stat st;
    int r = -ENODEV;

    if (!strstr(what, "://") && (stat(what, &st) == 0 || errno != ENOENT))
        r = control_open(what, true, &fd);
    if (r == -ENOTCONN)
        msg_error(r, "%s: the daemon of this mount is dead; s3vol umount it, and mount it again",
                  what);
    else if (r == -ENODEV && command_check_url(what) < 0)
        return EXIT_USAGE;
    else if (r == -ENODEV)
        r = work_run(flatten_stored, options);
    else if (r == 0)
        r = flatten_mounted(what, fd);
    return command_exit(r);
}
