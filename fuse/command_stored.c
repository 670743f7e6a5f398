#include "command.h"

#include "../cache/offline.h"
#include "../store/msg.h"
#include "../store/scope.h"
#include "mountpoint.h"
#include "units.h"

#include <inttypes.h>
#include <string.h>

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

int command_check(struct options *options)
{
    struct store *store;
    uint64_t errors = 0;
    int r = command_open_store(options, options->args[0], &store);

    if (r < 0)
        return EXIT_FAILED;
    r = volume_check(store, stdout, &errors);
    if (r == 0 && errors)
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
