#include "exports.h"

#include "../../store/msg.h"
#include "../../store/scope.h"
#include "protocol.h"
#include "volumes.h"

#include <string.h>

struct entry {
    struct export export; /* image NULL: not open */
    char *path;           /* NULL: a volume */
    unsigned users;
    bool opening; /* or closing, by somebody without the lock */
    struct entry *next;
};

struct exports {
    bool read_only;
    struct volumes *volumes;
    pthread_mutex_t lock;   /* guards what follows, but for what never changes in an entry */
    pthread_cond_t changed; /* nobody is opening an entry any more */
    unsigned count;         /* of those with a path, which come first */
    struct entry *first, **last;
};

int exports_new(bool read_only, struct volumes *volumes, struct exports **ret_exports)
{
    struct exports *exports = calloc(1, sizeof *exports);

    if (!exports)
        return -ENOMEM;
    exports->read_only = read_only;
    exports->volumes = volumes;
    pthread_mutex_init(&exports->lock, NULL);
    pthread_cond_init(&exports->changed, NULL);
    exports->last = &exports->first;
    *ret_exports = exports;
    return 0;
}

static void free_entry(struct entry *entry)
{
    free((char *)entry->export.name);
    free((char *)entry->export.description);
    free(entry->path);
    free(entry);
}

void exports_free(struct exports *exports)
{
    if (!exports)
        return;
    for (struct entry *entry; (entry = exports->first);) {
        INVARIANT(!entry->users);
        exports->first = entry->next;
        free_entry(entry);
    }
    pthread_cond_destroy(&exports->changed);
    pthread_mutex_destroy(&exports->lock);
    free(exports);
}

/* ----------------------------------------------------------------------------- the list */

static struct entry *find(const struct exports *exports, const char *name)
{
    struct entry *entry = exports->first;

    if (!*name && exports->count == 1 && !exports->volumes)
        return entry;
    while (entry && strcmp(entry->export.name, name) != 0)
        entry = entry->next;
    return entry;
}

static struct entry *append(struct exports *exports, const char *name, size_t name_len,
                            const char *description, const char *path)
{
    struct entry *entry = calloc(1, sizeof *entry);

    if (!entry)
        return NULL;
    entry->export.name = strndup(name, name_len);
    entry->export.description = strdup(description);
    entry->path = path ? strdup(path) : NULL;
    if (!entry->export.name || !entry->export.description || (path && !entry->path)) {
        free_entry(entry);
        return NULL;
    }
    *exports->last = entry;
    exports->last = &entry->next;
    return entry;
}

int exports_add(struct exports *exports, const char *word)
{
    size_t len = strcspn(word, "=/");
    const char *path = word[len] == '=' ? word + len + 1 : word;
    struct image *image;

    if (path == word)
        len = 0;
    if (!*path)
        return msg_error(-EINVAL, "%s: there is no path; write NAME=PATH or PATH", word);
    if (len > NBD_STRING_MAX)
        return msg_error(-EINVAL, "the name of %s is too long", path);
    if (exports->count == EXPORTS_MAX)
        return msg_error(-E2BIG, "%s: there can be %d exports", word, EXPORTS_MAX);
    for (struct entry *e = exports->first; e; e = e->next)
        if (strlen(e->export.name) == len && memcmp(e->export.name, word, len) == 0)
            return msg_error(-EEXIST, "%s: %s has the same name; write NAME=PATH", word, e->path);
    int r = image_open(path, exports->read_only, &image);
    if (r < 0)
        return r;
    image_close(image);
    if (!append(exports, word, len, path, path))
        return -ENOMEM;
    exports->count++;
    return 0;
}

unsigned exports_count(const struct exports *exports)
{
    return exports->count;
}

void exports_describe(const struct exports *exports, unsigned i, const char **ret_name,
                      const char **ret_description)
{
    const struct entry *entry = exports->first;

    while (i--)
        entry = entry->next;
    *ret_name = entry->export.name;
    *ret_description = entry->export.description;
}

/* ----------------------------------------------------------------------------- using them */

/* Without the lock. */
static int open_entry(struct exports *exports, struct entry *entry, struct image **ret_image)
{
    char *path;

    if (entry->path)
        return image_open(entry->path, exports->read_only, ret_image);
    int r = volumes_acquire(exports->volumes, entry->export.name, &path);
    if (r < 0)
        return r;
    r = image_open(path, exports->read_only, ret_image);
    free(path);
    if (r < 0)
        volumes_release(exports->volumes, entry->export.name, true);
    return r;
}

/* The lock is let go meanwhile. */
static void close_locked(struct exports *exports, struct entry *entry)
{
    entry->opening = true;
    pthread_mutex_unlock(&exports->lock);
    image_close(entry->export.image);
    if (!entry->path)
        volumes_release(exports->volumes, entry->export.name, false);
    pthread_mutex_lock(&exports->lock);
    entry->export.image = NULL;
    entry->opening = false;
    pthread_cond_broadcast(&exports->changed);
}

/* An entry that is a volume is there only while it is used. */
static void forget_unused_locked(struct exports *exports, struct entry *entry)
{
    if (entry->users || entry->opening || entry->path || entry->export.image)
        return;
    struct entry **at = &exports->first;
    while (*at != entry)
        at = &(*at)->next;
    *at = entry->next;
    if (!*at)
        exports->last = at;
    free_entry(entry);
}

int exports_acquire(struct exports *exports, const char *name, struct export **ret_export)
{
    scope_lock(&exports->lock);
    struct entry *entry = find(exports, name);

    if (!entry) {
        if (!exports->volumes || !volumes_check_name(name))
            return -ENOENT;
        entry = append(exports, name, strlen(name), "volume on demand", NULL);
        if (!entry)
            return -ENOMEM;
    }
    entry->users++;
    while (entry->opening)
        pthread_cond_wait(&exports->changed, &exports->lock);
    int r = 0;
    if (!entry->export.image) {
        struct image *image = NULL;
        entry->opening = true;
        pthread_mutex_unlock(&exports->lock);
        r = open_entry(exports, entry, &image);
        pthread_mutex_lock(&exports->lock);
        entry->opening = false;
        entry->export.image = image;
        pthread_cond_broadcast(&exports->changed);
    }
    if (r == 0) {
        *ret_export = &entry->export;
        return 0;
    }
    entry->users--;
    forget_unused_locked(exports, entry);
    return r;
}

void exports_release(struct exports *exports, struct export *export)
{
    struct entry *entry = (struct entry *)export;

    scope_lock(&exports->lock);
    if (entry->users == 1) {
        /* Still counted, so that nobody forgets it; who comes meanwhile waits and opens it anew. */
        close_locked(exports, entry);
    }
    entry->users--;
    forget_unused_locked(exports, entry);
}
