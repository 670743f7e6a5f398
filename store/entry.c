#include "entry.h"

#include "bytes.h"
#include "header.h"
#include "scope.h"

enum {
    AT_BLOCK = 0,
    AT_SEQ = 8, /* zero entries: the number of blocks */
    BASE_SHIFT = 48,
    AT_OFFSET = 16,
    AT_STORED = 20,
    AT_CRC = 24,
    AT_KIND = 28, /* low four bits; high four: the codec */
    AT_COUNT = 29,
    AT_SKIP = 30,
    AT_FRAME_BLOCKS = 31,
};
_Static_assert(AT_FRAME_BLOCKS + 1 == ENTRY_BYTES, "the last byte of an entry");

void entry_encode(const struct entry *e, void *out)
{
    uint8_t *p = out;

    put_le64(p + AT_BLOCK, e->block);
    if (e->kind == ENTRY_ZERO) {
        memset(p + AT_SEQ, 0, ENTRY_BYTES - AT_SEQ);
        put_le64(p + AT_SEQ, e->nblocks);
        p[AT_KIND] = ENTRY_ZERO;
        return;
    }
    if (e->kind == ENTRY_MOVE)
        put_le64(p + AT_SEQ, e->old_seq | (uint64_t)e->old_base << BASE_SHIFT);
    else
        put_le64(p + AT_SEQ, e->seq | (uint64_t)e->base << BASE_SHIFT);
    put_le32(p + AT_OFFSET, e->offset);
    put_le32(p + AT_STORED, e->stored_bytes);
    put_le32(p + AT_CRC, e->crc);
    p[AT_KIND] = (uint8_t)(e->kind | e->codec << 4);
    p[AT_COUNT] = (uint8_t)e->nblocks;
    p[AT_SKIP] = e->skip;
    p[AT_FRAME_BLOCKS] = e->frame_blocks;
}

static bool zero_makes_sense(const struct entry *e, const uint8_t *p)
{
    static const uint8_t none[ENTRY_BYTES];

    return e->nblocks > 0 && e->nblocks <= VOLUME_BLOCKS_MAX - e->block &&
           p[AT_KIND] == ENTRY_ZERO && memcmp(p + AT_OFFSET, none, AT_KIND - AT_OFFSET) == 0 &&
           memcmp(p + AT_COUNT, none, ENTRY_BYTES - AT_COUNT) == 0;
}

/* Its place, or a move's old one, was looked at before. */
static bool frame_makes_sense(const struct entry *e)
{
    uint32_t raw_bytes = (uint32_t)e->frame_blocks * BLOCK_BYTES;
    uint64_t at = e->block % CHUNK_BLOCKS;

    return e->nblocks > 0 && e->skip + e->nblocks <= e->frame_blocks &&
           /* the whole frame is of one chunk, too */
           e->skip <= at && at - e->skip + e->frame_blocks <= CHUNK_BLOCKS &&
           e->offset >= HEADER_BYTES && e->offset <= UINT32_MAX - e->stored_bytes &&
           e->stored_bytes > 0 &&
           (e->codec == CODEC_RAW    ? e->stored_bytes == raw_bytes
            : e->codec == CODEC_ZSTD ? e->stored_bytes < raw_bytes
                                     : false);
}

int entry_decode(const void *data, struct entry *ret)
{
    const uint8_t *p = data;
    struct entry e = {.kind = p[AT_KIND] & 15, .block = get_le64(p + AT_BLOCK)};

    if (e.block >= VOLUME_BLOCKS_MAX)
        return -EBADMSG;
    if (e.kind == ENTRY_ZERO) {
        e.nblocks = get_le64(p + AT_SEQ);
        if (!zero_makes_sense(&e, p))
            return -EBADMSG;
    } else if (e.kind == ENTRY_DATA || e.kind == ENTRY_MOVE) {
        uint64_t place = get_le64(p + AT_SEQ), seq = place & SEQ_MAX;
        uint16_t base = (uint16_t)(place >> BASE_SHIFT);
        if (e.kind == ENTRY_DATA) {
            e.seq = seq;
            e.base = base;
        } else {
            e.old_seq = seq;
            e.old_base = base;
        }
        e.offset = get_le32(p + AT_OFFSET);
        e.stored_bytes = get_le32(p + AT_STORED);
        e.crc = get_le32(p + AT_CRC);
        e.codec = p[AT_KIND] >> 4;
        e.nblocks = p[AT_COUNT];
        e.skip = p[AT_SKIP];
        e.frame_blocks = p[AT_FRAME_BLOCKS];
        if (seq == 0 || !frame_makes_sense(&e))
            return -EBADMSG;
    } else {
        return -EBADMSG;
    }
    *ret = e;
    return 0;
}
