/* Headers: each field at its place, and nothing but what was written is believed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "../../store/bytes.h"
#include "../../store/crc32c.h"
#include "../../store/entry.h"
#include "../../store/header.h"
#include "../../store/scope.h"

enum { BODY = 40 };

static const uint8_t uuid[UUID_BYTES] = "volume's uuid 1",
                     other_uuid[UUID_BYTES] = "volume's uuid 2";
static const char *why;

static struct header sample(void)
{
    struct header h = {.kind = HEADER_CHECKPOINT,
                       .epoch = 0x1112131415161718,
                       .seq = 0x232425262728,
                       .size_blocks = 0x2333435363738,
                       .first = 0x134445464748,
                       .next = 0x535455565758,
                       .claim = 0x6162636465666768,
                       .wall_ms = 0x7172737475767778,
                       .nentries = 0x81828384,
                       .body_bytes = BODY,
                       .object_bytes = 0x91929394};

    memcpy(h.uuid, uuid, UUID_BYTES);
    memcpy(h.nonce, "the attachment's", UUID_BYTES);
    return h;
}

static void encode(struct header h, uint8_t buf[HEADER_BYTES + BODY])
{
    for (int i = 0; i < BODY; i++)
        buf[HEADER_BYTES + i] = (uint8_t)(3 * i);
    header_encode(&h, buf + HEADER_BYTES, buf);
}

static int decode(const uint8_t *buf, struct header *ret)
{
    return header_decode(buf, HEADER_BYTES + BODY, uuid, HEADER_CHECKPOINT, sample().seq, ret,
                         &why);
}

/* The header's checksum is made good again. */
static void seal(uint8_t *buf)
{
    put_le32(buf + 124, crc32c(0, buf, 124));
}

static void test_round_trip(void **state)
{
    uint8_t buf[HEADER_BYTES + BODY];
    struct header h, was = sample();

    (void)state;
    encode(was, buf);
    assert_int_equal(decode(buf, &h), 0);
    was.body_crc = crc32c(0, buf + HEADER_BYTES, BODY);
    assert_int_equal(h.kind, was.kind);
    assert_int_equal(h.flags, was.flags);
    assert_memory_equal(h.uuid, was.uuid, UUID_BYTES);
    assert_memory_equal(h.nonce, was.nonce, UUID_BYTES);
    assert_int_equal(h.epoch, was.epoch);
    assert_int_equal(h.seq, was.seq);
    assert_int_equal(h.size_blocks, was.size_blocks);
    assert_int_equal(h.first, was.first);
    assert_int_equal(h.next, was.next);
    assert_int_equal(h.claim, was.claim);
    assert_int_equal(h.wall_ms, was.wall_ms);
    assert_int_equal(h.nentries, was.nentries);
    assert_int_equal(h.body_bytes, was.body_bytes);
    assert_int_equal(h.body_crc, was.body_crc);
    assert_int_equal(h.object_bytes, was.object_bytes);
}

/* The format: what is in buckets must stay readable. */
static void test_every_field_at_its_offset(void **state)
{
    static const uint8_t golden[124] = {
        'S',  '3',  'V',  'O',  'L',  'U',  'M',  'E',                          /* magic */
        0x01, 0x00, 0x03, 0x00, 0x00, 0x00, 0x00, 0x00,                         /* version … */
        'v',  'o',  'l',  'u',  'm',  'e',  '\'', 's',                          /* uuid */
        ' ',  'u',  'u',  'i',  'd',  ' ',  '1',  0x00,                         /* … */
        't',  'h',  'e',  ' ',  'a',  't',  't',  'a',                          /* nonce */
        'c',  'h',  'm',  'e',  'n',  't',  '\'', 's',                          /* … */
        0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11,                         /* epoch */
        0x28, 0x27, 0x26, 0x25, 0x24, 0x23, 0x00, 0x00,                         /* seq */
        0x38, 0x37, 0x36, 0x35, 0x34, 0x33, 0x02, 0x00,                         /* size */
        0x48, 0x47, 0x46, 0x45, 0x44, 0x13, 0x00, 0x00,                         /* first */
        0x58, 0x57, 0x56, 0x55, 0x54, 0x53, 0x00, 0x00,                         /* next */
        0x78, 0x77, 0x76, 0x75, 0x74, 0x73, 0x72, 0x71,                         /* time */
        0x84, 0x83, 0x82, 0x81, BODY, 0x00, 0x00, 0x00,                         /* counts */
        0x35, 0x37, 0x04, 0x65, 0x94, 0x93, 0x92, 0x91,                         /* body crc … */
        0x68, 0x67, 0x66, 0x65, 0x64, 0x63, 0x62, 0x61, 0x00, 0x00, 0x00, 0x00, /* claim */
    };
    uint8_t buf[HEADER_BYTES + BODY];

    (void)state;
    assert_int_equal(HEADER_BYTES, 128);
    encode(sample(), buf);
    assert_memory_equal(buf, golden, sizeof golden);
    assert_int_equal(get_le32(buf + 124), crc32c(0, golden, sizeof golden));
}

static void test_every_flipped_bit_is_noticed(void **state)
{
    uint8_t buf[HEADER_BYTES + BODY];
    struct header h;

    (void)state;
    encode(sample(), buf);
    for (size_t bit = 0; bit < sizeof buf * 8; bit++) {
        buf[bit / 8] ^= (uint8_t)(1 << bit % 8);
        why = NULL;
        assert_int_equal(decode(buf, &h), -EBADMSG);
        assert_non_null(why);
        buf[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    assert_int_equal(decode(buf, &h), 0);
}

static void test_every_truncation_is_noticed(void **state)
{
    uint8_t buf[HEADER_BYTES + BODY];
    struct header h;

    (void)state;
    encode(sample(), buf);
    for (size_t len = 0; len < sizeof buf; len++) {
        scope_free uint8_t *copy = malloc(len + 1); /* for the address sanitizer */
        memcpy(copy, buf, len);
        assert_int_equal(header_decode(copy, len, uuid, HEADER_CHECKPOINT, sample().seq, &h, &why),
                         -EBADMSG);
    }
}

static void test_of_another_object(void **state)
{
    uint8_t buf[HEADER_BYTES + BODY];
    struct header h;
    size_t n = sizeof buf;

    (void)state;
    encode(sample(), buf);
    assert_int_equal(header_decode(buf, n, other_uuid, HEADER_CHECKPOINT, sample().seq, &h, &why),
                     -EBADMSG);
    assert_string_equal(why, "of another volume");
    assert_int_equal(header_decode(buf, n, uuid, HEADER_PART, sample().seq, &h, &why), -EBADMSG);
    assert_string_equal(why, "of another kind than its name says");
    assert_int_equal(header_decode(buf, n, uuid, 0, sample().seq, &h, &why), -EBADMSG);
    assert_int_equal(header_decode(buf, n, uuid, HEADER_CHECKPOINT, sample().seq + 1, &h, &why),
                     -EBADMSG);
    assert_string_equal(why, "of another number than its name says");
}

/* 0 means what the log consists of. */
static void test_log_objects(void **state)
{
    uint8_t buf[HEADER_BYTES + BODY];
    struct header h;

    (void)state;
    for (int kind = 0; kind < 6; kind++) {
        struct header s = sample();
        s.kind = (enum header_kind)kind;
        s.claim = s.seq;
        encode(s, buf);
        int r = header_decode(buf, sizeof buf, uuid, 0, s.seq, &h, &why);
        assert_int_equal(r, kind == HEADER_SEGMENT || kind == HEADER_CLAIM ? 0 : -EBADMSG);
    }
}

static void test_a_version_from_the_future(void **state)
{
    uint8_t buf[HEADER_BYTES + BODY];
    struct header h;

    (void)state;
    encode(sample(), buf);
    buf[8] = 2;
    assert_int_equal(decode(buf, &h), -EBADMSG); /* damage goes first */
    seal(buf);
    assert_int_equal(decode(buf, &h), -EPROTONOSUPPORT);
    assert_non_null(strstr(why, "upgrade"));
    memset(buf, 0, 8);
    assert_int_equal(decode(buf, &h), -EBADMSG);
    assert_string_equal(why, "not an object of s3vol");
}

/* What this version knows nothing of, it does not pass over. */
static void test_flags_from_the_future(void **state)
{
    uint8_t buf[HEADER_BYTES + BODY];
    struct header h;

    (void)state;
    for (size_t bit = 0; bit < 64; bit++) {
        size_t at = bit < 32 ? 12 + bit / 8 : 120 + (bit - 32) / 8;
        encode(sample(), buf);
        buf[at] |= (uint8_t)(1 << bit % 8);
        seal(buf);
        assert_int_equal(decode(buf, &h), -EPROTONOSUPPORT);
    }
    struct header s = sample();
    s.kind = HEADER_SEGMENT;
    s.flags = HEADER_LAST;
    encode(s, buf);
    assert_int_equal(header_decode(buf, sizeof buf, uuid, 0, s.seq, &h, &why), 0);
    assert_int_equal(h.flags, HEADER_LAST);
}

static void test_numbers_that_make_no_sense(void **state)
{
    static const enum header_kind kinds[] = {HEADER_CLAIM, HEADER_CHECKPOINT};
    uint8_t buf[HEADER_BYTES + BODY];
    struct header h, s = sample();

    (void)state;
    s.object_bytes = HEADER_BYTES + BODY - 1;
    encode(s, buf);
    assert_int_equal(decode(buf, &h), -EBADMSG);
    s.object_bytes = UINT32_MAX;
    s.body_bytes = BODY;
    encode(s, buf);
    put_le32(buf + 100, UINT32_MAX); /* the body's length: the sum would wrap */
    seal(buf);
    assert_int_equal(decode(buf, &h), -EBADMSG);
    for (int i = 0; i < 2; i++) {
        s = sample();
        s.kind = kinds[i];
        s.claim = s.seq;
        s.next = s.seq; /* does not go on */
        encode(s, buf);
        assert_int_equal(header_decode(buf, sizeof buf, uuid, s.kind, s.seq, &h, &why), -EBADMSG);
        s.next = s.seq + 1;
        s.first = s.seq + 1; /* from the future */
        encode(s, buf);
        assert_int_equal(header_decode(buf, sizeof buf, uuid, s.kind, s.seq, &h, &why), -EBADMSG);
        s.first = s.seq;
        encode(s, buf);
        assert_int_equal(header_decode(buf, sizeof buf, uuid, s.kind, s.seq, &h, &why), 0);
    }
    s.kind = HEADER_CLAIM;
    s.claim = s.seq - 1; /* somebody else's */
    encode(s, buf);
    assert_int_equal(header_decode(buf, sizeof buf, uuid, s.kind, s.seq, &h, &why), -EBADMSG);
}

/* Sums of such numbers never wrap. */
static void test_numbers_have_limits(void **state)
{
    uint8_t buf[HEADER_BYTES + BODY];
    struct header h, s = sample();

    (void)state;
    s.next = UINT64_C(1) << 48;
    encode(s, buf);
    assert_int_equal(decode(buf, &h), -EBADMSG);
    s = sample();
    s.size_blocks = VOLUME_BLOCKS_MAX;
    encode(s, buf);
    assert_int_equal(decode(buf, &h), -EBADMSG);
    s = sample();
    s.seq = (UINT64_C(1) << 48) + 1;
    encode(s, buf);
    assert_int_equal(header_decode(buf, sizeof buf, uuid, s.kind, s.seq, &h, &why), -EBADMSG);
}

/* A head that was read may reach into what follows the body. */
static void test_more_than_the_body(void **state)
{
    uint8_t buf[HEADER_BYTES + BODY + 10];
    struct header h;

    (void)state;
    encode(sample(), buf);
    memset(buf + HEADER_BYTES + BODY, 'x', 10);
    assert_int_equal(
        header_decode(buf, sizeof buf, uuid, HEADER_CHECKPOINT, sample().seq, &h, &why), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_every_field_at_its_offset),
        cmocka_unit_test(test_every_flipped_bit_is_noticed),
        cmocka_unit_test(test_every_truncation_is_noticed),
        cmocka_unit_test(test_of_another_object),
        cmocka_unit_test(test_log_objects),
        cmocka_unit_test(test_a_version_from_the_future),
        cmocka_unit_test(test_flags_from_the_future),
        cmocka_unit_test(test_numbers_that_make_no_sense),
        cmocka_unit_test(test_numbers_have_limits),
        cmocka_unit_test(test_more_than_the_body),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
