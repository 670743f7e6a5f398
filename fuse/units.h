/* Sizes and durations as people write and read them. Pure. */
#ifndef S3VOL_UNITS_H
#define S3VOL_UNITS_H

#include <stdint.h>

/* "4096", "64K", "10G", "2TiB": a whole number and K, M, G, T, P or E, powers of 1024, in either
 * case, "B" or "iB" after it if one likes. 0, or -EINVAL, or -ERANGE from 2^64 on. */
int units_parse_size(const char *text, uint64_t *ret_bytes);

/* "90", "90s", "500ms", "5m", "2h", "1d": seconds if nothing is said. Errors as above. */
int units_parse_duration(const char *text, int64_t *ret_ms);

/* A plain decimal number. Errors as above. */
int units_parse_count(const char *text, uint64_t *ret_count);

enum { UNITS_TEXT_MAX = 24 };

/* "512 bytes", "4.0 KiB", "1.5 GiB"; returns `buf`. */
const char *units_format_size(uint64_t bytes, char buf[UNITS_TEXT_MAX]);

/* "350 ms", "42 s", "12 min", "3 h", "5 days"; returns `buf`. */
const char *units_format_duration(int64_t ms, char buf[UNITS_TEXT_MAX]);

#endif
