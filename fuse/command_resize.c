/* resize: of a volume that is mounted, through its daemon; of one that is not, by attaching to it.
 */
#include "command.h"

#include "../store/msg.h"
#include "../store/scope.h"
#include "control.h"
#include "units.h"

#include <string.h>
#include <sys/stat.h>

static int parse_size(const char *text, uint64_t *ret)
{
    char low[UNITS_TEXT_MAX];

    if (units_parse_size(text, ret) < 0)
        return msg_error(-EINVAL,
                         "resize: %.100s: not a size; write a whole number and K, M, G or T, "
                         "like 10G",
                         text);
    if (*ret % 4096 || *ret < VOLUME_BYTES_MIN || *ret > INT64_MAX - 4095)
        return msg_error(
            -EINVAL, "resize: %.100s: must be a multiple of 4096 bytes, from %s to less than 8E",
            text, units_format_size(VOLUME_BYTES_MIN, low));
    return 0;
}

/* What is to be done to a volume of `now` bytes. */
static int choose(const struct options *options, const char *what, uint64_t now, uint64_t size,
                  enum control_kind *ret_kind)
{
    char from[UNITS_TEXT_MAX], to[UNITS_TEXT_MAX];

    *ret_kind = CONTROL_GROW;
    if (size >= now)
        return 0;
    *ret_kind = options->discard_data ? CONTROL_CUT : CONTROL_SHRINK;
    if (options->shrink)
        return 0;
    return msg_error(-EINVAL, "%s: is %s: say --shrink if it shall become as small as %s", what,
                     units_format_size(now, from), units_format_size(size, to));
}

static int report(const char *what, uint64_t size, int r)
{
    char to[UNITS_TEXT_MAX];

    units_format_size(size, to);
    if (r == -ENOTEMPTY)
        return msg_error(r,
                         "%s: there is data beyond %s: not shrunk; shrink what is in it first, "
                         "fstrim or discard the rest, or say --discard-data to cut it off",
                         what, to);
    if (r == -EROFS)
        return msg_error(r, "%s: is mounted read-only", what);
    if (r == -EBUSY)
        return msg_error(r, "%s: its size is being changed already; try again", what);
    return r < 0 ? msg_error(r, "%s: not resized to %s: %s", what, to, strerror(-r)) : 0;
}

static int resize_mounted(const struct options *options, int fd, uint64_t size)
{
    const char *path = options->args[0];
    struct control_task task = {.len = size};
    enum control_kind kind;
    struct stat st;

    if (fstat(fd, &st) < 0)
        return msg_error(-errno, "%s: %s", path, strerror(errno));
    int r = choose(options, path, (uint64_t)st.st_size, size, &kind);
    if (r < 0)
        return r;
    task.kind = kind;
    r = report(path, size, control_run_task(fd, path, &task));
    (void)fstat(fd, &st); /* the kernel learns of the size, for `losetup -c` to find */
    return r;
}

static int resize_attached(const struct options *options, struct volume *volume, const char *url,
                           uint64_t size)
{
    enum control_kind kind;
    int r = choose(options, url, volume_size_bytes(volume), size, &kind);

    if (r < 0)
        return r;
    r = kind == CONTROL_GROW ? volume_resize(volume, size)
                             : volume_shrink(volume, size, kind == CONTROL_CUT);
    if (r == 0)
        r = volume_drain(volume);
    return report(url, size, r);
}

static int resize_stored(struct options *options, uint64_t size)
{
    struct volume *volume;
    struct store *store;
    int r = command_attach(options, &store, &volume);

    if (r < 0)
        return r;
    r = resize_attached(options, volume, store_url(store), size);
    int closed = volume_close(volume, false);
    store_free(store);
    return r < 0 ? r : closed;
}

int command_resize(struct options *options)
{
    const char *what = options->args[0];
    scope_close int fd = -1;
    struct stat st;
    uint64_t size;
    int r = -ENODEV;

    if (parse_size(options->args[1], &size) < 0)
        return EXIT_USAGE;
    if (options->discard_data && !options->shrink) {
        msg_error(0, "resize: --discard-data goes with --shrink");
        return EXIT_USAGE;
    }
    if (!strstr(what, "://") && (stat(what, &st) == 0 || errno != ENOENT))
        r = control_open(what, true, &fd);
    if (r == -ENOTCONN)
        msg_error(r, "%s: the daemon of this mount is dead; s3vol umount it, and mount it again",
                  what);
    else if (r == -ENODEV && command_check_url(what) < 0)
        return EXIT_USAGE;
    else if (r == -ENODEV)
        r = resize_stored(options, size);
    else if (r == 0)
        r = resize_mounted(options, fd, size);
    return command_exit(r);
}
