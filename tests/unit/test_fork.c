/* A fork: what a cache has that the bucket has not, after somebody else attached. It is refused,
 * and saved as another volume. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "mem_volume.h"

#include "../../cache/index.h"
#include "../../cache/offline.h"
#include "../../cache/snapshot.h"

enum { SIZE = 16 * 1024 * 1024, NBLOCKS = SIZE / BLOCK };

static struct mem clones; /* another bucket: what is saved */
static char their_dir[sizeof cache_dir + 16];
static uint8_t ours[NBLOCKS]; /* a tag for each block, as this machine has the volume */
static uint64_t rng;
static uint64_t lost_bytes; /* that were told */

static int open_beside(const char *url, struct store **ret)
{
    *ret = mem_store(strstr(url, "clone") ? &clones : &mem, &clock_system);
    store_set_beside(*ret, open_beside);
    return 0;
}

static struct store *store_of(struct mem *m)
{
    struct store *s = mem_store(m, &clock_system);

    store_set_beside(s, open_beside);
    return s;
}

static int setup(void **state)
{
    int r = volume_setup(state);

    mem_init(&clones);
    clones.name = "clone";
    memset(ours, 0, sizeof ours);
    rng = 1;
    lost_bytes = 0;
    cfg.sync = SYNC_CACHE;
    cfg.cache_bytes = 4 * SIZE;
    cfg.gc = false;
    cfg.gc_grace_ms = 0;
    snprintf(their_dir, sizeof their_dir, "%s/theirs", cache_dir);
    return r;
}

static int teardown(void **state)
{
    int r = volume_teardown(state);

    mem_destroy(&clones);
    return r;
}

/* `tag` 0: zeros. */
static void write_tags(int n, bool mine)
{
    uint8_t buf[BLOCK];

    for (int i = 0; i < n; i++) {
        uint64_t block = draw(&rng, NBLOCKS);
        uint8_t tag = (uint8_t)draw(&rng, 4) ? (uint8_t)(1 + draw(&rng, 255)) : 0;
        memset(buf, tag, sizeof buf);
        assert_int_equal(volume_write(volume, buf, sizeof buf, block * BLOCK, true), 0);
        if (mine)
            ours[block] = tag;
    }
}

/* How many blocks are not what this machine had. */
static uint64_t wrong_blocks(void)
{
    uint8_t buf[BLOCK];
    uint64_t n = 0;

    for (uint64_t block = 0; block < NBLOCKS; block++) {
        assert_int_equal(volume_read(volume, buf, sizeof buf, block * BLOCK, true), 0);
        assert_memory_equal(buf, buf + 1, sizeof buf - 1);
        n += buf[0] != ours[block];
    }
    return n;
}

static void attach_elsewhere(void)
{
    cfg.cache_dir = their_dir;
    attach();
    cfg.cache_dir = cache_dir;
}

static void note_lost(void *ctx, uint64_t offset, uint64_t len)
{
    static uint64_t end;

    (void)ctx;
    assert_true(lost_bytes == 0 || offset > end); /* what adjoins is one */
    end = offset + len;
    lost_bytes += len;
}

static void ignore_progress(void *ctx, const struct fork_saved *so_far)
{
    (void)ctx, (void)so_far;
}

static int save(bool force, struct fork_saved *ret)
{
    static const struct fork_watch watch = {NULL, note_lost, ignore_progress};
    struct store *from = store_of(&mem), *to = store_of(&clones);
    struct volume_config config = cfg;

    lost_bytes = 0;
    config.discard_local = false;
    int r = volume_save_fork(from, &config, to, force, &watch, ret);
    store_free(from);
    store_free(to);
    return r;
}

static int try_attach_saved(void)
{
    store = store_of(&clones);
    cfg.cache_dir = their_dir;
    int r = volume_open(store, &cfg, &volume);
    cfg.cache_dir = cache_dir;
    if (r < 0) {
        store_free(store);
        volume = NULL;
        store = NULL;
    }
    return r;
}

static void check_all(struct mem *m)
{
    struct store *s = store_of(m);
    uint64_t errors = 1;

    assert_int_equal(volume_check(s, stderr, &errors), 0);
    assert_int_equal(errors, 0);
    store_free(s);
}

/* As a process that is killed leaves it: only what is dirty is believed. */
static void make_unclean(void)
{
    char path[sizeof cache_dir + 64], uuid[UUID_TEXT_BYTES];
    struct store *s = store_of(&mem);
    struct index_meta meta;
    struct superblock sb;
    struct index *ix;

    assert_int_equal(superblock_load(s, &sb, 0), 0);
    store_free(s);
    uuid_format(sb.uuid, uuid);
    snprintf(path, sizeof path, "%s/%s/index.db", cache_dir, uuid);
    assert_int_equal(index_open(path, sb.uuid, &ix), 0);
    index_get_meta(ix, &meta);
    meta.clean = false;
    assert_int_equal(index_put_meta(ix, &meta), 0);
    index_close(ix);
}

/* Here some is in the bucket, some in the cache only, and there somebody writes on. */
static void make_fork(bool clean)
{
    create_and_attach(SIZE);
    write_tags(2000, true);
    assert_int_equal(volume_drain(volume), 0);
    write_tags(300, true);
    assert_int_equal(volume_flush(volume, true), 0);
    assert_int_equal(detach(true), 0);
    if (!clean)
        make_unclean();
    attach_elsewhere();
    write_tags(1500, false);
}

static void expect_saved(void)
{
    assert_int_equal(try_attach_saved(), 0);
    assert_int_equal(volume_size_bytes(volume), SIZE);
    assert_int_equal(wrong_blocks(), 0);
    assert_int_equal(detach(false), 0);
}

static void test_saved(void **state)
{
    struct fork_saved saved;

    (void)state;
    make_fork(true);
    assert_int_equal(detach(false), 0);
    assert_int_equal(try_attach(), -ESTALE);
    assert_int_equal(save(false, &saved), 0);
    assert_int_equal(saved.lost_bytes, 0);
    assert_in_range(saved.copied_bytes, 300 * BLOCK / 2, (300 + 1500) * BLOCK);
    expect_saved();
    check_all(&clones);
    check_all(&mem);

    /* it is refused as before, saved again under another name, and given up when we say so */
    assert_int_equal(try_attach(), -ESTALE);
    assert_int_equal(save(false, &saved), -EEXIST);
    mem_destroy(&clones);
    mem_init(&clones);
    clones.name = "clone";
    assert_int_equal(save(false, &saved), 0);
    expect_saved();
    cfg.discard_local = true;
    attach();
    assert_in_range(wrong_blocks(), 1000, NBLOCKS);
}

/* The present is larger, or smaller; somebody has it attached while it is saved; it has a root that
 * is newer than the fork, and is a clone itself. */
static void test_other_size(void **state)
{
    struct fork_saved saved;

    (void)state;
    make_fork(false);
    assert_int_equal(volume_resize(volume, 3 * SIZE), 0);
    put(2 * SIZE, MIB, 9);
    assert_int_equal(volume_drain(volume), 0);
    assert_int_equal(save(false, &saved), 0);
    assert_int_equal(detach(false), 0);
    expect_saved();
    mem_destroy(&clones);
    mem_init(&clones);
    clones.name = "clone";
    attach_elsewhere();
    assert_int_equal(volume_shrink(volume, 4 * MIB, true), 0);
    assert_int_equal(detach(false), 0);
    assert_int_equal(save(false, &saved), 0);
    expect_saved();
}

/* What was overwritten there is reclaimed. */
static void test_reclaimed(void **state)
{
    struct fork_saved saved;

    (void)state;
    make_fork(false);
    write_tags(20000, false);
    assert_int_equal(volume_drain(volume), 0);
    assert_int_equal(volume_collect(volume), 0);
    assert_int_equal(detach(false), 0);
    assert_int_equal(save(false, &saved), -ENODATA);
    assert_true(saved.lost_bytes > 0 && saved.lost_bytes == lost_bytes);
    assert_int_equal(clones.n, 0);                     /* nothing is left there, */
    assert_int_equal(mem_count(&mem, "snapshot/"), 0); /* and nothing held here */
    assert_int_equal(try_attach(), -ESTALE);
    assert_int_equal(save(true, &saved), 0);
    assert_int_equal(saved.lost_bytes, lost_bytes);
    assert_int_equal(try_attach_saved(), 0);
    /* lost are blocks that were not zero: zeros there now; everything else is right */
    assert_int_equal(wrong_blocks(), lost_bytes / BLOCK);
}

static enum mem_act stop_at_finish(void *ctx, char verb, const char *key)
{
    unsigned *puts = ctx;

    return verb == 'P' && strcmp(key, "volume") == 0 && ++*puts > 1 ? MEM_REFUSE : MEM_OK;
}

static void test_unfinished(void **state)
{
    struct fork_saved saved;
    struct store *s;

    (void)state;
    make_fork(true);
    assert_int_equal(detach(false), 0);
    s = store_of(&clones);
    struct store *from = store_of(&mem);
    assert_int_equal(volume_clone_unfinished(from, s), 0); /* and then it died */
    store_free(from);
    assert_int_equal(try_attach_saved(), -EBUSY);
    cfg.read_only = true;
    assert_int_equal(try_attach_saved(), -EBUSY);
    cfg.read_only = false;
    assert_int_equal(snapshot_create(s, "a"), -EBUSY);
    assert_int_equal(save(false, &saved), -EEXIST);
    assert_int_equal(volume_delete(s), 0);
    assert_int_equal(mem_count(&mem, "snapshot/"), 0);

    unsigned puts = 0;
    mem_retry(&clones, stop_at_finish, &puts);
    assert_true(save(false, &saved) < 0);
    mem_retry(&clones, NULL, NULL);
    assert_int_equal(clones.n, 0);
    assert_int_equal(mem_count(&mem, "snapshot/"), 0);
    assert_int_equal(save(false, &saved), 0);
    expect_saved();
    store_free(s);
}

/* More is dirty than the cache may hold when it is saved: it stays, and must not be in the way. */
static void test_dirt_fills_the_cache(void **state)
{
    struct fork_saved saved;

    (void)state;
    create_and_attach(SIZE);
    write_tags(3000, true);
    assert_int_equal(volume_drain(volume), 0);
    write_tags(2500, true);
    assert_int_equal(volume_flush(volume, true), 0);
    assert_int_equal(detach(true), 0);
    make_unclean();
    attach_elsewhere();
    write_tags(1500, false);
    assert_int_equal(detach(false), 0);
    cfg.cache_bytes = 4 * MIB;
    assert_int_equal(save(false, &saved), 0);
    cfg.cache_bytes = 4 * SIZE;
    expect_saved();
}

static void test_no_fork(void **state)
{
    struct fork_saved saved;

    (void)state;
    create(SIZE);
    assert_int_equal(save(false, &saved), -ENODATA); /* there is no cache at all */
    attach();
    write_tags(100, true);
    assert_int_equal(save(false, &saved), -EBUSY); /* mounted */
    assert_int_equal(detach(true), 0);
    assert_int_equal(save(false, &saved), -EINVAL); /* nobody else */
    attach();
    assert_int_equal(wrong_blocks(), 0);
    assert_int_equal(detach(false), 0);
    attach_elsewhere();
    assert_int_equal(detach(false), 0);
    assert_int_equal(save(false, &saved), -ENODATA);
    assert_int_equal(clones.n, 0);
}

static int ignore_commit(void *ctx, const struct header *last, const struct entry *entries,
                         size_t nentries, const struct log_position *pos)
{
    (void)ctx, (void)last, (void)entries, (void)nentries, (void)pos;
    return 0;
}

static void claim_ahead(void)
{
    struct log_position pos = {.next = 1, .size_blocks = NBLOCKS};
    struct store *s = store_of(&mem);
    struct superblock sb;
    struct log *log;
    uint64_t missing;

    assert_int_equal(superblock_load(s, &sb, 0), 0);
    assert_int_equal(log_new(s, &sb, &clock_system, &log), 0);
    assert_int_equal(log_replay(log, &pos, ignore_commit, NULL, 0, &missing), 0);
    assert_int_equal(log_claim_ahead(log, &pos, missing, 1, sb.uuid, "who dies", 0), 0);
    log_free(log);
    store_free(s);
}

/* Who claims ahead, and dies before the claim behind that, has attached nowhere: fenced, but no
 * fork. */
static void test_fenced_by_nobody(void **state)
{
    (void)state;
    create_and_attach(SIZE);
    write_tags(500, true);
    assert_int_equal(volume_drain(volume), 0);
    claim_ahead();
    for (int r = 0, i = 0; r == 0; i++) {
        assert_true(i < 3);
        write_tags(300, true);
        assert_int_equal(volume_flush(volume, true), 0); /* to the cache */
        r = volume_drain(volume);
    }
    assert_int_equal(status().state, VOLUME_FENCED);
    (void)detach(true);
    attach();
    assert_int_equal(wrong_blocks(), 0);
    assert_int_equal(volume_drain(volume), 0);
    assert_int_equal(detach(false), 0);
    check_all(&mem);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_fenced_by_nobody), TEST(test_saved),      TEST(test_other_size),
        TEST(test_reclaimed),        TEST(test_unfinished), TEST(test_dirt_fills_the_cache),
        TEST(test_no_fork),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
