/*
 * The places of a chunk, as they are in index.db: input is the number of their bytes (2 bytes),
 * these, and what happens to them then. A model has one place for each block.
 */
#include "fuzz.h"

#include "../../cache/places.h"

enum { CHUNK = 3 };

/* Where one block is: in which frame, and which block of it. */
struct model {
    bool there[CHUNK_BLOCKS];
    struct entry e[CHUNK_BLOCKS];
    unsigned at[CHUNK_BLOCKS];
};

static void model_put(struct model *m, const struct entry *e)
{
    for (unsigned i = 0; i < e->nblocks; i++) {
        unsigned b = (unsigned)(e->block % CHUNK_BLOCKS) + i;
        m->there[b] = true;
        m->e[b] = *e;
        m->at[b] = e->skip + i;
    }
}

/* Sorted, disjoint, in the chunk, and what the model says. */
static void compare(const struct places *p, const struct model *m)
{
    uint64_t mask = 0;

    INVARIANT(p->n <= CHUNK_BLOCKS);
    for (unsigned i = 0; i < p->n; i++) {
        const struct entry *e = &p->e[i];
        INVARIANT(e->block / CHUNK_BLOCKS == CHUNK && e->nblocks > 0);
        INVARIANT(i == 0 || e->block >= p->e[i - 1].block + p->e[i - 1].nblocks);
        for (unsigned k = 0; k < e->nblocks; k++) {
            unsigned b = (unsigned)(e->block % CHUNK_BLOCKS) + k;
            if (b >= CHUNK_BLOCKS)
                abort();
            INVARIANT(m->there[b] && m->at[b] == e->skip + k);
            INVARIANT(m->e[b].seq == e->seq && m->e[b].offset == e->offset &&
                      m->e[b].crc == e->crc && m->e[b].frame_blocks == e->frame_blocks);
            mask |= UINT64_C(1) << b;
        }
    }
    INVARIANT(places_mask(p) == mask);
    for (unsigned b = 0; b < CHUNK_BLOCKS; b++)
        INVARIANT(m->there[b] == (mask >> b & 1));
}

static void round_trip(const struct places *p)
{
    uint8_t blob[CHUNK_BLOCKS * ENTRY_BYTES], again[sizeof blob];
    struct places back;
    size_t len = places_encode(p, blob);

    INVARIANT(len <= sizeof blob && places_decode(blob, len, CHUNK, &back) == 0);
    INVARIANT(places_encode(&back, again) == len && memcmp(again, blob, len) == 0);
}

static void change(struct places *p, struct model *m, struct input *in)
{
    unsigned what = (unsigned)take_number(in, 1),
             first = (unsigned)take_number(in, 1) % CHUNK_BLOCKS;
    unsigned n = 1 + (unsigned)take_number(in, 1) % (CHUNK_BLOCKS - first);

    if (what & 1) {
        places_clear(p, first, n);
        for (unsigned b = first; b < first + n; b++)
            m->there[b] = false;
        return;
    }
    struct entry e = {.kind = ENTRY_DATA,
                      .block = CHUNK * CHUNK_BLOCKS + first,
                      .nblocks = n,
                      .seq = 1 + what,
                      .offset = HEADER_BYTES + what,
                      .stored_bytes = 1,
                      .crc = (uint32_t)in->left,
                      .frame_blocks = (uint8_t)n,
                      .codec = CODEC_ZSTD};
    places_put(p, &e);
    model_put(m, &e);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};
    struct model m = {0};
    struct places p;
    size_t len = take_length(&in);
    scope_free uint8_t *blob = scope_copy(in.at, len);
    uint8_t back[CHUNK_BLOCKS * ENTRY_BYTES];

    if (places_decode(blob, len, CHUNK, &p) < 0)
        p.n = 0;
    else
        INVARIANT(places_encode(&p, back) == len && memcmp(back, blob, len) == 0);
    for (unsigned i = 0; i < p.n; i++)
        model_put(&m, &p.e[i]);
    compare(&p, &m);
    for (in.at += len, in.left -= len; in.left > 0;) {
        change(&p, &m, &in);
        compare(&p, &m);
    }
    round_trip(&p);
    return 0;
}
