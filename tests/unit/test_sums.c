/* Sums: pages that come and go, of which few are in memory; what the file keeps; a file that cannot
 * be written, or was damaged. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "../../cache/sums.h"
#include "../../store/entry.h"
#include "../../store/msg.h"
#include "../../store/scope.h"
#include "../pattern.h"

#include <fcntl.h>
#include <pthread.h>
#include <string.h>

enum { PAGES = 40, SLOTS = PAGES * SUMS_SLOTS, FEW = 3, THREADS = 4 };

static char path[256];
static struct sums *sums;
static uint32_t model[SLOTS];

#define LOST UINT32_MAX

static int open_file(int flags, size_t max_pages)
{
    int fd = open(path, O_CREAT | O_CLOEXEC | flags, 0600);

    assert_true(fd >= 0);
    assert_int_equal(sums_new(fd, max_pages, &sums), 0);
    return sums_reserve(sums, SLOTS - 1);
}

static int setup(void **state)
{
    const char *tmp = getenv("T") ? getenv("T") : getenv("TMPDIR");

    (void)state;
    msg_set_sink(MSG_NONE);
    memset(model, 0, sizeof model);
    snprintf(path, sizeof path, "%s/s3vol-unit-XXXXXX", tmp ? tmp : "/tmp");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    return open_file(O_RDWR, FEW);
}

static int teardown(void **state)
{
    (void)state;
    sums_free(sums);
    return unlink(path);
}

static void reopen(int flags, size_t max_pages)
{
    sums_free(sums);
    assert_int_equal(open_file(flags, max_pages), 0);
}

/* All of a slot's sums are told from the one given, and from other slots'. */
static uint32_t sum_of(uint32_t slot, unsigned block, uint32_t value)
{
    if (value == LOST)
        return UINT32_MAX;
    return value ? (uint32_t)mix((uint64_t)value << 40 | slot << 8 | block) | 1 : 0;
}

static void put(uint32_t slot, uint32_t value)
{
    struct sums_held held;

    assert_int_equal(sums_hold(sums, slot, 1, &held), 0);
    for (unsigned b = 0; b < CHUNK_BLOCKS; b++)
        sums_of(&held, slot)[b] = sum_of(slot, b, value);
    sums_release(sums, &held, true);
    model[slot] = value;
}

static void same(uint32_t first, uint32_t n)
{
    struct sums_held held;

    assert_int_equal(sums_hold(sums, first, n, &held), 0);
    for (uint32_t slot = first; slot < first + n; slot++)
        for (unsigned b = 0; b < CHUNK_BLOCKS; b++)
            assert_int_equal(sums_of(&held, slot)[b], sum_of(slot, b, model[slot]));
    sums_release(sums, &held, false);
}

static void check_all(void)
{
    for (uint32_t slot = 0; slot < SLOTS; slot++)
        same(slot, 1);
}

static void test_pages_come_and_go(void **state)
{
    uint64_t rng = 1;

    (void)state;
    check_all(); /* none is known */
    for (uint32_t i = 1; i < 5000; i++) {
        uint32_t slot = (uint32_t)draw(&rng, SLOTS), n = 1 + (uint32_t)draw(&rng, SUMS_RUN);
        if (draw(&rng, 2))
            put(slot, i);
        else
            same(slot, MIN(n, SLOTS - slot));
    }
    check_all();
    assert_int_equal(sums_save(sums), 0);
    check_all();
    reopen(O_RDWR, FEW);
    check_all();
    reopen(O_RDWR, PAGES);
    assert_int_equal(sums_begin(sums), 0);
    check_all();
    put(SLOTS - 1, 5);
    assert_int_equal(sums_save(sums), 0);
    reopen(O_RDWR, PAGES);
    assert_int_equal(sums_begin(sums), 0);
    check_all();
}

/* Another one at each beginning, and the one that was is not there any more. */
static void test_lives(void **state)
{
    uint64_t lives[10];

    (void)state;
    assert_int_equal(sums_life(sums), 0);
    for (size_t i = 0; i < ARRAY_SIZE(lives); i++) {
        assert_int_equal(sums_begin(sums), 0);
        put((uint32_t)i, 1);
        lives[i] = sums_life(sums);
        for (size_t k = 0; k < i; k++)
            assert_int_not_equal(lives[k], lives[i]);
        reopen(O_RDWR, FEW);
        assert_int_equal(sums_life(sums), lives[i]);
    }
    int fd = open(path, O_RDWR);
    assert_int_equal(pwrite(fd, "x", 1, 100), 1);
    close(fd);
    reopen(O_RDWR, FEW);
    assert_int_equal(sums_life(sums), 0);
    reopen(O_RDONLY, FEW);
    assert_int_equal(sums_begin(sums), -EBADF);
}

/* More pages are held at once than there should be. */
static void test_all_are_held(void **state)
{
    struct sums_held held[2 * FEW];

    (void)state;
    for (uint32_t i = 0; i < SLOTS; i += SUMS_SLOTS)
        put(i, i + 1);
    for (uint32_t i = 0; i < ARRAY_SIZE(held); i++)
        assert_int_equal(sums_hold(sums, i * SUMS_SLOTS, 1, &held[i]), 0);
    for (uint32_t i = 0; i < ARRAY_SIZE(held); i++) {
        assert_int_equal(*sums_of(&held[i], i * SUMS_SLOTS), sum_of(i * SUMS_SLOTS, 0, i * 15 + 1));
        sums_release(sums, &held[i], false);
    }
    check_all();
}

/* What cannot be written stays. */
static void test_a_file_that_cannot_be_written(void **state)
{
    (void)state;
    reopen(O_RDONLY, FEW);
    for (uint32_t slot = 0; slot < SLOTS; slot++)
        put(slot, slot + 1);
    check_all();
    assert_int_equal(sums_save(sums), -EBADF);
}

/* Then none is known, and what becomes known is written, as far as that goes. */
static void test_a_file_that_cannot_be_read(void **state)
{
    (void)state;
    for (uint32_t slot = 0; slot < SLOTS; slot++)
        put(slot, slot + 1);
    assert_int_equal(sums_save(sums), 0);
    reopen(O_WRONLY, PAGES);
    memset(model, 0, sizeof model);
    check_all();
    for (uint32_t slot = 0; slot < SLOTS; slot += 2)
        put(slot, slot + 100);
    check_all();
    assert_int_equal(sums_save(sums), 0);
    reopen(O_RDWR, FEW);
    check_all();
}

static void test_no_block_has_sums_of_a_damaged_page(void **state)
{
    uint8_t byte;

    (void)state;
    for (off_t at = 0; at < 4096; at += 97) {
        for (uint32_t slot = 0; slot < SLOTS; slot++)
            put(slot, slot + 1);
        assert_int_equal(sums_save(sums), 0);
        int fd = open(path, O_RDWR);
        assert_int_equal(pread(fd, &byte, 1, 3 * 4096 + at), 1);
        byte ^= 4;
        assert_int_equal(pwrite(fd, &byte, 1, 3 * 4096 + at), 1);
        close(fd);
        reopen(O_RDWR, FEW);
        memset(model + 2 * SUMS_SLOTS, 0xff, SUMS_SLOTS * sizeof *model);
        check_all();
    }
    /* a page in another's place, and an end amid one */
    for (uint32_t slot = 0; slot < SLOTS; slot++)
        put(slot, slot + 1);
    assert_int_equal(sums_save(sums), 0);
    uint8_t page[4096];
    int fd = open(path, O_RDWR);
    assert_int_equal(pread(fd, page, sizeof page, 4096), sizeof page);
    assert_int_equal(pwrite(fd, page, sizeof page, 6 * 4096), sizeof page);
    assert_int_equal(ftruncate(fd, PAGES * 4096 + 300), 0);
    close(fd);
    reopen(O_RDWR, FEW);
    memset(model + 5 * SUMS_SLOTS, 0xff, SUMS_SLOTS * sizeof *model);
    memset(model + (PAGES - 1) * SUMS_SLOTS, 0xff, SUMS_SLOTS * sizeof *model);
    check_all();
}

/* Each thread has slots of its own in pages that all of them have slots in. */
static void *use(void *arg)
{
    uint32_t mine = (uint32_t)(uintptr_t)arg;
    uint64_t rng = mine + 1;

    for (uint32_t i = 1; i < 3000; i++) {
        uint32_t slot = (uint32_t)draw(&rng, SLOTS / THREADS) * THREADS + mine;
        if (draw(&rng, 2))
            put(slot, i);
        else
            same(slot, 1);
    }
    return NULL;
}

static void test_threads(void **state)
{
    pthread_t threads[THREADS];

    (void)state;
    for (uintptr_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, use, (void *)i), 0);
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    check_all();
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_pages_come_and_go),
        TEST(test_lives),
        TEST(test_all_are_held),
        TEST(test_a_file_that_cannot_be_written),
        TEST(test_a_file_that_cannot_be_read),
        TEST(test_no_block_has_sums_of_a_damaged_page),
        TEST(test_threads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
