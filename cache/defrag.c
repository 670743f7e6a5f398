/*
 * Defragmentation: ranges that take many GETs to be read in order are moved, so that they take one.
 * In windows of what one commit of moves can hold.
 */
#include "mover.h"
#include "volume_internal.h"

#include "../store/scope.h"

enum {
    /* what one commit of moves can hold, though it be in single blocks */
    WINDOW_BLOCKS =
        ROUND_DOWN(MIN((int)LOG_ENTRIES_MAX, LOG_SEGMENT_RAW_BYTES / BLOCK_BYTES), FRAME_BLOCKS),
    GETS_FINE = 3, /* two for its size, and the border of two segments */
};

struct window {
    struct entry *places; /* WINDOW_BLOCKS */
    size_t n;
    uint64_t blocks;
};

static int by_place(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;

    return x->base != y->base      ? x->base - y->base
           : x->seq != y->seq      ? (x->seq < y->seq ? -1 : 1)
           : x->offset < y->offset ? -1
                                   : x->offset > y->offset;
}

/* What reading it takes, as fetch.c cuts it. Sorts the places. */
static uint64_t count_gets(struct window *w)
{
    uint64_t gets = 0;
    const struct entry *first = NULL, *last = NULL;

    if (w->n > 1)
        qsort(w->places, w->n, sizeof *w->places, by_place);
    for (size_t i = 0; i < w->n; i++) {
        const struct entry *e = &w->places[i];
        if (!first || e->base != last->base || e->seq != last->seq ||
            e->offset > last->offset + last->stored_bytes + DOWNLOAD_GAP ||
            e->offset + e->stored_bytes - first->offset > DOWNLOAD_BYTES) {
            gets++;
            first = e;
        }
        last = e;
    }
    return gets;
}

/* The places of blocks [block, end). */
static int load(struct volume *v, struct window *w, uint64_t block, uint64_t end)
{
    struct places p;
    int r = 0;

    w->n = w->blocks = 0;
    for (uint64_t chunk = block / CHUNK_BLOCKS; r == 0 && chunk * CHUNK_BLOCKS < end; chunk++) {
        uint64_t base = chunk * CHUNK_BLOCKS;
        r = index_load(v->index, chunk, &p);
        if (r < 0)
            break;
        if (base < block)
            places_clear(&p, 0, (unsigned)(block - base));
        if (end - base < CHUNK_BLOCKS)
            places_clear(&p, (unsigned)(end - base), (unsigned)(CHUNK_BLOCKS - (end - base)));
        for (unsigned i = 0; i < p.n; i++) {
            w->places[w->n++] = p.e[i];
            w->blocks += p.e[i].nblocks;
        }
    }
    return r;
}

static int move_window(struct mover *m, const struct window *w)
{
    uint64_t bytes, bad;
    int r = 0;

    for (size_t i = 0; i < w->n && r == 0; i++)
        if (!mover_add(m, &w->places[i])) { /* so many pieces that the table is full */
            r = mover_commit(m, &bytes, &bad);
            if (r == 0)
                INVARIANT(mover_add(m, &w->places[i]));
        }
    if (r == 0)
        r = mover_commit(m, &bytes, &bad);
    return r == -EBADMSG ? 0 : r; /* said; the rest can be moved all the same */
}

static int one_window(struct volume *v, struct mover *m, struct window *w, uint64_t block,
                      uint64_t end, struct volume_defrag *d)
{
    int r = load(v, w, block, end);

    if (r < 0)
        return r;
    uint64_t gets = count_gets(w);
    d->bytes += w->blocks * BLOCK_BYTES;
    d->gets_before += gets;
    if (gets > GETS_FINE) {
        r = move_window(m, w);
        if (r == 0)
            r = load(v, w, block, end);
        if (r == 0)
            gets = count_gets(w);
    }
    d->gets_after += gets;
    return r;
}

/* The first block at or beyond `block` that has a place, or `end`. */
static int skip_holes(struct volume *v, uint64_t block, uint64_t end, uint64_t *ret_block)
{
    struct index_hit hit;
    size_t n;
    int r = index_scan(v->index, block / CHUNK_BLOCKS, (end - 1) / CHUNK_BLOCKS, &hit, 1, &n);

    if (r == 0)
        *ret_block = n ? MAX(block, hit.chunk * CHUNK_BLOCKS) : end;
    return r;
}

int volume_defrag(struct volume *v, uint64_t offset, uint64_t len, struct volume_defrag *ret)
{
    struct window w = {.places = calloc(WINDOW_BLOCKS, sizeof *w.places)};
    struct volume_defrag d = {0};
    struct mover *m = NULL;
    uint64_t block = offset / BLOCK_BYTES, end = DIV_UP(offset + len, (uint64_t)BLOCK_BYTES);
    int r = volume_check_writable(v);

    if (r == 0)
        r = volume_check_range(v, offset, len);
    if (r == 0)
        r = w.places ? volume_drain(v) : -ENOMEM;
    if (r == 0)
        r = mover_new(v, LOG_SEGMENT_RAW_BYTES, &m);
    while (r == 0 && block < end) {
        r = atomic_load(&v->moves_stopped) ? -ECANCELED : skip_holes(v, block, end, &block);
        if (r < 0 || block == end)
            break;
        uint64_t next = MIN((block / WINDOW_BLOCKS + 1) * WINDOW_BLOCKS, end);
        r = one_window(v, m, &w, block, next, &d);
        block = next;
    }
    mover_free(m);
    free(w.places);
    if (r == 0)
        *ret = d;
    return r;
}
