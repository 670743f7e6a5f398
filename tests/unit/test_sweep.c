/* What a sweep asks of the bucket, to know what the pins need; and that they get it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "mem_log.h"

#include "../../cache/sweep.h"
#include "../../store/pin.h"

#include <sys/stat.h>

enum { SEGMENTS = 20 };

static struct machine m;
static struct index *ix;
static struct sweeper *sweeper;
static char dir[256];
static uint64_t seqs[SEGMENTS];
static unsigned gets[SEGMENTS]; /* of the checkpoint as of each, root and parts */
static uint64_t refused;        /* the parts of this one: not given */

static enum mem_act count(void *ctx, char verb, const char *key)
{
    uint64_t seq;
    uint32_t index;

    (void)ctx;
    bool part = part_parse_key(key, &seq, &index);
    if (verb != 'G' || (!part && !checkpoint_parse_key(key, &seq)))
        return MEM_OK;
    for (int i = 0; i < SEGMENTS; i++)
        gets[i] += seqs[i] == seq;
    return part && seq == refused ? MEM_REFUSE : MEM_OK;
}

static int setup(void **state)
{
    const char *tmp = getenv("T") ? getenv("T") : getenv("TMPDIR");
    char path[300];
    int r = mem_setup(state);
    name_volume(&mem_sb);

    m = machine();
    assert_int_equal(machine_attach(&m), 0);
    for (int i = 0; i < SEGMENTS; i++)
        seqs[i] = machine_commit(&m, (uint64_t)i);
    snprintf(dir, sizeof dir, "%s/s3vol-unit-XXXXXX", tmp ? tmp : "/tmp");
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/index.db", dir);
    assert_int_equal(index_open(path, mem_sb.uuid, &ix), 0);
    assert_int_equal(sweeper_new(m.log, ix, &sweeper), 0);
    refused = 0;
    memset(gets, 0, sizeof gets);
    mem_retry(&mem, count, NULL);
    return r;
}

static int teardown(void **state)
{
    char path[300];

    sweeper_free(sweeper);
    index_close(ix);
    snprintf(path, sizeof path, "%s/index.db", dir);
    unlink(path);
    rmdir(dir);
    machine_free(&m);
    return mem_teardown(state);
}

/* As of segment `at`, made of this one and of `other`. */
static void checkpoint(int at, int other)
{
    struct log_position pos = m.pos;
    struct checkpoint *cp;
    struct part_list list;
    uint64_t bytes;

    pos.seq = seqs[at];
    pos.next = seqs[at] + 1;
    assert_int_equal(checkpoint_new(m.log, &pos, 0, &cp), 0);
    for (uint64_t i = 0; i < 2; i++) {
        struct entry e = {.kind = ENTRY_DATA,
                          .block = i * CHUNK_BLOCKS,
                          .nblocks = 1,
                          .seq = seqs[i ? at : other],
                          .offset = HEADER_BYTES + ENTRY_BYTES,
                          .stored_bytes = BLOCK_BYTES,
                          .frame_blocks = 1};
        assert_int_equal(checkpoint_add(cp, &e, 1), 0);
    }
    assert_int_equal(checkpoint_finish(cp, &list, &bytes), 0);
    checkpoint_free(cp);
    free(list.parts);
}

/* Of segment `at`, as of that checkpoint and what follows it. */
static void snapshot(const char *name, int root, int at)
{
    struct pin pin = {
        .root = seqs[root], .seq = seqs[at], .next = seqs[at] + 1, .size_bytes = BLOCK_BYTES};

    (void)snprintf(pin.name, sizeof pin.name, "%s", name);
    (void)snprintf(pin.created, sizeof pin.created, "2024-05-06T07:08:09Z");
    memcpy(pin.uuid, mem_sb.uuid, UUID_BYTES);
    assert_int_equal(pin_store(m.store, &mem_sb, &pin, 0), 0);
}

static int sweep_it(void)
{
    bool more;

    memset(gets, 0, sizeof gets);
    return sweep(sweeper, &(struct sweep){.dead_seq = seqs[SEGMENTS - 1]}, 0, &more);
}

/* How many GETs went to checkpoints, but for that as of `at`. */
static unsigned other_gets(int at)
{
    unsigned n = 0;

    for (int i = 0; i < SEGMENTS; i++)
        n += i == at ? 0 : gets[i];
    return n;
}

/* Segments that nothing but pins needs are there, or not. */
static void expect_segments(const char *want)
{
    for (int i = 0; i < SEGMENTS; i++)
        assert_int_equal(in_bucket(seqs[i]), want[i] == '1');
}

static void all_are_dead(void)
{
    struct index_found found[SEGMENTS];

    for (int i = 0; i < SEGMENTS; i++)
        found[i] = (struct index_found){seqs[i], 5000, seqs[SEGMENTS - 1]};
    assert_int_equal(index_inventory(ix, found, SEGMENTS), 0);
}

static void test_only_what_is_new_is_read(void **state)
{
    (void)state;
    checkpoint(3, 1);
    checkpoint(7, 0);
    snapshot("one", 3, 3);
    snapshot("two", 7, 8);
    assert_int_equal(sweep_it(), 0);
    assert_in_range(gets[3], 2, 4);
    assert_in_range(gets[7], 2, 4);
    checkpoint(12, 10);
    snapshot("a-third", 12, 14); /* by name it comes first */
    assert_int_equal(sweep_it(), 0);
    assert_in_range(gets[12], 2, 4);
    assert_int_equal(other_gets(12), 0);
    snapshot("of-the-same", 12, 16);
    assert_int_equal(sweep_it(), 0);
    assert_int_equal(other_gets(-1), 0);
    assert_int_equal(pin_delete(m.store, "two", 0), 0);
    all_are_dead();
    assert_int_equal(sweep_it(), 0);
    assert_int_equal(other_gets(-1), 0);
    expect_segments("01010000001011111000");
    assert_int_equal(pin_delete(m.store, "a-third", 0), 0);
    assert_int_equal(pin_delete(m.store, "one", 0), 0);
    assert_int_equal(sweep_it(), 0);
    assert_int_equal(other_gets(-1), 0);
    expect_segments("00000000001011111000");
}

/* The next one goes on where it ended; nothing is deleted before. */
static void test_one_that_failed_is_gone_on_with(void **state)
{
    (void)state;
    checkpoint(3, 1);
    checkpoint(7, 0);
    snapshot("one", 3, 3);
    snapshot("two", 7, 8);
    all_are_dead();
    refused = seqs[7];
    assert_true(sweep_it() < 0);
    assert_in_range(gets[3], 2, 4);
    expect_segments("11111111111111111111");
    refused = 0;
    assert_int_equal(sweep_it(), 0);
    assert_in_range(gets[7], 2, 4);
    assert_int_equal(other_gets(7), 0);
    expect_segments("11010001100000000000");
}

/* That of an instant whose checkpoint is gone, since it was never finished, holds up nothing. */
static void test_a_checkpoint_that_is_gone(void **state)
{
    (void)state;
    checkpoint(3, 1);
    snapshot("one", 3, 3);
    snapshot("without", 5, 6);
    all_are_dead();
    for (int i = 0; i < 2; i++) {
        assert_int_equal(sweep_it(), 0);
        expect_segments("01010010000000000000");
    }
    snapshot("later", 5, 5); /* is no reason to look for it again */
    assert_int_equal(sweep_it(), 0);
    assert_int_equal(other_gets(-1), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_only_what_is_new_is_read),
        TEST(test_one_that_failed_is_gone_on_with),
        TEST(test_a_checkpoint_that_is_gone),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
