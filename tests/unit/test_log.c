/* Claiming the log and appending to it, over a bucket in memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "mem_log.h"

#include "../../store/bytes.h"
#include "../../store/crc32c.h"

/* ------------------------------------------------------------------ scripts */

/* What becomes of PUTs of one number; all else is well. */
struct one {
    uint64_t seq;
    enum mem_act act;
    int times; /* -1: always */
};

static enum mem_act one_put(void *ctx, char verb, const char *key)
{
    struct one *one = ctx;
    char wanted[STORE_KEY_MAX];

    log_key(one->seq, wanted);
    if (verb != 'P' || strcmp(key, wanted) != 0 || one->times == 0)
        return MEM_OK;
    if (one->times > 0)
        one->times--;
    return one->act;
}

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

/* ------------------------------------------------------------------ claiming */

static void test_claim_of_an_empty_log(void **state)
{
    (void)state;
    struct machine a = machine();
    assert_int_equal(machine_attach(&a), 0);
    assert_int_equal(a.missing, 1);
    assert_int_equal(a.pos.seq, 1);
    assert_int_equal(a.pos.next, 1 + LOG_WINDOW + 1);
    assert_int_equal(a.pos.size_blocks, SIZE_BLOCKS);
    assert_int_equal(a.pos.epoch, 1);
    assert_memory_equal(a.pos.nonce, a.nonce, UUID_BYTES);
    assert_int_equal(log_epoch(a.log), 1);
    assert_int_equal(log_reserve(a.log, 3), a.pos.next);
    assert_int_equal(log_reserve(a.log, 1), a.pos.next + 3);
    assert_int_equal(log_acknowledged(a.log), a.pos.next - 1);
    assert_false(log_fenced(a.log, (char[9]){0}, 9));
    machine_free(&a);
}

static void test_lost_answer_to_my_claim(void **state)
{
    struct one lose = {1, MEM_LOSE, 1};

    (void)state;
    struct machine a = machine();
    mem_retry(&mem, one_put, &lose);
    assert_int_equal(machine_attach(&a), 0);
    assert_int_equal(mem.tries['P'], 2);
    machine_free(&a);
}

static void test_claim_where_a_segment_appeared(void **state)
{
    (void)state;
    struct machine a = machine(), b = machine();
    assert_int_equal(machine_attach(&a), 0);
    assert_int_equal(log_replay(b.log, &b.pos, ignore_commit, NULL, 0, &b.missing), 0);
    uint64_t seq = machine_commit(&a, 1);
    assert_int_equal(b.missing, seq);
    struct log_position before = b.pos;
    assert_int_equal(machine_claim(&b), -EAGAIN);
    assert_memory_equal(&b.pos, &before, sizeof before);
    assert_int_equal(machine_attach(&b), 0); /* from where it was */
    assert_int_equal(b.pos.epoch, 2);
    assert_int_equal(b.pos.seq, seq + 1);
    machine_free(&a);
    machine_free(&b);
}

static void test_claim_where_a_claim_appeared(void **state)
{
    char said[512];

    (void)state;
    struct machine a = machine(), b = machine();
    assert_int_equal(log_replay(b.log, &b.pos, ignore_commit, NULL, 0, &b.missing), 0);
    assert_int_equal(machine_attach(&a), 0);
    assert_int_equal(machine_claim(&b), -EBUSY);
    msg_last_error(said, sizeof said);
    assert_non_null(
        strstr(said, "attached at this moment by host test at 2023-11-14 22:13:20 UTC"));
    machine_free(&a);
    machine_free(&b);
}

/* Outrun again and again, it claims where the writer will come to. */
static void test_claim_ahead(void **state)
{
    char by[400];

    (void)state;
    struct machine a = machine(), b = machine(), c = machine();
    assert_int_equal(machine_attach(&a), 0);
    uint64_t seq = machine_commit(&a, 1);
    assert_int_equal(log_replay(b.log, &b.pos, ignore_commit, NULL, 0, &b.missing), 0);
    machine_commit(&a, 2);
    assert_int_equal(machine_claim(&b), -EAGAIN);
    assert_int_equal(log_claim_ahead(b.log, &b.pos, seq + 1, 3, b.nonce, "B", PATIENCE_MS), 0);
    machine_commit(&a, 3);
    assert_int_equal(machine_claim(&b), -EAGAIN);
    machine_commit(&a, 4);
    assert_int_equal(log_reserve(a.log, 1), seq + 4);
    assert_int_equal(machine_append(&a, seq + 4, seq + 4, seq + 4, 5), -ESTALE);
    assert_true(log_fenced(a.log, by, sizeof by));
    assert_int_equal(strncmp(by, "B at ", 5), 0);

    assert_int_equal(log_follow(b.log, &b.pos, ignore_commit, NULL, 0, &b.missing), 0);
    assert_int_equal(b.pos.seq, seq + 4);
    assert_memory_equal(b.pos.nonce, a.nonce, UUID_BYTES); /* nobody has attached since */
    assert_int_equal(b.pos.claim, 1);
    assert_int_equal(b.missing, seq + 4 + LOG_WINDOW + 1);
    assert_int_equal(machine_claim(&b), 0);
    assert_memory_equal(b.pos.nonce, b.nonce, UUID_BYTES);
    assert_int_equal(b.pos.epoch, 3);
    machine_commit(&b, 6);
    assert_int_equal(machine_attach(&c), 0);
    assert_int_equal(c.pos.epoch, 4);
    machine_free(&a);
    machine_free(&b);
    machine_free(&c);
}

/* Up to there the log need not come: then the claim ahead is garbage like the rest of the window.
 */
static void test_claim_ahead_of_the_end(void **state)
{
    (void)state;
    struct machine a = machine(), b = machine(), c = machine();
    assert_int_equal(machine_attach(&a), 0);
    uint64_t seq = machine_commit(&a, 1);
    assert_int_equal(log_claim_ahead(b.log, &a.pos, seq + 1, LOG_WINDOW, b.nonce, "B", PATIENCE_MS),
                     0);
    assert_int_equal(log_claim_ahead(c.log, &a.pos, seq, LOG_WINDOW + 1, c.nonce, "C", PATIENCE_MS),
                     0); /* one is enough */
    assert_int_equal(log_claim_ahead(c.log, &a.pos, seq - 1, 1, c.nonce, "C", PATIENCE_MS),
                     -EAGAIN);
    uint64_t end = machine_commit(&a, 2);
    assert_int_equal(log_still_ours(a.log, PATIENCE_MS), -ESTALE);
    assert_int_equal(machine_attach(&b), 0);
    assert_int_equal(b.missing, end + 1);
    machine_commit(&b, 3);
    assert_int_equal(machine_attach(&c), 0);
    assert_int_equal(c.pos.epoch, 3);
    assert_int_equal(c.pos.seq, end + 1 + LOG_WINDOW + 2);
    machine_free(&a);
    machine_free(&b);
    machine_free(&c);
}

/* One of ours that was stored late, where a claim that tells more was wanted. */
static void test_own_claim_ahead_is_no_claim(void **state)
{
    (void)state;
    struct machine a = machine(), b = machine();
    assert_int_equal(machine_attach(&a), 0);
    machine_commit(&a, 1);
    uint64_t seq = machine_commit(&a, 2);
    assert_int_equal(log_replay(b.log, &b.pos, ignore_commit, NULL, 0, &b.missing), 0);
    assert_int_equal(log_claim_ahead(b.log, &b.pos, seq, 1, b.nonce, "B", PATIENCE_MS), 0);
    assert_int_equal(machine_claim(&b), -EAGAIN);
    assert_int_equal(machine_attach(&b), 0);
    assert_int_equal(b.pos.seq, seq + 1 + LOG_WINDOW + 1);
    machine_free(&a);
    machine_free(&b);
}

/* It says which numbers were there. */
static void test_a_loss_before_a_claim_ahead(void **state)
{
    char key[STORE_KEY_MAX];

    (void)state;
    struct machine a = machine(), b = machine();
    assert_int_equal(machine_attach(&a), 0);
    uint64_t seq = machine_commit(&a, 1);
    assert_int_equal(log_claim_ahead(b.log, &a.pos, seq + 1, 4, b.nonce, "B", PATIENCE_MS), 0);
    assert_int_equal(log_replay(b.log, &b.pos, ignore_commit, NULL, 0, &b.missing), 0);
    assert_int_equal(b.missing, seq + 1);
    log_key(seq, key);
    mem_remove(&mem, key);
    b.pos.next = 1;
    b.pos.seq = b.pos.epoch = 0;
    assert_int_equal(log_replay(b.log, &b.pos, ignore_commit, NULL, 0, &b.missing), -EBADMSG);
    machine_free(&a);
    machine_free(&b);
}

static void test_claim_onto_damage_is_an_error(void **state)
{
    (void)state;
    struct machine a = machine();
    a.missing = 1;
    mem_set(&mem, "log/0000000000000001", "garbage", 7);
    assert_int_equal(machine_claim(&a), -EBADMSG);
    machine_free(&a);
}

static void *claim_main(void *arg)
{
    struct machine *m = arg;
    return (void *)(intptr_t)machine_claim(m);
}

static void test_of_many_claimers_one_wins(void **state)
{
    enum { N = 8, ROUNDS = 20 };

    (void)state;
    for (int round = 0; round < ROUNDS; round++) {
        struct machine m[N];
        pthread_t threads[N];
        int winners = 0;
        for (int i = 0; i < N; i++) {
            m[i] = machine();
            assert_int_equal(log_replay(m[i].log, &m[i].pos, ignore_commit, NULL, 0, &m[i].missing),
                             0);
        }
        for (int i = 0; i < N; i++)
            assert_int_equal(pthread_create(&threads[i], NULL, claim_main, &m[i]), 0);
        for (int i = 0; i < N; i++) {
            void *result;
            pthread_join(threads[i], &result);
            int r = (int)(intptr_t)result;
            assert_true(r == 0 || r == -EBUSY);
            winners += r == 0;
        }
        assert_int_equal(winners, 1);
        for (int i = 0; i < N; i++)
            machine_free(&m[i]);
    }
}

static void test_long_name_of_a_machine(void **state)
{
    char who[1000];

    (void)state;
    memset(who, 'x', sizeof who);
    who[sizeof who - 1] = 0;
    struct machine a = machine(), b = machine();
    a.missing = b.missing = 1;
    assert_int_equal(log_claim(a.log, &a.pos, 1, a.nonce, who, 0), 0);
    assert_int_equal(machine_claim(&b), -EBUSY);
    machine_free(&a);
    machine_free(&b);
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
    assert_string_equal(by, "host test at 2023-11-14 22:13:20 UTC (epoch 2)");
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
    assert_string_equal(by, "an attachment of epoch 2");
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
        TEST(test_claim_of_an_empty_log),
        TEST(test_lost_answer_to_my_claim),
        TEST(test_claim_where_a_segment_appeared),
        TEST(test_claim_where_a_claim_appeared),
        TEST(test_claim_ahead),
        TEST(test_claim_ahead_of_the_end),
        TEST(test_own_claim_ahead_is_no_claim),
        TEST(test_a_loss_before_a_claim_ahead),
        TEST(test_claim_onto_damage_is_an_error),
        TEST(test_of_many_claimers_one_wins),
        TEST(test_long_name_of_a_machine),
        TEST(test_lost_answer_to_my_segment),
        TEST(test_failures_are_ridden_out),
        TEST(test_acknowledged_in_order_only),
        TEST(test_beyond_the_window_waits),
        TEST(test_stop_ends_the_wait_for_the_window),
        TEST(test_a_newer_claim_fences),
        TEST(test_garbage_is_never_in_the_way),
        TEST(test_fencing_ends_the_wait_for_the_window),
        TEST(test_a_foreign_segment_fences),
        TEST(test_what_is_of_the_future_fences),
        TEST(test_a_store_without_conditional_put),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
