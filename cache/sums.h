/*
 * The sums of the slots' blocks (CRC-32C, by slot and block): a file of pages on the cache disk, of
 * which so many as are used most are in memory. A page is written when another one needs its place,
 * and when the cache is left clean; only then may the next process believe the file, and only with
 * the index that was stored then: the file's life, a number that each process changes before it
 * changes any page, is in both.
 *
 * The file, in pages of 4 KiB, in the machine's byte order: at 0 of each the CRC-32C of the rest (4
 * bytes), at 4 its number (4 bytes). Of the first page that is UINT32_MAX, and at 8 is the life (8
 * bytes). Behind it page n has at 256 the sums of slots n * SUMS_SLOTS and on, CHUNK_BLOCKS of 4
 * bytes each. A page that is damaged has sums that hardly any block has, so that none is believed;
 * of one that was never written, or cannot be read, no sum is known.
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

/* Of the file, as sums_begin() left it; 0: it has none. */
uint64_t sums_life(const struct sums *s);
/* A new life, on the disk, before anything else is done. */
int sums_begin(struct sums *s);

/* There may be slots up to this one. 0 or -ENOMEM. */
int sums_reserve(struct sums *s, uint32_t slot);

/* The pages of `n` slots (SUMS_RUN at most) from `slot` on, kept in memory until they are released;
 * which every call but a failed one (-ENOMEM) must be followed by. */
struct sums_held {
    uint32_t first; /* page */
    struct sums_page *pages[2];
};
int sums_hold(struct sums *s, uint32_t slot, uint32_t n, struct sums_held *ret_held);
/* A held slot's, by block; 0: not known. */
uint32_t *sums_of(const struct sums_held *held, uint32_t slot);
void sums_release(struct sums *s, struct sums_held *held, bool changed);

/* Everything is in the file, and that on the disk, while nobody else is at it. A sync that failed
 * fails for ever. */
int sums_save(struct sums *s);

#endif
