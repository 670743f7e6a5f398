/* Claiming the log, over a bucket in memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "mem_log.h"

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
    assert_int_equal(strncmp(by, "attached by B at ", 17), 0);

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
    name_volume(&mem_sb);
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
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
