/* A whole new map that is large: in how much memory, and what is left of one that came to nothing.
 */
#include "index_model.h"

#include "../../cache/index_pages.h"

#include <signal.h>
#include <sqlite3.h>
#include <sys/resource.h>

enum { LARGE = 12000, MEMORY_MAX = 12 << 20, WAL_MAX = 16 << 20 };

/* A place for each block of `n` chunks, all in segment `seq`: 2 KiB a row. */
static int load(uint64_t n, uint64_t seq)
{
    struct entry e[CHUNK_BLOCKS];
    int r = index_reload_begin(ix);

    for (uint64_t chunk = 0; chunk < n && r == 0; chunk++) {
        for (uint64_t i = 0; i < CHUNK_BLOCKS; i++)
            e[i] = data(chunk * CHUNK_BLOCKS + i, 1, seq);
        r = index_reload_add(ix, e, CHUNK_BLOCKS);
    }
    return r;
}

static off_t size_of(const char *suffix)
{
    char name[300];
    struct stat st;

    snprintf(name, sizeof name, "%s%s", path, suffix);
    assert_int_equal(stat(name, &st), 0);
    return st.st_size;
}

/* As another process sees it. */
static int64_t ask(const char *sql)
{
    sqlite3_stmt *q;
    sqlite3 *db;

    assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, index_pages_vfs()),
                     SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &q, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(q), SQLITE_ROW);
    int64_t n = sqlite3_column_int64(q, 0);
    sqlite3_finalize(q);
    sqlite3_close(db);
    return n;
}

static int64_t tables_left(void)
{
    return ask("SELECT count(*) FROM sqlite_schema WHERE name = 'new_map'");
}

/* Neither memory nor the -wal has all of it; the old one included, which goes. */
static void test_a_large_map_in_little_memory(void **state)
{
    struct index_meta meta;
    off_t once = 0;

    (void)state;
    for (uint64_t seq = 1; seq <= 3; seq++) {
        struct log_position pos = position(seq);
        sqlite3_memory_highwater(1);
        assert_int_equal(load(LARGE, seq), 0);
        assert_int_equal(index_reload_end(ix, &pos, true), 0);
        assert_in_range(sqlite3_memory_highwater(0), 1, MEMORY_MAX);
        assert_in_range(size_of("-wal"), 0, WAL_MAX);
        index_get_meta(ix, &meta);
        assert_int_equal(meta.mapped_blocks, (uint64_t)LARGE * CHUNK_BLOCKS);
        once = once ? once : size_of("");
    }
    assert_true(once > 2 * MEMORY_MAX);
    assert_in_range(size_of(""), once,
                    2 * once + WAL_MAX); /* the places of old maps are used again */
    for (uint64_t chunk = 0; chunk < LARGE; chunk += 97) {
        struct places p;
        assert_int_equal(index_load(ix, chunk, &p), 0);
        assert_int_equal(p.n, CHUNK_BLOCKS);
        assert_int_equal(p.e[0].seq, 3);
    }
}

static void have_a_map(void)
{
    struct entry before = data(0, 8, 1);
    struct index_cached row = {.chunk = 0, .valid = 0xff, .slot = 1};

    apply(&before, 1, 1, false);
    record(&row, 1, false);
}

static int count_blocks(void *ctx, const struct places *p)
{
    *(unsigned *)ctx += mask_count(places_mask(p));
    return 0;
}

/* Who looks between prepare and end sees the map before, and goes on seeing it. */
static void test_the_map_before_is_seen_until_the_end(void **state)
{
    struct log_position pos = position(7), before;
    struct index_view *old;
    struct places p;
    unsigned n = 0;

    (void)state;
    have_a_map();
    assert_int_equal(load(LARGE / 2, 7), 0);
    assert_int_equal(index_reload_prepare(ix, &pos), 0);
    check();
    assert_int_equal(index_view_begin(ix, &old, &before), 0);
    assert_int_equal(before.seq, 1);
    assert_int_equal(index_reload_end(ix, &pos, true), 0);
    assert_int_equal(index_view_each(old, 0, LARGE, count_blocks, &n), 0);
    assert_int_equal(n, 8);
    index_view_end(old);
    assert_int_equal(index_load(ix, LARGE / 2 - 1, &p), 0);
    assert_int_equal(p.n, CHUNK_BLOCKS);
    assert_int_equal(p.e[0].seq, 7);
}

/* Then what was there is there, and nothing else. */
static void test_one_that_is_given_up(void **state)
{
    (void)state;
    have_a_map();
    for (int i = 0; i < 2; i++) {
        assert_int_equal(load(LARGE / 2, 7), 0);
        assert_int_equal(index_reload_end(ix, NULL, false), 0);
        check();
        assert_int_equal(tables_left(), 0);
    }
}

/* At open, and of a process that goes on and has not cleared up. */
static void test_one_whose_process_was_killed(void **state)
{
    (void)state;
    have_a_map();
    assert_int_equal(load(LARGE / 2, 7), 0);
    check();
    assert_int_equal(tables_left(), 1);
    assert_true(copy_file("") > 0 && copy_file("-wal") > 0);
    index_close(ix);
    remove_files();
    strcat(path, ".copy");
    assert_int_equal(index_open(path, uuid, &ix), 0);
    check();
    assert_int_equal(tables_left(), 0);
    assert_int_equal(load(10, 7), 0);
    assert_int_equal(index_reload_end(ix, NULL, false), 0);
    check();
}

/* The error is told; after that, and after the next open, all is as before. */
static void test_one_for_which_there_is_no_room(void **state)
{
    struct log_position pos = position(7);
    struct rlimit was, now;

    (void)state;
    have_a_map();
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &was), 0);
    for (rlim_t limit = 1 << 20; limit < 32 << 20; limit += 3 << 20) {
        now = (struct rlimit){.rlim_cur = limit, .rlim_max = was.rlim_max};
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &now), 0);
        int r = load(LARGE, 7);
        int end = index_reload_end(ix, &pos, r == 0);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &was), 0);
        assert_true(r < 0 || end < 0);
        check();
        assert_int_equal(reopen(), 0);
        check();
        assert_int_equal(tables_left(), 0);
    }
    struct entry after = data(64, 8, 9);
    assert_int_equal(index_reload_begin(ix), 0);
    assert_int_equal(index_reload_add(ix, &after, 1), 0);
    assert_int_equal(index_reload_end(ix, &pos, true), 0);
    assert_int_equal(index_inventory(ix, &(struct index_found){9, 60000, 0}, 1), 0);
    memset(&model, 0, sizeof model);
    apply_to_model(&after, false);
    check();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_large_map_in_little_memory),   TEST(test_the_map_before_is_seen_until_the_end),
        TEST(test_one_that_is_given_up),           TEST(test_one_whose_process_was_killed),
        TEST(test_one_for_which_there_is_no_room),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
