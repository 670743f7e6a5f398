#include "catchup.h"

#include "../store/checkpoint.h"
#include "../store/scope.h"

struct context {
    struct index *ix;
    struct catchup *c;
};

static int apply(void *ctx, const struct header *last, const struct entry *entries, size_t nentries,
                 const struct log_position *pos)
{
    struct context *x = ctx;

    uint64_t nsegments = last->kind == HEADER_SEGMENT ? last->seq - last->first + 1 : 0;

    x->c->segments += MAX(nsegments, UINT64_C(1));
    return index_apply(x->ix, entries, nentries, nsegments, pos, true);
}

static int reload_add(void *ctx, const struct entry *entries, size_t nentries)
{
    return index_reload_add(ctx, entries, nentries);
}

static int load_checkpoint(struct log *log, struct index *ix, int64_t patience_ms,
                           struct catchup *c)
{
    struct log_position pos;
    int r = index_reload_begin(ix);

    if (r < 0)
        return r;
    r = checkpoint_load(log, c->checkpoint, reload_add, ix, patience_ms, &pos);
    int end = index_reload_end(ix, &pos, r == 0);
    if (r == 0 && end == 0)
        c->pos = pos;
    return r < 0 ? r : end;
}

int catchup(struct log *log, struct index *ix, int64_t patience_ms, struct catchup *ret)
{
    struct index_meta meta;
    struct context x = {ix, ret};
    int r;

    *ret = (struct catchup){0};
    index_get_meta(ix, &meta);
    ret->pos = meta.pos;
    if (meta.pos.seq == 0) /* nothing was taken in yet, whatever else is in there */
        ret->pos.size_blocks = log_superblock(log)->size_bytes / BLOCK_BYTES;
    r = checkpoint_newest(log, &ret->checkpoint, patience_ms);
    if (r == 0 && ret->pos.seq < ret->checkpoint)
        r = load_checkpoint(log, ix, patience_ms, ret);
    return r == 0 ? log_replay(log, &ret->pos, apply, &x, patience_ms, &ret->missing) : r;
}

int catchup_follow(struct log *log, struct index *ix, int64_t patience_ms, struct catchup *c)
{
    struct context x = {ix, c};

    return log_follow(log, &c->pos, apply, &x, patience_ms, &c->missing);
}
