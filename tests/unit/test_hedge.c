/* When a request is asked a second time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "../../store/hedge.h"

static struct hedge h;

static int setup(void **state)
{
    (void)state;
    h = (struct hedge){0};
    return 0;
}

static void answers(unsigned n, int64_t ms)
{
    while (n-- > 0) {
        (void)hedge_begin(&h);
        hedge_learn(&h, ms);
    }
}

static void test_nothing_is_usual_at_first(void **state)
{
    (void)state;
    for (int i = 0; i < HEDGE_ONE_IN; i++) {
        assert_int_equal(hedge_begin(&h), INT64_MAX);
        hedge_learn(&h, 30);
    }
    assert_int_not_equal(hedge_begin(&h), INT64_MAX);
}

static void test_what_is_usual_is_learnt(void **state)
{
    (void)state;
    answers(100, 2);
    assert_int_equal(hedge_begin(&h), HEDGE_LEAST_MS);
    answers(200, 300); /* it became slow as a whole */
    assert_in_range(hedge_begin(&h), 300, 320);
    for (int i = 0; i < 200; i++)
        answers(1, i % 2 ? 200 : 400); /* and differs much */
    assert_in_range(hedge_begin(&h), 500, 1000);
    answers(200, 20);
    assert_int_equal(hedge_begin(&h), HEDGE_LEAST_MS);
}

static void test_one_slow_answer_changes_little(void **state)
{
    (void)state;
    answers(100, 30);
    answers(1, 1000);
    answers(10, 30);
    assert_in_range(hedge_begin(&h), HEDGE_LEAST_MS, 250);
}

static void test_few_are_asked_again(void **state)
{
    unsigned n = 0;

    (void)state;
    assert_false(hedge_spend(&h));
    answers(HEDGE_ONE_IN - 1, 30);
    assert_false(hedge_spend(&h));
    answers(2, 30);
    assert_true(hedge_spend(&h));
    assert_false(hedge_spend(&h));
    answers(100 * HEDGE_ONE_IN, 30); /* what was not used is not kept */
    while (hedge_spend(&h))
        n++;
    assert_int_equal(n, 4);
    for (int i = 0; i < 100 * HEDGE_ONE_IN; i++) {
        answers(1, 30);
        n += hedge_spend(&h);
    }
    assert_in_range(n, 100, 4 + 100);
}

#define TEST(name) cmocka_unit_test_setup(name, setup)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_nothing_is_usual_at_first),
        TEST(test_what_is_usual_is_learnt),
        TEST(test_one_slow_answer_changes_little),
        TEST(test_few_are_asked_again),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
