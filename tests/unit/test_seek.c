/*
 * Where data and holes are, over more chunks than are looked up at once: some of them in memory,
 * others in the index only, and some that memory knows better.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "mem_volume.h"

enum { CHUNKS = 1000, TRIES = 10 };

static uint64_t model[CHUNKS]; /* blocks that are data */
static char buf[CHUNK];

static bool is_data(uint64_t block)
{
    return model[block / 64] >> block % 64 & 1;
}

static void set(uint64_t block, uint64_t nblocks, bool data)
{
    uint64_t offset = block * BLOCK, len = nblocks * BLOCK;

    for (uint64_t b = block; b < block + nblocks; b++)
        model[b / 64] = (model[b / 64] & ~(UINT64_C(1) << b % 64)) | (uint64_t)data << b % 64;
    if (!data)
        assert_int_equal(volume_discard(volume, offset, len), 0);
    for (uint64_t n; data && len; offset += n, len -= n) {
        n = MIN(len, (uint64_t)CHUNK);
        assert_int_equal(volume_write(volume, buf, n, offset, true), 0);
    }
}

static void check(uint64_t offset, bool data)
{
    uint64_t size = (uint64_t)CHUNKS * CHUNK, at = offset, got = 1;

    while (at < size && is_data(at / BLOCK) != data)
        at = (at / BLOCK + 1) * BLOCK;
    int r = volume_seek(volume, offset, data, &got);
    assert_int_equal(r, at < size || !data ? 0 : -ENXIO);
    if (r == 0)
        assert_int_equal(got, at);
}

static void check_around(uint64_t block)
{
    for (uint64_t b = block ? block - 1 : 0; b < block + 2 && b < CHUNKS * 64; b++)
        for (int data = 0; data < 2; data++) {
            check(b * BLOCK, data);
            check(b * BLOCK + 100, data);
        }
}

static void check_all(uint64_t *rng)
{
    check_around(0);
    for (uint64_t b = 1; b < CHUNKS * 64; b++)
        if (is_data(b) != is_data(b - 1))
            check_around(b);
    for (int i = 0; i < 200; i++)
        check_around(draw(rng, CHUNKS * 64));
}

static void test_many_chunks(void **state)
{
    static const uint64_t lengths[] = {1, 64, 65, 64 * 63, 64 * 255, 64 * 256, 64 * 257, 64 * 520};
    uint64_t rng = 1, block = 0;

    (void)state;
    memset(buf, 'x', sizeof buf);
    create_and_attach((uint64_t)CHUNKS * CHUNK);
    for (bool data = true;; data = !data) {
        uint64_t len = lengths[draw(&rng, ARRAY_SIZE(lengths))];
        if (block + len > CHUNKS * 64)
            break;
        if (data)
            set(block, len, true);
        block += len;
    }
    check_all(&rng);
    assert_int_equal(volume_flush(volume, true), 0);
    check_all(&rng);
    for (int i = 0; i < 40; i++)
        set(draw(&rng, CHUNKS * 64 - 200), 1 + draw(&rng, 200), i % 2);
    check_all(&rng);
    assert_int_equal(detach(false), 0);
}

static int64_t cpu_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* To the end of much data: not as if each chunk was asked for. The quickest of some, as the index
 * may just be written. */
static void test_a_walk_is_quick(void **state)
{
    uint64_t at, size = (uint64_t)CHUNKS * CHUNK;

    (void)state;
    memset(buf, 'x', sizeof buf);
    create_and_attach(size);
    for (uint64_t i = 0; i < CHUNKS; i++)
        assert_int_equal(volume_write(volume, buf, CHUNK, i * CHUNK, true), 0);
    assert_int_equal(volume_flush(volume, true), 0);
    int64_t each = INT64_MAX, walk = INT64_MAX;
    for (int try = 0; try < TRIES; try++) {
        int64_t start = cpu_ns();
        for (uint64_t i = 0; i < CHUNKS; i++)
            assert_int_equal(volume_seek(volume, i * CHUNK, true, &at), 0);
        each = MIN(each, cpu_ns() - start);
        start = cpu_ns();
        assert_int_equal(volume_seek(volume, 0, false, &at), 0);
        walk = MIN(walk, cpu_ns() - start);
        assert_int_equal(at, size);
    }
    assert_true(walk * 3 < each);
    assert_int_equal(detach(false), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_many_chunks, volume_setup, volume_teardown),
        cmocka_unit_test_setup_teardown(test_a_walk_is_quick, volume_setup, volume_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
