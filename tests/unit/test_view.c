/* Volumes that are only read: of a snapshot, of the newest instant, and following the writer; over
 * a bucket in memory. Nothing is written to it, and no read is of two instants. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "mem_volume.h"

#include "../../cache/offline.h"
#include "../../cache/snapshot.h"
#include "../../store/log.h"

#include <sys/stat.h>

/* A machine that only reads; the writer is `volume`. */
static struct store *reader_store;
static struct volume *reader;
static struct volume_config reader_cfg;

static int setup(void **state)
{
    int r = volume_setup(state);

    reader_cfg = cfg;
    reader_cfg.read_only = true;
    reader_cfg.readahead_bytes = 0;
    reader = NULL;
    cfg.gc = false; /* only when asked to */
    return r;
}

static void close_reader(void)
{
    assert_int_equal(volume_close(reader, false), 0);
    store_free(reader_store);
    reader = NULL;
}

static int teardown(void **state)
{
    if (reader)
        close_reader();
    return volume_teardown(state);
}

static unsigned tries(const char *verbs)
{
    unsigned n = 0;

    scope_lock(&mem.lock);
    for (; *verbs; verbs++)
        n += mem.tries[(int)*verbs];
    return n;
}

static int try_view(void)
{
    reader_store = mem_store(&mem, reader_cfg.clock ? reader_cfg.clock : &clock_system);
    int r = volume_open(reader_store, &reader_cfg, &reader);
    if (r < 0) {
        store_free(reader_store);
        reader = NULL;
    }
    return r;
}

static void view_of(const char *snapshot, int64_t follow_ms)
{
    reader_cfg.snapshot = snapshot;
    reader_cfg.follow_ms = follow_ms;
    assert_int_equal(try_view(), 0);
}

static struct volume_status view_status(void)
{
    struct volume_status st;

    volume_get_status(reader, &st);
    return st;
}

static int check_view(uint64_t offset, size_t len, uint64_t tag)
{
    struct volume *writer = volume;

    volume = reader;
    int r = check_pattern(offset, len, tag, true);
    volume = writer;
    return r;
}

static void see(uint64_t offset, size_t len, uint64_t tag)
{
    assert_int_equal(check_view(offset, len, tag), 0);
}

static void put_and_flush(uint64_t offset, size_t len, uint64_t tag)
{
    put(offset, len, tag);
    assert_int_equal(volume_flush(volume, true), 0);
}

/* The first segment, which everything of was overwritten. What was flushed is dead when it is in
 * the writer's index, too, a moment later. */
static void reclaim_the_first(void)
{
    static const char key[] = "log/0000000000000402";
    bool there = true;

    for (unsigned i = 0; there && i < 100; i++) {
        put_and_flush(900 * MIB + i * 4096, 4096, 7);
        assert_int_equal(volume_collect(volume), 0);
        scope_lock(&mem.lock);
        there = mem_find(&mem, key) != NULL;
    }
    assert_false(there);
}

static int snapshot(const char *name)
{
    struct store *s = mem_store(&mem, &clock_system);
    int r = snapshot_create(s, name);

    store_free(s);
    return r;
}

static int delete_snapshot(const char *name)
{
    struct store *s = mem_store(&mem, &clock_system);
    int r = snapshot_delete(s, name);

    store_free(s);
    return r;
}

static void roll_back(const char *name)
{
    char before[PIN_NAME_MAX];
    struct store *s = mem_store(&mem, &clock_system);

    assert_int_equal(snapshot_rollback(s, name, before), 0);
    store_free(s);
}

/* ------------------------------------------------------------------ one instant */

static void test_a_snapshot(void **state)
{
    (void)state;
    create_and_attach(GIB);
    put_and_flush(0, 4 * MIB, 1);
    assert_int_equal(snapshot("monday"), 0);
    put_and_flush(0, 2 * MIB, 2);
    unsigned writes = tries("PD");
    view_of("monday", 0);
    see(0, 4 * MIB, 1);
    see(100 * MIB, MIB, 0);
    assert_string_equal(view_status().snapshot, "monday");
    assert_true(view_status().read_only && view_status().state == VOLUME_OK);
    close_reader();

    unsigned all = tries("PDGL");
    view_of("monday", 0); /* warm: the superblock, the pin */
    see(0, 4 * MIB, 1);
    close_reader();
    assert_in_range(tries("PDGL") - all, 1, 2);
    assert_int_equal(tries("PD"), writes);

    assert_int_equal(delete_snapshot("monday"), 0); /* the same name, for something else */
    assert_int_equal(snapshot("monday"), 0);
    view_of("monday", 0);
    see(0, 2 * MIB, 2);
    see(2 * MIB, 2 * MIB, 1);
    reader_cfg.snapshot = "tuesday";
    struct volume *first = reader;
    struct store *first_store = reader_store;
    assert_int_equal(try_view(), -ENOENT);
    view_of("monday", 0); /* twice on one machine */
    see(0, 2 * MIB, 2);
    assert_string_not_equal(view_status().cache_dir, "");
    close_reader();
    reader = first;
    reader_store = first_store;
    put_and_flush(0, MIB, 3); /* nobody was fenced */
}

static void test_nothing_is_written(void **state)
{
    uint8_t block[BLOCK] = {1};
    struct volume_defrag d;
    uint64_t at;

    (void)state;
    create_and_attach(GIB);
    put_and_flush(MIB, MIB, 1);
    unsigned writes = tries("PD");
    view_of(NULL, 0);
    assert_int_equal(volume_write(reader, block, BLOCK, 0, true), -EROFS);
    assert_int_equal(volume_write(reader, block, BLOCK, 0, false), -EROFS);
    assert_int_equal(volume_discard(reader, 0, 64 * MIB), -EROFS);
    assert_int_equal(volume_resize(reader, 2 * GIB), -EROFS);
    assert_int_equal(volume_shrink(reader, 512 * MIB, true), -EROFS);
    assert_int_equal(volume_collect(reader), -EROFS);
    assert_int_equal(volume_defrag(reader, 0, GIB, &d), -EROFS);
    assert_int_equal(volume_flush(reader, true), 0);
    assert_int_equal(volume_drain(reader), 0);
    assert_int_equal(volume_seek(reader, 0, true, &at), 0);
    assert_int_equal(at, MIB);
    assert_int_equal(store_put(reader_store, "log/x", block, 1, 0, 0), -EROFS);
    assert_int_equal(store_delete(reader_store, (const char *const[]){"volume"}, 1, 0), -EROFS);
    close_reader();
    assert_int_equal(tries("PD"), writes);
}

static void test_the_newest_instant(void **state)
{
    (void)state;
    create(GIB);
    assert_int_equal(try_view(), -ENODATA);
    attach();
    put_and_flush(0, MIB, 1);
    put(0, MIB, 2); /* not flushed: nobody has it */
    view_of(NULL, 0);
    uint64_t seq = view_status().instant_seq;
    assert_int_equal(volume_flush(volume, true), 0);
    see(0, MIB, 1);
    unsigned all = tries("PDGL");
    see(0, MIB, 1);
    assert_int_equal(tries("PDGL"), all);
    close_reader();
    view_of(NULL, 0); /* with the cache of the one before */
    see(0, MIB, 2);
    assert_int_equal(view_status().instant_seq, seq + 1);
    close_reader();
    for (unsigned i = 0; i < 300; i++)
        put_and_flush(i * MIB, 4096, i + 3);
    assert_int_equal(detach(false), 0); /* a checkpoint */
    view_of(NULL, 0);
    see(299 * MIB, 4096, 302);
    see(4096, MIB - 4096, 2);
}

/* A writer that reclaims without patience takes away what a view shows that has no snapshot. */
static void test_what_is_reclaimed_is_gone(void **state)
{
    (void)state;
    create_and_attach(GIB);
    put_and_flush(0, 8 * MIB, 1);
    assert_int_equal(snapshot("monday"), 0);
    view_of("monday", 0);
    struct volume *kept = reader;
    struct store *kept_store = reader_store;
    view_of(NULL, 0);
    see(0, MIB, 1);
    put_and_flush(0, 8 * MIB, 2);
    assert_int_equal(volume_collect(volume), 0);
    see(6 * MIB, MIB, 1); /* the snapshot holds it */
    assert_int_equal(delete_snapshot("monday"), 0);
    reclaim_the_first();
    see(0, MIB, 1); /* cached */
    assert_int_equal(check_view(4 * MIB, MIB, 1), -EIO);
    assert_int_equal(view_status().state, VOLUME_GONE);
    close_reader();
    reader = kept;
    reader_store = kept_store;
    assert_int_equal(view_status().state, VOLUME_OK);
    assert_int_equal(check_view(4 * MIB, MIB, 1), -EIO);
    assert_int_equal(view_status().state, VOLUME_GONE);
    put_and_flush(0, MIB, 3);
}

/* ------------------------------------------------------------------ following */

static bool sees(uint64_t offset, size_t len, uint64_t tag)
{
    return check_view(offset, len, tag) == 0;
}

static void test_following(void **state)
{
    uint64_t at;

    (void)state;
    create_and_attach(GIB);
    put_and_flush(0, 4 * MIB, 1);
    unsigned writes = tries("PD");
    view_of(NULL, 10);
    see(0, 4 * MIB, 1);
    assert_int_equal(tries("PD"), writes);
    put_and_flush(MIB, MIB, 2);
    await(sees(MIB, MIB, 2));
    see(0, MIB, 1);
    assert_int_equal(volume_discard(volume, 0, 512 * MIB), 0); /* more than is in memory */
    assert_int_equal(volume_flush(volume, true), 0);
    await(sees(0, 4 * MIB, 0));
    assert_int_equal(view_status().allocated_bytes, 0);
    assert_int_equal(volume_seek(reader, 0, true, &at), -ENXIO);
    assert_int_equal(volume_resize(volume, 2 * GIB), 0);
    assert_int_equal(volume_flush(volume, true), 0);
    await(volume_size_bytes(reader) == 2 * GIB);
    put_and_flush(2 * GIB - MIB, MIB, 3);
    await(sees(2 * GIB - MIB, MIB, 3));
    assert_int_equal(volume_shrink(volume, GIB, true), 0);
    await(volume_size_bytes(reader) == GIB);
    assert_int_equal(check_view(2 * GIB - MIB, MIB, 3), -EINVAL);
    for (unsigned i = 0; i < 600; i++) /* checkpoints, and more than is read one by one */
        put_and_flush(i * MIB, 4096, i + 4);
    await(sees(599 * MIB, 4096, 603));
    for (unsigned i = 0; i < 600; i++)
        see(i * MIB, 4096, i + 4);
    see(0, 4096, 4);
    assert_int_equal(view_status().allocated_bytes, 600 * 4096);
    close_reader(); /* warm */
    view_of(NULL, 10);
    see(0, 4096, 4);
    assert_int_equal(detach(false), 0);
    unsigned before = tries("L");
    int64_t began = clock_system.now_ms();
    attach(); /* another epoch */
    put_and_flush(0, MIB, 5);
    await(sees(0, MIB, 5));
    /* the follower lists by itself at every tenth look */
    assert_in_range(tries("L") - before, 0, 8 + (clock_system.now_ms() - began) / 100);
}

static void test_following_a_rollback(void **state)
{
    (void)state;
    create_and_attach(GIB);
    put_and_flush(0, 8 * MIB, 1);
    assert_int_equal(snapshot("monday"), 0);
    put_and_flush(MIB, MIB, 2);
    put_and_flush(100 * MIB, MIB, 3);
    view_of(NULL, 10);
    see(0, MIB, 1);
    see(MIB, MIB, 2);
    see(100 * MIB, MIB, 3);
    assert_int_equal(detach(false), 0);
    roll_back("monday");
    await(sees(MIB, MIB, 1));
    see(100 * MIB, MIB, 0);
    see(0, 8 * MIB, 1);
    assert_int_equal(view_status().allocated_bytes, 8 * MIB);
    attach();
    put_and_flush(0, MIB, 4);
    await(sees(0, MIB, 4));
}

/* What it has not looked at yet is gone, all of it: it starts over, and keeps what did not change.
 */
static void test_following_from_far_behind(void **state)
{
    (void)state;
    create_and_attach(GIB);
    put_and_flush(0, 8 * MIB, 1);
    put_and_flush(64 * MIB, 4 * MIB, 1);
    view_of(NULL, 3600000);
    see(0, MIB, 1);
    see(64 * MIB, MIB, 1);
    for (unsigned i = 0; i < 10; i++)
        put_and_flush(0, 8 * MIB, i + 2);
    reclaim_the_first();
    see(0, MIB, 1);
    unsigned misses = (unsigned)view_status().misses;
    see(4 * MIB, MIB, 11); /* whoever finds nothing there any more, looks at once */
    see(0, MIB, 11);
    assert_int_equal(view_status().misses - misses, 3 * MIB / BLOCK); /* one of them in vain */
    see(64 * MIB, MIB, 1);
    assert_int_equal(view_status().misses - misses, 3 * MIB / BLOCK);
    assert_int_equal(view_status().state, VOLUME_OK);
}

/* A hole in the bucket is told from what is only old. */
static void test_following_over_a_loss(void **state)
{
    char key[STORE_KEY_MAX];

    (void)state;
    create_and_attach(GIB);
    put_and_flush(0, 8 * MIB, 1);
    view_of(NULL, 3600000);
    see(0, MIB, 1);
    uint64_t seq = view_status().instant_seq;
    for (uint64_t lost = seq - 2; lost <= seq; lost++) {
        log_key(lost, key);
        mem_remove(&mem, key);
    }
    assert_int_equal(check_view(4 * MIB, MIB, 1), -EIO);
    assert_int_equal(view_status().state, VOLUME_GONE);
    see(0, MIB, 1);
}

/* ------------------------------------------------------------------ amid writes */

enum { GENERATIONS = 300, AT = 128 * 1024, READERS = 2 };

static atomic_bool written;

/* The generation, none older than `seen`, whose pattern this is; 0: none's. */
static uint64_t generation_of(const uint8_t *buf, uint8_t *want, uint64_t seen)
{
    for (uint64_t g = seen; g <= GENERATIONS; g++) {
        pattern(want, 8, AT, g);
        if (memcmp(buf, want, 8) != 0)
            continue;
        pattern(want, MIB, AT, g);
        return memcmp(buf, want, MIB) == 0 ? g : 0;
    }
    return 0;
}

/* The MiB is of one generation, and none is older than the last one seen. */
static int read_generations(void)
{
    scope_free uint8_t *buf = aligned_alloc(BLOCK, MIB), *want = malloc(MIB);
    uint64_t seen = 1;

    for (uint64_t round = 0; !written || seen < GENERATIONS; round++) {
        int r = volume_read(reader, buf, MIB, AT, true);
        if (r == 0 && (seen = generation_of(buf, want, seen)) == 0)
            r = -EILSEQ;
        if (r == 0 && round % 4 == 0) /* so that the cache is never quiet */
            r = volume_read(reader, buf, MIB, (8 + round / 4 % 24) * MIB, true);
        if (r < 0)
            return r;
    }
    return 0;
}

static void test_each_read_is_one_instant(void **state)
{
    struct caller callers[READERS];

    (void)state;
    cfg.cache_bytes = 64 * MIB;
    create_and_attach(GIB);
    put_and_flush(8 * MIB, 24 * MIB, 1);
    put_and_flush(AT, MIB, 1);
    written = false;
    reader_cfg.cache_bytes = 8 * MIB;
    view_of(NULL, 1);
    for (unsigned i = 0; i < READERS; i++)
        call(&callers[i], read_generations);
    for (uint64_t g = 2; g <= GENERATIONS; g++) {
        put_and_flush(AT, MIB, g);
        if (g % 50 == 0)
            assert_int_equal(volume_collect(volume), 0);
    }
    written = true;
    for (unsigned i = 0; i < READERS; i++)
        assert_int_equal(called(&callers[i]), 0);
    assert_int_equal(view_status().state, VOLUME_OK);
    assert_int_equal(view_status().allocated_bytes, 25 * MIB);
}

/* ------------------------------------------------------------------ failures */

struct nth_request {
    unsigned left; /* tries until the one that fails */
    enum mem_act act;
};

static enum mem_act fail_nth(void *ctx, char verb, const char *key)
{
    struct nth_request *n = ctx;

    (void)verb, (void)key;
    return n->left > 0 && --n->left == 0 ? n->act : MEM_OK;
}

/* The volume, once as it was and once as it is: whatever fails, it is one of them, or an error. */
static bool is_right(void)
{
    int as_new = check_view(0, 2 * MIB, 2);

    return as_new == 0 || as_new == -EIO || check_view(0, 2 * MIB, 1) == 0;
}

static void view_with_failing(struct nth_request *n, const char *snapshot_name, int64_t follow_ms)
{
    reader_cfg.snapshot = snapshot_name;
    reader_cfg.follow_ms = follow_ms;
    mem_retry(&mem, fail_nth, n);
    if (try_view() == 0) {
        assert_true(is_right());
        mem_retry(&mem, NULL, NULL);
        if (follow_ms)
            await(check_view(0, 2 * MIB, 2) == 0);
        else
            assert_int_equal(check_view(0, 2 * MIB, snapshot_name ? 1 : 2), 0);
        close_reader();
    }
    mem_retry(&mem, NULL, NULL);
}

static void test_every_request_fails_once(void **state)
{
    const enum mem_act acts[] = {MEM_FAIL, MEM_REFUSE};

    (void)state;
    create_and_attach(GIB);
    put_and_flush(0, 2 * MIB, 1);
    assert_int_equal(snapshot("monday"), 0);
    for (unsigned i = 0; i < 3; i++)
        put_and_flush((3 + i) * MIB, 4096, 9);
    put_and_flush(0, 2 * MIB, 2);
    assert_int_equal(detach(false), 0);
    reader_cfg.clock = &mem_clock;
    for (unsigned act = 0; act < ARRAY_SIZE(acts); act++) {
        struct nth_request n = {.left = 0};
        for (unsigned nth = 1; n.left == 0 && nth < 200; nth++) {
            lose_cache();
            mkdir(cache_dir, 0700);
            n = (struct nth_request){nth, acts[act]};
            view_with_failing(&n, "monday", 0);
        }
        assert_true(n.left > 0);
        for (unsigned nth = 1; nth < 16; nth++) { /* this one goes on to ask */
            lose_cache();
            mkdir(cache_dir, 0700);
            n = (struct nth_request){nth, acts[act]};
            view_with_failing(&n, NULL, 1000);
        }
    }
}

/* While it follows: the writer goes on, and each request of the follower's fails in turn. */
static void test_every_request_of_a_follower_fails(void **state)
{
    struct nth_request n = {.left = 0};

    (void)state;
    create_and_attach(GIB);
    put_and_flush(0, MIB, 1);
    reader_cfg.clock = &mem_clock; /* it looks all the time, and forgives soon */
    view_of(NULL, 1000);
    for (unsigned nth = 1; nth < 40; nth++) {
        put_and_flush(nth * MIB, MIB, 2);
        put(0, MIB, nth + 1);
        n = (struct nth_request){nth, nth % 2 ? MEM_REFUSE : MEM_FAIL};
        assert_int_equal(volume_flush(volume, true), 0);
        mem_retry(&mem, fail_nth, &n);
        await(sees(0, MIB, nth + 1));
        mem_retry(&mem, NULL, NULL);
        see(nth * MIB, MIB, 2);
    }
}

static void test_a_damaged_cache(void **state)
{
    char path[512];

    (void)state;
    create_and_attach(GIB);
    put_and_flush(0, 4 * MIB, 1);
    view_of(NULL, 0);
    see(0, 4 * MIB, 1);
    snprintf(path, sizeof path, "%s/index.db", view_status().cache_dir);
    close_reader();
    int fd = open(path, O_WRONLY);
    for (off_t at = 100; at < 64 * 1024; at += 1000)
        assert_int_equal(pwrite(fd, "x", 1, at), 1);
    close(fd);
    view_of(NULL, 0);
    see(0, 4 * MIB, 1);
    snprintf(path, sizeof path, "%s/slots", view_status().cache_dir);
    close_reader();
    assert_int_equal(unlink(path), 0);
    view_of(NULL, 0);
    see(0, 4 * MIB, 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_snapshot),
        TEST(test_nothing_is_written),
        TEST(test_the_newest_instant),
        TEST(test_what_is_reclaimed_is_gone),
        TEST(test_following),
        TEST(test_following_a_rollback),
        TEST(test_following_from_far_behind),
        TEST(test_following_over_a_loss),
        TEST(test_each_read_is_one_instant),
        TEST(test_every_request_fails_once),
        TEST(test_every_request_of_a_follower_fails),
        TEST(test_a_damaged_cache),
    };

    cmocka_set_test_filter(getenv("ONLY"));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
