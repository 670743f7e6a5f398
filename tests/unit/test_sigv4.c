/*
 * The request signer against AWS's published values: the examples of the S3 API reference, and the
 * "aws4" test suite where S3's rules are the general ones. (S3 neither normalises a path nor
 * encodes it twice, so of the suite's path cases only the "unnormalized" ones apply.)
 */
#include "../../store/sigv4.h"
#include "../../store/scope.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

static const struct sigv4_scope suite_scope = {"AKIDEXAMPLE",
                                               "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
                                               "20150830T123600Z", "us-east-1", "service"};

static const struct sigv4_scope s3_scope = {"AKIAIOSFODNN7EXAMPLE",
                                            "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
                                            "20130524T000000Z", "us-east-1", "s3"};

struct vector {
    const char *name, *method, *path, *query; /* as sent */
    struct sigv4_pair headers[6];
    const char *payload;
    const char *signature;
};

/* clang-format off */
#define HOST {"Host", "example.amazonaws.com"}
#define DATE {"X-Amz-Date", "20150830T123600Z"}

static const struct vector suite[] = {
    {"get-vanilla", "GET", "/", "", {HOST, DATE}, "",
     "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"},
    {"get-vanilla-empty-query-key", "GET", "/", "Param1=value1", {HOST, DATE}, "",
     "a67d582fa61cc504c4bae71f336f98b97f1ea3c7a6bfe1b6e45aec72011b9aeb"},
    {"get-vanilla-query-order-key-case", "GET", "/", "Param2=value2&Param1=value1", {HOST, DATE},
     "", "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"},
    {"get-vanilla-query-order-encoded", "GET", "/", "Param-3=Value3&Param=Value2&%E1%88%B4=Value1",
     {HOST, DATE}, "", "371d3713e185cc334048618a97f809c9ffe339c62934c032af5a0e595648fcac"},
    {"get-vanilla-query-unreserved", "GET", "/",
     "-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz="
     "-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", {HOST, DATE}, "",
     "9c3e54bfcdf0b19771a7f523ee5669cdf59bc7cc0884027167c21bb143a40197"},
    {"get-vanilla-utf8-query", "GET", "/", "\xe1\x88\xb4=bar", {HOST, DATE}, "",
     "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04"},
    {"get-vanilla-with-session-token", "GET", "/", "",
     {HOST, DATE, {"X-Amz-Security-Token",
      "6e86291e8372ff2a2260956d9b8aae1d763fbf315fa00fa31553b73ebf194267"}}, "",
     "07ec1639c89043aa0e3e2de82b96708f198cceab042d4a97044c66dd9f74e7f8"},
    {"get-unreserved", "GET",
     "/-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", "", {HOST, DATE}, "",
     "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f"},
    {"get-utf8", "GET", "/\xe1\x88\xb4", "", {HOST, DATE}, "",
     "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85"},
    {"get-space-unnormalized", "GET", "/example space/", "", {HOST, DATE}, "",
     "652487583200325589f1fba4c7e578f72c47cb61beeca81406b39ddec1366741"},
    {"get-slash-dot-slash-unnormalized", "GET", "/./", "", {HOST, DATE}, "",
     "68714168e6557f8f2de0ef956fc24dc2593a4bd2961f8df51898d8a134695145"},
    {"get-slashes-unnormalized", "GET", "//example//", "", {HOST, DATE}, "",
     "87cca117541a147f6df867677d98a7d80dff226d2bfca9e4ffa899665623c7e5"},
    {"get-header-key-duplicate", "GET", "/", "",
     {HOST, {"My-Header1", "value2"}, {"My-Header1", "value2"}, {"My-Header1", "value1"}, DATE}, "",
     "c9d5ea9f3f72853aea855b47ea873832890dbdd183b4468f858259531a5138ea"},
    {"get-header-value-order", "GET", "/", "",
     {HOST, {"My-Header1", "value4"}, {"My-Header1", "value1"}, {"My-Header1", "value3"},
      {"My-Header1", "value2"}, DATE}, "",
     "08c7e5a9acfcfeb3ab6b2185e75ce8b1deb5e634ec47601a50643f830c755c01"},
    {"get-header-value-trim", "GET", "/", "",
     {HOST, {"My-Header1", " value1 "}, {"My-Header2", " \"a   b   c\" "}, DATE}, "",
     "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736"},
    {"post-vanilla", "POST", "/", "", {HOST, DATE}, "",
     "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"},
    {"post-header-key-sort", "POST", "/", "", {HOST, {"My-Header1", "value1"}, DATE}, "",
     "c5410059b04c1ee005303aed430f6e6645f61f4dc9e1461ec8f8916fdf18852c"},
    {"post-header-value-case", "POST", "/", "", {HOST, {"My-Header1", "VALUE1"}, DATE}, "",
     "cdbc9802e29d2942e5e10b5bccfdd67c5f22c7c4e8ae67b53629efa58b974b7d"},
    {"post-x-www-form-urlencoded", "POST", "/", "",
     {{"Content-Type", "application/x-www-form-urlencoded"}, HOST, DATE}, "Param1=value1",
     "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a"},
};
/* clang-format on */

static size_t count_headers(const struct vector *v)
{
    size_t n = 0;

    while (n < ARRAY_SIZE(v->headers) && v->headers[n].name)
        n++;
    return n;
}

static void check_vector(const struct vector *v, const struct sigv4_scope *scope)
{
    char path[1024], query[1024], hash[SIGV4_HEX_SIZE], signature[SIGV4_HEX_SIZE];
    struct sigv4_request request = {v->method,        path, query, v->headers,
                                    count_headers(v), NULL, hash};

    assert_int_equal(sigv4_canonical_path(v->path, path, sizeof path), 0);
    assert_int_equal(sigv4_canonical_query(v->query, query, sizeof query), 0);
    assert_int_equal(sigv4_sha256_hex(v->payload, strlen(v->payload), hash), 0);
    assert_int_equal(sigv4_signature(&request, scope, signature), 0);
    if (strcmp(signature, v->signature) != 0)
        print_error("%s\n", v->name);
    assert_string_equal(signature, v->signature);
}

static void test_suite_of_aws(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(suite); i++)
        check_vector(&suite[i], &suite_scope);
}

/* clang-format off */
#define S3_HOST {"Host", "examplebucket.s3.amazonaws.com"}
#define S3_DATE {"x-amz-date", "20130524T000000Z"}
#define S3_EMPTY {"x-amz-content-sha256", SIGV4_EMPTY_PAYLOAD}

static const struct vector s3_examples[] = {
    {"GET object", "GET", "/test.txt", "",
     {S3_HOST, {"Range", "bytes=0-9"}, S3_EMPTY, S3_DATE}, "",
     "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"},
    {"PUT object", "PUT", "/test$file.text", "",
     {S3_HOST, {"Date", "Fri, 24 May 2013 00:00:00 GMT"}, S3_DATE,
      {"x-amz-storage-class", "REDUCED_REDUNDANCY"},
      {"x-amz-content-sha256", "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072"}},
     "Welcome to Amazon S3.", "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"},
    {"GET bucket lifecycle", "GET", "/", "lifecycle", {S3_HOST, S3_EMPTY, S3_DATE}, "",
     "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"},
    {"list objects", "GET", "/", "prefix=J&max-keys=2", {S3_HOST, S3_EMPTY, S3_DATE}, "",
     "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"},
};
/* clang-format on */

static void test_examples_of_s3(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(s3_examples); i++)
        check_vector(&s3_examples[i], &s3_scope);
}

/* Every step of the first S3 example, as the document prints it. */
static void test_steps(void **state)
{
    struct sigv4_request request = {"GET", "/test.txt",        "", s3_examples[0].headers, 4,
                                    NULL,  SIGV4_EMPTY_PAYLOAD};
    char buf[2048];

    (void)state;
    assert_int_equal(sigv4_canonical_request(&request, buf, sizeof buf), 0);
    assert_string_equal(buf, "GET\n/test.txt\n\nhost:examplebucket.s3.amazonaws.com\n"
                             "range:bytes=0-9\nx-amz-content-sha256:" SIGV4_EMPTY_PAYLOAD
                             "\nx-amz-date:20130524T000000Z\n\n"
                             "host;range;x-amz-content-sha256;x-amz-date\n" SIGV4_EMPTY_PAYLOAD);
    assert_int_equal(sigv4_string_to_sign(&request, &s3_scope, buf, sizeof buf), 0);
    assert_string_equal(buf,
                        "AWS4-HMAC-SHA256\n20130524T000000Z\n20130524/us-east-1/s3/aws4_request\n"
                        "7344ae5b7ee6c3e7e6b0fe0640412a37625d1fbfff95c48bbb2dc43964946972");
    assert_int_equal(sigv4_authorization(&request, &s3_scope, buf, sizeof buf), 0);
    assert_string_equal(
        buf, "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,"
             "SignedHeaders=host;range;x-amz-content-sha256;x-amz-date,"
             "Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");
}

/* A server gets more headers than were signed, and takes the names from the request. */
static void test_server_side(void **state)
{
    static const struct sigv4_pair received[] = {
        S3_DATE,  {"User-Agent", "x"}, {"RANGE", "  bytes=0-9"},
        S3_EMPTY, {"Accept", "*/*"},   S3_HOST};
    const char *value =
        "AWS4-HMAC-SHA256 Credential=AKIA/IOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, "
        "SignedHeaders=host;range;x-amz-content-sha256;x-amz-date, "
        "Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41";
    struct sigv4_claim claim;
    char signature[SIGV4_HEX_SIZE];

    (void)state;
    assert_int_equal(sigv4_parse_authorization(value, &claim), 0);
    assert_string_equal(claim.access_key, "AKIA/IOSFODNN7EXAMPLE");
    assert_string_equal(claim.day, "20130524");
    assert_string_equal(claim.region, "us-east-1");
    assert_string_equal(claim.service, "s3");

    struct sigv4_request request = {"GET",
                                    "/test.txt",
                                    "",
                                    received,
                                    ARRAY_SIZE(received),
                                    claim.signed_headers,
                                    SIGV4_EMPTY_PAYLOAD};
    assert_int_equal(sigv4_signature(&request, &s3_scope, signature), 0);
    assert_string_equal(signature, claim.signature);
    request.nheaders--; /* no Host, which is said to be signed */
    assert_int_equal(sigv4_signature(&request, &s3_scope, signature), -EINVAL);
}

static void test_broken_authorizations_are_refused(void **state)
{
    static const char *const broken[] = {
        "",
        "AWS4-HMAC-SHA256",
        "AWS4-HMAC-SHA256 ",
        "AWS4-HMAC-SHA256 Credential",
        "AWS4-HMAC-SHA256 Credential=a/20130524/r/s3/aws4_request",
        "AWS4-HMAC-SHA256 Credential=a/b/aws4_request,SignedHeaders=host,Signature=00",
        "AWS4-HMAC-SHA256 Credential=/20130524/r/s3/aws4_request,SignedHeaders=host,"
        "Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
        "AWS4-HMAC-SHA256 Credential=a/201305240/r/s3/aws4_request,SignedHeaders=host,"
        "Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
        "AWS4-HMAC-SHA256 Credential=a/20130524/r/s3/aws4_request,SignedHeaders=host,Signature=0",
        "AWS AKID:signature",
    };
    struct sigv4_claim claim;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(broken); i++)
        assert_true(sigv4_parse_authorization(broken[i], &claim) < 0);
}

static void test_encoding(void **state)
{
    static const struct sigv4_pair params[] = {
        {"list-type", "2"}, {"prefix", "a b/\xc3\xa9+&="}, {"delete", NULL}, {"delete", "1"}};
    char buf[128];

    (void)state;
    assert_int_equal(sigv4_encode_path("/b/a b+c%\xc3\xa9/~", buf, sizeof buf), 0);
    assert_string_equal(buf, "/b/a%20b%2Bc%25%C3%A9/~");
    assert_int_equal(sigv4_encode_query(params, ARRAY_SIZE(params), buf, sizeof buf), 0);
    assert_string_equal(buf, "delete=&delete=1&list-type=2&prefix=a%20b%2F%C3%A9%2B%26%3D");
    assert_int_equal(sigv4_canonical_query("b&a=%7e%2f=&&c=", buf, sizeof buf), 0);
    assert_string_equal(buf, "a=~%2F%3D&b=&c=");
    assert_int_equal(sigv4_decode("a%2Fb+%41", buf, sizeof buf), 0);
    assert_string_equal(buf, "a/b+A");
    assert_int_equal(sigv4_decode("%4", buf, sizeof buf), -EINVAL);
    assert_int_equal(sigv4_decode("%zz", buf, sizeof buf), -EINVAL);
    assert_int_equal(sigv4_decode("%00", buf, sizeof buf), -EINVAL);
    assert_int_equal(sigv4_canonical_query("a=%4", buf, sizeof buf), -EINVAL);
}

/* Each buffer one byte too small, then exactly large enough. */
static void test_buffers_are_respected(void **state)
{
    static const struct sigv4_pair params[] = {{"a", "b c"}};
    char buf[8];

    (void)state;
    assert_int_equal(sigv4_encode_path("/a b", buf, 6), -ENAMETOOLONG);
    assert_int_equal(sigv4_encode_path("/a b", buf, 7), 0);
    assert_int_equal(sigv4_encode_query(params, 1, buf, 7), -ENAMETOOLONG);
    assert_int_equal(sigv4_encode_query(params, 1, buf, 8), 0);
    assert_int_equal(sigv4_decode("%41b", buf, 2), -ENAMETOOLONG);
    assert_int_equal(sigv4_decode("%41b", buf, 3), 0);
    assert_int_equal(sigv4_encode("", 0, buf, 1), 0);
    assert_int_equal(sigv4_encode("", 0, buf, 0), -ENAMETOOLONG);

    struct sigv4_pair many[SIGV4_PAIRS_MAX + 1];
    for (size_t i = 0; i < ARRAY_SIZE(many); i++)
        many[i] = (struct sigv4_pair){"h", "v"};
    struct sigv4_request request = {"GET", "/", "", many, ARRAY_SIZE(many), NULL, "x"};
    char signature[SIGV4_HEX_SIZE];
    assert_int_equal(sigv4_signature(&request, &s3_scope, signature), -EINVAL);
    request.nheaders--;
    assert_int_equal(sigv4_signature(&request, &s3_scope, signature), 0);
}

static void test_dates(void **state)
{
    char date[SIGV4_DATE_SIZE];
    time_t when;

    (void)state;
    assert_int_equal(sigv4_date(1369353600, date), 0);
    assert_string_equal(date, "20130524T000000Z");
    assert_int_equal(sigv4_parse_date(date, &when), 0);
    assert_int_equal(when, 1369353600);
    assert_int_equal(sigv4_parse_date("20130524T000000", &when), -EINVAL);
    assert_int_equal(sigv4_parse_date("20131324T000000Z", &when), -EINVAL);
    assert_int_equal(sigv4_parse_date("2013-05-24T00:00", &when), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_suite_of_aws),
        cmocka_unit_test(test_examples_of_s3),
        cmocka_unit_test(test_steps),
        cmocka_unit_test(test_server_side),
        cmocka_unit_test(test_broken_authorizations_are_refused),
        cmocka_unit_test(test_encoding),
        cmocka_unit_test(test_buffers_are_respected),
        cmocka_unit_test(test_dates),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
