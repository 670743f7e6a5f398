/* The volume when the cache disk gives back other bytes than were written: clean and dirty blocks,
 * under an open volume and between two mounts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "cache_damage.h"

#include "../../cache/index_pages.h"

#include <sqlite3.h>

/* ------------------------------------------------------------------ clean blocks */

static void test_a_clean_block_is_fetched_again(void **state)
{
    (void)state;
    begin_clean();
    uint64_t errors = status().cache_errors;
    unsigned gets = mem.tries['G'];
    flip_one(5 * BLOCK, 1);
    assert_int_equal(check_pattern(0, CHUNK, 1, false), -EAGAIN);
    assert_int_equal(status().cache_errors, errors + 1);
    expect(0, CHUNK, 1);
    assert_int_equal(mem.tries['G'], gets + 1);
    expect(0, CHUNK, 1);
    assert_int_equal(status().cache_errors, errors + 1);
    flip_one(9 * BLOCK, 1);
    expect(9 * BLOCK + 100, 50, 1); /* a part of it */
    assert_int_equal(status().cache_errors, errors + 2);
    expect(0, CHUNK, 1);
    assert_int_equal(status().cache_errors, errors + 2);
    assert_int_equal(detach(false), 0);
}

static void test_many_clean_blocks(void **state)
{
    (void)state;
    begin_clean();
    assert_int_equal(volume_discard(volume, 20 * BLOCK, BLOCK), 0); /* reads come in two runs */
    assert_int_equal(volume_flush(volume, true), 0);
    uint64_t errors = status().cache_errors;
    for (unsigned block = 0; block < 64; block += 3)
        assert_int_equal(flip(block * BLOCK, 1), 1);
    expect(0, 20 * BLOCK, 1);
    expect(21 * BLOCK, 43 * BLOCK, 1);
    expect(20 * BLOCK, BLOCK, 0);
    assert_int_equal(status().cache_errors, errors + 22);
    for (unsigned block = 0; block < 64; block += 3)
        assert_int_equal(flip(block * BLOCK, 1), 1);
    uint8_t *all = malloc(CHUNK);
    assert_int_equal(volume_read(volume, all, CHUNK, 0, true), 0); /* at once */
    free(all);
    assert_int_equal(status().cache_errors, errors + 44);
    assert_int_equal(detach(false), 0);
}

/* Four chunks, of which one read is made; two are damaged. And one of these has no bytes any more.
 */
static void test_damage_in_neighbouring_chunks(void **state)
{
    (void)state;
    begin_clean();
    for (uint64_t chunk = 1; chunk < 4; chunk++)
        put_clean(chunk * CHUNK);
    uint64_t errors = status().cache_errors, misses = status().misses, hits = status().hits;
    flip_one(CHUNK + 63 * BLOCK, 1);
    flip_one(2 * CHUNK, 1);
    flip_one(2 * CHUNK + 7 * BLOCK, 1);
    assert_int_equal(check_pattern(0, 4 * CHUNK, 1, false), -EAGAIN);
    assert_int_equal(status().cache_errors, errors + 3);
    expect(0, 4 * CHUNK, 1);
    assert_int_equal(status().misses, misses + 3);
    assert_int_equal(status().hits, hits + 4 * 64 - 3);
    expect(100, 4 * CHUNK - 200, 1);
    assert_int_equal(volume_discard(volume, 2 * CHUNK, CHUNK), 0);
    expect(0, 2 * CHUNK, 1);
    expect(2 * CHUNK, CHUNK, 0);
    static uint8_t got[4 * CHUNK], want[4 * CHUNK];
    pattern(want, sizeof want, 0, 1);
    memset(want + 2 * CHUNK, 0, CHUNK);
    assert_int_equal(volume_read(volume, got, sizeof got, 0, true), 0);
    assert_memory_equal(got, want, sizeof want);
    assert_int_equal(detach(false), 0);
}

static int read_chunk(void)
{
    return check_pattern(0, CHUNK, 1, true);
}

static void test_readers_of_the_same_damage(void **state)
{
    struct caller readers[6];

    (void)state;
    begin_clean();
    for (int round = 0; round < 20; round++) {
        for (unsigned block = 0; block < 64; block += 7)
            assert_int_equal(flip(block * BLOCK, 1), 1);
        for (int i = 0; i < 6; i++)
            call(&readers[i], read_chunk);
        for (int i = 0; i < 6; i++)
            assert_int_equal(called(&readers[i]), 0);
    }
    assert_int_equal(detach(false), 0);
}

/* What was there is on both sides of the new bytes, also when it had to be fetched again. */
static void test_writes_to_parts_of_clean_blocks(void **state)
{
    (void)state;
    begin_clean();
    put_clean(CHUNK);
    uint64_t errors = status().cache_errors;
    flip_one(60 * BLOCK, 1);
    flip_one(67 * BLOCK, 1);
    assert_int_equal(write_pattern(60 * BLOCK + 100, 7 * BLOCK, 2, false), -EAGAIN);
    expect(61 * BLOCK, 6 * BLOCK, 1); /* nothing was written */
    put(60 * BLOCK + 100, 7 * BLOCK, 2);
    assert_int_equal(status().cache_errors, errors + 2);
    flip_one(10 * BLOCK, 1);
    put(10 * BLOCK + 1, 2, 2); /* within one */
    assert_int_equal(status().cache_errors, errors + 3);
    flip_one(11 * BLOCK, 1);
    put(11 * BLOCK, BLOCK, 2); /* all of it: nobody reads the old bytes */
    assert_int_equal(status().cache_errors, errors + 3);
    for (int i = 0; i < 2; i++) {
        expect(0, 10 * BLOCK + 1, 1);
        expect(10 * BLOCK + 1, 2, 2);
        expect(10 * BLOCK + 3, BLOCK - 3, 1);
        expect(11 * BLOCK, BLOCK, 2);
        expect(12 * BLOCK, 48 * BLOCK + 100, 1);
        expect(60 * BLOCK + 100, 7 * BLOCK, 2);
        expect(67 * BLOCK + 100, 61 * BLOCK - 100, 1);
        assert_int_equal(detach(false), 0);
        lose_cache();
        attach();
    }
    assert_int_equal(detach(false), 0);
}

static void test_a_clean_end_keeps_the_sums(void **state)
{
    (void)state;
    begin_clean();
    assert_int_equal(detach(false), 0);
    flip_one(5 * BLOCK, 1);
    attach();
    assert_int_equal(status().cached_bytes, CHUNK);
    unsigned gets = mem.tries['G'];
    expect(0, CHUNK, 1);
    assert_int_equal(mem.tries['G'], gets + 1);
    assert_int_equal(status().cache_errors, 1);
    assert_int_equal(detach(false), 0);
    attach();
    flip_one(6 * BLOCK, 1); /* of these nothing was read: the sums are still those of before */
    assert_int_equal(detach(false), 0);
    attach();
    expect(0, CHUNK, 1);
    assert_int_equal(status().cache_errors, 1);
    assert_int_equal(detach(false), 0);
}

/* ------------------------------------------------------------------ dirty blocks */

static void test_a_dirty_block_is_an_error(void **state)
{
    (void)state;
    begin_clean();
    put(4 * BLOCK, 4 * BLOCK, 2);
    uint64_t errors = status().cache_errors;
    flip_one(5 * BLOCK, 2);
    assert_int_equal(check_pattern(0, CHUNK, 1, true), -EIO);
    assert_int_equal(check_pattern(5 * BLOCK + 5, 5, 2, true), -EIO);
    assert_int_equal(write_pattern(5 * BLOCK + 5, 5, 3, true), -EIO);
    assert_int_equal(status().cache_errors, errors + 3);
    expect(0, 4 * BLOCK, 1);
    expect(4 * BLOCK, BLOCK, 2);
    expect(6 * BLOCK, 2 * BLOCK, 2);
    assert_int_equal(status().state, VOLUME_OK);
    put(5 * BLOCK, BLOCK, 3); /* all of it */
    expect(5 * BLOCK, BLOCK, 3);
    flip_one(7 * BLOCK, 2);
    assert_int_equal(volume_discard(volume, 7 * BLOCK, BLOCK), 0);
    expect(7 * BLOCK, BLOCK, 0);
    assert_int_equal(detach(false), 0);
    lose_cache();
    attach();
    expect(4 * BLOCK, BLOCK, 2);
    expect(5 * BLOCK, BLOCK, 3);
    expect(6 * BLOCK, BLOCK, 2);
    expect(7 * BLOCK, BLOCK, 0);
    assert_int_equal(detach(false), 0);
}

/* Once with the flush that fails, then at every mount; until it is given up. */
static void damaged_dirt(void)
{
    begin_clean();
    put(4 * BLOCK, 4 * BLOCK, 2);
    flip_one(5 * BLOCK, 2);
    unsigned puts = mem.tries['P'];
    expect_damaged();
    assert_int_equal(mem.tries['P'], puts);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(detach(i == 0), i == 0 ? 0 : -EIO);
        attach();
        puts = mem.tries['P'];
        if (cfg.sync == SYNC_BUCKET) /* nothing may be written to what rows vouch for */
            assert_int_equal(volume_flush(volume, true), -EIO);
        expect_damaged();
        assert_int_equal(mem.tries['P'], puts);
    }
    assert_int_equal(detach(true), 0);
    cfg.discard_local = true;
    attach();
    expect(0, CHUNK, 1);
    put(0, CHUNK, 4);
    assert_int_equal(detach(false), 0);
}

static void test_damage_is_never_uploaded(void **state)
{
    (void)state;
    damaged_dirt();
}

static void test_damage_is_never_uploaded_later(void **state)
{
    (void)state;
    cfg.sync = SYNC_CACHE;
    damaged_dirt();
}

static void test_damage_while_unmounted(void **state)
{
    (void)state;
    begin_clean();
    put(4 * BLOCK, 4 * BLOCK, 2);
    assert_int_equal(detach(true), 0);
    flip_one(5 * BLOCK, 2);
    attach();
    expect_damaged();
    assert_int_equal(detach(true), 0);
}

/* ------------------------------------------------------------------ blocks of a commit */

static int flush(void)
{
    return volume_flush(volume, true);
}

/* A commit of pattern 3, three segments, of which the last is not packed: the first one hangs, and
 * who packed the second waits for it. */
static void half_packed(struct caller *flusher)
{
    cfg.uploads = 1;
    cfg.compress = false;
    cfg.cache_bytes = cfg.dirty_bytes = 128 * MIB; /* no commit is sealed before the flush */
    create_and_attach(64 * MIB);
    put_clean(MIB); /* that is older */
    put(0, 20 * MIB, 3);
    mem_retry(&mem, script_hang, "P");
    call(flusher, flush);
    mem_await_hanging(&mem, 1);
}

static void expect_nothing_was_stored(void)
{
    assert_int_equal(detach(true), 0);
    lose_cache();
    attach();
    expect(0, MIB, 0);
    expect(MIB, CHUNK, 1);
    expect(2 * MIB, 18 * MIB, 0);
    assert_int_equal(detach(false), 0);
}

static void test_old_bytes_that_a_commit_needs(void **state)
{
    struct caller flusher;

    (void)state;
    half_packed(&flusher);
    flip_one(17 * MIB, 3);
    assert_int_equal(check_pattern(17 * MIB, BLOCK, 3, true), -EIO);
    assert_int_equal(status().state, VOLUME_OK);
    assert_int_equal(write_pattern(17 * MIB, BLOCK, 2, true), -EIO); /* cannot save them */
    assert_int_equal(status().state, VOLUME_DAMAGED);
    mem_retry(&mem, NULL, NULL);
    assert_int_equal(called(&flusher), -EIO);
    expect_nothing_was_stored();
}

static void test_saved_bytes(void **state)
{
    struct caller flusher;

    (void)state;
    half_packed(&flusher);
    put(17 * MIB, BLOCK, 2);
    flip_one(17 * MIB, 3); /* the copy */
    expect(17 * MIB, BLOCK, 2);
    mem_retry(&mem, NULL, NULL);
    assert_int_equal(called(&flusher), -EIO);
    assert_int_equal(status().state, VOLUME_DAMAGED);
    expect(17 * MIB, BLOCK, 2);
    expect_nothing_was_stored();
}

/* Packed, and not in the index yet: the bucket will have it. */
static void test_bytes_on_their_way(void **state)
{
    struct caller flusher;

    (void)state;
    half_packed(&flusher);
    flip_one(MIB, 3);
    assert_int_equal(check_pattern(MIB, BLOCK, 3, true), -EIO);
    assert_int_equal(write_pattern(MIB + 5, 5, 2, true), -EIO);
    mem_retry(&mem, NULL, NULL);
    assert_int_equal(called(&flusher), 0);
    await(check_pattern(MIB, BLOCK, 3, true) == 0);
    assert_int_equal(status().state, VOLUME_OK);
    expect(0, 20 * MIB, 3);
    assert_int_equal(detach(false), 0);
}

/* ------------------------------------------------------------------ index.db */

/* With the checksums of its pages: a row that was written so. */
static void change_index(const char *sql)
{
    char path[512];
    sqlite3 *db;

    path_in(path, cache_dir, "index.db");
    assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, index_pages_vfs()),
                     SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_changes(db), 1);
    sqlite3_close(db);
}

/* Rows that tell of dirty blocks where the volume has none: such a segment would be the end of the
 * log, for everybody. */
static void test_dirty_blocks_beyond_the_end(void **state)
{
    static const char *const changes[] = {"UPDATE cached SET chunk = 1000000 WHERE dirty <> 0",
                                          "UPDATE cached SET chunk = -1 WHERE dirty <> 0",
                                          "UPDATE cached SET chunk = 8 WHERE dirty <> 0"};

    (void)state;
    create_and_attach(2 * MIB + 64 * KIB); /* the last chunk, number 8, has 16 blocks */
    for (size_t i = 0; i < ARRAY_SIZE(changes); i++) {
        put(256 * KIB, 256 * KIB, 2);
        assert_int_equal(detach(true), 0);
        change_index(changes[i]);
        assert_int_equal(try_attach(), -EBADMSG);
        lose_cache();
        assert_int_equal(mkdir(cache_dir, 0700), 0);
        attach();
    }
    expect(0, 2 * MIB, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, volume_setup, volume_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_clean_block_is_fetched_again),
        TEST(test_many_clean_blocks),
        TEST(test_damage_in_neighbouring_chunks),
        TEST(test_readers_of_the_same_damage),
        TEST(test_writes_to_parts_of_clean_blocks),
        TEST(test_a_clean_end_keeps_the_sums),
        TEST(test_a_dirty_block_is_an_error),
        TEST(test_damage_is_never_uploaded),
        TEST(test_damage_is_never_uploaded_later),
        TEST(test_damage_while_unmounted),
        TEST(test_old_bytes_that_a_commit_needs),
        TEST(test_saved_bytes),
        TEST(test_bytes_on_their_way),
        TEST(test_dirty_blocks_beyond_the_end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
