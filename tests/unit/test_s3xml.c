/* S3's XML: what is read from it, and what is refused. */
#include "../../store/s3xml.h"
#include "../../store/scope.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

struct seen {
    char text[512]; /* "key:size " or "prefix/ " */
    unsigned n, stop_after;
};

static int on_item(void *ctx, const char *key, uint64_t size_bytes, bool is_prefix)
{
    struct seen *seen = ctx;
    size_t len = strlen(seen->text);

    if (is_prefix)
        assert_int_equal(format(seen->text + len, sizeof seen->text - len, "%s ", key), 0);
    else
        assert_int_equal(format(seen->text + len, sizeof seen->text - len, "%s:%ju ", key,
                                (uintmax_t)size_bytes),
                         0);
    return ++seen->n == seen->stop_after ? -ECANCELED : 0;
}

static int list(const char *xml, struct seen *seen, bool *ret_more)
{
    *seen = (struct seen){.stop_after = seen->stop_after};
    return s3xml_parse_list(xml, strlen(xml), on_item, seen, ret_more);
}

/* As Amazon's documentation shows it. */
static const char amazon[] =
    "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
    "<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\n"
    "  <Name>bucket</Name><Prefix>a/</Prefix><KeyCount>3</KeyCount><MaxKeys>1000</MaxKeys>\n"
    "  <Delimiter>/</Delimiter><IsTruncated>true</IsTruncated>\n"
    "  <Contents><Key>a/1</Key><LastModified>2009-10-12T17:50:30.000Z</LastModified>"
    "<ETag>\"fba9dede5f27731c9771645a39863328\"</ETag><Size>434234</Size>"
    "<StorageClass>STANDARD</StorageClass><Owner><ID>7</ID><DisplayName>x</DisplayName></Owner>"
    "</Contents>\n"
    "  <Contents><Size>18446744073709551615</Size><Key>a/&amp;&lt;&#x20AC;&#39;</Key></Contents>\n"
    "  <CommonPrefixes><Prefix>a/b/</Prefix></CommonPrefixes>\n"
    "  <CommonPrefixes><Prefix>a/c/</Prefix><Prefix>a/d/</Prefix></CommonPrefixes>\n"
    "  <NextContinuationToken>1ueGcxLPRx1Tr/XYExHnhbYLgveDs2J/wm36Hy4vbOwM=</NextContinuationToken>"
    "\n</ListBucketResult>\n";

static void test_list(void **state)
{
    struct seen seen = {.stop_after = 0};
    bool more = false;

    (void)state;
    assert_int_equal(list(amazon, &seen, &more), 0);
    assert_true(more);
    assert_string_equal(seen.text,
                        "a/1:434234 a/&<\xe2\x82\xac':18446744073709551615 a/b/ a/c/ a/d/ ");
    assert_int_equal(
        list("<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>", &seen, &more),
        0);
    assert_false(more);
    assert_int_equal(seen.n, 0);
    seen.stop_after = 2;
    assert_int_equal(list(amazon, &seen, &more), -ECANCELED);
    assert_int_equal(seen.n, 2);
}

/* Cut anywhere, it is no list. */
static void test_a_cut_list_is_refused(void **state)
{
    struct seen seen = {.stop_after = 0};
    bool more;

    (void)state;
    for (size_t len = 0; len < sizeof amazon - 3; len++) {
        seen = (struct seen){.stop_after = 0};
        assert_int_equal(s3xml_parse_list(amazon, len, on_item, &seen, &more), -EBADMSG);
    }
}

#define LIST(inner) "<ListBucketResult>" inner "<IsTruncated>false</IsTruncated></ListBucketResult>"

static void test_bad_lists(void **state)
{
    static const char *const bad[] = {
        "",
        "\n",
        "not XML",
        "<html><body>Welcome</body></html>",
        "<ListBucketResult></ListBucketResult>", /* truncated or not? */
        "<ListBucketResult><IsTruncated>maybe</IsTruncated></ListBucketResult>",
        LIST("<Contents><Key>a</Key></Contents>"),
        LIST("<Contents><Size>1</Size></Contents>"),
        LIST("<Contents><Key></Key><Size>1</Size></Contents>"),
        LIST("<Contents><Key>a</Key><Key>b</Key><Size>1</Size></Contents>"),
        LIST("<Contents><Key>a</Key><Size>-1</Size></Contents>"),
        LIST("<Contents><Key>a</Key><Size></Size></Contents>"),
        LIST("<Contents><Key>a</Key><Size>1x</Size></Contents>"),
        LIST("<Contents><Key>a</Key><Size>18446744073709551616</Size></Contents>"),
        LIST("<a><b><c><d><e><f><g><h/></g></f></e></d></c></b></a>"),
        "<!DOCTYPE x>" LIST(""),
        "<!DOCTYPE l [<!ENTITY a \"aaaaaaaaaa\"><!ENTITY b \"&a;&a;&a;&a;&a;&a;&a;&a;\">]>"
        "<ListBucketResult><Contents><Key>&b;</Key><Size>1</Size></Contents>"
        "<IsTruncated>false</IsTruncated></ListBucketResult>",
        LIST("") LIST(""),
        LIST("") "trailing",
        LIST("<Contents><Key>\xff</Key><Size>1</Size></Contents>"),
    };
    struct seen seen = {.stop_after = 0};
    bool more = true;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        int r = list(bad[i], &seen, &more);

        if (r != -EBADMSG)
            print_error("%s: %d\n", bad[i], r);
        assert_int_equal(r, -EBADMSG);
    }
}

static void test_a_key_that_is_too_long_is_refused(void **state)
{
    static char xml[16384];
    struct seen seen = {.stop_after = 0};
    char key[8193];
    bool more;

    (void)state;
    memset(key, 'k', sizeof key - 1);
    key[sizeof key - 1] = '\0';
    assert_int_equal(
        format(xml, sizeof xml, LIST("<Contents><Key>%s</Key><Size>1</Size></Contents>"), key), 0);
    assert_int_equal(list(xml, &seen, &more), -EBADMSG);
    assert_int_equal(format(xml, sizeof xml, LIST("<Unknown>%s</Unknown>"), key), 0);
    assert_int_equal(list(xml, &seen, &more), 0);
}

/* Every byte replaced by a few others: no crash, and nothing but 0 or -EBADMSG. */
static void test_damaged_lists(void **state)
{
    static const char with[] = {'\0', '<', '>', '&', '/', '"', 'a', (char)0xff};
    struct seen seen;
    char xml[sizeof amazon];
    bool more;

    (void)state;
    for (size_t at = 0; at < sizeof amazon - 1; at++) {
        for (size_t i = 0; i < sizeof with; i++) {
            memcpy(xml, amazon, sizeof xml);
            xml[at] = with[i];
            seen = (struct seen){.stop_after = 0};
            int r = s3xml_parse_list(xml, sizeof xml - 1, on_item, &seen, &more);
            assert_true(r == 0 || r == -EBADMSG);
        }
    }
}

static int parse_error(const char *xml, struct s3xml_error *error)
{
    return s3xml_parse_error(xml, strlen(xml), error);
}

static void test_errors(void **state)
{
    struct s3xml_error error;

    (void)state;
    assert_int_equal(
        parse_error(
            "<?xml version=\"1.0\"?><Error><Code>RequestTimeTooSkewed</Code><Message>The "
            "difference is too large.</Message><RequestTime>20130524T000000Z</RequestTime>"
            "<ServerTime>2013-05-24T00:20:00Z</ServerTime><Region>eu-west-1</Region>"
            "<Endpoint>b.s3.amazonaws.com</Endpoint><Deep><Code>Other</Code></Deep></Error>",
            &error),
        0);
    assert_string_equal(error.code, "RequestTimeTooSkewed");
    assert_string_equal(error.message, "The difference is too large.");
    assert_string_equal(error.server_time, "2013-05-24T00:20:00Z");
    assert_string_equal(error.region, "eu-west-1");
    assert_string_equal(error.endpoint, "b.s3.amazonaws.com");
    assert_int_equal(parse_error("<Error><Message>no code</Message></Error>", &error), -EBADMSG);
    assert_int_equal(parse_error("<Fault><Code>x</Code></Fault>", &error), -EBADMSG);
    assert_int_equal(parse_error("<Error><Code>x</Code>", &error), -EBADMSG);
    assert_int_equal(
        parse_error("<Error><Code>12345678901234567890123456789012345678901234567890123"
                    "4567890123456789</Code></Error>",
                    &error),
        0);
    assert_int_equal(strlen(error.code), sizeof error.code - 1);
}

static void test_delete_results(void **state)
{
    static const char some[] =
        "<DeleteResult><Deleted><Key>a</Key></Deleted>"
        "<Error><Key>b</Key><Code>NoSuchKey</Code></Error>"
        "<Error><Key>c</Key><Code>AccessDenied</Code><Message>No.</Message></Error>"
        "<Error><Key>d</Key><Code>InternalError</Code></Error></DeleteResult>";
    struct s3xml_error first;
    size_t n = 99;

    (void)state;
    assert_int_equal(s3xml_parse_delete("<DeleteResult/>", 15, &n, &first), 0);
    assert_int_equal(n, 0);
    assert_int_equal(s3xml_parse_delete(some, sizeof some - 1, &n, &first), 0);
    assert_int_equal(n, 2);
    assert_string_equal(first.code, "AccessDenied");
    assert_string_equal(first.message, "No.");
    assert_int_equal(s3xml_parse_delete(some, sizeof some - 2, &n, &first), -EBADMSG);
    assert_int_equal(s3xml_parse_delete("<Error/>", 8, &n, &first), -EBADMSG);
}

static void test_escape(void **state)
{
    char buf[32] = "x:";

    (void)state;
    assert_int_equal(s3xml_escape("a<b>&\"\xc3\xa4", buf, sizeof buf), 0);
    assert_string_equal(buf, "x:a&lt;b&gt;&amp;&quot;\xc3\xa4");
    buf[0] = '\0';
    assert_int_equal(s3xml_escape("a&", buf, 6), -ENAMETOOLONG);
    buf[0] = '\0';
    assert_int_equal(s3xml_escape("a&", buf, 7), 0);
    buf[0] = '\0';
    assert_int_equal(s3xml_escape("\x01", buf, sizeof buf), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_list),
        cmocka_unit_test(test_a_cut_list_is_refused),
        cmocka_unit_test(test_bad_lists),
        cmocka_unit_test(test_a_key_that_is_too_long_is_refused),
        cmocka_unit_test(test_damaged_lists),
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_delete_results),
        cmocka_unit_test(test_escape),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
