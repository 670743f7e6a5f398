/* Checking checkpoints, and the map against what is there. */
#include "check_internal.h"

#include "../store/scope.h"

#include <inttypes.h>
#include <string.h>

/* ------------------------------------------------------------------ checkpoints */

/* What the listings of roots and parts say is there. */
struct listed {
    uint64_t seq;
    uint32_t index; /* of a part */
    uint64_t size_bytes;
    bool checked;
};

struct listing {
    struct listed *items; /* ascending */
    size_t n, room;
};

static int add_listed(struct listing *l, struct listed item)
{
    if (l->n == l->room) {
        size_t room = MAX(2 * l->room, (size_t)256);
        struct listed *more = realloc(l->items, room * sizeof *more);
        if (!more)
            return -ENOMEM;
        l->items = more;
        l->room = room;
    }
    l->items[l->n++] = item;
    return 0;
}

static int add_root(void *ctx, const char *key, uint64_t size_bytes)
{
    struct listed item = {.size_bytes = size_bytes};

    return checkpoint_parse_key(key, &item.seq) ? add_listed(ctx, item) : 0;
}

static int add_part(void *ctx, const char *key, uint64_t size_bytes)
{
    struct listed item = {.size_bytes = size_bytes};

    return part_parse_key(key, &item.seq, &item.index) ? add_listed(ctx, item) : 0;
}

static int by_name(const void *a, const void *b)
{
    const struct listed *x = a, *y = b;

    return x->seq != y->seq       ? (x->seq < y->seq ? -1 : 1)
           : x->index != y->index ? (x->index < y->index ? -1 : 1)
                                  : 0;
}

/* The whole object, or more of it than it could have; the caller frees it. */
static int read_whole(struct check *c, const char *key, uint64_t size_bytes, uint8_t **ret_data,
                      size_t *ret_len)
{
    size_t room = (size_t)MIN(size_bytes + 1, UINT64_C(64) << 20);
    scope_free uint8_t *data = malloc(room);

    if (!data)
        return -ENOMEM;
    int r = store_get_head(c->store, key, data, room, ret_len, NULL, CHECK_PATIENCE_MS);
    if (r == 0)
        *ret_data = take(data);
    return r;
}

static int decode_part(struct check *c, const struct part_list *list, size_t i, const char *key,
                       uint64_t size_bytes, const char **ret_why)
{
    scope_free struct entry *entries = calloc(PART_ENTRIES, sizeof *entries);
    scope_free uint8_t *data = NULL;
    size_t len;

    if (!entries)
        return -ENOMEM;
    *ret_why = "cannot be read";
    int r = read_whole(c, key, size_bytes, &data, &len);
    return r < 0 ? r : part_decode(&c->sb, list, i, data, len, entries, ret_why);
}

/* Of a root that is not the newest a part may be missing: a fenced writer stored that root late,
 * or it is being deleted. Nobody reads it. */
static bool may_be_missing(struct check *c, uint64_t root, bool newest)
{
    char key[STORE_KEY_MAX], head[1];
    size_t len;

    checkpoint_key(root, key);
    return !newest || store_get_head(c->store, key, head, sizeof head, &len, NULL,
                                     CHECK_PATIENCE_MS) == -ENOENT;
}

/* Part number `i` of a root. */
static int check_part(struct check *c, const struct listing *there, const struct part_list *list,
                      size_t i, const struct header *root, bool newest)
{
    const struct part *part = &list->parts[i];
    struct listed name = {.seq = part->seq, .index = part->index};
    struct listed *found =
        there->n ? bsearch(&name, there->items, there->n, sizeof name, by_name) : NULL;
    uint64_t block = part->first_chunk * CHUNK_BLOCKS;
    uint64_t end = MIN(part_end_chunk(list, i) * CHUNK_BLOCKS, root->size_blocks);
    const char *why = "";
    char key[STORE_KEY_MAX];
    int r = -ENOENT;

    part_key(part->seq, part->index, key);
    if (found && found->checked)
        return 0;
    if (found) {
        found->checked = true;
        r = decode_part(c, list, i, key, found->size_bytes, &why);
    }
    if (r == 0 || (r == -ENOENT && may_be_missing(c, root->seq, newest)))
        return 0;
    if (r != -ENOENT && !check_is_damage(r))
        return r;
    check_wrong(c, "%s: %s: the map of blocks %" PRIu64 " to %" PRIu64, key,
                r == -ENOENT ? "is missing" : why, block, end - 1);
    return 0;
}

static int check_root(struct check *c, const struct listing *parts, const struct listed *root,
                      bool newest)
{
    scope_free uint8_t *data = NULL;
    struct part_list list = {0};
    const char *why = "cannot be read";
    char key[STORE_KEY_MAX];
    struct header h;
    size_t len;

    checkpoint_key(root->seq, key);
    int r = read_whole(c, key, root->size_bytes, &data, &len);
    if (r == -ENOENT)
        return 0; /* deleted meanwhile */
    if (r == 0)
        r = part_list_decode(&c->sb, root->seq, data, len, &h, &list, &why);
    if (check_is_damage(r)) {
        check_wrong(c, "%s: %s: the map of all blocks%s", key, why,
                    newest ? "" : " (there is a newer one: no loss)");
        return 0;
    }
    for (size_t i = 0; i < list.nparts && r == 0; i++)
        r = check_part(c, parts, &list, i, &h, newest);
    if (r == 0 && !c->root) {
        c->root = h.seq;
        c->needed_from = h.next;
        c->claim = h.claim;
    }
    free(list.parts);
    return r;
}

int check_checkpoints(struct check *c)
{
    struct listing roots = {0}, parts = {0};
    int r = store_list(c->store, "map/", "", add_root, &roots, CHECK_PATIENCE_MS);

    if (r == 0)
        r = store_list(c->store, "part/", "", add_part, &parts, CHECK_PATIENCE_MS);
    /* one as of its own claim begins anew: what is older was given up with it */
    for (size_t i = roots.n; i > 0 && r == 0 && (!c->root || c->claim != c->root); i--)
        r = check_root(c, &parts, &roots.items[i - 1], i == roots.n);
    free(roots.items);
    free(parts.items);
    return r;
}

/* ------------------------------------------------------------------ the map */

static void tell(struct check *c, struct bad_object *bad)
{
    if (bad->block == bad->end)
        return;
    check_wrong_blocks(c, bad->seq, bad->why, bad->block, bad->end, "");
    bad->block = bad->end;
    bad->told = true;
}

static int check_places(void *ctx, const struct places *p)
{
    struct check *c = ctx;

    for (unsigned i = 0; i < p->n; i++) {
        const struct entry *e = &p->e[i];
        if (e->base) /* its own check looks at it */
            continue;
        struct bad_object *bad = check_is_there(c, e->seq)
                                     ? check_find_bad(c, e->seq)
                                     : check_note_bad(c, e->seq, "is missing");
        if (!bad && !check_is_there(c, e->seq))
            return -ENOMEM;
        if (!bad)
            continue;
        if (bad->end != e->block) {
            tell(c, bad);
            bad->block = e->block;
        }
        bad->end = e->block + e->nblocks;
    }
    return 0;
}

int check_map(struct check *c)
{
    struct index_view *view;
    struct log_position pos;
    int r = index_view_begin(c->scratch->index, &view, &pos);

    if (r < 0)
        return r;
    r = index_view_each(view, 0, VOLUME_BLOCKS_MAX / CHUNK_BLOCKS, check_places, c);
    index_view_end(view);
    for (size_t i = 0; i < c->nbad && r == 0; i++) {
        struct bad_object *bad = &c->bad[i];
        tell(c, bad);
        if (!bad->told)
            check_wrong(c, "log/%016" PRIx64 ": %s%s", bad->seq, bad->why,
                        c->whole && bad->seq <= c->map.seq ? " (the map needs nothing of it)" : "");
    }
    return r;
}
