/* The chunk table: its accounts, the locks on blocks, eviction, slots. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "../../cache/chunks.h"
#include "../../store/msg.h"
#include "../../store/scope.h"
#include "../pattern.h"

enum { MAX_BLOCKS = 100 * CHUNK_BLOCKS, SLOTS_LEAST = 1024 };

static struct chunks table, *t = &table;
static char dir[256];

static void open_table(uint64_t max_blocks)
{
    assert_int_equal(chunks_init(t, NULL, max_blocks, &clock_system), 0);
    assert_int_equal(slots_open(dir, &t->slots), 0);
    pthread_mutex_lock(&t->lock);
}

static int setup(void **state)
{
    const char *tmp = getenv("T") ? getenv("T") : getenv("TMPDIR");

    (void)state;
    msg_set_sink(MSG_NONE);
    snprintf(dir, sizeof dir, "%s/s3vol-unit-XXXXXX", tmp ? tmp : "/tmp");
    assert_non_null(mkdtemp(dir));
    open_table(MAX_BLOCKS);
    return 0;
}

static void close_table(void)
{
    struct slots *slots = t->slots;

    pthread_mutex_unlock(&t->lock);
    chunks_destroy(t);
    slots_close(slots);
}

static int teardown(void **state)
{
    (void)state;
    char path[300];

    close_table();
    snprintf(path, sizeof path, "%s/slots", dir);
    unlink(path);
    snprintf(path, sizeof path, "%s/sums", dir);
    unlink(path);
    return rmdir(dir);
}

/* A clean chunk, all of it in a slot, as a fetch leaves it. */
static struct chunk *add_full(uint64_t number)
{
    assert_true(chunks_make_room(t, CHUNK_BLOCKS));
    struct chunk *c = chunks_add(t, number, ~UINT64_C(0));
    assert_non_null(c);
    c->slot = chunks_take_slot(t);
    assert_int_not_equal(c->slot, SLOT_NONE);
    chunk_set(t, c, ~UINT64_C(0), 0, 0);
    return c;
}

/* ------------------------------------------------------------------ accounts */

struct sums {
    uint64_t used, allocated, cost;
    size_t n, queued;
};

/* What the counters must say, from the chunks themselves; and that each is in the right queue. */
static struct sums count(void)
{
    struct sums s = {0};

    for (size_t i = 0; i < t->nbuckets; i++)
        for (struct chunk *c = t->buckets[i]; c; c = c->hash_next) {
            bool held = c->dirty || c->unindexed || c->recorded_dirty || c->unrecorded;
            s.n++;
            s.used += mask_count(c->valid & ~c->zero);
            s.allocated += mask_count(~c->zero);
            s.cost += mask_count(c->dirty & ~c->zero) + (c->dirty & c->zero ? 1 : 0);
            assert_int_equal(c->zero & ~c->valid, 0);
            assert_int_equal(c->dirty & ~c->valid, 0);
            assert_int_equal(held, c->queue == QUEUE_HELD);
            assert_int_not_equal(c->queue, QUEUE_NONE);
        }
    for (int q = QUEUE_SMALL; q <= QUEUE_HELD; q++) {
        size_t n = 0;
        struct chunk *before = NULL;
        for (struct chunk *c = t->queues[q].first; c; before = c, c = c->next, n++) {
            assert_int_equal(c->queue, q);
            assert_ptr_equal(c->prev, before);
        }
        assert_ptr_equal(t->queues[q].last, before);
        assert_int_equal(t->queues[q].n, n);
        s.queued += n;
    }
    assert_int_equal(s.n, t->nchunks);
    assert_int_equal(s.queued, t->nchunks);
    assert_int_equal(s.used, t->used_blocks);
    assert_int_equal(s.cost, t->dirty_cost);
    return s;
}

/* No slot twice, none lost. */
static void count_slots(uint64_t in_hand)
{
    bool *seen = calloc(t->nslots, sizeof *seen);
    uint64_t n = in_hand;

    for (uint32_t i = 0; i < t->nfree; i++, n++)
        seen[t->free_slots[i]] = true;
    for (uint32_t i = 0; i < t->nstale; i++, n++) {
        assert_false(seen[t->stale_slots[i]]);
        seen[t->stale_slots[i]] = true;
    }
    for (size_t i = 0; i < t->nbuckets; i++)
        for (struct chunk *c = t->buckets[i]; c; c = c->hash_next)
            if (c->slot != SLOT_NONE) {
                assert_false(seen[c->slot]);
                seen[c->slot] = true;
                n++;
            }
    assert_int_equal(n, t->fresh_slot);
    free(seen);
}

/* One random change of a chunk's masks, of the kinds that happen. `unmapped`: blocks that the index
 * lacks, by chunk. */
static void change(struct chunk *c, uint64_t *rng)
{
    unsigned first = (unsigned)draw(rng, 64);
    uint64_t m = mask_range(first, 1 + (unsigned)draw(rng, 64 - first));

    switch (draw(rng, 6)) {
    case 0: /* written */
    case 1:
        if (c->slot == SLOT_NONE && (c->slot = chunks_take_slot(t)) == SLOT_NONE)
            return;
        chunk_set(t, c, c->valid | m, c->zero & ~m, c->dirty | m);
        break;
    case 2: /* discarded */
        chunk_set(t, c, c->valid | m, c->zero | m, c->dirty | m);
        break;
    case 3: /* sealed */
        c->unindexed |= c->dirty;
        chunk_set(t, c, c->valid, c->zero, 0);
        break;
    case 4: /* indexed */
        c->unindexed = 0;
        chunk_requeue(t, c);
        break;
    case 5: /* read */
        c->uses = (uint8_t)MIN(c->uses + 1, 3) & 3;
        break;
    }
}

static void test_accounts_are_exact(void **state)
{
    uint64_t rng = 1;

    (void)state;
    for (int i = 0; i < 20000; i++) {
        uint64_t number = draw(&rng, 3000);
        struct chunk *c = chunks_find(t, number);
        if (!c) {
            (void)chunks_make_room(t, CHUNK_BLOCKS);
            c = chunks_add(t, number, 0);
        }
        assert_non_null(c);
        assert_int_equal(c->number, number);
        c->pins++;
        change(c, &rng);
        if (i % 100 == 0)
            (void)chunks_make_room(t, draw(&rng, 200));
        if (i % 500 == 0)
            chunks_tidy(t, (uint32_t)draw(&rng, 20));
        chunk_unpin(t, c);
        if (i % 50 == 0) {
            count();
            count_slots(0);
        }
    }
}

/* The volume's allocated blocks do not change when a chunk comes or goes. */
static void test_allocated_is_of_the_volume(void **state)
{
    (void)state;
    t->allocated_blocks = 1000;
    struct chunk *c = add_full(1);
    assert_int_equal(t->allocated_blocks, 1000);
    chunk_set(t, c, ~UINT64_C(0), 0xff, 0xff);
    assert_int_equal(t->allocated_blocks, 1000 - 8);
    c = chunks_add(t, 2, 0);
    assert_int_equal(c->valid, ~UINT64_C(0));
    assert_int_equal(c->zero, ~UINT64_C(0));
    c->slot = chunks_take_slot(t);
    chunk_set(t, c, ~UINT64_C(0), ~UINT64_C(0xf), 0xf);
    assert_int_equal(t->allocated_blocks, 1000 - 8 + 4);
    for (int i = 0; i < 200; i++)
        add_full(100 + (uint64_t)i);
    assert_int_equal(t->allocated_blocks, 1000 - 8 + 4);
}

static void test_dirty_cost(void **state)
{
    (void)state;
    assert_int_equal(chunk_dirty_cost(0, ~UINT64_C(0)), 0);
    assert_int_equal(chunk_dirty_cost(~UINT64_C(0), ~UINT64_C(0)), 1);
    assert_int_equal(chunk_dirty_cost(~UINT64_C(0), 0), 64);
    assert_int_equal(chunk_dirty_cost(0xff, 0xf0), 5);
}

/* ------------------------------------------------------------------ ops */

static void test_who_waits_for_whom(void **state)
{
    static const bool busy[3][3] = {
        /* asks:       READ   WRITE FETCH      holds: */
        [OP_READ] = {false, true, true},
        [OP_WRITE] = {true, true, true},
        [OP_FETCH] = {true, true, true},
    };

    (void)state;
    struct chunk *c = add_full(1);
    for (int holds = OP_READ; holds <= OP_FETCH; holds++)
        for (int asks = OP_READ; asks <= OP_FETCH; asks++) {
            struct op op, other;
            assert_false(chunk_busy(c, ~UINT64_C(0), (enum op_kind)asks));
            chunk_begin(c, &other, UINT64_C(1) << 63, OP_READ);
            chunk_begin(c, &op, 0xf0, (enum op_kind)holds);
            assert_int_equal(chunk_busy(c, 0x10, (enum op_kind)asks), busy[holds][asks]);
            assert_int_equal(chunk_busy(c, ~UINT64_C(0) >> 1, (enum op_kind)asks),
                             busy[holds][asks]);
            assert_false(chunk_busy(c, 0xf0f, (enum op_kind)asks));
            chunk_end(t, c, &other); /* not the newest */
            assert_int_equal(chunk_busy(c, 0x80, (enum op_kind)asks), busy[holds][asks]);
            chunk_end(t, c, &op);
            assert_null(c->ops);
        }
}

static void test_writers_take_blocks_from_idle_fetches(void **state)
{
    struct op fetch, filling, reader;

    (void)state;
    struct chunk *c = add_full(1);
    chunk_begin(c, &fetch, 0x00ff, OP_FETCH);
    chunk_begin(c, &filling, 0xff00, OP_FETCH);
    chunk_begin(c, &reader, 0xff0000, OP_READ);
    filling.filling = true;
    chunk_steal(c, 0x18181818);
    assert_int_equal(fetch.mask, 0x00e7);
    assert_int_equal(filling.mask, 0xff00);
    assert_int_equal(reader.mask, 0xff0000);
    assert_false(chunk_busy(c, 0x18, OP_WRITE));
    assert_true(chunk_busy(c, 0x1800, OP_WRITE));
    assert_true(chunk_busy(c, 0x180000, OP_WRITE));
    assert_true(chunk_busy(c, 0x01, OP_WRITE));
    chunk_end(t, c, &fetch);
    chunk_end(t, c, &filling);
    chunk_end(t, c, &reader);
}

/* ------------------------------------------------------------------ eviction */

static void test_a_scan_leaves_the_hot_set(void **state)
{
    enum { HOT = 60 };
    unsigned left = 0;

    (void)state;
    for (uint64_t i = 0; i < HOT; i++)
        add_full(i)->uses = 1;
    for (uint64_t i = 0; i < 5000; i++) {
        add_full(10000 + i);
        struct chunk *hot = chunks_find(t, i % HOT); /* now and then */
        if (hot)
            hot->uses = 1;
    }
    for (uint64_t i = 0; i < HOT; i++)
        left += chunks_find(t, i) != NULL;
    assert_int_equal(left, HOT);
    count();
}

static void test_what_is_no_longer_used_goes(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < 50; i++)
        add_full(i)->uses = 3;
    for (uint64_t i = 0; i < 2000; i++)
        add_full(1000 + i)->uses = 1;
    for (uint64_t i = 0; i < 50; i++)
        assert_null(chunks_find(t, i));
}

static void test_limits_hold(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < 1000; i++) {
        add_full(i);
        assert_true(t->used_blocks <= MAX_BLOCKS);
    }
    assert_int_equal(t->used_blocks, MAX_BLOCKS);
    /* chunks of which nothing is in a slot are bounded, too */
    for (uint64_t i = 0; i < 2 * t->max_chunks; i++) {
        assert_true(chunks_make_room(t, 0));
        assert_non_null(chunks_add(t, 1000000 + i, 0));
        assert_true(t->nchunks <= t->max_chunks);
    }
}

/* Dirty, not indexed, recorded, listed to be; pinned, in use, sealed: each of them stays. */
static void test_what_is_needed_is_never_evicted(void **state)
{
    struct op op;

    (void)state;
    struct chunk *c[7];
    for (uint64_t i = 0; i < 7; i++)
        c[i] = add_full(i);
    chunk_set(t, c[0], ~UINT64_C(0), 0, 1);
    c[1]->unindexed = 1;
    c[2]->recorded_dirty = 1;
    c[3]->unrecorded = 1;
    c[4]->pins = 1;
    chunk_begin(c[5], &op, 1, OP_READ);
    c[6]->sealed = (struct sealed_chunk *)dir; /* not looked at */
    for (int i = 1; i < 4; i++)
        chunk_requeue(t, c[i]);
    for (uint64_t i = 0; i < 1000; i++)
        add_full(1000 + i);
    for (uint64_t i = 0; i < 7; i++)
        assert_ptr_equal(chunks_find(t, i), c[i]);
    assert_true(chunks_make_room(t, MAX_BLOCKS - 7 * CHUNK_BLOCKS));
    assert_int_equal(t->nchunks, 7);
    assert_false(chunks_make_room(t, MAX_BLOCKS - 7 * CHUNK_BLOCKS + 1));
    assert_int_equal(t->nchunks, 7);

    chunk_set(t, c[0], ~UINT64_C(0), 0, 0); /* now they may go */
    c[1]->unindexed = c[2]->recorded_dirty = c[3]->unrecorded = 0;
    for (int i = 0; i < 4; i++)
        chunk_requeue(t, c[i]);
    chunk_unpin(t, c[4]);
    chunk_end(t, c[5], &op);
    c[6]->sealed = NULL;
    count();
    assert_true(chunks_make_room(t, MAX_BLOCKS));
    assert_int_equal(t->nchunks, 0);
    count_slots(0);
}

/* ------------------------------------------------------------------ slots */

static void test_slots_run_out_and_come_back(void **state)
{
    uint32_t taken[SLOTS_LEAST];

    (void)state;
    assert_int_equal(t->nslots, SLOTS_LEAST);
    for (uint32_t i = 0; i < SLOTS_LEAST; i++) {
        taken[i] = chunks_take_slot(t);
        assert_true(taken[i] < SLOTS_LEAST);
    }
    assert_int_equal(chunks_take_slot(t), SLOT_NONE);
    count_slots(SLOTS_LEAST);
    chunks_give_slot(t, taken[77]);
    assert_int_equal(t->nstale, 1);
    assert_int_equal(chunks_take_slot(t), taken[77]);
    for (uint32_t i = 0; i < 100; i++)
        chunks_give_slot(t, taken[i]);
    chunks_tidy(t, 10);
    assert_int_equal(t->nstale, 10);
    assert_int_equal(t->nfree, 90);
    count_slots(SLOTS_LEAST - 100);
    for (uint32_t i = 0; i < 100; i++)
        assert_int_not_equal(chunks_take_slot(t), SLOT_NONE);
    assert_int_equal(chunks_take_slot(t), SLOT_NONE);
}

static void test_a_slot_is_evicted_for(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < SLOTS_LEAST; i++) { /* one block each */
        struct chunk *c = chunks_add(t, i, 1);
        c->slot = chunks_take_slot(t);
        chunk_set(t, c, ~UINT64_C(0), ~UINT64_C(1), 0);
    }
    assert_int_equal(t->fresh_slot, SLOTS_LEAST);
    size_t before = t->nchunks;
    uint32_t slot = chunks_take_slot(t);
    assert_int_not_equal(slot, SLOT_NONE);
    assert_int_equal(t->nchunks, before - 1);
    count_slots(1);
}

/* Nothing of a chunk's old bytes is left on the disk for the next one. */
static void test_a_slot_is_empty_when_it_is_taken(void **state)
{
    static _Alignas(4096) uint8_t bytes[CHUNK_BYTES];

    uint64_t bad;

    (void)state;
    uint32_t slot = chunks_take_slot(t);
    memset(bytes, 'x', sizeof bytes);
    assert_int_equal(slots_write(t->slots, slot, 0, CHUNK_BLOCKS, bytes), 0);
    for (uint32_t i = 1; i < SLOTS_LEAST; i++)
        (void)chunks_take_slot(t);
    chunks_give_slot(t, slot);
    assert_int_equal(chunks_take_slot(t), slot);
    assert_int_equal(slots_read(t->slots, slot, 0, CHUNK_BLOCKS, bytes, &bad), 0);
    for (size_t i = 0; i < sizeof bytes; i++)
        assert_int_equal(bytes[i], 0);
}

/* Who fills it whole gets what is there, and is told whether anything is. */
static void test_a_slot_to_fill(void **state)
{
    static _Alignas(4096) uint8_t bytes[CHUNK_BYTES];
    uint64_t bad;
    bool hole = false;

    (void)state;
    uint32_t slot = chunks_take_slot_to_fill(t, &hole);
    assert_int_not_equal(slot, SLOT_NONE);
    assert_true(hole);
    memset(bytes, 'x', sizeof bytes);
    assert_int_equal(slots_write(t->slots, slot, 0, CHUNK_BLOCKS, bytes), 0);
    uint32_t other = chunks_take_slot_to_fill(t, &hole);
    chunks_give_slot(t, slot);
    assert_int_equal(chunks_take_slot_to_fill(t, &hole), slot);
    assert_false(hole);
    memset(bytes, 0, sizeof bytes);
    assert_int_equal(slots_read(t->slots, slot, 0, CHUNK_BLOCKS, bytes, &bad), 0);
    for (size_t i = 0; i < sizeof bytes; i++)
        assert_int_equal(bytes[i], 'x');
    chunks_give_slot(t, slot);
    chunks_give_slot(t, other);
    chunks_tidy(t, 1);
    assert_int_equal(t->nstale, 1);
    (void)chunks_take_slot_to_fill(t, &hole);
    assert_false(hole);
    (void)chunks_take_slot_to_fill(t, &hole);
    assert_true(hole);
    count_slots(2);
    for (uint32_t i = 2; i < SLOTS_LEAST; i++) {
        assert_int_not_equal(chunks_take_slot_to_fill(t, &hole), SLOT_NONE);
        assert_true(hole);
    }
    assert_int_equal(chunks_take_slot_to_fill(t, &hole), SLOT_NONE);
}

static void test_adopted_slots(void **state)
{
    static const uint32_t used[] = {5, 0, 9};
    static const uint32_t twice[] = {5, 0, 5};

    (void)state;
    assert_int_equal(chunks_adopt_slots(t, used, 3), 0);
    assert_int_equal(t->fresh_slot, 10);
    assert_int_equal(t->nstale, 7);
    for (uint32_t i = 0; i < t->nstale; i++)
        for (int k = 0; k < 3; k++)
            assert_int_not_equal(t->stale_slots[i], used[k]);
    close_table();
    open_table(MAX_BLOCKS);
    assert_int_equal(chunks_adopt_slots(t, twice, 3), -EBADMSG);
    close_table();
    open_table(MAX_BLOCKS);
    assert_int_equal(chunks_adopt_slots(t, NULL, 0), 0);
    assert_int_equal(t->fresh_slot, 0);
    assert_int_equal(t->nstale, 0);
}

static void test_a_cache_that_was_larger(void **state)
{
    static const uint32_t used[] = {3, 5 * SLOTS_LEAST};

    (void)state;
    assert_int_equal(chunks_adopt_slots(t, used, 2), 0);
    assert_int_equal(t->fresh_slot, 5 * SLOTS_LEAST + 1);
    assert_true(t->nslots >= t->fresh_slot);
    assert_int_equal(t->nstale, 5 * SLOTS_LEAST + 1 - 2);
    chunks_give_slot(t, 3);
    chunks_give_slot(t, 5 * SLOTS_LEAST);
    chunks_tidy(t, 0);
    assert_int_equal(t->nfree, 5 * SLOTS_LEAST + 1);
}

static void test_a_full_disk_lowers_the_limit(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < 80; i++)
        add_full(i);
    chunks_disk_full(t);
    assert_int_equal(t->max_blocks, 75 * CHUNK_BLOCKS);
    assert_true(chunks_make_room(t, 0));
    assert_int_equal(t->used_blocks, 75 * CHUNK_BLOCKS);
    for (int i = 0; i < 100; i++) {
        (void)chunks_make_room(t, 1);
        chunks_disk_full(t);
    }
    assert_int_equal(t->max_blocks, 16 * CHUNK_BLOCKS); /* it never stops working */
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_accounts_are_exact),
        TEST(test_allocated_is_of_the_volume),
        TEST(test_dirty_cost),
        TEST(test_who_waits_for_whom),
        TEST(test_writers_take_blocks_from_idle_fetches),
        TEST(test_a_scan_leaves_the_hot_set),
        TEST(test_what_is_no_longer_used_goes),
        TEST(test_limits_hold),
        TEST(test_what_is_needed_is_never_evicted),
        TEST(test_slots_run_out_and_come_back),
        TEST(test_a_slot_is_evicted_for),
        TEST(test_a_slot_is_empty_when_it_is_taken),
        TEST(test_a_slot_to_fill),
        TEST(test_adopted_slots),
        TEST(test_a_cache_that_was_larger),
        TEST(test_a_full_disk_lowers_the_limit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
