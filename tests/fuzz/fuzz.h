/*
 * What the fuzzers share. Each decodes one kind of thing that comes from outside, and fails (by
 * INVARIANT, or under a sanitizer) where the decoder breaks its contract. Linked with libFuzzer, or
 * with replay.c, which needs no clang.
 */
#ifndef FUZZ_H
#define FUZZ_H

#include "../../store/bytes.h"
#include "../../store/crc32c.h"
#include "../../store/header.h"
#include "../../store/msg.h"
#include "../../store/scope.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
/* How many mutations replay.c tries, if 20000 take long. */
extern const unsigned long fuzz_runs __attribute__((weak));

/* Where the fields are that must be right for the rest to be looked at: store/DESIGN.md. */
enum {
    AT_VERSION = 8,
    AT_KIND = 10,
    AT_UUID = 16,
    AT_SEQ = 56,
    AT_BODY_BYTES = 100,
    AT_BODY_CRC = 104,
    AT_OBJECT_BYTES = 108,
    AT_RESERVED = 120,
    AT_CRC = 124
};

/* A copy that ends where its memory does, for the address sanitizer. Frees itself. */
#define scope_copy(data, size) memcpy(malloc((size) + !(size)), data, size)

/* The front of the input, for choices; 0 when it is used up. */
struct input {
    const uint8_t *at;
    size_t left;
};
static inline uint64_t take_number(struct input *in, size_t bytes)
{
    uint64_t n = 0;

    for (; bytes > 0 && in->left > 0; bytes--, in->left--)
        n = n << 8 | *in->at++;
    return n;
}

/* The length of what follows: not more than there is. */
static inline size_t take_length(struct input *in)
{
    uint64_t n = take_number(in, 2);

    return MIN(n, in->left);
}

/* A choice that depends on the whole input. */
static inline uint64_t draw_from(const void *data, size_t size, uint64_t below)
{
    return crc32c(0, data, size) % below;
}

/* Gives an object, of at least HEADER_BYTES, the checksums that it would have. */
static inline void seal_object(uint8_t *object, size_t len)
{
    uint32_t room = (uint32_t)(len - HEADER_BYTES);

    memcpy(object, "S3VOLUME", 8);
    put_le16(object + AT_VERSION, FORMAT_VERSION);
    if (get_le32(object + AT_BODY_BYTES) > room)
        put_le32(object + AT_BODY_BYTES, room);
    put_le32(object + AT_BODY_CRC,
             crc32c(0, object + HEADER_BYTES, get_le32(object + AT_BODY_BYTES)));
    put_le32(object + AT_CRC, crc32c(0, object, AT_CRC));
}

static inline void assert_sealed(const uint8_t *object)
{
    INVARIANT(get_le32(object + AT_CRC) == crc32c(0, object, AT_CRC));
    INVARIANT(get_le32(object + AT_BODY_CRC) ==
              crc32c(0, object + HEADER_BYTES, get_le32(object + AT_BODY_BYTES)));
}

/* A decoder said no: with a reason. */
static inline void assert_refused(int r, const char *why)
{
    INVARIANT(r == -EBADMSG || r == -EPROTONOSUPPORT);
    INVARIANT(why && *why);
}

#endif
