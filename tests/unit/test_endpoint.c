/* Endpoint, region, bucket and addressing, and the URL that comes of them. */
#include "../../store/endpoint.h"
#include "../../store/msg.h"
#include "../../store/scope.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

enum { AUTO = ADDRESSING_AUTO, BY_PATH = ADDRESSING_PATH, BY_HOST = ADDRESSING_VIRTUAL };

/* clang-format off */
static const struct {
    const char *given, *region, *bucket;
    int addressing;
    const char *origin, *path; /* expected */
} cases[] = {
    {"", "us-east-1", "pail", AUTO, "https://pail.s3.us-east-1.amazonaws.com", ""},
    {"", "us-east-1", "pail", BY_PATH, "https://s3.us-east-1.amazonaws.com", "/pail"},
    {"", "cn-north-1", "pail", AUTO, "https://pail.s3.cn-north-1.amazonaws.com.cn", ""},
    {"", "us-east-1", "a.pail", AUTO, "https://s3.us-east-1.amazonaws.com", "/a.pail"},
    {"", "us-east-1", "Pail", AUTO, "https://s3.us-east-1.amazonaws.com", "/Pail"},
    {"", "us-east-1", "pail-", AUTO, "https://s3.us-east-1.amazonaws.com", "/pail-"},
    {"", "us-east-1", "my_pail", AUTO, "https://s3.us-east-1.amazonaws.com", "/my_pail"},
    {"https://s3.eu-west-1.amazonaws.com/", "eu-west-1", "pail", AUTO,
     "https://pail.s3.eu-west-1.amazonaws.com", ""},
    {"https://S3.amazonaws.COM:443", "x", "pail", AUTO, "https://pail.S3.amazonaws.COM:443", ""},
    {"https://amazonaws.com.evil.org", "x", "pail", AUTO, "https://amazonaws.com.evil.org", "/pail"},
    {"http://127.0.0.1:8000", "x", "pail", AUTO, "http://127.0.0.1:8000", "/pail"},
    {"http://[::1]:8000//", "x", "pail", AUTO, "http://[::1]:8000", "/pail"},
    {"http://s3.test", "x", "pail", BY_HOST, "http://pail.s3.test", ""},
    {"HTTP://s3.test/a/b/", "x", "pail", AUTO, "HTTP://s3.test", "/a/b/pail"},
    {"http://s3.test/a/b", "x", "pail", BY_HOST, "http://pail.s3.test", "/a/b"},
};
/* clang-format on */

static void test_good_ones(void **state)
{
    struct endpoint e;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        assert_int_equal(endpoint_resolve(cases[i].given, cases[i].region, cases[i].bucket,
                                          (enum addressing)cases[i].addressing, &e),
                         0);
        assert_string_equal(e.origin, cases[i].origin);
        assert_string_equal(e.path, cases[i].path);
        assert_string_equal(e.host, strstr(cases[i].origin, "//") + 2);
    }
}

static void test_bad_ones(void **state)
{
    static const char *const bad[] = {"s3.test",          "ftp://s3.test", "http://",
                                      "http:///x",        "http://:80",    "http://u:p@s3.test",
                                      "http://s3.test?",  "http://s3#x",   "http://s3 test",
                                      "http://s3.test\n", "https:/s3",     "http://s3.test/%41"};
    struct endpoint e;
    char text[512];

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        assert_int_equal(endpoint_resolve(bad[i], "x", "pail", ADDRESSING_AUTO, &e), -EINVAL);
    msg_last_error(text, sizeof text);
    assert_non_null(strstr(text, "is no endpoint"));
    assert_int_equal(endpoint_resolve("", "evil.org/", "pail", ADDRESSING_AUTO, &e), -EINVAL);
    assert_int_equal(endpoint_resolve("", "", "pail", ADDRESSING_AUTO, &e), -EINVAL);
    memset(text, 'a', sizeof text - 1);
    memcpy(text, "http://", 7);
    text[sizeof text - 1] = '\0';
    assert_int_equal(endpoint_resolve(text, "x", "pail", ADDRESSING_AUTO, &e), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good_ones),
        cmocka_unit_test(test_bad_ones),
    };

    msg_set_sink(MSG_NONE);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
