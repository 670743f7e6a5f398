/* Discarding: a range becomes zero, and only what has something of it is touched. */
#include "volume_internal.h"

#include "../store/scope.h"

/* The next chunk in [from, last] that is in memory; UINT64_MAX: none. A short range is probed, a
 * long one costs a walk over the table. */
static uint64_t next_in_memory(struct volume *v, uint64_t from, uint64_t last)
{
    struct chunks *t = &v->chunks;
    uint64_t found = UINT64_MAX;

    scope_lock(&t->lock);
    for (uint64_t n = from; n <= last && n < from + 1024; n++)
        if (chunks_find(t, n))
            return n;
    if (last < from + 1024)
        return UINT64_MAX;
    for (size_t i = 0; i < t->nbuckets; i++)
        for (const struct chunk *c = t->buckets[i]; c; c = c->hash_next)
            if (c->number >= from && c->number <= last && c->number < found)
                found = c->number;
    return found;
}

static int discard_in_memory(struct volume *v, uint64_t from, uint64_t last)
{
    int r = 0;

    for (uint64_t n = next_in_memory(v, from, last); r == 0 && n <= last;
         n = next_in_memory(v, n + 1, last))
        r = volume_zero_blocks(v, n, ~UINT64_C(0));
    return r;
}

static int discard_mapped(struct volume *v, uint64_t from, uint64_t last)
{
    struct index_hit hits[256];
    size_t n = ARRAY_SIZE(hits);
    int r = 0;

    while (r == 0 && n == ARRAY_SIZE(hits) && from <= last) {
        r = index_scan(v->index, from, last, hits, ARRAY_SIZE(hits), &n);
        for (size_t i = 0; r == 0 && i < n; i++) {
            r = volume_zero_blocks(v, hits[i].chunk, ~UINT64_C(0));
            from = hits[i].chunk + 1;
        }
    }
    return r;
}

/* Whole chunks: only those that have something are touched. First those in memory: what is evicted
 * before it is looked at there is in the index by then. */
static int discard_chunks(struct volume *v, uint64_t from, uint64_t last)
{
    int r = discard_in_memory(v, from, last);

    return r == 0 ? discard_mapped(v, from, last) : r;
}

/* Blocks [block, end), of one chunk. */
static int discard_blocks(struct volume *v, uint64_t block, uint64_t end)
{
    return block == end ? 0
                        : volume_zero_blocks(v, block / CHUNK_BLOCKS,
                                             mask_range((unsigned)(block % CHUNK_BLOCKS),
                                                        (unsigned)(end - block)));
}

int volume_discard_blocks(struct volume *v, uint64_t first, uint64_t end)
{
    uint64_t chunk = DIV_UP(first, (uint64_t)CHUNK_BLOCKS), end_chunk = end / CHUNK_BLOCKS;

    if (chunk > end_chunk)
        return discard_blocks(v, first, end);
    int r = discard_blocks(v, first, chunk * CHUNK_BLOCKS);
    if (r == 0 && chunk < end_chunk)
        r = discard_chunks(v, chunk, end_chunk - 1);
    return r == 0 ? discard_blocks(v, end_chunk * CHUNK_BLOCKS, end) : r;
}

int volume_discard(struct volume *v, uint64_t offset, uint64_t len)
{
    uint64_t end = offset + len;
    uint64_t first = DIV_UP(offset, (uint64_t)BLOCK_BYTES), last = end / BLOCK_BYTES;
    int r = volume_check_writable(v);

    if (r == 0)
        r = volume_check_range(v, offset, len);
    if (r < 0)
        return r;
    if (len <= UNIT_BYTES) /* whole or not at all, as a write is */
        return volume_zero_range(v, len, offset);
    r = volume_zero_range(v, first * BLOCK_BYTES - offset, offset);
    if (r == 0)
        r = volume_zero_range(v, end - last * BLOCK_BYTES, last * BLOCK_BYTES);
    return r == 0 ? volume_discard_blocks(v, first, last) : r;
}
