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

/* Of a root that is not the newest, nor pinned, a part may be missing: a fenced writer stored that
 * root late, or it is being deleted. Nobody reads it. */
static bool may_be_missing(struct check *c, uint64_t root, bool needed)
{
    char key[STORE_KEY_MAX], head[1];
    size_t len;

    checkpoint_key(root, key);
    return !needed || store_get_head(c->store, key, head, sizeof head, &len, NULL,
                                     CHECK_PATIENCE_MS) == -ENOENT;
}

/* Part number `i` of a root. */
static int check_part(struct check *c, const struct listing *there, const struct part_list *list,
                      size_t i, const struct header *root, bool needed)
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
    if (r == 0 || (r == -ENOENT && may_be_missing(c, root->seq, needed)))
        return 0;
    if (r != -ENOENT && !check_is_damage(r))
        return r;
    check_wrong(c, "%s: %s: the map of blocks %" PRIu64 " to %" PRIu64, key,
                r == -ENOENT ? "is missing" : why, block, end - 1);
    return 0;
}

/* `needed`: it is the newest, or pinned. */
static int check_root(struct check *c, const struct listing *parts, const struct listed *root,
                      bool needed)
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
                    needed ? "" : " (there is a newer one: no loss)");
        return 0;
    }
    for (size_t i = 0; i < list.nparts && r == 0; i++)
        r = check_part(c, parts, &list, i, &h, needed);
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
    for (size_t i = roots.n; i > 0 && r == 0; i--) {
        bool pinned = check_is_pinned_root(c, roots.items[i - 1].seq);
        if (!c->root || c->claim != c->root || pinned)
            r = check_root(c, &parts, &roots.items[i - 1], i == roots.n || pinned);
    }
    free(roots.items);
    free(parts.items);
    return r;
}

/* ------------------------------------------------------------------ the map */

static void tell(struct check_walk *w, struct bad_object *bad)
{
    if (bad->block == bad->end)
        return;
    check_wrong_blocks(w->c, bad->base, bad->seq, bad->why, bad->block, bad->end, w->note);
    bad->block = bad->end;
    bad->told = true;
}

/* The volume's own map in its own log: those were told of as they were read. */
static void tell_of_frames(struct check_walk *w, const struct entry *e)
{
    struct check *c = w->c;
    char why[64];

    if (!*w->note && !e->base)
        return;
    for (size_t i = 0; i < c->nframes; i++) {
        struct bad_frame *f = &c->frames_bad[i];
        if (f->base != e->base || f->seq != e->seq || f->offset != e->offset)
            continue;
        (void)snprintf(why, sizeof why, "damaged at byte %" PRIu32, e->offset);
        check_wrong_blocks(c, e->base, e->seq, why, e->block, e->block + e->nblocks, w->note);
        f->told = true;
        return; /* a frame of moves has several entries */
    }
}

int check_places(void *walk, const struct places *p)
{
    struct check_walk *w = walk;
    struct check *c = w->c;

    for (unsigned i = 0; i < p->n; i++) {
        const struct entry *e = &p->e[i];
        bool there = e->base || check_is_there(c, e->seq); /* a base's was looked for before */
        struct bad_object *bad =
            there ? check_find_bad(c, e->base, e->seq) : check_note_bad(c, 0, e->seq, "is missing");
        if (!bad && !there)
            return -ENOMEM;
        tell_of_frames(w, e);
        if (!bad)
            continue;
        if (bad->end != e->block) {
            tell(w, bad);
            bad->block = e->block;
        }
        bad->end = e->block + e->nblocks;
    }
    return 0;
}

void check_places_end(struct check_walk *w)
{
    for (size_t i = 0; i < w->c->nbad; i++) {
        struct bad_object *bad = &w->c->bad[i];
        tell(w, bad);
        bad->block = bad->end = 0; /* the next map begins anew */
    }
}

int check_map(struct check *c)
{
    struct check_walk w = {.c = c};
    struct index_view *view;
    struct log_position pos;
    int r = index_view_begin(c->scratch->index, &view, &pos);

    if (r < 0)
        return r;
    r = index_view_each(view, 0, VOLUME_BLOCKS_MAX / CHUNK_BLOCKS, check_places, &w);
    index_view_end(view);
    if (r == 0)
        check_places_end(&w);
    return r;
}

void check_tell_rest(struct check *c)
{
    char why[64];

    for (size_t i = 0; i < c->nbad; i++) {
        struct bad_object *bad = &c->bad[i];
        if (!bad->told)
            check_wrong(c, "log/%016" PRIx64 ": %s%s", bad->seq, bad->why,
                        c->whole && bad->seq <= c->map.seq ? " (the map needs nothing of it)" : "");
    }
    for (size_t i = 0; i < c->nframes; i++) {
        const struct bad_frame *f = &c->frames_bad[i];
        (void)snprintf(why, sizeof why, "damaged at byte %" PRIu32, f->offset);
        if (!f->told)
            check_wrong_blocks(c, 0, f->seq, why, f->entry.block, f->entry.block + f->entry.nblocks,
                               " (nothing needs them: no loss)");
    }
}
