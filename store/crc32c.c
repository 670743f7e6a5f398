#include "crc32c.h"

#include <stdbool.h>
#include <string.h>

/* The processor's own instruction, if it has one: `step` takes in eight bytes. */
#if defined(__x86_64__)
#include <nmmintrin.h>
#define WITH_CRC __attribute__((target("sse4.2")))
static bool have_crc(void)
{
    return __builtin_cpu_supports("sse4.2");
}
WITH_CRC static inline uint64_t step(uint64_t crc, uint64_t eight)
{
    return _mm_crc32_u64(crc, eight);
}
#elif defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#define WITH_CRC
static bool have_crc(void)
{
    return getauxval(AT_HWCAP) & HWCAP_CRC32;
}
static inline uint64_t step(uint64_t crc, uint64_t eight)
{
    uint32_t next;

    __asm__(".arch_extension crc\n\tcrc32cx %w0, %w1, %2"
            : "=r"(next)
            : "r"((uint32_t)crc), "r"(eight));
    return next;
}
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

#ifdef WITH_CRC
WITH_CRC static uint32_t one(uint32_t crc, const uint8_t *p, size_t len)
{
    uint64_t c = ~crc;

    for (; len >= 8; p += 8, len -= 8) {
        uint64_t eight;
        memcpy(&eight, p, sizeof eight);
        c = step(c, eight);
    }
    return crc32c_portable(~(uint32_t)c, p, len);
}

/* An instruction has its result after three cycles, and another one can begin in each. `len` is a
 * multiple of 8. */
WITH_CRC static void three(const uint8_t *p, size_t len, uint32_t ret[3])
{
    uint64_t a = UINT32_MAX, b = UINT32_MAX, c = UINT32_MAX;

    for (size_t i = 0; i < len; i += 8) {
        uint64_t x, y, z;
        memcpy(&x, p + i, sizeof x);
        memcpy(&y, p + len + i, sizeof y);
        memcpy(&z, p + 2 * len + i, sizeof z);
        a = step(a, x);
        b = step(b, y);
        c = step(c, z);
    }
    ret[0] = ~(uint32_t)a;
    ret[1] = ~(uint32_t)b;
    ret[2] = ~(uint32_t)c;
}
#endif

uint32_t crc32c(uint32_t crc, const void *data, size_t len)
{
#ifdef WITH_CRC
    if (have_crc())
        return one(crc, data, len);
#endif
    return crc32c_portable(crc, data, len);
}

void crc32c_each(const void *data, size_t len, size_t n, uint32_t *ret)
{
    const uint8_t *p = data;
    size_t i = 0;

#ifdef WITH_CRC
    if (have_crc() && len % 8 == 0)
        for (; n - i >= 3; i += 3)
            three(p + i * len, len, ret + i);
#endif
    for (; i < n; i++)
        ret[i] = crc32c(0, p + i * len, len);
}
