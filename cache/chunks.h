/*
 * The chunk table: what of the volume is in the slots, who is using it, what may be evicted. It
 * holds the lock that guards the whole state of a volume in memory (cache/DESIGN.md, "Locks");
 * every function here but init and destroy is called with it held.
 *
 * Block masks have one bit per block of the chunk. Always: zero ⊆ valid, dirty ⊆ valid, and what
 * is not valid has a place in the index (`map`).
 */
#ifndef S3VOL_CHUNKS_H
#define S3VOL_CHUNKS_H

#include "../store/clock.h"
#include "places.h"
#include "slots.h"

#include <pthread.h>
#include <stdbool.h>

/*
 * Blocks in use. Readers of the same blocks share; a writer or a fetch excludes everybody, but a
 * writer of whole blocks takes them away from a fetch that has not begun to fill them.
 */
enum op_kind { OP_READ, OP_WRITE, OP_FETCH };
struct op {
    enum op_kind kind;
    bool filling; /* a fetch that is writing to the slot */
    uint64_t mask;
    uint64_t stale; /* of a fetch: blocks that have become others meanwhile (switch.c) */
    struct op *next;
};

enum { SLOT_BLOCKS_LEAST = 16 }; /* there are slots for chunks of which only so much is here */

enum queue {
    QUEUE_NONE,
    QUEUE_SMALL, /* clean, seen once */
    QUEUE_MAIN,  /* clean, came back */
    QUEUE_HELD,  /* dirty, or in a commit that is not in the index, or recorded as dirty */
};

struct chunk {
    uint64_t number;
    uint64_t valid, zero, dirty;
    uint64_t unindexed; /* blocks of commits that are not in the index yet */
    struct op *ops;
    struct sealed_chunk *sealed; /* what the commit being packed still has to read from `slot` */
    struct chunk *hash_next, *prev, *next;
    uint32_t slot;
    uint32_t pins : 16;          /* who holds a pointer while the lock is not held */
    uint32_t commits : 4;        /* that are not in the index yet, and hold blocks of it */
    uint32_t queue : 2;          /* enum queue */
    uint32_t uses : 2;           /* since it was queued, up to 3 */
    uint32_t unrecorded : 1;     /* listed to be recorded in the index */
    uint32_t recorded_dirty : 1; /* its row in the index has dirty blocks, or may soon */
    uint32_t row_covers : 1;     /* that calls all dirty that has bytes in the slot (record.c), and
                                    says what is zero */
    uint32_t damaged : 1; /* blocks of its slot were; perhaps one that is still called valid */
    uint32_t current : 1; /* seen to be as the new map says (switch.c) */
};
_Static_assert(sizeof(struct chunk) <= 88, "cache/DESIGN.md states a limit");

struct chunk_list {
    struct chunk *first, *last;
    size_t n;
};

enum { CHUNKS_ENDED = 64 };

struct chunks {
    pthread_mutex_t lock;
    pthread_cond_t changed; /* any op ended, room appeared, dirt vanished, the state changed */
    pthread_cond_t ended[CHUNKS_ENDED]; /* an op of a chunk, by its number; for chunk_wait() */
    const struct clock *clock;
    struct slots *slots;

    struct chunk **buckets;
    size_t nbuckets, nchunks, max_chunks;
    struct chunk *spare; /* by hash_next */
    struct slab *slabs;
    struct chunk_list queues[4]; /* by enum queue */

    uint32_t fresh_slot, nslots; /* slots from here on were never used; how many there are */
    uint32_t *free_slots;        /* punched */
    uint32_t *stale_slots;       /* to be punched before use */
    uint32_t nfree, nstale;

    uint64_t used_blocks, max_blocks; /* blocks in slots */
    uint64_t coming_blocks;           /* that fetches hold, and may fill */
    uint64_t allocated_blocks;        /* of the whole volume: not known to be zero */
    uint64_t dirty_cost; /* blocks to upload; the zero blocks of a chunk count as one */
};

/* `max_blocks` in slots at most. 0 or -ENOMEM. */
int chunks_init(struct chunks *t, struct slots *slots, uint64_t max_blocks,
                const struct clock *clock);
void chunks_destroy(struct chunks *t);
/* As after chunks_init(): for who is alone with it. 0 or -ENOMEM. */
int chunks_clear(struct chunks *t);

struct chunk *chunks_find(struct chunks *t, uint64_t number);
/* A new one; `mapped` are the blocks that have a place, all others are zero. NULL without memory.
 */
struct chunk *chunks_add(struct chunks *t, uint64_t number, uint64_t mapped);

/* The one way to change these masks. */
void chunk_set(struct chunks *t, struct chunk *c, uint64_t valid, uint64_t zero, uint64_t dirty);
/* After unindexed, recorded_dirty or uses changed. */
void chunk_requeue(struct chunks *t, struct chunk *c);
void chunk_unpin(struct chunks *t, struct chunk *c);
uint64_t chunk_dirty_cost(uint64_t dirty, uint64_t zero);

bool chunk_busy(const struct chunk *c, uint64_t mask, enum op_kind kind);
void chunk_begin(struct chunk *c, struct op *op, uint64_t mask, enum op_kind kind);
void chunk_end(struct chunks *t, struct chunk *c, struct op *op);
/* Until an op of this chunk ended, or of another one. */
void chunk_wait(struct chunks *t, const struct chunk *c);
/* Takes whole blocks away from fetches that have not begun to fill them. */
void chunk_steal(struct chunk *c, uint64_t mask);

/* The blocks are not what fetches under way bring. */
void chunk_outdate(struct chunk *c, uint64_t mask);

void chunks_wait(struct chunks *t);
void chunks_wait_until(struct chunks *t, int64_t until_ms);
void chunks_changed(struct chunks *t);

/* Evicts until `nblocks` more blocks fit; false if nothing more can be evicted now. */
bool chunks_make_room(struct chunks *t, uint64_t nblocks);
/* A slot, with no old bytes on the disk; evicts if it must; SLOT_NONE if it cannot. May release the
 * lock for a moment. */
uint32_t chunks_take_slot(struct chunks *t);
/* The same, for a chunk that is written whole at once: old bytes may still be there, to be
 * overwritten, which is cheaper than to punch them first. *ret_hole: there are none. */
uint32_t chunks_take_slot_to_fill(struct chunks *t, bool *ret_hole);
void chunks_give_slot(struct chunks *t, uint32_t slot);
/* Punches slots that were given back, but `keep` of them; releases the lock meanwhile. */
void chunks_tidy(struct chunks *t, uint32_t keep);
/* At the start: these slots are in use, those between them stale, those behind them never used.
 * -EBADMSG: one twice. */
int chunks_adopt_slots(struct chunks *t, const uint32_t *used, size_t n);
/* The disk refused more: be content with what is used now. */
void chunks_disk_full(struct chunks *t);

#endif
