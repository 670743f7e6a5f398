/*
 * One story, told again and again; each time another call of some kind fails: a file operation, a
 * write of SQLite's, a request, an allocation. Whoever asked gets an error, or nobody notices; and
 * afterwards everything that was acknowledged is there. LONG=1 leaves out no call.
 */
#include "nth.h"

#include <setjmp.h>
#include <cmocka.h>

#include "mem_volume.h"

#include <limits.h>
#include <signal.h>
#include <sys/statvfs.h>

enum {
    SIZE = 2 << 20,
    GROWN = SIZE + (1 << 20),
    OPS_MAX = 16,
    OLD_COMMITS = 5,  /* enough for a checkpoint at the end of the story */
    PATIENCE_S = 120, /* for one story; else it hangs */
};

/* ------------------------------------------------------------------ a fast clock */

enum { SPEED = 100 };

static int64_t fast_now(void)
{
    return clock_system.now_ms() * SPEED;
}

static bool fast_wait(pthread_cond_t *cond, pthread_mutex_t *lock, int64_t until_ms)
{
    return clock_system.wait_until(cond, lock, DIV_UP(until_ms, SPEED));
}

static const struct clock fast_clock = {fast_now, mem_wall, fast_wait};

/* ------------------------------------------------------------------ what should be there */

/* What was written and discarded (tag 0), in order; the first ones before the story. */
struct op {
    uint64_t offset;
    size_t len;
    uint64_t tag;
    bool failed; /* perhaps done, perhaps not */
};

static struct {
    struct op ops[OPS_MAX];
    unsigned n;
    unsigned local, bucket;           /* so many are acknowledged: in the cache, in the bucket */
    uint64_t size_local, size_bucket; /* and so is this */
    bool size_failed;
} told;

static void apply(const struct op *op, uint8_t *bytes)
{
    if (op->failed)
        return;
    if (op->tag)
        pattern(bytes + op->offset, op->len, op->offset, op->tag);
    else
        memset(bytes + op->offset, 0, op->len);
}

/* What the volume is after `n` of the ops. */
static void state_after(unsigned n, uint8_t *bytes)
{
    memset(bytes, 0, GROWN);
    for (unsigned i = 0; i < n; i++)
        apply(&told.ops[i], bytes);
}

/* Blocks of ops that failed, and may have torn them. */
static bool is_unsure(uint64_t block)
{
    for (unsigned i = 0; i < told.n; i++)
        if (told.ops[i].failed && told.ops[i].offset / BLOCK <= block &&
            block <= (told.ops[i].offset + told.ops[i].len - 1) / BLOCK)
            return true;
    return false;
}

static void read_everything(uint8_t *got, size_t *ret_size)
{
    *ret_size = volume_size_bytes(volume);
    assert_in_range(*ret_size, SIZE, GROWN);
    memset(got, 0, GROWN);
    assert_int_equal(volume_read(volume, got, *ret_size, 0, true), 0);
}

/* It is as it was at an instant after `acked` ops. With `blockwise` each block at one of its own.
 */
static void expect_since(unsigned acked, bool blockwise)
{
    static uint8_t got[GROWN], bytes[GROWN], right[GROWN / BLOCK];
    bool found = false;
    size_t size;

    read_everything(got, &size);
    for (uint64_t block = 0; block < GROWN / BLOCK; block++)
        right[block] = is_unsure(block);
    state_after(acked, bytes);
    for (unsigned n = acked; n <= told.n; n++) {
        bool same = true;
        for (uint64_t block = 0; block < size / BLOCK; block++) {
            bool as_then = memcmp(got + block * BLOCK, bytes + block * BLOCK, BLOCK) == 0;
            same = same && (as_then || is_unsure(block));
            right[block] |= as_then;
        }
        found = found || same;
        if (n < told.n)
            apply(&told.ops[n], bytes);
    }
    if (blockwise)
        assert_null(memchr(right, 0, size / BLOCK));
    else
        assert_true(found);
}

/* ------------------------------------------------------------------ the story */

static unsigned nerrors;
static const char *now_testing;
static long now_nth;

static bool fine(int r)
{
    if (r >= 0)
        return true;
    nerrors++;
    return false;
}

static void tell(uint64_t offset, size_t len, uint64_t tag)
{
    struct op *op = &told.ops[told.n++];

    assert_true(told.n <= OPS_MAX);
    *op = (struct op){.offset = offset, .len = len, .tag = tag, .failed = true};
    op->failed =
        !fine(tag ? write_pattern(offset, len, tag, true) : volume_discard(volume, offset, len));
}

/* What is read is what was written last, or an error. */
static void look(uint64_t offset, size_t len)
{
    static uint8_t got[GROWN], bytes[GROWN];

    if (!fine(volume_read(volume, got, len, offset, true)))
        return;
    state_after(told.n, bytes);
    for (size_t i = 0; i < len; i++)
        if (got[i] != bytes[offset + i] && !is_unsure((offset + i) / BLOCK))
            fail_msg("%s, call %ld: wrong byte at %zu", now_testing, now_nth, (size_t)offset + i);
}

static void acknowledged(bool bucket)
{
    uint64_t size = volume ? volume_size_bytes(volume) : told.size_local;

    told.local = told.n;
    told.size_local = size;
    if (bucket) {
        told.bucket = told.n;
        told.size_bucket = size;
    }
}

static void story_flush(void)
{
    if (fine(volume_flush(volume, true)))
        acknowledged(cfg.sync == SYNC_BUCKET);
}

static bool story_attach(void)
{
    store = mem_try_store(&mem, &fast_clock);
    if (fine(store ? volume_open(store, &cfg, &volume) : -ENOMEM))
        return true;
    store_free(store);
    store = NULL;
    volume = NULL;
    return false;
}

static void story_detach(bool keep_local)
{
    uint64_t size = volume_size_bytes(volume);

    if (fine(detach(keep_local))) {
        told.size_local = size;
        acknowledged(!keep_local);
    }
    for (unsigned i = told.local; i < told.n; i++)
        told.ops[i].failed = true;
}

static void story(void)
{
    if (!story_attach())
        return;
    tell(1000, 300 * KIB, 2);
    look(0, MIB);
    tell(512 * KIB + 100, 5000, 3);
    story_flush();
    tell(MIB + 10, 8200, 4); /* on what is in the bucket only */
    tell(400 * KIB, 200 * KIB, 0);
    look(MIB, 64 * KIB);
    story_flush();
    if (fine(volume_resize(volume, GROWN)))
        tell(GROWN - 100 * KIB, 70000, 5);
    story_flush();
    tell(50 * KIB, 600 * KIB, 6);
    look(0, SIZE);
    story_detach(false);
    if (!story_attach())
        return;
    look(0, SIZE);
    tell(20 * KIB + 1, 40 * KIB, 7);
    story_detach(true);
    if (!story_attach())
        return;
    look(0, 128 * KIB);
    tell(70 * KIB, 10 * KIB, 8);
    if (fine(volume_drain(volume)))
        acknowledged(true);
    look(0, 128 * KIB);
    story_detach(false);
}

/* ------------------------------------------------------------------ how it ends */

static void expect_acknowledged(bool cache_lost)
{
    unsigned acked = cache_lost ? told.bucket : told.local;
    uint64_t size = cache_lost ? told.size_bucket : told.size_local;

    assert_true(volume_size_bytes(volume) >= size);
    /* in cache mode, after an unclean end, blocks may be newer each */
    expect_since(acked, cfg.sync == SYNC_CACHE && !cache_lost);
}

static void end(bool lose_cache_first)
{
    if (!lose_cache_first) {
        attach();
        expect_acknowledged(false);
        assert_int_equal(volume_drain(volume), 0);
        acknowledged(false);
        told.bucket = told.local = 0; /* what it is now is what it stays */
        static uint8_t before[GROWN], after[GROWN];
        size_t size;
        read_everything(before, &size);
        assert_int_equal(detach(false), 0);
        lose_cache();
        attach();
        read_everything(after, &size);
        assert_memory_equal(before, after, GROWN);
    } else {
        lose_cache();
        attach();
        expect_acknowledged(true);
    }
    put(0, 4096, 9); /* it is as good as ever */
    assert_int_equal(volume_flush(volume, true), 0);
    assert_int_equal(detach(false), 0);
    lose_cache();
}

/* ------------------------------------------------------------------ again and again */

static struct mem_object *old_objects; /* the bucket before the story */
static size_t nold_objects;

static void make_old_bucket(void)
{
    create_and_attach(SIZE);
    put(MIB, MIB, 1);
    for (unsigned i = 0; i < OLD_COMMITS; i++) {
        put(MIB + i * BLOCK, BLOCK, 1);
        assert_int_equal(volume_flush(volume, true), 0);
    }
    assert_int_equal(volume_close(volume, true), 0); /* writes no checkpoint */
    store_free(store);
    volume = NULL;
    lose_cache();
    old_objects = mem.objects;
    nold_objects = mem.n;
    mem.objects = NULL;
    mem.n = mem.room = 0;
}

static enum mem_act script_nth(void *ctx, char verb, const char *key)
{
    (void)ctx, (void)verb, (void)key;
    return nth_fails(NTH_STORE) ? MEM_REFUSE : MEM_OK;
}

static void begin(void)
{
    for (size_t i = 0; i < mem.n; i++)
        free(mem.objects[i].data);
    mem.n = 0;
    for (size_t i = 0; i < nold_objects; i++)
        mem_set(&mem, old_objects[i].key, old_objects[i].data, old_objects[i].len);
    memset(&told, 0, sizeof told);
    told.ops[told.n++] = (struct op){.offset = MIB, .len = MIB, .tag = 1};
    told.local = told.bucket = 1;
    told.size_local = told.size_bucket = SIZE;
    nerrors = 0;
    volume = NULL;
    store = NULL;
}

static const char *now_testing;

static void too_long(int sig)
{
    (void)sig;
    fprintf(stderr, "%s, call %ld: hangs\n", now_testing, now_nth);
    abort();
}

/* The first calls fail each in a story of its own; of the later ones, one in so many. */
static void sweep(const char *what, enum nth_kind kind, int error, bool all, unsigned fraction)
{
    bool reached = true;
    unsigned nstories = 0, nnoticed = 0;
    unsigned slow = getenv("SLOW") ? (unsigned)atoi(getenv("SLOW")) : 1; /* a sanitizer's */

    fraction = getenv("LONG") ? UINT_MAX : MAX(fraction / MAX(slow, 1u), 1u);

    now_testing = what;
    for (long n = 1; reached; n += 1 + n / fraction) {
        now_nth = n;
        alarm(PATIENCE_S);
        begin();
        mem_retry(&mem, script_nth, NULL);
        nth_arm(kind, error, all, n);
        story();
        reached = nth_disarm();
        nnoticed += nerrors > 0;
        if (!reached) { /* the story as it should be */
            assert_int_equal(nerrors, 0);
            assert_true(mem_count(&mem, "map/") > 0);
        }
        mem_retry(&mem, NULL, NULL);
        end(nstories++ % 2);
    }
    alarm(0);
    print_message("%s: %u stories, %u with errors, %ld calls\n", what, nstories, nnoticed, now_nth);
    assert_true(nstories > 1);
}

static void sweep_all(void)
{
    sweep("files, EIO", NTH_FILE, EIO, false, 6);
    sweep("files, ENOSPC", NTH_FILE, ENOSPC, false, 6);
    sweep("files, EIO from then on", NTH_FILE, EIO, true, 3);
    sweep("files, ENOSPC from then on", NTH_FILE, ENOSPC, true, 3);
    sweep("wrong bytes", NTH_READ, 0, false, 6);
    sweep("wrong bytes from then on", NTH_READ, 0, true, 3);
    sweep("SQLite, EIO", NTH_DB, EIO, false, 6);
    sweep("SQLite, ENOSPC", NTH_DB, ENOSPC, false, 6);
    sweep("SQLite, EIO from then on", NTH_DB, EIO, true, 3);
    sweep("SQLite, ENOSPC from then on", NTH_DB, ENOSPC, true, 3);
    sweep("store", NTH_STORE, 0, false, 6);
    sweep("memory", NTH_MEMORY, 0, false, 6);
    sweep("SQLite's memory", NTH_DB_MEMORY, 0, false, 4);
}

static void test_flushes_to_the_bucket(void **state)
{
    (void)state;
    sweep_all();
}

static void test_flushes_to_the_cache(void **state)
{
    (void)state;
    cfg.sync = SYNC_CACHE;
    sweep_all();
}

/* What lies in neighbouring slots is one write; when that fails, the bucket has to be asked for all
 * of it. */
static void test_a_write_to_neighbours(void **state)
{
    (void)state;
    begin();
    attach();
    nth_arm(NTH_LARGE, EIO, false, 2);
    put(0, MIB, 2);
    assert_false(nth_disarm());
    assert_int_equal(detach(false), 0);
    attach();
    expect(0, MIB, 2);
    assert_int_equal(status().misses, 0);
    nth_arm(NTH_LARGE, EIO, false, 1);
    assert_int_equal(write_pattern(0, MIB, 3, true), -EIO);
    assert_true(nth_disarm());
    expect(0, MIB, 2);
    assert_int_equal(status().misses, MIB / BLOCK);
    assert_int_equal(detach(false), 0);
    lose_cache();
}

/* ------------------------------------------------------------------ setting up */

/* In memory, where there is room for it: it syncs some ten thousand times. */
static int setup(void **state)
{
    struct statvfs fs;

    if (statvfs("/dev/shm", &fs) == 0 && fs.f_bavail * fs.f_frsize > 32 * MIB &&
        access("/dev/shm", W_OK) == 0)
        setenv("T", "/dev/shm", 1);
    volume_setup(state);
    cfg.clock = &fast_clock;
    cfg.uploads = cfg.downloads = 1;
    cfg.cache_bytes = 4 * MIB;
    cfg.dirty_bytes = 4 * MIB;
    make_old_bucket();
    signal(SIGALRM, too_long);
    return 0;
}

static int teardown(void **state)
{
    alarm(0);
    nth_disarm();
    for (size_t i = 0; i < nold_objects; i++)
        free(old_objects[i].data);
    free(old_objects);
    old_objects = NULL;
    return volume_teardown(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_flushes_to_the_bucket, setup, teardown),
        cmocka_unit_test_setup_teardown(test_flushes_to_the_cache, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_write_to_neighbours, setup, teardown),
    };

    nth_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
