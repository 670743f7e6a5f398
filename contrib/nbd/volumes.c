#include "volumes.h"

#include "../../store/msg.h"
#include "../../store/scope.h"
#include "run.h"

#include <string.h>
#include <sys/stat.h>
#include <time.h>

enum { SAID_BYTES = 400 };

/*
 * ABSENT (no struct) -> MOUNTING -> MOUNTED -> UNMOUNTING -> ABSENT. Who has it MOUNTING or
 * UNMOUNTING works without the lock, and is the only one that changes it; a failure goes back.
 */
enum state { MOUNTING, MOUNTED, UNMOUNTING };

struct volume {
    struct volumes *volumes;
    enum state state;
    unsigned users;   /* who waits for the end of MOUNTING or UNMOUNTING included */
    int64_t until_ms; /* without users: unmounted then */
    struct volume *next;
    char name[VOLUMES_NAME_MAX + 1];
};

struct volumes {
    struct volumes_config config;
    pthread_t housekeeper;
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t changed;
    struct volume *first;
    unsigned count;
    bool stopping;
};

static int64_t now_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

bool volumes_check_name(const char *name)
{
    size_t len = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-");

    return len > 0 && len <= VOLUMES_NAME_MAX && !name[len] && name[0] != '.' && name[0] != '-';
}

/* ----------------------------------------------------------------------------- commands */

static int paths(const struct volumes *volumes, const char *name, char **ret_url, char **ret_dir)
{
    if (asprintf(ret_url, "%s/%s", volumes->config.prefix, name) < 0)
        return -ENOMEM;
    if (asprintf(ret_dir, "%s/%s", volumes->config.mount_dir, name) < 0) {
        free(*ret_url);
        return -ENOMEM;
    }
    return 0;
}

/* A directory on which something is mounted is on another device than its parent. -ENOTCONN when
 * the daemon of what is mounted is dead. */
static int is_mounted(const struct volumes *volumes, const char *dir)
{
    struct stat here, above;

    if (stat(dir, &here) < 0)
        return errno == ENOENT ? 0 : -errno;
    if (stat(volumes->config.mount_dir, &above) < 0)
        return -errno;
    return here.st_dev != above.st_dev;
}

static int run_mount(const struct volumes *volumes, char *url, char *dir, char *said)
{
    const char *options = volumes->config.mount_options;
    char *argv[] = {"s3vol", "mount", url, dir, NULL, NULL, NULL};

    if (options) {
        argv[4] = "-o";
        argv[5] = (char *)options;
    }
    return run_command(argv, said, SAID_BYTES);
}

/* What both `s3vol mount` and `s3vol create` take: where the store is, and how to reach it. */
static bool is_store_option(const char *word)
{
    static const char *const names[] = {"endpoint",   "region",          "profile",      "ca-file",
                                        "addressing", "connect-timeout", "stall-timeout"};

    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        size_t len = strlen(names[i]), n = 0;
        while (n < len && (word[n] == names[i][n] || (word[n] == '_' && names[i][n] == '-')))
            n++;
        if (n == len && word[len] == '=')
            return true;
    }
    return false;
}

/* `s3vol create`, with those of `list`, which is "a=b,c", and "\," a comma in a value. For free(),
 * with all its words. */
static char **create_command(const char *size, char *url, const char *list)
{
    enum { FIRST = 5 };
    size_t nitems = 1, n = FIRST;

    for (const char *p = list; *p; p++)
        nitems += *p == ',';
    char **argv = calloc(1, (FIRST + nitems + 1) * sizeof *argv + 3 * nitems + strlen(list));
    if (!argv)
        return NULL;
    memcpy(argv, (char *[FIRST]){"s3vol", "create", "--size", (char *)size, url},
           FIRST * sizeof *argv);
    for (char *to = (char *)(argv + FIRST + nitems + 1), *word = to; *list; word = ++to) {
        to = stpcpy(to, "--");
        while (*list && *list != ',') {
            list += list[0] == '\\' && list[1] == ',';
            *to++ = *list++;
        }
        list += *list == ',';
        if (is_store_option(word + 2))
            argv[n++] = word;
    }
    return argv;
}

static int run_create(const struct volumes *volumes, char *url, char *said)
{
    const char *options = volumes->config.mount_options;
    char **argv = create_command(volumes->config.create_size, url, options ? options : "");
    int r = argv ? run_command(argv, said, SAID_BYTES) : -ENOMEM;

    free(argv);
    return r;
}

static int run_umount(char *dir, char *said)
{
    char *argv[] = {"s3vol", "umount", dir, NULL};

    return run_command(argv, said, SAID_BYTES);
}

static int mount_volume(const struct volumes *volumes, char *url, char *dir)
{
    char said[SAID_BYTES], create_said[SAID_BYTES] = "no memory";
    int mounted = is_mounted(volumes, dir);

    if (mounted == 1)
        return 0;
    if (mounted == -ENOTCONN)
        (void)run_umount(dir, said);
    if (mkdir(dir, 0700) < 0 && errno != EEXIST)
        return msg_error(-ENOENT, "%s: %s", dir, strerror(errno));
    int r = run_mount(volumes, url, dir, said), created = 0;
    if (r < 0 && volumes->config.create_size) {
        created = run_create(volumes, url, create_said);
        if (created == 0)
            r = run_mount(volumes, url, dir, said);
    }
    if (r == 0)
        return 0;
    (void)rmdir(dir);
    return msg_error(-ENOENT, "%s cannot be mounted on %s: %s%s%s", url, dir, said,
                     created < 0 ? "; nor created: " : "", created < 0 ? create_said : "");
}

static int umount_volume(const struct volumes *volumes, char *dir)
{
    char said[SAID_BYTES];
    int r = run_umount(dir, said);

    if (is_mounted(volumes, dir) == 1)
        return msg_error(r < 0 ? r : -EBUSY, "%s cannot be unmounted: %s", dir, said);
    if (r < 0)
        msg_warn("%s: %s", dir, said);
    (void)rmdir(dir);
    return 0;
}

/* ----------------------------------------------------------------------------- life */

static struct volume *find_locked(struct volumes *volumes, const char *name)
{
    struct volume *v = volumes->first;

    while (v && strcmp(v->name, name) != 0)
        v = v->next;
    return v;
}

static void forget_locked(struct volume *volume)
{
    struct volume **at = &volume->volumes->first;

    while (*at != volume)
        at = &(*at)->next;
    *at = volume->next;
    volume->volumes->count--;
    free(volume);
}

/* The thread that unmounts one volume, which is UNMOUNTING. */
static void *unmount(void *arg)
{
    struct volume *volume = arg;
    struct volumes *volumes = volume->volumes;
    char *url, *dir;
    int r = paths(volumes, volume->name, &url, &dir);

    if (r == 0) {
        r = umount_volume(volumes, dir);
        free(url);
        free(dir);
    }
    scope_lock(&volumes->lock);
    pthread_cond_broadcast(&volumes->changed);
    if (r < 0 && !volumes->stopping) {
        volume->state = MOUNTED;
        volume->until_ms = now_ms() + MAX(volumes->config.grace_ms, 1000);
    } else if (volume->users) {
        volume->state = MOUNTING; /* by the first of those who wait */
        volume->until_ms = -1;
    } else {
        forget_locked(volume);
    }
    return NULL;
}

static void start_unmounting_locked(struct volume *volume)
{
    pthread_attr_t attr;
    pthread_t thread;

    volume->state = UNMOUNTING;
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    if (pthread_create(&thread, &attr, unmount, volume) != 0) {
        volume->state = MOUNTED;
        volume->until_ms = now_ms() + 1000;
    }
    pthread_attr_destroy(&attr);
}

/* Begins to unmount what has had no users for long enough. Returns when to look again, or -1. */
static int64_t look_around_locked(struct volumes *volumes)
{
    int64_t now = now_ms(), next = -1;

    for (struct volume *v = volumes->first; v; v = v->next) {
        if (v->state != MOUNTED || v->users)
            continue;
        if (volumes->stopping || v->until_ms <= now)
            start_unmounting_locked(v);
        if (v->state == MOUNTED && (next < 0 || v->until_ms < next))
            next = v->until_ms;
    }
    return next;
}

static void *keep_house(void *arg)
{
    struct volumes *volumes = arg;

    scope_lock(&volumes->lock);
    for (;;) {
        int64_t next = look_around_locked(volumes);
        if (volumes->stopping && !volumes->first)
            return NULL;
        if (next < 0) {
            pthread_cond_wait(&volumes->changed, &volumes->lock);
        } else {
            struct timespec ts = {next / 1000, next % 1000 * 1000000};
            pthread_cond_timedwait(&volumes->changed, &volumes->lock, &ts);
        }
    }
}

int volumes_new(const struct volumes_config *config, struct volumes **ret_volumes)
{
    struct stat st;
    pthread_condattr_t attr;

    if (stat(config->mount_dir, &st) < 0)
        return msg_error(-errno, "--mount-dir %s: %s", config->mount_dir, strerror(errno));
    if (!S_ISDIR(st.st_mode))
        return msg_error(-ENOTDIR, "--mount-dir %s: not a directory", config->mount_dir);
    struct volumes *volumes = calloc(1, sizeof *volumes);
    if (!volumes)
        return -ENOMEM;
    volumes->config = *config;
    pthread_mutex_init(&volumes->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&volumes->changed, &attr);
    pthread_condattr_destroy(&attr);
    int err = pthread_create(&volumes->housekeeper, NULL, keep_house, volumes);
    if (err) {
        free(volumes);
        return -err;
    }
    *ret_volumes = volumes;
    return 0;
}

void volumes_free(struct volumes *volumes)
{
    if (!volumes)
        return;
    pthread_mutex_lock(&volumes->lock);
    volumes->stopping = true;
    pthread_cond_broadcast(&volumes->changed);
    pthread_mutex_unlock(&volumes->lock);
    pthread_join(volumes->housekeeper, NULL);
    pthread_cond_destroy(&volumes->changed);
    pthread_mutex_destroy(&volumes->lock);
    free(volumes);
}

static struct volume *add_locked(struct volumes *volumes, const char *name)
{
    struct volume *volume = volumes->count < VOLUMES_MAX ? calloc(1, sizeof *volume) : NULL;

    if (!volume)
        return NULL;
    INVARIANT(format(volume->name, sizeof volume->name, "%s", name) == 0);
    volume->volumes = volumes;
    volume->state = MOUNTING;
    volume->until_ms = -1; /* by nobody yet */
    volume->next = volumes->first;
    volumes->first = volume;
    volumes->count++;
    return volume;
}

/* MOUNTING, and nobody does it yet: does it. The lock is let go meanwhile. */
static int mount_locked(struct volume *volume)
{
    struct volumes *volumes = volume->volumes;
    char *url, *dir;

    volume->until_ms = 0;
    pthread_mutex_unlock(&volumes->lock);
    int r = paths(volumes, volume->name, &url, &dir);
    if (r == 0) {
        r = mount_volume(volumes, url, dir);
        free(url);
        free(dir);
    }
    pthread_mutex_lock(&volumes->lock);
    if (r == 0)
        volume->state = MOUNTED;
    else
        volume->until_ms = -1; /* the next who waits may try */
    pthread_cond_broadcast(&volumes->changed);
    return r;
}

int volumes_acquire(struct volumes *volumes, const char *name, char **ret_path)
{
    int r = 0;

    scope_lock(&volumes->lock);
    struct volume *volume = find_locked(volumes, name);
    if (!volume && !(volume = add_locked(volumes, name)))
        return msg_error(-EMFILE, "%s: %d volumes are mounted already", name, VOLUMES_MAX);
    volume->users++;
    while (r == 0 && volume->state != MOUNTED)
        if (volume->state == MOUNTING && volume->until_ms < 0)
            r = mount_locked(volume);
        else
            pthread_cond_wait(&volumes->changed, &volumes->lock);
    if (r == 0 && asprintf(ret_path, "%s/%s/image", volumes->config.mount_dir, name) >= 0)
        return 0;
    volume->users--;
    if (volume->state == MOUNTED)
        r = -ENOMEM;
    else if (!volume->users)
        forget_locked(volume);
    return r;
}

void volumes_release(struct volumes *volumes, const char *name, bool unusable)
{
    scope_lock(&volumes->lock);
    struct volume *volume = find_locked(volumes, name);

    INVARIANT(volume && volume->users);
    if (--volume->users == 0) {
        volume->until_ms = now_ms() + volumes->config.grace_ms;
        if (unusable) /* here, as the housekeeper could find it in use again each time it looks */
            start_unmounting_locked(volume);
        pthread_cond_broadcast(&volumes->changed);
    }
}
