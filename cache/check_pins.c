/*
 * Checking what snapshots and clones rely on: the pins, the maps that they keep, and what a clone
 * has in its bases. First it is found out which objects these need; when all objects were read, and
 * something was found, the maps are walked again to tell of what it is a part.
 */
#include "check_internal.h"

#include "../store/scope.h"
#include "bases.h"
#include "catchup.h"
#include "snapshot.h"

#include <inttypes.h>
#include <string.h>

/* ------------------------------------------------------------------ the pins */

static int load_pin(void *ctx, const char *key, uint64_t size_bytes)
{
    struct check *c = ctx;
    struct pin pin;
    char name[PIN_NAME_MAX];

    (void)size_bytes;
    if (!pin_parse_key(key, name))
        return 0;
    int r = pin_load(c->store, &c->sb, name, &pin, CHECK_PATIENCE_MS);
    if (r == -EBADMSG || r == -EPROTONOSUPPORT)
        check_wrong(
            c, "%s: damaged: it cannot be used, and no space is reclaimed while it is there", key);
    if (r < 0)
        return check_is_damage(r) || r == -ENOENT ? 0 : r;
    struct pin *more = realloc(c->pins, (c->npins + 1) * sizeof *more);
    if (!more)
        return -ENOMEM;
    c->pins = more;
    c->pins[c->npins++] = pin;
    return 0;
}

int check_load_pins(struct check *c)
{
    return store_list(c->store, "snapshot/", "", load_pin, c, CHECK_PATIENCE_MS);
}

bool check_is_pinned_root(const struct check *c, uint64_t root)
{
    bool pinned = false;

    for (size_t i = 0; i < c->npins && !pinned; i++)
        pinned = c->pins[i].root == root;
    return pinned;
}

/* Runs `fn` over the map that the pin keeps. 1: that map cannot be read. */
static int each_pinned(struct check *c, const struct pin *pin, index_view_fn *fn, void *ctx)
{
    struct index_view *view = NULL;
    struct log_position pos;
    struct scratch *s;
    struct catchup up;
    int r = scratch_new(c->store, &c->sb, &s);

    if (r < 0)
        return r;
    r = catchup_to(s->log, s->index, pin->root, pin->seq, CHECK_PATIENCE_MS, &up);
    if (check_is_damage(r) || r == -ENOENT)
        r = 1;
    if (r == 0)
        r = index_view_begin(s->index, &view, &pos);
    if (r == 0)
        r = index_view_each(view, 0, VOLUME_BLOCKS_MAX / CHUNK_BLOCKS, fn, ctx);
    index_view_end(view);
    scratch_free(s);
    return r;
}

/* ------------------------------------------------------------------ what they need */

/* A clone of this volume has pins of its own in the bases of this one, and its own check looks. */
struct needing {
    struct check *c;
    bool of_clone;
};

static int need_places(void *ctx, const struct places *p)
{
    struct needing *need = ctx;
    struct check *c = need->c;
    int r = 0;

    for (unsigned i = 0; i < p->n && r == 0; i++)
        if (!p->e[i].base || !need->of_clone)
            r = tally_add(&c->needed[p->e[i].base], (struct tally_item){.seq = p->e[i].seq});
    return r;
}

/* 1: whoever made it, died before he had looked whether what it needs is there, so nothing relies
 * on it. */
static int is_unfinished(struct check *c, const struct pin *pin)
{
    int r = *pin->clone_url ? clone_needs_pin(c->store, pin) : !pin_is_pending(pin->name);

    return r < 0 ? r : !r;
}

/* What such a pin would need may be there, or gone, or in parts. */
static int leave_out_unfinished(struct check *c)
{
    size_t n = 0;
    int r = 0;

    for (size_t i = 0; i < c->npins && r >= 0; i++) {
        r = is_unfinished(c, &c->pins[i]);
        if (r == 0)
            c->pins[n++] = c->pins[i];
    }
    if (r >= 0)
        c->npins = n;
    return MIN(r, 0);
}

/* Deleted meanwhile, or never finished, is no damage. */
static int tell_unreadable(struct check *c, const struct pin *pin)
{
    char root[STORE_KEY_MAX], head[1];
    struct pin again;
    size_t len;
    int r = pin_load(c->store, &c->sb, pin->name, &again, CHECK_PATIENCE_MS);

    if (r == 0)
        r = is_unfinished(c, pin);
    if (r != 0)
        return r == -ENOENT ? 0 : MIN(r, 0);
    checkpoint_key(pin->root, root);
    r = pin->root ? store_get_head(c->store, root, head, sizeof head, &len, NULL, CHECK_PATIENCE_MS)
                  : 0;
    if (r < 0 && r != -ENOENT)
        return r;
    check_wrong(c, "snapshot/%s: the map that it keeps cannot be read%s%s", pin->name,
                r == -ENOENT ? ": is missing: " : "", r == -ENOENT ? root : "");
    return 0;
}

int check_find_needs(struct check *c)
{
    struct needing own = {.c = c}, clones = {.c = c, .of_clone = true};
    struct index_view *view;
    struct log_position pos;
    int r = index_view_begin(c->scratch->index, &view, &pos);

    if (r < 0)
        return r;
    if (c->sb.nbases) /* its own log is looked at anyway */
        r = index_view_each(view, 0, VOLUME_BLOCKS_MAX / CHUNK_BLOCKS, need_places, &own);
    index_view_end(view);
    if (r == 0)
        r = leave_out_unfinished(c);
    for (size_t i = 0; i < c->npins && r == 0; i++) {
        r = each_pinned(c, &c->pins[i], need_places, *c->pins[i].clone_url ? &clones : &own);
        if (r > 0)
            r = tell_unreadable(c, &c->pins[i]);
    }
    for (unsigned i = 0; i <= c->sb.nbases; i++)
        tally_settle(&c->needed[i]);
    for (size_t i = 0; i < c->needed[0].n && r == 0; i++)
        if (!check_is_there(c, c->needed[0].items[i].seq) &&
            !check_note_bad(c, 0, c->needed[0].items[i].seq, "is missing"))
            r = -ENOMEM;
    return r;
}

bool check_is_needed(const struct check *c, uint64_t seq)
{
    const struct tally *t = &c->needed[0];
    size_t low = 0, high = t->n;

    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (t->items[mid].seq < seq)
            low = mid + 1;
        else
            high = mid;
    }
    return low < t->n && t->items[low].seq == seq;
}

/* ------------------------------------------------------------------ a clone's bases */

/* 0: there is no pin for us; else what bases_open() would open. */
static int open_base(struct check *c, unsigned base, struct store **ret)
{
    const struct base *b = &c->sb.bases[base - 1];
    struct superblock there = {0};
    char name[PIN_NAME_MAX];
    struct pin pin;
    int r = store_open_beside(c->store, b->url, ret);

    if (r < 0)
        return r;
    memcpy(there.uuid, b->uuid, UUID_BYTES);
    bases_pin_name(c->sb.uuid, name);
    r = pin_load(*ret, &there, name, &pin, CHECK_PATIENCE_MS);
    if (r == 0)
        return 0;
    if (check_is_damage(r) || r == -ENOENT)
        check_wrong(c,
                    "%s: snapshot/%s: %s: it keeps %zu objects of the log there that this clone "
                    "needs",
                    b->url, name, r == -ENOENT ? "is missing" : "is damaged", c->needed[base].n);
    store_free(*ret);
    *ret = NULL;
    return check_is_damage(r) || r == -ENOENT ? 0 : r;
}

int check_bases(struct check *c)
{
    int r = 0;

    for (unsigned base = 1; base <= c->sb.nbases && r == 0; base++) {
        struct store *store = NULL;
        if (c->needed[base].n == 0)
            continue;
        if (!c->sb.flattened)
            r = open_base(c, base, &store);
        else
            check_wrong(c, "%s: is needed, though this clone was flattened",
                        c->sb.bases[base - 1].url);
        if (r == 0 && store)
            r = check_base_log(c, base, store);
        store_free(store);
    }
    return r;
}

/* ------------------------------------------------------------------ telling */

int check_tell_pins(struct check *c)
{
    int r = 0;

    for (size_t i = 0; i < c->npins && r == 0 && (c->nbad > 0 || c->nframes > 0); i++) {
        const struct pin *pin = &c->pins[i];
        struct check_walk w = {.c = c};
        (void)snprintf(w.note, sizeof w.note, " of snapshot %s%s%.500s", pin->name,
                       *pin->clone_url ? ", of the clone " : "", pin->clone_url);
        r = each_pinned(c, pin, check_places, &w);
        check_places_end(&w);
        r = MIN(r, 0); /* that it cannot be read was said */
    }
    return r;
}

void check_free_pins(struct check *c)
{
    free(c->pins);
    free(c->frames_bad);
    for (size_t i = 0; i < ARRAY_SIZE(c->needed); i++)
        free(c->needed[i].items);
}
