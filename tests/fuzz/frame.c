/* Frames: input is an entry and the bytes that it speaks of. */
#include "fuzz.h"

#include "../../store/frame.h"

static struct framer *framer;

/* Bytes of a frame's size that end where the memory does. */
static uint8_t *room_for(const struct entry *e)
{
    return malloc((size_t)e->frame_blocks * BLOCK_BYTES);
}

static int unpack(const struct entry *e, const uint8_t *stored, uint8_t *raw)
{
    const void *at;
    int r = frame_unpack(framer, e, stored, raw, &at);

    INVARIANT(r == 0 || r == -EBADMSG);
    if (r == 0 && at != raw)
        memcpy(raw, at, (size_t)e->frame_blocks * BLOCK_BYTES);
    return r;
}

static uint32_t right_crc(const struct entry *e, const uint8_t *stored)
{
    uint8_t place[8];

    put_le64(place, e->block - e->skip);
    return crc32c(crc32c(0, place, sizeof place), stored, e->stored_bytes);
}

/* What was unpacked is packed, and comes back. */
static void round_trip(const struct entry *was, const uint8_t *raw)
{
    struct entry e = {.kind = ENTRY_DATA,
                      .block = was->block - was->skip,
                      .nblocks = was->frame_blocks,
                      .seq = 1,
                      .offset = HEADER_BYTES};
    scope_free uint8_t *stored = room_for(was), *back = room_for(was);
    uint8_t coded[ENTRY_BYTES];

    frame_pack(framer, raw, was->codec == CODEC_ZSTD, &e, stored);
    entry_encode(&e, coded);
    INVARIANT(entry_decode(coded, &e) == 0);
    INVARIANT(unpack(&e, stored, back) == 0);
    INVARIANT(memcmp(back, raw, (size_t)e.frame_blocks * BLOCK_BYTES) == 0);
}

static void look(struct entry e, uint8_t *stored)
{
    scope_free uint8_t *raw = room_for(&e);
    uint64_t bit = draw_from(stored, e.stored_bytes, 8 * (uint64_t)e.stored_bytes);

    if (unpack(&e, stored, raw) < 0)
        return;
    INVARIANT(e.crc == right_crc(&e, stored));
    round_trip(&e, raw);
    stored[bit / 8] ^= (uint8_t)(1 << bit % 8);
    INVARIANT(unpack(&e, stored, raw) == -EBADMSG);
    stored[bit / 8] ^= (uint8_t)(1 << bit % 8);
    e.block ^= CHUNK_BLOCKS; /* a good frame in the wrong place */
    INVARIANT(unpack(&e, stored, raw) == -EBADMSG);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct entry e;
    uint8_t coded[ENTRY_BYTES];

    if (size <= ENTRY_BYTES || (!framer && framer_new(&framer) < 0))
        return 0;
    memcpy(coded, data, ENTRY_BYTES);
    put_le32(coded + 20, (uint32_t)(size - ENTRY_BYTES)); /* stored bytes: all there are */
    if (entry_decode(coded, &e) < 0 || e.kind != ENTRY_DATA)
        return 0;
    scope_free uint8_t *stored = scope_copy(data + ENTRY_BYTES, size - ENTRY_BYTES);
    look(e, stored);
    e.crc = right_crc(&e, stored);
    look(e, stored);
    return 0;
}
