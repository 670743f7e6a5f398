/* Segments and claims: input is the beginning of an object of the log. */
#include "fuzz.h"

#include "../../store/log.h"

static int decode(const uint8_t *head, size_t len, struct superblock *sb, uint64_t seq,
                  struct header *h, struct entry **entries)
{
    const char *why = NULL;
    int r = log_decode(sb, seq, head, len, h, entries, &why);

    if (r < 0)
        assert_refused(r, why);
    return r;
}

static void assert_refuses(const uint8_t *head, size_t len, struct superblock *sb, uint64_t seq)
{
    struct entry *entries;
    struct header h;

    INVARIANT(decode(head, len, sb, seq, &h, &entries) < 0);
}

static void check_table(const struct header *h, const struct entry *entries, const uint8_t *table)
{
    uint8_t back[ENTRY_BYTES];

    INVARIANT(h->nentries <= LOG_ENTRIES_MAX && h->size_blocks < VOLUME_BLOCKS_MAX);
    for (uint32_t i = 0; i < h->nentries; i++, table += ENTRY_BYTES) {
        const struct entry *e = &entries[i];
        entry_encode(e, back);
        INVARIANT(memcmp(back, table, ENTRY_BYTES) == 0);
        INVARIANT(e->nblocks > 0 && e->block < h->size_blocks &&
                  e->nblocks <= h->size_blocks - e->block);
        if (e->kind == ENTRY_ZERO)
            continue;
        INVARIANT(e->kind == ENTRY_DATA || (e->kind == ENTRY_MOVE && e->seq == h->seq));
        INVARIANT(e->base == 0 && e->old_base == 0 && /* `sb` has no bases */
                  e->block / CHUNK_BLOCKS == (e->block + e->nblocks - 1) / CHUNK_BLOCKS);
        INVARIANT(e->skip + e->nblocks <= e->frame_blocks && e->frame_blocks <= CHUNK_BLOCKS);
        INVARIANT(e->seq != h->seq || (uint64_t)e->offset + e->stored_bytes <= h->object_bytes);
    }
}

/* An object that calls itself what it likes. */
static void look(uint8_t *head, size_t len)
{
    uint64_t seq = get_le64(head + AT_SEQ), bit;
    struct superblock sb = {0};
    struct entry *entries;
    uint8_t back[HEADER_BYTES];
    struct header h;

    memcpy(sb.uuid, head + AT_UUID, UUID_BYTES);
    if (decode(head, len, &sb, seq, &h, &entries) < 0)
        return;
    assert_sealed(head);
    header_encode(&h, head + HEADER_BYTES, back);
    INVARIANT(memcmp(back, head, HEADER_BYTES) == 0);
    INVARIANT(h.kind == HEADER_SEGMENT || (h.kind == HEADER_CLAIM && h.nentries == 0));
    INVARIANT(h.kind == HEADER_SEGMENT || h.next > h.seq);
    INVARIANT(h.first <= h.seq && h.seq <= SEQ_MAX && h.next <= SEQ_MAX);
    if (h.kind == HEADER_SEGMENT)
        check_table(&h, entries, head + HEADER_BYTES);
    free(entries);

    assert_refuses(head, len, &sb, seq + 1);
    assert_refuses(head, HEADER_BYTES + h.body_bytes - 1, &sb, seq);
    bit = draw_from(head, len, 8 * (HEADER_BYTES + (uint64_t)h.body_bytes));
    head[bit / 8] ^= (uint8_t)(1 << bit % 8);
    assert_refuses(head, len, &sb, seq);
    head[bit / 8] ^= (uint8_t)(1 << bit % 8);
    sb.uuid[bit % UUID_BYTES] ^= 1;
    assert_refuses(head, len, &sb, seq);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    scope_free uint8_t *head = NULL;

    if (size < HEADER_BYTES) {
        assert_refuses(data, size, &(struct superblock){0}, 1);
        return 0;
    }
    head = scope_copy(data, size);
    look(head, size);
    seal_object(head, size);
    look(head, size);
    /* with as many entries as there is room for */
    uint32_t nentries = (uint32_t)((size - HEADER_BYTES) / ENTRY_BYTES);
    put_le32(head + 96, nentries);
    put_le32(head + AT_BODY_BYTES, nentries * ENTRY_BYTES);
    put_le32(head + AT_OBJECT_BYTES, (uint32_t)size);
    put_le32(head + AT_RESERVED, 0);
    seal_object(head, size);
    look(head, size);
    return 0;
}
