/* Growing and shrinking a volume, over a bucket in memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "mem_volume.h"

enum { OLD = 8 * 1024 * 1024, NEW = 3 * 1024 * 1024 + BLOCK };

static void attach_cold(void)
{
    assert_int_equal(detach(false), 0);
    lose_cache();
    attach();
}

static void test_refused(void **state)
{
    (void)state;
    create_and_attach(OLD);
    put(NEW, BLOCK, 1);
    assert_int_equal(volume_shrink(volume, NEW, false), -ENOTEMPTY);
    assert_int_equal(volume_size_bytes(volume), OLD);
    expect(NEW, BLOCK, 1);
    assert_int_equal(volume_shrink(volume, OLD + BLOCK, true), -EINVAL);
    assert_int_equal(volume_shrink(volume, NEW + 1, true), -EINVAL);
    assert_int_equal(volume_shrink(volume, VOLUME_BYTES_MIN - BLOCK, true), -EINVAL);
    assert_int_equal(volume_shrink(volume, NEW + BLOCK, false), 0);
    assert_int_equal(volume_size_bytes(volume), NEW + BLOCK);
    expect(NEW, BLOCK, 1);
}

/* What was cut off is zero when it comes back, here and on another machine. */
static void test_cut(void **state)
{
    (void)state;
    create_and_attach(OLD);
    put(0, OLD, 1);
    assert_int_equal(volume_drain(volume), 0);
    put(OLD - 100000, 50000, 2); /* and something that is dirty */
    assert_int_equal(volume_shrink(volume, NEW, true), 0);
    assert_int_equal(volume_size_bytes(volume), NEW);
    assert_int_equal(volume_allocated_bytes(volume), NEW);
    assert_int_equal(write_pattern(NEW - BLOCK, 2 * BLOCK, 3, true), -EINVAL);
    assert_int_equal(volume_resize(volume, OLD), 0);
    expect(0, NEW, 1);
    expect(NEW, OLD - NEW, 0);
    assert_int_equal(volume_shrink(volume, NEW, false), 0);
    attach_cold();
    assert_int_equal(volume_size_bytes(volume), NEW);
    assert_int_equal(volume_resize(volume, OLD), 0);
    expect(0, NEW, 1);
    expect(NEW, OLD - NEW, 0);
}

/* A cache that has chunks beyond the end, which another machine has set. */
static void test_elsewhere(void **state)
{
    char here[sizeof cache_dir], there[sizeof cache_dir];

    (void)state;
    create_and_attach(OLD);
    put(0, OLD, 1);
    assert_int_equal(detach(false), 0);
    memcpy(here, cache_dir, sizeof here);
    snprintf(there, sizeof there, "%.200s/there", cache_dir);
    cfg.cache_dir = there;
    attach();
    assert_int_equal(volume_shrink(volume, NEW, true), 0);
    assert_int_equal(detach(false), 0);
    cfg.cache_dir = here;
    attach();
    assert_int_equal(volume_size_bytes(volume), NEW);
    expect(0, NEW, 1);
    assert_int_equal(status().misses, 0);
    cfg.cache_dir = cache_dir;
}

static enum mem_act script_refuse_later(void *ctx, char verb, const char *key)
{
    unsigned *left = ctx;

    (void)verb, (void)key;
    return (*left)-- == 0 ? MEM_REFUSE : MEM_OK;
}

/* Growth that only this cache knew, and that the other machine's replaced: no data was lost,
 * however often the next mount begins. */
static void test_growth_that_another_replaced(void **state)
{
    char here[sizeof cache_dir], there[sizeof cache_dir];

    (void)state;
    cfg.sync = SYNC_CACHE;
    create_and_attach(OLD);
    put(0, OLD, 1);
    assert_int_equal(volume_drain(volume), 0);
    mem_retry(&mem, script_hang, "P");
    assert_int_equal(volume_resize(volume, OLD + MIB), 0);
    assert_int_equal(volume_flush(volume, true), 0);
    volume_stop(volume);
    mem_retry(&mem, NULL, NULL);
    assert_int_equal(detach(true), 0);
    memcpy(here, cache_dir, sizeof here);
    snprintf(there, sizeof there, "%.200s/there", cache_dir);
    cfg.cache_dir = there;
    attach();
    assert_int_equal(volume_resize(volume, OLD + 2 * MIB), 0);
    for (int i = 0; i < 220; i++) { /* so much that there is a checkpoint */
        put(0, BLOCK, 1);
        assert_int_equal(volume_drain(volume), 0);
    }
    assert_int_equal(detach(false), 0);
    assert_int_equal(mem_count(&mem, "map/"), 1);
    attach();
    assert_int_equal(detach(false), 0);
    cfg.cache_dir = here;
    unsigned tries = 0, left;
    do { /* each comes one request further than the one before */
        left = tries++;
        mem_retry(&mem, script_refuse_later, &left);
        assert_true(tries < 100);
    } while (try_attach() < 0);
    mem_retry(&mem, NULL, NULL);
    assert_true(tries > 5);
    assert_int_equal(volume_size_bytes(volume), OLD + 2 * MIB);
    expect(0, OLD, 1);
    cfg.cache_dir = cache_dir;
}

/* ------------------------------------------------------------------ cut off in the middle */

static unsigned puts_left; /* set while nothing is under way */
static atomic_bool hung;

static enum mem_act script_hang_later(void *ctx, char verb, const char *key)
{
    (void)ctx, (void)key;
    if (verb != 'P' || puts_left-- > 0)
        return MEM_OK;
    puts_left = 0;
    hung = true;
    return MEM_HANG;
}

static int cut_off(void)
{
    return volume_shrink(volume, NEW, true);
}

/* The volume stops at the n-th PUT. True: it came so far. */
static bool stop_at(unsigned n, enum sync_mode sync, bool lose)
{
    struct caller c;

    cfg.sync = sync;
    lose_cache();
    mem_destroy(&mem);
    mem_init(&mem);
    create_and_attach(OLD);
    put(0, OLD, 1);
    assert_int_equal(volume_flush(volume, true), 0);
    puts_left = n;
    hung = false;
    mem_retry(&mem, script_hang_later, NULL);
    call(&c, cut_off);
    await(hung || c.done);
    bool stopped = hung;
    if (stopped) {
        volume_stop(volume);
        assert_true(called(&c) < 0);
    } else {
        assert_int_equal(called(&c), 0);
    }
    mem_retry(&mem, NULL, NULL);
    (void)detach(true);
    if (lose)
        lose_cache();
    attach();
    uint64_t size = volume_size_bytes(volume);
    assert_true(size == OLD || size == NEW);
    assert_true(stopped || size == NEW);
    if (sync == SYNC_BUCKET || !lose)
        expect(0, NEW, 1);
    assert_int_equal(volume_resize(volume, OLD), 0);
    if (size == NEW)
        expect(NEW, OLD - NEW, 0);
    assert_int_equal(detach(false), 0);
    return stopped;
}

static void test_stopped(void **state)
{
    unsigned n;

    (void)state;
    for (unsigned how = 0; how < 4; how++) {
        for (n = 0; stop_at(n, how & 1 ? SYNC_CACHE : SYNC_BUCKET, how & 2); n++)
            ;
        assert_true(n >= 2); /* the tail, and the size */
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_refused, volume_setup, volume_teardown),
        cmocka_unit_test_setup_teardown(test_cut, volume_setup, volume_teardown),
        cmocka_unit_test_setup_teardown(test_elsewhere, volume_setup, volume_teardown),
        cmocka_unit_test_setup_teardown(test_growth_that_another_replaced, volume_setup,
                                        volume_teardown),
        cmocka_unit_test_setup_teardown(test_stopped, volume_setup, volume_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
