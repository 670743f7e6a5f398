#include "catchup.h"

#include "../store/checkpoint.h"
#include "../store/msg.h"
#include "../store/scope.h"
#include "scratch.h"

#include <string.h>

struct context {
    struct index *ix;
    struct catchup *c;
};

enum { ROLLED_BACK = 1 };

/* Whether this is what must not become part of the map. */
static bool is_foreign(struct index *ix, const struct catchup *c, const struct log_position *pos)
{
    struct index_meta meta;

    index_get_meta(ix, &meta);
    return c->ours_only && !index_is_ours(&meta, pos);
}

static int apply(void *ctx, const struct header *last, const struct entry *entries, size_t nentries,
                 const struct log_position *pos)
{
    struct context *x = ctx;

    uint64_t nsegments = last->kind == HEADER_SEGMENT ? last->seq - last->first + 1 : 0;

    if (last->kind == HEADER_CLAIM && is_foreign(x->ix, x->c, pos))
        return -ESTALE;
    x->c->segments += MAX(nsegments, UINT64_C(1));
    if (last->kind == HEADER_CLAIM && last->flags & HEADER_ROLLBACK) {
        x->c->rollback = *last;
        return ROLLED_BACK;
    }
    return index_apply(x->ix, entries, nentries, nsegments, pos, true);
}

static int reload_add(void *ctx, const struct entry *entries, size_t nentries)
{
    return index_reload_add(ctx, entries, nentries);
}

/* The new map takes effect, if it was made (`r`). */
static int end_reload(struct index *ix, const struct log_position *pos, int r,
                      const struct catchup_gate *gate)
{
    if (r == 0 && gate)
        r = index_reload_prepare(ix, pos);
    if (r == 0 && gate)
        r = gate->enter(gate->ctx);
    int end = index_reload_end(ix, pos, r == 0);
    return r < 0 ? r : end;
}

static int load_checkpoint(struct log *log, struct index *ix, int64_t patience_ms,
                           struct catchup *c, const struct catchup_gate *gate)
{
    struct log_position pos;
    int r = index_reload_begin(ix);

    if (r < 0)
        return r;
    r = checkpoint_load(log, c->checkpoint, reload_add, ix, patience_ms, &pos);
    if (r == 0 && is_foreign(ix, c, &pos)) {
        c->pos = pos;
        r = -ESTALE;
    }
    r = end_reload(ix, &pos, r, gate);
    if (r == 0)
        c->pos = pos;
    return r;
}

/* ------------------------------------------------------------------ another instant's map */

struct copying {
    struct index *to;
    unsigned add_base; /* 1: of our base, whose bases follow it in our superblock */
};

static int copy_places(void *ctx, const struct places *p)
{
    struct copying *c = ctx;
    struct places copy = *p;

    for (unsigned i = 0; i < copy.n; i++)
        copy.e[i].base = (uint16_t)(copy.e[i].base + c->add_base);
    return index_reload_add(c->to, copy.e, copy.n);
}

/* Replaces the map of `ix`, in one transaction, by that of an instant of a volume (`store`, `sb`):
 * it is made in an index of its own, so that half of it is never taken for all. */
static int copy_instant(struct store *store, const struct superblock *sb, uint64_t root,
                        uint64_t seq, unsigned add_base, struct index *ix,
                        const struct log_position *pos, int64_t patience_ms,
                        const struct catchup_gate *gate)
{
    struct copying copying = {ix, add_base};
    struct index_view *view = NULL;
    struct scratch *scratch;
    struct log_position there;
    struct catchup c;
    int r = scratch_new(store, sb, &scratch);

    if (r < 0)
        return r;
    r = catchup_to(scratch->log, scratch->index, root, seq, patience_ms, &c);
    if (r == 0)
        r = index_view_begin(scratch->index, &view, &there);
    if (r == 0)
        r = index_reload_begin(ix);
    if (r == 0) {
        r = index_view_each(view, 0, VOLUME_BLOCKS_MAX / CHUNK_BLOCKS, copy_places, &copying);
        r = end_reload(ix, pos, r, gate);
    }
    index_view_end(view);
    scratch_free(scratch);
    return r;
}

/* What a clone begins with. */
static int load_base(struct log *log, struct index *ix, int64_t patience_ms, struct catchup *c)
{
    const struct superblock *sb = log_superblock(log);
    const struct base *base = &sb->bases[0];
    struct log_position pos = {.next = 1, .size_blocks = sb->size_bytes / BLOCK_BYTES};
    struct superblock there;
    struct store *store;
    int r = store_open_beside(log_store(log), base->url, &store);

    if (r < 0)
        return r;
    r = superblock_load(store, &there, patience_ms);
    if (r == 0 && memcmp(there.uuid, base->uuid, UUID_BYTES) != 0)
        r = msg_error(-EIO, "%s: is another volume now than the one that %s is a clone of",
                      base->url, store_url(log_store(log)));
    if (r == 0)
        r = copy_instant(store, &there, base->root, base->seq, 1, ix, &pos, patience_ms, NULL);
    if (r == -ENOENT)
        r = msg_error(-EIO, "%s: what %s is a clone of is not there any more", base->url,
                      store_url(log_store(log)));
    store_free(store);
    if (r == 0)
        c->pos = pos;
    return r;
}

/* c->pos is the claim's already. */
static int roll_back(struct log *log, struct index *ix, int64_t patience_ms, struct catchup *c,
                     const struct catchup_gate *gate)
{
    int r = copy_instant(log_store(log), log_superblock(log), c->rollback.rollback_root,
                         c->rollback.rollback_seq, 0, ix, &c->pos, patience_ms, gate);

    c->rollback.kind = 0;
    return r;
}

/* ------------------------------------------------------------------ the log */

/* Reads on from c->pos: to the number `last`, or (SEQ_MAX) to the end. */
static int read_on(struct log *log, struct index *ix, uint64_t last, int64_t patience_ms,
                   struct catchup *c)
{
    struct context x = {ix, c};
    int r;

    do {
        r = last == SEQ_MAX ? log_replay(log, &c->pos, apply, &x, patience_ms, &c->missing)
                            : log_replay_to(log, &c->pos, last, apply, &x, patience_ms);
        if (r < 0 || !c->rollback.kind)
            return r;
        r = roll_back(log, ix, patience_ms, c, NULL);
    } while (r == 0);
    return r;
}

/* Where the log begins; a clone's map, unless it was loaded before. */
static int from_start(struct log *log, struct index *ix, int64_t patience_ms, struct catchup *c)
{
    const struct superblock *sb = log_superblock(log);
    struct index_meta meta;

    index_get_meta(ix, &meta);
    c->pos = (struct log_position){.next = 1, .size_blocks = sb->size_bytes / BLOCK_BYTES};
    return sb->nbases && meta.pos.size_blocks == 0 ? load_base(log, ix, patience_ms, c) : 0;
}

/* There is a checkpoint of somebody else's. What we had stored behind our map is read all the same,
 * up to what he has let go, or what is damaged (said). */
static int read_ours(struct log *log, struct index *ix, const struct log_position *pos,
                     int64_t patience_ms)
{
    struct catchup c = {.ours_only = true, .pos = *pos};
    int r = pos->seq ? read_on(log, ix, SEQ_MAX, patience_ms, &c) : 0;

    return r == 0 || r == -ENOENT || r == -EBADMSG ? -ESTALE : r;
}

/* What is missing of it was deleted, or is lost: to try again would be for ever. */
static int load_newest(struct log *log, struct index *ix, int64_t patience_ms, struct catchup *c)
{
    int r = load_checkpoint(log, ix, patience_ms, c, NULL);

    if (r != -ENOENT)
        return r;
    r = checkpoint_expect_parts(log, c->checkpoint, patience_ms);
    return r == 0 ? -ENOENT : r;
}

int catchup(struct log *log, struct index *ix, bool ours_only, int64_t patience_ms,
            struct catchup *ret)
{
    struct index_meta meta;
    int r;

    *ret = (struct catchup){.ours_only = ours_only};
    index_get_meta(ix, &meta);
    ret->pos = meta.pos;
    r = checkpoint_newest(log, &ret->checkpoint, patience_ms);
    if (r == 0 && meta.pos.seq < ret->checkpoint)
        r = load_newest(log, ix, patience_ms, ret);
    else if (r == 0 && meta.pos.seq == 0) /* nothing of the log was taken in yet */
        r = from_start(log, ix, patience_ms, ret);
    if (r == -ESTALE)
        return read_ours(log, ix, &meta.pos, patience_ms);
    return r == 0 ? read_on(log, ix, SEQ_MAX, patience_ms, ret) : r;
}

int catchup_to(struct log *log, struct index *ix, uint64_t root, uint64_t seq, int64_t patience_ms,
               struct catchup *ret)
{
    *ret = (struct catchup){.checkpoint = root};
    int r = root ? load_checkpoint(log, ix, patience_ms, ret, NULL)
                 : from_start(log, ix, patience_ms, ret);

    return r == 0 && ret->pos.seq < seq ? read_on(log, ix, seq, patience_ms, ret) : r;
}

int catchup_from_start(struct log *log, struct index *ix, int64_t patience_ms)
{
    struct catchup c = {0};

    log_go_back(log);
    int r = from_start(log, ix, patience_ms, &c);

    return r == 0 ? read_on(log, ix, SEQ_MAX, patience_ms, &c) : r;
}

int catchup_begin(struct log *log, struct index *ix, int64_t patience_ms,
                  struct log_position *ret_pos)
{
    struct catchup c = {0};
    int r = from_start(log, ix, patience_ms, &c);

    if (r == 0)
        *ret_pos = c.pos;
    return r;
}

int catchup_load(struct log *log, struct index *ix, uint64_t root, int64_t patience_ms,
                 const struct catchup_gate *gate, struct log_position *ret_pos)
{
    struct catchup c = {.checkpoint = root};
    int r = load_checkpoint(log, ix, patience_ms, &c, gate);

    if (r == 0)
        *ret_pos = c.pos;
    return r;
}

int catchup_roll_back(struct log *log, struct index *ix, const struct header *claim,
                      const struct log_position *pos, int64_t patience_ms,
                      const struct catchup_gate *gate)
{
    struct catchup c = {.pos = *pos, .rollback = *claim};

    return roll_back(log, ix, patience_ms, &c, gate);
}
