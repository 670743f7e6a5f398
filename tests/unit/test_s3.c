/*
 * The S3 backend against a real server: S3VOL_TEST_ENDPOINT, S3VOL_TEST_BUCKET and AWS_* say which;
 * without them every test is skipped. Each test works below a prefix of its own and cleans up.
 * S3VOL_TEST_WEAK=1 is for s3rver, which has no conditional PUT, accepts every secret, answers a
 * GET of an empty object with one byte too few, takes ".." in a key for a parent directory, and
 * answers a PUT before it has written the file.
 */
#include "../../store/scope.h"
#include "../../store/store.h"
#include "../../store/url.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

static struct store_error error;

static void need_server(void)
{
    if (getenv("S3VOL_TEST_ENDPOINT") && getenv("S3VOL_TEST_BUCKET"))
        return;
    print_message("skipped: S3VOL_TEST_ENDPOINT and S3VOL_TEST_BUCKET are not set\n");
    skip();
}

static struct url test_url(const char *prefix)
{
    struct url url = {.s3 = true};

    assert_int_equal(format(url.bucket, sizeof url.bucket, "%s", getenv("S3VOL_TEST_BUCKET")), 0);
    assert_int_equal(format(url.path, sizeof url.path, "%s", prefix), 0);
    assert_int_equal(format(url.text, sizeof url.text, "s3://%s/%s", url.bucket, prefix), 0);
    return url;
}

static struct store_config test_config(void)
{
    return (struct store_config){.endpoint = getenv("S3VOL_TEST_ENDPOINT")};
}

/* Below a prefix that no other run uses. */
static struct store_backend open_below(const char *name)
{
    struct store_backend backend;
    struct store_config config = test_config();
    char prefix[256];

    assert_int_equal(
        format(prefix, sizeof prefix, "t/%ld-%ld/%s", (long)time(NULL), (long)getpid(), name), 0);
    struct url url = test_url(prefix);
    assert_int_equal(s3_open(&url, &config, &backend), 0);
    return backend;
}

/* Fails the test with the error's text if `r` is not `want`. */
static void expect(int r, int want)
{
    if (r != want)
        print_error("got %d (%s), expected %d\n", r, error.text, want);
    assert_int_equal(r, want);
}

static int put(struct store_backend *b, const char *key, const char *text, unsigned flags)
{
    return b->ops->put(b->self, key, text, strlen(text), flags, &error);
}

/* With the few retries that a server may need under load. */
static int delete_keys(struct store_backend *b, const char *const *keys, size_t nkeys,
                       struct store_error *err)
{
    int r = -EIO;

    for (int i = 0; i < 10 && r; i++)
        if ((r = b->ops->del(b->self, keys, nkeys, err)) && err->fate != STORE_RETRY)
            break;
    return r;
}

static void del(struct store_backend *b, const char *key)
{
    expect(delete_keys(b, &key, 1, &error), 0);
}

struct buffer {
    char data[65536];
    size_t len;
};

static int into_buffer(void *ctx, const void *data, size_t len)
{
    struct buffer *buffer = ctx;

    if (len > sizeof buffer->data - buffer->len)
        return -EOVERFLOW;
    memcpy(buffer->data + buffer->len, data, len);
    buffer->len += len;
    return 0;
}

static int get(struct store_backend *b, const char *key, uint64_t offset, uint64_t len,
               struct buffer *buffer, uint64_t *ret_size)
{
    buffer->len = 0;
    return b->ops->get(b->self, key, offset, len, into_buffer, buffer, ret_size, &error);
}

static void expect_range(struct store_backend *b, uint64_t offset, uint64_t len, const char *want)
{
    struct buffer buffer;
    uint64_t size = 99;

    expect(get(b, "ten", offset, len, &buffer, &size), 0);
    assert_int_equal(buffer.len, strlen(want));
    assert_memory_equal(buffer.data, want, buffer.len);
    assert_true(size == 10 || (size == 0 && offset >= 10));
}

static void test_ranges(void **state)
{
    (void)state;
    need_server();
    struct store_backend b = open_below("ranges");

    expect(put(&b, "ten", "0123456789", 0), 0);
    expect_range(&b, 0, 10, "0123456789");
    expect_range(&b, 0, 1, "0");
    expect_range(&b, 3, 4, "3456");
    expect_range(&b, 9, 1, "9");
    expect_range(&b, 0, 100, "0123456789"); /* what there is */
    expect_range(&b, 8, 100, "89");
    expect_range(&b, 1, UINT64_MAX, "123456789");
    expect_range(&b, 10, 5, ""); /* past the end */
    expect_range(&b, 1000, 5, "");
    del(&b, "ten");
    b.ops->free(b.self);
}

static void test_empty_and_missing_objects(void **state)
{
    struct buffer buffer;
    uint64_t size;

    (void)state;
    need_server();
    struct store_backend b = open_below("empty");

    expect(get(&b, "none", 0, 10, &buffer, &size), -ENOENT);
    expect(put(&b, "none", "", 0), 0);
    if (!getenv("S3VOL_TEST_WEAK")) {
        expect(get(&b, "none", 0, 10, &buffer, &size), 0);
        assert_int_equal(buffer.len, 0);
        assert_int_equal(size, 0);
    }
    del(&b, "none");
    del(&b, "none"); /* deleting what is not there is no error */
    expect(get(&b, "none", 0, 10, &buffer, &size), -ENOENT);
    b.ops->free(b.self);
}

static void test_put_if_absent(void **state)
{
    struct buffer buffer;
    uint64_t size;
    int r;

    (void)state;
    need_server();
    struct store_backend b = open_below("absent");

    expect(put(&b, "k", "first", STORE_IF_ABSENT), 0);
    r = put(&b, "k", "second", STORE_IF_ABSENT);
    expect(get(&b, "k", 0, 100, &buffer, &size), 0);
    del(&b, "k");
    b.ops->free(b.self);
    if (getenv("S3VOL_TEST_WEAK")) { /* t-no-conditional-put has what follows from it */
        expect(r, 0);
        return;
    }
    expect(r, -EEXIST);
    assert_int_equal(buffer.len, 5);
    assert_memory_equal(buffer.data, "first", 5);
}

static void test_8_mib_round_trip(void **state)
{
    enum { LEN = 8 << 20 };
    struct buffer buffer;
    uint64_t size, seed = 88172645463325252u;
    uint64_t *data = malloc(LEN);

    (void)state;
    if (!getenv("S3VOL_TEST_ENDPOINT"))
        free(data);
    need_server();
    struct store_backend b = open_below("large");

    for (size_t i = 0; i < LEN / 8; i++) {
        seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
        data[i] = seed;
    }
    expect(b.ops->put(b.self, "k", data, LEN, 0, &error), 0);
    for (size_t at = 0; at < LEN; at += 1 << 20) {
        expect(get(&b, "k", at + 5, 65536, &buffer, &size), 0);
        assert_int_equal(size, LEN);
        assert_memory_equal(buffer.data, (char *)data + at + 5, 65536);
    }
    del(&b, "k");
    b.ops->free(b.self);
    free(data);
}

/* ------------------------------------------------------------------ lists */

enum { MANY = 1105 };

static void key_of(unsigned i, char key[32])
{
    assert_int_equal(format(key, 32, "log/%016x", i * 3), 0);
}

static void delete_many(struct store_backend *b)
{
    char(*names)[32] = calloc(MANY, sizeof *names);
    const char **keys = calloc(MANY, sizeof *keys);

    assert_true(names && keys);
    for (unsigned i = 0; i < MANY; i++) {
        key_of(i, names[i]);
        keys[i] = names[i];
    }
    expect(delete_keys(b, keys, MANY, &error), 0);
    expect(delete_keys(b, keys, 2, &error), 0); /* which are not there any more */
    free(names);
    free(keys);
}

static unsigned list_all(struct store_backend *b, const char *prefix, const char *after, bool dirs,
                         char last[STORE_KEY_MAX])
{
    struct store_page page = {.more = true};
    unsigned n = 0;

    assert_int_equal(format(last, STORE_KEY_MAX, "%s", after), 0);
    while (page.more) {
        expect(b->ops->list(b->self, prefix, last, dirs, &page, &error), 0);
        assert_true(page.nitems || !page.more);
        for (size_t i = 0; i < page.nitems; i++, n++) {
            if (!dirs)
                assert_true(strcmp(page.items[i].key, last) > 0);
            assert_int_equal(page.items[i].size_bytes, dirs ? 0 : 1);
            memcpy(last, page.items[i].key, STORE_KEY_MAX);
        }
        free(page.items);
    }
    return n;
}

static void test_long_lists_and_batch_delete(void **state)
{
    char key[32], last[STORE_KEY_MAX];

    (void)state;
    need_server();
    struct store_backend b = open_below("many");

    for (unsigned i = 0; i < MANY; i++) {
        key_of(i, key);
        expect(put(&b, key, "x", 0), 0);
    }
    expect(put(&b, "volume", "x", 0), 0);
    assert_int_equal(list_all(&b, "log/", "", false, last), MANY);
    key_of(MANY - 1, key);
    assert_string_equal(last, key);
    assert_int_equal(list_all(&b, "", "", false, last), MANY + 1);
    assert_string_equal(last, "volume");
    key_of(49, key);
    assert_int_equal(list_all(&b, "log/", key, false, last), MANY - 50);
    assert_int_equal(list_all(&b, "log/", "log/0000000000000001", false, last), MANY - 1);
    assert_int_equal(list_all(&b, "log/", "log/z", false, last), 0);
    assert_int_equal(list_all(&b, "map/", "", false, last), 0);
    assert_int_equal(list_all(&b, "", "", true, last), 1);
    assert_string_equal(last, "log");
    delete_many(&b);
    assert_int_equal(list_all(&b, "", "", false, last), 1);
    del(&b, "volume");
    assert_int_equal(list_all(&b, "", "", false, last), 0);
    b.ops->free(b.self);
}

static void test_directories(void **state)
{
    /* In the order of S3, where a directory sorts with its slash. */
    static const char *const keys[] = {"a-b/volume", "a.c",   "a/1", "a/volume",
                                       "a0",         "b/c/d", "b/e"};
    static const char *const dirs[] = {"a-b", "a", "b"};
    struct store_page page;
    char last[STORE_KEY_MAX];

    (void)state;
    need_server();
    struct store_backend b = open_below("dirs");

    for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
        expect(put(&b, keys[i], "x", 0), 0);
    expect(b.ops->list(b.self, "", "", true, &page, &error), 0);
    assert_int_equal(page.nitems, ARRAY_SIZE(dirs));
    for (size_t i = 0; i < page.nitems; i++)
        assert_string_equal(page.items[i].key, dirs[i]);
    free(page.items);
    assert_int_equal(list_all(&b, "", "a-b", true, last), 2);
    assert_int_equal(list_all(&b, "", "a", true, last), 1);
    assert_string_equal(last, "b");
    assert_int_equal(list_all(&b, "", "b", true, last), 0);
    expect(delete_keys(&b, keys, ARRAY_SIZE(keys), &error), 0);
    b.ops->free(b.self);
}

static void test_odd_characters_in_the_prefix(void **state)
{
    static const char *const odd[] = {
        "sp ace",      "pl+us",      "per%41cent", "a&b=c?d#e", "\xc3\xa4\xe2\x82\xac",
        "'(!)*~,;:@$", "dot/../dot", "<x>\"y\""};
    static const char *const keys[] = {"a/1", "a/2", "b/1"};
    struct buffer buffer;
    uint64_t size;
    char last[STORE_KEY_MAX];

    (void)state;
    need_server();
    for (size_t i = 0; i < ARRAY_SIZE(odd); i++) {
        if (getenv("S3VOL_TEST_WEAK") && strstr(odd[i], ".."))
            continue;
        struct store_backend b = open_below(odd[i]);

        print_message("prefix %s\n", odd[i]);
        for (size_t k = 0; k < ARRAY_SIZE(keys); k++)
            expect(put(&b, keys[k], "x", 0), 0);
        expect(get(&b, "a/1", 0, 1, &buffer, &size), 0);
        assert_int_equal(list_all(&b, "a/", "", false, last), 2);
        assert_int_equal(list_all(&b, "", "a/1", false, last), 2);
        assert_int_equal(list_all(&b, "", "", true, last), 2);
        expect(delete_keys(&b, keys, ARRAY_SIZE(keys), &error), 0);
        assert_int_equal(list_all(&b, "", "", false, last), 0);
        b.ops->free(b.self);
    }
}

/* ------------------------------------------------------------------ many at once */

struct worker {
    struct store_backend *backend;
    unsigned number;
    int result;
};

/* One PUT and the GET of it. */
static int put_and_get(struct worker *w, const char *key, const char *text, struct store_error *err)
{
    struct store_backend *b = w->backend;
    struct buffer buffer = {.len = 0};
    uint64_t size;
    int r = b->ops->put(b->self, key, text, strlen(text), 0, err);

    if (!r)
        r = b->ops->get(b->self, key, 0, 100, into_buffer, &buffer, &size, err);
    if (!r && !getenv("S3VOL_TEST_WEAK") &&
        (buffer.len != strlen(text) || memcmp(buffer.data, text, buffer.len)))
        r = -EBADMSG;
    return r;
}

static void *work(void *ctx)
{
    struct worker *w = ctx;
    struct store_error err = {.text = ""};
    char key[32], text[32];
    const char *keys[] = {key};

    w->result = format(key, sizeof key, "w/%u", w->number);
    for (int i = 0; i < 30 && !w->result; i++) {
        if (format(text, sizeof text, "%u %d", w->number, i))
            w->result = -EINVAL;
        for (int tries = 0; tries < (getenv("S3VOL_TEST_WEAK") ? 10 : 1); tries++)
            if (!(w->result = put_and_get(w, key, text, &err)))
                break;
    }
    if (!w->result)
        w->result = delete_keys(w->backend, keys, 1, &err);
    if (w->result)
        print_error("worker %u: %d (%s)\n", w->number, w->result, err.text);
    return NULL;
}

/* More threads than connections: some wait for one. */
static void test_threads(void **state)
{
    pthread_t threads[8];
    struct worker workers[8];
    struct store_backend b;
    struct store_config config = test_config();

    (void)state;
    need_server();
    struct url url = test_url("threads");
    config.connections = 3;
    assert_int_equal(s3_open(&url, &config, &b), 0);
    for (unsigned i = 0; i < 8; i++) {
        workers[i] = (struct worker){&b, i, 0};
        assert_int_equal(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
    }
    for (unsigned i = 0; i < 8; i++)
        pthread_join(threads[i], NULL);
    for (unsigned i = 0; i < 8; i++)
        assert_int_equal(workers[i].result, 0);
    b.ops->free(b.self);
}

/* ------------------------------------------------------------------ refusals */

/* What a server says to keys, a bucket or an endpoint that are not right: errno, fate, a word. */
static void expect_refusal(const char *bucket, const char *endpoint, int err, enum store_fate fate,
                           const char *word)
{
    struct store_config config = {.endpoint = endpoint, .connect_timeout_ms = 2000};
    struct store_backend b;
    struct store_page page;
    struct buffer buffer;
    uint64_t size;
    struct url url = test_url("x");

    assert_int_equal(format(url.bucket, sizeof url.bucket, "%s", bucket), 0);
    assert_int_equal(s3_open(&url, &config, &b), 0);
    for (int i = 0; i < 3; i++) {
        error = (struct store_error){.text = ""};
        expect(i == 0   ? put(&b, "k", "x", 0)
               : i == 1 ? get(&b, "k", 0, 1, &buffer, &size)
                        : b.ops->list(b.self, "", "", false, &page, &error),
               err);
        if (i == 2)
            free(page.items);
        print_message("    %s\n", error.text);
        assert_int_equal(error.fate, fate);
        assert_non_null(strstr(error.text, word));
    }
    b.ops->free(b.self);
}

static void with_env(const char *name, const char *value, const char *word)
{
    char *old = strdup(getenv(name));

    assert_non_null(old);
    setenv(name, value, 1);
    expect_refusal(getenv("S3VOL_TEST_BUCKET"), getenv("S3VOL_TEST_ENDPOINT"), -EACCES,
                   STORE_REFUSED, word);
    setenv(name, old, 1);
    free(old);
}

static void test_wrong_keys(void **state)
{
    (void)state;
    need_server();
    with_env("AWS_ACCESS_KEY_ID", "NOBODY", "access key");
    if (getenv("S3VOL_TEST_WEAK"))
        print_message("not tried: this server accepts every secret\n");
    else
        with_env("AWS_SECRET_ACCESS_KEY", "wrong", "secret key");
}

static int64_t an_hour_ago_ms(void)
{
    return clock_system.wall_ms() - 3600 * 1000;
}

static void test_wrong_clock(void **state)
{
    const struct clock late = {clock_system.now_ms, an_hour_ago_ms, clock_system.wait_until};
    struct store_config config = test_config();
    struct store_backend b;

    (void)state;
    need_server();
    struct url url = test_url("x");
    config.clock = &late;
    assert_int_equal(s3_open(&url, &config, &b), 0);
    expect(put(&b, "k", "x", 0), -EACCES);
    print_message("    %s\n", error.text);
    assert_int_equal(error.fate, STORE_REFUSED);
    assert_non_null(strstr(error.text, "s behind"));
    b.ops->free(b.self);
}

static void test_wrong_bucket(void **state)
{
    (void)state;
    need_server();
    expect_refusal("there-is-no-such-bucket-of-ours", getenv("S3VOL_TEST_ENDPOINT"), -EIO,
                   STORE_FINAL, "does not exist");
}

static void test_unreachable_endpoints(void **state)
{
    (void)state;
    need_server();
    expect_refusal("tests", "http://127.0.0.1:1", -ETIMEDOUT, STORE_RETRY, "127.0.0.1:1");
    expect_refusal("tests", "http://no.such.host.invalid", -ETIMEDOUT, STORE_RETRY, "resolve");
    if (strncmp(getenv("S3VOL_TEST_ENDPOINT"), "http://", 7) == 0) {
        char tls[256];

        assert_int_equal(format(tls, sizeof tls, "https://%s", getenv("S3VOL_TEST_ENDPOINT") + 7),
                         0);
        expect_refusal("tests", tls, -ETIMEDOUT, STORE_RETRY, "TLS");
    }
}

/* ------------------------------------------------------------------ speed */

static double per_second(struct timespec since, unsigned n)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return n / ((double)(now.tv_sec - since.tv_sec) + (double)(now.tv_nsec - since.tv_nsec) / 1e9);
}

/* Only on demand (S3VOL_TEST_SPEED=1): prints, judges nothing. */
static void test_speed(void **state)
{
    enum { N = 2000 };
    static char data[65536];
    struct buffer buffer;
    struct timespec since;
    uint64_t size;

    (void)state;
    need_server();
    if (!getenv("S3VOL_TEST_SPEED"))
        skip();
    struct store_backend b = open_below("speed");
    clock_gettime(CLOCK_MONOTONIC, &since);
    for (int i = 0; i < N; i++)
        expect(b.ops->put(b.self, "k", data, 4096, 0, &error), 0);
    print_message("PUT 4 KiB: %.0f/s\n", per_second(since, N));
    expect(b.ops->put(b.self, "k", data, sizeof data, 0, &error), 0);
    clock_gettime(CLOCK_MONOTONIC, &since);
    for (int i = 0; i < N; i++)
        expect(get(&b, "k", 0, sizeof data, &buffer, &size), 0);
    print_message("GET 64 KiB: %.0f/s\n", per_second(since, N));
    del(&b, "k");
    b.ops->free(b.self);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ranges),
        cmocka_unit_test(test_empty_and_missing_objects),
        cmocka_unit_test(test_put_if_absent),
        cmocka_unit_test(test_8_mib_round_trip),
        cmocka_unit_test(test_long_lists_and_batch_delete),
        cmocka_unit_test(test_directories),
        cmocka_unit_test(test_odd_characters_in_the_prefix),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_wrong_keys),
        cmocka_unit_test(test_wrong_clock),
        cmocka_unit_test(test_wrong_bucket),
        cmocka_unit_test(test_unreachable_endpoints),
        cmocka_unit_test(test_speed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
