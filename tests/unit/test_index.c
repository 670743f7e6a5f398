/* The tests of index.db; what it is compared with is in index_model.h. */
#include "index_model.h"

#include "../../cache/index_pages.h"

#include <sqlite3.h>

static void test_random_commits(void **state)
{
    uint64_t rng = 1;

    (void)state;
    for (uint64_t seq = 1; seq <= 150; seq++) {
        struct entry entries[30];
        size_t n = draw(&rng, 30);
        for (size_t i = 0; i < n; i++)
            entries[i] = random_entry(&rng, seq);
        struct index_cached row = random_row(&rng);
        record(&row, 1, false);
        apply(entries, n, seq, draw(&rng, 2));
        check();
        if (seq % 50 == 0) {
            assert_int_equal(reopen(), 0);
            check();
        }
    }
}

static void test_zeros_over_all_of_it(void **state)
{
    struct index_cached row = {.chunk = 20, .valid = 0xff, .zero = 0x0f, .dirty = 0x3c, .slot = 3};
    struct entry entries[CHUNKS], all = zero(0, VOLUME_BLOCKS_MAX);

    (void)state;
    for (uint64_t i = 0; i < CHUNKS; i++)
        entries[i] = data(i * CHUNK_BLOCKS, CHUNK_BLOCKS, 1);
    apply(entries, CHUNKS, 1, false);
    record(&row, 1, false);
    check();
    apply(&all, 1, 2, false);
    check();
    assert_int_equal(model.row[20].valid, 0xff);
    apply(entries, CHUNKS, 3, false);
    apply(&all, 1, 4, true);
    check();
    assert_int_equal(model.row[20].valid, 0x3c);

    struct entry most = zero(1, NBLOCKS - 2); /* but the first and the last block */
    apply(entries, CHUNKS, 5, false);
    apply(&most, 1, 6, true);
    check();
}

static void test_order_within_a_commit(void **state)
{
    struct entry entries[] = {data(10, 20, 1), zero(15, 5), data(17, 1, 2), data(100, 3, 1),
                              zero(0, 13)};

    (void)state;
    apply(entries, ARRAY_SIZE(entries), 1, false);
    check();
    assert_int_equal(model_mask(0), mask_range(13, 2) | mask_range(17, 1) | mask_range(20, 10));
}

static void test_scan(void **state)
{
    struct entry entries[] = {data(2 * CHUNK_BLOCKS, 1, 1), data(5 * CHUNK_BLOCKS, 1, 1),
                              data(6 * CHUNK_BLOCKS + 63, 1, 1), data(30 * CHUNK_BLOCKS, 1, 1)};
    struct index_hit hits[3];
    size_t n;

    (void)state;
    assert_int_equal(index_scan(ix, 0, UINT64_MAX >> 1, hits, 3, &n), 0);
    assert_int_equal(n, 0);
    apply(entries, ARRAY_SIZE(entries), 1, false);
    assert_int_equal(index_scan(ix, 3, 30, hits, 3, &n), 0);
    assert_int_equal(n, 3);
    assert_int_equal(hits[0].chunk, 5);
    assert_int_equal(hits[1].chunk, 6);
    assert_int_equal(hits[1].mask, UINT64_C(1) << 63);
    assert_int_equal(hits[2].chunk, 30);
    assert_int_equal(index_scan(ix, 3, 29, hits, 3, &n), 0);
    assert_int_equal(n, 2);
    assert_int_equal(index_scan(ix, 0, 40, hits, 1, &n), 0);
    assert_int_equal(n, 1);
    assert_int_equal(hits[0].chunk, 2);
    assert_int_equal(index_scan(ix, 31, 40, hits, 3, &n), 0);
    assert_int_equal(n, 0);
}

/* ------------------------------------------------------------------ reloading */

/* After a reload nothing says how large the objects are, nor which are there that nobody needs. */
static void take_inventory(void)
{
    static const struct index_found found[] = {{1, 50000, 0}, {5, 100, 77}, {9, 60000, 0}};
    struct index_segment dead[2];
    struct index_space space;
    struct index_meta meta;
    size_t n;

    index_get_meta(ix, &meta);
    assert_false(meta.inventoried);
    assert_int_equal(index_inventory(ix, found, ARRAY_SIZE(found)), 0);
    index_get_meta(ix, &meta);
    assert_true(meta.inventoried);
    assert_int_equal(index_space(ix, 0, &space), 0);
    assert_int_equal(space.stored_bytes, 110100);
    assert_int_equal(space.dead_bytes, 100);
    assert_int_equal(index_dead(ix, 76, 0, dead, 2, &n), 0);
    assert_int_equal(n, 0);
    assert_int_equal(index_dead(ix, 77, 5, dead, 2, &n), 0);
    assert_int_equal(n, 0);
    assert_int_equal(index_dead(ix, 77, 4, dead, 2, &n), 0);
    assert_int_equal(n, 1);
    assert_int_equal(dead[0].seq, 5);
    assert_int_equal(index_forget_segments(ix, (const uint64_t[]){5}, 1), 0);
    assert_int_equal(index_dead(ix, 77, 0, dead, 2, &n), 0);
    assert_int_equal(n, 0);
}

static void test_reload_keeps_what_did_not_change(void **state)
{
    struct entry before[] = {data(0, 8, 1), data(64, 8, 1), data(128, 8, 1), data(192, 8, 1)};
    struct entry after[] = {data(0, 8, 1), data(64, 8, 9), data(128, 4, 9), data(132, 4, 1),
                            data(256, 1, 9)};
    struct log_position pos = position(77);
    struct index_meta meta;

    (void)state;
    apply(before, ARRAY_SIZE(before), 1, false);
    for (uint64_t i = 0; i < 6; i++) {
        struct index_cached row = {.chunk = i, .valid = 0xff, .slot = (uint32_t)i};
        row.dirty = i == 3 ? 0x3c : 0;
        record(&row, 1, false);
    }
    assert_int_equal(index_reload_begin(ix), 0);
    assert_int_equal(index_reload_add(ix, after, 2), 0);
    assert_int_equal(index_reload_add(ix, after + 2, 3), 0);
    assert_int_equal(index_reload_end(ix, &pos, true), 0);
    memset(model.seq, 0, sizeof model.seq);
    for (size_t i = 0; i < ARRAY_SIZE(after); i++)
        apply_to_model(&after[i], false);
    /* only chunks 0 and 5 are as they were; what nobody else has stays in any case */
    model.row[1] = model.row[2] = model.row[4] = (struct index_cached){0};
    take_inventory();
    check();
    size_t n = 0;
    assert_int_equal(index_each_cached(ix, check_cached, &n), 0);
    assert_int_equal(n, 3);
    index_get_meta(ix, &meta);
    assert_memory_equal(&meta.pos, &pos, sizeof pos);
    assert_int_equal(reopen(), 0);
    check();
}

static void test_reload_that_is_given_up(void **state)
{
    struct entry before = data(0, 8, 1), after = data(64, 8, 9);
    struct index_cached row = {.chunk = 0, .valid = 0xff, .slot = 1};

    (void)state;
    apply(&before, 1, 1, false);
    record(&row, 1, false);
    for (int i = 0; i < 3; i++) { /* and again */
        assert_int_equal(index_reload_begin(ix), 0);
        assert_int_equal(index_reload_add(ix, &after, 1), 0);
        assert_int_equal(index_reload_end(ix, NULL, false), 0);
        check();
    }
    apply(&after, 1, 2, false);
    check();
    assert_int_equal(index_reload_begin(ix), 0);
    assert_int_equal(index_reload_add(ix, &before, 1), 0);
    index_close(ix); /* killed in the middle */
    assert_int_equal(index_open(path, uuid, &ix), 0);
    check();
}

static void test_reload_of_nothing(void **state)
{
    struct entry before = data(0, 8, 1);
    struct log_position pos = position(2);

    (void)state;
    apply(&before, 1, 1, false);
    assert_int_equal(index_reload_begin(ix), 0);
    assert_int_equal(index_reload_end(ix, &pos, true), 0);
    memset(model.seq, 0, sizeof model.seq);
    check();
}

/* ------------------------------------------------------------------ cached rows */

static void test_record_and_forget(void **state)
{
    uint64_t rng = 5;
    size_t n;

    (void)state;
    for (int i = 0; i < 50; i++) {
        struct index_cached rows[5];
        for (uint64_t k = 0; k < 5; k++) {
            rows[k] = random_row(&rng);
            rows[k].chunk = rows[k].chunk / 5 * 5 + k;
        }
        if (draw(&rng, 3) == 0)
            rows[0].valid = rows[0].zero = rows[0].dirty = rows[0].slot = 0; /* forget it */
        record(rows, 5, draw(&rng, 10) == 0);
        check();
    }
    assert_int_equal(index_forget(ix, false), 0);
    n = 0;
    for (int i = 0; i < CHUNKS; i++) {
        struct index_cached *row = &model.row[i];
        row->valid = row->dirty;
        row->zero &= row->dirty;
        n += row->dirty != 0;
    }
    size_t seen = 0;
    assert_int_equal(index_each_cached(ix, check_cached, &seen), 0);
    assert_int_equal(seen, n);
    assert_true(n > 0);
    assert_int_equal(index_forget_sums(ix), 0);
    for (int i = 0; i < CHUNKS; i++)
        model.row[i].sums = NULL;
    assert_int_equal(index_each_cached(ix, check_cached, &seen), 0);
    assert_int_equal(index_forget(ix, true), 0);
    seen = 0;
    assert_int_equal(index_each_cached(ix, check_cached, &seen), 0);
    assert_int_equal(seen, 0);
}

/* What is not known stays so; what no writer stores is not believed. */
static int count_sums(void *ctx, const struct index_cached *row)
{
    unsigned *n = ctx;

    for (unsigned i = 0; row->sums && i < CHUNK_BLOCKS; i++)
        n[0] += row->sums[i] != 0;
    n[1] += row->sums != NULL;
    return 0;
}

static void test_damaged_sums(void **state)
{
    static const uint32_t sums[CHUNK_BLOCKS] = {1, 2, 0, 4};
    static const char *const blobs[] = {"x'01'",
                                        "x'0000000000000001'",
                                        "x'000000000000000100'",
                                        "x'00000000000000010000000000'",
                                        "zeroblob(500)",
                                        "7"};
    struct index_cached row = {.chunk = 1, .valid = 0xff, .zero = 1, .sums = sums};
    unsigned n[2] = {0};

    (void)state;
    record(&row, 1, false);
    assert_int_equal(index_each_cached(ix, count_sums, n), 0);
    assert_int_equal(n[0], 2); /* not that of the block which is zero */
    assert_int_equal(n[1], 1);
    for (size_t i = 0; i < ARRAY_SIZE(blobs); i++) {
        char sql[200];
        sqlite3 *db;
        snprintf(sql, sizeof sql, "UPDATE cached SET sums = %s", blobs[i]);
        int flags = SQLITE_OPEN_READWRITE;
        assert_int_equal(sqlite3_open_v2(path, &db, flags, index_pages_vfs()), SQLITE_OK);
        assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
        sqlite3_close(db);
        n[0] = n[1] = 0;
        assert_int_equal(index_each_cached(ix, count_sums, n), 0);
        assert_int_equal(n[0], CHUNK_BLOCKS);
    }
    assert_int_equal(index_forget(ix, true), 0);
}

static int stop_at_two(void *ctx, const struct index_cached *row)
{
    int *n = ctx;

    (void)row;
    return ++*n == 2 ? -EXDEV : 0;
}

static void test_the_walk_ends_with_its_error(void **state)
{
    int n = 0;

    (void)state;
    for (uint64_t i = 0; i < 5; i++)
        record(&(struct index_cached){.chunk = i, .valid = 1}, 1, false);
    assert_int_equal(index_each_cached(ix, stop_at_two, &n), -EXDEV);
    assert_int_equal(n, 2);
    check();
}

/* ------------------------------------------------------------------ views */

struct seen {
    unsigned n, end_at;
    uint64_t chunks[CHUNKS];
};

static int see(void *ctx, const struct places *p)
{
    struct seen *s = ctx;

    check_places(p, p->e[0].block / CHUNK_BLOCKS);
    s->chunks[s->n++] = p->e[0].block / CHUNK_BLOCKS;
    return s->n == s->end_at ? -EXDEV : 0;
}

static void test_a_view_is_undisturbed(void **state)
{
    struct entry first[] = {data(0, 8, 1), data(64, 8, 1), data(640, 8, 1)};
    struct index_view *view;
    struct log_position pos, want = position(1);
    struct seen s = {0};

    (void)state;
    apply(first, 3, 1, false);
    assert_int_equal(index_view_begin(ix, &view, &pos), 0);
    assert_memory_equal(&pos, &want, sizeof pos);
    struct entry later[] = {zero(0, NBLOCKS), data(128, 8, 2)};
    struct log_position pos2 = position(2);
    assert_int_equal(index_apply(ix, later, 2, 1, &pos2, false), 0); /* not in the model */
    assert_int_equal(index_view_each(view, 0, CHUNKS, see, &s), 0);
    assert_int_equal(s.n, 3);
    assert_int_equal(s.chunks[2], 10);
    s.n = 0;
    assert_int_equal(index_view_each(view, 1, 10, see, &s), 0);
    assert_int_equal(s.n, 1);
    assert_int_equal(s.chunks[0], 1);
    s = (struct seen){.end_at = 2};
    assert_int_equal(index_view_each(view, 0, CHUNKS, see, &s), -EXDEV);
    assert_int_equal(s.n, 2);
    index_view_end(view);
    apply_to_model(&later[0], false);
    apply_to_model(&later[1], false);
    check();
    s = (struct seen){0};
    assert_int_equal(index_view_begin(ix, &view, &pos), 0);
    assert_memory_equal(&pos, &pos2, sizeof pos);
    assert_int_equal(index_view_each(view, 0, CHUNKS, see, &s), 0);
    assert_int_equal(s.n, 1);
    index_view_end(view);
}

/* ------------------------------------------------------------------ the file */

static void test_meta(void **state)
{
    struct index_meta meta, back;
    struct entry e = data(0, 8, 1);

    (void)state;
    index_get_meta(ix, &meta);
    assert_true(meta.fresh);
    assert_false(meta.clean);
    assert_int_equal(meta.pos.seq, 0);
    assert_int_equal(meta.pos.next, 1);
    assert_int_equal(meta.mapped_blocks, 0);
    memset(meta.own_nonce, 'o', UUID_BYTES);
    memset(meta.pending_nonce, 'p', UUID_BYTES);
    meta.clean = true;
    meta.local_blocks = 55;
    meta.mapped_blocks = 1234; /* these two are not taken */
    meta.pos.seq = 1234;
    assert_int_equal(index_put_meta(ix, &meta), 0);
    apply(&e, 1, 9, false);
    assert_int_equal(reopen(), 0);
    index_get_meta(ix, &back);
    struct log_position pos = position(9);
    assert_memory_equal(&back.pos, &pos, sizeof pos);
    assert_memory_equal(back.own_nonce, meta.own_nonce, UUID_BYTES);
    assert_memory_equal(back.pending_nonce, meta.pending_nonce, UUID_BYTES);
    assert_true(back.clean);
    assert_false(back.fresh);
    assert_int_equal(back.local_blocks, 55);
    assert_int_equal(back.mapped_blocks, 8);
    record(&(struct index_cached){.chunk = 1, .valid = 1}, 1, false);
    index_get_meta(ix, &back);
    assert_int_equal(back.local_blocks, 7);
    assert_true(back.clean);
}

/* ------------------------------------------------------------------ threads */

static _Atomic bool done;

static void *look(void *arg)
{
    uint64_t *nlooks = arg;

    while (!done || *nlooks < 100) {
        struct places p;
        struct index_hit hits[4];
        size_t n;
        assert_int_equal(index_load(ix, *nlooks % CHUNKS, &p), 0);
        for (unsigned i = 0; i < p.n; i++) /* of one commit, always */
            assert_int_equal(p.e[i].seq, p.e[0].seq);
        assert_int_equal(index_scan(ix, 0, CHUNKS, hits, 4, &n), 0);
        ++*nlooks;
    }
    return NULL;
}

static void test_readers_beside_a_writer(void **state)
{
    pthread_t threads[2];
    uint64_t nlooks[2] = {0};

    (void)state;
    done = false;
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, look, &nlooks[i]), 0);
    for (uint64_t seq = 1; seq <= 100; seq++) {
        struct entry entries[CHUNKS * 2];
        for (uint64_t i = 0; i < CHUNKS * 2; i++)
            entries[i] = data(i * 32, 20, seq);
        apply(entries, CHUNKS * 2, seq, false);
    }
    done = true;
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    check();
}

/* --- what looks at all segments is slow --- */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t moved = PTHREAD_COND_INITIALIZER;
static bool reading, released;
static _Thread_local bool held_up; /* this thread's reads of files wait until then */

static ssize_t slow_pread(int fd, void *buf, size_t len, off_t at)
{
    pthread_mutex_lock(&lock);
    reading = reading || held_up;
    pthread_cond_broadcast(&moved);
    while (held_up && !released)
        pthread_cond_wait(&moved, &lock);
    pthread_mutex_unlock(&lock);
    return pread(fd, buf, len, at);
}

static void set_pread(ssize_t (*fn)(int, void *, size_t, off_t))
{
    static const char *const names[] = {"pread", "pread64"}; /* one of them is used */
    sqlite3_vfs *unix_vfs = sqlite3_vfs_find(NULL);

    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        unix_vfs->xSetSystemCall(unix_vfs, names[i], (sqlite3_syscall_ptr)fn);
}

static void *look_at_all_segments(void *arg)
{
    struct index_segment segments[4];
    struct index_space space;
    size_t n;

    (void)arg;
    held_up = true;
    assert_int_equal(index_space(ix, 0, &space), 0);
    assert_int_equal(index_victims(ix, 1e9, SEQ_MAX, segments, 4, &n), 0);
    assert_int_equal(n, 4);
    return NULL;
}

static void *look_up(void *arg)
{
    struct places p;
    uint64_t mask;

    (void)arg;
    assert_int_equal(index_mask(ix, 3, &mask), 0);
    assert_int_equal(index_load(ix, 3, &p), 0);
    return NULL;
}

static void test_lookups_do_not_wait_for_looks_at_all_segments(void **state)
{
    struct timespec until;
    pthread_t slow, quick;

    (void)state;
    for (uint64_t seq = 1; seq <= CHUNKS; seq++) {
        struct entry e = data((seq - 1) * CHUNK_BLOCKS, 8, seq);
        apply(&e, 1, seq, false);
    }
    reading = released = false;
    set_pread(slow_pread);
    assert_int_equal(pthread_create(&slow, NULL, look_at_all_segments, NULL), 0);
    pthread_mutex_lock(&lock);
    while (!reading)
        pthread_cond_wait(&moved, &lock);
    pthread_mutex_unlock(&lock);
    assert_int_equal(pthread_create(&quick, NULL, look_up, NULL), 0);
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 30;
    int r = pthread_timedjoin_np(quick, NULL, &until);
    pthread_mutex_lock(&lock);
    released = true;
    pthread_cond_broadcast(&moved);
    pthread_mutex_unlock(&lock);
    pthread_join(slow, NULL);
    if (r != 0)
        pthread_join(quick, NULL);
    set_pread(NULL); /* as it was */
    assert_int_equal(r, 0);
    check();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_random_commits),
        TEST(test_zeros_over_all_of_it),
        TEST(test_order_within_a_commit),
        TEST(test_scan),
        TEST(test_reload_keeps_what_did_not_change),
        TEST(test_reload_that_is_given_up),
        TEST(test_reload_of_nothing),
        TEST(test_record_and_forget),
        TEST(test_damaged_sums),
        TEST(test_the_walk_ends_with_its_error),
        TEST(test_a_view_is_undisturbed),
        TEST(test_meta),
        TEST(test_readers_beside_a_writer),
        TEST(test_lookups_do_not_wait_for_looks_at_all_segments),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
