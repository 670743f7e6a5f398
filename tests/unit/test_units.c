/* Sizes and durations: what is read, what is refused, and how they are shown. */
#include "../../fuse/units.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <cmocka.h>

static void check_size(const char *text, int r, uint64_t bytes)
{
    uint64_t got = 77;

    print_message("size \"%s\"\n", text);
    assert_int_equal(units_parse_size(text, &got), r);
    assert_int_equal(got, r == 0 ? bytes : 77);
}

static void sizes(void **state)
{
    (void)state;
    check_size("0", 0, 0);
    check_size("4096", 0, 4096);
    check_size("64K", 0, 65536);
    check_size("64k", 0, 65536);
    check_size("10G", 0, UINT64_C(10) << 30);
    check_size("10GiB", 0, UINT64_C(10) << 30);
    check_size("10gb", 0, UINT64_C(10) << 30);
    check_size("512B", 0, 512);
    check_size("15E", 0, UINT64_C(15) << 60);
    check_size("18446744073709551615", 0, UINT64_MAX);
    check_size("18446744073709551616", -ERANGE, 0);
    check_size("16E", -ERANGE, 0);
    check_size("99999999999999999999999G", -ERANGE, 0);
    check_size("", -EINVAL, 0);
    check_size("G", -EINVAL, 0);
    check_size("-1", -EINVAL, 0);
    check_size("+1", -EINVAL, 0);
    check_size(" 1", -EINVAL, 0);
    check_size("1 G", -EINVAL, 0);
    check_size("1.5G", -EINVAL, 0);
    check_size("10Q", -EINVAL, 0);
    check_size("10GG", -EINVAL, 0);
    check_size("10GiBB", -EINVAL, 0);
    check_size("0x10", -EINVAL, 0);
}

static void check_duration(const char *text, int r, int64_t ms)
{
    int64_t got = 77;

    print_message("duration \"%s\"\n", text);
    assert_int_equal(units_parse_duration(text, &got), r);
    assert_int_equal(got, r == 0 ? ms : 77);
}

static void durations(void **state)
{
    (void)state;
    check_duration("90", 0, 90000);
    check_duration("90s", 0, 90000);
    check_duration("500ms", 0, 500);
    check_duration("5m", 0, 300000);
    check_duration("5min", 0, 300000);
    check_duration("2h", 0, 7200000);
    check_duration("1d", 0, 86400000);
    check_duration("0", 0, 0);
    check_duration("9223372036854775807ms", 0, INT64_MAX);
    check_duration("9223372036854775807", -ERANGE, 0);
    check_duration("99999999999999999999s", -ERANGE, 0);
    check_duration("18446744073709551615ms", -ERANGE, 0);
    check_duration("5 s", -EINVAL, 0);
    check_duration("s", -EINVAL, 0);
    check_duration("-5s", -EINVAL, 0);
    check_duration("5S", -EINVAL, 0);
    check_duration("5sm", -EINVAL, 0);
}

static void counts(void **state)
{
    uint64_t n = 0;

    (void)state;
    assert_int_equal(units_parse_count("12", &n), 0);
    assert_int_equal(n, 12);
    assert_int_equal(units_parse_count("12K", &n), -EINVAL);
    assert_int_equal(units_parse_count("", &n), -EINVAL);
}

static void check_shown(uint64_t bytes, const char *text)
{
    char buf[UNITS_TEXT_MAX];

    assert_string_equal(units_format_size(bytes, buf), text);
}

static void shown(void **state)
{
    char buf[UNITS_TEXT_MAX];

    (void)state;
    check_shown(0, "0 bytes");
    check_shown(1023, "1023 bytes");
    check_shown(1024, "1.0 KiB");
    check_shown(1536, "1.5 KiB");
    check_shown((1 << 20) - 1, "1.0 MiB"); /* not "1024.0 KiB" */
    check_shown(UINT64_C(16) << 40, "16.0 TiB");
    check_shown(UINT64_MAX, "16.0 EiB");
    assert_string_equal(units_format_duration(999, buf), "999 ms");
    assert_string_equal(units_format_duration(1000, buf), "1 s");
    assert_string_equal(units_format_duration(119999, buf), "119 s");
    assert_string_equal(units_format_duration(120000, buf), "2 min");
    assert_string_equal(units_format_duration(7200000, buf), "2 h");
    assert_string_equal(units_format_duration(INT64_MAX, buf), "106751991167 days");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes),
        cmocka_unit_test(durations),
        cmocka_unit_test(counts),
        cmocka_unit_test(shown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
