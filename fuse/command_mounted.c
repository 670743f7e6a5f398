#include "command.h"

#include "../cache/offline.h"
#include "../store/clock.h"
#include "../store/msg.h"
#include "../store/scope.h"
#include "control.h"
#include "mountpoint.h"
#include "status.h"
#include "units.h"

#include <inttypes.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

enum { BUSY_TRIES = 10, BUSY_PAUSE_MS = 100, END_MS = 5000 };

static int not_mounted(const char *path)
{
    return msg_error(-ENODEV, "%s: is not a mounted volume", path);
}

static int daemon_dead(const char *path)
{
    return msg_error(-ENOTCONN,
                     "%s: the daemon of this mount is dead; s3vol umount it, and mount it again",
                     path);
}

/* Opens the image of the volume that is mounted at `path`; one line was printed on failure. */
static int open_mounted(const char *path, int *ret_fd)
{
    int r = control_open(path, true, ret_fd);

    if (r == -ENODEV)
        return not_mounted(path);
    if (r == -ENOTCONN)
        return daemon_dead(path);
    return r;
}

int command_flush(struct options *options)
{
    const char *path = options->args[0];
    scope_close int fd = -1;
    int r = open_mounted(path, &fd);

    if (r < 0)
        return EXIT_FAILED;
    r = control_run(fd, path, CONTROL_DRAIN, NULL);
    if (r < 0)
        msg_error(r, "%s: not everything is in the bucket: %s; s3vol status %s tells more", path,
                  strerror(-r), path);
    return command_exit(r);
}

/* ---------------------------------------------------------------------------- gc */

static int told_space(int fd, const char *path)
{
    struct control_task task;
    char garbage[UNITS_TEXT_MAX];
    int r = control_run(fd, path, CONTROL_NOTHING, &task);

    if (r == 0)
        printf("%s of garbage left\n", units_format_size(task.garbage_bytes, garbage));
    return r;
}

int command_gc(struct options *options)
{
    const char *path = options->args[0];
    scope_close int fd = -1;
    int r = open_mounted(path, &fd);

    if (r < 0)
        return EXIT_FAILED;
    r = control_run(fd, path, CONTROL_COLLECT, NULL);
    if (r < 0)
        msg_error(r, "%s: not all could be reclaimed: %s; s3vol status %s tells more", path,
                  strerror(-r), path);
    else
        r = told_space(fd, path);
    return command_exit(r);
}

/* ---------------------------------------------------------------------------- defrag */

static double per_gib(uint64_t gets, uint64_t bytes)
{
    return bytes ? (double)gets * (1 << 30) / (double)bytes : 0;
}

int command_defrag(struct options *options)
{
    const char *path = options->args[0];
    struct control_task task = {
        .kind = CONTROL_DEFRAG, .offset = options->offset, .len = options->length};
    scope_close int fd = -1;
    int r = open_mounted(path, &fd);

    if (r < 0)
        return EXIT_FAILED;
    r = control_run_task(fd, path, &task);
    if (r < 0)
        msg_error(r, "%s: defragmenting: %s; s3vol status %s tells more", path, strerror(-r), path);
    else
        printf("requests per GiB read in order: %.0f before, %.0f now\n",
               per_gib(task.gets_before, task.range_bytes),
               per_gib(task.gets_after, task.range_bytes));
    return command_exit(r);
}

/* ---------------------------------------------------------------------------- status */

static int status_mounted(const struct options *options, int fd)
{
    static struct control_text text;
    int r = control_status(fd, options->json ? CONTROL_STATUS_JSON : CONTROL_STATUS_TEXT, &text);

    if (r == 0)
        fputs(text.text, stdout);
    return command_exit(r);
}

static int status_stored(const struct options *options)
{
    if (command_check_url(options->args[0]) < 0)
        return EXIT_USAGE;

    struct volume_info info;
    struct store *store;
    char text[STATUS_TEXT_MAX] = "", head[1];
    size_t len;
    int r = command_open_store(options, options->args[0], &store);

    if (r < 0)
        return EXIT_FAILED;
    r = store_get_head(store, "volume", head, sizeof head, &len, NULL, PATIENCE_MS);
    if (r == -ENOENT)
        msg_error(r, "%s: is not a mounted volume, and no volume is stored there",
                  options->args[0]);
    if (r == 0)
        r = volume_info(store, &info);
    if (r == 0 && options->json)
        r = status_info_json(store_url(store), &info, text, sizeof text);
    else if (r == 0)
        r = status_info_text(store_url(store), &info, text, sizeof text);
    if (r == 0)
        fputs(text, stdout);
    store_free(store);
    return command_exit(r);
}

int command_status(struct options *options)
{
    const char *what = options->args[0];
    scope_close int fd = -1;
    struct stat st;

    if (strstr(what, "://") || (stat(what, &st) < 0 && errno == ENOENT))
        return status_stored(options);
    int r = control_open(what, false, &fd);
    if (r == -ENODEV)
        return status_stored(options);
    if (r == -ENOTCONN)
        daemon_dead(what);
    return r < 0 ? EXIT_FAILED : status_mounted(options, fd);
}

/* ---------------------------------------------------------------------------- umount */

static int umount_dead(const char *path)
{
    if (!mountpoint_is_volume(path, NULL, 0))
        return not_mounted(path);
    bool read_only = mountpoint_is_read_only(path);
    int r = mountpoint_detach(path, true);
    if (r < 0)
        return msg_error(r, "%s: its daemon is dead, and unmounting failed: %s", path,
                         strerror(-r));
    if (read_only) { /* nothing was lost */
        msg_warn("%s: unmounted; its daemon had died before", path);
        return 0;
    }
    return msg_error(-ENOTCONN,
                     "%s: unmounted, but its daemon had died before: what was not flushed may be "
                     "lost, as after a power cut; mount it again to go on",
                     path);
}

/* A loop device goes a moment after `losetup -d` has returned. */
static int refuse_if_busy(const char *path)
{
    char loops[256];

    mountpoint_loops(path, loops, sizeof loops);
    for (int i = 0; *loops && i < BUSY_TRIES; i++) {
        poll(NULL, 0, BUSY_PAUSE_MS);
        mountpoint_loops(path, loops, sizeof loops);
    }
    if (!*loops)
        return 0;
    return msg_error(-EBUSY,
                     "%s: the image is in use by %s; unmount what is on it and losetup -d it first",
                     path, loops);
}

/* A handle on the process of the daemon, so that a number used again is not mistaken for it: it
 * answered before and after the handle was made. -1: none, it may be in another container. */
static int open_daemon(int fd, const char *path)
{
    struct control_task before, after;

    if (control_run(fd, path, CONTROL_NOTHING, &before) < 0)
        return -1;
    int pidfd = (int)syscall(SYS_pidfd_open, (pid_t)before.pid, 0);
    if (pidfd >= 0 &&
        (control_run(fd, path, CONTROL_NOTHING, &after) < 0 || after.pid != before.pid)) {
        close(pidfd);
        pidfd = -1;
    }
    return pidfd;
}

/* Everything into the bucket, or ready to be left in the cache; or, when that has become
 * impossible, only a message. *ret_go: unmount now. */
static int save(int fd, const char *path, bool keep_local, bool *ret_go)
{
    struct control_task task;
    int r = control_run(fd, path, keep_local ? CONTROL_KEEP : CONTROL_DRAIN, &task);

    *ret_go = r == 0 || task.lost;
    if (r == 0 && keep_local) {
        r = control_keep_local(fd, true);
        *ret_go = r == 0;
        return r;
    }
    if (r == 0)
        return 0;
    if (task.lost)
        return msg_error(r,
                         "%s: unmounting, but %" PRIu64 " bytes are not in the bucket and stay in "
                         "this machine's cache; s3vol mount tells what can be done",
                         path, task.dirty_bytes);
    if (keep_local)
        return msg_error(r,
                         "%s: not everything is in this machine's cache: %s; it stays mounted. "
                         "s3vol status %s tells more",
                         path, strerror(-r), path);
    return msg_error(r,
                     "%s: not everything is in the bucket: %s; it stays mounted. s3vol status %s "
                     "tells more; --keep-local leaves the rest in this machine's cache",
                     path, strerror(-r), path);
}

/* Others look at new files for a moment (udev, indexers): a few tries. */
static int detach(const char *path)
{
    int r = mountpoint_detach(path, false);

    for (int i = 0; r == -EBUSY && i < BUSY_TRIES; i++) {
        poll(NULL, 0, BUSY_PAUSE_MS);
        r = mountpoint_detach(path, false);
    }
    return r;
}

/* The daemon of what is unmounted. The kernel keeps it as long as any mount namespace, a
 * container's perhaps, has the mount. */
static void await_end(const char *path, int pidfd)
{
    struct pollfd p = {.fd = pidfd, .events = POLLIN};
    int n, ms = END_MS;

    while ((n = poll(&p, 1, ms)) == 0 || (n < 0 && errno == EINTR)) {
        if (n < 0)
            continue;
        msg_warn("%s: unmounted, but its daemon goes on: it has more to do, or another mount "
                 "namespace has the mount (grep -l %s /proc/*/mountinfo tells whose); waiting",
                 path, path);
        ms = -1;
    }
}

int command_umount(struct options *options)
{
    char path[PATH_MAX];
    scope_close int fd = -1, pidfd = -1;
    bool go;

    if (mountpoint_resolve(options->args[0], path) < 0)
        return EXIT_FAILED;
    int r = control_open(path, true, &fd);
    if (r == -ENOTCONN)
        return command_exit(umount_dead(path));
    if (r == -ENODEV)
        return command_exit(not_mounted(path));
    if (r < 0 || refuse_if_busy(path) < 0)
        return EXIT_FAILED;
    pidfd = open_daemon(fd, path);
    int saved = save(fd, path, options->keep_local, &go);
    if (!go)
        return EXIT_FAILED;
    close(fd);
    fd = -1;
    r = detach(path);
    if (r < 0 && options->keep_local && control_open(path, true, &fd) == 0)
        control_keep_local(fd, false);
    if (r == -EBUSY && refuse_if_busy(path) == 0)
        msg_error(r, "%s: the image is in use; fuser -vm %s tells by whom", path, path);
    if (r < 0)
        return EXIT_FAILED;
    if (pidfd >= 0)
        await_end(path, pidfd);
    return command_exit(saved);
}
