#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "../../store/crc32c.h"
#include "../pattern.h"

typedef uint32_t crc_fn(uint32_t crc, const void *data, size_t len);

static crc_fn *const both[] = {crc32c, crc32c_portable};

/* RFC 3720, appendix B.4; there the bytes of the result are listed least significant first. */
static void test_published_vectors(void **state)
{
    static const uint8_t scsi_read[48] = {
        0x01, 0xc0, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x00, 0x00, 0x14, 0x00, 0x00, 0x00, 0x00, 0x00, 0x04, 0x00,
        0x00, 0x00, 0x00, 0x14, 0x00, 0x00, 0x00, 0x18, 0x28, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x00, 0x00, 0x02, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00};
    uint8_t zeros[32] = {0}, ones[32], up[32], down[32];

    (void)state;
    memset(ones, 0xff, sizeof ones);
    for (uint8_t i = 0; i < 32; i++) {
        up[i] = i;
        down[i] = 31 - i;
    }
    for (int i = 0; i < 2; i++) {
        assert_int_equal(both[i](0, zeros, 32), 0x8a9136aa);
        assert_int_equal(both[i](0, ones, 32), 0x62a8ab43);
        assert_int_equal(both[i](0, up, 32), 0x46dd794e);
        assert_int_equal(both[i](0, down, 32), 0x113fdb5c);
        assert_int_equal(both[i](0, scsi_read, 48), 0xd9963a56);
        assert_int_equal(both[i](0, "123456789", 9), 0xe3069283);
        assert_int_equal(both[i](0, "", 0), 0);
    }
}

static void test_both_agree_on_every_length_and_alignment(void **state)
{
    uint8_t buf[400];

    (void)state;
    pattern(buf, sizeof buf, 0, 1);
    for (size_t at = 0; at < 17; at++)
        for (size_t len = 0; len <= 300; len++)
            assert_int_equal(crc32c(7, buf + at, len), crc32c_portable(7, buf + at, len));
}

static void test_goes_on_where_it_was(void **state)
{
    uint8_t buf[100];

    (void)state;
    pattern(buf, sizeof buf, 0, 2);
    for (int i = 0; i < 2; i++)
        for (size_t cut = 0; cut <= sizeof buf; cut++)
            assert_int_equal(both[i](both[i](0, buf, cut), buf + cut, sizeof buf - cut),
                             both[i](0, buf, sizeof buf));
}

static void test_each_is_one_by_one(void **state)
{
    uint8_t buf[40 * 17];
    uint32_t sums[17];

    (void)state;
    pattern(buf, sizeof buf, 0, 3);
    for (size_t len = 0; len <= 40; len++)
        for (size_t n = 0; n < 17; n++) {
            sums[n] = 7;
            crc32c_each(buf, len, n, sums);
            for (size_t i = 0; i < n; i++)
                assert_int_equal(sums[i], crc32c(0, buf + i * len, len));
            assert_int_equal(sums[n], 7);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_is_one_by_one),
        cmocka_unit_test(test_published_vectors),
        cmocka_unit_test(test_both_agree_on_every_length_and_alignment),
        cmocka_unit_test(test_goes_on_where_it_was),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
