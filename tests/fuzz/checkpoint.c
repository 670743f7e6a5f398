/*
 * Checkpoints. Input is a letter and: 'r', a root; 'p', a part; 'e', the entries of a part, before
 * compression, so that what lies behind that is reached.
 */
#include "fuzz.h"

#include "../../store/part.h"

static struct superblock sb_of(const uint8_t *object)
{
    struct superblock sb = {0};

    memcpy(sb.uuid, object + AT_UUID, UUID_BYTES);
    return sb;
}

/* ------------------------------------------------------------------ roots */

static int decode_root(const uint8_t *object, size_t len, struct header *h, struct part_list *list)
{
    struct superblock sb = sb_of(object);
    const char *why = NULL;
    int r = part_list_decode(&sb, get_le64(object + AT_SEQ), object, len, h, list, &why);

    if (r < 0)
        assert_refused(r, why);
    return r;
}

static void look_at_root(uint8_t *object, size_t len)
{
    scope_free uint8_t *back = NULL;
    struct part_list list;
    struct header h;

    if (decode_root(object, len, &h, &list) < 0)
        return;
    assert_sealed(object);
    INVARIANT(h.next > h.seq && h.first <= h.seq && h.size_blocks < VOLUME_BLOCKS_MAX);
    for (size_t i = 0; i < list.nparts; i++) {
        const struct part *p = &list.parts[i];
        INVARIANT(p->nentries > 0 && p->nentries <= PART_ENTRIES && p->seq <= h.seq);
        INVARIANT(p->object_bytes > HEADER_BYTES && p->object_bytes < 1 << 20);
        INVARIANT(p->first_chunk < part_end_chunk(&list, i));
    }
    INVARIANT(part_list_encode(&h, &list, &back) == 0);
    INVARIANT(h.object_bytes == len && memcmp(back, object, len) == 0);
    free(list.parts);
    uint64_t bit = draw_from(object, len, 8 * len);
    object[bit / 8] ^= (uint8_t)(1 << bit % 8);
    INVARIANT(decode_root(object, len, &h, &list) < 0);
    object[bit / 8] ^= (uint8_t)(1 << bit % 8);
}

/* ------------------------------------------------------------------ parts */

static void check_entries(const struct header *h, const struct part_list *list,
                          const struct entry *entries, const uint8_t *raw)
{
    uint64_t at = list->parts[0].first_chunk * CHUNK_BLOCKS;

    for (uint32_t i = 0; i < list->parts[0].nentries; i++) {
        const struct entry *e = &entries[i];
        uint8_t back[ENTRY_BYTES];
        entry_encode(e, back);
        INVARIANT(!raw || memcmp(back, raw + (size_t)i * ENTRY_BYTES, ENTRY_BYTES) == 0);
        INVARIANT(e->kind == ENTRY_DATA && e->block >= at && e->nblocks > 0);
        at = e->block + e->nblocks;
        INVARIANT(at <= h->size_blocks && e->block / CHUNK_BLOCKS < part_end_chunk(list, 0));
        INVARIANT(e->seq <= h->seq);
    }
}

/* A part that is listed as it says of itself; `raw` is what it was made from, or NULL. */
static void look_at_part(uint8_t *object, size_t len, const uint8_t *raw, uint64_t first_chunk)
{
    struct part parts[2] = {{.first_chunk = first_chunk,
                             .seq = get_le64(object + AT_SEQ),
                             .index = get_le32(object + 72),
                             .nentries = get_le32(object + 96),
                             .object_bytes = (uint32_t)len,
                             .crc = get_le32(object + AT_BODY_CRC)},
                            {.first_chunk = first_chunk + 4}};
    struct part_list list = {parts, 1 + first_chunk % 2};
    struct superblock sb = sb_of(object);
    const char *why = NULL;
    struct header h;

    if (parts[0].nentries == 0 || parts[0].nentries > PART_ENTRIES)
        return; /* no root lists such a thing */
    scope_free struct entry *entries = malloc(parts[0].nentries * sizeof *entries);
    int r = part_decode(&sb, &list, 0, object, len, entries, &why);
    if (r < 0) {
        assert_refused(r, why);
        return;
    }
    assert_sealed(object);
    INVARIANT(header_decode(object, len, sb.uuid, HEADER_PART, parts[0].seq, &h, &why) == 0);
    INVARIANT(h.object_bytes == len);
    check_entries(&h, &list, entries, raw);
    parts[0].crc ^= UINT32_C(1) << draw_from(object, len, 32);
    INVARIANT(part_decode(&sb, &list, 0, object, len, entries, &why) == -EBADMSG);
}

/* `data`: volume's size in blocks, checkpoint's number, first chunk, entries. */
static void pack_and_look(const uint8_t *data, size_t size)
{
    struct input in = {data, size};
    uint64_t size_blocks = take_number(&in, 4), seq = take_number(&in, 2),
             chunk = take_number(&in, 2);
    struct header h = {.kind = HEADER_PART, .seq = seq, .size_blocks = size_blocks};
    uint32_t n = (uint32_t)(in.left / ENTRY_BYTES);
    uint8_t *object;

    if (n > PART_ENTRIES || part_encode(&h, in.at, n, &object) < 0)
        return;
    look_at_part(object, h.object_bytes, in.at, chunk);
    free(object);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    scope_free uint8_t *object = NULL;

    if (size > 0 && data[0] == 'e')
        pack_and_look(data + 1, size - 1);
    if (size < 1 + HEADER_BYTES || data[0] == 'e')
        return 0;
    size--;
    object = scope_copy(data + 1, size);
    for (int sealed = 0; sealed < 2; sealed++) {
        if (data[0] == 'r')
            look_at_root(object, size);
        else
            look_at_part(object, size, NULL, object[64] % 16);
        seal_object(object, size);
    }
    return 0;
}
