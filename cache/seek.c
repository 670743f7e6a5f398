/* Where data and holes are. A block that is not known to be zero is data. */
#include "volume_internal.h"

#include "../store/scope.h"

enum {
    PROBES = 64,
    WINDOW = 256, /* chunks that are looked up at once, at most */
};

/* Blocks that are data in chunks [number, number + n), as memory knows them, else the index. Memory
 * is asked first: what is evicted after that is in the index by then. */
static int data_blocks(struct volume *v, uint64_t number, uint64_t n, uint64_t masks[WINDOW])
{
    bool known[WINDOW];
    struct index_hit hits[WINDOW];
    uint64_t nknown = 0;
    size_t nhits;

    pthread_mutex_lock(&v->chunks.lock);
    for (uint64_t i = 0; i < n; i++) {
        const struct chunk *c = chunks_find(&v->chunks, number + i);
        known[i] = c;
        nknown += known[i];
        masks[i] = c ? ~c->zero : 0;
    }
    pthread_mutex_unlock(&v->chunks.lock);
    if (nknown == n)
        return 0;
    int r = index_scan(v->index, number, number + n - 1, hits, n, &nhits);
    for (size_t i = 0; r == 0 && i < nhits; i++)
        if (!known[hits[i].chunk - number])
            masks[hits[i].chunk - number] = hits[i].mask;
    return r;
}

/* The first chunk >= `number` in memory that has data; UINT64_MAX: none. */
static uint64_t next_in_memory(struct volume *v, uint64_t number)
{
    struct chunks *t = &v->chunks;
    uint64_t found = UINT64_MAX;

    scope_lock(&t->lock);
    for (size_t i = 0; i < t->nbuckets; i++)
        for (const struct chunk *c = t->buckets[i]; c; c = c->hash_next)
            if (c->number >= number && c->number < found && ~c->zero)
                found = c->number;
    return found;
}

/* The first chunk >= `number` that may have data: a jump over what surely has none. Memory is asked
 * first: what is evicted before that is in the index by then. *in_memory is
 * what next_in_memory() said last, 0 at first: a walk over the table for each chunk that is zero in
 * memory, and not yet in the index, would take long. */
static int skip_holes(struct volume *v, uint64_t number, uint64_t end, uint64_t *in_memory,
                      uint64_t *ret_number)
{
    struct index_hit hit;
    size_t n;

    if (*in_memory < number)
        *in_memory = next_in_memory(v, number);
    int r = index_scan(v->index, number, end, &hit, 1, &n);
    if (r == 0)
        *ret_number = MIN(*in_memory, n > 0 ? hit.chunk : end);
    return r;
}

int volume_seek(struct volume *v, uint64_t offset, bool data, uint64_t *ret_offset)
{
    struct instant_use use = {.wait = true};
    int r;

    do {
        r = volume_instant_begin(v, &use);
        if (r == 0)
            r = volume_seek_below(v, offset, volume_size_bytes(v), data, ret_offset);
    } while (volume_instant_end(v, &use, &r));
    return r;
}

/* The first block of these `n` chunks that is data, or is not; blocks of the first one that are not
 * in `ahead` do not count. UINT64_MAX: none. */
static uint64_t first_block(const uint64_t *masks, uint64_t n, uint64_t ahead, bool data)
{
    for (uint64_t i = 0; i < n; i++) {
        uint64_t mask = (data ? masks[i] : ~masks[i]) & (i ? ~UINT64_C(0) : ahead);
        if (mask)
            return i * CHUNK_BLOCKS + (uint64_t)__builtin_ctzll(mask);
    }
    return UINT64_MAX;
}

int volume_seek_below(struct volume *v, uint64_t offset, uint64_t size, bool data,
                      uint64_t *ret_offset)
{
    uint64_t number = offset / CHUNK_BYTES, end = DIV_UP(size, (uint64_t)CHUNK_BYTES);
    uint64_t ahead = ~UINT64_C(0) << (offset % CHUNK_BYTES / BLOCK_BYTES);
    uint64_t masks[WINDOW], n = 1, in_memory = 0, probes = 0;
    int r = 0;

    if (offset >= size)
        return -ENXIO;
    while (number < end) {
        n = MIN(n, end - number);
        r = data_blocks(v, number, n, masks);
        if (r < 0)
            return r;
        uint64_t block = first_block(masks, n, ahead, data);
        if (block != UINT64_MAX) {
            uint64_t at = number * CHUNK_BYTES + block * BLOCK_BYTES;
            if (at >= size)
                break;
            *ret_offset = MAX(at, offset);
            return 0;
        }
        ahead = ~UINT64_C(0);
        number += n;
        probes += n;
        n = MIN(2 * n, (uint64_t)WINDOW);
        if (data && probes >= PROBES) {
            r = skip_holes(v, number, end, &in_memory, &number);
            n = 1; /* mostly that one has it */
        }
        if (r < 0)
            return r;
    }
    if (data)
        return -ENXIO;
    *ret_offset = size;
    return 0;
}
