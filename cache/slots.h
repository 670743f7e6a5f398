/*
 * The slots: one sparse file of CHUNK_BYTES pieces on the cache disk, read and written past the
 * page cache where the file system can (the kernel then caches the image once instead of twice, and
 * memory reclaim never waits for us to get memory). Which slot holds what is not known here. Safe
 * from any thread; 0 or a negative errno, reported by the caller.
 */
#ifndef S3VOL_SLOTS_H
#define S3VOL_SLOTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct slots;

#define SLOT_NONE UINT32_MAX

/* Opens or makes the file `path`. */
int slots_open(const char *path, struct slots **ret_slots);
void slots_close(struct slots *slots);

/* Whole blocks: `first` and `n` count blocks of the slot. Any address; one that is a multiple of
 * 4 KiB is not copied. */
int slots_read(struct slots *slots, uint32_t slot, unsigned first, unsigned n, void *buf);
int slots_write(struct slots *slots, uint32_t slot, unsigned first, unsigned n, const void *buf);

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
