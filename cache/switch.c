/*
 * From one instant to the next, for a view that follows: a transaction of index.db and a change of
 * the chunks in memory. Readers are not kept waiting for the bucket by that: who finds at his end
 * that the instant has changed reads again. Who did so in vain a few times keeps it from changing
 * until he is through.
 */
#include "volume_internal.h"

#include "../store/msg.h"
#include "../store/scope.h"

#include <string.h>

enum {
    USE_TRIES = 3, /* of a reader, before he keeps the instant */
    LOOKS = 3,     /* of a reader who finds something deleted */
    SETTLE_CHUNKS = 256,
};

/* ------------------------------------------------------------------ readers */

int volume_instant_begin(struct volume *v, struct instant_use *use)
{
    int r = 0;

    if (!v->cfg.follow_ms)
        return 0;
    scope_lock(&v->chunks.lock);
    while (v->switching && r == 0)
        if (v->stopping)
            r = -ECANCELED;
        else if (use->wait)
            chunks_wait(&v->chunks);
        else
            r = -EAGAIN;
    if (r == 0)
        r = volume_check_state(v);
    use->instant = v->instant;
    use->holding = r == 0 && use->wait && ++use->tries > USE_TRIES;
    v->holding += use->holding;
    return r;
}

/* A look that begins from now on has ended. Lock held. */
static void wait_for_look(struct volume *v)
{
    uint64_t mine = ++v->looks_asked;
    int64_t forever = v->cfg.timeout_ms == STORE_FOREVER;
    int64_t until = forever ? 0 : v->clock->now_ms() + v->cfg.timeout_ms;

    pthread_cond_broadcast(&v->commit_moved);
    while (v->looks_made < mine && !v->stopping && (forever || v->clock->now_ms() < until))
        if (forever)
            chunks_wait(&v->chunks);
        else
            chunks_wait_until(&v->chunks, until);
}

bool volume_instant_end(struct volume *v, struct instant_use *use, int *r)
{
    if (!v->cfg.follow_ms)
        return false;
    scope_lock(&v->chunks.lock);
    bool same = v->instant == use->instant && !v->switching;
    if (use->holding) {
        v->holding--;
        chunks_changed(&v->chunks);
    }
    if (v->stopping || *r == -EAGAIN || *r == -ECANCELED || *r == -ETIMEDOUT)
        return false;
    if (!use->wait) { /* workers have the time */
        if (!same || *r == -ENOENT)
            *r = -EAGAIN;
        return false;
    }
    if (!same)
        return true;
    if (*r != -ENOENT)
        return false;
    if (use->looks++ < LOOKS) { /* deleted, so there must be a newer instant */
        wait_for_look(v);
        return true;
    }
    *r = msg_error(-EIO,
                   "%s: what its map needs is not there, and nothing newer is; see `s3vol check`",
                   store_url(v->store));
    v->gone = true;
    return false;
}

/* ------------------------------------------------------------------ the change */

void volume_switch_begin(struct volume *v)
{
    scope_lock(&v->chunks.lock);

    while (v->holding > 0)
        chunks_wait(&v->chunks);
    v->switching = true;
}

/* The map is as of `pos` now, and memory as the map. Lock held. */
static void arrive(struct volume *v, const struct log_position *pos, uint64_t mapped_blocks)
{
    v->at = *pos;
    v->size_blocks = pos->size_blocks;
    v->chunks.allocated_blocks = mapped_blocks;
    v->instant++;
    v->gone = false;
}

/* Lock held. */
static void end_switch(struct volume *v)
{
    v->switching = false;
    chunks_changed(&v->chunks);
}

static void change_chunk(struct volume *v, struct chunk *c, uint64_t mask, bool zero)
{
    chunk_outdate(c, mask);
    if (zero)
        chunk_set(&v->chunks, c, c->valid | mask, c->zero | mask, 0);
    else
        chunk_set(&v->chunks, c, c->valid & ~mask, c->zero & ~mask, 0);
}

/* Of all that is in memory, if the entry speaks of more than that. */
static void zero_chunks(struct volume *v, const struct entry *e)
{
    struct chunks *t = &v->chunks;
    uint64_t end = e->block + e->nblocks;

    for (size_t i = 0; i < t->nbuckets; i++) {
        for (struct chunk *c = t->buckets[i]; c; c = c->hash_next) {
            uint64_t block = c->number * CHUNK_BLOCKS;
            uint64_t from = MAX(block, e->block), to = MIN(block + CHUNK_BLOCKS, end);
            if (from < to)
                change_chunk(v, c, mask_range((unsigned)(from - block), (unsigned)(to - from)),
                             true);
        }
    }
}

/* What blocks are does not change with a move: they stay. Lock held. */
static void change(struct volume *v, const struct entry *e)
{
    uint64_t block = e->block, left = e->nblocks;

    if (e->kind == ENTRY_MOVE)
        return;
    if (left / CHUNK_BLOCKS > v->chunks.nbuckets) {
        zero_chunks(v, e);
        return;
    }
    while (left > 0) {
        unsigned first = (unsigned)(block % CHUNK_BLOCKS);
        unsigned n = (unsigned)MIN(left, (uint64_t)(CHUNK_BLOCKS - first));
        struct chunk *c = chunks_find(&v->chunks, block / CHUNK_BLOCKS);
        if (c)
            change_chunk(v, c, mask_range(first, n), e->kind == ENTRY_ZERO);
        block += n;
        left -= n;
    }
}

int volume_switch_by(struct volume *v, const struct entry *entries, size_t n,
                     const struct log_position *pos)
{
    struct index_meta meta;

    volume_switch_begin(v);
    int r = index_apply(v->index, entries, n, 0, pos, false);
    index_get_meta(v->index, &meta);
    scope_lock(&v->chunks.lock);
    v->index_generation++; /* what was looked up before is looked up again */
    for (size_t i = 0; i < n && r == 0; i++)
        change(v, &entries[i]);
    if (r == 0)
        arrive(v, pos, meta.mapped_blocks);
    end_switch(v);
    return r;
}

/* ------------------------------------------------------------------ a whole new map */

struct settling {
    struct volume *v;
    struct index_view *old; /* the map before */
    size_t bucket;          /* chunks before it are current, but for new ones */
    bool found;             /* some were not, since the walk began at the first one */
    uint64_t numbers[SETTLE_CHUNKS];
    bool same[SETTLE_CHUNKS];
    uint64_t masks[SETTLE_CHUNKS];
    size_t n;
};

/* Some of the chunks that have not been compared; none: all have. Lock held. */
static void collect(struct settling *s)
{
    struct chunks *t = &s->v->chunks;

    s->n = 0;
    while (s->n == 0) {
        for (; s->bucket < t->nbuckets && s->n < SETTLE_CHUNKS / 2; s->bucket++)
            for (struct chunk *c = t->buckets[s->bucket]; c && s->n < SETTLE_CHUNKS;
                 c = c->hash_next)
                if (!c->current)
                    s->numbers[s->n++] = c->number;
        s->found = s->found || s->n > 0;
        if (s->n == 0 && !s->found)
            return;
        if (s->bucket == t->nbuckets && s->n == 0) { /* once more, for those that came meanwhile */
            s->bucket = 0;
            s->found = false;
        }
    }
}

static bool are_same(const struct places *a, const struct places *b)
{
    uint8_t x[CHUNK_BLOCKS * ENTRY_BYTES], y[CHUNK_BLOCKS * ENTRY_BYTES];

    size_t len = places_encode(a, x);

    return places_encode(b, y) == len && memcmp(x, y, len) == 0;
}

static int compare(struct settling *s)
{
    struct places before, now;
    int r = 0;

    for (size_t i = 0; i < s->n && r == 0; i++) {
        r = index_view_load(s->old, s->numbers[i], &before);
        if (r == 0)
            r = index_load(s->v->index, s->numbers[i], &now);
        if (r < 0)
            return r;
        s->masks[i] = places_mask(&now);
        s->same[i] = are_same(&before, &now);
    }
    return r;
}

/* Lock held. */
static void set_chunks(struct settling *s)
{
    struct volume *v = s->v;

    for (size_t i = 0; i < s->n; i++) {
        struct chunk *c = chunks_find(&v->chunks, s->numbers[i]);
        if (!c || c->current)
            continue;
        c->current = 1;
        if (s->same[i])
            continue;
        chunk_outdate(c, ~UINT64_C(0));
        chunk_set(&v->chunks, c, ~s->masks[i], ~s->masks[i], 0);
    }
}

/* Memory becomes as the new map is. Lock held, released meanwhile. */
static int settle(struct settling *s)
{
    struct chunks *t = &s->v->chunks;
    int r = 0;

    for (collect(s); s->n > 0 && r == 0; collect(s)) {
        pthread_mutex_unlock(&t->lock);
        r = compare(s);
        pthread_mutex_lock(&t->lock);
        if (r == 0)
            set_chunks(s);
    }
    for (size_t i = 0; i < t->nbuckets; i++)
        for (struct chunk *c = t->buckets[i]; c; c = c->hash_next)
            c->current = 0;
    return r;
}

int volume_switch_map(struct volume *v, struct index_view *old, const struct log_position *pos,
                      int r)
{
    struct settling *s = calloc(1, sizeof *s);
    struct index_meta meta;

    index_get_meta(v->index, &meta);
    pthread_mutex_lock(&v->chunks.lock);
    if (!v->switching) { /* it did not come to that */
        pthread_mutex_unlock(&v->chunks.lock);
        free(s);
        return r;
    }
    v->index_generation++;
    if (r == 0 && !s)
        r = -ENOMEM;
    if (r == 0) {
        *s = (struct settling){.v = v, .old = old};
        r = settle(s);
        if (r == 0)
            arrive(v, pos, meta.mapped_blocks);
        else
            volume_fail(v, VOLUME_FAILED); /* between two instants; the index said why */
    }
    end_switch(v);
    pthread_mutex_unlock(&v->chunks.lock);
    free(s);
    return r;
}
