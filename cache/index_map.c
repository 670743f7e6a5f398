/* The map in index.db: places of blocks. The contract is in index.h. */
#include "index_internal.h"

#include "../store/msg.h"
#include "../store/scope.h"

#include <string.h>

#ifndef SMALL_LIMITS
enum { PIECE_BYTES = 4 << 20 }; /* of a new map, in one transaction */
#else
enum { PIECE_BYTES = 512 };
#endif

int index_map_prepare(struct index *ix)
{
    const struct {
        sqlite3 *db;
        const char *sql;
        sqlite3_stmt **q;
    } all[] = {
        {ix->db, "SELECT places FROM map WHERE chunk = ?1", &ix->q.get_places},
        {ix->db, "REPLACE INTO map VALUES(?1, ?2, ?3)", &ix->q.put_places},
        {ix->db, "DELETE FROM map WHERE chunk = ?1", &ix->q.drop_places},
        {ix->db, "SELECT chunk, places FROM map WHERE chunk BETWEEN ?1 AND ?2", &ix->q.read_range},
        {ix->db, "DELETE FROM map WHERE chunk BETWEEN ?1 AND ?2", &ix->q.drop_range},
        {ix->db,
         "UPDATE cached SET valid = valid & (~?3 | dirty), zero = zero & (~?3 | dirty)"
         " WHERE chunk BETWEEN ?1 AND ?2",
         &ix->q.trim_cached},
        {ix->read_db, "SELECT places FROM map WHERE chunk = ?1", &ix->load},
        {ix->read_db, "SELECT mask FROM map WHERE chunk = ?1", &ix->mask},
        {ix->read_db,
         "SELECT chunk, mask FROM map WHERE chunk BETWEEN ?1 AND ?2 ORDER BY chunk LIMIT ?3",
         &ix->scan},
    };
    int r = 0;

    for (size_t i = 0; i < ARRAY_SIZE(all) && r == 0; i++)
        r = index_prepare(ix, all[i].db, all[i].sql, all[i].q);
    return r;
}

void index_map_finalize(struct index *ix)
{
    sqlite3_finalize(ix->load);
    sqlite3_finalize(ix->mask);
    sqlite3_finalize(ix->scan);
}

/* The row that `q` stands on, or none (n = 0). */
static int read_places(struct index *ix, sqlite3_stmt *q, int step, uint64_t chunk, int column,
                       struct places *ret)
{
    ret->n = 0;
    if (step == SQLITE_DONE)
        return 0;
    if (step != SQLITE_ROW)
        return index_error(ix, sqlite3_db_handle(q), "read");
    if (places_decode(sqlite3_column_blob(q, column), (size_t)sqlite3_column_bytes(q, column),
                      chunk, ret) == 0)
        return 0;
    ix->damaged = true;
    msg_warn("%s: the places of chunk %llu make no sense", ix->path, (unsigned long long)chunk);
    return -EBADMSG;
}

/* ------------------------------------------------------------------ taking in commits */

/* Consecutive entries mostly speak of one chunk: its row is held until the next one's. */
struct applying {
    struct index *ix;
    struct index_meta meta;
    struct tally tally;
    bool forget;
    bool open; /* there is a row held */
    uint64_t chunk, touched;
    unsigned before; /* blocks it had */
    struct places places;
};

static int forget_blocks(struct applying *a, uint64_t first, uint64_t last, uint64_t mask)
{
    sqlite3_stmt *q = a->ix->q.trim_cached;

    if (!a->forget)
        return 0;
    bind_u64(q, 1, first);
    bind_u64(q, 2, last);
    bind_u64(q, 3, mask);
    return index_step(a->ix, q);
}

static int close_row(struct applying *a)
{
    uint8_t blob[CHUNK_BLOCKS * ENTRY_BYTES];
    sqlite3_stmt *q = a->places.n ? a->ix->q.put_places : a->ix->q.drop_places;
    uint64_t mask = places_mask(&a->places);

    if (!a->open)
        return 0;
    a->open = false;
    a->meta.mapped_blocks += mask_count(mask) - a->before;
    bind_u64(q, 1, a->chunk);
    if (a->places.n) {
        bind_u64(q, 2, mask);
        sqlite3_bind_blob(q, 3, blob, (int)places_encode(&a->places, blob), SQLITE_STATIC);
    }
    int r = index_step(a->ix, q);
    return r == 0 ? forget_blocks(a, a->chunk, a->chunk, a->touched) : r;
}

static int open_row(struct applying *a, uint64_t chunk)
{
    sqlite3_stmt *q = a->ix->q.get_places;
    int r = 0;

    if (a->open && a->chunk == chunk)
        return 0;
    r = close_row(a);
    if (r < 0)
        return r;
    bind_u64(q, 1, chunk);
    r = read_places(a->ix, q, sqlite3_step(q), chunk, 0, &a->places);
    sqlite3_reset(q);
    if (r < 0)
        return r;
    a->open = true;
    a->chunk = chunk;
    a->touched = 0;
    a->before = mask_count(places_mask(&a->places));
    return 0;
}

/* What of its segment lives for `n` blocks of a place: their part of the frame, and of an entry
 * that tells of it: else a segment of what compresses well would look dead for ever. The same for
 * each block, so that what is added piece by piece is taken away to the last byte. */
static int64_t share(const struct entry *e, unsigned n)
{
    return ((int64_t)e->stored_bytes + ENTRY_BYTES + e->frame_blocks - 1) / e->frame_blocks * n;
}

/* What the blocks [first, first + n) have of segments of our own: `sign` times. */
static int tally_places(struct tally *t, const struct places *p, unsigned first, unsigned n,
                        int sign)
{
    int r = 0;

    for (unsigned i = 0; i < p->n && r == 0; i++) {
        const struct entry *e = &p->e[i];
        unsigned e_first = (unsigned)(e->block % CHUNK_BLOCKS);
        unsigned from = MAX(first, e_first), to = MIN(first + n, e_first + (unsigned)e->nblocks);
        if (from < to && e->base == 0)
            r = tally_add(t, (struct tally_item){.seq = e->seq,
                                                 .blocks = sign * (int64_t)(to - from),
                                                 .bytes = sign * share(e, to - from)});
    }
    return r;
}

static int zero_in_chunk(struct applying *a, uint64_t block, unsigned n)
{
    unsigned first = (unsigned)(block % CHUNK_BLOCKS);
    int r = open_row(a, block / CHUNK_BLOCKS);

    if (r == 0)
        r = tally_places(&a->tally, &a->places, first, n, -1);
    if (r == 0) {
        places_clear(&a->places, first, n);
        a->touched |= mask_range(first, n);
    }
    return r;
}

static int zero_whole_chunks(struct applying *a, uint64_t first, uint64_t last)
{
    sqlite3_stmt *read = a->ix->q.read_range, *drop = a->ix->q.drop_range;
    struct places p;
    int step, r = close_row(a);

    bind_u64(read, 1, first);
    bind_u64(read, 2, last);
    while (r == 0 && (step = sqlite3_step(read)) != SQLITE_DONE) {
        r = read_places(a->ix, read, step, step == SQLITE_ROW ? column_u64(read, 0) : 0, 1, &p);
        if (r == 0)
            r = tally_places(&a->tally, &p, 0, CHUNK_BLOCKS, -1);
        if (r == 0)
            a->meta.mapped_blocks -= mask_count(places_mask(&p));
    }
    sqlite3_reset(read);
    if (r < 0)
        return r;
    bind_u64(drop, 1, first);
    bind_u64(drop, 2, last);
    r = index_step(a->ix, drop);
    return r == 0 ? forget_blocks(a, first, last, ~UINT64_C(0)) : r;
}

static int apply_zero(struct applying *a, uint64_t block, uint64_t n)
{
    int r = 0;

    while (r == 0 && n > 0) {
        uint64_t at = block % CHUNK_BLOCKS, step;
        if (at == 0 && n >= 2 * CHUNK_BLOCKS) {
            step = ROUND_DOWN(n, (uint64_t)CHUNK_BLOCKS);
            r = zero_whole_chunks(a, block / CHUNK_BLOCKS, (block + step) / CHUNK_BLOCKS - 1);
        } else {
            step = MIN(n, CHUNK_BLOCKS - at);
            r = zero_in_chunk(a, block, (unsigned)step);
        }
        block += step;
        n -= step;
    }
    return r;
}

static int apply_data(struct applying *a, const struct entry *e)
{
    unsigned first = (unsigned)(e->block % CHUNK_BLOCKS);
    int r = open_row(a, e->block / CHUNK_BLOCKS);

    if (r == 0)
        r = tally_places(&a->tally, &a->places, first, (unsigned)e->nblocks, -1);
    if (r < 0)
        return r;
    places_put(&a->places, e);
    a->touched |= mask_range(first, (unsigned)e->nblocks);
    return tally_places(&a->tally, &a->places, first, (unsigned)e->nblocks, 1);
}

/* What the blocks are does not change, only where. */
static int apply_move(struct applying *a, const struct entry *e)
{
    unsigned first = (unsigned)(e->block % CHUNK_BLOCKS);
    int r = open_row(a, e->block / CHUNK_BLOCKS);

    if (r == 0)
        r = tally_places(&a->tally, &a->places, first, (unsigned)e->nblocks, -1);
    if (r < 0)
        return r;
    places_move(&a->places, e);
    return tally_places(&a->tally, &a->places, first, (unsigned)e->nblocks, 1);
}

/* The objects of a commit: about their bytes (of entries that tell of zeros nothing says in which
 * of them they are). */
static int tally_objects(struct applying *a, const struct entry *entries, size_t n,
                         uint64_t nsegments)
{
    uint64_t last = a->meta.pos.seq;
    int r = 0;

    for (uint64_t i = 0; i < nsegments && r == 0; i++)
        r = tally_add(&a->tally, (struct tally_item){.seq = last - i, .stored = HEADER_BYTES});
    for (size_t i = 0; i < n && r == 0; i++) {
        const struct entry *e = &entries[i], *before = i > 0 ? e - 1 : NULL;
        int64_t stored = ENTRY_BYTES;
        if (e->kind == ENTRY_ZERO || e->base || e->seq + nsegments <= last)
            continue;
        if (!before || before->offset != e->offset || before->seq != e->seq)
            stored += e->stored_bytes;
        r = tally_add(&a->tally, (struct tally_item){.seq = e->seq, .stored = stored});
    }
    return r;
}

static int apply_entry(struct applying *a, const struct entry *e)
{
    return e->kind == ENTRY_ZERO   ? apply_zero(a, e->block, e->nblocks)
           : e->kind == ENTRY_MOVE ? apply_move(a, e)
                                   : apply_data(a, e);
}

int index_apply(struct index *ix, const struct entry *entries, size_t nentries, uint64_t nsegments,
                const struct log_position *pos, bool forget)
{
    scope_lock(&ix->write_lock);
    struct applying a = {.ix = ix, .meta = ix->meta, .forget = forget};
    int r = index_step(ix, ix->q.begin);

    a.meta.pos = *pos;
    a.meta.fresh = false;
    for (size_t i = 0; i < nentries && r == 0; i++)
        r = apply_entry(&a, &entries[i]);
    if (r == 0)
        r = close_row(&a);
    if (r == 0)
        r = tally_objects(&a, entries, nentries, nsegments);
    if (r == 0)
        r = index_tally_locked(ix, &a.tally, pos->seq);
    free(a.tally.items);
    if (r == 0)
        r = index_put_meta_locked(ix, &a.meta);
    return index_end_locked(ix, r, &a.meta);
}

/* ------------------------------------------------------------------ a new map */

/* It is written piece by piece, so that neither memory nor the -wal has all of it. As long as it is
 * not the map it is nothing: who is stopped leaves it to the next one, or to index_open(). */
int index_reload_begin(struct index *ix)
{
    scope_lock(&ix->write_lock);
    ix->reload.n = 0;
    ix->reload_blocks = ix->reload_bytes = 0;
    ix->reload_prepared = false;
    int r = index_exec(ix, "BEGIN; DROP TABLE IF EXISTS new_map;"
                           "CREATE TABLE new_map(chunk INTEGER PRIMARY KEY, mask INTEGER NOT NULL,"
                           " places BLOB NOT NULL)");
    return r < 0 ? index_end_locked(ix, r, &ix->meta) : 0;
}

static int insert_new(struct index *ix, sqlite3_stmt *q, const struct places *p)
{
    uint8_t blob[CHUNK_BLOCKS * ENTRY_BYTES];
    uint64_t mask = places_mask(p);

    if (p->n == 0)
        return 0;
    int r = tally_places(&ix->reload, p, 0, CHUNK_BLOCKS, 1);
    if (r < 0)
        return r;
    size_t len = places_encode(p, blob);
    ix->reload_blocks += mask_count(mask);
    ix->reload_bytes += len;
    bind_u64(q, 1, p->e[0].block / CHUNK_BLOCKS);
    bind_u64(q, 2, mask);
    sqlite3_bind_blob(q, 3, blob, (int)len, SQLITE_STATIC);
    return index_step(ix, q);
}

static int end_piece(struct index *ix)
{
    if (ix->reload_bytes < PIECE_BYTES)
        return 0;
    ix->reload_bytes = 0;
    int r = index_step(ix, ix->q.commit);
    return r == 0 ? index_step(ix, ix->q.begin) : r;
}

int index_reload_add(struct index *ix, const struct entry *entries, size_t nentries)
{
    scope_lock(&ix->write_lock);
    struct places p = {0};
    sqlite3_stmt *q;
    int r = index_prepare(ix, ix->db, "INSERT INTO new_map VALUES(?1, ?2, ?3)", &q);

    for (size_t i = 0; i < nentries && r == 0; i++) {
        if (p.n > 0 && p.e[0].block / CHUNK_BLOCKS != entries[i].block / CHUNK_BLOCKS) {
            r = insert_new(ix, q, &p);
            p.n = 0;
        }
        p.e[p.n++] = entries[i];
    }
    if (r == 0)
        r = insert_new(ix, q, &p);
    sqlite3_finalize(q);
    return r == 0 ? end_piece(ix) : r;
}

static int swap_maps(struct index *ix, uint64_t seq)
{
    int r =
        index_exec(ix, "DELETE FROM cached WHERE dirty = 0 AND"
                       " (SELECT places FROM map m WHERE m.chunk = cached.chunk) IS NOT"
                       " (SELECT places FROM new_map n WHERE n.chunk = cached.chunk);"
                       "DROP TABLE map; ALTER TABLE new_map RENAME TO map; DELETE FROM segments");

    return r == 0 ? index_tally_locked(ix, &ix->reload, seq) : r;
}

static int prepare_locked(struct index *ix, const struct log_position *pos)
{
    struct index_meta m = ix->meta;
    int r = swap_maps(ix, pos->seq);

    if (r < 0)
        return r;
    m.pos = *pos;
    m.mapped_blocks = ix->reload_blocks;
    m.fresh = m.inventoried = false;
    ix->reload_meta = m;
    ix->reload_prepared = true;
    return index_put_meta_locked(ix, &m);
}

int index_reload_prepare(struct index *ix, const struct log_position *pos)
{
    scope_lock(&ix->write_lock);
    return prepare_locked(ix, pos);
}

int index_reload_end(struct index *ix, const struct log_position *pos, bool ok)
{
    scope_lock(&ix->write_lock);
    int r = ok ? 0 : -ECANCELED;

    if (r == 0 && !ix->reload_prepared)
        r = prepare_locked(ix, pos);
    r = index_end_locked(ix, r, &ix->reload_meta);
    if (r < 0) /* its place is of use to others; if even that fails, later */
        sqlite3_exec(ix->db, "DROP TABLE IF EXISTS new_map", NULL, NULL, NULL);
    return ok ? r : 0;
}

/* ------------------------------------------------------------------ looking up */

int index_load(struct index *ix, uint64_t chunk, struct places *ret)
{
    scope_lock(&ix->read_lock);
    bind_u64(ix->load, 1, chunk);
    int r = read_places(ix, ix->load, sqlite3_step(ix->load), chunk, 0, ret);
    sqlite3_reset(ix->load);
    return r;
}

int index_mask(struct index *ix, uint64_t chunk, uint64_t *ret_mask)
{
    scope_lock(&ix->read_lock);
    int r = 0;

    bind_u64(ix->mask, 1, chunk);
    int step = sqlite3_step(ix->mask);
    if (step == SQLITE_ROW || step == SQLITE_DONE)
        *ret_mask = step == SQLITE_ROW ? column_u64(ix->mask, 0) : 0;
    else
        r = index_error(ix, ix->read_db, "read");
    sqlite3_reset(ix->mask);
    return r;
}

int index_scan(struct index *ix, uint64_t chunk, uint64_t last, struct index_hit *hits, size_t max,
               size_t *ret_n)
{
    scope_lock(&ix->read_lock);
    size_t n = 0;
    int step, r = 0;

    bind_u64(ix->scan, 1, chunk);
    bind_u64(ix->scan, 2, last);
    bind_u64(ix->scan, 3, max);
    while ((step = sqlite3_step(ix->scan)) == SQLITE_ROW && n < max)
        hits[n++] = (struct index_hit){column_u64(ix->scan, 0), column_u64(ix->scan, 1)};
    if (step != SQLITE_DONE && step != SQLITE_ROW)
        r = index_error(ix, ix->read_db, "read");
    sqlite3_reset(ix->scan);
    if (r == 0)
        *ret_n = n;
    return r;
}

/* ------------------------------------------------------------------ views */

/* A connection of its own, in one read transaction. */
struct index_view {
    struct index *ix;
    sqlite3 *db;
    sqlite3_stmt *load; /* NULL: not yet */
};

int index_view_begin(struct index *ix, struct index_view **ret, struct log_position *ret_pos)
{
    struct index_view *v = calloc(1, sizeof *v);
    sqlite3_stmt *q = NULL;
    int r = 0, step;

    if (!v)
        return -ENOMEM;
    v->ix = ix;
    r = index_connect(ix, SQLITE_OPEN_READONLY, &v->db);
    if (r < 0) {
        index_view_end(v);
        return r;
    }
    if (sqlite3_exec(v->db, "PRAGMA cache_size = -1024; BEGIN", NULL, NULL, NULL) != SQLITE_OK ||
        sqlite3_prepare_v2(v->db, "SELECT seq, next, size_blocks, epoch, nonce, claim FROM meta",
                           -1, &q, NULL) != SQLITE_OK) {
        r = index_error(ix, v->db, "read");
    } else if ((step = sqlite3_step(q)) == SQLITE_DONE) {
        *ret_pos = (struct log_position){.next = 1}; /* nothing was stored yet */
    } else if (step != SQLITE_ROW) {
        r = index_error(ix, v->db, "read");
    } else {
        *ret_pos = (struct log_position){.seq = column_u64(q, 0),
                                         .next = column_u64(q, 1),
                                         .size_blocks = column_u64(q, 2),
                                         .epoch = column_u64(q, 3),
                                         .claim = column_u64(q, 5)};
        if (sqlite3_column_bytes(q, 4) == UUID_BYTES)
            memcpy(ret_pos->nonce, sqlite3_column_blob(q, 4), UUID_BYTES);
    }
    sqlite3_finalize(q);
    if (r < 0)
        index_view_end(v);
    else
        *ret = v;
    return r;
}

int index_view_each(struct index_view *v, uint64_t first, uint64_t end, index_view_fn *fn,
                    void *ctx)
{
    struct places p;
    sqlite3_stmt *q;
    int step, r;

    r = index_prepare(v->ix, v->db,
                      "SELECT chunk, places FROM map WHERE chunk >= ?1 AND chunk < ?2"
                      " ORDER BY chunk",
                      &q);
    if (r < 0)
        return r;
    bind_u64(q, 1, first);
    bind_u64(q, 2, end);
    while (r == 0 && (step = sqlite3_step(q)) != SQLITE_DONE) {
        r = read_places(v->ix, q, step, step == SQLITE_ROW ? column_u64(q, 0) : 0, 1, &p);
        if (r == 0)
            r = fn(ctx, &p);
    }
    sqlite3_finalize(q);
    return r;
}

int index_view_load(struct index_view *v, uint64_t chunk, struct places *ret)
{
    int r = v->load
                ? 0
                : index_prepare(v->ix, v->db, "SELECT places FROM map WHERE chunk = ?1", &v->load);

    if (r < 0)
        return r;
    bind_u64(v->load, 1, chunk);
    r = read_places(v->ix, v->load, sqlite3_step(v->load), chunk, 0, ret);
    sqlite3_reset(v->load);
    return r;
}

void index_view_end(struct index_view *v)
{
    if (!v)
        return;
    sqlite3_finalize(v->load);
    sqlite3_close(v->db);
    free(v);
}
