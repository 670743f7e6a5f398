#include "index_internal.h"
#include "index_pages.h"

#include "../store/bytes.h"
#include "../store/msg.h"
#include "../store/scope.h"
#include "disk_io.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

enum { SCHEMA_VERSION = 4, VERSION_WITHOUT_LIFE = 3, BUSY_MS = 10000, WAL_PIECE_BYTES = 256 << 10 };

static const char SCHEMA[] =
    "CREATE TABLE IF NOT EXISTS meta(id INTEGER PRIMARY KEY CHECK(id = 1), uuid BLOB, seq INTEGER,"
    " next INTEGER, size_blocks INTEGER, epoch INTEGER, nonce BLOB, claim INTEGER, own_nonce BLOB,"
    " pending_nonce BLOB, clean INTEGER, mapped_blocks INTEGER, local_blocks INTEGER,"
    " inventoried INTEGER, life INTEGER);"
    "CREATE TABLE IF NOT EXISTS map(chunk INTEGER PRIMARY KEY, mask INTEGER NOT NULL,"
    " places BLOB NOT NULL);"
    "CREATE TABLE IF NOT EXISTS cached(chunk INTEGER PRIMARY KEY, slot INTEGER NOT NULL,"
    " valid INTEGER NOT NULL, zero INTEGER NOT NULL, dirty INTEGER NOT NULL, sums BLOB);"
    "CREATE TABLE IF NOT EXISTS segments(seq INTEGER PRIMARY KEY, stored INTEGER NOT NULL,"
    " blocks INTEGER NOT NULL, bytes INTEGER NOT NULL, dead_seq INTEGER,"
    " pinned INTEGER NOT NULL);"
    "CREATE TABLE IF NOT EXISTS pins(first INTEGER PRIMARY KEY, last INTEGER NOT NULL);"
    "CREATE INDEX IF NOT EXISTS dead_segments ON segments(dead_seq) WHERE dead_seq IS NOT NULL;"
    "DROP TABLE IF EXISTS new_map;" /* of a map that was not loaded to its end */
    "PRAGMA user_version = 4;";

int index_error(struct index *ix, sqlite3 *db, const char *what)
{
    int code = sqlite3_errcode(db) & 0xff;
    bool page = sqlite3_extended_errcode(db) == SQLITE_IOERR_DATA;
    int err = -EIO;

    if (code == SQLITE_FULL)
        err = -ENOSPC;
    else if (code == SQLITE_NOMEM)
        err = -ENOMEM;
    else if (code == SQLITE_CORRUPT || code == SQLITE_NOTADB || page)
        err = -EBADMSG;
    if (err != -EBADMSG)
        return msg_error(err, "%s: %s: %s", ix->path, what, sqlite3_errmsg(db));
    ix->damaged = true; /* what that means is for others to say */
    msg_warn("%s: %s: %s", ix->path, what,
             page ? "a page is not as it was written" : sqlite3_errmsg(db));
    return err;
}

int index_prepare(struct index *ix, sqlite3 *db, const char *sql, sqlite3_stmt **ret)
{
    return sqlite3_prepare_v3(db, sql, -1, SQLITE_PREPARE_PERSISTENT, ret, NULL) == SQLITE_OK
               ? 0
               : index_error(ix, db, "prepare");
}

int index_step(struct index *ix, sqlite3_stmt *q)
{
    int r = sqlite3_step(q) == SQLITE_DONE ? 0 : index_error(ix, sqlite3_db_handle(q), "write");

    sqlite3_reset(q);
    return r;
}

int index_exec(struct index *ix, const char *sql)
{
    return sqlite3_exec(ix->db, sql, NULL, NULL, NULL) == SQLITE_OK
               ? 0
               : index_error(ix, ix->db, "write");
}

/* ------------------------------------------------------------------ opening */

/* popcount(mask): the blocks of a row. */
static void sql_popcount(sqlite3_context *ctx, int argc, sqlite3_value **argv)
{
    (void)argc;
    sqlite3_result_int(ctx, (int)mask_count((uint64_t)sqlite3_value_int64(argv[0])));
}

int index_connect(struct index *ix, int flags, sqlite3 **ret)
{
    int reserved = INDEX_PAGE_RESERVED;
    int r = sqlite3_open_v2(ix->path, ret, flags | SQLITE_OPEN_NOMUTEX, index_pages_vfs());

    if (r != SQLITE_OK)
        return *ret ? index_error(ix, *ret, "open") : -ENOMEM;
    sqlite3_file_control(*ret, "main", SQLITE_FCNTL_RESERVE_BYTES, &reserved);
    sqlite3_busy_timeout(*ret, BUSY_MS);
    sqlite3_create_function(*ret, "popcount", 1, SQLITE_UTF8 | SQLITE_DETERMINISTIC, NULL,
                            sql_popcount, NULL, NULL);
    return 0;
}

static void copy_blob(sqlite3_stmt *q, int at, uint8_t ret[UUID_BYTES])
{
    memset(ret, 0, UUID_BYTES);
    if (sqlite3_column_bytes(q, at) == UUID_BYTES)
        memcpy(ret, sqlite3_column_blob(q, at), UUID_BYTES);
}

static int load_meta(struct index *ix)
{
    struct index_meta *m = &ix->meta;
    uint8_t uuid[UUID_BYTES];
    sqlite3_stmt *q;
    int r = index_prepare(ix, ix->db,
                          "SELECT uuid, seq, next, size_blocks, epoch, nonce, claim,"
                          " own_nonce, pending_nonce, clean, mapped_blocks, local_blocks,"
                          " inventoried, life FROM meta",
                          &q);

    if (r < 0)
        return r;
    int step = sqlite3_step(q);
    if (step == SQLITE_ROW) {
        copy_blob(q, 0, uuid);
        m->pos = (struct log_position){.seq = column_u64(q, 1),
                                       .next = column_u64(q, 2),
                                       .size_blocks = column_u64(q, 3),
                                       .epoch = column_u64(q, 4),
                                       .claim = column_u64(q, 6)};
        copy_blob(q, 5, m->pos.nonce);
        copy_blob(q, 7, m->own_nonce);
        copy_blob(q, 8, m->pending_nonce);
        m->clean = sqlite3_column_int(q, 9) != 0;
        m->mapped_blocks = column_u64(q, 10);
        m->local_blocks = column_u64(q, 11);
        m->inventoried = sqlite3_column_int(q, 12) != 0;
        m->life = column_u64(q, 13);
        if (memcmp(uuid, ix->uuid, UUID_BYTES) != 0)
            r = msg_error(-EBADMSG, "%s: is the index of another volume; use another --cache-dir",
                          ix->path);
    } else if (step == SQLITE_DONE) {
        *m = (struct index_meta){.fresh = true, .inventoried = true, .pos = {.next = 1}};
    } else {
        r = index_error(ix, ix->db, "read");
    }
    sqlite3_finalize(q);
    return r;
}

static int check_version(struct index *ix, int *ret_version)
{
    sqlite3_stmt *q;
    int r = index_prepare(ix, ix->db, "PRAGMA user_version", &q);

    if (r < 0)
        return r;
    if (sqlite3_step(q) != SQLITE_ROW)
        r = index_error(ix, ix->db, "read");
    int version = *ret_version = sqlite3_column_int(q, 0);
    if (r == 0 && version != 0 && version != SCHEMA_VERSION && version != VERSION_WITHOUT_LIFE)
        r = msg_error(-EPROTONOSUPPORT,
                      "%s: version %d is not known to this s3vol: upgrade it, or use another "
                      "--cache-dir",
                      ix->path, version);
    sqlite3_finalize(q);
    return r;
}

/* What an earlier process could not sync, the next sync takes for synced, as it has nothing to
 * write; and a power cut takes it away, while half of it is in index.db already. So it is written
 * once more. */
static int settle_wal(struct index *ix)
{
    char path[sizeof ix->path + 4];
    struct stat st = {0};
    uint8_t *buf = NULL;
    int r = format(path, sizeof path, "%s-wal", ix->path);
    scope_close int fd = r < 0 ? -1 : open(path, O_RDWR | O_CLOEXEC);

    if (r < 0 || (fd < 0 && errno == ENOENT))
        return r;
    if (fd < 0 || fstat(fd, &st) < 0)
        r = -errno;
    else if (!(buf = malloc(WAL_PIECE_BYTES)))
        r = -ENOMEM;
    for (off_t at = 0; at < st.st_size && r == 0; at += WAL_PIECE_BYTES) {
        size_t n = (size_t)MIN(st.st_size - at, (off_t)WAL_PIECE_BYTES);
        if (io_all(fd, false, buf, n, at) < 0)
            break; /* SQLite says so, if it needs it */
        r = io_all(fd, true, buf, n, at);
    }
    r = r == -ENOSPC ? 0 : r; /* to overwrite took space: then it is left as it is */
    if (r == 0 && st.st_size > 0 && fdatasync(fd) < 0)
        r = -EIO;
    free(buf);
    return r == 0 ? 0 : msg_error(r, "%s: %s", path, strerror(-r));
}

static int open_writer(struct index *ix)
{
    int r = settle_wal(ix), version = 0;

    if (r == 0)
        r = index_connect(ix, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, &ix->db);
    if (r == 0)
        r = check_version(ix, &version);
    if (r == 0)
        r = index_exec(
            ix, "PRAGMA page_size = 4096; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"
                "PRAGMA cache_size = -4096; PRAGMA temp_store = MEMORY; PRAGMA mmap_size = 0;"
                /* to write zeros over a map that goes would take its size in memory and -wal */
                "PRAGMA secure_delete = OFF;"
                /* what an earlier process could not sync is seen, and perhaps not on the disk:
                 * nothing is appended to that */
                "PRAGMA wal_checkpoint(TRUNCATE);");
    if (r == 0 && version == VERSION_WITHOUT_LIFE)
        r = index_exec(ix, "BEGIN; ALTER TABLE meta ADD COLUMN life INTEGER;"
                           "PRAGMA user_version = 4; COMMIT");
    if (r == 0)
        r = index_exec(ix, SCHEMA);
    if (r == 0)
        r = load_meta(ix);
    return r;
}

static int prepare_all(struct index *ix)
{
    const struct {
        const char *sql;
        sqlite3_stmt **q;
    } all[] = {
        {"BEGIN IMMEDIATE", &ix->q.begin},
        {"COMMIT", &ix->q.commit},
        {"ROLLBACK", &ix->q.rollback},
        {"REPLACE INTO meta VALUES(1, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12,"
         " ?13, ?14)",
         &ix->q.put_meta},
        {"REPLACE INTO cached VALUES(?1, ?2, ?3, ?4, ?5, ?6)", &ix->q.put_cached},
        {"DELETE FROM cached WHERE chunk = ?1", &ix->q.drop_cached},
    };
    int r = 0;

    for (size_t i = 0; i < ARRAY_SIZE(all) && r == 0; i++)
        r = index_prepare(ix, ix->db, all[i].sql, all[i].q);
    if (r == 0)
        r = index_connect(ix, SQLITE_OPEN_READONLY, &ix->read_db);
    if (r == 0)
        r = index_connect(ix, SQLITE_OPEN_READONLY, &ix->segments_db);
    if (r == 0)
        r = index_map_prepare(ix);
    return r == 0 ? index_segments_prepare(ix) : r;
}

int index_open(const char *path, const uint8_t uuid[UUID_BYTES], struct index **ret)
{
    struct index *ix = calloc(1, sizeof *ix);
    int r;

    if (!ix)
        return -ENOMEM;
    pthread_mutex_init(&ix->write_lock, NULL);
    pthread_mutex_init(&ix->read_lock, NULL);
    pthread_mutex_init(&ix->segments_lock, NULL);
    memcpy(ix->uuid, uuid, UUID_BYTES);
    r = format(ix->path, sizeof ix->path, "%s", path);
    if (r == 0)
        r = open_writer(ix);
    if (r == 0)
        r = prepare_all(ix);
    if (r < 0) {
        index_close(ix);
        return r;
    }
    *ret = ix;
    return 0;
}

int index_make_temporary(struct index *ix)
{
    scope_lock(&ix->write_lock);
    return index_exec(ix, "PRAGMA synchronous = OFF");
}

int index_sync_later(struct index *ix, bool later)
{
    scope_lock(&ix->write_lock);
    return index_exec(ix, later ? "PRAGMA synchronous = NORMAL" : "PRAGMA synchronous = FULL");
}

void index_close(struct index *ix)
{
    if (!ix)
        return;
    index_map_finalize(ix);
    index_segments_finalize(ix);
    free(ix->reload.items);
    sqlite3_stmt **q = (sqlite3_stmt **)&ix->q;
    for (size_t i = 0; i < sizeof ix->q / sizeof *q; i++)
        sqlite3_finalize(q[i]);
    sqlite3_close(ix->segments_db);
    sqlite3_close(ix->read_db);
    sqlite3_close(ix->db);
    pthread_mutex_destroy(&ix->segments_lock);
    pthread_mutex_destroy(&ix->read_lock);
    pthread_mutex_destroy(&ix->write_lock);
    free(ix);
}

bool index_damaged(const struct index *ix)
{
    return ix->damaged;
}

/* ------------------------------------------------------------------ meta */

void index_get_meta(struct index *ix, struct index_meta *ret)
{
    scope_lock(&ix->write_lock);
    *ret = ix->meta;
}

bool index_is_ours(const struct index_meta *meta, const struct log_position *pos)
{
    return memcmp(pos->nonce, meta->own_nonce, UUID_BYTES) == 0 ||
           memcmp(pos->nonce, meta->pending_nonce, UUID_BYTES) == 0;
}

int index_put_meta_locked(struct index *ix, const struct index_meta *m)
{
    sqlite3_stmt *q = ix->q.put_meta;

    sqlite3_bind_blob(q, 1, ix->uuid, UUID_BYTES, SQLITE_STATIC);
    bind_u64(q, 2, m->pos.seq);
    bind_u64(q, 3, m->pos.next);
    bind_u64(q, 4, m->pos.size_blocks);
    bind_u64(q, 5, m->pos.epoch);
    sqlite3_bind_blob(q, 6, m->pos.nonce, UUID_BYTES, SQLITE_TRANSIENT);
    bind_u64(q, 7, m->pos.claim);
    sqlite3_bind_blob(q, 8, m->own_nonce, UUID_BYTES, SQLITE_TRANSIENT);
    sqlite3_bind_blob(q, 9, m->pending_nonce, UUID_BYTES, SQLITE_TRANSIENT);
    bind_u64(q, 10, m->clean);
    bind_u64(q, 11, m->mapped_blocks);
    bind_u64(q, 12, m->local_blocks);
    bind_u64(q, 13, m->inventoried);
    bind_u64(q, 14, m->life);
    return index_step(ix, q);
}

int index_end_locked(struct index *ix, int r, const struct index_meta *meta)
{
    if (r == 0)
        r = index_step(ix, ix->q.commit);
    if (r == 0)
        ix->meta = *meta;
    else if (!sqlite3_get_autocommit(ix->db))
        index_step(ix, ix->q.rollback);
    return r;
}

int index_put_meta(struct index *ix, const struct index_meta *meta)
{
    scope_lock(&ix->write_lock);
    struct index_meta m = *meta;
    int r = index_step(ix, ix->q.begin);

    m.pos = ix->meta.pos;
    m.mapped_blocks = ix->meta.mapped_blocks;
    m.fresh = false;
    if (r == 0)
        r = index_put_meta_locked(ix, &m);
    return index_end_locked(ix, r, &m);
}

/* ------------------------------------------------------------------ cached */

enum { SUMS_MAX = 8 + 4 * CHUNK_BLOCKS };

/* As stored: which blocks (le64), and the sum of each (le32). */
static size_t encode_sums(const struct index_cached *row, uint8_t out[SUMS_MAX])
{
    uint64_t mask = 0;
    size_t len = 8;

    for (uint64_t rest = row->sums ? row->valid & ~row->zero : 0; rest; rest &= rest - 1) {
        unsigned block = (unsigned)__builtin_ctzll(rest);
        if (!row->sums[block])
            continue;
        mask |= UINT64_C(1) << block;
        put_le32(out + len, row->sums[block]);
        len += 4;
    }
    put_le64(out, mask);
    return mask ? len : 0;
}

/* What no writer stores becomes sums that hardly any block has: then none of them is believed. */
static void decode_sums(const uint8_t *data, size_t len, uint32_t ret[CHUNK_BLOCKS])
{
    uint64_t mask = len >= 8 ? get_le64(data) : 0;
    bool sane = len == 8 + 4 * (size_t)mask_count(mask);

    memset(ret, sane ? 0 : 0xff, CHUNK_BLOCKS * sizeof *ret);
    for (size_t at = 8; sane && mask; mask &= mask - 1, at += 4)
        ret[__builtin_ctzll(mask)] = get_le32(data + at);
}

static int record_row(struct index *ix, const struct index_cached *row)
{
    uint8_t sums[SUMS_MAX];
    sqlite3_stmt *q = row->valid ? ix->q.put_cached : ix->q.drop_cached;

    bind_u64(q, 1, row->chunk);
    if (row->valid) {
        sqlite3_bind_int64(q, 2, row->slot);
        bind_u64(q, 3, row->valid);
        bind_u64(q, 4, row->zero);
        bind_u64(q, 5, row->dirty);
        size_t len = encode_sums(row, sums);
        sqlite3_bind_blob(q, 6, len ? sums : NULL, (int)len, SQLITE_STATIC);
    }
    return index_step(ix, q);
}

int index_record(struct index *ix, const struct index_cached *rows, size_t nrows,
                 uint64_t size_blocks, bool only)
{
    scope_lock(&ix->write_lock);
    struct index_meta m = ix->meta;
    if (nrows == 0 && !only && size_blocks == m.local_blocks)
        return 0;
    int r = index_step(ix, ix->q.begin);

    if (r == 0 && only)
        r = index_exec(ix, "DELETE FROM cached");
    for (size_t i = 0; i < nrows && r == 0; i++)
        r = record_row(ix, &rows[i]);
    m.local_blocks = size_blocks;
    if (r == 0 && m.local_blocks != ix->meta.local_blocks)
        r = index_put_meta_locked(ix, &m);
    return index_end_locked(ix, r, &m);
}

int index_forget(struct index *ix, bool dirty_too)
{
    scope_lock(&ix->write_lock);
    return index_exec(ix, dirty_too
                              ? "DELETE FROM cached"
                              : "BEGIN; DELETE FROM cached WHERE dirty = 0;"
                                "UPDATE cached SET valid = dirty, zero = zero & dirty; COMMIT");
}

int index_forget_sums(struct index *ix)
{
    scope_lock(&ix->write_lock);
    return index_exec(ix, "UPDATE cached SET sums = NULL WHERE dirty <> 0");
}

/* The row that `q` stands on. */
static struct index_cached read_cached(sqlite3_stmt *q, uint32_t sums[CHUNK_BLOCKS])
{
    const void *blob = sqlite3_column_blob(q, 6); /* NULL if empty */

    if (blob)
        decode_sums(blob, (size_t)sqlite3_column_bytes(q, 6), sums);
    return (struct index_cached){.chunk = column_u64(q, 0),
                                 .valid = column_u64(q, 1),
                                 .zero = column_u64(q, 2),
                                 .dirty = column_u64(q, 3),
                                 .slot = (uint32_t)sqlite3_column_int64(q, 4),
                                 .sums = blob ? sums : NULL,
                                 .mapped = column_u64(q, 5)};
}

int index_each_cached(struct index *ix, index_cached_fn *fn, void *ctx)
{
    scope_lock(&ix->write_lock);
    uint32_t sums[CHUNK_BLOCKS];
    sqlite3_stmt *q;
    int step = SQLITE_DONE;
    int r = index_prepare(ix, ix->db,
                          "SELECT c.chunk, valid, zero, dirty, slot, ifnull(m.mask, 0), sums"
                          " FROM cached c LEFT JOIN map m ON m.chunk = c.chunk"
                          " ORDER BY c.chunk",
                          &q);

    if (r < 0)
        return r;
    while (r == 0 && (step = sqlite3_step(q)) == SQLITE_ROW) {
        struct index_cached row = read_cached(q, sums);
        r = fn(ctx, &row);
    }
    if (r == 0 && step != SQLITE_DONE)
        r = index_error(ix, ix->db, "read");
    sqlite3_finalize(q);
    return r;
}

int index_count_dirty(struct index *ix, uint64_t *ret_chunks, uint64_t *ret_blocks)
{
    scope_lock(&ix->write_lock);
    sqlite3_stmt *q;
    int r = index_prepare(ix, ix->db,
                          "SELECT count(*), ifnull(sum(popcount(dirty)), 0) FROM cached"
                          " WHERE dirty <> 0",
                          &q);

    if (r < 0)
        return r;
    if (sqlite3_step(q) == SQLITE_ROW) {
        *ret_chunks = column_u64(q, 0);
        *ret_blocks = column_u64(q, 1);
    } else {
        r = index_error(ix, ix->db, "read");
    }
    sqlite3_finalize(q);
    return r;
}
