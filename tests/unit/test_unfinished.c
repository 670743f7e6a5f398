/* A volume that takes long to make: finished, failed, deleted and made anew by somebody else
 * meanwhile; and what a maker that died has left. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "mem_volume.h"

#include "../../cache/offline.h"
#include "../../cache/unfinished.h"
#include "../../store/superblock.h"

enum { SIZE = 16 * 1024 * 1024 };

static struct store *maker; /* whoever makes it */

static int open_beside(const char *url, struct store **ret)
{
    (void)url;
    *ret = mem_store(&mem, &clock_system);
    store_set_beside(*ret, open_beside);
    return 0;
}

static int create_unfinished(struct store *s)
{
    return volume_create(s, &(struct volume_create){.size_bytes = SIZE, .unfinished = true});
}

static int setup(void **state)
{
    int r = volume_setup(state);

    return r < 0 ? r : open_beside("", &maker);
}

static int teardown(void **state)
{
    store_free(maker);
    return volume_teardown(state);
}

static unsigned caches(void)
{
    char path[sizeof cache_dir + UUID_TEXT_BYTES + 1];
    struct superblock sb;

    assert_int_equal(superblock_load_any(maker, &sb, 0), 0);
    int n = snprintf(path, sizeof path, "%s/", cache_dir);
    uuid_format(sb.uuid, path + n);
    return access(path, F_OK) == 0;
}

static int fill(void *ctx, struct volume *v)
{
    int result = *(int *)ctx;

    volume = v;
    put(MIB, MIB, 1);
    volume = NULL;
    assert_int_equal(try_attach(), -EBUSY); /* nobody else */
    return result;
}

static void expect_finished(void)
{
    attach();
    expect(0, MIB, 0);
    expect(MIB, MIB, 1);
    assert_int_equal(detach(false), 0);
}

static void test_made(void **state)
{
    int result = 0;

    (void)state;
    for (int keep = 0; keep < 2; keep++) {
        assert_int_equal(create_unfinished(maker), 0);
        assert_int_equal(unfinished_fill(maker, &cfg, keep, fill, &result), 0);
        assert_int_equal(caches(), keep);
        assert_int_equal(unfinished_clear(maker, cache_dir), 0); /* it is not */
        expect_finished();
        assert_int_equal(volume_delete(maker), 0);
    }
}

static void test_failed(void **state)
{
    int result = -ENODATA;

    (void)state;
    assert_int_equal(create_unfinished(maker), 0);
    assert_int_equal(unfinished_fill(maker, &cfg, true, fill, &result), -ENODATA);
    assert_int_equal(mem.n, 0);
    assert_int_equal(rmdir(cache_dir), 0);
}

static enum mem_act refuse_superblock(void *ctx, char verb, const char *key)
{
    (void)ctx;
    return verb == 'P' && strcmp(key, "volume") == 0 ? MEM_REFUSE : MEM_OK;
}

static void test_not_finished(void **state)
{
    int result = 0;

    (void)state;
    assert_int_equal(create_unfinished(maker), 0);
    mem_retry(&mem, refuse_superblock, NULL);
    assert_true(unfinished_fill(maker, &cfg, true, fill, &result) < 0);
    mem_retry(&mem, NULL, NULL);
    assert_int_equal(mem.n, 0);
}

/* Somebody took it for dead. */
static int deleted(void *ctx, struct volume *v)
{
    struct store *other;

    (void)v;
    open_beside("", &other);
    assert_int_equal(volume_delete(other), 0);
    if (*(bool *)ctx)
        assert_int_equal(create_unfinished(other), 0);
    store_free(other);
    return 0;
}

static void test_replaced(void **state)
{
    struct superblock sb, now;
    bool again = true;

    (void)state;
    assert_int_equal(create_unfinished(maker), 0);
    assert_int_equal(superblock_load_any(maker, &sb, 0), 0);
    assert_int_equal(unfinished_fill(maker, &cfg, true, deleted, &again), -EBUSY);
    assert_int_equal(superblock_load_any(maker, &now, 0), 0); /* theirs is as it was */
    assert_memory_not_equal(now.uuid, sb.uuid, UUID_BYTES);
    assert_true(now.unfinished);
    assert_int_equal(volume_delete(maker), 0);

    again = false;
    assert_int_equal(create_unfinished(maker), 0);
    assert_int_equal(unfinished_fill(maker, &cfg, true, deleted, &again), -ENOENT);
    assert_int_equal(superblock_load_any(maker, &now, 0), -ENOENT);
}

static void test_left_behind(void **state)
{
    char lock[sizeof cache_dir + UUID_TEXT_BYTES + 8];
    struct superblock sb;

    (void)state;
    assert_int_equal(unfinished_clear(maker, cache_dir), 0); /* there is nothing */
    assert_int_equal(create_unfinished(maker), 0);
    assert_int_equal(unfinished_clear(maker, cache_dir), -EBUSY); /* it may be elsewhere */
    cfg.unfinished = true;
    attach();
    put(MIB, MIB, 1);
    assert_int_equal(volume_drain(volume), 0);
    assert_int_equal(unfinished_clear(maker, cache_dir), -EBUSY); /* it is alive */
    assert_int_equal(detach(true), 0);
    cfg.unfinished = false;
    assert_int_equal(superblock_load_any(maker, &sb, 0), 0);
    assert_true(sb.unfinished);
    int n = snprintf(lock, sizeof lock, "%s/", cache_dir);
    uuid_format(sb.uuid, lock + n);
    strcat(lock, "/lock");
    assert_int_equal(access(lock, F_OK), 0);
    assert_int_equal(unfinished_clear(maker, cache_dir), 0);
    assert_int_equal(mem.n, 0);
    assert_int_equal(rmdir(cache_dir), 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_made),     TEST(test_failed),      TEST(test_not_finished),
        TEST(test_replaced), TEST(test_left_behind),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
