/* The volume as a front end sees it, over a bucket in memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "mem_volume.h"

#include "../../store/entry.h"

static unsigned requests(void)
{
    scope_lock(&mem.lock);
    return mem.tries['P'] + mem.tries['G'] + mem.tries['L'] + mem.tries['D'];
}

static unsigned nputs(void)
{
    scope_lock(&mem.lock);
    return mem.tries['P'];
}

/* With a new cache. */
static void attach_cold(void)
{
    assert_int_equal(detach(false), 0);
    lose_cache();
    attach();
}

/* ------------------------------------------------------------------ against an array */

enum { SIZE = 8 * 1024 * 1024, NBLOCKS = SIZE / BLOCK, OPS = 600 };

static uint8_t model[SIZE], buf[SIZE];

static bool is_data(uint64_t block)
{
    const uint8_t *p = &model[block * BLOCK];

    return p[0] || memcmp(p, p + 1, BLOCK - 1) != 0;
}

static void check_allocated(void)
{
    uint64_t n = 0;

    for (uint64_t b = 0; b < NBLOCKS; b++)
        n += is_data(b);
    assert_int_equal(volume_allocated_bytes(volume), n * BLOCK);
    assert_int_equal(status().allocated_bytes, n * BLOCK);
}

static void check_seek(uint64_t offset, bool data)
{
    uint64_t at = offset, got = 1;

    while (at < SIZE && is_data(at / BLOCK) != data)
        at = (at / BLOCK + 1) * BLOCK;
    int r = volume_seek(volume, offset, data, &got);
    if (at < SIZE || !data) {
        assert_int_equal(r, 0);
        assert_int_equal(got, MIN(at, (uint64_t)SIZE));
    } else {
        assert_int_equal(r, -ENXIO);
    }
}

static void check_bytes(void)
{
    assert_int_equal(volume_read(volume, buf, SIZE, 0, true), 0);
    assert_memory_equal(buf, model, SIZE);
}

static void random_op(uint64_t *rng)
{
    static const uint32_t most[] = {100, 5000, 70000, 600000};
    uint64_t len = 1 + draw(rng, most[draw(rng, 4)]), offset = draw(rng, SIZE - len + 1);

    if (draw(rng, 2)) {
        offset -= offset % BLOCK;
        len = MIN(ROUND_UP(len, (uint64_t)BLOCK), SIZE - offset);
    }
    switch (draw(rng, 8)) {
    case 0:
    case 1:
    case 2:
        pattern(model + offset, len, offset, mix(*rng));
        break;
    case 3: /* zeros, written */
        memset(model + offset, 0, len);
        break;
    case 4:
    case 5:
        memset(model + offset, 0, len);
        assert_int_equal(volume_discard(volume, offset, len), 0);
        return;
    case 6:
        assert_int_equal(volume_read(volume, buf, len, offset, true), 0);
        assert_memory_equal(buf, model + offset, len);
        return;
    default:
        if (draw(rng, 4) == 0)
            assert_int_equal(volume_flush(volume, true), 0);
        return;
    }
    assert_int_equal(volume_write(volume, model + offset, len, offset, true), 0);
}

static void test_random_operations(void **state)
{
    uint64_t rng = 1;

    (void)state;
    memset(model, 0, sizeof model);
    cfg.cache_bytes = 4 * MIB; /* half of it */
    cfg.readahead_bytes = 0;
    create_and_attach(SIZE);
    for (int i = 1; i <= OPS; i++) {
        random_op(&rng);
        if (i % 5 == 0)
            check_allocated();
        check_seek(draw(&rng, SIZE), draw(&rng, 2));
        if (i % 150 == 0) {
            check_bytes();
            assert_true(status().cached_bytes <= cfg.cache_bytes);
            assert_int_equal(detach(i % 300 == 0), 0);
            if (i % 450 == 0)
                lose_cache();
            attach();
            check_allocated();
        }
    }
    check_bytes();
    for (uint64_t at = 0; at < SIZE; at += BLOCK)
        check_seek(at, at / BLOCK % 2);
    assert_int_equal(detach(false), 0);
}

/* ------------------------------------------------------------------ zeros */

static void test_zeros_cost_nothing(void **state)
{
    (void)state;
    create_and_attach(GIB);
    put(0, CHUNK, 1);
    assert_int_equal(volume_flush(volume, true), 0);
    unsigned before = requests();
    memset(buf, 0, SIZE);
    assert_int_equal(volume_write(volume, buf, 4 * MIB, 8 * MIB, true), 0);
    assert_int_equal(volume_write(volume, buf, 100, 8 * MIB + 50, true), 0);
    assert_int_equal(volume_discard(volume, 16 * MIB, GIB - 16 * MIB), 0);
    assert_int_equal(status().dirty_bytes, 0);
    assert_int_equal(volume_allocated_bytes(volume), CHUNK);
    assert_int_equal(status().cached_bytes, CHUNK);
    assert_int_equal(volume_flush(volume, true), 0);
    assert_int_equal(requests(), before);
    assert_int_equal(detach(false), 0);
}

static void test_discarding_the_largest_volume(void **state)
{
    uint64_t size = (UINT64_C(1) << 63) - 4096, at = 0;

    (void)state;
    create_and_attach(size);
    put(0, CHUNK, 1);
    put(size - CHUNK, CHUNK, 2);
    put(size / 2 / CHUNK * CHUNK, CHUNK, 3);
    assert_int_equal(volume_flush(volume, true), 0);
    put(size / 4 / CHUNK * CHUNK, CHUNK, 4);
    assert_int_equal(volume_seek(volume, CHUNK, true, &at), 0);
    assert_int_equal(at, size / 4 / CHUNK * CHUNK);
    assert_int_equal(volume_seek(volume, at + CHUNK, true, &at), 0);
    assert_int_equal(at, size / 2 / CHUNK * CHUNK);
    unsigned before = nputs();
    assert_int_equal(volume_discard(volume, 0, size), 0);
    assert_int_equal(volume_allocated_bytes(volume), 0);
    assert_int_equal(volume_seek(volume, 0, true, &at), -ENXIO);
    assert_int_equal(volume_flush(volume, true), 0);
    assert_int_equal(nputs(), before + 1);
    attach_cold();
    assert_int_equal(volume_allocated_bytes(volume), 0);
    expect(size - CHUNK, CHUNK, 0);
    assert_int_equal(detach(false), 0);
}

static int64_t cpu_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Many chunks that are zero in memory, and not so in the index yet: one walk over the table, or as
 * many as there are chunks? */
static void test_seeking_over_what_was_just_discarded(void **state)
{
    enum { N = 10000 };
    uint64_t at, stride = 300 * (uint64_t)CHUNK, middle = N / 2 * stride, last = N * stride;

    (void)state;
    cfg.cache_bytes = 256 * MIB;
    create_and_attach(4096 * GIB);
    for (uint64_t i = 0; i <= N; i++)
        put(i * stride, 4096, 1);
    assert_int_equal(volume_flush(volume, true), 0);
    mem_retry(&mem, script_hang, "P"); /* it stays so */
    assert_int_equal(volume_discard(volume, 0, middle), 0);
    assert_int_equal(volume_discard(volume, middle + CHUNK, last - middle - CHUNK), 0);
    int64_t start = cpu_ms();
    assert_int_equal(volume_seek(volume, 0, true, &at), 0);
    assert_int_equal(at, middle);
    assert_int_equal(volume_seek(volume, at + 4096, true, &at), 0);
    assert_int_equal(at, last);
    assert_int_equal(volume_seek(volume, at + 4096, true, &at), -ENXIO);
    assert_in_range(cpu_ms() - start, 0, 1000 * (getenv("SLOW") ? atoi(getenv("SLOW")) : 1));
    mem_retry(&mem, NULL, NULL);
    assert_int_equal(detach(false), 0);
}

/* ------------------------------------------------------------------ not waiting */

static void test_not_waiting_for_the_store(void **state)
{
    (void)state;
    cfg.readahead_bytes = 0;
    create_and_attach(64 * MIB);
    put(0, 2 * CHUNK, 1);
    attach_cold();
    mem_retry(&mem, script_hang, "G");
    assert_int_equal(check_pattern(0, 4096, 1, false), -EAGAIN);
    assert_int_equal(check_pattern(CHUNK - 4096, 8192, 1, false), -EAGAIN);
    assert_int_equal(write_pattern(100, 100, 2, false), -EAGAIN);
    assert_int_equal(status().dirty_bytes, 0);
    assert_int_equal(write_pattern(0, 4096, 2, false), 0); /* nothing else is needed for this */
    assert_int_equal(check_pattern(0, 4096, 2, false), 0);
    assert_int_equal(check_pattern(32 * MIB, CHUNK, 0, false), 0);
    assert_int_equal(write_pattern(32 * MIB + 1, 10, 3, false), 0);
    mem_retry(&mem, NULL, NULL);
    expect(4096, 2 * CHUNK - 4096, 1);
    assert_int_equal(check_pattern(4096, 2 * CHUNK - 4096, 1, false), 0);
    assert_int_equal(detach(false), 0);
}

static int read_chunk(void)
{
    return check_pattern(0, CHUNK, 1, true);
}

/* Blocks that somebody fetches: a reader would wait for them; a writer of whole blocks takes them.
 */
static void test_not_waiting_for_a_fetch(void **state)
{
    struct caller reader;

    (void)state;
    cfg.readahead_bytes = 0;
    create_and_attach(64 * MIB);
    put(0, CHUNK, 1);
    attach_cold();
    mem_retry(&mem, script_hang, "G");
    call(&reader, read_chunk);
    mem_await_hanging(&mem, 1);
    assert_int_equal(check_pattern(0, 4096, 1, false), -EAGAIN);
    assert_int_equal(write_pattern(4096, 4096, 2, false), 0);
    assert_int_equal(check_pattern(4096, 4096, 2, false), 0);
    mem_retry(&mem, NULL, NULL);
    assert_int_equal(called(&reader), -EILSEQ); /* it sees the new block, and the rest */
    expect(0, 4096, 1);
    expect(4096, 4096, 2);
    expect(8192, CHUNK - 8192, 1);
    assert_int_equal(detach(false), 0);
}

/* ------------------------------------------------------------------ sizes */

static void test_out_of_range(void **state)
{
    uint64_t at;

    (void)state;
    create_and_attach(4 * MIB);
    assert_int_equal(volume_read(volume, buf, 1, 4 * MIB, true), -EINVAL);
    assert_int_equal(volume_read(volume, buf, 2, 4 * MIB - 1, true), -EINVAL);
    assert_int_equal(volume_write(volume, buf, 1, 4 * MIB, true), -EINVAL);
    assert_int_equal(volume_write(volume, buf, 2, UINT64_MAX, true), -EINVAL);
    assert_int_equal(volume_read(volume, buf, 2, UINT64_MAX, true), -EINVAL);
    assert_int_equal(volume_discard(volume, 1, UINT64_MAX), -EINVAL);
    assert_int_equal(volume_discard(volume, 0, 4 * MIB + 1), -EINVAL);
    assert_int_equal(volume_seek(volume, 4 * MIB, true, &at), -ENXIO);
    assert_int_equal(volume_seek(volume, 4 * MIB, false, &at), -ENXIO);
    assert_int_equal(volume_seek(volume, UINT64_MAX, false, &at), -ENXIO);
    assert_int_equal(volume_read(volume, buf, 0, 4 * MIB, true), 0);
    assert_int_equal(volume_write(volume, buf, 0, 4 * MIB, true), 0);
    assert_int_equal(volume_discard(volume, 4 * MIB, 0), 0);
    assert_int_equal(status().dirty_bytes, 0);
    assert_int_equal(detach(false), 0);
}

static void test_sizes_at_create(void **state)
{
    static const uint64_t bad[] = {0, 4096, MIB - 4096, MIB + 1, UINT64_C(1) << 63, UINT64_MAX};
    struct volume_create what = {.size_bytes = MIB};

    (void)state;
    store = mem_store(&mem, &mem_clock);
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        what.size_bytes = bad[i];
        assert_int_equal(volume_create(store, &what), -EINVAL);
    }
    what.size_bytes = MIB;
    assert_int_equal(volume_create(store, &what), 0);
    assert_int_equal(volume_create(store, &what), -EEXIST);
    store_free(store);
    attach();
    assert_int_equal(volume_size_bytes(volume), MIB);
    assert_int_equal(detach(false), 0);
}

static void test_resize(void **state)
{
    uint64_t at;

    (void)state;
    create_and_attach(4 * MIB + 4096);
    put(4 * MIB, 4096, 1);
    assert_int_equal(volume_resize(volume, 4 * MIB), -EINVAL);
    assert_int_equal(volume_resize(volume, 8 * MIB + 1), -EINVAL);
    assert_int_equal(volume_resize(volume, UINT64_C(1) << 63), -EINVAL);
    assert_int_equal(volume_resize(volume, 4 * MIB + 4096), 0);
    unsigned before = nputs();
    assert_int_equal(volume_flush(volume, true), 0);
    assert_int_equal(nputs(), before + 1);
    assert_int_equal(volume_resize(volume, GIB), 0);
    assert_int_equal(volume_size_bytes(volume), GIB);
    assert_int_equal(status().size_bytes, GIB);
    expect(4 * MIB, 4096, 1);
    expect(4 * MIB + 4096, CHUNK, 0);
    assert_int_equal(volume_seek(volume, 4 * MIB + 4096, false, &at), 0);
    assert_int_equal(at, 4 * MIB + 4096);
    assert_int_equal(volume_flush(volume, true), 0); /* of nothing but the size */
    assert_int_equal(nputs(), before + 2);
    put(GIB - 4096, 4096, 2);
    attach_cold();
    assert_int_equal(volume_size_bytes(volume), GIB);
    expect(GIB - 4096, 4096, 2);
    assert_int_equal(detach(false), 0);
}

/* ------------------------------------------------------------------ limits and numbers */

static int write_much(void)
{
    int r = 0;

    for (uint64_t i = 0; i < 64 && r == 0; i++)
        r = write_pattern(i * CHUNK, CHUNK, 1, true);
    return r;
}

static void test_dirty_limit(void **state)
{
    struct caller writer;

    (void)state;
    cfg.dirty_bytes = 2 * MIB;
    create_and_attach(64 * MIB);
    mem_retry(&mem, script_hang, "P");
    call(&writer, write_much);
    await(status().dirty_bytes == 2 * MIB);
    assert_int_equal(write_pattern(60 * MIB, 4096, 2, false), -EAGAIN);
    assert_int_equal(status().dirty_bytes, 2 * MIB);
    assert_int_equal(check_pattern(0, CHUNK, 1, false), 0);
    assert_false(writer.done);
    mem_retry(&mem, NULL, NULL);
    while (!writer.done)
        assert_true(status().dirty_bytes <= 2 * MIB);
    assert_int_equal(called(&writer), 0);
    assert_int_equal(detach(false), 0);
}

static void test_status_numbers(void **state)
{
    struct volume_status st;

    (void)state;
    cfg.readahead_bytes = 0;
    cfg.compress = false;
    create_and_attach(64 * MIB);
    st = status();
    assert_int_equal(strlen(st.uuid), 36);
    assert_non_null(strstr(st.cache_dir, st.uuid));
    assert_int_equal(st.state, VOLUME_OK);
    assert_int_equal(st.epoch, 1);
    assert_int_equal(st.size_bytes, 64 * MIB);
    assert_int_equal(st.cache_limit_bytes, 16 * MIB);
    assert_int_equal(st.dirty_limit_bytes, 8 * MIB);
    assert_int_equal(st.cached_bytes, 0);
    assert_int_equal(st.commits, 0);
    assert_int_equal(st.last_commit_age_s, -1);
    assert_int_equal(st.checkpoint_seq, 0);
    assert_true(st.conditional_put);
    uint64_t first = st.log_seq;
    put(0, CHUNK + 100, 1);
    st = status();
    assert_int_equal(st.cached_bytes, CHUNK + 4096);
    assert_int_equal(st.dirty_bytes, CHUNK + 4096);
    assert_int_equal(st.allocated_bytes, CHUNK + 4096);
    assert_int_equal(st.uploading_bytes, 0);
    assert_int_equal(volume_flush(volume, true), 0);
    st = status();
    assert_int_equal(st.dirty_bytes, 0);
    assert_int_equal(st.commits, 1);
    assert_int_equal(st.log_seq, first + 1);
    assert_in_range(st.last_commit_age_s, 0, 60);
    attach_cold();
    st = status();
    assert_int_equal(st.epoch, 2);
    assert_int_equal(st.allocated_bytes, CHUNK + 4096);
    assert_int_equal(st.hits, 0);
    assert_int_equal(st.misses, 0);
    expect(0, CHUNK, 1);
    st = status();
    assert_int_equal(st.hits, 0);
    assert_int_equal(st.misses, CHUNK_BLOCKS);
    assert_int_equal(st.cached_bytes, CHUNK);
    expect(0, CHUNK, 1);
    expect(100, 1, 1);
    st = status();
    assert_int_equal(st.hits, CHUNK_BLOCKS + 1);
    assert_int_equal(st.misses, CHUNK_BLOCKS);
    expect(CHUNK - 8192, 8192 + 50, 1); /* two blocks here, one not */
    st = status();
    assert_int_equal(st.hits, CHUNK_BLOCKS + 3);
    assert_int_equal(st.misses, CHUNK_BLOCKS + 1);
    assert_int_equal(detach(false), 0);
}

static void test_a_flush_is_one_put(void **state)
{
    uint64_t rng = 3;

    (void)state;
    create_and_attach(64 * MIB);
    for (int i = 0; i < 10; i++) {
        unsigned before = requests();
        for (int k = 0; k < 50; k++)
            put(draw(&rng, 64 * MIB / 4096) * 4096, 4096, 1 + draw(&rng, 9));
        assert_int_equal(volume_flush(volume, true), 0);
        assert_int_equal(requests(), before + 1);
        assert_int_equal(volume_flush(volume, true), 0);
        assert_int_equal(volume_drain(volume), 0);
        assert_int_equal(requests(), before + 1);
    }
    assert_int_equal(detach(false), 0);
}

static void test_a_warm_cache_makes_no_requests(void **state)
{
    (void)state;
    create_and_attach(64 * MIB);
    put(0, 4 * MIB, 1);
    assert_int_equal(detach(false), 0);
    attach();
    mem_retry(&mem, script_fail, NULL);
    expect(0, 4 * MIB, 1);
    mem_retry(&mem, NULL, NULL);
    assert_int_equal(detach(false), 0);
}

/* ------------------------------------------------------------------ commits */

static int flush(void)
{
    return volume_flush(volume, true);
}

/* What is written while a commit waits for its packer is not in it. */
static void test_a_commit_is_an_instant(void **state)
{
    struct caller first, packed, second;

    (void)state;
    cfg.uploads = 1;
    cfg.dirty_bytes = cfg.cache_bytes;
    create_and_attach(64 * MIB);
    mem_retry(&mem, script_hang, "P");
    put(32 * MIB, 4096, 9);
    call(&first, flush);
    mem_await_hanging(&mem, 1);
    put(33 * MIB, 4096, 9);
    call(&packed, flush);
    await(status().uploading_bytes == 2 * 4096); /* no packer is free any more */
    for (uint64_t i = 0; i < 8; i++)
        put(i * CHUNK, CHUNK, 1);
    assert_int_equal(volume_discard(volume, 32 * MIB, 4096), 0);
    call(&second, flush);
    await(status().uploading_bytes >= 8 * CHUNK);
    for (uint64_t i = 0; i < 8; i++) { /* on top of what is not packed yet */
        put(i * CHUNK + 8192, 3 * 4096, 2);
        put(i * CHUNK + 100000, 100, 2);
        assert_int_equal(volume_discard(volume, i * CHUNK + 40960, 8192), 0);
        put(i * CHUNK + 8192, 4096, 3);
    }
    mem_retry(&mem, NULL, NULL);
    assert_int_equal(called(&first), 0);
    assert_int_equal(called(&packed), 0);
    assert_int_equal(called(&second), 0);
    expect(8192, 4096, 3);
    expect(8192 + 4096, 8192, 2);
    expect(40960, 8192, 0);
    assert_int_equal(status().commits, 3);
    mem_retry(&mem, script_fail_verbs, "P"); /* the machine is lost with what is dirty */
    store_stop(store);
    detach(true);
    lose_cache();
    mem_retry(&mem, NULL, NULL);
    attach();
    for (uint64_t i = 0; i < 8; i++)
        expect(i * CHUNK, CHUNK, 1);
    expect(32 * MIB, 4096, 0);
    assert_int_equal(detach(false), 0);
}

/* ------------------------------------------------------------------ threads */

static _Atomic int turn;

/* Each its own blocks of the same few chunks; half of them zero now and then. */
static int share_chunks(void)
{
    int me = turn++ % 4;
    uint64_t rng = (uint64_t)me << 32;
    int r = 0;

    for (int i = 0; i < 400 && r == 0; i++) {
        uint64_t block = draw(&rng, 4 * CHUNK_BLOCKS / 4) * 4 + (uint64_t)me;
        uint64_t offset = block * 4096, tag = draw(&rng, 3);
        if (tag == 0)
            r = volume_discard(volume, offset, 4096);
        else if (draw(&rng, 2))
            r = write_pattern(offset, 4096, tag, true);
        else if ((r = volume_discard(volume, offset, 4096)) == 0)
            r = write_pattern(offset + 100, 200, tag, true);
        else
            break;
        if (r == 0 && draw(&rng, 10) == 0)
            r = volume_flush(volume, true);
        if (r == 0)
            r = volume_discard(volume, offset + 50, 4046);
        if (r == 0)
            r = check_pattern(offset + 300, 3700, 0, true);
    }
    return r;
}

static void test_blocks_of_one_chunk_in_many_hands(void **state)
{
    struct caller callers[4];

    (void)state;
    turn = 0;
    create_and_attach(64 * MIB);
    for (int i = 0; i < 4; i++)
        call(&callers[i], share_chunks);
    for (int i = 0; i < 4; i++)
        assert_int_equal(called(&callers[i]), 0);
    assert_int_equal(detach(false), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, volume_setup, volume_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_random_operations),
        TEST(test_zeros_cost_nothing),
        TEST(test_discarding_the_largest_volume),
        TEST(test_seeking_over_what_was_just_discarded),
        TEST(test_not_waiting_for_the_store),
        TEST(test_not_waiting_for_a_fetch),
        TEST(test_out_of_range),
        TEST(test_sizes_at_create),
        TEST(test_resize),
        TEST(test_dirty_limit),
        TEST(test_status_numbers),
        TEST(test_a_flush_is_one_put),
        TEST(test_a_warm_cache_makes_no_requests),
        TEST(test_a_commit_is_an_instant),
        TEST(test_blocks_of_one_chunk_in_many_hands),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
