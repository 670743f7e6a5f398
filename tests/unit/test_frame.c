/* Frames: what goes in comes out, or an error does. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "../../store/frame.h"
#include "../../store/scope.h"
#include "../pattern.h"

static struct framer *framer;
static _Alignas(4096) uint8_t raw[CHUNK_BYTES], stored[CHUNK_BYTES], out[CHUNK_BYTES];

static int setup(void **state)
{
    (void)state;
    return framer_new(&framer);
}

static int teardown(void **state)
{
    (void)state;
    framer_free(framer);
    return 0;
}

/* Text-like: compresses well. */
static void fill_soft(size_t len)
{
    for (size_t i = 0; i < len; i++)
        raw[i] = (uint8_t)("the same again, "[i % 16] + (i / 1000) % 7);
}

static struct entry pack(uint64_t block, unsigned nblocks, bool compress)
{
    struct entry e = {.block = block, .nblocks = nblocks};

    frame_pack(framer, raw, compress, &e, stored);
    assert_int_equal(e.kind, ENTRY_DATA);
    assert_int_equal(e.skip, 0);
    assert_int_equal(e.frame_blocks, nblocks);
    assert_int_equal(e.block, block);
    assert_int_equal(e.nblocks, nblocks);
    return e;
}

static void check_unpack(const struct entry *e)
{
    const void *got;

    assert_int_equal(frame_unpack(framer, e, stored, out, &got), 0);
    assert_memory_equal(got, raw, e->frame_blocks * BLOCK_BYTES);
    assert_ptr_equal(got, e->codec == CODEC_RAW ? stored : out);
}

static void test_round_trips(void **state)
{
    (void)state;
    for (unsigned n = 1; n <= CHUNK_BLOCKS; n++) {
        uint32_t bytes = n * BLOCK_BYTES;
        fill_soft(bytes);
        struct entry e = pack(64, n, true);
        assert_int_equal(e.codec, CODEC_ZSTD);
        assert_in_range(e.stored_bytes, 1, bytes / 2);
        check_unpack(&e);
        e = pack(64, n, false);
        assert_int_equal(e.codec, CODEC_RAW);
        assert_int_equal(e.stored_bytes, bytes);
        check_unpack(&e);
        pattern(raw, bytes, 0, n); /* noise */
        e = pack(64, n, true);
        assert_int_equal(e.codec, CODEC_RAW);
        assert_int_equal(e.stored_bytes, bytes);
        check_unpack(&e);
    }
}

static void test_compression_must_pay(void **state)
{
    (void)state;
    for (size_t noise = 0; noise <= BLOCK_BYTES; noise += 64) {
        memset(raw, 0, BLOCK_BYTES);
        pattern(raw, noise, 0, 3);
        struct entry e = pack(0, 1, true);
        if (e.codec == CODEC_ZSTD)
            assert_in_range(e.stored_bytes, 1, BLOCK_BYTES - BLOCK_BYTES / 8);
        else
            assert_true(noise > BLOCK_BYTES / 2);
        check_unpack(&e);
    }
}

static void test_in_place(void **state)
{
    (void)state;
    for (int compress = 0; compress < 2; compress++) {
        fill_soft(4 * BLOCK_BYTES);
        memcpy(stored, raw, 4 * BLOCK_BYTES);
        struct entry e = {.block = 4, .nblocks = 4};
        frame_pack(framer, stored, compress, &e, stored);
        check_unpack(&e);
    }
}

static void test_every_flipped_bit_is_noticed(void **state)
{
    const void *got;

    (void)state;
    for (int compress = 0; compress < 2; compress++) {
        fill_soft(BLOCK_BYTES);
        struct entry e = pack(1000, 1, compress);
        for (size_t bit = 0; bit < e.stored_bytes * 8u; bit++) {
            stored[bit / 8] ^= (uint8_t)(1 << bit % 8);
            assert_int_equal(frame_unpack(framer, &e, stored, out, &got), -EBADMSG);
            stored[bit / 8] ^= (uint8_t)(1 << bit % 8);
        }
        for (int bit = 0; bit < 32; bit++) {
            e.crc ^= UINT32_C(1) << bit;
            assert_int_equal(frame_unpack(framer, &e, stored, out, &got), -EBADMSG);
            e.crc ^= UINT32_C(1) << bit;
        }
        check_unpack(&e);
    }
}

/* The same bytes, said to be of other blocks, or longer or shorter than they are. */
static void test_in_the_wrong_place(void **state)
{
    const void *got;

    (void)state;
    fill_soft(2 * BLOCK_BYTES);
    const struct entry good = pack(1000, 2, true);
    struct entry e = good;
    e.block = 1001;
    assert_int_equal(frame_unpack(framer, &e, stored, out, &got), -EBADMSG);
    e.skip = 1; /* a part of it, and it is in its place */
    e.nblocks = 1;
    check_unpack(&e);
    e = good;
    e.stored_bytes--;
    assert_int_equal(frame_unpack(framer, &e, stored, out, &got), -EBADMSG);
    e = good;
    e.frame_blocks = 3;
    assert_int_equal(frame_unpack(framer, &e, stored, out, &got), -EBADMSG);
    e.frame_blocks = 1; /* would not fit into the buffer */
    assert_int_equal(frame_unpack(framer, &e, stored, out, &got), -EBADMSG);
    check_unpack(&good);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trips),
        cmocka_unit_test(test_compression_must_pay),
        cmocka_unit_test(test_in_place),
        cmocka_unit_test(test_every_flipped_bit_is_noticed),
        cmocka_unit_test(test_in_the_wrong_place),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
