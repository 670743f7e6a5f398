/* CRC-32C (Castagnoli; polynomial and parameters: RFC 3720, appendix B.4). Pure. */
#ifndef S3VOL_CRC32C_H
#define S3VOL_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* Continues `crc` (0 to begin) over `len` bytes. */
uint32_t crc32c(uint32_t crc, const void *data, size_t len);
/* The sums of `n` neighbours of `len` bytes each; several at a time, and so faster than one by one.
 */
void crc32c_each(const void *data, size_t len, size_t n, uint32_t *ret_sums);
/* crc32c() without special instructions; for tests. */
uint32_t crc32c_portable(uint32_t crc, const void *data, size_t len);

#endif
