#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "../../cache/readahead.h"
#include "../../store/scope.h"
#include "../pattern.h"

#define KIB UINT64_C(1024)
#define MIB (1024 * KIB)

static struct readahead ra;
static uint64_t from, to;

static int setup(void **state)
{
    (void)state;
    ra = (struct readahead){.max_bytes = 8 * MIB};
    return 0;
}

static bool note(uint64_t offset, uint64_t len)
{
    bool sequential = readahead_note(&ra, offset, len, true, &from, &to);

    assert_true(from <= to);
    if (from < to)
        assert_true(from >= offset + len);
    assert_true(to - from <= ra.max_bytes);
    return sequential;
}

/* Reads on from `at`; what is fetched ahead joins up, and nothing twice. Returns where it ends. */
static uint64_t read_on(uint64_t at, uint64_t step, int n, uint64_t *ahead)
{
    for (int i = 0; i < n; i++, at += step) {
        assert_true(note(at, step));
        if (from < to) {
            assert_int_equal(from, MAX(*ahead, at + step));
            *ahead = to;
        }
        assert_true(*ahead <= at + step + ra.max_bytes);
    }
    return at;
}

static void test_one_stream(void **state)
{
    uint64_t ahead = 0;

    (void)state;
    assert_false(note(10 * MIB, 128 * KIB));
    assert_int_equal(from, to); /* once is no stream */
    ahead = 10 * MIB + 128 * KIB;
    uint64_t at = read_on(ahead, 128 * KIB, 1, &ahead);
    assert_int_equal(ahead, at + 512 * KIB); /* it starts small */
    at = read_on(at, 128 * KIB, 100, &ahead);
    assert_true(ahead >= at + 4 * MIB); /* … and grows; it never runs dry */
    read_on(at, 128 * KIB, 1000, &ahead);
}

/* Never more ahead than was read in order, but for the first step, and up to the limit. */
static void test_the_window_is_what_was_read(void **state)
{
    uint64_t at = 4096, steps = 0;

    (void)state;
    note(0, 4096);
    while (at < 32 * MIB) {
        note(at, 4096);
        at += 4096;
        if (from == to)
            continue;
        assert_int_equal(to - at, MIN(MAX(at, 512 * KIB), 8 * MIB));
        steps++;
    }
    assert_in_range(steps, 8, 20);
}

static void test_several_streams(void **state)
{
    uint64_t at[READAHEAD_STREAMS], ahead[READAHEAD_STREAMS];

    (void)state;
    for (uint64_t i = 0; i < READAHEAD_STREAMS; i++) {
        assert_false(note(i << 30, 4096));
        at[i] = ahead[i] = (i << 30) + 4096;
    }
    for (int round = 0; round < 200; round++)
        for (int i = 0; i < READAHEAD_STREAMS; i++)
            at[i] = read_on(at[i], 4096 << i % 4, 1, &ahead[i]);
    for (int i = 0; i < READAHEAD_STREAMS; i++)
        assert_true(ahead[i] > at[i]);
}

/* A stream lives on among random reads, as long as it is used now and then. */
static void test_a_stream_among_random_reads(void **state)
{
    uint64_t rng = 1, ahead, at = 4096;

    (void)state;
    note(0, 4096);
    ahead = 4096;
    for (int i = 0; i < 500; i++) {
        at = read_on(at, 4096, 1, &ahead);
        for (int k = 0; k < READAHEAD_STREAMS - 2; k++)
            assert_false(note((1 + draw(&rng, 1000000)) << 32, 4096));
    }
}

static void test_random_reads_fetch_nothing(void **state)
{
    uint64_t rng = 1;

    (void)state;
    for (int i = 0; i < 10000; i++) {
        assert_false(note(draw(&rng, UINT64_C(1) << 40) * 4096, 4096));
        assert_int_equal(from, to);
    }
}

static void test_the_same_again_fetches_nothing(void **state)
{
    (void)state;
    note(MIB, 64 * KIB);
    for (int i = 0; i < 100; i++) {
        assert_true(note(MIB, 64 * KIB));
        assert_int_equal(from, to);
    }
    assert_true(note(MIB + 64 * KIB, 64 * KIB));
    assert_true(from < to);
}

static void test_what_is_not_fetched_now_is_later(void **state)
{
    uint64_t first, last;

    (void)state;
    note(0, MIB);
    assert_true(readahead_note(&ra, MIB, MIB, false, &first, &last));
    assert_true(first < last);
    assert_true(note(MIB, MIB));
    assert_int_equal(from, first);
    assert_int_equal(to, last);
    assert_true(note(MIB, MIB));
    assert_int_equal(from, to);
}

/* Requests of one reader may come in another order. */
static void test_a_little_disorder(void **state)
{
    static const unsigned order[] = {1, 0, 2, 4, 3, 5, 7, 6};
    uint64_t fetched = 0;

    (void)state;
    note(0, 64 * KIB);
    for (uint64_t round = 0; round < 20; round++)
        for (int i = 0; i < 8; i++) {
            assert_true(note(64 * KIB * (1 + 8 * round + order[i]), 64 * KIB));
            fetched += to - from;
        }
    assert_in_range(fetched, 8 * MIB, 20 * MIB);
}

static void test_a_jump_is_another_stream(void **state)
{
    uint64_t ahead = 4096;

    (void)state;
    note(0, 4096);
    read_on(4096, 4096, 100, &ahead);
    assert_false(note(1 * MIB * 1024, 4096));
    assert_int_equal(from, to);
    assert_true(note(1 * MIB * 1024 + 4096, 4096));
    assert_true(to - from <= 512 * KIB);
}

static void test_none_at_all(void **state)
{
    (void)state;
    ra.max_bytes = 0;
    for (uint64_t i = 0; i < 1000; i++) {
        assert_int_equal(note(i * 65536, 65536), i > 0);
        assert_int_equal(from, to);
    }
}

static void test_a_small_limit(void **state)
{
    uint64_t ahead = 4096;

    (void)state;
    ra.max_bytes = 64 * KIB;
    note(0, 4096);
    read_on(4096, 4096, 1000, &ahead);
    assert_true(ahead > 1000 * 4096);
}

static void test_reads_larger_than_the_window(void **state)
{
    uint64_t ahead = 32 * MIB;

    (void)state;
    note(0, 32 * MIB);
    read_on(32 * MIB, 32 * MIB, 20, &ahead);
}

static void test_at_the_end_of_the_largest_volume(void **state)
{
    uint64_t end = UINT64_C(1) << 63;

    (void)state;
    note(end - 16384, 4096);
    note(end - 12288, 4096);
    note(end - 8192, 4096);
    note(end - 4096, 4096);
}

#define TEST(name) cmocka_unit_test_setup(name, setup)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_one_stream),
        TEST(test_the_window_is_what_was_read),
        TEST(test_several_streams),
        TEST(test_a_stream_among_random_reads),
        TEST(test_random_reads_fetch_nothing),
        TEST(test_the_same_again_fetches_nothing),
        TEST(test_what_is_not_fetched_now_is_later),
        TEST(test_a_little_disorder),
        TEST(test_a_jump_is_another_stream),
        TEST(test_none_at_all),
        TEST(test_a_small_limit),
        TEST(test_reads_larger_than_the_window),
        TEST(test_at_the_end_of_the_largest_volume),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
