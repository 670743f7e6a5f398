#include "chunks.h"

#include "../store/msg.h"
#include "../store/scope.h"

#include <string.h>

enum {
    SLAB_CHUNKS = 1024,
    SLOTLESS_CHUNKS = 65536, /* known to be zero, mostly */
    SLOTS_LEAST = 1024, /* more than all operations at once can hold, or they would wait for each
                           other */
    LEAST_BLOCKS = 16 * CHUNK_BLOCKS,
};

#define NUMBER_DROPPED UINT64_MAX /* of a chunk that nobody may use any more */

struct slab {
    struct slab *next;
    struct chunk chunks[SLAB_CHUNKS];
};

/* ------------------------------------------------------------------ the table */

int chunks_init(struct chunks *t, struct slots *slots, uint64_t max_blocks,
                const struct clock *clock)
{
    *t = (struct chunks){.clock = clock, .slots = slots};
    pthread_mutex_init(&t->lock, NULL);
    clock_cond_init(&t->changed);
    for (unsigned i = 0; i < CHUNKS_ENDED; i++)
        clock_cond_init(&t->ended[i]);
    t->max_blocks = max_blocks;
    t->nslots = (uint32_t)MIN(MAX(max_blocks / SLOT_BLOCKS_LEAST, (uint64_t)SLOTS_LEAST),
                              (uint64_t)SLOT_NONE - 1);
    t->max_chunks = (size_t)t->nslots + SLOTLESS_CHUNKS;
    for (t->nbuckets = 1024; t->nbuckets < t->max_chunks / 4;) /* one for each full slot */
        t->nbuckets *= 2;
    t->buckets = calloc(t->nbuckets, sizeof *t->buckets);
    t->free_slots = calloc(t->nslots, sizeof *t->free_slots);
    t->stale_slots = calloc(t->nslots, sizeof *t->stale_slots);
    return t->buckets && t->free_slots && t->stale_slots ? 0 : -ENOMEM;
}

void chunks_destroy(struct chunks *t)
{
    while (t->slabs) {
        struct slab *slab = t->slabs;
        t->slabs = slab->next;
        free(slab);
    }
    free(t->buckets);
    free(t->free_slots);
    free(t->stale_slots);
    pthread_cond_destroy(&t->changed);
    for (unsigned i = 0; i < CHUNKS_ENDED; i++)
        pthread_cond_destroy(&t->ended[i]);
    pthread_mutex_destroy(&t->lock);
}

int chunks_clear(struct chunks *t)
{
    struct slots *slots = t->slots;
    const struct clock *clock = t->clock;
    uint64_t max_blocks = t->max_blocks;

    chunks_destroy(t);
    return chunks_init(t, slots, max_blocks, clock);
}

static struct chunk **bucket_of(struct chunks *t, uint64_t number)
{
    return &t->buckets[(number * UINT64_C(0x9e3779b97f4a7c15)) >> 32 & (t->nbuckets - 1)];
}

struct chunk *chunks_find(struct chunks *t, uint64_t number)
{
    struct chunk *c = *bucket_of(t, number);

    while (c && c->number != number)
        c = c->hash_next;
    return c;
}

static bool add_slab(struct chunks *t)
{
    struct slab *slab = calloc(1, sizeof *slab);

    if (!slab)
        return false;
    slab->next = t->slabs;
    t->slabs = slab;
    for (size_t i = 0; i < SLAB_CHUNKS; i++) {
        slab->chunks[i].hash_next = t->spare;
        t->spare = &slab->chunks[i];
    }
    return true;
}

static void unlink_queue(struct chunks *t, struct chunk *c)
{
    struct chunk_list *l = &t->queues[c->queue];

    if (c->queue == QUEUE_NONE)
        return;
    *(c->prev ? &c->prev->next : &l->first) = c->next;
    *(c->next ? &c->next->prev : &l->last) = c->prev;
    l->n--;
    c->queue = QUEUE_NONE;
}

static void append_queue(struct chunks *t, struct chunk *c, enum queue queue)
{
    struct chunk_list *l = &t->queues[queue];

    c->queue = (uint8_t)queue;
    c->next = NULL;
    c->prev = l->last;
    *(l->last ? &l->last->next : &l->first) = c;
    l->last = c;
    l->n++;
}

/* A slot without bytes takes disk space that used_blocks does not count. */
static void give_empty_slot(struct chunks *t, struct chunk *c)
{
    if (c->slot == SLOT_NONE || c->valid & ~c->zero || c->queue == QUEUE_HELD || c->pins ||
        c->ops || c->sealed)
        return;
    chunks_give_slot(t, c->slot);
    c->slot = SLOT_NONE;
}

void chunk_requeue(struct chunks *t, struct chunk *c)
{
    INVARIANT(c->number != NUMBER_DROPPED);
    bool held = c->dirty || c->unindexed || c->recorded_dirty || c->unrecorded;

    if (held == (c->queue == QUEUE_HELD) && c->queue != QUEUE_NONE)
        return;
    unlink_queue(t, c);
    append_queue(t, c, held ? QUEUE_HELD : QUEUE_SMALL);
    if (!held) {
        give_empty_slot(t, c);
        chunks_changed(t);
    }
}

struct chunk *chunks_add(struct chunks *t, uint64_t number, uint64_t mapped)
{
    struct chunk **bucket = bucket_of(t, number);

    if (!t->spare && !add_slab(t))
        return NULL;
    struct chunk *c = t->spare;
    t->spare = c->hash_next;
    *c = (struct chunk){.number = number,
                        .valid = ~mapped,
                        .zero = ~mapped,
                        .slot = SLOT_NONE,
                        .hash_next = *bucket};
    *bucket = c;
    t->nchunks++;
    chunk_requeue(t, c);
    return c;
}

static void drop(struct chunks *t, struct chunk *c)
{
    struct chunk **at = bucket_of(t, c->number);

    unlink_queue(t, c);
    while (*at != c) {
        INVARIANT(*at);
        at = &(*at)->hash_next;
    }
    *at = c->hash_next;
    if (c->slot != SLOT_NONE) {
        t->used_blocks -= mask_count(c->valid & ~c->zero);
        chunks_give_slot(t, c->slot);
    }
    c->number = NUMBER_DROPPED;
    c->hash_next = t->spare;
    t->spare = c;
    t->nchunks--;
}

uint64_t chunk_dirty_cost(uint64_t dirty, uint64_t zero)
{
    return mask_count(dirty & ~zero) + (dirty & zero ? 1 : 0);
}

void chunk_set(struct chunks *t, struct chunk *c, uint64_t valid, uint64_t zero, uint64_t dirty)
{
    INVARIANT((zero & ~valid) == 0 && (dirty & ~valid) == 0);
    INVARIANT(c->slot != SLOT_NONE || (valid & ~zero) == 0);
    t->allocated_blocks += mask_count(~zero) - mask_count(~c->zero);
    t->used_blocks += mask_count(valid & ~zero) - mask_count(c->valid & ~c->zero);
    t->dirty_cost += chunk_dirty_cost(dirty, zero) - chunk_dirty_cost(c->dirty, c->zero);
    if (valid != c->valid || zero != c->zero)
        c->row_covers = 0;
    c->valid = valid;
    c->zero = zero;
    c->dirty = dirty;
    chunk_requeue(t, c);
}

void chunk_unpin(struct chunks *t, struct chunk *c)
{
    INVARIANT(c->pins > 0);
    if (--c->pins == 0) {
        give_empty_slot(t, c);
        chunks_changed(t);
    }
}

/* ------------------------------------------------------------------ ops */

bool chunk_busy(const struct chunk *c, uint64_t mask, enum op_kind kind)
{
    for (const struct op *op = c->ops; op; op = op->next)
        if (op->mask & mask && (kind != OP_READ || op->kind != OP_READ))
            return true;
    return false;
}

void chunk_begin(struct chunk *c, struct op *op, uint64_t mask, enum op_kind kind)
{
    *op = (struct op){.kind = kind, .mask = mask, .next = c->ops};
    c->ops = op;
}

void chunk_end(struct chunks *t, struct chunk *c, struct op *op)
{
    struct op **at = &c->ops;

    while (*at != op)
        at = &(*at)->next;
    *at = op->next;
    pthread_cond_broadcast(&t->ended[c->number % CHUNKS_ENDED]);
    chunks_changed(t);
}

void chunk_wait(struct chunks *t, const struct chunk *c)
{
    pthread_cond_wait(&t->ended[c->number % CHUNKS_ENDED], &t->lock);
}

void chunk_steal(struct chunk *c, uint64_t mask)
{
    for (struct op *op = c->ops; op; op = op->next)
        if (op->kind == OP_FETCH && !op->filling)
            op->mask &= ~mask;
}

void chunk_outdate(struct chunk *c, uint64_t mask)
{
    for (struct op *op = c->ops; op; op = op->next)
        if (op->kind == OP_FETCH)
            op->stale |= mask;
}

void chunks_wait(struct chunks *t)
{
    pthread_cond_wait(&t->changed, &t->lock);
}

void chunks_wait_until(struct chunks *t, int64_t until_ms)
{
    t->clock->wait_until(&t->changed, &t->lock, until_ms);
}

void chunks_changed(struct chunks *t)
{
    pthread_cond_broadcast(&t->changed);
}

/* ------------------------------------------------------------------ eviction */

/* S3-FIFO without its ghosts (Yang et al., SOSP 2023): new chunks pass through a small queue, and
 * only those that are used again get into the main one, so that a scan cannot flush it. */
static bool evict_from(struct chunks *t, enum queue from)
{
    for (size_t tries = t->queues[from].n; tries > 0; tries--) {
        struct chunk *c = t->queues[from].first;
        if (c->pins || c->ops || c->sealed) {
            unlink_queue(t, c);
            append_queue(t, c, from);
        } else if (c->uses > 0) {
            c->uses = from == QUEUE_SMALL ? 0 : (uint8_t)(c->uses - 1) & 3;
            unlink_queue(t, c);
            append_queue(t, c, QUEUE_MAIN);
        } else {
            drop(t, c);
            return true;
        }
    }
    return false;
}

static bool evict(struct chunks *t)
{
    bool small_first = t->queues[QUEUE_SMALL].n > (t->queues[QUEUE_MAIN].n + 9) / 10;

    /* the second look at main finds chunks that the first one has counted down */
    return (small_first && evict_from(t, QUEUE_SMALL)) || evict_from(t, QUEUE_MAIN) ||
           evict_from(t, QUEUE_SMALL) || evict_from(t, QUEUE_MAIN) || evict_from(t, QUEUE_MAIN) ||
           evict_from(t, QUEUE_MAIN);
}

bool chunks_make_room(struct chunks *t, uint64_t nblocks)
{
    while (t->used_blocks + t->coming_blocks + nblocks > t->max_blocks ||
           t->nchunks >= t->max_chunks)
        if (!evict(t))
            return false;
    return true;
}

/* ------------------------------------------------------------------ slots */

void chunks_give_slot(struct chunks *t, uint32_t slot)
{
    INVARIANT(t->nstale < t->nslots);
    t->stale_slots[t->nstale++] = slot;
    chunks_changed(t);
}

/* The newest stale slot, punched. */
static uint32_t punch_one(struct chunks *t)
{
    uint32_t slot = t->stale_slots[--t->nstale];

    pthread_mutex_unlock(&t->lock);
    int r = slots_punch(t->slots, slot);
    if (r < 0) /* then its old blocks stay on the disk until it is filled again */
        msg_debug("slot %u: punch: %s", slot, strerror(-r));
    pthread_mutex_lock(&t->lock);
    return slot;
}

/* Without memory for its sums it is as if there were no more slots. */
static bool has_fresh(struct chunks *t)
{
    return t->fresh_slot < t->nslots && slots_reserve(t->slots, t->fresh_slot) == 0;
}

/* There is one to take; evicts for it. */
static bool has_slot(struct chunks *t)
{
    while (t->nfree == 0 && t->nstale == 0 && !has_fresh(t))
        if (!evict(t))
            return false;
    return true;
}

uint32_t chunks_take_slot(struct chunks *t)
{
    if (!has_slot(t))
        return SLOT_NONE;
    if (t->nfree > 0)
        return t->free_slots[--t->nfree];
    /* stale ones first: until they are punched they still take disk space */
    return t->nstale > 0 ? punch_one(t) : t->fresh_slot++;
}

uint32_t chunks_take_slot_to_fill(struct chunks *t, bool *ret_hole)
{
    if (!has_slot(t))
        return SLOT_NONE;
    *ret_hole = t->nstale == 0;
    if (t->nstale > 0)
        return t->stale_slots[--t->nstale];
    return t->nfree > 0 ? t->free_slots[--t->nfree] : t->fresh_slot++;
}

void chunks_tidy(struct chunks *t, uint32_t keep)
{
    while (t->nstale > keep) {
        uint32_t slot = punch_one(t);
        t->free_slots[t->nfree++] = slot;
    }
}

int chunks_adopt_slots(struct chunks *t, const uint32_t *used, size_t n)
{
    uint32_t end = 0;
    bool *taken;

    for (size_t i = 0; i < n; i++)
        end = MAX(end, used[i] + 1);
    if (end > t->nslots) { /* the cache was larger before */
        uint32_t *more_free = realloc(t->free_slots, end * sizeof *more_free);
        t->free_slots = more_free ? more_free : t->free_slots;
        uint32_t *more_stale = realloc(t->stale_slots, end * sizeof *more_stale);
        t->stale_slots = more_stale ? more_stale : t->stale_slots;
        if (!more_free || !more_stale)
            return -ENOMEM;
        t->nslots = end;
    }
    int r = end > 0 ? slots_reserve(t->slots, end - 1) : 0;
    if (r < 0)
        return r;
    taken = calloc(end + 1, sizeof *taken);
    if (!taken)
        return -ENOMEM;
    for (size_t i = 0; i < n && r == 0; i++) {
        r = taken[used[i]] ? -EBADMSG : 0;
        taken[used[i]] = true;
    }
    for (uint32_t slot = 0; slot < end && r == 0; slot++)
        if (!taken[slot])
            t->stale_slots[t->nstale++] = slot;
    t->fresh_slot = end;
    free(taken);
    return r;
}

void chunks_disk_full(struct chunks *t)
{
    uint64_t less = MAX(t->used_blocks - t->used_blocks / 16, (uint64_t)LEAST_BLOCKS);

    if (less >= t->max_blocks)
        return;
    msg_warn("the cache disk is full: using %llu MiB of it instead of %llu MiB",
             (unsigned long long)(less * BLOCK_BYTES >> 20),
             (unsigned long long)(t->max_blocks * BLOCK_BYTES >> 20));
    t->max_blocks = less;
}
