#include "crc32c.h"

#include <string.h>

#if defined(__x86_64__)
#include <nmmintrin.h>
#endif

uint32_t crc32c_portable(uint32_t crc, const void *data, size_t len)
{
    const uint8_t *p = data;

    crc = ~crc;
    while (len--) {
        crc ^= *p++;
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (0x82f63b78 & -(crc & 1));
    }
    return ~crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static uint32_t crc32c_sse42(uint32_t crc, const void *data,
                                                               size_t len)
{
    const uint8_t *p = data;
    uint64_t c = ~crc;

    for (; len >= 8; p += 8, len -= 8) {
        uint64_t n;
        memcpy(&n, p, sizeof n);
        c = _mm_crc32_u64(c, n);
    }
    while (len--)
        c = _mm_crc32_u8((uint32_t)c, *p++);
    return ~(uint32_t)c;
}

/* An instruction has its result after three cycles, and another one can begin in each. */
__attribute__((target("sse4.2"))) static void three_sse42(const uint8_t *p, size_t len,
                                                          uint32_t ret[3])
{
    uint64_t a = UINT32_MAX, b = UINT32_MAX, c = UINT32_MAX;

    for (size_t i = 0; i < len; i += 8) {
        uint64_t x, y, z;
        memcpy(&x, p + i, sizeof x);
        memcpy(&y, p + len + i, sizeof y);
        memcpy(&z, p + 2 * len + i, sizeof z);
        a = _mm_crc32_u64(a, x);
        b = _mm_crc32_u64(b, y);
        c = _mm_crc32_u64(c, z);
    }
    ret[0] = ~(uint32_t)a;
    ret[1] = ~(uint32_t)b;
    ret[2] = ~(uint32_t)c;
}
#endif

uint32_t crc32c(uint32_t crc, const void *data, size_t len)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("sse4.2"))
        return crc32c_sse42(crc, data, len);
#endif
    return crc32c_portable(crc, data, len);
}

void crc32c_each(const void *data, size_t len, size_t n, uint32_t *ret)
{
    const uint8_t *p = data;
    size_t i = 0;

#if defined(__x86_64__)
    if (__builtin_cpu_supports("sse4.2") && len % 8 == 0)
        for (; n - i >= 3; i += 3)
            three_sse42(p + i * len, len, ret + i);
#endif
    for (; i < n; i++)
        ret[i] = crc32c(0, p + i * len, len);
}
