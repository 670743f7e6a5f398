/* Sums by segment: whatever the order, and however often room is made. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "../../cache/tally.h"
#include "../../store/scope.h"
#include "../pattern.h"

enum { SEGMENTS = 1500, ITEMS = 20000 };

static void test_sums(void **state)
{
    static int64_t blocks[SEGMENTS], bytes[SEGMENTS], stored[SEGMENTS];
    struct tally t = {0};
    size_t seen = 0;

    (void)state;
    for (unsigned i = 0; i < ITEMS; i++) {
        unsigned seq = (i * 7919u + i / 3) % SEGMENTS;
        struct tally_item item = {seq, (int64_t)(i % 5) - 2, (int64_t)i - 9000, (int64_t)(i % 3)};
        blocks[seq] += item.blocks;
        bytes[seq] += item.bytes;
        stored[seq] += item.stored;
        assert_int_equal(tally_add(&t, item), 0);
        assert_true(t.room <= 4 * SEGMENTS); /* not one for each item */
    }
    tally_settle(&t);
    for (size_t i = 0; i < t.n; i++, seen++) {
        const struct tally_item *item = &t.items[i];
        assert_true(i == 0 || item->seq > t.items[i - 1].seq);
        assert_true(item->blocks == blocks[item->seq] && item->bytes == bytes[item->seq] &&
                    item->stored == stored[item->seq]);
    }
    assert_int_equal(seen, SEGMENTS);
    free(t.items);
}

static void test_nothing(void **state)
{
    struct tally t = {0};

    (void)state;
    tally_settle(&t);
    assert_int_equal(t.n, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sums),
        cmocka_unit_test(test_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
