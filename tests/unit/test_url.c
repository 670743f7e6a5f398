/* URLs: what is accepted, in which normal form, and what is refused with which words. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "../../store/msg.h"
#include "../../store/scope.h"
#include "../../store/url.h"

#include <string.h>

static void accept(const char *text, const char *bucket, const char *path, const char *snapshot,
                   const char *normal)
{
    struct url url;

    if (url_parse(text, &url) != 0)
        fail_msg("%s was refused", text);
    assert_int_equal(url.s3, bucket[0] != 0);
    assert_string_equal(url.bucket, bucket);
    assert_string_equal(url.path, path);
    assert_string_equal(url.snapshot, snapshot);
    assert_string_equal(url.text, normal);
}

static void refuse(const char *text, const char *words)
{
    struct url url;
    char said[512];

    memset(&url, 0x5a, sizeof url);
    assert_int_equal(url_parse(text, &url), -EINVAL);
    msg_last_error(said, sizeof said);
    if (!strstr(said, words))
        fail_msg("%s: \"%s\" does not say \"%s\"", text, said, words);
    for (size_t i = 0; i < sizeof url; i++) /* written on success only */
        assert_int_equal(((unsigned char *)&url)[i], 0x5a);
}

static void test_s3(void **state)
{
    (void)state;
    accept("s3://bucket/vm1", "bucket", "vm1", "", "s3://bucket/vm1");
    accept("s3://bucket/a/b/vm1", "bucket", "a/b/vm1", "", "s3://bucket/a/b/vm1");
    accept("s3://bucket//a///vm1//", "bucket", "a/vm1", "", "s3://bucket/a/vm1");
    accept("s3://bucket", "bucket", "", "", "s3://bucket");
    accept("s3://bucket/", "bucket", "", "", "s3://bucket");
    accept("S3://bucket/vm1", "bucket", "vm1", "", "s3://bucket/vm1");
    accept("s3://my.bucket-1/vm1", "my.bucket-1", "vm1", "", "s3://my.bucket-1/vm1");
    accept("s3://bucket/..a/b..", "bucket", "..a/b..", "", "s3://bucket/..a/b..");
    accept("s3://bucket/a b/\xc3\xa9", "bucket", "a b/\xc3\xa9", "", "s3://bucket/a b/\xc3\xa9");
}

static void test_snapshot(void **state)
{
    (void)state;
    accept("s3://bucket/vm1@monday", "bucket", "vm1", "monday", "s3://bucket/vm1");
    accept("s3://bucket/vm1@monday/", "bucket", "vm1", "monday", "s3://bucket/vm1");
    accept("s3://bucket/a@b/vm1", "bucket", "a@b/vm1", "", "s3://bucket/a@b/vm1");
    accept("s3://bucket/me@home@v1.2", "bucket", "me@home", "v1.2", "s3://bucket/me@home");
    accept("s3://bucket@monday", "bucket", "", "monday", "s3://bucket");
    accept("/d/vm1@x", "", "/d/vm1", "x", "/d/vm1");
    accept("/d@e/vm1", "", "/d@e/vm1", "", "/d@e/vm1");
    accept("file:///d/vm1@x", "", "/d/vm1", "x", "/d/vm1");
    refuse("s3://bucket/vm1@", "snapshot");
    refuse("s3://bucket/@x", "no volume name");
    refuse("@x", "no volume name");
    refuse("s3://bucket/vm1@.hidden", "snapshot");
    refuse("/d/vm1@a b", "snapshot");
}

static void test_paths(void **state)
{
    char cwd[512], want[1024];
    struct url url;

    (void)state;
    accept("/", "", "/", "", "/");
    accept("//d//vm1/", "", "/d/vm1", "", "/d/vm1");
    accept("/d/./vm1/.", "", "/d/vm1", "", "/d/vm1");
    accept("/d/../vm1", "", "/d/../vm1", "", "/d/../vm1");
    accept("file:///d/vm1", "", "/d/vm1", "", "/d/vm1");
    accept("FILE:///d//vm1", "", "/d/vm1", "", "/d/vm1");
    accept("/d/x://y", "", "/d/x:/y", "", "/d/x:/y");

    assert_non_null(getcwd(cwd, sizeof cwd));
    assert_int_equal(format(want, sizeof want, "%s/disk1", cwd), 0);
    accept("./disk1", "", want, "", want);
    accept("disk1@x", "", want, "x", want);
    accept(".", "", cwd, "", cwd);
    assert_int_equal(url_parse("s3", &url), 0); /* a directory may be called so */
    assert_false(url.s3);
}

/* An '@' in the working directory is none of the URL's. */
static void test_cwd_with_at(void **state)
{
    char dir[] = "/tmp/at-XXXXXX", in[64], old[512];

    (void)state;
    assert_non_null(getcwd(old, sizeof old));
    assert_non_null(mkdtemp(dir));
    assert_int_equal(format(in, sizeof in, "%s@home", dir), 0);
    assert_int_equal(rename(dir, in), 0);
    assert_int_equal(chdir(in), 0);
    accept(".", "", in, "", in);
    assert_int_equal(rmdir(in), 0);
    refuse("vm1", "working directory");
    assert_int_equal(chdir(old), 0);
}

static void test_refused(void **state)
{
    (void)state;
    refuse("", "empty");
    refuse("s3:", "s3://BUCKET/NAME");
    refuse("s3:/bucket/x", "s3://BUCKET/NAME");
    refuse("s3:bucket", "s3://BUCKET/NAME");
    refuse("s3://", "bucket's name is missing");
    refuse("s3:///vm1", "bucket's name is missing");
    refuse("s3://@x", "no volume name");
    refuse("s3://ab/vm1", "3 to 63");
    refuse("s3://Bucket/vm1", "lower-case");
    refuse("s3://buck_et/vm1", "lower-case");
    refuse("s3://-bucket/vm1", "lower-case");
    refuse("s3://bucket-/vm1", "lower-case");
    refuse("s3://buc..ket/vm1", "lower-case");
    refuse("s3://bucket/a/../vm1", "'..'");
    refuse("s3://bucket/./vm1", "'.'");
    refuse("s3://bucket/..", "'..'");
    refuse("http://127.0.0.1:8000/b/vm1", "--endpoint");
    refuse("https://bucket.example/vm1", "s3://BUCKET/NAME");
    refuse("file:/x", "file:///DIR/NAME");
    refuse("file://host/x", "file:///DIR/NAME");
    refuse("gs://bucket/x", "unknown kind");
    refuse("s3://bucket/a\nb", "control character");
    refuse("s3://localhost:8000/vm1", "--endpoint");
}

static void test_secrets_stay_secret(void **state)
{
    static const char *const urls[] = {"s3://AKIA:hush@bucket/vm1", "s3://AKIA:hush@bucket",
                                       "s3://hush@bucket/vm1", "https://AKIA:hush@host/bucket"};
    char said[512];

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(urls); i++) {
        refuse(urls[i], "s3://BUCKET/NAME");
        msg_last_error(said, sizeof said);
        assert_null(strstr(said, "hush"));
    }
}

static void test_lengths(void **state)
{
    char text[2 * URL_PART_MAX], bucket[80];
    struct url url;

    (void)state;
    memset(bucket, 'b', sizeof bucket);
    assert_int_equal(format(text, sizeof text, "s3://%.63s/vm1", bucket), 0);
    assert_int_equal(url_parse(text, &url), 0);
    assert_int_equal(strlen(url.bucket), 63);
    assert_int_equal(format(text, sizeof text, "s3://%.64s/vm1", bucket), 0);
    refuse(text, "3 to 63");

    memset(text, 'x', sizeof text);
    text[0] = '/';
    text[URL_PART_MAX - 1] = 0;
    assert_int_equal(url_parse(text, &url), 0);
    assert_string_equal(url.path, text);
    text[URL_PART_MAX - 1] = 'x';
    text[URL_PART_MAX] = 0;
    refuse(text, "longer than");
    text[0] = 'x'; /* relative: too long with the working directory only */
    text[URL_PART_MAX - 1] = 0;
    refuse(text, "longer than");

    memset(text, 'n', sizeof text);
    memcpy(text, "/d@", 3);
    text[3 + 100] = 0;
    assert_int_equal(url_parse(text, &url), 0);
    assert_int_equal(strlen(url.snapshot), 100);
    text[3 + 100] = 'n';
    text[3 + 101] = 0;
    refuse(text, "snapshot");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_s3),      cmocka_unit_test(test_snapshot),
        cmocka_unit_test(test_paths),   cmocka_unit_test(test_cwd_with_at),
        cmocka_unit_test(test_refused), cmocka_unit_test(test_secrets_stay_secret),
        cmocka_unit_test(test_lengths),
    };

    msg_set_sink(MSG_NONE);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
