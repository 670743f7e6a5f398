#include "frame.h"

#include "bytes.h"
#include "crc32c.h"
#include "scope.h"

#include <zstd.h>

struct framer {
    ZSTD_CCtx *pack;
    ZSTD_DCtx *unpack;
    uint8_t packed[CHUNK_BYTES];
};

int framer_new(struct framer **ret)
{
    struct framer *f = malloc(sizeof *f); /* `packed` need not be zeros */

    if (!f)
        return -ENOMEM;
    f->pack = ZSTD_createCCtx();
    f->unpack = ZSTD_createDCtx();
    if (!f->pack || !f->unpack) {
        framer_free(f);
        return -ENOMEM;
    }
    /* level 1: about the speed of a fast link on one core; gives up quickly on noise */
    ZSTD_CCtx_setParameter(f->pack, ZSTD_c_compressionLevel, 1);
    *ret = f;
    return 0;
}

void framer_free(struct framer *f)
{
    if (!f)
        return;
    ZSTD_freeCCtx(f->pack);
    ZSTD_freeDCtx(f->unpack);
    free(f);
}

/* The number of the frame's first block goes in too: a whole frame in the wrong place is noticed.
 */
static uint32_t frame_crc(const struct entry *e, const void *stored)
{
    uint8_t place[8];

    put_le64(place, e->block - e->skip);
    return crc32c(crc32c(0, place, sizeof place), stored, e->stored_bytes);
}

void frame_pack(struct framer *f, const void *raw, bool compress, struct entry *e, void *out)
{
    size_t raw_bytes = e->nblocks * BLOCK_BYTES, n = 0;

    e->kind = ENTRY_DATA;
    e->skip = 0;
    e->frame_blocks = (uint8_t)e->nblocks;
    e->codec = CODEC_RAW;
    e->stored_bytes = (uint32_t)raw_bytes;
    if (compress) /* an error means: does not fit, so does not pay */
        n = ZSTD_compress2(f->pack, f->packed, raw_bytes - raw_bytes / 8, raw, raw_bytes);
    if (n > 0 && !ZSTD_isError(n)) {
        e->codec = CODEC_ZSTD;
        e->stored_bytes = (uint32_t)n;
        memcpy(out, f->packed, n);
    } else if (out != raw) {
        memcpy(out, raw, raw_bytes);
    }
    e->crc = frame_crc(e, out);
}

int frame_unpack(struct framer *f, const struct entry *e, const void *stored, void *buf,
                 const void **ret_raw)
{
    size_t raw_bytes = (size_t)e->frame_blocks * BLOCK_BYTES;

    if (frame_crc(e, stored) != e->crc)
        return -EBADMSG;
    if (e->codec == CODEC_RAW) {
        *ret_raw = stored;
        return 0;
    }
    if (ZSTD_decompressDCtx(f->unpack, buf, raw_bytes, stored, e->stored_bytes) != raw_bytes)
        return -EBADMSG;
    *ret_raw = buf;
    return 0;
}
