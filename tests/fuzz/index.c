/*
 * index.db, whose rows say what they like. Input: rows, each a letter, numbers and a blob; then
 * commits are taken in over them. Whatever is there: errors, or a map that makes sense.
 */
#include "fuzz.h"

#include "../../cache/index.h"
#include "../../cache/index_pages.h"

#include <fcntl.h>
#include <sqlite3.h>

const unsigned long fuzz_runs = 3000; /* each is several transactions */

static const uint8_t uuid[UUID_BYTES] = "a fuzzer's uuid";
static char path[64];
static sqlite3 *db;
static sqlite3_stmt *put_map, *put_cached;
static struct index *ix;

static void remove_files(void)
{
    static const char *const suffixes[] = {"", "-wal", "-shm"};
    char name[80];

    for (size_t i = 0; i < ARRAY_SIZE(suffixes); i++)
        if (format(name, sizeof name, "%s%s", path, suffixes[i]) == 0)
            unlink(name);
}

static void set_up(void)
{
    struct log_position pos = {.seq = 1, .next = 2, .size_blocks = 1 << 20};

    msg_set_sink(MSG_NONE);
    (void)!format(path, sizeof path, "/dev/shm/s3vol-fuzz-%d", (int)getpid());
    remove_files();
    atexit(remove_files);
    INVARIANT(index_open(path, uuid, &ix) == 0 && index_apply(ix, NULL, 0, 0, &pos, false) == 0);
    INVARIANT(sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, index_pages_vfs()) == SQLITE_OK);
    INVARIANT(sqlite3_exec(db, "PRAGMA synchronous = OFF", NULL, NULL, NULL) == SQLITE_OK);
    INVARIANT(sqlite3_prepare_v2(db, "REPLACE INTO map VALUES(?1, ?2, ?3)", -1, &put_map, NULL) ==
              SQLITE_OK);
    INVARIANT(sqlite3_prepare_v2(db, "REPLACE INTO cached VALUES(?1, ?2, ?3, ?4, ?5, ?6)", -1,
                                 &put_cached, NULL) == SQLITE_OK);
}

static void run(const char *sql)
{
    INVARIANT(sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK);
}

static void step(sqlite3_stmt *q)
{
    INVARIANT(sqlite3_step(q) == SQLITE_DONE && sqlite3_reset(q) == SQLITE_OK);
}

static void put_row(struct input *in)
{
    bool cached = take_number(in, 1) & 1;
    sqlite3_stmt *q = cached ? put_cached : put_map;

    sqlite3_bind_int64(q, 1, (sqlite3_int64)take_number(in, 1));
    sqlite3_bind_int64(q, 2, (sqlite3_int64)take_number(in, cached ? 2 : 8));
    for (int at = 3; cached && at <= 5; at++)
        sqlite3_bind_int64(q, at, (sqlite3_int64)take_number(in, 8));
    size_t len = take_length(in);
    sqlite3_bind_blob(q, cached ? 6 : 3, in->at, (int)len, SQLITE_TRANSIENT);
    in->at += len;
    in->left -= len;
    step(q);
}

static int see_places(void *ctx, const struct places *p)
{
    uint64_t *at = ctx;

    INVARIANT(p->n <= CHUNK_BLOCKS);
    for (unsigned i = 0; i < p->n; i++) {
        const struct entry *e = &p->e[i];
        INVARIANT(e->kind == ENTRY_DATA && e->nblocks > 0 && e->block >= *at);
        *at = e->block + e->nblocks;
        INVARIANT(e->block / CHUNK_BLOCKS == (*at - 1) / CHUNK_BLOCKS);
    }
    return 0;
}

/* The sums of blocks, if there are any, are 64. */
static int see_cached(void *ctx, const struct index_cached *row)
{
    uint32_t *any = ctx;

    for (unsigned i = 0; row->sums && i < CHUNK_BLOCKS; i++)
        *any |= row->sums[i];
    return 0;
}

static void assert_result(int r)
{
    INVARIANT(r == 0 || r == -EBADMSG);
}

static void read_all(void)
{
    struct index_view *view;
    struct log_position pos;
    struct places p;
    uint64_t at = 0;
    uint32_t any = 0;

    for (uint64_t chunk = 0; chunk < 256; chunk += 1 + chunk / 4) {
        int r = index_load(ix, chunk, &p);
        assert_result(r);
        at = chunk * CHUNK_BLOCKS;
        if (r == 0)
            see_places(&at, &p);
        INVARIANT(r < 0 || at <= (chunk + 1) * CHUNK_BLOCKS);
    }
    at = 0;
    INVARIANT(index_view_begin(ix, &view, &pos) == 0);
    assert_result(index_view_each(view, 0, 256, see_places, &at));
    index_view_end(view);
    INVARIANT(index_each_cached(ix, see_cached, &any) == 0);
}

static void take_in(struct input *in)
{
    uint64_t block = take_number(in, 2), n = 1 + take_number(in, 1);
    struct log_position pos = {.seq = 2, .next = 3, .size_blocks = 1 << 20};
    struct entry e[2] = {{.kind = ENTRY_ZERO, .block = block, .nblocks = n},
                         {.kind = ENTRY_DATA,
                          .block = block,
                          .nblocks = 1,
                          .seq = 2,
                          .offset = HEADER_BYTES,
                          .stored_bytes = 1,
                          .frame_blocks = 1,
                          .codec = CODEC_ZSTD}};

    assert_result(index_apply(ix, e, 2, 1, &pos, n & 1));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};

    if (!ix)
        set_up();
    run("BEGIN; DELETE FROM map; DELETE FROM cached");
    for (unsigned rows = (unsigned)take_number(&in, 1) % 16; rows > 0; rows--)
        put_row(&in);
    run("COMMIT");
    for (unsigned commits = (unsigned)take_number(&in, 1) % 4; commits > 0; commits--)
        take_in(&in);
    read_all();
    return 0;
}
