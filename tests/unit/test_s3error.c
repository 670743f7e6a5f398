/* What each answer means: errno, fate, and the words that help. */
#include "../../store/s3error.h"
#include "../../store/scope.h"

#include <curl/curl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

static const struct s3error_place place = {"pail", "http://s3.test", "us-east-1", "the environment",
                                           10000};

#define ERROR(code)     "<Error><Code>" code "</Code></Error>"
#define ERROR_AND(c, x) "<Error><Code>" c "</Code>" x "</Error>"
#define IF_ABSENT       S3ERROR_PUT_IF_ABSENT

enum { NOW = 1369353600 }; /* 2013-05-24 00:00:00 UTC */

struct error_case {
    int status;
    const char *body;
    enum s3error_op op;
    int err;
    enum store_fate fate;
    const char *words; /* in the text; NULL: no text is needed */
};

/* clang-format off */
static const struct error_case cases[] = {
    {404, ERROR("NoSuchKey"), S3ERROR_GET, -ENOENT, 0, NULL},
    {404, ERROR("NoSuchKey"), S3ERROR_DELETE, -ENOENT, 0, NULL},
    {404, ERROR("NoSuchKey"), S3ERROR_PUT, -EIO, STORE_FINAL, "404 NoSuchKey"},
    {404, ERROR("NoSuchBucket"), S3ERROR_GET, -EIO, STORE_FINAL,
     "bucket 'pail' does not exist at http://s3.test; create it or check the name"},
    {404, ERROR("NoSuchBucket"), S3ERROR_LIST, -EIO, STORE_FINAL, "does not exist"},
    {404, "<html/>", S3ERROR_GET, -EIO, STORE_RETRY, "is it an S3 service?"},
    {404, "", S3ERROR_LIST, -EIO, STORE_RETRY, "is it an S3 service?"},
    {400, ERROR("InvalidBucketName"), S3ERROR_LIST, -EINVAL, STORE_FINAL, "'pail' is no valid"},
    {403, ERROR("InvalidAccessKeyId"), S3ERROR_GET, -EACCES, STORE_REFUSED,
     "does not know the access key from the environment"},
    {403, ERROR("SignatureDoesNotMatch"), S3ERROR_GET, -EACCES, STORE_REFUSED, "secret key"},
    {403, ERROR("AccessDenied"), S3ERROR_LIST, -EACCES, STORE_REFUSED, "may not list bucket 'pail'"},
    {403, ERROR("AccessDenied"), S3ERROR_PUT, -EACCES, STORE_REFUSED, "may not write to"},
    {403, ERROR("AllAccessDisabled"), S3ERROR_GET, -EACCES, STORE_REFUSED, "AllAccessDisabled"},
    {403, ERROR("QuotaExceeded"), S3ERROR_PUT, -EACCES, STORE_REFUSED, "403 QuotaExceeded"},
    {403, "", S3ERROR_GET, -EACCES, STORE_REFUSED, "access denied"},
    {401, "", S3ERROR_GET, -EACCES, STORE_REFUSED, "access denied"},
    {400, ERROR("ExpiredToken"), S3ERROR_GET, -EACCES, STORE_REFUSED, "expired"},
    {400, ERROR("InvalidToken"), S3ERROR_GET, -EACCES, STORE_REFUSED, "renew them"},
    {403, ERROR("RequestTimeTooSkewed"), S3ERROR_GET, -EACCES, STORE_REFUSED, "set the clock"},
    {403, ERROR_AND("RequestTimeTooSkewed", "<ServerTime>2013-05-24T00:20:01Z</ServerTime>"),
     S3ERROR_GET, -EACCES, STORE_REFUSED, "clock is 1201 s behind: 2013-05-24 00:00:00 UTC here"},
    {403, ERROR_AND("RequestTimeTooSkewed", "<ServerTime>2013-05-23T23:00:00Z</ServerTime>"),
     S3ERROR_GET, -EACCES, STORE_REFUSED, "3600 s ahead"},
    {301, ERROR_AND("PermanentRedirect", "<Endpoint>s3.eu.test</Endpoint>"), S3ERROR_GET, -EINVAL,
     STORE_FINAL, "not at http://s3.test but at s3.eu.test"},
    {400, ERROR_AND("AuthorizationHeaderMalformed", "<Region>eu-west-1</Region>"), S3ERROR_GET,
     -EINVAL, STORE_FINAL, "is in region 'eu-west-1', not in 'us-east-1'"},
    {400, ERROR_AND("AuthorizationHeaderMalformed", "<Region>us-east-1</Region><Message>Hm.</Message>"),
     S3ERROR_GET, -EINVAL, STORE_FINAL, "AuthorizationHeaderMalformed: Hm."},
    {307, ERROR("TemporaryRedirect"), S3ERROR_PUT, -EINVAL, STORE_FINAL, "check endpoint and region"},
    {302, "", S3ERROR_PUT, -EINVAL, STORE_FINAL, "answers 302"},
    {412, ERROR("PreconditionFailed"), IF_ABSENT, -EEXIST, 0, NULL},
    {412, "", S3ERROR_PUT, -EIO, STORE_FINAL, "412"},
    {409, ERROR("ConditionalRequestConflict"), IF_ABSENT, -EIO, STORE_RETRY, "Conflict"},
    {409, ERROR("OperationAborted"), S3ERROR_PUT, -EIO, STORE_RETRY, "OperationAborted"},
    {501, ERROR("NotImplemented"), IF_ABSENT, -EOPNOTSUPP, STORE_FINAL, "no conditional PUT"},
    {501, ERROR("NotImplemented"), S3ERROR_DELETE, -EOPNOTSUPP, STORE_FINAL, "501"},
    {405, "", S3ERROR_DELETE, -EOPNOTSUPP, STORE_FINAL, "405"},
    {400, ERROR("BadDigest"), S3ERROR_PUT, -EIO, STORE_RETRY, "BadDigest"},
    {400, ERROR("XAmzContentSHA256Mismatch"), S3ERROR_PUT, -EIO, STORE_RETRY, "Mismatch"},
    {400, ERROR("RequestTimeout"), S3ERROR_PUT, -EIO, STORE_RETRY, "RequestTimeout"},
    {400, ERROR("IncompleteBody"), S3ERROR_PUT, -EIO, STORE_RETRY, "IncompleteBody"},
    {400, ERROR_AND("InvalidArgument", "<Message>So what?</Message>"), S3ERROR_PUT, -EIO,
     STORE_FINAL, "http://s3.test answered 400 InvalidArgument: So what?"},
    {408, "", S3ERROR_PUT, -EIO, STORE_RETRY, "408"},
    {429, "", S3ERROR_GET, -EIO, STORE_SLOW, "429"},
    {500, ERROR("InternalError"), S3ERROR_GET, -EIO, STORE_RETRY, "500 InternalError"},
    {502, "<html>Bad Gateway", S3ERROR_GET, -EIO, STORE_RETRY, "502"},
    {503, ERROR("SlowDown"), S3ERROR_GET, -EIO, STORE_SLOW, "SlowDown"},
    {503, "", S3ERROR_GET, -EIO, STORE_SLOW, "503"},
    {504, "", S3ERROR_GET, -EIO, STORE_RETRY, "504"},
    {200, ERROR("SlowDown"), S3ERROR_DELETE, -EIO, STORE_SLOW, "SlowDown"},
    {204, "", S3ERROR_LIST, -EIO, STORE_RETRY, "204"},
};
/* clang-format on */

static void check(const struct http_answer *answer, const struct error_case *c)
{
    struct store_error error = {.text = ""};
    int r = s3error_from_answer(&place, c->op, answer, NOW, &error);
    bool good =
        r == c->err && (!c->words || (error.fate == c->fate && strstr(error.text, c->words)));

    if (!good)
        print_error("%d %s: %d, fate %d, \"%s\"\n", c->status, c->body, r, (int)error.fate,
                    error.text);
    assert_true(good);
}

static struct http_answer answer_of(const struct error_case *c)
{
    return (struct http_answer){.end = HTTP_ANSWERED,
                                .status = c->status,
                                .body = (char *)(uintptr_t)c->body,
                                .body_len = strlen(c->body)};
}

static void test_answers(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct http_answer answer = answer_of(&cases[i]);

        check(&answer, &cases[i]);
    }
}

/* What only the headers say. */
static void test_headers(void **state)
{
    const struct error_case region = {
        301, "", S3ERROR_GET, -EINVAL, STORE_FINAL, "is in region 'eu-west-1', not in 'us-east-1'"};
    const struct error_case skew = {
        403, "", S3ERROR_GET, -EACCES, STORE_REFUSED, "clock is 86400 s behind"};
    const struct error_case denied = {403,     ERROR("AccessDenied"), S3ERROR_GET,
                                      -EACCES, STORE_REFUSED,         "access denied"};
    struct http_answer answer = answer_of(&region);

    (void)state;
    memcpy(answer.region, "eu-west-1", 10);
    check(&answer, &region);
    answer = answer_of(&skew);
    memcpy(answer.date, "Sat, 25 May 2013 00:00:00 GMT", 30);
    check(&answer, &skew);
    answer = answer_of(&denied);
    memcpy(answer.date, "Fri, 24 May 2013 00:00:09 GMT", 30);
    check(&answer, &denied);
}

static void check_end(enum http_end end, int curl_code, int err, enum store_fate fate,
                      const char *words)
{
    const struct error_case c = {0, "", S3ERROR_GET, err, fate, words};
    struct http_answer answer = {.end = end, .curl_code = curl_code, .reason = "curl says so"};

    check(&answer, &c);
}

static void test_no_answers(void **state)
{
    (void)state;
    check_end(HTTP_NO_ANSWER, CURLE_COULDNT_RESOLVE_HOST, -ETIMEDOUT, STORE_RETRY,
              "cannot reach http://s3.test: curl says so");
    check_end(HTTP_NO_ANSWER, CURLE_COULDNT_CONNECT, -ETIMEDOUT, STORE_RETRY, "cannot reach");
    check_end(HTTP_NO_ANSWER, CURLE_OPERATION_TIMEDOUT, -ETIMEDOUT, STORE_RETRY, "cannot reach");
    check_end(HTTP_NO_ANSWER, CURLE_SSL_CONNECT_ERROR, -ETIMEDOUT, STORE_RETRY, "TLS");
    check_end(HTTP_NO_ANSWER, CURLE_GOT_NOTHING, -ETIMEDOUT, STORE_RETRY, "did not answer");
    check_end(HTTP_NO_ANSWER, CURLE_PEER_FAILED_VERIFICATION, -EACCES, STORE_REFUSED,
              "certificate of http://s3.test is not trusted: curl says so");
    check_end(HTTP_NO_ANSWER, CURLE_SSL_CACERT_BADFILE, -EACCES, STORE_REFUSED, "CA certificates");
    check_end(HTTP_CUT, CURLE_PARTIAL_FILE, -EIO, STORE_RETRY, "broke off");
    check_end(HTTP_STALLED, 0, -ETIMEDOUT, STORE_RETRY, "10000 ms");
    check_end(HTTP_STOPPED, 0, -ECANCELED, STORE_FINAL, "");
    check_end(HTTP_NO_MEMORY, 0, -ENOMEM, STORE_RETRY, "memory");
}

static void test_codes_of_single_keys(void **state)
{
    struct store_error error;

    (void)state;
    assert_int_equal(s3error_from_code(&place, "AccessDenied", "", &error), -EACCES);
    assert_non_null(strstr(error.text, "may not delete from bucket 'pail'"));
    assert_int_equal(s3error_from_code(&place, "InternalError", "Oh.", &error), -EIO);
    assert_int_equal(error.fate, STORE_RETRY);
    assert_int_equal(s3error_from_code(&place, "", "", &error), -EIO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers),
        cmocka_unit_test(test_headers),
        cmocka_unit_test(test_no_answers),
        cmocka_unit_test(test_codes_of_single_keys),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
