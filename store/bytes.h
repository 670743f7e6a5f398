/* Little-endian numbers in buffers of any alignment; buffers of zeros. */
#ifndef S3VOL_BYTES_H
#define S3VOL_BYTES_H

#include <endian.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

static inline void put_le16(void *p, uint16_t n)
{
    n = htole16(n);
    memcpy(p, &n, sizeof n);
}
static inline void put_le32(void *p, uint32_t n)
{
    n = htole32(n);
    memcpy(p, &n, sizeof n);
}
static inline void put_le64(void *p, uint64_t n)
{
    n = htole64(n);
    memcpy(p, &n, sizeof n);
}
static inline uint16_t get_le16(const void *p)
{
    uint16_t n;
    memcpy(&n, p, sizeof n);
    return le16toh(n);
}
static inline uint32_t get_le32(const void *p)
{
    uint32_t n;
    memcpy(&n, p, sizeof n);
    return le32toh(n);
}
static inline uint64_t get_le64(const void *p)
{
    uint64_t n;
    memcpy(&n, p, sizeof n);
    return le64toh(n);
}

static inline bool all_zero(const void *data, size_t len)
{
    const uint8_t *p = data;

    return len == 0 || (p[0] == 0 && memcmp(p, p + 1, len - 1) == 0);
}

#endif
