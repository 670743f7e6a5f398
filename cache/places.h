/* Where the blocks of one chunk are in the log: a sorted list of data entries. Pure. */
#ifndef S3VOL_PLACES_H
#define S3VOL_PLACES_H

#include "../store/entry.h"

#include <stddef.h>

/* Blocks [first, first + n) of a chunk as bits; n from 0 to 64. */
static inline uint64_t mask_range(unsigned first, unsigned n)
{
    return n == 0 ? 0 : (~UINT64_C(0) >> (64 - n)) << first;
}

/* The first run of ones in `mask`: its begin, and its length in *ret_n; mask is not 0. */
static inline unsigned mask_run(uint64_t mask, unsigned *ret_n)
{
    unsigned first = (unsigned)__builtin_ctzll(mask);
    uint64_t rest = ~(mask >> first);

    *ret_n = rest ? (unsigned)__builtin_ctzll(rest) : 64;
    if (*ret_n > 64 - first)
        *ret_n = 64 - first;
    return first;
}

/* 64 bits wide, so that the difference of two may be added to a counter. */
static inline uint64_t mask_count(uint64_t mask)
{
    return (uint64_t)__builtin_popcountll(mask);
}

struct places {
    unsigned n;
    struct entry e[CHUNK_BLOCKS]; /* kind ENTRY_DATA, by block, disjoint */
};

/* The blocks that have a place. */
uint64_t places_mask(const struct places *p);

/* Forgets the blocks [first, first + n) of the chunk. */
void places_clear(struct places *p, unsigned first, unsigned n);

/* `entry` is data, of this chunk, and newer than all that is there. Neighbours in one frame become
 * one place. */
void places_put(struct places *p, const struct entry *entry);

/* The blocks of `move`, an entry of that kind, that are in its old place are in its frame from now
 * on. Returns which. */
uint64_t places_move(struct places *p, const struct entry *move);

/* p->n * ENTRY_BYTES to `out`, which has room for CHUNK_BLOCKS of them. */
size_t places_encode(const struct places *p, void *out);

/* -EBADMSG if these are no places of `chunk`. */
int places_decode(const void *data, size_t len, uint64_t chunk, struct places *ret_places);

#endif
