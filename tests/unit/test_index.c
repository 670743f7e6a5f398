/* index.db against a model of 40 chunks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "../../cache/index.h"
#include "../../store/msg.h"
#include "../../store/scope.h"
#include "../pattern.h"

#include <sys/stat.h>

enum { CHUNKS = 40, NBLOCKS = CHUNKS * CHUNK_BLOCKS };

static const uint8_t uuid[UUID_BYTES] = "volume's uuid 1", other[UUID_BYTES] = "volume's uuid 2";
static char path[256];
static struct index *ix;

/* What the index must hold. */
static struct {
    uint64_t seq[NBLOCKS]; /* of the segment that holds the block; 0: no place */
    struct index_cached row[CHUNKS];
} model;

static void remove_files(void)
{
    static const char *const suffixes[] = {"", "-wal", "-shm"};
    char name[300];

    for (int i = 0; i < 3; i++) {
        snprintf(name, sizeof name, "%s%s", path, suffixes[i]);
        unlink(name);
    }
}

static int setup(void **state)
{
    const char *tmp = getenv("T") ? getenv("T") : getenv("TMPDIR");

    (void)state;
    msg_set_sink(MSG_NONE);
    memset(&model, 0, sizeof model);
    snprintf(path, sizeof path, "%s/s3vol-unit-XXXXXX", tmp ? tmp : "/tmp");
    close(mkstemp(path));
    unlink(path);
    return index_open(path, uuid, &ix);
}

static int teardown(void **state)
{
    (void)state;
    index_close(ix);
    ix = NULL;
    remove_files();
    return 0;
}

static int reopen(void)
{
    index_close(ix);
    ix = NULL;
    return index_open(path, uuid, &ix);
}

/* ------------------------------------------------------------------ checking */

static uint64_t model_mask(uint64_t chunk)
{
    uint64_t mask = 0;

    for (unsigned i = 0; i < CHUNK_BLOCKS; i++)
        mask |= (uint64_t)(model.seq[chunk * CHUNK_BLOCKS + i] != 0) << i;
    return mask;
}

static void check_places(const struct places *p, uint64_t chunk)
{
    assert_int_equal(places_mask(p), model_mask(chunk));
    for (unsigned i = 0; i < p->n; i++)
        for (uint64_t b = p->e[i].block; b < p->e[i].block + p->e[i].nblocks; b++)
            assert_int_equal(model.seq[b], p->e[i].seq);
}

static int check_cached(void *ctx, const struct index_cached *row)
{
    size_t *n = ctx;
    const struct index_cached *want = &model.row[row->chunk];

    ++*n;
    assert_int_equal(row->valid, want->valid);
    assert_int_equal(row->zero, want->zero);
    assert_int_equal(row->dirty, want->dirty);
    assert_int_equal(row->slot, want->slot);
    assert_int_equal(row->mapped, model_mask(row->chunk));
    return 0;
}

static void check(void)
{
    struct index_hit hits[CHUNKS + 1];
    struct index_meta meta;
    uint64_t total = 0;
    size_t n, at = 0;

    assert_int_equal(index_scan(ix, 0, CHUNKS, hits, CHUNKS + 1, &n), 0);
    for (uint64_t chunk = 0; chunk < CHUNKS; chunk++) {
        struct places p;
        uint64_t mask;
        assert_int_equal(index_load(ix, chunk, &p), 0);
        check_places(&p, chunk);
        assert_int_equal(index_mask(ix, chunk, &mask), 0);
        assert_int_equal(mask, model_mask(chunk));
        total += mask_count(mask);
        if (mask) {
            assert_true(at < n);
            assert_int_equal(hits[at].chunk, chunk);
            assert_int_equal(hits[at++].mask, mask);
        }
    }
    assert_int_equal(at, n);
    index_get_meta(ix, &meta);
    assert_int_equal(meta.mapped_blocks, total);
    assert_int_equal(index_each_cached(ix, check_cached, &at), 0);
}

/* ------------------------------------------------------------------ changing both */

static struct log_position position(uint64_t seq)
{
    struct log_position pos = {
        .seq = seq, .next = seq + 1, .size_blocks = NBLOCKS, .epoch = 3, .claim = 5};

    memset(pos.nonce, (int)seq, UUID_BYTES);
    return pos;
}

static struct entry zero(uint64_t block, uint64_t n)
{
    return (struct entry){.kind = ENTRY_ZERO, .block = block, .nblocks = n};
}

static struct entry data(uint64_t block, uint64_t n, uint64_t seq)
{
    return (struct entry){.kind = ENTRY_DATA,
                          .block = block,
                          .nblocks = n,
                          .seq = seq,
                          .offset = 200,
                          .stored_bytes = (uint32_t)n * BLOCK_BYTES,
                          .frame_blocks = (uint8_t)n};
}

static void apply_to_model(const struct entry *e, bool forget)
{
    for (uint64_t b = e->block; b < e->block + e->nblocks && b < NBLOCKS; b++) {
        struct index_cached *row = &model.row[b / CHUNK_BLOCKS];
        uint64_t bit = UINT64_C(1) << b % CHUNK_BLOCKS;
        model.seq[b] = e->kind == ENTRY_ZERO ? 0 : e->seq;
        if (forget && !(row->dirty & bit)) {
            row->valid &= ~bit;
            row->zero &= ~bit;
        }
    }
}

static void apply(const struct entry *entries, size_t n, uint64_t seq, bool forget)
{
    struct log_position pos = position(seq);

    assert_int_equal(index_apply(ix, entries, n, &pos, forget), 0);
    for (size_t i = 0; i < n; i++)
        apply_to_model(&entries[i], forget);
}

static struct entry random_entry(uint64_t *rng, uint64_t seq)
{
    uint64_t block = draw(rng, NBLOCKS), n = 1 + draw(rng, 16);

    if (draw(rng, 4)) {
        n = MIN(n, CHUNK_BLOCKS - block % CHUNK_BLOCKS);
        return data(block, n, seq);
    }
    if (draw(rng, 4) == 0) /* from chunk to chunk */
        block -= block % CHUNK_BLOCKS;
    uint64_t many = 1 + draw(rng, draw(rng, 2) ? 10 : 700);
    return zero(block, MIN(many, NBLOCKS - block));
}

static struct index_cached random_row(uint64_t *rng)
{
    struct index_cached row = {.chunk = draw(rng, CHUNKS), .slot = (uint32_t)draw(rng, 1000)};

    row.valid = mix(draw(rng, 1000000)) | 1;
    row.zero = row.valid & mix(draw(rng, 1000000));
    row.dirty = draw(rng, 2) ? row.valid & mix(draw(rng, 1000000)) : 0;
    return row;
}

static void record(const struct index_cached *rows, size_t n, bool only)
{
    assert_int_equal(index_record(ix, rows, n, 7, only), 0);
    if (only)
        memset(model.row, 0, sizeof model.row);
    for (size_t i = 0; i < n; i++)
        model.row[rows[i].chunk] = rows[i];
}

/* ------------------------------------------------------------------ the map */

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
    assert_int_equal(index_forget(ix, true), 0);
    seen = 0;
    assert_int_equal(index_each_cached(ix, check_cached, &seen), 0);
    assert_int_equal(seen, 0);
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
    assert_int_equal(index_apply(ix, later, 2, &pos2, false), 0); /* not in the model */
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
    index_close(ix);
    ix = NULL;
    int fd = open_or_die(path, O_RDWR); /* user_version: bytes 60 to 63 of the file, big-endian */
    write_all(fd, "\0\0\0\2", 4, 60);
    close(fd);
    assert_int_equal(index_open(path, uuid, &ix), -EPROTONOSUPPORT);
    ix = NULL;
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

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

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
        TEST(test_the_walk_ends_with_its_error),
        TEST(test_a_view_is_undisturbed),
        TEST(test_meta),
        TEST(test_another_volume),
        TEST(test_truncated_and_garbage),
        TEST(test_a_version_from_the_future),
        TEST(test_readers_beside_a_writer),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
