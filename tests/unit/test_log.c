/* Appending to the log, and being fenced, over a bucket in memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "mem_log.h"

#include "../../store/bytes.h"
#include "../../store/crc32c.h"

struct appender {
    struct machine *machine;
    uint64_t seq;
    int result;
    pthread_t thread;
};

static void *append_main(void *arg)
{
    struct appender *a = arg;

    a->result = machine_append(a->machine, a->seq, a->seq, a->seq, 1);
    return NULL;
}

static void append_begin(struct appender *a, struct machine *m, uint64_t seq)
{
    *a = (struct appender){.machine = m, .seq = seq};
    assert_int_equal(pthread_create(&a->thread, NULL, append_main, a), 0);
}

/* The thread must end by itself. */
static int append_end(struct appender *a)
{
    struct timespec t;

    clock_gettime(CLOCK_REALTIME, &t);
    t.tv_sec += 30;
    assert_int_equal(pthread_timedjoin_np(a->thread, NULL, &t), 0);
    return a->result;
}

/* ------------------------------------------------------------------ appending */

static void test_lost_answer_to_my_segment(void **state)
{
    (void)state;
    struct machine a = machine();
    assert_int_equal(machine_attach(&a), 0);
    struct one lose = {a.pos.next, MEM_LOSE, 1};
    mem_retry(&mem, one_put, &lose);
    uint64_t seq = machine_commit(&a, 1);
    assert_int_equal(log_acknowledged(a.log), seq);
    assert_int_equal(mem.tries['P'], 3);
    machine_free(&a);
}

static void test_failures_are_ridden_out(void **state)
{
    static const enum mem_act acts[] = {MEM_FAIL, MEM_REFUSE, MEM_LOSE};

    (void)state;
    struct machine a = machine();
    assert_int_equal(machine_attach(&a), 0);
    for (size_t i = 0; i < ARRAY_SIZE(acts); i++) {
        struct one one = {a.pos.next + i, acts[i], 20};
        mem_retry(&mem, one_put, &one);
        assert_int_equal(machine_commit(&a, 1), one.seq);
        assert_int_equal(log_acknowledged(a.log), one.seq);
        assert_true(in_bucket(one.seq));
        mem_retry(&mem, NULL, NULL);
    }
    machine_free(&a);
}

static void test_acknowledged_in_order_only(void **state)
{
    struct appender late;

    (void)state;
    struct machine a = machine();
    assert_int_equal(machine_attach(&a), 0);
    uint64_t first = log_reserve(a.log, 3);
    struct one hang = {first, MEM_HANG, -1};
    mem_retry(&mem, one_put, &hang);
    append_begin(&late, &a, first);
    mem_await_hanging(&mem, 1);
    assert_int_equal(machine_append(&a, first + 2, first + 2, first + 2, 1), 0);
    assert_int_equal(log_acknowledged(a.log), first - 1);
    assert_int_equal(machine_append(&a, first + 1, first + 1, first + 1, 1), 0);
    assert_int_equal(log_acknowledged(a.log), first - 1);
    mem_retry(&mem, NULL, NULL);
    assert_int_equal(append_end(&late), 0);
    assert_int_equal(log_acknowledged(a.log), first + 2);
    machine_free(&a);
}

/* `first` hangs; everything else within the window is stored; one more waits. */
static void fill_window(struct machine *a, uint64_t first, struct one *hang, struct appender *late,
                        struct appender *beyond)
{
    *hang = (struct one){first, MEM_HANG, -1};
    mem_retry(&mem, one_put, hang);
    append_begin(late, a, first);
    mem_await_hanging(&mem, 1);
    append_begin(beyond, a, first + LOG_WINDOW);
    for (uint64_t seq = first + 1; seq < first + LOG_WINDOW; seq++)
        assert_int_equal(machine_append(a, seq, seq, seq, 1), 0);
    assert_false(in_bucket(first + LOG_WINDOW));
    assert_int_equal(log_acknowledged(a->log), first - 1);
}

static void test_beyond_the_window_waits(void **state)
{
    struct appender late, beyond;
    struct one hang;

    (void)state;
    struct machine a = machine();
    assert_int_equal(machine_attach(&a), 0);
    uint64_t first = log_reserve(a.log, LOG_WINDOW + 1);
    fill_window(&a, first, &hang, &late, &beyond);
    mem_retry(&mem, NULL, NULL);
    assert_int_equal(append_end(&late), 0);
    assert_int_equal(append_end(&beyond), 0);
    assert_int_equal(log_acknowledged(a.log), first + LOG_WINDOW);
    for (int i = 0; i < 3 * LOG_WINDOW; i++) /* its ring goes round */
        machine_commit(&a, 1);
    assert_int_equal(log_acknowledged(a.log), first + 4 * LOG_WINDOW);
    machine_free(&a);
}

static void test_stop_ends_the_wait_for_the_window(void **state)
{
    struct appender late, beyond;
    struct one hang;

    (void)state;
    struct machine a = machine();
    assert_int_equal(machine_attach(&a), 0);
    uint64_t first = log_reserve(a.log, LOG_WINDOW + 1);
    fill_window(&a, first, &hang, &late, &beyond);
    store_stop(a.store);
    assert_int_equal(append_end(&late), -ECANCELED);
    assert_int_equal(append_end(&beyond), -ECANCELED);
    machine_free(&a);
}

/* ------------------------------------------------------------------ fencing */

/* Nobody attached, but the name is another volume's by now, or nobody's. */
static void test_a_deleted_volume_fences(void **state)
{
    struct superblock other = mem_sb;
    char by[400];

    (void)state;
    other.uuid[0]++;
    for (int anew = 0; anew < 2; anew++) {
        struct machine a = machine();
        name_volume(&mem_sb);
        assert_int_equal(machine_attach(&a), 0);
        machine_commit(&a, 1);
        assert_int_equal(log_still_ours(a.log, PATIENCE_MS), 0);
        mem_remove(&mem, "volume");
        if (anew)
            name_volume(&other);
        assert_int_equal(log_still_ours(a.log, PATIENCE_MS), -ESTALE);
        assert_true(log_fenced(a.log, by, sizeof by));
        assert_string_equal(by, anew ? "deleted, and another one made under its name" : "deleted");
        machine_free(&a);
    }
}

/* The log of another volume is where ours would go on. */
static void test_a_deleted_volume_fences_at_the_other_ones_log(void **state)
{
    struct superblock other = mem_sb;
    char by[400];

    (void)state;
    other.uuid[0]++;
    struct machine a = machine();
    assert_int_equal(machine_attach(&a), 0);
    uint64_t end = machine_commit(&a, 1);
    mem_destroy(&mem);
    mem_init(&mem);
    name_volume(&other);
    struct machine b = machine_on(&other);
    assert_int_equal(machine_attach(&b), 0);
    while (machine_commit(&b, 1) <= end)
        ;
    uint64_t seq = log_reserve(a.log, 1);
    assert_int_equal(machine_append(&a, seq, seq, seq, 2), -ESTALE);
    assert_true(log_fenced(a.log, by, sizeof by));
    assert_string_equal(by, "deleted, and another one made under its name");
    machine_free(&a);
    machine_free(&b);
}

static void test_a_newer_claim_fences(void **state)
{
    char by[400];

    (void)state;
    struct machine a = machine(), b = machine();
    assert_int_equal(machine_attach(&a), 0);
    uint64_t durable = machine_commit(&a, 1);
    assert_int_equal(machine_attach(&b), 0);
    uint64_t seq = log_reserve(a.log, 2);
    assert_int_equal(b.pos.seq, seq);
    assert_int_equal(machine_append(&a, seq, seq, seq, 1), -ESTALE);
    assert_int_equal(log_acknowledged(a.log), durable);
    assert_true(log_fenced(a.log, by, sizeof by));
    assert_string_equal(by, "attached by host test at 2023-11-14 22:13:20 UTC (epoch 2)");
    assert_int_equal(machine_append(&a, seq + 1, seq + 1, seq + 1, 1), -ESTALE);
    assert_false(in_bucket(seq + 1)); /* it did not even try */
    assert_false(log_fenced(b.log, by, sizeof by));
    machine_commit(&b, 1);
    machine_free(&a);
    machine_free(&b);
}

/* What the old writer still has in flight lies before the new one's numbers. */
static void test_garbage_is_never_in_the_way(void **state)
{
    (void)state;
    struct machine a = machine(), b = machine();
    assert_int_equal(machine_attach(&a), 0);
    uint64_t first = log_reserve(a.log, LOG_WINDOW);
    assert_int_equal(machine_attach(&b), 0);
    for (uint64_t seq = first + 1; seq < first + LOG_WINDOW; seq++)
        assert_int_equal(machine_append(&a, seq, seq, seq, 1), 0);
    assert_int_equal(log_acknowledged(a.log), first - 1);
    assert_int_equal(machine_append(&a, first, first, first, 1), -ESTALE);
    assert_true(b.pos.next > first + LOG_WINDOW - 1);
    machine_commit(&b, 1);
    machine_free(&a);
    machine_free(&b);
}

static void test_fencing_ends_the_wait_for_the_window(void **state)
{
    struct appender late, beyond;
    struct one hang;

    (void)state;
    struct machine a = machine(), b = machine();
    assert_int_equal(machine_attach(&a), 0);
    uint64_t first = log_reserve(a.log, LOG_WINDOW + 1);
    fill_window(&a, first, &hang, &late, &beyond);
    struct one none = {0};
    pthread_mutex_lock(&mem.lock);
    mem.ctx = &none; /* what hangs is not asked yet */
    pthread_mutex_unlock(&mem.lock);
    assert_int_equal(machine_attach(&b), 0);
    mem_retry(&mem, NULL, NULL);
    assert_int_equal(append_end(&late), -ESTALE);
    assert_int_equal(append_end(&beyond), -ESTALE);
    assert_false(in_bucket(first + LOG_WINDOW));
    machine_free(&a);
    machine_free(&b);
}

/* Whoever wrote it, it is not mine. */
static void test_a_foreign_segment_fences(void **state)
{
    char by[400];

    (void)state;
    struct machine a = machine(), b = machine();
    assert_int_equal(machine_attach(&a), 0);
    assert_int_equal(machine_attach(&b), 0);
    uint64_t seq = log_reserve(b.log, 1);
    assert_int_equal(machine_append(&b, seq, seq, seq, 1), 0);
    uint64_t n = log_reserve(a.log, 1 + LOG_WINDOW + 1);
    assert_true(n < seq && seq < n + LOG_WINDOW + 2);
    mem_remove(&mem, "log/0000000000000402"); /* b's claim: so that only the segment is met */
    for (; n < seq; n++)
        assert_int_equal(machine_append(&a, n, n, n, 1), 0);
    assert_int_equal(machine_append(&a, seq, seq, seq, 1), -ESTALE);
    assert_true(log_fenced(a.log, by, sizeof by));
    assert_string_equal(by, "attached by an attachment of epoch 2");
    machine_free(&a);
    machine_free(&b);
}

/* Without conditional PUT nothing is asked for that the store does not have. */
static void test_what_is_of_the_future_fences(void **state)
{
    uint8_t data[HEADER_BYTES];
    char key[STORE_KEY_MAX];

    (void)state;
    struct machine a = machine();
    assert_int_equal(machine_attach(&a), 0);
    uint64_t seq = log_reserve(a.log, 1);
    log_key(1, key);
    memcpy(data, mem_find(&mem, key)->data, sizeof data);
    put_le32(data + 12, 1U << 31); /* a flag */
    put_le32(data + 124, crc32c(0, data, 124));
    log_key(seq, key);
    mem_set(&mem, key, data, sizeof data);
    assert_int_equal(machine_append(&a, seq, seq, seq, 1), -ESTALE);
    machine_free(&a);
}

static void test_a_store_without_conditional_put(void **state)
{
    struct superblock sb = mem_sb;

    (void)state;
    sb.conditional_put = false;
    mem.ignores_conditions = true;
    struct machine a = machine_on(&sb);
    assert_int_equal(machine_attach(&a), 0);
    uint64_t seq = machine_commit(&a, 1);
    assert_int_equal(log_acknowledged(a.log), seq);
    machine_free(&a);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, mem_setup, mem_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_lost_answer_to_my_segment),
        TEST(test_failures_are_ridden_out),
        TEST(test_acknowledged_in_order_only),
        TEST(test_beyond_the_window_waits),
        TEST(test_stop_ends_the_wait_for_the_window),
        TEST(test_a_deleted_volume_fences),
        TEST(test_a_deleted_volume_fences_at_the_other_ones_log),
        TEST(test_a_newer_claim_fences),
        TEST(test_garbage_is_never_in_the_way),
        TEST(test_fencing_ends_the_wait_for_the_window),
        TEST(test_a_foreign_segment_fences),
        TEST(test_what_is_of_the_future_fences),
        TEST(test_a_store_without_conditional_put),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
