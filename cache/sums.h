/*
 * The sums of the slots' blocks (CRC-32C, by slot and block): a file of pages on the cache disk, of
 * which so many as are used most are in memory. A page is written when another one needs its place,
 * and when the cache is left clean; only then may the next process believe the file.
 *
 * A page (4 KiB, little-endian): at 0 the CRC-32C of the rest (4 bytes), at 4 its number (4 bytes),
 * at 256 the sums of SUMS_SLOTS slots, CHUNK_BLOCKS of 4 bytes each. What is not such a page holds
 * no sums.
 *
 * Safe from any thread, but for the sums themselves: who changes them keeps others away (slots.h).
 * 0 or a negative errno.
 */
#ifndef S3VOL_SUMS_H
#define S3VOL_SUMS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SUMS_SLOTS = 15, SUMS_RUN = 8 };

struct sums;
struct sums_page;

/* Over an open file, which it closes, with at most `max_pages` in memory, where more are not needed
 * at once. -ENOMEM. */
int sums_new(int fd, size_t max_pages, struct sums **ret_sums);
void sums_free(struct sums *s);

/* There may be slots up to this one. 0 or -ENOMEM. */
int sums_reserve(struct sums *s, uint32_t slot);

/* The pages of `n` slots (SUMS_RUN at most) from `slot` on, kept in memory until they are released;
 * which every call but a failed one must be followed by. */
struct sums_held {
    uint32_t first; /* page */
    struct sums_page *pages[2];
};
int sums_hold(struct sums *s, uint32_t slot, uint32_t n, struct sums_held *ret_held);
/* A held slot's, by block; 0: not known. */
uint32_t *sums_of(const struct sums_held *held, uint32_t slot);
void sums_release(struct sums *s, struct sums_held *held, bool changed);

/* Everything is in the file, and that on the disk. By nobody else meanwhile. */
int sums_save(struct sums *s);
/* None is known. Nobody holds any. */
int sums_forget(struct sums *s);

#endif
