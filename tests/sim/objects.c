#include "objects.h"

#include "../../store/scope.h"

#include <stdlib.h>
#include <string.h>

static struct {
    struct object *objects; /* by key */
    size_t n, room;
} volumes[VOLUMES];

static size_t place_of(int volume, const char *key)
{
    size_t from = 0, to = volumes[volume].n;

    while (from < to) {
        size_t mid = (from + to) / 2;
        if (strcmp(volumes[volume].objects[mid].key, key) < 0)
            from = mid + 1;
        else
            to = mid;
    }
    return from;
}

const struct object *objects_end(int volume)
{
    return volumes[volume].objects + volumes[volume].n;
}

struct object *objects_from(int volume, const char *key)
{
    return volumes[volume].objects + place_of(volume, key);
}

struct object *objects_find(int volume, const char *key)
{
    struct object *o = objects_from(volume, key);

    return o < objects_end(volume) && strcmp(o->key, key) == 0 ? o : NULL;
}

void objects_set(int volume, const char *key, uint8_t *data, size_t len)
{
    struct object *o = objects_find(volume, key);

    if (!o) {
        size_t at = place_of(volume, key), *n = &volumes[volume].n, *room = &volumes[volume].room;
        struct object **all = &volumes[volume].objects;
        if (*n == *room) {
            *room = 2 * *room + 64;
            struct object *more = realloc(*all, *room * sizeof **all);
            if (!more)
                abort();
            *all = more;
        }
        o = *all + at;
        memmove(o + 1, o, ((*n)++ - at) * sizeof *o);
        *o = (struct object){0};
        (void)snprintf(o->key, sizeof o->key, "%s", key);
    }
    free(o->data);
    o->data = data;
    o->len = len;
}

void objects_drop(int volume, const char *key)
{
    struct object *o = objects_find(volume, key);

    if (!o)
        return;
    free(o->data);
    volumes[volume].n--;
    memmove(o, o + 1, (size_t)(objects_end(volume) - o) * sizeof *o);
}

size_t objects_count(int volume, const char *prefix)
{
    const struct object *o = objects_from(volume, prefix), *end = objects_end(volume);
    size_t n = 0;

    for (; o < end && strncmp(o->key, prefix, strlen(prefix)) == 0; o++)
        n++;
    return n;
}

uint64_t objects_number(const struct object *o, const char *prefix)
{
    return strncmp(o->key, prefix, strlen(prefix)) == 0
               ? strtoull(o->key + strlen(prefix), NULL, 16)
               : 0;
}
