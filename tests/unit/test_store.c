/* Retries: how many tries, how long, what is said, what resumes; over a scripted backend, in a time
 * that passes only when somebody waits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "fake_store.h"

#include <sched.h>

static struct store_stats stats(void)
{
    struct store_stats s;

    store_get_stats(store, &s);
    return s;
}

static char got[64];
static int to_got(void *ctx, const void *data, size_t len)
{
    (void)ctx;
    return format(got + strlen(got), sizeof got - strlen(got), "%.*s", (int)len,
                  (const char *)data);
}

static int get(uint64_t offset, uint64_t len, int64_t patience_ms)
{
    got[0] = 0;
    return store_get(store, "log/7", offset, len, to_got, NULL, patience_ms);
}

/* ------------------------------------------------------------------ tests */

static void test_retries_until_it_works(void **state)
{
    (void)state;
    fake.nfail = 3;
    listen_begin();
    int r = store_put(store, "log/7", "12345", 5, 0, STORE_FOREVER);
    int lines = listen_end();
    assert_int_equal(r, 0);
    assert_int_equal(fake.ntries, 4);
    assert_int_equal(nwaits, 3);
    assert_in_range(now_ms - 1000, 1, 100 + 200 + 400);
    assert_int_equal(lines, 2);
    assert_string_equal(said,
                        "s3vol: warning: s3://b/vm1: PUT log/7: the script says so; retrying\n"
                        "s3vol: s3://b/vm1: the store answers again\n");
    struct store_stats s = stats();
    assert_int_equal(s.put, 4);
    assert_int_equal(s.failed, 3);
    assert_int_equal(s.retried, 3);
    assert_int_equal(s.bytes_up, 5);
    assert_true(s.reachable);
}

static void test_backoff_grows_to_its_cap(void **state)
{
    static const struct {
        enum store_fate fate;
        int64_t first_ms, cap_ms;
    } kinds[] = {{STORE_RETRY, 100, 10000}, {STORE_SLOW, 500, 20000}, {STORE_REFUSED, 5000, 30000}};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        fake.fate = kinds[i].fate;
        longest_wait_ms = 0;
        fake.nfail = 1;
        assert_int_equal(store_delete(store, (const char *[]){"a"}, 1, STORE_FOREVER), 0);
        assert_in_range(longest_wait_ms, 0, kinds[i].first_ms);
        fake.nfail = 200;
        int64_t start = now_ms;
        assert_int_equal(store_delete(store, (const char *[]){"a"}, 1, STORE_FOREVER), 0);
        assert_in_range(longest_wait_ms, kinds[i].cap_ms * 3 / 4, kinds[i].cap_ms);
        /* Full jitter: half the cap on average. */
        assert_in_range(now_ms - start, 200 * kinds[i].cap_ms / 3, 200 * kinds[i].cap_ms * 2 / 3);
    }
}

static void test_patience_ends(void **state)
{
    (void)state;
    fake.nfail = -1;
    listen_begin();
    int r = get(0, 4, 30000);
    int lines = listen_end();
    assert_int_equal(r, -ETIMEDOUT);
    assert_int_equal(now_ms, 31000); /* all of it, and no more */
    assert_int_equal(lines, 2);
    assert_non_null(strstr(said, "s3://b/vm1: GET log/7: gave up after 30 s: the script says so"));
    assert_int_equal(fake.ntries, nwaits + 1);
    assert_false(stats().reachable);

    /* No patience: one try. A slow try is the last when it ends too late. */
    fake.ntries = 0;
    assert_int_equal(get(0, 4, 0), -ETIMEDOUT);
    assert_int_equal(fake.ntries, 1);
    fake.try_ms = 20000;
    fake.ntries = 0;
    assert_int_equal(get(0, 4, 10000), -ETIMEDOUT);
    assert_int_equal(fake.ntries, 1);
}

static void test_outage_is_told_once_a_minute(void **state)
{
    int warnings = 0;

    (void)state;
    fake.nfail = -1;
    listen_begin();
    assert_int_equal(get(0, 4, 300000), -ETIMEDOUT);
    listen_end();
    for (char *p = said; (p = strstr(p, "; retrying\n")); p++)
        warnings++;
    assert_in_range(warnings, 4, 5);
    /* A store that comes and goes does not fill the log either. */
    listen_begin();
    fake.object = "stored";
    for (int i = 0; i < 50; i++) {
        fake.nfail = 1;
        assert_int_equal(get(0, 4, STORE_FOREVER), 0);
    }
    assert_in_range(listen_end(), 0, 4);
}

static void test_final_means_one_try(void **state)
{
    (void)state;
    fake.nfail = -1;
    fake.fate = STORE_FINAL;
    listen_begin();
    int r = store_put(store, "log/7", "x", 1, 0, STORE_FOREVER);
    int lines = listen_end();
    assert_int_equal(r, -EIO);
    assert_int_equal(fake.ntries, 1);
    assert_int_equal(lines, 1);
    assert_string_equal(said, "s3vol: s3://b/vm1: PUT log/7: the script says so\n");
    assert_true(stats().reachable);
    assert_int_equal(stats().bytes_up, 0);
}

static void test_refused_is_final_unless_forever(void **state)
{
    (void)state;
    fake.nfail = 3;
    fake.fate = STORE_REFUSED;
    fake.error = -EACCES;
    assert_int_equal(store_put(store, "log/7", "x", 1, 0, 3600000), -EACCES);
    assert_int_equal(fake.ntries, 1);
    int64_t start = now_ms;
    assert_int_equal(store_put(store, "log/7", "x", 1, 0, STORE_FOREVER), 0);
    assert_int_equal(fake.ntries, 4);
    assert_in_range(now_ms - start, 2 * 5000, 10000 + 20000);
}

/* Credentials that are renewed a moment too late. */
static void test_refused_is_insisted_on(void **state)
{
    (void)state;
    fake.nfail = 3;
    fake.fate = STORE_REFUSED;
    fake.error = -EACCES;
    fake.object = "stored";
    assert_int_equal(get(0, 4, STORE_INSIST | 60000), 0);
    assert_int_equal(fake.ntries, 4);
    fake.nfail = -1;
    int64_t start = now_ms;
    listen_begin();
    int r = get(0, 4, STORE_INSIST | 30000);
    listen_end();
    assert_int_equal(r, -ETIMEDOUT);
    assert_int_equal(now_ms - start, 30000); /* all of it, and no more */
    assert_non_null(strstr(said, "gave up after 30 s: the script says so"));
    assert_false(stats().reachable);
    assert_int_equal(get(0, 4, 3600000), -EACCES);
    assert_true(stats().reachable);
}

static void test_misses_are_silent(void **state)
{
    uint64_t size;
    size_t len;
    char buf[8];

    (void)state;
    listen_begin();
    int r = get(0, 4, 0);
    int r_head = store_get_head(store, "volume", buf, sizeof buf, &len, &size, 0);
    fake.object = "there";
    int r_put = store_put(store, "log/7", "x", 1, STORE_IF_ABSENT, 0);
    assert_int_equal(listen_end(), 0);
    assert_int_equal(r, -ENOENT);
    assert_int_equal(r_head, -ENOENT);
    assert_int_equal(r_put, -EEXIST);
    assert_int_equal(stats().failed, 0);
}

/* A PUT that was carried out, and whose answer was lost, is there at the second try. */
static void test_lost_answer_is_exist(void **state)
{
    (void)state;
    fake.nfail = 1;
    fake.lost = true;
    assert_int_equal(store_put(store, "log/7", "x", 1, STORE_IF_ABSENT, STORE_FOREVER), -EEXIST);
    assert_int_equal(fake.ntries, 2);
}

static void test_get_resumes(void **state)
{
    (void)state;
    fake.object = "0123456789abcdefghijklmnopqrstuvwxyz";
    fake.nfail = 4;
    fake.cut = 3;
    assert_int_equal(get(2, 20, STORE_FOREVER), 0);
    assert_string_equal(got, "23456789abcdefghijkl");
    assert_int_equal(fake.ntries, 5);
    assert_int_equal(stats().bytes_down, 20);
    /* Each try got further, so each wait is a first one. */
    assert_in_range(longest_wait_ms, 0, 100);

    /* Everything came, and then the connection broke. */
    fake.nfail = -1;
    fake.cut = 100;
    fake.ntries = 0;
    assert_int_equal(get(2, 20, STORE_FOREVER), 0);
    assert_int_equal(fake.ntries, 1);
}

static int refuse_after_4(void *ctx, const void *data, size_t len)
{
    size_t *taken = ctx;

    (void)data;
    if (*taken >= 4)
        return -EXDEV;
    *taken += len;
    return 0;
}

static void test_sink_error_is_passed_on(void **state)
{
    size_t taken = 0;

    (void)state;
    fake.object = "0123456789";
    fake.nfail = 1;
    fake.cut = 4;
    listen_begin();
    int r = store_get(store, "log/7", 0, 10, refuse_after_4, &taken, STORE_FOREVER);
    assert_int_equal(listen_end(), 1); /* of the cut */
    assert_int_equal(r, -EXDEV);
    assert_int_equal(taken, 4);
    assert_int_equal(fake.ntries, 2);
    assert_int_equal(stats().failed, 1);
}

static void test_short_object(void **state)
{
    (void)state;
    fake.object = "0123";
    listen_begin();
    int r = get(0, 5, STORE_FOREVER);
    assert_int_equal(listen_end(), 1);
    assert_int_equal(r, -EBADMSG);
    assert_non_null(strstr(said, "GET log/7: the object ends at byte 4"));
    assert_int_equal(fake.ntries, 1);
    assert_int_equal(get(10, 1, STORE_FOREVER), -EBADMSG);
}

static void test_get_head(void **state)
{
    uint64_t size = 0;
    size_t len = 0;
    char buf[8];

    (void)state;
    fake.object = "0123456789";
    fake.nfail = 1;
    fake.cut = 3;
    assert_int_equal(store_get_head(store, "volume", buf, 8, &len, &size, STORE_FOREVER), 0);
    assert_int_equal(len, 8);
    assert_int_equal(size, 10);
    assert_memory_equal(buf, "01234567", 8);
    fake.object = "01";
    assert_int_equal(store_get_head(store, "volume", buf, 8, &len, NULL, 0), 0);
    assert_int_equal(len, 2);
    fake.object = "";
    assert_int_equal(store_get_head(store, "volume", buf, 8, &len, &size, 0), 0);
    assert_int_equal(len, 0);
    assert_int_equal(size, 0);
}

static char listed[256];
static int to_listed(void *ctx, const char *key, uint64_t size_bytes)
{
    (void)size_bytes;
    if (ctx && strcmp(ctx, key) == 0)
        return -EXDEV;
    return format(listed + strlen(listed), sizeof listed - strlen(listed), " %s", key);
}

static void test_list_pages(void **state)
{
    const char *keys[] = {"log/1", "log/2", "log/3", "log/4", "log/5", NULL};
    char stop_at[] = "log/3";

    (void)state;
    fake.listed = keys;
    fake.nfail = 2;
    listed[0] = 0;
    assert_int_equal(store_list(store, "log/", "", to_listed, NULL, STORE_FOREVER), 0);
    assert_string_equal(listed, " log/1 log/2 log/3 log/4 log/5");
    assert_int_equal(stats().list, 5);
    listed[0] = 0;
    assert_int_equal(store_list(store, "log/", "log/3", to_listed, NULL, STORE_FOREVER), 0);
    assert_string_equal(listed, " log/4 log/5");
    listed[0] = 0;
    assert_int_equal(store_list(store, "log/", "", to_listed, stop_at, STORE_FOREVER), -EXDEV);
    assert_string_equal(listed, " log/1 log/2");
}

/* A listing may take longer than any one request of it: so may what is done with what is listed. */
static int slowly_to_listed(void *ctx, const char *key, uint64_t size_bytes)
{
    now_ms += 20000;
    fake.nfail = 1; /* of the next page, if there is one */
    return to_listed(ctx, key, size_bytes);
}

static void test_each_page_has_its_patience(void **state)
{
    const char *keys[] = {"log/1", "log/2", "log/3", "log/4", "log/5", NULL};

    (void)state;
    fake.listed = keys;
    fake.try_ms = 20000;
    listed[0] = 0;
    assert_int_equal(store_list(store, "log/", "", slowly_to_listed, NULL, 30000), 0);
    assert_string_equal(listed, " log/1 log/2 log/3 log/4 log/5");
    assert_int_equal(stats().retried, 2);
    /* Not more than that. */
    fake.nfail = -1;
    assert_int_equal(store_list(store, "log/", "", to_listed, NULL, 30000), -ETIMEDOUT);
}

static void test_list_dirs(void **state)
{
    const char *keys[] = {"vm-1/", "vm/", "vm0/", "vm1/", "vm10/", NULL};

    (void)state;
    fake.listed = keys;
    listed[0] = 0;
    assert_int_equal(store_list_dirs(store, to_listed, NULL, 0), 0);
    assert_string_equal(listed, " vm-1 vm vm0 vm1 vm10");
}

static void test_list_out_of_order(void **state)
{
    const char *keys[] = {"log/2", "log/1", NULL};

    (void)state;
    fake.listed = keys;
    listed[0] = 0;
    assert_int_equal(store_list(store, "log/", "", to_listed, NULL, STORE_FOREVER), -EIO);
    assert_string_equal(listed, " log/2");
}

static void test_list_without_end(void **state)
{
    const char *keys[] = {"log/1", NULL};

    (void)state;
    fake.listed = keys;
    fake.endless = true;
    listed[0] = 0;
    assert_int_equal(store_list(store, "log/", "", to_listed, NULL, STORE_FOREVER), -EIO);
    assert_string_equal(listed, " log/1");
    assert_int_equal(fake.ntries, 2);
}

static void test_delete_in_batches(void **state)
{
    enum { N = 2001 };
    const char **keys = calloc(N, sizeof *keys);

    (void)state;
    for (int i = 0; i < N; i++)
        keys[i] = "log/1";
    fake.nfail = 1;
    assert_int_equal(store_delete(store, keys, N, STORE_FOREVER), 0);
    assert_int_equal(fake.ndeleted, N);
    assert_int_equal(stats().del, 4);
    assert_int_equal(store_delete(store, NULL, 0, 0), 0);
    assert_int_equal(stats().del, 4);
    free(keys);
}

static void test_bad_keys(void **state)
{
    static const char *const keys[] = {"",       "/a",   "a/",  "a//b", "..",        "a/../b",
                                       ".tmp-1", "a/.b", "a b", "a\nb", "a\xc3\xa9", "a%"};
    char long_key[STORE_KEY_MAX + 1];

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
        assert_int_equal(store_put(store, keys[i], "x", 1, 0, 0), -EINVAL);
    memset(long_key, 'k', sizeof long_key);
    long_key[STORE_KEY_MAX] = 0;
    assert_int_equal(store_put(store, long_key, "x", 1, 0, 0), -EINVAL);
    long_key[STORE_KEY_MAX - 1] = 0;
    assert_int_equal(store_put(store, long_key, "x", 1, 0, 0), 0);
    assert_int_equal(fake.ntries, 1);
}

static void *putter(void *ctx)
{
    *(int *)ctx = store_put(store, "log/7", "x", 1, 0, STORE_FOREVER);
    return NULL;
}

static void test_stop_wakes_sleepers(void **state)
{
    pthread_t t;
    int r = 0;

    (void)state;
    fake.nfail = -1;
    waits_for_real = true;
    listen_begin();
    assert_int_equal(pthread_create(&t, NULL, putter, &r), 0);
    while (!nwaits)
        sched_yield();
    store_stop(store);
    pthread_join(t, NULL);
    int lines = listen_end();
    assert_int_equal(r, -ECANCELED);
    assert_int_equal(nwaits, 1); /* not by the deadline of the test's wait */
    assert_int_equal(lines, 1);  /* the warning; being stopped is nothing to tell */
    assert_true(fake.stopped);
    assert_int_equal(get(0, 1, STORE_FOREVER), -ECANCELED);
    assert_int_equal(fake.ntries, 1);
}

static void test_open_by_url(void **state)
{
    struct store_config config = {0};
    char dir[] = "/tmp/test-store-XXXXXX", url[64], buf[8];
    struct store *s;
    size_t len;

    (void)state;
    assert_int_equal(store_open(&config, "s3:/oops", &s), -EINVAL);
    assert_non_null(mkdtemp(dir));
    assert_int_equal(format(url, sizeof url, "file://%s/vm1@snap", dir), 0);
    assert_int_equal(store_open(&config, url, &s), 0);
    assert_int_equal(store_put(s, "volume", "x", 1, STORE_IF_ABSENT, 0), 0);
    assert_int_equal(store_get_head(s, "volume", buf, sizeof buf, &len, NULL, 0), 0);
    assert_int_equal(len, 1);
    assert_int_equal(strncmp(store_url(s), dir, strlen(dir)), 0);
    assert_int_equal(store_delete(s, (const char *[]){"volume"}, 1, 0), 0);
    store_free(s);
    store_free(NULL);
    assert_int_equal(rmdir(dir), 0);
}

#define STORE_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        STORE_TEST(test_retries_until_it_works),
        STORE_TEST(test_backoff_grows_to_its_cap),
        STORE_TEST(test_patience_ends),
        STORE_TEST(test_outage_is_told_once_a_minute),
        STORE_TEST(test_final_means_one_try),
        STORE_TEST(test_refused_is_final_unless_forever),
        STORE_TEST(test_refused_is_insisted_on),
        STORE_TEST(test_misses_are_silent),
        STORE_TEST(test_lost_answer_is_exist),
        STORE_TEST(test_get_resumes),
        STORE_TEST(test_sink_error_is_passed_on),
        STORE_TEST(test_short_object),
        STORE_TEST(test_get_head),
        STORE_TEST(test_list_pages),
        STORE_TEST(test_each_page_has_its_patience),
        STORE_TEST(test_list_dirs),
        STORE_TEST(test_list_out_of_order),
        STORE_TEST(test_list_without_end),
        STORE_TEST(test_delete_in_batches),
        STORE_TEST(test_bad_keys),
        STORE_TEST(test_stop_wakes_sleepers),
        STORE_TEST(test_open_by_url),
    };

    msg_set_sink(MSG_NONE);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
