/* The places of a chunk's blocks, against an array of 64 elements. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "../../cache/places.h"
#include "../../store/scope.h"
#include "../pattern.h"

enum { THE_CHUNK = 7, FIRST_BLOCK = THE_CHUNK * CHUNK_BLOCKS };

/* What each block's place must be. */
struct model {
    uint64_t seq[CHUNK_BLOCKS]; /* 0: none */
    uint64_t frame[CHUNK_BLOCKS];
};

static struct entry make(unsigned first, unsigned n, uint64_t seq)
{
    return (struct entry){.kind = ENTRY_DATA,
                          .block = FIRST_BLOCK + first,
                          .nblocks = n,
                          .seq = seq,
                          .offset = 200,
                          .stored_bytes = n * BLOCK_BYTES,
                          .crc = (uint32_t)seq,
                          .frame_blocks = (uint8_t)n};
}

static void put(struct places *p, struct model *m, unsigned first, unsigned n, uint64_t seq)
{
    struct entry e = make(first, n, seq);

    places_put(p, &e);
    for (unsigned i = first; i < first + n; i++) {
        m->seq[i] = seq;
        m->frame[i] = first;
    }
}

static void clear(struct places *p, struct model *m, unsigned first, unsigned n)
{
    places_clear(p, first, n);
    memset(&m->seq[first], 0, n * sizeof m->seq[0]);
}

static void check(const struct places *p, const struct model *m)
{
    unsigned at = 0;
    uint64_t mask = 0;

    for (unsigned i = 0; i < p->n; i++) {
        const struct entry *e = &p->e[i];
        unsigned first = (unsigned)(e->block - FIRST_BLOCK);
        for (; at < first; at++)
            assert_int_equal(m->seq[at], 0);
        assert_in_range(e->nblocks, 1, CHUNK_BLOCKS - first);
        for (; at < first + e->nblocks; at++) {
            assert_int_equal(m->seq[at], e->seq);
            assert_int_equal(at - m->frame[at], e->skip + (at - first));
            mask |= UINT64_C(1) << at;
        }
        assert_int_equal(e->crc, (uint32_t)e->seq);
        assert_int_equal(e->stored_bytes, e->frame_blocks * BLOCK_BYTES);
    }
    for (; at < CHUNK_BLOCKS; at++)
        assert_int_equal(m->seq[at], 0);
    assert_int_equal(places_mask(p), mask);
}

static void check_round_trip(const struct places *p)
{
    uint8_t blob[CHUNK_BLOCKS * ENTRY_BYTES], again[sizeof blob];
    struct places back;
    size_t len = places_encode(p, blob);

    assert_int_equal(len, p->n * ENTRY_BYTES);
    assert_int_equal(places_decode(blob, len, THE_CHUNK, &back), 0);
    assert_int_equal(back.n, p->n);
    assert_int_equal(places_encode(&back, again), len);
    assert_memory_equal(blob, again, len);
}

/* ------------------------------------------------------------------ masks */

static void test_masks(void **state)
{
    (void)state;
    for (unsigned first = 0; first < 64; first++)
        for (unsigned n = 0; n <= 64 - first; n++) {
            uint64_t mask = 0;
            unsigned got;
            for (unsigned i = first; i < first + n; i++)
                mask |= UINT64_C(1) << i;
            assert_int_equal(mask_range(first, n), mask);
            assert_int_equal(mask_count(mask), n);
            if (n == 0)
                continue;
            assert_int_equal(mask_run(mask, &got), first);
            assert_int_equal(got, n);
            if (first + n < 63) { /* with another run behind it */
                assert_int_equal(mask_run(mask | UINT64_C(1) << 63, &got), first);
                assert_int_equal(got, n);
            }
        }
}

static void test_counts_may_be_subtracted(void **state)
{
    uint64_t total = 10;

    (void)state;
    total += mask_count(1) - mask_count(7);
    assert_int_equal(total, 8);
}

/* ------------------------------------------------------------------ places */

/* Every run on top of every other: clear and put. */
static void test_every_overlap_of_two(void **state)
{
    (void)state;
    for (unsigned a = 0; a < 64; a += 3)
        for (unsigned an = 1; an <= 64 - a; an += 2)
            for (unsigned b = 0; b < 64; b++)
                for (unsigned bn = 1; bn <= 64 - b; bn += 3) {
                    struct places p = {0};
                    struct model m = {0};
                    put(&p, &m, a, an, 1);
                    clear(&p, &m, b, bn);
                    check(&p, &m);
                    p.n = 0;
                    memset(&m, 0, sizeof m);
                    put(&p, &m, a, an, 1);
                    put(&p, &m, b, bn, 2);
                    check(&p, &m);
                }
}

static void test_one_place_for_each_block(void **state)
{
    struct places p = {0};
    struct model m = {0};

    (void)state;
    put(&p, &m, 0, 64, 1);
    for (unsigned i = 0; i < 64; i += 2)
        put(&p, &m, i, 1, 2 + i);
    assert_int_equal(p.n, 64);
    check(&p, &m);
    check_round_trip(&p);
    put(&p, &m, 0, 64, 100);
    assert_int_equal(p.n, 1);
    check(&p, &m);
    clear(&p, &m, 0, 64);
    assert_int_equal(p.n, 0);
    check_round_trip(&p);
}

static void test_blocks_of_a_moved_frame_are_one_place_again(void **state)
{
    struct places p = {0};
    struct model m = {0};

    (void)state;
    for (unsigned i = 0; i < 16; i++)
        put(&p, &m, i, 1, 2 + i);
    put(&p, &m, 16, 1, 99);                                    /* in a frame of its own */
    for (unsigned i = 0, odd = 0; i < 16; i++, odd = i >= 8) { /* the even ones first */
        unsigned b = 2 * (i % 8) + odd;
        struct entry move = make(0, 16, 50);
        move.kind = ENTRY_MOVE;
        move.block += b;
        move.nblocks = 1;
        move.skip = (uint8_t)b;
        move.old_seq = 2 + b;
        assert_int_equal(places_move(&p, &move), UINT64_C(1) << b);
        m.seq[b] = 50;
        m.frame[b] = 0;
        check(&p, &m);
    }
    assert_int_equal(p.n, 2);
    check_round_trip(&p);
}

static void test_random_operations(void **state)
{
    uint64_t rng = 1;

    (void)state;
    for (int round = 0; round < 300; round++) {
        struct places p = {0};
        struct model m = {0};
        for (uint64_t seq = 1; seq < 100; seq++) {
            unsigned first = (unsigned)draw(&rng, 64), n = 1 + (unsigned)draw(&rng, 64 - first);
            unsigned few = 1 + (unsigned)draw(&rng, 4);
            n = draw(&rng, 2) ? MIN(n, few) : n;
            (draw(&rng, 4) ? put(&p, &m, first, n, seq) : clear(&p, &m, first, n));
            check(&p, &m);
        }
        check_round_trip(&p);
    }
}

static void test_what_is_no_list_of_places_is_refused(void **state)
{
    uint8_t blob[(CHUNK_BLOCKS + 1) * ENTRY_BYTES];
    struct places p = {0}, back = {.n = 99};
    struct model m = {0};
    struct entry e;

    (void)state;
    put(&p, &m, 0, 4, 1);
    put(&p, &m, 10, 4, 2);
    put(&p, &m, 60, 4, 3);
    size_t len = places_encode(&p, blob);
    for (size_t cut = 1; cut < ENTRY_BYTES; cut++)
        assert_int_equal(places_decode(blob, len - cut, THE_CHUNK, &back), -EBADMSG);
    assert_int_equal(places_decode(blob, len, THE_CHUNK + 1, &back), -EBADMSG);
    assert_int_equal(places_decode(blob, len, THE_CHUNK - 1, &back), -EBADMSG);
    for (size_t i = 0; i <= CHUNK_BLOCKS; i++) {
        e = make((unsigned)(i % CHUNK_BLOCKS), 1, 1);
        entry_encode(&e, blob + i * ENTRY_BYTES);
    }
    assert_int_equal(places_decode(blob, sizeof blob, THE_CHUNK, &back), -EBADMSG);

    e = make(13, 1, 1); /* overlaps the one before */
    places_encode(&p, blob);
    entry_encode(&e, blob + 2 * ENTRY_BYTES);
    assert_int_equal(places_decode(blob, len, THE_CHUNK, &back), -EBADMSG);
    e = make(5, 1, 1); /* out of order */
    entry_encode(&e, blob + 2 * ENTRY_BYTES);
    assert_int_equal(places_decode(blob, len, THE_CHUNK, &back), -EBADMSG);
    e = (struct entry){.kind = ENTRY_ZERO, .block = FIRST_BLOCK + 20, .nblocks = 1};
    entry_encode(&e, blob + 2 * ENTRY_BYTES);
    assert_int_equal(places_decode(blob, len, THE_CHUNK, &back), -EBADMSG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_masks),
        cmocka_unit_test(test_counts_may_be_subtracted),
        cmocka_unit_test(test_every_overlap_of_two),
        cmocka_unit_test(test_one_place_for_each_block),
        cmocka_unit_test(test_blocks_of_a_moved_frame_are_one_place_again),
        cmocka_unit_test(test_random_operations),
        cmocka_unit_test(test_what_is_no_list_of_places_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
