/* The volume after a kill: what rows and slots of the cache directory say of what is only here. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "cache_damage.h"

/* What is in the cache directory now is what the next attach() finds. */
static void kill_daemon(void)
{
    static const char *const names[] = {"index.db", "index.db-wal", "slots", "unsynced"};
    char from[512], to[512], command[1100];

    for (int back = 0; back < 2; back++) {
        for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
            path_in(from, cache_dir, names[i]);
            snprintf(to, sizeof to, "%s/%s", cache_dir, names[i]);
            if (access(back ? to : from, F_OK) < 0)
                continue;
            snprintf(command, sizeof command, "cp --sparse=always %s %s", back ? to : from,
                     back ? from : to);
            assert_int_equal(system(command), 0);
        }
        if (!back)
            detach(true);
    }
}

/* Blocks that were written again after the flush that recorded them: new or old, never an error. */
static void test_killed_with_newer_blocks(void **state)
{
    (void)state;
    cfg.sync = SYNC_CACHE;
    begin_clean();
    put(4 * BLOCK, 4 * BLOCK, 2);
    assert_int_equal(detach(true), 0);
    attach(); /* with the sums of these */
    expect(4 * BLOCK, 4 * BLOCK, 2);
    put(4 * BLOCK, 4 * BLOCK, 3);
    kill_daemon();
    attach();
    expect(4 * BLOCK, 4 * BLOCK, 3);
    assert_int_equal(status().cache_errors, 0);
    flip_one(5 * BLOCK, 3); /* from the first reader on they are watched */
    assert_int_equal(check_pattern(5 * BLOCK, BLOCK, 3, true), -EIO);
    assert_int_equal(detach(true), 0);
}

/* In bucket mode nothing is written to blocks that rows call dirty: their sums stay right. */
static void test_killed_with_damaged_blocks(void **state)
{
    (void)state;
    begin_clean();
    put(4 * BLOCK, 4 * BLOCK, 2);
    assert_int_equal(detach(true), 0);
    attach();
    flip_one(5 * BLOCK, 2);
    kill_daemon();
    attach();
    expect_damaged();
    kill_daemon();
    attach();
    expect_damaged();
    assert_int_equal(detach(true), 0);
}

static int drain_volume(void)
{
    return volume_drain(volume);
}

static off_t wal_bytes(void)
{
    char path[512];
    struct stat st;

    path_in(path, cache_dir, "index.db-wal");
    assert_int_equal(stat(path, &st), 0);
    return st.st_size;
}

static bool flush_stores_rows(void)
{
    off_t before = wal_bytes();

    assert_int_equal(volume_flush(volume, true), 0);
    return wal_bytes() != before;
}

/* A row calls dirty all that the slot has, if it may: to write there again takes no new one. */
static void test_killed_with_rows_that_cover_more(void **state)
{
    (void)state;
    cfg.sync = SYNC_CACHE;
    begin_clean();
    assert_int_equal(detach(false), 0); /* that something was damaged there is forgotten */
    attach();
    assert_int_equal(volume_discard(volume, 20 * BLOCK, BLOCK), 0);
    put(4 * BLOCK, BLOCK, 2);
    assert_true(flush_stores_rows());
    put(4 * BLOCK, 4 * BLOCK, 3);
    assert_false(flush_stores_rows());
    put(4 * BLOCK + 512, 1024, 4);
    put(8 * BLOCK, BLOCK, 5);
    assert_false(flush_stores_rows());
    put(20 * BLOCK, BLOCK, 6);
    assert_true(flush_stores_rows());
    assert_int_equal(volume_discard(volume, 30 * BLOCK, BLOCK), 0);
    assert_true(flush_stores_rows());
    put(CHUNK, BLOCK, 7);
    assert_true(flush_stores_rows());
    kill_daemon();
    attach();
    expect(0, 4 * BLOCK, 1);
    expect(4 * BLOCK, 512, 3);
    expect(4 * BLOCK + 512, 1024, 4);
    expect(5 * BLOCK, 3 * BLOCK, 3);
    expect(8 * BLOCK, BLOCK, 5);
    expect(9 * BLOCK, 11 * BLOCK, 1);
    expect(20 * BLOCK, BLOCK, 6);
    expect(30 * BLOCK, BLOCK, 0);
    expect(31 * BLOCK, 33 * BLOCK, 1);
    expect(CHUNK, BLOCK, 7);
    assert_int_equal(status().dirty_bytes, 65 * BLOCK); /* 63, zeros as one, and the last */
    assert_int_equal(detach(false), 0);
    cfg.dirty_bytes = CHUNK; /* that much more must not become dirty by a crash */
    attach();
    put(4 * BLOCK, BLOCK, 8);
    assert_true(flush_stores_rows());
    put(5 * BLOCK, BLOCK, 8);
    assert_true(flush_stores_rows());
    assert_int_equal(detach(false), 0);
}

/* What is not here becomes zero, of a chunk whose row covers all that is. */
static void test_killed_with_zeros_over_what_was_not_here(void **state)
{
    (void)state;
    begin_clean();
    assert_int_equal(detach(false), 0);
    lose_cache();
    cfg.sync = SYNC_CACHE;
    attach();
    put(0, BLOCK, 2);
    assert_true(flush_stores_rows());
    assert_int_equal(volume_discard(volume, 8 * BLOCK, BLOCK), 0);
    assert_true(flush_stores_rows());
    kill_daemon();
    attach();
    expect(0, BLOCK, 2);
    expect(BLOCK, 7 * BLOCK, 1);
    expect(8 * BLOCK, BLOCK, 0);
    expect(9 * BLOCK, 55 * BLOCK, 1);
    assert_int_equal(detach(false), 0);
}

/* A block that was seen to be damaged while it was uploaded is not one that a row may name. */
static void test_killed_with_a_block_that_was_damaged(void **state)
{
    struct caller drain;

    (void)state;
    cfg.sync = SYNC_CACHE;
    begin_clean();
    assert_int_equal(detach(false), 0); /* that something was damaged there is forgotten */
    attach();
    mem_retry(&mem, script_hang, "P");
    put(4 * BLOCK, 2 * BLOCK, 2);
    call(&drain, drain_volume);
    mem_await_hanging(&mem, 1);
    flip_one(5 * BLOCK, 2);
    assert_int_equal(check_pattern(5 * BLOCK, BLOCK, 2, true), -EIO);
    mem_retry(&mem, NULL, NULL);
    assert_int_equal(called(&drain), 0);
    put(0, BLOCK, 3);
    assert_true(flush_stores_rows());
    kill_daemon();
    attach();
    expect(0, BLOCK, 3);
    expect(4 * BLOCK, 2 * BLOCK, 2);
    assert_int_equal(detach(false), 0);
}

/* In bucket mode the sums of what is only here stay, also when something else was damaged. */
static void test_damage_beside_what_is_only_here(void **state)
{
    (void)state;
    begin_clean();
    put(4 * BLOCK, 4 * BLOCK, 2);
    assert_int_equal(detach(true), 0);
    attach();
    mem_retry(&mem, script_fail_verbs, "P");
    flip_one(20 * BLOCK, 1);
    expect(20 * BLOCK, BLOCK, 1);
    flip_one(5 * BLOCK, 2);
    kill_daemon();
    mem_retry(&mem, NULL, NULL);
    attach();
    expect_damaged();
    assert_int_equal(detach(true), 0);
}

static void lose_wal(void)
{
    char path[512];

    path_in(path, cache_dir, "index.db-wal");
    assert_int_equal(unlink(path), 0);
}

/* What a flush in cache mode acknowledged is gone with the -wal: nobody may take that for nothing.
 */
static void expect_refused(void)
{
    assert_int_equal(try_attach(), -EIO);
    cfg.discard_local = true;
    attach();
    cfg.discard_local = false;
}

static void test_killed_in_the_first_session_and_the_wal_lost(void **state)
{
    (void)state;
    cfg.sync = SYNC_CACHE;
    create_and_attach(MIB);
    put(0, BLOCK, 1);
    assert_int_equal(volume_flush(volume, true), 0);
    kill_daemon();
    lose_wal();
    expect_refused();
    expect(0, BLOCK, 0);
    assert_int_equal(detach(false), 0);
}

/* With rows of before, that are dirty or not. */
static void test_killed_in_a_later_session_and_the_wal_lost(void **state)
{
    (void)state;
    cfg.sync = SYNC_CACHE;
    create(MIB);
    for (int keep = 0; keep < 2; keep++) {
        attach();
        put(0, BLOCK, 1);
        assert_int_equal(detach(keep), 0);
        attach();
        put(BLOCK, BLOCK, 2);
        assert_int_equal(volume_flush(volume, true), 0);
        kill_daemon();
        lose_wal();
        expect_refused();
        expect(BLOCK, BLOCK, 0);
        assert_int_equal(detach(false), 0);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, volume_setup, volume_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_killed_with_newer_blocks),
        TEST(test_killed_with_damaged_blocks),
        TEST(test_killed_with_rows_that_cover_more),
        TEST(test_killed_with_zeros_over_what_was_not_here),
        TEST(test_killed_with_a_block_that_was_damaged),
        TEST(test_damage_beside_what_is_only_here),
        TEST(test_killed_in_the_first_session_and_the_wal_lost),
        TEST(test_killed_in_a_later_session_and_the_wal_lost),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
