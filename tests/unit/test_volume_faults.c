/* The volume when things go wrong: taken over, cut off, stopped in the middle, short of slots. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "mem_volume.h"

#include "../../cache/volume_internal.h"
#include "../../store/checkpoint.h"

/* ------------------------------------------------------------------ attaching */

static void test_attach_that_failed_leaves_the_size(void **state)
{
    (void)state;
    create(64 * MIB);
    mem_retry(&mem, script_fail_verbs, "P");
    /* the claim is tried for so long; the clock of the store jumps */
    store = mem_store(&mem, &mem_clock);
    assert_int_equal(volume_open(store, &cfg, &volume), -ETIMEDOUT);
    store_free(store);
    mem_retry(&mem, NULL, NULL);
    attach();
    assert_int_equal(volume_size_bytes(volume), 64 * MIB);
    put(60 * MIB, 100, 1);
    assert_int_equal(detach(false), 0);
}

/* … also if the claim got there, and only its answer was lost. */
static enum mem_act lose_claims(void *ctx, char verb, const char *key)
{
    (void)ctx;
    if (verb == 'P')
        return MEM_LOSE;
    return strncmp(key, "log/0", 5) == 0 ? MEM_FAIL : MEM_OK;
}

static void test_attach_whose_claim_was_lost_leaves_the_size(void **state)
{
    (void)state;
    create(64 * MIB);
    mem_retry(&mem, lose_claims, NULL);
    store = mem_store(&mem, &mem_clock);
    assert_int_equal(volume_open(store, &cfg, &volume), -ETIMEDOUT);
    store_free(store);
    mem_retry(&mem, NULL, NULL);
    attach();
    assert_int_equal(volume_size_bytes(volume), 64 * MIB);
    assert_int_equal(status().epoch, 2);
    assert_int_equal(detach(false), 0);
}

/* The first PUT of one key. */
static enum mem_act hang_once(void *ctx, char verb, const char *key)
{
    char *wanted = ctx;

    if (verb != 'P' || strcmp(key, wanted) != 0)
        return MEM_OK;
    *wanted = 0;
    return MEM_HANG;
}

static int nothing(void *ctx, const struct header *last, const struct entry *entries,
                   size_t nentries, const struct log_position *pos)
{
    (void)ctx, (void)last, (void)entries, (void)nentries, (void)pos;
    return 0;
}

static void put_size(struct log *log, uint64_t size_bytes)
{
    uint8_t buf[HEADER_BYTES];
    uint64_t seq = log_reserve(log, 1);

    assert_int_equal(
        log_append(log, seq, seq, seq, size_bytes / BLOCK_BYTES, NULL, 0, buf, sizeof buf), 0);
}

/* While our claim is under way, its number is written, goes into a checkpoint of just that number,
 * and is deleted. So the claim is stored, and void; what is behind it must be found. */
static void test_a_claim_that_came_to_nothing(void **state)
{
    struct log_position pos = {.next = 1, .size_blocks = 64 * MIB / BLOCK_BYTES};
    uint8_t nonce[UUID_BYTES] = {1};
    char key[STORE_KEY_MAX], hang[STORE_KEY_MAX];
    struct checkpoint *cp;
    struct part_list list;
    struct superblock sb;
    struct caller other;
    uint64_t missing, bytes;
    struct log *log;

    (void)state;
    create(64 * MIB);
    struct store *s = mem_store(&mem, &mem_clock);
    assert_int_equal(superblock_load(s, &sb, 0), 0);
    assert_int_equal(log_new(s, &sb, &mem_clock, &log), 0);
    assert_int_equal(log_replay(log, &pos, nothing, NULL, 0, &missing), 0);
    assert_int_equal(log_claim(log, &pos, missing, nonce, "the writer", 0), 0);
    pos.seq = pos.next++;
    log_key(pos.seq, key);
    memcpy(hang, key, sizeof hang);
    mem_retry(&mem, hang_once, hang);
    call(&other, try_attach);
    mem_await_hanging(&mem, 1);
    put_size(log, 64 * MIB);
    assert_int_equal(checkpoint_new(log, &pos, 0, &cp), 0);
    assert_int_equal(checkpoint_finish(cp, &list, &bytes), 0);
    checkpoint_free(cp);
    free(list.parts);
    pthread_mutex_lock(&mem.lock);
    mem_remove(&mem, key);
    pthread_mutex_unlock(&mem.lock);
    put_size(log, 128 * MIB);
    mem_retry(&mem, NULL, NULL);
    assert_int_equal(called(&other), 0);
    assert_int_equal(volume_size_bytes(volume), 128 * MIB);
    assert_int_equal(detach(false), 0);
    log_free(log);
    store_free(s);
}

/* Growth that only this cache knows of, and blocks behind the old end. */
static void test_growth_is_kept_with_the_cache(void **state)
{
    (void)state;
    create_and_attach(4 * MIB);
    put(0, CHUNK, 1);
    assert_int_equal(volume_resize(volume, 64 * MIB), 0);
    put(63 * MIB, CHUNK, 2);
    assert_int_equal(detach(true), 0);
    attach();
    assert_int_equal(volume_size_bytes(volume), 64 * MIB);
    expect(63 * MIB, CHUNK, 2);
    assert_int_equal(volume_flush(volume, true), 0);
    assert_int_equal(detach(false), 0);
    lose_cache();
    attach();
    assert_int_equal(volume_size_bytes(volume), 64 * MIB);
    expect(0, CHUNK, 1);
    expect(63 * MIB, CHUNK, 2);
    assert_int_equal(detach(false), 0);
}

/* ------------------------------------------------------------------ taken over */

static atomic_uint nwaits;

static bool count_wait(pthread_cond_t *cond, pthread_mutex_t *lock, int64_t until_ms)
{
    nwaits++;
    return clock_system.wait_until(cond, lock, until_ms);
}

static void test_fenced(void **state)
{
    (void)state;
    create_and_attach(64 * MIB);
    put(0, CHUNK, 1);
    put(8 * MIB, CHUNK, 1);
    assert_int_equal(detach(false), 0);
    lose_cache();
    attach();
    expect(0, CHUNK, 1);
    take_over();
    put(CHUNK, CHUNK, 2);
    assert_int_equal(volume_flush(volume, true), -EIO);
    assert_int_equal(status().state, VOLUME_FENCED);
    assert_int_equal(volume_flush(volume, true), -EIO);
    assert_int_equal(volume_drain(volume), -EIO);
    assert_int_equal(write_pattern(CHUNK, CHUNK, 3, true), -EIO);
    assert_int_equal(write_pattern(CHUNK, 1, 3, false), -EIO);
    assert_int_equal(volume_discard(volume, 0, CHUNK), -EIO);
    assert_int_equal(volume_resize(volume, 128 * MIB), -EIO);
    expect(0, CHUNK, 1);       /* cached */
    expect(8 * MIB, CHUNK, 1); /* not */
    expect(CHUNK, CHUNK, 2);
    assert_int_equal(detach(false), -EIO);
}

/* Dirt that can go nowhere does not keep a thread awake. */
static void test_fenced_is_quiet(void **state)
{
    struct clock counting = clock_system;

    (void)state;
    counting.wait_until = count_wait;
    cfg.clock = &counting;
    cfg.writeback_ms = 1;
    cfg.uploads = 1;
    create_and_attach(64 * MIB);
    take_over();
    mem_retry(&mem, script_hang, "P");
    put(0, CHUNK, 1);
    mem_await_hanging(&mem, 1);
    put(CHUNK, CHUNK, 1);
    await(status().uploading_bytes == 2 * CHUNK);
    put(2 * CHUNK, CHUNK, 1);
    mem_retry(&mem, NULL, NULL);
    await(status().state == VOLUME_FENCED);
    assert_true(status().dirty_bytes > status().uploading_bytes);
    nwaits = 0;
    nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL);
    assert_in_range(nwaits, 0, 10);
    assert_int_equal(detach(false), -EIO);
}

/* A fork: what only this cache has, and a volume that went on without it. */
static void test_a_fork_is_refused(void **state)
{
    (void)state;
    create_and_attach(64 * MIB);
    put(0, CHUNK, 1);
    assert_int_equal(detach(true), 0);
    take_over();
    assert_int_equal(try_attach(), -ESTALE);
    cfg.discard_local = true;
    attach();
    expect(0, CHUNK, 0);
    assert_int_equal(volume_allocated_bytes(volume), 0);
    assert_int_equal(detach(false), 0);
}

/* ------------------------------------------------------------------ cut off */

static int flush(void)
{
    return volume_flush(volume, true);
}

static void test_outage_is_a_pause(void **state)
{
    struct caller c;

    (void)state;
    create_and_attach(64 * MIB);
    put(0, CHUNK, 1);
    assert_int_equal(volume_flush(volume, true), 0);
    mem_retry(&mem, script_fail, NULL);
    put(CHUNK, CHUNK, 2);
    call(&c, flush);
    await(status().state == VOLUME_STORE_UNREACHABLE);
    expect(0, CHUNK, 1);
    put(2 * CHUNK, CHUNK, 3);
    expect(2 * CHUNK, CHUNK, 3);
    assert_false(c.done);
    mem_retry(&mem, NULL, NULL);
    assert_int_equal(called(&c), 0);
    assert_int_equal(volume_flush(volume, true), 0);
    assert_int_equal(status().state, VOLUME_OK);
    assert_int_equal(status().dirty_bytes, 0);
    assert_int_equal(detach(false), 0);
}

/* Who must not wait for the store is told so; not where there is nothing to wait for. */
static void test_flush_without_waiting(void **state)
{
    (void)state;
    create_and_attach(4 * MIB);
    mem_retry(&mem, script_fail, NULL);
    assert_int_equal(volume_flush(volume, false), 0);
    put(0, CHUNK, 1);
    assert_int_equal(volume_flush(volume, false), -EAGAIN);
    mem_retry(&mem, NULL, NULL);
    assert_int_equal(volume_flush(volume, true), 0);
    mem_retry(&mem, script_fail, NULL);
    assert_int_equal(volume_flush(volume, false), 0);
    mem_retry(&mem, NULL, NULL);
    assert_int_equal(detach(false), 0);
    cfg.sync = SYNC_CACHE;
    attach();
    mem_retry(&mem, script_fail, NULL);
    put(0, CHUNK, 2);
    assert_int_equal(volume_flush(volume, false), 0);
    expect(0, CHUNK, 2);
    mem_retry(&mem, NULL, NULL);
    assert_int_equal(detach(false), 0);
}

/* A flush that timed out is not done later without its data. */
static void test_flush_times_out(void **state)
{
    (void)state;
    cfg.timeout_ms = 50;
    create_and_attach(64 * MIB);
    put(0, CHUNK, 1);
    mem_retry(&mem, script_hang, "P");
    assert_int_equal(volume_flush(volume, true), -ETIMEDOUT);
    assert_int_equal(volume_flush(volume, true), -ETIMEDOUT);
    assert_int_equal(status().dirty_bytes, CHUNK);
    expect(0, CHUNK, 1);
    mem_retry(&mem, NULL, NULL);
    await(status().dirty_bytes == 0); /* it was never given up */
    assert_int_equal(volume_flush(volume, true), 0);
    assert_int_equal(detach(false), 0);
    lose_cache();
    attach();
    expect(0, CHUNK, 1);
    assert_int_equal(detach(false), 0);
}

static uint64_t slots_disk_bytes(void)
{
    struct stat st;
    char path[512];

    snprintf(path, sizeof path, "%s/slots", status().cache_dir);
    assert_int_equal(stat(path, &st), 0);
    return (uint64_t)st.st_blocks * 512;
}

static void test_read_times_out(void **state)
{
    (void)state;
    create_and_attach(64 * MIB);
    put(0, CHUNK, 1);
    assert_int_equal(detach(false), 0);
    lose_cache();
    cfg.timeout_ms = 1000;
    attach();
    mem_retry(&mem, script_fail_verbs, "G");
    assert_int_equal(check_pattern(0, CHUNK, 1, true), -ETIMEDOUT);
    assert_int_equal(slots_disk_bytes(), 0); /* nothing came that would need it */
    assert_int_equal(write_pattern(100, 100, 2, true),
                     -ETIMEDOUT); /* needs the rest of its block */
    expect(8 * MIB, CHUNK, 0);    /* nothing to be asked for */
    put(4096, 4096, 2);
    expect(4096, 4096, 2);
    mem_retry(&mem, NULL, NULL);
    expect(0, 4096, 1);
    expect(4096, 4096, 2);
    expect(8192, CHUNK - 8192, 1);
    assert_int_equal(detach(false), 0);
}

/* The credentials have expired, and are renewed a moment later; or not. */
static enum mem_act script_deny(void *ctx, char verb, const char *key)
{
    atomic_int *times = ctx;

    (void)verb, (void)key;
    return (*times)-- > 0 ? MEM_DENY : MEM_OK;
}

static void test_read_waits_when_refused(void **state)
{
    atomic_int times = 1;

    (void)state;
    create_and_attach(64 * MIB);
    put(0, CHUNK, 1);
    assert_int_equal(detach(false), 0);
    lose_cache();
    cfg.timeout_ms = 200; /* the last try is made then */
    attach();
    mem_retry(&mem, script_deny, &times);
    expect(0, 4096, 1);
    assert_true(times < 1);
    times = 1000000;
    assert_int_equal(check_pattern(128 * KIB, 4096, 1, true), -ETIMEDOUT);
    mem_retry(&mem, NULL, NULL);
    expect(0, CHUNK, 1);
    assert_int_equal(detach(false), 0);
}

static void test_discards_give_disk_space_back(void **state)
{
    (void)state;
    cfg.cache_bytes = 256 * MIB;
    create_and_attach(64 * MIB);
    put(0, 64 * MIB, 1);
    assert_int_equal(volume_drain(volume), 0);
    assert_true(slots_disk_bytes() >= 64 * MIB);
    assert_int_equal(volume_discard(volume, 0, 64 * MIB), 0);
    assert_int_equal(volume_drain(volume), 0);
    await(slots_disk_bytes() <= 20 * MIB); /* TIDY_SLOTS are kept */
    expect(0, 64 * MIB, 0);
    put(32 * MIB, CHUNK, 2);
    expect(32 * MIB, CHUNK, 2);
    assert_int_equal(detach(false), 0);
}

/* ------------------------------------------------------------------ wrong bytes */

static void test_damaged_frames_are_never_served(void **state)
{
    uint8_t buf[4096];

    (void)state;
    cfg.compress = false;
    create_and_attach(64 * MIB);
    put(0, CHUNK, 1);
    assert_int_equal(detach(false), 0);
    lose_cache();
    attach();
    struct mem_object *o = mem_find(&mem, "log/0000000000000402");
    assert_non_null(o);
    o->data[o->len - 1] ^= 1; /* in the last frame: blocks 48 to 63 */
    expect(0, 48 * 4096, 1);
    for (unsigned block = 48; block < 64; block++)
        assert_int_equal(volume_read(volume, buf, 4096, block * 4096, true), -EIO);
    put(63 * 4096, 4096, 2);
    expect(63 * 4096, 4096, 2);
    assert_int_equal(volume_read(volume, buf, 4096, 62 * 4096, true), -EIO);
    o->data[o->len - 1] ^= 1;
    expect(0, 63 * 4096, 1);
    assert_int_equal(detach(false), 0);
}

static void test_a_missing_segment_is_an_error(void **state)
{
    (void)state;
    create_and_attach(64 * MIB);
    put(0, CHUNK, 1);
    assert_int_equal(detach(false), 0);
    lose_cache();
    attach();
    mem_remove(&mem, "log/0000000000000402");
    assert_int_equal(check_pattern(0, CHUNK, 1, true), -EIO);
    expect(CHUNK, CHUNK, 0);
    assert_int_equal(detach(false), 0);
}

/* ------------------------------------------------------------------ much to upload */

/* Though nobody flushes, nor waits, and the oldest of it is young. */
static void test_much_dirt_is_uploaded_at_once(void **state)
{
    (void)state;
    create_and_attach(64 * MIB);
    put(0, MIB, 1);
    assert_int_equal(status().commits, 0);
    put(MIB, MIB, 1); /* a quarter of --dirty-limit */
    await(status().commits == 1);
    await(status().dirty_bytes == 0);
    assert_int_equal(detach(false), 0);
}

/* ------------------------------------------------------------------ short of slots */

enum { SLOTS = 1024, REWRITERS = 4 };

static int rewrite(void)
{
    static atomic_uint nth;

    return write_pattern((500 + nth++) % SLOTS * (uint64_t)CHUNK, 4096, 2, true);
}

static bool somebody_waits_for_room(void)
{
    scope_lock(&volume->chunks.lock);
    return volume->pressed > 0;
}

/* All slots hold what is not in the bucket yet, and blocks of a commit are written again before it
 * is packed. */
static void test_no_slot_to_save_old_bytes_in(void **state)
{
    struct caller flusher, packed, second, writers[REWRITERS];

    (void)state;
    cfg.cache_bytes = 64 * MIB; /* has so many slots */
    cfg.uploads = 1;
    create_and_attach(GIB);
    mem_retry(&mem, script_hang, "P");
    put(0, 4096, 1);
    call(&flusher, flush);
    mem_await_hanging(&mem, 1);
    put(CHUNK, 4096, 1);
    call(&packed, flush);
    await(status().uploading_bytes == 2 * 4096); /* no packer is free any more */
    for (uint64_t i = 2; i < SLOTS; i++)
        put(i * CHUNK, 4096, 1);
    call(&second, flush);
    await(status().uploading_bytes == SLOTS * 4096);
    for (int i = 0; i < REWRITERS; i++)
        call(&writers[i], rewrite);
    await(somebody_waits_for_room());
    mem_retry(&mem, NULL, NULL);
    for (int i = 0; i < REWRITERS; i++)
        assert_int_equal(called(&writers[i]), 0);
    assert_int_equal(called(&flusher), 0);
    assert_int_equal(called(&packed), 0);
    assert_int_equal(called(&second), 0);
    assert_int_equal(detach(false), 0);
    lose_cache();
    attach();
    expect(499 * (uint64_t)CHUNK, 4096, 1);
    expect(500 * (uint64_t)CHUNK, 4096, 2);
    assert_int_equal(detach(false), 0);
}

enum { HOT_CHUNKS = 1200, HOT_WRITES = 2000, HOT_THREADS = 4 };

static int write_hot(void)
{
    static atomic_uint nth;
    uint64_t rng = mix(nth++) << 20;
    int r = 0;

    for (int i = 0; i < HOT_WRITES && r == 0; i++)
        r = write_pattern(draw(&rng, HOT_CHUNKS) * CHUNK, 4096, 1 + draw(&rng, 100), true);
    return r;
}

static void test_more_dirty_chunks_than_slots(void **state)
{
    struct caller writers[HOT_THREADS];

    (void)state;
    cfg.cache_bytes = 64 * MIB;
    create_and_attach(HOT_CHUNKS * (uint64_t)CHUNK);
    for (int i = 0; i < HOT_THREADS; i++)
        call(&writers[i], write_hot);
    for (int i = 0; i < HOT_THREADS; i++)
        assert_int_equal(called(&writers[i]), 0);
    assert_int_equal(detach(false), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, volume_setup, volume_teardown)

static atomic_uint nth_writer;

static int write_one_unit(void)
{
    return write_pattern(nth_writer++ * MIB, MIB, 3, true);
}

/* All at once: those who were let in count although nothing of theirs is dirty yet. */
static void test_dirty_limit_of_many(void **state)
{
    struct caller writers[12];

    (void)state;
    cfg.dirty_bytes = 2 * MIB;
    create_and_attach(64 * MIB);
    nth_writer = 0;
    mem_retry(&mem, script_hang, "P");
    for (size_t i = 0; i < ARRAY_SIZE(writers); i++)
        call(&writers[i], write_one_unit);
    await(status().dirty_bytes == 2 * MIB);
    mem_retry(&mem, NULL, NULL);
    for (size_t i = 0; i < ARRAY_SIZE(writers); i++) {
        while (!writers[i].done)
            assert_true(status().dirty_bytes <= 2 * MIB);
        assert_int_equal(called(&writers[i]), 0);
    }
    assert_int_equal(check_pattern(0, 12 * MIB, 3, true), 0);
    assert_int_equal(detach(false), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_attach_that_failed_leaves_the_size),
        TEST(test_attach_whose_claim_was_lost_leaves_the_size),
        TEST(test_a_claim_that_came_to_nothing),
        TEST(test_growth_is_kept_with_the_cache),
        TEST(test_fenced),
        TEST(test_fenced_is_quiet),
        TEST(test_a_fork_is_refused),
        TEST(test_outage_is_a_pause),
        TEST(test_flush_without_waiting),
        TEST(test_flush_times_out),
        TEST(test_read_times_out),
        TEST(test_read_waits_when_refused),
        TEST(test_discards_give_disk_space_back),
        TEST(test_damaged_frames_are_never_served),
        TEST(test_a_missing_segment_is_an_error),
        TEST(test_much_dirt_is_uploaded_at_once),
        TEST(test_no_slot_to_save_old_bytes_in),
        TEST(test_more_dirty_chunks_than_slots),
        TEST(test_dirty_limit_of_many),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
