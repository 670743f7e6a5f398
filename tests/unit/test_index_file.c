/* index.db as a file: damaged, cut, another volume's, of another version. */
#include "index_model.h"

#include "../../cache/index_pages.h"

#include <sqlite3.h>

static void test_another_volume(void **state)
{
    struct index_meta meta;
    struct index *wrong;

    (void)state;
    index_get_meta(ix, &meta);
    assert_int_equal(index_put_meta(ix, &meta), 0);
    index_close(ix);
    ix = NULL;
    assert_int_equal(index_open(path, other, &wrong), -EBADMSG);
    assert_int_equal(index_open(path, uuid, &ix), 0);
}

/* What a process that was killed left in the -wal is seen, and nothing is appended to it. */
static void test_a_wal_that_was_left(void **state)
{
    struct entry e = data(70, 8, 1);
    struct stat st;

    (void)state;
    for (uint64_t seq = 1; seq < 5; seq++)
        apply(&e, 1, seq, true);
    off_t left = copy_file("") > 0 ? copy_file("-wal") : 0;
    index_close(ix);
    remove_files();
    strcat(path, ".copy");
    assert_int_equal(index_open(path, uuid, &ix), 0);
    strcat(path, "-wal");
    assert_int_equal(stat(path, &st), 0);
    assert_in_range(st.st_size, 0, left / 2);
    *strrchr(path, '-') = 0;
    check();
}

/* Each is an error, or shows what was stored. */
static void open_damaged(void)
{
    struct places p;

    int r = index_open(path, uuid, &ix);
    if (r < 0) {
        assert_true(r == -EBADMSG || r == -EIO || r == -EPROTONOSUPPORT);
        ix = NULL;
        return;
    }
    for (uint64_t chunk = 0; chunk < CHUNKS; chunk++) {
        r = index_load(ix, chunk, &p);
        if (r == 0)
            check_places(&p, chunk);
        else
            assert_true(r == -EBADMSG || r == -EIO);
    }
    index_close(ix);
    ix = NULL;
}

static void test_truncated_and_garbage(void **state)
{
    uint8_t noise[8192];
    struct stat st;

    (void)state;
    for (uint64_t i = 0; i < CHUNKS; i++)
        for (uint64_t k = 0; k < CHUNK_BLOCKS; k += 2) {
            struct entry e = data(i * CHUNK_BLOCKS + k, 1, 1 + k);
            apply(&e, 1, 1, false);
        }
    index_close(ix);
    ix = NULL;
    assert_int_equal(stat(path, &st), 0);
    for (off_t len = st.st_size - 4096; len > 0; len -= 12288) {
        assert_int_equal(truncate(path, len), 0);
        open_damaged();
    }
    remove_files();
    int fd = open_or_die(path, O_RDWR | O_CREAT);
    pattern(noise, sizeof noise, 0, 3);
    write_all(fd, noise, sizeof noise, 0);
    close(fd);
    assert_int_equal(index_open(path, uuid, &ix), -EBADMSG);
    ix = NULL;
}

static void test_a_version_from_the_future(void **state)
{
    (void)state;
    sqlite3 *db;
    index_close(ix);
    ix = NULL;
    assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, index_pages_vfs()),
                     SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "PRAGMA user_version = 256", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
    assert_int_equal(index_open(path, uuid, &ix), -EPROTONOSUPPORT);
    ix = NULL;
}

/* What is in an index of the version before this one stays, and goes with no life of sums. */
static void test_an_older_version(void **state)
{
    struct index_cached row = {.chunk = 7, .valid = 3, .dirty = 1, .slot = 5};
    struct index_meta meta;
    uint64_t chunks, blocks;
    sqlite3 *db;

    (void)state;
    index_get_meta(ix, &meta);
    meta.clean = true;
    meta.life = 77;
    assert_int_equal(index_put_meta(ix, &meta), 0);
    assert_int_equal(index_record(ix, &row, 1, 100, true), 0);
    index_close(ix);
    assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, index_pages_vfs()),
                     SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "ALTER TABLE meta DROP COLUMN life; PRAGMA user_version = 3",
                                  NULL, NULL, NULL),
                     SQLITE_OK);
    sqlite3_close(db);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(index_open(path, uuid, &ix), 0);
        index_get_meta(ix, &meta);
        assert_true(meta.clean);
        assert_int_equal(meta.life, i ? 78 : 0);
        assert_int_equal(meta.local_blocks, 100);
        assert_int_equal(index_count_dirty(ix, &chunks, &blocks), 0);
        assert_int_equal(chunks, 1);
        meta.life = 78;
        assert_int_equal(index_put_meta(ix, &meta), 0);
        index_close(ix);
    }
    assert_int_equal(index_open(path, uuid, &ix), 0);
}

/* One bit, all over the file: never another answer. */
static void test_flipped_pages(void **state)
{
    struct entry e = {.kind = ENTRY_DATA, .nblocks = 1, .frame_blocks = 1, .stored_bytes = BLOCK};
    struct stat st;

    (void)state;
    for (uint64_t chunk = 0; chunk < 500; chunk++) {
        e.block = chunk * CHUNK_BLOCKS;
        e.seq = chunk + 1;
        struct log_position pos = {.seq = chunk + 1, .next = chunk + 2};
        assert_int_equal(index_apply(ix, &e, 1, 1, &pos, false), 0);
    }
    index_close(ix);
    ix = NULL;
    assert_int_equal(stat(path, &st), 0);
    for (off_t at = 7; at < st.st_size; at += 389) {
        int fd = open_or_die(path, O_RDWR), r;
        uint8_t byte;
        read_all(fd, &byte, 1, (uint64_t)at);
        byte ^= 0x10;
        write_all(fd, &byte, 1, (uint64_t)at);
        r = index_open(path, uuid, &ix);
        for (uint64_t chunk = 0; chunk < 500 && r == 0; chunk++) {
            uint64_t mask = 0;
            r = index_mask(ix, chunk, &mask);
            assert_true(r < 0 || mask == 1);
        }
        assert_true(r == -EBADMSG || r == 0);
        assert_true(r == 0 || !ix || index_damaged(ix));
        index_close(ix);
        ix = NULL;
        byte ^= 0x10;
        write_all(fd, &byte, 1, (uint64_t)at);
        close(fd);
    }
    assert_int_equal(index_open(path, uuid, &ix), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_another_volume),        TEST(test_a_wal_that_was_left),
        TEST(test_truncated_and_garbage), TEST(test_a_version_from_the_future),
        TEST(test_an_older_version),      TEST(test_flipped_pages),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
