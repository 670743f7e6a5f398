/* Slots: with O_DIRECT, and on a file system that has none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "../../cache/places.h"
#include "../../cache/slots.h"
#include "../../store/entry.h"
#include "../../store/scope.h"
#include "../pattern.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>

enum { SLOTS = 8, RUN_SLOTS = 4 /* at once */ };

static char dir[256], path[300], sums_path[300];
static struct slots *slots;
static _Alignas(4096) uint8_t model[SLOTS * CHUNK_BYTES], buf[RUN_SLOTS * CHUNK_BYTES + 4096];
static bool want_direct;
static uint64_t bad[RUN_SLOTS];

static int setup(void **state)
{
    const char *tmp = getenv("T") ? getenv("T") : getenv("TMPDIR");

    (void)state;
    memset(model, 0, sizeof model);
    want_direct = true;
    snprintf(dir, sizeof dir, "%s/s3vol-unit-XXXXXX", tmp ? tmp : "/tmp");
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/slots", dir);
    snprintf(sums_path, sizeof sums_path, "%s/sums", dir);
    return slots_open(dir, &slots);
}

/* A ramfs, in a mount namespace of our own: the only file system that surely refuses O_DIRECT. */
static int setup_fallback(void **state)
{
    int r = setup(state);

    if (r < 0)
        return r;
    slots_close(slots);
    slots = NULL;
    if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("none", dir, "ramfs", 0, NULL) < 0)
        return 0; /* the test skips */
    want_direct = false;
    return slots_open(dir, &slots);
}

static int teardown(void **state)
{
    (void)state;
    slots_close(slots);
    slots = NULL;
    unlink(path);
    unlink(sums_path);
    umount2(dir, MNT_DETACH);
    unlink(path);
    unlink(sums_path);
    return rmdir(dir);
}

static void check_all(void)
{
    for (uint32_t slot = 0; slot < SLOTS; slot++) {
        assert_int_equal(slots_read(slots, slot, 0, CHUNK_BLOCKS, buf, bad), 0);
        assert_memory_equal(buf, model + slot * CHUNK_BYTES, CHUNK_BYTES);
    }
}

static void random_io(void)
{
    uint64_t rng = 1;

    for (uint64_t i = 0; i < 500; i++) {
        uint32_t slot = (uint32_t)draw(&rng, SLOTS);
        unsigned end = CHUNK_BLOCKS * MIN(RUN_SLOTS, SLOTS - slot);
        unsigned first = (unsigned)draw(&rng, 64), n = 1 + (unsigned)draw(&rng, end - first);
        uint8_t *at = buf + (draw(&rng, 2) ? 0 : 1 + draw(&rng, 4095)); /* of any address */
        uint8_t *there = model + slot * CHUNK_BYTES + first * BLOCK_BYTES;
        size_t len = (size_t)n * BLOCK_BYTES;
        if (draw(&rng, 2)) {
            pattern(at, len, 0, i);
            memcpy(there, at, len);
            assert_int_equal(slots_write(slots, slot, first, n, at), 0);
            assert_memory_equal(at, there, len);
        } else {
            assert_int_equal(slots_read(slots, slot, first, n, at, bad), 0);
            assert_memory_equal(at, there, len);
        }
        if (i == 250) {
            slot = 3;
            assert_int_equal(slots_punch(slots, slot), 0);
            memset(model + slot * CHUNK_BYTES, 0, CHUNK_BYTES);
        }
    }
    check_all();
}

/* The sums of these slots do not lie behind each other. */
static void test_write_across_pages(void **state)
{
    uint32_t sums[CHUNK_BLOCKS];

    (void)state;
    assert_int_equal(slots_reserve(slots, 1035), 0);
    for (unsigned shift = 0; shift < 2; shift++) {
        pattern(buf + shift, 3 * BLOCK_BYTES, 0, shift + 1);
        memcpy(model, buf + shift, 3 * BLOCK_BYTES);
        assert_int_equal(slots_write(slots, 1034, 63, 3, buf + shift), 0);
        assert_int_equal(slots_get_sums(slots, 1034, sums), 0);
        assert_int_not_equal(sums[63], 0);
        assert_int_equal(slots_get_sums(slots, 1035, sums), 0);
        assert_int_not_equal(sums[1], 0);
        assert_int_equal(sums[2], 0);
        assert_int_equal(slots_read(slots, 1034, 63, 1, buf, bad), 0);
        assert_memory_equal(buf, model, BLOCK_BYTES);
        assert_int_equal(slots_read(slots, 1035, 0, 2, buf, bad), 0);
        assert_memory_equal(buf, model + BLOCK_BYTES, 2 * BLOCK_BYTES);
    }
}

static void test_random_io(void **state)
{
    (void)state;
    random_io();
    assert_int_equal(slots_sync(slots), 0);
    slots_close(slots);
    assert_int_equal(slots_open(dir, &slots), 0);
    check_all();
}

static void test_random_io_without_direct(void **state)
{
    (void)state;
    if (want_direct)
        skip();
    assert_false(slots_direct(slots));
    for (int i = 0; i < 2; i++) { /* no punching there */
        memset(buf, 'x', sizeof buf);
        memset(model + i * CHUNK_BYTES, 'x', CHUNK_BYTES);
        assert_int_equal(slots_write(slots, (uint32_t)i, 0, CHUNK_BLOCKS, buf + i), 0);
    }
    check_all();
    assert_int_equal(slots_read(slots, 1, 5, 2, buf + 7, bad), 0);
    assert_memory_equal(buf + 7, model, 2 * BLOCK_BYTES);
    assert_int_equal(slots_sync(slots), 0);
}

static void test_beyond_the_end_is_zero(void **state)
{
    (void)state;
    assert_int_equal(slots_count(slots), 0);
    memset(buf, 'x', sizeof buf);
    assert_int_equal(slots_reserve(slots, 400000000), 0);
    assert_int_equal(slots_read(slots, 400000000, 63, 1, buf, bad), 0);
    for (size_t i = 0; i < BLOCK_BYTES; i++)
        assert_int_equal(buf[i], 0);
    assert_int_equal(buf[BLOCK_BYTES], 'x');
    pattern(model + CHUNK_BYTES, BLOCK_BYTES, 0, 1);
    assert_int_equal(slots_write(slots, 1, 0, 1, model + CHUNK_BYTES), 0);
    assert_int_equal(slots_count(slots), 2);
    check_all(); /* the file ends within what is read */
}

static void test_a_punched_slot_takes_no_space(void **state)
{
    struct stat before, after;

    (void)state;
    memset(buf, 'x', sizeof buf);
    for (uint32_t slot = 0; slot < 4; slot++)
        assert_int_equal(slots_write(slots, slot, 0, CHUNK_BLOCKS, buf), 0);
    assert_int_equal(stat(path, &before), 0);
    assert_int_equal(slots_punch(slots, 2), 0);
    assert_int_equal(slots_punch(slots, 100), 0); /* beyond the end */
    assert_int_equal(stat(path, &after), 0);
    assert_int_equal(after.st_size, before.st_size);
    assert_in_range((before.st_blocks - after.st_blocks) * 512, CHUNK_BYTES, CHUNK_BYTES + 65536);
    memset(model, 'x', 4 * CHUNK_BYTES);
    memset(model + 2 * CHUNK_BYTES, 0, CHUNK_BYTES);
    check_all();
}

static void test_allocated_slots(void **state)
{
    struct stat st;

    (void)state;
    pattern(model, CHUNK_BYTES, 0, 1);
    assert_int_equal(slots_write(slots, 0, 0, CHUNK_BLOCKS, model), 0);
    slots_allocate(slots, 0, 5);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, CHUNK_BYTES);
    assert_in_range(st.st_blocks * 512, 5 * CHUNK_BYTES, 6 * CHUNK_BYTES);
    check_all(); /* what was there is as it was, and the rest is zero */
    pattern(model + 3 * CHUNK_BYTES, CHUNK_BYTES, 0, 2);
    assert_int_equal(slots_write(slots, 3, 0, CHUNK_BLOCKS, model + 3 * CHUNK_BYTES), 0);
    check_all();
}

static void test_truncate(void **state)
{
    (void)state;
    memset(buf, 'x', sizeof buf);
    for (uint32_t slot = 0; slot < 4; slot++)
        assert_int_equal(slots_write(slots, slot, 0, CHUNK_BLOCKS, buf), 0);
    assert_int_equal(slots_truncate(slots, 1), 0);
    assert_int_equal(slots_count(slots), 1);
    memset(model, 'x', CHUNK_BYTES);
    assert_int_equal(slots_read(slots, 0, 0, CHUNK_BLOCKS, buf, bad), 0);
    assert_int_equal(slots_read(slots, 2, 60, 4, buf, bad), -EBADMSG); /* these were not zero */
    assert_int_equal(bad[0], mask_range(60, 4));
    slots_close(slots);
    assert_int_equal(slots_open(dir, &slots), 0);
    check_all();
}

/* ------------------------------------------------------------------ sums */

static void flip(uint32_t slot, unsigned block, uint8_t bits)
{
    uint8_t byte;
    off_t at = (off_t)slot * CHUNK_BYTES + (off_t)block * BLOCK_BYTES + 1234;
    int fd = open(path, O_RDWR);

    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &byte, 1, at), 1);
    byte ^= bits;
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    close(fd);
}

static void test_a_flipped_bit_is_noticed(void **state)
{
    (void)state;
    pattern(model, sizeof model, 0, 1);
    for (uint32_t slot = 0; slot < SLOTS; slot++)
        assert_int_equal(slots_write(slots, slot, 0, CHUNK_BLOCKS, model + slot * CHUNK_BYTES), 0);
    for (unsigned block = 0; block < CHUNK_BLOCKS; block++) {
        flip(3, block, 1);
        assert_int_equal(slots_read(slots, 3, 0, CHUNK_BLOCKS, buf, bad), -EBADMSG);
        assert_int_equal(bad[0], UINT64_C(1) << block);
        assert_int_equal(slots_read(slots, 3, block, 1, buf + 1, bad), -EBADMSG);
        assert_int_equal(bad[0], UINT64_C(1) << block);
        if (block > 0)
            assert_int_equal(slots_read(slots, 3, 0, block, buf, bad), 0);
        flip(3, block, 1);
    }
    check_all();
    flip(3, 7, 1);
    assert_int_equal(slots_write(slots, 3, 7, 1, model + 3 * CHUNK_BYTES + 7 * BLOCK_BYTES), 0);
    check_all();
    flip(3, 7, 1);
    assert_int_equal(slots_punch(slots, 3), 0); /* zeros, and no sums */
    memset(model + 3 * CHUNK_BYTES, 0, CHUNK_BYTES);
    check_all();
}

static void test_damage_in_several_slots(void **state)
{
    (void)state;
    pattern(model, sizeof model, 0, 1);
    assert_int_equal(slots_write(slots, 0, 0, SLOTS * CHUNK_BLOCKS, model), 0);
    flip(3, 63, 1);
    flip(4, 0, 1);
    flip(4, 2, 1);
    for (unsigned shift = 0; shift < 2; shift++) {
        memset(bad, 1, sizeof bad);
        assert_int_equal(slots_read(slots, 2, 1, 3 * CHUNK_BLOCKS - 1, buf + shift, bad), -EBADMSG);
        assert_int_equal(bad[0], 0);
        assert_int_equal(bad[1], UINT64_C(1) << 63);
        assert_int_equal(bad[2], 5);
        assert_int_equal(slots_read(slots, 2, 1, 2 * CHUNK_BLOCKS - 2, buf + shift, bad), 0);
        assert_memory_equal(buf + shift, model + 2 * CHUNK_BYTES + BLOCK_BYTES,
                            2 * CHUNK_BYTES - 2 * BLOCK_BYTES);
    }
}

/* Some blocks, each at its place, and those of another slot amid them. */
static void test_gather(void **state)
{
    static _Alignas(4096) uint8_t chunk[CHUNK_BYTES];
    uint64_t rng = 1;

    (void)state;
    pattern(model, sizeof model, 0, 1);
    assert_int_equal(slots_write(slots, 0, 0, SLOTS * CHUNK_BLOCKS, model), 0);
    for (int i = 0; i < 300; i++) {
        unsigned thin = (unsigned)draw(&rng, 6);
        uint64_t mask = mix(rng++), damaged = 0, found = 0;
        uint32_t slot = (uint32_t)draw(&rng, SLOTS - 1);
        while (thin-- > 0)
            mask &= mix(rng++);
        uint64_t saved = draw(&rng, 2) ? mask & mix(rng++) : 0;
        unsigned block = (unsigned)draw(&rng, CHUNK_BLOCKS);
        flip(slot, block, 1);
        damaged = mask & ~saved & UINT64_C(1) << block;
        memset(chunk, 0, sizeof chunk);
        assert_int_equal(slots_gather(slots, slot + 1, saved, 0, chunk, &found), 0);
        assert_int_equal(slots_gather(slots, slot, mask & ~saved, saved, chunk, &found), 0);
        assert_int_equal(found, damaged);
        flip(slot, block, 1);
        for (unsigned b = 0; b < CHUNK_BLOCKS; b++)
            if ((mask & ~damaged) >> b & 1)
                assert_memory_equal(
                    chunk + b * BLOCK_BYTES,
                    model + (slot + (saved >> b & 1)) * CHUNK_BYTES + b * BLOCK_BYTES, BLOCK_BYTES);
    }
}

/* Of what is between the blocks nothing is learnt: it may be written at this moment. */
static void test_gather_learns_of_its_blocks_only(void **state)
{
    static _Alignas(4096) uint8_t chunk[CHUNK_BYTES];
    uint32_t sums[CHUNK_BLOCKS];
    uint64_t found = 0;

    (void)state;
    assert_int_equal(slots_reserve(slots, 0), 0);
    assert_int_equal(slots_gather(slots, 0, 0x85, 0, chunk, &found), 0);
    assert_int_equal(slots_get_sums(slots, 0, sums), 0);
    for (unsigned b = 0; b < CHUNK_BLOCKS; b++)
        assert_int_equal(sums[b] != 0, 0x85U >> MIN(b, 31U) & 1);
}

/* Without a sum the first reader's bytes are believed. */
static void test_sums_are_learnt_or_given(void **state)
{
    uint32_t sums[CHUNK_BLOCKS];

    (void)state;
    pattern(model, CHUNK_BYTES, 0, 1);
    assert_int_equal(slots_write(slots, 0, 0, CHUNK_BLOCKS, model), 0);
    assert_int_equal(slots_get_sums(slots, 0, sums), 0);
    slots_close(slots);
    assert_int_equal(slots_open(dir, &slots), 0);
    flip(0, 5, 1);
    assert_int_equal(slots_read(slots, 0, 0, CHUNK_BLOCKS, buf, bad), 0);
    flip(0, 5, 1);
    assert_int_equal(slots_read(slots, 0, 0, CHUNK_BLOCKS, buf, bad), -EBADMSG);
    assert_int_equal(slots_set_sums(slots, 0, sums), 0);
    check_all();
    flip(0, 5, 1);
    assert_int_equal(slots_read(slots, 0, 0, CHUNK_BLOCKS, buf, bad), -EBADMSG);
    assert_int_equal(bad[0], UINT64_C(1) << 5);
    assert_int_equal(slots_save_sums(slots), 0);
    slots_close(slots);
    assert_int_equal(slots_open(dir, &slots), 0);
    assert_int_equal(slots_begin(slots), 0);
    assert_int_equal(slots_read(slots, 0, 0, CHUNK_BLOCKS, buf, bad), -EBADMSG);
    assert_int_equal(bad[0], UINT64_C(1) << 5);
}

/* Sums of many slots: each has its own. */
static void test_sums_grow_with_the_slots(void **state)
{
    static const uint32_t some[] = {0, 1023, 1024, 3071, 3072, 15359, 15360, 200000};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(some); i++) {
        assert_int_equal(slots_reserve(slots, some[i]), 0);
        pattern(buf, CHUNK_BYTES, 0, i + 1);
        assert_int_equal(slots_write(slots, some[i], 0, CHUNK_BLOCKS, buf), 0);
    }
    for (size_t i = 0; i < ARRAY_SIZE(some); i++) {
        assert_int_equal(slots_read(slots, some[i], 0, CHUNK_BLOCKS, buf, bad), 0);
        flip(some[i], 63, 0x80);
    }
    for (size_t i = 0; i < ARRAY_SIZE(some); i++) {
        assert_int_equal(slots_read(slots, some[i], 0, CHUNK_BLOCKS, buf, bad), -EBADMSG);
        assert_int_equal(bad[0], UINT64_C(1) << 63);
    }
}

static void test_where_no_file_can_be(void **state)
{
    struct slots *none = NULL;
    char wrong[400];

    (void)state;
    snprintf(wrong, sizeof wrong, "%s/no/such", dir);
    assert_int_equal(slots_open(wrong, &none), -ENOENT);
    assert_int_equal(slots_open(path, &none), -ENOTDIR);
    assert_int_equal(unlink(sums_path), 0);
    assert_int_equal(mkdir(sums_path, 0700), 0);
    assert_int_equal(slots_open(dir, &none), -EISDIR);
    assert_int_equal(rmdir(sums_path), 0);
    assert_null(none);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_random_io),
        TEST(test_write_across_pages),
        cmocka_unit_test_setup_teardown(test_random_io_without_direct, setup_fallback, teardown),
        TEST(test_beyond_the_end_is_zero),
        TEST(test_a_punched_slot_takes_no_space),
        TEST(test_allocated_slots),
        TEST(test_truncate),
        TEST(test_a_flipped_bit_is_noticed),
        TEST(test_damage_in_several_slots),
        TEST(test_gather),
        TEST(test_gather_learns_of_its_blocks_only),
        TEST(test_sums_are_learnt_or_given),
        TEST(test_sums_grow_with_the_slots),
        TEST(test_where_no_file_can_be),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
