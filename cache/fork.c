/*
 * A fork, saved as a volume of its own. The new one begins as a clone of the present; then every
 * block that the fork's map has elsewhere, or that only the fork's cache has, is copied, and the
 * superblock says that it is finished. Until then nobody else can attach it.
 */
#include "snapshot.h"
#include "unfinished.h"
#include "volume_internal.h"

#include "../store/msg.h"
#include "../store/scope.h"

#include <inttypes.h>
#include <string.h>

struct dirty {
    uint64_t chunk, mask;
};

struct saving {
    struct volume *fork, *clone;
    const struct fork_watch *watch;
    bool force;
    const char *from_url, *to_url;
    struct fork_saved saved;
    uint64_t lost_first, lost_end; /* blocks, not told yet */
    struct dirty *dirty;           /* ascending */
    size_t ndirty, room;
    uint8_t buf[CHUNK_BYTES];
};

/* ------------------------------------------------------------------ what differs */

static int add_dirty(void *ctx, const struct index_cached *row)
{
    struct saving *s = ctx;

    if (!row->dirty)
        return 0;
    if (s->ndirty == s->room) {
        size_t room = MAX(2 * s->room, (size_t)1024);
        struct dirty *more = realloc(s->dirty, room * sizeof *more);
        if (!more)
            return -ENOMEM;
        s->dirty = more;
        s->room = room;
    }
    s->dirty[s->ndirty++] = (struct dirty){row->chunk, row->dirty};
    return 0;
}

static int by_chunk(const void *a, const void *b)
{
    uint64_t x = ((const struct dirty *)a)->chunk, y = ((const struct dirty *)b)->chunk;

    return (x > y) - (x < y);
}

/* The place of each of a chunk's blocks; NULL: it is zero. */
static void spread(const struct places *p, const struct entry *ret_at[CHUNK_BLOCKS])
{
    memset(ret_at, 0, CHUNK_BLOCKS * sizeof ret_at[0]);
    for (unsigned i = 0; i < p->n; i++)
        for (unsigned k = 0; k < p->e[i].nblocks; k++)
            ret_at[p->e[i].block % CHUNK_BLOCKS + k] = &p->e[i];
}

/* The fork's log, and its bases, are the clone's bases from the first one on. */
static bool same_place(const struct entry *fork, const struct entry *clone)
{
    if (!fork || !clone)
        return !fork && !clone;
    return fork->seq == clone->seq && fork->base + 1 == clone->base &&
           fork->offset == clone->offset;
}

/* Blocks of the chunk that the clone must get from the fork. */
static int differing(struct saving *s, uint64_t chunk, uint64_t *ret_mask)
{
    const struct entry *fork_at[CHUNK_BLOCKS], *clone_at[CHUNK_BLOCKS];
    struct places fork, clone;
    uint64_t mask = 0;
    int r = index_load(s->fork->index, chunk, &fork);

    if (r == 0)
        r = index_load(s->clone->index, chunk, &clone);
    if (r < 0)
        return r;
    spread(&fork, fork_at);
    spread(&clone, clone_at);
    for (unsigned i = 0; i < CHUNK_BLOCKS; i++)
        mask |= (uint64_t)!same_place(fork_at[i], clone_at[i]) << i;
    *ret_mask = mask;
    return 0;
}

/* ------------------------------------------------------------------ copying */

static void tell_lost(struct saving *s)
{
    uint64_t n = s->lost_end - s->lost_first;

    if (n > 0)
        s->watch->lost(s->watch->ctx, s->lost_first * BLOCK_BYTES, n * BLOCK_BYTES);
}

static void note_lost(struct saving *s, uint64_t block)
{
    if (block != s->lost_end) {
        tell_lost(s);
        s->lost_first = block;
    }
    s->lost_end = block + 1;
    s->saved.lost_bytes += BLOCK_BYTES;
}

/* `n` blocks of one chunk. What cannot be read together is read one by one. */
static int copy(struct saving *s, uint64_t block, unsigned n)
{
    size_t len = (size_t)n * BLOCK_BYTES;
    int r = volume_read(s->fork, s->buf, len, block * BLOCK_BYTES, true);

    if (r == -EIO && n > 1) {
        for (r = 0; n > 0 && r == 0; block++, n--)
            r = copy(s, block, 1);
        return r;
    }
    if (r == -EIO) {
        note_lost(s, block);
        memset(s->buf, 0, len);
    } else if (r < 0) {
        return r;
    } else {
        s->saved.copied_bytes += len;
    }
    return volume_write(s->clone, s->buf, len, block * BLOCK_BYTES, true);
}

static int copy_chunk(struct saving *s, uint64_t chunk, uint64_t mask)
{
    uint64_t first = chunk * CHUNK_BLOCKS, size = s->fork->size_blocks;
    int r = 0;

    if (first >= size)
        return 0;
    if (size - first < CHUNK_BLOCKS)
        mask &= mask_range(0, (unsigned)(size - first));
    while (mask && r == 0) {
        unsigned n, at = mask_run(mask, &n);
        r = copy(s, first + at, n);
        mask &= ~mask_range(at, n);
    }
    s->watch->progress(s->watch->ctx, &s->saved);
    return r;
}

/* The first chunk >= `from` that the index maps; VOLUME_BLOCKS_MAX: none. */
static int next_mapped(struct index *ix, uint64_t from, uint64_t *ret_chunk)
{
    struct index_hit hit;
    size_t n;
    int r = index_scan(ix, from, VOLUME_BLOCKS_MAX / CHUNK_BLOCKS - 1, &hit, 1, &n);

    *ret_chunk = n ? hit.chunk : VOLUME_BLOCKS_MAX;
    return r;
}

static int copy_all(struct saving *s)
{
    uint64_t chunk = 0, fork = 0, clone = 0, mask = 0;
    size_t d = 0;
    int r = index_each_cached(s->fork->index, add_dirty, s);

    qsort(s->dirty, s->ndirty, sizeof *s->dirty, by_chunk);
    for (; r == 0; chunk++) {
        r = next_mapped(s->fork->index, chunk, &fork);
        if (r == 0)
            r = next_mapped(s->clone->index, chunk, &clone);
        if (r < 0)
            break;
        chunk = MIN(fork, clone);
        if (d < s->ndirty)
            chunk = MIN(chunk, s->dirty[d].chunk);
        if (chunk == VOLUME_BLOCKS_MAX)
            break;
        r = differing(s, chunk, &mask);
        if (d < s->ndirty && s->dirty[d].chunk == chunk)
            mask |= s->dirty[d++].mask;
        if (r == 0)
            r = copy_chunk(s, chunk, mask);
    }
    tell_lost(s);
    return r;
}

/* ------------------------------------------------------------------ the whole */

static int same_size(struct saving *s)
{
    uint64_t want = volume_size_bytes(s->fork), is = volume_size_bytes(s->clone);

    return want < is   ? volume_shrink(s->clone, want, true)
           : want > is ? volume_resize(s->clone, want)
                       : 0;
}

static int fill(void *ctx, struct volume *clone)
{
    struct saving *s = ctx;

    s->clone = clone;
    int r = same_size(s);
    if (r == 0)
        r = copy_all(s);
    if (r == 0 && s->saved.lost_bytes > 0 && !s->force)
        r = msg_error(-ENODATA,
                      "%s: not saved: %" PRIu64
                      " KiB of what %s was here are reclaimed by whoever replaced them; --force "
                      "saves the rest, with zeros there",
                      s->to_url, s->saved.lost_bytes / 1024, s->from_url);
    return r;
}

static int save(struct saving *s, struct store *store, const struct volume_config *config,
                struct store *to)
{
    struct volume_config cfg = *config;
    struct store *from;
    int r = store_open_beside(store, store_url(store), &from);

    if (r < 0)
        return r;
    cfg.read_only = cfg.fork = true;
    cfg.discard_local = false;
    r = volume_open(from, &cfg, &s->fork);
    if (r == 0) {
        r = volume_clone_unfinished(store, to);
        if (r == 0)
            r = unfinished_fill(to, config, true, fill, s);
        volume_close(s->fork, true);
    }
    store_free(from);
    return r;
}

int volume_save_fork(struct store *store, const struct volume_config *config, struct store *to,
                     bool force, const struct fork_watch *watch, struct fork_saved *ret_saved)
{
    struct saving *s = calloc(1, sizeof *s);
    int r = -ENOMEM;

    if (s) {
        s->watch = watch;
        s->force = force;
        s->from_url = store_url(store);
        s->to_url = store_url(to);
        r = save(s, store, config, to);
        *ret_saved = s->saved;
        free(s->dirty);
        free(s);
    }
    return r;
}
