#include "mountpoint.h"

#include "../store/msg.h"
#include "../store/scope.h"

#include <fcntl.h>
#include <glob.h>
#include <spawn.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>

int mountpoint_resolve(const char *dir, char ret_path[PATH_MAX])
{
    char parent[PATH_MAX], real[PATH_MAX];

    if (realpath(dir, ret_path))
        return 0;
    if (errno == EACCES)
        return msg_error(-EACCES, "%s: %s; what a user has mounted only that user may look into",
                         dir, strerror(errno));
    if (errno != ENOTCONN)
        return msg_error(-errno, "%s: %s", dir, strerror(errno));
    /* Its daemon is dead: nothing can be asked about the directory itself. */
    size_t len = strlen(dir);
    while (len > 1 && dir[len - 1] == '/')
        len--;
    size_t base = len;
    while (base && dir[base - 1] != '/')
        base--;
    if (format(parent, sizeof parent, "%.*s", base ? (int)base : 1, base ? dir : ".") < 0 ||
        !realpath(parent, real) ||
        format(ret_path, PATH_MAX, "%s/%.*s", strcmp(real, "/") == 0 ? "" : real, (int)(len - base),
               dir + base) < 0)
        return msg_error(-ENAMETOOLONG, "%s: cannot tell where it is", dir);
    return 0;
}

/* ---------------------------------------------------------------------------- mountinfo */

/* Undoes the kernel's escapes ("\040") in place. */
static void unescape(char *text)
{
    char *to = text;

    for (const char *p = text; *p; to++) {
        unsigned octal;
        if (p[0] == '\\' && sscanf(p + 1, "%3o", &octal) == 1) {
            *to = (char)octal;
            p += 4;
        } else {
            *to = *p++;
        }
    }
    *to = 0;
}

/* One line of /proc/self/mountinfo, see proc(5): what, where, of which type. Cuts it up in place.
 */
static bool split_line(char *line, char **ret_path, char **ret_type, char **ret_source,
                       char **ret_options)
{
    char *dash = strstr(line, " - "), *save;

    if (!dash)
        return false;
    *dash = 0;
    *ret_path = strtok_r(line, " ", &save);
    for (int field = 1; *ret_path && field < 5; field++)
        *ret_path = strtok_r(NULL, " ", &save);
    *ret_type = strtok_r(dash + 3, " ", &save);
    *ret_source = *ret_type ? strtok_r(NULL, " ", &save) : NULL;
    *ret_options = *ret_source ? strtok_r(NULL, " ", &save) : NULL;
    if (!*ret_path || !*ret_options)
        return false;
    unescape(*ret_path);
    unescape(*ret_source);
    return true;
}

/* Calls `fn` for each mount, in the order in which they cover each other. */
typedef void mount_fn(void *ctx, const char *path, const char *type, const char *source,
                      bool read_only);
static void each_mount(mount_fn *fn, void *ctx)
{
    FILE *f = fopen("/proc/self/mountinfo", "re");
    scope_free char *line = NULL;
    size_t size = 0;

    if (!f)
        return;
    while (getline(&line, &size, f) > 0) {
        char *path, *type, *source, *options;
        if (split_line(line, &path, &type, &source, &options))
            fn(ctx, path, type, source, strncmp(options, "ro", 2) == 0);
    }
    fclose(f);
}

struct search {
    const char *path, *url;
    bool found, read_only;
    char ret_path[PATH_MAX], ret_url[1100];
};

static void match(void *ctx, const char *path, const char *type, const char *source, bool read_only)
{
    struct search *s = ctx;
    bool ours = strcmp(type, "fuse.s3vol") == 0;

    if (s->path && strcmp(path, s->path) == 0)
        s->found = ours; /* the last one is on top */
    else if (s->url && ours && !read_only && strcmp(source, s->url) == 0)
        s->found = true;
    else
        return;
    s->read_only = read_only;
    if (format(s->ret_path, sizeof s->ret_path, "%s", path) < 0 ||
        format(s->ret_url, sizeof s->ret_url, "%s", source) < 0)
        s->found = false;
}

bool mountpoint_is_volume(const char *path, char *ret_url, size_t size_bytes)
{
    struct search s = {.path = path};

    each_mount(match, &s);
    return s.found && (!ret_url || format(ret_url, size_bytes, "%s", s.ret_url) == 0);
}

bool mountpoint_is_read_only(const char *path)
{
    struct search s = {.path = path};

    each_mount(match, &s);
    return s.found && s.read_only;
}

bool mountpoint_of(const char *url, char ret_path[PATH_MAX])
{
    struct search s = {.url = url};

    each_mount(match, &s);
    return s.found && format(ret_path, PATH_MAX, "%s", s.ret_path) == 0;
}

int mountpoint_check(const char *path)
{
    struct stat st;
    char url[1100];

    if (mountpoint_is_volume(path, url, sizeof url)) {
        if (stat(path, &st) < 0 && errno == ENOTCONN)
            return msg_error(-EBUSY,
                             "%s: %s was mounted here and its daemon is dead; s3vol umount %s "
                             "first",
                             path, url, path);
        return msg_error(-EBUSY, "%s: %s is mounted here already", path, url);
    }
    if (stat(path, &st) < 0)
        return msg_error(-errno, "%s: %s", path, strerror(errno));
    if (!S_ISDIR(st.st_mode))
        return msg_error(-ENOTDIR, "%s: is not a directory; the image will be a file in it", path);
    return 0;
}

/* ---------------------------------------------------------------------------- unmounting */

static int run_fusermount(const char *path, bool lazy)
{
    char *const argv[] = {"fusermount3", "-u", lazy ? "-z" : "-q", "--", (char *)path, NULL};
    posix_spawn_file_actions_t actions;
    pid_t pid;
    int status;

    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    int err = posix_spawnp(&pid, argv[0], &actions, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    if (err)
        return msg_error(-err, "fusermount3: %s", strerror(err));
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return -errno;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EBUSY;
}

int mountpoint_detach(const char *path, bool lazy)
{
    if (umount2(path, UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)) == 0)
        return 0;
    if (errno == EPERM)
        return run_fusermount(path, lazy);
    return errno == EBUSY ? -EBUSY
                          : msg_error(-errno, "%s: cannot unmount: %s", path, strerror(errno));
}

/* The first line of a small file. */
static bool read_line(const char *path, char *buf, size_t size_bytes)
{
    FILE *f = fopen(path, "re");
    bool ok = f && fgets(buf, (int)size_bytes, f);

    if (ok)
        buf[strcspn(buf, "\n")] = 0;
    if (f)
        fclose(f);
    return ok;
}

void mountpoint_loops(const char *path, char *buf, size_t size_bytes)
{
    char image[PATH_MAX], backing[PATH_MAX];
    glob_t g = {0};
    size_t len = 0;

    buf[0] = 0;
    if (format(image, sizeof image, "%s/image", path) < 0)
        return;
    if (glob("/sys/block/loop*/loop/backing_file", 0, NULL, &g) == 0)
        for (size_t i = 0; i < g.gl_pathc; i++) {
            const char *name = g.gl_pathv[i] + strlen("/sys/block/");
            if (!read_line(g.gl_pathv[i], backing, sizeof backing) || strcmp(backing, image) != 0)
                continue;
            if (format(buf + len, size_bytes - len, "%s/dev/%.*s", len ? " " : "",
                       (int)strcspn(name, "/"), name) < 0) {
                buf[len] = 0;
                break;
            }
            len += strlen(buf + len);
        }
    globfree(&g);
}
