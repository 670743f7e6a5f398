/*
 * Flattening: a clone's blocks that are in its bases are copied into its own log, by the mover, as
 * garbage collection does. Then nothing of it needs the bases, and they are let go of. In an order
 * that may end after any step (DESIGN.md, "Flattening").
 */
#include "mover.h"
#include "scratch.h"
#include "snapshot.h"
#include "volume_internal.h"

#include "../store/msg.h"
#include "../store/scope.h"
#include "catchup.h"

#include <inttypes.h>
#include <string.h>

enum { HITS = 64, PATIENCE_MS = 60000, NAMES_BYTES = 400 };

struct flattener {
    struct volume *v;
    struct mover *mover;
    bool carefully;  /* a commit for each chunk: one damaged frame holds back no other */
    uint64_t blocks; /* counted, or added to the mover */
};

/* ------------------------------------------------------------------ the map */

static bool is_stopping(struct volume *v)
{
    scope_lock(&v->chunks.lock);
    return v->stopping || atomic_load(&v->moves_stopped);
}

static int each_chunk(struct flattener *f, int (*fn)(struct flattener *f, const struct places *p))
{
    const uint64_t last = VOLUME_BLOCKS_MAX / CHUNK_BLOCKS - 1;
    struct index_hit hits[HITS];
    struct places p;
    uint64_t chunk = 0;
    size_t n = HITS;
    int r = 0;

    while (r == 0 && n == HITS) {
        r = is_stopping(f->v) ? -ECANCELED : index_scan(f->v->index, chunk, last, hits, HITS, &n);
        for (size_t i = 0; i < n && r == 0; i++) {
            r = index_load(f->v->index, hits[i].chunk, &p);
            if (r == 0)
                r = fn(f, &p);
            chunk = hits[i].chunk + 1;
        }
    }
    return r;
}

static uint64_t blocks_in_bases(const struct places *p)
{
    uint64_t n = 0;

    for (unsigned i = 0; i < p->n; i++)
        n += p->e[i].base ? p->e[i].nblocks : 0;
    return n;
}

static int count_chunk(struct flattener *f, const struct places *p)
{
    f->blocks += blocks_in_bases(p);
    return 0;
}

static void tell_left(struct volume *v, uint64_t blocks)
{
    scope_lock(&v->chunks.lock);
    v->flatten_blocks = blocks;
}

static int count(struct flattener *f, uint64_t *ret_blocks)
{
    f->blocks = 0;
    int r = each_chunk(f, count_chunk);
    if (r == 0) {
        *ret_blocks = f->blocks;
        tell_left(f->v, f->blocks);
    }
    f->blocks = 0;
    return r;
}

/* ------------------------------------------------------------------ moving */

static int commit(struct flattener *f)
{
    struct volume *v = f->v;
    uint64_t bytes = 0, bad;
    int r = mover_commit(f->mover, &bytes, &bad);

    if (r == -EBADMSG)
        r = 0; /* said; what is left is counted */
    scope_lock(&v->chunks.lock);
    v->moved_bytes += bytes;
    v->flatten_blocks -= MIN(v->flatten_blocks, f->blocks);
    f->blocks = 0;
    return r;
}

static int move_chunk(struct flattener *f, const struct places *p)
{
    int r = 0;

    for (unsigned i = 0; i < p->n && r == 0; i++) {
        if (!p->e[i].base)
            continue;
        if (!mover_add(f->mover, &p->e[i])) {
            r = commit(f);
            if (r == 0)
                INVARIANT(mover_add(f->mover, &p->e[i]));
        }
        f->blocks += p->e[i].nblocks;
    }
    return r == 0 && f->carefully ? commit(f) : r;
}

/* Everything, if it can be read. What is written meanwhile is ours anyway. */
static int move_all(struct flattener *f)
{
    uint64_t left = 0;
    int r = count(f, &left);

    for (int pass = 0; pass < 2 && r == 0 && left > 0; pass++) {
        f->carefully = pass > 0;
        r = each_chunk(f, move_chunk);
        if (r == 0)
            r = commit(f);
        if (r == 0)
            r = count(f, &left);
    }
    if (r == 0 && left > 0)
        r = msg_error(-EIO,
                      "%s: %" PRIu64 " blocks cannot be read from what it is a clone of, so it "
                      "still depends on that; overwrite or discard them: `s3vol check` names them",
                      store_url(f->v->store), left);
    return r;
}

/* ------------------------------------------------------------------ its snapshots */

static int has_base(void *ctx, const struct places *p)
{
    (void)ctx;
    return blocks_in_bases(p) > 0;
}

/* 1: the map that the pin keeps has blocks in a base. */
static int needs_bases(struct volume *v, const struct pin *pin)
{
    struct index_view *view = NULL;
    struct log_position pos;
    struct scratch *s;
    struct catchup c;
    int r = scratch_new(v->store, &v->sb, &s);

    if (r < 0)
        return r;
    r = catchup_to(s->log, s->index, pin->root, pin->seq, PATIENCE_MS, &c);
    if (r == 0)
        r = index_view_begin(s->index, &view, &pos);
    if (r == 0)
        r = index_view_each(view, 0, VOLUME_BLOCKS_MAX / CHUNK_BLOCKS, has_base, NULL);
    index_view_end(view);
    scratch_free(s);
    if (r == -ENOENT && pin_is_pending(pin->name))
        return snapshot_holds_nothing(v->store, pin);
    return r == -ENOENT ? msg_error(-EAGAIN, "%s@%s: changed while it was being read; try again",
                                    store_url(v->store), pin->name)
                        : r;
}

struct needing {
    struct volume *v;
    uint64_t root; /* which needs nothing, so no later one does; 0: not known */
    char names[NAMES_BYTES];
    unsigned n;
};

/* What its own clones have pinned does not count: each has a pin in every base itself. */
static int add_needing(void *ctx, const struct pin *pin)
{
    struct needing *x = ctx;
    size_t len = strlen(x->names);

    if (pin->clone_url[0] || (x->root && pin->root >= x->root))
        return 0;
    int r = is_stopping(x->v) ? -ECANCELED : needs_bases(x->v, pin);
    if (r > 0 && x->n++ < 4)
        (void)snprintf(x->names + len, sizeof x->names - len, "%s%s", len ? ", " : "", pin->name);
    return MIN(r, 0);
}

static int refuse_snapshots(struct volume *v, uint64_t root)
{
    struct needing x = {.v = v, .root = root};
    int r = pin_each(v->store, &v->sb, add_needing, &x, PATIENCE_MS);

    if (r < 0 || x.n == 0)
        return r;
    return msg_error(-EBUSY,
                     "%s: its snapshots need what it is a clone of: %s%s; delete them first",
                     store_url(v->store), x.names, x.n > 4 ? ", ..." : "");
}

/* ------------------------------------------------------------------ letting go */

/* In this order: a root that names no base; then the snapshots, whose makers begin anew if a root
 * came; then that the log is still ours, else a rollback may have revived what only a snapshot kept
 * that is gone by now. */
static int let_go(struct volume *v)
{
    uint64_t root = 0;
    int r = checkpointer_root(v, &root);

    if (r == 0)
        r = refuse_snapshots(v, root);
    if (r == 0)
        r = log_still_ours(v->log, PATIENCE_MS);
    if (r == 0)
        r = superblock_flatten(v->store, &v->sb, PATIENCE_MS);
    if (r < 0)
        return r;
    r = clone_unpin(v->store, &v->sb);
    if (r < 0)
        msg_warn("%s: depends on nothing any more, but what it was a clone of still keeps its "
                 "space for it; s3vol flatten it again, or delete the snapshot there",
                 store_url(v->store));
    return r;
}

int volume_flatten(struct volume *v)
{
    struct flattener f = {.v = v};
    int r = v->cfg.read_only ? -EROFS : volume_drain(v);

    if (r == 0 && v->sb.nbases == 0)
        return 0;
    if (r == 0)
        r = refuse_snapshots(v, 0);
    if (r == 0)
        r = mover_new(v, LOG_SEGMENT_RAW_BYTES, &f.mover);
    if (r == 0)
        r = move_all(&f);
    mover_free(f.mover);
    tell_left(v, 0);
    return r == 0 ? let_go(v) : r;
}
