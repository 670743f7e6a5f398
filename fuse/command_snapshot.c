#include "command.h"

#include "../cache/snapshot.h"
#include "../store/clock.h"
#include "../store/msg.h"
#include "../store/scope.h"
#include "../store/url.h"
#include "control.h"
#include "json.h"
#include "mountpoint.h"
#include "units.h"

#include <inttypes.h>
#include <string.h>

enum { SHOW_MS = 500 };

/* What a command is about: a volume, and perhaps a snapshot of it. */
struct target {
    char url[STORE_URL_MAX], name[PIN_NAME_MAX];
    char mounted[PATH_MAX]; /* where, if it was named by that; else "" */
};

/* "URL@NAME", or "DIR@NAME" of a volume that is mounted there. */
static int parse_target(const char *text, struct target *ret)
{
    char path[PATH_MAX];
    struct url url;
    int r = url_parse(text, &url);

    if (r < 0)
        return r;
    *ret = (struct target){0};
    r = format(ret->name, sizeof ret->name, "%s", url.snapshot);
    if (r == 0)
        r = format(ret->url, sizeof ret->url, "%s", url.text);
    if (r == 0 && !url.s3 && access(url.path, F_OK) == 0 &&
        mountpoint_resolve(url.path, path) == 0 &&
        mountpoint_is_volume(path, ret->url, sizeof ret->url))
        r = format(ret->mounted, sizeof ret->mounted, "%s", path);
    if (r == 0 && *ret->mounted && url_parse(ret->url, &url) == 0 && *url.snapshot)
        r = msg_error(-EINVAL, "%s: is where the snapshot %s is mounted; name the volume itself",
                      text, ret->url);
    return r;
}

static int flush_mounted(const char *path)
{
    scope_close int fd = -1;
    int r = control_open(path, true, &fd);

    if (r < 0 && r != -ENODEV && r != -ENOTCONN)
        return r; /* said */
    if (r == 0)
        r = control_run(fd, path, CONTROL_DRAIN, NULL);
    if (r < 0)
        msg_error(r, "%s: not everything is in the bucket: %s; no snapshot was made", path,
                  strerror(-r));
    return r;
}

static int create(struct store *store, const struct target *t)
{
    int r = *t->mounted ? flush_mounted(t->mounted) : 0;

    return r == 0 ? snapshot_create(store, t->name) : r;
}

/* ---------------------------------------------------------------------------- list */

static int print_text(void *ctx, const struct pin *pin, uint64_t alone_bytes)
{
    char size[UNITS_TEXT_MAX], alone[UNITS_TEXT_MAX];

    (void)ctx;
    printf("%-32s %s %10s %10s alone%s%s\n", pin->name, pin->created,
           units_format_size(pin->size_bytes, size), units_format_size(alone_bytes, alone),
           *pin->clone_url ? "  held by the clone " : "", pin->clone_url);
    return 0;
}

static int print_json(void *ctx, const struct pin *pin, uint64_t alone_bytes)
{
    char buf[4096];
    struct json j;
    bool *some = ctx;

    json_begin(&j, buf, sizeof buf);
    json_string(&j, "name", pin->name);
    json_string(&j, "created", pin->created);
    json_number(&j, "size_bytes", pin->size_bytes);
    json_number(&j, "alone_bytes", alone_bytes);
    json_number(&j, "log_seq", pin->seq);
    if (*pin->clone_url)
        json_string(&j, "clone", pin->clone_url);
    else
        json_null(&j, "clone");
    int r = json_end(&j);
    printf("%s%s", *some ? "," : "[", r == 0 ? buf : "");
    *some = true;
    return r;
}

static int list(struct store *store, const struct options *options)
{
    bool some = false;
    int r = snapshot_list(store, options->json ? print_json : print_text, &some);

    if (options->json && (r == 0 || some))
        fputs(some ? "]\n" : "[]\n", stdout);
    return r;
}

/* ---------------------------------------------------------------------------- rollback */

static int rollback(struct store *store, const struct target *t)
{
    char path[PATH_MAX], before[PIN_NAME_MAX];

    if (mountpoint_of(t->url, path))
        return msg_error(-EBUSY, "%s: is mounted at %s; s3vol umount it first", t->url, path);
    int r = snapshot_rollback(store, t->name, before);
    if (r == 0)
        printf("what it was before is the snapshot %s\n", before);
    return r;
}

int command_snapshot(struct options *options)
{
    static const char *const verbs[] = {"create", "list", "delete", "rollback"};
    enum { CREATE, LIST, DELETE, ROLLBACK } verb = CREATE;
    struct store *store;
    struct target t;

    while (verb < ARRAY_SIZE(verbs) && strcmp(options->args[0], verbs[verb]) != 0)
        verb++;
    if (verb == ARRAY_SIZE(verbs)) {
        msg_error(0, "snapshot %s: must be create, list, delete or rollback", options->args[0]);
        return EXIT_USAGE;
    }
    if (options->json && verb != LIST) {
        msg_error(0, "snapshot %s: --json goes with list", options->args[0]);
        return EXIT_USAGE;
    }
    if (parse_target(options->args[1], &t) < 0)
        return EXIT_USAGE;
    if ((*t.name != 0) == (verb == LIST)) {
        msg_error(0, "snapshot %s: %s", options->args[0],
                  verb == LIST ? "takes a volume, without @NAME" : "needs URL@NAME");
        return EXIT_USAGE;
    }
    int r = store_open(&options->store, t.url, &store);
    if (r < 0)
        return EXIT_FAILED;
    r = verb == CREATE   ? create(store, &t)
        : verb == LIST   ? list(store, options)
        : verb == DELETE ? snapshot_delete(store, t.name)
                         : rollback(store, &t);
    store_free(store);
    return command_exit(r);
}

/* ---------------------------------------------------------------------------- clone */

struct saving {
    struct control_progress progress;
    int64_t shown_ms;
};

static void show_saving(void *ctx, const struct fork_saved *so_far)
{
    struct saving *s = ctx;
    char size[UNITS_TEXT_MAX];
    int64_t now = clock_system.now_ms();

    if (!isatty(STDERR_FILENO) || now < s->shown_ms + SHOW_MS)
        return;
    s->shown_ms = now;
    s->progress.shown = true;
    fprintf(stderr, "\r%s copied\033[K", units_format_size(so_far->copied_bytes, size));
    (void)fflush(stderr);
}

static void print_lost(void *ctx, uint64_t offset, uint64_t len)
{
    struct saving *s = ctx;

    control_shown(&s->progress);
    printf("lost: %" PRIu64 " bytes at %" PRIu64 "\n", len, offset);
}

static int save_fork(struct options *options, struct store *from, struct store *to)
{
    char cache_dir[PATH_MAX], size[UNITS_TEXT_MAX];
    struct saving s = {0};
    struct fork_watch watch = {&s, print_lost, show_saving};
    struct fork_saved saved;
    int r = command_cache_dir(options, cache_dir);

    if (r < 0)
        return r;
    options->volume.cache_dir = cache_dir;
    r = volume_save_fork(from, &options->volume, to, options->force, &watch, &saved);
    control_shown(&s.progress);
    if (r == 0)
        printf("saved: %s that %s does not have\n", units_format_size(saved.copied_bytes, size),
               store_url(from));
    return r;
}

int command_clone(struct options *options)
{
    struct store *from = NULL, *to = NULL;
    struct url there;
    struct target t;
    int r = parse_target(options->args[0], &t);

    if (r == 0)
        r = command_check_url(options->args[1]);
    if (r == 0)
        r = url_parse(options->args[1], &there);
    if (r == 0 && there.s3 != (strncmp(t.url, "s3://", 5) == 0))
        r = msg_error(-EINVAL, "%s: a clone is in the same kind of store as its base",
                      options->args[1]);
    if (r == 0 && options->local && (*t.mounted || *t.name))
        r = msg_error(-EINVAL, "%s: --local takes the URL of a volume, not a snapshot or a mount",
                      options->args[0]);
    if (r == 0 && options->force && !options->local)
        r = msg_error(-EINVAL, "clone: --force goes with --local");
    if (r < 0)
        return EXIT_USAGE;
    if (*t.mounted && !*t.name)
        r = flush_mounted(t.mounted);
    if (r == 0)
        r = store_open(&options->store, t.url, &from);
    if (r == 0)
        r = store_open(&options->store, options->args[1], &to);
    if (r == 0)
        r = options->local ? save_fork(options, from, to) : volume_clone(from, t.name, to);
    store_free(from);
    store_free(to);
    return command_exit(r);
}
