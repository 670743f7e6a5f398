/* Checkpoints: written in parts, some of them again, cleaned up, and believed only if whole. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "mem_log.h"

#include "../../store/checkpoint.h"

enum { PER_CHUNK = 10, PART_CHUNKS = 16384 / PER_CHUNK, CHUNKS = 4 * PART_CHUNKS + 100 };

static struct machine m;

static int setup(void **state)
{
    int r = mem_setup(state);

    m = machine();
    assert_int_equal(machine_attach(&m), 0);
    return r;
}

static int teardown(void **state)
{
    machine_free(&m);
    return mem_teardown(state);
}

/* The places of a chunk in generation `g`. */
static unsigned entries_of(uint64_t chunk, uint64_t g, struct entry *ret)
{
    for (unsigned i = 0; i < PER_CHUNK; i++)
        ret[i] = (struct entry){.kind = ENTRY_DATA,
                                .block = chunk * CHUNK_BLOCKS + i * 6,
                                .nblocks = 5,
                                .seq = g,
                                .offset = HEADER_BYTES + i,
                                .stored_bytes = 5 * BLOCK_BYTES,
                                .crc = (uint32_t)(chunk ^ g),
                                .frame_blocks = 5};
    return PER_CHUNK;
}

static struct log_position position(uint64_t seq)
{
    struct log_position pos = m.pos;

    pos.seq = seq;
    pos.next = seq + 1;
    pos.size_blocks = CHUNKS * CHUNK_BLOCKS + seq;
    return pos;
}

static struct checkpoint *begin(uint64_t seq)
{
    struct log_position pos = position(seq);
    struct checkpoint *cp;

    assert_int_equal(checkpoint_new(m.log, &pos, 0, &cp), 0);
    return cp;
}

static void add(struct checkpoint *cp, uint64_t first, uint64_t end, uint64_t g)
{
    struct entry entries[PER_CHUNK];

    for (uint64_t chunk = first; chunk < end; chunk++)
        assert_int_equal(checkpoint_add(cp, entries, entries_of(chunk, g, entries)), 0);
}

static struct part_list finish(struct checkpoint *cp)
{
    struct part_list list;
    uint64_t bytes;

    assert_int_equal(checkpoint_finish(cp, &list, &bytes), 0);
    assert_in_range(bytes, HEADER_BYTES, CHUNKS * PER_CHUNK * ENTRY_BYTES);
    checkpoint_free(cp);
    return list;
}

/* All chunks in generation `g`. */
static struct part_list store_all(uint64_t seq, uint64_t g)
{
    struct checkpoint *cp = begin(seq);

    add(cp, 0, CHUNKS, g);
    return finish(cp);
}

/* ------------------------------------------------------------------ reading it back */

struct seen {
    uint64_t chunks, g[2], split; /* up to `split` the first generation, then the second */
    int error;
    unsigned calls;
};

static int see(void *ctx, const struct entry *entries, size_t n)
{
    struct seen *s = ctx;
    struct entry want[PER_CHUNK];

    s->calls++;
    assert_int_equal(n % PER_CHUNK, 0); /* a chunk is never divided */
    for (size_t i = 0; i < n; i++) {
        uint8_t a[ENTRY_BYTES], b[ENTRY_BYTES];
        entries_of(s->chunks, s->g[s->chunks >= s->split], want);
        entry_encode(&want[i % PER_CHUNK], a);
        entry_encode(&entries[i], b);
        assert_memory_equal(a, b, ENTRY_BYTES);
        s->chunks += i % PER_CHUNK == PER_CHUNK - 1;
    }
    return s->error;
}

static int load(uint64_t seq, struct seen *s)
{
    struct log_position pos, want = position(seq);
    int r = checkpoint_load(m.log, seq, see, s, 0, &pos);

    if (r == 0) {
        assert_int_equal(pos.seq, want.seq);
        assert_int_equal(pos.next, want.next);
        assert_int_equal(pos.size_blocks, want.size_blocks);
        assert_int_equal(pos.epoch, want.epoch);
        assert_int_equal(pos.claim, want.claim);
        assert_memory_equal(pos.nonce, want.nonce, UUID_BYTES);
    }
    return r;
}

static void test_none(void **state)
{
    uint64_t seq = 99;
    struct seen s = {0};

    (void)state;
    assert_int_equal(checkpoint_newest(m.log, &seq, 0), 0);
    assert_int_equal(seq, 0);
    assert_int_equal(load(7, &s), -ENOENT);
    checkpoint_free(NULL);
}

static void test_several_parts(void **state)
{
    struct seen s = {.g = {5, 5}};
    uint64_t seq;

    (void)state;
    struct part_list list = store_all(2000, 5);
    assert_int_equal(list.nparts, 5);
    assert_int_equal(mem_count(&mem, "part/"), 5);
    assert_int_equal(mem_count(&mem, "map/"), 1);
    for (size_t i = 0; i < list.nparts; i++) {
        assert_int_equal(list.parts[i].seq, 2000);
        assert_int_equal(list.parts[i].index, i);
        assert_int_equal(list.parts[i].first_chunk, i * PART_CHUNKS);
    }
    free(list.parts);
    assert_int_equal(load(2000, &s), 0);
    assert_int_equal(s.chunks, CHUNKS);
    assert_int_equal(s.calls, 5);
    assert_int_equal(checkpoint_newest(m.log, &seq, 0), 0);
    assert_int_equal(seq, 2000);
}

static void test_of_nothing(void **state)
{
    struct seen s = {0};

    (void)state;
    struct part_list list = finish(begin(2000));
    assert_int_equal(list.nparts, 0);
    free(list.parts);
    assert_int_equal(load(2000, &s), 0);
    assert_int_equal(s.calls, 0);
}

static void test_the_newest_is_by_number(void **state)
{
    static const uint64_t seqs[] = {0x2000, 0x10000, 0x3000};
    uint64_t seq;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(seqs); i++)
        free(finish(begin(seqs[i])).parts);
    mem_set(&mem, "map/zz", "", 0);
    mem_set(&mem, "map/README", "", 0);
    mem_set(&mem, "map/0000000000020000.bak", "", 0);
    mem_set(&mem, "map/30000", "", 0);
    assert_int_equal(checkpoint_newest(m.log, &seq, 0), 0);
    assert_int_equal(seq, 0x10000);
}

/* ------------------------------------------------------------------ parts again */

static void test_parts_that_did_not_change_are_not_stored_again(void **state)
{
    struct seen s = {.g = {5, 6}};
    unsigned puts;

    (void)state;
    struct part_list old = store_all(2000, 5);
    puts = mem.tries['P'];
    struct checkpoint *cp = begin(3000);
    assert_int_equal(checkpoint_reuse(cp, &old.parts[0]), 0);
    assert_int_equal(checkpoint_reuse(cp, &old.parts[1]), 0);
    s.split = old.parts[2].first_chunk;
    add(cp, s.split, CHUNKS, 6);
    struct part_list list = finish(cp);
    assert_int_equal(mem.tries['P'] - puts, list.nparts - 2 + 1);
    assert_int_equal(list.nparts, old.nparts);
    assert_memory_equal(list.parts, old.parts, 2 * sizeof *list.parts);
    assert_int_equal(load(3000, &s), 0);
    assert_int_equal(s.chunks, CHUNKS);
    s = (struct seen){.g = {5, 5}};
    assert_int_equal(load(2000, &s), 0); /* the old one is as it was */
    free(old.parts);
    free(list.parts);
}

/* One that is reused ends the one that is being filled, and the next one begins behind it. */
static void test_new_and_old_parts_alternate(void **state)
{
    struct seen s = {.g = {5, 5}};

    (void)state;
    struct part_list old = store_all(2000, 5);
    struct checkpoint *cp = begin(3000);
    add(cp, 0, old.parts[1].first_chunk, 5);
    assert_int_equal(checkpoint_reuse(cp, &old.parts[1]), 0);
    add(cp, old.parts[2].first_chunk, old.parts[3].first_chunk, 5);
    assert_int_equal(checkpoint_reuse(cp, &old.parts[3]), 0);
    add(cp, old.parts[4].first_chunk, CHUNKS, 5);
    struct part_list list = finish(cp);
    assert_int_equal(list.nparts, 5);
    assert_int_equal(load(3000, &s), 0);
    assert_int_equal(s.chunks, CHUNKS);
    free(old.parts);
    free(list.parts);
}

static void test_cleaning_keeps_what_is_listed(void **state)
{
    struct seen s = {.g = {5, 6}};

    (void)state;
    struct part_list first = store_all(2000, 5);
    struct checkpoint *cp = begin(3000);
    assert_int_equal(checkpoint_reuse(cp, &first.parts[0]), 0);
    add(cp, first.parts[1].first_chunk, CHUNKS, 6);
    struct part_list second = finish(cp);
    cp = begin(4000);
    assert_int_equal(checkpoint_reuse(cp, &second.parts[0]), 0);
    assert_int_equal(checkpoint_reuse(cp, &second.parts[1]), 0);
    add(cp, second.parts[2].first_chunk, CHUNKS, 6);
    struct part_list third = finish(cp);
    mem_set(&mem, "part/0000000000000bb7.00000000", "x", 1); /* of 2999, that never was */
    mem_set(&mem, "part/0000000000001388.00000000", "x", 1); /* of 5000, perhaps being written */
    mem_set(&mem, "part/README", "x", 1);
    size_t before = mem_count(&mem, "part/");

    struct part_list keep[] = {third, second};
    assert_int_equal(checkpoint_clean(m.log, 3000, NULL, 0, keep, 2, 0), 0);
    assert_null(mem_find(&mem, "map/00000000000007d0"));
    assert_int_equal(mem_count(&mem, "map/"), 2);
    assert_null(mem_find(&mem, "part/0000000000000bb7.00000000"));
    assert_non_null(mem_find(&mem, "part/0000000000001388.00000000"));
    assert_int_equal(mem_count(&mem, "part/"), before - 1 - (first.nparts - 1));
    s.split = first.parts[1].first_chunk;
    struct seen s2 = s;
    assert_int_equal(load(3000, &s), 0);
    assert_int_equal(load(4000, &s2), 0);
    assert_int_equal(s2.chunks, CHUNKS);
    unsigned deletes = mem.tries['D'];
    assert_int_equal(checkpoint_clean(m.log, 3000, NULL, 0, keep, 2, 0), 0);
    assert_int_equal(mem.tries['D'], deletes); /* nothing left */
    free(first.parts);
    free(second.parts);
    free(third.parts);
}

static void test_many_are_cleaned(void **state)
{
    struct part_list none = {0};
    char key[STORE_KEY_MAX];

    (void)state;
    for (unsigned i = 1; i <= 1500; i++) {
        snprintf(key, sizeof key, "map/%016x", i);
        mem_set(&mem, key, "x", 1);
        snprintf(key, sizeof key, "part/%016x.%08x", i, i);
        mem_set(&mem, key, "x", 1);
    }
    assert_int_equal(checkpoint_clean(m.log, 1500, NULL, 0, &none, 1, 0), 0);
    assert_int_equal(mem_count(&mem, "map/"), 1);
    assert_int_equal(mem_count(&mem, "part/"), 0);
}

/* ------------------------------------------------------------------ what is not whole */

static void test_a_missing_part(void **state)
{
    struct seen s = {.g = {5, 5}};

    (void)state;
    free(store_all(2000, 5).parts);
    mem_remove(&mem, "part/00000000000007d0.00000003");
    assert_int_equal(load(2000, &s), -ENOENT);
}

static void assert_damaged(const char *key)
{
    struct seen s = {.g = {5, 5}};
    char said[512];

    assert_int_equal(load(2000, &s), -EBADMSG);
    msg_last_error(said, sizeof said);
    assert_non_null(strstr(said, key));
}

static void test_every_damaged_byte_is_noticed(void **state)
{
    static const char *const keys[] = {"map/00000000000007d0", "part/00000000000007d0.00000000"};
    struct seen s = {.g = {5, 5}};

    (void)state;
    struct checkpoint *cp = begin(2000);
    add(cp, 0, 20, 5);
    free(finish(cp).parts);
    for (int k = 0; k < 2; k++) {
        struct mem_object *o = mem_find(&mem, keys[k]);
        for (size_t i = 0; i < o->len; i++) {
            o->data[i] ^= (uint8_t)(1 << i % 8);
            assert_damaged(keys[k]);
            o->data[i] ^= (uint8_t)(1 << i % 8);
        }
        size_t len = o->len;
        for (o->len = 0; o->len < len; o->len += 1 + o->len / 7)
            assert_damaged(keys[k]);
        uint8_t *longer = calloc(1, len + 1), *whole = o->data;
        memcpy(longer, whole, len);
        o->data = longer;
        o->len = len + 1;
        assert_damaged(keys[k]);
        o->data = whole;
        o->len = len;
        free(longer);
    }
    assert_int_equal(load(2000, &s), 0);
}

/* Checksums right, and yet nothing that a checkpoint could say. */
static void test_entries_that_cannot_be(void **state)
{
    (void)state;
    for (int how = 0; how < 2; how++) {
        struct checkpoint *cp = begin(2000);
        struct entry e = {.kind = ENTRY_DATA,
                          .block = how == 0 ? position(2000).size_blocks : 0,
                          .nblocks = 1,
                          .seq = how == 0 ? 5 : 2001,
                          .offset = HEADER_BYTES,
                          .stored_bytes = BLOCK_BYTES,
                          .frame_blocks = 1};
        assert_int_equal(checkpoint_add(cp, &e, 1), 0);
        free(finish(cp).parts);
        assert_damaged("part/00000000000007d0.00000000");
    }
}

/* A part that is good in itself, and not the one that is meant. */
static void test_a_part_in_the_place_of_another(void **state)
{
    (void)state;
    free(store_all(2000, 5).parts);
    struct mem_object *one = mem_find(&mem, "part/00000000000007d0.00000001");
    struct mem_object *two = mem_find(&mem, "part/00000000000007d0.00000002");
    struct mem_object old = *one;
    one->data = two->data;
    one->len = two->len;
    assert_damaged("part/00000000000007d0.00000001");
    *one = old;
}

/* A root that lists parts with other chunks than they have, or out of order. */
static void test_parts_out_of_range(void **state)
{
    (void)state;
    struct part_list old = store_all(1999, 5);
    for (int how = 0; how < 4; how++) {
        struct part parts[3] = {old.parts[0], old.parts[1], old.parts[2]};
        if (how == 0)
            parts[1].first_chunk++; /* its first chunk is before it */
        else if (how == 1)
            parts[2].first_chunk--; /* … the last one of the part before is in it */
        else if (how == 2)
            parts[2] = parts[1];
        else
            parts[2].nentries++;
        struct checkpoint *cp = begin(2000);
        for (int i = 0; i < 3; i++)
            assert_int_equal(checkpoint_reuse(cp, &parts[i]), 0);
        free(finish(cp).parts);
        assert_damaged(how == 2 ? "map/00000000000007d0" : "part/00000000000007cf.0000000");
        mem_remove(&mem, "map/00000000000007d0");
    }
    free(old.parts);
}

static void test_an_error_of_the_taker_is_the_end(void **state)
{
    struct seen s = {.g = {5, 5}, .error = -ENOSPC};

    (void)state;
    free(store_all(2000, 5).parts);
    assert_int_equal(load(2000, &s), -ENOSPC);
    assert_int_equal(s.calls, 1);
}

static enum mem_act refuse_maps(void *ctx, char verb, const char *key)
{
    return verb == 'P' && strncmp(key, ctx, strlen(ctx)) == 0 ? MEM_REFUSE : MEM_OK;
}

static void test_what_could_not_be_stored_does_not_exist(void **state)
{
    struct part_list list;
    struct entry entries[PER_CHUNK];
    uint64_t bytes, seq;
    int r = 0;

    (void)state;
    mem_retry(&mem, refuse_maps, "map/");
    struct checkpoint *cp = begin(2000);
    add(cp, 0, 10, 5);
    assert_int_equal(checkpoint_finish(cp, &list, &bytes), -EIO);
    checkpoint_free(cp);
    assert_int_equal(checkpoint_newest(m.log, &seq, 0), 0);
    assert_int_equal(seq, 0);

    mem_retry(&mem, refuse_maps, "part/");
    cp = begin(2000);
    for (uint64_t chunk = 0; chunk < CHUNKS && r == 0; chunk++)
        r = checkpoint_add(cp, entries, entries_of(chunk, 5, entries));
    assert_int_equal(r, -EIO);
    checkpoint_free(cp);
    mem_retry(&mem, NULL, NULL);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_none),
        TEST(test_several_parts),
        TEST(test_of_nothing),
        TEST(test_the_newest_is_by_number),
        TEST(test_parts_that_did_not_change_are_not_stored_again),
        TEST(test_new_and_old_parts_alternate),
        TEST(test_cleaning_keeps_what_is_listed),
        TEST(test_many_are_cleaned),
        TEST(test_a_missing_part),
        TEST(test_every_damaged_byte_is_noticed),
        TEST(test_entries_that_cannot_be),
        TEST(test_a_part_in_the_place_of_another),
        TEST(test_parts_out_of_range),
        TEST(test_an_error_of_the_taker_is_the_end),
        TEST(test_what_could_not_be_stored_does_not_exist),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
