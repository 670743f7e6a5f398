#include "datadir.h"

#include "objects.h"

#include "../../store/scope.h"
#include "../../store/sigv4.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>

static int object_path(const char *dir, const char *bucket, const char *key, char *path)
{
    char name[256]; /* as long as a file's name may be */

    if (sigv4_encode(key, 0, name, sizeof name) < 0)
        return -ENAMETOOLONG;
    if (name[0] == '.')
        return -EINVAL;
    return format(path, DATADIR_PATH_MAX, "%s/%s/%s", dir, bucket, name);
}

int datadir_make_bucket(const char *dir, const char *bucket)
{
    char path[DATADIR_PATH_MAX];
    int r = format(path, sizeof path, "%s/%s", dir, bucket);

    return r < 0 ? r : mkdir(path, 0777) < 0 && errno != EEXIST ? -errno : 0;
}

int datadir_remove_bucket(const char *dir, const char *bucket)
{
    char path[DATADIR_PATH_MAX];
    int r = format(path, sizeof path, "%s/%s", dir, bucket);

    return r < 0 ? r : rmdir(path) < 0 ? -errno : 0;
}

int datadir_write(const char *dir, const char *data, size_t len, char *ret_path)
{
    static atomic_uint n;
    int r = format(ret_path, DATADIR_PATH_MAX, "%s/.new-%u", dir, n++);

    if (r < 0)
        return r;
    scope_close int fd = open(ret_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0)
        return -errno;
    while (len) {
        ssize_t done = write(fd, data, len);
        if (done < 0) {
            r = -errno;
            (void)unlink(ret_path);
            return r;
        }
        data += done;
        len -= (size_t)done;
    }
    return 0;
}

int datadir_commit(const char *dir, const char *bucket, const char *key, const char *path)
{
    char to[DATADIR_PATH_MAX];
    int r = object_path(dir, bucket, key, to);

    return r < 0 ? r : rename(path, to) < 0 ? -errno : 0;
}

int datadir_remove(const char *dir, const char *bucket, const char *key)
{
    char path[DATADIR_PATH_MAX];
    int r = object_path(dir, bucket, key, path);

    return r < 0 ? r : unlink(path) < 0 && errno != ENOENT ? -errno : 0;
}

_Noreturn static void die(const char *what, const char *path)
{
    fprintf(stderr, "s3d: cannot %s %s: %s\n", what, path, strerror(errno));
    exit(1);
}

static char *read_file(const char *path, struct stat *st)
{
    scope_close int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, st) < 0)
        die("read", path);
    char *data = malloc((size_t)st->st_size + 1);
    if (!data || read(fd, data, (size_t)st->st_size) != (ssize_t)st->st_size)
        die("read", path);
    return data;
}

static void load_bucket(const char *dir, const char *bucket, datadir_fn *fn)
{
    char path[DATADIR_PATH_MAX], key[OBJECT_KEY_MAX + 1], etag[SIGV4_HEX_SIZE];
    struct dirent *e;
    struct stat st;

    if (format(path, sizeof path, "%s/%s", dir, bucket) < 0)
        die("read", dir);
    DIR *d = opendir(path);
    if (!d || fn(bucket, NULL, NULL, 0, NULL, 0) < 0)
        die("read", path);
    while ((e = readdir(d))) {
        if (e->d_name[0] == '.' || sigv4_decode(e->d_name, key, sizeof key) < 0)
            continue;
        if (format(path, sizeof path, "%s/%s/%s", dir, bucket, e->d_name) < 0)
            die("read", dir);
        char *data = read_file(path, &st);
        if (sigv4_sha256_hex(data, (size_t)st.st_size, etag) < 0 ||
            fn(bucket, key, data, (size_t)st.st_size, etag, st.st_mtime) < 0)
            die("load", path);
    }
    closedir(d);
}

void datadir_load(const char *dir, datadir_fn *fn)
{
    char path[DATADIR_PATH_MAX];
    struct dirent *e;

    if (mkdir(dir, 0777) < 0 && errno != EEXIST)
        die("make", dir);
    DIR *d = opendir(dir);
    if (!d)
        die("read", dir);
    while ((e = readdir(d))) {
        if (strncmp(e->d_name, ".new-", 5) == 0 &&
            format(path, sizeof path, "%s/%s", dir, e->d_name) == 0)
            (void)unlink(path); /* of a put that did not end */
        else if (e->d_name[0] != '.' && strlen(e->d_name) <= BUCKET_NAME_MAX)
            load_bucket(dir, e->d_name, fn);
    }
    closedir(d);
}
