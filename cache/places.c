#include "places.h"

#include "../store/scope.h"

#include <string.h>

static unsigned first_of(const struct entry *e)
{
    return (unsigned)(e->block % CHUNK_BLOCKS);
}

static void insert(struct places *p, unsigned at, const struct entry *e)
{
    INVARIANT(p->n < CHUNK_BLOCKS);
    memmove(&p->e[at + 1], &p->e[at], (p->n - at) * sizeof p->e[0]);
    p->e[at] = *e;
    p->n++;
}

uint64_t places_mask(const struct places *p)
{
    uint64_t mask = 0;

    for (unsigned i = 0; i < p->n; i++)
        mask |= mask_range(first_of(&p->e[i]), (unsigned)p->e[i].nblocks);
    return mask;
}

void places_clear(struct places *p, unsigned first, unsigned n)
{
    unsigned end = first + n;

    for (unsigned i = 0; i < p->n;) {
        struct entry *e = &p->e[i];
        unsigned e_first = first_of(e), e_end = e_first + (unsigned)e->nblocks;

        if (e_end <= first || e_first >= end) {
            i++;
        } else if (e_first >= first && e_end <= end) {
            memmove(e, e + 1, (p->n - i - 1) * sizeof *e);
            p->n--;
        } else {
            struct entry tail = *e;
            unsigned cut = end - e_first; /* blocks of the old place before its tail */

            if (e_first < first)
                e->nblocks = first - e_first;
            if (e_end > end) {
                tail.block += cut;
                tail.skip = (uint8_t)(tail.skip + cut);
                tail.nblocks -= cut;
                if (e_first < first)
                    insert(p, i + 1, &tail);
                else
                    *e = tail;
            }
            i++;
        }
    }
}

/* Whether `b` goes on in the frame where `a` ends. */
static bool continues(const struct entry *a, const struct entry *b)
{
    return a->seq == b->seq && a->base == b->base && a->offset == b->offset &&
           a->stored_bytes == b->stored_bytes && a->frame_blocks == b->frame_blocks &&
           a->codec == b->codec && a->crc == b->crc && a->block + a->nblocks == b->block &&
           a->skip + a->nblocks == b->skip;
}

/* e[i] and e[i + 1] become one, if they can. */
static void join(struct places *p, unsigned i)
{
    if (i + 1 >= p->n || !continues(&p->e[i], &p->e[i + 1]))
        return;
    p->e[i].nblocks += p->e[i + 1].nblocks;
    memmove(&p->e[i + 1], &p->e[i + 2], (p->n - i - 2) * sizeof p->e[0]);
    p->n--;
}

void places_put(struct places *p, const struct entry *entry)
{
    unsigned i = 0;

    places_clear(p, first_of(entry), (unsigned)entry->nblocks);
    while (i < p->n && p->e[i].block < entry->block)
        i++;
    insert(p, i, entry);
    join(p, i);
    if (i > 0)
        join(p, i - 1);
}

uint64_t places_move(struct places *p, const struct entry *move)
{
    uint64_t want = mask_range(first_of(move), (unsigned)move->nblocks), moved = 0;

    for (unsigned i = 0; i < p->n; i++)
        if (p->e[i].seq == move->old_seq && p->e[i].base == move->old_base)
            moved |= want & mask_range(first_of(&p->e[i]), (unsigned)p->e[i].nblocks);
    for (uint64_t rest = moved; rest;) {
        unsigned n, first = mask_run(rest, &n), into = first - first_of(move);
        struct entry e = *move;
        e.kind = ENTRY_DATA;
        e.old_seq = e.old_base = 0;
        e.block += into;
        e.skip = (uint8_t)(e.skip + into);
        e.nblocks = n;
        places_put(p, &e);
        rest &= ~mask_range(first, n);
    }
    return moved;
}

size_t places_encode(const struct places *p, void *out)
{
    for (unsigned i = 0; i < p->n; i++)
        entry_encode(&p->e[i], (uint8_t *)out + (size_t)i * ENTRY_BYTES);
    return (size_t)p->n * ENTRY_BYTES;
}

int places_decode(const void *data, size_t len, uint64_t chunk, struct places *ret)
{
    uint64_t at = chunk * CHUNK_BLOCKS;

    if (len % ENTRY_BYTES || len / ENTRY_BYTES > CHUNK_BLOCKS)
        return -EBADMSG;
    ret->n = (unsigned)(len / ENTRY_BYTES);
    for (unsigned i = 0; i < ret->n; i++) {
        struct entry *e = &ret->e[i];
        if (entry_decode((const uint8_t *)data + (size_t)i * ENTRY_BYTES, e) < 0 ||
            e->kind != ENTRY_DATA || e->block < at || e->block / CHUNK_BLOCKS != chunk)
            return -EBADMSG;
        at = e->block + e->nblocks;
    }
    return 0;
}
