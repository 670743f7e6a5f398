/*
 * What the volume may hold. Every write stamps its sectors (512 bytes) with their position and a
 * generation of their own, so that each sector found tells which write it is from. The sectors are
 * dealt out among a few clients, in runs that share blocks; a client works on its own, one
 * operation after the other, so the state of its sectors is a function of how many of its
 * operations took effect.
 *
 * An era is the life of one attachment: its content at the start, as it was found; the operations
 * since, with when each began and ended; and how many of them must survive what (floors). What is
 * found later is right
 *
 *   as one instant      if for each client some number of operations gives just its sectors, not
 * less than the floor, and no operation is missing that had ended before one that is there began as
 * a write cache    if every sector has a value that it had at the floor, or got later
 *
 * or, if nothing of the era is known to have reached the bucket yet, if the same is true of the era
 * before.
 */
#ifndef SIM_MODEL_H
#define SIM_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SECTOR_BYTES = 512, SECTORS_MAX = 32768, CLIENTS_MAX = 4 };

enum op_kind { OP_PUT, OP_CLEAR, OP_CLEAR_LOOSELY, OP_GROW, OP_SETTLE };
struct sim_op {
    enum op_kind kind;
    uint32_t first, n; /* sectors; OP_GROW: n is the new size */
    uint32_t generation;
    uint32_t *each;        /* OP_SETTLE: by sector */
    uint64_t began, ended; /* 0: it has not, or it failed */
    bool failed;           /* as on every disk, it may have taken effect in part */
};

struct era {
    struct era *before; /* NULL, or what the volume may still be while `sure` is false */
    bool sure;          /* the base is in the bucket */
    bool write_cache;   /* after a crash that leaves the cache, only as a write cache */
    uint64_t epoch;
    int host;
    uint32_t *base; /* generation by sector; 0: zeros */
    uint32_t base_sectors;
    struct sim_op *ops[CLIENTS_MAX];
    size_t nops[CLIENTS_MAX], room[CLIENTS_MAX];
    bool in_bucket; /* a flush to the bucket was acknowledged */
    bool on_disk;   /* a flush to the local disk, or to the bucket */
    size_t bucket_floor[CLIENTS_MAX], disk_floor[CLIENTS_MAX];
    uint64_t fenced; /* when the volume was rolled back; 0: never since */
    uint32_t *found; /* by who attached later; NULL: nobody has */
    uint32_t found_sectors;
};

extern unsigned model_clients;
extern bool model_disks_fail; /* so may what is under way have, and nobody could be told any more */

/* Deals the sectors out. */
void model_start(uint32_t sectors);
int model_owner(uint32_t sector);

void model_stamp(uint8_t *sector, uint32_t at, uint32_t generation);
/* The generation in it; UINT32_MAX if it is no stamp of this position, nor zeros. */
uint32_t model_read_stamp(const uint8_t *sector, uint32_t at);
uint32_t model_next_generation(void);

struct era *era_new(struct era *before, int host, uint64_t epoch, const uint32_t *base,
                    uint32_t sectors);
struct sim_op *era_begin(struct era *e, int client, enum op_kind kind, uint32_t first, uint32_t n);
/* All that it began is done: one operation, but for who shrinks the volume: a clearing, and a size.
 */
void era_end(struct era *e, int client);
/* What it began was refused and changed nothing: it never was. */
void era_cancel(struct era *e, int client);
/* What the client began, and has not ended, never will; false: there is nothing. */
bool era_failed(struct era *e, int client);
/* What it began last failed, and its sectors were read since, as `found` (by sector): so they are
 * now, and stay. */
void era_settle(struct era *e, int client, const uint32_t *found);
/* What all that has ended until now amounts to; for a flush that begins. */
void era_completed(const struct era *e, size_t ret[CLIENTS_MAX]);
/* That flush was acknowledged. Ends the simulation if a later attachment did not find it. */
void era_flushed(struct era *e, const size_t completed[CLIENTS_MAX], bool to_bucket);

/* Who attached later did not find what a flush, to the local disk at least, had acknowledged: but
 * for a larger size, which gives way. False if nobody attached, or has read it all yet. */
bool era_cut_off(const struct era *e);

/* The volume is rolled back at this moment: the era, and those before it, may not be told of any
 * flush of what is written from now on. */
void era_fence(struct era *e);

enum floor_kind { FLOOR_BUCKET, FLOOR_DISK };
/* The era, or one before it, whose state `found` is at one instant; NULL, and *why, if there is
 * none. With `take_over` the era is superseded: from then on no flush may be acknowledged that was
 * not found. */
struct era *era_instant(struct era *e, const uint32_t *found, uint32_t sectors,
                        enum floor_kind floor, bool take_over, char why[256]);
/* … or one before it, however long ago and whatever was flushed since. */
bool era_ever(const struct era *e, const uint32_t *found, uint32_t sectors, char why[256]);

/* What the bucket must have at this moment of the volume whose newest era that is. */
struct era_mark *era_mark(const struct era *newest);
/* `found` is one instant of it, not older than that mark, or of an era since, up to `newest`. */
bool era_since(const struct era *newest, const struct era_mark *mark, const uint32_t *found,
               uint32_t sectors, char why[256]);

/* Every sector is as a write cache may leave it. */
bool era_write_cache(const struct era *e, const uint32_t *found, uint32_t sectors, char why[256]);

#endif
