/*
 * Garbage collection: which segments are worth being moved, and when. Moving is mover.c's, deleting
 * is the checkpointer's (sweep.c).
 */
#include "mover.h"
#include "sweep.h"
#include "volume_internal.h"

#include "../store/msg.h"
#include "../store/scope.h"

#include <inttypes.h>

enum {
#ifndef SMALL_LIMITS
    SLACK_BYTES = 16 * 1024 * 1024, /* of waste that nobody cares about */
    MOVE_BYTES = 4 * 1024 * 1024,   /* at once: a flush behind it waits for its upload */
    PERIOD_MS = 1000,               /* between looks at how things are */
#else
    SLACK_BYTES = 16 * 1024,
    MOVE_BYTES = LOG_SEGMENT_RAW_BYTES,
    PERIOD_MS = 200,
#endif
    RETRY_MS = 30000,
    PATIENCE_MS = 60000,
    VICTIMS = 32,  /* chosen at once */
    SPOILED = 256, /* damaged segments that are remembered */
    YIELD_MS = 500,
    YIELD_LOOK_MS = 50, /* nobody says that a download or a wait for room is over */
};

/* Waste is what is stored and not needed. In the steady state of random overwriting each part of it
 * that is allowed to stay saves moving: at 0.30 about half a byte is moved for each byte written.
 */
#define WASTE_MOVE  0.30 /* of live bytes: more waste in segments that live: move */
#define WASTE_DEAD  0.04 /* of live bytes: more in dead ones: a checkpoint, so that they can go */
#define WASTE_HASTE 0.40 /* no politeness beyond this */
#define LIVE_MOST   0.85 /* a segment of which more lives is not worth it */
#define LIVE_ALL    0.90 /* … when asked to reclaim all */

struct reclaimer {
    struct volume *v;
    struct mover *mover;
    uint64_t spoiled[SPOILED];
    size_t nspoiled;
    bool all;      /* somebody asked, and waits */
    uint64_t upto; /* what he asked for: not what was moved or written since */
    bool haste;    /* do not wait for others */
};

/* ------------------------------------------------------------------ one segment */

static bool is_spoiled(const struct reclaimer *rc, uint64_t seq)
{
    for (size_t i = 0; i < rc->nspoiled; i++)
        if (rc->spoiled[i] == seq)
            return true;
    return rc->nspoiled == SPOILED; /* so many: leave everything as it is */
}

static void spoil(struct reclaimer *rc, uint64_t seq)
{
    if (rc->nspoiled < SPOILED)
        rc->spoiled[rc->nspoiled++] = seq;
}

static bool must_yield(const struct volume *v)
{
    return !v->stopping && v->state == VOLUME_OK &&
           (v->pressed > 0 || v->wanted > v->durable || v->downloads_first);
}

/* Lets those go first who wait for the store. Not for ever. */
static void yield(struct reclaimer *rc)
{
    struct volume *v = rc->v;
    int64_t until = v->clock->now_ms() + YIELD_MS;
    scope_lock(&v->chunks.lock);

    while (!rc->haste && must_yield(v) && v->clock->now_ms() < until)
        v->clock->wait_until(&v->commit_moved, &v->chunks.lock,
                             MIN(until, v->clock->now_ms() + YIELD_LOOK_MS));
}

static int commit(struct reclaimer *rc)
{
    struct volume *v = rc->v;
    uint64_t bytes = 0, bad = 0;

    yield(rc);
    int64_t start = v->clock->now_ms();
    int r = mover_commit(rc->mover, &bytes, &bad);
    if (r == -EBADMSG)
        spoil(rc, bad);
    scope_lock(&v->chunks.lock);
    v->moved_bytes += bytes;
    /* at most half of the time */
    int64_t until = v->clock->now_ms() + (v->clock->now_ms() - start);
    while (r == 0 && !rc->haste && !v->stopping && v->clock->now_ms() < until)
        v->clock->wait_until(&v->commit_moved, &v->chunks.lock, until);
    return r;
}

static int add_places(struct reclaimer *rc, const struct places *p, uint64_t victim)
{
    int r = 0;

    for (unsigned i = 0; i < p->n && r == 0; i++)
        if (p->e[i].seq == victim && p->e[i].base == 0 && !mover_add(rc->mover, &p->e[i])) {
            r = commit(rc);
            if (r == 0)
                INVARIANT(mover_add(rc->mover, &p->e[i]));
        }
    return r;
}

/* What lives in a segment is found by what its table says it once had. */
static int move_segment(struct reclaimer *rc, uint64_t victim)
{
    scope_free struct entry *entries = NULL;
    uint64_t chunk, last = UINT64_MAX;
    struct places places;
    struct header h;
    int r = log_read(rc->v->log, victim, &h, &entries, PATIENCE_MS);

    if (r == -ENOENT || r == -EBADMSG || r == -EPROTONOSUPPORT) {
        spoil(rc, victim); /* said, or `s3vol check` does */
        return 0;
    }
    for (uint32_t i = 0; r == 0 && i < h.nentries; i++) {
        chunk = entries[i].block / CHUNK_BLOCKS;
        if (entries[i].kind == ENTRY_ZERO || chunk == last)
            continue;
        last = chunk;
        r = index_load(rc->v->index, chunk, &places);
        if (r == 0)
            r = add_places(rc, &places, victim);
    }
    return r;
}

/* ------------------------------------------------------------------ what to do */

enum todo { NOTHING, MOVE, SWEEP };

static enum todo look(struct reclaimer *rc, struct index_space *space)
{
    uint64_t live = space->live_bytes - space->pinned_live_bytes;
    uint64_t stored = space->stored_bytes - space->pinned_stored_bytes - space->dead_bytes;
    uint64_t waste = stored > live ? stored - live : 0;

    rc->haste = rc->all || (double)(waste + space->fresh_dead_bytes) >
                               WASTE_HASTE * (double)live + SLACK_BYTES;
    if (rc->all || (double)waste > WASTE_MOVE * (double)live + SLACK_BYTES)
        return MOVE;
    if ((double)space->fresh_dead_bytes > WASTE_DEAD * (double)live + SLACK_BYTES / 4)
        return SWEEP;
    return NOTHING;
}

/* *ret_moved: there was a victim. */
static int move_some(struct reclaimer *rc, bool *ret_moved)
{
    struct index_segment victims[VICTIMS];
    size_t n = 0;
    int r = rc->mover ? 0 : mover_new(rc->v, MOVE_BYTES, &rc->mover);

    *ret_moved = false;
    if (r == 0)
        r = index_victims(rc->v->index, rc->all ? LIVE_ALL : LIVE_MOST,
                          rc->all ? rc->upto : SEQ_MAX, victims, VICTIMS, &n);
    for (size_t i = 0; i < n && r == 0; i++) {
        if (is_spoiled(rc, victims[i].seq))
            continue;
        *ret_moved = true;
        r = atomic_load(&rc->v->moves_stopped) ? -ECANCELED : move_segment(rc, victims[i].seq);
    }
    if (r == 0)
        r = commit(rc);
    return r == -EBADMSG ? 0 : r; /* the others next time */
}

static void want_checkpoint(struct volume *v)
{
    scope_lock(&v->chunks.lock);
    v->checkpoint_wanted = true;
    pthread_cond_broadcast(&v->house_wanted);
}

/* Sizes of what was there before this index, and orphans: by one listing, when it is known that
 * much is written here. */
static int take_inventory(struct reclaimer *rc, bool *ret_taken)
{
    struct volume *v = rc->v;
    struct index_meta meta;

    index_get_meta(v->index, &meta);
    pthread_mutex_lock(&v->chunks.lock);
    bool busy = v->own_checkpoints > 0;
    pthread_mutex_unlock(&v->chunks.lock);
    *ret_taken = meta.inventoried;
    if (meta.inventoried || !(busy || rc->all))
        return 0;
    int r = sweep_inventory(v->log, v->index, log_first_own(v->log), PATIENCE_MS);
    *ret_taken = r == 0;
    return r;
}

static uint64_t newest_root(struct volume *v)
{
    scope_lock(&v->chunks.lock);
    return v->checkpoint_seq;
}

/* *ret_again: at once. */
static int work(struct reclaimer *rc, bool *ret_again)
{
    struct index_space space;
    bool known;
    int r = take_inventory(rc, &known);

    *ret_again = false;
    if (r == 0 && known)
        r = index_space(rc->v->index, newest_root(rc->v), &space);
    if (r < 0 || !known)
        return r;
    switch (look(rc, &space)) {
    case MOVE:
        return move_some(rc, ret_again);
    case SWEEP:
        want_checkpoint(rc->v);
        return 0;
    default:
        return 0;
    }
}

/* All that pays of what is there now, and then it is deleted. */
static int work_all(struct reclaimer *rc)
{
    struct index_meta meta;
    bool again = true;
    int r = 0;

    index_get_meta(rc->v->index, &meta);
    rc->upto = meta.pos.seq;
    rc->all = true;
    while (r == 0 && again)
        r = work(rc, &again);
    rc->all = false;
    return r == 0 ? checkpointer_sweep(rc->v) : r;
}

/* ------------------------------------------------------------------ the thread */

/* False: stop. Lock held. */
static bool wait_for_work(struct volume *v, uint64_t seen, int64_t not_before)
{
    while (!v->stopping && v->collects_asked == v->collects_made) {
        bool something = v->cfg.gc && v->state == VOLUME_OK && v->indexed != seen;
        if (something && v->clock->now_ms() >= not_before)
            break;
        bool idle = v->cfg.gc && v->indexed == seen;
        v->house_idle += idle;
        if (something)
            v->clock->wait_until(&v->house_wanted, &v->chunks.lock, not_before);
        else
            pthread_cond_wait(&v->house_wanted, &v->chunks.lock);
        v->house_idle -= idle;
    }
    return !v->stopping;
}

void *volume_reclaimer(void *arg)
{
    struct volume *v = arg;
    struct reclaimer rc = {.v = v};
    int64_t not_before = 0;
    uint64_t seen = 0;

    pthread_mutex_lock(&v->chunks.lock);
    while (wait_for_work(v, seen, not_before)) {
        uint64_t asked = v->collects_asked;
        bool all = asked > v->collects_made, again = false;
        seen = v->indexed;
        pthread_mutex_unlock(&v->chunks.lock);
        int r = all ? work_all(&rc) : work(&rc, &again);
        if (!again) { /* nothing to do for a while, perhaps: its memory is worth more elsewhere */
            mover_free(rc.mover);
            rc.mover = NULL;
        }
        pthread_mutex_lock(&v->chunks.lock);
        not_before = v->clock->now_ms() + (r < 0 ? RETRY_MS : again ? 0 : PERIOD_MS);
        if (again || r < 0)
            seen = UINT64_MAX;
        v->collect_result = r;
        v->collects_made = asked;
        pthread_cond_broadcast(&v->commit_moved);
    }
    pthread_mutex_unlock(&v->chunks.lock);
    mover_free(rc.mover);
    return NULL;
}

int volume_collect(struct volume *v)
{
    scope_lock(&v->chunks.lock);
    int r = v->cfg.read_only ? -EROFS : volume_check_state(v);
    uint64_t mine = ++v->collects_asked;

    pthread_cond_broadcast(&v->house_wanted);
    while (r == 0 && v->collects_made < mine && !v->stopping && !atomic_load(&v->moves_stopped)) {
        pthread_cond_wait(&v->commit_moved, &v->chunks.lock);
        r = volume_check_state(v);
    }
    return r < 0 ? r : v->collects_made < mine ? -ECANCELED : v->collect_result;
}
