/*
 * Entries: what a segment says of blocks, and what a checkpoint and the local index keep of it. One
 * encoding, ENTRY_BYTES each; offsets: store/DESIGN.md, "Entries". Pure.
 */
#ifndef S3VOL_ENTRY_H
#define S3VOL_ENTRY_H

#include <stdint.h>

enum {
    BLOCK_BYTES = 4096,
    CHUNK_BLOCKS = 64,
    CHUNK_BYTES = BLOCK_BYTES * CHUNK_BLOCKS,
    FRAME_BLOCKS = 16, /* writers: at most, and never across a multiple of it */
    ENTRY_BYTES = 32,
};

/* A volume has less than so many blocks: 8 EiB. */
#define VOLUME_BLOCKS_MAX (UINT64_C(1) << 51)
/* No object of the log has a greater number. (The upper 16 bits of it in an entry are the base.) */
#define SEQ_MAX ((UINT64_C(1) << 48) - 1)

enum entry_kind {
    ENTRY_DATA = 1, /* the blocks are in a frame */
    ENTRY_ZERO = 2, /* the blocks are zero, and occupy nothing */
    ENTRY_MOVE = 3, /* those of the blocks that are in the old place are in this frame now */
};

enum codec { CODEC_RAW = 0, CODEC_ZSTD = 1 };

struct entry {
    enum entry_kind kind;
    uint64_t block;   /* the first that it speaks of */
    uint64_t nblocks; /* data, move: 1 to 64, all of one chunk */
    /* data and move only: */
    uint64_t seq;    /* the segment that holds the frame; a move's is the one that holds the entry:
                        not encoded, and 0 when decoded */
    uint32_t offset; /* of the frame's bytes in that object */
    uint32_t stored_bytes; /* of the frame */
    uint32_t crc;          /* CRC-32C of the frame's first block number (le64) and stored bytes */
    uint8_t skip;          /* `block` is the frame's block number `skip` */
    uint8_t frame_blocks;  /* in the whole frame */
    enum codec codec;
    uint16_t
        base; /* whose log that is: 0: the volume's own, else the superblock's bases[base - 1] */
    /* move only: the segment that held them before */
    uint16_t old_base;
    uint64_t old_seq;
};

void entry_encode(const struct entry *entry, void *out);

/* 0, or -EBADMSG if no writer would have written it. */
int entry_decode(const void *data, struct entry *ret_entry);

#endif
