/* Reading the log: what counts as written, and what as damage. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "mem_log.h"

#include "../../store/checkpoint.h"
#include "../../store/crc32c.h"

enum { HISTORY = 2000 };

/* What was applied: per commit or claim its last number, and the first block of each entry. */
struct history {
    size_t n, nblocks;
    uint64_t last[HISTORY], blocks[HISTORY];
    int fail_at, error; /* the nth is refused */
};

static int note(void *ctx, const struct header *last, const struct entry *entries, size_t nentries,
                const struct log_position *pos)
{
    struct history *h = ctx;

    assert_int_equal(pos->seq, last->seq);
    assert_int_equal(pos->next, last->kind == HEADER_CLAIM ? last->next : last->seq + 1);
    if (h->error && (int)h->n == h->fail_at)
        return h->error;
    h->last[h->n++] = last->seq;
    for (size_t i = 0; i < nentries; i++)
        h->blocks[h->nblocks++] = entries[i].block;
    return 0;
}

static struct history history;

static int replay(struct machine *m)
{
    history.n = history.nblocks = 0;
    return log_replay(m->log, &m->pos, note, &history, PATIENCE_MS, &m->missing);
}

static int setup(void **state)
{
    memset(&history, 0, sizeof history);
    return mem_setup(state);
}

static struct mem_object *object(uint64_t seq)
{
    char key[STORE_KEY_MAX];

    log_key(seq, key);
    struct mem_object *o = mem_find(&mem, key);
    assert_non_null(o);
    return o;
}

static void remove_number(uint64_t seq)
{
    char key[STORE_KEY_MAX];

    log_key(seq, key);
    mem_remove(&mem, key);
}

/* ------------------------------------------------------------------ what counts */

static void test_nothing(void **state)
{
    (void)state;
    struct machine a = machine();
    assert_int_equal(replay(&a), 0);
    assert_int_equal(a.missing, 1);
    assert_int_equal(a.pos.seq, 0);
    assert_int_equal(a.pos.next, 1);
    assert_int_equal(a.pos.size_blocks, SIZE_BLOCKS);
    assert_int_equal(a.pos.epoch, 0);
    assert_int_equal(history.n, 0);
    machine_free(&a);
}

static void test_entries_come_back_as_written(void **state)
{
    struct entry *entries,
        written[] = {
            {.kind = ENTRY_ZERO, .block = 5, .nblocks = 77777},
            {ENTRY_DATA, 130, 3, 0, HEADER_BYTES + 64, 100, 0xdeadbeef, 0, 3, CODEC_ZSTD, 0, 0, 0},
        };
    uint8_t buf[HEADER_BYTES + 64 + 100] = {0};
    struct header h;

    (void)state;
    struct machine a = machine();
    assert_int_equal(machine_attach(&a), 0);
    uint64_t seq = written[1].seq = log_reserve(a.log, 1);
    assert_int_equal(log_append(a.log, seq, seq, seq, 99999, written, 2, buf, sizeof buf), 0);
    assert_int_equal(log_read(a.log, seq, &h, &entries, 0), 0);
    assert_int_equal(h.kind, HEADER_SEGMENT);
    assert_int_equal(h.flags, HEADER_LAST);
    assert_int_equal(h.seq, seq);
    assert_int_equal(h.first, seq);
    assert_int_equal(h.epoch, 1);
    assert_int_equal(h.size_blocks, 99999);
    assert_int_equal(h.nentries, 2);
    assert_int_equal(h.object_bytes, sizeof buf);
    assert_memory_equal(h.nonce, a.nonce, UUID_BYTES);
    for (int i = 0; i < 2; i++) {
        uint8_t one[ENTRY_BYTES], other[ENTRY_BYTES];
        entry_encode(&written[i], one);
        entry_encode(&entries[i], other);
        assert_memory_equal(one, other, ENTRY_BYTES);
    }
    free(entries);
    assert_int_equal(replay(&a), 0);
    assert_int_equal(a.pos.size_blocks, 99999);
    assert_int_equal(log_read(a.log, seq + 1, &h, &entries, 0), -ENOENT);
    machine_free(&a);
}

/* Behind a writer that goes on: without a listing, up to the first missing number. */
static void test_follow(void **state)
{
    (void)state;
    struct machine a = machine(), b = machine();
    assert_int_equal(machine_attach(&a), 0);
    assert_int_equal(replay(&b), 0);
    unsigned listed = mem.tries['L'];
    for (int i = 0; i < 5; i++)
        machine_commit(&a, (uint64_t)i);
    uint64_t first = log_reserve(a.log, 2); /* of this commit the first half is there */
    assert_int_equal(machine_append(&a, first, first, first + 1, 9), 0);
    assert_int_equal(log_follow(b.log, &b.pos, ignore_commit, NULL, PATIENCE_MS, &b.missing), 0);
    assert_int_equal(b.pos.seq, first - 1);
    assert_int_equal(b.missing, first + 1);
    assert_int_equal(mem.tries['L'], listed);
    assert_int_equal(machine_claim(&b), 0);
    assert_int_equal(machine_append(&a, first + 1, first, first + 1, 9), -ESTALE);
    machine_free(&a);
    machine_free(&b);
}

static void put_checkpoint(struct machine *m, const struct log_position *pos)
{
    struct checkpoint *cp;
    struct part_list list;
    uint64_t bytes;

    assert_int_equal(checkpoint_new(m->log, pos, PATIENCE_MS, &cp), 0);
    assert_int_equal(checkpoint_finish(cp, &list, &bytes), 0);
    checkpoint_free(cp);
    free(list.parts);
}

/* A number that is free as it was deleted, not as it is missing, may be claimed by somebody who is
 * behind; he gives that up, and nobody else takes it for the log's next. */
static void test_a_claim_that_came_to_nothing(void **state)
{
    (void)state;
    struct machine a = machine(), b = machine(), c = machine(), d = machine();
    assert_int_equal(machine_attach(&a), 0);
    machine_commit(&a, 1);
    assert_int_equal(replay(&b), 0);
    assert_int_equal(replay(&c), 0);
    assert_int_equal(replay(&d), 0);
    struct log_position before = c.pos;
    uint64_t seq = machine_commit(&a, 2);
    assert_int_equal(b.missing, seq);
    assert_int_equal(replay(&a), 0);
    put_checkpoint(&a, &a.pos);
    remove_number(seq);
    assert_int_equal(machine_claim(&b), 0);
    assert_int_equal(log_follow(c.log, &c.pos, ignore_commit, NULL, PATIENCE_MS, &c.missing),
                     -ENOENT);
    assert_memory_equal(&c.pos, &before, sizeof before);
    assert_int_equal(replay(&c), -ENOENT);
    assert_memory_equal(&c.pos, &before, sizeof before);
    assert_int_equal(replay(&a), 0); /* who has that checkpoint goes on behind it */
    machine_commit(&a, 3);
    assert_int_equal(replay(&a), 0);
    put_checkpoint(&a, &a.pos);
    assert_int_equal(replay(&d), -ENOENT);
    machine_free(&a);
    machine_free(&b);
    machine_free(&c);
    machine_free(&d);
}

/* A checkpoint as of a claim comes after it. */
static void test_a_checkpoint_of_a_claim(void **state)
{
    (void)state;
    struct machine a = machine(), b = machine(), c = machine();
    assert_int_equal(machine_attach(&a), 0);
    machine_commit(&a, 1);
    assert_int_equal(replay(&c), 0);
    assert_int_equal(machine_attach(&b), 0);
    put_checkpoint(&b, &b.pos);
    assert_int_equal(log_follow(c.log, &c.pos, ignore_commit, NULL, PATIENCE_MS, &c.missing), 0);
    assert_int_equal(c.pos.seq, b.pos.seq);
    machine_free(&a);
    machine_free(&b);
    machine_free(&c);
}

/* What a store kept of an upload that was cut off is not taken for a segment. */
static void test_size_must_fit(void **state)
{
    char key[STORE_KEY_MAX];
    struct entry *entries;
    struct header h;

    (void)state;
    struct machine a = machine();
    assert_int_equal(machine_attach(&a), 0);
    uint64_t seq = machine_commit(&a, 5);
    log_key(seq, key);
    struct mem_object *o = mem_find(&mem, key);
    o->len--; /* within the payload: header and table are whole */
    assert_int_equal(log_read(a.log, seq, &h, &entries, 0), -EBADMSG);
    assert_int_equal(replay(&a), -EBADMSG);
    o->len += 2;
    assert_int_equal(log_read(a.log, seq, &h, &entries, 0), -EBADMSG);
    o->len--;
    assert_int_equal(replay(&a), 0);
    machine_free(&a);
}

static void test_many_in_order(void **state)
{
    enum { N = 500 };

    (void)state;
    struct machine a = machine(), b = machine();
    assert_int_equal(machine_attach(&a), 0);
    uint64_t first = a.pos.next;
    for (uint64_t i = 0; i < N; i++)
        machine_commit(&a, i);
    assert_int_equal(replay(&b), 0);
    assert_int_equal(history.n, 1 + N);
    assert_int_equal(history.nblocks, N);
    for (uint64_t i = 0; i < N; i++) {
        assert_int_equal(history.last[1 + i], first + i);
        assert_int_equal(history.blocks[i], i);
    }
    assert_int_equal(b.missing, first + N);
    assert_int_equal(b.pos.seq, first + N - 1);
    assert_int_equal(b.pos.next, first + N);
    assert_int_equal(b.pos.epoch, 1);
    assert_memory_equal(b.pos.nonce, a.nonce, UUID_BYTES);
    machine_free(&a);
    machine_free(&b);
}

static void test_goes_on_where_it_was(void **state)
{
    (void)state;
    struct machine a = machine(), b = machine();
    assert_int_equal(machine_attach(&a), 0);
    machine_commit(&a, 1);
    assert_int_equal(replay(&b), 0);
    for (uint64_t seq = 1; seq <= b.pos.seq; seq++)
        remove_number(seq); /* a checkpoint has them */
    uint64_t seq = machine_commit(&a, 2);
    assert_int_equal(replay(&b), 0);
    assert_int_equal(history.n, 1);
    assert_int_equal(history.blocks[0], 2);
    assert_int_equal(b.missing, seq + 1);
    assert_int_equal(replay(&b), 0);
    assert_int_equal(history.n, 0);
    assert_int_equal(b.missing, seq + 1);
    machine_free(&a);
    machine_free(&b);
}

static void test_commits_are_whole_or_nothing(void **state)
{
    (void)state;
    struct machine a = machine(), b = machine();
    assert_int_equal(machine_attach(&a), 0);
    uint64_t first = log_reserve(a.log, 6);
    for (uint64_t i = 0; i < 3; i++)
        assert_int_equal(machine_append(&a, first + i, first, first + 2, i), 0);
    assert_int_equal(machine_append(&a, first + 3, first + 3, first + 5, 3), 0);
    assert_int_equal(machine_append(&a, first + 4, first + 3, first + 5, 4), 0);
    assert_int_equal(replay(&b), 0); /* of the second commit the last segment is missing */
    assert_int_equal(history.n, 2);
    assert_int_equal(history.last[1], first + 2);
    assert_int_equal(history.nblocks, 3);
    assert_int_equal(b.pos.seq, first + 2);
    assert_int_equal(b.pos.next, first + 3);
    assert_int_equal(b.missing, first + 5);

    assert_int_equal(machine_append(&a, first + 5, first + 3, first + 5, 5), 0);
    assert_int_equal(replay(&b), 0);
    assert_int_equal(history.n, 1);
    assert_int_equal(history.nblocks, 3);
    for (uint64_t i = 0; i < 3; i++)
        assert_int_equal(history.blocks[i], 3 + i);
    machine_free(&a);
    machine_free(&b);
}

/* What lies behind a gap was in flight when its writer was interrupted. */
static void test_a_gap_ends_the_log(void **state)
{
    (void)state;
    struct machine a = machine(), b = machine();
    assert_int_equal(machine_attach(&a), 0);
    for (uint64_t i = 0; i < 100; i++)
        machine_commit(&a, i);
    uint64_t gap = log_reserve(a.log, 100);
    for (uint64_t seq = gap + 1; seq < gap + 100; seq++)
        assert_int_equal(machine_append(&a, seq, seq, seq, 1), 0);
    assert_int_equal(replay(&b), 0);
    assert_int_equal(history.nblocks, 100);
    assert_int_equal(b.missing, gap);
    assert_int_equal(machine_claim(&b), 0);
    assert_int_equal(replay(&a), 0);
    assert_int_equal(history.nblocks, 100);
    assert_int_equal(a.pos.epoch, 2);
    machine_free(&a);
    machine_free(&b);
}

static void test_an_unfinished_commit_ends_with_the_claim(void **state)
{
    (void)state;
    struct machine a = machine(), b = machine(), c = machine();
    assert_int_equal(machine_attach(&a), 0);
    uint64_t first = log_reserve(a.log, 3);
    assert_int_equal(machine_append(&a, first, first, first + 2, 1), 0);
    assert_int_equal(machine_append(&a, first + 1, first, first + 2, 2), 0);
    assert_int_equal(machine_attach(&b), 0);
    assert_int_equal(b.missing, first + 2);
    uint64_t seq = machine_commit(&b, 3);
    assert_int_equal(replay(&c), 0);
    assert_int_equal(history.n, 3); /* two claims, one commit */
    assert_int_equal(history.nblocks, 1);
    assert_int_equal(history.blocks[0], 3);
    assert_int_equal(c.pos.seq, seq);
    assert_int_equal(c.pos.epoch, 2);
    machine_free(&a);
    machine_free(&b);
    machine_free(&c);
}

/* Even if the garbage is damaged, or looks like a claim. */
static void test_a_claim_jumps_over_garbage(void **state)
{
    char key[STORE_KEY_MAX];

    (void)state;
    struct machine a = machine(), b = machine(), c = machine();
    assert_int_equal(machine_attach(&a), 0);
    uint64_t first = log_reserve(a.log, LOG_WINDOW);
    assert_int_equal(machine_attach(&b), 0);
    for (uint64_t i = 1; i < 50; i++)
        assert_int_equal(machine_append(&a, first + i, first + i, first + i, i), 0);
    log_key(first + 50, key);
    mem_set(&mem, key, "garbage", 7);
    log_key(first + LOG_WINDOW, key);
    mem_set(&mem, key, object(1)->data, object(1)->len);
    uint64_t seq = machine_commit(&b, 7);
    assert_int_equal(seq, first + LOG_WINDOW + 1);
    assert_int_equal(replay(&c), 0);
    assert_int_equal(history.n, 3);
    assert_int_equal(history.nblocks, 1);
    assert_int_equal(history.blocks[0], 7);
    assert_int_equal(c.missing, seq + 1);
    machine_free(&a);
    machine_free(&b);
    machine_free(&c);
}

static void test_other_names_are_nobodys(void **state)
{
    static const char *const names[] = {"log/0", "log/0000000000000001.bak", "log/00000000000000AA",
                                        "log/notes.txt", "log/zzz/0000000000000001"};

    (void)state;
    struct machine a = machine(), b = machine();
    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        mem_set(&mem, names[i], "?", 1);
    assert_int_equal(machine_attach(&a), 0);
    machine_commit(&a, 1);
    assert_int_equal(replay(&b), 0);
    assert_int_equal(history.n, 2);
    machine_free(&a);
    machine_free(&b);
}

/* ------------------------------------------------------------------ what is damage */

/* Attaching fails, and says which object is to blame. */
static void assert_damaged(uint64_t seq, int error)
{
    char said[512], key[STORE_KEY_MAX];

    struct machine m = machine();
    assert_int_equal(replay(&m), error);
    log_key(seq, key);
    msg_last_error(said, sizeof said);
    assert_non_null(strstr(said, key));
    machine_free(&m);
}

static void test_damage_names_the_object(void **state)
{
    (void)state;
    struct machine a = machine();
    assert_int_equal(machine_attach(&a), 0);
    machine_commit(&a, 0);
    uint64_t seq = machine_commit(&a, 1);
    machine_commit(&a, 2);
    struct mem_object *o = object(seq);
    for (size_t byte = 0; byte < HEADER_BYTES + ENTRY_BYTES; byte++) {
        uint8_t bit = (uint8_t)(1 << byte % 8);
        o->data[byte] ^= bit;
        assert_damaged(seq, -EBADMSG);
        o->data[byte] ^= bit;
    }
    size_t len = o->len;
    for (o->len = 0; o->len < HEADER_BYTES + ENTRY_BYTES; o->len++)
        assert_damaged(seq, -EBADMSG);
    o->len = len;
    struct mem_object *other = object(seq + 1);
    memcpy(o->data, other->data, o->len); /* in the wrong place */
    assert_damaged(seq, -EBADMSG);
    machine_free(&a);
}

static void test_a_version_from_the_future_says_so(void **state)
{
    struct header h = {.kind = HEADER_CLAIM, .seq = 1, .next = 2000, .object_bytes = HEADER_BYTES};
    uint8_t buf[HEADER_BYTES];
    char said[512];

    (void)state;
    memcpy(h.uuid, mem_sb.uuid, UUID_BYTES);
    header_encode(&h, "", buf);
    buf[8] = 2;
    uint32_t crc = crc32c(0, buf, HEADER_BYTES - 4);
    memcpy(buf + HEADER_BYTES - 4, &crc, 4);
    mem_set(&mem, "log/0000000000000001", buf, sizeof buf);
    assert_damaged(1, -EPROTONOSUPPORT);
    msg_last_error(said, sizeof said);
    assert_non_null(strstr(said, "upgrade"));
}

static void test_a_claim_must_follow_the_log(void **state)
{
    (void)state;
    struct machine a = machine(), b = machine();
    assert_int_equal(machine_attach(&a), 0);
    uint64_t seq = machine_commit(&a, 1);
    b.pos.next = b.missing = seq + 1; /* it never saw the commit */
    assert_int_equal(machine_claim(&b), 0);
    assert_damaged(seq + 1, -EBADMSG);
    machine_free(&a);
    machine_free(&b);
}

/* A table that no writer writes, under a good checksum. */
static void test_senseless_entries_are_damage(void **state)
{
    static const struct entry bad[] = {
        {.kind = ENTRY_ZERO, .block = SIZE_BLOCKS - 1, .nblocks = 2}, /* beyond the end */
        {ENTRY_DATA, SIZE_BLOCKS, 1, 1, 200, BLOCK_BYTES, 0, 0, 1, CODEC_RAW, 0, 0,
         0}, /* beyond the end */
        {ENTRY_DATA, 63, 2, 1, 200, 2 * BLOCK_BYTES, 0, 0, 2, CODEC_RAW, 0, 0,
         0},                                                                     /* of two chunks */
        {ENTRY_DATA, 0, 1, 1026, 161, BLOCK_BYTES, 0, 0, 1, CODEC_RAW, 0, 0, 0}, /* beyond itself */
        {ENTRY_DATA, 0, 1, 1026, UINT32_MAX - 5, BLOCK_BYTES, 0, 0, 1, CODEC_RAW, 0, 0,
         0}, /* wraps */
        {ENTRY_DATA, 64, 1, 1, 200, 2 * BLOCK_BYTES, 0, 1, 2, CODEC_RAW, 0, 0,
         0}, /* a frame of two chunks */
    };
    uint8_t buf[HEADER_BYTES + ENTRY_BYTES + BLOCK_BYTES] = {0};

    (void)state;
    struct machine a = machine();
    assert_int_equal(machine_attach(&a), 0);
    uint64_t seq = log_reserve(a.log, 1);
    assert_int_equal(seq, 1026);
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        assert_int_equal(log_append(a.log, seq, seq, seq, SIZE_BLOCKS, &bad[i], 1, buf, sizeof buf),
                         0);
        assert_damaged(seq, -EBADMSG);
        remove_number(seq);
    }
    machine_free(&a);
}

/* What was acknowledged, or claimed, when a later object was stored, cannot be missing. */
static void test_a_lost_object_is_damage(void **state)
{
    (void)state;
    struct machine a = machine(), b = machine();
    assert_int_equal(machine_attach(&a), 0);
    uint64_t lost = machine_commit(&a, 1), last = machine_commit(&a, 2);
    remove_number(lost);
    assert_damaged(lost, -EBADMSG);
    remove_number(last); /* nothing tells any more */
    assert_int_equal(machine_attach(&b), 0);
    assert_int_equal(b.missing, lost);
    machine_free(&a);
    machine_free(&b);
}

/* Deleted between the list and the read: whoever attaches begins anew. */
static enum mem_act delete_when_listed(void *ctx, char verb, const char *key)
{
    (void)ctx;
    if (verb == 'G' && strcmp(key, "log/0000000000000001") == 0)
        mem_remove(&mem, key);
    return MEM_OK;
}

static void test_deleted_meanwhile(void **state)
{
    (void)state;
    struct machine a = machine(), b = machine();
    assert_int_equal(machine_attach(&a), 0);
    machine_commit(&a, 1);
    mem_retry(&mem, delete_when_listed, NULL);
    assert_int_equal(replay(&b), -ENOENT);
    machine_free(&a);
    machine_free(&b);
}

static void test_an_error_of_apply_is_the_end(void **state)
{
    (void)state;
    struct machine a = machine(), b = machine();
    assert_int_equal(machine_attach(&a), 0);
    for (uint64_t i = 0; i < 100; i++)
        machine_commit(&a, i);
    history.fail_at = 50;
    history.error = -ENOSPC;
    assert_int_equal(replay(&b), -ENOSPC);
    assert_int_equal(history.n, 50);
    machine_free(&a);
    machine_free(&b);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, mem_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_nothing),
        TEST(test_entries_come_back_as_written),
        TEST(test_follow),
        TEST(test_a_claim_that_came_to_nothing),
        TEST(test_a_checkpoint_of_a_claim),
        TEST(test_size_must_fit),
        TEST(test_many_in_order),
        TEST(test_goes_on_where_it_was),
        TEST(test_commits_are_whole_or_nothing),
        TEST(test_a_gap_ends_the_log),
        TEST(test_an_unfinished_commit_ends_with_the_claim),
        TEST(test_a_claim_jumps_over_garbage),
        TEST(test_other_names_are_nobodys),
        TEST(test_damage_names_the_object),
        TEST(test_a_version_from_the_future_says_so),
        TEST(test_a_claim_must_follow_the_log),
        TEST(test_senseless_entries_are_damage),
        TEST(test_a_lost_object_is_damage),
        TEST(test_deleted_meanwhile),
        TEST(test_an_error_of_apply_is_the_end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
