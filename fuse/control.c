#include "control.h"

#include "../store/clock.h"
#include "../store/msg.h"
#include "../store/scope.h"
#include "units.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>

enum { STUCK_ANSWERS = 3 };

/* Asks whether `fd` is an image of ours. */
static int probe(int fd)
{
    struct control_task task = {.kind = CONTROL_NOTHING};
    struct statfs fs;

    if (fstatfs(fd, &fs) < 0)
        return -errno;
    if (fs.f_type != FUSE_SUPER_MAGIC || ioctl(fd, CONTROL_TASK, &task) < 0)
        return -ENODEV;
    return 0;
}

static int cannot_open(const char *path)
{
    int r = -errno;

    return msg_error(r, "%s: %s%s", path, strerror(-r),
                     r == -EACCES ? "; try as the user who mounted it" : "");
}

/* Of a read-only mount nobody can write the image. */
static int open_image(const char *image, bool write)
{
    int fd = open(image, (write ? O_RDWR : O_RDONLY) | O_CLOEXEC);

    return fd < 0 && errno == EROFS ? open(image, O_RDONLY | O_CLOEXEC) : fd;
}

int control_open(const char *path, bool write, int *ret_fd)
{
    char image[PATH_MAX];
    struct stat st;

    if (stat(path, &st) < 0)
        return errno == ENOTCONN ? -ENOTCONN : cannot_open(path);
    int r = format(image, sizeof image, S_ISDIR(st.st_mode) ? "%s/image" : "%s", path);
    if (r < 0)
        return msg_error(r, "%.100s…: the path is too long", path);
    scope_close int fd = open_image(image, write);
    if (fd < 0 && (errno == ENOENT || errno == ENOTDIR))
        return -ENODEV;
    if (fd < 0 && errno == ENOTCONN)
        return -ENOTCONN;
    if (fd < 0)
        return cannot_open(image);
    r = probe(fd);
    if (r < 0)
        return r;
    *ret_fd = fd;
    fd = -1;
    return 0;
}

int control_status(int fd, unsigned long request, struct control_text *ret_text)
{
    if (ioctl(fd, request, ret_text) < 0)
        return msg_error(-errno, "status: %s", strerror(errno));
    ret_text->text[sizeof ret_text->text - 1] = 0;
    return 0;
}

int control_keep_local(int fd, bool keep)
{
    uint32_t on = keep;

    if (ioctl(fd, CONTROL_KEEP_LOCAL, &on) < 0)
        return msg_error(-errno, "--keep-local: %s", strerror(errno));
    return 0;
}

void control_show_left(struct control_progress *p, uint64_t left_bytes, const char *what)
{
    char left[UNITS_TEXT_MAX], rate[UNITS_TEXT_MAX], at_rate[64] = "";
    int64_t now = clock_system.now_ms();

    if (!isatty(STDERR_FILENO) || !left_bytes)
        return;
    if (p->at_ms && now > p->at_ms && p->left_bytes > left_bytes) {
        double r = (double)(p->left_bytes - left_bytes) * 1000 / (double)(now - p->at_ms);
        p->bytes_per_s = p->bytes_per_s > 0 ? 0.8 * p->bytes_per_s + 0.2 * r : r;
    }
    p->at_ms = now;
    p->left_bytes = left_bytes;
    p->shown = true;
    if (p->bytes_per_s > 0)
        INVARIANT(format(at_rate, sizeof at_rate, ", %s per second",
                         units_format_size((uint64_t)p->bytes_per_s, rate)) == 0);
    fprintf(stderr, "\r%s %s%s\033[K", units_format_size(left_bytes, left), what, at_rate);
    fflush(stderr);
}

static void show_task(struct control_progress *p, const struct control_task *task)
{
    bool collect = task->kind == CONTROL_COLLECT, flatten = task->kind == CONTROL_FLATTEN;

    if (task->kind == CONTROL_KEEP)
        return;
    control_show_left(p,
                      collect                  ? task->garbage_bytes
                      : flatten && !task->done ? task->range_bytes
                                               : task->dirty_bytes,
                      collect   ? "of garbage"
                      : flatten ? "left to copy"
                                : "left to upload");
}

void control_shown(const struct control_progress *p)
{
    if (p->shown)
        fputs("\r\033[K", stderr);
}

/* Tells once that it is the store that keeps us waiting, not at the first error. */
static void warn_if_stuck(struct control_progress *p, const char *path,
                          const struct control_task *task)
{
    char left[UNITS_TEXT_MAX];

    p->stuck = task->unreachable && !task->done && task->kind != CONTROL_KEEP ? p->stuck + 1 : 0;
    if (p->stuck != STUCK_ANSWERS)
        return;
    control_shown(p);
    msg_warn("%s: the store does not answer: waiting until %s are uploaded; s3vol status %s tells "
             "more, umount --keep-local would leave them in this machine's cache",
             path, units_format_size(task->dirty_bytes, left), path);
}

int control_run_task(int fd, const char *path, struct control_task *task)
{
    struct control_progress progress = {0};
    int r = 0;

    task->wait_ms = 100;
    do {
        if (ioctl(fd, CONTROL_TASK, task) < 0) {
            if (errno == EINTR)
                continue;
            r = -errno;
            break;
        }
        warn_if_stuck(&progress, path, task);
        show_task(&progress, task);
        task->wait_ms = 500;
    } while (!task->done);
    control_shown(&progress);
    return r < 0 ? r : task->result;
}

int control_run(int fd, const char *path, enum control_kind kind, struct control_task *ret_task)
{
    struct control_task task = {.kind = kind};
    int r = control_run_task(fd, path, &task);

    if (ret_task)
        *ret_task = task;
    return r;
}
