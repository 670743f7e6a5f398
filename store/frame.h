/* Frames: a run of blocks as it is stored. Pure but for zstd's contexts. */
#ifndef S3VOL_FRAME_H
#define S3VOL_FRAME_H

#include "entry.h"

#include <stdbool.h>

/* Working memory for one thread. */
struct framer;
int framer_new(struct framer **ret_framer);
void framer_free(struct framer *framer);

/* Stores the blocks `entry->block` … + nblocks, whose bytes are at `raw`, to `out`, which has room
 * for them uncompressed; `out` may equal `raw`. Sets codec, stored_bytes, crc, skip and
 * frame_blocks; seq and offset are the caller's. Compressed only with `compress`, and if that saves
 * an eighth at least. */
void frame_pack(struct framer *framer, const void *raw, bool compress, struct entry *entry,
                void *out);

/* Checks `stored` (entry->stored_bytes) and gives the frame's blocks, all frame_blocks of them:
 * *ret_raw is `stored` itself, or `buf` (frame_blocks * BLOCK_BYTES). -EBADMSG if damaged. */
int frame_unpack(struct framer *framer, const struct entry *entry, const void *stored, void *buf,
                 const void **ret_raw);

#endif
