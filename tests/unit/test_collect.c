/* `s3vol gc`: volume_collect() of a volume whose blocks compress well, so that entries and headers
 * are most of what is stored. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "mem_volume.h"

enum { SIZE = 64 * 1024 * 1024, NBLOCKS = SIZE / BLOCK };

static uint8_t tags[NBLOCKS];
static uint64_t rng;

static int setup(void **state)
{
    memset(tags, 0, sizeof tags);
    rng = 1;
    int r = volume_setup(state);
    cfg.gc = false; /* only when asked to */
    cfg.gc_grace_ms = 0;
    cfg.cache_bytes = 2 * SIZE;
    cfg.dirty_bytes = 2 * SIZE;
    return r;
}

static void put_tag(uint64_t block, uint8_t tag)
{
    uint8_t buf[BLOCK];

    memset(buf, tag, sizeof buf);
    assert_int_equal(volume_write(volume, buf, sizeof buf, block * BLOCK, true), 0);
    tags[block] = tag;
}

static void write_at_random(int commits, int blocks)
{
    for (int i = 0; i < commits; i++) {
        for (int n = 0; n < blocks; n++)
            put_tag(draw(&rng, NBLOCKS), (uint8_t)(1 + draw(&rng, 255)));
        assert_int_equal(volume_flush(volume, true), 0);
    }
}

static void check(void)
{
    uint8_t buf[BLOCK];

    for (uint64_t block = 0; block < NBLOCKS; block++) {
        assert_int_equal(volume_read(volume, buf, sizeof buf, block * BLOCK, true), 0);
        assert_int_equal(buf[0], tags[block]);
        assert_memory_equal(buf, buf + 1, sizeof buf - 1);
    }
}

static int collect_it(void)
{
    return volume_collect(volume);
}

/* Returns what it moved. */
static uint64_t collect(void)
{
    uint64_t before = status().moved_bytes;
    struct caller c;

    call(&c, collect_it);
    assert_int_equal(called(&c), 0); /* it ends */
    return status().moved_bytes - before;
}

static void test_ends_when_entries_are_most_of_it(void **state)
{
    (void)state;
    create_and_attach(SIZE);
    write_at_random(40, 500);
    assert_in_range(collect(), 1, UINT64_MAX);
    collect(); /* blocks of one frame have one entry now */
    struct volume_status st = status();
    assert_in_range(st.stored_bytes, st.live_bytes / 2, st.live_bytes * 14 / 10);
    assert_in_range(collect(), 0, st.stored_bytes / 4); /* nothing is left to gain */
    assert_int_equal(detach(false), 0);
    lose_cache();
    attach();
    check();
    assert_int_equal(detach(false), 0);
}

/* A commit of one block that compresses to nothing: header and entry, and no more can be had. */
static void test_ends_when_headers_are_most_of_it(void **state)
{
    (void)state;
    create_and_attach(SIZE);
    write_at_random(1, 1);
    collect();
    collect();
    write_at_random(200, 1);
    collect();
    check();
    assert_int_equal(detach(false), 0);
}

static size_t objects_of_the_log(void)
{
    scope_lock(&mem.lock);
    return mem_count(&mem, "log/");
}

/* What is dead goes while writing goes on, though a checkpoint comes each second. */
static void test_deletes_while_writing_goes_on(void **state)
{
    int64_t until = clock_system.now_ms() + 60000;
    size_t n = 0, before;

    (void)state;
    cfg.gc = true;
    cfg.gc_grace_ms = 5000;
    create_and_attach(MIB);
    do {
        before = n;
        put(0, MIB, draw(&rng, 1000) + 1);
        assert_int_equal(volume_flush(volume, true), 0);
        assert_true(clock_system.now_ms() < until);
        n = objects_of_the_log();
    } while (n >= before);
    assert_int_equal(detach(false), 0);
}

/* Who was forgotten, and attached to what was deleted since, deletes nothing of what is there now.
 */
static void test_deletes_nothing_of_another_volume(void **state)
{
    struct caller c;

    (void)state;
    create_and_attach(SIZE);
    write_at_random(20, 500);
    mem_remove(&mem, "volume");
    struct store *mine = store;
    create(SIZE);
    store = mine;
    size_t before = objects_of_the_log();
    call(&c, collect_it);
    assert_int_equal(called(&c), -EIO);
    assert_int_equal(status().state, VOLUME_FENCED);
    assert_int_equal(volume_flush(volume, true), -EIO);
    assert_in_range(objects_of_the_log(), before, SIZE_MAX);
    scope_lock(&mem.lock);
    assert_int_equal(mem_count(&mem, "map/"), 0);
    assert_int_equal(mem_count(&mem, "part/"), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, volume_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_ends_when_entries_are_most_of_it),
        TEST(test_ends_when_headers_are_most_of_it),
        TEST(test_deletes_while_writing_goes_on),
        TEST(test_deletes_nothing_of_another_volume),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
