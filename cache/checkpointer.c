/*
 * Checkpoints, in the background: when reading the log from the last one on would take long, and
 * enough was written since that the cost does not show; or when one is needed to delete what is
 * dead. Parts whose chunks did not change are kept. After each of them, and when the readers' grace
 * time is over, a sweep.
 */
#include "sweep.h"
#include "volume_internal.h"

#include "../store/scope.h"

#include <string.h>

enum {
#ifndef SMALL_LIMITS
    SEGMENTS_LEAST = 256, /* fewer are read in a moment */
    SEGMENTS_MOST = 4096, /* more would keep an attachment waiting */
    SEGMENTS_CLOSING = 64,
    BYTES_LEAST = 64 * 1024,
    PATIENCE_MS = 60000, /* its view of index.db keeps the journal from being reused */
#else
    SEGMENTS_LEAST = 6,
    SEGMENTS_MOST = 20,
    SEGMENTS_CLOSING = 4,
    BYTES_LEAST = 1024,
    PATIENCE_MS = 1000,
#endif
    ROOTS = 8,        /* whose time is remembered */
    LOOK_MS = 100,    /* from one look at what was indexed to the next */
    SWEEP_MS = 60000, /* between tries after a failure */
    BYTES_FACTOR = 8, /* logged bytes for each byte of checkpoint */
};

struct checkpointer {
    struct volume *v;
    pthread_mutex_t apply_lock; /* held over a change of the map and its note here; guards all
                                   below; taken before every other lock */
    struct part_list parts, parts_before; /* of our last two checkpoints */
    uint64_t seq, seq_before;             /* 0: none of this attachment */
    bool *changed;                        /* by part; one more if there is none */
    uint64_t segments, bytes;             /* logged since the last checkpoint */
    uint64_t checkpoint_bytes;            /* what it took */
    uint64_t not_before;                  /* segments: after a failure */

    /* the thread's own */
    struct sweeper *sweeper;
    struct {
        uint64_t seq;
        int64_t stored_ms;
    } roots[ROOTS];              /* of ours, the newest first */
    uint64_t swept;              /* what the map as of this number did not need is deleted */
    int64_t sweep_not_before_ms; /* after a failure */
};

int checkpointer_new(struct volume *v, uint64_t segments_since, struct checkpointer **ret)
{
    struct checkpointer *cp = calloc(1, sizeof *cp);

    if (!cp || !(cp->changed = calloc(1, sizeof *cp->changed))) {
        free(cp);
        return -ENOMEM;
    }
    if (sweeper_new(v->log, v->index, &cp->sweeper) < 0) {
        free(cp->changed);
        free(cp);
        return -ENOMEM;
    }
    cp->v = v;
    cp->segments = segments_since;
    pthread_mutex_init(&cp->apply_lock, NULL);
    *ret = cp;
    return 0;
}

void checkpointer_free(struct checkpointer *cp)
{
    if (!cp)
        return;
    sweeper_free(cp->sweeper);
    free(cp->parts.parts);
    free(cp->parts_before.parts);
    free(cp->changed);
    pthread_mutex_destroy(&cp->apply_lock);
    free(cp);
}

/* ------------------------------------------------------------------ what changed */

/* The part that speaks of a chunk; the first one also speaks of all before it. */
static size_t part_of(const struct part_list *l, uint64_t chunk)
{
    size_t low = 0, high = l->nparts;

    while (high - low > 1) {
        size_t mid = low + (high - low) / 2;
        if (l->parts[mid].first_chunk <= chunk)
            low = mid;
        else
            high = mid;
    }
    return low;
}

static void part_range(const struct part_list *l, size_t i, uint64_t *ret_first, uint64_t *ret_end)
{
    *ret_first = i == 0 ? 0 : l->parts[i].first_chunk;
    *ret_end = i + 1 < l->nparts ? l->parts[i + 1].first_chunk : VOLUME_BLOCKS_MAX / CHUNK_BLOCKS;
}

static void mark_range(const struct part_list *l, bool *changed, uint64_t first, uint64_t last)
{
    for (size_t i = part_of(l, first), end = part_of(l, last); i <= end; i++)
        changed[i] = true;
}

int checkpointer_apply(struct volume *v, const struct commit *c, const struct log_position *pos)
{
    struct checkpointer *cp = v->checkpointer;
    scope_lock(&cp->apply_lock);
    int r = index_apply(v->index, c->entries, c->nentries, c->nsegments, pos, false);

    if (r < 0)
        return r;
    for (size_t i = 0; i < c->nentries; i++) {
        const struct entry *e = &c->entries[i];
        mark_range(&cp->parts, cp->changed, e->block / CHUNK_BLOCKS,
                   (e->block + e->nblocks - 1) / CHUNK_BLOCKS);
        cp->bytes += ENTRY_BYTES + e->stored_bytes;
    }
    cp->segments += c->nsegments;
    return 0;
}

/* ------------------------------------------------------------------ writing one */

static int add_places(void *ctx, const struct places *p)
{
    return checkpoint_add(ctx, p->e, p->n);
}

static int write_parts(struct checkpoint *out, struct index_view *view, const struct part_list *old,
                       const bool *changed)
{
    int r = 0;

    if (old->nparts == 0)
        return index_view_each(view, 0, VOLUME_BLOCKS_MAX / CHUNK_BLOCKS, add_places, out);
    for (size_t i = 0; i < old->nparts && r == 0; i++) {
        uint64_t first, end;
        part_range(old, i, &first, &end);
        r = changed[i] ? index_view_each(view, first, end, add_places, out)
                       : checkpoint_reuse(out, &old->parts[i]);
    }
    return r;
}

/* What changed while the checkpoint was written, in terms of its own parts. */
static int adopt(struct checkpointer *cp, struct part_list *list, uint64_t seq, uint64_t bytes)
{
    bool *changed = calloc(list->nparts + 1, sizeof *changed);

    if (!changed) {
        free(list->parts);
        return -ENOMEM;
    }
    scope_lock(&cp->apply_lock);
    for (size_t i = 0; i < MAX(cp->parts.nparts, (size_t)1); i++) {
        uint64_t first, end;
        part_range(&cp->parts, i, &first, &end);
        if (cp->changed[i])
            mark_range(list, changed, first, end - 1);
    }
    free(cp->changed);
    cp->changed = changed;
    free(cp->parts_before.parts);
    cp->parts_before = cp->parts;
    cp->seq_before = cp->seq;
    cp->parts = *list;
    cp->seq = seq;
    cp->checkpoint_bytes = bytes;
    return 0;
}

/* The view of the map, and which parts differ from the last checkpoint in it: of one instant. */
static int begin(struct checkpointer *cp, struct index_view **ret_view, struct log_position *pos,
                 bool **ret_changed)
{
    scope_lock(&cp->apply_lock);
    size_t n = MAX(cp->parts.nparts, (size_t)1);
    bool *fresh = calloc(n, sizeof *fresh);
    int r = fresh ? index_view_begin(cp->v->index, ret_view, pos) : -ENOMEM;

    if (r < 0) {
        free(fresh);
        return r;
    }
    *ret_changed = cp->changed;
    cp->changed = fresh;
    cp->segments = cp->bytes = cp->not_before = 0;
    return 0;
}

/* What `begin` took: it has not been written. */
static void give_back(struct checkpointer *cp, const bool *changed)
{
    scope_lock(&cp->apply_lock);
    for (size_t i = 0; i < MAX(cp->parts.nparts, (size_t)1); i++)
        cp->changed[i] = cp->changed[i] || changed[i];
    cp->segments += SEGMENTS_LEAST; /* an attachment has more to read than we know: no less */
    cp->not_before = cp->segments + SEGMENTS_LEAST;
}

/* All but the newest are a part of the grace time apart: however fast they come, the oldest one is
 * as old as that, or about to be. */
static void remember(struct checkpointer *cp, uint64_t seq)
{
    int64_t apart_ms = cp->v->cfg.gc_grace_ms / (ROOTS - 2);

    if (cp->roots[0].stored_ms >= cp->roots[1].stored_ms + apart_ms)
        memmove(&cp->roots[1], &cp->roots[0], sizeof cp->roots - sizeof cp->roots[0]);
    cp->roots[0].seq = seq;
    cp->roots[0].stored_ms = cp->v->clock->now_ms();
}

static int note_fence(struct volume *v, int r)
{
    if (r == -ESTALE) {
        scope_lock(&v->chunks.lock);
        volume_fail(v, VOLUME_FENCED);
    }
    return r;
}

static int write_checkpoint(struct checkpointer *cp)
{
    struct volume *v = cp->v;
    struct checkpoint *out = NULL;
    struct index_view *view = NULL;
    struct part_list list = {0};
    struct log_position pos;
    bool *changed = NULL;
    uint64_t bytes = 0;
    int r = note_fence(v, log_still_named(v->log, PATIENCE_MS)); /* else it would be another's */

    if (r == 0)
        r = begin(cp, &view, &pos, &changed);
    if (r < 0)
        return r;
    r = checkpoint_new(v->log, &pos, PATIENCE_MS, &out);
    if (r == 0) /* only this thread replaces `parts` */
        r = write_parts(out, view, &cp->parts, changed);
    if (r == 0)
        r = checkpoint_finish(out, &list, &bytes);
    if (r == 0)
        r = adopt(cp, &list, pos.seq, bytes);
    if (r < 0)
        give_back(cp, changed);
    checkpoint_free(out);
    index_view_end(view);
    free(changed);
    if (r < 0)
        return r;
    remember(cp, pos.seq);
    scope_lock(&v->chunks.lock);
    v->checkpoint_seq = pos.seq;
    v->own_checkpoints++;
    return 0;
}

/* ------------------------------------------------------------------ sweeping */

/* When the next sweep has something to do; INT64_MAX: never, as things are. */
static int64_t sweep_time(const struct checkpointer *cp)
{
    int64_t at = INT64_MAX;

    for (size_t i = 0; i < ROOTS; i++)
        if (cp->roots[i].seq > cp->swept)
            at = MIN(at, cp->roots[i].stored_ms + cp->v->cfg.gc_grace_ms);
    return at == INT64_MAX ? at : MAX(at, cp->sweep_not_before_ms);
}

/* The newest root that every reader has had `grace_ms` to notice; 0: none. */
static uint64_t known_to_all(const struct checkpointer *cp, int64_t grace_ms)
{
    for (size_t i = 0; i < ROOTS; i++)
        if (cp->roots[i].seq && cp->v->clock->now_ms() >= cp->roots[i].stored_ms + grace_ms)
            return cp->roots[i].seq;
    return 0;
}

/* After a new root, or when time has come. */
static int sweep_now(struct checkpointer *cp, int64_t grace_ms)
{
    struct volume *v = cp->v;
    struct part_list keep[] = {cp->parts, cp->parts_before};
    struct sweep what = {.dead_seq = known_to_all(cp, grace_ms),
                         .keep_root = cp->seq_before, /* of those before ours we know no parts */
                         .lists = keep,
                         .nlists = ARRAY_SIZE(keep)};
    struct index_segment dead;
    bool more = false;
    size_t n = 0;
    int r = index_dead(v->index, what.dead_seq, 0, &dead, 1, &n);

    if (r == 0 && (n > 0 || what.keep_root))
        r = note_fence(v, sweep(cp->sweeper, &what, PATIENCE_MS, &more));
    if (r == 0 && !more)
        cp->swept = MAX(cp->swept, what.dead_seq);
    cp->sweep_not_before_ms = r < 0 ? v->clock->now_ms() + SWEEP_MS : 0;
    return r;
}

static bool due(struct checkpointer *cp, bool wanted, bool closing)
{
    scope_lock(&cp->apply_lock);
    uint64_t cost = MAX(cp->checkpoint_bytes, (uint64_t)BYTES_LEAST) * BYTES_FACTOR;

    if (wanted)
        return cp->segments > 0;
    if (closing)
        return cp->segments >= SEGMENTS_MOST / 4 ||
               (cp->segments >= SEGMENTS_CLOSING && cp->bytes >= cost / 4);
    return cp->segments >= cp->not_before &&
           (cp->segments >= SEGMENTS_MOST || (cp->segments >= SEGMENTS_LEAST && cp->bytes >= cost));
}

/* Waits for something to do: what has been indexed since `seen` is looked at at `again_ms`. False:
 * stop. Lock held. */
static bool wait_for_work(struct volume *v, uint64_t seen, int64_t again_ms)
{
    while (!v->stopping && !v->checkpoint_wanted) {
        bool something = v->indexed != seen;
        int64_t at = MIN(sweep_time(v->checkpointer), something ? again_ms : INT64_MAX);
        if (v->clock->now_ms() >= at)
            break;
        v->house_idle += !something;
        if (at == INT64_MAX)
            pthread_cond_wait(&v->house_wanted, &v->chunks.lock);
        else
            v->clock->wait_until(&v->house_wanted, &v->chunks.lock, at);
        v->house_idle -= !something;
    }
    return !v->stopping;
}

void *volume_checkpointer(void *arg)
{
    struct volume *v = arg;
    struct checkpointer *cp = v->checkpointer;
    uint64_t seen = 0;
    int64_t again_ms = 0;

    pthread_mutex_lock(&v->chunks.lock);
    while (wait_for_work(v, seen, again_ms)) {
        uint64_t asked = v->sweeps_asked, roots = v->roots_asked;
        bool wanted = v->checkpoint_wanted, all = asked > v->sweeps_made;
        uint64_t made = v->roots_made;
        seen = v->indexed;
        v->checkpoint_wanted = false;
        pthread_mutex_unlock(&v->chunks.lock);
        int r = 0;
        /* one of an older attachment may be of an older map: a clone's may be its base's */
        bool write = due(cp, wanted, false) || (roots > made && cp->seq == 0);
        if (write)
            r = write_checkpoint(cp); /* said already; later again */
        int stored = r;
        if (r == 0 && (write || all || v->clock->now_ms() >= sweep_time(cp)))
            r = sweep_now(cp, all ? 0 : v->cfg.gc_grace_ms);
        pthread_mutex_lock(&v->chunks.lock);
        v->sweeps_made = asked;
        v->sweep_result = r;
        v->roots_made = roots;
        v->root_result = stored;
        again_ms = v->clock->now_ms() + LOOK_MS;
        pthread_cond_broadcast(&v->commit_moved);
    }
    pthread_mutex_unlock(&v->chunks.lock);
    return NULL;
}

int checkpointer_sweep(struct volume *v)
{
    scope_lock(&v->chunks.lock);
    uint64_t mine = ++v->sweeps_asked;

    v->checkpoint_wanted = true;
    pthread_cond_broadcast(&v->house_wanted);
    while (v->sweeps_made < mine && !v->stopping)
        pthread_cond_wait(&v->commit_moved, &v->chunks.lock);
    return v->sweeps_made < mine ? -ECANCELED : v->sweep_result;
}

int checkpointer_root(struct volume *v, uint64_t *ret_seq)
{
    scope_lock(&v->chunks.lock);
    uint64_t mine = ++v->roots_asked;

    v->checkpoint_wanted = true;
    pthread_cond_broadcast(&v->house_wanted);
    while (v->roots_made < mine && !v->stopping)
        pthread_cond_wait(&v->commit_moved, &v->chunks.lock);
    if (v->roots_made < mine)
        return -ECANCELED;
    *ret_seq = v->checkpoint_seq;
    return v->root_result;
}

int checkpointer_close(struct volume *v)
{
    return due(v->checkpointer, false, true) ? write_checkpoint(v->checkpointer) : 0;
}
