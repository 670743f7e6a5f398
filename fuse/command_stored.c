#include "command.h"

#include "../cache/offline.h"
#include "../store/msg.h"
#include "../store/scope.h"
#include "mountpoint.h"
#include "units.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>

int command_create(struct options *options)
{
    struct store *store;

    if (!options->create.size_bytes) {
        msg_error(0, "create: --size is missing: say how large the image is, for example "
                     "--size 10G");
        return EXIT_USAGE;
    }
    int r = command_open_store(options, options->args[0], &store);
    if (r < 0)
        return EXIT_FAILED;
    r = volume_create(store, &options->create);
    store_free(store);
    return command_exit(r);
}

/* ---------------------------------------------------------------------------- check */

/* What a repair does, before it is done. */
static void print_plan(const struct volume_repair *plan)
{
    char when[64] = "a time that nobody knows", size[UNITS_TEXT_MAX];
    time_t at = (time_t)(plan->wall_ms / 1000);
    struct tm tm;

    if (plan->wall_ms)
        strftime(when, sizeof when, "%Y-%m-%d %H:%M:%S UTC", gmtime_r(&at, &tm));
    if (plan->roots_damaged)
        printf("repair: the newest checkpoint is damaged; the map is made of %s\n",
               plan->checkpoint ? "an older one and the log" : "the log");
    printf("repair: the volume becomes what it was at log/%016" PRIx64 ", of %s (%s)\n", plan->seq,
           when, units_format_size(plan->size_bytes, size));
    if (plan->log_broken)
        printf("repair: behind that, %" PRIu64 " commits in %" PRIu64 " segments are given up, and "
               "what was in %" PRIu64 " damaged objects and in missing ones\n",
               plan->commits_lost, plan->segments_lost, plan->damaged);
    else
        printf("repair: that is the end of the log: nothing is lost\n");
    (void)fflush(stdout);
}

struct repairing {
    const struct options *options;
    const char *url;
};

static int agree_to_repair(void *ctx, const struct volume_repair *plan)
{
    const struct repairing *what = ctx;
    char answer[16];

    print_plan(plan);
    if (what->options->force)
        return 0;
    if (!isatty(STDIN_FILENO) || !isatty(STDERR_FILENO))
        return msg_error(-EPERM, "%s: not repaired; say --force if nobody can be asked", what->url);
    fprintf(stderr, "Repair %s like that? No machine may have it mounted. Type yes: ", what->url);
    return fgets(answer, sizeof answer, stdin) && strcmp(answer, "yes\n") == 0
               ? 0
               : msg_error(-ECANCELED, "%s: not repaired", what->url);
}

/* Only what keeps it from being mounted can be repaired. */
static int repair(struct options *options, struct store *store, uint64_t errors)
{
    struct repairing what = {options, store_url(store)};
    struct volume_repair plan;
    int r = volume_repair(store, agree_to_repair, &what, &plan);

    if (r < 0)
        return r;
    if (!plan.needed)
        return msg_error(-EBADMSG,
                         "%s: nothing was repaired: it can be mounted as it is, and the %s cannot "
                         "be undone",
                         store_url(store), errors == 1 ? "error that was found" : "errors");
    printf("repair: done; s3vol check tells whether blocks are still damaged\n");
    return 0;
}

static int may_repair(const struct options *options, const char *url)
{
    char path[PATH_MAX];

    if (options->repair && mountpoint_of(url, path))
        return msg_error(-EBUSY, "%s: is mounted at %s; s3vol umount it first", url, path);
    return 0;
}

int command_check(struct options *options)
{
    struct store *store;
    uint64_t errors = 0;
    int r = command_open_store(options, options->args[0], &store);

    if (r < 0)
        return EXIT_FAILED;
    r = may_repair(options, store_url(store));
    if (r == 0)
        r = volume_check(store, stdout, &errors);
    if (r == 0 && options->repair)
        r = errors ? repair(options, store, errors) : 0;
    else if (r == 0 && errors)
        r = msg_error(-EBADMSG, "%s: %" PRIu64 " %s found", store_url(store), errors,
                      errors == 1 ? "error was" : "errors were");
    store_free(store);
    return command_exit(r);
}

/* ---------------------------------------------------------------------------- list */

struct names {
    char **name;
    size_t n;
};

static int add_name(void *ctx, const char *key, uint64_t size_bytes)
{
    struct names *names = ctx;

    (void)size_bytes;
    if (strchr(key, '@'))
        return 0; /* would read as a snapshot: not ours */
    char **bigger = realloc(names->name, (names->n + 1) * sizeof *bigger);
    if (!bigger)
        return -ENOMEM;
    names->name = bigger;
    bigger[names->n] = strdup(key);
    return bigger[names->n] ? (names->n++, 0) : -ENOMEM;
}

/* One line, if there is a volume of that name. */
static int list_one(const struct options *options, const char *parent, const char *name)
{
    char url[STORE_URL_MAX], head[1], size[UNITS_TEXT_MAX];
    struct volume_info info;
    struct store *store;
    size_t len;
    int r = format(url, sizeof url, "%s/%s", parent, name);

    if (r < 0)
        return msg_error(r, "%s/%s: the URL is too long", parent, name);
    r = store_open(&options->store, url, &store);
    if (r < 0)
        return r;
    r = store_get_head(store, "volume", head, sizeof head, &len, NULL, PATIENCE_MS);
    if (r == 0)
        r = volume_info(store, &info);
    if (r == 0)
        printf("%-32s %s\n", name, units_format_size(info.size_bytes, size));
    store_free(store);
    return r == -ENOENT ? 0 : r;
}

int command_list(struct options *options)
{
    struct names names = {0};
    struct store *store;
    int r = command_open_store(options, options->args[0], &store);

    if (r < 0)
        return EXIT_FAILED;
    r = store_list_dirs(store, add_name, &names, PATIENCE_MS);
    for (size_t i = 0; i < names.n; i++) {
        int one = list_one(options, store_url(store), names.name[i]);
        r = r < 0 ? r : one;
        free(names.name[i]);
    }
    free(names.name);
    store_free(store);
    return command_exit(r);
}

/* ---------------------------------------------------------------------------- delete */

static bool confirm(const char *url)
{
    char answer[16];

    fprintf(stderr, "Delete the volume %s and all that is in it, for good? Type yes: ", url);
    return fgets(answer, sizeof answer, stdin) && strcmp(answer, "yes\n") == 0;
}

static int may_delete(const struct options *options, const char *url)
{
    char path[PATH_MAX];

    if (mountpoint_of(url, path))
        return msg_error(-EBUSY, "%s: is mounted at %s; s3vol umount it first", url, path);
    if (options->force)
        return 0;
    if (!isatty(STDIN_FILENO) || !isatty(STDERR_FILENO))
        return msg_error(-EPERM, "%s: not deleted; say --force if nobody can be asked", url);
    return confirm(url) ? 0 : msg_error(-ECANCELED, "%s: not deleted", url);
}

int command_delete(struct options *options)
{
    char head[1];
    size_t len;
    struct store *store;
    int r = command_open_store(options, options->args[0], &store);

    if (r < 0)
        return EXIT_FAILED;
    r = store_get_head(store, "volume", head, sizeof head, &len, NULL, PATIENCE_MS);
    if (r == -ENOENT)
        msg_error(r, "%s: there is no volume", store_url(store));
    if (r == 0)
        r = may_delete(options, store_url(store));
    if (r == 0)
        r = volume_delete(store);
    store_free(store);
    return command_exit(r);
}
