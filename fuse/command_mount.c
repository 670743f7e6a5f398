#include "command.h"

#include "../store/clock.h"
#include "../store/msg.h"
#include "../store/scope.h"
#include "../store/thread.h"
#include "../store/url.h"
#include "daemon.h"
#include "image.h"
#include "mountpoint.h"
#include "session.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

/*
 * The life of a mount. Signals are taken by a thread of their own, from before the volume is
 * opened. The first asks to end: what waits for the store while the volume is being opened gives
 * up; a mounted volume is unmounted and saved. The second gives saving up: what is not in the
 * bucket stays in the cache.
 */
struct life {
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t changed;
    bool opened;           /* the volume was: the first signal no longer stops the store */
    struct volume *volume; /* while there is anything to stop */
    bool ended;            /* the kernel let go of the mount */
    unsigned asked;        /* signals that asked to end */
    bool over;             /* the signal thread ends */
    struct store *store;
    pthread_t signals;
};

static const int end_signals[] = {SIGTERM, SIGINT, SIGHUP};

static void fill_signals(sigset_t *set)
{
    sigemptyset(set);
    for (size_t i = 0; i < ARRAY_SIZE(end_signals); i++)
        sigaddset(set, end_signals[i]);
    sigaddset(set, SIGUSR2); /* ends the signal thread */
}

static void *run_signals(void *arg)
{
    struct life *life = arg;
    sigset_t set;
    int sig;

    fill_signals(&set);
    for (;;) {
        sigwait(&set, &sig);
        scope_lock(&life->lock);
        if (life->over)
            return NULL;
        if (sig == SIGUSR2)
            continue;
        life->asked++;
        if (life->asked > 1 && life->volume)
            volume_stop(life->volume);
        else if (life->asked > 1 || !life->opened)
            store_stop(life->store);
        pthread_cond_signal(&life->changed);
    }
}

/* `volume` is NULL when it is about to be closed. */
static void set_volume(struct life *life, struct volume *volume)
{
    scope_lock(&life->lock);
    life->opened = true;
    life->volume = volume;
}

static void mount_ended(void *ctx)
{
    struct life *life = ctx;

    scope_lock(&life->lock);
    life->ended = true;
    pthread_cond_signal(&life->changed);
}

static int start_life(struct life *life, struct store *store)
{
    sigset_t set;

    life->store = store;
    pthread_mutex_init(&life->lock, NULL);
    pthread_cond_init(&life->changed, NULL);
    fill_signals(&set);
    sigaddset(&set, SIGUSR1); /* only receivers take it */
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    int err = thread_start(&life->signals, run_signals, life);
    return err ? msg_error(err, "mount: cannot start a thread: %s", strerror(-err)) : 0;
}

static void end_life(struct life *life)
{
    pthread_mutex_lock(&life->lock);
    life->over = true;
    pthread_mutex_unlock(&life->lock);
    pthread_kill(life->signals, SIGUSR2);
    pthread_join(life->signals, NULL);
}

/* Waits until the mount is gone or somebody asks to end; true: it was a signal. */
static bool wait_for_end(struct life *life)
{
    scope_lock(&life->lock);
    while (!life->ended && !life->asked)
        pthread_cond_wait(&life->changed, &life->lock);
    return !life->ended;
}

/* ---------------------------------------------------------------------------- serving */

/* Tells the parent that the image can be used, and leaves the terminal. */
static void report_ready(int ready_fd)
{
    if (ready_fd < 0)
        return;
    if (write(ready_fd, "+", 1) != 1)
        msg_debug("mount: nobody waits for this mount any more");
    close(ready_fd);
    daemon_background();
}

/* From the mounted volume to the unmounted one. */
static void serve(struct life *life, struct session *session, struct volume *volume,
                  const char *dir, int ready_fd)
{
    daemon_lock_memory();
    report_ready(ready_fd);
    bool asked = wait_for_end(life);
    volume_stop_moves(volume);
    if (asked) {
        msg_info("%s: asked to end: unmounting, and saving to the bucket", dir);
        mountpoint_detach(dir, true);
        volume_drain(volume); /* while those who still have it open may go on */
    }
    session_stop(session);
}

/* Saves what is left and closes; a second signal ends the saving. */
static int close_volume(struct life *life, struct volume *volume, bool keep_local, const char *dir)
{
    int saved = keep_local ? 0 : volume_drain(volume);

    set_volume(life, NULL);
    int closed = volume_close(volume, keep_local || saved < 0);
    if (saved == -ECANCELED)
        msg_error(saved,
                  "%s: ended before everything was in the bucket; what was not stays in this "
                  "machine's cache",
                  dir);
    return saved < 0 ? saved : closed;
}

enum { PIN_ROOM = 128 }; /* for "@NAME" */

static int run_volume(const struct options *options, struct life *life, const char *dir,
                      int ready_fd)
{
    struct volume *volume;
    struct image *image = NULL;
    struct session *session = NULL;
    const struct volume_config *cfg = &options->volume;
    const struct image_config as = {options->direct_io, cfg->read_only, cfg->follow_ms != 0};
    char source[STORE_URL_MAX + PIN_ROOM];
    int r = volume_open(life->store, &options->volume, &volume);

    if (r == -ECANCELED)
        msg_error(r, "%s: not mounted: interrupted", dir);
    if (r < 0)
        return r;
    set_volume(life, volume);
    (void)snprintf(source, sizeof source, "%s%s%s", store_url(life->store),
                   cfg->snapshot ? "@" : "", cfg->snapshot ? cfg->snapshot : "");
    r = image_new(volume, life->store, &as, &image);
    if (r == 0)
        r = session_open(&(struct session_config){.ops = &image_ops,
                                                  .userdata = image,
                                                  .source = source,
                                                  .dir = dir,
                                                  .allow_other = options->allow_other,
                                                  .read_only = as.read_only,
                                                  .map_direct = !as.follows,
                                                  .ended = mount_ended,
                                                  .ctx = life},
                         &session);
    if (r == 0) {
        serve(life, session, volume, dir, ready_fd);
        if (image_keep_local(image))
            volume_stop(volume); /* an umount that was interrupted is still waiting for the store */
        image_stop(image);
        session_free(session);
    }
    int closed = close_volume(life, volume, image && image_keep_local(image), dir);
    image_free(image);
    return r < 0 ? r : closed;
}

static int run_daemon(const struct options *options, const char *dir, int ready_fd)
{
    struct life life = {0};
    struct store *store;

    daemon_prepare();
    int r = store_open(&options->store, options->args[0], &store);
    if (r < 0)
        return EXIT_FAILED;
    r = start_life(&life, store);
    if (r == 0) {
        r = run_volume(options, &life, dir, ready_fd);
        end_life(&life);
    }
    store_free(store);
    return command_exit(r);
}

/* ---------------------------------------------------------------------------- the command */

/* Waits until the daemon says that it is ready, or ends; whatever it has to say it says itself. */
static int await_daemon(pid_t pid, int ready_fd, const char *dir)
{
    char image[PATH_MAX], c;
    int status;
    ssize_t n;

    while ((n = read(ready_fd, &c, 1)) < 0 && errno == EINTR)
        ;
    if (n != 1) {
        while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
            ;
        if (WIFSIGNALED(status))
            msg_error(0, "%s: not mounted: the daemon was killed by signal %d (%s)", dir,
                      WTERMSIG(status), strsignal(WTERMSIG(status)));
        return EXIT_FAILED;
    }
    scope_close int fd =
        format(image, sizeof image, "%s/image", dir) < 0 ? -1 : open(image, O_RDONLY | O_CLOEXEC);
    if (fd >= 0)
        return EXIT_OK;
    msg_error(-errno, "%s: cannot be opened: %s", image, strerror(errno));
    kill(pid, SIGTERM);
    return EXIT_FAILED;
}

static int run_in_background(const struct options *options, const char *dir)
{
    int ready[2];

    if (pipe2(ready, O_CLOEXEC) < 0)
        return command_exit(msg_error(-errno, "mount: pipe: %s", strerror(errno)));
    fflush(NULL);
    pid_t pid = fork();
    if (pid < 0) {
        close(ready[0]);
        close(ready[1]);
        return command_exit(msg_error(-errno, "mount: fork: %s", strerror(errno)));
    }
    if (pid == 0) {
        close(ready[0]);
        _exit(run_daemon(options, dir, ready[1]));
    }
    close(ready[1]);
    int code = await_daemon(pid, ready[0], dir);
    close(ready[0]);
    return code;
}

/* Read-only or not, and what does not go with that. The snapshot's name is borrowed from `url`. */
static int check_view(struct options *options, struct url *url)
{
    struct volume_config *cfg = &options->volume;
    int r = url_parse(options->args[0], url);

    if (r < 0)
        return r;
    if (*url->snapshot) {
        cfg->snapshot = url->snapshot;
        cfg->read_only = true;
    }
    if (cfg->follow_ms && cfg->snapshot)
        return msg_error(-EINVAL, "--follow: a snapshot does not change");
    if (cfg->follow_ms && !cfg->read_only)
        return msg_error(-EINVAL, "--follow: goes with --read-only");
    if (cfg->follow_ms && !options->direct_io)
        return msg_error(-EINVAL,
                         "--no-direct-io: does not go with --follow: the kernel would show "
                         "old bytes");
    if (cfg->read_only && options->for_writing)
        return msg_error(-EINVAL, "--%s: is for mounts that write, and this one is read-only",
                         options->for_writing);
    return 0;
}

int command_mount(struct options *options)
{
    char dir[PATH_MAX], cache_dir[PATH_MAX];
    struct url url;

    if (check_view(options, &url) < 0)
        return EXIT_USAGE;

    if (mountpoint_resolve(options->args[1], dir) < 0 || mountpoint_check(dir) < 0 ||
        command_cache_dir(options, cache_dir) < 0)
        return EXIT_FAILED;
    options->volume.cache_dir = cache_dir;
    options->allow_other |= geteuid() == 0;
    options->store.connections = options->volume.uploads + options->volume.downloads + 2;
    if (options->foreground || options->debug)
        return run_daemon(options, dir, -1);
    return run_in_background(options, dir);
}
