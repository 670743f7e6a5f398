/*
 * The S3 backend against answers of all kinds, also those that no good server gives.
 */
#include "../../store/scope.h"
#include "../../store/store.h"
#include "../../store/url.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include "scripted_server.h"

#include <openssl/evp.h>

static struct store_error error;
static char received[256]; /* what the sink got */
static size_t received_len;

static struct store_backend open_backend(const struct server *s, unsigned connections,
                                         int64_t stall_timeout_ms)
{
    const struct store_config config = {
        .endpoint = s->endpoint, .connections = connections, .stall_timeout_ms = stall_timeout_ms};
    const struct url url = {
        .s3 = true, .bucket = "bucket", .path = "pre/vol", .text = "s3://bucket/pre/vol"};
    struct store_backend backend;

    setenv("AWS_ACCESS_KEY_ID", "AKID", 1);
    setenv("AWS_SECRET_ACCESS_KEY", "SECRET", 1);
    setenv("AWS_SESSION_TOKEN", "TOKEN", 1);
    setenv("AWS_REGION", "xx-test-1", 1);
    assert_int_equal(s3_open(&url, &config, &backend), 0);
    return backend;
}

static int into_received(void *ctx, const void *data, size_t len)
{
    (void)ctx;
    assert_true(len < sizeof received - received_len);
    memcpy(received + received_len, data, len);
    received_len += len;
    received[received_len] = '\0';
    return 0;
}

static int get(struct store_backend *b, uint64_t offset, uint64_t len, uint64_t *ret_size)
{
    received_len = 0;
    received[0] = '\0';
    error = (struct store_error){.text = ""};
    return b->ops->get(b->self, "log/1", offset, len, into_received, NULL, ret_size, &error);
}

static int put(struct store_backend *b, unsigned flags)
{
    error = (struct store_error){.text = ""};
    return b->ops->put(b->self, "log/1", "data", 4, flags, &error);
}

#define BODY(status, headers, body) "HTTP/1.1 " status "\r\n" headers "\r\n\r\n" body
#define LENGTH(n)                   "Content-Length: " #n

/* ------------------------------------------------------------------ GET */

struct get_case {
    const char *name;
    struct answer answer;
    uint64_t offset, len;
    int result;
    enum store_fate fate;
    const char *data; /* what the sink gets, even if the transfer fails */
    uint64_t size;
};

/* A 206 of so many bytes: the range it claims, what it sends. */
#define PART(n, range, data) BODY("206 P", LENGTH(n) "\r\nContent-Range: bytes " range, data)
#define CHUNKED(data)                                                                              \
    BODY("206 P", "Transfer-Encoding: chunked\r\nContent-Range: bytes 2-5/10", data)
#define NO_KEY BODY("404 N", LENGTH(37), "<Error><Code>NoSuchKey</Code></Error>")

/* clang-format off */
static const struct get_case get_cases[] = {
    {"a part", {.text = PART(4, "2-5/10", "2345")}, 2, 4, 0, 0, "2345", 10},
    {"the end of it", {.text = PART(2, "8-9/10", "89")}, 8, 4, 0, 0, "89", 10},
    {"of unknown size", {.text = PART(4, "2-5/*", "2345")}, 2, 4, 0, 0, "2345", 0},
    {"in pieces", {.text = CHUNKED("1\r\n2\r\n3\r\n345\r\n0\r\n\r\n")}, 2, 4, 0, 0, "2345", 10},
    {"after a 100", {.text = "HTTP/1.1 100 Continue\r\n\r\n" PART(1, "0-0/1", "0")}, 0, 4, 0, 0,
     "0", 1},
    {"cut", {.text = PART(4, "2-5/10", "23"), .close = true}, 2, 4, -EIO, STORE_RETRY, "23", 0},
    {"cut in a chunk", {.text = CHUNKED("4\r\n23"), .close = true}, 2, 4, -EIO, STORE_RETRY, "23",
     0},
    {"fewer than its range", {.text = PART(2, "2-5/10", "23")}, 2, 4, -EIO, STORE_RETRY, "23", 0},
    {"less than there is", {.text = PART(2, "2-3/10", "23")}, 2, 4, -EIO, STORE_RETRY, "", 0},
    {"another range", {.text = PART(4, "3-6/10", "3456")}, 2, 4, -EIO, STORE_RETRY, "", 0},
    {"no range", {.text = BODY("206 P", LENGTH(4), "2345")}, 2, 4, -EIO, STORE_RETRY, "", 0},
    {"a range that makes no sense", {.text = PART(4, "2-99999999999999999999/10", "2345")}, 2, 4,
     -EIO, STORE_RETRY, "", 0},
    {"more than asked", {.text = PART(8, "2-9/10", "23456789")}, 2, 4, 0, 0, "2345", 10},
    {"all of it", {.text = BODY("200 OK", LENGTH(10), "0123456789")}, 0, 10, 0, 0, "0123456789",
     10},
    {"all, where a part was asked", {.text = BODY("200 OK", LENGTH(10), "0123456789")}, 0, 4, 0, 0,
     "0123", 10},
    {"all of less", {.text = BODY("200 OK", LENGTH(2), "01")}, 0, 4, 0, 0, "01", 2},
    {"all, up to the end of the connection", {.text = BODY("200 OK", "A: b", "01"), .close = true},
     0, 4, 0, 0, "01", 2},
    {"an empty one", {.text = BODY("200 OK", LENGTH(0), "")}, 0, 4, 0, 0, "", 0},
    {"all, where a later part was asked", {.text = BODY("200 OK", LENGTH(10), "0123456789")}, 2, 4,
     -EOPNOTSUPP, STORE_FINAL, "", 0},
    {"a 204", {.text = BODY("204 N", "A: b", "")}, 0, 4, -EIO, STORE_RETRY, "", 0},
    {"a 201 with a body", {.text = BODY("201 C", LENGTH(2), "xx")}, 0, 4, -EIO, STORE_RETRY, "",
     0},
    {"past the end", {.text = BODY("416 R", LENGTH(0) "\r\nContent-Range: bytes */10", "")}, 10, 4,
     0, 0, "", 10},
    {"past the end, of unknown size", {.text = BODY("416 R", LENGTH(2), "no")}, 10, 4, 0, 0, "",
     0},
    {"not past the end", {.text = BODY("416 R", LENGTH(0) "\r\nContent-Range: bytes */11", "")},
     10, 4, -EIO, STORE_RETRY, "", 0},
    {"an error", {.text = BODY("500 I", LENGTH(4), "2345")}, 2, 4, -EIO, STORE_RETRY, "", 0},
    {"no such key", {.text = NO_KEY}, 2, 4, -ENOENT, 0, "", 0},
    {"no such page", {.text = BODY("404 N", LENGTH(4), "oops")}, 2, 4, -EIO, STORE_RETRY, "", 0},
    {"nothing", {.close = true}, 2, 4, -ETIMEDOUT, STORE_RETRY, "", 0},
    {"no HTTP", {.text = "220 mail.example.com ESMTP\r\n", .close = true}, 2, 4, -ETIMEDOUT,
     STORE_RETRY, "", 0},
    {"half a header", {.text = "HTTP/1.1 206 P\r\nContent-Le", .close = true}, 2, 4, -EIO,
     STORE_RETRY, "", 0},
};
/* clang-format on */

static void test_get(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(get_cases); i++) {
        const struct get_case *c = &get_cases[i];
        struct answer script[2] = {c->answer, {.text = BODY("200 OK", LENGTH(2), "ok")}};
        struct server server;
        uint64_t size = 12345;

        start(&server, script, 2);
        struct store_backend b = open_backend(&server, 1, 0);
        int r = get(&b, c->offset, c->len, &size);

        if (r != c->result || strcmp(received, c->data) != 0 || (!r && size != c->size))
            print_error("%s: %d (%s), \"%s\", size %ju\n", c->name, r, error.text, received,
                        (uintmax_t)size);
        assert_int_equal(r, c->result);
        assert_string_equal(received, c->data);
        if (r == 0)
            assert_int_equal(size, c->size);
        if (r && r != -ENOENT) {
            assert_int_equal(error.fate, c->fate);
            assert_true(*error.text);
        }
        assert_int_equal(get(&b, 0, 2, &size), 0); /* the handle is as good as before */
        b.ops->free(b.self);
        finish(&server);
    }
}

static int refuse(void *ctx, const void *data, size_t len)
{
    (void)ctx, (void)data, (void)len;
    return -ENOSPC;
}

static void test_a_sink_that_gives_up(void **state)
{
    const struct answer script[] = {{.text = BODY("200 OK", LENGTH(4), "0123")}};
    struct server server;
    uint64_t size;

    (void)state;
    start(&server, script, 1);
    struct store_backend b = open_backend(&server, 1, 0);
    assert_int_equal(b.ops->get(b.self, "k", 0, 4, refuse, NULL, &size, &error), -ENOSPC);
    b.ops->free(b.self);
    finish(&server);
}

/* ------------------------------------------------------------------ PUT */

static void expect_put(const char *answer, unsigned flags, int result, enum store_fate fate)
{
    const struct answer script[] = {{.text = answer}};
    struct server server;

    start(&server, script, 1);
    struct store_backend b = open_backend(&server, 1, 0);
    int r = put(&b, flags);

    if (r != result)
        print_error("%s: %d (%s)\n", answer, r, error.text);
    assert_int_equal(r, result);
    if (r && r != -EEXIST)
        assert_int_equal(error.fate, fate);
    b.ops->free(b.self);
    finish(&server);
}

static void test_put(void **state)
{
    (void)state;
    expect_put(BODY("200 OK", LENGTH(0), ""), 0, 0, 0);
    expect_put(BODY("412 P", LENGTH(0), ""), STORE_IF_ABSENT, -EEXIST, 0);
    expect_put(BODY("412 P", LENGTH(0), ""), 0, -EIO, STORE_FINAL);
    expect_put(BODY("409 C", LENGTH(0), ""), STORE_IF_ABSENT, -EIO, STORE_RETRY);
    expect_put(BODY("501 N", LENGTH(0), ""), STORE_IF_ABSENT, -EOPNOTSUPP, STORE_FINAL);
    expect_put(BODY("404 N", LENGTH(0), ""), 0, -EIO, STORE_RETRY);
    expect_put(BODY("202 A", LENGTH(0), ""), 0, -EIO, STORE_RETRY);
    expect_put(BODY("503 S", LENGTH(0), ""), 0, -EIO, STORE_SLOW);
    expect_put(BODY("307 T", LENGTH(0) "\r\nLocation: http://127.0.0.1:1/", ""), 0, -EINVAL,
               STORE_FINAL);
}

/* What goes over the wire. */
static void test_the_request_itself(void **state)
{
    static const char *const lines[] = {
        "PUT /bucket/pre/vol/log/1 HTTP/1.1\r\n",
        "\r\nHost: 127.0.0.1:",
        "\r\nContent-Length: 4\r\n",
        "\r\nIf-None-Match: *\r\n",
        "\r\nx-amz-security-token: TOKEN\r\n",
        "\r\nx-amz-content-sha256: "
        "3a6eb0790f39ac87c94f3856b2dd2c5d110e6811602261a9a923d3bb23adc8b7\r\n",
        "/xx-test-1/s3/aws4_request,SignedHeaders=content-type;host;if-none-match;"
        "x-amz-content-sha256;x-amz-date;x-amz-security-token,Signature=",
        "\r\n\r\ndata"};
    const struct answer script[] = {{.text = BODY("200 OK", LENGTH(0), "")}};
    struct server server;

    (void)state;
    start(&server, script, 1);
    struct store_backend b = open_backend(&server, 1, 0);
    assert_int_equal(put(&b, STORE_IF_ABSENT), 0);
    for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
        if (!strstr(server.request, lines[i]))
            print_error("no \"%s\" in: %s\n", lines[i], server.request);
        assert_non_null(strstr(server.request, lines[i]));
    }
    assert_null(strcasestr(server.request, "Expect:"));
    assert_null(strstr(server.request, "SECRET"));
    b.ops->free(b.self);
    finish(&server);
}

/* The server closed the idle connection: the next request opens another, and nobody
 * notices. */
static void test_a_connection_that_died_idle(void **state)
{
    const struct answer script[] = {{.text = BODY("200 OK", LENGTH(0), ""), .close = true},
                                    {.text = BODY("200 OK", LENGTH(0), "")},
                                    {.text = BODY("200 OK", LENGTH(0), "")}};
    struct server server;

    (void)state;
    start(&server, script, 3);
    struct store_backend b = open_backend(&server, 1, 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(put(&b, 0), 0);
    b.ops->free(b.self);
    finish(&server);
    assert_int_equal(server.nconnections, 2); /* the last two shared one */
}

/* ------------------------------------------------------------------ LIST, DELETE */

#define LIST(body) "<ListBucketResult>" body "</ListBucketResult>"
#define KEY(key)   "<Contents><Key>" key "</Key><Size>7</Size></Contents>"
#define MORE       "<IsTruncated>true</IsTruncated>"
#define NO_MORE    "<IsTruncated>false</IsTruncated>"
#define XML(xml)   "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" xml

static int list(struct store_backend *b, const char *after, bool dirs, struct store_page *page)
{
    error = (struct store_error){.text = ""};
    return b->ops->list(b->self, "", after, dirs, page, &error);
}

static void expect_bad_list(const char *xml)
{
    const struct answer script[] = {{.text = xml, .close = true}};
    struct server server;
    struct store_page page;

    start(&server, script, 1);
    struct store_backend b = open_backend(&server, 1, 0);
    int r = list(&b, "", false, &page);

    if (r != -EBADMSG)
        print_error("%s: %d (%s)\n", xml, r, error.text);
    assert_int_equal(r, -EBADMSG);
    assert_int_equal(error.fate, STORE_RETRY);
    free(page.items);
    b.ops->free(b.self);
    finish(&server);
}

static void test_lists_that_make_no_sense(void **state)
{
    (void)state;
    expect_bad_list(XML(""));
    expect_bad_list(XML("no list"));
    expect_bad_list(XML(LIST(KEY("pre/vol/a"))));                          /* complete or not? */
    expect_bad_list(XML(LIST(KEY("other/a") NO_MORE)));                    /* not asked for */
    expect_bad_list(XML(LIST(KEY("pre/vol/b") KEY("pre/vol/a") NO_MORE))); /* out of order */
    expect_bad_list(XML(LIST(MORE)));                            /* would go on for ever */
    expect_bad_list(XML("<ListBucketResult>" KEY("pre/vol/a"))); /* cut */
    expect_bad_list(XML("<Error><Code>InternalError</Code></Error>"));
}

/* Directories among so many other keys that a whole answer has none; strangers' long
 * keys. */
static void test_lists_go_on_until_there_is_something(void **state)
{
    const struct answer script[] = {
        {.text = XML(LIST(KEY("pre/vol/a") KEY("pre/vol/b") MORE)), .close = true},
        {.text = XML(LIST(KEY("pre/vol/c") "<CommonPrefixes><Prefix>pre/vol/d/</"
                                           "Prefix></CommonPrefixes>" MORE)),
         .close = true},
        {.text = XML(LIST(NO_MORE)), .close = true}};
    struct server server;
    struct store_page page;

    (void)state;
    start(&server, script, ARRAY_SIZE(script));
    struct store_backend b = open_backend(&server, 1, 0);
    assert_int_equal(list(&b, "", true, &page), 0);
    assert_int_equal(page.nitems, 1);
    assert_string_equal(page.items[0].key, "d");
    assert_true(page.more);
    free(page.items);
    assert_non_null(strstr(server.request, "start-after=pre%2Fvol%2Fb "));
    assert_int_equal(list(&b, "d", true, &page), 0);
    assert_int_equal(page.nitems, 0);
    assert_false(page.more);
    free(page.items);
    assert_non_null(strstr(server.request,
                           "GET /bucket?delimiter=%2F&list-type=2&max-keys=1000&prefix=pre%2Fvol%2F"
                           "&start-after=pre%2Fvol%2Fd0 HTTP/1.1\r\n"));
    b.ops->free(b.self);
    finish(&server);
}

static void test_batch_delete(void **state)
{
    static const char *const keys[] = {"a", "b"};
    const struct answer script[] = {
        {.text = XML("<DeleteResult/>"), .close = true},
        {.text = XML("<DeleteResult><Error><Key>b</Key><Code>NoSuchKey</Code></Error></"
                     "DeleteResult>"),
         .close = true},
        {.text = XML("<DeleteResult><Error><Key>b</Key><Code>AccessDenied</Code></"
                     "Error></DeleteResult>"),
         .close = true},
        {.text = XML("<DeleteResult><Error><Key>b</Key><Code>InternalError</Code></"
                     "Error></DeleteResult>"),
         .close = true},
        {.text = XML("what?"), .close = true},
        {.text = BODY("501 N", LENGTH(0), "")}, /* no batches here: one by one, now and later */
        {.text = BODY("204 N", "A: b", "")},
        {.text = BODY("404 N", LENGTH(37), "<Error><Code>NoSuchKey</Code></Error>")},
        {.text = BODY("204 N", "A: b", "")},
        {.text = BODY("204 N", "A: b", "")}};
    const int results[] = {0, 0, -EACCES, -EIO, -EBADMSG, 0, 0};
    const enum store_fate fates[] = {0, 0, STORE_REFUSED, STORE_RETRY, STORE_RETRY, 0, 0};
    struct server server;

    (void)state;
    start(&server, script, ARRAY_SIZE(script));
    struct store_backend b = open_backend(&server, 1, 0);
    for (size_t i = 0; i < ARRAY_SIZE(results); i++) {
        assert_int_equal(b.ops->del(b.self, keys, 2, &error), results[i]);
        if (results[i])
            assert_int_equal(error.fate, fates[i]);
        if (i == 0) {
            assert_non_null(strstr(server.request, "POST /bucket?delete= HTTP/1.1\r\n"));
            assert_non_null(
                strstr(server.request, "\r\nContent-MD5: 2X1WDow9sI9PN7VDai0LhA==\r\n"));
            assert_non_null(strstr(server.request, "<Object><Key>pre/vol/b</Key></Object>"));
        }
    }
    assert_non_null(strstr(server.request, "DELETE /bucket/pre/vol/b HTTP/1.1\r\n"));
    b.ops->free(b.self);
    finish(&server);
}

/* As where OpenSSL obeys FIPS. */
static bool no_md5;
const EVP_MD *__real_EVP_md5(void);
const EVP_MD *__wrap_EVP_md5(void);
const EVP_MD *__wrap_EVP_md5(void)
{
    return no_md5 ? NULL : __real_EVP_md5();
}

static void test_delete_without_md5(void **state)
{
    static const char *const keys[] = {"a", "b"};
    const struct answer script[] = {{.text = BODY("204 N", "A: b", "")},
                                    {.text = BODY("204 N", "A: b", "")}};
    struct server server;

    (void)state;
    start(&server, script, ARRAY_SIZE(script));
    struct store_backend b = open_backend(&server, 1, 0);
    no_md5 = true;
    assert_int_equal(b.ops->del(b.self, keys, 2, &error), 0);
    no_md5 = false;
    assert_non_null(strstr(server.request, "DELETE /bucket/pre/vol/b HTTP/1.1\r\n"));
    b.ops->free(b.self);
    finish(&server);
}

/* ------------------------------------------------------------------ time */

static void test_a_stall_ends_the_request(void **state)
{
    const struct answer script[] = {
        {.hang = true},
        {.text = BODY("206 P", LENGTH(4) "\r\nContent-Range: bytes 0-3/4", "01"), .hang = true},
        {.text = BODY("200 OK", LENGTH(2), "ok")}};
    struct server server;
    uint64_t size;

    (void)state;
    start(&server, script, 3);
    struct store_backend b = open_backend(&server, 1, 150);
    for (int i = 0; i < 2; i++) {
        int64_t since_ms = clock_system.now_ms();

        assert_int_equal(get(&b, 0, 4, &size), -ETIMEDOUT);
        assert_int_equal(error.fate, STORE_RETRY);
        assert_in_range(clock_system.now_ms() - since_ms, 150, 900);
        assert_string_equal(received, i ? "01" : "");
    }
    assert_int_equal(get(&b, 0, 2, &size), 0);
    b.ops->free(b.self);
    finish(&server);
}

/* A byte now and then is progress, however long the whole takes. */
static void test_slow_is_not_stalled(void **state)
{
    const struct answer script[] = {
        {.text = BODY("206 P", LENGTH(4) "\r\nContent-Range: bytes 0-3/4", "0123"),
         .trickle_ms = 50}};
    struct server server;
    uint64_t size;
    int64_t since_ms = clock_system.now_ms();

    (void)state;
    start(&server, script, 1);
    struct store_backend b = open_backend(&server, 1, 3000);
    assert_int_equal(get(&b, 0, 4, &size), 0);
    assert_true(clock_system.now_ms() - since_ms > 3000);
    b.ops->free(b.self);
    finish(&server);
}

static void *get_in_thread(void *ctx)
{
    struct store_backend *b = ctx;
    struct store_error err;
    uint64_t size;

    return (void *)(intptr_t)b->ops->get(b->self, "k", 0, 4, refuse, NULL, &size, &err);
}

/* One request hangs, another waits for the only connection. */
static void test_stop(void **state)
{
    const struct answer script[] = {{.hang = true}};
    struct server server;
    pthread_t threads[2];
    void *result;
    int64_t since_ms;
    uint64_t size;

    (void)state;
    start(&server, script, 1);
    struct store_backend b = open_backend(&server, 1, 60000);
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, get_in_thread, &b), 0);
    wait_for_requests(&server, 1);
    since_ms = clock_system.now_ms();
    b.ops->stop(b.self);
    for (int i = 0; i < 2; i++) {
        pthread_join(threads[i], &result);
        assert_int_equal((int)(intptr_t)result, -ECANCELED);
    }
    assert_true(clock_system.now_ms() - since_ms < 500);
    assert_int_equal(get(&b, 0, 4, &size), -ECANCELED);
    b.ops->free(b.self);
    finish(&server);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_get),
        cmocka_unit_test(test_a_sink_that_gives_up),
        cmocka_unit_test(test_put),
        cmocka_unit_test(test_the_request_itself),
        cmocka_unit_test(test_a_connection_that_died_idle),
        cmocka_unit_test(test_lists_that_make_no_sense),
        cmocka_unit_test(test_lists_go_on_until_there_is_something),
        cmocka_unit_test(test_batch_delete),
        cmocka_unit_test(test_delete_without_md5),
        cmocka_unit_test(test_a_stall_ends_the_request),
        cmocka_unit_test(test_slow_is_not_stalled),
        cmocka_unit_test(test_stop),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
