/* Entries: each field at its place, and what no writer writes is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "../../store/entry.h"
#include "../../store/header.h"
#include "../../store/scope.h"
#include "../pattern.h"

static const struct entry data = {.kind = ENTRY_DATA,
                                  .block = 0x0001020304050688,
                                  .nblocks = 5,
                                  .seq = 0x0000222324252627,
                                  .offset = 0x31323334,
                                  .stored_bytes = 0x6fff,
                                  .crc = 0x51525354,
                                  .skip = 2,
                                  .frame_blocks = 8,
                                  .codec = CODEC_ZSTD};

static int round_trip(const struct entry *e)
{
    uint8_t bytes[ENTRY_BYTES], again[ENTRY_BYTES];
    struct entry back;
    int r;

    entry_encode(e, bytes);
    r = entry_decode(bytes, &back);
    if (r == 0) {
        entry_encode(&back, again);
        assert_memory_equal(bytes, again, ENTRY_BYTES);
        assert_int_equal(back.kind, e->kind);
        assert_int_equal(back.block, e->block);
        assert_int_equal(back.nblocks, e->nblocks);
    }
    return r;
}

static void test_data_at_its_offsets(void **state)
{
    static const uint8_t golden[ENTRY_BYTES] = {
        0x88, 0x06, 0x05, 0x04, 0x03, 0x02, 0x01, 0x00, /* block */
        0x27, 0x26, 0x25, 0x24, 0x23, 0x22, 0x00, 0x00, /* seq */
        0x34, 0x33, 0x32, 0x31, 0xff, 0x6f, 0x00, 0x00, /* offset, stored bytes */
        0x54, 0x53, 0x52, 0x51,                         /* crc */
        0x11, 5,    2,    8,                            /* kind and codec, count, skip, frame */
    };
    uint8_t bytes[ENTRY_BYTES];
    struct entry e;

    (void)state;
    assert_int_equal(ENTRY_BYTES, 32);
    entry_encode(&data, bytes);
    assert_memory_equal(bytes, golden, ENTRY_BYTES);
    assert_int_equal(entry_decode(golden, &e), 0);
    assert_int_equal(e.kind, data.kind);
    assert_int_equal(e.block, data.block);
    assert_int_equal(e.nblocks, data.nblocks);
    assert_int_equal(e.seq, data.seq);
    assert_int_equal(e.offset, data.offset);
    assert_int_equal(e.stored_bytes, data.stored_bytes);
    assert_int_equal(e.crc, data.crc);
    assert_int_equal(e.skip, data.skip);
    assert_int_equal(e.frame_blocks, data.frame_blocks);
    assert_int_equal(e.codec, data.codec);
}

static void test_zero_at_its_offsets(void **state)
{
    static const uint8_t golden[ENTRY_BYTES] = {
        0x08,        0x07, 0x06, 0x05, 0x04, 0x03, 0x02, 0x00, /* block */
        0x18,        0x17, 0x16, 0x15, 0x14, 0x13, 0x01, 0x00, /* count */
        [28] = 0x02,
    };
    struct entry e = {
        .kind = ENTRY_ZERO, .block = 0x0002030405060708, .nblocks = 0x0001131415161718};
    uint8_t bytes[ENTRY_BYTES];

    (void)state;
    entry_encode(&e, bytes);
    assert_memory_equal(bytes, golden, ENTRY_BYTES);
    assert_int_equal(round_trip(&e), 0);
}

/* Each of these is the last that is good, and the first that is not. */
static void test_limits_of_data(void **state)
{
    struct entry e;

    (void)state;
#define GOOD_AND_BAD(field, good, bad)                                                             \
    e = data;                                                                                      \
    e.field = good;                                                                                \
    assert_int_equal(round_trip(&e), 0);                                                           \
    e.field = bad;                                                                                 \
    assert_int_equal(round_trip(&e), -EBADMSG)

    GOOD_AND_BAD(nblocks, 6, 7); /* beyond its frame */
    GOOD_AND_BAD(nblocks, 1, 0);
    GOOD_AND_BAD(skip, 3, 4);
    GOOD_AND_BAD(seq, 1, 0);
    GOOD_AND_BAD(seq, SEQ_MAX, 0);
    GOOD_AND_BAD(offset, HEADER_BYTES, HEADER_BYTES - 1);
    GOOD_AND_BAD(offset, UINT32_MAX - 0x6fff, UINT32_MAX - 0x6ffe);
    GOOD_AND_BAD(stored_bytes, 1, 0);
    GOOD_AND_BAD(stored_bytes, 8 * BLOCK_BYTES - 1, 8 * BLOCK_BYTES);
    GOOD_AND_BAD(codec, CODEC_ZSTD, 2);
    GOOD_AND_BAD(block, 0x0001020304050680 + 64 - 6, 0x0001020304050680 + 64 - 5);
    GOOD_AND_BAD(block, 0x0001020304050680 + 2, 0x0001020304050680 + 1);
    GOOD_AND_BAD(block, VOLUME_BLOCKS_MAX - 6, VOLUME_BLOCKS_MAX);
    GOOD_AND_BAD(frame_blocks, 56 + 2, 56 + 3); /* of two chunks: block is the 8th of one */
    GOOD_AND_BAD(frame_blocks, 7, 6);

    e = data;
    e.codec = CODEC_RAW;
    e.stored_bytes = 8 * BLOCK_BYTES;
    assert_int_equal(round_trip(&e), 0);
    e.stored_bytes--;
    assert_int_equal(round_trip(&e), -EBADMSG);
    e = (struct entry){ENTRY_DATA, 64, 64, 1, 128, 64 * BLOCK_BYTES, 0, 0, 64, CODEC_RAW, 0, 0, 0};
    assert_int_equal(round_trip(&e), 0);
}

static void test_limits_of_zeros(void **state)
{
    struct entry e = {.kind = ENTRY_ZERO, .block = 0, .nblocks = VOLUME_BLOCKS_MAX};
    uint8_t bytes[ENTRY_BYTES];

    (void)state;
    assert_int_equal(round_trip(&e), 0);
    e.block = 1;
    assert_int_equal(round_trip(&e), -EBADMSG);
    e.block = VOLUME_BLOCKS_MAX - 1;
    e.nblocks = 1;
    assert_int_equal(round_trip(&e), 0);
    e.nblocks = 0;
    assert_int_equal(round_trip(&e), -EBADMSG);
    e.nblocks = UINT64_MAX;
    assert_int_equal(round_trip(&e), -EBADMSG);
    e.block = VOLUME_BLOCKS_MAX;
    assert_int_equal(round_trip(&e), -EBADMSG);
    for (size_t i = 16; i < ENTRY_BYTES; i++) { /* what is reserved is zero */
        e = (struct entry){.kind = ENTRY_ZERO, .block = 5, .nblocks = 5};
        entry_encode(&e, bytes);
        bytes[i] ^= 0x40;
        assert_int_equal(entry_decode(bytes, &e), -EBADMSG);
    }
}

/* The place of a base, and what a move says of the old one: the same eight bytes. */
static void test_bases_and_moves(void **state)
{
    uint8_t bytes[ENTRY_BYTES];
    struct entry e = data, back;

    (void)state;
    e.base = 0xbeef;
    entry_encode(&e, bytes);
    assert_int_equal(bytes[14], 0xef);
    assert_int_equal(bytes[15], 0xbe);
    assert_int_equal(entry_decode(bytes, &back), 0);
    assert_int_equal(back.base, 0xbeef);
    assert_int_equal(back.seq, data.seq);

    e = data;
    e.kind = ENTRY_MOVE;
    e.old_seq = 0x0000222324252627;
    e.old_base = 0xcafe;
    entry_encode(&e, bytes);
    assert_int_equal(bytes[28], 0x13);
    assert_int_equal(bytes[14], 0xfe);
    assert_int_equal(bytes[15], 0xca);
    assert_int_equal(entry_decode(bytes, &back), 0);
    assert_int_equal(back.kind, ENTRY_MOVE);
    assert_int_equal(back.old_base, 0xcafe);
    assert_true(back.old_seq == e.old_seq && back.seq == 0 && back.base == 0);
    e.old_seq = 0;
    assert_int_equal(round_trip(&e), -EBADMSG);
}

static void test_unknown_kinds(void **state)
{
    uint8_t bytes[ENTRY_BYTES];
    struct entry e;

    (void)state;
    entry_encode(&data, bytes);
    for (uint8_t kind = 0; kind < 16; kind++) {
        bytes[28] = (uint8_t)(0x10 | kind);
        assert_int_equal(entry_decode(bytes, &e),
                         kind == ENTRY_DATA || kind == ENTRY_MOVE ? 0 : -EBADMSG);
    }
}

/* Whatever the bytes are: refused, or within every bound that those who use entries rely on. */
static void check_sane(const struct entry *e)
{
    assert_true(e->block < VOLUME_BLOCKS_MAX);
    assert_true(e->nblocks > 0 && e->nblocks <= VOLUME_BLOCKS_MAX - e->block);
    if (e->kind == ENTRY_ZERO)
        return;
    assert_true(e->kind == ENTRY_DATA || e->kind == ENTRY_MOVE);
    uint64_t frame = e->block - e->skip;
    assert_int_equal(frame / CHUNK_BLOCKS, (frame + e->frame_blocks - 1) / CHUNK_BLOCKS);
    assert_true(e->block + e->nblocks <= frame + e->frame_blocks);
    uint64_t seq = e->kind == ENTRY_MOVE ? e->old_seq : e->seq;
    assert_true(seq > 0 && seq <= SEQ_MAX);
    assert_in_range(e->stored_bytes, 1, CHUNK_BYTES);
    assert_in_range((uint64_t)e->offset + e->stored_bytes, HEADER_BYTES + 1, UINT32_MAX);
    assert_true(e->codec == CODEC_RAW || e->codec == CODEC_ZSTD);
}

static void test_flipped_bits_are_refused_or_sane(void **state)
{
    uint8_t bytes[ENTRY_BYTES];
    struct entry e;
    unsigned refused = 0;

    (void)state;
    entry_encode(&data, bytes);
    for (size_t bit = 0; bit < sizeof bytes * 8; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        if (entry_decode(bytes, &e) == 0)
            check_sane(&e);
        else
            refused++;
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    assert_in_range(refused, 50, 200);
}

static void test_random_bytes_are_refused_or_sane(void **state)
{
    uint64_t rng = 1;
    unsigned accepted = 0;

    (void)state;
    for (int i = 0; i < 300000; i++) {
        uint8_t bytes[ENTRY_BYTES];
        struct entry e;
        entry_encode(&data, bytes);
        for (uint64_t n = 1 + draw(&rng, 5); n > 0; n--)
            bytes[draw(&rng, ENTRY_BYTES)] = (uint8_t)draw(&rng, draw(&rng, 2) ? 256 : 66);
        if (entry_decode(bytes, &e) == 0) {
            check_sane(&e);
            assert_int_equal(round_trip(&e), 0);
            accepted++;
        }
    }
    assert_in_range(accepted, 1000, 299000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_data_at_its_offsets),
        cmocka_unit_test(test_zero_at_its_offsets),
        cmocka_unit_test(test_limits_of_data),
        cmocka_unit_test(test_limits_of_zeros),
        cmocka_unit_test(test_bases_and_moves),
        cmocka_unit_test(test_unknown_kinds),
        cmocka_unit_test(test_flipped_bits_are_refused_or_sane),
        cmocka_unit_test(test_random_bytes_are_refused_or_sane),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
