/* Workers: everything that is given is done, in order, within the limits, and before the end. */
#include "../../fuse/workers.h"
#include "../../store/scope.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <cmocka.h>

enum { PIECES = 2000 };

/* Work that waits at a gate and notes what runs at once. */
struct piece {
    struct work work;
    unsigned number;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards what follows */
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static bool gate_open;
static unsigned begun, ended, order[PIECES];
static size_t bytes_held, bytes_most;

static void reset(bool open)
{
    gate_open = open;
    begun = ended = 0;
    bytes_held = bytes_most = 0;
}

static void run_piece(struct work *work)
{
    struct piece *piece = (struct piece *)work;

    scope_lock(&lock);
    order[begun++] = piece->number;
    bytes_held += work->bytes;
    bytes_most = MAX(bytes_most, bytes_held);
    pthread_cond_broadcast(&changed);
    while (!gate_open)
        pthread_cond_wait(&changed, &lock);
    bytes_held -= work->bytes;
    ended++;
    pthread_cond_broadcast(&changed);
}

static void open_gate(void)
{
    scope_lock(&lock);
    gate_open = true;
    pthread_cond_broadcast(&changed);
}

static void wait_begun(unsigned n)
{
    scope_lock(&lock);
    while (begun < n)
        pthread_cond_wait(&changed, &lock);
}

static struct piece pieces[PIECES];

static void give(struct workers *w, unsigned i, size_t bytes)
{
    pieces[i] = (struct piece){.work = {.run = run_piece, .bytes = bytes}, .number = i};
    workers_run(w, &pieces[i].work);
}

static void one_thread_keeps_the_order(void **state)
{
    struct workers *w;

    (void)state;
    reset(true);
    assert_int_equal(workers_new(1, 10, 0, &w), 0);
    for (unsigned i = 0; i < PIECES; i++)
        give(w, i, 0);
    workers_free(w);
    assert_int_equal(ended, PIECES);
    for (unsigned i = 0; i < PIECES; i++)
        assert_int_equal(order[i], i);
}

static void the_end_waits_for_all(void **state)
{
    struct workers *w;

    (void)state;
    reset(false);
    assert_int_equal(workers_new(4, 100, 0, &w), 0);
    for (unsigned i = 0; i < 50; i++)
        give(w, i, 0);
    wait_begun(4);
    open_gate();
    workers_free(w);
    assert_int_equal(ended, 50);
}

/* Gives more than fits, from a thread of its own. */
struct giver {
    struct workers *workers;
    unsigned n;
    size_t bytes;
    atomic_uint given;
};

static void *run_giver(void *arg)
{
    struct giver *g = arg;

    for (unsigned i = 0; i < g->n; i++) {
        give(g->workers, i, g->bytes);
        atomic_fetch_add(&g->given, 1);
    }
    return NULL;
}

static void bytes_are_bounded(void **state)
{
    struct giver g = {.n = 200, .bytes = 300};
    pthread_t thread;

    (void)state;
    reset(false);
    assert_int_equal(workers_new(8, 1000, 1000, &g.workers), 0);
    assert_int_equal(pthread_create(&thread, NULL, run_giver, &g), 0);
    wait_begun(3); /* 900 bytes; the fourth must wait outside */
    assert_true(atomic_load(&g.given) <= 3);
    open_gate();
    pthread_join(thread, NULL);
    give(g.workers, 200, 5000); /* too large for the limit: alone, but done */
    workers_free(g.workers);
    assert_int_equal(ended, 201);
    assert_int_equal(bytes_most, 5000);
}

static void waiting_is_bounded(void **state)
{
    struct giver g = {.n = 20};
    pthread_t thread;

    (void)state;
    reset(false);
    assert_int_equal(workers_new(2, 3, 0, &g.workers), 0);
    assert_int_equal(pthread_create(&thread, NULL, run_giver, &g), 0);
    wait_begun(2);
    assert_true(atomic_load(&g.given) <= 5);
    open_gate();
    pthread_join(thread, NULL);
    workers_free(g.workers);
    assert_int_equal(ended, 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_thread_keeps_the_order),
        cmocka_unit_test(the_end_waits_for_all),
        cmocka_unit_test(bytes_are_bounded),
        cmocka_unit_test(waiting_is_bounded),
    };
    workers_free(NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
