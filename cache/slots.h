/*
 * The slots: one sparse file of CHUNK_BYTES pieces on the cache disk, read and written past the
 * page cache where the file system can (the kernel then caches the image once instead of twice, and
 * memory reclaim never waits for us to get memory). Which slot holds what is not known here. Safe
 * from any thread; 0 or a negative errno, reported by the caller.
 *
 * Every block has a sum (CRC-32C), taken when it is written and compared whenever it is read; where
 * they are: sums.h. The sums have no lock: nobody else reads or writes blocks while they are
 * written, which is what the caller's ops are for (chunks.h).
 */
#ifndef S3VOL_SLOTS_H
#define S3VOL_SLOTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct slots;

#define SLOT_NONE UINT32_MAX

/* Opens or makes the files `slots` and `sums` in `dir`. */
int slots_open(const char *dir, struct slots **ret_slots);
void slots_close(struct slots *slots);

/* The life of the sums (sums.h), and a new one, before anything is written. Where that is not the
 * one that was stored with what is in the slots, the sums are of anything. */
uint64_t slots_life(const struct slots *slots);
int slots_begin(struct slots *slots);

/* Slots up to this one may be used. 0 or -ENOMEM. */
int slots_reserve(struct slots *slots, uint32_t slot);

/* Whole blocks: `first` and `n` count blocks of the slot, and go on into the slots behind it. Any
 * address; one that is a multiple of 4 KiB is not copied. -EBADMSG: all were read, but these blocks
 * (a mask of each slot's) are not as they were written. A write that fails leaves blocks that may
 * be anything, and are believed. */
int slots_read(struct slots *slots, uint32_t slot, unsigned first, unsigned n, void *buf,
               uint64_t ret_bad[]);
int slots_write(struct slots *slots, uint32_t slot, unsigned first, unsigned n, const void *buf);

/* These blocks of one slot, each to its place in `chunk` (CHUNK_BYTES, block-aligned), in few
 * reads: what is between them may be read with them, to places in `chunk` that are not of `keep`,
 * and means nothing. Blocks that are not as they were written are added to *bad. */
int slots_gather(struct slots *slots, uint32_t slot, uint64_t mask, uint64_t keep, void *chunk,
                 uint64_t *bad);

/* The slot's sums, by block; 0: not known, and taken from the block when it is read next. */
int slots_get_sums(struct slots *slots, uint32_t slot, uint32_t ret_sums[]);
int slots_set_sums(struct slots *slots, uint32_t slot, const uint32_t sums[]); /* NULL: none */
/* All are in the file, and on the disk. Nobody reads or writes slots meanwhile. */
int slots_save_sums(struct slots *slots);

/* Disk space for `n` slots, which are holes and about to be filled whole: it is had in one piece,
 * and their writes are several times faster than into holes. Where it fails they find out. */
void slots_allocate(struct slots *slots, uint32_t slot, uint32_t n);

/* Gives the slot's disk space back. */
int slots_punch(struct slots *slots, uint32_t slot);

/* All writes that have returned are on the disk. */
int slots_sync(struct slots *slots);

/* How many slots the file reaches over; and cuts it to so many. */
uint64_t slots_count(const struct slots *slots);
int slots_truncate(struct slots *slots, uint32_t nslots);

bool slots_direct(const struct slots *slots);

/* CHUNK_BYTES, block-aligned, the calling thread's own until it ends; NULL without memory. Every
 * function here may overwrite it. */
void *slots_bounce(void);

#endif
