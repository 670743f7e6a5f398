#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "../../store/pipeline.h"
#include "../../store/scope.h"
#include "../pattern.h"

#include <stdatomic.h>
#include <time.h>

enum { MOST = 5000 };

struct run {
    size_t n, error_at, none_at; /* `use` fails; `make` has no memory */
    atomic_size_t made, dropped;
    size_t used;
    atomic_int makers, makers_most;
    size_t made_ahead; /* the most items made and not used, the one in use not counted */
    atomic_int drops[MOST];
    bool pause;
};

struct item {
    struct run *run;
    size_t i;
};

static void *make_item(void *ctx, size_t i)
{
    struct run *run = ctx;
    struct item *item = malloc(sizeof *item);
    int now = ++run->makers, most = run->makers_most;

    while (now > most && !atomic_compare_exchange_weak(&run->makers_most, &most, now))
        ;
    *item = (struct item){run, i};
    if (run->pause && mix(i) % 8 == 0) /* they end in another order than they begin */
        nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
    run->makers--;
    if (i == run->none_at) {
        free(item);
        return NULL;
    }
    run->made++;
    return item;
}

static int use_item(void *ctx, size_t i, void *it)
{
    struct run *run = ctx;
    struct item *item = it;

    assert_int_equal(i, run->used);
    assert_int_equal(item->i, i);
    size_t ahead = run->made - i - 1;
    run->made_ahead = MAX(run->made_ahead, ahead);
    if (i == run->error_at)
        return -EXDEV;
    run->used++;
    return 0;
}

static void drop_item(void *it)
{
    struct item *item = it;

    item->run->drops[item->i]++;
    item->run->dropped++;
    free(item);
}

static const struct pipeline_ops ops = {make_item, use_item, drop_item};

static int run_items(struct run *run, size_t n)
{
    run->n = n;
    int r = pipeline_run(n, &ops, run);
    assert_int_equal(run->dropped, run->made);
    for (size_t i = 0; i < MIN(n, (size_t)MOST); i++)
        assert_in_range(run->drops[i], 0, 1);
    assert_int_equal(run->makers, 0);
    assert_in_range(run->makers_most, n > 0, PIPELINE_THREADS);
    assert_in_range(run->made_ahead, 0, PIPELINE_AHEAD);
    return r;
}

static struct run *new_run(void)
{
    struct run *run = calloc(1, sizeof *run);

    run->error_at = run->none_at = SIZE_MAX;
    return run;
}

static void test_all_in_order(void **state)
{
    static const size_t ns[] = {0, 1, 2, 15, 16, 17, 63, 64, 65, 129, MOST};

    (void)state;
    for (size_t k = 0; k < ARRAY_SIZE(ns); k++) {
        scope_free struct run *run = new_run();
        run->pause = k % 2;
        assert_int_equal(run_items(run, ns[k]), 0);
        assert_int_equal(run->used, ns[k]);
        assert_int_equal(run->made, ns[k]);
    }
}

static void test_many_at_once(void **state)
{
    (void)state;
    scope_free struct run *run = new_run();
    run->pause = true;
    assert_int_equal(run_items(run, 2000), 0);
    assert_in_range(run->makers_most, 2, PIPELINE_THREADS);
    assert_in_range(run->made_ahead, 2, PIPELINE_AHEAD);
}

static void test_an_error_ends_it(void **state)
{
    (void)state;
    for (size_t at = 0; at < 200; at += 13) {
        scope_free struct run *run = new_run();
        run->error_at = at;
        assert_int_equal(run_items(run, MOST), -EXDEV);
        assert_int_equal(run->used, at);
        assert_in_range(run->made, at + 1, at + 1 + PIPELINE_AHEAD);
    }
}

static void test_without_memory_it_ends(void **state)
{
    (void)state;
    for (size_t at = 0; at < 200; at += 31) {
        scope_free struct run *run = new_run();
        run->none_at = at;
        assert_int_equal(run_items(run, 300), -ENOMEM);
        assert_int_equal(run->used, at);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_in_order),
        cmocka_unit_test(test_many_at_once),
        cmocka_unit_test(test_an_error_ends_it),
        cmocka_unit_test(test_without_memory_it_ends),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
