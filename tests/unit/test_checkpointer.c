/* Checkpoints in the background of a volume: when, what they hold, what they leave behind. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "mem_volume.h"

#include "../../cache/volume_internal.h"

enum { SIZE = 160 * 1024 * 1024, NBLOCKS = SIZE / BLOCK };

static uint64_t tags[NBLOCKS]; /* 0: zeros */
static uint64_t rng;

static int setup(void **state)
{
    memset(tags, 0, sizeof tags);
    rng = 1;
    int r = volume_setup(state);
    cfg.readahead_bytes = 0;
    return r;
}

/* So many commits of a block or two each, in [first, end). */
static void commit_in(uint64_t first, uint64_t end, int n)
{
    for (int i = 0; i < n; i++) {
        uint64_t block = first + draw(&rng, end - first), tag = 1 + draw(&rng, 1000);
        put(block * BLOCK, BLOCK, tag);
        tags[block] = tag;
        if (draw(&rng, 4) == 0) {
            block = first + draw(&rng, end - first);
            assert_int_equal(volume_discard(volume, block * BLOCK, BLOCK), 0);
            tags[block] = 0;
        }
        assert_int_equal(volume_flush(volume, true), 0);
    }
}

static void commit_many(int n)
{
    commit_in(0, NBLOCKS, n);
}

static void check(void)
{
    uint64_t n = 0;

    for (uint64_t block = 0; block < NBLOCKS; block++) {
        n += tags[block] != 0;
        if (tags[block])
            expect(block * BLOCK, BLOCK, tags[block]);
    }
    assert_int_equal(volume_allocated_bytes(volume), n * BLOCK);
}

static void attach_cold(void)
{
    assert_int_equal(detach(false), 0);
    lose_cache();
    attach();
}

static void test_attaching_reads_what_follows_only(void **state)
{
    (void)state;
    create_and_attach(SIZE);
    commit_many(200);
    assert_int_equal(status().checkpoint_seq, 0); /* so much is read in a moment */
    commit_many(200);
    await(status().checkpoint_seq != 0);
    commit_many(20);
    assert_int_equal(detach(false), 0);
    lose_cache();
    unsigned before = mem.tries['G'];
    attach();
    assert_in_range(mem.tries['G'] - before, 1, 100); /* not 420 */
    assert_true(status().checkpoint_seq != 0);
    check();
    assert_int_equal(detach(false), 0);
}

static void test_old_ones_are_removed(void **state)
{
    uint64_t last = 0;

    (void)state;
    create_and_attach(SIZE);
    for (int i = 0; i < 3; i++) {
        for (int tries = 0; status().checkpoint_seq == last && tries < 20; tries++)
            commit_many(100);
        await(status().checkpoint_seq != last);
        last = status().checkpoint_seq;
    }
    attach_cold();
    assert_in_range(mem_count(&mem, "map/"), 2, 3);
    check();
    /* another attachment knows nothing of its predecessor's parts, and takes them away in time */
    last = status().checkpoint_seq;
    for (int i = 0; i < 2; i++) {
        for (int tries = 0; status().checkpoint_seq == last && tries < 20; tries++)
            commit_many(100);
        await(status().checkpoint_seq != last);
        last = status().checkpoint_seq;
    }
    attach_cold();
    assert_in_range(mem_count(&mem, "map/"), 2, 3);
    assert_in_range(mem_count(&mem, "part/"), 1, 4);
    check();
    assert_int_equal(detach(false), 0);
}

static enum mem_act fail_kind(void *ctx, char verb, const char *key)
{
    return verb == 'P' && strncmp(key, ctx, strlen(ctx)) == 0 ? MEM_REFUSE : MEM_OK;
}

/* It is an optimization: the volume goes on without, and tries again later. */
static void test_one_that_fails_harms_nobody(void **state)
{
    static const char *const kinds[] = {"part/", "map/"};

    (void)state;
    create_and_attach(SIZE);
    for (int k = 0; k < 2; k++) {
        uint64_t last = status().checkpoint_seq;
        mem_retry(&mem, fail_kind, (void *)(uintptr_t)kinds[k]);
        commit_many(600);
        assert_int_equal(status().checkpoint_seq, last);
        assert_int_equal(status().state, VOLUME_OK);
        mem_retry(&mem, NULL, NULL);
        for (int tries = 0; status().checkpoint_seq == last && tries < 20; tries++)
            commit_many(100);
        await(status().checkpoint_seq != last);
    }
    attach_cold();
    check();
    assert_int_equal(detach(false), 0);
}

static enum mem_act refuse_maps(void *ctx, char verb, const char *key)
{
    atomic_int *refused = ctx;

    if (verb != 'P' || strncmp(key, "map/", 4) != 0)
        return MEM_OK;
    ++*refused;
    return MEM_REFUSE;
}

/* Two parts: of what changed before a failure, and not since, the next one must not take the old.
 */
static void test_a_failed_one_forgets_nothing(void **state)
{
    atomic_int refused = 0;

    (void)state;
    create_and_attach(SIZE);
    for (uint64_t block = 0; block < NBLOCKS;
         block += 2) { /* more entries than fit into one part */
        put(block * BLOCK, BLOCK, 7);
        tags[block] = 7;
    }
    for (int tries = 0; status().checkpoint_seq == 0 && tries < 20; tries++)
        commit_many(100);
    await(status().checkpoint_seq != 0);
    uint64_t last = status().checkpoint_seq;
    assert_int_equal(mem_count(&mem, "part/"), 2);
    mem_retry(&mem, refuse_maps, &refused);
    commit_in(0, 1000, 20);
    for (int tries = 0; refused == 0 && tries < 40; tries++)
        commit_in(NBLOCKS - 1000, NBLOCKS, 100);
    await(refused > 0);
    assert_int_equal(status().checkpoint_seq, last);
    mem_retry(&mem, NULL, NULL);
    for (int tries = 0; status().checkpoint_seq == last && tries < 40; tries++)
        commit_in(NBLOCKS - 1000, NBLOCKS, 100);
    await(status().checkpoint_seq != last);
    attach_cold();
    check();
    assert_int_equal(detach(false), 0);
}

static enum mem_act hang_on_maps(void *ctx, char verb, const char *key)
{
    (void)ctx;
    return verb == 'P' && strncmp(key, "map/", 4) == 0 ? MEM_HANG : MEM_OK;
}

/* What is committed while a checkpoint is being stored is in the next one. */
static void test_commits_go_on_meanwhile(void **state)
{
    (void)state;
    create_and_attach(SIZE);
    for (int round = 0; round < 2; round++) {
        uint64_t last = status().checkpoint_seq;
        mem_retry(&mem, hang_on_maps, NULL);
        commit_many(400);
        mem_await_hanging(&mem, 1);
        commit_many(100);
        mem_retry(&mem, NULL, NULL);
        await(status().checkpoint_seq != last);
    }
    attach_cold();
    check();
    assert_int_equal(detach(false), 0);
}

static void test_closing_writes_one_if_it_pays(void **state)
{
    (void)state;
    create_and_attach(SIZE);
    commit_many(20);
    assert_int_equal(detach(false), 0);
    assert_int_equal(mem_count(&mem, "map/"), 0);
    attach();
    commit_many(200);
    assert_int_equal(status().checkpoint_seq, 0);
    assert_int_equal(detach(false), 0);
    assert_int_equal(mem_count(&mem, "map/"), 1);
    lose_cache();
    attach();
    check();
    assert_int_equal(detach(false), 0);
}

/* ------------------------------------------------------------------ the readers' grace time */

enum { GRACE_MS = 300000 };

static _Atomic int64_t stands_at_ms; /* time passes when the test says so */

static int64_t standing_now(void)
{
    return stands_at_ms;
}

static bool standing_wait(pthread_cond_t *cond, pthread_mutex_t *lock, int64_t until_ms)
{
    clock_system.wait_until(cond, lock, clock_system.now_ms() + 1);
    return stands_at_ms < until_ms;
}

static bool is_stored(uint64_t seq)
{
    char key[STORE_KEY_MAX];

    log_key(seq, key);
    scope_lock(&mem.lock);
    return mem_find(&mem, key) != NULL;
}

/* Leaves a segment that the map needs no more, nor the newest root; its number. */
static uint64_t leave_dead_segment(void)
{
    uint64_t dead, root = 0;

    put(0, CHUNK, 1);
    assert_int_equal(volume_flush(volume, true), 0);
    dead = status().log_seq;
    put(0, CHUNK, 2);
    assert_int_equal(volume_flush(volume, true), 0);
    await(checkpointer_root(volume, &root) == 0 && root > dead); /* and there was a sweep */
    return dead;
}

/* What nothing needs any more stays for readers elsewhere, from the root that does without it on.
 */
static void test_dead_segments_stay_for_the_grace_time(void **state)
{
    struct clock standing = {standing_now, clock_system.wall_ms, standing_wait};
    uint64_t dead, root = 0;

    (void)state;
    stands_at_ms = 1000000;
    cfg.clock = &standing;
    cfg.gc = false; /* nobody else asks for checkpoints */
    cfg.gc_grace_ms = GRACE_MS;
    create_and_attach(SIZE);
    dead = leave_dead_segment();
    assert_true(is_stored(dead));
    stands_at_ms += GRACE_MS - 1;
    assert_int_equal(checkpointer_root(volume, &root), 0);
    assert_true(is_stored(dead));
    stands_at_ms += 1;
    await(!is_stored(dead));
    expect(0, CHUNK, 2);
    assert_int_equal(detach(false), 0);
}

/* Who was fenced, and does not know it yet, finds out before it deletes anything. */
static void test_a_fenced_one_deletes_nothing(void **state)
{
    (void)state;
    cfg.gc = false;
    create_and_attach(SIZE);
    uint64_t dead = leave_dead_segment();
    take_over();
    assert_int_equal(status().state, VOLUME_OK);
    assert_int_equal(checkpointer_sweep(volume), -ESTALE);
    assert_true(is_stored(dead));
    assert_int_equal(status().state, VOLUME_FENCED);
    detach(false);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, volume_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_attaching_reads_what_follows_only),
        TEST(test_old_ones_are_removed),
        TEST(test_one_that_fails_harms_nobody),
        TEST(test_a_failed_one_forgets_nothing),
        TEST(test_commits_go_on_meanwhile),
        TEST(test_closing_writes_one_if_it_pays),
        TEST(test_dead_segments_stay_for_the_grace_time),
        TEST(test_a_fenced_one_deletes_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
