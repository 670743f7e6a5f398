#ifndef S3VOL_INDEX_MODEL_H
#define S3VOL_INDEX_MODEL_H

/* index.db against a model of 40 chunks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "../../cache/index.h"
#include "../../store/msg.h"
#include "../../store/scope.h"
#include "../pattern.h"

#include <sys/sendfile.h>
#include <sys/stat.h>

enum { CHUNKS = 40, NBLOCKS = CHUNKS * CHUNK_BLOCKS };

static const uint8_t uuid[UUID_BYTES] = "volume's uuid 1", other[UUID_BYTES] = "volume's uuid 2";
static char path[256];
static struct index *ix;

/* What the index must hold. */
static struct {
    uint64_t seq[NBLOCKS]; /* of the segment that holds the block; 0: no place */
    struct index_cached row[CHUNKS];
} model;

static void remove_files(void)
{
    static const char *const suffixes[] = {"", "-wal", "-shm"};
    char name[300];

    for (int i = 0; i < 3; i++) {
        snprintf(name, sizeof name, "%s%s", path, suffixes[i]);
        unlink(name);
    }
}

/* What the file holds now, beside it. */
static inline off_t copy_file(const char *suffix)
{
    char from[300], to[300];

    snprintf(from, sizeof from, "%s%s", path, suffix);
    snprintf(to, sizeof to, "%s.copy%s", path, suffix);
    int in = open_or_die(from, O_RDONLY), out = open_or_die(to, O_RDWR | O_CREAT);
    ssize_t n = sendfile(out, in, NULL, 1 << 30);
    close(in);
    close(out);
    return n;
}

static int setup(void **state)
{
    const char *tmp = getenv("T") ? getenv("T") : getenv("TMPDIR");

    (void)state;
    msg_set_sink(MSG_NONE);
    memset(&model, 0, sizeof model);
    snprintf(path, sizeof path, "%s/s3vol-unit-XXXXXX", tmp ? tmp : "/tmp");
    close(mkstemp(path));
    unlink(path);
    return index_open(path, uuid, &ix);
}

static int teardown(void **state)
{
    (void)state;
    index_close(ix);
    ix = NULL;
    remove_files();
    return 0;
}

static inline int reopen(void)
{
    index_close(ix);
    ix = NULL;
    return index_open(path, uuid, &ix);
}

/* ------------------------------------------------------------------ checking */

static uint64_t model_mask(uint64_t chunk)
{
    uint64_t mask = 0;

    for (unsigned i = 0; i < CHUNK_BLOCKS; i++)
        mask |= (uint64_t)(model.seq[chunk * CHUNK_BLOCKS + i] != 0) << i;
    return mask;
}

static void check_places(const struct places *p, uint64_t chunk)
{
    assert_int_equal(places_mask(p), model_mask(chunk));
    for (unsigned i = 0; i < p->n; i++)
        for (uint64_t b = p->e[i].block; b < p->e[i].block + p->e[i].nblocks; b++)
            assert_int_equal(model.seq[b], p->e[i].seq);
}

static int check_cached(void *ctx, const struct index_cached *row)
{
    size_t *n = ctx;
    const struct index_cached *want = &model.row[row->chunk];

    ++*n;
    assert_int_equal(row->valid, want->valid);
    assert_int_equal(row->zero, want->zero);
    assert_int_equal(row->dirty, want->dirty);
    assert_int_equal(row->slot, want->slot);
    assert_int_equal(row->mapped, model_mask(row->chunk));
    for (uint64_t rest = row->valid & ~row->zero; rest; rest &= rest - 1) {
        unsigned block = (unsigned)__builtin_ctzll(rest);
        assert_int_equal(row->sums ? row->sums[block] : 0, want->sums ? want->sums[block] : 0);
    }
    return 0;
}

/* Each segment has so many live blocks as the map has places in it. */
static void check_segments(void)
{
    static struct index_segment segments[4000];
    struct index_space space;
    uint64_t total = 0, bytes = 0;
    size_t n;

    assert_int_equal(index_victims(ix, 1e9, SEQ_MAX, segments, ARRAY_SIZE(segments), &n), 0);
    for (size_t i = 0; i < n; i++) {
        uint64_t want = 0;
        for (unsigned b = 0; b < NBLOCKS; b++)
            want += model.seq[b] == segments[i].seq;
        assert_int_equal(segments[i].live_blocks, want);
        assert_in_range(segments[i].live_bytes, want * BLOCK_BYTES, /* and entries, in proportion */
                        want * (BLOCK_BYTES + ENTRY_BYTES));
        total += want;
        bytes += segments[i].live_bytes;
    }
    for (unsigned b = 0; b < NBLOCKS; b++)
        total -= model.seq[b] != 0;
    assert_int_equal(total, 0);
    assert_int_equal(index_space(ix, 0, &space), 0);
    assert_int_equal(space.live_bytes, bytes);
    assert_int_equal(index_dead(ix, SEQ_MAX, 0, segments, ARRAY_SIZE(segments), &n), 0);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(segments[i].live_blocks, 0);
        for (unsigned b = 0; b < NBLOCKS; b++)
            assert_true(model.seq[b] != segments[i].seq);
    }
}

static void check(void)
{
    struct index_hit hits[CHUNKS + 1];
    struct index_meta meta;
    uint64_t total = 0;
    size_t n, at = 0;

    assert_int_equal(index_scan(ix, 0, CHUNKS, hits, CHUNKS + 1, &n), 0);
    for (uint64_t chunk = 0; chunk < CHUNKS; chunk++) {
        struct places p;
        uint64_t mask;
        assert_int_equal(index_load(ix, chunk, &p), 0);
        check_places(&p, chunk);
        assert_int_equal(index_mask(ix, chunk, &mask), 0);
        assert_int_equal(mask, model_mask(chunk));
        total += mask_count(mask);
        if (mask) {
            assert_true(at < n);
            assert_int_equal(hits[at].chunk, chunk);
            assert_int_equal(hits[at++].mask, mask);
        }
    }
    assert_int_equal(at, n);
    index_get_meta(ix, &meta);
    assert_int_equal(meta.mapped_blocks, total);
    assert_int_equal(index_each_cached(ix, check_cached, &at), 0);
    check_segments();
}

/* ------------------------------------------------------------------ changing both */

static struct log_position position(uint64_t seq)
{
    struct log_position pos = {
        .seq = seq, .next = seq + 1, .size_blocks = NBLOCKS, .epoch = 3, .claim = 5};

    memset(pos.nonce, (int)seq, UUID_BYTES);
    return pos;
}

static struct entry zero(uint64_t block, uint64_t n)
{
    return (struct entry){.kind = ENTRY_ZERO, .block = block, .nblocks = n};
}

static struct entry data(uint64_t block, uint64_t n, uint64_t seq)
{
    return (struct entry){.kind = ENTRY_DATA,
                          .block = block,
                          .nblocks = n,
                          .seq = seq,
                          .offset = 200,
                          .stored_bytes = (uint32_t)n * BLOCK_BYTES,
                          .frame_blocks = (uint8_t)n};
}

static void apply_to_model(const struct entry *e, bool forget)
{
    for (uint64_t b = e->block; b < e->block + e->nblocks && b < NBLOCKS; b++) {
        struct index_cached *row = &model.row[b / CHUNK_BLOCKS];
        uint64_t bit = UINT64_C(1) << b % CHUNK_BLOCKS;
        if (e->kind == ENTRY_MOVE) {
            model.seq[b] = model.seq[b] == e->old_seq ? e->seq : model.seq[b];
            continue;
        }
        model.seq[b] = e->kind == ENTRY_ZERO ? 0 : e->seq;
        if (forget && !(row->dirty & bit)) {
            row->valid &= ~bit;
            row->zero &= ~bit;
        }
    }
}

static void apply(const struct entry *entries, size_t n, uint64_t seq, bool forget)
{
    struct log_position pos = position(seq);

    assert_int_equal(index_apply(ix, entries, n, 1, &pos, forget), 0);
    for (size_t i = 0; i < n; i++)
        apply_to_model(&entries[i], forget);
}

static inline struct entry random_entry(uint64_t *rng, uint64_t seq)
{
    uint64_t block = draw(rng, NBLOCKS), n = 1 + draw(rng, 16);

    if (draw(rng, 4)) {
        n = MIN(n, CHUNK_BLOCKS - block % CHUNK_BLOCKS);
        struct entry e = data(block, n, seq);
        if (draw(rng, 3) == 0 && model.seq[block] && model.seq[block] != seq) {
            e.kind = ENTRY_MOVE;
            e.old_seq = model.seq[block];
        }
        return e;
    }
    if (draw(rng, 4) == 0) /* from chunk to chunk */
        block -= block % CHUNK_BLOCKS;
    uint64_t many = 1 + draw(rng, draw(rng, 2) ? 10 : 700);
    return zero(block, MIN(many, NBLOCKS - block));
}

/* Every third one is 0: not known. */
static const uint32_t *random_sums(uint64_t *rng)
{
    static uint32_t sums[8][CHUNK_BLOCKS];
    uint64_t i = draw(rng, 8);

    for (unsigned block = 0; block < CHUNK_BLOCKS; block++)
        sums[i][block] = block % 3 == i % 3 ? 0 : (uint32_t)mix(i * CHUNK_BLOCKS + block) | 1;
    return draw(rng, 3) ? sums[i] : NULL;
}

static inline struct index_cached random_row(uint64_t *rng)
{
    struct index_cached row = {.chunk = draw(rng, CHUNKS), .slot = (uint32_t)draw(rng, 1000)};

    row.valid = mix(draw(rng, 1000000)) | 1;
    row.zero = row.valid & mix(draw(rng, 1000000));
    row.dirty = draw(rng, 2) ? row.valid & mix(draw(rng, 1000000)) : 0;
    row.sums = random_sums(rng);
    return row;
}

static inline void record(const struct index_cached *rows, size_t n, bool only)
{
    assert_int_equal(index_record(ix, rows, n, 7, only), 0);
    if (only)
        memset(model.row, 0, sizeof model.row);
    for (size_t i = 0; i < n; i++)
        model.row[rows[i].chunk] = rows[i];
}

/* ------------------------------------------------------------------ the map */

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

#endif
