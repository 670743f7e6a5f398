/*
 * export: a volume, or a snapshot, written to a file. Threads read windows of it, and write them
 * one after the other, in order.
 */
#include "command.h"

#include "../cache/offline.h"
#include "../store/msg.h"
#include "../store/scope.h"
#include "../store/url.h"
#include "target.h"
#include "work.h"

#include <dirent.h>
#include <string.h>

enum {
    WINDOW_BYTES = 4 * 1024 * 1024, /* as much as one GET fetches */
    WINDOWS_PER_CACHE = 4,          /* so many times as large as what is being read it must be */
    READERS_MAX = 256,
};

#define NO_WINDOW UINT64_MAX

struct exporting {
    struct options *options;
    struct work *work;
    struct volume *volume;
    struct target *target;
    uint64_t size_bytes, data_bytes;
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t moved;
    uint64_t next;            /* where the next window begins */
    uint64_t at[READERS_MAX]; /* the windows that are being read, or written; NO_WINDOW */
    unsigned nreaders;
    uint64_t copied_bytes;
    int error;
};

struct reader {
    struct exporting *ex;
    unsigned number;
    uint8_t *buf;
    pthread_t thread;
};

/* ---------------------------------------------------------------------------- whose turn it is */

/* Begins a window: false if there is none, or no need. */
static bool begin(struct exporting *ex, unsigned reader)
{
    scope_lock(&ex->lock);
    if (ex->error == 0 && work_is_stopped(ex->work))
        ex->error = -ECANCELED;
    if (ex->error < 0 || ex->next >= ex->size_bytes)
        return false;
    ex->at[reader] = ex->next;
    ex->next += WINDOW_BYTES;
    return true;
}

/* There is no data before `at`. */
static void jump(struct exporting *ex, uint64_t at)
{
    scope_lock(&ex->lock);
    ex->next = MAX(ex->next, ROUND_DOWN(at, (uint64_t)WINDOW_BYTES));
}

/* Lock held. */
static bool is_first(const struct exporting *ex, unsigned reader)
{
    for (unsigned i = 0; i < ex->nreaders; i++)
        if (ex->at[i] < ex->at[reader])
            return false;
    return true;
}

/* Waits until all windows before the reader's are written. */
static int wait_for_turn(struct exporting *ex, unsigned reader)
{
    scope_lock(&ex->lock);
    while (ex->error == 0 && !is_first(ex, reader))
        pthread_cond_wait(&ex->moved, &ex->lock);
    return ex->error;
}

static void end(struct exporting *ex, unsigned reader, uint64_t copied_bytes, int error)
{
    scope_lock(&ex->lock);
    ex->at[reader] = NO_WINDOW;
    ex->copied_bytes = MIN(ex->copied_bytes + copied_bytes, ex->data_bytes);
    if (ex->error == 0)
        ex->error = error;
    work_set_left(ex->work, ex->data_bytes - ex->copied_bytes);
    pthread_cond_broadcast(&ex->moved);
}

/* ---------------------------------------------------------------------------- copying */

/* What is behind `at` in its window; *ret_bytes of it was copied. */
static int copy_window(struct reader *r, uint64_t at, uint64_t *ret_bytes)
{
    struct exporting *ex = r->ex;
    uint64_t window_end = MIN(at + WINDOW_BYTES, ex->size_bytes), from;
    int err = volume_seek(ex->volume, at, true, &from);

    *ret_bytes = 0;
    if (err < 0 && err != -ENXIO)
        return err;
    if (err == -ENXIO || from >= window_end) {
        jump(ex, err == -ENXIO ? ex->size_bytes : from);
        return 0;
    }
    size_t len = (size_t)(window_end - from);
    err = volume_read(ex->volume, r->buf, len, from, true);
    if (err == 0)
        err = wait_for_turn(ex, r->number);
    if (err == 0)
        err = target_write(ex->target, r->buf, len, from, ret_bytes);
    return err;
}

static void *read_windows(void *arg)
{
    struct reader *r = arg;
    struct exporting *ex = r->ex;

    while (begin(ex, r->number)) {
        uint64_t bytes;
        int err = copy_window(r, ex->at[r->number], &bytes);
        end(ex, r->number, bytes, err);
    }
    return NULL;
}

static unsigned count_readers(const struct options *options)
{
    uint64_t fit = options->volume.cache_bytes / WINDOWS_PER_CACHE / WINDOW_BYTES;

    return (unsigned)MAX(MIN(MIN(fit, options->volume.downloads), READERS_MAX), 1);
}

/* At least one of them was started, or it is an error. */
static int run_readers(struct exporting *ex, struct reader *readers, unsigned n)
{
    unsigned started = 0;
    int r = 0;

    for (; started < n && r == 0; started += r == 0) {
        struct reader *reader = &readers[started];
        *reader = (struct reader){.ex = ex, .number = started};
        reader->buf = aligned_alloc(4096, WINDOW_BYTES);
        r = reader->buf ? -pthread_create(&reader->thread, NULL, read_windows, reader) : -ENOMEM;
        if (r < 0)
            free(reader->buf);
    }
    for (unsigned i = 0; i < started; i++) {
        pthread_join(readers[i].thread, NULL);
        free(readers[i].buf);
    }
    return started > 0 ? ex->error : r;
}

static int copy(struct exporting *ex)
{
    unsigned n = count_readers(ex->options);
    scope_free struct reader *readers = calloc(n, sizeof *readers);

    if (!readers)
        return -ENOMEM;
    pthread_mutex_init(&ex->lock, NULL);
    pthread_cond_init(&ex->moved, NULL);
    ex->nreaders = n;
    for (unsigned i = 0; i < n; i++)
        ex->at[i] = NO_WINDOW;
    int r = run_readers(ex, readers, n);
    pthread_cond_destroy(&ex->moved);
    pthread_mutex_destroy(&ex->lock);
    return r;
}

/* ---------------------------------------------------------------------------- the whole */

static int export_volume(struct exporting *ex)
{
    struct options *options = ex->options;
    int r = target_open(options->args[1], ex->size_bytes, options->force, &ex->target);

    if (r < 0)
        return r;
    work_set_volume(ex->work, ex->volume);
    r = copy(ex);
    work_set_volume(ex->work, NULL);
    if (r == 0)
        r = target_finish(ex->target);
    target_free(ex->target);
    return r;
}

static void remove_caches(const char *dir)
{
    char path[PATH_MAX];
    DIR *d = opendir(dir);

    for (const struct dirent *e; d && (e = readdir(d)) != NULL;)
        if (e->d_name[0] != '.' && format(path, sizeof path, "%s/%s", dir, e->d_name) == 0)
            volume_remove_dir(path);
    if (d)
        closedir(d);
    (void)rmdir(dir);
}

/* With a cache directory of its own: nobody else's becomes smaller, or is left behind. */
static int export_with_cache(struct exporting *ex, struct store *store, const char *cache_dir)
{
    struct volume_config *cfg = &ex->options->volume;
    char dir[PATH_MAX];
    struct volume_status status;
    int r = format(dir, sizeof dir, "%s/export-XXXXXX", cache_dir);

    if (r == 0 && !mkdtemp(dir))
        r = msg_error(-errno, "%s: %s", dir, strerror(errno));
    if (r < 0)
        return r;
    cfg->cache_dir = dir;
    cfg->read_only = true;
    cfg->readahead_bytes = 0; /* the readers are ahead */
    r = volume_open(store, cfg, &ex->volume);
    if (r == 0) {
        volume_get_status(ex->volume, &status);
        ex->size_bytes = status.size_bytes;
        ex->data_bytes = status.allocated_bytes;
        r = export_volume(ex);
        volume_close(ex->volume, true);
    }
    remove_caches(dir);
    return r;
}

static int export(struct work *work, void *ctx)
{
    struct options *options = ctx;
    struct exporting ex = {.options = options, .work = work};
    char cache_dir[PATH_MAX];
    struct store *store;
    struct url url;
    int r = url_parse(options->args[0], &url);

    if (r == 0)
        r = target_check(options->args[1], options->force);
    if (r == 0)
        r = command_cache_dir(options, cache_dir);
    if (r == 0)
        r = store_open(&options->store, url.text, &store);
    if (r < 0)
        return r;
    options->volume.snapshot = *url.snapshot ? url.snapshot : NULL;
    r = export_with_cache(&ex, store, cache_dir);
    if (r == -ECANCELED || r == -ENOMEM) /* else it was said */
        msg_error(r, "%s: not exported: %s", options->args[0], strerror(-r));
    store_free(store);
    return r;
}

int command_export(struct options *options)
{
    struct url url;

    if (url_parse(options->args[0], &url) < 0)
        return EXIT_USAGE;
    if (!options->volume.cache_bytes)
        options->volume.cache_bytes = COPY_CACHE_BYTES;
    return command_exit(work_run(export, options));
}
