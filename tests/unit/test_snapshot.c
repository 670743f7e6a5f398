/* Snapshots, clones and rollback over buckets in memory: what they hold, and how many requests they
 * take. The whole of it through the kernel: t-snapshot-and-clone.sh. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "mem_volume.h"

#include "../../cache/instant.h"
#include "../../cache/offline.h"
#include "../../cache/snapshot.h"

static struct mem clones; /* another bucket; `mem` has what they are made of */

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
    mem_init(&clones);
    return volume_setup(state);
}

static int teardown(void **state)
{
    int r = volume_teardown(state);

    mem_destroy(&clones);
    return r;
}

static unsigned requests(void)
{
    unsigned n = 0;

    for (size_t i = 0; i < ARRAY_SIZE(mem.tries); i++)
        n += mem.tries[i] + clones.tries[i];
    return n;
}

static int nothing(void *ctx, const struct header *last, const struct entry *entries, size_t n,
                   const struct log_position *pos)
{
    (void)ctx, (void)last, (void)entries, (void)n, (void)pos;
    return 0;
}

/* The instant found in a few requests is the one that reading the whole log finds. */
static struct instant expect_newest(unsigned most)
{
    struct store *s = store_of(&mem);
    struct superblock sb;
    struct instant in;
    struct log *log;
    uint64_t missing;

    assert_int_equal(superblock_load(s, &sb, 0), 0);
    assert_int_equal(log_new(s, &sb, &clock_system, &log), 0);
    struct log_position pos = {.next = 1, .size_blocks = sb.size_bytes / BLOCK_BYTES};
    assert_int_equal(log_replay(log, &pos, nothing, NULL, 0, &missing), 0);
    unsigned before = requests();
    assert_int_equal(instant_newest(log, 0, &in), 0);
    assert_in_range(requests() - before, 1, most);
    assert_true(in.pos.seq == pos.seq && in.pos.next == pos.next);
    assert_true(in.pos.size_blocks == pos.size_blocks && in.pos.epoch == pos.epoch);
    log_free(log);
    store_free(s);
    return in;
}

static void remove_log(uint64_t seq)
{
    char key[STORE_KEY_MAX];

    log_key(seq, key);
    assert_non_null(mem_find(&mem, key));
    mem_remove(&mem, key);
}

static void claim_ahead(uint64_t missing)
{
    struct log_position pos = {.epoch = 1};
    struct store *s = store_of(&mem);
    struct superblock sb;
    struct log *log;

    assert_int_equal(superblock_load(s, &sb, 0), 0);
    assert_int_equal(log_new(s, &sb, &clock_system, &log), 0);
    assert_int_equal(log_claim_ahead(log, &pos, missing, 9, sb.uuid, "who is outrun", 0), 0);
    log_free(log);
    store_free(s);
}

static void test_the_newest_instant(void **state)
{
    (void)state;
    cfg.cache_bytes = 512 * MIB; /* a flush is one commit, and there is none before it */
    create(GIB);
    assert_int_equal(expect_newest(2).pos.seq, 0);
    attach();
    assert_int_equal(expect_newest(3).pos.seq, 1); /* the claim */
    for (unsigned i = 0; i < 20; i++) {
        put(i * MIB, 4096, i + 1);
        assert_int_equal(volume_flush(volume, true), 0);
    }
    uint64_t seq = expect_newest(3).pos.seq;
    put(0, 40 * MIB, 99); /* several segments */
    assert_int_equal(volume_flush(volume, true), 0);
    uint64_t last = expect_newest(20).pos.seq;
    assert_true(last > seq + 3);
    assert_int_equal(detach(true), 0);
    remove_log(last); /* of the commit what is there never was */
    assert_int_equal(expect_newest(40).pos.seq, seq);
    claim_ahead(last);
    assert_int_equal(expect_newest(40).pos.seq, seq); /* that is not the log's yet */
    lose_cache();                                     /* which knows better */
    attach();                                         /* a claim at that number */
    assert_int_equal(expect_newest(40).pos.seq, last);
    put(0, 4096, 100);
    assert_int_equal(detach(false), 0);
    assert_int_equal(expect_newest(3).pos.seq, last + LOG_WINDOW + 1);
}

static int clone_it(const char *name, unsigned *ret_requests)
{
    struct store *from = store_of(&mem), *to;
    unsigned before = requests();

    to = store_of(&clones);
    int r = volume_clone(from, name, to);
    *ret_requests = requests() - before;
    store_free(from);
    store_free(to);
    return r;
}

static int snapshot(const char *name)
{
    struct store *s = store_of(&mem);
    int r = snapshot_create(s, name);

    store_free(s);
    return r;
}

static char before[PIN_NAME_MAX]; /* what the last rollback kept */

static int rollback(const char *name)
{
    struct store *s = store_of(&mem);
    int r = snapshot_rollback(s, name, before);

    store_free(s);
    return r;
}

static void test_few_requests(void **state)
{
    unsigned n;

    (void)state;
    create_and_attach(GIB);
    for (unsigned i = 0; i < 300; i++) {
        put(i * MIB, 4096, i + 1);
        assert_int_equal(volume_flush(volume, true), 0);
    }
    n = requests();
    assert_int_equal(snapshot("monday"), 0);
    assert_in_range(requests() - n, 1, 10);
    assert_int_equal(mem_count(&mem, "snapshot/" PIN_PENDING), 0);
    put(0, 4096, 301);
    assert_int_equal(volume_flush(volume, true), 0);
    assert_int_equal(snapshot("monday"), -EEXIST);
    assert_int_equal(snapshot("clone-x"), -EINVAL);
    assert_int_equal(snapshot("-x"), -EINVAL);
    assert_int_equal(clone_it("monday", &n), 0);
    /* the probe of another kind of store included: three more, and a delete */
    assert_in_range(n, 1, 13);
    assert_int_equal(mem_count(&mem, "snapshot/"), 2);
    assert_int_equal(clone_it("", &n), -EEXIST);
    assert_int_equal(mem_count(&mem, "snapshot/"), 2);
}

static void test_rollback_and_back(void **state)
{
    (void)state;
    create_and_attach(GIB);
    put(0, 8 * MIB, 1);
    assert_int_equal(volume_flush(volume, true), 0);
    assert_int_equal(snapshot("monday"), 0);
    put(MIB, MIB, 2);
    put(100 * MIB, MIB, 3);
    assert_int_equal(detach(false), 0);
    assert_int_equal(rollback("tuesday"), -ENOENT);
    assert_int_equal(rollback("monday"), 0);
    attach(); /* with its cache */
    expect(0, 8 * MIB, 1);
    expect(100 * MIB, MIB, 0);
    put(MIB, MIB, 4);
    assert_int_equal(detach(false), 0);
    lose_cache();
    attach();
    expect(0, MIB, 1);
    expect(MIB, MIB, 4);
    expect(2 * MIB, 6 * MIB, 1);
}

static enum mem_act no_roots(void *ctx, char verb, const char *key)
{
    (void)ctx;
    return verb == 'P' && strncmp(key, "map/", 4) == 0 ? MEM_REFUSE : MEM_OK;
}

/* The claim alone is the rollback: no checkpoint is needed for it. */
static void test_rollback_without_a_root(void **state)
{
    struct store *s = store_of(&mem);
    uint64_t errors = 1;

    (void)state;
    create_and_attach(GIB);
    put(0, 8 * MIB, 1);
    assert_int_equal(volume_flush(volume, true), 0);
    assert_int_equal(snapshot("monday"), 0);
    put(MIB, MIB, 2);
    assert_int_equal(detach(false), 0);
    mem_retry(&mem, no_roots, NULL);
    assert_int_equal(rollback("monday"), 0);
    mem_retry(&mem, NULL, NULL);
    assert_int_equal(mem_count(&mem, "map/"), 0);
    assert_int_equal(snapshot_delete(s, "monday"), -EBUSY); /* it is still read */
    assert_int_equal(volume_check(s, stderr, &errors), 0);
    assert_int_equal(errors, 0);
    assert_int_equal(snapshot("between"), 0);
    attach();
    expect(0, 8 * MIB, 1);
    put(2 * MIB, MIB, 3);
    assert_int_equal(detach(false), 0);
    lose_cache();
    attach();
    expect(0, 2 * MIB, 1);
    expect(2 * MIB, MIB, 3);
    assert_int_equal(detach(false), 0);
    assert_int_equal(rollback("monday"), 0);
    assert_int_equal(snapshot_delete(s, "monday"), -EBUSY); /* now by what was made before a root */
    assert_int_equal(snapshot_delete(s, "between"), 0);
    assert_int_equal(snapshot_delete(s, "monday"), -EBUSY); /* so was what the rollback kept */
    assert_int_equal(snapshot_delete(s, before), 0);
    assert_int_equal(snapshot_delete(s, "monday"), 0);
    store_free(s);
    attach();
    expect(0, 8 * MIB, 1);
}

/* Makers that died before they had looked whether what they need may be deleted: of the present for
 * a clone that never came to be, and of a snapshot. */
static void leave_behind(const char *name, const char *clone_url)
{
    struct pin pin = {.root = 1, .seq = 1, .next = 2, .size_bytes = GIB, .created = "now"};
    struct store *s = store_of(&mem);
    struct superblock sb;

    assert_int_equal(superblock_load(s, &sb, 0), 0);
    memcpy(pin.uuid, sb.uuid, UUID_BYTES);
    (void)snprintf(pin.name, sizeof pin.name, "%s", name);
    (void)snprintf(pin.clone_url, sizeof pin.clone_url, "%s", clone_url);
    assert_int_equal(pin_store(s, &sb, &pin, 0), 0);
    store_free(s);
}

static int count_pin(void *ctx, const struct pin *pin, uint64_t alone_bytes)
{
    (void)pin;
    assert_int_equal(alone_bytes, 0);
    ++*(unsigned *)ctx;
    return 0;
}

static void test_left_behind(void **state)
{
    uint64_t errors = 1;
    unsigned n = 0;

    (void)state;
    create_and_attach(GIB);
    put(0, MIB, 1);
    assert_int_equal(detach(true), 0);
    leave_behind(PIN_PENDING "0123456789abcdef", "");
    leave_behind("clone-x", "mem://clone");
    struct store *s = store_of(&mem);
    assert_int_equal(snapshot_list(s, count_pin, &n), 0);
    assert_int_equal(n, 2);
    assert_int_equal(volume_check(s, stderr, &errors), 0);
    assert_int_equal(errors, 0);
    assert_int_equal(snapshot_delete(s, PIN_PENDING "0123456789abcdef"), 0);
    assert_int_equal(snapshot_delete(s, "clone-x"), 0);
    store_free(s);
    assert_int_equal(mem_count(&mem, "snapshot/"), 0);
}

/* What only the cache has is of the volume as it was: a fork. */
static void test_dirty_blocks_are_a_fork(void **state)
{
    (void)state;
    cfg.sync = SYNC_CACHE;
    create_and_attach(GIB);
    put(0, MIB, 1);
    assert_int_equal(volume_drain(volume), 0);
    assert_int_equal(snapshot("monday"), 0);
    put(0, MIB, 2);
    assert_int_equal(volume_flush(volume, true), 0);
    assert_int_equal(detach(true), 0);
    assert_int_equal(rollback("monday"), 0);
    assert_int_equal(try_attach(), -ESTALE);
    cfg.discard_local = true;
    attach();
    expect(0, MIB, 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_the_newest_instant), TEST(test_few_requests),
        TEST(test_rollback_and_back),  TEST(test_rollback_without_a_root),
        TEST(test_left_behind),        TEST(test_dirty_blocks_are_a_fork),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
