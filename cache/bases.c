#include "bases.h"

#include "../store/msg.h"
#include "../store/scope.h"

#include <string.h>

void bases_pin_name(const uint8_t uuid[UUID_BYTES], char name[PIN_NAME_MAX])
{
    char text[UUID_TEXT_BYTES];

    uuid_format(uuid, text);
    (void)snprintf(name, PIN_NAME_MAX, "clone-%s", text);
}

/* The pin has the uuid of the base, so it also tells that this is the volume that it was. Without
 * it nothing of the base can be relied on. */
static int open_one(struct store *store, const struct superblock *sb, const struct base *base,
                    int64_t patience_ms, struct store **ret)
{
    struct superblock there = {0};
    char name[PIN_NAME_MAX];
    struct pin pin;
    int r = store_open_beside(store, base->url, ret);

    if (r < 0)
        return r;
    memcpy(there.uuid, base->uuid, UUID_BYTES);
    bases_pin_name(sb->uuid, name);
    r = pin_load(*ret, &there, name, &pin, patience_ms);
    if (r < 0) {
        store_free(*ret);
        *ret = NULL;
    }
    return r == -ENOENT ? 0 : r;
}

int bases_open(struct store *store, const struct superblock *sb, int64_t patience_ms,
               struct bases *ret)
{
    struct bases b = {.n = sb->nbases};
    int r = 0;

    for (unsigned i = 0; i < superblock_needed_bases(sb) && r == 0; i++)
        r = open_one(store, sb, &sb->bases[i], patience_ms, &b.stores[i]);
    if (r < 0)
        bases_close(&b);
    else
        *ret = b;
    return r;
}

bool bases_reachable(const struct bases *b)
{
    struct store_stats stats;
    bool all = true;

    for (unsigned i = 0; i < b->n; i++)
        if (b->stores[i]) {
            store_get_stats(b->stores[i], &stats);
            all = all && stats.reachable;
        }
    return all;
}

void bases_stop(struct bases *b)
{
    for (unsigned i = 0; i < b->n; i++)
        if (b->stores[i])
            store_stop(b->stores[i]);
}

void bases_close(struct bases *b)
{
    for (unsigned i = 0; i < b->n; i++)
        store_free(b->stores[i]);
    b->n = 0;
}
